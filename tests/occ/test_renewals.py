"""What the clock does to an account: fees, renewed allowances with rollover, shares, the end of prepaid accounts."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from balance.accounts import Account, Session
from balance.directory import top_up_account
from balance.ledger import Draft, add_bucket, top_up
from balance.model import AccountKind, LedgerError, LifeState, Unit
from balance.plans import Plan
from balance.records import make_plan, unpack_outbox
from occ.cdr import as_json_fields
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.renewals import Fee, drop_offer, end_of_life, renew_due, take_offer
from tests.occ import test_expiry
from tests.occ.test_expiry import Lab

CATALOGUE = """
version: t
currency: EUR
services:
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, validity: 30 min}
plans:
  standard: {internet: 0.01 per 1 MiB}
allowances:
  data: {amount: 10 GiB, serves: [internet], priority: 10, rollover: 2 GiB}
  daily: {amount: 100 MiB, serves: [internet], valid: until end of day}
bonuses:
  thanks: {serves: [internet], amount: 1.00, valid: 30 d}
offers:
  month: {fee: 10.00, every: month, gives: [data]}
  calendar: {fee: 31.00, every: month, starts: first of month, prorated: yes, gives: [data]}
  patient: {fee: 10.00, every: month, gives: [data], if_unpaid: retry every day}
  day: {every: day, gives: [daily]}
  once: {fee: 5.00, every: once, gives: [thanks]}
"""
GIB = 1 << 30
DAY = 86_400_000


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 1000


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    path = tmp_path / "catalogue.yaml"
    path.write_text(CATALOGUE)
    return load_catalogue(path)


def account(money_micro: int, kind: AccountKind = AccountKind.PREPAID, limit: int = 0) -> Account:
    draft = Draft(Account(b"a", 1, int(kind), 978, limit, 0, [], {}), 0)
    add_bucket(draft, Unit.MONEY, money_micro)
    return draft.account


def units(draft: Draft, name: str) -> int:
    return sum(bucket.balance for bucket in draft.account.buckets if bucket.name == name)


def money(draft: Draft) -> int:
    return draft.account.buckets[0].balance


def test_an_offer_is_paid_and_given_at_once_and_again_each_month(catalogue: Catalogue) -> None:
    draft = Draft(account(25_000_000), at(2026, 1, 31, 12))
    assert take_offer(draft, catalogue, "month") == Fee("month", b"", 10_000_000, at(2026, 1, 31, 12))
    assert (money(draft), units(draft, "data")) == (15_000_000, 10 * GIB)
    assert draft.account.offers[0].next_ms == at(2026, 2, 28, 12)
    assert draft.account.buckets[1].expires_ms == at(2026, 2, 28, 12)
    early = Draft(draft.account, at(2026, 2, 28, 11))
    assert renew_due(early, catalogue) == []
    late = Draft(draft.account, at(2026, 2, 28, 12))
    assert renew_due(late, catalogue) == [Fee("month", b"", 10_000_000, at(2026, 2, 28, 12))]
    assert (money(late), units(late, "data")) == (5_000_000, 12 * GIB)  # 2 GiB of the old are kept
    assert late.account.offers[0].next_ms == at(2026, 3, 31, 12)
    assert draft.account.offers[0].next_ms == at(2026, 2, 28, 12), "the snapshot was changed"


def test_what_sessions_hold_is_theirs_beyond_the_renewal(catalogue: Catalogue) -> None:
    draft = Draft(account(25_000_000), at(2026, 1, 31))
    take_offer(draft, catalogue, "month")
    bucket = draft.account.buckets[1]
    bucket.reserved = GIB
    later = Draft(draft.account, at(2026, 2, 28))
    renew_due(later, catalogue)
    assert later.account.buckets[1].balance == GIB + 2 * GIB + 10 * GIB
    assert later.account.buckets[1].reserved == GIB


def test_a_first_month_that_is_not_whole_costs_and_gives_its_share(catalogue: Catalogue) -> None:
    """Ten of the thirty-one days of January are left on the 22nd, that day among them."""
    draft = Draft(account(100_000_000), at(2026, 1, 22, 15))
    fee = take_offer(draft, catalogue, "calendar")
    assert fee is not None
    assert fee.amount_micro == 10_000_000
    assert units(draft, "data") == -(-10 * GIB * 10 // 31)
    later = Draft(draft.account, at(2026, 2, 1))
    assert [fee.amount_micro for fee in renew_due(later, catalogue)] == [31_000_000]


def test_a_fee_is_taken_whole_or_not_at_all(catalogue: Catalogue) -> None:
    draft = Draft(account(9_999_999), at(2026, 1, 1))
    with pytest.raises(LedgerError, match="cannot be paid"):
        take_offer(draft, catalogue, "month")
    draft = Draft(account(19_999_999), at(2026, 1, 1))
    take_offer(draft, catalogue, "month")
    due = Draft(draft.account, at(2026, 2, 1))
    assert renew_due(due, catalogue) == []
    assert money(due) == 9_999_999
    assert (due.account.offers[0].next_ms, due.account.offers[0].unpaid_ms) == (0, at(2026, 2, 1))


def test_what_was_not_paid_begins_when_somebody_pays(catalogue: Catalogue) -> None:
    draft = Draft(account(10_000_000), at(2026, 1, 1))
    take_offer(draft, catalogue, "month")
    unpaid = Draft(draft.account, at(2026, 2, 1))
    renew_due(unpaid, catalogue)
    paid = Draft(unpaid.account, at(2026, 4, 10))
    top_up(paid, 10_000_000)
    assert [fee.from_ms for fee in renew_due(paid, catalogue)] == [at(2026, 4, 10)]  # March is not asked for
    assert paid.account.offers[0].next_ms == at(2026, 5, 1)
    assert paid.account.offers[0].unpaid_ms == 0


def test_an_unpaid_fee_is_tried_again_where_the_offer_says_so(catalogue: Catalogue) -> None:
    draft = Draft(account(10_000_000), at(2026, 1, 1))
    take_offer(draft, catalogue, "patient")
    unpaid = Draft(draft.account, at(2026, 2, 1))
    renew_due(unpaid, catalogue)
    assert unpaid.account.offers[0].next_ms == at(2026, 2, 2)


def test_a_postpaid_account_pays_within_its_limit(catalogue: Catalogue) -> None:
    draft = Draft(account(0, AccountKind.POSTPAID, 10_000_000), at(2026, 1, 1))
    take_offer(draft, catalogue, "month")
    assert money(draft) == -10_000_000
    due = Draft(draft.account, at(2026, 2, 1))
    assert renew_due(due, catalogue) == []


def test_a_long_standstill_is_caught_up_with(catalogue: Catalogue) -> None:
    draft = Draft(account(100_000_000), at(2026, 1, 1))
    take_offer(draft, catalogue, "month")
    late = Draft(draft.account, at(2026, 4, 15))
    assert len(renew_due(late, catalogue)) == 3
    assert late.account.offers[0].next_ms == at(2026, 5, 1)


def test_a_daily_allowance_is_full_every_day(catalogue: Catalogue) -> None:
    draft = Draft(account(0), at(2026, 1, 1, 9))
    take_offer(draft, catalogue, "day", b"sub")
    bucket = draft.account.buckets[1]
    assert (bucket.owner, bucket.expires_ms) == (b"sub", at(2026, 1, 2))
    bucket.balance = 5
    later = Draft(draft.account, at(2026, 1, 2, 9))
    renew_due(later, catalogue)
    assert units(later, "daily") == 100 << 20


def test_an_offer_that_comes_once_is_never_due_again(catalogue: Catalogue) -> None:
    draft = Draft(account(5_000_000), at(2026, 1, 1))
    take_offer(draft, catalogue, "once")
    assert (money(draft), units(draft, "thanks"), draft.account.offers[0].next_ms) == (0, 1_000_000, 0)
    with pytest.raises(LedgerError, match="already"):
        take_offer(draft, catalogue, "once")
    drop_offer(draft, "once")
    with pytest.raises(LedgerError, match="no offer"):
        drop_offer(draft, "once")


@pytest.mark.parametrize(("grace_ms", "state"), [(0, LifeState.TERMINATED), (10 * DAY, LifeState.GRACE)])
def test_a_prepaid_account_expires(grace_ms: int, state: LifeState) -> None:
    known = account(1)
    known.expires_ms = at(2026, 1, 1)
    assert end_of_life(Draft(known, at(2025, 12, 31)), grace_ms) is None
    draft = Draft(known, at(2026, 1, 1))
    assert end_of_life(draft, grace_ms) == state == draft.account.state
    assert money(draft) == 1
    if grace_ms:
        assert draft.account.expires_ms == at(2026, 1, 11)
        assert end_of_life(Draft(draft.account, at(2026, 1, 11)), grace_ms) == LifeState.TERMINATED


def test_a_postpaid_account_does_not_expire() -> None:
    known = account(0, AccountKind.POSTPAID)
    known.expires_ms = 1
    assert end_of_life(Draft(known, 2), 0) is None


lab = test_expiry.lab


async def test_the_clock_renews_on_a_real_store(lab: Lab, catalogue: Catalogue) -> None:
    """A fee falls due without a request, is debited once, and has its record; an unpaid one is paid by a top-up."""
    lab.sell(catalogue)
    lab.now = at(2026, 1, 1)
    await top_up_account(lab.store, b"a", 10_000_000, now_ms=lab.now, reason="test")

    def take(known: Account | None, _: Session | None) -> Plan:
        assert known is not None
        draft = Draft(known, lab.now)
        take_offer(draft, catalogue, "month")
        return make_plan(draft, "offer", ("test", "month"), None)

    await lab.store.commit(b"a", take)
    assert (await lab.money("a"))[0] == 1000
    lab.now = at(2026, 2, 1)
    await lab.expiry.scan(lab.now)
    await lab.expiry.scan(lab.now)
    assert (await lab.money("a"))[0] == 1000
    await top_up_account(lab.store, b"a", 15_000_000, now_ms=lab.now, reason="test")
    await lab.expiry.scan(lab.now)
    assert (await lab.money("a"))[0] == 5_001_000
    entries = await lab.store.call("XRANGE", lab.store.keys.outbox(0), "-", "+")
    records = [as_json_fields(one) for _, fields in entries for one in unpack_outbox(fields[1])]
    assert [(each["service"], each["debited_micro"], each["cause"]) for each in records] == [
        ("month", 10_000_000, "recurring")
    ]
