"""Typed credit-control answers, with the pools, tariffs and advice of charge in them (RFC 8506 section 3, 3GPP
TS 32.299 clause 6.4).

Names, identifiers and addresses are ``bytes`` as on the wire; times are seconds, volumes octets, moments Unix
seconds. None means that the AVP is absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.credit_control.model import Money, Units, UnitValue


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
