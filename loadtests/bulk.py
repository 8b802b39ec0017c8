"""What bulk import and export take: 100,000 accounts in, out, compared, and in again elsewhere.

    python -m loadtests.bulk                  # the whole run, some four minutes
    python -m loadtests.bulk --accounts 2000  # shows that it works, not how fast it is

The commands are those of an operator, `occ import` and `occ export`, each a process of its own, against a private Redis
with `appendfsync always`. What was imported is exported, imported again where it is there already, which must change
nothing, and imported into an empty store, an export of which must be the same to the octet. Control totals must agree
throughout.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from balance.store import Store, StoreSettings
from loadtests import command, machine
from loadtests.processes import ROOT, BenchError
from loadtests.templates import line

ACCOUNTS: Final = 100_000
ROWS_AN_ACCOUNT: Final = 4
"""Its own, two buckets, a subscriber."""
GOAL_S: Final = 60.0
"""For the first import of `ACCOUNTS` accounts, on two cores."""

CATALOGUE: Final = """\
version: bulk
currency: EUR
services:
  internet: {context: 32251@3gpp.org, rating_groups: [10], unit: octets, quota: 1 MiB, validity: 5 min}
  voice: {context: 32260@3gpp.org, rating_groups: any, unit: seconds, quota: 60 s, validity: 5 min}
allowances:
  data-5gb: {amount: 5 GiB, serves: [internet], priority: 10}
bonuses:
  welcome: {serves: any, priority: 5, amount: 2.00}
plans:
  standard: {internet: 0.01 per 1 MiB, voice: 0.09 per 60 s}
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One command and what it took."""

    name: str
    rows: int
    wall_s: float
    command_cpu_s: float
    """User and system time of the process of the command."""
    redis_cpu_s: float
    others_cpu_s: float
    """Of whatever else ran on the machine meanwhile."""
    stolen_s: float
    """What the hypervisor gave to other machines."""


@dataclass(slots=True)
class Outcome:
    """All that a run says."""

    facts: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    totals: list[dict[str, Any]] = field(default_factory=list)
    """Control totals of the first import, as `occ import --json` has them."""
    faults: list[str] = field(default_factory=list)
    """What was not as it must be, one sentence each."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "facts": self.facts,
            "steps": [asdict(step) for step in self.steps],
            "totals": self.totals,
            "faults": self.faults,
        }


# -- what is imported --------------------------------------------------------------------------------------------------


def write_files(folder: Path, accounts: int) -> list[Path]:
    """Accounts, of which a quarter are postpaid and in debt, with two buckets and a subscriber of two identities."""
    files = {
        "accounts.csv": ("account,kind,balance,credit_limit,state", _account_rows(accounts)),
        "buckets.csv": ("account,name,unit,amount,priority,expires", _bucket_rows(accounts)),
        "subscribers.csv": ("subscriber,account,plan,msisdn,imsi,segment", _subscriber_rows(accounts)),
    }
    folder.mkdir()
    for name, (heading, rows) in files.items():
        with (folder / name).open("w", encoding="utf-8") as stream:
            stream.write(f"{heading}\n")
            stream.writelines(f"{row}\n" for row in rows)
    return [folder / name for name in files]


def _account_rows(accounts: int) -> Iterator[str]:
    for number in range(1, accounts + 1):
        if number % 4 == 0:
            yield f"acc-{number},postpaid,-{number % 50}.25,50.00,active"
        else:
            yield f"acc-{number},prepaid,{number % 90}.10,,{'suspended' if number % 100 == 1 else 'active'}"


def _bucket_rows(accounts: int) -> Iterator[str]:
    for number in range(1, accounts + 1):
        yield f"acc-{number},data-5gb,,{number % 5 + 1} GiB,,2037-01-31"
        yield f"acc-{number},,seconds,{number % 6000 + 1},20,never"


def _subscriber_rows(accounts: int) -> Iterator[str]:
    for number in range(1, accounts + 1):
        digits = line(number)
        yield f"line-{number},acc-{number},standard,{digits.msisdn.decode()},{digits.imsi.decode()},consumer"


# -- the run -----------------------------------------------------------------------------------------------------------


class Run:
    """One run in a directory of its own."""

    def __init__(self, accounts: int, redis: str | None, console: Console) -> None:
        self.accounts = accounts
        self.rows = ROWS_AN_ACCOUNT * accounts
        self.outcome = Outcome()
        self._program = redis
        self._console = console
        self._redis: EmbeddedRedis
        self._config: Path

    async def run(self, directory: Path) -> Outcome:
        """Raises BenchError, EmbeddedRedisError, StoreError, MachineError or OSError."""
        async with AsyncExitStack() as cleanup:
            await self._prepare(directory, cleanup)
            self._say(f"writing files of {self.rows:,} rows")
            files = [str(file) for file in write_files(directory / "files", self.accounts)]
            imported = await self._import("import, CSV", *files, accepted=self.rows)
            self.outcome.totals = imported["totals"]
            await self._import("the same command again", *files, accepted=0)
            sheets, lines = directory / "csv", directory / "accounts.jsonl"
            await self._export("export, CSV", sheets)
            await self._export("export, JSON Lines", lines)
            await self._import("import of what is there, CSV", str(sheets), "--reference", "csv", accepted=0)
            await self._import("import of what is there, JSON Lines", str(lines), accepted=0)
            await self._empty()
            await self._import("import, JSON Lines", str(lines), "--reference", "elsewhere", accepted=self.rows)
            copy = directory / "copy.jsonl"
            await self._export("export, JSON Lines, again", copy)
            if copy.read_bytes() != lines.read_bytes():
                self.outcome.faults.append("an export of what was imported from an export is not the same")
        return self.outcome

    async def _prepare(self, directory: Path, cleanup: AsyncExitStack) -> None:
        settings = EmbeddedSettings(data_dir=directory / "redis", server_binary=self._program, fsync="always")
        self._redis = EmbeddedRedis(settings)
        address = await self._redis.start()
        cleanup.push_async_callback(self._redis.stop)
        self._config = directory / "occ.yaml"
        self._config.write_text(f"store: {{mode: external, url: '{address.url}'}}\n", encoding="utf-8")
        (directory / "catalogue.yaml").write_text(CATALOGUE, encoding="utf-8")
        self.outcome.facts = {
            "machine": machine.describe(),
            "Redis": f"{self._redis.program}, appendfsync always",
            "load": f"{self.accounts:,} accounts with two buckets and a subscriber of two identities each",
            "disk": machine.describe_fsync(directory),
        }

    async def _empty(self) -> None:
        store = Store(StoreSettings(self._redis.address))
        await store.start()
        try:
            await store.call("FLUSHALL")
        finally:
            await store.stop()

    async def _import(self, name: str, *arguments: str, accepted: int) -> dict[str, Any]:
        """An import that must accept so many rows, and find all others to be there already."""
        status, report = await self._command(name, "import", *arguments)
        found = {
            verdict: sum(rows[verdict] for rows in report["rows"].values())
            for verdict in ("accepted", "unchanged", "rejected")
        }
        if status or found != {"accepted": accepted, "unchanged": self.rows - accepted, "rejected": 0}:
            self.outcome.faults.append(f"{name}: it ended with status {status}, and of the rows were {found}")
        self.outcome.faults += [f"{name}: {sentence}" for sentence in report["disagreements"]]
        self._compare(name, {row["label"]: row["after"] for row in report["totals"]})
        return report

    async def _export(self, name: str, target: Path) -> None:
        status, report = await self._command(name, "export", str(target))
        rows = sum(report["rows"].values())
        if status or rows != self.rows:
            self.outcome.faults.append(f"{name}: it ended with status {status} and {rows} rows, not {self.rows}")
        self._compare(name, {row["label"]: row["amount"] for row in report["totals"] if row["amount"]})

    def _compare(self, name: str, totals: dict[str, int]) -> None:
        """Whatever is done, the store holds what was first imported."""
        first = {row["label"]: row["after"] for row in self.outcome.totals}
        if first and totals != first:
            self.outcome.faults.append(f"{name}: the control totals are {totals}, not {first}")

    async def _command(self, name: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run `occ` and note what it took; its exit status and its document."""
        self._say(name)
        redis, all_before = machine.usage(self._redis.pid).cpu_s, machine.processor()
        own, began = _children_cpu_s() + _own_cpu_s(), perf_counter()
        command = _children_cpu_s()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "occ", "--config", str(self._config), *arguments, "--json",
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if not key.startswith("OCC_")},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            output, errors = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        wall_s = perf_counter() - began
        command_cpu_s = _children_cpu_s() - command
        redis_cpu_s = machine.usage(self._redis.pid).cpu_s - redis
        own_cpu_s = _children_cpu_s() + _own_cpu_s() - own
        everything = machine.processor()
        others_cpu_s = max(0.0, everything.busy_s - all_before.busy_s - own_cpu_s - redis_cpu_s)
        self.outcome.steps.append(
            Step(
                name,
                self.rows,
                wall_s,
                command_cpu_s,
                redis_cpu_s,
                others_cpu_s,
                everything.stolen_s - all_before.stolen_s,
            )
        )
        try:
            report: dict[str, Any] = json.loads(output)
        except ValueError:
            said = errors.decode(errors="replace").strip().splitlines()
            raise BenchError(f"{name} failed: {said[-1] if said else f'status {process.returncode}'}") from None
        return process.returncode or 0, report

    def _say(self, what: str) -> None:
        self._console.print(f"[dim]{what} …[/dim]", highlight=False)


def _children_cpu_s() -> float:
    """Of processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- what is shown -----------------------------------------------------------------------------------------------------


def show(outcome: Outcome, accounts: int, console: Console) -> None:
    """Facts, what each step took, control totals, and whether all was as it must be."""
    for name, fact in outcome.facts.items():
        console.print(f"[dim]{name}:[/dim] {fact}", highlight=False)
    table = Table(header_style="bold")
    table.add_column("")
    for heading in ("wall", "CPU, command", "CPU, Redis", "CPU, others", "stolen", "rows/s"):
        table.add_column(heading, justify="right")
    for step in outcome.steps:
        seconds = (step.wall_s, step.command_cpu_s, step.redis_cpu_s, step.others_cpu_s, step.stolen_s)
        table.add_row(step.name, *(f"{each:.1f} s" for each in seconds), f"{step.rows / step.wall_s:,.0f}")
    console.print(table)
    totals = Table(header_style="bold")
    totals.add_column("in the store after the first import")
    totals.add_column("", justify="right")
    for row in outcome.totals:
        totals.add_row(row["label"], f"{row['after']:,}")
    console.print(totals)
    for sentence in outcome.faults:
        console.print(f"[red]{sentence}[/red]", highlight=False)
    if not outcome.faults:
        console.print("All control totals agree, and nothing was done twice.")
    if accounts == ACCOUNTS:
        console.print(f"{accounts:,} accounts in {outcome.steps[0].wall_s:.1f} s (goal: less than {GOAL_S:g} s)")


def main(arguments: list[str] | None = None) -> int:
    """0: all was as it must be; 1: it was not, or could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bulk", description="What bulk import and export take.")
    parser.add_argument("--accounts", type=int, default=ACCOUNTS, help=f"how many (default {ACCOUNTS})")
    command.add_redis(parser)
    command.add_places(parser)
    options = parser.parse_args(arguments)
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="occ-bulk-", dir=options.directory) as directory:
            run = Run(options.accounts, options.redis, console).run(Path(directory))
            outcome = asyncio.run(command.interruptible(run))
        show(outcome, options.accounts, console)
        command.write_json(options.json, outcome.as_dict())
    except command.FAULTS as error:
        return command.complain(console, error)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
