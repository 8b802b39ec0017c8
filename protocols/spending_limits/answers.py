"""Answers of Sy: SLA and STA of the OCS, SNA of the PCRF (3GPP TS 29.219 clause 5.6, RFC 6733 section 8.4)."""

from typing import Final, TypedDict

from protocols.diameter import codec
from protocols.diameter.codec import Message, avp
from protocols.diameter.codes import VENDOR_3GPP, Application, Command, Flag
from protocols.spending_limits import parts
from protocols.spending_limits.model import (
    SessionTerminationAnswer,
    SessionTerminationRequest,
    SpendingLimitAnswer,
    SpendingLimitRequest,
    SpendingStatusNotificationAnswer,
    SpendingStatusNotificationRequest,
    SyAnswer,
    SyRequest,
)

_RESULT_CODE: Final = 268
_EXPERIMENTAL_RESULT: Final = 297
_EXPERIMENTAL_RESULT_CODE: Final = 298
_ERROR_MESSAGE: Final = 281
_FAILED_AVP: Final = 279


def encode_sla(request: SpendingLimitRequest, answer: SpendingLimitAnswer, origin: bytes) -> bytes:
    """The answer to ``request``. ``origin``: our encoded Origin-Host and Origin-Realm."""
    extra = avp("Auth-Application-Id", Application.SY), parts.encode_reports(answer.reports)
    return _build(Command.SPENDING_LIMIT, request, answer, origin, extra)


def encode_sna(
    request: SpendingStatusNotificationRequest, answer: SpendingStatusNotificationAnswer, origin: bytes
) -> bytes:
    """The answer to ``request``; arguments as for ``encode_sla``."""
    return _build(Command.SPENDING_STATUS_NOTIFICATION, request, answer, origin)


def encode_sta(request: SessionTerminationRequest, answer: SessionTerminationAnswer, origin: bytes) -> bytes:
    """The answer to ``request``; arguments as for ``encode_sla``."""
    return _build(Command.SESSION_TERMINATION, request, answer, origin)


def decode_sla(buffer: bytes) -> SpendingLimitAnswer:
    """Read one whole Spending-Limit-Answer. Raises DiameterError if it is none; then it is dropped."""
    message = parts.checked(buffer, Command.SPENDING_LIMIT, is_request=False)
    return SpendingLimitAnswer(**_common(message), reports=parts.reports(message))


def decode_sna(buffer: bytes) -> SpendingStatusNotificationAnswer:
    """Read one whole Spending-Status-Notification-Answer. Raises DiameterError if it is none; then it is dropped."""
    message = parts.checked(buffer, Command.SPENDING_STATUS_NOTIFICATION, is_request=False)
    return SpendingStatusNotificationAnswer(**_common(message))


def decode_sta(buffer: bytes) -> SessionTerminationAnswer:
    """Read one whole Session-Termination-Answer of Sy. Raises DiameterError if it is none; then it is dropped."""
    message = parts.checked(buffer, Command.SESSION_TERMINATION, is_request=False)
    return SessionTerminationAnswer(**_common(message))


def _build(
    command: Command, request: SyRequest, answer: SyAnswer, origin: bytes, extra: tuple[bytes, ...] = ()
) -> bytes:
    if answer.experimental_result_code:
        result = avp(
            "Experimental-Result",
            [
                avp("Vendor-Id", VENDOR_3GPP),
                avp("Experimental-Result-Code", answer.experimental_result_code),
            ],
        )
    else:
        result = avp("Result-Code", answer.result_code)
    is_error = not answer.experimental_result_code and 3000 <= answer.result_code < 4000
    written = [
        avp("Session-Id", request.session_id),
        result,
        origin,
        *extra,
        avp("Error-Message", answer.error_message) if answer.error_message else b"",
        avp("Failed-AVP", answer.failed_avp) if answer.failed_avp else b"",
        request.proxy_infos,
    ]
    flags = request.flags & Flag.PROXIABLE | (Flag.ERROR if is_error else 0)
    return codec.build(command, Application.SY, flags, request.hop_by_hop, request.end_to_end, written)


class _Common(TypedDict):
    """The fields of ``SyAnswer``."""

    result_code: int
    experimental_result_code: int
    error_message: bytes
    failed_avp: bytes
    session_id: bytes
    origin_host: bytes
    origin_realm: bytes
    hop_by_hop: int
    end_to_end: int


def _common(message: Message) -> _Common:
    experimental = message.find(_EXPERIMENTAL_RESULT)
    code = 0
    for one in parts.members(experimental) if experimental is not None else ():
        if one.code == _EXPERIMENTAL_RESULT_CODE and not one.vendor:
            code = int.from_bytes(one.data, "big")
    return _Common(
        result_code=parts.number(message.find(_RESULT_CODE)) or 0,
        experimental_result_code=code,
        error_message=parts.octets(message, _ERROR_MESSAGE),
        failed_avp=parts.octets(message, _FAILED_AVP),
        session_id=parts.octets(message, parts.SESSION_ID),
        origin_host=parts.octets(message, parts.ORIGIN_HOST),
        origin_realm=parts.octets(message, parts.ORIGIN_REALM),
        hop_by_hop=message.hop_by_hop,
        end_to_end=message.end_to_end,
    )
