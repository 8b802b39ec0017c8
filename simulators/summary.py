"""What a run of a simulator came to, and the counters it is made from."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

MICRO: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Time from sending a request to its answer, milliseconds; nearest-rank percentiles, 0 without answers."""

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals of one run, for people to read and for `occ ledger verify` to agree with."""

    sessions: int = 0
    """Sessions, calls and events begun."""
    requests: int = 0
    """Credit-Control-Requests of the simulated clients, repeats not counted."""
    repeats: int = 0
    """Requests sent once more: on purpose, or because no answer came in time."""
    answers: int = 0
    """Requests that were answered; answers to repeats not counted."""
    grants: int = 0
    """Granted-Service-Units with more than nothing in them, each service of an answer counted."""
    final_grants: int = 0
    """Final-Unit-Indications received."""
    refusals: dict[int, int] = field(default_factory=dict)
    """By Result-Code: answers that refuse the request, and services refused within a successful answer."""
    unanswered: int = 0
    """Requests that got no answer, even when repeated."""
    disagreements: int = 0
    """Repeats answered differently from the first time: must be 0 (RFC 8506 section 6.5)."""
    malformed: int = 0
    """Answers that break the grammar of RFC 8506 section 3.2, which a client drops: must be 0."""
    latency: Latency = field(default_factory=Latency)
    seconds: float = 0.0
    """Duration of the run."""
    debited_micro: int = 0
    """Money debited by the clients' own reckoning (`simulators.audit`), micro-units."""
    uncertain_micro: int = 0
    """What unanswered reports may have cost on top, micro-units."""
    restarts: int = 0
    """How often the client lost its state."""
    lost: int = 0
    """Sessions that were open then."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; Result-Codes become strings, as JSON demands."""
        return {
            "sessions": self.sessions,
            "requests": self.requests,
            "repeats": self.repeats,
            "answers": self.answers,
            "grants": self.grants,
            "final_grants": self.final_grants,
            "refusals": {str(code): count for code, count in sorted(self.refusals.items())},
            "unanswered": self.unanswered,
            "disagreements": self.disagreements,
            "malformed": self.malformed,
            "latency_p50_ms": self.latency.p50_ms,
            "latency_p95_ms": self.latency.p95_ms,
            "latency_p99_ms": self.latency.p99_ms,
            "latency_max_ms": self.latency.max_ms,
            "seconds": self.seconds,
            "debited_micro": self.debited_micro,
            "uncertain_micro": self.uncertain_micro,
            "restarts": self.restarts,
            "lost": self.lost,
        }


def percentile(ordered: "array[int] | list[int]", share: float) -> int:
    """Nearest-rank percentile of values in ascending order: the smallest one that `share` (0 to 1) of them do not
    exceed; 0 for no values."""
    if not ordered:
        return 0
    rank = -(-len(ordered) * round(share * 1_000_000) // 1_000_000)
    return ordered[max(rank, 1) - 1]


class Statistics:
    """The counters of one run while it is under way; `summary` reads them off."""

    __slots__ = (
        "_latencies_us", "answers", "disagreements", "final_grants", "grants", "lost", "malformed", "refusals",
        "repeats", "requests", "restarts", "sessions", "unanswered",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sessions = 0
        self.requests = 0
        self.repeats = 0
        self.answers = 0
        self.grants = 0
        self.final_grants = 0
        self.unanswered = 0
        self.disagreements = 0
        self.malformed = 0
        self.restarts = 0
        self.lost = 0
        self.refusals: Counter[int] = Counter()
        self._latencies_us = array("L")

    def answered(self, latency_s: float) -> None:
        """One request got its answer after this many seconds."""
        self.answers += 1
        self._latencies_us.append(max(0, round(latency_s * 1e6)))

    def latency(self) -> Latency:
        ordered = array("L", sorted(self._latencies_us))
        return Latency(
            percentile(ordered, 0.50) / 1000,
            percentile(ordered, 0.95) / 1000,
            percentile(ordered, 0.99) / 1000,
            (ordered[-1] if ordered else 0) / 1000,
        )

    def summary(self, *, seconds: float, debited_micro: int, uncertain_micro: int) -> Summary:
        return Summary(
            sessions=self.sessions,
            requests=self.requests,
            repeats=self.repeats,
            answers=self.answers,
            grants=self.grants,
            final_grants=self.final_grants,
            refusals=dict(self.refusals),
            unanswered=self.unanswered,
            disagreements=self.disagreements,
            malformed=self.malformed,
            latency=self.latency(),
            seconds=seconds,
            debited_micro=debited_micro,
            uncertain_micro=uncertain_micro,
            restarts=self.restarts,
            lost=self.lost,
        )
