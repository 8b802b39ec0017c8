"""Administration of accounts: create, show, top up, adjust, list; their state, expiry, credit limit and buckets.

Everything that moves money goes through the same plans, journal and commit script as charging does. A refusal is a
``LedgerError`` whose message is one sentence for the person who asked, and leaves everything as it was; a
``StoreUnavailableError`` leaves open whether the change was written, which the same call repeated finds out.
"""

import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from balance import answers
from balance.accounts import Account, Session, SessionState
from balance.lane import ABSENT
from balance.ledger import Draft, add_bucket, top_up
from balance.model import MAIN_BUCKET, UNLIMITED, AccountKind, Bucket, LedgerError, LifeState, Unit
from balance.plans import Lookup, Plan
from balance.records import make_plan, unpack_account
from balance.resp import StoreError
from balance.store import Store
from balance.subscribers import CheckChange, check_name, check_reason, subscriber_named

REFERENCE_TTL_MS: Final = 7 * 86_400_000
"""How long the reference of a posting is remembered: the same one within this time counts once."""

SCAN_COUNT: Final = 500
INDEX_SCAN_COUNT: Final = 100
"""Each is an account that is read, while requests wait."""

log = logging.getLogger("balance.directory")

CREATE: Final = "create"
TOP_UP: Final = "top-up"
ADJUST: Final = "adjust"
ADD_BUCKET: Final = "add-bucket"

_REFERENCE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_BUCKET_NAME: Final = re.compile(r"[\x21-\x7e]{0,64}")
_ACCOUNT_KEY: Final = re.compile(rb"\{p[0-9]{4,5}\}:a:(.+)", re.DOTALL)


@dataclass(slots=True, frozen=True)
class NewBucket:
    """A bucket that an account is given, besides its main one."""

    unit: Unit
    balance: int
    """Micro-units of money, or units of the allowance."""
    priority: int = 100
    expires_ms: int = 0
    """0: never."""
    name: str = ""
    """The allowance or bonus of the catalogue that it is of; empty: it may be spent on anything."""
    owner: bytes = b""
    """The only subscriber that it serves; empty: all whom the account pays for."""


@dataclass(slots=True, frozen=True)
class Posting:
    """What a top-up, an adjustment, or one side of a transfer came to."""

    bucket_id: int
    amount: int
    """Below zero: taken."""
    balance_after: int
    """Balance of the bucket right after it."""
    version: int
    """Version of the account that it made."""
    repeated: bool
    """Its reference had been used before: this call changed nothing, the figures are those of the first one."""


@dataclass(slots=True, frozen=True)
class Once:
    """What keeps a posting from being made twice."""

    reference: str
    """The name that people know it by."""
    key: bytes
    """The name under which it is remembered, among the ended sessions of its account."""
    kept_ms: int = REFERENCE_TTL_MS
    told: str = ""
    """What else is of the essence beside bucket and amount."""


Change = Callable[[Draft, Bucket], None]
"""What a posting does to an account, on its draft; may be called again on another one. Raises LedgerError."""


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
    state: LifeState = LifeState.ACTIVE,
    expires_ms: int = 0,
    cycle_day: int = 1,
) -> Account:
    """Create an account with its main money bucket and ``buckets``.

    ``currency`` is an ISO 4217 numeric code. ``state``: active, or ordered; ``expires_ms``: of a prepaid account, 0 for
    never; ``cycle_day``: on which its months begin, 1 to 31. Raises LedgerError if the account exists already or a
    figure makes no sense, StoreError.
    """
    check_name("account", account_id)
    check_reason(reason)
    if not 1 <= currency <= 999:
        raise LedgerError(f"currency must be a numeric code of ISO 4217, 1 to 999, not {currency}")
    if not 0 <= credit_limit_micro <= UNLIMITED:
        raise LedgerError(f"a credit limit must not be negative, nor more than {UNLIMITED} micro-units")
    if state not in (LifeState.ACTIVE, LifeState.ORDERED):
        raise LedgerError(f"an account begins as active or ordered, not {state.name.lower()}")
    if expires_ms:
        _check_expiry(kind, expires_ms, now_ms)
    if not 1 <= cycle_day <= 31:
        raise LedgerError(f"a cycle day is a day of the month, 1 to 31, not {cycle_day}")
    for bucket in buckets:
        _check_bucket(bucket, now_ms)

    def step(account: Account | None, _: Session | None) -> Plan:
        if account is not None:
            raise LedgerError(f"account {account_id.decode()} exists already")
        new = Account(account_id, 0, int(kind), currency, credit_limit_micro, 0, [], {}, int(state), expires_ms)
        new.cycle_day = cycle_day
        draft = Draft(new, now_ms)
        main = add_bucket(draft, Unit.MONEY, balance_micro)
        assert main.bucket_id == MAIN_BUCKET
        for bucket in buckets:
            _add(draft, bucket)
        return make_plan(draft, CREATE, (reason,), None)

    plan = await store.commit(account_id, step)
    assert plan.account is not None
    return plan.account


def _add(draft: Draft, bucket: NewBucket) -> Bucket:
    return add_bucket(draft, bucket.unit, bucket.balance, bucket.priority, bucket.expires_ms, bucket.name, bucket.owner)


def _check_bucket(bucket: NewBucket, now_ms: int) -> None:
    if bucket.expires_ms and bucket.expires_ms <= now_ms:
        raise LedgerError("a bucket cannot expire before it exists")
    if not _BUCKET_NAME.fullmatch(bucket.name):
        raise LedgerError(f"{bucket.name[:80]!r} is not a name of a bucket: 64 printable characters without spaces")


def _check_expiry(kind: int, expires_ms: int, now_ms: int) -> None:
    if kind != AccountKind.PREPAID:
        raise LedgerError("only prepaid accounts expire")
    if expires_ms <= now_ms:
        raise LedgerError("an account cannot expire at a time that is past")
    if expires_ms > UNLIMITED:
        raise LedgerError(f"an account can expire {UNLIMITED} ms after 1970 at the latest")


async def read_account(store: Store, account_id: bytes) -> Account | None:
    """The account as the store holds it now, or None. Raises StoreError."""
    value = await store.call("GET", store.keys.account(account_id))
    if value is None:
        return None
    store.snapshots.seen(account_id, value)
    return _account(account_id, value)


async def read_accounts(store: Store, account_ids: Sequence[bytes]) -> list[Account | None]:
    """The accounts as the store holds them now, None for those that are not there. Raises StoreError."""
    values = await read_values(store, account_ids)
    pairs = zip(account_ids, values, strict=True)
    return [None if value is None else _account(account_id, value) for account_id, value in pairs]


def existing(account: Account | None, account_id: bytes) -> Account:
    """Raises LedgerError if there is no such account."""
    if account is None:
        raise LedgerError(f"there is no account {account_id.decode('utf-8', 'replace')}")
    return account


# -- money -------------------------------------------------------------------------------------------------------------


async def top_up_account(
    store: Store,
    account_id: bytes,
    amount: int,
    *,
    now_ms: int,
    reason: str,
    bucket_id: int = MAIN_BUCKET,
    reference: str | None = None,
    valid_for_ms: int = 0,
    also: Callable[[Draft], None] | None = None,
) -> Posting:
    """Add ``amount`` (micro-units of money, or units of the allowance) to a bucket.

    A prepaid account in grace is active again, and expires no earlier than after ``valid_for_ms``; 0: in grace never,
    else as before. Offers that wait for money are due at once. ``also`` does what else comes with a top-up, such as a
    bonus, on the same draft; it may be called again on another.

    ``reference`` names the payment: the same reference on the same account counts once within
    ``REFERENCE_TTL_MS``, however often and from wherever it is sent. It is kept, with what the first top-up came to,
    where ended sessions are kept, and written by the same script call as the money.

    Raises LedgerError if there is no such account or bucket, the account is terminated, the bucket has expired, the
    amount is not positive, or the reference was used for another amount or bucket; StoreError.
    """

    def change(draft: Draft, bucket: Bucket) -> None:
        if draft.account.state == LifeState.TERMINATED:
            raise LedgerError(f"account {account_id.decode()} is terminated and takes no money")
        top_up(draft, amount, bucket.bucket_id)
        if bucket.unit == Unit.MONEY:
            _offers_are_due(draft)
            come_back(draft, valid_for_ms)
        if also is not None:
            also(draft)

    once = _once(TOP_UP, account_id, reference)
    why = (reason,) if reference is None else (reason, reference)
    return await post(store, account_id, TOP_UP, bucket_id, amount, change, now_ms=now_ms, why=why, once=once)


def come_back(draft: Draft, valid_for_ms: int) -> None:
    """What money that somebody pays does to a prepaid account: it leaves its grace, and is valid for longer."""
    account = draft.account
    if account.kind != AccountKind.PREPAID:
        return
    until_ms = draft.now_ms + valid_for_ms
    if account.state == LifeState.GRACE:
        account.state = int(LifeState.ACTIVE)
        account.expires_ms = until_ms if valid_for_ms else 0
    elif valid_for_ms and account.expires_ms:
        account.expires_ms = max(account.expires_ms, until_ms)


def _offers_are_due(draft: Draft) -> None:
    """Fees that wait for money are tried again at once."""
    for index, offer in enumerate(draft.account.offers):
        if offer.unpaid_ms:
            draft.offer(index).next_ms = draft.now_ms


async def adjust_account(
    store: Store,
    account_id: bytes,
    amount: int,
    *,
    now_ms: int,
    reason: str,
    bucket_id: int = MAIN_BUCKET,
    reference: str | None = None,
) -> Posting:
    """Put a bucket right: add ``amount`` (micro-units of money, or units of the allowance), or take it if below zero.

    Never more is taken than is free: a prepaid account stays at zero or above, a postpaid one within its credit limit,
    and what sessions have reserved is theirs. Allowed in every state, also to clear what is left on a terminated
    account. ``reference`` as for ``top_up_account``.

    Raises LedgerError if there is no such account or bucket, no reason is given, the bucket has expired, the amount is
    0 or more than is free, or the reference was used for another amount or bucket; StoreError.
    """
    if not reason.strip():
        raise LedgerError("an adjustment needs a reason")
    if not amount:
        raise LedgerError("an adjustment of nothing is none")

    def change(draft: Draft, bucket: Bucket) -> None:
        if amount > 0:
            top_up(draft, amount, bucket.bucket_id)
            if bucket.unit == Unit.MONEY:
                _offers_are_due(draft)
        else:
            take(draft, bucket, -amount)

    once = _once(ADJUST, account_id, reference)
    why = (reason,) if reference is None else (reason, reference)
    return await post(store, account_id, ADJUST, bucket_id, amount, change, now_ms=now_ms, why=why, once=once)


def take(draft: Draft, bucket: Bucket, amount: int) -> None:
    """Take what is free in a bucket. Raises LedgerError if that is not enough."""
    free = draft.free(bucket)
    if amount > free:
        name = draft.account.account_id.decode()
        unit = "micro-units" if bucket.unit == Unit.MONEY else Unit(bucket.unit).name.lower()
        raise LedgerError(
            f"bucket {bucket.bucket_id} of account {name} can give {free} {unit}, which is less than {amount}"
        )
    bucket.balance -= amount


async def post(
    store: Store,
    account_id: bytes,
    operation: str,
    bucket_id: int,
    amount: int,
    change: Change,
    *,
    now_ms: int,
    why: tuple[str, ...],
    once: Once | None,
) -> Posting:
    """Have ``change`` move ``amount`` on a bucket, ``once`` if it is said so. ``why``: for the journal.

    Raises LedgerError as ``top_up_account`` does, and what ``change`` raises; StoreError.
    """
    check_reason(why[0])
    first: list[Session] = []

    def step(found: Account | None, ended: Session | None) -> Plan | Lookup:
        account = existing(found, account_id)
        if once is not None and ended is None:
            return Lookup(once.key)  # also where it would be refused now: that may be because it is done
        if ended is not None and ended is not ABSENT:
            first[:] = [ended]
            return Plan(None)
        draft = Draft(account, now_ms)
        bucket = draft.bucket(bucket_id)
        if bucket.expires_ms and bucket.expires_ms <= now_ms:
            raise LedgerError(f"bucket {bucket_id} of account {account_id.decode()} has expired")
        change(draft, bucket)
        plan = make_plan(draft, operation, why, None)
        if once is not None:
            plan.first_of = once.key
            plan.ended = Session(once.key, b"", "", b"", 0, now_ms, now_ms, state=SessionState.CLOSED)
            figures: bytes = msgpack.packb((bucket_id, amount, bucket.balance, draft.account.version, once.told))
            plan.ended.answers = answers.add(b"", 0, figures, 0)
            plan.ended_ttl_ms = once.kept_ms
        return plan

    plan = await store.commit(account_id, step)
    if plan.account is None:
        assert once is not None
        return _first_posting(first[0], once, bucket_id, amount)
    bucket = plan.account.bucket(bucket_id)
    assert bucket is not None
    return Posting(bucket_id, amount, bucket.balance, plan.account.version, repeated=False)


def _once(operation: str, account_id: bytes, reference: str | None) -> Once | None:
    """Raises LedgerError for a reference that cannot be used."""
    if reference is None:
        return None
    check_reference(reference)
    return Once(reference, posting_key(operation, account_id, reference))


def check_reference(reference: str) -> None:
    """Raises LedgerError for what cannot be a reference."""
    if not _REFERENCE.fullmatch(reference):
        raise LedgerError("a reference is 1 to 128 printable ASCII characters without spaces")


def posting_key(operation: str, account_id: bytes, reference: str) -> bytes:
    """The name under which a posting is remembered among the ended sessions of its account.

    No Session-Id of a client can be this: Session-Ids are text (RFC 6733 section 8.8).
    """
    return b"\0%b:%b:%b" % (operation.encode(), account_id, reference.encode())


def _first_posting(session: Session, once: Once, bucket_id: int, amount: int) -> Posting:
    kept = answers.find(session.answers, 0)
    if kept is None:  # the name of a charging session, which no reference should be
        raise LedgerError(f"reference {once.reference} cannot be used; choose another")
    first_bucket, first_amount, balance_after, version, told = msgpack.unpackb(kept)
    if (first_bucket, first_amount, told) != (bucket_id, amount, once.told):
        raise LedgerError(
            f"reference {once.reference} was used before, for {first_amount} on bucket {first_bucket}{_after(told)}, "
            f"and cannot stand for {amount} on bucket {bucket_id}{_after(once.told)}; nothing was changed"
        )
    return Posting(bucket_id, amount, balance_after, version, repeated=True)


def _after(told: str) -> str:
    return f" {told}" if told else ""


# -- what is not money -------------------------------------------------------------------------------------------------


async def add_account_bucket(store: Store, account_id: bytes, bucket: NewBucket, now_ms: int, reason: str) -> Account:
    """Give an account one more bucket.

    Raises LedgerError if there is no such account, it is terminated, it does not pay for the owner of the bucket, or a
    figure makes no sense; StoreError.
    """
    check_reason(reason)
    _check_bucket(bucket, now_ms)
    if bucket.owner:
        owner = await subscriber_named(store, bucket.owner)
        if owner is None or owner.account_id != account_id:
            raise LedgerError(
                f"account {account_id.decode('utf-8', 'replace')} pays for no subscriber "
                f"{bucket.owner.decode('utf-8', 'replace')}"
            )

    def change(draft: Draft) -> None:
        if draft.account.state == LifeState.TERMINATED:
            raise LedgerError(f"account {account_id.decode()} is terminated and takes no bucket")
        _add(draft, bucket)

    return await change_account(store, account_id, change, ADD_BUCKET, (reason,), now_ms)


async def set_credit_limit(store: Store, account_id: bytes, limit_micro: int, now_ms: int, reason: str) -> Account:
    """Set how far below zero an account may go.

    Raises LedgerError if it has used or reserved more than that already; StoreError.
    """
    check_reason(reason)
    if not 0 <= limit_micro <= UNLIMITED:
        raise LedgerError(f"a credit limit must not be negative, nor more than {UNLIMITED} micro-units")

    def change(draft: Draft) -> None:
        account, main = draft.account, draft.bucket(MAIN_BUCKET)
        used = main.reserved - main.balance
        if limit_micro < used:
            raise LedgerError(
                f"account {account_id.decode()} has used or reserved {used} micro-units of its credit; "
                "the limit cannot be less"
            )
        account.credit_limit_micro = limit_micro

    return await change_account(store, account_id, change, "credit-limit", (reason, f"{limit_micro} micro"), now_ms)


async def set_account_state(
    store: Store, account_id: bytes, state: LifeState, now_ms: int, reason: str, check: CheckChange
) -> Account:
    """Put an account into another state; one that it is in already is left as it is.

    Raises LedgerError if ``check`` does not let it, or it is postpaid and is to be in grace; StoreError.
    """
    check_reason(reason)

    def change(draft: Draft) -> None:
        account = draft.account
        if account.state == state:
            return
        check(account.state, int(state))
        if state == LifeState.GRACE and account.kind != AccountKind.PREPAID:
            raise LedgerError("only prepaid accounts can be in grace")
        account.state = int(state)
        if state == LifeState.TERMINATED:
            account.expires_ms = 0

    return await change_account(store, account_id, change, "account-state", (reason, state.name.lower()), now_ms)


async def set_expiry(store: Store, account_id: bytes, expires_ms: int, now_ms: int, reason: str) -> Account:
    """Have a prepaid account expire at a moment, 0 for never; one that is in grace is in service again.

    Raises LedgerError if the account is postpaid or terminated, or the moment is past; StoreError.
    """
    check_reason(reason)

    def change(draft: Draft) -> None:
        account = draft.account
        _check_expiry(account.kind, expires_ms or UNLIMITED, now_ms)
        if account.state == LifeState.TERMINATED:
            raise LedgerError(f"account {account_id.decode()} is terminated")
        if account.state == LifeState.GRACE:
            account.state = int(LifeState.ACTIVE)
        account.expires_ms = expires_ms

    return await change_account(store, account_id, change, "account-expiry", (reason, f"{expires_ms} ms"), now_ms)


async def change_account(
    store: Store,
    account_id: bytes,
    change: Callable[[Draft], None],
    operation: str,
    reason: tuple[str, ...],
    now_ms: int,
) -> Account:
    """Do something to an account that is there; ``change`` may be called again on another draft.

    Raises LedgerError if there is no such account, or what ``change`` raises; StoreError.
    """

    def step(found: Account | None, _: Session | None) -> Plan:
        draft = Draft(existing(found, account_id), now_ms)
        change(draft)
        return make_plan(draft, operation, reason, None)

    plan = await store.commit(account_id, step)
    assert plan.account is not None
    return plan.account


# -- all accounts ------------------------------------------------------------------------------------------------------


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
    async for found in store.scan("{p*}:a:*", SCAN_COUNT):
        # The pattern alone would also match what a client put into a Session-Id.
        matches = [match for key in found if (match := _ACCOUNT_KEY.fullmatch(key))]
        if matches:
            yield [match.group(1) for match in matches]


async def accounts_in_expiry_index(store: Store) -> AsyncIterator[list[Account]]:
    """The accounts that have something to expire, so every account with an open session, a page at a time.

    In no order, some perhaps twice. Raises StoreError.
    """
    for lane in store.keys.lanes():
        cursor: Any = 0
        while True:
            cursor, found = await store.call("ZSCAN", store.keys.watch(lane), cursor, "COUNT", INDEX_SCAN_COUNT)
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
