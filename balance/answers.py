"""The answers a session has been given, kept so that a repeat gets its first answer again.

One byte string, record after record, oldest first: 8 octets of key, 4 of age (seconds after the session started), 4 of
length, then the packed outcome; length 0 and nothing behind it where the outcome is that of the first record, as most
are. All of it is written at every request: so it has to be short, and as one string it costs next to nothing to carry
along, and a repeat is found, or found missing, by one search.
"""

from struct import Struct
from typing import Final

_HEAD: Final = Struct(">QII")
_SIZE: Final = 16
_LENGTH: Final = 12
"""Where the length stands in a record."""
_from_bytes: Final = int.from_bytes


def answer_key(kind: int, number: int) -> int:
    """What tells the requests of a session apart. ``kind``: CC-Request-Type, and for events the Requested-Action."""
    return kind << 32 | number


def find(answers: bytes, key: int) -> bytes | None:
    """The packed outcome of an answer, or None."""
    if key.to_bytes(8, "big") not in answers:
        return None
    at = 0
    while at < len(answers):
        found, _, length = _HEAD.unpack_from(answers, at)
        at += _SIZE
        if found == key:
            return answers[at : at + length] if length else _first(answers)
        at += length
    return None  # the octets of the key stand within an outcome


def add(answers: bytes, key: int, outcome: bytes, age_s: int) -> bytes:
    """The answers with one more; ``outcome`` must not be empty."""
    size = len(outcome)
    if _from_bytes(answers[_LENGTH:_SIZE]) == size and answers.startswith(outcome, _SIZE):
        return answers + _HEAD.pack(key, age_s, 0)  # the same as the first
    return answers + _HEAD.pack(key, age_s, size) + outcome


def exchanged(answers: bytes, key: int, outcome: bytes) -> bytes:
    """The answers with another outcome of one of them, which is there."""
    found, at, first = b"", 0, _first(answers)
    while at < len(answers):
        this, age_s, length = _HEAD.unpack_from(answers, at)
        at += _SIZE
        kept = answers[at : at + length] if length else first
        found = add(found, this, outcome if this == key else kept, age_s)
        at += length
    return found


def _first(answers: bytes) -> bytes:
    """The outcome of the first record."""
    length = _HEAD.unpack_from(answers)[2]
    return answers[_SIZE : _SIZE + length]


def oldest(answers: bytes) -> tuple[int, int]:
    """Of the first answer: its CC-Request-Number, and its age."""
    return _from_bytes(answers[4:8]), _from_bytes(answers[8:_LENGTH])


def without_oldest(answers: bytes) -> bytes:
    """The answers without the first."""
    outcome = _first(answers)
    at = _SIZE + len(outcome)
    if at == len(answers):
        return b""
    key, age_s, length = _HEAD.unpack_from(answers, at)
    if not length:  # the next one has the same outcome, and is the first from now on
        return _HEAD.pack(key, age_s, len(outcome)) + outcome + answers[at + _SIZE :]
    kept = b""
    while at < len(answers):
        key, age_s, length = _HEAD.unpack_from(answers, at)
        at += _SIZE
        kept = add(kept, key, answers[at : at + length] if length else outcome, age_s)
        at += length
    return kept


def newest_key(answers: bytes) -> int:
    """The key of the last answer; -1 if there is none."""
    key, at = -1, 0
    while at < len(answers):
        key, _, length = _HEAD.unpack_from(answers, at)
        at += _SIZE + length
    return key
