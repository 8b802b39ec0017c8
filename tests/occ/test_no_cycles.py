"""A request leaves no reference cycle behind: nothing collects them while the server runs (ARCHITECTURE.md).

Made to fail by a callback of ``Gy`` that refers to itself: 22 objects a request stayed for ever.
"""

import gc
from pathlib import Path

from tests.failover import Session, Way, add_account
from tests.live_server import LiveServer

REQUESTS = 100


def test_requests_leave_no_cycles(tmp_path: Path) -> None:
    """The server runs in this process, so its cycles are found here."""
    with LiveServer(tmp_path) as server:
        session = Session("pgw.clients.example.net", "pgw;1;1", add_account(server, 1, 1_000_000_000))
        with Way(server.port, session.client) as way:
            way.charge(session.initial())
            way.charge(session.update())  # what is learnt from a first message is not a request's own
            reports = [session.update() for _ in range(REQUESTS)]
            gc.collect()
            for report in reports:
                way.connection.send(report)
                way.connection.receive()
            assert gc.collect() < REQUESTS
