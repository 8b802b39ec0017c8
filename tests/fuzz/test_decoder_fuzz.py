"""Hostile octets for every decoder: a fixed number of seeded mutants, and nothing but DiameterError may come out."""

import contextlib
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from protocols.credit_control import (
    CreditControlAnswer,
    ServiceAnswer,
    Units,
    client,
    decode_answer,
    decode_asa,
    decode_asr,
    decode_raa,
    decode_rar,
    decode_request,
    encode_answer,
    request,
)
from protocols.credit_control.request import MAX_SERVICES
from protocols.diameter import codec
from protocols.diameter.codec import Avp
from protocols.diameter.errors import DiameterError
from protocols.diameter.shape import MAX_SHAPES
from protocols.diameter.validation import MAX_AVPS, MAX_SESSION_ID
from tests.protocols.messages import (
    ORIGIN_HOST,
    ORIGIN_REALM,
    call_update,
    gateway_update,
    group,
    message,
    message_event,
    packed,
    required,
    u32,
)

MUTANTS = 4000
ORIGIN = ORIGIN_HOST + ORIGIN_REALM
CER = message(
    [
        ORIGIN,
        packed(257, b"\x00\x01\x7f\x00\x00\x01"),
        u32(266, 10415),
        packed(269, b"gw", flags=0),
        group(260, u32(266, 10415), u32(258, 4)),
    ],
    flags=0x80,
    command=257,
    application=0,
)
CCA = encode_answer(
    decode_request(gateway_update()),
    CreditControlAnswer(
        2001, [ServiceAnswer(10, (7,), 2001, Units(total_octets=5, money=(1, -2, 978)), 60, final_unit_action=0)]
    ),
    ORIGIN,
)
SEEDS = [gateway_update(), call_update(), message_event(), CER, CCA]
DECODERS: list[Callable[[bytes], Any]] = [
    decode_request,
    decode_answer,
    decode_rar,
    decode_asr,
    decode_raa,
    decode_asa,
    lambda octets: codec.check(codec.decode(octets)),
]


def mutate(octets: bytes, source: random.Random) -> bytes:
    """Change octets, cut, repeat or insert, and mostly mend the length so that the damage gets past the header."""
    buffer = bytearray(octets)
    for _ in range(source.randint(1, 4)):
        kind = source.randrange(7)
        at = source.randrange(len(buffer)) if buffer else 0
        if kind == 0 and buffer:
            buffer[at] ^= 1 << source.randrange(8)
        elif kind == 1 and buffer:
            buffer[at] = source.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del buffer[at : at + source.choice([1, 4, 8, 100])]
        elif kind == 3:
            buffer[at:at] = buffer[at : at + source.choice([4, 12, 60])]
        elif kind == 4:
            buffer[at:at] = source.randbytes(source.choice([1, 4, 8]))
        elif kind == 5 and len(buffer) > 28:
            # An AVP length of 0, 7, all the rest, or 16 MiB, somewhere on a word boundary.
            word = 20 + 4 * source.randrange((len(buffer) - 24) // 4)
            length = source.choice([0, 7, 8, 12, len(buffer), 0xFFFFFF])
            buffer[word + 1 : word + 4] = length.to_bytes(3, "big")
        else:
            buffer += source.randbytes(4) * source.choice([1, 2, 50])
    if source.random() < 0.8 and len(buffer) >= 20:
        del buffer[len(buffer) & ~3 :]
        buffer[:4] = struct.pack(">I", 1 << 24 | len(buffer))
    return bytes(buffer)


def read_all(avps: list[Avp], depth: int = 0) -> None:
    for one in avps:
        try:
            value = one.value()
        except DiameterError:
            continue
        if isinstance(value, list) and depth < 20:
            read_all(value, depth + 1)


def check_error(octets: bytes, error: DiameterError) -> None:
    """Its Failed-AVP is one whole AVP, and the answer made of it can be read."""
    if error.failed_avp is not None:
        [failed] = codec.split(error.failed_avp, 0)
        assert failed.encode() == error.failed_avp
    if len(octets) >= 20 and octets[4] & 0x80:
        codec.decode(codec.error_answer(octets, error, ORIGIN))


@pytest.mark.shows("operators-malformed-input")
@pytest.mark.parametrize("seed", range(5))
def test_mutants_only_ever_raise_diameter_errors(seed: int) -> None:
    """RFC 6733 section 7: whatever arrives is answered or dropped; a Failed-AVP is itself well-formed."""
    source = random.Random(seed)
    valid = 0
    refused: set[int] = set()
    for _ in range(MUTANTS // 5):
        octets = mutate(source.choice(SEEDS), source)
        for decoder in DECODERS:
            try:
                decoder(octets)
                valid += 1
            except DiameterError as error:
                refused.add(int(error.result_code))
                check_error(octets, error)
        with contextlib.suppress(DiameterError):
            read_all(codec.decode(octets).avps)
    # The mutants are of all kinds: some still good, the rest refused for many reasons.
    assert valid
    assert {3001, 3008, 5001, 5005, 5009, 5014, 5015} <= refused
    assert len(request.SHAPES) <= MAX_SHAPES
    assert len(client.ANSWER_SHAPES) <= MAX_SHAPES


@pytest.mark.shows("operators-malformed-input")
@pytest.mark.parametrize("size", [0, 1, 4, 19, 20, 21, 24, 28, 200])
def test_noise(size: int) -> None:
    source = random.Random(size)
    for _ in range(50):
        octets = source.randbytes(size)
        for decoder in DECODERS:
            with pytest.raises(DiameterError):
                decoder(octets)


@pytest.mark.shows("operators-malformed-input")
def test_nested_and_numerous_avps_cost_no_more_than_their_octets() -> None:
    """A group in a group in a group, 16 MiB claimed, and 100,000 empty AVPs: an error or a result, no hang."""
    nested = b""
    for _ in range(5000):
        nested = packed(873, nested, vendor=10415, flags=0x80)
    many = packed(60000, b"", flags=0) * 100_000
    claims = packed(873, b"", vendor=10415, length=0xFFFFFF)
    for octets in (message([nested]), message([claims]), message([packed(873, many, vendor=10415)])):
        with pytest.raises(DiameterError):
            decode_request(octets)


@pytest.mark.shows("operators-malformed-input")
def test_limits_on_what_one_request_may_have() -> None:
    """As many as allowed are taken, one more is refused with the code of RFC 6733 section 7.1.5 and shown."""
    service = group(456, u32(432, 10))
    assert len(decode_request(required(*[service] * MAX_SERVICES)).services) == MAX_SERVICES
    with pytest.raises(DiameterError) as refused:
        decode_request(required(*[service] * (MAX_SERVICES + 1)))
    assert (refused.value.result_code, refused.value.failed_avp) == (5009, service)

    longest = packed(263, b"s" * MAX_SESSION_ID)
    assert len(decode_request(required(longest, without=["Session-Id"])).session_id) == MAX_SESSION_ID
    longer = packed(263, b"s" * (MAX_SESSION_ID + 1))
    with pytest.raises(DiameterError) as refused:
        decode_request(required(longer, without=["Session-Id"]))
    assert (refused.value.result_code, refused.value.failed_avp) == (5004, longer)

    others = [packed(60000, b"", flags=0)] * (MAX_AVPS - len(codec.decode(required()).avps))
    assert decode_request(required(*others)).request_number == 7
    with pytest.raises(DiameterError) as refused:
        decode_request(required(*others, packed(60000, b"", flags=0)))
    assert (refused.value.result_code, refused.value.failed_avp) == (5012, None)
