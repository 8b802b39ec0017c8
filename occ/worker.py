"""One worker of several: ``python -m occ.worker``, as ``occ.supervisor`` starts it.

It is told what to do over its standard input and tells what it has done over its standard output, a line each. The
first line is its job (``Job``); then it prepares itself and says so. What follows are the steps of ``Step``. When the
input ends, as also happens when the supervisor dies, or on SIGTERM, it takes leave of its peers and ends.

Several processes may be the same worker for a moment: one that goes and one that comes. They share the listening
sockets, so what neither has accepted yet waits for the one that comes.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from socket import socket
from typing import Any, Final

import uvloop

from balance.embedded import Address, EmbeddedRedisError
from balance.resp import StoreError
from occ.server import AsWorker, OnlineChargingServer
from occ.settings import Settings, load, of_worker
from occ.yamlmap import ConfigError

log = logging.getLogger("occ.worker")

READY_CHECK_S: Final = 0.05
STORE_PAUSE_S: Final = 0.5
_LONGEST_LINE: Final = 1 << 20


class Step(Enum):
    """What a supervisor tells a worker to do. It answers each with ``{"done": step, …}``."""

    PREPARE = "prepare"
    """Not told: it begins with that, and has done it when it could answer requests."""
    LISTEN = "listen"
    """Let clients in."""
    STOP_LISTENING = "stop-listening"
    """Let nobody in any more; those that are connected stay."""
    TAKE_OVER = "take-over"
    """It is the only process of its identity: it may dial peers and act on transitions."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker needs to know. Settings it reads itself, so that a new process goes by new ones."""

    number: int
    """From 1."""
    config: str | None
    overrides: dict[str, str]
    """See ``occ.settings.load``."""
    population: str | None
    redis: str | None
    """URL of the supervisor's embedded Redis; None: the settings name an external one."""
    diameter: list[int]
    """Descriptors of listening sockets, and so on."""
    diameter_tls: list[int]
    metrics: int
    begins: bool
    """See ``occ.server.AsWorker``, and so on."""
    recounts: bool
    restarts: int
    origin_hosts: list[str] = field(default_factory=list)

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> "Job":
        """The supervisor may be of an earlier or later version than this process: what it says beyond is passed over,
        and a field that is new here needs a default."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in json.loads(line).items() if name in known})

    def settings(self) -> Settings:
        """Raises ConfigError."""
        return of_worker(load(None if self.config is None else Path(self.config), self.overrides), self.number)

    def part(self) -> AsWorker:
        return AsWorker(
            None if self.redis is None else Address.parse(self.redis),
            tuple(socket(fileno=each) for each in self.diameter),
            tuple(socket(fileno=each) for each in self.diameter_tls),
            socket(fileno=self.metrics),
            self.begins,
            self.recounts,
            self.restarts,
            tuple(self.origin_hosts),
        )


def _tell(**said: Any) -> None:
    with suppress(BrokenPipeError):  # the supervisor is gone: the input tells that as well
        os.write(sys.stdout.fileno(), json.dumps(said).encode() + b"\n")


class Worker:
    """The process's side of the conversation."""

    def __init__(self, job: Job, settings: Settings, told: asyncio.StreamReader) -> None:
        population = None if job.population is None else Path(job.population)
        self._server = OnlineChargingServer(settings, population, part=job.part())
        self._told = told
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is to end, or cannot go on: raises as ``OnlineChargingServer.start``."""
        loop, server = asyncio.get_running_loop(), self._server
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        await server.prepare()
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            while server.hindrances():
                if self._stop.is_set() or self._told.at_eof():
                    return  # while the store is away nobody else would notice that the supervisor is gone
                await asyncio.sleep(READY_CHECK_S)
            _tell(done=Step.PREPARE.value)
            ends = [asyncio.create_task(each) for each in (self._obey(), self._stop.wait(), server.failed.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in ends:
                task.cancel()
            for result in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
        finally:
            await server.stop()
        if server.failure is not None:
            raise server.failure

    async def _obey(self) -> None:
        """Do what is told, until nothing more can come."""
        server = self._server
        while line := await self._told.readline():
            step = Step(line.decode().strip())
            if step is Step.LISTEN:
                await server.listen()
                _tell(done=step.value, port=server.diameter_port, tls_port=server.diameter_tls_port)
                continue
            if step is Step.STOP_LISTENING:
                server.stop_listening()
            elif step is Step.TAKE_OVER:
                await self._take_over()
            _tell(done=step.value)

    async def _take_over(self) -> None:
        while not self._told.at_eof():
            try:
                await self._server.take_over()
            except StoreError as error:
                log.warning("this worker takes over when the store can be reached: %s", error)
                await asyncio.sleep(STORE_PAUSE_S)
            else:
                return

    def _reload(self) -> None:
        async def reload_all() -> None:
            await self._server.catalogue_reload.reload()
            await self._server.policy_reload.reload()

        task = asyncio.get_running_loop().create_task(reload_all())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.StreamReader(_LONGEST_LINE)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    try:
        job = Job.read(await told.readline())
        settings = job.settings()
        name = settings.diameter.origin_host.partition(".")[0]
        logging.basicConfig(
            level=settings.log_level.upper(),
            stream=sys.stderr,
            format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s",
        )
        await Worker(job, settings, told).run()
    finally:
        transport.close()


def main() -> None:
    """Until SIGTERM, which the process obeys from here on; SIGHUP before it can be obeyed changes nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        uvloop.run(_main())
    except (ConfigError, EmbeddedRedisError, StoreError, OSError) as error:
        _tell(failed=" ".join(str(error).split()))
        sys.exit(1)


if __name__ == "__main__":
    main()
