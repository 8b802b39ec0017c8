"""Commands on subscribers and customers, against a real Redis: acts are in the history, refusals one sentence."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from balance.embedded import Address
from tests.shell import Shell

CATALOGUE = """\
version: test-1
currency: EUR
time_zone: Europe/Berlin
services:
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, validity: 1 h}
plans:
  standard: {internet: 0.01 per 1 MiB}
  large: {internet: 0.005 per 1 MiB}
  dollars: {currency: USD, internet: 0.01 per 1 MiB}
"""
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def shell(clean_redis: Address, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, clean_redis, CATALOGUE)
    shell.text("account", "create", "acc-1", "--balance", "10.00")
    yield shell
    assert shell.json("ledger", "verify")["consistent"] is True


def add(shell: Shell, name: str, *arguments: str, account: str = "acc-1") -> dict[str, object]:
    made: dict[str, object] = shell.json(
        "subscriber", "add", name, "--account", account, "--plan", "standard", *arguments
    )
    return made


def newest(shell: Shell, account: str = "acc-1") -> tuple[str, list[object]]:
    (record,) = shell.json("account", "history", account, "--limit", "1")
    return record["operation"], record["reason"]


# -- subscribers -------------------------------------------------------------------------------------------------------


def test_all_that_can_be_said_of_a_subscriber(shell: Shell) -> None:
    made = add(
        shell, "anna", "--msisdn", "+491701", "--imsi", "262010000000001", "--segment", "youth", "--cap-day", "5.00",
        "--cap-month", "50", "--friend", "+49301", "--friend", "49302", "--reason", "contract",
    )  # fmt: skip
    assert (made["segment"], made["friends"]) == ("youth", ["49301", "49302"])
    assert (made["cap_day_micro"], made["cap_month_micro"]) == (5_000_000, 50_000_000)
    assert newest(shell) == ("subscriber-add", ["contract", "anna", "plan standard"])
    shown = shell.text("subscriber", "show", "anna").splitlines()
    assert shown[0] == "anna: account acc-1, plan standard, mobile prepaid, active"
    assert shown[1:5] == [
        "  at most 5.00 EUR a day",
        "  at most 50.00 EUR a month",
        "  segment youth",
        "  friends 49301, 49302",
    ]


def test_lines_of_the_four_kinds(shell: Shell) -> None:
    shell.text("account", "create", "post", "--postpaid", "--credit-limit", "50.00")
    assert add(shell, "a", "--imsi", "262010000000001", "--msisdn", "491701")["kind"] == "mobile prepaid"
    assert add(shell, "b", "--line", "DE-4711", "--sip-uri", "sip:b@example.net")["kind"] == "fixed prepaid"
    assert add(shell, "c", "--imsi", "262010000000002", account="post")["kind"] == "mobile postpaid"
    assert add(shell, "d", "--nai", "d@isp.example.net", account="post")["kind"] == "fixed postpaid"
    assert shell.json("subscriber", "show", "DE-4711")["subscriber"] == "b"


def test_subscribers_that_cannot_be_added(shell: Shell) -> None:
    good = ("--account", "acc-1", "--plan", "standard", "--msisdn", "491701")
    refused = ("subscriber", "add", "anna", *good)
    assert "a cap must not be negative" in shell.refused(1, *refused, "--cap-day", "-1")
    assert "not an amount" in shell.refused(2, *refused, "--cap-day", "much")
    assert "is not a word" in shell.refused(1, *refused, "--segment", "two words")
    assert "E164 '0049-1' is malformed" in shell.refused(1, *refused, "--friend", "0049-1")
    wrong = ("subscriber", "add", "anna", "--account", "acc-1", "--plan", "dollars", "--msisdn", "491701")
    assert shell.refused(1, *wrong) == "account acc-1 is in EUR, but the prices of plan dollars are in USD"
    add(shell, "ben", "--msisdn", "491702")
    assert "belongs to subscriber ben already" in shell.refused(1, *refused, "--ordered", "--msisdn", "491702")


def test_a_sim_swap(shell: Shell) -> None:
    add(shell, "anna", "--msisdn", "491701", "--imsi", "262010000000001")
    add(shell, "ben", "--msisdn", "491702")
    swapped = shell.json("subscriber", "swap", "262010000000001", "262010000000099", "--reason", "lost")
    assert [each["value"] for each in swapped["identities"]] == ["491701", "262010000000099"]
    assert newest(shell)[1] == ["lost", "anna", "IMSI 262010000000001 -> IMSI 262010000000099"]
    assert shell.json("subscriber", "swap", "+491701", "+491709")["subscriber"] == "anna"
    assert shell.json("subscriber", "show", "491709")["subscriber"] == "anna"
    assert shell.refused(1, "subscriber", "swap", "491701", "491708") == "no subscriber has the identity 491701"
    assert "belongs to subscriber ben already" in shell.refused(1, "subscriber", "swap", "491709", "491702")
    assert "E164 'x' is malformed" in shell.refused(1, "subscriber", "swap", "491709", "x")


def test_an_identity_of_several_types(shell: Shell) -> None:
    """Digits may be somebody's number and somebody else's IMSI."""
    add(shell, "anna", "--msisdn", "262010000000001")
    add(shell, "ben", "--imsi", "262010000000001")
    swap = ("subscriber", "swap", "262010000000001")
    assert shell.refused(1, *swap, "262010000000002") == (
        "262010000000001 is an identity of several types (msisdn, imsi); say which with --type"
    )
    assert shell.json(*swap, "262010000000002", "--type", "imsi")["subscriber"] == "ben"
    assert (
        shell.refused(1, *swap, "262010000000003", "--type", "nai") == "no subscriber has the identity 262010000000001"
    )
    assert "did you mean 'imsi'?" in shell.refused(2, *swap, "262010000000003", "--type", "imis")


def test_who_is_meant_must_be_plain(shell: Shell) -> None:
    add(shell, "491701", "--msisdn", "491701", "--imsi", "262010000000001")
    shell.text("subscriber", "swap", "491701", "491702")
    add(shell, "ben", "--msisdn", "491701")
    assert shell.refused(1, "subscriber", "block", "491701", "--reason", "x") == (
        "491701 may be either of 491701 and ben; use another name or identity of the one you mean"
    )
    assert shell.json("subscriber", "block", "491702", "--reason", "x")["subscriber"] == "491701"
    assert shell.json("subscriber", "show", "ben")["state"] == "active"


def test_a_plan_changes_now_at_a_date_or_at_the_end_of_the_cycle(shell: Shell) -> None:
    add(shell, "anna", "--msisdn", "491701")
    plan = ("subscriber", "plan", "anna")
    at_end = shell.json(*plan, "large", "--at-cycle-end", "--reason", "upgrade")
    now = datetime.now(BERLIN)
    first = (now.replace(day=1) + timedelta(days=32)).date().replace(day=1)
    assert (at_end["plan"], at_end["next_plan"]) == ("standard", "large")
    midnight = datetime(first.year, first.month, 1, tzinfo=BERLIN)
    assert datetime.fromisoformat(at_end["next_plan_from"]) == midnight
    assert newest(shell)[0] == "subscriber-plan"
    assert f"plan large from {at_end['next_plan_from'][:10]}" in shell.text("subscriber", "show", "anna")
    assert shell.json(*plan, "large", "--at", "2037-07-01")["next_plan_from"] == "2037-06-30T22:00:00.000Z"
    changed = shell.json(*plan, "large", "--now")
    assert (changed["plan"], changed["next_plan"], changed["next_plan_from"]) == ("large", None, None)
    assert "say when" in shell.refused(2, *plan, "standard")
    assert "say when" in shell.refused(2, *plan, "standard", "--now", "--at-cycle-end")
    assert "has begun already" in shell.refused(2, *plan, "standard", "--at", "2001-01-01")
    assert "is not a date" in shell.refused(2, *plan, "standard", "--at", "tomorrow")
    assert "did you mean 'standard'?" in shell.refused(2, *plan, "standrad", "--now")
    assert "plan dollars are in USD" in shell.refused(1, *plan, "dollars", "--now")


def test_caps_and_friends(shell: Shell) -> None:
    add(shell, "anna", "--msisdn", "491701", "--cap-month", "20")
    capped = shell.json("subscriber", "caps", "anna", "--day", "2.50", "--reason", "parents")
    assert (capped["cap_day_micro"], capped["cap_month_micro"]) == (2_500_000, 20_000_000)
    assert newest(shell) == ("subscriber-caps", ["parents", "anna", "day 2500000"])
    assert shell.json("subscriber", "caps", "anna", "--month", "none")["cap_month_micro"] is None
    assert "say what is capped" in shell.refused(2, "subscriber", "caps", "anna")
    assert shell.json("subscriber", "friends", "anna", "+49301", "49302")["friends"] == ["49301", "49302"]
    assert newest(shell)[1] == ["occ command line", "anna", "49301, 49302"]
    assert shell.json("subscriber", "friends", "anna", "--none")["friends"] == []
    assert "give the friends-and-family numbers, or --none" in shell.refused(2, "subscriber", "friends", "anna")


def test_the_life_of_a_subscriber(shell: Shell) -> None:
    made = add(shell, "anna", "--msisdn", "491701", "--ordered")
    assert (made["state"], made["in_service_since"]) == ("ordered", None)
    assert shell.json("account", "show", "acc-1")["out_of_service"] == {"anna": "ordered"}
    resume = ("subscriber", "resume", "anna", "--reason", "x")
    assert shell.refused(1, *resume) == "subscriber anna is ordered, not suspended or blocked"
    assert shell.json("subscriber", "activate", "anna")["in_service_since"] is not None
    for command, state in (("suspend", "suspended"), ("resume", "active"), ("block", "blocked")):
        assert shell.json("subscriber", command, "491701", "--reason", command)["state"] == state
        assert newest(shell) == ("subscriber-state", [command, "anna", state])
    assert shell.json("account", "show", "acc-1")["out_of_service"] == {"anna": "blocked"}
    assert "anna        blocked" in shell.text("account", "show", "acc-1")
    assert "subscriber anna is blocked, not ordered" in shell.refused(1, "subscriber", "activate", "anna")
    assert "Missing option '--reason'" in shell.refused(2, "subscriber", "terminate", "anna")
    assert shell.json("subscriber", "terminate", "anna", "--reason", "left")["identities"] != []
    gone = shell.json("subscriber", "terminate", "anna", "--reason", "left", "--free-identities")
    assert (gone["state"], gone["identities"]) == ("terminated", [])
    assert "is terminated, not suspended" in shell.refused(1, *resume)
    assert add(shell, "ben", "--msisdn", "491701")["state"] == "active"
    assert "there is no subscriber carl" in shell.refused(1, "subscriber", "block", "carl", "--reason", "x")


# -- customers ---------------------------------------------------------------------------------------------------------


def company(shell: Shell) -> None:
    shell.text("account", "create", "acme", "--postpaid", "--credit-limit", "500.00")
    shell.text("customer", "add", "acme", "--kind", "company", "--name", "Acme GmbH")
    shell.text("customer", "add", "north", "--kind", "branch", "--below", "acme")
    shell.text("customer", "add", "harbour", "--kind", "branch", "--below", "north")


def test_a_company_and_its_branches(shell: Shell) -> None:
    company(shell)
    made = add(shell, "desk", "--line", "L-1", account="harbour")
    assert (made["account"], made["belongs_to"], made["kind"]) == ("acme", "harbour", "fixed postpaid")
    assert "  belongs to account harbour" in shell.text("subscriber", "show", "desk")
    assert shell.text("customer", "tree").splitlines()[2].startswith("  north ")
    assert [line.split() for line in shell.text("customer", "tree").splitlines()] == [
        ["unit", "kind", "name", "account", "paid", "by", "subscribers"],
        ["acme", "company", "Acme", "GmbH", "acme", "acme", "0"],
        ["north", "branch", "north", "acme", "0"],
        ["harbour", "branch", "harbour", "acme", "1"],
        ["3", "units,", "1", "subscribers."],
    ]
    assert shell.text("customer", "pays", "north", "itself", "--reason", "spun off") == (
        "north: branch below acme, account north, account north pays; 1 subscriber had another payer.\n"
    )
    assert shell.json("subscriber", "show", "desk")["account"] == "north"
    assert newest(shell, "acme") == ("unit", ["spun off", "north", "branch, itself pays, below acme", "1 subscribers"])
    moved = shell.json("customer", "move", "north", "--top")
    assert (moved["below"], moved["paid_by"], moved["moved"]) == (None, "north", 0)
    assert [each["unit"] for each in shell.json("customer", "tree", "north")] == ["north", "harbour"]
    assert shell.json("customer", "rename", "north", "Nord AG")["name"] == "Nord AG"
    # The account of a branch is like that of who pays for it.
    assert shell.json("account", "show", "harbour")["kind"] == "postpaid"


def test_who_is_listed(shell: Shell) -> None:
    company(shell)
    for name, account in (("a", "acme"), ("b", "north"), ("c", "harbour")):
        add(shell, name, "--line", name, account=account)
    for account, names in (("acme", ["a", "b", "c"]), ("north", ["b"]), ("acc-1", [])):
        assert [each["subscriber"] for each in shell.json("subscriber", "list", "--account", account)] == names
    shown = shell.text("subscriber", "list", "--account", "acme", "--limit", "2")
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["a", "active", "standard", "acme", "acme", "a"],
        ["b", "active", "standard", "north", "acme", "b"],
        ["2", "of", "3", "subscribers."],
    ]
    assert shell.refused(1, "subscriber", "list", "--account", "x") == "there is no account x"


def test_a_subscriber_moves(shell: Shell) -> None:
    company(shell)
    add(shell, "anna", "--msisdn", "491701", account="harbour")
    moved = shell.json("subscriber", "move", "anna", "acc-1", "--reason", "left the company")
    assert (moved["account"], moved["belongs_to"], moved["kind"]) == ("acc-1", "acc-1", "fixed prepaid")
    for account in ("acc-1", "acme"):
        assert newest(shell, account) == (
            "subscriber-move",
            ["left the company", "anna", "belongs to acc-1, acc-1 pays"],
        )
    assert shell.json("subscriber", "move", "anna", "north")["account"] == "acme"
    assert "there is no account x" in shell.refused(1, "subscriber", "move", "anna", "x")


def test_customers_that_cannot_be(shell: Shell) -> None:
    company(shell)
    shell.text("account", "create", "swiss", "--currency", "CHF")
    customer = ("customer", "add", "new", "--kind", "branch")
    assert "there is no account new" in shell.refused(1, *customer)
    assert "no customer or unit x to stand below" in shell.refused(1, *customer, "--below", "x", "--account", "acc-1")
    assert "there is no customer or unit x" in shell.refused(1, *customer, "--below", "x")
    assert "has no parent that could pay" in shell.refused(1, *customer, "--pays", "parent")
    assert "account acme is that of unit acme already" in shell.refused(1, *customer, "--account", "acme")
    assert "another currency" in shell.refused(1, *customer, "--below", "acme", "--account", "swiss")
    assert "exists already" in shell.refused(1, "customer", "add", "north", "--kind", "company")
    assert "exists already" in shell.refused(
        1, "customer", "add", "north", "--kind", "household", "--below", "acme", "--account", "acc-1"
    )
    assert "did you mean 'branch'?" in shell.refused(2, *customer[:3], "--kind", "brunch")
    assert "'nobody' is not one of itself, parent" in shell.refused(2, *customer, "--pays", "nobody")
    assert "harbour is north or stands below it" in shell.refused(1, "customer", "move", "north", "--below", "harbour")
    assert "say where" in shell.refused(2, "customer", "move", "north")
    assert "say where" in shell.refused(2, "customer", "move", "north", "--top", "--below", "acme")
    assert "there is no customer or unit x" in shell.refused(1, "customer", "pays", "x", "itself")
    assert "there is no customer or unit x" in shell.refused(1, "customer", "tree", "x")


def test_a_customer_is_added_once(shell: Shell) -> None:
    company(shell)
    again = ("customer", "add", "north", "--kind", "branch", "--below", "acme")
    assert shell.text(*again) == "north: branch below acme, account north, account acme pays.\n"
    assert len(shell.json("customer", "tree")) == 3
