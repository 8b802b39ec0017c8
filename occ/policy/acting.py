"""What follows when an account comes to other levels: clients are asked anew, others are told.

A server takes the transitions that commits have left (``balance.transitions``), from whatever process they came. For
each it asks the clients of the sessions concerned (``occ.reauthorisation`` finds the way and repeats), tells whoever
wants to know of transitions, and hands out the notices and events of the rules that have begun or ceased to hold. Only
when all of this has come to an end the transition is struck: a server that dies in between leaves it to be done again.
So whoever is told may be told twice, and knows it by the transition's account and version.
"""

import asyncio
import json
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from balance.accounts import Account
from balance.directory import read_account
from balance.keys import POLICY_EVENTS
from balance.model import AccountKind
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store
from balance.structure import paid_subscribers
from balance.transitions import Entry, TransitionReader, TransitionSettings
from occ.charging import Charging
from occ.masking import masked
from occ.policy.concerned import Ask, concerned, overtaken
from occ.policy.watching import Transition
from occ.reauthorisation import Reauthorisation
from occ.server_requests import Result, ServerRequest
from policies.policy import Policies
from policies.rules import Crossed, Rule

log = logging.getLogger("occ.policy.acting")

EVENTS_KEPT: Final = 10_000
"""The bound of the stream of events, about."""

MEMBERS_LOOKED_AT: Final = 1000
"""Subscribers of an account that are looked at to see whether a rule is about one of them."""

LAG_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the time from a change to this server's acting on it."""


@dataclass(frozen=True, slots=True)
class Due:
    """A notice that is due."""

    notice_id: bytes
    """The same however often the transition is acted on."""
    template: str
    rule: str
    """Name of the rule that began or ceased to hold."""
    restored: bool
    """It ceased."""
    account: Account
    """As it is now."""
    transition: Transition


OnTransition = Callable[[bytes, int], Awaitable[None]]
"""(account, now in ms): it has come to other levels."""

OnNotice = Callable[[Due], Awaitable[None]]


@dataclass(slots=True)
class ActingStatistics:
    """Counted since this server started."""

    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(level, "entered" or "left")."""
    actions: Counter[str] = field(default_factory=Counter)
    """What rules did to sessions and subscribers: bar, throttle, notify, ... (``occ.policy.concerned.action``)."""
    pushes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(command, meaning): requests to clients for the policies' sake, by what came of them."""
    failures: int = 0
    """Transitions that could not be acted on in full."""
    lag_seconds: list[int] = field(default_factory=lambda: [0] * (len(LAG_BOUNDS_S) + 1))
    lag_seconds_sum: float = 0.0
    under_way: int = 0

    def began(self, transition: Transition, lag_s: float) -> None:
        self.lag_seconds[bisect_left(LAG_BOUNDS_S, lag_s)] += 1
        self.lag_seconds_sum += lag_s
        for level in transition.after:
            if level not in transition.before:
                self.transitions[level, "entered"] += 1
        for level in transition.before:
            if level not in transition.after:
                self.transitions[level, "left"] += 1


class Acting:
    """Acts on transitions for one server. Belongs to the event loop it is made in."""

    def __init__(
        self,
        charging: Charging,
        reauthorisation: Reauthorisation,
        worker: bytes,
        clock: Callable[[], int],
        settings: TransitionSettings | None = None,
    ) -> None:
        """``worker``: this server's name, its own among those of the store; ``clock``: ms since the Unix epoch, UTC."""
        self.statistics = ActingStatistics()
        self.on_transition: list[OnTransition] = []
        self.on_notice: list[OnNotice] = []
        self._charging = charging
        self._store = charging.store
        self._reauthorisation = reauthorisation
        self._clock = clock
        self._reader = TransitionReader(charging.store, worker, self._take, settings)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Act until cancelled; an unreachable Redis is waited for."""
        try:
            await self._reader.run()
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, entry: Entry) -> None:
        self._task(self._act(entry))

    async def _act(self, entry: Entry) -> None:
        self.statistics.under_way += 1
        try:
            if entry.transition:  # else it was struck before, and only its place in the list was left
                pushes = await self._carry_out(Transition.unpack(entry.transition))
                self._reader.only_waits(entry)
                await asyncio.gather(*pushes)
        except StoreUnavailableError:
            self._reader.give_back(entry)
            return
        except Exception:  # one transition's fault must not come back for ever
            self.statistics.failures += 1
            log.exception("a transition could not be acted on")
        finally:
            self.statistics.under_way -= 1
        self._reader.finish(entry)

    async def _carry_out(self, transition: Transition) -> "list[asyncio.Task[None]]":
        """Do all of it but wait for clients, which are being asked. Raises StoreUnavailableError: it has to be done
        again.
        """
        policies = self._policies()
        account = await read_account(self._store, transition.account_id)
        if policies is None or account is None:
            return []
        now_ms = self._clock()
        self.statistics.began(transition, max(0, now_ms - transition.at_ms) / 1000)
        asks: list[Ask] = []
        if not transition.by_rules:  # whoever put the rules in force has asked, knowing those before
            asks = concerned(
                account,
                lambda case: policies.decide(case, transition.before, now_ms),
                lambda case: policies.decide(case, account.levels, now_ms),
                transition,
            )
            asked = {each.session_key for each in asks}
            reach = overtaken(account, lambda case: policies.room(case, account, now_ms, account.levels)[0], transition)
            asks += [each for each in reach if each.session_key not in asked]
        pushes = [self.push(account, ask, transition.at_ms) for ask in asks]
        crossed = Crossed()
        if not transition.by_rules:
            crossed = await self._crossed(policies, account, transition, now_ms)
        if asks or transition.before != transition.after:
            _log_transition(transition, asks, crossed)
        await self._tell(account, transition, crossed, now_ms)
        return pushes

    def _policies(self) -> Policies | None:
        rules = self._charging.rules.policies
        return None if rules is None else rules.policies

    def push(self, account: Account, ask: Ask, since_ms: int) -> "asyncio.Task[None]":
        """Ask a client; it begins at once. ``since_ms``: when what it is asked for came about."""
        for name in ask.actions:
            self.statistics.actions[name] += 1
        request = ServerRequest(
            ask.command, account.account_id, ask.session_key, rating_group=ask.rating_group, since_ms=since_ms
        )
        return self._task(self._count(ask, self._reauthorisation.push(request, account)))

    async def _count(self, ask: Ask, pushed: asyncio.Future[Result]) -> None:
        self.statistics.pushes[ask.command.value, (await pushed).meaning.value] += 1

    def _task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _crossed(self, policies: Policies, account: Account, transition: Transition, now_ms: int) -> Crossed:
        """What is to be told; the account's subscribers are looked at only where a rule is about some of them."""
        found = policies.crossed(transition.before, transition.after, account.kind, now_ms)
        if any(rule.plans or rule.segments for rule in (*found.begun, *found.ended)):
            members: set[tuple[str, str]] = set()
            looked_at = 0
            async for page in paid_subscribers(self._store, account.account_id):
                members.update((each.plan_at(now_ms), each.segment) for each in page)
                looked_at += len(page)
                if looked_at >= MEMBERS_LOOKED_AT:
                    break
            found = policies.crossed(transition.before, transition.after, account.kind, now_ms, members)
        return found

    async def _tell(self, account: Account, transition: Transition, crossed: Crossed, now_ms: int) -> None:
        # Whoever has to wait for somebody else, as policy nodes are waited for, keeps no notice waiting.
        hooks = asyncio.gather(*(self._safely(hook(account.account_id, now_ms)) for hook in self.on_transition))
        due = [_due(rule, rule.notify, False, account, transition) for rule in crossed.begun if rule.notify]
        due += [_due(rule, rule.restored, True, account, transition) for rule in crossed.ended]
        events = [
            (each.rule, {"notice": each.template, "notice_id": each.notice_id.decode("utf-8", "backslashreplace")})
            for each in due
        ]
        events += [(rule.name, {"event": rule.emit}) for rule in crossed.begun if rule.emit]
        for each in due:
            self.statistics.actions["restored" if each.restored else "notify"] += 1
            for tell in self.on_notice:
                await self._safely(tell(each))
        if len(events) > len(due):
            self.statistics.actions["emit"] += len(events) - len(due)
        await asyncio.gather(hooks, *(self._note(account, transition, *event) for event in events))

    async def tell_of(self, account_id: bytes) -> None:
        """Have those who want to know of transitions look at an account: its levels mean something else now."""
        now_ms = self._clock()
        for hook in self.on_transition:
            await self._safely(hook(account_id, now_ms))

    async def _safely(self, told: Awaitable[None]) -> None:
        """What goes wrong with one that is told keeps nothing from the others. Raises StoreUnavailableError."""
        try:
            await told
        except StoreUnavailableError:
            raise
        except Exception:
            self.statistics.failures += 1
            log.exception("somebody could not be told of a transition")

    async def _note(self, account: Account, transition: Transition, rule: str, what: dict[str, str]) -> None:
        """Write an event, or a notice, where whoever looks after the operator's systems reads it."""
        document = what | {
            "rule": rule,
            "account": account.account_id.decode("utf-8", "backslashreplace"),
            "version": transition.version,
            "kind": AccountKind(account.kind).name.lower(),
            "at_ms": transition.at_ms,
            "before": list(transition.before),
            "after": list(transition.after),
        }
        await note_event(self._store, document)


async def note_event(store: Store, document: dict[str, object]) -> None:
    """Append to the bounded stream of events. Raises StoreUnavailableError; a store that refuses is logged."""
    try:
        await store.call("XADD", POLICY_EVENTS, "MAXLEN", "~", EVENTS_KEPT, "*", "e", json.dumps(document))
    except StoreUnavailableError:
        raise
    except StoreError as error:
        log.error("an event was not written: %s", error)


def _due(rule: Rule, template: str, restored: bool, account: Account, transition: Transition) -> Due:
    name = b"%b:%d:%b" % (account.account_id, transition.version, f"{rule.name}:{template}".encode())
    return Due(name, template, rule.name, restored, account, transition)


def _log_transition(transition: Transition, asks: list[Ask], crossed: Crossed) -> None:
    """One line, by which the account is recognised by who knows it."""
    told = [rule.notify for rule in crossed.begun if rule.notify] + [rule.restored for rule in crossed.ended]
    events = [rule.emit for rule in crossed.begun if rule.emit]
    log.info(
        "account %s is at %s, before at %s%s: %s%s%s",
        masked(transition.account_id),
        ", ".join(transition.after) or "no level",
        ", ".join(transition.before) or "none",
        " (the rules have changed)" if transition.by_rules else "",
        "; ".join(f"{ask.command} ({', '.join(ask.actions)})" for ask in asks) or "no session to ask",
        f"; notices {', '.join(told)}" if told else "",
        f"; events {', '.join(events)}" if events else "",
    )
