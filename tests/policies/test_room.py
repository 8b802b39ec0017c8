"""How far an account is from where a service is decided on in another way: grants end there, and not before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance.accounts import Account
from balance.model import Bucket, Meter, Unit
from policies.levels import Level, Measure, Measured, Range
from policies.policy import Policies
from policies.rules import Access, Rule
from tests.policies.rulebook import NOON, account, case, rules

BOOK = """
levels:
  low: {when: balance below 2.00, until: balance at least 3.00}
  zero: {when: balance at most 0}
  negative: {when: balance below 0}
  rich: {when: balance at least 100.00}
  limit: {when: credit at most 0}
  heavy: {when: counter internet per month at least 10 GiB}
  dear: {when: spent internet per month at least 5.00}
  bundle: {when: bucket data at most 1 GiB}
  talk: {when: bucket talk at most 0}
throttles:
  slow: {down: 128 kbit/s, up: 64 kbit/s}
rules:
  - {rule: free, services: [portal], do: allow free}
  - {rule: end, when: limit, do: refuse}
  - {rule: far, when: zero, destinations: [far], do: bar}
  - {rule: slow, when: [negative, heavy, bundle], services: [internet], throttle: slow}
  - {rule: fast-when-rich, when: rich, services: [sms], do: allow free}
  - {rule: dear, when: dear, services: [internet], do: bar}
  - {rule: tell, when: low, notify: low-balance}
"""


@pytest.mark.parametrize(
    ("service", "zone", "micro", "room"),
    [
        ("calls", "far", 5_000_000, 5_000_000),  # to zero: barred there
        ("calls", "far", 1, 1),
        ("calls", "far", 0, 1_000_000),  # barred; refused at the limit
        ("calls", "local", 5_000_000, 6_000_000),  # to the credit limit
        ("internet", "", 4_000_000, 4_000_001),  # a millionth below zero
        ("internet", "", 0, 1),
        ("internet", "", -1, 999_999),  # slow; refused at the limit
        ("internet", "", 9_000_000, 5_000_000),  # for so much may be spent
        ("sms", "", 100_000_000, 1),  # free down to 100.00
        ("sms", "", 99_999_999, 100_999_999),
        ("portal", "", 5_000_000, None),
        ("calls", "local", -1_000_000, None),  # refused, however much less there is
    ],
)
def test_room_in_money(service: str, zone: str, micro: int, room: int | None) -> None:
    """A level that is only told of, such as ``low``, ends no grant."""
    policies = rules(BOOK).policies
    found = account(micro, limit_micro=1_000_000)
    assert policies.room(case(service, zone), found, NOON)[0] == room
    found.levels = policies.levels_of(found, NOON)
    assert policies.room(case(service, zone), found, NOON, found.levels)[0] == room


def test_room_in_units_of_a_counter_and_of_a_bundle() -> None:
    policies = rules(BOOK).policies
    found = account(50_000_000, meters=(Meter("use of internet per month", NOON + 1, units=9 << 30, micro=4_000_000),))
    assert policies.room(case("internet"), found, NOON) == (1_000_000, 1 << 30)
    found.buckets.append(Bucket(2, int(Unit.OCTETS), (1 << 30) + 7, name="data"))
    assert policies.room(case("internet"), found, NOON) == (1_000_000, 7)
    assert policies.room(case("calls", "local"), found, NOON) == (50_000_000, None)
    found.meters[0].units = 10 << 30  # slow already: no bucket and no counter changes that
    assert policies.room(case("internet"), found, NOON) == (1_000_000, None)


def test_a_window_changes_the_room() -> None:
    policies = rules(
        "levels:\n  zero: {when: balance at most 0}\nrules:\n  - {rule: r, when: zero, during: 08:00-20:00, do: bar}\n"
    ).policies
    assert policies.room(case("sms"), account(5), NOON) == (5, None)
    assert policies.room(case("sms"), account(5), NOON + 9 * 3_600_000) == (None, None)


LEVELS = ("a", "b", "c", "d")


@st.composite
def some_policies(draw: st.DrawFn) -> Policies:
    measures = (
        Measure(Measured.BALANCE),
        Measure(Measured.CREDIT),
        Measure(Measured.SPENT, "use of internet per day", 0, ("internet",)),
        Measure(Measured.BUCKET, "talk", 0, ("internet",)),
    )
    levels: list[Level] = []
    for name in LEVELS:
        bound, further = draw(st.integers(-6, 12)), draw(st.integers(0, 4))
        below = draw(st.booleans())
        enters = Range(high=bound) if below else Range(low=bound)
        stays = Range(high=bound + further) if below else Range(low=bound - further)
        levels.append(Level(name, draw(st.sampled_from(measures)), enters, stays))
    found = tuple(
        Rule(
            f"rule-{number}",
            number,
            levels=tuple(draw(st.lists(st.sampled_from(LEVELS), unique=True, min_size=1, max_size=2))),
            access=draw(st.sampled_from([None, Access.ALLOW, Access.BAR, Access.FREE])),
            throttle=draw(st.sampled_from(["", "slow"])),
            most_units=draw(st.integers(0, 2)),
        )
        for number in range(draw(st.integers(1, 4)))
    )
    return Policies("t", tuple(levels), found)


def charged(found: Account, money: int, spent: int, talk: int) -> Account:
    """The account after a use."""
    main, bonus, *_ = found.buckets
    meter = found.meters[0]
    return account(
        main.balance - money,
        limit_micro=found.credit_limit_micro,
        levels=found.levels,
        buckets=(Bucket(2, 0, bonus.balance - talk, name="talk"),),
        meters=(Meter(meter.name, meter.resets_ms, 0, meter.micro + spent),),
    )


@settings(max_examples=150, deadline=None)
@given(
    some_policies(),
    st.integers(-8, 14),
    st.integers(0, 5),
    st.lists(st.sampled_from(LEVELS), unique=True),
    st.integers(0, 10),
    st.integers(0, 10),
)
def test_nothing_changes_before_the_room_is_used_and_something_does_then(
    policies: Policies, micro: int, limit: int, before: list[str], spent: int, talk: int
) -> None:
    """Use is walked unit by unit along each measure; the room is where it first changes, along the nearest."""
    found = account(
        micro,
        limit_micro=limit,
        levels=tuple(name for name in LEVELS if name in before),
        buckets=(Bucket(2, 0, talk, name="talk"),),
        meters=(Meter("use of internet per day", NOON + 1, micro=spent),),
    )
    found.levels = policies.levels_of(found, NOON)
    asked = case("internet")
    now = policies.decide(asked, found.levels, NOON)
    nearest: list[int] = []
    for ways in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        walked = found
        for use in range(1, 40):
            walked = charged(walked, *ways)
            walked.levels = policies.levels_of(walked, NOON)
            if policies.decide(asked, walked.levels, NOON).differs(now):
                nearest.append(use)
                break
    assert policies.room(asked, found, NOON) == (min(nearest, default=None), None)
