"""Rules: at which levels, for whom, for which services and when, what is done.

One rule about order: rules are read from the top; of those that hold, the first that says what becomes of a service
decides that (access), the first that names a throttle decides that, the smallest cap on grants counts, and everything
that is to be told is told.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Protocol


class Access(IntEnum):
    """What becomes of a service."""

    ALLOW = 0
    """Granted and charged as its price says."""
    FREE = 1
    """Granted whatever the balance, and not charged."""
    BAR = 2
    """Refused for now: END_USER_SERVICE_DENIED (4010)."""
    BAR_FOR_GOOD = 3
    """Refused: AUTHORIZATION_REJECTED (5003)."""
    NO_CREDIT = 4
    """Refused as if there were no credit: CREDIT_LIMIT_REACHED (4012)."""
    FINAL_UNITS = 5
    """No more units; the client ends, redirects or restricts as ``Decision.final_units`` says (RFC 8506 section 5.6)."""


class Case(NamedTuple):
    """One service of one subscriber, as rules see it."""

    kind: int
    """AccountKind."""
    plan: str
    segment: str
    service: str
    """Name in the catalogue."""
    zone: str
    """Destination or network; empty: none."""


class Clock(Protocol):
    """The operator's clock (``occ.rating.local_time.Calendar``)."""

    def minute_of(self, at_ms: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Throttle:
    """A speed that the network knows by name."""

    name: str
    down_bit_s: int
    up_bit_s: int
    filter_id: bytes = b""
    """Name of the rule base that gateways apply (Filter-Id); empty: only Sy tells of it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. An empty tuple of conditions stands for any."""

    name: str
    line: int
    """Where it stands in its file."""
    levels: tuple[str, ...] = ()
    """At any of these; empty: whatever the account is at."""
    kinds: tuple[int, ...] = ()
    plans: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    windows: tuple["Window", ...] = ()
    """Within any of these by the operator's clock; empty: always."""
    access: Access | None = None
    final_units: str = ""
    """Name of what clients do, for FINAL_UNITS; it is written under ``final_units`` in the file."""
    throttle: str = ""
    most_units: int = 0
    """The largest grant, in units of the service; 0: not bounded."""
    notify: str = ""
    """Template of a notice, once for each time that the rule begins to hold."""
    restored: str = ""
    """Template of a notice for when it ceases to hold."""
    emit: str = ""
    """Name of an event for outside."""

    def is_about(self, case: Case, levels: tuple[str, ...]) -> bool:
        """Whether it holds for a service, but for the time of day."""
        return (
            (not self.levels or any(each in levels for each in self.levels))
            and (not self.kinds or case.kind in self.kinds)
            and (not self.plans or case.plan in self.plans)
            and (not self.segments or case.segment in self.segments)
            and (not self.services or case.service in self.services)
            and (not self.zones or case.zone in self.zones)
        )


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the week by the operator's clock."""

    days: frozenset[int]
    """Monday is 0."""
    from_minute: int
    until_minute: int
    """Minutes since midnight, 1440 at most; not more than ``from_minute``: it ends the next day."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules come to for one service."""

    access: Access = Access.ALLOW
    final_units: str = ""
    throttle: str = ""
    most_units: int = 0
    rules: tuple[str, ...] = ()
    """Names of the rules that made it what it is."""


AS_PRICED: Final = Decision()
"""What no rule is about: granted and charged as the catalogue says."""
