"""Closing the books: records of the journal that are old leave Redis; the sums they come to stay.

For each lane a hash keeps, by account, what its closed records come to (``balance.sums.Sums``), and under the empty
name the last entry that was closed. Sums are written and records are struck by one script call, so a check of the
store (``balance.verify``) comes to the same before and after, and a kill in between loses and doubles nothing.

Only what is right is closed: a record that does not start where the one before it ended stops the closing, so that no
fault disappears into a sum.

Closing and checking exclude each other by a lease per lane.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from balance.journal import BEGINNING, Entry, read_record
from balance.resp import StoreError
from balance.store import Store
from balance.sums import Sums

LEASE_MS: Final = 60_000
PATIENCE_S: Final = 90.0
"""How long one waits for a lease: longer than that of somebody who was killed lasts."""
_RETRY_S: Final = 0.25
SUMS_A_PAGE: Final = 1000

_SCRIPT: Final = (Path(__file__).parent / "scripts" / "close.lua").read_text(encoding="utf-8")
_GIVE_BACK: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class ClosingError(StoreError):
    """The books of a lane cannot be closed as they are; the message says why."""


async def closed_until(store: Store, lane: int) -> bytes:
    """The last entry of a lane's journal that was closed; ``BEGINNING``: none. Raises StoreError."""
    found = await store.call("HGET", store.keys.closed(lane), b"")
    return bytes(found) if found else BEGINNING


async def closed_sums(store: Store, lane: int) -> AsyncIterator[dict[bytes, Sums]]:
    """What the closed records of a lane come to by account, a page at a time, some perhaps twice.

    Of one moment only while a lease is held. Raises StoreError, also for sums that cannot be read.
    """
    cursor = b"0"
    while True:
        cursor, found = await store.call("HSCAN", store.keys.closed(lane), cursor, "COUNT", SUMS_A_PAGE)
        pairs = zip(found[::2], found[1::2], strict=True)
        yield {bytes(account_id): _sums(account_id, value) for account_id, value in pairs if account_id}
        if cursor in (b"0", 0):
            return


@asynccontextmanager
async def lease(store: Store, lane: int, patience_s: float = PATIENCE_S) -> AsyncIterator[bytes]:
    """Have a lane's journal to oneself, as to closing and checking; gives the token. Charging goes on meanwhile.

    Raises ClosingError if somebody else keeps it for ``patience_s``, StoreError.
    """
    key, token = store.keys.closing(lane), secrets.token_hex(8).encode()
    waited = 0.0
    while not await store.call("SET", key, token, "NX", "PX", LEASE_MS):
        if waited >= patience_s:
            raise ClosingError("another process closes or checks the journal; try again when it is done")
        await asyncio.sleep(_RETRY_S)
        waited += _RETRY_S
    renewing = asyncio.create_task(_renew(store, key, token))
    try:
        yield token
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        with suppress(StoreError):  # it ends by itself
            await store.run_script(_GIVE_BACK, [key], token)


async def _renew(store: Store, key: bytes, token: bytes) -> None:
    while True:
        await asyncio.sleep(LEASE_MS / 4000)
        with suppress(StoreError):
            if await store.call("GET", key) == token:
                await store.call("PEXPIRE", key, LEASE_MS)


async def close(store: Store, lane: int, token: bytes, entries: Sequence[Entry]) -> None:
    """Close the oldest entries of a lane's journal, all of them in their order, under a lease.

    What they say must be kept elsewhere before, if it is to be kept. Raises ClosingError if a record does not follow
    from those before it, or another process has been faster; StoreError.
    """
    until = await closed_until(store, lane)
    records = [read_record(entry_id, packed) for entry_id, fields in entries for packed in fields]
    names = list(dict.fromkeys(record.account_id for record in records))
    values = await store.call("HMGET", store.keys.closed(lane), *names) if names else []
    sums = {name: Sums() if value is None else _sums(name, value) for name, value in zip(names, values, strict=True)}
    for record in records:
        known = sums[record.account_id]
        faults = known.broken_links(record) if record.version == known.version + 1 else ["versions are missing"]
        if faults:
            shown = record.account_id.decode("utf-8", "backslashreplace")
            raise ClosingError(
                f"the journal of account {shown} is not closed at version {record.version}: {faults[0]}; "
                "occ ledger verify tells more"
            )
        known.add(record)
    last = entries[-1][0]
    try:
        packed_sums = [part for name in names for part in (name, sums[name].pack())]
    except OverflowError:
        raise ClosingError("the sums of an account are beyond 64 bits; its journal stays open") from None
    keys = [store.keys.journal(lane), store.keys.closed(lane), store.keys.closing(lane)]
    before = b"" if until == BEGINNING else until
    if not await store.run_script(_SCRIPT, keys, token, before, last, _next(last), *packed_sums):
        raise ClosingError("another process has closed this journal meanwhile; nothing was changed")


def _next(entry_id: bytes) -> bytes:
    """The smallest entry identifier after one."""
    milliseconds, sequence = entry_id.split(b"-")
    return b"%b-%d" % (milliseconds, int(sequence) + 1)


def _sums(account_id: bytes, value: bytes) -> Sums:
    try:
        return Sums.unpack(value)
    except ValueError as error:
        shown = account_id.decode("utf-8", "backslashreplace")
        raise StoreError(f"the closed sums of account {shown} cannot be read: {error}") from error
