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


def encoded(command: list[bytes]) -> bytes:
    """All octets of a command: its name and its arguments. Raises TypeError for what is not of octets."""
    parts = [b""] * (2 * len(command) + 2)
    parts[0] = b"*%d" % len(command)
    parts[1:-1:2] = [_BULKS[size] if size < _KNOWN else b"\r\n$%d\r\n" % size for size in map(len, command)]
    parts[2:-1:2] = command
    parts[-1] = b"\r\n"
    return b"".join(parts)
