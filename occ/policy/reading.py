"""The rules file: levels, throttles, final units, rules and policy counters, checked in full against a catalogue.

What can be written is in docs/policies.md. A mistake is a ``ConfigError`` with file and line that says what is allowed;
what is allowed and seldom meant is told in ``OperatorPolicies.remarks``.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from balance.model import Unit
from occ.policy.checking import remarks
from occ.policy.written_levels import meter_of, read_kinds, read_levels
from occ.rating.catalogue import Catalogue
from occ.rating.criteria import check_zones
from occ.rating.final_units import FinalUnits, read_bandwidth, read_filter_id, read_final_units
from occ.rating.happy_hours import WHOLE_DAY, HappyHours
from occ.rating.periods import Counter as MeterCounter
from occ.rating.periods import Period
from occ.rating.sizes import UNSIGNED32_MAXIMUM, read_size, single_value
from occ.rating.tariff import EVERY_DAY, HOLIDAY, parse_days
from occ.yamlmap import Node, nearest, parse_yaml, read_text, shown
from policies.counters import Counter
from policies.levels import LIFE_LEVELS, Level, Measured
from policies.policy import Policies
from policies.rules import Access, Rule, Throttle

DIGEST_DIGITS: Final = 8
SECTIONS: Final = ("levels", "throttles", "final_units", "rules", "counters")
RULE_KEYS: Final = (
    "rule", "when", "accounts", "plans", "segments", "services", "destinations", "networks", "during",
    "do", "final_units", "throttle", "grant_at_most", "notify", "restored", "emit",
)  # fmt: skip
ACTIONS: Final = ("do", "final_units", "throttle", "grant_at_most", "notify", "restored", "emit")
CUT: Final = "cut"
ACCESS: Final = {
    "allow": Access.ALLOW,
    "allow free": Access.FREE,
    "bar": Access.BAR,
    "bar for good": Access.BAR_FOR_GOOD,
    "refuse": Access.NO_CREDIT,
    CUT: Access.BAR,
}
"""By the word that stands for it after ``do``."""
OTHERWISE: Final = "otherwise"

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_WORD: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_DURING: Final = re.compile(r"(?:(.+) )?([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|(24:00))")


@dataclass(frozen=True, slots=True)
class OperatorPolicies:
    """A rules file that has been read."""

    policies: Policies
    final_units: dict[str, FinalUnits] = field(default_factory=dict)
    """By name, as rules and ``Decision.final_units`` name them."""
    text: str = ""
    """Of the file."""
    meters: dict[str, tuple[MeterCounter, ...]] = field(default_factory=dict)
    """By service: meters that count all its use, because levels look at them (``written_levels.meter_of``)."""
    remarks: tuple[str, ...] = ()
    """What is allowed, and seldom meant: one sentence each, with file and line."""

    @property
    def edition(self) -> str:
        """Which file this is: a digest of its text."""
        return self.policies.edition


def load_policies(path: Path, catalogue: Catalogue, templates: Collection[str] | None = None) -> OperatorPolicies:
    """The rules in a file. ``templates``: names of the notices there are; None: not known. Raises ConfigError."""
    return parse_policies(read_text(path), shown(path), catalogue, templates)


def parse_policies(
    text: str, source: str, catalogue: Catalogue, templates: Collection[str] | None = None
) -> OperatorPolicies:
    """The rules in a text; ``source``: what it is called in messages. Raises ConfigError."""
    root = parse_yaml(text, source, Path())
    values = root.mapping(SECTIONS)
    levels = read_levels(values["levels"], catalogue) if "levels" in values else ()
    throttles = {name: _throttle(name, node) for name, node in _named(values.get("throttles"))}
    final_units = {name: read_final_units(node) for name, node in _named(values.get("final_units"))}
    known = _Known((*levels, *LIFE_LEVELS), throttles, final_units, catalogue, templates)
    rules: list[Rule] = []
    for item in values["rules"].items() if "rules" in values else ():
        rules.append(_rule(item, known, {each.name: each.line for each in rules}))
    policies = Policies(
        edition=hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS],
        levels=(*levels, *LIFE_LEVELS),
        rules=tuple(rules),
        throttles=throttles,
        counters=_counters(values.get("counters"), known),
    )
    return OperatorPolicies(
        policies, final_units, text, _meters(levels), remarks(policies, final_units, catalogue, source)
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """What rules can name."""

    levels: tuple[Level, ...]
    throttles: dict[str, Throttle]
    final_units: dict[str, FinalUnits]
    catalogue: Catalogue
    templates: Collection[str] | None

    @property
    def level_names(self) -> list[str]:
        return [each.name for each in self.levels]


def _named(node: Node | None) -> list[tuple[str, Node]]:
    return [] if node is None else [(_name(key), value) for key, value in node.table()]


def _name(node: Node) -> str:
    written = node.text()
    if not _NAME.fullmatch(written):
        raise node.error(
            f"a name here is made of small letters, digits, '-', '_' and '.', at most 64 of them, not {written[:80]!r}"
        )
    return written


def _throttle(name: str, node: Node) -> Throttle:
    values = node.mapping(("down", "up", "filter_id"), required=("down", "up"))
    filter_id = read_filter_id(values["filter_id"]) if "filter_id" in values else b""
    return Throttle(name, read_bandwidth(values["down"]), read_bandwidth(values["up"]), filter_id)


def _meters(levels: tuple[Level, ...]) -> dict[str, tuple[MeterCounter, ...]]:
    found: dict[str, dict[str, MeterCounter]] = {}
    for level in levels:
        if level.measure.what in (Measured.COUNTER, Measured.SPENT):
            for service in level.measure.services:
                for period in (Period.DAY, Period.MONTH):
                    counter = meter_of(service, period.name.lower())
                    if counter.name == level.measure.name:
                        found.setdefault(service, {})[counter.name] = counter
    return {service: tuple(counters.values()) for service, counters in found.items()}


# -- rules -----------------------------------------------------------------------------------------------------------


def _rule(node: Node, known: _Known, earlier: dict[str, int]) -> Rule:
    values = node.mapping(RULE_KEYS, required=("rule",))
    name = _name(values["rule"])
    if name in earlier:
        raise values["rule"].error(f"there is a rule {name} already, on line {earlier[name]}")
    if not values.keys() & set(ACTIONS):
        raise node.error(f"rule {name} does nothing; it must say one of {', '.join(ACTIONS)}")
    catalogue = known.catalogue
    services = _among(values.get("services"), "service", [each.name for each in catalogue.services])
    access, cut = _access(name, values)
    final_units = _one(values.get("final_units"), "final_units", known.final_units)
    for told in ("notify", "restored", "emit"):
        if told in values and "when" not in values:
            raise values[told].error(f"rule {name} tells when a level is come to or left: say at which, with 'when'")
    return Rule(
        name=name,
        line=node.line or 0,
        levels=_among(values.get("when"), "level", known.level_names),
        kinds=read_kinds(values["accounts"]) if "accounts" in values else (),
        plans=_among(values.get("plans"), "plan", list(catalogue.plans)),
        segments=_among(values.get("segments"), "segment", None),
        services=services,
        zones=_zones(name, values, catalogue),
        windows=tuple(_window(item, catalogue) for item in _items(values["during"])) if "during" in values else (),
        access=Access.FINAL_UNITS if final_units else access,
        final_units=final_units,
        cut=cut,
        throttle=_one(values.get("throttle"), "throttles", known.throttles),
        most_units=_most_units(name, values["grant_at_most"], services, catalogue) if "grant_at_most" in values else 0,
        notify=_template(values.get("notify"), known),
        restored=_template(values.get("restored"), known),
        emit=_name(values["emit"]) if "emit" in values else "",
    )


def _access(name: str, values: dict[str, Node]) -> tuple[Access | None, bool]:
    """What ``do`` says, and whether open sessions are aborted."""
    if "do" not in values:
        return None, False
    node = values["do"]
    written = node.choice(tuple(ACCESS))
    if "final_units" in values:
        raise node.error(f"rule {name} says what becomes of the service twice, with 'do' and with 'final_units'")
    access = ACCESS[written]
    for key in ("throttle", "grant_at_most"):
        if access not in (Access.ALLOW, Access.FREE) and key in values:
            raise values[key].error(f"rule {name}: what is not granted ('{written}') cannot have '{key}' too")
    return access, written == CUT


def _items(node: Node) -> list[Node]:
    return [node] if single_value(node) is not None else node.items()


def _among(node: Node | None, what: str, known: list[str] | None) -> tuple[str, ...]:
    """One name or a list, each ``known``; none: any."""
    if node is None:
        return ()
    found: list[str] = []
    for item in _items(node):
        word = item.text()
        if known is not None and word not in known:
            raise item.error(f"there is no {what} {word[:60]!r}{nearest(word, known)}")
        if word in found:
            raise item.error(f"{word} stands twice in {node.path}")
        found.append(word)
    if not found:
        raise node.error(f"{node.path} must name at least one {what}; leave it out to mean any")
    return tuple(found)


def _one(node: Node | None, section: str, known: Collection[str]) -> str:
    if node is None:
        return ""
    word = node.text()
    if word not in known:
        raise node.error(f"there is nothing called {word[:60]!r} in {section}{nearest(word, known)}")
    return word


def _zones(name: str, values: dict[str, Node], catalogue: Catalogue) -> tuple[str, ...]:
    destinations, networks = values.get("destinations"), values.get("networks")
    if destinations is not None and networks is not None:
        raise networks.error(
            f"rule {name} names destinations and networks; a service has a zone of one kind: two rules"
        )
    if destinations is not None:
        check_zones(
            destinations, "destinations", None if catalogue.destinations is None else catalogue.destinations.zones
        )
        return _among(destinations, "destination", None)
    if networks is not None:
        check_zones(networks, "networks", None if catalogue.networks is None else catalogue.networks.zones)
        return _among(networks, "network", None)
    return ()


def _window(node: Node, catalogue: Catalogue) -> HappyHours:
    written = node.text()
    match = _DURING.fullmatch(written)
    if match is None:
        raise node.error(
            f"{node.path} must be hours such as '20:00-08:00' or 'Mo-Fr 20:00-08:00', from 00:00 to 24:00, not "
            f"{written[:40]!r}"
        )
    days = EVERY_DAY if match[1] is None else parse_days(node, match[1])
    if HOLIDAY in days and not catalogue.calendar.holidays:
        raise node.error("the catalogue lists no holidays; list them at its top, such as holidays: [2026-12-25]")
    begin = int(match[2]) * 60 + int(match[3])
    end = WHOLE_DAY if match[6] else int(match[4]) * 60 + int(match[5]) or WHOLE_DAY
    try:
        return HappyHours(days, begin, end, catalogue.calendar)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def _most_units(name: str, node: Node, services: tuple[str, ...], catalogue: Catalogue) -> int:
    units = {each.unit for each in catalogue.services if each.name in services}
    if len(units) != 1:
        raise node.error(
            f"rule {name} must name services, all counted in one unit, for {node.path} to be so much of it"
            if not units
            else f"{node.path}: the services of rule {name} are counted in different units; make it two rules"
        )
    unit: Unit = units.pop()
    most = read_size(node, unit)
    if unit == Unit.SECONDS and most > UNSIGNED32_MAXIMUM:
        raise node.error(f"{node.path} must be at most {UNSIGNED32_MAXIMUM} s, the most that CC-Time can say")
    return most


def _template(node: Node | None, known: _Known) -> str:
    if node is None:
        return ""
    name = _name(node)
    if known.templates is not None and name not in known.templates:
        raise node.error(f"there is no template {name!r}{nearest(name, known.templates)}")
    return name


# -- policy counters -------------------------------------------------------------------------------------------------


def _counters(node: Node | None, known: _Known) -> tuple[Counter, ...]:
    return () if node is None else tuple(_counter(key, value, known) for key, value in node.table())


def _counter(key: Node, node: Node, known: _Known) -> Counter:
    name = _word(key, "a policy counter's name")
    otherwise = ""
    statuses: list[tuple[str, str]] = []
    for status_key, value in node.table():
        status = _word(status_key, "a status")
        if status == OTHERWISE:
            otherwise = _word(value, "a status")
            continue
        for level in _among(value, "level", known.level_names):
            if any(level == each for each, _ in statuses):
                raise value.error(f"{level} gives the counter {name} another status already")
            statuses.append((level, status))
    if not otherwise:
        raise node.error(f"counter {name} must say which status it has at none of its levels: '{OTHERWISE}: active'")
    return Counter(name, tuple(statuses), otherwise)


def _word(node: Node, what: str) -> str:
    written = node.text()
    if not _WORD.fullmatch(written):
        raise node.error(
            f"{what} is made of at most 64 letters, digits and signs, without spaces, not {written[:80]!r}"
        )
    return written
