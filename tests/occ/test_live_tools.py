"""``occ why``, ``occ sessions watch``, ``occ trace``, ``occ top`` and ``occ doctor`` beside a running server."""

import asyncio
import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from balance.model import IdentityType
from occ.cli import app
from occ.cli_watch import Watched
from occ.doctor import Grade
from protocols.diameter.node import Node
from tests.asked_client import REALM, AskedClient
from tests.live_server import PATIENCE_S, LiveServer

CONFIG = Path(__file__).parents[2] / "config"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("live")
    with LiveServer(directory) as running:
        for file in ("catalogue.yaml", "policies.yaml"):
            shutil.copy(CONFIG / file, directory)
        shutil.copytree(CONFIG / "destinations", directory / "destinations")
        (directory / "occ.yaml").write_text(
            f"diameter: {{port: {running.port}}}\nmetrics: {{port: {running.server.metrics_port}}}\n"
            f"store: {{data_dir: data}}\n"
        )
        yield running


class Desk:
    """A person at the command line, and a client with one session of a subscriber."""

    def __init__(self, server: LiveServer, client: AskedClient, number: int) -> None:
        self.server = server
        self.client = client
        self.account = f"acc-{number}"
        self.msisdn = f"4917{number:06}"
        self.session = f"{client.identity};1;{number}"
        server.add_account(self.account, [(IdentityType.E164, self.msisdn)], balance_micro=1_000_000)

    def begin(self, *arguments: str) -> "asyncio.Task[Result]":
        config = str(self.server.directory / "occ.yaml")
        return asyncio.create_task(asyncio.to_thread(CliRunner().invoke, app, ["--config", config, *arguments]))

    async def run(self, *arguments: str, code: int = 0) -> str:
        return text_of(await self.begin(*arguments), code)

    async def use(self) -> None:
        """A whole session with one report."""
        await self.client.begin(self.session, self.msisdn)
        await self.client.update(self.session, 3)
        await self.client.end(self.session)


def text_of(result: Result, code: int = 0) -> str:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


@pytest.fixture
async def desk(server: LiveServer) -> AsyncIterator[Desk]:
    number = next(_numbers)
    client = await AskedClient(f"smf{number}.{REALM}").connect(server.port)
    yield Desk(server, client, number)
    await client.close()
    server.assert_books_balance()


# -- why -------------------------------------------------------------------------------------------------------------


async def test_why_an_open_session_costs_what_it_does_so_far(desk: Desk) -> None:
    await desk.client.begin(desk.session, desk.msisdn)
    await desk.client.update(desk.session, 3)
    told = await desk.run("why", desk.session)
    assert f"subscriber {desk.account}, paid by account {desk.account}" in told
    assert "3 MiB used, 0.03 EUR debited (so far, in no record yet)" in told
    assert "3 × 1 MiB at 0.01" in told
    assert "0.03 EUR from bucket 1" in told
    assert f"UPDATE 1 of {desk.session}" in told
    document = json.loads(await desk.run("why", desk.session, "--json"))
    assert [entry["operation"] for entry in document["journal"]] == ["reserve", "charge"]
    await desk.client.end(desk.session)


async def test_why_a_record_costs_what_it_does(desk: Desk) -> None:
    await desk.use()
    desk.server.assert_books_balance()  # the records are in their files then
    told = await desk.run("why", desk.session)
    assert "record 1, normal" in told
    assert f"TERMINATION 2 of {desk.session}" in told
    (record,) = json.loads(await desk.run("why", desk.session, "--json"))["records"]
    assert record["debited_micro"] == 40_000
    alone = json.loads(await desk.run("why", record["record_id"], "--json"))
    assert alone["records"] == [record]
    assert [entry["version"] for entry in alone["journal"]] == [record["account_version"]]


async def test_why_names_the_policy_rule_that_had_a_say(desk: Desk) -> None:
    """Below zero the shipped rules slow data down; the record of what was used then says by which rule."""
    name, msisdn, session = f"{desk.account}-poor", f"{desk.msisdn}7", f"{desk.session};poor"
    desk.server.add_account(name, [(IdentityType.E164, msisdn)], balance_micro=20_000, overdraft_micro=1_000_000)
    await desk.client.begin(session, msisdn)
    await desk.client.update(session, 5)
    await desk.client.end(session, 1)
    desk.server.assert_books_balance()
    told = " ".join((await desk.run("why", session)).split())
    assert "policy slow-below-zero" in told


async def test_why_something_unknown(desk: Desk) -> None:
    told = await desk.run("why", "nothing;1", code=1)
    assert told == "occ: there is neither an open session nor a charging data record named nothing;1\n"


# -- sessions watch --------------------------------------------------------------------------------------------------


async def test_changes_are_shown_as_they_come(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    begin = Watched.begin

    async def noticed(self: Watched) -> None:
        await begin(self)
        begun.set()

    monkeypatch.setattr(Watched, "begin", noticed)
    watching = desk.begin("sessions", "watch", f"+{desk.msisdn}", "--count", "4", "--for", "20", "--json")
    await until(begun.is_set)
    await desk.use()
    desk.server.top_up(desk.account, 5_000_000)
    changes = [json.loads(line) for line in text_of(await watching).splitlines()]
    assert [change["operation"] for change in changes] == ["reserve", "charge", "terminate", "top-up"]
    assert changes[-1]["changes"][0]["balance_after"] == 5_960_000


async def test_a_person_sees_where_the_account_stands_first(desk: Desk) -> None:
    await desk.client.begin(desk.session, desk.msisdn)
    told = await desk.run("sessions", "watch", desk.msisdn, "--for", "0.3")
    assert f"Account {desk.account}: balance 1.00 EUR, reserved 0.10 EUR." in told
    assert f"session {desk.session}: internet (10): used 0 B, granted 10 MiB, debited 0.00 EUR" in told
    assert told.endswith("0 changes seen.\n")
    await desk.client.end(desk.session)


async def test_watching_nobody(desk: Desk) -> None:
    assert "there is no subscriber 99" in await desk.run("sessions", "watch", "99", code=1)


# -- trace -----------------------------------------------------------------------------------------------------------


async def traced(desk: Desk, *arguments: str) -> "asyncio.Task[Result]":
    """A trace that has begun."""
    tracing = desk.begin("trace", *arguments)
    await until(lambda: bool(desk.server.server.tracing._running))
    return tracing


async def test_the_messages_of_one_subscriber(desk: Desk) -> None:
    """Those of another one, whose number begins alike, are left out."""
    other = Desk(desk.server, desk.client, next(_numbers))
    desk.server.add_account(f"{desk.account}-long", [(IdentityType.E164, f"{desk.msisdn}9")], balance_micro=1_000_000)
    tracing = await traced(desk, desk.msisdn, "--count", "6", "--for", "20", "--json")
    await other.use()
    await desk.client.begin(f"{desk.session};long", f"{desk.msisdn}9")
    await desk.use()
    messages = [json.loads(line) for line in text_of(await tracing).splitlines()]
    assert [message["command"]["name"] for message in messages] == [
        "Credit-Control-Request",
        "Credit-Control-Answer",
    ] * 3
    assert {message["avps"][0]["value"] for message in messages} == {desk.session}
    assert {message["peer"] for message in messages} == {desk.client.identity}
    assert [message["answers"]["message"] for message in messages[1::2]] == [1, 3, 5]
    await desk.client.end(f"{desk.session};long")


async def test_later_requests_need_not_name_the_subscriber(desk: Desk) -> None:
    await desk.client.begin(desk.session, desk.msisdn)
    tracing = await traced(desk, desk.msisdn, "--count", "2", "--for", "20")
    await desk.client.end(desk.session)
    told = text_of(await tracing)
    assert "CC-Request-Type (416) M: TERMINATION_REQUEST (3)" in told
    assert f"{desk.server.origin_host} from {desk.client.identity}" in told


async def test_all_that_passes_by_a_peer(desk: Desk) -> None:
    """Its first message too, which says who it is."""
    late = f"late.{REALM}"
    tracing = await traced(desk, late.upper(), "--count", "2", "--for", "20", "--json")
    await desk.use()
    client = await AskedClient(late).connect(desk.server.port)
    names = [json.loads(line)["command"]["name"] for line in text_of(await tracing).splitlines()]
    assert names == ["Capabilities-Exchange-Request", "Capabilities-Exchange-Answer"]
    await client.close()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
async def test_a_capture_that_wireshark_opens(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "trace.pcap"
    tracing = await traced(desk, desk.client.identity, "--pcap", str(file), "--count", "6", "--for", "20")
    await desk.use()
    assert "6 messages in" in text_of(await tracing)
    options = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "fields"]
    fields = ["-e", "diameter.cmd.code", "-e", "tcp.checksum.status", "-e", "ip.checksum.status", "-e", "_ws.malformed"]
    command = ["tshark", "-r", str(file), *options, *fields]
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["272\t1\t1\t"] * 6
    run = await asyncio.to_thread(
        subprocess.run,
        ["tshark", "-r", str(file), "-Y", "tcp.analysis.flags"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == ""
    assert len((await desk.run("decode", str(file), "--json")).splitlines()) == 6


async def test_nothing_is_tapped_when_nobody_watches(desk: Desk) -> None:
    def taps(node: Node) -> set[Any]:
        return {link.tap for link in node._connections}

    node = desk.server.server.node
    assert taps(node) == {None}
    tracing = await traced(desk, desk.msisdn, "--for", "1")
    assert None not in taps(node)
    assert text_of(await tracing) == ""
    await until(lambda: not desk.server.server.tracing._running)
    assert taps(node) == {None}
    keys = desk.server.run(desk.server.server.store.call("KEYS", "occ:trace*"))
    assert keys == []


async def test_a_watcher_that_is_gone_ends_the_trace(desk: Desk) -> None:
    tracing = await traced(desk, desk.msisdn, "--for", "60", "--count", "1")
    await desk.client.begin(desk.session, desk.msisdn)  # request and answer; the watcher wants one message
    text_of(await tracing)
    await until(lambda: not desk.server.server.tracing._running)
    await desk.client.end(desk.session)


async def test_a_trace_of_nobody(desk: Desk) -> None:
    assert "there is no subscriber 99" in await desk.run("trace", "99", code=1)
    both = await desk.run("trace", desk.msisdn, "--pcap", "x", "--json", code=2)
    assert both == "occ: give either --pcap or --json\n"


# -- top -------------------------------------------------------------------------------------------------------------


async def test_one_frame(desk: Desk) -> None:
    working = desk.begin("top", "--once", "--every", "2")
    await asyncio.sleep(1.0)
    await desk.use()
    told = text_of(await working)
    for part in ("Traffic", "Latency", "Refusals", "Peers", desk.client.identity, "Latest in the ledger", "terminate"):
        assert part in told
    document = json.loads(await desk.run("top", "--json", "--every", "0.2"))
    assert document["peers_up"] >= 1
    assert document["not_seen"] == []


async def test_no_server_to_watch(desk: Desk) -> None:
    told = await desk.run("top", "--once", "--at", "127.0.0.1:1", code=1)
    assert told.startswith("occ: no server answers at http://127.0.0.1:1/metrics")


# -- doctor ----------------------------------------------------------------------------------------------------------


def grades(told: str) -> dict[str, str]:
    return {finding["check"]: finding["grade"] for finding in json.loads(told)}


async def test_a_set_up_that_is_well(desk: Desk) -> None:
    found = grades(await desk.run("doctor", "--json"))
    for check in ("python", "uvloop", "catalogue", "policies", "redis", "redis durability", "Diameter port", "peers"):
        assert found[check] == Grade.GOOD.value, (check, found)


async def test_what_is_bad_is_told_with_what_to_mend(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "catalogue.yaml").write_text("version: 1\n")
    (tmp_path / "occ.yaml").write_text(
        f"diameter: {{port: {desk.server.port}}}\nmetrics: {{port: 1}}\n"
        "store: {mode: external, url: 'redis://127.0.0.1:1', data_dir: data}\n"
    )
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["--config", str(tmp_path / "occ.yaml"), "doctor", "--json"]
    )
    assert result.exit_code == 1
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)}
    for check in ("catalogue", "redis", "Diameter port"):
        assert findings[check]["grade"] == Grade.BAD.value
        assert findings[check]["mend"]
    assert "catalogue.yaml" in findings["catalogue"]["found"]
