"""The operator's own cases: accounts made up in a file, what is asked for them, and what is expected to come of it.

``occ policy test`` runs them, with the rules and the catalogue of the settings and nothing else: no store, no server::

    - case: below zero the Internet is slow, until there is money again
      account: prepaid                  # or postpaid; left out: prepaid
      balance: [0.50, -0.10]            # one after the other: levels that are left elsewhere than entered remember
      credit_limit: 1.00
      service: internet
      expect: {levels: [low, zero, negative], throttle: slow}

What else can be said is in docs/policies.md.
"""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from balance.accounts import Account
from balance.model import MAIN_BUCKET, Bucket, LifeState, Meter, Unit
from occ.policy.reading import ACCESS, CUT, OperatorPolicies
from occ.policy.written_levels import KINDS, read_amount, read_measure
from occ.rating.catalogue import Catalogue
from occ.rating.sizes import read_size, single_value
from occ.yamlmap import Node, load_yaml, nearest
from policies.levels import Measured
from policies.rules import Access, Case, Decision

CASE_KEYS: Final = (
    "case", "account", "balance", "credit_limit", "state", "buckets", "used", "spent", "plan", "segment", "service",
    "destination", "network", "at", "expect",
)  # fmt: skip
EXPECTED_KEYS: Final = ("do", "final_units", "throttle", "grant_at_most", "levels", "rules")
NONE: Final = "none"
"""Stands for no throttle, no final units, no bound."""
DEFAULT_AT: Final = (date(2026, 1, 5), 12 * 60)
"""A Monday at noon."""

_MOMENT: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}) ([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_STATES: Final = {state.name.lower(): state for state in LifeState}
_FAR_MS: Final = 1 << 50


@dataclass(frozen=True, slots=True)
class Expected:
    """None: whatever it is."""

    access: Access | None = None
    cut: bool = False
    final_units: str | None = None
    throttle: str | None = None
    most_units: int | None = None
    levels: tuple[str, ...] | None = None
    rules: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PolicyCase:
    name: str
    line: int
    account: Account
    """As it is with the first of the balances."""
    balances: tuple[int, ...]
    """Micro-units, one after the other."""
    asked: Case
    at_ms: int
    expected: Expected


def load_cases(path: Path, operator: OperatorPolicies, catalogue: Catalogue) -> tuple[PolicyCase, ...]:
    """The cases in a YAML file, a list. Raises ConfigError."""
    root = load_yaml(path)
    found: list[PolicyCase] = []
    for node in root.items():
        case = _read_case(node, operator, catalogue)
        for earlier in found:
            if earlier.name == case.name:
                raise node.error(f"there is a case {case.name[:80]!r} already, on line {earlier.line}")
        found.append(case)
    if not found:
        raise root.error("there are no cases in it; write a list of them: '- case: ...'")
    return tuple(found)


def mismatches(operator: OperatorPolicies, case: PolicyCase) -> tuple[str, ...]:
    """What is not as expected, one sentence each; none: all is."""
    policies, account = operator.policies, case.account
    levels: tuple[str, ...] = ()
    for micro in case.balances:
        account.buckets[0].balance = micro
        account.levels = levels
        levels = policies.levels_of(account, case.at_ms)
    decision = policies.decide(case.asked, levels, case.at_ms)
    return tuple(_mismatches(case.expected, levels, decision))


def _mismatches(expected: Expected, levels: tuple[str, ...], decision: Decision) -> list[str]:
    found: list[str] = []

    def compare(what: str, wanted: object, is_so: object) -> None:
        if wanted is not None and wanted != is_so:
            found.append(f"{what} should be {wanted or NONE}, but is {is_so or NONE}")

    if expected.access is not None:
        compare("do", _word(expected.access, expected.cut), _word(decision.access, decision.cut))
    compare("final_units", expected.final_units, decision.final_units)
    compare("throttle", expected.throttle, decision.throttle)
    compare("grant_at_most", expected.most_units, decision.most_units)
    compare("levels", _listed(expected.levels), _listed(levels))
    compare("rules", _listed(expected.rules), _listed(decision.rules))
    return found


def _listed(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else ", ".join(sorted(names))


def _word(access: Access, cut: bool) -> str:
    """As a rules file writes it."""
    if access is Access.FINAL_UNITS:
        return "final units"
    return CUT if cut else next(word for word, meaning in ACCESS.items() if meaning == access)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read_case(node: Node, operator: OperatorPolicies, catalogue: Catalogue) -> PolicyCase:
    values = node.mapping(CASE_KEYS, required=("case", "balance", "service", "expect"))
    kind = KINDS[values["account"].choice(tuple(KINDS))] if "account" in values else KINDS["prepaid"]
    written = values["balance"]
    amounts = [written] if single_value(written) is not None else written.items()
    if not amounts:
        raise written.error(f"{written.path} must be an amount of money, or a list of them one after the other")
    balances = tuple(read_amount(each, each.text(), Unit.MONEY, catalogue) for each in amounts)
    limit = values.get("credit_limit")
    account = Account(
        b"case",
        1,
        kind,
        catalogue.currency,
        0 if limit is None else read_amount(limit, limit.text(), Unit.MONEY, catalogue),
        0,
        [Bucket(MAIN_BUCKET, int(Unit.MONEY), balances[0]), *_buckets(values.get("buckets"), catalogue)],
        {},
        state=int(_STATES[values["state"].choice(tuple(_STATES))]) if "state" in values else 0,
        meters=_meters(values, catalogue),
    )
    asked = _asked(values, kind, catalogue)
    service = catalogue.by_name.get(asked.service)
    unit = Unit.EVENTS if service is None else service.unit
    at_ms = _moment(values.get("at"), catalogue)
    expected = _expected(values["expect"], unit, operator)
    return PolicyCase(values["case"].text(), node.line or 0, account, balances, asked, at_ms, expected)


def _buckets(node: Node | None, catalogue: Catalogue) -> list[Bucket]:
    found: list[Bucket] = []
    for key, value in () if node is None else node.table():
        measure = read_measure(key, f"bucket {key.text()}", catalogue)
        units = read_amount(value, value.text(), Unit(measure.unit), catalogue)
        found.append(Bucket(MAIN_BUCKET + 1 + len(found), measure.unit, units, name=measure.name))
    return found


def _meters(values: dict[str, Node], catalogue: Catalogue) -> list[Meter]:
    found: dict[str, Meter] = {}
    for section, word in (("used", "counter"), ("spent", "spent")):
        for key, value in values[section].table() if section in values else ():
            measure = read_measure(key, f"{word} {key.text()}", catalogue)
            amount = read_amount(value, value.text(), Unit(measure.unit), catalogue)
            meter = found.setdefault(measure.name, Meter(measure.name, _FAR_MS))
            if measure.what is Measured.COUNTER:
                meter.units = amount
            else:
                meter.micro = amount
    return list(found.values())


def _asked(values: dict[str, Node], kind: int, catalogue: Catalogue) -> Case:
    plan = _known(values["plan"], "plan", list(catalogue.plans)) if "plan" in values else next(iter(catalogue.plans))
    service = _known(values["service"], "service", [each.name for each in catalogue.services])
    zone = ""
    if "destination" in values:
        zones = () if catalogue.destinations is None else catalogue.destinations.zones
        zone = _known(values["destination"], "destination", list(zones))
    if "network" in values:
        if zone:
            raise values["network"].error("a service has a zone of one kind: a destination or a network")
        zone = _known(
            values["network"], "network", list(() if catalogue.networks is None else catalogue.networks.zones)
        )
    return Case(kind, plan, values["segment"].text() if "segment" in values else "", service, zone)


def _known(node: Node, what: str, known: list[str]) -> str:
    word = node.text()
    if word not in known:
        raise node.error(f"there is no {what} {word[:60]!r}{nearest(word, known)}")
    return word


def _moment(node: Node | None, catalogue: Catalogue) -> int:
    if node is None:
        return catalogue.calendar.moment(*DEFAULT_AT)
    match = _MOMENT.fullmatch(node.text())
    try:
        day = date.fromisoformat(match[1]) if match else None
    except ValueError:
        day = None
    if match is None or day is None or not 1970 < day.year < 2200:
        raise node.error(f"{node.path} must be a time such as '2026-03-29 02:30', not {node.text()[:40]!r}")
    return catalogue.calendar.moment(day, int(match[2]) * 60 + int(match[3]))


def _expected(node: Node, unit: Unit, operator: OperatorPolicies) -> Expected:
    if single_value(node) is not None:
        return Expected(*_access(node))
    values = node.mapping(EXPECTED_KEYS)
    if not values:
        raise node.error(f"{node.path} must say what is expected: one of {', '.join(EXPECTED_KEYS)}")
    access: Access | None = None
    cut = False
    if "do" in values:
        access, cut = _access(values["do"])
    most = values.get("grant_at_most")
    policies = operator.policies
    return Expected(
        access,
        cut,
        _name(values.get("final_units"), "final units", list(operator.final_units)),
        _name(values.get("throttle"), "throttle", list(policies.throttles)),
        None if most is None else 0 if most.text() == NONE else read_size(most, unit),
        _names(values.get("levels"), "level", [each.name for each in policies.levels]),
        _names(values.get("rules"), "rule", [each.name for each in policies.rules]),
    )


def _access(node: Node) -> tuple[Access, bool]:
    written = node.choice((*ACCESS, "final units"))
    return (Access.FINAL_UNITS, False) if written not in ACCESS else (ACCESS[written], written == CUT)


def _name(node: Node | None, what: str, known: list[str]) -> str | None:
    if node is None:
        return None
    return "" if node.text() == NONE else _known(node, what, known)


def _names(node: Node | None, what: str, known: list[str]) -> tuple[str, ...] | None:
    if node is None:
        return None
    return tuple(_known(item, what, known) for item in node.items())
