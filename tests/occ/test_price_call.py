"""Prices of calls: connection fee, first and following increments, minimum, free units, discounts; and their memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.model import UNLIMITED, Rate, Unit
from occ.rating.caps import Capped, Limited
from occ.rating.percent import PPM
from occ.rating.periods import Period
from occ.rating.price import (
    CLIENT_RATED,
    CallPrice,
    Discounted,
    FreePrice,
    StepPrice,
    Tier,
    TieredPrice,
    continued,
    discounted,
    full_terms,
    multiplier,
    price_of,
    terms,
    with_free_units,
)
from tests.occ import prices

S = Unit.SECONDS
BY_SECOND = StepPrice(S, 1, 1_500)
SAMPLE = CallPrice(BY_SECOND, 50_000, 60, 100_000, 180_000, 30)
"""0.05 for the connection, 0.10 for the first minute, then 0.0015 a second; 0.18 at least, 30 s free."""


@pytest.mark.parametrize(
    ("seconds", "micro"),
    [
        (0, 0),
        (30, 0),  # free, and no fee with it
        (31, 180_000),  # 0.05 + 0.10 is less than the minimum
        (90, 180_000),  # the first minute after the free half
        (110, 180_000),  # 20 s at 0.0015 make it 0.18
        (111, 181_500),
        (150, 240_000),
    ],
)
def test_a_call_costs_what_its_parts_say(seconds: int, micro: int) -> None:
    assert SAMPLE.price_micro(seconds) == micro


@pytest.mark.parametrize(
    ("micro", "seconds"), [(-1, 0), (0, 30), (179_999, 30), (180_000, 110), (181_499, 110), (181_500, 111)]
)
def test_what_an_amount_pays_for(micro: int, seconds: int) -> None:
    assert SAMPLE.affordable_units(micro) == seconds


@given(rate=prices.kept)
def test_prices_never_fall_and_begin_at_nothing(rate: Rate) -> None:
    costs = [rate.price_micro(units) for units in range(-1, 120)]
    assert costs[:2] == [0, 0]
    assert costs == sorted(costs)


@given(rate=prices.kept, amount=st.integers(0, 400))
def test_affordable_is_what_trying_unit_by_unit_finds(rate: Rate, amount: int) -> None:
    tried = prices.most_affordable(rate, amount, 3000)
    found = rate.affordable_units(amount)
    if tried is None:
        assert found >= 3000
        assert rate.price_micro(min(found, UNLIMITED)) <= amount
    else:
        assert found == tried
    assert rate.affordable_units(-1) == 0 or isinstance(rate, FreePrice)


@given(rate=prices.kept, amount=st.integers(0, 1 << 62))
def test_affordable_holds_for_large_amounts(rate: Rate, amount: int) -> None:
    found = rate.affordable_units(amount)
    assert 0 <= found <= UNLIMITED
    assert rate.price_micro(found) <= amount
    assert found == UNLIMITED or rate.price_micro(found + 1) > amount


def test_first_and_following_increments_of_one_length_are_plain_steps() -> None:
    step = StepPrice(S, 60, 90_000)
    call = CallPrice(step, first_units=60, first_micro=90_000)
    assert [call.price_micro(units) for units in range(400)] == [step.price_micro(units) for units in range(400)]


def test_a_flat_fee_for_a_call() -> None:
    flat = CallPrice(FreePrice(S), connection_micro=200_000)
    assert [flat.price_micro(units) for units in (0, 1, 36_000)] == [0, 200_000, 200_000]
    assert flat.affordable_units(199_999) == 0
    assert flat.affordable_units(200_000) == UNLIMITED


@pytest.mark.parametrize(
    "wrong",
    [
        {"connection_micro": -1},
        {"minimum_micro": 10**15},
        {"first_units": -1},
        {"free_units": UNLIMITED + 1},
        {"first_micro": 5},
        {"then": TieredPrice(S, (Tier(0, 1, 1),), Period.MONTH)},
    ],
)
def test_senseless_calls_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"fee|increment|session"):
        CallPrice(**{"then": BY_SECOND, **wrong})  # type: ignore[arg-type]


# -- discounts -------------------------------------------------------------------------------------------------------


def test_a_discount_is_rounded_down_on_the_price_so_far() -> None:
    """The rule ``discount``: a third off 10 micro-units is 3, off 20 it is 6, not twice 3 and not 7."""
    rate = Discounted(StepPrice(S, 1, 10), 333_333)
    assert [rate.price_micro(units) for units in (0, 1, 2, 3)] == [0, 7, 14, 21]
    assert [rate.saved_micro(units) for units in (0, 1, 2, 3, 100)] == [0, 3, 6, 9, 333]


@given(rate=prices.plain, ppm=st.integers(1, PPM), units=st.integers(0, 200))
def test_a_discount_costs_less_than_a_micro_unit_of_rounding(rate: Rate, ppm: int, units: int) -> None:
    price, off = rate.price_micro(units), Discounted(rate, ppm).price_micro(units)
    assert 0 <= off * PPM - price * (PPM - ppm) < PPM
    assert off + Discounted(rate, ppm).saved_micro(units) == price


def test_everything_off_is_free() -> None:
    assert Discounted(BY_SECOND, PPM).price_micro(1000) == 0
    assert Discounted(BY_SECOND, PPM).affordable_units(0) == UNLIMITED
    assert discounted(BY_SECOND, PPM) == FreePrice(S)
    assert discounted(BY_SECOND, 0) is BY_SECOND
    for ppm in (0, -1, PPM + 1):
        with pytest.raises(ValueError, match="discount"):
            Discounted(BY_SECOND, ppm)


# -- memory ----------------------------------------------------------------------------------------------------------


@given(
    rate=st.one_of(
        prices.kept, prices.tiered(Period.MONTH), st.builds(Discounted, prices.tiered(Period.DAY), st.just(5))
    )
)
def test_a_price_survives_being_kept(rate: Rate) -> None:
    step_units, step_micro, more = full_terms(rate)
    again = price_of(int(rate.unit), step_units, step_micro, more)
    assert again == rate
    assert hash(again) == hash(rate)
    assert full_terms(again) == (step_units, step_micro, more)
    assert all(0 <= number <= UNLIMITED for number in more)


def test_steps_need_no_further_terms() -> None:
    """What is kept of most services is two numbers, and one lookup gives the price back."""
    rate = StepPrice(S, 60, 90_000)
    assert full_terms(rate) == (60, 90_000, ())
    assert price_of(S, 60, 90_000) is price_of(S, 60, 90_000, ())
    assert price_of(S, 1, 0) == FreePrice(S)
    assert price_of(Unit.AMOUNT, 1, 0) is CLIENT_RATED
    assert terms(SAMPLE) == (1, 1_500)


def test_the_numbers_that_stores_keep_do_not_change() -> None:
    tiers = TieredPrice(S, (Tier(10, 1, 5), Tier(0, 60, 0)), Period.MONTH)
    assert full_terms(SAMPLE) == (1, 1_500, (2, 50_000, 60, 100_000, 180_000, 30))
    assert full_terms(Discounted(tiers, 7)) == (1, 5, (1, 2, 2, 10, 1, 5, 0, 60, 0, 3, 7))


@pytest.mark.parametrize(
    "more", [(9,), (2, 1, 2), (1, 0), (1, 0, 5), (3, 2_000_000), (3, 5, 2, 0, 0, 0, 0, 0), (-1, 0)]
)
def test_terms_that_no_price_has_are_refused(more: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        price_of(S, 1, 1_500, more)


def test_what_is_made_for_one_operation_is_not_kept() -> None:
    with pytest.raises(TypeError, match="one operation"):
        full_terms(Capped(BY_SECOND, 0, 0, 10))


def test_the_memory_of_prices_is_bounded() -> None:
    for step in range(1, 10_000):
        price_of(S, step, 7, (2, step, 0, 0, 0, 0))
    from occ.rating import price

    assert len(price._memo) <= 4096


# -- one price made of another ---------------------------------------------------------------------------------------


def test_a_call_that_goes_on_pays_no_second_connection() -> None:
    assert continued(SAMPLE, 100, 180_000) == BY_SECOND
    assert continued(SAMPLE, 0, 0) is SAMPLE
    # Nothing was charged yet: what is left of the free units, and the fees when they are over.
    assert continued(SAMPLE, 20, 0) == CallPrice(BY_SECOND, 50_000, 60, 100_000, 180_000, 10)
    # The call was charged under another price, and is still within what is free under this one.
    assert continued(SAMPLE, 20, 5) == CallPrice(BY_SECOND, free_units=10)
    assert continued(Discounted(SAMPLE, 5), 100, 1) == Discounted(BY_SECOND, 5)
    assert continued(CLIENT_RATED, 100, 1) is CLIENT_RATED


def test_tiers_of_a_session_go_on_where_they_are() -> None:
    tiers = TieredPrice(S, (Tier(100, 10, 3), Tier(200, 10, 2), Tier(0, 10, 1)))
    assert continued(tiers, 150, 5) == TieredPrice(S, (Tier(50, 10, 2), Tier(0, 10, 1)))
    assert continued(tiers, 100, 5) == TieredPrice(S, (Tier(100, 10, 2), Tier(0, 10, 1)))
    assert continued(tiers, 200, 5) == StepPrice(S, 10, 1)
    assert continued(TieredPrice(S, (Tier(100, 10, 3), Tier(0, 1, 0))), 200, 5) == FreePrice(S)
    of_month = TieredPrice(S, tiers.tiers, Period.MONTH)
    assert continued(of_month, 150, 5) is of_month
    assert continued(CallPrice(tiers, 7, 60, 9, 0, 30), 140, 5) == TieredPrice(
        S, (Tier(50, 10, 3), Tier(150, 10, 2), Tier(0, 10, 1))
    )


@given(rate=prices.kept, units=st.integers(0, 80), more=st.integers(0, 80))
def test_a_price_that_goes_on_asks_for_no_more_than_from_the_beginning(rate: Rate, units: int, more: int) -> None:
    """But for steps that begin anew, a session that goes on is charged as if it had had the price from the start."""
    cost = rate.price_micro(units)
    going_on = continued(rate, units, cost)
    assert going_on.price_micro(0) == 0
    # Steps of one unit begin and end anywhere.
    if all(step == 1 for step in _step_lengths(rate)) and not isinstance(rate, Discounted) and cost > _minimum(rate):
        assert going_on.price_micro(more) == rate.price_micro(units + more) - cost


def _step_lengths(rate: Rate) -> list[int]:
    if isinstance(rate, TieredPrice):
        return [tier.step_units for tier in rate.tiers]
    if isinstance(rate, CallPrice):
        return [*_step_lengths(rate.then), 1 if rate.first_units <= 1 else rate.first_units]
    return [rate.step_units] if isinstance(rate, StepPrice) else [1]


def _minimum(rate: Rate) -> int:
    return rate.minimum_micro if isinstance(rate, CallPrice) else 0


def test_free_units_of_a_price_and_of_a_promotion_do_not_add_up() -> None:
    assert with_free_units(BY_SECOND, 300) == CallPrice(BY_SECOND, free_units=300)
    assert with_free_units(SAMPLE, 300) == CallPrice(BY_SECOND, 50_000, 60, 100_000, 180_000, 300)
    assert with_free_units(SAMPLE, 10) is SAMPLE
    assert with_free_units(FreePrice(S), 10) == FreePrice(S)
    assert with_free_units(Discounted(BY_SECOND, 5), 10) == Discounted(CallPrice(BY_SECOND, free_units=10), 5)
    of_day = TieredPrice(S, (Tier(0, 1, 1),), Period.DAY)
    assert with_free_units(of_day, 10) is of_day


# -- credit pools ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "scale"),
    [
        (SAMPLE, (15, 2)),
        (CallPrice(FreePrice(S), 5), None),
        (Discounted(SAMPLE, 200_000), (12, 2)),
        (Discounted(StepPrice(S, 3, 1), 500_000), (166666666666666667, -18)),
        (TieredPrice(S, (Tier(0, 1, 1),)), None),
        (Capped(SAMPLE, 0, 0, 5), (15, 2)),
        (Limited(SAMPLE, 0, 5), (15, 2)),
        (Discounted(BY_SECOND, PPM), None),
    ],
)
def test_in_a_pool_a_call_counts_by_its_following_increments(rate: Rate, scale: tuple[int, int] | None) -> None:
    """Row 33, RFC 8506 section 5.1.2: one multiplier for all units of a service; fees are settled as they come."""
    assert multiplier(rate) == scale
