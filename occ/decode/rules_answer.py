"""Rules for one Credit-Control-Answer, and for what else a server sends (RFC 8506, TS 32.299)."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import Final

from occ.decode.names import result_name
from occ.decode.remarks import RuleTable, cca, listed, service_text
from occ.decode.rules_request import SERVICE, UNITS, kind_of, of_text
from occ.decode.tree import Branch, DecodedMessage, Kind, Node, time_text
from protocols.diameter.codes import (
    AvpFlag,
    CCRequestType,
    FinalUnitAction,
    RedirectAddressType,
    ResultCode,
    TariffChangeUsage,
)

ANSWER_RULES: Final = RuleTable()
_rule = ANSWER_RULES.rule

FINAL_UNITS: Final = ("Final-Unit-Indication", "QoS-Final-Unit-Indication")

_INITIAL: Final[int] = CCRequestType.INITIAL
_UPDATE: Final[int] = CCRequestType.UPDATE
_SUCCESS: Final[int] = ResultCode.SUCCESS
_TERMINATE: Final[int] = FinalUnitAction.TERMINATE
_REDIRECT: Final[int] = FinalUnitAction.REDIRECT
_RESTRICT: Final[int] = FinalUnitAction.RESTRICT_ACCESS

_NEW_WITH_RFC_8506: Final = range(653, 670)
_OF_CREDIT_CONTROL: Final = ("RFC 6733", "RFC 8506", "RFC 7155")
"""Specifications whose AVPs a plain credit-control client has in its dictionary."""

_POOLED_UNITS: Final = dict(enumerate(UNITS))
"""CC-Unit-Type -> the unit it stands for (RFC 8506 section 8.32)."""

_THRESHOLDS: Final = {
    "Time-Quota-Threshold": "CC-Time",
    "Volume-Quota-Threshold": "CC-Total-Octets",
    "Unit-Quota-Threshold": "CC-Service-Specific-Units",
}
_NANOSECONDS: Final = 1_000_000_000


def levels(message: DecodedMessage) -> list[Branch]:
    """Where grants stand: at command level and in each service."""
    return [message, *message.each(SERVICE)]


def units_granted(branch: Branch) -> dict[str, int]:
    """What a Granted-Service-Unit grants: name of the unit -> amount; money counts 1 if there is any."""
    granted = branch.first("Granted-Service-Unit")
    found: dict[str, int] = {}
    for node in granted.each(*UNITS) if granted is not None else ():
        found[node.name] = _money(node) if node.name == "CC-Money" else node.integer or 0
    return found


def _money(node: Node) -> int:
    value = node.first("Unit-Value")
    return 1 if value is not None and value.value_of("Value-Digits") else 0


# -- what clients drop or misunderstand --------------------------------------------------------------------------


@_rule(0, "freediameter-unknown-m-bit", cca)
def mandatory_and_unknown(message: DecodedMessage) -> Iterator[str]:
    """A plain client drops an answer with an AVP that it does not know and must not ignore."""
    found = [
        node.name if node.definition is not None else f"AVP {node.code}/{node.vendor}"
        for node in message.walk()
        if node.flags & AvpFlag.MANDATORY and not _plain_client_knows(node)
    ]
    if found:
        yield f"a plain credit-control client does not know {listed(found)}, and drops the answer for its M bit"


def _plain_client_knows(node: Node) -> bool:
    if node.vendor or node.definition is None or node.code in _NEW_WITH_RFC_8506:
        return False
    return node.definition.section.startswith(_OF_CREDIT_CONTROL)


@_rule(0, "open5gs-no-units-is-free", cca, Kind.NOTE)
def success_without_grant(message: DecodedMessage) -> Iterator[str]:
    """Open5GS takes an answer without a grant for free, unlimited traffic."""
    if message.result_code != _SUCCESS or kind_of(message) != _INITIAL:
        return
    refused = any(service.value_of("Result-Code") not in (None, _SUCCESS) for service in message.each(SERVICE))
    if not refused and not any(branch.has("Granted-Service-Unit", *FINAL_UNITS) for branch in levels(message)):
        yield "success without any Granted-Service-Unit: Open5GS takes that for free, unlimited traffic"


@_rule(24, "kamailio-validity-always, open5gs-unix-time", cca, Kind.NOTE)
def grant_without_validity(message: DecodedMessage) -> Iterator[str]:
    """Without Validity-Time Kamailio comes back at once, and Open5GS may report the Unix time."""
    if message.has("Validity-Time") or kind_of(message) not in (_INITIAL, _UPDATE):
        return
    for branch in levels(message):
        if any(units_granted(branch).values()) and not branch.has("Validity-Time"):
            yield f"the grant {of_text(branch)} has no Validity-Time: Kamailio asks again as soon as a call is answered"


@_rule(19, "RFC 8506 section 8.17", cca, Kind.NOTE)
def grant_of_nothing(message: DecodedMessage) -> Iterator[str]:
    """A Granted-Service-Unit without units."""
    for branch in levels(message):
        granted = branch.first("Granted-Service-Unit")
        if granted is not None and not granted.has(*UNITS):
            yield f"the Granted-Service-Unit {of_text(branch)} holds no units"


# -- levels and codes --------------------------------------------------------------------------------------------


@_rule(24, "RFC 8506 section 5.1.2", cca)
def validity_and_final_units_at_both_levels(message: DecodedMessage) -> Iterator[str]:
    """Validity-Time and final units stand in the services or at command level, not in both."""
    for name in ("Validity-Time", *FINAL_UNITS):
        if message.has(name) and any(service.has(name) for service in message.each(SERVICE)):
            yield f"{name} stands at command level and in {SERVICE} as well"


@_rule(26, "RFC 8506 section 5.1.2", cca)
def grants_at_both_levels(message: DecodedMessage) -> Iterator[str]:
    """Units are granted to services or to the command."""
    if message.has("Granted-Service-Unit") and message.has(SERVICE):
        yield f"Granted-Service-Unit at command level beside {SERVICE}: only one of them can be meant"


@_rule(27, "RFC 8506 section 5.1.2", cca, Kind.NOTE)
def services_overridden(message: DecodedMessage) -> Iterator[str]:
    """A failure at command level is about all services."""
    code = message.result_code
    if code is not None and code != _SUCCESS:
        for service in message.each(SERVICE):
            if service.value_of("Result-Code") == _SUCCESS:
                yield f"Result-Code {code} at command level overrides the success {of_text(service)}"


@_rule(27, "RFC 8506 sections 5.1.2 and 9", cca)
def refused_and_granted(message: DecodedMessage) -> Iterator[str]:
    """What is refused is not granted."""
    for branch in levels(message):
        code = branch.value_of("Result-Code")
        if code is not None and not 2000 <= code < 3000 and any(units_granted(branch).values()):
            yield f"units {of_text(branch)} are granted beside Result-Code {code} ({result_name(code) or 'unknown'})"


@_rule(28, "RFC 8506 section 9.2", cca)
def rating_failed_without_reason(message: DecodedMessage) -> Iterator[str]:
    """5031 says which AVP could not be rated."""
    for branch in levels(message):
        shown = branch.has("Failed-AVP") or message.has("Failed-AVP")
        if branch.value_of("Result-Code") == ResultCode.RATING_FAILED and not shown:
            yield f"Result-Code 5031 (DIAMETER_RATING_FAILED) {of_text(branch)} comes without Failed-AVP"


# -- final units -------------------------------------------------------------------------------------------------


def _final_units(message: DecodedMessage) -> Iterator[tuple[Branch, Node, int]]:
    for branch in levels(message):
        for group in branch.each(*FINAL_UNITS):
            action = group.value_of("Final-Unit-Action")
            if action is not None:
                yield branch, group, action


@_rule(29, "RFC 8506 section 8.34", cca)
def terminate_with_more(message: DecodedMessage) -> Iterator[str]:
    """TERMINATE carries nothing else."""
    for branch, group, action in _final_units(message):
        others = [node.name for node in group.members if node.name != "Final-Unit-Action"]
        if action == _TERMINATE and others:
            yield f"{group.name} {of_text(branch)} with TERMINATE must not hold {listed(others)}"


@_rule(29, "RFC 8506 section 8.34", cca)
def redirect_without_server(message: DecodedMessage) -> Iterator[str]:
    """REDIRECT says where to."""
    for branch, group, action in _final_units(message):
        if action == _REDIRECT and not group.has("Redirect-Server", "Redirect-Server-Extension"):
            yield f"{group.name} {of_text(branch)} with REDIRECT has no Redirect-Server: where to?"


@_rule(29, "RFC 8506 section 8.34", cca)
def restrict_without_filter(message: DecodedMessage) -> Iterator[str]:
    """RESTRICT_ACCESS should say to what, unless the client has been told elsewhere."""
    for branch, group, action in _final_units(message):
        if action == _RESTRICT and not group.has("Restriction-Filter-Rule", "Filter-Id", "Filter-Rule"):
            yield f"{group.name} {of_text(branch)} with RESTRICT_ACCESS has no filter: to what is access restricted?"


@_rule(29, "RFC 8506 section 8.38", cca)
def redirect_address(message: DecodedMessage) -> Iterator[str]:
    """The address is of the type that is said."""
    for node in message.walk():
        if node.name == "Redirect-Server":
            kind, address = node.value_of("Redirect-Address-Type"), node.text_of("Redirect-Server-Address")
            if kind is not None and address is not None and not _is_address(kind, address):
                name = RedirectAddressType(kind).name if kind in list(RedirectAddressType) else kind
                yield f"Redirect-Server-Address {address!r} is no {name}"


def _is_address(kind: int, address: str) -> bool:
    if kind == RedirectAddressType.URL:
        return "://" in address
    if kind == RedirectAddressType.SIP_URI:
        return address.lower().startswith(("sip:", "sips:"))
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return False
    return version == (4 if kind == RedirectAddressType.IPV4_ADDRESS else 6)


@_rule(30, "RFC 8506 sections 5.6 and 8.34", cca)
def terminate_at_once(message: DecodedMessage) -> Iterator[str]:
    """A first request that can be granted nothing is refused with 4012 when the policy is to terminate."""
    if kind_of(message) != _INITIAL or message.result_code != _SUCCESS:
        return
    for branch, group, action in _final_units(message):
        if action == _TERMINATE and not any(units_granted(branch).values()):
            yield f"{group.name} {of_text(branch)} with TERMINATE and no units in the first answer: that is 4012"


@_rule(30, "RFC 8506 section 5.6", cca, Kind.NOTE)
def action_at_once(message: DecodedMessage) -> Iterator[str]:
    """Final units of zero, or none, start the action at once."""
    for branch, group, action in _final_units(message):
        if not any(units_granted(branch).values()) and (action != _TERMINATE or kind_of(message) != _INITIAL):
            name = FinalUnitAction(action).name if action in list(FinalUnitAction) else action
            yield f"{group.name} {of_text(branch)} comes with no units: the client does {name} at once"


@_rule(31, "RFC 8506 section 5.6.2", cca)
def action_without_end(message: DecodedMessage) -> Iterator[str]:
    """While redirected or restricted, the client asks anew when Validity-Time ends."""
    for branch, group, action in _final_units(message):
        if action == _TERMINATE or any(units_granted(branch).values()):
            continue
        if not branch.has("Validity-Time") and not message.has("Validity-Time"):
            yield f"{group.name} {of_text(branch)} starts at once and has no Validity-Time: the client never asks again"


@_rule(32, "RFC 8506 section 8.68", cca, Kind.NOTE)
def only_new_final_units(message: DecodedMessage) -> Iterator[str]:
    """Clients of RFC 4006 know Final-Unit-Indication only."""
    for branch in levels(message):
        if branch.has("QoS-Final-Unit-Indication") and not branch.has("Final-Unit-Indication"):
            yield f"QoS-Final-Unit-Indication {of_text(branch)} has no Final-Unit-Indication with it for older clients"


# -- pools -------------------------------------------------------------------------------------------------------


@_rule(33, "RFC 8506 section 8.16", cca)
def pool_of_units_not_granted(message: DecodedMessage) -> Iterator[str]:
    """Units of the type that is pooled must be granted."""
    for service in message.each(SERVICE):
        for reference in service.each("G-S-U-Pool-Reference"):
            unit = _POOLED_UNITS.get(reference.value_of("CC-Unit-Type") or 0)
            if unit is not None and unit not in units_granted(service):
                pool = reference.value_of("G-S-U-Pool-Identifier")
                yield f"pool {pool} counts {unit} of {service_text(service)}, of which none is granted"


@_rule(33, "RFC 8506 section 5.1.2", cca)
def pool_twice(message: DecodedMessage) -> Iterator[str]:
    """References of one service to the same pool differ in their unit type."""
    for service in message.each(SERVICE):
        counts = Counter(
            (node.value_of("G-S-U-Pool-Identifier"), node.value_of("CC-Unit-Type"))
            for node in service.each("G-S-U-Pool-Reference")
        )
        for (pool, kind), count in counts.items():
            if count > 1:
                yield f"{service_text(service)} refers to pool {pool} {count} times for the unit type {kind}"


# -- tariff changes ----------------------------------------------------------------------------------------------


@_rule(34, "RFC 8506 section 8.27", cca)
def grant_on_no_side(message: DecodedMessage) -> Iterator[str]:
    """UNIT_INDETERMINATE is for usage only."""
    for service in message.each(SERVICE):
        if service.value_of("Tariff-Change-Usage") == TariffChangeUsage.UNIT_INDETERMINATE:
            yield f"Tariff-Change-Usage UNIT_INDETERMINATE {of_text(service)} is for reports only"


@_rule(34, "RFC 8506 section 8.16", cca)
def half_of_two_quotas(message: DecodedMessage) -> Iterator[str]:
    """Of the two grants around a tariff change both must be there."""
    sides: dict[str, list[int]] = {}
    for service in message.each(SERVICE):
        side = service.value_of("Tariff-Change-Usage")
        if side in (0, 1):
            sides.setdefault(service_text(service), []).append(side)
    for text, found in sides.items():
        if sorted(found) != [0, 1]:
            yield f"{text} has {len(found)} grants with Tariff-Change-Usage instead of one before and one after"


@_rule(34, "RFC 8506 sections 5.1.1 and 8.20", cca)
def tariff_change_of_time(message: DecodedMessage) -> Iterator[str]:
    """Time runs on by itself: the server knows how much of it lies before the change."""
    for branch in levels(message):
        granted = branch.first("Granted-Service-Unit")
        if granted is not None and granted.has("Tariff-Time-Change") and set(units_granted(branch)) == {"CC-Time"}:
            yield f"Tariff-Time-Change {of_text(branch)} with a grant of time only, for which the mechanism is not used"


@_rule(34, "RFC 8506 section 8.20", cca, Kind.NOTE)
def tariff_change_gone_by(message: DecodedMessage) -> Iterator[str]:
    """A change that is over when it is announced; told by the clock of the capture."""
    caught_ns = message.found.time_ns
    for branch in levels(message):
        granted = branch.first("Granted-Service-Unit")
        change = granted.value_of("Tariff-Time-Change") if granted is not None else None
        if change is not None and caught_ns and change < caught_ns // _NANOSECONDS:
            yield f"Tariff-Time-Change {of_text(branch)} is {time_text(change)}, before the answer was sent"


# -- thresholds --------------------------------------------------------------------------------------------------


@_rule(35, "TS 32.299 clause 5.3.1", cca, Kind.NOTE)
def threshold_of_nothing(message: DecodedMessage) -> Iterator[str]:
    """A threshold belongs to units that are granted, and is less than they are."""
    for service in message.each(SERVICE):
        granted = units_granted(service)
        for name, unit in _THRESHOLDS.items():
            threshold = service.value_of(name)
            if threshold is None:
                continue
            if unit not in granted:
                yield f"{name} {of_text(service)} goes with no grant of {unit}"
            elif threshold >= granted[unit]:
                at_once = f"is no less than the {granted[unit]} granted: reported at once"
                yield f"{name} {threshold} {of_text(service)} {at_once}"


@_rule(36, "TS 32.299 clause 7.2.175", cca)
def reason_from_server(message: DecodedMessage) -> Iterator[str]:
    """Reporting-Reason is said by clients."""
    if any(node.name == "Reporting-Reason" for node in message.walk()):
        yield "Reporting-Reason is for requests only"
