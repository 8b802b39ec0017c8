"""What answers for a server while the store cannot be reached (``occ.away``), from the server's start to its end.

It settles first what an earlier process has answered so, before clients are let in. A process that replaces another one
of its identity gets the journal when that one has ended. The first to start settles as well what servers that are no
more have left (``occ.away_left``).
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Final

from occ.away import Away
from occ.away_journal import AwayJournal, AwayJournalBusyError
from occ.away_left import LeftJournals
from occ.charging import Charging
from occ.profiles import Profile
from occ.settings import Settings

CHECK_S: Final = 0.2
"""Between two looks whether the journal is free."""
SETTLING_S: Final = 5.0
"""So long a process that is replaced goes on serving its clients while requests that it has answered are settled."""
SETTLING_CHECK_S: Final = 0.01

OnEnd = Callable[["asyncio.Task[None]"], None]


@dataclass(frozen=True, slots=True)
class Siblings:
    """The processes that a server runs beside."""

    may_have_journal: bool
    """One of its own identity may be about to end, and have the journal until then."""
    origin_hosts: Collection[str]
    """Of all servers that the settings know, if this one is to settle what others have left; empty: it is not."""


class StandIn:
    """Belongs to one server and its event loop.

    ``store`` tells stores apart; ``on_end`` is told when something that runs in the background ends.
    """

    def __init__(
        self,
        settings: Settings,
        charging: Charging,
        profile_named: Callable[[str], Profile],
        clock: Callable[[], int],
        store: str,
        siblings: Siblings,
        on_end: OnEnd,
    ) -> None:
        self.away: Away | None = None
        """None: another process still has the journal."""
        self.on_away: Callable[[Away], None] | None = None
        """Told when the journal is had at last."""
        self._settings = settings
        self._charging = charging
        self._profile_named = profile_named
        self._clock = clock
        self._store = store
        self._siblings = siblings
        self._on_end = on_end
        self._journal = AwayJournal(settings.store.away_journal(settings.diameter.origin_host))
        self._left: LeftJournals | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Settle what is left. Raises AwayJournalError, OSError; ``stop`` is to be called all the same."""
        try:
            self._journal.open(self._store)
        except AwayJournalBusyError as error:
            if not self._siblings.may_have_journal and not error.settled_by:
                raise
        else:
            await self._begin()
        if self._siblings.origin_hosts:
            await self._settle_for_others()

    def listen(self) -> None:
        """Clients are let in now."""
        if self.away is None:
            self._in_background(self._take_over())

    async def settle_first(self) -> None:
        """The process that comes has the journal only when this one has ended: until then it would tell clients that
        sessions are unknown which began without the store.
        """
        until_s = asyncio.get_running_loop().time() + SETTLING_S
        while self.away is not None and self.away.is_settling and asyncio.get_running_loop().time() < until_s:  # noqa: ASYNC110 - the disk and the store decide
            await asyncio.sleep(SETTLING_CHECK_S)

    async def stop(self) -> None:
        """Give the journal back. What is not settled is, after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._left is not None:
            self._left.close()
        if self.away is not None:
            self.away.close()
        self._journal.close()

    async def _take_over(self) -> None:
        """The process that this one replaces has the journal until it ends; without the store, nothing is granted."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                self._journal.open(self._store)
            except AwayJournalBusyError:
                continue
            break
        await self._begin()

    async def _begin(self) -> None:
        away = self.away = self._made(self._journal, self._settings.diameter.origin_host)
        if self.on_away is not None:
            self.on_away(away)
        await away.settle_left()
        self._in_background(away.run())

    async def _settle_for_others(self) -> None:
        store = self._settings.store
        own = self._settings.diameter.origin_host
        known = {own, *self._siblings.origin_hosts}
        left = self._left = LeftJournals(store.away_dir, known, self._store, own, self._made)
        await left.settle()
        self._in_background(left.finish(), "journals of others")

    def _made(self, journal: AwayJournal, server: str) -> Away:
        """What has a journal; all count in one place. Raises AwayJournalError."""
        statistics = None if self.away is None else self.away.statistics
        most_octets = self._settings.store.away_journal_bytes
        return Away(self._charging, journal, self._profile_named, self._clock, server, most_octets, statistics)

    def _in_background(self, coroutine: Coroutine[object, object, None], name: str = "away") -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        task.add_done_callback(self._on_end)
        self._tasks.append(task)
