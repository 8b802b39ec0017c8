"""One server for all third-party peers, accounts for their subscribers, and what the server sends in scenarios."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from balance.model import IdentityType
from tests.live_server import LiveServer, SkippingLoop
from tests.scenarios.runner import DEFAULT_SERVER, Run, Servers
from tests.scenarios.tables import read_scenario, scenario_paths

NewSubscriber = Callable[[int], tuple[str, str]]


class SentByServer(NamedTuple):
    """One message of the server's, requests included, and the scenario in which it was sent."""

    scenario: str
    message: bytes


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("interop")) as server:
        yield server
        server.assert_books_balance()


_numbers = itertools.count(1)


@pytest.fixture
def new_subscriber(live_server: LiveServer) -> NewSubscriber:
    """Makes a prepaid account with a balance in micro-units; returns its name and its MSISDN."""

    def make(balance_micro: int) -> tuple[str, str]:
        number = next(_numbers)
        name, msisdn = f"interop-{number}", f"49172{number:07d}"
        live_server.add_account(name, [(IdentityType.E164, msisdn)], balance_micro=balance_micro)
        return name, msisdn

    return make


@pytest.fixture(scope="session")
def sent_by_server(tmp_path_factory: pytest.TempPathFactory) -> list[SentByServer]:
    """All messages of the server in all scenarios: played once for all who dissect them."""
    sent = []
    with LiveServer(tmp_path_factory.mktemp("sent"), DEFAULT_SERVER, loop=SkippingLoop) as server:
        servers = Servers(server)
        for path in scenario_paths():
            scenario = read_scenario(path)
            if not scenario.known_gap:
                run = Run(scenario, servers)
                run.play()
                for connection in run.opened:
                    sent += [SentByServer(path.stem, message) for message in connection.received]
    return sent
