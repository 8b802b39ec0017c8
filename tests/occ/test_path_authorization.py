"""Who may send requests under another Origin-Host than its own: RFC 6733 section 2.9, section 6.1.9.

Made to fail by: ``authorized`` that compares nothing; that compares with regard to case.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from occ.path_authorization import authorizing
from protocols.credit_control import ReceivedAnswer
from protocols.diameter.codes import ResultCode
from tests.failover import REALM, Session, Way, add_account, cents
from tests.live_server import LiveServer

GATEWAY = f"gateway.{REALM}"
VICTIM = f"victim.{REALM}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    config = tmp_path / "occ.yaml"
    config.write_text(f"diameter:\n  peers:\n    allowed:\n      - {{identity: {GATEWAY}, agent: no}}\n")
    shipped = LiveServer(tmp_path).settings
    with LiveServer(tmp_path / "server", {"catalogue": str(shipped.catalogue)}, config) as running:
        yield running


def result(answer: ReceivedAnswer) -> int:
    return answer.result_code


def test_one_that_is_no_agent_speaks_for_itself_alone(server: LiveServer) -> None:
    subscriber = add_account(server, 1)
    own, others = Session(GATEWAY, "own;1", subscriber), Session(VICTIM, "victim;1", subscriber)
    with Way(server.port, GATEWAY.upper()) as way, Way(server.port, VICTIM) as direct:
        assert result(direct.charge(others.initial())) == ResultCode.SUCCESS
        assert result(way.charge(own.initial())) == ResultCode.SUCCESS
        for request in (others.update(2), others.termination(0), Session(VICTIM, "new;1", subscriber).initial()):
            assert result(way.charge(request)) == ResultCode.AUTHORIZATION_REJECTED
        assert result(way.charge(own.termination(1))) == ResultCode.SUCCESS
        assert result(direct.charge(others.termination(0))) == ResultCode.SUCCESS
    with Way(server.port, f"agent.{REALM}", relay=True) as agent:  # of which nothing is said
        session = Session(VICTIM, "victim;2", subscriber)
        assert result(agent.charge(session.initial())) == ResultCode.SUCCESS
        assert result(agent.charge(session.termination(1))) == ResultCode.SUCCESS
    assert cents(server, 1) == (98, 0)
    server.assert_books_balance()


def test_it_costs_nothing_where_nothing_is_said() -> None:
    def route(_: object, __: object) -> None: ...

    assert authorizing(route, []) is route
