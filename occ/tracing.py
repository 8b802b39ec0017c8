"""Diameter messages of one subscriber or peer, caught as they pass, for ``occ trace``.

Nobody traces as a rule, and then a message costs one look at an attribute that is None. A trace ends when nobody
watches any more, when its time is up, or when it has caught what it may; what it catches faster than the store takes is
counted and left out, so that tracing never makes charging wait.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgpack

from balance import traces
from balance.resp import StoreError
from balance.store import Store
from protocols.diameter.events import Role
from protocols.diameter.link import Link
from protocols.diameter.node import Node
from protocols.diameter.peer import Peer

log = logging.getLogger("occ.tracing")

COMMAND: Final = b"trace"
"""The command to all workers (``balance.broadcast``), followed by a zero octet and the packed ``Trace``."""

LONGEST_S: Final = 3600
MOST_MESSAGES: Final = 100_000
MOST_OCTETS: Final = 64 << 20
"""All that one worker catches for one trace."""
TRACES_AT_ONCE: Final = 4
WAITING_OCTETS: Final = 4 << 20
"""Caught and not yet in the store; what comes on top is left out."""
SESSIONS_REMEMBERED: Final = 10_000

WRITE_EVERY_S: Final = 0.05
ENTRY_OCTETS: Final = 256 << 10
"""About, of one entry of the stream."""

_HEADER: Final = 20
_REQUEST: Final = 0x80
_SESSION_ID: Final = (263).to_bytes(4, "big")

_pack = msgpack.packb


@dataclass(frozen=True, slots=True)
class Trace:
    """What is to be caught: all of a subscriber, or all that passes between us and a peer."""

    name: bytes
    """Unique; where the messages go (``balance.traces``)."""
    identities: tuple[bytes, ...] = ()
    """Subscription-Id-Data by which requests name the subscriber; none: it is about a peer."""
    sessions: tuple[bytes, ...] = ()
    """Session-Ids that the subscriber has open as it begins: later requests need not name it."""
    peer: str = ""
    """Diameter identity."""
    seconds: float = 60.0
    count: int = 1000

    def pack(self) -> bytes:
        """As a command to all workers."""
        told: tuple[object, ...] = (self.name, self.identities, self.sessions, self.peer, self.seconds, self.count)
        packed: bytes = _pack(told)
        return COMMAND + b"\0" + packed

    @classmethod
    def unpack(cls, command: bytes) -> "Trace":
        """Raises ValueError for what ``pack`` has not made."""
        fields: Any = msgpack.unpackb(command.partition(b"\0")[2], use_list=False)
        if not isinstance(fields, tuple) or len(fields) != 6:
            raise ValueError("this is no trace")
        return cls(*fields)


class Caught(NamedTuple):
    """One message, or, with none, the end of what one worker has caught."""

    worker: str
    time_ns: int
    """Since 1970."""
    peer: str
    """Diameter identity at the other end of the connection; empty: not known yet."""
    is_sent: bool
    """By the server."""
    is_dialed: bool
    """The server opened the connection."""
    own: tuple[str, int]
    remote: tuple[str, int]
    message: bytes
    left_out: int = 0
    """Messages before this one that were not caught, as there were too many."""
    end: str = ""
    """Why there is no more."""


def unpack_caught(packed: bytes) -> list[Caught]:
    """The messages of one entry of the stream."""
    return [Caught(*fields) for fields in msgpack.unpackb(packed, use_list=False)]


@dataclass(slots=True)
class _Running:
    """One trace in one worker."""

    trace: Trace
    until_s: float
    needles: tuple[bytes, ...]
    peer: bytes
    sessions: set[bytes]
    waiting: list[Caught] = field(default_factory=list)
    waiting_octets: int = 0
    caught: int = 0
    octets: int = 0
    left_out: int = 0

    @property
    def is_full(self) -> bool:
        return self.caught >= self.trace.count or self.octets >= MOST_OCTETS

    def wants(self, link: Link, message: bytes) -> bool:
        if self.peer:
            receiver = link.receiver
            if isinstance(receiver, Peer):
                return receiver.identity.lower().encode() == self.peer
            return _in_avp(self.peer).lower() in message.lower()  # its first message, which says who it is
        session = session_id_of(message)
        if session in self.sessions:
            return True
        if not message[4] & _REQUEST or not any(needle in message for needle in self.needles):
            return False
        if session and len(self.sessions) < SESSIONS_REMEMBERED:
            self.sessions.add(session)
        return True


class Tracing:
    """The traces of one worker."""

    def __init__(self, store: Store, node: Node, worker: str) -> None:
        self._store = store
        self._node = node
        self._worker = worker
        self._running: dict[bytes, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: dict[Link, tuple[tuple[str, int], tuple[str, int]]] = {}

    async def execute(self, command: bytes) -> bytes:
        """Begin a trace, as ``occ trace`` asks all workers to; whether a peer that it is about is open here."""
        trace = Trace.unpack(command)
        if trace.name not in self._running:
            if len(self._running) >= TRACES_AT_ONCE:
                raise ValueError(f"there are {TRACES_AT_ONCE} traces already")
            self._begin(trace)
        return b"open" if trace.peer and self._node.handle(trace.peer) is not None else b"begun"

    def _begin(self, trace: Trace) -> None:
        clock = asyncio.get_running_loop().time
        seconds = min(max(0.0, trace.seconds), LONGEST_S)
        running = _Running(
            trace,
            clock() + seconds,
            tuple(_in_avp(written) for name in trace.identities for written in (name, b"+" + name)),
            trace.peer.lower().encode(),
            set(trace.sessions),
        )
        self._running[trace.name] = running
        self._node.set_tap(self._see)
        log.info("a trace has begun: %s", trace.peer or "one subscriber")
        task = asyncio.create_task(self._deliver(running))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End all traces."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _see(self, link: Link, message: bytes, is_sent: bool) -> None:
        for running in self._running.values():
            if running.is_full or not running.wants(link, message):
                continue
            if running.waiting_octets + len(message) > WAITING_OCTETS:
                running.left_out += 1
                continue
            receiver = link.receiver
            peer = receiver.identity if isinstance(receiver, Peer) else ""
            own, remote = self._ends.get(link) or self._look_up(link)
            running.waiting.append(
                Caught(
                    self._worker,
                    time.time_ns(),
                    peer,
                    is_sent,
                    link.role is Role.INITIATOR,
                    own,
                    remote,
                    bytes(message),
                    running.left_out,
                )
            )
            running.left_out = 0
            running.waiting_octets += len(message)
            running.octets += len(message)
            running.caught += 1

    def _look_up(self, link: Link) -> tuple[tuple[str, int], tuple[str, int]]:
        found = self._ends[link] = self._node.endpoints(link)
        return found

    # -- to the watcher --------------------------------------------------------------------------------------------

    async def _deliver(self, running: _Running) -> None:
        """Hand on what is caught until the trace ends."""
        trace = running.trace
        clock = asyncio.get_running_loop().time
        look_s = clock() + 1.0
        end = "the server stops"
        try:
            while True:
                await asyncio.sleep(WRITE_EVERY_S)
                await self._write(running)
                if running.is_full:
                    end = f"{running.caught} messages are as many as it may catch"
                    break
                if clock() >= running.until_s:
                    end = "its time is up"
                    break
                if clock() >= look_s:
                    look_s = clock() + 1.0
                    if not await traces.is_watched(self._store, trace.name):
                        end = "nobody watches it any more"
                        break
        except StoreError as error:
            end = f"the store takes nothing more: {error}"
        finally:
            del self._running[trace.name]
            if not self._running:
                self._node.set_tap(None)
                self._ends.clear()
            log.info("a trace has ended, %d messages caught: %s", running.caught, end)
        try:
            last = Caught(self._worker, time.time_ns(), "", False, False, ("", 0), ("", 0), b"", running.left_out, end)
            await traces.write(self._store, trace.name, _pack([last]))
        except StoreError as error:
            log.debug("the end of a trace is not told: %s", error)

    async def _write(self, running: _Running) -> None:
        """Raises StoreError."""
        while running.waiting:
            taken = octets = 0
            for each in running.waiting:
                taken += 1
                octets += len(each.message)
                if octets >= ENTRY_OCTETS:
                    break
            entry = running.waiting[:taken]
            await traces.write(self._store, running.trace.name, _pack(entry))
            del running.waiting[:taken]
            running.waiting_octets -= octets


def _in_avp(value: bytes) -> bytes:
    """Text as it stands in an AVP without a vendor, with the length before it: no longer text is taken for it."""
    return (8 + len(value)).to_bytes(3, "big") + value + bytes(-len(value) % 4)


def session_id_of(message: bytes) -> bytes:
    """The Session-Id of a message, wherever it stands at its top level; empty if it has none, or is damaged."""
    at, end = _HEADER, len(message)
    while end - at >= 8:
        length = int.from_bytes(message[at + 5 : at + 8], "big")
        if length < 8 or at + length > end:
            return b""
        if message[at : at + 4] == _SESSION_ID and not message[at + 4] & _REQUEST:
            return bytes(message[at + 8 : at + length])
        at += length + (-length % 4)
    return b""
