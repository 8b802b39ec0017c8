"""Text as short messages carry it: alphabet, and the parts of what is too long for one.

Sources: 3GPP TS 23.038 clauses 6.1.2 (GSM 7-bit) and 6.2.3 (UCS-2), TS 23.040 clauses 9.2.3.24 and 9.2.3.24.1
(concatenation). A text goes in GSM 7-bit if it can, 160 characters in one message, 153 in each part; else in UCS-2, as
UTF-16, with 70 and 67. In 7-bit a message is handed over an octet per character, as SMPP message centres take it.
"""

from dataclasses import dataclass
from typing import Final

from protocols.smpp.pdu import DATA_DEFAULT, DATA_UCS2

_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""TS 23.038 clause 6.2.1, by code; 0x1B is the escape to the extension table."""
_EXTENSION: Final = {"\f": 0x0A, "^": 0x14, "{": 0x28, "}": 0x29, "\\": 0x2F, "[": 0x3C, "~": 0x3D, "]": 0x3E,
                     "|": 0x40, "€": 0x65}  # fmt: skip
"""TS 23.038 clause 6.2.1.1."""

_ESCAPE: Final = 0x1B
GSM7: Final[dict[str, bytes]] = {
    **{letter: bytes((code,)) for code, letter in enumerate(_BASIC) if code != _ESCAPE},
    **{letter: bytes((_ESCAPE, code)) for letter, code in _EXTENSION.items()},
}

_SPACES: Final = dict.fromkeys(map(ord, "\u00a0\u202f\u2009\u2007"), " ")
"""Spaces that typography asks for and GSM 7-bit lacks."""

ONE_GSM7, PART_GSM7 = 160, 153
ONE_UCS2, PART_UCS2 = 140, 134
"""Octets: 70 and 67 characters."""
MOST_PARTS: Final = 255


@dataclass(frozen=True, slots=True)
class Part:
    """The user data of one message."""

    octets: bytes
    """Header, if any, and text."""
    data_coding: int
    has_header: bool


def parts_of(text: str, reference: int) -> list[Part]:
    """The messages that a text goes in; ``reference``, 0 to 255, tells its parts from those of others.

    Raises ValueError for a text that is empty, or too long for 255 parts.
    """
    text = text.translate(_SPACES)
    if not text:
        raise ValueError("there is no text")
    coding, letters = _letters(text)
    one, most = (ONE_GSM7, PART_GSM7) if coding == DATA_DEFAULT else (ONE_UCS2, PART_UCS2)
    if sum(map(len, letters)) <= one:
        return [Part(b"".join(letters), coding, False)]
    pieces = _cut(letters, most)
    if len(pieces) > MOST_PARTS:
        raise ValueError(f"the text is too long for a short message: it would take {len(pieces)} parts")
    # A header of 5 octets: concatenation with an 8-bit reference, its length 3, then reference, parts, this part.
    return [
        Part(bytes((5, 0, 3, reference & 0xFF, len(pieces), number)) + piece, coding, True)
        for number, piece in enumerate(pieces, 1)
    ]


def _letters(text: str) -> tuple[int, list[bytes]]:
    """The alphabet, and each character in it: what must not be cut apart."""
    try:
        return DATA_DEFAULT, [GSM7[letter] for letter in text]
    except KeyError:
        return DATA_UCS2, [letter.encode("utf-16-be", "replace") for letter in text]


def _cut(letters: list[bytes], most: int) -> list[bytes]:
    pieces: list[bytes] = []
    piece = bytearray()
    for letter in letters:
        if len(piece) + len(letter) > most:
            pieces.append(bytes(piece))
            piece.clear()
        piece += letter
    return [*pieces, bytes(piece)]
