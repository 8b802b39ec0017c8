"""Charging data records: what a session or event used, what it cost, and why (TS 32.298 calls them CDRs).

A record is made by the operation that debits what it tells of, and committed with it in the journal, so that a record
exists exactly when the money moved. A session has one for each service when it closes; a session that goes on for long,
or whose price changes, has partial records before, of which each tells what came since the last. Added up, the records
of a service are all that it used and was debited. ``occ.outbox`` writes them to files; ``docs/cdr.md`` explains every
field.
"""

from typing import Any, Final

import msgpack

from balance import answers
from balance.ledger import Draft, close_period, mark_period
from balance.model import Period, ServiceUse, Session, Unit
from occ.rating.currency import currency_name
from protocols.credit_control import CreditControlRequest
from protocols.diameter.codes import ReportingReason

NORMAL: Final = "normal"
EXPIRED: Final = "incomplete"
"""Supervision ended the session (row 23): what was not reported is not charged."""
LATE: Final = "late-termination"
EVENT: Final = "event"
REFUND: Final = "refund"
CLIENT_RESTARTED: Final = "client-restarted"
TIME_LIMIT: Final = "time-limit"
"""The session goes on; the time of a partial record has come (TS 32.298 calls it so, too)."""
PRICE_CHANGE: Final = "price-change"
"""The session goes on, at another price."""
SIZE_LIMIT: Final = "size-limit"
"""The session goes on; its next record would name too many buckets."""

BUCKETS_A_RECORD: Final = 32

_OTHER_REASON: Final = 31
_REASONS: Final = {int(reason): reason.name.lower().replace("_", "-") for reason in ReportingReason}

_pack = msgpack.Packer(autoreset=True).pack


def reason_bit(reporting_reason: int) -> int:
    """What a Reporting-Reason is in ``ServiceUse.reasons``; values that TS 32.299 does not have share one bit."""
    return 1 << reporting_reason if reporting_reason < _OTHER_REASON else 1 << _OTHER_REASON


def facts(request: CreditControlRequest, member_of: bytes = b"") -> bytes:
    """What the records will say of the first request, packed, to be kept with the session.

    ``member_of``: the account that the subscriber belongs to, where another one pays.
    """
    told = {
        "service_context_id": request.service_context_id,
        "member_of": member_of or None,
        "calling_party": request.calling_party,
        "called_party": request.called_party,
        "called_station_id": request.called_station_id,
        "sgsn_mcc_mnc": request.sgsn_mcc_mnc,
        "rat_type": request.rat_type,
        "user_location": request.user_location,
        "sip_method": request.sip_method,
        "role_of_node": request.role_of_node,
        "number_portability": request.number_portability,
        "user_name": request.user_name,
        "correlation_id": request.correlation_id,
    }
    packed: bytes = _pack({name: value for name, value in told.items() if value is not None})
    return packed


# -- making records ----------------------------------------------------------------------------------------------


def closing_records(draft: Draft, session: Session, cause: str) -> tuple[bytes, ...]:
    """The packed records of a session that closes, or of an event: one for each service it used.

    ``session`` must be one that may be changed. One that used no service (none asked for, or none granted and none
    reported) leaves none.
    """
    return _records(draft, session, session.services, draft.now_ms, _head(draft, session, cause, True))


def partial_records(draft: Draft, session: Session, every_ms: int, at_ms: int) -> tuple[bytes, ...]:
    """The packed records of what an open session used since its last ones, if they are due; else none.

    They are after ``every_ms`` (0: never), and when a price has changed. ``at_ms``: when the last of what they tell
    of happened. ``session`` must be one that may be changed.
    """
    if not every_ms:
        return ()
    cause = ""
    for use in session.services:
        if use.periods:
            cause = PRICE_CHANGE
        elif len(use.taken) > BUCKETS_A_RECORD:
            cause = cause or SIZE_LIMIT
    if not cause:
        if draft.now_ms - (session.recorded_ms or session.started_ms) < every_ms:
            return ()
        cause = TIME_LIMIT
    used = [use for use in session.services if _has_more(use)]
    return _records(draft, session, used, at_ms, _head(draft, session, cause, False))


def late_records(draft: Draft, session: Session) -> tuple[bytes, ...]:
    """The packed records of what a session that had ended was charged since: the sum stays right."""
    used = [use for use in session.services if _has_more(use)]
    return _records(draft, session, used, draft.now_ms, _head(draft, session, LATE, True))


def refund_records(draft: Draft, debited: Session, request: CreditControlRequest) -> tuple[bytes, ...]:
    """The packed records of what a refund gave back: amounts below zero, so that the sum stays right.

    ``debited``: the session of the debit, from which it was taken off.
    """
    number = request.request_number
    client = (request.origin_host, request.origin_realm, 1, number, number, facts(request))
    used = [use for use in debited.services if _has_more(use)]
    return _records(draft, debited, used, draft.now_ms, _head(draft, debited, REFUND, True, client))


def unrecorded_micro(use: ServiceUse) -> int:
    """Micro-units that a service of an open session was debited and that no record tells of yet."""
    noted = sum(period.cost_micro - period.leaked_micro for period in map(Period._make, use.periods))
    return noted + use.debited_micro - (use.since[3] - use.since[4] if use.since else 0)


def _has_more(use: ServiceUse) -> bool:
    """Whether there is anything that no record tells of yet."""
    if use.periods or use.disbelieved:
        return True
    if use.since:
        return (use.used, use.cost_micro, use.leaked_micro) != (use.since[1], use.since[3], use.since[4])
    return bool(use.used or use.cost_micro or use.leaked_micro)


def _head(
    draft: Draft,
    session: Session,
    cause: str,
    final: bool,
    client: tuple[bytes, bytes, int, int, int, bytes] | None = None,
) -> bytes:
    """What is the same in all records of a session that are made at once, packed.

    ``client``: Origin-Host, Origin-Realm, number of requests, CC-Request-Number of the first and last, facts; None:
    those of the session.
    """
    if client is None:
        last = answers.newest_key(session.answers) & 0xFFFFFFFF
        numbers = session.requests, session.first_number, last
        client = (session.origin_host, session.realm, *numbers, session.facts)
    account = draft.account
    packed: bytes = _pack(
        (
            cause,
            final,
            session.session_id,
            session.subscriber_id,
            account.account_id,
            draft.before.version + 1,
            account.currency,
            session.plan,
            session.started_ms,
            session.recorded_ms or session.started_ms,
            draft.now_ms,
            client,
        )
    )
    return packed


def _records(draft: Draft, session: Session, services: list[ServiceUse], at_ms: int, head: bytes) -> tuple[bytes, ...]:
    """Pack a record of each of ``services`` and have the next ones begin here."""
    found: list[bytes] = []
    for each in list(services):
        use = draft.service(session, each.rating_group, each.service_identifier)
        assert use is not None
        close_period(use, at_ms)
        mark_period(use, at_ms, records=1)
        found.append(
            _pack(
                (
                    head,
                    len(found) + 1,
                    use.since[5],
                    use.name,
                    use.rating_group,
                    use.service_identifier,
                    use.zone,
                    use.unit,
                    use.disbelieved,
                    use.step_units,
                    use.step_price_micro,
                    use.terms,
                    use.version,
                    use.periods,
                    [_taken(draft, bucket_id, amount) for bucket_id, amount in use.taken.items()],
                    use.reasons,
                )
            )
        )
        use.periods = ()
        use.taken = {}
        use.disbelieved = use.reasons = 0
    if found:
        session.recorded_ms = draft.now_ms
        session.requests = 0
    return tuple(found)


def _taken(draft: Draft, bucket_id: int, amount: int) -> tuple[int, str, int, int]:
    bucket = draft.account.bucket(bucket_id)
    return (bucket_id, "", -1, amount) if bucket is None else (bucket_id, bucket.name, bucket.unit, amount)


# -- reading them ------------------------------------------------------------------------------------------------

_FACTS: Final = (
    "service_context_id", "member_of", "calling_party", "called_party", "called_station_id", "sgsn_mcc_mnc", "rat_type",
    "user_location", "sip_method", "role_of_node", "number_portability", "user_name", "correlation_id",
)  # fmt: skip


def as_json_fields(record: bytes) -> dict[str, Any]:
    """One packed record as a dictionary of JSON values: every field of ``docs/cdr.md``, None where it is not told."""
    head, position, sequence, *service = msgpack.unpackb(record, raw=False, use_list=False)
    cause, final, session_key, subscriber_id, account_id, account_version, currency, plan, *times, client = (
        msgpack.unpackb(head, raw=False, use_list=False)
    )
    started_ms, since_ms, closed_ms = times
    origin_host, origin_realm, requests, first, last, packed_facts = client
    session_id, sub_session_id = _session_and_sub_session(session_key)
    told: dict[str, Any] = msgpack.unpackb(packed_facts, raw=False) if packed_facts else {}
    for name in ("rat_type", "user_location"):
        if name in told:
            told[name] = told[name].hex()
    fields: dict[str, Any] = {
        "record_id": b"%d-%d-%d-%b" % (closed_ms, account_version, position, account_id),
        "sequence": sequence,
        "partial": sequence > 1 or not final,
        "final": final,
        "cause": cause,
        "session_id": session_id,
        "sub_session_id": sub_session_id,
        "subscriber_id": subscriber_id,
        "account_id": account_id,
        "account_version": account_version,
        "plan": plan,
        **_service_fields(service, started_ms),
        "currency": currency_name(currency),
        "requests": requests,
        "first_request": first,
        "last_request": last,
        "started_ms": started_ms,
        "since_ms": since_ms,
        "closed_ms": closed_ms,
        "duration_ms": closed_ms - since_ms,
        "origin_host": origin_host,
        "origin_realm": origin_realm,
        **{name: told.get(name) for name in _FACTS},
    }
    return {
        name: value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
        for name, value in fields.items()
    }


def _session_and_sub_session(key: bytes) -> tuple[bytes, int | None]:
    """Session-Id and CC-Sub-Session-Id of the key a session is kept under."""
    session_id, separator, sub_session = key.rpartition(b"\0")
    return (session_id, int(sub_session)) if separator and sub_session.isdigit() else (key, None)


def _service_fields(service: list[Any], started_ms: int) -> dict[str, Any]:
    name, rating_group, service_identifier, zone, unit, disbelieved, *price, packed_periods, buckets, reasons = service
    step_units, step_price_micro, terms, version = price
    periods = [Period._make(each) for each in packed_periods]
    used = sum(period.units for period in periods)
    paid = sum(period.counted_to - period.counted_from for period in periods)
    cost = sum(period.cost_micro for period in periods)
    leaked = sum(period.leaked_micro for period in periods)
    return {
        "catalogue": version,
        "service": name,
        "rating_group": rating_group if rating_group >= 0 else None,
        "service_identifier": service_identifier if service_identifier >= 0 else None,
        "zone": zone or None,
        "unit": Unit(unit).name.lower(),
        "used": used,
        "disbelieved": disbelieved,
        "reported": used + disbelieved,
        "paid_units": paid,
        "allowance_units": used - paid,
        "cost_micro": cost,
        "debited_micro": cost - leaked,
        "leaked_micro": leaked,
        "step_units": step_units,
        "step_price_micro": step_price_micro,
        "price_terms": list(terms),
        "periods": [_period_fields(period, started_ms) for period in periods],
        "buckets": [
            {
                "bucket_id": bucket_id,
                "name": bucket_name or None,
                "unit": Unit(bucket_unit).name.lower() if bucket_unit >= 0 else None,
                "amount": amount,
            }
            for bucket_id, bucket_name, bucket_unit, amount in buckets
        ],
        "promotions": [],
        "reporting_reasons": [_REASONS.get(bit, "other") for bit in range(reasons.bit_length()) if reasons >> bit & 1],
    }


def _period_fields(period: Period, started_ms: int) -> dict[str, Any]:
    return {
        "from_ms": period.from_ms or started_ms,
        "until_ms": period.until_ms,
        "units": period.units,
        "counted_from": period.counted_from,
        "counted_to": period.counted_to,
        "cost_micro": period.cost_micro,
        "leaked_micro": period.leaked_micro,
        "step_units": period.step_units,
        "step_price_micro": period.step_price_micro,
        "terms": list(period.terms),
        "catalogue": period.version,
    }
