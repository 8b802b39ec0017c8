"""The command ``occ decode`` as a user meets it."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from occ.cli import app
from occ.cli_decode import LONGEST_VALUE
from tests.occ.decode_frames import CLIENT, SERVER, conversation, pcap
from tests.occ.decode_messages import GRANTED, OPENING, reply
from tests.protocols.messages import VENDOR_3GPP, gateway_update, group, message, packed, required, u32

GOOD = OPENING
BAD = required(u32(436, 9))
REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str, given: bytes | None = None) -> Result:
    result = CliRunner().invoke(app, ["decode", *arguments], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def text(*arguments: str, given: bytes | None = None) -> str:
    result = run(*arguments, given=given)
    assert result.exit_code == 0, result.output
    return result.stdout


def documents(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text(*arguments, "--json").splitlines()]


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "session.pcap"
    path.write_bytes(pcap(conversation([(True, OPENING), (False, reply(OPENING, GRANTED))])))
    return str(path)


# -- text --------------------------------------------------------------------------------------------------------


def test_a_message_as_text() -> None:
    assert (
        text(GOOD.hex())
        == """\
Message 1
Credit-Control-Request (272)  REQ PXY  application 4 (Diameter Credit Control)
hop-by-hop 0x01020304  end-to-end 0x0a0b0c0d  276 octets
  Session-Id (263) M: gw.example.net;1;2
  Origin-Host (264) M: gw.example.net
  Origin-Realm (296) M: example.net
  Destination-Realm (283) M: ocs.example.net
  Auth-Application-Id (258) M: Diameter Credit Control (4)
  Service-Context-Id (461) M: 32251@3gpp.org
  CC-Request-Type (416) M: INITIAL_REQUEST (1)
  CC-Request-Number (415) M: 0
  Subscription-Id (443) M
    Subscription-Id-Type (450) M: END_USER_IMSI (1)
    Subscription-Id-Data (444) M: 262010000000001
  Multiple-Services-Indicator (455) M: MULTIPLE_SERVICES_SUPPORTED (1)
  Multiple-Services-Credit-Control (456) M
    Requested-Service-Unit (437) M
      CC-Total-Octets (421) M: 1048576
    Rating-Group (432) M: 10
No remarks.
"""
    )


def test_a_capture_as_text(capture: str) -> None:
    blocks = text(capture).split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "Message 1  2027-01-15 08:00:00.125456Z  10.0.0.1:40000 -> 10.0.0.2:3868  TCP, packet 3",
        "Message 2  2027-01-15 08:00:00.126456Z  10.0.0.2:3868 -> 10.0.0.1:40000  TCP, packet 4",
    ]
    assert "answered by message 2 after 1.000 ms" in blocks[0]
    assert "answers message 1 after 1.000 ms" in blocks[1]
    assert "Credit-Control-Answer (272)  PXY  application 4" in blocks[1]


def test_remarks_stand_after_the_tree_the_gravest_first() -> None:
    shown = text(required(u32(436, 9, flags=0), packed(9999, b"", flags=0)).hex())
    _, remarks = shown.split("Remarks:\n")
    assert [line.split()[0] for line in remarks.splitlines()] == ["error", "tolerated", "tolerated", "note"]
    assert "the server answers 5004 (DIAMETER_INVALID_AVP_VALUE), Failed-AVP Requested-Action" in remarks
    assert remarks.splitlines()[0].endswith("[row 14, RFC 6733 section 7.1.5]")


def test_values_as_people_say_them() -> None:
    money = group(
        413, group(445, packed(447, (150).to_bytes(8, "big")), packed(429, b"\xff\xff\xff\xfe")), u32(425, 978)
    )
    shown = text(
        required(
            u32(55, 1_700_000_000 + 2_208_988_800),
            group(437, money),
            packed(8, b"\x0a\x2d\x00\x02"),
            packed(97, b"\x00\x40\x20\x01\x0d\xb8" + bytes(4)),
            packed(22, bytes.fromhex("8262f210"), vendor=VENDOR_3GPP),
            packed(460, b"00-00-00"),
            packed(1227, b"\x00\x02" + bytes(15) + b"\x01", vendor=VENDOR_3GPP),
            u32(299, 0),
            u32(425, 4711),
            packed(9999, b"", flags=0),
            group(443, u32(450, 77), packed(444, b"\x1b[31m")),
            packed(502, b"\x7f\x80\x00\x00", flags=0),
        ).hex()
    )
    for line in (
        "Event-Timestamp (55) M: 2023-11-14 22:13:20Z",
        "CC-Money (413) M: 1.50 EUR",
        "Unit-Value (445) M: 1.50",
        "Value-Digits (447) M: 150",
        "Currency-Code (425) M: EUR (978)",
        "Framed-IP-Address (8) M: 0x0a2d0002 (10.45.0.2)",
        "Framed-IPv6-Prefix (97) M: 0x004020010db800000000 (2001:db8::/64)",
        "3GPP-User-Location-Info (22, 3GPP) VM: 0x8262f210",
        'User-Equipment-Info-Value (460) M: 0x30302d30302d3030 "00-00-00"',
        "PDP-Address (1227, 3GPP) VM: ::1",
        "Inband-Security-Id (299) M: NO_INBAND_SECURITY (0)",
        "Currency-Code (425) M: 4711",
        "unknown AVP (9999): empty",
        "Subscription-Id-Type (450) M: 77",
        r"Subscription-Id-Data (444) M: \x1b[31m",
        "Bandwidth (502): inf",
    ):
        assert re.search(rf"^ +{re.escape(line)}$", shown, re.MULTILINE), line


def test_nothing_a_terminal_would_obey_comes_out() -> None:
    hostile = packed(263, b"\x1b]0;x\x07\n\r;1") + packed(281, b"\xe2\x80\xae", flags=0) + packed(9999, b"\x1b")
    shown = text(message([hostile, packed(282, b"\x1b[A"), packed(282, b"\x1b[A")]).hex())
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_octets_that_are_no_avp_are_shown_as_they_are() -> None:
    shown = text(required(group(456, u32(432, 1), packed(439, b"\x01", length=3))).hex())
    assert "    Rating-Group (432) M: 1\n    unreadable: 0x000001b74000000301000000\n" in shown


def test_long_values_are_cut_in_text_and_whole_in_json() -> None:
    long = required(packed(33, b"\x80" * 5000))
    shown = text(long.hex())
    assert max(map(len, shown.splitlines())) < LONGEST_VALUE + 100
    assert "... (5000 octets)" in shown
    (document,) = documents(long.hex())
    assert document["avps"][-1]["value"] == "80" * 5000


def test_flags_in_words() -> None:
    assert "Credit-Control-Answer (272)  PXY ERR T r  application" in text(message([], flags=0x75).hex())
    assert "Device-Watchdog-Answer (280)  no flags  " in text(message([], flags=0, command=280, application=0).hex())
    assert "Command-999-Request (999)" in text(message([], command=999).hex())


# -- JSON --------------------------------------------------------------------------------------------------------


def test_json_lines(capture: str) -> None:
    asked, told = documents(capture)
    assert asked["message"] == 1
    assert asked["time"] == "2027-01-15T08:00:00.125456Z"
    assert asked["source"] == {"address": CLIENT[0], "port": CLIENT[1]}
    assert asked["destination"] == {"address": SERVER[0], "port": SERVER[1]}
    assert (asked["transport"], asked["packet"]) == ("TCP", 3)
    assert asked["command"] == {"name": "Credit-Control-Request", "code": 272}
    assert asked["flags"] == ["REQ", "PXY"]
    assert asked["application"] == {"name": "Diameter Credit Control", "id": 4}
    assert (asked["hop_by_hop"], asked["end_to_end"]) == (0x01020304, 0x0A0B0C0D)
    assert asked["answered_by"] == {"message": 2, "microseconds": 1000}
    assert told["answers"] == {"message": 1, "microseconds": 1000}
    assert (asked["error"], asked["remarks"]) == (None, [])
    assert asked["avps"][0] == {
        "name": "Session-Id",
        "code": 263,
        "vendor": 0,
        "flags": "M",
        "value": "gw.example.net;1;2",
    }
    assert asked["avps"][6]["value"] == 1
    assert asked["avps"][6]["text"] == "INITIAL_REQUEST (1)"
    assert asked["avps"][8]["members"][0]["name"] == "Subscription-Id-Type"


def test_json_tells_the_error_and_the_remarks() -> None:
    (document,) = documents(BAD.hex())
    assert document["error"] == {
        "result_code": 5004,
        "name": "DIAMETER_INVALID_AVP_VALUE",
        "text": "Requested-Action must be one of [0, 1, 2, 3], not 9",
        "failed_avp": "Requested-Action",
        "failed_avp_octets": u32(436, 9).hex(),
    }
    assert document["remarks"][0]["kind"] == "error"
    assert (document["remarks"][0]["row"], document["remarks"][0]["clause"]) == (14, "RFC 6733 section 7.1.5")


# -- options and exit codes --------------------------------------------------------------------------------------


def test_only_remarks() -> None:
    both = (GOOD + BAD).hex()
    assert [document["message"] for document in documents(both, "--only-remarks")] == [2]
    shown = text(both, "--only-remarks")
    assert shown.startswith("Message 2\n")
    assert "Message 1" not in shown
    assert text(GOOD.hex(), "--only-remarks") == "No remarks on 1 message.\n"
    assert documents(GOOD.hex(), "--only-remarks") == []


def test_strict() -> None:
    note = message([packed(9999, b"", flags=0)], flags=0x80, command=280, application=0)
    note = note[:3] + bytes((len(note) + 44,)) + note[4:] + packed(264, b"gw.example.net") + packed(296, b"example.net")
    assert run(GOOD.hex(), "--strict").exit_code == 0
    assert "note" in run(note.hex(), "--strict").stdout
    assert run(note.hex(), "--strict").exit_code == 0
    for each in (BAD, required(u32(436, 0, flags=0))):
        assert run(each.hex()).exit_code == 0
        result = run(each.hex(), "--strict")
        assert result.exit_code == 3
        assert "Remarks:" in result.stdout


def test_port(tmp_path: Path) -> None:
    path = tmp_path / "odd.pcap"
    odd = required(command=4_000_000)
    path.write_bytes(pcap(conversation([(True, odd)], ("10.0.0.1", 1), ("10.0.0.2", 3333))))
    assert run(str(path)).exit_code == 1
    assert "Command-4000000-Request" in text(str(path), "--port", "3333")


def test_digits_may_be_several_arguments() -> None:
    assert text(*GOOD.hex(" ").split()) == text(GOOD.hex())


@pytest.mark.parametrize("content", [GOOD, GOOD.hex().encode(), pcap(conversation([(True, GOOD)]))])
def test_standard_input_takes_what_a_file_may_hold(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)
    assert text("-", given=content) == text(str(path))
    assert "Credit-Control-Request (272)" in text(str(path))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["nothing.pcap"],
            1,
            "'nothing.pcap' is neither a file nor the hexadecimal digits of a message: 'n' is no hexadecimal digit",
        ),
        (
            ["0" * 60 + "g"],
            1,
            f"'{'0' * 40}...' is neither a file nor the hexadecimal digits of a message: 'g' is no hexadecimal digit",
        ),
        ([""], 1, "'' is neither a file nor the hexadecimal digits of a message: it holds no hexadecimal digits"),
        (["."], 1, ". is a directory; name a file in it"),
        (["README.md", "README.md"], 2, "only one file can be read at a time"),
        (["-"], 1, "nothing can be read from standard input: it is empty"),
        (["LICENSE"], 1, "nothing can be read from LICENSE: 'p' is no hexadecimal digit"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    arguments: list[str], code: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    result = run(*arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == f"occ: {sentence}\n"


def test_notes_go_to_standard_error() -> None:
    result = run((GOOD + b"\x01\x02").hex())
    assert result.exit_code == 0
    assert result.stderr == "occ: left over at the end: 2 octets\n"


def test_very_long_digits_are_no_file_name() -> None:
    assert "Message 40\n" in text((GOOD * 40).hex())


def test_a_terminal_gets_the_same_text_in_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    coloured = text(gateway_update().hex())
    assert "\x1b[" in coloured
    monkeypatch.delenv("FORCE_COLOR")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text(gateway_update().hex())


def test_letters_that_the_terminal_does_not_have() -> None:
    octets = message([packed(1, "Jürgen".encode())]).hex()
    command = [sys.executable, "-m", "occ", "decode", octets]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, timeout=60, check=True)
    assert rb"User-Name (1) M: J\xfcrgen" in shown.stdout


def test_a_reader_that_goes_away_is_no_error_worth_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(GOOD * 2000)
    command = [sys.executable, "-m", "occ", "decode", str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        assert process.stdout.readline() == b"Message 1\n"
        process.stdout.close()
        assert process.stderr is not None
        complaint = process.stderr.read().decode()
        process.wait(timeout=30)
    assert "Traceback" not in complaint
