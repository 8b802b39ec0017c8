"""Servers and stores as real processes, which tests kill: on loopback, in directories of their own."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from balance.accounts import Account
from balance.address import OPEN
from balance.directory import accounts, create_account
from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings, find_running
from balance.journal import BEGINNING, entries, last_entry_id, read_record
from balance.model import AccountKind, Subscriber, Unit
from balance.records import JournalRecord
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from balance.verify import Report, verify
from occ.cdr_files import record_lines
from occ.clock import now_ms
from occ.workers_file import running_workers

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""Longer than anything here takes on a busy machine; only what hangs uses it up."""
PARTITIONS = 8
EUR = 978

CATALOGUE = """\
version: faults
currency: EUR
services:
  internet: {context: 32251@3gpp.org, rating_groups: [10], unit: octets, quota: 1 MiB, validity: 3 s}
plans:
  standard: {internet: 0.01 per 1 MiB}
"""
"""Short holding times, so that supervision ends within seconds what a client has left open."""


def free_port() -> int:
    """A port that a process started later can bind, again and again: below those that connections get."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def free_ports(count: int) -> int:
    """The first of so many such ports in a row."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


def await_it(what: Callable[[], T], why: str, patience_s: float = PATIENCE_S) -> T:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.02)
    return found


def written(address: Address) -> str:
    """The settings of a store, as YAML has them within braces."""
    settings: dict[str, object]
    if address.sentinels:
        settings = {"mode": "sentinel", "sentinels": _listed(address.sentinels), "master_name": address.master_name}
    elif address.nodes:
        settings = {"mode": "cluster", "cluster_nodes": _listed(address.nodes)}
    else:
        settings = {"mode": "external", "url": replace(address, access=OPEN).url}
    access = address.access
    for name in ("username", "password_file", "ca_file", "certificate", "key"):
        if getattr(access, name) is not None:
            settings[name] = str(getattr(access, name))
    settings |= {"tls": access.tls, "wait_replicas": address.wait_replicas, "wait_ms": address.wait_ms}
    return json.dumps(settings)[1:-1]


def _listed(places: Iterable[tuple[str, int]]) -> list[str]:
    return [f"{host}:{port}" for host, port in places]


class Redis:
    """A store of its own, which outlives the servers that use it; with ``appendfsync always``."""

    def __init__(self) -> None:
        # Not in pytest's directory: the path of a socket must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="occ-faults-"))
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._server = EmbeddedRedis(EmbeddedSettings(data_dir=self._folder))

    def start(self) -> None:
        self._runner.run(self._server.start())

    def kill(self) -> None:
        os.kill(self._server.pid, signal.SIGKILL)
        await_it(lambda: not self._server.running, "the store does not die")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Its connections stand, what it is sent stays in them, and it does nothing."""
        os.kill(self._server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._server.pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return self._server.address.url

    def stop(self) -> None:
        self._runner.run(self._server.stop())
        self._runner.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Server:
    """``occ serve`` in a process of its own. ``store``: a URL, or how it is reached; None: with a Redis of its own.

    ``settings``: lines of YAML by section, beside those that the rig needs.
    """

    def __init__(
        self,
        folder: Path,
        store: str | Address | None = None,
        name: str = "occ1",
        settings: dict[str, str] | None = None,
        catalogue: str = CATALOGUE,
        workers: int | None = None,
    ) -> None:
        """``workers``: under a supervisor, with so many ports in a row from ``port`` and ``metrics_port`` on."""
        folder.mkdir(parents=True, exist_ok=True)
        # A short path, for the socket of its Redis.
        self.data_dir = Path(tempfile.mkdtemp(prefix="occ-faults-"))
        self.port = free_ports(workers or 1)
        self.metrics_port = free_ports(workers or 1)
        self.origin_host = f"{name}.ocs.example.net"
        (folder / "catalogue.yaml").write_text(catalogue)
        self.address = Address.parse(store) if isinstance(store, str) else store
        where = "mode: embedded" if self.address is None else written(self.address)
        sections = {
            "diameter": f"host: 127.0.0.1, port: {self.port}, origin_host: {self.origin_host}",
            "metrics": f"port: {self.metrics_port}",
            "store": f"{where}, data_dir: {self.data_dir}, partitions: {PARTITIONS}",
        }
        for section, more in (settings or {}).items():
            sections[section] = ", ".join(filter(None, (sections.get(section), more)))
        self.config = folder / f"{name}.yaml"
        top = "" if workers is None else f"workers: {workers}\n"
        self.config.write_text(
            top
            + "".join(f"{section}: {{{lines}}}\n" for section, lines in sections.items())
            + "catalogue: catalogue.yaml\n"
        )
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[str] | None = None
        self.announced: dict[str, Any] = {}

    def start(self) -> "Server":
        """Start it and wait until it charges."""
        self.launch()
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server did not start: {self.log.read_text()[-2000:]}"
        self.announced = json.loads(line)
        return self

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "occ", "--config", str(self.config), "serve", "--no-population", "--json"],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Whatever state it is in: nothing of it is left."""
        if self._process is not None and self._process.poll() is None:
            self.terminate()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self, *, outbox: bool = False) -> None:
        """kill -9, and wait until it is gone. ``outbox``: of the process that delivers its records, too."""
        assert self._process is not None
        if outbox:
            self.kill_outbox()
        self._process.kill()
        self._reap()

    def kill_outbox(self) -> None:
        """kill -9 of the process that delivers its charging data records."""
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"occ.outbox" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        assert self._process is not None
        self._process.terminate()

    def terminate(self) -> int:
        """SIGTERM, and wait for the end; the exit code."""
        self.ask_to_stop()
        return self._reap()

    def _reap(self) -> int:
        assert self._process is not None
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()
        return code

    def redis_pid(self) -> int:
        """Its embedded Redis."""
        note = json.loads((self.data_dir / "redis" / "owner.lock").read_text())
        return int(note["server_pid"])

    def kill_redis(self) -> None:
        """kill -9 of its embedded Redis."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.redis_pid(), signal.SIGKILL)

    def occ(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command of ``occ``, by the settings of this server."""
        return subprocess.run(
            [sys.executable, "-m", "occ", "--config", str(self.config), *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def worker_pids(self) -> list[int]:
        """The processes of its workers, by number; 0: there is none now."""
        running = running_workers(self.data_dir)
        return [] if running is None else [each.pid for each in running.workers]

    # -- looking in ------------------------------------------------------------------------------------------------

    def get(self, path: str, worker: int = 1) -> tuple[int, str]:
        """Status and text of what its HTTP listener serves; (0, reason) if it does not answer."""
        url = f"http://127.0.0.1:{self.metrics_port + worker - 1}{path}"
        try:
            with build_opener(ProxyHandler({})).open(url, timeout=10) as said:
                return said.status, said.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def on_store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Something done with its store."""

        async def connected() -> T:
            address = self.address or Address.parse(self.announced["redis"])
            store = Store(StoreSettings(address, PARTITIONS, account_cache_entries=1))
            await store.start()
            try:
                return await work(store)
            finally:
                await store.stop()

        return asyncio.run(connected())

    def store_answers(self) -> bool:
        """Whether its embedded Redis can be talked to."""
        return asyncio.run(find_running(self.data_dir / "redis")) is not None

    def add_accounts(self, balances_micro: dict[str, int]) -> dict[str, str]:
        """Prepaid accounts, each with one subscriber; their MSISDNs."""
        numbers = {name: f"4917{number:08}" for number, name in enumerate(balances_micro, 1)}

        async def add(store: Store) -> None:
            for name, micro in balances_micro.items():
                await create_account(
                    store,
                    name.encode(),
                    AccountKind.PREPAID,
                    EUR,
                    now_ms=now_ms(),
                    reason="test",
                    balance_micro=micro,
                )
                identities = ((0, numbers[name].encode()),)
                await add_subscriber(store, Subscriber(name.encode(), name.encode(), "standard", identities))

        self.on_store(add)
        return numbers

    def verify(self) -> Report:
        """What ``occ ledger verify`` finds."""
        return self.on_store(verify)

    def accounts(self) -> dict[str, Account]:
        async def read(store: Store) -> dict[str, Account]:
            return {each.account_id.decode(): each async for page in accounts(store) for each in page}

        return self.on_store(read)

    def journal(self) -> list[JournalRecord]:
        async def read(store: Store) -> list[JournalRecord]:
            found = []
            for lane in store.keys.lanes():
                async for page in entries(store, lane, BEGINNING, await last_entry_id(store, lane)):
                    found += [read_record(entry_id, packed) for entry_id, records in page for packed in records]
            return found

        return self.on_store(read)

    def outbox_entries(self) -> int:
        async def count(store: Store) -> int:
            return sum([await store.call("XLEN", store.keys.outbox(lane)) for lane in store.keys.lanes()])

        return self.on_store(count)

    def records(self) -> list[dict[str, Any]]:
        """The charging data records that it has delivered."""
        return [json.loads(line) for line in record_lines(self.data_dir / "cdr", "jsonl")]

    def money_micro(self) -> dict[str, int]:
        """What is left of each account."""
        left: Counter[str] = Counter()
        for name, account in self.accounts().items():
            left[name] = sum(bucket.balance for bucket in account.buckets if bucket.unit == Unit.MONEY)
        return dict(left)
