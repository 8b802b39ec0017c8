"""A load generator whose sessions arrive by the clock, whatever is answered: clients of a server that is overloaded.

    python -m loadtests.arrivals --port P --peers N --accounts A --sessions S

As `loadtests.generator`, with one more command:

phases          {think_s, phases: [{rate, seconds}, ...]}: one after the other, without a pause

In each phase `rate` requests a second are due at random (exponential) intervals. A request that is due goes to the
running session that has been ready longest, `think_s` after its last answer on average (exponential as well); where
none is ready, a new session begins. So running sessions keep their pace however many more arrive. Whoever is turned
away (3002, 3004) at the beginning goes away; a running session asks again later, with the same request.
"""

import sys
from array import array
from collections import Counter, deque
from heapq import heappop, heappush
from struct import Struct
from time import perf_counter
from typing import Any, ClassVar, Final

from loadtests.generator import ANSWER_TIMEOUT_S, Generator, Slot, main, tell
from protocols.diameter.codes import ResultCode
from simulators.summary import percentile

TYPES: Final = ("initial", "update", "update", "termination")
"""Of the steps of a session."""
SLOW_S: Final = 0.1
"""An answer that takes longer shows that the server has not recovered."""

_CODE: Final = Struct(">I")
_TURNED_AWAY: Final = frozenset((int(ResultCode.UNABLE_TO_DELIVER), int(ResultCode.TOO_BUSY)))


class Phase:
    """What was due within one phase, and what came of it."""

    def __init__(self, rate: float, seconds: float) -> None:
        self.rate = rate
        self.seconds = seconds
        self.sent: Counter[str] = Counter()
        """Requests by type; those that could not be sent for want of a session are not among them."""
        self.refused: Counter[str] = Counter()
        self.granted: Counter[str] = Counter()
        self.first_us = array("L")
        """Latencies of granted requests that began a session, from when they were due ..."""
        self.running_us = array("L")
        """... and of those of running sessions."""
        self.starved = 0
        """Requests that were due when all sessions were in use."""
        self.behind_s = 0.0
        """How late the generator itself was at most."""
        self.began_at = 0.0
        self.bad_at = 0.0
        """When the last request was due that was refused, or granted late."""

    def result(self) -> dict[str, Any]:
        both = self.first_us + self.running_us
        return {
            "seconds": self.seconds,
            "due_rate": self.rate,
            "sent": dict(self.sent),
            "granted": dict(self.granted),
            "refused": dict(self.refused),
            "granted_rate": sum(self.granted.values()) / self.seconds,
            "starved": self.starved,
            "behind_ms": self.behind_s * 1000,
            "bad_until_s": max(0.0, self.bad_at - self.began_at),
            "all": _percentiles(both),
            "first": _percentiles(self.first_us),
            "running": _percentiles(self.running_us),
        }


def _percentiles(latencies_us: "array[int]") -> dict[str, float]:
    ordered = array("L", sorted(latencies_us))
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
    return {name: percentile(ordered, share) / 1000 for name, share in shares.items()} | {
        "max_ms": (ordered[-1] if ordered else 0) / 1000
    }


class Arrivals(Generator):
    """Sessions that arrive by the clock."""

    COMMANDS: ClassVar[tuple[str, ...]] = (*Generator.COMMANDS, "phases")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._phases: list[Phase] = []
        self._think_s = 0.0
        self._ready: list[tuple[float, int]] = []
        """A heap of when sessions send their next request, and their slots."""

    def _phase_of(self, due: float) -> Phase:
        found = self._phases[0]
        for phase in self._phases:
            if 0 < phase.began_at <= due:
                found = phase
        return found

    def _answered(self, slot: Slot, message: bytes, now: float) -> None:
        if not self._phases or not slot.due:
            super()._answered(slot, message, now)
            return
        due, step = slot.due, slot.step
        phase = self._phase_of(due)
        at = self._result_code_at + 8
        refused = _CODE.unpack_from(message, at)[0] in _TURNED_AWAY
        if not refused:
            super()._answered(slot, message, now)
            self._rested.pop()
            (phase.running_us if step else phase.first_us).append(int((now - due) * 1e6))
            phase.granted[TYPES[step]] += 1
            if now - due > SLOW_S:
                phase.bad_at = max(phase.bad_at, due)
        else:
            slot.due = 0.0
            self._outstanding -= 1
            self.answers += 1
            phase.refused[TYPES[step]] += 1
            phase.bad_at = max(phase.bad_at, due)
        if slot.step:
            heappush(self._ready, (now + self._random.expovariate(1 / self._think_s), slot.index))
        else:
            self._rested.append(slot)

    def phases(self, think_s: float, phases: list[dict[str, float]]) -> dict[str, Any]:
        self._think_s = think_s
        self._phases = [Phase(**one) for one in phases]
        self._ready.clear()
        for number, phase in enumerate(self._phases):
            tell({"mark": "begin", "phase": number})
            self._run(phase)
        tell({"mark": "end"})
        give_up_at = perf_counter() + ANSWER_TIMEOUT_S
        while self._outstanding and perf_counter() < give_up_at:
            self._turn(0.1)
        self._drain()
        results = [phase.result() for phase in self._phases]
        self._phases = []
        self._rested = deque(self._slots)
        return self._result(0.0) | {"phases": results}

    def _run(self, phase: Phase) -> None:
        due = phase.began_at = perf_counter()
        until = due + phase.seconds
        random, ready, rested, rate = self._random.expovariate, self._ready, self._rested, phase.rate
        while (now := perf_counter()) < until:
            phase.behind_s = max(phase.behind_s, now - due)
            while due <= now:
                if ready and ready[0][0] <= due:
                    slot = self._slots[heappop(ready)[1]]
                elif rested:
                    slot = rested.popleft()
                    slot.step = 0
                else:
                    phase.starved += 1
                    due += random(rate)
                    continue
                self._send(slot, slot.step, due)
                phase.sent[TYPES[slot.step]] += 1
                due += random(rate)
            self._turn(min(due, until) - perf_counter())


if __name__ == "__main__":
    sys.exit(main(Arrivals))
