"""Frames and capture files for the tests of ``occ decode``, packed by hand from the formats' descriptions."""

import ipaddress
import struct
from collections.abc import Iterable, Sequence

CLIENT = ("10.0.0.1", 40_000)
SERVER = ("10.0.0.2", 3868)
START_NS = 1_800_000_000_123_456_000
"""When the first packet was caught; each further one came a millisecond later."""

ETHERNET, NULL, RAW, SLL, SLL2, IPV4 = 1, 0, 101, 113, 276, 228
SYN, ACK = 0x02, 0x10

Address = tuple[str, int]


def tcp(source: Address, destination: Address, sequence: int, payload: bytes, flags: int = ACK) -> bytes:
    """An IP packet with one TCP segment."""
    header = struct.pack(">HHIIBBHHH", source[1], destination[1], sequence & 0xFFFFFFFF, 1, 0x50, flags, 0xFFFF, 0, 0)
    return ip(source[0], destination[0], 6, header + payload)


def sctp(source: Address, destination: Address, chunks: Sequence[tuple[int, int, bytes]]) -> bytes:
    """An IP packet with DATA chunks: (flags, TSN, data)."""
    octets = struct.pack(">HHII", source[1], destination[1], 7, 0)
    for flags, number, data in chunks:
        octets += struct.pack(">BBHIHHI", 0, flags, 16 + len(data), number, 0, 0, 46) + data + bytes(-len(data) % 4)
    return ip(source[0], destination[0], 132, octets)


def ip(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    there, back = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if there.version == 4:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    else:
        header = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
    return header + there.packed + back.packed + payload


def framed(link_type: int, packet: bytes, vlan: bool = False) -> bytes:
    """The link layer around an IP packet."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    tag = struct.pack(">HH", 0x8100, 5) if vlan else b""
    if link_type == ETHERNET:
        padding = bytes(max(0, 46 - len(packet)))
        return bytes(12) + tag + struct.pack(">H", kind) + packet + padding
    if link_type == SLL:
        return bytes(14) + struct.pack(">H", kind) + packet
    if link_type == SLL2:
        return struct.pack(">H", kind) + bytes(18) + packet
    if link_type == NULL:
        return struct.pack("<I", 2 if kind == 0x0800 else 24) + packet
    return packet


def pcap(frames: Iterable[bytes], link_type: int = RAW, order: str = "<", nanoseconds: bool = False) -> bytes:
    """A capture file in the classic format."""
    magic, unit_ns = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    file = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 0xFFFF, link_type)
    for number, frame in enumerate(frames):
        at_ns = START_NS + number * 1_000_000
        seconds, fraction = divmod(at_ns, 1_000_000_000)
        file += struct.pack(order + "IIII", seconds, fraction // unit_ns, len(frame), len(frame)) + frame
    return file


def pcapng(frames: Iterable[bytes], link_type: int = RAW, order: str = "<", resolution: int | None = None) -> bytes:
    """A capture file in the new format; ``resolution``: option if_tsresol."""
    options = b""
    units_a_second = 1_000_000
    if resolution is not None:
        units_a_second = 1 << (resolution & 0x7F) if resolution & 0x80 else 10**resolution
        options = struct.pack(order + "HHB3xHH", 9, 1, resolution, 0, 0)
    file = _block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    file += _block(order, 1, struct.pack(order + "HHI", link_type, 0, 0) + options)
    for number, frame in enumerate(frames):
        time = (START_NS + number * 1_000_000) * units_a_second // 1_000_000_000
        head = struct.pack(order + "IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame))
        file += _block(order, 6, head + frame + bytes(-len(frame) % 4))
    return file


def _block(order: str, kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def conversation(
    messages: Iterable[tuple[bool, bytes]], client: Address = CLIENT, server: Address = SERVER
) -> list[bytes]:
    """IP packets of a TCP connection from its first SYN: (whether the client sends it, message)."""
    next_sequence = {True: 1000, False: 2000}
    packets = [
        tcp(client, server, next_sequence[True], b"", SYN),
        tcp(server, client, next_sequence[False], b"", SYN | ACK),
    ]
    next_sequence = {side: sequence + 1 for side, sequence in next_sequence.items()}
    for from_client, message in messages:
        source, destination = (client, server) if from_client else (server, client)
        packets.append(tcp(source, destination, next_sequence[from_client], message))
        next_sequence[from_client] += len(message)
    return packets
