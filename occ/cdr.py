"""Charging data records: what a session or event used, what it cost, and why (TS 32.298 calls them CDRs).

A record is made by the operation that debits what it tells of, and committed with it in the journal, so that a record
exists exactly when the money moved. A session has one for each service when it closes; a session that goes on for long,
or whose price changes, has partial records before, of which each tells what came since the last. Added up, the records
of a service are all that it used and was debited. ``occ.outbox`` writes them to files; ``docs/cdr.md`` explains every
field.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgpack

from balance import answers
from balance.accounts import Account, Notes, Period, ServiceUse, Session
from balance.ledger import Draft
from balance.model import MAIN_BUCKET, Unit
from balance.packing import pack
from balance.periods import begin_record, running_period
from occ.cdr_fields import FIELDS
from occ.rating.currency import currency_name
from occ.rating.explain import in_words, tiers_in_words
from occ.rating.price import price_of
from protocols.credit_control import CreditControlRequest
from protocols.diameter.codes import ReportingReason

NORMAL: Final = "normal"
EXPIRED: Final = "incomplete"
"""Supervision ended the session (row 23): what was not reported is not charged."""
LATE: Final = "late-termination"
EVENT: Final = "event"
REFUND: Final = "refund"
RECURRING: Final = "recurring"
"""A fee that fell due by the clock."""
LOYALTY: Final = "loyalty"
"""A bonus for staying was given."""
CLIENT_RESTARTED: Final = "client-restarted"
TIME_LIMIT: Final = "time-limit"
"""The session goes on; the time of a partial record has come (TS 32.298 calls it so, too)."""
PRICE_CHANGE: Final = "price-change"
"""The session goes on, at another price."""
UNCHARGED: Final = "uncharged"
"""Answered while the store could not be reached, and afterwards nobody could be debited for it."""
OPEN: Final = "open"
"""In no record: what an open session has come to."""

_OTHER_REASON: Final = 31
_REASONS: Final = {int(reason): reason.name.lower().replace("_", "-") for reason in ReportingReason}

_FACTS: Final = 16
_UNITS: Final = {int(unit): unit.name.lower() for unit in Unit}
_MONEY: Final = int(Unit.MONEY)
_MONEY_NAME: Final = _UNITS[_MONEY]


def reason_bit(reporting_reason: int) -> int:
    """What a Reporting-Reason is in ``ServiceUse.reasons``; values that TS 32.299 does not have share one bit."""
    return 1 << reporting_reason if reporting_reason < _OTHER_REASON else 1 << _OTHER_REASON


def facts(request: CreditControlRequest, member_of: bytes = b"") -> bytes:
    """What the records will say of the first request, packed, to be kept with the session.

    ``member_of``: the account that the subscriber belongs to, where another one pays.
    """
    told: list[object] = [
        request.service_context_id,
        member_of or None,
        request.calling_party,
        request.called_party,
        request.called_station_id,
        request.sgsn_mcc_mnc,
        request.rat_type,
        request.user_location,
        request.sip_method,
        request.role_of_node,
        request.number_portability,
        request.user_name,
        request.correlation_id,
        request.access_network,
        request.visited_network,
        request.recipients or None,
    ]
    while told[-1] is None:  # the Service-Context-Id never is
        told.pop()
    return pack(told)


# -- making records ----------------------------------------------------------------------------------------------


def closing_records(draft: Draft, session: Session, cause: str, last: int = -1) -> tuple[bytes, ...]:
    """The packed records of a session that closes, or of an event: one for each service it used.

    ``session`` must be one that may be changed. One that used no service (none asked for, or none granted and none
    reported) leaves none. ``last``: CC-Request-Number of its last request; -1: of the last one it was answered.
    """
    return _records(draft, session, session.services, cause, last=last)


def partial_records(draft: Draft, session: Session, every_ms: int, at_ms: int) -> tuple[bytes, ...]:
    """The packed records of what an open session used since its last ones, if they are due; else none.

    They are after ``every_ms`` (0: never), and when a price has changed. ``at_ms``: when the last of what they tell
    of happened. ``session`` must be one that may be changed.
    """
    if not every_ms:
        return ()
    cause = ""
    for use in session.services:
        if use.notes is not None and use.notes.periods:
            cause = PRICE_CHANGE
    if not cause:
        if draft.now_ms - (session.recorded_ms or session.started_ms) < every_ms:
            return ()
        cause = TIME_LIMIT
    return _records(draft, session, [use for use in session.services if _has_more(use)], cause, at_ms)


def late_records(draft: Draft, session: Session) -> tuple[bytes, ...]:
    """The packed records of what a session that had ended was charged since: the sum stays right."""
    return _records(draft, session, [use for use in session.services if _has_more(use)], LATE)


def refund_records(draft: Draft, debited: Session, request: CreditControlRequest) -> tuple[bytes, ...]:
    """The packed records of what a refund gave back: amounts below zero, so that the sum stays right.

    ``debited``: the session of the debit, from which it was taken off.
    """
    number = request.request_number
    client = (request.origin_host, request.origin_realm, 1, number, number, facts(request))
    return _records(draft, debited, [use for use in debited.services if _has_more(use)], REFUND, client=client)


def fee_records(
    draft: Draft, fees: Iterable[tuple[str, bytes, int, int, tuple[int, ...]]], version: str
) -> tuple[bytes, ...]:
    """The packed records of fees that fell due, and of those of which a part was given back.

    Of each: offer, subscriber or empty, micro-units (below zero: given back), beginning of its period (ms), what was
    taken (as in ``ServiceUse.taken``). ``version``: of the catalogue.
    """
    records: tuple[bytes, ...] = ()
    for offer, owner, amount_micro, from_ms, taken in fees:
        count = 1 if amount_micro >= 0 else -1
        use = ServiceUse(-1, -1, offer, int(Unit.EVENTS), used=count, paid_units=count, priced_micro=amount_micro)
        use.step_price_micro = abs(amount_micro)
        use.taken = taken
        cause = RECURRING if count > 0 else REFUND
        records += _record_without_request(draft, owner, use, from_ms, cause, version, len(records) + 1)
    return records


def gift_records(
    draft: Draft, gifts: Iterable[tuple[str, bytes, int, int, int, int]], version: str, position: int = 1
) -> tuple[bytes, ...]:
    """The packed records of bonuses for staying, with amounts below zero: they came into the account.

    Of each: promotion, subscriber, the day it is for (ms), number and unit of the bucket, amount. ``version``: of the
    catalogue. ``position``: of the first record among all those that the operation makes.
    """
    records: tuple[bytes, ...] = ()
    for promotion, owner, due_ms, bucket_id, unit, amount in gifts:
        if unit == Unit.MONEY:
            use = ServiceUse(-1, -1, promotion, int(Unit.EVENTS), used=-1, paid_units=-1, priced_micro=-amount)
            use.step_price_micro = amount
        else:
            use = ServiceUse(-1, -1, promotion, unit, used=-amount)
        use.taken = (bucket_id << 3 | unit, -amount)
        use.notes = Notes(promotions=(promotion,))
        at = position + len(records)
        records += _record_without_request(draft, owner, use, due_ms, LOYALTY, version, at)
    return records


def records_so_far(account: Account, session: Session, now_ms: int) -> list[dict[str, Any]]:
    """What the records of an open session would say if it ended now, as ``as_json_fields``; nothing is changed."""
    made = closing_records(Draft(account, now_ms), session.copy(), NORMAL)
    return [as_json_fields(record) | {"record_id": None, "final": False, "cause": OPEN} for record in made]


def _record_without_request(
    draft: Draft, owner: bytes, use: ServiceUse, from_ms: int, cause: str, version: str, position: int
) -> tuple[bytes, ...]:
    """The record of what the clock did; its session is one that nobody has opened."""
    name = b"%b;%b;%b;%d" % (draft.account.account_id, owner, use.name.encode(), from_ms)
    session = Session(name, owner, "", b"", 0, from_ms, draft.now_ms, catalogue=version)
    session.services.append(use)
    return _records(draft, session, [use], cause, position=position)


def unrecorded_micro(use: ServiceUse) -> int:
    """Micro-units that a service of an open session was debited and that no record tells of yet."""
    return sum(period.cost_micro - period.leaked_micro for period in _periods(use, 0))


def _has_more(use: ServiceUse) -> bool:
    """Whether there is anything that no record tells of yet."""
    return bool(use.disbelieved) or any(each.units or each.cost_micro or each.leaked_micro for each in _periods(use, 0))


def _periods(use: ServiceUse, at_ms: int) -> list[Period]:
    """The periods that no record tells of yet, the running one as if it ended at ``at_ms``."""
    running = Period(*running_period(use, at_ms))
    return [*(Period(*each) for each in use.notes.periods), running] if use.notes is not None else [running]


def _records(
    draft: Draft,
    session: Session,
    services: list[ServiceUse],
    cause: str,
    at_ms: int = 0,
    client: tuple[bytes, bytes, int, int, int, bytes] | None = None,
    position: int = 1,
    last: int = -1,
) -> tuple[bytes, ...]:
    """Pack a record of each of ``services`` and have the next ones begin here.

    ``at_ms``: where the last period ends, if the session goes on. ``client``: Origin-Host, Origin-Realm, number of
    requests, CC-Request-Number of the first and last, facts; None: those of the session. ``position``: of the first
    record among all those that the operation makes.
    """
    if not services:
        return ()
    account, now_ms = draft.account, draft.now_ms
    if client is None:
        if last < 0:
            last = answers.newest_key(session.answers) & 0xFFFFFFFF
        numbers = session.requests, session.first_number, last
        client = (session.origin_host, session.realm, *numbers, session.facts)
    head = pack(
        (
            cause,
            not at_ms,
            session.session_id,
            session.subscriber_id,
            account.account_id,
            draft.before.version + 1,
            account.currency,
            session.plan,
            session.catalogue,
            session.started_ms,
            session.recorded_ms or session.started_ms,
            now_ms,
            client,
        )
    )
    until_ms = at_ms or now_ms
    found: list[bytes] = []
    for use in services:
        notes = use.notes
        found.append(
            pack(
                (
                    head,
                    position + len(found),
                    1 if notes is None else notes.records + 1,
                    use.name,
                    use.rating_group,
                    use.service_identifier,
                    use.zone,
                    use.unit,
                    use.disbelieved,
                    () if notes is None else notes.periods,
                    running_period(use, until_ms),
                    use.taken,
                    [_bucket_name(draft, which >> 3) for which in use.taken[::2]] if use.taken else (),
                    use.reasons,
                    () if notes is None else notes.policies,
                )
            )
        )
    if cause != NORMAL:  # else nothing is kept of its services
        for use in list(services):
            own = draft.service(session, use.rating_group, use.service_identifier)
            assert own is not None
            begin_record(own, until_ms)
    session.recorded_ms = now_ms
    session.requests = 0
    return tuple(found)


def _bucket_name(draft: Draft, bucket_id: int) -> str:
    bucket = draft.account.bucket(bucket_id)
    return "" if bucket is None else bucket.name


# -- reading them ------------------------------------------------------------------------------------------------


def as_json_fields(record: bytes, entry: str | None = None) -> dict[str, Any]:
    """One packed record as JSON values: every field of ``occ.cdr_fields``, in that order; None where it is not told.

    ``entry``: where in the outbox it stood; None: it was in none, and has no such field.
    """
    head, position, sequence, *service = _unpack(record)
    fields = _of_head(head).copy()
    if entry is None:
        del fields["entry"]
    else:
        fields["entry"] = entry
    fields["record_id"] = f"{fields['closed_ms']}-{fields['account_version']}-{position}-{fields['account_id']}"
    fields["sequence"] = sequence
    if sequence > 1:
        fields["partial"] = True
    _add_service(fields, service)
    fields["reporting_reasons"] = _reasons(service[10])
    fields["policies"] = service[11]
    return fields


@lru_cache(maxsize=1)
def _of_head(head: bytes) -> dict[str, Any]:
    """All fields in their order, with what the records that one operation made have in common; else None.

    Not to be changed, as the next record of the same operation gets the same.
    """
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    cause, final, key, subscriber_id, account_id, account_version, currency, plan, catalogue, *times, client = _unpack(
        head
    )
    started_ms, since_ms, closed_ms = times
    origin_host, origin_realm, requests, first, last, packed_facts = client
    session_id, sub_session_id = _session_and_sub_session(key)
    fields["partial"] = not final
    fields["final"] = final
    fields["cause"] = cause
    fields["session_id"] = _text(session_id)
    fields["sub_session_id"] = sub_session_id
    fields["subscriber_id"] = _text(subscriber_id)
    fields["account_id"] = _text(account_id)
    fields["account_version"] = account_version
    fields["plan"] = plan or None
    fields["catalogue"] = catalogue
    fields["currency"] = currency_name(currency)
    fields["requests"] = requests
    fields["first_request"] = first if requests else None
    fields["last_request"] = last if requests else None
    fields["started_ms"] = started_ms
    fields["since_ms"] = since_ms
    fields["closed_ms"] = closed_ms
    fields["duration_ms"] = closed_ms - since_ms
    fields["origin_host"] = _text(origin_host)
    fields["origin_realm"] = _text(origin_realm)
    _add_facts(fields, _unpack(packed_facts) if packed_facts else ())
    return fields


def _unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed, raw=False, use_list=False)


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", "backslashreplace") if value else None


def _add_facts(fields: dict[str, Any], told: tuple[Any, ...]) -> None:
    """What ``facts`` has packed."""
    told += (None,) * (_FACTS - len(told))  # records of earlier versions have fewer
    context, member_of, calling, called, station, network, rat_type, location, method, role, *others = told
    portability, user, correlation, access_network, visited_network, recipients = others
    fields["member_of"] = _text(member_of)
    fields["service_context_id"] = _text(context)
    fields["calling_party"] = _text(calling)
    fields["called_party"] = _text(called)
    fields["called_station_id"] = _text(station)
    fields["sgsn_mcc_mnc"] = _text(network)
    fields["rat_type"] = None if rat_type is None else rat_type.hex()
    fields["user_location"] = None if location is None else location.hex()
    fields["sip_method"] = _text(method)
    fields["role_of_node"] = role
    fields["number_portability"] = _text(portability)
    fields["user_name"] = _text(user)
    fields["correlation_id"] = _text(correlation)
    fields["access_network"] = _text(access_network)
    fields["visited_network"] = _text(visited_network)
    fields["recipients"] = None if recipients is None else [_text(number) for number in recipients]


def _session_and_sub_session(key: bytes) -> tuple[bytes, int | None]:
    """Session-Id and CC-Sub-Session-Id of the key a session is kept under."""
    session_id, separator, sub_session = key.rpartition(b"\0")
    return (session_id, int(sub_session)) if separator and sub_session.isdigit() else (key, None)


def _add_service(fields: dict[str, Any], service: list[Any]) -> None:
    """What one service used and what it cost; ``fields`` has what its session has in common already."""
    name, rating_group, service_identifier, zone, unit, disbelieved, over, running, taken, names = service[:10]
    last = Period(*running)
    used, paid = last.units, last.counted_to - last.counted_from
    cost, leaked = last.cost_micro, last.leaked_micro
    periods = [last] if used or cost or leaked else []
    if over:
        before = [Period(*each) for each in over]
        for period in before:
            used += period.units
            paid += period.counted_to - period.counted_from
            cost += period.cost_micro
            leaked += period.leaked_micro
        periods = before + periods
    catalogue, started_ms = fields["catalogue"], fields["started_ms"]
    told = [_period_fields(period, unit, catalogue, started_ms) for period in periods]
    fields["catalogue"] = last.version or catalogue
    fields["service"] = name
    fields["rating_group"] = rating_group if rating_group >= 0 else None
    fields["service_identifier"] = service_identifier if service_identifier >= 0 else None
    fields["zone"] = zone or None
    fields["unit"] = _UNITS[unit]
    fields["used"] = used
    fields["disbelieved"] = disbelieved
    fields["reported"] = used + disbelieved
    fields["paid_units"] = paid
    fields["allowance_units"] = used - paid
    fields["cost_micro"] = cost
    fields["debited_micro"] = cost - leaked
    fields["leaked_micro"] = leaked
    fields["step_units"] = last.step_units
    fields["step_price_micro"] = last.step_price_micro
    fields["price_terms"] = last.terms
    fields["price"] = _price_in_words(unit, last.step_units, last.step_price_micro, last.terms)
    fields["periods"] = told
    fields["buckets"] = _buckets(taken, names, cost - leaked)
    fields["promotions"] = _each_once(told, "promotions")
    fields["band"] = last.band or None
    fields["tiers"] = _each_once(told, "tiers")


def _each_once(periods: list[dict[str, Any]], field: str) -> tuple[str, ...]:
    """The names in a field of several periods, each once, in the order they are first told."""
    if len(periods) == 1:
        names: tuple[str, ...] = periods[0][field]
        if len(names) < 2:
            return names
    return tuple(dict.fromkeys([name for period in periods for name in period[field]]))


def _reasons(bits: int) -> list[str]:
    return [_REASONS.get(bit, "other") for bit in range(bits.bit_length()) if bits >> bit & 1]


def _buckets(taken: tuple[int, ...], names: tuple[str, ...], debited_micro: int) -> list[dict[str, Any]]:
    """What was taken from which bucket: money that came from no other is from the main one."""
    found: list[dict[str, Any]] = []
    main = debited_micro
    for which, amount, name in zip(taken[::2], taken[1::2], names, strict=True):
        if which & 7 == _MONEY:
            main -= amount
        if amount:
            found.append({"bucket_id": which >> 3, "name": name or None, "unit": _UNITS[which & 7], "amount": amount})
    if main:
        found.append({"bucket_id": MAIN_BUCKET, "name": None, "unit": _MONEY_NAME, "amount": main})
    return found


@lru_cache(maxsize=4096)
def _price_in_words(unit: int, step_units: int, step_price_micro: int, terms: tuple[int, ...]) -> str | None:
    return in_words(price_of(unit, step_units, step_price_micro, terms)) if step_units else None


def _tiers(period: Period, unit: int) -> tuple[str, ...]:
    if not period.terms:  # a price of steps
        return ()
    rate = price_of(unit, period.step_units, period.step_price_micro, period.terms)
    return tiers_in_words(rate, period.counted_from, period.counted_to)


def _period_fields(period: Period, unit: int, catalogue: str, started_ms: int) -> dict[str, Any]:
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
        "terms": period.terms,
        "price": _price_in_words(unit, period.step_units, period.step_price_micro, period.terms),
        "catalogue": period.version or catalogue,
        "promotions": period.promotions,
        "band": period.band or None,
        "tiers": _tiers(period, unit),
    }
