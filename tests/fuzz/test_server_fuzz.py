"""Hostile clients against the whole server: mutated requests and garbage, a fixed budget of each.

Whatever they send, the server keeps serving a well-behaved client to the last micro-unit, logs no fault of its own,
holds on to nothing that they left behind, and its ledger stays right.
"""

import logging
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

import pytest

from balance.model import MAIN_BUCKET, IdentityType
from protocols.credit_control.request import SHAPES
from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.shape import MAX_SHAPES
from tests.live_server import LiveServer
from tests.scenarios.clients import PROFILES
from tests.scenarios.expectations import complaints, describe
from tests.scenarios.requests import base_message, credit_control_request
from tests.wire import ClosedError, Connection, capabilities_request, next_number

BATCHES = 25
BATCH = 80
GARBAGE_CONNECTIONS = 60
PATIENCE_S = 10.0
ACCOUNTS = 5
BALANCE_MICRO = 5_000_000

GOOD_REQUESTS = (
    ("a PGW", "I 0; RG 10: wants 1 MiB; RG 11: wants anything"),
    ("a PGW", "U 1; RG 10: used 1 MiB, wants 1 MiB; RG 11: used in 5 kB out 9 kB because 4"),
    ("a PGW", "T 2; RG 10: used 10 kB; add Proxy-Info{Proxy-Host=a.example.net, Proxy-State=0x01}"),
    ("a PGW", "I 0; units: wants 2 MiB; Origin-State-Id=3; add Route-Record=relay.example.net"),
    ("Open5GS", "I 0; MSCC: wants 1000000 octets"),
    ("Open5GS", "U 1; MSCC: wants 1000000 octets, used 1 s + in 900000 octets out 100000 octets because 3"),
    ("Kamailio", "I 0; RG 100 SI 1000: wants 30 s"),
    ("Kamailio", "T 1; RG 100 SI 1000: used 30 s"),
    ("an SMSC", "E 0; RG 1: wants 1 event"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("fuzz")) as server:
        for number in range(ACCOUNTS):
            identities = [
                (IdentityType.E164, f"49174{number:07d}"),
                (IdentityType.IMSI, f"26204{number:010d}"),
            ]
            server.add_account(f"fuzz-{number}", identities, balance_micro=BALANCE_MICRO)
        yield server


# -- what hostile clients send -----------------------------------------------------------------------------------------


def request(random: Random, server: LiveServer, host: str) -> bytes:
    """A valid request of one of a few sessions, so that mutated ones also meet sessions that are open."""
    profile, text = random.choice(GOOD_REQUESTS)
    number = random.randrange(ACCOUNTS)
    identities = {"E164": f"49174{number:07d}", "IMSI": f"26204{number:010d}"}
    session_id = f"fuzz;{profile};{number};{random.randrange(10)}"
    built, _, _ = credit_control_request(text, PROFILES[profile], host, session_id, server.origin_host, identities)
    return built.octets()


def flip_octets(random: Random, message: bytes) -> bytes:
    octets = bytearray(message)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        octets[random.randrange(4, len(octets))] = random.randrange(256)
    return bytes(octets)


def flip_header(random: Random, message: bytes) -> bytes:
    octets = bytearray(message)
    octets[random.choice((0, 4, 5, 6, 7, 8, 9, 10, 11))] = random.randrange(256)
    return bytes(octets)


def change_avps(random: Random, message: bytes) -> bytes:
    """Drop, repeat, reorder or cut AVPs; or put one into another."""
    avps = [one.encode() for one in codec.decode(message).avps]
    index = random.randrange(len(avps))
    what = random.randrange(5)
    if what == 0:
        del avps[index]
    elif what == 1:
        avps[index:index] = [avps[index]] * random.choice((1, 2, 50))
    elif what == 2:
        random.shuffle(avps)
    elif what == 3:
        avps[index] = avps[index][: random.randrange(len(avps[index])) & ~3]
    else:
        for _ in range(random.choice((1, 11, 12, 13, 200))):
            avps[index] = codec.raw_avp(random.choice((456, 873, 443, 9999)), 0, 0x40, avps[index])
    return message[:20] + b"".join(avps)


def change_length(random: Random, message: bytes) -> bytes:
    """A wrong length in some AVP header."""
    at = 20
    starts = []
    while at + 8 <= len(message):
        starts.append(at)
        at += max(8, int.from_bytes(message[at + 5 : at + 8], "big") + 3 & ~3)
    at = random.choice(starts)
    length = random.choice((0, 1, 7, 8, 9, 11, 12, 0xFFFFFF, random.randrange(400)))
    return message[: at + 5] + length.to_bytes(3, "big") + message[at + 8 :]


def extreme_numbers(random: Random, message: bytes) -> bytes:
    """The greatest, the smallest and odd numbers where numbers stand."""
    octets = bytearray(message)
    for code, size in (
        (421, 8),
        (412, 8),
        (414, 8),
        (420, 4),
        (417, 8),
        (415, 4),
        (432, 4),
        (439, 4),
        (278, 4),
        (55, 4),
    ):
        header = struct.pack(">II", code, 0x40000008 + size)
        at = octets.find(header)
        if at >= 0 and random.random() < 0.5:
            value = random.choice(
                (b"\xff" * size, b"\x00" * size, b"\x7f" + b"\xff" * (size - 1), random.randbytes(size))
            )
            octets[at + 8 : at + 8 + size] = value
    return bytes(octets)


MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (
    flip_octets,
    flip_header,
    change_avps,
    change_length,
    extreme_numbers,
)


def framed(message: bytes) -> bytes:
    """With a true length, so that the stream stays in step, and identifiers of its own."""
    body = message[20:] + bytes(-len(message) % 4)
    identifiers = struct.pack(">II", next_number(), next_number())
    return message[:1] + (20 + len(body)).to_bytes(3, "big") + message[4:12] + identifiers + body


# -- a well-behaved client ---------------------------------------------------------------------------------------------


class GoodClient:
    """Runs sessions on an account of its own and knows what must become of it."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.balance_micro = 1_000_000_000
        self.identities = {"E164": "491750000001"}
        server.add_account("good", [(IdentityType.E164, "491750000001")], balance_micro=self.balance_micro)
        self.connection = Connection.to(server.port)
        self.connection.exchange_capabilities("good.example.net")
        self.sessions = 0

    def run_session(self) -> None:
        self.sessions += 1
        self.ask("I 0; RG 10: wants 1 MiB", "2001; RG 10: 2001, granted 1 MiB, valid 30 min")
        self.ask("U 1; RG 10: used 1 MiB, wants 1 MiB", "2001; RG 10: 2001, granted 1 MiB, valid 30 min")
        self.ask("T 2; RG 10: used 1 MiB", "2001; RG 10: 2001")
        self.balance_micro -= 20_000
        bucket = self.server.account("good").bucket(MAIN_BUCKET)
        assert bucket is not None
        assert (bucket.balance, bucket.reserved) == (self.balance_micro, 0)

    def ask(self, text: str, expected: str) -> None:
        session_id = f"good.example.net;{self.sessions}"
        built, _, _ = credit_control_request(
            text, PROFILES["a PGW"], "good.example.net", session_id, self.server.origin_host, self.identities
        )
        answer = self.connection.ask(built.octets())
        assert complaints(answer, expected) == [], describe(answer)


@pytest.fixture(scope="module")
def good_client(server: LiveServer) -> GoodClient:
    return GoodClient(server)


def settle(server: LiveServer) -> None:
    """Until no request is under way."""
    deadline = time.monotonic() + PATIENCE_S
    while server.server.gy.statistics.in_flight:
        assert time.monotonic() < deadline, "a request is under way for ever"
        time.sleep(0.002)


def assert_no_faults(caplog: pytest.LogCaptureFixture) -> None:
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert not faults, [record.getMessage() for record in faults]


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("row 14", "operators-malformed-input")
@pytest.mark.parametrize("seed", range(4))
def test_mutated_requests(
    server: LiveServer, good_client: GoodClient, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """Rows 8 to 14: every answer can be read, and after every batch the server answers as if nothing had been."""
    random = Random(seed)
    answered = 0
    for batch in range(BATCHES):
        for number in range(ACCOUNTS):  # absurd reports empty them
            server.top_up(f"fuzz-{number}", BALANCE_MICRO)
        host = f"hostile{seed}-{batch}.example.net"
        with Connection.to(server.port) as connection, suppress(ClosedError):
            connection.exchange_capabilities(host)
            asked: set[bytes] = set()
            sent = []
            for _ in range(BATCH):
                message = framed(random.choice(MUTATIONS)(random, request(random, server, host)))
                asked.add(message[12:16])
                sent.append(message)
            connection.send(b"".join(sent))
            read_to_the_end(connection, host, asked)
            settle(server)
            read_to_the_end(connection, host, asked)
            answered += BATCH - len(asked)
        good_client.run_session()
    assert answered > BATCHES * BATCH // 2  # not answered: requests turned into answers, and what follows a DPR
    assert_no_faults(caplog)


def read_to_the_end(connection: Connection, host: str, asked: set[bytes]) -> None:
    """Read up to the answer to a DWR sent now, striking out the identifiers that were answered."""
    marker = base_message("DWR", PROFILES["a PGW"], host).octets()
    connection.send(marker)
    while True:
        answer = connection.receive(PATIENCE_S)
        decoded = codec.decode(answer)
        if answer[12:16] == marker[12:16]:
            return
        assert answer[12:16] in asked, f"an answer to nothing: {answer.hex()}"
        asked.remove(answer[12:16])
        assert not decoded.is_request


@pytest.mark.shows("row 14", "operators-malformed-input")
def test_garbage(server: LiveServer, good_client: GoodClient, caplog: pytest.LogCaptureFixture) -> None:
    """Row 14: octets that are no Diameter at all, before and after the capabilities exchange, cut off anywhere."""
    random = Random(7)
    for number in range(GARBAGE_CONNECTIONS):
        host = f"garbage{number}.example.net"
        with Connection.to(server.port) as connection, suppress(ClosedError):
            if random.random() < 0.7:
                connection.exchange_capabilities(host)
            good = request(random, server, host)
            connection.send(
                random.choice(
                    (
                        random.randbytes(random.randrange(1, 3000)),
                        good[: random.randrange(1, len(good))],
                        good[:1] + random.randbytes(3) + good[4:],
                        good + good[: random.randrange(1, 30)],
                        capabilities_request(host)[: random.randrange(1, 60)],
                        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
                        bytes(random.randrange(1, 100)),
                    )
                )
            )
        if number % 10 == 0:
            good_client.run_session()
    settle(server)
    assert_no_faults(caplog)


@pytest.mark.shows("row 14", "operators-malformed-input")
def test_absurd_sizes(server: LiveServer, good_client: GoodClient, caplog: pytest.LogCaptureFixture) -> None:
    """Many services in one request, many requests in one segment, a message as long as may be."""
    with Connection.to(server.port) as connection:
        connection.exchange_capabilities("absurd.example.net")
        services = [
            avp("Multiple-Services-Credit-Control", [avp("Requested-Service-Unit", []), avp("Rating-Group", group)])
            for group in range(1, 1500)
        ]
        random = Random(1)
        base = request(random, server, "absurd.example.net")
        connection.send(framed(base + b"".join(services)))
        assert codec.decode(connection.receive()).avps
        connection.send(b"".join(framed(base) for _ in range(500)))
        for _ in range(500):
            connection.receive()
        connection.send(framed(base + avp("User-Name", "x" * 70_000)))
        too_long = codec.decode(connection.receive())
        assert complaints(too_long, "5015") == []
        with pytest.raises(ClosedError):
            connection.receive()
    good_client.run_session()
    assert_no_faults(caplog)


@pytest.mark.shows("operators-malformed-input")
def test_nothing_is_left_behind(server: LiveServer, good_client: GoodClient) -> None:
    """What hostile clients made the server remember is bounded, and the ledger is right."""
    settle(server)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        states = server.run(_structures(server))
        if states["peers"] == ["good.example.net"] or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert states["peers"] == ["good.example.net"]
    assert states["connections"] == 1
    assert len(SHAPES) <= MAX_SHAPES
    statistics = server.server.charging.statistics
    while True:  # what goes on by the clock may come between the two counts
        report = server.assert_books_balance()
        counted = (statistics.open_sessions, statistics.open_reservations)
        if counted == (report.open_sessions, report.open_reservations) or time.monotonic() > deadline + PATIENCE_S:
            break
    assert counted == (report.open_sessions, report.open_reservations)
    assert report.open_sessions < 2_000
    good_client.run_session()
    good_client.connection.close()


async def _structures(server: LiveServer) -> dict[str, object]:
    node = server.server.node
    return {"peers": [peer.origin_host for peer in node.peers()], "connections": node.open_peers}
