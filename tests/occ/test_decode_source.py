"""Hexadecimal text in the forms that tools write, raw octets, and what is none of these."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.decode.source import InputError, read, read_text
from occ.decode.streams import PORTS
from tests.occ.decode_frames import CLIENT, ETHERNET, SERVER, conversation, framed, pcap, tcp
from tests.protocols.messages import call_update, gateway_update, message_event, required

ONE, TWO, THREE = gateway_update(), call_update(), message_event()


def octets_of(text: str) -> list[bytes]:
    return [message.octets for message in read_text(text, PORTS).messages]


def dump(octets: bytes, offset: str = "{:04x}  ", group: int = 1, text: str = "  {}", width: int = 16) -> str:
    """A dump with an offset and a text column."""
    lines = []
    for at in range(0, len(octets), width):
        line = octets[at : at + width]
        columns = " ".join(line[left : left + group].hex() for left in range(0, len(line), group))
        full = (width // group) * (2 * group + 1) - 1
        letters = "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in line)
        lines.append(offset.format(at) + columns.ljust(full) + text.format(letters))
    return "\n".join(lines) + "\n"


PLAIN: dict[str, Callable[[bytes], str]] = {
    "digits": bytes.hex,
    "capitals": lambda octets: octets.hex().upper(),
    "spaces": lambda octets: octets.hex(" "),
    "words": lambda octets: octets.hex(" ", 4),
    "colons": lambda octets: octets.hex(":"),
    "lines": lambda octets: "\n".join(octets.hex()[at : at + 64] for at in range(0, 2 * len(octets), 64)) + "\n",
    "lines of words": lambda octets: "\r\n".join(octets[at : at + 16].hex(" ", 4) for at in range(0, len(octets), 16)),
    "prefix": lambda octets: "0x" + octets.hex(),
    "prefixes": lambda octets: ", ".join(f"0x{octet:02X}" for octet in octets),
    "escapes": lambda octets: '"' + "".join(f"\\x{octet:02x}" for octet in octets) + '"',
    "C array": lambda octets: (
        "unsigned char peer0_0[] = { /* Packet 1 */\n"
        + ", ".join(f"0x{octet:02x}" for octet in octets)
        + " };\nunsigned int len = 324;\n"
    ),
}

DUMPS: dict[str, Callable[[bytes], str]] = {
    "tshark -x": lambda octets: dump(octets, text="   {}"),
    "Wireshark": lambda octets: dump(octets, "{:04x}   ", text=""),
    "text2pcap": lambda octets: dump(octets, "{:06x} ", text=" {}"),
    "xxd": lambda octets: dump(octets, "{:08x}: ", group=2),
    "xxd -c 32": lambda octets: dump(octets, "{:08x}: ", group=2, width=32),
    "hexdump -C": lambda octets: dump(octets, "{:08x}  ", text="  |{}|") + f"{len(octets):08x}\n",
    "od -A x -t x1z": lambda octets: dump(octets, "{:06x} ", text="  >{}<"),
    "tcpdump -X": lambda octets: (
        "IP 10.0.0.1.40000 > 10.0.0.2.3868: tcp 324\n" + dump(octets, "\t0x{:04x}:  ", group=2)
    ),
    "tcpdump -x": lambda octets: dump(octets, "\t0x{:04x}:  ", group=2, text=""),
}


@pytest.mark.parametrize("form", [*PLAIN, *DUMPS])
def test_every_form_of_text(form: str) -> None:
    written = {**PLAIN, **DUMPS}[form]
    assert octets_of(written(ONE)) == [ONE]


@pytest.mark.parametrize("form", PLAIN)
def test_several_messages_one_after_the_other(form: str) -> None:
    assert octets_of(PLAIN[form](ONE + TWO + THREE)) == [ONE, TWO, THREE]


@pytest.mark.parametrize("form", DUMPS)
def test_several_dumps_one_after_the_other(form: str) -> None:
    assert octets_of("\n".join(DUMPS[form](message) for message in (ONE, TWO, THREE))) == [ONE, TWO, THREE]


@pytest.mark.parametrize("form", DUMPS)
def test_dumps_of_whole_packets(form: str) -> None:
    """``tshark -x`` prints all of a frame, and reassembled messages once more."""
    stream = ONE + TWO
    packets = [tcp(CLIENT, SERVER, 1 + at, stream[at : at + 300]) for at in range(0, len(stream), 300)]
    text = "".join(f"Frame {number}\n" + DUMPS[form](framed(ETHERNET, packet)) for number, packet in enumerate(packets))
    assert octets_of(text) == [ONE, TWO]
    again = f"Reassembled TCP ({len(ONE)} bytes):\n" + DUMPS["tshark -x"](ONE)
    assert octets_of(f"{text}{again}\n{DUMPS[form](framed(ETHERNET, packets[0]))}") == [ONE, TWO]


def test_a_text_column_of_digits_is_not_taken_for_octets() -> None:
    """Every letter of it is a hexadecimal digit, as the octets before it are."""
    digits = required(b"\x00\x00\x00\x01\x40\x00\x00\x2a" + b"abcdef0123456789" * 2 + b"ab\x00\x00")
    for form in DUMPS.values():
        assert octets_of(form(digits)) == [digits]


def test_hexdump_leaves_repeated_lines_out() -> None:
    long = required(b"\x00\x00\x00\x01\x40\x00\x00\x88" + bytes(128))
    lines = dump(long, "{:08x}  ", text="  |{}|").splitlines()
    kept, previous = [], ""
    for line in lines:
        if line[10:] != previous:
            kept.append(line)
        elif kept[-1] != "*":
            kept.append("*")
        previous = line[10:]
    assert "*" in kept
    assert octets_of("\n".join(kept)) == [long]


def test_a_hex_stream_of_a_whole_packet() -> None:
    packet = framed(ETHERNET, tcp(CLIENT, SERVER, 1, ONE))
    assert octets_of(packet.hex()) == [ONE]
    assert octets_of(tcp(CLIENT, SERVER, 1, ONE).hex(":")) == [ONE]
    (message,) = read_text(packet.hex(), PORTS).messages
    assert message.flow is not None
    assert (message.flow.source, message.flow.destination) == (CLIENT, SERVER)


def test_hex_streams_of_packets_line_by_line() -> None:
    """``tshark -T fields``, or Wireshark's hex stream of one packet after the other."""
    packets = [framed(ETHERNET, packet) for packet in conversation([(True, ONE), (False, TWO), (True, THREE)])]
    assert octets_of("\n".join(packet.hex() for packet in packets)) == [ONE, TWO, THREE]


def test_headers_of_another_kind_before_the_message_are_left_out() -> None:
    found = read_text((b"\x33" * 42 + ONE).hex(), PORTS)
    assert [message.octets for message in found.messages] == [ONE]
    assert found.notes == ["left out before the first message: 42 octets"]


def test_octets_after_the_last_message_are_told() -> None:
    assert read_text((ONE + b"\x01\x02").hex(), PORTS).notes == ["left over at the end: 2 octets"]


def test_a_message_that_is_cut_short_says_how_much_is_missing() -> None:
    (message,) = read_text(ONE[:-7].hex(), PORTS).messages
    assert (message.octets, message.missing) == (ONE[:-7], 7)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it holds no hexadecimal digits"),
        (" \n", "it holds no hexadecimal digits"),
        ("01000", "it has an odd number of hexadecimal digits, 5"),
        ("0100xyz", "'x' is no hexadecimal digit"),
        ("01000014", "4 octets cannot be a message: its header alone has 20"),
        ("0000  01 00\n0010  02", "line 2: offset 0x10 follows 0x2 octets"),
    ],
)
def test_text_that_holds_no_message_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read_text(text, PORTS)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("octets", "sentence"),
    [
        (b"", "it is empty"),
        (b"\x1f\x8b\x08\x00", "it is compressed; unpack it first"),
        (
            b"\x7fELF" + bytes(100),
            "it holds neither a capture (pcap or pcapng) nor hexadecimal digits nor Diameter messages",
        ),
        (b"\x01\x02\x03", "it holds neither a capture (pcap or pcapng) nor hexadecimal digits nor Diameter messages"),
        (pcap([]), "the capture holds no Diameter message on the ports 3868, 5868 or elsewhere; --port names another"),
    ],
)
def test_a_file_without_messages_is_refused_with_a_sentence(octets: bytes, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read(octets, PORTS)
    assert str(caught.value) == sentence


def test_raw_octets_with_other_octets_around_them() -> None:
    found = read(b"\xff" * 9 + ONE + b"\xff" * 30 + TWO, PORTS)
    assert [message.octets for message in found.messages if message.octets in (ONE, TWO)] == [ONE, TWO]
    assert found.messages[0].skipped == 9


@given(st.binary(min_size=20, max_size=300), st.sampled_from(sorted(PLAIN)))
def test_any_octets_come_out_as_they_went_in(octets: bytes, form: str) -> None:
    """Whatever the octets are: what is shown are these octets, in this order."""
    found = read_text(PLAIN[form](b"\x01" + octets), PORTS)
    assert b"".join(message.octets for message in found.messages) in b"\x01" + octets


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed; apt install tshark")
def test_what_tshark_prints(tmp_path: Path) -> None:
    path = tmp_path / "three.pcap"
    packets = conversation([(True, ONE[:100]), (True, ONE[100:]), (False, TWO), (True, THREE)])
    path.write_bytes(pcap([framed(ETHERNET, packet) for packet in packets], ETHERNET))
    printed = subprocess.run(["tshark", "-n", "-r", path, "-x"], capture_output=True, text=True, timeout=60, check=True)
    assert octets_of(printed.stdout) == [ONE, TWO, THREE]
