"""The tariff catalogue: which service a request is for, and which tariff each plan has for it.

Loaded once from YAML (``config/catalogue.yaml``) and checked in full; a mistake is a ``ConfigError`` with
file and line that says what is allowed. Sizes are written with their unit ("10 MiB", "30 min"), prices as
exact decimals.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from occ.rating.criteria import Criteria
from occ.rating.currency import NUMERIC
from occ.rating.local_time import UTC_CALENDAR, Calendar, read_calendar
from occ.rating.service import NOT_NAMED, Service, context_matches, read_service
from occ.rating.sizes import SIZES, parse_size
from occ.rating.tariff import Price, Tariff, read_tariff
from occ.yamlmap import Node, load_yaml, nearest

__all__ = [
    "NOT_NAMED",
    "SIZES",
    "Catalogue",
    "Service",
    "context_matches",
    "load_catalogue",
    "parse_size",
    "read_catalogue",
]

MEMO_ENTRIES: Final = 4096
MEMO_CONTEXT_BYTES: Final = 255
"""Contexts longer than this are looked up afresh each time: nobody shall fill the memory with them."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class Catalogue:
    """Services in the order of the file, and the tariffs of each plan. Not to be changed once made."""

    __slots__ = ("_memo", "calendar", "currency", "plans", "services", "version")

    def __init__(
        self,
        version: str,
        currency: int,
        services: tuple[Service, ...],
        plans: Mapping[str, Mapping[str, Price | Tariff]],
        calendar: Calendar = UTC_CALENDAR,
    ) -> None:
        self.version = version
        """Name of this edition of the catalogue, as charging data records quote it."""
        self.currency = currency
        """ISO 4217 numeric code of every price."""
        self.services = services
        self.plans = {
            plan: {
                name: tariff if isinstance(tariff, Tariff) else Tariff.of(tariff) for name, tariff in tariffs.items()
            }
            for plan, tariffs in plans.items()
        }
        """Plan name to service name to tariff; a service that a plan does not name is not sold under it. Where a price
        was given, it is the only one of its tariff."""
        self.calendar = calendar
        """Time zone and holidays that the tariffs were read by."""
        self._memo: dict[tuple[bytes, int, int], Service | None] = {}

    def classify(self, context: bytes, rating_group: int, service_identifier: int) -> Service | None:
        """The first service that matches a request, or None; -1 for what the request does not name."""
        key = (context, rating_group, service_identifier)
        try:
            return self._memo[key]
        except KeyError:
            return self._look_up(key)

    def _look_up(self, key: tuple[bytes, int, int]) -> Service | None:
        found: Service | None = None
        for service in self.services:
            if service.matches(Criteria(*key)):
                found = service
                break
        if len(key[0]) <= MEMO_CONTEXT_BYTES:
            if len(self._memo) >= MEMO_ENTRIES:
                self._memo.clear()
            self._memo[key] = found
        return found

    def tariff(self, plan: str, service: str) -> Tariff | None:
        """The tariff of a service under a plan, or None if the plan is unknown or does not sell the service."""
        tariffs = self.plans.get(plan)
        return None if tariffs is None else tariffs.get(service)

    def knows_context(self, context: bytes) -> bool:
        """Whether any service is charged in this Service-Context-Id, whatever its Rating-Groups."""
        return any(context_matches(context, service.context) for service in self.services)


def load_catalogue(path: Path) -> Catalogue:
    """The catalogue in a YAML file. Raises ConfigError."""
    return read_catalogue(load_yaml(path))


def read_catalogue(root: Node) -> Catalogue:
    """The catalogue in a YAML mapping. Raises ConfigError."""
    required = ("version", "currency", "services", "plans")
    values = root.mapping((*required, "time_zone", "holidays"), required=required)
    version = values["version"].text()
    if len(version) > 64:
        raise values["version"].error("version must be at most 64 characters long")
    code = values["currency"].text()
    if code not in NUMERIC:
        hint = f"; did you mean {code.upper()!r}?" if code.upper() in NUMERIC else ""
        raise values["currency"].error(f"currency must be a code of ISO 4217 such as EUR, not {code[:40]!r}{hint}")
    calendar = read_calendar(values.get("time_zone"), values.get("holidays"))
    services = _services(values["services"])
    plans = {_name(key): _plan(value, services, calendar) for key, value in values["plans"].table()}
    if not plans:
        raise values["plans"].error("plans must name at least one plan")
    return Catalogue(version, NUMERIC[code], tuple(services.values()), plans, calendar)


def _name(key: Node) -> str:
    written = key.text()
    if not _NAME.fullmatch(written):
        raise key.error(
            f"a name here is made of small letters, digits, '-', '_' and '.', at most 64 of them, not {written[:80]!r}"
        )
    return written


def _services(node: Node) -> dict[str, Service]:
    services: dict[str, Service] = {}
    for key, value in node.table():
        service = read_service(_name(key), value)
        for earlier in services.values():
            if earlier.covers(service):
                raise key.error(
                    f"service {service.name} can never be chosen: {earlier.name}, which comes first, matches "
                    "every request that it matches"
                )
        services[service.name] = service
    if not services:
        raise node.error("services must name at least one service")
    return services


def _plan(node: Node, services: dict[str, Service], calendar: Calendar) -> dict[str, Tariff]:
    tariffs: dict[str, Tariff] = {}
    for name, value in node.mapping(tuple(services)).items():
        tariffs[name] = read_tariff(value, services[name].unit, calendar)
    if not tariffs:
        raise node.error(f"{node.path} must price at least one service{nearest('', services)}")
    return tariffs
