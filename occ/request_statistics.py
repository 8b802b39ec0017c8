"""What is counted of credit-control requests: on the path of every request, so in objects rather than dictionaries.

Whoever shows the figures, perhaps in another thread, asks for them as dictionaries, which are made when he asks.
"""

from bisect import bisect_left
from typing import Final

TYPE_NAMES: Final = {1: "initial", 2: "update", 3: "termination", 4: "event"}
"""CC-Request-Types (RFC 8506 section 8.3); 0 stands for one that could not be read."""

GROUPS_COUNTED: Final = 200
"""(Rating-Group, Result-Code) pairs counted apart; clients choose the Rating-Groups, so there must be an end."""
OTHER_GROUPS: Final = -2
"""Stands for all further Rating-Groups; -1 for none."""

SLOW_S: Final = 0.05
"""Answers that take longer miss the service level; the last of them are remembered by name, for who looks into it."""
LATENCY_BOUNDS_S: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip


class Count:
    """How often something happened."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class _OfType:
    """The answers to requests of one CC-Request-Type."""

    __slots__ = ("buckets", "last", "last_code", "results", "seconds")

    def __init__(self) -> None:
        self.results: dict[int, Count] = {}
        """By Result-Code."""
        self.last_code = 0
        """Mostly that of the next answer too ..."""
        self.last = Count()
        """... and its count."""
        self.buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.seconds = 0.0

    def add(self, result_code: int) -> None:
        if result_code != self.last_code:
            found = self.results.get(result_code)
            if found is None:
                found = self.results[result_code] = Count()
            self.last_code, self.last = result_code, found
        self.last.count += 1


class RequestStatistics:
    """Credit-control requests of this worker: answers by type and Result-Code, latency, requests under way."""

    __slots__ = ("_services", "_types", "in_flight", "refused", "slow")

    def __init__(self) -> None:
        self._types: list[_OfType] = [_OfType() for _ in range(len(TYPE_NAMES) + 1)]
        """By CC-Request-Type."""
        self._services: dict[tuple[int, int], Count] = {}
        self.in_flight = 0
        """Accepted and not yet answered, waiting or begun."""
        self.refused: dict[tuple[str, int], int] = {}
        """(reason, CC-Request-Type) -> requests turned away unread. They are among the answers, not in the latency."""
        self.slow: dict[tuple[int, int], tuple[bytes, float]] = {}
        """(CC-Request-Type, index of the bound) -> Session-Id and seconds of the last answer as slow as that."""

    # -- counting ------------------------------------------------------------------------------------------------

    def answered(self, request_type: int, result_code: int, seconds: float, session_id: bytes = b"") -> None:
        """A request was answered, so long after it was read."""
        of_type = self._types[request_type]
        of_type.add(result_code)
        index = bisect_left(LATENCY_BOUNDS_S, seconds)
        of_type.buckets[index] += 1
        of_type.seconds += seconds
        if seconds > SLOW_S and session_id:
            self.slow[request_type, index] = (session_id, seconds)

    def turned_away(self, reason: str, request_type: int, answered_as: int, result_code: int) -> None:
        """A request was refused unread; ``answered_as``: the type its answer is counted with."""
        self.refused[reason, request_type] = self.refused.get((reason, request_type), 0) + 1
        self._types[answered_as].add(result_code)

    def service(self, rating_group: int, result_code: int) -> Count:
        """Where answers about a service are counted; it may be kept."""
        key = (rating_group, result_code)
        found = self._services.get(key)
        if found is None:
            if len(self._services) >= GROUPS_COUNTED:
                key = (OTHER_GROUPS, result_code)
                found = self._services.get(key)
            if found is None:
                found = self._services[key] = Count()
        return found

    # -- figures -------------------------------------------------------------------------------------------------

    @property
    def rejected(self) -> int:
        """Requests turned away, for whatever reason."""
        return sum(self.refused.copy().values())

    @property
    def answers(self) -> dict[tuple[int, int], int]:
        """(CC-Request-Type, Result-Code) -> answers; type 0 where it could not be read."""
        return {
            (kind, code): result.count
            for kind, of_type in enumerate(self._types)
            for code, result in of_type.results.copy().items()
        }

    @property
    def services(self) -> dict[tuple[int, int], int]:
        """(Rating-Group, Result-Code) -> answers about a service; ``OTHER_GROUPS`` beyond ``GROUPS_COUNTED`` pairs."""
        return {key: counted.count for key, counted in self._services.copy().items() if counted.count}

    @property
    def latency(self) -> dict[int, list[int]]:
        """CC-Request-Type -> answers that took up to each of ``LATENCY_BOUNDS_S``, and longer."""
        return {kind: of_type.buckets.copy() for kind, of_type in enumerate(self._types)}

    @property
    def latency_seconds(self) -> dict[int, float]:
        """CC-Request-Type -> what all its answers took."""
        return {kind: of_type.seconds for kind, of_type in enumerate(self._types)}
