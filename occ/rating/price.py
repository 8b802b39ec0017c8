"""Prices of units, as ``balance.model.Rate`` asks for them: cumulative, in whole micro-units, never a float.

The kinds of price, and what each is made of:

- ``StepPrice``, ``FreePrice``, ``ClientRated`` (``occ.rating.steps``): so much for each started step;
- ``TieredPrice`` (``occ.rating.tiers``): steps whose price depends on how much was used before;
- ``CallPrice`` (``occ.rating.call_price``): fees, a first increment, a minimum, free units, around one of the above;
- ``Discounted`` (``occ.rating.discount``): any of these with something off.

These a service keeps while it runs, as integers: ``full_terms``, ``price_of``. For one operation only there are
``Capped`` and ``Limited`` (``occ.rating.caps``), ``WorstOfTwo`` and ``HalfEach`` (``occ.rating.across_switch``).

What is applied in which order, from the inside out: free units, increments or tiers, connection fee, minimum,
discount, cap. The rounding rules: ``steps`` (usage up to whole steps, each tier its own), ``discount`` (down),
``gross`` and ``tax`` (half up, ``occ.rating.tax``).
"""

from dataclasses import replace
from typing import Final

from balance.model import Rate, Unit
from occ.rating.across_switch import HalfEach, WorstOfTwo
from occ.rating.call_price import CallPrice, Following
from occ.rating.caps import Capped, Limited
from occ.rating.discount import Discounted, counted_over
from occ.rating.percent import PPM
from occ.rating.periods import Period
from occ.rating.steps import CLIENT_RATED, MAXIMUM_STEP_PRICE_MICRO, ClientRated, FreePrice, StepPrice
from occ.rating.tiers import Tier, TieredPrice

__all__ = [
    "CLIENT_RATED",
    "MAXIMUM_STEP_PRICE_MICRO",
    "CallPrice",
    "Capped",
    "ClientRated",
    "Discounted",
    "FreePrice",
    "HalfEach",
    "Limited",
    "StepPrice",
    "Tier",
    "TieredPrice",
    "WorstOfTwo",
    "continued",
    "counted_over",
    "discounted",
    "full_terms",
    "multiplier",
    "price_of",
    "terms",
    "with_free_units",
]

# -- what is kept of a price -----------------------------------------------------------------------------------------

_TIERS: Final = 1
_CALL: Final = 2
_DISCOUNT: Final = 3
"""What an entry of the further terms begins with; they are kept in stores and do not change."""
_LENGTHS: Final = {_CALL: 6, _DISCOUNT: 2}
_TIERS_AT: Final = 3
"""Numbers before the tiers themselves."""

_AMOUNT: Final = int(Unit.AMOUNT)
_MEMO_ENTRIES: Final = 4096
_memo: Final[dict[tuple[int, int, int, tuple[int, ...]], Rate]] = {}
_steps: Final[dict[int, StepPrice]] = {}
"""Of what costs so much for each step the price asked for last, which most often is the only one."""


def full_terms(rate: Rate) -> tuple[int, int, tuple[int, ...]]:
    """What has to be kept of a price to have it again: units of a step, micro-units for one, and what is more.

    0 micro-units are free. The step is that of the following increments, or of the first tier. Empty: nothing more.
    Raises TypeError for what is made for one operation only.
    """
    if isinstance(rate, StepPrice):
        return rate.step_units, rate.step_price_micro, ()
    if isinstance(rate, (FreePrice, ClientRated)):
        return 1, 0, ()
    if isinstance(rate, TieredPrice):
        first = rate.tiers[0]
        numbers = tuple(number for tier in rate.tiers for number in tier)
        return first.step_units, first.step_price_micro, (_TIERS, int(rate.counted), len(rate.tiers), *numbers)
    if isinstance(rate, CallPrice):
        step_units, step_micro, more = full_terms(rate.then)
        fees = rate.connection_micro, rate.first_units, rate.first_micro, rate.minimum_micro, rate.free_units
        return step_units, step_micro, (*more, _CALL, *fees)
    if isinstance(rate, Discounted):
        step_units, step_micro, more = full_terms(rate.rate)
        return step_units, step_micro, (*more, _DISCOUNT, rate.ppm)
    raise TypeError(f"{rate!r} is a price for one operation and is not kept")


def terms(rate: Rate) -> tuple[int, int]:
    """The step of ``full_terms``."""
    return full_terms(rate)[:2]


def price_of(unit: int, step_units: int, step_price_micro: int, more: tuple[int, ...] = ()) -> Rate:
    """The price that ``full_terms`` came from. Raises ValueError for terms that no price has."""
    if unit == _AMOUNT:
        return CLIENT_RATED
    if not more:
        steps = _steps.get(step_price_micro)
        if steps is not None and steps.step_units == step_units and steps.unit == unit:
            return steps
    key = (unit, step_units, step_price_micro, more)
    found = _memo.get(key)
    if found is None:
        if len(_memo) >= _MEMO_ENTRIES:
            _memo.clear()
        found = _memo[key] = _made(Unit(unit), step_units, step_price_micro, more)
    if isinstance(found, StepPrice):
        if len(_steps) >= _MEMO_ENTRIES:
            _steps.clear()
        _steps[step_price_micro] = found
    return found


def _made(unit: Unit, step_units: int, step_micro: int, more: tuple[int, ...]) -> Rate:
    rate: Rate = StepPrice(unit, step_units, step_micro) if step_micro else FreePrice(unit)
    at = 0
    while at < len(more):
        kind = more[at]
        length = _TIERS_AT + 3 * more[at + 2] if kind == _TIERS and len(more) > at + 2 else _LENGTHS.get(kind, 0)
        entry = more[at + 1 : at + length]
        if len(entry) + 1 != length:
            raise ValueError(f"the terms of a price cannot have {kind} at {at}: {more}")
        if kind == _TIERS:
            numbers = iter(entry[_TIERS_AT - 1 :])
            rate = TieredPrice(unit, tuple(map(Tier, numbers, numbers, numbers)), Period(entry[0]))
        elif kind == _DISCOUNT:
            rate = Discounted(rate, entry[0])
        elif isinstance(rate, StepPrice | FreePrice | TieredPrice):
            rate = CallPrice(rate, *entry)
        else:
            raise ValueError(f"the terms of a price cannot have {kind} at {at}: {more}")
        at += length
    return rate


# -- one price made of another ---------------------------------------------------------------------------------------


def continued(rate: Rate, units: int, cost_micro: int) -> Rate:
    """A price for a session that goes on with it: at a tariff switch, or when it is rated anew.

    ``units`` were priced in the session so far, at whatever price, and cost ``cost_micro``. What belongs to the
    beginning of a session is not asked for or given again: free units that are used up, and, once anything was
    charged, connection fee, first increment and minimum. Tiers of a session go on where they would be if all of it had
    had this price. Steps begin anew.
    """
    if isinstance(rate, (StepPrice, FreePrice)) or not units:
        return rate
    if isinstance(rate, Discounted):
        return Discounted(continued(rate.rate, units, cost_micro), rate.ppm)
    if isinstance(rate, TieredPrice):
        return _gone_by(rate, units)
    if isinstance(rate, CallPrice):
        free_units = max(0, rate.free_units - units)
        gone = units - rate.free_units - (rate.first_units if cost_micro else 0)
        then = _gone_by(rate.then, gone)
        if not cost_micro:
            return replace(rate, then=then, free_units=free_units)
        return CallPrice(then, free_units=free_units) if free_units else then
    return rate


def _gone_by(rate: Following, units: int) -> Following:
    """What is left of the tiers of a session when so many units have gone by."""
    if not isinstance(rate, TieredPrice) or rate.counted != Period.SESSION or units <= 0:
        return rate
    tiers = rate.after(units)
    if len(tiers) > 1:
        return TieredPrice(rate.unit, tiers)
    _, step_units, step_micro = tiers[0]
    return StepPrice(rate.unit, step_units, step_micro) if step_micro else FreePrice(rate.unit)


def with_free_units(rate: Rate, units: int) -> Rate:
    """A price of which the first units are free: so many, or those that are free anyway, whichever are more.

    Tiers count what is free here as used. A price that is counted over a day or a month stays as it is: its free units
    are a free tier.
    """
    if units <= 0 or counted_over(rate) != Period.SESSION:
        return rate
    if isinstance(rate, Discounted):
        return Discounted(with_free_units(rate.rate, units), rate.ppm)
    if isinstance(rate, CallPrice):
        more = units - rate.free_units
        return replace(rate, then=_gone_by(rate.then, more), free_units=units) if more > 0 else rate
    if isinstance(rate, StepPrice | TieredPrice):
        then = _gone_by(rate, units)
        return then if isinstance(then, FreePrice) else CallPrice(then, free_units=units)
    return rate


def discounted(rate: Rate, ppm: int) -> Rate:
    """A price less so many millionths of it; free where nothing is left, as it is where nothing is taken off."""
    if ppm <= 0 or isinstance(rate, FreePrice):
        return rate
    return Discounted(rate, ppm) if ppm < PPM else FreePrice(rate.unit)


# -- credit pools ----------------------------------------------------------------------------------------------------

MULTIPLIER_DIGITS: Final = 18
"""As many as a Value-Digits, an Integer64, always has room for."""


def multiplier(rate: Rate) -> tuple[int, int] | None:
    """What a credit pool counts a unit of a service as: its price in micro-units (RFC 8506 sections 5.1.2 and 8.30).

    Value-Digits and Exponent of a Unit-Value (section 8.8), rounded to 18 digits where the price of a step does not
    divide, shortest form; of a call it is the price of its following increments. None if that is free, and for tiers,
    of which no unit has a price of its own. Raises TypeError for a reservation across a tariff switch.
    """
    step = _unit_price(rate)
    if step is None or not step[1]:
        return None
    step_units, step_micro = step
    exponent = len(str(step_micro)) - len(str(step_units)) - MULTIPLIER_DIGITS
    digits = _scaled(step_micro, step_units, exponent)
    if digits >= 10**MULTIPLIER_DIGITS:
        exponent += 1
        digits = _scaled(step_micro, step_units, exponent)
    while digits % 10 == 0:
        digits //= 10
        exponent += 1
    return digits, exponent


def _unit_price(rate: Rate) -> tuple[int, int] | None:
    """(units, what so many cost in micro-units); None where no unit has a price of its own."""
    while isinstance(rate, Capped | Limited):
        rate = rate.rate
    if isinstance(rate, Discounted):
        full = _unit_price(rate.rate)
        return None if full is None else (full[0] * PPM, full[1] * (PPM - rate.ppm))
    if isinstance(rate, CallPrice):
        return _unit_price(rate.then)
    if isinstance(rate, TieredPrice):
        return None
    if isinstance(rate, ClientRated):
        return 1, 1
    if isinstance(rate, (StepPrice, FreePrice)):
        return terms(rate)
    raise TypeError(f"{rate!r} is not a price of steps")


def _scaled(numerator: int, denominator: int, exponent: int) -> int:
    """``numerator / denominator / 10**exponent``, rounded half up."""
    if exponent < 0:
        numerator *= 10**-exponent
    else:
        denominator *= 10**exponent
    return (2 * numerator + denominator) // (2 * denominator)
