"""Hearing from Redis what changes in the subscriber directory, so that what is known of it need not be asked again.

A connection of its own has Redis tell of every key of an identity that is written or goes (server-assisted client-side
caching, ``CLIENT TRACKING`` with ``BCAST``, Redis 6 and Valkey). It is the one that tracks and the one that is told, so
neither can be lost without the other; it speaks RESP2 as all others do, in which what is told comes as messages of the
channel ``__redis__:invalidate``. To Redis it is a subscriber, so a worker that does not read is cut off
(``client-output-buffer-limit pubsub``) instead of filling its memory.

A PING goes over it again and again. Its answer stands behind all that changed before the PING was sent, so what is
known is as in the store at that time or later, and is used for ``directory_cache_ms`` from then. So a change is never
missed for longer than it would be without a watch, whatever hangs or breaks. Where there is none (a cluster; a server
that does not allow it; a connection that was lost, or the one that identities are read by) that rule is all there is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import hiredis

from balance.keys import IDENTITIES
from balance.look_ups import Subscribers
from balance.nodes import FIRST_PAUSE_S, LONGEST_PAUSE_S
from balance.resp import Reply, StoreError, StoreUnavailableError, as_store_error
from balance.store import Store

log = logging.getLogger("balance.directory_watch")

CHANNEL: Final = b"__redis__:invalidate"
LONGEST_INTERVAL_S: Final = 1.0
"""Between two PINGs; four of them within ``directory_cache_ms`` if that is short."""
PATIENCE_S: Final = 5.0
"""A connection that leaves a PING unanswered for so long is given up."""
REFUSED_PAUSE_S: Final = 30.0
"""Before a server that does not tell of changes is asked again: its access control list may be another one by then."""


class DirectoryWatch:
    """Keeps a store's ``subscribers`` told, for as long as it runs. Many may run on one Redis."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        """``clock``: what the ``now_ms`` of look-ups is taken from."""
        self._store = store
        self._clock = clock
        self._cache_ms = store.subscribers.cache_ms
        self._interval_s = min(LONGEST_INTERVAL_S, self._cache_ms / 4000)
        self._told = ""

    async def run(self) -> None:
        """Listen until cancelled; an unreachable Redis is waited for. Returns at once where nothing can be watched."""
        if self._store.keys.clustered or self._cache_ms <= 0:
            return
        clock = asyncio.get_running_loop().time
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = clock()
            try:
                await self._listen()
            except (OSError, StoreUnavailableError) as error:  # a time-out is an OSError
                if clock() - began_s > LONGEST_PAUSE_S:
                    pause_s = FIRST_PAUSE_S
                log.debug("changes of the directory are listened for again in %.2f s: %s", pause_s, error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            except StoreError as error:
                self._tell_refusal(str(error))
                await asyncio.sleep(REFUSED_PAUSE_S)

    def _tell_refusal(self, reason: str) -> None:
        if reason != self._told:
            log.warning(
                "Redis does not tell of changes of the directory, so identities are looked up again after %d ms "
                "(docs/store.md has what the user must be allowed): %s", self._cache_ms, reason,
            )  # fmt: skip
        self._told = reason

    async def _listen(self) -> None:
        """Raises OSError, StoreError: how it ended, or that it could not be begun."""
        store, directory = self._store, self._store.subscribers
        doubt = directory.doubt()
        link = await store.connect(IDENTITIES)
        try:
            async with asyncio.timeout(PATIENCE_S):
                # A name, or sentinels, may lead to another server by now than the one that identities are read from.
                if await _server(link.call) != await _server(store.call):
                    raise StoreUnavailableError("the store is about to be another server")
                client = await link.call("CLIENT", "ID")
                await link.call("CLIENT", "TRACKING", "ON", "REDIRECT", client, "BCAST", "PREFIX", IDENTITIES)
                messages = _Messages(directory)
                messages.transport = link.hand_over(messages)
                await messages.ask("SUBSCRIBE", CHANNEL)
            watch = directory.watched(doubt)
            self._told = ""
            while True:
                asked_ms = self._clock()
                async with asyncio.timeout(PATIENCE_S):
                    await messages.ask("PING")
                if not directory.heard(watch, asked_ms + self._cache_ms):
                    raise StoreUnavailableError("the connection that identities are read by was lost meanwhile")
                await asyncio.wait((messages.lost,), timeout=self._interval_s)
        finally:
            directory.doubt()
            link.close()


async def _server(call: Callable[..., Awaitable[Reply]]) -> bytes:
    """What a server calls itself since it was started. Raises StoreError."""
    for line in cast(bytes, await call("INFO", "server")).splitlines():
        if line.startswith(b"run_id:"):
            return line
    raise StoreError("the server does not say which one it is (run_id of INFO)")


class _Messages(asyncio.Protocol):
    """A connection that subscribes: messages of the channel, and replies between them."""

    def __init__(self, directory: Subscribers) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._directory = directory
        self._reader = hiredis.Reader()
        self._replied: asyncio.Future[None] | None = None

    async def ask(self, *command: Any) -> None:
        """Send one command and wait until it is answered; one at a time. Raises StoreError."""
        if self.transport is None or self.transport.is_closing():
            raise StoreUnavailableError("the connection to Redis was lost")
        self._replied = asyncio.get_running_loop().create_future()
        self.transport.write(hiredis.pack_command(command))
        await self._replied

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            reply = self._reader.gets()
            while reply is not False:
                self._take(reply)
                reply = self._reader.gets()
        except (hiredis.ProtocolError, LookupError, TypeError) as error:
            log.error("Redis sent what no subscriber is sent (%s); closing the connection", error)
            if self.transport is not None:
                self.transport.abort()

    def _take(self, reply: Reply) -> None:
        """Raises LookupError, TypeError: it is no reply to a subscriber."""
        if isinstance(reply, Exception):
            self._reply(as_store_error(reply))
        elif reply[0] == b"message":
            self._directory.changed(reply[2])
        else:
            self._reply(None)

    def _reply(self, error: StoreError | None) -> None:
        if self._replied is None or self._replied.done():
            return
        if error is None:
            self._replied.set_result(None)
        else:
            self._replied.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reply(StoreUnavailableError(f"the connection to Redis was lost ({exc})"))
        if not self.lost.done():
            self.lost.set_result(None)
