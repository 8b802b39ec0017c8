"""Peers that do not play along, against a real server: what they cost is bounded, and others are served meanwhile.

What makes the tests fail, each taken away alone:

- ``pause_reading`` in ``DiameterConnection.pause_writing``: who never reads has his connection closed for what he left
  unread, instead of being kept waiting;
- the count in ``Node._is_no_stranger`` when a connection has opened: the 257th peer of an address is refused;
- ``max_strangers_per_address`` in ``Node._accepted``: half-open connections of one address are as many as it likes;
- ``capabilities_timeout_seconds`` in ``reception``: they stay for ever;
- ``2 * (units - _TOKEN) >= self._full`` in ``Bucket.take``: new sessions take the tokens that running ones need.
"""

import contextlib
import resource
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from protocols.credit_control import decode_answer
from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.codes import Application, Flag
from tests.failover import CENT, Session, Way, again
from tests.faults.rig import Server, await_it
from tests.wire import Connection, capabilities_request, next_number

Note = Callable[[str, object], None]

MIB = 1 << 20
STRANGERS = 256
"""``NodeSettings.max_strangers_per_address``."""
FLOODING = "flooding.clients.example.net"
RATE = 40
PEERS = 1000


class Neighbour(threading.Thread):
    """A client that behaves, and whose session goes on being served."""

    def __init__(self, server: Server, subscriber: str) -> None:
        super().__init__(daemon=True)
        identity = f"neighbour{next_number()}.clients.example.net"
        self.way = Way(server.port, identity)
        self.session = Session(identity, f"{identity};1;1", subscriber)
        self.served = 0
        self.failure: BaseException | None = None
        self._stop_asking = threading.Event()

    def run(self) -> None:
        try:
            self._ask(self.session.initial())
            while not self._stop_asking.is_set():
                self._ask(self.session.update())
                self.served += 1
                time.sleep(0.005)
            self._ask(self.session.termination())
        except BaseException as error:
            self.failure = error

    def _ask(self, request: bytes) -> None:
        """Until it is carried out: on a machine that has no time an update may be refused, too."""
        while (result := self.way.charge(request).result_code) in (3002, 3004):
            request = again(request)
            time.sleep(0.05)
        assert result == 2001

    def await_more(self, count: int = 5) -> None:
        """It is served now, not only before and after."""
        enough = self.served + count
        await_it(lambda: self.served >= enough or self.failure, "the neighbour is not served any more")
        assert self.failure is None, self.failure

    def end(self) -> None:
        self._stop_asking.set()
        self.join(20)
        self.way.cut()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4 * PEERS <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4 * PEERS, hard))  # the server has it from us
    listed = f"peers: {{allowed: [{{identity: {FLOODING}, requests_per_second: {RATE}}}]}}"
    with Server(tmp_path_factory.mktemp("hostile"), settings={"diameter": listed}) as running:
        yield running


@pytest.fixture(scope="module")
def subscribers(server: Server) -> dict[str, str]:
    return server.add_accounts({"hot": 1_000_000_000 * CENT, "neighbour": 1_000_000_000 * CENT})


@pytest.fixture
def subscriber(subscribers: dict[str, str]) -> str:
    return subscribers["hot"]


@pytest.fixture
def neighbour(server: Server, subscribers: dict[str, str]) -> Iterator[Neighbour]:
    client = Neighbour(server, subscribers["neighbour"])
    client.start()
    client.await_more()
    try:
        yield client
        client.await_more()
    finally:
        client.end()
    assert client.failure is None, client.failure


def resident(server: Server) -> int:
    """Octets of memory that the server has."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def connect(server: Server, address: str) -> socket.socket:
    """From any loopback address."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=20, source_address=(address, 0))


def is_open(sock: socket.socket) -> bool:
    """Whether nothing has come of it yet, neither an end nor an octet."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def send_unread(sock: socket.socket, message: bytes, octets: int) -> int:
    """Send copies of a message, and never read, until nothing is taken any more; how many octets were."""
    sock.setblocking(False)
    chunk = message * (1 + (64 << 10) // len(message))
    sent, at = 0, 0
    while sent < octets:
        _, writable, _ = select.select((), (sock,), (), 2.0)
        if not writable:
            return sent
        taken = sock.send(chunk[at:])
        sent += taken
        at = (at + taken) % len(chunk)
    return sent


@pytest.mark.promise("A peer that never reads is kept waiting: its answers are bounded, and nobody else waits")
def test_a_peer_that_sends_without_reading(server: Server, neighbour: Neighbour, record_property: Note) -> None:
    """Requests whose answers are as long as they are: each copies 40 kB of Proxy-Info (RFC 6733 section 6.2)."""
    connection = Connection.to(server.port)
    connection.exchange_capabilities("deaf.clients.example.net")
    proxy = avp("Proxy-Info", [avp("Proxy-Host", "p.example.net"), avp("Proxy-State", bytes(40_000))])
    request = codec.build(9999, Application.CREDIT_CONTROL, Flag.REQUEST, next_number(), next_number(), [proxy])
    before = resident(server)
    sent = send_unread(connection._socket, request, 256 * MIB)
    assert sent < 64 * MIB, "nothing holds it back"
    neighbour.await_more(20)
    grown = resident(server) - before
    assert grown < 48 * MIB
    # It reads after all: what was whole is answered, one by one.
    connection._socket.settimeout(20)
    for _ in range(sent // len(request)):
        answer = connection.receive()
        assert int.from_bytes(answer[4:8], "big") & 0x80FFFFFF == 9999
    connection.close()
    record_property("figures", f"{sent / MIB:.1f} MiB taken, memory grown by {max(0, grown) / MIB:.1f} MiB")


def test_a_slow_reader_of_answers_to_credit_control(server: Server, subscriber: str, neighbour: Neighbour) -> None:
    """Some thousand debits are under way or answered unread; each is answered, once, when it reads."""
    identity = "slow.clients.example.net"
    way = Way(server.port, identity)
    before = resident(server)
    requests = {}
    for number in range(3000):
        request = Session(identity, f"{identity};1;{number}", subscriber).event()
        requests[request[12:20]] = request
    sender = threading.Thread(target=way.connection.send, args=(b"".join(requests.values()),), daemon=True)
    sender.start()
    neighbour.await_more(20)
    assert resident(server) - before < 48 * MIB
    results: Counter[int] = Counter()
    for _ in range(len(requests)):
        answer = way.connection.receive(30)
        del requests[answer[12:20]]
        results[decode_answer(answer).result_code] += 1
    sender.join(20)
    assert requests == {}
    assert results[2001] > 0
    assert set(results) <= {2001, 3002}
    way.cut()


@pytest.mark.slow
@pytest.mark.promise("Connections that show no capabilities are bounded for each address, and end")
def test_half_open_peers(server: Server, neighbour: Neighbour, record_property: Note) -> None:
    """RFC 6733 section 5.6.1 gives a CER no time by which it must come; here that is ten seconds."""
    before = resident(server)
    request = capabilities_request("half.clients.example.net")
    opened_at = time.monotonic()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(server, "127.0.0.2")) for _ in range(STRANGERS + 100)]
        halves = [stack.enter_context(connect(server, "127.0.0.3")) for _ in range(100)]
        for half in halves:
            half.sendall(request[: len(request) // 2])
        await_it(lambda: sum(map(is_open, silent)) == STRANGERS, "strangers are not bounded", 8)
        assert sum(map(is_open, halves)) == len(halves)
        # Whoever else comes, even from an address nearby, is let in.
        with Way(server.port, "honest.clients.example.net"):
            neighbour.await_more()
        grown = resident(server) - before
        assert grown < 32 * MIB
        await_it(lambda: not any(map(is_open, [*silent, *halves])), "they stay", 30)
        assert time.monotonic() - opened_at > 5, "nobody had time to send a CER"
        with connect(server, "127.0.0.2") as again:
            again.sendall(request)
            assert codec.decode(again.recv(65536)).find(268) is not None
    record_property("figures", f"{STRANGERS} of one address, memory grown by {max(0, grown) / MIB:.1f} MiB")


@pytest.mark.slow
@pytest.mark.promise("1,000 peers that connect at once are let in, and cost little each")
def test_a_thousand_peers_at_once(server: Server, neighbour: Neighbour, record_property: Note) -> None:
    """Each from an address of its own, as peers are; twice, so that what is left of the first is seen."""
    grown = []
    before = resident(server)
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            peers = []
            for number in range(PEERS):
                sock = stack.enter_context(connect(server, f"127.1.{number >> 8}.{number & 255}"))
                sock.sendall(capabilities_request(f"peer{number}.clients.example.net"))
                peers.append(Connection(sock))
            for peer in peers:
                result = codec.decode(peer.receive(30)).find(268)
                assert result is not None
                assert result.value() == 2001
            neighbour.await_more(20)
            grown.append(resident(server) - before)
        await_it(lambda: _open_peers(server) <= 1, "peers that are gone are still there")
    first, second = grown
    assert first < PEERS * 64 * 1024
    assert second < first + PEERS * 16 * 1024
    record_property("figures", f"memory grown by {first / PEERS / 1024:.0f} KiB for each")


def test_more_than_max_strangers_of_one_address_may_be_open(server: Server, neighbour: Neighbour) -> None:
    """The bound is on those that are not open: behind one address may be many peers."""
    with contextlib.ExitStack() as stack:
        for number in range(STRANGERS + 20):
            stack.enter_context(Way(server.port, f"behind{number}.clients.example.net"))
        neighbour.await_more()
    await_it(lambda: _open_peers(server) <= 1, "peers that are gone are still there")


@pytest.mark.promise("A peer that sends more than its rate is refused the surplus, running sessions last")
def test_a_rate_for_each_peer(server: Server, subscriber: str, neighbour: Neighbour, record_property: Note) -> None:
    way = Way(server.port, FLOODING)
    running = [Session(FLOODING, f"{FLOODING};1;{number}", subscriber) for number in range(RATE // 3)]
    for session in running:
        assert way.charge(session.initial()).result_code == 2001
    time.sleep(1)  # the bucket is full again
    flood = [Session(FLOODING, f"{FLOODING};2;{number}", subscriber).initial() for number in range(20 * RATE)]
    # Half of the bucket is left to running sessions, which come after the flood.
    updates = [session.update() for session in running]
    asked = {request[12:20]: request in updates for request in flood + updates}
    results = {False: Counter[int](), True: Counter[int]()}
    for identifiers, answer in _ask_all(way, flood + updates):
        results[asked[identifiers]][answer] += 1
    assert results[True] == {2001: len(updates)}
    assert set(results[False]) == {2001, 3002}
    assert results[False][3002] > 15 * RATE, "the flood took so long that it was none"
    over = _sample(server, "occ_peer_requests_over_rate_total", peer=FLOODING)
    assert over == results[False][3002]
    assert _sample(server, "occ_requests_rejected_total", reason="rate", type="initial") == over
    assert _sample(server, "occ_requests_rejected_total", reason="rate", type="update") == 0
    # Who names the server by its host is told that it is busy (RFC 6733 section 7.1.3).
    named = Session(FLOODING, f"{FLOODING};3;1", subscriber, server=server.origin_host)
    named.initial()
    busy = Counter(answer for _, answer in _ask_all(way, [named.update() for _ in range(3 * RATE)]))
    assert busy[3004] > 0
    assert busy[3002] == 0
    way.cut()
    record_property("figures", f"{results[False][3002]} of {len(flood)} refused at {RATE} a second")


def _ask_all(way: Way, requests: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Send all at once; of each answer the request's identifiers and the Result-Code."""
    way.connection.send(b"".join(requests))
    for _ in requests:
        answer = way.connection.receive(30)
        yield answer[12:20], decode_answer(answer).result_code


def _sample(server: Server, name: str, **labels: str) -> float:
    _, text = server.get("/metrics")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return 0.0


def _open_peers(server: Server) -> float:
    return _sample(server, "occ_peers_up")
