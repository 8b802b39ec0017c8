"""Commands that change accounts, against a real Redis: each act is in the history, each refusal one sentence."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from balance.embedded import Address
from balance.store import Store, StoreSettings
from balance.transfers import transfer_money
from tests.cut_off import CutOffError, CutOffStore
from tests.shell import Shell

CATALOGUE = """\
version: test-1
currency: EUR
services:
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, validity: 1 h}
  voice: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, validity: 1 h}
plans:
  standard: {internet: 0.01 per 1 MiB, voice: 0.09 per 60 s}
allowances:
  data-5gb: {amount: 5 GiB, serves: [internet], priority: 10, valid: 30 d, shared: yes}
bonuses:
  talk: {serves: [voice], priority: 5}
"""


@pytest.fixture
def shell(clean_redis: Address, tmp_path: Path) -> Shell:
    return Shell(tmp_path, clean_redis, CATALOGUE)


def charge_by(shell: Shell, setting: str) -> None:
    shell.config.write_text(f"{shell.config.read_text()}charging:\n  {setting}\n")


def newest(shell: Shell, account: str) -> tuple[str, list[object]]:
    (record,) = shell.json("account", "history", account, "--limit", "1")
    return record["operation"], record["reason"]


def days_from_now(at: str | None) -> float:
    assert at is not None
    return (datetime.fromisoformat(at) - datetime.now(UTC)) / timedelta(days=1)


# -- money -------------------------------------------------------------------------------------------------------------


def test_an_adjustment_puts_a_bucket_right(shell: Shell) -> None:
    shell.text("account", "create", "acc-1", "--balance", "1.00", "--bucket", "1 GiB")
    assert shell.text("account", "adjust", "acc-1", "2.50", "--reason", "dropped call") == (
        "2.50 EUR added to bucket 1 of acc-1, which now holds 3.50 EUR.\n"
    )
    assert shell.text("account", "adjust", "acc-1", "-0.50", "--reason", "wrong voucher") == (
        "0.50 EUR taken from bucket 1 of acc-1, which now holds 3.00 EUR.\n"
    )
    assert newest(shell, "acc-1") == ("adjust", ["wrong voucher"])
    taken = shell.json("account", "adjust", "acc-1", "-512 MiB", "--bucket", "2", "--reason", "double")
    assert (taken["unit"], taken["amount"], taken["balance_after"]) == ("octets", -(512 << 20), 512 << 20)
    report = shell.json("ledger", "verify")
    assert [total["adjusted"] for total in report["totals"]] == [2_000_000, -(512 << 20)]
    assert [total["debited"] for total in report["totals"]] == [0, 0]


def test_an_adjustment_with_a_reference_counts_once(shell: Shell) -> None:
    shell.text("account", "create", "acc-1", "--balance", "1.00")
    arguments = ("account", "adjust", "acc-1", "-1.00", "--reason", "complaint 7", "--reference", "C-7")
    shell.text(*arguments)
    assert shell.text(*arguments) == (
        "Reference C-7 was used before: 1.00 EUR taken from it, to 0.00 EUR; nothing was changed.\n"
    )
    # A top-up may bear the reference of an adjustment.
    assert shell.json("account", "top-up", "acc-1", "1.00", "--reference", "C-7")["repeated"] is False


def test_adjustments_that_cannot_be(shell: Shell) -> None:
    shell.text("account", "create", "pre", "--balance", "1.00")
    shell.text("account", "create", "post", "--postpaid", "--credit-limit", "5.00")
    adjust = ("account", "adjust")
    assert shell.refused(1, *adjust, "pre", "-1.01", "--reason", "x") == (
        "bucket 1 of account pre can give 1000000 micro-units, which is less than 1010000"
    )
    assert "can give 5000000" in shell.refused(1, *adjust, "post", "-5.01", "--reason", "x")
    assert "needs a reason" in shell.refused(1, *adjust, "pre", "1", "--reason", " ")
    assert "Missing option '--reason'" in shell.refused(2, *adjust, "pre", "1")
    assert "an adjustment of nothing" in shell.refused(1, *adjust, "pre", "0", "--reason", "x")
    assert "not an amount" in shell.refused(2, *adjust, "pre", "-1 GiB", "--reason", "x")
    assert "not an amount" in shell.refused(2, *adjust, "pre", "--1", "--reason", "x")
    assert "no bucket 2" in shell.refused(1, *adjust, "pre", "1", "--bucket", "2", "--reason", "x")
    assert shell.refused(1, *adjust, "none", "1", "--reason", "x") == "there is no account none"
    shell.text(*adjust, "post", "-5.00", "--reason", "x")


def test_a_transfer(shell: Shell) -> None:
    shell.text("account", "create", "a", "--balance", "5.00")
    shell.text("account", "create", "b")
    arguments = ("account", "transfer", "a", "b", "2.00", "--reference", "T-1", "--reason", "gift")
    assert (
        shell.text(*arguments) == "Moved 2.00 EUR from a, which now holds 3.00 EUR, to b, which now holds 2.00 EUR.\n"
    )
    assert shell.text(*arguments) == "Reference T-1 was used before: 2.00 EUR went to b; nothing was changed.\n"
    assert newest(shell, "a") == ("transfer-out", ["gift", "T-1", "to b"])
    assert newest(shell, "b") == ("transfer-in", ["gift", "T-1", "from a"])
    assert shell.text("account", "transfers", "--unfinished") == "0 transfers are not finished.\n"
    assert "are in the histories" in shell.refused(2, "account", "transfers")
    assert "Missing option '--reference'" in shell.refused(2, "account", "transfer", "a", "b", "1")
    assert "can give 3000000" in shell.refused(1, "account", "transfer", "a", "b", "4.00", "--reference", "T-2")
    assert shell.json("ledger", "verify")["totals"][0]["transferred"] == 0


def test_a_transfer_that_was_cut_off_is_shown_and_completed(shell: Shell) -> None:
    shell.text("account", "create", "a", "--balance", "5.00")
    shell.text("account", "create", "b")

    async def begin() -> None:
        store: Store = CutOffStore(StoreSettings(shell.address))
        await store.start()
        store.left = 3  # type: ignore[attr-defined]
        try:
            await transfer_money(store, b"a", b"b", 2_000_000, now_ms=1, reason="gift", reference="T-1")
        finally:
            await store.stop()

    with pytest.raises(CutOffError):
        asyncio.run(begin())
    (found,) = shell.json("account", "transfers", "--unfinished")
    assert (found["reference"], found["from"], found["to"], found["amount_micro"]) == ("T-1", "a", "b", 2_000_000)
    assert (found["debited"], found["credited"]) == (True, False)
    assert "T-1        a     b   2.00 EUR" in shell.text("account", "transfers", "--unfinished")
    assert shell.json("ledger", "verify")["totals"][0]["transferred"] == -2_000_000
    done = shell.json("account", "transfer", "a", "b", "2.00", "--reference", "T-1")
    assert (done["from_balance_after_micro"], done["to_balance_after_micro"]) == (3_000_000, 2_000_000)
    assert shell.json("account", "transfers", "--unfinished") == []
    assert shell.json("ledger", "verify")["totals"][0]["transferred"] == 0


def test_the_credit_limit_is_never_less_than_what_is_used(shell: Shell) -> None:
    shell.text("account", "create", "post", "--postpaid", "--credit-limit", "50.00")
    shell.text("account", "create", "pre")
    shell.text("account", "adjust", "post", "-20.00", "--reason", "opening debt")
    assert shell.json("account", "limit", "post", "20.00")["available_micro"] == 0
    assert newest(shell, "post") == ("credit-limit", ["occ command line", "20000000 micro"])
    assert "has used or reserved 20000000" in shell.refused(1, "account", "limit", "post", "19.99")
    assert shell.json("account", "limit", "pre", "1.50")["available_micro"] == 1_500_000
    assert "pre: prepaid, credit limit 1.50 EUR, 1.50 EUR available" in shell.text("account", "show", "pre")
    assert "there is no account x" in shell.refused(1, "account", "limit", "x", "1")


# -- states and expiry -------------------------------------------------------------------------------------------------


def test_the_life_of_an_account(shell: Shell) -> None:
    assert shell.json("account", "create", "acc-1", "--ordered")["state"] == "ordered"
    for word in ("active", "suspended", "blocked", "active", "terminated"):
        assert shell.json("account", "state", "acc-1", word, "--reason", "test")["state"] == word
        assert newest(shell, "acc-1") == ("account-state", ["test", word])
    assert "acc-1: prepaid, terminated, 0.00 EUR available" in shell.text("account", "show", "acc-1")
    assert shell.refused(1, "account", "state", "acc-1", "active") == (
        "active cannot follow terminated; what can is nothing"
    )
    assert "is terminated and takes no money" in shell.refused(1, "account", "top-up", "acc-1", "1")
    assert "is terminated and takes no bucket" in shell.refused(1, "account", "bucket", "add", "acc-1", "1 GiB")
    assert "is terminated" in shell.refused(1, "account", "expires", "acc-1", "--never")
    assert "did you mean 'suspended'?" in shell.refused(2, "account", "state", "acc-1", "suspendet")
    assert "'grace' is not one of" in shell.refused(2, "account", "state", "acc-1", "grace")


def test_a_prepaid_account_expires(shell: Shell) -> None:
    made = shell.json("account", "create", "acc-1", "--valid-for", "30 d")
    assert 29.9 < days_from_now(made["expires"]) < 30
    set_to = shell.json("account", "expires", "acc-1", "2037-01-31")
    assert set_to["expires"] == "2037-02-01T00:00:00.000Z"
    assert "acc-1: prepaid, expires 2037-02-01 00:00:00.000 UTC, 0.00 EUR" in shell.text("account", "show", "acc-1")
    assert 89.9 < days_from_now(shell.json("account", "expires", "acc-1", "--in", "90d")["expires"]) < 90
    # A top-up makes it valid for longer, never for less.
    shell.text("account", "top-up", "acc-1", "1", "--valid-for", "10 d")
    assert 89.9 < days_from_now(shell.json("account", "show", "acc-1")["expires"]) < 90
    shell.text("account", "top-up", "acc-1", "1", "--valid-for", "100 d")
    assert 99.9 < days_from_now(shell.json("account", "show", "acc-1")["expires"]) < 100
    assert shell.json("account", "expires", "acc-1", "--never")["expires"] is None
    # One that does not expire is not made to.
    shell.text("account", "top-up", "acc-1", "1", "--valid-for", "1 d")
    assert shell.json("account", "show", "acc-1")["expires"] is None


def test_a_date_ends_by_the_clock_of_the_catalogue(shell: Shell) -> None:
    catalogue = shell.config.parent / "catalogue.yaml"
    catalogue.write_text(f"time_zone: Europe/Berlin\n{CATALOGUE}")
    made = shell.json("account", "create", "acc-1", "--bucket", "1 GiB until 2037-07-31")
    assert made["buckets"][1]["expires"] == "2037-07-31T22:00:00.000Z"
    assert shell.json("account", "expires", "acc-1", "2037-01-31")["expires"] == "2037-01-31T23:00:00.000Z"


def test_how_long_accounts_are_valid_is_in_the_settings(shell: Shell) -> None:
    charge_by(shell, "prepaid_valid_days: 60")
    assert 59.9 < days_from_now(shell.json("account", "create", "pre")["expires"]) < 60
    assert 4.9 < days_from_now(shell.json("account", "create", "short", "--valid-for", "5 d")["expires"]) < 5
    assert shell.json("account", "create", "post", "--postpaid")["expires"] is None
    shell.text("account", "top-up", "short", "1")
    assert 59.9 < days_from_now(shell.json("account", "show", "short")["expires"]) < 60


def test_a_top_up_brings_an_account_back_from_its_grace(shell: Shell) -> None:
    for name, arguments, valid in (
        ("a", ("top-up", "a", "1"), None),
        ("b", ("top-up", "b", "1", "--valid-for", "30 d"), 30),
        ("c", ("transfer", "rich", "c", "1", "--reference", "T", "--valid-for", "7 d"), 7),
        ("d", ("expires", "d", "--in", "3 d"), 3),
    ):
        if name == "a":
            shell.text("account", "create", "rich", "--balance", "9")
        shell.text("account", "create", name, "--valid-for", "1 d")
        put_into_grace(shell, name)
        assert f"{name}: prepaid, grace, terminated " in shell.text("account", "show", name)
        shell.text("account", *arguments)
        found = shell.json("account", "show", name)
        assert found["state"] == "active"
        assert (found["expires"] is None) == (valid is None)
        if valid is not None:
            assert valid - 0.1 < days_from_now(found["expires"]) < valid
    assert shell.json("ledger", "verify")["consistent"] is True


def put_into_grace(shell: Shell, account: str) -> None:
    """As supervision does when the time has come."""
    from balance.directory import set_account_state
    from balance.model import LifeState
    from occ.lifecycle import check_change

    async def work() -> None:
        store = Store(StoreSettings(shell.address))
        await store.start()
        await set_account_state(store, account.encode(), LifeState.GRACE, 1, "test", check_change)
        await store.stop()

    asyncio.run(work())


def test_expiries_that_cannot_be(shell: Shell) -> None:
    shell.text("account", "create", "pre")
    shell.text("account", "create", "post", "--postpaid")
    expires = ("account", "expires")
    assert "say when" in shell.refused(2, *expires, "pre")
    assert "say when" in shell.refused(2, *expires, "pre", "2037-01-31", "--never")
    assert "'2037-02-30' is not a date" in shell.refused(2, *expires, "pre", "2037-02-30")
    assert "'20370131' is not a date" in shell.refused(2, *expires, "pre", "20370131")
    assert "is past" in shell.refused(1, *expires, "pre", "2001-01-01")
    assert "only prepaid accounts expire" in shell.refused(1, *expires, "post", "2037-01-31")
    assert "only prepaid accounts expire" in shell.refused(
        1, "account", "create", "x", "--postpaid", "--valid-for", "1 d"
    )
    assert "'days' is no unit for seconds" in shell.refused(2, *expires, "pre", "--in", "90 days")
    assert "more than 100 years" in shell.refused(2, *expires, "pre", "--in", "99999 d")


# -- buckets -----------------------------------------------------------------------------------------------------------


def test_a_bucket_is_added(shell: Shell) -> None:
    shell.text("account", "create", "acc-1")
    for name, number in (("anna", "491701"), ("ben", "491702")):
        shell.text("subscriber", "add", name, "--account", "acc-1", "--plan", "standard", "--msisdn", number)
    plain = shell.json(
        "account", "bucket", "add", "acc-1", "2 GiB", "--priority", "20", "--until", "2037-01-31", "--owner", "anna",
        "--reason", "welcome",
    )  # fmt: skip
    assert plain["buckets"][1] == {
        "bucket": 2,
        "unit": "octets",
        "balance": 2 << 30,
        "reserved": 0,
        "priority": 20,
        "expires": "2037-02-01T00:00:00.000Z",
        "name": "",
        "owner": "anna",
    }
    assert newest(shell, "acc-1") == ("add-bucket", ["welcome"])
    # Of an allowance of the catalogue: as that says.
    of_catalogue = shell.json("account", "bucket", "add", "acc-1", "--name", "data-5gb")["buckets"][2]
    assert (of_catalogue["balance"], of_catalogue["priority"], of_catalogue["name"]) == (5 << 30, 10, "data-5gb")
    assert 29.9 < days_from_now(of_catalogue["expires"]) < 30
    bonus = shell.json("account", "bucket", "add", "acc-1", "2.50 EUR", "--name", "talk")["buckets"][3]
    assert (bonus["unit"], bonus["balance"], bonus["priority"], bonus["expires"]) == ("money", 2_500_000, 5, None)
    shown = shell.text("account", "show", "acc-1")
    assert "data-5gb  all" in shown
    assert "0.00 EUR available" in shown  # a bonus is not for everything
    totals = {total["unit"]: total["credited"] for total in shell.json("ledger", "verify")["totals"]}
    assert totals == {"money": 2_500_000, "octets": 7 << 30}


def test_buckets_that_cannot_be(shell: Shell) -> None:
    shell.text("account", "create", "acc-1")
    shell.text("account", "create", "acc-2")
    shell.text("subscriber", "add", "ben", "--account", "acc-2", "--plan", "standard", "--msisdn", "491702")
    add = ("account", "bucket", "add", "acc-1")
    assert "--priority" in shell.refused(2, *add, "1 GiB", "--priority", "9" * 26)
    assert "--bucket" in shell.refused(2, "account", "top-up", "acc-1", "1.00", "--bucket", "9" * 26)
    assert "say what is in the bucket" in shell.refused(2, *add)
    assert "say what is in the bucket" in shell.refused(2, *add, "--name", "talk")
    assert "did you mean 'data-5gb'?" in shell.refused(2, *add, "--name", "data-5gp")
    assert "data-5gb is counted in octets, not in seconds" in shell.refused(2, *add, "5 min", "--name", "data-5gb")
    assert "is not a bucket" in shell.refused(2, *add, "5GiB")
    assert "acc-1 pays for no subscriber ben" in shell.refused(1, *add, "5 GiB", "--owner", "ben")
    assert "acc-1 pays for no subscriber carl" in shell.refused(1, *add, "5 GiB", "--owner", "carl")
    assert "cannot expire before it exists" in shell.refused(1, *add, "5 GiB", "--until", "2001-01-01")


def test_every_act_is_in_the_history(shell: Shell) -> None:
    with redis.Redis.from_url(shell.address.url) as client:
        assert client.dbsize() == 0
    shell.text("account", "create", "a", "--balance", "9", "--reason", "r")
    shell.text("account", "create", "b", "--postpaid", "--credit-limit", "9", "--reason", "r")
    for arguments in (
        ("top-up", "a", "1"),
        ("adjust", "a", "-1"),
        ("transfer", "a", "b", "1", "--reference", "T"),
        ("bucket", "add", "a", "1 GiB"),
        ("limit", "b", "8"),
        ("state", "a", "suspended"),
        ("expires", "a", "--never"),
    ):
        shell.text("account", *arguments, "--reason", "r")
    told = {name: shell.json("account", "history", name) for name in ("a", "b")}
    assert [record["operation"] for record in told["a"]] == [
        "create", "top-up", "adjust", "transfer-out", "add-bucket", "account-state", "account-expiry",
    ]  # fmt: skip
    assert [record["operation"] for record in told["b"]] == ["create", "transfer-in", "credit-limit"]
    assert {record["reason"][0] for name in told for record in told[name]} == {"r"}
    assert json.dumps(told)
    assert shell.json("ledger", "verify")["consistent"] is True
