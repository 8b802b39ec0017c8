"""Charging by the rules: access, grants up to a threshold, free hours, meters, and what records say of it."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance.model import AccountKind, LifeState, Subscriber
from occ.policing import REFUSALS
from occ.policy.concerned import Ask, overtaken
from occ.policy.watching import Transition
from occ.profiles import LENIENT, Profile, Reauthorisation
from occ.server_requests import Command
from policies.rules import Access
from protocols.credit_control import ServiceRequest, Units
from tests.occ.policy_lab import CENT, EVENT, INITIAL, SMS, TERMINATION, UPDATE, Policed, catalogue

NOON = 1_780_315_200_000
"""2026-06-01 12:00 UTC, a Monday."""
MINUTE = 60_000

DEAF = replace(LENIENT, name="deaf", reauthorisation=Reauthorisation.NONE)
PLAIN = replace(LENIENT, name="plain", redirects=False)

LEVELS = """
levels:
  low: {when: balance below 0.20, until: balance at least 0.40}
  zero: {when: balance at most 0}
  negative: {when: balance below 0}
  limit-reached: {when: credit at most 0}
  heavy: {when: counter internet per day at least 4 kB}
  bundle-used: {when: bucket bundle at most 0}
throttles:
  slow: {down: 128 kbit/s, up: 64 kbit/s, filter_id: slow}
  slow-by-pcrf: {down: 128 kbit/s, up: 64 kbit/s}
final_units:
  page: {redirect_to: "http://top-up.example.net/", ask_again_after: 10 min}
  end: terminate
rules:
"""


def rules(*lines: str) -> str:
    return LEVELS + "".join(f"  - {{rule: r{number}, {line}}}\n" for number, line in enumerate(lines, 1))


def berlin(*when: int) -> int:
    return int(datetime(*when, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * 1000  # type: ignore[arg-type, misc]


# -- access ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "code"), [("bar", 4010), ("bar for good", 5003), ("refuse", 4012), ("cut", 4010)])
def test_what_is_refused_has_its_result_code(action: str, code: int) -> None:
    """Row 28. What was used before the rule held is debited in the same answer (RFC 8506 section 9.1)."""
    ledger = Policed(rules(f"when: zero, services: internet, do: {action}"), 2, 100, now_ms=NOON)
    assert ledger.ask(INITIAL, 0, 10, 5000).units == 2000
    grant = ledger.ask(UPDATE, 1, 10, 5000, 2000)
    assert (grant.result_code, grant.units, grant.validity_time_s) == (code, -1, 0)
    assert (ledger.cents, ledger.levels) == (0, ("low", "zero"))
    assert ledger.ask(INITIAL, 0, 10, 5000, session=b"other").result_code == code
    assert ledger.ask(INITIAL, 0, 11, 1000, session=b"video").result_code == 2001, "no rule is about it"
    assert set(REFUSALS) | {Access.ALLOW, Access.FREE, Access.FINAL_UNITS} == set(Access)


def test_the_first_rule_that_says_something_decides() -> None:
    ledger = Policed(
        rules("services: portal, do: allow free", "do: bar, plans: other", "do: refuse, services: [portal, video]"),
        now_ms=NOON,
    )
    assert ledger.ask(INITIAL, 0, 20, 1000).result_code == 2001
    assert ledger.ask(UPDATE, 1, 11, 1000).result_code == 4012
    assert ledger.ask(UPDATE, 2, 10, 1000).result_code == 2001
    user = Subscriber(b"sub-2", b"acc-1", "other", ((0, b"492"),))
    assert ledger.ask(INITIAL, 0, 10, 1000, session=b"o", user=user).result_code == 4010


def test_rules_know_segment_kind_and_destination() -> None:
    only = rules(
        "segments: youth, services: internet, do: bar",
        "accounts: postpaid, services: video, do: bar",
        "destinations: [long-distance, world], services: voice, do: bar",
    )
    ledger = Policed(only, now_ms=NOON)
    young = Subscriber(b"sub-2", b"acc-1", "standard", ((0, b"492"),), segment="youth")
    assert ledger.ask(INITIAL, 0, 10, 1000).result_code == 2001
    assert ledger.ask(INITIAL, 0, 10, 1000, session=b"young", user=young).result_code == 4010
    assert ledger.ask(UPDATE, 1, 11, 1000).result_code == 2001
    postpaid = Policed(only, 0, 100, kind=AccountKind.POSTPAID, now_ms=NOON)
    assert postpaid.ask(INITIAL, 0, 11, 1000).result_code == 4010
    assert ledger.call(INITIAL, 0, "tel:+4930123456", 60).result_code == 2001
    for number, called in enumerate(("tel:+4989123456", "tel:+33123456")):
        assert ledger.call(INITIAL, 0, called, 60, session=b"call-%d" % number).result_code == 4010


def test_who_is_out_of_service_stays_so_whatever_rules_allow() -> None:
    """Row 28: states of life come first; only essential services get past them."""
    ledger = Policed(rules("services: portal, do: allow free"), now_ms=NOON)
    ledger.account_state(LifeState.SUSPENDED)
    assert ledger.ask(INITIAL, 0, 20, 1000).result_code == 4010


# -- free --------------------------------------------------------------------------------------------------------------


def test_what_is_free_costs_nothing_from_there_on_and_has_its_price_again() -> None:
    """A rule at a level: the price changes with the level, and each period stands in the record."""
    ledger = Policed(rules("when: zero, services: internet, do: allow free"), 2, 100, now_ms=NOON)
    assert ledger.ask(INITIAL, 0, 10, 2000).units == 2000
    grant = ledger.ask(UPDATE, 1, 10, 2000, 2000)
    assert (grant.units, ledger.account.buckets[0].reserved) == (2000, 0)
    assert ledger.ask(UPDATE, 2, 10, 2000, 2000).units == 2000
    assert (ledger.cents, ledger.reason()[3]) == (0, ("r1",))
    ledger.top_up(50)
    assert ledger.ask(UPDATE, 3, 10, 2000, 2000).units == 2000  # used while it was free
    assert ledger.account.buckets[0].reserved == 2 * CENT
    ledger.ask(TERMINATION, 4, 10, 0, 1000)
    assert ledger.cents == 49
    periods = [
        (period["units"], period["cost_micro"], period["price"])
        for record in ledger.records
        for period in record["periods"]
    ]
    assert [(units, cost) for units, cost, _ in periods] == [(2000, 2 * CENT), (4000, 0), (1000, CENT)]
    assert periods[1][2] == "free"
    assert [record["policies"] for record in ledger.records] == [("r1",), ("r1",), ()]


def test_a_tariff_switch_changes_nothing_of_what_is_free() -> None:
    sold = catalogue(internet="{'08:00': 0.01 per 1 kB, '13:00': 0.05 per 1 kB}")
    ledger = Policed(rules("services: internet, do: allow free"), 0, now_ms=NOON, sold=sold)
    assert ledger.ask(INITIAL, 0, 10, 2000).validity_time_s == 1800
    ledger.now += 55 * MINUTE
    assert ledger.ask(UPDATE, 1, 10, 2000, 2000).validity_time_s == 1800
    ledger.now += 10 * MINUTE
    grant = ledger.ask(UPDATE, 2, 10, 2000, 2000)
    ledger.ask(TERMINATION, 3, 10, 0, 2000)
    assert (grant.units, ledger.cents) == (2000, 0)
    assert [period["price"] for record in ledger.records for period in record["periods"]] == ["free", "free"]


# -- hours -------------------------------------------------------------------------------------------------------------


def test_free_nights_over_midnight_and_the_end_of_summer_time() -> None:
    """The night of 24 October 2026 has an hour more in Berlin; grants end with the rule's hours all the same."""
    sold = catalogue("Europe/Berlin")
    night = rules('services: internet, during: "20:00-08:00", do: allow free')
    ledger = Policed(night, 100, now_ms=berlin(2026, 10, 24, 19, 45), sold=sold)
    grant = ledger.ask(INITIAL, 0, 10, 10_000)
    assert (grant.units, grant.validity_time_s) == (10_000, 15 * 60)
    ledger.now = berlin(2026, 10, 24, 20, 0)
    grant = ledger.ask(UPDATE, 1, 10, 10_000, 10_000)
    assert (grant.units, grant.validity_time_s, ledger.cents) == (10_000, 1800, 90)
    ledger.now = berlin(2026, 10, 25, 0, 30)
    assert ledger.ask(UPDATE, 2, 10, 10_000, 10_000).validity_time_s == 1800
    # 02:30 is there twice; 08:00 is twelve hours and a half after 20:30 of the summer's clock.
    ledger.now = berlin(2026, 10, 24, 20, 0) + 12 * 60 * MINUTE + 45 * MINUTE
    assert ledger.ask(UPDATE, 3, 10, 10_000, 10_000).validity_time_s == 15 * 60
    ledger.now = berlin(2026, 10, 25, 8, 0)
    assert ledger.ask(UPDATE, 4, 10, 10_000, 10_000).units == 10_000
    assert (ledger.cents, ledger.account.buckets[0].reserved) == (90, 10 * CENT)
    ledger.ask(TERMINATION, 5, 10, 0, 10_000)
    assert ledger.cents == 80


def test_hours_of_some_days_end_at_midnight() -> None:
    """Monday to Friday 20:00-08:00 ends on Saturday at 08:00; 22:00-24:00 at midnight."""
    weekdays = Policed(
        rules("services: internet, during: Mo-Fr 20:00-08:00, do: bar"), now_ms=berlin(2026, 6, 6, 7, 59),
        sold=catalogue("Europe/Berlin"),
    )  # fmt: skip
    assert weekdays.ask(INITIAL, 0, 10, 1000).result_code == 4010
    weekdays.now += MINUTE
    assert weekdays.ask(INITIAL, 0, 10, 1000, session=b"t").result_code == 2001
    weekdays.now = berlin(2026, 6, 6, 23, 0)
    assert weekdays.ask(UPDATE, 1, 10, 1000, 10, session=b"t").validity_time_s == 1800, "Saturday"
    late = Policed(
        rules('services: internet, during: "22:00-24:00", do: bar'), now_ms=berlin(2026, 6, 5, 21, 50),
        sold=catalogue("Europe/Berlin"),
    )  # fmt: skip
    assert late.ask(INITIAL, 0, 10, 1000).validity_time_s == 600
    late.now += 10 * MINUTE
    assert late.ask(UPDATE, 1, 10, 1000, 10).result_code == 4010
    late.now += 120 * MINUTE
    assert late.ask(UPDATE, 2, 10, 1000).result_code == 2001


# -- how far a grant goes ----------------------------------------------------------------------------------------------


def test_a_grant_ends_at_the_threshold_less_what_others_hold() -> None:
    """Two sessions, a family on one account: together they are granted what is left until zero, and a step more."""
    ledger = Policed(rules("when: zero, services: [internet, video], do: bar"), 10, 100, now_ms=NOON)
    child = Subscriber(b"child", b"acc-1", "standard", ((0, b"493"),))
    assert ledger.ask(INITIAL, 0, 11, 3000).units == 3000
    assert ledger.ask(INITIAL, 0, 10, 100_000, session=b"c", user=child).units == 4000
    assert ledger.ask(INITIAL, 0, 10, 100_000, session=b"d", user=child).units == 1000, "one step all the same"
    assert ledger.ask(UPDATE, 1, 10, 5000, 4000, session=b"c", user=child).units == 1000
    assert ledger.ask(UPDATE, 1, 11, 3000, 3000).result_code == 4010
    assert (ledger.cents, ledger.account.buckets[0].reserved) == (0, 2 * CENT)


def test_a_service_whose_decision_does_not_change_is_not_cut_short() -> None:
    ledger = Policed(rules("when: zero, services: video, do: bar"), 10, 100, now_ms=NOON)
    assert ledger.ask(INITIAL, 0, 10, 100_000).units == 100_000
    assert not ledger.ask(UPDATE, 1, 10, 110_000).final or ledger.account.buckets[0].reserved == 110 * CENT


def test_clients_that_cannot_be_asked_report_soon_where_a_threshold_is_near() -> None:
    ledger = Policed(rules("when: zero, services: internet, do: bar"), 100, 100, now_ms=NOON)
    far, near = ledger.ask(INITIAL, 0, 10, 20_000, profile=DEAF), ledger.ask(UPDATE, 1, 10, 60_000, profile=DEAF)
    assert (far.validity_time_s, near.validity_time_s) == (1800, DEAF.near_threshold_s)
    assert near.units == 60_000
    assert ledger.ask(INITIAL, 0, 10, 60_000, session=b"t").validity_time_s == 1800, "it can be asked"
    off = replace(DEAF, near_threshold_s=0, name="off")
    assert ledger.ask(INITIAL, 0, 10, 60_000, session=b"u", profile=off).validity_time_s == 1800
    patient = replace(DEAF, shortest_validity_s=90, name="patient")
    assert ledger.ask(INITIAL, 0, 10, 60_000, session=b"v", profile=patient).validity_time_s == 90


def test_the_smallest_cap_on_grants_counts() -> None:
    ledger = Policed(
        rules("when: low, services: internet, grant_at_most: 3 kB", "services: internet, grant_at_most: 5 kB"),
        23, now_ms=NOON,
    )  # fmt: skip
    assert ledger.ask(INITIAL, 0, 10, 9000).units == 3000, "up to where it is low"
    assert ledger.ask(UPDATE, 1, 10, 9000, 3000).units == 1000
    assert ledger.ask(UPDATE, 2, 10, 9000, 1000).units == 3000
    ledger.top_up(10)
    assert ledger.ask(UPDATE, 3, 10, 9000, 0).units == 3000, "not out of it before 0.40"
    ledger.top_up(20)
    assert ledger.ask(UPDATE, 4, 10, 9000).units == 5000
    assert ledger.reason()[3] == ("r2",)


# -- meters and buckets ------------------------------------------------------------------------------------------------


def test_a_policy_counter_counts_what_allowances_paid_for_and_begins_anew_at_midnight() -> None:
    heavy = rules("when: heavy, services: internet, throttle: slow-by-pcrf", "when: heavy, services: video, do: bar")
    ledger = Policed(heavy, 100, now_ms=NOON, bundle=3000)
    assert ledger.ask(INITIAL, 0, 10, 9000).units == 4000, "no further than to the threshold"
    assert ledger.ask(INITIAL, 0, 10, 9000, session=b"t").units == 1000, "a step"
    assert ledger.ask(UPDATE, 1, 11, 1000).result_code == 2001
    assert ledger.ask(UPDATE, 2, 10, 9000, 4000).units == 9000, "granted as before: the network slows it down"
    assert "heavy" in ledger.levels
    assert ledger.reason()[3] == ("r1",)
    assert ledger.ask(UPDATE, 3, 11, 1000, 100).result_code == 4010
    (meter,) = ledger.account.meters
    assert (meter.units, meter.micro) == (4000, 1 * CENT)
    ledger.now += 13 * 60 * MINUTE
    assert ledger.ask(UPDATE, 4, 11, 1000).result_code == 2001
    assert ledger.ask(TERMINATION, 5, 10, 0, 500).result_code == 2001
    (meter,) = ledger.account.meters
    assert meter.units == 500


def test_a_grant_ends_where_a_bundle_does() -> None:
    ledger = Policed(rules("when: bundle-used, services: internet, do: refuse"), 100, now_ms=NOON, bundle=5000)
    assert ledger.ask(INITIAL, 0, 10, 9000).units == 5000
    assert ledger.ask(UPDATE, 1, 10, 9000, 5000).result_code == 4012
    assert ledger.cents == 100


def test_a_refund_is_taken_off_the_counter() -> None:
    """RFC 8506 section 6.4: with all of its units, whoever paid for them."""
    ledger = Policed(rules("when: heavy, services: internet, do: bar"), 100, now_ms=NOON, bundle=1000)
    service = ServiceRequest(10, (), Units(total_octets=3000))
    done = ledger.send(EVENT, 0, service, session=b"e", requested_action=0)
    assert (done.result_code, ledger.cents, ledger.account.meters[0].units) == (2001, 98, 3000)
    back = ledger.send(EVENT, 1, service, session=b"e", requested_action=1)
    assert (back.result_code, ledger.cents, ledger.account.meters[0].units) == (2001, 100, 0)
    assert ledger.account.meters[0].micro == 0


# -- throttle and final units ------------------------------------------------------------------------------------------


def test_a_throttle_with_a_rule_base_acts_at_once_for_clients_that_take_restrictions() -> None:
    """Rows 30 and 32: no units, what is done instead, when to ask again; a plain client is granted units as before."""
    ledger = Policed(rules("when: negative, services: [internet, voice], throttle: slow"), 0, 100, now_ms=NOON)
    assert ledger.ask(INITIAL, 0, 10, 5000).units == 1000
    told = ledger.ask(UPDATE, 1, 10, 5000, 1000)
    assert (told.result_code, told.units, told.final, told.validity_time_s) == (2001, 0, True, 300)
    assert b"slow" in told.avps
    assert ledger.ask(UPDATE, 2, 10, 5000).avps == told.avps, "for as long as the rule holds"
    first = ledger.ask(INITIAL, 0, 10, 5000, session=b"t")
    assert (first.units, first.validity_time_s, first.avps) == (-1, 300, told.avps)
    plain = ledger.ask(INITIAL, 0, 10, 5000, session=b"u", profile=PLAIN)
    assert (plain.units, plain.avps) == (5000, b"")
    assert ledger.call(INITIAL, 0, "tel:+4930123", 60).units == 60, "calls are not slowed down"
    ledger.top_up(200)
    assert ledger.ask(UPDATE, 3, 10, 5000).units == 5000
    assert ledger.session().services[0].final == 0


def test_a_rule_may_end_a_service() -> None:
    ledger = Policed(rules("when: zero, services: internet, final_units: end"), 1, 100, now_ms=NOON)
    assert ledger.ask(INITIAL, 0, 10, 1000).units == 1000
    assert ledger.ask(UPDATE, 1, 10, 1000, 1000).result_code == 4012


@pytest.mark.parametrize("limit", [0, 100])
def test_the_last_units_say_what_follows_them(limit: int) -> None:
    """Row 29: where the money ends at the threshold, the client knows beforehand that it will redirect."""
    ledger = Policed(rules("when: zero, services: internet, final_units: page"), 1, limit, now_ms=NOON)
    grant = ledger.ask(INITIAL, 0, 10, 1000)
    assert (grant.units, grant.final) == (1000, not limit)
    assert (b"http://top-up.example.net/" in grant.avps) == (not limit)
    if not limit:
        report = ledger.ask(UPDATE, 1, 10, 0, 1000)
        assert (report.units, report.validity_time_s) == (-1, 600)
    again = ledger.ask(UPDATE, 2, 10, 1000, 0 if not limit else 1000)
    assert (again.units, again.final, again.validity_time_s) == (0, True, 600)
    assert b"http://top-up.example.net/" in again.avps
    assert ledger.ask(INITIAL, 0, 10, 1000, session=b"t", profile=PLAIN).result_code == 4012


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_obey_and_enquiries_do_not_ask() -> None:
    ledger = Policed(rules("when: zero, services: sms, do: bar", "services: voice, do: allow free"), 5, 50, now_ms=NOON)
    one = ServiceRequest(900, (), Units(service_specific=1))

    def sms(session: bytes, action: int) -> tuple[int, int]:
        outcome = ledger.send(EVENT, 0, one, session=session, context=SMS, requested_action=action)
        return outcome.result_code, outcome.check_balance_result

    assert sms(b"1", 0)[0] == 2001
    assert (ledger.cents, ledger.levels) == (0, ("low", "zero"))
    assert sms(b"2", 0)[0] == 4010
    assert sms(b"3", 2) == (2001, 0), "there is credit"
    assert sms(b"4", 3)[0] == 2001
    free = Policed(rules("services: sms, do: allow free"), 0, now_ms=NOON)
    assert free.send(EVENT, 0, one, context=SMS, requested_action=0).result_code == 2001
    assert (free.cents, free.records[0]["policies"], free.records[0]["price"]) == (0, ("r1",), "free")
    assert free.reason()[3] == ("r1",)


# -- hysteresis, and what must hold whatever comes --------------------------------------------------------------------


def test_a_balance_that_hovers_does_not_flap() -> None:
    ledger = Policed(rules("when: low, services: internet, do: bar"), 21, now_ms=NOON)
    ledger.ask(INITIAL, 0, 11, 5000)
    ledger.ask(UPDATE, 1, 11, 5000, 1000)
    transitions = ledger.watching.transitions
    assert (ledger.levels, transitions) == (("low",), 1)
    for number in range(2, 8):
        ledger.top_up(2)
        ledger.ask(UPDATE, number, 11, 5000, 1000)
    assert (ledger.levels, ledger.watching.transitions) == (("low",), 1)
    ledger.top_up(25)
    assert (ledger.levels, ledger.watching.transitions) == ((), 2)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 30),
    st.integers(0, 20),
    st.lists(
        st.tuples(st.sampled_from([b"s", b"t"]), st.sampled_from([10, 11]), st.integers(0, 12), st.booleans()),
        max_size=14,
    ),
    st.sampled_from([LENIENT, DEAF, PLAIN]),
)
def test_no_grant_goes_further_than_to_the_threshold_or_a_step_and_the_limit_holds(
    cents: int, limit: int, asked: list[tuple[bytes, int, int, bool]], profile: Profile
) -> None:
    """Whatever sessions ask for at once: no grant is more than what others have left until zero, or one step."""
    ledger = Policed(rules("when: zero, services: [internet, video], do: bar"), cents, limit, now_ms=NOON)
    names: dict[bytes, bytes] = {}
    for number, (line, group, wants, uses) in enumerate(asked):
        name = names.get(line, b"")
        open_session = ledger.account.sessions.get(name)
        ledger.now += 1000
        if open_session is None:
            names[line] = name = b"session-%d" % number
            ledger.ask(INITIAL, 0, group, max(1, wants) * 1000, session=name, profile=profile)
        else:
            used = sum(use.granted for use in open_session.services if use.rating_group == group) if uses else 0
            ledger.ask(UPDATE, number, group, max(1, wants) * 1000, used, session=name, profile=profile)
        main = ledger.account.buckets[0]
        assert main.balance >= -limit * CENT
        assert main.reserved <= main.balance + limit * CENT
        session = ledger.account.sessions.get(name)
        held = {use.rating_group: sum(amount for _, amount in use.parts) for use in session.services} if session else {}
        left = main.balance - (main.reserved - held.get(group, 0))
        assert held.get(group, 0) <= max(left, (2 if group == 11 else 1) * CENT)


def test_without_rules_nothing_is_noted() -> None:
    ledger = Policed("levels: {zero: {when: balance at most 0}}", 5, now_ms=NOON)
    assert ledger.ask(INITIAL, 0, 10, 5000).units == 5000
    assert len(ledger.reason()) == 3
    assert ledger.plans[-1].asked_by == b"s"
    ledger.ask(TERMINATION, 1, 10, 0, 5000)
    assert (ledger.records[0]["policies"], ledger.levels) == ((), ("zero",))


def test_what_is_used_while_the_client_slows_it_down_costs_nothing() -> None:
    """Whether a gateway reports throttled traffic or not, the subscriber pays the same."""
    policed = Policed(SLOW_RULES, 2, 100, now_ms=NOON)
    policed.ask(INITIAL, 0, 10, wants=10_000)
    policed.now += 60_000
    policed.ask(UPDATE, 1, 10, wants=10_000, used=3_000)
    assert (policed.cents, policed.levels) == (-1, ("negative",))
    policed.now += 60_000
    policed.ask(UPDATE, 2, 10, wants=10_000, used=50_000)
    assert policed.cents == -1
    policed.top_up(1000)
    policed.now += 60_000
    policed.ask(UPDATE, 3, 10, wants=10_000, used=50_000)
    assert policed.cents == 999
    policed.now += 60_000
    policed.ask(UPDATE, 4, 10, wants=10_000, used=5_000)
    assert policed.cents == 994  # as priced again


def test_who_holds_a_grant_up_to_a_threshold_is_asked_when_another_service_spends_the_way_there() -> None:
    """The Internet may go below zero, calls may not: the call is granted anew while there is money for it."""
    rules_text = """
levels:
  zero: {when: balance at most 0}
rules:
  - {rule: no-calls, when: zero, services: [voice], do: bar}
"""
    ledger = Policed(rules_text, 250, 300, now_ms=NOON)
    assert ledger.call(INITIAL, 0, "33123", wants=200).units == 200

    def report(number: int, used: int) -> list[Ask]:
        """What the Internet's report leaves to ask of others."""
        ledger.now += 1000
        ledger.ask(UPDATE if number else INITIAL, number, 10, wants=100_000, used=used)
        packed = ledger.plans[-1].transition
        if not packed:
            return []
        transition, policies = Transition.unpack(packed), ledger.watching.policies
        assert transition.before == transition.after == ()
        account = ledger.account
        return overtaken(account, lambda case: policies.room(case, account, ledger.now)[0], transition)

    assert report(0, 0) == []
    assert report(1, 50_000) == [], "what the call holds is still there"
    assert report(2, 20_000) == [Ask(Command.RE_AUTH, b"call", None, ("shrink",))]
    assert report(3, 10_000) == [], "it has been asked"
    ledger.now += 20_000
    assert ledger.call(UPDATE, 1, "33123", wants=200, used=20).units <= 150
    assert ledger.cents == 150
    assert report(4, 100_000) == [], "what it holds since ends where the Internet's grant ended"
    assert report(5, 10_000) == [Ask(Command.RE_AUTH, b"call", None, ("shrink",))]
    ledger.call(UPDATE, 2, "33123", wants=200, used=10)
    assert ledger.cents == 30
    ledger.ask(UPDATE, 6, 10, wants=100_000, used=30_000)
    assert ledger.call(UPDATE, 3, "33123", wants=200, used=1).result_code == 4010
    assert ledger.cents == -1, "one step is always granted"


SLOW_RULES = """
levels:
  negative: {when: balance below 0}
  limit-reached: {when: credit at most 0}
throttles:
  slow: {down: 128 kbit/s, up: 64 kbit/s, filter_id: slow}
rules:
  - {rule: at-the-limit, when: limit-reached, do: refuse}
  - {rule: slow, when: negative, services: [internet], throttle: slow}
"""
