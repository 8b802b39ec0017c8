"""Short messages to several recipients, and calls from visited networks: what the client tells decides the price."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from balance.embedded import Address
from balance.model import Unit
from balance.store import Store, StoreSettings
from balance.verify import verify
from occ.rating.price import CallPrice, FreePrice, StepPrice, TieredPrice
from occ.rating.recipients import dearest, price_of_all
from occ.rating.tariff import Refusal
from occ.rating.tiers import Tier
from protocols.credit_control import Units
from tests.occ.operator_lab import (
    EVENT,
    INITIAL,
    SMS,
    TERMINATION,
    VOICE,
    Operator,
    at,
    messages,
    seconds,
)

E = Unit.EVENTS
CATALOGUE = """
version: r
currency: EUR
numbering: {country_code: 49, national_prefix: "0"}
destinations: {national: [49], france: [33], satellite: [881], special: ["49900"], world: any}
networks: {home: [26201], eu: [208], world: any}
services:
  sms-special: {context: 32274@3gpp.org, destinations: [special], unit: events, quota: 1 event, validity: 1 h}
  sms: {context: 32274@3gpp.org, unit: events, quota: 1 event, maximum_quota: 99 events, validity: 1 h}
  call: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, validity: 5 min}
plans:
  standard:
    sms-special: {connection: 0.20, price: 1.00 per 1 event}
    sms: {by_destination: {national: 0.05 per 1 event, france: 0.15 per 1 event, world: 0.30 per 1 event}}
    call: {by_network: {home: 0.05 per 60 s, eu: 0.10 per 60 s, world: 1.00 per 60 s}}
"""
GERMAN, FRENCH, OTHER = b"4917012345678", b"33612345678", b"12025550100"


@pytest.fixture
async def operator(clean_redis: Address) -> AsyncIterator[Operator]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    operator = Operator(store, CATALOGUE, at("2026-03-10 12:00"))
    await operator.account("a", 1000)
    await operator.subscriber("ann", "a")
    yield operator
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def send(operator: Operator, session: str, *recipients: bytes, wants: Units | None = None) -> int:
    """A message as a direct debit; the Result-Code."""
    facts: dict[str, Any] = {"called_party": recipients[0], "recipients": recipients if len(recipients) > 1 else ()}
    wanted = wants or messages(1)
    outcome = await operator.ask(session, EVENT, wants=wanted, context=SMS, group=None, **facts)
    return outcome.result_code


@pytest.mark.parametrize(
    ("recipients", "asked", "cents"),
    [
        ((GERMAN,), 1, 5),
        ((GERMAN, GERMAN), 1, 10),
        ((GERMAN, FRENCH, OTHER), 1, 50),
        ((OTHER, FRENCH, GERMAN), 3, 50),
        ((GERMAN, FRENCH), 6, 60),  # three parts of a long message for each
        ((GERMAN, b"4990012345"), 1, 20 + 2 * 100),  # a connection fee: each costs what the dearest does
    ],
)
async def test_each_recipient_is_a_message_at_its_own_price(
    operator: Operator, recipients: tuple[bytes, ...], asked: int, cents: int
) -> None:
    assert await send(operator, "m", *recipients, wants=messages(asked)) == 2001
    assert await operator.cents("a") == 1000 - cents
    (record,) = await operator.records("event")
    assert record["used"] == max(asked, len(recipients))
    assert record["recipients"] == (None if len(recipients) == 1 else [each.decode() for each in recipients])


async def test_a_recipient_that_is_not_sold_stops_the_message_to_all(operator: Operator) -> None:
    assert await send(operator, "m", GERMAN, b"881123456789") == 5031
    assert await operator.cents("a") == 1000


async def test_money_for_all_or_none_is_sent(operator: Operator) -> None:
    await operator.account("poor", 40)
    await operator.subscriber("bob", "poor")
    facts: dict[str, Any] = {"called_party": GERMAN, "recipients": (GERMAN, FRENCH, OTHER)}
    outcome = await operator.ask("m", EVENT, "bob", wants=messages(1), context=SMS, group=None, **facts)
    assert outcome.result_code == 4012
    assert await operator.cents("poor") == 40


async def test_a_message_with_reservation_is_reserved_for_all(operator: Operator) -> None:
    """TS 32.299 clause 5.2.2: reserved when it is submitted, debited when it has been."""
    facts: dict[str, Any] = {"context": SMS, "group": None, "called_party": FRENCH, "recipients": (FRENCH, GERMAN)}
    outcome = await operator.ask("m", INITIAL, wants=messages(1), **facts)
    assert outcome.grants[0].units == 2
    assert (await operator.read("a")).buckets[0].reserved == 200_000
    await operator.ask("m", TERMINATION, used=messages(2), **facts)
    assert await operator.cents("a") == 1000 - 20


def step(micro: int) -> StepPrice:
    return StepPrice(E, 1, micro)


def test_prices_are_put_together_dearest_first() -> None:
    tiers = TieredPrice(E, (Tier(2, 1, 30), Tier(6, 1, 10), Tier(0, 1, 0)))
    assert price_of_all([step(10), FreePrice(E), step(30), step(10)], 2) == tiers
    assert price_of_all([step(10), step(10)], 1) == step(10)
    assert price_of_all([step(10), StepPrice(E, 2, 30)], 1) == StepPrice(E, 2, 30)
    fee = CallPrice(step(5), connection_micro=50)
    assert price_of_all([step(10), fee], 1) == fee
    refusal = Refusal(4010)
    assert price_of_all([step(10), refusal, step(90)], 1) is refusal
    assert dearest([step(10), step(30), step(30)]) == 1


# -- visited networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "cents", "zone"),
    [
        ({}, 5, "home"),
        ({"access_network": b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2620112340000001"}, 5, "home"),
        ({"access_network": b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2080112340000001"}, 10, "eu"),
        ({"access_network": b"3GPP-UTRAN-FDD;utran-cell-id-3gpp=3104101234ABCDEF0"}, 100, "world"),
        ({"access_network": b"IEEE-802.11", "visited_network": b"ims.mnc001.mcc208.3gppnetwork.org"}, 10, "eu"),
        ({"visited_network": b"visited.example.net"}, 5, "home"),
    ],
)
async def test_a_call_costs_what_the_visited_network_does(
    operator: Operator, facts: dict[str, Any], cents: int, zone: str
) -> None:
    """Access-Network-Information names the cell, else IMS-Visited-Network-Identifier the network (TS 24.229)."""
    await operator.ask("c", INITIAL, wants=seconds(60), context=VOICE, group=None, **facts)
    operator.now += 60_000
    await operator.ask("c", TERMINATION, used=seconds(60), context=VOICE, group=None)
    assert await operator.cents("a") == 1000 - cents
    (record,) = await operator.records("normal")
    assert record["zone"] == zone
    assert record["access_network"] == (facts["access_network"].decode() if "access_network" in facts else None)
    assert record["visited_network"] == (facts["visited_network"].decode() if "visited_network" in facts else None)
