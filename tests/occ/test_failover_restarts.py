"""A gateway that loses its state again and again under load leaves nothing behind: row 17, RFC 6733 section 8.16.

Its connection is cut without a DPR while requests of every kind are under way; what it had open is released, what it
reported is debited once, and the server is afterwards as large as it was before.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from balance.model import IdentityType, Unit
from balance.records import pack_account
from protocols.diameter.connection import DiameterConnection
from protocols.diameter.handle import PeerHandle
from protocols.diameter.peer import Peer
from simulators import gateway
from simulators.audit import Audit
from simulators.gateway import GatewayOptions
from simulators.population import Population
from tests.failover import REALM, Session, Way, add_account, cents, eventually, metric, records
from tests.live_server import LiveServer

PREPAID, POSTPAID = 30, 10
RESTARTS, SESSIONS_A_LIFE = 20, 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path) as running:
        running.server.expiry.look_again_s = 0.5
        population = Population(PREPAID, POSTPAID)
        for number in range(1, len(population) + 1):
            subscriber = population.subscriber(number)
            running.add_account(
                f"acc-{subscriber.msisdn}",
                [(IdentityType.E164, subscriber.msisdn), (IdentityType.IMSI, subscriber.imsi)],
                balance_micro=0 if subscriber.postpaid else 1_000_000_000,
                credit_limit_micro=1_000_000_000 if subscriber.postpaid else None,
            )
        yield running


def restarting_gateway(server: LiveServer, **options: int | float) -> GatewayOptions:
    chosen: dict[str, int | float] = {
        "sessions": RESTARTS * SESSIONS_A_LIFE + 50,
        "restart_every": SESSIONS_A_LIFE,
        "concurrency": 40,
        "repeats": 0.1,
        **options,
    }
    return GatewayOptions(port=server.port, prepaid=PREPAID, postpaid=POSTPAID, **chosen)  # type: ignore[arg-type]


def kept(server: LiveServer) -> dict[str, int]:
    """How much of what a client leaves behind the server holds."""
    node, store = server.server.node, server.server.store

    async def count() -> dict[str, int]:
        return {
            "tasks": len(asyncio.all_tasks()),
            "peers": len(node.peers()),
            "handles": len(node.handles()),
            "sessions known": len(store.sessions._accounts),
            "requests under way": server.server.gy.statistics.in_flight,
        }

    found = server.run(count())
    # The server and whoever simulates clients are one process here; neither may keep what is gone.
    gc.collect()
    for kind in (PeerHandle, DiameterConnection, Peer):
        found[kind.__name__] = sum(1 for each in gc.get_objects() if type(each) is kind)
    return found


def assert_audit_agrees(server: LiveServer, audit: Audit) -> None:
    """What the client reckons is what the ledger debited, to the micro-unit.

    Whether a report that was under way when the client restarted was debited, only the server knows: its records of
    the session say so, and must be with that report or without it.
    """
    used: Counter[tuple[object, object]] = Counter()
    for each in records(server):
        assert isinstance(each["used"], int)
        used[each["session_id"], each["rating_group"]] += each["used"]
    expected = audit.debited_micro
    for doubt in audit.doubts:
        group = None if doubt.service[0] < 0 else doubt.service[0]
        found = used[doubt.session_id, group]
        assert found in (doubt.used_before, doubt.used_before + doubt.units), doubt
        expected += doubt.price_micro if found > doubt.used_before else 0
    debited = next(total.debited for total in server.verify().totals if total.unit == Unit.MONEY)
    assert debited == expected


@pytest.mark.slow
@pytest.mark.shows("row 17")
def test_row_17_a_gateway_that_restarts_under_load_leaks_nothing(server: LiveServer) -> None:
    """Also what really is open stays open: sessions of another client, all the time."""
    other = f"pgw.{REALM}"
    subscriber = add_account(server, 1)
    with Way(server.port, other, state_id=1) as way:
        staying = [Session(other, f"{other};1;{number}", subscriber) for number in range(3)]
        for session in staying:
            assert way.charge(session.initial()).result_code == 2001
        before = kept(server)
        simulation = gateway.simulation_of(restarting_gateway(server))
        summary = asyncio.run(simulation.run(lambda done, total: None))
        assert (summary.restarts, summary.sessions) == (RESTARTS, RESTARTS * SESSIONS_A_LIFE + 50)
        assert summary.lost > 10 * RESTARTS
        assert (summary.disagreements, summary.malformed) == (0, 0)
        eventually(lambda: server.verify().open_sessions == len(staying))

        report = server.verify()
        assert (report.discrepancies, report.open_reservations) == ([], len(staying))
        eventually(lambda: metric(server, "occ_open_sessions") == len(staying))
        assert metric(server, "occ_open_reservations") == len(staying)
        assert metric(server, "occ_requests_in_flight") == 0
        assert metric(server, "occ_peers_up") == 1
        server.assert_books_balance()
        assert_audit_agrees(server, simulation.audit)

        del simulation
        eventually(lambda: all(count <= before[what] for what, count in kept(server).items()))
        for session in staying:
            assert way.charge(session.termination()).result_code == 2001
    assert cents(server, 1) == (97, 0)


@pytest.mark.shows("row 17", "row 23")
def test_rows_17_and_23_an_account_that_is_damaged_does_not_keep_the_others_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the ledger refuses to do for one account must end neither supervision nor the release of lost sessions."""
    with LiveServer(tmp_path, {"charging.account_cache_entries": "1"}) as server:
        client = f"pgw.{REALM}"
        subscribers = [add_account(server, number) for number in range(1, 4)]
        with Way(server.port, client) as way:
            for number in (1, 2):
                lost = Session(client, f"{client};1;{number}", subscribers[number - 1], state_id=5)
                assert way.charge(lost.initial()).result_code == 2001
            silent = Session("other." + client, f"other.{client};1;1", subscribers[2], state_id=5)
            assert way.charge(silent.initial()).result_code == 2001
            _reserve_in_a_bucket_that_is_not_there(server, 1)
            since = Session(client, f"{client};2;1", subscribers[2], state_id=6)
            assert way.charge(since.initial()).result_code == 2001
            eventually(lambda: cents(server, 2) == (100, 0))
            eventually(lambda: "a session of account b'acc-1' cannot be released" in caplog.text)
            server.pass_time(2 * 1800 * 1000)
            assert cents(server, 3) == (100, 0)
            assert "account b'acc-1' cannot be expired" in caplog.text
        assert not server.verify().consistent


def _reserve_in_a_bucket_that_is_not_there(server: LiveServer, number: int) -> None:
    account = server.account(f"acc-{number}")
    (session,) = account.sessions.values()
    session.services[0].parts = [(99, 1)]
    store = server.server.store
    server.run(store.call("SET", store.keys.account(account.account_id), pack_account(account)))
