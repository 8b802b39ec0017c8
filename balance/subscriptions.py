"""Sy subscriptions in the store: which PCRF wants to hear of which policy counters, and what it was last told.

A subscription is kept with the account that pays for its subscriber, so that a change of the account finds all of them
with one look-up. Whoever writes one says what it expects to find; the answer to the request that it comes of is written
in the same script call, so that a repeat of the request gets that answer whatever has changed since.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgpack

from balance.resp import StoreError
from balance.store import Store

MOST_OF_AN_ACCOUNT: Final = 256
"""Subscriptions that an account can have; a PCRF that never ends its sessions must not fill the store."""
SCAN_COUNT: Final = 500

Told = dict[str, tuple[str, tuple[tuple[str, int], ...]]]
"""Policy counter -> (status, pending statuses: (status, from when on in ms), sorted by time)."""

_SCRIPT: Final = (Path(__file__).parent / "scripts" / "subscription.lua").read_text(encoding="utf-8")
_CLAIM: Final = (
    "local holder = redis.call('GET', KEYS[1]) if holder and holder ~= ARGV[1] then return 0 end "
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1"
)
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0"
_pack = msgpack.Packer(autoreset=True).pack


@dataclass(slots=True)
class Subscription:
    """One Sy session: what a PCRF has subscribed to for one subscriber (TS 29.219 clause 4.5.1)."""

    session_id: bytes
    account_id: bytes
    subscriber_id: bytes
    origin_host: bytes
    """Of the PCRF."""
    realm: bytes
    via: bytes
    """Diameter identity of the peer that its last request came by: the PCRF itself, or an agent."""
    counters: tuple[str, ...]
    """Policy-Counter-Identifiers; empty: all that the account has."""
    told: Told = field(default_factory=dict)
    """What the PCRF was last told, and has acknowledged."""
    told_ms: int = 0
    """When that was."""
    aborted: bool = False
    """The PCRF was asked to end the session: nothing more is told (clause 4.5.4)."""

    def wants(self, counter: str) -> bool:
        return not self.counters or counter in self.counters


@dataclass(slots=True, frozen=True)
class Kept:
    """A subscription, and the value it was read from: what it is now, for whoever wants to change it."""

    subscription: Subscription
    value: bytes


class SubscriptionChangedError(Exception):
    """Somebody else has changed the subscription since it was read; nothing was written."""


class AnsweredError(Exception):
    """The request has been answered already; nothing was written. ``answer``: what was kept."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("the request has been answered already")
        self.answer = answer


@dataclass(slots=True, frozen=True)
class Answer:
    """What a request is answered, to be kept for its repeats."""

    request: bytes
    """What the request is known by: who sent it, under which End-to-End Identifier, for which session."""
    answer: bytes
    kept_ms: int


# -- reading -----------------------------------------------------------------------------------------------------


async def find_subscription(store: Store, session_id: bytes) -> Kept | None:
    """The subscription of a Session-Id, or None. Raises StoreError."""
    account_id = await store.call("GET", store.keys.sy_session(session_id))
    return None if account_id is None else await read_subscription(store, account_id, session_id)


async def read_subscription(store: Store, account_id: bytes, session_id: bytes) -> Kept | None:
    """The subscription of a Session-Id that is kept with an account, or None. Raises StoreError."""
    value = await store.call("HGET", store.keys.sy_subscriptions(account_id), session_id)
    return None if value is None else Kept(_unpack(account_id, session_id, value), value)


async def subscriptions_of(store: Store, account_id: bytes) -> list[Kept]:
    """All subscriptions that are kept with an account. Raises StoreError."""
    found = await store.call("HGETALL", store.keys.sy_subscriptions(account_id))
    return [
        Kept(_unpack(account_id, session_id, value), value)
        for session_id, value in zip(found[::2], found[1::2], strict=True)
    ]


async def accounts_with_subscriptions(store: Store) -> AsyncIterator[list[bytes]]:
    """Accounts that subscriptions are kept with, a page at a time, by SCAN: some perhaps twice. Raises StoreError."""
    pattern, begin = ("{sy}of:*", b"{sy}of:") if store.keys.clustered else ("{p*}:sy:*", b"}:sy:")
    async for found in store.scan(pattern, SCAN_COUNT, "hash"):
        accounts = [account for key in found for _, mark, account in (key.partition(begin),) if mark]
        # The pattern alone would also match what a client put into a Session-Id.
        keys = set(found)
        ours = [each for each in accounts if store.keys.sy_subscriptions(each) in keys]
        if ours:
            yield ours


async def count_subscriptions(store: Store) -> int:
    """How many subscriptions the store has. Raises StoreError."""
    return int(await store.call("GET", store.keys.sy_count) or 0)


# -- writing -----------------------------------------------------------------------------------------------------


async def make_room(store: Store, account_id: bytes) -> Subscription | None:
    """Before an account gets one more: strike the subscription that was told least lately, if it has too many.

    That subscription, or None. Raises StoreError.
    """
    if await store.call("HLEN", store.keys.sy_subscriptions(account_id)) < MOST_OF_AN_ACCOUNT:
        return None
    oldest = min(await subscriptions_of(store, account_id), key=lambda kept: kept.subscription.told_ms)
    try:
        await write_subscription(store, oldest, None)
    except SubscriptionChangedError:
        return None  # it is in use; the next one that comes makes room
    return oldest.subscription


async def write_subscription(
    store: Store, known: Kept | None, after: Subscription | None, answer: Answer | None = None
) -> int:
    """Write a subscription that was ``known``, or not there; without ``after`` strike it. How many there are then.

    A subscription stays with its account: to move it, strike it and write it anew. Raises SubscriptionChangedError,
    AnsweredError, StoreError.
    """
    one = after if after is not None else known.subscription if known is not None else None
    if one is None:
        raise ValueError("there is nothing to write")
    reply = await store.run_script(
        _SCRIPT,
        [
            store.keys.sy_subscriptions(one.account_id),
            store.keys.sy_session(one.session_id),
            store.keys.sy_answer(answer.request if answer is not None else b""),
            store.keys.sy_count,
        ],
        one.session_id,
        known.value if known is not None else b"",
        pack_subscription(after) if after is not None else b"",
        one.account_id,
        answer.answer if answer is not None else b"",
        answer.kept_ms if answer is not None else 0,
    )
    what, value = reply
    if what == b"answered":
        raise AnsweredError(value)
    if what == b"changed":
        raise SubscriptionChangedError
    return int(value)


async def find_answer(store: Store, request: bytes) -> bytes | None:
    """What a request was answered a short while ago, or None. Raises StoreError."""
    value: bytes | None = await store.call("GET", store.keys.sy_answer(request))
    return value


async def keep_answer(store: Store, answer: Answer) -> bytes:
    """Keep the answer to a request that changes nothing; the one that it has already, if it has. Raises StoreError."""
    key = store.keys.sy_answer(answer.request)
    if await store.call("SET", key, answer.answer, "NX", "PX", answer.kept_ms) is not None:
        return answer.answer
    return await store.call("GET", key) or answer.answer


# -- one worker at a time tells a PCRF ---------------------------------------------------------------------------


async def begin_push(store: Store, session_id: bytes, worker: bytes, for_ms: int) -> bool:
    """Be the one that tells a subscription what has changed, or go on being it, for so long; False: another worker is.

    So what the PCRF is told comes in the order in which it changed. Raises StoreError.
    """
    return bool(await store.run_script(_CLAIM, [store.keys.sy_push(session_id)], worker, for_ms))


async def end_push(store: Store, session_id: bytes, worker: bytes) -> None:
    """Let others. Raises StoreError."""
    await store.run_script(_RELEASE, [store.keys.sy_push(session_id)], worker)


# -- as it is written down ---------------------------------------------------------------------------------------


def pack_subscription(subscription: Subscription) -> bytes:
    packed: bytes = _pack(
        (
            subscription.subscriber_id,
            subscription.origin_host,
            subscription.realm,
            subscription.via,
            subscription.counters,
            subscription.told,
            subscription.told_ms,
            subscription.aborted,
        )
    )
    return packed


def _unpack(account_id: bytes, session_id: bytes, value: bytes) -> Subscription:
    try:
        found = msgpack.unpackb(value, raw=False, use_list=False)
        subscriber_id, origin_host, realm, via, counters, told, told_ms, aborted = found
        return Subscription(
            session_id, account_id, subscriber_id, origin_host, realm, via, counters, dict(told), told_ms, aborted
        )
    except (msgpack.UnpackException, TypeError, ValueError) as error:
        raise StoreError(f"Sy subscription {session_id!r} of account {account_id!r} is damaged: {error}") from error
