"""Redis as operators run it: a primary with replicas and sentinels, a cluster, a server behind TLS; real processes.

Everything is made by commands over connections, as an administrator would, on loopback and in directories of its own.
"""

import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import redis

from balance.address import Address
from balance.cluster import SLOTS
from balance.server_program import find_server
from tests.faults.rig import await_it

HOST = "127.0.0.1"
MASTER = "occ"
DOWN_AFTER_MS = 500
NODE_TIMEOUT_MS = 1000


def port_with_bus() -> int:
    """A port that a node can bind, as well as the one 10000 above it, by which nodes talk."""
    while True:
        port = random.randrange(10_000, 19_990)
        with socket.socket() as client, socket.socket() as bus:
            try:
                client.bind((HOST, port))
                bus.bind((HOST, port + 10_000))
            except OSError:
                continue
            return port


class Process:
    """One redis-server, or one sentinel."""

    def __init__(self, settings: Iterable[str] = (), *, sentinel: bool = False, port: int | None = None) -> None:
        self.port = port or port_with_bus()
        self._folder = Path(tempfile.mkdtemp(prefix="occ-faults-"))
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        own = () if sentinel else ("appendonly yes", "appendfsync everysec", 'save ""', "repl-diskless-sync-delay 0")
        lines = (f"port {self.port}", f"bind {HOST}", f"dir {self._folder}", *own, *settings)
        self._file = self._folder / "redis.conf"
        self._file.write_text("".join(f"{line}\n" for line in lines))
        self.access: dict[str, Any] = {}
        """How the administrator connects to it, if not in the clear and without a name."""

    def start(self) -> "Process":
        program = [str(find_server().path), str(self._file), *(("--sentinel",) if self._sentinel else ())]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        await_it(self.answers, "a Redis of the test does not start")
        return self

    def answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> "redis.Redis":
        """A connection of the administrator."""
        return redis.Redis(**{"host": HOST, "port": self.port, "protocol": 2, **self.access})

    def call(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)

    def info(self, name: str) -> str:
        text = self.call("INFO")
        return str(text.get(name, ""))

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class Watched:
    """A primary, two replicas, and three sentinels that watch over them."""

    def __init__(self, stack: ExitStack) -> None:
        first = Process()
        replicas = [Process([f"replicaof {HOST} {first.port}"]) for _ in range(2)]
        self.servers = [first, *replicas]
        for server in self.servers:
            stack.callback(server.end)
            server.start()
        await_it(lambda: first.info("connected_slaves") == "2", "the replicas do not connect")
        watch = (
            f"sentinel monitor {MASTER} {HOST} {first.port} 2",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} 3000",
        )
        self.sentinels = [Process(watch, sentinel=True) for _ in range(3)]
        for sentinel in self.sentinels:
            stack.callback(sentinel.end)
            sentinel.start()
        await_it(lambda: all(self._knows_all(each) for each in self.sentinels), "the sentinels do not find each other")

    @staticmethod
    def _knows_all(sentinel: Process) -> bool:
        told = sentinel.call("SENTINEL", "MASTER", MASTER)
        found = dict(zip(told[::2], told[1::2], strict=True))
        return (int(found[b"num-slaves"]), int(found[b"num-other-sentinels"])) == (2, 2)

    def address(self, **settings: Any) -> Address:
        return Address(sentinels=tuple((HOST, each.port) for each in self.sentinels), master_name=MASTER, **settings)

    def primary(self) -> Process:
        """By the sentinels."""
        port = int(self.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])
        return next(each for each in self.servers if each.port == port)

    def cut_replication(self) -> None:
        """From now on the primary reaches no replica, though all of them are there for the sentinels."""
        primary = self.primary()
        for each in self.servers:
            if each is not primary and each.answers():
                each.call("CONFIG", "SET", "masterauth", "not the password")
        primary.call("CLIENT", "KILL", "TYPE", "replica")
        await_it(lambda: primary.info("connected_slaves") == "0", "the replicas are not cut off")

    def kill_primary(self) -> None:
        self.primary().kill()


class Sharded:
    """A cluster of three primaries, each with one replica."""

    def __init__(self, stack: ExitStack) -> None:
        settings = (
            "cluster-enabled yes",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-require-full-coverage no",
            "cluster-replica-validity-factor 0",
        )
        self.nodes = [Process(settings) for _ in range(6)]
        for node in self.nodes:
            stack.callback(node.end)
            node.start()
        primaries, replicas = self.nodes[:3], self.nodes[3:]
        for number, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, node in enumerate(primaries):
            node.call("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        for node in self.nodes[1:]:
            node.call("CLUSTER", "MEET", HOST, self.nodes[0].port)
        await_it(lambda: all(self._known(each) == 6 for each in self.nodes), "the nodes do not find each other")
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.call("CLUSTER", "REPLICATE", self.name(primary))
        await_it(lambda: all(each.info("connected_slaves") == "1" for each in primaries), "the replicas do not connect")
        await_it(lambda: all(self._state(each) == "ok" for each in self.nodes), "the cluster does not come up")

    @staticmethod
    def _known(node: Process) -> int:
        return len(node.call("CLUSTER", "NODES").splitlines())

    @staticmethod
    def _state(node: Process) -> str:
        return str(re.findall("cluster_state:(.*?)\r", node.call("CLUSTER", "INFO").decode())[0])

    @staticmethod
    def name(node: Process) -> str:
        """By which the nodes know it."""
        return str(node.call("CLUSTER", "MYID").decode())

    def address(self, **settings: Any) -> Address:
        """The last nodes, which are replicas: they know the others."""
        return Address(nodes=tuple((HOST, each.port) for each in self.nodes[3:]), **settings)

    def primaries(self) -> list[Process]:
        return [each for each in self.nodes if each.answers() and each.info("role") == "master"]

    def owner(self, slot: int) -> Process:
        """The primary that has a slot, by the first node that answers."""
        asked = next(each for each in self.nodes if each.answers())
        for first, last, (_, port, *_), *_ in asked.call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(each for each in self.nodes if each.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, slot: int, target: Process, between: Callable[[], object] = lambda: None) -> None:
        """Have another primary serve a slot, as ``redis-cli --cluster reshard`` does it; ``between``: half-way."""
        source = self.owner(slot)
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", self.name(source))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", self.name(target))
        moved = 0
        while keys := self._keys(source, slot):
            source.call("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
            if moved == len(keys):
                between()
        for node in (target, source, *(each for each in self.primaries() if each not in (target, source))):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", self.name(target))

    @staticmethod
    def _keys(node: Process, slot: int) -> Sequence[Any]:
        """A few at a time: some are here and some there for a while."""
        found: Sequence[Any] = node.call("CLUSTER", "GETKEYSINSLOT", slot, 2)
        return found
