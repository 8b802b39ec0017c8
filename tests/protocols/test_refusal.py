"""Refusals without reading: the very octets that reading in full would come to, or none."""

from pathlib import Path

import pytest

from protocols.credit_control import CreditControlAnswer, decode_request, encode_answer
from protocols.credit_control.refusal import LAYOUTS_PER_LENGTH, MAX_LENGTHS, Refusals, refusal_code, request_type
from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.codes import Flag, ResultCode
from protocols.diameter.errors import DiameterError
from tests.failover import Session, forwarded

ORIGIN = avp("Origin-Host", "occ1.ocs.example.net") + avp("Origin-Realm", "ocs.example.net")
CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus" / "charge"


def session(name: str = "pgw1.example.net;1;1", server: str | None = None) -> Session:
    return Session("pgw1.example.net", name, "491700000001", server=server)


def expected(message: bytes) -> bytes:
    request = decode_request(message)
    return encode_answer(request, CreditControlAnswer(refusal_code(request)), ORIGIN)


def requests() -> list[bytes]:
    one = session(server="occ1.ocs.example.net")
    sent = [one.initial(), one.update(), one.update(3), one.termination(), session("pgw1.example.net;1;22").event()]
    return sent + [forwarded(message, "dra.example.net") for message in sent]


def corpus() -> list[bytes]:
    """Requests of real clients and what fuzzing made of them."""
    found = []
    for file in sorted(CORPUS.iterdir()):
        octets = file.read_bytes()
        while len(octets) >= 20 and 20 <= (length := int.from_bytes(octets[1:4], "big")) <= len(octets):
            if int.from_bytes(octets[4:8], "big") & 0x80FFFFFF == 0x80000110:
                found.append(octets[:length])
            octets = octets[length:]
    assert len(found) > 50
    return found


def test_a_refusal_is_what_reading_in_full_comes_to() -> None:
    """Also for the second of its kind, which is not read any more, and with other identifiers, T and P flags."""
    refusals = Refusals(ORIGIN)
    for message in requests() * 2:
        again = bytearray(message)
        again[4] ^= Flag.RETRANSMIT
        again[12:20] = bytes(range(8))
        aside = bytearray(message)
        aside[4] ^= Flag.PROXIABLE
        for one in (message, bytes(again), bytes(aside)):
            answer, code = refusals.refusal(one)
            assert answer == expected(one)
            assert code == refusal_code(decode_request(one))
            codec.check(codec.decode(answer))


def test_whatever_was_learnt_from_other_clients() -> None:
    """Messages of the corpus, before and after each other: learnt layouts never answer for what differs."""
    refusals = Refusals(ORIGIN)
    refused = 0
    for message in corpus() * 2:
        try:
            wanted = expected(message)
        except DiameterError:
            continue
        answer, _ = refusals.refusal(message)
        assert answer == wanted
        refused += 1
    assert refused > 30


def test_what_cannot_be_read_is_told_that() -> None:
    message = bytearray(session().initial())
    message[25:28] = b"\x00\x00\x07"  # length of Session-Id
    with pytest.raises(DiameterError):
        Refusals(ORIGIN).refusal(bytes(message))


def test_a_server_that_was_asked_for_is_busy_any_other_cannot_deliver() -> None:
    """RFC 6733 section 7.1.3."""
    one = session(server="occ1.ocs.example.net")
    initial, update = one.initial(), one.update()
    refusals = Refusals(ORIGIN)
    for _ in range(2):
        assert refusals.refusal(initial)[1] == ResultCode.UNABLE_TO_DELIVER
        assert refusals.refusal(update)[1] == ResultCode.TOO_BUSY
        assert codec.decode(refusals.refusal(update)[0]).flags & Flag.ERROR


def with_length(message: bytes) -> bytes:
    return message[:1] + len(message).to_bytes(3, "big") + message[4:]


def test_layouts_are_bounded() -> None:
    refusals = Refusals(ORIGIN)
    for number in range(1, 3000):
        name = avp("User-Name", "u" * (number // 3 + 1))
        state = avp("Origin-State-Id", number)
        more = (name + state, state + name, name)[number % 3]
        refusals.refusal(with_length(session("pgw1.example.net;1;1").event() + more))
    kept = refusals._layouts
    assert 100 < len(kept) <= MAX_LENGTHS
    assert all(0 < len(layouts) <= LAYOUTS_PER_LENGTH for layouts in kept.values())


def test_the_type_of_a_request_is_seen_at_once() -> None:
    one = session()
    kinds = [request_type(message) for message in (one.initial(), one.update(), one.termination(), one.event())]
    assert kinds == [1, 2, 3, 4]
    for at in range(20, len(one.sent[0])):
        assert request_type(one.sent[0][:at]) in (0, 1)
    assert request_type(bytes(20)) == 0


@pytest.mark.parametrize("kind", [0, 5, 99, 255])
def test_what_is_no_type_of_a_request_is_none(kind: int) -> None:
    """Hidden in another AVP, before the real one, a client can write there whatever it likes."""
    message = session().initial()
    hidden = bytes.fromhex("000001a04000000c") + bytes([0, 0, 0, kind])
    assert request_type(message[:20] + hidden + message[20:]) == 0
