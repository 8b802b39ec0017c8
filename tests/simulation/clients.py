"""Clients of the simulation: they open sessions, use what they are granted, repeat what is not answered, fall silent.

A client remembers what it reported and which reports were answered; that, and nothing of the server, is what the
auditor predicts from.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from balance.plans import Outcome
from balance.records import pack_outcome
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
SUCCESS, TOO_BUSY = 2001, 3004

DATA: Final = 10
PORTAL: Final = 20
VOICE: Final = 100
SMS: Final = 200
CONTEXTS: Final = {DATA: b"32251@3gpp.org", PORTAL: b"32251@3gpp.org", VOICE: b"32260@3gpp.org", SMS: b"32274@3gpp.org"}
OCTETS, SECONDS, EVENTS = 1, 2, 3
UNITS: Final = {DATA: OCTETS, PORTAL: OCTETS, VOICE: SECONDS, SMS: EVENTS}

Send = Callable[[CreditControlRequest, Callable[[Outcome], None]], None]
"""To some worker, by a network that may lose the request or its answer."""


@dataclass(slots=True)
class Said:
    """What one session or event reported of one service."""

    certain: int = 0
    """Units in reports that were answered, and debited by that answer."""
    doubtful: list[int] = field(default_factory=list)
    """Units in reports of which the client does not know whether they were debited; each as a whole or not at all."""


@dataclass(slots=True)
class Behaviour:
    """How a population of clients behaves; all of these are probabilities."""

    duplicate: float = 0.1
    """A request is sent twice at about the same time."""
    echo: float = 0.1
    """A request comes once more, long after it was answered."""
    overshoot: float = 0.1
    """More is used than was granted."""
    falls_silent: float = 0.08
    """The client reports nothing until long after supervision has ended the session."""
    abandons: float = 0.05
    """The client never reports again."""


class Client:
    """One session or event after another, for one subscriber."""

    def __init__(
        self, name: bytes, subscriber: bytes, random: Random, send: Send, behaviour: Behaviour, faults: list[str]
    ) -> None:
        self.name = name
        self.subscriber = subscriber
        self.random = random
        self.send = send
        self.behaviour = behaviour
        self.faults = faults
        """What must not be, in words."""
        self.said: dict[tuple[bytes, int], Said] = {}
        """By Session-Id and Rating-Group."""
        self.answered = 0
        self.repeats = 0
        self._sessions = 0
        self._loop = asyncio.get_running_loop()
        self._later: list[asyncio.Task[None]] = []

    async def run(self, sessions: int) -> None:
        for _ in range(sessions):
            await asyncio.sleep(self.random.uniform(0.0, 20.0))
            kind = self.random.choice([(DATA,), (DATA, PORTAL), (DATA, PORTAL), (VOICE,), (SMS,)])
            self._sessions += 1
            session_id = b"%b;%d;%d" % (self.name, self._sessions, self.random.getrandbits(32))
            if kind == (SMS,):
                await self._event(session_id)
            else:
                await self._session(session_id, kind)
        if self._later:
            await asyncio.gather(*self._later)

    # -- what clients do -----------------------------------------------------------------------------------------

    async def _event(self, session_id: bytes) -> None:
        count = self.random.randint(1, 3)
        outcome = await self._ask(session_id, EVENT, 0, {SMS: (None, count)})
        if outcome.result_code == SUCCESS:
            self._said(session_id, SMS).certain += sum(grant.units for grant in outcome.grants if grant.units > 0)
        elif outcome.result_code != 4012:
            self._said(session_id, SMS).doubtful.append(count)

    async def _session(self, session_id: bytes, groups: tuple[int, ...]) -> None:
        random = self.random
        outcome = await self._ask(session_id, INITIAL, 0, {group: (None, self._wanted(group)) for group in groups})
        if outcome.result_code != SUCCESS:
            return
        granted = dict.fromkeys(groups, 0)
        self._take(granted, outcome)
        number = 0
        for number in range(1, random.randint(1, 7)):
            if random.random() < self.behaviour.abandons:
                return
            await self._pause()
            # Some requests leave a service out: what it was granted stays good.
            named = [group for group in groups if random.random() < 0.85] or [groups[0]]
            asked: dict[int, tuple[int | None, int | None]] = {}
            for group in named:
                wants = self._wanted(group) if random.random() < 0.9 else None
                asked[group] = (self._use(group, granted), wants)
            if not await self._report(session_id, UPDATE, number, asked, granted):
                return
        await self._pause()
        left: dict[int, tuple[int | None, int | None]] = {group: (self._use(group, granted), None) for group in groups}
        await self._report(session_id, TERMINATION, number + 1, left, granted)

    async def _report(
        self,
        session_id: bytes,
        kind: int,
        number: int,
        asked: dict[int, tuple[int | None, int | None]],
        granted: dict[int, int],
    ) -> bool:
        """Send a report; whether the session goes on."""
        for group in asked:
            granted[group] = 0
        outcome = await self._ask(session_id, kind, number, asked)
        for group, (used, _) in asked.items():
            if not used:
                continue
            if outcome.result_code == SUCCESS:
                self._said(session_id, group).certain += used
            else:
                self._said(session_id, group).doubtful.append(used)
        if outcome.result_code != SUCCESS:
            return False
        self._take(granted, outcome)
        return True

    def _said(self, session_id: bytes, group: int) -> Said:
        return self.said.setdefault((session_id, group), Said())

    @staticmethod
    def _take(granted: dict[int, int], outcome: Outcome) -> None:
        for grant in outcome.grants:
            if grant.result_code == SUCCESS and grant.units > 0:
                granted[grant.rating_group] = grant.units

    def _wanted(self, group: int) -> int:
        """Units to ask for; 0: the server decides."""
        if self.random.random() < 0.3:
            return 0
        return self.random.randint(1, 40) if UNITS[group] == SECONDS else self.random.randint(1, 3_000_000)

    def _use(self, group: int, granted: dict[int, int]) -> int:
        amount = granted[group]
        used = self.random.choice([amount, amount, self.random.randint(0, amount)])
        if UNITS[group] == OCTETS and self.random.random() < self.behaviour.overshoot:
            used += self.random.randint(1, 2_000_000)
        return used

    async def _pause(self) -> None:
        if self.random.random() < self.behaviour.falls_silent:
            await asyncio.sleep(self.random.uniform(130.0, 400.0))
        else:
            # Long enough for every second of a grant to have passed: other figures would not be believed.
            await asyncio.sleep(self.random.uniform(40.0, 59.0))

    # -- one request ---------------------------------------------------------------------------------------------

    async def _ask(
        self, session_id: bytes, kind: int, number: int, asked: dict[int, tuple[int | None, int | None]]
    ) -> Outcome:
        """Send a request, again and again until it is answered. All answers it ever gets must be the same."""
        request = self._request(session_id, kind, number, asked)
        answers: list[Outcome] = []
        first: asyncio.Future[Outcome] = self._loop.create_future()

        def answered(outcome: Outcome) -> None:
            if outcome.result_code == TOO_BUSY:
                return  # the store was away; whether it was charged nobody knows, and a repeat will tell
            answers.append(outcome)
            if pack_outcome(outcome) != pack_outcome(answers[0]):
                self.faults.append(f"{session_id!r} request {kind}/{number} was answered {answers[0]}, then {outcome}")
            if not first.done():
                first.set_result(outcome)

        self.send(request, answered)
        if self.random.random() < self.behaviour.duplicate:
            self._loop.call_later(self.random.uniform(0.0, 0.05), self.send, request, answered)
        while not first.done():
            await asyncio.wait([first], timeout=self.random.uniform(1.0, 4.0))
            if not first.done():
                self.repeats += 1
                self.send(request, answered)
        self.answered += 1
        if self.random.random() < self.behaviour.echo:
            self._later.append(self._loop.create_task(self._echo(request, answered)))
        return first.result()

    async def _echo(self, request: CreditControlRequest, answered: Callable[[Outcome], None]) -> None:
        await asyncio.sleep(self.random.uniform(1.0, 120.0))
        self.send(request, answered)

    def _request(
        self, session_id: bytes, kind: int, number: int, asked: dict[int, tuple[int | None, int | None]]
    ) -> CreditControlRequest:
        services = []
        for group, (used, wanted) in asked.items():
            reported = () if used is None else (_units(group, used),)
            services.append(
                ServiceRequest(group, (), None if wanted is None else _units(group, wanted or None), reported)
            )
        return CreditControlRequest(
            0xC0,
            1,
            2,
            session_id,
            self.name,
            b"example.net",
            b"example.org",
            CONTEXTS[next(iter(asked))],
            kind,
            number,
            subscriptions=((0, self.subscriber),),
            requested_action=0 if kind == EVENT else None,
            services=tuple(services),
        )


def _units(group: int, amount: int | None) -> Units:
    unit = UNITS[group]
    if unit == OCTETS:
        return Units(total_octets=amount)
    return Units(time=amount) if unit == SECONDS else Units(service_specific=amount)
