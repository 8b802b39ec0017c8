"""A server that is reached and says nothing: its machine lost its power, its disk does not come back, it is stopped.

Made to fail by: no ``_look`` (waits for ever); no count of what was read (a server that is idle, or slow, is given up).
"""

import asyncio
import errno
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balance.accounts import Account, Session
from balance.connecting import SEND_OCTETS, open_link, widen
from balance.directory import create_account, read_account
from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings
from balance.ledger import Draft, top_up
from balance.model import AccountKind
from balance.plans import Plan
from balance.records import make_plan
from balance.resp import LOOKS, StoreUnavailableError
from balance.store import Store, StoreSettings
from balance.verify import verify
from tests.balance.waiting import PATIENCE_S, until

ACCOUNT = b"acc-1"
HANGS_AFTER_MS = 500


@pytest.fixture
async def redis() -> AsyncIterator[EmbeddedRedis]:
    with tempfile.TemporaryDirectory(prefix="occ-hang-") as folder:
        server = EmbeddedRedis(EmbeddedSettings(data_dir=Path(folder)))
        await server.start()
        yield server
        await server.stop()


@contextmanager
def stopped(server: EmbeddedRedis) -> Iterator[None]:
    """Its connections stand, and it does nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def where(server: EmbeddedRedis) -> Address:
    return replace(server.address, hangs_after_ms=HANGS_AFTER_MS)


async def open_store(server: EmbeddedRedis) -> Store:
    store = Store(StoreSettings(where(server), partitions=4))
    await store.start()
    return store


def add(account: Account | None, ended: Session | None) -> Plan:
    assert account is not None
    draft = Draft(account, 2)
    top_up(draft, 1)
    return make_plan(draft, "top-up", ("test",), None)


async def test_what_is_under_way_is_told_and_nothing_is_written_twice(redis: EmbeddedRedis) -> None:
    store = await open_store(redis)
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
    await store.commit(ACCOUNT, add)
    with stopped(redis):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreUnavailableError):
                await store.commit(ACCOUNT, add)
        assert not store.available
        with pytest.raises(StoreUnavailableError):
            await store.commit(ACCOUNT, add)
    await until(lambda: store.available)
    await store.commit(ACCOUNT, add)
    account = await read_account(store, ACCOUNT)
    assert account is not None
    # What was under way may have been written, as soon as the server went on: once at most.
    assert account.buckets[0].balance in (2, 3)
    assert account.version == account.buckets[0].balance + 1
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def test_who_is_not_asked_or_answers_slowly_does_not_hang(
    redis: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_store(redis)
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
    asking = True

    async def ask() -> None:
        while asking:
            await store.call("PING")
            await asyncio.sleep(HANGS_AFTER_MS / 1000 / LOOKS / 3)

    await asyncio.sleep(2 * HANGS_AFTER_MS / 1000)  # nothing is asked
    asked = asyncio.create_task(ask())
    await asyncio.sleep(2 * HANGS_AFTER_MS / 1000)  # something is waited for at nearly every look, and comes
    asking = False
    await asked
    assert store.available
    assert "connection to Redis" not in caplog.text
    await store.stop()


async def test_a_command_that_blocks_is_waited_for(redis: EmbeddedRedis) -> None:
    store = await open_store(redis)
    link = await store.connect(ACCOUNT)
    assert await link.call("BLPOP", "nothing", 2 * HANGS_AFTER_MS / 1000) is None
    assert not link.lost
    link.close()
    await store.stop()


async def test_a_store_that_hangs_is_no_store_to_start_with(redis: EmbeddedRedis) -> None:
    store = Store(StoreSettings(where(redis), partitions=4))
    with stopped(redis):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreUnavailableError):
                await store.start()
    await store.stop()


async def test_commits_leave_the_worker_whether_or_not_the_server_has_read_those_before(redis: EmbeddedRedis) -> None:
    """Else the server waits for the rest of a commit until the worker has decided on others.

    Made to fail by: the socket as asyncio makes it.
    """
    permitted = min(SEND_OCTETS, int(Path("/proc/sys/net/core/wmem_max").read_text()))
    with socket.socket(socket.AF_UNIX) as usual, socket.socket(socket.AF_UNIX) as wide:
        widen(wide)
        sizes = [each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in (usual, wide)]
    assert sizes[1] == 2 * permitted  # the system counts what it needs for itself as well
    link = await open_link(asyncio.get_running_loop(), redis.address)
    transport = link._transport
    assert transport is not None
    with stopped(redis):
        answer = asyncio.create_task(link.call("ECHO", b"x" * permitted))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() == 0
    assert len(await answer) == permitted
    link.close()


def test_a_system_that_refuses_a_wide_socket_leaves_the_usual_one() -> None:
    """As others than Linux do with what is beyond their limit. Made to fail by: no ``suppress``."""

    class Refusing(socket.socket):
        def setsockopt(self, *arguments: Any) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    with Refusing(socket.AF_UNIX) as end:
        widen(end)


async def test_a_server_that_takes_no_more_connections_is_not_taken_for_one_that_does(tmp_path: Path) -> None:
    """Made to fail by: no ``getpeername``."""
    path = tmp_path / "full.sock"
    with ExitStack() as sockets:
        server = sockets.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        with suppress(BlockingIOError):
            while True:
                client = sockets.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(OSError, match="not connected"):
            await open_link(asyncio.get_running_loop(), Address(unix_path=path))
