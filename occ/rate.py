"""What a use would cost, found out by charging it: the requests that a client would send, on an account made for it.

There is no second way of rating. The account is as good as new and has more money than anything costs; the requests go
through ``occ.charging.Charge``, the answer is read off the charging data records, which tell every period and price.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from balance.accounts import Account
from balance.embedded import Address
from balance.lane import ABSENT
from balance.model import MAIN_BUCKET, AccountKind, Bucket, Subscriber, Unit
from balance.plans import Outcome, Plan
from balance.records import pack_account, unpack_account, unpack_outbox
from balance.store import Store, StoreSettings
from occ import cdr
from occ.charging import Charge, Charging
from occ.codes import CREDIT_LIMIT_REACHED, DIRECT_DEBITING, EVENT, INITIAL, SUCCESS, TERMINATION, UPDATE
from occ.profiles import Profile
from occ.rating.catalogue import Catalogue
from occ.rating.criteria import ROLES, Criteria, RequestFacts
from occ.rating.service import NOT_NAMED, Service, context_matches
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

REPORTS_AT_MOST: Final = 20_000
"""Requests of one use; more would take seconds and tell nothing new."""

_PLENTY_MICRO: Final = 10**17
_PROFILE: Final = Profile("occ-rate")
_SUBSCRIBER: Final = b"subscriber"


class NotRatedError(Exception):
    """The use cannot be rated; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Question:
    """A use of a service."""

    plan: str
    facts: RequestFacts
    unit: Unit
    """What ``units`` are."""
    units: int
    at_ms: int
    """When it begins. Time passes by the clock, anything else is used at once."""
    rating_group: int = NOT_NAMED
    service_identifier: int = NOT_NAMED
    already_units: int = 0
    """What the same customer has used before, at once: for prices that depend on it."""
    segment: str = ""
    friends: tuple[bytes, ...] = ()
    activated_ms: int = 0


@dataclass(frozen=True, slots=True)
class Rated:
    """What it would cost."""

    criteria: Criteria
    """What the services of the catalogue were asked about."""
    service: Service | None
    """None: it belongs to none."""
    zone: str
    """By which it is priced, if it is by any, else where it goes or is used; empty: not known."""
    result_code: int
    """2001, or what the client would be answered instead."""
    record: dict[str, Any]
    """The charging data record, as ``docs/cdr.md`` explains it; empty if it is refused."""

    @property
    def cost_micro(self) -> int:
        cost: int = self.record.get("cost_micro", 0)
        return cost


def rate(catalogue: Catalogue, question: Question) -> Rated:
    """Charge the use and say what came of it. Raises NotRatedError if it takes too many requests."""
    service, zone = catalogue.find(question.facts, question.rating_group, question.service_identifier)
    criteria = catalogue.criteria(question.facts, question.rating_group, question.service_identifier)
    if service is not None:
        if service.unit != question.unit:
            raise NotRatedError(
                f"it belongs to the service {service.name}, which is counted in {service.unit.name.lower()}, not in "
                f"{question.unit.name.lower()}"
            )
        if max(question.units, question.already_units) > REPORTS_AT_MOST * service.maximum_quota_units:
            raise NotRatedError(f"so much takes more than {REPORTS_AT_MOST} requests; ask about less")
    client = _Client(catalogue, question)
    if question.already_units:
        client.use(service, question.already_units, b"before")
    result_code, records = client.use(service, question.units, b"session")
    return Rated(criteria, service, zone, result_code, records[-1] if records and result_code == SUCCESS else {})


class _Client:
    """Uses services as a client would: asks for units, reports them when they are used or the time is over."""

    def __init__(self, catalogue: Catalogue, question: Question) -> None:
        self._question = question
        # Never started: nothing is written.
        store = Store(StoreSettings(Address()))
        self._charging = Charging(store, Rules(catalogue, ChargingSettings(partial_record_ms=0)))
        self._now_ms = question.at_ms
        self._subscriber = Subscriber(
            _SUBSCRIBER,
            b"account",
            question.plan,
            (),
            activated_ms=question.activated_ms,
            segment=question.segment,
            friends=question.friends,
        )
        money = Bucket(MAIN_BUCKET, Unit.MONEY, _PLENTY_MICRO)
        currency = catalogue.currency_of(question.plan)
        self._account = Account(b"account", 1, int(AccountKind.PREPAID), currency, 0, 0, [money], {})

    def use(self, service: Service | None, units: int, session_id: bytes) -> tuple[int, list[dict[str, Any]]]:
        """Result-Code and records of a use of so many units."""
        unit = self._question.unit
        if unit == Unit.EVENTS:
            plan = self._send(session_id, EVENT, 0, requested=Units(service_specific=units))
            return _outcome(plan).result_code, _records(plan)
        wanted = Units() if service is None else _units(unit, service.maximum_quota_units)
        plan = self._send(session_id, INITIAL, 0, requested=wanted)
        left, number = units, 0
        while _outcome(plan).result_code == SUCCESS:
            grant = _outcome(plan).grants[0]
            if grant.result_code != SUCCESS or grant.units <= 0:
                return grant.result_code if grant.result_code != SUCCESS else CREDIT_LIMIT_REACHED, []
            used = min(left, grant.units)
            if unit == Unit.SECONDS:
                used = min(used, grant.validity_time_s)
                self._now_ms += used * 1000
            left -= used
            number += 1
            if number > REPORTS_AT_MOST:
                raise NotRatedError(f"so much takes more than {REPORTS_AT_MOST} requests; ask about less")
            if not left:
                plan = self._send(session_id, TERMINATION, number, used=_units(unit, used))
                return _outcome(plan).result_code, _records(plan)
            plan = self._send(session_id, UPDATE, number, requested=wanted, used=_units(unit, used))
        return _outcome(plan).result_code, []

    def _send(
        self, session_id: bytes, kind: int, number: int, requested: Units | None = None, used: Units | None = None
    ) -> Plan:
        question, facts = self._question, self._question.facts
        identifier = question.service_identifier
        service = ServiceRequest(
            None if question.rating_group == NOT_NAMED else question.rating_group,
            () if identifier == NOT_NAMED else (identifier,),
            requested,
            () if used is None else (used,),
        )
        request = CreditControlRequest(
            0,
            0,
            0,
            session_id,
            b"client",
            b"realm",
            b"realm",
            facts.service_context_id,
            kind,
            number,
            requested_action=DIRECT_DEBITING if kind == EVENT else None,
            services=(service,),
            called_station_id=facts.called_station_id,
            sgsn_mcc_mnc=facts.sgsn_mcc_mnc,
            called_party=facts.called_party,
            role_of_node=facts.role_of_node,
            user_location=facts.user_location,
            sip_method=facts.sip_method,
            number_portability=facts.number_portability,
            access_network=facts.access_network,
            visited_network=facts.visited_network,
        )
        charge = Charge(self._charging, request, _PROFILE, b"client", self._now_ms, _nobody_waits)
        charge.subscriber = self._subscriber
        # A copy, as a step may change what it is given even where it refuses then.
        plan = charge.step(unpack_account(self._account.account_id, pack_account(self._account)), ABSENT)
        assert isinstance(plan, Plan)  # it knows all it could ask for
        if plan.account is not None:
            self._account = plan.account
        return plan


def _nobody_waits(_: Outcome) -> None:
    """The plan is looked at, no answer is awaited."""


def _outcome(plan: Plan) -> Outcome:
    assert plan.outcome is not None
    return plan.outcome


def _records(plan: Plan) -> list[dict[str, Any]]:
    return [cdr.as_json_fields(record) for record in unpack_outbox(plan.outbox)] if plan.outbox else []


def _units(unit: Unit, amount: int) -> Units:
    return Units(time=amount) if unit == Unit.SECONDS else Units(total_octets=amount)


# -- why this service ------------------------------------------------------------------------------------------------


def others_before(catalogue: Catalogue, rated: Rated) -> Iterator[tuple[Service, str]]:
    """The services that come before the one found, and why it is none of them; all of them if there is none."""
    for service in catalogue.services:
        if service is rated.service:
            return
        yield service, why_not(service, rated.criteria)


def why_not(service: Service, facts: Criteria) -> str:
    """The first thing about a request that a service is not for; empty if it is for all of it."""
    if not context_matches(facts.context, service.context):
        return f"it is for {service.context.decode()}"
    for what, mine, asked in (
        ("Rating-Group", service.rating_groups, facts.rating_group),
        ("Service-Identifier", service.service_identifiers, facts.service_identifier),
    ):
        if mine is not None and asked not in mine:
            return f"it is for {what} {_numbers(mine)}{_but('' if asked < 0 else str(asked))}"
    if service.apns is not None and facts.apn not in service.apns:
        return f"it is for the APN {' or '.join(service.apns.written)}{_but(facts.apn or '')}"
    for what, zones, zone in (
        ("destination", service.destinations, facts.destination),
        ("network", service.networks, facts.network),
    ):
        if zones is not None and zone not in zones:
            return f"it is for the {what} {' or '.join(sorted(zones))}{_but(zone)}"
    if service.sip_methods is not None and facts.sip_method not in service.sip_methods:
        methods = " or ".join(sorted(method.decode() for method in service.sip_methods))
        return f"it is for {methods}{_but((facts.sip_method or b'').decode('utf-8', 'backslashreplace'))}"
    if service.role is not None and facts.role != service.role:
        return f"it is for {_role(service.role)} calls{_but('' if facts.role is None else _role(facts.role))}"
    return ""


def _but(asked: str) -> str:
    return f", not {asked}" if asked else ", and none is named"


def _role(number: int) -> str:
    return next((word for word, role in ROLES.items() if role == number), str(number))


def _numbers(numbers: frozenset[int]) -> str:
    return " or ".join(["none"] * (NOT_NAMED in numbers) + [str(number) for number in sorted(numbers) if number >= 0])
