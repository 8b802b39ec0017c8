"""How many sessions and reservations stand open in the whole store: what its servers count, added up.

Each server counts what it opens and closes itself, and now and then adds that to the totals here, so that every server
knows those of all. Totals go wrong by what a server that is killed had not added yet; a count of what really stands
open puts them right. Of servers that count at once, one corrects: the others find that a count has ended meanwhile.

================  ==========  =====================================================================================
key               type        value
================  ==========  =====================================================================================
``occ:open``      hash        ``sessions`` and ``reservations``; ``counts``: how often they were put right
================  ==========  =====================================================================================
"""

from typing import Any, Final, NamedTuple

from balance.keys import OPEN
from balance.store import Store

_ADD: Final = (
    "redis.call('HINCRBY', KEYS[1], 'sessions', ARGV[1]) redis.call('HINCRBY', KEYS[1], 'reservations', ARGV[2]) "
    "return redis.call('HMGET', KEYS[1], 'sessions', 'reservations', 'counts')"
)
_CORRECT: Final = (
    "if (redis.call('HGET', KEYS[1], 'counts') or '0') == ARGV[3] then "
    "redis.call('HINCRBY', KEYS[1], 'sessions', ARGV[1]) redis.call('HINCRBY', KEYS[1], 'reservations', ARGV[2]) "
    "redis.call('HINCRBY', KEYS[1], 'counts', 1) end "
    "return redis.call('HMGET', KEYS[1], 'sessions', 'reservations', 'counts')"
)


class OpenTotals(NamedTuple):
    """What stands open in the store, by what its servers have told."""

    sessions: int
    reservations: int
    counts: int
    """How often that was held against the accounts."""


async def add_open(store: Store, sessions: int, reservations: int) -> OpenTotals:
    """Add what one server has opened (or, below zero, closed) since it last did; the totals now. Raises StoreError."""
    if sessions or reservations:
        return _totals(await store.run_script(_ADD, [OPEN], sessions, reservations))
    return _totals(await store.call("HMGET", OPEN, "sessions", "reservations", "counts"))


async def correct_open(store: Store, before: OpenTotals, sessions: int, reservations: int) -> OpenTotals:
    """Put the totals right: ``sessions`` and ``reservations`` were found open since ``before`` was read.

    Nothing changes if another server has done so meanwhile. The totals now. Raises StoreError.
    """
    missing = (sessions - before.sessions, reservations - before.reservations)
    return _totals(await store.run_script(_CORRECT, [OPEN], *missing, before.counts))


def _totals(reply: Any) -> OpenTotals:
    sessions, reservations, counts = (int(each or 0) for each in reply)
    return OpenTotals(sessions, reservations, counts)
