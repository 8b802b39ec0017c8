"""Where the supervisor of workers tells what runs: ``workers.json`` in ``store.data_dir``.

``workers.lock`` beside it is locked for as long as the supervisor lives, so what it left behind is not taken for it.
"""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

FILE: Final = "workers.json"
LOCK: Final = "workers.lock"
LOCK_PATIENCE_S: Final = 1.0
"""Whoever looks whether a supervisor runs holds the lock for a moment."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker."""

    number: int
    origin_host: str
    pid: int
    port: int
    """Its Diameter port."""
    tls_port: int
    """0: it does not listen with TLS."""
    metrics: str
    """Where it serves /metrics: ``host:port`` as others reach it."""
    restarts: int
    """Times it was started again, as it had ended by itself."""


@dataclass(frozen=True, slots=True)
class Replacements:
    """What came of requests to replace all workers."""

    asked: int = 0
    finished: int = 0
    mistake: str = ""
    """Why the last one that finished was given up; empty: it was not."""


@dataclass(frozen=True, slots=True)
class RunningWorkers:
    """A supervisor and its workers."""

    pid: int
    """Of the supervisor."""
    workers: tuple[WorkerFacts, ...]
    replacements: Replacements = field(default_factory=Replacements)


class InUseError(Exception):
    """Another supervisor runs on this directory; the message is one sentence."""


class WorkersFile:
    """The supervisor's side."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._lock_path = data_dir / LOCK
        self._lock: int | None = None

    def claim(self) -> bool:
        """Be the one supervisor of this directory; whether a former one had no time to clean up.

        Raises InUseError, OSError.
        """
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise InUseError(
                        f"workers run by the data in {self._lock_path.parent} already; stop them first, replace them "
                        "with 'occ restart', or name another store.data_dir"
                    ) from None
                time.sleep(0.02)
        self._lock = descriptor
        was_left = self._path.exists()
        # Whoever reads it from here on would take it for ours: the process it names may be anybody's by now.
        self._path.unlink(missing_ok=True)
        return was_left

    def write(self, running: RunningWorkers) -> None:
        """Raises OSError."""
        write_whole(self._path, json.dumps(asdict(running), indent=1) + "\n")

    def release(self) -> None:
        """The workers have ended."""
        if self._lock is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: whoever reads it finds the old text or the new one. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def running_workers(data_dir: Path) -> RunningWorkers | None:
    """What the supervisor of this directory tells; None if there is none, or it has not told yet."""
    try:
        descriptor = os.open(data_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody holds it
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
    try:
        told = json.loads((data_dir / FILE).read_text(encoding="utf-8"))
        workers = tuple(WorkerFacts(**each) for each in told["workers"])
        return RunningWorkers(int(told["pid"]), workers, Replacements(**told["replacements"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
