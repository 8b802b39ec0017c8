"""What the server starts by itself: Re-Auth and Abort-Session (RFC 8506 section 5.5, RFC 6733 sections
8.3, 8.5).

These are rare next to credit-control requests, so they go through the general codec.
"""

from dataclasses import dataclass
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.encoding import octets, unsigned32, unsigned64
from protocols.credit_control.members import error_message
from protocols.diameter import codec
from protocols.diameter.codec import Message
from protocols.diameter.codes import Application, Command, Flag, ReAuthRequestType, ResultCode
from protocols.diameter.errors import MessageError
from protocols.diameter.validation import validate

_REQUEST_FLAGS: Final = Flag.REQUEST | Flag.PROXIABLE


@dataclass(slots=True)
class SessionRequest:
    """What Re-Auth-Request and Abort-Session-Request share. ``proxy_infos``: as received, to be returned."""

    hop_by_hop: int
    end_to_end: int
    session_id: bytes
    origin_host: bytes
    origin_realm: bytes
    destination_realm: bytes
    destination_host: bytes
    flags: int = _REQUEST_FLAGS
    proxy_infos: bytes = b""


@dataclass(slots=True)
class ReAuthRequest(SessionRequest):
    """A Re-Auth-Request: the client shall report and ask anew for the whole session, or for the service
    named."""

    re_auth_request_type: int = int(ReAuthRequestType.AUTHORIZE_ONLY)
    rating_group: int | None = None
    service_identifier: int | None = None
    pool_identifier: int | None = None
    sub_session_id: int | None = None
    """Of the sub-session alone (RFC 8506 section 5.5)."""


@dataclass(slots=True)
class AbortSessionRequest(SessionRequest):
    """An Abort-Session-Request: the client shall end the session."""


@dataclass(slots=True)
class SessionAnswer:
    """A Re-Auth-Answer or Abort-Session-Answer. ``result_code`` 0: the answer has none."""

    hop_by_hop: int
    end_to_end: int
    session_id: bytes | None
    result_code: int
    origin_host: bytes
    origin_realm: bytes
    flags: int = Flag.PROXIABLE


def encode_rar(request: ReAuthRequest) -> bytes:
    """A whole Re-Auth-Request (RFC 6733 section 8.3.1, RFC 8506 section 10.2)."""
    parts = [*_common(request), unsigned32(wire.RE_AUTH_REQUEST_TYPE, request.re_auth_request_type)]
    optional = (
        (wire.G_S_U_POOL_IDENTIFIER, request.pool_identifier),
        (wire.SERVICE_IDENTIFIER, request.service_identifier),
        (wire.RATING_GROUP, request.rating_group),
    )
    if request.sub_session_id is not None:
        parts.append(unsigned64(wire.CC_SUB_SESSION_ID, request.sub_session_id))
    parts.extend(unsigned32(code, number) for code, number in optional if number is not None)
    return _build(Command.RE_AUTH, request, parts)


def encode_asr(request: AbortSessionRequest) -> bytes:
    """A whole Abort-Session-Request (RFC 6733 section 8.5.1)."""
    return _build(Command.ABORT_SESSION, request, _common(request))


def decode_rar(buffer: bytes) -> ReAuthRequest:
    """Read and check one whole Re-Auth-Request. Raises DiameterError, ready to be answered."""
    message = _checked(buffer, Command.RE_AUTH, is_request=True)
    return ReAuthRequest(
        *_request_fields(message),
        re_auth_request_type=_number(message, wire.RE_AUTH_REQUEST_TYPE) or 0,
        rating_group=_number(message, wire.RATING_GROUP),
        service_identifier=_number(message, wire.SERVICE_IDENTIFIER),
        pool_identifier=_number(message, wire.G_S_U_POOL_IDENTIFIER),
        sub_session_id=_number(message, wire.CC_SUB_SESSION_ID),
    )


def decode_asr(buffer: bytes) -> AbortSessionRequest:
    """Read and check one whole Abort-Session-Request. Raises DiameterError, ready to be answered."""
    return AbortSessionRequest(*_request_fields(_checked(buffer, Command.ABORT_SESSION, is_request=True)))


def encode_raa(request: ReAuthRequest, result_code: int, origin: bytes, message: bytes = b"") -> bytes:
    """The answer to ``request``. ``origin``: our encoded Origin-Host and Origin-Realm; ``message``: Error-Message."""
    return _answer(Command.RE_AUTH, request, result_code, origin, message)


def encode_asa(request: AbortSessionRequest, result_code: int, origin: bytes, message: bytes = b"") -> bytes:
    """The answer to ``request``; arguments as for ``encode_raa``."""
    return _answer(Command.ABORT_SESSION, request, result_code, origin, message)


def decode_raa(buffer: bytes) -> SessionAnswer:
    """Read one whole Re-Auth-Answer. Raises DiameterError if it is none; then it is dropped."""
    return _session_answer(_checked(buffer, Command.RE_AUTH, is_request=False))


def decode_asa(buffer: bytes) -> SessionAnswer:
    """Read one whole Abort-Session-Answer. Raises DiameterError if it is none; then it is dropped."""
    return _session_answer(_checked(buffer, Command.ABORT_SESSION, is_request=False))


def _common(request: SessionRequest) -> list[bytes]:
    return [
        octets(wire.SESSION_ID, request.session_id),
        octets(wire.ORIGIN_HOST, request.origin_host),
        octets(wire.ORIGIN_REALM, request.origin_realm),
        octets(wire.DESTINATION_REALM, request.destination_realm),
        octets(wire.DESTINATION_HOST, request.destination_host),
        unsigned32(wire.AUTH_APPLICATION_ID, Application.CREDIT_CONTROL),
    ]


def _build(command: Command, request: SessionRequest, parts: list[bytes]) -> bytes:
    return codec.build(
        command,
        Application.CREDIT_CONTROL,
        request.flags | Flag.REQUEST,
        request.hop_by_hop,
        request.end_to_end,
        [*parts, request.proxy_infos],
    )


def _answer(command: Command, request: SessionRequest, result_code: int, origin: bytes, message: bytes) -> bytes:
    parts = [
        octets(wire.SESSION_ID, request.session_id),
        unsigned32(wire.RESULT_CODE, result_code),
        origin,
        error_message(message) if message else b"",
        request.proxy_infos,
    ]
    flags = request.flags & Flag.PROXIABLE | (Flag.ERROR if 3000 <= result_code < 4000 else 0)
    return codec.build(command, Application.CREDIT_CONTROL, flags, request.hop_by_hop, request.end_to_end, parts)


def _checked(buffer: bytes, command: Command, *, is_request: bool) -> Message:
    """Decode and validate. Raises DiameterError, also for another command or the other direction."""
    validate(buffer)
    message = codec.decode(buffer)
    if message.command != command:
        raise MessageError(ResultCode.COMMAND_UNSUPPORTED, f"command {message.command} is not {command.name}")
    if message.is_request != is_request:
        raise MessageError(ResultCode.INVALID_HDR_BITS, "request and answer are mixed up")
    return message


def _request_fields(message: Message) -> tuple[int, int, bytes, bytes, bytes, bytes, bytes, int, bytes]:
    """The fields of SessionRequest, in their order."""
    return (
        message.hop_by_hop,
        message.end_to_end,
        _octets(message, wire.SESSION_ID),
        _octets(message, wire.ORIGIN_HOST),
        _octets(message, wire.ORIGIN_REALM),
        _octets(message, wire.DESTINATION_REALM),
        _octets(message, wire.DESTINATION_HOST),
        message.flags,
        b"".join([one.encode() for one in message.find_all(wire.PROXY_INFO)]),
    )


def _session_answer(message: Message) -> SessionAnswer:
    session_id = message.find(wire.SESSION_ID)
    return SessionAnswer(
        message.hop_by_hop,
        message.end_to_end,
        session_id.data if session_id is not None else None,
        _number(message, wire.RESULT_CODE) or 0,
        _octets(message, wire.ORIGIN_HOST),
        _octets(message, wire.ORIGIN_REALM),
        message.flags,
    )


def _octets(message: Message, code: int) -> bytes:
    found = message.find(code)
    return found.data if found is not None else b""


def _number(message: Message, code: int) -> int | None:
    found = message.find(code)
    return int.from_bytes(found.data, "big") if found is not None else None
