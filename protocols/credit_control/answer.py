"""Credit-Control-Answer: ``CreditControlAnswer`` to octets (RFC 8506 section 3.2).

Output is strict: Session-Id comes first, what the request said comes back, and no AVP that a plain Diameter
credit-control client may not know has the M bit (see ``members``).
"""

from struct import Struct
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.answer_model import CreditControlAnswer, ServiceAnswer
from protocols.credit_control.encoding import PADDING, group, header32, unit_members, unsigned32, unsigned64
from protocols.credit_control.members import encode_command_members, encode_service_members
from protocols.credit_control.model import CreditControlRequest
from protocols.diameter.codes import Application, Command, Flag

_VERSION: Final[int] = 1 << 24
_APPLICATION: Final[int] = int(Application.CREDIT_CONTROL)
_PROXIABLE: Final[int] = int(Flag.PROXIABLE)
_ERROR: Final[int] = int(Flag.ERROR)

_MANDATORY: Final[int] = 0x40000000
_GROUP: Final = Struct(">II").pack
# A group and the header of the group that is its first member.
_TWO_GROUPS: Final = Struct(">IIII").pack
# AVP headers packed once, as octets: a third cheaper than packing their numbers each time.
_U32: Final = Struct(">8sI").pack
_THREE_U32: Final = Struct(">8sI8sI8sI").pack
_SERVICE_IDENTIFIER: Final[bytes] = header32(wire.SERVICE_IDENTIFIER)
_RATING_GROUP: Final[bytes] = header32(wire.RATING_GROUP)
_VALIDITY_TIME: Final[bytes] = header32(wire.VALIDITY_TIME)
_RESULT_CODE: Final[bytes] = header32(wire.RESULT_CODE)
# Message header, header of Session-Id.
_START: Final = Struct(">I8sIIQ").pack
_SESSION_ID: Final[int] = wire.SESSION_ID << 32 | _MANDATORY
_NUMBER: Final = Struct(">I").pack
_HEADS: Final = tuple(
    [
        Struct(">II").pack(flags << 24 | int(Command.CREDIT_CONTROL), _APPLICATION)
        for flags in (0, _PROXIABLE, _ERROR, _ERROR | _PROXIABLE)
    ]
)
"""Flags, command and application: without flags, with the P bit, with the E bit, with both."""
_AUTH_APPLICATION: Final[bytes] = unsigned32(wire.AUTH_APPLICATION_ID, _APPLICATION)
_CC_REQUEST_TYPE: Final[bytes] = header32(wire.CC_REQUEST_TYPE)
_CC_REQUEST_NUMBER: Final[bytes] = header32(wire.CC_REQUEST_NUMBER)

MIDDLES_REMEMBERED: Final = 1024
_MIDDLES: Final[dict[tuple[int, int, int, bytes], bytes]] = {}
"""(CC-Request-Type, Result-Code, octets that a Session-Id has beyond a multiple of four, origin) -> all that is between
Session-Id and the number in CC-Request-Number."""


def encode_answer(
    request: CreditControlRequest, answer: CreditControlAnswer, origin: bytes, services: bytes = b""
) -> bytes:
    """The whole message that answers ``request``.

    ``origin``: our encoded Origin-Host and Origin-Realm. ``services``: Multiple-Services-Credit-Controls that are
    encoded already (``encode_service``) and go before those of ``answer``. The P bit and every Proxy-Info of the
    request come back; the E bit is set for a Result-Code of 3xxx. Raises struct.error for a number that its AVP
    cannot hold, and ValueError as ``encode_service_members`` does.
    """
    members = services
    if answer.granted is not None:
        members = group(wire.GRANTED_SERVICE_UNIT, unit_members(answer.granted)) + services
    if answer.services:
        members += b"".join([encode_service(service) for service in answer.services])
    if answer.validity_time is not None:
        members += _U32(_VALIDITY_TIME, answer.validity_time)
    return encode_result(request, answer.result_code, origin, members, encode_command_members(answer))


def encode_result(
    request: CreditControlRequest, result_code: int, origin: bytes, services: bytes = b"", members: bytes = b""
) -> bytes:
    """The whole message that answers ``request``, with what is encoded already after CC-Request-Number.

    ``services`` and ``members``: AVPs in this order; all else is as in ``encode_answer``. Raises struct.error for a
    number that its AVP cannot hold.
    """
    session_id = request.session_id
    size = len(session_id)
    key = (request.request_type, result_code, size & 3, origin)
    middle = _MIDDLES.get(key)
    if middle is None:
        middle = _middle(key)
    if request.sub_session_id is not None:
        services = unsigned64(wire.CC_SUB_SESSION_ID, request.sub_session_id) + services
    proxy_infos = request.proxy_infos
    length = 32 + size + len(middle) + len(services) + len(members) + len(proxy_infos)
    head = 1 if request.flags & _PROXIABLE else 0
    if 3000 <= result_code < 4000:
        head += 2
    return b"".join(
        [
            _START(_VERSION | length, _HEADS[head], request.hop_by_hop, request.end_to_end, _SESSION_ID | size + 8),
            session_id,
            middle,
            _NUMBER(request.request_number),
            services,
            members,
            proxy_infos,
        ]
    )


def _middle(key: tuple[int, int, int, bytes]) -> bytes:
    """What ``_MIDDLES`` has for a key from now on."""
    request_type, result_code, beyond, origin = key
    if len(_MIDDLES) >= MIDDLES_REMEMBERED:
        _MIDDLES.clear()
    middle = _MIDDLES[key] = b"".join(
        (
            PADDING[beyond],
            _U32(_RESULT_CODE, result_code),
            origin,
            _AUTH_APPLICATION,
            _U32(_CC_REQUEST_TYPE, request_type),
            _CC_REQUEST_NUMBER,
        )
    )
    return middle


def encode_service(service: ServiceAnswer) -> bytes:
    """Multiple-Services-Credit-Control (RFC 8506 section 8.16). Raises as ``encode_answer`` does."""
    members = b""
    for identifier in service.service_identifiers:
        members += _U32(_SERVICE_IDENTIFIER, identifier)
    rating_group = service.rating_group
    validity_time = service.validity_time
    result_code = service.result_code
    if rating_group is not None and validity_time is not None and result_code is not None:
        # Most answers have all three.
        members += _THREE_U32(_RATING_GROUP, rating_group, _VALIDITY_TIME, validity_time, _RESULT_CODE, result_code)
    else:
        if rating_group is not None:
            members += _U32(_RATING_GROUP, rating_group)
        if validity_time is not None:
            members += _U32(_VALIDITY_TIME, validity_time)
        if result_code is not None:
            members += _U32(_RESULT_CODE, result_code)
    members += encode_service_members(service)
    if service.granted is None:
        return _GROUP(wire.MULTIPLE_SERVICES_CREDIT_CONTROL, _MANDATORY | len(members) + 8) + members
    granted = unit_members(service.granted)
    size = len(granted) + 8
    return (
        _TWO_GROUPS(
            wire.MULTIPLE_SERVICES_CREDIT_CONTROL,
            _MANDATORY | size + len(members) + 8,
            wire.GRANTED_SERVICE_UNIT,
            _MANDATORY | size,
        )
        + granted
        + members
    )
