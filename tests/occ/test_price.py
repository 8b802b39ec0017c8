"""Prices: started steps, cumulative, exact; money as people write it."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balance.model import UNLIMITED, Rate, Unit
from occ.rating.currency import NUMERIC, currency_name, format_amount, parse_amount
from occ.rating.price import CLIENT_RATED, MAXIMUM_STEP_PRICE_MICRO, FreePrice, StepPrice, WorstOfTwo, multiplier

MIB = 1 << 20
VOICE = StepPrice(Unit.SECONDS, 60, 90_000)
steps = st.builds(StepPrice, st.sampled_from(Unit), st.integers(1, 1 << 40), st.integers(1, MAXIMUM_STEP_PRICE_MICRO))
units = st.integers(0, UNLIMITED)
amounts = st.integers(0, 1 << 62)


@pytest.mark.parametrize(
    ("seconds", "micro"),
    [(0, 0), (1, 90_000), (60, 90_000), (61, 180_000), (120, 180_000), (121, 270_000), (3600, 5_400_000)],
)
def test_a_started_step_costs_in_full(seconds: int, micro: int) -> None:
    assert VOICE.price_micro(seconds) == micro


@pytest.mark.parametrize(
    ("micro", "seconds"), [(0, 0), (89_999, 0), (90_000, 60), (179_999, 60), (180_000, 120), (10_000_000, 6660)]
)
def test_affordable_is_whole_steps_only(micro: int, seconds: int) -> None:
    assert VOICE.affordable_units(micro) == seconds


@given(rate=steps, amount=amounts)
@example(rate=StepPrice(Unit.OCTETS, 1 << 40, 1), amount=1 << 62)
def test_affordable_is_the_greatest_number_that_can_be_paid(rate: StepPrice, amount: int) -> None:
    affordable = rate.affordable_units(amount)
    assert rate.price_micro(affordable) <= amount
    if affordable < UNLIMITED:
        assert rate.price_micro(affordable + 1) > amount
    else:
        assert affordable == UNLIMITED


@given(rate=steps, fewer=units, more=units)
def test_price_never_falls_as_units_grow(rate: StepPrice, fewer: int, more: int) -> None:
    fewer, more = sorted((fewer, more))
    assert rate.price_micro(fewer) <= rate.price_micro(more)


@given(rate=steps, total=units)
def test_price_is_the_steps_that_hold_the_units(rate: StepPrice, total: int) -> None:
    price = rate.price_micro(total)
    count, rest = divmod(price, rate.step_price_micro)
    assert rest == 0
    assert (count - 1) * rate.step_units < total <= count * rate.step_units or total == count == 0


@given(rate=steps)
def test_nothing_costs_nothing_and_nothing_buys_nothing(rate: StepPrice) -> None:
    assert rate.price_micro(0) == 0
    assert rate.affordable_units(0) == 0
    assert rate.affordable_units(-1) == 0


@given(total=units)
def test_free_is_free(total: int) -> None:
    rate: Rate = FreePrice(Unit.OCTETS)
    assert rate.price_micro(total) == 0
    assert rate.affordable_units(0) == UNLIMITED


@pytest.mark.parametrize(("step", "price"), [(0, 1), (-1, 1), (UNLIMITED + 1, 1), (1, 0), (1, -5), (1, 10**15)])
def test_senseless_steps_are_refused(step: int, price: int) -> None:
    with pytest.raises(ValueError, match=r"step|price"):
        StepPrice(Unit.OCTETS, step, price)


def test_rates_compare_by_what_they_charge() -> None:
    assert StepPrice(Unit.OCTETS, MIB, 10_000) == StepPrice(Unit.OCTETS, MIB, 10_000)
    assert StepPrice(Unit.OCTETS, MIB, 10_000) != StepPrice(Unit.OCTETS, MIB, 10_001)
    assert StepPrice(Unit.OCTETS, MIB, 10_000) != StepPrice(Unit.EVENTS, MIB, 10_000)
    assert FreePrice(Unit.OCTETS) != StepPrice(Unit.OCTETS, 1, 1)
    assert len({FreePrice(Unit.OCTETS), FreePrice(Unit.OCTETS), VOICE, VOICE}) == 2


@pytest.mark.parametrize(
    ("rate", "scale"),
    [
        (VOICE, (15, 2)),  # 1500 micro-units a second
        (StepPrice(Unit.OCTETS, MIB, 10_000), (95367431640625, -16)),
        (StepPrice(Unit.EVENTS, 3, 1), (333333333333333333, -18)),
        (StepPrice(Unit.EVENTS, 3, 2), (666666666666666667, -18)),
        (StepPrice(Unit.EVENTS, 1, MAXIMUM_STEP_PRICE_MICRO), (1, 12)),
        (CLIENT_RATED, (1, 0)),
        (FreePrice(Unit.OCTETS), None),
    ],
)
def test_a_unit_in_a_credit_pool_counts_what_it_costs(rate: Rate, scale: tuple[int, int] | None) -> None:
    """Row 33, RFC 8506 section 5.1.2: multipliers follow the prices; Unit-Value is section 8.8."""
    assert multiplier(rate) == scale


@given(rate=steps)
def test_multipliers_are_as_precise_as_eighteen_digits_allow(rate: StepPrice) -> None:
    scale = multiplier(rate)
    assert scale is not None
    digits, exponent = scale
    assert 0 < digits < 10**18
    assert digits % 10
    price = Fraction(rate.step_price_micro, rate.step_units)
    assert abs(digits * Fraction(10) ** exponent - price) <= price * Fraction(5, 10**18)


def test_only_prices_of_steps_have_a_multiplier() -> None:
    with pytest.raises(TypeError, match="steps"):
        multiplier(WorstOfTwo(VOICE, VOICE, 0, 0))


@pytest.mark.parametrize(
    ("written", "micro"),
    [("10", 10_000_000), ("10.00", 10_000_000), ("0.000001", 1), ("-3.5", -3_500_000), ("007.10", 7_100_000)],
)
def test_amounts_are_exact(written: str, micro: int) -> None:
    assert parse_amount(written) == micro


@pytest.mark.parametrize(
    "written",
    ["", " 1", "1 ", "1,50", "1.", ".5", "1e3", "0x10", "+1", "--1", "1.0000001", "€5", "1_000", "٣", "9" * 16, "NaN"],
)
def test_what_is_no_exact_amount_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"amount|decimals|money"):
        parse_amount(written)


@given(st.integers(-UNLIMITED // 4, UNLIMITED // 4))
def test_amounts_survive_being_written(micro: int) -> None:
    assert parse_amount(format_amount(micro)) == micro


def test_amounts_are_written_with_two_decimals_at_least() -> None:
    assert [format_amount(each) for each in (0, 10_000_000, 123_456, -1, -5_500_000)] == [
        "0.00",
        "10.00",
        "0.123456",
        "-0.000001",
        "-5.50",
    ]


def test_currency_codes() -> None:
    assert NUMERIC["EUR"] == 978
    assert currency_name(978) == "EUR"
    assert currency_name(8) == "ALL"
    assert currency_name(1) == "001"
    assert len(set(NUMERIC.values())) == len(NUMERIC)
