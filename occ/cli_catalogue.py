"""The command on the catalogue: check."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from balance.model import Unit
from occ.cli_shell import AsJson, console, print_json, settings_of, table, units_text
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.currency import currency_name, format_amount
from occ.rating.final_units import FinalUnits
from occ.rating.price import StepPrice
from occ.rating.service import CLIENT_FAILURE, DEBIT_FAILURE, TRIGGER_TYPES, Service
from occ.rating.tariff import REFUSALS, Price, Refusal, Tariff

catalogue_app = typer.Typer(no_args_is_help=True, help="The tariff catalogue.")


@catalogue_app.command("check")
def check_catalogue(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="Catalogue; left out: the one of the settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read the tariff catalogue and say what was understood; exit code 2 if there is a mistake in it."""
    catalogue = load_catalogue(file if file is not None else settings_of(context).catalogue)
    if as_json:
        print_json(_catalogue_json(catalogue))
        return
    out = console()
    out.print(f"Version {catalogue.version}, prices in {currency_name(catalogue.currency)}.")
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
        for key, value in _settings(service):
            settings.add_row(service.name, key, value)
    out.print(services)
    if settings.row_count:
        out.print(settings)
    prices = table("plan", "service", ">price", "for each started", "from")
    for plan, tariffs in catalogue.plans.items():
        for name, tariff in tariffs.items():
            for beginning in tariff.beginnings:
                prices.add_row(plan, name, *_price_text(beginning.price, catalogue.currency), beginning.written)
    out.print(prices)
    if any(tariff.beginnings[0].written for tariffs in catalogue.plans.values() for tariff in tariffs.values()):
        holidays = ", ".join(map(str, catalogue.calendar.holidays)) or "none"
        out.print(f"Times are those of {catalogue.calendar.time_zone}; holidays: {holidays}.")


def _numbers_text(numbers: frozenset[int] | None) -> str:
    if numbers is None:
        return "any"
    return ", ".join([*(str(n) for n in sorted(numbers) if n >= 0), *(["none"] if -1 in numbers else [])])


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
    """A price, and the step it is for."""
    if isinstance(price, Refusal):
        return next(word for word, refusal in REFUSALS.items() if refusal == price), ""
    if isinstance(price, StepPrice):
        return units_text(price.step_price_micro, Unit.MONEY, currency), units_text(price.step_units, price.unit, 0)
    return "free", ""


def _catalogue_json(catalogue: Catalogue) -> dict[str, Any]:
    return {
        "version": catalogue.version,
        "currency": currency_name(catalogue.currency),
        "time_zone": str(catalogue.calendar.time_zone),
        "holidays": [str(day) for day in catalogue.calendar.holidays],
        "services": [_service_json(service) for service in catalogue.services],
        "plans": {
            plan: {name: _tariff_json(tariff) for name, tariff in tariffs.items()}
            for plan, tariffs in catalogue.plans.items()
        },
    }


def _service_json(service: Service) -> dict[str, Any]:
    def numbers(given: frozenset[int] | None) -> list[int | None] | None:
        return None if given is None else [None if n < 0 else n for n in sorted(given)]

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
        "final_units": final,
    }


def _tariff_json(tariff: Tariff) -> dict[str, Any] | list[dict[str, Any]]:
    """The price, or a list of prices, each with its beginning."""
    prices = [_price_json(beginning.price) for beginning in tariff.beginnings]
    if not tariff.beginnings[0].written:
        return prices[0]
    return [{"from": each.written, **price} for each, price in zip(tariff.beginnings, prices, strict=True)]


def _price_json(price: Price) -> dict[str, Any]:
    if isinstance(price, Refusal):
        return {"result_code": price.result_code}
    if isinstance(price, StepPrice):
        return {"price": format_amount(price.step_price_micro), "step_units": price.step_units}
    return {"price": "0.00", "step_units": 1}
