"""Rules for one Credit-Control-Request (RFC 8506, TS 32.299): what its grammar does not tell."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from occ.decode.remarks import RuleTable, ccr, listed, service_text
from occ.decode.tree import Branch, DecodedMessage, Kind, Node
from protocols.diameter.codes import (
    CCRequestType,
    MultipleServicesIndicator,
    ReportingReason,
    RequestedAction,
    SubscriptionIdType,
    TariffChangeUsage,
)

REQUEST_RULES: Final = RuleTable()
_rule = REQUEST_RULES.rule

SERVICE: Final = "Multiple-Services-Credit-Control"
UNITS: Final = (
    "CC-Time",
    "CC-Money",
    "CC-Total-Octets",
    "CC-Input-Octets",
    "CC-Output-Octets",
    "CC-Service-Specific-Units",
)
"""Unit types of Requested-, Granted- and Used-Service-Unit (RFC 8506 sections 8.17 to 8.19)."""

_INITIAL: Final[int] = CCRequestType.INITIAL
_UPDATE: Final[int] = CCRequestType.UPDATE
_TERMINATION: Final[int] = CCRequestType.TERMINATION
_EVENT: Final[int] = CCRequestType.EVENT

_OF_SERVICES: Final = frozenset((1, 2, 4, 6, 7, 9))
_OF_USAGE: Final = frozenset((0, 3, 5, 8))
"""Reporting-Reasons that belong into Multiple-Services-Credit-Control, and those of Used-Service-Unit."""

_UNIX_TIME_S: Final = 1_000_000_000
_LONG_REPORT_S: Final = 31 * 86_400


def kind_of(message: DecodedMessage) -> int | None:
    """CC-Request-Type."""
    return message.value_of("CC-Request-Type")


def usages(message: DecodedMessage) -> Iterator[tuple[Branch, Node]]:
    """All Used-Service-Units, each with the service or the message it stands in."""
    for branch in (message, *message.each(SERVICE)):
        for used in branch.each("Used-Service-Unit"):
            yield branch, used


def of_text(branch: Branch) -> str:
    """'of Rating-Group 10', or 'at command level'."""
    return f"of {service_text(branch)}" if isinstance(branch, Node) else "at command level"


# -- what real clients do, and the server overlooks --------------------------------------------------------------


@_rule(13, "kamailio-identity-twice", ccr, Kind.TOLERATED)
def identity_twice(message: DecodedMessage) -> Iterator[str]:
    """Kamailio repeats its identity when set up as its manual shows."""
    repeated = [name for name in ("Origin-Host", "Origin-Realm") if len(message.each(name)) > 1]
    if repeated:
        yield f"{listed(repeated)} occurs more than once; the first counts"


@_rule(13, "kamailio-application-inside", ccr, Kind.TOLERATED)
def application_only_vendor_specific(message: DecodedMessage) -> Iterator[str]:
    """Kamailio names the application inside Vendor-Specific-Application-Id only."""
    groups = message.each("Vendor-Specific-Application-Id")
    if not message.has("Auth-Application-Id") and any(group.has("Auth-Application-Id") for group in groups):
        yield "Auth-Application-Id stands inside Vendor-Specific-Application-Id only"


@_rule(26, "open5gs-unnamed-service", ccr, Kind.TOLERATED)
def service_without_key(message: DecodedMessage) -> Iterator[str]:
    """Open5GS sends one service without Rating-Group and Service-Identifier (RFC 8506 section 8.16)."""
    for service in message.each(SERVICE):
        if not service.has("Rating-Group", "Service-Identifier"):
            yield (
                "Multiple-Services-Credit-Control has neither Rating-Group nor Service-Identifier: "
                "what it is about follows from the Service-Context-Id"
            )


@_rule(0, "kamailio-plus-number", ccr, Kind.TOLERATED)
def number_with_plus(message: DecodedMessage) -> Iterator[str]:
    """An E.164 number has digits only; Kamailio takes it with the "+" from a tel: URI."""
    for node in message.walk():
        if node.name == "Subscription-Id" and node.value_of("Subscription-Id-Type") == SubscriptionIdType.END_USER_E164:
            data = node.text_of("Subscription-Id-Data") or ""
            if data.startswith("+"):
                yield f"the E.164 number {data} is written with a plus sign"


# -- numbers and types -------------------------------------------------------------------------------------------


@_rule(21, "RFC 8506 section 8.2", ccr, Kind.TOLERATED)
def request_number(message: DecodedMessage) -> Iterator[str]:
    """0 in the first request of a session and in an event, then one more each time."""
    kind, number = kind_of(message), message.value_of("CC-Request-Number")
    if number is None:
        return
    if kind == _INITIAL and number:
        yield f"CC-Request-Number is {number} in the first request of a session instead of 0"
    elif kind == _EVENT and number:
        yield f"CC-Request-Number is {number} in an event instead of 0"
    elif kind in (_UPDATE, _TERMINATION) and not number:
        yield "CC-Request-Number is 0, which is that of the first request of the session"


@_rule(38, "RFC 8506 section 8.3", ccr)
def event_without_action(message: DecodedMessage) -> Iterator[str]:
    """An event says what is to be done."""
    if kind_of(message) == _EVENT and not message.has("Requested-Action"):
        yield "Requested-Action is missing, which an event must have"


@_rule(38, "RFC 8506 section 6.4", ccr, Kind.NOTE)
def refund_of_what(message: DecodedMessage) -> Iterator[str]:
    """A refund names the debit that it takes back; else only the session tells it."""
    if kind_of(message) != _EVENT or message.value_of("Requested-Action") != RequestedAction.REFUND_ACCOUNT:
        return
    if not any(node.name == "Refund-Information" for node in message.walk()):
        yield "the refund has no Refund-Information: unless it is about a debit under the same Session-Id, that is 5005"


@_rule(38, "RFC 8506 section 8.41, open5gs-action-in-sessions", ccr, Kind.TOLERATED)
def action_outside_event(message: DecodedMessage) -> Iterator[str]:
    """Requested-Action belongs to events; Open5GS sends it always."""
    if message.has("Requested-Action") and kind_of(message) in (_INITIAL, _UPDATE, _TERMINATION):
        yield "Requested-Action is for events only, and ignored here"


@_rule(28, "RFC 8506 section 8.42", ccr, Kind.NOTE)
def service_context(message: DecodedMessage) -> Iterator[str]:
    """A context is 'context@domain'; the server matches it by its end."""
    context = message.text_of("Service-Context-Id")
    if context is not None and "@" not in context:
        yield f"Service-Context-Id {context!r} has no '@domain' at its end: it may be refused with 5031"


@_rule(28, "RFC 8506 section 9.2", ccr)
def nobody_to_charge(message: DecodedMessage) -> Iterator[str]:
    """Who pays is found by Subscription-Id, at command level or inside Service-Information."""
    if kind_of(message) not in (_INITIAL, _EVENT):
        return
    if not any(node.name in ("Subscription-Id", "Subscription-Id-Extension") for node in message.walk()):
        yield "there is no Subscription-Id, neither at command level nor in Service-Information: 5030 is likely"


# -- services ----------------------------------------------------------------------------------------------------


@_rule(25, "RFC 8506 section 5.1.2, open5gs-indicator-zero", ccr, Kind.TOLERATED)
def services_not_announced(message: DecodedMessage) -> Iterator[str]:
    """Multiple-Services-Indicator 1 in the first request is what allows the server to answer by service."""
    if kind_of(message) != _INITIAL or not message.has(SERVICE):
        return
    indicator = message.value_of("Multiple-Services-Indicator")
    if indicator != MultipleServicesIndicator.MULTIPLE_SERVICES_SUPPORTED:
        said = "is missing" if indicator is None else f"is {indicator}"
        yield (
            f"{SERVICE} is used, but Multiple-Services-Indicator {said} instead of 1: "
            "answered by service all the same, unless the client's profile has needs_indicator"
        )


@_rule(26, "RFC 8506 section 5.1.2", ccr)
def units_at_both_levels(message: DecodedMessage) -> Iterator[str]:
    """Units are either those of services or those of the command."""
    units = message.each("Requested-Service-Unit", "Used-Service-Unit")
    if message.has(SERVICE) and units:
        yield f"{listed(node.name for node in units)} at command level beside {SERVICE}: only one of them can be meant"


@_rule(26, "RFC 8506 section 8.16", ccr)
def nothing_wanted_at_first(message: DecodedMessage) -> Iterator[str]:
    """Requested-Service-Unit must be in each service of the first request."""
    if kind_of(message) == _INITIAL:
        for service in message.each(SERVICE):
            if not service.has("Requested-Service-Unit"):
                yield f"Requested-Service-Unit {of_text(service)} is missing in the first request: nothing is granted"


@_rule(26, "RFC 8506 section 8.16", ccr, Kind.NOTE)
def usage_without_request(message: DecodedMessage) -> Iterator[str]:
    """Usage without Requested-Service-Unit is debited, and nothing is granted in return."""
    if kind_of(message) != _UPDATE:
        return
    for branch in (message, *message.each(SERVICE)):
        if branch.has("Requested-Service-Unit") or not branch.has("Used-Service-Unit"):
            continue
        if branch.value_of("Reporting-Reason") != ReportingReason.FINAL:
            yield f"usage {of_text(branch)} is reported and no units are requested: it is debited, nothing is granted"


@_rule(20, "RFC 8506 section 5.4", ccr)
def units_wanted_at_the_end(message: DecodedMessage) -> Iterator[str]:
    """A session that ends needs no units."""
    if kind_of(message) == _TERMINATION:
        for branch in (message, *message.each(SERVICE)):
            if branch.has("Requested-Service-Unit"):
                yield f"units {of_text(branch)} are requested in the last request of the session: nothing is granted"


@_rule(19, "RFC 8506 section 5.2", ccr, Kind.NOTE)
def usage_at_first(message: DecodedMessage) -> Iterator[str]:
    """Nothing was granted before the first request that could have been used."""
    if kind_of(message) == _INITIAL:
        for branch, _ in usages(message):
            yield f"usage {of_text(branch)} is reported in the first request, before anything was granted"


@_rule(26, "RFC 8506 section 8.16", ccr)
def service_twice(message: DecodedMessage) -> Iterator[str]:
    """Each service is asked for once."""
    counts = Counter(service_text(service) for service in message.each(SERVICE))
    for text, count in counts.items():
        if count > 1:
            yield f"{SERVICE} occurs {count} times for {text}"


@_rule(26, "RFC 8506 section 8.16", ccr, Kind.TOLERATED)
def server_avps(message: DecodedMessage) -> Iterator[str]:
    """What only a server says."""
    names = ("Granted-Service-Unit", "Validity-Time", "Final-Unit-Indication", "QoS-Final-Unit-Indication")
    for service in message.each(SERVICE):
        found = service.each(*names, "Result-Code", "G-S-U-Pool-Reference", "Tariff-Change-Usage")
        if found:
            yield f"{listed(node.name for node in found)} {of_text(service)}: for servers only, and ignored"


# -- usage -------------------------------------------------------------------------------------------------------


@_rule(19, "RFC 8506 section 8.19", ccr, Kind.NOTE)
def usage_of_nothing(message: DecodedMessage) -> Iterator[str]:
    """A Used-Service-Unit without units debits nothing."""
    for branch, used in usages(message):
        if not used.has(*UNITS):
            yield f"a Used-Service-Unit {of_text(branch)} holds no units: nothing is debited for it"


@_rule(0, "open5gs-unix-time, kamailio-absurd-usage", ccr)
def time_that_cannot_be(message: DecodedMessage) -> Iterator[str]:
    """The first report of an Open5GS SMF that was granted no time says the Unix time; more than a month is no call."""
    for branch, used in usages(message):
        seconds = used.value_of("CC-Time") or 0
        if seconds >= _UNIX_TIME_S:
            yield f"CC-Time {seconds} {of_text(branch)} looks like a Unix time and not like seconds of use"
        elif seconds > _LONG_REPORT_S:
            yield f"CC-Time {seconds} {of_text(branch)} is more than a month: can that have been used?"


@_rule(19, "TS 32.299 clause 7.1.9", ccr, Kind.NOTE)
def octets_that_do_not_add_up(message: DecodedMessage) -> Iterator[str]:
    """The total counts where it is told."""
    for branch, used in usages(message):
        total = used.value_of("CC-Total-Octets")
        received, sent = used.value_of("CC-Input-Octets"), used.value_of("CC-Output-Octets")
        if total is not None and received is not None and sent is not None and total != received + sent:
            yield (
                f"CC-Total-Octets {total} {of_text(branch)} is not the sum of input {received} and output {sent}; "
                "the total counts"
            )


@_rule(0, "open5gs-equal-reports", ccr, Kind.NOTE)
def usage_twice(message: DecodedMessage) -> Iterator[str]:
    """Open5GS was seen to send the same Used-Service-Unit twice in one request."""
    for branch in (message, *message.each(SERVICE)):
        counts = Counter(used.data for used in branch.each("Used-Service-Unit") if used.data)
        for count in counts.values():
            if count > 1:
                yield f"the same Used-Service-Unit occurs {count} times {of_text(branch)}; each is debited"


@_rule(19, "RFC 8506 section 8.22", ccr, Kind.NOTE)
def money_without_currency(message: DecodedMessage) -> Iterator[str]:
    """Currency-Code should be included."""
    if any(node.name == "CC-Money" and not node.has("Currency-Code") for node in message.walk()):
        yield "CC-Money has no Currency-Code: taken to be in the currency of the account"


# -- reporting reasons -------------------------------------------------------------------------------------------


@_rule(36, "TS 32.299 clause 7.2.175", ccr)
def level_of_reporting_reason(message: DecodedMessage) -> Iterator[str]:
    """1, 2, 4, 6, 7 and 9 concern the service, 0, 3, 5 and 8 one kind of its units."""
    for service in message.each(SERVICE):
        for node in service.each("Reporting-Reason"):
            if node.integer in _OF_USAGE:
                yield f"Reporting-Reason {node.shown()} {of_text(service)} belongs into Used-Service-Unit"
        for used in service.each("Used-Service-Unit"):
            for node in used.each("Reporting-Reason"):
                if node.integer in _OF_SERVICES:
                    yield f"Reporting-Reason {node.shown()} {of_text(service)} must not be in Used-Service-Unit"


@_rule(36, "TS 32.299 clause 7.2.175", ccr)
def units_after_the_end(message: DecodedMessage) -> Iterator[str]:
    """FINAL says that the service is over."""
    for service in message.each(SERVICE):
        if service.value_of("Reporting-Reason") == ReportingReason.FINAL and service.has("Requested-Service-Unit"):
            yield f"Reporting-Reason FINAL {of_text(service)} ends the service, and yet units are requested"


# -- tariff changes ----------------------------------------------------------------------------------------------


@_rule(34, "RFC 8506 section 8.16", ccr)
def usage_partly_split(message: DecodedMessage) -> Iterator[str]:
    """When usage is split at a tariff change, every part says on which side it is."""
    for branch in (message, *message.each(SERVICE)):
        used = branch.each("Used-Service-Unit")
        labelled = [node for node in used if node.has("Tariff-Change-Usage")]
        if labelled and len(labelled) < len(used):
            yield f"some of the usage {of_text(branch)} has Tariff-Change-Usage and some has not"


@_rule(34, "RFC 8506 section 5.1.1", ccr)
def time_split(message: DecodedMessage) -> Iterator[str]:
    """The server knows itself how much of a continuous time was before a tariff change."""
    for branch, used in usages(message):
        octets = used.has("CC-Total-Octets", "CC-Input-Octets", "CC-Output-Octets", "CC-Service-Specific-Units")
        if used.has("Tariff-Change-Usage") and used.has("CC-Time") and not octets:
            yield f"Tariff-Change-Usage {of_text(branch)} splits time, for which the mechanism is not used"


@_rule(34, "RFC 8506 section 8.20", ccr, Kind.TOLERATED)
def tariff_time_from_client(message: DecodedMessage) -> Iterator[str]:
    """The server says when the tariff changes."""
    if any(node.name == "Tariff-Time-Change" for node in message.walk()):
        yield "Tariff-Time-Change is sent by servers only, and ignored"


@_rule(34, "RFC 8506 section 8.27", ccr, Kind.NOTE)
def one_side_of_a_tariff_change(message: DecodedMessage) -> Iterator[str]:
    """Usage is itemised before and after the change; one part alone may mean that the other was forgotten."""
    sides = {int(TariffChangeUsage.UNIT_BEFORE_TARIFF_CHANGE), int(TariffChangeUsage.UNIT_AFTER_TARIFF_CHANGE)}
    for branch in (message, *message.each(SERVICE)):
        found = {used.value_of("Tariff-Change-Usage") for used in branch.each("Used-Service-Unit")} - {None}
        if found and not sides <= found:
            missing = listed("after" if side else "before" for side in sorted(sides - found))
            yield f"usage {of_text(branch)} is split at a tariff change, but none is told {missing} it"
