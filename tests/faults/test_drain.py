"""SIGTERM to a real server under load: it takes leave of its peers, and answers what they had asked by then.

What makes the test fail, each taken away alone:

- ``leaving`` in ``Link._is_turned_away``: requests that cross the DPR are dropped and never answered;
- ``link.unanswered`` in ``Peer._answer``: the connection closes with the DPA while Redis is still writing;
- ``stopping.set`` as handler of SIGTERM: connections end without a DPR.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from protocols.credit_control import decode_answer
from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.codes import Command, DisconnectCause
from tests.failover import CENT, Session, Way
from tests.faults.rig import Redis, Server, await_it
from tests.wire import ClosedError

CLIENTS = 4
IN_FLIGHT = 12
"""Requests that each client has under way all the time."""


class Busy(threading.Thread):
    """A client with many direct debits under way at once, which sends on until it reads a DPR."""

    def __init__(self, server: Server, number: int, subscriber: str) -> None:
        super().__init__(daemon=True)
        self.identity = f"pgw{number}.clients.example.net"
        self.way = Way(server.port, self.identity)
        self.subscriber = subscriber
        self.asked: dict[bytes, bytes] = {}
        """Identifiers of the requests to their octets."""
        self.results: dict[bytes, int] = {}
        self.left = DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failure = error

    def _run(self) -> None:
        connection = self.way.connection
        leaving = False
        while True:
            while not leaving and len(self.asked) - len(self.results) < IN_FLIGHT:
                session = Session(self.identity, f"{self.identity};1;{len(self.asked)}", self.subscriber)
                request = session.event()
                self.asked[request[12:20]] = request
                connection.send(request)
            try:
                message = connection.receive()
            except ClosedError:
                assert leaving, "the connection was closed without a DPR"
                return
            if message[4] & 0x80:
                request_of_server = codec.decode(message)
                assert request_of_server.command == Command.DISCONNECT_PEER
                cause = request_of_server.find(273)
                assert cause is not None
                self.left = DisconnectCause(cause.value())  # type: ignore[arg-type]
                leaving = True
                origin = [avp("Origin-Host", self.identity), avp("Origin-Realm", "clients.example.net")]
                connection.send(codec.answer_to(request_of_server, [avp("Result-Code", 2001), *origin]))
            else:
                self.results[message[12:20]] = decode_answer(message).result_code


Note = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.promise("A server that is stopped by SIGTERM answers every request it was sent before it goes")
@pytest.mark.shows("row 6")
@pytest.mark.parametrize("store_is_slow", [True, False], ids=["slow store", "usual store"])
def test_what_was_asked_before_the_leave_is_answered(
    tmp_path: Path, record_property: Note, store_is_slow: bool
) -> None:
    """RFC 6733 section 5.4: DPR, REBOOTING, and nobody's request is lost.

    With a slow store the DPA comes while requests are under way; with a usual one, requests cross the DPR.
    """
    with ExitStack() as stack:
        redis = Redis()
        stack.callback(redis.stop)
        redis.start()
        server = Server(tmp_path, redis.url)
        stack.callback(server.end)
        server.start()
        subscriber = server.add_accounts({"hot": 1_000_000_000 * CENT})["hot"]
        assert server.get("/ready")[0] == server.get("/health")[0] == 200
        clients = [Busy(server, number, subscriber) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        await_it(lambda: all(len(client.results) > 30 for client in clients), "nothing is answered")
        if store_is_slow:
            server.on_store(lambda store: store.call("CLIENT", "PAUSE", 700, "WRITE"))
            time.sleep(0.1)
        assert server.terminate() == 0
        for client in clients:
            client.join(20)
            assert not client.is_alive()
            assert client.failure is None, client.failure
            assert client.left is DisconnectCause.REBOOTING
        unanswered = [len(client.asked) - len(client.results) for client in clients]
        assert unanswered == [0] * CLIENTS
        results = [code for client in clients for code in client.results.values()]
        assert set(results) == {2001}
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=5):
            pass
        # Once each, and nothing but these.
        server.start()
        (account,) = server.accounts().values()
        assert account.buckets[0].balance == (1_000_000_000 - 10 * len(results)) * CENT
        assert server.verify().discrepancies == []
        record_property("figures", f"{len(results)} requests of {CLIENTS} clients, none unanswered")


@pytest.mark.promise("A server says at /ready that its store is away, and at /health that it need not be restarted")
def test_health_and_readiness(tmp_path: Path) -> None:
    """Mutations: ``store.available`` left out of ``hindrances``; the store among the ``faults``."""
    with ExitStack() as stack:
        redis = Redis()
        stack.callback(redis.stop)
        redis.start()
        server = Server(tmp_path, redis.url)
        stack.callback(server.end)
        server.start()
        assert server.get("/ready") == server.get("/health") == (200, '{"status": "ok", "reasons": []}')
        redis.kill()
        status, text = await_it(lambda: (said := server.get("/ready"))[0] == 503 and said, "it stays ready") or (0, "")
        assert (status, "cannot be reached" in text) == (503, True)
        assert server.get("/health")[0] == 200
        redis.start()
        await_it(lambda: server.get("/ready")[0] == 200, "it is not ready again")
        assert server.get("/nothing") == (404, "there is /metrics, /peers, /noc, /health and /ready\n")
