"""freeDiameter, an independent implementation, as a relay between a client and the server.

freeDiameterd connects to the server, relays what a client sends to it, adds Route-Record, and passes the answers on.
With its credit-control dictionaries loaded it also says what it thinks of every AVP the server sends.
"""

import itertools
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from balance.model import MAIN_BUCKET
from protocols.diameter import codec
from protocols.diameter.codec import Message, avp
from tests.interop.conftest import NewSubscriber
from tests.live_server import LiveServer
from tests.scenarios.checks import breaches
from tests.scenarios.clients import EVENT, INITIAL, PROFILES, TERMINATION, UPDATE, Head
from tests.scenarios.expectations import complaints, describe
from tests.scenarios.notation import service_avps, service_clause
from tests.scenarios.requests import Request
from tests.wire import Connection

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("freeDiameterd") is None, reason="freeDiameterd is not installed; apt install freediameter"
    ),
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="openssl, which makes the relay's key, is not installed"
    ),
]

RELAY = "relay.relays.example.net"
RELAY_REALM = "relays.example.net"
PATIENCE_S = 20.0
UNKNOWN = "not found in dictionary"
"""freeDiameter's remark on an AVP it does not know."""

_numbers = itertools.count(1)

CONFIGURATION = """
Identity = "{relay}";
Realm = "{realm}";
Port = {port};
SecPort = 0;
No_SCTP;
No_IPv6;
ListenOn = "127.0.0.1";
TwTimer = 6;
TLS_Cred = "{directory}/cert.pem" , "{directory}/key.pem";
TLS_CA = "{directory}/cert.pem";
LoadExtension = "dict_nasreq.fdx";
LoadExtension = "dict_dcca.fdx";
LoadExtension = "dict_dcca_3gpp.fdx";
LoadExtension = "dbg_msg_dumps.fdx" : "0x8888";
LoadExtension = "rt_default.fdx" : "{directory}/routes.conf";
LoadExtension = "acl_wl.fdx" : "{directory}/peers.conf";
ConnectPeer = "{server}" {{ ConnectTo = "127.0.0.1"; Port = {server_port}; No_TLS; No_SCTP; No_IPv6; }};
"""


def until(condition: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about; freeDiameterd said:\n{log.read_text()[-3000:]}"
        time.sleep(0.02)


class Relay:
    """freeDiameterd with a configuration of its own, connected to the server."""

    def __init__(self, directory: Path, server: LiveServer, identity: str = RELAY) -> None:
        self.server = server
        self.identity = identity
        self.log = directory / "log"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={identity}"]
        subprocess.run(
            [*openssl, "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
            check=True,
            capture_output=True,
        )
        (directory / "routes.conf").write_text(f'* : "{server.origin_host}" += 50 ;\n', encoding="ascii")
        (directory / "peers.conf").write_text("ALLOW_OLD_TLS ALLOW_IPSEC *.example.net\n", encoding="ascii")
        configuration = directory / "relay.conf"
        configuration.write_text(
            CONFIGURATION.format(
                relay=identity,
                realm=RELAY_REALM,
                port=self.port,
                directory=directory,
                server=server.origin_host,
                server_port=server.port,
            ),
            encoding="ascii",
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["freeDiameterd", "-c", configuration, "-dd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def messages(self, heading: str) -> list[str]:
        """What freeDiameter wrote about each message under headings such as "RCV from 'x'"."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        parts = re.split(r"^.*(SND to|RCV from|FORWARDING:|'STATE_).*$", text, flags=re.MULTILINE)
        titles = re.findall(r"^.*(?:SND to|RCV from|FORWARDING:|'STATE_).*$", text, flags=re.MULTILINE)
        return [body for title, body in zip(titles, parts[2::2], strict=True) if heading in title]

    def received(self, command: str) -> list[str]:
        """The server's messages of a command as freeDiameter read them."""
        heading = f"RCV from '{self.server.origin_host}'"
        return [message for message in self.messages(heading) if f"'{command}'" in message]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, live_server: LiveServer) -> Iterator[Relay]:
    relay = Relay(tmp_path_factory.mktemp("relay"), live_server)
    try:
        opened = f"'STATE_WAITCEA'\t-> 'STATE_OPEN'\t'{live_server.origin_host}'"
        until(lambda: opened in relay.log.read_text(), "the connection with the server", relay.log)
        yield relay
    finally:
        relay.stop()


class Client:
    """A charging client of the relay's."""

    def __init__(self, relay: Relay, profile: str, host: str) -> None:
        self.relay = relay
        self.profile = PROFILES[profile]
        self.host = host
        self.connection = Connection.to(relay.port)
        answer = self.connection.ask(Request(257, 0, 0x80, [*map(_of_realm, self.profile.capabilities(host))]).octets())
        assert complaints(answer, "CEA 2001") == []

    def ask(self, session: str, kind: int, number: int, msisdn: str, services: str, *extra: bytes) -> Message:
        """Send one CCR to the relay; its answer has kept to everything that answers must keep to."""
        clause = service_clause(services)
        assert clause is not None
        plus = "+" if self.profile is PROFILES["Kamailio"] else ""
        head = Head(
            self.host, f"{self.host};{session}", kind, number, [(0, plus + msisdn)], self.relay.server.origin_host
        )
        avps = [*map(_of_realm, self.profile.request(head, service_avps(clause))), *extra]
        request = Request(272, 4, 0xC0, avps).octets()
        self.connection.send(request)
        answer = self.connection.receive()
        assert breaches(request, answer, self.relay.server.origin_host) == []
        return codec.decode(answer)


def _of_realm(encoded: bytes) -> bytes:
    """The client lives in a realm of its own, so that the relay must look for the server's."""
    is_realm = int.from_bytes(encoded[:4], "big") == 296
    return avp("Origin-Realm", "clients.example.net") if is_realm else encoded


@pytest.fixture
def client(relay: Relay, request: pytest.FixtureRequest) -> Iterator[Client]:
    # A name for each: freeDiameter turns away a peer that comes back within a second.
    client = Client(relay, getattr(request, "param", "a PGW"), f"client{next(_numbers)}.example.net")
    yield client
    client.connection.close()


def assert_answer(answer: Message, expected: str) -> None:
    assert complaints(answer, expected) == [], describe(answer)


def money(server: LiveServer, account: str) -> tuple[int, int]:
    bucket = server.account(account).bucket(MAIN_BUCKET)
    assert bucket is not None
    return bucket.balance, bucket.reserved


@pytest.mark.shows("row 1", "row 2", "relay-every-application")
def test_relay_is_let_in(relay: Relay) -> None:
    """Rows 1 and 2: a relay has every application in common; it likes our CEA."""

    async def peers() -> dict[str, tuple[int, ...]]:
        return {peer.origin_host: peer.applications for peer in relay.server.server.node.peers()}

    assert relay.server.run(peers())[RELAY] == (4, 16777302)
    (answer,) = relay.received("Capabilities-Exchange-Answer")
    assert "DIAMETER_SUCCESS" in answer
    assert UNKNOWN not in answer


@pytest.mark.shows("row 7", "row 15", "row 20", "relay-route-record")
def test_session_through_the_relay(client: Client, relay: Relay, new_subscriber: NewSubscriber) -> None:
    """Rows 7, 15 and 20: requests with Route-Record are charged, and their answers come back."""
    account, msisdn = new_subscriber(20_000)
    answer = client.ask("1", INITIAL, 0, msisdn, "RG 10: wants 1 MiB")
    assert_answer(answer, "2001; Route-Record; RG 10: 2001, granted 1 MiB, valid 30 min")
    answer = client.ask("1", UPDATE, 1, msisdn, "RG 10: used 1 MiB, wants 5 MiB")
    assert_answer(answer, "2001; Route-Record; RG 10: 2001, granted 1 MiB, final units")
    assert money(relay.server, account) == (10_000, 10_000)
    answer = client.ask("1", TERMINATION, 2, msisdn, "RG 10: used 1 octet")
    assert_answer(answer, "2001; Route-Record; RG 10: 2001")
    assert money(relay.server, account) == (0, 0)
    forwarded = [
        message for message in relay.messages(f"SND to '{relay.server.origin_host}'") if client.host in message
    ]
    assert len(forwarded) == 3
    assert all(f"'Route-Record'(282) l={8 + len(client.host)}" in message for message in forwarded)


@pytest.mark.shows("row 19", "row 24")
@pytest.mark.parametrize(
    ("client", "asked", "granted"),
    [
        ("Open5GS", "MSCC: wants 1000000 octets", "MSCC: 2001, granted 1000000 octets, valid 30 min"),
        ("Kamailio", "RG 100 SI 1000: wants 30 s", "RG 100 SI 1000: 2001, granted 30 s, valid 5 min"),
    ],
    indirect=["client"],
)
def test_real_clients_through_the_relay(
    client: Client, asked: str, granted: str, new_subscriber: NewSubscriber
) -> None:
    """Rows 19 and 24: what Open5GS and Kamailio send survives the relay both ways."""
    _, msisdn = new_subscriber(1_000_000)
    assert_answer(client.ask("1", INITIAL, 0, msisdn, asked), f"2001; {granted}")
    assert_answer(client.ask("1", TERMINATION, 1, msisdn, f"{asked.partition(':')[0]}:"), "2001; " + _settled(granted))


def _settled(granted: str) -> str:
    return granted.partition(",")[0]


@pytest.mark.shows("row 22", "row 28")
def test_refusals_through_the_relay(client: Client, new_subscriber: NewSubscriber) -> None:
    """Rows 13, 22 and 28: errors come back with their Failed-AVP."""
    _, msisdn = new_subscriber(0)
    assert_answer(client.ask("1", INITIAL, 0, msisdn, "RG 10: wants 1 MiB"), "4012; RG 10: 4012")
    assert_answer(client.ask("2", INITIAL, 0, "491799999999", "RG 10: wants 1 MiB"), "5030")
    assert_answer(client.ask("3", UPDATE, 1, msisdn, "RG 10: used 1 MiB"), "5002")
    answer = client.ask("4", EVENT, 0, msisdn, "RG 77: wants 1 MiB")
    assert_answer(answer, "5031; RG 77: 5031; Failed-AVP Rating-Group=77")


@pytest.mark.shows("row 7", "relay-proxy-info")
def test_proxy_info_through_the_relay(client: Client, new_subscriber: NewSubscriber) -> None:
    """Row 7: Proxy-Info comes back through the relay, in order; ``ask`` compares it."""
    _, msisdn = new_subscriber(1_000_000)
    infos = [
        avp("Proxy-Info", [avp("Proxy-Host", f"{name}.example.net"), avp("Proxy-State", name.encode())])
        for name in ("first", "second")
    ]
    assert_answer(
        client.ask("1", EVENT, 0, msisdn, "RG 10: wants 1 MiB", *infos), "2001; Proxy-Info; RG 10: 2001, granted 1 MiB"
    )


@pytest.mark.shows("row 5", "relay-watchdog")
def test_relay_watches_the_server(relay: Relay) -> None:
    """Row 5: freeDiameter's DWRs (Tw 6 s) are answered."""
    until(lambda: bool(relay.received("Device-Watchdog-Answer")), "a DWA", relay.log)
    assert "DIAMETER_SUCCESS" in relay.received("Device-Watchdog-Answer")[0]


@pytest.mark.shows("freediameter-unknown-m-bit")
def test_relay_knows_all_that_the_server_sends(
    client: Client, relay: Relay, live_server: LiveServer, new_subscriber: NewSubscriber
) -> None:
    """freeDiameter drops an answer with an AVP it does not know if that has the M bit: it knows all of ours."""
    _, msisdn = new_subscriber(10_000)
    client.ask("1", INITIAL, 0, msisdn, "RG 10: wants 2 MiB")
    answers = relay.received("Credit-Control-Answer")
    assert "'Final-Unit-Action'(449)" in answers[-1]
    assert not [answer for answer in answers if UNKNOWN in answer]
    # The remark is really what it says about such an AVP.
    client.ask("2", EVENT, 0, msisdn, "RG 10: wants 1 octet", codec.raw_avp(9999, 0, 0, b"none"))
    assert any(UNKNOWN in message for message in relay.messages(f"RCV from '{client.host}'"))
