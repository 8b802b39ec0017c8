"""The limits in SECURITY.md are those that hold, by their numbers: whoever moves one moves the other.

``tests/fuzz/test_decoder_fuzz.py`` shows that each is checked; ``test_peer_*.py`` and ``test_node_*.py`` beside this
file have those of connections.
"""

import re
from pathlib import Path

import pytest

from occ.admission import HELD_OCTETS, TERMINATIONS_ROOM, UPDATES_ROOM, UPDATES_WAIT
from occ.settings import Settings
from protocols.credit_control import decode_request
from protocols.credit_control.request import MAX_SERVICES
from protocols.diameter.errors import DiameterError
from protocols.diameter.link import MAX_OCTETS_BEFORE_OPEN
from protocols.diameter.settings import NodeSettings
from protocols.diameter.shape import MAX_SHAPES
from protocols.diameter.validation import MAX_AVPS, MAX_DEPTH, MAX_SESSION_ID
from tests.protocols.messages import group, packed, required

NODE = NodeSettings("occ1.ocs.example.net", "ocs.example.net")
SETTINGS = Settings()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (Path(__file__).parents[2] / "SECURITY.md").read_text().partition("## Limits")[2].splitlines()
    if line.startswith("| ")
]


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("octets of a message", SETTINGS.diameter.max_message_bytes),
        ("octets before the capabilities exchange", MAX_OCTETS_BEFORE_OPEN),
        ("AVPs of a message", MAX_AVPS),
        ("groups within groups", MAX_DEPTH),
        ("Multiple-Services-Credit-Control of a request", MAX_SERVICES),
        ("octets of a Session-Id", MAX_SESSION_ID),
        ("requests under way", SETTINGS.charging.in_flight_limit),
        ("octets of requests that wait", HELD_OCTETS >> 20),
        ("time that a first request waits", SETTINGS.charging.queue_delay_ms),
        ("connections", NODE.max_connections),
        ("connections from one address that are not open yet", NODE.max_strangers_per_address),
        ("octets that a peer leaves unread", NODE.high_water_octets),
        ("time for the TLS handshake, and for the capabilities exchange", int(NODE.capabilities_timeout_seconds)),
        ("shapes of messages remembered", MAX_SHAPES),
    ],
)
def test_the_table_says_what_holds(what: str, limit: int) -> None:
    [stated] = [row[1] for row in ROWS if row[0] == what]
    assert f"{limit:,}" in re.findall(r"\d[\d,]*\d|\d", stated)


def test_its_words_are_right_too() -> None:
    assert (UPDATES_ROOM, TERMINATIONS_ROOM, UPDATES_WAIT) == (2, 4, 5)
    assert NODE.max_output_octets == 16 << 20


def test_groups_within_groups_end() -> None:
    """RFC 6733 section 7.1.5 has no code for it: the innermost group has a value that cannot be taken (5004)."""
    members = packed(280, b"agent.example.net"), packed(33, b"state")
    nested = group(284, *members)
    for _ in range(MAX_DEPTH - 1):
        nested = group(284, *members, nested)
    assert decode_request(required(nested)).request_number == 7
    with pytest.raises(DiameterError) as refused:
        decode_request(required(group(284, *members, nested)))
    assert refused.value.result_code == 5004
    assert "nested" in refused.value.message
