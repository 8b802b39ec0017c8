"""Plans: what is sold to whom, and the tariff of each service, for all or by where it goes or is used.

Read from the section ``plans`` of the catalogue::

    plans:
      standard:
        currency: USD                     # left out: that of the catalogue
        includes: [small]                 # offers that every subscriber of the plan has
        prices_from: prices.csv           # services and prices, see occ.rating.price_list
        sms: 0.05 per 1 event             # a tariff, see occ.rating.tariff
        international:
          by_destination:                 # a tariff for each zone of the called number
            prices_from: world.csv
            eu: 0.19 per 60 s
            others: 0.99 per 60 s         # every zone that is not named, and numbers in no zone
        roaming:
          by_network:                     # a tariff for each zone of the serving network
            eu: 0.01 per 1 MiB

A service that a plan does not name, or a zone that it does not name where there are no ``others``, is not sold.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from occ.rating.caps import Cap, read_caps
from occ.rating.currency import NUMERIC
from occ.rating.price_list import PriceRow, read_price_list
from occ.rating.service import Service
from occ.rating.sizes import single_value
from occ.rating.tariff import Tariff
from occ.rating.tax import Tax
from occ.yamlmap import ConfigError, Node, nearest

__all__ = ["PLAN_WORDS", "PricePlan", "PriceZones", "ZoneTariffs", "ZonedBy", "read_currency", "read_plan"]

BY_DESTINATION: Final = "by_destination"
BY_NETWORK: Final = "by_network"
PRICES_FROM: Final = "prices_from"
OTHERS: Final = "others"
PLAN_WORDS: Final = ("currency", "includes", PRICES_FROM, "caps")
"""Keys of a plan that are no services."""

ReadTariff = Callable[[Node, Service], Tariff]


@dataclass(frozen=True, slots=True)
class ZoneTariffs:
    """The tariffs of one service by zone."""

    by: str
    """``BY_DESTINATION`` or ``BY_NETWORK``."""
    zones: Mapping[str, Tariff]
    others: Tariff | None = None
    """Of every other zone, and of none; None: not sold there."""

    @property
    def is_by_destination(self) -> bool:
        return self.by == BY_DESTINATION

    def of(self, zone: str) -> Tariff | None:
        """The tariff of a zone; empty: of no zone."""
        return self.zones.get(zone, self.others)


@dataclass(frozen=True, slots=True)
class PricePlan:
    """What a plan sells, and what comes with it."""

    tariffs: Mapping[str, Tariff | ZoneTariffs]
    """By service."""
    includes: tuple[str, ...] = ()
    """Offers."""
    currency: int = 0
    """ISO 4217 numeric code of its prices; 0: that of the catalogue."""
    caps: Mapping[str, tuple[Cap, ...]] = field(default_factory=dict)
    """By service, in the order they are written."""


@dataclass(frozen=True, slots=True)
class PriceZones:
    """Zones that prices can be given for; None: the catalogue does not define any."""

    destinations: Collection[str] | None
    networks: Collection[str] | None

    def known(self, by: str) -> Collection[str] | None:
        return self.destinations if by == BY_DESTINATION else self.networks


ZonedBy = dict[str, tuple[str, Node]]
"""By service: whether a plan has it by destination or by network, and where that stands first."""


def read_plan(
    node: Node,
    services: Mapping[str, Service],
    offers: Collection[str],
    zones: PriceZones,
    zoned_by: ZonedBy,
    read: ReadTariff,
    tax: Tax,
) -> PricePlan:
    """One plan. ``zoned_by`` is added to: all plans must price a service by the same. Raises ConfigError."""
    values = node.mapping((*PLAN_WORDS, *services))
    tariffs: dict[str, Tariff | ZoneTariffs] = {}
    rows = read_price_list(values[PRICES_FROM], "service") if PRICES_FROM in values else {}
    for name, value in values.items():
        if name not in services:
            continue
        if name in rows:
            raise value.error(f"{value.path}: {name} has a price at {_place(rows[name].key)} already")
        tariffs[name] = _tariff(value, services[name], zones, zoned_by, read)
    for name, row in rows.items():
        if name not in services:
            raise row.key.error(f"there is no service {name[:60]!r}{nearest(name, services)}")
        tariffs[name] = read(row.price, services[name])
    if not tariffs:
        raise node.error(f"{node.path} must price at least one service{nearest('', services)}")
    currency = read_currency(values["currency"]) if "currency" in values else 0
    caps = read_caps(values["caps"], tuple(tariffs), tax) if "caps" in values else {}
    return PricePlan(tariffs, _includes(values.get("includes"), offers), currency, caps)


def read_currency(node: Node) -> int:
    """The numeric code of a currency that is named by its letters (ISO 4217). Raises ConfigError."""
    code = node.text()
    if code not in NUMERIC:
        hint = f"; did you mean {code.upper()!r}?" if code.upper() in NUMERIC else ""
        raise node.error(f"{node.path} must be a code of ISO 4217 such as EUR, not {code[:40]!r}{hint}")
    return NUMERIC[code]


def _tariff(
    node: Node, service: Service, zones: PriceZones, zoned_by: ZonedBy, read: ReadTariff
) -> Tariff | ZoneTariffs:
    keys = [] if single_value(node) is not None else _keys(node)
    by = next((key for key in (BY_DESTINATION, BY_NETWORK) if key in keys), None)
    if by is None:
        return read(node, service)
    value = node.mapping((by,))[by]
    other, first = zoned_by.setdefault(service.name, (by, value))
    if other != by:
        raise value.error(
            f"{value.path}: {service.name} is priced {other} at {_place(first)}; one catalogue does either"
        )
    return _zone_tariffs(value, by, service, zones, read)


def _keys(node: Node) -> list[str]:
    """The keys of a mapping; none of what is no mapping, which others will find fault with."""
    try:
        return [key.text() for key, _ in node.table()]
    except ConfigError:
        return []


def _zone_tariffs(node: Node, by: str, service: Service, zones: PriceZones, read: ReadTariff) -> ZoneTariffs:
    known = zones.known(by)
    section = "destinations" if by == BY_DESTINATION else "networks"
    if known is None:
        raise node.error(f"{node.path} needs the section {section!r}, which defines the zones")
    asked = service.destinations if by == BY_DESTINATION else service.networks
    rows: dict[str, PriceRow] = {}
    tariffs: dict[str, Tariff] = {}
    for key, value in node.table():
        if key.text() == PRICES_FROM:
            rows = read_price_list(value, "zone")
    for zone, row in rows.items():
        tariffs[_zone(row.key, zone, known, section, asked)] = read(row.price, service)
    for key, value in node.table():
        zone = key.text()
        if zone in rows:
            raise key.error(f"{value.path}: the zone {zone} has a price at {_place(rows[zone].key)} already")
        if zone != PRICES_FROM:
            tariffs[_zone(key, zone, known, section, asked)] = read(value, service)
    if not tariffs:
        raise node.error(f"{node.path} must price at least one zone{nearest('', known)}")
    others = tariffs.pop(OTHERS, None)
    return ZoneTariffs(by, tariffs, others)


def _zone(key: Node, zone: str, known: Collection[str], section: str, asked: Collection[str] | None) -> str:
    if zone == OTHERS:
        return zone
    if zone not in known:
        raise key.error(f"there is no zone {zone[:60]!r} in {section}{nearest(zone, (*known, OTHERS))}")
    if asked is not None and zone not in asked:
        raise key.error(f"the price for {zone} would never be used: the service is for {', '.join(sorted(asked))} only")
    return zone


def _includes(node: Node | None, offers: Collection[str]) -> tuple[str, ...]:
    found: list[str] = []
    for item in () if node is None else node.items():
        name = item.text()
        if name not in offers:
            raise item.error(f"{item.path}: there is no offer {name[:60]!r}{nearest(name, offers)}")
        if name in found:
            raise item.error(f"{name} stands twice in {item.path.rpartition('[')[0]}")
        found.append(name)
    return tuple(found)


def _place(node: Node) -> str:
    return f"{node.source}:{node.line}"
