"""Connections of the asyncio node, opened and closed over real sockets, TLS among them: RFC 6733 sections 2.1 and 5.

"row n" is the row of the conformance table. Every test runs on asyncio's own loop and on uvloop.
"""

import asyncio
import logging
import socket
import ssl
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest
from diameter.message.constants import APP_DIAMETER_CREDIT_CONTROL_APPLICATION
from diameter.node import Node as IndependentNode
from diameter.node.application import SimpleThreadingApplication

from protocols.diameter import codec
from protocols.diameter.codes import DisconnectCause
from protocols.diameter.events import Closed, Opened
from protocols.diameter.node import Admission, AllowedPeer, ConnectError, Node, PeerPolicy
from tests.protocols.in_memory import LOOPBACK, OURS, THEIRS, answer, ccr, cer, changed, dpr, origin, result_of
from tests.protocols.real_sockets import Caller, calling, echo, on_both_loops, serving, until

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
