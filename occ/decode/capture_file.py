"""Messages written as a capture file (libpcap, the classic format), as if they had been caught on the wire.

Each packet is raw IP with a TCP segment that carries one message, or a part of one that is long. Sequence numbers go on
from packet to packet, so that Wireshark, tshark and ``occ decode`` see healthy streams, one for each connection.
"""

import struct
from ipaddress import IPv4Address, ip_address
from typing import BinaryIO, Final, NamedTuple

from occ.decode.packets import Endpoint

LINK_TYPE_RAW: Final = 101
LONGEST_PACKET: Final = 65_535
_LONGEST_PAYLOAD: Final = 65_000
_TCP: Final = 6
_NANOSECONDS: Final = 1_000_000_000
_PUSH_AND_ACKNOWLEDGE: Final = 0x18
_CIRCLE: Final = 1 << 32


class _Way(NamedTuple):
    source: Endpoint
    destination: Endpoint


class CaptureWriter:
    """Writes to a file that is open for octets; times are those of the messages, with nanoseconds."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises OSError, as ``write`` does."""
        self._file = file
        self._sequences: dict[_Way, int] = {}
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, LONGEST_PACKET, LINK_TYPE_RAW))

    def write(self, source: Endpoint, destination: Endpoint, time_ns: int, message: bytes) -> None:
        """Add a message."""
        way, back = _Way(source, destination), _Way(destination, source)
        for at in range(0, len(message), _LONGEST_PAYLOAD):
            payload = message[at : at + _LONGEST_PAYLOAD]
            sequence = self._sequences.get(way, 1)
            packet = _packet(source, destination, sequence, self._sequences.get(back, 1), payload)
            self._sequences[way] = (sequence + len(payload)) % _CIRCLE
            seconds, fraction = divmod(time_ns, _NANOSECONDS)
            self._file.write(struct.pack("<IIII", seconds, fraction, len(packet), len(packet)) + packet)

    def flush(self) -> None:
        """Have it all in the file: a program that reads it now sees whole packets."""
        self._file.flush()


def _packet(source: Endpoint, destination: Endpoint, sequence: int, acknowledged: int, payload: bytes) -> bytes:
    one, other = ip_address(source.address), ip_address(destination.address)
    segment = struct.pack(
        ">HHIIBBHHH",
        source.port, destination.port, sequence, acknowledged, 0x50, _PUSH_AND_ACKNOWLEDGE, 0xFFFF, 0, 0,
    )  # fmt: skip
    length = len(segment) + len(payload)
    if isinstance(one, IPv4Address) and isinstance(other, IPv4Address):
        pseudo = one.packed + other.packed + struct.pack(">BBH", 0, _TCP, length)
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, _TCP, 0) + one.packed + other.packed
        header = header[:10] + _checksum(header) + header[12:]
    else:
        first, second = (
            each.packed if each.version == 6 else b"\0" * 10 + b"\xff\xff" + each.packed for each in (one, other)
        )
        pseudo = first + second + struct.pack(">IHBB", length, 0, 0, _TCP)
        header = struct.pack(">IHBB", 0x6 << 28, length, _TCP, 64) + first + second
    segment = segment[:16] + _checksum(pseudo + segment + payload) + segment[18:]
    return header + segment + payload


def _checksum(octets: bytes) -> bytes:
    """RFC 1071."""
    if len(octets) % 2:
        octets += b"\0"
    total: int = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")
