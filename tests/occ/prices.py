"""Prices of every kind for property tests: small, so that each unit can be tried."""

from hypothesis import strategies as st

from balance.model import Rate, Unit
from occ.rating.periods import Period
from occ.rating.price import CallPrice, Discounted, FreePrice, StepPrice, Tier, TieredPrice

OCTETS = Unit.OCTETS

steps = st.builds(StepPrice, st.just(OCTETS), st.sampled_from([1, 2, 3, 5, 6, 10, 12]), st.integers(1, 20))
frees = st.just(FreePrice(OCTETS))


@st.composite
def tiered(draw: st.DrawFn, counted: Period = Period.SESSION) -> TieredPrice:
    ends = sorted(draw(st.sets(st.integers(1, 60), max_size=3)))
    tiers = [Tier(up_to, draw(st.sampled_from([1, 2, 3, 7, 10])), draw(st.integers(0, 12))) for up_to in (*ends, 0)]
    return TieredPrice(OCTETS, tuple(tiers), counted)


@st.composite
def calls(draw: st.DrawFn) -> CallPrice:
    first_units = draw(st.sampled_from([0, 1, 5, 10]))
    return CallPrice(
        draw(st.one_of(steps, frees, tiered())),
        connection_micro=draw(st.sampled_from([0, 3, 25])),
        first_units=first_units,
        first_micro=draw(st.integers(0, 30)) if first_units else 0,
        minimum_micro=draw(st.sampled_from([0, 20, 60])),
        free_units=draw(st.sampled_from([0, 1, 8])),
    )


plain = st.one_of(steps, frees, tiered(), calls())
discounted = st.builds(
    Discounted, plain, st.one_of(st.sampled_from([1, 500_000, 999_999, 1_000_000]), st.integers(1, 1_000_000))
)
kept = st.one_of(plain, discounted)
"""Every kind of price that a service can keep, counted over its session."""


def most_affordable(rate: Rate, amount: int, limit: int) -> int | None:
    """The greatest number of units that costs ``amount`` at most, tried one by one; None if it is ``limit`` or more."""
    units = 0
    while rate.price_micro(units + 1) <= amount:
        units += 1
        if units >= limit:
            return None
    return units
