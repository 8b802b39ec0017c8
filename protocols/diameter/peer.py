"""Peers and their connections: RFC 6733 section 5, without sockets and without a clock.

The owner of the transports reports what they do (`start`, `connected`, `connect_failed`, `link_lost`;
accepted ones go through `protocols.diameter.reception`), feeds what they receive to each `Link`, calls
`handle_timeout` when `next_timeout` says so, and after every call looks after the links that
`take_changed` names: writes their `output`, obeys their `disconnect`. During an election one call can
concern both connections of a peer.

`Peer` runs the state machine of section 5.6 from `state_table.TRANSITIONS`. What arrives where the
table has no entry is dealt with in `Peer.base_message` and the methods below it, and only there.

`now` is in seconds of any clock that never steps back.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from protocols.diameter import codec
from protocols.diameter.capabilities import (
    Capabilities,
    checked_request,
    disconnect_cause,
    error_message,
    read_capabilities,
    result_code,
    state_id,
)
from protocols.diameter.codec import Message
from protocols.diameter.codes import Command, DisconnectCause, ResultCode
from protocols.diameter.errors import DiameterError, MessageError
from protocols.diameter.events import Closed, Event, Opened, Recovered, Refused, Role, StateIdChanged, Suspect
from protocols.diameter.link import Disconnect, Header, Link, Statistics, bad_version
from protocols.diameter.settings import AllowedPeer
from protocols.diameter.state_table import OPEN_STATES, TRANSITIONS, Action, PeerInput, PeerState
from protocols.diameter.watchdog import Verdict, Watchdog

if TYPE_CHECKING:
    from protocols.diameter.peer_table import PeerTable

_CER: Final[int] = Command.CAPABILITIES_EXCHANGE
_DWR: Final[int] = Command.DEVICE_WATCHDOG
_DPR: Final[int] = Command.DISCONNECT_PEER
_SUCCESS: Final[int] = ResultCode.SUCCESS

_RCV_DWR: Final = {Role.INITIATOR: PeerInput.I_RCV_DWR, Role.RESPONDER: PeerInput.R_RCV_DWR}
_RCV_DWA: Final = {Role.INITIATOR: PeerInput.I_RCV_DWA, Role.RESPONDER: PeerInput.R_RCV_DWA}
_RCV_DPR: Final = {Role.INITIATOR: PeerInput.I_RCV_DPR, Role.RESPONDER: PeerInput.R_RCV_DPR}
_RCV_DPA: Final = {Role.INITIATOR: PeerInput.I_RCV_DPA, Role.RESPONDER: PeerInput.R_RCV_DPA}
_PEER_DISC: Final = {Role.INITIATOR: PeerInput.I_PEER_DISC, Role.RESPONDER: PeerInput.R_PEER_DISC}


class IllegalTransitionError(Exception):
    """The owner asked a peer for what RFC 6733 5.6 does not allow in its state: a mistake in this program."""


class _Cause:
    """What an event brought with it, for the actions that follow from it."""

    __slots__ = ("capabilities", "disconnect", "events", "link", "message", "now", "reason", "result_code")

    def __init__(
        self,
        now: float,
        events: list[Event],
        reason: str = "",
        *,
        link: Link | None = None,
        message: Message | None = None,
        capabilities: Capabilities | None = None,
        result: int = 0,
        disconnect: DisconnectCause = DisconnectCause.REBOOTING,
    ) -> None:
        self.now = now
        self.events = events
        self.reason = reason
        self.link = link
        self.message = message
        self.capabilities = capabilities
        self.result_code = result
        self.disconnect = disconnect


class Peer:
    """One remote Diameter node (RFC 6733 2.6) and the state machine of the connections with it."""

    __slots__ = (
        "_acknowledged",
        "_capabilities_request",
        "_cer",
        "_deadline",
        "_disconnect_request",
        "_election_won",
        "_given_up",
        "_leaving",
        "_reopening",
        "_table",
        "_used",
        "_watchdog_request",
        "capabilities",
        "configured",
        "identity",
        "initiator",
        "may_reconnect",
        "opened_at",
        "responder",
        "state",
        "statistics",
    )

    def __init__(self, table: "PeerTable", identity: str, configured: AllowedPeer | None) -> None:
        """`identity` is empty for a peer that is dialed by its address alone, until its CEA names it."""
        self.identity = identity
        self.configured = configured
        self.state = PeerState.CLOSED
        self.initiator: Link | None = None
        """The connection that we opened."""
        self.responder: Link | None = None
        """The connection that we accepted."""
        self.capabilities: Capabilities | None = None
        self.may_reconnect = True
        """False once the peer said in a DPR that it does not want us back (RFC 6733 5.4.3)."""
        self.opened_at = 0.0
        """When it was last opened."""
        self.statistics = Statistics()
        self._table = table
        self._deadline: float | None = None
        self._used: Link | None = None  # the connection that is open, or was until Closing ended
        self._cer: Message | None = None  # waits for its CEA
        self._given_up: list[Link] = []
        self._election_won = False
        self._capabilities_request: int | None = None  # Hop-by-Hop Identifiers of what was sent last
        self._watchdog_request: int | None = None
        self._disconnect_request: int | None = None
        self._acknowledged = False  # our DPR, by its DPA
        self._leaving = ""
        self._reopening = False

    # What the owner of the transports calls

    def take_changed(self) -> list[Link]:
        """The connections that may have something to write, and those that were given up since the last call."""
        changed = [link for link in (self.initiator, self.responder, *self._given_up) if link is not None]
        self._given_up.clear()
        return changed

    def is_closed(self) -> bool:
        """Whether there is no connection, nor one on its way."""
        return self.state is PeerState.CLOSED

    @property
    def open_link(self) -> Link | None:
        """The connection in use; None unless the peer is open."""
        return self._used if self.state in OPEN_STATES else None

    def start(self, now: float) -> None:
        """A connection to the peer is wanted; the caller opens a transport and reports how that went.

        Raises IllegalTransitionError unless the peer is closed.
        """
        self._fire(PeerInput.START, _Cause(now, []))

    def connected(self, remote_address: str, local_address: str, now: float) -> tuple[Link | None, list[Event]]:
        """The transport that `start` asked for is up. No link: it is no longer wanted and to be closed."""
        events: list[Event] = []
        if not self._legal(PeerInput.I_RCV_CONN_ACK):
            return None, events
        link = self._table.new_link(Role.INITIATOR, remote_address, local_address, self)
        self._attach(link)
        self.initiator = link
        self._fire(PeerInput.I_RCV_CONN_ACK, _Cause(now, events))
        return link, events

    def connect_failed(self, reason: str, now: float) -> list[Event]:
        """The transport that `start` asked for did not come up."""
        events: list[Event] = []
        if self._legal(PeerInput.I_RCV_CONN_NACK):
            self._fire(PeerInput.I_RCV_CONN_NACK, _Cause(now, events, reason))
        return events

    def link_lost(self, link: Link, reason: str, now: float) -> list[Event]:
        """The transport of one of the peer's connections is gone."""
        events: list[Event] = []
        if link in (self.initiator, self.responder):
            link.disconnect = Disconnect.ABORT
            if not link.is_open and link.role is Role.INITIATOR:
                reason = f"{reason} before its CEA"
            self._fire(_PEER_DISC[link.role], _Cause(now, events, reason, link=link))
        return events

    def stop(self, cause: DisconnectCause, now: float) -> list[Event]:
        """Take leave with a DPR if the peer is open (RFC 6733 5.4), else drop what is half open."""
        events: list[Event] = []
        if self._legal(PeerInput.STOP):
            reason = f"we sent a DPR with cause {cause.name}"
            self._fire(PeerInput.STOP, _Cause(now, events, reason, disconnect=cause))
        elif self.state is not PeerState.CLOSING and self._legal(PeerInput.TIMEOUT):
            self._fire(PeerInput.TIMEOUT, _Cause(now, events, "this node stops"))
        return events

    def close_answered(self, now: float) -> list[Event]:
        """Close, if the peer has acknowledged our DPR and what it had sent before is answered by now."""
        events: list[Event] = []
        link = self._used
        if self.state is PeerState.CLOSING and self._acknowledged and link is not None and not link.unanswered:
            self._fire(_RCV_DPA[link.role], _Cause(now, events, self._leaving, link=link))
        return events

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`; None: not before something else happened."""
        link = self.open_link
        if link is not None and link.watchdog is not None:
            return link.watchdog.next_timeout()
        return self._deadline

    def handle_timeout(self, now: float) -> list[Event]:
        """Time has passed; safe to call too early and too often."""
        events: list[Event] = []
        if self._deadline is not None and now >= self._deadline:
            self._fire(PeerInput.TIMEOUT, _Cause(now, events, f"time ran out in state {self.state.value}"))
            return events
        link = self.open_link
        if link is not None and link.watchdog is not None:
            self._expire(link, link.watchdog, now, events)
        return events

    def _expire(self, link: Link, watchdog: Watchdog, now: float, events: list[Event]) -> None:
        verdict = watchdog.expire(now)
        if verdict is Verdict.SEND_DWR:
            self._snd_dwr(link)
        elif verdict is Verdict.FAIL_OVER:
            events.append(Suspect(self.identity))
        elif verdict is Verdict.CLOSE:
            # CloseConnection of RFC 3539 3.4.1 is to the table of RFC 6733 5.6 as if the peer had gone.
            self._reopening = True
            link.disconnect = Disconnect.ABORT
            self._fire(_PEER_DISC[link.role], _Cause(now, events, "its watchdog went unanswered"))

    def _snd_dwr(self, link: Link) -> None:
        table = self._table
        self._watchdog_request = link.next_hop_by_hop()
        link.output.append(table.messages.watchdog_request(self._watchdog_request, table.next_end_to_end()))

    def recovered(self, events: list[Event]) -> None:
        """The watchdog of the open connection was suspect and is satisfied again."""
        events.append(Recovered(self.identity))

    # What arrives

    def capabilities_request(
        self, link: Link, request: Message, capabilities: Capabilities, now: float, events: list[Event]
    ) -> None:
        """R-Conn-CER: a connection was accepted and its CER, already found acceptable, names this peer."""
        cause = _Cause(now, events, link=link, message=request, capabilities=capabilities)
        link.receiver = self
        if self._legal(PeerInput.R_CONN_CER):
            self._fire(PeerInput.R_CONN_CER, cause)
        else:  # Closing has no entry for it: treated like an open peer, it may come back when that is done
            self._r_reject(cause)

    def base_message(self, link: Link, message: bytes, header: Header, now: float, events: list[Event]) -> None:
        """A message that is not simply handed out; see `Receiver`."""
        if link is self._used:
            self._message_after_cea(link, message, header, now, events)
        elif link is self.initiator:
            self._message_before_cea(link, message, header, now, events)
        elif link is self.responder:
            # Wait-Returns and Wait-Conn-Ack/Elect: the peer has no CEA yet and must not send anything.
            reason = "it did not wait for our CEA"
            self._fire(PeerInput.R_PEER_DISC, _Cause(now, events, reason))

    def _message_before_cea(self, link: Link, message: bytes, header: Header, now: float, events: list[Event]) -> None:
        """Wait-I-CEA and Wait-Returns, on the connection that we opened."""
        cause = _Cause(now, events, link=link)
        if header.version != 1 or header.is_request or header.command != _CER:
            cause.reason = f"it sent command {header.command} instead of a CEA"
        elif not header.is_answer_to(_CER, self._capabilities_request):
            self.statistics.answers_discarded += 1
            return
        else:
            self._judge_answer(message, cause)
        if not cause.reason:
            self._fire(PeerInput.I_RCV_CEA, cause)
        elif self.state is PeerState.WAIT_I_CEA:
            self._fire(PeerInput.I_RCV_NON_CEA, cause)
        else:
            # Wait-Returns has no Rcv-Non-CEA: our connection failed, the one the peer opened remains.
            self._fire(PeerInput.I_PEER_DISC, cause)

    def _judge_answer(self, message: bytes, cause: _Cause) -> None:
        """Put what is wrong with a CEA into `cause.reason`, or its content into `cause`."""
        try:
            answer = codec.decode(message)
            cause.message = answer
            cause.result_code = result_code(answer)
            if cause.result_code != _SUCCESS:
                text = error_message(answer)
                cause.reason = f"it refused us with Result-Code {cause.result_code}{text and ': ' + text}"
                return
            capabilities = read_capabilities(answer)
        except DiameterError as error:
            cause.reason = f"its CEA is malformed: {error}"
            return
        cause.capabilities = capabilities
        name = capabilities.origin_host
        if self.identity and name.lower() != self.identity.lower():
            cause.reason = f"it is {name} and not {self.identity}; correct the identity of this peer"
        elif not capabilities.in_common(self._table.settings):
            cause.reason = "it shares no application with us"
        elif not self._table.claim(name, self):
            cause.reason = f"{name} is connected already"

    def _message_after_cea(self, link: Link, message: bytes, header: Header, now: float, events: list[Event]) -> None:
        """I-Open, R-Open and Closing, on the connection in use."""
        if not header.is_request:
            self._answer(link, header, now, events)
            return
        if header.version != 1:
            link.answer_error(message, bad_version(header.version))
            return
        try:
            request = checked_request(message)
        except DiameterError as malformed:
            link.answer_error(message, malformed)
            return
        cause = _Cause(now, events, link=link, message=request)
        if header.command == _CER:
            # The table knows a CER only as the first message of a connection. RFC 6733 does not ask to
            # close this one, and requests may be under way on it.
            surplus = "capabilities were exchanged on this connection already"
            link.answer_error(message, MessageError(ResultCode.UNABLE_TO_COMPLY, surplus))
        elif header.command == _DWR:
            if self.state is PeerState.CLOSING:  # not in the table, but a DWR is always answered
                self._process_dwr(cause)
                self._snd_dwa(cause)
            else:
                self._fire(_RCV_DWR[link.role], cause)
        elif self.state is PeerState.CLOSING:  # both sides take leave at once: not in the table either
            self._snd_dpa(cause)
        else:
            self._fire(_RCV_DPR[link.role], cause)

    def _answer(self, link: Link, header: Header, now: float, events: list[Event]) -> None:
        """DWA, DPA, or an answer to nothing that was asked, which is ignored (RFC 6733 6.2.1)."""
        cause = _Cause(now, events, self._leaving, link=link)
        if header.version != 1:
            self.statistics.answers_discarded += 1
        elif header.is_answer_to(_DWR, self._watchdog_request):
            self._watchdog_request = None
            if self.state is not PeerState.CLOSING:
                self._fire(_RCV_DWA[link.role], cause)
        elif header.is_answer_to(_DPR, self._disconnect_request) and self.state is PeerState.CLOSING:
            link.leaving = False
            self._acknowledged = True
            if not link.unanswered:
                self._fire(_RCV_DPA[link.role], cause)  # whatever its Result-Code: Kamailio sends none
        else:
            self.statistics.answers_discarded += 1

    # The state machine

    def _legal(self, event: PeerInput) -> bool:
        return event in TRANSITIONS[self.state]

    def _fire(self, event: PeerInput, cause: _Cause) -> None:
        """Carry out one line of the table."""
        transition = TRANSITIONS[self.state].get(event)
        if transition is None:
            raise IllegalTransitionError(f"{event.name} in state {self.state.value} of peer {self.identity or '?'}")
        actions, following = transition
        for action in actions:
            _ACTIONS[action](self, cause)
        before = self.state
        self.state = following
        if following is not before:
            self._entered(cause)
        if self._election_won:
            self._election_won = False
            self._fire(PeerInput.WIN_ELECTION, cause)

    def _entered(self, cause: _Cause) -> None:
        """What a new state means to the timers, the link and the owner."""
        settings = self._table.settings
        self._deadline = None
        if self.state is PeerState.WAIT_CONN_ACK:
            self._deadline = cause.now + settings.connect_timeout_seconds
        elif self.state in OPEN_STATES:
            self._opened(cause)
        elif self.state is PeerState.CLOSING:
            self._deadline = cause.now + settings.disconnect_timeout_seconds
            self._leaving = cause.reason
            if self._used is not None:
                self._used.takes_requests = False
                self._used.leaving = self._disconnect_request is not None
                self._used.watchdog = None
        elif self.state is PeerState.CLOSED:
            self._closed(cause)
        else:
            self._deadline = cause.now + settings.capabilities_timeout_seconds

    def _opened(self, cause: _Cause) -> None:
        link = self.initiator if self.state is PeerState.I_OPEN else self.responder
        capabilities = self.capabilities
        assert link is not None
        assert capabilities is not None
        settings = self._table.settings
        self._used = link
        self._cer = None
        self._leaving = ""
        self._disconnect_request = None
        self.may_reconnect = True
        self.opened_at = cause.now
        self._acknowledged = False
        link.is_open = True
        link.takes_requests = True
        link.begin_counting()
        link.max_message_octets = settings.max_message_octets
        link.watchdog = Watchdog(settings.watchdog_seconds, self._table.random, cause.now, reopening=self._reopening)
        self._reopening = False
        cause.events.append(
            Opened(
                origin_host=capabilities.origin_host,
                origin_realm=capabilities.origin_realm,
                role=link.role,
                remote_address=link.remote_address,
                applications=capabilities.applications,
                common_applications=capabilities.in_common(settings),
                vendor_id=capabilities.vendor_id,
                product_name=capabilities.product_name,
                origin_state_id=capabilities.origin_state_id,
            )
        )

    def _closed(self, cause: _Cause) -> None:
        link = self._used
        capabilities = self.capabilities
        if link is not None and capabilities is not None:
            unanswered = tuple(link.pending.values())
            link.pending.clear()
            link.takes_requests = False
            link.leaving = False
            link.watchdog = None
            reason = self._leaving or cause.reason
            cause.events.append(Closed(capabilities.origin_host, reason, unanswered, self.may_reconnect))
        else:
            source = cause.link.remote_address if cause.link is not None else ""
            cause.events.append(Refused(self.identity, "", source, cause.result_code, cause.reason, ""))
        self._used = None
        self.initiator = None
        self.responder = None
        self.capabilities = None
        self._table.forget(self)

    # The actions of RFC 6733 5.6.3

    def _left_to_owner(self, _: _Cause) -> None:
        """Transports are opened by the owner; application messages pass `Link` without coming here."""

    def _attach(self, link: Link) -> None:
        self.statistics.add(link.statistics)
        link.statistics = self.statistics
        link.receiver = self

    def _r_accept(self, cause: _Cause) -> None:
        assert cause.link is not None
        self._attach(cause.link)
        self.responder = cause.link

    def _r_reject(self, cause: _Cause) -> None:
        """The peer has a connection already. Should that one be dead, a DWR now finds out soonest."""
        link, capabilities = cause.link, cause.capabilities
        assert link is not None
        assert capabilities is not None
        link.disconnect = Disconnect.FLUSH
        used = self.open_link
        if used is not None and used.watchdog is not None and used.watchdog.probe(cause.now):
            self._snd_dwr(used)
        cause.events.append(
            Refused(
                capabilities.origin_host,
                capabilities.origin_realm,
                link.remote_address,
                0,
                f"it has a connection in state {self.state.value} already",
                "give every client its own Origin-Host",
            )
        )

    def _process_capabilities(self, cause: _Cause) -> None:
        capabilities = cause.capabilities
        assert capabilities is not None
        self.capabilities = capabilities
        if cause.message is not None and cause.message.is_request:
            self._cer = cause.message
        self._note_state_id(capabilities.origin_state_id, cause)

    def _note_state_id(self, number: int | None, cause: _Cause) -> None:
        capabilities = self.capabilities
        if number is None or capabilities is None:
            return
        old = self._table.state_id_risen(capabilities.origin_host, number)
        if old is not None:
            cause.events.append(StateIdChanged(capabilities.origin_host, old, number))

    def _i_snd_cer(self, _: _Cause) -> None:
        link, table = self.initiator, self._table
        assert link is not None
        self._capabilities_request = link.next_hop_by_hop()
        link.output.append(
            table.messages.capabilities_request(link.local_address, self._capabilities_request, table.next_end_to_end())
        )

    def _r_snd_cea(self, _: _Cause) -> None:
        link, request = self.responder, self._cer
        assert link is not None
        assert request is not None
        link.output.append(self._table.messages.capabilities_answer(request, link.local_address))

    def _elect(self, _: _Cause) -> None:
        """RFC 6733 5.6.4: the greater Origin-Host wins, and closes the connection that it opened."""
        assert self.capabilities is not None
        ours = self._table.settings.origin_host.lower().encode("ascii")
        self._election_won = ours > self.capabilities.origin_host.lower().encode("ascii")

    def _i_disc(self, _: _Cause) -> None:
        self._give_up(self.initiator)
        self.initiator = None

    def _r_disc(self, _: _Cause) -> None:
        self._give_up(self.responder)
        self.responder = None

    def _give_up(self, link: Link | None) -> None:
        if link is None:
            return
        self._given_up.append(link)
        if link.disconnect is Disconnect.NO:
            link.disconnect = Disconnect.FLUSH

    def _disconnect_all(self, cause: _Cause) -> None:
        self._i_disc(cause)
        self._r_disc(cause)

    def _process_dwr(self, cause: _Cause) -> None:
        assert cause.message is not None
        self._note_state_id(state_id(cause.message), cause)

    def _snd_dwa(self, cause: _Cause) -> None:
        assert cause.link is not None
        assert cause.message is not None
        cause.link.output.append(self._table.messages.watchdog_answer(cause.message))

    def _process_dwa(self, cause: _Cause) -> None:
        link = cause.link
        if link is not None and link.watchdog is not None and link.watchdog.answered(cause.now):
            self.recovered(cause.events)

    def _snd_dpr(self, cause: _Cause) -> None:
        link, table = self._used, self._table
        assert link is not None
        self._disconnect_request = link.next_hop_by_hop()
        link.output.append(
            table.messages.disconnect_request(cause.disconnect, self._disconnect_request, table.next_end_to_end())
        )

    def _snd_dpa(self, cause: _Cause) -> None:
        """The receiver of the DPA, not we, closes the connection (RFC 6733 5.4)."""
        assert cause.link is not None
        assert cause.message is not None
        wish = disconnect_cause(cause.message)
        self.may_reconnect = wish is DisconnectCause.REBOOTING
        cause.reason = f"it sent a DPR with cause {wish.name}"
        cause.link.output.append(self._table.messages.disconnect_answer(cause.message))


_ACTIONS: Final[dict[Action, Callable[[Peer, _Cause], None]]] = {
    Action.I_SND_CONN_REQ: Peer._left_to_owner,
    Action.R_ACCEPT: Peer._r_accept,
    Action.R_REJECT: Peer._r_reject,
    Action.PROCESS_CER: Peer._process_capabilities,
    Action.PROCESS_CEA: Peer._process_capabilities,
    Action.I_SND_CER: Peer._i_snd_cer,
    Action.R_SND_CEA: Peer._r_snd_cea,
    Action.CLEANUP: Peer._disconnect_all,
    Action.ERROR: Peer._disconnect_all,
    Action.ELECT: Peer._elect,
    Action.I_DISC: Peer._i_disc,
    Action.R_DISC: Peer._r_disc,
    Action.I_SND_MESSAGE: Peer._left_to_owner,
    Action.R_SND_MESSAGE: Peer._left_to_owner,
    Action.PROCESS: Peer._left_to_owner,
    Action.PROCESS_DWR: Peer._process_dwr,
    Action.PROCESS_DWA: Peer._process_dwa,
    Action.I_SND_DWA: Peer._snd_dwa,
    Action.R_SND_DWA: Peer._snd_dwa,
    Action.I_SND_DPR: Peer._snd_dpr,
    Action.R_SND_DPR: Peer._snd_dpr,
    Action.I_SND_DPA: Peer._snd_dpa,
    Action.R_SND_DPA: Peer._snd_dpa,
}
