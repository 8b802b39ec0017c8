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
    wanted = [said for item in items if (said := _said(item)) is not None]
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


async def contacts_of(store: Store, keys: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
    """What is stored under keys of contacts, by columns; without those that have nothing. Raises StoreError."""
    stored = await store.call("MGET", *keys) if keys else []
    return {
        key: as_fields(unpack_contact(packed)) for key, packed in zip(keys, stored, strict=True) if packed is not None
    }


def _said(item: Item) -> _Said | None:
    """What a row says that was taken, or is there already; None: nothing of contacts."""
    row = item.row
    if item.verdict not in (Verdict.ACCEPTED, Verdict.UNCHANGED):
        return None
    if not isinstance(row, AccountRow | SubscriberRow) or not row.contact:
        return None
    key = Keys.contact_of(row.account) if isinstance(row, AccountRow) else Keys.contact(row.subscriber)
    return _Said(item, key, dict(row.contact))


def _saying(said: Mapping[str, str]) -> Callable[[Contact], Contact]:
    return lambda before: from_fields({**as_fields(before), **said})
