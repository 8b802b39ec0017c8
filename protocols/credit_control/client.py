"""The client's side of credit control, for simulators and load: writes requests, reads answers.

Answers are read through message shapes as requests are, so that a load generator costs little.
"""

from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.answer_model import ReceivedAnswer, ServiceAnswer
from protocols.credit_control.encoding import (
    group,
    octets,
    tgpp_mandatory32,
    tgpp_mandatory_group,
    tgpp_mandatory_octets,
    time,
    units,
    unsigned32,
    unsigned64,
)
from protocols.credit_control.model import CreditControlRequest, ServiceRequest
from protocols.credit_control.reading import (
    FIXED,
    OCTETS,
    U32,
    Read,
    advice_of_charge,
    arguments,
    defaults_of,
    final_unit_indication,
    money,
    pool_reference,
    qos_final_unit_indication,
    read_first,
)
from protocols.credit_control.reading import units as read_units
from protocols.diameter import codec
from protocols.diameter.codes import VENDOR_3GPP, Application, Command, Flag, ResultCode
from protocols.diameter.errors import MessageError
from protocols.diameter.shape import Shape, ShapeBuilder, ShapeCache
from protocols.diameter.validation import Node, validate

_AUTH_APPLICATION: Final = unsigned32(wire.AUTH_APPLICATION_ID, Application.CREDIT_CONTROL)
_VENDOR_APPLICATION: Final = group(
    wire.VENDOR_SPECIFIC_APPLICATION_ID, unsigned32(wire.VENDOR_ID, VENDOR_3GPP) + _AUTH_APPLICATION
)


def encode_request(
    request: CreditControlRequest,
    service_information: bytes = b"",
    *,
    extra: bytes = b"",
    vendor_specific_application: bool = False,
) -> bytes:
    """A whole Credit-Control-Request (RFC 8506 section 3.1).

    ``service_information``: encoded Service-Information (see ``service_information``), from which the
    receiver takes ``called_station_id``, the parties and all else that 3GPP has there; those fields of
    ``request`` are not written. ``extra``: further encoded AVPs for the end. ``vendor_specific_application``: name the
    application inside Vendor-Specific-Application-Id only, as Kamailio's ims_charging does. Command flags
    are those of ``request`` with R set. Raises struct.error for a number that its AVP cannot hold.
    """
    parts = [
        octets(wire.SESSION_ID, request.session_id),
        octets(wire.ORIGIN_HOST, request.origin_host),
        octets(wire.ORIGIN_REALM, request.origin_realm),
        octets(wire.DESTINATION_REALM, request.destination_realm),
        _VENDOR_APPLICATION if vendor_specific_application else _AUTH_APPLICATION,
        octets(wire.SERVICE_CONTEXT_ID, request.service_context_id),
        unsigned32(wire.CC_REQUEST_TYPE, request.request_type),
        unsigned32(wire.CC_REQUEST_NUMBER, request.request_number),
    ]
    texts = (
        (wire.DESTINATION_HOST, request.destination_host),
        (wire.USER_NAME, request.user_name),
        (wire.CC_CORRELATION_ID, request.correlation_id),
    )
    parts.extend(octets(code, data) for code, data in texts if data is not None)
    if request.sub_session_id is not None:
        parts.append(unsigned64(wire.CC_SUB_SESSION_ID, request.sub_session_id))
    if request.event_timestamp is not None:
        parts.append(time(wire.EVENT_TIMESTAMP, request.event_timestamp))
    for kind, data in request.subscriptions:
        parts.append(
            group(
                wire.SUBSCRIPTION_ID,
                unsigned32(wire.SUBSCRIPTION_ID_TYPE, kind) + octets(wire.SUBSCRIPTION_ID_DATA, data),
            )
        )
    numbers = (
        (wire.ORIGIN_STATE_ID, request.origin_state_id),
        (wire.SERVICE_IDENTIFIER, request.service_identifier),
        (wire.TERMINATION_CAUSE, request.termination_cause),
        (wire.REQUESTED_ACTION, request.requested_action),
        (wire.MULTIPLE_SERVICES_INDICATOR, request.multiple_services_indicator),
    )
    parts.extend(unsigned32(code, number) for code, number in numbers if number is not None)
    if request.aoc_request_type is not None:
        parts.append(tgpp_mandatory32(wire.AOC_REQUEST_TYPE, request.aoc_request_type))
    if request.refund_information is not None:
        parts.append(tgpp_mandatory_octets(wire.REFUND_INFORMATION, request.refund_information))
    if request.requested is not None:
        parts.append(units(wire.REQUESTED_SERVICE_UNIT, request.requested))
    parts.extend(units(wire.USED_SERVICE_UNIT, used) for used in request.used)
    parts.extend(_service(service) for service in request.services)
    parts.append(service_information)
    parts.append(extra)
    parts.append(request.proxy_infos)
    parts.extend(octets(wire.ROUTE_RECORD, route) for route in request.route_records)
    return codec.build(
        Command.CREDIT_CONTROL,
        Application.CREDIT_CONTROL,
        request.flags | Flag.REQUEST,
        request.hop_by_hop,
        request.end_to_end,
        parts,
    )


def _service(service: ServiceRequest) -> bytes:
    """Multiple-Services-Credit-Control (RFC 8506 section 8.16)."""
    members = b"" if service.requested is None else units(wire.REQUESTED_SERVICE_UNIT, service.requested)
    for used in service.used:
        members += units(wire.USED_SERVICE_UNIT, used)
    for identifier in service.service_identifiers:
        members += unsigned32(wire.SERVICE_IDENTIFIER, identifier)
    if service.rating_group is not None:
        members += unsigned32(wire.RATING_GROUP, service.rating_group)
    if service.reporting_reason is not None:
        members += tgpp_mandatory32(wire.REPORTING_REASON, service.reporting_reason)
    if service.triggers:
        triggers = b"".join([tgpp_mandatory32(wire.TRIGGER_TYPE, one) for one in service.triggers])
        members += tgpp_mandatory_group(wire.TRIGGER, triggers)
    if service.refund_information is not None:
        members += tgpp_mandatory_octets(wire.REFUND_INFORMATION, service.refund_information)
    return group(wire.MULTIPLE_SERVICES_CREDIT_CONTROL, members)


def decode_answer(buffer: bytes) -> ReceivedAnswer:
    """Read and check one whole Credit-Control-Answer.

    Raises DiameterError if it breaks the grammar of RFC 8506 section 3.2 (or, with the E bit, of RFC 6733
    section 7.2); there is nobody to tell, so a client drops it.
    """
    return ANSWER_SHAPES.read(buffer)


def learn(buffer: bytes) -> Shape[ReceivedAnswer]:
    """Validate an answer in full and return its shape. Raises DiameterError."""
    nodes = validate(buffer)
    flags_command = int.from_bytes(buffer[4:8], "big")
    if flags_command & 0xFFFFFF != Command.CREDIT_CONTROL:
        raise MessageError(ResultCode.COMMAND_UNSUPPORTED, f"command {flags_command & 0xFFFFFF} is not Credit-Control")
    if flags_command >> 24 & Flag.REQUEST:
        raise MessageError(ResultCode.INVALID_HDR_BITS, "a Credit-Control-Request is not an answer")
    return _shape(ShapeBuilder(buffer, nodes), nodes)


ANSWER_SHAPES: Final[ShapeCache[ReceivedAnswer]] = ShapeCache(learn)

_ANSWER_DEFAULTS: Final = defaults_of(ReceivedAnswer)
_SERVICE_DEFAULTS: Final = defaults_of(ServiceAnswer)

# AVP key -> (field, how to read it).
_VALUES: Final[dict[int, tuple[str, Read]]] = {
    wire.SESSION_ID: ("session_id", OCTETS),
    wire.RESULT_CODE: ("result_code", U32),
    wire.ORIGIN_HOST: ("origin_host", OCTETS),
    wire.ORIGIN_REALM: ("origin_realm", OCTETS),
    wire.CC_REQUEST_TYPE: ("request_type", FIXED),
    wire.CC_REQUEST_NUMBER: ("request_number", U32),
    wire.GRANTED_SERVICE_UNIT: ("granted", read_units),
    wire.VALIDITY_TIME: ("validity_time", U32),
    wire.COST_INFORMATION: ("cost", money),
    wire.REMAINING_BALANCE: ("remaining_balance", money),
    wire.CHECK_BALANCE_RESULT: ("check_balance_result", FIXED),
    wire.CC_SESSION_FAILOVER: ("cc_session_failover", FIXED),
    wire.CREDIT_CONTROL_FAILURE_HANDLING: ("credit_control_failure_handling", FIXED),
    wire.DIRECT_DEBITING_FAILURE_HANDLING: ("direct_debiting_failure_handling", FIXED),
    wire.LOW_BALANCE_INDICATION: ("low_balance_indication", U32),
    wire.FAILED_AVP: ("failed_avp", OCTETS),
    wire.ERROR_MESSAGE: ("error_message", OCTETS),
    wire.REFUND_INFORMATION: ("refund_information", OCTETS),
}
_SERVICE_VALUES: Final[dict[int, tuple[str, Read]]] = {
    wire.RATING_GROUP: ("rating_group", U32),
    wire.RESULT_CODE: ("result_code", U32),
    wire.GRANTED_SERVICE_UNIT: ("granted", read_units),
    wire.VALIDITY_TIME: ("validity_time", U32),
    wire.TIME_QUOTA_THRESHOLD: ("time_quota_threshold", U32),
    wire.VOLUME_QUOTA_THRESHOLD: ("volume_quota_threshold", U32),
    wire.UNIT_QUOTA_THRESHOLD: ("unit_quota_threshold", U32),
    wire.QUOTA_HOLDING_TIME: ("quota_holding_time", U32),
    wire.QUOTA_CONSUMPTION_TIME: ("quota_consumption_time", U32),
    wire.TARIFF_CHANGE_USAGE: ("tariff_change_usage", FIXED),
    wire.REFUND_INFORMATION: ("refund_information", OCTETS),
    wire.FAILED_AVP: ("failed_avp", OCTETS),
}


def _shape(builder: ShapeBuilder, nodes: list[Node]) -> Shape[ReceivedAnswer]:
    found = {
        "flags": builder.field(4, 1, "B"),
        "hop_by_hop": builder.field(12, 4, "I"),
        "end_to_end": builder.field(16, 4, "I"),
    }
    services: list[int] = []
    experimental: int | None = None
    for node in nodes:
        key = node[0]
        if key in _VALUES:
            read_first(builder, node, _VALUES[key], found)
        elif key == wire.MULTIPLE_SERVICES_CREDIT_CONTROL:
            services.append(_service_answer(builder, node))
        elif key == wire.SERVICE_INFORMATION:
            for member in node[4] or ():
                if member[0] == wire.AOC_INFORMATION:
                    read_first(builder, member, ("advice_of_charge", advice_of_charge), found)
        elif key == wire.EXPERIMENTAL_RESULT:
            experimental = builder.unsigned32(
                next(one for one in node[4] or () if one[0] == wire.EXPERIMENTAL_RESULT_CODE)
            )
    _final_units(builder, nodes, found)
    if experimental is not None:
        found.setdefault("result_code", experimental)
    found["services"] = builder.tuple_of(services)
    return Shape(builder, ReceivedAnswer, arguments(builder, found, _ANSWER_DEFAULTS))


def _service_answer(builder: ShapeBuilder, node: Node) -> int:
    found: dict[str, int] = {}
    identifiers: list[int] = []
    pools: list[int] = []
    triggers: list[int] = []
    members = node[4] or []
    for member in members:
        key = member[0]
        if key in _SERVICE_VALUES:
            read_first(builder, member, _SERVICE_VALUES[key], found)
        elif key == wire.SERVICE_IDENTIFIER:
            identifiers.append(builder.unsigned32(member))
        elif key == wire.G_S_U_POOL_REFERENCE:
            pools.append(pool_reference(builder, member))
        elif key == wire.TRIGGER:
            triggers.extend(builder.unsigned32(one) for one in member[4] or () if one[0] == wire.TRIGGER_TYPE)
    _final_units(builder, members, found)
    lists = (("service_identifiers", identifiers), ("pool_references", pools), ("triggers", triggers))
    found.update({name: builder.tuple_of(several) for name, several in lists if several})
    return builder.make(ServiceAnswer, arguments(builder, found, _SERVICE_DEFAULTS))


def _final_units(builder: ShapeBuilder, nodes: list[Node], found: dict[str, int]) -> None:
    """Final-Unit-Indication and QoS-Final-Unit-Indication among ``nodes``; the latter counts for more."""
    for node in nodes:
        if node[0] == wire.QOS_FINAL_UNIT_INDICATION:
            qos_final_unit_indication(builder, node, found)
    for node in nodes:
        if node[0] == wire.FINAL_UNIT_INDICATION:
            final_unit_indication(builder, node, found)
