"""The state machine of a peer: every entry of the table in RFC 6733 section 5.6, and the election.

"row n" is the row of the conformance table.
"""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.diameter import codec
from protocols.diameter.events import Closed, Opened, Role
from protocols.diameter.link import Disconnect
from protocols.diameter.peer import IllegalTransitionError
from protocols.diameter.state_table import TRANSITIONS, Action, PeerInput, PeerState
from tests.protocols.in_memory import OURS, THEIRS, Network, Side, Stranger, ccr, changed, dpr, dwr
from tests.protocols.peer_stage import REACH, Stage

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


_S = PeerState
_E = PeerInput


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
