"""Transfers of money between two accounts, which no script call can write together in every store.

A transfer is entered in a list, then the first account is debited, then the second credited, each once for the
transfer's reference, then it is struck off the list. Cut off in between, it stays in the list, with the money on its
way; the same call repeated takes up where the first one stopped. What its postings came to is remembered until it is
finished, however long that takes, and from then on for as long as any reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack

from balance.directory import (
    REFERENCE_TTL_MS,
    Once,
    Posting,
    check_reference,
    come_back,
    existing,
    post,
    posting_key,
    read_accounts,
    take,
)
from balance.ledger import Draft, top_up
from balance.model import MAIN_BUCKET, AccountKind, Bucket, LedgerError, LifeState
from balance.resp import StoreError
from balance.store import Store
from balance.subscribers import check_reason

TRANSFER_OUT: Final = "transfer-out"
TRANSFER_IN: Final = "transfer-in"

UNFINISHED_TTL_MS: Final = 100 * 366 * 86_400_000
"""How long the postings of a transfer that is not finished are remembered."""

_SCRIPT: Final = (Path(__file__).parent / "scripts" / "transfer.lua").read_text(encoding="utf-8")


@dataclass(slots=True, frozen=True)
class Transfer:
    """What is to be moved, and why."""

    reference: str
    """Names it among those of the first account."""
    from_id: bytes
    to_id: bytes
    amount_micro: int
    at_ms: int
    """When it was asked for first."""
    reason: str


@dataclass(slots=True, frozen=True)
class Transferred:
    """What a transfer came to."""

    debit: Posting
    credit: Posting

    @property
    def repeated(self) -> bool:
        """It was finished before; nothing was changed."""
        return self.debit.repeated and self.credit.repeated


@dataclass(slots=True, frozen=True)
class Unfinished:
    """A transfer that was cut off, and how far it had come."""

    transfer: Transfer
    debited: bool
    credited: bool


async def transfer_money(
    store: Store,
    from_id: bytes,
    to_id: bytes,
    amount_micro: int,
    *,
    now_ms: int,
    reason: str,
    reference: str,
    valid_for_ms: int = 0,
) -> Transferred:
    """Move money from the main bucket of one account to that of another, once for a reference of the first account.

    No more than is free in the main bucket is moved: of a postpaid account, within its credit limit; of a prepaid one,
    what it has above zero, whatever its overdraft. The first account must be active, the second not terminated. To the
    second it is a top-up: see ``balance.directory.top_up_account`` for ``valid_for_ms``.

    Raises LedgerError if it cannot be, and nothing is moved then; StoreError, when it may be half done: the same call
    repeated completes it.
    """
    check_reference(reference)
    check_reason(reason)
    if amount_micro <= 0:
        raise LedgerError(f"a transfer must be of more than nothing, not {amount_micro}")
    transfer = Transfer(reference, from_id, to_id, amount_micro, now_ms, reason)
    try:
        if not await _enter(store, transfer):
            await _check_accounts(store, transfer)
        debit = await _debit(store, transfer, now_ms)
    except LedgerError:
        await _list(store, transfer, b"")
        raise
    if not debit.repeated:
        # Another call of the same transfer may have been refused meanwhile and have struck it off.
        await store.call("HSETNX", _unfinished(store, transfer), _field(transfer), _pack(transfer))
    credit = await _credit(store, transfer, now_ms, valid_for_ms)
    # Off the list before its postings are forgotten: what the list has can be repeated at any time.
    await store.call("HDEL", _unfinished(store, transfer), _field(transfer))
    # The debit last: it is what a repeat is known by.
    for key in reversed(_postings(store, transfer)):
        await store.call("PEXPIRE", key, REFERENCE_TTL_MS)
    return Transferred(debit, credit)


async def unfinished_transfers(store: Store) -> list[Unfinished]:
    """Transfers that were cut off, or are under way, the oldest first. Raises StoreError."""
    found = []
    values: list[bytes] = []
    for lane in store.keys.lanes():
        values += await store.call("HVALS", store.keys.transfers(lane))
    for transfer in sorted((_unpack(value) for value in values), key=lambda each: (each.at_ms, each.reference)):
        debited, credited = [bool(await store.call("EXISTS", key)) for key in _postings(store, transfer)]
        found.append(Unfinished(transfer, debited, credited))
    return found


async def _enter(store: Store, transfer: Transfer) -> bool:
    """Put a transfer into the list, unless it is there or finished; whether it has been debited.

    Raises LedgerError if the reference stands for another transfer that is not finished, StoreError.
    """
    stage, value = await _list(store, transfer, _pack(transfer))
    if value:
        known = _unpack(value)
        if (known.to_id, known.amount_micro) != (transfer.to_id, transfer.amount_micro):
            raise LedgerError(
                f"reference {transfer.reference} stands for a transfer of {known.amount_micro} to account "
                f"{known.to_id.decode()} that is not finished; nothing was changed"
            )
    return stage in (b"debited", b"finished")


async def _list(store: Store, transfer: Transfer, value: bytes) -> tuple[bytes, bytes]:
    debit, _ = _postings(store, transfer)
    stage, known = await store.run_script(_SCRIPT, [_unfinished(store, transfer), debit], _field(transfer), value)
    return bytes(stage), bytes(known)


async def _check_accounts(store: Store, transfer: Transfer) -> None:
    """Everything that could keep the money from arriving, before it leaves."""
    if transfer.from_id == transfer.to_id:
        raise LedgerError("a transfer goes from one account to another")
    found = await read_accounts(store, [transfer.from_id, transfer.to_id])
    source, target = (
        existing(each, name) for each, name in zip(found, (transfer.from_id, transfer.to_id), strict=True)
    )
    if source.currency != target.currency:
        raise LedgerError(
            f"accounts {source.account_id.decode()} and {target.account_id.decode()} are in different currencies"
        )
    if target.state == LifeState.TERMINATED:
        raise LedgerError(f"account {target.account_id.decode()} is terminated and takes no money")
    top_up(Draft(target, transfer.at_ms), transfer.amount_micro)


async def _debit(store: Store, transfer: Transfer, now_ms: int) -> Posting:
    def change(draft: Draft, bucket: Bucket) -> None:
        state = LifeState(draft.account.state)
        if state != LifeState.ACTIVE:
            raise LedgerError(f"account {transfer.from_id.decode()} is {state.name.lower()}, so no money leaves it")
        if draft.account.kind == AccountKind.PREPAID:
            _check_own_money(draft, bucket, transfer.amount_micro)
        take(draft, bucket, transfer.amount_micro)

    return await _post(store, transfer, transfer.from_id, -transfer.amount_micro, change, now_ms)


def _check_own_money(draft: Draft, bucket: Bucket, amount_micro: int) -> None:
    """An overdraft is lent for services, not paid out: it would be a present to whoever else the money goes to."""
    own_micro = max(0, bucket.balance - bucket.reserved)
    if amount_micro > own_micro:
        name = draft.account.account_id.decode()
        lent = "; its overdraft is for services alone" if draft.account.credit_limit_micro else ""
        raise LedgerError(
            f"bucket {bucket.bucket_id} of account {name} can give {own_micro} micro-units, which is less than "
            f"{amount_micro}{lent}"
        )


async def _credit(store: Store, transfer: Transfer, now_ms: int, valid_for_ms: int) -> Posting:
    def change(draft: Draft, bucket: Bucket) -> None:
        # Whatever has become of the account meanwhile: the money has left the other one.
        top_up(draft, transfer.amount_micro, bucket.bucket_id)
        come_back(draft, valid_for_ms)

    return await _post(store, transfer, transfer.to_id, transfer.amount_micro, change, now_ms)


async def _post(
    store: Store,
    transfer: Transfer,
    account_id: bytes,
    amount_micro: int,
    change: Callable[[Draft, Bucket], None],
    now_ms: int,
) -> Posting:
    out = amount_micro < 0
    told = f"to {transfer.to_id.decode()}" if out else f"from {transfer.from_id.decode()}"
    once = Once(transfer.reference, _keys(transfer)[0 if out else 1], UNFINISHED_TTL_MS, told)
    return await post(
        store,
        account_id,
        TRANSFER_OUT if out else TRANSFER_IN,
        MAIN_BUCKET,
        amount_micro,
        change,
        now_ms=now_ms,
        why=(transfer.reason, transfer.reference, told),
        once=once,
    )


def _unfinished(store: Store, transfer: Transfer) -> bytes:
    """The list, which is with the account that pays."""
    return store.keys.transfers(store.keys.lane(transfer.from_id))


def _field(transfer: Transfer) -> bytes:
    return transfer.from_id + b":" + transfer.reference.encode()


def _keys(transfer: Transfer) -> tuple[bytes, bytes]:
    """Under which names debit and credit are remembered; both name the account whose reference it is."""
    return (
        posting_key(TRANSFER_OUT, transfer.from_id, transfer.reference),
        posting_key(TRANSFER_IN, transfer.from_id, transfer.reference),
    )


def _postings(store: Store, transfer: Transfer) -> tuple[bytes, bytes]:
    """Where the store keeps what debit and credit came to."""
    debit, credit = _keys(transfer)
    return store.keys.ended(transfer.from_id, debit), store.keys.ended(transfer.to_id, credit)


def _pack(transfer: Transfer) -> bytes:
    packed: bytes = msgpack.packb(
        (
            transfer.reference,
            transfer.from_id,
            transfer.to_id,
            transfer.amount_micro,
            transfer.at_ms,
            transfer.reason,
        )
    )
    return packed


def _unpack(value: bytes) -> Transfer:
    try:
        return Transfer(*msgpack.unpackb(value, raw=False))
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise StoreError(f"a transfer in the list of those not finished is damaged: {error}") from error
