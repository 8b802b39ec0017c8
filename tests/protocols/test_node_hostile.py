"""The asyncio node among peers that are hostile or unlucky: it goes on serving all others.

Every test runs on asyncio's own loop and on uvloop.
"""

import asyncio
from typing import cast

import pytest

from protocols.diameter import codec
from protocols.diameter.codes import Flag
from protocols.diameter.events import Closed, RequestReceived
from protocols.diameter.node import PeerHandle
from tests.protocols.in_memory import OURS, ccr, cer, changed, result_of
from tests.protocols.real_sockets import Caller, cca, on_both_loops, serving, until


@on_both_loops
async def test_octets_one_at_a_time() -> None:
    """TCP may cut anywhere."""
    async with serving() as (_, port, _):
        caller = await Caller.to(port)
        for octet in cer() + ccr():
            caller.writer.write(bytes((octet,)))
            await caller.writer.drain()
            await asyncio.sleep(0)
        assert (await caller.receive()).command == 257
        assert (await caller.receive()).command == 272
        caller.close()


@on_both_loops
async def test_garbage_closes_its_connection_and_no_other() -> None:
    """RFC 6733 2.1: the stream is compromised, the connection is reset."""
    async with serving() as (node, port, _):
        good = await Caller.open_to(port, "good.example.org")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n\r\n", bytes(64), b"\xff" * 64, ccr()):
            caller = await Caller.to(port)
            caller.writer.write(garbage)
            assert await caller.is_closed_by_peer()
            caller.close()
        opened = await Caller.open_to(port, "bad.example.org")
        opened.writer.write(b"\xff" * 64)
        assert (await opened.receive()).command == 0xFFFFFF
        assert await opened.is_closed_by_peer()
        opened.close()
        assert result_of(await good.ask(ccr())) == 2001
        await until(lambda: len(node._connections) == 1)
        good.close()


@on_both_loops
async def test_200_connections_at_a_time() -> None:
    """Each with its own identity, all of them served."""
    async with serving() as (node, port, _):

        async def one(number: int) -> Caller:
            caller = await Caller.open_to(port, f"pgw{number}.example.org")
            assert result_of(await caller.ask(ccr(number))) == 2001
            return caller

        callers = await asyncio.gather(*(one(number) for number in range(200)))
        assert node.open_peers == 200
        assert sum(status.statistics.answers_sent for status in node.peers()) == 200
        for caller in callers:
            caller.close()
        await until(lambda: node.open_peers == 0)


@on_both_loops
async def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    """Limits on everything: max_connections."""
    async with serving(changed(OURS, max_connections=2)) as (_, port, _):
        callers = [await Caller.open_to(port, f"pgw{number}.example.org") for number in range(2)]
        surplus = await Caller.to(port)
        assert await surplus.is_closed_by_peer()
        for caller in (*callers, surplus):
            caller.close()


@on_both_loops
async def test_strangers_of_one_address_are_bounded_and_open_peers_are_not() -> None:
    """Limits on everything: max_strangers_per_address; one that goes, or shows its capabilities, makes room."""
    async with serving(changed(OURS, max_strangers_per_address=2)) as (node, port, _):
        callers = [await Caller.open_to(port, f"pgw{number}.example.org") for number in range(3)]
        strangers = [await Caller.to(port) for _ in range(2)]
        await until(lambda: len(node._connections) == 5)
        surplus = await Caller.to(port)
        assert await surplus.is_closed_by_peer()
        strangers.pop().close()
        await until(lambda: len(node._connections) == 4)
        callers.append(await Caller.open_to(port, "pgw9.example.org"))
        for caller in (*callers, *strangers, surplus):
            caller.close()
        await until(lambda: not node._connections)
        assert not node._strangers
        assert not node._strangers_from


@on_both_loops
async def test_a_peer_that_does_not_read_is_no_longer_read_from() -> None:
    """Back-pressure: requests of a peer that leaves its answers unread wait in the network, not in memory."""
    large = codec.avp("Session-Id", "x" * 4000)
    taken = 0

    def on_request(peer: PeerHandle, request: RequestReceived) -> None:
        nonlocal taken
        taken += 1
        peer.send(codec.answer_to(codec.decode(request.message), [large]))

    settings = changed(OURS, high_water_octets=1 << 16)
    async with serving(settings, on_request) as (node, port, _):
        caller = await Caller.open_to(port)
        transport = cast(asyncio.Transport, caller.writer.transport)
        transport.pause_reading()
        total = 10_000  # forty megabytes of answers
        caller.writer.write(b"".join(ccr(number) for number in range(total)))
        (connection,) = node._connections.values()
        await until(lambda: connection._paused)
        await asyncio.sleep(0.1)
        stalled_at = taken
        await asyncio.sleep(0.1)
        assert taken == stalled_at < total
        transport.resume_reading()
        async with asyncio.timeout(30):
            for number in range(total):
                assert (await caller.receive()).hop_by_hop == number
        assert taken == total
        caller.close()


@on_both_loops
async def test_a_peer_that_reads_nothing_at_all_is_closed_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Output is bounded also when it does not come from the peer's own requests."""
    settings = changed(OURS, high_water_octets=1 << 16, max_output_octets=1 << 20)
    async with serving(settings) as (node, port, events):
        caller = await Caller.open_to(port)
        transport = cast(asyncio.Transport, caller.writer.transport)
        transport.pause_reading()
        handle = node.handle("pgw.example.org")
        assert handle is not None
        push = codec.build(258, 4, Flag.REQUEST, 0, 0, [codec.avp("Session-Id", "x" * 100_000)])
        async with asyncio.timeout(10):
            while handle.is_open:
                node.send_request(handle, push, lambda _: None)
                await asyncio.sleep(0)
        await until(lambda: any(isinstance(event, Closed) for event in events))
        caller.close()
    assert "more than max_output_octets = 1048576" in caplog.text


@on_both_loops
async def test_an_answer_to_a_connection_that_is_gone_is_dropped() -> None:
    """No write to a closing transport: `send` says so and nothing raises."""
    peers: list[tuple[PeerHandle, RequestReceived]] = []
    async with serving(on_request=lambda peer, request: peers.append((peer, request))) as (node, port, _):
        caller = await Caller.open_to(port)
        caller.writer.write(ccr())
        await until(lambda: bool(peers))
        caller.close()
        await until(lambda: node.open_peers == 0)
        peer, request = peers[0]
        assert peer.send(cca(request)) is False
        assert not peer.is_open
