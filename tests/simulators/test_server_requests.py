"""What gateways do when the server asks: re-authorisation and abortion of a session (rows 42 and 43)."""

import asyncio
from collections.abc import AsyncIterator

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
    """Grants whatever is asked for, and sends one request of its own just ahead of its first answer."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.requests: list[CreditControlRequest] = []
        self.answered: list[int] = []
        self.node = Node(NodeSettings(HOST, REALM), self.on_request)
        self.port = 0

    def on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        request = decode_request(event.message)
        if not self.requests:
            session = (request.session_id, HOST.encode(), REALM.encode(), request.origin_realm, request.origin_host)
            end_to_end = self.node.next_end_to_end()
            if self.command is Command.RE_AUTH:
                message = encode_rar(ReAuthRequest(0, end_to_end, *session))
            else:
                message = encode_asr(AbortSessionRequest(0, end_to_end, *session))
            self.node.send_request(peer, message, self.on_answer)
        self.requests.append(request)
        services = [
            ServiceAnswer(each.rating_group, (), 2001, Units(total_octets=1 << 20) if each.requested else None)
            for each in request.services
        ]
        peer.send(encode_answer(request, CreditControlAnswer(2001, services), ORIGIN))

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


async def run(server: AskingServer, smf_share: float) -> Summary:
    options = GatewayOptions(port=server.port, sessions=1, smf_share=smf_share, volume_octets=3 << 20)
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
