"""Deliver what was committed: charging data records into files (``occ.cdr_files``), in order.

A record enters the outbox in the same script call as the money it tells of. Here it is written to a file, the file
is synchronised to disk, and only then struck from the outbox. Every line carries the outbox entry it came from
(``entry``: lane, entry, position), so that after a crash between the two the file, which is not closed before all of it
is struck, tells what is already there. Only where that file has been taken away is a record written again, under the
same ``record_id``.

Servers that share a store each have an outbox process with a directory of its own. Whoever is to write an entry takes
it first, under the name of its directory, in a consumer group of the stream: nobody else writes it then. What a process
has taken and not struck when it ends is left to it, as only its own files tell what is there already.

The same process moves what is old in the journal into files (``occ.journal_files``).

``python -m occ.outbox`` is a process of its own, so that turning records into text costs no request its latency.
``OutboxProcess`` starts it, keeps it running and ends it: it works until its standard input closes, which also happens
when its parent dies, delivers what is left, and ends.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from balance.embedded import Address
from balance.records import unpack_outbox
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store, StoreSettings
from occ.cdr import as_json_fields
from occ.cdr_files import CdrFiles, CdrSettings, Delivery, Unreadable, entry_name
from occ.child_process import ChildProcess, begin, told_to_stop
from occ.clock import now_ms
from occ.journal_files import JournalFiles, JournalSettings

log = logging.getLogger("occ.outbox")

KEEP_ALL: Final = JournalSettings(Path(), 0)

POLL_INTERVAL_S: Final = 0.5
"""Between two looks where nothing came."""
TURN_INTERVAL_S: Final = 0.1
"""Between two looks while records come: many short turns, as Redis may have to share its core with this process."""
STRIKE_INTERVAL_S: Final = 1.0
"""Every strike synchronises the disk that the ledger's log shares: a few large ones are better than many."""
BREATH_S: Final = 0.001
"""After each page, for whoever has waited for the core."""

ENTRIES_A_PAGE: Final = 10
PAGES_A_TURN: Final = 10
PAGES_A_SYNC: Final = 100
ENTRIES_A_STRIKE: Final = 250
"""In one command, so that Redis is not busy with it for long."""

GROUP: Final = b"cdr"
"""Consumer group of the outbox; its consumers are the directories."""
MOST_TAKEN: Final = 100_000
"""More than one process ever takes before it strikes any."""
TAKE_OVER_MS: Final = 1 << 52
"""Only what has been with another process for longer would be taken from it: nothing."""
FINISHING_S: Final = 5.0
"""So long a process that is to end goes on with what it finds: the server waits for no more than twice that."""
OTHERS_CHECK_S: Final = 600.0
"""Between two looks whether another server has left records that it took."""


@dataclass(slots=True)
class _Place:
    """How far the stream of one lane has been read."""

    after: bytes
    """Start of the next XRANGE."""
    taken: set[bytes]
    """Entries that are this directory's to write."""
    written: list[bytes]
    """Entries that are in its files and not struck yet."""


class Outbox:
    """Moves committed records of one store into files."""

    def __init__(self, store: Store, files: CdrFiles) -> None:
        self._store = store
        self._files = files
        self._name = files.name()
        self._places: dict[int, _Place] = {}
        """Where each lane goes on; missing: from the beginning, with what was taken before and not struck."""
        self.delivered = 0

    async def run(self) -> None:
        """Deliver until cancelled. An unreachable store or a full disk is waited for: nothing is lost meanwhile."""
        loop = asyncio.get_running_loop()
        check_at = strike_at = loop.time()
        while True:
            try:
                read = await self._take(PAGES_A_TURN)
                if loop.time() >= strike_at:
                    strike_at = loop.time() + STRIKE_INTERVAL_S
                    await self._strike()
                if loop.time() >= check_at:
                    check_at = loop.time() + OTHERS_CHECK_S
                    await self._check_others()
            except (StoreError, OSError) as error:
                log.warning("charging data records wait: %s", error)
                read = 0
            if read < ENTRIES_A_PAGE * PAGES_A_TURN:
                await asyncio.sleep(TURN_INTERVAL_S if read else POLL_INTERVAL_S)

    async def deliver(self) -> bool:
        """Move what stands in the outbox now, or much of it; whether more was there. Raises StoreError, OSError."""
        read = await self._take(PAGES_A_SYNC)
        await self._strike()
        return read >= ENTRIES_A_PAGE * PAGES_A_SYNC

    def finish(self) -> None:
        """Close all files, if nothing that is in them would be written again for that. Raises OSError."""
        if self._is_all_struck():
            self._files.seal(now_ms(), everything=True)

    async def _take(self, pages_at_most: int) -> int:
        """Write what has come into the files, at most so many pages of each lane; how many entries of one lane that was
        at most. Raises StoreError, OSError.
        """
        most = 0
        for lane in self._store.keys.lanes():
            key = self._store.keys.outbox(lane)
            # Taken out, and put back when all went well: otherwise the lane is begun anew.
            place = self._places.pop(lane, None) or _Place(b"-", await self._taken_before(key), [])
            pages = await self._read(lane, key, place, pages_at_most)
            for page in pages:
                self._write(lane, page, place)
                await asyncio.sleep(BREATH_S)
            if pages:
                self._files.begin_sync()
            if len(pages) < pages_at_most:
                place.written += place.taken  # struck before, but for the taking
                place.taken.clear()
            self._places[lane] = place
            most = max(most, sum(map(len, pages)))
        return most

    async def _strike(self) -> None:
        """Have what was written on disk, and strike it from the outbox. Raises StoreError, OSError.

        The disk is synchronised once for all of them.
        """
        loop = asyncio.get_running_loop()
        places = {lane: place for lane, place in self._places.items() if place.written}
        if places:
            for lane in places:
                del self._places[lane]  # as in ``_take``
            await loop.run_in_executor(None, self._files.sync)
        for lane, place in places.items():
            key = self._store.keys.outbox(lane)
            for first in range(0, len(place.written), ENTRIES_A_STRIKE):
                entries = place.written[first : first + ENTRIES_A_STRIKE]
                await self._store.call("XDEL", key, *entries)
                await self._store.call("XACK", key, GROUP, *entries)
            place.written.clear()
            self._places[lane] = place
        if self._is_all_struck() and self._files.due(now_ms()):
            await loop.run_in_executor(None, self._files.seal, now_ms())

    def _is_all_struck(self) -> bool:
        """Whether nothing that is in the files stands in the outbox still.

        What was written and not struck, by an earlier process or before the store failed, is among what is ``taken``
        until it has been read again.
        """
        places = self._places.values()
        return len(places) == len(self._store.keys.lanes()) and not any(each.taken or each.written for each in places)

    async def _read(self, lane: int, key: bytes, place: "_Place", pages_at_most: int) -> list[list[Any]]:
        """The next entries, in pages; those that nobody has taken are taken. Raises StoreError.

        Pages are small, so that Redis is never busy with one for long. Where replicas are to have everything, they have
        these: what is lost with a primary was never answered, is charged again, and must not be in two records.
        """
        pages: list[list[Any]] = []
        while len(pages) < pages_at_most:
            page = await self._store.call("XRANGE", key, place.after, "+", "COUNT", ENTRIES_A_PAGE)
            if not page:
                break
            pages.append(page)
            place.after = b"(" + page[-1][0]
            if len(page) < ENTRIES_A_PAGE:
                break
        wanted = [entry for page in pages for entry, _ in page if entry not in place.taken]
        if wanted:
            claim = ("XCLAIM", key, GROUP, self._name, TAKE_OVER_MS, *wanted, "FORCE", "JUSTID")
            place.taken.update(await self._store.call(*claim))
        if pages and await self._store.replicated(lane):
            ours = {entry for page in pages for entry, _ in page if entry in place.taken}
            still = await self._store.call("XRANGE", key, pages[0][0][0], pages[-1][-1][0])
            if not ours <= {entry for entry, _ in still}:
                raise StoreUnavailableError("another server has taken over, with other records")
        return pages

    def _write(self, lane: int, page: list[Any], place: "_Place") -> None:
        """Write what is ours of a page. Raises OSError."""
        ours = [each for each in page if each[0] in place.taken]
        self.delivered += self._files.write(_deliveries(lane, ours), now_ms())
        entries = [entry for entry, _ in ours]
        place.written += entries
        place.taken.difference_update(entries)

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


def _deliveries(lane: int, entries: list[Any]) -> Iterator[Delivery | Unreadable]:
    """The records of entries of the outbox, in order."""
    for entry, fields in entries:
        milliseconds, sequence = (int(part) for part in entry.split(b"-"))
        records = [record for packed in fields[1::2] for record in _records(packed)]
        for position, record in enumerate(records, 1):
            place = milliseconds, sequence, position
            try:
                told = as_json_fields(record, entry_name(lane, place))
            except Exception as error:  # whatever msgpack and the fields make of foreign octets
                yield Unreadable(lane, place, record, f"{type(error).__name__}: {error}")
            else:
                yield Delivery(lane, place, told)


def _records(packed: bytes) -> tuple[bytes, ...]:
    """What is no list of records is taken for one, which cannot be read then."""
    try:
        records = unpack_outbox(packed)
        if all(isinstance(each, bytes) for each in records):
            return records
    except Exception as error:  # as above
        log.debug("an entry of the outbox is no list of records: %s", error)
    return (packed,)


async def _work(store: Store, files: CdrFiles, stop: asyncio.Event) -> None:
    """Deliver until ``stop``, then what is left; but not for as long as others go on to commit."""
    outbox = Outbox(store, files)
    running = asyncio.create_task(outbox.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    try:
        until_s = asyncio.get_running_loop().time() + FINISHING_S
        while await outbox.deliver() and asyncio.get_running_loop().time() < until_s:
            pass
        outbox.finish()
    except (StoreError, OSError) as error:
        log.warning("charging data records are left in the outbox until the next start: %s", error)


async def _main(job: dict[str, Any]) -> None:
    store = Store(StoreSettings(Address.from_job(job["store"]), job["partitions"], account_cache_entries=1))
    await store.start()
    settings = CdrSettings(
        Path(job["directory"]), job["rotate_bytes"], job["rotate_ms"], tuple(job["formats"]), job["node"]
    )
    files = CdrFiles(settings)
    journal = JournalFiles(store, JournalSettings(Path(job["journal_directory"]), job["journal_keep_ms"]))
    closing = asyncio.create_task(journal.run(now_ms))
    await _work(store, files, await told_to_stop())
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await store.stop()
    files.close()


class OutboxProcess(ChildProcess):
    """The outbox of one store in a process of its own, started again should it end."""

    def __init__(
        self,
        address: Address,
        partitions: int,
        settings: CdrSettings,
        log_level: str,
        journal: JournalSettings = KEEP_ALL,
    ) -> None:
        job = {
            "store": address.as_job(),
            "partitions": partitions,
            "directory": str(settings.directory),
            "rotate_bytes": settings.rotate_bytes,
            "rotate_ms": settings.rotate_ms,
            "formats": settings.formats,
            "node": settings.node,
            "journal_directory": str(journal.directory),
            "journal_keep_ms": journal.keep_ms,
            "log_level": log_level,
        }
        super().__init__("occ.outbox", job, "the outbox", "what it left is delivered after the next start")
        self._directory = settings.directory

    async def start(self) -> None:
        """Raises OSError if the directory cannot be written to or the process cannot be started."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if not os.access(self._directory, os.W_OK):
            raise PermissionError(f"charging data records cannot be written to {self._directory}; set cdr.directory")
        await super().start()


def main() -> None:
    job = json.loads(sys.argv[1])
    begin(job["log_level"])
    try:
        asyncio.run(_main(job))
    except (StoreError, OSError) as error:
        sys.exit(f"occ outbox: {error}")


if __name__ == "__main__":
    main()
