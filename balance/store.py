"""The ledger in Redis.

A caller hands ``transact`` a pure *step*, from snapshot to plan; ``balance.lane`` runs it and writes the plan. Here are
the accounts that are known, the connection, and what is asked for off the hot path. Nothing here knows what the plans
mean.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha1
from pathlib import Path
from typing import Any

from balance.address import Address
from balance.cluster import Cluster, slot_of
from balance.keys import LAYOUT, Keys
from balance.lane import MAX_PLANS, Lane, OnPlan, Shared
from balance.look_ups import Sessions, Subscribers, failure, unreachable
from balance.migrations import FORMAT, Data, bring_forward, scan_by
from balance.nodes import Nodes, Primary, Watcher, scan
from balance.plans import Observe, Plan, Step
from balance.resp import NotPrimaryError, RedisLink, Reply, StoreError, StoreUnavailableError
from balance.snapshots import Snapshots
from balance.store_statistics import StoreStatistics


@dataclass(slots=True, frozen=True)
class StoreSettings:
    address: Address
    partitions: int = 64
    account_cache_entries: int = 100_000
    directory_cache_ms: int = 5_000
    """How long a worker may use what it knows about an identity after it was moved elsewhere. While Redis tells of
    changes (``balance.directory_watch``) it is milliseconds, and what has not changed is not asked for again."""
    session_directory_ttl_s: int = 7 * 86_400
    commits_in_flight: int = 4
    """Script calls per lane that may be under way at most, see ``Lane.flush``."""


class _Awaited:
    """Somebody waits for the result of an operation."""

    __slots__ = ("future",)

    def __init__(self, future: "asyncio.Future[Plan]") -> None:
        self.future = future

    def done(self, result: Plan | StoreError) -> None:
        if self.future.done():
            return
        if isinstance(result, StoreError):
            self.future.set_exception(result.__cause__ or result)
        else:
            self.future.set_result(result)


class Store:
    """The ledger's store. All callbacks run in the event loop that ``start`` ran in."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self.keys = Keys(settings.partitions, settings.address.clustered)
        self.statistics = StoreStatistics()
        address = settings.address
        watcher = Watcher(self._prepare, self._forget, self._routes_changed, self._reconnected)
        self._nodes: Nodes = Cluster(address, watcher) if address.clustered else Primary(address, watcher)
        self.subscribers = Subscribers(
            self.keys, self._nodes, self.statistics, settings.account_cache_entries, settings.directory_cache_ms
        )
        self.sessions = Sessions(self.keys, self._nodes, self.statistics, settings.session_directory_ttl_s)
        script = (Path(__file__).parent / "scripts" / "commit.lua").read_text(encoding="utf-8")
        self._shared = Shared(
            self.keys, self._nodes, self.sessions, self.statistics, script,
            settings.commits_in_flight, address.wait_replicas, address.wait_ms,
        )  # fmt: skip
        self._lanes = {lane: Lane(self._shared, self.keys, lane) for lane in self.keys.lanes()}
        self.snapshots = Snapshots(self.keys, self._lanes, settings.account_cache_entries)
        self._slots = {slot_of(lane.keys[0]): lane for lane in self._lanes.values()}
        self._commits_seen = (0, 0.0)

    @property
    def observe(self) -> Observe | None:
        """Looks at every change of an account before it is written."""
        return self._shared.observe

    @observe.setter
    def observe(self, observe: Observe | None) -> None:
        self._shared.observe = observe

    async def start(self) -> None:
        """Connect. Raises StoreUnavailableError with the reason if Redis cannot be reached."""
        self._shared.loop = asyncio.get_running_loop()
        await self._nodes.start()
        if self.settings.address.clustered:
            await self._check_layout(Data(self._nodes.call, self.scan))

    async def stop(self) -> None:
        await self._nodes.stop()

    @property
    def available(self) -> bool:
        return self._nodes.available

    @property
    def capacity(self) -> int:
        """So many operations can be on their way to Redis; further ones would only wait here."""
        return len(self._lanes) * self.settings.commits_in_flight * MAX_PLANS

    def delay(self, now: float) -> float:
        """For how many seconds the oldest script call has been under way; ``now`` as ``perf_counter`` has it.

        In a cluster that of the quickest lane: a slot that moves does not keep the others' requests waiting.
        """
        return min((now - lane.begun[0] for lane in self._lanes.values() if lane.begun), default=0.0)

    def recent_commit(self) -> float:
        """How long script calls took on average, in seconds, since this was last asked; 0: there was none."""
        statistics = self.statistics
        count, seconds = self._commits_seen
        self._commits_seen = (sum(statistics.round_trips), statistics.round_trip_seconds)
        calls = self._commits_seen[0] - count
        return (self._commits_seen[1] - seconds) / calls if calls else 0.0

    async def _prepare(self, link: RedisLink) -> None:
        self._shared.sha = await link.call("SCRIPT", "LOAD", self._shared.script)
        if not self.settings.address.clustered:
            await self._check_layout(Data(link.call, partial(scan_by, link.call)))

    def _routes_changed(self) -> None:
        for lane in self._lanes.values():
            lane.route = self._nodes.route(lane.keys[0])

    def _reconnected(self) -> None:
        self.statistics.reconnects += 1

    def _forget(self, slots: Collection[int] | None) -> None:
        """What was read of these hash slots (None: of all) is read again, and decided on again if it was not sent."""
        if slots is None:
            lanes = list(self._lanes.values())
        else:
            lanes = [self._slots[slot] for slot in slots if slot in self._slots]
        for lane in lanes:
            lane.forget()
        self.subscribers.doubt()

    async def _check_layout(self, data: Data) -> None:
        """Agree with the store on its format and how its keys are named; the first to come decides."""
        if await data.call("HSETNX", LAYOUT, "partitions", self.keys.partitions):
            await data.call("HSET", LAYOUT, "format", FORMAT)
            if self.keys.clustered:
                await data.call("HSET", LAYOUT, "lanes", self.keys.partitions)
        found = int(await data.call("HGET", LAYOUT, "partitions"))
        if found != self.keys.partitions:
            raise StoreError(
                f"it was laid out with {found} partitions but store.partitions says {self.keys.partitions}; "
                f"set store.partitions to {found}"
            )
        if (await data.call("HGET", LAYOUT, "lanes") is not None) != self.keys.clustered:
            raise StoreError(
                "it was laid out for a single server, and keys have other names in a cluster"
                if self.keys.clustered
                else "it was laid out in a cluster, and keys have other names there"
            )
        await bring_forward(data)

    # -- accounts ------------------------------------------------------------------------------------------------

    def transact(self, account_id: bytes, step: Step, done: OnPlan) -> None:
        """See ``balance.snapshots``."""
        self.snapshots.transact(account_id, step, done)

    async def commit(self, account_id: bytes, step: Step) -> Plan:
        """``transact`` for those who can wait. Raises StoreError, or what ``step`` raises."""
        future: asyncio.Future[Plan] = asyncio.get_running_loop().create_future()
        self.transact(account_id, step, _Awaited(future).done)
        return await future

    async def spent(self) -> dict[str, int]:
        """What of each budget is gone, by all that is written. Raises StoreError."""
        totals: dict[str, int] = {}
        for lane in self._lanes.values():
            found = await self.call("HGETALL", lane.budgets)
            for at in range(0, len(found), 2):
                name = found[at].decode("utf-8", "replace")
                totals[name] = totals.get(name, 0) + int(found[at + 1])
        return totals

    # -- off the hot path ----------------------------------------------------------------------------------------

    async def call(self, *command: Any) -> Reply:
        """One command, to the server of its key. Raises StoreError."""
        try:
            return await self._nodes.call(*command)
        except NotPrimaryError:
            self._nodes.not_primary()
            raise

    async def replicated(self, lane: int) -> bool:
        """Return when as many replicas as the address asks for have what is in a lane; False: it asks for none.

        Raises StoreError, also if they do not have it in time.
        """
        address = self.settings.address
        if not address.wait_replicas:
            return False
        mark = self.keys.mark(lane)
        route = self._nodes.route(mark)
        if route is None or route.lost:
            raise unreachable()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        # A write of our own: what WAIT waits for is the last one of a connection, and all before that.
        route.send_replicated((b"SET", mark, b""), address.wait_replicas, address.wait_ms, future.set_result)
        reply = await future
        if isinstance(reply, Exception):
            raise failure(self._nodes, reply)
        return True

    async def call_all(self, *command: Any) -> list[Reply]:
        """One command to every server that takes writes. Raises StoreError."""
        routes = self._nodes.routes()
        if not routes:
            raise StoreUnavailableError("the store cannot be reached")
        return list(await asyncio.gather(*(route.call(*command) for route in routes)))

    def scan(self, pattern: str | bytes, count: int, kind: str | None = None) -> AsyncIterator[list[bytes]]:
        """The keys that fit a pattern, a page at a time, in no order, some perhaps twice (SCAN).

        ``kind``: only those of that type. Keys of a cluster that move meanwhile may be missed. Raises StoreError.
        """
        return scan(self._nodes.routes(), pattern, count, kind)

    async def connect(self, key: bytes) -> RedisLink:
        """A connection of its own to the server of a key, which may block. Raises OSError, StoreError."""
        return await self._nodes.connect(key)

    async def run_script(self, script: str, keys: Sequence[bytes], *arguments: Any) -> Reply:
        """Run a script outside the hot path; its keys are of one slot. Raises StoreError."""
        try:
            return await self.call("EVALSHA", _digest(script), len(keys), *keys, *arguments)
        except StoreError as error:
            if "NOSCRIPT" not in str(error):
                raise
            return await self.call("EVAL", script, len(keys), *keys, *arguments)


@cache
def _digest(script: str) -> bytes:
    """What Redis knows a script by."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest().encode()
