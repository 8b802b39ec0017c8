"""The streams of transitions: what the commits of all processes have left for the servers to act on.

The servers of a store are one consumer group: each transition goes to one of them, and stays in the group's list of
pending entries until it has been acted on. A server that comes back finds first what it had taken before; what a
server that does not come back had taken is claimed by another one. So a transition is acted on at least once, and
twice only where somebody died, or stood still for long, in the middle of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from balance.resp import Reply, StoreError
from balance.store import Store

log = logging.getLogger("balance.transitions")

GROUP: Final = "policies"

SHORTEST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
"""Before a server that has lost Redis looks again."""

Call = Callable[..., Awaitable[Reply]]
"""Sends one command; the connection's or the store's."""

_LAST_ID: Final = b"18446744073709551615-0"
"""Behind every entry."""


@dataclass(frozen=True, slots=True)
class TransitionSettings:
    """Times in seconds."""

    read_s: float = 1.0
    """How long one read of the streams waits. A server in good health reads again after that at the latest."""
    dead_s: float = 6.0
    """A server that has not read for so long is taken for dead: others take over what it has not finished."""
    look_s: float = 2.0
    """Between two looks for such servers."""
    at_once: int = 2000
    """Transitions this process has taken and works on; no more are read until some are finished, or only wait."""
    waiting_at_most: int = 100_000
    """Those that only wait for others beyond this count as worked on."""
    a_read: int = 32
    """Taken at once: what they set off must not keep charging waiting for long."""
    a_claim: int = 200
    """Taken over at once from one that is dead."""
    poll_s: float = 0.1
    """Between two looks for what is new, in a cluster."""
    gather_s: float = 0.02
    """How long transitions that are finished wait for others to be struck with them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition as it was committed, and where it stands."""

    stream: bytes
    entry_id: bytes
    transition: bytes


class TransitionReader:
    """Takes transitions for one server, on a connection of its own, so that nothing of the hot path waits for it."""

    def __init__(
        self, store: Store, worker: bytes, take: Callable[[Entry], None], settings: TransitionSettings | None = None
    ) -> None:
        """``worker``: name of this server, the same after a restart. ``take`` begins to act and does not wait; whoever
        acts calls ``finish`` in the end, or ``give_back`` if the store could not be reached."""
        self._store = store
        self._worker = worker
        self._take = take
        self._settings = settings or TransitionSettings()
        self._streams = [store.keys.transitions(lane) for lane in store.keys.lanes()]
        self._taken: set[tuple[bytes, bytes]] = set()
        self._waiting: set[tuple[bytes, bytes]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._given_back = False
        self._finished: list[Entry] = []
        self._striking: asyncio.Task[None] | None = None
        """Kept, as the loop itself forgets tasks."""

    @property
    def under_way(self) -> int:
        """How many transitions were taken and are not finished."""
        return len(self._taken)

    def finish(self, entry: Entry) -> None:
        """A transition has been acted on: nobody will see it again. A lost connection to Redis brings it back.

        What is finished shortly after is struck together with it: every write of its own is one to the disk.
        """
        if not self._finished:
            self._striking = asyncio.get_running_loop().create_task(self._strike_soon())
        self._finished.append(entry)

    async def _strike_soon(self) -> None:
        await asyncio.sleep(self._settings.gather_s)
        await self._strike()

    async def _strike(self) -> None:
        finished, self._finished = self._finished, []
        try:
            for stream in self._streams:
                ids = [entry.entry_id for entry in finished if entry.stream == stream]
                if ids:
                    # Deleted first: what is pending and has no text any more was acted on.
                    deleted = self._store.call("XDEL", stream, *ids)
                    await asyncio.gather(deleted, self._store.call("XACK", stream, GROUP, *ids))
        except StoreError as error:
            log.debug("%d transitions will be acted on once more: %s", len(finished), error)
            self._given_back = True
        for entry in finished:
            self._drop(entry)

    def only_waits(self, entry: Entry) -> None:
        """All that is left of a transition is that others answer: it keeps none from being read."""
        self._waiting.add((entry.stream, entry.entry_id))
        self._make_room()

    @property
    def _worked_on(self) -> int:
        return len(self._taken) - min(len(self._waiting), self._settings.waiting_at_most)

    def _make_room(self) -> None:
        if self._worked_on < self._settings.at_once:
            self._room.set()

    def give_back(self, entry: Entry) -> None:
        """It could not be acted on for now: it is taken again soon."""
        self._drop(entry)
        self._given_back = True

    def _drop(self, entry: Entry) -> None:
        self._taken.discard((entry.stream, entry.entry_id))
        self._waiting.discard((entry.stream, entry.entry_id))
        self._make_room()

    async def run(self) -> None:
        """Take transitions until cancelled; an unreachable Redis is waited for."""
        try:
            await self._read_for_ever()
        finally:
            await self._strike()

    async def _read_for_ever(self) -> None:
        clock = asyncio.get_running_loop().time
        pause_s = SHORTEST_PAUSE_S
        while True:
            began_s = clock()
            try:
                await self._read()
            except (OSError, StoreError) as error:  # a time-out is an OSError
                if clock() - began_s > LONGEST_PAUSE_S:
                    pause_s = SHORTEST_PAUSE_S
                log.debug("transitions are read again in %.2f s: %s", pause_s, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _read(self) -> None:
        """Raises OSError or StoreError when the connection ends, or what was read from is gone."""
        if self._store.keys.clustered:
            await self._read_by(self._store.call, self._poll)
            return
        link = await self._store.connect(self._streams[0])

        async def block() -> None:
            block_ms, new = int(self._settings.read_s * 1000), [b">"] * len(self._streams)
            async with asyncio.timeout(self._settings.read_s + 5.0):
                reply = await link.call(*self._reading(), "BLOCK", block_ms, "STREAMS", *self._streams, *new)
            self._take_all(reply)

        try:
            await self._read_by(link.call, block)
        finally:
            link.close()

    async def _poll(self) -> None:
        """What is new, of the streams of a cluster: no command can wait for those of several nodes."""
        calls = (self._store.call(*self._reading(), "STREAMS", stream, b">") for stream in self._streams)
        replies = await asyncio.gather(*calls)
        for reply in replies:
            self._take_all(reply)
        if not any(replies):
            await asyncio.sleep(self._settings.poll_s)

    async def _read_by(self, call: Call, read_new: Callable[[], Awaitable[None]]) -> None:
        settings, clock = self._settings, asyncio.get_running_loop().time
        for stream in self._streams:
            await _make_group(call, stream)
        await self._own_pending(call)
        look_at = clock()
        alive_at = clock() + settings.read_s
        while True:
            if self._given_back:
                self._given_back = False
                await asyncio.sleep(SHORTEST_PAUSE_S)
                await self._own_pending(call)
            if clock() >= look_at:
                await self._claim_of_the_dead(call)
                look_at = clock() + settings.look_s
            if self._worked_on >= settings.at_once:
                self._room.clear()
                await _no_longer_than(self._room, settings.read_s)
                await self._show_life(call)
                continue
            await read_new()
            if self._taken and clock() >= alive_at:
                await self._show_life(call)
                alive_at = clock() + settings.read_s

    def _reading(self) -> tuple[Any, ...]:
        return ("XREADGROUP", "GROUP", GROUP, self._worker, "COUNT", self._settings.a_read)

    async def _show_life(self, call: Call) -> None:
        """A read that finds nothing, so that others do not take this server for dead while it holds transitions.

        Before Redis 7.2 a read that blocked and found nothing does not count as a sign of life; one in the past does.
        """
        for stream in self._streams:
            await call(*self._reading(), "STREAMS", stream, _LAST_ID)

    async def _own_pending(self, call: Call) -> None:
        """What this server took, in this life or the one before, and has not finished."""
        for stream in self._streams:
            since = b"0"
            while True:
                reply = await call(*self._reading(), "STREAMS", stream, since)
                found = [entry for _, entries in reply or () for entry in entries]
                if not found:
                    break
                since = bytes(found[-1][0])
                self._take_all(reply)

    async def _claim_of_the_dead(self, call: Call) -> None:
        """Take over what servers hold that have not read for long."""
        dead_ms = int(self._settings.dead_s * 1000)
        for stream in self._streams:
            for row in await call("XINFO", "CONSUMERS", stream, GROUP):
                about = dict(zip(row[::2], row[1::2], strict=False))
                name = bytes(about[b"name"])
                if name == self._worker or not int(about[b"pending"]) or int(about[b"idle"]) < dead_ms:
                    continue
                held = await call("XPENDING", stream, GROUP, "-", "+", self._settings.a_claim, name)
                wanted = [bytes(each[0]) for each in held]
                if not wanted:
                    continue
                reply = await call("XCLAIM", stream, GROUP, self._worker, dead_ms, *wanted)
                claimed = [each for each in reply if each]
                log.warning("took over %d transitions of %s, which is silent", len(claimed), name.decode())
                self._take_all([(stream, claimed)])

    def _take_all(self, reply: Sequence[Any] | None) -> None:
        for stream, entries in reply or ():
            for entry_id, fields in entries:
                key = (bytes(stream), bytes(entry_id))
                if key in self._taken:
                    continue  # it is being acted on
                told = dict(zip(fields[::2], fields[1::2], strict=False)) if fields else {}
                self._taken.add(key)
                self._take(Entry(*key, bytes(told.get(b"t", b""))))


async def _make_group(call: Call, stream: bytes) -> None:
    try:
        await call("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")
    except StoreError as error:
        if "BUSYGROUP" not in str(error):
            raise


async def _no_longer_than(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


async def waiting(store: Store) -> int:
    """How many transitions nobody has finished yet. Raises StoreError."""
    lengths = [await store.call("XLEN", store.keys.transitions(lane)) for lane in store.keys.lanes()]
    return sum(int(length) for length in lengths)
