"""Credit-control messages for the tests of ``occ decode``, short to write, right or wrong as is wanted."""

import struct

from occ.decode.streams import Found
from occ.decode.tree import DecodedMessage
from tests.protocols.messages import (
    AUTH_APPLICATION_ID,
    ORIGIN_HOST,
    ORIGIN_REALM,
    REQUIRED,
    SESSION_ID,
    VENDOR_3GPP,
    group,
    message,
    packed,
    subscription,
    u32,
    u64,
)

# CC-Request-Type: initial, update, termination, event.
I, U, T, E = 1, 2, 3, 4  # noqa: E741
NOW_S = 1_800_000_000
NTP_S = 2_208_988_800

WHO = subscription(1, b"262010000000001")
INDICATOR = u32(455, 1)
GROUP_10 = u32(432, 10)
GROUP_20 = u32(432, 20)


def ccr(kind: int, *avps: bytes, number: int | None = None, without: tuple[str, ...] = (), **header: int) -> bytes:
    """A Credit-Control-Request of what it must have, and more; ``number``: 0 or 1 as the type has it."""
    number = {I: 0, E: 0}.get(kind, 1) if number is None else number
    said = {**REQUIRED, "CC-Request-Type": u32(416, kind), "CC-Request-Number": u32(415, number)}
    return message([*(avp for name, avp in said.items() if name not in without), *avps], **header)


def cca(kind: int, *avps: bytes, result: int = 2001, flags: int = 0x40) -> bytes:
    """A Credit-Control-Answer."""
    echoed = [AUTH_APPLICATION_ID, u32(416, kind), u32(415, 0)]
    return message([SESSION_ID, u32(268, result), ORIGIN_HOST, ORIGIN_REALM, *echoed, *avps], flags=flags)


def service(*members: bytes) -> bytes:
    return group(456, *members)


def wants(*members: bytes) -> bytes:
    return group(437, *members)


def used(*members: bytes) -> bytes:
    return group(446, *members)


def granted(*members: bytes) -> bytes:
    return group(431, *members)


def octets(count: int) -> bytes:
    return u64(421, count)


def seconds(count: int) -> bytes:
    return u32(420, count)


def tgpp(code: int, value: int) -> bytes:
    return u32(code, value, vendor=VENDOR_3GPP, flags=0)


def reason(value: int) -> bytes:
    return u32(872, value, vendor=VENDOR_3GPP)


def final(action: int, *members: bytes, code: int = 430) -> bytes:
    return group(code, u32(449, action), *members)


def redirect(kind: int, address: bytes) -> bytes:
    return group(434, u32(433, kind), packed(435, address))


def money(digits: int, *members: bytes) -> bytes:
    return group(413, group(445, packed(447, struct.pack(">q", digits))), *members)


def pool(number: int, unit: int) -> bytes:
    return group(457, u32(453, number), u32(454, unit), group(445, packed(447, struct.pack(">q", 1))))


def time_avp(code: int, unix_s: int) -> bytes:
    return u32(code, (unix_s + NTP_S) & 0xFFFFFFFF)


def base(command: int, *avps: bytes, flags: int = 0x80, application: int = 0) -> bytes:
    """A message between neighbours."""
    return message([ORIGIN_HOST, ORIGIN_REALM, *avps], flags=flags, command=command, application=application)


def answer(*avps: bytes, flags: int = 0x40, result: int = 2001) -> bytes:
    """A Re-Auth-Answer."""
    return message([SESSION_ID, u32(268, result), ORIGIN_HOST, ORIGIN_REALM, *avps], flags=flags, command=258)


MIB = octets(1 << 20)
VALID = u32(448, 300)
OK = u32(268, 2001)
WANTED = service(wants(MIB), GROUP_10)
GRANTED = service(granted(MIB), GROUP_10, VALID, OK)
OPENING = ccr(I, WHO, INDICATOR, WANTED)


def reply(request: bytes, *avps: bytes, result: int = 2001, session: bytes = SESSION_ID, **header: int) -> bytes:
    """The answer to a CCR as it should be."""
    shown = DecodedMessage(1, Found(request))
    kind, number = shown.value_of("CC-Request-Type") or 0, shown.value_of("CC-Request-Number") or 0
    given = {"flags": shown.flags & 0x40, "hop_by_hop": shown.hop_by_hop, "end_to_end": shown.end_to_end} | header
    echoed = [AUTH_APPLICATION_ID, u32(416, kind), u32(415, number)]
    return message([session, u32(268, result), ORIGIN_HOST, ORIGIN_REALM, *echoed, *avps], **given)
