"""Prices by time: which price a service has at a moment, and until when.

A tariff is one price, or beginnings with the price that holds from each on, by the local clock of the catalogue's time
zone. What holds when:

- A price holds from its beginning until the next beginning of the week, over midnight and from Sunday to Monday.
- A beginning names the days it is for (``Mo-Fr 07:00``), or none (``08:00``) and is for every day of the week. One
  tariff does one or the other: whether "08:00" is meant for a Sunday that has its own beginnings would be a guess.
- Beginnings for ``holidays`` lie over the week: on a holiday, from the first of them until midnight, they hold and no
  others. Before that, and after midnight, the price is what the week says, as if there had been no holiday.
- Where the clock is put forward over a beginning, it takes effect at that moment; where the clock shows a beginning
  twice, it takes effect the first time. Days of 23 and 25 hours come out as they are.
- A beginning that changes nothing is no change of price: neighbours of the same price are one period.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from balance.model import Rate, Unit
from occ.rating.local_time import UTC_CALENDAR, Calendar
from occ.rating.sizes import single_value
from occ.rating.tax import NO_TAX, Tax
from occ.rating.written_price import is_price_mapping, read_price
from occ.yamlmap import Node
from protocols.diameter.codes import ResultCode


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a tariff says of a service that sells no units: the Result-Code that a request for it gets."""

    result_code: int


UNCONTROLLED: Final = Refusal(int(ResultCode.CREDIT_CONTROL_NOT_APPLICABLE))
"""4011: the client may deliver the service without credit control (RFC 8506 section 9.1)."""
DENIED: Final = Refusal(int(ResultCode.END_USER_SERVICE_DENIED))
"""4010: not now; the client may ask again (RFC 8506 section 9.1)."""
FORBIDDEN: Final = Refusal(int(ResultCode.AUTHORIZATION_REJECTED))
"""5003: not at all (RFC 6733 section 7.1.5)."""

REFUSALS: Final = {"uncontrolled": UNCONTROLLED, "denied": DENIED, "forbidden": FORBIDDEN}
"""By the word that stands for each in the catalogue."""

Price = Rate | Refusal
"""What a tariff says of a moment; ``isinstance(price, Refusal)`` tells the two apart."""

HOLIDAY: Final = 7
"""Stands among the days of a beginning for holidays; Monday is 0, Sunday 6."""
EVERY_DAY: Final = frozenset(range(7))

EARLIEST_MS: Final = -(1 << 62)
LATEST_MS: Final = 1 << 62

_DAYS: Final = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
_BEGINNING: Final = re.compile(r"(?:(.+) )?([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_ONE_DAY: Final = timedelta(days=1)
_WHOLE_WEEK: Final = 8
"""Days in a row, none of them a holiday, after which every weekday has been seen from its first minute on."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """A price, and when it begins."""

    price: Price
    minute: int = 0
    """Since midnight by the local clock, 0 to 1439."""
    days: frozenset[int] = EVERY_DAY
    """0 (Monday) to 6 (Sunday), and ``HOLIDAY``."""
    written: str = ""
    """As it stands in the catalogue, such as "Mo-Fr 07:00"; empty for the only price of a tariff."""


_Day = tuple[tuple[int, Price, str], ...]
"""When the prices of a day begin, in minutes, the first at 0, rising; the prices; how their beginnings are written."""


class Tariff:
    """The prices of one service under one plan, all for the same unit. Not to be changed once made."""

    __slots__ = (
        "_band",
        "_calendar",
        "_from_ms",
        "_holidays",
        "_kept",
        "_other_from_ms",
        "_other_kept",
        "_other_until_ms",
        "_until_ms",
        "_week",
        "beginnings",
    )

    def __init__(self, beginnings: tuple[Beginning, ...], calendar: Calendar = UTC_CALENDAR) -> None:
        """Of two beginnings for the same minute the later counts. Raises ValueError if the week has no beginning."""
        self.beginnings = beginnings
        """As they stand in the catalogue."""
        self._calendar = calendar
        self._week = _week(beginnings)
        self._holidays = _over(self._week, _on(beginnings, HOLIDAY)) if calendar.holidays else self._week
        # The two periods asked for last: who asks for the price now often asks for the next one in the same breath.
        self._from_ms = self._until_ms = self._other_from_ms = self._other_until_ms = 0
        self._kept: tuple[Price, int] = (beginnings[0].price, 0)
        self._other_kept = self._kept
        self._band = (0, 0, "")
        if all(price == self._kept[0] for day in self._week + self._holidays for _, price, _ in day):
            self._from_ms, self._until_ms = EARLIEST_MS, LATEST_MS
            self._band = EARLIEST_MS, LATEST_MS, ""

    @classmethod
    def of(cls, price: Price) -> "Tariff":
        """A tariff of one price."""
        return cls((Beginning(price),))

    def at(self, at_ms: int) -> tuple[Price, int]:
        """The price in force at a moment and the moment when the next, different one begins; 0 if none ever does.

        Moments are milliseconds since the Unix epoch, UTC.
        """
        if self._from_ms <= at_ms < self._until_ms:
            return self._kept
        if self._other_from_ms <= at_ms < self._other_until_ms:
            return self._other_kept
        return self._look_up(at_ms)

    def band(self, at_ms: int) -> str:
        """The beginning in force at a moment as it is written, such as "Mo-Fr 08:00": the name of the time band. Empty
        for a tariff whose price never changes.
        """
        from_ms, until_ms, written = self._band
        if not from_ms <= at_ms < until_ms:
            from_ms, until_ms, _, written = self._in_force(at_ms)
            self._band = from_ms, until_ms, written
        return written

    def _look_up(self, at_ms: int) -> tuple[Price, int]:
        from_ms, _, price, _ = self._in_force(at_ms)
        until_ms = self._change_after(at_ms, price)
        self._other_from_ms, self._other_until_ms, self._other_kept = self._from_ms, self._until_ms, self._kept
        self._from_ms, self._until_ms, self._kept = from_ms, until_ms or LATEST_MS, (price, until_ms)
        return self._kept

    def _in_force(self, at_ms: int) -> tuple[int, int, Price, str]:
        """What is in force at a moment: when it began, or was written to begin again; when the next one does, which may
        be the same; the price; how its beginning is written.
        """
        today = self._calendar.day_of(at_ms)
        next_ms = LATEST_MS
        # Where clocks are put back at midnight, the next day has begun before this one is over.
        for day in (today + _ONE_DAY, today):
            for minute, price, written in reversed(self._prices_of(day)):
                begins_ms = self._calendar.moment(day, minute)
                if begins_ms <= at_ms:
                    return begins_ms, next_ms, price, written
                next_ms = begins_ms
        raise ValueError(f"{today} begins after {at_ms}")  # contradicts Calendar.moment

    def _change_after(self, at_ms: int, price: Price) -> int:
        """When the next price that is not ``price`` begins; 0 for never."""
        day: date | None = self._calendar.day_of(at_ms)
        ordinary_days = 0
        while day is not None:
            for minute, other, _ in self._prices_of(day):
                if other != price:
                    begins_ms = self._calendar.moment(day, minute)
                    # Of several that begin when the clock leaps over them, only the last comes into force.
                    if begins_ms > at_ms and self._in_force(begins_ms)[2] != price:
                        return begins_ms
            ordinary_days = 0 if self._calendar.is_holiday(day) else ordinary_days + 1
            day += _ONE_DAY
            if ordinary_days == _WHOLE_WEEK:  # only a holiday can still change anything
                ordinary_days = 0
                day = self._calendar.next_holiday(day)
        return 0

    def _prices_of(self, day: date) -> _Day:
        return (self._holidays if self._calendar.is_holiday(day) else self._week)[day.weekday()]


def _on(beginnings: tuple[Beginning, ...], day: int) -> _Day:
    """What is written for a day, in the order of time."""
    found = {each.minute: (each.minute, each.price, each.written) for each in beginnings if day in each.days}
    return tuple(found[minute] for minute in sorted(found))


def _week(beginnings: tuple[Beginning, ...]) -> tuple[_Day, ...]:
    """Every day of the week from its first minute on: until its first beginning the price of the night goes on."""
    written = [_on(beginnings, day) for day in range(7)]
    last = next((day[-1] for day in reversed(written) if day), None)
    if last is None:
        raise ValueError("a tariff must have a beginning on a day of the week: holidays alone leave the others without")
    days: list[_Day] = []
    for day in written:
        days.append(day if day and not day[0][0] else ((0, *last[1:]), *day))
        last = days[-1][-1]
    return tuple(days)


def _over(week: tuple[_Day, ...], holiday: _Day) -> tuple[_Day, ...]:
    """The days of the week if they are holidays."""
    if not holiday:
        return week
    first = holiday[0][0]
    return tuple((*(each for each in day if each[0] < first), *holiday) for day in week)


def read_tariff(node: Node, unit: Unit, calendar: Calendar, tax: Tax = NO_TAX) -> Tariff:
    """The tariff of a service in ``unit``: one price, or a mapping of beginnings to prices. Raises ConfigError."""
    if single_value(node) is not None or is_price_mapping(node):
        return Tariff((Beginning(_price(node, unit, tax)),), calendar)
    beginnings: list[Beginning] = []
    for key, value in node.table():
        days, minute = _beginning(key, calendar)
        for earlier in beginnings:
            _check_together(key, earlier, days, minute)
        beginnings.append(Beginning(_price(value, unit, tax), minute, days, key.text()))
    if not beginnings:
        raise node.error(f"{node.path} must be a price, or a mapping of beginnings such as '08:00' to prices")
    try:
        return Tariff(tuple(beginnings), calendar)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def _beginning(key: Node, calendar: Calendar) -> tuple[frozenset[int], int]:
    """Days and minute of a beginning such as "08:00", "Mo-Fr 07:00" or "Sa,Su,holidays 00:00"."""
    match = _BEGINNING.fullmatch(key.text())
    if match is None:
        raise key.error(
            f"a price begins at a time such as '08:00' or 'Mo-Fr 07:00', from 00:00 to 23:59, not {key.text()[:40]!r}"
        )
    days = EVERY_DAY if match.group(1) is None else parse_days(key, match.group(1))
    if HOLIDAY in days and not calendar.holidays:
        raise key.error("the catalogue lists no holidays; list them at its top, such as holidays: [2026-12-25]")
    return days, int(match.group(2)) * 60 + int(match.group(3))


def parse_days(key: Node, written: str) -> frozenset[int]:
    """The days in "Mo-We,Fr" or "Sa,Su,holidays", as ``Beginning.days``. Raises ConfigError."""
    found: set[int] = set()
    for part in written.split(","):
        first, dash, last = part.strip().partition("-")
        if first == "holidays" and not dash:
            found.add(HOLIDAY)
            continue
        if first not in _DAYS or (dash and last not in _DAYS):
            raise key.error(
                f"{part.strip()[:40]!r} is no day: days are {', '.join(_DAYS)} and holidays, with '-' for ranges and "
                "',' for lists such as Mo-We,Fr"
            )
        start = _DAYS.index(first)
        length = (_DAYS.index(last) - start) % 7 if dash else 0
        found.update((start + step) % 7 for step in range(length + 1))
    return frozenset(found)


def _check_together(key: Node, earlier: Beginning, days: frozenset[int], minute: int) -> None:
    written = key.text()
    if minute == earlier.minute and days & earlier.days:
        raise key.error(f"{written!r} begins when {earlier.written!r} does: two prices for the same time")
    if (" " in written) != (" " in earlier.written) and (days & EVERY_DAY) and (earlier.days & EVERY_DAY):
        raise key.error(
            f"{written!r} and {earlier.written!r}: name the days in all beginnings of a tariff, Mo-Su for every day, "
            "or in none"
        )


def _price(node: Node, unit: Unit, tax: Tax) -> Price:
    written = single_value(node)
    return REFUSALS[written] if written in REFUSALS else read_price(node, unit, tax, tuple(REFUSALS))
