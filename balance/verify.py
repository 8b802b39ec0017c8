"""Checks a whole store: entries against balances, reservations against sessions, limits; safe on a live store.

How it stays free of false alarms while others write: a commit writes an account and its journal record in one
script, so at any instant an account stands exactly where its last record left it. The journal is read first, up to
where it ended at the start. Then the accounts are read a page at a time; an account that is newer than the journal
read so far waits until the journal has been read on to its version, and is compared at that point. What is read
later of an account compared before is still checked against its chain.

Records that were closed (``balance.closing``) count by their sums; none are closed meanwhile.

Memory: less than a kilobyte per account, whatever the length of the journal.
"""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from balance.accounts import Account
from balance.closing import closed_sums, closed_until, lease
from balance.directory import account_ids_in_store, read_values
from balance.journal import entries, last_entry_id, read_record
from balance.model import MAIN_BUCKET, Bucket, Unit
from balance.records import unpack_account
from balance.resp import StoreError
from balance.store import Store
from balance.sums import WIDTH, Sums

DISCREPANCIES_KEPT: Final = 1000


@dataclass(slots=True)
class Total:
    """Sums over all accounts of one currency, or over all allowances of one unit.

    Micro-units of money, or units; ``credited + given + adjusted + transferred - debited - lapsed`` is ``balances``
    when all is well.
    """

    unit: Unit
    currency: int | None
    """ISO 4217 numeric code; None for allowances."""
    credited: int = 0
    """First balances, further buckets, and top-ups."""
    given: int = 0
    """Allowances that offers and bonuses gave, less what was taken back as these ended. Money: always 0, it is part of
    ``debited``, as in the charging data records."""
    debited: int = 0
    """Charged, less what was refunded."""
    lapsed: int = 0
    """Expired allowances that were taken away."""
    adjusted: int = 0
    """What was put right by hand, net."""
    transferred: int = 0
    """What transfers brought, less what they took: below zero by what is on its way (``balance.transfers``)."""
    balances: int = 0
    reserved: int = 0


@dataclass(slots=True)
class Report:
    """What a check of the store found."""

    accounts: int = 0
    journal_records: int = 0
    open_sessions: int = 0
    open_reservations: int = 0
    """Services of open sessions that hold a reservation."""
    totals: list[Total] = field(default_factory=list)
    discrepancy_count: int = 0
    discrepancies: list[str] = field(default_factory=list)
    """The first ``DISCREPANCIES_KEPT`` of them, one sentence each."""

    @property
    def consistent(self) -> bool:
        return self.discrepancy_count == 0

    def add(self, sentence: str) -> None:
        self.discrepancy_count += 1
        if len(self.discrepancies) < DISCREPANCIES_KEPT:
            self.discrepancies.append(sentence)

    def total(self, unit: Unit, currency: int | None) -> Total:
        for total in self.totals:
            if total.unit == unit and total.currency == currency:
                return total
        self.totals.append(Total(unit, currency))
        return self.totals[-1]


async def verify(store: Store) -> Report:
    """Check the whole store. Raises StoreError if it cannot be read to the end."""
    async with AsyncExitStack() as leases:
        for lane in store.keys.lanes():
            await leases.enter_async_context(lease(store, lane))
        return await _Verification(store).run()


class _Verification:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.report = Report()
        self.known: dict[bytes, Sums] = {}
        self.waiting: dict[bytes, Account] = {}
        """Accounts read at a version that the journal has not been read to."""
        self.closed: dict[int, bytes] = {}
        """Up to where the journal of each lane is closed."""
        self.positions: dict[int, bytes] = {}

    async def run(self) -> Report:
        await self._read_closed()
        await self._read_journals()
        async for account_ids in account_ids_in_store(self.store):
            await self._compare_page([each for each in account_ids if not self._is_compared(each)])
        # Those that the journal knows and the scan has not met: created since, or gone.
        unmet = [account_id for account_id, entry in self.known.items() if not entry.compared]
        for at in range(0, len(unmet), 500):
            await self._compare_page(unmet[at : at + 500], must_exist=True)
        for lane, until in self.closed.items():
            if await closed_until(self.store, lane) != until:
                raise StoreError("part of the journal was closed while it was checked; check again")
        self.report.totals.sort(key=lambda total: (total.unit, total.currency or 0))
        return self.report

    def _is_compared(self, account_id: bytes) -> bool:
        entry = self.known.get(account_id)
        return entry is not None and entry.compared

    def _found(self, account_id: bytes, sentence: str) -> None:
        self.report.add(f"Account {_shown(account_id)}: {sentence}.")

    # -- the journal ---------------------------------------------------------------------------------------------

    async def _read_closed(self) -> None:
        """Begin with what closed records come to."""
        for lane in self.store.keys.lanes():
            self.closed[lane] = self.positions[lane] = await closed_until(self.store, lane)
            async for page in closed_sums(self.store, lane):
                self.known |= page

    async def _read_journals(self) -> None:
        """Read on from where the last reading stopped to where the journals end now."""
        for lane in self.positions:
            until = await last_entry_id(self.store, lane)
            async for page in entries(self.store, lane, self.positions[lane], until):
                for entry_id, records in page:
                    for packed in records:
                        self._record(entry_id, packed)
                self.positions[lane] = page[-1][0]

    def _record(self, entry_id: bytes, packed: bytes) -> None:
        self.report.journal_records += 1
        try:
            record = read_record(entry_id, packed)
        except StoreError as error:
            sentence = str(error)
            self.report.add(f"{sentence[0].upper()}{sentence[1:]}.")
            return
        entry = self.known.get(record.account_id)
        if entry is None:
            entry = self.known[record.account_id] = Sums()
        if record.version <= entry.version:
            self._found(
                record.account_id,
                f"version {record.version} has more than one journal record, or they are out of order "
                f"(entry {entry_id.decode()})",
            )
            return
        if record.version > entry.version + 1:
            self._found(record.account_id, _missing(entry.version + 1, record.version - 1))
        else:
            for sentence in entry.broken_links(record):
                self._found(record.account_id, sentence)
        entry.add(record)
        account = self.waiting.get(record.account_id)
        if account is not None and entry.version >= account.version:
            del self.waiting[record.account_id]
            if entry.version == account.version:
                self._compare(account, entry)

    # -- accounts ------------------------------------------------------------------------------------------------

    async def _compare_page(self, account_ids: list[bytes], must_exist: bool = False) -> None:
        values = await read_values(self.store, account_ids)
        for account_id, value in zip(account_ids, values, strict=True):
            if value is not None:
                self._meet(account_id, value)
            elif must_exist:
                entry = self.known[account_id]
                entry.compared = True
                self._found(account_id, f"the journal has it up to version {entry.version}, but it is not in the store")
        if self.waiting:
            await self._read_journals()
        for account_id, account in self.waiting.items():
            entry = self.known.setdefault(account_id, Sums())
            self._found(account_id, _missing(entry.version + 1, account.version))
            self._compare(account, entry)
        self.waiting.clear()

    def _meet(self, account_id: bytes, value: bytes) -> None:
        """Compare an account with its entries, or let it wait for them."""
        try:
            account = unpack_account(account_id, value)
            for bucket in account.buckets:
                Unit(bucket.unit)
        except ValueError as error:
            self.known.setdefault(account_id, Sums()).compared = True
            self._found(account_id, f"its value cannot be read ({error})")
            return
        entry = self.known.get(account_id)
        if entry is None or entry.version < account.version:
            self.waiting[account_id] = account
            return
        if entry.version > account.version:
            self._found(
                account_id,
                f"it is at version {account.version}, but the journal goes on to version {entry.version}",
            )
        self._compare(account, entry)

    def _compare(self, account: Account, entry: Sums) -> None:
        """Everything that must hold of one account at one version."""
        if entry.compared:
            return
        entry.compared = True
        report = self.report
        report.accounts += 1
        report.open_sessions += len(account.sessions)
        for sentence in (
            *self._against_entries(account, entry),
            *_against_sessions(account),
            *_against_limits(account),
        ):
            self._found(account.account_id, sentence)
        for session in account.sessions.values():
            report.open_reservations += sum(1 for use in session.services if use.parts)

    def _against_entries(self, account: Account, entry: Sums) -> Iterable[str]:
        for bucket in account.buckets:
            unit = Unit(bucket.unit)
            total = self.report.total(unit, account.currency if unit == Unit.MONEY else None)
            total.balances += bucket.balance
            total.reserved += bucket.reserved
            at = entry.at(bucket.bucket_id)
            if at < 0:
                yield f"bucket {bucket.bucket_id} has no journal record"
                continue
            sums = entry.buckets[at : at + WIDTH]
            _, balance, reserved, credited, given, debited, lapsed, adjusted, transferred = sums
            if unit == Unit.MONEY:
                given, debited = 0, debited - given
            total.credited += credited
            total.given += given
            total.debited += debited
            total.lapsed += lapsed
            total.adjusted += adjusted
            total.transferred += transferred
            if bucket.balance != balance:
                yield f"{_holds(bucket)}, but its last journal record left {balance}"
            if bucket.reserved != reserved:
                yield f"{_has_reserved(bucket)}, but its last journal record left {reserved}"
            entered = credited + given + adjusted + transferred - debited - lapsed
            if entered != bucket.balance:
                yield f"{_holds(bucket)}, but its journal records sum to {entered}"
        for bucket_id in entry.bucket_ids():
            if account.bucket(bucket_id) is None:
                yield f"the journal names bucket {bucket_id}, which it does not have"


def _against_sessions(account: Account) -> Iterable[str]:
    """Reservations: each bucket's is the sum of the parts that open sessions hold."""
    held: dict[int, int] = {}
    for session in account.sessions.values():
        for use in session.services:
            for bucket_id, amount in use.parts:
                held[bucket_id] = held.get(bucket_id, 0) + amount
                if account.bucket(bucket_id) is None:
                    yield (
                        f"session {_shown(session.session_id)} holds a reservation on bucket {bucket_id}, which the "
                        "account does not have"
                    )
                if amount <= 0:
                    yield f"session {_shown(session.session_id)} holds a reservation of {amount}"
    for bucket in account.buckets:
        promised = held.get(bucket.bucket_id, 0)
        if promised != bucket.reserved:
            yield f"{_has_reserved(bucket)}, but its open sessions hold {promised}"


def _against_limits(account: Account) -> Iterable[str]:
    """No bucket below zero, the main one never below minus the credit limit; no promise without cover."""
    if len({bucket.bucket_id for bucket in account.buckets}) != len(account.buckets):
        yield "two of its buckets have the same number"
    main = account.bucket(MAIN_BUCKET)
    if main is None or main.unit != Unit.MONEY:
        yield f"it has no money bucket {MAIN_BUCKET}"
    for bucket in account.buckets:
        credit = account.credit_limit_micro if bucket.bucket_id == MAIN_BUCKET else 0
        if bucket.balance < -credit:
            limit = f"its credit limit of {credit} allows" if credit else "zero"
            yield f"{_holds(bucket)}, less than {limit}"
        elif bucket.reserved > bucket.balance + credit:
            yield f"{_has_reserved(bucket)}, more than the {bucket.balance + credit} it can give"
        if bucket.reserved < 0:
            yield f"{_has_reserved(bucket)}, which is less than nothing"


def _holds(bucket: Bucket) -> str:
    return f"bucket {bucket.bucket_id} holds {bucket.balance} {_unit_name(bucket)}"


def _has_reserved(bucket: Bucket) -> str:
    return f"bucket {bucket.bucket_id} has {bucket.reserved} {_unit_name(bucket)} reserved"


def _unit_name(bucket: Bucket) -> str:
    return "micro-units" if bucket.unit == Unit.MONEY else Unit(bucket.unit).name.lower()


def _missing(first: int, last: int) -> str:
    if first == last:
        return f"version {first} is missing in the journal"
    return f"versions {first} to {last} are missing in the journal"


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
