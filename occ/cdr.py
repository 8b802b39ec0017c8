"""Charging data records: one per closed session and service, or per event (TS 32.298 calls them CDRs).

A record is made by the operation that closes the session, and committed with it in the journal, so that a record
exists exactly when the money moved. ``occ.outbox`` writes the committed ones to files.
"""

from typing import Any, Final

import msgpack

from balance.model import ServiceUse, Session, Unit
from protocols.credit_control import CreditControlRequest

NORMAL: Final = "normal"
EXPIRED: Final = "incomplete"
"""Supervision ended the session (row 23): what was not reported is not charged."""
LATE: Final = "late-termination"
EVENT: Final = "event"
REFUND: Final = "refund"
CLIENT_RESTARTED: Final = "client-restarted"

_pack = msgpack.Packer(autoreset=True).pack


def facts(request: CreditControlRequest) -> bytes:
    """What the record will say of the first request, packed, to be kept with the session."""
    told = {
        "service_context_id": request.service_context_id,
        "called_station_id": request.called_station_id,
        "sgsn_mcc_mnc": request.sgsn_mcc_mnc,
        "calling_party": request.calling_party,
        "called_party": request.called_party,
    }
    packed: bytes = _pack({name: value for name, value in told.items() if value is not None})
    return packed


def closing_records(session: Session, now_ms: int, cause: str) -> tuple[bytes, ...]:
    """The packed records of a session that closes: one for each service it used.

    A session that used no service (none asked for, or none granted and none reported) leaves none.
    """
    return tuple(
        _record(session, use, (use.used, use.disbelieved, use.debited_micro, use.leaked_micro), now_ms, cause)
        for use in session.services
    )


def late_records(before: Session, session: Session, now_ms: int) -> tuple[bytes, ...]:
    """The packed records of what a session that had ended, ``before``, was charged since: the sum stays right."""
    recorded = {(use.rating_group, use.service_identifier): use for use in before.services}
    found = []
    for use in session.services:
        old = recorded.get((use.rating_group, use.service_identifier))
        amounts: tuple[int, ...] = (use.used, use.disbelieved, use.debited_micro, use.leaked_micro)
        if old is not None:
            before_it = (old.used, old.disbelieved, old.debited_micro, old.leaked_micro)
            amounts = tuple(now - then for now, then in zip(amounts, before_it, strict=True))
        if any(amounts):
            found.append(_record(session, use, amounts, now_ms, LATE))
    return tuple(found)


def refund_records(before: Session, after: Session, origin_host: bytes, now_ms: int) -> tuple[bytes, ...]:
    """The packed records of what a refund gave back: amounts below zero, so that the sum stays right."""
    after.origin_host = origin_host
    return tuple(
        _record(after, now, (now.used - then.used, 0, now.debited_micro - then.debited_micro, 0), now_ms, REFUND)
        for then, now in zip(before.services, after.services, strict=True)
        if now.used != then.used
    )


def _record(session: Session, use: ServiceUse, amounts: tuple[int, ...], now_ms: int, cause: str) -> bytes:
    """``amounts``: units used, units reported that were not believed, micro-units debited, micro-units leaked."""
    used, disbelieved, debited_micro, leaked_micro = amounts
    packed: bytes = _pack(
        {
            "session_id": session.session_id,
            "subscriber_id": session.subscriber_id,
            "origin_host": session.origin_host,
            "plan": session.plan,
            "service": use.name,
            "rating_group": use.rating_group if use.rating_group >= 0 else None,
            "service_identifier": use.service_identifier if use.service_identifier >= 0 else None,
            "unit": Unit(use.unit).name.lower(),
            "used": used,
            "disbelieved": disbelieved,
            "debited_micro": debited_micro,
            "leaked_micro": leaked_micro,
            "started_ms": session.started_ms,
            "closed_ms": now_ms,
            "cause": cause,
            "facts": session.facts,
        }
    )
    return packed


def as_json_fields(record: bytes) -> dict[str, Any]:
    """One packed record as a flat dictionary of JSON values."""
    fields: dict[str, Any] = msgpack.unpackb(record, raw=False)
    told = fields.pop("facts", b"")
    if told:
        fields.update(msgpack.unpackb(told, raw=False))
    return {
        name: value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
