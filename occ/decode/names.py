"""Names of what the dictionary does not hold: applications and commands of other interfaces, vendors, result codes.

Only for showing: nothing here decides how a message is read.
"""

from typing import Final

from protocols.diameter.codes import ResultCode
from protocols.diameter.dictionary import DICTIONARY

APPLICATIONS: Final[dict[int, str]] = {
    0: "Diameter base",
    1: "NASREQ",
    2: "Mobile IPv4",
    3: "base accounting",
    4: "Diameter Credit Control",
    5: "Diameter EAP",
    6: "Diameter SIP",
    16777216: "3GPP Cx",
    16777217: "3GPP Sh",
    16777218: "3GPP Re/Rf",
    16777219: "3GPP Wx",
    16777220: "3GPP Zn",
    16777221: "3GPP Zh",
    16777222: "3GPP Gq",
    16777223: "3GPP Gmb",
    16777224: "3GPP Gx of release 6",
    16777225: "3GPP Gx over Gy",
    16777226: "3GPP MM10",
    16777229: "3GPP Rx of release 6",
    16777230: "3GPP Pr",
    16777236: "3GPP Rx",
    16777238: "3GPP Gx",
    16777250: "3GPP STa",
    16777251: "3GPP S6a/S6d",
    16777252: "3GPP S13",
    16777255: "3GPP SLg",
    16777264: "3GPP SWm",
    16777265: "3GPP SWx",
    16777266: "3GPP Gxx",
    16777267: "3GPP S9",
    16777268: "3GPP Zpn",
    16777272: "3GPP S6b",
    16777291: "3GPP SLh",
    16777292: "3GPP SGmb",
    16777302: "3GPP Sy",
    16777303: "3GPP Sd",
    16777308: "3GPP S7a",
    16777309: "3GPP Tsp",
    16777310: "3GPP S6m",
    16777311: "3GPP T4",
    16777312: "3GPP S6c",
    16777313: "3GPP SGd",
    16777318: "3GPP S15",
    16777319: "3GPP S9a",
    16777346: "3GPP T6a/T6b",
    0xFFFFFFFF: "relay",
}

COMMANDS: Final[dict[int, str]] = {
    257: "Capabilities-Exchange",
    258: "Re-Auth",
    260: "AA-Mobile-Node",
    262: "Home-Agent-MIP",
    265: "AA",
    268: "Diameter-EAP",
    271: "Accounting",
    272: "Credit-Control",
    274: "Abort-Session",
    275: "Session-Termination",
    280: "Device-Watchdog",
    282: "Disconnect-Peer",
    283: "User-Authorization",
    284: "Server-Assignment",
    285: "Location-Info",
    286: "Multimedia-Auth",
    287: "Registration-Termination",
    288: "Push-Profile",
    300: "User-Authorization",
    301: "Server-Assignment",
    302: "Location-Info",
    303: "Multimedia-Auth",
    304: "Registration-Termination",
    305: "Push-Profile",
    306: "User-Data",
    307: "Profile-Update",
    308: "Subscribe-Notifications",
    309: "Push-Notification",
    316: "Update-Location",
    317: "Cancel-Location",
    318: "Authentication-Information",
    319: "Insert-Subscriber-Data",
    320: "Delete-Subscriber-Data",
    321: "Purge-UE",
    322: "Reset",
    323: "Notify",
    324: "ME-Identity-Check",
    8388620: "Provide-Location",
    8388621: "Location-Report",
    8388622: "LCS-Routing-Info",
    8388635: "Spending-Limit",
    8388636: "Spending-Status-Notification",
    8388637: "TDF-Session",
    8388639: "Device-Action",
    8388640: "Device-Notification",
    8388641: "Subscriber-Information",
    8388643: "Device-Trigger",
    8388645: "MO-Forward-Short-Message",
    8388646: "MT-Forward-Short-Message",
    8388647: "Send-Routing-Info-for-SM",
    8388648: "Alert-Service-Centre",
    8388649: "Report-SM-Delivery-Status",
}

_VENDORS: Final[dict[int, str]] = {
    9: "Cisco",
    193: "Ericsson",
    429: "Siemens",
    637: "Alcatel-Lucent",
    2011: "Huawei",
    5535: "3GPP2",
    8164: "Starent",
    9008: "NTT",
    10415: "3GPP",
    11610: "Metaswitch",
    12645: "Vodafone",
    13019: "ETSI",
    28458: "Nokia Siemens Networks",
}

_EXPERIMENTAL: Final[dict[tuple[int, int], str]] = {
    (10415, 2001): "FIRST_REGISTRATION",
    (10415, 2002): "SUBSEQUENT_REGISTRATION",
    (10415, 2003): "UNREGISTERED_SERVICE",
    (10415, 4181): "AUTHENTICATION_DATA_UNAVAILABLE",
    (10415, 4241): "NO_AVAILABLE_POLICY_COUNTERS",
    (10415, 5001): "USER_UNKNOWN",
    (10415, 5004): "ROAMING_NOT_ALLOWED",
    (10415, 5065): "IP_CAN_SESSION_NOT_AVAILABLE",
    (10415, 5140): "INITIAL_PARAMETERS",
    (10415, 5420): "UNKNOWN_EPS_SUBSCRIPTION",
    (10415, 5421): "RAT_NOT_ALLOWED",
    (10415, 5422): "EQUIPMENT_UNKNOWN",
    (10415, 5570): "UNKNOWN_POLICY_COUNTERS",
}

_ENUMERATIONS: Final[dict[str, dict[int, str]]] = {
    "3GPP-PDP-Type": {0: "IPv4", 1: "PPP", 2: "IPv6", 3: "IPv4v6"},
    "Trigger-Type": {
        1: "CHANGE_IN_SGSN_IP_ADDRESS",
        2: "CHANGE_IN_QOS",
        3: "CHANGE_IN_LOCATION",
        4: "CHANGE_IN_RAT",
        5: "CHANGE_IN_UE_TIMEZONE",
    },
    "Node-Functionality": {
        0: "S-CSCF",
        1: "P-CSCF",
        2: "I-CSCF",
        3: "MRFC",
        4: "MGCF",
        5: "BGCF",
        6: "AS",
        7: "IBCF",
        8: "S-GW",
        9: "P-GW",
        10: "HSGW",
        11: "E-CSCF",
        12: "MME",
    },
    "Inband-Security-Id": {0: "NO_INBAND_SECURITY", 1: "TLS"},
}


def counted(number: int, noun: str) -> str:
    """'1 octet', '2 octets'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def application_name(number: int) -> str:
    """'Diameter Credit Control' for 4, '' for an unknown one."""
    return APPLICATIONS.get(number, "")


def command_name(code: int, application: int, is_request: bool) -> str:
    """'Credit-Control-Request' for 272; 'Command-999-Request' where the code has no name."""
    found = DICTIONARY.command(code, application, is_request)
    if found is not None:
        return found.name
    return f"{COMMANDS.get(code, f'Command-{code}')}-{'Request' if is_request else 'Answer'}"


def vendor_name(number: int) -> str:
    """'3GPP' for 10415; the number as text where it has no name."""
    return _VENDORS.get(number, str(number))


def result_name(code: int) -> str:
    """'DIAMETER_SUCCESS' for 2001, '' for an unknown one (RFC 6733 section 7.1, RFC 8506 section 9)."""
    try:
        name = ResultCode(code).name
    except ValueError:
        return ""
    # The one name that the RFC writes without the prefix.
    return name if code == ResultCode.ELECTION_LOST else f"DIAMETER_{name}"


def experimental_name(vendor: int, code: int) -> str:
    """The name of an Experimental-Result-Code of a vendor, '' for an unknown one."""
    return _EXPERIMENTAL.get((vendor, code), "")


def enumeration(name: str) -> dict[int, str]:
    """Value -> name of an enumeration that the dictionary leaves open, empty where none is known."""
    return _ENUMERATIONS.get(name, {})
