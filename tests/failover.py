"""What the failover tests share: sessions apart from the ways they go by, ways that can be cut, agents that forward.

A ``Session`` writes requests and knows nothing of connections; a ``Way`` is one connection of one Diameter identity
with one server and sends whatever it is given. So a test says by which way each request of a session goes.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from balance.model import IdentityType
from protocols.credit_control import (
    CreditControlRequest,
    ReceivedAnswer,
    ServiceRequest,
    Units,
    decode_answer,
    decode_request,
    encode_request,
)
from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.codes import Application, Command, Flag
from tests.live_server import LiveServer
from tests.wire import Connection, next_number

REALM = "clients.example.net"
SERVER_REALM = "ocs.example.net"
CONTEXT = b"32251@3gpp.org"
MIB = 1 << 20
CENT = 10_000
"""Micro-units; what a started MiB of Rating-Group 10 costs in the sample catalogue."""
INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
PATIENCE_S = 20.0

_ORIGIN_HOST, _PROXY_INFO, _ROUTE_RECORD = 264, 284, 282


@dataclass
class Session:
    """One credit-control session of a client, as the client sees it. Everything is in MiB of Rating-Group 10."""

    client: str
    """Origin-Host."""
    session_id: str
    subscriber: str
    """E164."""
    state_id: int | None = None
    """Origin-State-Id of its requests."""
    names_subscriber: bool = True
    """Also after the first request."""
    server: str | None = None
    """Destination-Host after the first request."""
    number: int = -1
    used_mib: int = 0
    """Reported in all."""
    sent: list[bytes] = field(default_factory=list)

    def initial(self) -> bytes:
        return self.request(INITIAL, None)

    def update(self, used_mib: int = 1) -> bytes:
        return self.request(UPDATE, used_mib)

    def termination(self, used_mib: int = 1) -> bytes:
        return self.request(TERMINATION, used_mib)

    def event(self) -> bytes:
        """A direct debit of 10 MiB."""
        return self.request(EVENT, None)

    def request(self, kind: int, used_mib: int | None) -> bytes:
        """The next request; it asks for 10 MiB."""
        self.number += 1
        self.used_mib += used_mib or 0
        first = kind in (INITIAL, EVENT)
        asked = None if kind == TERMINATION else Units(total_octets=10 * MIB)
        used = () if used_mib is None else (Units(total_octets=used_mib * MIB),)
        request = CreditControlRequest(
            flags=Flag.REQUEST | Flag.PROXIABLE,
            hop_by_hop=next_number(),
            end_to_end=next_number(),
            session_id=self.session_id.encode(),
            origin_host=self.client.encode(),
            origin_realm=REALM.encode(),
            destination_realm=SERVER_REALM.encode(),
            service_context_id=CONTEXT,
            request_type=kind,
            request_number=self.number,
            services=(ServiceRequest(10, requested=asked, used=used),),
        )
        if first or self.names_subscriber:
            request.subscriptions = ((IdentityType.E164, self.subscriber.encode()),)
        if not first and self.server is not None:
            request.destination_host = self.server.encode()
        request.multiple_services_indicator = 1 if kind == INITIAL else None
        request.requested_action = 0 if kind == EVENT else None
        request.origin_state_id = self.state_id
        self.sent.append(encode_request(request))
        return self.sent[-1]


def again(request: bytes, *, end_to_end: bool = False) -> bytes:
    """The same request, sent once more: T flag, a new Hop-by-Hop Identifier (RFC 6733 section 5.5.4).

    ``end_to_end``: with a new End-to-End Identifier as well, as some clients do.
    """
    numbers = next_number().to_bytes(4, "big") + (next_number().to_bytes(4, "big") if end_to_end else request[16:20])
    return request[:4] + bytes((request[4] | Flag.RETRANSMIT,)) + request[5:12] + numbers + request[20:]


class Way:
    """One connection of ``identity`` with the server on ``port``, its capabilities exchanged.

    ``relay``: the identity is an agent's, which advertises the relay application and forwards the requests of others.
    ``hesitates_s``: before it says who it is.
    """

    def __init__(
        self, port: int, identity: str, *, relay: bool = False, state_id: int | None = None, hesitates_s: float = 0.0
    ) -> None:
        self.identity = identity
        self.relay = relay
        self.connection = Connection.to(port)
        time.sleep(hesitates_s)
        answer = self.connection.ask(_capabilities(identity, relay, state_id))
        result = answer.find(268)
        assert result is not None
        assert result.value() == 2001

    def __enter__(self) -> "Way":
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Close the connection without a DPR."""
        self.connection.close()

    def send(self, request: bytes) -> bytes:
        """Send one request, forwarded if this is an agent's connection; what went out."""
        octets = forwarded(request, self.identity) if self.relay else request
        self.connection.send(octets)
        return octets

    def receive(self, request: bytes) -> ReceivedAnswer:
        """The answer to what ``send`` returned: with its identifiers and its Proxy-Info (RFC 6733 section 6.2)."""
        octets = self.connection.receive()
        assert octets[12:20] == request[12:20]
        assert [one.encode() for one in codec.decode(octets).find_all(_PROXY_INFO)] == [
            one.encode() for one in codec.decode(request).find_all(_PROXY_INFO)
        ]
        return decode_answer(octets)

    def charge(self, request: bytes) -> ReceivedAnswer:
        """Send one request and await its answer."""
        return self.receive(self.send(request))

    def repeat(self, request: bytes, first: bytes | None = None) -> bytes:
        """Send a request again with T; what of its answer must be the same as the first time (``core``)."""
        self.receive(self.send(again(request)))
        return core(self.connection.received[-1])

    def state_changes(self, state_id: int) -> None:
        """DWR with a new Origin-State-Id."""
        avps = [*_origin(self.identity), avp("Origin-State-Id", state_id)]
        self.connection.ask(_base(Command.DEVICE_WATCHDOG, avps))


def core(answer: bytes) -> bytes:
    """An answer without what may differ by the way it takes: identifiers, Proxy-Info, and which server it was."""
    kept = [one.encode() for one in codec.decode(answer).avps if one.code not in (_ORIGIN_HOST, _PROXY_INFO)]
    return answer[4:12] + b"".join(kept)


def forwarded(request: bytes, agent: str) -> bytes:
    """What a relay makes of a request (RFC 6733 section 6.1.9): Route-Record of the sender, its own Proxy-Info."""
    origin = decode_request(request).origin_host.decode()
    state = next_number().to_bytes(4, "big")
    added = avp("Proxy-Info", [avp("Proxy-Host", agent), avp("Proxy-State", state)]) + avp("Route-Record", origin)
    length = len(request) + len(added)
    return request[:1] + length.to_bytes(3, "big") + request[4:12] + state + request[16:] + added


def _capabilities(identity: str, relay: bool, state_id: int | None) -> bytes:
    avps = [*_origin(identity), avp("Host-IP-Address", "127.0.0.1"), avp("Vendor-Id", 0), avp("Product-Name", "test")]
    if state_id is not None:
        avps.append(avp("Origin-State-Id", state_id))
    avps.append(avp("Auth-Application-Id", Application.RELAY if relay else Application.CREDIT_CONTROL))
    return _base(Command.CAPABILITIES_EXCHANGE, avps)


def _origin(identity: str) -> list[bytes]:
    realm = SERVER_REALM if identity.endswith(SERVER_REALM) else REALM
    return [avp("Origin-Host", identity), avp("Origin-Realm", realm)]


def _base(command: int, avps: Sequence[bytes]) -> bytes:
    return codec.build(command, Application.BASE, Flag.REQUEST, next_number(), next_number(), avps)


# -- the server's side ---------------------------------------------------------------------------------------------


def add_account(server: LiveServer, number: int, balance_micro: int = 1_000_000) -> str:
    """A prepaid account ``acc-NUMBER``; the MSISDN of its subscriber."""
    msisdn = f"4918{number:08}"
    server.add_account(f"acc-{number}", [(IdentityType.E164, msisdn)], balance_micro=balance_micro)
    return msisdn


def cents(server: LiveServer, number: int) -> tuple[int, int]:
    """Balance and reserved of an account, in hundredths."""
    bucket = server.account(f"acc-{number}").buckets[0]
    assert bucket.balance % CENT == bucket.reserved % CENT == 0
    return bucket.balance // CENT, bucket.reserved // CENT


def records(server: LiveServer) -> list[dict[str, object]]:
    """The charging data records that this server, and others on its store, have delivered."""
    return [json.loads(line) for line in server.store_cdr_lines()]


def metric(server: LiveServer, name: str) -> float:
    """What Prometheus reads."""
    with urlopen(f"http://127.0.0.1:{server.server.metrics_port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    (value,) = [sample.value for family in families for sample in family.samples if sample.name == name]
    return float(value)


def eventually(what: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
