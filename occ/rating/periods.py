"""Periods that something is counted over: a session, a local day, a local month."""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from typing import Final

from occ.rating.local_time import Calendar
from occ.yamlmap import Node

_ONE_DAY: Final = timedelta(days=1)


class Period(IntEnum):
    """The numbers are kept with prices in the store; they do not change."""

    SESSION = 0
    """A call, a data session: its own count, which no meter keeps."""
    DAY = 1
    """From midnight to midnight by the catalogue's clock, 23 to 25 hours."""
    MONTH = 2
    """From the first midnight of a calendar month to that of the next."""


WORDS: Final = {"day": Period.DAY, "month": Period.MONTH}
"""Periods that a meter counts over, by the word that stands for each in the catalogue."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A meter of the account (``balance.model.Meter``) that a price, a cap or a promotion needs."""

    name: str
    """Name of the meter: what it counts and over which period, such as "internet per month"."""
    period: Period


def counter_of(what: str, period: Period) -> Counter:
    """The meter that counts something over a period."""
    return Counter(f"{what} per {period.name.lower()}", period)


def months_later(day: date, count: int) -> date:
    """The same day of a later month, or the last one of a month that is shorter."""
    months = day.year * 12 + day.month - 1 + count
    first = date(months // 12, months % 12 + 1, 1)
    length = ((first + 31 * _ONE_DAY).replace(day=1) - first).days
    return first.replace(day=min(day.day, length))


class Periods:
    """When the periods of a calendar end; the one asked for last is kept, so that asking again costs nothing."""

    __slots__ = ("_calendar", "_kept")

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._kept: dict[Period, tuple[int, int]] = {}

    def end_ms(self, period: Period, at_ms: int) -> int:
        """The first moment after ``at_ms`` that belongs to the next period; 0 for a session, whose end nobody knows."""
        if period == Period.SESSION:
            return 0
        begun_ms, ends_ms = self._kept.get(period, (0, 0))
        if not begun_ms <= at_ms < ends_ms:
            begun_ms, ends_ms = self._look_up(period, at_ms)
            self._kept[period] = begun_ms, ends_ms
        return ends_ms

    def _look_up(self, period: Period, at_ms: int) -> tuple[int, int]:
        calendar = self._calendar
        first = calendar.day_of(at_ms)
        if period == Period.DAY:
            following = first + _ONE_DAY
            # Where clocks are put back at midnight the next day has begun before this one is over.
            if calendar.moment(following, 0) <= at_ms:
                first, following = following, following + _ONE_DAY
        else:
            first = first.replace(day=1)
            following = months_later(first, 1)
            if calendar.moment(following, 0) <= at_ms:
                first, following = following, months_later(following, 1)
        return calendar.moment(first, 0), calendar.moment(following, 0)


def read_period(node: Node) -> Period:
    """ "day" or "month". Raises ConfigError."""
    return WORDS[node.choice(tuple(WORDS))]
