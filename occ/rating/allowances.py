"""Allowances and bonuses: what a bucket of an account is of, which services it pays for, how long it is valid.

Read from the sections ``allowances`` and ``bonuses`` of the catalogue::

    allowances:
      data-5gb:
        amount: 5 GiB
        serves: [internet, video]         # services, all counted in the unit of the amount
        priority: 10                      # spent before those of a higher number, then by earliest expiry; default 100
        valid: 30 d                       # or until end of day, until end of month; left out: until it is renewed
        rollover: 1 GiB                   # kept when it is renewed: so much, all, or none, which is the default
        shared: yes                       # by all subscribers of the account; default: only who got it
    bonuses:                              # money of restricted use
      talk:
        serves: [national-voice]          # or any
        priority: 5
        valid: 14 d
        amount: 2.00                      # what an offer gives; promotions say how much themselves

A day of ``30 d`` is 24 hours. "Until end" is midnight by the catalogue's clock.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from balance.model import UNLIMITED, Unit
from occ.rating.currency import parse_amount
from occ.rating.local_time import Calendar
from occ.rating.service import Service
from occ.rating.sizes import SIZES, parse_size, single_value
from occ.yamlmap import Node, nearest

__all__ = ["Allowance", "Bonus", "Lasting", "Validity", "read_allowance", "read_bonus", "read_money"]

DEFAULT_PRIORITY: Final = 100
LOWEST_PRIORITY: Final = 1000
LONGEST_S: Final = 100 * 366 * 86_400

ALLOWANCE_KEYS: Final = ("amount", "serves", "priority", "valid", "rollover", "shared")
BONUS_KEYS: Final = ("serves", "priority", "valid", "amount")


class Lasting(StrEnum):
    """How an end of validity is said; the value is what the catalogue has, but for a time."""

    RENEWAL = "until it is renewed"
    TIME = "time"
    END_OF_DAY = "until end of day"
    END_OF_MONTH = "until end of month"


@dataclass(frozen=True, slots=True)
class Validity:
    """How long something is valid from the moment it is given."""

    lasting: Lasting = Lasting.RENEWAL
    seconds: int = 0
    """For ``Lasting.TIME``; else 0."""

    def ends_ms(self, from_ms: int, calendar: Calendar, renewal_ms: int = 0) -> int:
        """When what is given at ``from_ms`` expires; 0 for never.

        ``renewal_ms``: when the offer that gives it gives it again, 0 if none does.
        """
        if self.lasting is Lasting.RENEWAL:
            return renewal_ms
        if self.lasting is Lasting.TIME:
            return from_ms + self.seconds * 1000
        day = calendar.day_of(from_ms)
        if self.lasting is Lasting.END_OF_MONTH:
            day = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        else:
            day += timedelta(days=1)
        return calendar.moment(day, 0)


@dataclass(frozen=True, slots=True)
class Allowance:
    """Units that are paid for already: the name of buckets that hold them, and the rules for these."""

    name: str
    unit: Unit
    units: int
    serves: tuple[str, ...]
    """Services it may be spent on."""
    priority: int = DEFAULT_PRIORITY
    validity: Validity = Validity()
    rollover_units: int = 0
    """At most so many of what is left are kept when it is renewed; ``UNLIMITED`` for all."""
    shared: bool = False
    """It serves all subscribers of the account, not only the one that got it."""


@dataclass(frozen=True, slots=True)
class Bonus:
    """Money of restricted use, which is never paid out: the name of buckets that hold it, and the rules for these."""

    name: str
    serves: tuple[str, ...] | None
    """Services it may be spent on; None: all."""
    priority: int = DEFAULT_PRIORITY
    validity: Validity = Validity()
    amount_micro: int = 0
    """What an offer gives of it; 0: no offer does."""

    def may_pay(self, service: str) -> bool:
        return self.serves is None or service in self.serves


def read_allowance(name: str, node: Node, services: dict[str, Service]) -> Allowance:
    """One of the section ``allowances``. Raises ConfigError."""
    values = node.mapping(ALLOWANCE_KEYS, required=("amount", "serves"))
    unit, units = _amount(values["amount"])
    serves = _served(values["serves"], services)
    for item, service in zip(values["serves"].items(), serves, strict=True):
        if services[service].unit != unit:
            raise item.error(
                f"{name} is an amount of {unit.name.lower()}, but {service} is counted in "
                f"{services[service].unit.name.lower()}"
            )
    return Allowance(
        name,
        unit,
        units,
        serves,
        _priority(values.get("priority")),
        read_validity(values.get("valid")),
        _rollover(values.get("rollover"), unit),
        "shared" in values and values["shared"].boolean(),
    )


def read_bonus(name: str, node: Node, services: dict[str, Service]) -> Bonus:
    """One of the section ``bonuses``. Raises ConfigError."""
    values = node.mapping(BONUS_KEYS, required=("serves",))
    serves = values["serves"]
    return Bonus(
        name,
        None if single_value(serves) == "any" else _served(serves, services),
        _priority(values.get("priority")),
        read_validity(values.get("valid")),
        read_money(values["amount"]) if "amount" in values else 0,
    )


def read_validity(node: Node | None) -> Validity:
    """``valid``: a time such as ``30 d``, or until the end of a day or month. Raises ConfigError."""
    if node is None:
        return Validity()
    written = node.text()
    for end in (Lasting.END_OF_DAY, Lasting.END_OF_MONTH):
        if written == end.value:
            return Validity(end)
    try:
        seconds = parse_size(written, Unit.SECONDS)
    except ValueError:
        raise node.error(
            f"{node.path} must be a time such as '30 d', '{Lasting.END_OF_DAY}' or '{Lasting.END_OF_MONTH}', not "
            f"{written[:40]!r}"
        ) from None
    if seconds > LONGEST_S:
        raise node.error(f"{node.path} must be at most 100 years; leave it out for what is valid until it is renewed")
    return Validity(Lasting.TIME, seconds)


def read_money(node: Node) -> int:
    """An amount above zero, micro-units. Raises ConfigError."""
    try:
        micro = parse_amount(node.text())
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if micro <= 0:
        raise node.error(f"{node.path} must be more than zero")
    return micro


def _amount(node: Node) -> tuple[Unit, int]:
    """Unit and units of a size: its word says which unit it is of."""
    written = node.text()
    word = written.rpartition(" ")[2]
    for unit, words in SIZES.items():
        if word in words:
            try:
                return unit, parse_size(written, unit)
            except ValueError as error:
                raise node.error(f"{node.path}: {error}") from None
    known = ", ".join(word for words in SIZES.values() for word in words)
    raise node.error(
        f"{node.path} must be an amount such as '5 GiB', '100 min' or '50 events', not {written[:40]!r}; known: {known}"
    )


def _served(node: Node, services: dict[str, Service]) -> tuple[str, ...]:
    found: list[str] = []
    for item in node.items():
        name = item.text()
        if name not in services:
            raise item.error(f"{item.path}: there is no service {name[:60]!r}{nearest(name, services)}")
        if name in found:
            raise item.error(f"{name} stands twice in {node.path}")
        found.append(name)
    if not found:
        raise node.error(f"{node.path} must name at least one service")
    return tuple(found)


def _priority(node: Node | None) -> int:
    return DEFAULT_PRIORITY if node is None else node.integer(1, LOWEST_PRIORITY)


def _rollover(node: Node | None, unit: Unit) -> int:
    if node is None or node.text() == "none":
        return 0
    if node.text() == "all":
        return UNLIMITED
    try:
        return parse_size(node.text(), unit)
    except ValueError as error:
        raise node.error(f"{node.path} must be 'all', 'none' or a size: {error}") from None
