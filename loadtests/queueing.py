"""What several workers and Redis shards come to on as many cores, from what one of each was measured to take.

A simulation of a closed network, event by event: clients ask, a worker decides, the plans of its requests gather and
go to the shard of their account as the product sends them, the shard writes them and waits for the disk, the worker
answers, the client asks again. No randomness but the choice of the shard, from a seed.

Assumed: every worker and every shard has a core to itself, and a disk that synchronises as fast for all; accounts are
spread evenly over the shards; time is what CPU time is; each cost is that of one request and one commit. What sharing a
store costs a worker was measured with two workers (``Costs.sharing``); with more it rises with the share of accounts
that another worker has changed last, one less their number's inverse. Not in it: networks between machines, memory and
caches that cores share beyond what was measured, hot accounts, the outbox.
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

GATHERED: Final = 32
"""Plans that go at once though a commit is under way (``balance.store``)."""
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of one core."""

    request_us: float
    """Of the worker, for each request, but for ..."""
    send_us: float
    """... what it takes to send a commit and read its reply, whatever it holds."""
    plan_us: float
    """Of Redis, for each plan of a commit, but for ..."""
    commit_us: float
    """... what each commit takes."""
    sync_us: float
    """Until the disk has it; commits that wait for Redis together are synchronised together."""
    sharing: float = 1.0
    """How much more a request takes of a worker where two use the same store."""


def fitted(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(per request, per commit) of costs per request measured at several depths, (requests per commit, cost): least
    squares of ``cost = request + commit / depth``; neither below zero."""
    inverse = [1 / depth for depth, _ in points]
    costs = [cost for _, cost in points]
    mean_x, mean_y = sum(inverse) / len(points), sum(costs) / len(points)
    spread = sum((x - mean_x) ** 2 for x in inverse)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(inverse, costs, strict=True)) / spread if spread else 0.0
    slope = min(max(0.0, slope), *(cost / x for cost, x in zip(costs, inverse, strict=True)))
    return mean_y - slope * mean_x, slope


@dataclass(frozen=True, slots=True)
class Outcome:
    """What so many workers and shards answer."""

    workers: int
    shards: int
    rate: float
    """Requests per second."""
    depth: float
    """Requests per commit."""
    worker_busy: float
    shard_busy: float
    """CPU alone, without the wait for the disk."""


@dataclass(slots=True)
class _Worker:
    waiting: list[int]
    """Plans that gather for each shard."""
    under_way: list[int]
    """Commits sent to each shard and not replied to."""
    tasks: deque[tuple[str, int, int]] = field(default_factory=deque)
    """(what, shard, how many), to be worked on in turn."""
    is_busy: bool = False
    busy_us: float = 0.0


@dataclass(slots=True)
class _Shard:
    queue: list[tuple[int, int]] = field(default_factory=list)
    """(worker, plans) of commits."""
    is_busy: bool = False
    busy_us: float = 0.0


class _Network:
    def __init__(self, costs: Costs, workers: int, shards: int, clients: int) -> None:
        sharing = 1.0 + 2.0 * (costs.sharing - 1.0) * (1.0 - 1.0 / workers)
        self.decide_us, self.answer_us = 0.6 * costs.request_us * sharing, 0.4 * costs.request_us * sharing
        self.costs = costs
        self.workers = [_Worker([0] * shards, [0] * shards) for _ in range(workers)]
        self.shards = [_Shard() for _ in range(shards)]
        self.random = random.Random(SEED)
        self.events: list[tuple[float, int, Any]] = []
        self.numbers = count()
        self.now = 0.0
        self.answered = self.commits = 0
        for worker in range(workers):
            for _ in range(clients):
                self._ask(worker)

    def _at(self, after_us: float, what: Any) -> None:
        heapq.heappush(self.events, (self.now + after_us, next(self.numbers), what))

    def run(self, requests: int) -> None:
        """Until so many more are answered."""
        until = self.answered + requests
        while self.answered < until:
            self.now, _, what = heapq.heappop(self.events)
            what()

    def _ask(self, number: int) -> None:
        self.workers[number].tasks.append(("decide", self.random.randrange(len(self.shards)), 1))
        self._work(number)

    def _work(self, number: int) -> None:
        """The next task of a worker, if it has nothing in hand."""
        worker = self.workers[number]
        if worker.is_busy or not worker.tasks:
            return
        what, shard, plans = worker.tasks.popleft()
        took = {"decide": self.decide_us, "send": self.costs.send_us, "answer": self.answer_us * plans}[what]
        worker.is_busy = True
        worker.busy_us += took
        self._at(took, lambda: self._done(number, what, shard, plans))

    def _done(self, number: int, what: str, shard: int, plans: int) -> None:
        worker = self.workers[number]
        worker.is_busy = False
        if what == "decide":
            worker.waiting[shard] += 1
            self._gather(number, shard)
        elif what == "send":
            self.shards[shard].queue.append((number, plans))
            self._write(shard)
        else:
            self.answered += plans
            for _ in range(plans):
                self._ask(number)
            self._gather(number, shard)
        self._work(number)

    def _gather(self, number: int, shard: int) -> None:
        """Send what has gathered, where the product does: alone, or when there is much of it."""
        worker = self.workers[number]
        plans = worker.waiting[shard]
        if plans and (not worker.under_way[shard] or plans >= GATHERED):
            worker.waiting[shard] = 0
            worker.under_way[shard] += 1
            self.commits += 1
            worker.tasks.append(("send", shard, plans))
            self._work(number)

    def _write(self, number: int) -> None:
        shard = self.shards[number]
        if shard.is_busy or not shard.queue:
            return
        taken, shard.queue = shard.queue, []
        took = sum(self.costs.commit_us + plans * self.costs.plan_us for _, plans in taken)
        shard.is_busy = True
        shard.busy_us += took
        self._at(took + self.costs.sync_us, lambda: self._written(number, taken))

    def _written(self, number: int, taken: list[tuple[int, int]]) -> None:
        shard = self.shards[number]
        shard.is_busy = False
        for worker, plans in taken:
            self.workers[worker].under_way[number] -= 1
            self.workers[worker].tasks.append(("answer", number, plans))
            self._work(worker)
        self._write(number)


def simulate(costs: Costs, workers: int, shards: int, clients: int = 1024, requests: int = 20_000) -> Outcome:
    """What they answer with so many requests under way at each worker all the time."""
    network = _Network(costs, workers, shards, clients)
    network.run(requests // 4)
    began, answered, commits = network.now, network.answered, network.commits
    busy = [each.busy_us for each in network.workers], [each.busy_us for each in network.shards]
    network.run(requests)
    took_us = network.now - began
    return Outcome(
        workers,
        shards,
        (network.answered - answered) / took_us * 1e6,
        (network.answered - answered) / max(1, network.commits - commits),
        (sum(each.busy_us for each in network.workers) - sum(busy[0])) / took_us / workers,
        (sum(each.busy_us for each in network.shards) - sum(busy[1])) / took_us / shards,
    )
