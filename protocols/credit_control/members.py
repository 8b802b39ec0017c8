"""What an answer says beside results and units: final units, thresholds, pools, costs, failure handling.

Most of it depends on the service and not on the request, so a server encodes it once with ``encode_service_members``
and ``encode_command_members`` and hands the octets to ``encode_answer`` as they are.

A client built on freeDiameter drops an answer that holds an AVP with the M bit which it does not know. So 3GPP's
AVPs and those that RFC 8506 added to RFC 4006 never have it here; what is inside a group without the M bit is
ignored with the group (RFC 6733 section 4.4).
"""

import ipaddress
from struct import Struct
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.answer_model import (
    AdviceOfCharge,
    CreditControlAnswer,
    PoolReference,
    RateElement,
    ServiceAnswer,
    Tariff,
)
from protocols.credit_control.encoding import (
    group,
    money,
    octets,
    optional32,
    optional_group,
    optional_octets,
    tgpp_group,
    tgpp_octets,
    tgpp_unsigned32,
    time,
    unit_value,
    unsigned32,
)
from protocols.diameter.codes import QoSSemantics, RedirectAddressType, TreatmentAction

_FLOAT32: Final = Struct(">f").pack
_FAMILY_IPV4: Final = b"\x00\x01"
_FAMILY_IPV6: Final = b"\x00\x02"


def encode_service_members(service: ServiceAnswer) -> bytes:
    """The members of a Multiple-Services-Credit-Control that ``service`` has beside Granted-Service-Unit,
    Service-Identifier, Rating-Group, Validity-Time and Result-Code; b"" if it has none.

    Raises struct.error for a number that its AVP cannot hold, and ValueError if a QoS-Final-Unit-Indication
    is to name an IP address that is none.
    """
    members = b""
    if service.tariff_change_usage is not None:
        members = unsigned32(wire.TARIFF_CHANGE_USAGE, service.tariff_change_usage)
    if service.pool_references:
        members += b"".join([_pool_reference(one) for one in service.pool_references])
    if service.final_unit_action is not None:
        members += _final_units(service, service.final_unit_action)
    if service.time_quota_threshold is not None:
        members += tgpp_unsigned32(wire.TIME_QUOTA_THRESHOLD, service.time_quota_threshold)
    if service.volume_quota_threshold is not None:
        members += tgpp_unsigned32(wire.VOLUME_QUOTA_THRESHOLD, service.volume_quota_threshold)
    if service.unit_quota_threshold is not None:
        members += tgpp_unsigned32(wire.UNIT_QUOTA_THRESHOLD, service.unit_quota_threshold)
    if service.quota_holding_time is not None:
        members += tgpp_unsigned32(wire.QUOTA_HOLDING_TIME, service.quota_holding_time)
    if service.quota_consumption_time is not None:
        members += tgpp_unsigned32(wire.QUOTA_CONSUMPTION_TIME, service.quota_consumption_time)
    if service.triggers:
        types = [tgpp_unsigned32(wire.TRIGGER_TYPE, one) for one in service.triggers]
        members += tgpp_group(wire.TRIGGER, b"".join(types))
    if service.refund_information is not None:
        members += tgpp_octets(wire.REFUND_INFORMATION, service.refund_information)
    if service.failed_avp is not None:
        members += group(wire.FAILED_AVP, service.failed_avp)
    return members + service.members


def encode_command_members(answer: CreditControlAnswer) -> bytes:
    """The AVPs at command level that ``answer`` has beside Result-Code, Granted-Service-Unit, Validity-Time and
    its services; b"" if it has none. 3GPP's own AVPs (TS 32.299 clause 6.4.3) come last.

    Raises as ``encode_service_members`` does.
    """
    members = b""
    if answer.cc_session_failover is not None:
        members = unsigned32(wire.CC_SESSION_FAILOVER, answer.cc_session_failover)
    if answer.cost is not None:
        members += group(wire.COST_INFORMATION, money(answer.cost))
    if answer.final_unit_action is not None:
        members += _final_units(answer, answer.final_unit_action)
    if answer.check_balance_result is not None:
        members += unsigned32(wire.CHECK_BALANCE_RESULT, answer.check_balance_result)
    if answer.credit_control_failure_handling is not None:
        members += unsigned32(wire.CREDIT_CONTROL_FAILURE_HANDLING, answer.credit_control_failure_handling)
    if answer.direct_debiting_failure_handling is not None:
        members += unsigned32(wire.DIRECT_DEBITING_FAILURE_HANDLING, answer.direct_debiting_failure_handling)
    if answer.failed_avp is not None:
        members += group(wire.FAILED_AVP, answer.failed_avp)
    if answer.error_message is not None:
        members += error_message(answer.error_message)
    if answer.low_balance_indication is not None:
        members += tgpp_unsigned32(wire.LOW_BALANCE_INDICATION, answer.low_balance_indication)
    if answer.remaining_balance is not None:
        members += tgpp_group(wire.REMAINING_BALANCE, money(answer.remaining_balance))
    if answer.refund_information is not None:
        members += tgpp_octets(wire.REFUND_INFORMATION, answer.refund_information)
    if answer.advice_of_charge is not None:
        members += _service_information(answer.advice_of_charge)
    return members + answer.members if members else answer.members


def error_message(text: bytes) -> bytes:
    """Error-Message, which must not have the M bit (RFC 6733 section 4.5)."""
    return optional_octets(wire.ERROR_MESSAGE, text)


def bandwidth_filter_rule(bits_per_second: int) -> bytes:
    """The members of a Filter-Rule that slows all traffic of a service down to ``bits_per_second``.

    No Classifier: no traffic is excepted. The action is to shape, to the Bandwidth in QoS-Parameters, by the
    QoS profile 0 of the IETF, which is assumed without a QoS-Profile-Template (RFC 5777 sections 3.2 and 5.1).
    Bandwidth is a Float32 in octets per second (RFC 5624 section 3.3): exact to seven digits. Raises ValueError
    unless ``bits_per_second`` is positive.
    """
    if bits_per_second <= 0:
        raise ValueError(f"a bandwidth of {bits_per_second} bit/s lets nothing pass; give a positive one")
    return (
        optional32(wire.TREATMENT_ACTION, TreatmentAction.SHAPE)
        + optional32(wire.QOS_SEMANTICS, QoSSemantics.QOS_AUTHORIZED)
        + optional_group(wire.QOS_PARAMETERS, optional_octets(wire.BANDWIDTH, _FLOAT32(bits_per_second / 8)))
    )


def _pool_reference(reference: PoolReference) -> bytes:
    """G-S-U-Pool-Reference (RFC 8506 section 8.30)."""
    return group(
        wire.G_S_U_POOL_REFERENCE,
        unsigned32(wire.G_S_U_POOL_IDENTIFIER, reference.identifier)
        + unsigned32(wire.CC_UNIT_TYPE, reference.unit_type)
        + group(wire.UNIT_VALUE, unit_value((reference.digits, reference.exponent))),
    )


def _final_units(holder: ServiceAnswer | CreditControlAnswer, action: int) -> bytes:
    """Final-Unit-Indication (RFC 8506 section 8.34), and QoS-Final-Unit-Indication (section 8.68) if wanted."""
    address = holder.redirect_server_address
    address_type = holder.redirect_address_type or 0
    members = unsigned32(wire.FINAL_UNIT_ACTION, action)
    for rule in holder.restriction_rules:
        members += octets(wire.RESTRICTION_FILTER_RULE, rule)
    for filter_id in holder.filter_ids:
        members += octets(wire.FILTER_ID, filter_id)
    if address is not None:
        members += group(
            wire.REDIRECT_SERVER,
            unsigned32(wire.REDIRECT_ADDRESS_TYPE, address_type) + octets(wire.REDIRECT_SERVER_ADDRESS, address),
        )
    indication = group(wire.FINAL_UNIT_INDICATION, members)
    if not holder.qos_final_unit:
        return indication
    members = unsigned32(wire.FINAL_UNIT_ACTION, action)
    for rule in holder.filter_rules:
        members += optional_group(wire.FILTER_RULE, rule)
    if not holder.filter_rules:
        # Section 8.68: "either the Filter-Rule AVP or the Filter-Id AVP"; for old clients a Filter-Id stands for
        # what only a Filter-Rule says (section 8.34), so it must not restrict those that know both.
        for filter_id in holder.filter_ids:
            members += octets(wire.FILTER_ID, filter_id)
    if address is not None:
        members += optional_group(wire.REDIRECT_SERVER_EXTENSION, _redirect_address(address_type, address))
    return indication + optional_group(wire.QOS_FINAL_UNIT_INDICATION, members)


def _redirect_address(address_type: int, address: bytes) -> bytes:
    """The one member of Redirect-Server-Extension (RFC 8506 section 8.64)."""
    if address_type == RedirectAddressType.URL:
        return optional_octets(wire.REDIRECT_ADDRESS_URL, address)
    if address_type == RedirectAddressType.SIP_URI:
        return optional_octets(wire.REDIRECT_ADDRESS_SIP_URI, address)
    text = address.decode("ascii", "replace")
    try:
        if address_type == RedirectAddressType.IPV4_ADDRESS:
            packed = _FAMILY_IPV4 + ipaddress.IPv4Address(text).packed
        else:
            packed = _FAMILY_IPV6 + ipaddress.IPv6Address(text).packed
    except ValueError:
        kind = "IPv4" if address_type == RedirectAddressType.IPV4_ADDRESS else "IPv6"
        raise ValueError(f"the redirect address {text!r} is no {kind} address; give one or another type") from None
    return optional_octets(wire.REDIRECT_ADDRESS_IPADDRESS, packed)


def _service_information(advice: AdviceOfCharge) -> bytes:
    """Service-Information with AoC-Information (TS 32.299 clauses 7.2.192 and 7.2.15)."""
    members = b""
    cost = b""
    if advice.accumulated_cost is not None:
        cost = tgpp_group(wire.ACCUMULATED_COST, unit_value(advice.accumulated_cost))
    if advice.incremental_cost is not None:
        cost += tgpp_group(wire.INCREMENTAL_COST, unit_value(advice.incremental_cost))
    if advice.currency is not None:
        cost += unsigned32(wire.CURRENCY_CODE, advice.currency)
    if cost:
        members = tgpp_group(wire.AOC_COST_INFORMATION, cost)
    if advice.current_tariff is not None:
        tariffs = tgpp_group(wire.CURRENT_TARIFF, _tariff(advice.current_tariff))
        if advice.tariff_time_change is not None:
            tariffs += time(wire.TARIFF_TIME_CHANGE, advice.tariff_time_change)
        if advice.next_tariff is not None:
            tariffs += tgpp_group(wire.NEXT_TARIFF, _tariff(advice.next_tariff))
        members += tgpp_group(wire.TARIFF_INFORMATION, tariffs)
    return tgpp_group(wire.SERVICE_INFORMATION, tgpp_group(wire.AOC_INFORMATION, members))


def _tariff(tariff: Tariff) -> bytes:
    """The members of Current-Tariff and Next-Tariff."""
    members = b"" if tariff.currency is None else unsigned32(wire.CURRENCY_CODE, tariff.currency)
    return members + b"".join([_rate_element(one) for one in tariff.rate_elements])


def _rate_element(element: RateElement) -> bytes:
    """Rate-Element (TS 32.299 clause 7.2.161)."""
    members = unsigned32(wire.CC_UNIT_TYPE, element.unit_type)
    if element.charge_reason is not None:
        members += tgpp_unsigned32(wire.CHARGE_REASON_CODE, element.charge_reason)
    if element.unit_value is not None:
        members += group(wire.UNIT_VALUE, unit_value(element.unit_value))
    members += tgpp_group(wire.UNIT_COST, unit_value(element.unit_cost))
    return tgpp_group(wire.RATE_ELEMENT, members)
