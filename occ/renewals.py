"""What the clock does to an account without a request: fees fall due, allowances are renewed, prepaid accounts expire.

Pure, on a draft. The catalogue says what an offer costs and gives; the account only knows that it has it and when it is
due (``balance.model.Offer``). A fee is taken whole or not at all. What cannot be paid gives nothing: it is tried again
when the offer says so, or as soon as somebody pays.
"""

import logging
from dataclasses import dataclass
from typing import Final

from balance.ledger import Draft, add_bucket, charge_fee
from balance.model import UNLIMITED, Account, AccountKind, Bucket, LedgerError, LifeState, Offer, Unit
from occ.rating.allowances import Allowance, Bonus
from occ.rating.catalogue import Catalogue
from occ.rating.offers import Offer as Sold
from occ.rating.offers import prorated_fee, prorated_units

log = logging.getLogger("occ.renewals")

OFFERS_AN_ACCOUNT: Final = 64
PERIODS_AT_ONCE: Final = 400
"""Periods of one offer that are caught up with in one operation, after a long standstill."""


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee that was taken, for its charging data record."""

    offer: str
    owner: bytes
    amount_micro: int
    from_ms: int
    """The beginning of the period it is for."""
    taken: tuple[int, ...] = ()
    """What of it was taken from buckets beside the main one, as in ``ServiceUse.taken``."""


def take_offer(draft: Draft, catalogue: Catalogue, name: str, owner: bytes = b"") -> Fee | None:
    """Give the account an offer from now on, paid for its first period; the fee, if there was one.

    Raises LedgerError if there is no such offer, the account has it already, or its fee cannot be paid.
    """
    sold = catalogue.offer(name)
    if sold is None:
        raise LedgerError(f"the catalogue has no offer {name}")
    account = draft.account
    if any(offer.name == name and offer.owner == owner for offer in account.offers):
        raise LedgerError(f"account {account.account_id.decode()} has the offer {name} already")
    if len(account.offers) >= OFFERS_AN_ACCOUNT:
        raise LedgerError(f"account {account.account_id.decode()} has {OFFERS_AN_ACCOUNT} offers, which is the most")
    offer = Offer(name, draft.now_ms, draft.now_ms, owner)
    account.offers = [*account.offers, offer]
    fee = _renew(draft, catalogue, offer, sold)
    if offer.unpaid_ms:
        raise LedgerError(f"the fee of {name} cannot be paid from account {account.account_id.decode()}")
    return fee


def drop_offer(draft: Draft, name: str, owner: bytes = b"") -> None:
    """Take an offer off the account: what it gave stays until it expires. Raises LedgerError if it has none."""
    account = draft.account
    left = [offer for offer in account.offers if (offer.name, offer.owner) != (name, owner)]
    if len(left) == len(account.offers):
        raise LedgerError(f"account {account.account_id.decode()} has no offer {name}")
    account.offers = left


def renew_due(draft: Draft, catalogue: Catalogue) -> list[Fee]:
    """Charge and renew all offers of the account that are due; the fees that were taken."""
    fees: list[Fee] = []
    for index, known in enumerate(draft.account.offers):
        if not known.next_ms or known.next_ms > draft.now_ms:
            continue
        offer = draft.offer(index)
        sold = catalogue.offer(offer.name)
        if sold is None:
            log.warning("account %r has the offer %s, which is sold no more", draft.account.account_id, offer.name)
            offer.next_ms = 0
            continue
        for _ in range(PERIODS_AT_ONCE):
            fee = _renew(draft, catalogue, offer, sold)
            if fee is not None:
                fees.append(fee)
            if not offer.next_ms or offer.next_ms > draft.now_ms:
                break
    return fees


def _renew(draft: Draft, catalogue: Catalogue, offer: Offer, sold: Sold) -> Fee | None:
    """One period of an offer: take the fee, give what comes with it, note when the next one begins."""
    due_ms = offer.unpaid_ms or offer.next_ms
    first = due_ms == offer.since_ms
    share = sold.first_share(offer.since_ms, catalogue.calendar) if first else None
    fee_micro = sold.fee_micro if share is None else prorated_fee(sold.fee_micro, share)
    taken = charge_fee(draft, fee_micro)
    if taken is None:
        offer.unpaid_ms = due_ms
        offer.next_ms = draft.now_ms + sold.retry_s * 1000 if sold.retry_s else 0
        return None
    if offer.unpaid_ms and sold.next_ms(offer.since_ms, due_ms, catalogue.calendar) <= draft.now_ms:
        # Paid late: nobody was served meanwhile, so the period begins now and those missed are not asked for.
        due_ms = draft.now_ms
    offer.unpaid_ms = 0
    offer.next_ms = sold.next_ms(offer.since_ms, due_ms, catalogue.calendar)
    for name in sold.gives:
        given = catalogue.allowance(name) or catalogue.bonus(name)
        if given is not None:
            units = given.units if isinstance(given, Allowance) else given.amount_micro
            if share is not None:
                units = prorated_units(units, share)
            _give(draft, catalogue, given, units, offer, due_ms)
    return Fee(offer.name, offer.owner, fee_micro, due_ms, taken) if fee_micro else None


def _give(draft: Draft, catalogue: Catalogue, given: Allowance | Bonus, units: int, offer: Offer, from_ms: int) -> None:
    """Fill the bucket of an allowance anew, with what it may keep of the old; a bonus adds to what is left."""
    owner = b"" if isinstance(given, Allowance) and given.shared else offer.owner
    expires_ms = given.validity.ends_ms(from_ms, catalogue.calendar, offer.next_ms)
    if expires_ms and expires_ms <= draft.now_ms:
        return  # of a period that is over already
    bucket = _bucket(draft.account, given.name, owner)
    if bucket is None:
        unit = given.unit if isinstance(given, Allowance) else Unit.MONEY
        add_bucket(draft, unit, units, given.priority, expires_ms, given.name, owner)
        return
    left = max(0, bucket.balance - bucket.reserved)
    if bucket.expires_ms and bucket.expires_ms < from_ms:
        left = 0
    kept = min(left, given.rollover_units if isinstance(given, Allowance) else UNLIMITED)
    # What sessions hold of the old is theirs still.
    bucket.balance = min(bucket.reserved + kept + units, UNLIMITED)
    bucket.expires_ms, bucket.priority = expires_ms, given.priority


def _bucket(account: Account, name: str, owner: bytes) -> Bucket | None:
    for bucket in account.buckets:
        if bucket.name == name and bucket.owner == owner:
            return bucket
    return None


def end_of_life(draft: Draft, grace_ms: int) -> LifeState | None:
    """Put an account whose time has come into grace, or terminate it when that is over; its new state, None: none.

    Only prepaid accounts expire. Money that is left stays on the books.
    """
    account = draft.account
    if not account.expires_ms or account.expires_ms > draft.now_ms or account.kind != AccountKind.PREPAID:
        return None
    if account.state == LifeState.GRACE or not grace_ms:
        account.state, account.expires_ms = int(LifeState.TERMINATED), 0
        return LifeState.TERMINATED
    if account.state == LifeState.TERMINATED:
        account.expires_ms = 0
        return None
    account.state = int(LifeState.GRACE)
    account.expires_ms += grace_ms
    return LifeState.GRACE
