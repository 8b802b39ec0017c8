"""The tariff catalogue: which service a request is for, and which rate each plan has for it.

Loaded once from YAML (``config/catalogue.yaml``) and checked in full; a mistake is a ``ConfigError`` with
file and line that says what is allowed. Sizes are written with their unit ("10 MiB", "30 min"), prices as
exact decimals.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from balance.model import UNLIMITED, Rate, Unit
from occ.rating.currency import NUMERIC, parse_amount
from occ.rating.price import FreePrice, StepPrice
from occ.yamlmap import ConfigError, Node, load_yaml, nearest

NOT_NAMED: Final = -1
"""Stands for a Rating-Group or Service-Identifier that a request does not name."""

UNSIGNED32_MAXIMUM: Final = 0xFFFFFFFF
MEMO_ENTRIES: Final = 4096
MEMO_CONTEXT_BYTES: Final = 255
"""Contexts longer than this are looked up afresh each time: nobody shall fill the memory with them."""

UNITS: Final[dict[str, Unit]] = {"octets": Unit.OCTETS, "seconds": Unit.SECONDS, "events": Unit.EVENTS}

SIZES: Final[dict[Unit, dict[str, int]]] = {
    Unit.OCTETS: {
        "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
        "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
    },
    Unit.SECONDS: {"s": 1, "min": 60, "h": 3600, "d": 86_400},
    Unit.EVENTS: {"event": 1, "events": 1},
}  # fmt: skip
"""How sizes may be written, and how many units one of each is."""

_SIZE: Final = re.compile(r"([1-9][0-9]{0,14}) ([A-Za-z]+)", re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_CONTEXT: Final = re.compile(r"[\x21-\x7e]{1,255}")
_PRICE: Final = re.compile(r"(\S+) per (.+)")


@dataclass(frozen=True, slots=True)
class Service:
    """Something that is charged for, and the requests that mean it."""

    name: str
    context: bytes
    """Suffix of the Service-Context-Id (RFC 8506 section 8.42): a request's context matches when it is
    this, or ends with "." and this, as ``ext.<mnc>.<mcc>.<release>.32260@3gpp.org`` does (TS 32.299 clause
    7.1.12)."""
    rating_groups: frozenset[int] | None
    """None: any. ``NOT_NAMED`` stands for a request that names none."""
    unit: Unit
    quota_units: int
    """Granted when the client leaves the amount to the server."""
    maximum_quota_units: int
    """Largest single grant."""
    validity_time_s: int
    """Validity-Time of a grant (RFC 8506 section 8.33)."""
    service_identifiers: frozenset[int] | None = None
    """As ``rating_groups``, for the Service-Identifier."""

    def matches(self, context: bytes, rating_group: int, service_identifier: int) -> bool:
        return (
            context_matches(context, self.context)
            and (self.rating_groups is None or rating_group in self.rating_groups)
            and (self.service_identifiers is None or service_identifier in self.service_identifiers)
        )

    def covers(self, other: "Service") -> bool:
        """Whether every request that ``other`` matches is matched by this service as well."""
        return (
            context_matches(other.context, self.context)
            and _covers(self.rating_groups, other.rating_groups)
            and _covers(self.service_identifiers, other.service_identifiers)
        )


def context_matches(context: bytes, suffix: bytes) -> bool:
    """Whether a Service-Context-Id is ``suffix``, or ends with "." and ``suffix``."""
    return context == suffix or (context.endswith(suffix) and context[-len(suffix) - 1] == 0x2E)


def _covers(mine: frozenset[int] | None, theirs: frozenset[int] | None) -> bool:
    return mine is None or (theirs is not None and theirs <= mine)


class Catalogue:
    """Services in the order of the file, and the rates of each plan. Not to be changed once made."""

    __slots__ = ("_memo", "currency", "plans", "services", "version")

    def __init__(
        self, version: str, currency: int, services: tuple[Service, ...], plans: dict[str, dict[str, Rate]]
    ) -> None:
        self.version = version
        """Name of this edition of the catalogue, as charging data records quote it."""
        self.currency = currency
        """ISO 4217 numeric code of every price."""
        self.services = services
        self.plans = plans
        """Plan name to service name to rate; a service that a plan does not name is not sold under it."""
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
            if service.matches(key[0], key[1], key[2]):
                found = service
                break
        if len(key[0]) <= MEMO_CONTEXT_BYTES:
            if len(self._memo) >= MEMO_ENTRIES:
                self._memo.clear()
            self._memo[key] = found
        return found

    def rate(self, plan: str, service: str) -> Rate | None:
        """The rate of a service under a plan, or None if the plan is unknown or does not sell the service."""
        rates = self.plans.get(plan)
        return None if rates is None else rates.get(service)

    def knows_context(self, context: bytes) -> bool:
        """Whether any service is charged in this Service-Context-Id, whatever its Rating-Groups."""
        return any(context_matches(context, service.context) for service in self.services)


def load_catalogue(path: Path) -> Catalogue:
    """The catalogue in a YAML file. Raises ConfigError."""
    return read_catalogue(load_yaml(path))


def read_catalogue(root: Node) -> Catalogue:
    """The catalogue in a YAML mapping. Raises ConfigError."""
    keys = ("version", "currency", "services", "plans")
    values = root.mapping(keys, required=keys)
    version = values["version"].text()
    if len(version) > 64:
        raise values["version"].error("version must be at most 64 characters long")
    code = values["currency"].text()
    if code not in NUMERIC:
        hint = f"; did you mean {code.upper()!r}?" if code.upper() in NUMERIC else ""
        raise values["currency"].error(f"currency must be a code of ISO 4217 such as EUR, not {code[:40]!r}{hint}")
    services: dict[str, Service] = {}
    for key, value in values["services"].table():
        service = _service(_name(key), value)
        for earlier in services.values():
            if earlier.covers(service):
                raise key.error(
                    f"service {service.name} can never be chosen: {earlier.name}, which comes first, matches "
                    "every request that it matches"
                )
        services[service.name] = service
    if not services:
        raise values["services"].error("services must name at least one service")
    plans = {_name(key): _plan(value, services) for key, value in values["plans"].table()}
    if not plans:
        raise values["plans"].error("plans must name at least one plan")
    return Catalogue(version, NUMERIC[code], tuple(services.values()), plans)


def _name(key: Node) -> str:
    written = key.text()
    if not _NAME.fullmatch(written):
        raise key.error(
            f"a name here is made of small letters, digits, '-', '_' and '.', at most 64 of them, not {written[:80]!r}"
        )
    return written


def _service(name: str, node: Node) -> Service:
    required = ("context", "unit", "quota", "validity")
    optional = ("rating_groups", "service_identifiers", "maximum_quota")
    values = node.mapping(required + optional, required=required)
    context = values["context"].text()
    if not _CONTEXT.fullmatch(context):
        raise values["context"].error(
            f"{node.path}.context must be a Service-Context-Id such as 32251@3gpp.org, without spaces, "
            f"not {context[:80]!r}"
        )
    unit = UNITS[values["unit"].choice(tuple(UNITS))]
    quota = _size(values["quota"], unit)
    maximum = _size(values["maximum_quota"], unit) if "maximum_quota" in values else quota
    if maximum < quota:
        raise values["maximum_quota"].error(f"{node.path}.maximum_quota must not be smaller than the quota")
    validity = _size(values["validity"], Unit.SECONDS)
    if validity > UNSIGNED32_MAXIMUM:
        raise values["validity"].error(f"{node.path}.validity must be at most {UNSIGNED32_MAXIMUM} s")
    if unit == Unit.SECONDS and maximum > UNSIGNED32_MAXIMUM:
        larger = values.get("maximum_quota", values["quota"])
        raise larger.error(f"{larger.path} must be at most {UNSIGNED32_MAXIMUM} s, the most that CC-Time can say")
    return Service(
        name=name,
        context=context.encode("ascii"),
        rating_groups=_numbers(values.get("rating_groups")),
        unit=unit,
        quota_units=quota,
        maximum_quota_units=maximum,
        validity_time_s=validity,
        service_identifiers=_numbers(values.get("service_identifiers")),
    )


def _numbers(node: Node | None) -> frozenset[int] | None:
    """``any`` (None), or a list of numbers and ``none``."""
    if node is None or _is_word(node, "any"):
        return None
    found: set[int] = set()
    for item in node.items():
        number = NOT_NAMED if item.text() == "none" else item.integer(0, UNSIGNED32_MAXIMUM)
        if number in found:
            raise item.error(f"{item.text()} stands twice in {node.path}")
        found.add(number)
    if not found:
        raise node.error(f"{node.path} must be 'any', or a list of numbers and 'none' such as [10, none]")
    return frozenset(found)


def _is_word(node: Node, word: str) -> bool:
    try:
        return node.text() == word
    except ConfigError:  # a list, or nothing: for the caller to judge
        return False


def _plan(node: Node, services: dict[str, Service]) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for name, value in node.mapping(tuple(services)).items():
        rates[name] = _rate(value, services[name].unit)
    if not rates:
        raise node.error(f"{node.path} must price at least one service{nearest('', services)}")
    return rates


def _rate(node: Node, unit: Unit) -> Rate:
    written = node.text()
    if written == "free":
        return FreePrice(unit)
    match = _PRICE.fullmatch(written)
    if match is None:
        raise node.error(
            f"{node.path} must be 'free', or a price and the step it is for such as '0.01 per "
            f"{_EXAMPLES[unit]}', not {written[:40]!r}"
        )
    try:
        return StepPrice(unit, parse_size(match.group(2), unit), parse_amount(match.group(1)))
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def _size(node: Node, unit: Unit) -> int:
    try:
        return parse_size(node.text(), unit)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


_EXAMPLES: Final = {Unit.OCTETS: "1 MiB", Unit.SECONDS: "60 s", Unit.EVENTS: "1 event"}


def parse_size(written: str, unit: Unit) -> int:
    """Units in a size such as "10 MiB", "60 s" or "1 event": a whole number, one space, a word of ``SIZES``.

    Raises ValueError with one sentence.
    """
    words = SIZES[unit]
    match = _SIZE.fullmatch(written)
    if match is None:
        raise ValueError(f"{written[:40]!r} is not a size such as '{_EXAMPLES[unit]}'")
    if match.group(2) not in words:
        raise ValueError(f"{match.group(2)[:40]!r} is no unit for {unit.name.lower()}; known: {', '.join(words)}")
    units = int(match.group(1)) * words[match.group(2)]
    if units > UNLIMITED:
        raise ValueError(f"{written[:40]!r} is more than can be counted")
    return units
