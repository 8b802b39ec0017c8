"""`python -m loadtests.scaling`: what a request costs as workers and stores are added, and what follows for more cores.

Three servers and two private Redis are started; a generator keeps some requests under way at each server, in turns:

    alone     one server on one store
    affine    two servers on that store, each with accounts of its own
    mixed     two servers on that store, both with the same accounts
    apart     two servers on a store each

Compared is CPU per request. On a machine with fewer cores than processes that is what can be measured: time on the
clock would tell of the machine. Processes are pinned, alike in every case (`loadtests.machine.places`), so that no two
servers under load share a core; the line `cores` says who shares one with whom. The number under way keeps the requests
per commit alike, on which CPU depends most. One server with other numbers under way then gives the costs from which
`loadtests.queueing` simulates as many cores as there are processes. The two stores are independent servers; a worker on
a cluster of two spreads its commits over both, which the simulation has and the measurement has not.
"""

import argparse
import asyncio
import shlex
import statistics
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time_ns
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from balance.store import Store
from loadtests import build, command, machine
from loadtests.processes import BenchError, GeneratorProcess, Worker, admit_all
from loadtests.queueing import Costs, Outcome, fitted, simulate
from loadtests.seed import PARTITIONS, check, commit_calls, compact, connect, seed

DEPTHS: Final = (16, 64, 256)
"""Requests under way at the server from which costs are reckoned; the second also where servers are compared."""
QUICK_DEPTHS: Final = (4, 16, 48)
SIMULATED: Final = ((1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (4, 4), (8, 4), (8, 8))
WINDOW: Final = 1024
"""Requests under way at each worker of the simulation: as many as keep one busy."""


@dataclass(slots=True)
class Sample:
    """What an interval took, added up over its servers."""

    answers: int = 0
    worker_us: float = 0.0
    redis_us: float = 0.0
    commits: int = 0

    def add(self, other: "Sample") -> None:
        self.answers += other.answers
        self.worker_us += other.worker_us
        self.redis_us += other.redis_us
        self.commits += other.commits


@dataclass(slots=True)
class Side:
    """One server, what loads it, and the store it is on."""

    name: str
    worker: Worker
    generator: GeneratorProcess
    redis: EmbeddedRedis
    store: Store


class Scaling:
    """One run."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.sides: dict[str, Side] = {}
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.errors: dict[str, int] = {}
        self.places = machine.places(not options.no_pin)

    async def run(self, directory: Path) -> dict[str, Any]:
        """Raises BenchError, EmbeddedRedisError, StoreError or MachineError."""
        options = self.options
        async with AsyncExitStack() as cleanup:
            await self._prepare(directory, cleanup)
            self._say("opening sessions")
            await asyncio.gather(*map(self._open, self.sides.values()))
            for number in range(options.rounds):
                self._say(f"round {number + 1} of {options.rounds}")
                for case, names in (
                    ("alone", ["first"]),
                    ("affine", ["first", "second"]),
                    ("mixed", ["first", "mixed"]),
                    ("apart", ["first", "apart"]),
                ):
                    self.samples[case].append(await self._interval(names, options.depths[1]))
                for depth in options.depths:
                    self.samples[f"alone, {depth} under way"].append(await self._interval(["first"], depth))
            self._say("ending all sessions and checking the ledgers")
            discrepancies = await self._finish()
            fsync_ms = statistics.median(machine.fsync_times_s(directory)) * 1000
        return self._result(discrepancies, fsync_ms)

    async def _prepare(self, directory: Path, cleanup: AsyncExitStack) -> None:
        options = self.options
        half = options.accounts // 2
        stores: list[tuple[EmbeddedRedis, Store]] = []
        for number in (1, 2):
            redis = EmbeddedRedis(EmbeddedSettings(data_dir=directory / f"redis{number}", fsync="always"))
            address = await redis.start()
            cleanup.push_async_callback(redis.stop)
            store = await connect(address)
            cleanup.push_async_callback(store.stop)
            self._say(f"creating {options.accounts:,} accounts in store {number}")
            await seed(store, options.accounts, time_ns() // 1_000_000)
            await compact(store)
            self._pin(redis.pid, self.places[number - 1].redis)
            stores.append((redis, store))
        servers = {}
        for name, number in (("occ1", 0), ("occ2", 0), ("occ3", 1)):
            url = stores[number][0].address.url
            admission = admit_all(4 * options.sessions)  # of two generators, and some more
            worker = Worker(shlex.split(options.server), url, directory, PARTITIONS, admission, name)
            cleanup.push_async_callback(worker.stop)
            servers[name] = worker
        await asyncio.gather(*(worker.start() for worker in servers.values()))
        for name, worker in servers.items():
            place = self._place(name)
            outbox = machine.child_running(worker.pid, "occ.outbox")
            if outbox is None:
                raise BenchError(f"the server {name} runs no outbox process")
            self._pin(worker.pid, place.worker)
            self._pin(outbox, place.generator)
        # "mixed" is the second server again, by a generator that visits all accounts and begins in the middle of them.
        for name, server, number, more in (
            ("first", "occ1", 0, {"accounts": half}),
            ("second", "occ2", 0, {"accounts": half, "first_account": half + 1}),
            ("mixed", "occ2", 0, {"accounts": half, "first_session": half // 2}),
            ("apart", "occ3", 1, {"accounts": half}),
        ):
            worker, (redis, store) = servers[server], stores[number]
            accounts = more.pop("accounts")
            first_peer = 1 + 2 * len(self.sides)
            generator = GeneratorProcess(
                worker.port, 2, accounts, options.sessions, 1 + len(self.sides), first_peer=first_peer, **more
            )
            cleanup.push_async_callback(generator.stop)
            await generator.start()
            self._pin(generator.pid, self._place(server).generator)
            self.sides[name] = Side(name, worker, generator, redis, store)

    def _place(self, server: str) -> machine.Placement:
        """The second and the third are never under load at once."""
        return self.places.first if server == "occ1" else self.places.second

    @staticmethod
    def _pin(pid: int, cores: set[int]) -> None:
        if cores:
            machine.pin(pid, cores)

    async def _open(self, side: Side) -> None:
        for what in ("open_sessions", "stagger"):
            self._note(await side.generator.do(what))

    async def _interval(self, names: list[str], window: int) -> Sample:
        """All these sides at once; what they took."""
        found = await asyncio.gather(*(self._measure(self.sides[name], window) for name in names))
        total = Sample()
        for each in found:
            total.add(each)
        # Two servers on one store: each has counted all of its commits and all of its time.
        if len({id(self.sides[name].redis) for name in names}) < len(names):
            total.redis_us /= len(names)
            total.commits //= len(names)
        return total

    async def _measure(self, side: Side, window: int) -> Sample:
        sample = Sample()

        async def on_mark(said: dict[str, Any]) -> None:
            sign = 1 if said["mark"] == "end" else -1
            sample.worker_us += sign * machine.usage(side.worker.pid).cpu_s * 1e6
            sample.redis_us += sign * side.redis.cpu_seconds() * 1e6
            sample.commits += sign * await commit_calls(side.store)
            sample.answers += said.get("answers", 0)

        seconds = self.options.seconds
        load = {"window": window, "warm_up_s": min(1.0, seconds / 2), "seconds": seconds}
        self._note(await side.generator.do("closed_loop", on_mark, **load))
        if not sample.answers:
            raise BenchError(f"no request was answered by {side.name}: {self.errors}")
        return sample

    async def _finish(self) -> int:
        for side in self.sides.values():
            self._note(await side.generator.do("finish"))
            await side.generator.stop()
        for side in self.sides.values():
            if await side.worker.stop():
                self.errors["a server ended with an error"] = 1
        addresses = dict.fromkeys(side.redis.address for side in self.sides.values())
        found = [await check(address) for address in addresses]
        return sum(report.discrepancy_count + report.open_sessions for report in found)

    def _note(self, result: dict[str, Any]) -> None:
        for what, number in result["errors"].items():
            self.errors[what] = max(number, self.errors.get(what, 0))

    def _say(self, what: str) -> None:
        self.console.print(f"[dim]{what} …[/dim]", highlight=False)

    # -- what it comes to ----------------------------------------------------------------------------------------------

    def _median(self, case: str, of: str) -> float:
        """CPU per request of the worker ("worker_us") or Redis ("redis_us"), or requests per commit ("depth")."""
        samples = self.samples[case]
        if of == "depth":
            return statistics.median(each.answers / max(1, each.commits) for each in samples)
        return float(statistics.median(getattr(each, of) / each.answers for each in samples))

    def _over(self, case: str, base: str, redis: float = 1.0) -> float:
        """How much more CPU a request takes in one case than in another, of worker and Redis: the median over rounds,
        each compared with itself, as what else the machine does changes from round to round."""

        def took(sample: Sample) -> float:
            return (sample.worker_us + redis * sample.redis_us) / sample.answers

        pairs = zip(self.samples[case], self.samples[base], strict=True)
        return float(statistics.median(took(one) / took(other) for one, other in pairs))

    def _result(self, discrepancies: int, fsync_ms: float) -> dict[str, Any]:
        cases = {
            case: {of: round(self._median(case, of), 2) for of in ("worker_us", "redis_us", "depth")}
            for case in self.samples
        }
        ratios = {case: round(2 / self._over(case, "alone"), 3) for case in ("affine", "mixed", "apart")}
        closed = [f"alone, {depth} under way" for depth in self.options.depths]
        request, send = fitted([(self._median(case, "depth"), self._median(case, "worker_us")) for case in closed])
        plan, commit = fitted([(self._median(case, "depth"), self._median(case, "redis_us")) for case in closed])
        # Both are two servers at once, so cores and caches are shared alike.
        shares = {case: max(1.0, self._over(case, "apart", redis=0.0)) for case in ("affine", "mixed")}
        costs = {case: Costs(request, send, plan, commit, fsync_ms * 1000, share) for case, share in shares.items()}
        return {
            "cases": cases,
            "capacity_over_one": ratios,
            "costs": {case: asdict(each) for case, each in costs.items()},
            "simulated": {
                case: [asdict(simulate(each, *size, clients=WINDOW)) for size in SIMULATED]
                for case, each in costs.items()
            },
            "errors": self.errors,
            "discrepancies": discrepancies,
            "facts": {
                "machine": machine.describe(),
                "cores": self.places.describe(),
                "hot path": build.describe_hot_path(),
                "versions": build.describe_versions(),
                "load": f"{self.options.depths[1]} requests under way at each server, two services each",
                "accounts": f"{self.options.accounts // 2:,} for each server",
                "rounds": f"{self.options.rounds} of {self.options.seconds:g} s a case; medians",
                "fsync": f"{fsync_ms:.2f} ms",
            },
        }


def show(result: dict[str, Any], console: Console) -> None:
    """Facts and tables."""
    for name, fact in result["facts"].items():
        console.print(f"[dim]{name}:[/dim] {fact}", highlight=False)
    table = Table("two servers where not alone", header_style="bold", title="measured: CPU per request")
    for heading in ("worker", "Redis", "requests per commit", "capacity for the same CPU, over one and one"):
        table.add_column(heading, justify="right")
    for case, row in result["cases"].items():
        ratio = result["capacity_over_one"].get(case)
        cells = f"{row['worker_us']:.1f} µs", f"{row['redis_us']:.1f} µs", f"{row['depth']:.1f}"
        table.add_row(case, *cells, "" if ratio is None else f"{ratio:.2f}")
    console.print(table)
    for case, outcomes in result["simulated"].items():
        table = Table(header_style="bold", title=f"simulated, accounts {case}: a core for each process")
        for heading in ("workers", "shards", "CCR/s", "over one and one", "per commit", "workers busy", "Redis busy"):
            table.add_column(heading, justify="right")
        first = outcomes[0]["rate"]
        for row in (Outcome(**each) for each in outcomes):
            table.add_row(
                str(row.workers),
                str(row.shards),
                f"{row.rate:,.0f}",
                f"{row.rate / first:.2f}",
                f"{row.depth:.1f}",
                f"{row.worker_busy:.0%}",
                f"{row.shard_busy:.0%}",
            )
        console.print(table)
    for what, number in result["errors"].items():
        console.print(f"[red]{what}: {number}[/red]", highlight=False)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.scaling", description="What adding workers and stores costs."
    )
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it works")
    parser.add_argument("--accounts", type=int, default=20_000, help="in each store, half of them for each server")
    parser.add_argument("--sessions", type=int, default=1_000, help="open at a time at each server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measured interval")
    command.add_pins(parser)
    command.add_server(parser)
    command.add_places(parser)
    options = parser.parse_args(arguments)
    options.depths = DEPTHS
    if options.quick:
        options.accounts, options.sessions, options.depths = 200, 100, QUICK_DEPTHS
        options.rounds, options.seconds = 1, 0.5
    return options


def main(arguments: list[str] | None = None) -> int:
    """0: the run is sound; 1: it is not."""
    options, console = _parse(arguments), Console()
    try:
        result = command.run_in(options.directory, "occ-scaling-", Scaling(options, console).run)
        show(result, console)
        command.write_json(options.json, result)
    except command.FAULTS as error:
        return command.complain(console, error)
    return 1 if result["errors"] or result["discrepancies"] else 0


if __name__ == "__main__":
    sys.exit(main())
