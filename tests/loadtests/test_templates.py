"""Load requests: patched messages are the messages they stand for."""

import pytest

from loadtests.templates import REALM, STEPS, USED_OCTETS, Template, line, session_id
from protocols.credit_control import decode_request
from protocols.diameter.codec import check, decode

ORIGIN = f"gw01.{REALM}"
AT_S = 1_800_000_000


def templates() -> list[Template]:
    length = len(session_id(ORIGIN, AT_S, 0))
    return [Template(ORIGIN, step, length, AT_S) for step in range(STEPS)]


@pytest.mark.parametrize("step", range(STEPS))
def test_a_patched_message_says_what_was_patched_in(step: int) -> None:
    """RFC 8506 section 3.1, and row 21: CC-Request-Number counts up from 0."""
    name = session_id(ORIGIN, AT_S, 4711)
    message = templates()[step].message(0x01020304, 0x05060708, name, line(99_999))
    check(decode(message))
    request = decode_request(message)
    assert (request.hop_by_hop, request.end_to_end, request.session_id) == (0x01020304, 0x05060708, name)
    assert request.subscriptions == ((1, b"262010000099999"), (0, b"491700099999"))
    assert (request.request_type, request.request_number) == ((1, 2, 2, 3)[step], step)
    assert [service.rating_group for service in request.services] == [10, None]
    for service in request.services:
        assert (service.requested is not None) == (step < STEPS - 1)
        assert [used.total_octets for used in service.used] == ([USED_OCTETS] if step else [])


def test_two_messages_differ_in_the_patches_alone() -> None:
    template = templates()[1]
    first = template.message(1, 1, session_id(ORIGIN, AT_S, 1), line(1))
    second = template.message(2, 2, session_id(ORIGIN, AT_S, 2), line(2))
    assert len(first) == len(second) == template.length
    assert sum(a != b for a, b in zip(first, second, strict=True)) == 5


def test_an_update_is_as_long_as_the_budget_assumes() -> None:
    """The budget speaks of a CCR-U of about 860 octets with two services."""
    assert 800 <= templates()[1].length <= 900
