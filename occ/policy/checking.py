"""What is allowed in a rules file, and seldom meant: rules that can never decide, names that nothing uses."""

from collections.abc import Collection, Iterator

from occ.rating.catalogue import Catalogue
from policies.levels import Level
from policies.policy import Policies
from policies.rules import Access, Rule

_GRANTING = (None, Access.ALLOW, Access.FREE)


def remarks(policies: Policies, final_units: Collection[str], catalogue: Catalogue, source: str) -> tuple[str, ...]:
    """One sentence each, with file and line where there is one."""
    found: list[str] = []
    if not policies.rules:
        found.append(f"{source}: there are no rules in it: services are granted by price and balance alone")
    for index, rule in enumerate(policies.rules):
        earlier = policies.rules[:index]
        sentences = (
            *_never_decides(rule, earlier, policies.levels),
            *_never_holds(rule, policies.levels, catalogue),
            *_harms(rule, earlier, policies.levels, catalogue),
        )
        found += [f"{source}:{rule.line}: {sentence}" for sentence in sentences]
    return (*found, *(f"{source}: {sentence}" for sentence in _unused(policies, final_units)))


def _never_decides(rule: Rule, earlier: tuple[Rule, ...], levels: tuple[Level, ...]) -> Iterator[str]:
    for other in earlier:
        if other.access is not None and rule.access is not None and _covers(other, rule, levels):
            yield (
                f"rule {rule.name} never decides what becomes of a service: rule {other.name}, which comes first, does "
                "whenever it holds"
            )
            break
    for other in earlier:
        if other.throttle and rule.throttle and _covers(other, rule, levels):
            yield f"the throttle of rule {rule.name} is never used: rule {other.name}, which comes first, names one"
            break


def _covers(first: Rule, then: Rule, levels: tuple[Level, ...]) -> bool:
    """Whether one rule holds whenever another does."""
    return (
        not first.windows
        and _wider(first.kinds, then.kinds)
        and _wider(first.plans, then.plans)
        and _wider(first.segments, then.segments)
        and _wider(first.services, then.services)
        and _wider(first.zones, then.zones)
        and (
            not first.levels
            or (
                bool(then.levels)
                and all(any(_implies(each, other, levels) for other in first.levels) for each in then.levels)
            )
        )
    )


def _wider(first: tuple[object, ...], then: tuple[object, ...]) -> bool:
    return not first or (bool(then) and set(then) <= set(first))


def _implies(name: str, other: str, levels: tuple[Level, ...]) -> bool:
    """Whether an account that is at one level is always at the other."""
    if name == other:
        return True
    inner = next(each for each in levels if each.name == name)
    outer = next(each for each in levels if each.name == other)
    return (
        inner.measure == outer.measure
        and _wider(outer.kinds, inner.kinds)
        and outer.enters.low <= inner.enters.low
        and outer.enters.high >= inner.enters.high
        and outer.stays.low <= inner.stays.low
        and outer.stays.high >= inner.stays.high
    )


def _never_holds(rule: Rule, levels: tuple[Level, ...], catalogue: Catalogue) -> Iterator[str]:
    named = [each for each in levels if each.name in rule.levels]
    if named and rule.kinds and not any(each.is_for(kind) for each in named for kind in rule.kinds):
        yield f"rule {rule.name} never holds: no account of its kinds can be at {', '.join(rule.levels)}"
    services = [each for each in catalogue.services if each.name in rule.services]
    if rule.zones and services:
        told = [each.destinations or each.networks for each in services]
        if all(zones is not None and not zones & set(rule.zones) for zones in told):
            yield f"rule {rule.name} never holds: {', '.join(rule.services)} never goes to {', '.join(rule.zones)}"
    if rule.plans and rule.services:
        sold = [(plan, service) for plan in rule.plans for service in rule.services]
        if not any(service in catalogue.plans[plan].tariffs for plan, service in sold):
            yield f"rule {rule.name} never holds: no plan of {', '.join(rule.plans)} sells {', '.join(rule.services)}"


def _harms(rule: Rule, earlier: tuple[Rule, ...], levels: tuple[Level, ...], catalogue: Catalogue) -> Iterator[str]:
    """A rule that bars what everyone may use, whatever state they are in."""
    if rule.access in _GRANTING:
        return
    for service in catalogue.services:
        if not service.essential or (rule.services and service.name not in rule.services):
            continue
        if rule.zones and (service.destinations is None or not service.destinations & set(rule.zones)):
            continue
        about = Rule(rule.name, rule.line, rule.levels, rule.kinds, rule.plans, rule.segments, (service.name,))
        if not any(each.access in _GRANTING[1:] and _covers(each, about, levels) for each in earlier):
            yield f"rule {rule.name} bars the essential service {service.name}; a rule above it should allow that"


def _unused(policies: Policies, final_units: Collection[str]) -> Iterator[str]:
    used = {name for rule in policies.rules for name in rule.levels}
    used |= {level for counter in policies.counters for level, _ in counter.statuses}
    for level in policies.levels:
        if level.name not in used and not level.is_of_life:
            yield f"no rule and no counter looks at the level {level.name}"
    for name in policies.throttles:
        if all(rule.throttle != name for rule in policies.rules):
            yield f"no rule uses the throttle {name}"
    for name in final_units:
        if all(rule.final_units != name for rule in policies.rules):
            yield f"no rule uses the final units {name}"
