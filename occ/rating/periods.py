"""Periods that something is counted over: a session, a local day, a local month.

A month begins on the *cycle day* of the account, the first of the calendar month unless it says otherwise. A cycle day
that a month does not have is its last one: a cycle of the 31st begins on 31 January, 28 or 29 February, 31 March.
"""

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
    """From the midnight at which a cycle day begins to that of the next month's."""


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


def in_month_of(day: date, cycle_day: int) -> date:
    """The cycle day of the month in which ``day`` lies: its last day, if it is shorter."""
    return months_later(date(day.year, 1, 1).replace(day=cycle_day), day.month - 1)


def cycle_of(day: date, cycle_day: int) -> tuple[date, date]:
    """The days on which the cycle of ``day`` begins, and the next one."""
    first = in_month_of(day, cycle_day)
    if first > day:
        first = in_month_of(months_later(day.replace(day=1), -1), cycle_day)
    return first, in_month_of(months_later(first.replace(day=1), 1), cycle_day)


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
        self._kept: dict[tuple[Period, int], tuple[int, int]] = {}

    def end_ms(self, period: Period, at_ms: int, cycle_day: int = 1) -> int:
        """The first moment after ``at_ms`` that belongs to the next period; 0 for a session, whose end nobody knows.

        ``cycle_day``: on which months begin, 1 to 31.
        """
        if period == Period.SESSION:
            return 0
        begun_ms, ends_ms = self._kept.get((period, cycle_day), (0, 0))
        if not begun_ms <= at_ms < ends_ms:
            begun_ms, ends_ms = self._look_up(period, at_ms, cycle_day)
            self._kept[period, cycle_day] = begun_ms, ends_ms
        return ends_ms

    def _look_up(self, period: Period, at_ms: int, cycle_day: int) -> tuple[int, int]:
        calendar = self._calendar
        first = calendar.day_of(at_ms)
        if period == Period.DAY:
            following = first + _ONE_DAY
            # Where clocks are put back at midnight the next day has begun before this one is over.
            if calendar.moment(following, 0) <= at_ms:
                first, following = following, following + _ONE_DAY
        else:
            first, following = cycle_of(first, cycle_day)
            if calendar.moment(following, 0) <= at_ms:
                first, following = cycle_of(following, cycle_day)
        return calendar.moment(first, 0), calendar.moment(following, 0)


def read_period(node: Node) -> Period:
    """ "day" or "month". Raises ConfigError."""
    return WORDS[node.choice(tuple(WORDS))]
