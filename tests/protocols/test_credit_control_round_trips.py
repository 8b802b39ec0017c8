"""What is written is read again as it was: by this project on both sides, and by python-diameter."""

import dataclasses
import datetime
from typing import Any

from diameter.message import Message as TheirMessage
from diameter.message import commands as their_commands
from diameter.message.avp import grouped as their_groups
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.credit_control import (
    AdviceOfCharge,
    CreditControlAnswer,
    CreditControlRequest,
    Money,
    PoolReference,
    RateElement,
    ReceivedAnswer,
    ServiceAnswer,
    ServiceRequest,
    Tariff,
    Units,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    ims_information,
    ps_information,
    sms_information,
)
from protocols.diameter import codec
from protocols.diameter.codec import check, decode
from protocols.diameter.errors import DiameterError
from tests.protocols.full_answer import FULL_ANSWER, OUR_ORIGIN, REQUEST
from tests.protocols.messages import group, message, message_event, packed, required, u32


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
