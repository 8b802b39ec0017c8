"""Commands as Redis reads them (RESP2): an array of bulk strings.

``hiredis.pack_command`` does the same for any command; the large ones of the hot path are put together from pieces
that are there already, which costs a third of it.
"""

from typing import Final

_KNOWN: Final = 4096
_BULKS: Final = [b"\r\n$%d\r\n" % size for size in range(_KNOWN)]
"""What stands in front of a bulk string of so many octets, with the end of what came before it."""
_NUMBERS: Final = [b"%d" % number for number in range(_KNOWN)]


def number(value: int) -> bytes:
    """A whole number as Redis reads it."""
    return _NUMBERS[value] if 0 <= value < _KNOWN else str(value).encode()


class Request:
    """One command that is being put together: ``add`` its name and its arguments, then ``encoded``."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = [b""]

    def add(self, argument: bytes) -> None:
        size = len(argument)
        parts = self._parts
        parts.append(_BULKS[size] if size < _KNOWN else b"\r\n$%d\r\n" % size)
        parts.append(argument)

    def extend(self, other: "Request") -> None:
        """Add all arguments of another."""
        self._parts += other._parts[1:]

    def encoded(self) -> bytes:
        """All octets of the command."""
        parts = self._parts
        parts[0] = b"*%d" % (len(parts) >> 1)
        parts.append(b"\r\n")
        octets = b"".join(parts)
        parts.pop()
        return octets
