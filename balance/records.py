"""How accounts, sessions, outcomes and journal records are written down: msgpack, with the version in front.

An account's value in the store is its version as 8 octets, big-endian, then one msgpack array. The commit script
compares those 8 octets and never looks at the rest.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgpack

from balance.accounts import Account, Before, Notes, ServiceUse, Session
from balance.ledger import Draft, next_wake_ms
from balance.model import Bucket, Meter, Offer, Subscriber
from balance.packing import pack
from balance.plans import Grant, Outcome, Plan

VERSION_BYTES: Final = 8

_from_bytes: Final = int.from_bytes


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=False)


def pack_version(version: int) -> bytes:
    """The first octets of an account's value; empty for version 0, an account that does not exist yet."""
    return version.to_bytes(VERSION_BYTES, "big") if version else b""


def pack_account(account: Account) -> bytes:
    meters, offers = account.meters, account.offers
    fields: tuple[object, ...] = (
        account.kind,
        account.currency,
        account.credit_limit_micro,
        account.watch_ms,
        [_bucket_fields(bucket) for bucket in account.buckets],
        [_session_fields(session, account.account_id) for session in account.sessions.values()],
        account.state,
        account.expires_ms,
        [(meter.name, meter.resets_ms, meter.units, meter.micro) for meter in meters] if meters else (),
        [_offer_fields(offer) for offer in offers] if offers else (),
        account.out_of_service,
        account.levels,
    )
    packed = pack(fields if account.cycle_day == 1 else (*fields, account.cycle_day))
    return account.version.to_bytes(VERSION_BYTES, "big") + packed


def unpack_account(account_id: bytes, value: bytes) -> Account:
    """The snapshot in a stored value. Raises ValueError for a value that is not one."""
    try:
        fields: tuple[Any, ...] = _unpack(value[VERSION_BYTES:])
        account = Account(
            account_id,
            _from_bytes(value[:VERSION_BYTES]),
            fields[0],
            fields[1],
            fields[2],
            fields[3],
            [_bucket(each) for each in fields[4]],
            {each[0]: _session(each, account_id) for each in fields[5]},
        )
        known = len(fields)
        if known > 6:  # stores of the first release have neither states nor meters
            account.state, account.expires_ms, meters, offers, account.out_of_service = fields[6:11]
            if known > 11:  # the second release has no levels
                account.levels = fields[11]
            if known > 12:
                account.cycle_day = fields[12]
            if meters:
                account.meters = [_meter(each) for each in meters]
            if offers:
                account.offers = [Offer(*each) for each in offers]
        return account
    except (TypeError, ValueError, LookupError, msgpack.UnpackException) as error:
        raise ValueError(f"the stored value of account {account_id!r} is damaged: {error}") from error


# Constructors are called with their arguments one by one here, which costs the least.


def _bucket(fields: tuple[Any, ...]) -> Bucket:
    if len(fields) == 6:
        bucket_id, unit, balance, reserved, priority, expires_ms = fields
        return Bucket(bucket_id, unit, balance, reserved, priority, expires_ms)
    bucket_id, unit, balance, reserved, priority, expires_ms, name, owner = fields
    return Bucket(bucket_id, unit, balance, reserved, priority, expires_ms, name, owner)


def _meter(fields: tuple[Any, ...]) -> Meter:
    name, resets_ms, units, micro = fields
    return Meter(name, resets_ms, units, micro)


def _bucket_fields(bucket: Bucket) -> tuple[object, ...]:
    bucket_id, unit, balance, reserved = bucket.bucket_id, bucket.unit, bucket.balance, bucket.reserved
    name, owner = bucket.name, bucket.owner
    if name or owner:
        return bucket_id, unit, balance, reserved, bucket.priority, bucket.expires_ms, name, owner
    return bucket_id, unit, balance, reserved, bucket.priority, bucket.expires_ms


def _offer_fields(offer: Offer) -> tuple[object, ...]:
    fields = (offer.name, offer.since_ms, offer.next_ms, offer.owner, offer.unpaid_ms)
    rare = (offer.until_ms, offer.plan, offer.paid_micro, offer.buckets, offer.paid_from_ms, offer.given)
    return fields if rare == (0, "", 0, (), 0, ()) else fields + rare


def _session_fields(session: Session, account_id: bytes) -> tuple[object, ...]:
    """What is written of a session; what most sessions do not have is left out.

    Names that are part of other names are written as how long they are: a Session-Id begins with the Origin-Host of its
    client (RFC 6733 section 8.8), which most often ends with its realm and is the peer that it comes by. A subscriber
    is often called as the account that pays, ``account_id``. Raises TypeError if a name is none.
    """
    session_id, origin_host, realm, via = session.session_id, session.origin_host, session.realm, session.via
    try:
        own_host = len(origin_host) if session_id.startswith(origin_host) else origin_host
        own_realm = len(realm) if origin_host.endswith(realm) else realm
    except AttributeError as error:  # others have stored something else
        raise TypeError(f"the session {session_id!r} of {origin_host!r} has no names") from error
    fields = (
        session_id,
        None if session.subscriber_id == account_id else session.subscriber_id,
        session.plan,
        own_host,
        session.origin_state_id,
        session.started_ms,
        session.expires_ms,
        session.forgotten_number,
        int(session.state),
        session.facts,
        [_service_fields(use) for use in session.services],
        session.answers,
        session.answer_count,
        own_realm,
        None if via == origin_host else via,
        session.refused,
        session.customer,
        session.caps,
        session.catalogue,
        session.requests,
    )
    if session.first_number or session.recorded_ms:
        return (*fields, session.first_number, session.recorded_ms)
    return fields


def _service_fields(use: ServiceUse) -> tuple[object, ...]:
    """What is written of a service; what most services do not have is left out."""
    fields = (
        use.rating_group,
        use.service_identifier,
        use.name,
        use.unit,
        use.used,
        use.paid_units,
        use.priced_micro,
        use.leaked_micro,
        use.granted,
        use.parts,
        use.disbelieved,
        use.step_units,
        use.step_price_micro,
        use.taken,
        use.reasons,
    )
    if (
        use.zone
        or use.notes is not None
        or use.earlier_micro
        or use.ahead
        or use.pool
        or use.final
        or use.terms
        or use.meters
    ):
        rare = (use.earlier_micro, use.ahead, use.pool, use.final, use.terms)
        return (*fields, *rare, use.allowances, use.zone, use.meters, use.notes)
    return (*fields, use.allowances) if use.allowances else fields


def _grant_fields(grant: Grant) -> tuple[object, ...]:
    fields = (
        grant.rating_group,
        grant.service_identifiers,
        grant.result_code,
        grant.unit,
        grant.units,
        grant.validity_time_s,
        grant.final,
    )
    return (*fields, grant.switch_s, grant.avps) if grant.avps or grant.switch_s else fields


def _session(fields: tuple[Any, ...], account_id: bytes) -> Session:
    if len(fields) == 20:
        fields += (0, 0)
    (
        session_id,
        subscriber_id,
        plan,
        origin_host,
        origin_state_id,
        started_ms,
        expires_ms,
        forgotten_number,
        state,
        facts,
        services,
        answers,
        answer_count,
        realm,
        via,
        refused,
        customer,
        caps,
        catalogue,
        requests,
        first_number,
        recorded_ms,
    ) = fields
    if type(origin_host) is int:
        origin_host = session_id[:origin_host]
    if type(realm) is int:
        realm = origin_host[len(origin_host) - realm :]
    return Session(
        session_id,
        account_id if subscriber_id is None else subscriber_id,
        plan,
        origin_host,
        origin_state_id,
        started_ms,
        expires_ms,
        forgotten_number,
        state,
        facts,
        [_service(each) for each in services],
        answers,
        answer_count,
        realm,
        origin_host if via is None else via,
        refused,
        customer,
        caps,
        requests,
        first_number,
        recorded_ms,
        catalogue,
    )


def _service(fields: tuple[Any, ...]) -> ServiceUse:
    if len(fields) <= _COMMON + 1:
        return _common_service(fields)
    (
        rating_group,
        service_identifier,
        name,
        unit,
        used,
        paid_units,
        priced_micro,
        leaked_micro,
        granted,
        parts,
        disbelieved,
        step_units,
        step_price_micro,
        taken,
        reasons,
        earlier_micro,
        ahead,
        pool,
        final,
        terms,
        allowances,
        zone,
        meters,
        notes,
    ) = fields
    return ServiceUse(
        rating_group,
        service_identifier,
        name,
        unit,
        used,
        paid_units,
        priced_micro,
        leaked_micro,
        granted,
        list(parts),
        disbelieved,
        step_units,
        step_price_micro,
        taken,
        reasons,
        earlier_micro,
        ahead,
        pool,
        final,
        terms,
        allowances,
        zone,
        meters,
        None if notes is None else _notes(notes),
    )


_COMMON: Final = 15
"""Fields that every service has; behind them come its allowances alone, or all that is rare."""


def _common_service(fields: tuple[Any, ...]) -> ServiceUse:
    allowances: tuple[str, ...] = ()
    if len(fields) > _COMMON:
        allowances = fields[_COMMON]
        fields = fields[:_COMMON]
    (
        rating_group,
        service_identifier,
        name,
        unit,
        used,
        paid_units,
        priced_micro,
        leaked_micro,
        granted,
        parts,
        disbelieved,
        step_units,
        step_price_micro,
        taken,
        reasons,
    ) = fields
    use = ServiceUse(
        rating_group,
        service_identifier,
        name,
        unit,
        used,
        paid_units,
        priced_micro,
        leaked_micro,
        granted,
        list(parts),
        disbelieved,
        step_units,
        step_price_micro,
        taken,
        reasons,
    )
    use.allowances = allowances
    return use


_NOTES: Final = len(Notes._fields)
_tuple_of: Final[Any] = tuple.__new__


def _notes(fields: tuple[Any, ...]) -> Notes:
    if len(fields) == _NOTES:
        notes: Notes = _tuple_of(Notes, fields)  # what ``Notes._make`` does, which costs a call more
        return notes
    return Notes(*fields)  # stores of earlier releases know fewer


def pack_session(session: Session) -> bytes:
    return pack(_session_fields(session, b""))


def unpack_session(value: bytes) -> Session:
    return _session(_unpack(value), b"")


def pack_outcome(outcome: Outcome) -> bytes:
    fields: tuple[object, ...] = (
        outcome.result_code,
        [_grant_fields(grant) for grant in outcome.grants],
        outcome.command_level,
        outcome.failed_avp,
        outcome.cost_micro,
        outcome.check_balance_result,
    )
    return pack((*fields, outcome.avps, outcome.currency) if outcome.avps or outcome.currency else fields)


def unpack_outcome(value: bytes) -> Outcome:
    result_code, grants, *others = _unpack(value)
    return Outcome(result_code, [Grant(*fields) for fields in grants], *others)


def pack_subscriber(subscriber: Subscriber) -> bytes:
    return pack(
        (
            subscriber.subscriber_id,
            subscriber.account_id,
            subscriber.plan,
            subscriber.identities,
            subscriber.state,
            subscriber.cap_day_micro,
            subscriber.cap_month_micro,
            subscriber.activated_ms,
            subscriber.segment,
            subscriber.friends,
            subscriber.member_of,
            subscriber.next_plan,
            subscriber.next_plan_ms,
        )
    )


def unpack_subscriber(value: bytes) -> Subscriber:
    return Subscriber(*_unpack(value))


@dataclass(slots=True, frozen=True)
class Change:
    """What one operation did to one bucket, in the bucket's unit."""

    bucket_id: int
    balance_delta: int
    reserved_delta: int
    balance_after: int
    reserved_after: int

    @property
    def balance_before(self) -> int:
        return self.balance_after - self.balance_delta


@dataclass(slots=True, frozen=True)
class JournalRecord:
    """One immutable ledger entry. Every version of an account has exactly one."""

    account_id: bytes
    version: int
    at_ms: int
    operation: str
    """What: create, top-up, charge, expire-session, ..."""
    reason: tuple[Any, ...]
    """Why: (Session-Id, CC-Request-Type, CC-Request-Number) of a request, followed by the names of the policy rules
    that acted on it if any did, or (text,) of a person's act."""
    changes: tuple[Change, ...]


def _changes(before: Before, after: Account) -> list[tuple[int, int, int, int, int]]:
    """The fields of a ``Change`` for every bucket that differs; one that is new counts from zero.

    Buckets are only ever appended to an account, which is why they are compared by position.
    """
    changes = []
    known = len(before.buckets)
    for index, bucket in enumerate(after.buckets):
        balance, reserved = bucket.balance, bucket.reserved
        if index < known:
            had, had_reserved, _ = before.buckets[index]
            if balance == had and reserved == had_reserved:
                continue
            changes.append((bucket.bucket_id, balance - had, reserved - had_reserved, balance, reserved))
        else:
            changes.append((bucket.bucket_id, balance, reserved, balance, reserved))
    return changes


def make_plan(
    draft: Draft,
    operation: str,
    reason: tuple[Any, ...],
    outcome: Outcome | None,
    outbox: tuple[bytes, ...] = (),
) -> Plan:
    """The plan of a finished draft: its account one version up, its journal record, its next wake-up.

    ``outbox`` holds the packed charging data records that fell due with the operation.
    """
    before, account = draft.before, draft.account
    account.version = before.version + 1
    plan = Plan(outcome, account, before.version, outbox=pack(outbox) if outbox else b"")
    plan.debited_micro = draft.debited_micro
    plan.leaked_micro = draft.leaked_micro
    plan.refunded_micro = draft.refunded_micro
    plan.sessions_delta = draft.sessions_delta
    plan.reservations_delta = draft.reservations_delta
    plan.disbelieved_reports = draft.disbelieved_reports
    plan.spent = draft.spent
    plan.at_ms = draft.now_ms
    plan.before = before if before.version else None
    wake_ms = next_wake_ms(account)
    if wake_ms and (not account.watch_ms or wake_ms < account.watch_ms):
        # The index is only moved to an earlier time; a wake-up that comes too early costs one look,
        # moving it at every request would cost a sorted-set write each.
        account.watch_ms = plan.watch_ms = wake_ms
    plan.journal = pack(
        (account.account_id, account.version, draft.now_ms, operation, reason, _changes(before, account))
    )
    return plan


def unpack_journal(value: bytes) -> JournalRecord:
    account_id, version, at_ms, operation, reason, changes = _unpack(value)
    return JournalRecord(account_id, version, at_ms, operation, reason, tuple(Change(*c) for c in changes))


def pack_outbox(records: tuple[bytes, ...]) -> bytes:
    """The outbox field of packed charging data records."""
    return pack(records)


def unpack_outbox(value: bytes) -> tuple[bytes, ...]:
    """The packed charging data records of one outbox field."""
    records: tuple[bytes, ...] = _unpack(value)
    return records
