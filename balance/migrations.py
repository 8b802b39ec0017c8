"""Data of earlier versions are brought forward, a format at a time; those of a later version are left alone.

``occ:layout`` says which format a store is in. The first process that finds an older one takes a lock and runs the
migrations from it to ``FORMAT``; others wait. A migration looks at every value it concerns, leaves those that are in
the new format already, and replaces each other one only if nobody has changed it meanwhile. So it may be killed at any
time: whoever comes next begins it again and finds what is done, done. The format is raised when all is.

Processes of the earlier version must have been stopped: they would not understand what they read.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from balance import answers
from balance.keys import LAYOUT, MIGRATION, Keys
from balance.records import VERSION_BYTES
from balance.resp import Reply, StoreError

log = logging.getLogger("balance.store")

FORMAT: Final = 3
"""How accounts and sessions are written down (``balance.records``); raised when older ones cannot be read any more."""

LOCK_MS: Final = 15_000
"""A process that has not shown life for so long does not migrate any more."""
RENEW_S: Final = 3.0
LOOK_S: Final = 0.2
PAGE: Final = 500

_REPLACE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""
_RENEW: Final = (
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1"
)
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0"


@dataclass(frozen=True, slots=True)
class Data:
    """The data of a store, whatever serves them."""

    call: Callable[..., Awaitable[Reply]]
    """One command, to the server of its key. Raises StoreError."""
    scan: Callable[[str, int], AsyncIterator[list[bytes]]]
    """The keys that fit a pattern, a page at a time, some perhaps twice. Raises StoreError."""


Migration = Callable[[Data], Awaitable[int]]
"""Brings the data from one format to the next; how many values it has replaced. Raises StoreError."""


async def bring_forward(data: Data, migrations: Mapping[int, Migration] | None = None, newest: int = FORMAT) -> None:
    """Have the data in the newest format. Raises StoreError for a newer one, and for one too old to bring forward."""
    known = MIGRATIONS if migrations is None else migrations
    token = secrets.token_hex(8).encode()
    told = False
    while (found := await _format(data)) != newest:
        if found > newest:
            raise StoreError(
                f"its data are of format {found} and this version reads format {newest}; "
                "use the version that wrote them"
            )
        if found not in known:
            raise StoreError(
                f"its data are of format {found} and this version reads format {newest}, and none in between can be "
                "made of them; start with an empty store, or use the version that wrote them"
            )
        if await data.call("SET", MIGRATION, token, "NX", "PX", LOCK_MS) is None:
            if not told:
                log.warning("another process brings the data from format %d to %d; waiting for it", found, newest)
                told = True
            await asyncio.sleep(LOOK_S)
            continue
        await _one_step(data, known[found], found, token)


async def _format(data: Data) -> int:
    return int(await data.call("HGET", LAYOUT, "format") or 1)


async def _one_step(data: Data, migration: Migration, found: int, token: bytes) -> None:
    """One migration, with the lock held."""
    tasks: list[asyncio.Future[Any]] = []
    try:
        if await _format(data) != found:
            return  # whoever had the lock before has just finished
        running: asyncio.Future[int] = asyncio.ensure_future(migration(data))
        keeping = asyncio.ensure_future(_keep_lock(data, token))
        tasks = [running, keeping]
        log.warning("the data are brought from format %d to %d", found, found + 1)
        await asyncio.wait((running, keeping), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            keeping.result()  # raises
        replaced = running.result()
        await data.call("HSET", LAYOUT, "format", found + 1)
        log.warning("the data are of format %d now; %d values were replaced", found + 1, replaced)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await data.call("EVAL", _RELEASE, 1, MIGRATION, token)


async def _keep_lock(data: Data, token: bytes) -> None:
    """Raises StoreError when somebody else has it."""
    while True:
        await asyncio.sleep(RENEW_S)
        if not await data.call("EVAL", _RENEW, 1, MIGRATION, token, LOCK_MS):
            raise StoreError("another process has taken the migration over")


async def replace_values(data: Data, pattern: str, renew: Callable[[bytes], bytes | None]) -> int:
    """Replace what ``renew`` makes another value of (None: it stays), under all keys that fit; how many those were.

    Raises StoreError, also for a value that cannot be read.
    """

    async def one(key: bytes) -> bool:
        while True:
            value = await data.call("GET", key)
            if value is None:
                return False
            try:
                new = renew(value)
            except (TypeError, ValueError, IndexError, msgpack.UnpackException) as error:
                raise StoreError(f"the value of {key.decode(errors='replace')} is damaged: {error}") from error
            if new is None:
                return False
            if await data.call("EVAL", _REPLACE, 1, key, value, new):
                return True

    replaced = 0
    async for page in data.scan(pattern, PAGE):
        replaced += sum(await asyncio.gather(*(one(key) for key in page)))
    return replaced


async def scan_by(call: Callable[..., Awaitable[Reply]], pattern: str, count: int) -> AsyncIterator[list[bytes]]:
    """The keys of one server. Raises StoreError."""
    cursor: Any = 0
    while True:
        cursor, found = await call("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "string")
        if found:
            yield found
        if int(cursor) == 0:
            return


# -- from format 1 to 2: the answers of a session are one string of octets ---------------------------------------------

_ANSWERS: Final = 11
"""Where the answers stand among the fields of a session, in both formats."""
_FIRST_RELEASE: Final = 12
"""Fields of a session in the first release; later ones of format 1 have four more."""
_USUAL: Final = 13
"""Fields that format 2 has of every service of a session, before ``taken`` and ``reasons``."""
_SERVICE_OF_1: Final[tuple[Any, ...]] = (0, (), 0, 0, (), (), "", ())
"""The rest of a service in format 1, where it has less: earlier_micro, ahead, pool, final, terms, allowances, zone,
meters."""
_USUAL_OF_1: Final = (0, 1, 0)
"""disbelieved, step_units, step_price_micro."""


async def to_format_2(data: Data) -> int:
    replaced = await replace_values(data, "{p*}:a:*", account_of_1)
    return replaced + await replace_values(data, "{p*}:e:*", ended_of_1)


def account_of_1(value: bytes) -> bytes | None:
    """An account of format 1 in format 2; None for one that is. Raises ValueError."""
    fields = msgpack.unpackb(value[VERSION_BYTES:], use_list=False)
    if all(isinstance(session[_ANSWERS], bytes) for session in fields[5]):
        return None
    sessions = [_session_of_1(session) for session in fields[5]]
    packed: bytes = msgpack.packb((*fields[:5], sessions, *fields[6:]))
    return value[:VERSION_BYTES] + packed


def ended_of_1(value: bytes) -> bytes | None:
    """An ended session of format 1 in format 2; None for one that is. Raises ValueError."""
    fields = msgpack.unpackb(value, use_list=False)
    if isinstance(fields[_ANSWERS], bytes):
        return None
    packed: bytes = msgpack.packb(_session_of_1(fields))
    return packed


def _session_of_1(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(fields[_ANSWERS], bytes):
        return fields
    kept = b""
    for kind, number, outcome, age_s in fields[_ANSWERS]:
        kept = answers.add(kept, answers.answer_key(kind, number), outcome, age_s)
    realm, via, refused, caps = fields[_FIRST_RELEASE:] or (b"", b"", False, ())  # the first release knows no route
    services = [_service_of_1(service) for service in fields[10]]
    count = len(fields[_ANSWERS])
    return (*fields[:10], services, kept, count, realm, via, refused, (), caps, "", 0)


def _service_of_1(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    usual, rest = fields[:_USUAL], fields[_USUAL:]
    usual = (*usual, *_USUAL_OF_1[len(usual) - _USUAL :]) if len(usual) < _USUAL else usual
    return (*usual, (), 0, *rest, *_SERVICE_OF_1[len(rest) :], None)


# -- from format 2 to 3: sessions are found by digests -----------------------------------------------------------------

_NAMED_SESSION: Final = b"s:"
"""Before the Session-Id, in the session directory of format 2."""


async def to_format_3(data: Data) -> int:
    """What format 3 leaves out of accounts and sessions need not be taken out: they are read either way."""
    moved = 0
    async for page in data.scan(_NAMED_SESSION.decode() + "*", PAGE):
        for key in page:
            account_id, left_ms = await asyncio.gather(data.call("GET", key), data.call("PTTL", key))
            if account_id is None:
                continue
            lasts = ("PX", left_ms) if left_ms > 0 else ()
            await data.call("SET", Keys.session(key[len(_NAMED_SESSION) :]), account_id, "NX", *lasts)
            await data.call("DEL", key)
            moved += 1
    return moved


MIGRATIONS: Final[Mapping[int, Migration]] = {1: to_format_2, 2: to_format_3}
"""By the format that each begins with."""
