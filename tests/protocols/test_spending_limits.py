"""Messages of Sy: what is written is read, and what is wrong is told (3GPP TS 29.219 clause 5)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.errors import DiameterError
from protocols.spending_limits import (
    CounterReport,
    SessionTerminationAnswer,
    SessionTerminationRequest,
    SpendingLimitAnswer,
    SpendingLimitRequest,
    SpendingStatusNotificationAnswer,
    SpendingStatusNotificationRequest,
    decode_sla,
    decode_slr,
    decode_sna,
    decode_snr,
    decode_sta,
    decode_str,
    encode_sla,
    encode_slr,
    encode_sna,
    encode_snr,
    encode_sta,
    encode_str,
    policy_counter,
)

ORIGIN = avp("Origin-Host", "occ") + avp("Origin-Realm", "realm")
PROXY_INFO = avp("Proxy-Info", [avp("Proxy-Host", "relay.example.net"), avp("Proxy-State", b"\x01")])

U32 = st.integers(0, 0xFFFFFFFF)
NAME = st.binary(min_size=1, max_size=20)
TEXT = st.text(max_size=20)
HEAD = st.fixed_dictionaries(
    {
        "hop_by_hop": U32,
        "end_to_end": U32,
        "session_id": NAME,
        "origin_host": NAME,
        "origin_realm": NAME,
        "destination_realm": NAME,
        "destination_host": st.none() | NAME,
        "origin_state_id": st.none() | U32,
        "flags": st.sampled_from((0x80, 0xC0, 0xD0)),
        "proxy_infos": st.sampled_from((b"", PROXY_INFO, PROXY_INFO * 2)),
        "route_records": st.lists(NAME, max_size=3).map(tuple),
    }
)
TIMES = st.lists(st.integers(0, 4_100_000_000), max_size=3, unique=True).map(sorted)
PENDING = TIMES.flatmap(lambda times: st.tuples(*(st.tuples(TEXT, st.just(each)) for each in times)))
REPORTS = st.lists(st.builds(CounterReport, TEXT, TEXT, PENDING), max_size=3).map(tuple)


@given(HEAD, st.sampled_from((0, 1)), st.lists(st.tuples(st.integers(0, 4), NAME), max_size=3).map(tuple),
       st.lists(TEXT, max_size=4, unique=True).map(tuple))  # fmt: skip
def test_slr(head: Any, kind: int, identities: Any, counters: Any) -> None:
    request = SpendingLimitRequest(**head, request_type=kind, subscription_ids=identities, counters=counters)
    assert decode_slr(encode_slr(request)) == request


@given(HEAD, REPORTS, st.sampled_from((1, 2, 3)))
def test_snr(head: Any, reports: Any, kind: int) -> None:
    head["destination_host"] = head["destination_host"] or b"pcrf"
    request = SpendingStatusNotificationRequest(**head, reports=reports, request_type=kind)
    assert decode_snr(encode_snr(request)) == request
    assert request.aborts == (kind in (2, 3))


@given(HEAD, st.integers(1, 8))
def test_str(head: Any, cause: int) -> None:
    request = SessionTerminationRequest(**head, termination_cause=cause)
    assert decode_str(encode_str(request)) == request


@given(HEAD, REPORTS, st.binary(max_size=9), st.sampled_from(((2001, 0), (5030, 0), (0, 5570), (0, 4241))))
def test_answers(head: Any, reports: Any, text: bytes, codes: tuple[int, int]) -> None:
    """RFC 6733 section 6.2: identifiers, P bit, Session-Id and Proxy-Info of the request; T clear."""
    slr = SpendingLimitRequest(**head)
    sla = encode_sla(slr, SpendingLimitAnswer(*codes, text, policy_counter("x"), reports=reports), ORIGIN)
    found = decode_sla(sla)
    said = (found.result_code, found.experimental_result_code, found.error_message, found.reports)
    assert said == (*codes, text, reports)
    assert (found.session_id, found.hop_by_hop, found.end_to_end) == (slr.session_id, slr.hop_by_hop, slr.end_to_end)
    assert (found.failed_avp, found.origin_host) == (policy_counter("x"), b"occ")
    assert sla[4] == slr.flags & 0x40
    assert sla.endswith(slr.proxy_infos)
    snr = SpendingStatusNotificationRequest(**head)
    sna = decode_sna(encode_sna(snr, SpendingStatusNotificationAnswer(codes[0] or 2001), ORIGIN))
    assert (sna.result_code, sna.session_id) == (codes[0] or 2001, snr.session_id)
    ending = SessionTerminationRequest(**head)
    sta = decode_sta(encode_sta(ending, SessionTerminationAnswer(codes[0] or 2001), ORIGIN))
    assert (sta.result_code, sta.is_success) == (codes[0] or 2001, codes[0] in (0, 2001))


@pytest.mark.parametrize("code", [3002, 3004])
def test_protocol_errors_have_the_e_bit(code: int) -> None:
    slr = SpendingLimitRequest(1, 2, b"s", b"h", b"r", b"d")
    assert encode_sla(slr, SpendingLimitAnswer(code), ORIGIN)[4] == 0x60


def test_flags_of_the_avps() -> None:
    """TS 29.219 clause 5.3: all with V and M, but SN-Request-Type, which must not have M."""
    request = SpendingStatusNotificationRequest(
        1, 2, b"s", b"h", b"r", b"d", b"p", reports=(CounterReport("X", "a"),), request_type=2
    )
    flags = {one.code: one.flags for one in codec.decode(encode_snr(request)).avps if one.vendor}
    assert flags == {2903: 0xC0, 2907: 0x80}
    plain = SpendingStatusNotificationRequest(1, 2, b"s", b"h", b"r", b"d", b"p")
    assert codec.decode(encode_snr(plain)).find(2907, 10415) is None, "the default is not sent"


def _slr(*avps: bytes, leave_out: str = "") -> bytes:
    whole = {
        "Session-Id": "s;1",
        "Auth-Application-Id": 16777302,
        "Origin-Host": "pcrf",
        "Origin-Realm": "realm",
        "Destination-Realm": "ocs",
        "SL-Request-Type": 0,
    }
    encoded = [avp(name, value) for name, value in whole.items() if name != leave_out]  # type: ignore[arg-type]
    return codec.build(8388635, 16777302, 0xC0, 1, 2, [*encoded, *avps])


@pytest.mark.shows("row 13")
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Session-Id", 263),
        ("Auth-Application-Id", 258),
        ("Origin-Host", 264),
        ("Origin-Realm", 296),
        ("Destination-Realm", 283),
        ("SL-Request-Type", 2904),
    ],
)
def test_row_13_what_an_slr_must_have(name: str, code: int) -> None:
    decode_slr(_slr())
    with pytest.raises(DiameterError) as refused:
        decode_slr(_slr(leave_out=name))
    assert refused.value.result_code == 5005
    assert int.from_bytes((refused.value.failed_avp or b"")[:4], "big") == code


@pytest.mark.shows("row 14")
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (avp("Policy-Counter-Identifier", b"\xc3\x28"), 5004),
        (avp("SL-Request-Type", 1), 5009),
        (avp("Policy-Counter-Status-Report", [avp("Policy-Counter-Identifier", "X")]), 5005),
        (avp("Subscription-Id", [avp("Subscription-Id-Type", 0)]), 5005),
        (avp("Result-Code", 2001), 5008),
    ],
)
def test_row_14_what_is_wrong_with_an_slr(wrong: bytes, code: int) -> None:
    with pytest.raises(DiameterError) as refused:
        decode_slr(_slr(wrong))
    assert refused.value.result_code == code


def test_another_message_is_not_taken_for_it() -> None:
    request = SessionTerminationRequest(1, 2, b"s", b"h", b"r", b"d")
    with pytest.raises(DiameterError):
        decode_slr(encode_str(request))
    with pytest.raises(DiameterError):
        decode_sta(encode_str(request))
    of_gy = bytearray(encode_str(request))
    of_gy[8:12] = (4).to_bytes(4, "big")
    with pytest.raises(DiameterError):
        decode_str(bytes(of_gy))
