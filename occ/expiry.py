"""Supervision: sessions whose client fell silent give back what they reserved, lapsed allowances are emptied.

Each lane of the store has an index of accounts by the time they next need attention. An account is looked at no
earlier than that; what is due then is decided on its snapshot, like any other operation, so two workers that look
at once do it once.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from balance.ledger import Draft, expire_buckets, next_wake_ms
from balance.model import Account, Lookup, Plan, SessionState
from balance.records import make_plan
from balance.resp import StoreError
from occ import cdr
from occ.charging import Charging

log = logging.getLogger("occ.expiry")

SCAN_INTERVAL_S: Final = 0.5
ACCOUNTS_A_SCAN: Final = 500


class Expiry:
    """Wakes the accounts of a store that are due by ``clock`` (ms since the Unix epoch, UTC)."""

    def __init__(self, charging: Charging, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._store = charging.store
        self._statistics = charging.statistics
        self._late_termination_ms = charging.settings.late_termination_ms

    async def run(self) -> None:
        """Scan until cancelled; an unreachable store is waited for."""
        while True:
            try:
                found = await self.scan(self._clock())
            except StoreError as error:
                log.debug("expiry waits: %s", error)
                found = 0
            if found < ACCOUNTS_A_SCAN:
                await asyncio.sleep(SCAN_INTERVAL_S)

    async def scan(self, now: int) -> int:
        """Handle the accounts due at ``now`` (ms); how many were due. Raises StoreError."""
        found = 0
        for lane in self._store.keys.lanes():
            due = await self._store.call(
                "ZRANGEBYSCORE", self._store.keys.watch(lane), "-inf", now, "LIMIT", 0, ACCOUNTS_A_SCAN
            )
            found += len(due)
            for account_id in due:
                await self.wake(account_id, now)
        return found

    async def wake(self, account_id: bytes, now: int) -> None:
        """Expire all that is due on one account: one session an operation, then the rest. Raises StoreError."""
        while True:
            plan = await self._store.commit(account_id, lambda account, _: self._step(account, now))
            if plan.account is None:
                # Indexed, yet gone: nothing can expire, only the index entry is struck.
                await self._store.call("ZREM", self._store.keys.watch(self._store.keys.lane(account_id)), account_id)
                log.error("account %r stood in the expiry index but does not exist", account_id)
            if plan.ended is None:
                return
            self._statistics.add(plan)
            self._statistics.expired_sessions += 1

    def _step(self, account: Account | None, now: int) -> Plan | Lookup:
        if account is None:
            return Plan(None)
        draft = Draft(account, now)
        overdue = _overdue(account, now)
        if overdue is None:
            expire_buckets(draft)
            return self._plan(draft, "expire", ("supervision",), ())
        session = draft.session(overdue)
        assert session is not None
        before = session.totals()
        draft.release_session(session)
        records = cdr.closing_records(session, now, cdr.EXPIRED)
        draft.close(session)
        plan = self._plan(draft, "expire-session", (overdue,), records)
        plan.count(before, session.totals(), -1)
        session.state = SessionState.EXPIRED
        plan.ended = session
        plan.ended_ttl_ms = self._late_termination_ms
        plan.closed = overdue
        return plan

    @staticmethod
    def _plan(draft: Draft, operation: str, reason: tuple[object, ...], records: tuple[bytes, ...]) -> Plan:
        """A plan that sets the index to exactly the next time something is due."""
        draft.account.watch_ms = next_wake_ms(draft.account)
        plan = make_plan(draft, operation, reason, None, records)
        plan.watch_ms = draft.account.watch_ms
        return plan


def _overdue(account: Account, now: int) -> bytes | None:
    for session in account.sessions.values():
        if session.expires_ms <= now:
            return session.session_id
    return None
