"""What an answer says at command level: failure handling, low balance, advice of charge.

RFC 8506 sections 8.4, 8.14 and 8.15; TS 32.299 clauses 7.2.13 to 7.2.16, 7.2.97 and 7.2.172.
"""

from typing import Final

from balance.model import Rate, Unit
from balance.plans import Outcome
from occ.codes import EVENT, INITIAL, TERMINATION
from occ.pricing import Pricing
from occ.rating.price import full_terms
from occ.services import RequestServices
from protocols.credit_control import (
    AdviceOfCharge,
    CreditControlAnswer,
    Money,
    RateElement,
    Tariff,
    encode_command_members,
)

#: AoC-Request-Type, TS 32.299 clause 7.2.16
AOC_FULL: Final = 1
AOC_COST_ONLY: Final = 2
AOC_TARIFF_ONLY: Final = 3

LOW: Final = 1
"""Low-Balance-Indication YES."""

#: CC-Unit-Type (RFC 8506 section 8.32) of what a service is counted in.
_UNIT_TYPES: Final = {int(Unit.SECONDS): 0, int(Unit.AMOUNT): 1, int(Unit.OCTETS): 2, int(Unit.EVENTS): 5}


def decimal(micro: int) -> tuple[int, int]:
    """Value-Digits and Exponent of an amount in micro-units, with no more digits than it needs (RFC 8506, 8.8)."""
    exponent = -6
    while exponent < 0 and micro % 10 == 0:
        micro //= 10
        exponent += 1
    return micro, exponent


def cc_money(micro: int, currency: int) -> Money:
    """CC-Money of an amount in micro-units (RFC 8506 section 8.22)."""
    digits, exponent = decimal(micro)
    return digits, exponent, currency


def command_indications(services: RequestServices, outcome: Outcome, debited_before_micro: int = 0) -> None:
    """Put into ``outcome.avps`` what the client is to be told, if anything.

    ``debited_before_micro``: what the session had cost before this request.
    """
    request, profile = services.request, services.profile
    kind = request.request_type
    if kind == INITIAL or kind == EVENT:
        for part in services.parts:
            if part.use is not None:
                outcome.avps = services.rules.indications(part.service, profile).first_answer
                break
    threshold_micro = services.rules.settings.low_balance_micro
    asked = request.aoc_request_type if profile.advice_of_charge else 0
    if not asked and not (threshold_micro and profile.balance_hints):
        return
    answer = CreditControlAnswer(0)
    currency = services.draft.account.currency
    if threshold_micro and profile.balance_hints and kind != TERMINATION:
        left_micro = _spendable_micro(services)
        if left_micro < threshold_micro:
            answer.low_balance_indication = LOW
            answer.remaining_balance = cc_money(left_micro, currency)
    if asked:
        answer.advice_of_charge = _advice(services, asked, debited_before_micro, currency)
    outcome.avps += encode_command_members(answer)


def _spendable_micro(services: RequestServices) -> int:
    """Money on the account, what is reserved included, and its credit limit."""
    limit = services.draft.account.credit_limit_micro
    use = next((part.use for part in services.parts if part.use is not None), None)
    now_ms = services.draft.now_ms
    buckets = services.draft.in_order(Unit.MONEY, use)
    return limit + sum(bucket.balance for bucket in buckets if not 0 < bucket.expires_ms <= now_ms)


def _advice(services: RequestServices, asked: int, debited_before_micro: int, currency: int) -> AdviceOfCharge:
    advice = AdviceOfCharge(currency=currency)
    if asked in (AOC_FULL, AOC_COST_ONLY):
        debited_micro = sum(use.debited_micro for use in services.session.services)
        advice.accumulated_cost = decimal(debited_micro)
        advice.incremental_cost = decimal(debited_micro - debited_before_micro)
    if asked in (AOC_FULL, AOC_TARIFF_ONLY):
        for part in services.parts:
            if part.use is None:
                continue
            advice.current_tariff = _tariff(part.rate, currency)
            if part.use.ahead:
                advice.tariff_time_change = part.use.ahead[0] // 1000
                advice.next_tariff = _tariff(Pricing.rate_ahead(part.use), currency)
            break
    return advice


def _tariff(rate: Rate, currency: int) -> Tariff:
    step_units, step_price_micro, _ = full_terms(rate)
    unit_type = _UNIT_TYPES[int(rate.unit)]
    return Tariff((RateElement(unit_type, decimal(step_price_micro), (step_units, 0)),), currency)
