"""The ledger in Redis: read a snapshot, decide, write all or nothing, in one round trip where possible.

A caller hands ``transact`` a pure *step*, from snapshot to plan. The store runs the steps of one account one after
the other, keeps recent snapshots, gathers what one loop tick decided into one script call per lane, and calls the
step again with the fresh snapshot when another worker was faster (optimistic concurrency on the account's version).
Nothing here knows what the plans mean.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha1
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from balance.address import Address
from balance.cluster import Cluster, slot_of
from balance.keys import LAYOUT, Keys
from balance.migrations import FORMAT, Data, bring_forward, scan_by
from balance.model import Account, Lookup, Observe, Plan, Session, Step, Subscriber
from balance.nodes import MovedError, Nodes, Primary, Route, Watcher, scan
from balance.records import (
    VERSION_BYTES,
    pack_account,
    pack_session,
    pack_version,
    unpack_account,
    unpack_session,
    unpack_subscriber,
)
from balance.resp import NotPrimaryError, RedisLink, Reply, StoreError, StoreUnavailableError, as_store_error

log = logging.getLogger("balance.store")

ABSENT: Final = Session(b"", b"", "", b"", 0, 0, 0)
"""Passed to a step that asked for an ended session when there is none."""

MAX_ATTEMPTS: Final = 64
"""Version conflicts in a row after which an operation is given up."""

PLANS_AT_ONCE: Final = 32
"""So many plans go to Redis at once, even while the loop tick that decided them goes on: Redis need not wait."""

SESSIONS_REMEMBERED: Final = 1_000_000
"""Sessions of which a worker knows the account by itself; those that another worker closed would else stay for ever."""

ENDED_REMEMBERED: Final = 50_000
"""Sessions that have ended of which a worker remembers what they were answered, if it is to."""

LANE_KEYS: Final = 3
"""Keys of the commit script that belong to the lane: journal, expiry index, outbox."""

MAX_PLANS: Final = 256
"""Plans in one script call; keeps the script short, so that nothing else waits for it long."""

ROUND_TRIP_BOUNDS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip

OnPlan = Callable[["Plan | StoreError"], None]
OnSubscriber = Callable[["Subscriber | StoreError | None"], None]
OnAccountId = Callable[["bytes | StoreError | None"], None]


@dataclass(slots=True, frozen=True)
class StoreSettings:
    address: Address
    partitions: int = 64
    account_cache_entries: int = 100_000
    directory_cache_ms: int = 5_000
    """How long a worker may use what it knows about an identity after it was moved elsewhere."""
    session_directory_ttl_s: int = 7 * 86_400
    commits_in_flight: int = 4
    """Script calls per lane that may be under way at most, see ``Store._flush_lane``."""


@dataclass(slots=True)
class StoreStatistics:
    commits: int = 0
    plans: int = 0
    conflicts: int = 0
    reads: int = 0
    reconnects: int = 0
    failures: int = 0
    round_trips: list[int] = field(default_factory=lambda: [0] * (len(ROUND_TRIP_BOUNDS_S) + 1))
    round_trip_seconds: float = 0.0

    def round_trip(self, seconds: float) -> None:
        index = 0
        for bound in ROUND_TRIP_BOUNDS_S:
            if seconds <= bound:
                break
            index += 1
        self.round_trips[index] += 1
        self.round_trip_seconds += seconds


class _Line:
    """Everything under way for one account: operations run one at a time, in the order they came.

    The snapshot is kept as it is stored: a hundred thousand small byte strings are read faster, and take a quarter of
    the memory, than as many trees of objects that lie all over it.
    """

    __slots__ = ("account_id", "busy", "key", "lane", "loaded", "value", "waiting")

    def __init__(self, account_id: bytes, key: bytes, lane: "_Lane") -> None:
        self.account_id = account_id
        self.key = key
        self.lane = lane
        self.value = b""
        """The account as stored; empty: there is none."""
        self.loaded = 0
        """The lane's generation that ``value`` was read in; 0: it is to be read."""
        self.busy = False
        self.waiting: deque[_Operation] | None = None

    def account(self) -> Account | None:
        """The snapshot. Raises ValueError for a value that is not one."""
        return unpack_account(self.account_id, self.value) if self.value else None


class _Operation:
    __slots__ = ("attempts", "done", "fresh", "line", "plan", "step", "value")

    def __init__(self, line: _Line, step: Step, done: OnPlan) -> None:
        self.line = line
        self.step = step
        self.done = done
        self.plan: Plan | None = None
        self.value = b""
        """The account of ``plan``, packed."""
        self.attempts = 0
        self.fresh = False
        """The snapshot was read after the operation began; one kept from before may have been overtaken."""


class _Lane:
    __slots__ = ("begun", "budgets", "generation", "in_flight", "keys", "mark", "queue", "route", "transitions")

    def __init__(self, keys: Keys, lane: int) -> None:
        self.keys = (keys.journal(lane), keys.watch(lane), keys.outbox(lane))
        self.mark = keys.mark(lane)
        self.route: Route | None = None
        self.generation = 1
        """Raised whenever what was read before may not be so any more: another server took over, or may have."""
        self.budgets = keys.budgets(lane)
        self.transitions = keys.transitions(lane)
        self.queue: list[_Operation] = []
        self.in_flight = 0
        self.begun: deque[float] = deque()
        """When the script calls that are under way were sent, the oldest first."""


class Store:
    """The ledger's store. All callbacks run in the event loop that ``start`` ran in."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self.keys = Keys(settings.partitions, settings.address.clustered)
        self.statistics = StoreStatistics()
        self.observe: Observe | None = None
        """Looks at every change of an account before it is written."""
        self._script = (Path(__file__).parent / "scripts" / "commit.lua").read_text(encoding="utf-8")
        self._sha = b""
        self._lines: dict[bytes, _Line] = {}
        self._lanes = {lane: _Lane(self.keys, lane) for lane in self.keys.lanes()}
        self._subscribers: dict[tuple[int, bytes], tuple[Subscriber, int]] = {}
        self._sessions: dict[bytes, bytes] = {}
        self.remembers_ended = False
        """What sessions that end were answered is remembered, see ``answers_of_ended``."""
        self._ended: dict[bytes, tuple[bytes, bytes]] = {}
        self._slots = {slot_of(lane.keys[0]): lane for lane in self._lanes.values()}
        self._flush_due = False
        self._commits_seen = (0, 0.0)
        watcher = Watcher(self._prepare, self._forget, self._routes_changed, self._reconnected)
        self._nodes: Nodes = (Cluster if settings.address.clustered else Primary)(settings.address, watcher)
        self._replicas, self._wait_ms = settings.address.wait_replicas, settings.address.wait_ms

    async def start(self) -> None:
        """Connect. Raises StoreUnavailableError with the reason if Redis cannot be reached."""
        self._loop = asyncio.get_running_loop()
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
        self._sha = await link.call("SCRIPT", "LOAD", self._script)
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
            lane.generation += 1
            queue, lane.queue = lane.queue, []
            for operation in queue:
                operation.plan = None
                self._read(operation)

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
        """Run ``step`` on the account's snapshot and write its plan; ``done`` gets the plan, or a StoreError.

        After a StoreUnavailableError it is not known whether the plan was written; the same request repeated finds out.
        """
        line = self._lines.get(account_id)
        if line is None:
            line = _Line(account_id, self.keys.account(account_id), self._lanes[self.keys.lane(account_id)])
            if len(self._lines) >= self.settings.account_cache_entries:
                self._evict()
            self._lines[account_id] = line
        operation = _Operation(line, step, done)
        if line.busy:
            if line.waiting is None:
                line.waiting = deque()
            line.waiting.append(operation)
        else:
            line.busy = True
            self._begin(operation)

    def seen(self, account_id: bytes, value: bytes) -> None:
        """An account as it was just read: what another process has changed need not be found out by a conflict.

        Nothing is taken back: only a later version replaces the snapshot that is kept, and none that is being changed.
        """
        if self.keys.clustered:
            return  # it may have waited for other nodes while its own was replaced by one that lacks it
        line = self._lines.get(account_id)
        if line is None or line.busy or line.loaded != line.lane.generation:
            return
        if value[:VERSION_BYTES] > line.value[:VERSION_BYTES]:
            line.value = value

    async def commit(self, account_id: bytes, step: Step) -> Plan:
        """``transact`` for those who can wait. Raises StoreError, or what ``step`` raises."""
        future: asyncio.Future[Plan] = self._loop.create_future()

        def done(result: Plan | StoreError) -> None:
            if future.done():
                return
            if isinstance(result, StoreError):
                future.set_exception(result.__cause__ or result)
            else:
                future.set_result(result)

        self.transact(account_id, step, done)
        return await future

    def _evict(self) -> None:
        """Drop the oldest idle snapshot; busy ones go to the back of the line."""
        for _ in range(8):
            account_id = next(iter(self._lines))
            line = self._lines.pop(account_id)
            if not line.busy:
                return
            self._lines[account_id] = line

    def _begin(self, operation: _Operation) -> None:
        line = operation.line
        if line.loaded == line.lane.generation:
            self._decide(operation, None)
        else:
            self._read(operation)

    def _read(self, operation: _Operation) -> None:
        """Decide on the account as the store has it now."""
        line = operation.line
        route, generation = line.lane.route, line.lane.generation
        if route is None or route.lost:
            self._finish(operation, StoreUnavailableError("the store cannot be reached"))
            return

        def on_value(reply: Reply) -> None:
            if isinstance(reply, Exception):
                self._finish(operation, self._failed(reply))
            elif generation != line.lane.generation:
                self._read(operation)
            else:
                line.value, line.loaded, operation.fresh = reply or b"", generation, True
                self._decide(operation, None)

        self.statistics.reads += 1
        route.send((b"GET", line.key), on_value)

    def _decide(self, operation: _Operation, ended: Session | None) -> None:
        line = operation.line
        try:
            account = line.account()
        except ValueError as error:
            self._finish(operation, StoreError(str(error)))
            return
        try:
            plan = operation.step(account, ended)
            if isinstance(plan, Plan) and plan.account is not None and self.observe is not None:
                self.observe(account, plan)
        except Exception as error:
            refusal = StoreError(str(error))
            refusal.__cause__ = error
            self._finish(operation, refusal)
            return
        if isinstance(plan, Lookup):
            self._look_up(operation, plan.session_id)
            return
        if plan.account is None and plan.ended is None:
            if plan.replayed and plan.opened:
                self._session_directory(line.account_id, plan)
            if operation.fresh or plan.replayed:
                if plan.replayed and self._replicas:
                    self._confirm(operation, plan)
                else:
                    self._finish(operation, plan)
            else:
                # No script compares the version of a plan that writes nothing. What another worker has done since
                # may be just what is missing here; only an answer that is known stays what it was.
                self._read(operation)
            return
        operation.plan = plan
        lane = line.lane
        lane.queue.append(operation)
        if len(lane.queue) >= PLANS_AT_ONCE:
            self._flush_lane(lane)
        elif not lane.in_flight and not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _decide_after(self, operation: _Operation, value: bytes) -> None:
        """Decide knowing of an ended session; one that cannot be read costs this operation, not those behind it."""
        try:
            ended = unpack_session(value)
        except Exception as error:  # whatever msgpack and the fields make of foreign octets
            account_id = operation.line.account_id
            self._finish(operation, StoreError(f"an ended session of account {account_id!r} cannot be read: {error}"))
            return
        self._decide(operation, ended)

    def _look_up(self, operation: _Operation, session_id: bytes) -> None:
        """Decide knowing of an ended session, and on the account beside it: another worker may have it open."""
        line = operation.line
        route, generation = line.lane.route, line.lane.generation
        if route is None or route.lost:
            self._finish(operation, StoreUnavailableError("the store cannot be reached"))
            return

        def on_values(reply: Reply) -> None:
            if isinstance(reply, Exception):
                self._finish(operation, self._failed(reply))
                return
            if generation != line.lane.generation:
                self._look_up(operation, session_id)
                return
            account, ended = reply
            line.value, line.loaded, operation.fresh = account or b"", generation, True
            if ended:
                self._decide_after(operation, ended)
            else:
                self._decide(operation, ABSENT)

        self.statistics.reads += 1
        route.send((b"MGET", line.key, self.keys.ended(line.account_id, session_id)), on_values)

    def _confirm(self, operation: _Operation, plan: Plan) -> None:
        """Let an answer that was found leave when the replicas have it: whoever wrote it may not have seen that."""
        lane = operation.line.lane
        if lane.route is None or lane.route.lost:
            self._finish(operation, StoreUnavailableError("the store cannot be reached"))
            return

        def on_reply(reply: Reply) -> None:
            self._finish(operation, self._failed(reply) if isinstance(reply, Exception) else plan)

        # A write of our own: what WAIT waits for is the last one of a connection, and all before that.
        lane.route.send_replicated((b"SET", lane.mark, b""), self._replicas, self._wait_ms, on_reply)

    def _flush(self) -> None:
        self._flush_due = False
        for lane in self._lanes.values():
            self._flush_lane(lane)

    def _flush_lane(self, lane: _Lane) -> None:
        """Send what waits, if it may go: a small commit only when none is under way, a large one beside others.

        So at low load the plans that come while Redis writes to disk share the next write, and at high load Redis
        works on one commit while the next ones are being decided.
        """
        while lane.queue and (not lane.in_flight or len(lane.queue) >= PLANS_AT_ONCE):
            if lane.in_flight >= self.settings.commits_in_flight:
                break
            batch, lane.queue = lane.queue[:MAX_PLANS], lane.queue[MAX_PLANS:]
            self._send_batch(lane, batch)
        if lane.route is not None:
            lane.route.flush()

    def _send_batch(self, lane: _Lane, batch: list[_Operation]) -> None:
        route = lane.route
        if route is None or route.lost:
            for operation in batch:
                self._finish(operation, StoreUnavailableError("the store cannot be reached"))
            return
        command = self._command(lane, batch)
        if not batch:
            return
        started, generation = perf_counter(), lane.generation
        lane.in_flight += 1
        lane.begun.append(started)
        self.statistics.commits += 1
        self.statistics.plans += len(batch)

        def on_reply(reply: Reply) -> None:
            lane.in_flight -= 1
            lane.begun.popleft()
            self.statistics.round_trip(perf_counter() - started)
            self._settled(lane, generation, batch, reply)
            if lane.queue:
                self._flush_lane(lane)

        if self._replicas:
            route.send_replicated(command, self._replicas, self._wait_ms, on_reply)
        else:
            route.send_decided(command, on_reply)

    def _command(self, lane: _Lane, batch: list[_Operation]) -> tuple[Any, ...]:
        """The script call of a batch; operations that cannot be written down are finished and taken out of it."""
        written: list[tuple[_Operation, bytes]] = []
        for operation in batch:
            plan = operation.plan
            assert plan is not None
            try:
                operation.value = pack_account(plan.account) if plan.account is not None else b""
                ended = pack_session(plan.ended) if plan.ended is not None else b""
            except (OverflowError, TypeError, ValueError) as error:
                refusal = StoreError(f"account {operation.line.account_id!r} cannot be written down: {error}")
                refusal.__cause__ = error
                self._finish(operation, refusal)
                continue
            written.append((operation, ended))
        batch[:] = [operation for operation, _ in written]
        count = len(batch)
        ended_keys: list[bytes] = []
        arguments: list[Any] = [count]
        extras: list[Any] = []
        for index, (operation, ended) in enumerate(written):
            plan = operation.plan
            assert plan is not None
            arguments.append(pack_version(plan.expected_version))
            arguments.append(operation.value)
            arguments.append(plan.journal)
            if plan.watch_ms >= 0:
                extras += (index, b"w", b"", plan.watch_ms, operation.line.account_id)
            if plan.outbox:
                extras += (index, b"o", b"", plan.outbox, b"")
            if plan.spent:
                ended_keys.append(lane.budgets)
                position = LANE_KEYS + count + len(ended_keys)
                for budget, amount in plan.spent.items():
                    extras += (index, b"b", position, amount, budget)
            if plan.transition:
                ended_keys.append(lane.transitions)
                extras += (index, b"t", LANE_KEYS + count + len(ended_keys), plan.transition, b"")
            if plan.amended is not None:
                ended_keys.append(self.keys.ended(operation.line.account_id, plan.amended.session_id))
                amended = pack_session(plan.amended)
                extras += (index, b"e", LANE_KEYS + count + len(ended_keys), amended, plan.amended_ttl_ms)
            if plan.mark:
                ended_keys.append(self.keys.ended(operation.line.account_id, plan.mark))
                position = LANE_KEYS + count + len(ended_keys)
                marker = pack_session(Session(plan.mark, b"", "", b"", 0, 0, 0))
                extras += (index, b"f", position, b"", b"", index, b"e", position, marker, plan.mark_ttl_ms)
            session_id = plan.first_of or (plan.ended.session_id if plan.ended is not None else b"")
            if session_id:
                ended_keys.append(self.keys.ended(operation.line.account_id, session_id))
                position = LANE_KEYS + count + len(ended_keys)
                if plan.first_of:
                    extras += (index, b"f", position, b"", b"")
                if ended and plan.ended_ttl_ms > 0:
                    extras += (index, b"e", position, ended, plan.ended_ttl_ms)
        return (
            b"EVALSHA",
            self._sha,
            LANE_KEYS + count + len(ended_keys),
            *lane.keys,
            *[operation.line.key for operation in batch],
            *ended_keys,
            *arguments,
            *extras,
        )

    def _session_directory(self, account_id: bytes, plan: Plan) -> None:
        """Note which account holds a session, for requests that name only the session.

        That of an ended session is kept for as long as its answers are.
        """
        if plan.opened:
            if len(self._sessions) >= SESSIONS_REMEMBERED:
                self._sessions.pop(next(iter(self._sessions)))  # the directory in Redis still knows it
            self._sessions[plan.opened] = account_id
            ttl = self.settings.session_directory_ttl_s
            self._note((b"SET", self.keys.session(plan.opened), account_id, b"EX", ttl))
        if plan.closed:
            self._sessions.pop(plan.closed, None)
            ttl_ms = max(1, plan.ended_ttl_ms)
            self._note((b"SET", self.keys.session(plan.closed), account_id, b"PX", ttl_ms))

    def _note(self, command: tuple[Any, ...]) -> None:
        """A write that only speeds things up: losing one costs a look-up."""
        route = self._nodes.route(command[1])
        if route is not None and not route.lost:
            route.send(command, _ignore)

    def _settled(self, lane: _Lane, generation: int, batch: list[_Operation], reply: Reply) -> None:
        if isinstance(reply, MovedError):
            for operation in batch:
                self._reread(operation)
            return
        if isinstance(reply, Exception):
            if str(reply).startswith("NOSCRIPT"):
                self._reload_script(batch)
                return
            error = self._failed(reply)
            for operation in batch:
                self._finish(operation, error)
            return
        if not reply:
            for operation in batch:
                self._written(operation)
            return
        refused: dict[int, tuple[int, bytes]] = {
            reply[at]: (reply[at + 1], reply[at + 2]) for at in range(0, len(reply), 3)
        }
        for index, operation in enumerate(batch):
            refusal = refused.get(index)
            if refusal is None:
                self._written(operation)
            elif generation == lane.generation:
                self._again(operation, *refusal)
            else:
                self._reread(operation)

    def _written(self, operation: _Operation) -> None:
        plan = operation.plan
        assert plan is not None
        if plan.account is not None:
            operation.line.value = operation.value
        if plan.opened or plan.closed:
            self._session_directory(operation.line.account_id, plan)
        if self.remembers_ended and plan.ended is not None:
            if len(self._ended) >= ENDED_REMEMBERED:
                self._ended.pop(next(iter(self._ended)))
            self._ended[plan.ended.session_id] = plan.ended.origin_host, plan.ended.answers
        self._finish(operation, plan)

    def _reread(self, operation: _Operation) -> None:
        """Nothing was written, and what was read is of a server that may have been replaced: begin anew."""
        operation.plan = None
        operation.attempts += 1
        if operation.attempts < MAX_ATTEMPTS:
            self._read(operation)
        else:
            self._finish(operation, StoreUnavailableError("the servers of the store change faster than they answer"))

    def _again(self, operation: _Operation, reason: int, value: bytes) -> None:
        """Decide once more: on a fresher snapshot, or knowing that the session has ended already."""
        operation.plan = None
        operation.attempts += 1
        if reason == 1 and operation.attempts < MAX_ATTEMPTS:
            self._decide_after(operation, value)
            return
        self.statistics.conflicts += 1
        if operation.attempts >= MAX_ATTEMPTS:
            operation.line.loaded = 0
            self._finish(operation, StoreError("the account changes faster than this operation can follow"))
        else:
            operation.line.value, operation.fresh = value, True
            self._decide(operation, None)

    def _reload_script(self, batch: list[_Operation]) -> None:
        """Redis was restarted or its script cache flushed: load the script and put the batch in front again."""
        lane = batch[0].line.lane
        if lane.route is None or lane.route.lost:
            for operation in batch:
                self._finish(operation, StoreUnavailableError("the store cannot be reached"))
            return
        lane.route.send((b"SCRIPT", b"LOAD", self._script), _ignore)
        again: list[_Operation] = []
        for operation in batch:
            operation.attempts += 1
            if operation.attempts < MAX_ATTEMPTS:
                again.append(operation)
            else:
                self._finish(operation, StoreError("Redis does not keep the commit script"))
        lane.queue = again + lane.queue
        self._flush()

    def _finish(self, operation: _Operation, result: Plan | StoreError) -> None:
        line = operation.line
        if isinstance(result, StoreError) and result.__cause__ is None:
            self.statistics.failures += 1
            line.loaded = 0
        if line.waiting:
            # In a tick of its own: an account with a long queue must not recurse.
            self._loop.call_soon(self._begin, line.waiting.popleft())
        else:
            line.busy = False
        try:
            operation.done(result)
        except Exception:  # one request's fault must not hold up the others of the batch
            log.exception("the result of an operation could not be handled")

    async def spent(self) -> dict[str, int]:
        """What of each budget is gone, by all that is written. Raises StoreError."""
        totals: dict[str, int] = {}
        for lane in self._lanes.values():
            found = await self.call("HGETALL", lane.budgets)
            for at in range(0, len(found), 2):
                name = found[at].decode("utf-8", "replace")
                totals[name] = totals.get(name, 0) + int(found[at + 1])
        return totals

    # -- directories ---------------------------------------------------------------------------------------------

    def find_subscriber(self, kind: int, value: bytes, now_ms: int, done: OnSubscriber) -> None:
        """The subscriber an identity belongs to, or None."""
        known = self._subscribers.get((kind, value))
        if known is not None and now_ms - known[1] < self.settings.directory_cache_ms:
            done(known[0])
            return
        key = self.keys.identity(kind, value)
        route = self._nodes.route(key)
        if route is None or route.lost:
            done(StoreUnavailableError("the store cannot be reached"))
            return

        def on_value(reply: Reply) -> None:
            if isinstance(reply, Exception):
                done(self._failed(reply))
            elif reply is None:
                self._subscribers.pop((kind, value), None)
                done(None)
            else:
                try:
                    subscriber = unpack_subscriber(reply)
                except Exception as error:  # whatever msgpack and the fields make of foreign octets
                    log.error("the record of identity %r cannot be read: %s", value, error)
                    done(StoreError(f"the record of an identity cannot be read: {error}"))
                    return
                if len(self._subscribers) >= self.settings.account_cache_entries:
                    self._subscribers.pop(next(iter(self._subscribers)))
                self._subscribers[(kind, value)] = (subscriber, now_ms)
                done(subscriber)

        self.statistics.reads += 1
        route.send((b"GET", key), on_value)

    def remembered_subscriber(self, kind: int, value: bytes) -> Subscriber | None:
        """What this worker last knew of an identity, however long ago; for when the store cannot be asked."""
        known = self._subscribers.get((kind, value))
        return None if known is None else known[0]

    def remembered_account(self, account_id: bytes) -> Account | None:
        """An account as this worker last knew it; for when the store cannot be asked."""
        line = self._lines.get(account_id)
        try:
            return None if line is None else line.account()
        except ValueError:
            return None

    def answers_of_ended(self, session_id: bytes) -> tuple[bytes, bytes]:
        """Whose a session was that this worker has seen end, and what it was answered (``balance.answers``).

        Both are empty if it does not know.
        """
        return self._ended.get(session_id, (b"", b""))

    def account_of_session(self, session_id: bytes) -> bytes | None:
        """The account that holds a session, as far as this worker knows."""
        return self._sessions.get(session_id)

    def find_session(self, session_id: bytes, done: OnAccountId) -> None:
        """The account that holds a session another worker opened, or None."""
        key = self.keys.session(session_id)
        route = self._nodes.route(key)
        if route is None or route.lost:
            done(StoreUnavailableError("the store cannot be reached"))
            return

        def on_value(reply: Reply) -> None:
            done(self._failed(reply) if isinstance(reply, Exception) else reply)

        self.statistics.reads += 1
        route.send((b"GET", key), on_value)

    # -- off the hot path ----------------------------------------------------------------------------------------

    async def call(self, *command: Any) -> Reply:
        """One command, to the server of its key. Raises StoreError."""
        try:
            return await self._nodes.call(*command)
        except NotPrimaryError:
            self._nodes.not_primary()
            raise

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

    def _failed(self, reply: Exception) -> StoreError:
        error = as_store_error(reply, "Redis refused: ")
        if isinstance(error, NotPrimaryError):
            self._nodes.not_primary()
        return error


@cache
def _digest(script: str) -> bytes:
    """What Redis knows a script by."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest().encode()


def _ignore(reply: Reply) -> None:
    """To what nobody waits for."""
