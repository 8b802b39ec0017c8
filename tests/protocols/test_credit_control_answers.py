"""What answers say beside results and units: every AVP to the octet, what has the M bit, what clients read of it."""

import dataclasses
import datetime
import struct
from typing import Any

import pytest
from diameter.message import Message as TheirMessage

from protocols.credit_control import (
    AdviceOfCharge,
    CreditControlAnswer,
    PoolReference,
    RateElement,
    ReceivedAnswer,
    ServiceAnswer,
    ServiceRequest,
    Tariff,
    Units,
    bandwidth_filter_rule,
    decode_answer,
    decode_request,
    encode_answer,
    encode_command_members,
    encode_request,
    encode_service_members,
)
from protocols.credit_control.client import learn
from protocols.diameter import codec
from protocols.diameter.codec import Avp, check, decode
from protocols.diameter.codes import VENDOR_3GPP, ResultCode
from protocols.diameter.errors import DiameterError
from protocols.diameter.shape import ShapeCache
from tests.protocols.messages import group, message, packed, required, u32, u64

ORIGIN = packed(264, b"occ1.ocs.example.net") + packed(296, b"ocs.example.net")
REQUEST = decode_request(required())
SWITCH_S = 1_700_003_600
SWITCH = u32(451, SWITCH_S + 2_208_988_800)


def tgpp(code: int, *members: bytes) -> bytes:
    """A group of 3GPP's without the M bit."""
    return packed(code, b"".join(members), vendor=VENDOR_3GPP, flags=0)


def tgpp32(code: int, value: int) -> bytes:
    return u32(code, value, vendor=VENDOR_3GPP, flags=0)


def digits(value: int, exponent: int | None = None) -> bytes:
    """The members of Unit-Value."""
    octets = packed(447, struct.pack(">q", value))
    return octets if exponent is None else octets + packed(429, struct.pack(">i", exponent))


def answer_of(*avps: bytes) -> bytes:
    """A Credit-Control-Answer packed by hand."""
    common = [packed(263, b"gw.example.net;1;2"), u32(268, 2001), ORIGIN, u32(258, 4), u32(416, 2), u32(415, 7)]
    return message([*common, *avps], flags=0x40)


def encoded(answer: CreditControlAnswer) -> bytes:
    octets = encode_answer(REQUEST, answer, ORIGIN)
    check(decode(octets))
    return octets


def service_read(octets: bytes) -> ServiceAnswer:
    (service,) = decode_answer(octets).services
    return service


def command_fields(answer: ReceivedAnswer) -> CreditControlAnswer:
    """A received answer without what belongs to the message."""
    names = [field.name for field in dataclasses.fields(CreditControlAnswer)]
    return CreditControlAnswer(**{name: getattr(answer, name) for name in names})


POOL = group(457, u32(453, 1), u32(454, 2), group(445, digits(3, -6)))
FINAL_RESTRICT = group(
    430,
    u32(449, 2),
    packed(438, b"permit out ip from any to 192.0.2.1"),
    packed(11, b"portal-only"),
)
RULE = bandwidth_filter_rule(1_000_000)
URL = b"http://top-up.example.net/"
REDIRECT_URL = group(434, u32(433, 2), packed(435, URL))

# What a service says -> the members of its Multiple-Services-Credit-Control after the Rating-Group.
SERVICES: list[tuple[str, ServiceAnswer, bytes]] = [
    ("RFC 8506 section 8.27", ServiceAnswer(tariff_change_usage=1), u32(452, 1)),
    ("RFC 8506 section 8.30", ServiceAnswer(pool_references=(PoolReference(1, 2, 3, -6),)), POOL),
    (
        "several pools, exponent left out",
        ServiceAnswer(pool_references=(PoolReference(1, 2, 3, -6), PoolReference(2, 0, 5))),
        POOL + group(457, u32(453, 2), u32(454, 0), group(445, digits(5))),
    ),
    ("TS 32.299 clause 7.2", ServiceAnswer(quota_consumption_time=30), tgpp32(881, 30)),
    ("TS 32.299 clause 7.2.235", ServiceAnswer(triggers=(2, 4)), tgpp(1264, tgpp32(870, 2), tgpp32(870, 4))),
    (
        "TS 32.299 clause 7.2.171",
        ServiceAnswer(refund_information=b"debit-7"),
        packed(2022, b"debit-7", vendor=VENDOR_3GPP, flags=0),
    ),
    (
        "RFC 8506 section 8.34: no QoS-Final-Unit-Indication unless wanted",
        ServiceAnswer(
            final_unit_action=2,
            filter_ids=(b"portal-only",),
            restriction_rules=(b"permit out ip from any to 192.0.2.1",),
        ),
        FINAL_RESTRICT,
    ),
    (
        "RFC 8506 section 8.68: Filter-Id in both",
        ServiceAnswer(
            final_unit_action=2,
            filter_ids=(b"portal-only",),
            restriction_rules=(b"permit out ip from any to 192.0.2.1",),
            qos_final_unit=True,
        ),
        FINAL_RESTRICT + group(669, u32(449, 2), packed(11, b"portal-only"), flags=0),
    ),
    (
        "RFC 8506 section 8.34: Filter-Id for old clients, Filter-Rule for those that know it",
        ServiceAnswer(
            final_unit_action=2,
            filter_ids=(b"portal-only",),
            restriction_rules=(b"permit out ip from any to 192.0.2.1",),
            qos_final_unit=True,
            filter_rules=(RULE, RULE),
        ),
        FINAL_RESTRICT + group(669, u32(449, 2), *[group(509, RULE, flags=0)] * 2, flags=0),
    ),
    (
        "RFC 8506 section 8.68: TERMINATE holds nothing else",
        ServiceAnswer(final_unit_action=0, qos_final_unit=True),
        group(430, u32(449, 0)) + group(669, u32(449, 0), flags=0),
    ),
]
# Redirect-Address-Type, address as text, the member of Redirect-Server-Extension.
REDIRECTS = [
    (0, b"192.0.2.1", packed(666, b"\x00\x01\xc0\x00\x02\x01", flags=0)),
    (1, b"2001:db8::1", packed(666, b"\x00\x02\x20\x01\x0d\xb8" + bytes(11) + b"\x01", flags=0)),
    (2, URL, packed(667, URL, flags=0)),
    (3, b"sip:top-up@example.net", packed(668, b"sip:top-up@example.net", flags=0)),
]
ADVICE = AdviceOfCharge(
    accumulated_cost=(123, -2),
    incremental_cost=(7, -2),
    currency=978,
    current_tariff=Tariff(
        (RateElement(1, (5, -2), charge_reason=3), RateElement(0, (10, -2), unit_value=(60, 0))), currency=978
    ),
    tariff_time_change=SWITCH_S,
    next_tariff=Tariff((RateElement(0, (2, 0), unit_value=(6, 1)),)),
)
ADVICE_OCTETS = tgpp(
    873,
    tgpp(
        2054,
        tgpp(2053, tgpp(2052, digits(123, -2)), tgpp(2062, digits(7, -2)), u32(425, 978)),
        tgpp(
            2060,
            tgpp(
                2056,
                u32(425, 978),
                tgpp(2058, u32(454, 1), tgpp32(2118, 3), tgpp(2061, digits(5, -2))),
                tgpp(2058, u32(454, 0), group(445, digits(60)), tgpp(2061, digits(10, -2))),
            ),
            SWITCH,
            tgpp(2057, tgpp(2058, u32(454, 0), group(445, digits(6, 1)), tgpp(2061, digits(2)))),
        ),
    ),
)


# --------------------------------------------------------------------------------------------- to the octet


@pytest.mark.parametrize(("service", "members"), [case[1:] for case in SERVICES], ids=[case[0] for case in SERVICES])
def test_service_members_to_the_octet(service: ServiceAnswer, members: bytes) -> None:
    """Each AVP where its clause has it, without the M bit wherever a plain client may not know it."""
    service = dataclasses.replace(service, rating_group=10)
    octets = answer_of(group(456, u32(432, 10), members))
    assert encode_service_members(service) == members
    assert encoded(CreditControlAnswer(2001, [service])) == octets
    assert service_read(octets) == service


@pytest.mark.parametrize(("kind", "address", "extension"), REDIRECTS)
def test_redirect_addresses(kind: int, address: bytes, extension: bytes) -> None:
    """Rows 29 and 32: text in Redirect-Server for every client; typed in Redirect-Server-Extension (section 8.64)."""
    service = ServiceAnswer(
        final_unit_action=1, redirect_address_type=kind, redirect_server_address=address, qos_final_unit=True
    )
    old = group(430, u32(449, 1), group(434, u32(433, kind), packed(435, address)))
    new = group(669, u32(449, 1), group(665, extension, flags=0), flags=0)
    assert encode_service_members(service) == old + new
    assert service_read(answer_of(group(456, old, new))) == service
    # A client that knows the new one needs no other.
    assert service_read(answer_of(group(456, new))) == service


@pytest.mark.parametrize(
    ("kind", "address"), [(0, URL), (0, b"2001:db8::1"), (1, b"192.0.2.1"), (1, b""), (0, b"\xff"), (None, URL)]
)
def test_an_address_of_another_type_is_refused(kind: int | None, address: bytes) -> None:
    service = ServiceAnswer(
        final_unit_action=1, redirect_address_type=kind, redirect_server_address=address, qos_final_unit=True
    )
    with pytest.raises(ValueError, match=r"the redirect address .* is no IPv[46] address"):
        encode_service_members(service)


def test_qos_final_unit_indication_counts_for_more() -> None:
    """RFC 8506 section 5.6.3: where the two differ, a client follows the QoS-Final-Unit-Indication; in any order."""
    old = group(430, u32(449, 0), packed(11, b"old"), REDIRECT_URL)
    new = group(
        669, u32(449, 2), packed(11, b"new"), group(665, packed(667, b"http://new/", flags=0), flags=0), flags=0
    )
    expected = ServiceAnswer(
        final_unit_action=2,
        redirect_address_type=2,
        redirect_server_address=b"http://new/",
        filter_ids=(b"new",),
        qos_final_unit=True,
    )
    for both in (old + new, new + old):
        assert service_read(answer_of(group(456, both))) == expected
        assert decode_answer(answer_of(both)).filter_ids == (b"new",)


def test_bandwidth_filter_rule() -> None:
    """RFC 5777 sections 3.2 and 5.1, RFC 5624 section 3.3: shape to so many octets per second, no M bit anywhere."""
    rate = group(576, packed(502, struct.pack(">f", 125_000.0), flags=0), flags=0)
    assert bandwidth_filter_rule(1_000_000) == u32(572, 1, flags=0) + u32(575, 4, flags=0) + rate
    filter_rule = Avp(509, 0, 0, bandwidth_filter_rule(64_000))
    members: Any = filter_rule.value()
    assert [one.name for one in members] == ["Treatment-Action", "QoS-Semantics", "QoS-Parameters"]
    assert members[2].value()[0].value() == 8000.0
    for nothing in (0, -1):
        with pytest.raises(ValueError, match="lets nothing pass"):
            bandwidth_filter_rule(nothing)


def test_tariff_time_change_in_a_grant() -> None:
    """Row 34; RFC 8506 sections 8.17 and 8.20: in Granted-Service-Unit, with the M bit, as seconds since 1900."""
    service = ServiceAnswer(10, (), 2001, Units(total_octets=0, tariff_time_change=SWITCH_S), tariff_change_usage=0)
    octets = answer_of(group(456, group(431, SWITCH, u64(421, 0)), u32(432, 10), u32(268, 2001), u32(452, 0)))
    assert encoded(CreditControlAnswer(2001, [service])) == octets
    assert service_read(octets) == service


def test_zero_units_are_sent() -> None:
    """Row 30; RFC 8506 section 5.6: zero units with final units mean that the action is to be taken at once."""
    service = ServiceAnswer(10, (), 2001, Units(total_octets=0), final_unit_action=2, filter_ids=(b"portal-only",))
    octets = encoded(CreditControlAnswer(2001, [service]))
    assert group(431, u64(421, 0)) in octets
    assert service_read(octets) == service


def test_advice_of_charge_to_the_octet() -> None:
    """Row 41; TS 32.299 clauses 7.2.13-7.2.15, 7.2.47, 7.2.161, 7.2.223: 3GPP's own without the M bit, all levels."""
    answer = CreditControlAnswer(2001, advice_of_charge=ADVICE)
    octets = answer_of(ADVICE_OCTETS)
    assert encode_command_members(answer) == ADVICE_OCTETS
    assert encoded(answer) == octets
    assert command_fields(decode_answer(octets)) == answer


@pytest.mark.parametrize(
    "advice",
    [
        AdviceOfCharge(accumulated_cost=(5, 0), currency=978),
        AdviceOfCharge(current_tariff=Tariff()),
        AdviceOfCharge(),
    ],
)
def test_parts_of_an_advice_of_charge(advice: AdviceOfCharge) -> None:
    """Cost only, tariff only, nothing: what AoC-Request-Type asks for (TS 32.299 clause 7.2.18)."""
    answer = CreditControlAnswer(2001, advice_of_charge=advice)
    assert command_fields(decode_answer(encoded(answer))) == answer


def test_command_level_final_units_and_refund() -> None:
    """RFC 8506 section 3.2: both indications also for a session of a single service."""
    answer = CreditControlAnswer(
        2001,
        granted=Units(time=60, tariff_time_change=SWITCH_S),
        final_unit_action=1,
        redirect_address_type=2,
        redirect_server_address=URL,
        qos_final_unit=True,
        filter_rules=(RULE,),
        refund_information=b"debit-7",
    )
    octets = answer_of(
        group(431, SWITCH, u32(420, 60)),
        group(430, u32(449, 1), REDIRECT_URL),
        group(669, u32(449, 1), group(509, RULE, flags=0), group(665, packed(667, URL, flags=0), flags=0), flags=0),
        packed(2022, b"debit-7", vendor=VENDOR_3GPP, flags=0),
    )
    assert encoded(answer) == octets
    assert command_fields(decode_answer(octets)) == answer


# --------------------------------------------------------------------------------------------- members made once

FULL_SERVICE = ServiceAnswer(
    10,
    (7,),
    2001,
    Units(total_octets=5),
    60,
    1,
    2,
    URL,
    (b"portal-only",),
    (b"permit out ip from any to 192.0.2.1",),
    volume_quota_threshold=1,
    time_quota_threshold=2,
    unit_quota_threshold=3,
    quota_holding_time=4,
    failed_avp=u32(432, 10),
    tariff_change_usage=1,
    pool_references=(PoolReference(1, 2, 3, -6),),
    qos_final_unit=True,
    filter_rules=(RULE,),
    quota_consumption_time=5,
    triggers=(1, 2),
    refund_information=b"debit-7",
)
FULL_ANSWER = CreditControlAnswer(
    2001,
    (FULL_SERVICE,),
    granted=Units(time=1),
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
    qos_final_unit=True,
    refund_information=b"debit-7",
    advice_of_charge=ADVICE,
)


def test_members_may_be_encoded_beforehand() -> None:
    """Octets kept by a server make the same message as the fields they were made of."""
    service = ServiceAnswer(10, (7,), 2001, Units(total_octets=5), 60, members=encode_service_members(FULL_SERVICE))
    answer = CreditControlAnswer(
        2001, [service], granted=Units(time=1), validity_time=60, members=encode_command_members(FULL_ANSWER)
    )
    assert encoded(answer) == encoded(FULL_ANSWER)
    assert command_fields(decode_answer(encoded(answer))) == FULL_ANSWER


def test_members_go_with_fields() -> None:
    """What is set beside ``members`` comes before them, so both may be used together."""
    service = ServiceAnswer(10, quota_holding_time=9, members=encode_service_members(ServiceAnswer(triggers=(1,))))
    assert encode_service_members(service) == tgpp32(871, 9) + tgpp(1264, tgpp32(870, 1))
    answer = CreditControlAnswer(2001, [service], low_balance_indication=1, members=u32(418, 1))
    assert encode_command_members(answer) == tgpp32(2020, 1) + u32(418, 1)
    expected = ServiceAnswer(10, quota_holding_time=9, triggers=(1,))
    assert command_fields(decode_answer(encoded(answer))) == CreditControlAnswer(
        2001, (expected,), low_balance_indication=1, cc_session_failover=1
    )


def test_what_varies_is_no_member() -> None:
    """Units, identifiers, Validity-Time and results are the request's, so they are not in the octets to keep."""
    assert encode_service_members(ServiceAnswer(10, (7,), 2001, Units(total_octets=5), 60)) == b""
    varying = CreditControlAnswer(2001, (FULL_SERVICE,), granted=Units(time=1), validity_time=60)
    assert encode_command_members(varying) == b""


# --------------------------------------------------------------------------------------------- flags and shapes


def walk(avps: list[Avp]) -> list[Avp]:
    """All AVPs, those inside groups too."""
    found = []
    for one in avps:
        found.append(one)
        if one.definition is not None and one.definition.grouped:
            inner: Any = one.value()
            found.extend(walk(inner))
    return found


@pytest.mark.shows("freediameter-unknown-m-bit")
def test_no_m_bit_that_a_plain_client_may_not_know() -> None:
    """A client built on freeDiameter drops an answer that has an unknown AVP with the M bit; RFC 4006's keep it."""
    avps = walk(decode(encoded(FULL_ANSWER)).avps)
    assert {665, 669, 509, 572, 2054, 2058, 2118, 2022, 881, 1264, 870} <= {one.code for one in avps}
    for one in avps:
        assert one.definition is not None, one
        if one.vendor:
            assert one.flags == 0x80, one
        else:
            assert one.flags == one.definition.flags, one
    assert {one.code for one in avps if not one.vendor and not one.flags} == {
        281,
        502,
        509,
        572,
        575,
        576,
        665,
        667,
        669,
    }


def outcome(octets: bytes, cache: ShapeCache[ReceivedAnswer] | None = None) -> Any:
    """The answer read through its shape or, without a cache, the long way; or everything about its error."""
    try:
        return learn(octets).apply(octets) if cache is None else cache.read(octets)
    except DiameterError as error:
        return error.result_code, error.message, error.failed_avp, error.close


def test_no_octet_makes_a_difference_between_the_ways_of_reading() -> None:
    """Each octet of a learnt answer changed on its own: what reading depends on is part of the shape."""
    octets = encoded(FULL_ANSWER)
    cache: ShapeCache[ReceivedAnswer] = ShapeCache(learn)
    for position in range(len(octets)):
        cache.read(octets)
        changed = bytearray(octets)
        changed[position] ^= 0x01
        assert outcome(bytes(changed), cache) == outcome(bytes(changed))


def test_an_address_of_no_known_family_is_read() -> None:
    """Lenient on input: a Redirect-Address-IPAddress that holds no IP address comes as its octets."""
    odd = group(669, u32(449, 1), group(665, packed(666, b"\x00\x08491700", flags=0), flags=0), flags=0)
    assert service_read(answer_of(group(456, odd))).redirect_server_address == b"491700"


def test_what_a_group_must_have_is_asked_for() -> None:
    """TS 32.299 clause 7.2: Value-Digits, Current-Tariff and CC-Unit-Type are required."""
    for bad, example in (
        (tgpp(873, tgpp(2054, tgpp(2053, tgpp(2052)))), u64(447, 0)),
        (tgpp(873, tgpp(2054, tgpp(2060, SWITCH))), packed(2056, b"", vendor=VENDOR_3GPP, flags=0x40)),
        (tgpp(873, tgpp(2054, tgpp(2060, tgpp(2056, tgpp(2058))))), u32(454, 0)),
    ):
        with pytest.raises(DiameterError) as caught:
            decode_answer(answer_of(bad))
        assert caught.value.result_code == ResultCode.MISSING_AVP
        assert caught.value.failed_avp is not None
        assert caught.value.failed_avp.endswith(example)


# --------------------------------------------------------------------------------------------- python-diameter


def test_python_diameter_reads_the_members() -> None:
    """An independent client's view, by its own names of the AVPs."""
    theirs: Any = TheirMessage.from_bytes(encoded(FULL_ANSWER))
    (service,) = theirs.multiple_services_credit_control
    (pool,) = service.g_s_u_pool_reference
    assert (pool.g_s_u_pool_identifier, pool.cc_unit_type) == (1, 2)
    assert (pool.unit_value.value_digits, pool.unit_value.exponent) == (3, -6)
    assert service.tariff_change_usage == 1
    assert service.quota_consumption_time == 5
    assert service.trigger.trigger_type == [1, 2]
    assert service.refund_information == b"debit-7"
    qos = theirs.qos_final_unit_indication
    assert qos.final_unit_action == 0
    advice = theirs.service_information.aoc_information
    assert advice.aoc_cost_information.accumulated_cost.value_digits == 123
    assert advice.aoc_cost_information.currency_code == 978
    tariff = advice.tariff_information
    assert [one.cc_unit_type for one in tariff.current_tariff.rate_element] == [1, 0]
    assert tariff.current_tariff.rate_element[0].charge_reason_code == 3
    assert tariff.current_tariff.rate_element[1].unit_cost.exponent == -2
    assert tariff.next_tariff.rate_element[0].unit_value.value_digits == 6
    assert tariff.tariff_time_change.replace(tzinfo=None) == datetime.datetime.fromtimestamp(SWITCH_S)  # noqa: DTZ006


# --------------------------------------------------------------------------------------------- requests


def test_refund_information_of_a_request() -> None:
    """TS 32.299 clause 7.2.171: in the service, or at command level where some clients put it; M bit or not."""
    for flags in (0x40, 0):
        information = packed(2022, b"debit-7", vendor=VENDOR_3GPP, flags=flags)
        request = decode_request(required(group(456, u32(432, 10), information, information)))
        assert request.services == (ServiceRequest(10, refund_information=b"debit-7"),)
        assert decode_request(required(information)).refund_information == b"debit-7"
    request = dataclasses.replace(
        REQUEST,
        refund_information=b"command",
        correlation_id=b"\x00\x01",
        services=(ServiceRequest(10, refund_information=b"service"),),
    )
    octets = encode_request(request)
    check(decode(octets))
    assert decode_request(octets) == request
    assert packed(2022, b"service", vendor=VENDOR_3GPP) in octets
    assert packed(411, b"\x00\x01") in octets


def test_where_a_request_comes_from() -> None:
    """TS 32.299 clauses 7.2.158 and 7.2.77: access, place, SIP method and ported number of Service-Information."""
    access = packed(21, b"\x06", vendor=VENDOR_3GPP) + packed(22, b"\x82\x00\xf1\x10", vendor=VENDOR_3GPP)
    event = group(823, packed(824, b"INVITE", vendor=VENDOR_3GPP), vendor=VENDOR_3GPP)
    ported = packed(2024, b"tel:+491700000002;rn=+49800", vendor=VENDOR_3GPP)
    information = group(
        873, group(874, access, vendor=VENDOR_3GPP), group(876, event, ported, vendor=VENDOR_3GPP), vendor=VENDOR_3GPP
    )
    request = decode_request(required(information))
    assert request == dataclasses.replace(
        REQUEST,
        rat_type=b"\x06",
        user_location=b"\x82\x00\xf1\x10",
        sip_method=b"INVITE",
        number_portability=b"tel:+491700000002;rn=+49800",
    )
    assert decode_request(required()).rat_type is None


def test_rules_of_credit_control_are_known_by_name() -> None:
    """RFC 5777: an operator may put Filter-Rules together by name; none of their AVPs has the M bit."""
    rule = codec.avp("Filter-Rule-Precedence", 1) + codec.avp("Treatment-Action", 3)
    assert rule == u32(510, 1, flags=0) + u32(572, 3, flags=0)
    service = ServiceAnswer(final_unit_action=2, qos_final_unit=True, filter_rules=(rule,))
    assert service_read(encoded(CreditControlAnswer(2001, [service]))) == service
