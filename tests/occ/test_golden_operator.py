"""Whole stories of an operator, end to end: switches of tariff and clock, months that end, companies, promotions, money
that is no cash.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from balance.directory import NewBucket, add_account_bucket, create_account
from balance.embedded import Address
from balance.ledger import Draft
from balance.model import AccountKind, LedgerError, Unit
from balance.store import Store, StoreSettings
from balance.structure import CustomerUnit, Pays, UnitKind, create_unit
from balance.transfers import transfer_money
from balance.verify import verify
from occ.renewals import take_offer
from tests.occ.operator_lab import (
    DAY_MS,
    EVENT,
    INITIAL,
    SMS,
    TERMINATION,
    UPDATE,
    VOICE,
    Operator,
    at,
    messages,
    mib,
    seconds,
)

BERLIN = "Europe/Berlin"
CATALOGUE = """
version: g
currency: EUR
time_zone: Europe/Berlin
numbering: {country_code: 49, national_prefix: "0", ported: routing-number}
destinations: {national: [49], mobile-x: ["49800"], world: any}
services:
  night: {context: 32260@3gpp.org, rating_groups: [2], unit: seconds, quota: 60 s, maximum_quota: 2 h, validity: 2 h}
  ported: {context: 32260@3gpp.org, rating_groups: [3], unit: seconds, quota: 60 s, validity: 1 h}
  call: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, maximum_quota: 1 h, validity: 1 h}
  message: {context: 32274@3gpp.org, unit: events, quota: 1 event, maximum_quota: 9 events, validity: 1 h}
  tiered: {context: 32251@3gpp.org, rating_groups: [20], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 2 h}
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 2 h}
plans:
  standard:
    night: {"00:00": 0.10 per 60 s, "03:00": 0.20 per 60 s}
    ported: {by_destination: {national: 0.10 per 60 s, mobile-x: 0.50 per 60 s}}
    call: {"08:00": 0.09 per 60 s, "20:00": 0.05 per 60 s}
    message: 0.10 per 1 event
    tiered: 0.10 per 1 MiB
    internet: 0.10 per 1 MiB
    caps: {internet: 0.30 per month}
  dollars: {currency: USD, internet: 0.20 per 1 MiB}
bonuses:
  talk: {serves: [message], priority: 5}
offers:
  rental: {fee: 1.00, every: month}
promotions:
  - {name: friends, friends: 50 %, when: {services: [night]}}
  - {name: students, discount: 10 %, when: {segment: student, services: [tiered], from: 2026-03-01, until: 2026-03-31}}
  - {name: much, discount: 50 %, when: {services: [tiered], usage_above: 2 MiB per month}}
  - {name: newcomers, free: 1 MiB per call, when: {services: [tiered], active_less_than: 30 d}}
"""  # noqa: E501 - a table is read across


@pytest.fixture
async def operator(clean_redis: Address) -> AsyncIterator[Operator]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    operator = Operator(store, CATALOGUE, at("2026-03-10 12:00", BERLIN))
    await operator.account("a", 10_00)
    await operator.subscriber("ann", "a", activated_ms=at("2025-01-01"))
    yield operator
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def call(operator: Operator, session: str, begins: str, length_s: int, group: int = 1, **facts: Any) -> int:
    """A call that reports when it ends; its price in cents."""
    before = await operator.cents("a")
    operator.now = at(begins, BERLIN)
    await operator.ask(session, INITIAL, wants=seconds(3600), context=VOICE, group=group, **facts)
    operator.now += length_s * 1000
    await operator.ask(session, TERMINATION, used=seconds(length_s), context=VOICE, group=group, **facts)
    return before - await operator.cents("a")


# -- the clock ---------------------------------------------------------------------------------------------------------


async def test_the_tariff_switches_at_eight_in_the_middle_of_a_call(operator: Operator) -> None:
    """From 19:58:30 to 20:01:30: two started minutes at 0.09, then two at 0.05."""
    operator.now = at("2026-03-10 19:58:30", BERLIN)
    facts: dict[str, Any] = {"context": VOICE, "group": 1}
    outcome = await operator.ask("c", INITIAL, wants=seconds(600), **facts)
    assert outcome.grants[0].units == 600
    operator.now = at("2026-03-10 20:01:30", BERLIN)
    await operator.ask("c", TERMINATION, used=seconds(180), **facts)
    assert await operator.cents("a") == 1000 - 2 * 9 - 2 * 5
    (record,) = await operator.records("normal")
    switch = at("2026-03-10 20:00", BERLIN)
    assert [(each["from_ms"], each["until_ms"], each["units"]) for each in record["periods"]] == [
        (switch - 90_000, switch, 90), (switch, switch + 90_000, 90),
    ]  # fmt: skip


async def test_the_night_in_which_an_hour_is_left_out(operator: Operator) -> None:
    """From 01:50 for 20 minutes on 29 March: ten minutes later it is 03:00, and dearer."""
    assert await call(operator, "c", "2026-03-29 01:50", 1200, 2) == 10 * 10 + 10 * 20


async def test_the_night_in_which_an_hour_comes_twice(operator: Operator) -> None:
    """From the first 02:50 for 80 minutes on 25 October: 70 of them are before 03:00."""
    assert await call(operator, "c", "2026-10-25 02:50", 4200 + 600, 2) == 70 * 10 + 10 * 20


async def test_a_month_ends_within_a_session(operator: Operator) -> None:
    """The cap of January is reached; what is used after midnight is of February."""
    operator.now = at("2026-01-31 23:50", BERLIN)
    await operator.ask("s", INITIAL, wants=mib(9))
    operator.now += 5 * 60_000
    await operator.ask("s", UPDATE, used=mib(9), wants=mib(9))
    assert await operator.cents("a") == 1000 - 30
    operator.now = at("2026-02-01 00:10", BERLIN)
    await operator.ask("s", UPDATE, used=mib(2), wants=mib(9))
    assert await operator.cents("a") == 1000 - 30 - 20
    await operator.ask("s", TERMINATION, used=mib(9))
    assert await operator.cents("a") == 1000 - 30 - 30


# -- who pays ----------------------------------------------------------------------------------------------------------


async def test_a_company_with_500_branches_pays_for_all(operator: Operator) -> None:
    """Subscribers of two branches at once; the account of the company is debited, the records name the branch."""
    store, now = operator.store, operator.now
    await operator.account("acme", credit_cents=5000)
    await create_unit(store, CustomerUnit(b"acme", UnitKind.COMPANY, "", b"", Pays.ITSELF, b"acme"), now, "test")
    names = [f"branch-{number}" for number in range(500)]
    for at_once in range(0, len(names), 100):
        page = names[at_once : at_once + 100]
        await asyncio.gather(*(operator.account(name, credit_cents=1) for name in page))
        units = [CustomerUnit(each.encode(), UnitKind.BRANCH, "", b"acme", Pays.PARENT, each.encode()) for each in page]
        await asyncio.gather(*(create_unit(store, unit, now, "test") for unit in units))
    await asyncio.gather(*(operator.subscriber(f"desk-{name}", name) for name in (names[0], names[499])))
    desks = (f"desk-{names[0]}", f"desk-{names[499]}")
    await asyncio.gather(*(operator.ask(desk, INITIAL, desk, wants=messages(2), context=SMS) for desk in desks))
    await asyncio.gather(*(operator.ask(desk, TERMINATION, desk, used=messages(2), context=SMS) for desk in desks))
    assert (await operator.cents("acme"), await operator.cents(names[0])) == (-40, 0)
    told = {(each["account_id"], each["member_of"]) for each in await operator.records("normal")}
    assert told == {("acme", names[0]), ("acme", names[499])}


async def test_an_account_in_another_currency_has_plans_in_it(operator: Operator) -> None:
    await create_account(
        operator.store, b"usd", AccountKind.PREPAID, 840, now_ms=1, reason="test", balance_micro=1_000_000
    )
    await operator.subscriber("us", "usd", "dollars")
    await operator.subscriber("wrong", "usd", "standard")
    await operator.ask("s", INITIAL, "us", wants=mib(1))
    await operator.ask("s", TERMINATION, "us", used=mib(1))
    assert await operator.cents("usd") == 80
    assert (await operator.records("normal"))[0]["currency"] == "USD"
    assert (await operator.ask("w", INITIAL, "wrong", wants=mib(1))).result_code == 5031


async def test_a_ported_number_has_the_price_of_the_network_that_it_went_to(operator: Operator) -> None:
    called = b"tel:+493012345678"
    assert await call(operator, "c", "2026-03-10 12:00", 60, 3, called_party=called) == 10
    ported: dict[str, Any] = {"called_party": called, "number_portability": b"tel:+493012345678;rn=+49800123456;npdi"}
    assert await call(operator, "d", "2026-03-10 13:00", 60, 3, **ported) == 50


# -- promotions --------------------------------------------------------------------------------------------------------


async def data(operator: Operator, session: str, who: str, amount: int) -> int:
    before = await operator.cents("b")
    await operator.ask(session, INITIAL, who, wants=mib(amount), group=20)
    await operator.ask(session, TERMINATION, who, used=mib(amount), group=20)
    return before - await operator.cents("b")


async def test_promotions_by_segment_date_usage_and_age_of_the_customer(operator: Operator) -> None:
    await operator.account("b", 10_00)
    await operator.subscriber("student", "b", segment="student", activated_ms=at("2025-01-01"))
    await operator.subscriber("old", "b", activated_ms=at("2025-01-01"))
    assert await data(operator, "a", "student", 1) == 9
    assert await data(operator, "b", "old", 2) == 20
    assert await data(operator, "c", "old", 2) == 10  # three MiB were used in the month
    operator.now = at("2026-04-01 12:00", BERLIN)
    assert await data(operator, "d", "student", 1) == 10
    await operator.subscriber("new", "b", activated_ms=operator.now)
    assert await data(operator, "e", "new", 2) == 10
    operator.now += 30 * DAY_MS
    assert await data(operator, "f", "new", 2) == 20


async def test_friends_and_family(operator: Operator) -> None:
    await operator.account("b", 10_00)
    await operator.subscriber("bob", "b", friends=(b"493012345678",), activated_ms=at("2025-01-01"))
    for session, called, cents in (("a", b"tel:+493012345678", 10), ("b", b"tel:+493012345679", 20)):
        before = await operator.cents("b")
        facts: dict[str, Any] = {"context": VOICE, "group": 2, "called_party": called}
        await operator.ask(session, INITIAL, "bob", wants=seconds(60), **facts)
        operator.now += 60_000
        await operator.ask(session, TERMINATION, "bob", used=seconds(60), **facts)
        assert before - await operator.cents("b") == cents


# -- money that is no cash ---------------------------------------------------------------------------------------------


async def test_bonus_money_is_spent_first_and_never_becomes_cash(operator: Operator) -> None:
    """A refund puts it back where it was; it pays no fee, cannot be transferred, and serves what it is for only."""
    await operator.account("b", 0)
    await operator.subscriber("bob", "b")
    bonus = NewBucket(Unit.MONEY, 1_000_000, 5, 0, "talk")
    await add_account_bucket(operator.store, b"b", bonus, operator.now, "test")
    assert (await operator.ask("i", INITIAL, "bob", wants=mib(1))).result_code == 4012
    facts: dict[str, Any] = {"context": SMS, "group": None}
    assert (await operator.ask("m", EVENT, "bob", wants=messages(3), **facts)).result_code == 2001
    assert (await operator.cents("b"), await operator.units("b", "talk")) == (0, 700_000)
    refunded = await operator.ask("m", EVENT, "bob", wants=messages(3), requested_action=1, **facts)
    assert refunded.result_code == 2001
    assert (await operator.cents("b"), await operator.units("b", "talk")) == (0, 1_000_000)
    with pytest.raises(LedgerError):
        await transfer_money(
            operator.store, b"b", b"a", 10_000, now_ms=operator.now, reason="test", reference="t-1", valid_for_ms=0
        )
    with pytest.raises(LedgerError, match="cannot be paid"):
        take_offer(Draft(await operator.read("b"), operator.now), operator.catalogue, "rental")
