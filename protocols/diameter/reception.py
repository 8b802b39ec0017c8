"""Accepted connections until it is known whose they are (RFC 6733 5.6.1).

"A Diameter peer must employ logic separate from the state machine to receive connection requests,
accept them, and await the CER." Here is that logic, with the checks that a CER must pass before it
becomes the R-Conn-CER event of a peer: its form, whether its sender may enter, and whether there is
a security mechanism and an application in common (RFC 6733 5.3).
"""

from typing import Final

from protocols.diameter.capabilities import Capabilities, checked_request, read_capabilities
from protocols.diameter.codec import Message
from protocols.diameter.codes import Command, ResultCode
from protocols.diameter.errors import DiameterError, MessageError
from protocols.diameter.events import Event, Refused, Role
from protocols.diameter.link import Disconnect, Header, Link, bad_version
from protocols.diameter.peer_table import PeerTable

_CER: Final[int] = Command.CAPABILITIES_EXCHANGE


def accept(table: PeerTable, remote_address: str, local_address: str, now: float) -> Link:
    """A transport was accepted at time `now`; the link to feed with what it receives."""
    reception = _Reception(table, now)
    link = table.new_link(Role.RESPONDER, remote_address, local_address, reception)
    reception.link = link
    return link


class _Reception:
    """Stands behind one accepted connection until its CER named a peer."""

    __slots__ = ("_deadline", "_table", "link")

    def __init__(self, table: PeerTable, now: float) -> None:
        self._table = table
        self._deadline = now + table.settings.capabilities_timeout_seconds
        self.link: Link | None = None

    def take_changed(self) -> list[Link]:
        return []  # nothing here concerns another connection

    def recovered(self, events: list[Event]) -> None:
        """No watchdog runs before the capabilities exchange."""

    def next_timeout(self) -> float | None:
        return self._deadline if self.link is not None else None

    def handle_timeout(self, now: float) -> list[Event]:
        events: list[Event] = []
        if self.link is not None and now >= self._deadline:
            self._close(self.link, Disconnect.FLUSH, "it sent no acceptable CER in time", events)
        return events

    def link_lost(self, link: Link, reason: str, now: float) -> list[Event]:  # noqa: ARG002 - as Receiver has it
        events: list[Event] = []
        if link.disconnect is Disconnect.NO:
            self._close(link, Disconnect.ABORT, f"{reason} before its CER", events)
        return events

    def _close(self, link: Link, how: Disconnect, reason: str, events: list[Event]) -> None:
        link.disconnect = how
        self.link = None
        events.append(Refused("", "", link.remote_address, 0, reason, ""))

    def base_message(self, link: Link, message: bytes, header: Header, now: float, events: list[Event]) -> None:
        """Only a CER is of use here; one that cannot be read is answered, and another may follow in time."""
        if header.command != _CER or not header.is_request:
            reason = f"its first message is command {header.command} and not a CER"
            self._close(link, Disconnect.ABORT, reason, events)
            return
        try:
            if header.version != 1:
                raise bad_version(header.version)
            request = checked_request(message)
            capabilities = read_capabilities(request)
        except DiameterError as error:
            link.answer_error(message, error)
            events.append(
                Refused("", "", link.remote_address, error.result_code, f"its CER is malformed: {error.message}", "")
            )
            return
        if self._admitted(link, message, request, capabilities, events):
            self.link = None
            peer = self._table.find_or_add(capabilities.origin_host)
            peer.capabilities_request(link, request, capabilities, now, events)

    def _admitted(
        self, link: Link, message: bytes, request: Message, capabilities: Capabilities, events: list[Event]
    ) -> bool:
        """Whether the sender may connect; if not, it is told and the connection closed (RFC 6733 5.3)."""
        table = self._table
        settings = table.settings
        host, realm = capabilities.origin_host, capabilities.origin_realm
        if host.lower() == settings.origin_host.lower():
            objection: tuple[str, str] | None = ("it uses our own Origin-Host", "give it an Origin-Host of its own")
        else:
            objection = settings.policy.objection(host, realm, link.remote_address, link.certified)
        if objection is not None:
            reason, hint = objection
            result = int(ResultCode.UNKNOWN_PEER)
            link.answer_error(message, MessageError(result, "this peer is not known here", close=True))
        else:
            if not capabilities.shares_security():
                result = int(ResultCode.NO_COMMON_SECURITY)
                reason = "it asks for TLS negotiated in-band"
                hint = "let it use TLS from the first octet, or none"
            elif not capabilities.in_common(settings):
                result = int(ResultCode.NO_COMMON_APPLICATION)
                theirs = ", ".join(map(str, sorted(capabilities.applications))) or "none"
                ours = ", ".join(str(int(application)) for application in settings.applications)
                reason = f"it supports application {theirs}; this node {ours}"
                hint = f"let it advertise one of {ours}"
            else:
                return True
            link.output.append(table.messages.capabilities_answer(request, link.local_address, result, reason))
            link.disconnect = Disconnect.FLUSH
        self.link = None
        events.append(Refused(host, realm, link.remote_address, result, reason, hint))
        return False
