"""Tax and percentages: half up to a micro-unit, for each amount of a price and for what of a charge is tax."""

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.rating.percent import parse_percent, percent_text
from occ.rating.tax import NO_TAX, Tax, gross_of, read_tax, tax_of
from occ.yamlmap import ConfigError, parse_yaml

amounts = st.integers(0, 10**15)
rates = st.integers(0, 1_000_000)
MILLION = Decimal(1_000_000)


@given(net=amounts, ppm=rates)
def test_gross_is_half_up(net: int, ppm: int) -> None:
    exact = Decimal(net) * (MILLION + ppm) / MILLION
    assert gross_of(net, ppm) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))


@given(gross=amounts, ppm=rates)
def test_the_tax_in_a_charge_is_half_up(gross: int, ppm: int) -> None:
    exact = Decimal(gross) * ppm / (MILLION + ppm)
    assert tax_of(gross, ppm) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    assert 0 <= tax_of(gross, ppm) <= gross


@pytest.mark.parametrize(
    ("net", "ppm", "gross", "tax"),
    [
        (90_000, 190_000, 107_100, 17_100),
        (1, 190_000, 1, 0),
        (50, 10_000, 51, 1),  # 50.5 is rounded up; the tax in 51 is 0.505
        (150, 10_000, 152, 2),  # 151.5
        (0, 190_000, 0, 0),
    ],
)
def test_what_is_rounded_where(net: int, ppm: int, gross: int, tax: int) -> None:
    assert gross_of(net, ppm) == gross
    assert tax_of(gross, ppm) == tax


def test_inclusive_prices_stay_as_they_are() -> None:
    assert Tax(190_000).gross(90_000) == 90_000
    assert Tax(190_000, exclusive=True).gross(90_000) == 107_100
    assert Tax(190_000).of(119) == 19
    assert NO_TAX.gross(5) == 5
    assert NO_TAX.of(5) == 0


def read(text: str) -> Tax:
    return read_tax(parse_yaml(text, "catalogue.yaml", Path()))


def test_tax_as_it_is_written() -> None:
    assert read("{rate: 19 %, prices: inclusive}") == Tax(190_000, exclusive=False)
    assert read("{rate: 7.7%, prices: exclusive}") == Tax(77_000, exclusive=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rate: 19 %", "'prices' is missing"),
        ("{rate: 19, prices: inclusive}", "'20 %'"),
        ("{rate: 0 %, prices: inclusive}", "more than 0 %"),
        ("{rate: 101 %, prices: inclusive}", "at most 100 %"),
        ("{rate: 19 %, prices: exclusiv}", "did you mean 'exclusive'?"),
        ("{rate: 19 %, price: exclusive}", "did you mean 'prices'?"),
    ],
)
def test_a_mistake_is_named(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("written", "ppm"), [("20 %", 200_000), ("20%", 200_000), ("7.7 %", 77_000), ("0.0001 %", 1), ("250 %", 2_500_000)]
)
def test_percentages_are_exact(written: str, ppm: int) -> None:
    assert parse_percent(written) == ppm
    assert parse_percent(percent_text(ppm)) == ppm


@pytest.mark.parametrize("written", ["", "20", "-5 %", "0.00001 %", "1e1 %", "20  %", "5,5 %", "% 5", "٣ %"])
def test_what_is_no_percentage_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="percentage"):
        parse_percent(written)
