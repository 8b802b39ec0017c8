"""The floor replays real commits: what is recorded is what the store sent, and every replayed plan is written."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.directory import top_up_account
from balance.embedded import Address
from balance.open_totals import add_open
from balance.store import Store
from loadtests import floor
from loadtests.seed import PARTITIONS, commit_calls, connect, memory, seed, undelivered_records
from loadtests.templates import line

ACCOUNTS = 40


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = await connect(clean_redis)
    yield store
    await store.stop()


def as_monitor_prints(octets: bytes) -> bytes:
    """How Redis escapes an argument (sdscatrepr)."""
    printed = bytearray()
    names = {10: b"\\n", 13: b"\\r", 9: b"\\t", 7: b"\\a", 8: b"\\b", 34: b'\\"', 92: b"\\\\"}
    for octet in octets:
        printed += names.get(octet) or (bytes((octet,)) if 32 <= octet < 127 else b"\\x%02x" % octet)
    return bytes(printed)


@given(st.binary(max_size=60))
def test_what_monitor_escapes_is_read_back(octets: bytes) -> None:
    assert floor.unescape(as_monitor_prints(octets)) == octets


async def top_up_all(store: Store) -> None:
    now_ms = time.time_ns() // 1_000_000
    await asyncio.gather(
        *(
            top_up_account(store, line(number).msisdn, 1, now_ms=now_ms, reason="test", reference=f"r{now_ms}")
            for number in range(1, ACCOUNTS + 1)
        )
    )


async def record(store: Store, address: Address) -> floor.Sample:
    assert address.unix_path is not None
    recording = asyncio.create_task(asyncio.to_thread(floor.record, address.unix_path, 0.5, store.keys))
    await asyncio.sleep(0.2)
    await top_up_all(store)
    return await recording


async def test_other_scripts_that_a_server_calls_are_none_of_the_floors_business(
    store: Store, clean_redis: Address
) -> None:
    """A server tells its counts once a second, by a script of its own; a closed journal is one more."""
    await seed(store, ACCOUNTS, time.time_ns() // 1_000_000)
    await add_open(store, 1, 1)  # Redis knows the script from here on: it is called by its digest

    async def tell() -> None:
        await asyncio.sleep(0.1)
        await add_open(store, 3, -2)

    telling = asyncio.create_task(tell())
    sample = await record(store, clean_redis)
    await telling
    assert len(sample.plans) == ACCOUNTS
    assert sample.lane[0] == store.keys.journal(0)


async def test_a_commit_that_is_not_as_expected_is_one_clear_sentence(store: Store, clean_redis: Address) -> None:
    """As where the script's arguments have changed: nothing is replayed that might be half of a commit."""
    assert clean_redis.unix_path is not None
    lane = (store.keys.journal(0), store.keys.watch(0), store.keys.outbox(0))
    script = "return redis.sha1hex('')"
    digest = await store.call("SCRIPT", "LOAD", script)
    for arguments in ((), (b"1", b"0"), (b"1", b"0", b"0", b"0", b"0", b"0", b"0", b"0", b"0", b"version", b"value")):
        watching = asyncio.create_task(asyncio.to_thread(floor.record, clean_redis.unix_path, 0.3, store.keys))
        await asyncio.sleep(0.1)
        await store.call("EVALSHA", digest, len(lane), *lane, *arguments)
        with pytest.raises(ValueError, match="adapt it"):
            await watching


async def test_recorded_plans_are_replayed_on_other_accounts_and_all_written(
    store: Store, clean_redis: Address
) -> None:
    await seed(store, ACCOUNTS, time.time_ns() // 1_000_000)
    sample = floor.load(floor.dump(await record(store, clean_redis)))
    assert len(sample.plans) == ACCOUNTS
    assert all(plan.ended_key for plan in sample.plans)
    assert line(1).msisdn in sample.plans[0].journal
    before = await commit_calls(store)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(clean_redis.unix_path))
        accounts = floor.versions(link, ACCOUNTS, PARTITIONS)
        assert {account.version for account in accounts} == {2}
        written, seconds = floor.Floor(link, sample, accounts).run(5, 2, 0.2)
        link.setblocking(True)
        after = floor.versions(link, ACCOUNTS, PARTITIONS)
    assert seconds >= 0.2
    assert written % 5 == 0
    assert await commit_calls(store) - before == written // 5
    assert sum(account.version for account in after) == 2 * ACCOUNTS + written


async def test_a_replayed_plan_that_is_refused_is_an_error(store: Store, clean_redis: Address) -> None:
    await seed(store, ACCOUNTS, time.time_ns() // 1_000_000)
    sample = await record(store, clean_redis)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(clean_redis.unix_path))
        accounts = floor.versions(link, ACCOUNTS, PARTITIONS)
        accounts[3].version += 7
        with pytest.raises(ValueError, match="refused"):
            floor.Floor(link, sample, accounts).run(5, 2, 0.2)


async def test_what_the_outbox_has_still_to_deliver_is_counted_by_record(store: Store) -> None:
    """An entry of the outbox holds the records of a commit (``balance/scripts/commit.lua``)."""
    assert await undelivered_records(store) == 0
    outbox = store.keys.outbox(0)
    first = await store.call("XADD", outbox, "*", "c", b"one", "c", b"two", "c", b"three")
    await store.call("XADD", outbox, "*", "c", b"four")
    assert await undelivered_records(store) == 4
    await store.call("XDEL", outbox, first)
    assert await undelivered_records(store) == 1


async def test_seeding_says_what_accounts_and_directory_weigh(store: Store) -> None:
    before, between, after = await seed(store, 300, time.time_ns() // 1_000_000)
    assert before.journals == 0 < between.journals == after.journals
    assert before.used < between.used < after.used
    assert (await memory(store)).journals == after.journals
