"""Whatever the order of usage, top-ups and expiries, an account is at what the rules say of what it went through."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from balance.accounts import Account
from balance.model import Bucket, Meter, Unit
from policies.levels import Level, Measure, Measured, Range, levels_of
from policies.policy import Policies
from tests.policies.rulebook import NOON, account

BOUND = 12


@st.composite
def some_levels(draw: st.DrawFn) -> tuple[Level, ...]:
    measures = (
        Measure(Measured.BALANCE),
        Measure(Measured.CREDIT),
        Measure(Measured.BUCKET, "data", int(Unit.OCTETS), ("internet",)),
        Measure(Measured.COUNTER, "use of internet per day", int(Unit.OCTETS), ("internet",)),
    )
    found: list[Level] = []
    for number in range(draw(st.integers(1, 5))):
        bound, further = draw(st.integers(-BOUND, BOUND)), draw(st.integers(0, 4))
        below = draw(st.booleans())
        enters = Range(high=bound) if below else Range(low=bound)
        stays = Range(high=bound + further) if below else Range(low=bound - further)
        kinds = draw(st.sampled_from([(), (0,), (1,)]))
        found.append(Level(f"level-{number}", draw(st.sampled_from(measures)), enters, stays, kinds))
    return tuple(found)


@dataclass
class Life:
    """What happens to an account, one thing after the other."""

    account: Account
    at_ms: int = NOON
    history: list[list[int | None]] = field(default_factory=list)
    """The values of each level's measure after each thing that happened."""

    def happens(self, what: str, amount: int) -> None:
        main = self.account.buckets[0]
        if what == "use":
            main.balance -= amount
        elif what == "top-up":
            main.balance += amount
        elif what == "bonus":  # money that expires
            self.account.buckets.append(Bucket(9, 0, amount, expires_ms=self.at_ms + 1 + amount))
        elif what == "data":
            self.account.buckets.append(Bucket(8, int(Unit.OCTETS), amount, name="data"))
        elif what == "surf":
            self._count(amount)
        elif what == "limit":
            self.account.credit_limit_micro = amount
        elif what == "wait":
            self.at_ms += amount
        elif what == "clean":
            self.account.buckets[1:] = [
                each for each in self.account.buckets[1:] if not 0 < each.expires_ms <= self.at_ms
            ]

    def _count(self, amount: int) -> None:
        meter = next(iter(self.account.meters), None)
        if meter is None or self.at_ms >= meter.resets_ms:
            self.account.meters = [Meter("use of internet per day", self.at_ms + 10, amount)]
        else:
            meter.units += amount


THINGS = st.tuples(
    st.sampled_from(["use", "top-up", "bonus", "data", "surf", "limit", "wait", "clean"]), st.integers(0, 8)
)


def is_at(level: Level, values: list[int | None], kind: int) -> bool:
    """By the definition of a level alone: since it was last beyond where it stays, it was where it enters."""
    if level.kinds and kind not in level.kinds:
        return False
    for value in reversed(values):
        if value is None or value not in level.stays:
            return False
        if value in level.enters:
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(some_levels(), st.lists(THINGS, min_size=1, max_size=25), st.integers(0, 1), st.integers(-4, 8))
def test_levels_are_those_of_the_rules_applied_to_what_happened(
    levels: tuple[Level, ...], things: list[tuple[str, int]], kind: int, balance: int
) -> None:
    policies = Policies("t", levels)
    life = Life(account(balance))
    life.account.kind = kind
    for what, amount in [("wait", 0), *things]:
        life.happens(what, amount)
        life.history.append([each.measure.of(life.account, life.at_ms) for each in levels])
        expected = tuple(
            each.name
            for number, each in enumerate(levels)
            if is_at(each, [values[number] for values in life.history], kind)
        )
        assert levels_of(levels, life.account, life.at_ms) == expected
        assert policies.levels_of(life.account, life.at_ms) == expected
        life.account.levels = expected
        # Looking again, as another process may, changes nothing.
        assert policies.levels_of(life.account, life.at_ms) == expected


@settings(max_examples=80, deadline=None)
@given(some_levels(), st.lists(THINGS, max_size=15), st.integers(-4, 8))
def test_without_hysteresis_only_the_last_balance_counts(
    levels: tuple[Level, ...], things: list[tuple[str, int]], balance: int
) -> None:
    plain = tuple(Level(each.name, each.measure, each.enters, each.enters, each.kinds) for each in levels)
    policies = Policies("t", plain)
    life = Life(account(balance))
    for what, amount in things:
        life.happens(what, amount)
        life.account.levels = policies.levels_of(life.account, life.at_ms)
    fresh = Policies("t", plain)
    reached = policies.levels_of(life.account, life.at_ms)
    life.account.levels = ()
    assert reached == fresh.levels_of(life.account, life.at_ms)


@settings(max_examples=80, deadline=None)
@given(some_levels(), st.lists(THINGS, max_size=15), st.integers(-4, 8))
def test_what_the_clock_will_change_is_what_it_changes(
    levels: tuple[Level, ...], things: list[tuple[str, int]], balance: int
) -> None:
    policies = Policies("t", levels)
    life = Life(account(balance))
    for what, amount in things:
        life.happens(what, amount)
    life.account.levels = policies.levels_of(life.account, life.at_ms)
    ahead = dict(policies.ahead(life.account, life.at_ms))
    assert policies.next_change_ms(life.account, life.at_ms) == min(ahead, default=0)
    for moment_ms in range(life.at_ms + 1, life.at_ms + 30):
        found = policies.levels_of(life.account, moment_ms)
        assert (found != life.account.levels) == (moment_ms in ahead)
        if moment_ms in ahead:
            assert found == ahead[moment_ms]
            life.account.levels = found
