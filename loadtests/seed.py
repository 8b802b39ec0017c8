"""Accounts and subscribers for a load test, through the ledger's own operations, and what they cost in memory."""

import asyncio
import os
from dataclasses import dataclass
from typing import Any, Final

from balance.directory import NewBucket, create_account
from balance.embedded import Address
from balance.keys import POLICIES
from balance.model import MICRO, AccountKind, IdentityType, Subscriber, Unit
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from balance.verify import Report, verify
from loadtests.templates import line

PARTITIONS: Final = 64
BALANCE_MICRO: Final = 1000 * MICRO
"""More than a load session can use up: a refusal would be an error of the run."""
AT_ONCE: Final = 256
SETTLED_WITHIN_S: Final = 300
OUTBOX_SAMPLE: Final = 32
"""Entries whose records are counted."""
_EURO: Final = 978
_PLAN: Final = "standard"


@dataclass(frozen=True, slots=True)
class Memory:
    """Redis memory by its own count, octets; the append-only file's buffers and clients are part of `used`."""

    used: int
    journals: int
    """What the journal streams hold of it; they grow with every commit."""


async def seed(store: Store, accounts: int, now_ms: int) -> tuple[Memory, Memory, Memory]:
    """Create `accounts` accounts of three buckets and a subscriber for each; memory before, between and after.

    The buckets: money, an allowance of seconds and one of events; none of octets, so that data is paid in money and
    the clients can say what was debited.
    """
    before = await memory(store)
    numbers = range(1, accounts + 1)
    for first in range(1, accounts + 1, AT_ONCE):
        chunk = numbers[first - 1 : first - 1 + AT_ONCE]
        await asyncio.gather(*(_create(store, number, now_ms) for number in chunk))
    between = await memory(store)
    for first in range(1, accounts + 1, AT_ONCE):
        chunk = numbers[first - 1 : first - 1 + AT_ONCE]
        await asyncio.gather(*(_subscribe(store, number) for number in chunk))
    return before, between, await memory(store)


async def _create(store: Store, number: int, now_ms: int) -> None:
    await create_account(
        store,
        _account_id(number),
        AccountKind.PREPAID,
        _EURO,
        now_ms=now_ms,
        reason="load test",
        balance_micro=BALANCE_MICRO,
        buckets=(NewBucket(Unit.SECONDS, 6000), NewBucket(Unit.EVENTS, 100)),
    )


async def _subscribe(store: Store, number: int) -> None:
    digits = line(number)
    identities = ((int(IdentityType.E164), digits.msisdn), (int(IdentityType.IMSI), digits.imsi))
    await add_subscriber(store, Subscriber(digits.msisdn, _account_id(number), _PLAN, identities))


def _account_id(number: int) -> bytes:
    return line(number).msisdn


async def memory(store: Store) -> Memory:
    """What Redis holds now."""
    info = await information(store, "memory")
    journals = 0
    for lane in store.keys.lanes():
        journals += await store.call("MEMORY", "USAGE", store.keys.journal(lane), "SAMPLES", 0) or 0
    return Memory(int(info["used_memory"]), journals)


async def information(store: Store, section: str) -> dict[str, str]:
    """One section of INFO."""
    text: bytes = await store.call("INFO", section)
    rows = (row.partition(":") for row in text.decode().splitlines() if ":" in row)
    return {name: value for name, _, value in rows}


async def commit_calls(store: Store) -> int:
    """How often the commit script was called so far."""
    statistics = await information(store, "commandstats")
    row = statistics.get("cmdstat_evalsha", "calls=0")
    return int(row.partition("calls=")[2].partition(",")[0])


async def undelivered_records(store: Store) -> int:
    """Charging data records that the outbox has still to deliver: written by a commit, and not struck yet.

    An entry of its streams holds the records of a commit; how many is taken from the newest entries, as reading all of
    them would keep Redis busy.
    """
    records = 0.0
    for lane in store.keys.lanes():
        key = store.keys.outbox(lane)
        entries = await store.call("XLEN", key)
        newest = await store.call("XREVRANGE", key, "+", "-", "COUNT", OUTBOX_SAMPLE)
        if newest:
            records += entries * sum(len(fields) // 2 for _, fields in newest) / len(newest)
    return round(records)


async def rules_settled(store: Store) -> None:
    """Return when all accounts have been looked at by the rules in force, which a server does once after it started.

    It is no part of what a request costs. Raises StoreError, and TimeoutError after ``SETTLED_WITHIN_S``.
    """
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while await _are_rules_new(store):  # noqa: ASYNC110 - it is another process that looks
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise TimeoutError(f"the server has not looked at all accounts within {SETTLED_WITHIN_S} s") from None


async def _are_rules_new(store: Store) -> bool:
    edition, looked = await store.call("HMGET", POLICIES, "edition", "looked")
    return edition is None or edition != looked


async def compact(store: Store) -> None:
    """Rewrite the append-only file now and not again: a rewrite starts a second process at a time of its own choice,
    which would meet the measured intervals by chance. What is still to be written to the disk is waited for."""
    await store.call("BGREWRITEAOF")
    while True:
        await asyncio.sleep(0.1)
        persistence = await information(store, "persistence")
        busy: Any = (persistence["aof_rewrite_in_progress"], persistence["aof_rewrite_scheduled"])
        if busy == ("0", "0"):
            break
    await store.call("CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
    await asyncio.to_thread(os.sync)


async def forget_stalls(store: Store) -> None:
    """Begin to watch for waits of Redis on the disk."""
    await store.call("CONFIG", "SET", "latency-monitor-threshold", 1)
    await store.call("LATENCY", "RESET")


async def slowest_fsync_ms(store: Store) -> int:
    """The longest that Redis has waited for one fsync since `forget_stalls`, whole milliseconds."""
    for event, _, _, longest_ms, *_ in await store.call("LATENCY", "LATEST"):
        if event == b"aof-fsync-always":
            return int(longest_ms)
    return 0


async def connect(address: Address) -> Store:
    """A store of our own on the server's Redis; to be stopped."""
    store = Store(StoreSettings(address, partitions=PARTITIONS, account_cache_entries=AT_ONCE * 2))
    await store.start()
    return store


async def check(address: Address) -> Report:
    """`occ ledger verify`, in this process."""
    store = await connect(address)
    try:
        return await verify(store)
    finally:
        await store.stop()
