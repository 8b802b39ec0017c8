"""Prices of a grant that may be used on both sides of a tariff switch (RFC 8506 sections 5.1.1 and 5.1.2, row 34)."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from balance.model import UNLIMITED, Rate, Unit
from occ.rating.periods import Period
from occ.rating.price import CallPrice, FreePrice, HalfEach, StepPrice, TieredPrice, WorstOfTwo, continued
from tests.occ import prices

FREE = FreePrice(Unit.OCTETS)
DAY, NIGHT = StepPrice(Unit.OCTETS, 10, 7), StepPrice(Unit.OCTETS, 10, 3)
BOTH = (WorstOfTwo, HalfEach)

# Steps of which one is often a multiple of another, and seldom only in price.
small = st.one_of(
    st.just(FREE),
    st.builds(StepPrice, st.just(Unit.OCTETS), st.sampled_from([1, 2, 3, 5, 6, 10, 12]), st.integers(1, 20)),
)
real = st.one_of(
    st.just(FREE), st.builds(StepPrice, st.just(Unit.OCTETS), st.integers(1, 1 << 32), st.integers(1, 10**9))
)
paid = st.integers(0, 40)


def split(now: Rate, following: Rate, paid_units: int, before: int, after: int, priced_micro: int = -1) -> int:
    """What really is debited for that much on either side; ``now`` has priced what was paid unless it is told."""
    if priced_micro < 0:
        priced_micro = now.price_micro(paid_units)
    return max(0, now.price_micro(paid_units + before) - priced_micro) + following.price_micro(after)


def worst(now: Rate, following: Rate, paid_units: int, units: int, priced_micro: int = -1) -> int:
    return max(split(now, following, paid_units, k, units - k, priced_micro) for k in range(units + 1))


def further(rate: WorstOfTwo | HalfEach, units: int) -> int:
    """What the reservation of that many further units costs."""
    return rate.price_micro(rate.paid_units + units) - rate.priced_micro


def across(kind: type[WorstOfTwo | HalfEach], now: Rate, following: Rate, paid_units: int) -> WorstOfTwo | HalfEach:
    return kind(now, following, paid_units, now.price_micro(paid_units))


@given(now=small, following=small, paid_units=paid, units=st.integers(0, 60))
@example(now=DAY, following=NIGHT, paid_units=4, units=8)
def test_no_split_costs_more_than_the_worst_of_two(now: Rate, following: Rate, paid_units: int, units: int) -> None:
    """RFC 8506 section 5.1.1: the overall used units never exceed the credit reservation."""
    assert further(across(WorstOfTwo, now, following, paid_units), units) >= worst(now, following, paid_units, units)


@given(now=real, following=real, paid_units=st.integers(0, 1 << 40), units=st.integers(0, 1 << 40), data=st.data())
def test_no_split_of_a_real_quota_costs_more_either(
    now: Rate, following: Rate, paid_units: int, units: int, data: st.DataObject
) -> None:
    before = data.draw(st.integers(0, units))
    reserved = further(across(WorstOfTwo, now, following, paid_units), units)
    assert reserved >= split(now, following, paid_units, before, units - before)


@given(data=st.data(), step=st.integers(1, 6), times=st.integers(1, 6), paid_units=paid, units=st.integers(0, 60))
def test_the_worst_of_two_is_exact_where_one_step_is_a_multiple_of_the_other(
    data: st.DataObject, step: int, times: int, paid_units: int, units: int
) -> None:
    long = StepPrice(Unit.OCTETS, step * times, data.draw(st.integers(1, 60)))
    short = StepPrice(Unit.OCTETS, step, data.draw(st.integers(1, 20)))
    for now, following in ((long, short), (short, long)):
        reserved = further(across(WorstOfTwo, now, following, paid_units), units)
        assert reserved == worst(now, following, paid_units, units)


@given(now=small, following=small, paid_units=paid, units=st.integers(0, 60))
def test_the_worst_of_two_is_never_a_step_too_much(now: Rate, following: Rate, paid_units: int, units: int) -> None:
    above = further(across(WorstOfTwo, now, following, paid_units), units) - worst(now, following, paid_units, units)
    if isinstance(now, FreePrice) or isinstance(following, FreePrice):
        assert above == 0
    else:
        assert isinstance(now, StepPrice)
        assert isinstance(following, StepPrice)
        assert above < max(now.step_price_micro, following.step_price_micro)


def test_a_split_costs_a_started_step_on_either_side() -> None:
    """11 units at one price are two steps; 10 before the switch and 1 after it are two, 11 and 1 are three."""
    assert [further(WorstOfTwo(DAY, NIGHT, 0, 0), units) for units in (1, 2, 11, 12)] == [7, 10, 14, 17]
    assert [further(WorstOfTwo(DAY, DAY, 0, 0), units) for units in (1, 2, 11, 12)] == [7, 14, 14, 21]
    # 8 units: 6 are left of the step that is paid; one day step begins with the seventh, one night step needs one unit.
    assert [further(WorstOfTwo(DAY, NIGHT, 4, 7), units) for units in (0, 1, 6, 7, 8)] == [0, 3, 3, 7, 10]


@given(now=small, following=small, paid_units=paid, priced_micro=st.integers(0, 200), units=st.integers(0, 40))
def test_units_that_were_priced_otherwise_are_no_way_around_it(
    now: Rate, following: Rate, paid_units: int, priced_micro: int, units: int
) -> None:
    """What was paid may have been cut or leaked: the bound is against what the ledger will debit."""
    rate = WorstOfTwo(now, following, paid_units, priced_micro)
    assert further(rate, units) >= worst(now, following, paid_units, units, priced_micro)


@given(now=small, following=small, paid_units=paid, quota=st.integers(0, 40))
def test_half_each_is_both_quotas_at_their_own_price(now: Rate, following: Rate, paid_units: int, quota: int) -> None:
    rate = across(HalfEach, now, following, paid_units)
    assert further(rate, 2 * quota) == split(now, following, paid_units, quota, quota)
    assert further(rate, 2 * quota + 1) == split(now, following, paid_units, quota + 1, quota + 1)


@given(now=small, following=small, paid_units=paid, quota=st.integers(0, 30))
def test_two_quotas_cover_whatever_is_used_of_them(now: Rate, following: Rate, paid_units: int, quota: int) -> None:
    """RFC 8506 section 5.1.2: the overall reported used units never exceed the credit reservation."""
    reserved = further(across(HalfEach, now, following, paid_units), 2 * quota)
    assert all(
        split(now, following, paid_units, before, after) <= reserved
        for before in range(quota + 1)
        for after in range(quota + 1)
    )


@pytest.mark.parametrize("kind", BOTH)
@settings(max_examples=500)
@given(
    now=small,
    following=small,
    paid_units=paid,
    priced_micro=st.just(-1) | st.integers(0, 200),
    amount=st.integers(0, 300),
)
@example(
    now=StepPrice(Unit.OCTETS, 10, 10), following=StepPrice(Unit.OCTETS, 5, 1), paid_units=0, priced_micro=0, amount=40
)
def test_affordable_is_what_a_search_from_below_finds(
    kind: type[WorstOfTwo | HalfEach], now: Rate, following: Rate, paid_units: int, priced_micro: int, amount: int
) -> None:
    if priced_micro < 0:
        priced_micro = now.price_micro(paid_units)
    assume(priced_micro == 0 or paid_units > 0)
    rate: Rate = kind(now, following, paid_units, priced_micro)
    found = rate.affordable_units(amount)
    if found > 10_000:
        assert found in (UNLIMITED, UNLIMITED - 1)
        assert rate.price_micro(UNLIMITED) <= amount or (UNLIMITED - paid_units) % 2
        return
    step = 2 if kind is HalfEach else 1
    units = 0
    while rate.price_micro(units + 1) <= amount:
        units += 1
    assert found == units
    if kind is HalfEach and found >= paid_units:
        assert (found - paid_units) % step == 0


@pytest.mark.parametrize("kind", BOTH)
@given(now=real, following=real, paid_units=st.integers(0, 1 << 40), amount=st.integers(0, 1 << 62))
def test_affordable_is_the_greatest_number_that_can_be_paid(
    kind: type[WorstOfTwo | HalfEach], now: Rate, following: Rate, paid_units: int, amount: int
) -> None:
    rate = across(kind, now, following, paid_units)
    amount += rate.priced_micro
    found = rate.affordable_units(amount)
    assert paid_units <= found <= UNLIMITED
    assert rate.price_micro(found) <= amount
    if found < UNLIMITED - 1:
        assert rate.price_micro(found + 1) > amount
    if kind is HalfEach:
        assert (found - paid_units) % 2 == 0


@pytest.mark.parametrize("kind", BOTH)
@given(
    now=real,
    following=real,
    paid_units=st.integers(0, 1 << 30),
    fewer=st.integers(0, 1 << 50),
    more=st.integers(0, 1 << 50),
)
def test_price_never_falls_as_units_grow(
    kind: type[WorstOfTwo | HalfEach], now: Rate, following: Rate, paid_units: int, fewer: int, more: int
) -> None:
    rate = across(kind, now, following, paid_units)
    fewer, more = sorted((fewer, more))
    assert rate.price_micro(fewer) <= rate.price_micro(more)
    assert rate.price_micro(0) == 0


@pytest.mark.parametrize("kind", BOTH)
def test_free_on_either_side(kind: type[WorstOfTwo | HalfEach]) -> None:
    assert kind(FREE, FREE, 5, 0).affordable_units(0) in (UNLIMITED, UNLIMITED - 1)
    assert kind(FREE, FREE, 5, 0).price_micro(1000) == 0
    to_free, to_day = kind(DAY, FREE, 10, 7), kind(FREE, DAY, 10, 0)
    assert to_free.affordable_units(7) == 10
    assert to_day.affordable_units(0) == 10
    assert to_free.affordable_units(14) == to_day.affordable_units(7) == (20 if kind is WorstOfTwo else 30)


@pytest.mark.parametrize("kind", BOTH)
def test_nothing_costs_nothing_and_nothing_buys_nothing(kind: type[WorstOfTwo | HalfEach]) -> None:
    rate = kind(DAY, NIGHT, 0, 0)
    assert rate.price_micro(0) == rate.price_micro(-1) == 0
    assert rate.affordable_units(0) == rate.affordable_units(-1) == 0
    # Less than what was paid for pays for a part of it; nobody asks, and the answer still fits the price.
    assert kind(DAY, NIGHT, 30, 21).affordable_units(7) == 10


def test_large_quotas_take_no_long_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps a quota has: what is searched is what rounding to started steps leaves open."""
    tried: list[int] = []
    cost = HalfEach.at_both

    def counted(rate: HalfEach, quota: int) -> int:
        tried.append(quota)
        return cost(rate, quota)

    rate = HalfEach(StepPrice(Unit.OCTETS, 1 << 20, 10_000), StepPrice(Unit.OCTETS, 1_000_000, 20_000), 7, 10_000)
    amount = rate.price_micro(1 << 50)
    monkeypatch.setattr(HalfEach, "at_both", counted)
    assert rate.affordable_units(amount) >= 1 << 50
    assert len(tried) < 25


# -- prices that are more than steps ---------------------------------------------------------------------------------


@given(now=prices.kept, following=prices.kept, paid_units=paid, units=st.integers(0, 40))
def test_no_split_between_prices_of_any_kind_costs_more(
    now: Rate, following: Rate, paid_units: int, units: int
) -> None:
    """RFC 8506 section 5.1.1, whatever the second price asks for by then: its free units may be used up."""
    reserved = further(across(WorstOfTwo, now, following, paid_units), units)
    for k in range(units + 1):
        used, cost = paid_units + k, now.price_micro(paid_units + k)
        going_on = continued(following, used, cost)
        assert reserved >= split(now, going_on, paid_units, k, units - k)
        assert reserved >= split(now, following, paid_units, k, units - k) or following != going_on


@given(now=prices.kept, following=prices.kept, paid_units=paid, quota=st.integers(0, 20))
def test_two_quotas_of_any_price_cover_whatever_is_used_of_them(
    now: Rate, following: Rate, paid_units: int, quota: int
) -> None:
    """RFC 8506 section 5.1.2."""
    reserved = further(across(HalfEach, now, following, paid_units), 2 * quota)
    for before in range(quota + 1):
        going_on = continued(following, paid_units + before, now.price_micro(paid_units + before))
        assert all(split(now, going_on, paid_units, before, after) <= reserved for after in range(quota + 1))


@given(
    now=prices.kept,
    following=prices.tiered(Period.MONTH),
    meter=st.integers(0, 80),
    before=st.integers(0, 30),
    after=st.integers(0, 30),
)
def test_a_count_that_goes_on_after_the_switch_is_covered_wherever_it_is(
    now: Rate, following: TieredPrice, meter: int, before: int, after: int
) -> None:
    reserved = further(across(WorstOfTwo, now, following, 0), before + after)
    cost = now.price_micro(before) + following.price_micro(meter + after) - following.price_micro(meter)
    assert reserved >= cost


@pytest.mark.parametrize("kind", BOTH)
@given(now=prices.kept, following=prices.kept, paid_units=paid, amount=st.integers(0, 300))
def test_affordable_of_any_price_is_what_a_search_from_below_finds(
    kind: type[WorstOfTwo | HalfEach], now: Rate, following: Rate, paid_units: int, amount: int
) -> None:
    rate = across(kind, now, following, paid_units)
    amount += rate.priced_micro
    tried = prices.most_affordable(rate, amount, 2000)
    found = rate.affordable_units(amount)
    if tried is None:
        assert found >= 2000 - 1
        assert rate.price_micro(found) <= amount
    else:
        assert found == tried or (kind is HalfEach and found == tried - 1 and (found - paid_units) % 2 == 0)
    assert [rate.price_micro(units) for units in range(100)] == sorted(rate.price_micro(units) for units in range(100))


def test_in_the_middle_of_a_call_little_more_than_the_call_itself_is_reserved() -> None:
    """Fees that were paid are not reserved again; the bound is one started step above what can happen."""
    call = CallPrice(StepPrice(Unit.SECONDS, 60, 90_000), 50_000, 60, 100_000, 120_000)
    night = StepPrice(Unit.SECONDS, 60, 50_000)
    assert further(WorstOfTwo(call, night, 180, call.price_micro(180)), 300) <= 5 * 90_000 + 90_000 + 50_000


def test_large_amounts_of_any_price_take_no_long_search(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    cost = WorstOfTwo.at_both

    def counted(rate: WorstOfTwo, units: int) -> int:
        tried.append(units)
        return cost(rate, units)

    call = CallPrice(StepPrice(Unit.OCTETS, 1 << 20, 10_000), 50_000)
    rate = WorstOfTwo(call, StepPrice(Unit.OCTETS, 1_000_000, 20_000), 7, call.price_micro(7))
    monkeypatch.setattr(WorstOfTwo, "at_both", counted)
    assert rate.affordable_units(10**15) >= 1 << 50
    assert len(tried) < 70
