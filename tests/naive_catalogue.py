"""What is sold, as plainly as it can be said: which service a request means, and what it costs at which minute."""

from dataclasses import dataclass
from functools import cache

from occ.rating.service import Service

DAY_MS, MINUTE_MS = 86_400_000, 60_000

Price = tuple[int, int]
"""Units of a step and its price; 0: free."""


@dataclass(frozen=True)
class NaiveTariff:
    """What one service costs by the minute of the day, UTC."""

    beginnings: tuple[tuple[int, Price | int], ...]
    """(minute since midnight, price or the Result-Code that refuses it), rising; one at least."""

    def at(self, at_ms: int) -> tuple[Price | int, int]:
        """What holds at a moment, and when something else begins; 0: never."""
        minute = at_ms // MINUTE_MS
        found, minutes = _look(self.beginnings, minute % (DAY_MS // MINUTE_MS))
        return found, (minute + minutes) * MINUTE_MS if minutes else 0

    def changes(self, at_ms: int) -> list[tuple[int, Price | int]]:
        """When what begins, in the two days after a moment."""
        found = []
        begins_ms = self.at(at_ms)[1]
        while begins_ms and begins_ms < at_ms + 2 * DAY_MS:
            found.append((begins_ms, self.at(begins_ms)[0]))
            begins_ms = self.at(begins_ms)[1]
        return found


@cache
def _look(beginnings: tuple[tuple[int, Price | int], ...], minute: int) -> tuple[Price | int, int]:
    """What holds in a minute of the day, and in how many minutes something else does, by looking at every minute."""

    def holds(at: int) -> Price | int:
        begun = [price for begins, price in beginnings if begins <= at % (DAY_MS // MINUTE_MS)]
        return begun[-1] if begun else beginnings[-1][1]

    now = holds(minute)
    return now, next((later for later in range(1, DAY_MS // MINUTE_MS) if holds(minute + later) != now), 0)


@dataclass(frozen=True)
class NaiveCatalogue:
    edition: str
    currency: int
    services: tuple[Service, ...]
    plans: dict[str, dict[str, NaiveTariff]]

    def find(self, context: bytes, group: int, identifier: int) -> Service | None:
        for service in self.services:
            if (
                (context == service.context or context.endswith(b"." + service.context))
                and (service.rating_groups is None or group in service.rating_groups)
                and (service.service_identifiers is None or identifier in service.service_identifiers)
            ):
                return service
        return None

    def knows(self, context: bytes) -> bool:
        return any(context == each.context or context.endswith(b"." + each.context) for each in self.services)
