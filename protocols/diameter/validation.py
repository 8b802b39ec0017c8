"""Full check of a message against the dictionary, in one walk over its octets.

Both the codec's ``check`` and the learning of message shapes use this walk, so there is one opinion of what
is wrong with a message and of what its Failed-AVP looks like.

Where the specifications leave room, input is read leniently:

- Reserved command and AVP flag bits, the AVP P bit and a wrong M bit are ignored (RFC 6733 sections 3, 4.1).
- An AVP beyond those that a group's grammar lists is accepted; so is any position of Session-Id.
- A group that is not in the dictionary is not looked into, and inside a group that came without the M bit an
  unknown AVP is ignored whatever its own M bit says (RFC 6733 section 4.4: the whole group may be ignored).
- What Failed-AVP holds is by its nature broken, so it is not looked into.
"""

import struct
from typing import Final, TypeAlias

from protocols.diameter.codes import Application, AvpFlag, Flag, ResultCode
from protocols.diameter.dictionary import DICTIONARY, AvpDefinition, AvpType, CommandDefinition, Grammar
from protocols.diameter.errors import AvpError, MessageError

HEADER_LENGTH: Final[int] = 20
MAX_DEPTH: Final[int] = 12
MAX_AVPS: Final[int] = 2000
"""In one message, members of groups counted: several times what the largest requests of real clients have."""
MAX_SESSION_ID: Final[int] = 1024
"""Octets. RFC 6733 section 8.8 bounds it no further; it is a key in memory and in the store."""

#: One AVP found by the walk: key, offset of its header, offset of its data, end of its data, members or None.
Node: TypeAlias = "tuple[int, int, int, int, list[Node] | None]"

_U32: Final = struct.Struct(">I")
_HEADER_WORDS: Final = struct.Struct(">II")

_VENDOR_BIT: Final[int] = 0x80000000
_MANDATORY_BIT: Final[int] = 0x40000000
LENGTH_MASK: Final[int] = 0x00FFFFFF

_FAILED_AVP: Final[int] = 279
_AUTH_APPLICATION_ID: Final[int] = 258
_SESSION_ID: Final[int] = 263

_FIRST_VENDOR_KEY: Final[int] = 1 << 32

_OPEN_GRAMMAR: Final[Grammar] = Grammar()


def raw_avp(code: int, vendor: int, flags: int, data: bytes) -> bytes:
    """Encode one AVP without asking the dictionary; the V bit follows from ``vendor``."""
    size = len(data)
    padding = b"\x00" * (-size & 3)
    if vendor:
        return struct.pack(">III", code, (flags | 0x80) << 24 | size + 12, vendor) + data + padding
    return struct.pack(">II", code, (flags & 0x7F) << 24 | size + 8) + data + padding


def missing_avp(key: int) -> bytes:
    """An example of a missing AVP: "a zero-filled payload of the minimum required length" (RFC 6733 7.5)."""
    definition = DICTIONARY.by_key[key]
    return raw_avp(definition.code, definition.vendor, definition.flags, bytes(definition.minimum_length))


def check_length(buffer: bytes) -> None:
    """Check that the octets are one message by its length field. Raises MessageError 5015, to be closed.

    RFC 6733 section 3: the length counts header and padded AVPs, "is always a multiple of 4".
    """
    size = len(buffer)
    if size < HEADER_LENGTH:
        raise MessageError(
            ResultCode.INVALID_MESSAGE_LENGTH,
            f"a message of {size} octets is shorter than the Diameter header of {HEADER_LENGTH}",
            close=True,
        )
    length = _U32.unpack_from(buffer)[0] & LENGTH_MASK
    if length != size or length & 3:
        raise MessageError(
            ResultCode.INVALID_MESSAGE_LENGTH,
            f"message length {length} is not the {size} octets received or no multiple of 4",
            close=True,
        )


def check_version(buffer: bytes) -> None:
    """Raises MessageError 5011 unless the version is 1."""
    if buffer[0] != 1:
        raise MessageError(ResultCode.UNSUPPORTED_VERSION, f"Diameter version {buffer[0]} is not supported, only 1 is")


def check_header(flags: int, code: int, application: int) -> CommandDefinition:
    """Find the command of a message header.

    Raises MessageError 3007 (unknown application), 3001 (unknown command) or 3008 (R and E both set, or P on
    a command that is never proxied). Reserved bits are ignored: RFC 6733 section 3 asks for that, while
    section 7.1.5 has 5013 for them; the former keeps peers of later revisions talking.
    """
    if application not in DICTIONARY.applications:
        raise MessageError(ResultCode.APPLICATION_UNSUPPORTED, f"application {application} is not supported")
    is_request = flags & Flag.REQUEST != 0
    command = DICTIONARY.command(code, application, is_request)
    if command is None:
        raise MessageError(
            ResultCode.COMMAND_UNSUPPORTED, f"command {code} of application {application} is not supported"
        )
    if is_request and flags & Flag.ERROR:
        raise MessageError(ResultCode.INVALID_HDR_BITS, f"{command.name} has the R and E bits both set")
    if flags & Flag.PROXIABLE and not command.proxiable:
        raise MessageError(ResultCode.INVALID_HDR_BITS, f"{command.name} must not have the P bit set")
    return command


def padded(avp: bytes) -> bytes:
    """An AVP as received, with zero padding."""
    return avp + b"\x00" * (-len(avp) & 3)


def cut_short(octets: bytes) -> AvpError:
    """5014 for fewer octets than an AVP header has.

    RFC 6733 section 7.1.5: the header "formulated by padding the incomplete AVP header with zero up to the minimum
    AVP header length", which is 8: so there is no Vendor-Id and no V bit. The length field says 8 as well, so that
    the answer itself is well-formed.
    """
    code, word = _HEADER_WORDS.unpack(octets[:8].ljust(8, b"\x00"))
    return AvpError(
        ResultCode.INVALID_AVP_LENGTH,
        f"{len(octets)} octets are too few for the header of AVP {code}",
        raw_avp(code, 0, word >> 24, b""),
    )


def bad_length(key: int, word: int) -> AvpError:
    """5014 for an AVP length below the header's or beyond the end: header and zero fill (section 7.5).

    The length field of the copy is that of the copy, so that the answer itself is well-formed.
    """
    definition = DICTIONARY.by_key.get(key)
    fill = bytes(definition.minimum_length) if definition is not None else b""
    return AvpError(
        ResultCode.INVALID_AVP_LENGTH,
        f"AVP {key & 0xFFFFFFFF} has the impossible length {word & LENGTH_MASK}",
        raw_avp(key & 0xFFFFFFFF, key >> 32, word >> 24, fill),
    )


def zero_vendor(code: int, word: int, data: bytes) -> AvpError:
    """3009 for the V bit with Vendor-Id 0, which section 4.1.1 forbids; the copy is without the V bit."""
    return AvpError(
        ResultCode.INVALID_AVP_BITS,
        f"AVP {code} has the V bit set but Vendor-Id 0",
        raw_avp(code, 0, word >> 24, data),
    )


def validate(buffer: bytes) -> list[Node]:
    """Walk one whole message and return its AVPs as a tree of nodes.

    Raises the first MessageError or AvpError met; an AvpError's Failed-AVP repeats the groups around the AVP,
    so that the sender sees where it is (RFC 6733 section 7.5).
    """
    check_length(buffer)
    check_version(buffer)
    flags_code = _U32.unpack_from(buffer, 4)[0]
    application = _U32.unpack_from(buffer, 8)[0]
    flags = flags_code >> 24
    command = check_header(flags, flags_code & LENGTH_MASK, application)
    grammar = DICTIONARY.error_answer if flags & Flag.ERROR else command.grammar
    return Walk(buffer, application).members(HEADER_LENGTH, len(buffer), grammar, 0, False)


class Walk:
    """The walk over one message; see ``validate``."""

    __slots__ = ("application", "avps", "buffer")

    def __init__(self, buffer: bytes, application: int) -> None:
        self.buffer = buffer
        self.avps = 0
        # Base commands list applications in their capability AVPs; in all others they must agree.
        self.application = application if application != Application.BASE else -1

    def members(self, position: int, end: int, grammar: Grammar, depth: int, optional: bool) -> list[Node]:
        """The AVPs between two offsets: a message's body or the data of a group.

        ``optional``: a group around them came without the M bit.
        """
        buffer = self.buffer
        by_key = DICTIONARY.by_key
        counts: dict[int, int] = {}
        nodes: list[Node] = []
        while position < end:
            if end - position < 8:
                raise cut_short(buffer[position:end])
            key, word = _HEADER_WORDS.unpack_from(buffer, position)
            start = position + 8
            if word & _VENDOR_BIT:
                if end - position < 12:
                    raise cut_short(buffer[position:end])
                start = position + 12
                key |= _U32.unpack_from(buffer, position + 8)[0] << 32
            stop = position + (word & LENGTH_MASK)
            if stop < start or stop > end:
                raise bad_length(key, word)
            definition = by_key.get(key)
            members: list[Node] | None = None
            if word & _VENDOR_BIT and key < _FIRST_VENDOR_KEY:
                raise zero_vendor(key, word, buffer[start:stop])
            if definition is None:
                if word & _MANDATORY_BIT and not optional:
                    raise self._unknown(position, stop, key)
            else:
                self._count(position, stop, definition, grammar, counts)
                if definition.grouped:
                    if key != _FAILED_AVP:
                        members = self._group(position, stop, definition, depth, optional)
                elif definition.fixed_length >= 0:
                    self._fixed(position, start, stop, definition)
                elif not definition.minimum_length < stop - start <= MAX_SESSION_ID:
                    self._size(position, start, stop, definition)
            nodes.append((key, position, start, stop, members))
            position = (stop + 3) & ~3
        self._add(len(nodes))
        for key in grammar.required:
            if key not in counts and not _replaced(key, grammar, nodes):
                raise AvpError(ResultCode.MISSING_AVP, f"{DICTIONARY.by_key[key].name} is missing", missing_avp(key))
        return nodes

    def _group(self, position: int, stop: int, definition: AvpDefinition, depth: int, optional: bool) -> list[Node]:
        flags = self.buffer[position + 4]
        if depth >= MAX_DEPTH:
            raise AvpError(
                ResultCode.INVALID_AVP_VALUE,
                f"{definition.name} is nested more than {MAX_DEPTH} groups deep",
                raw_avp(definition.code, definition.vendor, flags, b""),
            )
        grammar = definition.grammar or _OPEN_GRAMMAR
        try:
            start = position + (12 if flags & AvpFlag.VENDOR else 8)
            return self.members(start, stop, grammar, depth + 1, optional or not flags & AvpFlag.MANDATORY)
        except AvpError as error:
            # The Failed-AVP shows the path: the group, holding only the offending AVP.
            inner = error.failed_avp or b""
            error.failed_avp = raw_avp(definition.code, definition.vendor, flags, inner)
            raise

    def _count(
        self, position: int, stop: int, definition: AvpDefinition, grammar: Grammar, counts: dict[int, int]
    ) -> None:
        """Count an AVP whose number the grammar bounds."""
        limit = grammar.maxima.get(definition.key)
        if limit is None:
            return
        seen = counts.get(definition.key, 0) + 1
        if seen > limit:
            copy = padded(self.buffer[position:stop])
            if limit == 0:
                raise AvpError(ResultCode.AVP_NOT_ALLOWED, f"{definition.name} is not allowed here", copy)
            raise AvpError(
                ResultCode.AVP_OCCURS_TOO_MANY_TIMES,
                f"{definition.name} occurs more often than the {limit} allowed",
                copy,
            )
        counts[definition.key] = seen

    def _fixed(self, position: int, start: int, stop: int, definition: AvpDefinition) -> None:
        """Length of a fixed-length type, and the values that the header or a closed enumeration bounds."""
        if stop - start != definition.fixed_length:
            raise AvpError(
                ResultCode.INVALID_AVP_LENGTH,
                f"{definition.name} has {stop - start} octets of data instead of {definition.fixed_length}",
                padded(self.buffer[position:stop]),
            )
        if definition.closed:
            value = _U32.unpack_from(self.buffer, start)[0]
            if value not in definition.values:
                raise AvpError(
                    ResultCode.INVALID_AVP_VALUE,
                    f"{definition.name} must be one of {sorted(definition.values)}, not {value}",
                    padded(self.buffer[position:stop]),
                )
        elif definition.key == _AUTH_APPLICATION_ID and self.application >= 0:
            value = _U32.unpack_from(self.buffer, start)[0]
            # RFC 6733 section 3: the header "MUST be the same as any relevant Application-Id AVPs".
            if value != self.application:
                raise AvpError(
                    ResultCode.INVALID_AVP_VALUE,
                    f"Auth-Application-Id {value} is not the header's application {self.application}",
                    padded(self.buffer[position:stop]),
                )

    def _add(self, avps: int) -> None:
        """Count the AVPs of the whole message."""
        self.avps += avps
        if self.avps > MAX_AVPS:
            raise MessageError(ResultCode.UNABLE_TO_COMPLY, f"the message has more than {MAX_AVPS} AVPs")

    def _size(self, position: int, start: int, stop: int, definition: AvpDefinition) -> None:
        """Data that is as short as its type allows, or shorter; or very long."""
        size = stop - start
        if definition.key == _SESSION_ID and size > MAX_SESSION_ID:
            raise AvpError(
                ResultCode.INVALID_AVP_VALUE,
                f"Session-Id has {size} octets, more than {MAX_SESSION_ID}",
                padded(self.buffer[position:stop]),
            )
        if size < definition.minimum_length:
            raise AvpError(
                ResultCode.INVALID_AVP_LENGTH,
                f"{definition.name} has {size} octets of data, it needs at least {definition.minimum_length}",
                padded(self.buffer[position:stop]),
            )
        if not size and (definition.type is AvpType.DIAMETER_IDENTITY or definition.key == _SESSION_ID):
            raise AvpError(
                ResultCode.INVALID_AVP_VALUE,
                f"{definition.name} is empty",
                padded(self.buffer[position:stop]),
            )

    def _unknown(self, position: int, stop: int, key: int) -> AvpError:
        return AvpError(
            ResultCode.AVP_UNSUPPORTED,
            f"AVP {key & 0xFFFFFFFF} of vendor {key >> 32} has the M bit set and is not known",
            padded(self.buffer[position:stop]),
        )


def _replaced(key: int, grammar: Grammar, nodes: list[Node]) -> bool:
    """True if another AVP makes up for the missing one (see ``Grammar.instead``), by holding it."""
    other = grammar.instead.get(key)
    return other is not None and any(
        node[0] == other and any(member[0] == key for member in node[4] or ()) for node in nodes
    )
