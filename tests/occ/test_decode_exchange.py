"""What is remarked between messages: requests and their answers, the requests of a session, a whole capture."""

import pytest

from occ.decode.exchange import PAIR_RULES, SESSION_RULES
from occ.decode.messages import decoded
from occ.decode.source import read
from occ.decode.streams import PORTS, Found, Streams
from occ.decode.tree import DecodedMessage, Kind
from tests.occ.decode_frames import CLIENT, RAW, SERVER, START_NS, SYN, conversation, pcap, tcp
from tests.occ.decode_messages import (
    GRANTED,
    GROUP_10,
    GROUP_20,
    INDICATOR,
    MIB,
    OK,
    OPENING,
    VALID,
    WANTED,
    WHO,
    E,
    I,
    T,
    U,
    ccr,
    final,
    granted,
    octets,
    reply,
    seconds,
    service,
    used,
    wants,
)
from tests.protocols.messages import (
    AUTH_APPLICATION_ID,
    ORIGIN_HOST,
    ORIGIN_REALM,
    SESSION_ID,
    group,
    message,
    packed,
    u32,
    u64,
)

_numbers = iter(range(1, 10_000))


def fresh(octets_: bytes) -> bytes:
    """The same request under new identifiers."""
    number = next(_numbers).to_bytes(4, "big")
    return octets_[:12] + number + number + octets_[20:]


def play(*messages: tuple[bool, bytes]) -> list[DecodedMessage]:
    """A capture of one connection: (from the client?, message)."""
    return decoded(read(pcap(conversation(messages), RAW), PORTS))


def texts(shown: DecodedMessage, *kinds: Kind) -> list[str]:
    return [remark.text for remark in shown.remarks if remark.kind in (kinds or tuple(Kind))]


# -- an answer and its request -----------------------------------------------------------------------------------


def test_a_session_as_it_should_be_has_no_remarks() -> None:
    update = fresh(ccr(U, service(used(MIB), wants(MIB), GROUP_10), number=1))
    end = fresh(ccr(T, service(used(octets(5)), GROUP_10), number=2))
    shown = play(
        (True, OPENING),
        (False, reply(OPENING, GRANTED)),
        (True, update),
        (False, reply(update, GRANTED)),
        (True, end),
        (False, reply(end, service(GROUP_10, OK))),
    )
    assert [texts(each) for each in shown] == [[]] * 6
    assert [(each.answer.number, each.answer.delay_ns) for each in shown if each.answer] == [
        (2, 1_000_000),
        (4, 1_000_000),
        (6, 1_000_000),
    ]
    assert [each.request.number for each in shown if each.request] == [1, 3, 5]
    assert shown[0].found.time_ns == START_NS + 2_000_000


PROXY = group(284, packed(280, b"relay"), packed(33, b"1"))
PROXY_2 = group(284, packed(280, b"relay"), packed(33, b"2"))
EVENT = ccr(E, u32(436, 2), WHO, WANTED)
PAIRS: dict[str, tuple[bytes, bytes, str]] = {
    "identifiers": (
        OPENING,
        reply(OPENING, GRANTED, end_to_end=5),
        "the End-to-End Identifier 0x00000005 is not the 0x0a0b0c0d of its request",
    ),
    "same_command": (
        OPENING,
        reply(OPENING, GRANTED, application=0),
        "the Application-Id 0 is not the 4 of its request",
    ),
    "proxiable_bit": (OPENING, reply(OPENING, GRANTED, flags=0), "the P bit is clear, unlike that of its request"),
    "same_session": (
        OPENING,
        reply(OPENING, GRANTED, session=packed(263, b"a;b")),
        "the Session-Id a;b is not that of its request, gw.example.net;1;2",
    ),
    "proxy_information": (
        ccr(I, WHO, INDICATOR, WANTED, PROXY, PROXY_2),
        reply(OPENING, GRANTED, PROXY_2, PROXY),
        "its 2 Proxy-Info AVPs are not the 2 of its request in their order",
    ),
    "too_busy": (
        OPENING,
        reply(OPENING, result=3004, flags=0x60),
        "Result-Code 3004 (DIAMETER_TOO_BUSY) answers a request that named no Destination-Host",
    ),
    "same_request": (OPENING, reply(ccr(I, number=1), GRANTED), "CC-Request-Number 1 is not the 0 of its request"),
    "services_not_asked_for": (
        ccr(I, WHO, wants(MIB)),
        reply(OPENING, GRANTED),
        "Multiple-Services-Credit-Control answers a request without any",
    ),
    "service_left_out": (OPENING, reply(OPENING), "Rating-Group 10 asked for units and is not in the answer"),
    "service_not_asked_for": (
        OPENING,
        reply(OPENING, GRANTED, service(GROUP_20, u32(268, 4010))),
        "Rating-Group 20 is in the answer, but not in the request",
    ),
    "grant_not_asked_for": (
        ccr(U, service(used(MIB), GROUP_10)),
        reply(ccr(U), GRANTED),
        "units of Rating-Group 10 are granted that were not requested",
    ),
    "passed_over": (
        OPENING,
        reply(OPENING, service(GROUP_10, OK)),
        "units of Rating-Group 10 were requested and neither granted nor refused",
    ),
    "answer_to_action": (
        EVENT,
        reply(EVENT, service(GROUP_10, OK)),
        "a balance check is answered without Check-Balance-Result",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_answer_that_does_not_fit_its_request(name: str) -> None:
    request, answer, text = PAIRS[name]
    asked, told = play((True, request), (False, answer))
    rule = next(rule for rule in PAIR_RULES.rules if rule.name == name)
    found = [remark.text for remark in told.remarks if (remark.row, remark.clause) == (rule.row, rule.clause)]
    assert text in found
    assert asked.answer is not None


def test_every_pair_rule_is_tried() -> None:
    assert PAIRS.keys() == {rule.name for rule in PAIR_RULES.rules}


def test_what_a_good_answer_may_do() -> None:
    """Refusals, other actions and final units are answers too."""
    price = ccr(E, u32(436, 3), WHO, WANTED)
    fine = [
        (OPENING, reply(OPENING, service(GROUP_10, u32(268, 4012)))),
        (
            OPENING,
            reply(OPENING, service(GROUP_10, OK, final(1, group(434, u32(433, 2), packed(435, b"http://a"))), VALID)),
        ),
        (OPENING, reply(OPENING, result=4012)),
        (EVENT, reply(EVENT, u32(422, 0), service(GROUP_10, OK))),
        (price, reply(price, group(423, group(445, packed(447, bytes(8))), u32(425, 978)), service(GROUP_10, OK))),
    ]
    for request, answer in fine:
        for shown in play((True, request), (False, answer)):
            assert texts(shown, Kind.ERROR, Kind.BREACH) == []


def test_an_answer_under_another_hop_by_hop_identifier_is_known_by_its_end_to_end_identifier() -> None:
    _, told = play((True, OPENING), (False, reply(OPENING, GRANTED, hop_by_hop=7)))
    (text,) = texts(told)
    assert text == (
        "the Hop-by-Hop Identifier 0x00000007 is not the 0x01020304 of message 1, which it answers by its End-to-End "
        "Identifier: its receiver discards it"
    )


def test_answers_too_many_and_answers_to_nothing() -> None:
    answer = reply(OPENING, GRANTED)
    _, first, second, stray = play(
        (True, OPENING), (False, answer), (False, answer), (False, reply(OPENING, GRANTED, hop_by_hop=7, end_to_end=8))
    )
    assert texts(first) == []
    assert texts(second) == ["message 1 was answered before, by message 2"]
    assert texts(stray) == ["no request in this capture has its Hop-by-Hop Identifier: its receiver discards it"]


def test_requests_without_answer_are_told_where_the_answers_would_be_in_the_capture() -> None:
    other = fresh(ccr(U, service(used(MIB), wants(), GROUP_10), number=1))
    first, _, last = play((True, OPENING), (False, reply(OPENING, GRANTED)), (True, other))
    assert texts(first) == []
    assert texts(last) == ["it is not answered in this capture"]
    one_sided = [packet for packet in conversation([(True, OPENING)]) if packet[12:16] == bytes((10, 0, 0, 1))]
    (alone,) = decoded(read(pcap(one_sided), PORTS))
    assert texts(alone) == []
    # Messages that somebody pasted are not all there was.
    pasted = decoded(Streams([Found(OPENING), Found(reply(other, GRANTED))]))
    assert [texts(each) for each in pasted] == [[], []]


def test_pasted_messages_are_matched_too() -> None:
    asked, told = decoded(Streams([Found(OPENING), Found(reply(OPENING, GRANTED, flags=0))]))
    assert asked.answer is not None
    assert asked.answer.delay_ns is None
    assert texts(told) == ["the P bit is clear, unlike that of its request"]


def test_a_hop_by_hop_identifier_in_use() -> None:
    other = OPENING[:16] + b"\x00\x00\x00\x09" + OPENING[20:].replace(b"gw.example.net;1;2", b"gw.example.net;1;3")
    _, second = play((True, OPENING), (True, other))
    assert "the Hop-by-Hop Identifier is that of message 1, which is not answered yet" in texts(second)


def test_both_directions_may_ask_under_the_same_identifier() -> None:
    """RFC 6733 section 3: it is unique on one connection in one direction."""
    rar = message(
        [SESSION_ID, ORIGIN_HOST, ORIGIN_REALM, packed(283, b"a"), packed(293, b"b"), AUTH_APPLICATION_ID, u32(285, 0)],
        command=258,
        hop_by_hop=0x01020304,
    )
    raa = message([SESSION_ID, u32(268, 2002), ORIGIN_HOST, ORIGIN_REALM], command=258, flags=0x40)
    shown = play((True, OPENING), (False, rar), (True, raa), (False, reply(OPENING, GRANTED)))
    assert [texts(each, Kind.ERROR, Kind.BREACH) for each in shown] == [[], [], [], []]
    assert [each.request.number for each in shown if each.request] == [2, 1]


# -- the requests of one session ---------------------------------------------------------------------------------


def begun(*requests: bytes) -> list[DecodedMessage]:
    """The requests, behind an opening that was granted."""
    passed = [(True, OPENING), (False, reply(OPENING, GRANTED))]
    for request in requests:
        passed += [(True, request), (False, reply(request, GRANTED))]
    return [shown for shown in play(*passed) if shown.is_request][1:]


def update(number: int, *avps: bytes) -> bytes:
    return fresh(ccr(U, *(avps or (service(used(MIB), wants(MIB), GROUP_10),)), number=number))


FIRST = update(1)
AGAIN = fresh(FIRST)
ENDED = fresh(ccr(T, number=1))
SESSIONS: dict[str, tuple[list[bytes], str]] = {
    "same_number_again": (
        [FIRST, AGAIN],
        (
            "CC-Request-Number 1 was in message 3 already; it comes under a new End-to-End Identifier: "
            "the server repeats its first answer"
        ),
    ),
    "repeated": (
        [FIRST, FIRST[:4] + b"\xd0" + FIRST[5:]],
        "it repeats message 3, with the T bit; the server repeats its answer",
    ),
    "number_out_of_order": ([update(3)], "CC-Request-Number 3 follows 0"),
    "after_the_end": (
        [ENDED, update(2)],
        "the session was terminated before: the server answers 5002 (DIAMETER_UNKNOWN_SESSION_ID)",
    ),
    "begun_twice": (
        [fresh(ccr(I, WHO, WANTED, number=1))],
        "the session is open already: the server answers 5012, unless Origin-State-Id has risen",
    ),
    "more_than_granted": (
        [update(1, service(used(u64(412, 1 << 20), u64(414, 1)), wants(), GROUP_10))],
        "CC-Total-Octets 1048577 of Rating-Group 10 is more than the 1048576 granted",
    ),
    "used_without_grant": (
        [update(1, service(used(MIB), wants(), GROUP_20))],
        "usage of Rating-Group 20 is reported, but no request of this session asked for it",
    ),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_request_that_does_not_fit_its_session(name: str) -> None:
    requests, text = SESSIONS[name]
    rule = next(rule for rule in SESSION_RULES.rules if rule.name == name)
    assert texts(begun(*requests)[-1], rule.kind) == [text]


def test_every_session_rule_is_tried() -> None:
    assert SESSIONS.keys() == {rule.name for rule in SESSION_RULES.rules}


def test_the_same_number_with_other_usage_says_so() -> None:
    _, other = begun(FIRST, update(1, service(used(octets(7)), wants(), GROUP_10)))
    assert any("and asks or reports something else" in text for text in texts(other))


def test_a_refund_may_have_the_number_of_its_debit() -> None:
    debit, refund = fresh(ccr(E, u32(436, 0), WHO, WANTED)), fresh(ccr(E, u32(436, 1), WHO, WANTED))
    shown = play((True, debit), (False, reply(debit, GRANTED)), (True, refund), (False, reply(refund, GRANTED)))
    assert [texts(each, Kind.ERROR, Kind.BREACH) for each in shown] == [[]] * 4


def test_sessions_do_not_disturb_each_other() -> None:
    other = OPENING.replace(b"gw.example.net;1;2", b"gw.example.net;1;3")
    assert texts(begun(fresh(other))[-1]) == []


def test_a_request_that_is_refused_as_malformed_counts_for_nothing() -> None:
    broken = fresh(ccr(U, u32(9999, 1), number=1))
    refused, fine = begun(broken, FIRST)
    assert texts(refused, Kind.BREACH) == []
    assert texts(fine) == []


def test_two_grants_around_a_tariff_change_are_added_up() -> None:
    change = u32(451, 5)
    both = [service(GROUP_10, u32(452, side), granted(change, octets(100)), VALID, OK) for side in (0, 1)]
    report = update(1, service(GROUP_10, wants(), used(u32(452, 0), octets(100)), used(u32(452, 1), octets(100))))
    shown = play((True, OPENING), (False, reply(OPENING, *both)), (True, report), (False, reply(report, GRANTED)))
    assert texts(shown[2]) == []


def test_time_and_octets_are_held_against_their_own_grants() -> None:
    report = update(1, service(GROUP_10, wants(), used(seconds(9_999), octets(5))))
    assert texts(begun(report)[-1]) == []


def test_origin_state_id_rises_when_a_client_lost_its_sessions() -> None:
    first = ccr(I, WHO, INDICATOR, WANTED, u32(278, 5))
    again = fresh(ccr(I, WHO, INDICATOR, WANTED, u32(278, 6)))
    old = fresh(ccr(U, service(wants(), GROUP_10), u32(278, 4), number=1))
    passed = [(True, first), (False, reply(first, GRANTED)), (True, again), (False, reply(again, GRANTED)), (True, old)]
    shown = play(*passed)
    assert texts(shown[2]) == ["Origin-State-Id rises from 5 to 6: the server releases the sessions gw.example.net had"]
    assert "Origin-State-Id 4 of gw.example.net is less than the 6 before, and says nothing" in texts(shown[4])


def test_a_request_before_and_behind_a_relay_is_one_request() -> None:
    relay = ("10.0.0.9", 50_000)
    forwarded = ccr(I, WHO, INDICATOR, WANTED, packed(282, b"gw.example.net"), hop_by_hop=0x77)
    frames = [
        tcp(CLIENT, relay, 1, OPENING),
        tcp(relay, SERVER, 1, b"", SYN),
        tcp(relay, SERVER, 2, forwarded),
        tcp(SERVER, relay, 1, reply(forwarded, GRANTED)),
        tcp(relay, CLIENT, 1, reply(OPENING, GRANTED)),
    ]
    shown = decoded(read(pcap(frames), PORTS))
    assert [texts(each) for each in shown] == [[], [], [], []]
    assert [each.answer.number for each in shown if each.answer] == [4, 3]
