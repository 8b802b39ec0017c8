"""Reading the journal: every change of every account, in the order it was committed, a page at a time."""

from collections.abc import AsyncIterator
from typing import Final

import msgpack

from balance.records import JournalRecord, unpack_journal
from balance.resp import StoreError
from balance.store import Store

PAGE_ENTRIES: Final = 500
"""Journal entries read at once; one entry holds the records of one commit, 256 at most."""

BEGINNING: Final = b"0-0"

Entry = tuple[bytes, list[bytes]]
"""Identifier of the stream entry, and its packed records in order."""


def position(entry_id: bytes) -> tuple[int, int]:
    """An entry identifier as what it is ordered by."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


async def last_entry_id(store: Store, lane: int) -> bytes:
    """The newest entry of a lane's journal as of now; ``BEGINNING`` if there is none. Raises StoreError."""
    newest = await store.call("XREVRANGE", store.keys.journal(lane), "+", "-", "COUNT", 1)
    return bytes(newest[0][0]) if newest else BEGINNING


async def entries(store: Store, lane: int, after: bytes, until: bytes) -> AsyncIterator[list[Entry]]:
    """Pages of the entries later than ``after``, up to and including ``until``, oldest first. Raises StoreError."""
    if until == BEGINNING:
        return
    key = store.keys.journal(lane)
    while after != until:
        page = await store.call("XRANGE", key, b"(" + after, until, "COUNT", PAGE_ENTRIES)
        if not page:
            return
        yield [(bytes(entry_id), fields[1::2]) for entry_id, fields in page]
        after = page[-1][0]


def read_record(entry_id: bytes, packed: bytes) -> JournalRecord:
    """One record of an entry. Raises StoreError for one that cannot be read."""
    try:
        return unpack_journal(packed)
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise StoreError(f"a record in journal entry {entry_id.decode()} is damaged: {error}") from error


async def history(store: Store, account_id: bytes, limit: int) -> list[JournalRecord]:
    """The newest ``limit`` records of one account, newest first.

    The journal is shared by all accounts of a lane and is read backwards from its end, so the time this takes grows
    with what happened to all of them since. Raises StoreError, also for a record that cannot be read.
    """
    key = store.keys.journal(store.keys.lane(account_id))
    found: list[JournalRecord] = []
    before: bytes = b"+"
    while len(found) < limit:
        page = await store.call("XREVRANGE", key, before, "-", "COUNT", PAGE_ENTRIES)
        for entry_id, fields in page:
            for packed in reversed(fields[1::2]):
                if account_id not in packed:
                    continue
                record = read_record(entry_id, packed)
                if record.account_id == account_id:
                    found.append(record)
        if len(page) < PAGE_ENTRIES or (found and found[-1].version == 1):
            break
        before = b"(" + page[-1][0]
    return found[:limit]


async def between(store: Store, account_id: bytes, since_ms: int, until_ms: int) -> list[JournalRecord]:
    """The records of one account that were written from ``since_ms`` to ``until_ms`` by the clock of Redis, in order.

    Raises StoreError, also for a record that cannot be read.
    """
    lane = store.keys.lane(account_id)
    until = b"%d-18446744073709551615" % max(0, until_ms)
    found: list[JournalRecord] = []
    async for page in entries(store, lane, b"%d-0" % max(0, since_ms - 1), until):
        for entry_id, packed in page:
            records = (read_record(entry_id, each) for each in packed if account_id in each)
            found += [record for record in records if record.account_id == account_id]
    return found
