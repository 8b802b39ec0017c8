"""Requests of load sessions, encoded once and patched for each message.

A load session is I, U, U, T with two Multiple-Services-Credit-Controls, Rating-Group 10 and none, as a PGW sends
them (`simulators.messages.pgw_request`). Only five things differ from message to message: the header's two
identifiers, Session-Id, IMSI and MSISDN; all have a fixed length, so a message is six constant pieces with five
patches between them.
"""

from struct import Struct
from typing import Final, NamedTuple

from protocols.credit_control import ServiceRequest, Units
from protocols.diameter.codes import CCRequestType, ReportingReason
from simulators.audit import DATA
from simulators.messages import Head, pgw_request
from simulators.population import FIRST_IMSI, FIRST_MSISDN, Subscriber

STEPS: Final = 4
"""Requests of one session: I, U, U, T."""
REQUESTED_OCTETS: Final = 1 << 20
USED_OCTETS: Final = 700_000
"""Per report and service; less than any grant, and not a divisor of the tariff's MiB."""
SESSION_MICRO: Final = 2 * DATA.price_micro((STEPS - 1) * USED_OCTETS)
"""What one complete session costs by the sample tariff, micro-units."""

REALM: Final = "load.example.net"
SERVER_REALM: Final = "ocs.example.net"

_KINDS: Final = (
    CCRequestType.INITIAL,
    CCRequestType.UPDATE,
    CCRequestType.UPDATE,
    CCRequestType.TERMINATION,
)
_PLACEHOLDER: Final = Subscriber(0, "499999999999", "269999999999999", False)
_IDENTIFIERS: Final = 12
"""Offset of Hop-by-Hop and End-to-End Identifier in the header."""

IDENTIFIERS: Final = Struct(">II")


class Line(NamedTuple):
    """One subscriber as patched into messages."""

    imsi: bytes
    msisdn: bytes


def line(number: int) -> Line:
    """The digits of subscriber `number`, from 1."""
    return Line(b"%d" % (FIRST_IMSI + number), b"%d" % (FIRST_MSISDN + number))


class Template:
    """One request of a load session."""

    __slots__ = ("length", "pieces")

    def __init__(self, origin_host: str, step: int, session_id_length: int, at_s: int) -> None:
        name = "#" * session_id_length
        head = Head(origin_host, REALM, SERVER_REALM, name, _PLACEHOLDER, _KINDS[step], step, at_s, 0)
        message = pgw_request(head, _services(step))
        self.length = len(message)
        patches = [(_IDENTIFIERS, IDENTIFIERS.size)]
        patches += [
            (message.index(text.encode()), len(text)) for text in (name, _PLACEHOLDER.imsi, _PLACEHOLDER.msisdn)
        ]
        self.pieces: list[bytes] = []
        position = 0
        for offset, size in patches:
            self.pieces.append(message[position:offset])
            position = offset + size
        self.pieces.append(message[position:])

    def message(self, hop_by_hop: int, end_to_end: int, session_id: bytes, subscriber: Line) -> bytes:
        """The request with everything filled in."""
        head, before_session, before_imsi, before_msisdn, tail = self.pieces
        return b"".join(
            (
                head,
                IDENTIFIERS.pack(hop_by_hop, end_to_end),
                before_session,
                session_id,
                before_imsi,
                subscriber.imsi,
                before_msisdn,
                subscriber.msisdn,
                tail,
            )
        )


def _services(step: int) -> list[ServiceRequest]:
    """The two services of a request: usage from the second request on, units asked for until the last."""
    last = step == STEPS - 1
    used: tuple[Units, ...] = ()
    if step:
        half = USED_OCTETS // 2
        exhausted = None if last else ReportingReason.QUOTA_EXHAUSTED
        used = (Units(20, USED_OCTETS, half, USED_OCTETS - half, reporting_reason=exhausted),)
    requested = None if last else Units(total_octets=REQUESTED_OCTETS)
    reason = ReportingReason.FINAL if last else None
    return [ServiceRequest(group, (), requested, used, reason) for group in (10, None)]


def session_id(origin_host: str, started_s: int, number: int) -> bytes:
    """Session-Id of a run's session: always as long as any other of the same origin (RFC 6733 section 8.8)."""
    return b"%b;%010d;%010d" % (origin_host.encode(), started_s, number)
