"""What a message to several recipients costs: each recipient is a message of its own, at the price of its destination.

A client sends one request for all of them (SMS-Information with a Recipient-Info each, TS 32.299 clause 7.2.209), so
there is one price for all: as many events at each recipient's price as there are parts of the message, the dearest
first. It is kept as tiers (``occ.rating.tiers``). Prices that are more than so much for each event, such as those with
a connection fee or tiers of their own, cannot be put together so: then every recipient costs what the dearest does.
"""

from collections.abc import Sequence
from typing import Final

from balance.model import Unit
from occ.rating.steps import FreePrice, StepPrice
from occ.rating.tariff import Price, Refusal
from occ.rating.tiers import MAXIMUM_TIERS, Tier, TieredPrice

__all__ = ["dearest", "price_of_all"]

_ONE_EVENT: Final = 1


def dearest(prices: Sequence[Price]) -> int:
    """Which of the prices is refused, else the highest for one event; the first of several."""
    costs = [-1 if isinstance(price, Refusal) else price.price_micro(1) for price in prices]
    return costs.index(-1) if -1 in costs else costs.index(max(costs))


def price_of_all(prices: Sequence[Price], parts: int) -> Price:
    """The price of a message of so many parts to recipients with these prices; a refusal of one is one of all.

    Units beyond the parts of all recipients cost what the cheapest does.
    """
    first = prices[dearest(prices)]
    if isinstance(first, Refusal) or all(price == first for price in prices):
        return first
    steps: list[int] = []
    for price in prices:
        if isinstance(price, FreePrice):
            steps.append(0)
        elif isinstance(price, StepPrice) and price.step_units == _ONE_EVENT:
            steps.append(price.step_price_micro)
        else:
            return first
    steps.sort(reverse=True)
    kinds = list(dict.fromkeys(steps))
    if len(kinds) > MAXIMUM_TIERS:
        return first
    tiers: list[Tier] = []
    units = 0
    for micro in kinds:
        units += steps.count(micro) * parts
        tiers.append(Tier(units, 1, micro))
    tiers[-1] = tiers[-1]._replace(up_to_units=0)
    return TieredPrice(Unit.EVENTS, tuple(tiers))
