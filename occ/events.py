"""One-time events: direct debiting, refund, balance check and price enquiry (RFC 8506 section 6).

Each function works on the services of one request and returns the ``Outcome``; ``occ.charging`` writes it down.
"""

from balance.accounts import ServiceUse, Session
from balance.fees import refund
from balance.ledger import Draft, release, reserve
from balance.model import Unit
from balance.plans import Grant, Outcome
from occ.codes import (
    CREDIT_LIMIT_REACHED,
    ENOUGH_CREDIT,
    INVALID_AVP_VALUE,
    MISSING_AVP,
    NO_CREDIT,
    PRICE_ENQUIRY,
    SUCCESS,
    UNABLE_TO_COMPLY,
)
from occ.pricing import Pricing
from occ.rating.periods import Period
from occ.rating.price import price_of
from occ.rules import Rules
from occ.service_units import event_units, measure, micro, money_of
from occ.services import Part, RequestServices
from protocols.credit_control import CreditControlRequest, ServiceAnswer, Units, encode_service_members
from protocols.diameter.codec import avp


def debit(services: RequestServices, reference: bytes) -> Outcome:
    """Direct debiting, RFC 8506 section 6.3: all that was asked for, or nothing.

    ``reference``: what a refund will name this debit by. What each service takes from which bucket is kept in its
    ``parts``.
    """
    draft = services.draft
    debited: list[tuple[ServiceUse, list[tuple[int, int]]]] = []
    for part, use in _asked_for(services):
        if services.refused(part):
            continue
        if services.policies is not None:
            services.decided(part, use)
            if part.grant.result_code != SUCCESS:
                continue
        draft.taken = []
        _debit_service(draft, services.pricing, part, use)
        debited.append((use, draft.taken))
    for use, taken in debited:
        use.parts = taken
    draft.taken = None
    outcome = services.outcome(refuse_if_none=True)
    if outcome.result_code == SUCCESS:
        told = encode_service_members(ServiceAnswer(refund_information=reference))
        for grant in outcome.grants:
            if grant.units > 0:
                grant.avps = told
    return outcome


def _asked_for(services: RequestServices) -> list[tuple[Part, ServiceUse]]:
    """What can be charged, with its use. A service is charged once, however often it is named; and no client can have
    itself paid by asking for less money than none.
    """
    found: list[tuple[Part, ServiceUse]] = []
    for part in services.parts:
        if part.use is None:
            continue
        money = money_of(part.asked)
        if any(part.use is use for _, use in found):
            part.grant.result_code = UNABLE_TO_COMPLY
        elif money is not None and money[0] < 0:
            part.grant.result_code = INVALID_AVP_VALUE
        else:
            found.append((part, part.use))
    return found


def _debit_service(draft: Draft, pricing: Pricing, part: Part, use: ServiceUse) -> None:
    units = event_units(part.asked, part.service)
    pricing.aligned(use, part.rate)
    if reserve(draft, use, pricing.for_grant(use, part.rate), units) < units:
        release(draft, use)
        part.grant.result_code = CREDIT_LIMIT_REACHED
        return
    pricing.settle(use, part.rate, units)
    part.grant.unit, part.grant.units = use.unit, units


def enquire(services: RequestServices, action: int) -> Outcome:
    """Answer what a service would do to the account, and do nothing: RFC 8506 sections 6.1 and 6.2.

    The price is what a direct debit of the same units would cost now, allowances counted, whatever the balance.
    The draft is spoilt by it and must not be written.
    """
    draft = services.draft
    asked_for = _asked_for(services)
    outcome = services.outcome(refuse_if_none=True)
    if outcome.result_code != SUCCESS:
        return outcome
    enough = True
    for part, use in asked_for:
        wanted = event_units(part.asked, part.service)
        if action == PRICE_ENQUIRY:
            services.pricing.settle(use, part.rate, wanted)
            continue
        services.pricing.aligned(use, part.rate)
        if reserve(draft, use, services.pricing.for_grant(use, part.rate), wanted) < wanted:
            enough = False
    if action == PRICE_ENQUIRY:
        outcome.cost_micro = sum(use.cost_micro for use in services.session.services)
    else:
        outcome.check_balance_result = ENOUGH_CREDIT if enough else NO_CREDIT
    return outcome


# -- refunds ---------------------------------------------------------------------------------------------------------


def refund_reference(request: CreditControlRequest) -> bytes | None:
    """What a refund is of: the Refund-Information that its debit was answered with (TS 32.299), or None."""
    for service in request.services:
        if service.refund_information:
            return service.refund_information
    return request.refund_information or None


def nothing_to_refund(named: bytes | None) -> Outcome:
    """The answer to a refund of a debit that is not known, or no longer, or of none: a client cannot invent credit."""
    if named is None:
        return Outcome(MISSING_AVP, failed_avp=avp("Refund-Information", b"\0", mandatory=False))
    return Outcome(INVALID_AVP_VALUE, failed_avp=avp("Refund-Information", named))


def give_back(draft: Draft, request: CreditControlRequest, debited: Session, rules: Rules) -> Outcome:
    """Refund what a direct debit took, into the buckets it came from, no more than once (RFC 8506 section 6.4).

    ``debited`` is the session of the debit, a copy that may be changed. A request that names amounts gets these back,
    one that names none all that is left. Asked for more than is left, nothing is given: 5012; so it is for a part of
    what was priced by a cap or a tier of the month, of which no part has a price of its own.
    """
    wanted: list[tuple[ServiceUse, int, Grant]] = []
    for use, grant, units in _asked_back(draft, request, debited):
        before = sum(other for known, other, _ in wanted if known is use)
        if not 0 < units <= use.used - before or (use.meters and units != use.used):
            return Outcome(UNABLE_TO_COMPLY)
        wanted.append((use, units, grant))
    if not wanted:
        return Outcome(UNABLE_TO_COMPLY)
    outcome = Outcome(SUCCESS, cost_micro=0, currency=draft.account.currency)
    for use, units, grant in wanted:
        rate = price_of(use.unit, use.step_units, use.step_price_micro, use.terms)
        in_allowances = sum(amount for which, amount in use.parts if draft.bucket(which).unit != Unit.MONEY)
        money = refund(draft, use, rate, units)
        outcome.cost_micro += money
        priced = units - in_allowances
        meters = [(name, Period(period), priced) for _, name, period, _ in use.meters]
        meters += [(each.name, each.period, units) for each in rules.meters.get(use.name, ())]
        for name, period, counted in meters:
            _uncount(
                draft, name, rules.periods.end_ms(period, debited.started_ms, draft.account.cycle_day), counted, money
            )
        grant.unit, grant.units = use.unit, units
        outcome.grants.append(grant)
    outcome.command_level = not request.services
    return outcome


def _uncount(draft: Draft, name: str, resets_ms: int, units: int, money_micro: int) -> None:
    """Take what was given back off a meter that counted it in the period up to ``resets_ms``, unless that is over."""
    known = draft.metered(name, draft.now_ms)
    if known is not None and known.resets_ms == resets_ms:
        meter = draft.meter(name, resets_ms)
        meter.units = max(0, meter.units - units)
        meter.micro = max(0, meter.micro - money_micro)


def _asked_back(draft: Draft, request: CreditControlRequest, debited: Session) -> list[tuple[ServiceUse, Grant, int]]:
    """(service of the debit, its grant in the answer, units asked back) of each service that a refund names."""
    if not request.services:
        services = [draft.service(debited, use.rating_group, use.service_identifier) for use in debited.services]
        uses = [use for use in services if use is not None and use.used]
        asked = request.requested if len(uses) == 1 else None
        return [(use, Grant(-1, (), SUCCESS), _units_back(asked, use, draft.account.currency)) for use in uses]
    found = []
    for each in request.services:
        group = -1 if each.rating_group is None else each.rating_group
        identifier = min(each.service_identifiers) if each.service_identifiers else -1
        use = draft.service(debited, group, identifier)
        if use is None:
            return []
        found.append(
            (
                use,
                Grant(group, each.service_identifiers, SUCCESS),
                _units_back(each.requested, use, draft.account.currency),
            )
        )
    return found


def _units_back(requested: Units | None, use: ServiceUse, currency: int) -> int:
    """Units of a debit that a refund asks back: those it names, those an amount of money paid for, or all.

    0 for an amount that no number of units cost.
    """
    if requested is None:
        return use.used
    units = measure(requested, use.unit)
    if units is not None:
        return units
    if requested.money is None:
        return use.used
    if requested.money[2] not in (None, currency):
        return 0
    rate = price_of(use.unit, use.step_units, use.step_price_micro, use.terms)
    left_micro = use.priced_micro - micro(requested.money)
    kept = rate.affordable_units(left_micro)
    if left_micro < 0 or kept >= use.paid_units or rate.price_micro(kept) != left_micro:
        return 0
    return use.paid_units - kept
