"""What bulk imports and exports need of the ledger: accounts with their past, many members at once, the import's trace.

An account is entered as it was elsewhere, in whatever state and with whatever debt its credit limit allows, in one plan
with all that belongs to it. The journal names the import and each row that a change was made from, so that an import
that was cut off, and is repeated, can tell what it did itself from what others did since.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from balance.accounts import Account
from balance.closing import closed_until
from balance.directory import SCAN_COUNT, check_reference
from balance.journal import entries, last_entry_id, position, read_record
from balance.ledger import Draft
from balance.model import MAIN_BUCKET, UNLIMITED, AccountKind, Bucket, LedgerError, LifeState, Subscriber, Unit
from balance.resp import StoreError
from balance.store import Store
from balance.structure import add_member
from balance.subscribers import check_name, note, write_subscriber

IMPORT: Final = "import"
"""Operation of the journal: what an import entered or changed."""

ADD_MEMBER: Final = "subscriber-add"


# -- accounts ----------------------------------------------------------------------------------------------------------


def open_account(
    account_id: bytes,
    kind: int,
    currency: int,
    now_ms: int,
    *,
    balance_micro: int = 0,
    credit_limit_micro: int = 0,
    state: int = LifeState.ACTIVE,
    expires_ms: int = 0,
    cycle_day: int = 1,
) -> Draft:
    """A new account with its main bucket, as it was elsewhere; further buckets are for the caller to add.

    An account may begin with a debt within its credit limit. What has expired already is left to supervision.
    Raises LedgerError for what the ledger could not have come to itself.
    """
    check_name("account", account_id)
    if not 1 <= currency <= 999:
        raise LedgerError(f"currency must be a numeric code of ISO 4217, 1 to 999, not {currency}")
    check_terms(kind, credit_limit_micro, state, expires_ms)
    if balance_micro < -credit_limit_micro:
        below = "deeper in debt than its credit limit" if credit_limit_micro else "below zero without a credit limit"
        raise LedgerError(f"an account cannot be {below}")
    if balance_micro > UNLIMITED:
        raise LedgerError(f"a balance can be {UNLIMITED} micro-units at most")
    account = Account(account_id, 0, kind, currency, credit_limit_micro, 0, [], {}, state, expires_ms)
    account.cycle_day = cycle_day
    draft = Draft(account, now_ms)
    draft.add(Bucket(MAIN_BUCKET, int(Unit.MONEY), balance_micro))
    return draft


def check_terms(kind: int, credit_limit_micro: int, state: int, expires_ms: int) -> None:
    """Raises LedgerError for what an account of a kind cannot have."""
    if not 0 <= credit_limit_micro <= UNLIMITED:
        raise LedgerError(f"a credit limit must not be negative, nor more than {UNLIMITED} micro-units")
    if kind != AccountKind.PREPAID and expires_ms:
        raise LedgerError("only prepaid accounts expire")
    if kind != AccountKind.PREPAID and state == LifeState.GRACE:
        raise LedgerError("only prepaid accounts can be in grace")


# -- subscribers -------------------------------------------------------------------------------------------------------


async def add_members(
    store: Store, subscribers: Sequence[Subscriber], now_ms: int, reason: str
) -> list[LedgerError | None]:
    """Enter subscribers that are not there yet and belong to their ``account_id``, which must exist.

    For each the refusal, or None. What ``balance.structure.add_member`` does for one, with fewer questions for those
    that are active and belong to an account of no unit: who pays for these is known. Raises StoreError.
    """
    units = await _units_of(store, subscribers)
    simple = [unit is None and each.state == LifeState.ACTIVE for each, unit in zip(subscribers, units, strict=True)]
    results = await asyncio.gather(
        *(
            _add_simple(store, each, now_ms, reason) if alone else _add(store, each, now_ms, reason)
            for each, alone in zip(subscribers, simple, strict=True)
        )
    )
    # A unit may have been made of the account meanwhile, unaware of somebody who was not there yet.
    for at, unit in enumerate(await _units_of(store, subscribers)):
        if simple[at] and unit is not None and results[at] is None:
            results[at] = await _add(store, subscribers[at], now_ms, reason)
    return results


async def _units_of(store: Store, subscribers: Sequence[Subscriber]) -> list[bytes | None]:
    units: list[bytes | None] = await store.call("MGET", *(store.keys.unit_of(each.account_id) for each in subscribers))
    return units


async def _add_simple(store: Store, subscriber: Subscriber, now_ms: int, reason: str) -> LedgerError | None:
    try:
        if not await write_subscriber(store, None, subscriber):
            return LedgerError(f"subscriber {subscriber.subscriber_id.decode()} was added by somebody else just now")
    except LedgerError as error:
        return error
    what = (reason, subscriber.subscriber_id, f"plan {subscriber.plan}")
    await note(store, subscriber.account_id, ADD_MEMBER, what, now_ms)
    return None


async def _add(store: Store, subscriber: Subscriber, now_ms: int, reason: str) -> LedgerError | None:
    try:
        await add_member(store, subscriber, now_ms, reason)
    except LedgerError as error:
        return error
    return None


async def subscribers_in_store(store: Store) -> AsyncIterator[list[bytes]]:
    """The names of all subscribers, a page at a time, by SCAN: in no order, some perhaps twice. Raises StoreError."""
    async for found in store.scan(store.keys.subscriber(b"*"), SCAN_COUNT):
        yield [store.keys.subscriber_of(key) for key in found]


# -- the trace of an import --------------------------------------------------------------------------------------------

Positions = dict[int, bytes]
"""An entry of the journal for each lane."""


@dataclass(slots=True)
class Trace:
    """What the journal says of one import, over a stretch of it."""

    changes: int = 0
    """Records of the import itself."""
    by_bucket: Counter[int] = field(default_factory=Counter)
    """What these added, by number of the bucket."""
    others: int = 0
    """Records of anything else."""


async def journal_ends(store: Store) -> Positions:
    """Where the journals end now. Raises StoreError."""
    return {lane: await last_entry_id(store, lane) for lane in store.keys.lanes()}


async def begin_import(store: Store, reference: str, now_at: Positions) -> Positions:
    """Note where the journals were when the import of that reference was begun for the first time: there it tells.

    Raises LedgerError for what cannot be a reference, StoreError.
    """
    check_reference(reference)
    key = import_key(reference)
    for lane, entry_id in now_at.items():
        await store.call("HSETNX", key, lane, entry_id)
    return await import_begun(store, reference)


async def import_begun(store: Store, reference: str) -> Positions:
    """Where the journals were then; nothing for a reference that was never used. Raises StoreError."""
    found = await store.call("HGETALL", import_key(reference))
    return {int(found[at]): bytes(found[at + 1]) for at in range(0, len(found), 2)}


def import_key(reference: str) -> bytes:
    return b"import:" + reference.encode()


async def rows_imported(
    store: Store, reference: str, since: Positions, accounts: Collection[bytes]
) -> dict[bytes, Counter[str]]:
    """The digests of the rows that an import has made changes from, for the accounts in question.

    Raises StoreError.
    """
    for lane, begun in since.items():
        if position(begun) < position(await closed_until(store, lane)):
            raise StoreError(
                f"import {reference} first began so long ago that what it did has left the journal (journal.keep_days);"
                " it cannot be told any more which of its rows are in: check them, and import the rest under a new "
                "reference"
            )
    found: dict[bytes, Counter[str]] = {}
    mark = reference.encode()
    for lane, begun in since.items():
        async for page in entries(store, lane, begun, await last_entry_id(store, lane)):
            for entry_id, records in page:
                for packed in records:
                    if mark not in packed:
                        continue
                    record = read_record(entry_id, packed)
                    if record.account_id in accounts and _is_of(record.operation, record.reason, reference):
                        digests = record.reason[2].split()
                        found.setdefault(record.account_id, Counter()).update(digests)
    return found


def _is_of(operation: str, reason: tuple[Any, ...], reference: str) -> bool:
    return operation == IMPORT and len(reason) == 3 and reason[0] == reference


async def trace(store: Store, reference: str, since: Positions) -> Trace:
    """What the journal says of an import from some moment on. Raises StoreError."""
    found = Trace()
    for lane, begun in since.items():
        async for page in entries(store, lane, begun, await last_entry_id(store, lane)):
            for entry_id, records in page:
                for packed in records:
                    try:
                        record = read_record(entry_id, packed)
                    except StoreError:
                        found.others += 1
                        continue
                    if _is_of(record.operation, record.reason, reference):
                        found.changes += 1
                        for change in record.changes:
                            found.by_bucket[change.bucket_id] += change.balance_delta
                    elif not record.reason or record.reason[0] != reference:
                        found.others += 1
    return found
