"""An import, from files to the report.

Accounts come first, each with all that is part of it in one plan, then customer units from the top down, then
subscribers. Everything that was done is found to be there when the same import is repeated, so one that was cut off,
however and wherever, is taken up by the same command.

A few batches are under way at a time: while Redis writes one to disk, the next is read and checked.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from balance import bulk, directory
from balance.accounts import Account, Session
from balance.bulk import Trace
from balance.ledger import Draft
from balance.model import AccountKind, LifeState, Unit
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store
from occ.bulk.contacts import settle_contacts
from occ.bulk.files import Source, read_csv, read_lines
from occ.bulk.members import Members
from occ.bulk.reading import RowReader
from occ.bulk.reconcile import Item, Rules, Verdict, Work, reconcile
from occ.bulk.rejects import write_rejects
from occ.bulk.rows import (
    DETAILS,
    AccountRow,
    AnyRow,
    BucketRow,
    Kind,
    OfferRow,
    RowError,
    SubscriberRow,
    UnitRow,
    pack_row,
    unpack_row,
)
from occ.bulk.spool import Place, Spool
from occ.bulk.totals import Line, Pot, Totals, compare, count, pot_of

T = TypeVar("T")

A_BATCH: Final = 500
BATCHES_AT_ONCE: Final = 4
LOOKED_UP_AT_ONCE: Final = 20_000
"""Accounts that wait for a look at the journal, which is read from the beginning of the import for all of them."""
FEES_LATE_MS: Final = 40 * 86_400_000

_KINDS: Final[dict[type[Any], Kind]] = {
    AccountRow: Kind.ACCOUNTS,
    BucketRow: Kind.BUCKETS,
    OfferRow: Kind.OFFERS,
    UnitRow: Kind.UNITS,
    SubscriberRow: Kind.SUBSCRIBERS,
}

OnProgress = Callable[[str, int], None]
"""Told what is being done, and how many rows have been."""


@dataclass(slots=True)
class Report:
    """What an import came to."""

    reference: str
    dry_run: bool
    rows: Counter[tuple[Kind, Verdict]] = field(default_factory=Counter)
    sums: Counter[tuple[Pot, Verdict]] = field(default_factory=Counter)
    """What main balances and buckets of the rows amount to, as far as they can be read."""
    before: Totals = field(default_factory=Totals)
    accepted: Totals = field(default_factory=Totals)
    after: Totals = field(default_factory=Totals)
    others: int = 0
    """Changes that others made to the store meanwhile."""
    disagreements: list[str] = field(default_factory=list)
    """What shows that the store is not what the rows make of it, one sentence each."""
    remarks: Counter[str] = field(default_factory=Counter)
    """What may not be meant as the rows say it, and in how many rows."""
    rejects: list[Path] = field(default_factory=list)
    """Files of rejected rows that were written."""
    seconds: float = 0.0

    def of(self, verdict: Verdict) -> int:
        return sum(number for (_, each), number in self.rows.items() if each is verdict)

    def lines(self) -> list[Line]:
        return list(compare(self.before, self.accepted, self.after))


class _Pipeline(Generic[T]):
    """Hands out what is put in, a batch at a time, so many batches at once."""

    def __init__(self, work: Callable[[list[T]], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._batch: list[T] = []
        self._under_way: deque[asyncio.Task[None]] = deque()

    async def put(self, item: T) -> None:
        self._batch.append(item)
        if len(self._batch) >= A_BATCH:
            await self._send()

    async def _send(self) -> None:
        batch, self._batch = self._batch, []
        if len(self._under_way) >= BATCHES_AT_ONCE:
            await self._under_way.popleft()
        self._under_way.append(asyncio.create_task(self._work(batch)))
        await asyncio.sleep(0)

    async def finish(self) -> None:
        if self._batch:
            await self._send()
        while self._under_way:
            await self._under_way.popleft()

    async def abandon(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)


@dataclass(slots=True)
class Import:
    """One run. ``rejects`` are the files for rejected rows, one for each source."""

    store: Store
    sources: list[Source]
    rejects: list[Path]
    reader: RowReader
    rules: Rules
    reference: str
    dry_run: bool
    progress: OnProgress
    report: Report = field(init=False)
    _spool: Spool = field(init=False)
    _begun: bulk.Positions = field(default_factory=dict, init=False)
    _by_bucket: Counter[int] = field(default_factory=Counter, init=False)
    _changes: int = field(default=0, init=False)
    _waiting: list[Work] = field(default_factory=list, init=False)
    _done: int = field(default=0, init=False)
    _details: int = field(default=0, init=False)

    async def run(self) -> Report:
        """Import all files. Raises StoreError, after which the same import repeated goes on; LedgerError for a
        reference that cannot be one.
        """
        started = perf_counter()
        self.report = Report(self.reference, self.dry_run)
        with Spool() as self._spool:
            try:
                await self._run()
            finally:
                self.report.rejects = [
                    path
                    for source, path in zip(self.sources, self.rejects, strict=True)
                    if write_rejects(source, self._spool, path)
                ]
        self.report.seconds = perf_counter() - started
        return self.report

    async def _run(self) -> None:
        await self._begin()
        self.progress("counting the store", 0)
        began_at = await bulk.journal_ends(self.store)
        self.report.before = await count(self.store)
        self._set_aside()
        await self._each(self._works(), self._settle)
        while self._waiting:
            await self._look_up()
        await self._all_units()
        await self._each(self._subscribers(), self._settle_subscribers)
        self.progress("counting the store", self._done)
        if self.dry_run:
            self.report.after = self.report.before.plus(self.report.accepted)
            return
        self.report.after = await count(self.store)
        self._check(await bulk.trace(self.store, self.reference, began_at))

    async def _begin(self) -> None:
        """Find out whether this import was begun before, and note that it is now."""
        directory.check_reference(self.reference)
        self._begun = await bulk.import_begun(self.store, self.reference)
        repeated = bool(self._begun)
        if not self.dry_run:
            self._begun = await bulk.begin_import(self.store, self.reference, await bulk.journal_ends(self.store))
        self.rules = Rules(self.rules.catalogue, self.rules.on_existing, self.rules.now_ms, repeated)

    async def _each(self, items: Iterator[T], work: Callable[[list[T]], Awaitable[None]]) -> None:
        """Have ``work`` done on all items."""

        async def told(batch: list[T]) -> None:
            await work(batch)
            self.progress("importing", self._done)

        pipeline = _Pipeline(told)
        try:
            for item in items:
                await pipeline.put(item)
                if len(self._waiting) >= LOOKED_UP_AT_ONCE:
                    await self._look_up()
            await pipeline.finish()
        finally:
            await pipeline.abandon()

    # -- reading ---------------------------------------------------------------------------------------------------

    def _rows(self, source: Source) -> Iterator[tuple[Place, AnyRow]]:
        """The rows of a CSV file that can be read; the others are rejected."""
        assert source.kind is not None
        for record in read_csv(source):
            place = Place(source.index, record.line)
            try:
                yield place, self.reader.csv_row(source, record)
            except RowError as error:
                self._unreadable(source.kind, place, str(error))

    def _unreadable(self, kind: Kind, place: Place, reason: str) -> None:
        self.report.rows[kind, Verdict.REJECTED] += 1
        self._done += 1
        self._spool.reject(place, reason)

    def _set_aside(self) -> None:
        """Put away rows of CSV files that wait for others."""
        self.progress("reading", 0)
        for source in self.sources:
            if source.kind in DETAILS:
                self._details += self._spool.keep_details(
                    (row.account, place, pack_row(row)) for place, row in self._rows(source)
                )
            elif source.kind is Kind.UNITS:
                for place, row in self._rows(source):
                    assert isinstance(row, UnitRow)
                    self._set_unit_aside(row, place)
        if self._details:
            self._spool.order_details()

    def _set_unit_aside(self, row: UnitRow, place: Place) -> None:
        if self._is_first("unit", row.unit, [Item(row, place)]):
            self._spool.keep_unit(row.unit, row.parent or b"", place, pack_row(row))

    def _is_first(self, what: str, key: bytes, items: list[Item]) -> bool:
        """Whether rows, of one place, are the only ones so far about something; if not they are rejected."""
        earlier = self._spool.first_seen(what, key, items[0].place)
        if earlier is None:
            return True
        for item in items:
            item.judge(Verdict.REJECTED, f"{what} {key.decode()} stands in {self._where(earlier)} already")
            self._count(item, 0)
        return False

    def _where(self, place: Place) -> str:
        return f"{self.sources[place.source].name}:{place.line}"

    def _works(self) -> Iterator[Work]:
        """All rows about accounts, together by account."""
        for source in self.sources:
            if source.kind is None:
                yield from self._json_works(source)
            elif source.kind is Kind.ACCOUNTS:
                for place, row in self._rows(source):
                    own = Item(row, place)
                    if self._is_first("account", row.account, [own]):
                        yield Work(row.account, [own, *self._details_of(row.account)])
        if self._details:
            rest = self._spool.details_without("account")
            for account, group in groupby(rest, key=lambda each: each[0]):
                yield Work(account, [Item(unpack_row(packed), place) for _, place, packed in group])

    def _details_of(self, account: bytes) -> list[Item]:
        if not self._details:
            return []
        return [Item(unpack_row(packed), place) for place, packed in self._spool.details_of(account)]

    def _json_works(self, source: Source) -> Iterator[Work]:
        for line in read_lines(source):
            if not line.text.strip():
                continue
            place = Place(source.index, line.number)
            try:
                if line.fault:
                    raise RowError(line.fault)
                bundle = self.reader.json_bundle(line.text)
            except RowError as error:
                self._unreadable(Kind.ACCOUNTS, place, str(error))
                continue
            account = bundle.account.account
            if not self._is_first("account", account, [Item(row, place) for row in bundle.rows()]):
                continue
            self._spool.keep_for_later((place, pack_row(row)) for row in bundle.subscribers)
            if bundle.unit is not None:
                self._set_unit_aside(bundle.unit, place)
            own = [Item(row, place) for row in (bundle.account, *bundle.details)]
            yield Work(account, [*own, *self._details_of(account)])

    # -- accounts --------------------------------------------------------------------------------------------------

    async def _settle(self, works: list[Work]) -> None:
        if self.dry_run:
            accounts = await directory.read_accounts(self.store, [work.account for work in works])
            drafts = [reconcile(work, account, self.rules) for work, account in zip(works, accounts, strict=True)]
        else:
            drafts = await asyncio.gather(*(self._commit(work) for work in works))
        accounts_said = [item for work in works for item in work.items if isinstance(item.row, AccountRow)]
        await settle_contacts(self.store, accounts_said, self.rules, dry_run=self.dry_run)
        for work, draft in zip(works, drafts, strict=True):
            differs = any(item.verdict is Verdict.DIFFERS for item in work.items)
            if differs and self.rules.repeated and work.done_before is None:
                self._waiting.append(work)
            else:
                self._settled(work, draft)

    async def _commit(self, work: Work) -> Draft | None:
        drafts: list[Draft | None] = [None]

        def step(account: Account | None, _: Session | None) -> Plan:
            draft = drafts[0] = reconcile(work, account, self.rules)
            if draft is None:
                return Plan(None)
            reason = (self.reference, self._where(work.items[0].place), work.digests())
            return make_plan(draft, bulk.IMPORT, reason, None)

        await self.store.commit(work.account, step)
        return drafts[0]

    def _settled(self, work: Work, draft: Draft | None) -> None:
        for item in work.items:
            if item.verdict is Verdict.DIFFERS:
                item.verdict = Verdict.REJECTED
            self._count(item, work.currency)
        if draft is None:
            return
        self._changes += 1
        before, after = work.before, draft.account
        self.report.accepted.add(after)
        for bucket in after.buckets:
            self._by_bucket[bucket.bucket_id] += bucket.balance
        if before is not None:
            self.report.accepted.add(before, -1)
            for bucket in before.buckets:
                self._by_bucket[bucket.bucket_id] -= bucket.balance
        elif self.dry_run:
            self._spool.first_seen("new account", work.account, Place(after.currency, 0))

    async def _look_up(self) -> None:
        """Settle what differs, now knowing what this import had done to it before."""
        works, self._waiting = self._waiting, []
        self.progress("reading the journal", self._done)
        accounts = {work.account for work in works}
        found = await bulk.rows_imported(self.store, self.reference, self._begun, accounts)
        for work in works:
            work.done_before = found.get(work.account, Counter())
        for at in range(0, len(works), A_BATCH):
            await self._settle(works[at : at + A_BATCH])

    def _count(self, item: Item, currency: int) -> None:
        """Enter a row that has been judged in the report."""
        row, verdict = item.row, item.verdict
        self._done += 1
        self.report.rows[_KINDS.get(type(row), Kind.METERS), verdict] += 1
        if isinstance(row, AccountRow):
            pot = pot_of(int(Unit.MONEY), row.currency or currency or self.rules.catalogue.currency, "")
            self.report.sums[pot, verdict] += row.balance_micro or 0
        elif isinstance(row, BucketRow):
            self.report.sums[pot_of(row.unit, currency, row.name), verdict] += row.amount
        if verdict is Verdict.REJECTED:
            self._spool.reject(item.place, item.reason, whole=isinstance(row, AccountRow))
        elif verdict is Verdict.ACCEPTED:
            self._remark(row)

    def _remark(self, row: AnyRow) -> None:
        now_ms, remarks = self.rules.now_ms, self.report.remarks
        if isinstance(row, BucketRow) and row.expires_ms and row.expires_ms <= now_ms and row.amount:
            remarks["buckets have expired already; what is in them lapses at once"] += 1
        elif isinstance(row, AccountRow) and row.expires_ms and row.expires_ms <= now_ms:
            if row.kind in (None, AccountKind.PREPAID) and row.state != LifeState.TERMINATED:
                remarks["accounts have expired already; the server puts them into grace, or ends them"] += 1
        elif isinstance(row, OfferRow) and row.next_ms and row.next_ms < now_ms - FEES_LATE_MS:
            remarks["offers were due more than 40 days ago; the server charges each period that was missed"] += 1

    # -- units and subscribers -------------------------------------------------------------------------------------

    def _members(self) -> Members:
        spool = self._spool

        def currency(account: bytes) -> int | None:
            known = spool.seen("new account", account) if self.dry_run else None
            return None if known is None else known.source

        return Members(
            self.store,
            self.rules,
            self.reference,
            self.dry_run,
            currency,
            lambda kind, value: spool.first_seen(f"identity {kind}", value, Place(0, 0)) is not None,
            lambda unit: spool.seen("new unit", unit) is not None,
        )

    async def _all_units(self) -> None:
        """Units from the top down: those of one depth at a time."""
        for _, group in groupby(self._spool.units_in_order(), key=lambda each: each[0]):
            items = (Item(unpack_row(packed), place) for _, place, packed in group)
            await self._each((item for item in items if not self._is_left_out(item)), self._settle_units)
        for place, packed in self._spool.units_in_a_circle():
            item = Item(unpack_row(packed), place)
            item.judge(Verdict.REJECTED, "the unit stands below itself, or below one that does")
            self._count(item, 0)

    def _is_left_out(self, item: Item) -> bool:
        """What stands in a line of JSON whose account is rejected is rejected as well."""
        if not self._spool.is_rejected_whole(item.place):
            return False
        item.judge(Verdict.REJECTED, "nothing else of the line is taken")
        self._count(item, 0)
        return True

    async def _settle_units(self, items: list[Item]) -> None:
        await self._members().settle_units(items)
        for item in items:
            self._count(item, 0)
            if self.dry_run and item.verdict is Verdict.ACCEPTED and isinstance(item.row, UnitRow):
                self._spool.first_seen("new unit", item.row.unit, item.place)

    def _subscribers(self) -> Iterator[Item]:
        for place, packed in self._spool.kept_for_later():
            item = Item(unpack_row(packed), place)
            if not self._is_left_out(item) and self._is_new_subscriber(item):
                yield item
        for source in self.sources:
            if source.kind is Kind.SUBSCRIBERS:
                for place, row in self._rows(source):
                    if self._is_new_subscriber(item := Item(row, place)):
                        yield item

    def _is_new_subscriber(self, item: Item) -> bool:
        assert isinstance(item.row, SubscriberRow)
        return self._is_first("subscriber", item.row.subscriber, [item])

    async def _settle_subscribers(self, items: list[Item]) -> None:
        added = await self._members().settle(items)
        self.report.accepted.subscribers += added
        await settle_contacts(self.store, items, self.rules, dry_run=self.dry_run)
        for item in items:
            self._count(item, 0)

    # -- control ---------------------------------------------------------------------------------------------------

    def _check(self, trace: Trace) -> None:
        """Whether the store is what it was and what was accepted."""
        report = self.report
        report.others = trace.others
        if trace.changes != self._changes:
            report.disagreements.append(
                f"{self._changes} changes were made to accounts, but the journal has {trace.changes} of this import"
            )
        for bucket_id in sorted(self._by_bucket.keys() | trace.by_bucket.keys()):
            mine, theirs = self._by_bucket[bucket_id], trace.by_bucket[bucket_id]
            if mine != theirs:
                report.disagreements.append(
                    f"{mine} were entered in buckets of number {bucket_id}, but the journal says {theirs}"
                )
        if trace.others:
            return  # the counts are of different moments, and others changed what they count in between
        for line in report.lines():
            if not line.agrees:
                report.disagreements.append(
                    f"{line.figure.label}: {line.before} before and {line.accepted} accepted should make "
                    f"{line.before + line.accepted}, but it is {line.after}"
                )
