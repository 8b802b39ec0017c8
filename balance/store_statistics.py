"""What a store counts, for the dashboards."""

from dataclasses import dataclass, field
from typing import Final

ROUND_TRIP_BOUNDS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip


@dataclass(slots=True)
class StoreStatistics:
    commits: int = 0
    plans: int = 0
    conflicts: int = 0
    reads: int = 0
    directory_watched: bool = False
    """Redis tells of changes of the subscriber directory (``balance.directory_watch``)."""
    directory_changes: int = 0
    """Identities that it has told of."""
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
