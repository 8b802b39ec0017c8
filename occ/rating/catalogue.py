"""The tariff catalogue: which service a request is for, and which tariff each plan has for it.

A catalogue is a YAML file, or a folder: all its ``*.yaml`` in the order of their names, as if they were one file. It is
loaded once and checked in full; a mistake is a ``ConfigError`` with file and line that says what is allowed. Sizes are
written with their unit ("10 MiB", "30 min"), prices as exact decimals. What a section says, the module that reads it
tells: ``service``, ``plans``, ``tariff``, ``allowances``, ``offers``, ``numbering``, ``destinations``, ``networks``,
``local_time``, ``tax``, ``written_price``, ``written_promotions``.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from occ.rating.allowances import Allowance, Bonus, read_allowance, read_bonus
from occ.rating.caps import Cap
from occ.rating.criteria import Criteria, Facts, RequestFacts, access_point, check_zones
from occ.rating.destinations import EMERGENCY, Destination, Destinations, read_destinations
from occ.rating.local_time import UTC_CALENDAR, Calendar, read_calendar
from occ.rating.networks import Network, Networks, read_networks
from occ.rating.numbering import UNKNOWN, Number, Numbering, read_numbering
from occ.rating.offers import Offer, read_offer
from occ.rating.plans import (
    BY_DESTINATION,
    BY_NETWORK,
    PLAN_WORDS,
    PricePlan,
    PriceZones,
    ZonedBy,
    ZoneTariffs,
    read_currency,
    read_plan,
)
from occ.rating.promotions import Promotions
from occ.rating.service import NOT_NAMED, Service, context_matches, read_service
from occ.rating.sizes import SIZES, parse_size
from occ.rating.tariff import Price, Tariff, read_tariff
from occ.rating.tax import NO_TAX, Tax, read_tax
from occ.rating.written_promotions import Known, read_promotions
from occ.yamlmap import ConfigError, Node, parse_yaml, read_text, shown

__all__ = [
    "NOT_NAMED",
    "SIZES",
    "Called",
    "Catalogue",
    "RequestFacts",
    "Service",
    "catalogue_files",
    "context_matches",
    "load_catalogue",
    "parse_size",
    "read_catalogue",
]

MEMO_ENTRIES: Final = 4096
MEMO_NUMBERS: Final = 16_384
MEMO_CONTEXT_BYTES: Final = 255
"""Contexts longer than this, and the like, are looked up afresh each time: nobody shall fill the memory with them."""

DIGEST_DIGITS: Final = 8
SMS_CONTEXT: Final = b"32274@3gpp.org"
"""Of short messages, whose recipients are international numbers without "+" (``Numbering.normalise``)."""

ONE_PLACE: Final = (
    "version",
    "currency",
    "time_zone",
    "holidays",
    "tax",
    "numbering",
    "destinations",
    "networks",
    "promotions",
)
"""Sections that stand in one file."""
MANY_PLACES: Final = ("services", "plans", "allowances", "bonuses", "offers")
"""Sections whose names may be spread over the files."""
REQUIRED: Final = ("version", "currency", "services", "plans")

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)

T = TypeVar("T")


class Called(NamedTuple):
    """Where a request goes."""

    number: Number
    """In its one form."""
    destination: Destination | None
    """None: in no zone."""

    @property
    def zone(self) -> str:
        """Empty: in no zone."""
        return "" if self.destination is None else self.destination.zone


NOBODY: Final = Called(UNKNOWN, None)
_HERE: Final = Network("", "")


class Catalogue:
    """Services in the order of the file, and the tariffs of each plan. Not to be changed once made."""

    __slots__ = (
        "_allowances_for",
        "_asks",
        "_called",
        "_found",
        "_memo",
        "_zoned_by",
        "allowances",
        "bonuses",
        "by_name",
        "calendar",
        "currency",
        "destinations",
        "edition",
        "networks",
        "numbering",
        "offers",
        "plans",
        "promotions",
        "services",
        "tax",
        "version",
    )

    def __init__(
        self,
        version: str,
        currency: int,
        services: tuple[Service, ...],
        plans: Mapping[str, PricePlan | Mapping[str, Price | Tariff | ZoneTariffs]],
        calendar: Calendar = UTC_CALENDAR,
        *,
        digest: str = "",
        tax: Tax = NO_TAX,
        numbering: Numbering | None = None,
        destinations: Destinations | None = None,
        networks: Networks | None = None,
        allowances: Mapping[str, Allowance] | None = None,
        bonuses: Mapping[str, Bonus] | None = None,
        offers: Mapping[str, Offer] | None = None,
        promotions: Promotions | None = None,
    ) -> None:
        self.version = version
        """Name of this edition of the catalogue, as its author calls it."""
        self.edition = f"{version} ({digest})" if digest else version
        """Name and content, as charging data records quote it: no two catalogues that differ have the same."""
        self.currency = currency
        """ISO 4217 numeric code of every price, but for plans that name another."""
        self.services = services
        self.plans = {plan: _price_plan(sold) for plan, sold in plans.items()}
        """By name. A service that a plan does not name is not sold under it. A price that was given is the only one of
        its tariff."""
        self.calendar = calendar
        """Time zone and holidays that the tariffs were read by."""
        self.tax = tax
        self.numbering = numbering or Numbering()
        self.destinations = destinations
        """None: numbers are in no zone."""
        self.networks = networks
        """None: all networks are alike."""
        self.allowances = dict(allowances or {})
        self.bonuses = dict(bonuses or {})
        self.offers = dict(offers or {})
        self.promotions = promotions or Promotions((), calendar)
        self.by_name: Mapping[str, Service] = {service.name: service for service in services}
        """The services."""
        self._allowances_for = {name: self._spendable_on(name) for name in self.by_name}
        self._zoned_by = {service.name: self._zones_of(service) for service in services}
        asks = (
            any(service.apns is not None for service in services),
            destinations is not None,
            networks is not None,
            any(service.sip_methods is not None for service in services),
            any(service.role is not None for service in services),
        )
        self._asks = asks if any(asks) else None
        self._memo: dict[tuple[bytes, int, int], Service | None] = {}
        self._found: dict[tuple[object, ...], tuple[Service | None, str]] = {}
        self._called: dict[tuple[bytes, bytes | None, bool], Called] = {}

    def _zones_of(self, service: Service) -> str:
        """What the zone of a service is that ``find`` tells: by what plans price it, else by what it is found; empty:
        where it goes, or else where it is used.
        """
        for plan in self.plans.values():
            tariff = plan.tariffs.get(service.name)
            if isinstance(tariff, ZoneTariffs):
                return tariff.by
        if service.destinations is not None:
            return BY_DESTINATION
        return BY_NETWORK if service.networks is not None else ""

    def _spendable_on(self, service: str) -> tuple[str, ...]:
        allowances = [each.name for each in self.allowances.values() if service in each.serves]
        return (*allowances, *(each.name for each in self.bonuses.values() if each.may_pay(service)))

    # -- which service ---------------------------------------------------------------------------------------------

    def find(self, request: Facts, rating_group: int, service_identifier: int) -> tuple[Service | None, str]:
        """The first service that a request belongs to, or None, and its zone, or "": the one by which it is priced, if
        it is by any.

        -1 for a Rating-Group or Service-Identifier that is not named. An emergency call belongs to a service for
        destination ``emergency`` wherever that stands. Remembered by whatever the services of this catalogue ask for.
        """
        key: tuple[object, ...]
        if self._asks is not None:
            key = self._key(self._asks, request, rating_group, service_identifier)
        else:
            key = (request.service_context_id, rating_group, service_identifier)
        try:
            return self._found[key]
        except KeyError:
            return self._find(key, self.criteria(request, rating_group, service_identifier))

    def _key(
        self, asks: tuple[bool, bool, bool, bool, bool], request: Facts, rating_group: int, service_identifier: int
    ) -> tuple[object, ...]:
        """What a request is remembered by: no more than services ask for."""
        by_apn, by_destination, by_network, by_method, by_role = asks
        return (
            request.service_context_id,
            rating_group,
            service_identifier,
            request.called_station_id if by_apn else None,
            self.called(request).zone if by_destination and request.called_party is not None else "",
            self.network(request).zone if by_network else "",
            request.sip_method if by_method else None,
            request.role_of_node if by_role else None,
        )

    def criteria(self, request: Facts, rating_group: int, service_identifier: int) -> Criteria:
        """All that is known of a request, whether or not a service asks for it."""
        return Criteria(
            request.service_context_id,
            rating_group,
            service_identifier,
            access_point(request.called_station_id),
            self.called(request).zone,
            self.network(request).zone,
            request.sip_method,
            request.role_of_node,
        )

    def _find(self, key: tuple[object, ...], facts: Criteria) -> tuple[Service | None, str]:
        service = self.first_match(facts)
        zone = ""
        if service is not None:
            by = self._zoned_by[service.name]
            zone = facts.destination if by != BY_NETWORK else ""
            if not zone and by != BY_DESTINATION:
                zone = facts.network
        if all(len(part) <= MEMO_CONTEXT_BYTES for part in key if isinstance(part, bytes)):
            if len(self._found) >= MEMO_ENTRIES:
                self._found.clear()
            self._found[key] = service, zone
        return service, zone

    def first_match(self, facts: Criteria) -> Service | None:
        """The service that such a request belongs to, looked up afresh."""
        if facts.destination == EMERGENCY:
            for service in self.services:
                if service.is_for(EMERGENCY) and service.matches(facts):
                    return service
        for service in self.services:
            if service.matches(facts):
                return service
        return None

    def classify(self, context: bytes, rating_group: int, service_identifier: int) -> Service | None:
        """The first service that matches a request of which no more is known, or None; -1 for what it does not name."""
        key = (context, rating_group, service_identifier)
        try:
            return self._memo[key]
        except KeyError:
            found = self.first_match(Criteria(*key))
            if len(context) <= MEMO_CONTEXT_BYTES:
                if len(self._memo) >= MEMO_ENTRIES:
                    self._memo.clear()
                self._memo[key] = found
            return found

    def called(self, request: Facts) -> Called:
        """The called number and its zone."""
        address = request.called_party
        if address is None:
            return NOBODY
        key = (address, request.number_portability, request.service_context_id.endswith(SMS_CONTEXT))
        try:
            return self._called[key]
        except KeyError:
            number = self.numbering.normalise(key[0], key[1], msisdn=key[2])
            destinations = self.destinations
            called = Called(number, None if destinations is None else destinations.find(number))
            if len(address) + len(key[1] or b"") <= MEMO_CONTEXT_BYTES:
                if len(self._called) >= MEMO_NUMBERS:
                    self._called.clear()
                self._called[key] = called
            return called

    def network(self, request: Facts) -> Network:
        """The serving network and its zone."""
        networks = self.networks
        if networks is None:
            return _HERE
        return networks.find(
            request.sgsn_mcc_mnc, request.user_location, request.access_network, request.visited_network
        )

    def knows_context(self, context: bytes) -> bool:
        """Whether any service is charged in this Service-Context-Id, whatever its Rating-Groups."""
        return any(context_matches(context, service.context) for service in self.services)

    # -- what it costs ---------------------------------------------------------------------------------------------

    def tariff(self, plan: str, service: str, zone: str = "") -> Tariff | None:
        """The tariff of a service under a plan, or None if the plan is unknown or does not sell the service there.

        ``zone``: as ``find`` tells it; it counts where the plan prices the service by zone.
        """
        found = self.plans.get(plan)
        if found is None:
            return None
        tariff = found.tariffs.get(service)
        return tariff.of(zone) if isinstance(tariff, ZoneTariffs) else tariff

    def currency_of(self, plan: str) -> int:
        """ISO 4217 numeric code of a plan's prices."""
        found = self.plans.get(plan)
        return self.currency if found is None else found.currency or self.currency

    def caps(self, plan: str, service: str) -> tuple[Cap, ...]:
        """The caps that a plan has on a service."""
        found = self.plans.get(plan)
        return () if found is None else found.caps.get(service, ())

    def includes(self, plan: str) -> tuple[str, ...]:
        """Names of the offers that come with a plan."""
        found = self.plans.get(plan)
        return () if found is None else found.includes

    def allowances_for(self, service: str) -> tuple[str, ...]:
        """Names of the allowances and bonuses that may be spent on a service."""
        return self._allowances_for.get(service, ())

    def allowance(self, name: str) -> Allowance | None:
        return self.allowances.get(name)

    def bonus(self, name: str) -> Bonus | None:
        return self.bonuses.get(name)

    def offer(self, name: str) -> Offer | None:
        return self.offers.get(name)


def _price_plan(sold: PricePlan | Mapping[str, Price | Tariff | ZoneTariffs]) -> PricePlan:
    if isinstance(sold, PricePlan):
        return sold
    return PricePlan(
        {
            name: tariff if isinstance(tariff, Tariff | ZoneTariffs) else Tariff.of(tariff)
            for name, tariff in sold.items()
        }
    )


# -- reading -------------------------------------------------------------------------------------------------------


def catalogue_files(path: Path) -> list[Path]:
    """The YAML files of a catalogue in the order in which they are read. Raises ConfigError."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix == ".yaml" and not file.name.startswith("."))
    if not files:
        raise ConfigError(shown(path), None, "there is no catalogue in this folder: no file in it ends with .yaml")
    return files


def load_catalogue(path: Path) -> Catalogue:
    """The catalogue in a YAML file or a folder of such files. Raises ConfigError."""
    files = catalogue_files(path)
    texts = [read_text(file) for file in files]
    roots = [parse_yaml(text, shown(file), file.resolve().parent) for file, text in zip(files, texts, strict=True)]
    return read_catalogue(*roots, texts=texts)


def read_catalogue(*roots: Node, texts: Sequence[str] = ()) -> Catalogue:
    """The catalogue in one or more YAML mappings; ``texts``: what they were read from. Raises ConfigError."""
    sections = _Sections(roots)
    one = sections.one
    version = one["version"].text()
    if len(version) > 64:
        raise one["version"].error("version must be at most 64 characters long")
    currency = read_currency(one["currency"])
    calendar = read_calendar(one.get("time_zone"), one.get("holidays"))
    tax = read_tax(one["tax"]) if "tax" in one else NO_TAX
    numbering = read_numbering(one["numbering"]) if "numbering" in one else Numbering()
    destinations = read_destinations(one["destinations"], numbering) if "destinations" in one else None
    networks = read_networks(one["networks"]) if "networks" in one else None
    zones = PriceZones(
        None if destinations is None else destinations.zones, None if networks is None else networks.zones
    )
    services = _services(sections, zones)
    allowances = sections.named("allowances", lambda key, node: read_allowance(key.text(), node, services))
    bonuses = sections.named("bonuses", lambda key, node: read_bonus(key.text(), node, services), taken=allowances)
    offers = sections.named("offers", lambda key, node: read_offer(key.text(), node, allowances, bonuses, tax))
    zoned_by: ZonedBy = {}

    def tariff(node: Node, service: Service) -> Tariff:
        return read_tariff(node, service.unit, calendar, tax)

    def plan(_: Node, node: Node) -> PricePlan:
        return read_plan(node, services, offers, zones, zoned_by, tariff, tax)

    plans = sections.named("plans", plan)
    if not plans:
        raise sections.many["plans"][0].error("plans must name at least one plan")
    return Catalogue(
        version,
        currency,
        tuple(services.values()),
        plans,
        calendar,
        digest=_digest(roots, texts) if texts else "",
        tax=tax,
        numbering=numbering,
        destinations=destinations,
        networks=networks,
        allowances=allowances,
        bonuses=bonuses,
        offers=offers,
        promotions=read_promotions(one.get("promotions"), Known(services, plans, allowances, bonuses, calendar)),
    )


class _Sections:
    """The sections of a catalogue, from all its files."""

    __slots__ = ("many", "one")

    def __init__(self, roots: Sequence[Node]) -> None:
        self.one: dict[str, Node] = {}
        self.many: dict[str, list[Node]] = {}
        for root in roots:
            for name, node in root.mapping((*ONE_PLACE, *MANY_PLACES)).items():
                if name in MANY_PLACES:
                    self.many.setdefault(name, []).append(node)
                elif name in self.one:
                    raise node.error(f"{name} stands in two files, first at {_place(self.one[name])}")
                else:
                    self.one[name] = node
        for name in REQUIRED:
            if name not in self.one and name not in self.many:
                if len(roots) == 1:
                    raise roots[0].error(f"key {name!r} is missing")
                folder = str(Path(roots[0].source).parent)
                raise ConfigError(folder, None, f"key {name!r} is missing in all files of this folder")

    def named(
        self, section: str, read: Callable[[Node, Node], T], taken: Mapping[str, object] | None = None
    ) -> dict[str, T]:
        """What is defined by name in a section, in order; a name counts once, also among those ``taken``."""
        found: dict[str, T] = {}
        places: dict[str, Node] = {}
        for node in self.many.get(section, ()):
            for key, value in node.table():
                name = _name(key)
                if name in places:
                    raise key.error(f"{value.path} is defined twice, first at {_place(places[name])}")
                if taken is not None and name in taken:
                    raise key.error(f"{value.path}: there is an allowance of that name; give it another")
                places[name] = key
                found[name] = read(key, value)
        return found


def _place(node: Node) -> str:
    return f"{node.source}:{node.line}"


def _name(key: Node) -> str:
    written = key.text()
    if not _NAME.fullmatch(written):
        raise key.error(
            f"a name here is made of small letters, digits, '-', '_' and '.', at most 64 of them, not {written[:80]!r}"
        )
    return written


def _services(sections: _Sections, zones: PriceZones) -> dict[str, Service]:
    services: dict[str, Service] = {}

    def read(key: Node, node: Node) -> Service:
        name = key.text()
        if name in PLAN_WORDS:
            raise key.error(f"{node.path}: a service cannot be called {name}, which means something else in a plan")
        service = read_service(name, node)
        given = {each.text(): value for each, value in node.table()}
        if service.destinations is not None:
            check_zones(given["destinations"], "destinations", zones.destinations)
        if service.networks is not None:
            check_zones(given["networks"], "networks", zones.networks)
        for earlier in services.values():
            if earlier.covers(service) and not service.is_for(EMERGENCY):
                raise key.error(
                    f"service {name} can never be chosen: {earlier.name}, which comes first, matches every request "
                    "that it matches"
                )
        services[name] = service
        return service

    if not sections.named("services", read):
        raise sections.many["services"][0].error("services must name at least one service")
    return services


def _digest(roots: Sequence[Node], texts: Sequence[str]) -> str:
    """The first digits of the SHA-256 over all files of a catalogue, price lists and zone files among them."""
    digest = hashlib.sha256()
    base = roots[0].base
    for root, text in zip(roots, texts, strict=True):
        digest.update(f"{Path(root.source).name}\0{text}\0".encode())
    for file in sorted({file for root in roots for file in root.files}):
        digest.update(f"{os.path.relpath(file, base)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:DIGEST_DIGITS]
