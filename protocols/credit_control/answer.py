"""Credit-Control-Answer: ``CreditControlAnswer`` to octets (RFC 8506 section 3.2).

Output is strict: Session-Id comes first, what the request said comes back, and no AVP that a plain Diameter
credit-control client may not know has the M bit, since clients drop such an answer in silence.
"""

from struct import Struct
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.encoding import (
    PADDING,
    group,
    money,
    octets,
    tgpp_group,
    tgpp_unsigned32,
    units,
    unsigned32,
    unsigned64,
)
from protocols.credit_control.model import CreditControlAnswer, CreditControlRequest, ServiceAnswer
from protocols.diameter.codes import Application, Command, Flag

_VERSION: Final[int] = 1 << 24
_APPLICATION: Final[int] = int(Application.CREDIT_CONTROL)
_COMMAND: Final[int] = int(Command.CREDIT_CONTROL)
_PROXIABLE_COMMAND: Final[int] = Flag.PROXIABLE << 24 | _COMMAND
_ERROR_BIT: Final[int] = Flag.ERROR << 24

_MANDATORY: Final[int] = 0x40000000
_LENGTH_32: Final[int] = _MANDATORY | 12
_U32: Final = Struct(">III").pack
_GROUP: Final = Struct(">II").pack
# Message header, header of Session-Id.
_START: Final = Struct(">IIIIIII").pack
# Auth-Application-Id with its value, then CC-Request-Type and CC-Request-Number.
_ECHO: Final = Struct(">12sIIIIII").pack
_AUTH_APPLICATION: Final[bytes] = unsigned32(wire.AUTH_APPLICATION_ID, _APPLICATION)


def encode_answer(request: CreditControlRequest, answer: CreditControlAnswer, origin: bytes) -> bytes:
    """The whole message that answers ``request``.

    ``origin``: our encoded Origin-Host and Origin-Realm. The P bit and every Proxy-Info of the request
    come back; the E bit is set for a Result-Code of 3xxx. Raises struct.error for a number that its AVP
    cannot hold.
    """
    result_code = answer.result_code
    session_id = request.session_id
    size = len(session_id)
    parts = [
        session_id,
        PADDING[size & 3],
        _U32(wire.RESULT_CODE, _LENGTH_32, result_code),
        origin,
        _ECHO(
            _AUTH_APPLICATION,
            wire.CC_REQUEST_TYPE,
            _LENGTH_32,
            request.request_type,
            wire.CC_REQUEST_NUMBER,
            _LENGTH_32,
            request.request_number,
        ),
    ]
    if request.sub_session_id is not None:
        parts.append(unsigned64(wire.CC_SUB_SESSION_ID, request.sub_session_id))
    if answer.cc_session_failover is not None:
        parts.append(_U32(wire.CC_SESSION_FAILOVER, _LENGTH_32, answer.cc_session_failover))
    if answer.granted is not None:
        parts.append(units(wire.GRANTED_SERVICE_UNIT, answer.granted))
    parts.extend([_service(service) for service in answer.services])
    _append_rarer(parts, answer)
    if request.proxy_infos:
        parts.append(request.proxy_infos)
    body = b"".join(parts)
    flags_command = _PROXIABLE_COMMAND if request.flags & Flag.PROXIABLE else _COMMAND
    if 3000 <= result_code < 4000:
        flags_command |= _ERROR_BIT
    return (
        _START(
            _VERSION | len(body) + 28,
            flags_command,
            _APPLICATION,
            request.hop_by_hop,
            request.end_to_end,
            wire.SESSION_ID,
            _MANDATORY | size + 8,
        )
        + body
    )


def _service(service: ServiceAnswer) -> bytes:
    """Multiple-Services-Credit-Control, in the order of its grammar (RFC 8506 section 8.16)."""
    members = b"" if service.granted is None else units(wire.GRANTED_SERVICE_UNIT, service.granted)
    for identifier in service.service_identifiers:
        members += _U32(wire.SERVICE_IDENTIFIER, _LENGTH_32, identifier)
    if service.rating_group is not None:
        members += _U32(wire.RATING_GROUP, _LENGTH_32, service.rating_group)
    if service.validity_time is not None:
        members += _U32(wire.VALIDITY_TIME, _LENGTH_32, service.validity_time)
    if service.result_code is not None:
        members += _U32(wire.RESULT_CODE, _LENGTH_32, service.result_code)
    if service.final_unit_action is not None:
        members += _final_unit_indication(service)
    if service.time_quota_threshold is not None:
        members += tgpp_unsigned32(wire.TIME_QUOTA_THRESHOLD, service.time_quota_threshold)
    if service.volume_quota_threshold is not None:
        members += tgpp_unsigned32(wire.VOLUME_QUOTA_THRESHOLD, service.volume_quota_threshold)
    if service.unit_quota_threshold is not None:
        members += tgpp_unsigned32(wire.UNIT_QUOTA_THRESHOLD, service.unit_quota_threshold)
    if service.quota_holding_time is not None:
        members += tgpp_unsigned32(wire.QUOTA_HOLDING_TIME, service.quota_holding_time)
    if service.failed_avp is not None:
        members += group(wire.FAILED_AVP, service.failed_avp)
    return _GROUP(wire.MULTIPLE_SERVICES_CREDIT_CONTROL, _MANDATORY | len(members) + 8) + members


def _final_unit_indication(holder: ServiceAnswer | CreditControlAnswer) -> bytes:
    """Final-Unit-Indication (RFC 8506 section 8.34)."""
    action = holder.final_unit_action
    assert action is not None
    members = unsigned32(wire.FINAL_UNIT_ACTION, action)
    for rule in holder.restriction_rules:
        members += octets(wire.RESTRICTION_FILTER_RULE, rule)
    for filter_id in holder.filter_ids:
        members += octets(wire.FILTER_ID, filter_id)
    if holder.redirect_server_address is not None:
        members += group(
            wire.REDIRECT_SERVER,
            unsigned32(wire.REDIRECT_ADDRESS_TYPE, holder.redirect_address_type or 0)
            + octets(wire.REDIRECT_SERVER_ADDRESS, holder.redirect_server_address),
        )
    return group(wire.FINAL_UNIT_INDICATION, members)


def _append_rarer(parts: list[bytes], answer: CreditControlAnswer) -> None:
    """What few answers have, in the order of the grammar; 3GPP's own AVPs (TS 32.299 clause 6.4.3) last."""
    if answer.cost is not None:
        parts.append(group(wire.COST_INFORMATION, money(answer.cost)))
    if answer.final_unit_action is not None:
        parts.append(_final_unit_indication(answer))
    if answer.check_balance_result is not None:
        parts.append(unsigned32(wire.CHECK_BALANCE_RESULT, answer.check_balance_result))
    if answer.credit_control_failure_handling is not None:
        parts.append(unsigned32(wire.CREDIT_CONTROL_FAILURE_HANDLING, answer.credit_control_failure_handling))
    if answer.direct_debiting_failure_handling is not None:
        parts.append(unsigned32(wire.DIRECT_DEBITING_FAILURE_HANDLING, answer.direct_debiting_failure_handling))
    if answer.validity_time is not None:
        parts.append(unsigned32(wire.VALIDITY_TIME, answer.validity_time))
    if answer.failed_avp is not None:
        parts.append(group(wire.FAILED_AVP, answer.failed_avp))
    if answer.error_message is not None:
        parts.append(error_message(answer.error_message))
    if answer.low_balance_indication is not None:
        parts.append(tgpp_unsigned32(wire.LOW_BALANCE_INDICATION, answer.low_balance_indication))
    if answer.remaining_balance is not None:
        parts.append(tgpp_group(wire.REMAINING_BALANCE, money(answer.remaining_balance)))


def error_message(text: bytes) -> bytes:
    """Error-Message, which must not have the M bit (RFC 6733 section 4.5)."""
    size = len(text)
    return _GROUP(wire.ERROR_MESSAGE, size + 8) + text + PADDING[size & 3]
