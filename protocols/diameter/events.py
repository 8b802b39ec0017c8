"""What one transport connection or peer reports to the node that owns it.

Everything here is immutable and holds plain data. Most events are rare and are frozen
dataclasses; the two that occur once per application message are named tuples, which are
as immutable and cost a third to make.

An event never carries a decoded application message: the peer reads the 20-octet header
(RFC 6733 section 3) and hands out the message as it came.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from protocols.diameter.codes import Application

_RELAY: Final[int] = Application.RELAY


class PendingRequest:
    """A request of ours that waits for its answer (RFC 6733 5.5.4, the pending message queue).

    `message` is the whole encoded request as it was sent, so that it can be sent again with
    the T flag; it is emptied once the answer is there. Owners subclass this to keep what they
    need to go on with when the answer comes.
    """

    __slots__ = ("message",)

    def __init__(self, message: bytes) -> None:
        self.message = message


class Role(Enum):
    """Which side opened the transport connection: I- and R- in RFC 6733 section 5.6."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


class RequestReceived(NamedTuple):
    """An application request on an open connection; nothing behind its header has been looked at."""

    message: bytes
    """The whole message, header included."""
    command: int
    application: int
    """Application-Id of the header."""
    flags: int
    """Command Flags octet."""
    hop_by_hop: int
    end_to_end: int


class AnswerReceived(NamedTuple):
    """The answer to one of our requests, matched by its Hop-by-Hop Identifier (RFC 6733 6.2.1)."""

    message: bytes
    """The whole message, header included."""
    command: int
    application: int
    flags: int
    hop_by_hop: int
    end_to_end: int
    request: PendingRequest
    """The request it answers, no longer pending."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The capabilities exchange succeeded: the peer is in I-Open or R-Open (RFC 6733 5.6)."""

    origin_host: str
    origin_realm: str
    role: Role
    """Our side of the connection."""
    remote_address: str
    applications: frozenset[int]
    """Every Application-Id the peer advertised, by itself or inside Vendor-Specific-Application-Id, whether we have
    it or not; may hold the relay id 0xffffffff."""
    common_applications: frozenset[int]
    """Those of our applications that may be used with this peer."""
    vendor_id: int
    product_name: str
    origin_state_id: int | None
    """None where the peer sent none: nothing can be inferred (RFC 6733 8.16)."""

    @property
    def is_relay(self) -> bool:
        """Whether the peer forwards requests of any application (RFC 6733 2.4): they may come from anybody."""
        return _RELAY in self.applications


@dataclass(frozen=True, slots=True)
class Closed:
    """A connection that had been open is no longer in use."""

    origin_host: str
    reason: str
    """One clause for a log line."""
    unanswered: tuple[PendingRequest, ...]
    """Our requests that got no answer, oldest first: to be sent to an alternate with T, or failed."""
    may_reconnect: bool
    """False after a DPR with Disconnect-Cause BUSY or DO_NOT_WANT_TO_TALK_TO_YOU (RFC 6733 5.4.3)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A connection that never opened: the peer was refused, or it refused us."""

    origin_host: str
    """Empty where the other side gave no identity."""
    origin_realm: str
    remote_address: str
    """Empty where no transport came up."""
    result_code: int
    """Result-Code of the CEA that was sent or received; 0 where there was none."""
    reason: str
    """One clause for a log line."""
    hint: str
    """What to change so that this peer is let in; empty where nothing here would help."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A DWR went unanswered for a whole Tw: no new requests to this peer (RFC 3539 3.4.1, Failover)."""

    origin_host: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """The peer is heard again and may be used for requests (RFC 3539 3.4.1, Failback)."""

    origin_host: str


@dataclass(frozen=True, slots=True)
class StateIdChanged:
    """The peer's Origin-State-Id rose: it lost the state of all its sessions (RFC 6733 8.16)."""

    origin_host: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """What the sender of a request gets instead of an answer."""

    reason: str
    """One clause for a log line."""
    sent: bool
    """Whether it went out at least once: the other side may have acted on it."""


Event = RequestReceived | AnswerReceived | Opened | Closed | Refused | Suspect | Recovered | StateIdChanged
PeerEvent = Opened | Closed | Refused | Suspect | Recovered | StateIdChanged
"""The events that are about the peer and not about one message."""
