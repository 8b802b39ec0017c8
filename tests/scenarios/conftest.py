"""One server for all scenarios; its ledger is checked when the last one has been played."""

from collections.abc import Iterator

import pytest

from tests.live_server import LiveServer, SkippingLoop
from tests.scenarios.runner import DEFAULT_SERVER, Servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with LiveServer(tmp_path_factory.mktemp("scenarios"), DEFAULT_SERVER, loop=SkippingLoop) as server:
        # All accounts of scenarios are made by the rules in force: nobody is to be asked because these were new once.
        server.run(server.server.policy_reload.stop())
        yield Servers(server)
        report = server.assert_books_balance()
        assert report.accounts, "no scenario charged anything"
