"""The charging client that all simulators share: one Diameter connection, requests, repeats, counting.

A request that gets no answer is sent again with the T flag, over a new connection if the old one broke (RFC 6733
section 5.5.4); only then it counts as unanswered. Besides, a share of the requests is repeated on purpose, in turn
with T after its answer, with T before its answer, and under a new End-to-End Identifier without T, as clients of the
field do; each must get the same answer as the first (RFC 8506 section 6.5) and the client's own audit counts it once.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from struct import Struct
from time import time
from typing import Final

from protocols.credit_control import (
    ReceivedAnswer,
    ServiceAnswer,
    Units,
    decode_answer,
    decode_asr,
    decode_rar,
    encode_asa,
    encode_raa,
)
from protocols.credit_control.session import SessionRequest
from protocols.diameter.codec import avp, error_answer
from protocols.diameter.codes import Application, Command, DisconnectCause, Flag, ResultCode
from protocols.diameter.errors import DiameterError
from protocols.diameter.node import ConnectError, Node, NodeSettings, PeerHandle, RequestError, RequestReceived
from simulators.summary import Statistics

ATTEMPTS: Final = 3
"""How often an unanswered request is sent in all."""
RECONNECT_SECONDS: Final = 1.0
"""Between attempts to connect again; a server may turn away who comes back sooner."""

DEBITED: Final = frozenset(
    (
        int(ResultCode.SUCCESS),
        int(ResultCode.LIMITED_SUCCESS),
        int(ResultCode.END_USER_SERVICE_DENIED),
        int(ResultCode.CREDIT_LIMIT_REACHED),
    )
)
"""Result-Codes of a request or service whose reported usage was debited all the same (RFC 8506 section 9.1)."""

_IDENTIFIERS: Final = Struct(">II")


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """A request of the server: Re-Auth for a session or what is named of it, or Abort-Session."""

    command: Command
    session_id: str
    rating_group: int | None = None
    service_identifier: int | None = None
    pool: int | None = None


OnServerRequest = Callable[[ServerRequest], int]
"""The Result-Code to answer a request of the server with."""


class SimulationError(Exception):
    """The simulation cannot go on; one sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How one client connects and behaves."""

    host: str
    port: int
    origin_host: str
    origin_realm: str
    repeats: float = 0.0
    """Share of requests that are repeated on purpose, 0 to 1."""
    answer_timeout_s: float = 5.0
    reconnect_s: float = 30.0
    """How long a lost connection is tried to be opened again before the run is given up."""


class ChargingClient:
    """One client node. `connect` before the first `exchange`, `close` at the end."""

    def __init__(
        self, options: ClientOptions, statistics: Statistics, random: Random, on_request: OnServerRequest | None
    ) -> None:
        """Without `on_request` the server's own requests go unanswered, as with Kamailio."""
        self._options = options
        self._statistics = statistics
        self._random = random
        self._on_request = on_request
        self.state_id = 1
        """Origin-State-Id; told in the capabilities exchange and to the watchdog."""
        self._node = self._make_node()
        self._handle: PeerHandle | None = None
        self._connecting = asyncio.Lock()
        self._repeat_kind = 0

    def _make_node(self) -> Node:
        commands = frozenset((int(Command.RE_AUTH), int(Command.ABORT_SESSION)))
        settings = NodeSettings(
            self._options.origin_host,
            self._options.origin_realm,
            self.state_id,
            applications={int(Application.CREDIT_CONTROL): commands},
            product_name="OCC simulator",
        )
        return Node(settings, self._server_request)

    async def connect(self) -> None:
        """Open the connection, CER and CEA included. Raises SimulationError."""
        options = self._options
        try:
            self._handle = await self._node.connect(options.host, options.port)
        except ConnectError as error:
            raise SimulationError(
                f"{error}; see that a charging server listens on {options.host} port {options.port} "
                f"and lets {options.origin_host} in"
            ) from error

    async def restart(self) -> None:
        """Lose all state and come back: the connection is cut without a DPR, Origin-State-Id rises (RFC 6733 8.16).

        Whoever waits for an answer must have given up before. Raises SimulationError.
        """
        assert self._handle is not None
        self._handle.connection.abort("the client restarts")
        # The time, so that it has risen since the last run, too.
        self.state_id = max(self.state_id + 1, int(time()))
        self._node = self._make_node()
        self._handle = None
        await self._reconnect(0.0)

    async def close(self) -> None:
        """Take leave with a DPR and close."""
        await self._node.stop(DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU)

    @property
    def server(self) -> str:
        """The server's DiameterIdentity, for Destination-Host."""
        return self._handle.origin_host if self._handle is not None else ""

    def next_end_to_end(self) -> int:
        """An End-to-End Identifier for a new request."""
        return self._node.next_end_to_end()

    async def exchange(self, message: bytes) -> ReceivedAnswer | None:
        """Send a Credit-Control-Request and wait for its answer; None if there was none, or none that can be read.

        Raises SimulationError if the connection is lost for good.
        """
        statistics = self._statistics
        statistics.requests += 1
        repeat = self._repeat(message)
        early = asyncio.create_task(self._send(repeat[1])) if repeat and repeat[0] else None
        started = asyncio.get_running_loop().time()
        octets = await self._attempts(message)
        if octets is None:
            statistics.unanswered += 1
        else:
            statistics.answered(asyncio.get_running_loop().time() - started)
        if repeat is not None:
            second = await (early if early is not None else self._send(repeat[1]))
            if octets is not None and second is not None and _body(octets) != _body(second):
                statistics.disagreements += 1
        if octets is None:
            return None
        try:
            answer = decode_answer(octets)
        except DiameterError:
            statistics.malformed += 1
            return None
        self._count(answer)
        return answer

    def _repeat(self, message: bytes) -> tuple[bool, bytes] | None:
        """The repeat to send on purpose: (before the answer, message); None for most requests."""
        if self._random.random() >= self._options.repeats:
            return None
        self._repeat_kind = (self._repeat_kind + 1) % 3
        if self._repeat_kind == 0:
            return False, message[:12] + _IDENTIFIERS.pack(0, self.next_end_to_end()) + message[20:]
        return self._repeat_kind == 1, _with_t(message)

    async def _send(self, message: bytes) -> bytes | None:
        """One repeat on purpose, counted; None if no answer came."""
        self._statistics.repeats += 1
        return await self._once(message)

    async def _attempts(self, message: bytes) -> bytes | None:
        octets = await self._once(message)
        for _ in range(ATTEMPTS - 1):
            if octets is not None:
                break
            await self._reconnect()
            self._statistics.repeats += 1
            octets = await self._once(_with_t(message))
        return octets

    async def _once(self, message: bytes) -> bytes | None:
        assert self._handle is not None
        try:
            return (await self._handle.request(message, self._options.answer_timeout_s)).message
        except RequestError:
            return None

    async def _reconnect(self, pause_s: float = RECONNECT_SECONDS) -> None:
        """Open the connection again if it is gone; one session does so while the others wait.

        `pause_s` before the first attempt.
        """
        async with self._connecting:
            give_up_at = asyncio.get_running_loop().time() + self._options.reconnect_s
            while self._handle is None or not self._handle.is_open:
                await asyncio.sleep(pause_s)
                pause_s = RECONNECT_SECONDS
                try:
                    await self.connect()
                except SimulationError:
                    if asyncio.get_running_loop().time() > give_up_at:
                        raise

    def _count(self, answer: ReceivedAnswer) -> None:
        statistics = self._statistics
        if answer.result_code != ResultCode.SUCCESS:
            statistics.refusals[answer.result_code] += 1
            return
        for service in answer.services:
            if service.result_code not in (None, ResultCode.SUCCESS):
                statistics.refusals[service.result_code] += 1
            if units_granted(service.granted):
                statistics.grants += 1
            if service.final_unit_action is not None:
                statistics.final_grants += 1
        if units_granted(answer.granted):
            statistics.grants += 1

    def _server_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        """RAR or ASR."""
        if self._on_request is None:
            return
        origin = avp("Origin-Host", self._options.origin_host) + avp("Origin-Realm", self._options.origin_realm)
        try:
            if event.command == Command.RE_AUTH:
                rar = decode_rar(event.message)
                asked = ServerRequest(
                    Command.RE_AUTH, _text(rar), rar.rating_group, rar.service_identifier, rar.pool_identifier
                )
                peer.send(encode_raa(rar, self._on_request(asked), origin))
            else:
                asr = decode_asr(event.message)
                asked = ServerRequest(Command.ABORT_SESSION, _text(asr))
                peer.send(encode_asa(asr, self._on_request(asked), origin))
        except DiameterError as error:
            peer.send(error_answer(event.message, error, origin))


def service_of(answer: ReceivedAnswer, rating_group: int | None, identifier: int | None = None) -> ServiceAnswer | None:
    """The answer for one service; where several fit the last one, as clients take it."""
    identifiers = () if identifier is None else (identifier,)
    found = None
    for service in answer.services:
        if service.rating_group == rating_group and tuple(service.service_identifiers) == identifiers:
            found = service
    return found


def usage_stands(answer: ReceivedAnswer, service: ServiceAnswer | None) -> bool:
    """Whether the usage a request reported for the service was debited, by what the answer says."""
    if answer.result_code not in DEBITED:
        return False
    return service is None or service.result_code is None or service.result_code in DEBITED


def units_granted(units: Units | None) -> bool:
    """Whether a Granted-Service-Unit has more than nothing in it."""
    return units is not None and bool(
        units.total_octets or units.time or units.service_specific or units.input_octets or units.output_octets
    )


def _with_t(message: bytes) -> bytes:
    return message[:4] + bytes((message[4] | Flag.RETRANSMIT,)) + message[5:]


def _body(message: bytes) -> bytes:
    """What must be the same in the answer to a repeat: everything but the two identifiers."""
    return message[:12] + message[20:]


def _text(request: SessionRequest) -> str:
    return request.session_id.decode("utf-8", "replace")
