"""Prices as the catalogue writes them, what they become, and how mistakes are reported."""

from pathlib import Path

import pytest

from balance.model import Rate, Unit
from occ.rating.local_time import UTC_CALENDAR
from occ.rating.periods import Period
from occ.rating.price import CallPrice, FreePrice, StepPrice, Tier, TieredPrice
from occ.rating.tariff import DENIED, Price, read_tariff
from occ.rating.tax import NO_TAX, Tax
from occ.yamlmap import ConfigError, parse_yaml

MIB, GIB = 1 << 20, 1 << 30
O, S = Unit.OCTETS, Unit.SECONDS  # noqa: E741
SAMPLE = "{connection: 0.05, first: 0.10 per 60 s, then: 0.0015 per 1 s, minimum: 0.12, free: 30 s}"


def price(text: str, unit: Unit = S, tax: Tax = NO_TAX) -> Price:
    return read_tariff(parse_yaml(text, "catalogue.yaml", Path()), unit, UTC_CALENDAR, tax).at(0)[0]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0.09 per 60 s", StepPrice(S, 60, 90_000)),
        ("free", FreePrice(S)),
        (SAMPLE, CallPrice(StepPrice(S, 1, 1_500), 50_000, 60, 100_000, 120_000, 30)),
        ("{connection: 0.05, price: 0.09 per 60 s}", CallPrice(StepPrice(S, 60, 90_000), 50_000)),
        ("{connection: 0.20, price: free}", CallPrice(FreePrice(S), 200_000)),
        ("{first: 0 per 60 s, then: 0.01 per 1 s}", CallPrice(StepPrice(S, 1, 10_000), 0, 60, 0)),
        ("{price: 0.09 per 60 s}", StepPrice(S, 60, 90_000)),
        ("{connection: 0, price: 0.09 per 1 min}", StepPrice(S, 60, 90_000)),
        ("{then: 0.09 per 60 s}", StepPrice(S, 60, 90_000)),
        (
            "{tiers: [{up_to: 5 min, price: 0.09 per 60 s}, {price: free}], counted: session, connection: 0.01}",
            CallPrice(TieredPrice(S, (Tier(300, 60, 90_000), Tier(0, 1, 0))), 10_000),
        ),
    ],
)
def test_a_price_in_seconds(written: str, read: Rate) -> None:
    assert price(written) == read


def test_tiers_of_a_month() -> None:
    written = """
tiers:
  - {up_to: 1 GiB, price: 0.01 per 1 MiB}
  - {up_to: 10 GiB, price: 0.005 per 1 MiB}
  - {price: 0.002 per 1 MiB}
counted: month
"""
    tiers = (Tier(GIB, MIB, 10_000), Tier(10 * GIB, MIB, 5_000), Tier(0, MIB, 2_000))
    assert price(written, O) == TieredPrice(O, tiers, Period.MONTH)


def test_each_price_of_a_tariff_can_be_of_any_kind() -> None:
    tariff = read_tariff(
        parse_yaml(f"08:00: {SAMPLE}\n20:00: free\n22:00: denied\n", "catalogue.yaml", Path()), S, UTC_CALENDAR
    )
    hour = 3_600_000
    assert tariff.at(9 * hour) == (price(SAMPLE), 20 * hour)
    assert tariff.at(21 * hour) == (FreePrice(S), 22 * hour)
    assert tariff.at(23 * hour)[0] == DENIED


def test_every_amount_of_an_exclusive_price_is_raised() -> None:
    """The rule ``gross``: half up to a micro-unit, each amount for itself."""
    tax = Tax(190_000, exclusive=True)
    assert price(SAMPLE, tax=tax) == CallPrice(StepPrice(S, 1, 1_785), 59_500, 60, 119_000, 142_800, 30)
    assert price("0.000002 per 1 s", tax=tax) == StepPrice(S, 1, 2)  # 2.38
    assert price("0.000003 per 1 s", tax=tax) == StepPrice(S, 1, 4)  # 3.57
    tiers = price("{tiers: [{up_to: 1 MiB, price: 1.00 per 1 MiB}, {price: free}], counted: day}", O, tax)
    assert tiers == TieredPrice(O, (Tier(MIB, MIB, 1_190_000), Tier(0, 1, 0)), Period.DAY)
    assert price(SAMPLE, tax=Tax(190_000)) == price(SAMPLE)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("{conection: 0.05, price: 0.09 per 60 s}", 1, "did you mean 'connection'?"),
        ("{conection: 0.05}", 1, "did you mean 'connection'?"),
        ("connection: 0.05", 1, "must have one of the keys price, then (with first) and tiers"),
        ("{price: free, then: free}", 1, "not price and then"),
        ("{first: 0.10 per 60 s, price: free}", 1, "needs the key then"),
        ("price: free\nfirst: 0.10 per 60 s", 2, "needs the key then"),
        ("{first: free, then: free}", 1, "such as '0.01 per 60 s'"),
        ("{price: free, counted: month}", 1, "goes with tiers"),
        ("{price: freee, connection: 1}", 1, "such as '0.01 per 60 s'"),
        ("{price: 0.01 per 60 s, connection: 1,5}", 1, "unknown key '5'"),
        ("{price: 0.01 per 60 s, connection: -1}", 1, "must not be less than 0"),
        ("{price: 0.01 per 60 s, connection: 0.0000001}", 1, "more than 6 decimals"),
        ("{price: 0.01 per 60 s, minimum: 2000000}", 1, "a fee must be from 0"),
        ("{price: 0.01 per 60 s, free: 30}", 1, "not a size"),
        ("{price: 0.01 per 60 s, free: 30 MiB}", 1, "no unit for seconds"),
        ("{first: -1 per 60 s, then: free}", 1, "a fee must be from 0"),
        ("{price: 0 per 60 s}", 1, "what costs nothing is 'free'"),
        ("tiers: [{price: free}]", 1, "counted over something"),
        ("{tiers: [], counted: day}", 1, "from 1 to 16 tiers"),
        ("{tiers: [{up_to: 1 h, price: free}], counted: day}", 1, "must not have up_to"),
        ("{tiers: [{price: free}, {price: free}], counted: day}", 1, "must say up_to"),
        (
            "tiers:\n- {up_to: 2 h, price: free}\n- {up_to: 1 h, price: free}\n- price: free\ncounted: day",
            3,
            "more than",
        ),
        ("{tiers: [{price: free}], counted: week}", 1, "one of session, day, month"),
        ("{tiers: [{price: free}], counted: day, connection: 1}", 1, "belongs to one session"),
        ("{tiers: [{price: free}], counted: month, free: 1 s}", 1, "belongs to one session"),
        ("{tiers: [{price: denied}], counted: month}", 1, "such as '0.01 per 60 s'"),
        ("{price: {price: free}}", 1, "must be a single value"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        price(text)
    assert str(caught.value).startswith(f"catalogue.yaml:{line}: ")
    assert reason in str(caught.value)
