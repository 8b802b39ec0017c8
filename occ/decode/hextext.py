"""Octets out of hexadecimal text as tools write it: plain digits, and dumps with an offset at the start of each line.

Plain: with or without spaces, colons, commas, line breaks, ``0x`` or ``\\x`` (Wireshark's "hex stream", C arrays).
Dumps: ``tshark -x``, Wireshark's "hex dump", ``xxd``, ``hexdump -C``, ``od -A x -t x1``, ``tcpdump -x`` and ``-X``;
each offset 0 begins another packet, and lines of other text between them are passed over.
"""

import re
from dataclasses import dataclass, field
from typing import Final

_DUMP_LINE: Final = re.compile(r"\s*(?:0x)?([0-9A-Fa-f]{3,8}):?\s+((?:[0-9A-Fa-f]{2})+(?:\s.*)?)", re.DOTALL)
_TOKEN: Final = re.compile(r"(\S+)(\s*)")
_NO_DIGIT: Final = re.compile(r"[^0-9A-Fa-f]")
_DIGITS: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_PREFIX: Final = re.compile(r"\b0[xX]|\\x")
_BETWEEN: Final = re.compile(r"[\s:,;.\-_\"'(){}\[\]]+")
_USUAL_WIDTH: Final = 16
_COLUMN_GAP: Final = 3
"""So many spaces end the octets of a line: what follows is the text column."""
_ELEMENT: Final = re.compile(r"(?:0[xX]|\\x)([0-9A-Fa-f]{2})\b")
_REPEATED: Final = "*"
_REASSEMBLED: Final = "Reassembled"
"""tshark dumps a segmented message a second time under this heading, beside the packets that it came in."""


class HexError(ValueError):
    """The text is no hexadecimal text; the message is one sentence."""


def packets_in(text: str) -> list[list[bytes]]:
    """The packets in hexadecimal text, in each way that it can be understood, the likeliest first. Raises HexError."""
    lines = text.splitlines()
    first = next((match for match in map(_DUMP_LINE.fullmatch, lines) if match), None)
    if first is not None and len(first[1]) > 3 and not int(first[1], 16):
        return [_dump(lines)]
    arrays = [b"".join(map(bytes.fromhex, _ELEMENT.findall(part))) for part in text.split("{")]
    if max(map(len, arrays)) >= _USUAL_WIDTH:
        return [[octets for octets in arrays if octets]]
    whole = _plain(text)
    if len(lines) == 1:
        return [[whole]]
    try:
        separate = [octets for octets in map(_plain_line, lines) if octets]
    except HexError:
        return [[whole]]
    return [[whole], separate]


def _plain(text: str) -> bytes:
    digits = _BETWEEN.sub("", _PREFIX.sub("", text))
    if not digits:
        raise HexError("it holds no hexadecimal digits")
    other = _NO_DIGIT.search(digits)
    if other:
        raise HexError(f"{other[0]!r} is no hexadecimal digit")
    if len(digits) % 2:
        raise HexError(f"it has an odd number of hexadecimal digits, {len(digits)}")
    return bytes.fromhex(digits)


def _plain_line(line: str) -> bytes:
    return _plain(line) if line.strip() else b""


@dataclass(slots=True)
class _Packet:
    heading: str
    octets: bytearray = field(default_factory=bytearray)
    width: int = 0
    last: str = ""
    """The columns after the offset of the newest line, of which it is not yet known how many octets it has."""
    repeats: bool = False

    def grow(self, offset: int, line: int) -> None:
        """Take the newest line in, now that the offset of the next is known. Raises HexError."""
        count = offset - len(self.octets)
        found = _octets(self.last, count)
        if self.repeats and found and count > len(found):
            found = (found * (count // len(found) + 1))[:count]
        if len(found) != count:
            raise HexError(f"line {line}: offset {offset:#x} follows {len(self.octets) + len(found):#x} octets")
        self.width = self.width or count
        self.octets += found
        self.repeats = False

    def finish(self) -> bytes:
        return bytes(self.octets + _octets(self.last, self.width or _USUAL_WIDTH))


def _dump(lines: list[str]) -> list[bytes]:
    packets: list[_Packet] = []
    heading = ""
    for number, line in enumerate(lines, 1):
        match = _DUMP_LINE.fullmatch(line)
        if match is None:
            if line.strip() == _REPEATED and packets:
                packets[-1].repeats = True
            else:
                heading = line.strip()
            continue
        offset = int(match[1], 16)
        if not offset:
            packets.append(_Packet(heading))
        else:
            packets[-1].grow(offset, number)
        packets[-1].last = match[2]
    kept = [packet for packet in packets if not packet.heading.startswith(_REASSEMBLED)]
    return [packet.finish() for packet in kept or packets]


def _octets(columns: str, limit: int) -> bytes:
    """The octets at the start of a line's columns: until the text column, and no more than ``limit``."""
    found = b""
    for token, gap in _TOKEN.findall(columns):
        if len(found) >= limit or not _DIGITS.fullmatch(token):
            break
        found += bytes.fromhex(token)
        if len(gap) >= _COLUMN_GAP:
            break
    return found[: max(limit, 0)]
