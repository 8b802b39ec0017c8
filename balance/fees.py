"""Fees that no request asks for, and what is given back of them and of direct debits. Pure, as ``balance.ledger``."""

from typing import Final

from balance.accounts import ServiceUse
from balance.ledger import Draft, took
from balance.model import MAIN_BUCKET, LedgerError, Rate, Unit

_MONEY: Final = int(Unit.MONEY)


def charge_fee(draft: Draft, amount_micro: int) -> tuple[int, ...] | None:
    """Debit a fee that no request asks for, such as a rental; None, and nothing, if it cannot be paid in full.

    Otherwise what was taken from buckets beside the main one, as in ``ServiceUse.taken``.
    """
    if draft.available_micro() < amount_micro:
        return None
    use = ServiceUse(-1, -1, "", int(Unit.EVENTS))
    unpaid = amount_micro
    for bucket in draft.in_order(_MONEY):
        taken = min(unpaid, draft.free(bucket))
        bucket.balance -= taken
        unpaid -= taken
        took(draft, use, bucket, taken)
    draft.debited_micro += amount_micro
    return use.taken


def give_back_fee(draft: Draft, amount_micro: int) -> None:
    """Give back part of a fee, into the main bucket: a fee is never paid with bonus money."""
    draft.bucket(MAIN_BUCKET).balance += amount_micro
    draft.refunded_micro += amount_micro


def refund(draft: Draft, use: ServiceUse, rate: Rate, units: int) -> int:
    """Give back ``units`` of what a direct debit took, each into the bucket it came from; micro-units given back.

    ``use`` is that of the debit: its ``parts`` say what was taken, its ``used`` what is not refunded yet. What was
    taken last goes back first: money before allowances. What no balance covered was not paid and is taken off before.
    Raises LedgerError for more than was debited.
    """
    if not 0 < units <= use.used:
        raise LedgerError(f"{units} units cannot be refunded of a debit of {use.used}")
    if units == use.used:
        return _refund_all(draft, use)
    in_money = min(units, use.paid_units)
    use.used -= units
    use.paid_units -= in_money
    price = rate.price_micro(use.paid_units)
    money, use.priced_micro = use.priced_micro - price, price
    leaked = min(money, use.leaked_micro)
    use.leaked_micro -= leaked
    money -= leaked
    missing = {True: money, False: units - in_money}
    parts: list[tuple[int, int]] = []
    for bucket_id, amount in reversed(use.parts):
        bucket = draft.bucket(bucket_id)
        kind = bucket.unit == _MONEY
        given = min(amount, missing[kind])
        bucket.balance += given
        missing[kind] -= given
        took(draft, use, bucket, -given)
        if amount > given:
            parts.append((bucket_id, amount - given))
    if missing[True] or missing[False]:
        raise LedgerError("more is to be refunded than was taken")  # the kept debit and its price disagree: a bug
    use.parts = parts[::-1]
    draft.refunded_micro += money
    return money


def _refund_all(draft: Draft, use: ServiceUse) -> int:
    """Give back all that is left of a debit, whatever its price was made of; micro-units given back."""
    money = 0
    for bucket_id, amount in use.parts:
        bucket = draft.bucket(bucket_id)
        bucket.balance += amount
        took(draft, use, bucket, -amount)
        if bucket.unit == _MONEY:
            money += amount
    use.parts = []
    use.used = use.paid_units = use.priced_micro = use.earlier_micro = use.leaked_micro = 0
    draft.refunded_micro += money
    return money
