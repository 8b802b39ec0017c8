"""Levels: what an account can be at, such as ``low``, ``zero`` or ``limit-reached``, by what it holds.

A level compares one measure of the account with two ranges: it is entered within the narrower and left outside the
wider one, so that an account that hovers about a threshold does not flap. Which levels an account was at is kept with
it (``Account.levels``); everything else follows from its present state. Pure; integers only.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from balance.model import Account, Bucket, LifeState, Unit

INFINITE: Final = 1 << 63
"""Beyond every amount of the ledger."""


class Measured(IntEnum):
    """What of an account a level looks at."""

    BALANCE = 0
    """Money that may be spent on anything, micro-units; what is reserved is still there. Below zero: owed."""
    CREDIT = 1
    """The same and the credit limit: what is left until nothing can be spent any more."""
    BUCKET = 2
    """What is left in the buckets of a name, in their unit."""
    COUNTER = 3
    """What a meter has counted in its running period: units of a service."""
    SPENT = 4
    """What a meter has counted in its running period: micro-units of money."""
    LIFE = 5
    """The account's LifeState, as a number."""


@dataclass(frozen=True, slots=True)
class Measure:
    what: Measured
    name: str = ""
    """Of the bucket or meter."""

    def of(self, account: Account, at_ms: int) -> int | None:
        """Its value at a moment; None: the account has nothing of the kind."""
        what = self.what
        if what is Measured.BALANCE:
            return money_of(account, at_ms)
        if what is Measured.CREDIT:
            return money_of(account, at_ms) + account.credit_limit_micro
        if what is Measured.BUCKET:
            found = [each for each in account.buckets if each.name == self.name]
            return sum(each.balance for each in found if not is_over(each, at_ms)) if found else None
        if what is Measured.LIFE:
            return int(account.state)
        for meter in account.meters:
            if meter.name == self.name:
                if at_ms >= meter.resets_ms:
                    return 0
                return meter.units if what is Measured.COUNTER else meter.micro
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


@dataclass(frozen=True, slots=True)
class Range:
    """Integers from ``low`` to ``high``, both included."""

    low: int = -INFINITE
    high: int = INFINITE

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Level:
    """A named state of an account. ``stays`` holds all of ``enters``."""

    name: str
    measure: Measure
    enters: Range
    stays: Range

    def holds(self, account: Account, at_ms: int, before: bool) -> bool:
        """Whether the account is at it, having been there before or not."""
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
    """The names of the levels that an account is at, in the order of ``levels``; ``account.levels`` are those before."""
    before = account.levels
    return tuple(each.name for each in levels if each.holds(account, at_ms, each.name in before))
