"""Prices in words, and what a charge is made of, line by line."""

from dataclasses import dataclass

from balance.model import Rate, Unit
from occ.rating.currency import format_amount
from occ.rating.percent import percent_text
from occ.rating.periods import Period
from occ.rating.price import CallPrice, ClientRated, Discounted, FreePrice, StepPrice, TieredPrice
from occ.rating.sizes import SIZES
from occ.rating.tariff import REFUSALS, Price, Refusal
from occ.rating.tiers import Tier


@dataclass(frozen=True, slots=True)
class Line:
    """One part of a charge."""

    text: str
    micro: int
    """Less than 0 for what is taken off."""

    def __str__(self) -> str:
        return f"{self.text}: {format_amount(self.micro)}"


def units_in_words(units: int, unit: Unit) -> str:
    """'90 s', '5 MiB', '1 event', '2.50': exact."""
    if unit == Unit.SECONDS:
        return f"{units} s"
    if unit == Unit.EVENTS:
        return f"{units} event{'' if units == 1 else 's'}"
    if unit != Unit.OCTETS:
        return format_amount(units)
    for name in ("TiB", "GiB", "MiB", "KiB"):
        if units and units % SIZES[Unit.OCTETS][name] == 0:
            return f"{units // SIZES[Unit.OCTETS][name]} {name}"
    return f"{units} B"


def in_words(price: Price) -> str:
    """A price for people: "0.05 for the connection, then 0.09 per 60 s, 0.12 at least"."""
    if isinstance(price, Refusal):
        return next((word for word, refusal in REFUSALS.items() if refusal == price), str(price.result_code))
    if isinstance(price, Discounted):
        return f"{in_words(price.rate)}, less {percent_text(price.ppm)}"
    if isinstance(price, TieredPrice):
        return _tiers_in_words(price)
    if isinstance(price, CallPrice):
        return _call_in_words(price)
    if isinstance(price, ClientRated):
        return "what the client says"
    if isinstance(price, StepPrice):
        return _step_in_words(price.step_units, price.step_price_micro, price.unit)
    return "free"


def _step_in_words(step_units: int, step_micro: int, unit: Unit) -> str:
    return f"{format_amount(step_micro)} per {units_in_words(step_units, unit)}" if step_micro else "free"


def _tiers_in_words(price: TieredPrice) -> str:
    parts = []
    for tier in price.tiers:
        step = _step_in_words(tier.step_units, tier.step_price_micro, price.unit)
        to = f"up to {units_in_words(tier.up_to_units, price.unit)}" if tier.up_to_units else "beyond"
        parts.append(f"{step} {to}")
    over = "session" if price.counted == Period.SESSION else price.counted.name.lower()
    return f"{', '.join(parts)}, counted over the {over}"


def _call_in_words(price: CallPrice) -> str:
    parts = []
    if price.free_units:
        parts.append(f"the first {units_in_words(price.free_units, price.unit)} free")
    if price.connection_micro:
        parts.append(f"{format_amount(price.connection_micro)} for the connection")
    if price.first_units:
        first = units_in_words(price.first_units, price.unit)
        parts.append(
            f"{format_amount(price.first_micro)} for {'the next' if price.free_units else 'the first'} {first}"
        )
    parts.append(f"{'then ' if parts else ''}{in_words(price.then)}")
    if price.minimum_micro:
        parts.append(f"{format_amount(price.minimum_micro)} at least")
    return ", ".join(parts)


def explain(rate: Rate, from_units: int, to_units: int) -> list[Line]:
    """What units of a service cost that raise its count; the lines add up to the difference of the two prices."""
    if to_units <= from_units:
        return []
    if isinstance(rate, Discounted):
        saved = rate.saved_micro(to_units) - rate.saved_micro(from_units)
        return [*explain(rate.rate, from_units, to_units), Line(f"discount {percent_text(rate.ppm)}", -saved)]
    if isinstance(rate, CallPrice):
        return _explain_call(rate, from_units, to_units)
    if isinstance(rate, TieredPrice):
        return _explain_tiers(rate, from_units, to_units)
    cost = rate.price_micro(to_units) - rate.price_micro(from_units)
    used = units_in_words(to_units - from_units, rate.unit)
    if isinstance(rate, FreePrice):
        return [Line(f"{used} free", 0)]
    if isinstance(rate, StepPrice):
        return [_steps(rate.step_units, rate.step_price_micro, cost // rate.step_price_micro, used, rate.unit)]
    return [Line(used, cost)]


def _steps(step_units: int, step_micro: int, steps: int, used: str, unit: Unit) -> Line:
    if not step_micro:
        return Line(f"{used} free", 0)
    if not steps:
        return Line(f"{used} of a step that is paid", 0)
    return Line(f"{steps} × {units_in_words(step_units, unit)} at {format_amount(step_micro)}", steps * step_micro)


def _explain_tiers(rate: TieredPrice, from_units: int, to_units: int) -> list[Line]:
    lines = []
    low = from_units
    for tier, steps, _ in rate.stretches(from_units, to_units):
        high = min(to_units, tier.up_to_units or to_units)
        used = units_in_words(high - low, rate.unit)
        line = _steps(tier.step_units, tier.step_price_micro, steps, used, rate.unit)
        lines.append(Line(f"{_tier_in_words(rate, tier)}: {line.text}", line.micro))
        low = high
    return lines


def _tier_in_words(rate: TieredPrice, tier: Tier) -> str:
    if tier.up_to_units:
        return f"up to {units_in_words(tier.up_to_units, rate.unit)}"
    ends = rate.tiers[-2].up_to_units if len(rate.tiers) > 1 else 0
    return f"beyond {units_in_words(ends, rate.unit)}"


def tiers_in_words(rate: Rate, from_units: int, to_units: int) -> tuple[str, ...]:
    """The tiers, if a price has any, from which the units come that raise its count: "up to 1 GiB", "beyond 10 GiB"."""
    if isinstance(rate, Discounted):
        return tiers_in_words(rate.rate, from_units, to_units)
    if isinstance(rate, CallPrice):
        beyond = rate.free_units + rate.first_units
        return tiers_in_words(rate.then, max(0, from_units - beyond), max(0, to_units - beyond))
    if isinstance(rate, TieredPrice):
        return tuple(_tier_in_words(rate, tier) for tier, _, _ in rate.stretches(from_units, to_units))
    return ()


def _explain_call(rate: CallPrice, from_units: int, to_units: int) -> list[Line]:
    free_units, unit = rate.free_units, rate.unit
    lines = []
    if from_units < free_units:
        lines.append(Line(f"{units_in_words(min(to_units, free_units) - from_units, unit)} free", 0))
    if to_units <= free_units:
        return lines
    opened = from_units > free_units
    if not opened and rate.connection_micro:
        lines.append(Line("connection", rate.connection_micro))
    if not opened and rate.first_units:
        lines.append(Line(f"first {units_in_words(rate.first_units, unit)}", rate.first_micro))
    beyond = free_units + rate.first_units
    lines += explain(rate.then, max(0, from_units - beyond), max(0, to_units - beyond))
    rest = rate.price_micro(to_units) - rate.price_micro(from_units) - sum(line.micro for line in lines)
    if rest:
        lines.append(Line(f"minimum {format_amount(rate.minimum_micro)}", rest))
    return lines
