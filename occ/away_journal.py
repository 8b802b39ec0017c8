"""The journal of requests that were answered while the store could not be reached: one file, appended to and fsynced.

A file begins with ``OCC-AWAY``, a version octet, 16 random octets that name the journal, and their checksum. Then come
frames: 4 octets of mark, 4 of length, 4 of checksum (CRC-32, begun with that of the journal's name), and a msgpack list
of records. A frame is what was written and fsynced in one go, so nobody was answered for one that is torn, and only the
last one can be: it is set aside and named. Damage anywhere else stops the start.

Records are tuples: ``("e", ...)`` an ``Entry``; ``("s", number, ...)`` entries that are settled. The name of a journal
is part of the marks that settling leaves in the store, so a file that begins anew has another name.

One process at a time has a journal: it holds a lock on ``FILE.lock``. In that is, a line each, which store the journal
is about, and, where it is not its own server that has it, who settles what that has left (``occ.away_left``).
"""

import fcntl
import os
import secrets
import struct
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgpack

SUFFIX: Final = ".journal"
MAGIC: Final = b"OCC-AWAY"
VERSION: Final = 1
NAME_OCTETS: Final = 16
_HEADER: Final = Struct(f">8sB{NAME_OCTETS}sI")
_FRAME: Final = Struct(">4sII")
_MARK: Final = b"\xd9OA\xf1"
LONGEST_FRAME: Final = 1 << 30

_pack = msgpack.Packer(autoreset=True).pack


class AwayJournalError(Exception):
    """The journal cannot be used; the message is one sentence that says what to do."""


class AwayJournalBusyError(AwayJournalError):
    """Another process has the journal."""

    settled_by: str = ""
    """The server that settles it for the one whose it is; empty: it is a process of that very server."""


class Entry(NamedTuple):
    """One request that was answered."""

    number: int
    """From 1, rising within a journal."""
    came_ms: int
    """When it came, Unix epoch, UTC."""
    via: bytes
    """Diameter identity of the peer it came by."""
    profile: str
    """Name of the client's profile."""
    origin_state_id: int
    """Of its client, as far as it is known; 0: it is not."""
    message: bytes
    """The whole Credit-Control-Request."""
    outcome: bytes
    """What it was answered, packed (``balance.records``)."""


@dataclass(frozen=True, slots=True)
class Torn:
    """The end of a file that was never written in full, and was set aside."""

    octets: int
    kept_in: Path


class AwayJournal:
    """One journal file. Not to be used by two threads at once; nothing here waits for anything but the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = b""
        """Random octets that name this journal, until it begins anew."""
        self.octets = 0
        """Length of the file."""
        self.waiting: list[Entry] = []
        """Entries that were not settled when it was opened, in the order they were written."""
        self.last_number = 0
        """The highest number that was in it when it was opened."""
        self.torn: Torn | None = None
        self._file = -1
        self._lock = -1

    def open(self, store: str = "", settled_by: str = "") -> "AwayJournal":
        """Take the lock, read what is there, set aside what is torn; a file that is missing is begun.

        ``store`` tells stores apart; ``settled_by``: another server than the one whose journal it is, which must be of
        the same store. Raises AwayJournalError (AwayJournalBusyError: another process has it), OSError.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._tell(store, settled_by)
            if self.path.exists():
                self._load()
            else:
                self.begin_anew()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Give the lock back. What is in the file stays."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def append(self, records: Sequence[tuple[Any, ...]]) -> None:
        """Write records as one frame and wait until the disk has it.

        Raises OSError; the file is then as it was before, or is refused to be written to from then on.
        """
        if self._file < 0:
            raise OSError("the journal is closed after an earlier fault")
        payload = _pack(records)
        frame = _FRAME.pack(_MARK, len(payload), self._checksum(payload)) + payload
        try:
            _write_all(self._file, frame)
            os.fsync(self._file)
        except OSError:
            self._take_back()
            raise
        self.octets += len(frame)

    def begin_anew(self) -> None:
        """Replace the file by an empty one of another name. Raises OSError; the old one is then still there."""
        name = secrets.token_bytes(NAME_OCTETS)
        new = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, _HEADER.pack(MAGIC, VERSION, name, crc32(name)))
            os.fsync(descriptor)
            os.replace(new, self.path)
        except OSError:
            os.close(descriptor)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self.name, self.octets = descriptor, name, _HEADER.size
        _sync_directory(self.path.parent)

    def remove(self) -> None:
        """Take the file away; nothing can be written any more. Raises OSError; then it is still there."""
        self.path.unlink()
        _sync_directory(self.path.parent)
        os.close(self._file)
        self._file = -1

    def _take_back(self) -> None:
        """Cut off what could not be written in full: what comes next must follow a whole frame."""
        try:
            os.ftruncate(self._file, self.octets)
            os.fsync(self._file)
        except OSError:
            os.close(self._file)
            self._file = -1

    def _take_lock(self) -> None:
        lock = self.path.with_name(self.path.name + ".lock")
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _, settled_by = self._told()
            os.close(self._lock)
            self._lock = -1
            error = AwayJournalBusyError(
                f"another process has the journal {self.path}; give each server its own diameter.origin_host or "
                "store.data_dir"
            )
            error.settled_by = settled_by
            raise error from None

    def _told(self) -> tuple[str, str]:
        """What the file that is locked says: which store it is about, and who settles it for its server."""
        store, _, settled_by = os.pread(self._lock, 1024, 0).decode("utf-8", "replace").partition("\n")
        return store, settled_by

    def _tell(self, store: str, settled_by: str) -> None:
        if settled_by and (not store or self._told()[0] != store):
            raise AwayJournalError(
                f"the journal {self.path} does not say that it is of the store {store}, so nobody but its own server "
                "may settle it: start that once more"
            )
        if self._told() != (store, settled_by):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{store}\n{settled_by}".encode(), 0)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        content = self.path.read_bytes()
        at = self._read(content)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        if at < len(content):
            self.torn = self._set_aside(content[at:])
            os.ftruncate(self._file, at)
            os.fsync(self._file)
        self.octets = at

    def _read(self, content: bytes) -> int:
        """Take in what is in the file; where its last whole frame ends. Raises AwayJournalError."""
        self._read_header(content)
        entries: dict[int, Entry] = {}
        at = _HEADER.size
        while at < len(content):
            end, records = self._frame(content, at)
            if records is None:
                self._check_torn(content, at)
                break
            for kind, *fields in records:
                if kind == "e":
                    entry = Entry(*fields)
                    entries[entry.number] = entry
                    self.last_number = max(self.last_number, entry.number)
                else:
                    for number in fields:
                        entries.pop(number, None)
            at = end
        self.waiting = list(entries.values())
        return at

    def _read_header(self, content: bytes) -> None:
        try:
            magic, version, self.name, checksum = _HEADER.unpack_from(content)
        except struct.error:
            raise self._damaged(0) from None
        if magic != MAGIC or checksum != crc32(self.name):
            raise self._damaged(0)
        if version != VERSION:
            raise AwayJournalError(
                f"the journal {self.path} is of version {version} and this program reads {VERSION}; let the version "
                "that wrote it settle it first"
            )

    def _checksum(self, payload: bytes) -> int:
        return crc32(payload, crc32(self.name))

    def _frame(self, content: bytes, at: int) -> tuple[int, list[Any] | None]:
        """Where the frame ends and its records; None: there is no whole frame."""
        if len(content) - at < _FRAME.size:
            return at, None
        mark, length, checksum = _FRAME.unpack_from(content, at)
        end = at + _FRAME.size + length
        payload = content[at + _FRAME.size : end]
        if mark != _MARK or length > LONGEST_FRAME or len(payload) < length or self._checksum(payload) != checksum:
            return at, None
        records: list[Any] = msgpack.unpackb(payload, raw=False, use_list=False)
        return end, records

    def _check_torn(self, content: bytes, at: int) -> None:
        """What cannot be read is the torn end of the file if no whole frame follows it."""
        later = content.find(_MARK, at + 1)
        while later >= 0:
            if self._frame(content, later)[1] is not None:
                raise self._damaged(at)
            later = content.find(_MARK, later + 1)

    def _damaged(self, at: int) -> AwayJournalError:
        return AwayJournalError(
            f"the journal {self.path} is damaged at octet {at}, and it holds requests that were answered: restore the "
            "file from a copy, or move it away and keep it, and start again; what it holds is then not charged"
        )

    def _set_aside(self, rest: bytes) -> Torn:
        kept = self.path.with_name(f"{self.path.name}.torn-{time.time_ns() // 1_000_000}")
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, rest)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _sync_directory(kept.parent)
        return Torn(len(rest), kept)


def left_by_others(directory: Path, own: Collection[str]) -> dict[str, Path]:
    """The journals in a directory by the Origin-Host of the server whose each is, but those of ``own`` Origin-Hosts."""
    found = {path.name.removesuffix(SUFFIX): path for path in sorted(directory.glob(f"*{SUFFIX}"))}
    return {name: path for name, path in found.items() if name not in own}


def count_waiting(path: Path) -> int:
    """How many entries of a journal are not settled, without taking it. Raises AwayJournalError, OSError."""
    journal = AwayJournal(path)
    journal._read(path.read_bytes())
    return len(journal.waiting)


def entry_record(entry: Entry) -> tuple[Any, ...]:
    """An entry as ``AwayJournal.append`` takes it."""
    return ("e", *entry)


def settled_record(numbers: Iterable[int]) -> tuple[Any, ...]:
    """Entries that are settled, as ``AwayJournal.append`` takes them."""
    return ("s", *numbers)


def _write_all(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
