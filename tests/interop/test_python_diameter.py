"""python-diameter, an independent implementation, as a client: its codec and its peer against the whole server."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from balance.model import MAIN_BUCKET
from tests.interop.conftest import NewSubscriber
from tests.live_server import LiveServer

constants = pytest.importorskip("diameter.message.constants", reason="python-diameter is not installed")
from diameter.message import Message  # noqa: E402
from diameter.message.avp.grouped import (  # noqa: E402
    MultipleServicesCreditControl,
    RequestedServiceUnit,
    SubscriptionId,
    UsedServiceUnit,
)
from diameter.message.commands.credit_control import CreditControlAnswer, CreditControlRequest  # noqa: E402
from diameter.node import Node  # noqa: E402
from diameter.node.application import Application  # noqa: E402
from diameter.node.peer import PEER_READY  # noqa: E402

pytestmark = pytest.mark.interop

REALM = "ocs.example.net"
MEBIBYTE = 1 << 20
PATIENCE_S = 10


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.01)


class Client:
    """A python-diameter node that is connected to the server."""

    def __init__(self, server: LiveServer, host: str) -> None:
        self.host = host
        self.server = server
        self.node = Node(host, REALM, vendor_ids=[10415])
        self.node.wakeup_interval = 1
        self.peer = self.node.add_peer(
            f"aaa://{server.origin_host}:{server.port};transport=tcp", REALM, ip_addresses=["127.0.0.1"]
        )
        self.peer.persistent = True
        self.application = Application(constants.APP_DIAMETER_CREDIT_CONTROL_APPLICATION, is_auth_application=True)
        self.node.add_application(self.application, [self.peer])
        self.node.start()
        self.application.wait_for_ready(PATIENCE_S)

    def request(self, session: str, kind: int, number: int, msisdn: str, context: str = "32251@3gpp.org") -> Any:
        request = CreditControlRequest()
        request.session_id = f"{self.host};{session}"
        request.origin_host = self.host.encode()
        request.origin_realm = REALM.encode()
        request.destination_realm = REALM.encode()
        request.auth_application_id = constants.APP_DIAMETER_CREDIT_CONTROL_APPLICATION
        request.service_context_id = context
        request.cc_request_type = kind
        request.cc_request_number = number
        request.subscription_id = [
            SubscriptionId(
                subscription_id_type=constants.E_SUBSCRIPTION_ID_TYPE_END_USER_E164, subscription_id_data=msisdn
            )
        ]
        return request

    def ask(self, request: Any) -> Any:
        answer = self.application.send_request(request, PATIENCE_S)
        assert isinstance(answer, CreditControlAnswer)
        assert answer.session_id == request.session_id
        assert answer.origin_host == self.server.origin_host.encode()
        assert answer.origin_realm == REALM.encode()
        assert answer.cc_request_type == request.cc_request_type
        assert answer.cc_request_number == request.cc_request_number
        assert answer.auth_application_id == 4
        return answer

    def stop(self) -> None:
        self.node.stop(wait_timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def client(live_server: LiveServer) -> Iterator[Client]:
    client = Client(live_server, "python-diameter.example.net")
    yield client
    client.stop()


def service(rating_group: int, *, wants: int | None = None, used: int | None = None) -> Any:
    found = MultipleServicesCreditControl(rating_group=rating_group)
    if wants is not None:
        found.requested_service_unit = RequestedServiceUnit(cc_total_octets=wants)
    if used is not None:
        found.used_service_unit = [UsedServiceUnit(cc_total_octets=used)]
    return found


def money(server: LiveServer, account: str) -> tuple[int, int]:
    bucket = server.account(account).bucket(MAIN_BUCKET)
    assert bucket is not None
    return bucket.balance, bucket.reserved


@pytest.mark.shows("row 1", "row 2")
def test_capabilities(client: Client) -> None:
    """Rows 1 and 2: CER and CEA, read by the other side."""
    connection = client.peer.connection
    assert connection.state == PEER_READY
    assert connection.host_identity == client.server.origin_host
    assert set(connection.auth_application_ids) == {constants.APP_DIAMETER_CREDIT_CONTROL_APPLICATION}


@pytest.mark.shows("row 19", "row 20", "row 24")
def test_session(client: Client, new_subscriber: NewSubscriber) -> None:
    """Rows 19, 20, 24 and 29: I, U, T; grants down to the last unit."""
    account, msisdn = new_subscriber(20_000)
    request = client.request("session", constants.E_CC_REQUEST_TYPE_INITIAL_REQUEST, 0, msisdn)
    request.multiple_services_indicator = constants.E_MULTIPLE_SERVICES_INDICATOR_MULTIPLE_SERVICES_SUPPORTED
    request.multiple_services_credit_control = [service(10, wants=MEBIBYTE)]
    answer = client.ask(request)
    assert answer.result_code == constants.E_RESULT_CODE_DIAMETER_SUCCESS
    (granted,) = answer.multiple_services_credit_control
    assert granted.rating_group == 10
    assert granted.result_code == constants.E_RESULT_CODE_DIAMETER_SUCCESS
    assert granted.granted_service_unit.cc_total_octets == MEBIBYTE
    assert granted.validity_time == 1800
    assert granted.final_unit_indication is None
    assert money(client.server, account) == (20_000, 10_000)

    request = client.request("session", constants.E_CC_REQUEST_TYPE_UPDATE_REQUEST, 1, msisdn)
    request.multiple_services_credit_control = [service(10, wants=5 * MEBIBYTE, used=MEBIBYTE)]
    (granted,) = client.ask(request).multiple_services_credit_control
    assert granted.granted_service_unit.cc_total_octets == MEBIBYTE
    assert granted.final_unit_indication.final_unit_action == constants.E_FINAL_UNIT_ACTION_TERMINATE
    assert money(client.server, account) == (10_000, 10_000)

    request = client.request("session", constants.E_CC_REQUEST_TYPE_TERMINATION_REQUEST, 2, msisdn)
    request.multiple_services_credit_control = [service(10, used=1)]
    answer = client.ask(request)
    assert answer.result_code == constants.E_RESULT_CODE_DIAMETER_SUCCESS
    (settled,) = answer.multiple_services_credit_control
    assert settled.granted_service_unit is None
    assert money(client.server, account) == (0, 0)


@pytest.mark.shows("row 16")
def test_repeat_with_t_flag(client: Client, new_subscriber: NewSubscriber) -> None:
    """Row 16: the same request with the T flag gets the same answer and is charged once."""
    account, msisdn = new_subscriber(1_000_000)
    first = client.request("repeat", constants.E_CC_REQUEST_TYPE_EVENT_REQUEST, 0, msisdn)
    first.requested_action = constants.E_REQUESTED_ACTION_DIRECT_DEBITING
    first.multiple_services_credit_control = [service(10, wants=MEBIBYTE)]
    answer = client.ask(first)
    again = Message.from_bytes(first.as_bytes())
    again.header.is_retransmit = True
    again.header.hop_by_hop_identifier = 0
    repeated = client.ask(again)
    assert not repeated.header.is_retransmit
    assert repeated.header.end_to_end_identifier == answer.header.end_to_end_identifier
    assert repeated.result_code == constants.E_RESULT_CODE_DIAMETER_SUCCESS
    assert [avp.as_bytes() for avp in repeated.avps] == [avp.as_bytes() for avp in answer.avps]
    assert money(client.server, account) == (990_000, 0)


@pytest.mark.shows("row 19")
def test_event(client: Client, new_subscriber: NewSubscriber) -> None:
    """Row 19: direct debiting of a short message, all of it or nothing."""
    account, msisdn = new_subscriber(70_000)
    for number, expected, left in ((1, "SUCCESS", 20_000), (2, "CREDIT_LIMIT_REACHED", 20_000)):
        request = client.request(
            f"event-{number}", constants.E_CC_REQUEST_TYPE_EVENT_REQUEST, 0, msisdn, "32274@3gpp.org"
        )
        request.requested_action = constants.E_REQUESTED_ACTION_DIRECT_DEBITING
        request.service_identifier = 1
        request.requested_service_unit = RequestedServiceUnit(cc_service_specific_units=1)
        answer = client.ask(request)
        assert answer.result_code == getattr(constants, f"E_RESULT_CODE_DIAMETER_{expected}")
        if expected == "SUCCESS":
            assert answer.granted_service_unit.cc_service_specific_units == 1
        assert money(client.server, account) == (left, 0)


@pytest.mark.shows("row 22", "row 28")
def test_refusals(client: Client, new_subscriber: NewSubscriber) -> None:
    """Rows 22 and 28: unknown user, unknown session, unrateable service with its Failed-AVP."""
    account, msisdn = new_subscriber(1_000_000)
    request = client.request("unknown-user", constants.E_CC_REQUEST_TYPE_INITIAL_REQUEST, 0, "491799999999")
    request.multiple_services_credit_control = [service(10, wants=MEBIBYTE)]
    assert client.ask(request).result_code == constants.E_RESULT_CODE_DIAMETER_USER_UNKNOWN
    request = client.request("unknown-session", constants.E_CC_REQUEST_TYPE_UPDATE_REQUEST, 1, msisdn)
    request.multiple_services_credit_control = [service(10, used=MEBIBYTE)]
    assert client.ask(request).result_code == constants.E_RESULT_CODE_DIAMETER_UNKNOWN_SESSION_ID
    request = client.request("unrateable", constants.E_CC_REQUEST_TYPE_INITIAL_REQUEST, 0, msisdn)
    request.multiple_services_credit_control = [service(77, wants=MEBIBYTE)]
    answer = client.ask(request)
    assert answer.result_code == constants.E_RESULT_CODE_DIAMETER_RATING_FAILED
    (failed,) = answer.find_avps((constants.AVP_FAILED_AVP, 0))
    assert [(avp.code, avp.value) for avp in failed.value] == [(constants.AVP_RATING_GROUP, 77)]
    assert money(client.server, account) == (1_000_000, 0)


@pytest.mark.shows("row 13")
def test_missing_avp(client: Client) -> None:
    """Row 13: 5005 and an example of what is missing."""
    request = client.request("incomplete", constants.E_CC_REQUEST_TYPE_INITIAL_REQUEST, 0, "491799999999")
    request.service_context_id = None
    answer = client.ask(request)
    assert answer.result_code == constants.E_RESULT_CODE_DIAMETER_MISSING_AVP
    (failed,) = answer.find_avps((constants.AVP_FAILED_AVP, 0))
    assert [avp.code for avp in failed.value] == [constants.AVP_SERVICE_CONTEXT_ID]


@pytest.mark.shows("row 5")
def test_watchdog(client: Client) -> None:
    """Row 5: a DWR is answered."""
    connection = client.peer.connection
    before = client.peer.counters.dwa
    client.node.send_dwr(connection)
    until(lambda: not connection.is_waiting_for_dwa, "a DWA")
    assert connection.state == PEER_READY
    assert client.peer.counters.dwa > before


@pytest.mark.shows("row 6")
def test_client_takes_leave(live_server: LiveServer) -> None:
    """Row 6: DPR, DPA, and the connection is gone on both sides."""
    leaving = Client(live_server, "leaving.example.net")
    assert "leaving.example.net" in peers(live_server)
    connection = leaving.peer.connection
    leaving.stop()
    assert not leaving.node.connections
    assert connection.state != PEER_READY
    assert leaving.peer.counters.dpa == 1
    until(lambda: "leaving.example.net" not in peers(live_server), "the end of the connection")


@pytest.mark.shows("row 6")
def test_server_takes_leave(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Row 6: the server's own DPR is answered before it closes."""
    server = LiveServer(tmp_path_factory.mktemp("leaving")).start()
    client = Client(server, "staying.example.net")
    try:
        server.stop()
        until(lambda: not client.node.connections, "the end of the connection")
        assert client.peer.counters.dpr == 1
    finally:
        client.stop()


def peers(server: LiveServer) -> list[str]:
    async def names() -> list[str]:
        return [peer.origin_host for peer in server.server.node.peers()]

    return server.run(names())
