"""How many sessions and reservations stand open in the store, known to each of its servers.

``ChargingStatistics`` counts what its own server opens and closes, at once and in memory. Once a second that is added
to the totals in the store and replaced by them, so each server tells the figures of all, its own up to date, those of
the others a second old.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from balance.directory import accounts_in_expiry_index
from balance.open_totals import OpenTotals, add_open, correct_open
from balance.resp import StoreError
from balance.store import Store
from occ.charging import ChargingStatistics

log = logging.getLogger("occ.open_counts")

EXCHANGE_S: Final = 1.0


class OpenCounts:
    """Keeps ``open_sessions`` and ``open_reservations`` of one server's statistics those of the store."""

    def __init__(self, store: Store, statistics: ChargingStatistics) -> None:
        self._store = store
        self._statistics = statistics
        self._known = (0, 0)
        """The totals that ``statistics`` began with: what it has beyond them is not told yet."""
        self._one_at_a_time = asyncio.Lock()

    async def run(self, besides: Callable[[], Awaitable[None]] | None = None) -> None:
        """Exchange until cancelled; after each lost connection count anew, as what was under way may have been written
        or not. ``besides`` is done each time as well, and may raise StoreError."""
        seen = self._store.statistics.reconnects
        while True:
            await asyncio.sleep(EXCHANGE_S)
            try:
                reconnects = self._store.statistics.reconnects
                if reconnects == seen:
                    await self.exchange()
                else:
                    await self.count()
                    seen = reconnects
                if besides is not None:
                    await besides()
            except StoreError as error:
                seen = -1
                log.debug("open sessions are counted later: %s", error)

    async def exchange(self) -> OpenTotals:
        """Tell what this server has opened and closed, learn what the others have. Raises StoreError."""
        async with self._one_at_a_time:
            return await self._exchange()

    async def _exchange(self) -> OpenTotals:
        now = self._statistics.open_sessions, self._statistics.open_reservations
        own = now[0] - self._known[0], now[1] - self._known[1]
        totals = await add_open(self._store, *own)
        self._adopt(totals, now)
        return totals

    def _adopt(self, totals: OpenTotals, told: tuple[int, int]) -> None:
        """What was opened since ``told`` counts on top; requests are running."""
        self._known = (totals.sessions, totals.reservations)
        self._statistics.open_sessions += totals.sessions - told[0]
        self._statistics.open_reservations += totals.reservations - told[1]

    async def count(self) -> None:
        """Look at the accounts: every one with an open session is in the expiry index. Raises StoreError."""
        async with self._one_at_a_time:
            before = await self._exchange()
            sessions = reservations = 0
            counted: set[bytes] = set()
            async for page in accounts_in_expiry_index(self._store):
                for account in page:
                    if account.account_id in counted:
                        continue
                    counted.add(account.account_id)
                    sessions += len(account.sessions)
                    reservations += sum(
                        1 for session in account.sessions.values() for use in session.services if use.parts
                    )
            totals = await correct_open(self._store, before, sessions, reservations)
            self._adopt(totals, self._known)
