"""Two real relays in front of the server: the client goes on by the other one when its own is killed.

RFC 6733 section 5.5.4, RFC 8506 section 5.7; rows 16, 17 and 40.
"""

import itertools
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.failover import Session, Way, again, core, eventually
from tests.interop.conftest import NewSubscriber
from tests.interop.test_freediameter import Relay, money, until
from tests.live_server import LiveServer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("freeDiameterd") is None, reason="freeDiameterd is not installed; apt install freediameter"
    ),
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="openssl, which makes the relays' keys, is not installed"
    ),
]

CENT = 10_000

_numbers = itertools.count(1)


class Relays:
    """Relays that are started when they are needed, and stopped at the end."""

    def __init__(self, server: LiveServer, directories: pytest.TempPathFactory) -> None:
        self.server = server
        self._directories = directories
        self._running: list[Relay] = []

    def start(self, *names: str) -> list[Relay]:
        """Relays of these names, connected to the server."""
        with ThreadPoolExecutor() as together:
            return list(together.map(self._start, names))

    def _start(self, name: str) -> Relay:
        relay = Relay(self._directories.mktemp(name), self.server, f"{name}.relays.example.net")
        self._running.append(relay)
        until(lambda: self.knows(relay), "the connection with the server", relay.log)
        return relay

    def knows(self, relay: Relay) -> bool:
        """Whether the server has a connection with it."""
        return self.server.server.node.handle(relay.identity) is not None

    def kill(self, relay: Relay) -> None:
        """SIGKILL, by its own pid; nobody is told."""
        self._running.remove(relay)
        relay.process.kill()
        relay.process.wait()

    def stop(self) -> None:
        for relay in self._running:
            relay.stop()


@pytest.fixture(scope="module")
def relays(live_server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    relays = Relays(live_server, tmp_path_factory)
    try:
        yield relays
    finally:
        relays.stop()


@pytest.fixture
def client() -> str:
    # A name for each: freeDiameter turns away a peer that comes back within a second.
    return f"pgw{next(_numbers)}.example.net"


@pytest.mark.slow
@pytest.mark.shows("row 16", "row 17", "row 40", "relay-route-record")
def test_row_40_a_client_goes_on_by_the_other_relay_when_its_own_is_killed(
    relays: Relays, client: str, new_subscriber: NewSubscriber
) -> None:
    """While an update is under way, which the client sends again with T: debited once, and the session goes on.

    A raised Origin-State-Id in a request that comes by the second relay then releases what was begun by the first.
    """
    server = relays.server
    account, msisdn = new_subscriber(100 * CENT)
    first, second = relays.start("first", "second")
    session, left_open = (Session(client, f"{client};1;{number}", msisdn, state_id=1) for number in (1, 2))
    with Way(first.port, client) as way, Way(second.port, client) as other:
        assert way.charge(session.initial()).result_code == 2001
        assert way.charge(left_open.initial()).result_code == 2001
        assert way.charge(session.update()).result_code == 2001
        answer = core(way.connection.received[-1])
        assert other.repeat(session.sent[-1]) == answer
        assert money(server, account) == (99 * CENT, 20 * CENT)

        under_way = session.update(2)
        requests = server.server.gy.statistics
        server.run(server.server.store.call("CLIENT", "PAUSE", 1_000, "WRITE"))
        way.send(under_way)
        eventually(lambda: requests.in_flight == 1)
        relays.kill(first)
        repeat = other.send(again(under_way))
        eventually(lambda: requests.in_flight == 2 and not relays.knows(first))
        assert [service.result_code for service in other.receive(repeat).services] == [2001]
        assert money(server, account) == (97 * CENT, 20 * CENT)
        assert other.charge(session.update()).result_code == 2001

        since = Session(client, f"{client};2;1", msisdn, state_id=2)
        assert other.charge(since.initial()).result_code == 2001
        eventually(lambda: money(server, account) == (96 * CENT, 10 * CENT))
        assert other.charge(left_open.termination(0)).result_code == 2001  # late, and reports nothing
        assert other.charge(since.termination()).result_code == 2001
    assert money(server, account) == (95 * CENT, 0)


@pytest.mark.slow
@pytest.mark.shows("row 40")
def test_row_40_a_session_comes_back_to_a_relay_that_was_killed_and_started_again(
    relays: Relays, client: str, new_subscriber: NewSubscriber
) -> None:
    account, msisdn = new_subscriber(100 * CENT)
    (third,) = relays.start("third")
    session = Session(client, f"{client};1;1", msisdn)
    session.names_subscriber = False
    with Way(third.port, client) as way:
        assert way.charge(session.initial()).result_code == 2001
        relays.kill(third)
    eventually(lambda: not relays.knows(third))
    with Way(relays.server.port, client) as direct:
        assert direct.charge(session.update()).result_code == 2001
        (third,) = relays.start("third")
        with Way(third.port, client) as way:
            assert way.charge(session.update()).result_code == 2001
            assert money(relays.server, account) == (98 * CENT, 10 * CENT)
        assert direct.charge(session.termination()).result_code == 2001
    assert money(relays.server, account) == (97 * CENT, 0)
