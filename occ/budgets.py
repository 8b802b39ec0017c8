"""What of the budgets of promotions is gone, as far as this worker knows.

What an operation takes from a budget is counted in the store by the commit that moves the money (``Plan.spent``): once,
or not at all if that fails. Workers read the totals every second, and add at once what they have written themselves; so
a budget can be overspent by what other workers give away in that second, and by what running services have been granted
at the lower price already. Catalogues without budgets cost nothing: nobody reads, nobody counts.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from balance.resp import StoreError
from balance.store import Store

log = logging.getLogger("occ.budgets")

READ_EVERY_S: Final = 1.0


class Budgets:
    """By promotion: what of its budget is gone, micro-units or times."""

    __slots__ = ("_gone",)

    def __init__(self) -> None:
        self._gone: dict[str, int] = {}

    def gone(self, promotion: str) -> int:
        return self._gone.get(promotion, 0)

    def add(self, spent: Mapping[str, int]) -> None:
        """Count what this worker has just written."""
        for promotion, amount in spent.items():
            self._gone[promotion] = self._gone.get(promotion, 0) + amount

    async def read(self, store: Store) -> None:
        """Know what all workers have written. Raises StoreError."""
        self._gone = await store.spent()

    async def follow(self, store: Store, needed: Callable[[], bool]) -> None:
        """Read again and again while they are needed, until cancelled; an unreachable store is waited for."""
        while True:
            await asyncio.sleep(READ_EVERY_S)
            if not needed():
                continue
            try:
                await self.read(store)
            except StoreError as error:
                log.debug("the budgets of promotions are read later: %s", error)
