"""A process beside the server, of lower priority, for work that must not cost requests their latency.

The server starts it with what it has to do as JSON, keeps it running and ends it. It works until its standard input
closes, which also happens when the server dies.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("occ.child_process")

NICENESS: Final = 10
"""Priority below the server's and Redis's: such work may wait, requests may not."""

_WAITING: Final[set[asyncio.Task[bytes]]] = set()
"""An event loop alone does not keep its tasks, and a protocol not its reader."""

_PACKAGES: Final = str(Path(__file__).resolve().parent.parent)


class ChildProcess:
    """The server's side: a module that is run as a process, started again should it end."""

    RESTART_S: Final = 1.0
    STOP_S: Final = 10.0

    def __init__(self, module: str, job: Mapping[str, Any], name: str, afterwards: str) -> None:
        """``job`` is its first argument, as JSON: whoever lists processes sees it. ``name`` and ``afterwards``, what
        becomes of work that is left, are for the log."""
        self._module = module
        self._job = json.dumps(job)
        self._name = name
        self._afterwards = afterwards
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Raises OSError if the process cannot be started."""
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Let it finish, then end; not for longer than ``STOP_S``."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(self.STOP_S):
                await process.wait()
        except TimeoutError:
            log.error("%s did not end in %.0f s; %s", self._name, self.STOP_S, self._afterwards)
            process.kill()
            await process.wait()

    async def _launch(self) -> None:
        # The child must find the packages where this process found them, installed or not. Ctrl-C in a terminal must
        # not reach it, not even while it loads: the server decides when its processes end.
        path = os.pathsep.join([_PACKAGES, os.environ.get("PYTHONPATH", "")])
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, self._job,
            stdin=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
            start_new_session=True,
        )  # fmt: skip

    async def _supervise(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("%s ended with status %d; it is started again", self._name, code)
            self.restarts += 1
            await self._launch_again()

    async def _launch_again(self) -> None:
        """Where memory or processes are short it cannot be started now, later perhaps."""
        while True:
            await asyncio.sleep(self.RESTART_S)
            try:
                await self._launch()
                return
            except OSError as error:
                log.error("%s cannot be started and will be tried again: %s", self._name, error)


# -- the other side ----------------------------------------------------------------------------------------------------


def begin(log_level: str) -> None:
    """What such a process does first."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _stand_back()


def _stand_back() -> None:
    """Leave the processor to the server and to Redis, where they want the same one."""
    os.nice(NICENESS)
    with suppress(AttributeError, OSError):  # another system than Linux
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # whoever works is not interrupted on waking up
    # Niceness counts among processes of one session only, where the kernel groups them by session (sched(7), "The
    # autogroup feature"), and this process is alone in its own: the group has to be nice too.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(f"{NICENESS}\n", encoding="ascii")


async def told_to_stop() -> asyncio.Event:
    """Set when standard input closes: the server wants this process to end, or has ended itself."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    stop = asyncio.Event()
    waiting = loop.create_task(reader.read())
    _WAITING.add(waiting)
    waiting.add_done_callback(lambda _: stop.set())
    return stop
