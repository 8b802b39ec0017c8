"""The asyncio node over real sockets, and the routing and dispatch rules: RFC 6733 sections 2.1, 5, 6.1, 7.1.3.

"row n" is the row of the conformance table. Every test runs on asyncio's own loop and on uvloop.
"""

import asyncio
import functools
import inspect
import logging
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import pytest
import uvloop
from diameter.message.constants import APP_DIAMETER_CREDIT_CONTROL_APPLICATION
from diameter.node import Node as IndependentNode
from diameter.node.application import SimpleThreadingApplication

from protocols.diameter import codec
from protocols.diameter.codec import Message
from protocols.diameter.codes import DisconnectCause, Flag
from protocols.diameter.events import Closed, Event, Opened, RequestReceived
from protocols.diameter.node import (
    Admission,
    AllowedPeer,
    AnswerReceived,
    ConnectError,
    Node,
    NodeSettings,
    PeerHandle,
    PeerPolicy,
    RequestError,
    RequestFailed,
    route,
)
from tests.protocols.in_memory import LOOPBACK, OURS, THEIRS, answer, ccr, cer, changed, dpr, dwr, origin, result_of

LOOPS = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def on_both_loops(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test once per kind of event loop."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    first = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    functools.update_wrapper(run, test)
    run.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    decorated: Callable[..., None] = LOOPS(run)
    return decorated


def cca(request: RequestReceived) -> bytes:
    return answer(codec.decode(request.message))


def echo(peer: PeerHandle, request: RequestReceived) -> None:
    """Answer every request at once."""
    peer.send(cca(request))


def ignore(peer: PeerHandle, request: RequestReceived) -> None:
    """Leave every request without an answer."""


@asynccontextmanager
async def serving(
    settings: NodeSettings = OURS,
    on_request: Callable[[PeerHandle, RequestReceived], None] = echo,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[Node, int, list[Event]]]:
    """A node that listens on a free port; stopped in the end."""
    events: list[Event] = []
    node = Node(settings, on_request, events.append)
    port = await node.start(LOOPBACK, 0, tls)
    try:
        yield node, port, events
    finally:
        await node.stop()


@asynccontextmanager
async def calling(settings: NodeSettings = THEIRS) -> AsyncIterator[Node]:
    """A node that listens nowhere; stopped in the end."""
    node = Node(settings, echo)
    try:
        yield node
    finally:
        await node.stop()


class Caller:
    """Octets written by hand over a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int) -> "Caller":
        return cls(*await asyncio.open_connection(LOOPBACK, port))

    @classmethod
    async def open_to(cls, port: int, host: str = "pgw.example.org") -> "Caller":
        caller = await cls.to(port)
        assert result_of(await caller.ask(cer(host=host))) == 2001
        return caller

    async def receive(self) -> Message:
        header = await self.reader.readexactly(20)
        return codec.decode(header + await self.reader.readexactly(int.from_bytes(header[1:4], "big") - 20))

    async def ask(self, message: bytes) -> Message:
        self.writer.write(message)
        return await asyncio.wait_for(self.receive(), 10)

    async def is_closed_by_peer(self) -> bool:
        """Wait for the end of the stream, be it a reset."""
        try:
            await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return True
        return self.reader.at_eof()

    def close(self) -> None:
        self.writer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it lies on the other side of a socket
            await asyncio.sleep(0.005)


# Requests and answers


@on_both_loops
async def test_a_request_comes_with_what_its_peer_said() -> None:
    """RFC 6733 5.3.1: who takes a request can tell what made it, in the words of the peer's CER."""
    peers: list[PeerHandle] = []

    def take(peer: PeerHandle, request: RequestReceived) -> None:
        peers.append(peer)
        echo(peer, request)

    async with serving(on_request=take) as (_, port, events):
        caller = await Caller.open_to(port)
        for number in range(2):
            await caller.ask(ccr(number))
        first, second = peers
        assert first.capabilities is second.capabilities
        assert [first.capabilities] == events
        said = first.capabilities
        assert (said.product_name, said.vendor_id, said.applications) == ("tester", 10415, frozenset((4,)))
        caller.close()


@on_both_loops
async def test_a_request_between_cer_and_dpr_in_one_piece_is_answered() -> None:
    """RFC 6733 5.4: what a peer asked before it took leave is answered; it need not wait for its CEA to arrive."""
    async with serving() as (node, port, events):
        caller = await Caller.to(port)
        assert result_of(await caller.ask(cer() + ccr(1) + dpr())) == 2001
        answers = [await asyncio.wait_for(caller.receive(), 10) for _ in range(2)]
        assert {(each.command, result_of(each)) for each in answers} == {(282, 2001), (272, 2001)}
        caller.close()
        await until(lambda: any(isinstance(each, Closed) for each in events))
        assert (node.open_peers, node.opening) == (0, 0)


@on_both_loops
async def test_a_request_is_answered_on_its_connection() -> None:
    """RFC 6733 6.2; and the counters behind the peer table."""
    async with serving() as (node, port, events):
        caller = await Caller.open_to(port)
        for number in range(3):
            reply = await caller.ask(ccr(number))
            assert (reply.command, reply.hop_by_hop, reply.end_to_end) == (272, number, 44)
        (status,) = node.peers()
        assert (status.origin_host, status.state, status.watchdog) == ("pgw.example.org", "R-Open", "okay")
        assert status.applications == (4,)
        counted = status.statistics
        assert (counted.requests_received, counted.answers_sent) == (3, 3)
        assert counted.octets_received == len(cer()) + 3 * len(ccr())
        assert counted.octets_sent > 0
        assert node.open_peers == 1
        assert [type(event) for event in events] == [Opened]
        caller.close()
        await until(lambda: node.open_peers == 0)
        assert isinstance(events[-1], Closed)


@on_both_loops
async def test_two_nodes_and_both_directions() -> None:
    """RFC 6733 2.1: requests pass both ways over the one connection, whoever opened it."""
    async with serving() as (server, port, _), calling() as client:
        handle = await client.connect(LOOPBACK, port)
        assert handle.origin_host == OURS.origin_host
        reply = await handle.request(ccr())
        assert (reply.command, reply.flags) == (272, Flag.PROXIABLE)
        assert result_of(codec.decode(reply.message)) == 2001
        await until(lambda: server.handle(THEIRS.origin_host.upper()) is not None)
        back = server.handle(THEIRS.origin_host)
        assert back is not None
        assert result_of(codec.decode((await back.request(ccr())).message)) == 2001


@on_both_loops
async def test_all_answers_of_one_loop_iteration_leave_in_one_write() -> None:
    """Write batching: as many answers as arrive together are one segment for the client."""
    async with serving() as (_, port, _):
        caller = await Caller.open_to(port)
        many = b"".join(ccr(number) for number in range(50))
        caller.writer.write(many)
        first = await asyncio.wait_for(caller.reader.read(1 << 20), 10)
        one = len(cca(RequestReceived(ccr(), 272, 4, 0xC0, 33, 44)))
        assert len(first) == 50 * one
        caller.close()


@pytest.mark.parametrize(
    ("command", "application", "result"),
    [(272, 99, 3007), (9999, 4, 3001), (9999, 99, 3001), (258, 4, 3001), (8388635, 4, 3001), (272, 0, 3007)],
)
@on_both_loops
async def test_row_9_foreign_commands_and_applications(command: int, application: int, result: int) -> None:
    """RFC 6733 7.1.3: unknown command 3001, unknown application 3007, from the header alone; E set."""
    both = {4: frozenset((272,)), 16777302: frozenset((8388635,))}
    seen: list[RequestReceived] = []
    async with serving(changed(OURS, applications=both), lambda _, request: seen.append(request)) as (_, port, _):
        caller = await Caller.open_to(port)
        reply = await caller.ask(codec.build(command, application, Flag.REQUEST | Flag.PROXIABLE, 1, 2, origin()))
        assert (result_of(reply), reply.flags) == (result, Flag.PROXIABLE | Flag.ERROR)
        assert (reply.command, reply.application, reply.hop_by_hop, reply.end_to_end) == (command, application, 1, 2)
        caller.close()
    assert seen == []


@on_both_loops
async def test_a_handler_that_raises_answers_5012_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """RFC 6733 7.1.5: DIAMETER_UNABLE_TO_COMPLY."""

    def broken(peer: PeerHandle, request: RequestReceived) -> None:
        raise RuntimeError("broken on purpose")

    async with serving(on_request=broken) as (_, port, _):
        caller = await Caller.open_to(port)
        assert result_of(await caller.ask(ccr())) == 5012
        assert result_of(await caller.ask(dwr())) == 2001
        caller.close()
    assert "broken on purpose" in caplog.text


@pytest.mark.parametrize(
    ("host", "realm", "records", "result"),
    [
        (None, None, (), None),
        (None, "EXAMPLE.net", (), None),
        (None, "second.net", (), None),
        (None, "example.org", (), None),
        ("OCS.example.net", "example.net", (), None),
        ("ocs.example.net", "elsewhere.net", (), None),
        ("ocs.example.net", None, (), None),
        ("other.example.net", None, (), 3002),
        ("other.example.net", "example.net", (), 3002),
        (None, "elsewhere.net", (), 3003),
        ("other.elsewhere.net", "elsewhere.net", (), 3003),
        (None, "example.net", ("relay.example.net",), None),
        (None, "example.net", ("relay.example.net", "OCS.example.net"), 3005),
    ],
)
def test_row_15_routing(host: str | None, realm: str | None, records: tuple[str, ...], result: int | None) -> None:
    """RFC 6733 6.1.3, 6.1.4, 7.1.3: local, 3002, 3003 or 3005."""
    assert route(changed(OURS, served_realms=("second.net",)), host, realm, records, "example.org") == result


# Our own requests


@on_both_loops
async def test_row_18_answers_are_matched_and_strays_discarded() -> None:
    """RFC 6733 6.2.1: by Hop-by-Hop Identifier; out of order is fine."""
    async with serving(on_request=ignore) as (node, port, _):
        caller = await Caller.open_to(port)
        handle = node.handle("pgw.example.org")
        assert handle is not None
        tasks = [asyncio.create_task(handle.request(ccr(flags=Flag.REQUEST))) for _ in range(2)]
        requests = [await caller.receive(), await caller.receive()]
        assert requests[0].hop_by_hop != requests[1].hop_by_hop
        stray = bytearray(answer(requests[0]))
        stray[12:16] = (requests[0].hop_by_hop ^ 0x80000000).to_bytes(4, "big")
        caller.writer.write(bytes(stray) + answer(requests[1]) + answer(requests[0]))
        replies = await asyncio.gather(*tasks)
        assert [reply.hop_by_hop for reply in replies] == [request.hop_by_hop for request in requests]
        assert node.peers()[0].statistics.answers_discarded == 1
        caller.close()


@on_both_loops
async def test_a_request_without_an_answer_fails_and_a_late_answer_is_discarded() -> None:
    """RFC 6733 6.2.1."""
    async with serving(on_request=ignore) as (node, port, _):
        caller = await Caller.open_to(port)
        handle = node.handle("pgw.example.org")
        assert handle is not None
        with pytest.raises(RequestError, match="no answer in time"):
            await handle.request(ccr(), timeout_seconds=0.05)
        assert node.peers()[0].pending_requests == 0
        late = answer(await caller.receive())
        assert result_of(await caller.ask(late + dwr())) == 2001
        assert node.peers()[0].statistics.answers_discarded == 1
        caller.close()


@on_both_loops
async def test_requests_time_out_in_their_own_order() -> None:
    """A short timeout behind a long one does not wait for it."""
    async with serving(on_request=ignore) as (node, port, _):
        caller = await Caller.open_to(port)
        order: list[str] = []
        outcomes: list[object] = []

        def send(name: str, seconds: float) -> None:
            def on_answer(outcome: AnswerReceived | RequestFailed) -> None:
                order.append(name)
                outcomes.append(outcome)

            node.send_request("pgw.example.org", ccr(), on_answer, seconds)

        send("long", 0.3)
        send("short", 0.02)
        send("middle", 0.1)
        await until(lambda: len(order) == 3)
        assert order == ["short", "middle", "long"]
        assert outcomes == 3 * [RequestFailed("no answer in time", sent=True)]
        caller.close()


@on_both_loops
async def test_a_request_to_nobody_fails_later_and_says_so() -> None:
    """The callback never runs inside the call."""
    async with serving() as (node, _, _):
        outcomes: list[AnswerReceived | RequestFailed] = []
        node.send_request("nobody.example.org", ccr(), outcomes.append, alternates=("none.example.org",))
        assert outcomes == []
        await until(lambda: bool(outcomes))
        (outcome,) = outcomes
        assert isinstance(outcome, RequestFailed)
        assert not outcome.sent
        assert "nobody.example.org or none.example.org" in outcome.reason


@on_both_loops
async def test_row_5_failover_sends_again_with_t_to_an_alternate() -> None:
    """RFC 6733 5.5.4: on transport failure pending requests go to an alternate with the T flag, once."""
    async with serving(on_request=ignore) as (node, port, _):
        first = await Caller.open_to(port, "one.example.org")
        second = await Caller.open_to(port, "two.example.org")
        outcomes: list[AnswerReceived | RequestFailed] = []
        node.send_request("one.example.org", ccr(), outcomes.append, alternates=("two.example.org",))
        original = await first.receive()
        assert not original.is_retransmission
        first.close()
        again = await asyncio.wait_for(second.receive(), 10)
        assert again.is_retransmission
        assert again.end_to_end == original.end_to_end
        second.writer.write(answer(again))
        await until(lambda: bool(outcomes))
        assert isinstance(outcomes[0], AnswerReceived)
        second.close()
        await until(lambda: node.open_peers == 0)
        assert len(outcomes) == 1


@on_both_loops
async def test_row_5_failover_without_an_alternate_reports_the_failure() -> None:
    """RFC 6733 5.5.4."""
    async with serving(on_request=ignore) as (node, port, _):
        caller = await Caller.open_to(port)
        handle = node.handle("pgw.example.org")
        assert handle is not None
        task = asyncio.create_task(handle.request(ccr()))
        await caller.receive()
        caller.close()
        with pytest.raises(RequestError, match="closed"):
            await task


# Opening and closing


@on_both_loops
async def test_row_1_a_refused_peer_is_logged_with_what_to_add(caplog: pytest.LogCaptureFixture) -> None:
    """RFC 6733 5.3: 3010 and closed; the log line is the configuration to write, once per peer."""
    strict = PeerPolicy(Admission.STRICT, (AllowedPeer("one.example.org", None, (ip_network("127.0.0.0/8"),)),))
    async with serving(changed(OURS, policy=strict)) as (_, port, _):
        (await Caller.open_to(port, "ONE.example.org")).close()
        for _ in range(3):
            caller = await Caller.to(port)
            assert result_of(await caller.ask(cer())) == 3010
            assert await caller.is_closed_by_peer()
            caller.close()
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    entry = '{identity: "pgw.example.org", realm: "example.org", networks: [127.0.0.1/32]}'
    assert f"to let it in, add {entry} to diameter.peers.allowed" in warnings[0]


@on_both_loops
async def test_connect_says_why_it_failed() -> None:
    """Refused by nobody listening, by the CEA, and by identity."""
    with socket.socket() as unused:
        unused.bind((LOOPBACK, 0))
        async with calling() as client:
            with pytest.raises(ConnectError, match=r"cannot connect to 127\.0\.0\.1"):
                await client.connect(LOOPBACK, unused.getsockname()[1])
    strict = PeerPolicy(Admission.STRICT)
    async with serving(changed(OURS, policy=strict)) as (_, port, _), calling() as client:
        with pytest.raises(ConnectError, match="Result-Code 3010"):
            await client.connect(LOOPBACK, port)
    async with serving() as (_, port, _), calling() as client:
        with pytest.raises(ConnectError, match=r"not other\.example\.net"):
            await client.connect(LOOPBACK, port, identity="other.example.net")
        assert (await client.connect(LOOPBACK, port, identity="OCS.example.net")).is_open
        with pytest.raises(ConnectError, match="in state I-Open already"):
            await client.connect(LOOPBACK, port, identity="ocs.example.net")
        with pytest.raises(ConnectError, match="before its CEA"):
            await client.connect(LOOPBACK, port)


@on_both_loops
async def test_row_3_a_half_open_connection_is_closed() -> None:
    """RFC 6733 5.6.1: no CER within the time limit, be it begun."""
    async with serving(changed(OURS, capabilities_timeout_seconds=0.1)) as (node, port, _):
        for start in (b"", cer()[:40]):
            caller = await Caller.to(port)
            caller.writer.write(start)
            assert await caller.is_closed_by_peer()
            caller.close()
        await until(lambda: not node._connections)


@on_both_loops
async def test_row_3_a_second_connection_of_an_open_peer_is_rejected() -> None:
    """RFC 6733 5.6: R-Reject; the first goes on."""
    async with serving() as (_, port, _):
        first = await Caller.open_to(port)
        second = await Caller.to(port)
        second.writer.write(cer())
        assert await second.is_closed_by_peer()
        probe = await first.receive()
        assert probe.command == 280
        assert result_of(await first.ask(answer(probe) + ccr())) == 2001
        first.close()
        second.close()


@on_both_loops
async def test_row_4_election_over_real_sockets() -> None:
    """RFC 6733 5.6.4: two nodes that dial each other at once end up with one connection."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((LOOPBACK, 0))
        other_port = reserved.getsockname()[1]
    loopback = (ip_network("127.0.0.0/8"),)
    there = AllowedPeer("zzz.example.org", None, loopback, LOOPBACK, other_port)
    here = Node(changed(OURS, policy=PeerPolicy(Admission.STRICT, (there,))), echo)
    port = await here.start(LOOPBACK, 0)
    back = AllowedPeer("ocs.example.net", None, loopback, LOOPBACK, port)
    other = Node(changed(THEIRS, origin_host="zzz.example.org", policy=PeerPolicy(Admission.STRICT, (back,))), echo)
    try:
        await other.start(LOOPBACK, other_port)
        await until(lambda: here.open_peers == 1 and other.open_peers == 1)
        handle = here.handle("zzz.example.org")
        assert handle is not None
        assert (await handle.request(ccr())).command == 272
        await until(lambda: len(here._connections) == len(other._connections) == 1)
    finally:
        await here.stop()
        await other.stop()


@on_both_loops
async def test_row_6_stop_takes_leave_with_a_dpr() -> None:
    """RFC 6733 5.4: DPR to all, DPA awaited, connection closed by the DPA's receiver."""
    node = Node(OURS, echo)
    port = await node.start(LOOPBACK, 0)
    caller = await Caller.open_to(port)
    task = asyncio.create_task(node.stop(DisconnectCause.BUSY))
    request = await caller.receive()
    assert (request.command, request.avps[-1].value()) == (282, DisconnectCause.BUSY)
    assert not task.done()
    caller.writer.write(answer(request, None))
    await asyncio.wait_for(task, 10)
    assert await caller.is_closed_by_peer()
    caller.close()


@on_both_loops
async def test_row_6_stop_does_not_wait_for_ever() -> None:
    """RFC 6733 5.6, Closing: Timeout; half-open and silent connections do not hold it up either."""
    node = Node(changed(OURS, disconnect_timeout_seconds=0.1), echo)
    port = await node.start(LOOPBACK, 0)
    silent, half_open = await Caller.open_to(port), await Caller.to(port)
    await until(lambda: len(node._connections) == 2)
    await asyncio.wait_for(node.stop(), 10)
    for caller in (silent, half_open):
        assert await caller.is_closed_by_peer()
        caller.close()


@pytest.mark.shows("relay-reconnect")
@pytest.mark.parametrize(("cause", "comes_back"), [(0, True), (2, False)])
@on_both_loops
async def test_row_6_a_dialed_peer_is_dialed_again_as_its_dpr_allows(cause: int, comes_back: bool) -> None:
    """RFC 6733 5.4.3, 2.1: cause 0 we may reconnect, not within a second; 2 we do not."""
    arrivals: list[float] = []
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrivals.append(loop.time())
        caller = Caller(reader, writer)
        request = await caller.receive()
        parts = [codec.avp("Result-Code", 2001), *origin(), codec.avp("Auth-Application-Id", 4)]
        writer.write(codec.answer_to(request, parts))
        if len(arrivals) == 1:
            assert (await caller.ask(dpr(cause))).command == 282
            writer.close()
        else:
            done.set()
            await caller.is_closed_by_peer()
            writer.close()

    listener = await asyncio.start_server(serve, LOOPBACK, 0)
    port = listener.sockets[0].getsockname()[1]
    peer = AllowedPeer("pgw.example.org", connect_host=LOOPBACK, connect_port=port)
    settings = changed(OURS, policy=PeerPolicy(Admission.STRICT, (peer,)), disconnect_timeout_seconds=0.1)
    async with serving(settings):
        if comes_back:
            await asyncio.wait_for(done.wait(), 10)
            assert arrivals[1] - arrivals[0] >= 1.0
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(done.wait(), 1.5)
            assert len(arrivals) == 1
    listener.close()


@on_both_loops
async def test_a_dialed_peer_that_is_not_there_yet_is_found_later() -> None:
    """RFC 6733 2.1: "an attempt to connect SHOULD be made periodically"."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((LOOPBACK, 0))
        port = reserved.getsockname()[1]
    peer = AllowedPeer("ocs.example.net", connect_host=LOOPBACK, connect_port=port)
    client = Node(changed(THEIRS, policy=PeerPolicy(Admission.STRICT, (peer,))), echo)
    client.start_dialing()
    await asyncio.sleep(0.05)
    server = Node(OURS, echo)
    await server.start(LOOPBACK, port)
    try:
        await until(lambda: client.open_peers == 1)
    finally:
        await client.stop()
        await server.stop()


# Hostile and unlucky peers


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


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return key, cert


@on_both_loops
async def test_a_handshake_that_is_not_finished_is_given_up(certificate: tuple[Path, Path]) -> None:
    """Who connects to the TLS port and says nothing keeps no file open for a minute."""
    key, cert = certificate
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    async with serving(changed(OURS, capabilities_timeout_seconds=0.2), tls=server_side) as (_, port, _):
        caller = await Caller.to(port)
        assert await caller.is_closed_by_peer()
        caller.close()


@pytest.mark.shows("relay-tls")
@on_both_loops
async def test_tls_from_the_first_octet(certificate: tuple[Path, Path]) -> None:
    """RFC 6733 2.1, 5.6: TLS before CER; a client without TLS gets nowhere."""
    key, cert = certificate
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    client_side = ssl.create_default_context(cafile=str(cert))
    async with serving(tls=server_side) as (node, port, _), calling() as client:
        handle = await client.connect(LOOPBACK, port, tls=client_side, server_hostname="localhost")
        assert result_of(codec.decode((await handle.request(ccr())).message)) == 2001
        plain = await Caller.to(port)
        plain.writer.write(cer())
        assert await plain.is_closed_by_peer()
        plain.close()
        assert node.open_peers == 1


# An independent implementation as the client


@pytest.mark.shows("row 1", "row 5", "row 6")
async def test_an_independent_peer_exchanges_capabilities_watches_and_takes_leave() -> None:
    """CER, DWR and DPR of python-diameter against ours (rows 1, 2, 5, 6)."""
    async with serving() as (node, port, events):
        theirs = IndependentNode("client.example.org", "example.org", vendor_ids=[10415])
        theirs.wakeup_interval = 1
        theirs.idle_timeout = 1
        uri = f"aaa://{OURS.origin_host}:{port}"
        peer = theirs.add_peer(uri, OURS.origin_realm, [LOOPBACK], is_persistent=True)
        application = SimpleThreadingApplication(
            APP_DIAMETER_CREDIT_CONTROL_APPLICATION, is_auth_application=True, request_handler=lambda *_: None
        )
        theirs.add_application(application, [peer])
        await asyncio.to_thread(theirs.start)
        try:
            await asyncio.to_thread(application.wait_for_ready, 10)
            (opened,) = [event for event in events if isinstance(event, Opened)]
            assert opened.origin_host == "client.example.org"
            assert opened.common_applications == {4}
            await until(lambda: peer.counters.dwa > 0)
            assert node.open_peers == 1
        finally:
            await asyncio.to_thread(theirs.stop, 10)
        await until(lambda: node.open_peers == 0)
        closed = events[-1]
        assert isinstance(closed, Closed)
        assert "DPR with cause REBOOTING" in closed.reason


@on_both_loops
async def test_two_nodes_of_one_identity_share_a_socket_one_after_the_other() -> None:
    """Who is connected stays with the first, who connects later is the second's, and nobody is refused in between."""
    shared = socket.socket()
    shared.bind((LOOPBACK, 0))
    shared.listen()
    port = shared.getsockname()[1]
    goes, comes = Node(OURS, echo), Node(OURS, echo)
    try:
        await goes.listen([shared.dup()])
        first = await Caller.open_to(port)
        goes.stop_listening()
        await asyncio.sleep(0)
        second = await Caller.to(port)
        await comes.listen([shared.dup()])
        assert result_of(await second.ask(cer(host="pgw2.example.org"))) == 2001
        assert (goes.open_peers, comes.open_peers) == (1, 1)
        leaving = asyncio.create_task(goes.stop())
        assert (await first.receive()).command == 282
        first.close()
        await leaving
        assert result_of(await second.ask(ccr())) == 2001
        second.close()
    finally:
        await goes.stop()
        await comes.stop()
        shared.close()
