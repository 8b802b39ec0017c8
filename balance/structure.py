"""Customers and their units: households, companies with branches, to any depth, and which account pays for whom.

Every unit has an account. Subscribers belong to an account; if it is a unit's, the payer is found by going up the tree
as long as a unit says that its parent pays. That is done when something changes, not at requests: a subscriber's record
names the account that pays (``account_id``) and, where it is another, the one that it belongs to (``member_of``).

A change of the structure is written first, in one step, and then each subscriber below is given its payer. Cut off in
between, each of them has either the old or the new payer, and the same call repeated gives the new one to the rest. Two
that change the structure at once each look again when the other was there meanwhile, so the last to finish leaves all
subscribers as the structure says.

Sessions go on with the account they were opened on. A worker hears of a change within milliseconds
(``balance.directory_watch``), at worst it uses what it knows of a subscriber for some seconds more
(``StoreSettings.directory_cache_ms``), so the old payer may see a session begin shortly after a change.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final

import msgpack

from balance import directory
from balance.accounts import Account
from balance.model import LedgerError, LifeState, Subscriber
from balance.records import unpack_subscriber
from balance.resp import StoreError
from balance.store import Store
from balance.subscribers import (
    CHANGE_ATTEMPTS,
    add_subscriber,
    agree_on_state,
    check_name,
    check_reason,
    check_subscriber,
    members,
    note,
    own_account,
    read_known,
    subscriber_named,
    taken,
    tell_account,
    too_many_changes,
    write_subscriber,
)

AT_ONCE: Final = 100
"""Units, or subscribers, that are seen to at a time."""
EARLIER_PAYER_S: Final = 32 * 86_400
"""How long it is known that an account paid for a subscriber: longer than sessions last."""
LONGEST_NAME: Final = 200

_SCRIPT: Final = (Path(__file__).parent / "scripts" / "unit.lua").read_text(encoding="utf-8")


class UnitKind(IntEnum):
    """What a unit is; it says nothing about who pays."""

    INDIVIDUAL = 0
    HOUSEHOLD = 1
    COMPANY = 2
    BRANCH = 3


class Pays(IntEnum):
    """Who pays for the subscribers of a unit."""

    ITSELF = 0
    PARENT = 1
    """Its parent, or whoever pays for that."""


@dataclass(slots=True, frozen=True)
class CustomerUnit:
    """A customer, or a part of one."""

    unit_id: bytes
    kind: int
    """A UnitKind."""
    name: str
    """For people."""
    parent: bytes
    """Empty: none."""
    pays: int
    """A Pays."""
    account_id: bytes
    """Its own account, which no other unit has."""


@dataclass(slots=True, frozen=True)
class Reorganised:
    """What a change of the structure came to."""

    unit: CustomerUnit
    payer: bytes
    """The account that pays for it."""
    moved: int
    """Subscribers that another account pays for than before."""
    created: bool = False


@dataclass(slots=True, frozen=True)
class Branch:
    """A unit in its place in the tree."""

    depth: int
    unit: CustomerUnit
    payer: bytes
    subscribers: int
    """How many belong to it, not counting those of the units below."""


# -- reading -----------------------------------------------------------------------------------------------------------


async def unit_named(store: Store, unit_id: bytes) -> CustomerUnit | None:
    """Raises StoreError."""
    value = await store.call("GET", store.keys.unit(unit_id))
    return None if value is None else _unpack(value)


async def unit_of_account(store: Store, account_id: bytes) -> CustomerUnit | None:
    """The unit that an account is of. Raises StoreError."""
    unit_id = await store.call("GET", store.keys.unit_of(account_id))
    return None if unit_id is None else await unit_named(store, unit_id)


async def children(store: Store, unit_id: bytes) -> list[CustomerUnit]:
    """The units directly below one, in the order of their names; for no name those at the top. Raises StoreError."""
    names = sorted(await store.call("SMEMBERS", store.keys.units(unit_id)))
    if not names:
        return []
    values = await store.call("MGET", *(store.keys.unit(name) for name in names))
    return [_unpack(value) for value in values if value is not None]


async def payer_of(store: Store, account_id: bytes) -> bytes:
    """The account that pays for the subscribers that belong to one: that one, if it is no unit's. Raises StoreError."""
    unit = await unit_of_account(store, account_id)
    return account_id if unit is None else await _payer_of_unit(store, unit)


async def _payer_of_unit(store: Store, unit: CustomerUnit) -> bytes:
    passed = {unit.unit_id}
    while unit.pays == Pays.PARENT:
        above = await unit_named(store, unit.parent)
        if above is None or above.unit_id in passed:
            raise StoreError(f"the structure of customers is damaged at unit {unit.unit_id!r}: it has no parent")
        passed.add(above.unit_id)
        unit = above
    return unit.account_id


async def tree(store: Store, unit_id: bytes = b"") -> AsyncIterator[Branch]:
    """A unit and all below it, each before those below it; all customers for an empty name.

    Raises LedgerError if there is no such unit, StoreError.
    """
    if unit_id:
        top = await existing_unit(store, unit_id)
        waiting = [(0, top, await _payer_of_unit(store, top))]
    else:
        waiting = [(0, unit, unit.account_id) for unit in reversed(await children(store, b""))]
    while waiting:
        depth, unit, payer = waiting.pop()
        count = await store.call("SCARD", store.keys.members(unit.account_id))
        yield Branch(depth, unit, payer, int(count))
        for child in reversed(await children(store, unit.unit_id)):
            waiting.append((depth + 1, child, payer if child.pays == Pays.PARENT else child.account_id))


async def existing_unit(store: Store, unit_id: bytes) -> CustomerUnit:
    """Raises LedgerError if there is no such unit, StoreError."""
    unit = await unit_named(store, unit_id)
    if unit is None:
        raise LedgerError(f"there is no customer or unit {unit_id.decode('utf-8', 'replace')}")
    return unit


async def paid_subscribers(store: Store, account_id: bytes) -> AsyncIterator[list[Subscriber]]:
    """The subscribers that an account pays for, a page at a time, in no order, one perhaps twice. Raises StoreError."""
    unit = await unit_of_account(store, account_id)
    accounts = _one_page([account_id]) if unit is None else _paid_accounts(store, unit)
    async for page in accounts:
        for each in page:
            async for subscribers in members(store, each):
                if paid := [subscriber for subscriber in subscribers if subscriber.account_id == account_id]:
                    yield paid


async def _one_page(page: list[bytes]) -> AsyncIterator[list[bytes]]:
    yield page


async def _paid_accounts(store: Store, unit: CustomerUnit) -> AsyncIterator[list[bytes]]:
    """The accounts of a unit and of those below for which the same account pays."""
    waiting = [unit]
    while waiting:
        page, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        yield [each.account_id for each in page]
        for below in await asyncio.gather(*(children(store, each.unit_id) for each in page)):
            waiting += [each for each in below if each.pays == Pays.PARENT]


# -- changing the structure --------------------------------------------------------------------------------------------


async def create_unit(store: Store, unit: CustomerUnit, now_ms: int, reason: str) -> Reorganised:
    """Enter a unit; one that is there already, exactly so, is left as it is.

    Raises LedgerError if its account or its parent does not exist, the account is another unit's, the payer's currency
    is another, or a unit of the name exists that differs; StoreError.
    """
    check_reason(reason)
    check_unit(unit)
    payer = await _check_payer(store, unit)
    created = True
    if not await _write(store, b"", None, unit):
        if await unit_named(store, unit.unit_id) != unit:
            raise LedgerError(f"customer or unit {unit.unit_id.decode()} exists already; nothing was changed")
        created = False
    return await _finish(store, unit, payer, now_ms, reason, created)


async def change_unit(
    store: Store, unit_id: bytes, change: Callable[[CustomerUnit], CustomerUnit], now_ms: int, reason: str
) -> Reorganised:
    """Move a unit below another, change who pays, rename it; its account stays.

    ``change`` may be called again if somebody else was faster. Raises LedgerError if there is no such unit, or it
    cannot be so: a unit cannot stand below itself; StoreError.
    """
    check_reason(reason)
    for _ in range(CHANGE_ATTEMPTS):
        value = await store.call("GET", store.keys.unit(unit_id))
        if value is None:
            raise LedgerError(f"there is no customer or unit {unit_id.decode('utf-8', 'replace')}")
        before = _unpack(value)
        after = change(before)
        check_unit(after)
        payer = await _check_payer(store, after)
        if after == before or await _write(store, value, before, after):
            return await _finish(store, after, payer, now_ms, reason, created=False)
    raise LedgerError(f"unit {unit_id.decode()} is changed by others all the time; try again")


async def _finish(
    store: Store, unit: CustomerUnit, payer: bytes, now_ms: int, reason: str, created: bool
) -> Reorganised:
    """See to the subscribers below a unit that has been written, then note it in the accounts concerned."""
    moved, formerly = await settle_payers(store, unit.unit_id, now_ms, reason)
    payer = await payer_of(store, unit.account_id)
    what = f"{UnitKind(unit.kind).name.lower()}, {'parent' if unit.pays == Pays.PARENT else 'itself'} pays"
    if unit.parent:
        what += f", below {unit.parent.decode()}"
    for account_id in dict.fromkeys((unit.account_id, payer, *sorted(formerly))):
        await note(store, account_id, "unit", (reason, unit.unit_id, what, f"{moved} subscribers"), now_ms)
    return Reorganised(unit, payer, moved, created)


async def _check_payer(store: Store, unit: CustomerUnit) -> bytes:
    """The account that would pay for a unit. Raises LedgerError if that cannot be."""
    own = await directory.read_account(store, unit.account_id)
    if own is None:
        raise LedgerError(f"there is no account {unit.account_id.decode()} for unit {unit.unit_id.decode()}")
    if not unit.parent:
        return unit.account_id
    above = await unit_named(store, unit.parent)
    if above is None:
        raise LedgerError(f"there is no customer or unit {unit.parent.decode()} to stand below")
    if unit.pays == Pays.ITSELF:
        return unit.account_id
    payer_id = await _payer_of_unit(store, above)
    payer = await directory.read_account(store, payer_id)
    if payer is None:
        raise LedgerError(f"account {payer_id.decode()}, which is to pay, does not exist")
    if payer.currency != own.currency:
        raise LedgerError(
            f"account {payer_id.decode()}, which is to pay, is in another currency than {unit.account_id.decode()}"
        )
    return payer_id


async def _write(store: Store, expected: bytes, before: CustomerUnit | None, after: CustomerUnit) -> bool:
    """False if somebody else was faster. Raises LedgerError if something is in the way, StoreError."""
    parent_before = after.parent if before is None else before.parent
    keys = [
        store.keys.unit(after.unit_id),
        store.keys.unit_of(after.account_id),
        store.keys.units(after.parent),
        store.keys.units(parent_before),
        store.keys.unit_changes,
    ]
    result = await store.run_script(_SCRIPT, keys, expected, _pack(after), after.unit_id, after.parent)
    if not result:
        return True
    what, *who = (bytes(each) for each in result)
    if what == b"changed":
        return False
    name = after.unit_id.decode()
    if what == b"account":
        raise LedgerError(f"account {after.account_id.decode()} is that of unit {who[0].decode()} already")
    if what == b"parent":
        raise LedgerError(f"there is no customer or unit {who[0].decode()} to stand below")
    raise LedgerError(f"unit {after.parent.decode()} is {name} or stands below it; {name} cannot be moved there")


# -- who pays ----------------------------------------------------------------------------------------------------------


async def settle_payers(store: Store, unit_id: bytes, now_ms: int, reason: str) -> tuple[int, set[bytes]]:
    """Give all subscribers of a unit, and of those below that it pays for, the payer that the structure says.

    How many had another, and the accounts that paid for these. Raises LedgerError, StoreError.
    """
    moved, formerly = 0, set[bytes]()
    for _ in range(CHANGE_ATTEMPTS):
        changes = await store.call("GET", store.keys.unit_changes)
        unit = await existing_unit(store, unit_id)
        payer = await _payer_of_unit(store, unit)
        async for page in _paid_accounts(store, unit):
            account = await directory.read_account(store, payer)
            results = await asyncio.gather(
                *(_settle_account(store, own, payer, account, now_ms, reason) for own in page)
            )
            for before in results:
                moved += len(before)
                formerly.update(before)
        if await store.call("GET", store.keys.unit_changes) == changes:
            return moved, formerly - {payer}
    raise LedgerError(f"the units around {unit_id.decode()} are changed by others all the time; try again")


async def _settle_account(
    store: Store, own: bytes, payer: bytes, account: Account | None, now_ms: int, reason: str
) -> list[bytes]:
    """Who paid before for each of those that belong to an account and were moved. ``account`` as for ``_move``."""
    formerly = []
    async for subscribers in members(store, own):
        astray = [each for each in subscribers if not _is_settled(each, own, payer)]
        for at in range(0, len(astray), AT_ONCE):
            page = astray[at : at + AT_ONCE]
            results = await asyncio.gather(
                *(_move(store, each.subscriber_id, own, own, payer, account, now_ms, reason) for each in page)
            )
            formerly += [each.account_id for each, moved in zip(page, results, strict=True) if moved]
    return formerly


def _is_settled(subscriber: Subscriber, own: bytes, payer: bytes) -> bool:
    return own_account(subscriber) != own or subscriber == _paid_by(subscriber, own, payer)


def _paid_by(subscriber: Subscriber, own: bytes, payer: bytes) -> Subscriber:
    return replace(subscriber, account_id=payer, member_of=b"" if own == payer else own)


async def _move(
    store: Store,
    subscriber_id: bytes,
    old_own: bytes | None,
    own: bytes,
    payer: bytes,
    account: Account | None,
    now_ms: int,
    reason: str,
) -> bool:
    """Write who pays for a subscriber and which account it belongs to; False if it is so already.

    ``old_own``: the account it must belong to, if not it is left alone; None: any. ``account``: the payer's, if it was
    read before. The new payer is told its state first: it must not let it in before it knows.
    """
    for _ in range(CHANGE_ATTEMPTS):
        known = await read_known(store, subscriber_id)
        before = known[1]
        after = _paid_by(before, own, payer)
        if after == before or old_own not in (None, own_account(before)):
            return False
        if before.account_id != payer:
            earlier = store.keys.earlier(subscriber_id)
            await store.call("SADD", earlier, before.account_id)
            await store.call("EXPIRE", earlier, EARLIER_PAYER_S)
        if account is None or account.out_of_service.get(subscriber_id, LifeState.ACTIVE) != before.state:
            await tell_account(store, payer, before, now_ms, reason)
        if await write_subscriber(store, known, after):
            return True
        account = None
    raise too_many_changes(subscriber_id)


# -- members -----------------------------------------------------------------------------------------------------------


async def add_member(store: Store, subscriber: Subscriber, now_ms: int, reason: str) -> Subscriber | None:
    """Enter a subscriber that belongs to its ``account_id``, to be paid for by whom the structure says.

    The subscriber as it was entered; None if it is there already, exactly so. Raises LedgerError as
    ``balance.subscribers.add_subscriber`` does, StoreError.
    """
    check_reason(reason)
    check_subscriber(subscriber)
    own, name = own_account(subscriber), subscriber.subscriber_id
    new = _paid_by(subscriber, own, await payer_of(store, own))
    if new.state != LifeState.ACTIVE:
        # What bars it is known before there is anybody to be barred.
        await _check_new(store, new)
        await tell_account(store, new.account_id, new, now_ms, reason)
    try:
        added = await add_subscriber(store, new)
    except LedgerError:
        if new.state != LifeState.ACTIVE:
            await _take_back(store, new, now_ms, reason)
        raise
    # The structure may have changed meanwhile, unaware of somebody who was not there yet.
    await _settle_member(store, name, own, own, now_ms, reason)
    entered = await agree_on_state(store, name, now_ms, reason)
    if not added:
        return None
    await note(store, entered.account_id, "subscriber-add", (reason, name, f"plan {entered.plan}"), now_ms)
    return entered


async def _check_new(store: Store, new: Subscriber) -> None:
    """Raises LedgerError for a subscriber that cannot be entered."""
    keys = [store.keys.subscriber(new.subscriber_id), *(store.keys.identity(*identity) for identity in new.identities)]
    values = await store.call("MGET", *keys)
    holders = [None if value is None else unpack_subscriber(value) for value in values]
    if holders[0] not in (None, new):
        raise LedgerError(f"subscriber {new.subscriber_id.decode()} exists already; nothing was changed")
    for identity, holder in zip(new.identities, holders[1:], strict=True):
        if holder not in (None, new):
            raise taken(identity, holder)


async def _take_back(store: Store, new: Subscriber, now_ms: int, reason: str) -> None:
    """Have the account forget the state of somebody who was not entered after all."""
    if await subscriber_named(store, new.subscriber_id) is not None:
        await agree_on_state(store, new.subscriber_id, now_ms, reason)
    else:
        await tell_account(store, new.account_id, replace(new, state=int(LifeState.ACTIVE)), now_ms, reason)


async def move_member(store: Store, subscriber_id: bytes, account_id: bytes, now_ms: int, reason: str) -> Subscriber:
    """Have a subscriber belong to another account, to be paid for by whom the structure says for that one.

    Raises LedgerError if there is no such subscriber or account, or the payer's currency is another; StoreError.
    """
    check_reason(reason)
    _, before = await read_known(store, subscriber_id)
    old, new = await directory.read_accounts(store, [before.account_id, await payer_of(store, account_id)])
    if new is None or await directory.read_account(store, account_id) is None:
        raise LedgerError(f"there is no account {account_id.decode('utf-8', 'replace')}")
    if old is not None and old.currency != new.currency:
        raise LedgerError(
            f"account {new.account_id.decode()} is in another currency than {before.account_id.decode()}, so the plan "
            f"of {subscriber_id.decode()} cannot be charged to it"
        )
    await _settle_member(store, subscriber_id, None, account_id, now_ms, reason)
    moved = await agree_on_state(store, subscriber_id, now_ms, reason)
    what = f"belongs to {account_id.decode()}, {moved.account_id.decode()} pays"
    for each in dict.fromkeys((moved.account_id, before.account_id)):
        await note(store, each, "subscriber-move", (reason, subscriber_id, what), now_ms)
    return moved


async def _settle_member(
    store: Store, subscriber_id: bytes, old_own: bytes | None, own: bytes, now_ms: int, reason: str
) -> None:
    """Give one subscriber its payer, also if the structure changes meanwhile. ``old_own`` as for ``_move``."""
    for _ in range(CHANGE_ATTEMPTS):
        payer = await payer_of(store, own)
        await _move(store, subscriber_id, old_own, own, payer, None, now_ms, reason)
        if await payer_of(store, own) == payer:
            return
        old_own = own
    raise too_many_changes(subscriber_id)


# -- what can be -------------------------------------------------------------------------------------------------------


def check_unit(unit: CustomerUnit) -> None:
    """Raises LedgerError, one sentence, for a unit that cannot be."""
    check_name("unit", unit.unit_id)
    check_name("account", unit.account_id)
    UnitKind(unit.kind)
    if unit.parent:
        check_name("unit", unit.parent)
    elif unit.pays != Pays.ITSELF:
        raise LedgerError(f"{unit.unit_id.decode()} stands at the top, so it has no parent that could pay")
    if len(unit.name) > LONGEST_NAME or not unit.name.isprintable():
        raise LedgerError(f"a name can be {LONGEST_NAME} printable characters long at most")


def _pack(unit: CustomerUnit) -> bytes:
    """As the script reads it: the parent in the fourth place, all text in the types that Redis's msgpack knows."""
    fields = (unit.unit_id, unit.kind, unit.name.encode(), unit.parent, unit.pays, unit.account_id)
    packed: bytes = msgpack.packb(fields, use_bin_type=False)
    return packed


def _unpack(value: bytes) -> CustomerUnit:
    try:
        unit_id, kind, name, parent, pays, account_id = msgpack.unpackb(value, raw=True)
        return CustomerUnit(unit_id, kind, name.decode(), parent, pays, account_id)
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise StoreError(f"a unit of the structure of customers is damaged: {error}") from error
