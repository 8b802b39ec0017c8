"""Work beside the server stands back from it, and is begun again whatever ends it."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from occ.child_process import NICENESS, ChildProcess

STANDING_BACK = """
import os
from pathlib import Path
from occ.child_process import begin
begin("info")
group = Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), group.exists() and group.read_text().split()[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of processes as Linux has them")
def test_it_stands_back_from_requests() -> None:
    """In a session of its own, as it is started: niceness alone would count for nothing there (sched(7))."""
    ran = subprocess.run(
        [sys.executable, "-c", STANDING_BACK], capture_output=True, text=True, check=True, start_new_session=True
    )
    niceness, policy, of_group = ran.stdout.split()
    assert (int(niceness), int(policy)) == (NICENESS, os.SCHED_BATCH)
    assert of_group in ("False", str(NICENESS)), "False: processes are not grouped here"


async def test_a_process_that_cannot_be_started_again_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when memory or processes are short for a while."""
    monkeypatch.setattr(ChildProcess, "RESTART_S", 0.01)
    child = ChildProcess("this", {}, "the zen", "it is read again")  # the module prints a poem and ends
    start = asyncio.create_subprocess_exec
    refused = 0

    async def refusing(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal refused
        refused += 1
        if refused <= 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await start(*arguments, stdout=asyncio.subprocess.DEVNULL, **options)

    await child.start()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", refusing)
    async with asyncio.timeout(30):
        while refused < 5:  # noqa: ASYNC110 - what counts happens in another process
            await asyncio.sleep(0.01)
    await child.stop()
    assert child.restarts >= 2
