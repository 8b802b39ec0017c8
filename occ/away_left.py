"""Journals of servers that are no more: a worker that was configured away, or has another name now.

What such a server has answered without the store (``occ.away``) would never be charged, as each settles its own
journal. So a server that starts settles what it finds in its data directory of servers that the settings do not know:
under the lock of that journal, with the marks that its own server would leave, so that each entry moves money once,
whoever settles it. A journal whose server runs is locked, and left alone, as is one that is about another store. Should
a server of that name start meanwhile, it waits for the lock.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path

from occ.away import Away
from occ.away_journal import AwayJournal, AwayJournalBusyError, AwayJournalError, left_by_others

log = logging.getLogger("occ.away")

Take = Callable[[AwayJournal, str], Away]
"""What settles a journal, for the server of that Origin-Host. Raises AwayJournalError."""


class LeftJournals:
    """The journals in ``directory`` of others than ``own`` servers. ``server``: who settles them, an Origin-Host;
    ``store`` tells stores apart (``AwayJournal.open``).
    """

    def __init__(self, directory: Path, own: Collection[str], store: str, server: str, take: Take) -> None:
        self._taken: list[tuple[AwayJournal, Away]] = []
        for name, path in left_by_others(directory, own).items():
            self._open(AwayJournal(path), name, store, server, take)

    def _open(self, journal: AwayJournal, name: str, store: str, server: str, take: Take) -> None:
        """One that cannot be read keeps nobody from starting: nothing that this server has answered is in it."""
        try:
            away = take(journal.open(store, server), name)
        except AwayJournalBusyError:
            return
        except (AwayJournalError, OSError) as error:
            journal.close()
            log.error("what the server %s has answered without the store is not charged: %s", name, error)
            return
        self._taken.append((journal, away))
        if away.sessions:
            log.warning(
                "the server %s is none of those that the settings know: what it has answered without the store, %d "
                "requests, is settled for it",
                name,
                len(journal.waiting),
            )

    async def settle(self) -> None:
        """Settle what can be settled at once."""
        for _, away in self._taken:
            await away.settle_left()

    async def finish(self) -> None:
        """Settle the rest, which has to wait for another server or for the store; take the journals away, each with
        its lock, so that a server of that name can begin one of its own.
        """
        await asyncio.gather(*(self._finish(journal, away) for journal, away in self._taken))

    async def _finish(self, journal: AwayJournal, away: Away) -> None:
        try:
            await away.settle_all()
            log.info("%s is settled, and was taken away", journal.path)
        except OSError as error:
            log.error("the settled journal %s cannot be taken away: %s", journal.path, error)
        away.close()

    def close(self) -> None:
        """Give all of them back. What is not settled is, after the next start."""
        for _, away in self._taken:
            away.close()
