"""``occ policy``: check, explain and test, on a real store; ``reload`` without a server."""

import asyncio
import shutil
from pathlib import Path

import pytest

from balance.embedded import Address
from balance.store import Store, StoreSettings
from occ.policy.reading import load_policies
from occ.policy.watching import InForce, put_in_force
from tests.policies.rulebook import CONFIG, sample
from tests.shell import Shell


@pytest.fixture
def shell(clean_redis: Address, tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, clean_redis)
    shutil.copy(CONFIG / "policies.yaml", tmp_path / "policies.yaml")
    shell.config.write_text(shell.config.read_text() + "policies: policies.yaml\n")
    shell.text("account", "create", "acc-1", "--balance", "1.50", "--credit-limit", "1.00")
    shell.text("subscriber", "add", "sub-1", "--account", "acc-1", "--plan", "standard", "--msisdn", "491700000001")
    return shell


def test_check_says_what_was_understood(shell: Shell) -> None:
    told = shell.text("policy", "check")
    assert "low            balance below 2.00 EUR, until at least 3.00 EUR  prepaid" in told
    assert "Throttle slow (128 kbit/s down, 64 kbit/s up, filter throttle-128k)." in told
    assert "Note" not in told
    found = shell.json("policy", "check")
    assert [rule["name"] for rule in found["rules"]][:2] == ["always-free", "at-the-limit"]
    assert found["remarks"] == []
    assert found["throttles"] == [
        {"name": "slow", "down_bit_s": 128_000, "up_bit_s": 64_000, "filter_id": "throttle-128k"}
    ]


def test_check_says_what_is_wrong(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(path.read_text().replace("services: [portal,", "services: [potral,"))
    assert "there is no service 'potral'; did you mean 'portal'?" in shell.refused(2, "policy", "check")
    path.write_text("levels:\n  low: {when: balance below 2.00}\n")
    assert "Note: " in shell.text("policy", "check", str(path))


def test_settings_without_rules_are_told(shell: Shell) -> None:
    shell.config.write_text(shell.config.read_text().replace("policies: policies.yaml\n", ""))
    assert "the settings name no rules file" in shell.refused(1, "policy", "check")


def test_an_account_is_explained(shell: Shell) -> None:
    """At 1.50 it is low; the next to come is the bar on calls out of town at zero, and slow Internet below it."""
    found = shell.json("policy", "explain", "acc-1")
    assert (found["balance_micro"], found["credit_limit_micro"]) == (1_500_000, 1_000_000)
    assert [level["name"] for level in found["levels"] if level["at"]] == ["low"]
    services = {(each["service"], each["zone"]): each for each in found["services"]}
    assert services["internet", ""]["falling"] == {
        "balance_micro": -1,
        "levels": ["low", "zero", "negative"],
        "decision": "as priced, throttled to slow",
        "rules": ["slow-below-zero"],
    }
    assert services["national-voice", "long-distance"]["falling"]["balance_micro"] == 0
    assert services["national-voice", ""]["falling"]["balance_micro"] == -1_000_000
    assert services["portal", ""]["decision"] == "free"
    assert services["portal", ""]["falling"] is None
    text = shell.text("policy", "explain", "acc-1")
    assert "acc-1: prepaid, balance 1.50 EUR, credit limit 1.00 EUR." in text
    assert "Note: the servers have no rules in force" in text
    assert "at 0.00 EUR barred for now (4010) (no-distance-at-zero)" in text


def test_one_service_is_explained_rule_by_rule(shell: Shell) -> None:
    shell.text("account", "adjust", "acc-1", "-2.00", "--reason", "test")
    text = shell.text("policy", "explain", "acc-1", "internet")
    assert "does not hold: it is for services portal, emergency-call" in text
    assert "does not hold: the account is not limit-reached" in text
    rows = [line.split() for line in text.splitlines()]
    assert [row[-1] for row in rows if row[1:2] == ["slow-below-zero"]] == ["acts"]
    assert [row[-1] for row in rows if row[1:2] == ["tell-low"]] == ["holds"]
    found = shell.json("policy", "explain", "acc-1", "internet")
    (service,) = found["services"]
    assert service["rising"]["balance_micro"] == 0
    assert service["rising"]["decision"] == "as priced"


def test_rules_in_force_are_compared_with_the_file(shell: Shell, tmp_path: Path) -> None:
    async def begin() -> None:
        store = Store(StoreSettings(shell.address))
        await store.start()
        operator = load_policies(tmp_path / "policies.yaml", sample())
        levels = operator.policies.levels
        await put_in_force(store, InForce(operator.edition, operator.text, "policies.yaml", "sample-1", levels))
        await store.stop()

    asyncio.run(begin())
    assert "Note" not in shell.text("policy", "explain", "acc-1")
    path = tmp_path / "policies.yaml"
    path.write_text(path.read_text() + "\n")
    assert "Note: the servers have rules " in shell.text("policy", "explain", "acc-1")


def test_what_cannot_be_explained_is_told(shell: Shell) -> None:
    shell.text("account", "create", "acc-2", "--balance", "1.50")
    assert "there is no account acc-9" in shell.refused(1, "policy", "explain", "acc-9")
    assert "did you mean 'internet'?" in shell.refused(2, "policy", "explain", "acc-1", "internets")
    assert "pays for no subscriber; say for which plan" in shell.refused(1, "policy", "explain", "acc-2")
    assert "did you mean 'small'?" in shell.refused(2, "policy", "explain", "acc-2", "--plan", "smal")
    assert {each["plan"] for each in shell.json("policy", "explain", "acc-2", "--plan", "small")["services"]} == {
        "small"
    }


def test_the_operators_cases_are_run(shell: Shell, tmp_path: Path) -> None:
    shipped = str(CONFIG / "policy-cases.yaml")
    assert "14 cases, none failed." in shell.text("policy", "test", shipped)
    assert all(not case["mismatches"] for case in shell.json("policy", "test", shipped))
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "policies.yaml").read_text().replace("throttle: slow, notify", "notify"))
    result = shell.run("policy", "test", shipped, "--rules", str(other))
    assert result.exit_code == 1
    assert "throttle should be slow, but is none" in result.stdout
    assert "14 cases, 1 failed." in result.stdout


def test_a_reload_needs_a_server(shell: Shell) -> None:
    result = shell.run("policy", "reload")
    assert result.exit_code == 1
    assert result.stderr == "occ: no running server answered; one that starts now reads the rules as they are\n"
