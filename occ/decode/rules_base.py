"""Rules of the base protocol for one message (RFC 6733): what its grammar does not tell."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from occ.decode.names import result_name
from occ.decode.remarks import RuleTable, answer, command, every_message, listed, request
from occ.decode.tree import BASE_COMMANDS, DecodedMessage, Kind, Node, time_text
from protocols.diameter.codes import VENDOR_3GPP, Application, AvpFlag, Command, Flag, ReAuthRequestType, ResultCode
from protocols.diameter.dictionary import AvpType

BASE_RULES: Final = RuleTable()
_rule = BASE_RULES.rule

_NEEDS_FAILED_AVP: Final = frozenset(
    int(code)
    for code in (
        ResultCode.AVP_UNSUPPORTED,
        ResultCode.INVALID_AVP_VALUE,
        ResultCode.MISSING_AVP,
        ResultCode.CONTRADICTING_AVPS,
        ResultCode.AVP_NOT_ALLOWED,
        ResultCode.AVP_OCCURS_TOO_MANY_TIMES,
        ResultCode.INVALID_AVP_LENGTH,
        ResultCode.INVALID_AVP_BIT_COMBO,
    )
)
_TEXT: Final = frozenset((AvpType.UTF8_STRING, AvpType.DIAMETER_IDENTITY, AvpType.DIAMETER_URI))
_FIRST_BELIEVABLE_S: Final = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp())
_LAST_BELIEVABLE_S: Final = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
_CLOCK_DIFFERENCE_S: Final = 3600
_NANOSECONDS: Final = 1_000_000_000


# -- header ------------------------------------------------------------------------------------------------------


@_rule(10, "RFC 6733 section 3", every_message, Kind.TOLERATED)
def reserved_header_bits(message: DecodedMessage) -> Iterator[str]:
    """Reserved command flags are to be 0, and ignored."""
    if message.flags & 0x0F:
        yield f"reserved bits of the command flags are set: {message.flags & 0x0F:#03x}"


@_rule(9, "RFC 6733 section 5.3", every_message, Kind.TOLERATED)
def application_of_base_command(message: DecodedMessage) -> Iterator[str]:
    """CER, DWR and DPR belong to application 0; the server knows them by their code."""
    if message.command in BASE_COMMANDS and message.application:
        yield f"{message.name} has the Application-Id {message.application} in its header instead of 0"


@_rule(8, "RFC 6733 sections 7.1.3 to 7.2", answer)
def error_bit(message: DecodedMessage) -> Iterator[str]:
    """3xxx always has the E bit, 2xxx and 4xxx never."""
    code = message.result_code
    if code is None:
        return
    shown = f"{code} ({result_name(code)})" if result_name(code) else str(code)
    if 3000 <= code < 4000 and not message.is_error:
        yield f"Result-Code {shown} is a protocol error, but the E bit is not set"
    elif message.is_error and (1000 <= code < 3000 or 4000 <= code < 5000):
        yield f"the E bit is set, but Result-Code {shown} is no protocol error"


@_rule(8, "RFC 6733 section 7.1.5", answer, Kind.NOTE)
def error_bit_of_a_permanent_failure(message: DecodedMessage) -> Iterator[str]:
    """5xxx should come without the E bit."""
    code = message.result_code or 0
    if message.is_error and 5000 <= code < 6000:
        yield f"the E bit goes with Result-Code {code}: allowed where an answer cannot keep to its grammar"


@_rule(7, "RFC 6733 section 3", answer)
def retransmission_bit(message: DecodedMessage) -> Iterator[str]:
    """T is for requests."""
    if message.flags & Flag.RETRANSMIT:
        yield "the T bit must not be set in an answer"


# -- AVPs of every message ---------------------------------------------------------------------------------------


@_rule(11, "RFC 6733 section 4.1", every_message, Kind.TOLERATED)
def reserved_avp_bits(message: DecodedMessage) -> Iterator[str]:
    """The P bit is out of use, the five bits after it are reserved."""
    found = [node.name for node in message.walk() if node.flags & 0x3F]
    if found:
        yield f"P or reserved AVP flag bits are set: {listed(found)}"


@_rule(11, "RFC 6733 section 4.1", every_message, Kind.TOLERATED)
def mandatory_bit(message: DecodedMessage) -> Iterator[str]:
    """The M bit is as the AVP's definition has it. In answers only IETF AVPs count: others come better without."""
    missing, surplus = [], []
    for node in message.walk():
        if node.definition is None or (not message.is_request and node.vendor):
            continue
        has_it = node.flags & AvpFlag.MANDATORY != 0
        if node.definition.m_flag == "M" and not has_it:
            missing.append(node.name)
        elif node.definition.m_flag == "-" and has_it:
            surplus.append(node.name)
    if missing:
        yield f"the M bit is not set, although the definition asks for it: {listed(missing)}"
    if surplus:
        yield f"the M bit is set, although the definition forbids it: {listed(surplus)}"


@_rule(12, "RFC 6733 section 4.1", every_message, Kind.NOTE)
def unknown_avps(message: DecodedMessage) -> Iterator[str]:
    """Without the M bit an unknown AVP is ignored."""
    found = [
        f"{node.code}/{node.vendor}" if node.vendor else str(node.code)
        for node in message.walk()
        if node.definition is None and not node.flags & AvpFlag.MANDATORY
    ]
    if found:
        yield f"not in the dictionary and ignored, having no M bit: AVP {listed(found)}"


@_rule(14, "RFC 6733 section 4.3.1", every_message, Kind.TOLERATED)
def text_that_is_none(message: DecodedMessage) -> Iterator[str]:
    """UTF8String and what is derived from it is UTF-8."""
    found = [node.name for node in message.walk() if _is_text(node) and not _is_utf8(node.data)]
    if found:
        yield f"not UTF-8, and taken as octets: {listed(found)}"


@_rule(0, "kamailio-garbage-date", every_message, Kind.NOTE)
def date_that_cannot_be(message: DecodedMessage) -> Iterator[str]:
    """Kamailio's last request of a call has a garbage date."""
    for node in message.walk():
        if node.definition is None or node.definition.type is not AvpType.TIME or node.integer is None:
            continue
        if not _FIRST_BELIEVABLE_S <= node.integer < _LAST_BELIEVABLE_S:
            yield f"{node.name} {time_text(node.integer)} can hardly be meant"


@_rule(0, "RFC 6733 section 8.21", request, Kind.NOTE)
def clocks_that_differ(message: DecodedMessage) -> Iterator[str]:
    """Event-Timestamp and the capture's clock, where there is one."""
    stamp, caught_ns = message.value_of("Event-Timestamp"), message.found.time_ns
    if stamp is None or caught_ns is None or stamp < _FIRST_BELIEVABLE_S:
        return
    difference = stamp - caught_ns // _NANOSECONDS
    if caught_ns // _NANOSECONDS > _FIRST_BELIEVABLE_S and abs(difference) > _CLOCK_DIFFERENCE_S:
        side = "ahead of" if difference > 0 else "behind"
        yield f"Event-Timestamp is {abs(difference)} s {side} the clock of the capture"


def _is_text(node: Node) -> bool:
    return node.definition is not None and node.definition.type in _TEXT


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# -- where AVPs stand, and which ---------------------------------------------------------------------------------


@_rule(0, "RFC 6733 section 8.8", request, Kind.TOLERATED)
def session_id_first_in_request(message: DecodedMessage) -> Iterator[str]:
    """Session-Id follows the header."""
    yield from _session_id_not_first(message)


@_rule(7, "RFC 6733 section 8.8, freediameter-complete-answer", answer)
def session_id_first_in_answer(message: DecodedMessage) -> Iterator[str]:
    """Clients built on freeDiameter drop an answer in silence whose Session-Id does not come first."""
    for text in _session_id_not_first(message):
        yield f"{text}; clients built on freeDiameter drop such an answer in silence"


def _session_id_not_first(message: DecodedMessage) -> Iterator[str]:
    if message.has("Session-Id") and message.members[0].name != "Session-Id":
        yield f"Session-Id comes after {message.members[0].name} instead of first"


@_rule(7, "RFC 6733 section 6.2", answer)
def destination_in_answer(message: DecodedMessage) -> Iterator[str]:
    """Answers find their way back by the Hop-by-Hop Identifier."""
    found = message.each("Destination-Host", "Destination-Realm")
    if found:
        yield f"an answer must not hold {listed(node.name for node in found)}"


@_rule(13, "RFC 6733 section 7.1.5", answer)
def failed_avp(message: DecodedMessage) -> Iterator[str]:
    """An answer that blames an AVP shows it."""
    code = message.result_code
    if code in _NEEDS_FAILED_AVP and not message.has("Failed-AVP"):
        yield f"Result-Code {code} ({result_name(code)}) comes without the Failed-AVP that shows what is meant"


@_rule(15, "RFC 6733 section 6.1.3", request)
def loop(message: DecodedMessage) -> Iterator[str]:
    """An agent that finds itself in Route-Record refuses with 3005."""
    passed: set[bytes] = set()
    for node in message.each("Route-Record"):
        host = node.data.lower()
        if host in passed:
            yield f"Route-Record names {node.plain()} twice: the request went in a loop"
        passed.add(host)


# -- commands ----------------------------------------------------------------------------------------------------


@_rule(13, "kamailio-no-address", command(Command.CAPABILITIES_EXCHANGE, is_request=True), Kind.TOLERATED)
def no_address(message: DecodedMessage) -> Iterator[str]:
    """Kamailio 5.6 sometimes sends no Host-IP-Address."""
    if not message.has("Host-IP-Address"):
        yield "Host-IP-Address is missing, which the grammar of a Capabilities-Exchange-Request demands"


@_rule(2, "kamailio-vendor-application", command(Command.CAPABILITIES_EXCHANGE, is_request=False), Kind.NOTE)
def application_inside_vendor_specific(message: DecodedMessage) -> Iterator[str]:
    """Kamailio looks for its route to Ro inside Vendor-Specific-Application-Id, and sends no CCR if it finds none."""
    if message.result_code != ResultCode.SUCCESS:
        return
    wanted = int(Application.CREDIT_CONTROL)
    if wanted not in message.values_of("Auth-Application-Id"):
        return
    for group in message.each("Vendor-Specific-Application-Id"):
        if VENDOR_3GPP in group.values_of("Vendor-Id") and wanted in group.values_of("Auth-Application-Id"):
            return
    yield (
        "application 4 is not given inside Vendor-Specific-Application-Id with Vendor-Id 10415 too: "
        "Kamailio then sends no Credit-Control-Request"
    )


@_rule(42, "RFC 8506 section 5.5", command(Command.RE_AUTH, is_request=True))
def re_auth_request_type(message: DecodedMessage) -> Iterator[str]:
    """Credit control re-authorises only."""
    kind = message.value_of("Re-Auth-Request-Type")
    if message.application == Application.CREDIT_CONTROL and kind not in (None, int(ReAuthRequestType.AUTHORIZE_ONLY)):
        yield f"Re-Auth-Request-Type must be AUTHORIZE_ONLY (0), not {kind}"
