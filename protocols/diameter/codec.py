"""Octets to Diameter messages and back (RFC 6733 sections 3 and 4). Pure: no socket, no clock, no state.

``decode`` reads the structure only, ``check`` holds a message against the dictionary; both are meant for the
base protocol and for tools. The charging path reads requests through ``protocols.credit_control``.
Output is strict: ``avp`` encodes by dictionary definition and refuses values that do not fit it.
"""

import contextlib
import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import Final, cast

from protocols.diameter.codes import AvpFlag, Flag, ResultCode
from protocols.diameter.dictionary import DICTIONARY, AvpDefinition, AvpType
from protocols.diameter.errors import AvpError, DiameterError
from protocols.diameter.validation import (
    HEADER_LENGTH,
    LENGTH_MASK,
    bad_length,
    check_length,
    check_version,
    cut_short,
    raw_avp,
    validate,
    zero_vendor,
)

__all__ = [
    "HEADER_LENGTH",
    "Avp",
    "Message",
    "answer_to",
    "avp",
    "build",
    "check",
    "decode",
    "encode",
    "error_answer",
    "raw_avp",
]

Value = int | float | str | bytes | list["Avp"]
#: What ``avp`` takes: for a group its members, already encoded.
Encodable = int | float | str | bytes | Sequence[bytes]

_HEADER: Final = struct.Struct(">IIIII")
_WORDS: Final = struct.Struct(">II")
_U32: Final = struct.Struct(">I")
_NUMBERS: Final[dict[AvpType, struct.Struct]] = {
    AvpType.INTEGER32: struct.Struct(">i"),
    AvpType.INTEGER64: struct.Struct(">q"),
    AvpType.UNSIGNED32: struct.Struct(">I"),
    AvpType.UNSIGNED64: struct.Struct(">Q"),
    # RFC 6733 derives Enumerated from Integer32.
    AvpType.ENUMERATED: struct.Struct(">i"),
}
_FLOATS: Final[dict[AvpType, struct.Struct]] = {
    AvpType.FLOAT32: struct.Struct(">f"),
    AvpType.FLOAT64: struct.Struct(">d"),
}
_TEXT: Final = frozenset(
    {
        AvpType.UTF8_STRING,
        AvpType.DIAMETER_IDENTITY,
        AvpType.DIAMETER_URI,
        AvpType.IP_FILTER_RULE,
        AvpType.QOS_FILTER_RULE,
    }
)

#: Seconds from 1900-01-01, where Diameter Time starts, to 1970-01-01.
NTP_UNIX_OFFSET: Final[int] = 2208988800

_SESSION_ID: Final[int] = 263
_PROXY_INFO: Final[int] = 284
_FAMILY_IPV4: Final[int] = 1
_FAMILY_IPV6: Final[int] = 2
_FAMILY_E164: Final[int] = 8


def unix_time(seconds: int) -> int:
    """Unix seconds of a Diameter Time (RFC 6733 section 4.3.1).

    Values without the top bit are of the era that starts in February 2036.
    """
    return seconds - NTP_UNIX_OFFSET if seconds & 0x80000000 else seconds + (1 << 32) - NTP_UNIX_OFFSET


def diameter_time(unix_seconds: int) -> int:
    """Diameter Time of Unix seconds, modulo its 32 bits."""
    return (unix_seconds + NTP_UNIX_OFFSET) & 0xFFFFFFFF


class Avp:
    """One AVP as received: ``code``, ``vendor`` (0: none), ``flags``, and ``data`` undecoded, unpadded."""

    __slots__ = ("code", "data", "flags", "vendor")

    def __init__(self, code: int, vendor: int, flags: int, data: bytes) -> None:
        self.code = code
        self.vendor = vendor
        self.flags = flags
        self.data = data

    @property
    def definition(self) -> AvpDefinition | None:
        """The dictionary's definition, None for an unknown AVP."""
        return DICTIONARY.avp(self.code, self.vendor)

    @property
    def name(self) -> str:
        """The dictionary's name, or "AVP code/vendor"."""
        definition = self.definition
        return definition.name if definition is not None else f"AVP {self.code}/{self.vendor}"

    def value(self) -> Value:
        """The data by its dictionary type.

        Integers and Enumerated as int, Time as Unix seconds, text and identities as str, Address as str
        (bytes of family and address if the family is neither IPv4, IPv6 nor E.164), Grouped as list of
        Avp, floats as float, everything else and unknown AVPs as bytes. Raises AvpError 5014 or 5004 if
        the data does not fit the type.
        """
        definition = self.definition
        if definition is None:
            return self.data
        kind = definition.type
        if definition.fixed_length >= 0 and len(self.data) != definition.fixed_length:
            raise self._error(ResultCode.INVALID_AVP_LENGTH, f"is {len(self.data)} octets long")
        if kind in _NUMBERS:
            number: int = _NUMBERS[kind].unpack(self.data)[0]
            return number
        if kind in _TEXT:
            try:
                return self.data.decode("utf-8")
            except UnicodeDecodeError:
                raise self._error(ResultCode.INVALID_AVP_VALUE, "is not UTF-8") from None
        if kind is AvpType.GROUPED:
            return split(self.data, 0)
        if kind is AvpType.TIME:
            return unix_time(_U32.unpack(self.data)[0])
        if kind is AvpType.ADDRESS:
            return self._address()
        if kind in _FLOATS:
            real: float = _FLOATS[kind].unpack(self.data)[0]
            return real
        return self.data

    def encode(self) -> bytes:
        """The AVP with header and padding."""
        return raw_avp(self.code, self.vendor, self.flags, self.data)

    def _address(self) -> str | bytes:
        family = int.from_bytes(self.data[:2], "big")
        address = self.data[2:]
        if (family, len(address)) in ((_FAMILY_IPV4, 4), (_FAMILY_IPV6, 16)):
            return str(ipaddress.ip_address(address))
        if len(self.data) < 3 or family in (_FAMILY_IPV4, _FAMILY_IPV6):
            raise self._error(ResultCode.INVALID_AVP_LENGTH, f"is no Address: {len(self.data)} octets")
        if family == _FAMILY_E164 and address.isascii():
            return address.decode("ascii")
        return self.data

    def _error(self, result_code: ResultCode, what: str) -> AvpError:
        return AvpError(result_code, f"{self.name} {what}", self.encode())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Avp):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[int, int, int, bytes]:
        return self.code, self.vendor, self.flags, self.data

    def __repr__(self) -> str:
        return f"<{self.name} {self.data!r}>"


class Message:
    """One Diameter message: the header's fields and the top-level AVPs in order."""

    __slots__ = ("application", "avps", "command", "end_to_end", "flags", "hop_by_hop")

    def __init__(
        self, flags: int, command: int, application: int, hop_by_hop: int, end_to_end: int, avps: list[Avp]
    ) -> None:
        self.flags = flags
        self.command = command
        self.application = application
        self.hop_by_hop = hop_by_hop
        self.end_to_end = end_to_end
        self.avps = avps

    @property
    def is_request(self) -> bool:
        return self.flags & Flag.REQUEST != 0

    @property
    def is_proxiable(self) -> bool:
        return self.flags & Flag.PROXIABLE != 0

    @property
    def is_error(self) -> bool:
        return self.flags & Flag.ERROR != 0

    @property
    def is_retransmission(self) -> bool:
        return self.flags & Flag.RETRANSMIT != 0

    def find(self, code: int, vendor: int = 0) -> Avp | None:
        """The first top-level AVP with this code and vendor, or None."""
        for candidate in self.avps:
            if candidate.code == code and candidate.vendor == vendor:
                return candidate
        return None

    def find_all(self, code: int, vendor: int = 0) -> list[Avp]:
        """All top-level AVPs with this code and vendor, in order."""
        return [one for one in self.avps if one.code == code and one.vendor == vendor]

    def __repr__(self) -> str:
        command = DICTIONARY.command(self.command, self.application, self.is_request)
        name = command.name if command is not None else f"command {self.command}/{self.application}"
        return f"<{name} {self.avps!r}>"


def decode(buffer: bytes) -> Message:
    """Read the structure of one message: header and top-level AVPs.

    ``buffer`` holds exactly one message. Raises DiameterError: 5015 with ``close`` if the length field
    does not fit the octets, 5011 for a version other than 1, 5014 and 3009 for AVP headers that cannot be
    read.
    """
    check_length(buffer)
    check_version(buffer)
    _, flags_command, application, hop_by_hop, end_to_end = _HEADER.unpack_from(buffer)
    return Message(
        flags_command >> 24,
        flags_command & 0xFFFFFF,
        application,
        hop_by_hop,
        end_to_end,
        split(buffer, HEADER_LENGTH),
    )


def split(buffer: bytes, position: int, avps: list[Avp] | None = None) -> list[Avp]:
    """The AVPs from ``position`` to the end of ``buffer``, appended to ``avps``.

    Raises AvpError 5014 or 3009 at the first that cannot be read; those before it are in ``avps`` by then.
    """
    found: list[Avp] = [] if avps is None else avps
    end = len(buffer)
    while position < end:
        if end - position < 8:
            raise cut_short(buffer[position:end])
        code, word = _WORDS.unpack_from(buffer, position)
        start = position + 8
        vendor = 0
        if word & 0x80000000:
            if end - position < 12:
                raise cut_short(buffer[position:end])
            start = position + 12
            vendor = _U32.unpack_from(buffer, position + 8)[0]
        stop = position + (word & LENGTH_MASK)
        if stop < start or stop > end:
            raise bad_length(vendor << 32 | code, word)
        if word & 0x80000000 and not vendor:
            raise zero_vendor(code, word, buffer[start:stop])
        found.append(Avp(code, vendor, word >> 24, buffer[start:stop]))
        position = (stop + 3) & ~3
    return found


def check(message: Message) -> None:
    """Hold a message against the dictionary: header bits, unknown, missing, surplus, malformed AVPs.

    Raises the first DiameterError found, in the order of the octets; missing AVPs come last.
    """
    validate(encode(message))


def encode(message: Message) -> bytes:
    """The octets of a message."""
    return build(
        message.command,
        message.application,
        message.flags,
        message.hop_by_hop,
        message.end_to_end,
        [one.encode() for one in message.avps],
    )


def build(command: int, application: int, flags: int, hop_by_hop: int, end_to_end: int, avps: Iterable[bytes]) -> bytes:
    """A message from encoded AVPs. Raises ValueError if it would exceed the 24-bit length."""
    body = b"".join(avps)
    length = HEADER_LENGTH + len(body)
    if length > 0xFFFFFF:
        raise ValueError(f"a Diameter message of {length} octets is longer than its length field can say")
    return _HEADER.pack(1 << 24 | length, flags << 24 | command, application, hop_by_hop, end_to_end) + body


def avp(name: str, value: Encodable, *, mandatory: bool | None = None) -> bytes:
    """Encode one AVP by its dictionary name.

    ``value``: int for numbers and Enumerated, Unix seconds for Time, str (or bytes) for text, identities and
    addresses, a sequence of encoded AVPs for Grouped. ``mandatory`` overrides the dictionary's M rule, for
    receivers that do not know the AVP. Raises KeyError for an unknown name, ValueError for a value that
    does not fit the type.
    """
    definition = DICTIONARY.avp_named(name)
    flags = definition.flags
    if mandatory is not None:
        flags = flags & ~AvpFlag.MANDATORY | (AvpFlag.MANDATORY if mandatory else 0)
    return raw_avp(definition.code, definition.vendor, flags, _payload(definition, value))


def _payload(definition: AvpDefinition, value: Encodable) -> bytes:
    kind = definition.type
    try:
        if isinstance(value, bytes):
            if definition.grouped or definition.fixed_length in (-1, len(value)):
                return value
        elif isinstance(value, str):
            if kind is AvpType.ADDRESS:
                return _address_octets(value)
            if kind in _TEXT:
                return value.encode("utf-8")
        elif isinstance(value, Sequence):
            if definition.grouped:
                return b"".join(cast(Sequence[bytes], value))
        elif kind in _FLOATS:
            return _FLOATS[kind].pack(value)
        elif isinstance(value, int):
            if kind is AvpType.TIME:
                return _U32.pack(diameter_time(value))
            if definition.closed and value not in definition.values:
                raise ValueError(f"{definition.name} must be one of {sorted(definition.values)}, not {value}")
            if kind in _NUMBERS:
                return _NUMBERS[kind].pack(value)
    except (struct.error, OverflowError):
        pass
    raise ValueError(f"{definition.name} is {kind.value} and cannot hold {value!r}")


def _address_octets(text: str) -> bytes:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if text.isascii() and text.isdigit():
            return _FAMILY_E164.to_bytes(2, "big") + text.encode("ascii")
        raise ValueError(f"{text!r} is neither an IP address nor an E.164 number") from None
    family = _FAMILY_IPV4 if address.version == 4 else _FAMILY_IPV6
    return family.to_bytes(2, "big") + address.packed


def answer_to(request: Message, avps: Iterable[bytes], *, error: bool = False) -> bytes:
    """An answer by RFC 6733 section 6.2: same identifiers and P bit, T clear.

    Session-Id comes first if the request has one, then ``avps``, then every Proxy-Info of the request in
    order. ``error`` sets the E bit.
    """
    parts: list[bytes] = []
    session_id = request.find(_SESSION_ID)
    if session_id is not None:
        parts.append(raw_avp(_SESSION_ID, 0, AvpFlag.MANDATORY, session_id.data))
    parts.extend(avps)
    parts.extend(one.encode() for one in request.find_all(_PROXY_INFO))
    flags = request.flags & Flag.PROXIABLE | (Flag.ERROR if error else 0)
    return build(request.command, request.application, flags, request.hop_by_hop, request.end_to_end, parts)


# What a Credit-Control-Answer repeats of its request (RFC 8506 section 3.2), if it can be read.
_CREDIT_CONTROL: Final[int] = 272
_SPENDING_LIMIT: Final[int] = 8388635
_AUTH_APPLICATION_ID: Final[int] = 258
_ECHOED_IN_CCA: Final = ("CC-Request-Type", "CC-Request-Number")


def error_answer(request: bytes, error: DiameterError, origin: bytes) -> bytes:
    """The answer to a request that failed with ``error``, also if the request could not be decoded.

    ``origin``: encoded Origin-Host and Origin-Realm. What can be read of the request's AVPs (Session-Id,
    Proxy-Info, and for a CCR what its answer must repeat) is copied. The E bit is set for 3xxx only. Raises
    ValueError if ``request`` is shorter than a header or is itself an answer, which is never answered
    (section 7.2).
    """
    if len(request) < HEADER_LENGTH:
        raise ValueError(f"{len(request)} octets are no Diameter header; there is nothing to answer")
    _, flags_command, application, hop_by_hop, end_to_end = _HEADER.unpack_from(request)
    flags = flags_command >> 24
    command = flags_command & 0xFFFFFF
    if not flags & Flag.REQUEST:
        raise ValueError("an answer is never answered")
    readable = _readable_prefix(request)
    parts: list[bytes] = []
    session_id = next((one for one in readable if one.code == _SESSION_ID and not one.vendor), None)
    if session_id is not None and session_id.data:
        parts.append(raw_avp(_SESSION_ID, 0, AvpFlag.MANDATORY, session_id.data))
    parts.append(avp("Result-Code", error.result_code))
    parts.append(origin)
    if command in (_CREDIT_CONTROL, _SPENDING_LIMIT) and not error.is_protocol_error:
        parts.append(avp("Auth-Application-Id", application))
    if command == _CREDIT_CONTROL and not error.is_protocol_error:
        for name in _ECHOED_IN_CCA:
            definition = DICTIONARY.avp_named(name)
            for one in readable:
                if one.code == definition.code and not one.vendor and len(one.data) == 4:
                    parts.append(raw_avp(one.code, 0, AvpFlag.MANDATORY, one.data))
                    break
    parts.append(avp("Error-Message", error.message))
    if error.failed_avp is not None:
        parts.append(avp("Failed-AVP", [error.failed_avp]))
    parts.extend(one.encode() for one in readable if one.code == _PROXY_INFO and not one.vendor)
    answer_flags = flags & Flag.PROXIABLE | (Flag.ERROR if error.is_protocol_error else 0)
    return build(command, application, answer_flags, hop_by_hop, end_to_end, parts)


def _readable_prefix(request: bytes) -> list[Avp]:
    """The top-level AVPs of a message up to the first that cannot be read."""
    avps: list[Avp] = []
    with contextlib.suppress(AvpError):
        split(request, HEADER_LENGTH, avps)
    return avps
