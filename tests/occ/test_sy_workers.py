"""Sy with several workers on one store, agents in between, and a server that is started again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from balance.commands import ChannelSettings
from balance.subscriptions import begin_push
from occ.sy_notifications import STREAM
from policies.counters import CounterStatus
from protocols.diameter.codec import avp
from protocols.diameter.codes import Application, Command
from protocols.diameter.node import Node, NodeSettings, PeerHandle, RequestReceived
from protocols.spending_limits import SpendingStatusNotificationAnswer, decode_snr, encode_sna
from tests.live_server import LiveServer
from tests.sy_lab import MICRO, Lab, eventually, told

ZERO = [("MAIN_BALANCE", "zero")]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("first"), {"policies": "none"}) as running:
        yield running


@pytest.fixture(scope="module")
def second(first: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Another worker on the store of the first."""
    settings = {
        "diameter.origin_host": "occ2.ocs.example.net",
        "policies": "none",
        "store.mode": "external",
        "store.url": first.server.redis_address.url,
    }
    with LiveServer(tmp_path_factory.mktemp("second"), settings) as running:
        yield running


@pytest.fixture
async def lab(first: LiveServer, second: LiveServer) -> AsyncIterator[Lab]:
    lab = Lab(first)
    lab.serve(first, second)
    yield lab
    await lab.close()


@pytest.mark.shows("row 46")
async def test_row_46_the_worker_that_has_the_connection_tells(lab: Lab, second: LiveServer) -> None:
    """Whichever worker learns of the change."""
    node = await lab.node(second)
    session = await lab.subscribed(node)
    assert await lab.balance(0) == 1
    await eventually(lambda: node.sessions[session].status("MAIN_BALANCE") == "zero")
    assert node.notified[0].origin_host == b"occ2.ocs.example.net"


@pytest.mark.shows("row 46")
async def test_row_46_two_workers_that_learn_of_it_at_once_tell_it_once(lab: Lab, second: LiveServer) -> None:
    node = await lab.node()
    await lab.subscribed(node)
    await lab.balance(0, told=False)
    await asyncio.gather(lab.changed(), lab.changed(second), lab.changed(), lab.changed(second))
    await eventually(lambda: told(node) == [ZERO])
    await asyncio.sleep(0.3)
    assert told(node) == [ZERO]


@pytest.mark.shows("row 46")
async def test_row_46_one_worker_at_a_time_tells_a_session(lab: Lab, second: LiveServer) -> None:
    """So that a policy node with connections to both hears of changes in their order."""
    node = await lab.node()
    session = await lab.subscribed(node)
    turn = begin_push(second.server.store, session.encode(), b"somebody else", 700)
    assert await asyncio.to_thread(second.run, turn)
    await lab.balance(0)
    await asyncio.sleep(0.3)
    assert node.notified == []
    await lab.balance(900_000)
    await eventually(lambda: bool(node.notified))
    assert told(node) == [[("MAIN_BALANCE", "low")]], "what it was in between is no news any more"


@pytest.mark.shows("row 46")
async def test_row_46_nobody_has_a_connection(lab: Lab, second: LiveServer) -> None:
    """What changed meanwhile is told as soon as the policy node is back, to whichever worker it comes."""
    node = await lab.node()
    session = await lab.subscribed(node)
    await node.close()
    for server in (lab.server, second):
        server.server.sy.notifications.channel = ChannelSettings(claim_within_s=0.3, stream=STREAM)
    before = lab.results().get("no-connection", 0)
    await lab.balance(0)
    await eventually(lambda: lab.results().get("no-connection", 0) == before + 1)
    back = await lab.node()
    back.sessions[session] = node.sessions[session]
    await eventually(lambda: told(back) == [ZERO])


class Relay:
    """An agent: it says that it forwards any application, and answers as the policy node behind it."""

    def __init__(self, identity: str, behind: str) -> None:
        self.told: list[bytes] = []
        self.behind = behind
        commands = frozenset((int(Command.SPENDING_STATUS_NOTIFICATION),))
        applications = {int(Application.SY): commands, int(Application.RELAY): frozenset[int]()}
        self.node = Node(NodeSettings(identity, "agents.example.net", applications=applications), self._on_request)

    def _on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        request = decode_snr(event.message)
        assert request.destination_host == self.behind.encode()
        self.told.append(request.session_id)
        origin = avp("Origin-Host", self.behind) + avp("Origin-Realm", "policy.example.net")
        peer.send(encode_sna(request, SpendingStatusNotificationAnswer(2001), origin))


@pytest.mark.shows("row 46")
async def test_row_46_by_a_relay_if_there_is_no_better_way(lab: Lab) -> None:
    node = await lab.node()
    session = await lab.subscribed(node)
    await node.close()
    relay = Relay(f"relay{lab.number}.agents.example.net", node.options.origin_host)
    await relay.node.connect("127.0.0.1", lab.server.port)
    before = lab.results().get("told", 0)
    await lab.balance(0)
    await eventually(lambda: lab.results().get("told", 0) == before + 1)
    assert relay.told == [session.encode()]
    assert await lab.changed() == 0
    await relay.node.stop()


@pytest.mark.shows("row 44", "row 46")
async def test_row_46_subscriptions_survive_a_restart(tmp_path: Path) -> None:
    """What changed while the server was down, or was on its way when it went, is told when the policy node is back."""
    with LiveServer(tmp_path, {"policies": "none"}) as server:
        lab = Lab(server)
        node = await lab.node()
        session = await lab.subscribed(node)
        node.reply = lambda _: None
        await lab.balance(0)
        await eventually(lambda: bool(node.notified))
        await node.close()
        number = lab.statistics.subscriptions
    with LiveServer(tmp_path, {"policies": "none"}) as server:
        lab.server = server
        lab.serve(server)
        back = await lab.node()
        back.sessions[session] = node.sessions[session]
        assert lab.statistics.subscriptions == number == 1
        lab.source.others["FUP_MONTH"] = CounterStatus("normal")
        await asyncio.to_thread(server.run, server.server.sy.notifications.all_changed(server.now_ms()))
        await eventually(lambda: back.sessions[session].status("MAIN_BALANCE") == "zero")
        assert told(back) == [[("FUP_MONTH", "normal"), *ZERO]]
        await lab.balance(5 * MICRO)
        await eventually(lambda: back.sessions[session].status("MAIN_BALANCE") == "active")
        assert (await back.end(session)).result_code == 2001
        await back.close()
