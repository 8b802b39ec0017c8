"""A session goes on whatever way its requests take: other connections, agents in between, two ways at once.

RFC 6733 section 5.5.4 (failover, T flag), section 6 (agents); RFC 8506 section 5.7: "failover may occur at any point
in the path". Rows 7, 16, 17 and 40.
"""

import itertools
from collections.abc import Iterator

import pytest

from protocols.credit_control import decode_answer
from tests.failover import (
    EVENT,
    INITIAL,
    REALM,
    TERMINATION,
    UPDATE,
    Session,
    Way,
    add_account,
    again,
    cents,
    core,
    eventually,
    forwarded,
    records,
)
from tests.live_server import LiveServer

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("failover")) as running:
        running.server.expiry.look_again_s = 0.3
        yield running
        report = running.assert_books_balance()
        assert (report.open_sessions, report.open_reservations) == (0, 0)


class Lab:
    """One account, one client, and two agents that it may go by."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.number = next(_numbers)
        self.subscriber = add_account(server, self.number)
        self.client = f"pgw{self.number}.{REALM}"
        self.ways: list[Way] = []

    def direct(self, state_id: int | None = None, client: str = "") -> Way:
        return self._way(Way(self.server.port, client or self.client, state_id=state_id))

    def agent(self, name: str, state_id: int | None = None) -> Way:
        return self._way(
            Way(self.server.port, f"{name}{self.number}.agents.example.net", relay=True, state_id=state_id)
        )

    def _way(self, way: Way) -> Way:
        self.ways.append(way)
        return way

    def session(self, state_id: int | None = None, client: str = "") -> Session:
        client = client or self.client
        return Session(client, f"{client};1;{next(_numbers)}", self.subscriber, state_id)

    def cents(self) -> tuple[int, int]:
        return cents(self.server, self.number)

    def via(self, session: Session) -> str:
        """The peer by which the server thinks that a session can be reached."""
        return self.server.account(f"acc-{self.number}").sessions[session.session_id.encode()].via.decode()

    def pause_writes(self, milliseconds: int) -> None:
        """Redis takes no writes for so long: what is sent meanwhile is under way at the same time."""
        self.server.run(self.server.server.store.call("CLIENT", "PAUSE", milliseconds, "WRITE"))

    def causes(self, session: Session) -> list[object]:
        """How the server says the session ended, once for each charging data record."""
        mine = [each for each in records(self.server) if each["session_id"] == session.session_id]
        return [each["cause"] for each in mine]


@pytest.fixture
def lab(server: LiveServer) -> Iterator[Lab]:
    lab = Lab(server)
    yield lab
    for way in lab.ways:
        way.cut()


# -- one request after the other, by changing ways -----------------------------------------------------------------


@pytest.mark.shows("row 40")
def test_row_40_a_session_goes_on_by_an_agent_by_another_and_back(lab: Lab) -> None:
    """The client's Origin-Host stays; the peer that the requests come by, Route-Record and Proxy-Info change."""
    direct, first, second = lab.direct(), lab.agent("first"), lab.agent("second")
    session = lab.session()
    ways = [direct, first, second, direct, second]
    assert direct.charge(session.initial()).result_code == 2001
    for reported, way in enumerate(ways, start=1):
        answer = way.charge(session.update())
        assert [service.result_code for service in answer.services] == [2001]
        assert lab.cents() == (100 - reported, 10)
        assert lab.via(session) == way.identity
    assert first.charge(session.termination()).result_code == 2001
    assert lab.cents() == (94, 0)


@pytest.mark.shows("row 40")
def test_row_40_a_session_goes_on_over_each_new_connection_of_its_client(lab: Lab) -> None:
    """The connection is cut without a DPR before every request; updates need not name the subscriber again."""
    session = lab.session()
    session.names_subscriber = False
    for request in (session.initial(), session.update(), session.update(), session.termination()):
        way = lab.direct()
        assert way.charge(request).result_code == 2001
        way.cut()
        eventually(lambda: lab.server.server.node.handle(lab.client) is None)
    assert lab.cents() == (97, 0)


@pytest.mark.shows("row 16", "row 40")
@pytest.mark.parametrize("first_way", ["direct", "agent"])
def test_row_16_a_repeat_by_the_other_way_gets_the_first_answer(lab: Lab, first_way: str) -> None:
    """All but identifiers and Proxy-Info, which are those of the repeat; nothing is debited or reserved again."""
    direct, agent = lab.direct(), lab.agent("relay")
    one, other = (direct, agent) if first_way == "direct" else (agent, direct)
    session = lab.session()
    for request, expected in (
        (session.initial(), (100, 10)),
        (session.update(), (99, 10)),
        (session.update(2), (97, 10)),
        (session.termination(), (96, 0)),
    ):
        one.charge(request)
        answer = core(one.connection.received[-1])
        assert lab.cents() == expected
        assert other.repeat(request) == answer
        assert other.repeat(again(request, end_to_end=True)) == answer
        assert lab.cents() == expected
    eventually(lambda: lab.causes(session) == ["normal"])


# -- at the same time ----------------------------------------------------------------------------------------------


@pytest.mark.shows("row 16", "row 40")
@pytest.mark.parametrize("kind", [INITIAL, UPDATE, TERMINATION, EVENT])
def test_row_16_original_and_repeats_under_way_at_once_by_three_ways(lab: Lab, kind: int) -> None:
    """None of them has been written down when the others come; whichever is first is charged, and answers for all."""
    ways = [lab.direct(), lab.agent("first"), lab.agent("second")]
    session = lab.session()
    if kind in (UPDATE, TERMINATION):
        assert ways[0].charge(session.initial()).result_code == 2001
    request = session.request(kind, None if kind in (INITIAL, EVENT) else 3)
    lab.pause_writes(150)
    sent = [way.send(octets) for way, octets in zip(ways, (request, again(request), again(request)), strict=True)]
    codes = [way.receive(octets).result_code for way, octets in zip(ways, sent, strict=True)]
    assert codes == [2001, 2001, 2001]
    assert len({core(way.connection.received[-1]) for way in ways}) == 1
    assert lab.cents() == {INITIAL: (100, 10), UPDATE: (97, 10), TERMINATION: (97, 0), EVENT: (90, 0)}[kind]
    if kind in (INITIAL, UPDATE):
        assert ways[2].charge(session.termination(0)).result_code == 2001


@pytest.mark.shows("row 16")
def test_row_16_the_way_breaks_while_the_request_is_under_way(lab: Lab) -> None:
    """The answer finds its connection gone; the repeat by an agent gets it, and the next update goes by that agent."""
    direct, agent = lab.direct(), lab.agent("relay")
    session = lab.session()
    direct.charge(session.initial())
    request = session.update()
    lab.pause_writes(150)
    direct.send(request)
    direct.cut()
    sent = agent.send(again(request))
    assert [service.result_code for service in agent.receive(sent).services] == [2001]
    assert lab.cents() == (99, 10)
    assert agent.charge(session.termination()).result_code == 2001
    assert lab.cents() == (98, 0)


# -- Origin-State-Id -------------------------------------------------------------------------------------------------


def restarted(lab: Lab, told_in: str, new: int) -> Session | None:
    """The client comes back having lost its state; a session that it opened since, if that is how it tells."""
    if told_in == "CCR":
        session = lab.session(new)
        assert lab.agent("other").charge(session.initial()).result_code == 2001
        return session
    if told_in == "CER":
        lab.ways[0].cut()
        eventually(lambda: lab.server.server.node.handle(lab.client) is None)
        lab.direct(new)
    else:
        lab.ways[0].state_changes(new)
    return None


@pytest.mark.shows("row 17")
@pytest.mark.parametrize("told_in", ["CER", "DWR", "CCR"])
def test_row_17_a_restarted_client_loses_what_it_had_by_whatever_way(lab: Lab, told_in: str) -> None:
    """RFC 6733 sections 8.6 and 8.16: its sessions, by its own connection and by an agent, not those of others."""
    direct, agent = lab.direct(5), lab.agent("relay")
    other = f"other{lab.number}.{REALM}"
    own = [lab.session(), lab.session(5)]
    kept = [lab.session(5, other), lab.session(None, other), lab.session(0)]
    for way, session in ((direct, own[0]), (agent, own[1]), (agent, kept[0]), (agent, kept[1]), (direct, kept[2])):
        assert way.charge(session.initial()).result_code == 2001
    assert direct.charge(own[0].update()).result_code == 2001
    assert lab.cents() == (99, 50)
    since = restarted(lab, told_in, 6)
    expected = 30 if since is None else 40
    eventually(lambda: lab.cents() == (99, expected))
    for session in own:
        eventually(lambda session=session: lab.causes(session) == ["client-restarted"])  # type: ignore[misc]
    for session in [*kept, *([] if since is None else [since])]:
        assert agent.charge(session.termination()).result_code == 2001
    assert lab.cents() == (96 if since is None else 95, 0)
    assert direct is lab.ways[0]


@pytest.mark.shows("row 17")
def test_row_17_what_a_lost_session_reports_late_is_still_debited_once(lab: Lab) -> None:
    """An agent may hold a request of the client's former life: its usage is true, the session is gone."""
    agent = lab.agent("relay")
    lost, since = lab.session(5), lab.session(6)
    agent.charge(lost.initial())
    agent.charge(since.initial())
    eventually(lambda: lab.cents() == (100, 10))
    late = lost.update(4)
    assert agent.charge(late).result_code == 5002
    assert lab.cents() == (96, 10)
    assert agent.charge(again(late)).result_code == 5002
    assert lab.cents() == (96, 10)
    assert agent.charge(since.termination()).result_code == 2001
    assert lab.cents() == (95, 0)


@pytest.mark.shows("row 17")
def test_row_17_an_agent_that_restarts_releases_nothing_of_its_clients(lab: Lab) -> None:
    agent = lab.agent("relay", state_id=5)
    session = lab.session()
    agent.charge(session.initial())
    agent.cut()
    eventually(lambda: lab.server.server.node.handle(agent.identity) is None)
    agent = lab.agent("relay", state_id=6)
    agent.state_changes(7)
    lab.agent("another", state_id=9)
    # A release would have been seen by the time another client's is through.
    probe = lab.session(1, f"probe{lab.number}.{REALM}")
    agent.charge(probe.initial())
    agent.charge(lab.session(2, probe.client).initial())
    eventually(lambda: lab.causes(probe) == ["client-restarted"])
    assert session.session_id.encode() in lab.server.account(f"acc-{lab.number}").sessions
    assert agent.charge(session.termination()).result_code == 2001
    agent.charge(lab.session(3, probe.client).initial())
    eventually(lambda: lab.cents() == (99, 10))
    lab.server.pass_time(2 * 1800 * 1000)
    assert lab.cents() == (99, 0)


@pytest.mark.shows("row 17")
def test_row_17_nothing_is_inferred_by_an_agent_from_what_the_client_said_when_it_was_connected(lab: Lab) -> None:
    """A client comes back by an agent, without a word of its state, and by a connection of its own only later.

    RFC 6733 section 8.16: where no Origin-State-Id is told nothing can be inferred. Taken for one of the client's
    former life, the session would be lost when the client tells its state at last.
    """
    lab.direct(100).cut()
    eventually(lambda: lab.server.server.node.handle(lab.client) is None)
    agent, session, probe = lab.agent("relay"), lab.session(), lab.session(100)
    agent.charge(session.initial())
    agent.charge(probe.initial())
    direct = lab.direct(105)
    eventually(lambda: lab.causes(probe) == ["client-restarted"])
    assert direct.charge(session.update()).result_code == 2001
    assert direct.charge(session.termination()).result_code == 2001
    assert lab.cents() == (98, 0)


@pytest.mark.shows("row 17")
def test_row_17_a_client_is_the_same_whatever_the_case_of_its_name(lab: Lab) -> None:
    """RFC 6733 section 4.3.1: a DiameterIdentity is a domain name."""
    direct = lab.direct(5, lab.client.upper())
    session = lab.session()
    direct.charge(session.initial())
    direct.cut()
    eventually(lambda: lab.server.server.node.handle(lab.client) is None)
    lab.direct(6)
    eventually(lambda: lab.causes(session) == ["client-restarted"])
    assert lab.cents() == (100, 0)


@pytest.mark.shows("row 17")
def test_row_17_what_was_under_way_when_the_client_came_back_is_released_as_well(lab: Lab) -> None:
    """Its subscriber and account must be read first, so it is written down after the sessions were looked through."""
    agent = lab.agent("relay")
    straggler, since = lab.session(5), lab.session(6)
    straggler.subscriber = add_account(lab.server, 1000 + lab.number)
    agent.connection.send(b"".join(forwarded(each.initial(), agent.identity) for each in (straggler, since)))
    assert [decode_answer(agent.connection.receive()).result_code for _ in range(2)] == [2001, 2001]
    eventually(lambda: lab.causes(straggler) == ["client-restarted"])
    assert cents(lab.server, 1000 + lab.number) == (100, 0)
    assert agent.charge(since.termination()).result_code == 2001
    assert lab.cents() == (99, 0)
