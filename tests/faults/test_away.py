"""Granting while the store cannot be reached: what was answered from the journal on disk is in the ledger, once.

Redis is killed under load; the server grants from its journal; it is killed as well, and killed again as it settles;
Redis comes back. Afterwards the history of all that clients asked and were answered is checked against the ledger, the
ledger against itself, and the charging data records against both, as in ``test_kills``.

What makes these tests fail, each taken away alone:

- writing in ``AwayJournal.append``: what was answered before the server was killed is not there to be debited;
- ``pending`` in ``Away.take``: a repeat is granted, and entered, once more;
- ``Away.holds``, so that requests overtake the entries of their session: a repeat gets another answer, and sessions are
  asked for that nobody has opened yet;
- ``Settling._remember``: a repeat that comes when the store is back gets what charging came to, not what was answered.

That nothing is debited twice even when all that the store keeps for repeats has expired (``Plan.mark``), that a session
which supervision ended in the outage goes on (``Settling._late``), and that answers wait for the disk, is tested in
``tests/occ/test_away.py``; torn ends, damage and the lock in ``tests/occ/test_away_journal.py``.
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from occ.away_journal import AwayJournal
from tests.failover import CENT, TERMINATION, Session, Way, core
from tests.faults.clients import Load
from tests.faults.history import Ledger, check
from tests.faults.rig import Redis, Server, await_it
from tests.faults.test_kills import BETWEEN_KILLS, KILLS, SUPERVISION_S, Note, check_records, debits_of

CATALOGUE = """\
version: faults
currency: EUR
services:
  internet:
    context: 32251@3gpp.org
    rating_groups: [10]
    unit: octets
    quota: 1 MiB
    maximum_quota: 10 MiB
    validity: 3 s
    when_store_is_away:
      {grant: 10 MiB, per_session: 1 GiB, grants_per_session: 1000, sessions: 100000, grants: 100000, for: 1 h}
plans:
  standard: {internet: 0.01 per 1 MiB}
"""
HANGS = 5
BALANCES_MICRO = {"hot-1": 400_000_000, "hot-2": 300_000_000}
"""Nobody runs out: what is not covered leaks, which is another matter."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def begin(
    folder: Path, stack: ExitStack, catalogue: str = CATALOGUE, settings: dict[str, str] | None = None
) -> tuple[Redis, Server]:
    redis = Redis()
    stack.callback(redis.stop)
    redis.start()
    server = Server(folder, redis.url, catalogue=catalogue, settings=settings)
    stack.callback(server.end)
    server.start()
    return redis, server


def journal_of(server: Server) -> Path:
    return server.data_dir / "away" / f"{server.origin_host}.journal"


def entries_left(server: Server) -> int:
    """What a killed server has answered and not settled."""
    journal = AwayJournal(journal_of(server)).open()
    journal.close()
    return len(journal.waiting)


def answered_away(server: Server) -> int:
    for line in server.get("/metrics")[1].splitlines():
        if line.startswith("occ_away_answers_total "):
            return int(float(line.split()[1]))
    return 0


def await_answers_away(server: Server, many: int) -> None:
    await_it(lambda: answered_away(server) >= many, "nothing is granted")


def kill_as_it_settles(server: Server) -> None:
    """Started, and killed when the first entries are struck from the journal."""
    octets = journal_of(server).stat().st_size
    server.launch()
    await_it(lambda: journal_of(server).stat().st_size != octets, "nothing is settled")
    server.kill(outbox=True)


@pytest.mark.slow
@pytest.mark.promise("What is granted without a store is settled once, whatever is killed meanwhile")
@pytest.mark.shows("row 16")
def test_the_server_is_killed_without_its_store_and_as_it_settles(
    tmp_path: Path, stack: ExitStack, record_property: Note
) -> None:
    """Every other time the server lives through the outage."""
    redis, server = begin(tmp_path, stack)
    load = Load([server.port], server.add_accounts(BALANCES_MICRO)).start()
    away = left = 0
    try:
        for kill in range(KILLS):
            load.await_answers(BETWEEN_KILLS)
            redis.kill()
            before = answered_away(server)
            await_answers_away(server, before + BETWEEN_KILLS)
            time.sleep(random.uniform(0.0, 0.3))
            if kill % 2:
                away += answered_away(server) - before
                redis.start()
                continue
            server.kill(outbox=random.random() < 0.5)
            away += entries_left(server)
            redis.start()
            kill_as_it_settles(server)
            left += entries_left(server)
            server.start()
        load.await_answers(BETWEEN_KILLS)
    finally:
        load.stop()
    await_it(lambda: not server.verify().open_sessions, "sessions are left open", SUPERVISION_S)
    await_it(lambda: not server.outbox_entries(), "records are left in the outbox", SUPERVISION_S)
    report = server.verify()
    assert report.discrepancies == []
    assert (report.open_sessions, report.open_reservations) == (0, 0)
    reserved = {name: sum(each.reserved for each in account.buckets) for name, account in server.accounts().items()}
    ledger = Ledger(dict(BALANCES_MICRO), server.money_micro(), debits_of(server), reserved)
    assert check(load.operations, ledger) == []
    records = check_records([server], load.operations, ledger)
    assert not any(record["cause"] == "uncharged" for record in server.records())
    assert all(operation.answers for operation in load.operations)
    ends = [each for each in load.operations if each.key.kind == TERMINATION]
    assert all(answer.succeeded for operation in ends for answer in operation.answers)
    record_property(
        "figures",
        f"{KILLS} outages, {len(load.operations)} requests, {away} answered without a store, {left} left by a server "
        f"killed as it settled; {len(ledger.debits)} debits, {records} records",
    )


@pytest.mark.promise("Without a store only what the catalogue allows is granted, and settled in order")
def test_limits_hold_and_the_session_goes_on(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """Reports beyond the limits are recorded all the same; a repeat gets its answer before and after settling."""
    limited = CATALOGUE.replace(
        "per_session: 1 GiB, grants_per_session: 1000", "per_session: 15 MiB, grants_per_session: 9"
    )
    redis, server = begin(tmp_path, stack, limited)
    subscriber = server.add_accounts({"one": 100 * CENT})["one"]
    known = Session("pgw.clients.example.net", "pgw;1;1", subscriber)
    stranger = Session("pgw.clients.example.net", "pgw;1;2", "491999")
    with Way(server.port, known.client) as way:
        assert way.charge(known.initial()).result_code == 2001
        redis.kill()
        await_it(lambda: server.get("/ready")[0] == 503, "the loss of the store is not noticed")
        first = known.update(2)
        assert granted_mib(way.charge(first)) == 10
        body = core(way.connection.received[-1])
        assert way.repeat(first) == body
        assert granted_mib(way.charge(known.update(3))) == 5
        beyond = way.charge(known.update(4))
        assert (beyond.result_code, beyond.services[0].result_code, granted_mib(beyond)) == (2001, 4010, 0)
        assert way.charge(stranger.initial()).result_code == 3002
        redis.start()
        await_it(lambda: server.get("/ready")[0] == 200, "the store does not come back")
        assert granted_mib(way.charge(known.update(5))) == 10
        assert way.repeat(first) == body
        assert way.charge(known.termination(1)).result_code == 2001
    assert server.money_micro() == {"one": 85 * CENT}
    assert server.verify().discrepancies == []
    record_property("figures", "15 MiB reported in an outage and after it, debited once")


@pytest.mark.slow
@pytest.mark.promise("What a store that hangs was sent, and carries out when it goes on, is debited once")
@pytest.mark.shows("row 16")
def test_a_store_that_hangs_is_away(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """The request that finds it so is answered without it; the store reads its debit when it goes on, and then what
    was answered is settled.
    """
    lasting = CATALOGUE.replace("validity: 3 s", "validity: 10 min")
    redis, server = begin(tmp_path, stack, lasting, {"store": "hangs_after_ms: 500"})
    session = Session("pgw.clients.example.net", "pgw;1;1", server.add_accounts({"one": 1000 * CENT})["one"])
    with Way(server.port, session.client) as way:
        assert way.charge(session.initial()).result_code == 2001
        for _ in range(HANGS):
            with redis.hanging():
                found_so = session.update(3)
                assert granted_mib(way.charge(found_so)) == 10
                body = core(way.connection.received[-1])
                assert granted_mib(way.charge(session.update(2))) == 10
                assert way.repeat(found_so) == body
            await_it(lambda: server.get("/ready")[0] == 200, "the store does not come back")
            assert way.repeat(found_so) == body
            assert way.charge(session.update(1)).result_code == 2001
        assert way.charge(session.termination(1)).result_code == 2001
    assert server.money_micro() == {"one": (1000 - 6 * HANGS - 1) * CENT}
    await_it(lambda: not server.outbox_entries(), "records are left in the outbox", SUPERVISION_S)
    report = server.verify()
    assert report.discrepancies == []
    assert (report.open_sessions, report.open_reservations) == (0, 0)
    record_property("figures", f"{HANGS} times, {6 * HANGS + 1} MiB debited once")


@pytest.mark.slow
def test_a_process_that_replaces_another_takes_its_journal_over(tmp_path: Path, stack: ExitStack) -> None:
    """While both run the journal is still the one's that goes (``StandIn._take_over``)."""
    redis = Redis()
    stack.callback(redis.stop)
    redis.start()
    server = Server(tmp_path, redis.url, catalogue=CATALOGUE.replace("validity: 3 s", "validity: 10 min"), workers=1)
    stack.callback(server.end)
    server.start()
    session = Session("pgw.clients.example.net", "pgw;1;1", server.add_accounts({"one": 100 * CENT})["one"])
    with Way(server.port, session.client) as way:
        assert way.charge(session.initial()).result_code == 2001
    done = server.occ("restart")
    assert done.returncode == 0, done.stderr
    with Way(server.port, session.client) as way:
        assert granted_mib(way.charge(session.update(2))) == 10
        await_it(lambda: "\nocc_away_granting 0" in server.get("/metrics", 1)[1], "the journal is not taken over")
        redis.kill()
        await_it(lambda: server.get("/ready", 1)[0] == 503, "the loss of the store is not noticed")
        assert granted_mib(way.charge(session.update(3))) == 10
        redis.start()
        await_it(lambda: server.get("/ready", 1)[0] == 200, "the store does not come back")
        assert way.charge(session.termination(1)).result_code == 2001
    assert server.money_micro() == {"one": 94 * CENT}
    assert server.verify().discrepancies == []


def granted_mib(answer: object) -> int:
    services = getattr(answer, "services", ())
    units = services[0].granted if services else None
    return 0 if units is None else (units.total_octets or 0) >> 20
