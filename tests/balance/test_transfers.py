"""Transfers between accounts on a real Redis: no money is made or lost, whoever is cut off and whoever is at it too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from balance import directory
from balance.accounts import Account, ServiceUse, Session
from balance.directory import REFERENCE_TTL_MS
from balance.embedded import Address
from balance.journal import history
from balance.ledger import Draft, reserve
from balance.model import AccountKind, LedgerError, LifeState, Unit
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store, StoreSettings
from balance.transfers import Transferred, transfer_money, unfinished_transfers
from balance.verify import verify
from occ.lifecycle import check_change
from occ.rating.price import StepPrice
from tests.cut_off import CutOffError, CutOffStore

NOW = 1_700_000_000_000
EURO, FRANC = 978, 756
STEPS = 6
"""Calls of the store that a transfer makes after its list has it: two postings, the list, and what is forgotten."""


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis))
    await store.start()
    for name, balance in ((b"a", 1000), (b"b", 500), (b"c", 0)):
        await directory.create_account(
            store, name, AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", balance_micro=balance
        )
    yield store
    report = await verify(store)
    assert report.discrepancies == []
    on_its_way = sum(
        each.transfer.amount_micro for each in await unfinished_transfers(store) if each.debited and not each.credited
    )
    assert sum(total.transferred for total in report.totals if total.currency == EURO) == -on_its_way
    await store.stop()


@pytest.fixture
async def connect(clean_redis: Address) -> AsyncIterator[Callable[[], Awaitable[CutOffStore]]]:
    """Further processes."""
    opened = []

    async def open_one() -> CutOffStore:
        opened.append(CutOffStore(StoreSettings(clean_redis)))
        await opened[-1].start()
        return opened[-1]

    yield open_one
    for each in opened:
        await each.stop()


async def send(store: Store, source: bytes, target: bytes, amount: int, reference: str, **more: int) -> Transferred:
    return await transfer_money(
        store,
        source,
        target,
        amount,
        now_ms=more.pop("now_ms", NOW),
        reason="a favour",
        reference=reference,
        **more,
    )


async def balances(store: Store) -> list[int]:
    found = await directory.read_accounts(store, [b"a", b"b", b"c"])
    return [-1 if each is None else each.buckets[0].balance for each in found]


async def test_money_moves_once(store: Store) -> None:
    done = await send(store, b"a", b"b", 300, "T-1")
    assert (done.debit.amount, done.debit.balance_after, done.credit.balance_after) == (-300, 700, 800)
    assert not done.repeated
    again = await send(store, b"a", b"b", 300, "T-1", now_ms=NOW + 5)
    assert again.repeated
    assert (again.debit.balance_after, again.credit.balance_after) == (700, 800)
    assert await balances(store) == [700, 800, 0]
    assert await unfinished_transfers(store) == []
    for name, operation, told in ((b"a", "transfer-out", "to b"), (b"b", "transfer-in", "from a")):
        (newest, *_) = await history(store, name, 10)
        assert (newest.operation, newest.reason) == (operation, ("a favour", "T-1", told))
        assert len(await history(store, name, 10)) == 2


async def test_a_reference_is_of_one_transfer_of_the_account_that_pays(store: Store) -> None:
    await send(store, b"a", b"b", 300, "T-1")
    for target, amount in ((b"b", 301), (b"c", 300)):
        with pytest.raises(LedgerError, match="reference T-1 was used before, for -300 on bucket 1 to b"):
            await send(store, b"a", target, amount, "T-1")
    assert not (await send(store, b"b", b"a", 300, "T-1")).repeated
    assert await balances(store) == [1000, 500, 0]


async def test_references_are_remembered_for_a_week(store: Store) -> None:
    await send(store, b"a", b"b", 300, "T-1")
    keys = [key for key in await store.call("KEYS", "*") if b":e:" in key]
    assert len(keys) == 2
    for key in keys:
        assert 0 < await store.call("PTTL", key) <= REFERENCE_TTL_MS


async def test_transfers_that_cannot_be(store: Store) -> None:
    async def state(name: bytes, wanted: LifeState) -> None:
        await directory.create_account(
            store, name, AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", balance_micro=9
        )
        await directory.set_account_state(store, name, wanted, NOW, "test", check_change)

    await state(b"suspended", LifeState.SUSPENDED)
    await state(b"gone", LifeState.TERMINATED)
    await directory.create_account(store, b"swiss", AccountKind.PREPAID, FRANC, now_ms=NOW, reason="test")
    before = await balances(store)
    for source, target, amount, reference, reason in (
        (b"a", b"b", 1001, "R", "bucket 1 of account a can give 1000 micro-units, which is less than 1001"),
        (b"a", b"b", 0, "R", "must be of more than nothing"),
        (b"a", b"b", -5, "R", "must be of more than nothing"),
        (b"a", b"a", 5, "R", "from one account to another"),
        (b"a", b"none", 5, "R", "there is no account none"),
        (b"none", b"a", 5, "R", "there is no account none"),
        (b"a", b"swiss", 5, "R", "different currencies"),
        (b"a", b"gone", 5, "R", "gone is terminated"),
        (b"gone", b"a", 5, "R", "account gone is terminated, so no money leaves it"),
        (b"suspended", b"a", 5, "R", "account suspended is suspended, so no money leaves it"),
        (b"a", b"b", 5, "two words", "printable"),
    ):
        with pytest.raises(LedgerError, match=reason):
            await send(store, source, target, amount, reference)
    assert await balances(store) == before
    assert await unfinished_transfers(store) == []
    assert not (await send(store, b"a", b"b", 5, "R")).repeated


async def test_what_is_reserved_does_not_leave(store: Store) -> None:
    def open_one(found: Account | None, _: Session | None) -> Plan:
        assert found is not None
        draft = Draft(found, NOW)
        session = Session(b"pgw;1", b"anna", "standard", b"pgw", 0, NOW, NOW + 60_000)
        use = ServiceUse(10, -1, "internet", int(Unit.OCTETS))
        draft.add_service(session, use)
        reserve(draft, use, StepPrice(Unit.OCTETS, 1, 1), 400)
        draft.open(session)
        return make_plan(draft, "reserve", (b"pgw;1", 1, 0), None)

    await store.commit(b"a", open_one)
    with pytest.raises(LedgerError, match="can give 600"):
        await send(store, b"a", b"b", 601, "R")
    await send(store, b"a", b"b", 600, "R")


async def test_a_postpaid_account_gives_up_to_its_limit(store: Store) -> None:
    await directory.create_account(
        store, b"post", AccountKind.POSTPAID, EURO, now_ms=NOW, reason="test", credit_limit_micro=100
    )
    with pytest.raises(LedgerError, match="can give 100"):
        await send(store, b"post", b"a", 101, "R")
    assert (await send(store, b"post", b"a", 100, "R")).debit.balance_after == -100


async def test_the_overdraft_of_a_prepaid_account_is_not_given_away(store: Store) -> None:
    await directory.create_account(
        store, b"pre", AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", balance_micro=5, credit_limit_micro=100
    )
    with pytest.raises(LedgerError, match="can give 5 micro-units, which is less than 6; its overdraft is for"):
        await send(store, b"pre", b"a", 6, "R")
    assert (await send(store, b"pre", b"a", 5, "R")).debit.balance_after == 0
    with pytest.raises(LedgerError, match="can give 0 "):
        await send(store, b"pre", b"a", 1, "S")


async def test_a_transfer_brings_an_account_back_from_its_grace(store: Store) -> None:
    await directory.set_account_state(store, b"c", LifeState.GRACE, NOW, "test", check_change)
    await send(store, b"a", b"c", 5, "R", valid_for_ms=1000)
    found = await directory.read_account(store, b"c")
    assert found is not None
    assert (found.state, found.expires_ms) == (LifeState.ACTIVE, NOW + 1000)


@pytest.mark.parametrize("writes", range(STEPS + 1))
async def test_a_transfer_that_is_cut_off_is_completed(
    store: Store, connect: Callable[[], Awaitable[CutOffStore]], writes: int
) -> None:
    """Wherever it stops, the list has it until it is done, and a repeat does the rest, once."""
    dying = await connect()
    dying.left = writes
    with pytest.raises(CutOffError):
        await send(dying, b"a", b"b", 1000, "T-1")
    found = await unfinished_transfers(store)
    listed = 1 <= writes <= 4
    assert [(each.debited, each.credited) for each in found] == ([(writes >= 2, writes >= 4)] if listed else [])
    assert await balances(store) == [0 if writes >= 2 else 1000, 1500 if writes >= 4 else 500, 0]
    if listed:
        with pytest.raises(LedgerError, match="reference T-1 stands for a transfer of 1000 to account b"):
            await send(store, b"a", b"c", 1000, "T-1")
    done = await send(store, b"a", b"b", 1000, "T-1", now_ms=NOW + 1)
    assert done.repeated == (writes >= 4)
    assert await balances(store) == [0, 1500, 0]
    assert await store.call("EXISTS", store.keys.transfers(0)) == 0
    assert [len(await history(store, name, 10)) for name in (b"a", b"b")] == [2, 2]


async def test_money_on_its_way_arrives_whatever_becomes_of_the_accounts(
    store: Store, connect: Callable[[], Awaitable[CutOffStore]]
) -> None:
    """Also when the repeat comes at the very moment that the first call bore."""
    dying = await connect()
    dying.left = 3
    with pytest.raises(CutOffError):
        await send(dying, b"a", b"b", 1000, "T-1")
    for name in (b"a", b"b"):
        await directory.set_account_state(store, name, LifeState.TERMINATED, NOW, "test", check_change)
    await send(store, b"a", b"b", 1000, "T-1")
    assert await balances(store) == [0, 1500, 0]
    assert await unfinished_transfers(store) == []


async def test_one_that_has_not_begun_and_cannot_be_is_struck_off(
    store: Store, connect: Callable[[], Awaitable[CutOffStore]]
) -> None:
    dying = await connect()
    dying.left = 1
    with pytest.raises(CutOffError):
        await send(dying, b"a", b"b", 1000, "T-1")
    await send(store, b"a", b"c", 1, "T-2")
    with pytest.raises(LedgerError, match="can give 999"):
        await send(store, b"a", b"b", 1000, "T-1")
    assert await unfinished_transfers(store) == []
    assert await balances(store) == [999, 500, 1]


async def test_both_ways_at_once(store: Store, connect: Callable[[], Awaitable[CutOffStore]]) -> None:
    other = await connect()
    await asyncio.gather(
        *(send(store, b"a", b"b", 10, f"T-{number}") for number in range(40)),
        *(send(other, b"b", b"a", 10, f"T-{number}") for number in range(40)),
    )
    assert await balances(store) == [1000, 500, 0]
    assert await unfinished_transfers(store) == []


async def test_the_same_transfer_by_many_at_once(store: Store, connect: Callable[[], Awaitable[CutOffStore]]) -> None:
    several = [store, *[await connect() for _ in range(3)]]
    results = await asyncio.gather(*(send(each, b"a", b"b", 1000, "T-1") for each in several * 5))
    assert await balances(store) == [0, 1500, 0]
    assert len({each.debit.version for each in results}) == len({each.credit.version for each in results}) == 1
    assert await unfinished_transfers(store) == []


async def test_more_than_there_is_by_many_at_once(store: Store, connect: Callable[[], Awaitable[CutOffStore]]) -> None:
    other = await connect()
    results = await asyncio.gather(
        *(send((store, other)[number % 2], b"a", b"bc"[number % 2 :][:1], 300, f"T-{number}") for number in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Transferred) for result in results) == 3
    assert sum(await balances(store)) == 1500
    assert (await balances(store))[0] == 100
    assert await unfinished_transfers(store) == []
    assert await store.call("EXISTS", store.keys.transfers(0)) == 0
