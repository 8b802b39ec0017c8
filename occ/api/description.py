"""What answers look like, for the description of the API (OpenAPI): TMF654's resources, and those of our own.

Facts of TM Forum's TMF654 v4 about what this server returns: attributes, their types, which are always there.
"""

from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_FLAG: Final[Schema] = {"type": "boolean"}
_PERIOD: Final[Schema] = {"type": "object", "properties": {"startDateTime": _TIME, "endDateTime": _TIME}}
_QUANTITY: Final[Schema] = {"type": "object", "properties": {"amount": {"type": "number"}, "units": _TEXT}}
_REFERENCE: Final[Schema] = {
    "type": "object",
    "required": ["id"],
    "properties": dict.fromkeys(("id", "href", "name", "role", "status", "@referredType"), _TEXT),
}
_REFERENCES: Final[Schema] = {"type": "array", "items": _REFERENCE}
_USAGE: Final[Schema] = {"enum": ["monetary", "voice", "data", "sms", "other"]}
_ACT_STATUS: Final[Schema] = {"enum": ["created", "failed", "cancelled", "completed"]}

_KNOWN: Final[Schema] = dict.fromkeys(("id", "href", "name", "description", "reason", "@type"), _TEXT)


def _resource(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": _KNOWN | properties}


_ACT: Final[Schema] = {
    "status": _ACT_STATUS,
    "requestedDate": _TIME,
    "confirmationDate": _TIME,
    "amount": _QUANTITY,
    "bucket": _REFERENCE,
    "usageType": _USAGE,
    "partyAccount": _REFERENCE,
    "logicalResource": _REFERENCES,
    "product": _REFERENCES,
    "channel": _REFERENCE,
    "requestor": _REFERENCE,
    "validFor": _PERIOD,
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Bucket": _resource(
        "id href",
        usageType=_USAGE,
        status={"enum": ["active", "suspended", "expired"]},
        isShared=_FLAG,
        remainingValue=_QUANTITY,
        remainingValueName=_TEXT,
        reservedValue=_QUANTITY,
        partyAccount=_REFERENCE,
        logicalResource=_REFERENCES,
        validFor=_PERIOD,
    ),
    "AccumulatedBalance": _resource(
        "id href",
        bucket=_REFERENCES,
        totalBalance=_QUANTITY,
        partyAccount=_REFERENCE,
        logicalResource=_REFERENCES,
    ),
    "BalanceActionHistory": _resource("id href", **_ACT, receiverLogicalResource=_REFERENCE),
    "TopupBalance": _resource("id href", **_ACT, voucher=_TEXT, paymentMethod=_REFERENCE),
    "AdjustBalance": _resource("id href", **_ACT, adjustType={"enum": ["recurring", "oneTime"]}),
    "TransferBalance": _resource(
        "id href",
        **_ACT,
        receiver=_REFERENCE,
        receiverBucket=_REFERENCE,
        receiverBucketUsageType=_USAGE,
        receiverLogicalResource=_REFERENCE,
        receiverProduct=_REFERENCE,
        costOwner={"enum": ["originator", "receiver"]},
    ),
    "ReserveBalance": _resource("id href", **_ACT),
    "EventSubscription": {
        "type": "object",
        "required": ["id", "callback"],
        "properties": {"id": _TEXT, "callback": _TEXT, "query": _TEXT},
    },
    "Error": {
        "type": "object",
        "required": ["code", "reason", "message", "status"],
        "properties": dict.fromkeys(("code", "reason", "message", "status", "@type"), _TEXT),
    },
}

_ANSWERS_OF_TMF: Final = {
    "bucket": "Bucket",
    "accumulatedBalance": "AccumulatedBalance",
    "balanceActionHistory": "BalanceActionHistory",
    "topupBalance": "TopupBalance",
    "adjustBalance": "AdjustBalance",
    "transferBalance": "TransferBalance",
    "reserveBalance": "ReserveBalance",
    "hub": "EventSubscription",
}
_LISTS: Final = frozenset(
    ("accounts", "subscribers", "services", "sessions", "ledger", "cdrs", "peers", "notices", "policy-events",
     "batches", "tokens", "audit", "history", *_ANSWERS_OF_TMF)
)  # fmt: skip
_LISTED_BY_POST: Final = frozenset(("reauthorise",))

_ERRORS: Final = {
    "400": "The request cannot be understood",
    "401": "No valid token",
    "403": "The role of the token does not allow this",
    "404": "There is no such resource",
    "409": "The request cannot be done as things are",
    "413": "The request is too large",
    "415": "The body must be JSON",
    "429": "Too many tries",
    "503": "The store, or the server, cannot be reached",
}


def completed(description: Schema, role_field: str) -> Schema:
    """The description that FastAPI makes, with what it cannot know: tokens, roles, answers, errors."""
    components = description.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    components.setdefault("schemas", {}).update(SCHEMAS)
    description["security"] = [{"token": []}]
    error = _json({"$ref": "#/components/schemas/Error"})
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            responses.pop("422", None)
            for status in responses:
                if status.startswith("2") and status != "204":
                    responses[status]["content"] = _json(_answer(path, method))
            for status, reason in _ERRORS.items():
                content = error
                if status == "409" and path.endswith("/reload"):
                    content = _json({"type": "object"})
                responses.setdefault(status, {"description": reason, "content": content})
            told = operation.get("description") or operation.get("summary", "")
            operation["description"] = f"{told}\n\nRole: {operation[role_field]}".strip()
    return description


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _answer(path: str, method: str) -> Schema:
    parts = path.split("/")
    last = parts[-1]
    name = _ANSWERS_OF_TMF.get(parts[4]) if parts[1] == "tmf-api" else None
    one: Schema = {"type": "object"} if name is None else {"$ref": f"#/components/schemas/{name}"}
    is_list = (method == "get" and last in _LISTS) or last in _LISTED_BY_POST
    return {"type": "array", "items": one} if is_list else one
