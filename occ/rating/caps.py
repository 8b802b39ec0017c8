"""Caps: the most that a service, or several, cost in a day or a month; and limits to what may be granted.

``Capped`` and ``Limited`` are made for one operation from what the account's meters say, and are never kept: caps come
last, over discounts and over both sides of a tariff switch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, final

from balance.model import UNLIMITED, Rate
from occ.rating.currency import parse_amount
from occ.rating.periods import WORDS, Counter, Period, counter_of
from occ.rating.sizes import single_value
from occ.rating.tax import NO_TAX, Tax
from occ.yamlmap import Node, nearest

EVERY_SERVICE: Final = "all"
"""Name of a cap on everything that a plan sells, or of one in a list of services."""


@dataclass(frozen=True, slots=True)
class Cap:
    """What some services of a plan cost together in a period at most; what is used beyond it costs nothing."""

    name: str
    """Its name in the plan: that of its only service, or one of its own."""
    limit_micro: int
    counter: Counter
    """The meter that counts what they have cost, ``micro``, in the period."""


@final
class Capped(Rate):
    """A price of which no more than ``left_micro`` is asked for further units; all beyond that costs nothing.

    ``paid_units`` were priced ``priced_micro``; what the price said of them beyond that is not asked for later either.
    """

    __slots__ = ("_base_micro", "left_micro", "paid_units", "priced_micro", "rate", "unit")

    def __init__(self, rate: Rate, paid_units: int, priced_micro: int, left_micro: int) -> None:
        self.unit = rate.unit
        self.rate = rate
        self.paid_units = paid_units
        self.priced_micro = priced_micro
        self.left_micro = left_micro if left_micro > 0 else 0
        self._base_micro = rate.price_micro(paid_units)

    def price_micro(self, units: int) -> int:
        """``priced_micro``, and what further units cost, ``left_micro`` at most."""
        if units < self.paid_units:
            return min(self.rate.price_micro(units), self.priced_micro)
        more = self.rate.price_micro(units) - self._base_micro
        return self.priced_micro + (more if more < self.left_micro else self.left_micro)

    def affordable_units(self, amount_micro: int) -> int:
        """The greatest number of units, those paid among them, whose price is at most ``amount_micro``."""
        credit = amount_micro - self.priced_micro
        if credit >= self.left_micro:
            return UNLIMITED
        if credit >= 0:
            return self.rate.affordable_units(self._base_micro + credit)
        return max(0, min(self.paid_units - 1, self.rate.affordable_units(amount_micro)))


@final
class Limited(Rate):
    """A price of which no more than ``left_micro`` may be granted further units; what is used costs what it costs.

    For caps on members of an account: they end the service, where a ``Capped`` one goes on for nothing.
    """

    __slots__ = ("limit_micro", "rate", "unit")

    def __init__(self, rate: Rate, priced_micro: int, left_micro: int) -> None:
        self.unit = rate.unit
        self.rate = rate
        self.limit_micro = priced_micro + max(0, left_micro)

    def price_micro(self, units: int) -> int:
        """The price itself."""
        return self.rate.price_micro(units)

    def affordable_units(self, amount_micro: int) -> int:
        """What ``amount_micro`` pays for, or ``left_micro`` beyond what was paid, whichever is less."""
        return self.rate.affordable_units(amount_micro if amount_micro < self.limit_micro else self.limit_micro)


def read_caps(node: Node, sold: Collection[str], tax: Tax = NO_TAX) -> Mapping[str, tuple[Cap, ...]]:
    """The caps of a plan, for each service that has any, in the order they are written. Raises ConfigError.

    ``sold``: the services that the plan sells. A cap is named after its service (``internet: 5.00 per day``), or "all"
    (of what the plan sells), or has a name of its own and a list: ``{services: [internet, roaming], limit: ...}``. A
    limit is "5.00 per day" or "50.00 per month", or a list of both.
    """
    found: dict[str, list[Cap]] = {}
    for key, value in node.table():
        name = key.text()
        services, limits = _services_and_limits(key, value, sold)
        periods: set[Period] = set()
        for each in limits:
            limit_micro, period = _limit(each, tax)
            if period in periods:
                raise each.error(f"{each.path}: {name} has two caps for the same period")
            periods.add(period)
            cap = Cap(name, limit_micro, counter_of(f"cap {name}", period))
            for service in services:
                found.setdefault(service, []).append(cap)
    return {service: tuple(caps) for service, caps in found.items()}


def _services_and_limits(key: Node, value: Node, sold: Collection[str]) -> tuple[list[str], list[Node]]:
    name = key.text()
    if name in sold or name == EVERY_SERVICE:
        return [name] if name in sold else list(sold), _one_or_more(value)
    if single_value(value) is not None:
        raise key.error(
            f"{name[:40]!r} is no service that the plan sells{nearest(name, (*sold, EVERY_SERVICE))}; a cap on several "
            "services has a name of its own: {services: [...], limit: 5.00 per day}"
        )
    given = value.mapping(("services", "limit"), required=("services", "limit"))
    services: list[str] = []
    for item in given["services"].items():
        if item.text() in services:
            raise item.error(f"{item.text()} stands twice in {given['services'].path}")
        services.append(item.choice(tuple(sold)))
    if not services:
        raise given["services"].error(f"{given['services'].path} must name at least one service")
    return services, _one_or_more(given["limit"])


def _one_or_more(node: Node) -> list[Node]:
    return node.items() if single_value(node) is None else [node]


def _limit(node: Node, tax: Tax) -> tuple[int, Period]:
    written = node.text()
    amount, _, period = written.partition(" per ")
    if period not in WORDS:
        raise node.error(
            f"{node.path} must be an amount and its period such as '5.00 per day' or '50.00 per month', not "
            f"{written[:40]!r}"
        )
    try:
        micro = parse_amount(amount)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if micro <= 0:
        raise node.error(f"{node.path}: a cap must be more than 0")
    return tax.gross(micro), WORDS[period]
