"""The charging clients of the scenarios: what each puts into every request, besides what a scenario's row says.

Open5GS' SMF and Kamailio's ims_charging are rebuilt AVP by AVP from what they send on the wire, liberties included.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from protocols.diameter.codec import avp

REALM = "ocs.example.net"
INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4


@dataclass(frozen=True)
class Head:
    """What is known of one request before its services."""

    host: str
    session_id: str
    kind: int
    number: int
    subscriptions: Sequence[tuple[int, str]]
    """(Subscription-Id-Type, data), in order."""
    server: str
    """Origin-Host of the server."""
    now_s: int = field(default_factory=lambda: int(time.time()))
    """Unix seconds, by the clock that server and clients share."""


@dataclass(frozen=True)
class Profile:
    """One kind of client."""

    request: Callable[[Head, list[bytes]], list[bytes]]
    """The AVPs of a CCR, from its head and the AVPs of its services."""
    capabilities: Callable[[str], list[bytes]]
    """The AVPs of a CER, from the Origin-Host."""
    identified_by: str
    """The identities it names when the scenario does not say."""


def _subscriptions(head: Head) -> list[bytes]:
    return [
        avp("Subscription-Id", [avp("Subscription-Id-Type", kind), avp("Subscription-Id-Data", value)])
        for kind, value in head.subscriptions
    ]


def _plain(context: str) -> Callable[[Head, list[bytes]], list[bytes]]:
    """A request as RFC 8506 section 3.1 has it, with nothing that is not needed."""

    def request(head: Head, services: list[bytes]) -> list[bytes]:
        several = [avp("Multiple-Services-Indicator", 1)] if head.kind == INITIAL else []
        return [
            avp("Session-Id", head.session_id),
            avp("Origin-Host", head.host),
            avp("Origin-Realm", REALM),
            avp("Destination-Realm", REALM),
            avp("Auth-Application-Id", 4),
            avp("Service-Context-Id", context),
            avp("CC-Request-Type", head.kind),
            avp("CC-Request-Number", head.number),
            *_subscriptions(head),
            *([avp("Requested-Action", 0)] if head.kind == EVENT else several),
            *services,
        ]

    return request


def _plain_capabilities(host: str) -> list[bytes]:
    return [
        avp("Origin-Host", host),
        avp("Origin-Realm", REALM),
        avp("Host-IP-Address", "127.0.0.1"),
        avp("Vendor-Id", 0),
        avp("Product-Name", "test"),
        avp("Auth-Application-Id", 4),
    ]


# -- Open5GS -----------------------------------------------------------------------------------------------------------


def _smf_request(head: Head, services: list[bytes]) -> list[bytes]:
    """Requested-Action and AoC-Request-Type always, MSI 0 in I, Destination-Host from the second request on."""
    later = head.kind != INITIAL
    return [
        avp("Session-Id", head.session_id),
        avp("Origin-Host", head.host),
        avp("Origin-Realm", REALM),
        avp("Destination-Realm", REALM),
        avp("Auth-Application-Id", 4),
        avp("Service-Context-Id", "32251@3gpp.org"),
        avp("CC-Request-Type", head.kind),
        avp("CC-Request-Number", head.number),
        *([avp("Destination-Host", head.server)] if later else []),
        avp("Event-Timestamp", head.now_s),
        *_subscriptions(head),
        *([avp("Termination-Cause", 1)] if head.kind == TERMINATION else []),
        avp("Requested-Action", 0),
        avp("AoC-Request-Type", 1),
        *([] if later else [avp("Multiple-Services-Indicator", 0)]),
        *[_with_qos(service) for service in services],
        avp("Service-Information", [avp("PS-Information", _ps_information(head.kind))]),
    ]


def _with_qos(service: bytes) -> bytes:
    """QoS-Information stands in every MSCC, after the units."""
    qos = avp(
        "QoS-Information",
        [
            avp("QoS-Class-Identifier", 9),
            avp(
                "Allocation-Retention-Priority",
                [
                    avp("Priority-Level", 15),
                    avp("Pre-emption-Capability", 1),
                    avp("Pre-emption-Vulnerability", 0),
                ],
            ),
            avp("APN-Aggregate-Max-Bitrate-UL", 1_000_000_000),
            avp("APN-Aggregate-Max-Bitrate-DL", 1_000_000_000),
        ],
    )
    return avp("Multiple-Services-Credit-Control", service[8:] + qos)


def _ps_information(kind: int) -> list[bytes]:
    return [
        avp("3GPP-Charging-Id", (1).to_bytes(4, "big")),
        *([avp("3GPP-PDP-Type", 0)] if kind == INITIAL else []),
        avp("PDP-Address", "10.45.0.2"),
        avp("SGSN-Address", "127.0.0.53"),
        avp("GGSN-Address", "127.0.0.54"),
        avp("Called-Station-Id", "internet"),
        avp("3GPP-Selection-Mode", "0"),
        avp("3GPP-Charging-Characteristics", "0800"),
        avp("3GPP-SGSN-MCC-MNC", "26201"),
        avp("3GPP-NSAPI", b"\x05"),
        avp("3GPP-MS-TimeZone", b"\x40\x01"),
        avp("3GPP-User-Location-Info", bytes.fromhex("8262f210000162f21000000101")),
        avp("3GPP-RAT-Type", b"\x06"),
        avp(
            "User-Equipment-Info",
            [avp("User-Equipment-Info-Type", 0), avp("User-Equipment-Info-Value", b"3569380356438091")],
        ),
    ]


def _smf_capabilities(host: str) -> list[bytes]:
    return [
        avp("Origin-Host", host),
        avp("Origin-Realm", REALM),
        avp("Origin-State-Id", 1_760_000_000),
        avp("Host-IP-Address", "127.0.0.1"),
        avp("Vendor-Id", 0),
        avp("Product-Name", "freeDiameter"),
        avp("Firmware-Revision", 10201),
        avp("Inband-Security-Id", 0),
        avp("Vendor-Specific-Application-Id", [avp("Vendor-Id", 10415), avp("Auth-Application-Id", 16777238)]),
        avp("Vendor-Specific-Application-Id", [avp("Vendor-Id", 10415), avp("Auth-Application-Id", 16777272)]),
        avp("Auth-Application-Id", 4),
        avp("Supported-Vendor-Id", 10415),
    ]


# -- Kamailio ----------------------------------------------------------------------------------------------------------


def _ims_request(head: Head, services: list[bytes]) -> list[bytes]:
    """No top-level Auth-Application-Id, identity twice, accounting AVPs, a garbage date in T."""
    record = {INITIAL: 2, UPDATE: 3, TERMINATION: 4}.get(head.kind, 1)
    user = head.subscriptions[0][1] if head.subscriptions else ""
    return [
        avp("Session-Id", head.session_id),
        avp("Origin-Host", head.host),
        avp("Origin-Realm", REALM),
        avp("Origin-Host", head.host),
        avp("Origin-Realm", REALM),
        avp("Destination-Realm", REALM),
        avp("Accounting-Record-Type", record, mandatory=True),
        avp("Accounting-Record-Number", head.number, mandatory=True),
        avp("User-Name", user),
        avp("Service-Context-Id", "ext.01.262.8.32260@3gpp.org"),
        avp("Service-Information", [*_subscriptions(head), _ims_information(head, user)]),
        avp("Vendor-Specific-Application-Id", [avp("Vendor-Id", 10415), avp("Auth-Application-Id", 4)]),
        avp("CC-Request-Type", head.kind),
        avp("CC-Request-Number", head.number),
        avp("Event-Timestamp", head.now_s, mandatory=False),
        avp(
            "User-Equipment-Info",
            [avp("User-Equipment-Info-Type", 1), avp("User-Equipment-Info-Value", b"00-00-00-00-00-00")],
            mandatory=True,
        ),
        *_subscriptions(head),
        avp("Multiple-Services-Indicator", 1),
        *services,
    ]


def _ims_information(head: Head, user: str) -> bytes:
    moment = b"\xff" * 4 if head.kind == TERMINATION else (head.now_s + 2_208_988_800).to_bytes(4, "big")
    return avp(
        "IMS-Information",
        [
            avp("Event-Type", [avp("SIP-Method", "INVITE" if head.kind == INITIAL else "dummy")]),
            avp("Role-Of-Node", 0),
            avp("Node-Functionality", 0),
            avp("User-Session-Id", "1-23767@127.0.0.1"),
            avp("Calling-Party-Address", f"tel:{user}"),
            avp("Called-Party-Address", "sip:callee@ims.example.net"),
            avp("Access-Network-Information", b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=262010001000"),
            avp("Time-Stamps", [avp("SIP-Request-Timestamp", moment)]),
        ],
    )


def _ims_capabilities(host: str) -> list[bytes]:
    return [
        avp("Origin-Host", host),
        avp("Origin-Realm", REALM),
        avp("Host-IP-Address", "127.0.0.1"),
        avp("Vendor-Id", 10415),
        avp("Product-Name", "CDiameterPeer"),
        avp("Vendor-Specific-Application-Id", [avp("Vendor-Id", 10415), avp("Auth-Application-Id", 4)]),
        avp("Auth-Application-Id", 4),
        avp("Supported-Vendor-Id", 10415),
    ]


PROFILES = {
    "a PGW": Profile(_plain("32251@3gpp.org"), _plain_capabilities, "E164"),
    "a CSCF": Profile(_plain("32260@3gpp.org"), _plain_capabilities, "E164"),
    "an SMSC": Profile(_plain("32274@3gpp.org"), _plain_capabilities, "E164"),
    "Open5GS": Profile(_smf_request, _smf_capabilities, "IMSI, E164"),
    "Kamailio": Profile(_ims_request, _ims_capabilities, "+E164"),
}
