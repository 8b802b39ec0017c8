"""Credit-Control-Request: octets to ``CreditControlRequest`` (RFC 8506 section 3.1).

Reading goes through a cache of message shapes (``protocols.diameter.shape``); what is here tells the shape
builder where the values of a request are.
"""

from collections.abc import Callable
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.model import CreditControlRequest, ServiceRequest
from protocols.credit_control.reading import (
    FIXED,
    MOMENT,
    OCTETS,
    U32,
    U64,
    Read,
    arguments,
    defaults_of,
    read_first,
    requested_units,
    steady_octets,
    steady_u32,
    units,
)
from protocols.diameter.codes import Command, Flag, ResultCode, SubscriptionIdType
from protocols.diameter.errors import AvpError, MessageError
from protocols.diameter.shape import Shape, ShapeBuilder, ShapeCache
from protocols.diameter.validation import Node, padded, validate

_SERVICE_DEFAULTS: Final = defaults_of(ServiceRequest)
_REQUEST_DEFAULTS: Final = defaults_of(CreditControlRequest)


def decode_request(buffer: bytes) -> CreditControlRequest:
    """Read and check one whole Credit-Control-Request.

    Raises DiameterError with the Result-Code and Failed-AVP for ``protocols.diameter.codec.error_answer``:
    3001, 3007, 3008, 3009, 5001, 5004, 5005, 5008, 5009, 5011, 5012, 5014, or 5015 with ``close``. Accepted
    although the grammar says otherwise, because real clients send it: the application inside
    Vendor-Specific-Application-Id only, and Origin-Host and Origin-Realm repeated.
    """
    return SHAPES.read(buffer)


MAX_SERVICES: Final[int] = 100
"""Multiple-Services-Credit-Control in one request; each costs as much as a request of its own."""


def learn(buffer: bytes) -> Shape[CreditControlRequest]:
    """Validate a request in full and return its shape. Raises DiameterError."""
    nodes = validate(buffer)
    flags_command = int.from_bytes(buffer[4:8], "big")
    if flags_command & 0xFFFFFF != Command.CREDIT_CONTROL:
        raise MessageError(ResultCode.COMMAND_UNSUPPORTED, f"command {flags_command & 0xFFFFFF} is not Credit-Control")
    if not flags_command >> 24 & Flag.REQUEST:
        raise MessageError(ResultCode.INVALID_HDR_BITS, "a Credit-Control-Answer is not a request")
    services = [node for node in nodes if node[0] == wire.MULTIPLE_SERVICES_CREDIT_CONTROL]
    if len(services) > MAX_SERVICES:
        _, start, _, stop, _ = services[MAX_SERVICES]
        raise AvpError(
            ResultCode.AVP_OCCURS_TOO_MANY_TIMES,
            f"Multiple-Services-Credit-Control occurs more often than the {MAX_SERVICES} allowed",
            padded(buffer[start:stop]),
        )
    return _Reader(buffer, nodes).shape()


SHAPES: Final[ShapeCache[CreditControlRequest]] = ShapeCache(learn)

# AVP key -> (field, how to read it); the first of several counts.
_VALUES: Final[dict[int, tuple[str, Read]]] = {
    wire.SESSION_ID: ("session_id", OCTETS),
    wire.ORIGIN_HOST: ("origin_host", steady_octets),
    wire.ORIGIN_REALM: ("origin_realm", steady_octets),
    wire.DESTINATION_REALM: ("destination_realm", steady_octets),
    wire.DESTINATION_HOST: ("destination_host", steady_octets),
    wire.SERVICE_CONTEXT_ID: ("service_context_id", steady_octets),
    wire.CC_REQUEST_TYPE: ("request_type", FIXED),
    wire.CC_REQUEST_NUMBER: ("request_number", U32),
    wire.CC_SUB_SESSION_ID: ("sub_session_id", U64),
    wire.EVENT_TIMESTAMP: ("event_timestamp", MOMENT),
    wire.REQUESTED_ACTION: ("requested_action", FIXED),
    wire.MULTIPLE_SERVICES_INDICATOR: ("multiple_services_indicator", FIXED),
    wire.TERMINATION_CAUSE: ("termination_cause", steady_u32),
    wire.ORIGIN_STATE_ID: ("origin_state_id", steady_u32),
    wire.SERVICE_IDENTIFIER: ("service_identifier", steady_u32),
    wire.USER_NAME: ("user_name", OCTETS),
    wire.CALLED_STATION_ID: ("called_station_id", steady_octets),
    wire.AOC_REQUEST_TYPE: ("aoc_request_type", steady_u32),
    wire.CC_CORRELATION_ID: ("correlation_id", OCTETS),
    wire.REFUND_INFORMATION: ("refund_information", OCTETS),
}
# The same for the members of PS-Information and IMS-Information, and of the latter's Event-Type.
_INFORMATION: Final[dict[int, tuple[str, Read]]] = {
    wire.CALLED_STATION_ID: ("called_station_id", steady_octets),
    wire.SGSN_MCC_MNC: ("sgsn_mcc_mnc", steady_octets),
    wire.CALLED_PARTY_ADDRESS: ("called_party", OCTETS),
    wire.CALLING_PARTY_ADDRESS: ("calling_party", OCTETS),
    wire.ROLE_OF_NODE: ("role_of_node", steady_u32),
    wire.RAT_TYPE: ("rat_type", steady_octets),
    wire.USER_LOCATION_INFO: ("user_location", OCTETS),
    wire.NUMBER_PORTABILITY_ROUTING_INFORMATION: ("number_portability", OCTETS),
    wire.SIP_METHOD: ("sip_method", steady_octets),
    wire.ACCESS_NETWORK_INFORMATION: ("access_network", OCTETS),
    wire.IMS_VISITED_NETWORK_IDENTIFIER: ("visited_network", OCTETS),
}
# RFC 8506 section 8.58 names the types that these stand for.
_EXTENSION_TYPES: Final[dict[int, int]] = {
    wire.SUBSCRIPTION_ID_E164: SubscriptionIdType.END_USER_E164,
    wire.SUBSCRIPTION_ID_IMSI: SubscriptionIdType.END_USER_IMSI,
    wire.SUBSCRIPTION_ID_SIP_URI: SubscriptionIdType.END_USER_SIP_URI,
    wire.SUBSCRIPTION_ID_NAI: SubscriptionIdType.END_USER_NAI,
    wire.SUBSCRIPTION_ID_PRIVATE: SubscriptionIdType.END_USER_PRIVATE,
}


class _Reader:
    """Reads the nodes of one request into a shape builder."""

    __slots__ = ("builder", "extra_subscriptions", "found", "proxy_infos", "routes", "services", "used")

    def __init__(self, buffer: bytes, nodes: list[Node]) -> None:
        self.builder = ShapeBuilder(buffer, nodes)
        self.found: dict[str, int] = {}
        self.used: list[int] = []
        self.services: list[int] = []
        self.routes: list[int] = []
        self.proxy_infos: list[int] = []
        subscriptions: list[tuple[int, int]] = []
        self.extra_subscriptions: list[tuple[int, int]] = []
        builder = self.builder
        found = self.found
        found["flags"] = builder.field(4, 1, "B")
        found["hop_by_hop"] = builder.field(12, 4, "I")
        found["end_to_end"] = builder.field(16, 4, "I")
        for node in nodes:
            key = node[0]
            value = _VALUES.get(key)
            if value is not None:
                read_first(builder, node, value, found)
            elif key in (wire.SUBSCRIPTION_ID, wire.SUBSCRIPTION_ID_EXTENSION):
                subscriptions.extend(self._subscriptions(node))
            else:
                group = _GROUPS.get(key)
                if group is not None:
                    group(self, node)
        # What Service-Information repeats of the command level is not wanted twice.
        known = {kind for kind, _ in subscriptions}
        subscriptions.extend(one for one in self.extra_subscriptions if one[0] not in known)
        if subscriptions:
            found["subscriptions"] = builder.tuple_of(
                [builder.make(None, (builder.constant(kind), data)) for kind, data in subscriptions]
            )

    def shape(self) -> Shape[CreditControlRequest]:
        builder = self.builder
        found = self.found
        for name, several in (("services", self.services), ("used", self.used), ("route_records", self.routes)):
            if several:
                found[name] = builder.tuple_of(several)
        if len(self.proxy_infos) == 1:
            found["proxy_infos"] = self.proxy_infos[0]
        elif self.proxy_infos:
            found["proxy_infos"] = builder.make(_join, self.proxy_infos)
        return Shape(builder, CreditControlRequest, arguments(builder, found, _REQUEST_DEFAULTS))

    def _subscriptions(self, node: Node) -> list[tuple[int, int]]:
        """(type, reference to the data) of a Subscription-Id or the AVPs of a Subscription-Id-Extension."""
        builder = self.builder
        members = node[4] or []
        if node[0] == wire.SUBSCRIPTION_ID_EXTENSION:
            return [
                (_EXTENSION_TYPES[member[0]], builder.octets(member))
                for member in members
                if member[0] in _EXTENSION_TYPES
            ]
        kind = next(member for member in members if member[0] == wire.SUBSCRIPTION_ID_TYPE)
        data = next(member for member in members if member[0] == wire.SUBSCRIPTION_ID_DATA)
        # The type is made part of the shape, which makes it a constant: clients do not vary it.
        builder.fixed32(kind)
        return [(int.from_bytes(builder.buffer[kind[2] : kind[3]], "big"), builder.octets(data))]

    def service(self, node: Node) -> None:
        """Multiple-Services-Credit-Control."""
        builder = self.builder
        found: dict[str, int] = {}
        identifiers: list[int] = []
        used: list[int] = []
        triggers: list[int] = []
        for member in node[4] or ():
            key = member[0]
            if key == wire.RATING_GROUP:
                found["rating_group"] = steady_u32(builder, member)
            elif key == wire.SERVICE_IDENTIFIER:
                identifiers.append(steady_u32(builder, member))
            elif key == wire.REQUESTED_SERVICE_UNIT:
                found["requested"] = requested_units(builder, member)
            elif key == wire.USED_SERVICE_UNIT:
                used.append(units(builder, member))
            elif key == wire.REPORTING_REASON and "reporting_reason" not in found:
                found["reporting_reason"] = steady_u32(builder, member)
            elif key == wire.TRIGGER:
                triggers.extend(steady_u32(builder, one) for one in member[4] or () if one[0] == wire.TRIGGER_TYPE)
            elif key == wire.REFUND_INFORMATION and "refund_information" not in found:
                found["refund_information"] = builder.octets(member)
        for name, several in (("service_identifiers", identifiers), ("used", used), ("triggers", triggers)):
            if several:
                found[name] = builder.tuple_of(several)
        self.services.append(builder.make(ServiceRequest, arguments(builder, found, _SERVICE_DEFAULTS)))

    def command_units(self, node: Node) -> None:
        """Requested- or Used-Service-Unit at command level."""
        if node[0] == wire.USED_SERVICE_UNIT:
            self.used.append(units(self.builder, node))
        else:
            self.found["requested"] = requested_units(self.builder, node)

    def route_record(self, node: Node) -> None:
        self.routes.append(self.builder.octets(node))

    def proxy_info(self, node: Node) -> None:
        self.proxy_infos.append(self.builder.whole(node))

    def service_information(self, node: Node) -> None:
        """The parts of Service-Information that charging reads (TS 32.299 clause 7.2.192)."""
        for member in node[4] or ():
            key = member[0]
            if key == wire.SUBSCRIPTION_ID:
                self.extra_subscriptions.extend(self._subscriptions(member))
            elif key == wire.SMS_INFORMATION:
                self._sms_information(member)
            elif key in (wire.PS_INFORMATION, wire.IMS_INFORMATION):
                self._information(member)

    def _information(self, node: Node) -> None:
        """PS-Information, IMS-Information or the latter's Event-Type (TS 32.299 clauses 7.2.158, 7.2.77)."""
        for member in node[4] or ():
            value = _INFORMATION.get(member[0])
            if value is not None:
                read_first(self.builder, member, value, self.found)
            elif member[0] == wire.EVENT_TYPE:
                self._information(member)

    def _sms_information(self, node: Node) -> None:
        """Originator and recipients (TS 32.299 clause 7.2.209), of each Recipient-Info the first address."""
        recipients: list[int] = []
        for member in node[4] or ():
            if member[0] == wire.ORIGINATOR_RECEIVED_ADDRESS:
                number = self._address(member)
                if number is not None:
                    self.found.setdefault("calling_party", number)
            elif member[0] == wire.RECIPIENT_INFO:
                addresses = (self._address(one) for one in member[4] or () if one[0] == wire.RECIPIENT_ADDRESS)
                number = next((each for each in addresses if each is not None), None)
                if number is not None:
                    recipients.append(number)
        if recipients:
            self.found.setdefault("called_party", recipients[0])
        if len(recipients) > 1:
            self.found["recipients"] = self.builder.tuple_of(recipients)

    def _address(self, node: Node) -> int | None:
        """A reference to the Address-Data of an address."""
        for member in node[4] or ():
            if member[0] == wire.ADDRESS_DATA:
                return self.builder.octets(member)
        return None


_GROUPS: Final[dict[int, Callable[[_Reader, Node], None]]] = {
    wire.MULTIPLE_SERVICES_CREDIT_CONTROL: _Reader.service,
    wire.REQUESTED_SERVICE_UNIT: _Reader.command_units,
    wire.USED_SERVICE_UNIT: _Reader.command_units,
    wire.SERVICE_INFORMATION: _Reader.service_information,
    wire.ROUTE_RECORD: _Reader.route_record,
    wire.PROXY_INFO: _Reader.proxy_info,
}


def _join(*parts: bytes) -> bytes:
    return b"".join(parts)
