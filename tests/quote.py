"""Sessions priced as the charging core prices them, without accounts and messages: for tests of prices alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from balance.model import Unit
from occ.rating.caps import Cap, Capped
from occ.rating.currency import format_amount
from occ.rating.explain import Line, explain
from occ.rating.offered import Offered
from occ.rating.periods import Counter, Period, Periods
from occ.rating.price import counted_over
from occ.rating.tariff import Refusal

OfferedAt = Callable[[int, int, int], Offered]
"""(moment, units priced so far, what they cost) -> price from then on: ``occ.rating.offered.effective``."""


@dataclass(slots=True)
class Meters:
    """What an account has counted, by name of the meter: (units, when its period is over)."""

    periods: Periods
    units: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, counter: Counter, at_ms: int) -> int:
        """An ``occ.rating.promotions.Count``."""
        units, ends_ms = self.units.get(counter.name, (0, 0))
        return units if at_ms < ends_ms else 0

    def add(self, counter: Counter, at_ms: int, units: int) -> None:
        self.units[counter.name] = self.count(counter, at_ms) + units, self.periods.end_ms(counter.period, at_ms)


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


def quote(
    offered_at: OfferedAt,
    unit: Unit,
    began_ms: int,
    units: int,
    meters: Meters,
    counted_units: int = 0,
    caps: Sequence[tuple[Cap, int]] = (),
    reports: Iterable[int] = (),
) -> Quote:
    """The price of ``units`` used at a stretch from a moment on, all of them paid in money.

    Seconds run on and are split where the tariff switches: a second belongs to the price under which it begins. Other
    units are all used at ``began_ms``. ``counted_units``: what the meter of tiers says before; ``caps``: each with what
    was spent of it in its period before. ``reports``: sizes of the reports, over and over; none: one for each stretch.
    """
    stretches: list[Stretch] = []
    at_ms, used, cost = began_ms, 0, 0
    sizes = cycle(reports or (units,))
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
        micro, paid, priced = 0, start, rate.price_micro(start)
        while paid < start + here:
            report = min(next(sizes), start + here - paid)
            left = min((cap.limit_micro - spent - cost - micro for cap, spent in caps), default=1 << 62)
            asked = Capped(rate, paid, priced, left).price_micro(paid + report) - priced
            micro += asked
            paid += report
            priced = rate.price_micro(paid)  # what was not asked for is written off
        full = sum(line.micro for line in lines)
        if micro < full:
            cap = min(caps, key=lambda each: each[0].limit_micro - each[1])[0]
            lines.append(Line(f"{cap.counter.name}, at most {format_amount(cap.limit_micro)}", micro - full))
        for counter in offered.applied.counters:
            meters.add(counter, at_ms, here)
        stretches.append(Stretch(at_ms, here, offered, tuple(lines), micro))
        used += here
        cost += micro
        at_ms += here * 1000
    return Quote(tuple(stretches))
