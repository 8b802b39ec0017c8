"""The open peers of a node, for those that choose one to send a request to: RFC 6733 section 2.4, RFC 3539 3.4.1."""

import asyncio

from protocols.diameter.codes import Application, Command
from protocols.diameter.node import Node, NodeSettings, PeerHandle, RequestReceived
from protocols.diameter.watchdog import WatchdogState

REALM = "example.net"


def ignore(peer: PeerHandle, request: RequestReceived) -> None:
    """No request comes."""


def node(name: str, *further: int) -> Node:
    applications = {int(Application.CREDIT_CONTROL): frozenset((int(Command.CREDIT_CONTROL),))}
    applications.update((each, frozenset[int]()) for each in further)
    return Node(NodeSettings(f"{name}.{REALM}", REALM, applications=applications), ignore)


async def test_open_peers_are_told_in_the_order_of_their_coming_with_what_they_are() -> None:
    server, client, relay = node("server"), node("client"), node("relay", Application.RELAY)
    port = await server.start("127.0.0.1", 0)
    assert server.handles() == []
    await client.connect("127.0.0.1", port)
    await relay.connect("127.0.0.1", port)
    told = [(handle.origin_host, handle.capabilities.is_relay) for handle in server.handles()]
    assert told == [("client.example.net", False), ("relay.example.net", True)]
    await client.stop()
    async with asyncio.timeout(5):
        while len(server.handles()) == 2:  # noqa: ASYNC110 - it hears of it a little later
            await asyncio.sleep(0.005)
    assert [handle.origin_host for handle in server.handles()] == ["relay.example.net"]
    await relay.stop()
    await server.stop()


async def test_a_peer_that_is_silent_or_gone_is_not_heard() -> None:
    """RFC 3539 section 3.4.1: no new requests to a suspect peer, though its connection is open."""
    server, client = node("server"), node("client")
    port = await server.start("127.0.0.1", 0)
    await client.connect("127.0.0.1", port)
    (handle,) = server.handles()
    link = handle.connection.link
    assert link is not None
    assert link.watchdog is not None
    told = []
    for state in WatchdogState:
        link.watchdog.state = state
        told.append((handle.is_open, handle.is_heard))
    assert told == [(True, state is WatchdogState.OKAY) for state in WatchdogState]
    link.watchdog.state = WatchdogState.OKAY
    await client.stop()
    async with asyncio.timeout(5):
        while handle.is_open:  # noqa: ASYNC110 - it hears of it a little later
            await asyncio.sleep(0.005)
    assert not handle.is_heard
    await server.stop()
