"""`python -m loadtests.scale`, `make bench-scale`: whether a request costs the same however much there is.

Three questions, each with a small, a middling and a large subject:

accounts        1,000, 100,000 and 1,000,000 in the store
peers           1, 10 and 100 connections that share the load
rules           10, 1,000 and 100,000 prefixes of destinations, and 10, 1,000 and 1,000 policy rules

The subjects of a question run side by side, one under load at a time, in turn for several rounds. The figure of a
subject is the CPU of worker and Redis per Credit-Control-Request, the median of its rounds; what counts is the ratio to
the smallest subject in the same round, the median again: what else the machine does lasts longer than a round, and
meets all of them alike. (The best rounds of two subjects may be minutes apart.) Load as in `python -m loadtests`,
closed loop, the same number of requests under way everywhere.
"""

import argparse
import asyncio
import shlex
import shutil
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from balance.directory import NewBucket, create_account
from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings
from balance.model import MICRO, AccountKind, IdentityType, Subscriber, Unit
from balance.records import pack_subscriber
from balance.store import Store
from loadtests import build, command, machine
from loadtests.destinations import price_list
from loadtests.plot import plot
from loadtests.processes import ROOT, BenchError, GeneratorProcess, Worker, admit_all
from loadtests.seed import PARTITIONS, connect, rules_settled
from loadtests.templates import line

WINDOW: Final = 128
"""Requests under way."""
SESSIONS: Final = 500
"""Open at a time, with each subject."""
MOST_RULES: Final = 1_000
LEVELS: Final = 50
"""Levels that the rules of a long list are about; each is a threshold that no account of the run is at."""
_PAGE: Final = 1_000
_EURO: Final = 978
_BALANCE: Final = 1000 * MICRO
_SERVICES: Final = ("internet", "portal", "national-voice", "international-voice", "sms")


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one run."""

    accounts: tuple[int, ...]
    peers: tuple[int, ...]
    prefixes: tuple[int, ...]
    rounds: int
    seconds: float
    """Of each interval."""


FULL: Final = Scale((1_000, 100_000, 1_000_000), (1, 10, 100), (10, 1_000, 100_000), rounds=15, seconds=2.0)
QUICK: Final = Scale((500, 1_500), (1, 10), (10, 1_000), rounds=2, seconds=0.5)
OTHERWISE_ACCOUNTS: Final = 5_000
"""Accounts where the question is about something else."""
BUDGET: Final = {"accounts": (1.25, 1.1), "peers": (1.25, 1.1), "rules": (1.15, 1.05)}
"""The ratio of the largest subject to the smallest that must be kept to, and the one aimed at."""


@dataclass(slots=True)
class Subject:
    """One server under load, and what a request cost it in each round."""

    size: int
    label: str
    worker: Worker
    redis_pid: int
    generator: GeneratorProcess
    worker_us: list[float] = field(default_factory=list)
    redis_us: list[float] = field(default_factory=list)

    def ratio_to(self, first: "Subject") -> float:
        """What a request cost over what it cost with another subject in the same round; the median of the rounds."""
        mine, theirs = (map(sum, zip(each.worker_us, each.redis_us, strict=True)) for each in (self, first))
        return median(cost / other for cost, other in zip(mine, theirs, strict=True))


class ScaleRun:
    """All questions, one after the other."""

    def __init__(self, scale: Scale, options: argparse.Namespace, console: Console) -> None:
        self.scale = scale
        self.options = options
        self.console = console
        self.placement = machine.placement(not options.no_pin)

    async def run(self, directory: Path) -> dict[str, Any]:
        """The result as plain data. Raises BenchError, EmbeddedRedisError, StoreError, MachineError or OSError."""
        axes = {
            "accounts": await self._accounts(directory / "accounts"),
            "peers": await self._peers(directory / "peers"),
            "rules": await self._rules(directory / "rules"),
        }
        scale = self.scale
        return {
            "facts": {
                "machine": machine.describe(),
                "cores": self.placement.describe(),
                "hot path": build.describe_hot_path(),
                "versions": build.describe_versions(),
                "load": f"closed loop, {WINDOW} requests under way, {SESSIONS} open sessions of two services; "
                f"median of {scale.rounds} rounds of {scale.seconds:g} s; {OTHERWISE_ACCOUNTS:,} accounts and 4 peers "
                "where the question is another one; appendfsync always",
            },
            "axes": axes,
        }

    # -- questions -------------------------------------------------------------------------------------------------

    async def _accounts(self, directory: Path) -> list[dict[str, Any]]:
        async with AsyncExitStack() as cleanup:
            subjects = []
            for accounts in self.scale.accounts:
                place = directory / str(accounts)
                redis = await self._redis(place, cleanup)
                worker = await self._worker(place, redis, {}, cleanup)
                await self._fill(redis, accounts)
                label = f"{accounts:,} accounts"
                subjects.append(await self._subject(accounts, label, worker, redis, 4, accounts, cleanup))
            return await self._compare(subjects)

    async def _peers(self, directory: Path) -> list[dict[str, Any]]:
        async with AsyncExitStack() as cleanup:
            redis = await self._redis(directory, cleanup)
            worker = await self._worker(directory, redis, {}, cleanup)
            await self._fill(redis, OTHERWISE_ACCOUNTS)
            subjects = []
            first = 1
            for peers in self.scale.peers:
                label = f"{peers:,} peers" if peers > 1 else "1 peer"
                accounts = OTHERWISE_ACCOUNTS
                subjects.append(await self._subject(peers, label, worker, redis, peers, accounts, cleanup, first))
                first += peers  # they are peers of one server, and no two may have the same name
            return await self._compare(subjects)

    async def _rules(self, directory: Path) -> list[dict[str, Any]]:
        async with AsyncExitStack() as cleanup:
            subjects = []
            for prefixes in self.scale.prefixes:
                place = directory / str(prefixes)
                redis = await self._redis(place, cleanup)
                rules = min(prefixes, MOST_RULES)
                settings = await asyncio.to_thread(write_configuration, place / "config", prefixes, rules)
                worker = await self._worker(place, redis, settings, cleanup)
                await self._fill(redis, OTHERWISE_ACCOUNTS)
                label = f"{prefixes:,} prefixes, {rules:,} rules"
                subjects.append(await self._subject(prefixes, label, worker, redis, 4, OTHERWISE_ACCOUNTS, cleanup))
            return await self._compare(subjects)

    async def _compare(self, subjects: list[Subject]) -> list[dict[str, Any]]:
        for round_number in range(self.scale.rounds):
            for subject in subjects:
                self._say(f"round {round_number + 1} of {self.scale.rounds}: {subject.label}")
                await self._measure(subject)
        return [
            {
                "size": each.size,
                "label": each.label,
                "worker_cpu_us": median(each.worker_us),
                "redis_cpu_us": median(each.redis_us),
                "ratio": each.ratio_to(subjects[0]),
                "rounds_us": [list(used) for used in zip(each.worker_us, each.redis_us, strict=True)],
            }
            for each in subjects
        ]

    async def _measure(self, subject: Subject) -> None:
        """One round: its figures go into the subject."""
        used = {"worker": 0.0, "redis": 0.0, "answers": 0}

        async def on_mark(said: dict[str, Any]) -> None:
            sign = 1 if said["mark"] == "end" else -1
            used["worker"] += sign * machine.usage(subject.worker.pid).cpu_s
            used["redis"] += sign * machine.usage(subject.redis_pid).cpu_s
            used["answers"] += said.get("answers", 0)

        seconds = self.scale.seconds
        result = await subject.generator.do("closed_loop", on_mark, window=WINDOW, warm_up_s=0.3, seconds=seconds)
        if result["errors"] or not used["answers"]:
            raise BenchError(f"not all was answered with {subject.label}: {result['errors']}")
        subject.worker_us.append(used["worker"] / used["answers"] * 1e6)
        subject.redis_us.append(used["redis"] / used["answers"] * 1e6)

    # -- subjects --------------------------------------------------------------------------------------------------

    async def _redis(self, directory: Path, cleanup: AsyncExitStack) -> EmbeddedRedis:
        redis = EmbeddedRedis(EmbeddedSettings(data_dir=directory / "redis", server_binary=self.options.redis))
        await redis.start()
        cleanup.push_async_callback(redis.stop)
        if self.placement.redis:
            machine.pin(redis.pid, self.placement.redis)
        return redis

    async def _worker(
        self, directory: Path, redis: EmbeddedRedis, settings: dict[str, str], cleanup: AsyncExitStack
    ) -> Worker:
        settings = admit_all(SESSIONS) | settings
        worker = Worker(shlex.split(self.options.server), redis.address.url, directory, PARTITIONS, settings)
        cleanup.push_async_callback(worker.stop)
        await worker.start()
        outbox = machine.child_running(worker.pid, "occ.outbox")
        if self.placement.worker:
            machine.pin(worker.pid, self.placement.worker)
            if outbox is not None:
                machine.pin(outbox, self.placement.generator)
        store = await connect(redis.address)
        try:
            await rules_settled(store)
        finally:
            await store.stop()
        return worker

    async def _fill(self, redis: EmbeddedRedis, accounts: int) -> None:
        """After the server has looked at all accounts by its rules, as it does once: it is no part of the question."""
        self._say(f"creating {accounts:,} accounts")
        await fill(redis.address, accounts)

    async def _subject(
        self,
        size: int,
        label: str,
        worker: Worker,
        redis: EmbeddedRedis,
        peers: int,
        accounts: int,
        cleanup: AsyncExitStack,
        first_peer: int = 1,
    ) -> Subject:
        generator = GeneratorProcess(worker.port, peers, accounts, SESSIONS, self.options.seed, first_peer=first_peer)
        cleanup.push_async_callback(generator.stop)
        await generator.start()
        if self.placement.generator:
            machine.pin(generator.pid, self.placement.generator)
        subject = Subject(size, label, worker, redis.pid, generator)
        result = await generator.do("open_sessions")
        if result["errors"]:
            raise BenchError(f"sessions could not be opened with {label}: {result['errors']}")
        await generator.do("stagger")
        return subject

    def _say(self, what: str) -> None:
        command.say(self.console, what)


async def fill(address: Address, accounts: int) -> None:
    """Accounts of three buckets with a subscriber each: the first by the ledger, the others as copies of it.

    A million by the ledger's own operations would take longer than the measurement. Raises StoreError.
    """
    store = await connect(address)
    try:
        await store.call("CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
        await store.call("CONFIG", "SET", "appendfsync", "no")
        first = line(1).msisdn
        buckets = (NewBucket(Unit.SECONDS, 6000), NewBucket(Unit.EVENTS, 100))
        await create_account(
            store, first, AccountKind.PREPAID, _EURO, now_ms=0, reason="load", balance_micro=_BALANCE, buckets=buckets
        )
        value = await store.call("GET", store.keys.account(first))
        for start in range(1, accounts + 1, _PAGE):
            await store.call("MSET", *_rows(store, value, range(start, min(start + _PAGE, accounts + 1))))
        await store.call("CONFIG", "SET", "appendfsync", "always")
    finally:
        await store.stop()


def _rows(store: Store, value: bytes, numbers: range) -> list[bytes]:
    keys = store.keys
    rows: list[bytes] = []
    for number in numbers:
        digits = line(number)
        identities = ((int(IdentityType.E164), digits.msisdn), (int(IdentityType.IMSI), digits.imsi))
        subscriber = pack_subscriber(Subscriber(digits.msisdn, digits.msisdn, "standard", identities))
        rows += (keys.account(digits.msisdn), value)
        for kind, digits_of in identities:
            rows += (keys.identity(kind, digits_of), subscriber)
    return rows


def write_configuration(directory: Path, prefixes: int, rules: int) -> dict[str, str]:
    """The shipped catalogue with so many prefixes more, and so many policy rules; settings that name both."""
    shutil.copytree(ROOT / "config", directory)
    rng = Random(prefixes)
    zones = ("local", "long-distance", "eu")
    # Five digits in front: no prefix may be one that the catalogue has already.
    rows = (f"99999{prefix},{zones[rng.randrange(len(zones))]}\n" for prefix in price_list(prefixes, rng))
    (directory / "prefixes.csv").write_text("prefix,zone\n" + "".join(rows), encoding="utf-8")
    catalogue = directory / "catalogue.yaml"
    text = catalogue.read_text(encoding="utf-8")
    catalogue.write_text(text.replace("\ndestinations:\n", "\ndestinations:\n  file: prefixes.csv\n", 1), "utf-8")
    levels = [f"  below-{n}: {{when: balance below {n / 100:.2f}}}\n" for n in range(1, min(rules, LEVELS) + 1)]
    written = [
        f"  - {{rule: r{n}, when: below-{n % len(levels) + 1}, services: [{_SERVICES[n % len(_SERVICES)]}], do: bar}}\n"
        for n in range(rules)
    ]
    policies = directory / "policies.yaml"
    policies.write_text("levels:\n" + "".join(levels) + "rules:\n" + "".join(written), encoding="utf-8")
    return {"OCC_CATALOGUE": str(catalogue), "OCC_POLICIES": str(policies)}


# -- the command -------------------------------------------------------------------------------------------------------


def show(result: dict[str, Any], console: Console) -> None:
    """The facts, then a table."""
    for name, fact in result["facts"].items():
        console.print(f"[dim]{name}:[/dim] {fact}", highlight=False)
    table = Table(header_style="bold")
    table.add_column("with")
    for heading in ("worker CPU", "Redis CPU", "ratio", "must", "aim"):
        table.add_column(heading, justify="right")
    for axis, rows in result["axes"].items():
        must, aim = BUDGET[axis]
        for row in rows:
            last = row is rows[-1]
            ratio = f"{row['ratio']:.2f}"
            if last:
                ratio = f"[{'green' if row['ratio'] <= must else 'red'}]{ratio}[/]"
            bounds = (f"≤ {must:g}", f"≤ {aim:g}") if last else ("", "")
            table.add_row(
                row["label"], f"{row['worker_cpu_us']:.1f} µs", f"{row['redis_cpu_us']:.1f} µs", ratio, *bounds
            )
        table.add_section()
    console.print(table)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.scale", description="Whether a request costs the same however much there is."
    )
    command.add_quick(parser)
    parser.add_argument("--seconds", type=float, help=f"length of each interval (default {FULL.seconds:g})")
    parser.add_argument("--rounds", type=int, help=f"intervals of each subject (default {FULL.rounds})")
    parser.add_argument("--accounts", type=int, help=f"of the largest store (default {FULL.accounts[-1]})")
    command.add_surroundings(parser, "the generator")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them into this file (SVG)")
    parser.add_argument("--enforce", action="store_true", help="fail if a ratio is more than it must be")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0: the run is sound; 1: it is not, or a ratio that was to be enforced is too large."""
    options = _parse(arguments)
    console = Console()
    base = QUICK if options.quick else FULL
    accounts = (*base.accounts[:-1], options.accounts) if options.accounts else base.accounts
    rounds, seconds = options.rounds or base.rounds, options.seconds or base.seconds
    scale = Scale(accounts, base.peers, base.prefixes, rounds, seconds)
    try:
        result = command.run_in(options.directory, "occ-scale-", ScaleRun(scale, options, console).run)
        show(result, console)
        command.write_json(options.json, result)
        if options.plot is not None:
            options.plot.write_text(plot(result), encoding="utf-8")
    except command.FAULTS as error:
        return command.complain(console, error)
    over = [axis for axis, rows in result["axes"].items() if rows[-1]["ratio"] > BUDGET[axis][0]]
    return 1 if options.enforce and over else 0


if __name__ == "__main__":
    sys.exit(main())
