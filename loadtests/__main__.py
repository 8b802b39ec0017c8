"""`python -m loadtests`, `make bench`: load a real server and say what it takes.

A private Redis with `appendfsync always` is started and filled, a server process is started on it, and a generator
process puts load on the server over TCP. `loadtests/README.md` says how to read the figures.
"""

import argparse
import asyncio
import json
import shlex
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, time_ns
from typing import Any, Final

from rich.console import Console

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from balance.store import Store
from loadtests import build, command, destinations, floor, machine, recorded
from loadtests.figures import BUDGET, Report
from loadtests.floor_server import DEPTH, FloorServer
from loadtests.latency import PARTS, SIGNIFICANT_DIGITS, merged, require_histograms
from loadtests.processes import BenchError, GeneratorProcess, Worker, admit_all, run_rating
from loadtests.seed import (
    PARTITIONS,
    check,
    commit_calls,
    compact,
    connect,
    forget_stalls,
    memory,
    rules_settled,
    seed,
    slowest_fsync_ms,
    undelivered_records,
)

WINDOWS: Final = (64, 128, 256, 512, 1024)
"""Requests under way that are tried when the maximum is sought."""
WORTH_IT: Final = 1.05
"""A larger window must bring so much more to be taken: beyond the maximum it only makes requests wait."""
TURNS: Final = 5
"""Maximum and floor are measured in turns: what else the machine does lasts longer than a turn, and meets both."""
TURN_WARM_UP_S: Final = 1.0
"""Of each turn but the first, at most."""
FLOOR_SHARE: Final = 1 / 4
"""How long each of the two floors takes, of a turn."""
RECORD_SECONDS: Final = 0.3
RECORD_TRIES: Final = 5
"""The disk may stand still for as long as commits are recorded."""
PROBE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run is."""

    accounts: int
    sessions: int
    """Open at a time, under load."""
    many_sessions: int
    """Open at a time when the worker's memory is looked at."""
    idle_peers: int
    """Peers that connect for a look at what one costs."""
    peers: int
    seconds: float
    """Of each measured interval."""
    warm_up_s: float
    window: int = 0
    """Requests under way at the maximum; 0: to be found."""
    numbers: int = destinations.NUMBERS
    """Calls rated in each pass with each price list."""


FULL: Final = Scale(
    accounts=100_000, sessions=20_000, many_sessions=100_000, idle_peers=500, peers=4, seconds=20.0, warm_up_s=5.0
)
QUICK: Final = Scale(
    accounts=600, sessions=400, many_sessions=600, idle_peers=50, peers=2, seconds=2.0, warm_up_s=0.5, window=128,
    numbers=4_000,
)  # fmt: skip


@dataclass(slots=True)
class Interval:
    """What processes used during a measured interval."""

    answers: int = 0
    seconds: float = 0.0
    worker_cpu_s: float = 0.0
    redis_cpu_s: float = 0.0
    generator_cpu_s: float = 0.0
    outbox_cpu_s: float = 0.0
    machine_cpu_s: float = 0.0
    """All processes of the machine, ours too."""
    stolen_s: float = 0.0
    commits: int = 0
    slowest_fsync_ms: int = 0
    undelivered_before: int = 0
    """Records that the outbox had still to deliver when the interval began ..."""
    undelivered: int = 0
    """... and when it ended: what was put off till later."""

    @property
    def disturbance(self) -> str:
        """What else went on meanwhile; with more than a little of it the figures say less about the server."""
        ours = self.worker_cpu_s + self.redis_cpu_s + self.generator_cpu_s + self.outbox_cpu_s
        others = max(0.0, self.machine_cpu_s - ours) / self.seconds
        return (
            f"other processes {others:.0%} of a core, hypervisor {self.stolen_s / self.seconds:.0%}; "
            f"slowest fsync {self.slowest_fsync_ms} ms; records to be delivered {self.undelivered_before:,} at its "
            f"beginning, {self.undelivered:,} at its end"
        )


@dataclass(slots=True)
class Turns:
    """Maximum and floor by turns."""

    used: Interval = field(default_factory=Interval)
    """What all turns of the maximum took."""
    rates: list[float] = field(default_factory=list)
    """CCR/s of each turn, and their latencies ..."""
    latencies: list[dict[str, Any]] = field(default_factory=list)
    floors: list[list[tuple[int, dict[str, Any]]]] = field(default_factory=list)
    """... and what Redis alone did right after it, see ``FloorServer.drive``."""


class Bench:
    """One run from the empty directory to the report."""

    def __init__(self, scale: Scale, options: argparse.Namespace, console: Console) -> None:
        self.scale = scale
        self.options = options
        self.console = console
        self.report = Report(compiled=build.is_compiled())
        self.placement = machine.placement(not options.no_pin)
        self.errors: dict[str, int] = {}
        self.window = 0
        self.worker: Worker
        self.outbox_pid = 0
        self.generator: GeneratorProcess
        self.redis: EmbeddedRedis
        self.store: Store

    async def run(self, directory: Path) -> Report:
        """Raises BenchError, EmbeddedRedisError, StoreError or MachineError."""
        async with AsyncExitStack() as cleanup:
            await self._prepare(directory, cleanup)
            await self._open_sessions()
            maximum = await self._maximum(directory)
            await self._half(maximum.answers / maximum.seconds)
            await self._many()
            await self._finish()
            await self._rating()
        return self.report

    # -- phases ------------------------------------------------------------------------------------------------------

    async def _prepare(self, directory: Path, cleanup: AsyncExitStack) -> None:
        scale, options = self.scale, self.options
        self.redis = EmbeddedRedis(
            EmbeddedSettings(data_dir=directory / "redis", server_binary=options.redis, fsync="always")
        )
        address = await self.redis.start()
        cleanup.push_async_callback(self.redis.stop)
        self.store = await connect(address)
        cleanup.push_async_callback(self.store.stop)
        self._say(f"creating {scale.accounts:,} accounts")
        before, between, after = await seed(self.store, scale.accounts, time_ns() // 1_000_000)
        accounts = (between.used - between.journals) - (before.used - before.journals)
        directory_octets = (after.used - after.journals) - (between.used - between.journals)
        self.report.add("idle_account_octets", "Redis memory per idle account, three buckets",
                        accounts / scale.accounts, "B")  # fmt: skip
        self.report.add("directory_octets", "Redis memory per subscriber, two identities",
                        directory_octets / scale.accounts, "B")  # fmt: skip
        await compact(self.store)
        # As many requests as there are sessions are admitted: a stall of the machine shall show as latency.
        self.worker = Worker(shlex.split(options.server), address.url, directory, PARTITIONS, admit_all(scale.sessions))
        cleanup.push_async_callback(self.worker.stop)
        await self.worker.start()
        self._say("waiting until all accounts were looked at by the rules in force")
        await rules_settled(self.store)
        self.report.add("worker_start_octets", "worker memory after its start",
                        machine.usage(self.worker.pid).resident_octets / 1e6, "MB")  # fmt: skip
        self.generator = GeneratorProcess(self.worker.port, scale.peers, scale.accounts, scale.sessions, options.seed)
        cleanup.push_async_callback(self.generator.stop)
        await self.generator.start()
        outbox = machine.child_running(self.worker.pid, "occ.outbox")
        if outbox is None:
            raise BenchError("the server runs no outbox process")
        self.outbox_pid = outbox
        if self.placement.worker:
            machine.pin(self.worker.pid, self.placement.worker)
            machine.pin(self.outbox_pid, self.placement.generator)
            machine.pin(self.redis.pid, self.placement.redis)
            machine.pin(self.generator.pid, self.placement.generator)
        shares = self.placement.redis == self.placement.generator
        self._facts(directory, first=shares and machine.put_first(self.generator.pid))

    def _facts(self, directory: Path, first: bool) -> None:
        """``first``: the generator has its core whenever it wants it."""
        scale = self.scale
        self.report.facts |= {
            "machine": machine.describe(),
            "cores": self.placement.describe()
            + (", the generator before the others: its clients are on other machines" if first else ""),
            "hot path": build.describe_hot_path(),
            "versions": build.describe_versions(),
            "settings": "those of config/occ.yaml with its policies in force, but for admission (in_flight_limit)",
            "Redis": f"{self.redis.program}, appendfsync always",
            "load": f"{scale.accounts:,} accounts, {scale.sessions:,} open sessions of two services over "
            f"{scale.peers} connections; I, U, U, T of 696, 852, 852 and 816 octets; "
            f"{scale.seconds:g} s measured after {scale.warm_up_s:g} s each",
            "disk": machine.describe_fsync(directory),
            "latency": "open loop, exponential intervals, from the moment a request was due to be sent; "
            f"HDR histogram of {SIGNIFICANT_DIGITS} significant digits",
        }

    async def _open_sessions(self) -> None:
        self._say(f"opening {self.scale.sessions:,} sessions")
        before = await memory(self.store)
        self._check(await self.generator.do("open_sessions"))
        after = await memory(self.store)
        grown = (after.used - after.journals) - (before.used - before.journals)
        self.report.add("session_octets", "Redis memory per open session after I and U",
                        grown / self.scale.sessions, "B")  # fmt: skip
        self.report.add("journal_octets", "Redis memory of the journal per request",
                        (after.journals - before.journals) / (2 * self.scale.sessions), "B")  # fmt: skip
        self._check(await self.generator.do("stagger"))

    async def _maximum(self, directory: Path) -> Interval:
        """The server's maximum, and beside each part of it what a Redis takes that has nothing else to do."""
        scale = self.scale
        beside = FloorServer(directory / "floor", self.options.redis, scale.accounts, self.placement)
        self._say(f"creating {scale.accounts:,} accounts for the floor")
        try:
            await beside.start()
            self.window = scale.window or await self._find_window()
            sample = await self._record(directory)
            turns = await self._in_turns(beside, sample)
        finally:
            await beside.stop()
        used = turns.used
        self.report.facts["maximum"] = (
            f"closed loop, {self.window} requests under way, in {TURNS} turns with the floor, of "
            f"{scale.seconds / TURNS:g} s each"
        )
        add = self.report.add
        add("rate", "maximum", used.answers / used.seconds, "CCR/s")
        add("worker_cpu_us", "worker CPU per CCR at the maximum", used.worker_cpu_s / used.answers * 1e6, "µs", 1)
        add("redis_cpu_us", "Redis CPU per CCR at the maximum", used.redis_cpu_s / used.answers * 1e6, "µs", 1)
        add("outbox_cpu_us", "outbox CPU per CCR at the maximum", used.outbox_cpu_s / used.answers * 1e6, "µs", 1)
        add("plans_per_commit", "CCRs per commit at the maximum", used.answers / max(1, used.commits), "", 1)
        add("worker_busy", "worker's core at the maximum", used.worker_cpu_s / used.seconds * 100, "% busy")
        add("undelivered", "outbox behind at the end of the maximum", used.undelivered, "records")
        latency = self.report.latencies["maximum"] = merged(turns.latencies)
        add("max_p50_ms", "p50 at the maximum", latency["percentiles_ms"]["50"], "ms", 2)
        add("max_p99_ms", "p99 at the maximum", latency["percentiles_ms"]["99"], "ms", 2)
        self._tell_floor(turns)
        return used

    async def _in_turns(self, beside: FloorServer, sample: Path) -> Turns:
        scale = self.scale
        turns = Turns()
        seconds = scale.seconds / TURNS
        for number in range(TURNS):
            self._say(f"measuring the maximum with {self.window} requests under way, {number + 1} of {TURNS}")
            warm_up_s = scale.warm_up_s if number == 0 else min(scale.warm_up_s, TURN_WARM_UP_S)
            result, used = await self._measure(
                "closed_loop", turns.used, window=self.window, warm_up_s=warm_up_s, seconds=seconds
            )
            turns.rates.append(result["rate"])
            turns.latencies.append(result["latency"])
            as_batched = round(used.answers / max(1, used.commits))
            self._say(f"driving Redis alone, {number + 1} of {TURNS}")
            turns.floors.append(await beside.drive(sample, as_batched, seconds * FLOOR_SHARE))
        return turns

    def _tell_floor(self, turns: Turns) -> None:
        add = self.report.add
        for at, key in enumerate(("floor", "best_floor")):
            plans = round(median(floors[at][0] for floors in turns.floors))
            rates = [floors[at][1]["rate"] for floors in turns.floors]
            ratios = [rate / alone for rate, alone in zip(turns.rates, rates, strict=True)]
            suffix = " as in this run" if key == "floor" else ""
            add(key, f"floor: Redis alone, {plans} CCRs per commit{suffix}", median(rates), "CCR/s")
            add(f"over_{key}", "maximum over that floor, median of the turns", median(ratios), "", 2)
            self.report.facts[f"turns over the {key.replace('_', ' ')}"] = "; ".join(
                f"{rate:,.0f} / {alone:,.0f} = {ratio:.2f}"
                for rate, alone, ratio in zip(turns.rates, rates, ratios, strict=True)
            )
        busy = [
            f"{median(floors[at][1][who] for floors in turns.floors):.0%}"
            for who in ("redis_busy", "client_busy")
            for at in (0, 1)
        ]
        self.report.facts["floor"] = (
            "the recorded commits and session-directory writes replayed over one Unix socket on a Redis that has the "
            f"same accounts and nobody else to serve, {DEPTH} commits under way; Redis {busy[0]} and {busy[1]} busy, "
            f"its client {busy[2]} and {busy[3]}"
        )

    async def _find_window(self) -> int:
        """The smallest number of requests under way at which the server does as much as it can."""
        best, best_rate = WINDOWS[0], 0.0
        for window in WINDOWS:
            if 2 * window > self.scale.sessions:
                break
            self._say(f"seeking the maximum with {window} requests under way")
            result = await self.generator.do("closed_loop", window=window, warm_up_s=1.0, seconds=PROBE_SECONDS)
            self._check(result)
            if result["rate"] > best_rate * WORTH_IT:
                best, best_rate = window, result["rate"]
        return best

    async def _record(self, directory: Path) -> Path:
        """Record commits under the same load, before the measured turns: MONITOR would disturb them."""

        async def on_mark(said: dict[str, Any]) -> None:
            if said["mark"] == "begin":
                address = self.redis.address.unix_path
                assert address is not None
                sample = await asyncio.to_thread(floor.record, address, RECORD_SECONDS, self.store.keys)
                samples.append(sample)

        samples: list[floor.Sample] = []
        load = {"window": self.window, "warm_up_s": 0.2, "seconds": RECORD_SECONDS * 2}
        for _ in range(RECORD_TRIES):
            self._check(await self.generator.do("closed_loop", on_mark, **load))
            if samples and samples[-1].plans:
                path = directory / "sample.json"
                path.write_text(json.dumps(floor.dump(samples[-1])), encoding="utf-8")
                return path
        raise BenchError("no commit of the server was seen in Redis while it was under load")

    async def _half(self, maximum: float) -> None:
        scale = self.scale
        self._say("measuring latency at half of the maximum")
        result, used = await self._measure(
            "open_loop", rate=maximum / 2, warm_up_s=scale.warm_up_s / 2, seconds=scale.seconds
        )
        add = self.report.add
        add("half_rate", "half of the maximum, as it was offered and answered", used.answers / used.seconds, "CCR/s")
        self._tell_latency(result["latency"])
        add("half_worker_cpu_us", "worker CPU per CCR at half", used.worker_cpu_s / used.answers * 1e6, "µs", 1)
        add("half_redis_cpu_us", "Redis CPU per CCR at half", used.redis_cpu_s / used.answers * 1e6, "µs", 1)
        add("half_plans_per_commit", "CCRs per commit at half", used.answers / max(1, used.commits), "", 1)
        add("half_undelivered", "outbox behind at the end of half", used.undelivered, "records")
        add("worker_octets", "worker memory under load",
            machine.usage(self.worker.pid).resident_octets / 1e6, "MB")  # fmt: skip
        add("redis_octets", "Redis memory under load",
            machine.usage(self.redis.pid).resident_octets / 1e6, "MB")  # fmt: skip

    def _tell_latency(self, latency: dict[str, Any]) -> None:
        """At half of the maximum. A single stall of the disk shows in the whole, and not in most of its parts."""
        add = self.report.add
        self.report.latencies["half"] = latency
        for key, percentile in (("p50", "50"), ("p99", "99"), ("p999", "99.9"), ("p9999", "99.99")):
            measured_ms = latency["percentiles_ms"][percentile]
            add(f"half_{key}_ms", f"p{percentile} at half of the maximum", measured_ms, "ms", 2)
        add("half_max_ms", "slowest at half of the maximum", latency["max_ms"], "ms", 2)
        parts = [part["percentiles_ms"]["99"] for part in latency["parts"] if part["samples"]]
        bound, _ = BUDGET["half_p99_ms"]
        add("half_part_p99_ms", f"p99 in the median of {PARTS} equal parts of it", median(parts), "ms", 2)
        add("half_parts_kept", f"of these {PARTS}, how many have a p99 {bound} ms", sum(map(bound.met_by, parts)))

    async def _many(self) -> None:
        """What very many sessions and peers take in the worker's memory."""
        scale, add = self.scale, self.report.add
        self._say(f"opening sessions up to {scale.many_sessions:,}, and {scale.idle_peers} connections")
        self._check(await self.generator.do("open_more", sessions=scale.many_sessions))
        before = machine.usage(self.worker.pid).resident_octets
        add("worker_sessions_mb", f"worker memory with {scale.many_sessions:,} open sessions", before / 1e6, "MB")
        self._check(await self.generator.do("connect", peers=scale.idle_peers))
        grown = machine.usage(self.worker.pid).resident_octets - before
        add("peer_octets", "worker memory per peer", max(0, grown) / scale.idle_peers, "B")
        self._check(await self.generator.do("disconnect"))

    async def _finish(self) -> None:
        """End all sessions and the server, then hold the ledger against what the clients say."""
        self._say("ending all sessions and checking the ledger")
        result = await self.generator.do("finish")
        self._check(result)
        await command.stop_both(self.generator, self.worker, self.errors)
        found = await check(self.redis.address)
        debited = command.debited_micro(found)
        self.report.facts["ledger"] = (
            f"{found.accounts:,} accounts, {found.journal_records:,} entries, {found.open_sessions} open sessions; "
            f"debited {debited / 1e6:,.2f} by the ledger, {result['debited_micro'] / 1e6:,.2f} by the clients"
        )
        self.report.add("requests", "requests in all", result["answers"])
        command.tell_audit(self.report, self.console, found, result["debited_micro"], self.errors)

    async def _rating(self) -> None:
        """What a rating call costs, whatever the length of the price list."""
        self._say("rating calls with short and long price lists")
        costs = await run_rating(self.placement.worker, self.scale.numbers)
        for cost in costs:
            prefixes = cost["prefixes"]
            self.report.add(f"rating_{prefixes}_us", f"CPU per rating call, {prefixes:,} prefixes",
                            cost["rate_us"], "µs", 1)  # fmt: skip
        self.report.add("rating_ratio", "the last of these over the first",
                        costs[-1]["rate_us"] / costs[0]["rate_us"], "", 2)  # fmt: skip
        self.report.facts["rating call"] = (
            f"number, zone, service, tariff and price of a call to a number that was never seen before; the fastest of "
            f"{destinations.PASSES} times {self.scale.numbers:,}"
        )

    # -- helpers -----------------------------------------------------------------------------------------------------

    async def _measure(
        self, what: str, interval: Interval | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], Interval]:
        """One load phase and what the processes used in its measured interval, which is added to ``interval``."""
        interval = interval or Interval()
        first = interval.seconds == 0

        async def on_mark(said: dict[str, Any]) -> None:
            sign = 1 if said["mark"] == "end" else -1
            if sign < 0:
                await forget_stalls(self.store)
            interval.seconds += sign * perf_counter()
            interval.worker_cpu_s += sign * machine.usage(self.worker.pid).cpu_s
            interval.redis_cpu_s += sign * machine.usage(self.redis.pid).cpu_s
            interval.outbox_cpu_s += sign * machine.usage(self.outbox_pid).cpu_s
            interval.generator_cpu_s += sign * machine.usage(self.generator.pid).cpu_s
            whole = machine.processor()
            interval.machine_cpu_s += sign * whole.busy_s
            interval.stolen_s += sign * whole.stolen_s
            interval.answers += said.get("answers", 0)
            interval.commits += sign * await commit_calls(self.store)
            interval.slowest_fsync_ms = max(interval.slowest_fsync_ms, await slowest_fsync_ms(self.store))
            undelivered = await undelivered_records(self.store)
            if sign < 0 and first:
                interval.undelivered_before = undelivered
            interval.undelivered = undelivered

        result = await self.generator.do(what, on_mark, latency=True, **arguments)
        self._check(result)
        if not interval.answers:
            raise BenchError(f"no request was answered during {what}: {result['errors']}")
        self.report.facts[what.replace("_", " ")] = (
            f"generator {interval.generator_cpu_s / interval.seconds:.0%} of a core, "
            f"{interval.generator_cpu_s / interval.answers * 1e6:.1f} µs per request; {interval.disturbance}"
        )
        return result, interval

    def _check(self, result: dict[str, Any]) -> None:
        """The generator counts errors over its whole life; keep the newest count."""
        self.errors |= result["errors"]

    def _say(self, what: str) -> None:
        command.say(self.console, what)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", description="Load a real server and say what it takes."
    )
    command.add_quick(parser)
    parser.add_argument("--accounts", type=int, help=f"accounts in the store (default {FULL.accounts})")
    parser.add_argument("--sessions", type=int, help=f"sessions open at a time (default {FULL.sessions})")
    parser.add_argument("--peers", type=int, help=f"Diameter connections (default {FULL.peers})")
    parser.add_argument("--seconds", type=float, help=f"length of each measured interval (default {FULL.seconds:g})")
    parser.add_argument("--window", type=int, help="requests under way at the maximum (default: as many as help)")
    command.add_surroundings(parser, "the generator's random intervals")
    parser.add_argument("--enforce", action="store_true", help="fail if a figure is not as it must be")
    parser.add_argument("--record", type=Path, metavar="FILE",
        help="with --quick: add the ratios of this run to those that later runs are held against")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.record is not None and not options.quick:
        parser.error("--record is for --quick, as the test that compares with it runs that; use --json otherwise")
    return options


def _scale(options: argparse.Namespace) -> Scale:
    base = QUICK if options.quick else FULL
    seconds = options.seconds or base.seconds
    sessions = options.sessions or base.sessions
    return Scale(
        accounts=options.accounts or base.accounts,
        sessions=sessions,
        many_sessions=max(sessions, base.many_sessions),
        idle_peers=base.idle_peers,
        peers=options.peers or base.peers,
        seconds=seconds,
        warm_up_s=min(base.warm_up_s, seconds / 2),
        window=options.window or base.window,
        numbers=base.numbers,
    )


def main(arguments: list[str] | None = None) -> int:
    """0: the run is sound; 1: it is not, or misses the budget that was to be enforced."""
    options = _parse(arguments)
    console = Console()
    scale = _scale(options)
    if scale.sessions < 2 * (scale.window or WINDOWS[0]):
        console.print(f"--sessions must be twice the window at least, {2 * (scale.window or WINDOWS[0])}")
        return 2
    try:
        if options.record is not None:
            recorded.read(options.record)  # what cannot be added to is told before the run
        require_histograms()
        report = command.run_in(options.directory, "occ-bench-", Bench(scale, options, console).run)
        report.show(console)
        if options.json is not None:
            report.write(options.json)
        if options.record is not None and command.is_sound(report):
            recorded.add(options.record, report.value, report.facts)
    except command.FAULTS as error:
        return command.complain(console, error)
    enforced = not options.enforce or all(figure.is_kept for figure in report.figures)
    return 0 if command.is_sound(report) and enforced else 1


if __name__ == "__main__":
    sys.exit(main())
