"""What the messages of Sy have in common, as octets: heads, status reports, and how AVPs are read."""

from typing import Final

from protocols.diameter import codec
from protocols.diameter.codec import Avp, Message, avp
from protocols.diameter.codes import VENDOR_3GPP, Application, Command, Flag, ResultCode
from protocols.diameter.errors import MessageError
from protocols.diameter.validation import validate
from protocols.spending_limits.model import CounterReport, SyRequest

SESSION_ID: Final = 263
ORIGIN_HOST: Final = 264
ORIGIN_REALM: Final = 296
ORIGIN_STATE_ID: Final = 278
DESTINATION_HOST: Final = 293
DESTINATION_REALM: Final = 283
ROUTE_RECORD: Final = 282
PROXY_INFO: Final = 284

POLICY_COUNTER_IDENTIFIER: Final = 2901
POLICY_COUNTER_STATUS: Final = 2902
POLICY_COUNTER_STATUS_REPORT: Final = 2903
PENDING_INFORMATION: Final = 2905
PENDING_CHANGE_TIME: Final = 2906

RequestHead = tuple[int, int, bytes, bytes, bytes, bytes, bytes | None, int | None, int, bytes, tuple[bytes, ...]]
"""The fields of ``SyRequest``, in their order."""


# -- reading -----------------------------------------------------------------------------------------------------


def checked(buffer: bytes, command: Command, *, is_request: bool) -> Message:
    """Decode one whole message and hold it against its grammar.

    Raises DiameterError, ready to be answered; also for another command or application, or the other direction.
    """
    validate(buffer)
    message = codec.decode(buffer)
    if message.application != Application.SY:
        raise MessageError(ResultCode.APPLICATION_UNSUPPORTED, f"application {message.application} is not Sy")
    if message.command != command:
        raise MessageError(ResultCode.COMMAND_UNSUPPORTED, f"command {message.command} is not {command.name}")
    if message.is_request != is_request:
        raise MessageError(ResultCode.INVALID_HDR_BITS, "request and answer are mixed up")
    return message


def head_of(message: Message) -> RequestHead:
    """What all requests share."""
    return (
        message.hop_by_hop,
        message.end_to_end,
        octets(message, SESSION_ID),
        octets(message, ORIGIN_HOST),
        octets(message, ORIGIN_REALM),
        octets(message, DESTINATION_REALM),
        None if message.find(DESTINATION_HOST) is None else octets(message, DESTINATION_HOST),
        number(message.find(ORIGIN_STATE_ID)),
        message.flags,
        b"".join(one.encode() for one in message.find_all(PROXY_INFO)),
        tuple(one.data for one in message.find_all(ROUTE_RECORD)),
    )


def octets(message: Message, code: int) -> bytes:
    """The data of an IETF AVP; nothing where there is none."""
    found = message.find(code)
    return found.data if found is not None else b""


def number(found: Avp | None) -> int | None:
    return None if found is None else int.from_bytes(found.data, "big")


def text(found: Avp) -> str:
    """A UTF8String. Raises AvpError 5004 where it is none."""
    value = found.value()
    assert isinstance(value, str)
    return value


def members(group: Avp) -> list[Avp]:
    value = group.value()
    assert isinstance(value, list)
    return value


def reports(message: Message) -> tuple[CounterReport, ...]:
    """All Policy-Counter-Status-Reports of a checked message. Raises AvpError 5004 for what is no text."""
    return tuple(_report(group) for group in message.find_all(POLICY_COUNTER_STATUS_REPORT, VENDOR_3GPP))


def _report(group: Avp) -> CounterReport:
    identifier = status = ""
    pending: list[tuple[str, int]] = []
    for one in members(group):
        if one.vendor != VENDOR_3GPP:
            continue
        if one.code == POLICY_COUNTER_IDENTIFIER:
            identifier = text(one)
        elif one.code == POLICY_COUNTER_STATUS:
            status = text(one)
        elif one.code == PENDING_INFORMATION:
            pending.append(_pending(one))
    return CounterReport(identifier, status, tuple(sorted(pending, key=lambda each: each[1])))


def _pending(group: Avp) -> tuple[str, int]:
    status, from_s = "", 0
    for one in members(group):
        if one.vendor != VENDOR_3GPP:
            continue
        if one.code == POLICY_COUNTER_STATUS:
            status = text(one)
        elif one.code == PENDING_CHANGE_TIME:
            value = one.value()
            assert isinstance(value, int)
            from_s = value
    return status, from_s


# -- writing -----------------------------------------------------------------------------------------------------


def encode_reports(written: tuple[CounterReport, ...]) -> bytes:
    """Policy-Counter-Status-Reports."""
    return b"".join(
        avp(
            "Policy-Counter-Status-Report",
            [
                avp("Policy-Counter-Identifier", each.identifier),
                avp("Policy-Counter-Status", each.status),
                *(
                    avp(
                        "Pending-Policy-Counter-Information",
                        [
                            avp("Policy-Counter-Status", status),
                            avp("Pending-Policy-Counter-Change-Time", from_s),
                        ],
                    )
                    for status, from_s in each.pending
                ),
            ],
        )
        for each in written
    )


def build_request(command: Command, request: SyRequest, parts: list[bytes]) -> bytes:
    """A whole request: its head, ``parts``, and what agents added."""
    head = [
        avp("Session-Id", request.session_id),
        avp("Auth-Application-Id", Application.SY),
        avp("Origin-Host", request.origin_host),
        avp("Origin-Realm", request.origin_realm),
        avp("Destination-Realm", request.destination_realm),
    ]
    if request.destination_host is not None:
        head.append(avp("Destination-Host", request.destination_host))
    if request.origin_state_id is not None:
        head.append(avp("Origin-State-Id", request.origin_state_id))
    records = [avp("Route-Record", each) for each in request.route_records]
    return codec.build(
        command,
        Application.SY,
        request.flags | Flag.REQUEST,
        request.hop_by_hop,
        request.end_to_end,
        [*head, *parts, request.proxy_infos, *records],
    )
