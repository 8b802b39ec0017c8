"""Commands on contacts and notices, against a real store; a delivery within the test plays the server's process."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from balance.embedded import Address
from balance.store import Store, StoreSettings
from occ.clock import now_ms
from tests.occ.notice_lab import lab, settings
from tests.peers.http_peer import HttpPeer
from tests.shell import Shell

PARTITIONS = 64
CATALOGUE = """
version: test
currency: EUR
time_zone: Europe/Berlin
services: {sms: {context: 32274@3gpp.org, rating_groups: any, unit: events, quota: 1 event, validity: 5 min}}
plans: {standard: {sms: 0.05 per 1 event}}
"""


@pytest.fixture
def shell(tmp_path: Path, clean_redis: Address) -> Shell:
    shell = Shell(tmp_path, clean_redis, CATALOGUE)
    shell.text("account", "create", "acc-1", "--balance", "5.00")
    shell.text("subscriber", "add", "ann", "--account", "acc-1", "--plan", "standard", "--msisdn", "+491700000001")
    return shell


# -- contacts ----------------------------------------------------------------------------------------------------------


def test_a_contact_by_default(shell: Shell) -> None:
    found = shell.json("subscriber", "contact", "show", "491700000001")
    assert found["set"]["channels"] == []
    assert found["used"] == {
        "language": "en",
        "channels": [{"medium": "sms", "address": "491700000001"}],
        "consent": {"account-state": True, "billing": True, "marketing": False},
        "quiet_hours": "21:00-08:00",
        "time_zone": "Europe/Berlin",
    }


def test_a_contact_is_set_bit_by_bit(shell: Shell) -> None:
    channels = ("--channel", "email:ann@example.net", "--channel", "sms:+491700000002")
    shell.text("subscriber", "contact", "set", "ann", "--language", "de", *channels)
    shell.text("subscriber", "contact", "set", "ann", "--consent", "marketing=yes", "--quiet-hours", "none")
    found = shell.json("subscriber", "contact", "set", "ann", "--time-zone", "Asia/Omsk", "--consent", "billing=no")
    assert found["set"] == {
        "language": "de",
        "channels": [{"medium": "email", "address": "ann@example.net"}, {"medium": "sms", "address": "491700000002"}],
        "consent": {"account-state": True, "billing": False, "marketing": True},
        "quiet_hours": "none",
        "time_zone": "Asia/Omsk",
    }
    shown = shell.text("subscriber", "contact", "show", "ann")
    assert "1. email ann@example.net" in shown
    assert "2. sms +491700000002" in shown
    shell.text("subscriber", "contact", "set", "ann", "--language", "default", "--channel", "default")
    found = shell.json("subscriber", "contact", "show", "ann")
    assert (found["set"]["language"], found["set"]["channels"], found["set"]["time_zone"]) == (None, [], "Asia/Omsk")
    assert shell.json("subscriber", "contact", "set", "ann", "--reset")["set"]["time_zone"] is None


def test_an_account_has_a_contact_too(shell: Shell) -> None:
    assert shell.json("account", "contact", "show", "acc-1")["used"]["channels"][0]["address"] == "491700000001"
    shell.text("account", "contact", "set", "acc-1", "--channel", "webhook:https://example.net/hook")
    found = shell.json("account", "contact", "show", "acc-1")["used"]["channels"]
    assert found == [{"medium": "webhook", "address": "https://example.net/hook"}]


@pytest.mark.parametrize(
    ("code", "arguments", "reason"),
    [
        (2, ["ann"], "say what is to be set"),
        (2, ["ann", "--language", "fr"], "there are no texts in 'fr'"),
        (1, ["ann", "--channel", "fax:49"], "'fax' is no medium; there are sms, email, telegram, webhook"),
        (1, ["ann", "--channel", "sms:0170"], "it must be an E.164 number"),
        (1, ["ann", "--consent", "marketing"], "is no consent"),
        (1, ["ann", "--quiet-hours", "21-8"], "no quiet hours such as 21:00-08:00"),
        (1, ["ann", "--time-zone", "Mars"], "is no time zone"),
        (1, ["nobody", "--language", "de"], "there is no subscriber nobody"),
    ],
)
def test_what_cannot_be_set(shell: Shell, code: int, arguments: list[str], reason: str) -> None:
    assert reason in shell.refused(code, "subscriber", "contact", "set", *arguments)


# -- notices -----------------------------------------------------------------------------------------------------------


def test_texts_and_channels_are_checked(shell: Shell, tmp_path: Path) -> None:
    assert "9 notices in en, es, de, ru; channels: log." in shell.text("notice", "check")
    assert shell.json("notice", "check")["templates"]["restored"] == {"balance": {"kind": "money", "optional": False}}
    config = shell.config.read_text()
    shell.config.write_text(f"{config}notices: {{telegram: {{enabled: yes, token_file: nowhere}}}}\n")
    assert "notices.telegram" in shell.refused(2, "notice", "check")
    shell.config.write_text(f"{config}notices: {{templates: {tmp_path}}}\n")
    assert "templates.yaml: cannot be read" in shell.refused(2, "notice", "check")


@pytest.mark.parametrize(
    ("code", "arguments", "reason"),
    [
        (2, ["acc-1", "low-balnce"], "did you mean 'low-balance'?"),
        (2, ["acc-1", "low-balance"], "low-balance needs balance: add --value balance=..."),
        (2, ["acc-1", "low-balance", "--value", "blance=1"], "did you mean 'balance'?"),
        (2, ["acc-1", "low-balance", "--value", "balance=1,00"], "not an amount of money"),
        (2, ["acc-1", "throttled", "--value", "rate=fast"], "whole number"),
        (2, ["acc-1", "restored", "--value", "balance=1", "--class", "spam"], "is none of account-state, billing"),
        (1, ["acc-9", "restored", "--value", "balance=1"], "there is no account acc-9"),
    ],
)
def test_what_cannot_be_sent(shell: Shell, code: int, arguments: list[str], reason: str) -> None:
    assert reason in shell.refused(code, "notice", "send", *arguments)


async def deliver(address: Address, tmp_path: Path, answers: list[int], *names: str, state: str) -> list[str]:
    """Play the server's process until these notices come to a state; the texts that were sent."""
    store = Store(StoreSettings(address, PARTITIONS))
    await store.start()
    with HttpPeer(lambda request: (answers.pop(0) if answers else 200, {}, b"{}")) as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url), now_ms()) as found:
            for name in names:
                await found.comes_to(name, state)
    await store.stop()
    return [request.json["text"] for request in gateway.requests]


async def test_a_notice_by_hand_dies_and_is_revived(
    shell: Shell, clean_redis: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    async def run(*words: str) -> str:
        return await asyncio.to_thread(shell.text, *words)

    async def ask(*words: str) -> Any:
        return await asyncio.to_thread(shell.json, *words)

    await run("notice", "send", "acc-1", "low-balance", "--value", "balance=-3.20", "--name", "n1")
    await run("notice", "send", "acc-1", "restored", "--value", "balance=1", "--subscriber", "ann", "--name", "n2")
    texts = await deliver(clean_redis, tmp_path, [400, 400], "n1", "n2", state="dead")
    assert len(texts) == 2
    assert sorted(each["notice"] for each in await ask("notice", "dead")) == ["n1", "n2"]
    shown = await run("notice", "show", "n1")
    assert "low-balance (account-state) for account acc-1, dead" in shown
    assert "to 4917****0001: answered 400" in shown
    assert "491700000001" not in shown
    assert await ask("notice", "retry", "n1") == ["n1"]
    assert "is waiting, not dead" in await asyncio.to_thread(shell.refused, 1, "notice", "retry", "n1")
    assert "1 notices are tried anew" in await run("notice", "retry", "--all")
    texts = await deliver(clean_redis, tmp_path, [], "n1", "n2", state="sent")
    assert any("your balance is -€3.20" in text for text in texts)
    listed = await ask("notice", "list", "--state", "finished")
    assert {each["notice"]: (each["state"], each["channel"]) for each in listed} == {
        "n1": ("sent", "sms_http"), "n2": ("sent", "sms_http"),
    }  # fmt: skip
    assert [event["result"] for event in (await ask("notice", "show", "n2"))["events"]][-2:] == ["retry", "sent"]
    assert "2 of 2 notices." in await run("notice", "list")


def test_notices_that_are_not_there(shell: Shell) -> None:
    assert "0 of 0 notices." in shell.text("notice", "list")
    assert "there is no notice n1" in shell.refused(1, "notice", "show", "n1")
    assert "there is no notice n1" in shell.refused(1, "notice", "retry", "n1")
    assert "say --all" in shell.refused(2, "notice", "retry")
    assert "is none of waiting, held, dead, finished" in shell.refused(2, "notice", "list", "--state", "lost")
    assert shell.json("notice", "retry", "--all") == []
