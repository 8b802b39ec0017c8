"""How customers are reached, in bulk files: columns of accounts and subscribers, kept apart from the accounts' records.

A row's contact is what it says, column by column; what it leaves out stays as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from balance.contacts import Contact, as_fields, change_contact, from_fields, unpack_contact
from balance.keys import Keys
from balance.store import Store
from occ.bulk.reconcile import Item, OnExisting, Rules, Verdict
from occ.bulk.rows import AccountRow, SubscriberRow


class _Said(NamedTuple):
    item: Item
    key: bytes
    said: Mapping[str, str]


async def settle_contacts(store: Store, items: Sequence[Item], rules: Rules, *, dry_run: bool) -> None:
    """Do what rows say of contacts, and judge those whose subscriber or account is there already. Raises StoreError."""
    wanted = [said for item in items if (said := _said(item, store.keys)) is not None]
    if not wanted:
        return
    stored = await store.call("MGET", *(each.key for each in wanted))
    for each, packed in zip(wanted, stored, strict=True):
        here = as_fields(Contact() if packed is None else unpack_contact(packed))
        differences = [name for name, said in each.said.items() if said != here[name]]
        if not differences:
            continue
        is_new = each.item.verdict is Verdict.ACCEPTED
        # What was cut off after the subscriber was written, and before its contact was.
        is_left_over = rules.repeated and packed is None
        if not is_new and rules.on_existing is OnExisting.SKIP:
            continue
        if not (is_new or is_left_over) and rules.on_existing is OnExisting.COMPARE:
            told = [
                f"{name} is {here[name] or 'nothing'} in the store and {each.said[name]} in the row"
                for name in differences
            ]
            each.item.judge(Verdict.REJECTED, ", ".join(told))
            continue
        if not dry_run:
            await change_contact(store, each.key, _saying(each.said))
        if not is_new and rules.on_existing is OnExisting.UPDATE:
            each.item.judge(Verdict.ACCEPTED)


class Contacts(NamedTuple):
    """What is stored, by columns; without those of whom nothing is."""

    accounts: dict[bytes, dict[str, str]]
    subscribers: dict[bytes, dict[str, str]]


async def contacts_of(store: Store, accounts: Sequence[bytes], subscribers: Sequence[bytes]) -> Contacts:
    """The contacts of accounts and of subscribers. Raises StoreError."""
    of_accounts = await _stored(store, accounts, [store.keys.contact_of(each) for each in accounts])
    of_subscribers = await _stored(store, subscribers, [store.keys.contact(each) for each in subscribers])
    return Contacts(of_accounts, of_subscribers)


async def _stored(store: Store, names: Sequence[bytes], keys: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
    stored = await store.call("MGET", *keys) if keys else []
    return {
        name: as_fields(unpack_contact(packed))
        for name, packed in zip(names, stored, strict=True)
        if packed is not None
    }


def _said(item: Item, keys: Keys) -> _Said | None:
    """What a row says that was taken, or is there already; None: nothing of contacts."""
    row = item.row
    if item.verdict not in (Verdict.ACCEPTED, Verdict.UNCHANGED):
        return None
    if not isinstance(row, AccountRow | SubscriberRow) or not row.contact:
        return None
    key = keys.contact_of(row.account) if isinstance(row, AccountRow) else keys.contact(row.subscriber)
    return _Said(item, key, dict(row.contact))


def _saying(said: Mapping[str, str]) -> Callable[[Contact], Contact]:
    return lambda before: from_fields({**as_fields(before), **said})
