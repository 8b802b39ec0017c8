"""`python -m loadtests.policies`: how soon live sessions learn that their account has come to another level.

A private Redis and a real server with the rules that come with the project. Accounts with two open data sessions each
are charged by the clock, in an open loop; then, while that goes on, some of the accounts are pushed below zero within
a second by another process of the store, as a billing system would do it. Their Internet is slowed then, so every
session of theirs has to be sent a Re-Auth-Request, and no other. The clients report and ask anew at once.

Latencies of Re-Auth-Requests count from just before the change was asked of the store, so the commit to disk is in
them; latencies of charging from the moment a request was due (no coordinated omission).
"""

import argparse
import asyncio
import shlex
import sys
from array import array
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter, process_time, time, time_ns
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from balance.directory import adjust_account, create_account
from balance.embedded import EmbeddedRedis, EmbeddedSettings
from balance.model import AccountKind, IdentityType, Subscriber
from balance.store import Store
from balance.subscribers import add_subscriber
from balance.transitions import waiting
from loadtests import command, machine
from loadtests.processes import BenchError, Worker, admit_all
from loadtests.seed import AT_ONCE, PARTITIONS, check, connect
from loadtests.templates import REALM, SERVER_REALM, line
from occ.policy.watching import watch_by_rules_in_force
from protocols.credit_control import (
    ReceivedAnswer,
    ServiceRequest,
    Units,
    decode_answer,
    decode_asr,
    decode_rar,
    encode_asa,
    encode_raa,
)
from protocols.diameter.codec import avp
from protocols.diameter.codes import Application, CCRequestType, Command, ReportingReason, ResultCode
from protocols.diameter.node import Node, NodeSettings, PeerHandle, RequestError, RequestReceived
from simulators.messages import Head, pgw_request
from simulators.population import Subscriber as Line
from simulators.summary import percentile

EURO: Final = 1_000_000
BALANCE: Final = 10 * EURO
OVERDRAFT: Final = 5 * EURO
TAKEN: Final = 11 * EURO
"""What an account that is pushed below zero loses at once."""
SESSIONS_AN_ACCOUNT: Final = 2
OPENING_WINDOW: Final = 64
ANSWER_TIMEOUT_S: Final = 10.0
QUIET_S: Final = 10.0
"""How long Re-Auth-Requests that are missing are waited for."""
REQUESTED_OCTETS: Final = 1 << 20
USED_OCTETS: Final = 50_000
CURRENCY: Final = 978


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run is."""

    accounts: int
    pushed: int
    """Accounts that come below zero."""
    within_s: float
    """All of them within this."""
    rate: float
    """Updates per second that are due all the time."""
    seconds: float
    """Of each of the two phases."""
    peers: int


FULL: Final = Scale(accounts=5000, pushed=500, within_s=1.0, rate=400.0, seconds=8.0, peers=4)
QUICK: Final = Scale(accounts=60, pushed=20, within_s=0.5, rate=50.0, seconds=1.0, peers=2)


@dataclass(slots=True, eq=False)
class LoadSession:
    """One open data session."""

    account: int
    name: str
    subscriber: Line
    peer: PeerHandle
    origin_host: str
    number: int = 0
    """Of its next request."""
    busy: bool = False
    owes: bool = False
    """It has agreed to report and has not done so yet."""
    asked_at: list[float] = field(default_factory=list)
    """When Re-Auth-Requests for it came."""


@dataclass(slots=True)
class Phase:
    """What was measured while one phase ran."""

    latencies_us: "array[int]" = field(default_factory=lambda: array("L"))
    """Of all requests that were due by the clock."""
    due: int = 0
    """How many were."""
    worker_cpu_s: float = 0.0
    clients_cpu_s: float = 0.0

    def count_cpu(self, sign: int, worker_pid: int) -> None:
        """At the beginning (-1) and the end (1) of the phase."""
        self.worker_cpu_s += sign * machine.usage(worker_pid).cpu_s
        self.clients_cpu_s += sign * process_time()

    def milliseconds(self, share: float) -> float:
        return percentile(array("L", sorted(self.latencies_us)), share) / 1000


class Clients:
    """Gateways with open sessions that answer the server's requests."""

    def __init__(self, scale: Scale, port: int) -> None:
        self._scale = scale
        self._port = port
        self._at_s = int(time())
        self._nodes: list[Node] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.sessions: list[LoadSession] = []
        self._by_name: dict[bytes, LoadSession] = {}
        self.errors: Counter[str] = Counter()
        self.slowed = 0
        """Updates that were answered with restricted access: what the rules do below zero."""

    async def connect(self) -> None:
        """Raises ConnectError."""
        peers: list[tuple[PeerHandle, str]] = []
        for number in range(self._scale.peers):
            identity = f"gw{number:02d}.{REALM}"
            asks = frozenset((int(Command.RE_AUTH), int(Command.ABORT_SESSION)))
            applications = {int(Application.CREDIT_CONTROL): asks}
            node = Node(
                NodeSettings(identity, REALM, applications=applications, product_name="OCC load"), self._on_request
            )
            self._nodes.append(node)
            peers.append((await node.connect("127.0.0.1", self._port), identity))
        for account in range(1, self._scale.accounts + 1):
            digits = line(account)
            subscriber = Line(account, digits.msisdn.decode(), digits.imsi.decode(), False)
            for which in range(SESSIONS_AN_ACCOUNT):
                peer, identity = peers[(account + which) % len(peers)]
                name = f"{identity};{self._at_s};{account};{which}"
                session = LoadSession(account, name, subscriber, peer, identity)
                self.sessions.append(session)
                self._by_name[name.encode()] = session

    async def open_all(self) -> None:
        """A first request for each session, a bounded number at a time."""
        window = asyncio.Semaphore(OPENING_WINDOW)

        async def open_one(session: LoadSession) -> None:
            async with window:
                await self._request(session, CCRequestType.INITIAL)

        await asyncio.gather(*(open_one(session) for session in self.sessions))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self._nodes:
            await node.stop()

    async def load(self, phase: Phase, random: Random) -> None:
        """Updates of sessions chosen at random, due at random moments, for the length of a phase."""
        loop = asyncio.get_running_loop()
        due = begin = perf_counter()
        while True:
            due += random.expovariate(self._scale.rate)
            if due - begin > self._scale.seconds:
                break
            await asyncio.sleep(max(0.0, due - perf_counter()))
            session = random.choice(self.sessions)
            phase.due += 1
            if session.busy or session.owes:
                phase.due -= 1  # it has a request under way by itself
                continue
            self._keep(loop.create_task(self._measured(session, phase, due)))

    async def settled(self) -> None:
        """Wait for all that is under way."""
        while any(session.busy or session.owes for session in self.sessions):  # noqa: ASYNC110 - of 10,000 of them
            await asyncio.sleep(0.02)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _measured(self, session: LoadSession, phase: Phase, due: float) -> None:
        if await self._request(session, CCRequestType.UPDATE) is not None:
            phase.latencies_us.append(max(0, int((perf_counter() - due) * 1e6)))
        await self._report_if_owed(session)

    async def _report_if_owed(self, session: LoadSession) -> None:
        while session.owes and not session.busy:
            session.owes = False
            await self._request(session, CCRequestType.UPDATE)

    async def _request(self, session: LoadSession, kind: CCRequestType) -> ReceivedAnswer | None:
        session.busy = True
        first = kind is CCRequestType.INITIAL
        head = Head(
            session.origin_host, REALM, SERVER_REALM, session.name, session.subscriber, kind, session.number,
            self._at_s, 0,
        )  # fmt: skip
        session.number += 1
        used = () if first else (Units(20, USED_OCTETS, USED_OCTETS // 2, USED_OCTETS // 2),)
        reason = None if first else ReportingReason.QUOTA_EXHAUSTED
        asked = [ServiceRequest(group, (), Units(total_octets=REQUESTED_OCTETS), used, reason) for group in (10, None)]
        message = bytearray(pgw_request(head, asked))
        message[16:20] = self._nodes[0].next_end_to_end().to_bytes(4, "big")
        try:
            answer = decode_answer((await session.peer.request(bytes(message), ANSWER_TIMEOUT_S)).message)
        except RequestError as error:
            self.errors[str(error)] += 1
            return None
        finally:
            session.busy = False
        if answer.result_code != ResultCode.SUCCESS:
            self.errors[f"answer {answer.result_code}"] += 1
        self.slowed += any(service.filter_ids for service in answer.services)
        return answer

    def _on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        now = perf_counter()
        if event.command != Command.RE_AUTH:
            self.errors["a session was to be aborted"] += 1
            abort = decode_asr(event.message)
            peer.send(encode_asa(abort, int(ResultCode.UNABLE_TO_COMPLY), _origin(abort.destination_host)))
            return
        request = decode_rar(event.message)
        origin = _origin(request.destination_host)
        session = self._by_name.get(request.session_id)
        if session is None:
            self.errors["a session that nobody opened was asked about"] += 1
            peer.send(encode_raa(request, int(ResultCode.UNKNOWN_SESSION_ID), origin))
            return
        session.asked_at.append(now)
        session.owes = True
        peer.send(encode_raa(request, int(ResultCode.LIMITED_SUCCESS), origin))
        self._keep(asyncio.get_running_loop().create_task(self._report_if_owed(session)))


def _origin(host: bytes) -> bytes:
    return avp("Origin-Host", host.decode()) + avp("Origin-Realm", REALM)


class PolicyRun:
    """One run from the empty directory to the figures."""

    def __init__(self, scale: Scale, options: argparse.Namespace, console: Console) -> None:
        self._scale = scale
        self._options = options
        self._console = console
        self._random = Random(options.seed)
        self.figures: dict[str, float] = {}
        self._commits_us = array("L")

    async def run(self, directory: Path) -> dict[str, float]:
        """Raises BenchError, EmbeddedRedisError, StoreError or OSError."""
        scale = self._scale
        async with AsyncExitStack() as cleanup:
            settings = EmbeddedSettings(data_dir=directory / "redis", server_binary=self._options.redis, fsync="always")
            redis = EmbeddedRedis(settings)
            address = await redis.start()
            cleanup.push_async_callback(redis.stop)
            store = await connect(address)
            cleanup.push_async_callback(store.stop)
            worker = Worker(shlex.split(self._options.server), address.url, directory, PARTITIONS, admit_all(10_000))
            cleanup.push_async_callback(worker.stop)
            await worker.start()
            await watch_by_rules_in_force(store)
            if store.observe is None:
                raise BenchError("the server has no policies; leave its configuration as the project ships it")
            self._say(f"creating {scale.accounts:,} accounts")
            await _seed(store, scale.accounts)
            clients = Clients(scale, worker.port)
            cleanup.push_async_callback(clients.close)
            await clients.connect()
            self._say(f"opening {len(clients.sessions):,} sessions")
            await clients.open_all()
            without, during = Phase(), Phase()
            self._say("charging without a push")
            without.count_cpu(-1, worker.pid)
            await clients.load(without, self._random)
            without.count_cpu(1, worker.pid)
            self._say(f"charging while {scale.pushed:,} accounts are pushed below zero")
            during.count_cpu(-1, worker.pid)
            changed_at = await self._push(store, clients, during)
            await self._wait(clients, changed_at)
            await clients.settled()
            during.count_cpu(1, worker.pid)
            left = await waiting(store)
            await clients.close()
            await worker.stop()
            found = await check(address)
        self._report(clients, changed_at, without, during)
        self.figures["transitions_left"] = left
        self.figures["discrepancies"] = found.discrepancy_count
        self.figures["errors"] = sum(clients.errors.values()) + len(worker.complaints())
        for what, count in clients.errors.items():
            self._console.print(f"[red]{count} × {what}[/red]", highlight=False)
        return self.figures

    async def _push(self, store: Store, clients: Clients, phase: Phase) -> dict[int, float]:
        """When each account was changed."""
        scale = self._scale
        accounts = self._random.sample(range(1, scale.accounts + 1), scale.pushed)
        changed_at: dict[int, float] = {}

        async def push_all() -> None:
            await asyncio.sleep(scale.seconds / 4)
            begin = perf_counter()
            pushes: list[asyncio.Task[Any]] = []
            for index, account in enumerate(accounts):
                await asyncio.sleep(max(0.0, begin + index * scale.within_s / scale.pushed - perf_counter()))
                changed_at[account] = perf_counter()
                now_ms = time_ns() // 1_000_000
                change = self._change(store, line(account).msisdn, now_ms)
                pushes.append(asyncio.get_running_loop().create_task(change))
            await asyncio.gather(*pushes)

        await asyncio.gather(push_all(), clients.load(phase, self._random))
        return changed_at

    async def _change(self, store: Store, account_id: bytes, now_ms: int) -> None:
        began = perf_counter()
        await adjust_account(store, account_id, -TAKEN, now_ms=now_ms, reason="load test")
        self._commits_us.append(int((perf_counter() - began) * 1e6))

    async def _wait(self, clients: Clients, changed_at: dict[int, float]) -> None:
        until = perf_counter() + QUIET_S
        concerned = [session for session in clients.sessions if session.account in changed_at]
        while perf_counter() < until and not all(each.asked_at for each in concerned):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)

    def _report(self, clients: Clients, changed_at: dict[int, float], without: Phase, during: Phase) -> None:
        concerned = [session for session in clients.sessions if session.account in changed_at]
        others = [session for session in clients.sessions if session.account not in changed_at]
        seconds = sorted(session.asked_at[0] - changed_at[session.account] for session in concerned if session.asked_at)
        latencies = array("L", (int(each * 1e6) for each in seconds))
        self.figures |= {
            "sessions": len(clients.sessions),
            "pushed_accounts": len(changed_at),
            "concerned_sessions": len(concerned),
            "asked_sessions": len(seconds),
            "asked_more_than_once": sum(len(session.asked_at) > 1 for session in concerned),
            "asked_in_vain": sum(bool(session.asked_at) for session in others),
            "slowed_answers": clients.slowed,
            "change_p50_ms": percentile(array("L", sorted(self._commits_us)), 0.50) / 1000,
            "change_p99_ms": percentile(array("L", sorted(self._commits_us)), 0.99) / 1000,
            "push_p50_ms": percentile(latencies, 0.50) / 1000,
            "push_p99_ms": percentile(latencies, 0.99) / 1000,
            "push_max_ms": (latencies[-1] if latencies else 0) / 1000,
            "requests_without": without.due,
            "charging_p50_without_ms": without.milliseconds(0.50),
            "charging_p99_without_ms": without.milliseconds(0.99),
            "worker_cpu_without_s": without.worker_cpu_s,
            "worker_cpu_during_s": during.worker_cpu_s,
            "clients_cpu_during_s": during.clients_cpu_s,
            "requests_during": during.due,
            "charging_p50_during_ms": during.milliseconds(0.50),
            "charging_p99_during_ms": during.milliseconds(0.99),
        }

    def _say(self, what: str) -> None:
        command.say(self._console, what)


async def _seed(store: Store, accounts: int) -> None:
    """Prepaid accounts with an overdraft, a subscriber each."""

    async def add(number: int, now_ms: int) -> None:
        digits = line(number)
        await create_account(
            store, digits.msisdn, AccountKind.PREPAID, CURRENCY, now_ms=now_ms, reason="load test",
            balance_micro=BALANCE, credit_limit_micro=OVERDRAFT,
        )  # fmt: skip
        identities = ((int(IdentityType.E164), digits.msisdn), (int(IdentityType.IMSI), digits.imsi))
        await add_subscriber(store, Subscriber(digits.msisdn, digits.msisdn, "standard", identities))

    now_ms = time_ns() // 1_000_000
    for first in range(1, accounts + 1, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, accounts + 1))
        await asyncio.gather(*(add(number, now_ms) for number in numbers))


LABELS: Final = {
    "sessions": "open sessions",
    "pushed_accounts": "accounts pushed below zero",
    "concerned_sessions": "sessions of theirs",
    "asked_sessions": "... that were sent a Re-Auth-Request",
    "asked_more_than_once": "... more than one",
    "asked_in_vain": "sessions of other accounts that were sent one",
    "slowed_answers": "updates answered with a restriction",
    "change_p50_ms": "change of balance to its being on disk, p50, ms",
    "change_p99_ms": "... p99",
    "push_p50_ms": "change of balance to Re-Auth-Request, p50, ms",
    "push_p99_ms": "... p99",
    "push_max_ms": "... slowest",
    "requests_without": "updates by the clock without a push",
    "charging_p50_without_ms": "charging latency without a push, p50, ms",
    "charging_p99_without_ms": "... p99",
    "requests_during": "updates by the clock during the push",
    "charging_p50_during_ms": "charging latency during the push, p50, ms",
    "charging_p99_during_ms": "... p99",
    "worker_cpu_without_s": "worker CPU without a push, s",
    "worker_cpu_during_s": "... during the push",
    "clients_cpu_during_s": "CPU of the clients and the billing system during the push, s",
    "transitions_left": "transitions left in the store",
    "discrepancies": "discrepancies in the ledger",
    "errors": "errors of any kind",
}


def is_sound(figures: dict[str, float]) -> bool:
    """Every session concerned was asked, no other was, and nothing went wrong; never how fast."""
    return (
        figures["asked_sessions"] == figures["concerned_sessions"] > 0
        and figures["slowed_answers"] >= figures["concerned_sessions"]
        and not any(figures[key] for key in ("asked_in_vain", "transitions_left", "discrepancies", "errors"))
    )


def is_fast_enough(figures: dict[str, float]) -> bool:
    """p99 of the push within a second, p99 of charging not doubled by it."""
    doubled = figures["charging_p99_during_ms"] > 2 * figures["charging_p99_without_ms"]
    return figures["push_p99_ms"] <= 1000 and not doubled


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.policies", description="How soon live sessions learn of another level."
    )
    command.add_quick(parser)
    parser.add_argument("--accounts", type=int, help=f"accounts, two sessions each (default {FULL.accounts})")
    parser.add_argument("--pushed", type=int, help=f"accounts that come below zero (default {FULL.pushed})")
    parser.add_argument("--rate", type=float, help=f"updates a second all the time (default {FULL.rate:g})")
    parser.add_argument("--seconds", type=float, help=f"length of each phase (default {FULL.seconds:g})")
    command.add_surroundings(parser, "all that is random", pins=False)
    parser.add_argument("--enforce", action="store_true", help="fail if it takes too long")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0: the run is sound; 1: it is not, or is slower than was to be enforced."""
    options = _parse(arguments)
    console = Console()
    base = QUICK if options.quick else FULL
    accounts = options.accounts or base.accounts
    scale = Scale(
        accounts,
        min(options.pushed or base.pushed, accounts),
        base.within_s,
        options.rate or base.rate,
        options.seconds or base.seconds,
        base.peers,
    )
    try:
        figures = command.run_in(options.directory, "occ-bench-", PolicyRun(scale, options, console).run)
    except command.FAULTS as error:
        return command.complain(console, error)
    table = Table(show_header=False, box=None)
    for key, label in LABELS.items():
        value = figures[key]
        table.add_row(label, f"{value:,.2f}" if key.endswith(("_ms", "_s")) else f"{value:,.0f}")
    console.print(table)
    command.write_json(options.json, {"machine": machine.describe(), "figures": figures})
    return 0 if is_sound(figures) and (not options.enforce or is_fast_enough(figures)) else 1


if __name__ == "__main__":
    sys.exit(main())
