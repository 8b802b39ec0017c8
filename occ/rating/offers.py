"""Offers: what is charged by the clock, once or again and again, and what is given for it.

Read from the section ``offers`` of the catalogue; a plan lists its own under ``includes``::

    offers:
      small:
        fee: 9.99
        every: month                      # day, week, month, a time such as 30 d, or once
        starts: first of month            # or 15 of month, or cycle day; at once, which is the default: periods begin
                                          # when the offer is taken
        prorated: yes                     # a first month that is not whole costs, and gives, only its share
        gives: [data-5gb]                 # allowances, and bonuses that have an amount
        if_unpaid: retry every day        # or suspend, the default: nothing is given until somebody pays

Days, weeks and months are those of the catalogue's clock and begin at the time of day at which the offer was taken:
what was taken on the 31st is due on the last day of shorter months. With ``first of month`` they begin at its midnight,
with ``15 of month`` at that of the 15th, with ``cycle day`` at that of the day on which the months of the account begin
(``balance.accounts.Account.cycle_day``); a day that a month does not have is its last one.

A share is exact to the day: days from today to the end of the period, today among them, over the days of the period.
Fees are rounded down to a micro-unit, what is given is rounded up to a whole unit.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from balance.model import Unit
from occ.rating.allowances import Allowance, Bonus, read_money
from occ.rating.local_time import Calendar
from occ.rating.periods import cycle_of, months_later
from occ.rating.sizes import parse_size
from occ.rating.tax import NO_TAX, Tax
from occ.yamlmap import Node, nearest

__all__ = ["Every", "Offer", "Share", "Starts", "prorated_fee", "prorated_units", "read_offer"]

OFFER_KEYS: Final = ("fee", "every", "starts", "prorated", "gives", "if_unpaid")
SHORTEST_S: Final = 3600
LONGEST_S: Final = 10 * 366 * 86_400

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_RETRY: Final = "retry every "
_WEEK: Final = 7
_DAY_OF_MONTH: Final = re.compile(r"([1-9]|[12][0-9]|3[01]) of month", re.ASCII)


class Every(StrEnum):
    """How long a period of an offer is."""

    ONCE = "once"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TIME = "time"
    """So many seconds, ``Offer.period_s``."""


class Starts(StrEnum):
    """When a period of an offer begins."""

    AT_ONCE = "at once"
    FIRST_OF_MONTH = "first of month"
    DAY_OF_MONTH = "day of month"
    """On ``Offer.start_day``, which the catalogue writes as ``15 of month``."""
    CYCLE_DAY = "cycle day"
    """On the day on which the months of the account begin."""


class Share(NamedTuple):
    """Part of a period."""

    days_left: int
    days: int


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that a plan includes or a subscriber takes."""

    name: str
    fee_micro: int = 0
    every: Every = Every.MONTH
    period_s: int = 0
    """For ``Every.TIME``; else 0."""
    starts: Starts = Starts.AT_ONCE
    prorated: bool = False
    gives: tuple[str, ...] = ()
    """Allowances and bonuses that come with each period."""
    retry_s: int = 0
    """A fee that cannot be paid is asked for again after so long; 0: the offer is suspended."""
    start_day: int = 0
    """For ``Starts.DAY_OF_MONTH``; else 0."""

    def month_day(self, cycle_day: int) -> int:
        """The day on which its months begin, whenever it was taken; 0: on that on which it was."""
        if self.starts is Starts.AT_ONCE:
            return 0
        if self.starts is Starts.CYCLE_DAY:
            return cycle_day
        return self.start_day or 1

    def next_ms(self, since_ms: int, after_ms: int, calendar: Calendar, cycle_day: int = 1) -> int:
        """When the first period after ``after_ms`` begins, of an offer taken at ``since_ms``; 0 if none does.

        ``cycle_day``: of the account that has it.
        """
        if self.every is Every.ONCE:
            return 0
        if after_ms < since_ms:
            return since_ms
        if self.every is Every.TIME:
            period_ms = self.period_s * 1000
            return since_ms + ((after_ms - since_ms) // period_ms + 1) * period_ms
        month_day = self.month_day(cycle_day)
        if month_day:
            _, following = cycle_of(calendar.day_of(after_ms), month_day)
            while calendar.moment(following, 0) <= after_ms:
                _, following = cycle_of(following, month_day)
            return calendar.moment(following, 0)
        count = max(1, self._periods(calendar.day_of(since_ms), calendar.day_of(after_ms)))
        while (begins_ms := self._begins(since_ms, count, calendar)) <= after_ms:
            count += 1
        return begins_ms

    def share_left(self, since_ms: int, at_ms: int, calendar: Calendar, cycle_day: int = 1) -> Share:
        """What is left of the period in which ``at_ms`` lies, by the days of the calendar.

        Of a period in seconds it is counted in days of 24 hours, begun ones as whole; what is charged once is whole.
        """
        if self.every is Every.ONCE:
            return Share(1, 1)
        ends_ms = self.next_ms(since_ms, at_ms, calendar, cycle_day)
        if self.every is Every.TIME:
            return Share(-(-(ends_ms - at_ms) // _DAY_MS), max(1, -(-self.period_s * 1000 // _DAY_MS)))
        first, last, today = (
            self._first_day(ends_ms, since_ms, calendar, cycle_day),
            calendar.day_of(ends_ms),
            calendar.day_of(at_ms),
        )
        return Share(min((last - today).days or 1, (last - first).days), (last - first).days)

    def first_share(self, since_ms: int, calendar: Calendar, cycle_day: int = 1) -> Share:
        """The part of a period that is charged, and given, when the offer is taken."""
        return self.share_left(since_ms, since_ms, calendar, cycle_day) if self.prorated else Share(1, 1)

    def _periods(self, since: date, today: date) -> int:
        """About how many periods have begun since: not more."""
        if self.every is Every.MONTH:
            return (today.year - since.year) * 12 + today.month - since.month - 1
        return (today - since).days // (_WEEK if self.every is Every.WEEK else 1) - 1

    def _begins(self, since_ms: int, count: int, calendar: Calendar) -> int:
        """When the period after ``count`` others begins."""
        since = calendar.day_of(since_ms)
        if self.every is Every.MONTH:
            day = months_later(since, count)
        else:
            day = since + timedelta(days=count * (_WEEK if self.every is Every.WEEK else 1))
        minute = calendar.minute_of(since_ms)
        return calendar.moment(day, minute) + since_ms % _MINUTE_MS

    def _first_day(self, ends_ms: int, since_ms: int, calendar: Calendar, cycle_day: int) -> date:
        """The day on which the period that ends then began, or would have, had it been whole."""
        last = calendar.day_of(ends_ms)
        month_day = self.month_day(cycle_day)
        if month_day:
            return cycle_of(last - timedelta(days=1), month_day)[0]
        if self.every is Every.MONTH:
            since = calendar.day_of(since_ms)
            return months_later(since, (last.year - since.year) * 12 + last.month - since.month - 1)
        return last - timedelta(days=_WEEK if self.every is Every.WEEK else 1)


def prorated_fee(fee_micro: int, share: Share) -> int:
    """The part of a fee, rounded down to a micro-unit."""
    return fee_micro * share.days_left // share.days


def prorated_units(units: int, share: Share) -> int:
    """The part of what is given, rounded up to a whole unit."""
    return -(-units * share.days_left // share.days)


def read_offer(
    name: str, node: Node, allowances: dict[str, Allowance], bonuses: dict[str, Bonus], tax: Tax = NO_TAX
) -> Offer:
    """One of the section ``offers``. Raises ConfigError."""
    values = node.mapping(OFFER_KEYS, required=("every",))
    if "fee" not in values and "gives" not in values:
        raise node.error(f"{node.path} must have a fee or give something")
    every, period_s = _every(values["every"])
    start, start_day = _starts(values.get("starts"), every)
    prorated = values.get("prorated")
    if prorated is not None and prorated.boolean() and start is Starts.AT_ONCE:
        raise prorated.error(
            f"{prorated.path} needs 'starts: {Starts.FIRST_OF_MONTH}', or another day of the month: all other periods "
            "are whole"
        )
    return Offer(
        name,
        0 if "fee" not in values or values["fee"].text() == "free" else tax.gross(read_money(values["fee"])),
        every,
        period_s,
        start,
        prorated is not None and prorated.boolean(),
        _gives(values.get("gives"), allowances, bonuses),
        _retry(values.get("if_unpaid")),
        start_day,
    )


def _starts(node: Node | None, every: Every) -> tuple[Starts, int]:
    """When a period begins, and the day of the month if it is one that the offer names itself."""
    if node is None:
        return Starts.AT_ONCE, 0
    written = node.text()
    day = _DAY_OF_MONTH.fullmatch(written)
    known = (Starts.AT_ONCE, Starts.FIRST_OF_MONTH, Starts.CYCLE_DAY)
    if day is None and written not in known:
        raise node.error(
            f"{node.path} must be one of {', '.join(known)}, or a day of the month such as '15 of month', not "
            f"{written[:40]!r}{nearest(written, known)}"
        )
    start = Starts.DAY_OF_MONTH if day is not None else Starts(written)
    if start is not Starts.AT_ONCE and every is not Every.MONTH:
        raise node.error(f"{node.path} is for what is charged every month")
    return start, 0 if day is None else int(day[1])


def _every(node: Node) -> tuple[Every, int]:
    written = node.text()
    for every in (Every.ONCE, Every.DAY, Every.WEEK, Every.MONTH):
        if written == every.value:
            return every, 0
    try:
        return Every.TIME, _seconds(node, written)
    except ValueError:
        raise node.error(
            f"{node.path} must be once, day, week, month or a time such as '30 d', not {written[:40]!r}"
        ) from None


def _retry(node: Node | None) -> int:
    if node is None or node.text() == "suspend":
        return 0
    written = node.text()
    try:
        if not written.startswith(_RETRY):
            raise ValueError(written)
        after = written.removeprefix(_RETRY)
        return 86_400 if after == "day" else _seconds(node, after)
    except ValueError:
        raise node.error(
            f"{node.path} must be 'suspend', 'retry every day' or 'retry every' and a time such as '6 h', not "
            f"{written[:40]!r}"
        ) from None


def _seconds(node: Node, written: str) -> int:
    """Raises ValueError for what is no time, ConfigError for one that is too short or too long."""
    seconds = parse_size(written, Unit.SECONDS)
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise node.error(f"{node.path} must be from 1 h to 10 years")
    return seconds


def _gives(node: Node | None, allowances: dict[str, Allowance], bonuses: dict[str, Bonus]) -> tuple[str, ...]:
    found: list[str] = []
    for item in () if node is None else node.items():
        name = item.text()
        if name not in allowances and name not in bonuses:
            known = nearest(name, (*allowances, *bonuses))
            raise item.error(f"{item.path}: there is no allowance or bonus {name[:60]!r}{known}")
        if name in bonuses and not bonuses[name].amount_micro:
            raise item.error(f"{item.path}: the bonus {name} must say its amount to be given by an offer")
        if name in found:
            raise item.error(f"{name} stands twice in {node.path if node else item.path}")
        found.append(name)
    return tuple(found)
