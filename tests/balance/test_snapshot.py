"""Backups: what is written can be read, what is damaged is refused, and nothing is left of a restore that failed.

What makes these tests fail, each taken away alone: the checksum in ``_unpack``; the comparison in ``_compare``;
``DBSIZE`` in ``restore_external`` (two stores become one); ``_take_back`` (half a store is left).
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from balance import snapshot
from balance.directory import create_account
from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings
from balance.migrations import FORMAT
from balance.model import AccountKind
from balance.resp import RedisLink, StoreError
from balance.snapshot import backup, check, restore_embedded, restore_external
from balance.store import Store, StoreSettings
from balance.verify import Report

PARTITIONS = 4
ACCOUNTS = 300


@pytest.fixture
async def saved(clean_redis: Address, tmp_path: Path) -> Path:
    """A backup of a store with some accounts."""
    store = Store(StoreSettings(clean_redis, PARTITIONS))
    await store.start()
    await asyncio.gather(
        *(
            create_account(store, b"a%d" % n, AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=n)
            for n in range(ACCOUNTS)
        )
    )
    await store.call("SET", "s:some-session", b"a1", "PX", 3_600_000)
    await store.stop()
    file = tmp_path / "saved"
    await backup(clean_redis, file, PARTITIONS, now_ms=1_767_225_600_000)
    return file


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Address]:
    async with EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path / "external")) as server:
        yield server.address


def balances(report: Report) -> int:
    return report.totals[0].balances


async def test_a_backup_says_what_is_in_it(saved: Path) -> None:
    contents, report = await check(saved)
    assert (contents.created, contents.partitions) == ("2026-01-01T00:00:00+00:00", PARTITIONS)
    assert (contents.accounts, contents.journal_records) == (ACCOUNTS, ACCOUNTS)
    assert contents.totals == (("money", 978, sum(range(ACCOUNTS)), 0),)
    assert (contents.discrepancies, report.discrepancies) == (0, [])
    assert saved.read_bytes().startswith(b'OCC store backup 1\n{"created": ')


async def test_nothing_but_the_file_is_left(saved: Path, clean_redis: Address) -> None:
    assert list(saved.parent.iterdir()) == [saved]
    with pytest.raises(StoreError, match="is there already"):
        await backup(clean_redis, saved, PARTITIONS, now_ms=1)


async def test_an_inconsistent_ledger_is_backed_up_and_told(clean_redis: Address, saved: Path, tmp_path: Path) -> None:
    with redis.Redis.from_url(clean_redis.url) as client:
        client.xtrim("{p0000}:journal", maxlen=1)
    file = tmp_path / "inconsistent"
    contents, report = await backup(clean_redis, file, PARTITIONS, now_ms=1)
    assert contents.discrepancies == report.discrepancy_count > 0
    assert sorted((await check(file))[1].discrepancies) == sorted(report.discrepancies)


@pytest.mark.parametrize(
    ("reason", "old", "new"),
    [
        ("octets of data", b"", b"x"),
        ("checksum", b"\xff", b"\xfe"),
        ("is no backup", b"OCC store backup 1\n", b"OCC store backup 7\n"),
        ("second line", b'"accounts"', b'"counts"'),
        ("accounts 300 and not 299", b'"accounts": 300', b'"accounts": 299'),
        ("format 9", b'"format": %d' % FORMAT, b'"format": 9'),
    ],
)
async def test_what_is_damaged_is_refused(saved: Path, tmp_path: Path, reason: str, old: bytes, new: bytes) -> None:
    whole = saved.read_bytes()
    # What stands last, as octets go: the first of 0xff is among the data.
    damaged = whole + new if not old else whole.replace(old, new, 1)
    assert damaged != whole
    bad = tmp_path / "bad"
    bad.write_bytes(damaged)
    with pytest.raises(StoreError, match=reason):
        await check(bad)
    with pytest.raises(StoreError, match=reason):
        await restore_embedded(bad, tmp_path / "data" / "redis")
    assert list((tmp_path / "data").iterdir()) == []


async def test_a_backup_that_was_cut_off_is_refused(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for octets in (0, 5, 19, 30, len(whole) // 2, len(whole) - 1):
        (tmp_path / "bad").write_bytes(whole[:octets])
        with pytest.raises(StoreError):
            await check(tmp_path / "bad")


async def test_restored_into_an_empty_directory_it_is_read_at_the_next_start(saved: Path, tmp_path: Path) -> None:
    directory = tmp_path / "data" / "redis"
    directory.mkdir(parents=True)
    _, restored = await restore_embedded(saved, directory)
    assert sorted(path.name for path in directory.iterdir() if path.is_file()) in ([], ["appendonly.aof"])
    async with EmbeddedRedis(EmbeddedSettings(data_dir=directory)) as server:
        with redis.Redis.from_url(server.address.url) as client:
            assert 0 < client.pttl("s:some-session") <= 3_600_000
        store = Store(StoreSettings(server.address, PARTITIONS))
        await store.start()
        await create_account(store, b"new", AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=5)
        await store.stop()
        with pytest.raises(StoreError, match="a server runs on"):
            await restore_embedded(saved, directory)
    with pytest.raises(StoreError, match="is not empty"):
        await restore_embedded(saved, directory)
    assert balances(restored) == sum(range(ACCOUNTS))


async def test_restored_over_the_network(saved: Path, empty: Address, clean_redis: Address) -> None:
    _, restored = await restore_external(saved, empty, PARTITIONS)
    assert balances(restored) == sum(range(ACCOUNTS))
    with redis.Redis.from_url(empty.url) as there, redis.Redis.from_url(clean_redis.url) as here:
        keys = here.keys("*")
        assert sorted(there.keys("*")) == sorted(keys)
        assert [there.dump(key) for key in keys] == [here.dump(key) for key in keys]
        assert 0 < there.pttl("s:some-session") <= 3_600_000
    with pytest.raises(StoreError, match="goes into an empty one"):
        await restore_external(saved, empty, PARTITIONS)
    with pytest.raises(StoreError, match=r"set store\.partitions to 4"):
        await restore_external(saved, empty, 8)


async def test_a_restore_that_fails_leaves_the_store_empty(
    saved: Path, empty: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = 0
    call = RedisLink.call

    async def failing(link: RedisLink, *command: object) -> object:
        nonlocal copied
        if command[0] == "RESTORE":
            copied += 1
            if copied > 250:
                raise StoreError("OOM command not allowed")
        return await call(link, *command)

    monkeypatch.setattr(RedisLink, "call", failing)
    with pytest.raises(StoreError, match="OOM"):
        await restore_external(saved, empty, PARTITIONS)
    with redis.Redis.from_url(empty.url) as client:
        assert client.dbsize() == 0


async def test_a_server_that_gives_no_snapshot_is_named(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"\n\n-NOPERM this user has no permissions\r\n" if answers else b"\n")
        writer.close()

    answers = True
    path = tmp_path / "redis.sock"
    async with await asyncio.start_unix_server(refuse, str(path)):
        with pytest.raises(StoreError, match="gives no snapshot: NOPERM"):
            await backup(Address(unix_path=path), tmp_path / "new", PARTITIONS, now_ms=1)
        answers = False
        with pytest.raises(StoreError, match="hung up instead"):
            await backup(Address(unix_path=path), tmp_path / "new", PARTITIONS, now_ms=1)
    with pytest.raises(StoreError, match="cannot be used"):
        await backup(Address(unix_path=tmp_path / "nobody"), tmp_path / "new", PARTITIONS, now_ms=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("pieces", [1, 7, 39, 40, 41, 1000])
async def test_a_snapshot_of_unknown_length(tmp_path: Path, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is marked; the mark may come in any number of pieces."""
    mark, data = b"m" * 40, bytes(range(256)) * 4

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"$EOF:" + mark + b"\r\n")
        whole = data + mark
        for at in range(0, len(whole), pieces):
            writer.write(whole[at : at + pieces])
            if at < 100 or at > len(whole) - 100:
                await writer.drain()
                await asyncio.sleep(0.001)
        await reader.read()
        writer.close()

    path = tmp_path / "redis.sock"
    async with await asyncio.start_unix_server(send, str(path)):
        with (tmp_path / "data").open("wb") as file:
            await snapshot._take(Address(unix_path=path), file)
    assert (tmp_path / "data").read_bytes() == data


async def test_the_schema_of_a_newer_version_is_refused(saved: Path, clean_redis: Address) -> None:
    """A store that a newer version wrote is not touched by this one."""
    with redis.Redis.from_url(clean_redis.url) as client:
        client.hset("occ:layout", "format", FORMAT + 1)
        before = {key: client.dump(key) for key in client.keys("*")}
        with pytest.raises(
            StoreError, match=f"its data are of format {FORMAT + 1} and this version reads format {FORMAT}"
        ):
            await Store(StoreSettings(clean_redis, PARTITIONS)).start()
        assert {key: client.dump(key) for key in client.keys("*")} == before
