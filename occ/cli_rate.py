"""``occ rate``: what a use would cost, and why, step by step."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from balance.model import Unit
from occ.cli_shell import REFUSED, AsJson, WrongUsageError, console, print_json, settings_of, size, table, units_text
from occ.clock import now_ms
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.criteria import ROLES, RequestFacts
from occ.rating.currency import currency_name, format_amount
from occ.rating.explain import Line, explain, in_words
from occ.rating.percent import percent_text
from occ.rating.plans import ZoneTariffs
from occ.rating.price import price_of
from occ.rating.service import NOT_NAMED, Service
from occ.yamlmap import nearest

if TYPE_CHECKING:
    from occ.rate import Question, Rated

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def rate(
    context: typer.Context,
    plan: Annotated[str, typer.Option(help="Plan of the catalogue.")],
    units: Annotated[str, typer.Option(help="How much is used: '61 s', '10 MiB', '1 event'.")],
    service: Annotated[
        str | None, typer.Option(help="Service that a request is made for; what is said below may make it another.")
    ] = None,
    service_context: Annotated[
        str | None, typer.Option("--context", help="Service-Context-Id, in place of a service.")
    ] = None,
    rating_group: Annotated[int | None, typer.Option(min=0, max=0xFFFFFFFF, help="Rating-Group.")] = None,
    service_identifier: Annotated[int | None, typer.Option(min=0, max=0xFFFFFFFF, help="Service-Identifier.")] = None,
    at: Annotated[
        str | None, typer.Option(help="When it begins, '2026-12-24 19:59:30' by the catalogue's clock; now.")
    ] = None,
    called: Annotated[str | None, typer.Option(help="Called number, as it is dialled, or +4930123456.")] = None,
    apn: Annotated[str | None, typer.Option(help="Access point name.")] = None,
    network: Annotated[str | None, typer.Option(help="Serving network, MCC and MNC: 26201.")] = None,
    sip_method: Annotated[str | None, typer.Option(help="INVITE, MESSAGE, ...")] = None,
    role: Annotated[str | None, typer.Option(help="originating, terminating or forwarding.")] = None,
    already: Annotated[str | None, typer.Option(help="What the customer has used just before.")] = None,
    segment: Annotated[str, typer.Option(help="Which customers it is among.")] = "",
    friend: Annotated[list[str] | None, typer.Option(help="Friends-and-family number.")] = None,
    activated: Annotated[str | None, typer.Option(help="Since when a customer, '2025-12-24'.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a use would cost, and why, step by step; exit code 1 if it would be refused.

    It is charged as a server would charge it, on an account made for the purpose; nothing is written.
    """
    from occ.rate import NotRatedError, Question, others_before  # noqa: PLC0415 - loads what the server needs
    from occ.rate import rate as rated_by  # noqa: PLC0415

    catalogue = load_catalogue(settings_of(context).catalogue)
    if plan not in catalogue.plans:
        raise typer.BadParameter(
            f"the catalogue has no plan {plan[:40]!r}{nearest(plan, catalogue.plans)}", param_hint="--plan"
        )
    meant = _service(catalogue, service, service_context)
    facts = RequestFacts(
        _octets(service_context) or (meant.context if meant is not None else b""),
        _octets(apn) or _assumed_apn(meant),
        _octets(called) or _assumed_number(catalogue, meant),
        None,
        _octets(sip_method) or _assumed_method(meant),
        _role(role, meant),
        _octets(network),
    )
    unit = meant.unit if meant is not None else _unit_of(units)
    question = Question(
        plan,
        facts,
        unit,
        size(units, unit, "--units"),
        now_ms() if at is None else _moment(at, catalogue, "--at"),
        _number(rating_group, None if meant is None else meant.rating_groups),
        _number(service_identifier, None if meant is None else meant.service_identifiers),
        0 if already is None else size(already, unit, "--already"),
        segment,
        tuple(number.removeprefix("+").encode() for number in friend or ()),
        0 if activated is None else _moment(activated, catalogue, "--activated"),
    )
    try:
        rated = rated_by(catalogue, question)
    except NotRatedError as error:
        raise WrongUsageError(str(error)) from None
    answer = _Answer(catalogue, question, rated, list(others_before(catalogue, rated)))
    if as_json:
        print_json(answer.as_json())
    else:
        answer.show()
    if not rated.record:
        raise typer.Exit(REFUSED)


# -- the question ------------------------------------------------------------------------------------------------


def _service(catalogue: Catalogue, name: str | None, service_context: str | None) -> Service | None:
    if (name is None) == (service_context is None):
        raise WrongUsageError("give either --service or --context")
    if name is None:
        return None
    found = catalogue.by_name.get(name)
    if found is None:
        known = nearest(name, [service.name for service in catalogue.services])
        raise typer.BadParameter(f"the catalogue has no service {name[:40]!r}{known}", param_hint="--service")
    return found


def _octets(written: str | None) -> bytes | None:
    return None if written is None else written.encode("utf-8", "surrogateescape")


def _number(given: int | None, asked: frozenset[int] | None) -> int:
    """What was given, else one that the service is for: none if that will do."""
    if given is not None:
        return given
    return NOT_NAMED if asked is None or NOT_NAMED in asked else min(asked)


def _assumed_apn(service: Service | None) -> bytes | None:
    if service is None or service.apns is None:
        return None
    return service.apns.written[0].replace("*", "x").encode()


def _assumed_method(service: Service | None) -> bytes | None:
    return None if service is None or service.sip_methods is None else min(service.sip_methods)


def _assumed_number(catalogue: Catalogue, service: Service | None) -> bytes | None:
    """Only an emergency number can be told from its zone."""
    if service is None or not service.is_for("emergency"):
        return None
    return min(catalogue.numbering.emergency).encode()


def _role(written: str | None, service: Service | None) -> int | None:
    if written is None:
        return None if service is None else service.role
    if written not in ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(ROLES)}, not {written[:40]!r}", param_hint="--role")
    return ROLES[written]


def _unit_of(written: str) -> Unit:
    word = written.rpartition(" ")[2]
    if word in ("event", "events"):
        return Unit.EVENTS
    return Unit.SECONDS if word in ("s", "min", "h", "d") else Unit.OCTETS


def _moment(written: str, catalogue: Catalogue, option: str) -> int:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise typer.BadParameter(
            f"must be a time such as '2026-12-24 19:59:30', not {written[:40]!r}", param_hint=option
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=catalogue.calendar.time_zone)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


# -- the answer --------------------------------------------------------------------------------------------------


class _Answer:
    """What came of it, in words and as JSON."""

    def __init__(
        self, catalogue: Catalogue, question: "Question", rated: "Rated", others: list[tuple[Service, str]]
    ) -> None:
        self.catalogue = catalogue
        self.question = question
        self.rated = rated
        self.others = others
        self.currency = catalogue.currency_of(question.plan)

    def show(self) -> None:
        out = console()
        out.print(f"Request: {self._request()}.")
        service = self.rated.service
        if service is None:
            out.print("It belongs to no service of the catalogue:")
        else:
            out.print(f"Service: {service.name}, the first that fits.")
        for other, reason in self.others:
            out.print(f"  not {other.name}: {reason}")
        out.print(f"Tariff: {self._tariff()}.")
        if not self.rated.record:
            out.print(f"It would be refused with Result-Code {self.rated.result_code}.")
            return
        steps = table("", ">", ">")
        for period in self.rated.record["periods"]:
            steps.add_row(f"{self._when(period)}: {self._price(period)}", "", "")
            for name in period["promotions"]:
                steps.add_row(f"  by the promotion {name}", "", "")
            for step in self._steps(period):
                steps.add_row(f"  {step.text}", self._money(step.micro), "")
        steps.add_row("Total", "", self._money(self.rated.cost_micro))
        rate_ppm = self.catalogue.tax.rate_ppm
        if rate_ppm:
            tax_micro = self.catalogue.tax.of(self.rated.cost_micro)
            steps.add_row(f"  of which {percent_text(rate_ppm)} tax", "", self._money(tax_micro))
        out.print(steps)

    def as_json(self) -> dict[str, Any]:
        rated, called = self.rated, self.catalogue.called(self.question.facts)
        return {
            "catalogue": self.catalogue.edition,
            "plan": self.question.plan,
            "service": None if rated.service is None else rated.service.name,
            "zone": rated.zone or None,
            "called": str(called.number) or None,
            "prefix": None if called.destination is None else called.destination.prefix or None,
            "network": rated.criteria.network or None,
            "apn": rated.criteria.apn,
            "not": {service.name: reason for service, reason in self.others},
            "result_code": rated.result_code,
            "units": self.question.units,
            "unit": self.question.unit.name.lower(),
            "currency": currency_name(self.currency),
            "periods": [
                {
                    "from": self._clock(period["from_ms"]),
                    "until": self._clock(period["until_ms"]),
                    "units": period["units"],
                    "price": self._price(period),
                    "cost": format_amount(period["cost_micro"]),
                    "promotions": list(period["promotions"]),
                    "steps": [{"what": step.text, "cost": format_amount(step.micro)} for step in self._steps(period)],
                }
                for period in rated.record.get("periods", ())
            ],
            "cost": format_amount(rated.cost_micro) if rated.record else None,
            "cost_micro": rated.cost_micro if rated.record else None,
            "tax": format_amount(self.catalogue.tax.of(rated.cost_micro)) if rated.record else None,
        }

    def _request(self) -> str:
        question, criteria = self.question, self.rated.criteria
        parts = [f"{units_text(question.units, question.unit, 0)} from {self._clock(question.at_ms)}"]
        parts.append(criteria.context.decode("utf-8", "backslashreplace"))
        if criteria.rating_group >= 0:
            parts.append(f"Rating-Group {criteria.rating_group}")
        if criteria.service_identifier >= 0:
            parts.append(f"Service-Identifier {criteria.service_identifier}")
        if criteria.apn is not None:
            parts.append(f"APN {criteria.apn}")
        if question.facts.called_party is not None:
            parts.append(f"called {self._called()}")
        if criteria.network:
            network = self.catalogue.network(question.facts)
            parts.append(f"in network {network.plmn or 'not named'}, zone {network.zone}")
        if criteria.sip_method is not None:
            parts.append(criteria.sip_method.decode("utf-8", "backslashreplace"))
        if criteria.role is not None:
            parts.append(next((word for word, role in ROLES.items() if role == criteria.role), str(criteria.role)))
        return ", ".join(parts)

    def _called(self) -> str:
        called = self.catalogue.called(self.question.facts)
        if called.destination is None:
            return f"{called.number}, in no zone" if str(called.number) else "what is no number"
        prefix, name = called.destination.prefix, called.destination.name
        why = f", prefix {prefix}" if prefix else ""
        return f"{called.number}, zone {called.zone}{why}{f', {name}' if name else ''}"

    def _tariff(self) -> str:
        service, plan = self.rated.service, self.question.plan
        where = f"plan {plan} of catalogue {self.catalogue.edition}"
        sold = self.catalogue.plans[plan].tariffs.get(service.name) if service is not None else None
        if service is None or sold is None:
            return f"{where} does not sell it" if service is not None else where
        if not isinstance(sold, ZoneTariffs):
            return where
        by = "destination" if sold.is_by_destination else "network"
        zone = self.rated.zone or "none"
        tariff = sold.of(self.rated.zone)
        if tariff is None:
            return f"{where} does not sell it for the {by} {zone}"
        return f"{where}, by {by}: {zone}{'' if self.rated.zone in sold.zones else ', among the others'}"

    def _price(self, period: dict[str, Any]) -> str:
        return f"{units_text(period['units'], self.question.unit, 0)} at {in_words(self._rate(period))}"

    def _rate(self, period: dict[str, Any]) -> Any:
        terms = tuple(period["terms"])
        return price_of(self.question.unit, period["step_units"], period["step_price_micro"], terms)

    def _steps(self, period: dict[str, Any]) -> list[Line]:
        """What the period cost, and what its price does not explain: caps."""
        steps = explain(self._rate(period), period["counted_from"], period["counted_to"])
        rest = period["cost_micro"] - sum(step.micro for step in steps)
        if rest:
            service = self.rated.service.name if self.rated.service is not None else ""
            names = ", ".join(dict.fromkeys(cap.name for cap in self.catalogue.caps(self.question.plan, service)))
            steps.append(Line(f"beyond the cap, of {names}" if names and rest < 0 else "otherwise", rest))
        return steps

    def _when(self, period: dict[str, Any]) -> str:
        if period["from_ms"] == period["until_ms"]:
            return self._clock(period["from_ms"])
        return f"{self._clock(period['from_ms'])} to {self._clock(period['until_ms'])}"

    def _clock(self, at_ms: int) -> str:
        local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(self.catalogue.calendar.time_zone)
        return local.strftime("%Y-%m-%d %H:%M:%S %Z")

    def _money(self, micro: int) -> str:
        return units_text(micro, Unit.MONEY, self.currency)
