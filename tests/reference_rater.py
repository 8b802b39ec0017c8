"""A rater as a patient clerk would be one: unit by unit, second by second, in decimals. The oracle of the price tests.

Slow on purpose and written from the documents, not from ``occ.rating``. It takes prices as plain dictionaries, as a
catalogue has them: ``{"price": ("0.09", 60)}``, ``{"connection": "0.05", "first": ("0.1", 60), "then": ("0.01", 1)}``,
``{"tiers": [(100, ("0.01", 10)), (None, "free")], "counted": "month"}``; a tariff is a list of beginnings, each
``(days, minute of the day, price)``. Times of the local clock are found by letting the clock run, a quarter of an hour
at a time, and looking at it.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

MICRO = Decimal("0.000001")
QUARTER = timedelta(minutes=15)

PriceSpec = dict[str, Any]
Beginning = tuple[set[int], int, PriceSpec]
"""Days from 0, Monday; minute of the day, a multiple of 15; price."""


@dataclass
class Promotion:
    """Something off, or free units, always or at some hours."""

    percent: Decimal = Decimal(0)
    free: int = 0
    per: str = "call"
    """Or "day"."""
    stacks: bool = False
    hours: tuple[set[int], int, int] | None = None
    """Days on which they begin, minute they begin, minute they end."""


@dataclass
class Catalogue:
    """All that the price of a call depends on, beside the call."""

    tariff: list[Beginning]
    zone: ZoneInfo
    tax_percent: Decimal = Decimal(0)
    exclusive: bool = False
    promotions: list[Promotion] = field(default_factory=list)


@dataclass
class Customer:
    """What has happened before."""

    counted: int = 0
    """Units that had a price which is counted over a period, in that period so far."""
    cap_left: list[Decimal] = field(default_factory=list)
    used_of_day: dict[tuple[int, date | None], int] = field(default_factory=dict)
    """Units priced while a promotion (by its place) applied, on a local day."""


class ReferenceRater:
    """What calls cost."""

    def __init__(self, catalogue: Catalogue, customer: Customer) -> None:
        self.catalogue = catalogue
        self.customer = customer

    def call(self, begins: datetime, seconds: int) -> Decimal:
        """The price of a call that runs on for so many seconds from a moment, UTC."""
        return self._rate(seconds, [begins + timedelta(seconds=second) for second in range(seconds)], begins)

    def at_once(self, at: datetime, units: int) -> Decimal:
        """The price of units that are all used at one moment, UTC."""
        return self._rate(units, [at] * units, at)

    def _rate(self, units: int, moments: list[datetime], begins: datetime) -> Decimal:
        clock = Clock(self.catalogue, begins - timedelta(days=9))
        total = Decimal(0)
        period: Period | None = None
        for n in range(units):
            now = clock.at(moments[n])
            if period is None or now != period.conditions:
                if period is not None:
                    total += self._close(period)
                period = Period(self, now, n, total)
            period.unit()
        return total + (self._close(period) if period is not None else Decimal(0))

    def _close(self, period: "Period") -> Decimal:
        charge = period.charge()
        for left in self.customer.cap_left:
            charge = min(charge, left)
        self.customer.cap_left = [left - charge for left in self.customer.cap_left]
        return charge

    def gross(self, amount: str) -> Decimal:
        """An amount of the catalogue with tax, half up to a micro-unit."""
        net = Decimal(amount)
        if not self.catalogue.exclusive:
            return net
        return (net * (100 + self.catalogue.tax_percent) / 100).quantize(MICRO, ROUND_HALF_UP)


@dataclass(frozen=True)
class Conditions:
    """What the price of a unit is made of at a moment; where they change, a new period begins."""

    price: int
    """The first beginning that has this price."""
    percent: Decimal
    """Off."""
    free: tuple[tuple[int, str], ...]
    """Units that promotions have free, of what."""
    day: date | None
    """The local day, if units are free of each day."""
    counts: tuple[int, ...] = field(compare=False)
    """Places of the promotions whose free units of a day are being used up."""


class Period:
    """A stretch of a call under one price."""

    def __init__(self, rater: ReferenceRater, conditions: Conditions, units_before: int, cost_before: Decimal) -> None:
        catalogue, customer = rater.catalogue, rater.customer
        self.rater = rater
        self.conditions = conditions
        self.price = catalogue.tariff[conditions.price][2]
        self.raw = Decimal(0)
        self.raw_before = Decimal(0)
        if self.price.get("counted", "session") != "session":
            for position in range(customer.counted):
                self._unit_of_a_long_count(position)
            self.raw_before, self.raw = self.raw, Decimal(0)
        self.opened = False
        self.opens = cost_before == 0
        self.first_left = 0
        self.step_left = 0
        self.tier = -1
        promised = max((units - units_before for units, per in conditions.free if per == "call"), default=0)
        for place in conditions.counts:
            used = customer.used_of_day.get((place, conditions.day), 0)
            promised = max(promised, catalogue.promotions[place].free - used)
        own_free, first = self.price.get("free", 0), self.price.get("first", (None, 0))[1]
        own_left = max(0, own_free - units_before)
        self.free_left = max(own_left, promised)
        gone = units_before - own_free - (0 if self.opens else first)
        self.position = max(0, gone) + max(0, promised - own_left)

    def unit(self) -> None:
        """One unit more."""
        used = self.rater.customer.used_of_day
        for place in self.conditions.counts:
            key = place, self.conditions.day
            used[key] = used.get(key, 0) + 1
        if self.price.get("counted", "session") != "session":
            self._unit_of_a_long_count(self.rater.customer.counted)
            self.rater.customer.counted += 1
            return
        if self.free_left:
            self.free_left -= 1
            return
        if self.opens and not self.opened:
            self.opened = True
            self.raw += self.rater.gross(self.price.get("connection", "0"))
            if "first" in self.price:
                amount, self.first_left = self.price["first"]
                self.raw += self.rater.gross(amount)
        if self.first_left:
            self.first_left -= 1
            return
        self._unit_of_the_session()

    def _tier(self, position: int) -> tuple[int, int, Any]:
        """Place, beginning and price of the tier that the next unit belongs to."""
        tiers = self.price.get("tiers") or [(None, self.price.get("then", self.price.get("price")))]
        begins = 0
        for place, (up_to, step) in enumerate(tiers):
            if up_to is None or position < up_to:
                return place, begins, step
            begins = up_to
        raise AssertionError("the last tier has no end")

    def _unit_of_the_session(self) -> None:
        place, _, step = self._tier(self.position)
        self.position += 1
        if step == "free":
            self.tier, self.step_left = place, 0
            return
        amount, length = step
        if place != self.tier or not self.step_left:
            self.raw += self.rater.gross(amount)
            self.tier, self.step_left = place, length
        self.step_left -= 1

    def _unit_of_a_long_count(self, position: int) -> None:
        _, begins, step = self._tier(position)
        if step != "free" and (position - begins) % step[1] == 0:
            self.raw += self.rater.gross(step[0])

    def charge(self) -> Decimal:
        """What it costs, the discount taken off: off all that was counted, where the count began before."""
        raw = self.raw
        if self.opened:
            raw = max(raw, self.rater.gross(self.price.get("minimum", "0")))
        return self._less(self.raw_before + raw) - self._less(self.raw_before)

    def _less(self, raw: Decimal) -> Decimal:
        return raw - (raw * self.conditions.percent / 100).quantize(MICRO, ROUND_DOWN)


class Clock:
    """Runs through the local time and knows which beginnings have come, each once, and which hours are running."""

    def __init__(self, catalogue: Catalogue, starts: datetime) -> None:
        self.catalogue = catalogue
        minute = starts.minute - starts.minute % 15
        self.now = starts.replace(minute=minute, second=0, microsecond=0)
        self.seen: set[tuple[date, int, str, int]] = set()
        self.price = -1
        self.running: set[int] = set()
        self._look()

    def at(self, moment: datetime) -> Conditions:
        """What holds at a moment; moments must not go back."""
        while self.now + QUARTER <= moment:
            self.now += QUARTER
            self._look()
        price = self.catalogue.tariff[self.price][2]
        same = self._same(self.price)
        if price.get("price") == "free" and not {"connection", "minimum"} & price.keys():
            return Conditions(same, Decimal(0), (), None, ())
        taken: list[tuple[int, Promotion]] = []
        for place in sorted(self.running):
            promotion = self.catalogue.promotions[place]
            if not taken or (promotion.stacks and taken[0][1].stacks):
                taken.append((place, promotion))
        percent = min(Decimal(100), sum((each.percent for _, each in taken), Decimal(0)))
        if price.get("counted", "session") != "session":
            return Conditions(same, percent, (), None, ())
        free = tuple((each.free, each.per) for _, each in taken if each.free)
        counts = tuple(place for place, each in taken if each.free and each.per == "day")
        day = moment.astimezone(self.catalogue.zone).date() if counts else None
        return Conditions(same, percent, free, day, counts)

    def _same(self, place: int) -> int:
        """The first beginning with the same price: that another begins is no change."""
        tariff = self.catalogue.tariff
        return next(index for index, each in enumerate(tariff) if each[2] == tariff[place][2])

    def _look(self) -> None:
        local = self.now.astimezone(self.catalogue.zone)
        shown = (local.date(), local.hour * 60 + local.minute)
        for due in sorted(self._written(local.date() - timedelta(days=1)) + self._written(local.date())):
            day, minute, kind, place = due
            if (day, minute) <= shown and due not in self.seen:
                self.seen.add(due)
                if kind == "3 price":
                    self.price = place
                elif kind == "2 hours begin":
                    self.running.add(place)
                else:
                    self.running.discard(place)

    def _written(self, day: date) -> list[tuple[date, int, str, int]]:
        """All that is to happen on a day, in the order of its minutes."""
        found = [
            (day, minute, "3 price", place)
            for place, (days, minute, _) in enumerate(self.catalogue.tariff)
            if day.weekday() in days
        ]
        for place, promotion in enumerate(self.catalogue.promotions):
            if promotion.hours is None:
                self.running.add(place)
                continue
            days, begins, ends = promotion.hours
            if day.weekday() in days:
                found.append((day, begins, "2 hours begin", place))
            begun_on = day if ends > begins else day - timedelta(days=1)
            if begun_on.weekday() in days:
                found.append((day, ends, "1 hours end", place))
        return found
