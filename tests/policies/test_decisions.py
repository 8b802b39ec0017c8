"""Rules: which of them decides, when their hours are, what is told, and that what is remembered is what was decided."""

from hypothesis import given, settings
from hypothesis import strategies as st

from occ.rating.happy_hours import HappyHours
from occ.rating.local_time import Calendar
from policies.policy import Policies
from policies.rules import AS_PRICED, Access, Case, Decision, Rule
from tests.policies.rulebook import NOON, berlin, case, rules

BOOK = """
levels:
  low: {when: balance below 2.00}
  zero: {when: balance at most 0}
  negative: {when: balance below 0}
throttles:
  slow: {down: 128 kbit/s, up: 64 kbit/s, filter_id: slow}
  slower: {down: 64 kbit/s, up: 64 kbit/s}
final_units:
  page: {redirect_to: "http://top-up.example.net/"}
rules:
  - {rule: free, services: [portal, sos], do: allow free}
  - {rule: vip, segments: [vip], do: allow}
  - {rule: gone, when: suspended, do: bar for good}
  - {rule: far, when: zero, destinations: [far, world], do: bar, notify: barred, restored: restored}
  - {rule: out, when: zero, networks: [abroad], do: refuse}
  - {rule: ended, when: negative, services: [sms], do: cut, emit: cut}
  - {rule: page, when: negative, plans: [night], services: [internet], final_units: page}
  - {rule: small, when: low, services: [internet], grant_at_most: 1 MiB}
  - {rule: smaller, when: negative, services: [internet], grant_at_most: 64 KiB}
  - {rule: slow, when: negative, services: [internet], throttle: slow, notify: throttled}
  - {rule: slower, when: zero, services: [internet], throttle: slower, accounts: postpaid}
  - {rule: tell, when: low, notify: low-balance, emit: low}
"""


def decide(asked: Case, *levels: str, text: str = BOOK, at_ms: int = NOON) -> Decision:
    return rules(text).policies.decide(asked, levels, at_ms)


def test_what_no_rule_is_about_is_granted_as_priced() -> None:
    assert decide(case("calls", "local"), "zero") is AS_PRICED
    assert decide(case("internet")) is AS_PRICED
    assert decide(case("sms"), "low") is AS_PRICED  # what is only told decides nothing


def test_the_first_rule_that_says_what_becomes_of_a_service_decides_that() -> None:
    assert decide(case("portal"), "suspended", "zero") == Decision(Access.FREE, rules=("free",))
    assert decide(case("calls", "far", segment="vip"), "zero") == Decision(rules=("vip",))
    assert decide(case("calls", "far"), "zero", "suspended") == Decision(Access.BAR_FOR_GOOD, rules=("gone",))
    assert decide(case("calls", "far"), "zero") == Decision(Access.BAR, rules=("far",))
    assert decide(case("sms", "abroad"), "zero") == Decision(Access.NO_CREDIT, rules=("out",))
    assert decide(case("sms"), "negative") == Decision(Access.BAR, rules=("ended",), cut=True)
    assert decide(case("internet", plan="night"), "low", "negative") == Decision(
        Access.FINAL_UNITS, final_units="page", rules=("page",)
    )


def test_throttles_and_caps_are_decided_beside_access() -> None:
    """The first throttle, the smallest cap, from rules of their own; what is not granted has neither."""
    assert decide(case("internet"), "low") == Decision(most_units=1 << 20, rules=("small",))
    assert decide(case("internet", kind=1), "low", "zero", "negative") == Decision(
        throttle="slow", most_units=1 << 16, rules=("smaller", "slow")
    )
    assert decide(case("internet", kind=1), "zero") == Decision(throttle="slower", rules=("slower",))
    assert decide(case("internet", kind=0), "zero") is AS_PRICED
    assert decide(case("internet"), "negative", "suspended") == Decision(Access.BAR_FOR_GOOD, rules=("gone",))
    vip = decide(case("internet", segment="vip"), "negative")
    assert (vip.access, vip.throttle, vip.rules) == (Access.ALLOW, "slow", ("vip", "smaller", "slow"))


def test_decisions_of_other_rules_to_the_same_effect_do_not_differ() -> None:
    """A client is asked anew only if it would notice."""
    assert not decide(case("calls", segment="vip"), "zero").differs(AS_PRICED)
    assert decide(case("calls", "far"), "zero").differs(AS_PRICED)
    assert Decision(Access.BAR, cut=True).differs(Decision(Access.BAR))
    assert Decision(most_units=1).differs(AS_PRICED)


# -- what is told ----------------------------------------------------------------------------------------------------


def names(found: tuple[Rule, ...]) -> list[str]:
    return [each.name for each in found]


def test_what_is_told_of_a_crossing() -> None:
    policies = rules(BOOK).policies
    down = policies.crossed((), ("low", "zero"), 0, NOON)
    assert (names(down.begun), names(down.ended)) == (["far", "tell"], [])
    further = policies.crossed(("low", "zero"), ("low", "zero", "negative"), 0, NOON)
    assert (names(further.begun), names(further.ended)) == (["ended", "slow"], [])
    up = policies.crossed(("low", "zero", "negative"), (), 0, NOON)
    assert (names(up.begun), names(up.ended)) == ([], ["far"])
    assert policies.crossed(("low",), ("low", "suspended"), 0, NOON) == ((), ())


def test_a_rule_of_several_levels_is_told_once_for_all_of_them() -> None:
    policies = rules(
        "levels:\n  a: {when: balance below 2.00}\n  b: {when: balance below 1.00}\n"
        "rules:\n  - {rule: both, when: [a, b], notify: low, restored: fine}\n"
    ).policies
    assert names(policies.crossed((), ("a",), 0, NOON).begun) == ["both"]
    assert policies.crossed(("a",), ("a", "b"), 0, NOON) == ((), ())
    assert policies.crossed(("a", "b"), ("a",), 0, NOON) == ((), ())
    assert names(policies.crossed(("a",), (), 0, NOON).ended) == ["both"]


def test_one_crossing_tells_a_thing_once() -> None:
    policies = rules(
        "levels:\n  a: {when: balance below 2.00}\n  b: {when: balance below 1.00}\nrules:\n"
        "  - {rule: a, when: a, notify: low, restored: fine}\n"
        "  - {rule: b, when: b, notify: low, restored: fine}\n"
        "  - {rule: c, when: b, notify: lower, restored: fine-too}\n"
    ).policies
    assert names(policies.crossed((), ("a", "b"), 0, NOON).begun) == ["a", "c"]
    assert names(policies.crossed(("a", "b"), (), 0, NOON).ended) == ["a", "c"]
    assert names(policies.crossed(("a",), ("a", "b"), 0, NOON).begun) == ["b", "c"]


def test_what_is_told_goes_to_whom_the_rule_is_about() -> None:
    policies = rules(
        "levels:\n  low: {when: balance below 2.00}\nrules:\n"
        "  - {rule: a, when: low, accounts: postpaid, notify: a}\n"
        "  - {rule: b, when: low, plans: [night], notify: b}\n"
        "  - {rule: c, when: low, segments: [youth], notify: c}\n"
    ).policies

    def told(kind: int, members: list[tuple[str, str]] | None) -> list[str]:
        return names(policies.crossed((), ("low",), kind, NOON, members).begun)

    assert told(0, None) == ["b", "c"]
    assert told(1, None) == ["a", "b", "c"]
    assert told(0, [("standard", ""), ("night", "")]) == ["b"]
    assert told(0, [("standard", "youth")]) == ["c"]
    assert told(0, []) == []


# -- hours -----------------------------------------------------------------------------------------------------------

NIGHTS = """
rules:
  - {rule: nights, during: Mo-Fr 20:00-08:00, services: [internet], do: allow free}
  - {rule: holidays, during: "holidays 00:00-24:00", services: [sms], do: allow free}
  - {rule: lunch, during: [12:00-13:00, "Sa,Su 11:00-14:00"], services: [calls], do: bar}
"""


def test_hours_go_over_midnight() -> None:
    """Row 36's clock for rules: Friday night ends on Saturday morning, Sunday night is none of the week's."""
    policies = rules(NIGHTS).policies

    def is_free(day: str, hours: int, minutes: int = 0) -> bool:
        return policies.decide(case("internet"), (), berlin(day, hours, minutes)).access is Access.FREE

    assert [is_free("2026-01-05", 19, 59), is_free("2026-01-05", 20), is_free("2026-01-06", 7, 59)] == [0, 1, 1]
    assert [is_free("2026-01-06", 8), is_free("2026-01-10", 7, 59), is_free("2026-01-10", 20)] == [0, 1, 0]
    assert not is_free("2026-01-05", 7, 59)  # the night of Sunday to Monday
    assert policies.decide(case("sms"), (), berlin("2026-12-25", 0)).access is Access.FREE
    assert policies.decide(case("sms"), (), berlin("2026-12-26", 0)) is AS_PRICED


def test_hours_where_the_clock_leaps() -> None:
    """2026-03-29 has no 02:30 in Berlin: hours that begin then begin with the leap, and end by the new clock."""
    policies = rules("rules:\n  - {rule: r, during: 02:30-04:00, do: bar}\n").policies
    leap = berlin("2026-03-29", 3)
    assert policies.decide(case("sms"), (), leap - 1) is AS_PRICED
    assert policies.decide(case("sms"), (), leap).access is Access.BAR
    assert policies.changes_ms(leap - 1) == leap
    assert policies.changes_ms(leap) == leap + 3_600_000
    # 2026-10-25 has 02:30 twice: the hours begin the first time.
    first = berlin("2026-10-25", 2, 30)
    assert policies.changes_ms(first) - first == 2.5 * 3_600_000


def test_when_hours_change_something() -> None:
    policies = rules(NIGHTS).policies
    monday = berlin("2026-01-05", 9)
    assert policies.changes_ms(monday) == berlin("2026-01-05", 12)
    assert policies.changes_ms(monday, case("internet")) == berlin("2026-01-05", 20)
    assert policies.changes_ms(monday, case("calls")) == berlin("2026-01-05", 12)
    assert policies.changes_ms(berlin("2026-01-05", 12, 30), case("calls")) == berlin("2026-01-05", 13)
    assert policies.changes_ms(monday, case("portal")) == 0
    assert policies.changes_ms(monday, case("internet")) == berlin("2026-01-05", 20)  # from memory
    assert rules(BOOK).policies.changes_ms(monday) == 0


def test_hours_that_follow_each_other_are_one() -> None:
    policies = rules(
        "rules:\n  - {rule: a, during: 20:00-24:00, do: bar}\n  - {rule: b, during: 00:00-08:00, do: bar}\n"
    ).policies
    assert policies.changes_ms(berlin("2026-01-05", 21), case("sms")) == berlin("2026-01-06", 8)
    assert policies.changes_ms(berlin("2026-01-05", 21)) == berlin("2026-01-06", 0)


def test_hours_that_never_end_are_refused_and_a_crossing_within_them_is_told() -> None:
    policies = rules(
        "levels:\n  low: {when: balance below 2.00}\n"
        "rules:\n  - {rule: day, when: low, during: 08:00-20:00, notify: low}\n"
    ).policies
    assert names(policies.crossed((), ("low",), 0, berlin("2026-01-05", 12)).begun) == ["day"]
    assert names(policies.crossed((), ("low",), 0, berlin("2026-01-05", 21)).begun) == []


# -- the same by a plain reading of the rules ------------------------------------------------------------------------

ZONES = ("", "near", "far")
LEVELS = ("a", "b", "c")


@st.composite
def some_rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    def some(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(draw(st.lists(st.sampled_from(values), unique=True, max_size=2)))

    found: list[Rule] = []
    for number in range(draw(st.integers(0, 6))):
        hours = draw(st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), max_size=1))
        found.append(
            Rule(
                f"rule-{number}",
                number,
                levels=some(LEVELS),
                kinds=tuple(draw(st.lists(st.sampled_from([0, 1]), unique=True, max_size=1))),
                plans=some(("x", "y")),
                segments=some(("s",)),
                services=some(("internet", "calls")),
                zones=some(ZONES[1:]),
                windows=tuple(
                    HappyHours(frozenset(range(7)), begin * 60, end * 60 or 1440, Calendar())
                    for begin, end in hours
                    if begin != end
                ),
                access=draw(st.sampled_from([None, *Access])),
                throttle=draw(st.sampled_from(["", "slow", "slower"])),
                most_units=draw(st.integers(0, 3)),
            )
        )
    return tuple(found)


def plainly(all_rules: tuple[Rule, ...], asked: Case, levels: tuple[str, ...], at_ms: int) -> Decision:
    """As the documents say it: access of the first, throttle of the first, the smallest cap."""
    minute = at_ms // 60_000 % 1440

    def is_open(window: HappyHours) -> bool:
        begin, end = window.from_minute, window.to_minute
        return begin <= minute < end if begin < end else minute >= begin or minute < end

    holding = [
        rule
        for rule in all_rules
        if (not rule.levels or set(rule.levels) & set(levels))
        and (not rule.kinds or asked.kind in rule.kinds)
        and (not rule.plans or asked.plan in rule.plans)
        and (not rule.segments or asked.segment in rule.segments)
        and (not rule.services or asked.service in rule.services)
        and (not rule.zones or asked.zone in rule.zones)
        and (not rule.windows or any(isinstance(each, HappyHours) and is_open(each) for each in rule.windows))
    ]
    access = next((rule.access for rule in holding if rule.access is not None), Access.ALLOW)
    if access not in (Access.ALLOW, Access.FREE):
        return Decision(access)
    throttle = next((rule.throttle for rule in holding if rule.throttle), "")
    return Decision(access, "", throttle, min((rule.most_units for rule in holding if rule.most_units), default=0))


@settings(max_examples=100, deadline=None)
@given(
    some_rules(),
    st.lists(
        st.tuples(
            st.builds(
                Case,
                st.integers(0, 1),
                st.sampled_from(["x", "y"]),
                st.sampled_from(["", "s"]),
                st.sampled_from(["internet", "calls", "sms"]),
                st.sampled_from(ZONES),
            ),
            st.lists(st.sampled_from(LEVELS), unique=True).map(tuple),
            st.integers(0, 3 * 86_400_000),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_what_is_remembered_is_what_a_plain_reading_says(
    all_rules: tuple[Rule, ...], asked: list[tuple[Case, tuple[str, ...], int]]
) -> None:
    policies = Policies("t", (), all_rules)
    for each, levels, at_ms in asked * 2:
        found = policies.decide(each, levels, at_ms)
        assert not found.differs(plainly(all_rules, each, levels, at_ms))
        changes_ms = policies.changes_ms(at_ms, each, levels)
        following = [
            moment
            for moment in range(at_ms - at_ms % 3_600_000 + 3_600_000, at_ms + 86_400_000, 3_600_000)
            if plainly(all_rules, each, levels, moment).differs(found)
        ]
        assert changes_ms == (following[0] if following else 0)
