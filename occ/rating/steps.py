"""Prices of started steps: so much for each, nothing at all, or what the client has rated itself.

The one rounding rule of these is ``steps``: usage is rounded up to whole steps, prices are never rounded.
"""

from typing import Final, final

from balance.model import UNLIMITED, Rate, Unit

MAXIMUM_STEP_PRICE_MICRO: Final = 1_000_000_000_000
"""A million currency units for one step: above this a price is a mistake."""


@final
class StepPrice(Rate):
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
                f"{step_price_micro}; what costs nothing is 'free'"
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
class FreePrice(Rate):
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
class ClientRated(Rate):
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
