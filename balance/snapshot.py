"""A store as one file: taken from a running Redis as of one moment, checked, and put back into an empty one.

Redis is asked for what a new replica would get (``SYNC``): its whole data as of one moment, whatever is written
meanwhile, over the connection that everything else uses. A private server reads that, and the ledger in it is checked
against itself, before it counts as a backup; and again before a store is made of it.

A file is one line that says what it is, one line of JSON with what is in it (``Contents``) and the checksum, and the
data as Redis writes them (RDB). What is restored is the ledger as of then: accounts, sessions, journal, and the
charging data records that were not delivered at that moment.
"""

import asyncio
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final

import hiredis

from balance.address import Address
from balance.connecting import open_primary, primary_of
from balance.embedded import EmbeddedRedis, EmbeddedSettings, find_running
from balance.migrations import FORMAT, MIGRATIONS
from balance.resp import RedisLink, StoreError, StoreUnavailableError
from balance.store import Store, StoreSettings
from balance.verify import Report, verify

MAGIC: Final = b"OCC store backup 1\n"
"""First line of a file; the number is raised when older versions could not read it."""

SILENCE_S: Final = 60.0
"""Longest wait for the next octets of a snapshot; a server that prepares one sends line ends meanwhile."""
COPIED_AT_ONCE: Final = 200
"""Keys under way when a store is filled over the network."""

PER_NODE: Final = (
    "a cluster has no data of one moment: save each primary by itself with 'redis-cli -h HOST -p PORT --rdb FILE', "
    "and keep the append-only files of its replicas; see docs/store.md"
)

_HEADER_OCTETS: Final = 1 << 20
_PIECE: Final = 1 << 20
_EOF_MARK: Final = 40
_LEFTOVERS: Final = ("owner.lock", "server.lock", "redis.conf", "redis.log")
"""Of the server that read the data where they were put together."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a backup, as found by checking it."""

    created: str
    """ISO 8601, UTC: when the snapshot was asked for."""
    format: int
    """How accounts are written down (``balance.migrations.FORMAT``)."""
    partitions: int
    octets: int
    """Of the data behind the two lines."""
    sha256: str
    accounts: int
    journal_records: int
    open_sessions: int
    totals: tuple[tuple[str, int | None, int, int], ...]
    """(unit, currency, sum of all balances, sum of all reservations)."""
    discrepancies: int
    """What is wrong in the ledger itself; 0 if nothing is."""

    @classmethod
    def parse(cls, line: bytes) -> "Contents":
        """Raises ValueError."""
        read = json.loads(line)
        read["totals"] = tuple((unit, currency, balances, held) for unit, currency, balances, held in read["totals"])
        return cls(**read)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def backup(
    address: Address, file: Path, partitions: int, *, server_binary: str | None = None, now_ms: int
) -> tuple[Contents, Report]:
    """Write a backup of a running store; what is in it, and what its check found.

    ``server_binary``: as in ``EmbeddedSettings``. Raises StoreError, EmbeddedRedisError, or OSError, then without a
    file. A ledger that is inconsistent is backed up like any other.
    """
    if file.exists():
        raise StoreError(f"{file} is there already; name a file that is not")
    with tempfile.TemporaryDirectory(prefix=".occ-backup-", dir=file.absolute().parent) as folder:
        data = Path(folder) / "data"
        with data.open("wb") as written:
            await _take(address, written)
        report = await _check(data, partitions, server_binary)
        created = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds")
        contents = replace(
            _contents(report, partitions), created=created, octets=data.stat().st_size, sha256=_sum(data)
        )
        part = Path(folder) / "backup"
        with part.open("wb") as whole, data.open("rb") as source:
            whole.write(MAGIC + json.dumps(contents.as_dict()).encode() + b"\n")
            shutil.copyfileobj(source, whole, _PIECE)
            whole.flush()
            os.fsync(whole.fileno())
        os.link(part, file)  # fails where a rename would overwrite
        _sync_names(file.absolute().parent)
    return contents, report


async def check(file: Path, *, server_binary: str | None = None) -> tuple[Contents, Report]:
    """Read a backup whole, and check that it is what it says. Raises StoreError, EmbeddedRedisError or OSError."""
    with tempfile.TemporaryDirectory(prefix="occ-check-") as folder:
        data = Path(folder) / "data"
        contents = _unpack(file, data)
        report = await _check(data, contents.partitions, server_binary)
    _compare(file, contents, report)
    return contents, report


async def restore_embedded(file: Path, redis_dir: Path, *, server_binary: str | None = None) -> tuple[Contents, Report]:
    """Make the data directory of an embedded Redis from a backup; the server reads it when it is next started.

    The directory must be empty or not there, and it appears at once and whole, or not at all. Raises StoreError,
    EmbeddedRedisError or OSError.
    """
    if await find_running(redis_dir) is not None:
        raise StoreError(f"a server runs on {redis_dir}; stop it, and name an empty data directory")
    if redis_dir.exists() and (not redis_dir.is_dir() or any(redis_dir.iterdir())):
        raise StoreError(f"{redis_dir} is not empty; move what is there away first")
    redis_dir.parent.mkdir(parents=True, exist_ok=True)
    made = redis_dir.with_name(f"{redis_dir.name}.restoring-{secrets.token_hex(4)}")
    made.mkdir(mode=0o700)
    try:
        contents = _unpack(file, made / "appendonly.aof")
        async with _server(made, server_binary) as address:
            report = await _verify(address, contents.partitions)
        _compare(file, contents, report)
        for name in _LEFTOVERS:
            (made / name).unlink(missing_ok=True)
        made.rename(redis_dir)
        _sync_names(redis_dir.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return contents, report


async def restore_external(
    file: Path, address: Address, partitions: int, *, server_binary: str | None = None
) -> tuple[Contents, Report]:
    """Fill an empty external store from a backup, key by key; on failure it is empty again.

    Raises StoreError, EmbeddedRedisError or OSError.
    """
    if address.clustered:
        raise StoreError("a backup goes into a single server or one with replicas, not into a cluster")
    with tempfile.TemporaryDirectory(prefix="occ-restore-") as folder:
        data = Path(folder) / "appendonly.aof"
        contents = _unpack(file, data)
        if contents.partitions != partitions:
            raise StoreError(
                f"{file} was laid out with {contents.partitions} partitions but store.partitions says {partitions}; "
                f"set store.partitions to {contents.partitions}"
            )
        async with _server(Path(folder), server_binary) as source, _link(source) as here, _link(address) as there:
            keys = await there.call("DBSIZE")
            if keys:
                raise StoreError(f"the store at {address.url} has {keys} keys already; a backup goes into an empty one")
            try:
                await _copy(here, there)
            except BaseException:
                await _take_back(here, there)
                raise
        report = await _verify(address, contents.partitions)
    _compare(file, contents, report)
    return contents, report


# -- taking it ---------------------------------------------------------------------------------------------------------


async def _take(address: Address, file: BinaryIO) -> None:
    """What a new replica would get, up to the end of the snapshot. Raises StoreError."""
    if address.clustered:
        raise StoreError(PER_NODE)
    try:
        address = await primary_of(asyncio.get_running_loop(), address)
        if address.unix_path is not None:
            reader, writer = await asyncio.open_unix_connection(str(address.unix_path), limit=_PIECE)
        else:
            context = address.access.context()
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=_PIECE, ssl=context)
    except OSError as error:
        raise StoreError(f"Redis at {address.url} cannot be used: {error}") from error
    try:
        greeting = address.access.greeting()
        if greeting is not None:
            writer.write(hiredis.pack_command(greeting))
            told = (await _within(reader.readline(), address)).strip()
            if told != b"+OK":
                said = told.decode(errors="replace").lstrip("-")
                raise StoreError(f"Redis at {address.url} does not know us: {said}")
        writer.write(b"SYNC\r\n")
        line = b""
        while not line:
            line = (await _within(reader.readline(), address)).strip()
            if not line and reader.at_eof():
                raise StoreError(f"Redis at {address.url} hung up instead of sending a snapshot")
        if line.startswith(b"$EOF:"):
            await _until_mark(reader, file, line[len(b"$EOF:") :], address)
        elif line[:1] == b"$" and line[1:].isdigit():
            await _so_many(reader, file, int(line[1:]), address)
        else:
            raise StoreError(f"Redis at {address.url} gives no snapshot: {line.decode(errors='replace').lstrip('-')}")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _within(reading: Any, address: Address) -> bytes:
    try:
        async with asyncio.timeout(SILENCE_S):
            return bytes(await reading)
    except TimeoutError:
        raise StoreError(f"Redis at {address.url} fell silent in the middle of a snapshot") from None
    except (OSError, asyncio.LimitOverrunError, ValueError) as error:
        raise StoreError(f"Redis at {address.url} did not finish a snapshot: {error}") from error


async def _so_many(reader: asyncio.StreamReader, file: BinaryIO, octets: int, address: Address) -> None:
    while octets:
        piece = await _within(reader.read(min(octets, _PIECE)), address)
        if not piece:
            raise StoreError(f"Redis at {address.url} hung up in the middle of a snapshot")
        file.write(piece)
        octets -= len(piece)


async def _until_mark(reader: asyncio.StreamReader, file: BinaryIO, mark: bytes, address: Address) -> None:
    """A server that does not know the length beforehand ends the data with a mark it has named."""
    if len(mark) != _EOF_MARK:
        raise StoreError(f"Redis at {address.url} begins a snapshot with what is not understood")
    kept = b""
    while not kept.endswith(mark):
        piece = await _within(reader.read(_PIECE), address)
        if not piece:
            raise StoreError(f"Redis at {address.url} hung up in the middle of a snapshot")
        kept += piece
        if not kept.endswith(mark):
            file.write(kept[:-_EOF_MARK])
            kept = kept[-_EOF_MARK:]
    file.write(kept[:-_EOF_MARK])


# -- the file ----------------------------------------------------------------------------------------------------------


def _unpack(file: Path, to: Path) -> Contents:
    """The data of a backup as a file of its own. Raises StoreError for a file that is no whole backup."""
    with file.open("rb") as source:
        if source.readline(len(MAGIC)) != MAGIC:
            raise StoreError(f"{file} is no backup that this version can read")
        line = source.readline(_HEADER_OCTETS)
        try:
            contents = Contents.parse(line)
        except (ValueError, TypeError, KeyError):
            raise StoreError(f"{file} is damaged: its second line does not say what is in it") from None
        if contents.format != FORMAT and contents.format not in MIGRATIONS:
            raise StoreError(
                f"{file} has data of format {contents.format} and this version reads format {FORMAT}; "
                "use the version that wrote it"
            )
        with to.open("wb") as data:
            shutil.copyfileobj(source, data, _PIECE)
            data.flush()
            os.fsync(data.fileno())
    found = to.stat().st_size
    if found != contents.octets:
        raise StoreError(f"{file} is damaged: it has {found} octets of data, not {contents.octets}")
    if _sum(to) != contents.sha256:
        raise StoreError(f"{file} is damaged: its checksum is not the one it was written with")
    return contents


def _sum(file: Path) -> str:
    digest = sha256()
    with file.open("rb") as data:
        while piece := data.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- checking it -------------------------------------------------------------------------------------------------------


async def _check(data: Path, partitions: int, server_binary: str | None) -> Report:
    """Have a private server read the data, and check the ledger in it."""
    with tempfile.TemporaryDirectory(prefix="occ-check-") as folder:
        shutil.copyfile(data, Path(folder) / "appendonly.aof")
        async with _server(Path(folder), server_binary) as address:
            return await _verify(address, partitions)


@asynccontextmanager
async def _server(folder: Path, server_binary: str | None) -> AsyncIterator[Address]:
    """A private server on data that stand in ``appendonly.aof``.

    That is where a server looks for them before 7.0, and where later ones find the data of earlier ones.
    """
    settings = EmbeddedSettings(data_dir=folder, server_binary=server_binary)
    async with EmbeddedRedis(settings) as server:
        yield server.address


async def _verify(address: Address, partitions: int) -> Report:
    store = Store(StoreSettings(address, partitions, account_cache_entries=1))
    await store.start()
    try:
        return await verify(store)
    finally:
        await store.stop()


def _contents(report: Report, partitions: int) -> Contents:
    """As far as a check tells."""
    totals = tuple((each.unit.name.lower(), each.currency, each.balances, each.reserved) for each in report.totals)
    return Contents(
        created="",
        format=FORMAT,
        partitions=partitions,
        octets=0,
        sha256="",
        accounts=report.accounts,
        journal_records=report.journal_records,
        open_sessions=report.open_sessions,
        totals=totals,
        discrepancies=report.discrepancy_count,
    )


def _compare(file: Path, contents: Contents, report: Report) -> None:
    """Raises StoreError if what was read is not what was written."""
    found = replace(
        _contents(report, contents.partitions),
        created=contents.created,
        format=contents.format,  # an older one has been brought forward to be read
        octets=contents.octets,
        sha256=contents.sha256,
    )
    if found != contents:
        raise StoreError(f"{file} holds something else than it says: {_difference(contents, found)}")


def _difference(said: Contents, found: Contents) -> str:
    names = [name for name in said.as_dict() if getattr(said, name) != getattr(found, name)]
    return ", ".join(f"{name} {getattr(found, name)} and not {getattr(said, name)}" for name in names)


# -- filling a store over the network ----------------------------------------------------------------------------------


@asynccontextmanager
async def _link(address: Address) -> AsyncIterator[RedisLink]:
    """A connection that writes nothing by itself, as a store's does. Raises StoreUnavailableError."""
    try:
        link = await open_primary(asyncio.get_running_loop(), address)
    except OSError as error:
        raise StoreUnavailableError(f"Redis at {address.url} cannot be used: {error}") from error
    try:
        yield link
    finally:
        link.close()


async def _keys(source: RedisLink) -> AsyncIterator[list[bytes]]:
    """All keys, some perhaps twice."""
    cursor = b"0"
    while True:
        cursor, page = await source.call("SCAN", cursor, "COUNT", COPIED_AT_ONCE)
        yield page
        if cursor == b"0":
            return


async def _copy(source: RedisLink, target: RedisLink) -> None:
    async def one(key: bytes) -> None:
        value, left_ms = await asyncio.gather(source.call("DUMP", key), source.call("PTTL", key))
        if value is not None:  # else it has expired
            await target.call("RESTORE", key, max(0, left_ms), value, "REPLACE")

    async for page in _keys(source):
        await asyncio.gather(*(one(key) for key in page))


async def _take_back(source: RedisLink, target: RedisLink) -> None:
    """Remove what was copied, and nothing else that may have come meanwhile."""
    with suppress(StoreError):
        async for page in _keys(source):
            if page:
                await target.call("UNLINK", *page)
