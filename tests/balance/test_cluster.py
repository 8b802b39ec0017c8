"""A store in Redis Cluster: every script finds its keys together, and a node that took over is read anew.

What makes these tests fail, each taken away alone: the hash tags of ``balance.keys``; that a lane's snapshots are
forgotten when its slot comes to another node (``Store._forget``); that what was decided on the former node is not sent
to the new one (``MovedError``); that a node without slots is let go (``Cluster._let_go``); the check of how the keys of
a store are named (``Store._check_layout``).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from balance import actions, attempts, contacts, notices, structure, subscriptions
from balance.accounts import Account, Session
from balance.bulk import subscribers_in_store
from balance.cluster import Cluster, slot_of
from balance.directory import create_account, read_account
from balance.embedded import Address
from balance.inspection import inspect_servers
from balance.keys import LAYOUT
from balance.ledger import Draft, top_up
from balance.model import AccountKind, IdentityType, Subscriber
from balance.plans import Plan
from balance.records import make_plan
from balance.resp import StoreError, StoreUnavailableError
from balance.snapshot import backup
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber, subscriber_named
from balance.transfers import transfer_money, unfinished_transfers
from balance.transitions import Entry, TransitionReader
from balance.verify import verify
from tests.balance.waiting import until
from tests.faults.deployments import Process, Sharded

ACCOUNT = b"acc-1"
NOW = 1_700_000_000_000
PARTITIONS = 8


@pytest.fixture(scope="module")
def sharded() -> Iterator[Sharded]:
    with ExitStack() as stack:
        yield Sharded(stack)


@asynccontextmanager
async def opened(address: Address, partitions: int = PARTITIONS) -> AsyncIterator[Store]:
    store = Store(StoreSettings(address, partitions))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@pytest.fixture
async def store(sharded: Sharded) -> AsyncIterator[Store]:
    for node in sharded.primaries():
        node.call("FLUSHALL")
    async with opened(sharded.address()) as store:
        for number in range(1, 13):
            name = b"acc-%d" % number
            await create_account(
                store, name, AccountKind.POSTPAID, 978, now_ms=NOW, reason="test", credit_limit_micro=10**9
            )
        yield store
        assert (await verify(store)).discrepancies == []


class TopUp:
    """A step that counts how often it was asked to decide."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.seen: list[int] = []

    def __call__(self, account: Account | None, ended: Session | None) -> Plan:
        assert account is not None
        self.seen.append(account.version)
        draft = Draft(account, NOW)
        top_up(draft, self.amount)
        return make_plan(draft, "top-up", ("test",), None)


async def balance(store: Store) -> int:
    account = await read_account(store, ACCOUNT)
    assert account is not None
    return account.buckets[0].balance


def test_slots_are_those_of_redis(sharded: Sharded) -> None:
    keys = [b"", b"a", b"{a}b", b"{}a", b"x{a}{b}", b"{p0001}:a:acc-1", b"a}b{c", b"{", b"\xff{\x00}"]
    assert [slot_of(key) for key in keys] == [sharded.nodes[0].call("CLUSTER", "KEYSLOT", key) for key in keys]


async def test_accounts_are_on_all_nodes_and_read_together(store: Store, sharded: Sharded) -> None:
    owners = {sharded.owner(slot_of(store.keys.account(b"acc-%d" % number))).port for number in range(1, 13)}
    assert len(owners) == 3
    report = await verify(store)
    assert (report.accounts, report.journal_records) == (12, 12)
    assert len(await inspect_servers(store.settings.address)) == 3


async def test_what_scripts_write_together_is_on_one_node(store: Store) -> None:
    """Each of these is a script with several keys, which a cluster refuses if they are of several slots."""
    identities = ((int(IdentityType.E164), b"491700000001"),)
    await add_subscriber(store, Subscriber(b"sub-1", ACCOUNT, "standard", identities))
    assert await subscriber_named(store, b"sub-1") is not None
    assert [name async for page in subscribers_in_store(store) for name in page] == [b"sub-1"]
    top = structure.CustomerUnit(b"top", 0, "Top", b"", int(structure.Pays.ITSELF), b"acc-2")
    below = structure.CustomerUnit(b"below", 0, "Below", b"top", int(structure.Pays.PARENT), b"acc-3")
    for unit in (top, below):
        await structure.create_unit(store, unit, NOW, "test")
    assert await structure.payer_of(store, b"acc-3") == b"acc-2"
    await store.commit(b"acc-4", TopUp(1000))
    for target in (b"acc-5", b"acc-6", b"acc-7"):
        await transfer_money(store, b"acc-4", target, 10, now_ms=NOW, reason="gift", reference=target.decode())
    assert await unfinished_transfers(store) == []
    await contacts.change_contact(store, store.keys.contact(b"sub-1"), lambda _: contacts.Contact("de"))
    assert (await contacts.find_recipient(store, ACCOUNT, b"sub-1")).contact.language == "de"
    asked = actions.Action("n", "top-up", "d", NOW, actions.CREATED, "{}", "{}")
    entered = await actions.enter_action(store, asked)
    assert await actions.finish_action(store, entered, actions.COMPLETED, "{}", "{}", "Done", NOW)
    assert [each.status for each in await actions.actions(store, "top-up")] == [actions.COMPLETED]
    assert await attempts.begin_try(store, attempts.TOKENS, "somebody") == 0
    await attempts.forget_tries(store, attempts.TOKENS, "somebody")
    # A Session-Id that is an account's name as well.
    subscription = subscriptions.Subscription(ACCOUNT, ACCOUNT, b"sub-1", b"pcrf", b"realm", b"", (), {}, NOW)
    answer = subscriptions.Answer(b"request", b"answer", 60_000)
    assert await subscriptions.write_subscription(store, None, subscription, answer) == 1
    found = [name async for page in subscriptions.accounts_with_subscriptions(store) for name in page]
    assert found == [ACCOUNT]


async def test_notices_and_transitions_of_all_lanes_are_taken_up(store: Store) -> None:
    names = [b"acc-%d" % number for number in range(1, 13)]
    await notices.enqueue(
        store, [notices.Notice(name, name, b"", "account-state", "low-balance", {}, NOW) for name in names]
    )
    handed_in = [
        notices.unpack(packed).notice_id
        for lane in store.keys.lanes()
        for _, several in await notices.handed_in(store, lane, 100)
        for packed in several
    ]
    assert sorted(handed_in) == sorted(names)
    taken: list[bytes] = []

    def take(entry: Entry) -> None:
        taken.append(entry.transition)
        reader.finish(entry)

    def cross(account: Account | None, ended: Session | None) -> Plan:
        assert account is not None
        plan = make_plan(Draft(account, NOW), "test", ("test",), None)
        plan.transition = account.account_id
        return plan

    reader = TransitionReader(store, b"occ1", take)
    running = asyncio.create_task(reader.run())
    try:
        for name in names:
            await store.commit(name, cross)
        async with asyncio.timeout(20):
            while len(taken) < len(names) or reader.under_way:  # noqa: ASYNC110 - what is awaited happens in Redis
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(taken) == sorted(names)


async def test_a_plan_for_a_slot_that_moved_is_decided_anew(store: Store, sharded: Sharded) -> None:
    """It is not sent to the new node as it was: what that node has may be another history."""
    await store.commit(ACCOUNT, TopUp(1))
    slot = slot_of(store.keys.account(ACCOUNT))
    target = next(each for each in sharded.primaries() if each is not sharded.owner(slot))
    await asyncio.to_thread(sharded.move, slot, target)
    step = TopUp(10)
    await store.commit(ACCOUNT, step)
    assert await balance(store) == 11
    assert len(step.seen) in (1, 2)  # once where the periodic look was faster


@pytest.mark.parametrize("knows", [False, True], ids=["told by MOVED", "knows it beforehand"])
async def test_a_version_that_was_lost_and_used_again_is_not_mistaken(
    sharded: Sharded, store: Store, knows: bool
) -> None:
    """A primary is replaced by a replica that lacks its last version; another process writes one of that number.

    A store that remembers the lost one must not decide on it.
    """
    slot = slot_of(store.keys.account(ACCOUNT))
    primary = sharded.owner(slot)
    await until(lambda: bool(primary.call("ROLE")[2]))  # which lists those only that have caught up
    replica = _replica_of(sharded, primary)
    await store.commit(ACCOUNT, TopUp(1))
    await asyncio.to_thread(primary.call, "WAIT", 1, 5000)
    await _cut_off(primary, replica)
    await store.commit(ACCOUNT, TopUp(100))  # version 3, which the replica never gets
    await asyncio.to_thread(replica.call, "CLUSTER", "FAILOVER", "TAKEOVER")
    await until(lambda: sharded.owner(slot) is replica)
    async with opened(sharded.address()) as other:
        await other.commit(ACCOUNT, TopUp(10))  # version 3 again
        assert await balance(other) == 11
    nodes = store._nodes
    assert isinstance(nodes, Cluster)
    if knows:
        await until(lambda: nodes.owner(slot) == ("127.0.0.1", replica.port))
    step = TopUp(1000)
    await store.commit(ACCOUNT, step)
    assert await balance(store) == 1011
    assert step.seen[-1] == 3
    await asyncio.to_thread(primary.call, "CONFIG", "SET", "masterauth", "")
    await asyncio.to_thread(replica.call, "CONFIG", "SET", "masterauth", "")


async def test_a_node_that_hangs_is_left(sharded: Sharded, store: Store) -> None:
    """No connection breaks; the others say that its replica has its slots, and what was under way ends."""
    primary = sharded.owner(slot_of(store.keys.account(ACCOUNT)))
    await until(lambda: primary.info("connected_slaves") == "1")
    await asyncio.to_thread(primary.call, "WAIT", 1, 5000)
    primary.send(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError):
            async with asyncio.timeout(20):
                await store.commit(ACCOUNT, TopUp(1))
        await store.commit(ACCOUNT, TopUp(10))
        assert await balance(store) == 10
    finally:
        primary.send(signal.SIGCONT)
    await until(lambda: primary.info("role") == "slave" and primary.info("master_link_status") == "up")


def _replica_of(sharded: Sharded, primary: Process) -> Process:
    (port,) = (int(row[1]) for row in [primary.call("ROLE")[2][0]])
    return next(each for each in sharded.nodes if each.port == port)


async def _cut_off(primary: Process, replica: Process) -> None:
    """The replica loses its primary and cannot come back to it."""
    await asyncio.to_thread(replica.call, "CONFIG", "SET", "masterauth", "not the password")
    await asyncio.to_thread(primary.call, "CLIENT", "KILL", "TYPE", "replica")
    await until(lambda: replica.info("master_link_status") == "down")


async def test_a_store_of_a_single_server_is_refused_and_the_other_way_round(
    sharded: Sharded, store: Store, clean_redis: Address
) -> None:
    """Keys have other names in a cluster."""
    await store.call("HDEL", LAYOUT, "lanes")
    with pytest.raises(StoreError, match="laid out for a single server"):
        async with opened(sharded.address()):
            pass
    await store.call("HSET", LAYOUT, "lanes", PARTITIONS)
    async with opened(clean_redis) as single:
        await single.call("HSET", LAYOUT, "lanes", PARTITIONS)
        with pytest.raises(StoreUnavailableError, match="laid out in a cluster"):
            async with opened(clean_redis):
                pass


async def test_what_cannot_be_done_in_a_cluster_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="save each primary by itself"):
        await backup(store.settings.address, tmp_path / "saved", PARTITIONS, now_ms=NOW)
    with pytest.raises(StoreError, match="SCAN names no key"):
        await store.call("SCAN", 0)


async def test_a_server_that_is_no_cluster_is_named(clean_redis: Address) -> None:
    with pytest.raises(StoreUnavailableError, match="no node tells where the slots are"):
        async with opened(Address(nodes=(("127.0.0.1", 1),))):
            pass
