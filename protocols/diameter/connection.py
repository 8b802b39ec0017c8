"""The asyncio shell around one `Link`: socket, timer, write batching, back-pressure, TLS.

Everything that one loop iteration sends to a peer goes out in one `transport.write`, up to
`MAX_BATCH_MESSAGES`. What piles up unread is bounded twice: above `high_water_octets` the peer is no
longer read from, so it cannot cause more; above `max_output_octets` it is closed. Works alike under
asyncio and uvloop; with an SSL context given to the listener or the dialer, TLS runs from the first
octet (RFC 6733 2.1).
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from struct import pack
from typing import Any, Final, Protocol, cast

from protocols.diameter.events import Event, RequestReceived
from protocols.diameter.link import Disconnect, Link
from protocols.diameter.settings import NodeSettings

_LOG: Final = logging.getLogger("protocols.diameter.connection")

MAX_BATCH_MESSAGES: Final = 512
"""With more than this to write, it is written at once: back-pressure must be felt within the iteration, as
uvloop reads megabytes in one."""

_RESET_ON_CLOSE: Final = pack("ii", 1, 0)
"""struct linger: close with RST."""

# An attribute of an enumeration costs a third of a microsecond.
_NO: Final = Disconnect.NO
_FLUSH: Final = Disconnect.FLUSH
_ABORT: Final = Disconnect.ABORT

MakeLink = Callable[[str, str, float], tuple[Link | None, list[Event]]]
"""From remote address, local address and now to the link of a transport that is up; None refuses it."""


Handlers = dict[tuple[int, int], Callable[[Any, RequestReceived], None]]
"""(Application-Id, command) -> what a request is given to, with the `handle` of the connection it came by."""


class Owner(Protocol):
    """The node behind the connections."""

    settings: NodeSettings

    @property
    def handlers(self) -> Handlers:
        """Of the requests that are taken."""

    def connection_up(self, connection: "DiameterConnection") -> None:
        """`connection.link` exists from now on."""

    def connection_down(self, connection: "DiameterConnection") -> None:
        """The transport is gone; `connection_event` was called before with what that meant."""

    def connection_event(self, connection: "DiameterConnection", event: Event) -> None:
        """Something happened, other than that a request came which is taken; must not raise."""

    def request_failed(self, connection: "DiameterConnection", event: RequestReceived) -> None:
        """The handler of a request raised; called from where the exception is at hand. Must not raise."""

    def serve(self, link: Link) -> None:
        """Look after the other connections that an event of `link` may have changed."""


def certified_names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """The host names of a certificate as ``ssl.SSLSocket.getpeercert`` tells it, in small letters.

    RFC 6733 section 13.1 has them in subjectAltName (RFC 6125); a Common Name counts where that names no host.
    """
    names = {value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    if not names:
        subject = (pair for part in certificate.get("subject", ()) for pair in part)
        names = {value.lower() for kind, value in subject if kind == "commonName"}
    return frozenset(names)


class DiameterConnection:
    """One transport connection, which loops know as an `asyncio.Protocol`. Times come from the loop's clock."""

    __slots__ = (
        "_abort_reason",
        "_flush_due",
        "_handlers",
        "_loop",
        "_make_link",
        "_owner",
        "_paused",
        "_seen_base_messages",
        "_timer",
        "_timer_at",
        "_transport",
        "handle",
        "link",
    )

    def __init__(self, owner: Owner, make_link: MakeLink) -> None:
        self._owner = owner
        self._handlers = owner.handlers
        self._make_link = make_link
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._flush_due = False
        self._paused = False
        self._seen_base_messages = 0
        self._abort_reason = ""
        self.link: Link | None = None
        self.handle: Any = None
        """What a request is handed on with; the owner's, once the peer is open."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is up, TLS included."""
        stream = cast(asyncio.Transport, transport)
        endpoint = stream.get_extra_info("socket")
        if endpoint is not None:
            with suppress(OSError):
                endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        remote = _address(stream.get_extra_info("peername"))
        local = _address(stream.get_extra_info("sockname"))
        link, events = self._make_link(remote, local, self._loop.time())
        if link is None:
            stream.abort()
            self._owner.connection_down(self)
            return
        stream.set_write_buffer_limits(high=self._owner.settings.high_water_octets)
        self._transport = stream
        self.link = link
        certificate = stream.get_extra_info("peercert")
        if certificate:
            link.certified = certified_names(certificate)
        self._owner.connection_up(self)
        if events:
            self._report(events)
        self._owner.serve(link)
        self.service()

    def data_received(self, data: bytes) -> None:
        """The hot path: frames to events, events to the owner."""
        link = self.link
        if link is None:
            return
        events = link.receive_data(data, self._loop.time())
        if events:
            self._report(events)
        if link.base_messages != self._seen_base_messages or link.disconnect is not _NO:
            self._seen_base_messages = link.base_messages
            self._owner.serve(link)
            self.service()
        elif link.output:
            if len(link.output) > MAX_BATCH_MESSAGES:
                self._write(link)
            elif not self._flush_due:
                self._flush_due = True
                self._loop.call_soon(self._flush)

    def _report(self, events: list[Event]) -> None:
        """The hot path goes on: requests to their handlers, all else to the owner."""
        handlers = self._handlers
        for event in events:
            if isinstance(event, RequestReceived):
                handler = handlers.get((event.application, event.command))
                if handler is not None:
                    try:
                        handler(self.handle, event)
                    except Exception:
                        self._owner.request_failed(self, event)
                    continue
            self._owner.connection_event(self, event)

    def eof_received(self) -> None:
        """The peer has closed its side: nothing more is said to it either."""

    def pause_writing(self) -> None:
        """The peer does not keep up with reading: what it sends must wait as well."""
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        if self._transport is not None and self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone, whoever ended it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        link = self.link
        if link is None:
            return
        reason = self._abort_reason or (f"its connection failed: {exc}" if exc else "it closed its connection")
        events = link.receiver.link_lost(link, reason, self._loop.time())
        link.disconnect = Disconnect.ABORT
        link.output.clear()
        if events:
            self._report(events)
        self._owner.serve(link)
        self._owner.connection_down(self)

    # For the owner

    @property
    def endpoints(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Our own and the remote address and port; 0 is a port that is not known any more."""
        transport = self._transport
        names = [None if transport is None else transport.get_extra_info(name) for name in ("sockname", "peername")]
        own, remote = ((_address(name), name[1] if isinstance(name, tuple) else 0) for name in names)
        return own, remote

    def send_answer(self, message: bytes) -> bool:
        """Send an encoded answer. False: the connection it belongs to is gone, the peer will ask again."""
        link = self.link
        if link is None or link.disconnect is not _NO:
            return False
        link.send_answer(message)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        return True

    def flush_soon(self) -> None:
        """Write what is in the link's output at the end of this loop iteration."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def service(self) -> None:
        """Write what is in the link's output, do what its `disconnect` says, set the timer anew."""
        link = self.link
        if link is None or self._transport is None:
            return
        if link.output or link.disconnect is not _NO:
            self.flush_soon()
        if link.disconnect is _NO:
            self._set_timer(link.receiver.next_timeout())

    def abort(self, reason: str) -> None:
        """Reset the connection; `reason` goes into the events that follow."""
        self._abort_reason = self._abort_reason or reason
        if self._transport is not None:
            endpoint = self._transport.get_extra_info("socket")
            if endpoint is not None:
                with suppress(OSError):
                    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    # Writing and timing

    def _flush(self) -> None:
        self._flush_due = False
        link = self.link
        if link is None:
            return
        if link.disconnect is _ABORT:
            self.abort("")
            return
        if link.output:
            self._write(link)
        if link.disconnect is _FLUSH and self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._set_abort_timer()

    def _write(self, link: Link) -> None:
        transport, output = self._transport, link.output
        if transport is None or transport.is_closing():
            output.clear()
            return
        if link.tap is not None:
            for message in output:
                link.tap(link, message, True)
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        link.statistics.octets_sent += len(data)
        transport.write(data)
        unread = transport.get_write_buffer_size()
        if unread > self._owner.settings.max_output_octets:
            self._overflow(link, unread)

    def _overflow(self, link: Link, unread: int) -> None:
        _LOG.error(
            "closing the connection with %s: it leaves %d octets unread, more than max_output_octets = %d",
            link.remote_address,
            unread,
            self._owner.settings.max_output_octets,
        )
        self.abort(f"it left {unread} octets unread")

    def _set_abort_timer(self) -> None:
        """Closing waits until the peer has read everything: not for ever."""
        if self._timer is not None:
            self._timer.cancel()
        delay = self._owner.settings.disconnect_timeout_seconds
        self._timer = self._loop.call_later(delay, self.abort, "it did not read the rest of our output")

    def _set_timer(self, when: float | None) -> None:
        """A timer that fires too early does no harm and is cheaper than moving it with every message."""
        timer = self._timer
        if timer is not None and (when is None or when < self._timer_at):
            timer.cancel()
            timer = self._timer = None
        if timer is None and when is not None:
            # Kept here: what uvloop returns for a moment that is due does not tell it.
            self._timer_at = when
            self._timer = self._loop.call_at(when, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        link = self.link
        if link is None:
            return
        events = link.receiver.handle_timeout(self._loop.time())
        if events:
            self._report(events)
        self._owner.serve(link)
        self.service()


def _address(name: object) -> str:
    """The IP address in a socket name; IPv4 mapped into IPv6 as IPv4."""
    text = str(name[0]) if isinstance(name, tuple) and name else "0.0.0.0"
    address = ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
