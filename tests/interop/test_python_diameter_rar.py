"""python-diameter as the client that a policy push reaches: it reads the RAR, answers it, and asks anew.

RFC 8506 section 5.5; row 42. By the shipped rules: the Internet is slowed down below zero and restored by a top-up.
"""

from typing import Any

import pytest

from balance.directory import adjust_account
from tests.interop.conftest import NewSubscriber
from tests.live_server import LiveServer

constants = pytest.importorskip("diameter.message.constants", reason="python-diameter is not installed")
from diameter.message.commands.re_auth import ReAuthAnswer, ReAuthRequest  # noqa: E402
from diameter.node.application import Application  # noqa: E402

from tests.interop.test_python_diameter import Client, service, until  # noqa: E402

pytestmark = pytest.mark.interop


@pytest.mark.shows("row 42")
def test_a_throttle_and_its_end_are_pushed(
    live_server: LiveServer, new_subscriber: NewSubscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def handle_request(application: Any, message: Any) -> None:
        asked.append(message)
        answer = message.to_answer()
        assert isinstance(answer, ReAuthAnswer)
        answer.session_id = message.session_id
        answer.origin_host = application.node.origin_host.encode()
        answer.origin_realm = application.node.realm_name.encode()
        answer.result_code = constants.E_RESULT_CODE_DIAMETER_LIMITED_SUCCESS
        application.send_answer(answer)

    monkeypatch.setattr(Application, "handle_request", handle_request)
    client = Client(live_server, "asked.python-diameter.example.net")
    try:
        account, msisdn = new_subscriber(1_000_000)
        request = client.request("push", constants.E_CC_REQUEST_TYPE_INITIAL_REQUEST, 0, msisdn)
        request.multiple_services_credit_control = [service(10, wants=1 << 20)]
        assert client.ask(request).result_code == constants.E_RESULT_CODE_DIAMETER_SUCCESS

        def adjust(micro: int) -> None:
            store, now_ms = live_server.server.store, live_server.now_ms()
            live_server.run(adjust_account(store, account.encode(), micro, now_ms=now_ms, reason="test"))

        def again(number: int) -> Any:
            update = client.request("push", constants.E_CC_REQUEST_TYPE_UPDATE_REQUEST, number, msisdn)
            update.multiple_services_credit_control = [service(10, wants=1 << 20, used=0)]
            (answered,) = client.ask(update).multiple_services_credit_control
            return answered

        live_server.overdraw(account, 1_000_000)
        adjust(-1_500_000)
        until(lambda: len(asked) == 1, "a Re-Auth-Request")
        assert isinstance(asked[0], ReAuthRequest)
        assert asked[0].session_id == request.session_id
        assert asked[0].auth_application_id == 4
        slowed = again(1).final_unit_indication
        assert slowed.final_unit_action == constants.E_FINAL_UNIT_ACTION_RESTRICT_ACCESS
        assert slowed.filter_id == ["throttle-128k"]
        live_server.top_up(account, 9_000_000)
        until(lambda: len(asked) == 2, "another one after the top-up")
        assert again(2).granted_service_unit.cc_total_octets == 1 << 20
        end = client.request("push", constants.E_CC_REQUEST_TYPE_TERMINATION_REQUEST, 3, msisdn)
        end.multiple_services_credit_control = [service(10, used=0)]
        assert client.ask(end).result_code == constants.E_RESULT_CODE_DIAMETER_SUCCESS
    finally:
        client.stop()
