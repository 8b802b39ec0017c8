"""A worker that loses its supervisor ends, whatever it waits for: else it keeps the listening sockets to itself."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from occ.listening import bound
from occ.settings import load
from occ.worker import Job, Worker


class Lab:
    """A worker in this process, on a Redis of its own; ``told`` is what its supervisor says."""

    def __init__(self, folder: Path) -> None:
        self.redis = EmbeddedRedis(EmbeddedSettings(data_dir=folder / "redis"))
        self.folder = folder
        self.told = asyncio.StreamReader()

    async def begin(self) -> None:
        address = await self.redis.start()
        overrides = {
            "store.mode": "external",
            "store.url": address.url,
            "store.data_dir": str(self.folder / "data"),
            "workers": "1",
        }
        (diameter,), (metrics,) = (bound("127.0.0.1", 0, "", "") for _ in range(2))
        job = Job(1, None, overrides, None, None, [diameter.detach()], [], metrics.detach(), True, True, 0)
        self.worker = Worker(job, job.settings(), self.told)
        self.server = self.worker._server

    async def lose_store(self) -> None:
        await self.redis.stop()
        while self.server.store.available:
            await asyncio.sleep(0.01)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    found = Lab(tmp_path)
    await found.begin()
    yield found
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
    await found.redis.stop()


@pytest.mark.parametrize("by_signal", [False, True])
async def test_it_ends_while_it_waits_for_the_store_to_be_ready(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, by_signal: bool
) -> None:
    prepare = lab.server.prepare

    async def prepare_and_lose_store() -> None:
        await prepare()
        await lab.lose_store()
        if by_signal:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            lab.told.feed_eof()

    monkeypatch.setattr(lab.server, "prepare", prepare_and_lose_store)
    async with asyncio.timeout(20):
        await lab.worker.run()


async def test_it_ends_while_it_waits_for_the_store_to_take_over(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occ.worker._tell", lambda **said: None)
    lab.told.feed_data(b"listen\ntake-over\n")
    take_over = lab.server.take_over

    async def lose_store_and_take_over() -> None:
        if lab.server.store.available:
            await lab.lose_store()
            lab.told.feed_eof()
        await take_over()

    monkeypatch.setattr(lab.server, "take_over", lose_store_and_take_over)
    async with asyncio.timeout(20):
        await lab.worker.run()
