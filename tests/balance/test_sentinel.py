"""A primary that sentinels watch over, as a store sees it; and WAIT.

What makes these tests fail, each taken away alone: ``Primary._watch`` (a primary that hangs keeps everybody waiting);
the abort of a connection to a server that takes no writes (``Store._failed``); the look at ROLE (``open_link``); the
comparison of configuration epochs (``primary_of``); the wait behind an answer that is found (``Store._confirm``).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from balance.accounts import Account, Session
from balance.connecting import open_link, primary_of
from balance.directory import create_account, read_account
from balance.directory_watch import DirectoryWatch
from balance.embedded import Address
from balance.ledger import Draft, top_up
from balance.model import AccountKind, Subscriber
from balance.plans import Plan
from balance.records import make_plan, pack_subscriber
from balance.resp import StoreUnavailableError
from balance.store import Store, StoreSettings
from tests.balance.waiting import until
from tests.faults.deployments import HOST, MASTER, Process, Watched

ACCOUNT = b"acc-1"
IDENTITY = (0, b"491700000001")


@asynccontextmanager
async def opened(address: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(address, partitions=4))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def add(amount: int) -> Callable[[Account | None, Session | None], Plan]:
    def step(account: Account | None, ended: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, 2)
        top_up(draft, amount)
        return make_plan(draft, "top-up", ("test",), None)

    return step


async def balance(store: Store) -> int:
    account = await read_account(store, ACCOUNT)
    assert account is not None
    return account.buckets[0].balance


def subscriber(name: bytes) -> bytes:
    return pack_subscriber(Subscriber(name, ACCOUNT, "standard", (IDENTITY,)))


async def whose(store: Store) -> bytes:
    """The subscriber that a request of now is taken to be of."""
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    store.subscribers.find(*IDENTITY, 1, told.set_result)
    found = await told
    assert isinstance(found, Subscriber)
    return found.subscriber_id


async def again_and_again(store: Store, amount: int) -> int:
    """Until it is done; how often it was refused."""
    refused = 0
    async with asyncio.timeout(20):
        while True:
            try:
                await store.commit(ACCOUNT, add(amount))
            except StoreUnavailableError:
                refused += 1
                await asyncio.sleep(0.02)
            else:
                return refused


@pytest.mark.slow
async def test_a_primary_that_hangs_is_left() -> None:
    """No connection breaks; the sentinels say that another server is the primary. Identities go with it."""
    with ExitStack() as stack:
        watched = await asyncio.to_thread(Watched, stack)
        async with opened(watched.address()) as store:
            await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
            watch = asyncio.create_task(DirectoryWatch(store, lambda: 1).run())
            await until(lambda: store.statistics.directory_watched)
            await store.call("SET", store.keys.identity(*IDENTITY), subscriber(b"anna"))
            assert await whose(store) == b"anna"
            primary = watched.primary()
            await asyncio.to_thread(primary.call, "WAIT", 2, 5000)
            primary.send(signal.SIGSTOP)
            waiting = asyncio.create_task(store.commit(ACCOUNT, add(1)))
            with pytest.raises(StoreUnavailableError):
                async with asyncio.timeout(20):
                    await waiting
            assert not store.statistics.directory_watched
            await again_and_again(store, 10)
            assert await balance(store) == 10
            assert watched.primary() is not primary
            assert store.statistics.reconnects == 1
            await until(lambda: store.statistics.directory_watched)
            changes = store.statistics.directory_changes
            await store.call("SET", store.keys.identity(*IDENTITY), subscriber(b"berta"))
            await until(lambda: store.statistics.directory_changes > changes)
            assert await whose(store) == b"berta"
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Process, Process]]:
    """A primary and its replica, without sentinels."""
    with ExitStack() as stack:
        primary = Process()
        replica = Process([f"replicaof {HOST} {primary.port}"])
        for each in (primary, replica):
            stack.callback(each.end)
            each.start()
        yield primary, replica


@pytest.fixture
async def two(pair: tuple[Process, Process]) -> tuple[Process, Process]:
    primary, replica = pair
    await asyncio.to_thread(primary.call, "FLUSHALL")
    await until(lambda: replica.info("master_link_status") == "up")
    return pair


async def test_a_server_that_takes_no_writes_any_more_is_left(two: tuple[Process, Process]) -> None:
    """It became a replica, and nobody broke the connection: nothing was written, and we look for the primary."""
    primary, replica = two
    async with opened(Address(host=HOST, port=primary.port)) as store:
        await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
        await asyncio.to_thread(primary.call, "REPLICAOF", HOST, replica.port)
        try:
            with pytest.raises(StoreUnavailableError):
                await store.commit(ACCOUNT, add(1))
            await until(lambda: not store.available)
        finally:
            await asyncio.to_thread(primary.call, "REPLICAOF", "NO", "ONE")
        await again_and_again(store, 10)
        assert await balance(store) == 10


async def test_a_replica_is_no_primary_whatever_a_sentinel_says(two: tuple[Process, Process]) -> None:
    place = Address(host=HOST, port=two[1].port)
    with pytest.raises(StoreUnavailableError, match="is no primary but a slave"):
        await open_link(asyncio.get_running_loop(), place, primary=True)


async def test_of_sentinels_that_do_not_agree_the_latest_counts(two: tuple[Process, Process]) -> None:
    """One that was cut off names the primary of before; whichever is asked first."""
    primary, replica = two
    with ExitStack() as stack:
        watch = f"sentinel monitor {MASTER} {HOST}"
        before = Process([f"{watch} {replica.port} 1", f"sentinel config-epoch {MASTER} 3"], sentinel=True)
        latest = Process([f"{watch} {primary.port} 1", f"sentinel config-epoch {MASTER} 12"], sentinel=True)
        for each in (before, latest):
            stack.callback(each.end)
            await asyncio.to_thread(each.start)
        for order in ((before, latest), (latest, before)):
            address = Address(sentinels=tuple((HOST, each.port) for each in order), master_name=MASTER)
            assert (await primary_of(asyncio.get_running_loop(), address)).port == primary.port


async def test_what_no_sentinel_knows_is_said() -> None:
    with ExitStack() as stack:
        sentinel = Process(sentinel=True)
        stack.callback(sentinel.end)
        await asyncio.to_thread(sentinel.start)
        address = Address(sentinels=((HOST, sentinel.port), (HOST, 1)), master_name="nobody")
        with pytest.raises(StoreUnavailableError, match=r"the primary of nobody \(.*No such master.*; "):
            async with opened(address):
                pass


# -- WAIT --------------------------------------------------------------------------------------------------------------


async def test_what_replicas_do_not_have_is_not_answered_for(two: tuple[Process, Process]) -> None:
    """It is written, though, and whoever asks again finds it; but not before a replica has it (WAIT)."""
    primary, replica = two
    address = Address(host=HOST, port=primary.port, wait_replicas=1, wait_ms=100)
    async with opened(address) as store:
        await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
        replica.send(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailableError, match="0 of 1 replicas had the commit within 100 ms"):
                await store.commit(ACCOUNT, add(7))
            assert await balance(store) == 7
            with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
                await store.commit(ACCOUNT, found)
        finally:
            replica.send(signal.SIGCONT)
        assert (await store.commit(ACCOUNT, found)).replayed
        await store.commit(ACCOUNT, add(1))
        assert await balance(store) == 8


def found(account: Account | None, ended: Session | None) -> Plan:
    """The answer of a request that was answered before."""
    assert account is not None
    plan = Plan(None)
    plan.replayed = True
    return plan


async def test_a_primary_that_has_too_few_replicas_refuses_and_nothing_is_written(two: tuple[Process, Process]) -> None:
    """min-replicas-to-write: clients are told to go elsewhere, as when the store is away."""
    primary, _ = two
    async with opened(Address(host=HOST, port=primary.port)) as store:
        await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
        await asyncio.to_thread(primary.call, "CONFIG", "SET", "min-replicas-to-write", 2)
        try:
            with pytest.raises(StoreUnavailableError, match="NOREPLICAS"):
                await store.commit(ACCOUNT, add(1))
        finally:
            await asyncio.to_thread(primary.call, "CONFIG", "SET", "min-replicas-to-write", 0)
        assert await balance(store) == 0
        await store.commit(ACCOUNT, add(2))
        assert await balance(store) == 2
        assert store.statistics.reconnects == 0
