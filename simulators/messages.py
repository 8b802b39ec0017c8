"""Credit-Control-Requests as charging clients of the field write them.

Each function returns one whole request; the sender fills in the Hop-by-Hop Identifier. What they ask, report and
leave out follows Open5GS' SMF, a full 3GPP PGW (TS 32.251, TS 32.299 clause 6.4), Kamailio's ims_charging and an
SMSC (TS 32.274), down to the liberties those take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocols.credit_control import (
    CreditControlRequest,
    ServiceRequest,
    Units,
    encode_request,
    ims_information,
    ps_information,
    sms_information,
)
from protocols.diameter.codec import avp
from protocols.diameter.codes import (
    AocRequestType,
    CCRequestType,
    Flag,
    MultipleServicesIndicator,
    RequestedAction,
    RoleOfNode,
    SubscriptionIdType,
    TerminationCause,
)
from simulators.population import Subscriber

DATA_CONTEXT: Final = b"32251@3gpp.org"
VOICE_CONTEXT: Final = b"ext.01.262.8.32260@3gpp.org"
"""Service-Context-Id as ims_charging writes it: ext.<MNC>.<MCC>.<release>.32260@3gpp.org."""
SMS_CONTEXT: Final = b"32274@3gpp.org"

CALL_SERVICE: Final = 1000
"""Service-Identifier of calls, and their Rating-Group below: ims_charging's defaults."""
CALL_RATING_GROUP: Final = 100

_IMEISV: Final = 0
_MAC: Final = 1
_START_RECORD, _INTERIM_RECORD, _STOP_RECORD = 2, 3, 4
_SUBMISSION: Final = 0


@dataclass(frozen=True, slots=True)
class Head:
    """What every request of one session says about itself."""

    origin_host: str
    origin_realm: str
    destination_realm: str
    session_id: str
    subscriber: Subscriber
    kind: CCRequestType
    number: int
    """CC-Request-Number."""
    at_s: int
    """Event-Timestamp, Unix time."""
    end_to_end: int
    destination_host: str | None = None
    state_id: int = 1
    """Origin-State-Id; what a PGW puts into every request (RFC 6733 section 8.16)."""


def smf_request(head: Head, service: ServiceRequest) -> bytes:
    """Gy as Open5GS' SMF speaks it.

    One MSCC although Multiple-Services-Indicator is 0; Requested-Action and AoC-Request-Type in every request, also
    where they mean nothing. The service names no Rating-Group, and usage has input and output octets but no total.
    """
    request = _data_request(head, (service,))
    request.requested_action = RequestedAction.DIRECT_DEBITING
    request.aoc_request_type = AocRequestType.AOC_FULL
    if head.kind is CCRequestType.INITIAL:
        request.multiple_services_indicator = MultipleServicesIndicator.MULTIPLE_SERVICES_NOT_SUPPORTED
    return encode_request(request, _packet_session(head, "10.45.0.2"), extra=_equipment(_IMEISV, b"3569380356438091"))


def pgw_request(head: Head, services: Sequence[ServiceRequest]) -> bytes:
    """Gy as a full 3GPP PGW speaks it: several MSCCs, each with what has changed."""
    request = _data_request(head, services)
    request.origin_state_id = head.state_id
    if head.kind is CCRequestType.INITIAL:
        request.multiple_services_indicator = MultipleServicesIndicator.MULTIPLE_SERVICES_SUPPORTED
    return encode_request(request, _packet_session(head, "10.46.0.2"), extra=_equipment(_IMEISV, b"3534900698733190"))


def call_request(head: Head, called: str, *, requested_s: int | None, used_s: int | None) -> bytes:
    """Ro voice as Kamailio's ims_charging speaks it; seconds asked for and used.

    No top-level Auth-Application-Id, Origin-Host and Origin-Realm twice, accounting AVPs, E164 with "+", no
    Destination-Host.
    """
    record = {CCRequestType.INITIAL: _START_RECORD, CCRequestType.TERMINATION: _STOP_RECORD}.get(
        head.kind, _INTERIM_RECORD
    )
    number = b"+" + head.subscriber.msisdn.encode()
    request = _request(head, VOICE_CONTEXT)
    request.destination_host = None
    request.user_name = number
    request.subscriptions = ((SubscriptionIdType.END_USER_E164, number),)
    request.multiple_services_indicator = MultipleServicesIndicator.MULTIPLE_SERVICES_SUPPORTED
    request.services = (
        ServiceRequest(
            CALL_RATING_GROUP,
            (CALL_SERVICE,),
            None if requested_s is None else Units(time=requested_s),
            () if used_s is None else (Units(time=used_s),),
        ),
    )
    first = head.kind is CCRequestType.INITIAL
    information = ims_information(
        calling_party=b"tel:" + number,
        called_party=f"tel:+{called}".encode(),
        role_of_node=RoleOfNode.ORIGINATING_ROLE,
        user_session_id=head.session_id.encode(),
        sip_method=b"INVITE" if first else b"dummy",
        access_network_information=b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2620110000010101",
    )
    extra = (
        avp("Origin-Host", head.origin_host),
        avp("Origin-Realm", head.origin_realm),
        avp("Accounting-Record-Type", record),
        avp("Accounting-Record-Number", head.number),
        _equipment(_MAC, b"00-00-00-00-00-00"),
    )
    return encode_request(request, information, extra=b"".join(extra), vendor_specific_application=True)


def sms_request(head: Head, recipient: str, *, requested: int | None, used: int | None) -> bytes:
    """Ro SMS as an SMSC speaks it; messages asked for and used.

    An event (IEC, RFC 8506 section 6.3) asks at command level, a session (ECUR) within an MSCC.
    """
    request = _request(head, SMS_CONTEXT)
    request.subscriptions = _both_identities(head.subscriber)
    asked = None if requested is None else Units(service_specific=requested)
    reported = () if used is None else (Units(service_specific=used),)
    if head.kind is CCRequestType.EVENT:
        request.requested_action = RequestedAction.DIRECT_DEBITING
        request.requested, request.used = asked, reported
    else:
        request.services = (ServiceRequest(requested=asked, used=reported),)
        if head.kind is CCRequestType.INITIAL:
            request.multiple_services_indicator = MultipleServicesIndicator.MULTIPLE_SERVICES_SUPPORTED
    information = sms_information(
        originator=head.subscriber.msisdn.encode(), recipients=(recipient.encode(),), message_type=_SUBMISSION
    )
    return encode_request(request, information)


def _request(head: Head, context: bytes) -> CreditControlRequest:
    return CreditControlRequest(
        flags=Flag.REQUEST | Flag.PROXIABLE,
        hop_by_hop=0,
        end_to_end=head.end_to_end,
        session_id=head.session_id.encode(),
        origin_host=head.origin_host.encode(),
        origin_realm=head.origin_realm.encode(),
        destination_realm=head.destination_realm.encode(),
        service_context_id=context,
        request_type=head.kind,
        request_number=head.number,
        destination_host=head.destination_host.encode() if head.destination_host else None,
        event_timestamp=head.at_s,
        termination_cause=TerminationCause.LOGOUT if head.kind is CCRequestType.TERMINATION else None,
    )


def _data_request(head: Head, services: Sequence[ServiceRequest]) -> CreditControlRequest:
    request = _request(head, DATA_CONTEXT)
    request.subscriptions = _both_identities(head.subscriber)
    request.services = tuple(services)
    return request


def _both_identities(subscriber: Subscriber) -> tuple[tuple[int, bytes], ...]:
    return (
        (SubscriptionIdType.END_USER_IMSI, subscriber.imsi.encode()),
        (SubscriptionIdType.END_USER_E164, subscriber.msisdn.encode()),
    )


def _packet_session(head: Head, address: str) -> bytes:
    """PS-Information of an IPv4 session in an E-UTRAN cell of PLMN 262 01."""
    return ps_information(
        called_station_id=b"internet",
        sgsn_mcc_mnc=b"26201",
        charging_id=head.subscriber.number,
        pdp_address=address,
        sgsn_address="127.0.0.53",
        ggsn_address="127.0.0.54",
        selection_mode=b"0",
        charging_characteristics=b"0800",
        nsapi=b"\x05",
        rat_type=b"\x06",
        ms_timezone=b"\x40\x00",
        user_location_info=bytes.fromhex("8262f210000162f21000000101"),
    )


def _equipment(kind: int, value: bytes) -> bytes:
    return avp(
        "User-Equipment-Info",
        [avp("User-Equipment-Info-Type", kind), avp("User-Equipment-Info-Value", value)],
    )
