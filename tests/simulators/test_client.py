"""The shared client against a real Diameter node that answers as it is told: repeats, silence, lost connections."""

from collections.abc import AsyncIterator, Callable
from random import Random

import pytest

from protocols.credit_control import CreditControlAnswer, decode_request, encode_answer
from protocols.diameter.codec import avp, build
from protocols.diameter.codes import CCRequestType, Command, Flag
from protocols.diameter.node import Node, NodeSettings, PeerHandle, RequestReceived
from simulators.client import ChargingClient, ClientOptions, SimulationError
from simulators.messages import Head, sms_request
from simulators.population import Population
from simulators.summary import Statistics

ORIGIN = avp("Origin-Host", "ocs.example.net") + avp("Origin-Realm", "example.net")

Answer = Callable[[int, RequestReceived], bytes | None]
"""(how many requests came before, request) -> answer, or None for silence."""


class Server:
    """A node that keeps what it received."""

    def __init__(self) -> None:
        self.received: list[RequestReceived] = []
        self.answer: Answer = lambda number, request: success(request)
        self.node = Node(NodeSettings("ocs.example.net", "example.net"), self.on_request)
        self.port = 0

    def on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        answer = self.answer(len(self.received), event)
        self.received.append(event)
        if answer is not None:
            peer.send(answer)


def success(event: RequestReceived, result_code: int = 2001) -> bytes:
    return encode_answer(decode_request(event.message), CreditControlAnswer(result_code), ORIGIN)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    server.port = await server.node.start("127.0.0.1", 0)
    yield server
    await server.node.stop()


def make_client(server: Server, statistics: Statistics, *, repeats: float = 0.0) -> ChargingClient:
    options = ClientOptions(
        "127.0.0.1",
        server.port,
        "client.example.net",
        "example.net",
        repeats,
        answer_timeout_s=0.3,
        reconnect_s=5.0,
    )
    return ChargingClient(options, statistics, Random(1), None)


def message(client: ChargingClient, number: int = 0) -> bytes:
    subscriber = Population().subscriber(1)
    head = Head(
        "client.example.net",
        "example.net",
        "example.net",
        "client.example.net;1;1",
        subscriber,
        CCRequestType.EVENT,
        number,
        1_800_000_000,
        client.next_end_to_end(),
    )
    return sms_request(head, "491700000002", requested=1, used=None)


async def test_silence_is_met_with_the_same_request_and_the_t_flag(server: Server) -> None:
    """RFC 6733 section 5.5.4: same End-to-End Identifier, T set."""
    server.answer = lambda number, event: None if number == 0 else success(event)
    statistics = Statistics()
    client = make_client(server, statistics)
    await client.connect()
    answer = await client.exchange(message(client))
    await client.close()
    assert answer is not None
    assert answer.result_code == 2001
    first, second = server.received
    assert not first.flags & Flag.RETRANSMIT
    assert second.flags & Flag.RETRANSMIT
    assert second.end_to_end == first.end_to_end
    assert second.message[20:] == first.message[20:]
    assert (statistics.requests, statistics.repeats, statistics.answers, statistics.unanswered) == (1, 1, 1, 0)


async def test_no_answer_at_all_is_counted_once(server: Server) -> None:
    server.answer = lambda number, event: None
    statistics = Statistics()
    client = make_client(server, statistics)
    await client.connect()
    assert await client.exchange(message(client)) is None
    await client.close()
    assert (statistics.requests, statistics.answers, statistics.unanswered) == (1, 0, 1)


async def test_repeats_on_purpose_come_in_every_kind(server: Server) -> None:
    """With T before and after the answer, and under a new End-to-End Identifier without T."""
    statistics = Statistics()
    client = make_client(server, statistics, repeats=1.0)
    await client.connect()
    for number in range(3):
        await client.exchange(message(client, number))
    await client.close()
    assert (statistics.requests, statistics.repeats, statistics.disagreements) == (3, 3, 0)
    kinds = set()
    for number in range(3):
        first, second = (event for event in server.received if decode_request(event.message).request_number == number)
        assert first.message[20:] == second.message[20:]
        kinds.add((bool(second.flags & Flag.RETRANSMIT), first.end_to_end == second.end_to_end))
    assert kinds == {(True, True), (False, False)}


async def test_a_repeat_answered_differently_is_a_disagreement(server: Server) -> None:
    """RFC 8506 section 6.5: a duplicate gets the answer of the first request."""
    server.answer = lambda number, event: success(event, 2001 if number == 0 else 4012)
    statistics = Statistics()
    client = make_client(server, statistics, repeats=1.0)
    await client.connect()
    await client.exchange(message(client))
    await client.close()
    assert statistics.disagreements == 1


async def test_an_answer_that_breaks_the_grammar_is_dropped_and_counted(server: Server) -> None:
    """RFC 8506 section 3.2: a CCA without CC-Request-Type is none."""

    def answer(number: int, event: RequestReceived) -> bytes:
        avps = [avp("Session-Id", "client.example.net;1;1"), avp("Result-Code", 2001), ORIGIN]
        return build(Command.CREDIT_CONTROL, 4, Flag.PROXIABLE, event.hop_by_hop, event.end_to_end, avps)

    server.answer = answer
    statistics = Statistics()
    client = make_client(server, statistics)
    await client.connect()
    assert await client.exchange(message(client)) is None
    await client.close()
    assert statistics.malformed == 1


async def test_refusals_are_counted_by_result_code(server: Server) -> None:
    server.answer = lambda number, event: success(event, 5030)
    statistics = Statistics()
    client = make_client(server, statistics)
    await client.connect()
    answer = await client.exchange(message(client))
    await client.close()
    assert answer is not None
    assert answer.result_code == 5030
    assert statistics.refusals == {5030: 1}


async def test_a_lost_connection_is_opened_again_and_the_request_repeated_with_t(server: Server) -> None:
    def answer(number: int, event: RequestReceived) -> bytes | None:
        if number:
            return success(event)
        handle = server.node.handle("client.example.net")
        assert handle is not None
        handle.connection.abort("test")
        return None

    server.answer = answer
    statistics = Statistics()
    client = make_client(server, statistics)
    await client.connect()
    assert await client.exchange(message(client)) is not None
    await client.close()
    assert [bool(event.flags & Flag.RETRANSMIT) for event in server.received] == [False, True]
    assert statistics.unanswered == 0


async def test_no_server_is_one_clear_sentence(server: Server) -> None:
    await server.node.stop()
    client = make_client(server, Statistics())
    with pytest.raises(SimulationError, match=f"127.0.0.1 port {server.port}"):
        await client.connect()
