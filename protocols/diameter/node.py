"""One local Diameter node on asyncio: listeners, dialing, the open peers, requests and answers.

A `Node` joins `peer_table.PeerTable`, which knows the protocol, with `connection.DiameterConnection`,
which knows sockets. What it adds is what needs both: which peer is dialed when, which connection an
answer or a request goes by, and what is answered before an application sees a request (3001 and 3007,
from the header alone).

Callbacks run inside the event loop and must not block. `on_request` gets every request of a command that
`NodeSettings.applications` lists; whoever takes it answers with `PeerHandle.send`.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random, SystemRandom
from typing import Final, cast

from protocols.diameter.codes import DisconnectCause, ResultCode
from protocols.diameter.connection import DiameterConnection, Handlers
from protocols.diameter.errors import MessageError
from protocols.diameter.events import (
    AnswerReceived,
    Closed,
    Event,
    Opened,
    PeerEvent,
    Recovered,
    Refused,
    RequestFailed,
    RequestReceived,
    Role,
    StateIdChanged,
    Suspect,
)
from protocols.diameter.handle import DEFAULT_TIMEOUT_SECONDS, PeerHandle, PeerStatus
from protocols.diameter.link import Disconnect, Link, Tap
from protocols.diameter.outgoing import OnAnswer, OutgoingRequest, RequestError, RequestQueue
from protocols.diameter.peer import Peer
from protocols.diameter.peer_table import PeerTable
from protocols.diameter.reception import accept
from protocols.diameter.routing import route
from protocols.diameter.settings import Admission, AllowedPeer, NodeSettings, PeerPolicy
from protocols.diameter.watchdog import WatchdogState

__all__ = [
    "Admission",
    "AllowedPeer",
    "AnswerReceived",
    "ConnectError",
    "Node",
    "NodeSettings",
    "PeerHandle",
    "PeerPolicy",
    "PeerStatus",
    "RequestError",
    "RequestFailed",
    "RequestReceived",
    "route",
]

_LOG: Final = logging.getLogger("protocols.diameter.node")

_BACKLOG: Final = 1024
_ANSWERED_CHECK_S: Final = 0.01
"""Between two looks, while the node stops, whether requests that had been received are answered."""
_MAX_WARNED: Final = 1000
"""Refused peers that were logged as a warning; after that many the list starts anew."""

OnRequest = Callable[[PeerHandle, RequestReceived], None]
OnEvent = Callable[[PeerEvent], None]


class ConnectError(Exception):
    """A connection to a peer could not be opened; the message says why."""


class Node:
    """One DiameterIdentity, its listeners and its peers. Belongs to the event loop it is used in."""

    def __init__(
        self,
        settings: NodeSettings,
        on_request: OnRequest | Mapping[int, OnRequest],
        on_event: OnEvent | None = None,
        *,
        random: Random | None = None,
    ) -> None:
        """`on_request`: what takes requests, or for each Application-Id what takes those of it. `random` draws
        identifiers, watchdog jitter and reconnection delays; tests give a seeded one.
        """
        self.settings = settings
        self._on_event = on_event
        self._random = random or SystemRandom()
        self._table = PeerTable(settings, self._random)
        self._commands = {
            int(application): frozenset(map(int, commands)) for application, commands in settings.applications.items()
        }
        self.handlers: Handlers = {
            (application, command): on_request if callable(on_request) else on_request[application]
            for application, commands in self._commands.items()
            for command in commands
        }
        self._known_commands: frozenset[int] = frozenset().union(*self._commands.values())
        self._connections: dict[Link, DiameterConnection] = {}
        self._open: dict[str, PeerHandle] = {}
        self._strangers: dict[Link, str] = {}
        """Accepted connections that are not open yet, and where they come from."""
        self._strangers_from: Counter[str] = Counter()
        self._requests = RequestQueue(self._find)
        self._servers: list[asyncio.Server] = []
        self._dialers: list[asyncio.Task[None]] = []
        self._awaited: dict[DiameterConnection, asyncio.Future[PeerHandle]] = {}
        self._moved = asyncio.Event()
        self._warned: set[tuple[str, str, str]] = set()
        self._stopping = False
        self._tap: Tap | None = None

    # Starting and stopping

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on an address, and dial the configured peers; returns the port (give 0 for any).

        With `tls`, TLS runs from the first octet. May be called again for another address or port. Raises OSError
        if the address cannot be had.
        """
        server = await asyncio.get_running_loop().create_server(
            self._connection,
            host,
            port,
            ssl=tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=self._handshake_seconds(tls),
        )
        self._servers.append(server)
        self.start_dialing()
        return int(server.sockets[0].getsockname()[1])

    async def listen(self, listening: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Take connections from sockets that are bound already; nobody is dialed. With `tls` as in `start`.

        The sockets are the node's from now on. Another process may have them as well: what neither accepts waits.
        """
        loop = asyncio.get_running_loop()
        for each in listening:
            server = await loop.create_server(
                self._connection,
                sock=each,
                ssl=tls,
                backlog=_BACKLOG,
                ssl_handshake_timeout=self._handshake_seconds(tls),
            )
            self._servers.append(server)

    def _connection(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, DiameterConnection(self, self._accepted))

    def _handshake_seconds(self, tls: ssl.SSLContext | None) -> float | None:
        """A stranger has as long to finish a TLS handshake as for its CER after it."""
        return None if tls is None else self.settings.capabilities_timeout_seconds

    def stop_listening(self) -> None:
        """Take no further connections; those there are stay."""
        for server in self._servers:
            server.close()

    def start_dialing(self, tls: ssl.SSLContext | None = None) -> None:
        """Open connections with all configured peers that have a `connect_host`, and keep them open.

        `tls` serves those whose settings ask for TLS; their certificates must name their identities.
        """
        if self._dialers:
            return
        for peer in self._table:
            if peer.configured is not None and peer.configured.connect_host is not None:
                self._dialers.append(asyncio.create_task(self._keep_open(peer, peer.configured, tls)))

    async def stop(self, cause: DisconnectCause = DisconnectCause.REBOOTING) -> None:
        """Take leave of every peer with a DPR, wait for the DPAs within bounds, close everything (RFC 6733 5.4).

        Nobody is let in any more. What a peer sent before it acknowledged the DPR is handed out as before, and its
        connection is closed once all of that is answered, `disconnect_timeout_seconds` after the DPR at the latest.
        """
        self._stopping = True
        self.stop_listening()
        for dialer in self._dialers:
            dialer.cancel()
        await asyncio.gather(*self._dialers, return_exceptions=True)
        now = asyncio.get_running_loop().time()
        for link, connection in list(self._connections.items()):
            receiver = link.receiver
            if isinstance(receiver, Peer):
                for event in receiver.stop(cause, now):
                    self.connection_event(connection, event)
                self.serve(link)
            elif link.disconnect is Disconnect.NO:
                link.disconnect = Disconnect.FLUSH
            connection.service()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.disconnect_timeout_seconds):
                while self._connections:
                    self._moved.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._moved.wait(), _ANSWERED_CHECK_S)
                    self._close_answered()
        for connection in list(self._connections.values()):
            connection.abort("it sent no DPA in time")
        while self._connections:
            self._moved.clear()
            await self._moved.wait()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self._dialers.clear()

    def _close_answered(self) -> None:
        """Close the connections whose peers have acknowledged our leave and got all their answers."""
        now = asyncio.get_running_loop().time()
        for peer in list(self._table):
            events = peer.close_answered(now)
            if events:
                self._peer_events(events)
                self._serve_peer(peer)

    # Peers

    def peers(self) -> list[PeerStatus]:
        """All peers that are configured or connected."""
        now = asyncio.get_running_loop().time()
        return [self._status(peer, now) for peer in self._table]

    def _status(self, peer: Peer, now: float) -> PeerStatus:
        link, capabilities = peer.open_link, peer.capabilities
        if link is None or capabilities is None or link.watchdog is None:
            return PeerStatus(peer.identity, state=peer.state.value, statistics=peer.statistics)
        return PeerStatus(
            origin_host=capabilities.origin_host,
            origin_realm=capabilities.origin_realm,
            state=peer.state.value,
            watchdog=link.watchdog.state.value,
            remote_address=link.remote_address,
            applications=tuple(sorted(capabilities.in_common(self.settings))),
            product_name=capabilities.product_name,
            origin_state_id=capabilities.origin_state_id,
            open_seconds=now - peer.opened_at,
            pending_requests=len(link.pending),
            statistics=peer.statistics,
        )

    def handle(self, origin_host: str) -> PeerHandle | None:
        """The open peer of that identity, whatever the case of its letters."""
        return self._open.get(origin_host.lower())

    def handles(self) -> list[PeerHandle]:
        """All open peers, in the order in which they opened."""
        return list(self._open.values())

    @property
    def open_peers(self) -> int:
        """How many peers are open."""
        return len(self._open)

    @property
    def opening(self) -> int:
        """How many connections were accepted and are not open yet."""
        return len(self._strangers)

    def set_tap(self, tap: Tap | None) -> None:
        """Have every message of every connection seen from now on, as it was received or is sent; None ends that."""
        self._tap = tap
        for link in self._connections:
            link.tap = tap

    def endpoints(self, link: Link) -> tuple[tuple[str, int], tuple[str, int]]:
        """Our own and the remote address and port of a connection."""
        connection = self._connections.get(link)
        return (("0.0.0.0", 0), (link.remote_address, 0)) if connection is None else connection.endpoints

    def next_end_to_end(self) -> int:
        """An End-to-End Identifier for a new request (RFC 6733 section 3)."""
        return self._table.next_end_to_end()

    async def connect(
        self,
        host: str,
        port: int,
        *,
        identity: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> PeerHandle:
        """Open one connection, as a client does; it is not opened again when it closes.

        `identity` is the Origin-Host to expect; None takes whoever answers. Raises ConnectError.
        """
        peer = self._table.nameless() if identity is None else self._table.find_or_add(identity)
        if not peer.is_closed():
            raise ConnectError(f"{peer.identity} has a connection in state {peer.state.value} already")
        connection, opened = await self._dial(peer, host, port, tls, server_hostname)
        try:
            return await opened
        except asyncio.CancelledError:
            connection.abort("nobody waits for it any more")
            raise

    async def _dial(
        self,
        peer: Peer,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        server_hostname: str | None = None,
    ) -> tuple[DiameterConnection, asyncio.Future[PeerHandle]]:
        """Open a transport for a closed peer; the future knows when the peer is open. Raises ConnectError."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[PeerHandle] = loop.create_future()
        peer.start(loop.time())

        made: list[DiameterConnection] = []

        def factory() -> asyncio.Protocol:
            made.append(DiameterConnection(self, peer.connected))
            self._awaited[made[-1]] = opened
            return cast(asyncio.Protocol, made[-1])

        try:
            async with asyncio.timeout(self.settings.connect_timeout_seconds):
                await loop.create_connection(factory, host, port, ssl=tls, server_hostname=server_hostname)
        except (OSError, TimeoutError) as error:
            reason = f"cannot connect to {host} port {port}: {str(error) or 'no connection in time'}"
            events = peer.connect_failed(reason, loop.time())
            self._serve_peer(peer)
            self._peer_events(events)
            raise ConnectError(reason) from error
        return made[-1], opened

    async def _keep_open(self, peer: Peer, allowed: AllowedPeer, tls: ssl.SSLContext | None) -> None:
        """Dial a configured peer whenever it is closed, more and more slowly while that fails (RFC 6733 2.1)."""
        settings = self.settings
        assert allowed.connect_host is not None
        delay = settings.reconnect_min_seconds
        while True:
            while not peer.is_closed() or not peer.may_reconnect:
                self._moved.clear()
                await self._moved.wait()
            opened_at = peer.opened_at
            with suppress(ConnectError):  # the Refused event has been logged
                context, name = (tls, allowed.identity) if allowed.tls else (None, None)
                await self._dial(peer, allowed.connect_host, allowed.connect_port, context, name)
            while not peer.is_closed():
                self._moved.clear()
                await self._moved.wait()
            if peer.opened_at != opened_at:
                delay = settings.reconnect_min_seconds
            await asyncio.sleep(delay * (1 + 0.1 * self._random.random()))
            delay = min(2 * delay, settings.reconnect_max_seconds)

    # Requests of ours

    def send_request(
        self,
        target: PeerHandle | str,
        message: bytes,
        on_answer: OnAnswer,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        alternates: Sequence[str] = (),
    ) -> None:
        """Send an encoded request to a peer, given by handle or Origin-Host; its Hop-by-Hop Identifier is filled in.

        `on_answer` is called exactly once, later, with the answer or with RequestFailed. Should the connection
        fail or fall silent before, the request is sent again with the T flag over a newer connection of the same
        peer or over one with a host in `alternates`, if there is one (RFC 6733 5.5.4).
        """
        host = target if isinstance(target, str) else target.origin_host
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        self._requests.send(OutgoingRequest(message, on_answer, deadline, (host, *alternates)))

    def _find(self, hosts: tuple[str, ...], other_than: Link | None) -> DiameterConnection | None:
        """The first open connection with one of the hosts, better one whose watchdog is content."""
        doubtful = None
        for host in hosts:
            handle = self._open.get(host.lower())
            if handle is None or not handle.is_open:
                continue
            link = handle.connection.link
            if link is None or link is other_than:
                continue
            if link.watchdog is not None and link.watchdog.state is WatchdogState.OKAY:
                return handle.connection
            doubtful = doubtful or handle.connection
        return doubtful if other_than is None else None

    # What connections report

    def _accepted(self, remote: str, local: str, now: float) -> tuple[Link | None, list[Event]]:
        if self._stopping:
            return None, []
        settings = self.settings
        if len(self._connections) >= settings.max_connections:
            self._turn_away(remote, f"there are max_connections = {settings.max_connections} already")
            return None, []
        if self._strangers_from[remote] >= settings.max_strangers_per_address:
            reason = f"max_strangers_per_address = {settings.max_strangers_per_address} from there are not open yet"
            self._turn_away(remote, reason)
            return None, []
        link = accept(self._table, remote, local, now)
        self._strangers[link] = remote
        self._strangers_from[remote] += 1
        return link, []

    def _turn_away(self, remote: str, reason: str) -> None:
        """Whoever is refused a connection tries again, maybe at once: it is a warning the first time."""
        level = logging.DEBUG if self._has_been_warned(("", remote, reason)) else logging.WARNING
        _LOG.log(level, "refused a connection from %s: %s", remote, reason)

    def _is_no_stranger(self, link: Link) -> None:
        """An accepted connection is open, or is gone."""
        remote = self._strangers.pop(link, None)
        if remote is not None:
            self._strangers_from[remote] -= 1
            if not self._strangers_from[remote]:
                del self._strangers_from[remote]

    def connection_up(self, connection: DiameterConnection) -> None:
        """See `connection.Owner`."""
        assert connection.link is not None
        self._connections[connection.link] = connection
        connection.link.tap = self._tap

    def connection_down(self, connection: DiameterConnection) -> None:
        """See `connection.Owner`."""
        if connection.link is not None:
            self._connections.pop(connection.link, None)
            self._is_no_stranger(connection.link)
        connection.handle = None
        self._settle(connection, "it closed its connection before it was open")
        self._moved.set()

    def serve(self, link: Link) -> None:
        """See `connection.Owner`."""
        receiver = link.receiver
        if isinstance(receiver, Peer):
            self._serve_peer(receiver)

    def _serve_peer(self, peer: Peer) -> None:
        for link in peer.take_changed():
            connection = self._connections.get(link)
            if connection is not None:
                connection.service()
        self._moved.set()

    def connection_event(self, connection: DiameterConnection, event: Event) -> None:
        """See `connection.Owner`."""
        if isinstance(event, RequestReceived):
            self._refuse_request(connection, event)
        elif isinstance(event, AnswerReceived):
            self._requests.answered(event)
        else:
            if isinstance(event, Refused):
                self._settle(connection, event.reason)
            self._peer_events((event,))

    def request_failed(self, connection: DiameterConnection, event: RequestReceived) -> None:
        """See `connection.Owner`."""
        _LOG.exception("the handler of a request raised")
        self._answer_error(connection, event, ResultCode.UNABLE_TO_COMPLY, "internal error")

    def _refuse_request(self, connection: DiameterConnection, event: RequestReceived) -> None:
        """RFC 6733 7.1.3: 3001 for a command that no application of ours has, 3007 for a foreign application."""
        if event.command in self._known_commands and event.application not in self._commands:
            result, what = ResultCode.APPLICATION_UNSUPPORTED, f"application {event.application}"
        else:
            result, what = ResultCode.COMMAND_UNSUPPORTED, f"command {event.command}"
        self._answer_error(connection, event, result, f"{what} is not supported")

    def _answer_error(
        self, connection: DiameterConnection, event: RequestReceived, result: ResultCode, text: str
    ) -> None:
        link = connection.link
        if link is not None:
            link.refused += 1
            link.answer_error(event.message, MessageError(result, text))
            connection.flush_soon()

    # What happens to peers

    def _peer_events(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, RequestReceived | AnswerReceived):
                continue
            if isinstance(event, Opened):
                self._peer_opened(event)
            elif isinstance(event, Closed):
                self._peer_closed(event)
            elif isinstance(event, Refused):
                self._peer_refused(event)
            elif isinstance(event, Suspect):
                self._peer_suspect(event)
            elif isinstance(event, Recovered):
                _LOG.info("peer %s is heard again", event.origin_host)
            elif isinstance(event, StateIdChanged):
                _LOG.info(
                    "peer %s lost its sessions: Origin-State-Id %d, was %d", event.origin_host, event.new, event.old
                )
            self._moved.set()
            if self._on_event is not None:
                try:
                    self._on_event(event)
                except Exception:
                    _LOG.exception("the handler of a peer event raised")

    def _peer_opened(self, event: Opened) -> None:
        peer = self._table.find(event.origin_host)
        if peer is None:
            return
        # Not `open_link`: a DPR that came in one piece with the CER has closed the peer to what is new by now, and what
        # was asked in between is handed out after this.
        link = peer.initiator if event.role is Role.INITIATOR else peer.responder
        connection = self._connections.get(link) if link is not None else None
        if link is None or connection is None:
            return
        self._is_no_stranger(link)
        handle = PeerHandle(connection, event, self.send_request)
        connection.handle = handle
        self._open[event.origin_host.lower()] = handle
        awaited = self._awaited.pop(connection, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(handle)
        _LOG.info(
            "peer %s (realm %s, %s) is open from %s",
            event.origin_host,
            event.origin_realm,
            event.product_name.encode("unicode_escape").decode("ascii") or "no product name",
            event.remote_address,
        )

    def _peer_closed(self, event: Closed) -> None:
        self._open.pop(event.origin_host.lower(), None)
        _LOG.info("peer %s is closed: %s", event.origin_host, event.reason)
        self._requests.connection_lost(event.unanswered, event.reason)

    def _peer_suspect(self, event: Suspect) -> None:
        _LOG.warning("peer %s does not answer its watchdog", event.origin_host)
        handle = self._open.get(event.origin_host.lower())
        if handle is not None and handle.connection.link is not None:
            self._requests.suspect(handle.connection.link)

    def _peer_refused(self, event: Refused) -> None:
        """Log it once as a warning, since such a peer comes back every few seconds."""
        key = (event.origin_host, event.remote_address, event.reason)
        level = logging.DEBUG if self._has_been_warned(key) else logging.WARNING
        _LOG.log(
            level,
            "%s peer %s%s%s: %s%s",
            "refused" if event.hint else "no connection with",
            event.origin_host or "of unknown identity",
            f" (realm {event.origin_realm})" if event.origin_realm else "",
            f" at {event.remote_address}" if event.remote_address else "",
            event.reason,
            f"; to let it in, {event.hint}" if event.hint else "",
        )

    def _has_been_warned(self, key: tuple[str, str, str]) -> bool:
        """Whether there was a warning of this, which there is now."""
        if key in self._warned:
            return True
        if len(self._warned) >= _MAX_WARNED:
            self._warned.clear()
        self._warned.add(key)
        return False

    def _settle(self, connection: DiameterConnection, reason: str) -> None:
        """Whoever waits for this connection to open waits in vain."""
        awaited = self._awaited.pop(connection, None)
        if awaited is not None and not awaited.done():
            awaited.set_exception(ConnectError(reason))
            awaited.exception()  # nobody has to look at it
