"""The commands on policies: check, explain, test, reload."""

from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from balance import broadcast
from balance.accounts import Account
from balance.model import AccountKind, Unit
from balance.store import Store
from balance.structure import paid_subscribers
from occ.cli_account_view import AccountName
from occ.cli_catalogue import reload_sentence
from occ.cli_shell import (
    REFUSED,
    AsJson,
    RefusedError,
    console,
    existing_account,
    name_octets,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
    time_json,
    time_text,
    units_text,
)
from occ.clock import now_ms
from occ.policy.cases import load_cases, mismatches
from occ.policy.explaining import (
    Change,
    Explanation,
    RuleStanding,
    Standing,
    amount_in_words,
    balance_in_words,
    conditions_in_words,
    decision_in_words,
    explain,
    level_in_words,
    measure_in_words,
    rule_in_words,
    standings,
    throttle_in_words,
    unit_of_rule,
    zones_asked_for,
)
from occ.policy.reading import OperatorPolicies, load_policies
from occ.policy.watching import rules_in_force
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.settings import Settings
from occ.yamlmap import nearest, shown
from policies.counters import Counter
from policies.levels import money_of
from policies.rules import Case

policy_app = typer.Typer(no_args_is_help=True, help="The rules about what subscribers may use by what they have left.")

OTHER_ZONES = "others"


def _load(context: typer.Context, path: Path | None = None) -> tuple[OperatorPolicies, Catalogue, Path]:
    """The rules, the catalogue they are read with, and where they stand."""
    settings = settings_of(context)
    where = path if path is not None else settings.policies
    if where is None:
        raise RefusedError("the settings name no rules file; add a line such as 'policies: policies.yaml'")
    catalogue = load_catalogue(settings.catalogue)
    return load_policies(where, catalogue, _templates(settings)), catalogue, where


def _templates(settings: Settings) -> Collection[str] | None:
    """Names of the notices there are; None: nobody is told anything."""
    if not settings.notices.enabled:
        return None
    from occ.notices.process import load_templates  # noqa: PLC0415 - only these commands need the texts

    return load_templates(settings.notices).known


# -- check -----------------------------------------------------------------------------------------------------------


@policy_app.command("check")
def check_policies(
    context: typer.Context,
    path: Annotated[Path | None, typer.Argument(help="Rules file; left out: the one of the settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read the rules file and say what was understood; exit code 2 if there is a mistake in it."""
    operator, catalogue, where = _load(context, path)
    if as_json:
        print_json(policies_json(operator, catalogue))
        return
    policies = operator.policies
    out = console()
    out.print(f"Rules {operator.edition} of {shown(where)}, read with catalogue {catalogue.edition}.")
    levels = table("level", "when", "accounts")
    for level in policies.levels:
        kinds = ", ".join(AccountKind(kind).name.lower() for kind in level.kinds)
        levels.add_row(level.name, level_in_words(level, catalogue.currency), kinds or "all")
    out.print(levels)
    for throttle in policies.throttles.values():
        out.print(f"Throttle {throttle_in_words(throttle)}.")
    rules = table(">line", "rule", "holds", "does")
    for rule in policies.rules:
        does = rule_in_words(operator, rule, unit_of_rule(rule, catalogue))
        rules.add_row(str(rule.line), rule.name, conditions_in_words(rule), does)
    out.print(rules)
    for counter in policies.counters:
        out.print(f"Policy counter {counter.name}: {_counter_text(counter)}.")
    for remark in operator.remarks:
        out.print(f"Note: {remark}.")


def _counter_text(counter: Counter) -> str:
    return ", ".join(
        [*(f"{status} at {level}" for level, status in counter.statuses), f"otherwise {counter.otherwise}"]
    )


def policies_json(operator: OperatorPolicies, catalogue: Catalogue) -> dict[str, Any]:
    policies = operator.policies
    return {
        "edition": operator.edition,
        "catalogue": catalogue.edition,
        "levels": [
            {
                "name": level.name,
                "when": level_in_words(level, catalogue.currency),
                "accounts": [AccountKind(kind).name.lower() for kind in level.kinds],
            }
            for level in policies.levels
        ],
        "throttles": [
            asdict(throttle) | {"filter_id": throttle.filter_id.decode()} for throttle in policies.throttles.values()
        ],
        "final_units": sorted(operator.final_units),
        "rules": [
            {
                "name": rule.name,
                "line": rule.line,
                "holds": conditions_in_words(rule),
                "does": rule_in_words(operator, rule, unit_of_rule(rule, catalogue)),
            }
            for rule in policies.rules
        ],
        "counters": [
            {
                "name": counter.name,
                "statuses": [{"level": level, "status": status} for level, status in counter.statuses],
                "otherwise": counter.otherwise,
            }
            for counter in policies.counters
        ],
        "remarks": list(operator.remarks),
    }


# -- explain ---------------------------------------------------------------------------------------------------------


@policy_app.command("explain")
def explain_account(
    context: typer.Context,
    account: AccountName,
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Service of the catalogue; left out: all of them.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option(help="Plan of the catalogue; left out: those of the account's subscribers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which rules act on an account now and why, and which would next, at what balance.

    With a service, every rule says whether it holds for that, and why not.
    """
    operator, catalogue, where = _load(context)
    names = [each.name for each in catalogue.services]
    if service is not None and service not in names:
        raise typer.BadParameter(f"the catalogue has no service {service[:40]!r}{nearest(service, names)}")
    if plan is not None and plan not in catalogue.plans:
        raise typer.BadParameter(
            f"the catalogue has no plan {plan[:40]!r}{nearest(plan, catalogue.plans)}", param_hint="--plan"
        )

    async def work(store: Store) -> tuple[Account, list[tuple[str, str]], str]:
        found = await existing_account(store, account)
        members: set[tuple[str, str]] = set()
        async for page in paid_subscribers(store, name_octets(account)):
            members |= {(each.plan_at(now_ms()), each.segment) for each in page}
        in_force = await rules_in_force(store)
        return found, sorted(members), "" if in_force is None else in_force.edition

    found, members, edition = on_store(context, work)
    if plan is not None:
        members = [(plan, segment) for segment in sorted({segment for _, segment in members}) or [""]]
    if not members:
        raise RefusedError(f"account {account} pays for no subscriber; say for which plan to explain it, with --plan")
    at_ms = now_ms()
    explained = [
        explain(operator, case, found, at_ms)
        for case in cases_of(operator, catalogue, found, members, names if service is None else [service])
    ]
    if as_json:
        print_json(explained_json(operator, catalogue, found, explained, at_ms))
        return
    balance = units_text(money_of(found, at_ms), Unit.MONEY, found.currency)
    limit = units_text(found.credit_limit_micro, Unit.MONEY, found.currency)
    out = console()
    out.print(f"{account}: {AccountKind(found.kind).name.lower()}, balance {balance}, credit limit {limit}.")
    if edition != operator.edition:
        out.print(
            f"Note: the servers have {f'rules {edition}' if edition else 'no rules'} in force, not {shown(where)}."
        )
    _show_levels(operator, found, at_ms)
    _show_services(catalogue, found, explained)
    if service is not None:
        _show_rules(operator, catalogue, explained)


def cases_of(
    operator: OperatorPolicies, catalogue: Catalogue, account: Account, members: list[tuple[str, str]], names: list[str]
) -> Iterator[Case]:
    for plan, segment in members:
        sold = catalogue.plans[plan].tariffs if plan in catalogue.plans else {}
        for name in names:
            if name in sold:
                for zone in zones_asked_for(operator, catalogue, plan, name):
                    yield Case(account.kind, plan, segment, name, zone)


def _show_levels(operator: OperatorPolicies, account: Account, at_ms: int) -> None:
    shown_levels = table("level", "at it", "when", "now")
    for each in standings(operator, account, at_ms):
        if each.level.is_of_life and not each.inside:
            continue
        when = level_in_words(each.level, account.currency)
        shown_levels.add_row(each.level.name, "yes" if each.inside else "no", when, _now(each, account))
    console().print(shown_levels)


def _now(standing: Standing, account: Account) -> str:
    if standing.level.is_of_life:
        return ""
    if standing.value is None:
        return "has none"
    return f"{measure_in_words(standing.level)} is {amount_in_words(standing.level, standing.value, account.currency)}"


def _show_services(catalogue: Catalogue, account: Account, explained: list[Explanation]) -> None:
    rows: dict[tuple[str, ...], list[str]] = {}
    for each in explained:
        case, unit = each.case, _unit(catalogue, each.case)
        row = (
            f"{case.plan}, {case.segment}" if case.segment else case.plan,
            case.service,
            decision_in_words(each.decision, unit),
            ", ".join(each.decision.rules),
            _change_text(each.falling, unit, account, up=False),
            _change_text(each.rising, unit, account, up=True),
            _otherwise(each, unit),
        )
        rows.setdefault(row, []).append(_zone(each, explained))
    more = any(row[-1] for row in rows)
    columns = ("plan", "service", "zone", "now", "by rule", "as money is spent", "as money comes")
    services = table(*columns, *(("otherwise",) if more else ()))
    for (plan, service, *rest), zones in rows.items():
        services.add_row(plan, service, ", ".join(filter(None, zones)), *(rest if more else rest[:-1]))
    console().print(services)


def _zone(explanation: Explanation, explained: list[Explanation]) -> str:
    case = explanation.case
    several = any(each.case.zone and each.case._replace(zone=case.zone) == case for each in explained)
    return case.zone or (OTHER_ZONES if several else "")


def _unit(catalogue: Catalogue, case: Case) -> Unit:
    service = catalogue.by_name.get(case.service)
    return Unit.EVENTS if service is None else service.unit


def _change_text(change: Change | None, unit: Unit, account: Account, *, up: bool) -> str:
    if change is None:
        return "stays"
    rules = f" ({', '.join(change.decision.rules)})" if change.decision.rules else ""
    where = balance_in_words(change.balance_micro, account.currency, up=up)
    return f"{where} {decision_in_words(change.decision, unit)}{rules}"


def _otherwise(explanation: Explanation, unit: Unit) -> str:
    parts: list[str] = []
    if explanation.units is not None:
        parts.append(f"changes after {units_text(explanation.units, unit, 0)}")
    if explanation.changes_ms:
        parts.append(f"changes at {time_text(explanation.changes_ms)} UTC")
    return ", ".join(parts)


def _show_rules(operator: OperatorPolicies, catalogue: Catalogue, explained: list[Explanation]) -> None:
    """One table for all cases of which every rule says the same."""
    alike: dict[tuple[tuple[str, bool], ...], list[Explanation]] = {}
    for each in explained:
        alike.setdefault(tuple((rule.why_not, rule.acts) for rule in each.rules), []).append(each)
    for several in alike.values():
        zones = ", ".join(dict.fromkeys(filter(None, (_zone(each, explained) for each in several))))
        plans = ", ".join(dict.fromkeys(each.case.plan for each in several))
        named = several[0].case.service + (f" to {zones}" if zones else "")
        rules = table(">line", "rule", "does", f"for {named}{f' in plan {plans}' if len(alike) > 1 else ''}")
        for standing in several[0].rules:
            rule = standing.rule
            does = rule_in_words(operator, rule, unit_of_rule(rule, catalogue))
            rules.add_row(str(rule.line), rule.name, does, _verdict(standing))
        console().print(rules)


def _verdict(standing: RuleStanding) -> str:
    if standing.acts:
        return "acts"
    return f"does not hold: {standing.why_not}" if standing.why_not else "holds"


def explained_json(
    operator: OperatorPolicies, catalogue: Catalogue, account: Account, explained: list[Explanation], at_ms: int
) -> dict[str, Any]:
    def change(found: Change | None, unit: Unit) -> dict[str, Any] | None:
        if found is None:
            return None
        return {
            "balance_micro": found.balance_micro,
            "levels": list(found.levels),
            "decision": decision_in_words(found.decision, unit),
            "rules": list(found.decision.rules),
        }

    return {
        "account": text_of(account.account_id),
        "kind": AccountKind(account.kind).name.lower(),
        "balance_micro": money_of(account, at_ms),
        "credit_limit_micro": account.credit_limit_micro,
        "edition": operator.edition,
        "levels": [
            {
                "name": each.level.name,
                "at": each.inside,
                "when": level_in_words(each.level, account.currency),
                "value": each.value,
            }
            for each in standings(operator, account, at_ms)
        ],
        "services": [
            {
                "plan": each.case.plan,
                "segment": each.case.segment,
                "service": each.case.service,
                "zone": each.case.zone,
                "decision": decision_in_words(each.decision, _unit(catalogue, each.case)),
                "rules": [
                    {"rule": rule.rule.name, "acts": rule.acts, "holds": not rule.why_not, "why_not": rule.why_not}
                    for rule in each.rules
                ],
                "falling": change(each.falling, _unit(catalogue, each.case)),
                "rising": change(each.rising, _unit(catalogue, each.case)),
                "units": each.units,
                "changes": time_json(each.changes_ms),
            }
            for each in explained
        ],
    }


# -- test ------------------------------------------------------------------------------------------------------------


@policy_app.command("test")
def run_cases(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Cases, a YAML file.")],
    rules: Annotated[Path | None, typer.Option(help="Rules file; left out: the one of the settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the operator's own cases against the rules file; exit code 1 if one does not come out as expected."""
    operator, catalogue, _ = _load(context, rules)
    results = [(case, mismatches(operator, case)) for case in load_cases(path, operator, catalogue)]
    failed = sum(bool(found) for _, found in results)
    if as_json:
        print_json([{"case": case.name, "line": case.line, "mismatches": list(found)} for case, found in results])
    else:
        for case, found in results:
            console().print(f"{'FAILED' if found else 'ok    '}  {shown(path)}:{case.line}: {case.name}")
            for sentence in found:
                console().print(f"        {sentence}")
        console().print(f"{len(results)} case{'' if len(results) == 1 else 's'}, {failed or 'none'} failed.")
    if failed:
        raise typer.Exit(REFUSED)


# -- reload ----------------------------------------------------------------------------------------------------------


@policy_app.command("reload")
def reload_policies(context: typer.Context, as_json: AsJson = False) -> None:
    """Have all running servers of the store read their rules file anew; exit code 1 if one of them did not take it.

    A server that finds a mistake says where it is and goes on with the rules it has. Accounts and open sessions are
    looked at by the new rules right away.
    """
    from occ.policy.reloading import COMMAND  # noqa: PLC0415 - the other commands start without loading the server
    from occ.reload import Reloaded  # noqa: PLC0415

    async def work(store: Store) -> list[broadcast.Reply]:
        return await broadcast.ask_all(store, COMMAND)

    replies = on_store(context, work)
    if not replies:
        raise RefusedError("no running server answered; one that starts now reads the rules as they are")
    told = [(reply, None if reply.result is None else Reloaded.unpack(reply.result)) for reply in replies]
    if as_json:
        print_json(
            [
                {"worker": text_of(reply.worker), **({"result": "unknown"} if done is None else asdict(done))}
                for reply, done in told
            ]
        )
    for reply, done in told:
        if not as_json:
            console().print(f"{text_of(reply.worker)}: {reload_sentence(reply, done, 'the rules file')}.")
    if not all(done is not None and done.in_force for _, done in told):
        raise typer.Exit(REFUSED)
