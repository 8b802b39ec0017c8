"""Policy counters, as policy nodes see an account over Sy (TS 29.219): named counters, each with a status."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counter:
    """A policy counter: the first level that the account is at gives its status."""

    name: str
    """Policy-Counter-Identifier."""
    statuses: tuple[tuple[str, str], ...]
    """(level, status), in the order of the file."""
    otherwise: str
    """Status at none of the levels."""

    def status_at(self, levels: tuple[str, ...]) -> str:
        """Its status for an account at these levels."""
        for level, status in self.statuses:
            if level in levels:
                return status
        return self.otherwise


@dataclass(frozen=True, slots=True)
class CounterStatus:
    """What a counter is at, and what it will be at."""

    status: str
    """Policy-Counter-Status."""
    pending: tuple[tuple[str, int], ...] = ()
    """(status, from when in ms), rising: Pending-Policy-Counter-Information."""
