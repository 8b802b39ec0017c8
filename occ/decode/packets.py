"""From a captured packet to what TCP or SCTP carries in it.

Link layers: Ethernet with VLAN tags, Linux "any" captures (SLL, SLL2), loopback (NULL, LOOP), raw IP. Network layers:
IPv4, and IPv6 with extension headers. A packet of anything else, and one that is too short for what its headers say,
is no packet of ours and gives nothing.
"""

import ipaddress
import struct
from functools import lru_cache
from typing import Final, NamedTuple

_ETHERNET: Final = 1
_NULL: Final = 0
_LOOP: Final = 108
_RAW: Final = frozenset((12, 14, 101, 228, 229))
_SLL: Final = 113
_SLL2: Final = 276

_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLAN: Final = frozenset((0x8100, 0x88A8, 0x9100))

_PROTOCOL_TCP: Final = 6
_PROTOCOL_SCTP: Final = 132
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = frozenset((0, 43, 60, 135, 139, 140))
"""Extension headers of IPv6 whose second octet is their length in units of 8 octets, less one."""

_SYN: Final = 0x02
_SCTP_DATA: Final = 0
_FIRST_FRAGMENT: Final = 0x02
_LAST_FRAGMENT: Final = 0x01


class Endpoint(NamedTuple):
    """An IP address as text and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Segment(NamedTuple):
    """What one TCP segment carries; ``sequence`` is that of the first octet of ``payload``."""

    source: Endpoint
    destination: Endpoint
    sequence: int
    opens: bool
    """SYN: the stream of this direction starts at ``sequence``."""
    payload: bytes


class Chunk(NamedTuple):
    """One SCTP DATA chunk (RFC 9260 section 3.3.1); ``number`` is its Transmission Sequence Number."""

    source: Endpoint
    destination: Endpoint
    number: int
    begins: bool
    ends: bool
    payload: bytes


class FragmentError(Exception):
    """The packet is a fragment of an IP datagram; these are not put together."""


def carried(link_type: int, octets: bytes) -> list[Segment] | list[Chunk]:
    """What TCP or SCTP carries in a packet, nothing for all other packets. Raises FragmentError."""
    try:
        return _network(*_link(link_type, octets))
    except (struct.error, IndexError):
        return []


def _link(link_type: int, octets: bytes) -> tuple[int, bytes]:
    """(EtherType, network layer) of a packet; 0 where there is none."""
    if link_type == _ETHERNET:
        return _tagged(octets, 12)
    if link_type in _RAW:
        return {4: _IPV4, 6: _IPV6}.get(octets[0] >> 4, 0), octets
    if link_type == _SLL:
        return _tagged(octets, 14)
    if link_type == _SLL2:
        return int.from_bytes(octets[:2], "big"), octets[20:]
    if link_type in (_NULL, _LOOP):
        # The address family of the writer's system, in its byte order; its version nibble tells more surely.
        return _link(101, octets[4:])
    return 0, b""


def _tagged(octets: bytes, position: int) -> tuple[int, bytes]:
    (kind,) = struct.unpack_from(">H", octets, position)
    while kind in _VLAN:
        position += 4
        (kind,) = struct.unpack_from(">H", octets, position)
    return kind, octets[position + 2 :]


def _network(kind: int, octets: bytes) -> list[Segment] | list[Chunk]:
    if kind == _IPV4 and octets[0] >> 4 == 4:
        return _ipv4(octets)
    if kind == _IPV6 and octets[0] >> 4 == 6:
        return _ipv6(octets)
    return []


def _ipv4(octets: bytes) -> list[Segment] | list[Chunk]:
    header = (octets[0] & 0x0F) * 4
    length, _, fragment = struct.unpack_from(">HHH", octets, 2)
    protocol = octets[9]
    if header < 20 or protocol not in (_PROTOCOL_TCP, _PROTOCOL_SCTP):
        return []
    if fragment & 0x3FFF:
        raise FragmentError
    # 0 where the network card cuts the segments: then the packet has the length it has.
    body = octets[header : length or None]
    return _transport(protocol, body, octets[12:16], octets[16:20])


def _ipv6(octets: bytes) -> list[Segment] | list[Chunk]:
    length, following = struct.unpack_from(">HB", octets, 4)
    body = octets[40 : 40 + length if length else None]
    while following in _EXTENSIONS or following == _AUTHENTICATION:
        size = (body[1] + 2) * 4 if following == _AUTHENTICATION else (body[1] + 1) * 8
        following, body = body[0], body[size:]
    if following == _FRAGMENT:
        raise FragmentError
    return _transport(following, body, octets[8:24], octets[24:40])


def _transport(protocol: int, octets: bytes, source: bytes, destination: bytes) -> list[Segment] | list[Chunk]:
    if protocol not in (_PROTOCOL_TCP, _PROTOCOL_SCTP):
        return []
    ports = struct.unpack_from(">HH", octets)
    sender, receiver = Endpoint(_address(source), ports[0]), Endpoint(_address(destination), ports[1])
    if protocol == _PROTOCOL_SCTP:
        return _chunks(sender, receiver, octets)
    (sequence,) = struct.unpack_from(">I", octets, 4)
    header = (octets[12] >> 4) * 4
    opens = octets[13] & _SYN != 0
    if header < 20:
        return []
    first = (sequence + opens) & 0xFFFFFFFF  # a SYN takes a sequence number of its own
    return [Segment(sender, receiver, first, opens, octets[header:])]


def _chunks(sender: Endpoint, receiver: Endpoint, octets: bytes) -> list[Chunk]:
    chunks: list[Chunk] = []
    position = 12
    while position + 4 <= len(octets):
        kind, flags, length = struct.unpack_from(">BBH", octets, position)
        if length < 4:
            break
        if kind == _SCTP_DATA and length > 16:
            (number,) = struct.unpack_from(">I", octets, position + 4)
            payload = octets[position + 16 : position + length]
            begins, ends = flags & _FIRST_FRAGMENT != 0, flags & _LAST_FRAGMENT != 0
            chunks.append(Chunk(sender, receiver, number, begins, ends, payload))
        position += length + (-length & 3)
    return chunks


@lru_cache(maxsize=4096)
def _address(octets: bytes) -> str:
    if len(octets) not in (4, 16):
        raise IndexError
    return str(ipaddress.ip_address(octets))
