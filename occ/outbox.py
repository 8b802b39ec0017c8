"""Deliver what was committed: charging data records into files of JSON Lines, each exactly once, in order.

A record enters the outbox in the same script call as the money it tells of. Here it is written to a file, the file
is synchronised to disk, and only then struck from the outbox. Every line carries the outbox entry it came from
(``entry``: lane, entry, position), so that after a crash between the two the tail of the newest file tells what is
already there.

Servers that share a store each have an outbox process with a directory of its own. Whoever is to write an entry takes
it first, under the name of its directory, in a consumer group of the stream: nobody else writes it then. What a process
has taken and not struck when it ends is left to it, as only its own files tell what is there already.

``python -m occ.outbox`` is a process of its own, so that turning records into text costs no request its latency.
``OutboxProcess`` starts it, keeps it running and ends it: it works until its standard input closes, which also happens
when its parent dies, delivers what is left, and ends.
"""

import asyncio
import fcntl
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import gmtime, strftime
from typing import Any, Final

from balance.embedded import Address
from balance.records import unpack_outbox
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store, StoreSettings
from occ.cdr import as_json_fields
from occ.clock import now_ms

log = logging.getLogger("occ.outbox")

POLL_INTERVAL_S: Final = 0.5
"""Every delivery synchronises the disk that the ledger's log shares: a few large ones are better than many."""

ENTRIES_A_PAGE: Final = 10
PAGES_A_SYNC: Final = 100
NICENESS: Final = 10
"""Priority below the server's and Redis's: records may wait, requests may not."""

TAIL_BYTES: Final = 4 << 20

GROUP: Final = b"cdr"
"""Consumer group of the outbox; its consumers are the directories."""
MOST_TAKEN: Final = 100_000
"""More than one process ever takes before it strikes any."""
TAKE_OVER_MS: Final = 1 << 52
"""Only what has been with another process for longer would be taken from it: nothing."""
OTHERS_CHECK_S: Final = 600.0
"""Between two looks whether another server has left records that it took."""

_PACKAGES: Final = str(Path(__file__).resolve().parent.parent)

_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True, frozen=True)
class CdrSettings:
    directory: Path
    rotate_bytes: int = 64 << 20
    rotate_ms: int = 3_600_000


class CdrFiles:
    """The files of one directory: ``cdr-<UTC time>.jsonl``, a new one when the newest is big or old enough.

    Holds a lock on the directory until ``close``: two writers would each deliver what the other has delivered already.
    Raises BlockingIOError if another process holds it.
    """

    def __init__(self, settings: CdrSettings) -> None:
        self._settings = settings
        self._path: Path | None = None
        self._opened_ms = 0
        self._unsynced: set[Path] = set()
        settings.directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(settings.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BlockingIOError(
                f"another server writes charging data records to {settings.directory}; give each its own cdr.directory"
            ) from None

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
        _sync_names(self._settings.directory)
        return made_up

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

    def write(self, lines: Iterable[str], now: int) -> None:
        """Append lines to the current file; they are on disk after the next ``sync``. Raises OSError."""
        path = self._current(now)
        with path.open("ab") as file:
            whole = file.tell()
            try:
                file.write("".join(lines).encode())
                file.flush()
            except OSError:
                file.truncate(whole)  # half a line would spoil the next one
                raise
        self._unsynced.add(path)

    def sync(self) -> None:
        """Have everything that was written on disk before returning. Raises OSError."""
        for path in sorted(self._unsynced):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        self._unsynced.clear()

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
        _sync_names(self._settings.directory)
        self._path, self._opened_ms = path, now
        return path


def _sync_names(path: Path) -> None:
    """Have a directory itself on disk: a new name in it must survive a power cut."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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


@dataclass(slots=True)
class _Place:
    """How far the stream of one lane has been read."""

    after: bytes
    """Start of the next XRANGE."""
    taken: set[bytes]
    """Entries that are this directory's to write, and not struck yet."""


class Outbox:
    """Moves committed records of one store into files."""

    def __init__(self, store: Store, files: CdrFiles) -> None:
        self._store = store
        self._files = files
        self._name = files.name()
        self._last: dict[int, tuple[int, int, int]] = {}
        self._places: dict[int, _Place] = {}
        """Where each lane goes on; missing: from the beginning, with what was taken before and not struck."""
        self.delivered = 0

    def resume(self, last: dict[int, tuple[int, int, int]]) -> None:
        """Take up after what ``CdrFiles.last_entries`` found on disk."""
        self._last = last

    async def run(self) -> None:
        """Deliver until cancelled. An unreachable store or a full disk is waited for: nothing is lost meanwhile."""
        loop = asyncio.get_running_loop()
        self.resume(await loop.run_in_executor(None, self._files.last_entries))
        check_at = loop.time()
        while True:
            try:
                moved = await self.deliver()
                if loop.time() >= check_at:
                    check_at = loop.time() + OTHERS_CHECK_S
                    await self._check_others()
            except (StoreError, OSError) as error:
                log.warning("charging data records wait: %s", error)
                moved = 0
            if moved < ENTRIES_A_PAGE * PAGES_A_SYNC:
                await asyncio.sleep(POLL_INTERVAL_S)

    async def deliver(self) -> int:
        """Move what stands in the outbox now; how many entries. Raises StoreError, OSError.

        Pages are small, so that Redis is never busy with one for long; the disk is synchronised once for many.
        """
        reached: dict[int, _Place] = {}
        delivered: list[tuple[bytes, list[bytes]]] = []
        for lane in self._store.keys.lanes():
            key = self._store.keys.outbox(lane)
            place = self._places.pop(lane, None) or _Place(b"-", await self._taken_before(key))
            reached[lane] = place
            pages = await self._read(key, place)
            moved = self._write(lane, pages, place.taken)
            place.taken.difference_update(moved)
            if len(pages) < PAGES_A_SYNC:
                moved += place.taken  # struck before, but for the taking
                place.taken.clear()
            if moved:
                delivered.append((key, moved))
        if delivered:
            await asyncio.get_running_loop().run_in_executor(None, self._files.sync)
        for key, moved in delivered:
            await self._store.call("XDEL", key, *moved)
            await self._store.call("XACK", key, GROUP, *moved)
        self._places = reached
        return sum(len(moved) for _, moved in delivered)

    async def _read(self, key: bytes, place: "_Place") -> list[list[Any]]:
        """The next entries, in pages; those that nobody has taken are taken. Raises StoreError."""
        pages: list[list[Any]] = []
        while len(pages) < PAGES_A_SYNC:
            page = await self._store.call("XRANGE", key, place.after, "+", "COUNT", ENTRIES_A_PAGE)
            if not page:
                break
            pages.append(page)
            place.after = b"(" + page[-1][0]
        wanted = [entry for page in pages for entry, _ in page if entry not in place.taken]
        if wanted:
            claim = ("XCLAIM", key, GROUP, self._name, TAKE_OVER_MS, *wanted, "FORCE", "JUSTID")
            place.taken.update(await self._store.call(*claim))
        return pages

    def _write(self, lane: int, pages: list[list[Any]], taken: set[bytes]) -> list[bytes]:
        """Write what is ours of these pages; which entries that were. Raises OSError."""
        moved: list[bytes] = []
        for page in pages:
            ours = [each for each in page if each[0] in taken]
            lines, last = self._lines(lane, ours)
            if lines:
                self._files.write(lines, now_ms())
            self._last[lane] = last
            self.delivered += len(lines)
            moved += [entry for entry, _ in ours]
        return moved

    async def _taken_before(self, key: bytes) -> set[bytes]:
        """The entries that this directory has taken and not struck yet. Raises StoreError."""
        try:
            await self._store.call("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM")
        except StoreUnavailableError:
            raise
        except StoreError as error:
            if "BUSYGROUP" not in str(error):
                raise
        found = await self._store.call("XPENDING", key, GROUP, "-", "+", MOST_TAKEN, self._name)
        return {each[0] for each in found}

    async def _check_others(self) -> None:
        """Say in the log what waits for a server that took it and has fallen silent. Raises StoreError."""
        for lane in self._store.keys.lanes():
            for fields in await self._store.call("XINFO", "CONSUMERS", self._store.keys.outbox(lane), GROUP):
                told = dict(zip(fields[::2], fields[1::2], strict=True))
                name, entries, idle_ms = told[b"name"], told[b"pending"], told[b"idle"]
                if entries and name != self._name and idle_ms > OTHERS_CHECK_S * 1000:
                    log.error(
                        "%d entries of charging data records wait for the server that took them %d s ago: start it "
                        "again with its own cdr.directory, the one whose file .lock says %s",
                        entries,
                        idle_ms // 1000,
                        name.decode("utf-8", "replace"),
                    )

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


async def _work(store: Store, files: CdrFiles, stop: asyncio.Event) -> None:
    """Deliver until ``stop``, then what is left."""
    outbox = Outbox(store, files)
    running = asyncio.create_task(outbox.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    try:
        while await outbox.deliver():
            pass
    except StoreError as error:
        log.warning("charging data records are left in the outbox until the next start: %s", error)


async def _main(job: dict[str, Any]) -> None:
    store = Store(StoreSettings(Address.parse(job["store"]), job["partitions"], account_cache_entries=1))
    await store.start()
    files = CdrFiles(CdrSettings(Path(job["directory"]), job["rotate_bytes"], job["rotate_ms"]))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    stop = asyncio.Event()
    loop.create_task(reader.read()).add_done_callback(lambda _: stop.set())
    # Ctrl-C in a terminal reaches the whole group: the server decides when its outbox ends.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    await _work(store, files, stop)
    await store.stop()
    files.close()


class OutboxProcess:
    """The outbox of one store in a process of its own, started again should it end."""

    RESTART_S: Final = 1.0
    STOP_S: Final = 10.0

    def __init__(self, address: Address, partitions: int, settings: CdrSettings, log_level: str) -> None:
        self._job = json.dumps(
            {
                "store": address.url,
                "partitions": partitions,
                "directory": str(settings.directory),
                "rotate_bytes": settings.rotate_bytes,
                "rotate_ms": settings.rotate_ms,
                "log_level": log_level,
            }
        )
        self._directory = settings.directory
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Raises OSError if the directory cannot be written to or the process cannot be started."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if not os.access(self._directory, os.W_OK):
            raise PermissionError(f"charging data records cannot be written to {self._directory}; set cdr.directory")
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Let it deliver what is left, then end; not for longer than ``STOP_S``."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(self.STOP_S):
                await process.wait()
        except TimeoutError:
            log.error("the outbox did not end in %.0f s; what it left is delivered after the next start", self.STOP_S)
            process.kill()
            await process.wait()

    async def _launch(self) -> None:
        # The child must find the packages where this process found them, installed or not.
        path = os.pathsep.join([_PACKAGES, os.environ.get("PYTHONPATH", "")])
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "occ.outbox", self._job,
            stdin=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        )  # fmt: skip

    async def _supervise(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("the outbox process ended with status %d; it is started again", code)
            self.restarts += 1
            await asyncio.sleep(self.RESTART_S)
            await self._launch()


def main() -> None:
    job = json.loads(sys.argv[1])
    logging.basicConfig(
        level=job["log_level"].upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    os.nice(NICENESS)
    try:
        asyncio.run(_main(job))
    except (StoreError, OSError) as error:
        sys.exit(f"occ outbox: {error}")


if __name__ == "__main__":
    main()
