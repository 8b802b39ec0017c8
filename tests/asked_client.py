"""A charging client, or an agent with clients behind it, that answers the server's own requests as a test tells it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protocols.credit_control import (
    AbortSessionRequest,
    CreditControlRequest,
    ReAuthRequest,
    ReceivedAnswer,
    ServiceRequest,
    Units,
    decode_answer,
    decode_asr,
    decode_rar,
    encode_asa,
    encode_raa,
    encode_request,
)
from protocols.diameter.codec import Message, avp, decode
from protocols.diameter.codes import Application, Command, Flag
from protocols.diameter.node import Node, NodeSettings, PeerHandle, RequestReceived

REALM = "clients.example.net"
SERVER_REALM = "ocs.example.net"
CONTEXT = b"32251@3gpp.org"
MIB = 1 << 20
INITIAL, UPDATE, TERMINATION = 1, 2, 3
E164 = 0


@dataclass(frozen=True)
class Asked:
    """One request of the server."""

    request: ReAuthRequest | AbortSessionRequest
    message: Message
    again: bool
    """It bore the T flag."""


Reply = Callable[[Asked], Awaitable["int | tuple[int, str] | None"]]
"""The Result-Code to answer with, and who says so if it is not the Destination-Host; None is silence."""


def always(result_code: int | None) -> Reply:
    """The same answer, or silence, whatever is asked."""

    async def reply(asked: Asked) -> int | None:
        return result_code

    return reply


def in_turn(*results: int | None) -> Reply:
    """One answer after the other, then the last one for ever."""
    left = list(results)

    async def reply(asked: Asked) -> int | None:
        return left.pop(0) if len(left) > 1 else left[0]

    return reply


class AskedClient:
    """One Diameter connection. ``asked`` keeps what the server asked by it."""

    def __init__(self, identity: str, *, relay: bool = False, product_name: str = "test", gx: bool = False) -> None:
        """``relay``: it says that it forwards requests of any application; ``gx``: it says that it has Gx as well."""
        self.identity = identity
        self.asked: list[Asked] = []
        self.reply: Reply = always(2002)
        self.came = asyncio.Event()
        """Set whenever the server asks; for tests to clear."""
        asks = frozenset((int(Command.RE_AUTH), int(Command.ABORT_SESSION)))
        applications = {int(Application.CREDIT_CONTROL): asks}
        if relay:
            applications[int(Application.RELAY)] = frozenset()
        if gx:
            applications[16777238] = frozenset()
        self.node = Node(
            NodeSettings(identity, REALM, applications=applications, product_name=product_name), self._on_request
        )
        self._handle: PeerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers: dict[str, int] = {}

    async def connect(self, port: int) -> "AskedClient":
        self._handle = await self.node.connect("127.0.0.1", port)
        return self

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.node.stop()

    def _on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        decode_one = decode_rar if event.command == Command.RE_AUTH else decode_asr
        request = decode_one(event.message)
        asked = Asked(request, decode(event.message), bool(event.flags & Flag.RETRANSMIT))
        self.asked.append(asked)
        self.came.set()
        task = asyncio.get_running_loop().create_task(self._answer(peer, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, peer: PeerHandle, asked: Asked) -> None:
        reply = await self.reply(asked)
        if reply is None:
            return
        request = asked.request
        code, host = reply if isinstance(reply, tuple) else (reply, request.destination_host.decode())
        origin = avp("Origin-Host", host) + avp("Origin-Realm", REALM)
        if isinstance(request, ReAuthRequest):
            peer.send(encode_raa(request, code, origin))
        else:
            peer.send(encode_asa(request, code, origin))

    # -- credit control --------------------------------------------------------------------------------------------

    async def begin(self, session_id: str, subscriber: str, client: str = "", sub: int | None = None) -> ReceivedAnswer:
        """CCR-I for 10 MiB in Rating-Group 10, which costs 0.01 for each MiB; ``client``: who is behind this agent."""
        self._numbers[session_id] = 0
        return await self.charge(INITIAL, session_id, client=client, subscriber=subscriber, sub=sub)

    async def update(self, session_id: str, used_mib: int = 1, client: str = "") -> ReceivedAnswer:
        """CCR-U for 10 MiB more."""
        return await self.charge(UPDATE, session_id, used_mib, client)

    async def end(self, session_id: str, used_mib: int = 1, client: str = "") -> ReceivedAnswer:
        """CCR-T."""
        return await self.charge(TERMINATION, session_id, used_mib, client)

    async def charge(
        self,
        kind: int,
        session_id: str,
        used_mib: int | None = None,
        client: str = "",
        subscriber: str = "",
        sub: int | None = None,
    ) -> ReceivedAnswer:
        number = self._numbers.setdefault(session_id, 1)
        self._numbers[session_id] += 1
        request = CreditControlRequest(
            flags=Flag.REQUEST | Flag.PROXIABLE,
            hop_by_hop=0,
            end_to_end=self.node.next_end_to_end(),
            session_id=session_id.encode(),
            origin_host=(client or self.identity).encode(),
            origin_realm=REALM.encode(),
            destination_realm=SERVER_REALM.encode(),
            service_context_id=CONTEXT,
            request_type=kind,
            request_number=number,
            services=(
                ServiceRequest(
                    10,
                    requested=None if kind == TERMINATION else Units(total_octets=10 * MIB),
                    used=() if used_mib is None else (Units(total_octets=used_mib * MIB),),
                ),
            ),
            subscriptions=((E164, subscriber.encode()),) if subscriber else (),
        )
        request.sub_session_id = sub
        request.multiple_services_indicator = 1
        assert self._handle is not None
        return decode_answer((await self._handle.request(encode_request(request))).message)
