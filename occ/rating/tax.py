"""Tax on prices. The ledger knows prices with tax only: what is written without it is raised when it is read.

Two rules, both half up to a micro-unit: ``gross``, of each amount of a price (a fee, the price of a step, a minimum, a
cap) when the catalogue is read; and ``tax``, the part of a charge that is tax, for its record. A charge is never put
together from rounded parts: what was debited is exact, and its net amount is the charge less the tax in it.
"""

from dataclasses import dataclass
from typing import Final

from occ.rating.percent import PPM, read_percent
from occ.yamlmap import Node

INCLUSIVE: Final = "inclusive"
EXCLUSIVE: Final = "exclusive"


def gross_of(net_micro: int, rate_ppm: int) -> int:
    """The rule ``gross``: an amount without tax and the tax on it, half up to a micro-unit."""
    return (2 * net_micro * (PPM + rate_ppm) + PPM) // (2 * PPM)


def tax_of(gross_micro: int, rate_ppm: int) -> int:
    """The rule ``tax``: what of an amount that contains tax is tax, half up to a micro-unit."""
    whole = PPM + rate_ppm
    return (2 * gross_micro * rate_ppm + whole) // (2 * whole)


@dataclass(frozen=True, slots=True)
class Tax:
    """The tax that a catalogue's prices are subject to."""

    rate_ppm: int = 0
    """Millionths of the net amount."""
    exclusive: bool = False
    """The prices of the catalogue are written without it."""

    def gross(self, written_micro: int) -> int:
        """What a price of the catalogue is with tax."""
        return gross_of(written_micro, self.rate_ppm) if self.exclusive else written_micro

    def of(self, gross_micro: int) -> int:
        """The tax in a charge."""
        return tax_of(gross_micro, self.rate_ppm)


NO_TAX: Final = Tax()


def read_tax(node: Node) -> Tax:
    """``{rate: 19 %, prices: inclusive}`` at the top of a catalogue. Raises ConfigError."""
    values = node.mapping(("rate", "prices"), required=("rate", "prices"))
    return Tax(read_percent(values["rate"]), values["prices"].choice((INCLUSIVE, EXCLUSIVE)) == EXCLUSIVE)
