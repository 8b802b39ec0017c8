"""How a request of the server reaches the client that it is for: by which peer, how often, and whose answer counts.

A request goes by the first way that is open: a connection with the client itself, else the peer that its last request
came by, else any relay. What no answer comes to is tried by the other ways, and again after each pause. Where this
worker has neither of the first two ways, another worker may be better placed: see ``delay_for`` and
``balance.commands``. What is asked, and what an answer means, is for ``occ.reauthorisation`` and
``occ.sy_notifications`` to know.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocols.diameter import codec
from protocols.diameter.codes import Flag, ResultCode
from protocols.diameter.errors import DiameterError
from protocols.diameter.node import AnswerReceived, Node, PeerHandle, RequestFailed

FOR_GOOD: Final = frozenset(
    (
        int(ResultCode.COMMAND_UNSUPPORTED),
        int(ResultCode.APPLICATION_UNSUPPORTED),
        int(ResultCode.INVALID_HDR_BITS),
        int(ResultCode.INVALID_AVP_BITS),
        int(ResultCode.UNKNOWN_PEER),
    )
)
"""Protocol errors that the same client would answer again."""

_RESULT_CODE: Final = 268
_ORIGIN_HOST: Final = 264


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """Times in seconds."""

    answer_within_s: float = 5.0
    """How long the answer to one message is waited for."""
    pauses_s: tuple[float, ...] = (1.0, 4.0)
    """Before each further round through all ways."""
    relay_delay_s: float = 0.5
    """How long a worker that knows no better than to try a relay leaves a request to others."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A client of the server's, by what its last request told of it."""

    origin_host: bytes
    realm: bytes
    """Empty: not known."""
    via: bytes
    """Diameter identity of the peer that the request came by: the client itself, or an agent."""


class Delivered(Enum):
    """What became of a request."""

    ANSWERED = "answered"
    """The client has answered, whatever it said."""
    UNANSWERED = "unanswered"
    """No answer in time by any way, or only from agents that could not deliver the request."""
    NO_CONNECTION = "no-connection"
    """There was no way to try."""
    WITHDRAWN = "withdrawn"
    """It was not wanted any more when it would have been tried again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The end of one request. ``result_code``: of the last answer, the client's or not; 0: there was none."""

    outcome: Delivered
    result_code: int = 0
    reason: str = ""
    """Of what is unanswered, one clause."""


class Ways:
    """The ways that one node has to clients."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def delay_for(self, host: bytes, via: bytes, relay_delay_s: float) -> float | None:
        """How long (seconds) to leave a client to workers that are better placed; None: there is no way to it here."""
        known = [way for way in (self.peer(host), self.peer(via)) if way is not None]
        if any(way.is_heard for way in known):
            return 0.0
        return relay_delay_s if known or self._relays() else None

    def peer(self, identity: bytes) -> PeerHandle | None:
        """The open peer of that identity, or None."""
        handle = self._node.handle(identity.decode("utf-8", "replace")) if identity else None
        return handle if handle is not None and handle.is_open else None

    def _relays(self) -> list[PeerHandle]:
        return [handle for handle in self._node.handles() if handle.capabilities.is_relay and handle.is_open]

    def _to(self, client: Destination) -> list[PeerHandle]:
        """The client itself, the peer its last request came by, any relay; those that fell silent after the others."""
        ways: list[PeerHandle] = []
        for way in (self.peer(client.origin_host), self.peer(client.via), *self._relays()):
            if way is not None and way not in ways:
                ways.append(way)
        return sorted(ways, key=lambda way: not way.is_heard)

    def realm_of(self, client: Destination) -> bytes:
        """The client's realm; where it is not known, the most likely one."""
        if client.realm:
            return client.realm
        direct = self.peer(client.origin_host)
        if direct is not None:
            return direct.origin_realm.encode()
        return client.origin_host.partition(b".")[2] or client.origin_host

    async def exchange(
        self,
        client: Destination,
        make_message: Callable[[Destination], bytes],
        look_again: Callable[[], Awaitable[Destination | None]],
        settings: DeliverySettings,
        on_sent: Callable[[bool], None],
    ) -> Delivery:
        """Have a client answer a request, by whatever way.

        ``make_message``: the request, each time with an End-to-End Identifier of its own. ``look_again`` is asked after
        each pause for where the client is by now; None: the request is not wanted any more. ``on_sent`` is called
        with every message, and told whether it repeats one. Raises what ``look_again`` raises.
        """
        message = make_message(client)
        result = Delivery(Delivered.NO_CONNECTION)
        useless: set[str] = set()
        for pause_s in (*settings.pauses_s, None):
            for way in self._to(client):
                if way.origin_host in useless or not way.is_open:
                    continue
                on_sent(result.outcome is Delivered.UNANSWERED)
                answer = await self._send(way, message, settings.answer_within_s)
                if isinstance(answer, RequestFailed):
                    reason = f"{way.origin_host}: {answer.reason}"
                    result = Delivery(Delivered.UNANSWERED, result.result_code, reason)
                    message = _repeated(message) if answer.sent else message
                    continue
                code, host = _read(answer.message)
                if not _is_protocol_error(code) and _speaks_for(client, host, way):
                    return Delivery(Delivered.ANSWERED, code)
                reason = f"{host.decode('utf-8', 'replace') or way.origin_host} answered {code}"
                result = Delivery(Delivered.UNANSWERED, code, reason)
                if code in FOR_GOOD:
                    useless.add(way.origin_host)
                message = make_message(client)
            if pause_s is None or (useless and all(way.origin_host in useless for way in self._to(client))):
                break
            await asyncio.sleep(pause_s)
            current = await look_again()
            if current is None:
                return Delivery(Delivered.WITHDRAWN, result.result_code, result.reason)
            client = current  # it may come by another peer by now
        return result

    async def _send(self, way: PeerHandle, message: bytes, within_s: float) -> AnswerReceived | RequestFailed:
        future: asyncio.Future[AnswerReceived | RequestFailed] = asyncio.get_running_loop().create_future()

        def on_answer(outcome: AnswerReceived | RequestFailed) -> None:
            if not future.done():
                future.set_result(outcome)

        self._node.send_request(way, message, on_answer, within_s)
        return await future


def _is_protocol_error(code: int) -> bool:
    """RFC 6733 section 7.1.3: something on the way went wrong, the client has decided nothing."""
    return 3000 <= code < 4000


def _speaks_for(client: Destination, host: bytes, way: PeerHandle) -> bool:
    """Whether an answer counts as the client's.

    It bears the client's name, or comes by where the client is known to be. A relay that was only tried may say what
    it likes: it must not close a session.
    """
    known = (client.origin_host.lower(), client.via.lower())
    return host.lower() == known[0] or way.origin_host.encode().lower() in known


def _read(message: bytes) -> tuple[int, bytes]:
    """Result-Code and Origin-Host of an answer, whatever else is wrong with it; 0 and nothing where there is none."""
    try:
        answer = codec.decode(message)
    except DiameterError:
        return 0, b""
    code, host = answer.find(_RESULT_CODE), answer.find(_ORIGIN_HOST)
    number = int.from_bytes(code.data, "big") if code is not None and len(code.data) == 4 else 0
    return number, host.data if host is not None else b""


def _repeated(message: bytes) -> bytes:
    """The same message with the T flag: the client may have got it before (RFC 6733 section 3)."""
    return message[:4] + bytes((message[4] | Flag.RETRANSMIT,)) + message[5:]
