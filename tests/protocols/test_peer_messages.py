"""Messages on a connection: headers, framing, answers, Origin-State-Id, requests of ours (RFC 6733 sections 3, 6.2, 7).

"row n" is the row of the conformance table.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.diameter import codec
from protocols.diameter.codes import Flag
from protocols.diameter.events import AnswerReceived, Closed, Opened, RequestReceived, StateIdChanged
from protocols.diameter.link import MAX_OCTETS_BEFORE_OPEN, Disconnect
from tests.protocols.in_memory import Stranger, answer, base_request, ccr, cer, dpr, dwr, origin, own_request, result_of

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
