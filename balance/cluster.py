"""Redis Cluster: which node has which slot, a connection to each primary, and following keys when they move.

A command goes to the node that has its key as far as is known. A node that has it no more names the one that does
(MOVED), or the one that a slot is moving to (ASK); one that can do nothing for the moment (TRYAGAIN while the keys of a
slot are on two nodes, CLUSTERDOWN while a primary is being replaced) is asked again for some seconds. So who asks for
something sees none of this, but for the time it takes. A connection that is lost is told at once: what was under way
may have been done, and clients have other servers to try meanwhile.
"""

import asyncio
import contextlib
import logging
import random
from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final

from balance.address import Address, HostPort, host_port
from balance.connecting import at, open_link
from balance.nodes import FIRST_PAUSE_S, WATCH_S, MovedError, Route, Watcher
from balance.resp import Command, OnReply, RedisLink, Reply, StoreError, StoreUnavailableError, call_by

log = logging.getLogger("balance.store")

SLOTS: Final = 16384
RETRY_FOR_S: Final = 5.0
"""A command that no node can carry out is given up after so long."""
FIRST_RETRY_S: Final = 0.01
LONGEST_RETRY_S: Final = 0.1
LET_GO_AFTER_S: Final = 1.0
"""What was sent to a node before its last slot went elsewhere has been answered by then."""
LONGEST_LOOK_S: Final = 0.5
"""Between two looks for a primary that is away."""
MAP_WITHIN_S: Final = 1.0

_AGAIN: Final = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY")
_KEY_AT: Final = {
    "EVAL": 3,
    "EVALSHA": 3,
    "XGROUP": 2,
    "XINFO": 2,
    "MEMORY": 2,
    "OBJECT": 2,
}  # fmt: skip
"""Where the first key of a command stands, if not right behind its name."""
_NO_KEY: Final = frozenset(
    ("BGREWRITEAOF", "CLIENT", "CONFIG", "DBSIZE", "FLUSHALL", "INFO", "KEYS", "LATENCY", "PING", "SCAN", "SCRIPT",
     "TIME", "WAIT")
)  # fmt: skip
_ADDED_UP: Final = frozenset(("DEL", "UNLINK", "EXISTS", "TOUCH"))


def slot_of(key: bytes) -> int:
    """The hash slot of a key: by its hash tag if it has one (Redis Cluster specification, "Hash tags")."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class SlotRoute:
    """Sends to whichever node has a slot."""

    __slots__ = ("_cluster", "slot")

    def __init__(self, cluster: "Cluster", slot: int) -> None:
        self._cluster = cluster
        self.slot = slot

    @property
    def lost(self) -> bool:
        link = self._cluster.link_of(self.slot)
        return link is not None and link.lost  # one that is being connected is waited for

    def send(self, command: Command, on_reply: OnReply) -> None:
        _Sending(self._cluster, self.slot, command, on_reply, False, 0, 0).go()

    def send_decided(self, command: Command, on_reply: OnReply) -> None:
        _Sending(self._cluster, self.slot, command, on_reply, True, 0, 0).go()

    def send_replicated(self, command: Command, replicas: int, wait_ms: int, on_reply: OnReply) -> None:
        _Sending(self._cluster, self.slot, command, on_reply, True, replicas, wait_ms).go()

    def flush(self) -> None:
        link = self._cluster.link_of(self.slot)
        if link is not None:
            link.flush()

    async def call(self, *command: Any) -> Reply:
        return await call_by(self._cluster.loop, self.send, command)


class _Sending:
    """One command on its way, until some node has carried it out or refused it."""

    __slots__ = (
        "asked", "cluster", "command", "deadline", "decided", "on_reply", "owner", "pause", "replicas", "slot",
        "wait_ms",
    )  # fmt: skip

    def __init__(
        self,
        cluster: "Cluster",
        slot: int,
        command: Command,
        on_reply: OnReply,
        decided: bool,
        replicas: int,
        wait_ms: int,
    ) -> None:
        self.cluster = cluster
        self.slot = slot
        self.command = command
        self.on_reply = on_reply
        self.decided = decided
        self.replicas = replicas
        self.wait_ms = wait_ms
        self.owner = cluster.owner(slot)
        self.deadline = 0.0
        self.pause = FIRST_RETRY_S
        self.asked: HostPort | None = None
        """The node that a slot is moving to, and is to be asked this once."""

    def _named(self, redirection: str) -> HostPort:
        """``3999 127.0.0.1:6381`` of MOVED and ASK; without a host it is that of the node that says so."""
        host, _, port = redirection.split(" ")[1].rpartition(":")
        return host or (self.owner or ("127.0.0.1", 0))[0], int(port)

    def go(self) -> None:
        cluster = self.cluster
        if self.decided and cluster.owner(self.slot) != self.owner:
            self._tell(MovedError(f"slot {self.slot} is on another node by now"))
            return
        link = cluster.link_of(self.slot) if self.asked is None else cluster.link_to(self.asked)
        if link is None:
            self._later("its node is not connected yet")
            return
        if link.lost:
            self._tell(StoreUnavailableError("the connection to a node of the cluster is down"))
            return
        if self.asked is not None:
            self.asked = None
            link.send((b"ASKING",), _ignore)
        if self.replicas:
            link.send_replicated(self.command, self.replicas, self.wait_ms, self._on_reply)
        else:
            link.send(self.command, self._on_reply)

    def _on_reply(self, reply: Reply) -> None:
        if not isinstance(reply, Exception) or isinstance(reply, StoreError):
            self.on_reply(reply)
            return
        text = str(reply)
        word, _, rest = text.partition(" ")
        if word == "MOVED":
            self.cluster.moved(self.slot, self._named(rest))
            if self.decided:
                self.on_reply(MovedError(text))
            else:
                self._later(text)
        elif word == "ASK":
            self.asked = self._named(rest)
            self.cluster.connect_soon(self.asked)
            if self._has_time():
                self.go()
            else:
                self._later(text)
        elif word in _AGAIN or "non local key" in text[:200]:
            if word != "TRYAGAIN":
                self.cluster.look_soon()
            self._later(text)
        else:
            self.on_reply(reply)

    def _has_time(self) -> bool:
        now = self.cluster.loop.time()
        self.deadline = self.deadline or now + RETRY_FOR_S
        return now < self.deadline

    def _later(self, why: str) -> None:
        if not self._has_time() or self.cluster.closing:
            self._tell(StoreUnavailableError(f"the cluster did not serve slot {self.slot}: {why}"))
            return
        self.cluster.loop.call_later(self.pause, self.go)
        self.pause = min(2 * self.pause, LONGEST_RETRY_S)

    def _tell(self, error: StoreError) -> None:
        self.cluster.loop.call_soon(self.on_reply, error)


class Cluster:
    """The nodes of a cluster, and which has what."""

    def __init__(self, address: Address, watcher: Watcher) -> None:
        self._address = address
        self._watcher = watcher
        self._owners: list[HostPort | None] = [None] * SLOTS
        self._primaries: list[HostPort] = []
        """Of all slots that have one."""
        self._links: dict[HostPort, RedisLink] = {}
        self._connecting: dict[HostPort, asyncio.Task[None]] = {}
        self._routes: dict[int, SlotRoute] = {}
        self._look = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.closing = False

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        try:
            self._learn(*await self._map())
            for place in self._primaries:
                await self._connect(place)
        except (OSError, StoreError) as error:
            await self.stop()
            raise StoreUnavailableError(f"{self._address.url} cannot be used: {error}") from error
        self._watcher.routes_changed()
        self._watching = self.loop.create_task(self._watch())

    async def stop(self) -> None:
        self.closing = True
        for task in (self._watching, *self._connecting.values()):
            if task is not None:
                task.cancel()
        for link in self._links.values():
            link.close()

    @property
    def available(self) -> bool:
        links = [self._links.get(place) for place in self._primaries]
        return bool(links) and all(link is not None and not link.lost for link in links)

    # -- who serves what -----------------------------------------------------------------------------------------

    def owner(self, slot: int) -> HostPort | None:
        return self._owners[slot]

    def link_of(self, slot: int) -> RedisLink | None:
        """The connection to the node that has a slot; None: there is none yet."""
        owner = self._owners[slot]
        return None if owner is None else self._links.get(owner)

    def link_to(self, place: HostPort) -> RedisLink | None:
        return self._links.get(place)

    def route(self, key: bytes) -> SlotRoute:
        slot = slot_of(key)
        route = self._routes.get(slot)
        if route is None:
            route = self._routes[slot] = SlotRoute(self, slot)
        return route

    def routes(self) -> list[Route]:
        """By a slot of each primary."""
        first: dict[HostPort, int] = {}
        for slot, owner in enumerate(self._owners):
            if owner is not None:
                first.setdefault(owner, slot)
        return [SlotRoute(self, slot) for slot in first.values()]

    def moved(self, slot: int, place: HostPort) -> None:
        """A node says who has a slot now."""
        if self._owners[slot] != place:
            self._owners[slot] = place
            if place not in self._primaries:
                self._primaries.append(place)
            self._watcher.forget((slot,))
        self.connect_soon(place)
        self.look_soon()

    def look_soon(self) -> None:
        self._look.set()

    def not_primary(self) -> None:
        self.look_soon()

    def _own(self, owners: list[HostPort | None]) -> None:
        self._owners = owners
        self._primaries = list(dict.fromkeys(owner for owner in owners if owner is not None))

    async def _map(self) -> tuple[HostPort, Sequence[Any]]:
        """Slots and their nodes, by the first node that answers, and which that is. Raises StoreUnavailableError."""
        reasons = []
        live = [(place, link) for place, link in self._links.items() if not link.lost]
        for place, link in random.sample(live, len(live)):  # one may be cut off from the others
            try:
                return place, await _slots(link)
            except (OSError, StoreError) as error:
                reasons.append(f"{host_port(*place)}: {error!s}")
        for place in self._address.nodes:
            try:
                seed = await open_link(self.loop, at(self._address, place))
                try:
                    return place, await _slots(seed)
                finally:
                    seed.close()
            except (OSError, StoreError) as error:
                reasons.append(f"{host_port(*place)}: {error!s}")
        raise StoreUnavailableError(f"no node tells where the slots are ({'; '.join(reasons)})")

    def _learn(self, told_by: HostPort, ranges: Sequence[Any]) -> None:
        """Take in what a node has told of all slots."""
        if not ranges:
            raise StoreUnavailableError("the cluster has no slots assigned: is it one?")
        owners: list[HostPort | None] = [None] * SLOTS
        for each in ranges:
            first, last = int(each[0]), int(each[1])
            owners[first : last + 1] = [_primary(each, told_by)] * (last + 1 - first)
        changed = [slot for slot in range(SLOTS) if owners[slot] != self._owners[slot]]
        if changed:
            before = self._primaries
            known = any(self._owners)
            self._own(owners)
            for place in before:
                if place not in self._primaries:
                    self.loop.call_later(LET_GO_AFTER_S, self._let_go, place)
            self._watcher.forget(set(changed))
            if known:
                log.warning("%d slots of the cluster are on other nodes now", len(changed))

    def _let_go(self, place: HostPort) -> None:
        """Of a node that has nothing any more: if it hangs, what was sent to it is never answered."""
        link = self._links.get(place)
        if link is not None and place not in self._primaries:
            link.abort()

    async def _watch(self) -> None:
        """Look who has what, every second and whenever something points to a change."""
        pause = WATCH_S
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), pause)
            self._look.clear()
            try:
                self._learn(*await self._map())
            except StoreError as error:
                log.warning("%s; looking again", error)
            for place in self._primaries:
                self.connect_soon(place)
            for place in [each for each, link in self._links.items() if link.lost and each not in self._primaries]:
                del self._links[place]
            # What points to a change comes with every request; one look serves many.
            await asyncio.sleep(FIRST_PAUSE_S)
            pause = WATCH_S if self.available else LONGEST_LOOK_S

    # -- connections ---------------------------------------------------------------------------------------------

    def connect_soon(self, place: HostPort) -> None:
        """Have a connection to a node, unless there is one or one is being made."""
        link = self._links.get(place)
        if place in self._connecting or self.closing or (link is not None and not link.lost):
            return
        self._connecting[place] = self.loop.create_task(self._try_to_connect(place))

    async def _try_to_connect(self, place: HostPort) -> None:
        was_lost = place in self._links
        try:
            await self._connect(place)
        except (OSError, StoreError) as error:
            log.warning("node %s of the cluster cannot be used: %s", host_port(*place), error)
        else:
            log.warning("node %s of the cluster is connected%s", host_port(*place), " again" if was_lost else "")
            if self.available:
                self._watcher.reconnected()
        finally:
            del self._connecting[place]

    async def _connect(self, place: HostPort) -> None:
        link: RedisLink | None = None

        def on_lost(reason: Exception | None) -> None:
            if link is not None and self._links.get(place) is link:
                self._lost(place, reason)

        hangs_after_ms = self._address.hangs_after_ms
        link = await open_link(self.loop, at(self._address, place), on_lost, hangs_after_ms=hangs_after_ms)
        try:
            await self._watcher.prepare(link)
        except BaseException:
            link.close()
            raise
        self._links[place] = link

    def _lost(self, place: HostPort, reason: Exception | None) -> None:
        if self.closing:
            return
        log.error("the connection to node %s of the cluster was lost (%s)", host_port(*place), reason)
        self._watcher.forget({slot for slot, owner in enumerate(self._owners) if owner == place})
        self.look_soon()

    async def connect(self, key: bytes) -> RedisLink:
        owner = self._owners[slot_of(key)]
        if owner is None:
            raise StoreUnavailableError("no node of the cluster has that key now")
        return await open_link(self.loop, at(self._address, owner))

    # -- commands off the hot path -------------------------------------------------------------------------------

    async def call(self, *command: Any) -> Reply:
        name = _octets(command[0]).decode().upper()
        if name == "MGET":
            return await self._read_many(command[1:])
        if name in _ADDED_UP and len(command) > 2:
            parts = [self.route(_octets(key)).call(name, key) for key in command[1:]]
            return sum(await asyncio.gather(*parts))
        if name == "PING":
            return (await asyncio.gather(*(route.call("PING") for route in self.routes())))[0]
        if name in _NO_KEY:
            raise StoreError(f"{name} names no key: in a cluster each node has to be asked by itself")
        if name in ("XREAD", "XREADGROUP"):
            at_key = [_octets(word).upper() for word in command].index(b"STREAMS") + 1
        else:
            at_key = _KEY_AT.get(name, 1)
        return await self.route(_octets(command[at_key])).call(*command)

    async def _read_many(self, keys: Sequence[Any]) -> list[bytes | None]:
        """MGET, slot by slot."""
        by_slot: dict[int, list[int]] = {}
        for index, key in enumerate(keys):
            by_slot.setdefault(slot_of(_octets(key)), []).append(index)
        found: list[bytes | None] = [None] * len(keys)

        async def read(indexes: list[int]) -> None:
            route = self.route(_octets(keys[indexes[0]]))
            values = await route.call("MGET", *(keys[index] for index in indexes))
            for index, value in zip(indexes, values, strict=True):
                found[index] = value

        await asyncio.gather(*(read(indexes) for indexes in by_slot.values()))
        return found


async def primaries_of(address: Address) -> list[Address]:
    """The servers of a cluster that take writes, as one of its nodes tells. Raises StoreUnavailableError."""
    reasons = []
    for place in address.nodes:
        try:
            link = await open_link(asyncio.get_running_loop(), at(address, place))
            try:
                ranges = await _slots(link)
            finally:
                link.close()
        except (OSError, StoreError) as error:
            reasons.append(f"{host_port(*place)}: {error!s}")
            continue
        found = dict.fromkeys(_primary(each, place) for each in ranges)
        return [at(address, each) for each in found]
    raise StoreUnavailableError(f"no node tells where the slots are ({'; '.join(reasons)})")


def _primary(told: Sequence[Any], told_by: HostPort) -> HostPort:
    """Of a range of slots. A node that does not know its own name is the one that was asked."""
    host, port = told[2][:2]
    return (host.decode() if host else told_by[0]), int(port)


async def _slots(link: RedisLink) -> Sequence[Any]:
    """CLUSTER SLOTS. Raises StoreError."""
    try:
        async with asyncio.timeout(MAP_WITHIN_S):
            found: Sequence[Any] = await link.call("CLUSTER", "SLOTS")
            return found
    except TimeoutError:
        raise StoreUnavailableError(f"no answer within {MAP_WITHIN_S:g} s") from None


def _octets(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


def _ignore(reply: Reply) -> None:
    """To ASKING the next command's reply says all."""
