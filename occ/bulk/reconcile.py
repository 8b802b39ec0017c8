"""What the rows of one account mean for the account as the store has it: what is new, the same, different.

Pure: rows and a snapshot in, a draft and a verdict for each row out; it may be asked again with a fresher snapshot.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from balance.accounts import Account
from balance.bulk import check_terms, open_account
from balance.ledger import Draft, add_bucket
from balance.model import MAIN_BUCKET, AccountKind, Bucket, LedgerError, Meter, Offer, Unit
from occ.bulk import values
from occ.bulk.rows import AccountRow, AnyRow, BucketRow, MeterRow, OfferRow, digest
from occ.bulk.spool import Place
from occ.cycle import FIRST_DAY
from occ.lifecycle import check_change
from occ.rating.catalogue import Catalogue
from occ.renewals import OFFERS_AN_ACCOUNT

BUCKETS_AN_ACCOUNT: Final = 1000
DEFAULT_PRIORITY: Final = 100


class OnExisting(StrEnum):
    """What becomes of a row about something that is there already."""

    COMPARE = "compare"
    """It is passed over if the store says the same, else rejected with what differs."""
    SKIP = "skip"
    """It is passed over."""
    UPDATE = "update"
    """What the row says takes the place of what the store says, but for money, kind and currency."""


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    DIFFERS = "differs"
    """Rejected, unless the journal says that this import has done it before."""


@dataclass(slots=True)
class Item:
    """A row and what became of it."""

    row: AnyRow
    place: Place
    verdict: Verdict = Verdict.UNCHANGED
    reason: str = ""

    def judge(self, verdict: Verdict, reason: str = "") -> None:
        self.verdict, self.reason = verdict, reason


@dataclass(slots=True)
class Work:
    """All rows about one account, in the order of files and lines; its own row, if there is one, comes first."""

    account: bytes
    items: list[Item]
    done_before: Counter[str] | None = None
    """Digests of rows that the journal says this import has done; None: nobody has looked."""
    currency: int = 0
    """Of the account, once that is known."""
    before: Account | None = None
    """The account that the rows were compared with last; None: there was none."""

    def digests(self) -> str:
        """Of the rows that are accepted, for the journal."""
        return " ".join(digest(item.row) for item in self.items if item.verdict is Verdict.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Rules:
    """What all rows of an import are judged by."""

    catalogue: Catalogue
    on_existing: OnExisting
    now_ms: int
    repeated: bool = False
    """The import has been begun before: what it did is in the journal."""


def reconcile(work: Work, account: Account | None, rules: Rules) -> Draft | None:
    """Judge all rows; the draft of what is to be written, None if nothing is."""
    _reject_repeated(work)
    items = [item for item in work.items if item.verdict is not Verdict.REJECTED]
    work.before = account
    if account is not None:
        work.currency = account.currency
        return _existing(items, work, account, rules)
    own = items[0] if items and isinstance(items[0].row, AccountRow) else None
    if own is None:
        for item in items:
            reason = f"there is no account {work.account.decode()}, neither in the store nor in an accepted row"
            item.judge(Verdict.REJECTED, reason)
        return None
    try:
        draft = _open(own.row, rules)
    except LedgerError as error:
        own.judge(Verdict.REJECTED, str(error))
        for item in items[1:]:
            item.judge(Verdict.REJECTED, f"its account is rejected: {error}")
        return None
    work.currency = draft.account.currency
    own.judge(Verdict.ACCEPTED)
    for item in items[1:]:
        _add(draft, item, rules)
    return draft


def _reject_repeated(work: Work) -> None:
    """Rows that say the same of one account twice: one of them is a mistake of whoever made the file."""
    first: dict[tuple[type[AnyRow], AnyRow], Item] = {}
    for item in work.items:
        item.judge(Verdict.UNCHANGED)
        known = first.setdefault((type(item.row), item.row), item)
        if known is not item:
            hint = "; number them if there are two" if isinstance(item.row, BucketRow) else ""
            item.judge(Verdict.REJECTED, f"line {known.place.line} says the same{hint}")


def _open(row: AnyRow, rules: Rules) -> Draft:
    assert isinstance(row, AccountRow)
    return open_account(
        row.account,
        int(AccountKind.PREPAID) if row.kind is None else row.kind,
        rules.catalogue.currency if row.currency is None else row.currency,
        rules.now_ms,
        balance_micro=row.balance_micro or 0,
        credit_limit_micro=row.credit_limit_micro or 0,
        state=row.state or 0,
        expires_ms=row.expires_ms or 0,
        cycle_day=row.cycle_day or FIRST_DAY,
    )


# -- what is new -------------------------------------------------------------------------------------------------------


def _add(draft: Draft, item: Item, rules: Rules) -> None:
    """Add to an account what a row says, and judge the row."""
    row = item.row
    try:
        if isinstance(row, BucketRow):
            _add_bucket(draft, row, rules)
        elif isinstance(row, OfferRow):
            _add_offer(draft, row, rules)
        elif isinstance(row, MeterRow):
            _add_meter(draft, row)
    except LedgerError as error:
        item.judge(Verdict.REJECTED, str(error))
    else:
        item.judge(Verdict.ACCEPTED)


def _add_bucket(draft: Draft, row: BucketRow, rules: Rules) -> None:
    if len(draft.account.buckets) >= BUCKETS_AN_ACCOUNT:
        raise LedgerError(f"the account has {BUCKETS_AN_ACCOUNT} buckets, which is the most")
    priority = _priority(row, rules) if row.priority is None else row.priority
    add_bucket(draft, Unit(row.unit), row.amount, priority, row.expires_ms or 0, row.name, row.owner)


def _priority(row: BucketRow, rules: Rules) -> int:
    known = rules.catalogue.allowance(row.name) or rules.catalogue.bonus(row.name)
    return DEFAULT_PRIORITY if known is None else known.priority


def _add_offer(draft: Draft, row: OfferRow, rules: Rules) -> None:
    account = draft.account
    if len(account.offers) >= OFFERS_AN_ACCOUNT:
        raise LedgerError(f"the account has {OFFERS_AN_ACCOUNT} offers, which is the most")
    if any((each.name, each.owner) == (row.name, row.owner) for each in account.offers):
        raise LedgerError(f"the account has the offer {row.name} already")
    since_ms = rules.now_ms if row.since_ms is None else row.since_ms
    next_ms = row.next_ms
    if next_ms is None:
        # What it is paid for now is the old system's affair: it is charged here from the next period on.
        sold = rules.catalogue.offer(row.name)
        at_ms, calendar = max(since_ms, rules.now_ms), rules.catalogue.calendar
        next_ms = 0 if sold is None else sold.next_ms(since_ms, at_ms, calendar, account.cycle_day)
    offer = Offer(row.name, since_ms, next_ms, row.owner, row.unpaid_ms or 0, paid_micro=row.paid_micro or 0)
    account.offers = [*account.offers, offer]


def _add_meter(draft: Draft, row: MeterRow) -> None:
    account = draft.account
    if any(each.name == row.name for each in account.meters):
        raise LedgerError(f"the account has the meter {row.name} already")
    account.meters = [*account.meters, Meter(row.name, row.resets_ms, row.units, row.micro)]


# -- what is there -----------------------------------------------------------------------------------------------------


def _existing(items: list[Item], work: Work, account: Account, rules: Rules) -> Draft | None:
    """Compare the rows with the account; all that is new is added, or nothing if any row differs."""
    draft = Draft(account, rules.now_ms)
    done_before = Counter(work.done_before)
    left = [bucket for bucket in account.buckets if bucket.bucket_id != MAIN_BUCKET]
    new: list[Item] = []
    changed: list[Item] = []
    differs = False
    for item in items:
        is_done = bool(done_before) and done_before[known := digest(item.row)] > 0
        if is_done:
            done_before[known] -= 1
        differences = _compare(item, draft, left, rules, rules.on_existing is OnExisting.UPDATE and not is_done)
        if is_done or (differences is not None and rules.on_existing is OnExisting.SKIP):
            continue
        if differences is None:
            new.append(item)
        elif differences.refused:
            item.judge(Verdict.DIFFERS, ", ".join(differences.refused))
            differs = True
        elif differences.applied:
            changed.append(item)
    # What this import did itself may not look like it any longer; before anything is added twice, the journal is asked.
    if differs or (new and rules.repeated and work.done_before is None):
        for item in (*new, *changed):
            item.judge(Verdict.DIFFERS, "nothing was done, as another row of the account differs")
        return None
    for item in changed:
        item.judge(Verdict.ACCEPTED)
    for item in new:
        _add(draft, item, rules)
    accepted = any(item.verdict is Verdict.ACCEPTED for item in items)
    return draft if accepted else None


@dataclass(slots=True)
class _Differences:
    refused: list[str] = field(default_factory=list)
    applied: bool = False
    """Something was changed on the draft."""


def _compare(item: Item, draft: Draft, left: list[Bucket], rules: Rules, update: bool) -> _Differences | None:
    """How a row differs from the account; None: there is nothing yet of what it says. Updates are made on the draft."""
    row = item.row
    found = _Differences()
    if isinstance(row, AccountRow):
        _compare_terms(row, draft, found, update)
    elif isinstance(row, BucketRow):
        bucket = _match(row, left, rules)
        if bucket is None:
            return None
        left.remove(bucket)
        mine = draft.bucket(bucket.bucket_id)
        _compare_bucket(row, mine, found, update)
    elif isinstance(row, OfferRow):
        at = [(each.name, each.owner) for each in draft.account.offers]
        if (row.name, row.owner) not in at:
            return None
        _compare_offer(row, draft, at.index((row.name, row.owner)), found, update)
    elif isinstance(row, MeterRow):
        meter = next((each for each in draft.account.meters if each.name == row.name), None)
        if meter is None:
            return None
        _differ(found, "resets", meter.resets_ms, row.resets_ms, values.write_moment)
        _differ(found, "used", meter.units, row.units, values.write_whole)
        _differ(found, "spent", meter.micro, row.micro, values.write_money)
    return found


def _compare_terms(row: AccountRow, draft: Draft, found: _Differences, update: bool) -> None:
    account = draft.account
    main = account.bucket(MAIN_BUCKET)
    _differ(found, "kind", account.kind, row.kind, values.write_kind)
    _differ(found, "currency", account.currency, row.currency, values.write_currency)
    _differ(found, "balance", main.balance if main else 0, row.balance_micro, values.write_money)
    _differ(found, "cycle_day", account.cycle_day, row.cycle_day, values.write_whole)
    limit, state, expires_ms = account.credit_limit_micro, account.state, account.expires_ms
    if not update:
        _differ(found, "credit_limit", limit, row.credit_limit_micro, values.write_money)
        _differ(found, "state", state, row.state, values.write_state)
        _differ(found, "expires", expires_ms, row.expires_ms, values.write_moment)
        return
    new_limit = limit if row.credit_limit_micro is None else row.credit_limit_micro
    new_state = state if row.state is None else row.state
    new_expires_ms = expires_ms if row.expires_ms is None else row.expires_ms
    if (new_limit, new_state, new_expires_ms) == (limit, state, expires_ms):
        return
    try:
        if new_state != state:
            check_change(state, new_state)
        check_terms(account.kind, new_limit, new_state, new_expires_ms)
        if main and new_limit < limit and main.balance - main.reserved < -new_limit:
            raise LedgerError(
                f"credit_limit cannot be less than what is owed and reserved, from a balance of "
                f"{values.write_money(main.balance)}"
            )
    except LedgerError as error:
        found.refused.append(str(error))
        return
    account.credit_limit_micro, account.state, account.expires_ms = new_limit, new_state, new_expires_ms
    found.applied = True


def _match(row: BucketRow, left: list[Bucket], rules: Rules) -> Bucket | None:
    """The bucket that a row is about, of those that no other row was about: by its name, else by all but the amount."""
    priority = _priority(row, rules) if row.priority is None else row.priority
    alike = [each for each in left if (each.unit, each.name, each.owner) == (row.unit, row.name, row.owner)]
    same = [each for each in alike if (each.priority, each.expires_ms) == (priority, row.expires_ms or 0)]
    exact = [each for each in same if each.balance == row.amount]
    return next(iter(exact or same or (alike if row.name else [])), None)


def _compare_bucket(row: BucketRow, bucket: Bucket, found: _Differences, update: bool) -> None:
    write = values.write_money if bucket.unit == Unit.MONEY else values.write_whole
    _differ(found, "amount", bucket.balance, row.amount, write)
    if not update:
        _differ(found, "priority", bucket.priority, row.priority, values.write_whole)
        _differ(found, "expires", bucket.expires_ms, row.expires_ms, values.write_moment)
        return
    for name, said in (("priority", row.priority), ("expires_ms", row.expires_ms)):
        if said is not None and said != getattr(bucket, name):
            setattr(bucket, name, said)
            found.applied = True


def _compare_offer(row: OfferRow, draft: Draft, index: int, found: _Differences, update: bool) -> None:
    offer = draft.account.offers[index]
    for name, said in (("since", row.since_ms), ("next", row.next_ms), ("unpaid", row.unpaid_ms)):
        if not update:
            _differ(found, name, getattr(offer, f"{name}_ms"), said, values.write_moment)
        elif said is not None and said != getattr(offer, f"{name}_ms"):
            setattr(draft.offer(index), f"{name}_ms", said)
            found.applied = True


def _differ(found: _Differences, name: str, here: int, said: int | None, write: values.Write) -> None:
    """Note a difference; what a row leaves out is none."""
    if said is not None and said != here:
        found.refused.append(f"{name} is {write(here)} in the store and {write(said)} in the row")
