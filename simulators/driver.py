"""Runs many simulated sessions over one client and sums them up."""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from time import time

from protocols.diameter.codes import CCRequestType
from simulators.audit import Audit, SessionAudit, Tariff
from simulators.client import ChargingClient, ClientOptions, OnServerRequest
from simulators.messages import Head
from simulators.population import SAMPLE_POSTPAID, SAMPLE_PREPAID, Population, Subscriber
from simulators.summary import Statistics, Summary

Progress = Callable[[int, int], None]
"""(sessions done, sessions in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """What every simulator is told. A value out of its range raises ValueError with one sentence."""

    host: str = "127.0.0.1"
    port: int = 3868
    origin_host: str = "client.simulator.example.net"
    origin_realm: str = "simulator.example.net"
    destination_realm: str = "ocs.example.net"
    sessions: int = 100
    """Sessions, calls and events in all."""
    concurrency: int = 20
    """At a time at most."""
    rate: float = 0.0
    """Sessions begun per second at most; 0: as fast as the others end."""
    seed: int = 1
    """Same seed, same subscribers and same usage; Session-Ids are new in every run."""
    pace: float = 0.0
    """Simulated seconds per second; 1: real time, 0: without any waiting."""
    repeats: float = 0.0
    """Share of requests that are sent twice, 0 to 1."""
    overshoot: float = 0.0
    """Usage beyond an exhausted grant, as a share of it; 0: clients keep to what they were granted."""
    answer_timeout_s: float = 5.0
    prepaid: int = SAMPLE_PREPAID
    postpaid: int = SAMPLE_POSTPAID

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("port", 1, 65535),
            ("sessions", 1, 100_000_000),
            ("concurrency", 1, 100_000),
            ("rate", 0, 1_000_000),
            ("pace", 0, 1_000_000),
            ("repeats", 0, 1),
            ("overshoot", 0, 10),
            ("answer_timeout_s", 0.1, 3600),
        ):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"{name} is {value}; give {lowest} to {highest}")


class Session:
    """What one simulated session has at hand: who, when, and the way to the server.

    Subclasses implement `run`. Simulated time starts at the wall clock and runs at the options' pace; without pace
    it runs ahead.
    """

    tariff: Tariff

    def __init__(self, simulation: "Simulation", index: int, subscriber: Subscriber) -> None:
        options = simulation.options
        self.simulation = simulation
        self.options = options
        self.client = simulation.client
        self.subscriber = subscriber
        self.session_id = f"{options.origin_host};{simulation.started_s};{index};{simulation.nonce}"
        self.random = Random(f"{options.seed}:{index}")
        self.audit = SessionAudit(simulation.audit, self.tariff, self.session_id)
        self.number = -1
        """CC-Request-Number of the newest request."""
        self.elapsed_s = 0.0
        """Simulated time since the session began."""
        self.abort_wanted = False
        """The server asked for the session to end (ASR)."""
        self._interrupted = asyncio.Event()

    async def run(self) -> None:
        """Live from the first request to the last answer."""
        raise NotImplementedError

    def head(self, kind: CCRequestType, *, destination_host: str | None = None) -> Head:
        """What the next request says about itself; counts CC-Request-Number up."""
        self.number += 1
        return Head(
            self.options.origin_host,
            self.options.origin_realm,
            self.options.destination_realm,
            self.session_id,
            self.subscriber,
            kind,
            self.number,
            self.simulation.started_s + int(self.elapsed_s),
            self.client.next_end_to_end(),
            destination_host,
            self.client.state_id,
        )

    async def pass_time(self, seconds: float) -> float:
        """Let simulated time pass; how much has passed, which is less if ``interrupt`` was called meanwhile."""
        if self._interrupted.is_set():
            self._interrupted.clear()
            return 0.0
        if self.options.pace:
            clock = asyncio.get_running_loop().time
            began = clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds / self.options.pace):
                    await self._interrupted.wait()
                self._interrupted.clear()
                seconds = min(seconds, (clock() - began) * self.options.pace)
        self.elapsed_s += seconds
        return seconds

    def interrupt(self) -> None:
        """Have the session look at once at what the server wants of it."""
        self._interrupted.set()


MakeSession = Callable[["Simulation", int, Subscriber], Session]


class Simulation:
    """One run."""

    def __init__(
        self,
        options: SimulationOptions,
        make_session: MakeSession,
        on_request: OnServerRequest | None = None,
        restart_every: int = 0,
    ) -> None:
        """`restart_every`: sessions begun after which the client loses its state, and with it those still open; 0:
        never."""
        self.options = options
        self.statistics = Statistics()
        self.audit = Audit()
        self.started_s = int(time())
        self.nonce = secrets.token_hex(4)
        self.live: dict[str, Session] = {}
        client = ClientOptions(
            options.host,
            options.port,
            options.origin_host,
            options.origin_realm,
            options.repeats,
            options.answer_timeout_s,
        )
        self.client = ChargingClient(client, self.statistics, Random(options.seed), on_request)
        self._make_session = make_session
        self._population = Population(options.prepaid, options.postpaid, seed=options.seed)
        self._numbers = itertools.count()
        self._done = 0
        self._restart_every = restart_every
        self._restart_due = asyncio.Event()

    async def run(self, progress: Progress) -> Summary:
        """All sessions. Raises SimulationError if the server cannot be reached, or not any more."""
        options = self.options
        await self.client.connect()
        loop = asyncio.get_running_loop()
        started = loop.time()
        progress(0, options.sessions)
        try:
            while not await self._life(started, progress):
                self.statistics.restarts += 1
                await self.client.restart()
        finally:
            seconds = loop.time() - started
            await self.client.close()
        return self.statistics.summary(
            seconds=seconds, debited_micro=self.audit.debited_micro, uncertain_micro=self.audit.uncertain_micro
        )

    async def _life(self, started: float, progress: Progress) -> bool:
        """Sessions until all are done, or until the client is to lose its state; whether all are done."""
        self._restart_due.clear()
        lanes = [
            asyncio.create_task(self._lane(started, progress))
            for _ in range(min(self.options.concurrency, self.options.sessions))
        ]
        together = asyncio.gather(*lanes)
        restart = asyncio.create_task(self._restart_due.wait())
        try:
            await asyncio.wait((together, restart), return_when=asyncio.FIRST_COMPLETED)
            if together.done():
                together.result()
            return together.done()
        finally:
            for task in (restart, *lanes):
                task.cancel()
            await asyncio.gather(restart, together, *lanes, return_exceptions=True)

    async def _lane(self, started: float, progress: Progress) -> None:
        """One session after the other, until all have begun."""
        options = self.options
        while (index := next(self._numbers)) < options.sessions:
            session = self._make_session(self, index, self._population.draw())
            if options.rate:
                due = started + index / options.rate
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            self.statistics.sessions += 1
            self.live[session.session_id] = session
            if self._restart_every and (index + 1) % self._restart_every == 0:
                self._restart_due.set()
            try:
                await session.run()
            except asyncio.CancelledError:
                self.statistics.lost += 1
                raise
            finally:
                del self.live[session.session_id]
                self._done += 1
                progress(self._done, options.sessions)
