"""The rules put in force: when a server starts, and whenever its rules file is read anew while requests are charged.

A file with a mistake changes nothing. Rules that are put in force are written into the store, so that all processes
watch accounts by the same ones; of the servers that read a new file at once, the one that writes it there looks at
every account again: levels may be others now, and open sessions may be decided on in another way.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from balance.accounts import Account, Session
from balance.directory import accounts
from balance.ledger import Draft
from balance.plans import Plan
from balance.records import make_plan
from balance.resp import StoreError
from occ.charging import Charging
from occ.policy.acting import Acting
from occ.policy.concerned import concerned
from occ.policy.reading import OperatorPolicies, load_policies, parse_policies
from occ.policy.watching import InForce, Transition, Watching, looked_at, put_in_force
from occ.rating.catalogue import Catalogue
from occ.reload import DONE, FAILED, UNCHANGED, Reloaded, ReloadStatistics
from occ.yamlmap import ConfigError, shown
from policies.policy import Policies

log = logging.getLogger("occ.policy.reloading")

COMMAND: Final = b"policies reload"
"""The command to all workers (``balance.broadcast``)."""

NONE: Final = "none"
"""Edition of no rules at all."""

NO_POLICIES: Final = Policies(NONE, levels=())

SETTLE_S: Final = 1.0
"""Before accounts are looked at again: the other servers read the same file meanwhile."""
PAGE_PAUSE_S: Final = 0.05
"""Between two pages of accounts, for requests."""
LEVELS: Final = "levels"
"""Operation of the journal: the rules have changed, and with them what the account is at."""


def load(path: Path | None, catalogue: Catalogue, templates: Collection[str] | None = None) -> OperatorPolicies | None:
    """The rules in a file; None where there is none. ``templates``: see ``load_policies``. Raises ConfigError."""
    if path is None:
        return None
    found = load_policies(path, catalogue, templates)
    for remark in found.remarks:
        log.warning("%s", remark)
    return found


class PolicyReload:
    """The rules of one server."""

    def __init__(
        self,
        charging: Charging,
        path: Path | None,
        watching: Watching,
        clock: Callable[[], int],
        templates: Collection[str] | None = None,
    ) -> None:
        """``charging`` has the rules that were loaded at the start, which ``begin`` puts in force.

        ``templates``: names of the notices there are; None: not known.
        """
        self.settle_s = SETTLE_S
        self.acting: Acting | None = None
        """Who asks clients, once there is a connection to any; None: nobody yet."""
        self._charging = charging
        self._store = charging.store
        self._path = path
        self._templates = templates
        self._watching = watching
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        edition = _edition(self._policies())
        self.statistics = ReloadStatistics(edition, edition)

    def _policies(self) -> OperatorPolicies | None:
        found = self._charging.rules.policies
        assert found is None or isinstance(found, OperatorPolicies)
        return found

    async def begin(self, look: bool = True) -> None:
        """Put the rules that the server started with in force, and look at the accounts. Raises StoreError.

        ``look``: also where they have been in force; False: servers ran all the time, so nothing can have been missed.
        """
        await self._write(self._policies(), look)

    async def stop(self) -> None:
        """Give up looking at accounts; the next start looks at them all."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    # -- another file ----------------------------------------------------------------------------------------------

    async def reload(self) -> Reloaded:
        """Read the file and, if there is nothing wrong with it, charge and watch by it from now on. Never raises."""
        async with self._one_at_a_time:
            before = _edition(self._policies())
            try:
                found = await self._read()
            except ConfigError as error:
                done = Reloaded(FAILED, before, before, str(error))
            except Exception:
                log.exception("the rules could not be read")
                done = Reloaded(FAILED, before, before, "internal error; the server's log tells more")
            else:
                done = await self._replace(found, before)
            self.statistics.results[done.result] += 1
            if done.result == FAILED:
                log.error("the policies were not reloaded, %s stay in force: %s", done.edition, done.mistake)
            else:
                log.info("policies %s are in force, before them %s", done.edition, done.before)
            return done

    async def _read(self) -> OperatorPolicies | None:
        """The file, read with the catalogue that is in force when it has been. Raises ConfigError."""
        while True:
            catalogue = self._charging.rules.catalogue
            found = await asyncio.to_thread(load, self._path, catalogue, self._templates)
            if self._charging.rules.catalogue is catalogue:
                return found

    async def _replace(self, found: OperatorPolicies | None, before: str) -> Reloaded:
        edition = _edition(found)
        if edition == before:
            return Reloaded(UNCHANGED, before, before)
        self.adopt(found)
        try:
            await self._write(found)
        except StoreError as error:
            # This server charges by them all the same; what else watches does when one of them starts or reloads.
            log.error("the rules in force could not be written into the store: %s", error)
        return Reloaded(DONE, edition, before)

    async def execute(self, _: bytes) -> bytes:
        """See ``balance.commands.Execute``."""
        return (await self.reload()).pack()

    # -- another catalogue -----------------------------------------------------------------------------------------

    def with_catalogue(self, catalogue: Catalogue) -> OperatorPolicies | None:
        """The rules in force, read with another catalogue. Raises ConfigError: they name what it has not."""
        policies = self._policies()
        if policies is None:
            return None
        source = "the policies in force" if self._path is None else shown(self._path)
        return parse_policies(policies.text, source, catalogue)

    def adopt(self, policies: OperatorPolicies | None) -> None:
        """Charge and watch by these rules, between two requests."""
        self._charging.rules = self._charging.rules.with_policies(policies)
        self._watching.policies = _rules_of(policies)
        self._store.observe = None if policies is None else self._watching
        self.statistics.version = self.statistics.edition = _edition(policies)

    # -- what is in force for all ----------------------------------------------------------------------------------

    async def _write(self, policies: OperatorPolicies | None, look: bool = True) -> None:
        """Raises StoreError."""
        rules = self._charging.rules
        source = "" if self._path is None else str(self._path)
        in_force = None
        if policies is not None:
            levels = policies.policies.levels
            in_force = InForce(policies.edition, policies.text, source, rules.catalogue.edition, levels)
        earlier = await put_in_force(self._store, in_force)
        await self.stop()
        if policies is None and earlier is None:
            return
        was: Policies | None = None
        if earlier is None or earlier.edition != _edition(policies):
            was = self._read_earlier(earlier)
        elif not earlier.looked_at:
            was = NO_POLICIES
        elif not look:
            return
        self._looking = asyncio.get_running_loop().create_task(self._look_again(was), name="policies: accounts")

    def _read_earlier(self, earlier: InForce | None) -> Policies:
        """Rules that were in force before; none that can be read are no rules, so that more is asked than need be."""
        if earlier is None:
            return NO_POLICIES
        try:
            return parse_policies(earlier.text, earlier.source, self._charging.rules.catalogue).policies
        except ConfigError as error:
            log.info("the rules that were in force before cannot be read any more: %s", error)
            return Policies(earlier.edition, earlier.levels)

    async def _look_again(self, was: Policies | None) -> None:
        """Look at all accounts by the rules now in force. ``was``: other rules before; None: the same."""
        try:
            await asyncio.sleep(self.settle_s)
            moved = await self.look_at_all(was)
            await looked_at(self._store, _edition(self._policies()))
        except StoreError as error:
            log.warning("not all accounts were looked at by the rules in force: %s", error)
        except Exception:
            log.exception("not all accounts were looked at by the rules in force")
        else:
            if moved:
                log.info("%d accounts are at other levels by the rules in force", moved)

    async def look_at_all(self, was: Policies | None) -> int:
        """How many accounts came to other levels. Raises StoreError.

        Where the rules are others (``was``), clients are asked about what is decided in another way now, and nobody is
        sent a notice because an operator has edited a file.
        """
        now = self._watching.policies
        moved = 0
        async for page in accounts(self._store):
            for account in page:
                await asyncio.sleep(0)  # requests go before
                at_ms = self._clock()
                levels = now.levels_of(account, at_ms)
                if was is not None:
                    self._ask_anew(account, was, now, levels, at_ms)
                if levels != account.levels:
                    step = _Relevel(now, at_ms, was is not None)
                    plan = await self._store.commit(account.account_id, step)
                    moved += plan.account is not None
                elif was is not None and self.acting is not None and _status(was, levels) != _status(now, levels):
                    await self.acting.tell_of(account.account_id)
            await asyncio.sleep(PAGE_PAUSE_S)
        return moved

    def _ask_anew(self, account: Account, was: Policies, now: Policies, levels: tuple[str, ...], at_ms: int) -> None:
        if self.acting is None or not account.sessions:
            return
        asks = concerned(
            account,
            lambda case: was.decide(case, account.levels, at_ms),
            lambda case: now.decide(case, levels, at_ms),
        )
        for ask in asks:
            self.acting.push(account, ask, at_ms)


class _Relevel:
    """A step that writes down what an account is at by the rules in force."""

    def __init__(self, policies: Policies, at_ms: int, by_rules: bool) -> None:
        self._policies = policies
        self._at_ms = at_ms
        self._by_rules = by_rules

    def __call__(self, account: Account | None, _: Session | None) -> Plan:
        if account is None:
            return Plan(None)
        before = account.levels
        levels = self._policies.levels_of(account, self._at_ms)
        if levels == before:
            return Plan(None)
        draft = Draft(account, self._at_ms)
        draft.account.levels = levels
        plan = make_plan(draft, LEVELS, (f"policies {self._policies.edition}",), None)
        assert plan.account is not None
        plan.transition = Transition(
            account.account_id, plan.account.version, self._at_ms, before, levels, by_rules=self._by_rules
        ).pack()
        return plan


def _status(policies: Policies, levels: tuple[str, ...]) -> dict[str, str]:
    """What the policy counters of an account at these levels are at."""
    return {counter.name: counter.status_at(levels) for counter in policies.counters}


def _rules_of(policies: OperatorPolicies | None) -> Policies:
    return NO_POLICIES if policies is None else policies.policies


def _edition(policies: OperatorPolicies | None) -> str:
    return NONE if policies is None else policies.edition
