"""``occ serve`` with ``workers``: a process that runs several charging workers and charges nothing itself.

It binds the listening sockets of all workers, runs the embedded Redis, the outbox and the notices once for all of them,
starts each worker as a process of its own (``occ.worker``), and starts it again should it end.

Asked by SIGUSR1 (``occ restart``), it replaces all workers, one after the other: a new process prepares itself by the
code and settings of that moment; when it could answer, the old one stops accepting, the new one begins to, and the old
one takes leave of its peers and answers what they have asked. The sockets stay open all the while, so nobody is
refused: who comes in between waits for milliseconds. A new process that cannot be prepared leaves the old one where it
is, and the replacement is given up.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from balance.embedded import Address
from occ.companions import Deliveries, KeptRedis
from occ.listening import bound, close, port_of
from occ.reaching import bracketed, reachable
from occ.settings import Settings, load, of_worker
from occ.worker_process import WorkerEndedError, WorkerLateError, WorkerProcess
from occ.workers_file import Replacements, RunningWorkers, WorkerFacts, WorkersFile, write_whole
from occ.yamlmap import ConfigError, shown

log = logging.getLogger("occ.supervisor")

SHORTEST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
"""Before a worker that has ended is started again; each time twice as long ..."""
SOUND_S: Final = 60.0
"""... unless it has worked for so long."""
PREPARE_S: Final = 300.0
"""In which a process that is to replace another one could answer: one that waits for the store holds up nobody else.
Data of an earlier version that it has brought forward by then, it has for the next one as well."""
ANSWER_S: Final = 10.0
"""In which a worker listens, stops listening or takes over."""

PREPARE: Final = "prepare"
LISTEN: Final = "listen"
STOP_LISTENING: Final = "stop-listening"
TAKE_OVER: Final = "take-over"
"""See ``occ.worker.Step``; that module loads the whole server."""


class SupervisorError(Exception):
    """Workers cannot be started or replaced; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Given:
    """What ``occ serve`` was given: every new worker reads its settings by this anew."""

    config: Path | None
    overrides: Mapping[str, str]
    """See ``occ.settings.load``."""
    population: Path | None


@dataclass(slots=True)
class Place:
    """The place of one worker: its number, its identity, its sockets; and the process that has it now."""

    number: int
    origin_host: str
    diameter: tuple[socket.socket, ...]
    diameter_tls: tuple[socket.socket, ...]
    metrics: tuple[socket.socket, ...]
    process: WorkerProcess | None = None
    leaving: WorkerProcess | None = None
    """The one before, while it takes its leave."""
    restarts: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever starts or ends its process."""

    @property
    def name(self) -> str:
        return f"worker {self.number} ({self.origin_host})"

    def close(self) -> None:
        close((*self.diameter, *self.diameter_tls, *self.metrics))


class Supervisor:
    """The workers of one ``occ serve``. Belongs to the main thread's event loop."""

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings = settings
        self._given = given
        self._cleanup = AsyncExitStack()
        self._file = WorkersFile(settings.store.data_dir)
        self._places: list[Place] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._replacing: asyncio.Task[None] | None = None
        self._asked = False
        self._replacements = Replacements()
        self._redis: Address | None = None
        self.redis_address = Address()
        self.redis_program = ""
        self.failed = asyncio.Event()
        """Set when nobody can charge any more; ``failure`` says why."""
        self.failure: Exception | None = None

    # -- starting and stopping -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything, or nothing.

        Raises SupervisorError, CannotListenError, InUseError, EmbeddedRedisError or OSError.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        leaving = self._file.claim()
        self._cleanup.callback(self._file.release)
        self._bind(leaving)
        there = self.settings.store.address
        if there is None:
            redis = KeptRedis(self.settings, self._fail)
            self._cleanup.push_async_callback(redis.stop)
            self._redis = self.redis_address = await redis.start()
            self.redis_program = str(redis.server.program)
        else:
            self.redis_address = there
        self._deliveries = Deliveries(self.redis_address, self.settings)
        self._cleanup.push_async_callback(self._stop_deliveries)
        await self._deliveries.start()
        self._cleanup.push_async_callback(self._stop_workers)
        # The first alone: it lays out an empty store, and looks for what has changed while nobody ran.
        await self._begin(self._places[0], begins=True)
        starts = [asyncio.ensure_future(self._begin(place, begins=False)) for place in self._places[1:]]
        for result in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        self._tell()
        self._keepers = [asyncio.create_task(self._keep(place)) for place in self._places]

    def _bind(self, leaving: bool) -> None:
        """The sockets of all workers. Raises CannotListenError."""
        assert self.settings.workers is not None
        for number in range(1, self.settings.workers + 1):
            settings = of_worker(self.settings, number)
            diameter, tls, metrics = settings.diameter, settings.diameter.tls, settings.metrics
            place = Place(number, diameter.origin_host, (), (), ())
            self._places.append(place)
            self._cleanup.callback(place.close)
            place.diameter = bound(diameter.host, diameter.port, "Diameter", "--diameter-port", leaving)
            if tls.certificate is not None:
                place.diameter_tls = bound(diameter.host, tls.port, "Diameter", "--diameter-tls-port", leaving)
            place.metrics = bound(metrics.host, metrics.port, "metrics", "--metrics-port", leaving)[:1]

    async def stop(self) -> None:
        """End the workers, each when it has answered what it was asked; then what they stood on."""
        await self._cleanup.aclose()

    async def _stop_workers(self) -> None:
        tasks = [*self._keepers, *filter(None, (self._replacing,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        processes = [each for place in self._places for each in (place.process, place.leaving) if each is not None]
        await asyncio.gather(*(each.stop() for each in processes))

    async def _stop_deliveries(self) -> None:
        await self._deliveries.stop()

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.failed.set()

    # -- one worker ----------------------------------------------------------------------------------------------------

    async def _launch(
        self, place: Place, *, begins: bool = False, recounts: bool = False, within_s: float | None = None
    ) -> WorkerProcess:
        """A process that could answer, and does not listen yet.

        Raises WorkerEndedError (WorkerLateError: not ``within_s``), OSError.
        """
        given = self._given
        groups = [[each.fileno() for each in some] for some in (place.diameter, place.diameter_tls, place.metrics)]
        job = {
            "number": place.number,
            "config": None if given.config is None else str(given.config.absolute()),
            "overrides": dict(given.overrides),
            "population": str(given.population) if begins and given.population is not None else None,
            "redis": None if self._redis is None else self._redis.url,
            "diameter": groups[0],
            "diameter_tls": groups[1],
            "metrics": groups[2][0],
            "begins": begins,
            "recounts": recounts,
            "restarts": place.restarts,
            "origin_hosts": [each.origin_host for each in self._places],
        }
        descriptors = [each for group in groups for each in group]
        process = await WorkerProcess.start(place.name, json.dumps(job).encode() + b"\n", descriptors)
        try:
            await process.done(PREPARE, within_s)
        except WorkerLateError as error:
            await process.kill()
            raise WorkerLateError(
                f"it could not answer within {within_s:g} s; what it waited for is in the log, such as a store that is "
                "away"
            ) from error
        except BaseException:
            await process.kill()
            raise
        return process

    async def _begin(
        self, place: Place, *, begins: bool, recounts: bool = False, within_s: float | None = None
    ) -> None:
        """Have nobody's place taken. Raises SupervisorError; then it still is nobody's.

        ``within_s``: how long it may prepare itself; None: as long as it takes, while nobody waits for that.
        """
        process = None
        try:
            process = await self._launch(place, begins=begins, recounts=begins or recounts, within_s=within_s)
            await process.tell(LISTEN, ANSWER_S)
            place.process = process
            await process.tell(TAKE_OVER)
        except (WorkerEndedError, OSError) as error:
            place.process = None
            if process is not None:
                await process.kill()
            raise SupervisorError(f"{place.name} does not start: {error}") from error
        except BaseException:
            if process is not None and place.process is None:
                await process.kill()
            raise

    async def _keep(self, place: Place) -> None:
        """Start a worker again whenever it ends by itself, more and more slowly while it ends soon."""
        clock = asyncio.get_running_loop().time
        pause_s, began_s = SHORTEST_PAUSE_S, clock()
        while True:
            process = place.process
            if process is not None:
                code = await process.ended()
                if place.process is not process:
                    began_s = clock()
                    continue
                log.error("%s (process %d) has ended with status %d", place.name, process.pid, code)
            if clock() - began_s > SOUND_S:
                pause_s = SHORTEST_PAUSE_S
            log.error("%s is started again in %.1f s", place.name, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            async with place.changing:
                if place.process is not process:
                    continue  # replaced meanwhile
                place.process, began_s = None, clock()
                place.restarts += 1
                try:
                    await self._begin(place, begins=False, recounts=True)
                except SupervisorError as error:
                    log.error("%s", error)
                else:
                    log.warning("%s runs again as process %d", place.name, _pid(place))
            self._tell()

    # -- all of them, one after the other ------------------------------------------------------------------------------

    def replace(self) -> None:
        """Begin to replace all workers; while that goes on, it is done once more afterwards."""
        self._asked = True
        self._replacements = Replacements(self._replacements.asked + 1, *_end_of(self._replacements))
        self._tell()
        if self._replacing is None or self._replacing.done():
            self._replacing = asyncio.create_task(self._replace_all())

    async def _replace_all(self) -> None:
        while self._asked:
            self._asked = False
            asked, mistake = self._replacements.asked, ""
            log.info("all workers are replaced, one after the other")
            try:
                settings = load(self._given.config, dict(self._given.overrides))
                self._warn_of(settings)
                for place in self._places:
                    async with place.changing:
                        await self._replace(place)
                    self._tell()
                await self._renew_deliveries(settings)
            except (SupervisorError, ConfigError, OSError) as error:
                mistake = " ".join(str(error).split())
                log.error("the replacement of workers was given up: %s", mistake)
            else:
                log.info("all workers have been replaced")
            self._replacements = Replacements(self._replacements.asked, asked, mistake)
            self._tell()

    async def _replace(self, place: Place) -> None:
        """Another process in a place. Raises SupervisorError; then the old one has it, or nobody."""
        old = place.process
        if old is None or not old.running:
            place.process = None
            await self._begin(place, begins=False, recounts=True, within_s=PREPARE_S)
            return
        try:
            new = await self._launch(place, within_s=PREPARE_S)
        except (WorkerEndedError, OSError) as error:
            raise SupervisorError(
                f"{place.name} stays process {old.pid}, as a new one does not start: {error}"
            ) from error
        try:
            try:
                await old.tell(STOP_LISTENING, ANSWER_S)
            except WorkerEndedError as error:
                log.warning("%s (process %d) is replaced, though %s", place.name, old.pid, error)
            await new.tell(LISTEN, ANSWER_S)
        except WorkerEndedError as error:
            # Nobody listens now: the keeper starts another one when the old one has gone.
            await asyncio.gather(new.kill(), old.stop())
            raise SupervisorError(f"{place.name} is started again, as its successor failed: {error}") from error
        except BaseException:
            await new.kill()
            raise
        place.process, place.leaving = new, old
        await old.stop()
        place.leaving = None
        try:
            await new.tell(TAKE_OVER)
        except WorkerEndedError as error:
            raise SupervisorError(f"{place.name} is started again, as its new process failed: {error}") from error
        log.info("%s is process %d now, it was process %d", place.name, new.pid, old.pid)

    async def _renew_deliveries(self, settings: Settings) -> None:
        """Outbox and notices by the code and settings of now. Raises OSError."""
        await self._deliveries.stop()
        self._deliveries = Deliveries(self.redis_address, settings)
        await self._deliveries.start()

    def _warn_of(self, settings: Settings) -> None:
        """Say what has been changed that is the supervisor's own, and stays until it is started anew itself."""
        for name in ("workers", "store", "diameter.host", "diameter.port", "diameter.tls.port", "metrics"):
            before, now = (_setting(each, name) for each in (self.settings, settings))
            if before != now:
                log.warning("the settings of %s have changed; they hold when all of OCC is started anew", name)

    # -- telling others ------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Have all workers read catalogue and policies anew."""
        for place in self._places:
            if place.process is not None:
                place.process.signal(signal.SIGHUP)

    @property
    def workers(self) -> tuple[WorkerFacts, ...]:
        """What runs, by number."""
        host = bracketed(reachable(self.settings.metrics.host))
        return tuple(
            WorkerFacts(
                number=place.number,
                origin_host=place.origin_host,
                pid=_pid(place),
                port=port_of(place.diameter),
                tls_port=port_of(place.diameter_tls),
                metrics=f"{host}:{port_of(place.metrics)}",
                restarts=place.restarts,
            )
            for place in self._places
        )

    def _tell(self) -> None:
        """Into the file that commands look into, and the one that Prometheus does."""
        workers = self.workers
        targets = self.settings.metrics.targets_file
        try:
            self._file.write(RunningWorkers(os.getpid(), workers, self._replacements))
            if targets is not None:
                write_whole(targets, targets_of(workers))
        except OSError as error:
            log.error("what runs cannot be told: %s", error)


def targets_of(workers: tuple[WorkerFacts, ...]) -> str:
    """What Prometheus reads (``file_sd_configs``): JSON, which is YAML as well."""
    targets = [
        {"targets": [each.metrics], "labels": {"process": "worker", "worker": each.origin_host}} for each in workers
    ]
    return json.dumps(targets, indent=1) + "\n"


def _pid(place: Place) -> int:
    return place.process.pid if place.process is not None and place.process.running else 0


def _end_of(replacements: Replacements) -> tuple[int, str]:
    return replacements.finished, replacements.mistake


def _setting(settings: object, path: str) -> object:
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


async def _serve(settings: Settings, given: Given, on_ready: Callable[[Supervisor], None]) -> None:
    supervisor = Supervisor(settings, given)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    for name in (signal.SIGHUP, signal.SIGUSR1):
        loop.add_signal_handler(name, lambda: None)  # nothing to reload or to replace yet
    ends = [asyncio.create_task(stopping.wait()), asyncio.create_task(supervisor.failed.wait())]
    starting = asyncio.create_task(supervisor.start())
    try:
        await asyncio.wait((starting, *ends), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
            loop.add_signal_handler(signal.SIGUSR1, supervisor.replace)
            on_ready(supervisor)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        for task in ends:
            task.cancel()
        await supervisor.stop()
    if supervisor.failure is not None:
        raise supervisor.failure


def run(settings: Settings, given: Given, on_ready: Callable[[Supervisor], None] = print) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reads catalogue and policies anew, SIGUSR1 replaces all workers.

    ``settings.workers`` says how many. Raises as ``Supervisor.start``.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    log.info("%d workers, settings of %s", settings.workers or 0, shown(given.config) if given.config else "OCC")
    asyncio.run(_serve(settings, given, on_ready))
