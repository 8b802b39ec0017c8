"""What the NOC page shows: rates and percentiles of the last minutes, from counters sampled every other second."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeVar

from balance.model import MICRO
from balance.store_statistics import ROUND_TRIP_BOUNDS_S, StoreStatistics
from occ.charging import ChargingStatistics
from occ.request_statistics import LATENCY_BOUNDS_S, RequestStatistics
from protocols.diameter.codes import ResultCode

K = TypeVar("K")

SAMPLE_INTERVAL_S: Final = 2.0
SAMPLES: Final = 301
"""Ten minutes."""
SMOOTHED_OVER: Final = 5
"""Samples that one rate is taken over: ten seconds."""
TABLE_OVER: Final = 150
"""Samples that tables count over: five minutes."""
MOST_LINES: Final = 10
GRANTED: Final = frozenset(
    map(int, (ResultCode.SUCCESS, ResultCode.LIMITED_SUCCESS, ResultCode.CREDIT_CONTROL_NOT_APPLICABLE))
)
"""All other answers refuse something; 4011 says that a service is free."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one time."""

    at_s: float
    """By a clock that never goes back."""
    answers: dict[int, int]
    """By Result-Code."""
    services: dict[tuple[int, int], int]
    """By (Rating-Group, Result-Code)."""
    latency: tuple[int, ...]
    round_trips: tuple[int, ...]
    debited_micro: int
    leaked_micro: int
    rejected: int
    conflicts: int

    @property
    def requests(self) -> int:
        return sum(self.answers.values())


def percentile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value below which ``share`` of what was counted lies, in the unit of ``bounds``; None if nothing was counted.

    ``counts`` has one more than ``bounds``, for what lies beyond; within a bucket values are taken to be spread evenly.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return bounds[-1]


def name_of(result_code: int) -> str:
    """A Result-Code in words, as people of the trade write it: "credit limit reached"; empty: unknown."""
    try:
        return ResultCode(result_code).name.replace("_", " ").lower()
    except ValueError:
        return ""


class Figures:
    """Samples the counters of this worker. ``now_s``: a clock that never goes back."""

    def __init__(
        self,
        requests: RequestStatistics,
        charging: ChargingStatistics,
        store: StoreStatistics,
        currency: str,
        now_s: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._charging = charging
        self._store = store
        self._currency = currency
        self._now_s = now_s
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.sample()

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self.sample()

    def sample(self) -> None:
        """Remember how the counters stand."""
        answers: dict[int, int] = {}
        for (_, result), count in self._requests.answers.items():
            answers[result] = answers.get(result, 0) + count
        latency = tuple(map(sum, zip(*self._requests.latency.values(), strict=True)))
        self._samples.append(
            Sample(
                self._now_s(),
                answers,
                dict(self._requests.services),
                latency,
                tuple(self._store.round_trips),
                self._charging.debited_micro,
                self._charging.leaked_micro,
                self._requests.rejected,
                self._store.conflicts,
            )
        )

    def as_json(self) -> dict[str, Any]:
        """All figures; rates per second, latency in milliseconds, money in units of ``currency``."""
        samples = list(self._samples)
        recent = samples[-min(len(samples), SMOOTHED_OVER + 1)], samples[-1]
        table = samples[-min(len(samples), TABLE_OVER + 1)], samples[-1]
        return {
            "currency": self._currency,
            "now": _window(*recent)
            | {
                "in_flight": self._requests.in_flight,
                "open_sessions": self._charging.open_sessions,
                "open_reservations": self._charging.open_reservations,
                "round_trip_p99_ms": _percentile_ms(recent, "round_trips", ROUND_TRIP_BOUNDS_S, 0.99),
            },
            "series": _series(samples),
            "table_seconds": round(table[1].at_s - table[0].at_s),
            "answers": _answers(*table),
            "refusals": _refusals(*table),
        }


def _percentile_ms(between: tuple[Sample, Sample], name: str, bounds: Sequence[float], share: float) -> float | None:
    before, after = getattr(between[0], name), getattr(between[1], name)
    found = percentile(bounds, [new - old for old, new in zip(before, after, strict=True)], share)
    return None if found is None else round(found * 1000, 3)


def _window(before: Sample, after: Sample) -> dict[str, Any]:
    """What happened between two samples."""
    seconds = after.at_s - before.at_s or 1.0
    answered = _difference(before.answers, after.answers)
    requests = sum(answered.values())
    between = before, after
    return {
        "requests": round(requests / seconds, 2),
        "refused": round(sum(count for code, count in answered.items() if code not in GRANTED) / seconds, 2),
        "rejected": round((after.rejected - before.rejected) / seconds, 2),
        "conflicts": round((after.conflicts - before.conflicts) / seconds, 2),
        "p50_ms": _percentile_ms(between, "latency", LATENCY_BOUNDS_S, 0.5),
        "p95_ms": _percentile_ms(between, "latency", LATENCY_BOUNDS_S, 0.95),
        "p99_ms": _percentile_ms(between, "latency", LATENCY_BOUNDS_S, 0.99),
        "money_per_minute": round((after.debited_micro - before.debited_micro) / MICRO / seconds * 60, 4),
        "leaked_per_minute": round((after.leaked_micro - before.leaked_micro) / MICRO / seconds * 60, 4),
    }


def _series(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """The same over time; ``seconds_ago`` is the time axis, the newest last."""
    names = ("requests", "refused", "p50_ms", "p95_ms", "p99_ms", "money_per_minute")
    series: dict[str, list[Any]] = {name: [] for name in ("seconds_ago", *names)}
    for index, (_, after) in enumerate(pairwise(samples)):
        window = _window(samples[max(0, index + 1 - SMOOTHED_OVER)], after)
        series["seconds_ago"].append(round(samples[-1].at_s - after.at_s, 1))
        for name in names:
            series[name].append(window[name])
    return series


def _answers(before: Sample, after: Sample) -> list[dict[str, Any]]:
    found = _difference(before.answers, after.answers)
    total = sum(found.values())
    lines = sorted(found.items(), key=lambda line: (-line[1], line[0]))[:MOST_LINES]
    return [
        {"code": code, "name": name_of(code), "count": count, "share": round(count / total, 4)} for code, count in lines
    ]


def _refusals(before: Sample, after: Sample) -> list[dict[str, Any]]:
    """What services were refused, the most frequent first; Rating-Group -1: none, -2: one of many others."""
    found = _difference(before.services, after.services)
    refused = [(key, count) for key, count in found.items() if key[1] not in GRANTED]
    lines = sorted(refused, key=lambda line: (-line[1], line[0]))[:MOST_LINES]
    return [
        {"rating_group": group, "code": code, "name": name_of(code), "count": count} for (group, code), count in lines
    ]


def _difference(before: Mapping[K, int], after: Mapping[K, int]) -> dict[K, int]:
    changed = {key: count - before.get(key, 0) for key, count in after.items()}
    return {key: count for key, count in changed.items() if count}
