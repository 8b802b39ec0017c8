"""Policy nodes are told over Sy what changes under rules, and what the clock will bring: the real server."""

import asyncio
import re
from pathlib import Path

import pytest

from balance import notices
from balance.directory import NewBucket, create_account
from balance.model import AccountKind, IdentityType, Subscriber, Unit
from balance.subscribers import add_subscriber
from simulators.policy_node import PolicyNode, PolicyNodeOptions
from tests.live_server import LiveServer
from tests.occ.policy_live_lab import EURO, adjust, scraped, settled
from tests.reauthorisation_lab import Lab, eventually

# -- all that is told of one change ----------------------------------------------------------------------------------


async def test_one_change_is_told_to_gateway_policy_node_and_customer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the shipped rules: RAR, SNR (TS 29.219 clause 4.5.2) and a text, of a fall below zero and back."""
    with LiveServer(tmp_path, {"notices.enabled": "yes"}) as server:
        lab = Lab(server, caplog)
        gateway = await lab.client()
        await lab.session_of(gateway)
        options = PolicyNodeOptions(port=server.port, origin_host="pcrf.policy.example.net")
        node = PolicyNode(options)
        await node.connect()
        try:
            await node.subscribe(lab.subscriber)
            (session,) = node.sessions.values()
            assert session.status("MAIN_BALANCE") == "low"
            server.overdraw(lab.name, EURO)
            adjust(lab, -2 * EURO + EURO // 2)
            await eventually(lambda: session.status("MAIN_BALANCE") == "throttled")
            await eventually(lambda: len(gateway.asked) == 1)
            adjust(lab, 9 * EURO)
            await eventually(lambda: session.status("MAIN_BALANCE") == "active")
            await settled(server)
            store = server.server.store

            def texts() -> set[str]:
                known = [each for name in notices.LISTS for each in server.run(notices.listed(store, name, 100))]
                return {each.notice.template for each in known if each.notice.account_id == lab.name.encode()}

            await eventually(lambda: {"throttled", "barred", "restored"} <= texts())
            told = re.compile(r'occ_sy_notifications_total\{result="told"\} [1-9]')
            metrics = await asyncio.to_thread(scraped, server.server.metrics_port)
            assert told.search(metrics)
            assert "occ_sy_subscriptions 1.0" in metrics
        finally:
            await node.close()
            for client in lab.clients:
                await client.close()


# -- what the clock brings, over Sy ----------------------------------------------------------------------------------


async def test_a_policy_node_that_was_told_what_the_clock_will_bring_is_not_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TS 29.219 clause 5.3.3: a pending status takes effect by itself; one that then is another one is told."""
    path = tmp_path / "policies.yaml"
    path.write_text(SY_RULES)
    with LiveServer(tmp_path / "server", {"policies": str(path)}) as server:
        lab = Lab(server, caplog)
        gateway = await lab.client()
        node = PolicyNode(PolicyNodeOptions(port=server.port, origin_host="pcrf.policy.example.net"))
        await node.connect()
        try:
            await lab.session_of(gateway)
            await node.subscribe(lab.subscriber)
            (session,) = node.sessions.values()
            assert not session.counters["FAIR_USE"].pending
            await gateway.update(lab.session, used_mib=25)
            await eventually(lambda: session.status("FAIR_USE") == "slow")
            (meter,) = lab.account().meters
            assert session.counters["FAIR_USE"].pending == (("full", meter.resets_ms // 1000),)
            server.pass_time(meter.resets_ms - server.now_ms() + 1000)
            await eventually(lambda: "heavy" not in lab.account().levels)
            await settled(server)
            assert len(node.notified) == 1, "it knew of midnight"
            await gateway.begin(lab.session + ";2", lab.subscriber)
            await gateway.update(lab.session + ";2", used_mib=25)
            await eventually(lambda: len(node.notified) == 2)
            assert session.status("FAIR_USE") == "slow"
            assert session.counters["FAIR_USE"].pending == (("full", meter.resets_ms // 1000 + 86_400),)
        finally:
            await node.close()
            await gateway.close()


SY_RULES = """
levels:
  heavy: {when: counter internet per day at least 20 MiB}
  low: {when: balance below 2.00}
rules: []
counters:
  FAIR_USE: {slow: heavy, otherwise: full}
  MONEY: {low: low, otherwise: active}
"""


async def test_a_policy_node_is_told_when_what_was_pending_does_not_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was told that money would lapse and be low then; there was a top-up in between."""
    path = tmp_path / "policies.yaml"
    path.write_text(SY_RULES)
    with LiveServer(tmp_path / "server", {"policies": str(path)}) as server:
        store, now_ms = server.server.store, server.now_ms()
        bucket = NewBucket(Unit.MONEY, 4 * EURO, expires_ms=now_ms + 60_000)
        made = create_account(
            store, b"acc", AccountKind.PREPAID, 978, now_ms=now_ms, reason="t", balance_micro=EURO, buckets=[bucket]
        )
        server.run(made)
        line = ((int(IdentityType.E164), b"491600"),)
        server.run(add_subscriber(store, Subscriber(b"sub", b"acc", "standard", line)))
        node = PolicyNode(PolicyNodeOptions(port=server.port, origin_host="pcrf.policy.example.net"))
        await node.connect()
        try:
            await node.subscribe("491600")
            (session,) = node.sessions.values()
            assert session.status("MONEY") == "active"
            assert [status for status, _ in session.counters["MONEY"].pending] == ["low"]
            await asyncio.sleep(1)  # the look at all accounts at the start is over, and is not what tells it
            server.top_up("acc", 9 * EURO)
            server.pass_time(61_001)
            await eventually(lambda: len(node.notified) > 0)
            assert (session.status("MONEY"), session.counters["MONEY"].pending) == ("active", ())
        finally:
            await node.close()
