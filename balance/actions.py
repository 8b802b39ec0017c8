"""Acts on balances that somebody asked for from outside, each with a document that tells of it, and who hears of them.

An act is entered before money moves and finished after it, so that one that was cut off is known. Its name comes from
the reference of whoever asked: the same reference finds the same act. That money moves once is the ledger's affair,
which is given the act's name as its reference. With the change of an act's status goes the event that tells of it, in
one script call.

===============================  ==========  =====================================================================
key                              type        value
===============================  ==========  =====================================================================
``action:<name>``                hash        ``kind``, ``asked`` (digest of the request), ``at`` (ms), ``status``,
                                             ``document`` (text), ``private`` (text); expires after ``KEPT_MS``
``actions:<kind>``               sorted set  names by time (ms)
``action-events``                stream      ``type``, ``at`` (ms), ``document``: what subscriptions are told
``subscriptions``                hash        by id, msgpack: callback, query, created (ms), by, entry told last
``subscriptions-lease``          string      the process that tells them; expires
===============================  ==========  =====================================================================
"""

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

import msgpack

from balance.directory import REFERENCE_TTL_MS
from balance.model import LedgerError
from balance.resp import StoreError
from balance.store import Store

KEPT_MS: Final = 400 * 86_400_000
"""How long an act can be looked up; what it did to the account is in the journal for ever."""
REPEATABLE_MS: Final = REFERENCE_TTL_MS - 86_400_000
"""An act that was cut off can be completed for so long: the ledger then still knows its reference."""
EVENTS_KEPT: Final = 100_000
SUBSCRIPTIONS: Final = b"subscriptions"
LARGEST_NUMBER_OF_SUBSCRIPTIONS: Final = 100
LEASE: Final = b"subscriptions-lease"

CREATED: Final = "created"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

_FIELDS: Final = ("kind", "asked", "at", "status", "document", "private")

_ENTER: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'kind', ARGV[1], 'asked', ARGV[2], 'at', ARGV[3], 'status', 'created',
  'document', ARGV[4], 'private', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[7])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[3] - ARGV[6])
return 1
"""

_FINISH: Final = """
local was = redis.call('HGET', KEYS[1], 'status')
if was ~= ARGV[1] then return was or '' end
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'document', ARGV[3], 'private', ARGV[4])
if ARGV[5] ~= '' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'type', ARGV[5], 'at', ARGV[7], 'document', ARGV[3])
end
return ARGV[2]
"""


@dataclass(frozen=True, slots=True)
class Action:
    """One act."""

    name: str
    kind: str
    asked: str
    """Digest of what was asked for: the same reference must not stand for something else."""
    at_ms: int
    status: str
    """CREATED, COMPLETED, FAILED or CANCELLED."""
    document: str
    """What people are shown, JSON."""
    private: str
    """What it did, JSON, for whoever completes or cancels it."""


@dataclass(frozen=True, slots=True)
class Event:
    """What subscriptions are told."""

    entry: str
    type: str
    at_ms: int
    document: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """Somebody who wants to hear of events."""

    subscription_id: str
    callback: str
    query: str
    created_ms: int
    created_by: str
    told: str
    """Entry of the event that it was told last."""


def action_name(kind: str, reference: str | None) -> str:
    """The name of the act that a reference stands for; without one, a name that nothing has yet."""
    if reference is None:
        return secrets.token_hex(16)
    return hashlib.sha256(f"{kind}\0{reference}".encode()).hexdigest()[:32]


async def enter_action(store: Store, new: Action) -> Action:
    """Enter an act that begins, or find the one of that name. ``new.status`` must be CREATED.

    Raises LedgerError if the name stands for something else, or for an act that was cut off too long ago; StoreError.
    """
    arguments = (new.kind, new.asked, new.at_ms, new.document, new.private, KEPT_MS, new.name)
    if await store.run_script(_ENTER, (_key(store, new.name), _index(store, new.kind)), *arguments):
        return new
    found = await read_action(store, new.name)
    if found is None:
        raise StoreError("the act has just expired; try again")
    if found.asked != new.asked:
        raise LedgerError("the reference was used before, for another request; nothing was changed")
    if found.status == CREATED and new.at_ms - found.at_ms > REPEATABLE_MS:
        raise LedgerError(
            "the act was cut off days ago; see in the history of the account whether it was done, and use another "
            "reference if not"
        )
    return found


async def finish_action(
    store: Store, action: Action, status: str, document: str, private: str, event: str, now_ms: int
) -> bool:
    """Have an act come from the status it has in ``action`` to another one; False if it has left that meanwhile.

    ``event``: the type of what is told; empty: nothing is. Raises StoreError.
    """
    arguments = (action.status, status, document, private, event, EVENTS_KEPT, now_ms)
    reply = await store.run_script(_FINISH, (_key(store, action.name), _events(store)), *arguments)
    return bytes(reply) == status.encode()


async def read_action(store: Store, name: str) -> Action | None:
    """The act of that name, or None. Raises StoreError."""
    return _action(name, await store.call("HMGET", _key(store, name), *_FIELDS))


async def actions(store: Store, kind: str) -> list[Action]:
    """All acts of a kind, the newest first. Raises StoreError."""
    names = [name.decode() for name in await store.call("ZREVRANGE", _index(store, kind), 0, -1)]
    found = await asyncio.gather(*(read_action(store, name) for name in names))
    return [each for each in found if each is not None]


def _action(name: str, fields: list[bytes | None]) -> Action | None:
    kind, asked, at_ms, status, document, private = (None if each is None else each.decode() for each in fields)
    if kind is None or asked is None or at_ms is None or status is None or document is None or private is None:
        return None
    return Action(name, kind, asked, int(at_ms), status, document, private)


def _key(store: Store, name: str) -> bytes:
    return store.keys.together(b"action:" + name.encode("utf-8", "surrogateescape"))


def _index(store: Store, kind: str) -> bytes:
    return store.keys.together(b"actions:" + kind.encode())


def _events(store: Store) -> bytes:
    return store.keys.together(b"action-events")


# -- who hears of them -------------------------------------------------------------------------------------------------


async def subscribe(store: Store, callback: str, query: str, now_ms: int, by: str) -> Subscription:
    """Have somebody hear of what happens from now on. Raises LedgerError if there are too many already, StoreError."""
    if int(await store.call("HLEN", SUBSCRIPTIONS)) >= LARGEST_NUMBER_OF_SUBSCRIPTIONS:
        raise LedgerError(f"there are {LARGEST_NUMBER_OF_SUBSCRIPTIONS} subscriptions already; end one first")
    newest = await store.call("XREVRANGE", _events(store), "+", "-", "COUNT", 1)
    told = newest[0][0].decode() if newest else "0-0"
    new = Subscription(secrets.token_hex(8), callback, query, now_ms, by, told)
    await _write(store, new)
    return new


async def subscriptions(store: Store) -> list[Subscription]:
    """All subscriptions, the oldest first. Raises StoreError."""
    found = await store.call("HGETALL", SUBSCRIPTIONS)
    try:
        every = [Subscription(found[at].decode(), *msgpack.unpackb(found[at + 1])) for at in range(0, len(found), 2)]
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise StoreError(f"a subscription is damaged in the store: {error}") from error
    return sorted(every, key=lambda each: (each.created_ms, each.subscription_id))


async def unsubscribe(store: Store, subscription_id: str) -> bool:
    """End a subscription; whether there was one. Raises StoreError."""
    return bool(await store.call("HDEL", SUBSCRIPTIONS, subscription_id.encode("utf-8", "surrogateescape")))


async def events_after(store: Store, subscription: Subscription, limit: int) -> list[Event]:
    """What a subscription has not been told yet, the oldest first. Raises StoreError."""
    page = await store.call("XRANGE", _events(store), b"(" + subscription.told.encode(), "+", "COUNT", limit)
    found = []
    for entry, flat in page:
        fields = dict(zip(flat[::2], flat[1::2], strict=False))
        document = fields.get(b"document", b"{}").decode()
        found.append(Event(entry.decode(), fields.get(b"type", b"").decode(), int(fields.get(b"at", 0)), document))
    return found


async def note_told(store: Store, subscription: Subscription, entry: str) -> Subscription:
    """A subscription has been told up to an event, unless it has ended meanwhile. Raises StoreError."""
    told = Subscription(
        subscription.subscription_id,
        subscription.callback,
        subscription.query,
        subscription.created_ms,
        subscription.created_by,
        entry,
    )
    if await store.call("HEXISTS", SUBSCRIPTIONS, subscription.subscription_id):
        await _write(store, told)
    return told


async def may_tell(store: Store, process: str, for_ms: int) -> bool:
    """Whether this process is the one that tells subscriptions, for so long. Raises StoreError."""
    if await store.call("SET", LEASE, process, "NX", "PX", for_ms) is not None:
        return True
    if await store.call("GET", LEASE) != process.encode():
        return False
    await store.call("PEXPIRE", LEASE, for_ms)
    return True


async def _write(store: Store, new: Subscription) -> None:
    fields = (new.callback, new.query, new.created_ms, new.created_by, new.told)
    await store.call("HSET", SUBSCRIPTIONS, new.subscription_id, msgpack.packb(fields))
