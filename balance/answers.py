"""The answers a session has been given, kept so that a repeat gets its first answer again.

One byte string, record after record, oldest first: 8 octets of key, 4 of age (seconds after the session started), 4 of
length, then the packed outcome. A session of 64 answers is written at every request; as one string that costs next to
nothing, and a repeat is found, or found missing, by one search.
"""

from struct import Struct
from typing import Final

_HEAD: Final = Struct(">QII")
_KEY: Final = Struct(">Q")


def answer_key(kind: int, number: int) -> int:
    """What tells the requests of a session apart. ``kind``: CC-Request-Type, and for events the Requested-Action."""
    return kind << 32 | number


def find(answers: bytes, key: int) -> bytes | None:
    """The packed outcome of an answer, or None."""
    if answers.find(_KEY.pack(key)) < 0:
        return None
    at = 0
    while at < len(answers):
        found, _, length = _HEAD.unpack_from(answers, at)
        at += _HEAD.size
        if found == key:
            return answers[at : at + length]
        at += length
    return None  # the octets of the key stand within an outcome


def add(answers: bytes, key: int, outcome: bytes, age_s: int) -> bytes:
    """The answers with one more."""
    return answers + _HEAD.pack(key, age_s, len(outcome)) + outcome


def exchanged(answers: bytes, key: int, outcome: bytes) -> bytes:
    """The answers with another outcome of one of them, which is there."""
    found, at = b"", 0
    while at < len(answers):
        this, age_s, length = _HEAD.unpack_from(answers, at)
        kept = outcome if this == key else answers[at + _HEAD.size : at + _HEAD.size + length]
        found = add(found, this, kept, age_s)
        at += _HEAD.size + length
    return found


def oldest(answers: bytes) -> tuple[int, int, int]:
    """Of the first answer: its CC-Request-Number, its age, and how many octets it takes."""
    key, age_s, length = _HEAD.unpack_from(answers)
    return key & 0xFFFFFFFF, age_s, _HEAD.size + length


def newest_key(answers: bytes) -> int:
    """The key of the last answer; -1 if there is none."""
    key, at = -1, 0
    while at < len(answers):
        key, _, length = _HEAD.unpack_from(answers, at)
        at += _HEAD.size + length
    return key
