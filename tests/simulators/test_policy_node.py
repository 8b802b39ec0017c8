"""The policy node against a real server, by itself and as ``occ simulate policy-node``."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import time

import pytest

from policies.counters import CounterStatus
from protocols.spending_limits import CounterReport
from simulators.client import SimulationError
from simulators.policy_node import PolicyNodeOptions, follow
from tests.live_server import LiveServer
from tests.sy_lab import Lab, eventually

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("policy-node"), {"policies": "none"}) as running:
        yield running


@pytest.fixture
async def lab(server: LiveServer) -> AsyncIterator[Lab]:
    lab = Lab(server)
    yield lab
    await lab.close()


@pytest.mark.shows("row 47")
async def test_row_47_a_pending_status_takes_effect_by_itself(lab: Lab) -> None:
    """At its time, without any message."""
    due_s = int(time()) + 2
    lab.source.others["FUP_MONTH"] = CounterStatus("throttled", (("normal", due_s * 1000),))
    node = await lab.node()
    session = await lab.subscribed(node, "FUP_MONTH")
    assert node.sessions[session].status("FUP_MONTH") == "throttled"
    await eventually(lambda: node.sessions[session].status("FUP_MONTH") == "normal")
    assert time() >= due_s
    assert node.notified == []
    assert [heard.what for heard in lab.heard] == ["subscribed", "took effect"]
    lab.source.others["FUP_MONTH"] = CounterStatus("normal")
    assert await lab.changed() == 0


async def test_a_notification_for_nobody_is_answered_5002(lab: Lab) -> None:
    node = await lab.node()
    session = await lab.subscribed(node)
    lab.server.passed_ms += 10_000
    node.sessions.clear()
    await lab.balance(0)
    await eventually(lambda: len(node.notified) == 1)
    for _ in range(200):
        if await lab.kept(session) is None:
            break
        await asyncio.sleep(0.02)
    assert await lab.kept(session) is None


async def test_it_says_why_it_cannot_follow(lab: Lab) -> None:
    def ignore(_: object) -> None:
        pass

    options = PolicyNodeOptions(port=lab.server.port, origin_host=f"refused{lab.number}.policy.example.net")
    with pytest.raises(SimulationError, match="does not know them"):
        await follow(options, ["4917111"], (), ignore, asyncio.Event())
    with pytest.raises(SimulationError, match="does not know one of the counters"):
        await follow(options, [lab.msisdn], ["NO_SUCH"], ignore, asyncio.Event())
    with pytest.raises(SimulationError, match="a charging server listens"):
        await follow(PolicyNodeOptions(port=1), [lab.msisdn], (), ignore, asyncio.Event())


async def test_a_lost_connection_is_opened_again(lab: Lab) -> None:
    """The sessions go on, and what changed meanwhile is told."""
    heard: list[tuple[str, tuple[CounterReport, ...]]] = []
    host = f"comes-back{lab.number}.policy.example.net"
    stopping = asyncio.Event()
    options = PolicyNodeOptions(port=lab.server.port, origin_host=host)
    following = asyncio.create_task(
        follow(options, [lab.msisdn], (), lambda each: heard.append((each.what, each.reports)), stopping)
    )
    await eventually(lambda: len(heard) == 1)

    async def cut() -> None:
        handle = lab.server.server.node.handle(host)
        assert handle is not None
        handle.connection.abort("test")

    await asyncio.to_thread(lab.server.run, cut())
    await lab.balance(0)
    await eventually(lambda: ("changed", (CounterReport("MAIN_BALANCE", "zero"),)) in heard)
    stopping.set()
    await following
    assert heard[-1] == ("ended", ())


@pytest.mark.parametrize("as_json", [False, True])
async def test_the_command_shows_what_it_hears(lab: Lab, as_json: bool) -> None:
    lab.source.others["FUP_MONTH"] = CounterStatus("throttled", (("normal", 4_000_000_000_000),))
    before = lab.statistics.subscriptions
    host = f"shown{lab.number}.policy.example.net"
    words = ["simulate", "policy-node", lab.msisdn, "--port", str(lab.server.port), "--origin-host", host]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "occ", *words, *(["--json"] if as_json else [])),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"},
        cwd=PROJECT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            lines = [(await process.stdout.readline()).decode() for _ in range(1 if as_json else 2)]
            await lab.balance(0)
            lines.append((await process.stdout.readline()).decode())
            process.send_signal(signal.SIGINT)
            rest = (await process.stdout.read()).decode()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    if as_json:
        first, second = map(json.loads, lines)
        pending = {"status": "normal", "from": "2096-10-02T07:06:40Z"}
        assert first["counters"][0] == {"counter": "FUP_MONTH", "status": "throttled", "pending": [pending]}
        assert (second["subscriber"], second["what"]) == (lab.msisdn, "changed")
        assert second["counters"] == [{"counter": "MAIN_BALANCE", "status": "zero", "pending": []}]
        assert json.loads(rest)["what"] == "ended"
    else:
        head = f"  {lab.msisdn}  "
        assert lines[0].endswith(f"{head}subscribed  FUP_MONTH = throttled, normal from 2096-10-02T07:06:40Z\n")
        assert lines[1].endswith(f"{head}subscribed  MAIN_BALANCE = active\n")
        assert lines[2].endswith(f"{head}changed  MAIN_BALANCE = zero\n")
        assert rest.endswith(f"{head}ended\n")
    assert lab.statistics.subscriptions == before
