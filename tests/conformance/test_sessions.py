"""What sessions weigh, leave in records and metrics, and how they are aborted: what no scenario sees."""

import json
import time
import urllib.request
from pathlib import Path
from types import TracebackType

import pytest

from balance.model import IdentityType
from occ.server_requests import Meaning, Result
from protocols.diameter.codec import Message
from protocols.diameter.codes import Flag
from tests.live_server import LiveServer
from tests.scenarios.clients import INITIAL, PROFILES, TERMINATION, UPDATE, Head
from tests.scenarios.expectations import complaints
from tests.scenarios.notation import service_avps, service_clause
from tests.scenarios.requests import Request
from tests.wire import Connection

CAPABILITIES_EXCHANGE, CREDIT_CONTROL = 257, 272
RESULT_CODE, ORIGIN_STATE_ID = 268, 278
IMSI, MSISDN = "262010000000001", "491700000001"
CLIENT = "smf.epc.mnc001.mcc262.3gppnetwork.org"
SESSIONS = 40
OCTETS_A_SESSION = 1024
PATIENCE_S = 10.0


def result_code(answer: Message) -> int:
    found = answer.find(RESULT_CODE)
    assert found is not None
    return int.from_bytes(found.data, "big")


class Client:
    """A client of a profile, its one subscriber, and its connection."""

    def __init__(self, server: LiveServer, profile: str, subscriptions: list[tuple[int, str]]) -> None:
        self.server = server
        self.request = PROFILES[profile].request
        self.subscriptions = subscriptions
        self.connection = Connection.to(server.port)
        capabilities = Request(CAPABILITIES_EXCHANGE, 0, Flag.REQUEST, PROFILES[profile].capabilities(CLIENT))
        assert result_code(self.connection.ask(capabilities.octets())) == 2001

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.connection.close()

    def session_id(self, session: int) -> str:
        return f"{CLIENT};1760000000;{session};app_gy"

    def result(self, session: int, kind: int, services: str) -> int:
        """Result-Code of a request's answer."""
        return result_code(self.ask(session, kind, services))

    def ask(self, session: int, kind: int, services: str) -> Message:
        """The answer to the first, second or last request of a session."""
        clause = service_clause(services)
        assert clause is not None
        number = (INITIAL, UPDATE, TERMINATION).index(kind)
        now_s = self.server.now_ms() // 1000
        head = Head(CLIENT, self.session_id(session), kind, number, self.subscriptions, self.server.origin_host, now_s)
        avps = self.request(head, service_avps(clause))
        return self.connection.ask(Request(CREDIT_CONTROL, 4, Flag.REQUEST | Flag.PROXIABLE, avps).octets())


def octets_by_key(server: LiveServer) -> dict[bytes, int]:
    """What each key takes in Redis, but for journal and outbox, which are histories."""
    store = server.server.store
    histories = {store.keys.journal(0), store.keys.outbox(0)}
    keys = set(server.run(store.call("KEYS", "*"))) - histories
    return {key: server.run(store.call("MEMORY", "USAGE", key)) for key in keys}


@pytest.mark.shows("operators-memory")
def test_a_session_weighs_little_and_nothing_for_good(tmp_path: Path) -> None:
    with LiveServer(tmp_path) as server, Client(server, "Open5GS", [(1, IMSI)]) as client:
        server.run(server.server.policy_reload.stop())  # it would note meanwhile that all accounts were looked at
        server.add_account("a", [(IdentityType.IMSI, IMSI)], balance_micro=10_000_000)
        before = octets_by_key(server)
        for session in range(SESSIONS):
            assert client.result(session, INITIAL, "MSCC: wants 1000000 octets") == 2001
        assert server.verify().open_sessions == SESSIONS
        opened = octets_by_key(server)
        assert sum(opened.values()) - sum(before.values()) < SESSIONS * OCTETS_A_SESSION

        for session in range(SESSIONS):
            assert client.result(session, TERMINATION, "MSCC: used in 1 octet out 1 octet") == 2001
        server.pass_time(2 * 3_600_000)  # the expiry index looks once more, and lets go
        ended = octets_by_key(server)
        store = server.server.store
        kept = [key for key in ended.keys() - before.keys() if server.run(store.call("PTTL", key)) < 0]
        assert kept == [], "keys of ended sessions that never expire"
        # Its numbers have grown, its sessions are gone.
        assert all(octets <= before[key] + 64 for key, octets in ended.items() if key in before)


@pytest.mark.shows("kamailio-ims-information", "kamailio-absurd-usage")
def test_the_record_of_a_call_has_its_parties_and_what_was_not_believed(tmp_path: Path) -> None:
    with LiveServer(tmp_path) as server, Client(server, "Kamailio", [(0, f"+{MSISDN}")]) as client:
        server.add_account("a", [(IdentityType.E164, MSISDN)], balance_micro=10_000_000)
        assert client.result(1, INITIAL, "RG 100 SI 1000: wants 30 s") == 2001
        assert client.result(1, TERMINATION, "RG 100 SI 1000: used 71582788 s") == 2001
        deadline = time.monotonic() + PATIENCE_S
        while not server.cdr_lines() and time.monotonic() < deadline:
            time.sleep(0.02)
        (record,) = map(json.loads, server.cdr_lines())
        assert record["session_id"] == client.session_id(1)
        assert record["calling_party"] == f"tel:+{MSISDN}"
        assert record["called_party"] == "sip:callee@ims.example.net"
        assert record["used"] <= 30
        assert record["used"] + record["disbelieved"] == 71_582_788
        url = f"http://127.0.0.1:{server.server.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            assert "\nocc_disbelieved_reports_total 1.0\n" in answer.read().decode()


@pytest.mark.shows("row 43", "open5gs-abort-refused", "kamailio-never-answers")
@pytest.mark.parametrize(
    ("profile", "subscription", "service", "wants", "used", "answered"),
    [
        ("Open5GS", (1, IMSI), "MSCC", "wants 1000000 octets", "used in 1000000 octets out 0 octets", "4010"),
        ("Kamailio", (0, f"+{MSISDN}"), "RG 100 SI 1000", "wants 30 s", "used 22 s", "2001, granted 1 s, final units"),
    ],
    ids=["Open5GS", "Kamailio"],
)
def test_a_client_that_cannot_be_aborted_is_not_asked_and_granted_nothing_more(
    tmp_path: Path, profile: str, subscription: tuple[int, str], service: str, wants: str, used: str, answered: str
) -> None:
    """The one would answer an ASR with 5005, the other not at all; both report sooner or later.

    The one ends a session that is refused more, the other one that is granted a last second.
    """
    with LiveServer(tmp_path) as server, Client(server, profile, [subscription]) as client:
        server.add_account("a", [(IdentityType.IMSI, IMSI), (IdentityType.E164, MSISDN)], balance_micro=1_000_000)
        assert client.result(1, INITIAL, f"{service}: {wants}") == 2001

        async def abort() -> Result:
            return await server.server.reauthorisation.abort(b"a", client.session_id(1).encode())

        assert server.run(abort()).meaning is Meaning.NOT_ASKED
        # What comes next on the connection is the answer to this: no ASR was sent.
        answer = client.ask(1, UPDATE, f"{service}: {used}, {wants}")
        assert complaints(answer, f"2001; {service}: {answered}") == []
        assert client.result(1, TERMINATION, f"{service}: used 0 {'octets' if service == 'MSCC' else 's'}") == 2001
        report = server.verify()
        assert report.consistent, report.discrepancies
        assert (report.open_sessions, report.open_reservations) == (0, 0)


def own_state_id(directory: Path, passed_ms: int) -> int:
    """Origin-State-Id of a server over the store of a directory."""
    server = LiveServer(directory)
    server.passed_ms = passed_ms
    with server, Connection.to(server.port) as connection:
        found = connection.exchange_capabilities(CLIENT).find(ORIGIN_STATE_ID)
        assert found is not None
        return int.from_bytes(found.data, "big")


def test_row_17_the_servers_own_origin_state_id_rises_when_its_sessions_are_lost_and_only_then(tmp_path: Path) -> None:
    """RFC 6733 section 8.16: sessions live in the store, which outlives the server."""
    (tmp_path / "new").mkdir()
    first = own_state_id(tmp_path, 0)
    assert own_state_id(tmp_path, 60_000) == first
    assert own_state_id(tmp_path / "new", 60_000) > first
