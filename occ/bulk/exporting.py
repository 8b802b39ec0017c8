"""An export: the accounts of a store with all that belongs to them, in the order of their names.

Each account is written as it was at one moment, not all at the same one. Sessions are not exported; what they have
reserved is still part of the balances. An import of an export into an empty store gives the same accounts, customer
units and subscribers.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from balance import directory, structure, subscribers
from balance.accounts import Account
from balance.bulk import subscribers_in_store
from balance.model import MAIN_BUCKET, Subscriber
from balance.records import pack_subscriber, unpack_subscriber
from balance.resp import StoreError
from balance.store import Store
from balance.structure import CustomerUnit
from balance.subscribers import own_account
from occ.bulk.contacts import Contacts, contacts_of
from occ.bulk.files import guarded
from occ.bulk.rows import COLUMNS, IDENTITY_COLUMNS, LIST_COLUMNS, Kind
from occ.bulk.spool import Place, Spool
from occ.bulk.totals import Totals
from occ.loyalty import is_loyalty
from occ.yamlmap import ConfigError, shown

A_PAGE: Final = 500

_NOWHERE: Final = Place(0, 0)

OnProgress = Callable[[int], None]


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


@dataclass(slots=True)
class Exported:
    """What an export came to."""

    totals: Totals = field(default_factory=Totals)
    files: list[Path] = field(default_factory=list)
    rows: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    sessions: int = 0
    """Open sessions, which are not exported."""
    orphans: int = 0
    """Subscribers whose account does not exist; JSON Lines has no place for them."""
    missing: list[str] = field(default_factory=list)
    """Accounts that were asked for and are not there."""


Row = dict[str, str]
"""What a row says, by columns; what it does not say is left out."""


async def export(store: Store, path: Path, form: Format, only: Iterable[str] | None, progress: OnProgress) -> Exported:
    """Write accounts into a folder of CSV files or a file of JSON Lines, which must not be there yet.

    ``only``: the names of the accounts to export; None: all. Raises ConfigError for files that are there, StoreError.
    """
    exported = Exported()
    with Spool() as spool, ExitStack() as opened:
        sheets = _Sheets(path, opened) if form is Format.CSV else _Lines(path, opened)
        if only is None:
            await _all(store, spool, sheets, exported, progress)
        else:
            await _some(store, only, sheets, exported, progress)
        opened.close()
        exported.files = sheets.finish()
    return exported


# -- what is exported --------------------------------------------------------------------------------------------------


async def _all(
    store: Store, spool: Spool, sheets: "_Sheets | _Lines", exported: Exported, progress: OnProgress
) -> None:
    async for page in directory.account_ids_in_store(store):
        for account_id in page:
            spool.first_seen("account", account_id, _NOWHERE)
    async for names in subscribers_in_store(store):
        values = await store.call("MGET", *(store.keys.subscriber(name) for name in names))
        found = [unpack_subscriber(value) for value in values if value is not None]
        new = [each for each in found if spool.first_seen("subscriber", each.subscriber_id, _NOWHERE) is None]
        spool.keep_details((own_account(each), _NOWHERE, pack_subscriber(each)) for each in new)
    spool.order_details()
    names_in_order = spool.keys("account")
    while account_ids := list(islice(names_in_order, A_PAGE)):
        pages = [
            (*each, [unpack_subscriber(packed) for _, packed in spool.details_of(each[0].account_id)])
            for each in await _read(store, account_ids)
        ]
        await _write(store, sheets, exported, pages)
        progress(exported.rows[Kind.ACCOUNTS])
    for _, _, packed in spool.details_without("account"):
        exported.orphans += 1
        orphan = unpack_subscriber(packed)
        sheets.orphan(orphan, await contacts_of(store, [], [orphan.subscriber_id]), exported)


async def _some(
    store: Store, only: Iterable[str], sheets: "_Sheets | _Lines", exported: Exported, progress: OnProgress
) -> None:
    names = iter(sorted({name.encode() for name in only}))
    while account_ids := list(islice(names, A_PAGE)):
        found = []
        known = {account.account_id: (account, unit) for account, unit in await _read(store, account_ids)}
        for account_id in account_ids:
            if account_id not in known:
                exported.missing.append(account_id.decode())
                continue
            members = {
                each.subscriber_id: each async for page in subscribers.members(store, account_id) for each in page
            }
            found.append((*known[account_id], list(members.values())))
        await _write(store, sheets, exported, found)
        progress(exported.rows[Kind.ACCOUNTS])


async def _read(store: Store, account_ids: list[bytes]) -> list[tuple[Account, CustomerUnit | None]]:
    accounts = await directory.read_accounts(store, account_ids)
    units = await store.call("MGET", *(store.keys.unit_of(each) for each in account_ids))
    found = []
    for account, unit_id in zip(accounts, units, strict=True):
        if account is not None:
            unit = None if unit_id is None else await structure.unit_named(store, unit_id)
            found.append((account, unit))
    return found


async def _write(
    store: Store,
    sheets: "_Sheets | _Lines",
    exported: Exported,
    found: list[tuple[Account, CustomerUnit | None, list[Subscriber]]],
) -> None:
    """Write accounts, each with its unit and its members."""
    of_accounts = [account.account_id for account, _, _ in found]
    of_members = [each.subscriber_id for _, _, members in found for each in members]
    contacts = await contacts_of(store, of_accounts, of_members)
    for account, unit, members in found:
        members.sort(key=lambda each: each.subscriber_id)
        exported.totals.add(account)
        exported.totals.subscribers += len(members)
        exported.sessions += len(account.sessions)
        rows = _rows(account, unit, members, contacts)
        for kind, each in rows.items():
            exported.rows[kind] += len(each)
        sheets.write(rows)


# -- rows --------------------------------------------------------------------------------------------------------------


def _rows(
    account: Account, unit: CustomerUnit | None, members: list[Subscriber], contacts: Contacts
) -> dict[Kind, list[Row]]:
    main = account.bucket(MAIN_BUCKET)
    if main is None:
        raise StoreError(f"account {account.account_id.decode()} has no main bucket; 'occ ledger verify' says more")
    return {
        Kind.ACCOUNTS: [
            _row(
                Kind.ACCOUNTS,
                account=account.account_id,
                kind=account.kind,
                currency=account.currency,
                balance=main.balance,
                credit_limit=account.credit_limit_micro,
                state=account.state,
                expires=account.expires_ms,
                **({"cycle_day": account.cycle_day} if account.cycle_day != 1 else {}),
                **contacts.accounts.get(account.account_id, {}),
            )
        ],
        Kind.BUCKETS: list(_buckets(account)),
        Kind.OFFERS: [
            _row(
                Kind.OFFERS,
                account=account.account_id,
                offer=offer.name,
                since=offer.since_ms,
                next=offer.next_ms,
                owner=offer.owner,
                unpaid=offer.unpaid_ms,
                **({"paid": offer.paid_micro} if offer.paid_micro else {}),
            )
            for offer in account.offers
            if not is_loyalty(offer)  # the subscriber's record says when it is due
        ],
        Kind.METERS: [
            _row(
                Kind.METERS,
                account=account.account_id,
                meter=meter.name,
                resets=meter.resets_ms,
                used=meter.units,
                spent=meter.micro,
            )
            for meter in account.meters
        ],
        Kind.UNITS: [] if unit is None else [_unit(unit)],
        Kind.SUBSCRIBERS: [_subscriber(each, contacts) for each in members],
    }


def _row(of: Kind, /, **said: Any) -> Row:
    """What a row says, by columns, without what is empty."""
    row: Row = {}
    for column in COLUMNS[of]:
        if column.name in said:
            written = column.write(said[column.name])
            if written:
                row[column.name] = written
    return row


def _buckets(account: Account) -> Iterator[Row]:
    money = next(column for column in COLUMNS[Kind.ACCOUNTS] if column.name == "balance")
    for bucket in account.buckets:
        if bucket.bucket_id == MAIN_BUCKET:
            continue
        yield _row(
            Kind.BUCKETS,
            account=account.account_id,
            name=bucket.name,
            unit=bucket.unit,
            amount=str(bucket.balance) if bucket.unit else money.write(bucket.balance),
            priority=bucket.priority,
            expires=bucket.expires_ms,
            owner=bucket.owner,
            number=bucket.bucket_id,
        )


def _unit(unit: CustomerUnit) -> Row:
    return _row(
        Kind.UNITS,
        unit=unit.unit_id,
        account=unit.account_id,
        kind=unit.kind,
        name=unit.name,
        parent=unit.parent,
        pays=unit.pays,
    )


def _subscriber(subscriber: Subscriber, contacts: Contacts) -> Row:
    identities = {
        column: tuple(value for each, value in subscriber.identities if each == kind)
        for column, kind in IDENTITY_COLUMNS.items()
    }
    return _row(
        Kind.SUBSCRIBERS,
        subscriber=subscriber.subscriber_id,
        account=own_account(subscriber),
        plan=subscriber.plan,
        **identities,
        state=subscriber.state,
        cap_day=subscriber.cap_day_micro,
        cap_month=subscriber.cap_month_micro,
        activated=subscriber.activated_ms,
        segment=subscriber.segment,
        friends=subscriber.friends,
        next_plan=subscriber.next_plan,
        **({"next_plan_from": subscriber.next_plan_ms} if subscriber.next_plan else {}),
        **contacts.subscribers.get(subscriber.subscriber_id, {}),
    )


# -- files -------------------------------------------------------------------------------------------------------------


class _Sheets:
    """A folder of CSV files, one for each kind of row; those without rows are left out, but for the accounts."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self._paths = {kind: folder / f"{kind}.csv" for kind in Kind}
        for path in self._paths.values():
            _must_be_new(path)
        if folder.exists() and not folder.is_dir():
            raise ConfigError(shown(folder), None, "is not a folder; CSV is written as one file for each kind of row")
        folder.mkdir(parents=True, exist_ok=True)
        self._used = {Kind.ACCOUNTS}
        self._writers: dict[Kind, Any] = {}
        for kind, path in self._paths.items():
            stream = opened.enter_context(_part(path).open("w", encoding="utf-8", newline=""))
            self._writers[kind] = csv.writer(stream, lineterminator="\n")
            self._writers[kind].writerow([column.name for column in COLUMNS[kind]])

    def write(self, rows: dict[Kind, list[Row]]) -> None:
        for kind, several in rows.items():
            if several:
                self._used.add(kind)
                columns = [column.name for column in COLUMNS[kind]]
                self._writers[kind].writerows([[guarded(row.get(name, "")) for name in columns] for row in several])

    def orphan(self, subscriber: Subscriber, contacts: Contacts, exported: Exported) -> None:
        exported.rows[Kind.SUBSCRIBERS] += 1
        exported.totals.subscribers += 1
        self.write({Kind.SUBSCRIBERS: [_subscriber(subscriber, contacts)]})

    def finish(self) -> list[Path]:
        """Give the files their names; to be called when they are closed."""
        for kind, path in self._paths.items():
            if kind in self._used:
                _part(path).replace(path)
            else:
                _part(path).unlink()
        return [path for kind, path in self._paths.items() if kind in self._used]


class _Lines:
    """A file of JSON Lines: an account with all that belongs to it in each."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._path = path / "accounts.jsonl" if path.is_dir() else path
        _must_be_new(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream: IO[str] = opened.enter_context(_part(self._path).open("w", encoding="utf-8"))

    def write(self, rows: dict[Kind, list[Row]]) -> None:
        document: dict[str, Any] = dict(rows[Kind.ACCOUNTS][0])
        for kind in (Kind.BUCKETS, Kind.OFFERS, Kind.METERS, Kind.SUBSCRIBERS):
            if rows[kind]:
                document[kind] = [_nested(row) for row in rows[kind]]
        for row in rows[Kind.UNITS]:
            document["unit"] = _nested(row)
        self._stream.write(f"{json.dumps(document, ensure_ascii=False)}\n")

    def orphan(self, subscriber: Subscriber, contacts: Contacts, exported: Exported) -> None:
        """There is no place for it."""

    def finish(self) -> list[Path]:
        _part(self._path).replace(self._path)
        return [self._path]


def _nested(row: Row) -> dict[str, Any]:
    return {
        name: written.split() if name in LIST_COLUMNS else written for name, written in row.items() if name != "account"
    }


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise ConfigError(shown(path), None, "is there already; name another place, or move it away")
