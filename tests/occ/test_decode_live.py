"""What ``occ decode`` says of requests is what the real server answers to them."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from occ.decode.messages import decoded
from occ.decode.streams import Found, Streams, cut
from occ.decode.tree import DecodedMessage, Kind
from tests.live_server import LiveServer, SkippingLoop
from tests.scenarios.runner import DEFAULT_SERVER, Run, Servers
from tests.scenarios.tables import read_scenario, scenario_paths

MALFORMED = re.compile(r"row-(01|02|07|08|09|10|11|12|13|14|20|22|26|27)-")
"""Scenarios with all that can be wrong with a message, and some where nothing is."""

REFUSED_AT_SIGHT = (3001, 3007, 3008, 3009, 5001, 5004, 5005, 5008, 5009, 5010, 5011, 5014, 5015, 5017)
LONGEST_TAKEN = 1 << 20
"""Octets of a message, as the server's settings have it."""


class Passed(NamedTuple):
    """What went over one connection of a scenario."""

    scenario: str
    requests: list[DecodedMessage]
    answers: dict[tuple[int, int], DecodedMessage]
    """By command and Hop-by-Hop Identifier."""


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> list[Passed]:
    found = []
    with LiveServer(tmp_path_factory.mktemp("decode"), DEFAULT_SERVER, loop=SkippingLoop) as server:
        servers = Servers(server)
        for path in scenario_paths():
            scenario = read_scenario(path)
            if MALFORMED.match(path.name) and not scenario.known_gap:
                run = Run(scenario, servers)
                run.play()
                found += [_decoded(path, connection.sent, connection.received) for connection in run.opened]
    return found


def _decoded(path: Path, sent: list[bytes], received: list[bytes]) -> Passed:
    pieces = [
        Found(octets[piece.start : piece.stop], missing=piece.missing)
        for octets in sent
        for piece in cut(octets, in_step=True, complete=False)
    ]
    requests = [message for message in decoded(Streams(pieces)) if message.is_request]
    answers = [message for message in decoded(Streams(list(map(Found, received)))) if not message.is_request]
    return Passed(path.stem, requests, {(each.command, each.hop_by_hop): each for each in answers})


def _pairs(passed: list[Passed]) -> Iterator[tuple[str, DecodedMessage, DecodedMessage | None]]:
    for each in passed:
        for request in each.requests:
            yield each.scenario, request, each.answers.get((request.command, request.hop_by_hop))


def test_every_error_is_the_one_the_server_answers_with(passed: list[Passed]) -> None:
    """Result-Code and every octet of Failed-AVP."""
    codes: Counter[int] = Counter()
    for scenario, request, answer in _pairs(passed):
        if request.error is not None:
            assert answer is not None, f"{scenario}: {request.error}"
            failed = answer.first("Failed-AVP")
            assert answer.result_code == request.error.result_code, f"{scenario}: {request.error}"
            assert (failed.data if failed is not None else None) == request.error.failed_avp, scenario
            codes[request.error.result_code] += 1
    assert set(REFUSED_AT_SIGHT) <= set(codes), codes


def test_what_the_server_refuses_at_sight_is_an_error(passed: list[Passed]) -> None:
    for scenario, request, answer in _pairs(passed):
        code = answer.result_code if answer is not None else None
        if code in REFUSED_AT_SIGHT and request.length <= LONGEST_TAKEN:
            assert request.error is not None, f"{scenario}: {code} comes unexpected"


def test_the_server_s_own_messages_break_no_rule(passed: list[Passed]) -> None:
    for each in passed:
        for answer in each.answers.values():
            worse = [str(remark) for remark in answer.remarks if remark.kind is not Kind.NOTE]
            assert worse == [], each.scenario
    assert sum(len(each.answers) for each in passed) > 50
