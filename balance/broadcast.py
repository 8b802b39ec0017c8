"""Commands to every process that shares a store: each carries them out, the asker hears from all.

An asker appends its command to a stream. Every worker that listens says at once that it has begun, carries the command
out, and leaves its result beside those of the others. A worker that was cut off from Redis goes on where it stopped
reading, so it does late what others did in time; commands must bear that, and being carried out more than once.

================================  ==========  ====================================================================
key                               type        value
================================  ==========  ====================================================================
``occ:broadcasts``                stream      fields ``n``, the command's name, and ``c``, the command; expires
``occ:broadcast:<name>``          hash        for each worker ``c``, ``r`` or ``f`` and its name: it has begun, has
                                              done it, has failed; after ``r`` a zero octet and the result; expires
================================  ==========  ====================================================================
"""

import asyncio
import logging
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from balance.commands import Execute, entries, redis_ms
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store

log = logging.getLogger("balance.broadcast")

STREAM: Final = b"occ:broadcasts"
COMMANDS_KEPT: Final = 1000
KEPT_MS: Final = 300_000
"""How long results and the stream itself stay; a worker that is cut off for longer misses what was asked meanwhile."""

SHORTEST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
"""Before a worker that has lost Redis looks again."""

_BEGUN: Final = b"c"
_RESULT: Final = b"r"
_FAILED: Final = b"f"


@dataclass(frozen=True, slots=True)
class BroadcastSettings:
    """Times in seconds."""

    begin_within_s: float = 1.0
    """How long an asker waits for workers to come forward; it does not know how many there are."""
    result_within_s: float = 60.0
    """How long it waits for the results of those that did."""
    pause_s: float = 0.02
    """Between two looks of an asker."""
    read_s: float = 5.0
    """How long one read of the stream waits for a command."""
    fresh_s: float = 4.0
    """A worker that starts carries out what is no older than this."""


DEFAULTS: Final = BroadcastSettings()


@dataclass(frozen=True, slots=True)
class Reply:
    """What one worker made of a command."""

    worker: bytes
    result: bytes | None
    """None: it failed, or told nothing in time."""
    failed: bool = False
    """Its log says why."""


def _key(name: bytes) -> bytes:
    return b"occ:broadcast:" + name


async def ask_all(store: Store, command: bytes, settings: BroadcastSettings = DEFAULTS) -> list[Reply]:
    """Have a command carried out by every worker; their replies by name, none if nobody listens. Raises StoreError."""
    name = secrets.token_hex(12).encode()
    await store.call("XADD", STREAM, "MAXLEN", "~", COMMANDS_KEPT, "*", "n", name, "c", command)
    with suppress(StoreUnavailableError):
        await store.call("PEXPIRE", STREAM, KEPT_MS)
    clock = asyncio.get_running_loop().time
    begin_until, until = clock() + settings.begin_within_s, clock() + settings.result_within_s
    found: list[bytes] = []
    while clock() < begin_until or (clock() < until and any(value[:1] == _BEGUN for value in found)):
        await asyncio.sleep(settings.pause_s)
        with suppress(StoreUnavailableError):
            found = [bytes(value) for value in (await store.call("HGETALL", _key(name)))[1::2]]
    return sorted((_reply(value) for value in found), key=lambda reply: reply.worker)


def _reply(value: bytes) -> Reply:
    worker, _, result = value[1:].partition(b"\0")
    return Reply(worker, result if value[:1] == _RESULT else None, value[:1] == _FAILED)


class BroadcastListener:
    """Reads the stream on a connection of its own and carries out one command after the other."""

    def __init__(self, store: Store, worker: bytes, execute: Execute, settings: BroadcastSettings = DEFAULTS) -> None:
        """``worker`` names this process in replies."""
        self._store = store
        self._worker = worker
        self._execute = execute
        self._settings = settings
        self._field = secrets.token_hex(8).encode()
        self._position: bytes | None = None

    async def run(self) -> None:
        """Listen until cancelled; an unreachable Redis is waited for."""
        clock = asyncio.get_running_loop().time
        pause_s = SHORTEST_PAUSE_S
        while True:
            began_s = clock()
            try:
                await self._listen()
            except (OSError, StoreError) as error:  # a time-out is an OSError
                if clock() - began_s > LONGEST_PAUSE_S:
                    pause_s = SHORTEST_PAUSE_S
                log.debug("commands to all are read again in %.2f s: %s", pause_s, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _listen(self) -> None:
        block_ms = int(self._settings.read_s * 1000)
        link = await self._store.connect(STREAM)
        try:
            if self._position is None:
                self._position = b"%d-0" % max(0, await redis_ms(link) - int(self._settings.fresh_s * 1000))
            while True:
                async with asyncio.timeout(self._settings.read_s + 5.0):
                    reply = await link.call("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", STREAM, self._position)
                for entry_id, fields in entries(reply):
                    told = dict(zip(fields[::2], fields[1::2], strict=False))
                    if b"n" in told and b"c" in told:
                        await self._take(bytes(told[b"n"]), bytes(told[b"c"]))
                    self._position = entry_id
        finally:
            link.close()

    async def _take(self, name: bytes, command: bytes) -> None:
        """Raises StoreError: the command is then carried out again."""
        await self._tell(name, _BEGUN + self._worker)
        try:
            told = _RESULT + self._worker + b"\0" + await self._execute(command)
        except Exception:  # one command's fault must not end the listening
            log.exception("a command to all could not be carried out")
            told = _FAILED + self._worker
        await self._tell(name, told)

    async def _tell(self, name: bytes, told: bytes) -> None:
        await self._store.call("HSET", _key(name), self._field, told)
        await self._store.call("PEXPIRE", _key(name), KEPT_MS)
