"""Wireshark's dissector reads everything the server sends while all scenarios are played, and has nothing to say.

The answers to malformed requests are left out where they repeat, as they must, what is malformed or unknown in the
request: there the dissector complains of the request.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.diameter import codec
from tests.interop.capture import SERVER_PORT, write_capture
from tests.interop.conftest import SentByServer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed; apt install tshark"),
]

WARNING = 0x00600000
"""Severity of Wireshark's expert information from which on something is wrong."""

REPEATS_WHAT_IS_WRONG = (5001, 5005, 5014)
CREDIT_CONTROL = 272
COMMANDS = {257, CREDIT_CONTROL, 280, 282}
RE_AUTH_AND_ABORT = {258, 274}


NEWER = ("Unknown AVP 669 ", "Unknown AVP 665 ", "Unknown AVP 2907 ")
"""What tshark 4.0 says of AVPs younger than its dictionary: those of RFC 8506, and SN-Request-Type of TS 29.219."""


def _is_judged(message: bytes) -> bool:
    decoded = codec.decode(message)
    result = decoded.find(268)
    code = int.from_bytes(result.data, "big") if result is not None else 0
    return decoded.command in COMMANDS | RE_AUTH_AND_ABORT and code not in REPEATS_WHAT_IS_WRONG


@pytest.fixture(scope="module")
def judged(sent_by_server: list[SentByServer]) -> list[bytes]:
    """All messages of the server that are not about what a request had wrong."""
    return [message for _, message in sent_by_server if _is_judged(message)]


def remarks(messages: list[bytes], directory: Path) -> list[str]:
    """What tshark has to say, "frame: remark" each. Fails if it did not read every message as Diameter."""
    capture = directory / "server.pcap"
    packets = write_capture(capture, messages)
    fields = ["diameter.cmd.code", "_ws.malformed", "_ws.expert.severity", "_ws.expert.message"]
    command = ["tshark", "-n", "-r", str(capture), "-d", f"tcp.port=={SERVER_PORT},diameter"]
    command += ["-T", "fields", "-E", "separator=|", "-E", "aggregator=;"]
    command += [word for field in fields for word in ("-e", field)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == packets
    return list(_remarks(messages, lines))


def _remarks(messages: list[bytes], lines: list[str]) -> Iterator[str]:
    for frame, (message, line) in enumerate(zip(messages, lines, strict=True), 1):
        command, malformed, severities, texts = line.split("|", 3)
        if command != str(int.from_bytes(message[5:8], "big")):
            yield f"{frame}: read as command {command or 'nothing at all'}"
        if malformed:
            yield f"{frame}: malformed"
        if any(int(severity) >= WARNING for severity in severities.split(";") if severity):
            said = [text for text in texts.split(";") if not text.startswith(NEWER)]
            if said:
                yield f"{frame}: {'; '.join(said)}"


def test_dissector_has_nothing_to_say(judged: list[bytes], tmp_path: Path) -> None:
    """Rows 2, 5, 6, 7, 8, 24, 26, 28: no malformed, unknown or doubtful octet."""
    assert remarks(judged, tmp_path) == []
    assert {codec.decode(message).command for message in judged} >= COMMANDS
    assert len([message for message in judged if message[5:8] == CREDIT_CONTROL.to_bytes(3, "big")]) > 100


@pytest.mark.parametrize(
    ("offset", "value", "remark"),
    [
        (2, 0x7F, "Unknown AVP"),  # of the AVP's code
        (7, 0xFF, "malformed"),  # of its length
        (7, 0x0B, "Length (3)"),  # a length too short for its type
    ],
)
def test_a_planted_error_is_seen(judged: list[bytes], tmp_path: Path, offset: int, value: int, remark: str) -> None:
    """The check above can fail: one wrong octet in one AVP of one message is enough."""
    good = next(message for message in judged if message[5:8] == CREDIT_CONTROL.to_bytes(3, "big"))
    at = good.index(bytes.fromhex("0000010c4000000c")) + offset  # Result-Code
    broken = good[:at] + bytes((value,)) + good[at + 1 :]
    found = remarks([good, broken, good], tmp_path)
    assert found
    assert all(each.startswith("2: ") for each in found)
    assert any(remark in each for each in found), found
