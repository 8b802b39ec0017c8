"""Guessing made slow: how often somebody has failed at something of late, and how long to wait before the next try.

A try is counted before it is known what it comes to, so that many at once do not slip through together; one that
succeeds is taken off again. The first few are free; after them each further one has to wait twice as long as the one
before.

===============================  ==========  =====================================================================
key                              type        value
===============================  ==========  =====================================================================
``occ:tries:<kind>:<digest>``    string      tries that failed, or are under way; expires
``occ:wait:<kind>:<digest>``     string      no further try as long as it is there; expires
===============================  ==========  =====================================================================
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from balance.store import Store


@dataclass(frozen=True, slots=True)
class Limit:
    """What somebody may try. Times in milliseconds."""

    kind: str
    free: int = 5
    """Failures in a row that cost no waiting."""
    first_wait_ms: int = 1_000
    longest_wait_ms: int = 900_000
    forgotten_after_ms: int = 3_600_000
    """Since the last failure."""


TOKENS: Final = Limit("token", free=5, first_wait_ms=500, longest_wait_ms=60_000)
"""Tokens that do not exist, by the address that they come from."""
VOUCHERS_OF_ACCOUNT: Final = Limit("voucher-account", free=5, first_wait_ms=5_000)
VOUCHERS_OF_SOURCE: Final = Limit("voucher-source", free=100)
"""A source, such as a voice menu, speaks for many customers."""

_BEGIN: Final = """
local wait = redis.call('PTTL', KEYS[2])
if wait > 0 then return wait end
local tries = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local beyond = tries - tonumber(ARGV[2])
if beyond >= 0 then
  redis.call('SET', KEYS[2], tries, 'PX', math.min(tonumber(ARGV[4]), tonumber(ARGV[3]) * 2 ^ math.min(beyond, 30)))
end
return 0
"""


async def begin_try(store: Store, limit: Limit, who: str) -> int:
    """Count a try; how long to wait, in milliseconds, before it is allowed: 0, go ahead. Raises StoreError."""
    arguments = (limit.forgotten_after_ms, limit.free, limit.first_wait_ms, limit.longest_wait_ms)
    return int(await store.run_script(_BEGIN, _keys(store, limit, who), *arguments))


async def forget_tries(store: Store, limit: Limit, who: str) -> None:
    """Nothing has failed: whoever it is may begin from nothing. Raises StoreError."""
    await store.call("DEL", *_keys(store, limit, who))


async def take_back_try(store: Store, limit: Limit, who: str) -> None:
    """One try has succeeded; what others of the same source have failed at stays counted. Raises StoreError."""
    tries, _ = _keys(store, limit, who)
    await store.call("DECR", tries)
    await store.call("PEXPIRE", tries, limit.forgotten_after_ms)


def _keys(store: Store, limit: Limit, who: str) -> tuple[bytes, bytes]:
    digest = hashlib.sha256(who.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    tries, wait = f"occ:tries:{limit.kind}:{digest}", f"occ:wait:{limit.kind}:{digest}"
    return store.keys.together(tries.encode()), store.keys.together(wait.encode())
