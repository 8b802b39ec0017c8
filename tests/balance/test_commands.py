"""Commands between processes, on a real Redis: done once, by one that can, soon or never."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from balance.commands import KEPT_MS, STREAM, ChannelSettings, CommandListener, UnclaimedError, ask
from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings
from balance.resp import StoreError
from balance.store import Store, StoreSettings

QUICK = ChannelSettings(claim_within_s=0.6, result_within_s=5.0, read_s=0.3)


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
    """A listening process that can carry out commands after ``delay_s``, or none, and answers in capitals."""

    def __init__(self, store: Store, name: str, delay_s: float | None = 0.0) -> None:
        self.done: list[bytes] = []
        self.delay_s = delay_s
        self.execute: Callable[[bytes], bytes] = bytes.upper
        self._listener = CommandListener(store, name.encode(), lambda command: self.delay_s, self._execute, QUICK)

    async def _execute(self, command: bytes) -> bytes:
        self.done.append(command)
        await asyncio.sleep(0.05)
        return self.execute(command)

    async def __aenter__(self) -> "Worker":
        self._task = asyncio.create_task(self._listener.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_the_worker_that_can_does_it(store: Store) -> None:
    async with Worker(store, "a", None) as unable, Worker(store, "b") as able:
        assert await ask(store, b"command", QUICK) == b"COMMAND"
    assert (unable.done, able.done) == ([], [b"command"])


async def test_one_of_many_does_it_and_the_best_placed_if_it_can(store: Store) -> None:
    async with Worker(store, "a", 0.1) as second, Worker(store, "b") as first, Worker(store, "c") as equal:
        wanted = [b"%d" % number for number in range(20)]
        assert await asyncio.gather(*(ask(store, command, QUICK) for command in wanted)) == wanted
        assert sorted(first.done + equal.done) == sorted(wanted)
        assert second.done == []
        first.delay_s = equal.delay_s = None
        assert await ask(store, b"left", QUICK) == b"LEFT"
        assert second.done == [b"left"]


async def test_a_worker_that_becomes_able_in_time_does_it(store: Store) -> None:
    """A client that has just lost its connection may be back in a moment."""
    async with Worker(store, "a", None) as worker:
        asking = asyncio.create_task(ask(store, b"command", QUICK))
        await asyncio.sleep(0.1)
        worker.delay_s = 0.0
        assert await asking == b"COMMAND"


async def test_what_nobody_can_do_is_withdrawn_for_good(store: Store) -> None:
    async with Worker(store, "a", None) as worker:
        with pytest.raises(UnclaimedError):
            await ask(store, b"command", QUICK)
        worker.delay_s = 0.0
        async with Worker(store, "b") as late:
            await asyncio.sleep(0.3)
    assert worker.done == late.done == []


async def test_a_worker_that_starts_does_what_is_young_and_not_what_is_old(store: Store) -> None:
    """The asker of the old one is gone: nobody has withdrawn it."""
    gone = asyncio.create_task(ask(store, b"old", QUICK))
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.sleep(QUICK.claim_within_s)
    young = asyncio.create_task(ask(store, b"young", QUICK))
    await asyncio.sleep(0.05)
    async with Worker(store, "a") as worker:
        assert await young == b"YOUNG"
        await asyncio.sleep(0.1)
    assert worker.done == [b"young"]


async def test_a_command_that_fails_is_told_and_the_next_one_done(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(command: bytes) -> bytes:
        raise ValueError("a fault")

    async with Worker(store, "worker-1") as worker:
        worker.execute = fail
        with pytest.raises(StoreError, match="worker-1 could not carry the command out"):
            await ask(store, b"command", QUICK)
        worker.execute = bytes.upper
        assert await ask(store, b"next", QUICK) == b"NEXT"
    assert "a fault" in caplog.text


async def test_a_worker_that_dies_leaves_an_asker_that_gives_up(store: Store) -> None:
    impatient = ChannelSettings(claim_within_s=0.6, result_within_s=0.8, read_s=0.3)
    async with Worker(store, "worker-1") as worker:
        worker.execute = lambda command: command
        asking = asyncio.create_task(ask(store, b"command", impatient))
        while not worker.done:  # noqa: ASYNC110 - the worker has claimed it
            await asyncio.sleep(0.005)
    with pytest.raises(StoreError, match="worker-1 took the command and has told nothing"):
        await asking


async def test_lost_connections_are_made_again_and_nothing_is_done_twice(store: Store, clean_redis: Address) -> None:
    async with Worker(store, "a") as worker:
        assert await ask(store, b"one", QUICK) == b"ONE"
        with redis.Redis.from_url(clean_redis.url) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
        while not store.statistics.reconnects:  # noqa: ASYNC110 - the store reconnects by itself
            await asyncio.sleep(0.02)
        assert await ask(store, b"two", QUICK) == b"TWO"
        await asyncio.sleep(0.2)
    assert worker.done == [b"one", b"two"]


async def test_redis_is_restarted_while_a_command_is_carried_out(tmp_path: Path) -> None:
    """The asker waits, and gets the result from the new process."""
    server = EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path / "redis"))
    address = await server.start()
    patient = ChannelSettings(claim_within_s=5.0, result_within_s=20.0, read_s=0.3)
    async with connected(address) as store, Worker(store, "a") as worker:
        asking = asyncio.create_task(ask(store, b"command", patient))
        while not worker.done:  # noqa: ASYNC110 - the worker has claimed it
            await asyncio.sleep(0.005)
        await server.stop()
        await server.start()
        assert await asking == b"COMMAND"
        assert await ask(store, b"next", patient) == b"NEXT"
    await server.stop()
    assert worker.done == [b"command", b"next"]


async def test_without_redis_the_asker_is_told(tmp_path: Path) -> None:
    server = EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path / "redis"))
    async with connected(await server.start()) as store:
        await server.stop()
        with pytest.raises(StoreError):
            await ask(store, b"command", QUICK)


async def test_what_is_left_in_redis_goes_away_by_itself(store: Store) -> None:
    async with Worker(store, "a"):
        await ask(store, b"command", QUICK)
    names = list(await store.call("KEYS", "occ:command*"))
    assert len(names) == 2
    for name in names:
        assert 0 < await store.call("PTTL", name) <= KEPT_MS


@pytest.mark.parametrize("fields", [("x", "y"), ("n", "lonely"), ("c", "nameless")])
async def test_what_is_no_command_is_passed_over(store: Store, fields: tuple[str, str]) -> None:
    async with Worker(store, "a") as worker:
        await store.call("XADD", STREAM, "*", *fields)
        assert await ask(store, b"command", QUICK) == b"COMMAND"
    assert worker.done == [b"command"]


async def test_a_stream_that_is_none_is_waited_for(store: Store) -> None:
    """Somebody else's key of that name: the worker goes on as soon as it is gone."""
    await store.call("SET", STREAM, "mine")
    async with Worker(store, "a"):
        await asyncio.sleep(0.1)
        with pytest.raises(StoreError):
            await ask(store, b"command", QUICK)
        await store.call("DEL", STREAM)
        patient = ChannelSettings(claim_within_s=3.0)
        assert await ask(store, b"command", patient) == b"COMMAND"
