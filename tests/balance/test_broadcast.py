"""Commands to all processes of a store, on a real Redis: each does them, the asker hears from each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from balance.broadcast import KEPT_MS, STREAM, BroadcastListener, BroadcastSettings, Reply, ask_all
from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings
from balance.resp import StoreError
from balance.store import Store, StoreSettings

QUICK = BroadcastSettings(begin_within_s=0.3, result_within_s=5.0, read_s=0.3)


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(address))
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    async with connected(clean_redis) as store:
        yield store


class Worker:
    """A listening process that answers in capitals, after ``takes_s``."""

    def __init__(self, store: Store, name: str, takes_s: float = 0.0, settings: BroadcastSettings = QUICK) -> None:
        self.name = name.encode()
        self.takes_s = takes_s
        self.done: list[bytes] = []
        self.fault: Exception | None = None
        self._listener = BroadcastListener(store, self.name, self._execute, settings)

    async def _execute(self, command: bytes) -> bytes:
        await asyncio.sleep(self.takes_s)
        self.done.append(command)
        if self.fault is not None:
            raise self.fault
        return command.upper()

    def reply(self, command: bytes) -> Reply:
        return Reply(self.name, command.upper())

    async def __aenter__(self) -> "Worker":
        self._task = asyncio.create_task(self._listener.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_every_worker_does_it(store: Store) -> None:
    """Two that go by the same name as well: they are two all the same."""
    async with Worker(store, "a") as a, Worker(store, "b") as b, Worker(store, "b") as twin:
        for command in (b"one", b"two"):
            assert await ask_all(store, command, QUICK) == [each.reply(command) for each in (a, b, twin)]
    assert a.done == b.done == twin.done == [b"one", b"two"]


async def test_nobody_listens(store: Store) -> None:
    assert await ask_all(store, b"command", QUICK) == []


async def test_one_that_takes_longer_is_waited_for(store: Store) -> None:
    async with Worker(store, "quick") as quick, Worker(store, "slow", 3 * QUICK.begin_within_s) as slow:
        assert await ask_all(store, b"command", QUICK) == [quick.reply(b"command"), slow.reply(b"command")]


async def test_one_that_does_not_come_to_an_end_is_told(store: Store) -> None:
    impatient = BroadcastSettings(begin_within_s=0.2, result_within_s=0.4)
    async with Worker(store, "a") as good, Worker(store, "b", 60.0):
        assert await ask_all(store, b"command", impatient) == [good.reply(b"command"), Reply(b"b", None)]


async def test_a_fault_is_told_and_the_next_command_done(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async with Worker(store, "a") as a, Worker(store, "b") as b:
        a.fault = ValueError("a fault")
        assert await ask_all(store, b"one", QUICK) == [Reply(b"a", None, failed=True), b.reply(b"one")]
        a.fault = None
        assert await ask_all(store, b"two", QUICK) == [a.reply(b"two"), b.reply(b"two")]
    assert "a fault" in caplog.text


async def test_a_result_may_hold_any_octets(store: Store) -> None:
    async with Worker(store, "a") as worker:
        assert await ask_all(store, b"\0\xff\0", QUICK) == [worker.reply(b"\0\xff\0")]


async def test_a_worker_that_was_cut_off_does_what_it_missed(store: Store) -> None:
    """However long ago within the stream's life: what others have done, it must do as well."""
    worker = Worker(store, "a", settings=BroadcastSettings(read_s=0.3, fresh_s=0.01))
    async with worker:
        await ask_all(store, b"one", QUICK)
    for command in (b"two", b"three"):
        assert await ask_all(store, command, QUICK) == []
    async with worker:
        assert await ask_all(store, b"four", QUICK) == [worker.reply(b"four")]
    assert worker.done == [b"one", b"two", b"three", b"four"]


async def test_connections_that_break_are_made_again(store: Store, clean_redis: Address) -> None:
    async with Worker(store, "a") as worker:
        await ask_all(store, b"one", QUICK)
        with redis.Redis.from_url(clean_redis.url) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
        while not store.statistics.reconnects:  # noqa: ASYNC110 - the store reconnects by itself
            await asyncio.sleep(0.02)
        patient = BroadcastSettings(begin_within_s=2.0)
        assert await ask_all(store, b"two", patient) == [worker.reply(b"two")]
    assert worker.done == [b"one", b"two"]


async def test_redis_is_restarted(tmp_path: Path) -> None:
    server = EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path / "redis"))
    address = await server.start()
    patient = BroadcastSettings(begin_within_s=5.0, read_s=0.3)
    async with connected(address) as store, Worker(store, "a") as worker:
        await ask_all(store, b"one", QUICK)
        await server.stop()
        with pytest.raises(StoreError):
            await ask_all(store, b"lost", QUICK)
        await server.start()
        while not store.available:  # noqa: ASYNC110 - the store reconnects by itself
            await asyncio.sleep(0.02)
        assert await ask_all(store, b"two", patient) == [worker.reply(b"two")]
    await server.stop()
    assert worker.done == [b"one", b"two"]


async def test_a_worker_that_starts_does_not_dig_out_what_is_old(store: Store) -> None:
    fresh = BroadcastSettings(begin_within_s=0.1, read_s=0.3, fresh_s=0.3)
    await ask_all(store, b"old", fresh)
    await asyncio.sleep(0.4)
    async with Worker(store, "a", settings=fresh) as worker:
        assert await ask_all(store, b"young", QUICK) == [worker.reply(b"young")]
    assert worker.done == [b"young"]


async def test_what_is_no_command_is_passed_over(store: Store) -> None:
    async with Worker(store, "a") as worker:
        await store.call("XADD", STREAM, "*", "x", "y")
        await store.call("XADD", STREAM, "*", "n", "lonely")
        assert await ask_all(store, b"command", QUICK) == [worker.reply(b"command")]
    assert worker.done == [b"command"]


async def test_what_is_left_in_redis_goes_away_by_itself(store: Store) -> None:
    async with Worker(store, "a"):
        await ask_all(store, b"command", QUICK)
    names = list(await store.call("KEYS", "occ:broadcast*"))
    assert len(names) == 2
    for name in names:
        assert 0 < await store.call("PTTL", name) <= KEPT_MS
