"""Servers that share a store each deliver charging data records: every record reaches one file of one of them, once.

Here without servers: outboxes on a real Redis, stopped at the worst moments.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from balance.directory import create_account
from balance.embedded import Address
from balance.model import AccountKind, IdentityType, Subscriber
from balance.plans import Outcome
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from occ import outbox as outboxes
from occ.cdr_files import CdrFiles, CdrSettings, record_lines
from occ.charging import Charging
from occ.outbox import Outbox
from occ.profiles import LENIENT
from occ.rating.catalogue import load_catalogue
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import decode_request
from tests.failover import Session

MSISDN = "491700000001"
CATALOGUE = Path(__file__).parents[2] / "config" / "catalogue.yaml"


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    await create_account(
        store, b"acc-1", AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=1_000_000_000
    )
    await add_subscriber(store, Subscriber(b"acc-1", b"acc-1", "standard", ((IdentityType.E164, MSISDN.encode()),)))
    yield store
    await store.stop()


async def commit(store: Store, numbers: range) -> None:
    """Debits with these numbers for Session-Ids: each leaves one entry of one record."""
    charging = Charging(store, Rules(load_catalogue(CATALOGUE), ChargingSettings()))
    for number in numbers:
        event = decode_request(Session("pgw.example.net", str(number), MSISDN).event())
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        charging.charge(event, LENIENT, b"pgw.example.net", 1_700_000_000_000, future.set_result)
        assert (await future).result_code == 2001


class Server:
    """What a server has of it: a directory, and an outbox that can end at any time and begin anew."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.directory = directory
        self.begin()

    def begin(self) -> None:
        self.files = CdrFiles(CdrSettings(self.directory))
        self.outbox = Outbox(self.store, self.files)

    def end(self) -> None:
        self.files.close()

    async def drain(self) -> None:
        while await self.outbox.deliver():
            pass

    def numbers(self) -> list[int]:
        return [int(json.loads(line)["session_id"]) for line in record_lines(self.directory, "jsonl")]

    def fail_at(self, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its files fail at ``write`` or ``sync`` from now on, until it begins anew."""

        def fail(*_: object) -> None:
            raise OSError("the disk is gone")

        monkeypatch.setattr(self.files, what, fail)


@pytest.fixture
def pair(store: Store, tmp_path: Path) -> tuple[Server, Server]:
    return Server(store, tmp_path / "first"), Server(store, tmp_path / "second")


async def left(store: Store) -> tuple[int, int]:
    """Entries in the outbox, and entries that somebody has taken."""
    key = store.keys.outbox(0)
    return await store.call("XLEN", key), (await store.call("XPENDING", key, outboxes.GROUP))[0]


async def test_two_servers_at_once_deliver_each_record_once(store: Store, pair: tuple[Server, Server]) -> None:
    first, second = pair
    await commit(store, range(1, 101))
    await asyncio.gather(first.drain(), second.drain())
    await commit(store, range(101, 131))
    await asyncio.gather(second.drain(), first.drain())
    assert sorted(first.numbers() + second.numbers()) == list(range(1, 131))
    for server in pair:
        assert server.numbers() == sorted(server.numbers())
    assert await left(store) == (0, 0)


async def test_one_server_delivers_what_the_other_does_not_come_to(store: Store, pair: tuple[Server, Server]) -> None:
    first, second = pair
    await commit(store, range(1, 21))
    await first.drain()
    await commit(store, range(21, 41))
    first.end()
    await second.drain()
    assert (first.numbers(), second.numbers()) == (list(range(1, 21)), list(range(21, 41)))


@pytest.mark.parametrize("ended_at", ["write", "sync"])
async def test_what_a_server_took_before_it_ended_is_left_to_it(
    store: Store, pair: tuple[Server, Server], ended_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it had written the records or not, only its own files tell."""
    first, second = pair
    await commit(store, range(1, 21))
    first.fail_at(ended_at, monkeypatch)
    with pytest.raises(OSError, match="the disk is gone"):
        await first.outbox.deliver()
    first.end()
    await commit(store, range(21, 41))
    await second.drain()
    assert second.numbers() == list(range(21, 41))
    assert await left(store) == (20, 20)
    first.begin()
    await commit(store, range(41, 61))
    await first.drain()
    assert first.numbers() == [*range(1, 21), *range(41, 61)]
    assert await left(store) == (0, 0)


async def test_a_disk_that_was_full_for_a_while_loses_no_record(
    store: Store, pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = pair
    await commit(store, range(1, 31))
    with monkeypatch.context() as meanwhile:
        first.fail_at("write", meanwhile)
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                await first.outbox.deliver()
    await commit(store, range(31, 41))
    await first.drain()
    assert first.numbers() == list(range(1, 41))


async def test_an_end_between_the_two_strikes_leaves_nothing_behind(store: Store, pair: tuple[Server, Server]) -> None:
    """Struck from the stream, but still noted as taken."""
    first, _ = pair
    await commit(store, range(1, 11))
    key = store.keys.outbox(0)
    await first.outbox.deliver()
    name = first.files.name()
    await commit(store, range(11, 12))
    ((entry, _),) = await store.call("XRANGE", key, "-", "+")
    await store.call("XCLAIM", key, outboxes.GROUP, name, 0, entry, "FORCE", "JUSTID")
    await store.call("XDEL", key, entry)
    assert await left(store) == (0, 1)
    first.end()
    first.begin()
    await first.drain()
    assert await left(store) == (0, 0)
    assert first.numbers() == list(range(1, 11))


async def test_more_than_one_delivery_moves_is_taken_in_turn(
    store: Store, pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was taken long before, between entries of the other server."""
    monkeypatch.setattr(outboxes, "PAGES_A_SYNC", 1)
    first, second = pair
    await commit(store, range(1, 11))
    first.fail_at("sync", monkeypatch)
    with pytest.raises(OSError, match="the disk is gone"):
        await first.outbox.deliver()
    first.end()
    await commit(store, range(11, 41))
    for _ in range(3):
        await second.outbox.deliver()
    first.begin()
    for _ in range(5):
        await asyncio.gather(first.outbox.deliver(), second.outbox.deliver())
    assert sorted(first.numbers() + second.numbers()) == list(range(1, 41))
    assert await left(store) == (0, 0)


async def test_a_stream_that_was_lost_is_begun_anew(store: Store, pair: tuple[Server, Server]) -> None:
    first, _ = pair
    await commit(store, range(1, 6))
    await first.drain()
    await store.call("DEL", store.keys.outbox(0))
    await commit(store, range(6, 11))
    with pytest.raises(StoreError, match="NOGROUP"):
        await first.outbox.deliver()
    await first.drain()
    assert first.numbers() == list(range(1, 11))


def test_a_directory_keeps_its_name(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        files = CdrFiles(CdrSettings(tmp_path / "one"))
        names.append(files.name())
        files.close()
    other = CdrFiles(CdrSettings(tmp_path / "other"))
    assert names[0] == names[1] != other.name()
    other.close()


async def test_records_that_wait_for_a_server_that_is_gone_are_told_of(
    store: Store,
    pair: tuple[Server, Server],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = pair
    await commit(store, range(1, 4))
    first.fail_at("write", monkeypatch)
    with pytest.raises(OSError, match="the disk is gone"):
        await first.outbox.deliver()
    monkeypatch.setattr(outboxes, "OTHERS_CHECK_S", 0.01)
    await second.drain()
    await asyncio.sleep(0.05)
    with caplog.at_level(logging.ERROR):
        running = asyncio.create_task(second.outbox.run())
        for _ in range(200):
            if caplog.text:
                break
            await asyncio.sleep(0.01)
        running.cancel()
    assert "3 entries of charging data records wait for the server that took them" in caplog.text
    assert first.files.name().decode() in caplog.text
