"""However a session is used, and however often its records are cut: added up they are all that it used and cost."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from balance.model import Unit
from occ.rating.price import price_of
from protocols.credit_control import ServiceRequest, Units
from tests.occ.cdr_lab import HOUR, INITIAL, NOON, TERMINATION, UPDATE, Ledger, catalogue, octets

NIGHT = "{08:00: 0.000004 per 10 B, 20:00: 0.000003 per 7 B, 22:00: free}"
GROUPS = (10, 20)

usage = st.fixed_dictionaries(
    {},
    optional={group: st.integers(0, 60) for group in GROUPS},
)
"""Rating-Group to octets reported."""
sides = st.sampled_from([None, 0, 1])
"""Tariff-Change-Usage."""
updates = st.lists(st.tuples(st.integers(0, 2 * HOUR), usage, sides), max_size=12)
"""(ms later, usage, side of a tariff switch)."""
endings = st.sampled_from(["termination", "silence", "late", "open"])


def services(used: dict[int, int], side: int | None, wanted: Units | None) -> list[ServiceRequest]:
    return [
        ServiceRequest(group, (), wanted, (Units(total_octets=amount, tariff_change_usage=side),))
        for group, amount in used.items()
    ]


@settings(max_examples=300, deadline=None)
@given(
    updates=updates,
    ending=endings,
    every_ms=st.sampled_from([0, 1, HOUR // 2, HOUR]),
    money=st.integers(20, 300),
    allowance=st.integers(0, 60),
)
def test_partial_records_add_up(updates: list[Any], ending: str, every_ms: int, money: int, allowance: int) -> None:
    ledger = Ledger(money, allowance, catalogue(video=NIGHT), every_ms)
    wanted = Units(total_octets=20)
    ledger.now = NOON + 7 * HOUR
    ledger.send(INITIAL, 0, *(ServiceRequest(group, (), wanted) for group in GROUPS))
    reported: Counter[int] = Counter()
    number = 0
    for later_ms, used, side in updates:
        number += 1
        ledger.now += later_ms
        if ledger.open_session() is None:
            break
        ledger.send(UPDATE, number, *services(used, side, wanted))
        reported.update(used)
        spent = money - ledger.account.buckets[0].balance
        assert ledger.recorded("debited_micro") + ledger.unrecorded() == spent
    _end(ledger, ending, number + 1, reported)
    _check(ledger, ending, money, allowance, reported)


def _end(ledger: Ledger, ending: str, number: int, reported: Counter[int]) -> None:
    if ending == "termination":
        ledger.send(TERMINATION, number, ServiceRequest(10, (), None, octets(3)))
        reported[10] += 3
    elif ending in ("silence", "late"):
        ledger.now += 3 * HOUR
        ledger.expire()
        if ending == "late":
            ledger.send(TERMINATION, number, ServiceRequest(20, (), None, octets(5)))
            reported[20] += 5


def _check(ledger: Ledger, ending: str, money: int, allowance: int, reported: Counter[int]) -> None:
    spent = {bucket.bucket_id: bucket.balance for bucket in ledger.account.buckets}
    begun = {1: money, 2: allowance}
    taken: Counter[int] = Counter()
    for record in ledger.records:
        for bucket in record["buckets"]:
            taken[bucket["bucket_id"]] += bucket["amount"]
    assert len({record["record_id"] for record in ledger.records}) == len(ledger.records)
    if ledger.open_session() is None:
        assert ledger.unrecorded() == 0
        assert {bucket: begun[bucket] - left for bucket, left in spent.items()} == {
            bucket: taken[bucket] for bucket in spent
        }
        for group in GROUPS:
            records = [record for record in ledger.records if record["rating_group"] == group]
            assert sum(record["used"] for record in records) == reported[group]
            assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
            finals = [record["final"] for record in records]
            assert finals == sorted(finals)
            assert finals.count(True) == (2 if records and records[-1]["cause"] == "late-termination" else 1)
    for record in ledger.records:
        _explains_itself(record)


def _explains_itself(record: dict[str, Any]) -> None:
    """Its parts add up, and each period's price is what the units that were counted cost by its terms."""
    periods, buckets = record["periods"], record["buckets"]
    assert record["used"] == record["paid_units"] + record["allowance_units"] == sum(each["units"] for each in periods)
    assert record["cost_micro"] == record["debited_micro"] + record["leaked_micro"]
    assert record["cost_micro"] == sum(each["cost_micro"] for each in periods)
    assert record["leaked_micro"] == sum(each["leaked_micro"] for each in periods)
    by_unit: Counter[str] = Counter()
    for bucket in buckets:
        by_unit[bucket["unit"]] += bucket["amount"]
    assert (by_unit["money"], by_unit["octets"]) == (record["debited_micro"], record["allowance_units"])
    moment = record["started_ms"]
    for each in periods:
        assert moment <= each["from_ms"] <= each["until_ms"]
        moment = each["until_ms"]
        price = price_of(Unit.OCTETS, each["step_units"], each["step_price_micro"], each["terms"])
        cost = price.price_micro(each["counted_to"]) - price.price_micro(each["counted_from"])
        assert cost == each["cost_micro"]
