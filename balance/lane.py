"""What is under way for the accounts of one lane: read, decide, write all or nothing, in one round trip where possible.

The operations of one account run one after the other, on a snapshot that is kept. What one loop tick decided becomes
one script call, and a step is called again with the fresh snapshot when another worker was faster (optimistic
concurrency on the account's version).

Whoever waits for a reply is an object with a method, not a function within a function: once compiled, the latter would
leave a cycle of references behind for every request, and the garbage collector does not run while requests are served.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

from balance.accounts import Account, Session
from balance.commits import CommitCall
from balance.keys import Keys
from balance.look_ups import Sessions, failure, ignore, unreachable
from balance.nodes import MovedError, Nodes, Route
from balance.plans import Lookup, Observe, Plan, Step
from balance.records import pack_account, unpack_account, unpack_session
from balance.resp import Command, OnReply, Reply, StoreError, StoreUnavailableError
from balance.store_statistics import StoreStatistics

log = logging.getLogger("balance.store")

ABSENT: Final = Session(b"", b"", "", b"", 0, 0, 0)
"""Passed to a step that asked for an ended session when there is none."""

MAX_ATTEMPTS: Final = 64
"""Version conflicts in a row after which an operation is given up."""

PLANS_AT_ONCE: Final = 32
"""So many plans go to Redis at once, even while the loop tick that decided them goes on: Redis need not wait."""

GATHERED: Final = 12
"""So many plans are worth a commit of their own while requests come in quick succession ..."""
GATHER_S: Final = 0.001
"""... and fewer wait so long for more: each commit costs Redis, the disk and the loop a fixed effort."""
BUSY: Final = 4
"""Plans that a commit has had on average when requests are said to come in quick succession."""

MAX_PLANS: Final = 256
"""Plans in one script call; keeps the script short, so that nothing else waits for it long."""


OnPlan = Callable[["Plan | StoreError"], None]


class Shared:
    """What the lanes of one store have in common."""

    __slots__ = (
        "commits_in_flight", "keys", "loop", "nodes", "observe", "replicas", "script", "sessions", "sha", "statistics",
        "wait_ms",
    )  # fmt: skip

    def __init__(
        self,
        keys: Keys,
        nodes: Nodes,
        sessions: Sessions,
        statistics: StoreStatistics,
        script: str,
        commits_in_flight: int,
        replicas: int,
        wait_ms: int,
    ) -> None:
        self.keys = keys
        self.nodes = nodes
        self.sessions = sessions
        self.statistics = statistics
        self.script = script
        self.sha = b""
        """What Redis knows the script by."""
        self.commits_in_flight = commits_in_flight
        """Script calls of a lane that may be under way at most, see ``Lane.flush``."""
        self.replicas = replicas
        """So many have what was written before anybody is told of it."""
        self.wait_ms = wait_ms
        self.observe: Observe | None = None
        self.loop: asyncio.AbstractEventLoop | None = None


class Line:
    """Everything under way for one account: operations run one at a time, in the order they came.

    The snapshot is kept as it is stored: a hundred thousand small byte strings are read faster, and take a quarter of
    the memory, than as many trees of objects that lie all over it.
    """

    __slots__ = ("account_id", "busy", "key", "lane", "loaded", "value", "waiting")

    def __init__(self, account_id: bytes, key: bytes, lane: "Lane") -> None:
        self.account_id = account_id
        self.key = key
        self.lane = lane
        self.value = b""
        """The account as stored; empty: there is none."""
        self.loaded = 0
        """The lane's generation that ``value`` was read in; 0: it is to be read."""
        self.busy = False
        self.waiting: deque[Operation] | None = None

    def account(self) -> Account | None:
        """The snapshot. Raises ValueError for a value that is not one."""
        return unpack_account(self.account_id, self.value) if self.value else None

    def run(self, step: Step, done: OnPlan, with_account: bool = True) -> None:
        """Run a step when it is its turn, see ``Snapshots.transact``."""
        operation = Operation(self, step, done, with_account)
        if self.busy:
            if self.waiting is None:
                self.waiting = deque()
            self.waiting.append(operation)
        else:
            self.busy = True
            self.lane.begin(operation)


class Operation:
    """One step on one account, until its plan is written."""

    __slots__ = (
        "attempts", "done", "fresh", "generation", "line", "plan", "session_id", "step", "value", "with_account",
    )  # fmt: skip

    def __init__(self, line: Line, step: Step, done: OnPlan, with_account: bool) -> None:
        self.line = line
        self.step = step
        self.done = done
        self.with_account = with_account
        self.plan: Plan | None = None
        self.value = b""
        """The account of ``plan``, packed; empty: the plan leaves it as it is."""
        self.attempts = 0
        self.fresh = False
        """The snapshot was read after the operation began; one kept from before may have been overtaken."""
        self.generation = 0
        """The lane's when the store was asked."""
        self.session_id = b""
        """The ended session that was asked for."""

    def on_account(self, reply: Reply) -> None:
        line = self.line
        lane = line.lane
        if isinstance(reply, Exception):
            lane.finish(self, failure(lane.shared.nodes, reply))
        elif self.generation != lane.generation:
            lane.read(self)
        else:
            line.value, line.loaded, self.fresh = reply or b"", self.generation, True
            lane.decide(self, None)

    def on_account_and_session(self, reply: Reply) -> None:
        line = self.line
        lane = line.lane
        if isinstance(reply, Exception):
            lane.finish(self, failure(lane.shared.nodes, reply))
            return
        if self.generation != lane.generation:
            lane.look_up(self)
            return
        account, ended = reply
        line.value, line.loaded, self.fresh = account or b"", self.generation, True
        if ended:
            lane.decide_after(self, ended)
        else:
            lane.decide(self, ABSENT)

    def on_confirmed(self, reply: Reply) -> None:
        lane = self.line.lane
        plan = self.plan
        assert plan is not None
        lane.finish(self, failure(lane.shared.nodes, reply) if isinstance(reply, Exception) else plan)


class Commit:
    """One script call under way."""

    __slots__ = ("generation", "lane", "operations", "started")

    def __init__(self, lane: "Lane", operations: list[Operation], started: float) -> None:
        self.lane = lane
        self.operations = operations
        self.generation = lane.generation
        self.started = started

    def on_reply(self, reply: Reply) -> None:
        lane = self.lane
        lane.in_flight -= 1
        lane.begun.popleft()
        lane.shared.statistics.round_trip(perf_counter() - self.started)
        lane.settled(self, reply)
        if lane.queue:
            lane.flush_or_gather()


class Lane:
    """What one commit script call serves, see ``balance.keys``."""

    __slots__ = (
        "_flush_due", "_gathering", "_overtaken", "_recent", "begun", "budgets", "generation", "in_flight", "keys",
        "mark", "queue", "route", "shared", "transitions",
    )  # fmt: skip

    def __init__(self, shared: Shared, keys: Keys, lane: int) -> None:
        self.shared = shared
        self.keys = (keys.journal(lane), keys.watch(lane), keys.outbox(lane))
        self.mark = keys.mark(lane)
        self.budgets = keys.budgets(lane)
        self.transitions = keys.transitions(lane)
        self.route: Route | None = None
        self.generation = 1
        """Raised whenever what was read before may not be so any more: another server took over, or may have."""
        self.queue: list[Operation] = []
        """Decided, not sent."""
        self.in_flight = 0
        self.begun: deque[float] = deque()
        """When the script calls that are under way were sent, the oldest first."""
        self._flush_due = False
        self._gathering = False
        """A timer is going to flush."""
        self._overtaken = False
        """The queue has an operation that another worker was faster than."""
        self._recent = 0.0
        """Plans that commits have had lately, on average."""

    def forget(self) -> None:
        """What was read is read again, and decided on again if it was not sent."""
        self.generation += 1
        queue, self.queue = self.queue, []
        for operation in queue:
            operation.plan = None
            self.read(operation)

    # -- read and decide -----------------------------------------------------------------------------------------

    def begin(self, operation: Operation) -> None:
        """Decide on the snapshot that is kept, if there is one."""
        if operation.line.loaded == self.generation:
            self.decide(operation, None)
        else:
            self.read(operation)

    def read(self, operation: Operation) -> None:
        """Decide on the account as the store has it now."""
        self._ask(operation, (b"GET", operation.line.key), operation.on_account)

    def look_up(self, operation: Operation) -> None:
        """Decide knowing of an ended session, and on the account beside it: another worker may have it open."""
        line = operation.line
        key = self.shared.keys.ended(line.account_id, operation.session_id)
        self._ask(operation, (b"MGET", line.key, key), operation.on_account_and_session)

    def _ask(self, operation: Operation, command: Command, on_reply: OnReply) -> None:
        route = self.route
        if route is None or route.lost:
            self.finish(operation, unreachable())
            return
        operation.generation = self.generation
        self.shared.statistics.reads += 1
        route.send(command, on_reply)

    def decide_after(self, operation: Operation, value: bytes) -> None:
        """Decide knowing of an ended session; one that cannot be read costs this operation, not those behind it."""
        try:
            ended = unpack_session(value)
        except Exception as error:  # whatever msgpack and the fields make of foreign octets
            account_id = operation.line.account_id
            self.finish(operation, StoreError(f"an ended session of account {account_id!r} cannot be read: {error}"))
            return
        self.decide(operation, ended)

    def decide(self, operation: Operation, ended: Session | None) -> None:
        """Call the step, and queue what it plans."""
        try:
            account = operation.line.account()
        except ValueError as error:
            self.finish(operation, StoreError(str(error)))
            return
        observe = self.shared.observe
        try:
            plan = operation.step(account, ended)
            if observe is not None and isinstance(plan, Plan) and plan.account is not None:
                observe(plan)
        except Exception as error:
            self.finish(operation, _refusal(str(error), error))
            return
        if isinstance(plan, Lookup):
            operation.session_id = plan.session_id
            self.look_up(operation)
        elif plan.account is None and plan.ended is None:
            self._nothing_to_write(operation, plan)
        else:
            operation.plan = plan
            try:
                operation.value = b"" if plan.account is None else pack_account(plan.account)
            except Exception as error:
                self._cannot_be_written(operation, error)
                return
            if not operation.with_account:
                # While its memory is at hand: the next account goes there, instead of where nothing has been for long.
                plan.account = plan.before = None
            queue = self.queue
            queue.append(operation)
            if len(queue) >= PLANS_AT_ONCE:
                self.flush()
            elif not self.in_flight and not self._flush_due:
                self._flush_due = True
                loop = self.shared.loop
                assert loop is not None
                loop.call_soon(self._on_tick)

    def _nothing_to_write(self, operation: Operation, plan: Plan) -> None:
        if plan.replayed and plan.opened:
            self.shared.sessions.note_again(operation.line.account_id, plan.opened)
        if not operation.fresh and not plan.replayed:
            # No script compares the version of a plan that writes nothing. What another worker has done since may be
            # just what is missing here; only an answer that is known stays what it was.
            self.read(operation)
        elif plan.replayed and self.shared.replicas:
            self._confirm(operation, plan)
        else:
            self.finish(operation, plan)

    def _confirm(self, operation: Operation, plan: Plan) -> None:
        """Let an answer that was found leave when the replicas have it: whoever wrote it may not have seen that."""
        route = self.route
        if route is None or route.lost:
            self.finish(operation, unreachable())
            return
        operation.plan = plan
        # A write of our own: what WAIT waits for is the last one of a connection, and all before that.
        shared = self.shared
        route.send_replicated((b"SET", self.mark, b""), shared.replicas, shared.wait_ms, operation.on_confirmed)

    # -- write ---------------------------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        self._flush_due = False
        self.flush_or_gather()

    def flush_or_gather(self) -> None:
        """Send what waits, unless it is worth while to wait for more.

        What was overtaken goes at once: whoever waits while the other does not is overtaken again.
        """
        if self._overtaken or self._recent < BUSY or len(self.queue) >= GATHERED:
            self.flush()
        elif not self._gathering:
            self._gathering = True
            loop = self.shared.loop
            assert loop is not None
            loop.call_later(GATHER_S, self._on_gathered)

    def _on_gathered(self) -> None:
        self._gathering = False
        if self.queue:
            self.flush()

    def flush(self) -> None:
        """Send what waits, if it may go: a small commit only when none is under way, a large one beside others.

        So at low load the plans that come while Redis writes to disk share the next write, and at high load Redis
        works on one commit while the next ones are being decided.
        """
        while self.queue and (not self.in_flight or self._overtaken or len(self.queue) >= PLANS_AT_ONCE):
            if self.in_flight >= self.shared.commits_in_flight:
                break
            self._overtaken = False
            batch = self.queue[:MAX_PLANS]
            self.queue = self.queue[MAX_PLANS:]
            self._send(batch)
        if self.route is not None:
            self.route.flush()

    def _send(self, batch: list[Operation]) -> None:
        route = self.route
        if route is None or route.lost:
            for operation in batch:
                self.finish(operation, unreachable())
            return
        call = CommitCall(self.shared.keys)
        written = self._add_all(call, batch)
        if not written:
            return
        shared = self.shared
        try:
            command = call.encoded(shared.sha, self.keys, self.budgets, self.transitions)
        except Exception as error:
            for operation in written:
                self._cannot_be_written(operation, error)
            return
        started = perf_counter()
        commit = Commit(self, written, started)
        self.in_flight += 1
        self.begun.append(started)
        shared.statistics.commits += 1
        shared.statistics.plans += len(written)
        self._recent += (len(written) - self._recent) * 0.1
        if shared.replicas:
            route.send_replicated(command, shared.replicas, shared.wait_ms, commit.on_reply)
        else:
            route.send_decided(command, commit.on_reply)

    def _add_all(self, call: CommitCall, batch: list[Operation]) -> list[Operation]:
        """Those of a batch that can be written down; the others are finished."""
        written: list[Operation] = []
        for operation in batch:
            line, plan = operation.line, operation.plan
            assert plan is not None
            try:
                call.add(line.account_id, line.key, plan, operation.value)
            except Exception as error:
                self._cannot_be_written(operation, error)
                continue
            written.append(operation)
        return written

    def _cannot_be_written(self, operation: Operation, error: Exception) -> None:
        """Whatever it is, it is this operation's own, and must not hold up the others of the batch."""
        account_id = operation.line.account_id
        self.finish(operation, _refusal(f"account {account_id!r} cannot be written down: {error}", error))

    # -- settle --------------------------------------------------------------------------------------------------

    def settled(self, commit: Commit, reply: Reply) -> None:
        """What became of a script call."""
        batch = commit.operations
        if isinstance(reply, MovedError):
            for operation in batch:
                self._reread(operation)
            return
        if isinstance(reply, Exception):
            if str(reply).startswith("NOSCRIPT"):
                self._reload_script(batch)
                return
            error = failure(self.shared.nodes, reply)
            for operation in batch:
                self.finish(operation, error)
            return
        if not reply:
            batch.reverse()
            while batch:
                # Each goes when it is answered, for the same reason that accounts go when they are decided.
                self._written(batch.pop())
            return
        refused: dict[int, tuple[int, bytes]] = {
            reply[at]: (reply[at + 1], reply[at + 2]) for at in range(0, len(reply), 3)
        }
        for index, operation in enumerate(batch):
            refusal = refused.get(index)
            if refusal is None:
                self._written(operation)
            elif commit.generation == self.generation:
                self._again(operation, refusal[0], refusal[1])
            else:
                self._reread(operation)

    def _written(self, operation: Operation) -> None:
        plan = operation.plan
        assert plan is not None
        if operation.value:
            operation.line.value = operation.value
        sessions = self.shared.sessions
        if plan.opened or plan.closed:
            sessions.note(operation.line.account_id, plan)
        if plan.ended is not None:
            sessions.remember_ended(plan)
        self.finish(operation, plan)

    def _reread(self, operation: Operation) -> None:
        """Nothing was written, and what was read is of a server that may have been replaced: begin anew."""
        operation.plan = None
        operation.attempts += 1
        if operation.attempts < MAX_ATTEMPTS:
            self.read(operation)
        else:
            self.finish(operation, StoreUnavailableError("the servers of the store change faster than they answer"))

    def _again(self, operation: Operation, reason: int, value: bytes) -> None:
        """Decide once more: on a fresher snapshot, or knowing that the session has ended already."""
        operation.plan = None
        operation.attempts += 1
        if reason == 1 and operation.attempts < MAX_ATTEMPTS:
            self.decide_after(operation, value)
            return
        self.shared.statistics.conflicts += 1
        if operation.attempts >= MAX_ATTEMPTS:
            operation.line.loaded = 0
            self.finish(operation, StoreError("the account changes faster than this operation can follow"))
        else:
            operation.line.value, operation.fresh = value, True
            self._overtaken = True
            self.decide(operation, None)

    def _reload_script(self, batch: list[Operation]) -> None:
        """Redis was restarted or its script cache flushed: load the script and put the batch in front again."""
        route = self.route
        if route is None or route.lost:
            for operation in batch:
                self.finish(operation, unreachable())
            return
        route.send((b"SCRIPT", b"LOAD", self.shared.script), ignore)
        again: list[Operation] = []
        for operation in batch:
            operation.attempts += 1
            if operation.attempts < MAX_ATTEMPTS:
                again.append(operation)
            else:
                self.finish(operation, StoreError("Redis does not keep the commit script"))
        self.queue = again + self.queue
        self.flush()

    def finish(self, operation: Operation, result: Plan | StoreError) -> None:
        """Tell what came of an operation, and let the next one of its account begin."""
        line = operation.line
        if isinstance(result, StoreError) and result.__cause__ is None:
            self.shared.statistics.failures += 1
            line.loaded = 0
        if line.waiting:
            # In a tick of its own: an account with a long queue must not recurse.
            loop = self.shared.loop
            assert loop is not None
            loop.call_soon(self.begin, line.waiting.popleft())
        else:
            line.busy = False
        try:
            operation.done(result)
        except Exception:  # one request's fault must not hold up the others of the batch
            log.exception("the result of an operation could not be handled")


def _refusal(why: str, cause: Exception) -> StoreError:
    """An error that is the operation's own, not the store's."""
    refusal = StoreError(why)
    refusal.__cause__ = cause
    return refusal
