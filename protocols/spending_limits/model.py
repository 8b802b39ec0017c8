"""What Sy messages say (3GPP TS 29.219 clause 5.6). Identifiers are bytes as on the wire, times Unix seconds."""

from dataclasses import dataclass
from typing import Final

from protocols.diameter.codes import Flag, ResultCode, SLRequestType, SNRequestType, TerminationCause

REQUEST_FLAGS: Final[int] = Flag.REQUEST | Flag.PROXIABLE


@dataclass(frozen=True, slots=True)
class CounterReport:
    """Policy-Counter-Status-Report: how one policy counter stands, and what is known of how it will (clause 5.3.3)."""

    identifier: str
    status: str
    pending: tuple[tuple[str, int], ...] = ()
    """(status, from when on), the earliest first. A report without any deletes those told before."""


@dataclass(slots=True)
class SyRequest:
    """What all requests share. ``proxy_infos``: as received, to be returned."""

    hop_by_hop: int
    end_to_end: int
    session_id: bytes
    origin_host: bytes
    origin_realm: bytes
    destination_realm: bytes
    destination_host: bytes | None = None
    origin_state_id: int | None = None
    flags: int = REQUEST_FLAGS
    proxy_infos: bytes = b""
    route_records: tuple[bytes, ...] = ()


@dataclass(slots=True)
class SpendingLimitRequest(SyRequest):
    """SLR: the PCRF asks how counters stand, and to be told when that changes (clause 5.6.2)."""

    request_type: int = int(SLRequestType.INITIAL_REQUEST)
    """A SLRequestType."""
    subscription_ids: tuple[tuple[int, bytes], ...] = ()
    """(Subscription-Id-Type, Subscription-Id-Data), in the order of the request."""
    counters: tuple[str, ...] = ()
    """Policy-Counter-Identifiers; empty: all that there are."""


@dataclass(slots=True)
class SpendingStatusNotificationRequest(SyRequest):
    """SNR: the OCS tells what has changed, or asks for the session to be ended (clause 5.6.4)."""

    reports: tuple[CounterReport, ...] = ()
    request_type: int = SNRequestType.NORMAL
    """Bits of SNRequestType; the default is not sent."""

    @property
    def aborts(self) -> bool:
        """Whether the PCRF shall end the session."""
        return bool(self.request_type & SNRequestType.ABORT_SESSION)


@dataclass(slots=True)
class SessionTerminationRequest(SyRequest):
    """STR: the PCRF wants to hear no more (clause 4.5.3)."""

    termination_cause: int = int(TerminationCause.LOGOUT)


@dataclass(slots=True)
class SyAnswer:
    """What all answers share. What comes after ``failed_avp`` is what ``decode_*`` found; encoders take it from the
    request."""

    result_code: int = 0
    """0: none; there is an experimental result then."""
    experimental_result_code: int = 0
    """Experimental-Result-Code of the vendor 3GPP; 0: none. Encoders send it instead of ``result_code``."""
    error_message: bytes = b""
    failed_avp: bytes = b""
    """Encoded AVPs for Failed-AVP."""
    session_id: bytes = b""
    origin_host: bytes = b""
    origin_realm: bytes = b""
    hop_by_hop: int = 0
    end_to_end: int = 0

    @property
    def is_success(self) -> bool:
        return self.result_code == ResultCode.SUCCESS


@dataclass(slots=True)
class SpendingLimitAnswer(SyAnswer):
    """SLA: how the counters stand (clause 5.6.3)."""

    reports: tuple[CounterReport, ...] = ()


@dataclass(slots=True)
class SpendingStatusNotificationAnswer(SyAnswer):
    """SNA (clause 5.6.5)."""


@dataclass(slots=True)
class SessionTerminationAnswer(SyAnswer):
    """STA (RFC 6733 section 8.4.2)."""
