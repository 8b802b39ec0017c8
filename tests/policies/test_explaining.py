"""Explanations: what holds and what would be next is what the rules do; words say what the file says."""

from balance.model import Bucket, Meter, Unit
from occ.policy.explaining import (
    balance_in_words,
    conditions_in_words,
    decision_in_words,
    explain,
    level_in_words,
    rule_in_words,
    standings,
    throttle_in_words,
    window_in_words,
    zones_asked_for,
)
from policies.rules import AS_PRICED, Access, Decision
from tests.policies.rulebook import NOON, account, berlin, case, catalogue, rules

BOOK = """
levels:
  low: {when: balance below 2.00, until: balance at least 3.00, accounts: prepaid}
  zero: {when: balance at most 0}
  rich: {when: balance above 100.00, until: balance at most 50.00}
  limit: {when: credit at most 0}
  heavy: {when: counter internet per month at least 10 GiB}
  talk: {when: bucket talk below 1.00}
throttles:
  slow: {down: 128 kbit/s, up: 64 kbit/s, filter_id: t-128}
rules:
  - {rule: free, services: [portal, sos], do: allow free}
  - {rule: limit, when: limit, do: refuse}
  - {rule: far, when: [zero, suspended], destinations: [far, world], do: bar, notify: barred, restored: restored}
  - {rule: heavy, when: heavy, services: [internet], accounts: prepaid, throttle: slow}
  - {rule: nights, during: ["Mo-We,Fr 20:00-08:00", "holidays 00:00-24:00"], segments: [youth], services: [sms],
     do: cut}
  - {rule: small, plans: [night], services: [internet], grant_at_most: 1 MiB, emit: small, when: rich}
"""


def test_a_decision_is_explained_with_its_next_changes() -> None:
    operator = rules(BOOK)
    found = account(5_000_000, limit_micro=1_000_000, levels=())
    call = explain(operator, case("calls", "far"), found, NOON)
    assert (call.decision, call.levels) == (AS_PRICED, ())
    assert call.falling is not None
    assert (call.falling.balance_micro, call.falling.decision.access) == (0, Access.BAR)
    assert call.falling.levels == ("low", "zero")
    assert call.rising is None

    found.buckets[0].balance = -1_000_000
    call = explain(operator, case("calls", "far"), found, NOON)
    assert (call.decision.access, call.decision.rules) == (Access.NO_CREDIT, ("limit",))
    assert call.falling is None
    assert call.rising is not None
    assert (call.rising.balance_micro, call.rising.decision.access) == (-999_999, Access.BAR)


def test_every_rule_says_whether_it_holds_and_why_not() -> None:
    operator = rules(BOOK)
    found = account(-1_000_000, limit_micro=1_000_000)
    why = {each.rule.name: each.why_not for each in explain(operator, case("calls", "far"), found, NOON).rules}
    assert why == {
        "free": "it is for services portal, sos",
        "limit": "",
        "far": "",
        "heavy": "it is for services internet",
        "nights": "it is for services sms",
        "small": "it is for services internet",
    }
    acts = [each.rule.name for each in explain(operator, case("calls", "far"), found, NOON).rules if each.acts]
    assert acts == ["limit"]
    sms = explain(operator, case("sms", segment="youth"), account(5_000_000), berlin("2026-01-05", 19))
    assert sms.rules[4].why_not == "it is for Mo-We,Fr 20:00-08:00, holidays 00:00-24:00"
    assert sms.rules[1].why_not == "the account is not limit"
    assert sms.rules[2].why_not == "it is for zones far, world"
    assert sms.changes_ms == berlin("2026-01-05", 20)
    surf = explain(operator, case("internet", kind=1, plan="standard"), account(5_000_000), NOON)
    assert surf.rules[3].why_not == "it is for prepaid accounts"
    assert surf.rules[5].why_not == "it is for plans night"


def test_counters_of_use_tell_how_much_is_left() -> None:
    operator = rules(BOOK)
    found = account(50_000_000, meters=(Meter("use of internet per month", NOON + 1, units=(10 << 30) - 5),))
    assert explain(operator, case("internet"), found, NOON).units == 5
    assert explain(operator, case("portal"), found, NOON).units is None


def test_standings_tell_the_value_of_each_level() -> None:
    operator = rules(BOOK)
    found = account(1_000_000, limit_micro=2_000_000, levels=("low",))
    assert {each.level.name: (each.value, each.inside) for each in standings(operator, found, NOON)} == {
        "low": (1_000_000, True), "zero": (1_000_000, False), "rich": (1_000_000, False), "limit": (3_000_000, False),
        "heavy": (0, False), "talk": (None, False), "suspended": (0, False), "blocked": (0, False),
        "expired": (0, False), "terminated": (0, False),
    }  # fmt: skip
    found.buckets.append(Bucket(2, int(Unit.MONEY), 5, name="talk"))
    assert standings(operator, found, NOON)[5][1:] == (5, True)
    found.kind = 1
    assert standings(operator, found, NOON)[0].level.name == "zero"


def test_words_say_what_the_file_says() -> None:
    operator = rules(BOOK)
    policies = operator.policies
    assert [level_in_words(each, 978) for each in policies.levels[:7]] == [
        "balance below 2.00 EUR, until at least 3.00 EUR",
        "balance at most 0.00 EUR",
        "balance above 100.00 EUR, until at most 50.00 EUR",
        "credit at most 0.00 EUR",
        "counter internet per month at least 10 GiB",
        "bucket talk below 1.00 EUR",
        "the state of the account",
    ]
    assert [conditions_in_words(each) for each in policies.rules] == [
        "services portal, sos",
        "at limit",
        "at zero or suspended; zones far, world",
        "at heavy; prepaid accounts; services internet",
        "segments youth; services sms; Mo-We,Fr 20:00-08:00, holidays 00:00-24:00",
        "at rich; plans night; services internet",
    ]
    assert [rule_in_words(operator, each, Unit.OCTETS) for each in policies.rules] == [
        "allow free",
        "refuse (4012)",
        "bar (4010); send barred; send restored when it is over",
        "throttle to slow (128 kbit/s down, 64 kbit/s up, filter t-128)",
        "cut (4010, open sessions are aborted)",
        "grant 1 MiB at most; emit small",
    ]
    assert throttle_in_words(policies.throttles["slow"]).startswith("slow (128 kbit/s")
    assert window_in_words(policies.rules[4].windows[0]) == "Mo-We,Fr 20:00-08:00"
    assert decision_in_words(AS_PRICED, Unit.OCTETS) == "as priced"
    assert decision_in_words(Decision(Access.BAR_FOR_GOOD), Unit.OCTETS) == "barred for good (5003)"
    assert decision_in_words(Decision(Access.BAR, cut=True), Unit.OCTETS) == (
        "barred for now (4010), open sessions are aborted"
    )
    assert decision_in_words(Decision(throttle="slow", most_units=1 << 20), Unit.OCTETS) == (
        "as priced, throttled to slow, grants of 1 MiB at most"
    )


def test_a_balance_is_said_as_it_was_most_likely_written() -> None:
    assert balance_in_words(0, 978, up=False) == "at 0.00 EUR"
    assert balance_in_words(-1, 978, up=False) == "below 0.00 EUR"
    assert balance_in_words(1_999_999, 978, up=False) == "below 2.00 EUR"
    assert balance_in_words(1, 978, up=True) == "above 0.00 EUR"
    assert balance_in_words(-1_000_000, 978, up=True) == "at -1.00 EUR"
    assert balance_in_words(123_456, 978, up=True) == "at 0.123456 EUR"


def test_zones_of_which_rules_ask() -> None:
    operator = rules(BOOK)
    assert zones_asked_for(operator, catalogue(), "standard", "calls") == ["far", ""]  # world: calls-abroad
    assert zones_asked_for(operator, catalogue(), "standard", "calls-abroad") == ["world"]
    assert zones_asked_for(operator, catalogue(), "standard", "sos") == [""]
