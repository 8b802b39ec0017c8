"""python-diameter, an independent implementation, as a PCRF on Sy: its codec and its peer against the whole server."""

import itertools
import queue
from collections.abc import Iterator
from typing import Any

import pytest

from balance.directory import adjust_account, set_account_state
from balance.model import LifeState
from occ.lifecycle import check_change
from policies.counters import CounterStatus
from tests.interop.conftest import NewSubscriber
from tests.live_server import LiveServer
from tests.sy_lab import MICRO, Counters

constants = pytest.importorskip("diameter.message.constants", reason="python-diameter is not installed")
from diameter.message.avp import Avp  # noqa: E402
from diameter.message.avp.grouped import SubscriptionId  # noqa: E402
from diameter.message.commands.session_termination import (  # noqa: E402
    SessionTerminationAnswer,
    SessionTerminationRequest,
)
from diameter.message.commands.spending_limit import SpendingLimitAnswer, SpendingLimitRequest  # noqa: E402
from diameter.message.commands.spending_status_notification import (  # noqa: E402
    SpendingStatusNotificationRequest,
)
from diameter.node import Node  # noqa: E402
from diameter.node.application import SimpleThreadingApplication  # noqa: E402

pytestmark = pytest.mark.interop

HOST = "pcrf.policy.example.net"
REALM = "ocs.example.net"
PATIENCE_S = 10
RESETS_S = 2_000_000_000
NTP_EPOCH_S = 2_208_988_800
"""From 1900 to 1970: a Time counts from 1900 on (RFC 6733 section 4.3.1)."""

_sessions = itertools.count(1)


class Pcrf:
    """A python-diameter node with Sy that is connected to the server."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.told: queue.Queue[Any] = queue.Queue()
        self.node = Node(HOST, REALM, vendor_ids=[10415])
        self.node.wakeup_interval = 1
        peer = self.node.add_peer(
            f"aaa://{server.origin_host}:{server.port};transport=tcp", REALM, ip_addresses=["127.0.0.1"]
        )
        peer.persistent = True
        self.application = SimpleThreadingApplication(
            constants.APP_3GPP_SY, is_auth_application=True, request_handler=self._on_request
        )
        self.node.add_application(self.application, [peer])
        self.node.start()
        self.application.wait_for_ready(PATIENCE_S)

    def _on_request(self, application: Any, request: Any) -> Any:
        self.told.put(request)
        return application.generate_answer(request, result_code=constants.E_RESULT_CODE_DIAMETER_SUCCESS)

    def head(self, request: Any, session: str) -> Any:
        request.session_id = session
        request.origin_host = HOST.encode()
        request.origin_realm = REALM.encode()
        request.destination_realm = REALM.encode()
        request.auth_application_id = constants.APP_3GPP_SY
        request.header.application_id = constants.APP_3GPP_SY
        return request

    def slr(self, session: str, kind: int, msisdn: str = "", *counters: str) -> Any:
        request = self.head(SpendingLimitRequest(), session)
        request.sl_request_type = kind
        if msisdn:
            request.subscription_id = [
                SubscriptionId(
                    subscription_id_type=constants.E_SUBSCRIPTION_ID_TYPE_END_USER_E164, subscription_id_data=msisdn
                )
            ]
        for each in counters:
            request.append_avp(Avp.new(constants.AVP_TGPP_POLICY_COUNTER_IDENTIFIER, constants.VENDOR_TGPP, value=each))
        answer = self.application.send_request(request, PATIENCE_S)
        assert isinstance(answer, SpendingLimitAnswer)
        assert (answer.session_id, answer.auth_application_id) == (session, constants.APP_3GPP_SY)
        return answer

    def end(self, session: str) -> Any:
        request = self.head(SessionTerminationRequest(), session)
        request.termination_cause = constants.E_TERMINATION_CAUSE_DIAMETER_LOGOUT
        answer = self.application.send_request(request, PATIENCE_S)
        assert isinstance(answer, SessionTerminationAnswer)
        return answer.result_code


@pytest.fixture(scope="module")
def pcrf(live_server: LiveServer) -> Iterator[Pcrf]:
    live_server.server.sy.notifications.source = Counters()
    pcrf = Pcrf(live_server)
    yield pcrf
    pcrf.node.stop(wait_timeout=PATIENCE_S)


@pytest.fixture
def counters(live_server: LiveServer) -> Counters:
    """Those of the test."""
    source = live_server.server.sy.notifications.source = Counters()
    return source


def statuses(message: Any) -> dict[str, str]:
    return {
        report.policy_counter_identifier: report.policy_counter_status
        for report in message.policy_counter_status_report
    }


def pending(message: Any) -> list[tuple[str, int]]:
    """Of the first report: (status, from when on)."""
    found = []
    for avp in message.find_avps(
        (constants.AVP_TGPP_POLICY_COUNTER_STATUS_REPORT, constants.VENDOR_TGPP),
        (constants.AVP_TGPP_PENDING_POLICY_COUNTER_INFORMATION, constants.VENDOR_TGPP),
    ):
        status, from_when = avp.value
        found.append((status.value, int.from_bytes(from_when.payload, "big") - NTP_EPOCH_S))
    return found


def change(server: LiveServer, account: str, micro: int) -> None:
    async def work() -> None:
        now_ms = server.now_ms()
        await adjust_account(server.server.store, account.encode(), micro, now_ms=now_ms, reason="test")
        await server.server.sy.account_changed(account.encode(), now_ms)

    server.run(work())


@pytest.mark.shows("row 1", "row 2")
def test_capabilities(pcrf: Pcrf) -> None:
    """Rows 1 and 2: CER with Sy alone, and a CEA that has it."""
    (connection,) = pcrf.node.connections.values()
    assert set(connection.auth_application_ids) == {constants.APP_3GPP_SY}


@pytest.mark.shows("row 44", "row 46", "row 47", "row 48")
def test_session(pcrf: Pcrf, counters: Counters, new_subscriber: NewSubscriber) -> None:
    """Subscribed, changed, told, ended."""
    account, msisdn = new_subscriber(5 * MICRO)
    counters.others["FUP_MONTH"] = CounterStatus("throttled", (("normal", RESETS_S * 1000),))
    session = f"{HOST};session;{next(_sessions)}"
    answer = pcrf.slr(session, constants.E_SL_REQUEST_TYPE_INITIAL_REQUEST, msisdn)
    assert answer.result_code == constants.E_RESULT_CODE_DIAMETER_SUCCESS
    assert statuses(answer) == {"FUP_MONTH": "throttled", "MAIN_BALANCE": "active"}
    assert pending(answer) == [("normal", RESETS_S)]
    change(pcrf.server, account, -4_500_000)
    told = pcrf.told.get(timeout=PATIENCE_S)
    assert isinstance(told, SpendingStatusNotificationRequest)
    assert (told.session_id, told.destination_host, told.sn_request_type) == (session, HOST.encode(), None)
    assert statuses(told) == {"MAIN_BALANCE": "low"}
    answer = pcrf.slr(session, constants.E_SL_REQUEST_TYPE_INTERMEDIATE_REQUEST, "", "FUP_MONTH")
    assert statuses(answer) == {"FUP_MONTH": "throttled"}
    change(pcrf.server, account, -500_000)
    assert pcrf.end(session) == constants.E_RESULT_CODE_DIAMETER_SUCCESS
    assert pcrf.end(session) == constants.E_RESULT_CODE_DIAMETER_UNKNOWN_SESSION_ID
    assert pcrf.told.empty()


@pytest.mark.shows("row 45")
def test_refusals(pcrf: Pcrf, counters: Counters, new_subscriber: NewSubscriber) -> None:
    """5570 and 4241 in Experimental-Result, 5030 and 5002 in Result-Code."""
    _, msisdn = new_subscriber(MICRO)
    initial, intermediate = (
        constants.E_SL_REQUEST_TYPE_INITIAL_REQUEST,
        constants.E_SL_REQUEST_TYPE_INTERMEDIATE_REQUEST,
    )
    answer = pcrf.slr(f"{HOST};refused;1", initial, msisdn, "NO_SUCH")
    result = answer.experimental_result
    assert (result.vendor_id, result.experimental_result_code) == (constants.VENDOR_TGPP, 5570)
    (failed,) = answer.find_avps((constants.AVP_FAILED_AVP, 0))
    assert [(avp.code, avp.value) for avp in failed.value] == [(2901, "NO_SUCH")]
    answer = pcrf.slr(f"{HOST};refused;2", initial, msisdn, "NOBODY_HAS")
    assert answer.experimental_result.experimental_result_code == 4241
    assert answer.result_code is None
    assert pcrf.slr(f"{HOST};refused;3", initial, "4917888888").result_code == 5030
    assert pcrf.slr(f"{HOST};refused;4", intermediate).result_code == 5002


@pytest.mark.shows("row 48")
def test_abort(pcrf: Pcrf, counters: Counters, new_subscriber: NewSubscriber) -> None:
    """SN-Request-Type with bit 1 when the subscriber is gone."""
    account, msisdn = new_subscriber(MICRO)
    session = f"{HOST};abort;{next(_sessions)}"
    assert pcrf.slr(session, constants.E_SL_REQUEST_TYPE_INITIAL_REQUEST, msisdn).result_code == 2001
    server = pcrf.server.server

    async def terminate() -> None:
        now_ms = pcrf.server.now_ms()
        await set_account_state(server.store, account.encode(), LifeState.TERMINATED, now_ms, "test", check_change)
        await server.sy.account_changed(account.encode(), now_ms)

    pcrf.server.run(terminate())
    told = pcrf.told.get(timeout=PATIENCE_S)
    assert told.policy_counter_status_report == []
    (kind,) = told.find_avps((constants.AVP_TGPP_SN_REQUEST_TYPE, constants.VENDOR_TGPP))
    assert (kind.value, kind.is_mandatory) == (2, False)
    assert pcrf.end(session) == constants.E_RESULT_CODE_DIAMETER_SUCCESS
