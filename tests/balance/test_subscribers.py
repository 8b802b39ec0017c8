"""Subscribers on a real Redis: identities that are unique and movable, changes by several at once, states."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import msgpack
import pytest

from balance import directory, structure, subscribers
from balance.accounts import Account
from balance.embedded import Address
from balance.journal import history
from balance.model import AccountKind, IdentityType, LedgerError, LifeState, Subscriber
from balance.records import pack_subscriber
from balance.store import Store, StoreSettings
from balance.verify import verify
from occ.lifecycle import check_change
from tests.cut_off import CutOffError, CutOffStore

NOW = 1_700_000_000_000
MSISDN = (int(IdentityType.E164), b"491700000001")
OTHER_MSISDN = (int(IdentityType.E164), b"491700000002")
IMSI = (int(IdentityType.IMSI), b"262010000000001")
NEW_IMSI = (int(IdentityType.IMSI), b"262010000000099")


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis))
    await store.start()
    for name in (b"acc-1", b"acc-2"):
        await directory.create_account(
            store, name, AccountKind.PREPAID, 978, now_ms=NOW, reason="test", balance_micro=10_000_000
        )
    yield store
    assert (await verify(store)).discrepancies == []
    await store.stop()


@pytest.fixture
async def other(clean_redis: Address, store: Store) -> AsyncIterator[Store]:
    """Another process."""
    other = Store(StoreSettings(clean_redis))
    await other.start()
    yield other
    await other.stop()


async def add(store: Store, name: bytes, *identities: tuple[int, bytes], **more: object) -> Subscriber:
    new = replace(Subscriber(name, b"acc-1", "standard", identities), **more)  # type: ignore[arg-type]
    entered = await structure.add_member(store, new, NOW, "contract")
    assert entered is not None
    return entered


async def named(store: Store, name: bytes = b"anna") -> Subscriber:
    found = await subscribers.subscriber_named(store, name)
    assert found is not None
    for identity in found.identities:
        assert await subscribers.read_subscriber(store, *identity) == found
    return found


async def account(store: Store, name: bytes = b"acc-1") -> Account:
    found = await directory.read_account(store, name)
    assert found is not None
    return found


async def set_state(store: Store, state: LifeState, name: bytes = b"anna", free_identities: bool = False) -> Subscriber:
    return await subscribers.set_subscriber_state(
        store, name, state, NOW, state.name.lower(), check_change, free_identities=free_identities
    )


# -- identities --------------------------------------------------------------------------------------------------------


async def test_a_sim_is_swapped(store: Store) -> None:
    await add(store, b"anna", MSISDN, IMSI)
    swapped = await subscribers.swap_identity(store, b"anna", IMSI, NEW_IMSI, NOW, "lost phone")
    assert swapped.identities == (MSISDN, NEW_IMSI)
    assert await named(store) == swapped
    assert await subscribers.read_subscriber(store, *IMSI) is None
    newest = (await history(store, b"acc-1", 1))[0]
    assert (newest.operation, newest.reason) == (
        "subscriber-identity",
        ("lost phone", b"anna", "IMSI 262010000000001 -> IMSI 262010000000099"),
    )
    # The old one is free for somebody else.
    await add(store, b"ben", OTHER_MSISDN, IMSI)


async def test_an_identity_of_somebody_else_cannot_be_taken(store: Store) -> None:
    await add(store, b"anna", MSISDN, IMSI)
    await add(store, b"ben", OTHER_MSISDN)
    for old, new, reason in (
        (MSISDN, OTHER_MSISDN, "identity E164 491700000002 belongs to subscriber ben already"),
        (OTHER_MSISDN, NEW_IMSI, "E164 491700000002 does not belong to anna"),
        (MSISDN, (0, b"+49170"), "is malformed"),
        (MSISDN, IMSI, "given twice"),
    ):
        with pytest.raises(LedgerError, match=reason):
            await subscribers.swap_identity(store, b"anna", old, new, NOW, "test")
    assert (await named(store)).identities == (MSISDN, IMSI)
    assert (await named(store, b"ben")).identities == (OTHER_MSISDN,)
    assert (await history(store, b"acc-1", 1))[0].operation == "subscriber-add"


async def test_one_identity_is_claimed_by_many_at_once(store: Store, other: Store) -> None:
    """By SIM swaps and by new subscribers: one gets it, the others are left as they were."""
    names = [b"s%d" % number for number in range(10)]
    await asyncio.gather(*(add(store, name, (3, name)) for name in names))
    claims = [
        *(
            subscribers.swap_identity((store, other)[at % 2], name, (3, name), IMSI, NOW, "claim")
            for at, name in enumerate(names)
        ),
        add(other, b"new", IMSI),
    ]
    results = await asyncio.gather(*claims, return_exceptions=True)
    winners = [result for result in results if isinstance(result, Subscriber)]
    assert len(winners) == 1
    assert all("belongs to subscriber" in str(each) for each in results if not isinstance(each, Subscriber))
    assert await subscribers.read_subscriber(store, *IMSI) == winners[0]
    for name in names:
        if name != winners[0].subscriber_id:
            assert (await named(store, name)).identities == ((3, name),)


async def test_changes_of_several_at_once_are_all_kept(store: Store, other: Store) -> None:
    await add(store, b"anna", MSISDN, IMSI)
    await asyncio.gather(
        subscribers.set_caps(store, b"anna", 1_000_000, None, NOW, "test"),
        subscribers.set_caps(other, b"anna", None, 20_000_000, NOW, "test"),
        subscribers.set_friends(store, b"anna", (b"49301",), NOW, "test"),
        subscribers.change_plan(other, b"anna", "large", NOW, NOW, "test"),
        subscribers.swap_identity(store, b"anna", IMSI, NEW_IMSI, NOW, "test"),
        set_state(other, LifeState.SUSPENDED),
    )
    found = await named(store)
    assert (found.cap_day_micro, found.cap_month_micro) == (1_000_000, 20_000_000)
    assert (found.friends, found.plan, found.state) == ((b"49301",), "large", LifeState.SUSPENDED)
    assert found.identities == (MSISDN, NEW_IMSI)
    assert sorted(record.operation for record in await history(store, b"acc-1", 6)) == [
        "subscriber-caps", "subscriber-caps", "subscriber-friends", "subscriber-identity", "subscriber-plan",
        "subscriber-state",
    ]  # fmt: skip


async def test_who_is_meant(store: Store) -> None:
    """A name may be what is another's number by now."""
    await add(store, b"491700000001", MSISDN, IMSI)
    await subscribers.swap_identity(store, b"491700000001", MSISDN, OTHER_MSISDN, NOW, "another number")
    await add(store, b"ben", MSISDN)
    found = await subscribers.find_subscribers(store, b"491700000001")
    assert [(each.subscriber_id, kind) for each, kind in found] == [(b"491700000001", -1), (b"ben", 0)]
    assert [kind for _, kind in await subscribers.find_subscribers(store, b"+491700000002")] == [0]
    assert await subscribers.find_subscribers(store, b"nobody") == []


async def test_subscribers_of_an_earlier_release_can_be_changed(store: Store) -> None:
    """Whose record has fewer fields than one that is written now."""
    old = Subscriber(b"anna", b"acc-1", "standard", (MSISDN,))
    value = msgpack.packb((old.subscriber_id, old.account_id, old.plan, old.identities))
    assert len(value) < len(pack_subscriber(old))
    await store.call("MSET", store.keys.subscriber(b"anna"), value, store.keys.identity(*MSISDN), value)
    assert await subscribers.subscriber_named(store, b"anna") == old
    await subscribers.swap_identity(store, b"anna", MSISDN, OTHER_MSISDN, NOW, "test")
    assert (await named(store)).identities == (OTHER_MSISDN,)


# -- plan, caps, friends -----------------------------------------------------------------------------------------------


async def test_a_plan_changes_now_or_later(store: Store) -> None:
    await add(store, b"anna", MSISDN)
    later = await subscribers.change_plan(store, b"anna", "large", NOW + 1000, NOW, "upgrade")
    assert (later.plan, later.next_plan, later.next_plan_ms) == ("standard", "large", NOW + 1000)
    assert (later.plan_at(NOW + 999), later.plan_at(NOW + 1000)) == ("standard", "large")
    assert (await history(store, b"acc-1", 1))[0].reason == ("upgrade", b"anna", "large from 2023-11-14 22:13 UTC")
    # One that has taken effect meanwhile is the plan from which the next change starts.
    later = await subscribers.change_plan(store, b"anna", "small", NOW + 9000, NOW + 2000, "downgrade")
    assert (later.plan, later.next_plan, later.next_plan_ms) == ("large", "small", NOW + 9000)
    # A change at once ends what was pending.
    now = await subscribers.change_plan(store, b"anna", "large", NOW + 3000, NOW + 3000, "stays")
    assert (now.plan, now.next_plan, now.next_plan_ms) == ("large", "", 0)
    assert (await history(store, b"acc-1", 1))[0].reason == ("stays", b"anna", "large now")


async def test_caps_and_friends_that_cannot_be(store: Store) -> None:
    await add(store, b"anna", MSISDN)
    with pytest.raises(LedgerError, match="must not be negative"):
        await subscribers.set_caps(store, b"anna", -1, None, NOW, "test")
    with pytest.raises(LedgerError, match="a cap can be"):
        await subscribers.set_caps(store, b"anna", 1 << 63, None, NOW, "test")
    with pytest.raises(LedgerError, match=r"E164 '\+49' is malformed"):
        await subscribers.set_friends(store, b"anna", (b"+49",), NOW, "test")
    with pytest.raises(LedgerError, match="100 friends-and-family numbers, not 101"):
        await subscribers.set_friends(store, b"anna", tuple(b"%d" % number for number in range(101)), NOW, "test")
    with pytest.raises(LedgerError, match="200 characters long at most"):
        await subscribers.set_friends(store, b"anna", (), NOW, "x" * 201)
    with pytest.raises(LedgerError, match="there is no subscriber ben"):
        await subscribers.set_friends(store, b"ben", (), NOW, "test")
    assert (await history(store, b"acc-1", 1))[0].operation == "subscriber-add"


async def test_a_repeat_of_an_act_is_noted_again(store: Store) -> None:
    """So that one that was cut off between the act and its note has one in the end."""
    await add(store, b"anna", MSISDN)
    for _ in range(2):
        await subscribers.set_caps(store, b"anna", 5, None, NOW, "parents")
    assert [record.reason for record in await history(store, b"acc-1", 2)] == [("parents", b"anna", "day 5")] * 2


# -- life cycle --------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_subscriber(store: Store) -> None:
    ordered = await add(store, b"anna", MSISDN, state=int(LifeState.ORDERED))
    assert ordered.activated_ms == 0
    assert (await account(store)).out_of_service == {b"anna": LifeState.ORDERED}
    active = await set_state(store, LifeState.ACTIVE)
    assert active.activated_ms == NOW
    assert (await account(store)).out_of_service == {}
    for state in (LifeState.SUSPENDED, LifeState.BLOCKED):
        assert (await set_state(store, state)).state == state
        assert (await account(store)).out_of_service == {b"anna": state}
    again = await set_state(store, LifeState.ACTIVE)
    assert again.activated_ms == NOW
    await set_state(store, LifeState.TERMINATED)
    with pytest.raises(LedgerError, match="active cannot follow terminated; what can is nothing"):
        await set_state(store, LifeState.ACTIVE)
    told = [record for record in await history(store, b"acc-1", 20) if record.operation == "subscriber-state"]
    assert [record.reason[2] for record in reversed(told)] == [
        "ordered", "active", "suspended", "blocked", "active", "terminated",
    ]  # fmt: skip


async def test_states_that_are_none_of_a_subscriber(store: Store) -> None:
    await add(store, b"anna", MSISDN)
    with pytest.raises(LedgerError, match="only a prepaid account can be in grace"):
        await set_state(store, LifeState.GRACE)
    with pytest.raises(LedgerError, match="only a subscriber that is terminated"):
        await set_state(store, LifeState.BLOCKED, free_identities=True)
    with pytest.raises(LedgerError, match="ordered cannot follow active"):
        await set_state(store, LifeState.ORDERED)
    with pytest.raises(LedgerError, match="there is no subscriber ben"):
        await set_state(store, LifeState.BLOCKED, b"ben")
    assert (await account(store)).out_of_service == {}


async def test_who_is_terminated_may_give_the_identities_up(store: Store) -> None:
    await add(store, b"anna", MSISDN, IMSI)
    await set_state(store, LifeState.TERMINATED)
    assert (await named(store)).identities == (MSISDN, IMSI)
    freed = await set_state(store, LifeState.TERMINATED, free_identities=True)
    assert freed.identities == ()
    await add(store, b"ben", MSISDN, IMSI)
    assert (await named(store)).state == LifeState.TERMINATED


async def test_an_account_does_not_grow_with_all_that_were_terminated(store: Store) -> None:
    """The oldest without identities are forgotten; those that can still be named by a request never are."""
    await add(store, b"kept", (3, b"kept"))
    await set_state(store, LifeState.TERMINATED, b"kept")
    for number in range(subscribers.TERMINATED_KEPT + 5):
        name = b"s%d" % number
        await add(store, name, (3, name))
        await set_state(store, LifeState.TERMINATED, name, free_identities=True)
    known = (await account(store)).out_of_service
    assert len(known) == subscribers.TERMINATED_KEPT + 1
    assert b"kept" in known
    assert b"s0" not in known
    assert b"s%d" % (subscribers.TERMINATED_KEPT + 4) in known


@pytest.mark.parametrize("bars", [True, False])
async def test_a_change_of_state_that_is_cut_off_bars(store: Store, clean_redis: Address, bars: bool) -> None:
    """Between its steps the subscriber is out of service, whichever way it was to go; a repeat completes it."""
    await add(store, b"anna", MSISDN, IMSI)
    wanted = LifeState.SUSPENDED if bars else LifeState.ACTIVE
    if not bars:
        await set_state(store, LifeState.SUSPENDED)
    dying = CutOffStore(StoreSettings(clean_redis))
    await dying.start()
    dying.left = 1
    with pytest.raises(CutOffError):
        await set_state(dying, wanted)
    await dying.stop()
    assert (await account(store)).out_of_service == {b"anna": LifeState.SUSPENDED}
    assert (await named(store)).state == LifeState.ACTIVE
    await set_state(store, wanted)
    assert (await account(store)).out_of_service == ({b"anna": LifeState.SUSPENDED} if bars else {})
    assert (await named(store)).state == wanted


async def test_states_set_by_many_at_once(store: Store, other: Store) -> None:
    """Record and account agree in the end, whoever was last."""
    await add(store, b"anna", MSISDN)
    for _ in range(10):
        await asyncio.gather(
            set_state(store, LifeState.SUSPENDED),
            set_state(other, LifeState.ACTIVE),
            set_state(other, LifeState.SUSPENDED),
            set_state(store, LifeState.ACTIVE),
        )
        state = (await named(store)).state
        assert (await account(store)).out_of_service == ({b"anna": state} if state else {})


async def test_one_that_is_refused_is_not_barred(store: Store) -> None:
    """Neither somebody who bears the name already, nor whoever bears it next."""
    await add(store, b"anna", MSISDN)
    before = await account(store)
    for name, identity, reason in (
        (b"anna", IMSI, "subscriber anna exists already"),
        (b"ben", MSISDN, "E164 491700000001 belongs to subscriber anna already"),
        (b"ben", (0, b"+1"), "is malformed"),
    ):
        with pytest.raises(LedgerError, match=reason):
            await add(store, name, identity, state=int(LifeState.ORDERED))
    assert await account(store) == before


async def test_an_identity_taken_at_the_last_moment(store: Store, other: Store) -> None:
    results = await asyncio.gather(
        add(store, b"anna", MSISDN, state=int(LifeState.ORDERED)),
        add(other, b"ben", MSISDN, state=int(LifeState.ORDERED)),
        return_exceptions=True,
    )
    (winner,) = [result for result in results if isinstance(result, Subscriber)]
    assert (await account(store)).out_of_service == {winner.subscriber_id: LifeState.ORDERED}


async def test_members_belong_to_an_account(store: Store) -> None:
    names = {b"s%d" % number for number in range(1200)}
    await asyncio.gather(
        *(subscribers.add_subscriber(store, Subscriber(name, b"acc-1", "standard", ((3, name),))) for name in names)
    )
    found = [each.subscriber_id async for page in subscribers.members(store, b"acc-1") for each in page]
    assert set(found) == names
    assert [page async for page in subscribers.members(store, b"acc-2")] == []
