"""The process that delivers notices: it is killed, it has secrets, it is told to end; and the server that starts it."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from balance import notices
from balance.contacts import Contact, change_contact
from balance.directory import adjust_account, set_credit_limit
from balance.embedded import Address
from balance.model import IdentityType
from balance.notices import Notice
from balance.store import Store
from occ.notices.process import NoticesProcess, check
from occ.notices.settings import NoticesSettings, SmppSettings, TelegramSettings, WebhookSettings, as_job, from_job
from occ.server import OnlineChargingServer
from occ.settings import SHIPPED
from occ.yamlmap import ConfigError
from tests.live_server import LiveServer
from tests.occ.notice_lab import NUMBER, PARTITIONS, notice, open_store, settings
from tests.peers.http_peer import OK, Answer, HttpPeer, Request
from tests.peers.smsc import PASSWORD, Smsc, needs_net_smpp

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = await open_store(clean_redis)
    yield store
    await store.stop()


def now(name: str) -> Notice:
    """A notice of something that has just happened."""
    return replace(notice(name), at_ms=time.time_ns() // 1_000_000)


async def states(store: Store, names: list[str]) -> Counter[str]:
    found = [await notices.read(store, name.encode()) for name in names]
    return Counter("unknown" if known is None else known.delivery.state for known in found)


async def eventually(store: Store, names: list[str], state: str) -> None:
    """All of these notices come to a state."""
    found = Counter[str]()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while found != Counter({state: len(names)}):
                await asyncio.sleep(0.02)
                found = await states(store, names)
    except TimeoutError:
        raise AssertionError(f"not all are {state}: {found}") from None


async def test_killed_at_any_instant_it_loses_no_notice(store: Store, tmp_path: Path) -> None:
    """Killed five times while it works; what comes twice was under way when it was killed."""
    names = [f"n{number}" for number in range(150)]
    began, lock = threading.Semaphore(0), threading.Lock()
    paths: Counter[str] = Counter()

    def answer(request: Request) -> Answer:
        with lock:
            paths[request.path] += 1
        began.release()
        time.sleep(0.02)
        return OK

    chance = random.Random(7)
    kills, in_flight = 5, 4
    with HttpPeer(answer) as gateway:
        made = settings(tmp_path, sms_http=f"{gateway.url}/{{{{ id }}}}")
        made = replace(made, sms_http=replace(made.sms_http, in_flight=in_flight, per_second=200, timeout_seconds=2))
        process = NoticesProcess(store.settings.address, PARTITIONS, made, "error", lease_margin_s=0.2)
        process.RESTART_S = 0.01  # type: ignore[misc]
        await process.start()
        for number in range(kills):
            await notices.enqueue(store, [now(name) for name in names[number * 30 : number * 30 + 30]])
            for _ in range(chance.randrange(1, 12)):
                assert await asyncio.to_thread(began.acquire, timeout=PATIENCE_S)
            await asyncio.sleep(chance.random() * 0.02)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                while process.restarts <= number:  # noqa: ASYNC110 - the supervisor sees it in its own time
                    await asyncio.sleep(0.01)
        await eventually(store, names, "sent")
        await process.stop()
    assert set(paths) == {f"/{name}" for name in names}
    assert sum(paths.values()) <= len(names) + kills * in_flight
    figures = await notices.figures(store)
    assert figures.counts["sms_http", "sent"] == len(names)
    assert figures.lists["waiting"] == 0


async def test_it_ends_when_it_is_told_and_finishes_what_is_under_way(store: Store, tmp_path: Path) -> None:
    asked = threading.Event()

    def answer(request: Request) -> Answer:
        asked.set()
        time.sleep(0.3)
        return OK

    with HttpPeer(answer) as gateway:
        process = NoticesProcess(store.settings.address, PARTITIONS, settings(tmp_path, sms_http=gateway.url), "error")
        await process.start()
        await notices.enqueue(store, [now("n1")])
        assert await asyncio.to_thread(asked.wait, PATIENCE_S)
        await process.stop()
        assert process.restarts == 0
        assert await states(store, ["n1"]) == Counter({"sent": 1})
        assert len(gateway.requests) == 1


async def test_no_secret_is_in_its_log_or_its_arguments(store: Store, tmp_path: Path) -> None:
    """Neither when all goes well nor when nobody is there; not even at the level of debugging."""
    token, secret, password = "123456:ABC-bot", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=", "pa55w0rd"
    for name, value in (("token", token), ("secret", secret), ("password", password)):
        (tmp_path / name).write_text(value)
    with HttpPeer(lambda request: (200, {}, b'{"ok": true}')) as peer:
        made = NoticesSettings(
            templates=SHIPPED / "templates",
            telegram=TelegramSettings(enabled=True, base_url=peer.url, token_file=tmp_path / "token"),
            webhook=WebhookSettings(enabled=True, secret_file=tmp_path / "secret", allow_http=True),
            smpp=SmppSettings(enabled=True, port=1, password_file=tmp_path / "password"),
        )
        job = {"store": store.settings.address.as_job(), "partitions": PARTITIONS, "settings": as_job(made),
               "log_level": "debug", "lease_margin_s": 1.0}  # fmt: skip
        await notices.enqueue(store, [now("n1"), now("n2"), now("n3")])
        addresses = (("telegram", "42"), ("webhook", f"{peer.url}/hook"), ("sms", NUMBER))
        await change_contact(store, store.keys.contact(b"sub-1"), lambda _: Contact(channels=addresses))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "occ.notices.process", json.dumps(job),
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SHIPPED.parent)},
        )  # fmt: skip
        await eventually(store, ["n1", "n2", "n3"], "sent")
        _, log = await process.communicate(b"")
    assert process.returncode == 0
    assert b"message centre" in log  # that nobody is there is told
    for hidden in (token, secret, password, NUMBER):
        assert hidden.encode() not in log
        assert hidden not in json.dumps(job)


def test_settings_reach_the_process_as_they_are(tmp_path: Path) -> None:
    made = settings(tmp_path, sms_http="http://127.0.0.1:1", telegram="http://127.0.0.1:1", webhook="x")
    assert from_job(NoticesSettings, json.loads(json.dumps(as_job(made)))) == made


@pytest.mark.parametrize(
    ("smpp", "reason"),
    [
        (SmppSettings(enabled=True, password_env="NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE holds no secret"),
        (SmppSettings(enabled=True, password_file=Path("/no/such/file")), "/no/such/file: no such file"),
    ],
)
def test_secrets_that_are_not_there_are_told_at_start(smpp: SmppSettings, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check(NoticesSettings(templates=SHIPPED / "templates", smpp=smpp))


# -- the server --------------------------------------------------------------------------------------------------------


async def test_a_server_that_lacks_a_secret_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "occ.yaml"
    config.write_text(
        f"catalogue: {SHIPPED / 'catalogue.yaml'}\nnotices: {{telegram: {{enabled: yes, token_file: token}}}}\n"
    )
    server = LiveServer(tmp_path, {"notices.enabled": "yes"}, config=config)
    with pytest.raises(ConfigError, match=r"notices\.telegram.*no such file"):
        await OnlineChargingServer(server.settings).start()


@needs_net_smpp()
async def test_a_server_tells_its_customers_by_sms_and_how_that_went(tmp_path: Path) -> None:
    """From a notice handed in to the delivery receipt, and the metrics of it."""
    (tmp_path / "password").write_text(PASSWORD)
    async with Smsc() as smsc:
        config = tmp_path / "occ.yaml"
        config.write_text(
            f"catalogue: {SHIPPED / 'catalogue.yaml'}\n"
            f"notices: {{smpp: {{enabled: yes, port: {smsc.port}, password_file: password, source: '+4930'}}}}\n"
        )
        server = LiveServer(tmp_path, {"notices.enabled": "yes"}, config=config)
        await asyncio.to_thread(server.start)
        try:
            await asyncio.to_thread(server.add_account, "ann", [(IdentityType.E164, NUMBER)])
            made = Notice(
                b"n1", b"ann", b"", "account-state", "balance-zero", {"balance": 0, "currency": "EUR"}, server.now_ms()
            )
            store = server.server.store
            server.run(notices.enqueue(store, [made]))
            for _ in range(int(PATIENCE_S / 0.05)):
                known = server.run(notices.read(store, b"n1"))
                if known is not None and known.delivery.state == "delivered":
                    break
                await asyncio.sleep(0.05)
            metrics = await asyncio.to_thread(_metrics, server)
        finally:
            await asyncio.to_thread(server.stop)
        (submitted,) = smsc.submitted
    assert submitted["destination_addr"] == NUMBER
    assert (submitted["source_addr"], submitted["source_addr_ton"]) == ("4930", 1)
    assert bytes.fromhex(submitted["short_message"]).startswith(b"OCC: your balance is \x1be0.00. Some services")
    assert metrics["occ_notices_total", "smpp", "sent"] == 1
    assert metrics["occ_notices_total", "smpp", "delivered"] == 1
    assert metrics["occ_notices_open", "waiting"] == 0
    assert metrics["occ_notices_oldest_seconds",] == 0


async def test_a_rule_that_begins_to_hold_tells_the_customer_once(tmp_path: Path) -> None:
    """The sample's rules: low, then below zero (slowed down, at which speed), then topped up."""
    with HttpPeer() as gateway:
        config = tmp_path / "occ.yaml"
        config.write_text(
            f"catalogue: {SHIPPED / 'catalogue.yaml'}\npolicies: {SHIPPED / 'policies.yaml'}\n"
            f"notices: {{sms_http: {{enabled: yes, url: '{gateway.url}'}}}}\n"
        )
        server = LiveServer(tmp_path, {"notices.enabled": "yes"}, config=config)
        await asyncio.to_thread(server.start)
        try:
            await asyncio.to_thread(_play, server, gateway)
        finally:
            await asyncio.to_thread(server.stop)
    texts = [request.json["text"] for request in gateway.requests]
    assert texts[0] == "OCC: your balance is €1.00. Please top up soon, so that all services stay available to you."
    assert "OCC: your Internet access is slowed down to 128 kbit/s, as your balance is -€1.00." in texts[2] + texts[1]
    assert texts[3].startswith("OCC: all your services are available again. Your balance is €10.00.")
    assert len(texts) == 4


def _play(server: LiveServer, gateway: HttpPeer) -> None:
    server.add_account("ann", [(IdentityType.E164, NUMBER)], balance_micro=5_000_000)
    store = server.server.store

    def adjust(micro: int) -> None:
        server.run(adjust_account(store, b"ann", micro, now_ms=server.now_ms(), reason="test"))

    def told(count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(gateway.requests) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(gateway.requests) == count

    adjust(-4_000_000)
    told(1)
    server.run(set_credit_limit(store, b"ann", 5_000_000, now_ms=server.now_ms(), reason="test"))
    adjust(-2_000_000)
    told(3)
    adjust(11_000_000)
    told(4)


def test_a_rule_with_a_text_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With file, line and what was meant."""
    rules = tmp_path / "policies.yaml"
    rules.write_text(
        "levels:\n  low: {when: balance below 2.00}\nrules:\n  - {rule: a, when: low, notify: low-balnce}\n"
    )
    server = LiveServer(tmp_path, {"notices.enabled": "yes", "policies": str(rules)})
    with pytest.raises(
        ConfigError, match=r"policies\.yaml:4: there is no template 'low-balnce'; did you mean 'low-balance'"
    ):
        server.start()


def _metrics(server: LiveServer) -> dict[tuple[str, ...], float]:
    url = f"http://127.0.0.1:{server.server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "notices" in sample.name
    }
