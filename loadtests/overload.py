"""`python -m loadtests.overload`: what a server does of three times what it can do, and how soon it recovers.

A private Redis, a real server with the admission that it has by default, and clients in another process
(`loadtests.arrivals`). First the maximum is measured, in the same run; then three times as many requests a second are
sent, by the clock, whatever is answered; then half of the maximum, which shows how long the overload is felt.
"""

import argparse
import asyncio
import shlex
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, time_ns
from typing import Any, Final

from rich.console import Console

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from loadtests import command, machine
from loadtests.figures import Report
from loadtests.processes import BenchError, GeneratorProcess, Worker
from loadtests.seed import PARTITIONS, check, compact, connect, seed

WINDOWS: Final = (64, 128, 256)
"""Requests under way that are tried when the maximum is sought."""
SAMPLE_S: Final = 0.2
CALM_S: Final = 3.0
"""Half of the maximum is offered for so long before the overload."""
SETTLED_S: Final = 2.0
"""Memory is compared from here on: the first queue, of a server that has never had one, is not growth."""
GOODPUT: Final = 0.9
SLOWEST_MS: Final = 100.0
RECOVERY_S: Final = 2.0
GROWTH: Final = 1.1
TURNED_AWAY: Final = ("Result-Code 3002", "Result-Code 3004")
"""What a window too large comes to when the maximum is sought."""
TYPES: Final = ("initial", "update", "termination")


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run is."""

    accounts: int
    sessions: int
    """At most, at any time."""
    peers: int
    seconds: float
    """Of the overload."""
    maximum_s: float
    think_s: float
    """A running session asks so long after its last answer, on average."""
    after_s: float


FULL: Final = Scale(accounts=20_000, sessions=40_000, peers=4, seconds=60.0, maximum_s=8.0, think_s=1.0, after_s=5.0)
QUICK: Final = Scale(accounts=1_000, sessions=8_000, peers=2, seconds=4.0, maximum_s=1.0, think_s=0.3, after_s=1.0)


@dataclass(slots=True)
class Moment:
    """What the processes had used at one moment."""

    at: float
    worker: machine.Usage
    redis_cpu_s: float
    generator_cpu_s: float
    whole: machine.Processor


class OverloadRun:
    """One run from the empty directory to the report."""

    def __init__(self, scale: Scale, options: argparse.Namespace, console: Console) -> None:
        self.scale = scale
        self.options = options
        self.console = console
        self.report = Report()
        self.moments: list[Moment] = []
        self.resident: list[tuple[float, int]] = []
        self.worker: Worker
        self.generator: GeneratorProcess
        self.redis: EmbeddedRedis

    async def run(self, directory: Path) -> Report:
        """Raises BenchError, EmbeddedRedisError, StoreError or MachineError."""
        async with AsyncExitStack() as cleanup:
            await self._prepare(directory, cleanup)
            maximum, maximum_cpu_s = await self._maximum()
            watching = asyncio.get_running_loop().create_task(self._watch())
            cleanup.callback(watching.cancel)
            phases = await self._overload(maximum)
            watching.cancel()
            self._tell(maximum, maximum_cpu_s, phases)
            await self._finish()
        return self.report

    async def _prepare(self, directory: Path, cleanup: AsyncExitStack) -> None:
        scale, options = self.scale, self.options
        settings = EmbeddedSettings(data_dir=directory / "redis", server_binary=options.redis, fsync="always")
        self.redis = EmbeddedRedis(settings)
        address = await self.redis.start()
        cleanup.push_async_callback(self.redis.stop)
        store = await connect(address)
        self._say(f"creating {scale.accounts:,} accounts")
        await seed(store, scale.accounts, time_ns() // 1_000_000)
        await compact(store)
        await store.stop()
        self.worker = Worker(shlex.split(options.server), address.url, directory, PARTITIONS, {})
        cleanup.push_async_callback(self.worker.stop)
        await self.worker.start()
        self.generator = GeneratorProcess(
            self.worker.port, scale.peers, scale.accounts, scale.sessions, options.seed, "loadtests.arrivals"
        )
        cleanup.push_async_callback(self.generator.stop)
        await self.generator.start()
        placement = machine.placement(not options.no_pin)
        if placement.worker:
            machine.pin(self.worker.pid, placement.worker)
            machine.pin(self.redis.pid, placement.redis)
            machine.pin(self.generator.pid, placement.generator)
            outbox = machine.child_running(self.worker.pid, "occ.outbox")
            if outbox is not None:
                machine.pin(outbox, placement.generator)
        self.report.facts |= {
            "machine": machine.describe(),
            "cores": placement.describe().partition("; for the floor")[0],
            "Redis": f"{self.redis.program}, appendfsync always",
            "load": f"{scale.accounts:,} accounts, sessions I, U, U, T of two services over {scale.peers} connections; "
            f"a running session asks {scale.think_s:g} s after its last answer on average, who is turned away at first "
            "is gone",
            "disk": machine.describe_fsync(directory),
        }

    def _moment(self) -> Moment:
        return Moment(
            perf_counter(),
            machine.usage(self.worker.pid),
            machine.usage(self.redis.pid).cpu_s,
            machine.usage(self.generator.pid).cpu_s,
            machine.processor(),
        )

    async def _maximum(self) -> tuple[float, float]:
        """Requests carried out a second, and CPU seconds of the worker for each second; with warm caches."""
        self._say("measuring the maximum")
        scale = self.scale
        best = (0.0, 0.0)
        refused = 0
        await self.generator.do("closed_loop", window=WINDOWS[-1], warm_up_s=0.0, seconds=scale.maximum_s)
        for window in WINDOWS:
            marks: list[Moment] = []

            async def on_mark(_: dict[str, Any], marks: list[Moment] = marks) -> None:
                marks.append(self._moment())

            result = await self.generator.do(
                "closed_loop", on_mark, window=window, warm_up_s=0.2, seconds=scale.maximum_s
            )
            refused, before = sum(result["errors"].values()), refused
            begin, end = marks
            cpu_s = (end.worker.cpu_s - begin.worker.cpu_s) / (end.at - begin.at)
            best = max(best, (result["rate"] - (refused - before) / scale.maximum_s, cpu_s))
        await self.generator.do("finish")
        if not best[0]:
            raise BenchError("the maximum cannot be measured: nothing is carried out")
        return best

    async def _watch(self) -> None:
        while True:
            self.resident.append((perf_counter(), machine.usage(self.worker.pid).resident_octets))
            await asyncio.sleep(SAMPLE_S)

    async def _overload(self, maximum: float) -> list[dict[str, Any]]:
        scale = self.scale
        factor = self.options.factor
        self._say(f"{maximum:,.0f} requests a second; now {factor:g} times as many for {scale.seconds:g} s")

        async def on_mark(_: dict[str, Any]) -> None:
            self.moments.append(self._moment())

        half = maximum / 2
        phases = [
            {"rate": half, "seconds": min(CALM_S, scale.after_s)},
            {"rate": factor * maximum, "seconds": scale.seconds},
            {"rate": half, "seconds": RECOVERY_S},
            {"rate": half, "seconds": scale.after_s},
        ]
        result = await self.generator.do("phases", on_mark, think_s=scale.think_s, phases=phases)
        found: list[dict[str, Any]] = result["phases"]
        return found

    def _tell(self, maximum: float, maximum_cpu_s: float, phases: list[dict[str, Any]]) -> None:
        calm, loaded, recovering, after = phases
        begin, end = self.moments[1], self.moments[2]
        seconds = end.at - begin.at
        cpu_s = (end.worker.cpu_s - begin.worker.cpu_s) / seconds
        goodput = loaded["granted_rate"]
        add = self.report.add
        add("maximum", "maximum", maximum, "/s")
        add("offered", "requests that were due in the overload", loaded["due_rate"], "/s")
        add("sent", "sent", sum(loaded["sent"].values()) / loaded["seconds"], "/s")
        add("goodput", "carried out", goodput, "/s")
        add("goodput_ratio", "of the maximum", goodput / maximum, "", 3)
        add("goodput_ratio_cpu", "of the maximum, per CPU second of the worker",
            goodput / maximum * maximum_cpu_s / cpu_s, "", 3)  # fmt: skip
        for kind in TYPES:
            sent = loaded["sent"].get(kind, 0)
            refused = loaded["refused"].get(kind, 0)
            add(f"refused_{kind}", f"refused of {sent:,} {kind} requests", refused)
        for name, what in (("all", "carried out"), ("first", "initial ones"), ("running", "of running sessions")):
            add(f"{name}_p50_ms", f"p50, {what}", loaded[name]["p50_ms"], "ms", 1)
            add(f"{name}_p99_ms", f"p99, {what}", loaded[name]["p99_ms"], "ms", 1)
        add("calm_p99_ms", "p99 before, at half of the maximum", calm["all"]["p99_ms"], "ms", 1)
        late_s = RECOVERY_S + after["bad_until_s"] if after["bad_until_s"] else recovering["bad_until_s"]
        add("recovery_s", "until nothing is refused or late after it", late_s, "s", 2)
        add("refused_after", f"refused of {sum(after['sent'].values()):,} from {RECOVERY_S:g} s after it on",
            sum(after["refused"].values()))  # fmt: skip
        add("sent_after", "sent then", sum(after["sent"].values()))
        before, settled, last, peak = self._memory(begin.at, end.at)
        add("resident_before", "worker's memory before", before / 1e6, "MB", 1)
        add("resident_settled", f"{min(SETTLED_S, seconds / 2):g} s into the overload", settled / 1e6, "MB", 1)
        add("resident_end", "at its end", last / 1e6, "MB", 1)
        add("resident_peak", "most", peak / 1e6, "MB", 1)
        ours = cpu_s * seconds + end.redis_cpu_s - begin.redis_cpu_s + end.generator_cpu_s - begin.generator_cpu_s
        others = max(0.0, end.whole.busy_s - begin.whole.busy_s - ours) / seconds
        self.report.facts["overload"] = (
            f"worker {cpu_s:.0%} of a core ({maximum_cpu_s:.0%} at the maximum), "
            f"generator {(end.generator_cpu_s - begin.generator_cpu_s) / seconds:.0%}, late by "
            f"{loaded['behind_ms']:.0f} ms at most, {loaded['starved']} requests without a session; "
            f"outbox and other processes {others:.0%} of a core, hypervisor "
            f"{(end.whole.stolen_s - begin.whole.stolen_s) / seconds:.0%}"
        )

    def _memory(self, begin: float, end: float) -> tuple[int, int, int, int]:
        settled_at = begin + min(SETTLED_S, (end - begin) / 2)
        before = [octets for at, octets in self.resident if at <= begin][-1]
        settled = [octets for at, octets in self.resident if at <= settled_at][-1]
        during = [octets for at, octets in self.resident if begin < at <= end]
        return before, settled, during[-1], max(during)

    async def _finish(self) -> None:
        """End all sessions and the server, then hold the ledger against what the clients say."""
        self._say("ending all sessions and checking the ledger")
        result = await self.generator.do("finish")
        errors = {what: count for what, count in result["errors"].items() if what not in TURNED_AWAY}
        await command.stop_both(self.generator, self.worker, errors)
        found = await check(self.redis.address)
        command.tell_audit(self.report, self.console, found, result["debited_micro"], errors)

    def _say(self, what: str) -> None:
        command.say(self.console, what)


def misses(report: Report) -> list[str]:
    """What a server should do when three times too much is asked of it, and this one did not."""
    value = report.value
    found = []
    if value("goodput_ratio") < GOODPUT:
        found.append(f"it carries out {value('goodput_ratio'):.0%} of its maximum, not {GOODPUT:.0%}")
    if value("all_p99_ms") > SLOWEST_MS:
        found.append(f"p99 of what it carries out is {value('all_p99_ms'):.0f} ms, not {SLOWEST_MS:.0f}")
    if value("recovery_s") > RECOVERY_S:
        found.append(f"it recovers in {value('recovery_s'):.1f} s, not in {RECOVERY_S:g}")
    if value("resident_end") > GROWTH * value("resident_settled"):
        found.append("its memory grows")
    return found


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.overload", description="What a server does when more is asked of it than it can do."
    )
    command.add_quick(parser)
    parser.add_argument("--accounts", type=int, help=f"accounts in the store (default {FULL.accounts})")
    parser.add_argument("--seconds", type=float, help=f"length of the overload (default {FULL.seconds:g})")
    parser.add_argument("--factor", type=float, default=3.0, help="times the maximum that are sent (default 3)")
    command.add_surroundings(parser, "the generator's random intervals")
    parser.add_argument("--enforce", action="store_true", help="fail if it does less than it should")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0: the run is sound; 1: it is not, or shows less than was to be enforced."""
    options = _parse(arguments)
    console = Console()
    base = QUICK if options.quick else FULL
    scale = Scale(
        options.accounts or base.accounts,
        base.sessions,
        base.peers,
        options.seconds or base.seconds,
        base.maximum_s,
        base.think_s,
        base.after_s,
    )
    try:
        report = command.run_in(options.directory, "occ-bench-", OverloadRun(scale, options, console).run)
    except command.FAULTS as error:
        return command.complain(console, error)
    report.show(console)
    if options.json is not None:
        report.write(options.json)
    missed = misses(report)
    for sentence in missed:
        console.print(f"[yellow]{sentence}[/yellow]", highlight=False)
    return 0 if command.is_sound(report) and not (options.enforce and missed) else 1


if __name__ == "__main__":
    sys.exit(main())
