"""Typed credit-control requests, and the units that requests and answers share (RFC 8506 section 3, 3GPP TS 32.299
clause 6.4).

Names, identifiers and addresses are ``bytes`` as on the wire; times are seconds, volumes octets, moments Unix
seconds. None means that the AVP is absent.
"""

from dataclasses import dataclass

from protocols.diameter.assembly import Copied

#: Amount of money: Value-Digits, Exponent, Currency-Code (ISO 4217 number) or None. Worth digits *
#: 10**exponent.
Money = tuple[int, int, int | None]
#: Value-Digits and Exponent, as in Unit-Value (RFC 8506 section 8.8). Worth digits * 10**exponent.
UnitValue = tuple[int, int]


@dataclass(slots=True, init=False)
class Units(Copied):
    """Requested-, Granted- or Used-Service-Unit (RFC 8506 sections 8.17-8.19).

    ``time`` in seconds, the octets as such. All None for an empty Requested-Service-Unit: the server chooses.
    ``tariff_change_usage`` and ``reporting_reason`` occur in used units only, ``tariff_time_change`` (Unix
    seconds, section 8.20) in granted units only.
    """

    time: int | None = None
    total_octets: int | None = None
    input_octets: int | None = None
    output_octets: int | None = None
    service_specific: int | None = None
    money: Money | None = None
    tariff_change_usage: int | None = None
    reporting_reason: int | None = None
    tariff_time_change: int | None = None

    def __init__(
        self,
        time: int | None = None,
        total_octets: int | None = None,
        input_octets: int | None = None,
        output_octets: int | None = None,
        service_specific: int | None = None,
        money: Money | None = None,
        tariff_change_usage: int | None = None,
        reporting_reason: int | None = None,
        tariff_time_change: int | None = None,
    ) -> None:
        self.time = time
        self.total_octets = total_octets
        self.input_octets = input_octets
        self.output_octets = output_octets
        self.service_specific = service_specific
        self.money = money
        self.tariff_change_usage = tariff_change_usage
        self.reporting_reason = reporting_reason
        self.tariff_time_change = tariff_time_change

    def copy(self) -> "Units":
        return Units(
            self.time,
            self.total_octets,
            self.input_octets,
            self.output_octets,
            self.service_specific,
            self.money,
            self.tariff_change_usage,
            self.reporting_reason,
            self.tariff_time_change,
        )


@dataclass(slots=True, init=False)
class ServiceRequest(Copied):
    """One Multiple-Services-Credit-Control of a request (RFC 8506 section 8.16).

    ``requested`` None: no Requested-Service-Unit, so no new quota is wanted.
    ``reporting_reason``: Reporting-Reason at this level (TS 32.299 clause 7.2.175).
    ``triggers``: Trigger-Type values of a Trigger here (TS 32.299 clause 7.2.235).
    ``refund_information``: what the answer to the debit that is to be refunded said (TS 32.299 clause 7.2.171).
    """

    rating_group: int | None = None
    service_identifiers: tuple[int, ...] = ()
    requested: Units | None = None
    used: tuple[Units, ...] = ()
    reporting_reason: int | None = None
    triggers: tuple[int, ...] = ()
    refund_information: bytes | None = None

    def __init__(
        self,
        rating_group: int | None = None,
        service_identifiers: tuple[int, ...] = (),
        requested: Units | None = None,
        used: tuple[Units, ...] = (),
        reporting_reason: int | None = None,
        triggers: tuple[int, ...] = (),
        refund_information: bytes | None = None,
    ) -> None:
        self.rating_group = rating_group
        self.service_identifiers = service_identifiers
        self.requested = requested
        self.used = used
        self.reporting_reason = reporting_reason
        self.triggers = triggers
        self.refund_information = refund_information

    def copy(self) -> "ServiceRequest":
        return ServiceRequest(
            self.rating_group,
            self.service_identifiers,
            self.requested,
            self.used,
            self.reporting_reason,
            self.triggers,
            self.refund_information,
        )


@dataclass(slots=True, init=False)
class CreditControlRequest(Copied):
    """A Credit-Control-Request (RFC 8506 section 3.1).

    ``flags``: command flags of the header, T included. ``request_type``: CCRequestType.
    ``event_timestamp``: Unix seconds.
    ``subscriptions``: (Subscription-Id-Type, data) of the command, then those of a type that only
    Service-Information has; Subscription-Id-Extension counts as the type it stands for.
    ``requested``, ``used``, ``service_identifier``: command level, for a single service.
    ``proxy_infos``: all Proxy-Info AVPs as received, to be returned.
    ``called_station_id``: the APN. ``called_party``, ``calling_party``: of IMS-Information, or first recipient and
    originator of SMS-Information. ``recipients``: all recipients of a short message, if it has several.
    ``number_portability``, ``access_network``, ``visited_network``: of IMS-Information, the latter two its first
    Access-Network-Information and its IMS-Visited-Network-Identifier. ``sip_method``: of its Event-Type.
    ``rat_type``, ``user_location``: 3GPP-RAT-Type and 3GPP-User-Location-Info of PS-Information, as TS 29.061 clause
    16.4.7.2 packs them.
    ``refund_information``: at command level, where some clients put it instead of into the service.
    ``correlation_id``: CC-Correlation-Id, which ties requests of several services together.
    """

    flags: int
    hop_by_hop: int
    end_to_end: int
    session_id: bytes
    origin_host: bytes
    origin_realm: bytes
    destination_realm: bytes
    service_context_id: bytes
    request_type: int
    request_number: int
    destination_host: bytes | None = None
    sub_session_id: int | None = None
    event_timestamp: int | None = None
    subscriptions: tuple[tuple[int, bytes], ...] = ()
    requested_action: int | None = None
    multiple_services_indicator: int | None = None
    termination_cause: int | None = None
    origin_state_id: int | None = None
    services: tuple[ServiceRequest, ...] = ()
    requested: Units | None = None
    used: tuple[Units, ...] = ()
    service_identifier: int | None = None
    route_records: tuple[bytes, ...] = ()
    proxy_infos: bytes = b""
    user_name: bytes | None = None
    called_station_id: bytes | None = None
    sgsn_mcc_mnc: bytes | None = None
    called_party: bytes | None = None
    calling_party: bytes | None = None
    role_of_node: int | None = None
    aoc_request_type: int | None = None
    rat_type: bytes | None = None
    user_location: bytes | None = None
    sip_method: bytes | None = None
    number_portability: bytes | None = None
    correlation_id: bytes | None = None
    refund_information: bytes | None = None
    access_network: bytes | None = None
    visited_network: bytes | None = None
    recipients: tuple[bytes, ...] = ()

    def __init__(
        self,
        flags: int,
        hop_by_hop: int,
        end_to_end: int,
        session_id: bytes,
        origin_host: bytes,
        origin_realm: bytes,
        destination_realm: bytes,
        service_context_id: bytes,
        request_type: int,
        request_number: int,
        destination_host: bytes | None = None,
        sub_session_id: int | None = None,
        event_timestamp: int | None = None,
        subscriptions: tuple[tuple[int, bytes], ...] = (),
        requested_action: int | None = None,
        multiple_services_indicator: int | None = None,
        termination_cause: int | None = None,
        origin_state_id: int | None = None,
        services: tuple[ServiceRequest, ...] = (),
        requested: Units | None = None,
        used: tuple[Units, ...] = (),
        service_identifier: int | None = None,
        route_records: tuple[bytes, ...] = (),
        proxy_infos: bytes = b"",
        user_name: bytes | None = None,
        called_station_id: bytes | None = None,
        sgsn_mcc_mnc: bytes | None = None,
        called_party: bytes | None = None,
        calling_party: bytes | None = None,
        role_of_node: int | None = None,
        aoc_request_type: int | None = None,
        rat_type: bytes | None = None,
        user_location: bytes | None = None,
        sip_method: bytes | None = None,
        number_portability: bytes | None = None,
        correlation_id: bytes | None = None,
        refund_information: bytes | None = None,
        access_network: bytes | None = None,
        visited_network: bytes | None = None,
        recipients: tuple[bytes, ...] = (),
    ) -> None:
        self.flags = flags
        self.hop_by_hop = hop_by_hop
        self.end_to_end = end_to_end
        self.session_id = session_id
        self.origin_host = origin_host
        self.origin_realm = origin_realm
        self.destination_realm = destination_realm
        self.service_context_id = service_context_id
        self.request_type = request_type
        self.request_number = request_number
        self.destination_host = destination_host
        self.sub_session_id = sub_session_id
        self.event_timestamp = event_timestamp
        self.subscriptions = subscriptions
        self.requested_action = requested_action
        self.multiple_services_indicator = multiple_services_indicator
        self.termination_cause = termination_cause
        self.origin_state_id = origin_state_id
        self.services = services
        self.requested = requested
        self.used = used
        self.service_identifier = service_identifier
        self.route_records = route_records
        self.proxy_infos = proxy_infos
        self.user_name = user_name
        self.called_station_id = called_station_id
        self.sgsn_mcc_mnc = sgsn_mcc_mnc
        self.called_party = called_party
        self.calling_party = calling_party
        self.role_of_node = role_of_node
        self.aoc_request_type = aoc_request_type
        self.rat_type = rat_type
        self.user_location = user_location
        self.sip_method = sip_method
        self.number_portability = number_portability
        self.correlation_id = correlation_id
        self.refund_information = refund_information
        self.access_network = access_network
        self.visited_network = visited_network
        self.recipients = recipients

    def copy(self) -> "CreditControlRequest":
        return CreditControlRequest(
            self.flags,
            self.hop_by_hop,
            self.end_to_end,
            self.session_id,
            self.origin_host,
            self.origin_realm,
            self.destination_realm,
            self.service_context_id,
            self.request_type,
            self.request_number,
            self.destination_host,
            self.sub_session_id,
            self.event_timestamp,
            self.subscriptions,
            self.requested_action,
            self.multiple_services_indicator,
            self.termination_cause,
            self.origin_state_id,
            self.services,
            self.requested,
            self.used,
            self.service_identifier,
            self.route_records,
            self.proxy_infos,
            self.user_name,
            self.called_station_id,
            self.sgsn_mcc_mnc,
            self.called_party,
            self.calling_party,
            self.role_of_node,
            self.aoc_request_type,
            self.rat_type,
            self.user_location,
            self.sip_method,
            self.number_portability,
            self.correlation_id,
            self.refund_information,
            self.access_network,
            self.visited_network,
            self.recipients,
        )
