"""The servers of a store: one, or the one that sentinels name the primary (``balance.cluster`` has many).

A store sends by *routes*: whatever serves a key now. Of a single server that is its connection.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from balance.address import Address
from balance.connecting import open_link, open_primary, primary_of
from balance.resp import Command, OnReply, RedisLink, Reply, StoreError, StoreUnavailableError

log = logging.getLogger("balance.store")

WATCH_S: Final = 1.0
"""Between two looks for who serves what: a server that hangs breaks no connection."""
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0


class MovedError(StoreError):
    """Another server has the key by now. What was to be written was not; it is to be decided again."""


class Route(Protocol):
    """Where commands on some keys go."""

    @property
    def lost(self) -> bool:
        """Nothing can be sent now."""

    def send(self, command: Command, on_reply: OnReply) -> None:
        """To whichever server has the key."""

    def send_decided(self, command: Command, on_reply: OnReply) -> None:
        """What was decided on a snapshot: to the server that was read from, or not at all (``MovedError``).

        A server that took over may lack the last versions of the one before it, and numbers them anew.
        """

    def send_replicated(self, command: Command, replicas: int, wait_ms: int, on_reply: OnReply) -> None:
        """As ``send_decided``; the reply is told when so many replicas have what was written."""

    def flush(self) -> None:
        """Write what was queued now rather than at the end of the loop tick."""

    async def call(self, *command: Any) -> Reply:
        """Send one command and wait for its reply. Raises StoreError if it failed."""


@dataclass(slots=True, frozen=True)
class Watcher:
    """What a store wants to hear of its servers."""

    prepare: Callable[[RedisLink], Awaitable[None]]
    """Makes a new connection ready, before anybody uses it. Raises StoreError."""
    forget: Callable[[Collection[int] | None], None]
    """What was read of these slots (None: of all) may not be so any more."""
    routes_changed: Callable[[], None]
    reconnected: Callable[[], None]


class Nodes(Protocol):
    """The servers of a store."""

    async def start(self) -> None:
        """Connect. Raises StoreUnavailableError with the reason."""

    async def stop(self) -> None: ...

    @property
    def available(self) -> bool:
        """Every key can be reached."""

    def route(self, key: bytes) -> Route | None:
        """Where commands on a key go; None: nowhere yet."""

    def routes(self) -> list[Route]:
        """One for each server that takes writes."""

    async def call(self, *command: Any) -> Reply:
        """One command outside the hot path. Raises StoreError."""

    async def connect(self, key: bytes) -> RedisLink:
        """A connection of its own to the server of a key, which may block. Raises OSError, StoreError."""

    def not_primary(self) -> None:
        """A server has refused to write."""


async def scan(
    routes: Iterable[Route], pattern: str | bytes, count: int, kind: str | None
) -> AsyncIterator[list[bytes]]:
    """``Store.scan`` over these servers."""
    typed = () if kind is None else ("TYPE", kind)
    for route in routes:
        cursor: Any = 0
        while True:
            cursor, found = await route.call("SCAN", cursor, "MATCH", pattern, "COUNT", count, *typed)
            if found:
                yield found
            if int(cursor) == 0:
                break


class Primary:
    """One server, or the primary of several that sentinels watch over."""

    def __init__(self, address: Address, watcher: Watcher) -> None:
        self._address = address
        self._watcher = watcher
        self._link: RedisLink | None = None
        self._place = address
        """The server that is connected."""
        self._closing = False
        self._reconnecting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._connect()
        if self._address.sentinels:
            self._watching = self._loop.create_task(self._watch())

    async def stop(self) -> None:
        self._closing = True
        for task in (self._reconnecting, self._watching):
            if task is not None:
                task.cancel()
        if self._link is not None:
            self._link.close()

    @property
    def available(self) -> bool:
        return self._link is not None and not self._link.lost

    def route(self, key: bytes) -> Route | None:  # noqa: ARG002 - one serves them all
        return self._link

    def routes(self) -> list[Route]:
        return [] if self._link is None else [self._link]

    async def call(self, *command: Any) -> Reply:
        if self._link is None or self._link.lost:
            raise StoreUnavailableError("the store cannot be reached")
        return await self._link.call(*command)

    async def connect(self, key: bytes) -> RedisLink:  # noqa: ARG002 - one serves them all
        return await open_primary(self._loop, self._address)

    def not_primary(self) -> None:
        if self._link is not None:
            self._link.abort()

    async def _connect(self) -> None:
        address = self._address
        link: RedisLink | None = None
        try:
            place = await primary_of(self._loop, address)
            link = await open_link(
                self._loop,
                place,
                self._lost,
                primary=bool(address.sentinels),
                hangs_after_ms=address.hangs_after_ms,
            )
            await self._watcher.prepare(link)
        except (OSError, StoreError) as error:
            if link is not None:
                link.close()
            raise StoreUnavailableError(f"Redis at {address.url} cannot be used: {error}") from error
        if place != self._place and self._link is not None:
            log.warning("the primary of %s is %s", address.master_name, place.url)
        self._link, self._place = link, place
        self._watcher.routes_changed()

    def _lost(self, reason: Exception | None) -> None:
        self._watcher.forget(None)  # what was under way may or may not have been written
        if self._closing or self._reconnecting is not None or self._link is None:
            return
        log.error("the connection to Redis at %s was lost (%s)", self._address.url, reason)
        self._reconnecting = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        delay = FIRST_PAUSE_S
        while not self._closing:
            try:
                await self._connect()
            except StoreUnavailableError as error:
                log.warning("%s; trying again in %.2f s", error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_PAUSE_S)
                continue
            self._watcher.reconnected()
            log.warning("connected to Redis at %s again", self._address.url)
            break
        self._reconnecting = None

    async def _watch(self) -> None:
        """Let go of a server that is the primary no more, though its connection stands."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self._link is None or self._link.lost:
                continue
            with contextlib.suppress(StoreUnavailableError):
                place = await primary_of(self._loop, self._address)
                if place != self._place:
                    log.warning("the primary of %s is %s now", self._address.master_name, place.url)
                    self.not_primary()
