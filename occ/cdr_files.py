"""Files of charging data records: JSON Lines, CSV or both, in one directory that one process writes to.

A file is written under its name and ``.part``. When it is big or old enough, and all that is in it has been struck from
the outbox, it is closed: it gets its name in one step, and a file of sums beside it, so that whoever fetches files
never sees half of one. The files of a format are numbered without gaps, so that one that got lost on its way is missed.
"""

import csv
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import gmtime, strftime
from typing import Any, Final, NamedTuple

from occ.cdr_fields import Place, csv_header, csv_line, json_line

log = logging.getLogger("occ.outbox")

PART: Final = ".part"
SUM: Final = ".sum"
UNREADABLE: Final = "unreadable.log"
"""File of what stood in the outbox and is no record: a line of JSON each, its content in hexadecimal."""
OCTETS_AT_ONCE: Final = 1 << 17
"""Lines are written to a file when there are so many octets of them, and what is left at the end."""

NUMBERS: Final = ".numbers"
"""File that remembers the number of the last file of each format."""

_NAME: Final = re.compile(r"cdr-(?:.*-)?([0-9]{8}T[0-9]{6})Z-([0-9]{8,})\.")


@dataclass(slots=True, frozen=True)
class CdrSettings:
    directory: Path
    rotate_bytes: int = 64 << 20
    rotate_ms: int = 3_600_000
    formats: tuple[str, ...] = ("jsonl",)
    """Out of ``FORMATS``."""
    node: str = ""
    """Who writes, to stand in the names of files; a Diameter identity."""


class Delivery(NamedTuple):
    """A record on its way from the outbox into a file."""

    lane: int
    place: Place
    fields: dict[str, Any]
    """Those of ``occ.cdr.as_json_fields``, with ``entry``."""


class Unreadable(NamedTuple):
    """What stood in the outbox where a record should have been."""

    lane: int
    place: Place
    content: bytes
    why: str
    """One clause."""


def entry_name(lane: int, place: Place) -> str:
    """Where a record stood in the outbox, as its line says."""
    return f"{lane}/{place[0]}-{place[1]}/{place[2]}"


@dataclass(slots=True, frozen=True)
class Format:
    """How records are written."""

    header: Callable[[], str]
    line: Callable[[dict[str, Any]], bytes]
    entry: re.Pattern[bytes]
    """What a line begins with: ``entry_name``."""


_ENTRY: Final = rb"([0-9]+)/([0-9]+)-([0-9]+)/([0-9]+)"

FORMATS: Final[dict[str, Format]] = {
    "jsonl": Format(lambda: "", json_line, re.compile(rb'\{"entry":"' + _ENTRY + rb'"')),
    "csv": Format(csv_header, csv_line, re.compile(_ENTRY + rb",")),
}


Told = tuple[str | None, int, int]
"""Of a record, what its file's sums are made of: ``record_id``, micro-units debited, leaked."""


def _told(fields: Mapping[str, Any]) -> Told:
    return fields["record_id"], fields["debited_micro"], fields["leaked_micro"]


class Sums:
    """What a file of sums says of a file: kept while it is written, as reading all of it again takes as long."""

    def __init__(self, header: bytes = b"") -> None:
        self.octets = len(header)
        self._digest = hashlib.sha256(header)
        self._records = self._debited = self._leaked = 0
        self._first: str | None = None
        self._last: str | None = None

    def add(self, octets: bytes, records: Sequence[Told]) -> None:
        """Whole lines, and what the records that they are tell."""
        self.octets += len(octets)
        self._digest.update(octets)
        self._records += len(records)
        for record_id, debited_micro, leaked_micro in records:
            self._debited += debited_micro
            self._leaked += leaked_micro
            self._last = record_id
            if self._first is None:
                self._first = record_id

    def as_fields(self) -> dict[str, Any]:
        """Records, octets, SHA-256, the first and last record, money debited and leaked."""
        return {
            "records": self._records,
            "octets": self.octets,
            "sha256": self._digest.hexdigest(),
            "first_record": self._first,
            "last_record": self._last,
            "debited_micro": self._debited,
            "leaked_micro": self._leaked,
        }


class CdrFiles:
    """The files of one directory. What the last process there has left unfinished is taken up.

    Holds a lock on the directory until ``close``: two writers would each deliver what the other has delivered already.
    Raises BlockingIOError if another process holds it, OSError. May be used by several threads, one at a time.
    """

    def __init__(self, settings: CdrSettings) -> None:
        self._directory = settings.directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BlockingIOError(
                f"another server writes charging data records to {self._directory}; give each its own cdr.directory"
            ) from None
        self._turn = Lock()
        self._series = [_Series(settings, name) for name in settings.formats]
        try:
            self._resume()
        except OSError:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let another process write to the directory."""
        os.close(self._lock)

    def name(self) -> bytes:
        """What the directory is called in the store: made up when it is first used, and kept in its lock file."""
        known = os.pread(self._lock, 64, 0)
        if known:
            return known
        made_up = secrets.token_hex(8).encode()
        os.pwrite(self._lock, made_up, 0)
        os.fsync(self._lock)
        _sync_names(self._directory)
        return made_up

    def _resume(self) -> None:
        """Finish closing a file, and find out what is on disk already, so that it is not written again.

        A last line torn by a crash is cut off: its record is still in the outbox.
        """
        for waiting in self._directory.glob(f"cdr-*{SUM}{PART}"):
            if waiting.with_name(waiting.name.removesuffix(SUM + PART)).exists():
                waiting.rename(waiting.with_name(waiting.name.removesuffix(PART)))
            else:
                waiting.unlink()
        for series in self._series:
            series.resume()

    def write(self, deliveries: Iterable[Delivery | Unreadable], now_ms: int) -> int:
        """Append the records that are not there yet; how many in any format. They are on disk after ``sync``.

        What is no record is set aside in ``UNREADABLE``, so that it neither gets lost nor holds up those behind it.
        Raises OSError; what was written until then is known, and not written again.
        """
        with self._turn:
            batches = [_Batch(series, now_ms) for series in self._series]
            for each in deliveries:
                if isinstance(each, Unreadable):
                    self._set_aside(each)
                    continue
                lane, place, fields = each
                try:
                    lines = [series.format.line(fields) for series in self._series]
                except Exception as error:  # whatever becomes of fields that are of another type
                    self._set_aside(Unreadable(lane, place, repr(fields).encode(), f"{type(error).__name__}: {error}"))
                    continue
                for batch, line in zip(batches, lines, strict=True):
                    batch.add(lane, place, fields, line)
            for batch in batches:
                batch.flush()
            return max([batch.written for batch in batches], default=0)

    def _set_aside(self, found: Unreadable) -> None:
        """It may stand there twice after a crash. Raises OSError."""
        entry = entry_name(found.lane, found.place)
        log.error("%s of the outbox is no charging data record (%s): it is in %s now", entry, found.why, UNREADABLE)
        line = json.dumps({"entry": entry, "why": found.why, "content": found.content.hex()})
        with (self._directory / UNREADABLE).open("a", encoding="ascii") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def begin_sync(self) -> None:
        """Have the disk begin with what was written, so that ``sync`` has little left to wait for.

        Whoever else writes to this file system and synchronises waits for it as well, if it comes all at once.
        """
        with self._turn:
            for series in self._series:
                series.begin_sync()

    def sync(self) -> None:
        """Have everything that was written on disk before returning. Raises OSError."""
        with self._turn:
            for series in self._series:
                series.sync()

    def due(self, now_ms: int) -> bool:
        """Whether ``seal`` has something to do."""
        with self._turn:
            return any(series.due(now_ms) for series in self._series)

    def seal(self, now_ms: int, everything: bool = False) -> list[Path]:
        """Close the files that are big or old enough, or all; which those are. Raises OSError.

        Only to be called when all that is in them has been struck from the outbox: a closed file may be taken away at
        any time, and with it the knowledge of what was delivered.
        """
        with self._turn:
            return [path for series in self._series for path in series.seal(now_ms, everything)]


class _Batch:
    """Lines of one format on their way into a file, some at a time: what is a record is let go of when it is a line.

    Otherwise thousands of them would stand in memory together, which costs as much as making them.
    """

    __slots__ = ("_last", "_lines", "_now_ms", "_octets", "_series", "_told", "written")

    def __init__(self, series: "_Series", now_ms: int) -> None:
        self._series = series
        self._now_ms = now_ms
        self._last = dict(series.last)
        self._lines: list[bytes] = []
        self._octets = 0
        self._told: list[Told] = []
        self.written = 0

    def add(self, lane: int, place: Place, fields: Mapping[str, Any], line: bytes) -> None:
        """Raises OSError."""
        if place <= self._last.get(lane, (0, 0, 0)):
            return
        self._last[lane] = place
        self._lines.append(line)
        self._told.append(_told(fields))
        self._octets += len(line)
        if self._octets >= OCTETS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Raises OSError."""
        if self._lines:
            self._series.append(self._lines, self._told, self._last, self._now_ms)
            self.written += len(self._lines)
            self._lines, self._told, self._octets = [], [], 0


class _Series:
    """The files of one format."""

    def __init__(self, settings: CdrSettings, name: str) -> None:
        self._settings = settings
        self._directory = settings.directory
        self._name = name
        self.format = FORMATS[name]
        self._path: Path | None = None
        """The part that is written to."""
        self._full: list[Path] = []
        """Parts that are to be closed."""
        self._unsynced: set[Path] = set()
        self._begun: tuple[Path | None, int] = (None, 0)
        """How far the disk was told to begin with the part that is written to."""
        self._sums: dict[Path, Sums] = {}
        """Of the parts that were begun here."""
        self.last: dict[int, Place] = {}
        """For each lane of the outbox the last record that is in a file."""

    def resume(self) -> None:
        self._path = None
        self.last.clear()
        self._full = sorted(self._directory.glob(f"cdr-*.{self._name}{PART}"), key=_number)
        for path in self._full:
            for line in _whole_lines(path):
                found = self.format.entry.match(line)
                if found is not None:
                    lane, *place = (int(part) for part in found.groups())
                    self.last[lane] = max(self.last.get(lane, (0, 0, 0)), (place[0], place[1], place[2]))
        if self._full:
            self._path = self._full.pop()

    def append(self, lines: Sequence[bytes], told: Sequence[Told], last: Mapping[int, Place], now_ms: int) -> None:
        """Write lines into a file, with what its sums are to know of them. ``last``: as ``self.last``, thereafter."""
        path = self._current(now_ms)
        octets = b"".join(lines)
        with path.open("ab", buffering=0) as file:  # a buffer would write its rest once more before it truncates
            whole = file.tell()
            header = b"" if whole else self.format.header().encode()
            try:
                rest = memoryview(header + octets)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(whole)  # half a line would spoil the next one
                raise
        if not whole:
            self._sums[path] = Sums(header)
        if path in self._sums:
            self._sums[path].add(octets, told)
        self._unsynced.add(path)
        self.last.update(last)

    def _current(self, now_ms: int) -> Path:
        path = self._path
        if path is not None and path.exists():
            if not self._is_full(path, now_ms):
                return path
            self._full.append(path)
            self._path = None
        number = self._last_number() + 1
        stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(now_ms / 1000))
        node = f"{self._settings.node}-" if self._settings.node else ""
        path = self._directory / f"cdr-{node}{stamp}-{number:08d}.{self._name}{PART}"
        path.touch()
        # Its number is noted after it is there: a crash in between must not leave a gap.
        try:
            _replace(self._directory / NUMBERS, json.dumps({**_numbers(self._directory), self._name: number}))
        except OSError:
            path.unlink()  # another try would not find it, and begin the next one
            raise
        self._path = path
        return path

    def _last_number(self) -> int:
        names = (path for path in self._directory.glob(f"cdr-*.{self._name}*"))
        return max([_numbers(self._directory).get(self._name, 0), *map(_number, names)])

    def _is_full(self, path: Path, now_ms: int) -> bool:
        size, age_ms = _size(path), now_ms - _opened_ms(path)
        return size > 0 and (size >= self._settings.rotate_bytes or age_ms >= self._settings.rotate_ms)

    def begin_sync(self) -> None:
        path = self._path
        if path not in self._unsynced or not hasattr(os, "posix_fadvise"):
            return
        begun, before = self._begun
        first = before if begun == path else 0
        with suppress(OSError), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Linux begins to write what is to be dropped from memory; what is being written is not dropped.
            os.posix_fadvise(file.fileno(), first, size - first, os.POSIX_FADV_DONTNEED)
            self._begun = (path, size)

    def sync(self) -> None:
        for path in sorted(self._unsynced):
            try:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            except FileNotFoundError:
                self._unsynced.discard(path)
                self.resume()  # as after a start: what was in it is written again
                raise
        self._unsynced.clear()

    def due(self, now_ms: int) -> bool:
        path = self._path
        return bool(self._full) or (path is not None and path.exists() and self._is_full(path, now_ms))

    def seal(self, now_ms: int, everything: bool) -> list[Path]:
        path = self._path
        if path is not None and path.exists() and (self._is_full(path, now_ms) or (everything and _size(path))):
            self._full.append(path)
            self._path = None
        closed = []
        while self._full:
            found = _close(self._full[0], self._name, self._sums.pop(self._full[0], None))
            if found is not None:
                closed.append(found)
            del self._full[0]
        return closed


# -- closing a file ----------------------------------------------------------------------------------------------


def _close(part: Path, name: str, kept: Sums | None) -> Path | None:
    """Give a part its name, and then a file of sums; None if it is gone.

    ``kept``: its sums, if all of it was written here. They do not count if somebody has changed its size.
    """
    if not part.exists():
        return None
    try:
        sums = kept.as_fields() if kept is not None and kept.octets == _size(part) else sums_of(part, name)
    except (ValueError, KeyError, TypeError) as error:
        sums = {"error": str(error)}
        log.error("%s has a line that cannot be read; its file of sums says so: %s", part, error)
    path = part.with_name(part.name.removesuffix(PART))
    told = path.with_name(path.name + SUM)
    waiting = told.with_name(told.name + PART)
    waiting.write_text(json.dumps({"file": path.name, **sums}) + "\n", encoding="ascii")
    with waiting.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(path)
    waiting.rename(told)
    _sync_names(path.parent)
    return path


def sums_of(path: Path, name: str) -> dict[str, Any]:
    """What a file of sums says: records, octets, SHA-256, the first and last record, money debited and leaked.

    ``name``: its format. Raises OSError, and ValueError if a line is not what it should be.
    """
    sums = Sums()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            sums.add(piece, ())
    for fields in _READ[name](path):
        sums.add(b"", (_told(fields),))
    return sums.as_fields()


def _records_of_json(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def _records_of_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            money = {name: int(row[name]) for name in ("debited_micro", "leaked_micro")}
            yield {"record_id": row["record_id"], **money}


_READ: Final = {"jsonl": _records_of_json, "csv": _records_of_csv}


# -- names and parts ---------------------------------------------------------------------------------------------


def record_files(directory: Path, name: str) -> list[Path]:
    """The files of a format, closed or not, the oldest first."""
    found = {
        path.name.removesuffix(PART): path
        for pattern in (f"cdr-*.{name}{PART}", f"cdr-*.{name}")
        for path in directory.glob(pattern)
    }
    return [path for _, path in sorted(found.items(), key=lambda item: (_number(item[1]), item[0]))]


def record_lines(directory: Path, name: str) -> Iterator[bytes]:
    """The whole lines of all files of a format, in order; those of CSV without the header. Raises OSError.

    Files that are closed meanwhile are found under their new names, those that are taken away are left out.
    """
    header = FORMATS[name].header().encode()
    for path in record_files(directory, name):
        for at in (path, path.with_name(path.name.removesuffix(PART))):
            with suppress(FileNotFoundError), at.open("rb") as file:
                yield from (line for line in file if line.endswith(b"\n") and line != header)
                break


def _size(path: Path) -> int:
    return path.stat().st_size


def _number(path: Path) -> int:
    """The running number in a file's name; 0 for one without."""
    found = _NAME.match(path.name)
    return int(found.group(2)) if found is not None else 0


def _opened_ms(path: Path) -> int:
    found = _NAME.match(path.name)
    if found is None:
        return 0
    opened = datetime.strptime(found.group(1), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return int(opened.timestamp()) * 1000


def _numbers(directory: Path) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads((directory / NUMBERS).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _replace(path: Path, text: str) -> None:
    """Write a small file in one step, and have it and the names around it on disk."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="ascii")
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)
    _sync_names(path.parent)


def _sync_names(path: Path) -> None:
    """Have a directory itself on disk: a new name in it must survive a power cut."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a part; a torn last line is removed from it."""
    whole = 0
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                log.warning("%s ends in a torn line; it is cut off and written again", path)
                break
            whole += len(line)
            yield line
        file.truncate(whole)
