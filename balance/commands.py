"""Commands between the processes that share a store: what one wants done is done by the one that can.

An asker appends its command to a stream that every worker reads. A worker that is able to carry it out claims it with
``SET NX``, does it, and leaves the result where the asker looks for it. What a command says is not known here; commands
of another kind have a stream of their own (``ChannelSettings.stream``).

===============================  ==========  =====================================================================
key                              type        value
===============================  ==========  =====================================================================
``occ:commands``                 stream      fields ``n``, the command's name, and ``c``, the command; expires
``occ:command:<name>``           string      ``c`` and the worker that claimed it; ``r`` and the result; ``f`` and the
                                             worker that failed; or ``w``: withdrawn, as nobody claimed it; expires
===============================  ==========  =====================================================================

A command is carried out once at most, and never when it is older than ``ChannelSettings.claim_within_s`` by the clock
of Redis: a worker that starts, or finds Redis again, does not dig out what nobody waits for any more.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from balance.resp import RedisLink, Reply, StoreError, StoreUnavailableError
from balance.store import Store

log = logging.getLogger("balance.commands")

STREAM: Final = b"occ:commands"
COMMANDS_KEPT: Final = 10_000
"""The stream's bound, about; it is read within milliseconds of being written."""
KEPT_MS: Final = 300_000
"""How long a claim, a result and the stream itself stay."""
COMMANDS_A_READ: Final = 100

_CLAIMED: Final = b"c"
_RESULT: Final = b"r"
_FAILED: Final = b"f"
_WITHDRAWN: Final = b"w"


class UnclaimedError(Exception):
    """No worker could carry the command out; it has been withdrawn."""


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """Times in seconds. Askers and workers must agree on ``claim_within_s``."""

    claim_within_s: float = 4.0
    """After that nobody claims a command any more."""
    result_within_s: float = 90.0
    """How long an asker waits for the result of a command that was claimed."""
    first_look_s: float = 0.01
    """Between the first two looks of an asker; each later pause is longer, up to ``longest_pause_s``."""
    longest_pause_s: float = 0.25
    read_s: float = 5.0
    """How long one read of the stream waits for a command."""
    stream: bytes = STREAM


DEFAULTS: Final = ChannelSettings()


def _key(name: bytes) -> bytes:
    return b"occ:command:" + name


# -- asking ------------------------------------------------------------------------------------------------------


async def tell(store: Store, command: bytes, stream: bytes = STREAM) -> bytes:
    """Have a command carried out by whichever worker can, if any; its name. Raises StoreError. Nothing is awaited."""
    name = secrets.token_hex(12).encode()
    await store.call("XADD", stream, "MAXLEN", "~", COMMANDS_KEPT, "*", "n", name, "c", command)
    with suppress(StoreUnavailableError):
        await store.call("PEXPIRE", stream, KEPT_MS)
    return name


async def ask(store: Store, command: bytes, settings: ChannelSettings | None = None) -> bytes:
    """Have a command carried out by whichever worker can, and wait for its result.

    A connection to Redis that breaks meanwhile is waited for. Raises UnclaimedError if no worker can, StoreError if
    Redis cannot be reached or no result comes.
    """
    settings = settings or DEFAULTS
    name = await tell(store, command, settings.stream)
    clock = asyncio.get_running_loop().time
    claim_until = clock() + settings.claim_within_s
    result_until = clock() + settings.result_within_s
    pause_s = settings.first_look_s
    while True:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, settings.longest_pause_s)
        late = clock() > result_until
        try:
            value = await store.call("GET", _key(name))
            if value is None and clock() > claim_until:
                if await store.call("SET", _key(name), _WITHDRAWN, "NX", "PX", KEPT_MS) is not None:
                    raise UnclaimedError
                continue  # claimed at the last moment
        except StoreUnavailableError:
            if late:
                raise
            continue
        if value is not None and value[:1] == _RESULT:
            return bytes(value[1:])
        worker = bytes(value[1:]).decode("utf-8", "replace") if value else "nobody"
        if value is not None and value[:1] == _FAILED:
            raise StoreError(f"{worker} could not carry the command out; its log says why")
        if late:
            raise StoreError(f"{worker} took the command and has told nothing for {settings.result_within_s:.0f} s")


# -- listening ---------------------------------------------------------------------------------------------------

Delay = Callable[[bytes], "float | None"]
"""How long (seconds) this worker leaves a command to others that may be better placed; None: it cannot do it now."""

Execute = Callable[[bytes], Awaitable[bytes]]
"""Carries a command out; what it returns is the result. An exception leaves the asker without one."""


class CommandListener:
    """Reads the commands on a connection of its own, so that nothing of the store's hot path waits for it."""

    LOOK_AGAIN_S: Final = 0.2
    """A worker that cannot carry a command out looks again after this: its peer may just be coming back."""

    def __init__(
        self, store: Store, worker: bytes, delay: Delay, execute: Execute, settings: ChannelSettings | None = None
    ) -> None:
        """``worker`` names this process in claims."""
        self._store = store
        self._worker = worker
        self._delay = delay
        self._execute = execute
        self._settings = settings or DEFAULTS
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listen until cancelled; an unreachable Redis is waited for."""
        pause_s = 0.05
        try:
            while True:
                try:
                    async for name, command, age_s in self._commands():
                        pause_s = 0.05
                        task = asyncio.create_task(self._take(name, command, age_s))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                except (OSError, StoreError) as error:
                    log.debug("commands are read again in %.2f s: %s", pause_s, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 2.0)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _commands(self) -> AsyncIterator[tuple[bytes, bytes, float]]:
        """(name, command, age in seconds) as they come. Raises OSError or StoreError when the connection ends.

        Whatever is not too old is read again on every new connection; what was claimed before stays claimed.
        """
        limit_ms = int(self._settings.claim_within_s * 1000)
        block_ms = int(self._settings.read_s * 1000)
        link = await self._store.connect(self._settings.stream)
        try:
            position = b"%d-0" % max(0, await redis_ms(link) - limit_ms)
            while True:
                async with asyncio.timeout(self._settings.read_s + 5.0):
                    reply = await link.call(
                        "XREAD", "COUNT", COMMANDS_A_READ, "BLOCK", block_ms, "STREAMS", self._settings.stream, position
                    )
                    now_ms = await redis_ms(link)
                for entry_id, fields in entries(reply):
                    position = entry_id
                    age_ms = now_ms - int(entry_id.split(b"-")[0])
                    told = dict(zip(fields[::2], fields[1::2], strict=False))
                    if age_ms <= limit_ms and b"n" in told and b"c" in told:
                        yield bytes(told[b"n"]), bytes(told[b"c"]), max(0, age_ms) / 1000
        finally:
            link.close()

    async def _take(self, name: bytes, command: bytes, age_s: float) -> None:
        """Claim one command if this worker can carry it out before it is too old, and do it."""
        until = asyncio.get_running_loop().time() + self._settings.claim_within_s - age_s
        try:
            if not await self._is_ours(name, command, until):
                return
            claim = await self._store.call("SET", _key(name), _CLAIMED + self._worker, "NX", "PX", KEPT_MS)
        except StoreError as error:
            log.debug("a command is left to others: %s", error)
            return
        if claim is None:
            return
        try:
            told = _RESULT + await self._execute(command)
        except Exception:  # one command's fault must not end the listening
            log.exception("a command could not be carried out")
            told = _FAILED + self._worker
        await self._tell(name, told)

    async def _is_ours(self, name: bytes, command: bytes, until: float) -> bool:
        """Wait for this worker's turn; False if somebody else was faster or time is up. Raises StoreError."""
        waited_s = 0.0
        while (delay_s := self._delay(command)) is None or waited_s < delay_s:
            pause_s = self.LOOK_AGAIN_S if delay_s is None else delay_s - waited_s
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            if asyncio.get_running_loop().time() >= until or await self._store.call("EXISTS", _key(name)):
                return False
        return True

    async def _tell(self, name: bytes, told: bytes) -> None:
        """Leave the result to the asker, however often Redis goes away meanwhile."""
        until = asyncio.get_running_loop().time() + self._settings.result_within_s
        while asyncio.get_running_loop().time() < until:
            try:
                await self._store.call("SET", _key(name), told, "PX", KEPT_MS)
                return
            except StoreUnavailableError:
                await asyncio.sleep(self.LOOK_AGAIN_S)
            except StoreError as error:
                log.error("the result of a command cannot be told: %s", error)
                return


def entries(reply: Reply) -> list[tuple[bytes, list[bytes]]]:
    """The entries of one XREAD of one stream; none if it waited in vain."""
    return [(bytes(entry_id), fields) for _, entries in reply or () for entry_id, fields in entries]


async def redis_ms(link: RedisLink) -> int:
    """The clock that numbers the entries of streams, milliseconds."""
    seconds, microseconds = await link.call("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000
