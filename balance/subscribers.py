"""Subscribers: who they are, under which identities networks know them, which account pays.

A subscriber is written under its own name and under each of its identities, so that a request finds it with one
look-up. One script call writes all of these or none, and only if nobody else has changed the subscriber or holds one
of the identities.
"""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from balance.keys import Keys
from balance.ledger import Draft
from balance.model import Account, IdentityType, LedgerError, LifeState, Plan, Session, Subscriber
from balance.records import make_plan, pack_subscriber, unpack_subscriber
from balance.store import Store

CHANGE_ATTEMPTS: Final = 8
MEMBERS_A_PAGE: Final = 500

_SCRIPT: Final = (Path(__file__).parent / "scripts" / "subscriber.lua").read_text(encoding="utf-8")
_NAME: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
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


async def add_subscriber(store: Store, subscriber: Subscriber) -> bool:
    """Enter a subscriber; an identity belongs to one subscriber only.

    Returns False if it is there already, exactly so; an identity that is missing is entered. Raises LedgerError if the account does not exist, the subscriber
    exists and is another, or an identity is malformed or belongs to somebody else; StoreError.
    """
    check_subscriber(subscriber)
    if not await store.call("EXISTS", store.keys.account(subscriber.account_id)):
        raise LedgerError(f"there is no account {subscriber.account_id.decode()} for the subscriber to use")
    known = await subscriber_named(store, subscriber.subscriber_id)
    if known is None and await _write(store, None, subscriber):
        return True
    known = known or await subscriber_named(store, subscriber.subscriber_id)
    if known != subscriber:
        raise LedgerError(f"subscriber {subscriber.subscriber_id.decode()} exists already; nothing was changed")
    values = await store.call("MGET", *(Keys.identity(*identity) for identity in subscriber.identities))
    return None in values and await _write(store, known, subscriber)


async def subscriber_named(store: Store, subscriber_id: bytes) -> Subscriber | None:
    """The subscriber of that name, or None. Raises StoreError."""
    packed = await store.call("GET", Keys.subscriber(subscriber_id))
    return None if packed is None else unpack_subscriber(packed)


async def read_subscriber(store: Store, kind: int, value: bytes) -> Subscriber | None:
    """The subscriber an identity belongs to as the store holds it now, or None. Raises StoreError."""
    packed = await store.call("GET", Keys.identity(kind, value))
    return None if packed is None else unpack_subscriber(packed)


async def change_subscriber(
    store: Store, subscriber_id: bytes, change: Callable[[Subscriber], Subscriber]
) -> Subscriber:
    """The subscriber after ``change``, which may be called again if somebody else was faster.

    Raises LedgerError if there is none, or the changed one is not possible; StoreError.
    """
    for _ in range(CHANGE_ATTEMPTS):
        before = await subscriber_named(store, subscriber_id)
        if before is None:
            raise LedgerError(f"there is no subscriber {subscriber_id.decode('utf-8', 'replace')}")
        after = change(before)
        check_subscriber(after)
        if after == before or await _write(store, before, after):
            return after
    raise LedgerError(f"subscriber {subscriber_id.decode()} is changed by others all the time; try again")


async def swap_identity(store: Store, subscriber_id: bytes, old: Identity, new: Identity) -> Subscriber:
    """Give a subscriber another identity for one it has, as when a SIM is exchanged.

    Running sessions go on: they are known by their Session-Id. Raises LedgerError, StoreError.
    """

    def change(subscriber: Subscriber) -> Subscriber:
        if old not in subscriber.identities:
            raise LedgerError(f"{describe_identity(*old)} does not belong to {subscriber_id.decode()}")
        identities = tuple(new if identity == old else identity for identity in subscriber.identities)
        return replace(subscriber, identities=identities)

    return await change_subscriber(store, subscriber_id, change)


async def set_subscriber_state(
    store: Store, subscriber_id: bytes, state: LifeState, now_ms: int, reason: str, check: Callable[[int, int], None]
) -> Subscriber:
    """Put a subscriber into another state; ``check(old, new)`` raises LedgerError where that must not be.

    The paying account is told as well: it is what requests of running sessions are decided on. It is told first, so
    that what is to be barred is barred at once. Raises LedgerError, StoreError.
    """
    subscriber = await subscriber_named(store, subscriber_id)
    if subscriber is None:
        raise LedgerError(f"there is no subscriber {subscriber_id.decode('utf-8', 'replace')}")
    if subscriber.state != state:
        check(subscriber.state, int(state))

    def step(account: Account | None, _: Session | None) -> Plan:
        if account is None:
            raise LedgerError(f"there is no account {subscriber.account_id.decode()}")
        if account.out_of_service.get(subscriber_id, LifeState.ACTIVE) == state:
            return Plan(None)
        draft = Draft(account, now_ms)
        others = {name: value for name, value in account.out_of_service.items() if name != subscriber_id}
        draft.account.out_of_service = others if state == LifeState.ACTIVE else {**others, subscriber_id: int(state)}
        return make_plan(draft, "subscriber-state", (reason, subscriber_id, state.name.lower()), None)

    await store.commit(subscriber.account_id, step)

    def change(found: Subscriber) -> Subscriber:
        begins = state == LifeState.ACTIVE and not found.activated_ms
        return replace(found, state=int(state), activated_ms=now_ms if begins else found.activated_ms)

    return await change_subscriber(store, subscriber_id, change)


async def members(store: Store, account_id: bytes) -> AsyncIterator[list[Subscriber]]:
    """The subscribers that an account pays for, a page at a time, in no order. Raises StoreError."""
    cursor: Any = 0
    while True:
        cursor, names = await store.call("SSCAN", Keys.members(account_id), cursor, "COUNT", MEMBERS_A_PAGE)
        if names:
            values = await store.call("MGET", *(Keys.subscriber(name) for name in names))
            yield [unpack_subscriber(value) for value in values if value is not None]
        if int(cursor) == 0:
            return


async def _write(store: Store, before: Subscriber | None, after: Subscriber) -> bool:
    """False if somebody else was faster. Raises LedgerError if an identity is taken, StoreError."""
    held = () if before is None else before.identities
    wanted = [Keys.identity(*identity) for identity in after.identities]
    lost = [Keys.identity(*identity) for identity in held if identity not in after.identities]
    keys = [Keys.subscriber(after.subscriber_id), *wanted, *lost]
    expected = b"" if before is None else pack_subscriber(before)
    result = await store.run_script(_SCRIPT, keys, expected, pack_subscriber(after), len(wanted))
    if result:
        at, value = int(result[0]), result[1]
        if at == 0:
            return False
        owner = unpack_subscriber(value).subscriber_id.decode()
        raise LedgerError(
            f"identity {describe_identity(*after.identities[at - 1])} belongs to subscriber {owner} already; nothing "
            "was changed"
        )
    # A list for people and for administration; who pays is in the subscriber itself.
    if before is not None and before.account_id != after.account_id:
        await store.call("SREM", Keys.members(before.account_id), after.subscriber_id)
    if before is None or before.account_id != after.account_id:
        await store.call("SADD", Keys.members(after.account_id), after.subscriber_id)
    return True


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


def check_subscriber(subscriber: Subscriber) -> None:
    """Raises LedgerError, one sentence, for a subscriber that cannot be."""
    check_name("subscriber", subscriber.subscriber_id)
    check_name("account", subscriber.account_id)
    if not subscriber.plan:
        raise LedgerError("a subscriber needs a plan")
    if not subscriber.identities:
        raise LedgerError("a subscriber needs at least one identity, such as an MSISDN")
    if len(set(subscriber.identities)) != len(subscriber.identities):
        raise LedgerError("an identity is given twice")
    if min(subscriber.cap_day_micro, subscriber.cap_month_micro) < 0:
        raise LedgerError("a cap must not be negative")
    for kind, value in subscriber.identities:
        if kind not in _IDENTITIES:
            raise LedgerError(f"Subscription-Id-Type {kind} is not one of RFC 8506 section 8.47, 0 to 4")
        pattern, wanted = _IDENTITIES[kind]
        if len(value) > 255 or not pattern.fullmatch(value):
            raise LedgerError(f"{IdentityType(kind).name} {_quoted(value)} is malformed: it must be {wanted}")


def _quoted(value: bytes) -> str:
    return repr(value[:80].decode("utf-8", "replace"))
