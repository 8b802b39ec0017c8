"""kill -9 at random instants under load: of the server, of its Redis, of a Redis that servers share, of all at once.

Clients repeat every request until it is answered. Afterwards the history of all that they asked and were answered is
checked against the ledger (``history``), the ledger against itself (``occ ledger verify``), and the charging data
records against both.

What makes these tests fail, each taken away alone:

- ``answers.find``, so that no answer is known: a repeat of what was answered before is charged once more;
- ``operation.done`` only after the reply of Redis (``Lane.finish``): an answer leaves before its debit is
  written, and when Redis is killed in between the debit is gone;
- the comparison of versions in ``commit.lua``: with two servers on one store, each overwrites what the other wrote;
- ``appendonly yes`` of the embedded Redis: what was acknowledged is gone after it is killed;
- the expiry index (``ZADD`` in ``commit.lua``): sessions that clients left open hold their reservations for ever;
- ``XADD`` to the outbox in ``commit.lua``: debits without a record;
- what ``_Series.resume`` finds in the last file (``occ.cdr_files``): what was written before the kill and not struck
  from the outbox is written again.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from balance.address import Address
from protocols.credit_control import decode_answer
from tests.failover import CENT, Session, Way, again
from tests.faults.clients import NOT_CARRIED_OUT, Load
from tests.faults.history import Key, Ledger, Operation, check
from tests.faults.rig import Redis, Server, await_it

KILLS = int(os.environ.get("FAULTS_KILLS", "2"))
"""In each test; ``make faults`` has more of them."""
BETWEEN_KILLS = 100 if "FAULTS_KILLS" in os.environ else 20
"""Answers, at least."""
THOROUGH = pytest.mark.skipif("FAULTS_KILLS" not in os.environ, reason="runs with make faults")
BALANCES_MICRO = {"hot-1": 40_000_000, "hot-2": 3_000_000, "hot-3": 500_000}
"""The first lasts for the whole test, the others run out."""
SUPERVISION_S = 30.0
"""More than the two Validity-Times of 3 s after which a silent session ends."""


class Scene:
    """Servers on one store, and what can be killed of them."""

    def __init__(
        self, folder: Path, stack: ExitStack, *, shared: bool, servers: int = 1, address: Address | None = None
    ) -> None:
        """``shared``: on a Redis of the test's own. ``address``: on a store that is there."""
        self.redis: Redis | None = None
        if shared:
            self.redis = Redis()
            stack.callback(self.redis.stop)
            self.redis.start()
        store = self.redis.url if self.redis is not None else address
        self.servers = [Server(folder / str(number), store, f"occ{number}") for number in range(1, servers + 1)]
        for server in self.servers:
            stack.callback(server.end)
            server.start()

    def kill_server(self) -> None:
        """One of the servers, and it is started again."""
        server = random.choice(self.servers)
        server.kill(outbox=random.random() < 0.5)
        server.start()

    def kill_redis(self) -> None:
        """The Redis that is the server's own: it starts it again itself."""
        self.servers[0].kill_redis()

    def kill_shared_redis(self) -> None:
        assert self.redis is not None
        self.redis.kill()
        time.sleep(random.uniform(0.0, 0.5))
        self.redis.start()

    def kill_all(self) -> None:
        assert self.redis is not None
        for server in self.servers:
            server.kill(outbox=True)
        self.redis.kill()
        self.redis.start()
        for server in self.servers:
            server.start()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def kill_outbox_as_it_writes(server: Server) -> None:
    """Its file has just grown, so the records in it are hardly struck from the outbox yet."""

    def written() -> int:
        return sum(path.stat().st_size for path in (server.data_dir / "cdr").glob("cdr-*"))

    before = written()
    deadline = time.monotonic() + 20.0
    while written() <= before:
        assert time.monotonic() < deadline, "no records are written"
        time.sleep(0.0005)
    server.kill_outbox()


def ledger_of(scene: Scene) -> Ledger:
    """What the store holds, in the words of the checker."""
    server = scene.servers[0]
    reserved = {name: sum(each.reserved for each in account.buckets) for name, account in server.accounts().items()}
    return Ledger(dict(BALANCES_MICRO), server.money_micro(), debits_of(server), reserved)


def debits_of(server: Server) -> list[tuple[str, Key, int]]:
    """(account, operation, micro-units) of every journal entry that took something."""
    debits = []
    for record in server.journal():
        taken = -sum(change.balance_delta for change in record.changes)
        if taken > 0 and len(record.reason) == 3:
            session, kind, number = record.reason
            debits.append((record.account_id.decode(), Key(session.decode(), kind, number), taken))
        elif taken > 0:
            debits.append((record.account_id.decode(), Key(str(record.reason), 0, record.version), taken))
    return debits


def check_records(servers: list[Server], operations: list[Operation], ledger: Ledger) -> int:
    """Every record is there once, and what was debited is in them, session by session; how many there are."""
    records = [record for server in servers for record in server.records()]
    ids = Counter(record["record_id"] for record in records)
    assert [name for name, count in ids.items() if count > 1] == []
    recorded: Counter[str] = Counter()
    for record in records:
        recorded[record["session_id"]] += record["debited_micro"]
    debited: Counter[str] = Counter()
    for _, key, micro in ledger.debits:
        debited[key.session] += micro
    assert +recorded == +debited
    asked = {operation.key.session for operation in operations}
    assert set(recorded) <= asked
    return len(records)


def run(scene: Scene, kill: Callable[[], None], kills: int = KILLS) -> str:
    """Load, kills at random instants, and everything checked; the figures for the table of results."""
    numbers = scene.servers[0].add_accounts(BALANCES_MICRO)
    load = Load([server.port for server in scene.servers], numbers).start()
    try:
        for _ in range(kills):
            load.await_answers(BETWEEN_KILLS)
            time.sleep(random.uniform(0.0, 0.3))
            kill()
        load.await_answers(BETWEEN_KILLS)
    finally:
        load.stop()
    server = scene.servers[0]
    await_it(lambda: not server.verify().open_sessions, "sessions are left open", SUPERVISION_S)
    await_it(lambda: not server.outbox_entries(), "records are left in the outbox", SUPERVISION_S)
    report = server.verify()
    assert report.discrepancies == []
    assert (report.open_sessions, report.open_reservations) == (0, 0)
    ledger = ledger_of(scene)
    assert check(load.operations, ledger) == []
    records = check_records(scene.servers, load.operations, ledger)
    assert all(operation.answers for operation in load.operations)
    debited = sum(micro for _, _, micro in ledger.debits) // CENT
    return (
        f"{kills} kills, {len(load.operations)} requests, {load.repeated} of them repeated, {len(ledger.debits)} "
        f"debits of {debited / 100:.2f} EUR, {records} records"
    )


Note = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.promise("An answered debit survives kill -9 of the server and its Redis, and is there once")
@pytest.mark.shows("row 16", "row 23")
def test_the_server_is_killed(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """Its embedded Redis goes with it; both come back."""
    scene = Scene(tmp_path, stack, shared=False)
    record_property("figures", run(scene, scene.kill_server))


@pytest.mark.slow
@pytest.mark.promise("An answered debit survives kill -9 of the embedded Redis, which the server starts again")
def test_its_redis_is_killed(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    scene = Scene(tmp_path, stack, shared=False)
    record_property("figures", run(scene, scene.kill_redis))


@pytest.mark.slow
@pytest.mark.promise("Every charging data record is delivered once, though the process that writes it is killed")
def test_the_outbox_is_killed_as_it_writes(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """The server starts it again; what the last file tells has been delivered."""
    scene = Scene(tmp_path, stack, shared=False)
    server = scene.servers[0]
    record_property("figures", run(scene, lambda: kill_outbox_as_it_writes(server), 2 * KILLS))


@pytest.mark.promise("No answer leaves before its debit is on disk")
def test_no_answer_leaves_before_its_debit_is_written(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """Redis stands still while a report is under way, then dies with it unread: the client hears nothing till then."""
    scene = Scene(tmp_path, stack, shared=False)
    server = scene.servers[0]
    subscriber = server.add_accounts({"one": 100 * CENT})["one"]
    session = Session("pgw.clients.example.net", "pgw.clients.example.net;1;1", subscriber)
    with Way(server.port, session.client) as way:
        assert way.charge(session.initial()).result_code == 2001
        os.kill(server.redis_pid(), signal.SIGSTOP)
        report = session.update(2)
        way.send(report)
        with pytest.raises(TimeoutError):
            way.connection.receive(1.0)
        server.kill_redis()
        assert way.receive(report).result_code in NOT_CARRIED_OUT
        await_it(lambda: server.get("/ready")[0] == 200, "the store does not come back")
        way.connection.send(again(report))
        assert decode_answer(way.connection.receive()).result_code == 2001
        assert way.charge(session.termination(1)).result_code == 2001
    assert server.money_micro() == {"one": 97 * CENT}
    assert server.verify().discrepancies == []
    record_property("figures", "a report of 2 MiB, debited when it was answered")


@THOROUGH
@pytest.mark.slow
@pytest.mark.promise("Any of several servers on one store may be killed: clients go on with another")
def test_one_of_two_servers_is_killed(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """The store survives; what the killed one had begun, the other finishes."""
    scene = Scene(tmp_path, stack, shared=True, servers=2)
    record_property("figures", run(scene, scene.kill_server))


@THOROUGH
@pytest.mark.slow
@pytest.mark.promise("An external Redis may be killed and come back: nothing answered is lost, nothing debited twice")
def test_a_shared_redis_is_killed(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    scene = Scene(tmp_path, stack, shared=True, servers=2)
    record_property("figures", run(scene, scene.kill_shared_redis))


@pytest.mark.slow
@pytest.mark.promise("All servers and Redis may be killed at the same moment")
def test_everything_is_killed(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    scene = Scene(tmp_path, stack, shared=True, servers=2)
    record_property("figures", run(scene, scene.kill_all))
