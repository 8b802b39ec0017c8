"""Tiers: each counts its own started steps; what is counted over a month goes on from what the meter says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.accounts import Account, ServiceUse
from balance.ledger import Draft, settle
from balance.model import MAIN_BUCKET, UNLIMITED, Bucket, Unit
from balance.periods import count_from
from occ.rating.periods import Period
from occ.rating.price import Discounted, Tier, TieredPrice
from tests.occ import prices

O = Unit.OCTETS  # noqa: E741
STRADDLING = TieredPrice(O, (Tier(100, 30, 7), Tier(110, 8, 5), Tier(0, 4, 1)))
"""Four steps of 30 in a tier of 100, the last cut short; two of 8 in a tier of 10; steps of 4 beyond."""


@pytest.mark.parametrize(
    ("units", "micro"),
    [
        (0, 0),
        (1, 7),
        (90, 21),
        (91, 28),
        (100, 28),  # the fourth step is charged in full, though the tier ends within it
        (101, 33),  # and the next tier begins with a step of its own
        (108, 33),
        (109, 38),
        (110, 38),
        (111, 39),
        (114, 39),
        (115, 40),
    ],
)
def test_a_tier_counts_its_own_started_steps(units: int, micro: int) -> None:
    assert STRADDLING.price_micro(units) == micro


@pytest.mark.parametrize(
    ("micro", "units"), [(6, 0), (7, 30), (27, 90), (28, 100), (32, 100), (33, 108), (37, 108), (38, 110), (40, 118)]
)
def test_what_an_amount_pays_for_ends_with_a_step_or_a_tier(micro: int, units: int) -> None:
    assert STRADDLING.affordable_units(micro) == units


@given(rate=prices.tiered(), units=st.integers(0, 150))
def test_the_price_is_that_of_steps_laid_one_after_the_other(rate: TieredPrice, units: int) -> None:
    """Laid by hand: a step begins when the one before it or its tier is over."""
    total, begun_until, tier = 0, 0, -1
    for unit in range(units):
        now = next(i for i, each in enumerate(rate.tiers) if not each.up_to_units or unit < each.up_to_units)
        if now != tier or unit >= begun_until:
            total += rate.tiers[now].step_price_micro
            begun_until, tier = unit + rate.tiers[now].step_units, now
    assert rate.price_micro(units) == total


@given(rate=prices.tiered(), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_stretches_add_up_however_usage_is_cut(rate: TieredPrice, cuts: list[int]) -> None:
    units = total = 0
    for cut in cuts:
        total += sum(micro for _, _, micro in rate.stretches(units, units + cut))
        units += cut
    assert total == rate.price_micro(units)


def test_a_free_tier_is_what_a_month_includes() -> None:
    rate = TieredPrice(O, (Tier(100, 1, 0), Tier(0, 10, 3)), Period.MONTH)
    assert rate.affordable_units(0) == 100
    assert rate.affordable_units(3) == 110
    ends_free = TieredPrice(O, (Tier(100, 10, 3), Tier(0, 1, 0)))
    assert ends_free.affordable_units(29) == 90
    assert ends_free.affordable_units(30) == UNLIMITED
    assert ends_free.price_micro(10**15) == 30


@pytest.mark.parametrize(
    "tiers",
    [
        (),
        (Tier(5, 1, 1),),
        (Tier(5, 1, 1), Tier(5, 1, 1), Tier(0, 1, 1)),
        (Tier(5, 1, 1), Tier(3, 1, 1), Tier(0, 1, 1)),
        (Tier(0, 1, 1), Tier(0, 1, 1)),
        (Tier(0, 0, 1),),
        (Tier(0, 1, -1),),
        (*(Tier(up_to, 1, 1) for up_to in range(1, 20)), Tier(0, 1, 1)),
    ],
)
def test_senseless_tiers_are_refused(tiers: tuple[Tier, ...]) -> None:
    with pytest.raises(ValueError, match=r"tier|step"):
        TieredPrice(O, tiers)


def test_tiers_compare_by_what_they_charge() -> None:
    tiers = (Tier(5, 1, 1), Tier(0, 1, 2))
    assert TieredPrice(O, tiers) == TieredPrice(O, tiers)
    assert len({TieredPrice(O, tiers), TieredPrice(O, tiers), TieredPrice(O, tiers, Period.DAY)}) == 2
    assert TieredPrice(O, tiers) != TieredPrice(Unit.EVENTS, tiers)


@given(
    rate=st.one_of(
        prices.tiered(Period.MONTH), st.builds(Discounted, prices.tiered(Period.MONTH), st.integers(1, 1_000_000))
    ),
    reports=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=10),
)
def test_sessions_share_the_count_of_their_month(
    rate: TieredPrice | Discounted, reports: list[tuple[bool, int]]
) -> None:
    """However reports of two sessions alternate, they cost together what one session would."""
    account = Account(b"a", 1, 0, 978, 0, 0, [Bucket(MAIN_BUCKET, int(Unit.MONEY), 10**9)], {})
    draft = Draft(account, 0)
    uses = [ServiceUse(1, -1, "internet", int(O)), ServiceUse(1, -1, "internet", int(O))]
    meter = debited = 0
    for second, units in reports:
        use = uses[second]
        count_from(use, rate, meter)
        debited += settle(draft, use, rate, units)
        meter += units
    assert debited == rate.price_micro(meter)
    assert sum(use.cost_micro for use in uses) == debited
