"""Charging data records reach their files in order and once, whatever ends in between.

Where that cannot be, as the files are gone that would tell, they come again under the same ``record_id``.
"""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from balance.accounts import Account, ServiceUse, Session
from balance.directory import create_account
from balance.embedded import Address
from balance.ledger import Draft, top_up
from balance.model import AccountKind, Unit
from balance.packing import pack
from balance.plans import Plan
from balance.records import make_plan, unpack_outbox
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store, StoreSettings
from occ import cdr
from occ.cdr_files import UNREADABLE, CdrFiles, CdrSettings, record_files, record_lines
from occ.outbox import Outbox, OutboxProcess, _work

ACCOUNT = b"acc-1"


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
    yield store
    await store.stop()


async def commit(store: Store, first: int, last: int) -> None:
    """Commit records with Service-Identifiers first to last, two in each operation."""

    def at(number: int) -> Any:
        def step(account: Account | None, ended: Session | None) -> Plan:
            assert account is not None
            draft = Draft(account, 2)
            top_up(draft, 1)
            session = Session(b"s%d" % number, b"sub-1", "standard", b"pgw", 0, 1, 1)
            session.services = [ServiceUse(-1, each, "sms", Unit.EVENTS) for each in (number, number + 1)]
            return make_plan(draft, "test", ("test",), None, cdr.closing_records(draft, session, cdr.NORMAL))

        return step

    for number in range(first, last + 1, 2):
        await store.commit(ACCOUNT, at(number))


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record_lines(directory, "jsonl")]


def written(directory: Path, name: str = "jsonl") -> list[int]:
    """The numbers of the records in all files of a format, in the order of the files."""
    if name == "jsonl":
        return [line["service_identifier"] for line in lines(directory)]
    return [int(line.split(b",")[16]) for line in record_lines(directory, "csv")]


async def drain(outbox: Outbox) -> None:
    while await outbox.deliver():
        pass


async def put_back(store: Store, entries: Any) -> None:
    """The outbox as if these entries had never been struck."""
    await store.call("DEL", store.keys.outbox(0))
    for entry, fields in entries:
        await store.call("XADD", store.keys.outbox(0), entry, *fields)


async def eventually(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.01)


async def test_records_are_written_once_and_in_order(store: Store, tmp_path: Path) -> None:
    await commit(store, 1, 20)
    outbox = Outbox(store, CdrFiles(CdrSettings(tmp_path)))
    await drain(outbox)
    assert written(tmp_path) == list(range(1, 21))
    assert outbox.delivered == 20
    assert await store.call("XLEN", store.keys.outbox(0)) == 0


def _of_another_type(record: bytes) -> bytes:
    """A record whose service has a name of octets, which no line can be made of."""
    fields = list(msgpack.unpackb(record, use_list=False))
    fields[3] = b"\xff"
    return pack(tuple(fields))


@pytest.mark.parametrize("formats", [("jsonl",), ("csv",), ("jsonl", "csv")])
@pytest.mark.parametrize("spoil", ["octets", "no list", "no octets", "one", "type"])
async def test_what_is_no_record_is_set_aside_and_holds_up_nobody(
    store: Store, tmp_path: Path, formats: tuple[str, ...], spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    await commit(store, 1, 6)
    entries = await store.call("XRANGE", store.keys.outbox(0), "-", "+")
    name, packed = entries[1][1]
    first, second = unpack_outbox(packed)
    spoilt, left = {
        "octets": (b"\xc1 what is this", b"\xc1 what is this"),
        "no list": (pack(7), pack(7)),
        "no octets": (pack((first, 5)), pack((first, 5))),
        "one": (pack((first, b"")), b""),
        "type": (pack((first, _of_another_type(second))), None),
    }[spoil]
    entries[1][1] = [name, spoilt]
    await put_back(store, entries)
    files = CdrFiles(CdrSettings(tmp_path, formats=formats))
    outbox = Outbox(store, files)
    await drain(outbox)
    assert await store.call("XLEN", store.keys.outbox(0)) == 0
    rest = [3] if spoil in ("one", "type") else []
    for each in formats:
        assert written(tmp_path, each) == [1, 2, *rest, 5, 6]
    (told,) = [json.loads(line) for line in (tmp_path / UNREADABLE).read_text().splitlines()]
    entry = entries[1][0].decode()
    assert told["entry"] == f"0/{entry}/{2 if rest else 1}"
    assert left is None or bytes.fromhex(told["content"]) == left
    assert told["entry"] in caplog.text


@pytest.mark.parametrize("formats", [("jsonl",), ("csv",), ("jsonl", "csv")])
async def test_a_crash_between_the_file_and_the_outbox_writes_nothing_twice(
    store: Store, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    await commit(store, 1, 10)
    entries = await store.call("XRANGE", store.keys.outbox(0), "-", "+")
    files = CdrFiles(CdrSettings(tmp_path, formats=formats))
    await drain(Outbox(store, files))
    files.close()
    await put_back(store, entries)
    await drain(Outbox(store, CdrFiles(CdrSettings(tmp_path, formats=formats))))
    for name in formats:
        assert written(tmp_path, name) == list(range(1, 11))


@pytest.mark.parametrize("name", ["jsonl", "csv"])
@pytest.mark.parametrize("octets", [7, 100_000])
async def test_a_torn_last_line_is_cut_off_and_written_again(
    store: Store, tmp_path: Path, name: str, octets: int
) -> None:
    """Also a torn header."""
    settings = CdrSettings(tmp_path, formats=(name,))
    await commit(store, 1, 4)
    entries = await store.call("XRANGE", store.keys.outbox(0), "-", "+")
    files = CdrFiles(settings)
    await drain(Outbox(store, files))
    files.close()
    (path,) = record_files(tmp_path, name)
    content = path.read_bytes()
    path.write_bytes(content[: max(5, len(content) - octets)])
    await put_back(store, entries)
    await drain(Outbox(store, CdrFiles(settings)))
    assert path.read_bytes() == content


async def test_a_format_that_is_added_begins_with_what_comes(store: Store, tmp_path: Path) -> None:
    """A disk that was full while one of the formats was written is the same: each knows what it has."""
    await commit(store, 1, 4)
    entries = await store.call("XRANGE", store.keys.outbox(0), "-", "+")
    files = CdrFiles(CdrSettings(tmp_path))
    await drain(Outbox(store, files))
    files.close()
    await put_back(store, entries)
    await commit(store, 5, 6)
    await drain(Outbox(store, CdrFiles(CdrSettings(tmp_path, formats=("jsonl", "csv")))))
    assert written(tmp_path) == written(tmp_path, "csv") == [1, 2, 3, 4, 5, 6]


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


async def test_what_was_in_a_file_that_was_taken_away_unfinished_is_written_again(store: Store, tmp_path: Path) -> None:
    """At once, as it is after a start; and what comes after that is delivered."""

    class Files(CdrFiles):
        def begin_sync(self) -> None:
            super().begin_sync()
            for path in taken_away:
                path.unlink()
            taken_away.clear()

    taken_away: list[Path] = []
    outbox = Outbox(store, Files(CdrSettings(tmp_path)))
    await commit(store, 1, 2)
    await drain(outbox)
    taken_away += tmp_path.glob("*.part")
    await commit(store, 3, 4)
    with pytest.raises(FileNotFoundError):
        await outbox.deliver()
    await commit(store, 5, 6)
    await drain(outbox)
    assert written(tmp_path) == [3, 4, 5, 6]
    assert await store.call("XLEN", store.keys.outbox(0)) == 0


@asynccontextmanager
async def nothing_is_struck(store: Store) -> AsyncIterator[None]:
    """Redis refuses to strike entries meanwhile: what is written cannot be acknowledged."""
    await store.call("ACL", "SETUSER", "default", "-xdel")
    try:
        yield
    finally:
        await store.call("ACL", "SETUSER", "default", "+xdel")


async def test_files_are_closed_when_all_of_them_is_struck_and_not_before(store: Store, tmp_path: Path) -> None:
    """Whoever fetches closed files takes away with them what tells that their records are delivered."""
    outbox = Outbox(store, CdrFiles(CdrSettings(tmp_path, rotate_bytes=200)))
    await commit(store, 1, 40)
    async with nothing_is_struck(store):
        with pytest.raises(StoreError, match="xdel"):
            await outbox.deliver()
        assert written(tmp_path) == list(range(1, 41))
        assert len(list(tmp_path.glob("*.part"))) > 1
        assert list(tmp_path.glob("*.jsonl")) == []
    await outbox.deliver()
    assert list(tmp_path.glob("*.part")) == []
    assert len(list(tmp_path.glob("*.jsonl"))) == len(list(tmp_path.glob("*.jsonl.sum"))) > 1
    assert written(tmp_path) == list(range(1, 41))


async def test_a_file_is_not_closed_over_what_an_earlier_process_has_not_struck(store: Store, tmp_path: Path) -> None:
    """Killed with more written than it strikes at once; the next one finds a file that is to be closed, and is killed
    as well. Who has fetched closed files by then must not find their records in later ones again.
    """
    directory, elsewhere = tmp_path / "cdr", tmp_path / "elsewhere"
    elsewhere.mkdir()

    async def live(rotate_bytes: int, until: Callable[[], Awaitable[bool]]) -> None:
        files = CdrFiles(CdrSettings(directory, rotate_bytes))
        running = asyncio.create_task(Outbox(store, files).run())
        async with asyncio.timeout(20):
            while not await until():  # noqa: ASYNC110 - the store decides
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)  # what is due is closed by then
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        files.close()

    async def is_all_written() -> bool:
        return len(written(directory)) == 600

    async def is_some_struck() -> bool:
        return int(await store.call("XLEN", store.keys.outbox(0))) < 300

    async def is_all_struck() -> bool:
        return int(await store.call("XLEN", store.keys.outbox(0))) == 0

    await commit(store, 1, 600)
    async with nothing_is_struck(store):
        await live(1 << 30, is_all_written)
    await live(1, is_some_struck)
    for path in directory.glob("*.jsonl"):
        shutil.move(path, elsewhere)
    await live(1, is_all_struck)
    assert written(elsewhere) + written(directory) == list(range(1, 601))


async def test_it_ends_although_others_go_on_to_commit(store: Store, tmp_path: Path) -> None:
    """What they commit meanwhile is for the next one. Here there is more whenever it has struck what it found."""
    commits: list[asyncio.Task[None]] = []

    class Files(CdrFiles):
        def begin_sync(self) -> None:
            super().begin_sync()
            number = 2 * len(commits) + 3
            commits.append(asyncio.create_task(commit(store, number, number + 1)))

    await commit(store, 1, 2)
    stop = asyncio.Event()
    stop.set()
    async with asyncio.timeout(3):
        await _work(store, Files(CdrSettings(tmp_path)), stop)
    await asyncio.gather(*commits)
    found = written(tmp_path)
    assert found == list(range(1, len(found) + 1))
    assert list(tmp_path.glob("*.part")) == []
    left = await store.call("XLEN", store.keys.outbox(0))
    assert left > 0
    assert len(found) + 2 * left == 2 + 2 * len(commits)


async def test_the_process_delivers_survives_a_kill_and_ends_when_told(store: Store, tmp_path: Path) -> None:
    process = OutboxProcess(store.settings.address, 4, CdrSettings(tmp_path), "warning")
    await process.start()
    await commit(store, 1, 40)
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await commit(store, 41, 60)
    await eventually(lambda: written(tmp_path) == list(range(1, 61)))
    await commit(store, 61, 80)
    await process.stop()
    assert written(tmp_path) == list(range(1, 81))
    assert process.restarts == 1
    assert process.pid != first
    assert list(tmp_path.glob("*.part")) == []
    assert len(list(tmp_path.glob("*.jsonl"))) == len(list(tmp_path.glob("*.jsonl.sum"))) == 1


@pytest.mark.parametrize("fetched", [False, True])
async def test_killed_between_writing_and_acknowledging(store: Store, tmp_path: Path, fetched: bool) -> None:
    """The process finds its lines in its next life, and writes none again.

    If somebody has fetched the unfinished file meanwhile, it cannot know and writes them again, under the same names:
    whoever has both drops the second of them by ``record_id``.
    """
    directory, elsewhere = tmp_path / "cdr", tmp_path / "elsewhere"
    settings = CdrSettings(directory)
    process = OutboxProcess(store.settings.address, 4, settings, "error")
    await commit(store, 1, 20)
    async with nothing_is_struck(store):
        await process.start()
        await eventually(lambda: written(directory) == list(range(1, 21)))
        pid = process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: process.restarts == 1)
        assert await store.call("XLEN", store.keys.outbox(0)) == 10
        if fetched:
            shutil.copytree(directory, elsewhere)
            for path in record_files(directory, "jsonl"):
                path.unlink()
    await commit(store, 21, 30)
    await eventually(lambda: written(directory)[-1:] == [30])
    await process.stop()
    assert process.pid != pid
    if not fetched:
        assert written(directory) == list(range(1, 31))
        return
    first, again = lines(elsewhere), lines(directory)
    assert [line["service_identifier"] for line in again] == list(range(1, 31))
    known = {line["record_id"]: line for line in first}
    assert len(known) == len(first) == 20
    assert [line for line in again if line["record_id"] in known] == first
    assert len({line["record_id"] for line in again}) == 30


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
