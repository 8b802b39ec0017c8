"""Customers on a real Redis: who pays is found once, for all below; no cycle; a change that is cut off is completed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from balance import directory, structure, subscribers
from balance.accounts import Account, Session
from balance.embedded import Address
from balance.journal import history
from balance.ledger import Draft
from balance.model import AccountKind, IdentityType, LedgerError, LifeState, Subscriber
from balance.plans import Plan
from balance.records import make_plan
from balance.resp import StoreUnavailableError
from balance.store import Store, StoreSettings
from balance.structure import CustomerUnit, Pays, UnitKind
from balance.verify import verify
from occ.lifecycle import check_change
from tests.cut_off import CutOffError, CutOffStore

NOW = 1_700_000_000_000
EURO, FRANC = 978, 756


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[CutOffStore]:
    store = CutOffStore(StoreSettings(clean_redis))
    await store.start()
    yield store
    store.left = None
    assert (await verify(store)).discrepancies == []
    await store.stop()


@pytest.fixture
async def other(clean_redis: Address, store: Store) -> AsyncIterator[Store]:
    """Another process."""
    other = Store(StoreSettings(clean_redis))
    await other.start()
    yield other
    await other.stop()


async def account(store: Store, name: str, currency: int = EURO) -> None:
    kind = AccountKind.POSTPAID
    await directory.create_account(
        store, name.encode(), kind, currency, now_ms=NOW, reason="test", credit_limit_micro=10**9
    )


async def unit(
    store: Store, name: str, parent: str = "", pays: Pays = Pays.ITSELF, kind: UnitKind = UnitKind.BRANCH
) -> structure.Reorganised:
    """A unit with an account of its own name."""
    if await directory.read_account(store, name.encode()) is None:
        await account(store, name)
    new = CustomerUnit(name.encode(), int(kind), name.title(), parent.encode(), int(pays), name.encode())
    return await structure.create_unit(store, new, NOW, "test")


async def member(store: Store, name: str, account_id: str, state: LifeState = LifeState.ACTIVE) -> Subscriber:
    new = Subscriber(
        name.encode(), account_id.encode(), "standard", ((int(IdentityType.NAI), name.encode()),), state=int(state)
    )
    entered = await structure.add_member(store, new, NOW, "test")
    assert entered is not None
    return entered


async def move(store: Store, name: str, parent: str) -> structure.Reorganised:
    return await structure.change_unit(
        store, name.encode(), lambda each: replace(each, parent=parent.encode()), NOW, "reorganised"
    )


async def pays(store: Store, name: str, who: Pays) -> structure.Reorganised:
    return await structure.change_unit(store, name.encode(), lambda each: replace(each, pays=int(who)), NOW, "contract")


async def payers(store: Store, *names: str) -> list[str]:
    """Who pays for subscribers, as every look-up of an identity finds it; and the account they belong to."""
    found = []
    for name in names:
        by_identity = await subscribers.read_subscriber(store, IdentityType.NAI, name.encode())
        assert by_identity is not None
        assert by_identity == await subscribers.subscriber_named(store, name.encode())
        found.append(f"{by_identity.account_id.decode()} for {subscribers.own_account(by_identity).decode()}")
    return found


async def shape(store: Store, top: str = "") -> list[str]:
    return [
        f"{'  ' * each.depth}{each.unit.unit_id.decode()} {each.payer.decode()} {each.subscribers}"
        async for each in structure.tree(store, top.encode())
    ]


async def test_a_household_pays_for_its_members(store: Store) -> None:
    await unit(store, "family", kind=UnitKind.HOUSEHOLD)
    await unit(store, "anna", "family", Pays.PARENT, UnitKind.INDIVIDUAL)
    await unit(store, "ben", "family", Pays.ITSELF, UnitKind.INDIVIDUAL)
    for name in ("family", "anna", "ben"):
        await member(store, f"{name}-phone", name)
    assert await payers(store, "family-phone", "anna-phone", "ben-phone") == [
        "family for family",
        "family for anna",
        "ben for ben",
    ]
    anna = await subscribers.subscriber_named(store, b"anna-phone")
    assert anna is not None
    assert (anna.account_id, anna.member_of) == (b"family", b"anna")
    assert await shape(store) == ["family family 1", "  anna family 1", "  ben ben 1"]
    paid = [each.subscriber_id async for page in structure.paid_subscribers(store, b"family") for each in page]
    assert sorted(paid) == [b"anna-phone", b"family-phone"]


async def test_the_payer_is_found_at_any_depth(store: Store) -> None:
    await unit(store, "u0")
    for depth in range(1, 60):
        await unit(store, f"u{depth}", f"u{depth - 1}", Pays.PARENT)
    await member(store, "deep", "u59")
    assert await payers(store, "deep") == ["u0 for u59"]
    done = await pays(store, "u30", Pays.ITSELF)
    assert (done.payer, done.moved) == (b"u30", 1)
    assert await payers(store, "deep") == ["u30 for u59"]
    # Above the unit that pays for itself nothing changes for those below it.
    assert (await move(store, "u10", "u5")).moved == 0
    assert await payers(store, "deep") == ["u30 for u59"]


async def test_a_branch_is_moved_with_all_below(store: Store) -> None:
    for name in ("acme", "globex"):
        await unit(store, name, kind=UnitKind.COMPANY)
    await unit(store, "north", "acme", Pays.PARENT)
    await unit(store, "harbour", "north", Pays.PARENT)
    await unit(store, "museum", "north", Pays.ITSELF)
    for name in ("acme", "north", "harbour", "museum"):
        await member(store, f"{name}-1", name)
    done = await move(store, "north", "globex")
    assert (done.payer, done.moved) == (b"globex", 2)
    assert await payers(store, "acme-1", "north-1", "harbour-1", "museum-1") == [
        "acme for acme",
        "globex for north",
        "globex for harbour",
        "museum for museum",
    ]
    assert await shape(store, "globex") == [
        "globex globex 0",
        "  north globex 1",
        "    harbour globex 1",
        "    museum museum 1",
    ]
    assert await shape(store, "acme") == ["acme acme 1"]
    # Those who pay, or did, find it in their history.
    for account_id in (b"north", b"globex", b"acme"):
        newest = (await history(store, account_id, 1))[0]
        assert (newest.operation, newest.reason) == (
            "unit",
            ("reorganised", b"north", "branch, parent pays, below globex", "2 subscribers"),
        )
    with pytest.raises(LedgerError, match="there is no customer or unit initech"):
        await shape(store, "initech")


async def test_a_unit_that_is_moved_nowhere_pays_for_itself_first(store: Store) -> None:
    await unit(store, "acme")
    await unit(store, "north", "acme", Pays.PARENT)
    with pytest.raises(LedgerError, match="stands at the top, so it has no parent that could pay"):
        await move(store, "north", "")
    await pays(store, "north", Pays.ITSELF)
    await move(store, "north", "")
    assert await shape(store) == ["acme acme 0", "north north 0"]


async def test_a_unit_cannot_stand_below_itself(store: Store) -> None:
    await unit(store, "a")
    await unit(store, "b", "a", Pays.PARENT)
    await unit(store, "c", "b", Pays.PARENT)
    before = await shape(store)
    for below in ("a", "b", "c"):
        with pytest.raises(LedgerError, match=f"unit {below} is a or stands below it; a cannot be moved there"):
            await move(store, "a", below)
    assert await shape(store) == before


async def test_two_moves_at_once_do_not_make_a_cycle(store: Store, other: Store) -> None:
    """Each alone is possible; whoever comes second is refused."""
    for name in ("a", "b"):
        await unit(store, name)
    results = await asyncio.gather(move(store, "a", "b"), move(other, "b", "a"), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["LedgerError", "Reorganised"]
    assert len(await shape(store)) == 2


async def test_units_that_cannot_be(store: Store) -> None:
    await unit(store, "acme")
    await account(store, "swiss", FRANC)
    await account(store, "free")

    async def refused(reason: str, **changed: Any) -> None:
        new = replace(CustomerUnit(b"new", 3, "", b"acme", int(Pays.PARENT), b"free"), **changed)
        with pytest.raises(LedgerError, match=reason):
            await structure.create_unit(store, new, NOW, "test")

    before = set(await store.call("KEYS", "*"))
    await refused("there is no account none for unit new", account_id=b"none")
    await refused("account acme is that of unit acme already", account_id=b"acme")
    await refused("there is no customer or unit none to stand below", parent=b"none")
    await refused("there is no customer or unit new to stand below", parent=b"new")
    await refused("in another currency than swiss", account_id=b"swiss")
    await refused("stands at the top", parent=b"")
    await refused("'a b' is not a usable name", unit_id=b"a b")
    await refused("printable characters", name="a\nb")
    await refused("acme exists already", unit_id=b"acme")
    assert set(await store.call("KEYS", "*")) == before
    with pytest.raises(LedgerError, match="there is no customer or unit none"):
        await move(store, "none", "acme")


async def test_a_unit_is_entered_once(store: Store, other: Store) -> None:
    first = await unit(store, "acme")
    assert (first.created, first.payer) == (True, b"acme")
    again = await unit(store, "acme")
    assert (again.created, again.unit) == (False, first.unit)
    for name in ("x", "y"):
        await account(store, name)
    results = await asyncio.gather(
        *(
            structure.create_unit(each, CustomerUnit(b"branch", 3, "", b"acme", 1, own), NOW, "test")
            for each, own in ((store, b"x"), (other, b"y"))
        ),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["LedgerError", "Reorganised"]
    assert len(await shape(store)) == 2


async def test_members_of_an_account_that_becomes_a_unit(store: Store) -> None:
    """The account, and who belongs to it, may have been there before."""
    await unit(store, "acme")
    await account(store, "shop")
    await member(store, "till", "shop")
    assert await payers(store, "till") == ["shop for shop"]
    assert (await unit(store, "shop", "acme", Pays.PARENT)).moved == 1
    assert await payers(store, "till") == ["acme for shop"]


async def test_a_member_goes_elsewhere(store: Store) -> None:
    await unit(store, "acme")
    await unit(store, "north", "acme", Pays.PARENT)
    await account(store, "private")
    await account(store, "swiss", FRANC)
    await member(store, "anna", "north")
    moved = await structure.move_member(store, b"anna", b"private", NOW, "left the company")
    assert (moved.account_id, moved.member_of) == (b"private", b"")
    assert await payers(store, "anna") == ["private for private"]
    assert await shape(store) == ["acme acme 0", "  north acme 0"]
    for account_id in (b"private", b"acme"):
        newest = (await history(store, account_id, 1))[0]
        assert (newest.operation, newest.reason[:2]) == ("subscriber-move", ("left the company", b"anna"))
    await structure.move_member(store, b"anna", b"north", NOW, "came back")
    assert await payers(store, "anna") == ["acme for north"]
    for target, reason in ((b"none", "there is no account none"), (b"swiss", "in another currency than acme")):
        with pytest.raises(LedgerError, match=reason):
            await structure.move_member(store, b"anna", target, NOW, "test")
    assert await payers(store, "anna") == ["acme for north"]


# -- states go with their subscriber ----------------------------------------------------------------------------------


async def states(store: Store, account_id: str) -> dict[bytes, int]:
    found = await directory.read_account(store, account_id.encode())
    assert found is not None
    return found.out_of_service


async def test_the_new_payer_knows_who_is_barred(store: Store) -> None:
    for name in ("acme", "globex"):
        await unit(store, name)
    await unit(store, "north", "acme", Pays.PARENT)
    await member(store, "anna", "north")
    await member(store, "ben", "north", LifeState.ORDERED)
    await subscribers.set_subscriber_state(store, b"anna", LifeState.BLOCKED, NOW, "fraud", check_change)
    assert await states(store, "acme") == {b"anna": LifeState.BLOCKED, b"ben": LifeState.ORDERED}
    await move(store, "north", "globex")
    assert await states(store, "globex") == {b"anna": LifeState.BLOCKED, b"ben": LifeState.ORDERED}
    await subscribers.set_subscriber_state(store, b"anna", LifeState.ACTIVE, NOW, "cleared", check_change)
    assert await states(store, "globex") == {b"ben": LifeState.ORDERED}
    # What the former payer still noted is struck as well, or she would be barred there should she come back.
    assert await states(store, "acme") == {b"ben": LifeState.ORDERED}


async def test_a_session_on_the_former_account_is_barred_too(store: Store) -> None:
    """Running sessions stay with the account they were opened on, so it has to know."""
    for name in ("acme", "globex"):
        await unit(store, name)
    await unit(store, "north", "acme", Pays.PARENT)
    anna = await member(store, "anna", "north")

    def open_one(found: Account | None, _: Session | None) -> Plan:
        assert found is not None
        draft = Draft(found, NOW)
        draft.open(Session(b"pgw;1", b"anna", "standard", b"pgw", 0, NOW, NOW + 60_000))
        return make_plan(draft, "reserve", (b"pgw;1", 1, 0), None)

    await store.commit(anna.account_id, open_one)
    moved = await move(store, "north", "globex")
    assert moved.moved == 1
    on_acme = await directory.read_account(store, b"acme")
    assert on_acme is not None
    assert list(on_acme.sessions) == [b"pgw;1"]
    barred = await subscribers.set_subscriber_state(store, b"anna", LifeState.SUSPENDED, NOW, "lost", check_change)
    assert await subscribers.session_accounts(store, barred) == [b"globex", b"acme"]
    assert await states(store, "acme") == await states(store, "globex") == {b"anna": LifeState.SUSPENDED}


# -- many at once, and cut off -----------------------------------------------------------------------------------------


async def company(store: Store, branches: int, members_each: int) -> list[str]:
    """Two companies, one with branches whose parent pays; the names of all subscribers of the branches."""
    for name in ("acme", "globex"):
        await unit(store, name, kind=UnitKind.COMPANY)
    await unit(store, "region", "acme", Pays.PARENT)
    names = [f"branch-{number}" for number in range(branches)]
    await asyncio.gather(*(unit(store, name, "region", Pays.PARENT) for name in names))
    members = [f"{name}-{number}" for name in names for number in range(members_each)]
    await asyncio.gather(*(member(store, each, each.rpartition("-")[0]) for each in members))
    return members


async def test_a_company_with_500_branches_is_moved_at_once(store: Store) -> None:
    names = await company(store, 500, 2)
    assert set(await payers(store, *names)) == {f"acme for branch-{number}" for number in range(500)}
    changed = await move(store, "region", "globex")
    assert (changed.payer, changed.moved) == (b"globex", 1000)
    assert set(await payers(store, *names)) == {f"globex for branch-{number}" for number in range(500)}
    paid = {each.subscriber_id async for page in structure.paid_subscribers(store, b"globex") for each in page}
    assert len(paid) == 1000
    assert [page async for page in structure.paid_subscribers(store, b"acme")] == []
    # Nothing is left to do.
    assert (await move(store, "region", "globex")).moved == 0


@pytest.mark.parametrize("writes", [0, 1, 2, 7, 12, 13, 15])
async def test_a_change_that_is_cut_off_is_completed(store: CutOffStore, other: Store, writes: int) -> None:
    """Whatever was written by then, everybody has the old payer or the new one, and a repeat gives all the new one."""
    names = await company(store, 12, 1)
    store.left = writes
    with pytest.raises(CutOffError):
        await move(store, "region", "globex")
    store.left = None
    between = [each.split()[0] for each in await payers(other, *names)]
    # First the structure, then the 12 subscribers, then three notes.
    moved = min(12, max(0, writes - 1))
    assert (between.count("acme"), between.count("globex")) == (12 - moved, moved)
    await move(other, "region", "globex")
    assert {each.split()[0] for each in await payers(other, *names)} == {"globex"}
    assert (await history(other, b"globex", 1))[0].reason[1] == b"region"


async def test_members_that_come_while_the_structure_changes(store: Store, other: Store) -> None:
    """Those that the change did not see find out themselves."""
    await company(store, 4, 1)
    names = [f"late-{number}" for number in range(40)]
    await asyncio.gather(
        *(member(other, name, f"branch-{number % 4}") for number, name in enumerate(names)),
        move(store, "region", "globex"),
    )
    assert {each.split()[0] for each in await payers(store, *names)} == {"globex"}


async def test_two_changes_at_once_end_as_the_structure_says(store: Store, other: Store) -> None:
    names = await company(store, 20, 2)
    await asyncio.gather(
        move(store, "region", "globex"), pays(other, "region", Pays.ITSELF), pays(other, "branch-0", Pays.ITSELF)
    )
    found = dict(zip(names, await payers(store, *names), strict=True))
    assert {found[name].split()[0] for name in names if name.startswith("branch-0-")} == {"branch-0"}
    assert {found[name].split()[0] for name in names if not name.startswith("branch-0-")} == {"region"}
    assert await shape(store, "globex") == ["globex globex 0", *(f"  {line}" for line in await shape(store, "region"))]


async def test_a_change_of_state_while_the_structure_changes(store: Store, other: Store) -> None:
    """Whoever pays in the end knows the state that the record has in the end."""
    names = await company(store, 10, 2)
    acts: list[tuple[str, LifeState]] = [(name, LifeState.SUSPENDED) for name in names[::2]]
    await asyncio.gather(
        move(store, "region", "globex"),
        *(
            subscribers.set_subscriber_state(other, name.encode(), state, NOW, "test", check_change)
            for name, state in acts
        ),
    )
    assert await states(store, "globex") == {name.encode(): LifeState.SUSPENDED for name, _ in acts}


async def test_a_lost_connection_is_told(store: Store) -> None:
    await unit(store, "acme")
    store._nodes.not_primary()
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await move(store, "acme", "")
    while not store.available:  # noqa: ASYNC110 - the store has no event for it
        await asyncio.sleep(0.01)
