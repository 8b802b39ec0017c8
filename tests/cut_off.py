"""A store whose process ends between two of its writes, as when power fails or somebody presses Ctrl-C."""

from typing import Any

from balance.plans import Plan
from balance.resp import Reply
from balance.store import Store

WRITES = frozenset(("HDEL", "HSETNX", "PEXPIRE"))
"""Commands outside scripts that count."""


class CutOffError(Exception):
    """Stands for the end of the process."""


class CutOffStore(Store):
    """Carries out ``left`` writes, then none; None: all."""

    left: int | None = None

    async def run_script(self, *arguments: Any) -> Reply:
        self._count()
        return await super().run_script(*arguments)

    async def commit(self, *arguments: Any) -> Plan:
        self._count()
        return await super().commit(*arguments)

    async def call(self, *command: Any) -> Reply:
        if command[0] in WRITES:
            self._count()
        return await super().call(*command)

    def _count(self) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise CutOffError
            self.left -= 1
