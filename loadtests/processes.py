"""The processes of a run: the server under test, the generator, the floor's client and the rating of calls."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
LONGEST_LINE: Final = 1 << 20
"""Octets of a result of the generator; the histogram of an interval is some thousand to some ten thousand."""
ROOT: Final = Path(__file__).resolve().parent.parent


class BenchError(Exception):
    """The run cannot go on; one sentence says why."""


def admit_all(requests: int) -> dict[str, str]:
    """Variables of a server that turns nobody away with so many requests under way: stalls are to show as latency."""
    return {"OCC_CHARGING_IN_FLIGHT_LIMIT": str(requests), "OCC_CHARGING_QUEUE_DELAY_MS": "60000"}


class Worker:
    """One server process with settings of its own."""

    def __init__(
        self,
        command: Sequence[str],
        redis_url: str,
        data_dir: Path,
        partitions: int,
        admission: Mapping[str, str],
        name: str = "occ1",
    ) -> None:
        """`command` is given its settings in OCC_ variables and prints one line of JSON when it listens.

        `admission`: how much is admitted, as more such variables; see `admit_all`. `name`: the first label of its
        Origin-Host; each server on one store has its own.
        """
        self.port = 0
        """Its Diameter port, once it has started."""
        self._command = command
        self._log = data_dir / f"{name}.log"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("OCC_")} | {
            "OCC_DIAMETER_HOST": "127.0.0.1",
            "OCC_DIAMETER_PORT": "0",
            "OCC_DIAMETER_ORIGIN_HOST": f"{name}.ocs.example.net",
            "OCC_METRICS_PORT": "0",
            "OCC_STORE_MODE": "external",
            "OCC_STORE_URL": redis_url,
            "OCC_STORE_DATA_DIR": str(data_dir / name),
            "OCC_STORE_PARTITIONS": str(partitions),
            "OCC_LOG_LEVEL": "warning",
            **admission,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Launch it and wait until it says where it listens. Raises BenchError with what it said instead."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        try:
            announced = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
            self.port = int(json.loads(announced)["diameter"]["port"])
        except TimeoutError:
            raise BenchError(f"the server does not start within {START_SECONDS:g} s: {self.said()}") from None
        except (ValueError, KeyError, TypeError):
            raise BenchError(f"the server does not say where it listens: {self.said()}") from None

    def said(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(lines[-5:]) or "it said nothing"

    def complaints(self) -> list[str]:
        """Lines of its log at level ERROR or above."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return [row for row in text.splitlines() if " ERROR " in row or " CRITICAL " in row]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> int:
        """SIGTERM, then wait; its exit status. Killed if it does not end in time."""
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        return process.returncode or 0


OnMark = Callable[[dict[str, Any]], Awaitable[None]]


class GeneratorProcess:
    """The generator, commanded over its standard input and output."""

    def __init__(
        self,
        port: int,
        peers: int,
        accounts: int,
        sessions: int,
        seed: int,
        module: str = "loadtests.generator",
        **more: int,
    ) -> None:
        """`more`: further options of the generator, with underscores."""
        self._module = module
        self._options = {"port": port, "peers": peers, "accounts": accounts, "sessions": sessions, "seed": seed} | more
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Launch it and wait until its peers are open. Raises BenchError."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            *_options(self._options),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        await self._result(None)

    async def do(self, what: str, on_mark: OnMark | None = None, **arguments: Any) -> dict[str, Any]:
        """One command; `on_mark` is called at the start and the end of its measured interval."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._result(on_mark)

    async def _result(self, on_mark: OnMark | None) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            row = await self._process.stdout.readline()
            if not row:
                raise BenchError("the load generator ended without a result")
            said: dict[str, Any] = json.loads(row)
            if "error" in said:
                raise BenchError(f"the load generator stopped: {said['error']}")
            if "result" in said:
                result: dict[str, Any] = said["result"]
                return result
            if on_mark is not None:
                await on_mark(said)

    async def stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def run_floor(cores: set[int], plans: Sequence[int], **options: Any) -> list[dict[str, Any]]:
    """The floor's client with these options, on these cores; what it measured with each number of plans per call.

    Raises BenchError.
    """
    arguments = [*_options(options), "--plans", *map(str, plans)]
    result: list[dict[str, Any]] = await _run("loadtests.floor", "the floor", cores, arguments)
    return result


async def run_rating(cores: set[int], numbers: int) -> list[dict[str, Any]]:
    """What a rating call costs by the length of the price list, shortest first; see `loadtests.destinations.Cost`.

    Raises BenchError.
    """
    options = ["--json", "--numbers", str(numbers)]
    result: list[dict[str, Any]] = await _run("loadtests.destinations", "rating", cores, options)
    return result


async def _run(module: str, what: str, cores: set[int], options: Sequence[str]) -> Any:
    """A module that prints its result as JSON, in a process of its own, on these cores. Raises BenchError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *options,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    if cores:
        os.sched_setaffinity(process.pid, cores)
    output, errors = await process.communicate()
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines()
        raise BenchError(f"{what} could not be measured: {said[-1] if said else process.returncode}")
    return json.loads(output)


def _options(values: dict[str, Any]) -> list[str]:
    return [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
