"""Charging data records reach their files exactly once, in order, whatever ends in between."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from balance.directory import create_account
from balance.embedded import Address
from balance.ledger import Draft, top_up
from balance.model import Account, AccountKind, Plan, Session
from balance.records import make_plan
from balance.resp import StoreUnavailableError
from balance.store import Store, StoreSettings
from occ.outbox import CdrFiles, CdrSettings, Outbox, OutboxProcess

ACCOUNT = b"acc-1"


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
    yield store
    await store.stop()


async def commit(store: Store, first: int, last: int) -> None:
    """Commit records numbered first to last, two in each operation."""

    def step(numbers: tuple[int, ...], account: Account | None) -> Plan:
        assert account is not None
        draft = Draft(account, 2)
        top_up(draft, 1)
        records = tuple(msgpack.packb({"number": number, "facts": msgpack.packb({"apn": b"x"})}) for number in numbers)
        return make_plan(draft, "test", ("test",), None, records)

    def at(number: int) -> Any:
        def run(account: Account | None, ended: Session | None) -> Plan:
            return step((number, number + 1), account)

        return run

    for number in range(first, last + 1, 2):
        await store.commit(ACCOUNT, at(number))


def written(directory: Path) -> list[int]:
    """The record numbers in all files, in the order of the files."""
    lines = [line for path in sorted(directory.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line)["number"] for line in lines]


async def drain(outbox: Outbox) -> None:
    while await outbox.deliver():
        pass


async def test_records_are_written_once_and_in_order(store: Store, tmp_path: Path) -> None:
    await commit(store, 1, 20)
    outbox = Outbox(store, CdrFiles(CdrSettings(tmp_path)))
    await drain(outbox)
    assert written(tmp_path) == list(range(1, 21))
    assert await store.call("XLEN", store.keys.outbox(0)) == 0


async def test_a_crash_between_the_file_and_the_outbox_writes_nothing_twice(store: Store, tmp_path: Path) -> None:
    await commit(store, 1, 10)
    files = CdrFiles(CdrSettings(tmp_path))
    outbox = Outbox(store, files)
    entries = await store.call("XRANGE", store.keys.outbox(0), "-", "+")
    await drain(outbox)
    files.close()
    # As if the process had ended before it struck the entries:
    await store.call("DEL", store.keys.outbox(0))
    for entry, fields in entries:
        await store.call("XADD", store.keys.outbox(0), entry, *fields)
    files = CdrFiles(CdrSettings(tmp_path))
    again = Outbox(store, files)
    again.resume(files.last_entries())
    await drain(again)
    assert written(tmp_path) == list(range(1, 11))


async def test_a_torn_last_line_is_cut_off_and_written_again(store: Store, tmp_path: Path) -> None:
    await commit(store, 1, 4)
    entries = await store.call("XRANGE", store.keys.outbox(0), "-", "+")
    first = CdrFiles(CdrSettings(tmp_path))
    await drain(Outbox(store, first))
    first.close()
    path = next(tmp_path.glob("*.jsonl"))
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    await store.call("DEL", store.keys.outbox(0))
    for entry, fields in entries:
        await store.call("XADD", store.keys.outbox(0), entry, *fields)
    files = CdrFiles(CdrSettings(tmp_path))
    again = Outbox(store, files)
    again.resume(files.last_entries())
    await drain(again)
    assert path.read_bytes() == content


async def test_files_rotate_by_size(store: Store, tmp_path: Path) -> None:
    outbox = Outbox(store, CdrFiles(CdrSettings(tmp_path, rotate_bytes=200)))
    for first in range(1, 21, 4):
        await commit(store, first, first + 3)
        await drain(outbox)
        await asyncio.sleep(0.002)
    assert len(list(tmp_path.glob("*.jsonl"))) > 1
    assert written(tmp_path) == list(range(1, 21))


async def test_what_cannot_be_written_stays_in_the_outbox(store: Store, tmp_path: Path) -> None:
    await commit(store, 1, 4)
    directory = tmp_path / "cdr"
    outbox = Outbox(store, CdrFiles(CdrSettings(directory)))
    shutil.rmtree(directory)
    with pytest.raises(OSError):
        await outbox.deliver()
    directory.mkdir()
    await drain(outbox)
    assert written(directory) == [1, 2, 3, 4]


async def test_the_process_delivers_survives_a_kill_and_ends_when_told(store: Store, tmp_path: Path) -> None:
    address = store.settings.address
    process = OutboxProcess(address, 4, CdrSettings(tmp_path), "warning")
    await process.start()
    await commit(store, 1, 40)
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await commit(store, 41, 60)
    for _ in range(500):
        if written(tmp_path) == list(range(1, 61)):
            break
        await asyncio.sleep(0.02)
    await commit(store, 61, 80)
    await process.stop()
    assert written(tmp_path) == list(range(1, 81))
    assert process.restarts == 1
    assert process.pid != first


def test_a_directory_has_one_writer(tmp_path: Path) -> None:
    """Two would each deliver what the other has delivered already."""
    files = CdrFiles(CdrSettings(tmp_path))
    with pytest.raises(BlockingIOError, match="another server"):
        CdrFiles(CdrSettings(tmp_path))
    files.close()
    CdrFiles(CdrSettings(tmp_path)).close()


async def test_a_directory_that_cannot_be_made_is_refused_at_start(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = OutboxProcess(store.settings.address, 4, CdrSettings(tmp_path / "file" / "cdr"), "warning")
    with pytest.raises(OSError):
        await process.start()


async def test_an_outbox_without_its_store_waits(clean_redis: Address, tmp_path: Path) -> None:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    await store.stop()
    await asyncio.sleep(0.05)
    with pytest.raises(StoreUnavailableError):
        await Outbox(store, CdrFiles(CdrSettings(tmp_path))).deliver()
