"""Work beside the server stands back from it, and is begun again whatever ends it."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.machine import child_running
from occ.child_process import NICENESS, ChildProcess
from tests.live_server import LiveServer


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of processes as Linux has them")
def test_the_outbox_stands_back_from_requests(tmp_path: Path) -> None:
    with LiveServer(tmp_path, {}):
        outbox = child_running(os.getpid(), "occ.outbox")
        assert outbox is not None
        assert os.getpriority(os.PRIO_PROCESS, outbox) == NICENESS
        assert os.sched_getscheduler(outbox) == os.SCHED_BATCH
        group = Path(f"/proc/{outbox}/autogroup")
        if group.exists():  # else niceness counts as it is
            assert group.read_text(encoding="ascii").split()[-1] == str(NICENESS)


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
