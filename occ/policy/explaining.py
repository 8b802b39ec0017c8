"""Why a service is, or is not, to be had: which rules hold for an account, what each says, what would be next.

For people who ask about one account; nothing here is on the way of a request.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from balance.accounts import Account
from balance.model import AccountKind, Unit
from occ.codes import AUTHORIZATION_REJECTED, CREDIT_LIMIT_REACHED, END_USER_SERVICE_DENIED
from occ.policy.reading import OperatorPolicies
from occ.policy.written_levels import KINDS
from occ.rating.catalogue import Catalogue
from occ.rating.currency import currency_name, format_amount
from occ.rating.explain import units_in_words
from occ.rating.happy_hours import WHOLE_DAY, HappyHours
from occ.rating.plans import ZoneTariffs
from occ.rating.service import Service
from occ.rating.tariff import EVERY_DAY, HOLIDAY
from policies.levels import INFINITE, Level, Range
from policies.rules import Access, Case, Decision, Rule, Throttle, Window

REFUSED: Final = {
    Access.BAR: f"barred for now ({END_USER_SERVICE_DENIED})",
    Access.BAR_FOR_GOOD: f"barred for good ({AUTHORIZATION_REJECTED})",
    Access.NO_CREDIT: f"refused for lack of credit ({CREDIT_LIMIT_REACHED})",
}

_DAYS: Final = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


class Standing(NamedTuple):
    """How an account stands to one level."""

    level: Level
    value: int | None
    """Of the level's measure; None: it has nothing of the kind."""
    inside: bool


class RuleStanding(NamedTuple):
    """How one rule stands to a service of an account."""

    rule: Rule
    why_not: str
    """Why it does not hold; empty: it holds."""
    acts: bool
    """The decision follows from it."""


class Change(NamedTuple):
    """Where the decision on a service is another one."""

    balance_micro: int
    levels: tuple[str, ...]
    decision: Decision


class Explanation(NamedTuple):
    """One service of an account, explained."""

    case: Case
    levels: tuple[str, ...]
    decision: Decision
    rules: tuple[RuleStanding, ...]
    """All, in the order of the file."""
    falling: Change | None
    """As money is spent; None: nothing changes, however much is."""
    rising: Change | None
    """As money comes."""
    units: int | None
    """Units of the service until it changes by a bucket or a count of use; None: it does not."""
    changes_ms: int
    """When the hours of a rule change it; 0: never, as far as is known."""


def standings(operator: OperatorPolicies, account: Account, at_ms: int) -> list[Standing]:
    """How an account stands to every level that there is for its kind."""
    at = operator.policies.levels_of(account, at_ms)
    return [
        Standing(each, each.measure.of(account, at_ms), each.name in at)
        for each in operator.policies.levels
        if each.is_for(account.kind)
    ]


def explain(operator: OperatorPolicies, case: Case, account: Account, at_ms: int) -> Explanation:
    """What becomes of a service now, why, and what would be next."""
    policies = operator.policies
    levels = policies.levels_of(account, at_ms)
    decision = policies.decide(case, levels, at_ms)
    return Explanation(
        case,
        levels,
        decision,
        tuple(
            RuleStanding(rule, _why_not(rule, case, levels, at_ms), rule.name in decision.rules)
            for rule in policies.rules
        ),
        _next(operator, case, account, levels, at_ms, up=False),
        _next(operator, case, account, levels, at_ms, up=True),
        policies.room(case, account, at_ms)[1],
        policies.changes_ms(at_ms, case, levels),
    )


def _next(
    operator: OperatorPolicies, case: Case, account: Account, levels: tuple[str, ...], at_ms: int, *, up: bool
) -> Change | None:
    policies = operator.policies
    now = policies.decide(case, levels, at_ms)
    for micro, following in policies.falling(account.kind, levels, account.credit_limit_micro, up=up):
        then = policies.decide(case, following, at_ms)
        if then.differs(now):
            return Change(micro, following, then)
    return None


def _why_not(rule: Rule, case: Case, levels: tuple[str, ...], at_ms: int) -> str:
    """Why a rule does not hold; empty: it holds."""
    for named, value, what in (
        (rule.services, case.service, "services"),
        (rule.zones, case.zone, "zones"),
        (rule.plans, case.plan, "plans"),
        (rule.segments, case.segment, "segments"),
    ):
        if named and value not in named:
            return f"it is for {what} {', '.join(named)}"
    if rule.kinds and case.kind not in rule.kinds:
        return f"it is for {kinds_in_words(rule.kinds)} accounts"
    if rule.levels and not any(each in levels for each in rule.levels):
        return f"the account is not {_either(rule.levels)}"
    if rule.windows and not any(each.at(at_ms)[0] for each in rule.windows):
        return f"it is for {', '.join(window_in_words(each) for each in rule.windows)}"
    return ""


def zones_asked_for(operator: OperatorPolicies, catalogue: Catalogue, plan: str, service: str) -> list[str]:
    """Zones of a service of which rules ask, and that a plan sells; "" stands for all others."""
    rules = [each for each in operator.policies.rules if not each.services or service in each.services]
    named = {zone for rule in rules for zone in rule.zones}
    found = catalogue.by_name.get(service)
    rest = True
    if found is not None:
        named = {zone for zone in named if _is_used_in(found, zone, catalogue)}
        if (told := found.destinations or found.networks) is not None:
            rest = bool(told - named)
    tariff = catalogue.plans[plan].tariffs.get(service) if plan in catalogue.plans else None
    sold = [zone for zone in sorted(named) if not isinstance(tariff, ZoneTariffs) or tariff.of(zone) is not None]
    return [*sold, *([""] if rest or not sold else [])]


def _is_used_in(service: Service, zone: str, catalogue: Catalogue) -> bool:
    """Whether requests for a zone can belong to a service: no other one that comes first takes them all."""
    if catalogue.networks is not None and zone in catalogue.networks.zones:
        there = replace(service, networks=frozenset({zone}))
        told = service.networks
    else:
        there = replace(service, destinations=frozenset({zone}))
        told = service.destinations
    if told is not None and zone not in told:
        return False
    earlier = catalogue.services[: catalogue.services.index(service)]
    return not any(each.covers(there) for each in earlier)


# -- in words --------------------------------------------------------------------------------------------------------


def kinds_in_words(kinds: tuple[int, ...]) -> str:
    """'prepaid', 'prepaid and postpaid'."""
    return " and ".join(word for word, kind in KINDS.items() if kind in kinds)


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def amount_in_words(level: Level, amount: int, currency: int) -> str:
    """An amount of what a level measures: '2.00 EUR', '5 MiB'."""
    written = units_in_words(amount, Unit(level.measure.unit))
    return f"{written} {currency_name(currency)}" if level.measure.unit == Unit.MONEY else written


def measure_in_words(level: Level) -> str:
    """As the rules file writes it: 'balance', 'counter internet per month'."""
    measure = level.measure
    name = measure.name.removeprefix("use of ")
    return f"{measure.what.name.lower()} {name}" if name else measure.what.name.lower()


def level_in_words(level: Level, currency: int) -> str:
    """When an account is at it: 'balance below 2.00 EUR, until at least 3.00 EUR'; ``currency``: of the account."""
    if level.is_of_life:
        return "the state of the account"
    begins = f"{measure_in_words(level)} {_range_in_words(level, level.enters, currency)}"
    if level.stays == level.enters:
        return begins
    if level.stays.high < INFINITE:
        return f"{begins}, until {_bound(level, level.stays.high + 1, 'at least', 'above', currency)}"
    return f"{begins}, until {_bound(level, level.stays.low - 1, 'at most', 'below', currency)}"


def _range_in_words(level: Level, values: Range, currency: int) -> str:
    if values.high < INFINITE:
        return _bound(level, values.high, "at most", "below", currency)
    return _bound(level, values.low, "at least", "above", currency)


def _bound(level: Level, value: int, including: str, excluding: str, currency: int) -> str:
    """A bound as it was most likely written: 'below 2.00' rather than 'at most 1.999999'."""
    beyond = value + 1 if excluding == "below" else value - 1
    plain, other = amount_in_words(level, value, currency), amount_in_words(level, beyond, currency)
    return f"{excluding} {other}" if len(other) < len(plain) else f"{including} {plain}"


def window_in_words(window: Window) -> str:
    """'Mo-Fr 20:00-08:00', as the rules file writes hours."""
    if not isinstance(window, HappyHours):
        return "some hours"
    begin = f"{window.from_minute // 60:02d}:{window.from_minute % 60:02d}"
    end = "24:00" if window.to_minute == WHOLE_DAY else f"{window.to_minute // 60:02d}:{window.to_minute % 60:02d}"
    days = "" if window.days == EVERY_DAY else ",".join(_days_in_words(window.days)) + " "
    return f"{days}{begin}-{end}"


def _days_in_words(days: frozenset[int]) -> Iterator[str]:
    run: list[int] = []
    for day in [*sorted(days - {HOLIDAY}), None]:
        if run and day != run[-1] + 1:
            yield _DAYS[run[0]] if len(run) == 1 else f"{_DAYS[run[0]]}-{_DAYS[run[-1]]}"
            run = []
        if day is not None:
            run.append(day)
    if HOLIDAY in days:
        yield "holidays"


def throttle_in_words(throttle: Throttle) -> str:
    """'slow (128 kbit/s down, 64 kbit/s up, filter throttle-128k)'."""
    down, up = _speed(throttle.down_bit_s), _speed(throttle.up_bit_s)
    filtered = f", filter {throttle.filter_id.decode()}" if throttle.filter_id else ""
    return f"{throttle.name} ({down} down, {up} up{filtered})"


def _speed(bit_s: int) -> str:
    for name, size in (("Gbit/s", 1000**3), ("Mbit/s", 1000**2), ("kbit/s", 1000)):
        if bit_s % size == 0:
            return f"{bit_s // size} {name}"
    return f"{bit_s} bit/s"


def balance_in_words(micro: int, currency: int, *, up: bool) -> str:
    """A balance at which something changes, as money is spent or comes (``up``): 'at 0.00 EUR', 'below 0.00 EUR'."""
    plain, other = format_amount(micro), format_amount(micro - 1 if up else micro + 1)
    where = f"{'above' if up else 'below'} {other}" if len(other) < len(plain) else f"at {plain}"
    return f"{where} {currency_name(currency)}"


def decision_in_words(decision: Decision, unit: Unit) -> str:
    """'free', 'as priced, throttled to slow', 'barred for now (4010)'. ``unit``: of the service."""
    if decision.access in REFUSED:
        return REFUSED[decision.access] + (", open sessions are aborted" if decision.cut else "")
    if decision.access is Access.FINAL_UNITS:
        return f"no more units: the client does as {decision.final_units} says"
    parts = ["free" if decision.access is Access.FREE else "as priced"]
    if decision.throttle:
        parts.append(f"throttled to {decision.throttle}")
    if decision.most_units:
        parts.append(f"grants of {units_in_words(decision.most_units, unit)} at most")
    return ", ".join(parts)


def rule_in_words(operator: OperatorPolicies, rule: Rule, unit: Unit = Unit.EVENTS) -> str:
    """What a rule does. ``unit``: of the services that it is about."""
    parts: list[str] = []
    if rule.access is Access.FINAL_UNITS:
        parts.append(f"final units {rule.final_units}")
    elif rule.access is not None:
        parts.append(_written(rule))
    if rule.throttle:
        parts.append(f"throttle to {throttle_in_words(operator.policies.throttles[rule.throttle])}")
    if rule.most_units:
        parts.append(f"grant {units_in_words(rule.most_units, unit)} at most")
    if rule.notify:
        parts.append(f"send {rule.notify}")
    if rule.restored:
        parts.append(f"send {rule.restored} when it is over")
    if rule.emit:
        parts.append(f"emit {rule.emit}")
    return "; ".join(parts)


def _written(rule: Rule) -> str:
    if rule.access is Access.ALLOW:
        return "allow"
    if rule.access is Access.FREE:
        return "allow free"
    if rule.cut:
        return f"cut ({END_USER_SERVICE_DENIED}, open sessions are aborted)"
    if rule.access is Access.BAR:
        return f"bar ({END_USER_SERVICE_DENIED})"
    if rule.access is Access.BAR_FOR_GOOD:
        return f"bar for good ({AUTHORIZATION_REJECTED})"
    return f"refuse ({CREDIT_LIMIT_REACHED})"


def conditions_in_words(rule: Rule) -> str:
    """When and for what a rule holds: 'at zero; services internet'; 'always' without conditions."""
    parts: list[str] = []
    if rule.levels:
        parts.append(f"at {_either(rule.levels)}")
    if rule.kinds:
        parts.append(f"{kinds_in_words(rule.kinds)} accounts")
    for what, named in (
        ("plans", rule.plans),
        ("segments", rule.segments),
        ("services", rule.services),
        ("zones", rule.zones),
    ):
        if named:
            parts.append(f"{what} {', '.join(named)}")
    if rule.windows:
        parts.append(", ".join(window_in_words(each) for each in rule.windows))
    return "; ".join(parts) or "always"


def unit_of_rule(rule: Rule, catalogue: Catalogue) -> Unit:
    """The unit that the services of a rule are counted in; EVENTS where it names none."""
    found = catalogue.by_name.get(rule.services[0]) if rule.services else None
    return Unit.EVENTS if found is None else found.unit


def kind_in_words(kind: int) -> str:
    return AccountKind(kind).name.lower()
