"""Offers by the command line, and bonuses for topping up, on a real store."""

from pathlib import Path

import pytest

from balance.embedded import Address
from tests.shell import Shell

CATALOGUE = """
version: t
currency: EUR
services:
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, validity: 30 min}
plans:
  standard: {internet: 0.01 per 1 MiB}
allowances:
  data: {amount: 10 GiB, serves: [internet], priority: 10}
bonuses:
  talk: {serves: [internet], priority: 5, valid: 14 d}
offers:
  month: {fee: 10.00, every: month, gives: [data]}
promotions:
  - name: welcome
    top_up_bonus: {from: 10.00, gives: 20 %, bucket: talk}
    budget: 5.00
"""


@pytest.fixture
def shell(clean_redis: Address, tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, clean_redis, CATALOGUE)
    shell.text("account", "create", "acc-1", "--balance", "30.00")
    shell.text("subscriber", "add", "sub-1", "--account", "acc-1", "--plan", "standard", "--msisdn", "491700000001")
    return shell


def test_an_offer_is_taken_paid_listed_and_dropped(shell: Shell) -> None:
    assert shell.text("account", "offer", "take", "acc-1", "month") == (
        "acc-1 has the offer month; 10.00 EUR was taken for it.\n"
    )
    account = shell.json("account", "show", "acc-1")
    assert [bucket["balance"] for bucket in account["buckets"]] == [20_000_000, 10 << 30]
    (offer,) = shell.json("account", "offer", "list", "acc-1")
    assert (offer["offer"], offer["unpaid_since"]) == ("month", None)
    assert "already" in shell.refused(1, "account", "offer", "take", "acc-1", "month")
    assert "no offer" in shell.refused(1, "account", "offer", "take", "acc-1", "mouth")
    shell.text("account", "offer", "drop", "acc-1", "month")
    assert shell.json("account", "offer", "list", "acc-1") == []
    shell.text("ledger", "verify")


def test_an_offer_that_cannot_be_paid_changes_nothing(shell: Shell) -> None:
    shell.text("account", "create", "acc-2", "--balance", "9.99")
    assert "cannot be paid" in shell.refused(1, "account", "offer", "take", "acc-2", "month")


def test_a_top_up_brings_its_bonus_within_the_budget(shell: Shell) -> None:
    """20 % on top of 20.00 is 4.00 of a budget of 5.00: the next 2.00 are more than is left."""
    told = shell.text("account", "top-up", "acc-1", "20.00", "--reference", "p-1")
    assert "welcome gave 4.00 EUR on top, in a bucket talk." in told
    again = shell.text("account", "top-up", "acc-1", "20.00", "--reference", "p-1")
    assert "welcome" not in again
    assert "welcome" not in shell.text("account", "top-up", "acc-1", "9.99")
    assert "welcome" not in shell.text("account", "top-up", "acc-1", "10.00")
    account = shell.json("account", "show", "acc-1")
    assert [bucket["balance"] for bucket in account["buckets"]] == [69_990_000, 4_000_000]
    shell.text("ledger", "verify")
