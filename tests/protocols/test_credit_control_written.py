"""What the server writes: answers to the octet, their flags, and what it starts itself, RAR and ASR."""

import dataclasses
from typing import Any

import pytest
from diameter.message import Message as TheirMessage
from diameter.message import commands as their_commands

from protocols.credit_control import (
    AbortSessionRequest,
    CreditControlAnswer,
    ReAuthRequest,
    ServiceAnswer,
    SessionAnswer,
    Units,
    decode_asa,
    decode_asr,
    decode_raa,
    decode_rar,
    encode_answer,
    encode_asa,
    encode_asr,
    encode_raa,
    encode_rar,
)
from protocols.diameter.codec import Avp, check, decode
from protocols.diameter.errors import DiameterError
from tests.protocols.full_answer import FULL_ANSWER, OUR_ORIGIN, REQUEST
from tests.protocols.messages import group, message, packed, u32, u64

# --------------------------------------------------------------------------------------------- answers


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
