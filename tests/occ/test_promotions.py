"""Promotions: which apply, what they do to a price, what they give on top, and until when."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance.model import Unit
from occ.rating.allowances import Allowance, Bonus, Lasting, Validity
from occ.rating.happy_hours import HappyHours
from occ.rating.local_time import Calendar
from occ.rating.offered import effective
from occ.rating.periods import Counter, Period
from occ.rating.price import CallPrice, Discounted, FreePrice, StepPrice, Tier, TieredPrice
from occ.rating.promotions import NOBODY, NOTHING, Applied, Award, Customer, Promotions
from occ.rating.service import Service
from occ.rating.tariff import DENIED, Tariff, read_tariff
from occ.rating.written_promotions import Known, read_promotions
from occ.yamlmap import ConfigError, parse_yaml

BERLIN = ZoneInfo("Europe/Berlin")
CALENDAR = Calendar(BERLIN, (date(2026, 12, 25),))
GIB, DAY_MS = 1 << 30, 86_400_000
S = Unit.SECONDS
MINUTE = StepPrice(S, 60, 90_000)
SERVICES = {
    name: Service(name, b"x", None, unit, 1, 1, 60)
    for name, unit in {"voice": S, "abroad": S, "internet": Unit.OCTETS, "sms": Unit.EVENTS}.items()
}
ALLOWANCES = {"data": Allowance("data", Unit.OCTETS, GIB, ("internet",), 20)}
BONUSES = {"talk": Bonus("talk", ("voice",), 5, Validity(Lasting.TIME, 14 * 86_400)), "any": Bonus("any", None)}
KNOWN = Known(SERVICES, ("standard", "young"), ALLOWANCES, BONUSES, CALENDAR)


def read(text: str) -> Promotions:
    return read_promotions(parse_yaml(text, "catalogue.yaml", Path()), KNOWN)


def ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def berlin(written: str) -> int:
    return ms(datetime.fromisoformat(written).replace(tzinfo=BERLIN))


NOON = berlin("2026-06-10 12:00")  # a Wednesday


def applied(text: str, at_ms: int = NOON, service: str = "voice", **more: object) -> Applied:
    options = {"plan": "standard", "customer": NOBODY, **more}
    return read(text).for_use(service, at_ms=at_ms, **options)  # type: ignore[arg-type]


# -- which apply -----------------------------------------------------------------------------------------------------


def test_without_promotions_nothing_applies() -> None:
    assert read("[]").for_use("voice", "standard", NOBODY, NOON) is NOTHING
    assert applied("[{name: a, discount: 20 %, when: {services: [sms]}}]") is NOTHING
    assert applied("[{name: a, discount: 20 %, when: {plans: [young]}}]") is NOTHING


def test_one_discount() -> None:
    assert applied("[{name: a, discount: 20 %}]") == Applied(("a",), 200_000)


@pytest.mark.parametrize(
    ("stacks", "names", "ppm"),
    [
        (("no", "no", "no"), ("a",), 200_000),
        (("yes", "no", "no"), ("a",), 200_000),
        (("no", "yes", "yes"), ("a",), 200_000),
        (("yes", "no", "yes"), ("a", "c"), 700_000),
        (("yes", "yes", "yes"), ("a", "b", "c"), 1_000_000),
    ],
)
def test_promotions_in_the_order_of_the_catalogue(stacks: tuple[str, ...], names: tuple[str, ...], ppm: int) -> None:
    """Discounts that stand together add up, to everything at most."""
    text = "\n".join(
        f"- {{name: {name}, discount: {percent} %, stacks: {each}}}"
        for name, percent, each in zip("abc", (20, 40, 50), stacks, strict=True)
    )
    assert applied(text) == Applied(names, ppm)


def test_a_promotion_whose_conditions_do_not_hold_stands_in_nobodys_way() -> None:
    text = "[{name: a, discount: 20 %, when: {segment: student}}, {name: b, discount: 10 %}]"
    assert applied(text).names == ("b",)
    assert applied(text, customer=Customer("student")).names == ("a",)
    assert applied("[{name: a, discount: 5 %, when: {segment: [x, y]}}]", customer=Customer("y")).names == ("a",)


def test_a_date_window_is_local_days_the_last_among_them() -> None:
    text = "[{name: a, discount: 20 %, when: {from: 2026-12-01, until: 2026-12-31}}]"
    begins, ends = berlin("2026-12-01 00:00"), berlin("2027-01-01 00:00")
    assert applied(text, begins - 1) == Applied(ends_ms=begins)
    assert applied(text, begins) == applied(text, ends - 1) == Applied(("a",), 200_000, ends_ms=ends)
    assert applied(text, ends) == NOTHING


def test_happy_hours_over_midnight_holidays_and_the_week() -> None:
    text = "[{name: a, discount: 20 %, happy_hour: {days: 'Fr-Sa', from: 22:00, to: 02:00}}]"
    assert applied(text, berlin("2026-06-12 21:59")).ends_ms == berlin("2026-06-12 22:00")
    assert applied(text, berlin("2026-06-13 01:00")) == Applied(("a",), 200_000, ends_ms=berlin("2026-06-13 02:00"))
    assert applied(text, berlin("2026-06-14 01:59")).names == ("a",)
    assert applied(text, berlin("2026-06-14 02:00")).ends_ms == berlin("2026-06-19 22:00")
    holiday = "[{name: a, discount: 20 %, happy_hour: {days: holidays, from: 00:00, to: 24:00}}]"
    assert applied(holiday, NOON).ends_ms == berlin("2026-12-25 00:00")
    assert applied(holiday, berlin("2026-12-25 23:59")).ends_ms == berlin("2026-12-26 00:00")
    assert applied(holiday, berlin("2026-12-26 00:00")) == NOTHING


def test_happy_hours_in_the_nights_that_clocks_change() -> None:
    """On 2026-03-29 there is no 02:30 in Berlin, on 2026-10-25 there are two: the first ends the hours."""
    text = "[{name: a, discount: 20 %, happy_hour: {from: 01:00, to: 02:30}}]"
    leap = ms(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    assert applied(text, leap - 1).ends_ms == leap
    assert applied(text, leap).names == ()
    twice = ms(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    assert applied(text, twice - 1).ends_ms == twice
    assert applied(text, ms(datetime(2026, 10, 25, 1, 15, tzinfo=UTC))).names == ()  # 02:15 for the second time


@settings(deadline=None)
@given(
    day=st.integers(0, 400),
    minute=st.integers(0, 1439),
    days=st.sets(st.integers(0, 7), min_size=1),
    begin=st.sampled_from([0, 60, 120, 150, 1200, 1320]),
    end=st.sampled_from([30, 120, 150, 180, 1260, 1440]),
)
def test_happy_hours_are_what_a_look_at_the_clock_says(
    day: int, minute: int, days: set[int], begin: int, end: int
) -> None:
    """Every minute is looked at until the answer changes: that is when it was said to change."""
    if begin == end:
        return
    hours = HappyHours(frozenset(days), begin, end, CALENDAR)
    at_ms = ms(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day, minutes=minute))
    inside, until_ms = hours.at(at_ms)

    def by_the_clock(moment_ms: int) -> bool:
        today = CALENDAR.day_of(moment_ms)
        for begins in (today - timedelta(days=1), today):
            if begins.weekday() in days or (7 in days and begins in CALENDAR.holidays):
                ends = begins if begin < end < 1440 else begins + timedelta(days=1)
                if CALENDAR.moment(begins, begin) <= moment_ms < CALENDAR.moment(ends, end % 1440):
                    return True
        return False

    assert inside == by_the_clock(at_ms)
    for step in range(1, 200):
        moment = at_ms + step * 900_000
        if until_ms and moment >= until_ms:
            break
        assert by_the_clock(moment) == inside
    if until_ms and not (inside and until_ms - at_ms > 8 * DAY_MS):
        assert by_the_clock(until_ms) != inside
        assert by_the_clock(until_ms - 1) == inside


def test_time_since_activation() -> None:
    long = "[{name: a, discount: 20 %, when: {active_for: 90 d}}]"
    new = "[{name: a, discount: 20 %, when: {active_less_than: 90 d}}]"
    activated = NOON - 89 * DAY_MS
    customer = Customer(activated_ms=activated)
    assert applied(long, customer=customer) == Applied(ends_ms=activated + 90 * DAY_MS)
    assert applied(new, customer=customer) == Applied(("a",), 200_000, ends_ms=activated + 90 * DAY_MS)
    assert applied(long, NOON + DAY_MS, customer=customer).names == ("a",)
    assert applied(new, NOON + DAY_MS, customer=customer) == NOTHING
    assert applied(long).names == applied(new).names == ()  # nobody knows since when


def test_usage_in_the_month() -> None:
    text = "[{name: a, discount: 20 %, when: {services: [internet], usage_above: 10 GiB per month}}]"
    counter = Counter("usage for a per month", Period.MONTH)
    used = {counter: 10 * GIB}

    def count(asked: Counter, at_ms: int) -> int:
        return used[asked] if at_ms < berlin("2026-07-01 00:00") else 0

    found = applied(text, service="internet", count=count)
    assert found == Applied(("a",), 200_000, ends_ms=berlin("2026-07-01 00:00"), counters=(counter,))
    used[counter] -= 1
    assert applied(text, service="internet", count=count) == Applied(counters=(counter,))
    assert applied(text, count=count) is NOTHING


def test_friends_and_family() -> None:
    text = "[{name: a, friends: 50 %}]"
    customer = Customer(friends=(b"491701", b"491702"))
    assert applied(text, customer=customer, called=b"491702").discount_ppm == 500_000
    assert applied(text, customer=customer, called=b"491703").names == ()
    assert applied(text, customer=customer).names == ()
    assert applied(text, called=b"491702").names == ()


def test_free_minutes_of_a_call_and_of_a_day() -> None:
    call, day = "[{name: a, free: 5 min per call}]", "[{name: a, free: 5 min per day}]"
    assert applied(call) == Applied(("a",), 0, 300, ((300, Period.SESSION),))
    assert applied(call, used_units=100).free_units == 200
    # Who has used them up has had them: whether another promotion applies does not depend on that.
    assert applied(call, used_units=300) == Applied(("a",), 0, 0, ((300, Period.SESSION),))
    assert applied(call, service="internet") is NOTHING  # minutes are of what is counted in seconds
    counter = Counter("free units of a per day", Period.DAY)
    midnight = berlin("2026-06-11 00:00")

    def count(asked: Counter, at_ms: int) -> int:
        assert asked == counter
        return 120 if at_ms < midnight else 0

    assert applied(day, count=count, used_units=500) == Applied(
        ("a",), 0, 180, ((300, Period.DAY),), midnight, midnight, (counter,)
    )
    both = f"[{call[1:-1].replace('}', ', stacks: yes}')}, {day[1:-1].replace('name: a', 'name: b, stacks: yes')}]"
    found = read(both).for_use("voice", "standard", NOBODY, NOON, used_units=290)
    assert (found.names, found.free_units) == (("a", "b"), 300)  # the largest number counts


def test_an_exhausted_budget_gives_nothing() -> None:
    text = "[{name: a, discount: 20 %, budget: 1000.00}, {name: b, discount: 10 %}]"
    asked: list[tuple[str, int]] = []

    def spend(name: str, amount: int) -> bool:
        asked.append((name, amount))
        return False

    assert applied(text, spend=spend).names == ("b",)
    assert asked == [("a", 0)]


def test_what_discounts_cost_their_budgets() -> None:
    promotions = read("[{name: a, discount: 20 %, stacks: yes}, {name: b, friends: 10 %, stacks: yes}]")
    rate = Discounted(StepPrice(S, 1, 7), 300_000)
    assert rate.saved_micro(10) - rate.saved_micro(3) == 21 - 6
    assert promotions.saved(("a", "b"), rate, 3, 10) == (("a", 10), ("b", 5))
    assert promotions.saved(("a", "b"), rate, 3, 9) == (("a", 8), ("b", 4))
    assert promotions.saved(("a",), rate, 3, 10) == (("a", 15),)
    assert promotions.saved(("gone",), rate, 3, 10) == ()
    assert promotions.saved(("a",), MINUTE, 3, 10) == ()


# -- as one price ----------------------------------------------------------------------------------------------------


def offered(tariff: Tariff, text: str, at_ms: int, used_units: int = 0, cost_micro: int = 0) -> tuple[object, int]:
    promotions = read(text)
    found = effective(
        tariff,
        at_ms,
        lambda moment: promotions.for_use("voice", "standard", NOBODY, moment, used_units=used_units),
        used_units,
        cost_micro,
    )
    return found.price, found.until_ms


def test_tariff_and_promotion_are_one_price() -> None:
    text = "[{name: a, discount: 20 %, stacks: yes}, {name: b, free: 5 min per call, stacks: yes}]"
    call = CallPrice(MINUTE, 50_000, free_units=30)
    assert offered(Tariff.of(MINUTE), text, NOON) == (Discounted(CallPrice(MINUTE, free_units=300), 200_000), 0)
    assert offered(Tariff.of(call), text, NOON) == (Discounted(CallPrice(MINUTE, 50_000, free_units=300), 200_000), 0)
    assert offered(Tariff.of(DENIED), text, NOON) == (DENIED, 0)
    assert offered(Tariff.of(FreePrice(S)), text, NOON) == (FreePrice(S), 0)
    # In the middle of a call: no second connection, and what is left of the free minutes.
    assert offered(Tariff.of(call), text, NOON, 100, 0)[0] == Discounted(
        CallPrice(MINUTE, 50_000, free_units=200), 200_000
    )
    assert offered(Tariff.of(call), text, NOON, 400, 5)[0] == Discounted(MINUTE, 200_000)
    everything = "[{name: a, discount: 100 %}]"
    assert offered(Tariff.of(call), everything, NOON)[0] == FreePrice(S)
    monthly = TieredPrice(S, (Tier(0, 1, 1),), Period.MONTH)
    assert offered(Tariff.of(monthly), text, NOON)[0] == Discounted(monthly, 200_000)


def test_without_promotions_a_price_is_that_of_the_tariff() -> None:
    node = parse_yaml("08:00: 0.09 per 60 s\n20:00: {connection: 0.05, price: 0.01 per 60 s}", "c.yaml", Path())
    tariff = read_tariff(node, S, CALENDAR)
    night = CallPrice(StepPrice(S, 60, 10_000), 50_000)
    evening = berlin("2026-06-10 20:00")
    found = effective(tariff, NOON)
    assert (found.price, found.until_ms, found.applied) == (MINUTE, evening, NOTHING)
    assert effective(tariff, evening).price == night
    assert effective(tariff, evening, used_units=60, cost_micro=90_000).price == night.then
    assert effective(tariff, evening, used_units=60, cost_micro=90_000).tariff_price == night


def test_a_price_changes_with_the_tariff_or_with_the_promotions_whichever_is_first() -> None:
    tariff = read_tariff(parse_yaml("08:00: 0.09 per 60 s\n20:00: free", "c.yaml", Path()), S, CALENDAR)
    text = "[{name: a, discount: 20 %, happy_hour: {from: 18:00, to: 21:00}}]"
    at = berlin("2026-06-10 12:00")
    found: list[tuple[object, int]] = []
    for _ in range(4):
        price, at = offered(tariff, text, at)
        found.append((price, at))
    assert found == [
        (MINUTE, berlin("2026-06-10 18:00")),
        (Discounted(MINUTE, 200_000), berlin("2026-06-10 20:00")),
        (FreePrice(S), berlin("2026-06-11 08:00")),  # the end of the happy hour changes nothing
        (MINUTE, berlin("2026-06-11 18:00")),
    ]


def test_a_change_of_promotions_that_changes_no_price_is_no_switch() -> None:
    """A switch begins steps anew: where the price stays, there must be none."""
    text = """
- {name: a, discount: 20 %, when: {until: 2026-06-10}}
- {name: b, discount: 20 %, when: {until: 2026-06-20}}
"""
    price, until_ms = offered(Tariff.of(MINUTE), text, NOON)
    assert (price, until_ms) == (Discounted(MINUTE, 200_000), berlin("2026-06-21 00:00"))


def test_free_minutes_of_a_day_begin_again_at_midnight_though_nothing_was_used() -> None:
    midnight = berlin("2026-06-11 00:00")
    assert offered(Tariff.of(MINUTE), "[{name: a, free: 5 min per day}]", NOON) == (
        CallPrice(MINUTE, free_units=300),
        midnight,
    )


def test_where_nothing_is_charged_no_free_minutes_are_used_up() -> None:
    promotions = read("[{name: a, free: 5 min per day}, {name: b, discount: 1 %, when: {usage_above: 1 min per day}}]")

    def at(moment: int) -> Applied:
        return promotions.for_use("voice", "standard", NOBODY, moment)

    usage, free = Counter("usage for b per day", Period.DAY), Counter("free units of a per day", Period.DAY)
    assert set(effective(Tariff.of(MINUTE), NOON, at).applied.counters) == {usage, free}
    assert effective(Tariff.of(FreePrice(S)), NOON, at).applied.counters == (usage,)


@settings(deadline=None)
@given(used=st.integers(0, 600), cost=st.integers(0, 5))
def test_when_a_price_changes_does_not_depend_on_what_was_used(used: int, cost: int) -> None:
    """A session is asked about at every report; how it is reported must not move its switches."""
    tariff = read_tariff(
        parse_yaml(
            "08:00: {connection: 0.05, price: 0.09 per 60 s}\n20:00: {connection: 0.03, price: 0.09 per 60 s}",
            "c.yaml",
            Path(),
        ),
        S,
        CALENDAR,
    )
    for text in (
        "[]",
        "[{name: a, free: 5 min per call, happy_hour: {from: 19:00, to: 21:00}}]",
        "[{name: a, free: 5 min per day}]",
        "[{name: a, free: 5 min per call}, {name: b, discount: 5 %}]",
    ):
        assert offered(tariff, text, NOON, used, cost)[1] == offered(tariff, text, NOON)[1]


# -- what is given on top --------------------------------------------------------------------------------------------


def awards(text: str, amount_micro: int, at_ms: int = NOON, customer: Customer = NOBODY, **more: object) -> list[Award]:
    return list(read(text).on_top_up(amount_micro, "standard", customer, at_ms, **more))  # type: ignore[arg-type]


def test_a_bonus_on_top_of_a_top_up() -> None:
    text = "[{name: a, top_up_bonus: {from: 10.00, gives: 20 %, bucket: talk}}]"
    assert awards(text, 9_999_999) == []
    assert awards(text, 10_000_003) == [
        Award("a", Unit.MONEY, 2_000_000, "talk", NOON + 14 * DAY_MS, 5, NOON)  # rounded down: ``bonus``
    ]
    most = text.replace("gives: 20 %", "gives: 20 %, at_most: 3.00, valid: until end of month")
    assert awards(most, 100_000_000) == [Award("a", Unit.MONEY, 3_000_000, "talk", berlin("2026-07-01 00:00"), 5, NOON)]
    assert awards(most, 12_500_000)[0].amount == 2_500_000


def test_a_bonus_of_a_fixed_amount_or_of_units() -> None:
    fixed = "[{name: a, top_up_bonus: {from: 5.00, gives: 2.00, bucket: any}}]"
    assert awards(fixed, 5_000_000) == [Award("a", Unit.MONEY, 2_000_000, "any", 0, 100, NOON)]
    units = "[{name: a, top_up_bonus: {from: 5.00, gives: 1 GiB, bucket: data}}]"
    assert awards(units, 5_000_000) == [Award("a", Unit.OCTETS, GIB, "data", 0, 20, NOON)]


def test_bonuses_stand_together_as_discounts_do() -> None:
    def text(first: str, second: str) -> str:
        bonus = "top_up_bonus: {from: 1.00, gives: 1.00, bucket: any}"
        return f"[{{name: a, {bonus}, stacks: {first}}}, {{name: b, {bonus}, stacks: {second}}}]"

    assert [each.name for each in awards(text("no", "yes"), 1_000_000)] == ["a"]
    assert [each.name for each in awards(text("yes", "yes"), 1_000_000)] == ["a", "b"]

    def only_b(name: str, amount: int) -> bool:
        assert amount == 1_000_000
        return name == "b"

    assert [each.name for each in awards(text("no", "no"), 1_000_000, spend=only_b)] == ["b"]


def test_bonuses_have_conditions_and_budgets_in_times() -> None:
    text = """
- name: a
  top_up_bonus: {from: 1.00, gives: 1 GiB, bucket: data}
  happy_hour: {from: 12:00, to: 13:00}
  when: {segment: student, until: 2026-06-30, plans: [standard]}
  budget: 500 times
"""
    spent: list[tuple[str, int]] = []

    def spend(name: str, amount: int) -> bool:
        spent.append((name, amount))
        return True

    student = Customer("student")
    promotions = read(text)
    assert len(promotions.on_top_up(1_000_000, "standard", student, NOON, spend)) == 1
    assert spent == [("a", 1)]
    assert promotions.on_top_up(1_000_000, "young", student, NOON) == ()
    assert promotions.on_top_up(1_000_000, "standard", NOBODY, NOON) == ()
    assert promotions.on_top_up(1_000_000, "standard", student, NOON + 3_600_000) == ()
    assert promotions.on_top_up(1_000_000, "standard", student, berlin("2026-07-01 12:00")) == ()
    budget = promotions.by_name["a"].budget
    assert budget is not None
    assert (budget.amount, budget.in_times) == (500, True)


def test_loyalty_is_rewarded_on_the_day_and_each_month_after_it() -> None:
    promotions = read("[{name: a, loyalty: {after: 365 d, gives: 5.00 each month, bucket: any}}]")
    customer = Customer(activated_ms=berlin("2025-01-30 15:00"))
    at = berlin("2025-06-01 00:00")
    given = []
    for _ in range(4):
        (award,) = promotions.next_loyalty("standard", customer, at)
        at = award.at_ms
        given.append(at)
    # 365 days are over in the afternoon of the 30th, so it is the 31st; shorter months have it on their last day.
    days = ("2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30")
    assert given == [berlin(f"{day} 00:00") for day in days]
    (award,) = promotions.next_loyalty("standard", customer, berlin("2026-02-27 12:00"))
    assert award == Award("a", Unit.MONEY, 5_000_000, "any", 0, 100, berlin("2026-02-28 00:00"))
    assert promotions.cost(award) == 5_000_000
    assert promotions.next_loyalty("standard", NOBODY, at) == ()


def test_loyalty_once_and_within_a_window() -> None:
    promotions = read(
        "[{name: a, loyalty: {after: 100 d, gives: 1 GiB, bucket: data}},"
        " {name: b, loyalty: {after: 100 d, gives: 1.00 each year, bucket: any}, when: {until: 2026-12-31}}]"
    )
    customer = Customer(activated_ms=berlin("2026-01-01 00:00"))
    first, second = promotions.next_loyalty("standard", customer, NOON - 100 * DAY_MS)
    # Days are 24 hours; in April they end at 01:00, so the next midnight it is.
    assert first.at_ms == second.at_ms == berlin("2026-04-12 00:00")
    assert promotions.next_loyalty("standard", customer, first.at_ms) == ()  # once; and the next year is too late


# -- how they are written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("- {discount: 20 %}", 1, "'name' is missing"),
        ("- {name: a}", 1, "must have one of the keys top_up_bonus"),
        ("- {name: a, discount: 20 %, friends: 5 %}", 1, "not discount and friends"),
        ("- {name: a, discount: 20 %}\n- {name: a, discount: 20 %}", 2, "there is a promotion a already"),
        ("- {name: a, discount: 0 %}", 1, "more than 0 %"),
        ("- {name: a, discount: 120 %}", 1, "at most 100 %"),
        ("- {name: a, discont: 20 %}", 1, "did you mean 'discount'?"),
        ("- {name: a, free: 5 min}", 1, "5 min per call"),
        ("- {name: a, free: 5 per day}", 1, "no amount"),
        ("- {name: a, free: 5 min per week}", 1, "per call"),
        ("- {name: a, free: 5 min per day, when: {services: [internet]}}", 1, "counted in octets"),
        ("- {name: a, free: 5 min per day, when: {services: [vice]}}", 1, "did you mean 'voice'?"),
        ("- {name: a, free: 5 min per day, when: {services: []}}", 1, "at least one"),
        ("- {name: a, free: 5 min per day, when: {usage_above: 1 GiB per day}}", 1, "octets"),
        ("- {name: a, free: 5 min per day, budget: 5.00}", 1, "number of times"),
        ("- {name: a, discount: 5 %, budget: 5 time}", 1, "not an amount"),
        ("- {name: a, discount: 5 %, budget: 0 times}", 1, "whole number from 1"),
        ("- {name: a, discount: 5 %, budget: -1.00}", 1, "more than zero"),
        ("- {name: a, discount: 5 %, stacks: maybe}", 1, "true or false"),
        ("- {name: a, discount: 5 %, when: {plans: [yung]}}", 1, "did you mean 'young'?"),
        ("- {name: a, discount: 5 %, when: {segment: []}}", 1, "at least one"),
        ("- {name: a, discount: 5 %, when: {from: 2026-13-01}}", 1, "a date such as"),
        ("- {name: a, discount: 5 %, when: {from: 20261201}}", 1, "a date such as"),
        ("- {name: a, discount: 5 %, when: {from: 2026-12-02, until: 2026-12-01}}", 1, "before from"),
        ("- {name: a, discount: 5 %, when: {active_for: 90 h}}", 1, "whole days"),
        ("- {name: a, discount: 5 %, when: {active_for: 90}}", 1, "not a size"),
        ("- {name: a, discount: 5 %, when: {usage_above: 5 min per call}}", 1, "per day"),
        ("- {name: a, discount: 5 %, happy_hour: {from: 20:00, to: 20:00}}", 1, "different times"),
        ("- {name: a, discount: 5 %, happy_hour: {from: 24:00, to: 20:00}}", 1, "time of day"),
        ("- {name: a, discount: 5 %, happy_hour: {from: 8:00, to: 20:00}}", 1, "time of day"),
        ("- {name: a, discount: 5 %, happy_hour: {days: So, from: 08:00, to: 20:00}}", 1, "is no day"),
        ("- {name: a, top_up_bonus: {gives: 5.00, bucket: any}}", 1, "'from' is missing"),
        ("- {name: a, top_up_bonus: {from: 5.00, gives: 5.00, bucket: tlk}}", 1, "did you mean 'talk'?"),
        ("- {name: a, top_up_bonus: {from: 5.00, gives: 1 GiB, bucket: talk}}", 1, "no allowance 'talk'"),
        ("- {name: a, top_up_bonus: {from: 5.00, gives: 5 min, bucket: data}}", 1, "an allowance of octets"),
        ("- {name: a, top_up_bonus: {from: 5.00, gives: 5.00, at_most: 1.00, bucket: any}}", 1, "percentage"),
        ("- {name: a, top_up_bonus: {from: 5.00, gives: 1 GiB, bucket: data}, budget: 5.00}", 1, "number of times"),
        ("- {name: a, top_up_bonus: {from: 5.00, gives: 0, bucket: any}}", 1, "more than zero"),
        ("- {name: a, top_up_bonus: {from: 1, gives: 1, bucket: any}, when: {services: [sms]}}", 1, "without any use"),
        ("- {name: a, loyalty: {after: 1 d, gives: 1.00 each week, bucket: any}}", 1, "each month or each year"),
        (
            "- name: a\n  loyalty: {after: 1 d, gives: 1.00, bucket: any}\n  happy_hour: {from: 01:00, to: 02:00}",
            3,
            "no hour",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"catalogue.yaml:{line}: ")
    assert reason in str(caught.value)


def test_holidays_need_a_calendar_that_has_some() -> None:
    node = parse_yaml("[{name: a, discount: 5 %, happy_hour: {days: holidays, from: 01:00, to: 02:00}}]", "c", Path())
    with pytest.raises(ConfigError, match="lists no holidays"):
        read_promotions(node, Known(SERVICES, (), {}, {}, Calendar(BERLIN)))
