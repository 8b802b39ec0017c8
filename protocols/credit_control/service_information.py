"""Service-Information 873 of 3GPP for requests (TS 32.299 clauses 7.2.158, 7.2.77 and 7.2.209), for
simulators.

Each function returns the encoded Service-Information for one kind of service. None leaves an AVP out.
"""

from collections.abc import Sequence
from typing import Final

from protocols.diameter.codec import Encodable, avp

#: Address-Type of a number (TS 32.299 clause 7.2.12).
ADDRESS_TYPE_MSISDN: Final = 1


def ps_information(
    *,
    called_station_id: bytes | None = None,
    sgsn_mcc_mnc: bytes | None = None,
    charging_id: int | None = None,
    pdp_address: str | None = None,
    sgsn_address: str | None = None,
    ggsn_address: str | None = None,
    selection_mode: bytes | None = None,
    charging_characteristics: bytes | None = None,
    nsapi: bytes | None = None,
    rat_type: bytes | None = None,
    ms_timezone: bytes | None = None,
    user_location_info: bytes | None = None,
) -> bytes:
    """PS-Information: a packet data session. ``called_station_id`` is the APN; octet strings as in TS 29.061."""
    return _service_information(
        "PS-Information",
        [
            ("3GPP-Charging-Id", charging_id),
            ("PDP-Address", pdp_address),
            ("SGSN-Address", sgsn_address),
            ("GGSN-Address", ggsn_address),
            ("Called-Station-Id", called_station_id),
            ("3GPP-Selection-Mode", selection_mode),
            ("3GPP-Charging-Characteristics", charging_characteristics),
            ("3GPP-SGSN-MCC-MNC", sgsn_mcc_mnc),
            ("3GPP-NSAPI", nsapi),
            ("3GPP-MS-TimeZone", ms_timezone),
            ("3GPP-User-Location-Info", user_location_info),
            ("3GPP-RAT-Type", rat_type),
        ],
    )


def ims_information(
    *,
    calling_party: bytes | None = None,
    called_party: bytes | None = None,
    role_of_node: int | None = None,
    node_functionality: int = 0,
    user_session_id: bytes | None = None,
    sip_method: bytes | None = None,
    access_network_information: bytes | None = None,
    number_portability: bytes | None = None,
    visited_network: bytes | None = None,
) -> bytes:
    """IMS-Information: a call. The parties are URIs (``tel:`` or ``sip:``); ``node_functionality`` 0 is S-CSCF."""
    event_type = None if sip_method is None else [avp("SIP-Method", sip_method)]
    return _service_information(
        "IMS-Information",
        [
            ("Event-Type", event_type),
            ("Role-Of-Node", role_of_node),
            ("Node-Functionality", node_functionality),
            ("User-Session-Id", user_session_id),
            ("Calling-Party-Address", calling_party),
            ("Called-Party-Address", called_party),
            ("Number-Portability-Routing-Information", number_portability),
            ("Access-Network-Information", access_network_information),
            ("IMS-Visited-Network-Identifier", visited_network),
        ],
    )


def sms_information(
    *,
    originator: bytes | None = None,
    recipients: Sequence[bytes] = (),
    smsc_address: str | None = None,
    message_type: int | None = None,
) -> bytes:
    """SMS-Information: a short message.

    ``originator`` and ``recipients`` are numbers; ``smsc_address`` is an IP address or an E.164 number;
    ``message_type`` is SM-Message-Type (0: submission).
    """
    members = _members([("SMSC-Address", smsc_address), ("SM-Message-Type", message_type)])
    if originator is not None:
        members.append(avp("Originator-Received-Address", _number(originator)))
    members.extend(avp("Recipient-Info", [avp("Recipient-Address", _number(one))]) for one in recipients)
    return avp("Service-Information", [avp("SMS-Information", members)])


def _number(number: bytes) -> list[bytes]:
    return [avp("Address-Type", ADDRESS_TYPE_MSISDN), avp("Address-Data", number)]


def _service_information(name: str, values: Sequence[tuple[str, Encodable | None]]) -> bytes:
    return avp("Service-Information", [avp(name, _members(values))])


def _members(values: Sequence[tuple[str, Encodable | None]]) -> list[bytes]:
    return [avp(name, value) for name, value in values if value is not None]
