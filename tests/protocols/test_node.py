"""The asyncio node over real sockets, requests and answers: routing and dispatch, RFC 6733 sections 5.5, 6.1 and 7.1.3.

"row n" is the row of the conformance table. Every test runs on asyncio's own loop and on uvloop.
"""

import asyncio

import pytest

from protocols.diameter import codec
from protocols.diameter.codes import Flag
from protocols.diameter.events import Closed, Opened, RequestReceived
from protocols.diameter.node import AnswerReceived, PeerHandle, RequestError, RequestFailed, route
from tests.protocols.in_memory import LOOPBACK, OURS, THEIRS, answer, ccr, cer, changed, dpr, dwr, origin, result_of
from tests.protocols.real_sockets import Caller, calling, cca, echo, ignore, on_both_loops, serving, until

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
