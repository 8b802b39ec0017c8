"""What TMF654 v4 asks of the documents that the API returns, as JSON Schemas: names, types, what must be there.

Attributes are closed: one that the specification does not have is a mistake.
"""

from decimal import Decimal
from typing import Any

import fastjsonschema

_TEXT = {"type": "string"}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}
_USAGE = {"enum": ["monetary", "voice", "data", "sms", "other"]}
_ALWAYS = dict.fromkeys(("id", "href", "@type", "@baseType", "@schemaLocation"), _TEXT)


def _object(required: str, **properties: Any) -> dict[str, Any]:
    known = _ALWAYS | properties
    return {"type": "object", "required": required.split(), "properties": known, "additionalProperties": False}


def _reference(*more: str, required: str = "id") -> dict[str, Any]:
    return _object(required, **dict.fromkeys(("name", "@referredType", *more), _TEXT))


_QUANTITY = _object("", amount={"type": "number"}, units=_TEXT)
_MONEY = _object("", value={"type": "number"}, unit=_TEXT)
_PERIOD = _object("", startDateTime=_TIME, endDateTime=_TIME)
_PARTY = _reference("role", required="id @referredType")
_ANY = {"type": "array", "items": _reference()}
_LINKED = {
    "logicalResource": _ANY,
    "product": _ANY,
    "relatedParty": {"type": "array", "items": _PARTY},
    "partyAccount": _reference("description", "status"),
    "validFor": _PERIOD,
    "usageType": _USAGE,
    "description": _TEXT,
    "confirmationDate": _TIME,
    "requestedDate": _TIME,
}
_ACT = _LINKED | {
    "reason": _TEXT,
    "amount": _QUANTITY,
    "bucket": _reference(),
    "channel": _reference(),
    "requestor": _PARTY,
    "status": {"enum": ["created", "failed", "cancelled", "completed"]},
}
_TOPUP = {
    "voucher": _TEXT,
    "isAutoTopup": {"type": "boolean"},
    "numberOfPeriods": {"type": "integer"},
    "paymentMethod": _reference(),
    "recurringPeriod": {"enum": ["weekly", "fortnightly", "monthly"]},
}
_TRANSFER = {
    "costOwner": {"enum": ["originator", "receiver"]},
    "receiver": _PARTY,
    "receiverBucket": _reference(),
    "receiverBucketUsageType": _USAGE,
    "receiverLogicalResource": _reference(),
    "receiverProduct": _reference(),
    "transferCost": _MONEY,
}
_ADJUST = {"adjustType": {"enum": ["recurring", "oneTime"]}}

RESOURCES = {
    "bucket": _object(
        "",
        **_LINKED,
        isShared={"type": "boolean"},
        name=_TEXT,
        remainingValueName=_TEXT,
        remainingValue=_QUANTITY,
        reservedValue=_QUANTITY,
        status={"enum": ["active", "suspended", "expired"]},
    ),
    "accumulatedBalance": _object(
        "bucket name totalBalance",
        description=_TEXT,
        name=_TEXT,
        bucket=_ANY,
        logicalResource=_ANY,
        partyAccount=_reference("description", "status"),
        product=_ANY,
        totalBalance=_QUANTITY,
    ),
    "topupBalance": _object("status", **_ACT, **_TOPUP),
    "adjustBalance": _object("status", **_ACT, **_ADJUST),
    "reserveBalance": _object("status", **_ACT),
    "transferBalance": _object(
        "href id reason receiverLogicalResource channel logicalResource status", **_ACT, **_TRANSFER
    ),
    "balanceActionHistory": _object("status receiverLogicalResource", **_ACT, **_TOPUP, **_ADJUST, **_TRANSFER),
    "hub": {
        "type": "object",
        "required": ["id", "callback"],
        "properties": {"id": _TEXT, "callback": _TEXT, "query": _TEXT},
        "additionalProperties": False,
    },
}
_EVENT = dict.fromkeys(("eventId", "eventType", "correlationId", "domain", "title", "description"), _TEXT) | {
    "eventTime": _TIME,
    "timeOcurred": _TIME,
    "priority": _TEXT,
}
_CHECKS = {name: fastjsonschema.compile(schema, use_default=False) for name, schema in RESOURCES.items()}


def check(resource: str, document: Any) -> Any:
    """The document, which is as TMF654 has it. Raises what fastjsonschema raises if not."""
    _CHECKS[resource](_with_floats(document))
    return document


def check_event(event: Any) -> Any:
    """A notification, with the resource in it."""
    assert set(event) <= {*_EVENT, "event"}
    ((resource, document),) = event["event"].items()
    assert event["eventType"].startswith(resource[0].upper() + resource[1:])
    return check(resource, document)


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_floats(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_floats(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value
