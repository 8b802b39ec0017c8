"""One server for all third-party peers, and accounts for their subscribers."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from balance.model import IdentityType
from tests.live_server import LiveServer

NewSubscriber = Callable[[int], tuple[str, str]]


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
