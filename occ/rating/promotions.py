"""Promotions: what is taken off, given free or given on top, to whom and when.

A promotion has one effect and any number of conditions. What of them applies is decided when a service begins, when a
tariff switches and when it is rated anew, and kept with its price (``occ.rating.price``); bonuses are given when an
account is topped up, or when a day has come.

Which apply together: promotions are gone through in the order of the catalogue. The first whose conditions hold is
taken; another is taken as well if it and the first both say ``stacks: yes``. Discounts that are taken together add up,
to 100 % at most; of free units the largest number counts. It does not matter whether any of these are left: who has
used them up has had that promotion, and another only if it stacks.

Rounding: a discount is rounded down to a micro-unit (``discount``), so is a bonus that is a percentage (``bonus``).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from balance.model import Rate, Unit
from occ.rating.allowances import Validity
from occ.rating.discount import Discounted
from occ.rating.happy_hours import HappyHours
from occ.rating.local_time import Calendar
from occ.rating.percent import PPM
from occ.rating.periods import Counter, Period, Periods, months_later

__all__ = [
    "NOBODY",
    "NOTHING",
    "Applied",
    "Award",
    "Budget",
    "Conditions",
    "Customer",
    "FreeUnits",
    "Loyalty",
    "Off",
    "Promotion",
    "Promotions",
    "TopUpBonus",
    "Usage",
    "always",
    "nothing_counted",
]

Count = Callable[[Counter, int], int]
"""(counter, moment) -> units that the account's meter has counted in its period; 0 if that is over by the moment."""
Spend = Callable[[str, int], bool]
"""(promotion, amount) -> whether its budget has so much left, which is then gone; 0 asks whether there is any."""

FREE_UNITS_OF: Final = "free units of "
"""What the name of a meter of free units begins with."""
USAGE_FOR: Final = "usage for "
"""The same for a meter of usage that is a condition."""

_DAY_MS: Final = 86_400_000
_ONE_DAY: Final = timedelta(days=1)
_LOOK_AHEAD: Final = 16
"""Changes of conditions that are looked at for one that makes a difference; most of the time the first does."""


def always(name: str, amount: int) -> bool:  # noqa: ARG001 - a Spend
    """A ``Spend`` for budgets without an end."""
    return True


def nothing_counted(counter: Counter, at_ms: int) -> int:  # noqa: ARG001 - a Count
    """A ``Count`` of an account that has used nothing yet."""
    return 0


@dataclass(frozen=True, slots=True)
class Customer:
    """What promotions look at of who uses a service, or tops up an account."""

    segment: str = ""
    friends: tuple[bytes, ...] = ()
    """Friends-and-family numbers, E.164 without "+"."""
    activated_ms: int = 0
    """0: not known; nothing that depends on it applies."""
    cycle_day: int = 1
    """On which the months of the account begin."""


NOBODY: Final = Customer()


@dataclass(frozen=True, slots=True)
class Off:
    """Something is taken off the price."""

    ppm: int
    friends_only: bool = False
    """Of calls to a friends-and-family number."""


@dataclass(frozen=True, slots=True)
class FreeUnits:
    """The first units of a call, or of a day or month, cost nothing."""

    units: int
    period: Period
    """``Period.SESSION``: of each call."""
    counter: Counter
    """Counts what was priced while it applied; no meter for a session."""


@dataclass(frozen=True, slots=True)
class TopUpBonus:
    """Who tops up gets something on top."""

    from_micro: int
    """Of top-ups of so much or more."""
    bucket: str
    """Bonus or allowance of the catalogue that what is given belongs to."""
    priority: int
    validity: Validity
    ppm: int = 0
    """Part of the top-up, rounded down; or else ``amount``."""
    at_most_micro: int = 0
    """Of a part; 0: no limit."""
    unit: Unit = Unit.MONEY
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Loyalty:
    """Who has been a customer for so long gets something, once or again and again."""

    after_days: int
    bucket: str
    priority: int
    validity: Validity
    amount: int
    unit: Unit = Unit.MONEY
    every_months: int = 0
    """Months between two gifts; 0: it is given once."""
    at_top_up: bool = False
    """It waits for the first top-up on the day or after it; else it is given by the clock."""


@dataclass(frozen=True, slots=True)
class Usage:
    """So much must have been used in a period."""

    units: int
    counter: Counter


@dataclass(frozen=True, slots=True)
class Conditions:
    """When and for whom a promotion is; what is left out does not matter."""

    segments: frozenset[str] | None = None
    services: frozenset[str] | None = None
    plans: frozenset[str] | None = None
    from_ms: int = 0
    until_ms: int = 0
    """The first moment after it; 0: no end."""
    active_for_ms: int = 0
    """Of customers who were activated so long ago, or longer."""
    active_less_than_ms: int = 0
    """Of customers who were activated less than so long ago; 0: whenever."""
    usage: Usage | None = None
    hours: HappyHours | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a promotion may give away altogether.

    Of a discount it is what was taken off (``Promotions.saved``), of a bonus what was given; where it is counted in
    times, 1 for each bonus, or for each session that began with the promotion.
    """

    amount: int
    """Micro-units, or times."""
    in_times: bool = False


@dataclass(frozen=True, slots=True)
class Promotion:
    """One of the catalogue's promotions."""

    name: str
    effect: Off | FreeUnits | TopUpBonus | Loyalty
    conditions: Conditions = Conditions()
    budget: Budget | None = None
    stacks: bool = False

    def holds(self, customer: Customer, at_ms: int) -> bool:
        """Whether it is for such a customer at a moment, as far as the clock says."""
        when = self.conditions
        if at_ms < when.from_ms or (when.until_ms and at_ms >= when.until_ms):
            return False
        if when.segments is not None and customer.segment not in when.segments:
            return False
        if when.active_for_ms or when.active_less_than_ms:
            active_ms = at_ms - customer.activated_ms
            if not customer.activated_ms or active_ms < when.active_for_ms:
                return False
            if when.active_less_than_ms and active_ms >= when.active_less_than_ms:
                return False
        return when.hours is None or when.hours.at(at_ms)[0]

    def next_change_ms(self, customer: Customer, at_ms: int, periods: Periods) -> int:
        """The first moment after ``at_ms`` at which it may begin or cease to apply, or count anew; 0 for never."""
        when = self.conditions
        moments = [when.from_ms, when.until_ms]
        if customer.activated_ms and when.active_for_ms:
            moments.append(customer.activated_ms + when.active_for_ms)
        if customer.activated_ms and when.active_less_than_ms:
            moments.append(customer.activated_ms + when.active_less_than_ms)
        if when.hours is not None:
            moments.append(when.hours.at(at_ms)[1])
        if when.usage is not None:
            moments.append(periods.end_ms(when.usage.counter.period, at_ms, customer.cycle_day))
        if isinstance(self.effect, FreeUnits):
            moments.append(periods.end_ms(self.effect.period, at_ms, customer.cycle_day))
        return min((moment for moment in moments if moment > at_ms), default=0)


@dataclass(frozen=True, slots=True)
class Applied:
    """What promotions do to the price of a use at a moment."""

    names: tuple[str, ...] = ()
    """Those that apply, in the order of the catalogue."""
    discount_ppm: int = 0
    free_units: int = 0
    """Units that cost nothing from here on: what the use has had of them already is taken off."""
    free: tuple[tuple[int, Period], ...] = ()
    """How many units are free of what: what ``free_units`` are left of."""
    free_until_ms: int = 0
    """When these are counted anew; 0: not within the session."""
    ends_ms: int = 0
    """When other promotions apply, or count anew; 0: not in sight. To be asked again then."""
    counters: tuple[Counter, ...] = ()
    """The meters that must count the units of the use that are priced, whether one of the promotions applies or not."""
    kept_to_count: bool = False
    """A budget loses what is taken off, so the price is kept with its discount also where that is everything."""

    def without_free_units(self) -> "Applied":
        """The same for a price that has none: it uses none of them up either."""
        if not self.free:
            return self
        kept = tuple(counter for counter in self.counters if not counter.name.startswith(FREE_UNITS_OF))
        return replace(self, free_units=0, free=(), free_until_ms=0, counters=kept)


NOTHING: Final = Applied()


@dataclass(frozen=True, slots=True)
class Award:
    """Something that an account is given, as a bucket of its own: it is never paid out or given back as money."""

    name: str
    """The promotion."""
    unit: Unit
    amount: int
    """Micro-units of money, or units."""
    bucket: str
    """Name of the bucket: the bonus or allowance that it is of."""
    expires_ms: int
    """0: never."""
    priority: int
    at_ms: int
    """When it is given."""


@dataclass(frozen=True, slots=True)
class _Use:
    """What is asked about; moments come one after the other."""

    customer: Customer
    called: bytes
    count: Count
    spend: Spend
    used_units: int

    def left_of(self, free: FreeUnits, at_ms: int) -> int:
        gone = self.used_units if free.period == Period.SESSION else self.count(free.counter, at_ms)
        return max(0, free.units - gone)


class Promotions:
    """The promotions of a catalogue, in its order. Not to be changed once made."""

    __slots__ = ("_bonuses", "_calendar", "_loyalty", "_periods", "_relevant", "_uses", "all", "budgeted", "by_name")

    def __init__(self, promotions: Iterable[Promotion], calendar: Calendar) -> None:
        self.all = tuple(promotions)
        self.by_name = {promotion.name: promotion for promotion in self.all}
        self._calendar = calendar
        self._periods = Periods(calendar)
        self._uses = tuple(each for each in self.all if isinstance(each.effect, Off | FreeUnits))
        self._bonuses = tuple((each, each.effect) for each in self.all if isinstance(each.effect, TopUpBonus))
        self._loyalty = tuple((each, each.effect) for each in self.all if isinstance(each.effect, Loyalty))
        self._relevant: dict[tuple[str, str], tuple[Promotion, ...]] = {}
        self.budgeted = frozenset(each.name for each in self._uses if each.budget is not None)
        """Names of those that change prices and have a budget."""

    @property
    def reward_loyalty(self) -> bool:
        """Whether any gives something for staying."""
        return bool(self._loyalty)

    def for_use(
        self,
        service: str,
        plan: str,
        customer: Customer,
        at_ms: int,
        called: bytes = b"",
        count: Count = nothing_counted,
        spend: Spend = always,
        used_units: int = 0,
    ) -> Applied:
        """What applies to a use of a service at a moment: when it begins, or from which on it is rated anew.

        ``called``: the number that is called, as friends-and-family numbers are written. ``used_units``: what was
        priced in the session so far. ``count`` and ``spend`` are asked for promotions that need them only.
        """
        relevant = self._relevant.get((service, plan))
        if relevant is None:
            relevant = self._look_up(service, plan)
        if not relevant:
            return NOTHING
        use = _Use(customer, called, count, spend, used_units)
        applied = _applied(self._taken(relevant, use, at_ms), relevant, use, at_ms, self._periods)
        return replace(applied, ends_ms=self._ends_ms(applied, relevant, use, at_ms))

    def _look_up(self, service: str, plan: str) -> tuple[Promotion, ...]:
        found = tuple(
            each
            for each in self._uses
            if (each.conditions.services is None or service in each.conditions.services)
            and (each.conditions.plans is None or plan in each.conditions.plans)
        )
        self._relevant[service, plan] = found
        return found

    def _taken(self, relevant: tuple[Promotion, ...], use: _Use, at_ms: int) -> list[Promotion]:
        taken: list[Promotion] = []
        for each in relevant:
            if taken and not (each.stacks and taken[0].stacks):
                continue
            if _applies(each, use, at_ms):
                taken.append(each)
        return taken

    def _ends_ms(self, applied: Applied, relevant: tuple[Promotion, ...], use: _Use, at_ms: int) -> int:
        for _ in range(_LOOK_AHEAD):
            changes = [each.next_change_ms(use.customer, at_ms, self._periods) for each in relevant]
            at_ms = min((moment for moment in changes if moment), default=0)
            if not at_ms:
                return 0
            other = _applied(self._taken(relevant, use, at_ms), relevant, use, at_ms, self._periods)
            if (other.names, other.free_until_ms) != (applied.names, applied.free_until_ms):
                return at_ms
        return 0

    def saved(
        self, names: Iterable[str], rate: Rate, from_units: int, to_units: int, left_micro: int | None = None
    ) -> tuple[tuple[str, int], ...]:
        """(promotion, micro-units) that discounts took off the units beyond ``from_units``: what their budgets lose.

        ``rate``: the price kept with the service, which the promotions ``names`` apply to. ``left_micro``: what a cap
        would let them cost at most: nobody saves what would not have been asked for. Each has its share of the saving,
        rounded down; the first has what is left over.
        """
        if not isinstance(rate, Discounted):
            return ()
        saved = rate.saved_micro(to_units) - rate.saved_micro(from_units)
        if left_micro is not None:
            full = rate.rate.price_micro(to_units) - rate.rate.price_micro(from_units)
            saved = min(full, left_micro) - min(full - saved, left_micro)
        known = [(name, self.by_name[name].effect) for name in names if name in self.by_name]
        parts = [(name, effect.ppm) for name, effect in known if isinstance(effect, Off)]
        whole = sum(ppm for _, ppm in parts)
        shares = [(name, saved * ppm // whole) for name, ppm in parts]
        if shares:
            name, first = shares[0]
            shares[0] = name, first + saved - sum(micro for _, micro in shares)
        return tuple(shares)

    # -- what is given on top ----------------------------------------------------------------------------------------

    def on_top_up(
        self, amount_micro: int, plan: str, customer: Customer, at_ms: int, spend: Spend = always
    ) -> tuple[Award, ...]:
        """What a top-up brings on top of itself; budgets that have not enough left for it give nothing."""
        taken: list[Award] = []
        stacks = True
        for promotion, bonus in self._bonuses:
            if taken and not (stacks and promotion.stacks):
                continue
            if amount_micro < bonus.from_micro or not _for_plan(promotion, plan):
                continue
            if not promotion.holds(customer, at_ms):
                continue
            amount = bonus.amount
            if bonus.ppm:
                amount = amount_micro * bonus.ppm // PPM
                amount = min(amount, bonus.at_most_micro or amount)
            if amount and spend(promotion.name, _cost(promotion, amount)):
                taken.append(self._award(promotion, bonus, amount, at_ms))
                stacks = stacks and promotion.stacks
        return tuple(taken)

    def next_loyalty(self, plan: str, customer: Customer, after_ms: int) -> tuple[Award, ...]:
        """What the customer will be given next for staying, by each promotion that gives any; ``Award.at_ms`` is when.

        It is given at the first midnight by which the customer has been active so many whole days, and, where it is
        given again, at the midnight of the same day of later months (or of their last day). Whether the budget has as
        much left is to be asked when it is given: ``cost``.
        """
        found: list[Award] = []
        for promotion, loyalty in self._loyalty:
            if not customer.activated_ms or not _for_plan(promotion, plan):
                continue
            at_ms = self._loyal_ms(loyalty, customer, max(after_ms, promotion.conditions.from_ms - 1))
            if at_ms and promotion.holds(customer, at_ms):
                found.append(self._award(promotion, loyalty, loyalty.amount, at_ms))
        return tuple(found)

    def cost(self, award: Award) -> int:
        """What an award takes from the budget of its promotion."""
        return _cost(self.by_name[award.name], award.amount)

    def _loyal_ms(self, loyalty: Loyalty, customer: Customer, after_ms: int) -> int:
        """The first moment after ``after_ms`` at which it is given; 0 if it has been given all."""
        calendar = self._calendar
        first = calendar.day_of(customer.activated_ms + loyalty.after_days * _DAY_MS)
        if calendar.moment(first, 0) < customer.activated_ms + loyalty.after_days * _DAY_MS:
            first += _ONE_DAY
        count = 0
        if loyalty.every_months and after_ms > calendar.moment(first, 0):
            today = calendar.day_of(after_ms)
            passed = (today.year - first.year) * 12 + today.month - first.month
            count = passed // loyalty.every_months
        at_ms = calendar.moment(months_later(first, count * loyalty.every_months), 0)
        if at_ms > after_ms:
            return at_ms
        if not loyalty.every_months:
            return 0
        return calendar.moment(months_later(first, (count + 1) * loyalty.every_months), 0)

    def _award(self, promotion: Promotion, gift: TopUpBonus | Loyalty, amount: int, at_ms: int) -> Award:
        expires_ms = gift.validity.ends_ms(at_ms, self._calendar)
        return Award(promotion.name, gift.unit, amount, gift.bucket, expires_ms, gift.priority, at_ms)


def _for_plan(promotion: Promotion, plan: str) -> bool:
    return promotion.conditions.plans is None or plan in promotion.conditions.plans


def _cost(promotion: Promotion, amount: int) -> int:
    return 1 if promotion.budget is not None and promotion.budget.in_times else amount


def _applies(promotion: Promotion, use: _Use, at_ms: int) -> bool:
    if not promotion.holds(use.customer, at_ms):
        return False
    effect, usage = promotion.effect, promotion.conditions.usage
    if isinstance(effect, Off) and effect.friends_only and not (use.called and use.called in use.customer.friends):
        return False
    if usage is not None and use.count(usage.counter, at_ms) < usage.units:
        return False
    return promotion.budget is None or use.spend(promotion.name, 0)


def _applied(
    taken: list[Promotion], relevant: tuple[Promotion, ...], use: _Use, at_ms: int, periods: Periods
) -> Applied:
    ppm = free_units = 0
    free: list[tuple[int, Period]] = []
    anew: list[int] = []
    counters = [each.conditions.usage.counter for each in relevant if each.conditions.usage is not None]
    for promotion in taken:
        effect = promotion.effect
        if isinstance(effect, Off):
            ppm = min(PPM, ppm + effect.ppm)
        elif isinstance(effect, FreeUnits):
            free.append((effect.units, effect.period))
            free_units = max(free_units, use.left_of(effect, at_ms))
            if effect.period != Period.SESSION:
                counters.append(effect.counter)
                anew.append(periods.end_ms(effect.period, at_ms, use.customer.cycle_day))
    names = tuple(each.name for each in taken)
    counted = any(each.budget is not None and not each.budget.in_times for each in taken)
    return Applied(names, ppm, free_units, tuple(free), min(anew, default=0), 0, tuple(counters), counted)
