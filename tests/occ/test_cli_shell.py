"""What the command line prints of things that came from the network or from far away."""

import pytest

from occ.cli_shell import text_of, time_json, time_text


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"pgw;1;2", "pgw;1;2"),
        ("Müller".encode(), "Müller"),
        (b"x\x1b]0;owned\x07\x1b[31m", r"x\x1b]0;owned\x07\x1b[31m"),
        (b"\xff\x00", "\\xff\\x00"),
        (b"\xe2\x80\xae", "\\u202e"),
    ],
)
def test_nothing_a_terminal_would_obey_is_printed(octets: bytes, shown: str) -> None:
    assert text_of(octets) == shown


def test_a_time_no_calendar_has_is_printed_all_the_same() -> None:
    assert time_text(253_402_300_800_000) == "253402300800000 ms after 1970"
    assert time_json(253_402_300_800_000) is not None
    assert time_text(0) == "never"
