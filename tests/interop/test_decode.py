"""``occ decode`` and Wireshark's dissector read one capture in the same way, and of what the server sends in all
scenarios, requests included, ``occ decode`` has nothing bad to say.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from occ.decode.messages import decoded
from occ.decode.source import read
from occ.decode.streams import PORTS, Found, Streams
from occ.decode.tree import Branch, DecodedMessage, Kind
from tests.interop.capture import SERVER_PORT, write_capture
from tests.interop.conftest import SentByServer
from tests.protocols.messages import call_update, gateway_update, message_event

pytestmark = pytest.mark.interop

NEEDS_TSHARK = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed; apt install tshark")

UNKNOWN_TO_WIRESHARK = "Unknown"
NEW_TO_WIRESHARK = range(653, 670)
"""AVPs that are new with RFC 8506: older versions of Wireshark do not have them."""


class ReadAvp(NamedTuple):
    """One AVP as it was read; the order is that of the octets, a group before its members."""

    code: int
    name: str
    length: int


def read_by_tshark(capture: Path) -> list[list[ReadAvp]]:
    """The AVPs of each message of a capture."""
    command = ["tshark", "-n", "-r", str(capture), "-d", f"tcp.port=={SERVER_PORT},diameter", "-T", "pdml"]
    result = subprocess.run(command, capture_output=True, timeout=120, check=True)
    protocols = ElementTree.fromstring(result.stdout).iter("proto")
    return [list(_avps(protocol)) for protocol in protocols if protocol.get("name") == "diameter"]


def _avps(protocol: ElementTree.Element) -> Iterator[ReadAvp]:
    code, name = 0, ""
    for each in protocol.iter("field"):
        if each.get("name") == "diameter.avp.code":
            code = int(each.get("show") or 0)
            name = (each.get("showname") or "").removeprefix(f"AVP Code: {code} ")
        elif each.get("name") == "diameter.avp.len":
            yield ReadAvp(code, name, int(each.get("show") or 0))


def read_here(branch: Branch, seen: Iterator[ReadAvp]) -> Iterator[tuple[ReadAvp, ReadAvp]]:
    """Each AVP as it is read here and by Wireshark, which does not look into groups that it does not know."""
    for node in branch.members:
        other = next(seen)
        yield ReadAvp(node.code, node.name, len(node.octets)), other
        if other.name != UNKNOWN_TO_WIRESHARK:
            yield from read_here(node, seen)


def _letters(name: str) -> str:
    """A name but for hyphens and capitals, and for the vendor, which Wireshark puts before some."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("3gpp")


@NEEDS_TSHARK
def test_names_lengths_and_order_are_those_of_wireshark(sent_by_server: list[SentByServer], tmp_path: Path) -> None:
    path = tmp_path / "both.pcap"
    messages = [gateway_update(), call_update(), message_event(), *(one.message for one in sent_by_server)]
    write_capture(path, messages)
    ours = decoded(read(path.read_bytes(), PORTS))
    theirs = read_by_tshark(path)
    assert [shown.found.octets for shown in ours] == messages
    assert len(theirs) == len(messages)
    known: set[tuple[ReadAvp, str]] = set()
    unknown: set[tuple[ReadAvp, str]] = set()
    for shown, seen in zip(ours, theirs, strict=True):
        rest = iter(seen)
        for here, there in read_here(shown, rest):
            assert (here.code, here.length) == (there.code, there.length), shown.name
            (unknown if there.name == UNKNOWN_TO_WIRESHARK else known).add((here, there.name))
        assert list(rest) == []
    assert len({here.name for here, _ in known}) > 60
    assert {(here.name, name) for here, name in known if _letters(here.name) != _letters(name)} == set()
    assert {here.name for here, _ in unknown if here.code not in NEW_TO_WIRESHARK} <= {"unknown AVP"}


def test_what_the_server_sends_breaks_no_rule(sent_by_server: list[SentByServer]) -> None:
    for scenario, octets in sent_by_server:
        (shown,) = decoded(Streams([Found(octets)]))
        worse = [str(remark) for remark in shown.remarks if remark.kind is not Kind.NOTE]
        assert worse == [], f"{scenario}: {shown.name}"
    assert {DecodedMessage(1, Found(one.message)).name for one in sent_by_server} >= {
        "Capabilities-Exchange-Answer",
        "Credit-Control-Answer",
        "Device-Watchdog-Answer",
        "Disconnect-Peer-Answer",
        "Re-Auth-Request",
        "Abort-Session-Request",
    }
