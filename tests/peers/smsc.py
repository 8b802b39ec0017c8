"""Runs ``smsc.pl``, a message centre that has nothing in common with this project, and reads what it saw."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from protocols.smpp.pdu import SUBMIT_SM

PROGRAM = Path(__file__).with_name("smsc.pl")
PASSWORD = "secret"
PATIENCE_S = 20.0


def needs_net_smpp() -> pytest.MarkDecorator:
    """Skips where Perl's Net::SMPP is missing (Debian: libnet-smpp-perl)."""
    found = (
        shutil.which("perl")
        and not subprocess.run(
            ["perl", "-MNet::SMPP", "-MJSON::PP", "-e1"], check=False, capture_output=True
        ).returncode
    )
    return pytest.mark.skipif(not found, reason="Perl's Net::SMPP is missing (Debian: libnet-smpp-perl)")


class Smsc:
    """An async context: the message centre runs within."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.pdus: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "Smsc":
        self._process = await asyncio.create_subprocess_exec(
            "perl", str(PROGRAM), PASSWORD, str(self.port),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.port = json.loads(await self._process.stdout.readline())["port"]
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.pdus.append(json.loads(line))
            self._changed.set()

    def of(self, command: int) -> list[dict[str, Any]]:
        return [pdu for pdu in self.pdus if pdu["cmd"] == command]

    @property
    def submitted(self) -> list[dict[str, Any]]:
        return self.of(SUBMIT_SM)

    async def saw(self, command: int, count: int = 1) -> list[dict[str, Any]]:
        """The PDUs of a command, once there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.of(command)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(command)
