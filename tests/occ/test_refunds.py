"""What is given back of a fee when a plan or an offer ends early: by days, by what is left of what it gave."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from balance.accounts import Account
from balance.embedded import Address
from balance.ledger import Draft, add_bucket
from balance.model import AccountKind, Offer, Unit
from balance.records import pack_account, unpack_account
from balance.store import Store, StoreSettings
from balance.subscribers import change_plan
from balance.verify import verify
from occ.cycle import change_cycle_day
from occ.policy.reading import parse_policies
from occ.policy.watching import Watching
from occ.rating.catalogue import Catalogue
from occ.renewals import end_offer, renew_due, take_offer
from tests.occ.operator_lab import DAY_MS, INITIAL, TERMINATION, Operator, at, catalogue_of, mib

GIB = 1 << 30
CATALOGUE = """
version: r
currency: EUR
services:
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, maximum_quota: 5 GiB, validity: 2 h}
  calls: {context: 32260@3gpp.org, unit: seconds, quota: 1 min, maximum_quota: 1 h, validity: 2 h}
plans:
  standard: {internet: 0.01 per 1 MiB}
  small: {includes: [small], internet: 0.01 per 1 MiB}
allowances:
  data: {amount: 5 GiB, serves: [internet], rollover: 1 GiB}
  minutes: {amount: 100 min, serves: [calls]}
offers:
  small: {fee: 30.00, every: month, starts: first of month, prorated: yes, gives: [data]}
  both: {fee: 30.00, every: month, starts: first of month, prorated: yes, gives: [data, minutes]}
  line: {fee: 30.00, every: month, starts: cycle day, prorated: yes}
"""
NOVEMBER = at("2026-11-01 00:30")


@pytest.fixture
async def operator(clean_redis: Address) -> AsyncIterator[Operator]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    operator = Operator(store, CATALOGUE, NOVEMBER)
    await operator.account("a", 100_00)
    await operator.subscriber("ann", "a")
    yield operator
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def change(operator: Operator, plan: str) -> None:
    await change_plan(operator.store, b"ann", plan, operator.now, operator.now, "test")
    await operator.refresh("ann")


async def test_data_is_not_for_nothing_by_taking_a_plan_and_giving_it_up(operator: Operator) -> None:
    for number in (1, 2, 3):
        await change(operator, "small")
        await operator.ask(f"s{number}", INITIAL, wants=mib(5120))
        await operator.ask(f"s{number}", TERMINATION, used=mib(5120))
        await change(operator, "standard")
        assert await operator.cents("a") == 100_00 - number * 30_00
        operator.now += 3_600_000


async def test_what_open_sessions_hold_counts_as_used_and_is_only_theirs(operator: Operator) -> None:
    """2 of 5 GiB are reserved: 18.00 of 30.00 come back; what the session then leaves is no one's."""
    await change(operator, "small")
    await operator.ask("s", INITIAL, wants=mib(2048))
    await change(operator, "standard")
    assert await operator.cents("a") == 100_00 - 12_00
    assert await operator.units("a", "data") == 2 * GIB
    await operator.ask("s", TERMINATION, used=mib(1024))
    assert await operator.cents("a") == 100_00 - 12_00, "what was reserved is paid for"
    await operator.ask("t", INITIAL, wants=mib(1))
    await operator.ask("t", TERMINATION, used=mib(1))
    assert await operator.cents("a") == 100_00 - 12_00 - 1, "the plan is given up, what is left of it has lapsed"
    await operator.scan()
    assert await operator.units("a", "data") == 0


async def test_who_has_given_up_a_plan_has_not_used_up_its_bundle(operator: Operator) -> None:
    """A level on what is left of the bundle holds neither at the end of the plan nor when the bundle has expired."""
    written = (
        "levels: {used: {when: bucket data at most 0}}\nrules: [{rule: tell, when: used, notify: bundle-exhausted}]\n"
    )
    operator.store.observe = Watching(parse_policies(written, "policies.yaml", operator.catalogue).policies)
    await change(operator, "small")
    await operator.ask("s", INITIAL, wants=mib(2048))
    await change(operator, "standard")
    assert (await operator.read("a")).levels == ()
    await operator.ask("s", TERMINATION, used=mib(2048))
    assert (await operator.read("a")).levels == ()
    await change(operator, "small")
    await operator.ask("t", INITIAL, wants=mib(5120))
    await operator.ask("t", TERMINATION, used=mib(5120))
    assert (await operator.read("a")).levels == ("used",)
    await change(operator, "standard")
    assert (await operator.read("a")).levels == ()


# -- on a draft --------------------------------------------------------------------------------------------------------


@pytest.fixture
def catalogue() -> Catalogue:
    return catalogue_of(CATALOGUE)


def opened(now: int = NOVEMBER) -> Draft:
    draft = Draft(Account(b"a", 1, int(AccountKind.PREPAID), 978, 0, 0, [], {}), now)
    add_bucket(draft, Unit.MONEY, 1000_000_000)
    return draft


def given_back(draft: Draft, catalogue: Catalogue, at_ms: int) -> int:
    """Micro-units, by the end of the one offer of the account at a moment."""
    later = Draft(draft.account, at_ms)
    (offer,) = later.own_offers()
    return -sum(fee.amount_micro for fee in end_offer(later, catalogue, offer, at_ms))


@pytest.mark.parametrize(
    ("days", "used", "micro"),
    [
        (0, 0, 30_000_000),
        (0, 1, 30_000_000 - 1),  # cut to a whole micro-unit
        (0, GIB, 24_000_000),
        (15, GIB, 15_000_000),  # the fewer of 15 of 30 days and 4 of 5 GiB
        (15, 4 * GIB, 6_000_000),
        (29, 0, 1_000_000),
        (0, 5 * GIB, 0),
    ],
)
def test_the_lesser_share_of_days_and_units_is_given_back(
    catalogue: Catalogue, days: int, used: int, micro: int
) -> None:
    draft = opened()
    take_offer(draft, catalogue, "small")
    draft.account.buckets[1].balance -= used
    assert given_back(draft, catalogue, NOVEMBER + days * DAY_MS) == micro


def test_of_several_things_given_that_counts_of_which_least_is_left(catalogue: Catalogue) -> None:
    draft = opened()
    take_offer(draft, catalogue, "both")
    draft.account.buckets[1].balance -= GIB
    draft.account.buckets[2].balance -= 3000
    assert given_back(draft, catalogue, NOVEMBER) == 15_000_000


def test_what_was_kept_of_an_earlier_period_is_used_first(catalogue: Catalogue) -> None:
    """1 GiB is left of November: December begins with 6, and 5 of them are what its fee gave."""
    draft = opened()
    take_offer(draft, catalogue, "small")
    draft = Draft(draft.account, at("2026-12-01 00:00"))
    renew_due(draft, catalogue)
    bucket = draft.account.buckets[1]
    assert bucket.balance == 6 * GIB
    bucket.balance -= GIB
    assert given_back(draft, catalogue, draft.now_ms) == 30_000_000
    bucket.balance -= GIB
    assert given_back(draft, catalogue, draft.now_ms) == 24_000_000


def test_a_period_charged_by_an_earlier_release_is_given_back_by_what_the_catalogue_gives(catalogue: Catalogue) -> None:
    """Neither when the period began nor what was given is in its store; from an import not even the bucket."""
    draft = opened(at("2026-11-16 12:00"))
    take_offer(draft, catalogue, "small")
    assert draft.account.offers[0].given == (GIB * 5 // 2,)
    draft.account.buckets[1].balance -= GIB
    for older in (
        replace(draft.account.offers[0], paid_from_ms=0, given=()),
        replace(draft.account.offers[0], paid_from_ms=0, given=(), buckets=()),
    ):
        draft.account.offers = [older]
        assert unpack_account(b"a", pack_account(draft.account)).offers == [older]
        assert given_back(draft, catalogue, draft.now_ms) == 9_000_000  # 1.5 of 2.5 GiB, for 15.00
    draft.account.offers = [Offer("small", draft.now_ms, at("2026-12-01 00:00"), paid_micro=15_000_000)]
    draft.account.buckets[1].name = "other"
    assert given_back(draft, catalogue, draft.now_ms) == 0, "nothing is left of what was given"


def test_the_beginning_of_the_period_and_what_was_given_are_stored(catalogue: Catalogue) -> None:
    draft = opened()
    take_offer(draft, catalogue, "both")
    (offer,) = draft.account.offers
    assert (offer.paid_from_ms, offer.given) == (NOVEMBER, (5 * GIB, 6000))
    assert unpack_account(b"a", pack_account(draft.account)).offers == [offer]


@pytest.mark.parametrize(("start", "first", "second"), [*itertools.product((2, 10, 20), (1, 15, 28), (1, 5, 12, 25))])
def test_a_changed_cycle_day_gives_back_what_was_paid_for_the_days_left(
    catalogue: Catalogue, start: int, first: int, second: int
) -> None:
    """The fee is 30.00 a month: whoever has the offer for some days has paid about a euro a day."""
    draft = opened(at(f"2026-09-{start:02} 00:00"))
    draft.account.cycle_day = first
    take_offer(draft, catalogue, "line")
    change_cycle_day(draft, catalogue.calendar, second)
    for had in range(45):
        draft = Draft(draft.account, draft.now_ms + (DAY_MS if had else 0))
        renew_due(draft, catalogue)
        paid = 1000_000_000 - draft.account.buckets[0].balance - given_back(draft, catalogue, draft.now_ms)
        assert had * 930_000 - 1_500_000 <= paid <= had * 1_080_000 + 1_500_000, f"after {had} days"
