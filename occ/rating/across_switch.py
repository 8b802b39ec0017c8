"""Prices of a grant that may be used on both sides of a tariff switch; for reservations only.

Where both prices are made of started steps, what is reserved is exact, or nearly; where one is more than that (fees,
tiers, discounts) it is a bound that is never exceeded.
"""

from dataclasses import dataclass, replace
from math import gcd
from typing import final

from balance.model import UNLIMITED, Rate
from occ.rating.call_price import CallPrice
from occ.rating.discount import Discounted
from occ.rating.percent import PPM
from occ.rating.steps import ClientRated, FreePrice, StepPrice
from occ.rating.tiers import TieredPrice


def step_of(rate: Rate) -> tuple[int, int] | None:
    """Units of a step and its price in micro-units; 0 micro-units are free. None for a price of another kind."""
    if isinstance(rate, StepPrice):
        return rate.step_units, rate.step_price_micro
    if isinstance(rate, FreePrice):
        return 1, 0
    if isinstance(rate, ClientRated):
        return 1, 1
    return None


@dataclass(frozen=True, slots=True)
class Rise:
    """How a price can rise at most: by ``fixed_micro``, and ``micro`` for every ``units`` units."""

    fixed_micro: int
    micro: int
    units: int

    def over(self, units: int) -> int:
        """The most that so many further units can cost."""
        return self.fixed_micro + units * self.micro // self.units

    def within(self, amount_micro: int) -> int:
        """The greatest number of units with ``over`` at most ``amount_micro``, ``UNLIMITED`` at most; -1 for none."""
        left = amount_micro - self.fixed_micro
        if left < 0:
            return -1
        return min(((left + 1) * self.units - 1) // self.micro, UNLIMITED) if self.micro else UNLIMITED

    def steeper(self, other: "Rise") -> "Rise":
        """The most that units can cost which are divided between two prices anyhow."""
        fixed = self.fixed_micro + other.fixed_micro
        mine = self.micro * other.units >= other.micro * self.units
        return Rise(fixed, self.micro, self.units) if mine else Rise(fixed, other.micro, other.units)

    def beside(self, other: "Rise") -> "Rise":
        """The most that so many units cost at both of two prices."""
        return Rise(
            self.fixed_micro + other.fixed_micro,
            self.micro * other.units + other.micro * self.units,
            self.units * other.units,
        )


def rise_of(rate: Rate, paid_units: int) -> Rise:
    """How a price can rise beyond ``paid_units``. Raises TypeError for what is made for one operation only.

    A step that begins costs less than a step more than its share of the units; each tier may begin one.
    """
    if isinstance(rate, _Steepest):
        return rate.rise
    if isinstance(rate, _CallOrRest):
        return rise_of(rate.call, 0)
    step = step_of(rate)
    if step is not None:
        return Rise(_begun(*step), step[1], step[0])
    if isinstance(rate, TieredPrice):
        tiers = [(tier.step_units, tier.step_price_micro) for tier in rate.after(paid_units)]
        dearest = tiers[0]
        for tier in tiers:
            if tier[1] * dearest[0] > dearest[1] * tier[0]:
                dearest = tier
        return Rise(sum(_begun(*tier) for tier in tiers), dearest[1], dearest[0])
    if isinstance(rate, CallPrice):
        charged = paid_units - rate.free_units
        then = rise_of(rate.then, max(0, charged - rate.first_units))
        opening = max(rate.minimum_micro, rate.connection_micro + rate.first_micro) if charged <= 0 else 0
        return Rise(opening + then.fixed_micro, then.micro, then.units)
    if isinstance(rate, Discounted):
        full, left = rise_of(rate.rate, paid_units), PPM - rate.ppm
        return Rise(full.fixed_micro * left // PPM + 2, full.micro * left, full.units * PPM)
    raise TypeError(f"{rate!r} is a price for one operation, which no tariff switches to or from")


def _begun(step_units: int, step_micro: int) -> int:
    """What a step that has just begun costs beyond its share of the unit that began it, rounded up."""
    return -(-(step_units - 1) * step_micro // step_units)


class _Steepest(Rate):
    """The most that units can cost of a price with tiers: which of them they will fall into is not known yet."""

    __slots__ = ("rise", "unit")

    def __init__(self, rate: Rate) -> None:
        self.unit = rate.unit
        self.rise = rise_of(rate, 0)

    def price_micro(self, units: int) -> int:
        return self.rise.over(units) if units > 0 else 0

    def affordable_units(self, amount_micro: int) -> int:
        return max(0, self.rise.within(amount_micro))


class _CallOrRest(Rate):
    """The most that units can cost of a call that begins after the switch, or has begun before it."""

    __slots__ = ("call", "unit")

    def __init__(self, call: CallPrice) -> None:
        self.unit = call.unit
        self.call = replace(call, free_units=0)

    def price_micro(self, units: int) -> int:
        return max(self.call.price_micro(units), self.call.then.price_micro(units))

    def affordable_units(self, amount_micro: int) -> int:
        return min(self.call.affordable_units(amount_micro), self.call.then.affordable_units(amount_micro))


def _dearest(rate: Rate) -> Rate:
    """What a price can ask for at most once it is in force: units used until then may have used up what is free."""
    if isinstance(rate, Discounted):
        return Discounted(_dearest(rate.rate), rate.ppm)
    if isinstance(rate, CallPrice) and not isinstance(rate.then, TieredPrice):
        return _CallOrRest(rate)
    return _Steepest(rate) if isinstance(rate, CallPrice | TieredPrice) else rate


class _AcrossSwitch(Rate):
    """What the two prices of a reservation across a tariff switch have in common.

    ``now`` goes on with its count from ``paid_units``, whose price was ``priced_micro``; ``following`` counts from 0.
    Its free units may be used up before it is in force, and its tiers gone by: it is taken as if they were.
    """

    __slots__ = ("following", "now", "paid_units", "priced_micro", "start_micro", "unit")

    def __init__(self, now: Rate, following: Rate, paid_units: int, priced_micro: int) -> None:
        self.unit = now.unit
        self.now = now
        self.following = _dearest(following)
        self.paid_units = paid_units
        self.priced_micro = priced_micro
        self.start_micro = max(0, now.price_micro(paid_units) - priced_micro)
        """What is due for no further unit; 0 where the units paid were priced by ``now``."""

    def before(self, units: int) -> int:
        """Price of the first ``units`` units if those are fewer than were paid."""
        return min(self.now.price_micro(units), self.priced_micro)

    def affordable_before(self, amount_micro: int) -> int:
        """The same the other way round, for an amount that does not pay for what is due."""
        fewer = self.paid_units - 1
        if amount_micro < self.priced_micro:
            fewer = min(fewer, self.now.affordable_units(amount_micro))
        return max(fewer, 0)

    def at_both(self, units: int) -> int:
        """What so many further units cost before the switch, and as many after it."""
        before = self.now.price_micro(self.paid_units + units) - self.priced_micro
        return (before if before > 0 else 0) + self.following.price_micro(units)

    def most_at_both(self, low: int, high: int, amount_micro: int) -> int:
        """The most units from ``low`` to ``high`` that cost ``amount_micro`` at most at both prices; or ``low``."""
        while low < high:
            middle = (low + high + 1) // 2
            if self.at_both(middle) <= amount_micro:
                low = middle
            else:
                high = middle - 1
        return low


@final
class WorstOfTwo(_AcrossSwitch):
    """The most that further units can cost, however they fall before or after a tariff switch.

    For every split of n further units into k before the switch and n - k after it: what ``now`` asks for k more units
    and ``following`` for n - k is at most ``price_micro(paid_units + n) - priced_micro``. Both sides round up to
    started steps, so the worst split can cost more than either price alone: one unit beyond the switch starts a step
    there while the last step before it is not used up.

    Of prices of steps it is the exact maximum where the steps of one are as long as those of the other, or a multiple
    of them; else it is above it by less than a step of the price that is dearer per unit. Of other prices it is a
    bound: all of the units at both prices, or at the dearer one with every fee and a begun step of each tier on top,
    whichever is less.
    """

    __slots__ = ("_dear", "_exact", "_first_micro", "_first_units", "_other", "_rise")

    def __init__(self, now: Rate, following: Rate, paid_units: int, priced_micro: int) -> None:
        super().__init__(now, following, paid_units, priced_micro)
        now_step, next_step = step_of(now), step_of(following)
        self._rise: Rise | None = None
        if now_step is None or next_step is None:
            self._rise = rise_of(now, paid_units).steeper(rise_of(self.following, 0))
            return
        step_units, step_micro = now_step
        # The dearest way to use units on both sides: enough to start one more step here, one unit there, and what is
        # left filled with steps, as many of the dearer kind as fit.
        steps = -(-paid_units // step_units)
        self._first_units = steps * step_units - paid_units + 2
        self._first_micro = (steps + 1) * step_micro - priced_micro + next_step[1]
        now_is_dear = step_micro * next_step[0] >= next_step[1] * step_units
        self._dear, self._other = (now_step, next_step) if now_is_dear else (next_step, now_step)
        self._exact = gcd(step_units, next_step[0]) == min(step_units, next_step[0])

    def price_micro(self, units: int) -> int:
        """``priced_micro``, and the most that the units beyond ``paid_units`` can cost."""
        more = units - self.paid_units
        if more < 0:
            return self.before(units)
        if self._rise is not None:
            return self.priced_micro + min(self.at_both(more), self.start_micro + self._rise.over(more))
        cost = max(self.now.price_micro(units) - self.priced_micro, self.start_micro + self.following.price_micro(more))
        if more >= self._first_units and self._other[1]:
            both = self._first_micro + self._filled(more - self._first_units)
            if both > cost:
                cost = both
        return self.priced_micro + cost

    def affordable_units(self, amount_micro: int) -> int:
        """The greatest number of units, those paid among them, whose price is at most ``amount_micro``."""
        credit = amount_micro - self.priced_micro
        if credit < self.start_micro:
            return self.affordable_before(amount_micro)
        more = min(
            self.now.affordable_units(amount_micro) - self.paid_units,
            self.following.affordable_units(credit - self.start_micro),
        )
        if self._rise is not None:
            low = max(0, self._rise.within(credit - self.start_micro))
            return min(self.paid_units + self.most_at_both(low, max(low, more), credit), UNLIMITED)
        if more >= self._first_units and self._other[1]:
            left = credit - self._first_micro
            both = self._first_units + (self._fills(left) if left >= 0 else -1)
            if both < more:
                more = both
        return min(self.paid_units + more, UNLIMITED)

    def _filled(self, units: int) -> int:
        """Price of as many whole steps as fit into ``units``, at the dearest."""
        step_units, step_micro = self._dear
        if not self._exact:
            return units * step_micro // step_units
        steps, rest = divmod(units, step_units)
        return steps * step_micro + rest // self._other[0] * self._other[1]

    def _fills(self, amount_micro: int) -> int:
        """The greatest number of units with ``_filled`` at most ``amount_micro``."""
        step_units, step_micro = self._dear
        if not self._exact:
            return ((amount_micro + 1) * step_units - 1) // step_micro
        steps, rest_micro = divmod(amount_micro, step_micro)
        short_units, short_micro = self._other
        short = rest_micro // short_micro
        if (short + 1) * short_units >= step_units:
            return (steps + 1) * step_units - 1
        return steps * step_units + (short + 1) * short_units - 1


@final
class HalfEach(_AcrossSwitch):
    """Two quotas of the same size, one for before and one for after a tariff switch.

    ``price_micro(paid_units + 2 * q) - priced_micro`` is what ``now`` asks for q more units and ``following`` for q.
    An odd number of further units costs what the next even one does. The sum holds for two full quotas of q units paid
    in money; where an allowance pays for some of them, ``WorstOfTwo`` is the price that is never exceeded.
    """

    __slots__ = ()

    def price_micro(self, units: int) -> int:
        """``priced_micro``, and the price of half of the units beyond ``paid_units`` on either side."""
        more = units - self.paid_units
        return self.priced_micro + self.at_both((more + 1) // 2) if more >= 0 else self.before(units)

    def affordable_units(self, amount_micro: int) -> int:
        """``paid_units`` and the greatest even number of units whose price is at most ``amount_micro``."""
        credit = amount_micro - self.priced_micro
        if credit < self.start_micro:
            return self.affordable_before(amount_micro)
        high = min(
            self.now.affordable_units(amount_micro) - self.paid_units,
            self.following.affordable_units(credit - self.start_micro),
            (UNLIMITED - self.paid_units) // 2,
        )
        return self.paid_units + 2 * self._largest_quota(high, credit)

    def _largest_quota(self, high: int, credit: int) -> int:
        """The largest quota, ``high`` at most, that costs no more than ``credit``."""
        if self.at_both(high) <= credit:
            return high
        now_step, next_step = step_of(self.now), step_of(self.following)
        if now_step is None or next_step is None:
            rise = rise_of(self.now, self.paid_units).beside(rise_of(self.following, 0))
            low = max(0, rise.within(credit - self.start_micro))
            return self.most_at_both(low, high, credit)
        # Between what it is if every step is just begun, and if every step is used up, there is little to search.
        now_units, now_micro = now_step
        next_units, next_micro = next_step
        both_micro = now_micro * next_units + next_micro * now_units
        room = (credit + self.priced_micro) * now_units * next_units - self.paid_units * now_micro * next_units
        begun = now_micro * next_units * (now_units - 1) + next_micro * now_units * (next_units - 1)
        high = min(high, room // both_micro)
        low = max(0, (room - begun) // both_micro)
        if self.at_both(low) > credit:
            low = 0
        return self.most_at_both(low, high, credit)
