"""A worker's process as its supervisor sees it: started, told what to do, ended. The other side is ``occ.worker``."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("occ.worker_process")

END_S: Final = 30.0
"""Longest time in which a worker answers what it was asked and ends, before it is killed."""
_PACKAGES: Final = str(Path(__file__).resolve().parent.parent)


class WorkerEndedError(Exception):
    """The process has ended, or does not do what it is told; the message says why, a clause."""


class WorkerLateError(WorkerEndedError):
    """It has not done in time what it was told."""


class WorkerProcess:
    """One process. Belongs to the event loop that it is started in."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._mistake = ""
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, name: str, job: bytes, descriptors: Sequence[int]) -> "WorkerProcess":
        """Start one; it prepares itself (``done("prepare")``). Raises OSError if that is impossible."""
        # The child must find the packages where this process found them, installed or not.
        path = os.pathsep.join([_PACKAGES, os.environ.get("PYTHONPATH", "")])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "occ.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=tuple(descriptors),
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
            # Ctrl-C in a terminal reaches the supervisor alone, which then ends its workers.
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(job)
        return cls(name, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def ended(self) -> int:
        """Wait for its end; its exit status, below zero: the signal that killed it."""
        return await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError, OSError):
            while line := await self._process.stdout.readline():
                said = json.loads(line)
                if "failed" in said:
                    self._mistake = str(said["failed"])
                else:
                    self._said.put_nowait(said)
        self._said.put_nowait(None)

    async def tell(self, step: str, within_s: float | None = None) -> dict[str, Any]:
        """Have it take a step, and wait until it has; what it says of it. Raises WorkerEndedError."""
        assert self._process.stdin is not None
        self._process.stdin.write(step.encode() + b"\n")
        return await self.done(step, within_s)

    async def done(self, step: str, within_s: float | None = None) -> dict[str, Any]:
        """Wait until it has taken a step; what it says of it. Raises WorkerEndedError if it ends before, or is late."""
        try:
            async with asyncio.timeout(within_s):
                said = await self._said.get()
        except TimeoutError:
            raise WorkerLateError(f"it does not {step} within {within_s:g} s") from None
        if said is None:
            self._said.put_nowait(None)
            code = await self.ended()
            raise WorkerEndedError(self._mistake or f"it ended with status {code}")
        if said.get("done") != step:
            raise WorkerEndedError(f"it says {said} instead of {step}")
        return said

    def signal(self, number: int) -> None:
        if self.running:
            self._process.send_signal(number)

    async def stop(self) -> None:
        """Let it take leave of its peers and end; killed if that takes too long."""
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            log.error("%s (process %d) did not end in %.0f s and is killed", self.name, process.pid, END_S)
            await self.kill()
        await self._reader

    async def kill(self) -> None:
        """End it at once."""
        if self.running:
            self._process.kill()
        await self._process.wait()
        await self._reader
