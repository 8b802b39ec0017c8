"""Prices of units, as ``balance.model.Rate`` asks for them: cumulative, in whole micro-units, never a float.

The one rounding rule lives in ``StepPrice``: usage is rounded up to whole steps, prices are never rounded.
``WorstOfTwo`` and ``HalfEach`` are for reservations only, where a grant may be used on both sides of a tariff switch.
"""

from math import gcd
from typing import Final, final

from balance.model import UNLIMITED, Rate, Unit

MAXIMUM_STEP_PRICE_MICRO: Final = 1_000_000_000_000
"""A million currency units for one step: above this a price is a mistake."""


@final
class StepPrice:
    """So much for each *started* step: usage is rounded up to whole steps, each charged in full.

    With 0.09 EUR per 60 s, 1 to 60 seconds cost 0.09 EUR and 61 seconds cost 0.18 EUR. Because the price is
    cumulative over a session, it does not matter into how many reports the usage is cut.
    """

    __slots__ = ("step_price_micro", "step_units", "unit")

    def __init__(self, unit: Unit, step_units: int, step_price_micro: int) -> None:
        """Raises ValueError for a step or price that is not positive, or absurdly large."""
        if not 1 <= step_units <= UNLIMITED:
            raise ValueError(f"a step must be at least 1 unit, not {step_units}")
        if not 1 <= step_price_micro <= MAXIMUM_STEP_PRICE_MICRO:
            raise ValueError(
                f"the price of a step must be from 1 to {MAXIMUM_STEP_PRICE_MICRO} micro-units, not "
                f"{step_price_micro}; what costs nothing has a FreePrice"
            )
        self.unit = unit
        self.step_units = step_units
        self.step_price_micro = step_price_micro

    def price_micro(self, units: int) -> int:
        """Price of the first ``units`` units: the started steps, counted up, times the price of one."""
        if units <= 0:
            return 0
        return (units + self.step_units - 1) // self.step_units * self.step_price_micro

    def affordable_units(self, amount_micro: int) -> int:
        """The units of all steps that ``amount_micro`` pays for in full; ``UNLIMITED`` at most."""
        if amount_micro <= 0:
            return 0
        units = amount_micro // self.step_price_micro * self.step_units
        return units if units < UNLIMITED else UNLIMITED

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, StepPrice)
            and self.unit == other.unit
            and self.step_units == other.step_units
            and self.step_price_micro == other.step_price_micro
        )

    def __hash__(self) -> int:
        return hash((self.unit, self.step_units, self.step_price_micro))

    def __repr__(self) -> str:
        return f"StepPrice({self.unit!r}, {self.step_units}, {self.step_price_micro})"


@final
class FreePrice:
    """Costs nothing, however much is used."""

    __slots__ = ("unit",)

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def price_micro(self, units: int) -> int:  # noqa: ARG002 - free for any number of units
        """0."""
        return 0

    def affordable_units(self, amount_micro: int) -> int:  # noqa: ARG002 - free without any money
        """``UNLIMITED``."""
        return UNLIMITED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreePrice) and self.unit == other.unit

    def __hash__(self) -> int:
        return hash(("free", self.unit))

    def __repr__(self) -> str:
        return f"FreePrice({self.unit!r})"


@final
class ClientRated:
    """What the client rated itself (decentralised rating, TS 32.299 clause 5.2.2): a micro-unit costs a micro-unit."""

    __slots__ = ("unit",)

    def __init__(self) -> None:
        self.unit = Unit.AMOUNT

    def price_micro(self, units: int) -> int:
        """The amount itself."""
        return units if units > 0 else 0

    def affordable_units(self, amount_micro: int) -> int:
        """The amount itself."""
        return amount_micro if amount_micro > 0 else 0


CLIENT_RATED: Final = ClientRated()

_MEMO_ENTRIES: Final = 4096
_memo: dict[tuple[int, int, int], StepPrice | FreePrice] = {}


def terms(rate: Rate) -> tuple[int, int]:
    """What has to be kept of a price to have it again: units of a step, micro-units for one; 0 micro-units are free."""
    return (rate.step_units, rate.step_price_micro) if isinstance(rate, StepPrice) else (1, 0)


def price_of(unit: int, step_units: int, step_price_micro: int) -> Rate:
    """The price that ``terms`` came from."""
    if unit == Unit.AMOUNT:
        return CLIENT_RATED
    key = (unit, step_units, step_price_micro)
    found = _memo.get(key)
    if found is None:
        if len(_memo) >= _MEMO_ENTRIES:
            _memo.clear()
        kind = Unit(unit)
        found = StepPrice(kind, step_units, step_price_micro) if step_price_micro else FreePrice(kind)
        _memo[key] = found
    return found


def _step(rate: Rate) -> tuple[int, int]:
    """Units of a step and its price in micro-units; 0 micro-units are free. Raises TypeError for what has no steps."""
    if isinstance(rate, StepPrice):
        return rate.step_units, rate.step_price_micro
    if isinstance(rate, FreePrice):
        return 1, 0
    if isinstance(rate, ClientRated):
        return 1, 1
    raise TypeError(f"{rate!r} is not a price of steps")


class _AcrossSwitch:
    """What the two prices of a reservation across a tariff switch have in common.

    ``now`` goes on with its count from ``paid_units``, whose price was ``priced_micro``; ``following`` counts from 0.
    """

    __slots__ = ("following", "now", "paid_units", "priced_micro", "start_micro", "unit")

    def __init__(self, now: Rate, following: Rate, paid_units: int, priced_micro: int) -> None:
        self.unit = now.unit
        self.now = now
        self.following = following
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


@final
class WorstOfTwo(_AcrossSwitch):
    """The most that further units can cost, however they fall before or after a tariff switch.

    For every split of n further units into k before the switch and n - k after it: what ``now`` asks for k more units
    and ``following`` for n - k is at most ``price_micro(paid_units + n) - priced_micro``. Both sides round up to
    started steps, so the worst split can cost more than either price alone: one unit beyond the switch starts a step
    there while the last step before it is not used up.

    It is the exact maximum where the steps of one price are as long as those of the other, or a multiple of them; else
    it is above it by less than a step of the price that is dearer per unit.
    """

    __slots__ = ("_dear", "_exact", "_first_micro", "_first_units", "_other")

    def __init__(self, now: Rate, following: Rate, paid_units: int, priced_micro: int) -> None:
        super().__init__(now, following, paid_units, priced_micro)
        step_units, step_micro = now_step = _step(now)
        next_step = _step(following)
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
        return self.priced_micro + self._cost((more + 1) // 2) if more >= 0 else self.before(units)

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

    def _cost(self, quota: int) -> int:
        before = self.now.price_micro(self.paid_units + quota) - self.priced_micro
        return (before if before > 0 else 0) + self.following.price_micro(quota)

    def _largest_quota(self, high: int, credit: int) -> int:
        """The largest quota, ``high`` at most, that costs no more than ``credit``."""
        if self._cost(high) <= credit:
            return high
        # Between what it is if every step is just begun, and if every step is used up, there is little to search.
        now_units, now_micro = _step(self.now)
        next_units, next_micro = _step(self.following)
        both_micro = now_micro * next_units + next_micro * now_units
        room = (credit + self.priced_micro) * now_units * next_units - self.paid_units * now_micro * next_units
        begun = now_micro * next_units * (now_units - 1) + next_micro * now_units * (next_units - 1)
        high = min(high, room // both_micro)
        low = max(0, (room - begun) // both_micro)
        if self._cost(low) > credit:
            low = 0
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(middle) <= credit:
                low = middle
            else:
                high = middle - 1
        return low


MULTIPLIER_DIGITS: Final = 18
"""As many as a Value-Digits, an Integer64, always has room for."""


def multiplier(rate: Rate) -> tuple[int, int] | None:
    """What a credit pool counts a unit of a service as: its price in micro-units (RFC 8506 sections 5.1.2 and 8.30).

    Value-Digits and Exponent of a Unit-Value (section 8.8), rounded to 18 digits where the price of a step does not
    divide, shortest form; None if the service is free. Raises TypeError for a price that has no steps.
    """
    step_units, step_micro = _step(rate)
    if not step_micro:
        return None
    exponent = len(str(step_micro)) - len(str(step_units)) - MULTIPLIER_DIGITS
    digits = _scaled(step_micro, step_units, exponent)
    if digits >= 10**MULTIPLIER_DIGITS:
        exponent += 1
        digits = _scaled(step_micro, step_units, exponent)
    while digits % 10 == 0:
        digits //= 10
        exponent += 1
    return digits, exponent


def _scaled(numerator: int, denominator: int, exponent: int) -> int:
    """``numerator / denominator / 10**exponent``, rounded half up."""
    if exponent < 0:
        numerator *= 10**-exponent
    else:
        denominator *= 10**exponent
    return (2 * numerator + denominator) // (2 * denominator)
