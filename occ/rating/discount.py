"""Prices with something off."""

from dataclasses import dataclass, field
from typing import final

from balance.model import UNLIMITED, Rate, Unit
from occ.rating.percent import PPM
from occ.rating.periods import Period
from occ.rating.tiers import TieredPrice


def discount_of(price_micro: int, ppm: int) -> int:
    """The rule ``discount``: so many millionths of a price, rounded down to a micro-unit."""
    return price_micro * ppm // PPM


@final
@dataclass(slots=True, unsafe_hash=True)
class Discounted(Rate):
    """A price less a part of it.

    The discount is taken off the whole price so far, fees and minimum among it, and rounded down there (``discount``):
    however usage is reported in pieces, less than one micro-unit is lost to rounding over all that is counted. Not to
    be changed once made.
    """

    rate: Rate
    ppm: int
    """Millionths that are taken off; 1,000,000 is everything."""
    unit: Unit = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError for less than nothing or more than everything."""
        if not 0 < self.ppm <= PPM:
            raise ValueError(f"a discount must be more than 0 and at most {PPM} millionths, not {self.ppm}")
        self.unit = self.rate.unit

    def price_micro(self, units: int) -> int:
        """Price of the first ``units`` units, the discount taken off."""
        price = self.rate.price_micro(units)
        return price - price * self.ppm // PPM

    def affordable_units(self, amount_micro: int) -> int:
        """The greatest number of units whose discounted price is at most ``amount_micro``; ``UNLIMITED`` at most."""
        if amount_micro < 0:
            return 0
        if self.ppm == PPM:
            return UNLIMITED
        # price - price * ppm // PPM is price * (PPM - ppm) / PPM, rounded up.
        return self.rate.affordable_units(amount_micro * PPM // (PPM - self.ppm))

    def saved_micro(self, units: int) -> int:
        """What the discount takes off the first ``units`` units."""
        return discount_of(self.rate.price_micro(units), self.ppm)


def counted_over(rate: Rate) -> Period:
    """What the units of a price are counted over: but for tiers of a day or a month, each session counts its own."""
    while isinstance(rate, Discounted):
        rate = rate.rate
    return rate.counted if isinstance(rate, TieredPrice) else Period.SESSION
