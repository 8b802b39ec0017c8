"""Data of earlier formats: brought forward once, whoever comes first, whatever is killed; later ones are left alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from balance import answers
from balance.directory import create_account, read_account
from balance.embedded import Address
from balance.keys import LAYOUT, MIGRATION, Keys
from balance.migrations import FORMAT, Data, bring_forward, replace_values
from balance.model import AccountKind
from balance.records import VERSION_BYTES, pack_account, unpack_account, unpack_session
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store, StoreSettings

ACCOUNT = b"acc-1"
OUTCOME = b"packed outcome"
VALUES = 600
SERVICE_OF_1 = (
    10, -1, "internet", 1, 3 << 20, 3 << 20, 30_000, 0, 1 << 20, [(1, 10_000)], 0, 1 << 20, 10_000, 0, (), 0, 0, (), (),
    "", (),
)  # fmt: skip
SESSION_OF_1 = (
    b"s1", b"sub", "standard", b"pgw.example.net", 0, 1_000, 90_000, -1, 0, b"facts", [SERVICE_OF_1],
    [(1, 0, OUTCOME, 0), (2, 1, b"second", 7)], b"example.net", b"pgw.example.net", False, (),
)  # fmt: skip
"""As the first version of the ledger with routes wrote them down."""


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    yield store
    await store.stop()


async def open_again(store: Store) -> Store:
    again = Store(StoreSettings(store.settings.address, partitions=4))
    await again.start()
    return again


async def make_format_1(store: Store) -> None:
    """An account with an open session, and a session that ended and expires."""
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=1_000_000)
    key = store.keys.account(ACCOUNT)
    value = await store.call("GET", key)
    fields = list(msgpack.unpackb(value[VERSION_BYTES:]))
    fields[5] = [SESSION_OF_1]
    await store.call("SET", key, value[:VERSION_BYTES] + msgpack.packb(fields[:11]))
    await store.call("SET", store.keys.ended(ACCOUNT, b"s1"), msgpack.packb(SESSION_OF_1), "PX", 600_000)
    await store.call("HSET", LAYOUT, "format", 1)


async def test_format_1_is_brought_forward_when_a_process_connects(store: Store) -> None:
    await make_format_1(store)
    again = await open_again(store)
    account = await read_account(again, ACCOUNT)
    assert account is not None
    assert account.buckets[0].balance == 1_000_000
    session = account.sessions[b"s1"]
    ended = unpack_session(await again.call("GET", store.keys.ended(ACCOUNT, b"s1")))
    assert session == ended
    assert answers.find(session.answers, answers.answer_key(1, 0)) == OUTCOME
    assert answers.find(session.answers, answers.answer_key(2, 1)) == b"second"
    assert (session.answer_count, session.realm, session.facts) == (2, b"example.net", b"facts")
    (service,) = session.services
    assert (service.used, service.parts, service.step_price_micro, service.notes) == (
        3 << 20,
        [(1, 10_000)],
        10_000,
        None,
    )
    assert 0 < await again.call("PTTL", store.keys.ended(ACCOUNT, b"s1")) <= 600_000
    assert int(await again.call("HGET", LAYOUT, "format")) == FORMAT
    assert await again.call("EXISTS", MIGRATION) == 0
    # What it reads as it also writes: nothing of the old form is left.
    value = await again.call("GET", store.keys.account(ACCOUNT))
    assert unpack_account(ACCOUNT, pack_account(account)) == unpack_account(ACCOUNT, value)
    await again.stop()


async def test_format_2_named_sessions_whole_in_its_directory(store: Store) -> None:
    """A session whose client names no subscriber goes on, and an account written in full is read."""
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=1_000_000)
    await store.call("SET", b"s:pgw;1;1", ACCOUNT, "PX", 600_000)
    await store.call("SET", b"s:pgw;1;2", ACCOUNT)
    await store.call("HSET", LAYOUT, "format", 2)
    again = await open_again(store)
    for name in (b"pgw;1;1", b"pgw;1;2"):
        found = asyncio.get_running_loop().create_future()
        again.sessions.find(name, found.set_result)
        assert await found == ACCOUNT
    assert 0 < await again.call("PTTL", Keys.session(b"pgw;1;1")) <= 600_000
    assert await again.call("EXISTS", b"s:pgw;1;1", b"s:pgw;1;2") == 0
    assert int(await again.call("HGET", LAYOUT, "format")) == FORMAT
    await again.stop()


async def test_a_first_release_knew_no_route(store: Store) -> None:
    await make_format_1(store)
    await store.call("SET", store.keys.ended(ACCOUNT, b"s1"), msgpack.packb(SESSION_OF_1[:12]))
    again = await open_again(store)
    ended = unpack_session(await again.call("GET", store.keys.ended(ACCOUNT, b"s1")))
    assert (ended.realm, ended.via, ended.refused, ended.caps, ended.answer_count) == (b"", b"", False, (), 2)
    await again.stop()


@pytest.mark.parametrize(("written", "said"), [(FORMAT + 1, "use the version that wrote"), (0, "none in between")])
async def test_what_cannot_be_brought_forward_is_left_alone(store: Store, written: int, said: str) -> None:
    await store.call("HSET", LAYOUT, "format", written)
    await store.call("SET", store.keys.account(ACCOUNT), b"untouched")
    with pytest.raises(StoreUnavailableError, match=f"format {written} .*{said}"):
        await open_again(store)
    assert await store.call("GET", store.keys.account(ACCOUNT)) == b"untouched"
    assert int(await store.call("HGET", LAYOUT, "format")) == written


async def test_a_value_that_cannot_be_read_stops_it_and_is_named(store: Store) -> None:
    await make_format_1(store)
    await store.call("SET", store.keys.ended(ACCOUNT, b"s1"), b"\xc1")
    with pytest.raises(StoreUnavailableError, match="e:s1 is damaged"):
        await open_again(store)
    assert int(await store.call("HGET", LAYOUT, "format")) == 1
    assert await store.call("EXISTS", MIGRATION) == 0


# -- steps, their order and their interruptions ------------------------------------------------------------------------


def data_of(store: Store) -> Data:
    return Data(store.call, store.scan)


def marks(number: int) -> Any:
    """A migration that writes its number behind each value once."""

    async def migration(data: Data) -> int:
        mark = b"%d" % number
        return await replace_values(data, "m:*", lambda value: None if value.endswith(mark) else value + mark)

    return migration


async def values(store: Store) -> set[bytes]:
    return set(await store.call("MGET", *(f"m:{number}" for number in range(VALUES))))


async def lay_out(store: Store, written: int = 1) -> None:
    await store.call("MSET", *(part for number in range(VALUES) for part in (f"m:{number}", b"v")))
    await store.call("HSET", LAYOUT, "format", written)


async def test_steps_are_taken_in_order_and_once_though_many_come_at_the_same_time(store: Store) -> None:
    await lay_out(store)
    steps = {1: marks(1), 2: marks(2), 3: marks(3)}
    await asyncio.gather(*(bring_forward(data_of(store), steps, 4) for _ in range(4)))
    assert await values(store) == {b"v123"}


async def test_one_that_is_killed_is_finished_by_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it had done is found done; its lock lapses by itself."""
    await lay_out(store)
    monkeypatch.setattr("balance.migrations.LOCK_MS", 400)
    calls = 0

    async def killed(*command: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > VALUES:
            raise StoreError("killed")
        return await store.call(*command)

    with pytest.raises(StoreError, match="killed"):
        await bring_forward(Data(killed, store.scan), {1: marks(1)}, 2)
    assert len(await values(store)) == 2  # some are done
    assert await store.call("EXISTS", MIGRATION) == 1
    await bring_forward(data_of(store), {1: marks(1)}, 2)
    assert await values(store) == {b"v1"}


async def test_who_has_lost_the_lock_stops(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await lay_out(store)
    monkeypatch.setattr("balance.migrations.RENEW_S", 0.05)

    async def endless(data: Data) -> int:
        await data.call("SET", MIGRATION, "somebody else")
        await asyncio.sleep(60)
        return 0

    with pytest.raises(StoreError, match="taken the migration over"):
        await bring_forward(data_of(store), {1: endless}, 2)
    assert int(await store.call("HGET", LAYOUT, "format")) == 1
    assert await store.call("GET", MIGRATION) == b"somebody else"


async def test_what_changes_meanwhile_is_looked_at_again(store: Store) -> None:
    """A value is replaced only as it was read."""
    await store.call("SET", "m:0", b"v")
    meanwhile = [b"w"]

    async def call(*command: Any) -> Any:
        if command[0] == "EVAL" and meanwhile:
            await store.call("SET", "m:0", meanwhile.pop())
        return await store.call(*command)

    assert await replace_values(Data(call, store.scan), "m:*", lambda value: value + b"1") == 1
    assert await store.call("GET", "m:0") == b"w1"
