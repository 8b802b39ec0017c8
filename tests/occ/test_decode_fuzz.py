"""Whatever octets come, ``occ decode`` shows them or says in one sentence that there is nothing to show."""

import json
import random
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from occ.cli_decode import _lines
from occ.decode.document import message_document
from occ.decode.messages import decoded
from occ.decode.source import InputError, read, read_text
from occ.decode.streams import PORTS, Found, Streams
from tests.occ.decode_frames import ETHERNET, conversation, framed, pcap, pcapng
from tests.protocols.messages import call_update, gateway_update, group, message_event, required

SEEDS = [gateway_update(), call_update(), message_event(), required(), required(group(430)), required(flags=0x40)]
FRAMES = [framed(ETHERNET, packet) for packet in conversation([(True, SEEDS[0]), (False, SEEDS[1]), (True, SEEDS[2])])]
FILES = [pcap(FRAMES, ETHERNET), pcapng(FRAMES, ETHERNET), b"".join(SEEDS), SEEDS[0].hex().encode()]


def show(streams: Streams) -> None:
    """All that the command does with messages, but for writing."""
    for message in decoded(streams):
        for line in _lines(message):
            assert "".join(text for text, _ in line).isprintable()
        json.dumps(message_document(message), allow_nan=False)


def show_file(octets: bytes) -> None:
    show_what_is_read(lambda: read(octets, PORTS))


def show_what_is_read(reading: Callable[[], Streams]) -> None:
    sentence = ""
    try:
        show(reading())
    except InputError as error:
        sentence = str(error)
    assert "\n" not in sentence


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=400))
@example(b"\x01" + bytes(30))
def test_any_octets_as_a_message(octets: bytes) -> None:
    show(Streams([Found(octets.ljust(20, b"\x00"))]))
    show(Streams([Found(b"\x01\x00\x00\x14" + octets.ljust(16, b"\x00"))]))


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=600))
def test_any_octets_as_a_file(octets: bytes) -> None:
    show_file(octets)
    show_file(b"\x01" + octets)
    for magic in (b"\xa1\xb2\xc3\xd4", b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1"):
        show_file(magic + octets)


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=300) | st.text("0123456789abcdefABCDEFx:\n\t *|{},\\-", max_size=300))
def test_any_text(text: str) -> None:
    show_what_is_read(lambda: read_text(text, PORTS))


def _changed(octets: bytes, source: random.Random) -> bytes:
    buffer = bytearray(octets)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(buffer))
        kind = source.randrange(4)
        if kind == 0:
            buffer[at] = source.randrange(256)
        elif kind == 1:
            buffer[at] ^= 1 << source.randrange(8)
        elif kind == 2:
            del buffer[at : at + source.randint(1, 8)]
        else:
            buffer[at:at] = source.randbytes(source.randint(1, 8))
        if not buffer:
            break
    return bytes(buffer)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 1 << 40))
def test_damaged_messages(octets: bytes, seed: int) -> None:
    damaged = _changed(octets, random.Random(seed))
    show(Streams([Found(damaged.ljust(20, b"\x00")), Found(octets)]))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILES), st.integers(0, 1 << 40))
def test_damaged_files(octets: bytes, seed: int) -> None:
    show_file(_changed(octets, random.Random(seed)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(SEEDS), max_size=5), st.integers(0, 1 << 40))
def test_damaged_packets_of_several_connections(messages: list[bytes], seed: int) -> None:
    source = random.Random(seed)
    frames = [
        framed(ETHERNET, packet)
        for port in (1, 2)
        for packet in conversation([(source.random() < 0.5, each) for each in messages], ("10.0.0.1", port))
    ]
    frames = [_changed(frame, source) if source.random() < 0.3 else frame for frame in frames]
    source.shuffle(frames)
    show_file(pcap(frames, ETHERNET))
