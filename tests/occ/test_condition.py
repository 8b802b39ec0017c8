"""What is found out about the store, with a real primary and a real replica."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balance.embedded import Address
from balance.server_program import find_server
from balance.store import Store, StoreSettings
from occ.condition import OVERDUE_MS, ConditionCollector, ConditionWatch

PATIENCE_S = 20.0
NOW_MS = 1_900_000_000_000


@contextmanager
def redis(directory: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory.mkdir()
    arguments = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "", *options)
    process = subprocess.Popen([str(find_server().path), *arguments], stdout=subprocess.DEVNULL)
    try:
        yield port, process
    finally:
        process.kill()
        process.wait()


async def connected(port: int) -> Store:
    store = Store(StoreSettings(Address.parse(f"redis://127.0.0.1:{port}"), partitions=4))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await store.start()
            except Exception:  # it is still starting
                await asyncio.sleep(0.05)
            else:
                return store


async def until(watch: ConditionWatch, holds: Callable[[], bool]) -> None:
    """Look until it holds, and once at least."""
    async with asyncio.timeout(PATIENCE_S):
        await watch.look()
        while not holds():
            await asyncio.sleep(0.05)
            await watch.look()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Store, subprocess.Popen[bytes]]]:
    with (
        redis(tmp_path / "primary", "--repl-diskless-sync-delay", "0") as (port, process),
        redis(tmp_path / "replica", "--replicaof", "127.0.0.1", str(port)),
    ):
        store = await connected(port)
        yield store, process
        await store.stop()


async def test_outbox_supervision_and_replication_are_told(
    pair: tuple[Store, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    store, process = pair
    watch = ConditionWatch(store, list, lambda: NOW_MS)
    await watch.look()
    assert (watch.condition.outbox_entries, watch.condition.outbox_oldest_seconds) == (0, 0)
    assert watch.condition.overdue_accounts == 0

    for entry in (f"{NOW_MS - 9_000}-0", f"{NOW_MS - 1_000}-0"):
        await store.call("XADD", store.keys.outbox(0), entry, "c", "x")
    for account, due_ms in (("a", NOW_MS - OVERDUE_MS - 5_000), ("b", NOW_MS - 1_000), ("c", NOW_MS + 60_000)):
        await store.call("ZADD", store.keys.watch(0), due_ms, account)
    await until(watch, lambda: watch.condition.redis.replicas == 1)
    condition = watch.condition
    assert (condition.outbox_entries, condition.outbox_oldest_seconds) == (2, 9.0)
    assert (condition.overdue_accounts, condition.overdue_seconds) == (1, OVERDUE_MS / 1000 + 5)
    assert condition.redis.memory_octets > 0
    assert condition.redis.writes_to_disk
    await until(watch, lambda: watch.store_up)

    process.kill()
    process.wait()
    await until(watch, lambda: not watch.store_up)
    assert watch.condition.outbox_entries == condition.outbox_entries, (
        "figures stay as they were while nobody can be asked"
    )
    collector = ConditionCollector(watch, {"data": tmp_path, "gone": tmp_path / "gone"}, {"version": "1"})
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    assert [sample.value for sample in samples if sample.name == "occ_store_up"] == [0]
    assert {sample.labels["directory"] for sample in samples if sample.name == "occ_disk_free_bytes"} == {"data"}
