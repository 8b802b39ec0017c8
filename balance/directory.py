"""Administration of accounts: create, show, top up, adjust, transfer, list.

Everything that moves money goes through the same plans, journal and commit script as charging does. A refusal is a
``LedgerError`` whose message is one sentence for the person who asked, and leaves everything as it was; a
``StoreUnavailableError`` leaves open whether the change was written, which the same call repeated finds out.
"""

import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from balance import answers
from balance.ledger import Draft, add_bucket, top_up
from balance.model import (
    MAIN_BUCKET,
    UNLIMITED,
    Account,
    AccountKind,
    LedgerError,
    Plan,
    Session,
    SessionState,
    Unit,
)
from balance.records import make_plan, unpack_account
from balance.resp import StoreError
from balance.store import ABSENT, Store
from balance.subscribers import check_name

REFERENCE_TTL_MS: Final = 7 * 86_400_000
"""How long a top-up's reference is remembered: the same one within this time counts once."""

SCAN_COUNT: Final = 500
LONGEST_REASON: Final = 200

log = logging.getLogger("balance.directory")

CREATE: Final = "create"
TOP_UP: Final = "top-up"

_REFERENCE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_ACCOUNT_KEY: Final = re.compile(rb"\{p[0-9]{4,5}\}:a:(.+)", re.DOTALL)


@dataclass(slots=True, frozen=True)
class NewBucket:
    """A bucket that an account is created with, besides its main one."""

    unit: Unit
    balance: int
    """Micro-units of money, or units of the allowance."""
    priority: int = 100
    expires_ms: int = 0
    """0: never."""


@dataclass(slots=True, frozen=True)
class TopUp:
    """What a top-up came to."""

    bucket_id: int
    amount: int
    balance_after: int
    """Balance of the bucket right after the top-up."""
    version: int
    """Version of the account that the top-up made."""
    repeated: bool
    """Its reference had been used before: this call changed nothing, the figures are those of the first one."""


async def create_account(
    store: Store,
    account_id: bytes,
    kind: AccountKind,
    currency: int,
    *,
    now_ms: int,
    reason: str,
    balance_micro: int = 0,
    credit_limit_micro: int = 0,
    buckets: Sequence[NewBucket] = (),
) -> Account:
    """Create an account with its main money bucket and ``buckets``.

    ``currency`` is an ISO 4217 numeric code. Raises LedgerError if the account exists already or a figure makes no
    sense, StoreError.
    """
    check_name("account", account_id)
    _check_reason(reason)
    if not 1 <= currency <= 999:
        raise LedgerError(f"currency must be a numeric code of ISO 4217, 1 to 999, not {currency}")
    if not 0 <= credit_limit_micro <= UNLIMITED:
        raise LedgerError(f"a credit limit must not be negative, nor more than {UNLIMITED} micro-units")
    if kind == AccountKind.PREPAID and credit_limit_micro:
        raise LedgerError("a prepaid account has no credit limit; make it postpaid, or leave the limit out")
    for bucket in buckets:
        if bucket.expires_ms and bucket.expires_ms <= now_ms:
            raise LedgerError("a bucket cannot expire before it exists")

    def step(account: Account | None, _: Session | None) -> Plan:
        if account is not None:
            raise LedgerError(f"account {account_id.decode()} exists already")
        draft = Draft(
            Account(account_id, 0, int(kind), currency, credit_limit_micro, 0, [], {}),
            now_ms,
        )
        main = add_bucket(draft, Unit.MONEY, balance_micro)
        assert main.bucket_id == MAIN_BUCKET
        for bucket in buckets:
            add_bucket(draft, bucket.unit, bucket.balance, bucket.priority, bucket.expires_ms)
        return make_plan(draft, CREATE, (reason,), None)

    plan = await store.commit(account_id, step)
    assert plan.account is not None
    return plan.account


async def read_account(store: Store, account_id: bytes) -> Account | None:
    """The account as the store holds it now, or None. Raises StoreError."""
    value = await store.call("GET", store.keys.account(account_id))
    return None if value is None else _account(account_id, value)


async def top_up_account(
    store: Store,
    account_id: bytes,
    amount: int,
    *,
    now_ms: int,
    reason: str,
    bucket_id: int = MAIN_BUCKET,
    reference: str | None = None,
) -> TopUp:
    """Add ``amount`` (micro-units of money, or units of the allowance) to a bucket.

    ``reference`` names the payment: the same reference on the same account counts once within
    ``REFERENCE_TTL_MS``, however often and from wherever it is sent. It is kept, with what the first top-up came to,
    where ended sessions are kept, and written by the same script call as the money.

    Raises LedgerError if there is no such account or bucket, the bucket has expired, the amount is not positive, or
    the reference was used for another amount or bucket; StoreError.
    """
    if reference is not None and not _REFERENCE.fullmatch(reference):
        raise LedgerError("a reference is 1 to 128 printable ASCII characters without spaces")
    _check_reason(reason)
    # No Session-Id of a client can be this: Session-Ids are text (RFC 6733 section 8.8).
    name = b"\0top-up:%b:%b" % (account_id, (reference or "").encode())
    first: list[Session] = []

    def step(account: Account | None, ended: Session | None) -> Plan:
        if account is None:
            raise LedgerError(f"there is no account {account_id.decode('utf-8', 'replace')}")
        if ended is not None and ended is not ABSENT:
            first[:] = [ended]
            return Plan(None)
        draft = Draft(account, now_ms)
        bucket = draft.bucket(bucket_id)
        if bucket.expires_ms and bucket.expires_ms <= now_ms:
            raise LedgerError(f"bucket {bucket_id} of account {account_id.decode()} has expired")
        top_up(draft, amount, bucket_id)
        if reference is None:
            return make_plan(draft, TOP_UP, (reason,), None)
        plan = make_plan(draft, TOP_UP, (reason, reference), None)
        plan.first_of = name
        kept: bytes = msgpack.packb((bucket_id, amount, bucket.balance, draft.account.version))
        plan.ended = Session(name, b"", "", b"", 0, now_ms, now_ms, state=SessionState.CLOSED)
        plan.ended.answers = answers.add(b"", 0, kept, 0)
        plan.ended_ttl_ms = REFERENCE_TTL_MS
        return plan

    plan = await store.commit(account_id, step)
    if plan.account is None:
        return _first_top_up(first[0], reference or "", bucket_id, amount)
    bucket = plan.account.bucket(bucket_id)
    assert bucket is not None
    return TopUp(bucket_id, amount, bucket.balance, plan.account.version, repeated=False)


def _first_top_up(session: Session, reference: str, bucket_id: int, amount: int) -> TopUp:
    kept = answers.find(session.answers, 0)
    if kept is None:  # the name of a charging session, which no reference should be
        raise LedgerError(f"reference {reference} cannot be used; choose another")
    first_bucket, first_amount, balance_after, version = msgpack.unpackb(kept)
    if (first_bucket, first_amount) != (bucket_id, amount):
        raise LedgerError(
            f"reference {reference} was used before, for {first_amount} on bucket {first_bucket}, "
            f"and cannot stand for {amount} on bucket {bucket_id}; nothing was changed"
        )
    return TopUp(bucket_id, amount, balance_after, version, repeated=True)


async def accounts(store: Store) -> AsyncIterator[list[Account]]:
    """All accounts, a page at a time, in no order; one may come twice if the store is being resized.

    Raises StoreError, also for an account that cannot be read.
    """
    async for account_ids in account_ids_in_store(store):
        values = await read_values(store, account_ids)
        yield [
            _account(account_id, value)
            for account_id, value in zip(account_ids, values, strict=True)
            if value is not None
        ]


async def account_ids_in_store(store: Store) -> AsyncIterator[list[bytes]]:
    """Identifiers of all accounts, a page at a time, by SCAN: in no order, some perhaps twice. Raises StoreError."""
    cursor: Any = 0
    while True:
        cursor, found = await store.call("SCAN", cursor, "MATCH", "{p*}:a:*", "COUNT", SCAN_COUNT)
        # The pattern alone would also match what a client put into a Session-Id.
        matches = [match for key in found if (match := _ACCOUNT_KEY.fullmatch(key))]
        if matches:
            yield [match.group(1) for match in matches]
        if int(cursor) == 0:
            return


async def accounts_in_expiry_index(store: Store) -> AsyncIterator[list[Account]]:
    """The accounts that have something to expire, so every account with an open session, a page at a time.

    In no order, some perhaps twice. Raises StoreError.
    """
    for lane in store.keys.lanes():
        cursor: Any = 0
        while True:
            cursor, found = await store.call("ZSCAN", store.keys.watch(lane), cursor, "COUNT", SCAN_COUNT)
            account_ids = found[::2]
            values = await read_values(store, account_ids)
            yield [
                account
                for account_id, value in zip(account_ids, values, strict=True)
                if value is not None and (account := _readable(account_id, value)) is not None
            ]
            if int(cursor) == 0:
                break


async def read_values(store: Store, account_ids: Sequence[bytes]) -> list[bytes | None]:
    """The stored values of accounts, None for those that are not there. Raises StoreError."""
    if not account_ids:
        return []
    values: list[bytes | None] = await store.call("MGET", *(store.keys.account(each) for each in account_ids))
    return values


def _account(account_id: bytes, value: bytes) -> Account:
    try:
        return unpack_account(account_id, value)
    except ValueError as error:
        raise StoreError(str(error)) from error


def _readable(account_id: bytes, value: bytes) -> Account | None:
    """The account, or None with a line in the log if it is damaged: one must not keep the others from being seen to."""
    try:
        return unpack_account(account_id, value)
    except ValueError as error:
        log.error("%s", error)
        return None


def _check_reason(reason: str) -> None:
    if len(reason) > LONGEST_REASON:
        raise LedgerError(f"a reason can be {LONGEST_REASON} characters long at most, not {len(reason)}")
