"""What the clock does to an account without a request: fees fall due, allowances are renewed, prepaid accounts expire.

Pure, on a draft. The catalogue says what an offer costs and gives; the account only knows that it has it and when it is
due (``balance.model.Offer``). A fee is taken whole or not at all. What cannot be paid gives nothing: it is tried again
when the offer says so, or as soon as somebody pays.

A period that is not whole, because the offer began or was paid in the midst of it, costs and gives its share by days if
the offer is prorated. If such an offer ends in the midst of a period, the share of the days from that one on is given
back, yet no more than the share of what it gave that nobody has used or reserved, and what it gave ends with it; what
any other offer gave stays until it expires.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from balance.accounts import Account
from balance.fees import charge_fee, give_back_fee
from balance.ledger import Draft, add_bucket
from balance.model import UNLIMITED, AccountKind, Bucket, LedgerError, LifeState, Offer, Subscriber, Unit
from occ.rating.allowances import Allowance, Bonus
from occ.rating.catalogue import Catalogue
from occ.rating.local_time import Calendar
from occ.rating.offers import Offer as Sold
from occ.rating.offers import Share, prorated_fee, prorated_units

log = logging.getLogger("occ.renewals")

OFFERS_AN_ACCOUNT: Final = 1024
"""More would make the account's value, which every request writes, too long: lines need accounts of their own then."""
PERIODS_AT_ONCE: Final = 400
"""Periods of one offer that are caught up with in one operation, after a long standstill."""
LOYALTY_OF: Final = "loyalty:"
"""What the name of an offer begins with that is none of the catalogue's: it stands for a bonus for staying
(``occ.loyalty``)."""

Owners = Mapping[bytes, Subscriber | None]
"""Subscribers by name, None for those that are gone."""


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee that was taken, for its charging data record; below zero: given back."""

    offer: str
    owner: bytes
    amount_micro: int
    from_ms: int
    """The beginning of the period it is for, or the moment from which on it was given back."""
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
    offer = Offer(name, draft.now_ms, draft.now_ms, owner)
    add_offer(draft, offer)
    fee = _renew(draft, catalogue, offer, sold)
    if offer.unpaid_ms:
        raise LedgerError(f"the fee of {name} cannot be paid from account {account.account_id.decode()}")
    return fee


def add_offer(draft: Draft, offer: Offer) -> None:
    """Raises LedgerError for more offers than an account can have."""
    account = draft.account
    if len(account.offers) >= OFFERS_AN_ACCOUNT:
        raise LedgerError(f"account {account.account_id.decode()} has {OFFERS_AN_ACCOUNT} offers, which is the most")
    draft.own_offers().append(offer)


def drop_offer(draft: Draft, name: str, owner: bytes = b"") -> None:
    """Take an offer off the account: what it gave stays until it expires. Raises LedgerError if it has none."""
    account = draft.account
    left = [offer for offer in draft.own_offers() if (offer.name, offer.owner) != (name, owner)]
    if len(left) == len(account.offers):
        raise LedgerError(f"account {account.account_id.decode()} has no offer {name}")
    account.offers = left


def owners_due(account: Account, now_ms: int) -> set[bytes]:
    """Subscribers that have to be looked at to know what is due: their plans, and since when they have been active."""
    return {
        offer.owner
        for offer in account.offers
        if (offer.plan or offer.name.startswith(LOYALTY_OF)) and 0 < offer.next_ms <= now_ms
    }


def renew_due(draft: Draft, catalogue: Catalogue, owners: Owners | None = None) -> list[Fee]:
    """Charge and renew all offers of the account that are due, end those whose time has come; the fees.

    ``owners``: those of ``owners_due``; an offer of a plan that its subscriber has no more is not renewed. None: they
    are taken to have it.
    """
    fees: list[Fee] = []
    account = draft.account
    if account.state == LifeState.TERMINATED:
        account.offers = []
        return fees
    if not any(_needs_attention(offer, draft.now_ms) for offer in account.offers):
        return fees
    for offer in list(draft.own_offers()):
        if not _needs_attention(offer, draft.now_ms):
            continue
        is_due = 0 < offer.next_ms <= draft.now_ms
        sold = catalogue.offer(offer.name)
        if sold is None:
            log.warning("account %r has the offer %s, which is sold no more", account.account_id, offer.name)
            offer.next_ms = 0
        elif is_due and not _still_has(account, catalogue, offer, owners):
            offer.until_ms = offer.next_ms
        elif is_due:
            fees += _catch_up(draft, catalogue, offer, sold)
        if 0 < offer.until_ms <= draft.now_ms:
            fees += end_offer(draft, catalogue, offer, offer.until_ms)
    return fees


def _needs_attention(offer: Offer, now_ms: int) -> bool:
    due = 0 < offer.next_ms <= now_ms or 0 < offer.until_ms <= now_ms
    return due and not offer.name.startswith(LOYALTY_OF)


def _still_has(account: Account, catalogue: Catalogue, offer: Offer, owners: Owners | None) -> bool:
    """Whether the subscriber of an offer that came with a plan has that plan, and this account pays."""
    if not offer.plan or owners is None or offer.owner not in owners:
        return True
    subscriber = owners[offer.owner]
    if subscriber is None or subscriber.account_id != account.account_id or subscriber.state == LifeState.TERMINATED:
        return False
    return offer.name in catalogue.includes(subscriber.plan_at(offer.next_ms))


def _catch_up(draft: Draft, catalogue: Catalogue, offer: Offer, sold: Sold) -> list[Fee]:
    """All periods that have begun, up to the offer's end."""
    fees: list[Fee] = []
    for _ in range(PERIODS_AT_ONCE):
        if not 0 < offer.next_ms <= draft.now_ms or 0 < offer.until_ms <= offer.next_ms:
            break
        fee = _renew(draft, catalogue, offer, sold)
        if fee is not None:
            fees.append(fee)
    return fees


def begin_offer(draft: Draft, catalogue: Catalogue, offer: Offer) -> list[Fee]:
    """The first period of an offer that the account has from now on, paid or not; the fee, if it was taken."""
    sold = catalogue.offer(offer.name)
    fee = None if sold is None else _renew(draft, catalogue, offer, sold)
    return [] if fee is None else [fee]


def end_offer(draft: Draft, catalogue: Catalogue, offer: Offer, at_ms: int) -> list[Fee]:
    """Take an offer off the account at a moment of its running period; what is given back, if anything is."""
    account = draft.account
    account.offers = [each for each in account.offers if each is not offer]
    sold = catalogue.offer(offer.name)
    runs = not offer.unpaid_ms and offer.since_ms <= at_ms < offer.next_ms
    if sold is None or not sold.prorated or not runs:
        return []
    days = _paid_days_left(sold, offer, at_ms, catalogue.calendar, account.cycle_day)
    amount_micro = prorated_fee(offer.paid_micro, days)
    for bucket, given in _filled(draft, catalogue, sold, offer, days.days):
        unused = 0 if bucket is None else min(_unused(bucket, at_ms), given)
        if given:
            amount_micro = min(amount_micro, offer.paid_micro * unused // given)
        if bucket is not None:
            _end_bucket(bucket, at_ms)
    if not amount_micro:
        return []
    give_back_fee(draft, amount_micro)
    return [Fee(offer.name, offer.owner, -amount_micro, at_ms)]


def _paid_days_left(sold: Sold, offer: Offer, at_ms: int, calendar: Calendar, cycle_day: int) -> Share:
    """How many days, that of ``at_ms`` among them, are left of those that were paid for.

    By the days of the period as it was paid, whatever the cycle day is by now.
    """
    last = calendar.day_of(offer.next_ms)
    left = max(1, (last - calendar.day_of(at_ms)).days)
    if offer.paid_from_ms:
        paid = max(1, (last - calendar.day_of(offer.paid_from_ms)).days)
    elif offer.next_ms == sold.next_ms(offer.since_ms, offer.since_ms, calendar, cycle_day):
        paid = sold.first_share(offer.since_ms, calendar, cycle_day).days_left
    else:
        paid = sold.share_left(offer.since_ms, at_ms, calendar, cycle_day).days
    return Share(min(left, paid), paid)


def _filled(
    draft: Draft, catalogue: Catalogue, sold: Sold, offer: Offer, paid_days: int
) -> list[tuple[Bucket | None, int]]:
    """The buckets that an offer has filled for the period that runs, and what it gave into each; None: it is not there.

    Of a period that an earlier release or another system charged, it is what the catalogue gives now.
    """
    account = draft.account
    if offer.paid_from_ms or not offer.paid_micro:
        given = offer.given or (0,) * len(offer.buckets)
        return [(account.bucket(number), units) for number, units in zip(offer.buckets, given, strict=True)]
    days = sold.share_left(offer.since_ms, offer.next_ms - 1, catalogue.calendar, account.cycle_day).days
    share = Share(min(paid_days, days), days)
    found: list[tuple[Bucket | None, int]] = []
    for name in sold.gives:
        gift = catalogue.allowance(name) or catalogue.bonus(name)
        if gift is not None:
            owner = b"" if isinstance(gift, Allowance) and gift.shared else offer.owner
            units = prorated_units(_units(gift), share)
            found.append((_bucket(account, name, owner, offer), units))
    return found


def _unused(bucket: Bucket, at_ms: int) -> int:
    """What nobody has used or reserved, and has not expired."""
    return 0 if 0 < bucket.expires_ms <= at_ms else max(0, bucket.balance - bucket.reserved)


def _end_bucket(bucket: Bucket, at_ms: int) -> None:
    """Leave of a bucket what sessions hold, and only for them."""
    bucket.balance = min(bucket.balance, bucket.reserved)
    if not 0 < bucket.expires_ms <= at_ms:
        bucket.expires_ms = at_ms


def _renew(draft: Draft, catalogue: Catalogue, offer: Offer, sold: Sold) -> Fee | None:
    """One period of an offer: take the fee, give what comes with it, note when the next one begins."""
    calendar, cycle_day = catalogue.calendar, draft.account.cycle_day
    due_ms = offer.unpaid_ms or offer.next_ms
    from_ms = due_ms
    if offer.unpaid_ms and sold.next_ms(offer.since_ms, due_ms, calendar, cycle_day) <= draft.now_ms:
        # Paid late: nobody was served meanwhile, so the period begins now and those missed are not asked for.
        from_ms = draft.now_ms
    share = sold.share_left(offer.since_ms, from_ms, calendar, cycle_day) if sold.prorated else None
    fee_micro = sold.fee_micro if share is None else prorated_fee(sold.fee_micro, share)
    taken = charge_fee(draft, fee_micro)
    if taken is None:
        offer.unpaid_ms = due_ms
        offer.next_ms = draft.now_ms + sold.retry_s * 1000 if sold.retry_s else 0
        return None
    offer.unpaid_ms = 0
    offer.paid_micro, offer.paid_from_ms = fee_micro, from_ms
    offer.next_ms = sold.next_ms(offer.since_ms, from_ms, calendar, cycle_day)
    filled: list[tuple[int, int]] = []
    for name in sold.gives:
        given = catalogue.allowance(name) or catalogue.bonus(name)
        if given is not None:
            units = _units(given) if share is None else prorated_units(_units(given), share)
            filled += [(number, units) for number in _give(draft, catalogue, given, units, offer, from_ms)]
    offer.buckets = tuple(number for number, _ in filled)
    offer.given = tuple(units for _, units in filled)
    return Fee(offer.name, offer.owner, fee_micro, from_ms, taken) if fee_micro else None


def _units(given: Allowance | Bonus) -> int:
    """What a whole period gives of it, in its unit; of a bonus micro-units."""
    return given.units if isinstance(given, Allowance) else given.amount_micro


def _give(
    draft: Draft, catalogue: Catalogue, given: Allowance | Bonus, units: int, offer: Offer, from_ms: int
) -> list[int]:
    """Fill the bucket of an allowance anew, with what it may keep of the old; a bonus adds to what is left.

    The number of the bucket; none if what is given has expired by now.
    """
    owner = b"" if isinstance(given, Allowance) and given.shared else offer.owner
    expires_ms = given.validity.ends_ms(from_ms, catalogue.calendar, offer.next_ms)
    if expires_ms and expires_ms <= draft.now_ms:
        return []  # of a period that is over already
    bucket = _bucket(draft.account, given.name, owner, offer)
    if bucket is None:
        unit = given.unit if isinstance(given, Allowance) else Unit.MONEY
        return [add_bucket(draft, unit, units, given.priority, expires_ms, given.name, owner).bucket_id]
    left = max(0, bucket.balance - bucket.reserved)
    if bucket.expires_ms and bucket.expires_ms < from_ms:
        left = 0
    kept = min(left, given.rollover_units if isinstance(given, Allowance) else UNLIMITED)
    # What sessions hold of the old is theirs still.
    bucket.balance = min(bucket.reserved + kept + units, UNLIMITED)
    bucket.expires_ms, bucket.priority = expires_ms, given.priority
    return [bucket.bucket_id]


def _bucket(account: Account, name: str, owner: bytes, offer: Offer) -> Bucket | None:
    """The bucket of that name which an offer fills: its own, or one that no other offer does.

    Several subscribers of an account may have the same shared allowance: each adds a bucket, all may spend it.
    """
    others = {number for each in account.offers if each is not offer for number in each.buckets}
    found = [bucket for bucket in account.buckets if bucket.name == name and bucket.owner == owner]
    for bucket in found:
        if bucket.bucket_id in offer.buckets:
            return bucket
    return next((bucket for bucket in found if bucket.bucket_id not in others), None)


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
