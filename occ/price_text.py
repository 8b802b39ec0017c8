"""Prices in words, for people: what ``occ catalogue check`` lists and ``occ rate`` explains."""

from balance.model import Unit
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
