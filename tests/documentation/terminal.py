"""A fresh copy of the project, as a clone would be, and commands typed in it.

What ``make setup`` would download is what these tests run by: ``.venv`` holds programs that start this interpreter. All
else is as a stranger has it: an empty data directory, the project's own settings; ports are given by variables, which
the documentation names, so that nothing else on this machine is in the way.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.documentation.pages import PROJECT

PATIENCE_S: Final = 60.0
LEFT_OUT: Final = shutil.ignore_patterns(".git", ".venv", "data", "build", "dist", "__pycache__", ".*_cache", "*.so")
UNTIL_STOPPED: Final = {
    r"make run": "Ctrl-C stops the server",
    r"occ api": "http://",
    r"occ simulate policy-node \d+": "subscribed",
}
"""Patterns of commands that go on until Ctrl-C, and what these print when they have begun."""


PORTS: Final = ("OCC_DIAMETER_PORT", "OCC_METRICS_PORT", "OCC_API_PORT", "PROMETHEUS_PORT")


def free_ports(number: int) -> list[int]:
    """Ports below the range that systems take ports from for outgoing connections, each another one."""
    found: list[int] = []
    with ExitStack() as held:
        for port in range(14_000 + os.getpid() % 4_000, 19_000):
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == number:
                return found
    raise OSError("no ports are free")


class Background:
    """A command that goes on."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.printed = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.printed:
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.02)

    def stop(self) -> None:
        """Ctrl-C, as at a terminal: all processes of the command get it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert code in (0, 2, 130, -signal.SIGINT), self.printed
        assert "Traceback" not in self.printed


class Terminal:
    """Types commands in a fresh copy."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "occ"
        shutil.copytree(PROJECT, self.home, ignore=LEFT_OUT)
        programs = self.home / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, start in (("python", ""), ("occ", " -m occ")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nPYTHONPATH="{self.home}" exec "{sys.executable}"{start} "$@"\n')
            program.chmod(0o755)
        (self.home / ".venv" / "installed").write_text(str(self.home))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OCC_", "PYTHON"))}
        self.environment = clean | {
            "HOME": str(directory),
            **dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True)),
            "PATH": f"{programs}:{clean['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self.background: list[Background] = []

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for background in reversed(self.background):
            background.stop()

    def type(self, line: str) -> str:
        """Run a command to its end, or begin one that goes on; what it has printed."""
        going_on = next((text for start, text in UNTIL_STOPPED.items() if re.fullmatch(start, line)), None)
        if going_on is not None:
            return self.begin(line, going_on).printed
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=4 * PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def begin(self, line: str, until: str, **variables: str) -> Background:
        """Begin a command that goes on, and wait until it says so."""
        process = subprocess.Popen(
            ["sh", "-c", line],
            cwd=self.home,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun = Background(process)
        self.background.append(begun)
        begun.wait_for(until)
        return begun
