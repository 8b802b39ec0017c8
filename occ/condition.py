"""The condition of what the server stands on: its store, Redis, the outbox, supervision, disks and peers.

None of this is counted while requests are served. ``ConditionWatch`` looks every other second, in the server's event
loop; a scrape reads what the last look has found, so it never waits for Redis.
"""

import asyncio
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from balance.resp import StoreError
from balance.store import Store
from protocols.diameter.node import PeerStatus
from protocols.diameter.state_table import PeerState

log = logging.getLogger("occ.condition")

LOOK_INTERVAL_S: Final = 2.0
OVERDUE_MS: Final = 30_000
"""Supervision looks twice a second: an account that is due for longer than this has been missed."""
MOST_PEERS: Final = 1000
"""Peers with metrics of their own; where anybody may connect, a label must not grow without end."""
_OFFSET: Final = re.compile(r"\boffset=(\d+)", re.ASCII)
OPEN_STATES: Final = frozenset((PeerState.I_OPEN.value, PeerState.R_OPEN.value))


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """What Redis tells of itself (``INFO``)."""

    version: str = ""
    memory_octets: int = 0
    memory_limit_octets: int = 0
    """0: there is none."""
    cpu_seconds: float = 0.0
    commands: int = 0
    delayed_synchronisations: int = 0
    """Times a write waited for the disk longer than it should (``aof_delayed_fsync``)."""
    writes_to_disk: bool = True
    """The last write to the append-only file, and the last snapshot, succeeded."""
    replicas: int = 0
    replication_lag_octets: int = 0
    """How far the last of the replicas is behind; 0 without replicas."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What one look has found."""

    outbox_entries: int = 0
    """Commits whose charging data records are not delivered."""
    outbox_oldest_seconds: float = 0.0
    """How long the oldest of them waits."""
    overdue_accounts: int = 0
    """Accounts that should have been looked at by supervision ``OVERDUE_MS`` ago, and were not."""
    overdue_seconds: float = 0.0
    """How long the first account that is due waits for supervision."""
    redis: RedisInfo = field(default_factory=RedisInfo)
    peers: tuple[PeerStatus, ...] = ()


class WithoutStore(NamedTuple):
    """What is done without a store, and left from then."""

    granting: bool = False
    """Services are granted from the journal on disk."""
    to_settle: int = 0
    """Requests that were answered so, and are not charged yet."""


def read_info(text: str) -> RedisInfo:
    """``INFO`` of Redis or Valkey. What is missing there counts as 0, or as in order."""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))

    def number(name: str) -> int:
        written = fields.get(name, "0")
        return int(written) if written.lstrip("-").isdigit() else 0

    def seconds(name: str) -> float:
        try:
            return float(fields.get(name, "0"))
        except ValueError:
            return 0.0

    offsets = [
        int(found[1])
        for name, written in fields.items()
        if name.startswith("slave") and name[5:].isdigit() and (found := _OFFSET.search(written))
    ]
    return RedisInfo(
        version=fields.get("valkey_version") or fields.get("redis_version", ""),
        memory_octets=number("used_memory"),
        memory_limit_octets=number("maxmemory"),
        cpu_seconds=seconds("used_cpu_sys") + seconds("used_cpu_user"),
        commands=number("total_commands_processed"),
        delayed_synchronisations=number("aof_delayed_fsync"),
        writes_to_disk=all(
            fields.get(name, "ok") == "ok"
            for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        ),
        replicas=len(offsets),
        replication_lag_octets=max(0, number("master_repl_offset") - min(offsets)) if offsets else 0,
    )


def in_all(servers: Sequence[RedisInfo]) -> RedisInfo:
    """What the servers of a store come to together; one does for most."""
    first, *others = servers
    if not others:
        return first
    return RedisInfo(
        version=min(each.version for each in servers),
        memory_octets=sum(each.memory_octets for each in servers),
        memory_limit_octets=sum(each.memory_limit_octets for each in servers),
        cpu_seconds=sum(each.cpu_seconds for each in servers),
        commands=sum(each.commands for each in servers),
        delayed_synchronisations=sum(each.delayed_synchronisations for each in servers),
        writes_to_disk=all(each.writes_to_disk for each in servers),
        replicas=sum(each.replicas for each in servers),
        replication_lag_octets=max(each.replication_lag_octets for each in servers),
    )


class ConditionWatch:
    """Looks at a store and the peers of a node. ``clock``: ms since the Unix epoch, UTC."""

    def __init__(self, store: Store, peers: Callable[[], Sequence[PeerStatus]], clock: Callable[[], int]) -> None:
        self._store = store
        self._peers = peers
        self._clock = clock
        self.condition = Condition()
        self.without_store: Callable[[], WithoutStore] = WithoutStore
        """What the worker does while it has no store."""

    @property
    def store_up(self) -> bool:
        """Redis is connected."""
        return self._store.available

    @property
    def reconnects(self) -> int:
        return self._store.statistics.reconnects

    async def run(self) -> None:
        """Look until cancelled. A store that cannot be reached leaves its figures as they were: they get older."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Look once."""
        self.condition = replace(self.condition, peers=tuple(self._peers()))
        try:
            self.condition = await self._look_at_store()
        except StoreError as error:
            log.debug("the store is not looked at: %s", error)

    async def _look_at_store(self) -> Condition:
        store, now_ms = self._store, self._clock()
        entries = overdue = 0
        oldest_ms = due_ms = now_ms
        for lane in store.keys.lanes():
            entries += int(await store.call("XLEN", store.keys.outbox(lane)))
            for entry, _ in await store.call("XRANGE", store.keys.outbox(lane), "-", "+", "COUNT", 1):
                oldest_ms = min(oldest_ms, int(entry.split(b"-")[0]))
            watch = store.keys.watch(lane)
            overdue += int(await store.call("ZCOUNT", watch, "-inf", now_ms - OVERDUE_MS))
            first = await store.call("ZRANGE", watch, 0, 0, "WITHSCORES")
            if first:
                due_ms = min(due_ms, int(float(first[1])))
        told = await store.call_all("INFO")
        return replace(
            self.condition,
            outbox_entries=entries,
            outbox_oldest_seconds=(now_ms - oldest_ms) / 1000,
            overdue_accounts=overdue,
            overdue_seconds=(now_ms - due_ms) / 1000,
            redis=in_all([read_info(each.decode("utf-8", "replace")) for each in told]),
        )


class ConditionCollector(Collector):
    """Turns what ``ConditionWatch`` has found into metric families.

    ``directories``: name -> a directory whose file system matters. ``info``: labels of ``occ_info``.
    """

    def __init__(
        self, watch: ConditionWatch, directories: dict[str, Path], info: dict[str, str], restarts: int = 0
    ) -> None:
        """``restarts``: times the supervisor has started this worker again."""
        self._watch = watch
        self._directories = directories
        self._info = info
        self._restarts = restarts

    def collect(self) -> Iterable[Metric]:
        condition = self._watch.condition
        info = GaugeMetricFamily("occ_info", "This server: 1", labels=list(self._info))
        info.add_metric(list(self._info.values()), 1)
        yield info
        yield CounterMetricFamily(
            "occ_worker_restarts", "Times this worker was started again, as it had ended by itself", self._restarts
        )
        yield GaugeMetricFamily("occ_store_up", "Whether Redis is connected: 1 or 0", int(self._watch.store_up))
        for name, text, value in (
            ("occ_outbox_entries", "Commits whose records are not delivered yet", condition.outbox_entries),
            ("occ_outbox_oldest_seconds", "How long the oldest of them waits", condition.outbox_oldest_seconds),
            (
                "occ_supervision_overdue_accounts",
                "Accounts that supervision should have looked at 30 seconds ago",
                condition.overdue_accounts,
            ),
            (
                "occ_supervision_lag_seconds",
                "How long the first account that is due waits for supervision",
                condition.overdue_seconds,
            ),
        ):
            yield GaugeMetricFamily(name, text, value)
        yield from self._redis(condition.redis)
        yield from self._disks()
        yield from _peers(condition.peers)

    def _redis(self, redis: RedisInfo) -> Iterator[Metric]:
        for name, text, value in (
            ("occ_redis_memory_bytes", "Memory Redis uses for its data", redis.memory_octets),
            ("occ_redis_memory_limit_bytes", "What it may use; 0: no limit", redis.memory_limit_octets),
            (
                "occ_redis_writes_to_disk",
                "Whether its last writes to disk succeeded",
                int(redis.writes_to_disk),
            ),
            ("occ_redis_replicas", "Replicas connected to it", redis.replicas),
            ("occ_redis_replication_lag_bytes", "How far the last replica is behind", redis.replication_lag_octets),
        ):
            yield GaugeMetricFamily(name, text, value)
        for name, text, count in (
            ("occ_redis_cpu_seconds", "CPU time of Redis", redis.cpu_seconds),
            ("occ_redis_commands", "Commands Redis has carried out", redis.commands),
            (
                "occ_redis_delayed_synchronisations",
                "Writes of Redis that waited for the disk",
                redis.delayed_synchronisations,
            ),
        ):
            yield CounterMetricFamily(name, text, count)

    def _disks(self) -> Iterator[Metric]:
        size = GaugeMetricFamily("occ_disk_size_bytes", "Size of a file system", labels=["directory"])
        free = GaugeMetricFamily("occ_disk_free_bytes", "What is free there for the server", labels=["directory"])
        for name, path in self._directories.items():
            try:
                found = os.statvfs(path)
            except OSError as error:
                log.debug("the file system of %s is not measured: %s", path, error)
                continue
            size.add_metric([name], found.f_blocks * found.f_frsize)
            free.add_metric([name], found.f_bavail * found.f_frsize)
        yield size
        yield free


def _peers(peers: Sequence[PeerStatus]) -> Iterator[Metric]:
    states = GaugeMetricFamily("occ_peers", "Diameter peers by state (RFC 6733, 5.6)", labels=["state"])
    counted = Counter(peer.state for peer in peers)
    for state in PeerState:
        states.add_metric([state.value], counted[state.value])
    yield states
    up = GaugeMetricFamily("occ_peer_up", "Whether a peer's connection is open: 1 or 0", labels=["peer"])
    messages = CounterMetricFamily(
        "occ_peer_messages", "Application messages exchanged with a peer", labels=["peer", "message"]
    )
    octets = CounterMetricFamily("occ_peer_octets", "Octets exchanged with a peer", labels=["peer", "direction"])
    for peer in peers[:MOST_PEERS]:
        name, statistics = peer.origin_host, peer.statistics
        up.add_metric([name], int(peer.state in OPEN_STATES))
        told: dict[str, Any] = statistics.as_dict()
        for message in ("requests_received", "answers_sent", "requests_sent", "answers_received", "errors_sent"):
            messages.add_metric([name, message.replace("_", "-")], told[message])
        octets.add_metric([name, "received"], statistics.octets_received)
        octets.add_metric([name, "sent"], statistics.octets_sent)
    yield up
    yield messages
    yield octets
