"""Typed credit control: what is read of requests, and every error row of a CCR."""

import struct

import pytest

from protocols.credit_control import (
    CreditControlAnswer,
    CreditControlRequest,
    ServiceRequest,
    Units,
    decode_answer,
    decode_request,
    encode_answer,
)
from protocols.diameter.errors import DiameterError
from tests.protocols.full_answer import OUR_ORIGIN
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
