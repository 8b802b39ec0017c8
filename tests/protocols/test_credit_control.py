"""Typed credit control: what is read of requests, every error row of a CCR, what answers look like."""

import dataclasses
import datetime
import struct
from typing import Any

import pytest
from diameter.message import Message as TheirMessage
from diameter.message import commands as their_commands
from diameter.message.avp import grouped as their_groups
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.credit_control import (
    AbortSessionRequest,
    AdviceOfCharge,
    CreditControlAnswer,
    CreditControlRequest,
    Money,
    PoolReference,
    RateElement,
    ReAuthRequest,
    ReceivedAnswer,
    ServiceAnswer,
    ServiceRequest,
    SessionAnswer,
    Tariff,
    Units,
    decode_answer,
    decode_asa,
    decode_asr,
    decode_raa,
    decode_rar,
    decode_request,
    encode_answer,
    encode_asa,
    encode_asr,
    encode_raa,
    encode_rar,
    encode_request,
    ims_information,
    ps_information,
    sms_information,
)
from protocols.diameter import codec
from protocols.diameter.codec import Avp, check, decode
from protocols.diameter.errors import DiameterError
from tests.protocols.messages import (
    AUTH_APPLICATION_ID,
    REQUIRED,
    call_update,
    gateway_update,
    group,
    message,
    message_event,
    packed,
    required,
    subscription,
    u32,
    u64,
)

OUR_ORIGIN = packed(264, b"occ1.ocs.example.net") + packed(296, b"ocs.example.net")
MSCC_10 = group(456, group(437), u32(432, 10))


def failure(buffer: bytes) -> DiameterError:
    with pytest.raises(DiameterError) as caught:
        decode_request(buffer)
    return caught.value


# --------------------------------------------------------------------------------------------- reading requests


@pytest.mark.shows("open5gs-reporting-reasons")
def test_reads_a_gateway_update() -> None:
    """Open5GS' and other gateways' CCR-U: MSCCs, reasons at both levels, PS-Information, routing AVPs."""
    used = Units(time=61, total_octets=1_500_000, input_octets=500_000, output_octets=1_000_000, reporting_reason=3)
    assert decode_request(gateway_update()) == CreditControlRequest(
        flags=0xC0,
        hop_by_hop=0x01020304,
        end_to_end=0x0A0B0C0D,
        session_id=b"gw.example.net;1;2",
        origin_host=b"gw.example.net",
        origin_realm=b"example.net",
        destination_realm=b"ocs.example.net",
        service_context_id=b"32251@3gpp.org",
        request_type=2,
        request_number=7,
        destination_host=b"occ1.ocs.example.net",
        event_timestamp=1_700_000_000,
        subscriptions=((1, b"262010000000001"), (0, b"491700000001")),
        requested_action=0,
        multiple_services_indicator=1,
        services=(
            ServiceRequest(10, (), Units(total_octets=1_000_000), (used,)),
            ServiceRequest(20, (7, 8), Units(), (used, used), reporting_reason=4),
        ),
        route_records=(b"relay1.example.net", b"relay2.example.net"),
        proxy_infos=group(284, packed(280, b"relay1.example.net"), packed(33, b"\x01\x02\x03"))
        + group(284, packed(280, b"relay2.example.net"), packed(33, b"")),
        called_station_id=b"internet",
        sgsn_mcc_mnc=b"26201",
        aoc_request_type=1,
        rat_type=b"\x06",
    )


@pytest.mark.shows("kamailio-identity-twice")
def test_reads_a_call_update() -> None:
    """Kamailio's CCR-U: identity twice, application in 260 only, the subscriber in two places but once here."""
    assert decode_request(call_update()) == CreditControlRequest(
        flags=0xC0,
        hop_by_hop=0x01020304,
        end_to_end=0x0A0B0C0D,
        session_id=b"gw.example.net;1;2",
        origin_host=b"gw.example.net",
        origin_realm=b"example.net",
        destination_realm=b"ocs.example.net",
        service_context_id=b"ext.01.262.8.32260@3gpp.org",
        request_type=2,
        request_number=3,
        event_timestamp=1_700_000_000,
        subscriptions=((0, b"+491700000001"),),
        multiple_services_indicator=1,
        services=(ServiceRequest(100, (1000,), Units(time=30), (Units(time=22),)),),
        user_name=b"+491700000001",
        called_party=b"tel:+491700000002",
        calling_party=b"tel:+491700000001",
        role_of_node=0,
    )


def test_reads_a_message_event() -> None:
    """A CCR-E with units at command level, money without Exponent, and Subscription-Id-Extension."""
    assert decode_request(message_event()) == CreditControlRequest(
        flags=0xC0,
        hop_by_hop=0x01020304,
        end_to_end=0x0A0B0C0D,
        session_id=b"gw.example.net;1;2",
        origin_host=b"gw.example.net",
        origin_realm=b"example.net",
        destination_realm=b"ocs.example.net",
        service_context_id=b"32251@3gpp.org",
        request_type=4,
        request_number=7,
        sub_session_id=77,
        subscriptions=((1, b"262010000000001"), (0, b"491700000001")),
        requested_action=0,
        termination_cause=1,
        origin_state_id=1234,
        service_identifier=9,
        requested=Units(service_specific=1),
        used=(Units(service_specific=2, tariff_change_usage=0), Units(money=(-5, 0, 978))),
        called_party=b"491700000002",
        calling_party=b"491700000001",
    )


def test_subscriptions_of_service_information_fill_in_types_only() -> None:
    information = group(873, subscription(0, b"49170"), subscription(1, b"26201"), vendor=10415)
    request = decode_request(required(information, subscription(1, b"26299")))
    assert request.subscriptions == ((1, b"26299"), (0, b"49170"))


def test_absent_and_empty_requested_units_differ() -> None:
    """RFC 8506 section 8.16: without Requested-Service-Unit no quota is wanted; empty, the server chooses."""
    request = decode_request(required(group(456, u32(432, 1)), MSCC_10))
    assert [service.requested for service in request.services] == [None, Units()]


def test_trigger_types_are_read() -> None:
    trigger = group(1264, u32(870, 2, vendor=10415), u32(870, 61, vendor=10415), vendor=10415)
    request = decode_request(required(group(456, u32(432, 1), trigger, u32(872, 6, vendor=10415))))
    assert request.services == (ServiceRequest(1, reporting_reason=6, triggers=(2, 61)),)


def test_session_id_may_come_last() -> None:
    """Lenient on input: RFC 6733 section 8.8 only says SHOULD for its place."""
    octets = message([*[avp for name, avp in REQUIRED.items() if name != "Session-Id"], REQUIRED["Session-Id"]])
    assert decode_request(octets).session_id == b"gw.example.net;1;2"


# --------------------------------------------------------------------------------------------- rows 9-14


def test_row_9_header() -> None:
    for octets, result_code in (
        (required(command=273), 3001),
        (required(application=5), 3007),
        (required(application=0), 3001),
        (required(flags=0xE0), 3008),
    ):
        error = failure(octets)
        assert (error.result_code, error.failed_avp) == (result_code, None)
    wrong = u32(258, 3)
    error = failure(required(wrong, without=["Auth-Application-Id"]))
    assert (error.result_code, error.failed_avp) == (5004, wrong)
    nested = group(260, u32(266, 10415), wrong)
    error = failure(required(nested))
    assert (error.result_code, error.failed_avp) == (5004, group(260, wrong))


def test_other_messages_are_not_taken_for_requests() -> None:
    answer = encode_answer(decode_request(required()), CreditControlAnswer(2001), OUR_ORIGIN)
    assert failure(answer).result_code == 3008
    dwr = message([REQUIRED["Origin-Host"], REQUIRED["Origin-Realm"]], flags=0x80, command=280, application=0)
    assert failure(dwr).result_code == 3001
    for wrong in (required(), dwr):
        with pytest.raises(DiameterError):
            decode_answer(wrong)


def test_row_11_flags() -> None:
    error = failure(required(u32(278, 5, flags=0xC0)))
    assert (error.result_code, error.failed_avp) == (3009, u32(278, 5))
    for flags in (0x00, 0x5F):
        assert decode_request(required(u32(278, 5, flags=flags))).origin_state_id == 5


def test_row_12_unknown_avps() -> None:
    """RFC 6733 sections 4.1 and 4.4."""
    unknown = packed(9999, b"abc", vendor=2011)
    error = failure(required(unknown))
    assert (error.result_code, error.failed_avp) == (5001, unknown)
    error = failure(required(group(873, group(874, unknown, vendor=10415), vendor=10415)))
    path = group(873, group(874, unknown, vendor=10415), vendor=10415)
    assert (error.result_code, error.failed_avp) == (5001, path)
    for harmless in (
        packed(9999, b"abc", vendor=2011, flags=0),
        group(873, group(7777, unknown, vendor=2011, flags=0), vendor=10415),
        group(873, group(874, unknown, vendor=10415), vendor=10415, flags=0),
    ):
        assert decode_request(required(harmless)) == decode_request(required())


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("Session-Id", packed(263, b"")),
        ("Origin-Host", packed(264, b"")),
        ("Origin-Realm", packed(296, b"")),
        ("Destination-Realm", packed(283, b"")),
        ("Auth-Application-Id", u32(258, 0)),
        ("Service-Context-Id", packed(461, b"")),
        ("CC-Request-Type", u32(416, 0)),
        ("CC-Request-Number", u32(415, 0)),
    ],
)
def test_row_13_missing_avp(name: str, example: bytes) -> None:
    """RFC 8506 section 3.1: required AVPs; RFC 6733 section 7.1.5: an example with zeros."""
    error = failure(required(without=[name]))
    assert (error.result_code, error.failed_avp) == (5005, example)
    assert not error.is_protocol_error


@pytest.mark.shows("kamailio-application-inside")
def test_row_13_application_inside_vendor_specific_application() -> None:
    without = ["Auth-Application-Id"]
    good = group(260, u32(266, 10415), AUTH_APPLICATION_ID)
    assert decode_request(required(good, without=without)).request_number == 7
    error = failure(required(group(260, u32(266, 10415), u32(259, 4)), without=without))
    assert (error.result_code, error.failed_avp) == (5005, u32(258, 0))


def test_row_13_missing_in_groups() -> None:
    for octets, example in (
        (group(443, u32(450, 0)), group(443, packed(444, b""))),
        (group(443, packed(444, b"1")), group(443, u32(450, 0))),
        (
            group(456, group(437, group(413, u32(425, 978)))),
            group(456, group(437, group(413, group(445)))),
        ),
        (group(446, group(413, group(445, u32(429, 0)))), group(446, group(413, group(445, u64(447, 0))))),
    ):
        error = failure(required(octets))
        assert (error.result_code, error.failed_avp) == (5005, example)


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (u32(416, 0), u32(416, 0)),
        (u32(416, 5), u32(416, 5)),
        (u32(436, 4), u32(436, 4)),
        (u32(455, 2), u32(455, 2)),
        (group(446, u32(452, 3)), group(446, u32(452, 3))),
        (group(456, group(446, u32(452, 0xFFFFFFFF))), group(456, group(446, u32(452, 0xFFFFFFFF)))),
        (packed(263, b""), packed(263, b"")),
        (packed(293, b""), packed(293, b"")),
    ],
)
def test_row_14_bad_value(bad: bytes, path: bytes) -> None:
    code = struct.unpack(">I", bad[:4])[0]
    without = {416: ["CC-Request-Type"], 263: ["Session-Id"]}.get(code, [])
    error = failure(required(bad, without=without))
    assert (error.result_code, error.failed_avp) == (5004, path)


@pytest.mark.parametrize(
    "bad",
    [
        u32(268, 2001),
        group(279, u32(268, 1)),
        group(431, u32(420, 1)),
        u32(448, 60),
        group(430, u32(449, 0)),
        u32(418, 1),
    ],
)
def test_row_14_not_allowed(bad: bytes) -> None:
    """RFC 8506 section 10.1: what occurs 0 times in a CCR."""
    error = failure(required(bad))
    assert (error.result_code, error.failed_avp) == (5008, bad)


@pytest.mark.parametrize(
    ("extra", "bad"),
    [
        ([u32(415, 8)], u32(415, 8)),
        ([u32(436, 0), u32(436, 1), u32(436, 2)], u32(436, 1)),
        ([group(456, u32(432, 1), u32(432, 2))], group(456, u32(432, 2))),
        ([group(456, group(437), group(437))], group(456, group(437))),
        ([group(456, group(446, u32(420, 1), u32(420, 2)))], group(456, group(446, u32(420, 2)))),
    ],
)
def test_row_14_too_many(extra: list[bytes], bad: bytes) -> None:
    """RFC 6733 section 7.1.5: the first instance that is too many."""
    error = failure(required(*extra))
    assert (error.result_code, error.failed_avp) == (5009, bad)


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (packed(415, bytes(4), length=7), u32(415, 0)),
        (packed(415, bytes(4), length=0), u32(415, 0)),
        (packed(415, bytes(4), length=0xFFFFFF), u32(415, 0)),
        (packed(55, b"\x00" * 8), packed(55, b"\x00" * 8)),
        (packed(263, b"abc", length=0xFFFFF0), packed(263, b"")),
        (packed(873, b"", vendor=10415, length=8), packed(873, b"", vendor=10415)),
        (group(456, packed(432, bytes(4), length=13)), group(456, u32(432, 0))),
        (group(456, packed(432, b"\x07")), group(456, packed(432, b"\x07"))),
        (packed(456, b"\x00\x00\x01"), group(456, packed(256, b"", flags=0))),
        (struct.pack(">I", 293), packed(293, b"", flags=0)),
    ],
)
def test_row_14_bad_length(bad: bytes, path: bytes) -> None:
    """RFC 6733 sections 7.1.5 and 7.5: header and zero fill, or the AVP itself if it is whole."""
    error = failure(required(bad))
    assert (error.result_code, error.failed_avp) == (5014, path)
    assert not error.close


def test_row_14_only_the_first_error_is_reported() -> None:
    """RFC 6733 section 7: in the order of the octets, missing AVPs last."""
    first = u32(436, 9)
    error = failure(required(first, packed(9999, b""), without=["CC-Request-Number"]))
    assert (error.result_code, error.failed_avp) == (5004, first)


def test_row_14_version_and_message_length() -> None:
    assert failure(required(version=2)).result_code == 5011
    good = required()
    for bad in (good[:-4], good + bytes(4), good[:10], required(length=0), required(length=0xFFFFFF)):
        error = failure(bad)
        assert (error.result_code, error.close) == (5015, True)


# --------------------------------------------------------------------------------------------- answers


REQUEST = decode_request(gateway_update())
FULL_ANSWER = CreditControlAnswer(
    2001,
    (
        ServiceAnswer(
            10,
            (),
            2001,
            Units(total_octets=1_000_000),
            600,
            volume_quota_threshold=100_000,
            time_quota_threshold=30,
            unit_quota_threshold=1,
            quota_holding_time=3600,
        ),
        ServiceAnswer(20, (7, 8), 4012, failed_avp=u32(432, 20)),
        ServiceAnswer(
            30,
            (),
            2001,
            Units(time=60, service_specific=2, money=(123, -2, 978)),
            300,
            final_unit_action=1,
            redirect_address_type=2,
            redirect_server_address=b"http://top-up.example.net/",
        ),
        ServiceAnswer(
            40,
            final_unit_action=2,
            filter_ids=(b"portal-only",),
            restriction_rules=(b"permit out ip from any to 10.0.0.1",),
        ),
    ),
    granted=Units(input_octets=1, output_octets=2),
    validity_time=60,
    final_unit_action=0,
    cost=(5, -2, 978),
    check_balance_result=0,
    cc_session_failover=1,
    credit_control_failure_handling=2,
    direct_debiting_failure_handling=1,
    low_balance_indication=1,
    remaining_balance=(99, 0, 978),
    failed_avp=u32(415, 1),
    error_message=b"text",
)


def all_avps(avps: list[Avp]) -> list[Avp]:
    found = []
    for one in avps:
        found.append(one)
        definition = one.definition
        if definition is not None and definition.grouped:
            inner = one.value()
            assert isinstance(inner, list)
            found.extend(all_avps(inner))
    return found


@pytest.mark.shows("freediameter-complete-answer")
def test_the_plainest_answer_to_the_octet() -> None:
    """RFC 8506 section 3.2: Session-Id first, then what every client reads."""
    request = dataclasses.replace(REQUEST, proxy_infos=b"", flags=0xD0)
    assert encode_answer(request, CreditControlAnswer(2001), OUR_ORIGIN) == message(
        [
            packed(263, b"gw.example.net;1;2"),
            u32(268, 2001),
            OUR_ORIGIN,
            u32(258, 4),
            u32(416, 2),
            u32(415, 7),
        ],
        flags=0x40,
    )


def test_a_usual_answer_to_the_octet() -> None:
    answer = CreditControlAnswer(
        2001,
        [
            ServiceAnswer(10, (), 2001, Units(total_octets=1_000_000), 600, final_unit_action=0),
            ServiceAnswer(20, (7,), 4012),
        ],
    )
    assert encode_answer(REQUEST, answer, OUR_ORIGIN) == message(
        [
            packed(263, b"gw.example.net;1;2"),
            u32(268, 2001),
            OUR_ORIGIN,
            u32(258, 4),
            u32(416, 2),
            u32(415, 7),
            group(
                456,
                group(431, u64(421, 1_000_000)),
                u32(432, 10),
                u32(448, 600),
                u32(268, 2001),
                group(430, u32(449, 0)),
            ),
            group(456, u32(439, 7), u32(432, 20), u32(268, 4012)),
            group(284, packed(280, b"relay1.example.net"), packed(33, b"\x01\x02\x03")),
            group(284, packed(280, b"relay2.example.net"), packed(33, b"")),
        ],
        flags=0x40,
    )


def test_row_7_and_8_answer_flags() -> None:
    """P as in the request, T never, E for 3xxx only; no Destination-Host or -Realm."""
    for request_flags, result_code, flags in (
        (0xC0, 2001, 0x40),
        (0x80, 2001, 0x00),
        (0xD0, 4012, 0x40),
        (0xC0, 3004, 0x60),
        (0x90, 3004, 0x20),
        (0xC0, 5030, 0x40),
    ):
        request = dataclasses.replace(REQUEST, flags=request_flags)
        octets = encode_answer(request, CreditControlAnswer(result_code), OUR_ORIGIN)
        assert decode(octets).flags == flags
        codes = {one.code for one in decode(octets).avps}
        assert not codes & {283, 293}


@pytest.mark.shows("freediameter-unknown-m-bit")
def test_answers_are_safe_for_plain_clients() -> None:
    """A client built on freeDiameter drops an answer with an unknown M AVP: 3GPP's must not have the bit."""
    octets = encode_answer(REQUEST, FULL_ANSWER, OUR_ORIGIN)
    check(decode(octets))
    for one in all_avps(decode(octets).avps):
        definition = one.definition
        assert definition is not None, one
        if one.vendor:
            assert one.flags == 0x80, one
        else:
            assert one.flags == definition.flags, one


def test_sub_session_comes_back() -> None:
    request = dataclasses.replace(REQUEST, sub_session_id=9)
    found = decode(encode_answer(request, CreditControlAnswer(2001), OUR_ORIGIN)).find(419)
    assert found is not None
    assert found.value() == 9


def received(answer: CreditControlAnswer, request: CreditControlRequest = REQUEST) -> ReceivedAnswer:
    """What a client should make of ``answer``."""
    fields = {field.name: getattr(answer, field.name) for field in dataclasses.fields(CreditControlAnswer)}
    return ReceivedAnswer(
        **{**fields, "services": tuple(answer.services)},
        flags=request.flags & 0x40,
        hop_by_hop=request.hop_by_hop,
        end_to_end=request.end_to_end,
        session_id=request.session_id,
        origin_host=b"occ1.ocs.example.net",
        origin_realm=b"ocs.example.net",
        request_type=request.request_type,
        request_number=request.request_number,
    )


def test_full_answer_round_trips() -> None:
    assert decode_answer(encode_answer(REQUEST, FULL_ANSWER, OUR_ORIGIN)) == received(FULL_ANSWER)


def test_error_answers_are_read_by_clients() -> None:
    """RFC 6733 section 7.2 answers have neither CC-Request-Type nor, perhaps, a Session-Id."""
    octets = codec.error_answer(required(), DiameterError(3002, "no such host"), OUR_ORIGIN)
    answer = decode_answer(octets)
    assert (answer.result_code, answer.flags, answer.request_type) == (3002, 0x60, None)
    assert (answer.session_id, answer.error_message) == (b"gw.example.net;1;2", b"no such host")
    experimental = group(297, u32(266, 10415), u32(298, 5570))
    octets = message([u32(268, 3001), OUR_ORIGIN, experimental], flags=0x20)
    assert decode_answer(octets).result_code == 3001


# --------------------------------------------------------------------------------------------- round trips

U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, (1 << 64) - 1)
MAYBE_U32 = st.none() | U32
MAYBE_U64 = st.none() | U64
NAMES = st.binary(min_size=1, max_size=30)
MONEY: st.SearchStrategy[Money] = st.tuples(
    st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 31), (1 << 31) - 1), MAYBE_U32
)


UNIT_VALUES = st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 31), (1 << 31) - 1))
# Diameter Time covers 1968-01-20 to 2104-02-26 (RFC 6733 section 4.3.1).
MOMENTS = st.none() | st.integers(-61_505_152, 4_233_462_143)
OCTETS = st.none() | st.binary(max_size=9)


def units(*, used: bool, granted: bool = False) -> st.SearchStrategy[Units]:
    nothing = st.none()
    return st.builds(
        Units,
        MAYBE_U32,
        MAYBE_U64,
        MAYBE_U64,
        MAYBE_U64,
        MAYBE_U64,
        nothing | MONEY,
        st.none() | st.integers(0, 2) if used else nothing,
        MAYBE_U32 if used else nothing,
        MOMENTS if granted else nothing,
    )


SERVICE_REQUESTS = st.builds(
    ServiceRequest,
    MAYBE_U32,
    st.lists(U32, max_size=3).map(tuple),
    st.none() | units(used=False),
    st.lists(units(used=True), max_size=3).map(tuple),
    MAYBE_U32,
    st.lists(U32, max_size=2).map(tuple),
    OCTETS,
)
REQUESTS = st.builds(
    CreditControlRequest,
    flags=st.sampled_from([0x80, 0x90, 0xC0, 0xD0]),
    hop_by_hop=U32,
    end_to_end=U32,
    session_id=NAMES,
    origin_host=NAMES,
    origin_realm=NAMES,
    destination_realm=NAMES,
    service_context_id=NAMES,
    request_type=st.integers(1, 4),
    request_number=U32,
    destination_host=st.none() | NAMES,
    sub_session_id=MAYBE_U64,
    event_timestamp=MOMENTS,
    subscriptions=st.lists(st.tuples(U32, st.binary(max_size=20)), max_size=3).map(tuple),
    requested_action=st.none() | st.integers(0, 3),
    multiple_services_indicator=st.none() | st.integers(0, 1),
    termination_cause=MAYBE_U32,
    origin_state_id=MAYBE_U32,
    services=st.lists(SERVICE_REQUESTS, max_size=3).map(tuple),
    requested=st.none() | units(used=False),
    used=st.lists(units(used=True), max_size=2).map(tuple),
    service_identifier=MAYBE_U32,
    route_records=st.lists(NAMES, max_size=2).map(tuple),
    proxy_infos=st.lists(NAMES, max_size=3).map(
        lambda names: b"".join(group(284, packed(280, name), packed(33, name[1:])) for name in names)
    ),
    user_name=st.none() | st.binary(max_size=20),
    aoc_request_type=MAYBE_U32,
    correlation_id=OCTETS,
    refund_information=OCTETS,
)
FILTERS = st.lists(st.binary(max_size=9), max_size=2).map(tuple)
REDIRECTS = st.sampled_from(
    [
        (None, None),
        (0, b"192.0.2.1"),
        (1, b"2001:db8::1"),
        (2, b"http://top-up.example.net/"),
        (3, b"sip:top-up@example.net"),
    ]
)


@st.composite
def final_units(draw: st.DrawFn) -> dict[str, Any]:
    """The fields that say what final units are followed by; nothing of them is sent without an action."""
    if draw(st.booleans()):
        return {}
    qos = draw(st.booleans())
    kind, address = draw(REDIRECTS)
    return {
        "final_unit_action": draw(st.integers(0, 2)),
        "redirect_address_type": kind,
        "redirect_server_address": address,
        "filter_ids": draw(FILTERS),
        "restriction_rules": draw(FILTERS),
        "qos_final_unit": qos,
        "filter_rules": draw(st.lists(st.just(u32(572, 1, flags=0)), max_size=2).map(tuple)) if qos else (),
    }


def with_final_units(model: Any, final: dict[str, Any], **others: Any) -> Any:
    return model(**final, **others)


POOL_REFERENCES = st.builds(
    PoolReference, U32, U32, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 31), (1 << 31) - 1)
)
RATE_ELEMENTS = st.builds(RateElement, U32, UNIT_VALUES, st.none() | UNIT_VALUES, MAYBE_U32)
TARIFFS = st.builds(Tariff, st.lists(RATE_ELEMENTS, max_size=2).map(tuple), MAYBE_U32)
COSTS = (st.none() | UNIT_VALUES, st.none() | UNIT_VALUES, MAYBE_U32)
ADVICE = st.builds(AdviceOfCharge, *COSTS) | st.builds(AdviceOfCharge, *COSTS, TARIFFS, MOMENTS, st.none() | TARIFFS)
SERVICE_ANSWERS = st.builds(
    with_final_units,
    st.just(ServiceAnswer),
    final_units(),
    rating_group=MAYBE_U32,
    service_identifiers=st.lists(U32, max_size=2).map(tuple),
    result_code=MAYBE_U32,
    granted=st.none() | units(used=False, granted=True),
    validity_time=MAYBE_U32,
    volume_quota_threshold=MAYBE_U32,
    time_quota_threshold=MAYBE_U32,
    unit_quota_threshold=MAYBE_U32,
    quota_holding_time=MAYBE_U32,
    failed_avp=st.none() | st.just(u32(432, 1)),
    tariff_change_usage=st.none() | st.integers(0, 1),
    pool_references=st.lists(POOL_REFERENCES, max_size=2).map(tuple),
    quota_consumption_time=MAYBE_U32,
    triggers=st.lists(U32, max_size=2).map(tuple),
    refund_information=OCTETS,
)
ANSWERS = st.builds(
    with_final_units,
    st.just(CreditControlAnswer),
    final_units(),
    result_code=st.integers(4000, 5999) | st.just(2001),
    services=st.lists(SERVICE_ANSWERS, max_size=3),
    granted=st.none() | units(used=False, granted=True),
    validity_time=MAYBE_U32,
    cost=st.none() | MONEY.filter(lambda money: money[2] is not None),
    remaining_balance=st.none() | MONEY,
    error_message=OCTETS,
    refund_information=OCTETS,
    advice_of_charge=st.none() | ADVICE,
)


@given(REQUESTS)
def test_any_request_round_trips(request: CreditControlRequest) -> None:
    octets = encode_request(request)
    check(decode(octets))
    assert decode_request(octets) == request


@given(REQUESTS, ANSWERS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_answer_round_trips(request: CreditControlRequest, answer: CreditControlAnswer) -> None:
    octets = encode_answer(request, answer, OUR_ORIGIN)
    check(decode(octets))
    assert decode_answer(octets) == received(answer, request)


def test_service_information_for_each_service() -> None:
    """What the builders for simulators write is what the server reads (TS 32.299 clause 7.2.192)."""
    base = decode_request(required())
    information = ps_information(
        called_station_id=b"internet",
        sgsn_mcc_mnc=b"26201",
        charging_id=1,
        pdp_address="10.45.0.2",
        sgsn_address="2001:db8::1",
        ggsn_address="10.0.0.1",
        selection_mode=b"0",
        charging_characteristics=b"0800",
        nsapi=b"\x05",
        rat_type=b"\x06",
        ms_timezone=b"\x40\x01",
        user_location_info=b"\x82",
    )
    assert decode_request(encode_request(base, information)) == dataclasses.replace(
        base,
        called_station_id=b"internet",
        sgsn_mcc_mnc=b"26201",
        rat_type=b"\x06",
        user_location=b"\x82",
    )
    information = ims_information(
        calling_party=b"tel:+491700000001",
        called_party=b"tel:+491700000002",
        role_of_node=1,
        user_session_id=b"1@host",
        sip_method=b"INVITE",
        access_network_information=b"3GPP-E-UTRAN-FDD",
        number_portability=b"tel:+491700000002;rn=+49800;npdi",
        visited_network=b"ims.mnc001.mcc208.3gppnetwork.org",
    )
    assert decode_request(encode_request(base, information, vendor_specific_application=True)) == dataclasses.replace(
        base,
        calling_party=b"tel:+491700000001",
        called_party=b"tel:+491700000002",
        role_of_node=1,
        sip_method=b"INVITE",
        number_portability=b"tel:+491700000002;rn=+49800;npdi",
        access_network=b"3GPP-E-UTRAN-FDD",
        visited_network=b"ims.mnc001.mcc208.3gppnetwork.org",
    )
    information = sms_information(
        originator=b"491700000001",
        recipients=[b"491700000002", b"491700000003"],
        smsc_address="491700000000",
        message_type=0,
    )
    extra = u32(480, 1) + u32(485, 0)
    assert decode_request(encode_request(base, information, extra=extra)) == dataclasses.replace(
        base,
        calling_party=b"491700000001",
        called_party=b"491700000002",
        recipients=(b"491700000002", b"491700000003"),
    )
    information = sms_information(recipients=[b"491700000002"])
    assert decode_request(encode_request(base, information)) == dataclasses.replace(base, called_party=b"491700000002")


# --------------------------------------------------------------------------------------------- python-diameter


def test_python_diameter_request_is_read() -> None:
    """An independent client's CCR-U, by its own typed attributes."""
    theirs = their_commands.CreditControlRequest()
    theirs.header.application_id = 4
    theirs.header.hop_by_hop_identifier = 11
    theirs.header.end_to_end_identifier = 12
    theirs.session_id = "gw.example.net;9;9"
    theirs.origin_host = b"gw.example.net"
    theirs.origin_realm = b"example.net"
    theirs.destination_realm = b"ocs.example.net"
    theirs.service_context_id = "32251@3gpp.org"
    theirs.cc_request_type = 2
    theirs.cc_request_number = 3
    theirs.event_timestamp = datetime.datetime.fromtimestamp(1_700_000_000)  # noqa: DTZ006 (its own convention)
    theirs.add_subscription_id(subscription_id_type=0, subscription_id_data="491700000001")
    theirs.add_multiple_services_credit_control(
        requested_service_unit=their_groups.RequestedServiceUnit(cc_total_octets=1_000_000),
        used_service_unit=[their_groups.UsedServiceUnit(cc_input_octets=5, cc_output_octets=6, cc_time=7)],
        rating_group=10,
    )
    theirs.add_multiple_services_credit_control(
        requested_service_unit=their_groups.RequestedServiceUnit(
            cc_money=their_groups.CcMoney(their_groups.UnitValue(23, -1), 978)
        ),
        service_identifier=[7, 8],
    )
    theirs.service_information = their_groups.ServiceInformation(
        ps_information=their_groups.PsInformation(called_station_id="internet", tgpp_sgsn_mcc_mnc="26201")
    )
    request = decode_request(theirs.as_bytes())
    assert request == CreditControlRequest(
        flags=theirs.header.command_flags,
        hop_by_hop=11,
        end_to_end=12,
        session_id=b"gw.example.net;9;9",
        origin_host=b"gw.example.net",
        origin_realm=b"example.net",
        destination_realm=b"ocs.example.net",
        service_context_id=b"32251@3gpp.org",
        request_type=2,
        request_number=3,
        event_timestamp=1_700_000_000,
        subscriptions=((0, b"491700000001"),),
        services=(
            ServiceRequest(10, (), Units(total_octets=1_000_000), (Units(time=7, input_octets=5, output_octets=6),)),
            ServiceRequest(None, (7, 8), Units(money=(23, -1, 978))),
        ),
        called_station_id=b"internet",
        sgsn_mcc_mnc=b"26201",
    )


def test_python_diameter_reads_our_request() -> None:
    theirs: Any = TheirMessage.from_bytes(encode_request(decode_request(message_event())))
    assert isinstance(theirs, their_commands.CreditControlRequest)
    assert theirs.session_id == "gw.example.net;1;2"
    assert theirs.cc_request_type == 4
    assert theirs.requested_service_unit.cc_service_specific_units == 1
    assert [used.cc_service_specific_units for used in theirs.used_service_unit] == [2, None]
    assert theirs.used_service_unit[1].cc_money.unit_value.value_digits == -5
    assert [one.subscription_id_data for one in theirs.subscription_id] == ["262010000000001", "491700000001"]


def test_python_diameter_reads_our_answer() -> None:
    """An independent client's view of a CCA with several MSCCs."""
    theirs: Any = TheirMessage.from_bytes(encode_answer(REQUEST, FULL_ANSWER, OUR_ORIGIN))
    assert isinstance(theirs, their_commands.CreditControlAnswer)
    assert (theirs.result_code, theirs.auth_application_id) == (2001, 4)
    assert (theirs.cc_request_type, theirs.cc_request_number) == (2, 7)
    assert theirs.origin_host == b"occ1.ocs.example.net"
    services = theirs.multiple_services_credit_control
    assert [one.rating_group for one in services] == [10, 20, 30, 40]
    assert [one.result_code for one in services] == [2001, 4012, 2001, None]
    assert services[0].granted_service_unit.cc_total_octets == 1_000_000
    assert (services[0].validity_time, services[0].volume_quota_threshold) == (600, 100_000)
    assert services[1].service_identifier == [7, 8]
    assert services[2].granted_service_unit.cc_money.unit_value.exponent == -2
    redirect = services[2].final_unit_indication.redirect_server
    assert redirect.redirect_server_address == "http://top-up.example.net/"
    assert services[3].final_unit_indication.filter_id == ["portal-only"]
    assert theirs.cost_information.unit_value.value_digits == 5
    assert theirs.remaining_balance.currency_code == 978
    assert [one.proxy_state for one in theirs.proxy_info] == [b"\x01\x02\x03", b""]


def test_python_diameter_answer_is_read() -> None:
    theirs: Any = their_commands.CreditControlAnswer()
    theirs.header.application_id = 4
    theirs.session_id = "gw.example.net;9;9"
    theirs.result_code = 2001
    theirs.origin_host = b"occ1.ocs.example.net"
    theirs.origin_realm = b"ocs.example.net"
    theirs.cc_request_type = 1
    theirs.cc_request_number = 0
    theirs.add_multiple_services_credit_control(
        granted_service_unit=their_groups.GrantedServiceUnit(cc_time=60),
        rating_group=100,
        validity_time=30,
        result_code=2001,
        final_unit_indication=their_groups.FinalUnitIndication(final_unit_action=0),
    )
    answer = decode_answer(theirs.as_bytes())
    assert answer.services == (ServiceAnswer(100, (), 2001, Units(time=60), 30, final_unit_action=0),)
    assert (answer.result_code, answer.request_type, answer.request_number) == (2001, 1, 0)


# --------------------------------------------------------------------------------------------- RAR and ASR


RE_AUTH = ReAuthRequest(
    1,
    2,
    b"gw.example.net;1;2",
    b"occ1.ocs.example.net",
    b"ocs.example.net",
    b"example.net",
    b"gw.example.net",
    rating_group=10,
    service_identifier=7,
    pool_identifier=3,
)
ABORT = AbortSessionRequest(
    1, 2, b"gw.example.net;1;2", b"occ1.ocs.example.net", b"ocs.example.net", b"example.net", b"gw.example.net"
)


def test_re_auth_request() -> None:
    """Row 42; RFC 6733 section 8.3.1 and RFC 8506 section 10.2, to the octet."""
    octets = encode_rar(RE_AUTH)
    assert octets == message(
        [
            packed(263, b"gw.example.net;1;2"),
            packed(264, b"occ1.ocs.example.net"),
            packed(296, b"ocs.example.net"),
            packed(283, b"example.net"),
            packed(293, b"gw.example.net"),
            u32(258, 4),
            u32(285, 0),
            u32(453, 3),
            u32(439, 7),
            u32(432, 10),
        ],
        flags=0xC0,
        command=258,
        hop_by_hop=1,
        end_to_end=2,
    )
    assert decode_rar(octets) == RE_AUTH
    whole_session = dataclasses.replace(RE_AUTH, rating_group=None, service_identifier=None, pool_identifier=None)
    assert decode_rar(encode_rar(whole_session)) == whole_session


def test_re_auth_of_a_sub_session() -> None:
    """RFC 8506 section 10.2: a Re-Auth-Request may name the sub-session, as all of the session's messages do."""
    of_sub_session = dataclasses.replace(RE_AUTH, sub_session_id=1 << 40)
    octets = encode_rar(of_sub_session)
    assert u64(419, 1 << 40) in octets
    check(decode(octets))
    assert decode_rar(octets) == of_sub_session


def test_abort_session_request() -> None:
    octets = encode_asr(ABORT)
    assert decode_asr(octets) == ABORT
    theirs: Any = TheirMessage.from_bytes(octets)
    assert isinstance(theirs, their_commands.AbortSessionRequest)
    assert theirs.destination_host == b"gw.example.net"
    assert theirs.auth_application_id == 4


@pytest.mark.parametrize(("result_code", "flags"), [(2001, 0x40), (2002, 0x40), (5002, 0x40), (3002, 0x60)])
def test_answers_to_what_the_server_started(result_code: int, flags: int) -> None:
    """RFC 6733 sections 8.3.2 and 8.5.2; Proxy-Info comes back here as well (row 7)."""
    proxy = group(284, packed(280, b"relay.example.net"), packed(33, b"\x01"))
    expected = SessionAnswer(
        1, 2, b"gw.example.net;1;2", result_code, b"occ1.ocs.example.net", b"ocs.example.net", flags
    )
    rar = decode_rar(encode_rar(dataclasses.replace(RE_AUTH, proxy_infos=proxy)))
    raa = encode_raa(rar, result_code, OUR_ORIGIN, b"text")
    check(decode(raa))
    assert decode(raa).avps[-1].encode() == proxy
    assert decode_raa(raa) == expected
    asa = encode_asa(decode_asr(encode_asr(ABORT)), result_code, OUR_ORIGIN)
    check(decode(asa))
    assert decode_asa(asa) == expected


def test_session_messages_are_checked() -> None:
    rar = encode_rar(RE_AUTH)
    for wrong in (encode_asr(ABORT), encode_raa(RE_AUTH, 2001, OUR_ORIGIN), rar[:-4]):
        with pytest.raises(DiameterError):
            decode_rar(wrong)
    with pytest.raises(DiameterError) as caught:
        decode_rar(message([packed(263, b"x")], command=258))
    assert caught.value.result_code == 5005
    with pytest.raises(DiameterError):
        decode_raa(rar)
