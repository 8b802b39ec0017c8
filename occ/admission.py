"""Who is served when there is more to do than can be done: in-flight bound, queue-delay bound, order of refusal.

A request is begun as it is read, for as long as the loop keeps up. Beyond that requests wait here, not in the sockets
and not in the store, because only here is it known for how long, and who should go first:

- updates, terminations: what belongs to running sessions, in the order it came. Updates are refused only when they
  have waited ``UPDATES_WAIT`` times as long as first requests may, terminations only when memory demands it: what was
  used must be paid for.
- first requests (initial ones and events), when nothing of running sessions waits. The oldest are refused first: their
  clients are the nearest to giving up.

How long a first request may wait depends on how long there has been a queue at all: a burst may take its time, a queue
that stays is kept short (the controlled delay of Nichols and Jacobson, RFC 8289, in a simple form).

What is begun must not wait in the store instead. While there is a queue here, no more is under way in the store than
it answers in the time of two commits, by Little's law: rate of answers times delay; that time is taken as an eighth of
the bound at least, and a fourth at most. And while the oldest commit is above the bound, as when a disk hangs, no first
request is begun.

The loop works in slices: after ``SLICE_S`` of charging it reads its sockets again, so that what waits in the kernel
waits no longer than that. However much is sent, charging gets at least as much time as reading and refusing.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Generic, Protocol, TypeVar

from occ.codes import TERMINATION, UPDATE

SLICE_S: Final = 0.01
"""Requests are begun for so long, then the sockets are read again ..."""
LONGEST_SLICE_S: Final = 0.05
"""... or for as long as that took, up to this."""
TICK_S: Final = 0.01
"""Between two looks at what waits while nothing can be begun."""
LASTING: Final = 8
"""In a queue that lasts, first requests wait for a part of the bound: one in so many."""
IN_STORE: Final = (8, 4)
"""A request should be in the store for one in so many parts of the bound, at least and at most."""
UPDATES_WAIT: Final = 5
UPDATES_ROOM: Final = 2
TERMINATIONS_ROOM: Final = 4
"""How many times the in-flight bound may be under way when updates, and terminations, are refused as well."""
LEAST_BEGUN: Final = 128
"""So many may be begun and not answered however slow the store is: it writes them to disk at once."""
MEASURED_S: Final = 0.05
"""Answers are counted for so long to know the rate of the store."""
HELD_OCTETS: Final = 64 << 20
"""Octets of requests that wait, above which as many count as under way as may be."""

BEAT_S: Final = 0.1
BEATS_KEPT: Final = 100
"""Beats whose greatest delay is told: those of ten seconds."""

TOO_MANY: Final = "in_flight"
TOO_LATE: Final = "delay"
TOO_OFTEN: Final = "rate"
"""Why a request was turned away."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    in_flight: int
    """Requests accepted and not yet answered."""
    queue_delay_s: float
    """How long a first request may wait to be begun."""


class UnderWay(Protocol):
    in_flight: int
    """Requests accepted and not yet answered, waiting or begun."""


class Backend(Protocol):
    """Where requests are begun, as much of it as admission must know; ``balance.store.Store`` is one."""

    @property
    def capacity(self) -> int:
        """So many requests keep it busy; more would only wait in it."""

    def delay(self, now: float) -> float:
        """How long the oldest of what is under way has been so, in seconds; ``now`` as ``perf_counter`` has it."""

    def recent_commit(self) -> float:
        """How long it took on average, in seconds, to write something, since this was last asked; 0: nothing was."""


Begin = Callable[[P, bytes, float], None]
"""Begins a request: where it came from, its octets, when it was read."""
Refuse = Callable[[P, bytes, int, str], None]
"""Turns one away: where it came from, its octets, its CC-Request-Type as far as it is known, and why."""

_Held = tuple[float, int, P, bytes]
"""When it was read, CC-Request-Type, where from, octets."""


class Admission(Generic[P]):
    """The requests of one worker between socket and charging. All of it runs in one event loop.

    ``kind_of`` tells the CC-Request-Type of a request that nobody has read, 0 if it cannot. ``clock`` is in seconds;
    ``loop_clock`` gives another number whenever the loop has read its sockets again (None: the loop's own).
    """

    __slots__ = (
        "_answered",
        "_backend",
        "_beats",
        "_begin",
        "_clock",
        "_first",
        "_kind_of",
        "_limits",
        "_loop",
        "_loop_clock",
        "_measured_at",
        "_most_begun",
        "_octets",
        "_refuse",
        "_running",
        "_slice_of",
        "_tick",
        "_turn_due",
        "_turned",
        "_under_way",
        "_waiting_since",
        "at_once",
        "loop_delay_s",
        "until",
        "waiting",
    )

    def __init__(
        self,
        limits: AdmissionLimits,
        under_way: UnderWay,
        backend: Backend,
        kind_of: Callable[[bytes], int],
        begin: Begin[P],
        refuse: Refuse[P],
        clock: Callable[[], float] = perf_counter,
        loop_clock: Callable[[], float] | None = None,
    ) -> None:
        self._limits = limits
        self._under_way = under_way
        self._backend = backend
        self._kind_of = kind_of
        self._begin = begin
        self._refuse = refuse
        self._clock = clock
        self._loop_clock = loop_clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: deque[_Held[P]] = deque()
        self._first: deque[_Held[P]] = deque()
        self._octets = 0
        self._turn_due = False
        self._turned = 0.0
        self._slice_of = -1.0
        self._tick: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0
        self._beats: deque[float] = deque(maxlen=BEATS_KEPT)
        self._answered = 0
        self._measured_at = 0.0
        self._most_begun = min(limits.in_flight, backend.capacity)
        self.at_once = min(self._most_begun, 2 * LEAST_BEGUN)
        """With fewer begun and not answered, and before ``until``, a request need not be brought here."""
        self.until = 0.0
        """End of the slice, by ``perf_counter``; 0: something waits, or has waited."""
        self.waiting = 0
        self.loop_delay_s = 0.0
        """How late the loop was at the last beat."""

    def take(self, peer: P, message: bytes, now: float) -> None:
        """Begin a request at once, have it wait, or turn it or an older one away."""
        if not self.waiting:
            polled_at = self._polled_at()
            if polled_at != self._slice_of:
                self._slice_of = polled_at
                self._turned = now
                self.until = now + SLICE_S
            if now < self.until and self._under_way.in_flight < self.at_once:
                self._begin(peer, message, now)
                return
        self._hold(peer, message, now)

    def answered(self) -> None:
        """A request that was begun is answered; to be called while ``waiting``: there may be room for another."""
        self._answered += 1
        if not self._turn_due:
            self._turn_soon()

    def _polled_at(self) -> float:
        """Another number whenever the loop has read its sockets again: uvloop looks at the clock once in a turn.

        Under a loop that looks more often all requests are begun as they are read, while there is room.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time() if self._loop_clock is None else self._loop_clock()

    def _turn_soon(self) -> None:
        assert self._loop is not None
        self._turn_due = True
        self._loop.call_soon(self._turn)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _hold(self, peer: P, message: bytes, now: float) -> None:
        kind = self._kind_of(message)
        is_running = kind == UPDATE or kind == TERMINATION
        if self._under_way.in_flight >= self._limits.in_flight or self._octets > HELD_OCTETS:
            if self._first:
                self._refuse_oldest(TOO_MANY)
            elif not is_running or self._is_beyond(UPDATES_ROOM if kind == UPDATE else TERMINATIONS_ROOM):
                self._refuse(peer, message, kind, TOO_MANY)
                return
        if not self.waiting:
            self._waiting_since = self._measured_at = now
            self._answered = 0
            if not self._turn_due:
                self._turn_soon()
        self.until = 0.0
        self.waiting += 1
        self._under_way.in_flight += 1
        self._octets += len(message)
        (self._running if is_running else self._first).append((now, kind, peer, message))

    def _is_beyond(self, times: int) -> bool:
        """Whether even requests of running sessions are too many."""
        return self._under_way.in_flight >= times * self._limits.in_flight or self._octets > times * HELD_OCTETS

    def _let_go(self, held: _Held[P]) -> None:
        self.waiting -= 1
        self._under_way.in_flight -= 1
        self._octets -= len(held[3])

    def _refuse_oldest(self, reason: str) -> None:
        held = self._first.popleft()
        self._let_go(held)
        _, kind, peer, message = held
        self._refuse(peer, message, kind, reason)

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Between two readings of the sockets: turn away what has waited too long, begin what there is room for."""
        self._turn_due = False
        self.until = 0.0
        if not self.waiting:
            return
        out_of_time = False
        try:
            out_of_time = self._begin_what_may()
        finally:  # also if a request is at fault: those behind it have no other clock
            self._turned = self._clock()
            if self.waiting and not self._turn_due:
                if out_of_time:
                    self._turn_soon()
                elif self._tick is None:
                    assert self._loop is not None
                    self._tick = self._loop.call_later(TICK_S, self._look_again)

    def _begin_what_may(self) -> bool:
        """True: time ran out before."""
        now = self._clock()
        self._refuse_overdue(now)
        if now - self._measured_at >= MEASURED_S:
            self._set_room(now)
        until = now + min(max(SLICE_S, now - self._turned), LONGEST_SLICE_S)
        out_of_time = self._begin_all(self._running, until)
        if not out_of_time and not self._running and self._keeps_up(now):
            out_of_time = self._begin_all(self._first, until)
        return out_of_time

    def _look_again(self) -> None:
        self._tick = None
        if self.waiting and not self._turn_due:
            self._turn()

    def _begin_all(self, queue: deque[_Held[P]], until: float) -> bool:
        """Begin requests while there is room; True: time ran out before."""
        under_way = self._under_way
        while queue and under_way.in_flight - self.waiting < self.at_once:
            held = queue.popleft()
            self._let_go(held)
            read_at, _, peer, message = held
            self._begin(peer, message, read_at)
            if self._clock() >= until:
                return bool(queue) or self.waiting > 0
        return False

    def _set_room(self, now: float) -> None:
        """As many begun as are answered in good time; twice or half as many as before, in one step."""
        rate = self._answered / (now - self._measured_at)
        self._answered = 0
        self._measured_at = now
        least_s, most_s = (self._limits.queue_delay_s / parts for parts in IN_STORE)
        wanted = int(rate * min(max(least_s, 2 * self._backend.recent_commit()), most_s))
        wanted = max(self.at_once // 2, min(wanted, self.at_once * 2))
        self.at_once = min(max(wanted, LEAST_BEGUN), self._most_begun)

    def _keeps_up(self, now: float) -> bool:
        return self._backend.delay(now) <= self._limits.queue_delay_s

    def _refuse_overdue(self, now: float) -> None:
        bound = self._limits.queue_delay_s
        lasts = now - self._waiting_since > bound or self.loop_delay_s > bound
        # However short the bound: what was read since the last turn has had no chance to be begun yet.
        patience = max(bound / LASTING, 3 * (now - self._turned)) if lasts else bound
        first = self._first
        while first and now - first[0][0] > patience:
            self._refuse_oldest(TOO_LATE)
        if self._running and now - self._running[0][0] > UPDATES_WAIT * bound:
            self._refuse_overdue_updates(now - UPDATES_WAIT * bound)

    def _refuse_overdue_updates(self, read_before: float) -> None:
        kept: deque[_Held[P]] = deque()
        overdue: list[_Held[P]] = []
        for held in self._running:
            (overdue if held[0] < read_before and held[1] == UPDATE else kept).append(held)
        self._running = kept
        for held in overdue:
            self._let_go(held)
            _, kind, peer, message = held
            self._refuse(peer, message, kind, TOO_LATE)

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Know how late the loop is, for ever: what blocks it keeps requests waiting in the sockets, unseen."""
        while True:
            due = perf_counter() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.loop_delay_s = max(0.0, perf_counter() - due)
            self._beats.append(self.loop_delay_s)

    @property
    def worst_loop_delay_s(self) -> float:
        """How late the loop was at most in the last ten seconds."""
        return max(self._beats, default=0.0)

    def oldest_s(self, now: float) -> float:
        """How long the request that has waited longest has done so."""
        return now - min((queue[0][0] for queue in (self._running, self._first) if queue), default=now)
