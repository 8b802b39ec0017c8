"""What ``occ decode`` was given, to the messages in it: hexadecimal text in any of the usual forms, raw octets, a
capture file.
"""

from typing import Final

from occ.decode import capture
from occ.decode.capture import Packet
from occ.decode.hextext import HexError, packets_in
from occ.decode.names import counted
from occ.decode.packets import FragmentError, carried
from occ.decode.streams import Found, Streams, cut, messages_of, next_plausible, plausible
from protocols.diameter.validation import HEADER_LENGTH

LARGEST_INPUT: Final = 1 << 30
"""Octets that are read at most: all of it is held in memory."""

_GZIP: Final = b"\x1f\x8b"
_TEXT: Final = b"\t\n\r\x0b\x0c" + bytes(range(0x20, 0x7F))
_LINK_TYPES: Final = (1, 101, 113, 276, 0)
"""Link layers that a frame given as text may have: Ethernet, raw IP, Linux "any" (two kinds), loopback."""
_HEADERS_AROUND: Final = 200
"""Octets of other headers that a message in a packet of unknown kind may have before it."""


class InputError(ValueError):
    """There is no message in what was given; the message is one sentence."""


def read(octets: bytes, ports: frozenset[int]) -> Streams:
    """The messages in the octets of a file. Raises InputError."""
    if not octets:
        raise InputError("it is empty")
    if capture.is_capture(octets):
        return _of_capture(octets, ports)
    if octets[:2] == _GZIP:
        raise InputError("it is compressed; unpack it first")
    if not plausible(octets, 0) and not octets.translate(None, _TEXT):
        return read_text(octets.decode("ascii"), ports)
    found = Streams()
    _take(octets, octets[0] == 1, found)
    if not any(plausible(one.octets, 0) for one in found.messages):
        raise InputError("it holds neither a capture (pcap or pcapng) nor hexadecimal digits nor Diameter messages")
    return found


def read_text(text: str, ports: frozenset[int]) -> Streams:
    """The messages in hexadecimal text: of messages, or of packets that carry them. Raises InputError."""
    try:
        readings = packets_in(text)
    except HexError as error:
        raise InputError(str(error)) from None
    for reading in readings:
        packets = [Packet(number, None, _link_type(each), each) for number, each in enumerate(reading, 1)]
        if not plausible(reading[0], 0) and all(packet.link_type >= 0 for packet in packets):
            found = messages_of(packets, ports, [])
            if found.messages:
                return found
    return _bare(readings[0])


def _bare(packets: list[bytes]) -> Streams:
    """Messages that stand for themselves, or have other headers before them that are not looked into."""
    found = Streams()
    for octets in packets:
        if len(octets) < HEADER_LENGTH:
            found.notes.append(
                f"{counted(len(octets), 'octet')} cannot be a message: its header alone has {HEADER_LENGTH}"
            )
            continue
        start = next_plausible(octets, 0)
        if start > min(_HEADERS_AROUND, len(octets) - HEADER_LENGTH):
            start = 0
        if start:
            found.notes.append(f"left out before the first message: {counted(start, 'octet')}")
        _take(octets[start:], True, found)
    if not found.messages:
        raise InputError(found.notes[0])
    return found


def _take(octets: bytes, in_step: bool, found: Streams) -> None:
    """Cut octets into messages."""
    end = 0
    for piece in cut(octets, in_step=in_step, complete=False):
        end = piece.stop
        message = octets[piece.start : piece.stop]
        found.messages.append(Found(message, missing=piece.missing, skipped=piece.skipped))
    if end < len(octets):
        found.notes.append(f"left over at the end: {counted(len(octets) - end, 'octet')}")


def _of_capture(octets: bytes, ports: frozenset[int]) -> Streams:
    notes: list[str] = []
    found = messages_of(capture.packets(octets, notes), ports, notes)
    if not found.messages:
        known = ", ".join(map(str, sorted(ports)))
        sentence = f"the capture holds no Diameter message on the ports {known} or elsewhere; --port names another"
        raise InputError("; ".join((sentence, *notes)))
    return found


def _link_type(octets: bytes) -> int:
    """The link layer of a packet in which TCP or SCTP can be found, -1 if there is none."""
    for link_type in _LINK_TYPES:
        try:
            if carried(link_type, octets):
                return link_type
        except FragmentError:
            return link_type
    return -1
