"""Supervision: sessions whose client fell silent, or lost its state, give back what they reserved; lapsed
allowances are emptied.

Each lane of the store has an index of accounts by the time they next need attention. An account is looked at no
earlier than that; what is due then is decided on its snapshot, like any other operation, so two workers that look
at once do it once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from balance.accounts import Account, SessionState
from balance.directory import accounts_in_expiry_index
from balance.ledger import Draft, expire_buckets, next_wake_ms
from balance.model import Subscriber
from balance.plans import Plan
from balance.records import make_plan
from balance.resp import StoreError, StoreUnavailableError
from balance.subscribers import subscriber_named
from occ import cdr
from occ.charging import Charging
from occ.loyalty import give_loyalty
from occ.renewals import end_of_life, owners_due, renew_due

log = logging.getLogger("occ.expiry")

SCAN_INTERVAL_S: Final = 0.5
ACCOUNTS_A_SCAN: Final = 500
LOOK_AGAIN_S: Final = 10.0
"""After this the sessions of a restarted client are looked for once more: requests of its former life that were under
way when it came back, be it at another worker or at an agent, have been charged by then."""
RESTARTS_REMEMBERED: Final = 10_000
"""Restarted clients that wait for the store; of more, the sessions of the first end when they fall silent."""


class Expiry:
    """Wakes the accounts of a store that are due by ``clock`` (ms since the Unix epoch, UTC)."""

    def __init__(self, charging: Charging, clock: Callable[[], int]) -> None:
        self._charging = charging
        self._clock = clock
        self._store = charging.store
        self._statistics = charging.statistics
        self._late_termination_ms = charging.rules.settings.late_termination_ms
        self._restarted: dict[bytes, int] = {}
        self._looked_for: dict[bytes, int] = {}
        self._restart_known = asyncio.Event()
        self._budgets_in_turn = asyncio.Lock()
        self.look_again_s = LOOK_AGAIN_S

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
            await asyncio.gather(*(self._wake(account_id, now) for account_id in due))
        return found

    async def _wake(self, account_id: bytes, now: int) -> None:
        """Expire all that is due on one account: one session an operation, then the rest.

        Raises StoreUnavailableError. An account that cannot be read is named in the log and left alone: it must
        not keep the others waiting.
        """
        owners: dict[bytes, Subscriber | None] = {}
        unknown: set[bytes] = set()

        async def expire() -> Plan:
            return await self._store.commit(account_id, lambda account, _: self._expire(account, now, owners, unknown))

        try:
            while True:
                plan = await (self._in_turn(expire) if owners else expire())
                if unknown:
                    for name in unknown:
                        owners[name] = await subscriber_named(self._store, name)
                    continue
                if plan.account is None:
                    # Indexed, yet gone: nothing can expire, only the index entry is struck.
                    watch = self._store.keys.watch(self._store.keys.lane(account_id))
                    await self._store.call("ZREM", watch, account_id)
                    log.error("account %r stood in the expiry index but does not exist", account_id)
                if plan.ended is None:
                    return
                self._statistics.add(plan)
                self._statistics.expired_sessions += 1
        except StoreUnavailableError:
            raise
        except Exception as error:  # also what the ledger refuses to do with an account that is damaged
            log.error("account %r cannot be expired: %s", account_id, error)

    async def _in_turn(self, expire: Callable[[], Awaitable[Plan]]) -> Plan:
        """Have a plan made that may take from a budget, knowing what those before it have taken.

        Bonuses for staying of many accounts fall due at one midnight. Raises StoreError.
        """
        budgets, promotions = self._charging.rules.budgets, self._charging.rules.catalogue.promotions
        if all(each.budget is None for each in promotions.all):
            return await expire()
        async with self._budgets_in_turn:
            await budgets.read(self._store)
            return await expire()

    def _expire(
        self, account: Account | None, now: int, owners: Mapping[bytes, Subscriber | None], unknown: set[bytes]
    ) -> Plan:
        """``owners``: subscribers that were looked up; ``unknown`` gets those that must be before anything is done."""
        unknown.clear()
        if account is None:
            return Plan(None)
        draft = Draft(account, now)
        for session in account.sessions.values():
            if session.expires_ms <= now:
                return self._end(draft, session.session_id, "expire-session", cdr.EXPIRED)
        unknown.update(owners_due(account, now) - owners.keys())
        if unknown:
            return Plan(None)
        rules = self._charging.rules
        fees = renew_due(draft, rules.catalogue, owners)
        gifts = give_loyalty(draft, rules.catalogue, owners, rules.budgets)
        expire_buckets(draft)
        end_of_life(draft, rules.settings.grace_ms)
        version = rules.catalogue.edition
        records = cdr.fee_records(
            draft, [(fee.offer, fee.owner, fee.amount_micro, fee.from_ms, fee.taken) for fee in fees], version
        )
        told = [(gift.promotion, gift.owner, gift.due_ms, gift.bucket_id, gift.unit, gift.amount) for gift in gifts]
        records += cdr.gift_records(draft, told, version, len(records) + 1)
        operation = "renew" if fees else "loyalty" if gifts else "expire"
        return _indexed(draft, operation, ("supervision", *(gift.promotion for gift in gifts)), records)

    # -- clients that lost their state ---------------------------------------------------------------------------

    def client_state(self, origin_host: bytes, state_id: int) -> None:
        """A client's Origin-State-Id is now ``state_id``: what it opened under a lower one is lost to it."""
        if len(self._restarted) >= RESTARTS_REMEMBERED:
            self._restarted.pop(next(iter(self._restarted)))
        self._restarted[origin_host] = state_id
        self._restart_known.set()

    async def run_restarts(self) -> None:
        """Release the sessions of clients that lost their state, until cancelled (RFC 6733 section 8.6).

        Restarts are rare and sessions many, so the open sessions are looked through then, and once more a while
        later, instead of being kept in an index by client that every request would have to write.
        """
        while True:
            await self._restart_known.wait()
            self._restart_known.clear()
            restarted, self._restarted = self._restarted, {}
            looked_for, self._looked_for = self._looked_for, {}
            try:
                await self.release_lost({**looked_for, **restarted})
            except StoreError as error:
                log.warning("sessions of restarted clients wait: %s", error)
                waiting = {**looked_for, **restarted, **self._restarted}
                self._restarted = dict(list(waiting.items())[-RESTARTS_REMEMBERED:])
                self._restart_known.set()
                await asyncio.sleep(SCAN_INTERVAL_S)
                continue
            if restarted:
                asyncio.get_running_loop().call_later(self.look_again_s, self._look_again, restarted)

    def _look_again(self, restarted: dict[bytes, int]) -> None:
        self._looked_for.update(restarted)
        self._restart_known.set()

    async def release_lost(self, restarted: dict[bytes, int]) -> int:
        """Release what the clients opened under a lower Origin-State-Id; how many sessions. Raises StoreError."""
        current = {host.lower(): state_id for host, state_id in restarted.items()}
        released = 0
        async for page in accounts_in_expiry_index(self._store):
            lost = [account.account_id for account in page if _lost_session(account, current) is not None]
            released += sum(await asyncio.gather(*(self._release_all(account_id, current) for account_id in lost)))
        if released:
            log.warning("released %d sessions of clients that lost their state: %s", released, sorted(restarted))
        return released

    async def _release_all(self, account_id: bytes, current: dict[bytes, int]) -> int:
        """Release what one account holds of them, a session an operation. Raises StoreUnavailableError."""
        released = 0
        try:
            while (plan := await self._store.commit(account_id, lambda now, _: self._release(now, current))).account:
                self._statistics.add(plan)
                released += 1
        except StoreUnavailableError:
            raise
        except Exception as error:  # see _wake
            log.error("a session of account %r cannot be released: %s", account_id, error)
        return released

    def _release(self, account: Account | None, current: dict[bytes, int]) -> Plan:
        lost = None if account is None else _lost_session(account, current)
        if account is None or lost is None:
            return Plan(None)
        return self._end(Draft(account, self._clock()), lost, "release-session", cdr.CLIENT_RESTARTED)

    # -- both ----------------------------------------------------------------------------------------------------

    def _end(self, draft: Draft, session_id: bytes, operation: str, cause: str) -> Plan:
        """Give back what a session holds and keep it aside, should a report still come."""
        session = draft.session(session_id)
        assert session is not None
        draft.release_session(session)
        records = cdr.closing_records(draft, session, cause)
        draft.close(session)
        plan = _indexed(draft, operation, (session_id,), records)
        session.state = SessionState.EXPIRED
        plan.ended = session
        plan.ended_ttl_ms = self._late_termination_ms
        plan.closed = session_id
        return plan


def _indexed(draft: Draft, operation: str, reason: tuple[object, ...], records: tuple[bytes, ...]) -> Plan:
    """A plan that sets the index to exactly the next time something is due."""
    draft.account.watch_ms = next_wake_ms(draft.account)
    plan = make_plan(draft, operation, reason, None, records)
    plan.watch_ms = draft.account.watch_ms
    return plan


def _lost_session(account: Account, current: dict[bytes, int]) -> bytes | None:
    """A session that its client opened under an Origin-State-Id lower than the current one, or None.

    0 says that the client told none: nothing can be inferred then.
    """
    for session in account.sessions.values():
        if 0 < session.origin_state_id < current.get(session.origin_host.lower(), 0):
            return session.session_id
    return None
