"""Typed credit-control messages (RFC 8506 section 3, 3GPP TS 32.299 clause 6.4).

Names, identifiers and addresses are ``bytes`` as on the wire; times are seconds, volumes octets, moments Unix
seconds. None means that the AVP is absent.
"""

from collections.abc import Sequence
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


@dataclass(slots=True)
class PoolReference:
    """One G-S-U-Pool-Reference: the granted units of type ``unit_type`` (CC-Unit-Type) go into the credit pool
    ``identifier``, where each is worth ``digits`` * 10**``exponent`` (RFC 8506 section 8.30).
    """

    identifier: int
    unit_type: int
    digits: int
    exponent: int = 0


@dataclass(slots=True)
class RateElement:
    """One Rate-Element: ``unit_cost`` for every ``unit_value`` units of ``unit_type`` (TS 32.299 clause 7.2.161).

    With the ``unit_type`` MONEY it is a fixed fee and ``unit_value`` means nothing. ``charge_reason``:
    Charge-Reason-Code.
    """

    unit_type: int
    unit_cost: UnitValue
    unit_value: UnitValue | None = None
    charge_reason: int | None = None


@dataclass(slots=True)
class Tariff:
    """Current-Tariff or Next-Tariff: the price is the sum of its elements (TS 32.299 clauses 7.2.47, 7.2.112)."""

    rate_elements: tuple[RateElement, ...] = ()
    currency: int | None = None


@dataclass(slots=True)
class AdviceOfCharge:
    """AoC-Information: what the user is told of the cost (TS 32.299 clauses 7.2.13-7.2.15, 7.2.223).

    ``accumulated_cost``: of the session so far; ``incremental_cost``: since the last advice; both in
    ``currency`` (ISO 4217 number). AoC-Cost-Information is sent if one of these three is set, Tariff-Information
    if ``current_tariff`` is. ``tariff_time_change``: Unix seconds at which ``next_tariff`` takes over.
    """

    accumulated_cost: UnitValue | None = None
    incremental_cost: UnitValue | None = None
    currency: int | None = None
    current_tariff: Tariff | None = None
    tariff_time_change: int | None = None
    next_tariff: Tariff | None = None


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


@dataclass(slots=True, init=False)
class ServiceAnswer:
    """One Multiple-Services-Credit-Control of an answer (RFC 8506 section 8.16, TS 32.299 clause 7.1.9).

    ``granted`` None: no Granted-Service-Unit. Times in seconds, thresholds in the unit they are of.

    Final units (sections 8.34 and 8.68): Final-Unit-Indication is sent if ``final_unit_action`` is set;
    ``redirect_address_type`` and ``redirect_server_address`` (text also for IP addresses), ``filter_ids`` and
    ``restriction_rules`` are its members. With ``qos_final_unit`` a QoS-Final-Unit-Indication goes beside it, with
    the same action and address, and with ``filter_rules`` or, if there are none, ``filter_ids``. A filter rule is
    the encoded members of one Filter-Rule; see ``bandwidth_filter_rule``.

    ``tariff_change_usage``: TariffChangeUsage, if this quota is for before or after the tariff change only.
    ``triggers``: the Trigger-Types to arm, no Trigger if empty (TS 32.299 clause 7.2.235).
    ``refund_information``: what the client shall send back to have this refunded.
    ``failed_avp``: one encoded AVP, to go into Failed-AVP.
    ``members``: encoded AVPs to add, for a server that keeps what ``encode_service_members`` made.
    """

    rating_group: int | None = None
    service_identifiers: tuple[int, ...] = ()
    result_code: int | None = None
    granted: Units | None = None
    validity_time: int | None = None
    final_unit_action: int | None = None
    redirect_address_type: int | None = None
    redirect_server_address: bytes | None = None
    filter_ids: tuple[bytes, ...] = ()
    restriction_rules: tuple[bytes, ...] = ()
    volume_quota_threshold: int | None = None
    time_quota_threshold: int | None = None
    unit_quota_threshold: int | None = None
    quota_holding_time: int | None = None
    failed_avp: bytes | None = None
    tariff_change_usage: int | None = None
    pool_references: tuple[PoolReference, ...] = ()
    qos_final_unit: bool = False
    filter_rules: tuple[bytes, ...] = ()
    quota_consumption_time: int | None = None
    triggers: tuple[int, ...] = ()
    refund_information: bytes | None = None
    members: bytes = b""

    def __init__(
        self,
        rating_group: int | None = None,
        service_identifiers: tuple[int, ...] = (),
        result_code: int | None = None,
        granted: Units | None = None,
        validity_time: int | None = None,
        final_unit_action: int | None = None,
        redirect_address_type: int | None = None,
        redirect_server_address: bytes | None = None,
        filter_ids: tuple[bytes, ...] = (),
        restriction_rules: tuple[bytes, ...] = (),
        volume_quota_threshold: int | None = None,
        time_quota_threshold: int | None = None,
        unit_quota_threshold: int | None = None,
        quota_holding_time: int | None = None,
        failed_avp: bytes | None = None,
        tariff_change_usage: int | None = None,
        pool_references: tuple[PoolReference, ...] = (),
        qos_final_unit: bool = False,
        filter_rules: tuple[bytes, ...] = (),
        quota_consumption_time: int | None = None,
        triggers: tuple[int, ...] = (),
        refund_information: bytes | None = None,
        members: bytes = b"",
    ) -> None:
        self.rating_group = rating_group
        self.service_identifiers = service_identifiers
        self.result_code = result_code
        self.granted = granted
        self.validity_time = validity_time
        self.final_unit_action = final_unit_action
        self.redirect_address_type = redirect_address_type
        self.redirect_server_address = redirect_server_address
        self.filter_ids = filter_ids
        self.restriction_rules = restriction_rules
        self.volume_quota_threshold = volume_quota_threshold
        self.time_quota_threshold = time_quota_threshold
        self.unit_quota_threshold = unit_quota_threshold
        self.quota_holding_time = quota_holding_time
        self.failed_avp = failed_avp
        self.tariff_change_usage = tariff_change_usage
        self.pool_references = pool_references
        self.qos_final_unit = qos_final_unit
        self.filter_rules = filter_rules
        self.quota_consumption_time = quota_consumption_time
        self.triggers = triggers
        self.refund_information = refund_information
        self.members = members


@dataclass(slots=True, init=False)
class CreditControlAnswer:
    """A Credit-Control-Answer, without what it repeats of its request (RFC 8506 section 3.2).

    ``granted``, ``validity_time``, ``final_unit_action`` and what belongs to it (see ``ServiceAnswer``),
    ``refund_information``: command level, for a single service.
    ``cost``: Cost-Information, ``remaining_balance``: Remaining-Balance (TS 32.299 clause 7.2.172).
    ``advice_of_charge``: goes into Service-Information (clause 7.2.192).
    ``failed_avp``: one encoded AVP, to go into Failed-AVP. ``error_message``: text for people.
    ``members``: encoded AVPs to add, for a server that keeps what ``encode_command_members`` made.
    """

    result_code: int
    services: Sequence[ServiceAnswer] = ()
    granted: Units | None = None
    validity_time: int | None = None
    final_unit_action: int | None = None
    redirect_address_type: int | None = None
    redirect_server_address: bytes | None = None
    filter_ids: tuple[bytes, ...] = ()
    restriction_rules: tuple[bytes, ...] = ()
    cost: Money | None = None
    check_balance_result: int | None = None
    cc_session_failover: int | None = None
    credit_control_failure_handling: int | None = None
    direct_debiting_failure_handling: int | None = None
    low_balance_indication: int | None = None
    remaining_balance: Money | None = None
    failed_avp: bytes | None = None
    error_message: bytes | None = None
    qos_final_unit: bool = False
    filter_rules: tuple[bytes, ...] = ()
    refund_information: bytes | None = None
    advice_of_charge: AdviceOfCharge | None = None
    members: bytes = b""

    def __init__(
        self,
        result_code: int,
        services: Sequence[ServiceAnswer] = (),
        granted: Units | None = None,
        validity_time: int | None = None,
        final_unit_action: int | None = None,
        redirect_address_type: int | None = None,
        redirect_server_address: bytes | None = None,
        filter_ids: tuple[bytes, ...] = (),
        restriction_rules: tuple[bytes, ...] = (),
        cost: Money | None = None,
        check_balance_result: int | None = None,
        cc_session_failover: int | None = None,
        credit_control_failure_handling: int | None = None,
        direct_debiting_failure_handling: int | None = None,
        low_balance_indication: int | None = None,
        remaining_balance: Money | None = None,
        failed_avp: bytes | None = None,
        error_message: bytes | None = None,
        qos_final_unit: bool = False,
        filter_rules: tuple[bytes, ...] = (),
        refund_information: bytes | None = None,
        advice_of_charge: AdviceOfCharge | None = None,
        members: bytes = b"",
    ) -> None:
        self.result_code = result_code
        self.services = services
        self.granted = granted
        self.validity_time = validity_time
        self.final_unit_action = final_unit_action
        self.redirect_address_type = redirect_address_type
        self.redirect_server_address = redirect_server_address
        self.filter_ids = filter_ids
        self.restriction_rules = restriction_rules
        self.cost = cost
        self.check_balance_result = check_balance_result
        self.cc_session_failover = cc_session_failover
        self.credit_control_failure_handling = credit_control_failure_handling
        self.direct_debiting_failure_handling = direct_debiting_failure_handling
        self.low_balance_indication = low_balance_indication
        self.remaining_balance = remaining_balance
        self.failed_avp = failed_avp
        self.error_message = error_message
        self.qos_final_unit = qos_final_unit
        self.filter_rules = filter_rules
        self.refund_information = refund_information
        self.advice_of_charge = advice_of_charge
        self.members = members


@dataclass(slots=True, init=False)
class ReceivedAnswer(CreditControlAnswer):
    """A Credit-Control-Answer as a client receives it.

    ``result_code`` is Experimental-Result-Code where the answer has that instead, 0 if neither.
    ``request_type`` and ``request_number`` are None in answers with the E bit that leave them out.
    """

    flags: int = 0
    hop_by_hop: int = 0
    end_to_end: int = 0
    session_id: bytes | None = None
    origin_host: bytes = b""
    origin_realm: bytes = b""
    request_type: int | None = None
    request_number: int | None = None

    def __init__(
        self,
        result_code: int,
        services: Sequence[ServiceAnswer] = (),
        granted: Units | None = None,
        validity_time: int | None = None,
        final_unit_action: int | None = None,
        redirect_address_type: int | None = None,
        redirect_server_address: bytes | None = None,
        filter_ids: tuple[bytes, ...] = (),
        restriction_rules: tuple[bytes, ...] = (),
        cost: Money | None = None,
        check_balance_result: int | None = None,
        cc_session_failover: int | None = None,
        credit_control_failure_handling: int | None = None,
        direct_debiting_failure_handling: int | None = None,
        low_balance_indication: int | None = None,
        remaining_balance: Money | None = None,
        failed_avp: bytes | None = None,
        error_message: bytes | None = None,
        qos_final_unit: bool = False,
        filter_rules: tuple[bytes, ...] = (),
        refund_information: bytes | None = None,
        advice_of_charge: AdviceOfCharge | None = None,
        members: bytes = b"",
        flags: int = 0,
        hop_by_hop: int = 0,
        end_to_end: int = 0,
        session_id: bytes | None = None,
        origin_host: bytes = b"",
        origin_realm: bytes = b"",
        request_type: int | None = None,
        request_number: int | None = None,
    ) -> None:
        CreditControlAnswer.__init__(  # super() does not work in a dataclass of slots
            self,
            result_code,
            services,
            granted,
            validity_time,
            final_unit_action,
            redirect_address_type,
            redirect_server_address,
            filter_ids,
            restriction_rules,
            cost,
            check_balance_result,
            cc_session_failover,
            credit_control_failure_handling,
            direct_debiting_failure_handling,
            low_balance_indication,
            remaining_balance,
            failed_avp,
            error_message,
            qos_final_unit,
            filter_rules,
            refund_information,
            advice_of_charge,
            members,
        )
        self.flags = flags
        self.hop_by_hop = hop_by_hop
        self.end_to_end = end_to_end
        self.session_id = session_id
        self.origin_host = origin_host
        self.origin_realm = origin_realm
        self.request_type = request_type
        self.request_number = request_number
