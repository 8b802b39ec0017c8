"""Capture files: libpcap (the classic format) and pcapng, to packets.

A file that ends within a packet, as one does that is still being written, gives the packets before; what was left out
is told in a note.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

NANOSECONDS: Final = 1_000_000_000

# Magic number as the writer's byte order puts it: (byte order, nanoseconds per unit of the fraction).
_PCAP: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
_PCAP_HEADER: Final = 24
_SECTION_HEADER: Final = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}

# Block types and options of pcapng.
_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6
_OPTION_END: Final = 0
_OPTION_RESOLUTION: Final = 9
_OPTION_OFFSET: Final = 14

_LINK_TYPE_MASK: Final = 0xFFFF


class Packet(NamedTuple):
    """One packet of a capture. ``number`` counts from 1; ``time_ns``: nanoseconds since 1970, None if not told."""

    number: int
    time_ns: int | None
    link_type: int
    octets: bytes


def is_capture(octets: bytes) -> bool:
    """Whether the octets begin as a pcap or pcapng file does."""
    return octets[:4] in _PCAP or octets[:4] == _SECTION_HEADER


def packets(octets: bytes, notes: list[str]) -> Iterator[Packet]:
    """The packets of a pcap or pcapng file, in order. What could not be read is added to ``notes``."""
    if octets[:4] in _PCAP:
        return _pcap(octets, notes)
    return _PcapNg(octets, notes).packets()


def _pcap(octets: bytes, notes: list[str]) -> Iterator[Packet]:
    order, unit_ns = _PCAP[octets[:4]]
    record = Struct(order + "IIII")
    if len(octets) < _PCAP_HEADER:
        notes.append("the capture ends within its file header")
        return
    link_type = Struct(order + "I").unpack_from(octets, 20)[0] & _LINK_TYPE_MASK
    position = _PCAP_HEADER
    number = 0
    while position < len(octets):
        number += 1
        start = position + record.size
        if start > len(octets):
            notes.append(f"the capture ends within packet {number}")
            return
        seconds, fraction, captured, _ = record.unpack_from(octets, position)
        position = start + captured
        if position > len(octets):
            notes.append(f"the capture ends within packet {number}")
            return
        yield Packet(number, seconds * NANOSECONDS + fraction * unit_ns, link_type, octets[start:position])


class _Interface(NamedTuple):
    link_type: int
    longest: int
    """Octets kept of a packet at most, 0: all."""
    units_a_second: int
    offset_s: int


class _PcapNg:
    """Reads the blocks of one pcapng file (IETF draft-ietf-opsawg-pcapng)."""

    def __init__(self, octets: bytes, notes: list[str]) -> None:
        self._octets = octets
        self._notes = notes
        self._order = ">"
        self._interfaces: list[_Interface] = []
        self._number = 0

    def packets(self) -> Iterator[Packet]:
        octets = self._octets
        position = 0
        while position < len(octets):
            if octets[position : position + 4] == _SECTION_HEADER:
                order = _BYTE_ORDER.get(octets[position + 8 : position + 12])
                if order is None:
                    self._ends("a section of unknown byte order")
                    return
                self._order = order
                self._interfaces = []
            if position + 12 > len(octets):
                self._ends("a block that is cut short")
                return
            kind, length = self._unpack("II", octets, position)
            if length < 12 or length & 3 or position + length > len(octets):
                self._ends("a block that is cut short")
                return
            packet = self._block(kind, octets[position + 8 : position + length - 4])
            if packet is not None:
                yield packet
            position += length

    def _ends(self, where: str) -> None:
        self._notes.append(f"the capture ends after packet {self._number} with {where}")

    def _unpack(self, layout: str, octets: bytes, position: int) -> tuple[int, ...]:
        return Struct(self._order + layout).unpack_from(octets, position)

    def _block(self, kind: int, body: bytes) -> Packet | None:
        if kind == _INTERFACE and len(body) >= 8:
            self._interface(body)
        elif kind == _ENHANCED_PACKET and len(body) >= 20:
            interface, high, low, captured, _ = self._unpack("IIIII", body, 0)
            return self._packet(interface, high << 32 | low, body[20 : 20 + captured])
        elif kind == _SIMPLE_PACKET and len(body) >= 4 and self._interfaces:
            (length,) = self._unpack("I", body, 0)
            longest = self._interfaces[0].longest or length
            return self._packet(0, None, body[4 : 4 + min(length, longest)])
        return None

    def _packet(self, interface: int, time: int | None, octets: bytes) -> Packet | None:
        self._number += 1
        if interface >= len(self._interfaces):
            self._notes.append(f"packet {self._number} names an interface that the capture does not describe")
            return None
        known = self._interfaces[interface]
        time_ns = None
        if time is not None:
            time_ns = time * NANOSECONDS // known.units_a_second + known.offset_s * NANOSECONDS
        return Packet(self._number, time_ns, known.link_type, octets)

    def _interface(self, body: bytes) -> None:
        link_type, _, longest = self._unpack("HHI", body, 0)
        units_a_second, offset_s = 1_000_000, 0
        position = 8
        while position + 4 <= len(body):
            option, length = self._unpack("HH", body, position)
            value = body[position + 4 : position + 4 + length]
            if option == _OPTION_END:
                break
            if option == _OPTION_RESOLUTION and len(value) == 1:
                # The top bit says whether the unit is a power of 2 or of 10.
                units_a_second = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
            elif option == _OPTION_OFFSET and len(value) == 8:
                (offset_s,) = self._unpack("q", value, 0)
            position += 4 + length + (-length & 3)
        self._interfaces.append(_Interface(link_type, longest, units_a_second, offset_s))
