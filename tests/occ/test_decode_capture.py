"""Messages out of capture files: every file and packet format, and streams as networks really carry them."""

import itertools
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ.decode.source import InputError, read
from occ.decode.streams import PORTS, Found, Streams
from tests.occ.decode_frames import (
    ACK,
    CLIENT,
    ETHERNET,
    IPV4,
    NULL,
    RAW,
    SERVER,
    SLL,
    SLL2,
    START_NS,
    SYN,
    conversation,
    framed,
    ip,
    pcap,
    pcapng,
    sctp,
    tcp,
)
from tests.protocols.messages import call_update, gateway_update, message_event, required

ONE, TWO, THREE = gateway_update(), call_update(), message_event()
CLIENT6, SERVER6 = ("2001:db8::1", 40_000), ("2001:db8::2", 3868)


def read_frames(frames: list[bytes]) -> Streams:
    return read(pcap(frames), PORTS)


def octets(found: Streams) -> list[bytes]:
    return [message.octets for message in found.messages]


def from_client(*messages: bytes) -> list[bytes]:
    return conversation([(True, message) for message in messages])


# -- formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_of_either_byte_order_and_resolution(order: str, nanoseconds: bool) -> None:
    found = read(pcap(from_client(ONE, TWO), order=order, nanoseconds=nanoseconds), PORTS)
    assert octets(found) == [ONE, TWO]
    assert [message.time_ns for message in found.messages] == [START_NS + 2_000_000, START_NS + 3_000_000]
    assert [message.packet for message in found.messages] == [3, 4]
    assert found.notes == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("resolution", [None, 6, 9, 3, 0x80 | 20])
def test_pcapng_of_either_byte_order_and_any_resolution(order: str, resolution: int | None) -> None:
    found = read(pcapng(from_client(ONE), order=order, resolution=resolution), PORTS)
    assert octets(found) == [ONE]
    (message,) = found.messages
    assert message.time_ns is not None
    coarse_ns = {None: 1000, 3: 1_000_000}.get(resolution, 1000)
    assert abs(message.time_ns - START_NS - 2_000_000) < coarse_ns


def test_a_packet_without_time_has_none() -> None:
    """The Simple Packet Block of pcapng."""
    frame = framed(RAW, tcp(CLIENT, SERVER, 1, ONE))
    body = struct.pack("<I", len(frame)) + frame + bytes(-len(frame) % 4)
    block = struct.pack("<II", 3, len(body) + 12) + body + struct.pack("<I", len(body) + 12)
    (message,) = read(pcapng([]) + block, PORTS).messages
    assert (message.octets, message.time_ns) == (ONE, None)


@pytest.mark.parametrize("link_type", [ETHERNET, NULL, RAW, SLL, SLL2, IPV4])
@pytest.mark.parametrize("addresses", [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_every_link_layer(link_type: int, addresses: tuple[tuple[str, int], tuple[str, int]]) -> None:
    packets = conversation([(True, ONE), (False, TWO)], *addresses)
    found = read(pcap([framed(link_type, packet) for packet in packets], link_type), PORTS)
    assert octets(found) == [ONE, TWO]
    there, back = (message.flow for message in found.messages)
    assert there is not None
    assert (there.source, there.destination) == addresses
    assert back == there.reversed()


def test_vlan_tags_and_padding_are_no_part_of_the_stream() -> None:
    frames = [framed(ETHERNET, packet, vlan=True) for packet in from_client(ONE, TWO)]
    assert octets(read(pcap(frames, ETHERNET), PORTS)) == [ONE, TWO]
    # An acknowledgement is shorter than the shortest Ethernet frame: what fills that up is no stream.
    short = [framed(ETHERNET, packet) for packet in [tcp(CLIENT, SERVER, 1, b""), tcp(CLIENT, SERVER, 1, ONE)]]
    assert octets(read(pcap(short, ETHERNET), PORTS)) == [ONE]


def test_ipv6_extension_headers() -> None:
    packet = tcp(CLIENT6, SERVER6, 1, ONE)
    hop_by_hop = bytes((6, 0)) + bytes(6)
    extended = ip(CLIENT6[0], SERVER6[0], 0, hop_by_hop + packet[40:])
    assert octets(read_frames([extended])) == [ONE]


def test_other_packets_are_passed_over() -> None:
    arp = framed(ETHERNET, ip("10.0.0.1", "10.0.0.2", 17, bytes(30)))
    rubbish = [b"", b"\x45", bytes(60), arp, framed(ETHERNET, b"\x45" + bytes(9))]
    frames = [*rubbish, *(framed(ETHERNET, packet) for packet in from_client(ONE))]
    assert octets(read(pcap(frames, ETHERNET), PORTS)) == [ONE]


def test_sctp_chunks_bundled_fragmented_repeated_and_out_of_order() -> None:
    """RFC 9260 sections 3.3.1 and 6.9: B and E bits, consecutive Transmission Sequence Numbers."""
    whole, first, middle, last = 3, 2, 0, 1
    frames = [
        sctp(CLIENT, SERVER, [(whole, 0xFFFFFFFE, ONE), (first, 0xFFFFFFFF, TWO[:100])]),
        sctp(CLIENT, SERVER, [(last, 1, TWO[200:])]),
        sctp(CLIENT, SERVER, [(middle, 0, TWO[100:200])]),
        sctp(CLIENT, SERVER, [(whole, 0xFFFFFFFE, ONE)]),
        sctp(SERVER, CLIENT, [(whole, 77, THREE)]),
        # Of this one the first part is not in the capture.
        sctp(SERVER, CLIENT, [(last, 79, TWO[200:])]),
    ]
    found = read_frames(frames)
    assert sorted(octets(found)) == sorted([ONE, TWO, THREE])
    assert {message.flow.transport for message in found.messages if message.flow} == {"SCTP"}


# -- streams -----------------------------------------------------------------------------------------------------


def segments(stream: bytes, cuts: list[int], start: int) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    return [tcp(CLIENT, SERVER, start + left, stream[left:right]) for left, right in itertools.pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 0xFFFFFFFF), st.randoms(use_true_random=False))
def test_segments_in_any_size_order_and_number(cuts: list[int], start: int, source: random.Random) -> None:
    """However a stream is cut, shuffled and repeated, across the end of sequence numbers too, it is put together."""
    packets = segments(ONE + TWO + THREE, cuts, start)
    packets += source.sample(packets, len(packets) // 2)
    # A longer repetition that covers several segments, as after a timeout.
    packets.append(tcp(CLIENT, SERVER, start + 10, (ONE + TWO)[10:700]))
    source.shuffle(packets)
    found = read_frames([tcp(CLIENT, SERVER, start - 1, b"", SYN), *packets])
    assert sorted(octets(found)) == sorted([ONE, TWO, THREE])
    assert found.notes == []
    assert not any(message.lost or message.skipped or message.missing for message in found.messages)


def test_a_message_counts_from_when_its_last_octet_came() -> None:
    late = [
        tcp(CLIENT, SERVER, 1, ONE[:50]),
        tcp(CLIENT, SERVER, 1 + 90, ONE[90:]),
        tcp(CLIENT, SERVER, 51, ONE[50:90]),
    ]
    (message,) = read_frames(late).messages
    assert (message.octets, message.packet) == (ONE, 3)


@pytest.mark.parametrize("seen", [30, len(ONE) - 30])
def test_a_capture_that_begins_within_a_message_goes_on_with_the_next(seen: int) -> None:
    stream = ONE[-seen:] + TWO + THREE
    found = read_frames([tcp(CLIENT, SERVER, 500, stream[:400]), tcp(CLIENT, SERVER, 900, stream[400:])])
    assert octets(found) == [TWO, THREE]
    assert found.messages[0].skipped == seen


def test_lost_octets_cost_the_messages_they_belong_to() -> None:
    stream = ONE + TWO + THREE
    hole = len(ONE) + 40
    found = read_frames(
        [
            tcp(CLIENT, SERVER, 9, b"", SYN),
            tcp(CLIENT, SERVER, 10, stream[:hole]),
            tcp(CLIENT, SERVER, 10 + hole + 60, stream[hole + 60 :]),
        ]
    )
    first, torn, last = found.messages
    assert (first.octets, first.missing) == (ONE, 0)
    assert (torn.octets, torn.missing) == (TWO[:40], len(TWO) - 40)
    assert (last.octets, last.lost) == (THREE, 60)
    assert last.skipped == len(TWO) - 100


def test_a_message_still_on_its_way_at_the_end_is_shown_as_far_as_it_is_there() -> None:
    found = read_frames(from_client(ONE, TWO[:-4]))
    assert [(message.octets, message.missing) for message in found.messages] == [(ONE, 0), (TWO[:-4], 4)]


def test_a_packet_cut_by_the_capture_leaves_a_hole() -> None:
    """Octets beyond the snapshot length are lost, and only they."""
    packets = from_client(ONE, TWO)
    found = read_frames([*packets[:2], packets[2][:-12], packets[3]])
    assert [(message.octets, message.missing) for message in found.messages] == [(ONE[:-12], 12), (TWO, 0)]
    assert found.messages[1].lost == 12


def test_a_message_of_another_version_or_impossible_length_is_one_message_and_the_next_another() -> None:
    other = required(version=2)
    wrong = required(length=13)
    found = read_frames(from_client(ONE, other, TWO, wrong, THREE))
    assert octets(found) == [ONE, other, TWO, wrong, THREE]


def test_connections_on_the_same_ports_in_turn_are_told_apart() -> None:
    again = [tcp(CLIENT, SERVER, 7_000_000, b"", SYN), tcp(SERVER, CLIENT, 9_000_000, b"", SYN | ACK)]
    again += [tcp(CLIENT, SERVER, 7_000_001, TWO), tcp(SERVER, CLIENT, 9_000_001, THREE)]
    found = read_frames([*from_client(ONE), *again])
    assert octets(found) == [ONE, TWO, THREE]
    first, second, third = (message.flow for message in found.messages)
    assert first is not None
    assert second is not None
    assert first.connection != second.connection
    assert third == second.reversed()


def test_a_repeated_syn_begins_nothing_new() -> None:
    syn = tcp(CLIENT, SERVER, 9, b"", SYN)
    found = read_frames([syn, syn, tcp(CLIENT, SERVER, 10, ONE), syn, tcp(CLIENT, SERVER, 10 + len(ONE), TWO)])
    assert octets(found) == [ONE, TWO]
    assert len({message.flow for message in found.messages}) == 1


def test_other_ports_are_found_by_what_they_carry_and_named_ports_whatever_they_carry() -> None:
    there, back = ("10.0.0.1", 1111), ("10.0.0.2", 2222)
    assert octets(read_frames(conversation([(True, ONE)], there, back))) == [ONE]
    odd = required(command=4_000_000)
    with pytest.raises(InputError, match="ports 3868, 5868 or elsewhere; --port names another"):
        read_frames(conversation([(True, odd)], there, back))
    assert octets(read(pcap(conversation([(True, odd + ONE)], there, back)), PORTS | {2222})) == [odd, ONE]


def test_tls_is_named() -> None:
    hello = bytes.fromhex("160301020001000001fc0303") + bytes(500)
    with pytest.raises(InputError, match="carries TLS, not plain Diameter"):
        read_frames(conversation([(True, hello)], CLIENT, ("10.0.0.2", 5868)))


def test_fragments_are_counted() -> None:
    fragment = bytearray(tcp(CLIENT, SERVER, 1, TWO))
    fragment[6:8] = b"\x20\x00"
    found = read_frames([bytes(fragment), *from_client(ONE)])
    assert octets(found) == [ONE]
    assert found.notes == ["1 IP fragment left out: fragments are not put together"]


@pytest.mark.parametrize("lost", [1, 10, 40])
@pytest.mark.parametrize("write", [pcap, pcapng])
def test_a_file_that_ends_too_early_gives_what_is_before(write: object, lost: int) -> None:
    assert callable(write)
    found = read(write(from_client(ONE, TWO))[:-lost], PORTS)
    assert octets(found) == [ONE]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("the capture ends")


def test_messages_come_in_the_order_of_the_capture_whatever_their_connection() -> None:
    one = conversation([(True, ONE), (False, TWO)], ("10.0.0.1", 1), SERVER)
    two = conversation([(True, TWO), (False, THREE)], ("10.0.0.1", 2), SERVER)
    found = read_frames([packet for pair in zip(one, two, strict=True) for packet in pair])
    assert octets(found) == [ONE, TWO, TWO, THREE]


def test_found_messages_are_what_a_file_of_their_octets_holds(tmp_path: Path) -> None:
    path = tmp_path / "messages.bin"
    path.write_bytes(ONE + TWO + THREE)
    assert read(path.read_bytes(), PORTS).messages == [Found(ONE), Found(TWO), Found(THREE)]
