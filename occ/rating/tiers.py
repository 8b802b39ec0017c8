"""Prices by volume: the first GiB at one price, what comes after it at another.

The count is that of the session, or of a period: then a meter of the account keeps it, and the service counts on from
there (``balance.ledger.count_from``), so that the price below is always one of *all* units of the period.
"""

from typing import Final, NamedTuple, final

from balance.model import UNLIMITED, Rate, Unit
from occ.rating.periods import Period
from occ.rating.steps import MAXIMUM_STEP_PRICE_MICRO

MAXIMUM_TIERS: Final = 16


class Tier(NamedTuple):
    """A stretch of the count with one price."""

    up_to_units: int
    """The last unit that belongs to it; 0 for the last tier, which has no end."""
    step_units: int
    step_price_micro: int
    """For each started step; 0 is free."""


class _Stretch(NamedTuple):
    """A tier, and what lies before it."""

    from_units: int
    up_to_units: int
    step_units: int
    step_price_micro: int
    before_micro: int
    """Price of all tiers before it, in full."""
    full_micro: int
    """Price of all of it; meaningless for the last."""


@final
class TieredPrice(Rate):
    """Started steps whose price depends on how much was used before.

    Each tier counts its own started steps, from its own beginning: a tier of 100 MiB in steps of 30 MiB has four of
    them, and the last costs in full though the tier ends within it. The next tier begins with a step of its own. So
    the price of a tier that is used up does not depend on how the usage was cut.
    """

    __slots__ = ("_stretches", "counted", "tiers", "unit")

    def __init__(self, unit: Unit, tiers: tuple[Tier, ...], counted: Period = Period.SESSION) -> None:
        """Raises ValueError for tiers that do not rise, or steps and prices that ``StepPrice`` would refuse."""
        if not 1 <= len(tiers) <= MAXIMUM_TIERS:
            raise ValueError(f"there must be from 1 to {MAXIMUM_TIERS} tiers, not {len(tiers)}")
        self.unit = unit
        self.tiers = tuple(Tier(*tier) for tier in tiers)
        self.counted = counted
        """What the units are counted over; ``Period.SESSION``: the service's own count."""
        stretches: list[_Stretch] = []
        from_units = before_micro = 0
        for index, tier in enumerate(self.tiers):
            last = index == len(tiers) - 1
            up_to = UNLIMITED if last else tier.up_to_units
            if last and tier.up_to_units:
                raise ValueError("the last tier has no end: it is the price of everything beyond the others")
            if not from_units < up_to <= UNLIMITED:
                raise ValueError("every tier but the last must end beyond the one before it")
            if not 1 <= tier.step_units <= UNLIMITED:
                raise ValueError(f"a step must be at least 1 unit, not {tier.step_units}")
            if not 0 <= tier.step_price_micro <= MAXIMUM_STEP_PRICE_MICRO:
                raise ValueError(
                    f"the price of a step must be from 0 to {MAXIMUM_STEP_PRICE_MICRO} micro-units, not "
                    f"{tier.step_price_micro}"
                )
            full_micro = -(-(up_to - from_units) // tier.step_units) * tier.step_price_micro
            stretches.append(
                _Stretch(from_units, up_to, tier.step_units, tier.step_price_micro, before_micro, full_micro)
            )
            from_units = up_to
            before_micro += full_micro
        self._stretches = tuple(stretches)

    def price_micro(self, units: int) -> int:
        """Price of the first ``units`` units of the count."""
        if units <= 0:
            return 0
        for from_units, up_to, step_units, step_micro, before_micro, _ in self._stretches:
            if units <= up_to:
                return before_micro - (from_units - units) // step_units * step_micro
        last = self._stretches[-1]
        return last[4] - (last[0] - units) // last[2] * last[3]

    def affordable_units(self, amount_micro: int) -> int:
        """The greatest number of units whose price is at most ``amount_micro``; ``UNLIMITED`` at most."""
        if amount_micro < 0:
            return 0
        for from_units, up_to, step_units, step_micro, before_micro, full_micro in self._stretches:
            left_micro = amount_micro - before_micro
            if up_to == UNLIMITED or left_micro < full_micro:
                units = from_units + left_micro // step_micro * step_units if step_micro else UNLIMITED
                return units if units < UNLIMITED else UNLIMITED
        raise ValueError("the last tier has an end")  # contradicts __init__

    def stretches(self, from_units: int, to_units: int) -> list[tuple[Tier, int, int]]:
        """(tier, steps, price of these) of each tier that gets units when the count rises; free ones among them.

        The steps are those that are started by the rise; the prices add up to what it costs.
        """
        found: list[tuple[Tier, int, int]] = []
        for tier, stretch in zip(self.tiers, self._stretches, strict=True):
            low, high = max(from_units, stretch.from_units), min(to_units, stretch.up_to_units)
            if low < high:
                steps = (stretch.from_units - low) // tier.step_units - (stretch.from_units - high) // tier.step_units
                found.append((tier, steps, steps * tier.step_price_micro))
        return found

    def after(self, units: int) -> tuple[Tier, ...]:
        """The tiers that are left, counted from 0 again, when so many units have gone by."""
        left = [tier for tier in self.tiers[:-1] if tier.up_to_units > units]
        return (*(tier._replace(up_to_units=tier.up_to_units - units) for tier in left), self.tiers[-1])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TieredPrice)
            and self.unit == other.unit
            and self.tiers == other.tiers
            and self.counted == other.counted
        )

    def __hash__(self) -> int:
        return hash((self.unit, self.tiers, self.counted))

    def __repr__(self) -> str:
        return f"TieredPrice({self.unit!r}, {self.tiers!r}, {self.counted!r})"
