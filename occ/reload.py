"""The catalogue read anew while requests are charged: on SIGHUP, or because ``occ catalogue reload`` asks all workers.

The new one is loaded and checked in a thread, then put in the place of the old one between two requests. A request that
is under way, and a service that is running, keep what they began with: its price until the tariff period ends, what it
is told about final units and the like until its next grant. A catalogue with a mistake changes nothing.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgpack

from balance.broadcast import BroadcastListener
from balance.commands import Execute
from balance.store import Store
from occ.charging import Charging
from occ.policy.reading import OperatorPolicies
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


class RulesFile(Protocol):
    """The policies of one worker, which name services and zones of the catalogue (``occ.policy.reloading``)."""

    def with_catalogue(self, catalogue: Catalogue) -> OperatorPolicies | None:
        """Those in force, read with another catalogue. Raises ConfigError: they name what it has not."""

    def adopt(self, policies: OperatorPolicies | None) -> None:
        """Put them in force for this worker."""


class CatalogueReload:
    """Reads the catalogue of one worker anew."""

    def __init__(self, charging: Charging, path: Path, policies: RulesFile | None = None) -> None:
        """``path``: file or folder of the catalogue; ``policies``: what has to go with it."""
        self._charging = charging
        self._path = path
        self._policies = policies
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
                policies = None if self._policies is None else self._policies.with_catalogue(catalogue)
            except ConfigError as error:
                done = Reloaded(FAILED, before.edition, before.edition, str(error))
            except Exception:
                log.exception("the catalogue could not be read")
                done = Reloaded(FAILED, before.edition, before.edition, "internal error; the server's log tells more")
            else:
                done = self._put_in_force(before, catalogue, policies)
            finally:
                sys.setswitchinterval(interval_s)
            self.statistics.results[done.result] += 1
            if done.result == FAILED:
                log.error("the catalogue was not reloaded, %s stays in force: %s", done.edition, done.mistake)
            else:
                log.info("catalogue %s is in force, before it %s", done.edition, done.before)
            return done

    def _put_in_force(self, before: Catalogue, catalogue: Catalogue, policies: OperatorPolicies | None) -> Reloaded:
        if catalogue.edition == before.edition:
            return Reloaded(UNCHANGED, before.edition, before.edition)
        self._charging.rules = self._charging.rules.with_catalogue(catalogue)
        if self._policies is not None:
            self._policies.adopt(policies)
        self.statistics.version, self.statistics.edition = catalogue.version, catalogue.edition
        gone = [f"plan {name}" for name in before.plans if name not in catalogue.plans]
        gone += [f"service {each.name}" for each in before.services if catalogue.by_name.get(each.name) is None]
        if gone:
            log.warning("catalogue %s no longer has %s", catalogue.edition, ", ".join(gone))
        return Reloaded(DONE, catalogue.edition, before.edition, gone=tuple(gone))

    async def listen(self, store: Store, worker: bytes, others: Mapping[bytes, Execute] | None = None) -> None:
        """Reload whenever another process asks all workers to, until cancelled.

        ``others``: what else they can ask. A command is its name, or that, a zero octet and what it takes.
        """
        known = {COMMAND: self._execute, **(others or {})}

        async def execute(command: bytes) -> bytes:
            name = command.partition(b"\0")[0]
            if name not in known:
                raise ValueError(f"{command[:40]!r} is nothing that this version of the server can do")
            return await known[name](command)

        await BroadcastListener(store, worker, execute).run()

    async def _execute(self, _: bytes) -> bytes:
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
