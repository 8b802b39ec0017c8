"""Deliver what was committed: charging data records into files of JSON Lines, each exactly once, in order.

A record enters the outbox in the same script call as the money it tells of. Here it is written to a file, the file
is synchronised to disk, and only then struck from the outbox. Every line carries the outbox entry it came from
(``entry``: lane, entry, position), so that after a crash between the two the tail of the newest file tells what is
already there.
"""

import asyncio
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import gmtime, strftime
from typing import Any, Final

from balance.records import unpack_outbox
from balance.resp import StoreError
from balance.store import Store
from occ.cdr import as_json_fields
from occ.clock import now_ms

log = logging.getLogger("occ.outbox")

POLL_INTERVAL_S: Final = 0.2
ENTRIES_A_READ: Final = 200
TAIL_BYTES: Final = 4 << 20

_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True, frozen=True)
class CdrSettings:
    directory: Path
    rotate_bytes: int = 64 << 20
    rotate_ms: int = 3_600_000


class CdrFiles:
    """The files of one directory: ``cdr-<UTC time>.jsonl``, a new one when the newest is big or old enough."""

    def __init__(self, settings: CdrSettings) -> None:
        self._settings = settings
        self._path: Path | None = None
        self._opened_ms = 0
        settings.directory.mkdir(parents=True, exist_ok=True)

    def newest(self) -> list[Path]:
        """The files of the directory, oldest first."""
        return sorted(self._settings.directory.glob("cdr-*.jsonl"))

    def last_entries(self) -> dict[int, tuple[int, int, int]]:
        """For each lane the last entry that is on disk: (milliseconds, sequence, position).

        A last line torn by a crash is cut off: its record is still in the outbox.
        """
        last: dict[int, tuple[int, int, int]] = {}
        for path in self.newest()[-2:]:
            for line in _whole_lines(path):
                lane, entry, position = json.loads(line)["entry"]
                milliseconds, sequence = entry.split("-")
                last[lane] = max(last.get(lane, (0, 0, 0)), (int(milliseconds), int(sequence), position))
        return last

    def append(self, lines: Iterable[str], now: int) -> None:
        """Write lines to the current file and have them on disk before returning. Raises OSError."""
        path = self._current(now)
        with path.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _current(self, now: int) -> Path:
        if self._path is None:
            files = self.newest()
            self._path, self._opened_ms = (files[-1] if files else None), now
        path = self._path
        if path is not None and path.exists():
            young = now - self._opened_ms < self._settings.rotate_ms
            if young and path.stat().st_size < self._settings.rotate_bytes:
                return path
        stamp = strftime("%Y%m%dT%H%M%S", gmtime(now / 1000))
        path = self._settings.directory / f"cdr-{stamp}-{now % 1000:03d}.jsonl"
        path.touch()
        directory = os.open(self._settings.directory, os.O_RDONLY)
        try:
            os.fsync(directory)  # the new name itself must survive a power cut
        finally:
            os.close(directory)
        self._path, self._opened_ms = path, now
        return path


def _whole_lines(path: Path) -> list[bytes]:
    """The last lines of a file; a torn last line is removed from it."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        start = max(0, size - TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            log.warning("%s ends in a torn line; it is cut off and written again", path)
            file.truncate(start + len(whole))
    lines = whole.splitlines()
    return lines[1:] if start else lines


class Outbox:
    """Moves committed records of one store into files."""

    def __init__(self, store: Store, files: CdrFiles) -> None:
        self._store = store
        self._files = files
        self._last: dict[int, tuple[int, int, int]] = {}
        self.delivered = 0

    async def run(self) -> None:
        """Deliver until cancelled. An unreachable store or a full disk is waited for: nothing is lost meanwhile."""
        loop = asyncio.get_running_loop()
        self._last = await loop.run_in_executor(None, self._files.last_entries)
        while True:
            try:
                moved = await self.deliver()
            except (StoreError, OSError) as error:
                log.warning("charging data records wait: %s", error)
                moved = 0
            if not moved:
                await asyncio.sleep(POLL_INTERVAL_S)

    async def deliver(self) -> int:
        """Move what stands in the outbox now, one page of each lane; how many entries. Raises StoreError, OSError."""
        moved = 0
        loop = asyncio.get_running_loop()
        for lane in self._store.keys.lanes():
            key = self._store.keys.outbox(lane)
            entries = await self._store.call("XRANGE", key, "-", "+", "COUNT", ENTRIES_A_READ)
            if not entries:
                continue
            lines, last = self._lines(lane, entries)
            if lines:
                await loop.run_in_executor(None, self._files.append, lines, now_ms())
            self._last[lane] = last
            await self._store.call("XDEL", key, *[entry for entry, _ in entries])
            self.delivered += len(lines)
            moved += len(entries)
        return moved

    def _lines(self, lane: int, entries: list[Any]) -> tuple[list[str], tuple[int, int, int]]:
        """The lines that are not on disk yet, and the place of the last record."""
        lines = []
        last = self._last.get(lane, (0, 0, 0))
        for entry, fields in entries:
            milliseconds, sequence = (int(part) for part in entry.split(b"-"))
            records = [record for packed in fields[1::2] for record in unpack_outbox(packed)]
            for position, record in enumerate(records, 1):
                place = (milliseconds, sequence, position)
                if place <= last:
                    continue
                last = place
                line = {"entry": [lane, entry.decode(), position], **as_json_fields(record)}
                lines.append(_ENCODE(line) + "\n")
        return lines, last
