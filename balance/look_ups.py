"""Who an identity is, and which account holds a session: what this process knows, and what the store says."""

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from balance.keys import Keys
from balance.model import Subscriber
from balance.nodes import Nodes
from balance.plans import Plan
from balance.records import unpack_subscriber
from balance.resp import NotPrimaryError, Reply, StoreError, StoreUnavailableError, as_store_error
from balance.store_statistics import StoreStatistics

log = logging.getLogger("balance.store")

SESSIONS_REMEMBERED: Final = 1_000_000
"""Sessions of which a worker knows the account by itself; those that another worker closed would else stay for ever."""

ENDED_REMEMBERED: Final = 50_000
"""Sessions that have ended of which a worker remembers what they were answered, if it is to."""

DROPPED: Final = 256
"""Entries that make way for new ones at a time."""

CHANGED_AT_ONCE: Final = 2_000
"""If more identities than this change at once, all are asked for again; to look at each would take milliseconds."""

UNWATCHED: Final = 0
"""No watch of changes has this name."""

Identity = tuple[int, bytes]
"""Subscription-Id-Type and Subscription-Id-Data."""

Known = tuple[Subscriber, int, int]
"""With when it was asked for (ms), and the watch that would have told of a change."""

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


def drop_oldest(known: dict[Any, Any], most: int) -> None:
    """Make room in what is to hold ``most`` entries, for some at a time: to find the first one that is left, a dict
    passes by all that are gone.
    """
    for key in list(islice(known, max(1, min(DROPPED, most // 16)))):
        del known[key]


class Subscribers:
    """The subscriber directory.

    What was asked for is used for ``cache_ms``; while the store tells of changes (``balance.directory_watch``), for as
    long as it tells of none. What has changed is kept for when the store cannot be asked.
    """

    __slots__ = (
        "_before", "_cache_entries", "_changes", "_keys", "_known", "_nodes", "_statistics", "_trusted_until_ms",
        "_watch", "cache_ms",
    )  # fmt: skip

    def __init__(
        self, keys: Keys, nodes: Nodes, statistics: StoreStatistics, cache_entries: int, cache_ms: int
    ) -> None:
        self._keys = keys
        self._nodes = nodes
        self._statistics = statistics
        self._cache_entries = cache_entries
        self.cache_ms = cache_ms
        self._known: dict[Identity, Known] = {}
        self._before: dict[Identity, Known] = {}
        """What was known of identities that have changed since."""
        self._watch = 1
        """Which watch of changes goes on; those before it may have missed some."""
        self._trusted_until_ms = 0
        """Until when it is certain enough that the store would have told of a change."""
        self._changes = 0
        """Whatever was asked for before this was raised may have changed before it was answered."""

    def find(self, kind: int, value: bytes, now_ms: int, done: OnSubscriber) -> None:
        """The subscriber an identity belongs to, or None."""
        known = self._known.get((kind, value))
        if known is not None:
            subscriber, asked_ms, watch = known
            if (watch == self._watch and now_ms < self._trusted_until_ms) or now_ms - asked_ms < self.cache_ms:
                done(subscriber)
                return
        key = self._keys.identity(kind, value)
        route = self._nodes.route(key)
        if route is None or route.lost:
            done(unreachable())
            return
        self._statistics.reads += 1
        route.send((b"GET", key), _SubscriberAsked(self, kind, value, now_ms, self._changes, done).on_reply)

    def remembered(self, kind: int, value: bytes) -> Subscriber | None:
        """What was last known of an identity, however long ago."""
        known = self._known.get((kind, value)) or self._before.get((kind, value))
        return None if known is None else known[0]

    def read(
        self, kind: int, value: bytes, now_ms: int, changes: int, reply: Reply
    ) -> "Subscriber | StoreError | None":
        """What the store says of an identity. ``changes``: how many had been told of when it was asked."""
        if isinstance(reply, Exception):
            return failure(self._nodes, reply)
        identity = (kind, value)
        # What is read anew is the newest.
        self._known.pop(identity, None)
        self._before.pop(identity, None)
        if reply is None:
            return None
        try:
            subscriber = unpack_subscriber(reply)
        except Exception as error:  # whatever msgpack and the fields make of foreign octets
            log.error("the record of identity %r cannot be read: %s", value, error)
            return StoreError(f"the record of an identity cannot be read: {error}")
        if len(self._known) + len(self._before) >= self._cache_entries:
            drop_oldest(self._before or self._known, self._cache_entries)
        # Replies and changes come by two connections: this reply may be older than a change that was told meanwhile.
        self._known[identity] = (subscriber, now_ms, self._watch if changes == self._changes else UNWATCHED)
        return subscriber

    # -- changes, as the store tells of them -----------------------------------------------------------------------

    def doubt(self) -> int:
        """The store may have changed untold. Returns what ``watched`` is to be given when that is over."""
        self._changes += 1
        self._watch += 1
        self._trusted_until_ms = 0
        self._statistics.directory_watched = False
        return self._watch

    def watched(self, doubt: int) -> int:
        """Every change is told from now on. Returns the name of the watch; 0: there has been another ``doubt``."""
        return self.doubt() if self._watch == doubt else 0

    def heard(self, watch: int, until_ms: int) -> bool:
        """What changed has been told, or will have been by ``until_ms``. False: the watch is over."""
        if watch != self._watch:
            return False
        self._trusted_until_ms = until_ms
        self._statistics.directory_watched = True
        return True

    def changed(self, keys: list[bytes] | None) -> None:
        """These keys of the store have changed; None: all of them."""
        self._changes += 1
        if keys is None or len(keys) > CHANGED_AT_ONCE:
            self._statistics.directory_changes += len(self._known) if keys is None else len(keys)
            if self._before:
                self._before.update(self._known)
            else:
                self._before = self._known
            self._known = {}
            return
        self._statistics.directory_changes += len(keys)
        for key in keys:
            identity = self._keys.identity_of(key)
            if identity is not None:
                known = self._known.pop(identity, None)
                if known is not None:
                    self._before[identity] = known


class _SubscriberAsked:
    """One question under way."""

    __slots__ = ("changes", "directory", "done", "kind", "now_ms", "value")

    def __init__(
        self, directory: Subscribers, kind: int, value: bytes, now_ms: int, changes: int, done: OnSubscriber
    ) -> None:
        self.directory = directory
        self.kind = kind
        self.value = value
        self.now_ms = now_ms
        self.changes = changes
        self.done = done

    def on_reply(self, reply: Reply) -> None:
        self.done(self.directory.read(self.kind, self.value, self.now_ms, self.changes, reply))


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
            drop_oldest(self._accounts, SESSIONS_REMEMBERED)  # the directory in Redis still knows them
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
            drop_oldest(self._ended, ENDED_REMEMBERED)
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
