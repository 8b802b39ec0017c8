"""What subscribers have by their plans: the offers that come with them, and bonuses for staying.

A plan's ``includes`` are taken when a subscriber comes into service with it, and end when it has the plan no more; an
offer that the old and the new plan include goes on as if nothing had happened. A change that is ahead is entered in the
account at once, with its moment: the clock does the rest (``occ.renewals``). A fee that cannot be paid refuses nothing:
the offer waits for money, as any other does.

``bring_up_to_date`` is told the subscriber's record and makes the accounts fit, so it may be called as often as anybody
likes: whatever was changed, and wherever that was cut off.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from balance.accounts import Account, Session
from balance.ledger import Draft
from balance.model import LedgerError, LifeState, Offer, Subscriber
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store
from balance.subscribers import session_accounts
from occ import cdr
from occ.loyalty import expect_loyalty, is_loyalty
from occ.rating.catalogue import Catalogue
from occ.renewals import Fee, add_offer, begin_offer, end_offer

log = logging.getLogger("occ.entitlements")

OPERATION: Final = "plan-offers"
AT_ONCE: Final = 100
"""Subscribers that are seen to at a time."""


def concern(catalogue: Catalogue) -> bool:
    """Whether plans of the catalogue include anything, or anybody gets something for staying."""
    return catalogue.promotions.reward_loyalty or any(plan.includes for plan in catalogue.plans.values())


def entitle(draft: Draft, catalogue: Catalogue, subscriber: Subscriber, *, paid: bool = False) -> list[Fee]:
    """Give the account the offers that a subscriber's plan includes, and end those that it has no more; the fees.

    ``paid``: the periods that run are paid for and were given elsewhere, as with a subscriber that another system had
    before. Raises LedgerError for more offers than an account can have.
    """
    account, now_ms, owner = draft.account, draft.now_ms, subscriber.subscriber_id
    entitled = subscriber.account_id == account.account_id and subscriber.state not in _OUT
    changes_ms = subscriber.next_plan_ms if subscriber.next_plan and subscriber.next_plan_ms > now_ms else 0
    plan = subscriber.plan_at(now_ms)
    current = catalogue.includes(plan) if entitled else ()
    following = catalogue.includes(subscriber.next_plan) if entitled and changes_ms else current
    fees: list[Fee] = []
    known: set[str] = set()
    for offer in [each for each in draft.own_offers() if each.owner == owner and not is_loyalty(each)]:
        begun = offer.since_ms <= now_ms
        if not begun and offer.plan and (offer.name not in following or offer.since_ms != changes_ms):
            account.offers = [each for each in account.offers if each is not offer]  # of a change that was dropped
            continue
        if begun and offer.name in current:
            offer.plan = plan
            offer.until_ms = 0 if offer.name in following else changes_ms
        elif begun and (offer.plan or subscriber.state == LifeState.TERMINATED or not entitled):
            fees += end_offer(draft, catalogue, offer, now_ms)
            continue
        elif not begun and offer.name in following and offer.since_ms == changes_ms:
            offer.plan = subscriber.next_plan
        known.add(offer.name)
    for name in current:
        if name not in known:
            until_ms = 0 if name in following else changes_ms
            offer = Offer(name, now_ms, now_ms, owner, until_ms=until_ms, plan=plan)
            add_offer(draft, offer)
            fees += _run_on(draft, catalogue, offer) if paid else begin_offer(draft, catalogue, offer)
    for name in following:
        if name not in known and name not in current:
            add_offer(draft, Offer(name, changes_ms, changes_ms, owner, plan=subscriber.next_plan))
    expect_loyalty(draft, catalogue, subscriber, entitled)
    return fees


_OUT: Final = (LifeState.ORDERED, LifeState.TERMINATED)


def _run_on(draft: Draft, catalogue: Catalogue, offer: Offer) -> list[Fee]:
    """Have an offer go on with its next period."""
    sold = catalogue.offer(offer.name)
    if sold is not None:
        offer.next_ms = sold.next_ms(offer.since_ms, draft.now_ms, catalogue.calendar, draft.account.cycle_day)
    return []


async def bring_up_to_date(
    store: Store, catalogue: Catalogue, subscriber: Subscriber, now_ms: int, reason: str, *, paid: bool = False
) -> list[Fee]:
    """Have the accounts that pay, or paid, for a subscriber fit its record, an operation each; the fees.

    ``paid`` as for ``entitle``. Raises LedgerError, StoreError.
    """
    fees: list[Fee] = []
    if not concern(catalogue):
        return fees
    for account_id in await session_accounts(store, subscriber):
        fees += await _bring_account_up_to_date(store, catalogue, account_id, subscriber, now_ms, reason, paid)
    return fees


async def _bring_account_up_to_date(
    store: Store,
    catalogue: Catalogue,
    account_id: bytes,
    subscriber: Subscriber,
    now_ms: int,
    reason: str,
    paid: bool,
) -> list[Fee]:
    fees: list[Fee] = []

    def step(account: Account | None, _: Session | None) -> Plan:
        fees.clear()
        if account is None:
            return Plan(None)
        draft = Draft(account, now_ms)
        fees.extend(entitle(draft, catalogue, subscriber, paid=paid))
        if not fees and draft.account.offers == account.offers:
            return Plan(None)
        told = ((fee.offer, fee.owner, fee.amount_micro, fee.from_ms, fee.taken) for fee in fees)
        records = cdr.fee_records(draft, told, catalogue.edition)
        return make_plan(draft, OPERATION, (reason, subscriber.subscriber_id), None, records)

    await store.commit(account_id, step)
    return fees


async def bring_all_up_to_date(
    store: Store,
    catalogue: Catalogue,
    subscribers: Iterable[Subscriber],
    now_ms: int,
    reason: str,
    *,
    paid: bool = False,
) -> None:
    """The same for many. What the ledger refuses of one is told in the log. Raises StoreError."""
    if not concern(catalogue):
        return
    waiting = list(subscribers)
    for at in range(0, len(waiting), AT_ONCE):
        page = waiting[at : at + AT_ONCE]
        results = await asyncio.gather(
            *(bring_up_to_date(store, catalogue, each, now_ms, reason, paid=paid) for each in page),
            return_exceptions=True,
        )
        for subscriber, result in zip(page, results, strict=True):
            if isinstance(result, LedgerError):
                log.warning("subscriber %r has not all that its plan includes: %s", subscriber.subscriber_id, result)
            elif isinstance(result, BaseException):
                raise result
