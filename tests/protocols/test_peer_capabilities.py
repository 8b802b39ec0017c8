"""The exchange of capabilities: which CER and CEA open a connection, RFC 6733 sections 2.1, 5.3 and 5.6.

"row n" is the row of the conformance table.
"""

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from protocols.diameter import codec
from protocols.diameter.codes import Flag
from protocols.diameter.events import Opened, Refused, RequestReceived, Role, Suspect
from protocols.diameter.link import Disconnect
from protocols.diameter.settings import Admission, AllowedPeer, PeerPolicy
from protocols.diameter.state_table import PeerState
from tests.protocols.in_memory import (
    LOOPBACK,
    OURS,
    Stranger,
    base_request,
    ccr,
    cer,
    changed,
    dpr,
    dwr,
    origin,
    result_of,
)
from tests.protocols.peer_stage import Stage, good_cea


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
