"""The peer state machine and its messages: RFC 6733 sections 2.1, 5 and 6.2, RFC 3539 section 3.4.1.

"row n" is the row of the conformance table.
"""

from collections.abc import Callable
from ipaddress import ip_network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.diameter import codec
from protocols.diameter.codes import DisconnectCause, Flag
from protocols.diameter.events import (
    AnswerReceived,
    Closed,
    Event,
    Opened,
    Recovered,
    Refused,
    RequestReceived,
    Role,
    StateIdChanged,
    Suspect,
)
from protocols.diameter.link import MAX_OCTETS_BEFORE_OPEN, Disconnect, Link
from protocols.diameter.peer import IllegalTransitionError
from protocols.diameter.reception import accept
from protocols.diameter.settings import Admission, AllowedPeer, PeerPolicy
from protocols.diameter.state_table import TRANSITIONS, Action, PeerInput, PeerState
from protocols.diameter.watchdog import JITTER_SECONDS
from tests.protocols.in_memory import (
    LOOPBACK,
    OURS,
    THEIRS,
    Network,
    Side,
    Stranger,
    answer,
    base_request,
    ccr,
    cer,
    changed,
    dpr,
    dwr,
    origin,
    own_request,
    result_of,
)

RFC_6733_SECTION_5_6 = """
state               | event           | action                            | next state
Closed              | Start           | I-Snd-Conn-Req                    | Wait-Conn-Ack
                    | R-Conn-CER      | R-Accept, Process-CER, R-Snd-CEA  | R-Open
Wait-Conn-Ack       | I-Rcv-Conn-Ack  | I-Snd-CER                         | Wait-I-CEA
                    | I-Rcv-Conn-Nack | Cleanup                           | Closed
                    | R-Conn-CER      | R-Accept, Process-CER             | Wait-Conn-Ack/Elect
                    | Timeout         | Error                             | Closed
Wait-I-CEA          | I-Rcv-CEA       | Process-CEA                       | I-Open
                    | R-Conn-CER      | R-Accept, Process-CER, Elect      | Wait-Returns
                    | I-Peer-Disc     | I-Disc                            | Closed
                    | I-Rcv-Non-CEA   | Error                             | Closed
                    | Timeout         | Error                             | Closed
Wait-Conn-Ack/Elect | I-Rcv-Conn-Ack  | I-Snd-CER, Elect                  | Wait-Returns
                    | I-Rcv-Conn-Nack | R-Snd-CEA                         | R-Open
                    | R-Peer-Disc     | R-Disc                            | Wait-Conn-Ack
                    | R-Conn-CER      | R-Reject                          | Wait-Conn-Ack/Elect
                    | Timeout         | Error                             | Closed
Wait-Returns        | Win-Election    | I-Disc, R-Snd-CEA                 | R-Open
                    | I-Peer-Disc     | I-Disc, R-Snd-CEA                 | R-Open
                    | I-Rcv-CEA       | R-Disc                            | I-Open
                    | R-Peer-Disc     | R-Disc                            | Wait-I-CEA
                    | R-Conn-CER      | R-Reject                          | Wait-Returns
                    | Timeout         | Error                             | Closed
R-Open              | Send-Message    | R-Snd-Message                     | R-Open
                    | R-Rcv-Message   | Process                           | R-Open
                    | R-Rcv-DWR       | Process-DWR, R-Snd-DWA            | R-Open
                    | R-Rcv-DWA       | Process-DWA                       | R-Open
                    | R-Conn-CER      | R-Reject                          | R-Open
                    | Stop            | R-Snd-DPR                         | Closing
                    | R-Rcv-DPR       | R-Snd-DPA                         | Closing
                    | R-Peer-Disc     | R-Disc                            | Closed
I-Open              | Send-Message    | I-Snd-Message                     | I-Open
                    | I-Rcv-Message   | Process                           | I-Open
                    | I-Rcv-DWR       | Process-DWR, I-Snd-DWA            | I-Open
                    | I-Rcv-DWA       | Process-DWA                       | I-Open
                    | R-Conn-CER      | R-Reject                          | I-Open
                    | Stop            | I-Snd-DPR                         | Closing
                    | I-Rcv-DPR       | I-Snd-DPA                         | Closing
                    | I-Peer-Disc     | I-Disc                            | Closed
Closing             | I-Rcv-DPA       | I-Disc                            | Closed
                    | R-Rcv-DPA       | R-Disc                            | Closed
                    | Timeout         | Error                             | Closed
                    | I-Peer-Disc     | I-Disc                            | Closed
                    | R-Peer-Disc     | R-Disc                            | Closed
"""


def test_the_table_is_that_of_rfc_6733_section_5_6() -> None:
    expected = {}
    state = PeerState.CLOSED
    for line in RFC_6733_SECTION_5_6.strip().splitlines()[1:]:
        first, event, actions, following = (cell.strip() for cell in line.split("|"))
        state = PeerState(first) if first else state
        expected[state, _name(event)] = ([_name(action) for action in actions.split(",")], following)
    actual = {
        (state, event.name): ([action.name for action in actions], following.value)
        for state, entries in TRANSITIONS.items()
        for event, (actions, following) in entries.items()
    }
    assert actual == expected


def _name(text: str) -> str:
    return text.strip().upper().replace("-", "_")


# Every state by what a real node can meet with, and everything that can happen in every state


class Stage:
    """A peer and its connections. Our Origin-Host loses every election, so that Wait-Returns lasts."""

    def __init__(self, origin_host: str = "aaa.example.net") -> None:
        self.side = Side(changed(OURS, origin_host=origin_host))
        self.peer = self.side.table.find_or_add("pgw.example.org")
        self.now = 1000.0
        self.events: list[Event] = []
        self.accepted: list[Link] = []

    @property
    def link(self) -> Link:
        """The connection in use, or the only one there is."""
        link = self.peer.open_link or self.peer.initiator or self.peer.responder
        assert link is not None
        return link

    def start(self) -> None:
        self.peer.start(self.now)

    def connect(self) -> None:
        self.events += self.peer.connected(LOOPBACK, LOOPBACK, self.now)[1]

    def connect_failed(self) -> None:
        self.events += self.peer.connect_failed("connection refused", self.now)

    def accept(self) -> None:
        link = accept(self.side.table, LOOPBACK, LOOPBACK, self.now)
        self.accepted.append(link)
        self.events += link.receive_data(cer(), self.now)

    def receive(self, data: bytes, link: Link | None = None) -> None:
        self.events += (link or self.link).receive_data(data, self.now)

    def receive_cea(self) -> None:
        link = self.peer.initiator
        assert link is not None
        self.receive(good_cea(codec.decode(link.output[0])), link)

    def receive_non_cea(self) -> None:
        self.receive(dwr(), self.peer.initiator)

    def receive_answer(self) -> None:
        """The answer to the last request of the node."""
        self.receive(answer(codec.decode(self.link.output[-1])))

    def lose(self, link: Link | None) -> None:
        assert link is not None
        self.events += self.peer.link_lost(link, "it closed its connection", self.now)

    def time_out(self) -> None:
        self.events += self.peer.handle_timeout(self.now + 3600)

    def receive_dwa(self) -> None:
        """After the watchdog sent its DWR."""
        self.events += self.peer.handle_timeout(self.now + 40)
        self.receive_answer()

    def state(self) -> PeerState:
        return self.peer.state

    def stop(self) -> None:
        self.events += self.peer.stop(DisconnectCause.REBOOTING, self.now)


def good_cea(request: codec.Message, result: int = 2001, host: str = "pgw.example.org") -> bytes:
    return codec.answer_to(
        request,
        [
            codec.avp("Result-Code", result),
            *origin(host),
            codec.avp("Host-IP-Address", LOOPBACK),
            codec.avp("Vendor-Id", 0),
            codec.avp("Product-Name", "tester"),
            codec.avp("Auth-Application-Id", 4),
        ],
    )


_S = PeerState
_E = PeerInput

REACH: dict[PeerState, tuple[Callable[[Stage], None], ...]] = {
    _S.CLOSED: (),
    _S.WAIT_CONN_ACK: (Stage.start,),
    _S.WAIT_I_CEA: (Stage.start, Stage.connect),
    _S.WAIT_CONN_ACK_ELECT: (Stage.start, Stage.accept),
    _S.WAIT_RETURNS: (Stage.start, Stage.connect, Stage.accept),
    _S.R_OPEN: (Stage.accept,),
    _S.I_OPEN: (Stage.start, Stage.connect, Stage.receive_cea),
    _S.CLOSING: (Stage.accept, Stage.stop),
}

HAPPENINGS: dict[str, tuple[Callable[[Stage], None], set[PeerInput]]] = {
    "start": (Stage.start, {_E.START}),
    "a CER on a new connection": (Stage.accept, {_E.R_CONN_CER}),
    "the transport comes up": (Stage.connect, {_E.I_RCV_CONN_ACK}),
    "the transport does not come up": (Stage.connect_failed, {_E.I_RCV_CONN_NACK}),
    "time passes": (Stage.time_out, {_E.TIMEOUT}),
    "a CEA": (Stage.receive_cea, {_E.I_RCV_CEA}),
    "a non-CEA": (Stage.receive_non_cea, {_E.I_RCV_NON_CEA}),
    "our connection is lost": (lambda stage: stage.lose(stage.peer.initiator), {_E.I_PEER_DISC}),
    "their connection is lost": (lambda stage: stage.lose(stage.peer.responder), {_E.R_PEER_DISC}),
    "a CCR": (lambda stage: stage.receive(ccr()), {_E.I_RCV_MESSAGE, _E.R_RCV_MESSAGE}),
    "a DWR": (lambda stage: stage.receive(dwr()), {_E.I_RCV_DWR, _E.R_RCV_DWR}),
    "a DPR": (lambda stage: stage.receive(dpr()), {_E.I_RCV_DPR, _E.R_RCV_DPR}),
    "a DWA": (Stage.receive_dwa, {_E.I_RCV_DWA, _E.R_RCV_DWA}),
    "a DPA": (Stage.receive_answer, {_E.I_RCV_DPA, _E.R_RCV_DPA}),
    "stop": (Stage.stop, {_E.STOP}),
}
"""What happens, and which events of the table it can be."""

CANNOT_HAPPEN: dict[PeerState, set[str]] = {
    _S.CLOSED: {"a CEA", "a non-CEA", "our connection is lost", "their connection is lost"},
    _S.WAIT_CONN_ACK: {"a CEA", "a non-CEA", "our connection is lost", "their connection is lost"},
    _S.WAIT_I_CEA: {"their connection is lost"},
    _S.WAIT_CONN_ACK_ELECT: {"a CEA", "a non-CEA", "our connection is lost"},
    _S.WAIT_RETURNS: set(),
    _S.R_OPEN: {"a CEA", "a non-CEA", "our connection is lost"},
    _S.I_OPEN: {"a CEA", "their connection is lost"},
    _S.CLOSING: {"a CEA", "a non-CEA", "our connection is lost"},
}
"""For want of a connection it could happen on."""

BEYOND_THE_TABLE = {
    (_S.WAIT_RETURNS, "a non-CEA"): _S.R_OPEN,  # our connection failed, theirs is taken
    (_S.WAIT_CONN_ACK_ELECT, "a CCR"): _S.WAIT_CONN_ACK,  # they must wait for our CEA
    (_S.WAIT_CONN_ACK_ELECT, "a DWR"): _S.WAIT_CONN_ACK,
    (_S.WAIT_CONN_ACK_ELECT, "a DPR"): _S.WAIT_CONN_ACK,
    (_S.WAIT_I_CEA, "a CCR"): _S.CLOSED,  # a Non-CEA
    (_S.WAIT_I_CEA, "a DWR"): _S.CLOSED,
    (_S.WAIT_I_CEA, "a DPR"): _S.CLOSED,
    (_S.WAIT_RETURNS, "a CCR"): _S.R_OPEN,
    (_S.WAIT_RETURNS, "a DWR"): _S.R_OPEN,
    (_S.WAIT_RETURNS, "a DPR"): _S.R_OPEN,
    (_S.WAIT_CONN_ACK, "stop"): _S.CLOSED,  # what is half open is dropped
    (_S.WAIT_I_CEA, "stop"): _S.CLOSED,
    (_S.WAIT_CONN_ACK_ELECT, "stop"): _S.CLOSED,
    (_S.WAIT_RETURNS, "stop"): _S.CLOSED,
}
"""Where the table has no entry, the state stays as it is but for these."""

NEEDS_A_LINK = {"a CCR", "a DWR", "a DPR"}
ANSWERS = {"a DWA": (_S.R_OPEN, _S.I_OPEN), "a DPA": (_S.CLOSING,)}


def _can_happen(state: PeerState, happening: str) -> bool:
    if happening in NEEDS_A_LINK and state in (_S.CLOSED, _S.WAIT_CONN_ACK):
        return False
    return happening not in CANNOT_HAPPEN[state] and state in ANSWERS.get(happening, tuple(PeerState))


WALK = [(state, happening) for state in PeerState for happening in HAPPENINGS if _can_happen(state, happening)]


def entries_walked(state: PeerState, happening: str) -> set[PeerInput]:
    """The events of the table that this happening is in this state; no R_ event on a connection that we opened."""
    foreign = "R_RCV" if state is _S.I_OPEN else "I_RCV" if state in (_S.R_OPEN, _S.CLOSING) else "none"
    return {one for one in HAPPENINGS[happening][1] if one in TRANSITIONS[state] and not one.name.startswith(foreign)}


@pytest.mark.parametrize(("state", "happening"), WALK)
def test_whatever_happens_in_whatever_state(state: PeerState, happening: str) -> None:
    """RFC 6733 5.6: every entry leads where the table says; what has none changes nothing, or what is listed."""
    stage = Stage()
    for step in REACH[state]:
        step(stage)
    assert stage.state() is state
    act = HAPPENINGS[happening][0]
    events = entries_walked(state, happening)

    if happening == "start" and not events:
        with pytest.raises(IllegalTransitionError, match=f"START in state {state.value}"):
            act(stage)
    else:
        act(stage)

    if events:
        (event,) = events
        assert stage.state() is TRANSITIONS[state][event][1]
    else:
        assert stage.state() is BEYOND_THE_TABLE.get((state, happening), state)


def test_every_entry_of_the_table_was_walked() -> None:
    """Send-Message changes no state; Win-Election and I- in Closing have their tests below."""
    walked = {(state, event) for state, happening in WALK for event in entries_walked(state, happening)}
    every = {(state, event) for state, entries in TRANSITIONS.items() for event in entries}
    assert every - walked == {
        (_S.R_OPEN, _E.SEND_MESSAGE),
        (_S.I_OPEN, _E.SEND_MESSAGE),
        (_S.WAIT_RETURNS, _E.WIN_ELECTION),
        (_S.CLOSING, _E.I_RCV_DPA),
        (_S.CLOSING, _E.I_PEER_DISC),
    }


def test_the_closing_of_a_connection_that_we_opened() -> None:
    """RFC 6733 5.6, Closing: I-Rcv-DPA and I-Peer-Disc."""
    for end in (Stage.receive_answer, lambda stage: stage.lose(stage.peer.initiator)):
        stage = Stage()
        for step in (*REACH[_S.I_OPEN], Stage.stop):
            step(stage)
        assert stage.state() is _S.CLOSING
        end(stage)
        assert stage.state() is _S.CLOSED


@pytest.mark.shows("row 4")
def test_the_election_is_won_at_once_by_the_greater_origin_host() -> None:
    """RFC 6733 5.6, Wait-Returns: Win-Election."""
    stage = Stage("zzz.example.net")
    stage.start()
    stage.connect()
    ours = stage.peer.initiator
    stage.accept()
    assert stage.state() is _S.R_OPEN
    assert ours is not None
    assert ours.disconnect is Disconnect.FLUSH
    assert codec.decode(stage.accepted[0].output[0]).command == 257


# Capabilities exchange


def application(*names_and_values: tuple[str, int]) -> bytes:
    return codec.avp("Vendor-Specific-Application-Id", [codec.avp(name, value) for name, value in names_and_values])


@pytest.mark.parametrize(
    "capabilities",
    [
        [codec.avp("Auth-Application-Id", 4)],
        [codec.avp("Acct-Application-Id", 4)],
        [application(("Vendor-Id", 10415), ("Auth-Application-Id", 4))],
        [application(("Vendor-Id", 99), ("Acct-Application-Id", 4))],
        [codec.avp("Auth-Application-Id", 16777238), codec.avp("Auth-Application-Id", 4)],
        [codec.avp("Auth-Application-Id", 0xFFFFFFFF)],
    ],
    ids=["258", "259", "258 in 260", "259 in 260 of another vendor", "two", "relay"],
)
def test_row_1_applications_are_intersected(capabilities: list[bytes]) -> None:
    """RFC 6733 5.3: over 258, 259 and those inside 260, whatever its Vendor-Id; a relay shares all."""
    stranger = Stranger()
    (cea,) = stranger.send(cer(capabilities))
    assert result_of(cea) == 2001
    (opened,) = stranger.events
    assert isinstance(opened, Opened)
    assert opened.common_applications == {4}
    assert not stranger.is_closed


def test_row_1_all_that_a_cer_says_is_told() -> None:
    """RFC 6733 5.3.1: also applications that we do not have, wherever they stand, and who made the peer."""
    stranger = Stranger()
    stranger.send(
        cer(
            [
                codec.avp("Auth-Application-Id", 4),
                application(("Vendor-Id", 10415), ("Auth-Application-Id", 16777238)),
                application(("Vendor-Id", 10415), ("Acct-Application-Id", 3)),
            ]
        )
    )
    opened = stranger.last()
    assert isinstance(opened, Opened)
    assert opened.applications == {3, 4, 16777238}
    assert (opened.vendor_id, opened.product_name) == (10415, "tester")
    assert not opened.is_relay


def test_row_1_a_relay_is_told_apart() -> None:
    """RFC 6733 2.4: it advertises 0xffffffff, perhaps beside applications of its own."""
    for beside in ([], [codec.avp("Auth-Application-Id", 4)]):
        stranger = Stranger()
        stranger.send(cer([codec.avp("Auth-Application-Id", 0xFFFFFFFF), *beside]))
        opened = stranger.last()
        assert isinstance(opened, Opened)
        assert opened.is_relay


@pytest.mark.parametrize(
    "capabilities",
    [
        [],
        [codec.avp("Auth-Application-Id", 16777238)],
        [application(("Vendor-Id", 4), ("Auth-Application-Id", 16777238))],
    ],
    ids=["none", "another", "only the Vendor-Id inside 260 is 4"],
)
def test_row_1_no_common_application_is_5010_and_closed(capabilities: list[bytes]) -> None:
    """RFC 6733 5.3: DIAMETER_NO_COMMON_APPLICATION, and the transport is disconnected."""
    stranger = Stranger()
    (cea,) = stranger.send(cer(capabilities))
    assert result_of(cea) == 5010
    assert not cea.is_error
    assert [avp.value() for avp in cea.find_all(258)] == [4], "our applications as a hint"
    assert stranger.link.disconnect is Disconnect.FLUSH
    (refused,) = stranger.events
    assert isinstance(refused, Refused)
    assert "advertise one of 4" in refused.hint


def test_row_1_an_unknown_peer_is_3010_and_closed() -> None:
    """RFC 6733 5.3, 7.1.3: DIAMETER_UNKNOWN_PEER with the E bit; the event says what to configure."""
    stranger = Stranger(changed(OURS, policy=PeerPolicy(Admission.STRICT)), address="10.1.2.3")
    (cea,) = stranger.send(cer())
    assert result_of(cea) == 3010
    assert cea.is_error
    assert stranger.link.disconnect is Disconnect.FLUSH
    (refused,) = stranger.events
    assert isinstance(refused, Refused)
    assert refused.result_code == 3010
    assert '{identity: "pgw.example.org", realm: "example.org", networks: [10.1.2.3/32]}' in refused.hint


@pytest.mark.shows("operators-no-tables")
def test_row_1_the_lab_lets_in_anyone_from_loopback_only() -> None:
    """The lab default of this node: any peer of any realm, but from loopback addresses only."""
    for address in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"):
        assert result_of(Stranger(address=address).send(cer(host="any.where"))[0]) == 2001
    for address in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0"):
        stranger = Stranger(address=address)
        assert result_of(stranger.send(cer())[0]) == 3010
        assert "diameter.peers.mode to strict" in stranger.events[0].hint  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("peer", "address", "admitted", "hint"),
    [
        (AllowedPeer("PGW.Example.Org", None, (ip_network("10.0.0.0/8"),)), "10.9.9.9", True, ""),
        (AllowedPeer("pgw.example.org", "EXAMPLE.org", (ip_network("10.0.0.0/8"),)), "10.9.9.9", True, ""),
        (AllowedPeer("pgw.example.org", "else", (ip_network("10.0.0.0/8"),)), "10.9.9.9", False, "set realm"),
        (
            AllowedPeer("pgw.example.org", None, (ip_network("10.0.0.0/8"),)),
            "11.0.0.1",
            False,
            "add 11.0.0.1/32 to the networks",
        ),
        (AllowedPeer("pgw.example.org", None, (ip_network("10.0.0.0/8"),)), "::1", False, "add ::1/128"),
        (
            AllowedPeer("other.example.org", None, (ip_network("10.0.0.0/8"),)),
            "10.9.9.9",
            False,
            "to diameter.peers.allowed",
        ),
        (AllowedPeer("pgw.example.org", connect_host="10.9.9.9"), "10.9.9.9", False, "add 10.9.9.9/32 to the networks"),
    ],
)
def test_row_1_the_strict_list(peer: AllowedPeer, address: str, admitted: bool, hint: str) -> None:
    """Admission by identity, realm and address; a refusal names what to add."""
    stranger = Stranger(changed(OURS, policy=PeerPolicy(Admission.STRICT, (peer,))), address=address)
    assert (result_of(stranger.send(cer())[0]) == 2001) is admitted
    assert admitted or hint in stranger.events[0].hint  # type: ignore[union-attr]


@pytest.mark.parametrize(("offered", "result"), [([], 2001), ([0], 2001), ([1, 0], 2001), ([1], 5017)])
def test_row_1_inband_security(offered: list[int], result: int) -> None:
    """RFC 6733 5.3, 6.10: no common Inband-Security-Id is 5017; NO_INBAND_SECURITY is the default."""
    stranger = Stranger()
    security = [codec.avp("Inband-Security-Id", one) for one in offered]
    (cea,) = stranger.send(cer([codec.avp("Auth-Application-Id", 4), *security]))
    assert result_of(cea) == result
    assert stranger.is_closed is (result != 2001)


def test_row_1_our_own_identity_is_refused() -> None:
    """Two nodes of one Origin-Host cannot be peers (RFC 6733 2.6)."""
    stranger = Stranger()
    assert result_of(stranger.send(cer(host="OCS.example.net"))[0]) == 3010
    assert stranger.is_closed


def test_row_2_the_cea_carries_all_that_it_must() -> None:
    """RFC 6733 5.3.2; each application as 258 and inside 260 with the vendor 3GPP, where Kamailio looks for it."""
    both = {4: frozenset((272,)), 16777302: frozenset((8388635,))}
    stranger = Stranger(changed(OURS, applications=both))
    request = cer(flags=Flag.REQUEST | 0x0F)
    (cea,) = stranger.send(request)
    codec.check(cea)
    assert (cea.command, cea.flags, cea.hop_by_hop, cea.end_to_end) == (257, 0, 11, 22)
    assert [avp.code for avp in cea.avps] == [268, 264, 296, 257, 266, 269, 278, 265, 258, 258, 260, 260]
    assert [cea.find(code).value() for code in (264, 296, 257, 269, 278, 265)] == [  # type: ignore[union-attr]
        "ocs.example.net",
        "example.net",
        LOOPBACK,
        "OCC",
        7,
        10415,
    ]
    assert [avp.value() for avp in cea.find_all(258)] == [4, 16777302]
    groups = [[member.value() for member in group.value()] for group in cea.find_all(260)]  # type: ignore[union-attr]
    assert groups == [[10415, 4], [10415, 16777302]]


def test_row_2_no_origin_state_id_without_one() -> None:
    """RFC 6733 8.16: 0 says nothing and is not sent."""
    (cea,) = Stranger(changed(OURS, origin_state_id=0)).send(cer())
    assert cea.find(278) is None


@pytest.mark.shows("row 1", "open5gs-capabilities", "relay-every-application")
@pytest.mark.parametrize(
    "request_avps",
    [
        [
            codec.avp("Origin-State-Id", 1700000000),
            codec.avp("Firmware-Revision", 10503),
            codec.avp("Inband-Security-Id", 0),
            codec.avp("Auth-Application-Id", 4),
            application(("Auth-Application-Id", 16777238), ("Vendor-Id", 10415)),
            application(("Auth-Application-Id", 16777272), ("Vendor-Id", 10415)),
            *(codec.avp("Supported-Vendor-Id", vendor) for vendor in (10415, 5535, 13019)),
        ],
        [
            application(("Vendor-Id", 10415), ("Auth-Application-Id", 4)),
            codec.avp("Auth-Application-Id", 4),
            codec.avp("Supported-Vendor-Id", 10415),
        ],
        [
            codec.avp("Firmware-Revision", 10500),
            codec.avp("Inband-Security-Id", 0),
            codec.avp("Auth-Application-Id", 0xFFFFFFFF),
            codec.avp("Acct-Application-Id", 0xFFFFFFFF),
        ],
    ],
    ids=["Open5GS SMF", "Kamailio", "freeDiameter relay"],
)
def test_the_cer_of_real_clients(request_avps: list[bytes]) -> None:
    """Lenient on input: the shapes that clients in the field send."""
    stranger = Stranger()
    assert result_of(stranger.send(cer(request_avps))[0]) == 2001
    stranger.send(dwr())
    assert not stranger.is_closed


def test_the_header_application_of_base_commands_is_not_looked_at() -> None:
    """Lenient on input: neighbours know CER, DWR and DPR by their command code."""
    stranger = Stranger()
    foreign = bytearray(cer())
    foreign[8:12] = b"\xff\xff\xff\xff"
    (cea,) = stranger.send(bytes(foreign))
    assert (result_of(cea), cea.application) == (2001, 0xFFFFFFFF)


def test_row_3_a_cer_from_an_open_peer_is_rejected() -> None:
    """RFC 6733 5.6: R-Conn-CER in R-Open is R-Reject; the open connection stays and is probed at once."""
    first = Stranger().open()
    second = Stranger(side=first.side)
    assert second.send(cer(host="PGW.example.ORG")) == []
    assert second.link.disconnect is Disconnect.FLUSH
    assert isinstance(first.events[-1], Refused)
    assert not first.is_closed
    (probe,) = first.received()
    assert (probe.command, probe.is_request) == (280, True)
    first.send(ccr())
    assert isinstance(first.events[-1], RequestReceived)


def test_row_3_a_rejected_cer_leaves_an_overdue_watchdog_to_its_timer() -> None:
    """The probe of the open connection never closes it in the middle of a transition."""
    first = Stranger().open()
    first.advance(66)
    assert first.last() == Suspect("pgw.example.org")
    second = Stranger(side=first.side)
    second.now = first.now + 3600
    assert second.send(cer()) == []
    assert second.is_closed
    assert not first.is_closed


def test_row_3_a_second_cer_on_an_open_connection_is_answered_5012() -> None:
    """RFC 6733 5.6 has no entry for it and does not ask to close."""
    stranger = Stranger().open()
    (cea,) = stranger.send(cer())
    assert result_of(cea) == 5012
    assert not stranger.is_closed


@pytest.mark.parametrize(
    "first",
    [dwr(), ccr(), dpr(), base_request(257, [*origin()], flags=0), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["DWR", "CCR", "DPR", "CEA", "HTTP"],
)
def test_row_3_a_first_message_other_than_a_cer_closes(first: bytes) -> None:
    """RFC 6733 5.6.1: "close and discard the connection if any message other than a CER arrives"."""
    stranger = Stranger()
    assert stranger.send(first) == []
    assert stranger.link.disconnect is Disconnect.ABORT
    assert stranger.send(cer()) == [], "nothing is read after that"


def test_row_3_no_cer_in_time_closes() -> None:
    """RFC 6733 5.6.1: "or if an implementation-defined timeout occurs prior to receipt of CER"."""
    stranger = Stranger()
    stranger.send(cer()[:30])
    stranger.advance(OURS.capabilities_timeout_seconds - 1)
    assert not stranger.is_closed
    stranger.advance(2)
    assert stranger.is_closed


def test_a_malformed_cer_is_answered_and_may_be_followed_by_a_good_one() -> None:
    """RFC 6733 7.1.5: 5005 with the missing AVP in Failed-AVP; nothing asks to close."""
    stranger = Stranger()
    (cea,) = stranger.send(base_request(257, origin()))
    assert result_of(cea) == 5005
    assert cea.find(279) is not None
    codec.check(cea)
    assert not stranger.is_closed
    assert result_of(stranger.send(cer())[0]) == 2001


@pytest.mark.shows("row 14")
def test_an_identity_that_is_none_is_5004() -> None:
    """RFC 6733 4.3.1: a DiameterIdentity is a domain name; line breaks would get into logs."""
    stranger = Stranger()
    (cea,) = stranger.send(cer(host="pgw\nroot"))
    assert result_of(cea) == 5004
    assert cea.find(279) is not None


def test_our_cer_and_what_its_cea_may_be() -> None:
    """RFC 6733 5.3: the initiator's side of the exchange."""
    stage = Stage()
    stage.start()
    stage.connect()
    request = codec.decode(stage.link.output[0])
    codec.check(request)
    assert request.flags == Flag.REQUEST
    assert [avp.code for avp in request.avps] == [264, 296, 257, 266, 269, 278, 265, 258, 260]
    stage.receive(good_cea(request))
    (opened,) = stage.events
    assert isinstance(opened, Opened)
    assert (opened.origin_host, opened.role) == ("pgw.example.org", Role.INITIATOR)


@pytest.mark.parametrize(
    ("answer_of", "reason"),
    [
        (lambda cer_sent: good_cea(cer_sent, 5010), "Result-Code 5010"),
        (lambda cer_sent: good_cea(cer_sent, host="other.example.org"), "other.example.org and not pgw.example.org"),
        (lambda cer_sent: codec.answer_to(cer_sent, [codec.avp("Result-Code", 2001), *origin()]), "no application"),
        (lambda cer_sent: codec.answer_to(cer_sent, [codec.avp("Result-Code", 2001)]), "malformed"),
        (lambda cer_sent: dwr(), "command 280 instead of a CEA"),
    ],
    ids=["refused", "another identity", "no common application", "no identity", "a DWR"],
)
def test_a_cea_that_does_not_do_closes(answer_of: Callable[[codec.Message], bytes], reason: str) -> None:
    """RFC 6733 5.6, Wait-I-CEA: anything but a successful CEA is I-Rcv-Non-CEA: Error, Closed."""
    stage = Stage()
    stage.start()
    stage.connect()
    link = stage.link
    stage.receive(answer_of(codec.decode(link.output[0])))
    assert stage.state() is PeerState.CLOSED
    assert link.disconnect is not Disconnect.NO
    (refused,) = stage.events
    assert isinstance(refused, Refused)
    assert reason in refused.reason


# Election


@pytest.mark.parametrize("hosts", [("alpha.net", "beta.net"), ("Beta.net", "ALPHA.net"), ("a.net", "A.net.x")])
def test_row_4_both_nodes_keep_the_connection_that_the_greater_one_accepted(hosts: tuple[str, str]) -> None:
    """RFC 6733 5.6.4: compared as octets, without regard to case; the winner closes what it opened."""
    sides = [Side(changed(OURS, origin_host=host)) for host in hosts]
    network = Network()
    ways = [network.dial(sides[0], sides[1]), network.dial(sides[1], sides[0])]
    network.run()
    greater = max((0, 1), key=lambda index: hosts[index].lower())
    lesser = 1 - greater
    assert ways[greater].closed == [True, True]
    assert ways[lesser].closed == [False, False]
    for index in (0, 1):
        (opened,) = sides[index].of_kind(Opened)
        assert isinstance(opened, Opened)
        assert opened.role is (Role.RESPONDER if index == greater else Role.INITIATOR)
        assert sides[index].of_kind(Closed) == []


@given(st.randoms(use_true_random=False), st.booleans())
def test_row_4_any_order_of_events_ends_with_one_connection_at_most(random: Random, late: bool) -> None:
    """RFC 6733 5.6.4: "the results of an election on one peer are guaranteed to be the inverse" of the other's."""
    sides = [Side(OURS), Side(THEIRS)]
    network = Network()
    if late:  # both have asked for a transport before either comes up
        peers = [sides[0].table.find_or_add(THEIRS.origin_host), sides[1].table.find_or_add(OURS.origin_host)]
        for peer in peers:
            peer.start(network.now)
        network.connect(peers[0], sides[0], sides[1])
        network.run(random)
        if peers[1].state in (PeerState.WAIT_CONN_ACK, PeerState.WAIT_CONN_ACK_ELECT):
            network.connect(peers[1], sides[1], sides[0])
    else:
        network.dial(sides[0], sides[1])
        network.dial(sides[1], sides[0])
    network.run(random)
    network.advance(OURS.capabilities_timeout_seconds + 1)
    open_ends = {
        wire: [end for end, (side, link) in enumerate(wire.ends) if link.takes_requests and not wire.closed[end]]
        for wire in network.wires
    }
    assert sorted(map(len, open_ends.values())) in ([0, 2], [2]), "both nodes agree on the one connection that is left"


# Watchdog


def test_row_5_a_dwr_is_always_answered() -> None:
    """RFC 6733 5.5: also while disconnecting, and without Origin-State-Id as Kamailio sends it."""
    stranger = Stranger().open()
    (dwa,) = stranger.send(dwr())
    codec.check(dwa)
    assert (dwa.command, dwa.flags, dwa.hop_by_hop, dwa.end_to_end) == (280, 0, 11, 22)
    assert [avp.code for avp in dwa.avps] == [268, 264, 296, 278]
    stranger.side.table.find_or_add("pgw.example.org").stop(DisconnectCause.BUSY, stranger.now)
    sent = stranger.send(dwr())
    assert [message.command for message in sent] == [282, 280]


def test_row_5_a_malformed_dwr_is_answered_with_its_error() -> None:
    """RFC 6733 7.1.5: 5005 and the connection stays."""
    stranger = Stranger().open()
    (dwa,) = stranger.send(base_request(280, origin()[:1]))
    assert result_of(dwa) == 5005
    assert not stranger.is_closed


def test_row_5_the_watchdog_is_due_within_2_seconds_of_twinit() -> None:
    """RFC 3539 3.4.1: Tw = Twinit +- 2 s, drawn anew for every connection."""
    waits = set()
    for seed in range(50):
        stranger = Stranger(side=Side(OURS, seed)).open()
        due = stranger.link.receiver.next_timeout()
        assert due is not None
        waits.add(due - stranger.now)
    assert min(waits) >= 30 - JITTER_SECONDS
    assert max(waits) <= 30 + JITTER_SECONDS
    assert max(waits) - min(waits) > 2


def test_row_5_the_floor_of_twinit_is_6_seconds() -> None:
    """RFC 3539 3.4.1: "Twinit MUST NOT be set lower than 6 seconds"."""
    assert changed(OURS, watchdog_seconds=6.0).watchdog_seconds == 6.0
    with pytest.raises(ValueError, match="watchdog_seconds"):
        changed(OURS, watchdog_seconds=5.9)


def test_row_5_two_idle_nodes_watch_each_other_for_ever() -> None:
    """RFC 3539 3.4.1: DWR and DWA keep an idle connection open."""
    ours, theirs = Side(OURS), Side(THEIRS)
    network = Network()
    wire = network.dial(ours, theirs)
    network.advance(3600)
    assert wire.closed == [False, False]
    assert ours.of_kind(Suspect) == []


def test_row_5_traffic_puts_the_watchdog_off() -> None:
    """RFC 3539 3.4.1: any message received resets Tw."""
    stranger = Stranger().open()
    for _ in range(10):
        assert [message.command for message in stranger.advance(20)] == []
        stranger.send(ccr())


def test_row_5_an_unanswered_dwr_makes_suspect_then_closes_with_what_was_pending() -> None:
    """RFC 3539 3.4.1, RFC 6733 5.5.4: Failover after one Tw, CloseConnection after the next."""
    stranger = Stranger().open()
    waiting = own_request()
    stranger.link.send_request(waiting)
    stranger.received()
    (request,) = stranger.advance(33)
    assert (request.command, request.flags) == (280, Flag.REQUEST)
    codec.check(request)
    assert stranger.advance(33) == []
    assert stranger.last() == Suspect("pgw.example.org")
    assert not stranger.is_closed
    assert stranger.advance(33) == []
    closed = stranger.last()
    assert isinstance(closed, Closed)
    assert closed.unanswered == (waiting,)
    assert stranger.link.disconnect is Disconnect.ABORT


def test_row_5_a_suspect_peer_recovers_with_any_message() -> None:
    """RFC 3539 3.4.1, SUSPECT: "Receive non-DWA: Failback()"."""
    stranger = Stranger().open()
    (request,) = stranger.advance(66)
    stranger.send(dwr())
    assert isinstance(stranger.events[-1], Recovered)
    stranger.send(answer(request))
    assert [message.command for message in stranger.advance(33)] == [280]


def test_row_5_what_was_closed_for_silence_has_to_prove_itself() -> None:
    """RFC 3539 3.4.1, REOPEN: a DWR at once, and no requests of ours until three DWAs came."""
    allowed = AllowedPeer("pgw.example.org", connect_host="10.0.0.1")
    stage = Stage()
    stage.side = Side(changed(OURS, policy=PeerPolicy(Admission.STRICT, (allowed,))))
    stage.peer = stage.side.table.find_or_add("pgw.example.org")
    for step in REACH[PeerState.I_OPEN]:
        step(stage)
    for _ in range(3):
        due = stage.peer.next_timeout()
        assert due is not None
        stage.now = due
        stage.events += stage.peer.handle_timeout(due)
    assert stage.state() is PeerState.CLOSED
    stage.events.clear()
    for step in REACH[PeerState.I_OPEN]:
        step(stage)
    for wait in (0, 40, 40):
        stage.now += wait
        stage.events += stage.peer.handle_timeout(stage.now)
        assert [event for event in stage.events if isinstance(event, Recovered)] == []
        stage.receive_answer()
    assert isinstance(stage.events[-1], Recovered)


def test_row_5_unanswered_watchdogs_while_reopening_close_too() -> None:
    """RFC 3539 3.4.1, REOPEN: Timer expires & Pending twice closes."""
    allowed = AllowedPeer("pgw.example.org", connect_host="10.0.0.1")
    stage = Stage()
    stage.side = Side(changed(OURS, policy=PeerPolicy(Admission.STRICT, (allowed,))))
    stage.peer = stage.side.table.find_or_add("pgw.example.org")
    for _ in range(2):
        for step in REACH[PeerState.I_OPEN]:
            step(stage)
        for _ in range(3):
            due = stage.peer.next_timeout()
            assert due is not None
            stage.now = due
            stage.peer.handle_timeout(due)
        assert stage.state() is PeerState.CLOSED


# Disconnection


@pytest.mark.parametrize(("cause", "may_reconnect"), [(0, True), (1, False), (2, False)])
def test_row_6_a_dpr_is_answered_and_its_sender_closes(cause: int, may_reconnect: bool) -> None:
    """RFC 6733 5.4: DPA 2001; "the receiver of the DPA initiates the transport disconnect"; 5.4.3 for the cause."""
    stranger = Stranger().open()
    (dpa,) = stranger.send(dpr(cause))
    codec.check(dpa)
    assert (dpa.command, dpa.flags, result_of(dpa)) == (282, 0, 2001)
    assert not stranger.is_closed
    stranger.side.events += stranger.link.receiver.link_lost(stranger.link, "", stranger.now)
    closed = stranger.events[-1]
    assert isinstance(closed, Closed)
    assert closed.may_reconnect is may_reconnect
    assert DisconnectCause(cause).name in closed.reason


def test_row_6_a_peer_that_does_not_close_after_our_dpa_is_closed() -> None:
    """RFC 6733 5.6, Closing: Timeout is Error."""
    stranger = Stranger().open()
    stranger.send(dpr())
    stranger.advance(OURS.disconnect_timeout_seconds + 1)
    assert stranger.is_closed


@pytest.mark.parametrize("result", [2001, 5012, None], ids=["2001", "an error", "no Result-Code, as Kamailio"])
def test_row_6_our_dpr_ends_with_its_dpa(result: int | None) -> None:
    """RFC 6733 5.4: upon the DPA, whatever it says, we close."""
    stranger = Stranger().open()
    peer = stranger.side.table.find_or_add("pgw.example.org")
    peer.stop(DisconnectCause.REBOOTING, stranger.now)
    (request,) = stranger.received()
    codec.check(request)
    assert (request.command, request.flags) == (282, Flag.REQUEST)
    assert request.avps[-1].value() == 0
    stranger.send(answer(request, result))
    assert stranger.link.disconnect is Disconnect.FLUSH
    assert isinstance(stranger.events[-1], Closed)


def test_row_6_two_dprs_that_cross() -> None:
    """RFC 6733 5.4: both are answered, both ends close."""
    ours, theirs = Side(OURS), Side(THEIRS)
    network = Network()
    wire = network.dial(ours, theirs)
    network.run()
    ours.table.find_or_add(THEIRS.origin_host).stop(DisconnectCause.REBOOTING, network.now)
    theirs.table.find_or_add(OURS.origin_host).stop(DisconnectCause.REBOOTING, network.now)
    network.run()
    assert wire.closed == [True, True]


def test_row_6_requests_after_the_dpr_of_their_sender_are_dropped() -> None:
    """RFC 6733 5.6: Closing has no Rcv-Message; what is dropped is counted."""
    stranger = Stranger().open()
    stranger.send(dpr())
    stranger.send(ccr())
    assert stranger.link.statistics.requests_discarded == 1
    assert stranger.of_requests() == []


def test_row_6_requests_that_cross_our_dpr_are_served_before_we_close() -> None:
    """RFC 6733 5.4: what the peer sent before it knew is answered; what it sends after its DPA is dropped."""
    stranger = Stranger().open()
    peer = stranger.side.table.find_or_add("pgw.example.org")
    stranger.send(ccr(1))
    peer.stop(DisconnectCause.REBOOTING, stranger.now)
    (request,) = stranger.send(ccr(2))
    assert [each.hop_by_hop for each in stranger.of_requests()] == [1, 2]
    stranger.send(answer(request))
    assert not stranger.is_closed, "both are still to be answered"
    stranger.send(ccr(3))
    assert stranger.link.statistics.requests_discarded == 1
    for number in (1, 2):
        assert peer.close_answered(stranger.now) == []
        stranger.link.send_answer(codec.encode(codec.decode(ccr(number, flags=0))))
    assert [type(event) for event in peer.close_answered(stranger.now)] == [Closed]
    assert stranger.link.disconnect is Disconnect.FLUSH, "the answers go out before"
    assert peer.close_answered(stranger.now) == []


def test_row_6_what_is_never_answered_holds_our_leave_up_no_longer_than_a_silent_peer() -> None:
    stranger = Stranger().open()
    stranger.send(ccr())
    stranger.side.table.find_or_add("pgw.example.org").stop(DisconnectCause.REBOOTING, stranger.now)
    stranger.advance(OURS.disconnect_timeout_seconds + 1)
    assert stranger.is_closed


def test_row_6_answers_to_our_requests_are_still_taken_after_our_dpr() -> None:
    """RFC 6733 5.6: they are no messages that Closing would have to serve."""
    stranger = Stranger().open()
    waiting = own_request()
    stranger.link.send_request(waiting)
    (request,) = stranger.received()
    stranger.side.table.find_or_add("pgw.example.org").stop(DisconnectCause.REBOOTING, stranger.now)
    stranger.send(answer(request))
    last = stranger.events[-1]
    assert isinstance(last, AnswerReceived)
    assert last.request is waiting


def test_row_6_a_peer_comes_back_after_it_left() -> None:
    """RFC 6733 5.4.3: what it said about reconnecting binds us, not the peer itself."""
    stranger = Stranger().open()
    stranger.send(dpr(2))
    stranger.side.events += stranger.link.receiver.link_lost(stranger.link, "", stranger.now)
    Stranger(side=stranger.side).open()


# Headers, framing, answers


def test_row_7_base_answers_repeat_identifiers_and_the_p_bit() -> None:
    """RFC 6733 6.2: same hop-by-hop, end-to-end and P; T cleared; Proxy-Info copied in order."""
    stranger = Stranger().open()
    proxies = [
        codec.avp("Proxy-Info", [codec.avp("Proxy-Host", f"p{n}.net"), codec.avp("Proxy-State", b"s%d" % n)])
        for n in (1, 2)
    ]
    flags = Flag.REQUEST | Flag.PROXIABLE | Flag.ERROR | Flag.RETRANSMIT
    (refusal,) = stranger.send(codec.build(272, 4, flags, 5, 6, [*origin(), *proxies]))
    assert (refusal.hop_by_hop, refusal.end_to_end) == (5, 6)
    assert refusal.flags == Flag.PROXIABLE | Flag.ERROR
    assert [avp.encode() for avp in refusal.find_all(284)] == proxies
    assert refusal.find(293) is None
    assert refusal.find(283) is None


@pytest.mark.parametrize(
    "message",
    [
        base_request(280, [], flags=0),
        base_request(257, [], flags=Flag.ERROR),
        base_request(282, origin(), flags=0),
        codec.build(272, 4, Flag.PROXIABLE | Flag.ERROR, 1, 2, []),
        codec.build(9999, 9999, 0, 1, 2, []),
        bytes((2,)) + base_request(280, [], flags=0)[1:],
    ],
    ids=["DWA", "CEA", "DPA", "CCA", "unknown", "version 2"],
)
def test_row_8_an_answer_is_never_answered(message: bytes) -> None:
    """RFC 6733 7.2: "MUST NOT be sent as a response to an answer message"; row 18: it is discarded and counted."""
    stranger = Stranger().open()
    assert stranger.send(message) == []
    assert not stranger.is_closed
    assert stranger.link.statistics.answers_discarded == 1


def test_row_8_the_e_bit_goes_with_3xxx_only() -> None:
    """RFC 6733 7.1.3, 7.1.5."""
    stranger = Stranger().open()
    (bits,) = stranger.send(dwr(flags=Flag.REQUEST | Flag.PROXIABLE))
    (missing,) = stranger.send(base_request(280, []))
    assert (result_of(bits), bits.is_error) == (3008, True)
    assert (result_of(missing), missing.is_error) == (5005, False)


@pytest.mark.parametrize(
    "message",
    [
        ccr(flags=Flag.REQUEST | Flag.ERROR),
        dwr(flags=Flag.REQUEST | Flag.ERROR),
        dwr(flags=Flag.REQUEST | Flag.PROXIABLE),
        dpr(flags=Flag.REQUEST | Flag.PROXIABLE),
        cer(flags=Flag.REQUEST | Flag.PROXIABLE),
    ],
    ids=["CCR R+E", "DWR R+E", "DWR P", "DPR P", "CER P"],
)
def test_row_10_impossible_header_bits_are_3008(message: bytes) -> None:
    """RFC 6733 section 3, 7.1.3: DIAMETER_INVALID_HDR_BITS, and the connection stays."""
    stranger = Stranger().open()
    (refusal,) = stranger.send(message)
    assert (result_of(refusal), refusal.is_error) == (3008, True)
    assert not stranger.is_closed
    assert stranger.of_requests() == []


def test_row_10_p_on_the_first_cer_is_3008() -> None:
    """RFC 6733 5.3: "The CER and CEA messages MUST NOT be proxied"."""
    stranger = Stranger()
    assert result_of(stranger.send(cer(flags=Flag.REQUEST | Flag.PROXIABLE))[0]) == 3008
    assert result_of(stranger.send(cer())[0]) == 2001


def test_row_10_reserved_bits_are_ignored() -> None:
    """RFC 6733 section 3: "MUST be set to zero and ignored by the receiver"."""
    stranger = Stranger().open()
    assert result_of(stranger.send(dwr(flags=Flag.REQUEST | 0x0F))[0]) == 2001
    stranger.send(ccr(flags=Flag.REQUEST | Flag.PROXIABLE | 0x0F))
    assert len(stranger.of_requests()) == 1


@pytest.mark.parametrize("length", [0, 16, 19, 21, 22, 0xFFFFFC])
def test_row_14_a_bad_message_length_is_5015_then_closed(length: int) -> None:
    """RFC 6733 section 3, 7.1.5, 2.1: not a multiple of 4, below 20, or above the limit."""
    stranger = Stranger().open()
    (refusal,) = stranger.send(b"\x01" + length.to_bytes(3, "big") + ccr()[4:])
    assert (result_of(refusal), refusal.is_error, refusal.hop_by_hop) == (5015, False, 33)
    assert stranger.link.disconnect is Disconnect.FLUSH


def test_row_14_an_answer_of_bad_length_closes_in_silence() -> None:
    """RFC 6733 7.2 and 2.1: reset, since nothing may be said."""
    stranger = Stranger().open()
    assert stranger.send(b"\x01\x00\x00\x15" + ccr(flags=0)[4:]) == []
    assert stranger.link.disconnect is Disconnect.ABORT


def test_row_14_a_stranger_gets_little_memory() -> None:
    """The limit on message length is lower until capabilities were exchanged."""
    stranger = Stranger()
    length = MAX_OCTETS_BEFORE_OPEN + 4
    (refusal,) = stranger.send(b"\x01" + length.to_bytes(3, "big") + cer()[4:])
    assert result_of(refusal) == 5015
    assert stranger.is_closed
    known = Stranger().open()
    assert known.send(b"\x01" + length.to_bytes(3, "big") + ccr()[4:]) == []
    assert not known.is_closed


def test_row_14_another_version_is_5011_and_the_connection_stays() -> None:
    """RFC 6733 7.1.5: DIAMETER_UNSUPPORTED_VERSION; the length was sound, so the stream is in step."""
    stranger = Stranger().open()
    refusal, dwa = stranger.send(b"\x02" + ccr()[1:] + dwr())
    assert (result_of(refusal), refusal.command) == (5011, 272)
    assert result_of(dwa) == 2001
    assert not stranger.is_closed
    newcomer = Stranger()
    assert result_of(newcomer.send(b"\x02" + cer()[1:])[0]) == 5011


def test_a_request_is_handed_out_as_it_came() -> None:
    """The hot path: header fields beside the very octets."""
    stranger = Stranger().open()
    stranger.send(ccr(hop_by_hop=0xFFFFFFFF))
    (request,) = stranger.of_requests()
    assert request == RequestReceived(ccr(hop_by_hop=0xFFFFFFFF), 272, 4, 0xC0, 0xFFFFFFFF, 44)


STREAM = cer() + ccr(1) + dwr() + ccr(2) + ccr(3, Flag.REQUEST | Flag.ERROR) + base_request(280, []) + ccr(4)


@given(st.lists(st.integers(1, 200), min_size=1))
def test_the_cuts_of_the_stream_do_not_matter(sizes: list[int]) -> None:
    """TCP has no message boundaries: the same octets in any pieces mean the same."""
    whole, pieces = Stranger(), Stranger()
    expected = whole.send(STREAM)
    position = 0
    answers = []
    while position < len(STREAM):
        size = sizes[position % len(sizes)]
        answers += pieces.send(STREAM[position : position + size])
        position += size
    assert pieces.events == whole.events
    assert [codec.encode(one) for one in answers] == [codec.encode(one) for one in expected]
    assert len(expected) == 4
    assert pieces.peer_counters() == whole.peer_counters()
    assert whole.peer_counters()["requests_received"] == 3


def test_a_long_message_in_single_octets_costs_no_more_than_its_length() -> None:
    """What dribbles in must not be looked at again with every octet."""
    stranger = Stranger().open()
    long = codec.build(272, 4, Flag.REQUEST, 1, 2, [codec.avp("Session-Id", "x" * 200_000)])
    for position in range(len(long)):
        assert stranger.link.receive_data(long[position : position + 1], 1000.0) == [] or position == len(long) - 1
    assert stranger.link.statistics.requests_received == 1


# Origin-State-Id


def test_row_17_a_risen_origin_state_id_is_reported() -> None:
    """RFC 6733 8.16: from a DWR, from the CER of the next connection, and never from one that is 0 or absent."""
    stranger = Stranger()
    stranger.send(cer([codec.avp("Auth-Application-Id", 4), codec.avp("Origin-State-Id", 5)]))
    for number in (None, 0, 5, 4):
        stranger.send(dwr(number))
    assert [event for event in stranger.events if isinstance(event, StateIdChanged)] == []
    stranger.send(dwr(6))
    assert stranger.events[-1] == StateIdChanged("pgw.example.org", 5, 6)
    stranger.side.events += stranger.link.receiver.link_lost(stranger.link, "", stranger.now)
    again = Stranger(side=stranger.side)
    again.send(cer([codec.avp("Auth-Application-Id", 4), codec.avp("Origin-State-Id", 9)], host="PGW.example.org"))
    changes = [event for event in again.events if isinstance(event, StateIdChanged)]
    assert [(event.old, event.new) for event in changes] == [(5, 6), (6, 9)]


def test_row_17_the_first_origin_state_id_says_nothing() -> None:
    """RFC 6733 8.16: there is nothing to compare it with."""
    stranger = Stranger()
    stranger.send(cer([codec.avp("Auth-Application-Id", 4), codec.avp("Origin-State-Id", 5)]))
    (opened,) = stranger.events
    assert isinstance(opened, Opened)
    assert opened.origin_state_id == 5


# Requests of ours


def test_row_18_answers_are_matched_by_hop_by_hop_and_the_rest_discarded() -> None:
    """RFC 6733 section 3, 6.2.1."""
    stranger = Stranger().open()
    sent = own_request()
    stranger.link.send_request(sent)
    (request,) = stranger.received()
    good = answer(request)
    stranger.send(good[:12] + bytes(4) + good[16:])
    assert stranger.link.statistics.answers_discarded == 1
    stranger.send(good)
    last = stranger.events[-1]
    assert isinstance(last, AnswerReceived)
    assert last.request is sent
    stranger.send(good)
    assert stranger.link.statistics.answers_discarded == 2
    assert stranger.link.statistics.answers_received == 1


@pytest.mark.shows("row 18")
def test_hop_by_hop_identifiers_of_a_connection_are_unique() -> None:
    """RFC 6733 section 3: unique among what is pending, also when the counter wraps."""
    stranger = Stranger().open()
    for _ in range(3):
        stranger.link.send_request(own_request())
    first = next(iter(stranger.link.pending))
    stranger.link._hop_by_hop = (first - 1) & 0xFFFFFFFF
    assert stranger.link.next_hop_by_hop() not in stranger.link.pending


@pytest.mark.shows("row 5")
def test_a_request_that_is_sent_again_has_the_t_flag() -> None:
    """RFC 6733 5.5.4: same End-to-End Identifier, new Hop-by-Hop Identifier, T set."""
    stranger = Stranger().open()
    sent = own_request()
    stranger.link.send_request(sent)
    stranger.link.send_request(sent, again=True)
    first, second = stranger.received()
    assert (first.flags, second.flags) == (Flag.REQUEST, Flag.REQUEST | Flag.RETRANSMIT)
    assert first.end_to_end == second.end_to_end
    assert first.hop_by_hop != second.hop_by_hop
    assert [avp.encode() for avp in first.avps] == [avp.encode() for avp in second.avps]


@pytest.mark.shows("row 5")
def test_a_lost_connection_reports_what_was_unanswered_oldest_first() -> None:
    """RFC 6733 5.5.4: the pending message queue."""
    stranger = Stranger().open()
    requests = [own_request() for _ in range(3)]
    for request in requests:
        stranger.link.send_request(request)
    stranger.side.events += stranger.link.receiver.link_lost(stranger.link, "reset", stranger.now)
    closed = stranger.events[-1]
    assert isinstance(closed, Closed)
    assert closed.unanswered == tuple(requests)
    assert closed.reason == "reset"


def test_peers_that_are_not_configured_are_forgotten() -> None:
    """RFC 6733 5.3: "the lifetime of the peer entry is equal to the lifetime of the transport connection"."""
    stranger = Stranger().open()
    assert len(list(stranger.side.table)) == 1
    stranger.link.receiver.link_lost(stranger.link, "reset", stranger.now)
    assert list(stranger.side.table) == []


def test_actions_are_complete() -> None:
    """Every action that the table names is carried out by the peer."""
    named = {action for entries in TRANSITIONS.values() for actions, _ in entries.values() for action in actions}
    assert named == set(Action)
    from protocols.diameter import peer

    assert set(peer._ACTIONS) == set(Action)
