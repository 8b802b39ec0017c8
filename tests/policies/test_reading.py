"""The rules file: what it says is what is in force, and a mistake is told with file, line, reason and nearest name."""

import re
from dataclasses import fields

import pytest

from balance.model import AccountKind
from occ.policy.reading import load_policies, parse_policies
from occ.policy.written_levels import MOST_LEVELS
from occ.rating.final_units import FinalUnits
from occ.yamlmap import ConfigError
from policies.levels import LIFE_LEVELS, Level, Measure, Measured, Range
from policies.rules import Access, Rule, Throttle
from tests.policies.rulebook import CONFIG, catalogue, rules, sample

GIB = 1 << 30

_RULE = [each.name for each in fields(Rule)]


def test_the_shipped_rules_are_right_and_mean_what_they_say() -> None:
    operator = load_policies(CONFIG / "policies.yaml", sample())
    assert operator.remarks == ()
    assert re.fullmatch("[0-9a-f]{8}", operator.edition)
    assert operator.text == (CONFIG / "policies.yaml").read_text()
    assert operator.policies.rules[0].name == "always-free"
    assert {rule.notify for rule in operator.policies.rules} | {rule.restored for rule in operator.policies.rules} == {
        "", "credit-limit-reached", "restored", "barred", "throttled", "low-balance", "bundle-exhausted",
    }  # fmt: skip


def test_every_level_is_read() -> None:
    operator = rules("""
levels:
  low: {when: balance below 2.00, until: balance at least 3.00, accounts: prepaid}
  high: {when: balance above 2.00 EUR, until: balance at most 1, accounts: [prepaid, postpaid]}
  late: {when: balance at most -0.000001, until: balance above 0.5}
  limit: {when: credit at most 0}
  heavy: {when: counter internet per month at least 50 GiB}
  talker: {when: counter calls per day above 10 min}
  dear: {when: spent sms per month at least 5.00}
  bundle: {when: bucket data at most 0}
  bundle-low: {when: bucket data below 100 MiB, until: bucket data at least 1 GiB}
  talk: {when: bucket talk at most 0}
""")
    month, day, sms = "use of internet per month", "use of calls per day", "use of sms per month"
    data = Measure(Measured.BUCKET, "data", 1, ("internet",))
    balance = Measure(Measured.BALANCE)
    both = (int(AccountKind.PREPAID), int(AccountKind.POSTPAID))
    assert operator.policies.levels == (
        Level("low", balance, Range(high=1_999_999), Range(high=2_999_999), (0,)),
        Level("high", balance, Range(low=2_000_001), Range(low=1_000_001), both),
        Level("late", balance, Range(high=-1), Range(high=500_000)),
        Level("limit", Measure(Measured.CREDIT), Range(high=0), Range(high=0)),
        Level("heavy", Measure(Measured.COUNTER, month, 1, ("internet",)), Range(50 * GIB), Range(50 * GIB)),
        Level("talker", Measure(Measured.COUNTER, day, 2, ("calls",)), Range(601), Range(601)),
        Level("dear", Measure(Measured.SPENT, sms, 0, ("sms",)), Range(5_000_000), Range(5_000_000)),
        Level("bundle", data, Range(high=0), Range(high=0)),
        Level("bundle-low", data, Range(high=100 * (1 << 20) - 1), Range(high=GIB - 1)),
        Level("talk", Measure(Measured.BUCKET, "talk", 0, ("calls",)), Range(high=0), Range(high=0)),
        *LIFE_LEVELS,
    )
    assert {name: [each.name for each in meters] for name, meters in operator.meters.items()} == {
        "internet": [month],
        "calls": [day],
        "sms": [sms],
    }


def test_every_word_of_a_rule_is_read() -> None:
    operator = rules("""
levels:
  low: {when: balance below 2.00}
throttles:
  slow: {down: 128 kbit/s, up: 64 kbit/s, filter_id: throttle-128k}
  fast: {down: 1 Gbit/s, up: 2 Mbit/s}
final_units:
  page: {redirect_to: "http://top-up.example.net/"}
  end: terminate
rules:
  - rule: all
    when: [low, suspended]
    accounts: [postpaid]
    plans: night
    segments: [vip, youth]
    services: [internet, portal]
    networks: [abroad]
    during: ["Mo-Fr 20:00-08:00", "holidays 00:00-24:00"]
    do: allow
    throttle: slow
    grant_at_most: 10 MiB
    notify: low-balance
    restored: restored
    emit: was-low
  - {rule: page, services: internet, destinations: far, final_units: page}
  - {rule: a, do: bar}
  - {rule: b, do: bar for good}
  - {rule: c, do: refuse}
  - {rule: d, do: cut}
  - {rule: e, do: allow free}
  - {rule: f, throttle: fast}
  - {rule: g, final_units: end}
counters:
  MAIN: {barred: [suspended, low], otherwise: active}
""")
    first, page, *others = operator.policies.rules
    assert first.windows[0].at(0)[1] > 0
    assert Rule(**{name: getattr(first, name) for name in _RULE if name != "windows"}) == Rule(
        "all", 11, levels=("low", "suspended"), kinds=(1,), plans=("night",), segments=("vip", "youth"),
        services=("internet", "portal"), zones=("abroad",), access=Access.ALLOW, throttle="slow",
        most_units=10 << 20, notify="low-balance", restored="restored", emit="was-low",
    )  # fmt: skip
    assert (page.zones, page.access, page.final_units) == (("far",), Access.FINAL_UNITS, "page")
    assert [(rule.access, rule.cut) for rule in others] == [
        (Access.BAR, False), (Access.BAR_FOR_GOOD, False), (Access.NO_CREDIT, False), (Access.BAR, True),
        (Access.FREE, False), (None, False), (Access.FINAL_UNITS, False),
    ]  # fmt: skip
    assert operator.policies.throttles == {
        "slow": Throttle("slow", 128_000, 64_000, b"throttle-128k"),
        "fast": Throttle("fast", 10**9, 2 * 10**6),
    }
    assert operator.final_units["page"].redirect_address == b"http://top-up.example.net/"
    assert operator.final_units["end"] == FinalUnits()
    (counter,) = operator.policies.counters
    assert counter.statuses == (("suspended", "barred"), ("low", "barred"))


def test_an_empty_file_is_no_rules() -> None:
    assert rules("").policies.levels == LIFE_LEVELS
    assert rules("rules: []\n").policies.rules == ()
    assert rules("").edition != rules("rules: []\n").edition


def level(written: str) -> str:
    return f"levels:\n  low: {{when: balance below 2.00}}\n  odd: {{{written}}}\n"


def rule(written: str) -> str:
    return (
        level("when: balance below 1.00")
        + f"throttles:\n  slow: {{down: 1 Mbit/s, up: 1 Mbit/s}}\nrules:\n  - {{{written}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rulez: []", 1, "unknown key 'rulez'; did you mean 'rules'?"),
        (level("until: balance at least 3.00"), 3, "key 'when' is missing in levels.odd"),
        (level("when: balance under 2.00"), 3, "levels.odd.when must be a measure, a comparison (below, at most, "),
        (level("when: balanse below 2.00"), 3, "'balanse' is nothing of an account that can be measured; known"),
        (level("when: 'balance below 2,00'"), 3, "'2,00' is not an amount of money such as 10.00"),
        (level("when: balance below 2.0000001"), 3, "more than 6 decimals"),
        (level("when: balance below 2.00 USD"), 3, "amounts are in EUR, the catalogue's currency"),
        (level("when: balance below 5 GiB"), 3, "amounts are in EUR"),
        (level("when: bucket dada at most 0"), 3, "no allowance or bonus 'dada'; did you mean 'data'?"),
        (level("when: bucket data at most 5"), 3, "'5' is not a size such as '1 MiB'"),
        (level("when: bucket data at most 5 min"), 3, "'min' is no unit for octets"),
        (level("when: counter internet at least 5 GiB"), 3, "a counter is of a service per day or per month"),
        (level("when: counter internet per year at least 5 GiB"), 3, "per day or per month, not 'internet per year'"),
        (level("when: counter internett per day above 5 GiB"), 3, "no service 'internett'; did you mean 'internet'?"),
        (level("when: spent internet per day above 5 GiB"), 3, "amounts are in EUR"),
        (level("when: balance below 2.00, until: balance at most 3.00"), 3, "levels.odd.until must say 'at least'"),
        (level("when: balance below 2.00, until: credit at least 3.00"), 3, "must look at what 'balance below"),
        (level("when: balance below 2.00, until: balance at least 1.99"), 3, "would be left where it is entered"),
        (level("when: balance above 2.00, until: balance at most 2.01"), 3, "would be left where it is entered"),
        (level("when: balance below 2.00, accounts: company"), 3, "must be one of prepaid, postpaid, not 'company'"),
        (level("when: balance below 2.00, accounts: []"), 3, "must name each kind of account"),
        ("levels:\n  Low: {when: balance below 2.00}\n", 2, "a level's name is made of small letters"),
        ("levels:\n  suspended: {when: balance below 2.00}\n", 2, "the level suspended is always there"),
        ("throttles:\n  slow: {down: 128 kbit/s}\n", 2, "key 'up' is missing in throttles.slow"),
        ("throttles:\n  slow: {down: 128 kbps, up: 1 kbit/s}\n", 2, "throttles.slow.down must be a bandwidth such as"),
        ("throttles:\n  slow: {down: 1 kbit/s, up: 1 kbit/s, filter_id: ' '}\n", 2, "throttles.slow.filter_id must"),
        ("final_units:\n  page: {redirect_to: nowhere}\n", 2, "final_units.page.redirect_to must be a URL"),
        (rule("do: bar"), 7, "key 'rule' is missing"),
        (rule("rule: r"), 7, "rule r does nothing; it must say one of do, final_units, throttle"),
        (rule("rule: R r, do: bar"), 7, "a name here is made of small letters"),
        (rule("rule: r, do: ban"), 7, "rules[0].do must be one of allow, allow free, bar, bar for good, refuse, cut"),
        (rule("rule: r, when: odt, do: bar"), 7, "there is no level 'odt'; did you mean 'odd'?"),
        (rule("rule: r, when: [], do: bar"), 7, "rules[0].when must name at least one level; leave it out"),
        (rule("rule: r, when: [odd, odd], do: bar"), 7, "odd stands twice in rules[0].when"),
        (rule("rule: r, services: [internets], do: bar"), 7, "there is no service 'internets'; did you mean"),
        (rule("rule: r, plans: nigth, do: bar"), 7, "there is no plan 'nigth'; did you mean 'night'?"),
        (rule("rule: r, destinations: [lokal], do: bar"), 7, "there is no zone 'lokal' in destinations; did you mean"),
        (rule("rule: r, networks: [abroat], do: bar"), 7, "there is no zone 'abroat' in networks; did you mean"),
        (rule("rule: r, networks: [abroad], destinations: [far], do: bar"), 7, "names destinations and networks"),
        (rule("rule: r, during: 20-08, do: bar"), 7, "rules[0].during must be hours such as '20:00-08:00'"),
        (rule("rule: r, during: 08:00-08:00, do: bar"), 7, "hours must begin and end at different times"),
        (rule("rule: r, during: Mon 08:00-09:00, do: bar"), 7, "'Mon' is no day"),
        (rule("rule: r, throttle: slo"), 7, "there is nothing called 'slo' in throttles; did you mean 'slow'?"),
        (rule("rule: r, final_units: page"), 7, "there is nothing called 'page' in final_units"),
        (rule("rule: r, do: bar, throttle: slow"), 7, "rule r: what is not granted ('bar') cannot have 'throttle' too"),
        (rule("rule: r, do: cut, services: [sms], grant_at_most: 1 event"), 7, "cannot have 'grant_at_most' too"),
        (rule("rule: r, grant_at_most: 1 MiB"), 7, "rule r must name services, all counted in one unit"),
        (rule("rule: r, services: [sms, calls], grant_at_most: 1 MiB"), 7, "are counted in different units"),
        (rule("rule: r, services: [sms], grant_at_most: 1 MiB"), 7, "'MiB' is no unit for events"),
        (rule("rule: r, notify: low"), 7, "rule r tells when a level is come to or left: say at which, with 'when'"),
        (rule("rule: r, when: odd, emit: A B"), 7, "a name here is made of small letters"),
        (rule("rule: r, do: bar}\n  - {rule: r, do: bar"), 8, "there is a rule r already, on line 7"),
        ("counters:\n  MAIN: {barred: suspended}\n", 2, "counter MAIN must say which status it has at none"),
        ("counters:\n  MAIN: {barred: low, otherwise: ok}\n", 2, "there is no level 'low'; known: blocked, expired"),
        (
            "counters:\n  MAIN: {barred: suspended, slow: suspended, otherwise: ok}\n",
            2,
            "suspended gives the counter MAIN another status already",
        ),
        ("counters:\n  'MA IN': {otherwise: ok}\n", 2, "a policy counter's name is made of at most 64 letters"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        rules(text)
    assert str(error.value).startswith(f"policies.yaml:{line}: ")
    assert message in str(error.value)


def test_final_units_and_access_in_one_rule_are_two_answers_to_one_question() -> None:
    with pytest.raises(ConfigError, match="says what becomes of the service twice"):
        rules("final_units: {page: restrict}\nrules:\n  - {rule: r, do: bar, final_units: page}\n")


def test_templates_are_checked_where_they_are_known() -> None:
    text = "levels:\n  low: {when: balance below 2.00}\nrules:\n  - {rule: r, when: low, notify: low-balans}\n"
    assert parse_policies(text, "p.yaml", catalogue()).policies.rules[0].notify == "low-balans"
    with pytest.raises(ConfigError, match=r"p.yaml:4: there is no template 'low-balans'; did you mean 'low-balance'\?"):
        parse_policies(text, "p.yaml", catalogue(), {"low-balance", "barred"})


def test_an_account_cannot_be_at_any_number_of_levels() -> None:
    many = "".join(f"  level-{n}: {{when: balance below 2.00}}\n" for n in range(MOST_LEVELS + 1))
    with pytest.raises(ConfigError, match=f"at most {MOST_LEVELS} levels"):
        rules("levels:\n" + many)


# -- what is allowed, and seldom meant -------------------------------------------------------------------------------

LEVELS = """
levels:
  low: {when: balance below 2.00, until: balance at least 3.00}
  zero: {when: balance at most 0}
  prepaid-only: {when: balance at most 0, accounts: prepaid}
rules:
"""


def remarks(*written: str, text: str = LEVELS) -> list[str]:
    """Remarks on rules, without those on levels that nothing uses."""
    found = rules(text + "".join(f"  - {{{each}}}\n" for each in written)).remarks
    return [each for each in found if "looks at the level" not in each]


def test_a_file_without_rules_is_pointed_out() -> None:
    assert rules("levels: {low: {when: balance below 2.00}}\n").remarks[0] == (
        "policies.yaml: there are no rules in it: services are granted by price and balance alone"
    )
    assert "no rules" in rules("").remarks[0]
    assert not any("no rules" in each for each in remarks("rule: a, when: low, services: [sms], do: bar"))


@pytest.mark.parametrize(
    "text",
    [
        "rules: [{rule: a, do: LONG}]",
        "LONG: 1",
        "levels: {LONG: {when: balance below 1}, LONG: {when: balance below 2}}",
        "rules: !LONG []",
        "levels: {l: {when: *LONG}}",
    ],
)
def test_what_is_long_is_not_quoted_whole(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules(text.replace("LONG", "x" * 3000))
    assert len(str(caught.value)) < 400


def test_rules_that_can_never_decide_are_pointed_out() -> None:
    (remark,) = remarks(
        "rule: a, when: low, services: [sms], do: bar", "rule: b, when: zero, services: [sms], do: refuse"
    )
    assert remark == (
        "policies.yaml:8: rule b never decides what becomes of a service: rule a, which comes first, does whenever it "
        "holds"
    )
    assert (
        len(remarks("rule: a, services: [sms, calls], do: allow", "rule: b, services: [sms], when: low, do: bar")) == 1
    )
    for first, then in (
        ("when: zero, services: [sms], do: bar", "when: low, services: [sms], do: refuse"),
        ("when: low, services: [sms], do: bar", "services: [sms], do: allow"),
        ("when: low, services: [sms], during: 08:00-20:00, do: bar", "when: low, services: [sms], do: refuse"),
        ("when: low, services: [sms], plans: [standard], do: bar", "when: low, services: [sms], do: refuse"),
        ("when: prepaid-only, services: [sms], do: bar", "when: zero, services: [sms], do: refuse"),
        ("when: low, services: [sms], notify: a", "when: low, services: [sms], do: refuse"),
    ):
        assert remarks(f"rule: a, {first}", f"rule: b, {then}") == []


def test_rules_that_can_never_hold_are_pointed_out() -> None:
    assert "no account of its kinds can be at prepaid-only" in remarks(
        "rule: a, when: prepaid-only, accounts: postpaid, services: [sms], do: bar"
    )[0]  # fmt: skip
    assert (
        "calls-abroad never goes to local"
        in remarks("rule: a, services: [calls-abroad], destinations: [local], do: bar")[0]
    )
    assert "no plan of night sells sms" in remarks("rule: a, services: [sms], plans: [night], do: bar")[0]


def test_a_bar_on_emergency_calls_is_pointed_out() -> None:
    assert "rule a bars the essential service sos" in remarks("rule: a, when: zero, do: bar")[0]
    assert remarks("rule: free, services: [sos], do: allow free", "rule: a, when: zero, do: bar") == []
    assert remarks("rule: a, when: zero, services: [sms], do: bar") == []
    assert remarks("rule: a, when: zero, destinations: [far], do: bar") == []


def test_names_that_nothing_uses_are_pointed_out() -> None:
    operator = rules(
        "levels:\n  low: {when: balance below 2.00}\nthrottles:\n  slow: {down: 1 Mbit/s, up: 1 Mbit/s}\n"
        "final_units:\n  page: restrict\n"
    )
    assert operator.remarks[1:] == (
        "policies.yaml: no rule and no counter looks at the level low",
        "policies.yaml: no rule uses the throttle slow",
        "policies.yaml: no rule uses the final units page",
    )
