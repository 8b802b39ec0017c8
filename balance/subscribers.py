"""Subscribers: who they are, under which identities networks know them, which account pays.

A subscriber is written under its own name and under each of its identities, so that a request finds it with one
look-up. One script call writes all of these or none, and only if nobody else has changed the subscriber or holds one
of the identities.

The account that pays for a subscriber knows the state of those that are not active, as running sessions are decided on
it alone. Who bars a subscriber tells the account first, who lets it in again the subscriber's record first: cut off in
between, it stays barred, and the same call repeated completes it. Then the record has the last word
(``agree_on_state``), whoever else changed it meanwhile.

Acts are noted in the journal of the paying account once they are done, also those that changed nothing: so one that was
cut off before its note has it when it is repeated.
"""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from balance.accounts import Account, Session
from balance.ledger import Draft
from balance.model import LARGEST, IdentityType, LedgerError, LifeState, Subscriber
from balance.plans import Plan
from balance.records import make_plan, pack_subscriber, unpack_account, unpack_subscriber
from balance.store import Store

CHANGE_ATTEMPTS: Final = 32
"""After this somebody who is always faster is reported."""
MEMBERS_A_PAGE: Final = 500
FRIENDS: Final = 100
"""Friends-and-family numbers a subscriber can have."""
TERMINATED_KEPT: Final = 64
"""Terminated subscribers without identities that an account still knows; more are forgotten, the oldest first."""
LONGEST_REASON: Final = 200

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SCRIPT: Final = (Path(__file__).parent / "scripts" / "subscriber.lua").read_text(encoding="utf-8")
_NAME: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_SEGMENT: Final = re.compile(r"[\x21-\x7e]{0,64}")
_PRINTABLE: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_IDENTITIES: Final[dict[int, tuple[re.Pattern[bytes], str]]] = {
    IdentityType.E164: (re.compile(rb"[0-9]{1,15}"), "1 to 15 digits without '+'"),
    IdentityType.IMSI: (re.compile(rb"[0-9]{6,15}"), "6 to 15 digits"),
    IdentityType.SIP_URI: (re.compile(rb"sips?:[\x21-\x7e]{1,250}"), "'sip:' or 'sips:' and an address"),
    IdentityType.NAI: (_PRINTABLE, "1 to 255 printable characters without spaces"),
    IdentityType.PRIVATE: (_PRINTABLE, "1 to 255 printable characters without spaces"),
}
"""What an identity may look like: E.164 clause 6, E.212 clause 6, RFC 8506 section 8.47."""

Identity = tuple[int, bytes]
"""(IdentityType, value)."""

CheckChange = Callable[[int, int], None]
"""Raises LedgerError if a LifeState must not follow another (``occ.lifecycle.check_change``)."""


# -- reading -----------------------------------------------------------------------------------------------------------


async def subscriber_named(store: Store, subscriber_id: bytes) -> Subscriber | None:
    """The subscriber of that name, or None. Raises StoreError."""
    packed = await store.call("GET", store.keys.subscriber(subscriber_id))
    return None if packed is None else unpack_subscriber(packed)


async def read_subscriber(store: Store, kind: int, value: bytes) -> Subscriber | None:
    """The subscriber an identity belongs to as the store holds it now, or None. Raises StoreError."""
    packed = await store.call("GET", store.keys.identity(kind, value))
    return None if packed is None else unpack_subscriber(packed)


async def find_subscribers(store: Store, written: bytes) -> list[tuple[Subscriber, int]]:
    """The subscribers that somebody may mean: of that name (IdentityType -1), or with an identity of any type.

    A "+" before an E.164 number is overlooked. Raises StoreError.
    """
    identities = [
        (int(kind), written.removeprefix(b"+") if kind == IdentityType.E164 else written) for kind in IdentityType
    ]
    keys = [store.keys.subscriber(written), *(store.keys.identity(*identity) for identity in identities)]
    values = await store.call("MGET", *keys)
    kinds = (-1, *(kind for kind, _ in identities))
    return [(unpack_subscriber(value), kind) for kind, value in zip(kinds, values, strict=True) if value is not None]


async def members(store: Store, account_id: bytes) -> AsyncIterator[list[Subscriber]]:
    """The subscribers that belong to an account, whoever pays, a page at a time: in no order, one perhaps twice.

    Raises StoreError.
    """
    cursor: Any = 0
    while True:
        cursor, names = await store.call("SSCAN", store.keys.members(account_id), cursor, "COUNT", MEMBERS_A_PAGE)
        if names:
            values = await store.call("MGET", *(store.keys.subscriber(name) for name in names))
            yield [unpack_subscriber(value) for value in values if value is not None]
        if int(cursor) == 0:
            return


def own_account(subscriber: Subscriber) -> bytes:
    """The account that a subscriber belongs to, whoever pays."""
    return subscriber.member_of or subscriber.account_id


# -- writing -----------------------------------------------------------------------------------------------------------


async def add_subscriber(store: Store, subscriber: Subscriber) -> bool:
    """Enter a subscriber as it is; an identity belongs to one subscriber only.

    Who pays is not looked up, and nobody is told of its state: ``balance.structure.add_member`` does both. Returns
    False if it is there already, exactly so; an identity that is missing is entered. Raises LedgerError if an account
    does not exist, the subscriber exists and is another, or an identity is malformed or belongs to somebody else;
    StoreError.
    """
    check_subscriber(subscriber)
    accounts = {subscriber.account_id, own_account(subscriber)}
    if await store.call("EXISTS", *(store.keys.account(each) for each in accounts)) != len(accounts):
        names = " or ".join(sorted(each.decode() for each in accounts))
        raise LedgerError(f"there is no account {names} for the subscriber to use")
    known = await _read(store, subscriber.subscriber_id)
    if known is None and await write_subscriber(store, None, subscriber):
        return True
    known = known or await _read(store, subscriber.subscriber_id)
    if known is None or known[1] != subscriber:
        raise LedgerError(f"subscriber {subscriber.subscriber_id.decode()} exists already; nothing was changed")
    identities = [store.keys.identity(*identity) for identity in subscriber.identities]
    values = await store.call("MGET", *identities) if identities else []
    return None in values and await write_subscriber(store, known, subscriber)


Known = tuple[bytes, Subscriber]
"""A subscriber, and the value it was read from: what it is now, for whoever wants to change it."""


async def read_known(store: Store, subscriber_id: bytes) -> Known:
    """Raises LedgerError if there is no such subscriber, StoreError."""
    known = await _read(store, subscriber_id)
    if known is None:
        raise LedgerError(f"there is no subscriber {subscriber_id.decode('utf-8', 'replace')}")
    return known


async def _read(store: Store, subscriber_id: bytes) -> Known | None:
    packed = await store.call("GET", store.keys.subscriber(subscriber_id))
    return None if packed is None else (packed, unpack_subscriber(packed))


async def write_subscriber(store: Store, known: Known | None, after: Subscriber) -> bool:
    """Write a subscriber that was ``known``, or not there; False if somebody else was faster.

    Raises LedgerError if it cannot be, or an identity is taken; StoreError.
    """
    check_subscriber(after)
    expected, before = (b"", None) if known is None else known
    held = () if before is None else before.identities
    wanted = [store.keys.identity(*identity) for identity in after.identities]
    lost = [store.keys.identity(*identity) for identity in held if identity not in after.identities]
    enter = store.keys.members(own_account(after))
    stays = before is None or own_account(before) == own_account(after)
    leave = [] if before is None or stays else [store.keys.members(own_account(before))]
    keys = [store.keys.subscriber(after.subscriber_id), *wanted, *lost, *leave, enter]
    counts = (len(wanted), len(lost), len(leave))
    result = await store.run_script(_SCRIPT, keys, expected, pack_subscriber(after), *counts, after.subscriber_id)
    if not result:
        return True
    at, value = int(result[0]), result[1]
    if at == 0:
        return False
    raise taken(after.identities[at - 1], unpack_subscriber(value))


async def change_subscriber(
    store: Store, subscriber_id: bytes, change: Callable[[Subscriber], Subscriber]
) -> Subscriber:
    """The subscriber after ``change``, which may be called again if somebody else was faster.

    ``change`` must leave alone who pays and its state. Raises LedgerError if there is none, or the changed one is not
    possible; StoreError.
    """
    for _ in range(CHANGE_ATTEMPTS):
        known = await read_known(store, subscriber_id)
        after = change(known[1])
        if after == known[1] or await write_subscriber(store, known, after):
            return after
    raise too_many_changes(subscriber_id)


def taken(identity: Identity, owner: Subscriber) -> LedgerError:
    return LedgerError(
        f"identity {describe_identity(*identity)} belongs to subscriber {owner.subscriber_id.decode()} already; "
        "nothing was changed"
    )


def too_many_changes(subscriber_id: bytes) -> LedgerError:
    return LedgerError(f"subscriber {subscriber_id.decode()} is changed by others all the time; try again")


async def note(store: Store, account_id: bytes, operation: str, reason: tuple[Any, ...], now_ms: int) -> None:
    """Write down in an account's journal what was done that leaves its money as it is. Raises StoreError."""

    def step(account: Account | None, _: Session | None) -> Plan:
        return Plan(None) if account is None else make_plan(Draft(account, now_ms), operation, reason, None)

    await store.commit(account_id, step)


async def _act(
    store: Store,
    subscriber_id: bytes,
    change: Callable[[Subscriber], Subscriber],
    operation: str,
    what: str,
    now_ms: int,
    reason: str,
) -> Subscriber:
    check_reason(reason)
    after = await change_subscriber(store, subscriber_id, change)
    await note(store, after.account_id, operation, (reason, subscriber_id, what), now_ms)
    return after


async def swap_identity(
    store: Store, subscriber_id: bytes, old: Identity, new: Identity, now_ms: int, reason: str
) -> Subscriber:
    """Give a subscriber another identity for one it has, as when a SIM is exchanged or a number ported in.

    Running sessions go on: they are known by their Session-Id. Raises LedgerError, StoreError.
    """

    def change(subscriber: Subscriber) -> Subscriber:
        if new in subscriber.identities and old not in subscriber.identities:
            return subscriber  # done before
        if old not in subscriber.identities:
            raise LedgerError(f"{describe_identity(*old)} does not belong to {subscriber_id.decode()}")
        identities = tuple(new if identity == old else identity for identity in subscriber.identities)
        return replace(subscriber, identities=identities)

    what = f"{describe_identity(*old)} -> {describe_identity(*new)}"
    return await _act(store, subscriber_id, change, "subscriber-identity", what, now_ms, reason)


async def change_plan(
    store: Store, subscriber_id: bytes, plan: str, from_ms: int, now_ms: int, reason: str
) -> Subscriber:
    """Give a subscriber another plan, from a moment on; one that is not ahead is now.

    It takes the place of a change that is pending. Sessions keep the plan they began with. Raises LedgerError,
    StoreError.
    """

    def change(subscriber: Subscriber) -> Subscriber:
        if from_ms <= now_ms:
            return replace(subscriber, plan=plan, next_plan="", next_plan_ms=0)
        return replace(subscriber, plan=subscriber.plan_at(now_ms), next_plan=plan, next_plan_ms=from_ms)

    what = (
        f"{plan} now"
        if from_ms <= now_ms
        else f"{plan} from {_EPOCH + timedelta(milliseconds=from_ms):%Y-%m-%d %H:%M} UTC"
    )
    return await _act(store, subscriber_id, change, "subscriber-plan", what, now_ms, reason)


async def set_caps(
    store: Store, subscriber_id: bytes, day_micro: int | None, month_micro: int | None, now_ms: int, reason: str
) -> Subscriber:
    """The most that is spent on a subscriber in a day and in a month, micro-units; 0: no cap; None: as it is.

    For sessions that begin from now on. Raises LedgerError, StoreError.
    """

    def change(subscriber: Subscriber) -> Subscriber:
        day = subscriber.cap_day_micro if day_micro is None else day_micro
        month = subscriber.cap_month_micro if month_micro is None else month_micro
        return replace(subscriber, cap_day_micro=day, cap_month_micro=month)

    parts = [f"{word} {micro}" for word, micro in (("day", day_micro), ("month", month_micro)) if micro is not None]
    return await _act(store, subscriber_id, change, "subscriber-caps", ", ".join(parts), now_ms, reason)


async def set_friends(
    store: Store, subscriber_id: bytes, friends: tuple[bytes, ...], now_ms: int, reason: str
) -> Subscriber:
    """The friends-and-family numbers of a subscriber, in place of those it had. Raises LedgerError, StoreError."""
    what = ", ".join(number.decode("ascii", "replace") for number in friends) or "none"
    return await _act(
        store,
        subscriber_id,
        lambda subscriber: replace(subscriber, friends=friends),
        "subscriber-friends",
        what,
        now_ms,
        reason,
    )


# -- life cycle --------------------------------------------------------------------------------------------------------


async def set_subscriber_state(
    store: Store,
    subscriber_id: bytes,
    state: LifeState,
    now_ms: int,
    reason: str,
    check: CheckChange,
    *,
    free_identities: bool = False,
) -> Subscriber:
    """Put a subscriber into another state, and tell the accounts that its sessions run on.

    ``free_identities``: a terminated one gives its identities up, so that others can have them. Raises LedgerError,
    StoreError.
    """
    check_reason(reason)
    if state == LifeState.GRACE:
        raise LedgerError("only a prepaid account can be in grace, not a subscriber")
    if free_identities and state != LifeState.TERMINATED:
        raise LedgerError("only a subscriber that is terminated gives its identities up")
    for _ in range(CHANGE_ATTEMPTS):
        known = await read_known(store, subscriber_id)
        before = known[1]
        if before.state != state:
            check(before.state, int(state))
        begins = state == LifeState.ACTIVE and not before.activated_ms
        after = replace(
            before,
            state=int(state),
            activated_ms=now_ms if begins and before.state != state else before.activated_ms,
            identities=() if free_identities else before.identities,
        )
        if state != LifeState.ACTIVE:
            await _tell_accounts(store, after, now_ms, reason)
        if after == before or await write_subscriber(store, known, after):
            return await agree_on_state(store, subscriber_id, now_ms, reason)
    raise too_many_changes(subscriber_id)


async def agree_on_state(store: Store, subscriber_id: bytes, now_ms: int, reason: str) -> Subscriber:
    """Tell the accounts of a subscriber what its record says of its state, until they agree; the subscriber.

    Raises LedgerError if there is none, StoreError.
    """
    for _ in range(CHANGE_ATTEMPTS):
        _, found = await read_known(store, subscriber_id)
        if not await _tell_accounts(store, found, now_ms, reason):
            return found
    raise too_many_changes(subscriber_id)


async def session_accounts(store: Store, subscriber: Subscriber) -> list[bytes]:
    """The accounts that sessions of a subscriber may run on: who pays now, and who did before. Raises StoreError."""
    earlier = await store.call("SMEMBERS", store.keys.earlier(subscriber.subscriber_id))
    return [subscriber.account_id, *sorted(bytes(each) for each in earlier if each != subscriber.account_id)]


async def _tell_accounts(store: Store, subscriber: Subscriber, now_ms: int, reason: str) -> bool:
    """False if all of them knew."""
    current, *earlier = await session_accounts(store, subscriber)
    told = await tell_account(store, current, subscriber, now_ms, reason)
    for account_id in earlier:
        told = await tell_account(store, account_id, subscriber, now_ms, reason, former=True) or told
    return told


async def tell_account(
    store: Store, account_id: bytes, subscriber: Subscriber, now_ms: int, reason: str, *, former: bool = False
) -> bool:
    """Note in an account the state of a subscriber; False if it knew.

    ``former``: the account pays for it no more; it is told as long as sessions of the subscriber run on it. Raises
    LedgerError if there is no such account, StoreError.
    """
    name, state = subscriber.subscriber_id, subscriber.state
    forgotten = await _forgotten(store, account_id, name) if state == LifeState.TERMINATED else []

    def step(account: Account | None, _: Session | None) -> Plan:
        if account is None:
            raise LedgerError(f"there is no account {account_id.decode('utf-8', 'replace')}")
        if account.out_of_service.get(name, LifeState.ACTIVE) == state:
            return Plan(None)
        if former and name not in account.out_of_service and not _has_session(account, name):
            return Plan(None)
        draft = Draft(account, now_ms)
        noted = {each: value for each, value in account.out_of_service.items() if each != name}
        for each in forgotten:
            if not _has_session(account, each):
                noted.pop(each, None)
        if state != LifeState.ACTIVE:
            noted[name] = state
        draft.account.out_of_service = noted
        return make_plan(draft, "subscriber-state", (reason, name, LifeState(state).name.lower()), None)

    plan = await store.commit(account_id, step)
    return plan.account is not None


def _has_session(account: Account, subscriber_id: bytes) -> bool:
    return any(session.subscriber_id == subscriber_id for session in account.sessions.values())


async def _forgotten(store: Store, account_id: bytes, subscriber_id: bytes) -> list[bytes]:
    """Terminated subscribers that an account need not know any longer: nobody can be taken for them.

    The account's value is written at every request, so it must not grow with all that were ever terminated. The newest
    are kept: workers may remember whose an identity was for some seconds (``StoreSettings.directory_cache_ms``).
    """
    value = await store.call("GET", store.keys.account(account_id))
    if value is None:
        return []
    account = unpack_account(account_id, value)
    gone = [name for name, state in account.out_of_service.items() if state == LifeState.TERMINATED]
    if len(gone) <= TERMINATED_KEPT:
        return []
    values = await store.call("MGET", *(store.keys.subscriber(name) for name in gone))
    free = [
        name
        for name, packed in zip(gone, values, strict=True)
        if name != subscriber_id and (packed is None or not unpack_subscriber(packed).identities)
    ]
    return free[: len(gone) - TERMINATED_KEPT]


# -- what can be -------------------------------------------------------------------------------------------------------


def describe_identity(kind: int, value: bytes) -> str:
    """An identity for people, such as "E164 491700000001"."""
    name = IdentityType(kind).name if kind in IdentityType.__members__.values() else f"type {kind}"
    return f"{name} {value.decode('utf-8', 'replace')}"


def check_name(what: str, name: bytes) -> None:
    """Raises LedgerError for a name of an account or subscriber that cannot be used."""
    if not _NAME.fullmatch(name):
        raise LedgerError(
            f"{what} {_quoted(name)} is not a usable name: letters, digits and . _ @ + - only, 64 at most, "
            "a letter or digit first"
        )


def check_reason(reason: str) -> None:
    """Raises LedgerError for a reason that the journal does not take."""
    if len(reason) > LONGEST_REASON:
        raise LedgerError(f"a reason can be {LONGEST_REASON} characters long at most, not {len(reason)}")
    if any("\ud800" <= letter <= "\udfff" for letter in reason):
        raise LedgerError("a reason must be text in UTF-8")


def check_subscriber(subscriber: Subscriber) -> None:
    """Raises LedgerError, one sentence, for a subscriber that cannot be."""
    check_name("subscriber", subscriber.subscriber_id)
    check_name("account", subscriber.account_id)
    if subscriber.member_of:
        check_name("account", subscriber.member_of)
    if not subscriber.plan:
        raise LedgerError("a subscriber needs a plan")
    if not subscriber.identities and subscriber.state != LifeState.TERMINATED:
        raise LedgerError("a subscriber needs at least one identity, such as an MSISDN")
    if len(set(subscriber.identities)) != len(subscriber.identities):
        raise LedgerError("an identity is given twice")
    if min(subscriber.cap_day_micro, subscriber.cap_month_micro) < 0:
        raise LedgerError("a cap must not be negative")
    if max(subscriber.cap_day_micro, subscriber.cap_month_micro) > LARGEST:
        raise LedgerError(f"a cap can be {LARGEST} micro-units at most")
    if not _SEGMENT.fullmatch(subscriber.segment):
        raise LedgerError(f"segment {subscriber.segment[:80]!r} is not a word of 64 printable characters at most")
    if len(subscriber.friends) > FRIENDS:
        raise LedgerError(f"a subscriber can have {FRIENDS} friends-and-family numbers, not {len(subscriber.friends)}")
    for number in subscriber.friends:
        _check_identity(IdentityType.E164, number)
    for kind, value in subscriber.identities:
        if kind not in _IDENTITIES:
            raise LedgerError(f"Subscription-Id-Type {kind} is not one of RFC 8506 section 8.47, 0 to 4")
        _check_identity(kind, value)


def _check_identity(kind: int, value: bytes) -> None:
    pattern, wanted = _IDENTITIES[kind]
    if len(value) > 255 or not pattern.fullmatch(value):
        raise LedgerError(f"{IdentityType(kind).name} {_quoted(value)} is malformed: it must be {wanted}")


def _quoted(value: bytes) -> str:
    return repr(value[:80].decode("utf-8", "replace"))
