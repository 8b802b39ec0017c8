"""Decoded messages as plain data, for JSON Lines."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from occ.decode.faults import path_text
from occ.decode.names import application_name, result_name
from occ.decode.packets import Endpoint
from occ.decode.tree import Branch, DecodedMessage, Node, Relation

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def caught_text(time_ns: int) -> str:
    """'2026-01-31T12:00:00.123456Z' of nanoseconds since 1970."""
    try:
        return f"{_EPOCH + timedelta(microseconds=time_ns // 1000):%Y-%m-%dT%H:%M:%S.%fZ}"
    except OverflowError:
        return f"{time_ns} ns after 1970"


def message_document(message: DecodedMessage) -> dict[str, Any]:
    """One message: header, AVP tree, error and remarks. Fields that say nothing are left out."""
    found = message.found
    document: dict[str, Any] = {"message": message.number}
    if found.time_ns is not None:
        document["time"] = caught_text(found.time_ns)
    if found.flow is not None:
        document["packet"] = found.packet
        document["transport"] = found.flow.transport
        document["source"] = _endpoint(found.flow.source)
        document["destination"] = _endpoint(found.flow.destination)
    for name, count in (("lost", found.lost), ("skipped", found.skipped), ("missing", found.missing)):
        if count:
            document[f"octets_{name}"] = count
    document |= {
        "command": {"name": message.name, "code": message.command},
        "flags": message.flag_words,
        "application": {"name": application_name(message.application), "id": message.application},
        "hop_by_hop": message.hop_by_hop,
        "end_to_end": message.end_to_end,
        "version": message.version,
        "length": message.length,
        "avps": [_avp(node) for node in message.members],
    }
    _add_rest(document, message)
    for name, relation in (("answered_by", message.answer), ("answers", message.request)):
        if relation is not None:
            document[name] = _relation(relation)
    document["error"] = _error(message)
    document["remarks"] = [
        {"kind": one.kind.value, "text": one.text, "row": one.row or None, "clause": one.clause}
        for one in message.remarks
    ]
    return document


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {"address": endpoint.address, "port": endpoint.port}


def _avp(node: Node) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": node.name if node.definition is not None else None,
        "code": node.code,
        "vendor": node.vendor,
        "flags": node.flag_letters,
    }
    shown = node.shown()
    if node.is_group:
        document["members"] = [_avp(member) for member in node.members]
        _add_rest(document, node)
    else:
        document["value"] = node.plain()
    if shown and (node.is_group or shown != str(node.plain())):
        document["text"] = shown
    return document


def _add_rest(document: dict[str, Any], branch: Branch) -> None:
    if branch.rest:
        document["unreadable"] = branch.rest.hex()


def _relation(relation: Relation) -> dict[str, Any]:
    return {
        "message": relation.number,
        "microseconds": None if relation.delay_ns is None else relation.delay_ns // 1000,
    }


def _error(message: DecodedMessage) -> dict[str, Any] | None:
    error = message.error
    if error is None:
        return None
    return {
        "result_code": int(error.result_code),
        "name": result_name(error.result_code),
        "text": error.message,
        "failed_avp": path_text(error) or None,
        "failed_avp_octets": error.failed_avp.hex() if error.failed_avp is not None else None,
    }
