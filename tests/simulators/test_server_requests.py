"""What gateways do when the server asks: re-authorisation and abortion of a session (rows 42 and 43)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from protocols.credit_control import (
    AbortSessionRequest,
    CreditControlAnswer,
    CreditControlRequest,
    ReAuthRequest,
    ServiceAnswer,
    Units,
    decode_asa,
    decode_raa,
    decode_request,
    encode_answer,
    encode_asr,
    encode_rar,
)
from protocols.diameter.codec import avp
from protocols.diameter.codes import Command, ReportingReason
from protocols.diameter.events import RequestFailed
from protocols.diameter.node import AnswerReceived, Node, NodeSettings, PeerHandle, RequestReceived
from simulators import gateway
from simulators.gateway import GatewayOptions
from simulators.summary import Summary

HOST, REALM = "ocs.example.net", "ocs.example.net"
ORIGIN = avp("Origin-Host", HOST) + avp("Origin-Realm", REALM)


class AskingServer:
    """Grants whatever is asked for, and sends one request of its own just ahead of an answer, or ``later_s`` after."""

    def __init__(
        self,
        command: Command,
        when: Callable[[CreditControlRequest], bool] = lambda request: True,
        *,
        rating_group: int | None = None,
        session_id: bytes | None = None,
        later_s: float | None = None,
    ) -> None:
        self.command = command
        self.when = when
        self.rating_group = rating_group
        self.session_id = session_id
        self.later_s = later_s
        self.asked_after = 0
        """How many requests had come when it asked."""
        self.requests: list[CreditControlRequest] = []
        self.second_request = asyncio.Event()
        self.answered: list[int] = []
        self.node = Node(NodeSettings(HOST, REALM), self.on_request)
        self.port = 0

    def on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        request = decode_request(event.message)
        if not self.asked_after and self.when(request):
            self.asked_after = len(self.requests) + 1
            if self.later_s is None:
                self.ask(peer, request)
            else:
                asyncio.get_running_loop().call_later(self.later_s, self.ask, peer, request)
        self.requests.append(request)
        if len(self.requests) == 2:
            self.second_request.set()
        services = [
            ServiceAnswer(each.rating_group, (), 2001, Units(total_octets=1 << 20) if each.requested else None)
            for each in request.services
        ]
        peer.send(encode_answer(request, CreditControlAnswer(2001, services), ORIGIN))

    def ask(self, peer: PeerHandle, request: CreditControlRequest) -> None:
        session_id = self.session_id or request.session_id
        session = (session_id, HOST.encode(), REALM.encode(), request.origin_realm, request.origin_host)
        end_to_end = self.node.next_end_to_end()
        if self.command is Command.RE_AUTH:
            message = encode_rar(ReAuthRequest(0, end_to_end, *session, rating_group=self.rating_group))
        else:
            message = encode_asr(AbortSessionRequest(0, end_to_end, *session))
        self.node.send_request(peer, message, self.on_answer)

    def on_answer(self, answer: AnswerReceived | RequestFailed) -> None:
        assert isinstance(answer, AnswerReceived)
        decode = decode_raa if self.command is Command.RE_AUTH else decode_asa
        self.answered.append(decode(answer.message).result_code)


@pytest.fixture(params=[Command.RE_AUTH, Command.ABORT_SESSION])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[AskingServer]:
    server = AskingServer(request.param)
    server.port = await server.node.start("127.0.0.1", 0)
    yield server
    await server.node.stop()


@asynccontextmanager
async def listening(server: AskingServer) -> AsyncIterator[AskingServer]:
    server.port = await server.node.start("127.0.0.1", 0)
    yield server
    await server.node.stop()


async def run(server: AskingServer, smf_share: float, pace: float = 0.0) -> Summary:
    options = GatewayOptions(port=server.port, sessions=1, smf_share=smf_share, volume_octets=3 << 20, pace=pace)
    return await asyncio.wait_for(gateway.run(options, lambda done, total: None), 20)


async def test_a_pgw_reports_when_asked_and_ends_when_told(server: AskingServer) -> None:
    """RAA 2002, then a U with FORCED_REAUTHORISATION; ASA 2001, then the T at once."""
    await run(server, smf_share=0)
    second = server.requests[1]
    if server.command is Command.RE_AUTH:
        assert server.answered == [2002]
        assert second.request_type == 2
        assert second.services[0].reporting_reason == ReportingReason.FORCED_REAUTHORISATION
    else:
        assert server.answered == [2001]
        assert second.request_type == 3
        assert len(server.requests) == 2
    assert server.requests[-1].request_type == 3


async def test_an_smf_goes_on_as_if_nothing_had_been_asked(server: AskingServer) -> None:
    """Open5GS answers a RAR with 2001 and sends no U, an ASR with 5005 and sends no T."""
    summary = await run(server, smf_share=1)
    assert server.answered == [2001 if server.command is Command.RE_AUTH else 5005]
    reasons = [used.reporting_reason for request in server.requests[1:-1] for used in request.services[0].used]
    assert set(reasons) <= {ReportingReason.QUOTA_EXHAUSTED}
    assert server.requests[-1].request_type == 3
    assert summary.unanswered == 0


def groups(request: CreditControlRequest) -> list[int | None]:
    return [service.rating_group for service in request.services]


@pytest.mark.parametrize("rating_group", [None, 10])
async def test_a_pgw_reports_what_is_meant_and_nothing_else(rating_group: int | None) -> None:
    """RFC 8506 section 5.5: the whole session, or the Rating-Group named."""
    async with listening(AskingServer(Command.RE_AUTH, rating_group=rating_group)) as server:
        await run(server, smf_share=0)
    assert server.answered == [2002]
    report = server.requests[1]
    assert groups(report) == ([10] if rating_group else [10, None])
    assert {service.reporting_reason for service in report.services} == {ReportingReason.FORCED_REAUTHORISATION}
    assert all(service.used and service.requested is not None for service in report.services)


async def test_a_pgw_that_is_reporting_already_says_so_and_reports_once() -> None:
    """RFC 8506 section 5.5, RAR-CCR collision: 2001, and no further U because of it."""
    server = AskingServer(
        Command.RE_AUTH, lambda request: request.request_type == 2 and groups(request) == [10], rating_group=10
    )
    async with listening(server):
        await run(server, smf_share=0)
    assert server.answered == [2001]
    reasons = [service.reporting_reason for request in server.requests for service in request.services]
    assert ReportingReason.FORCED_REAUTHORISATION not in reasons


async def test_a_pgw_reports_the_rest_when_only_a_part_is_under_way() -> None:
    """RFC 8506 section 5.5: 2002, and a new U for the services that are not being reported."""
    server = AskingServer(Command.RE_AUTH, lambda request: request.request_type == 2 and len(request.services) == 1)
    async with listening(server):
        await run(server, smf_share=0)
    assert server.answered == [2002]
    under_way, report = server.requests[server.asked_after - 1 : server.asked_after + 1]
    assert {*groups(under_way), *groups(report)} == {10, None}
    assert len(report.services) == 1
    assert report.services[0].reporting_reason == ReportingReason.FORCED_REAUTHORISATION


@pytest.mark.parametrize(("command", "kind"), [(Command.RE_AUTH, 2), (Command.ABORT_SESSION, 3)])
async def test_a_pgw_does_not_wait_until_it_would_have_reported_anyway(command: Command, kind: int) -> None:
    """In real time its first report would come after many seconds; what it has used by then is reported."""
    server = AskingServer(command, later_s=0.1)
    async with listening(server):
        running = asyncio.create_task(run(server, smf_share=0, pace=0.01))
        await asyncio.wait_for(server.second_request.wait(), 10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert server.requests[1].request_type == kind
    assert server.answered[0] // 1000 == 2


@pytest.mark.parametrize("command", [Command.RE_AUTH, Command.ABORT_SESSION])
async def test_a_gateway_knows_its_sessions(command: Command) -> None:
    """RFC 6733 sections 8.3.2 and 8.5.2: 5002."""
    async with listening(AskingServer(command, session_id=b"somebody;else;1")) as server:
        await run(server, smf_share=0)
    assert server.answered == [5002]


async def test_a_pgw_cannot_report_a_rating_group_it_does_not_use() -> None:
    async with listening(AskingServer(Command.RE_AUTH, rating_group=99)) as server:
        await run(server, smf_share=0)
    assert server.answered == [5012]
