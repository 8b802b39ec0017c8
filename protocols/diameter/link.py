"""One transport connection, without the transport: bytes in, events and bytes out.

A `Link` cuts the octet stream into messages, hands application messages out behind nothing but
their header, matches answers to requests by Hop-by-Hop Identifier, and passes the three commands of
the base protocol on to its `receiver`: the peer table until the connection has a peer, then the peer.

The owner of the socket calls `receive_data`, writes what it finds in `output`, and does what
`disconnect` says. Nothing in here reads a clock, opens a socket or raises for what arrives.
"""

from collections.abc import Callable
from enum import Enum
from random import Random
from struct import Struct
from typing import Any, Final, Protocol

from protocols.diameter import codec
from protocols.diameter.codes import Command, Flag, ResultCode
from protocols.diameter.errors import DiameterError, MessageError
from protocols.diameter.events import AnswerReceived, Event, PendingRequest, RequestReceived, Role
from protocols.diameter.watchdog import Watchdog

HEADER_OCTETS: Final = codec.HEADER_LENGTH
MAX_OCTETS_BEFORE_OPEN: Final = 16 << 10
"""Longest message from a connection that has not shown its capabilities: strangers get little memory."""

_HEADER: Final = Struct("!I8sII").unpack_from
"""Version and length; flags, command and Application-Id; hop-by-hop; end-to-end (RFC 6733 section 3)."""
_LENGTH_MASK: Final = 0xFFFFFF
_COMMAND_MASK: Final = 0xFFFFFF

_new_tuple: Final = tuple.__new__  # to call a named tuple costs five times as much

_CER: Final[int] = Command.CAPABILITIES_EXCHANGE
_REQUEST: Final[int] = Flag.REQUEST
_RETRANSMIT: Final[int] = Flag.RETRANSMIT
_ERROR: Final[int] = Flag.ERROR

BASE_COMMANDS: Final[frozenset[int]] = frozenset(
    (int(Command.CAPABILITIES_EXCHANGE), int(Command.DEVICE_WATCHDOG), int(Command.DISCONNECT_PEER))
)
"""The commands between neighbours. They are known by their code, whatever Application-Id they carry."""


# Kinds of messages.
_BASE: Final = 0
_REQUEST_MESSAGE: Final = 1
_BAD_REQUEST: Final = 2
_ANSWER: Final = 3

KINDS_REMEMBERED: Final = 256


class _Kind:
    """What the second and third word of a header say."""

    __slots__ = ("application", "command", "flags", "what")

    def __init__(self, words: bytes) -> None:
        flags = words[0]
        command = int.from_bytes(words[1:4], "big")
        self.flags: Any = flags  # made once, to be put into each event
        self.command: Any = command
        self.application: Any = int.from_bytes(words[4:], "big")
        if command in BASE_COMMANDS:
            self.what = _BASE
        elif not flags & _REQUEST:
            self.what = _ANSWER
        else:
            self.what = _BAD_REQUEST if flags & _ERROR else _REQUEST_MESSAGE


_KINDS: Final[dict[bytes, _Kind]] = {}
"""Second and third word -> what they say: peers send few."""


def _kind(words: bytes) -> _Kind:
    """What `_KINDS` has from now on."""
    if len(_KINDS) >= KINDS_REMEMBERED:
        _KINDS.clear()
    kind = _KINDS[words] = _Kind(words)
    return kind


class Disconnect(Enum):
    """What the owner of the socket has to do about the connection."""

    NO = "keep it"
    FLUSH = "write what is in output, then close"
    ABORT = "reset it"
    """Nothing sensible can be said to the other side any more (RFC 6733 2.1)."""


_NO: Final = Disconnect.NO
COUNTERS: Final = (
    "requests_received",
    "answers_sent",
    "requests_sent",
    "answers_received",
    "answers_discarded",
    "requests_discarded",
    "errors_sent",
    "octets_received",
    "octets_sent",
)


class Statistics:
    """Counters of one peer, over all its connections; `COUNTERS` are their names."""

    __slots__ = COUNTERS

    def __init__(self) -> None:
        self.requests_received = 0
        """Application requests handed out."""
        self.answers_sent = 0
        """Answers to them."""
        self.requests_sent = 0
        """Application requests of ours, those sent again included."""
        self.answers_received = 0
        """Answers that matched one of them."""
        self.answers_discarded = 0
        """Answers that matched none (RFC 6733 6.2.1)."""
        self.requests_discarded = 0
        """Requests that came when none may be served any more."""
        self.errors_sent = 0
        """Requests answered with an error by the base protocol alone."""
        self.octets_received = 0
        self.octets_sent = 0

    def add(self, other: "Statistics") -> None:
        """Fold the counters of another object in."""
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """All counters by name."""
        return {name: getattr(self, name) for name in COUNTERS}


class Header:
    """The header fields of one base protocol message, beside its octets."""

    __slots__ = ("command", "flags", "hop_by_hop", "version")

    def __init__(self, version: int, command: int, flags: int, hop_by_hop: int) -> None:
        self.version = version
        self.command = command
        self.flags = flags
        self.hop_by_hop = hop_by_hop

    @property
    def is_request(self) -> bool:
        """The R bit."""
        return self.flags & _REQUEST != 0

    def is_answer_to(self, command: int, hop_by_hop: int | None) -> bool:
        """Whether this answers the request of ours with that command and Hop-by-Hop Identifier."""
        return not self.is_request and self.command == command and self.hop_by_hop == hop_by_hop


class Receiver(Protocol):
    """What stands behind a connection: its reception until the CER came, then its peer."""

    def base_message(self, link: "Link", message: bytes, header: Header, now: float, events: list[Event]) -> None:
        """A base protocol message, one of another version, or any message on a connection that is not open."""

    def recovered(self, events: list[Event]) -> None:
        """The watchdog of an open connection that was suspect is satisfied again."""

    def link_lost(self, link: "Link", reason: str, now: float) -> list[Event]:
        """The transport of the connection is gone."""

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`; None: not before something else happened."""

    def handle_timeout(self, now: float) -> list[Event]:
        """Time has passed; safe to call too early and too often."""

    def take_changed(self) -> "list[Link]":
        """Other connections that may have something to write or to be closed."""


Tap = Callable[["Link", bytes, bool], None]
"""Sees every message of a connection: the whole message, and whether we sent it. Must not raise."""


class Link:
    """One connection, from the moment the transport is up."""

    __slots__ = (
        "_answered_before",
        "_buffer",
        "_hop_by_hop",
        "_needed",
        "base_messages",
        "capabilities",
        "certified",
        "disconnect",
        "is_open",
        "leaving",
        "local_address",
        "max_message_octets",
        "origin",
        "output",
        "pending",
        "receiver",
        "refused",
        "remote_address",
        "role",
        "statistics",
        "takes_requests",
        "tap",
        "watchdog",
    )

    def __init__(
        self,
        role: Role,
        *,
        remote_address: str,
        local_address: str,
        receiver: Receiver,
        origin: bytes,
        capabilities: bytes,
        random: Random,
    ) -> None:
        """For error answers, both encoded: `origin` is our Origin-Host and Origin-Realm, `capabilities` what a CEA
        must have besides."""
        self.role = role
        self.remote_address = remote_address
        self.local_address = local_address
        self.receiver = receiver
        self.origin = origin
        self.capabilities = capabilities
        self.certified: frozenset[str] | None = None
        """The names, in small letters, that the peer's verified certificate bears; None: it has shown none."""
        self.is_open = False
        """The capabilities exchange is done: application messages may come."""
        self.takes_requests = False
        """The state is I-Open or R-Open; in Closing requests are dropped and only answers wanted, but see `leaving`."""
        self.leaving = False
        """We have sent a DPR and wait for its DPA: what the peer sent before it knew is served."""
        self.refused = 0
        """Requests handed out that were answered with `answer_error`."""
        self.disconnect = Disconnect.NO
        self.output: list[bytes] = []
        """Whole messages to be written, in this order; the owner empties it."""
        self.pending: dict[int, PendingRequest] = {}
        """Our requests without an answer by Hop-by-Hop Identifier, oldest first."""
        self.base_messages = 0
        """How many messages went to the receiver: whenever it moves, the peer may have changed."""
        self.statistics = Statistics()
        self.watchdog: Watchdog | None = None
        self.tap: Tap | None = None
        self.max_message_octets = MAX_OCTETS_BEFORE_OPEN
        self._answered_before = 0
        self._hop_by_hop = random.getrandbits(32)  # RFC 6733 section 3: starts anywhere, then counts up
        self._buffer = bytearray()
        self._needed = HEADER_OCTETS

    # Input

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take what the transport received, at time `now`; returns what it meant, in order."""
        events: list[Event] = []
        if self.disconnect is not _NO:
            return events
        self.statistics.octets_received += len(data)
        watchdog = self.watchdog
        if watchdog is not None and watchdog.heard(now):
            self.receiver.recovered(events)
        if self._buffer:
            # Only once the awaited octets are there is the buffer looked at again, so that a message
            # that dribbles in costs no more than one that comes at once.
            self._buffer += data
            if len(self._buffer) < self._needed:
                return events
            data = bytes(self._buffer)
            self._buffer.clear()
        self._messages(data, now, events)
        return events

    def _messages(self, data: bytes, now: float, events: list[Event]) -> None:
        """Cut `data` into messages; keep the incomplete rest."""
        position = 0
        available = len(data)
        statistics = self.statistics
        first: int
        second: bytes
        while available - position >= HEADER_OCTETS:
            first, second, hop_by_hop, end_to_end = _HEADER(data, position)
            length = first & _LENGTH_MASK
            if length < HEADER_OCTETS or length & 3 or length > self.max_message_octets:
                self._bad_length(data[position : position + HEADER_OCTETS], length, _kind(second))
                return
            following = position + length
            if following > available:
                self._keep(data, position, length)
                return
            message = data[position:following]
            position = following
            if self.tap is not None:
                self.tap(self, message, False)
            kind = _KINDS.get(second)
            if kind is None:
                kind = _kind(second)
            what = kind.what
            if not self.is_open or what == _BASE or first >> 24 != 1:
                header = Header(first >> 24, kind.command, kind.flags, hop_by_hop)
                self.base_messages += 1
                self.receiver.base_message(self, message, header, now, events)
                if self.disconnect is not _NO:
                    return
                statistics = self.statistics  # a CER has just made them those of its peer
            elif what != _ANSWER:
                if (what == _BAD_REQUEST or not self.takes_requests) and self._is_turned_away(message, what):
                    continue
                statistics.requests_received += 1
                events.append(
                    _new_tuple(
                        RequestReceived,
                        (message, kind.command, kind.application, kind.flags, hop_by_hop, end_to_end),
                    )
                )
            else:
                request = self.pending.pop(hop_by_hop, None)
                if request is None:
                    statistics.answers_discarded += 1
                    continue
                statistics.answers_received += 1
                events.append(
                    AnswerReceived(message, kind.command, kind.application, kind.flags, hop_by_hop, end_to_end, request)
                )
        if position < available:
            self._keep(data, position, HEADER_OCTETS)

    def _is_turned_away(self, message: bytes, what: int) -> bool:
        if not self.takes_requests and not self.leaving:
            # RFC 6733 5.6 has no Rcv-Message in Closing: the sender will repeat it elsewhere
            self.statistics.requests_discarded += 1
            return True
        if what == _BAD_REQUEST:
            self.answer_error(message, bad_bits("R and E"))
            return True
        return False

    # Requests handed out and not answered

    def begin_counting(self) -> None:
        """The statistics become those of this connection from here on, as far as `unanswered` goes."""
        self._answered_before = self.statistics.answers_sent - self.statistics.requests_received

    @property
    def unanswered(self) -> int:
        """Requests of this connection that were handed out and have no answer yet."""
        statistics = self.statistics
        return statistics.requests_received - statistics.answers_sent + self._answered_before - self.refused

    def _keep(self, data: bytes, position: int, needed: int) -> None:
        self._buffer += data[position:]
        self._needed = needed

    def _bad_length(self, header: bytes, length: int, kind: _Kind) -> None:
        """RFC 6733 7.1.5: 5015. The stream is out of step and cannot be recovered (RFC 6733 2.1)."""
        if kind.flags & _REQUEST and (self.is_open or kind.command == _CER):
            error = MessageError(
                ResultCode.INVALID_MESSAGE_LENGTH,
                f"message length {length} is not a multiple of 4 from {HEADER_OCTETS} to {self.max_message_octets}",
                close=True,
            )
            self.answer_error(header, error)
        else:
            self.disconnect = Disconnect.ABORT

    # Output

    def next_hop_by_hop(self) -> int:
        """A Hop-by-Hop Identifier that no pending request of this connection has (RFC 6733 section 3)."""
        while True:
            self._hop_by_hop = (self._hop_by_hop + 1) & 0xFFFFFFFF
            if self._hop_by_hop not in self.pending:
                return self._hop_by_hop

    def send_answer(self, message: bytes) -> None:
        """Put an encoded answer to a request of this connection in line."""
        self.statistics.answers_sent += 1
        self.output.append(message)

    def send_request(self, request: PendingRequest, *, again: bool = False) -> int:
        """Put `request.message` in line under a new Hop-by-Hop Identifier, which is returned.

        `again` sets the T flag: it was sent before over another connection (RFC 6733 5.5.4).
        """
        hop_by_hop = self.next_hop_by_hop()
        message = request.message
        flags = message[4] | _RETRANSMIT if again else message[4]
        request.message = b"".join(
            (message[:4], bytes((flags,)), message[5:12], hop_by_hop.to_bytes(4, "big"), message[16:])
        )
        self.pending[hop_by_hop] = request
        self.statistics.requests_sent += 1
        self.output.append(request.message)
        return hop_by_hop

    def answer_error(self, message: bytes, error: DiameterError) -> None:
        """Answer a request that did not get as far as an application; close if the error says so."""
        self.statistics.errors_sent += 1
        is_capabilities_request = int.from_bytes(message[5:8], "big") == _CER
        origin = self.origin + self.capabilities if is_capabilities_request else self.origin
        self.output.append(codec.error_answer(message, error, origin))
        if error.close:
            self.disconnect = Disconnect.FLUSH


def bad_version(version: int) -> MessageError:
    """RFC 6733 7.1.5: 5011. The length was sound, so the stream is still in step and the connection can stay."""
    return MessageError(ResultCode.UNSUPPORTED_VERSION, f"Diameter version {version} is not supported")


def bad_bits(what: str) -> MessageError:
    """RFC 6733 7.1.3: 3008 for a combination of header bits that no request may have."""
    return MessageError(ResultCode.INVALID_HDR_BITS, f"a request must not have both {what} set")
