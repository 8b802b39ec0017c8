"""The store on a real Redis: all or nothing, never lost, never twice, whoever else writes and whatever breaks."""

import asyncio
from collections.abc import AsyncIterator

import msgpack
import pytest

from balance import lane
from balance.accounts import Account, Session, SessionState
from balance.directory import create_account, read_account
from balance.embedded import Address
from balance.lane import ABSENT
from balance.ledger import Draft, top_up
from balance.model import AccountKind, LedgerError
from balance.plans import Lookup, Plan
from balance.records import make_plan
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store, StoreSettings
from balance.verify import verify
from tests.plain import PLAIN_ONLY

ACCOUNT = b"acc-1"


async def open_store(address: Address, **settings: int) -> Store:
    store = Store(StoreSettings(address, partitions=4, **settings))
    await store.start()
    return store


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = await open_store(clean_redis)
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
    yield store
    await store.stop()


def add(amount: int) -> "Step":
    return Step(amount)


class Step:
    """A step that tops the account up and counts how often it was asked to decide."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.calls = 0

    def __call__(self, account: Account | None, ended: Session | None) -> Plan | Lookup:
        self.calls += 1
        assert account is not None
        draft = Draft(account, 2)
        top_up(draft, self.amount)
        return make_plan(draft, "top-up", ("test",), None)


async def balance(store: Store) -> int:
    account = await read_account(store, ACCOUNT)
    assert account is not None
    return account.buckets[0].balance


async def test_operations_of_one_account_run_one_after_the_other(store: Store) -> None:
    await asyncio.gather(*(store.commit(ACCOUNT, add(1)) for _ in range(300)))
    assert await balance(store) == 300
    assert store.statistics.conflicts == 0


async def test_two_workers_lose_no_update(store: Store, clean_redis: Address) -> None:
    """Optimistic concurrency: the slower worker decides again on what the faster one wrote."""
    other = await open_store(clean_redis)
    steps = [add(1) for _ in range(200)]
    await asyncio.gather(*((store if n % 2 else other).commit(ACCOUNT, step) for n, step in enumerate(steps)))
    assert await balance(store) == 200
    assert store.statistics.conflicts + other.statistics.conflicts > 0
    assert sum(step.calls for step in steps) > 200
    assert (await verify(store)).discrepancies == []
    await other.stop()


async def test_who_wants_no_account_is_told_a_plan_without_it(store: Store, clean_redis: Address) -> None:
    """It is let go of as soon as it is packed; what is packed is written, also when the script has to be loaded again
    and when it is decided anew because another worker was faster.
    """
    other = await open_store(clean_redis)
    told: list[Plan | StoreError] = []
    await store.call("SCRIPT", "FLUSH")
    for _ in range(100):
        store.snapshots.transact(ACCOUNT, add(1), told.append, with_account=False)
        other.snapshots.transact(ACCOUNT, add(1), told.append, with_account=False)
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while len(told) < 200:  # noqa: ASYNC110 - callbacks tell
            await asyncio.sleep(0.01)
    assert all(isinstance(plan, Plan) and plan.account is None and plan.journal for plan in told)
    assert store.statistics.conflicts + other.statistics.conflicts > 0
    assert await balance(store) == 200
    assert (await verify(store)).discrepancies == []
    await other.stop()


async def test_a_batch_of_many_accounts_writes_each_of_them(store: Store) -> None:
    names = [b"many-%d" % n for n in range(600)]
    await asyncio.gather(
        *(create_account(store, name, AccountKind.PREPAID, 978, now_ms=1, reason="t") for name in names)
    )
    assert store.statistics.plans >= 601
    assert store.statistics.commits < 300
    report = await verify(store)
    assert (report.accounts, report.discrepancies) == (601, [])


async def test_a_refusal_writes_nothing(store: Store) -> None:
    with pytest.raises(LedgerError):
        await store.commit(ACCOUNT, add(0))
    assert await balance(store) == 0
    account = await read_account(store, ACCOUNT)
    assert account is not None
    assert account.version == 1


async def test_a_step_that_fails_does_not_block_the_account(store: Store) -> None:
    def broken(account: Account | None, ended: Session | None) -> Plan:
        raise ZeroDivisionError("a fault")

    results = await asyncio.gather(store.commit(ACCOUNT, broken), store.commit(ACCOUNT, add(7)), return_exceptions=True)
    assert isinstance(results[0], ZeroDivisionError)
    assert await balance(store) == 7


async def test_a_fault_of_who_looks_at_changes_does_not_block_the_account(store: Store) -> None:
    def observe(plan: Plan) -> None:
        raise ZeroDivisionError("a fault")

    store.observe = observe
    with pytest.raises(ZeroDivisionError):
        await store.commit(ACCOUNT, add(7))
    store.observe = None
    async with asyncio.timeout(5):
        await store.commit(ACCOUNT, add(7))
    assert await balance(store) == 7


async def test_an_ended_session_that_cannot_be_read_costs_its_own_operation_alone(store: Store) -> None:
    """Looked up beforehand, and found by the script that writes a batch."""
    await store.call("SET", store.keys.ended(ACCOUNT, b"s"), b"no session")
    await create_account(store, b"other", AccountKind.PREPAID, 978, now_ms=1, reason="test")

    def knowing(account: Account | None, ended: Session | None) -> Plan | Lookup:
        return Lookup(b"s") if ended is None else Plan(None)

    def first(account: Account | None, ended: Session | None) -> Plan | Lookup:
        plan = add(5)(account, ended)
        assert isinstance(plan, Plan)
        plan.first_of = b"s"
        return plan

    async with asyncio.timeout(5):
        for step in (knowing, first):
            results = await asyncio.gather(
                store.commit(ACCOUNT, step),
                store.commit(b"other", add(1)),
                store.commit(ACCOUNT, add(1)),
                return_exceptions=True,
            )
            assert isinstance(results[0], StoreError)
            assert "an ended session of account b'acc-1' cannot be read" in str(results[0])
            assert not any(isinstance(each, Exception) for each in results[1:])
    assert await balance(store) == 2


async def test_an_identity_that_cannot_be_read_is_answered(store: Store) -> None:
    await store.call("SET", store.keys.identity(0, b"49"), b"no subscriber")
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    store.subscribers.find(0, b"49", 1, told.set_result)
    async with asyncio.timeout(5):
        assert isinstance(await told, StoreError)


async def test_the_script_is_loaded_again_after_a_flush(store: Store) -> None:
    await store.call("SCRIPT", "FLUSH")
    await store.commit(ACCOUNT, add(3))
    assert await balance(store) == 3


async def test_a_small_cache_reads_again_and_stays_right(clean_redis: Address) -> None:
    store = await open_store(clean_redis, account_cache_entries=2)
    names = [b"a-%d" % n for n in range(10)]
    for name in names:
        await create_account(store, name, AccountKind.PREPAID, 978, now_ms=1, reason="t")
    for _ in range(3):
        await asyncio.gather(*(store.commit(name, add(1)) for name in names))
    for name in names:
        account = await read_account(store, name)
        assert account is not None
        assert account.buckets[0].balance == 3
    await store.stop()


async def test_a_lost_connection_fails_what_was_under_way_and_comes_back(store: Store, clean_redis: Address) -> None:
    admin = await open_store(clean_redis)
    await admin.call("CLIENT", "PAUSE", 300, "WRITE")
    waiting = [asyncio.create_task(store.commit(ACCOUNT, add(1))) for _ in range(5)]
    await asyncio.sleep(0.05)
    await admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailableError) for result in results)
    for _ in range(200):
        if store.available:
            break
        await asyncio.sleep(0.02)
    await store.commit(ACCOUNT, add(100))
    # Whether the unanswered ones were written is not known; that the account and its journal agree is.
    assert await balance(store) >= 100
    assert (await verify(store)).discrepancies == []
    assert store.statistics.reconnects == 1
    await admin.stop()


async def test_without_redis_operations_are_refused_at_once(clean_redis: Address) -> None:
    store = await open_store(clean_redis)
    await store.stop()
    await asyncio.sleep(0.05)
    with pytest.raises(StoreUnavailableError):
        await store.commit(ACCOUNT, add(1))


async def test_a_store_laid_out_otherwise_is_refused(store: Store, clean_redis: Address) -> None:
    other = Store(StoreSettings(clean_redis, partitions=8))
    with pytest.raises(StoreUnavailableError, match="partitions to 4"):
        await other.start()


async def test_a_step_is_told_whether_a_session_has_ended(store: Store) -> None:
    ended = Session(b"s1", b"sub", "standard", b"h", 0, 0, 0, state=SessionState.CLOSED, answers=b"kept")
    told: list[Session | None] = []

    def end(account: Account | None, known: Session | None) -> Plan:
        plan = Plan(None, ended=ended, ended_ttl_ms=60_000)
        assert account is not None
        plan.expected_version = account.version
        return plan

    def ask(account: Account | None, known: Session | None) -> Plan | Lookup:
        told.append(known)
        return Lookup(b"s1") if known is None else Plan(None)

    await store.commit(ACCOUNT, ask)
    assert told == [None, ABSENT]
    await store.commit(ACCOUNT, end)
    await store.commit(ACCOUNT, ask)
    assert told[-1] == ended


async def test_a_first_request_is_refused_when_its_session_has_ended(store: Store, clean_redis: Address) -> None:
    """The check is in the script: another worker may have ended the session since."""
    other = await open_store(clean_redis)
    ended = Session(b"s1", b"sub", "standard", b"h", 0, 0, 0, state=SessionState.CLOSED, answers=b"kept")
    seen: list[Session | None] = []

    def first(account: Account | None, known: Session | None) -> Plan:
        seen.append(known)
        assert account is not None
        if known is not None:
            return Plan(None)
        draft = Draft(account, 2)
        top_up(draft, 1_000)
        plan = make_plan(draft, "reserve", ("s1", 1, 0), None)
        plan.first_of = b"s1"
        return plan

    await store.call("SET", store.keys.ended(ACCOUNT, b"s1"), _packed(ended))
    await other.commit(ACCOUNT, first)
    assert seen == [None, ended]
    assert await balance(store) == 0
    await other.stop()


def _packed(session: Session) -> bytes:
    from balance.records import pack_session

    return pack_session(session)


async def test_a_damaged_account_is_reported_and_left_alone(store: Store, clean_redis: Address) -> None:
    other = await open_store(clean_redis)
    await other.call("SET", other.keys.account(ACCOUNT), b"\0\0\0\0\0\0\0\1garbage")
    with pytest.raises(StoreError, match="damaged"):
        await other.commit(ACCOUNT, add(1))
    assert await other.call("GET", other.keys.account(ACCOUNT)) == b"\0\0\0\0\0\0\0\1garbage"
    await other.stop()


@pytest.mark.parametrize(
    "session", [{}, [5, b"sub", "plan", b"pgw", *[0] * 5, b"", [], b"", 0, b"", b"", 0, b"", [], "", 0]]
)
async def test_a_damaged_session_holds_nobody_up(store: Store, clean_redis: Address, session: object) -> None:
    """Its account is told so, and the others of its batch are written."""
    await create_account(store, b"other", AccountKind.PREPAID, 978, now_ms=1, reason="test")
    key = store.keys.account(ACCOUNT)
    value = await store.call("GET", key)
    fields = msgpack.unpackb(value[8:])
    fields[5] = [session]
    damaged = value[:8] + msgpack.packb(fields)
    await store.call("SET", key, damaged)
    other = await open_store(clean_redis)
    async with asyncio.timeout(5):
        results = await asyncio.gather(
            other.commit(ACCOUNT, add(1)), other.commit(b"other", add(3)), return_exceptions=True
        )
    assert isinstance(results[0], StoreError | TypeError)
    assert isinstance(results[1], Plan)
    assert await store.call("GET", key) == damaged
    await other.stop()


async def test_a_plan_that_cannot_be_written_down_holds_nobody_up(store: Store) -> None:
    """It is refused by itself; the others of its batch are written, and its account goes on."""
    await create_account(store, b"other", AccountKind.PREPAID, 978, now_ms=1, reason="test")

    def absurd(account: Account | None, ended: Session | None) -> Plan:
        assert account is not None
        plan = make_plan(Draft(account, 2), "test", ("test",), None)
        assert plan.account is not None
        plan.account.buckets[0].balance = 1 << 70
        return plan

    results = await asyncio.gather(
        store.commit(ACCOUNT, absurd),
        store.commit(b"other", add(3)),
        store.commit(ACCOUNT, add(4)),
        return_exceptions=True,
    )
    assert isinstance(results[0], OverflowError)
    assert await balance(store) == 4
    assert (await verify(store)).discrepancies == []


async def test_a_plan_that_is_not_of_octets_holds_nobody_up(store: Store) -> None:
    """Its batch is refused as a whole, as nobody looks at every argument; what comes afterwards is written."""
    await create_account(store, b"other", AccountKind.PREPAID, 978, now_ms=1, reason="test")

    def absurd(account: Account | None, ended: Session | None) -> Plan:
        assert account is not None
        plan = make_plan(Draft(account, 2), "test", ("test",), None)
        plan.outbox = 7  # type: ignore[assignment]
        return plan

    async with asyncio.timeout(5):
        results = await asyncio.gather(
            store.commit(ACCOUNT, absurd), store.commit(b"other", add(3)), return_exceptions=True
        )
        assert isinstance(results[0], TypeError)
        await store.commit(ACCOUNT, add(4))
    assert await balance(store) == 4
    assert (await verify(store)).discrepancies == []


async def test_what_was_just_read_spares_the_next_operation_a_conflict(store: Store, clean_redis: Address) -> None:
    await store.commit(ACCOUNT, add(1))
    other = await open_store(clean_redis)
    try:
        await other.commit(ACCOUNT, add(10))
        assert await balance(store) == 11  # read anew, which the next operation starts from
        step = add(100)
        await store.commit(ACCOUNT, step)
        assert (step.calls, store.statistics.conflicts) == (1, 0)
        kept = await store.call("GET", store.keys.account(ACCOUNT))
        await store.commit(ACCOUNT, add(1000))
        store.snapshots.seen(ACCOUNT, kept)  # an earlier version takes nothing back
        await store.commit(ACCOUNT, add(1))
        assert store.statistics.conflicts == 0
        assert await balance(store) == 1112
    finally:
        await other.stop()


class SessionStep:
    """Opens or ends a session, as far as the store is concerned."""

    def __init__(self, session_id: bytes, opens: bool) -> None:
        self.session_id = session_id
        self.opens = opens

    def __call__(self, account: Account | None, ended: Session | None) -> Plan | Lookup:
        assert account is not None
        plan = make_plan(Draft(account, 2), "test", ("test",), None)
        if self.opens:
            plan.opened = self.session_id
        else:
            plan.closed = self.session_id
            plan.ended_ttl_ms = 60_000
        return plan


def opening(session_id: bytes) -> SessionStep:
    return SessionStep(session_id, opens=True)


async def test_the_session_directory_is_written_with_the_commit(store: Store, clean_redis: Address) -> None:
    """A session that was answered may go on with any other worker; an ended one is known for a while."""
    key = store.keys.session(b"s;1")
    other = await open_store(clean_redis)
    found: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    await store.commit(ACCOUNT, opening(b"s;1"))
    other.sessions.find(b"s;1", found.set_result)
    assert await found == ACCOUNT
    assert await other.call("PTTL", key) == -1
    await store.commit(ACCOUNT, SessionStep(b"s;1", opens=False))
    assert await other.call("GET", key) == ACCOUNT
    assert 0 < await other.call("PTTL", key) <= 60_000
    await store.commit(ACCOUNT, opening(b"s;1"))
    assert await other.call("PTTL", key) == -1
    await other.stop()


async def test_a_refused_plan_leaves_the_session_directory_alone(store: Store, clean_redis: Address) -> None:
    """All or nothing: the session goes with the account's new version."""
    other = await open_store(clean_redis)
    await other.commit(ACCOUNT, add(1))  # it remembers the account ...
    await store.commit(ACCOUNT, add(1))  # ... which is another one by now
    seen: list[bool] = []

    def once(account: Account | None, ended: Session | None) -> Plan | Lookup:
        seen.append(True)
        return opening(b"s;2")(account, ended) if len(seen) == 1 else add(1)(account, ended)

    await other.commit(ACCOUNT, once)
    assert len(seen) == 2
    assert await store.call("EXISTS", store.keys.session(b"s;2")) == 0
    await other.stop()


@PLAIN_ONLY
async def test_plans_in_quick_succession_share_a_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit costs Redis and the disk a fixed effort; one that is alone goes at once."""
    monkeypatch.setattr(lane, "GATHER_S", 30.0)
    names = [b"many-%d" % n for n in range(lane.GATHERED)]
    for name in names:  # alone: none of them waits for another
        async with asyncio.timeout(10):
            await create_account(store, name, AccountKind.PREPAID, 978, now_ms=1, reason="t")
    for _ in range(10):
        await asyncio.gather(*(store.commit(name, add(1)) for name in names))
    before = store.statistics.commits
    waiting = []
    for name in names:
        waiting.append(asyncio.create_task(store.commit(name, add(1))))
        await asyncio.sleep(0.001)
        assert store.statistics.commits == before or len(waiting) == len(names)
    await asyncio.gather(*waiting)
    assert store.statistics.commits == before + 1
