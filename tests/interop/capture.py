"""Writes Diameter messages into a capture file, as if they had been caught on the wire.

Format: libpcap (the classic one), link type RAW: each packet is IPv4, TCP and one message. Sequence numbers go on from
packet to packet, so that a dissector sees one healthy stream.
"""

import socket
import struct
from collections.abc import Iterable
from pathlib import Path

SERVER_PORT = 3868
CLIENT_PORT = 40_000
LINK_TYPE_RAW = 101
_LONGEST_PAYLOAD = 65_000


def write_capture(path: Path, messages: Iterable[bytes]) -> int:
    """Write what a server sent, in order; how many packets. A message too long for one packet takes several."""
    sequence = 1
    packets = 0
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0xFFFF, LINK_TYPE_RAW))
        for message in messages:
            for at in range(0, len(message), _LONGEST_PAYLOAD):
                payload = message[at : at + _LONGEST_PAYLOAD]
                packet = _packet(payload, sequence)
                file.write(struct.pack("<IIII", packets, 0, len(packet), len(packet)) + packet)
                sequence = (sequence + len(payload)) & 0xFFFFFFFF
                packets += 1
    return packets


def _packet(payload: bytes, sequence: int) -> bytes:
    address = socket.inet_aton("127.0.0.1")
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 0, 0x4000, 64, socket.IPPROTO_TCP, 0, address, address
    )
    segment = struct.pack(">HHIIBBHHH", SERVER_PORT, CLIENT_PORT, sequence, 1, 0x50, 0x18, 0xFFFF, 0, 0)
    return header + segment + payload
