"""What a use of a service would cost, and why: the rules of the charging core, in one go and without an account."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from balance.model import Unit
from occ.rating.caps import Cap, Capped
from occ.rating.currency import format_amount
from occ.rating.explain import Line, explain
from occ.rating.offered import Offered
from occ.rating.periods import Period
from occ.rating.price import counted_over
from occ.rating.tariff import Refusal

OfferedAt = Callable[[int, int, int], Offered]
"""(moment, units priced so far, what they cost) -> price from then on: ``occ.rating.offered.effective``."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a use that has one price."""

    from_ms: int
    units: int
    offered: Offered
    lines: tuple[Line, ...]
    """They add up to ``micro``."""
    micro: int


@dataclass(frozen=True, slots=True)
class Quote:
    """What a use costs."""

    stretches: tuple[Stretch, ...]
    refusal: Refusal | None = None
    """Why it goes no further than the stretches, if so."""

    @property
    def micro(self) -> int:
        return sum(stretch.micro for stretch in self.stretches)

    @property
    def units(self) -> int:
        return sum(stretch.units for stretch in self.stretches)


def quote(
    offered_at: OfferedAt,
    unit: Unit,
    began_ms: int,
    units: int,
    counted_units: int = 0,
    caps: Sequence[tuple[Cap, int]] = (),
) -> Quote:
    """The price of ``units`` used at a stretch from a moment on, all of them paid in money.

    Seconds run on and are split where the tariff switches: a second belongs to the price under which it begins. Other
    units are all used at ``began_ms``. ``counted_units``: what the meter of tiers says before; ``caps``: each with what
    was spent of it in its period before.
    """
    stretches: list[Stretch] = []
    at_ms, used, cost = began_ms, 0, 0
    while used < units:
        offered = offered_at(at_ms, used, cost)
        rate = offered.price
        if isinstance(rate, Refusal):
            return Quote(tuple(stretches), rate)
        here = units - used
        if unit == Unit.SECONDS and offered.until_ms:
            here = min(here, -((at_ms - offered.until_ms) // 1000))
        start = counted_units + used if counted_over(rate) != Period.SESSION else 0
        lines = explain(rate, start, start + here)
        micro = rate.price_micro(start + here) - rate.price_micro(start)
        for cap, spent_micro in caps:
            left = cap.limit_micro - spent_micro - cost
            capped = Capped(rate, start, rate.price_micro(start), left)
            asked = capped.price_micro(start + here) - capped.priced_micro
            if asked < micro:
                lines.append(Line(f"{cap.counter.name}, at most {format_amount(cap.limit_micro)}", asked - micro))
                micro = asked
        stretches.append(Stretch(at_ms, here, offered, tuple(lines), micro))
        used += here
        cost += micro
        at_ms += here * 1000
    return Quote(tuple(stretches))
