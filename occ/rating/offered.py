"""What one service costs one customer at a moment: the tariff and the promotions on it, as one price."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from occ.rating.percent import PPM
from occ.rating.periods import Period
from occ.rating.price import Discounted, FreePrice, continued, counted_over, discounted, with_free_units
from occ.rating.promotions import NOTHING, Applied
from occ.rating.tariff import Price, Refusal, Tariff

PromotionsAt = Callable[[int], Applied]
"""What applies from a moment on; ``Promotions.for_use`` with all but the moment given."""

_LOOK_AHEAD: Final = 16
"""Changes of tariff and promotions that are looked at for one that makes a difference; the first nearly always does."""


@dataclass(slots=True, init=False)
class Offered:
    """A price, why, and until when. Not to be changed once made."""

    price: Price
    """To be kept with the service (``full_terms``), unless it is a ``Refusal``."""
    until_ms: int
    """When the price is another; 0: not in sight. To be asked again then, for what was used until then."""
    applied: Applied = NOTHING
    tariff_price: Price | None = None
    """The price as it stands in the catalogue."""

    def __init__(
        self, price: Price, until_ms: int, applied: Applied = NOTHING, tariff_price: Price | None = None
    ) -> None:
        self.price = price
        self.until_ms = until_ms
        self.applied = applied
        self.tariff_price = tariff_price


def effective(
    tariff: Tariff,
    at_ms: int,
    promotions_at: PromotionsAt | None = None,
    used_units: int = 0,
    cost_micro: int = 0,
) -> Offered:
    """The price of a service from a moment on.

    ``used_units``, ``cost_micro``: what was priced in its session so far, at any price, and what that cost: a session
    that goes on pays no connection fee again (``continued``), and has had some of its free units.
    """
    price, until_ms = tariff.at(at_ms)
    if promotions_at is None:
        if used_units and not isinstance(price, Refusal):
            return Offered(continued(price, used_units, cost_micro), until_ms, NOTHING, price)
        return Offered(price, until_ms, NOTHING, price)
    applied = _on(price, promotions_at(at_ms))
    found = combined(price, applied, used_units, cost_micro)
    ends_ms = _earlier(until_ms, applied.ends_ms)
    for _ in range(_LOOK_AHEAD):
        if not ends_ms:
            break
        other, other_until_ms = tariff.at(ends_ms)
        others = _on(other, promotions_at(ends_ms))
        if _makes(other, others) != _makes(price, applied):
            return Offered(found, ends_ms, applied, price)
        ends_ms = _earlier(other_until_ms, others.ends_ms)
    return Offered(found, 0, applied, price)


def _on(price: Price, applied: Applied) -> Applied:
    """What promotions do to a price: nothing is free of what is free, or counted over a day or a month."""
    if isinstance(price, Refusal | FreePrice) or counted_over(price) != Period.SESSION:
        return applied.without_free_units()
    return applied


def _makes(price: Price, applied: Applied) -> object:
    """What makes a price another one. How much was used does not: a switch must not depend on when it is asked for."""
    if isinstance(price, Refusal | FreePrice):
        return price
    return price, applied.discount_ppm, applied.free, applied.free_until_ms


def combined(price: Price, applied: Applied, used_units: int, cost_micro: int) -> Price:
    """Tariff and promotions in one, for a session that has used so much: first free units, then the discount.

    ``price``: as the catalogue has it (``Offered.tariff_price``); to be combined when it comes into force, for only
    then is known what was used before.
    """
    if isinstance(price, Refusal):
        return price
    applied = _on(price, applied)
    rate = continued(price, used_units, cost_micro) if used_units else price
    rate = with_free_units(rate, applied.free_units)
    if applied.kept_to_count and applied.discount_ppm == PPM and not isinstance(rate, FreePrice):
        return Discounted(rate, PPM)
    return discounted(rate, applied.discount_ppm)


def _earlier(one_ms: int, other_ms: int) -> int:
    """The earlier of two moments, of which 0 is never."""
    return min(one_ms or other_ms, other_ms or one_ms)
