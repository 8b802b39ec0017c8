"""The commands on the catalogue: check, diff, schema, reload."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from balance import broadcast
from balance.model import UNLIMITED, Unit
from balance.store import Store
from occ.cli_shell import (
    REFUSED,
    AsJson,
    RefusedError,
    console,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
    units_text,
)
from occ.rating.allowances import Allowance, Bonus, Lasting, Validity
from occ.rating.away import AwayLimits
from occ.rating.call_price import CallPrice
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.changes import changes
from occ.rating.criteria import ROLES
from occ.rating.currency import currency_name, format_amount
from occ.rating.discount import Discounted
from occ.rating.explain import in_words
from occ.rating.final_units import FinalUnits
from occ.rating.offers import Every, Offer, Starts
from occ.rating.percent import percent_text
from occ.rating.plans import OTHERS, ZoneTariffs
from occ.rating.schema import catalogue_schema
from occ.rating.service import CLIENT_FAILURE, DEBIT_FAILURE, TRIGGER_TYPES, Service
from occ.rating.steps import StepPrice
from occ.rating.tariff import Price, Refusal, Tariff
from occ.rating.tiers import TieredPrice

catalogue_app = typer.Typer(no_args_is_help=True, help="The tariff catalogue.")


# -- check -------------------------------------------------------------------------------------------------------


@catalogue_app.command("check")
def check_catalogue(
    context: typer.Context,
    path: Annotated[
        Path | None, typer.Argument(help="Catalogue, a file or a folder; left out: the one of the settings.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read the tariff catalogue and say what was understood; exit code 2 if there is a mistake in it."""
    catalogue = load_catalogue(path if path is not None else settings_of(context).catalogue)
    if as_json:
        print_json(catalogue_json(catalogue))
        return
    out = console()
    tax = catalogue.tax
    taxed = (
        f", written {'without' if tax.exclusive else 'with'} {percent_text(tax.rate_ppm)} tax" if tax.rate_ppm else ""
    )
    out.print(f"Version {catalogue.edition}, prices in {currency_name(catalogue.currency)}{taxed}.")
    _show_services(catalogue)
    _show_zones(catalogue)
    _show_prices(catalogue)
    _show_what_is_given(catalogue)
    for remark in _remarks(catalogue):
        out.print(f"Note: {remark}.")


def _show_services(catalogue: Catalogue) -> None:
    services = table("service", "context", "rating groups", "service identifiers", ">quota", ">largest", ">validity")
    settings = table("service", "setting", "value")
    for service in catalogue.services:
        services.add_row(
            service.name,
            service.context.decode(),
            _numbers_text(service.rating_groups),
            _numbers_text(service.service_identifiers),
            units_text(service.quota_units, service.unit, 0),
            units_text(service.maximum_quota_units, service.unit, 0),
            f"{service.validity_time_s} s",
        )
        for key, value in (*_criteria(service), *_settings(service)):
            settings.add_row(service.name, key, value)
    console().print(services)
    if settings.row_count:
        console().print(settings)


def _show_zones(catalogue: Catalogue) -> None:
    if catalogue.destinations is not None:
        zones = ", ".join(sorted(catalogue.destinations.zones))
        console().print(f"Destinations, {len(catalogue.destinations)} prefixes: {zones}.")
    if catalogue.networks is not None:
        console().print(f"Networks: {', '.join(sorted(catalogue.networks.zones))}.")


def _show_prices(catalogue: Catalogue) -> None:
    prices = table("plan", "service", "zone", "price", "for each started", "from")
    caps = table("plan", "cap", "of", ">at most", "per")
    timed = False
    for plan, sold in catalogue.plans.items():
        currency = catalogue.currency_of(plan)
        for name, zone, tariff in _tariffs(catalogue, plan):
            for beginning in tariff.beginnings:
                timed = timed or bool(beginning.written)
                prices.add_row(plan, name, zone, *_price_text(beginning.price, currency), beginning.written)
        for service, each in sold.caps.items():
            for cap in each:
                limit = units_text(cap.limit_micro, Unit.MONEY, currency)
                caps.add_row(plan, cap.name, service, limit, cap.counter.period.name.lower())
    out = console()
    out.print(prices)
    if caps.row_count:
        out.print(caps)
    if timed:
        holidays = ", ".join(map(str, catalogue.calendar.holidays)) or "none"
        out.print(f"Times are those of {catalogue.calendar.time_zone}; holidays: {holidays}.")


def _tariffs(catalogue: Catalogue, plan: str) -> Iterator[tuple[str, str, Tariff]]:
    """Service, zone or "" and tariff of all that a plan sells."""
    for name, tariff in catalogue.plans[plan].tariffs.items():
        if isinstance(tariff, ZoneTariffs):
            for zone, inner in tariff.zones.items():
                yield name, zone, inner
            if tariff.others is not None:
                yield name, OTHERS, tariff.others
        else:
            yield name, "", tariff


def _show_what_is_given(catalogue: Catalogue) -> None:
    given = table("allowance or bonus", ">amount", "serves", ">priority", "valid", "rollover", "shared")
    for allowance in catalogue.allowances.values():
        amount = units_text(allowance.units, allowance.unit, 0)
        serves, rollover = ", ".join(allowance.serves), _rollover_text(allowance)
        shared = "yes" if allowance.shared else "no"
        valid = _validity_text(allowance.validity)
        given.add_row(allowance.name, amount, serves, str(allowance.priority), valid, rollover, shared)
    for bonus in catalogue.bonuses.values():
        amount = units_text(bonus.amount_micro, Unit.MONEY, catalogue.currency) if bonus.amount_micro else ""
        given.add_row(bonus.name, amount, _serves(bonus), str(bonus.priority), _validity_text(bonus.validity), "", "")
    offers = table("offer", ">fee", "every", "starts", "gives", "if unpaid", "in plans")
    for offer in catalogue.offers.values():
        plans = ", ".join(name for name, plan in catalogue.plans.items() if offer.name in plan.includes)
        fee = units_text(offer.fee_micro, Unit.MONEY, catalogue.currency) if offer.fee_micro else "free"
        starts = "" if offer.every is Every.ONCE else offer.starts + (", prorated" if offer.prorated else "")
        unpaid = f"retry every {offer.retry_s} s" if offer.retry_s else "suspend"
        offers.add_row(offer.name, fee, _every_text(offer), starts, ", ".join(offer.gives), unpaid, plans)
    out = console()
    if given.row_count:
        out.print(given)
    if offers.row_count:
        out.print(offers)
    if catalogue.promotions.all:
        out.print(f"Promotions, tried in this order: {', '.join(each.name for each in catalogue.promotions.all)}.")


def _serves(bonus: Bonus) -> str:
    return "any" if bonus.serves is None else ", ".join(bonus.serves)


def _validity_text(validity: Validity) -> str:
    return f"{validity.seconds} s" if validity.lasting is Lasting.TIME else validity.lasting.value


def _rollover_text(allowance: Allowance) -> str:
    if not allowance.rollover_units:
        return "none"
    return "all" if allowance.rollover_units == UNLIMITED else units_text(allowance.rollover_units, allowance.unit, 0)


def _every_text(offer: Offer) -> str:
    return f"{offer.period_s} s" if offer.every is Every.TIME else offer.every.value


def _remarks(catalogue: Catalogue) -> Iterator[str]:
    """What is allowed, and seldom meant."""
    for service in catalogue.services:
        if not any(service.name in plan.tariffs for plan in catalogue.plans.values()):
            yield f"no plan sells the service {service.name}"
    for name, plan in catalogue.plans.items():
        for service_name, tariff in plan.tariffs.items():
            if isinstance(tariff, ZoneTariffs) and tariff.others is None:
                unsold = sorted(_zones_of(catalogue, service_name, tariff) - tariff.zones.keys())
                if unsold:
                    yield f"plan {name} does not sell {service_name} in {', '.join(unsold)}"


def _zones_of(catalogue: Catalogue, service_name: str, tariff: ZoneTariffs) -> frozenset[str]:
    """The zones in which a service that is priced by zone can be used."""
    service = catalogue.by_name.get(service_name)
    section = catalogue.destinations if tariff.is_by_destination else catalogue.networks
    if service is None or section is None:
        return frozenset()
    asked = service.destinations if tariff.is_by_destination else service.networks
    return section.zones if asked is None else asked


def _numbers_text(numbers: frozenset[int] | None) -> str:
    if numbers is None:
        return "any"
    return ", ".join([*(str(n) for n in sorted(numbers) if n >= 0), *(["none"] if -1 in numbers else [])])


def _criteria(service: Service) -> Iterator[tuple[str, str]]:
    """What a service is told by beside numbers, in the catalogue's own words."""
    if service.apns is not None:
        yield "apn", ", ".join(service.apns.written)
    if service.destinations is not None:
        yield "destinations", ", ".join(sorted(service.destinations))
    if service.networks is not None:
        yield "networks", ", ".join(sorted(service.networks))
    if service.sip_methods is not None:
        yield "sip_methods", ", ".join(sorted(method.decode() for method in service.sip_methods))
    if service.role is not None:
        yield "role", _word(ROLES, service.role)
    if service.essential:
        yield "essential", "yes"


def _settings(service: Service) -> Iterator[tuple[str, str]]:
    """What a service says beyond what every service says, in the catalogue's own words."""
    if service.threshold_units:
        yield "report_early", units_text(service.threshold_units, service.unit, 0)
    if service.holding_time_s is not None:
        yield "holding_time", f"{service.holding_time_s} s" if service.holding_time_s else "none"
    if service.consumption_time_s is not None:
        yield "consumption_time", f"{service.consumption_time_s} s"
    if service.pool:
        yield "pool", str(service.pool)
    if service.triggers:
        yield "reauthorise_on", ", ".join(_word(TRIGGER_TYPES, number) for number in service.triggers)
    if service.failure_handling is not None:
        yield "client_failure", _word(CLIENT_FAILURE, service.failure_handling)
    if service.debit_failure_handling is not None:
        yield "debit_failure", _word(DEBIT_FAILURE, service.debit_failure_handling)
    if service.session_failover is not None:
        yield "failover", "yes" if service.session_failover else "no"
    if not service.charges_overshoot:
        yield "usage_beyond_grant", "waive"
    if service.two_quotas:
        yield "tariff_switch", "two-quotas"
    if service.final_units.action:
        yield "when_used_up", "; ".join(_final_units(service.final_units))
    if service.away is not None:
        yield "when_store_is_away", "; ".join(_away(service.away, service.unit))


def _away(limits: AwayLimits, unit: Unit) -> Iterator[str]:
    yield f"grant {units_text(limits.grant_units, unit, 0)}"
    yield f"per_session {units_text(limits.session_units, unit, 0)}"
    yield f"grants_per_session {limits.session_grants}"
    yield f"sessions {limits.sessions}"
    yield f"grants {limits.grants}"
    yield f"for {limits.granting_s} s"
    if limits.unknown_subscribers:
        yield "unknown_subscribers grant"


def _final_units(final: FinalUnits) -> Iterator[str]:
    if final.redirect_address:
        yield f"redirect_to {final.redirect_address.decode()}"
    elif not final.filter_ids and not final.rules and not final.bandwidth_bit_s:
        yield "restrict"
    for filter_id in final.filter_ids:
        yield f"restrict_to {filter_id.decode()}"
    for rule in final.rules:
        yield f"allow {rule.decode()}"
    if final.bandwidth_bit_s:
        yield f"bandwidth {final.bandwidth_bit_s} bit/s"
    if final.with_qos:
        yield "qos_indication"
    yield f"ask_again_after {final.ask_again_s} s"


def _word(words: dict[str, int], number: int) -> str:
    return next(word for word, meaning in words.items() if meaning == number)


def _price_text(price: Price, currency: int) -> tuple[str, str]:
    """A price, and the step it is for where that is all there is to it."""
    if isinstance(price, StepPrice):
        return units_text(price.step_price_micro, Unit.MONEY, currency), units_text(price.step_units, price.unit, 0)
    return in_words(price), ""


# -- check, as JSON ----------------------------------------------------------------------------------------------


def catalogue_json(catalogue: Catalogue) -> dict[str, Any]:
    destinations, networks = catalogue.destinations, catalogue.networks
    return {
        "version": catalogue.version,
        "edition": catalogue.edition,
        "currency": currency_name(catalogue.currency),
        "tax": {"rate_ppm": catalogue.tax.rate_ppm, "exclusive": catalogue.tax.exclusive},
        "time_zone": str(catalogue.calendar.time_zone),
        "holidays": [str(day) for day in catalogue.calendar.holidays],
        "destinations": None if destinations is None else sorted(destinations.zones),
        "prefixes": 0 if destinations is None else len(destinations),
        "networks": None if networks is None else sorted(networks.zones),
        "services": [_service_json(service) for service in catalogue.services],
        "plans": {
            plan: {name: _tariff_json(tariff) for name, tariff in sold.tariffs.items()}
            for plan, sold in catalogue.plans.items()
        },
        "currencies": {plan: currency_name(catalogue.currency_of(plan)) for plan in catalogue.plans},
        "includes": {plan: list(sold.includes) for plan, sold in catalogue.plans.items()},
        "caps": {
            plan: {
                service: [
                    {"name": cap.name, "limit": format_amount(cap.limit_micro), "per": cap.counter.period.name.lower()}
                    for cap in caps
                ]
                for service, caps in sold.caps.items()
            }
            for plan, sold in catalogue.plans.items()
        },
        "allowances": [
            asdict(each) | {"unit": each.unit.name.lower(), "validity": _validity_text(each.validity)}
            for each in catalogue.allowances.values()
        ],
        "bonuses": [asdict(each) | {"validity": _validity_text(each.validity)} for each in catalogue.bonuses.values()],
        "offers": [
            asdict(each)
            | {"fee": format_amount(each.fee_micro), "every": _every_text(each), "starts": Starts(each.starts)}
            for each in catalogue.offers.values()
        ],
        "promotions": [each.name for each in catalogue.promotions.all],
        "remarks": list(_remarks(catalogue)),
    }


def _service_json(service: Service) -> dict[str, Any]:
    def numbers(given: frozenset[int] | None) -> list[int | None] | None:
        return None if given is None else [None if n < 0 else n for n in sorted(given)]

    def words(given: frozenset[str] | None) -> list[str] | None:
        return None if given is None else sorted(given)

    methods = service.sip_methods
    final = asdict(service.final_units)
    final["redirect_address"] = service.final_units.redirect_address.decode() or None
    final["filter_ids"] = [filter_id.decode() for filter_id in service.final_units.filter_ids]
    final["rules"] = [rule.decode() for rule in service.final_units.rules]
    return {
        **asdict(service),
        "context": service.context.decode(),
        "rating_groups": numbers(service.rating_groups),
        "service_identifiers": numbers(service.service_identifiers),
        "unit": service.unit.name.lower(),
        "apns": None if service.apns is None else list(service.apns.written),
        "destinations": words(service.destinations),
        "networks": words(service.networks),
        "sip_methods": None if methods is None else sorted(method.decode() for method in methods),
        "final_units": final,
    }


def _tariff_json(tariff: Tariff | ZoneTariffs) -> dict[str, Any] | list[dict[str, Any]]:
    """The price, a list of prices, each with its beginning, or either for each zone."""
    if isinstance(tariff, ZoneTariffs):
        zones = {zone: _tariff_json(inner) for zone, inner in tariff.zones.items()}
        return {tariff.by: zones | ({} if tariff.others is None else {OTHERS: _tariff_json(tariff.others)})}
    prices = [_price_json(beginning.price) for beginning in tariff.beginnings]
    if not tariff.beginnings[0].written:
        return prices[0]
    return [{"from": each.written, **price} for each, price in zip(tariff.beginnings, prices, strict=True)]


def _price_json(price: Price) -> dict[str, Any]:
    if isinstance(price, Refusal):
        return {"result_code": price.result_code}
    if isinstance(price, StepPrice):
        return {"price": format_amount(price.step_price_micro), "step_units": price.step_units}
    if isinstance(price, TieredPrice):
        tiers = [
            {
                "up_to_units": t.up_to_units or None,
                "price": format_amount(t.step_price_micro),
                "step_units": t.step_units,
            }
            for t in price.tiers
        ]
        return {"tiers": tiers, "counted": price.counted.name.lower()}
    if isinstance(price, CallPrice):
        return {
            "connection": format_amount(price.connection_micro),
            "first_units": price.first_units,
            "first": format_amount(price.first_micro),
            "then": _price_json(price.then),
            "minimum": format_amount(price.minimum_micro),
            "free_units": price.free_units,
        }
    if isinstance(price, Discounted):
        return _price_json(price.rate) | {"discount": percent_text(price.ppm)}
    return {"price": "0.00", "step_units": 1}


# -- diff, schema ------------------------------------------------------------------------------------------------


@catalogue_app.command("diff")
def diff_catalogues(
    context: typer.Context,
    old: Annotated[Path, typer.Argument(help="Catalogue, a file or a folder.")],
    new: Annotated[Path | None, typer.Argument(help="The other; left out: the one of the settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """What has changed from one catalogue to another, prices with percent; exit code 2 if either has a mistake."""
    found = changes(old, new if new is not None else settings_of(context).catalogue)
    if as_json:
        print_json(
            [
                {
                    "path": each.path,
                    "before": each.before or None,
                    "after": each.after or None,
                    "percent": each.percent or None,
                }
                for each in found
            ]
        )
        return
    for each in found:
        console().print(str(each))
    if not found:
        console().print("Both say the same.")


@catalogue_app.command("schema")
def schema() -> None:
    """The JSON Schema of catalogue files, for editors that check YAML while it is typed."""
    print_json(catalogue_schema())


# -- budgets -----------------------------------------------------------------------------------------------------


@catalogue_app.command("budgets")
def budgets(context: typer.Context, as_json: AsJson = False) -> None:
    """What of the budgets of promotions is gone, and what is left."""
    catalogue = load_catalogue(settings_of(context).catalogue)
    gone = on_store(context, lambda store: store.spent())
    found = [(each.name, each.budget) for each in catalogue.promotions.all if each.budget is not None]
    if as_json:
        print_json(
            [
                {"promotion": name, "budget": of.amount, "gone": gone.get(name, 0), "in_times": of.in_times}
                for name, of in found
            ]
        )
        return
    shown = table("promotion", ">budget", ">gone", ">left")
    for name, of in found:
        left = max(0, of.amount - gone.get(name, 0))
        figures = (of.amount, gone.get(name, 0), left)
        texts = (
            f"{each} times" if of.in_times else units_text(each, Unit.MONEY, catalogue.currency) for each in figures
        )
        shown.add_row(name, *texts)
    console().print(shown if found else "No promotion has a budget.")


# -- reload ------------------------------------------------------------------------------------------------------


@catalogue_app.command("reload")
def reload_catalogue(context: typer.Context, as_json: AsJson = False) -> None:
    """Have all running servers of the store read their catalogue anew; exit code 1 if one of them did not take it.

    A server that finds a mistake says where it is and goes on with the catalogue it has. Running sessions keep their
    prices.
    """
    from occ.reload import COMMAND, Reloaded  # noqa: PLC0415 - the other commands start without loading the server

    async def work(store: Store) -> list[broadcast.Reply]:
        return await broadcast.ask_all(store, COMMAND)

    replies = on_store(context, work)
    if not replies:
        raise RefusedError("no running server answered; one that starts now reads the catalogue as it is")
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
            console().print(f"{text_of(reply.worker)}: {reload_sentence(reply, done, 'the catalogue')}.")
    if not all(done is not None and done.in_force for _, done in told):
        raise typer.Exit(REFUSED)


def reload_sentence(reply: broadcast.Reply, done: Any, what: str) -> str:
    """What a server did when it was asked to read ``what`` anew; ``done``: an ``occ.reload.Reloaded`` or None."""
    if done is None:
        return "it failed, its log says why" if reply.failed else f"it began to read {what} and has told nothing since"
    if not done.in_force:
        return f"{done.mistake}; {done.edition} stays in force"
    if done.edition == done.before:
        return f"{done.edition} is in force already, nothing has changed"
    gone = f"; it no longer has {', '.join(done.gone)}" if done.gone else ""
    return f"{done.edition} is in force, before it {done.before}{gone}"
