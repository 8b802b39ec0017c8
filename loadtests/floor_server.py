"""The Redis of the floor: with the accounts and settings of a run, and nobody on it but the client of the floor.

It stands beside the one that the server uses, on the same core, and each rests while the other is driven.
"""

from pathlib import Path
from time import time_ns
from typing import Any, Final

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from loadtests import machine
from loadtests.processes import run_floor
from loadtests.seed import PARTITIONS, compact, connect, seed

DEPTH: Final = 4
"""Script calls under way."""
BEST_PLANS: Final = 64
"""Plans per call of the second floor: larger batches than a worker usually has."""


class FloorServer:
    """A private Redis, filled; replays what was recorded from another."""

    def __init__(self, directory: Path, program: str | None, accounts: int, placement: machine.Placement) -> None:
        """``program``: as in ``EmbeddedSettings``."""
        self._redis = EmbeddedRedis(EmbeddedSettings(data_dir=directory, server_binary=program, fsync="always"))
        self._accounts = accounts
        self._placement = placement

    async def start(self) -> None:
        """Raises EmbeddedRedisError and StoreError."""
        store = await connect(await self._redis.start())
        try:
            await seed(store, self._accounts, time_ns() // 1_000_000)
            await compact(store)
        finally:
            await store.stop()
        if self._placement.redis:
            machine.pin(self._redis.pid, self._placement.redis)

    async def drive(self, sample: Path, plans: int, seconds: float) -> list[tuple[int, dict[str, Any]]]:
        """Replay ``sample`` with so many plans per commit, then with ``BEST_PLANS``, ``seconds`` each.

        Both numbers, less where there are few accounts, with what ``run_floor`` says of them. Raises BenchError.
        """
        most = self._accounts // (2 * DEPTH)
        wanted = [max(1, min(each, most)) for each in (plans, BEST_PLANS)]
        results = await run_floor(
            self._placement.worker,
            wanted,
            socket=self._redis.address.unix_path,
            pid=self._redis.pid,
            sample=sample,
            accounts=self._accounts,
            partitions=PARTITIONS,
            depth=DEPTH,
            seconds=seconds,
        )
        return list(zip(wanted, results, strict=True))

    async def stop(self) -> None:
        """End it; its data go with its directory."""
        await self._redis.stop()
