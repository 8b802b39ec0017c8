"""What leaves the journal, in files: JSON Lines, compressed, one directory per server.

Records older than ``journal.keep_days`` are written into a file, the file is synchronised to disk and gets its name,
and only then are the books closed over them (``balance.closing``). A file is named after its lane and its first and
last entries; killed in between, the process finds the file complete and closes what is in it, without writing it again.
One that has no name yet is taken away: it is written anew.
"""

import asyncio
import gzip
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from balance.closing import ClosingError, close, closed_until, lease
from balance.journal import Entry, entries, last_entry_id, position, read_record
from balance.records import JournalRecord
from balance.resp import StoreError
from balance.store import Store

log = logging.getLogger("occ.journal_files")

ENTRIES_A_FILE: Final = 10_000
CHECK_S: Final = 600.0
"""Between two looks whether something is old enough."""
CLOSED_AT_ONCE: Final = 50
"""Entries of one script call; each holds the records of one commit, 256 at most."""

_NAME: Final = re.compile(r"journal-([0-9]+)-([0-9]+-[0-9]+)-([0-9]+-[0-9]+)\.jsonl\.gz")
_PART: Final = ".part"
_LEVEL: Final = 6


@dataclass(slots=True, frozen=True)
class JournalSettings:
    directory: Path
    keep_ms: int
    """How long records stay in Redis; 0: for ever."""


class JournalFiles:
    """Moves old records of one store into the files of one directory, and closes the books over them."""

    def __init__(self, store: Store, settings: JournalSettings) -> None:
        self._store = store
        self._settings = settings

    async def run(self, now_ms: Callable[[], int]) -> None:
        """Close what is due, now and every so often, until cancelled; trouble is waited out, nothing is lost by it."""
        if not self._settings.keep_ms:
            return
        while True:
            try:
                await self.close_before(now_ms() - self._settings.keep_ms)
            except (StoreError, OSError) as error:
                log.warning("the journal is not closed for now: %s", error)
            await asyncio.sleep(CHECK_S)

    async def close_before(self, until_ms: int) -> int:
        """Close all that was written before ``until_ms`` by the clock of Redis; how many entries.

        A lane that another process closes or checks just now is left for the next time. Raises StoreError, OSError.
        """
        moved = 0
        for lane in self._store.keys.lanes():
            while count := await self._close_lane(lane, until_ms):
                moved += count
        return moved

    async def _close_lane(self, lane: int, until_ms: int) -> int:
        """Close at most one file's worth of one lane."""
        if not await self._oldest(lane, until_ms):
            return 0
        try:
            async with lease(self._store, lane, patience_s=0) as token:
                return await self._close_leased(lane, token, until_ms)
        except ClosingError as error:
            log.warning("lane %d of the journal is not closed now: %s", lane, error)
            return 0

    async def _oldest(self, lane: int, until_ms: int) -> bool:
        """There is something to close."""
        found = await self._store.call("XRANGE", self._store.keys.journal(lane), "-", f"({until_ms}-0", "COUNT", 1)
        return bool(found)

    async def _close_leased(self, lane: int, token: bytes, until_ms: int) -> int:
        for left in self._settings.directory.glob(f"journal-{lane}-*{_PART}"):
            left.unlink(missing_ok=True)  # whoever has the lease is the only one to write
        after = await closed_until(self._store, lane)
        unfinished = await self._unfinished(lane, after)
        if unfinished is None:
            found = await self._to_close(lane, after, until_ms)
            if found:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, write_file, self._settings.directory, lane, found)
        else:
            found = unfinished
        for at in range(0, len(found), CLOSED_AT_ONCE):
            await close(self._store, lane, token, found[at : at + CLOSED_AT_ONCE])
        if found:
            log.info("%d entries of the journal, written until %s, are in files now", len(found), _shown(found[-1][0]))
        return len(found)

    async def _to_close(self, lane: int, after: bytes, until_ms: int) -> list[Entry]:
        found: list[Entry] = []
        until = await last_entry_id(self._store, lane)
        async for page in entries(self._store, lane, after, until):
            for entry in page:
                if position(entry[0])[0] >= until_ms or len(found) == ENTRIES_A_FILE:
                    return found
                found.append(entry)
        return found

    async def _unfinished(self, lane: int, after: bytes) -> list[Entry] | None:
        """Entries that a file has and the store has not closed: a process was killed in between.

        None: there are none, or the file is not of this store as it is now (it came back from a backup): it is then
        left as it is, and all is written again.
        """
        for path, first, last in files(self._settings.directory, lane):
            if position(last) <= position(after):
                continue
            found = [
                entry
                async for page in entries(self._store, lane, after, last)
                for entry in page
                if position(entry[0]) <= position(last)
            ]
            written = {line["entry"] for line in read_file(path)}
            known = {entry_id.decode() for entry_id, _ in found}
            if found and known <= written and position(first) <= position(found[0][0]):
                return found
        return None


def files(directory: Path, lane: int | None = None) -> Iterator[tuple[Path, bytes, bytes]]:
    """The files of a directory, the oldest first, each with its first and last entries."""
    found = []
    for path in directory.glob("journal-*.jsonl.gz"):
        named = _NAME.fullmatch(path.name)
        if named is not None and (lane is None or int(named[1]) == lane):
            found.append((path, named[2].encode(), named[3].encode()))
    yield from sorted(found, key=lambda each: position(each[1]))


def write_file(directory: Path, lane: int, found: Sequence[Entry]) -> Path:
    """A file of these entries, whole and on disk, or none. Raises OSError, StoreError for a record that is damaged."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"journal-{lane}-{found[0][0].decode()}-{found[-1][0].decode()}.jsonl.gz"
    part = path.with_name(path.name + _PART)
    with part.open("wb") as out:
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=_LEVEL, mtime=0) as text:
            for entry_id, fields in found:
                for packed in fields:
                    line = as_json_fields(lane, entry_id, read_record(entry_id, packed))
                    text.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())
    part.rename(path)
    names = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(names)
    finally:
        os.close(names)
    return path


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, as ``as_json_fields`` has them, in order. Raises OSError, StoreError if it is damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except (EOFError, gzip.BadGzipFile, ValueError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def as_json_fields(lane: int, entry_id: bytes, record: JournalRecord) -> dict[str, Any]:
    """A record as a line of a file has it; amounts are micro-units of money, or units."""
    return {
        "entry": entry_id.decode(),
        "lane": lane,
        "account": record.account_id.decode("utf-8", "backslashreplace"),
        "version": record.version,
        "at_ms": record.at_ms,
        "operation": record.operation,
        "reason": [_text(part) for part in record.reason],
        "changes": [
            {
                "bucket": change.bucket_id,
                "balance_delta": change.balance_delta,
                "reserved_delta": change.reserved_delta,
                "balance_after": change.balance_after,
                "reserved_after": change.reserved_after,
            }
            for change in record.changes
        ],
    }


def _text(part: Any) -> Any:
    if isinstance(part, bytes):
        return part.decode("utf-8", "backslashreplace")
    if isinstance(part, list | tuple):
        return [_text(each) for each in part]
    return part


def _shown(entry_id: bytes) -> str:
    return datetime.fromtimestamp(position(entry_id)[0] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
