"""Accounts watched: what a plan is given besides, when an account is looked at again, and how rules travel."""

import dataclasses

import pytest

from balance.accounts import Account, Before
from balance.embedded import Address
from balance.model import Bucket, Meter
from balance.plans import Grant, Outcome, Plan
from balance.store import Store, StoreSettings
from occ.policy.watching import (
    InForce,
    Transition,
    Watching,
    looked_at,
    pack_levels,
    put_in_force,
    rules_in_force,
    unpack_levels,
    watch_by_rules_in_force,
)
from policies.levels import LIFE_LEVELS, Level, Measure, Measured, Range
from policies.policy import Policies
from tests.plain import PLAIN_ONLY

EURO = 1_000_000
LEVELS = (
    Level("low", Measure(Measured.BALANCE), Range(high=2 * EURO - 1), Range(high=3 * EURO - 1)),
    Level("heavy", Measure(Measured.COUNTER, "internet per month", 1, ("internet",)), Range(low=50), Range(low=50)),
    Level("used-up", Measure(Measured.BUCKET, "data-5gb", 1, ("internet",)), Range(high=0), Range(high=0), (0,)),
    *LIFE_LEVELS,
)


def account(micro: int, *more: Bucket, levels: tuple[str, ...] = (), meters: list[Meter] | None = None) -> Account:
    made = Account(b"acc", 5, 0, 978, 0, 0, [Bucket(1, 0, micro), *more], {}, meters=meters or [])
    made.levels = levels
    return made


def observed(after: Account, before: Account | None = None, **plan: object) -> Plan:
    """The plan of an account, once it was looked at; ``before``: absent for an account that is created."""
    made = Plan(None, after, at_ms=1000, before=None if before is None else Before(before))
    for name, value in plan.items():
        setattr(made, name, value)
    Watching(Policies("test", levels=LEVELS))(made)
    return made


def test_an_account_that_comes_to_another_level_leaves_a_transition() -> None:
    plan = observed(account(EURO), account(9 * EURO))
    assert plan.account is not None
    assert plan.account.levels == ("low",)
    assert Transition.unpack(plan.transition) == Transition(b"acc", 5, 1000, (), ("low",))


def test_an_account_that_is_created_comes_to_its_levels_silently() -> None:
    plan = observed(account(EURO))
    assert plan.account is not None
    assert plan.account.levels == ("low",)
    assert plan.transition == b""


@pytest.mark.parametrize(("micro", "left"), [(2 * EURO, False), (3 * EURO - 1, False), (3 * EURO, True)])
def test_a_level_is_left_where_its_rule_says_so(micro: int, left: bool) -> None:
    plan = observed(account(micro, levels=("low",)), account(EURO, levels=("low",)))
    assert bool(plan.transition) is left


def test_a_transition_says_which_request_it_came_of_and_what_its_answer_covers() -> None:
    outcome = Outcome(2001, [Grant(10, (), 2001), Grant(-1, (7, 3), 2001)])
    plan = observed(account(0), account(EURO), outcome=outcome, asked_by=b"pgw;1")
    told = Transition.unpack(plan.transition)
    assert (told.asked_by, told.answered) == (b"pgw;1", ((10, ()), (-1, (7, 3))))


def test_an_account_is_looked_at_when_its_meter_begins_anew_and_it_is_at_a_level_of_it() -> None:
    """A fair use of the month is over at midnight, though nobody uses the account then."""
    for units, wakes in ((49, False), (50, True)):
        plan = observed(account(9 * EURO, meters=[Meter("internet per month", 9000, units)]), account(9 * EURO))
        assert plan.account is not None
        assert (plan.account.watch_ms, plan.watch_ms) == ((9000, 9000) if wakes else (0, -1))


@pytest.mark.parametrize(
    ("bucket", "wakes"),
    [
        (Bucket(2, 0, EURO, EURO, expires_ms=9000), True),
        (Bucket(2, 1, 5, 5, expires_ms=9000, name="data-5gb"), True),
        (Bucket(2, 1, 5, 5, expires_ms=9000, name="other"), False),
        (Bucket(2, 1, 5, 5, expires_ms=900, name="data-5gb"), False),
        (Bucket(2, 1, 0, expires_ms=9000, name="data-5gb"), True),
        (Bucket(2, 0, 0, expires_ms=9000), False),
    ],
)
def test_an_account_is_looked_at_when_what_a_level_looks_at_expires(bucket: Bucket, wakes: bool) -> None:
    """Also what is reserved in full, which the ledger itself has no reason to look at."""
    plan = observed(account(9 * EURO, bucket), account(9 * EURO))
    assert (plan.watch_ms == 9000) is wakes


def test_an_earlier_time_to_look_is_kept() -> None:
    after = account(9 * EURO, Bucket(2, 0, EURO, expires_ms=9000))
    after.watch_ms = 5000
    assert observed(after, account(EURO)).watch_ms == -1


@PLAIN_ONLY  # a compiled account has a list there
def test_watching_keeps_nothing_from_being_charged(caplog: pytest.LogCaptureFixture) -> None:
    broken = account(EURO)
    broken.buckets = None  # type: ignore[assignment]
    assert observed(broken, account(EURO)).transition == b""
    assert "the levels of account b'acc' are not known" in caplog.text


def test_levels_travel_whole() -> None:
    assert unpack_levels(pack_levels(LEVELS)) == LEVELS


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x91\x01", b"\x91\x92\xa1a\x91\x63"])
def test_what_is_no_level_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="levels of the rules in force"):
        unpack_levels(packed)
    with pytest.raises(ValueError, match="transition"):
        Transition.unpack(packed)


async def test_rules_are_put_in_force_and_others_watch_by_them(clean_redis: Address) -> None:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    await watch_by_rules_in_force(store)
    assert store.observe is None
    rules = InForce("abc", "levels: {}", "policies.yaml", "cat", LEVELS)
    assert await put_in_force(store, rules) is None
    assert await rules_in_force(store) == rules
    await looked_at(store, "another")
    assert await put_in_force(store, rules) == rules
    await looked_at(store, "abc")
    assert await put_in_force(store, dataclasses.replace(rules, edition="def")) == dataclasses.replace(
        rules, looked_at=True
    )
    found = await rules_in_force(store)
    assert found is not None
    assert not found.looked_at
    await watch_by_rules_in_force(store)
    watching: object = store.observe
    assert isinstance(watching, Watching)
    assert watching.policies.levels == LEVELS
    await put_in_force(store, None)
    assert await rules_in_force(store) is None
    await store.stop()
