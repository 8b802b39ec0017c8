"""Prices in words, for people: what ``occ catalogue check`` lists and ``occ rate`` explains."""

from typing import NamedTuple

from balance.model import Rate, Unit
from occ.cli_shell import units_text
from occ.rating.call_price import CallPrice
from occ.rating.discount import Discounted
from occ.rating.percent import percent_text
from occ.rating.periods import Period
from occ.rating.steps import FreePrice, StepPrice
from occ.rating.tariff import REFUSALS, Price, Refusal
from occ.rating.tiers import Tier, TieredPrice


def price_text(price: Price, currency: int) -> str:
    """'0.09 EUR per 60 s', 'free', '0.05 EUR connection, then 0.09 EUR per 60 s, at least 0.12 EUR'."""
    if isinstance(price, Refusal):
        return next(word for word, refusal in REFUSALS.items() if refusal == price)
    if isinstance(price, FreePrice):
        return "free"
    if isinstance(price, StepPrice):
        return step_text(price.step_price_micro, price.step_units, price.unit, currency)
    if isinstance(price, TieredPrice):
        return _tiers_text(price, currency)
    if isinstance(price, Discounted):
        return f"{price_text(price.rate, currency)}, less {percent_text(price.ppm)}"
    if isinstance(price, CallPrice):
        return _call_text(price, currency)
    return repr(price)


def step_text(micro: int, units: int, unit: Unit, currency: int) -> str:
    """'0.09 EUR per 60 s', 'free'."""
    if not micro:
        return "free"
    return f"{units_text(micro, Unit.MONEY, currency)} per {units_text(units, unit, currency)}"


def tier_text(tier: Tier, unit: Unit, currency: int) -> str:
    """'0.01 EUR per 1 MiB up to 1 GiB'."""
    up_to = f" up to {units_text(tier.up_to_units, unit, currency)}" if tier.up_to_units else ""
    return step_text(tier.step_price_micro, tier.step_units, unit, currency) + up_to


def _tiers_text(price: TieredPrice, currency: int) -> str:
    tiers = ", then ".join(tier_text(tier, price.unit, currency) for tier in price.tiers)
    return tiers if price.counted == Period.SESSION else f"{tiers}, counted over a {price.counted.name.lower()}"


def _call_text(price: CallPrice, currency: int) -> str:
    parts = []
    if price.free_units:
        parts.append(f"{units_text(price.free_units, price.unit, currency)} free")
    if price.connection_micro:
        parts.append(f"{units_text(price.connection_micro, Unit.MONEY, currency)} connection")
    if price.first_units:
        first = units_text(price.first_units, price.unit, currency)
        parts.append(f"{units_text(price.first_micro, Unit.MONEY, currency)} for the first {first}")
    then = price_text(price.then, currency)
    parts.append(f"then {then}" if parts else then)
    if price.minimum_micro:
        parts.append(f"at least {units_text(price.minimum_micro, Unit.MONEY, currency)}")
    return ", ".join(parts)


# -- what came of them -----------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One thing that a use was charged for, or that was taken off."""

    words: str
    micro: int


def steps_of(rate: Rate, counted_from: int, counted_to: int, currency: int) -> list[Step]:
    """What units cost when the count of a price rises, one thing after the other; they add up to the price.

    ``counted_from``, ``counted_to``: units of the session, or of the period that tiers count, before and after.
    """
    if isinstance(rate, StepPrice):
        return _started(rate, counted_from, counted_to, currency)
    if isinstance(rate, TieredPrice):
        found = []
        for tier, count, micro in rate.stretches(counted_from, counted_to):
            up_to = f" up to {units_text(tier.up_to_units, rate.unit, currency)}" if tier.up_to_units else ""
            found.append(_steps_text(count, tier.step_units, tier.step_price_micro, micro, rate.unit, currency, up_to))
        return found
    if isinstance(rate, CallPrice):
        return _call_steps(rate, counted_from, counted_to, currency)
    if isinstance(rate, Discounted):
        found = steps_of(rate.rate, counted_from, counted_to, currency)
        rest = _price(rate, counted_from, counted_to) - sum(step.micro for step in found)
        return [*found, Step(f"{percent_text(rate.ppm)} off", rest)]
    micro = _price(rate, counted_from, counted_to)
    return [Step("free", 0)] if not micro else [Step("as the client rated it", micro)]


def _price(rate: Rate, counted_from: int, counted_to: int) -> int:
    return rate.price_micro(counted_to) - rate.price_micro(counted_from)


def _started(rate: StepPrice, counted_from: int, counted_to: int, currency: int) -> list[Step]:
    micro = _price(rate, counted_from, counted_to)
    count = micro // rate.step_price_micro
    return [_steps_text(count, rate.step_units, rate.step_price_micro, micro, rate.unit, currency)]


def _steps_text(
    count: int, step_units: int, step_micro: int, micro: int, unit: Unit, currency: int, more: str = ""
) -> Step:
    step = units_text(step_units, unit, currency)
    if not step_micro:
        return Step(f"free{more}", 0)
    price = units_text(step_micro, Unit.MONEY, currency)
    steps = f"{count} started step{'' if count == 1 else 's'}"
    return Step(f"{steps} of {step} at {price}{more}", micro)


def _call_steps(rate: CallPrice, counted_from: int, counted_to: int, currency: int) -> list[Step]:
    found = []
    before, after = max(0, counted_from - rate.free_units), max(0, counted_to - rate.free_units)
    free = counted_to - counted_from - (after - before)
    if free:
        found.append(Step(f"{units_text(free, rate.unit, currency)} free", 0))
    if after and not before:
        if rate.connection_micro:
            found.append(Step("connection", rate.connection_micro))
        if rate.first_units:
            first = units_text(rate.first_units, rate.unit, currency)
            found.append(Step(f"the first {first}, in full", rate.first_micro))
    low, high = max(0, before - rate.first_units), max(0, after - rate.first_units)
    if high > low:
        found += steps_of(rate.then, low, high, currency)
    rest = _price(rate, counted_from, counted_to) - sum(step.micro for step in found)
    if rest:
        at_least = units_text(rate.minimum_micro, Unit.MONEY, currency)
        words = "raised to the minimum of" if rest > 0 else "within the minimum paid before of"
        found.append(Step(f"{words} {at_least}", rest))
    return found
