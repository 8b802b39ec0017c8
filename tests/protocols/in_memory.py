"""Diameter nodes joined in memory: real state machines, no sockets, a clock that only moves when told to."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

from protocols.diameter import codec
from protocols.diameter.codec import Message
from protocols.diameter.codes import Flag
from protocols.diameter.events import Event, PendingRequest, RequestReceived
from protocols.diameter.link import Disconnect, Link
from protocols.diameter.peer import Peer
from protocols.diameter.peer_table import PeerTable
from protocols.diameter.reception import accept
from protocols.diameter.settings import NodeSettings

OURS = NodeSettings(origin_host="ocs.example.net", origin_realm="example.net", origin_state_id=7)
THEIRS = NodeSettings(origin_host="pgw.example.org", origin_realm="example.org", origin_state_id=3)
LOOPBACK = "127.0.0.1"


class Side:
    """One node: its table and everything that its connections reported."""

    def __init__(self, settings: NodeSettings, seed: int = 1) -> None:
        self.table = PeerTable(settings, Random(seed))
        self.events: list[Event] = []

    def of_kind(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


class Wire:
    """One transport connection between two sides, octets under way included."""

    def __init__(self, ends: tuple[tuple[Side, Link], tuple[Side, Link]]) -> None:
        self.ends = ends
        self.under_way = [bytearray(), bytearray()]  # by receiving end
        self.closed = [False, False]  # by end that closed

    def collect(self) -> None:
        """Take what both ends have to say, as their socket owners would."""
        for end, (_, link) in enumerate(self.ends):
            if not self.closed[end]:
                if link.disconnect is not Disconnect.ABORT:
                    self.under_way[1 - end] += b"".join(link.output)
                link.output.clear()
                self.closed[end] = link.disconnect is not Disconnect.NO

    def deliver(self, end: int, now: float, octets: int | None = None) -> bool:
        """Hand what is under way to one end, or the end of the stream; whether there was anything."""
        side, link = self.ends[end]
        waiting = self.under_way[end]
        if waiting:
            data = bytes(waiting[:octets])
            del waiting[: len(data)]
            if not self.closed[end]:
                side.events += link.receive_data(data, now)
            return True
        if self.closed[1 - end] and not self.closed[end]:
            side.events += link.receiver.link_lost(link, "it closed its connection", now)
            link.disconnect = Disconnect.ABORT
            self.closed[end] = True
            return True
        return False


class Network:
    """Wires and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wires: list[Wire] = []

    def dial(self, caller: Side, called: Side) -> Wire:
        """`caller` opens a connection to `called`, whose identity it knows."""
        peer = caller.table.find_or_add(called.table.settings.origin_host)
        peer.start(self.now)
        return self.connect(peer, caller, called)

    def connect(self, peer: Peer, caller: Side, called: Side) -> Wire:
        """The transport that `peer.start` asked for comes up."""
        link, events = peer.connected(LOOPBACK, LOOPBACK, self.now)
        assert link is not None
        caller.events += events
        accepted = accept(called.table, LOOPBACK, LOOPBACK, self.now)
        wire = Wire(((caller, link), (called, accepted)))
        self.wires.append(wire)
        return wire

    def run(self, random: Random | None = None) -> None:
        """Deliver until nothing moves; with `random`, in any order the network could produce."""
        while True:
            for wire in self.wires:
                wire.collect()
            ways = [(wire, end) for wire in self.wires for end in (0, 1)]
            if random is not None:
                random.shuffle(ways)
            for wire, end in ways:
                octets = None if random is None else 4 * random.randint(1, 60)
                if wire.deliver(end, self.now, octets):
                    break
            else:
                return

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire in their order, at their time."""
        until = self.now + seconds
        while True:
            self.run()
            due = [
                (when, side, link)
                for wire in self.wires
                for end, (side, link) in enumerate(wire.ends)
                if not wire.closed[end] and (when := link.receiver.next_timeout()) is not None and when <= until
            ]
            if not due:
                break
            when, side, link = min(due, key=lambda one: one[0])
            self.now = max(self.now, when)
            side.events += link.receiver.handle_timeout(self.now)
        self.now = until


class Stranger:
    """Octets written by hand on a connection that a real node accepted."""

    def __init__(self, settings: NodeSettings = OURS, address: str = LOOPBACK, side: Side | None = None) -> None:
        self.side = side or Side(settings)
        self.now = 1000.0
        self.link = accept(self.side.table, address, LOOPBACK, self.now)

    @property
    def events(self) -> list[Event]:
        return self.side.events

    def peer_counters(self) -> dict[str, int]:
        """The counters in the peer table."""
        (peer,) = self.side.table
        return peer.statistics.as_dict()

    def last(self) -> Event:
        """What was reported last."""
        return self.side.events[-1]

    @property
    def is_closed(self) -> bool:
        return self.link.disconnect is not Disconnect.NO

    def send(self, data: bytes) -> list[Message]:
        """What the node answers to these octets."""
        self.side.events += self.link.receive_data(data, self.now)
        return self.received()

    def received(self) -> list[Message]:
        """What the node has written since; the whole output must be well-formed."""
        messages = [codec.decode(octets) for octets in self.link.output]
        self.link.output.clear()
        return messages

    def of_requests(self) -> list[RequestReceived]:
        """The application requests that were handed out."""
        return [event for event in self.events if isinstance(event, RequestReceived)]

    def open(self) -> "Stranger":
        """Exchange capabilities."""
        (answer,) = self.send(cer())
        assert result_of(answer) == 2001
        return self

    def advance(self, seconds: float) -> list[Message]:
        """Let time pass in small steps."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.5)
            self.side.events += self.link.receiver.handle_timeout(self.now)
        return self.received()


def base_request(command: int, avps: Iterable[bytes], flags: int = Flag.REQUEST, hop_by_hop: int = 11) -> bytes:
    """A request of the base protocol."""
    return codec.build(command, 0, flags, hop_by_hop, 22, avps)


def origin(host: str = "pgw.example.org", realm: str = "example.org") -> list[bytes]:
    return [codec.avp("Origin-Host", host), codec.avp("Origin-Realm", realm)]


def cer(capabilities: Iterable[bytes] | None = None, host: str = "pgw.example.org", flags: int = Flag.REQUEST) -> bytes:
    """A CER; `capabilities` stands for the AVPs after Product-Name, Auth-Application-Id 4 if None."""
    if capabilities is None:
        capabilities = [codec.avp("Auth-Application-Id", 4)]
    return base_request(
        257,
        [
            *origin(host),
            codec.avp("Host-IP-Address", LOOPBACK),
            codec.avp("Vendor-Id", 10415),
            codec.avp("Product-Name", "tester"),
            *capabilities,
        ],
        flags,
    )


def dwr(state_id: int | None = None, flags: int = Flag.REQUEST) -> bytes:
    """A DWR, without Origin-State-Id as Kamailio sends it unless one is given."""
    extra = [] if state_id is None else [codec.avp("Origin-State-Id", state_id)]
    return base_request(280, [*origin(), *extra], flags)


def dpr(cause: int = 0, flags: int = Flag.REQUEST) -> bytes:
    return base_request(282, [*origin(), codec.avp("Disconnect-Cause", cause)], flags)


def ccr(hop_by_hop: int = 33, flags: int = Flag.REQUEST | Flag.PROXIABLE) -> bytes:
    """An application request that nobody in here looks into."""
    return codec.build(272, 4, flags, hop_by_hop, 44, [codec.avp("Session-Id", "pgw.example.org;1;2"), *origin()])


def answer(request: Message, result: int | None = 2001) -> bytes:
    """An answer of the other side to a request that the node sent."""
    parts = [] if result is None else [codec.avp("Result-Code", result)]
    return codec.answer_to(request, [*parts, *origin()])


def own_request(message: bytes | None = None) -> PendingRequest:
    """A request that a node is to send."""
    return PendingRequest(message or codec.build(258, 4, Flag.REQUEST, 0, 55, origin("ocs.example.net", "example.net")))


def result_of(message: Message) -> int:
    found = message.find(268)
    assert found is not None
    value = found.value()
    assert isinstance(value, int)
    return value


def changed(settings: NodeSettings, **values: object) -> NodeSettings:
    return replace(settings, **values)  # type: ignore[arg-type]
