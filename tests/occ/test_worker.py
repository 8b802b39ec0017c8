"""A worker that loses its supervisor ends, whatever it waits for: else it keeps the listening sockets to itself.

One that is replaced settles first what it has answered without the store.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from balance.plans import Outcome
from occ.away_journal import AwayJournal
from occ.listening import bound
from occ.profiles import LENIENT
from occ.worker import Job, Worker
from protocols.credit_control import decode_request
from tests.occ.test_away import ccr

CATALOGUE = """\
version: granting
currency: EUR
services:
  internet:
    context: 32251@3gpp.org
    rating_groups: [10]
    unit: octets
    quota: 1 MiB
    validity: 3 s
    when_store_is_away: {grant: 1 MiB, per_session: 1 MiB, grants_per_session: 9, sessions: 9, grants: 9, for: 1 h,
                         unknown_subscribers: grant}
plans:
  standard: {internet: 0.01 per 1 MiB}
"""


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
        config = self.folder / "occ.yaml"
        config.write_text("catalogue: catalogue.yaml\n")
        (self.folder / "catalogue.yaml").write_text(CATALOGUE)
        (diameter,), (metrics,) = (bound("127.0.0.1", 0, "", "") for _ in range(2))
        job = Job(1, str(config), overrides, None, None, [diameter.detach()], [], metrics.detach(), True, True, 0)
        self.worker = Worker(job, job.settings(), self.told)
        self.server = self.worker._server

    async def lose_store(self) -> None:
        await self.redis.stop()
        while self.server.store.available:  # noqa: ASYNC110 - it tells nobody
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


async def test_one_that_is_replaced_settles_what_it_answered_without_the_store(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients come back to the process that replaces it, which must know their sessions (row 16)."""
    answers: list[Outcome] = []

    def tell(**said: object) -> None:
        """As the supervisor goes on at each step. The answer is given as late as possible."""
        if said["done"] == "prepare":
            lab.told.feed_data(b"listen\nstop-listening\n")
        elif said["done"] == "stop-listening":
            message = ccr("nobody", "s1", 1, 0)
            away = lab.server.away
            assert away is not None
            assert away.take(decode_request(message), message, LENIENT, b"pgw", answers.append)
            lab.told.feed_eof()

    monkeypatch.setattr("occ.worker._tell", tell)
    async with asyncio.timeout(20):
        await lab.worker.run()
    assert [each.result_code for each in answers] == [2001]
    journal = AwayJournal(lab.server.settings.store.away_journal(lab.server.settings.diameter.origin_host)).open()
    journal.close()
    assert journal.last_number == 0 or not journal.waiting
