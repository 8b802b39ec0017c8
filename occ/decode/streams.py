"""From packets to Diameter messages: TCP and SCTP streams put together, and cut into messages.

A capture is as the network was: segments come twice, late or never, and the first message may be half over when the
capture begins. So each direction of a connection is put in order by its sequence numbers, and where octets are
missing, reading goes on at the next octets that look like a Diameter header (RFC 6733 section 3).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NamedTuple

from occ.decode.capture import Packet
from occ.decode.names import COMMANDS, counted
from occ.decode.packets import Chunk, Endpoint, FragmentError, Segment, carried
from protocols.diameter.codes import Flag
from protocols.diameter.validation import HEADER_LENGTH, LENGTH_MASK

PORTS: Final = frozenset((3868, 5868))
"""Ports of Diameter: over TCP and SCTP, and with TLS from the first octet (RFC 6733 section 2.1)."""

_SEGMENTS_LOOKED_AT: Final = 100
"""How far into a connection on other ports one looks for a segment that begins with a message."""

_WORDS: Final = Struct(">II")
_RESERVED_BITS: Final = 0x0F
_RESERVED_AVP_BITS: Final = 0x1F
_HALF_CIRCLE: Final = 1 << 31
_CIRCLE: Final = 1 << 32


class Flow(NamedTuple):
    """One direction of one connection. ``connection`` tells apart those that used the same ports in turn."""

    transport: str
    connection: int
    source: Endpoint
    destination: Endpoint

    def reversed(self) -> "Flow":
        """The other direction."""
        return Flow(self.transport, self.connection, self.destination, self.source)


@dataclass(slots=True)
class Found:
    """One Diameter message as it was found.

    ``octets``: all of it, or as much as there is; ``missing``: octets that its length field promises beyond those,
    because the capture lacks them. ``packet``, ``time_ns``: the packet with its last octet. ``skipped``: octets before
    it that belong to no message, ``lost``: octets before it that the capture lacks.
    """

    octets: bytes
    flow: Flow | None = None
    packet: int = 0
    time_ns: int | None = None
    missing: int = 0
    skipped: int = 0
    lost: int = 0


@dataclass(slots=True)
class Streams:
    """What a capture holds: messages in the order they were complete, and the directions that were seen at all."""

    messages: list[Found] = field(default_factory=list)
    flows: set[Flow] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


# -- where a message begins --------------------------------------------------------------------------------------


def plausible(octets: bytes, at: int) -> bool:
    """Whether a Diameter message may begin there: header and first AVP header make sense, the command is known."""
    if len(octets) - at < HEADER_LENGTH or octets[at] != 1:
        return False
    first, second = _WORDS.unpack_from(octets, at)
    length = first & LENGTH_MASK
    flags = second >> 24
    if length < HEADER_LENGTH or length & 3 or flags & _RESERVED_BITS or second & LENGTH_MASK not in COMMANDS:
        return False
    if flags & Flag.REQUEST and flags & Flag.ERROR:
        return False
    avp = at + HEADER_LENGTH
    if length == HEADER_LENGTH or len(octets) - avp < 8:
        return True
    code, word = _WORDS.unpack_from(octets, avp)
    shortest = 12 if word & 0x80000000 else 8
    return bool(code) and not word >> 24 & _RESERVED_AVP_BITS and shortest <= word & LENGTH_MASK <= length


def next_plausible(octets: bytes, at: int) -> int:
    """Where the next message may begin, ``at`` or later; the end if nowhere."""
    while True:
        at = octets.find(b"\x01", at)
        if at < 0:
            return len(octets)
        if plausible(octets, at):
            return at
        at += 1


class Cut(NamedTuple):
    """A message from ``start`` to ``stop``; see ``Found`` for the others."""

    start: int
    stop: int
    missing: int
    skipped: int


def cut(octets: bytes, *, in_step: bool, complete: bool) -> Iterator[Cut]:
    """Cut octets into messages.

    ``in_step``: a message begins at the first octet, whatever it looks like. ``complete``: nothing follows that is
    not there, so that a message that ends too early is a wrong message and not one that the capture lacks the end of.
    What is no message is skipped; what follows a message and is none is given as one, to be shown as what it is.
    """
    at, end = 0, len(octets)
    skipped_from = 0
    while end - at >= HEADER_LENGTH:
        if not in_step:
            at = next_plausible(octets, at)
            if at == end:
                return
            in_step = True
        length = int.from_bytes(octets[at + 1 : at + 4], "big")
        sound = length >= HEADER_LENGTH and not length & 3
        if sound and at + length <= end and (octets[at] == 1 or _goes_on(octets, at + length)):
            stop, missing = at + length, 0
        else:
            stop, missing = next_plausible(octets, at + HEADER_LENGTH), 0
            if sound and not complete and (plausible(octets, at) or stop == end):
                stop, missing = end, at + length - end
        yield Cut(at, stop, missing, at - skipped_from)
        at = skipped_from = stop


def _goes_on(octets: bytes, at: int) -> bool:
    return at == len(octets) or plausible(octets, at)


# -- streams -----------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """Octets of a stream, from ``at`` counted from the first that was seen; may overlap with others."""

    at: int
    packet: int
    time_ns: int | None
    octets: bytes


class _Run(NamedTuple):
    """Octets without a gap between them. ``marks``: (offset, packet, time) from which on the packet is another."""

    octets: bytes
    marks: list[tuple[int, int, int | None]]
    lost: int
    is_start: bool


class _Direction:
    """One direction of a TCP connection."""

    __slots__ = ("base", "flow", "knows_start", "pieces", "top")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.base: int | None = None
        self.knows_start = False
        self.top = 0
        self.pieces: list[_Piece] = []

    def add(self, segment: Segment, packet: Packet) -> None:
        if self.base is None:
            self.base = segment.sequence
        if segment.opens and not self.pieces:
            self.base = segment.sequence
            self.knows_start = True
        # Sequence numbers go round; the nearest to the highest so far is meant.
        step = (segment.sequence - self.base - self.top) % _CIRCLE
        at = self.top + (step if step < _HALF_CIRCLE else step - _CIRCLE)
        if segment.payload:
            self.pieces.append(_Piece(at, packet.number, packet.time_ns, segment.payload))
            self.top = max(self.top, at + len(segment.payload))

    def runs(self) -> Iterator[_Run]:
        """The octets in order, cut where some are missing."""
        parts: list[bytes] = []
        marks: list[tuple[int, int, int | None]] = []
        size = lost = 0
        expected = 0 if self.knows_start else None
        is_start = self.knows_start
        for piece in sorted(self.pieces, key=_place):
            octets = piece.octets
            if expected is None:
                expected = piece.at
            if piece.at > expected:
                if parts:
                    yield _Run(b"".join(parts), marks, lost, is_start)
                    parts, marks, size = [], [], 0
                lost, is_start = piece.at - expected, False
            elif piece.at < expected:
                octets = octets[expected - piece.at :]
                if not octets:
                    continue
            parts.append(octets)
            marks.append((size, piece.packet, piece.time_ns))
            size += len(octets)
            expected = max(piece.at, expected) + len(octets)
        if parts:
            yield _Run(b"".join(parts), marks, lost, is_start)

    def messages(self) -> Iterator[Found]:
        for run in self.runs():
            lost = run.lost
            starts = [mark[0] for mark in run.marks]
            for piece in cut(run.octets, in_step=run.is_start, complete=False):
                first = bisect_right(starts, piece.start) - 1
                last = bisect_right(starts, piece.stop - 1)
                packet, time_ns = max((mark[1], mark[2] or 0) for mark in run.marks[first:last])
                octets = run.octets[piece.start : piece.stop]
                timed = run.marks[first][2] is not None
                yield Found(octets, self.flow, packet, time_ns if timed else None, piece.missing, piece.skipped, lost)
                lost = 0


def _place(piece: _Piece) -> tuple[int, int]:
    return piece.at, piece.packet


class _Association:
    """One direction of an SCTP association: its messages are whole chunks, or fragments with consecutive numbers."""

    __slots__ = ("chunks", "flow", "top")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.top: int | None = None
        self.chunks: dict[int, tuple[Chunk, Packet]] = {}

    def add(self, chunk: Chunk, packet: Packet) -> None:
        if self.top is None:
            self.top = chunk.number
        step = (chunk.number - self.top) % _CIRCLE
        number = self.top + (step if step < _HALF_CIRCLE else step - _CIRCLE)
        self.top = max(self.top, number)
        self.chunks.setdefault(number, (chunk, packet))

    def messages(self) -> Iterator[Found]:
        parts: list[bytes] = []
        expected = 0
        for number in sorted(self.chunks):
            chunk, packet = self.chunks[number]
            if chunk.begins:
                parts = []
            elif number != expected or not parts:
                parts = []
                continue
            parts.append(chunk.payload)
            expected = number + 1
            if chunk.ends:
                octets = b"".join(parts)
                parts = []
                for piece in cut(octets, in_step=plausible(octets, 0), complete=True):
                    message = octets[piece.start : piece.stop]
                    yield Found(message, self.flow, packet.number, packet.time_ns)


_Pair = tuple[Endpoint, Endpoint]


class _Collector:
    """Sorts packets into connections."""

    def __init__(self, ports: frozenset[int]) -> None:
        self._ports = ports
        self._tcp: dict[_Pair, _Direction] = {}
        self._sctp: dict[_Pair, _Association] = {}
        self._closed: list[_Direction] = []
        self._connections = 0
        self.fragments = 0

    def take(self, packet: Packet) -> None:
        try:
            parts = carried(packet.link_type, packet.octets)
        except FragmentError:
            self.fragments += 1
            return
        for part in parts:
            if isinstance(part, Segment):
                self._segment(part, packet)
            else:
                self._association(part).add(part, packet)

    def _segment(self, segment: Segment, packet: Packet) -> None:
        there = (segment.source, segment.destination)
        direction = self._tcp.get(there)
        if direction is None or (segment.opens and self._is_another(direction, segment)):
            back = there[::-1]
            for old in (self._tcp.pop(there, None), self._tcp.pop(back, None)):
                if old is not None:
                    self._closed.append(old)
            flow = Flow("TCP", self._number(), *there)
            direction = self._tcp[there] = _Direction(flow)
            self._tcp[back] = _Direction(flow.reversed())
        direction.add(segment, packet)

    @staticmethod
    def _is_another(direction: _Direction, segment: Segment) -> bool:
        """Whether a SYN begins a connection on ports that one before it used; it may also be the same SYN again."""
        if direction.base is None:
            return False
        return segment.sequence != direction.base if direction.knows_start else bool(direction.pieces)

    def _association(self, chunk: Chunk) -> _Association:
        there = (chunk.source, chunk.destination)
        found = self._sctp.get(there)
        if found is None:
            flow = Flow("SCTP", self._number(), *there)
            found = self._sctp[there] = _Association(flow)
            self._sctp[there[::-1]] = _Association(flow.reversed())
        return found

    def _number(self) -> int:
        self._connections += 1
        return self._connections

    def streams(self, notes: list[str]) -> Streams:
        found = Streams(notes=notes)
        if self.fragments:
            notes.append(f"{counted(self.fragments, 'IP fragment')} left out: fragments are not put together")
        halves: dict[int, list[_Direction]] = {}
        for direction in (*self._closed, *self._tcp.values()):
            halves.setdefault(direction.flow.connection, []).append(direction)
        for directions in halves.values():
            if self._is_diameter(directions):
                self._read(directions, found)
        for association in self._sctp.values():
            messages = list(association.messages())
            if association.chunks:
                found.flows.add(association.flow)
            found.messages += messages
        found.messages.sort(key=_order)
        return found

    def _is_diameter(self, directions: list[_Direction]) -> bool:
        flow = directions[0].flow
        if flow.source.port in self._ports or flow.destination.port in self._ports:
            return True
        return any(
            plausible(piece.octets, 0) for direction in directions for piece in direction.pieces[:_SEGMENTS_LOOKED_AT]
        )

    @staticmethod
    def _read(directions: list[_Direction], found: Streams) -> None:
        before = len(found.messages)
        for direction in directions:
            if direction.base is not None:
                found.flows.add(direction.flow)
            found.messages += direction.messages()
        carried_octets = sum(len(piece.octets) for direction in directions for piece in direction.pieces)
        if carried_octets and not any(map(_looks_like_diameter, found.messages[before:])):
            del found.messages[before:]
            flow = directions[0].flow
            what = "TLS" if any(_looks_like_tls(direction) for direction in directions) else "something else"
            found.notes.append(f"the connection {flow.source} to {flow.destination} carries {what}, not plain Diameter")


def _looks_like_diameter(message: Found) -> bool:
    """Whether it is a message, if perhaps of a command that is not known."""
    octets = message.octets
    return plausible(octets, 0) or (octets[0] == 1 and int.from_bytes(octets[1:4], "big") == len(octets))


def _looks_like_tls(direction: _Direction) -> bool:
    """Whether it starts like a TLS record: a content type from 20 to 23 and major version 3."""
    first = min(direction.pieces, key=_place, default=None)
    return first is not None and first.octets[0] in range(20, 24) and first.octets[1:2] == b"\x03"


def _order(found: Found) -> int:
    return found.packet


def messages_of(packets: Iterable[Packet], ports: frozenset[int], notes: list[str]) -> Streams:
    """All Diameter messages in packets. ``ports``: of connections that are Diameter even if they do not look so."""
    collector = _Collector(ports)
    for packet in packets:
        collector.take(packet)
    return collector.streams(notes)
