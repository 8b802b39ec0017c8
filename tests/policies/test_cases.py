"""The operator's own cases: what they say is run, and what is not as expected is told."""

from pathlib import Path

import pytest

from occ.policy.cases import PolicyCase, load_cases, mismatches
from occ.policy.reading import load_policies
from occ.yamlmap import ConfigError
from policies.rules import Access
from tests.policies.rulebook import CONFIG, berlin, catalogue, rules, sample

BOOK = """
levels:
  low: {when: balance below 2.00, until: balance at least 3.00}
  heavy: {when: counter internet per month at least 10 GiB}
  dear: {when: spent internet per month at least 5.00}
  used: {when: bucket data at most 0}
throttles:
  slow: {down: 128 kbit/s, up: 64 kbit/s}
final_units:
  page: restrict
rules:
  - {rule: gone, when: suspended, do: cut}
  - {rule: heavy, when: heavy, services: [internet], throttle: slow}
  - {rule: dear, when: dear, services: [internet], grant_at_most: 1 MiB}
  - {rule: used, when: used, segments: [youth], services: [internet], final_units: page}
  - {rule: far, when: low, destinations: [far], plans: [night], do: bar}
  - {rule: abroad, accounts: postpaid, networks: [abroad], do: bar for good}
  - {rule: nights, during: 20:00-08:00, services: [sms], do: allow free}
"""


def load(tmp_path: Path, text: str) -> tuple[PolicyCase, ...]:
    path = tmp_path / "cases.yaml"
    path.write_text(text)
    return load_cases(path, rules(BOOK), catalogue())


def test_the_shipped_cases_hold_for_the_shipped_rules() -> None:
    operator = load_policies(CONFIG / "policies.yaml", sample())
    cases = load_cases(CONFIG / "policy-cases.yaml", operator, sample())
    assert len(cases) > 10
    assert {case.name: mismatches(operator, case) for case in cases} == {case.name: () for case in cases}


def test_everything_that_a_case_says_counts(tmp_path: Path) -> None:
    cases = load(
        tmp_path,
        """
- {case: heavy, balance: 9.00, used: {internet per month: 10 GiB}, service: internet,
   expect: {do: allow, throttle: slow, levels: [heavy], rules: [heavy], grant_at_most: none, final_units: none}}
- {case: dear, balance: 9.00, spent: {internet per month: 5.00}, service: internet,
   expect: {grant_at_most: 1 MiB, throttle: none}}
- {case: used, balance: 9.00, buckets: {data: 0}, segment: youth, service: internet, expect: {final_units: page}}
- {case: used in words, balance: 9.00, buckets: {data: 0}, segment: youth, service: internet, expect: final units}
- {case: not used, balance: 9.00, buckets: {data: 1 MiB}, segment: youth, service: internet, expect: allow}
- {case: far, balance: [1.00, 2.50], plan: night, service: calls, destination: far, expect: {do: bar, levels: [low]}}
- {case: not far, balance: [2.50], plan: night, service: calls, destination: far, expect: allow}
- {case: abroad, account: postpaid, balance: 0, service: sms, network: abroad, expect: bar for good}
- {case: cut, state: suspended, balance: 9.00, service: sms, expect: cut}
- {case: night, balance: 9.00, service: sms, at: 2026-01-05 07:59, expect: allow free}
- {case: day, balance: 9.00, service: sms, expect: {do: allow, rules: []}}
""",
    )
    operator = rules(BOOK)
    assert {case.name: mismatches(operator, case) for case in cases} == {case.name: () for case in cases}
    assert cases[9].at_ms == berlin("2026-01-05", 7, 59)
    assert cases[4].expected.access is Access.ALLOW


def test_what_is_not_as_expected_is_told(tmp_path: Path) -> None:
    (case,) = load(
        tmp_path,
        "- {case: a, balance: 1.00, used: {internet per month: 10 GiB}, service: internet,\n"
        "   expect: {do: bar, throttle: none, levels: [heavy], rules: [], grant_at_most: 1 MiB, final_units: page}}\n",
    )
    assert mismatches(rules(BOOK), case) == (
        "do should be bar, but is allow",
        "final_units should be page, but is none",
        "throttle should be none, but is slow",
        "grant_at_most should be 1048576, but is none",
        "levels should be heavy, but is heavy, low",
        "rules should be none, but is heavy",
    )
    (case,) = load(tmp_path, "- {case: a, state: suspended, balance: 1.00, service: sms, expect: bar}\n")
    assert mismatches(rules(BOOK), case) == ("do should be bar, but is cut",)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "there are no cases in it"),
        ("- {case: a, balance: 1, service: sms}", 1, "key 'expect' is missing"),
        ("- {case: a, balance: [], service: sms, expect: bar}", 1, "must be an amount of money, or a list of them"),
        ("- {case: a, balance: 1 GiB, service: sms, expect: bar}", 1, "amounts are in EUR"),
        ("- {case: a, balance: 1, service: smss, expect: bar}", 1, "there is no service 'smss'; did you mean 'sms'?"),
        ("- {case: a, balance: 1, service: sms, expect: ban}", 1, "must be one of allow, allow free, bar, "),
        ("- {case: a, balance: 1, service: sms, expect: {}}", 1, "must say what is expected: one of do, final_units"),
        ("- {case: a, balance: 1, service: sms, expect: {throttle: fast}}", 1, "there is no throttle 'fast'"),
        ("- {case: a, balance: 1, service: sms, expect: {levels: [high]}}", 1, "there is no level 'high'"),
        (
            "- {case: a, balance: 1, service: sms, plan: nigth, expect: bar}",
            1,
            "no plan 'nigth'; did you mean 'night'?",
        ),
        ("- {case: a, balance: 1, service: sms, destination: fra, expect: bar}", 1, "there is no destination 'fra'"),
        (
            "- {case: a, balance: 1, service: sms, destination: far, network: home, expect: bar}",
            1,
            "a zone of one kind",
        ),
        (
            "- {case: a, balance: 1, service: sms, at: today, expect: bar}",
            1,
            "must be a time such as '2026-03-29 02:30'",
        ),
        ("- {case: a, balance: 1, service: sms, at: 2026-02-30 02:30, expect: bar}", 1, "must be a time such as"),
        ("- {case: a, balance: 1, service: sms, buckets: {dada: 0}, expect: bar}", 1, "no allowance or bonus 'dada'"),
        ("- {case: a, balance: 1, service: sms, used: {sms: 1 event}, expect: bar}", 1, "per day or per month"),
        (
            "- {case: a, balance: 1, service: sms, expect: bar}\n- {case: a, balance: 2, service: sms, expect: bar}",
            2,
            "there is a case 'a' already, on line 1",
        ),
    ],
)
def test_a_mistake_in_a_case_is_told_with_its_place(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert f"cases.yaml:{line}: " in str(error.value)
    assert message in str(error.value)
