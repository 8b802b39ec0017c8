"""Budgets of promotions: a promotion that has given all it may gives nothing more, and what it gave is counted once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from balance.embedded import Address
from balance.store import Store, StoreSettings
from balance.verify import verify
from occ.budgets import Budgets
from tests.occ.operator_lab import EVENT, INITIAL, TERMINATION, UPDATE, Operator, at, catalogue_of, mib
from tests.shell import Shell

CATALOGUE = """
version: b
currency: EUR
services:
  capped: {context: 32251@3gpp.org, rating_groups: [30], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
  free: {context: 32251@3gpp.org, rating_groups: [40], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
  gone: {context: 32251@3gpp.org, rating_groups: [50], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
  evening: {context: 32251@3gpp.org, rating_groups: [60], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
plans:
  standard:
    capped: 0.10 per 1 MiB
    free: 0.10 per 1 MiB
    gone: 0.10 per 1 MiB
    evening: 0.10 per 1 MiB
    internet: 0.10 per 1 MiB
    caps: {capped: 0.12 per day}
promotions:
  - {name: fifth, discount: 20 %, budget: 0.06, when: {services: [internet]}}
  - {name: tenth, discount: 10 %, when: {services: [internet]}}
  - {name: half, discount: 50 %, budget: 9.00, when: {services: [capped]}}
  - {name: first-mib, free: 1 MiB per call, budget: 2 times, when: {services: [free]}}
  - {name: gift, discount: 100 %, budget: 0.20, when: {services: [gone]}}
  - {name: happy, discount: 50 %, budget: 0.10, happy_hour: {from: "20:00", to: "22:00"}, when: {services: [evening]}}
"""  # noqa: E501 - a table is read across


@pytest.fixture
async def operator(clean_redis: Address) -> AsyncIterator[Operator]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    operator = Operator(store, CATALOGUE, at("2026-03-10 12:00"))
    await operator.account("home", 1000)
    await operator.subscriber("ann", "home")
    yield operator
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def use(operator: Operator, session: str, amount: int, group: int = 10) -> int:
    """A session of so many MiB; what it cost, in micro-units."""
    before = (await operator.read("home")).buckets[0].balance
    await operator.ask(session, INITIAL, wants=mib(amount), group=group)
    await operator.ask(session, TERMINATION, used=mib(amount), group=group)
    return before - (await operator.read("home")).buckets[0].balance


async def test_a_discount_ends_with_its_budget_and_the_next_one_takes_over(operator: Operator) -> None:
    """Three MiB save 0.06, which is the budget: from then on the other discount applies."""
    assert await use(operator, "a", 2) == 160_000
    assert await operator.store.spent() == {"fifth": 40_000}
    assert await use(operator, "b", 1) == 80_000
    assert await use(operator, "c", 2) == 180_000
    assert await operator.store.spent() == {"fifth": 60_000}


async def test_a_running_session_loses_it_with_the_next_grant(operator: Operator) -> None:
    """What was granted at the lower price is charged at it, so the last grant may overspend; the next one does not."""
    await operator.ask("s", INITIAL, wants=mib(5))
    await operator.ask("s", UPDATE, used=mib(5), wants=mib(5))
    assert await operator.cents("home") == 1000 - 40
    assert await operator.store.spent() == {"fifth": 100_000}
    await operator.ask("s", TERMINATION, used=mib(5))
    assert await operator.cents("home") == 1000 - 40 - 45
    assert await operator.store.spent() == {"fifth": 100_000}
    periods = [each for record in await operator.records() for each in record["periods"]]
    told = [(each["promotions"], each["cost_micro"]) for each in periods]
    assert told == [(("fifth",), 400_000), (("tenth",), 450_000)]


async def test_a_repeated_report_is_counted_once(operator: Operator) -> None:
    await operator.ask("s", INITIAL, wants=mib(1))
    await operator.ask("s", TERMINATION, used=mib(1))
    operator.numbers["s"] = 1
    await operator.ask("s", TERMINATION, used=mib(1))
    assert await operator.store.spent() == {"fifth": 20_000}


async def test_another_worker_learns_of_it_when_it_reads(operator: Operator) -> None:
    """Until then it gives what is gone already: so much a budget can be overspent."""
    other = operator.another_worker()
    await use(operator, "a", 3)
    await operator.ask("late", INITIAL, wants=mib(1), worker=other)
    await operator.ask("late", TERMINATION, used=mib(1), worker=other)
    assert await operator.store.spent() == {"fifth": 80_000}
    await other.rules.budgets.read(operator.store)
    await operator.ask("then", INITIAL, wants=mib(1), worker=other)
    await operator.ask("then", TERMINATION, used=mib(1), worker=other)
    assert await operator.store.spent() == {"fifth": 80_000}


async def test_nobody_saves_what_a_cap_would_not_have_asked_for(operator: Operator) -> None:
    """Two MiB cost 0.12 by the cap and 0.10 with the discount: 0.02 are saved, not 0.10."""
    assert await use(operator, "a", 2, group=30) == 100_000
    assert await operator.store.spent() == {"half": 20_000}


async def test_times_are_counted_for_each_session_that_begins_with_it(operator: Operator) -> None:
    assert await use(operator, "a", 2, group=40) == 100_000
    await operator.ask("b", INITIAL, wants=mib(1), group=40)
    await operator.ask("b", UPDATE, used=mib(1), wants=mib(1), group=40)
    assert await operator.store.spent() == {"first-mib": 2}
    assert await use(operator, "c", 2, group=40) == 200_000, "a third session had it"
    await operator.ask("b", TERMINATION, used=mib(1), group=40)
    assert await operator.cents("home") == 1000 - 10 - 10 - 20
    assert await operator.store.spent() == {"first-mib": 2}


async def test_a_discount_of_everything_has_a_budget_too(operator: Operator) -> None:
    assert await use(operator, "a", 2, group=50) == 0
    assert await operator.store.spent() == {"gift": 200_000}
    assert await use(operator, "b", 1, group=50) == 100_000


async def test_a_happy_hour_that_begins_in_a_session_asks_the_budget_then(operator: Operator) -> None:
    operator.now = at("2026-03-10 19:50")
    await operator.ask("s", INITIAL, wants=mib(1), group=60)
    operator.now = at("2026-03-10 20:10")
    other = await use(operator, "other", 2, group=60)
    assert other == 100_000  # 0.05 off each of two: the budget is gone
    before = await operator.cents("home")
    await operator.ask("s", TERMINATION, used=mib(1), group=60)
    assert await operator.cents("home") == before - 10


async def test_a_direct_debit_counts_as_well_and_an_enquiry_does_not(operator: Operator) -> None:
    await operator.ask("e", EVENT, wants=mib(1))
    assert await operator.store.spent() == {"fifth": 20_000}
    await operator.ask("p", EVENT, wants=mib(1), requested_action=3)
    assert await operator.cents("home") == 1000 - 8
    assert await operator.store.spent() == {"fifth": 20_000}


def test_catalogues_without_budgets_ask_nobody() -> None:
    """Prices of promotions without a budget are made without a look at what is gone."""
    text = CATALOGUE[: CATALOGUE.index("promotions:")] + "promotions: [{name: tenth, discount: 10 %}]"
    assert catalogue_of(CATALOGUE).promotions.budgeted == {"fifth", "half", "first-mib", "gift", "happy"}
    assert not catalogue_of(text).promotions.budgeted


def test_what_this_worker_has_written_is_known_at_once() -> None:
    budgets = Budgets()
    budgets.add({"a": 5})
    budgets.add({"a": 2, "b": 1})
    assert (budgets.gone("a"), budgets.gone("b"), budgets.gone("c")) == (7, 1, 0)


def test_what_is_left_is_shown(clean_redis: Address, tmp_path: Path) -> None:
    shell = Shell(tmp_path, clean_redis, CATALOGUE)
    assert shell.json("catalogue", "budgets")[0] == {
        "promotion": "fifth", "budget": 60_000, "gone": 0, "in_times": False,
    }  # fmt: skip
    assert "2 times" in shell.text("catalogue", "budgets")
