"""Reservations that are made by hand rather than by a charging client: held, then taken or given back.

A reservation is a session of its own with one service that holds an amount of one bucket, so all that holds for the
reservations of sessions holds for it: nobody else can spend it, it is counted in the store's check, and the clock
gives it back when it is not taken in time.
"""

from typing import Final

from balance.accounts import Account, ServiceUse, Session, SessionState
from balance.directory import REFERENCE_TTL_MS, Posting, existing
from balance.lane import ABSENT
from balance.ledger import Draft, release
from balance.model import MAIN_BUCKET, UNLIMITED, LedgerError, LifeState, Unit
from balance.plans import Lookup, Plan
from balance.records import make_plan
from balance.store import Store
from balance.subscribers import check_reason

RESERVE: Final = "reserve"
RELEASE: Final = "release"
CAPTURE: Final = "adjust"
"""Taken by hand, as an adjustment is."""
SERVICE: Final = "reservation"


async def reserve_amount(
    store: Store, account_id: bytes, name: str, bucket_id: int, amount: int, until_ms: int, *, now_ms: int, reason: str
) -> Posting:
    """Hold an amount of a bucket until a moment (ms); repeated under the same name it is held once.

    Raises LedgerError if that is not free, the account is not active, or the name holds another amount; StoreError.
    """
    check_reason(reason)
    if not 0 < amount <= UNLIMITED:
        raise LedgerError(f"a reservation must be of more than nothing, not {amount}")
    if until_ms <= now_ms:
        raise LedgerError("a reservation cannot end before it begins")
    key = session_name(name)

    def step(found: Account | None, _: Session | None) -> Plan:
        draft = Draft(existing(found, account_id), now_ms)
        bucket = draft.bucket(bucket_id)
        held = draft.account.sessions.get(key)
        if held is not None:
            if held.services[0].parts != [(bucket_id, amount)]:
                raise LedgerError(f"reservation {name} is of another bucket or amount; nothing was changed")
            return Plan(None)
        if draft.account.state != LifeState.ACTIVE:
            state = LifeState(draft.account.state).name.lower()
            raise LedgerError(f"account {account_id.decode()} is {state}, so nothing is reserved")
        if amount > draft.free(bucket):
            raise LedgerError(
                f"bucket {bucket_id} of account {account_id.decode()} can give {draft.free(bucket)}, which is less "
                f"than {amount}"
            )
        unit = Unit.AMOUNT if bucket.unit == Unit.MONEY else bucket.unit
        session = Session(key, b"", "", b"", 0, now_ms, until_ms)
        use = ServiceUse(-1, -1, SERVICE, int(unit), granted=amount, parts=[(bucket_id, amount)])
        draft.open(session)
        draft.add_service(session, use)
        bucket.reserved += amount
        draft.reservations_delta += 1
        plan = make_plan(draft, RESERVE, (reason, name), None)
        plan.opened = key
        return plan

    plan = await store.commit(account_id, step)
    if plan.account is None:
        return Posting(bucket_id, amount, 0, 0, repeated=True)
    after = plan.account.bucket(bucket_id)
    assert after is not None
    return Posting(bucket_id, amount, after.balance, plan.account.version, repeated=False)


async def end_reservation(
    store: Store, account_id: bytes, name: str, *, take: bool, now_ms: int, reason: str
) -> Posting | None:
    """Take what a reservation holds, or give it back; None if it ended otherwise. Repeated, it is done once.

    Raises LedgerError if there is no such account, StoreError.
    """
    check_reason(reason)
    key = session_name(name)
    done: list[Posting] = []

    def step(found: Account | None, ended: Session | None) -> Plan | Lookup:
        done.clear()
        draft = Draft(existing(found, account_id), now_ms)
        session = draft.session(key)
        if session is None:
            if ended is None:
                return Lookup(key)
            if ended is not ABSENT and ended.state == SessionState.CLOSED and bool(ended.services[0].used) == take:
                done.append(Posting(MAIN_BUCKET, 0, 0, draft.account.version, repeated=True))
            return Plan(None)
        use = draft.service(session, -1, -1)
        assert use is not None
        ((bucket_id, amount),) = use.parts
        bucket = draft.bucket(bucket_id)
        release(draft, use)
        if take:
            bucket.balance -= amount  # it was reserved until now, so it is there
            use.used = amount
        draft.close(session)
        plan = make_plan(draft, CAPTURE if take else RELEASE, (reason, name), None)
        session.state = SessionState.CLOSED
        plan.ended, plan.ended_ttl_ms, plan.closed = session, REFERENCE_TTL_MS, key
        assert plan.account is not None
        change = -amount if take else amount
        done.append(Posting(bucket_id, change, bucket.balance, plan.account.version, repeated=False))
        return plan

    await store.commit(account_id, step)
    return done[0] if done else None


def session_name(name: str) -> bytes:
    """The key of a reservation among the sessions of its account; no client can choose it: Session-Ids are text."""
    return b"\0reservation:" + name.encode()
