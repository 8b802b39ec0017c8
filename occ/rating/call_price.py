"""The price of a call: a fee for the connection, a first increment, following increments, a minimum, free units."""

from dataclasses import dataclass, field
from typing import Final, final

from balance.model import UNLIMITED, Rate, Unit
from occ.rating.periods import Period
from occ.rating.steps import MAXIMUM_STEP_PRICE_MICRO, FreePrice, StepPrice
from occ.rating.tiers import TieredPrice

MAXIMUM_FEE_MICRO: Final = MAXIMUM_STEP_PRICE_MICRO

Following = StepPrice | FreePrice | TieredPrice
"""What the units beyond the first increment can cost."""


@final
@dataclass(slots=True, unsafe_hash=True)
class CallPrice(Rate):
    """What a call, or any other use of a service, costs from its beginning.

    In this order: the free units cost nothing, and nothing else begins with them. The first unit after them brings the
    connection fee and the first increment, in full; units beyond the first increment cost what ``then`` says of them,
    counted from there. If all that is less than the minimum, the minimum is the price. Not to be changed once made.
    """

    then: Following
    connection_micro: int = 0
    first_units: int = 0
    """Length of the first increment; 0: there is none, ``then`` counts from the first charged unit on."""
    first_micro: int = 0
    """Price of the first increment."""
    minimum_micro: int = 0
    free_units: int = 0
    unit: Unit = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError for amounts below 0 or absurdly large, and for a count that is not the session's."""
        for micro in (self.connection_micro, self.first_micro, self.minimum_micro):
            if not 0 <= micro <= MAXIMUM_FEE_MICRO:
                raise ValueError(f"a fee must be from 0 to {MAXIMUM_FEE_MICRO} micro-units, not {micro}")
        for units in (self.first_units, self.free_units):
            if not 0 <= units <= UNLIMITED:
                raise ValueError(f"an increment must be at least 1 unit, not {units}")
        if self.first_micro and not self.first_units:
            raise ValueError("a first increment must be at least 1 unit")
        if isinstance(self.then, TieredPrice) and self.then.counted != Period.SESSION:
            raise ValueError(
                "a price that is counted over a day or a month can have no connection fee, first increment, minimum "
                "or free units: these belong to one session"
            )
        self.unit = self.then.unit

    def price_micro(self, units: int) -> int:
        """Price of the first ``units`` units."""
        charged = units - self.free_units
        if charged <= 0:
            return 0
        price = self.connection_micro + self.first_micro
        if charged > self.first_units:
            price += self.then.price_micro(charged - self.first_units)
        return price if price > self.minimum_micro else self.minimum_micro

    def affordable_units(self, amount_micro: int) -> int:
        """The greatest number of units whose price is at most ``amount_micro``; ``UNLIMITED`` at most."""
        if amount_micro < 0:
            return 0
        left_micro = amount_micro - self.connection_micro - self.first_micro
        if left_micro < 0 or amount_micro < self.minimum_micro:
            return self.free_units
        units = self.free_units + self.first_units + self.then.affordable_units(left_micro)
        return units if units < UNLIMITED else UNLIMITED
