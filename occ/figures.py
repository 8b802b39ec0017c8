"""Figures of running servers, from what their ``/metrics`` say at two moments: rates, percentiles, totals.

Several servers of one store add up, but for what each tells of the whole store. A server that was started anew between
the two counts from zero.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

Labels = tuple[tuple[str, str], ...]

_SAMPLE: Final = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)(?: \d+)?")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SUCCESS: Final = (2000, 3000)
OF_THE_STORE: Final = (
    "occ_open_",
    "occ_sy_subscriptions",
    "occ_outbox_",
    "occ_supervision_",
    "occ_redis_",
    "occ_notices",
    "occ_disk_",
)
"""How the names of metrics begin that every server of a store tells alike: they are not added up."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What servers said at one moment."""

    at_s: float
    """By a clock that only goes forward."""
    samples: Mapping[tuple[str, Labels], float]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name with these labels; 0 where there are none."""
        wanted = set(labels.items())
        return sum(value for (each, has), value in self.samples.items() if each == name and wanted <= set(has))

    def by(self, name: str, label: str) -> dict[str, float]:
        """The same for each value of one label."""
        found: dict[str, float] = defaultdict(float)
        for (each, has), value in self.samples.items():
            if each == name:
                found[dict(has).get(label, "")] += value
        return dict(found)

    def has(self, name: str) -> bool:
        return any(each == name for each, _ in self.samples)


def read_metrics(text: str) -> dict[tuple[str, Labels], float]:
    """Samples of Prometheus' text format. Raises ValueError for what is none."""
    found: dict[tuple[str, Labels], float] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line[:60]!r} is no sample")
        labels = tuple(sorted(_LABEL.findall(match[2] or "")))
        found[match[1], labels] = float(match[3])
    return found


def added(at_s: float, several: Iterable[Mapping[tuple[str, Labels], float]]) -> Scrape:
    """What several servers of one store said, together."""
    total: dict[tuple[str, Labels], float] = defaultdict(float)
    for samples in several:
        for key, value in samples.items():
            total[key] = max(total[key], value) if key[0].startswith(OF_THE_STORE) else total[key] + value
    return Scrape(at_s, dict(total))


@dataclass(frozen=True, slots=True)
class Between:
    """What happened between two scrapes."""

    earlier: Scrape
    later: Scrape

    @property
    def seconds(self) -> float:
        return max(1e-9, self.later.at_s - self.earlier.at_s)

    def rise(self, name: str, **labels: str) -> float:
        """How much a counter rose."""
        before, now = self.earlier.total(name, **labels), self.later.total(name, **labels)
        return now - before if now >= before else now

    def rate(self, name: str, **labels: str) -> float:
        """The same, per second."""
        return self.rise(name, **labels) / self.seconds

    def rises(self, name: str, label: str) -> dict[str, float]:
        """How much a counter rose, for each value of a label."""
        before = self.earlier.by(name, label)
        return {
            value: now - before.get(value, 0.0) if now >= before.get(value, 0.0) else now
            for value, now in self.later.by(name, label).items()
        }

    def percentile_s(self, histogram: str, share: float) -> float | None:
        """The upper bound (seconds) of the bucket in which that share of observations ends; None: there were none.

        Infinite where it is beyond the last bound.
        """
        counts = sorted((float(bound), count) for bound, count in self.rises(f"{histogram}_bucket", "le").items())
        if not counts or counts[-1][1] <= 0:
            return None
        wanted = share * counts[-1][1]
        return next(bound for bound, count in counts if count >= wanted)


@dataclass(slots=True)
class Figures:
    """One frame of ``occ top``."""

    requests_s: dict[str, float] = field(default_factory=dict)
    """Credit-control requests per second, by type."""
    refusals: list[tuple[str, float, float]] = field(default_factory=list)
    """Result-Codes that are no success: (code, per second now, in all since the servers started)."""
    refused_share: float = 0.0
    latency_s: dict[str, float | None] = field(default_factory=dict)
    """By percentile, "50", "95", "99"."""
    in_flight: float = 0.0
    turned_away_s: float = 0.0
    sessions: float = 0.0
    reservations: float = 0.0
    money_minute: dict[str, float] = field(default_factory=dict)
    """Debited per minute, by currency."""
    peers_up: float = 0.0
    commits_s: float = 0.0
    conflicts_s: float = 0.0
    reconnects: float = 0.0
    round_trip_s: float | None = None
    """99th percentile."""


def figures(between: Between) -> Figures:
    """What servers do, from two scrapes."""
    later = between.later
    made = Figures()
    made.requests_s = {
        kind: rise / between.seconds for kind, rise in between.rises("occ_requests_total", "type").items()
    }
    results, totals = between.rises("occ_requests_total", "result"), later.by("occ_requests_total", "result")
    refused = {code: rise for code, rise in results.items() if not _is_success(code)}
    answered = sum(results.values())
    made.refused_share = sum(refused.values()) / answered if answered else 0.0
    made.refusals = sorted(
        ((code, rise / between.seconds, totals[code]) for code, rise in refused.items()),
        key=lambda each: (-each[1], -each[2], each[0]),
    )
    made.latency_s = {
        name: between.percentile_s("occ_request_seconds", share)
        for name, share in (("50", 0.5), ("95", 0.95), ("99", 0.99))
    }
    made.in_flight = later.total("occ_requests_in_flight")
    made.turned_away_s = between.rate("occ_requests_rejected_total")
    made.sessions = later.total("occ_open_sessions")
    made.reservations = later.total("occ_open_reservations")
    made.money_minute = {
        currency: 60 * rise / between.seconds
        for currency, rise in between.rises("occ_money_debited_total", "currency").items()
    }
    made.peers_up = later.total("occ_peers_up")
    made.commits_s = between.rate("occ_store_commits_total")
    made.conflicts_s = between.rate("occ_store_version_conflicts_total")
    made.reconnects = later.total("occ_store_reconnects_total")
    made.round_trip_s = between.percentile_s("occ_store_round_trip_seconds", 0.99)
    return made


def _is_success(code: str) -> bool:
    return code.isdigit() and SUCCESS[0] <= int(code) < SUCCESS[1]
