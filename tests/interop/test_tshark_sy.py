"""Wireshark's dissector and ``occ decode`` read the messages of Sy, both sides', and have nothing to say."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from occ.decode.messages import decoded
from occ.decode.streams import Found, Streams
from occ.decode.tree import Kind
from protocols.diameter.codec import avp
from protocols.spending_limits import (
    CounterReport,
    SessionTerminationAnswer,
    SessionTerminationRequest,
    SpendingLimitAnswer,
    SpendingLimitRequest,
    SpendingStatusNotificationAnswer,
    SpendingStatusNotificationRequest,
    encode_sla,
    encode_slr,
    encode_sna,
    encode_snr,
    encode_sta,
    encode_str,
    policy_counter,
)
from tests.interop.test_tshark import remarks

pytestmark = pytest.mark.interop

PROXY_INFO = avp("Proxy-Info", [avp("Proxy-Host", "relay.example.net"), avp("Proxy-State", b"\x01")])
PCRF = avp("Origin-Host", "pcrf.example.net") + avp("Origin-Realm", "policy.example.net")
OCS = avp("Origin-Host", "occ1.ocs.example.net") + avp("Origin-Realm", "ocs.example.net")
REPORTS = (
    CounterReport("FUP_MONTH", "throttled", (("normal", 1_900_000_000), ("throttled", 4_000_000_000))),
    CounterReport("MAIN_BALANCE", "низкий"),
)
TO_OCS: dict[str, Any] = {
    "origin_host": b"pcrf.example.net",
    "origin_realm": b"policy.example.net",
    "destination_realm": b"ocs.example.net",
    "destination_host": b"occ1.ocs.example.net",
    "origin_state_id": 7,
    "proxy_infos": PROXY_INFO,
}
TO_PCRF: dict[str, Any] = {
    "origin_host": b"occ1.ocs.example.net",
    "origin_realm": b"ocs.example.net",
    "destination_realm": b"policy.example.net",
    "destination_host": b"pcrf.example.net",
}


def conversation() -> list[bytes]:
    """Each message with all that it can have, and the refusals."""
    number = iter(range(1, 100))

    def head() -> tuple[int, int, bytes]:
        return next(number), next(number), b"pcrf.example.net;1;2"

    identities = ((0, b"491720000001"), (1, b"262010000000001"))
    initial = SpendingLimitRequest(*head(), **TO_OCS, subscription_ids=identities)
    named = SpendingLimitRequest(*head(), **TO_OCS, request_type=1, counters=("FUP_MONTH", "NO_SUCH"))
    again = SpendingLimitRequest(*head(), **TO_OCS, request_type=1, counters=("FUP_MONTH",))
    normal = SpendingStatusNotificationRequest(*head(), **TO_PCRF, reports=REPORTS)
    abort = SpendingStatusNotificationRequest(*head(), **TO_PCRF, request_type=2)
    ending = SessionTerminationRequest(*head(), **TO_OCS)
    unknown = SpendingLimitAnswer(experimental_result_code=5570, failed_avp=policy_counter("NO_SUCH"))
    return [
        encode_slr(initial),
        encode_sla(initial, SpendingLimitAnswer(2001, reports=REPORTS), OCS),
        encode_slr(named),
        encode_sla(named, unknown, OCS),
        encode_slr(again),
        encode_sla(again, SpendingLimitAnswer(experimental_result_code=4241), OCS),
        encode_snr(normal),
        encode_sna(normal, SpendingStatusNotificationAnswer(2001), PCRF),
        encode_snr(abort),
        encode_sna(abort, SpendingStatusNotificationAnswer(5002), PCRF),
        encode_str(ending),
        encode_sta(ending, SessionTerminationAnswer(2001), OCS),
    ]


@pytest.mark.shows("row 44", "row 46", "row 48")
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed; apt install tshark")
def test_dissector_has_nothing_to_say_of_sy(tmp_path: Path) -> None:
    assert remarks(conversation(), tmp_path) == []


def test_decode_names_all_of_sy() -> None:
    """``occ decode``: every command, AVP, enumeration and result by its name, and nothing bad to say."""
    messages = list(decoded(Streams(list(map(Found, conversation())))))
    assert [message.name for message in messages] == [
        f"{name}-{kind}"
        for name in (*["Spending-Limit"] * 3, *["Spending-Status-Notification"] * 2, "Session-Termination")
        for kind in ("Request", "Answer")
    ]
    for message in messages:
        assert [each for each in message.remarks if each.kind in (Kind.ERROR, Kind.BREACH)] == [], message.name
        assert message.error is None, message.name
