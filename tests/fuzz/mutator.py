"""Changes to Diameter messages that leave enough of them standing to be read on: headers and lengths are mended.

Blind mutation breaks the length of the message or of an AVP first, and what comes after it is never reached. Here a
message is taken apart, AVPs are changed, dropped, repeated, nested or brought in from other messages, and put together
again with true lengths; one time in eight something is left wrong on purpose.
"""

from collections.abc import Callable, Sequence
from random import Random

from protocols.diameter import codec
from protocols.diameter.errors import DiameterError

Blind = Callable[[bytes, int], bytes]
"""The fuzzer's own mutation: octets and the greatest length of what comes back."""

ABSURD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 62) - 1, 1 << 63, (1 << 64) - 1)
GROUPS = (456, 437, 446, 431, 443, 873, 284, 260, 279, 458)
DEEPEST = 6


def mutate(octets: bytes, limit: int, seed: int, blind: Blind, others: Sequence[bytes]) -> bytes:
    """Another input made of this one; ``others``: messages whose AVPs may be brought in."""
    random = Random(seed)
    messages = _split(octets)
    if not messages or random.random() < 0.1:
        return blind(octets, limit)
    if len(messages) > 1 and random.random() < 0.15:
        random.shuffle(messages)
    if random.random() < 0.1:
        messages.insert(random.randrange(len(messages) + 1), random.choice(others))
    index = random.randrange(len(messages))
    for _ in range(random.choice((1, 1, 2, 4))):
        messages[index] = _changed(messages[index], random, blind, others)
    whole = b"".join(messages)[:limit]
    return blind(whole, limit) if random.random() < 0.03 else whole


def _split(octets: bytes) -> list[bytes]:
    """The messages of a stream; none if it does not begin with one, what follows the last whole one is left out."""
    found = []
    at = 0
    while len(octets) - at >= codec.HEADER_LENGTH:
        length = int.from_bytes(octets[at + 1 : at + 4], "big")
        if length < codec.HEADER_LENGTH or at + length > len(octets):
            break
        found.append(octets[at : at + length])
        at += length
    return found


def _changed(message: bytes, random: Random, blind: Blind, others: Sequence[bytes]) -> bytes:
    header, body = message[: codec.HEADER_LENGTH], message[codec.HEADER_LENGTH :]
    if random.random() < 0.1:
        at = random.choice((0, 4, 4, 5, 6, 7, 8, 9, 10, 11))
        header = header[:at] + bytes((random.randrange(256),)) + header[at + 1 :]
    else:
        body = _body(body, random, blind, others, 0)
    body += bytes(-len(body) % 4)
    if random.random() >= 0.12:
        header = header[:1] + (codec.HEADER_LENGTH + len(body) & 0xFFFFFF).to_bytes(3, "big") + header[4:]
    return header + body


def _body(body: bytes, random: Random, blind: Blind, others: Sequence[bytes], depth: int) -> bytes:
    """The AVPs of a message or a group, one of them changed."""
    try:
        avps = [one.encode() for one in codec.split(body, 0)]
    except DiameterError:
        return blind(body, len(body) + 64)
    if not avps:
        return _foreign(random, others)
    index = random.randrange(len(avps))
    one = avps[index]
    header = 12 if one[4] & 0x80 else 8
    code, length = int.from_bytes(one[:4], "big"), int.from_bytes(one[5:8], "big")
    what = random.randrange(9)
    if what == 0:
        del avps[index]
    elif what == 1:
        avps[index:index] = [one] * random.choice((1, 1, 2, 20))
    elif what == 2:
        avps.insert(index, _foreign(random, others))
    elif what == 3:
        avps[index] = codec.raw_avp(random.choice(GROUPS), random.choice((0, 0, 10415)), 0x40, one)
    elif what == 4 and length - header in (4, 8):
        size = length - header
        number = random.choice((*ABSURD, random.randrange(1 << 33), random.randrange(100)))
        avps[index] = one[:header] + (number & (1 << 8 * size) - 1).to_bytes(size, "big")
    elif what == 5:
        at = random.randrange(8)
        avps[index] = one[:at] + bytes((random.randrange(256),)) + one[at + 1 :]
    elif code in GROUPS and depth < DEEPEST:
        avps[index] = one[:header]
        inside = _body(one[header:length], random, blind, others, depth + 1)
        avps[index] = _with_length(one[:header], inside)
    else:
        avps[index] = _with_length(one[:header], blind(one[header:length] or b"\x00", length - header + 16))
    return b"".join(avps)


def _with_length(header: bytes, data: bytes) -> bytes:
    return (
        header[:5] + (len(header) + len(data) & 0xFFFFFF).to_bytes(3, "big") + header[8:] + data + bytes(-len(data) % 4)
    )


def _foreign(random: Random, others: Sequence[bytes]) -> bytes:
    """An AVP of another message, at its top or within."""
    body = random.choice(others)[codec.HEADER_LENGTH :]
    for _ in range(3):
        try:
            avps = codec.split(body, 0)
        except DiameterError:
            break
        if not avps:
            break
        one = random.choice(avps).encode()
        if int.from_bytes(one[:4], "big") not in GROUPS or random.random() < 0.5:
            return one
        body = one[12 if one[4] & 0x80 else 8 : int.from_bytes(one[5:8], "big")]
    return codec.raw_avp(9999, 0, 0, b"")
