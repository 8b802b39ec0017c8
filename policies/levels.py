"""Levels: what an account can be at, such as ``low``, ``zero`` or ``limit-reached``, by what it holds.

A level compares one measure of the account with two ranges: it is entered within the narrower and left outside the
wider one, so that an account that hovers about a threshold does not flap. Which levels an account was at is kept with
it (``Account.levels``); everything else follows from its present state. Pure; integers only.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from balance.accounts import Account, ServiceUse
from balance.model import Bucket, LifeState, Unit

INFINITE: Final = 1 << 63
"""Beyond every amount of the ledger."""


class Measured(IntEnum):
    """What of an account a level looks at."""

    BALANCE = 0
    """Money that may be spent on anything, micro-units; what is reserved is still there. Below zero: owed."""
    CREDIT = 1
    """The same and the credit limit: what is left until nothing can be spent any more."""
    BUCKET = 2
    """What is left in the buckets of a name that have not expired, in their unit."""
    COUNTER = 3
    """What a meter has counted in its running period: all units of a service, those out of allowances among them."""
    SPENT = 4
    """What a meter has counted in its running period: what the use of a service cost, micro-units of money."""
    LIFE = 5
    """The account's LifeState, as a number."""


_BALANCE: Final = Measured.BALANCE
_CREDIT: Final = Measured.CREDIT
_BUCKET: Final = Measured.BUCKET
_COUNTER: Final = Measured.COUNTER
_LIFE: Final = Measured.LIFE


@dataclass(frozen=True, slots=True)
class Measure:
    what: Measured
    name: str = ""
    """Of the bucket or meter."""
    unit: int = int(Unit.MONEY)
    """A Unit: what its values are counted in."""
    services: tuple[str, ...] = ()
    """Services whose use moves a BUCKET, a COUNTER or what is SPENT; every use that costs money moves the others."""

    def of(self, account: Account, at_ms: int) -> int | None:
        """Its value at a moment; None: the account has nothing of the kind."""
        what = self.what
        if what is _BALANCE:
            return money_of(account, at_ms)
        if what is _CREDIT:
            return money_of(account, at_ms) + account.credit_limit_micro
        if what is _BUCKET:
            found = [each.balance for each in account.buckets if each.name == self.name and not is_over(each, at_ms)]
            return sum(found) if found else None
        if what is _LIFE:
            return int(account.state)
        for meter in account.meters:
            if meter.name == self.name:
                if at_ms >= meter.resets_ms:
                    return 0
                return meter.units if what is _COUNTER else meter.micro
        return 0


def is_over(bucket: Bucket, at_ms: int) -> bool:
    """Whether a bucket has expired."""
    return 0 < bucket.expires_ms <= at_ms


def money_of(account: Account, at_ms: int) -> int:
    """Money that may be spent on anything, micro-units; below zero: what is owed."""
    total = 0
    for bucket in account.buckets:
        if bucket.unit == _MONEY and not bucket.name and not bucket.owner and not 0 < bucket.expires_ms <= at_ms:
            total += bucket.balance
    return total


_MONEY: Final = int(Unit.MONEY)


def held_of(account: Account, use: ServiceUse) -> int:
    """What a service has reserved of the money that ``money_of`` counts, micro-units."""
    held = 0
    for bucket_id, amount in use.parts:
        for bucket in account.buckets:
            if bucket.bucket_id == bucket_id and bucket.unit == _MONEY and not bucket.name and not bucket.owner:
                held += amount
    return held


@dataclass(frozen=True, slots=True)
class Range:
    """Integers from ``low`` to ``high``, both included."""

    low: int = -INFINITE
    high: int = INFINITE

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Level:
    """A named state of an account. ``stays`` holds all of ``enters``.

    But for LIFE both go on without end to the same side: "below" or "above".
    """

    name: str
    measure: Measure
    enters: Range
    stays: Range
    kinds: tuple[int, ...] = ()
    """AccountKinds that can be at it; empty: any."""

    def __post_init__(self) -> None:
        below = self.enters.low == self.stays.low == -INFINITE and self.enters.high <= self.stays.high < INFINITE
        above = self.enters.high == self.stays.high == INFINITE and self.enters.low >= self.stays.low > -INFINITE
        if self.measure.what is not Measured.LIFE and not below and not above:
            raise ValueError(f"level {self.name}: it must be left beyond where it is entered, on the same side")

    def is_for(self, kind: int) -> bool:
        """Whether an account of a kind can be at it."""
        return not self.kinds or kind in self.kinds

    @property
    def is_of_life(self) -> bool:
        """Whether it follows from the account's LifeState."""
        return self.measure.what is _LIFE

    def holds_state(self, state: int) -> bool:
        """For LIFE: whether an account in a LifeState is at it."""
        return state in self.enters

    @property
    def is_of_money(self) -> bool:
        """Whether it follows from the balance, beside the credit limit."""
        return self.measure.what is _BALANCE or self.measure.what is _CREDIT

    def holds(self, account: Account, at_ms: int, before: bool) -> bool:
        """Whether the account is at it, having been there before or not."""
        if self.kinds and account.kind not in self.kinds:
            return False
        value = self.measure.of(account, at_ms)
        return value is not None and value in (self.stays if before else self.enters)


LIFE_LEVELS: Final = tuple(
    Level(name, Measure(Measured.LIFE), Range(state, state), Range(state, state))
    for name, state in (
        ("suspended", LifeState.SUSPENDED),
        ("blocked", LifeState.BLOCKED),
        ("expired", LifeState.GRACE),
        ("terminated", LifeState.TERMINATED),
    )
)
"""Levels that are always there, by what ``balance.model.LifeState`` says."""


def levels_of(levels: tuple[Level, ...], account: Account, at_ms: int) -> tuple[str, ...]:
    """The names of the levels that an account is at, in the order of ``levels``; ``account.levels``: before."""
    before = account.levels
    return tuple(each.name for each in levels if each.holds(account, at_ms, each.name in before))


def used_until_it_changes(level: Level, value: int, inside: bool) -> int | None:
    """How much use, in the measure's unit, brings an account to a level or takes it off; None: no use does.

    ``inside``: whether it is at the level, with the measure at ``value``.
    """
    if level.measure.what is Measured.COUNTER or level.measure.what is Measured.SPENT:
        bound = level.stays.high + 1 if inside else level.enters.low
        return None if abs(bound) >= INFINITE else bound - value
    bound = level.stays.low - 1 if inside else level.enters.high
    return None if abs(bound) >= INFINITE else value - bound


def thresholds(levels: tuple[Level, ...], at: tuple[str, ...], limit_micro: int, *, up: bool) -> list[tuple[int, str]]:
    """Balances, micro-units, at which an account that is ``at`` some levels comes to, or leaves, each level of money.

    In the order in which they are met as the balance falls, or rises (``up``). ``limit_micro``: its credit limit.
    """
    found: list[tuple[int, str]] = []
    for each in levels:
        shift = limit_micro if each.measure.what is Measured.CREDIT else 0
        if each.name in at:
            bound = each.stays.high + 1 if up else each.stays.low - 1
        else:
            bound = each.enters.low if up else each.enters.high
        if abs(bound) < INFINITE:
            found.append((bound - shift, each.name))
    return sorted(found, reverse=not up)
