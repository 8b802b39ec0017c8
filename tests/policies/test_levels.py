"""Levels: when an account comes to one, when it leaves it, and what it will be at by the clock alone."""

from dataclasses import replace

import pytest

from balance.model import AccountKind, Bucket, LifeState, Meter, Unit
from policies.levels import INFINITE, Level, Measure, Measured, Range
from policies.policy import Policies
from tests.policies.rulebook import NOON, account, rules

MONEY = """
levels:
  low: {when: balance below 2.00, until: balance at least 3.00, accounts: prepaid}
  zero: {when: balance at most 0, accounts: prepaid}
  negative: {when: balance below 0, accounts: prepaid}
  rich: {when: balance at least 100.00, until: balance below 50.00}
  spent: {when: credit at most 0}
"""
USE = """
levels:
  heavy: {when: counter internet per month at least 10 GiB}
  dear: {when: spent calls per day above 5.00}
  bundle-used: {when: bucket data at most 0}
  talk-low: {when: bucket talk below 1.00}
"""


def at(policies: Policies, micro: int, before: tuple[str, ...] = (), limit_micro: int = 1_000_000) -> set[str]:
    return set(policies.levels_of(account(micro, levels=before, limit_micro=limit_micro), NOON))


@pytest.mark.parametrize(
    ("micro", "names"),
    [
        (99_999_999, set()),
        (100_000_000, {"rich"}),
        (2_000_000, set()),
        (1_999_999, {"low"}),
        (1, {"low"}),
        (0, {"low", "zero"}),
        (-1, {"low", "zero", "negative"}),
        (-999_999, {"low", "zero", "negative"}),
        (-1_000_000, {"low", "zero", "negative", "spent"}),
    ],
)
def test_a_level_is_come_to_at_its_threshold_to_the_millionth(micro: int, names: set[str]) -> None:
    assert at(rules(MONEY).policies, micro) == names


def test_a_level_is_left_only_where_it_says() -> None:
    """Hysteresis: an account that hovers about the threshold does not come and go."""
    policies = rules(MONEY).policies
    levels: tuple[str, ...] = ()
    seen = []
    for micro in (1_990_000, 2_010_000, 1_990_000, 2_999_999, 3_000_000, 2_000_000, 1_999_999):
        levels = policies.levels_of(account(micro, levels=levels, limit_micro=10**6), NOON)
        seen.append("low" in levels)
    assert seen == [True, True, True, True, False, False, True]
    assert at(policies, 50_000_000, ("rich",)) == {"rich"}
    assert at(policies, 49_999_999, ("rich",)) == set()


def test_a_level_for_one_kind_of_account_is_not_for_the_other() -> None:
    found = account(-5_000_000, kind=AccountKind.POSTPAID, limit_micro=50_000_000)
    assert rules(MONEY).policies.levels_of(found, NOON) == ()
    found.buckets[0].balance = -50_000_000
    assert rules(MONEY).policies.levels_of(found, NOON) == ("spent",)


def test_the_credit_limit_moves_levels_of_credit() -> None:
    policies = rules(MONEY).policies
    assert "spent" in at(policies, -1_000_000, limit_micro=1_000_000)
    assert "spent" not in at(policies, -1_000_000, limit_micro=1_000_001)


def test_what_is_reserved_is_still_there() -> None:
    found = account(5_000_000)
    found.buckets[0].reserved = 4_000_000
    assert rules(MONEY).policies.levels_of(found, NOON) == ()


def test_money_with_a_purpose_an_owner_or_an_end_does_not_count() -> None:
    """Only money that may be spent on anything by anybody is the balance."""
    beside = (
        Bucket(2, int(Unit.MONEY), 9_000_000, name="talk"),
        Bucket(3, int(Unit.MONEY), 9_000_000, owner=b"sub-1"),
        Bucket(4, int(Unit.MONEY), 9_000_000, expires_ms=NOON),
        Bucket(5, int(Unit.OCTETS), 9_000_000),
    )
    policies = rules(MONEY).policies
    assert "low" in policies.levels_of(account(0, buckets=beside), NOON)
    assert "low" not in policies.levels_of(account(0, buckets=beside), NOON - 1)


def test_counters_count_their_period_and_begin_anew() -> None:
    policies = rules(USE).policies
    full = Meter("use of internet per month", NOON + 1000, units=10 << 30)
    assert policies.levels_of(account(0, meters=(full,)), NOON) == ("heavy",)
    assert policies.levels_of(account(0, meters=(full,), levels=("heavy",)), NOON + 1000) == ()
    full.units -= 1
    assert policies.levels_of(account(0, meters=(full,)), NOON) == ()
    # The meter of tiers, which counts what is paid for, is another one.
    assert policies.levels_of(account(0, meters=(Meter("internet per month", NOON + 1, 1 << 40),)), NOON) == ()


def test_what_was_spent_is_money() -> None:
    policies = rules(USE).policies
    assert policies.levels_of(account(0, meters=(Meter("use of calls per day", NOON + 1, micro=5_000_001),)), NOON) == (
        "dear",
    )
    assert policies.levels_of(account(0, meters=(Meter("use of calls per day", NOON + 1, 9, 5_000_000),)), NOON) == ()


def test_who_never_had_a_bundle_has_not_used_it_up() -> None:
    policies = rules(USE).policies
    bundle = Bucket(2, int(Unit.OCTETS), 1, name="data")
    assert policies.levels_of(account(0), NOON) == ()
    assert policies.levels_of(account(0, buckets=(bundle,)), NOON) == ()
    bundle.balance = 0
    assert policies.levels_of(account(0, buckets=(bundle,)), NOON) == ("bundle-used",)
    bundle.expires_ms = NOON
    assert policies.levels_of(account(0, buckets=(bundle,)), NOON - 1) == ("bundle-used",)
    assert policies.levels_of(account(0, buckets=(bundle,), levels=("bundle-used",)), NOON) == (), "it has expired"
    assert policies.levels_of(account(0, buckets=(bundle, replace(bundle, expires_ms=0))), NOON) == ("bundle-used",)
    talk = Bucket(3, int(Unit.MONEY), 999_999, name="talk")
    assert policies.levels_of(account(0, buckets=(talk,)), NOON) == ("talk-low",)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (LifeState.SUSPENDED, "suspended"),
        (LifeState.BLOCKED, "blocked"),
        (LifeState.GRACE, "expired"),
        (LifeState.TERMINATED, "terminated"),
    ],
)
def test_the_state_of_an_account_is_a_level(state: LifeState, name: str) -> None:
    policies = rules(MONEY).policies
    assert policies.levels_of(account(10_000_000, state=int(state)), NOON) == (name,)
    assert policies.levels_of(account(10_000_000, levels=(name,)), NOON) == ()


def test_levels_of_other_rules_are_forgotten() -> None:
    """After a reload an account may be at levels that no longer exist, in another order, or of another kind."""
    policies = rules(MONEY).policies
    assert policies.levels_of(account(10_000_000, levels=("gone",)), NOON) == ()
    assert policies.levels_of(account(0, levels=("zero", "low", "gone")), NOON) == ("low", "zero", "spent")
    postpaid = account(0, kind=AccountKind.POSTPAID, limit_micro=1, levels=("low",))
    assert policies.levels_of(postpaid, NOON) == ()


def test_a_level_that_is_left_on_the_other_side_is_refused() -> None:
    with pytest.raises(ValueError, match="level odd"):
        Level("odd", Measure(Measured.BALANCE), Range(high=5), Range(low=3))
    with pytest.raises(ValueError, match="level odd"):
        Level("odd", Measure(Measured.BALANCE), Range(high=5), Range(high=3))
    with pytest.raises(ValueError, match="level odd"):
        Level("odd", Measure(Measured.BALANCE), Range(1, 5), Range(1, 5))
    assert 5 in Range(high=5)
    assert INFINITE - 1 in Range(low=5)


# -- what comes with time --------------------------------------------------------------------------------------------


def test_the_clock_alone_changes_levels_when_buckets_expire_and_meters_begin_anew() -> None:
    policies = rules(USE + "  low: {when: balance below 2.00}\n").policies
    found = account(
        1_000_000,
        buckets=(Bucket(2, int(Unit.MONEY), 5_000_000, expires_ms=NOON + 500),),
        meters=(Meter("use of internet per month", NOON + 1000, units=20 << 30), Meter("other", NOON + 10)),
    )
    assert list(policies.ahead(found, NOON)) == [(NOON + 500, ("heavy", "low")), (NOON + 1000, ("low",))]
    assert policies.next_change_ms(found, NOON) == NOON + 500
    assert policies.next_change_ms(found, NOON + 500) == NOON + 1000
    assert policies.next_change_ms(found, NOON + 1000) == 0


COUNTERS = (
    MONEY
    + USE.removeprefix("\nlevels:\n")
    + """
counters:
  MAIN_BALANCE: {barred: [suspended, spent], throttled: negative, low: low, otherwise: active}
  FAIR_USE: {slow: heavy, otherwise: full}
"""
)


def test_a_counter_has_the_status_of_its_first_level() -> None:
    """TS 29.219 clause 5.3.2: a policy counter has one status at a time."""
    policies = rules(COUNTERS).policies

    def status(micro: int, state: int = 0) -> str:
        return policies.statuses(account(micro, limit_micro=1_000_000, state=state), NOON)["MAIN_BALANCE"].status

    assert [status(micro) for micro in (5_000_000, 1_000_000, 0, -1, -1_000_000)] == [
        "active", "low", "low", "throttled", "barred",
    ]  # fmt: skip
    assert status(5_000_000, int(LifeState.SUSPENDED)) == "barred"


def test_a_status_that_will_come_is_told_beforehand() -> None:
    """TS 29.219 clause 5.3.5: Pending-Policy-Counter-Information, as for a fair-use reset at midnight."""
    policies = rules(COUNTERS).policies
    found = account(10_000_000, meters=(Meter("use of internet per month", NOON + 7, units=11 << 30),), limit_micro=1)
    statuses = policies.statuses(found, NOON)
    assert (statuses["FAIR_USE"].status, statuses["FAIR_USE"].pending) == ("slow", (("full", NOON + 7),))
    assert (statuses["MAIN_BALANCE"].status, statuses["MAIN_BALANCE"].pending) == ("active", ())
    assert rules(MONEY).policies.statuses(found, NOON) == {}
