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
        _record(session, use, use.used, use.debited_micro, use.leaked_micro, now_ms, cause) for use in session.services
    )


def late_records(before: Session, session: Session, now_ms: int) -> tuple[bytes, ...]:
    """The packed records of what a session that had ended, ``before``, was charged since: the sum stays right."""
    recorded = {(use.rating_group, use.service_identifier): use for use in before.services}
    found = []
    for use in session.services:
        old = recorded.get((use.rating_group, use.service_identifier))
        used, debited, leaked = use.used, use.debited_micro, use.leaked_micro
        if old is not None:
            used, debited, leaked = used - old.used, debited - old.debited_micro, leaked - old.leaked_micro
        if used or debited or leaked:
            found.append(_record(session, use, used, debited, leaked, now_ms, LATE))
    return tuple(found)


def _record(
    session: Session, use: ServiceUse, used: int, debited_micro: int, leaked_micro: int, now_ms: int, cause: str
) -> bytes:
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
