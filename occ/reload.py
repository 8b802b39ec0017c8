"""The catalogue read anew while requests are charged: on SIGHUP, or because ``occ catalogue reload`` asks all workers.

The new one is loaded and checked in a thread, then put in the place of the old one between two requests. A request that
is under way, and a service that is running, keep what they began with: its price until the tariff period ends, what it
is told about final units and the like until its next grant. A catalogue with a mistake changes nothing.
"""

import asyncio
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack

from balance.broadcast import BroadcastListener
from balance.store import Store
from occ.charging import Charging
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.currency import currency_name
from occ.yamlmap import ConfigError

log = logging.getLogger("occ.reload")

COMMAND: Final = b"catalogue reload"
"""The command to all workers (``balance.broadcast``)."""

SWITCH_INTERVAL_S: Final = 0.0005
"""After so long the thread that reads a catalogue gives way to requests; else it is 5 ms. Single operations go on for
longer: to free a table of 100,000 prefixes takes some 30 ms."""

DONE: Final = "done"
UNCHANGED: Final = "unchanged"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What reading the catalogue anew came to."""

    result: str
    """DONE, UNCHANGED or FAILED."""
    edition: str
    """In force now."""
    before: str
    """In force before."""
    mistake: str = ""
    """Why it failed, one sentence with file and line."""
    gone: tuple[str, ...] = ()
    """Plans and services that are no longer there: "plan standard". Who has such a plan is refused from now on."""

    @property
    def in_force(self) -> bool:
        """Whether what stands in the files is what is charged by."""
        return self.result != FAILED

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb((self.result, self.edition, self.before, self.mistake, self.gone))
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> "Reloaded":
        """Raises ValueError for what ``pack`` has not made."""
        fields: Any = msgpack.unpackb(packed)
        if not isinstance(fields, list) or len(fields) != 5:
            raise ValueError("this is no result of a reload")
        result, edition, before, mistake, gone = fields
        return cls(result, edition, before, mistake, tuple(gone))


@dataclass(slots=True)
class ReloadStatistics:
    """Counted since this worker started."""

    version: str
    edition: str
    """Of the catalogue in force."""
    results: dict[str, int] = field(default_factory=lambda: {DONE: 0, UNCHANGED: 0, FAILED: 0})


class CatalogueReload:
    """Reads the catalogue of one worker anew."""

    def __init__(self, charging: Charging, path: Path) -> None:
        """``path``: file or folder of the catalogue."""
        self._charging = charging
        self._path = path
        self._one_at_a_time = asyncio.Lock()
        catalogue = charging.rules.catalogue
        self.statistics = ReloadStatistics(catalogue.version, catalogue.edition)

    async def reload(self) -> Reloaded:
        """Read the catalogue and, if there is nothing wrong with it, charge by it from now on. Never raises."""
        async with self._one_at_a_time:
            before = self._charging.rules.catalogue
            interval_s = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            try:
                catalogue = await asyncio.to_thread(load_catalogue, self._path)
                _check_currency(before, catalogue, self._path)
            except ConfigError as error:
                done = Reloaded(FAILED, before.edition, before.edition, str(error))
            except Exception:
                log.exception("the catalogue could not be read")
                done = Reloaded(FAILED, before.edition, before.edition, "internal error; the server's log tells more")
            else:
                done = self._put_in_force(before, catalogue)
            finally:
                sys.setswitchinterval(interval_s)
            self.statistics.results[done.result] += 1
            if done.result == FAILED:
                log.error("the catalogue was not reloaded, %s stays in force: %s", done.edition, done.mistake)
            else:
                log.info("catalogue %s is in force, before it %s", done.edition, done.before)
            return done

    def _put_in_force(self, before: Catalogue, catalogue: Catalogue) -> Reloaded:
        if catalogue.edition == before.edition:
            return Reloaded(UNCHANGED, before.edition, before.edition)
        self._charging.rules = self._charging.rules.with_catalogue(catalogue)
        self.statistics.version, self.statistics.edition = catalogue.version, catalogue.edition
        gone = [f"plan {name}" for name in before.plans if name not in catalogue.plans]
        gone += [f"service {each.name}" for each in before.services if catalogue.named(each.name) is None]
        if gone:
            log.warning("catalogue %s no longer has %s", catalogue.edition, ", ".join(gone))
        return Reloaded(DONE, catalogue.edition, before.edition, gone=tuple(gone))

    async def listen(self, store: Store, worker: bytes) -> None:
        """Reload whenever another process asks all workers to, until cancelled."""
        await BroadcastListener(store, worker, self._execute).run()

    async def _execute(self, command: bytes) -> bytes:
        if command != COMMAND:
            raise ValueError(f"{command[:40]!r} is nothing that this version of the server can do")
        return (await self.reload()).pack()


def _check_currency(before: Catalogue, catalogue: Catalogue, path: Path) -> None:
    """Accounts, running sessions and figures are in the currency the server started with. Raises ConfigError."""
    if catalogue.currency != before.currency:
        raise ConfigError(
            str(path),
            None,
            f"the currency is {currency_name(catalogue.currency)} now and was {currency_name(before.currency)}: "
            "this takes a restart of all servers",
        )
