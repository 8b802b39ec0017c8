"""Bonuses for staying: by the clock on the day, or with the first top-up on or after it, each once.

The account keeps an entry among its offers for each subscriber and promotion (``renewals.LOYALTY_OF`` and the name):
when the next bonus is due, or since when one waits for a top-up. Which day that is, only the subscriber's record and
the catalogue say (``Promotions.next_loyalty``), so both are asked again when it has come: who has another plan or
segment by then gets what that brings.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from balance.ledger import Draft, add_bucket
from balance.model import MAIN_BUCKET, Bucket, LifeState, Offer, Subscriber
from occ.budgets import Budgets
from occ.rating.catalogue import Catalogue
from occ.rating.promotions import Award, Customer, Loyalty, Promotion
from occ.renewals import LOYALTY_OF, PERIODS_AT_ONCE, Owners, add_offer


@dataclass(frozen=True, slots=True)
class Gift:
    """What was given, for its charging data record."""

    promotion: str
    owner: bytes
    due_ms: int
    """The day it is for."""
    bucket_id: int
    unit: int
    amount: int


def is_loyalty(offer: Offer) -> bool:
    """Whether an entry among the offers stands for a bonus for staying."""
    return offer.name.startswith(LOYALTY_OF)


def promotion_of(offer: Offer) -> str:
    """The promotion that such an entry is of."""
    return offer.name.removeprefix(LOYALTY_OF)


def expect_loyalty(draft: Draft, catalogue: Catalogue, subscriber: Subscriber, entitled: bool) -> None:
    """Have the account know when each bonus of a subscriber is due next; none is if it is not ``entitled``.

    What is due, or waits for a top-up, is left to be given. Raises LedgerError for more entries than an account has.
    """
    awards: Mapping[str, Award] = {}
    if entitled:
        customer, plan = _customer(draft, subscriber), subscriber.plan_at(draft.now_ms)
        awards = {each.name: each for each in catalogue.promotions.next_loyalty(plan, customer, draft.now_ms)}
    account = draft.account
    known: set[str] = set()
    for offer in list(account.offers):
        if not is_loyalty(offer) or offer.owner != subscriber.subscriber_id:
            continue
        award = awards.get(promotion_of(offer))
        known.add(promotion_of(offer))
        pending = bool(offer.unpaid_ms) or 0 < offer.next_ms <= draft.now_ms
        if not entitled or (award is None and not pending):
            account.offers = [
                each for each in draft.own_offers() if (each.name, each.owner) != (offer.name, offer.owner)
            ]
        elif award is not None and not pending and offer.next_ms != award.at_ms:
            draft.offer(account.offers.index(offer)).next_ms = award.at_ms
    for name, award in awards.items():
        if name not in known:
            add_offer(draft, Offer(LOYALTY_OF + name, draft.now_ms, award.at_ms, subscriber.subscriber_id))


def give_loyalty(draft: Draft, catalogue: Catalogue, owners: Owners, budgets: Budgets) -> list[Gift]:
    """Give the bonuses that are due, by the budgets of their promotions; what was given.

    ``owners``: the subscribers of ``renewals.owners_due``; an entry of one that is not among them is left alone.
    """
    gifts: list[Gift] = []
    account = draft.account
    if not any(is_loyalty(offer) and 0 < offer.next_ms <= draft.now_ms for offer in account.offers):
        return gifts
    for offer in list(draft.own_offers()):
        if not is_loyalty(offer) or not 0 < offer.next_ms <= draft.now_ms or offer.owner not in owners:
            continue
        subscriber = owners[offer.owner]
        promotion = catalogue.promotions.by_name.get(promotion_of(offer))
        gone = subscriber is None or subscriber.account_id != account.account_id
        if subscriber is None or gone or subscriber.state == LifeState.TERMINATED or promotion is None:
            account.offers = [each for each in account.offers if each is not offer]
        elif isinstance(promotion.effect, Loyalty):
            gifts += _settle(draft, catalogue, budgets, offer, subscriber, promotion, promotion.effect)
        else:
            account.offers = [each for each in account.offers if each is not offer]
    return gifts


def _settle(
    draft: Draft,
    catalogue: Catalogue,
    budgets: Budgets,
    offer: Offer,
    subscriber: Subscriber,
    promotion: Promotion,
    loyalty: Loyalty,
) -> list[Gift]:
    """Give what is due of one promotion, or have it wait for a top-up; note when the next is due."""
    gifts: list[Gift] = []
    due_ms = offer.unpaid_ms or offer.next_ms
    for _ in range(PERIODS_AT_ONCE):
        if loyalty.at_top_up and not offer.unpaid_ms:
            offer.unpaid_ms, offer.next_ms = due_ms, 0  # a top-up has it looked at again, as with a fee
            return gifts
        award = _award(draft, catalogue, subscriber, promotion.name, due_ms - 1)
        if award is not None and award.at_ms == due_ms and _take_from_budget(draft, budgets, promotion, award):
            gifts.append(_give(draft, catalogue, loyalty, award, subscriber.subscriber_id))
        offer.since_ms = due_ms
        following = _award(draft, catalogue, subscriber, promotion.name, due_ms)
        if following is None:
            draft.account.offers = [each for each in draft.account.offers if each is not offer]
            return gifts
        due_ms = following.at_ms
        if due_ms > draft.now_ms:
            break
    offer.next_ms, offer.unpaid_ms = due_ms, 0
    return gifts


def _award(draft: Draft, catalogue: Catalogue, subscriber: Subscriber, promotion: str, after_ms: int) -> Award | None:
    """What a promotion gives next after a moment."""
    customer, plan = _customer(draft, subscriber), subscriber.plan_at(after_ms)
    found = catalogue.promotions.next_loyalty(plan, customer, after_ms)
    return next((award for award in found if award.name == promotion), None)


def _customer(draft: Draft, subscriber: Subscriber) -> Customer:
    return Customer(subscriber.segment, subscriber.friends, subscriber.activated_ms, draft.account.cycle_day)


def _take_from_budget(draft: Draft, budgets: Budgets, promotion: Promotion, award: Award) -> bool:
    """Whether the budget has as much left, which is then gone; a bonus that it has not is not given later either."""
    if promotion.budget is None:
        return True
    cost = 1 if promotion.budget.in_times else award.amount
    spent = draft.spent.get(promotion.name, 0) if draft.spent else 0
    if budgets.gone(promotion.name) + spent + cost > promotion.budget.amount:
        return False
    draft.spend(promotion.name, cost)
    return True


def _give(draft: Draft, catalogue: Catalogue, loyalty: Loyalty, award: Award, owner: bytes) -> Gift:
    """Into a bucket of its own, valid from now on: one that an earlier bonus has left empty, or a new one."""
    allowance = catalogue.allowance(award.bucket)
    owner_of_bucket = b"" if allowance is not None and allowance.shared else owner
    expires_ms = loyalty.validity.ends_ms(draft.now_ms, catalogue.calendar)
    bucket = _empty_bucket(draft, award, owner_of_bucket)
    if bucket is None:
        bucket = add_bucket(draft, award.unit, award.amount, award.priority, expires_ms, award.bucket, owner_of_bucket)
    else:
        bucket.balance, bucket.expires_ms, bucket.priority = award.amount, expires_ms, award.priority
    return Gift(award.name, owner, award.at_ms, bucket.bucket_id, bucket.unit, award.amount)


def _empty_bucket(draft: Draft, award: Award, owner: bytes) -> Bucket | None:
    filled = {number for offer in draft.account.offers for number in offer.buckets}
    for bucket in draft.account.buckets:
        if (bucket.name, bucket.owner, bucket.unit) != (award.bucket, owner, award.unit):
            continue
        usable = bucket.bucket_id != MAIN_BUCKET and bucket.bucket_id not in filled
        if usable and not bucket.balance and not bucket.reserved:
            return bucket
    return None
