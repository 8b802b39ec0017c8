"""Who an identity is, and which account holds a session: what this process knows, and what the store says."""

import logging
from collections.abc import Callable
from typing import Any, Final

from balance.keys import Keys
from balance.model import Plan, Subscriber
from balance.nodes import Nodes
from balance.records import unpack_subscriber
from balance.resp import NotPrimaryError, Reply, StoreError, StoreUnavailableError, as_store_error
from balance.store_statistics import StoreStatistics

log = logging.getLogger("balance.store")

SESSIONS_REMEMBERED: Final = 1_000_000
"""Sessions of which a worker knows the account by itself; those that another worker closed would else stay for ever."""

ENDED_REMEMBERED: Final = 50_000
"""Sessions that have ended of which a worker remembers what they were answered, if it is to."""

OnSubscriber = Callable[["Subscriber | StoreError | None"], None]
OnAccountId = Callable[["bytes | StoreError | None"], None]


def failure(nodes: Nodes, reply: Exception) -> StoreError:
    """The error that a reply of Redis is; of a server that has become a replica nothing is asked any more."""
    error = as_store_error(reply, "Redis refused: ")
    if isinstance(error, NotPrimaryError):
        nodes.not_primary()
    return error


def unreachable() -> StoreUnavailableError:
    return StoreUnavailableError("the store cannot be reached")


def ignore(reply: Reply) -> None:
    """To what nobody waits for."""


class Subscribers:
    """The subscriber directory."""

    __slots__ = ("_cache_entries", "_cache_ms", "_keys", "_known", "_nodes", "_statistics")

    def __init__(
        self, keys: Keys, nodes: Nodes, statistics: StoreStatistics, cache_entries: int, cache_ms: int
    ) -> None:
        self._keys = keys
        self._nodes = nodes
        self._statistics = statistics
        self._cache_entries = cache_entries
        self._cache_ms = cache_ms
        self._known: dict[tuple[int, bytes], tuple[Subscriber, int]] = {}

    def find(self, kind: int, value: bytes, now_ms: int, done: OnSubscriber) -> None:
        """The subscriber an identity belongs to, or None."""
        known = self._known.get((kind, value))
        if known is not None and now_ms - known[1] < self._cache_ms:
            done(known[0])
            return
        key = self._keys.identity(kind, value)
        route = self._nodes.route(key)
        if route is None or route.lost:
            done(unreachable())
            return
        self._statistics.reads += 1
        route.send((b"GET", key), _SubscriberAsked(self, kind, value, now_ms, done).on_reply)

    def remembered(self, kind: int, value: bytes) -> Subscriber | None:
        """What was last known of an identity, however long ago."""
        known = self._known.get((kind, value))
        return None if known is None else known[0]

    def read(self, kind: int, value: bytes, now_ms: int, reply: Reply) -> "Subscriber | StoreError | None":
        """What the store says of an identity."""
        if isinstance(reply, Exception):
            return failure(self._nodes, reply)
        if reply is None:
            self._known.pop((kind, value), None)
            return None
        try:
            subscriber = unpack_subscriber(reply)
        except Exception as error:  # whatever msgpack and the fields make of foreign octets
            log.error("the record of identity %r cannot be read: %s", value, error)
            return StoreError(f"the record of an identity cannot be read: {error}")
        if len(self._known) >= self._cache_entries:
            self._known.pop(next(iter(self._known)))
        self._known[(kind, value)] = (subscriber, now_ms)
        return subscriber


class _SubscriberAsked:
    """One question under way."""

    __slots__ = ("directory", "done", "kind", "now_ms", "value")

    def __init__(self, directory: Subscribers, kind: int, value: bytes, now_ms: int, done: OnSubscriber) -> None:
        self.directory = directory
        self.kind = kind
        self.value = value
        self.now_ms = now_ms
        self.done = done

    def on_reply(self, reply: Reply) -> None:
        self.done(self.directory.read(self.kind, self.value, self.now_ms, reply))


class Sessions:
    """The session directory: for requests that name only their session."""

    __slots__ = ("_accounts", "_ended", "_keys", "_nodes", "_statistics", "_ttl_s", "remembers_ended")

    def __init__(self, keys: Keys, nodes: Nodes, statistics: StoreStatistics, ttl_s: int) -> None:
        self._keys = keys
        self._nodes = nodes
        self._statistics = statistics
        self._ttl_s = ttl_s
        self._accounts: dict[bytes, bytes] = {}
        self.remembers_ended = False
        """What sessions that end were answered is remembered, see ``answers_of_ended``."""
        self._ended: dict[bytes, tuple[bytes, bytes]] = {}

    def note(self, account_id: bytes, plan: Plan) -> None:
        """Note which account holds a session. That of an ended session is kept for as long as its answers are.

        On a single server the commit has written it into the directory.
        """
        clustered = self._keys.clustered
        if plan.opened:
            self._remember(account_id, plan.opened)
            if clustered:
                self._write((b"SET", self._keys.session(plan.opened), account_id, b"EX", self._ttl_s))
        if plan.closed:
            self._accounts.pop(plan.closed, None)
            if clustered:
                ttl_ms = max(1, plan.ended_ttl_ms)
                self._write((b"SET", self._keys.session(plan.closed), account_id, b"PX", ttl_ms))

    def note_again(self, account_id: bytes, session_id: bytes) -> None:
        """The same of a session that was opened before: whoever did it may have been killed before he noted it."""
        self._remember(account_id, session_id)
        self._write((b"SET", self._keys.session(session_id), account_id, b"EX", self._ttl_s, b"NX"))

    def _remember(self, account_id: bytes, session_id: bytes) -> None:
        if len(self._accounts) >= SESSIONS_REMEMBERED:
            self._accounts.pop(next(iter(self._accounts)))  # the directory in Redis still knows it
        self._accounts[session_id] = account_id

    def _write(self, command: tuple[Any, ...]) -> None:
        """It only speeds things up: losing it costs a look-up."""
        route = self._nodes.route(command[1])
        if route is not None and not route.lost:
            route.send(command, ignore)

    def remember_ended(self, plan: Plan) -> None:
        """Keep what a session that ended was answered, if that is wanted."""
        ended = plan.ended
        if ended is None or not self.remembers_ended:
            return
        if len(self._ended) >= ENDED_REMEMBERED:
            self._ended.pop(next(iter(self._ended)))
        self._ended[ended.session_id] = ended.origin_host, ended.answers

    def answers_of_ended(self, session_id: bytes) -> tuple[bytes, bytes]:
        """Whose a session was that was seen to end here, and what it was answered; both empty if not known."""
        return self._ended.get(session_id, (b"", b""))

    def account_of(self, session_id: bytes) -> bytes | None:
        """The account that holds a session, as far as it is known here."""
        return self._accounts.get(session_id)

    def find(self, session_id: bytes, done: OnAccountId) -> None:
        """The account that holds a session, as the store has it, or None."""
        key = self._keys.session(session_id)
        route = self._nodes.route(key)
        if route is None or route.lost:
            done(unreachable())
            return
        self._statistics.reads += 1
        route.send((b"GET", key), _SessionAsked(self._nodes, done).on_reply)


class _SessionAsked:
    """One question under way."""

    __slots__ = ("done", "nodes")

    def __init__(self, nodes: Nodes, done: OnAccountId) -> None:
        self.nodes = nodes
        self.done = done

    def on_reply(self, reply: Reply) -> None:
        self.done(failure(self.nodes, reply) if isinstance(reply, Exception) else reply)
