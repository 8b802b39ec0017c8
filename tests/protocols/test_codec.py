"""The general codec: structure, types, the rows 7-14 for base messages, and round trips with python-diameter."""

import struct
from ipaddress import ip_address
from typing import Any

import pytest
from diameter.message import Message as TheirMessage
from diameter.message.avp import Avp as TheirAvp
from diameter.message.avp import AvpGrouped as TheirGroup
from hypothesis import given
from hypothesis import strategies as st

from protocols.diameter import codec
from protocols.diameter.codec import Avp, Message, answer_to, avp, build, check, decode, encode, error_answer
from protocols.diameter.codes import Flag, ResultCode
from protocols.diameter.dictionary import DICTIONARY, AvpType
from protocols.diameter.errors import AvpError, DiameterError, MessageError
from protocols.diameter.validation import validate
from tests.protocols.messages import (
    AUTH_APPLICATION_ID,
    ORIGIN_HOST,
    ORIGIN_REALM,
    REQUEST_NUMBER,
    REQUEST_TYPE,
    SESSION_ID,
    gateway_update,
    group,
    message,
    packed,
    required,
    u32,
)

OUR_ORIGIN = packed(264, b"occ1.ocs.example.net") + packed(296, b"ocs.example.net")
HOST_ADDRESS = packed(257, b"\x00\x01\x7f\x00\x00\x01")
PRODUCT = packed(269, b"gw", flags=0)
CER = [ORIGIN_HOST, ORIGIN_REALM, HOST_ADDRESS, u32(266, 10415), PRODUCT, u32(258, 4), u32(299, 0)]


def cer(*extra: bytes, **header: int) -> bytes:
    return message([*CER, *extra], **{"flags": 0x80, "command": 257, "application": 0, **header})


def failure(buffer: bytes) -> DiameterError:
    """The first error of a message, found by ``decode`` or ``check``."""
    with pytest.raises(DiameterError) as caught:
        check(decode(buffer))
    return caught.value


# --------------------------------------------------------------------------------------------- structure and types


def test_header_and_lookup() -> None:
    """RFC 6733 section 3: every header field is read, and AVPs are found by code and vendor."""
    decoded = decode(gateway_update())
    assert (decoded.command, decoded.application) == (272, 4)
    assert (decoded.hop_by_hop, decoded.end_to_end) == (0x01020304, 0x0A0B0C0D)
    assert decoded.is_request
    assert decoded.is_proxiable
    assert not decoded.is_error
    assert not decoded.is_retransmission
    host = decoded.find(264)
    assert host is not None
    assert host.value() == "gw.example.net"
    assert [one.value() for one in decoded.find_all(282)] == ["relay1.example.net", "relay2.example.net"]
    assert decoded.find(873) is None
    information = decoded.find(873, 10415)
    assert information is not None
    assert information.name == "Service-Information"


@pytest.mark.parametrize(
    ("name", "value", "octets"),
    [
        ("Session-Id", "gw;1", b"gw;1"),
        ("Origin-Host", "gw.example.net", b"gw.example.net"),
        ("CC-Time", 61, b"\x00\x00\x00\x3d"),
        ("CC-Total-Octets", 1 << 40, b"\x00\x00\x01\x00\x00\x00\x00\x00"),
        ("Value-Digits", -5, b"\xff" * 7 + b"\xfb"),
        ("Exponent", -2, b"\xff\xff\xff\xfe"),
        ("CC-Request-Type", 4, b"\x00\x00\x00\x04"),
        ("Proxy-State", b"\x00\xff", b"\x00\xff"),
        # RFC 6733 section 4.3.1: era 0 of NTP up to 2036-02-07T06:28:15Z, era 1 from then on.
        ("Event-Timestamp", 0, struct.pack(">I", 2_208_988_800)),
        ("Event-Timestamp", 2_085_978_495, b"\xff\xff\xff\xff"),
        ("Event-Timestamp", 2_085_978_496, b"\x00\x00\x00\x00"),
        ("Host-IP-Address", "127.0.0.1", b"\x00\x01\x7f\x00\x00\x01"),
        ("Host-IP-Address", "2001:db8::1", b"\x00\x02\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
        ("SMSC-Address", "491700000001", b"\x00\x08491700000001"),
    ],
)
def test_values_of_each_type(name: str, value: Any, octets: bytes) -> None:
    """RFC 6733 sections 4.2 and 4.3: the value to octets and back."""
    encoded = avp(name, value)
    definition = DICTIONARY.avp_named(name)
    assert encoded == packed(definition.code, octets, vendor=definition.vendor, flags=definition.flags)
    [one] = codec.split(encoded, 0)
    assert one.data == octets
    assert one.value() == value


def test_groups_nest() -> None:
    members = [avp("Subscription-Id-Type", 1), avp("Subscription-Id-Data", "262010000000001")]
    [one] = codec.split(avp("Subscription-Id", members), 0)
    inner = one.value()
    assert isinstance(inner, list)
    assert [member.encode() for member in inner] == members


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CC-Time", -1),
        ("CC-Time", 1 << 32),
        ("CC-Time", "61"),
        ("CC-Time", b"\x01"),
        ("Session-Id", 7),
        ("Session-Id", [b""]),
        ("CC-Request-Type", 5),
        ("Host-IP-Address", "localhost"),
        ("Subscription-Id", "x"),
        ("Subscription-Id", 1),
    ],
)
def test_values_that_do_not_fit_are_not_encoded(name: str, value: Any) -> None:
    with pytest.raises(ValueError):
        avp(name, value)


def test_mandatory_flag_can_be_chosen() -> None:
    """A 3GPP AVP goes without M to a peer that may not know it."""
    assert avp("Time-Quota-Threshold", 9)[4] == 0xC0
    assert avp("Time-Quota-Threshold", 9, mandatory=False)[4] == 0x80
    assert avp("CC-Correlation-Id", b"x", mandatory=True)[4] == 0x40


def test_values_of_malformed_data() -> None:
    """What ``check`` lets pass unseen is found when the value is asked for."""
    with pytest.raises(AvpError) as caught:
        Avp(420, 0, 0x40, b"\x01").value()
    assert caught.value.result_code == ResultCode.INVALID_AVP_LENGTH
    with pytest.raises(AvpError) as caught:
        Avp(263, 0, 0x40, b"\xff").value()
    assert caught.value.result_code == ResultCode.INVALID_AVP_VALUE
    with pytest.raises(AvpError) as caught:
        Avp(257, 0, 0x40, b"\x00\x01\x7f").value()
    assert caught.value.result_code == ResultCode.INVALID_AVP_LENGTH
    assert Avp(257, 0, 0x40, b"\x00\x0f\x7f\x01").value() == b"\x00\x0f\x7f\x01"
    assert Avp(99999, 0, 0, b"\x01").value() == b"\x01"


AVPS = st.builds(
    Avp,
    st.integers(1, 0xFFFFFFFF),
    st.just(0),
    st.sampled_from([0, 0x40, 0x60]),
    st.binary(max_size=40),
) | st.builds(
    Avp,
    st.integers(1, 0xFFFFFFFF),
    st.integers(1, 0xFFFFFFFF),
    st.sampled_from([0x80, 0xC0]),
    st.binary(max_size=40),
)
NUMBERS = st.integers(0, 0xFFFFFFFF)


@given(st.integers(0, 255), st.integers(0, 0xFFFFFF), NUMBERS, NUMBERS, NUMBERS, st.lists(AVPS, max_size=8))
def test_any_message_round_trips(
    flags: int, command: int, application: int, hop_by_hop: int, end_to_end: int, avps: list[Avp]
) -> None:
    octets = encode(Message(flags, command, application, hop_by_hop, end_to_end, avps))
    assert len(octets) % 4 == 0
    decoded = decode(octets)
    assert decoded.avps == avps
    assert (decoded.flags, decoded.command, decoded.application) == (flags, command, application)
    assert (decoded.hop_by_hop, decoded.end_to_end) == (hop_by_hop, end_to_end)
    assert encode(decoded) == octets


# --------------------------------------------------------------------------------------------- python-diameter


def our_tree(avps: list[Avp]) -> list[Any]:
    tree = []
    for one in avps:
        definition = one.definition
        inner = one.value() if definition is not None and definition.type is AvpType.GROUPED else one.data
        members = our_tree(inner) if isinstance(inner, list) else inner
        tree.append((one.code, one.vendor, bool(one.flags & 0x40), members))
    return tree


def their_tree(avps: list[TheirAvp]) -> list[Any]:
    return [
        (
            one.code,
            one.vendor_id,
            one.is_mandatory,
            their_tree(one.value) if isinstance(one, TheirGroup) else one.payload,
        )
        for one in avps
    ]


@pytest.mark.parametrize("octets", [gateway_update(), cer()])
def test_python_diameter_reads_what_we_write(octets: bytes) -> None:
    ours = decode(octets)
    theirs = TheirMessage.from_bytes(encode(ours), plain_msg=True)
    assert their_tree(theirs.avps) == our_tree(ours.avps)
    assert theirs.header.command_code == ours.command
    assert theirs.header.hop_by_hop_identifier == ours.hop_by_hop
    assert theirs.header.end_to_end_identifier == ours.end_to_end
    assert theirs.as_bytes() == octets


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("Session-Id"), st.text(max_size=30)),
            st.tuples(st.just("CC-Time"), NUMBERS),
            st.tuples(st.just("CC-Total-Octets"), st.integers(0, (1 << 64) - 1)),
            st.tuples(st.just("Value-Digits"), st.integers(-(1 << 63), (1 << 63) - 1)),
            st.tuples(st.just("Exponent"), st.integers(-(1 << 31), (1 << 31) - 1)),
            st.tuples(st.just("Proxy-State"), st.binary(max_size=9)),
            st.tuples(st.just("Host-IP-Address"), st.ip_addresses().map(str)),
        ),
        max_size=6,
    )
)
def test_python_diameter_reads_our_values(pairs: list[tuple[str, Any]]) -> None:
    """Each direction for every basic type: ours to theirs and back (RFC 6733 section 4.2)."""
    theirs = TheirMessage.from_bytes(build(999, 0, 0, 1, 2, [avp(name, value) for name, value in pairs]))
    for one, (_, value) in zip(theirs.avps, pairs, strict=True):
        if isinstance(one.value, tuple):  # an address; two texts may mean the same one
            assert ip_address(one.value[1]) == ip_address(value)
        else:
            assert one.value == value
    again = decode(theirs.as_bytes())
    assert [one.value() for one in again.avps] == [value for _, value in pairs]


# --------------------------------------------------------------------------------------------- rows 8-14, base


def test_good_messages_pass() -> None:
    check(decode(cer()))
    check(decode(gateway_update()))
    dwr = message([ORIGIN_HOST, ORIGIN_REALM], flags=0x80, command=280, application=0)
    check(decode(dwr))


@pytest.mark.shows("row 8")
def test_error_answers_have_their_own_grammar() -> None:
    """RFC 6733 section 7.2: with the E bit only identity and Result-Code are required."""
    octets = message([u32(268, 3004), ORIGIN_HOST, ORIGIN_REALM], flags=0x20)
    check(decode(octets))
    assert failure(message([u32(268, 2001), ORIGIN_HOST, ORIGIN_REALM], flags=0)).result_code == 5005


@pytest.mark.parametrize(
    ("octets", "result_code"),
    [
        (cer(command=999), ResultCode.COMMAND_UNSUPPORTED),
        (cer(command=272), ResultCode.COMMAND_UNSUPPORTED),
        (required(application=16777238), ResultCode.APPLICATION_UNSUPPORTED),
    ],
)
def test_row_9_unknown_command_and_application(octets: bytes, result_code: int) -> None:
    error = failure(octets)
    assert isinstance(error, MessageError)
    assert error.result_code == result_code
    assert error.is_protocol_error
    assert error.failed_avp is None


def test_row_9_application_contradicts_the_header() -> None:
    """RFC 6733 section 3: 5004 with the AVP; the base application is exempt, its CER lists applications."""
    error = failure(required(u32(258, 5), without=["Auth-Application-Id"]))
    assert (error.result_code, error.failed_avp) == (5004, u32(258, 5))
    check(decode(cer(u32(258, 16777238))))


@pytest.mark.parametrize(
    "octets",
    [
        cer(flags=0xA0),
        required(flags=0xE0),
        cer(flags=0xC0),
        message([ORIGIN_HOST, ORIGIN_REALM], flags=0xC0, command=280, application=0),
        message([ORIGIN_HOST, ORIGIN_REALM, u32(273, 0)], flags=0xC0, command=282, application=0),
    ],
)
def test_row_10_header_bits(octets: bytes) -> None:
    """R and E both set, or P on CER, DWR, DPR (RFC 6733 section 7.1.3)."""
    assert failure(octets).result_code == ResultCode.INVALID_HDR_BITS


def test_row_10_reserved_bits_are_ignored() -> None:
    check(decode(cer(flags=0x8F)))


def test_row_11_vendor_bit_without_vendor() -> None:
    """RFC 6733 section 4.1.1 forbids Vendor-Id 0; section 7.1.3 answers 3009. The copy has no V bit."""
    octets = cer(u32(278, 5, flags=0xC0))
    for read in (decode, validate):
        with pytest.raises(AvpError) as caught:
            read(octets)
        assert (caught.value.result_code, caught.value.failed_avp) == (3009, u32(278, 5))
        assert caught.value.is_protocol_error


def test_row_11_wrong_m_bit_and_reserved_bits_are_tolerated() -> None:
    octets = message(
        [packed(264, b"gw.example.net", flags=0x1F), ORIGIN_REALM, packed(281, b"text", flags=0x60)],
        flags=0x80,
        command=280,
        application=0,
    )
    check(decode(octets))


def test_row_12_unknown_avps() -> None:
    """RFC 6733 section 4.1: 5001 with the AVP if M is set, ignored if not; section 4.4 for groups."""
    unknown = packed(9999, b"abc")
    error = failure(cer(unknown))
    assert (error.result_code, error.failed_avp) == (5001, unknown)
    vendor = packed(9999, b"abc", vendor=2011)
    error = failure(cer(vendor))
    assert (error.result_code, error.failed_avp) == (5001, vendor)
    check(decode(cer(packed(9999, b"abc", flags=0))))
    # An unknown optional group is not looked into, whatever it holds.
    check(decode(cer(packed(9999, unknown, flags=0))))


def test_row_13_missing_avp() -> None:
    """Code and a zero-filled payload of the minimum length (RFC 6733 section 7.1.5)."""
    for index, example in (
        (0, packed(264, b"")),
        (3, packed(266, bytes(4))),
        (4, packed(269, b"", flags=0)),
    ):
        avps = CER[:index] + CER[index + 1 :]
        error = failure(message(avps, flags=0x80, command=257, application=0))
        assert (error.result_code, error.failed_avp) == (5005, example)


def test_row_14_forbidden_and_surplus_avps() -> None:
    """RFC 6733 section 7.1.5: 5008 copies the AVP, 5009 the first one that is too many."""
    result = u32(268, 2001)
    error = failure(cer(result))
    assert (error.result_code, error.failed_avp) == (5008, result)
    second = packed(264, b"other.example.net")
    error = failure(cer(second, packed(264, b"third.example.net")))
    assert (error.result_code, error.failed_avp) == (5009, second)


def test_row_14_bad_value() -> None:
    bad = u32(273, 9)
    error = failure(message([ORIGIN_HOST, ORIGIN_REALM, bad], flags=0x80, command=282, application=0))
    assert (error.result_code, error.failed_avp) == (5004, bad)
    empty = packed(264, b"")
    error = failure(message([empty, ORIGIN_REALM], flags=0x80, command=280, application=0))
    assert (error.result_code, error.failed_avp) == (5004, empty)


@pytest.mark.parametrize("length", [0, 7, 200, 0xFFFFFF])
def test_row_14_impossible_avp_length(length: int) -> None:
    """RFC 6733 section 7.5: the header with a zero-filled payload, its length corrected to what it then is."""
    error = failure(cer(packed(278, struct.pack(">I", 5), length=length)))
    assert (error.result_code, error.failed_avp) == (5014, u32(278, 0))
    assert not error.close


def test_row_14_incomplete_avp_header() -> None:
    error = failure(cer(struct.pack(">I", 278)))
    assert (error.result_code, error.failed_avp) == (5014, packed(278, b"", flags=0))
    error = failure(cer(struct.pack(">II", 278, 0xC0 << 24 | 12)))
    assert (error.result_code, error.failed_avp) == (5014, packed(278, b""))


def test_row_14_wrong_length_for_the_type() -> None:
    """The AVP itself is whole, so it is shown as it came."""
    bad = packed(278, b"\x00\x05")
    error = failure(cer(bad))
    assert (error.result_code, error.failed_avp) == (5014, bad)
    bad = packed(257, b"\x00\x01\x7f")
    error = failure(cer(bad))
    assert (error.result_code, error.failed_avp) == (5014, bad)


def test_row_14_errors_in_groups_show_the_path() -> None:
    """RFC 6733 section 7.5: the group, holding only the offending AVP."""
    bad = u32(266, 1)[:-4]
    error = failure(cer(group(260, u32(266, 10415), packed(258, b"\x04"))))
    assert (error.result_code, error.failed_avp) == (5014, group(260, packed(258, b"\x04")))
    error = failure(cer(packed(260, bad)))
    assert (error.result_code, error.failed_avp) == (5014, group(260, u32(266, 0)))
    error = failure(cer(group(260, u32(258, 4))))
    assert (error.result_code, error.failed_avp) == (5005, group(260, u32(266, 0)))


def test_row_14_message_length_and_version() -> None:
    """5015 closes, for where the next message starts is unknown; 5011 does not."""
    good = cer()
    for bad in (
        good[:-4],
        good + bytes(4),
        good[:19],
        b"",
        good[:1] + b"\x00\x00\x00" + good[4:],
        message([*CER, b"\x00"], flags=0x80, command=257, application=0),
        good[:1] + b"\xff\xff\xff" + good[4:],
    ):
        error = failure(bad)
        assert (error.result_code, error.close) == (5015, True)
    error = failure(cer(version=2))
    assert (error.result_code, error.close, error.failed_avp) == (5011, False, None)


def test_nesting_is_bounded() -> None:
    """Groups inside groups end in an error, not in a deep recursion."""
    octets = b""
    for _ in range(4000):
        octets = packed(297, octets, flags=0)
    with pytest.raises(AvpError):
        check(decode(cer(octets)))


def test_failed_avp_is_not_judged() -> None:
    """What a peer complains about is broken; its answer is not."""
    broken = struct.pack(">II", 278, 0x40 << 24 | 3)
    octets = message(
        [u32(268, 5014), ORIGIN_HOST, ORIGIN_REALM, packed(279, broken)], flags=0x00, command=280, application=0
    )
    check(decode(octets))


# --------------------------------------------------------------------------------------------- answers


def test_row_7_answer_to() -> None:
    """RFC 6733 section 6.2: identifiers and P as asked, T clear, Session-Id first, Proxy-Info in order."""
    request = decode(gateway_update()[:4] + bytes([0xD0]) + gateway_update()[5:])
    assert request.is_retransmission
    octets = answer_to(request, [avp("Result-Code", 2001), OUR_ORIGIN])
    answer = decode(octets)
    assert answer.flags == Flag.PROXIABLE
    assert (answer.hop_by_hop, answer.end_to_end) == (request.hop_by_hop, request.end_to_end)
    assert [one.code for one in answer.avps] == [263, 268, 264, 296, 284, 284]
    assert answer.find_all(284) == request.find_all(284)
    assert answer.avps[0].data == b"gw.example.net;1;2"
    assert decode(answer_to(request, [], error=True)).is_error
    request.flags = 0x80
    assert decode(answer_to(request, [])).flags == 0


def test_row_8_error_bit() -> None:
    """3xxx has the E bit, 4xxx and 5xxx have not (RFC 6733 sections 7.1.3 to 7.1.5)."""
    for result_code, flags in ((3001, 0x60), (3999, 0x60), (4012, 0x40), (5005, 0x40), (2001, 0x40)):
        octets = error_answer(required(), DiameterError(result_code, "why"), OUR_ORIGIN)
        assert decode(octets).flags == flags


def test_error_answer_of_a_credit_control_request() -> None:
    """RFC 8506 section 3.2 still holds: what can be read of the request comes back, with the Failed-AVP."""
    missing = packed(461, b"")
    request = required(without=["Service-Context-Id"])
    octets = error_answer(request, failure(request), OUR_ORIGIN)
    assert octets == message(
        [
            SESSION_ID,
            u32(268, 5005),
            OUR_ORIGIN,
            AUTH_APPLICATION_ID,
            REQUEST_TYPE,
            REQUEST_NUMBER,
            packed(281, b"Service-Context-Id is missing", flags=0),
            group(279, missing),
        ],
        flags=0x40,
    )
    check(decode(octets))


def test_error_answer_of_what_cannot_be_read() -> None:
    proxy = group(284, packed(280, b"relay.example.net"), packed(33, b"\x01"))
    request = message([SESSION_ID, proxy, packed(415, b"", length=3), REQUEST_TYPE])
    octets = error_answer(request, failure(request), OUR_ORIGIN)
    answer = decode(octets)
    assert [one.code for one in answer.avps] == [263, 268, 264, 296, 258, 281, 279, 284]
    assert answer.avps[-1].encode() == proxy
    # A length field that lies: the identifiers still come back.
    lying = message([ORIGIN_HOST], length=4000)
    answer = decode(error_answer(lying, failure(lying), OUR_ORIGIN))
    assert (answer.hop_by_hop, answer.end_to_end) == (0x01020304, 0x0A0B0C0D)
    wrong_version = cer(version=9)
    answer = decode(error_answer(wrong_version, failure(wrong_version), OUR_ORIGIN))
    assert answer.command == 257


@pytest.mark.shows("row 8")
def test_answers_are_never_answered() -> None:
    """RFC 6733 section 7.2: an error "MUST NOT be sent as a response to an answer message"."""
    with pytest.raises(ValueError, match="never answered"):
        error_answer(required(flags=0x40), DiameterError(3001, "why"), OUR_ORIGIN)
    with pytest.raises(ValueError, match="no Diameter header"):
        error_answer(b"\x01", DiameterError(5015, "why"), OUR_ORIGIN)


def test_messages_longer_than_the_length_field_are_not_built() -> None:
    with pytest.raises(ValueError, match="longer than its length field"):
        build(272, 4, 0, 1, 2, [bytes(0xFFFFFF)])
