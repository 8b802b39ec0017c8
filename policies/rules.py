"""Rules: at which levels, for whom, for which services and when, what is done.

One rule about order: rules are read from the top; of those that hold, the first that says what becomes of a service
decides that (access), the first that names a throttle decides that, the smallest cap on grants counts, and everything
that is to be told is told.
"""

from collections.abc import Iterable
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
    """No more units; the client ends, redirects or restricts as ``Decision.final_units`` says (RFC 8506, 5.6)."""


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


class Window(Protocol):
    """Hours of some days by the operator's clock (``occ.rating.happy_hours``)."""

    def at(self, at_ms: int) -> tuple[bool, int]:
        """Whether a moment is among them, and when that changes, ms; 0: never."""


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
    windows: tuple[Window, ...] = ()
    """Within any of these by the operator's clock; empty: always."""
    access: Access | None = None
    final_units: str = ""
    """Name of what clients do, for FINAL_UNITS; it is written under ``final_units`` in the file."""
    cut: bool = False
    """Beside BAR: sessions that are open are aborted (Abort-Session-Request) rather than asked anew."""
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
class Decision:
    """What the rules come to for one service."""

    access: Access = Access.ALLOW
    final_units: str = ""
    throttle: str = ""
    most_units: int = 0
    rules: tuple[str, ...] = ()
    """Names of the rules that made it what it is, in the order of the file."""
    cut: bool = False

    def differs(self, other: "Decision") -> bool:
        """Whether a client would notice: whichever rules it came from."""
        return self is not other and (
            self.access != other.access
            or self.final_units != other.final_units
            or self.throttle != other.throttle
            or self.most_units != other.most_units
            or self.cut != other.cut
        )


AS_PRICED: Final = Decision()
"""What no rule is about: granted and charged as the catalogue says."""


def decided_by(rules: Iterable[Rule]) -> Decision:
    """What the rules that hold come to; they are in the order of the file."""
    access: Rule | None = None
    throttle: Rule | None = None
    most: Rule | None = None
    for rule in rules:
        if access is None and rule.access is not None:
            access = rule
        if throttle is None and rule.throttle:
            throttle = rule
        if rule.most_units and (most is None or rule.most_units < most.most_units):
            most = rule
    if access is not None and access.access not in (Access.ALLOW, Access.FREE):
        throttle = most = None  # what is not granted has no speed and no size
    acting = sorted({each.line: each.name for each in (access, throttle, most) if each is not None}.items())
    if not acting:
        return AS_PRICED
    return Decision(
        access=Access.ALLOW if access is None or access.access is None else access.access,
        final_units="" if access is None else access.final_units,
        throttle="" if throttle is None else throttle.throttle,
        most_units=0 if most is None else most.most_units,
        rules=tuple(name for _, name in acting),
        cut=access is not None and access.cut,
    )


class Crossed(NamedTuple):
    """What is to be told of an account whose levels changed."""

    begun: tuple[Rule, ...] = ()
    """Rules with ``notify`` or ``emit`` that hold now and did not before."""
    ended: tuple[Rule, ...] = ()
    """Rules with ``restored`` that held before and do not now."""
