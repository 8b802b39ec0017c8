"""The supervisor of workers, in this process; its workers are real ones. More is in ``test_failover_workers``."""

import asyncio
from pathlib import Path

import pytest

from balance.embedded import Address
from occ import supervisor as module
from occ.settings import load
from occ.supervisor import Given, Supervisor

PATIENCE_S = 60.0


async def replaced(supervisor: Supervisor, times: int) -> str:
    """Have all workers replaced; why that was given up, if it was."""
    supervisor.replace()
    async with asyncio.timeout(PATIENCE_S):
        while supervisor._replacements.finished < times:  # noqa: ASYNC110 - it tells in a file
            await asyncio.sleep(0.05)
    return supervisor._replacements.mistake


async def test_a_worker_that_never_gets_ready_leaves_the_old_one_where_it_is(
    clean_redis: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that waits for the store would keep the rest from being replaced, and the command waiting."""
    overrides = {
        "workers": "1",
        "diameter.port": "0",
        "metrics.port": "0",
        "notices.enabled": "no",
        "store.mode": "external",
        "store.url": clean_redis.url,
        "store.data_dir": str(tmp_path / "data"),
    }
    supervisor = Supervisor(load(None, overrides, {}), Given(None, overrides, None))
    async with asyncio.timeout(PATIENCE_S):
        await supervisor.start()
    try:
        (before,) = supervisor.workers
        with monkeypatch.context() as patched:
            patched.setattr(module, "PREPARE_S", 0.05)
            mistake = await replaced(supervisor, 1)
        assert f"stays process {before.pid}, as a new one does not start: it could not answer within 0.05 s" in mistake
        assert supervisor.workers == (before,)
        assert await replaced(supervisor, 2) == ""
        (after,) = supervisor.workers
        assert after.pid != before.pid
    finally:
        await supervisor.stop()
