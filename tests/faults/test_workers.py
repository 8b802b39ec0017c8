"""Several workers under a supervisor: replaced one by one under load, killed, and asked through each other.

What makes these tests fail, each taken away alone:

- the order of ``Supervisor._replace`` (the old process leaves before the new one is launched): clients wait until it
  has loaded, for more than ``WITHOUT_SERVICE``;
- ``Node.listen`` in ``OnlineChargingServer.listen`` (a socket bound anew with ``Node.start`` in its stead): the port is
  taken by whoever else has it;
- ``_let_in_who_has_come`` in ``OnlineChargingServer._take_leave``: a client that has just connected is sent away before
  its CER is answered;
- ``_close_answered`` in ``Node.stop``: clients wait for the end of their connections;
- both looks at ``place.process is not process`` in ``Supervisor._keep``: a worker that was replaced is started again;
- the end of input as an end of ``Worker._obey``: workers outlive a supervisor that was killed, and hold its ports.
"""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from occ.workers_file import running_workers
from protocols.credit_control import decode_answer
from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.codes import Command, DisconnectCause
from tests.failover import CENT, MIB, Session, Way, core, eventually
from tests.faults.clients import Load
from tests.faults.history import Answer, Key, Ledger, Operation, check
from tests.faults.rig import CATALOGUE, Server, await_it

ACCOUNTS = {"hot-1": 1_000_000 * CENT, "hot-2": 1_000_000 * CENT}
IN_FLIGHT = 4
"""Requests that each connection has under way."""
WITHOUT_SERVICE = 0.3
"""Share of a replacement for which a client may be without an answer at most; most of it is the loading of the process
that comes, while the one that goes still serves."""

Note = Callable[[str, object], None]


class Running:
    """A session that goes from request to request, each answered before the next."""

    def __init__(self, identity: str, number: int, account: str, subscriber: str) -> None:
        self.session = Session(identity, f"{identity};7;{number}", subscriber)
        self.account = account
        self.granted = 0
        self.updates = 0
        self.ended = False

    def next_request(self, last: bool) -> tuple[bytes, Operation]:
        used = random.randint(0, self.granted)
        if self.session.number < 0:
            kind, used, request = 1, 0, self.session.initial()
        elif last or self.updates == 3:
            kind, request, self.ended = 3, self.session.termination(used), True
        else:
            self.updates += 1
            kind, request = 2, self.session.update(used)
        key = Key(self.session.session_id, kind, self.session.number)
        return request, Operation(key, self.account, time.monotonic(), used * CENT)

    def answered(self, message: bytes, operation: Operation) -> None:
        answer = decode_answer(message)
        assert answer.result_code == 2001, f"{operation.key}: {answer.result_code} {answer.error_message!r}"
        units = answer.services[0].granted if answer.services else None
        self.granted = 0 if self.ended or units is None else (units.total_octets or 0) // MIB
        operation.answers.append(Answer(time.monotonic(), True, self.granted * CENT, core(message)))


class Client:
    """One Diameter identity with a connection to each of some ports, over which its sessions go in turn.

    It never repeats a request, and sends none on a connection after a DPR. It connects again at once.
    """

    def __init__(self, identity: str, ports: list[int], numbers: dict[str, str]) -> None:
        self.identity = identity
        self.numbers = numbers
        self.operations: list[Operation] = []
        self.failures: list[str] = []
        self.sent_away = 0
        self.longest_s = 0.0
        """From a DPR to the next answer on a new connection."""
        self._sessions = 0
        self._waiting: deque[Running] = deque()
        self._under_way = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port,), daemon=True) for port in ports]

    def start(self) -> "Client":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """End all sessions."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), f"{self.identity} hangs"

    @property
    def answered(self) -> int:
        return sum(bool(operation.answers) for operation in list(self.operations))

    def _run(self, port: int) -> None:
        try:
            left_s = 0.0
            while (left_s := self._connected(port, left_s)) > 0:
                pass
        except BaseException as error:
            self.failures.append(f"{self.identity} at {port}: {type(error).__name__} {error}")
            self._stop.set()

    def _connected(self, port: int, left_s: float) -> float:
        """One connection until it ends; when the server took leave, 0: it did not."""
        with Way(port, self.identity) as way:
            pending: dict[bytes, tuple[Running, Operation]] = {}
            leaving = 0.0
            while True:
                while not leaving and len(pending) < IN_FLIGHT and (running := self._next()) is not None:
                    request, operation = running.next_request(self._stop.is_set())
                    self.operations.append(operation)
                    pending[request[12:20]] = (running, operation)
                    way.connection.send(request)
                if not pending and self._stop.is_set() and not leaving and not self._waiting and not self._under_way:
                    return 0.0
                try:
                    message = way.connection.receive(10.0 if pending or leaving else 0.05)
                except TimeoutError:
                    assert not pending, f"{len(pending)} requests are not answered"
                    continue
                except Exception:
                    assert leaving, "the connection was closed without a DPR"
                    assert not pending, f"{len(pending)} requests were never answered"
                    return leaving
                if message[4] & 0x80:
                    leaving = self._leave(way, message)
                    continue
                running, operation = pending.pop(message[12:20])
                running.answered(message, operation)
                self._put_back(running)
                if left_s:
                    self.longest_s = max(self.longest_s, time.monotonic() - left_s)
                    left_s = 0.0

    def _next(self) -> Running | None:
        with suppress(IndexError):
            running = self._waiting.popleft()
            self._under_way += 1
            return running
        if self._stop.is_set():
            return None
        self._sessions += 1
        self._under_way += 1
        account, subscriber = random.choice(list(self.numbers.items()))
        return Running(self.identity, self._sessions, account, subscriber)

    def _put_back(self, running: Running) -> None:
        if not running.ended:
            self._waiting.append(running)
        self._under_way -= 1

    def _leave(self, way: Way, message: bytes) -> float:
        request = codec.decode(message)
        assert request.command == Command.DISCONNECT_PEER
        cause = request.find(273)
        assert cause is not None
        assert cause.value() == DisconnectCause.REBOOTING
        origin = [avp("Origin-Host", self.identity), avp("Origin-Realm", "clients.example.net")]
        way.connection.send(codec.answer_to(request, [avp("Result-Code", 2001), *origin]))
        self.sent_away += 1
        return time.monotonic()


class Knocker(threading.Thread):
    """New clients that come, one after the other, are let in, and go. Mostly one is about to say who it is."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.let_in = 0
        self.failure = ""
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set() and not self.failure:
            try:
                with Way(self.port, f"new{self.port}-{self.let_in}.clients.example.net", hesitates_s=0.5):
                    self.let_in += 1
            except Exception as error:
                self.failure = f"client {self.let_in} of port {self.port}: {type(error).__name__} {error}"


def ledger_of(server: Server) -> Ledger:
    debits = []
    for record in server.journal():
        taken = -sum(change.balance_delta for change in record.changes)
        if taken > 0:
            session, kind, number = record.reason
            debits.append((record.account_id.decode(), Key(session.decode(), kind, number), taken))
    reserved = {name: sum(each.reserved for each in account.buckets) for name, account in server.accounts().items()}
    return Ledger(dict(ACCOUNTS), server.money_micro(), debits, reserved)


def supervised(tmp_path: Path, stack: ExitStack, workers: int) -> Server:
    server = Server(tmp_path, settings={"notices": "enabled: no"}, workers=workers)
    stack.callback(server.end)
    return server.start()


def none_is_open(server: Server, worker: int) -> None:
    """A worker tells what is open in the store, whichever worker opened it."""
    eventually(lambda: "\nocc_open_sessions 0.0\n" in server.get("/metrics", worker)[1])


def await_another(server: Server, number: int, pid: int) -> None:
    await_it(lambda: server.worker_pids()[number - 1] not in (0, pid), "it is not started again")


def check_all(server: Server, operations: list[Operation]) -> int:
    """Nothing is open, and history, ledger and records agree; how many requests there were."""
    await_it(lambda: not server.verify().open_sessions, "sessions are left open")
    await_it(lambda: not server.outbox_entries(), "records are left in the outbox")
    assert server.verify().discrepancies == []
    ledger = ledger_of(server)
    assert check(operations, ledger) == []
    records = server.records()
    assert [name for name, count in Counter(each["record_id"] for each in records).items() if count > 1] == []
    assert sum(each["debited_micro"] for each in records) == sum(micro for _, _, micro in ledger.debits)
    return len(operations)


@pytest.mark.slow
@pytest.mark.promise("Every worker is replaced under load without one failed request")
@pytest.mark.parametrize("workers", [2, 1])
def test_every_worker_is_replaced_without_a_failed_request(tmp_path: Path, record_property: Note, workers: int) -> None:
    """RFC 6733 section 5.4. Nobody repeats a request, nobody is refused, every answer is a success.

    Of two clients of two workers one is connected to both, its sessions go now by one, now by the other; the others
    have a single connection.
    """
    with ExitStack() as stack:
        server = supervised(tmp_path, stack, workers)
        numbers = server.add_accounts(ACCOUNTS)
        ports = [server.port + number for number in range(workers)]
        clients = [Client(f"pgw{number}.clients.example.net", [port], numbers) for number, port in enumerate(ports)]
        if workers > 1:
            clients.append(Client("dra.clients.example.net", ports, numbers))
        knockers = [Knocker(port) for port in ports]
        for client in clients:
            client.start()
        for knocker in knockers:
            knocker.start()
        before = server.worker_pids()
        await_it(lambda: all(client.answered > 30 for client in clients), "nothing is answered")
        began_s = time.monotonic()
        done = server.occ("restart", "--json")
        each_s = (time.monotonic() - began_s) / workers
        assert done.returncode == 0, done.stderr + server.log.read_text()[-3000:]
        answered = [client.answered for client in clients]
        await_it(
            lambda: (
                any(client.failures for client in clients)
                or all(client.answered > count + 30 for client, count in zip(clients, answered, strict=True))
            ),
            "nothing is answered afterwards",
        )
        assert [failure for client in clients for failure in client.failures] == []
        for knocker in knockers:
            knocker.enough.set()
            knocker.join(30)
            assert knocker.let_in > 2
            assert knocker.failure == ""
        for client in clients:
            client.stop()
        assert [client.failures for client in clients] == [[]] * len(clients)
        after = server.worker_pids()
        assert len(set(before) | set(after)) == 2 * workers
        assert [each["pid"] for each in json.loads(done.stdout)["workers"]] == after
        assert sum(client.sent_away for client in clients) == (4 if workers == 2 else 1)
        assert max(client.longest_s for client in clients) < WITHOUT_SERVICE * each_s
        assert all(operation.answers for client in clients for operation in client.operations)
        operations = [operation for client in clients for operation in client.operations]
        count = check_all(server, operations)
        assert server.worker_pids() == after
        assert "is started again" not in server.log.read_text()
        for number in range(1, workers + 1):
            assert server.get("/ready", number)[0] == 200
            none_is_open(server, number)
            assert "occ_worker_restarts_total 0.0\n" in server.get("/metrics", number)[1]
        record_property("figures", f"{count} requests by {len(clients)} clients, none failed, {workers} workers")


@pytest.mark.slow
@pytest.mark.promise("A worker that is killed is started again; one that a mistake keeps from starting replaces none")
def test_killed_workers_and_a_killed_supervisor(tmp_path: Path, record_property: Note) -> None:
    """kill -9 of each worker, then of the supervisor, under load; clients repeat what was not answered."""
    with ExitStack() as stack:
        server = supervised(tmp_path, stack, 2)
        numbers = server.add_accounts(ACCOUNTS)
        load = Load([server.port, server.port + 1], numbers, clients=4, abandons=0.0).start()
        try:
            for number in (1, 2):
                load.await_answers(20)
                killed = server.worker_pids()[number - 1]
                os.kill(killed, signal.SIGKILL)
                await_another(server, number, killed)
                assert "occ_worker_restarts_total 1.0\n" in server.get("/metrics", number)[1]
            # A catalogue with a mistake: the workers that there are go on.
            before = server.worker_pids()
            catalogue = server.config.parent / "catalogue.yaml"
            catalogue.write_text(CATALOGUE.replace("1 MiB", "1 Mib?"))
            refused = server.occ("restart")
            assert refused.returncode == 1
            assert "catalogue.yaml:4" in refused.stderr
            assert f"stays process {before[0]}" in refused.stderr
            assert server.worker_pids() == before
            catalogue.write_text(CATALOGUE)
            load.await_answers(20)
            server.kill()
            await_it(lambda: not any(map(_lives, before)), "workers outlive their supervisor")
            assert running_workers(server.data_dir) is None
            server.start()
            load.await_answers(20)
        finally:
            load.stop()
        count = check_all(server, load.operations)
        none_is_open(server, 1)
        none_is_open(server, 2)
        record_property("figures", f"3 kills, {count} requests, {load.repeated} of them repeated")


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.promise("A client is asked through whichever worker has its connection, and tools look at all workers")
def test_a_client_is_reached_through_its_worker(tmp_path: Path) -> None:
    """The client is connected to the second worker alone; nobody is told which.

    Mutations: ``metrics_urls`` of the first worker only; ``OF_THE_STORE`` empty: the session is counted twice.
    """
    targets = tmp_path / "targets.yml"
    with ExitStack() as stack:
        settings = {"notices": "enabled: no", "metrics": f"targets_file: {targets}"}
        patient = CATALOGUE.replace("validity: 3 s", "validity: 10 min")
        server = Server(tmp_path, settings=settings, catalogue=patient, workers=2)
        stack.callback(server.end)
        server.start()
        subscriber = server.add_accounts(ACCOUNTS)["hot-1"]
        way = stack.enter_context(Way(server.port + 1, "pgw.clients.example.net"))
        session = Session("pgw.clients.example.net", "pgw.clients.example.net;8;1", subscriber)
        assert way.charge(session.initial()).result_code == 2001
        asked: list[subprocess.CompletedProcess[str]] = []
        reauth = ("sessions", "reauth", session.session_id)
        asking = threading.Thread(target=lambda: asked.append(server.occ(*reauth)))
        asking.start()
        try:
            request = codec.decode(way.connection.receive(20.0))
        except TimeoutError:
            asking.join(30)
            pytest.fail(f"nothing was asked: {asked} {server.log.read_text()[-2000:]}")
        assert request.command == Command.RE_AUTH
        known = {code: request.find(code) for code in (263, 264)}
        told = {code: each.value() for code, each in known.items() if each is not None}
        assert told == {263: session.session_id, 264: "occ2.ocs.example.net"}
        origin = [avp("Origin-Host", "pgw.clients.example.net"), avp("Origin-Realm", "clients.example.net")]
        answer = [avp("Session-Id", session.session_id), avp("Result-Code", 2001), *origin]
        way.connection.send(codec.answer_to(request, answer))
        asking.join(30)
        assert asked[0].returncode == 0, asked[0].stderr
        (peer,) = json.loads(server.occ("peers", "--json").stdout)
        assert (peer["origin_host"], peer["server"]) == (way.identity, f"127.0.0.1:{server.metrics_port + 1}")
        seen = json.loads(server.occ("top", "--json").stdout)
        assert (len(seen["servers"]), seen["open_sessions"], seen["peers_up"]) == (2, 1, 1)
        examined = json.loads(server.occ("doctor", "--json").stdout)
        found = {each["found"].partition(" ")[0] for each in examined if each["check"] == "workers"}
        assert {"occ1.ocs.example.net", "occ2.ocs.example.net"} <= found
        assert [each["targets"] for each in json.loads(targets.read_text())] == [
            [f"127.0.0.1:{server.metrics_port + number}"] for number in (0, 1)
        ]
