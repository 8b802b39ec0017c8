"""Holds an answer against what a scenario's row expects, and shows answers in the scenarios' own words."""

import re
from collections.abc import Iterator

from protocols.diameter.codec import Avp, Message
from protocols.diameter.codes import Flag
from tests.scenarios.notation import (
    ServiceClause,
    WrittenAvp,
    clauses,
    data_of,
    duration_s,
    equal_data,
    members_of,
    read_units,
    service_clause,
    show_units,
    tariff_time_change,
    units,
    written_avp,
)

COMMANDS = {
    257: ("CER", "CEA"),
    258: ("RAR", "RAA"),
    272: ("CCR", "CCA"),
    274: ("ASR", "ASA"),
    280: ("DWR", "DWA"),
    282: ("DPR", "DPA"),
}
_RESULT_CODE, _MSCC, _FAILED_AVP = 268, 456, 279
_TERMINATE = bytes.fromhex("000001c14000000c00000000")
_SHOWN_OTHERWISE = {431, 268, 448, 432, 439}
_SHOWN_IN_SERVICES = {430, 452, 457, 669}
"""AVPs of a service that ``describe`` shows by name."""
_GRANTED, _FINAL, _VALIDITY, _RATING_GROUP, _SERVICE_IDENTIFIER = 431, 430, 448, 432, 439


def complaints(message: Message, expected: str) -> list[str]:
    """Where a message differs from a row's answer cell; empty if it does not."""
    return list(_complaints(message, clauses(expected)))


def _complaints(message: Message, parts: list[str]) -> Iterator[str]:
    services: list[ServiceClause] = []
    at_command_level = ServiceClause("units", None, (), ())
    failed_avp = ""
    for part in parts:
        service = service_clause(part)
        if service is not None:
            if service.where == "units":
                at_command_level = service
            else:
                services.append(service)
        elif part.startswith("Failed-AVP"):
            failed_avp = part.removeprefix("Failed-AVP").strip() or "anything"
        elif part != "closed":
            yield from _part_complaints(message, part)
    found = message.find_all(_MSCC)
    if len(found) != len(services):
        yield f"{len(found)} Multiple-Services-Credit-Control instead of {len(services)}"
    for group, wanted in zip(found, services, strict=False):
        yield from _service_complaints(members_of(group), wanted)
    yield from _service_complaints([one for one in message.avps if one.code != _RESULT_CODE], at_command_level)
    yield from _failed_avp_complaints(message, failed_avp)


def _part_complaints(message: Message, part: str) -> Iterator[str]:
    head = re.fullmatch(r"(?:([A-Z]{3}) ?)?(\d{4})?", part)
    if head:
        name = _name(message)
        wanted = head[1] or ("" if not message.is_request else "an answer")
        if wanted and wanted != name:
            yield f"{name} instead of {wanted}"
        result = message.find(_RESULT_CODE)
        code = str(result.value()) if result is not None else ""
        if head[2] and code != head[2]:
            yield f"Result-Code {code} instead of {head[2]}"
    elif part == "E bit":
        if not message.flags & Flag.ERROR:
            yield "the E bit is clear"
    elif part.startswith("no "):
        wanted_avp = written_avp(part[3:])
        if any(wanted_avp.is_same_kind(one) for one in message.avps):
            yield f"there is a {part[3:]}"
    else:
        wanted_avp = written_avp(part)
        same = [one for one in message.avps if wanted_avp.is_same_kind(one)]
        if not same:
            yield f"there is no {part}"
        elif wanted_avp.encoded is not None and not any(equal_data(one.data, data_of(wanted_avp)) for one in same):
            yield f"{part} is wanted, but there is {', '.join(_show_avp(one) for one in same)}"


def _failed_avp_complaints(message: Message, wanted: str) -> Iterator[str]:
    found = message.find(_FAILED_AVP)
    if found is None:
        if wanted:
            yield "there is no Failed-AVP"
        return
    if not wanted:
        yield f"there is a Failed-AVP of {found.data.hex()} that the row does not mention"
    elif wanted != "anything":
        written = written_avp(wanted)
        if written.encoded is not None and found.data != written.encoded:
            yield f"Failed-AVP holds {found.data.hex()} instead of {written.encoded.hex()}"
        elif not any(written.is_same_kind(one) for one in members_of(found)):
            yield f"Failed-AVP holds {found.data.hex()} and no {wanted}"


def _service_complaints(avps: list[Avp], wanted: ServiceClause) -> Iterator[str]:
    name = show_service_name(avps) if wanted.where == "MSCC" else "outside any service"
    if wanted.where == "MSCC":
        names = (_first(avps, _RATING_GROUP), tuple(_integer(one) for one in avps if one.code == _SERVICE_IDENTIFIER))
        if names != (wanted.rating_group, wanted.service_identifiers):
            yield f"{name} instead of RG {wanted.rating_group} SI {wanted.service_identifiers}"
    code = granted = switch = None
    final = False
    named: list[WrittenAvp] = []
    for item in wanted.items:
        verb, _, rest = item.partition(" ")
        if re.fullmatch(r"\d{4}", item):
            code = int(item)
        elif verb == "granted":
            amount, _, at = rest.partition(" switching at ")
            granted = units(amount)
            switch = int(at) if at else None
        elif verb == "valid":
            validity = _first(avps, _VALIDITY)
            if validity != duration_s(rest):
                yield f"{name}: Validity-Time {validity} instead of {rest}"
        elif item == "final units":
            final = True
        else:
            named.append(written_avp(rest if verb == "no" else item))
            yield from _member_complaints(avps, named[-1], item, name)
    if _first(avps, _RESULT_CODE) != code:
        yield f"{name}: Result-Code {_first(avps, _RESULT_CODE)} instead of {code}"
    given = [read_units(one) for one in avps if one.code == _GRANTED]
    if given != ([] if granted is None else [granted]):
        shown = " and ".join(show_units(each) for each in given) or "nothing"
        yield f"{name}: granted {shown} instead of {'nothing' if granted is None else show_units(granted)}"
    switches = [tariff_time_change(one) for one in avps if one.code == _GRANTED]
    if switches and switches != [switch]:
        yield f"{name}: Tariff-Time-Change {switches} instead of {switch}"
    if any(one.code == _FINAL for one in named):
        return
    action = [[_integer(member) for member in members_of(one)] for one in avps if one.code == _FINAL]
    if action != ([[0]] if final else []):
        yield f"{name}: {'no ' if final else ''}final units TERMINATE expected, Final-Unit-Indication is {action}"


def _member_complaints(avps: list[Avp], wanted: WrittenAvp, item: str, name: str) -> Iterator[str]:
    """``Name=value``, ``Name{members}``, ``Name`` or ``no Name`` within a service; flags do not count here."""
    same = [one for one in avps if wanted.is_same_kind(one)]
    if item.startswith("no "):
        if same:
            yield f"{name}: there is {', '.join(_show_avp(one) for one in same)}"
    elif not same:
        yield f"{name}: there is no {item}"
    elif wanted.encoded is not None and not any(equal_data(one.data, data_of(wanted)) for one in same):
        yield f"{name}: {item} is wanted, but there is {', '.join(_show_avp(one) for one in same)}"


def _integer(one: Avp) -> int:
    return int.from_bytes(one.data, "big")


def _first(avps: list[Avp], code: int) -> int | None:
    return next((_integer(one) for one in avps if one.code == code and not one.vendor), None)


# -- showing -----------------------------------------------------------------------------------------------------------


def describe(message: Message) -> str:
    """A message in the words of an answer cell."""
    result = message.find(_RESULT_CODE)
    parts = [_name(message) if result is None else f"{_name(message)} {_integer(result)}"]
    if message.is_error:
        parts.append("E bit")
    for group in message.find_all(_MSCC):
        members = members_of(group)
        parts.append(f"{show_service_name(members)}: {', '.join(_show_items(members))}")
    outside = list(_show_items([one for one in message.avps if one.code != _RESULT_CODE]))
    if outside:
        parts.append(f"units: {', '.join(outside)}")
    failed = message.find(_FAILED_AVP)
    if failed is not None:
        parts.append(f"Failed-AVP {', '.join(_show_avp(one) for one in members_of(failed))}")
    text = message.find(281)
    if text is not None:
        parts.append(f'Error-Message="{text.data.decode("utf-8", "replace")}"')
    return "; ".join(parts)


def _name(message: Message) -> str:
    names = COMMANDS.get(message.command)
    if names is None:
        return f"{'request' if message.is_request else 'answer'} of command {message.command}"
    return names[0 if message.is_request else 1]


def show_service_name(avps: list[Avp]) -> str:
    """``RG 10 SI 1`` of the members of an MSCC, ``MSCC`` if it has neither."""
    group = _first(avps, _RATING_GROUP)
    identifiers = [str(_integer(one)) for one in avps if one.code == _SERVICE_IDENTIFIER]
    parts = ([] if group is None else [f"RG {group}"]) + (["SI", *identifiers] if identifiers else [])
    return " ".join(parts) or "MSCC"


def _show_items(avps: list[Avp]) -> Iterator[str]:
    code = _first(avps, _RESULT_CODE)
    if code is not None:
        yield str(code)
    for one in avps:
        if one.code == _GRANTED:
            switch = tariff_time_change(one)
            yield f"granted {show_units(read_units(one))}" + (f" switching at {switch}" if switch else "")
    validity = _first(avps, _VALIDITY)
    if validity is not None:
        yield f"valid {validity} s"
    for one in avps:
        if one.code == _FINAL and one.data == _TERMINATE:
            yield "final units"
        elif one.code not in _SHOWN_OTHERWISE and (one.vendor or one.code in _SHOWN_IN_SERVICES):
            yield show_tree(one)


def show_tree(one: Avp) -> str:
    """``Name=value`` or ``Name{members}``."""
    value = one.value()
    if isinstance(value, list):
        return f"{one.name}{{{', '.join(show_tree(member) for member in value)}}}"
    return f"{one.name}={'0x' + value.hex() if isinstance(value, bytes) else value}"


def _show_avp(one: Avp) -> str:
    return f"{one.name}[{one.flags:#04x}]=0x{one.data.hex()}"
