"""What runs once beside the workers of a machine: the embedded Redis, the outbox and the process of notices.

A server that charges by itself has them, else the supervisor of its workers.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings
from occ.cdr_files import CdrSettings
from occ.journal_files import JournalSettings
from occ.notices.process import NoticesProcess
from occ.outbox import OutboxProcess
from occ.settings import Settings

log = logging.getLogger("occ.companions")

REDIS_CHECK_S: Final = 0.2

OnFailure = Callable[[Exception], None]


class KeptRedis:
    """The embedded Redis, started again should it end. Belongs to the event loop and thread it is started in."""

    def __init__(self, settings: Settings, on_failure: OnFailure) -> None:
        """``on_failure`` is told when it cannot be started again."""
        store = settings.store
        self.server = EmbeddedRedis(
            EmbeddedSettings(data_dir=store.redis_dir, server_binary=store.server_binary, fsync=store.fsync)
        )
        self._hangs_after_ms = store.hangs_after_ms
        self._on_failure = on_failure
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> Address:
        """Raises EmbeddedRedisError."""
        address = replace(await self.server.start(), hangs_after_ms=self._hangs_after_ms)
        self._watch = asyncio.create_task(self._keep(), name="embedded Redis")
        return address

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.server.stop()

    async def _keep(self) -> None:
        """Launch it again should it end; stores connect to it by themselves."""
        while True:
            await asyncio.sleep(REDIS_CHECK_S)
            if self.server.running:
                continue
            log.error("the embedded Redis has ended; it is started again")
            try:
                await self.server.start()
            except Exception as error:  # whatever it is, nobody charges without it
                self._on_failure(error)
                return


class Deliveries:
    """The outbox and, where they are enabled, notices: each a process of its own."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        self._cleanup = AsyncExitStack()

    async def start(self) -> None:
        """Raises OSError if the directory of records cannot be written to, or a process cannot be started."""
        settings, cdr = self._settings, self._settings.cdr
        node = settings.diameter.origin_host
        files = CdrSettings(cdr.directory, cdr.rotate_bytes, cdr.rotate_seconds * 1000, cdr.formats, node)
        journal = JournalSettings(settings.journal.directory, settings.journal.keep_days * 86_400_000)
        self.outbox = OutboxProcess(self._address, settings.store.partitions, files, settings.log_level, journal)
        await self.outbox.start()
        self._cleanup.push_async_callback(self.outbox.stop)
        if settings.notices.enabled:
            self.notices = NoticesProcess(
                self._address, settings.store.partitions, settings.notices, settings.log_level
            )
            await self.notices.start()
            self._cleanup.push_async_callback(self.notices.stop)

    async def stop(self) -> None:
        """Let both finish what they have in hand."""
        await self._cleanup.aclose()
