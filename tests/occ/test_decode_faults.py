"""The error that the server answers with, and all the others that are in a message besides."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from occ.decode.faults import avp_errors, error_of, path_text
from occ.decode.messages import decoded
from occ.decode.streams import Found, Streams
from occ.decode.tree import DecodedMessage, Kind
from protocols.diameter.capabilities import checked_request
from protocols.diameter.errors import AvpError, DiameterError
from protocols.diameter.validation import validate
from tests.protocols.messages import (
    DESTINATION_REALM,
    MANDATORY,
    ORIGIN_HOST,
    ORIGIN_REALM,
    REQUEST_NUMBER,
    REQUEST_TYPE,
    REQUIRED,
    SESSION_ID,
    call_update,
    gateway_update,
    group,
    message,
    message_event,
    packed,
    required,
    u32,
    u64,
)

UNKNOWN_M = u32(9999, 1)
CER = message(
    [
        ORIGIN_HOST,
        ORIGIN_REALM,
        packed(257, b"\x00\x01\x7f\x00\x00\x01"),
        u32(266, 0),
        packed(269, b"gw", flags=0),
        u32(258, 4),
    ],
    flags=0x80,
    command=257,
    application=0,
)


def decode(octets: bytes) -> DecodedMessage:
    (message_,) = decoded(Streams([Found(octets)]))
    return message_


def errors(octets: bytes) -> list[str]:
    return [remark.text for remark in decode(octets).remarks if remark.kind is Kind.ERROR]


# -- the first error ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "code", "path", "source"),
    [
        (required(without=["CC-Request-Type"]), 5005, "CC-Request-Type", "row 13, RFC 6733 section 7.1.5"),
        (required(UNKNOWN_M), 5001, "AVP 9999/0", "row 12, RFC 6733 section 4.1"),
        (
            required(group(456, UNKNOWN_M)),
            5001,
            "Multiple-Services-Credit-Control > AVP 9999/0",
            "row 12, RFC 6733 section 4.1",
        ),
        (required(u32(436, 9)), 5004, "Requested-Action", "row 14, RFC 6733 section 7.1.5"),
        (required(REQUEST_NUMBER), 5009, "CC-Request-Number", "row 14, RFC 6733 section 7.1.5"),
        (required(group(431, u32(420, 1))), 5008, "Granted-Service-Unit", "row 14, RFC 6733 section 7.1.5"),
        (required(packed(436, b"\x00")), 5014, "Requested-Action", "row 14, RFC 6733 section 7.1.5"),
        (
            required(packed(432, b"\x00\x00\x00\x01", flags=0x80, length=16)),
            3009,
            "Rating-Group",
            "row 11, RFC 6733 section 7.1.3",
        ),
        (required(application=5), 3007, "", "row 9, RFC 6733 section 7.1.3"),
        (required(command=999), 3001, "", "row 9, RFC 6733 section 7.1.3"),
        (required(command=275), 3001, "", "row 9, RFC 6733 section 7.1.3"),
        (required(flags=0xE0), 3008, "", "row 10, RFC 6733 section 7.1.3"),
        (required(version=2), 5011, "", "row 14, RFC 6733 section 7.1.5"),
        (required(length=13), 5015, "", "row 14, RFC 6733 section 7.1.5"),
        (CER.replace(u32(258, 4), u32(258, 16777251)), 5010, "", "row 1, RFC 6733 section 5.3"),
        (CER.replace(u32(258, 4), u32(299, 1)), 5017, "", "row 1, RFC 6733 section 5.3"),
    ],
)
def test_what_the_server_answers(octets: bytes, code: int, path: str, source: str) -> None:
    shown = decode(octets)
    assert shown.error is not None
    assert (shown.error.result_code, path_text(shown.error)) == (code, path)
    first = shown.remarks[0]
    assert first.kind is Kind.ERROR
    assert f": the server answers {code} (" in first.text
    assert first.source == source
    assert (f"Failed-AVP {path}" in first.text) == bool(path)


def test_what_the_server_understands_has_no_error() -> None:
    for octets in (gateway_update(), call_update(), message_event(), CER):
        assert decode(octets).error is None
        assert errors(octets) == []


def test_base_commands_are_known_by_their_code() -> None:
    """The server does not look at the application of a CER, DWR or DPR."""
    assert decode(message([ORIGIN_HOST, ORIGIN_REALM], flags=0x80, command=280, application=4)).error is None


# -- all errors --------------------------------------------------------------------------------------------------


def test_one_answer_names_all_faults() -> None:
    """The server reports the first error only (RFC 6733 section 7); the rest would come one by one."""
    octets = required(
        u32(436, 9),
        group(456, UNKNOWN_M, u32(432, 1), u32(432, 2), packed(439, b"\x00"), group(437, u32(421, 1))),
        group(443, u32(450, 1)),
        group(431, u32(420, 1)),
        u32(278, 1),
        u32(278, 2),
        without=["Origin-Realm", "CC-Request-Number"],
    )
    found = errors(octets)
    assert [text.split(":")[0] for text in found] == [
        "Requested-Action must be one of [0, 1, 2, 3], not 9",
        "AVP 9999 of vendor 0 has the M bit set and is not known",
        "Rating-Group occurs more often than the 1 allowed",
        "Service-Identifier has 1 octets of data instead of 4",
        "CC-Total-Octets has 4 octets of data instead of 8",
        "Subscription-Id-Data is missing",
        "Granted-Service-Unit is not allowed here",
        "Origin-State-Id occurs more often than the 1 allowed",
        "Origin-Realm is missing",
        "CC-Request-Number is missing",
    ]
    assert "the server answers 5004 (DIAMETER_INVALID_AVP_VALUE)" in found[0]
    assert all(text.endswith("not reported because it is not the first error") for text in found[1:])
    assert "Failed-AVP Multiple-Services-Credit-Control > Requested-Service-Unit > CC-Total-Octets" in found[4]


def test_faults_after_octets_that_are_no_avp_are_not_guessed() -> None:
    """Framing is lost within that group, and only there."""
    broken = group(456, u32(432, 1), packed(439, b"", length=5))
    found = errors(required(broken, u32(436, 9)))
    assert [text.split(":")[0] for text in found] == [
        "AVP 439 has the impossible length 5",
        "Requested-Action must be one of [0, 1, 2, 3], not 9",
    ]


def test_inside_an_optional_group_nothing_unknown_counts() -> None:
    """RFC 6733 section 4.4: the whole group may be ignored."""
    assert errors(required(group(458, u32(459, 0), packed(460, b"x"), UNKNOWN_M, flags=0))) == []


def test_what_failed_avp_holds_is_broken_by_nature() -> None:
    answer = message(
        [
            SESSION_ID,
            u32(268, 5005),
            ORIGIN_HOST,
            ORIGIN_REALM,
            u32(258, 4),
            REQUEST_TYPE,
            REQUEST_NUMBER,
            group(279, packed(461, b""), UNKNOWN_M),
        ],
        flags=0x40,
    )
    assert errors(answer) == []


def _mutated(octets: bytes, source: random.Random) -> bytes:
    """A few octets changed, and now and then an AVP dropped, doubled or moved."""
    buffer = bytearray(octets)
    for _ in range(source.randint(1, 3)):
        buffer[source.randrange(4, len(buffer))] = source.choice(
            (0, 1, 2, 8, 12, 0x40, 0x80, 0xFF, source.randrange(256))
        )
    return bytes(buffer)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from([gateway_update(), call_update(), message_event(), required()]), st.integers(0, 1 << 40))
@example(required(UNKNOWN_M), 0)
def test_the_first_of_all_errors_is_the_one_the_server_reports(octets: bytes, seed: int) -> None:
    """Held one by one against the same validation, the AVPs give the error that the walk over all of them stops at."""
    octets = _mutated(octets, random.Random(seed))
    octets = octets[:4] + b"\xc0" + octets[5:]
    try:
        validate(octets)
        expected: DiameterError | None = None
    except DiameterError as error:
        expected = error
    shown = DecodedMessage(1, Found(octets))
    if isinstance(expected, AvpError):
        first = next(iter(avp_errors(shown)))
        assert (first.result_code, first.message, first.failed_avp) == (
            expected.result_code,
            expected.message,
            expected.failed_avp,
        )
    elif expected is None:
        assert list(avp_errors(shown)) == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 40))
def test_a_base_request_is_refused_as_the_server_refuses_it(seed: int) -> None:
    octets = _mutated(CER, random.Random(seed))
    octets = octets[:4] + b"\x80\x00\x01\x01" + octets[8:]
    expected = None
    try:
        checked_request(octets)
    except DiameterError as error:
        expected = (error.result_code, error.failed_avp)
    found = error_of(DecodedMessage(1, Found(octets)))
    if expected is not None:
        assert found is not None
        assert (found.result_code, found.failed_avp) == expected


# -- other messages than requests to the server ------------------------------------------------------------------


def _answer(*avps: bytes, flags: int = 0x40, **header: int) -> bytes:
    return message([SESSION_ID, *avps], flags=flags, **header)


def test_an_answer_is_dropped_and_not_answered() -> None:
    """A successful one without what it must have: clients built on freeDiameter say nothing then."""
    octets = _answer(u32(268, 2001), ORIGIN_HOST, ORIGIN_REALM, u32(258, 4), REQUEST_TYPE)
    (text,) = errors(octets)
    assert text == (
        "CC-Request-Number is missing: as 5005 (DIAMETER_MISSING_AVP), Failed-AVP CC-Request-Number, such an answer "
        "may be discarded; clients built on freeDiameter drop it in silence"
    )
    (text,) = errors(octets.replace(u32(268, 2001), u32(268, 4012)))
    assert text.endswith("such an answer may be discarded")


def test_an_answer_repeats_what_is_missing_in_its_request() -> None:
    """There is nothing else it could say."""
    octets = _answer(u32(268, 5005), ORIGIN_HOST, ORIGIN_REALM, u32(258, 4), REQUEST_NUMBER, group(279, u32(416, 0)))
    assert decode(octets).error is None
    assert errors(octets) == []
    assert errors(octets.replace(ORIGIN_HOST, b"")) != []


def test_an_answer_with_the_e_bit_has_a_grammar_of_its_own() -> None:
    """RFC 6733 section 7.2."""
    assert errors(_answer(u32(268, 3002), ORIGIN_HOST, ORIGIN_REALM, flags=0x60)) == []
    assert errors(_answer(u32(268, 3002), ORIGIN_HOST, ORIGIN_REALM, flags=0x40)) != []


def test_requests_of_the_server_are_judged_as_their_receivers_do() -> None:
    octets = required(u32(285, 0), command=258)
    (text,) = errors(octets)
    assert (
        text
        == "Destination-Host is missing: its receiver answers 5005 (DIAMETER_MISSING_AVP), Failed-AVP Destination-Host"
    )


def test_other_applications_are_refused_once_and_not_judged_by_a_grammar_they_do_not_have() -> None:
    update_location = message([SESSION_ID, ORIGIN_HOST, UNKNOWN_M], flags=0xC0, command=316, application=16777251)
    shown = decode(update_location)
    assert shown.name == "Update-Location-Request"
    assert [(remark.kind, remark.text) for remark in shown.remarks] == [
        (Kind.ERROR, "command 316 is not supported: the server answers 3001 (DIAMETER_COMMAND_UNSUPPORTED)")
    ]
    gx = decode(required(application=16777238))
    assert gx.remarks[0].text == (
        "application 16777238 (3GPP Gx) is not supported: the server answers 3007 (DIAMETER_APPLICATION_UNSUPPORTED)"
    )
    answer = decode(
        message([SESSION_ID, UNKNOWN_M, packed(268, b"\x00")], flags=0x40, command=316, application=16777251)
    )
    assert [remark.kind for remark in answer.remarks] == [Kind.ERROR, Kind.NOTE]
    assert answer.remarks[0].text.startswith("Result-Code has 1 octets of data instead of 4")


def test_a_message_that_the_capture_cut_off_is_judged_by_nothing_else() -> None:
    octets = gateway_update()
    (shown,) = decoded(Streams([Found(octets[:-40], missing=40)]))
    assert shown.error is None
    (remark,) = shown.remarks
    assert remark.text.startswith(f"the message has {len(octets)} octets by its length field, the last 40 are not here")


def test_every_avp_that_is_required_is_missed() -> None:
    for name in REQUIRED:
        assert errors(required(without=[name])) == [
            f"{name} is missing: the server answers 5005 (DIAMETER_MISSING_AVP), Failed-AVP {name}"
        ]
    assert len(errors(required(without=list(REQUIRED)))) == len(REQUIRED)


def test_deep_nesting_is_one_error() -> None:
    nested = u64(445, 1)
    for _ in range(40):
        nested = group(456, nested, flags=MANDATORY)
    assert len(errors(required(nested, DESTINATION_REALM))) == 2
