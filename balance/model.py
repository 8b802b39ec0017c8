"""What the ledger counts in and keeps: units, prices, buckets, meters, offers, states of life, subscribers.

Integers only. Money is in millionths of the currency unit (``*_micro``), volume in octets, time in seconds,
events in units; points in time are milliseconds since the Unix epoch, UTC (``*_ms``). Identifiers are bytes,
as they travel on the wire and in the store. ``balance.accounts`` and ``balance.plans`` keep to the same.

Objects of these modules are snapshots: whoever changes one works on a copy (see ``balance.ledger.Draft``).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MICRO: Final = 1_000_000
"""Millionths in one currency unit."""

LARGEST: Final = (1 << 62) - 1
"""No amount, price or count of the ledger goes beyond this; what would is cut to it, far from any real figure."""

UNLIMITED: Final = 1 << 62
"""More units than any service can use; what a free service can afford."""

MAIN_BUCKET: Final = 1
"""Identifier of the money bucket every account has; the credit limit of the account applies to it."""


class Unit(IntEnum):
    """What a bucket holds and a service is counted in."""

    MONEY = 0
    OCTETS = 1
    SECONDS = 2
    EVENTS = 3
    AMOUNT = 4
    """Micro-units of money that the client rated itself (CC-Money, RFC 8506 section 8.22); no bucket holds these."""


class AccountKind(IntEnum):
    """Who pays first. No account goes below minus its credit limit, which a prepaid one most often has none of."""

    PREPAID = 0
    POSTPAID = 1


class IdentityType(IntEnum):
    """Subscription-Id-Type, RFC 8506 section 8.47."""

    E164 = 0
    IMSI = 1
    SIP_URI = 2
    NAI = 3
    PRIVATE = 4


class LedgerError(Exception):
    """A change that the ledger refuses; the message is one sentence for the person who asked for it."""


class Rate:
    """Price of the units of one service, counted from the start of its session.

    Prices are cumulative so that a session costs the same however its usage is cut into reports. Implemented
    by ``occ.rating.price``. A class and no protocol, as what is compiled calls the methods of a class at once.
    """

    __slots__ = ()

    unit: Unit

    def price_micro(self, units: int) -> int:
        """Price of the first ``units`` units; never falls as units grow, 0 for 0 units."""
        raise NotImplementedError

    def affordable_units(self, amount_micro: int) -> int:
        """The greatest number of units whose price is at most ``amount_micro``, ``UNLIMITED`` at most."""
        raise NotImplementedError


@dataclass(slots=True, init=False)
class Bucket:
    """One kind of credit on an account: money, or an allowance of octets, seconds or events.

    ``reserved`` is the part of ``balance`` promised to open sessions; it equals the sum of their reservation
    parts at all times. Buckets are spent by ``priority`` (low first), then earliest ``expires_ms``.
    """

    bucket_id: int
    unit: int
    balance: int
    reserved: int = 0
    priority: int = 100
    expires_ms: int = 0
    """0: never."""
    name: str = ""
    """What it is of in the catalogue: an allowance or a bonus, which says what it may be spent on; empty: anything."""
    owner: bytes = b""
    """The only subscriber it serves; empty: all of the account."""

    def __init__(
        self,
        bucket_id: int,
        unit: int,
        balance: int,
        reserved: int = 0,
        priority: int = 100,
        expires_ms: int = 0,
        name: str = "",
        owner: bytes = b"",
    ) -> None:
        self.bucket_id = bucket_id
        self.unit = unit
        self.balance = balance
        self.reserved = reserved
        self.priority = priority
        self.expires_ms = expires_ms
        self.name = name
        self.owner = owner

    def copy(self) -> "Bucket":
        return Bucket(
            self.bucket_id,
            self.unit,
            self.balance,
            self.reserved,
            self.priority,
            self.expires_ms,
            self.name,
            self.owner,
        )


@dataclass(slots=True, init=False)
class Meter:
    """Counts what was used or spent within a period, for tiers and caps."""

    name: str
    """What it counts: a service, a cap, a member; unique within the account."""
    resets_ms: int
    """When its period is over; counted from nothing then."""
    units: int = 0
    micro: int = 0

    def __init__(
        self,
        name: str,
        resets_ms: int,
        units: int = 0,
        micro: int = 0,
    ) -> None:
        self.name = name
        self.resets_ms = resets_ms
        self.units = units
        self.micro = micro

    def copy(self) -> "Meter":
        return Meter(self.name, self.resets_ms, self.units, self.micro)


@dataclass(slots=True, init=False)
class Offer:
    """A recurring thing that the account has: a rental, a bundle that renews; the catalogue says what it is."""

    name: str
    since_ms: int
    next_ms: int
    """When it is charged or renewed next; 0: never again, or not before somebody pays."""
    owner: bytes = b""
    """The subscriber it is for; empty: the account."""
    unpaid_ms: int = 0
    """Since when a fee that fell due could not be paid; 0: all is paid."""
    until_ms: int = 0
    """When it ends; 0: not in sight."""
    plan: str = ""
    """The plan that it comes with; empty: it was taken by itself."""
    paid_micro: int = 0
    """What was paid for the period that runs."""
    buckets: tuple[int, ...] = ()
    """Numbers of the buckets that it fills anew each period."""
    paid_from_ms: int = 0
    """When the period that was paid for began; 0: not known, as with what an earlier release charged."""
    given: tuple[int, ...] = ()
    """What it gave for this period into each of ``buckets``, in the bucket's unit; empty: not known."""

    def __init__(
        self,
        name: str,
        since_ms: int,
        next_ms: int,
        owner: bytes = b"",
        unpaid_ms: int = 0,
        until_ms: int = 0,
        plan: str = "",
        paid_micro: int = 0,
        buckets: tuple[int, ...] = (),
        paid_from_ms: int = 0,
        given: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.since_ms = since_ms
        self.next_ms = next_ms
        self.owner = owner
        self.unpaid_ms = unpaid_ms
        self.until_ms = until_ms
        self.plan = plan
        self.paid_micro = paid_micro
        self.buckets = buckets
        self.paid_from_ms = paid_from_ms
        self.given = given

    def copy(self) -> "Offer":
        return Offer(
            self.name,
            self.since_ms,
            self.next_ms,
            self.owner,
            self.unpaid_ms,
            self.until_ms,
            self.plan,
            self.paid_micro,
            self.buckets,
            self.paid_from_ms,
            self.given,
        )


class LifeState(IntEnum):
    """Where an account or a subscriber is in its life; ``occ.lifecycle`` says what each state allows."""

    ACTIVE = 0
    ORDERED = 1
    """Known, not in service yet."""
    SUSPENDED = 2
    """Out of service at the customer's wish, or for a while."""
    BLOCKED = 3
    """Barred by the operator."""
    GRACE = 4
    """A prepaid account that has expired: it can be topped up."""
    TERMINATED = 5


@dataclass(slots=True, frozen=True)
class Subscriber:
    """A line or user that network elements name in a request, and the account that pays for it."""

    subscriber_id: bytes
    account_id: bytes
    plan: str
    identities: tuple[tuple[int, bytes], ...]
    """(IdentityType, value); E.164 numbers without "+"."""
    state: int = 0
    """A LifeState."""
    cap_day_micro: int = 0
    """The most that the paying account spends on this subscriber in a day; 0: no cap."""
    cap_month_micro: int = 0
    activated_ms: int = 0
    """When it first came into service; 0: not known."""
    segment: str = ""
    """Which customers it is among, for promotions."""
    friends: tuple[bytes, ...] = ()
    """Friends-and-family numbers, E.164 without "+"."""
    member_of: bytes = b""
    """The account it belongs to, where another one pays; empty: ``account_id``."""
    next_plan: str = ""
    """The plan it changes to; empty: none."""
    next_plan_ms: int = 0
    """From when on."""

    def plan_at(self, at_ms: int) -> str:
        """The plan of a session that begins at a moment."""
        return self.next_plan if self.next_plan and at_ms >= self.next_plan_ms else self.plan
