"""What charging data records say: all that explains a price, and partial records that add up to the whole."""

from dataclasses import replace
from pathlib import Path

import pytest

from balance.periods import PERIODS_KEPT
from occ.cdr_fields import BUCKET, FIELDS, PERIOD
from protocols.credit_control import ServiceRequest, Units
from tests.occ.cdr_lab import (
    CONTEXT,
    DEBIT,
    EVENT,
    HOUR,
    INITIAL,
    NOON,
    REFUND,
    TERMINATION,
    UPDATE,
    Ledger,
    catalogue,
    octets,
)

WANTED = Units(total_octets=100)
BEFORE_SWITCH = (Units(total_octets=10, tariff_change_usage=0),)
EVENING = "{08:00: 0.000001 per 1 B, 20:00: 0.000005 per 10 B}"
DOCUMENT = Path(__file__).parents[2] / "docs" / "cdr.md"


def test_the_record_of_a_short_session_says_it_all() -> None:
    ledger = Ledger()
    facts = {
        "called_station_id": b"internet",
        "sgsn_mcc_mnc": b"26201",
        "rat_type": b"\x06",
        "user_location": b"\x82\x62\xf2",
        "correlation_id": b"c-1",
    }
    ledger.send(INITIAL, 0, ServiceRequest(10, (), WANTED), sub_session_id=7, **facts)
    ledger.now += 60_000
    used = ServiceRequest(10, (), WANTED, octets(25), reporting_reason=3)
    ledger.send(UPDATE, 1, used, sub_session_id=7)
    ledger.now += 30_000
    last = (Units(total_octets=8, reporting_reason=2),)
    ledger.send(TERMINATION, 2, ServiceRequest(10, (), None, last), sub_session_id=7)
    closed = NOON + 90_000
    period = {
        "from_ms": NOON,
        "until_ms": closed,
        "units": 33,
        "counted_from": 0,
        "counted_to": 33,
        "cost_micro": 12,
        "leaked_micro": 0,
        "step_units": 10,
        "step_price_micro": 3,
        "terms": (),
        "price": "0.000003 per 10 B",
        "catalogue": "v1",
        "promotions": (),
        "band": None,
        "tiers": (),
    }
    (record,) = ledger.records
    assert record == {
        "record_id": f"{closed}-4-1-acc-1",
        "sequence": 1,
        "partial": False,
        "final": True,
        "cause": "normal",
        "session_id": "s",
        "sub_session_id": 7,
        "subscriber_id": "sub-1",
        "account_id": "acc-1",
        "account_version": 4,
        "member_of": "branch-7",
        "plan": "standard",
        "catalogue": "v1",
        "service": "internet",
        "rating_group": 10,
        "service_identifier": None,
        "zone": None,
        "unit": "octets",
        "used": 33,
        "disbelieved": 0,
        "reported": 33,
        "paid_units": 33,
        "allowance_units": 0,
        "cost_micro": 12,
        "debited_micro": 12,
        "leaked_micro": 0,
        "currency": "EUR",
        "step_units": 10,
        "step_price_micro": 3,
        "price_terms": (),
        "price": "0.000003 per 10 B",
        "periods": [period],
        "buckets": [{"bucket_id": 1, "name": None, "unit": "money", "amount": 12}],
        "promotions": (),
        "requests": 3,
        "first_request": 0,
        "last_request": 2,
        "reporting_reasons": ["final", "quota-exhausted"],
        "started_ms": NOON,
        "since_ms": NOON,
        "closed_ms": closed,
        "duration_ms": 90_000,
        "origin_host": "pgw.example.net",
        "origin_realm": "example.net",
        "service_context_id": CONTEXT.decode(),
        "calling_party": None,
        "called_party": None,
        "called_station_id": "internet",
        "sgsn_mcc_mnc": "26201",
        "rat_type": "06",
        "user_location": "8262f2",
        "sip_method": None,
        "role_of_node": None,
        "number_portability": None,
        "user_name": None,
        "correlation_id": "c-1",
        "band": None,
        "tiers": (),
        "access_network": None,
        "visited_network": None,
        "recipients": None,
        "policies": (),
    }
    assert ["entry", *record] == list(FIELDS)
    assert set(period) == set(PERIOD)
    assert set(record["buckets"][0]) == set(BUCKET)


def test_what_came_out_of_an_allowance_is_told_apart() -> None:
    ledger = Ledger(allowance=40)
    ledger.send(INITIAL, 0, ServiceRequest(10, (), WANTED))
    ledger.send(UPDATE, 1, ServiceRequest(10, (), WANTED, octets(30)))
    ledger.send(TERMINATION, 2, ServiceRequest(10, (), None, octets(25)))
    (record,) = ledger.records
    assert (record["used"], record["allowance_units"], record["paid_units"]) == (55, 40, 15)
    assert record["buckets"] == [
        {"bucket_id": 2, "name": None, "unit": "octets", "amount": 40},
        {"bucket_id": 1, "name": None, "unit": "money", "amount": 6},
    ]
    assert (record["debited_micro"], record["periods"][0]["counted_to"]) == (6, 15)


def test_what_no_balance_covers_leaks_and_is_in_no_bucket() -> None:
    ledger = Ledger(money=10)
    ledger.send(INITIAL, 0, ServiceRequest(20, (), Units(total_octets=10)))
    ledger.send(TERMINATION, 1, ServiceRequest(20, (), None, octets(25)))
    (record,) = ledger.records
    assert (record["cost_micro"], record["debited_micro"], record["leaked_micro"]) == (25, 10, 15)
    assert [bucket["amount"] for bucket in record["buckets"]] == [10]
    assert record["periods"][0]["leaked_micro"] == 15


def test_what_cannot_be_true_is_reported_but_not_used() -> None:
    ledger = Ledger()
    ledger.send(INITIAL, 0, ServiceRequest(30, (), Units(time=60)))
    ledger.send(TERMINATION, 1, ServiceRequest(30, (), None, (Units(time=100_000),)))
    (record,) = ledger.records
    assert (record["used"], record["disbelieved"], record["reported"]) == (60, 99_940, 100_000)


def test_each_service_of_a_session_has_its_own_record() -> None:
    ledger = Ledger()
    ledger.send(INITIAL, 5, ServiceRequest(10, (), WANTED), ServiceRequest(20, (), WANTED))
    ledger.now += 1000
    ledger.send(UPDATE, 6, ServiceRequest(30, (), Units(time=60)))
    ledger.send(
        TERMINATION, 7, ServiceRequest(10, (), None, octets(10)), ServiceRequest(30, (), None, (Units(time=1),))
    )
    assert [record["service"] for record in ledger.records] == ["internet", "video", "voice"]
    assert [record["debited_micro"] for record in ledger.records] == [3, 0, 2]
    assert [record["periods"] != [] for record in ledger.records] == [True, False, True]
    assert ledger.records[2]["periods"][0]["from_ms"] == NOON + 1000
    assert {(record["first_request"], record["last_request"], record["requests"]) for record in ledger.records} == {
        (5, 7, 3)
    }
    assert len({record["record_id"] for record in ledger.records}) == 3


# -- partial records ---------------------------------------------------------------------------------------------


def test_a_long_session_has_a_partial_record_every_hour() -> None:
    ledger = Ledger()
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED), ServiceRequest(10, (), WANTED))
    for number in range(1, 9):
        ledger.now += HOUR // 4
        ledger.send(UPDATE, number, ServiceRequest(20, (), WANTED, octets(number), reporting_reason=4))
    ledger.send(TERMINATION, 9, ServiceRequest(20, (), None, octets(9)))
    video = [record for record in ledger.records if record["service"] == "video"]
    assert [record["cause"] for record in video] == ["time-limit", "time-limit", "normal"]
    assert [record["sequence"] for record in video] == [1, 2, 3]
    assert [(record["partial"], record["final"]) for record in video] == [(True, False), (True, False), (True, True)]
    assert [record["used"] for record in video] == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8, 9]
    assert [(record["first_request"], record["last_request"]) for record in video] == [(0, 4), (5, 8), (9, 9)]
    assert [record["requests"] for record in video] == [5, 4, 1]
    assert [record["since_ms"] for record in video] == [NOON, NOON + HOUR, NOON + 2 * HOUR]
    assert [record["duration_ms"] for record in video] == [HOUR, HOUR, 0]
    assert [record["reporting_reasons"] for record in video] == [["validity-time"], ["validity-time"], []]
    # Nothing was used of the other: its one record is whole.
    (internet,) = [record for record in ledger.records if record["service"] == "internet"]
    assert (internet["sequence"], internet["partial"], internet["final"], internet["used"]) == (1, False, True, 0)
    assert ledger.recorded("debited_micro") == 45 == 1_000_000 - ledger.account.buckets[0].balance


def test_a_started_step_is_charged_once_although_the_record_ends_within_it() -> None:
    ledger = Ledger()
    ledger.send(INITIAL, 0, ServiceRequest(10, (), WANTED))
    ledger.now += HOUR
    ledger.send(UPDATE, 1, ServiceRequest(10, (), WANTED, octets(14)))
    ledger.send(TERMINATION, 2, ServiceRequest(10, (), None, octets(6)))
    first, second = ledger.records
    assert (first["debited_micro"], second["debited_micro"]) == (6, 0)
    assert second["periods"][0] | {"from_ms": 0, "until_ms": 0} == {
        **first["periods"][0],
        "from_ms": 0,
        "until_ms": 0,
        "units": 6,
        "counted_from": 14,
        "counted_to": 20,
        "cost_micro": 0,
    }


def test_a_session_in_which_nothing_is_used_has_no_partial_record() -> None:
    ledger = Ledger()
    ledger.send(INITIAL, 0, ServiceRequest(10, (), WANTED))
    ledger.now += 2 * HOUR
    ledger.send(UPDATE, 1, ServiceRequest(10, (), WANTED))
    assert ledger.records == []
    ledger.send(UPDATE, 2, ServiceRequest(10, (), WANTED, octets(1)))
    assert [(record["cause"], record["requests"]) for record in ledger.records] == [("time-limit", 3)]


def test_partial_records_can_be_switched_off() -> None:
    ledger = Ledger(sold=catalogue(video=EVENING), partial_ms=0)
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED))
    ledger.now += 9 * HOUR
    ledger.send(UPDATE, 1, ServiceRequest(20, (), WANTED, BEFORE_SWITCH))
    ledger.now += HOUR
    ledger.send(TERMINATION, 2, ServiceRequest(20, (), None, octets(10)))
    (record,) = ledger.records
    assert (record["partial"], record["used"], len(record["periods"])) == (False, 20, 2)


def test_a_change_of_price_ends_a_record() -> None:
    """The tariff switches at 20:00: what was used before stands in a record of its own, with its price."""
    ledger = Ledger(sold=catalogue(video=EVENING))
    ledger.now = NOON + 7 * HOUR + HOUR // 2
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED))
    ledger.now += HOUR // 3
    ledger.send(UPDATE, 1, ServiceRequest(20, (), WANTED, octets(10)))
    ledger.now += HOUR // 3
    before_and_after = (Units(total_octets=7, tariff_change_usage=0), Units(total_octets=15, tariff_change_usage=1))
    ledger.send(UPDATE, 2, ServiceRequest(20, (), WANTED, before_and_after))
    ledger.send(TERMINATION, 3, ServiceRequest(20, (), None, octets(6)))
    switch = NOON + 8 * HOUR
    first, last = ledger.records
    assert (first["cause"], first["used"], first["cost_micro"]) == ("price-change", 32, 17 + 10)
    assert [
        (each["from_ms"], each["until_ms"], each["units"], each["cost_micro"], each["step_units"])
        for each in first["periods"]
    ] == [(NOON + 7 * HOUR + HOUR // 2, switch, 17, 17, 1), (switch, ledger.now, 15, 10, 10)]
    assert (last["cause"], last["used"], last["cost_micro"]) == ("normal", 6, 5)
    assert [(each["counted_from"], each["counted_to"]) for each in last["periods"]] == [(15, 21)]


def test_the_time_band_of_each_price_is_named() -> None:
    """Over the switch, in partial records, and for a service that begins later than its session."""
    ledger = Ledger(sold=catalogue(video="{Mo-Fr 08:00: 0.000001 per 1 B, 'Mo-Fr 20:00': 0.000005 per 10 B}"))
    ledger.now = NOON + 7 * HOUR + HOUR // 2
    ledger.send(INITIAL, 0, ServiceRequest(10, (), WANTED))
    ledger.now += HOUR // 3
    ledger.send(UPDATE, 1, ServiceRequest(20, (), WANTED))
    ledger.now += HOUR // 3
    both = (Units(total_octets=7, tariff_change_usage=0), Units(total_octets=15, tariff_change_usage=1))
    ledger.send(UPDATE, 2, ServiceRequest(20, (), WANTED, both))
    ledger.now += 2 * HOUR
    ledger.send(UPDATE, 3, ServiceRequest(20, (), WANTED, octets(1)))
    ledger.send(TERMINATION, 4, ServiceRequest(20, (), None, octets(6)), ServiceRequest(10, (), None, octets(1)))
    found = [
        (record["cause"], record["band"], [period["band"] for period in record["periods"]])
        for record in ledger.records
        if record["service"] == "video"
    ]
    assert found == [
        ("price-change", "Mo-Fr 20:00", ["Mo-Fr 08:00", "Mo-Fr 20:00"]),
        ("time-limit", "Mo-Fr 20:00", ["Mo-Fr 20:00"]),
        ("normal", "Mo-Fr 20:00", ["Mo-Fr 20:00"]),
    ]
    assert {record["band"] for record in ledger.records if record["service"] == "internet"} == {None}


def test_a_band_is_named_as_the_catalogue_names_it_that_the_price_is_of() -> None:
    ledger = Ledger(sold=catalogue("v1", EVENING))
    ledger.now = NOON + 7 * HOUR + HOUR // 2
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED))
    ledger.sell(catalogue("v2", "{Mo-Su 09:00: 0.000001 per 1 B, Mo-Su 21:00: 0.000005 per 10 B}"))
    ledger.now += 3 * HOUR
    both = (Units(total_octets=1, tariff_change_usage=0), Units(total_octets=4, tariff_change_usage=1))
    ledger.send(TERMINATION, 1, ServiceRequest(20, (), None, both))
    (record,) = ledger.records
    assert [(each["catalogue"], each["band"]) for each in record["periods"]] == [("v1", "08:00"), ("v1", "20:00")]


def test_more_periods_than_a_record_keeps_become_one() -> None:
    ledger = Ledger(sold=catalogue(video=EVENING), money=10**9, partial_ms=0)
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED))
    for number in range(1, PERIODS_KEPT + 10):
        ledger.now += 12 * HOUR
        ledger.send(UPDATE, number, ServiceRequest(20, (), WANTED, BEFORE_SWITCH))
    ledger.send(TERMINATION, number + 1, ServiceRequest(20, (), None))
    (record,) = ledger.records
    assert len(record["periods"]) <= PERIODS_KEPT + 1
    assert record["periods"][PERIODS_KEPT - 1]["step_units"] == 0
    assert sum(period["units"] for period in record["periods"]) == record["used"] == 10 * (PERIODS_KEPT + 9)
    assert sum(period["cost_micro"] for period in record["periods"]) == record["debited_micro"]
    assert record["debited_micro"] == 10**9 - ledger.account.buckets[0].balance


def test_the_catalogue_of_each_price_is_named() -> None:
    """A session keeps its prices when the catalogue changes; what begins later is priced by the new one."""
    ledger = Ledger(sold=catalogue("v1", EVENING))
    ledger.now = NOON + 7 * HOUR + HOUR // 2
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED), ServiceRequest(10, (), WANTED))
    ledger.sell(catalogue("v2", EVENING))
    ledger.now += HOUR // 4
    used = [ServiceRequest(20, (), WANTED, octets(5)), ServiceRequest(10, (), WANTED, octets(5))]
    ledger.send(UPDATE, 1, *used, ServiceRequest(30, (), Units(time=60)))
    ledger.sell(catalogue("v3", EVENING))
    ledger.now += HOUR // 2
    both = (Units(total_octets=1, tariff_change_usage=0), Units(total_octets=4, tariff_change_usage=1))
    used = [ServiceRequest(20, (), None, both), ServiceRequest(10, (), None, octets(5))]
    ledger.send(TERMINATION, 2, *used, ServiceRequest(30, (), None, (Units(time=5),)))
    found = {record["service"]: [period["catalogue"] for period in record["periods"]] for record in ledger.records}
    # The price of the evening was looked up when v2 was in force.
    assert found == {"internet": ["v1"], "video": ["v1", "v2"], "voice": ["v2"]}


def test_tiers_and_promotions_are_named() -> None:
    """The price of each period in words, where in its tiers the use stood, and what was taken off."""
    tiers = "{tiers: [{up_to: 10 B, price: 0.000010 per 1 B}, {price: 0.000004 per 1 B}], counted: session}"
    evening = "{discount: 50 %, happy_hour: {days: Mo-Su, from: 20:00, to: 23:00}}"
    promotions = f"promotions:\n  - {{name: late, {evening[1:]}\n"
    ledger = Ledger(sold=catalogue(video=tiers, more=promotions))
    ledger.now = NOON + 7 * HOUR + HOUR // 2
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED))
    ledger.now += HOUR // 4
    ledger.send(UPDATE, 1, ServiceRequest(20, (), WANTED, octets(12)))
    ledger.now += HOUR // 2
    late = (Units(total_octets=5, tariff_change_usage=1),)
    ledger.send(TERMINATION, 2, ServiceRequest(20, (), None, late))
    (record,) = ledger.records
    before, after = record["periods"]
    assert (before["counted_from"], before["counted_to"], before["cost_micro"]) == (0, 12, 108)
    assert (after["units"], after["counted_to"] - after["counted_from"], after["cost_micro"]) == (5, 5, 10)
    # Of the tiers only the last is left after the switch, which is a price without tiers.
    assert (before["tiers"], after["tiers"]) == (("up to 10 B", "beyond 10 B"), ())
    assert record["tiers"] == ("up to 10 B", "beyond 10 B")
    assert before["price"] == "0.00001 per 1 B up to 10 B, 0.000004 per 1 B beyond, counted over the session"
    assert after["price"].endswith(", less 50 %")
    assert (before["promotions"], after["promotions"], record["promotions"]) == ((), ("late",), ("late",))
    assert before["terms"] != ()


# -- ends that are not the client's ------------------------------------------------------------------------------


def test_row_22_a_late_termination_has_a_record_of_what_it_adds() -> None:
    ledger = Ledger()
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED), ServiceRequest(10, (), WANTED))
    ledger.now += 1000
    ledger.send(UPDATE, 1, ServiceRequest(20, (), WANTED, octets(10)))
    ledger.now += HOUR
    ledger.expire()
    assert [(record["service"], record["cause"]) for record in ledger.records] == [
        ("video", "incomplete"),
        ("internet", "incomplete"),
    ]
    ledger.send(TERMINATION, 2, ServiceRequest(20, (), None, octets(7)))
    late = ledger.records[2]
    assert (late["cause"], late["sequence"], late["used"], late["debited_micro"]) == ("late-termination", 2, 7, 7)
    assert (late["partial"], late["final"], late["requests"], late["last_request"]) == (True, True, 1, 2)
    assert ledger.recorded("debited_micro") == 17 == 1_000_000 - ledger.account.buckets[0].balance


def test_row_22_a_client_that_begins_anew_leaves_a_record_of_what_was() -> None:
    ledger = Ledger()
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED), origin_state_id=1)
    ledger.send(UPDATE, 1, ServiceRequest(20, (), WANTED, octets(10)), origin_state_id=1)
    ledger.send(INITIAL, 0, ServiceRequest(20, (), WANTED), origin_state_id=2)
    ledger.send(TERMINATION, 1, ServiceRequest(20, (), None, octets(5)), origin_state_id=2)
    assert [(record["cause"], record["used"], record["partial"]) for record in ledger.records] == [
        ("client-restarted", 10, False),
        ("normal", 5, False),
    ]
    assert len({record["record_id"] for record in ledger.records}) == 2


# -- events ------------------------------------------------------------------------------------------------------


def test_a_refund_is_a_record_below_zero_of_the_same_buckets() -> None:
    ledger = Ledger(allowance=4)
    ask = ServiceRequest(20, (), Units(total_octets=10))
    ledger.send(EVENT, 0, ask, requested_action=DEBIT, called_party=b"+49")
    ledger.now += 5000
    back = ServiceRequest(20, (), Units(total_octets=7), refund_information=b"s")
    ledger.send(EVENT, 0, back, session=b"r", requested_action=REFUND)
    ledger.send(EVENT, 1, replace(back, requested=None), session=b"r2", requested_action=REFUND)
    debit, first, second = ledger.records
    assert (debit["cause"], debit["used"], debit["debited_micro"], debit["sequence"]) == ("event", 10, 6, 1)
    assert (debit["partial"], debit["final"], debit["called_party"]) == (False, True, "+49")
    for record in (first, second):
        assert (record["cause"], record["session_id"], record["partial"], record["final"]) == (
            "refund",
            "s",
            True,
            True,
        )
    assert (first["sequence"], first["used"], first["paid_units"], first["debited_micro"]) == (2, -7, -6, -6)
    assert {bucket["bucket_id"]: bucket["amount"] for bucket in first["buckets"]} == {1: -6, 2: -1}
    assert (second["sequence"], second["used"], second["debited_micro"]) == (3, -3, 0)
    assert {bucket["bucket_id"]: bucket["amount"] for bucket in second["buckets"]} == {2: -3}
    assert [ledger.recorded(field) for field in ("used", "debited_micro", "paid_units")] == [0, 0, 0]
    assert [bucket.balance for bucket in ledger.account.buckets] == [1_000_000, 4]


def test_nobody_gives_back_what_another_client_has_debited() -> None:
    """RFC 8506 section 6.4: a refund is of the client's own debit; what names a debit can be guessed."""
    ledger = Ledger(allowance=4)
    ledger.send(EVENT, 0, ServiceRequest(20, (), Units(total_octets=10)), requested_action=DEBIT)
    back = ServiceRequest(20, (), Units(total_octets=7), refund_information=b"s")
    outcome = ledger.send(EVENT, 0, back, session=b"r", host=b"other.example.net", requested_action=REFUND)
    assert (outcome.result_code, len(ledger.records)) == (5004, 1)
    outcome = ledger.send(EVENT, 0, back, session=b"r2", host=b"PGW.example.net", requested_action=REFUND)
    assert (outcome.result_code, len(ledger.records)) == (2001, 2)


def test_fees_that_fall_due_at_once_have_a_record_each() -> None:
    more = "offers:\n  first: {fee: 0.10, every: month}\n  second: {fee: 0.20, every: day}\n"
    ledger = Ledger(sold=catalogue(more=more))
    ledger.rent("first", 40_000)
    ledger.rent("second", 0)
    ledger.expire()
    assert [
        (fee["cause"], fee["service"], fee["debited_micro"], fee["used"], fee["final"], fee["partial"])
        for fee in ledger.records
    ] == [("recurring", "first", 100_000, 1, True, False), ("recurring", "second", 200_000, 1, True, False)]
    assert [{each["bucket_id"]: each["amount"] for each in fee["buckets"]} for fee in ledger.records] == [
        {2: 40_000, 1: 60_000},
        {1: 200_000},
    ]
    first, second = ledger.records
    assert first["record_id"] != second["record_id"]
    assert (first["catalogue"], first["price"]) == ("v1", "0.10 per 1 event")
    assert (first["requests"], first["first_request"], first["last_request"]) == (0, None, None)
    assert (first["subscriber_id"], first["plan"], first["origin_host"]) == (None, None, None)


# -- the document ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [FIELDS, PERIOD, BUCKET], ids=["record", "period", "bucket"])
def test_every_field_is_explained(names: dict[str, object]) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in names if f"| `{name}` |" not in document] == []
