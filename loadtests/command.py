"""What the commands that load a server share: their options, the directory of a run, and how one ends."""

import argparse
import asyncio
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop
from rich.console import Console

from balance.embedded import EmbeddedRedisError
from balance.model import Unit
from balance.resp import StoreError
from balance.verify import Report as Audit
from loadtests.figures import Report
from loadtests.latency import LatencyError
from loadtests.machine import MachineError
from loadtests.processes import BenchError, GeneratorProcess, Worker

T = TypeVar("T")

SERVER: Final = f"{shlex.quote(sys.executable)} -m occ serve --no-population --json"
FAULTS: Final = (BenchError, EmbeddedRedisError, StoreError, MachineError, LatencyError, OSError, ValueError)
"""What keeps a run from its figures, told in one sentence."""
SHOWN: Final = 5
"""Sentences on what is wrong in the ledger."""


# -- options -----------------------------------------------------------------------------------------------------------


def add_quick(parser: argparse.ArgumentParser) -> None:
    """``--quick``."""
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it works, not how fast it is")


def add_surroundings(parser: argparse.ArgumentParser, seed_of: str, *, pins: bool = True) -> None:
    """On what, and from which seed; ``pins``: the processes have cores of their own unless told otherwise."""
    parser.add_argument("--seed", type=int, default=1, help=f"of {seed_of} (default 1)")
    if pins:
        add_pins(parser)
    add_redis(parser)
    add_server(parser)
    add_places(parser)


def add_pins(parser: argparse.ArgumentParser) -> None:
    """``--no-pin``."""
    parser.add_argument("--no-pin", action="store_true", help="let the system choose the cores")


def add_redis(parser: argparse.ArgumentParser) -> None:
    """``--redis``."""
    parser.add_argument("--redis", help="program of the Redis server (default: as occ serve finds it)")


def add_server(parser: argparse.ArgumentParser) -> None:
    """``--server``."""
    parser.add_argument("--server", default=SERVER, help=f"command of the server (default: {SERVER})")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where the data goes, and the figures."""
    parser.add_argument("--directory", type=Path, help="where the data goes; on the disk that is to be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")


# -- a run -------------------------------------------------------------------------------------------------------------


def run_in(directory: Path | None, prefix: str, run: Callable[[Path], Coroutine[Any, Any, T]]) -> T:
    """What comes of a run in a directory that is made for it in ``directory``, and taken away. Raises ``FAULTS``."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=directory) as made:
        return uvloop.run(interruptible(run(Path(made))))


async def interruptible(run: Coroutine[Any, Any, T]) -> T:
    """Let SIGTERM, as `timeout` sends it, stop all processes of the run as Ctrl-C does."""
    task = asyncio.get_running_loop().create_task(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise BenchError("the run was interrupted") from None


def say(console: Console, what: str) -> None:
    """What goes on now."""
    console.print(f"[dim]{what} …[/dim]", highlight=False)


def complain(console: Console, error: Exception) -> int:
    """Why there are no figures; the exit code."""
    console.print(f"[red]{error}[/red]", highlight=False)
    return 1


def write_json(path: Path | None, document: Any) -> None:
    """Raises OSError."""
    if path is not None:
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# -- its end -----------------------------------------------------------------------------------------------------------


async def stop_both(generator: GeneratorProcess, worker: Worker, errors: dict[str, int]) -> None:
    """End clients and server; what is wrong with the server's end goes into ``errors``."""
    await generator.stop()
    status = await worker.stop()
    if status:
        errors[f"the server ended with status {status}"] = 1
    if complaints := worker.complaints():
        errors[f"errors in the server's log, of which the first is: {complaints[0]}"] = len(complaints)


def debited_micro(audit: Audit) -> int:
    """All money that the ledger has debited."""
    return sum(total.debited for total in audit.totals if total.unit == Unit.MONEY)


def tell_audit(report: Report, console: Console, audit: Audit, said_micro: int, errors: dict[str, int]) -> None:
    """Whether all went well, and the ledger is what the clients say it is: they owe ``said_micro``."""
    for sentence in audit.discrepancies[:SHOWN]:
        console.print(f"[red]{sentence}[/red]")
    add = report.add
    add("errors", "errors of any kind", sum(errors.values()))
    add("discrepancies", "discrepancies in the ledger", audit.discrepancy_count + audit.open_sessions)
    add("disagreement_micro", "ledger and clients differ by", abs(debited_micro(audit) - said_micro), "micro-units")
    for what, count in errors.items():
        report.facts[f"error: {what}"] = str(count)


def is_sound(report: Report) -> bool:
    """Nothing went wrong, as ``tell_audit`` tells; never how fast."""
    return all(report.value(key) == 0 for key in ("errors", "discrepancies", "disagreement_micro"))
