"""Caps: nothing is asked for beyond them; limits: nothing is granted beyond them; how they are written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.accounts import Account, ServiceUse
from balance.ledger import Draft, reserve, settle
from balance.model import MAIN_BUCKET, UNLIMITED, Bucket, Rate, Unit
from balance.periods import write_off
from occ.rating.caps import Cap, Capped, Limited, read_caps
from occ.rating.periods import Counter, Period
from occ.rating.price import HalfEach, StepPrice, WorstOfTwo
from occ.rating.tax import Tax
from occ.yamlmap import ConfigError, parse_yaml
from tests.occ import prices

STEP = StepPrice(Unit.OCTETS, 10, 7)
SOLD = ("internet", "roaming", "sms")


def draft_with(money: int) -> Draft:
    return Draft(Account(b"a", 1, 0, 978, 0, 0, [Bucket(MAIN_BUCKET, int(Unit.MONEY), money)], {}), 0)


@given(rate=prices.kept, paid=st.integers(0, 60), left=st.integers(-5, 80), more=st.integers(0, 60))
def test_further_units_cost_what_is_left_at_most(rate: Rate, paid: int, left: int, more: int) -> None:
    priced = rate.price_micro(paid)
    capped = Capped(rate, paid, priced, left)
    assert capped.price_micro(paid + more) == priced + min(max(0, left), rate.price_micro(paid + more) - priced)


@given(rate=prices.kept, paid=st.integers(0, 60), left=st.integers(0, 80), amount=st.integers(0, 200))
def test_affordable_is_what_trying_finds_and_no_end_once_the_cap_is_reached(
    rate: Rate, paid: int, left: int, amount: int
) -> None:
    capped = Capped(rate, paid, rate.price_micro(paid), left)
    tried = prices.most_affordable(capped, amount, 2000)
    found = capped.affordable_units(amount)
    assert found == tried if tried is not None else found >= 2000
    if amount >= capped.priced_micro + left:
        assert found == UNLIMITED


@given(
    rate=st.one_of(prices.steps, prices.calls()),
    limit=st.integers(0, 60),
    money=st.integers(0, 80),
    reports=st.lists(st.integers(0, 40), max_size=8),
)
def test_a_session_under_a_cap_costs_the_cap_however_it_is_reported(
    rate: Rate, limit: int, money: int, reports: list[int]
) -> None:
    """As the core does it: a meter of what was spent, the price written off where the cap cut it."""
    draft = draft_with(money)
    use = ServiceUse(1, -1, "internet", int(Unit.OCTETS))
    for units in reports:
        settle(draft, use, Capped(rate, use.paid_units, use.priced_micro, limit - use.cost_micro), units)
        write_off(use, rate)
    assert use.cost_micro == min(limit, rate.price_micro(sum(reports)))
    assert use.debited_micro == min(use.cost_micro, money)


def test_who_has_reached_the_cap_goes_on_without_money() -> None:
    draft = draft_with(14)
    use = ServiceUse(1, -1, "internet", int(Unit.OCTETS))
    assert reserve(draft, use, Capped(STEP, 0, 0, 14), 1000) == 1000
    assert settle(draft, use, Capped(STEP, 0, 0, 14), 1000) == 14
    write_off(use, STEP)
    assert reserve(draft, use, Capped(STEP, use.paid_units, use.priced_micro, 0), 1000) == 1000
    assert use.parts == []


def test_a_price_that_was_cut_is_not_owed_later() -> None:
    """Even if nobody has written it off: 100 units at 70 were capped at 30; the next day they are 5 more."""
    assert Capped(STEP, 100, 30, 50).price_micro(105) == 37
    assert Capped(STEP, 100, 30, 50).affordable_units(30) == 100
    assert Capped(STEP, 100, 30, 50).affordable_units(29) == 40
    assert Capped(STEP, 100, 30, 0).affordable_units(30) == UNLIMITED


def test_the_smallest_of_several_caps_counts_in_any_order() -> None:
    one = Capped(Capped(STEP, 0, 0, 20), 0, 0, 50)
    other = Capped(Capped(STEP, 0, 0, 50), 0, 0, 20)
    assert [one.price_micro(units) for units in range(200)] == [other.price_micro(units) for units in range(200)]
    assert one.price_micro(200) == 20


@given(
    now=prices.kept, following=prices.kept, paid=st.integers(0, 30), left=st.integers(0, 60), more=st.integers(0, 30)
)
def test_a_cap_lies_over_both_sides_of_a_tariff_switch(
    now: Rate, following: Rate, paid: int, left: int, more: int
) -> None:
    priced = now.price_micro(paid)
    for kind in (WorstOfTwo, HalfEach):
        capped = Capped(kind(now, following, paid, priced), paid, priced, left)
        assert capped.price_micro(paid + more) <= priced + left
        assert capped.affordable_units(priced + left) == UNLIMITED


@given(rate=prices.kept, paid=st.integers(0, 60), left=st.integers(-5, 80), amount=st.integers(0, 200))
def test_a_limit_bounds_what_is_granted_and_not_what_it_costs(rate: Rate, paid: int, left: int, amount: int) -> None:
    priced = rate.price_micro(paid)
    limited = Limited(rate, priced, left)
    assert limited.price_micro(paid + 50) == rate.price_micro(paid + 50)
    assert limited.affordable_units(amount) == rate.affordable_units(min(amount, priced + max(0, left)))


def test_a_member_at_the_limit_is_granted_what_is_left_of_a_paid_step() -> None:
    draft = draft_with(1000)
    use = ServiceUse(1, -1, "internet", int(Unit.OCTETS))
    settle(draft, use, STEP, 13)
    assert reserve(draft, use, Limited(STEP, use.priced_micro, 0), 100) == 7


# -- how they are written --------------------------------------------------------------------------------------------


def read(text: str, tax: Tax = Tax()) -> dict[str, tuple[Cap, ...]]:  # noqa: B008 - a constant
    return dict(read_caps(parse_yaml(text, "catalogue.yaml", Path()), SOLD, tax))


def test_caps_of_a_service_of_several_and_of_all() -> None:
    found = read(
        "internet: 5.00 per day\n"
        "roaming: [50.00 per month, 10.00 per day]\n"
        "data: {services: [internet, roaming], limit: 60.00 per month}\n"
        "all: 100.00 per month\n"
    )
    day, month = Period.DAY, Period.MONTH
    data = Cap("data", 60_000_000, Counter("cap data per month", month))
    everything = Cap("all", 100_000_000, Counter("cap all per month", month))
    assert found == {
        "internet": (Cap("internet", 5_000_000, Counter("cap internet per day", day)), data, everything),
        "roaming": (
            Cap("roaming", 50_000_000, Counter("cap roaming per month", month)),
            Cap("roaming", 10_000_000, Counter("cap roaming per day", day)),
            data,
            everything,
        ),
        "sms": (everything,),
    }


def test_caps_are_raised_by_tax_as_prices_are() -> None:
    assert read("sms: 1.00 per day", Tax(190_000, exclusive=True))["sms"][0].limit_micro == 1_190_000


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("internet: 5.00", 1, "amount and its period"),
        ("internet: 5.00 per week", 1, "'5.00 per day'"),
        ("internet: five per day", 1, "not an amount"),
        ("internet: 0 per day", 1, "more than 0"),
        ("internet: -1 per day", 1, "more than 0"),
        ("internet: [1.00 per day, 2.00 per day]", 1, "two caps for the same period"),
        ("internt: 5.00 per day", 1, "did you mean 'internet'?"),
        ("sms: 1.00 per day\ndata: {services: [internet]}", 2, "'limit' is missing"),
        ("data:\n  services: [internet, voice]\n  limit: 1.00 per day", 2, "must be one of internet"),
        ("data:\n  services: [sms, sms]\n  limit: 1.00 per day", 2, "twice"),
        ("data:\n  services: []\n  limit: 1.00 per day", 2, "at least one"),
        ("internet: {limit: 1.00 per day}", 1, "a list"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"catalogue.yaml:{line}: ")
    assert reason in str(caught.value)
