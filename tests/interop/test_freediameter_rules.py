"""freeDiameter's own parser, dictionaries and ABNF rules accept everything the server sends.

Open5GS and others are built on freeDiameter, which drops a successful answer without a word if that breaks a rule of
its grammar or holds an AVP with the M bit that is in none of its dictionaries. All messages of all scenarios are
judged, and one of everything that the encoders can write.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from protocols.credit_control import encode_answer
from protocols.diameter import codec
from protocols.diameter.codec import Avp, avp
from protocols.diameter.codes import VENDOR_3GPP, AvpFlag
from tests.interop import freediameter_rules, samples
from tests.interop.conftest import SentByServer
from tests.interop.freediameter_rules import OPEN5GS, PLAIN, Remark, Verdict, verdicts
from tests.scenarios.expectations import describe

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(freediameter_rules.COMPILER is None, reason="there is no C compiler; apt install gcc libc6-dev"),
    pytest.mark.skipif(
        not freediameter_rules.HEADERS_ARE_INSTALLED,
        reason="freeDiameter's headers are not installed; apt install libfreediameter-dev freediameter-extensions",
    ),
]

DICTIONARIES = {"Open5GS": OPEN5GS, "plain": PLAIN}
RESULT_CODE = 268
CREDIT_CONTROL = 272
IN_EVERY_CCA = {
    "Session-Id": 263,
    "Result-Code": RESULT_CODE,
    "Origin-Host": 264,
    "Origin-Realm": 296,
    "Auth-Application-Id": 258,
    "CC-Request-Type": 416,
    "CC-Request-Number": 415,
}


class Exemption(NamedTuple):
    """Why an error answer is as freeDiameter refuses it. It hands those on to the application all the same."""

    reason: str
    result_codes: tuple[int, ...]
    refusal: str
    """The whole of what freeDiameter says, as a regular expression."""


EXEMPTIONS = (
    Exemption(
        "the request's command is in no dictionary, so neither is its answer (RFC 6733 section 7.1.3)",
        (3001,),
        r"DIAMETER_COMMAND_UNSUPPORTED ",
    ),
    Exemption(
        "Failed-AVP returns what the request had that nobody can read (RFC 6733 section 7.5)",
        (5001, 5004, 5014),
        r"DIAMETER_(AVP_UNSUPPORTED|INVALID_AVP_VALUE|INVALID_AVP_LENGTH) Failed-AVP/.+",
    ),
    Exemption(
        "what the request lacks its answer cannot repeat (RFC 6733 section 7.1.5)",
        (5005,),
        r"DIAMETER_MISSING_AVP (Session-Id|CC-Request-Type|CC-Request-Number)",
    ),
    Exemption(
        "of a request of impossible length nothing but the header can be read (RFC 6733 section 7.1.5)",
        (5015,),
        r"DIAMETER_MISSING_AVP Session-Id",
    ),
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return freediameter_rules.build(tmp_path_factory.mktemp("freediameter"))


@pytest.fixture(params=DICTIONARIES)
def dictionaries(request: pytest.FixtureRequest) -> Sequence[str]:
    return DICTIONARIES[request.param]


def result_code(message: bytes) -> int:
    """0 if there is none."""
    found = codec.decode(message).find(RESULT_CODE)
    return 0 if found is None else int.from_bytes(found.data, "big")


def exemption(message: bytes, verdict: Verdict) -> Exemption | None:
    code = result_code(message)
    found = (each for each in EXEMPTIONS if code in each.result_codes and re.fullmatch(each.refusal, verdict.refusal))
    return next(found, None)


def complaints(message: bytes, verdict: Verdict) -> Iterator[str]:
    """What must not be said of a message of the server's."""
    if verdict.refusal and exemption(message, verdict) is None:
        yield f"refused {verdict.refusal}"
    for remark in verdict.remarks:
        if "Failed-AVP/" in remark.path:
            continue  # as it was in the request
        if remark.is_unknown_and_mandatory:
            yield f"{remark.path} has the M bit and is in no dictionary"
        elif remark.kind == "flags" and not spares_plain_clients(remark):
            yield f"{remark.path} has the flags {remark.text.replace(' ', ' instead of ')}"


def spares_plain_clients(remark: Remark) -> bool:
    """A 3GPP AVP without the M bit that TS 32.299 gives it: plain clients would drop the answer for it."""
    sent, wanted = (int(text, 16) for text in remark.text.split())
    return bool(sent & AvpFlag.VENDOR) and wanted == sent | AvpFlag.MANDATORY


def all_complaints(program: Path, dictionaries: Sequence[str], messages: Sequence[tuple[str, bytes]]) -> list[str]:
    """Of each message that is not as it should be: where it is from, what is wrong with it, what it says."""
    judged = verdicts(program, dictionaries, [message for _, message in messages])
    return [
        f"{name}: {complaint}: {describe(codec.decode(message))}"
        for (name, message), verdict in zip(messages, judged, strict=True)
        for complaint in complaints(message, verdict)
    ]


@pytest.mark.shows("row 7", "freediameter-complete-answer", "freediameter-unknown-m-bit")
def test_accepts_all_that_is_sent_in_scenarios(
    program: Path, dictionaries: Sequence[str], sent_by_server: list[SentByServer]
) -> None:
    """RFC 6733 sections 3.2 and 4.1: the grammar of every message, and no unknown AVP with the M bit."""
    assert all_complaints(program, dictionaries, sent_by_server) == []
    assert len([one for one in sent_by_server if codec.decode(one.message).command == CREDIT_CONTROL]) > 100


def test_exemptions_are_for_errors_and_needed(program: Path, sent_by_server: list[SentByServer]) -> None:
    """An answer of success is never exempt, and no exemption outlives its reason."""
    assert all(code >= 3000 for each in EXEMPTIONS for code in each.result_codes)
    messages = [one.message for one in sent_by_server]
    judged = verdicts(program, OPEN5GS, messages)
    used = {exemption(message, verdict) for message, verdict in zip(messages, judged, strict=True) if verdict.refusal}
    assert used == set(EXEMPTIONS)


@pytest.mark.shows("freediameter-complete-answer", "freediameter-unknown-m-bit")
def test_accepts_all_that_can_be_encoded(program: Path, dictionaries: Sequence[str]) -> None:
    """Every AVP of an answer, a Re-Auth-Request and an Abort-Session-Request, with it and without it."""
    encoded = [*samples.answers().items(), *samples.requests().items()]
    assert all_complaints(program, dictionaries, encoded) == []


def test_samples_have_every_field() -> None:
    """Each field of the models makes a difference to the sample, so none is forgotten by the encoder or here."""
    request = samples.credit_control_request()
    whole = samples.complete_answer()
    encoded = encode_answer(request, whole, samples.ORIGIN)
    same = [
        name
        for name, changed in samples.without_each_field(whole)
        if encode_answer(request, changed, samples.ORIGIN) == encoded
    ]
    assert same == []


# -- the check can fail ------------------------------------------------------------------------------------------------

MANDATORY, VENDOR = AvpFlag.MANDATORY, AvpFlag.VENDOR


def unknown(flags: int, vendor: int = 0) -> bytes:
    return Avp(9999, vendor, flags, b"").encode()


def cca(*extra: bytes, without: int = 0) -> bytes:
    """A complete answer without one of its AVPs, and with others at its end."""
    message = codec.decode(encode_answer(samples.credit_control_request(), samples.complete_answer(), samples.ORIGIN))
    parts = [one.encode() for one in message.avps if one.code != without]
    return codec.build(message.command, message.application, message.flags, 1, 2, [*parts, *extra])


def verdict_on(program: Path, message: bytes) -> Verdict:
    return verdicts(program, OPEN5GS, [message])[0]


@pytest.mark.parametrize("name", IN_EVERY_CCA)
def test_a_missing_avp_is_refused(program: Path, name: str) -> None:
    """RFC 8506 section 3.2: every AVP in angle brackets or braces."""
    broken = cca(without=IN_EVERY_CCA[name])
    verdict = verdict_on(program, broken)
    assert verdict.refusal == f"DIAMETER_MISSING_AVP {name}"
    assert list(complaints(broken, verdict))


@pytest.mark.parametrize(
    ("extra", "without", "refusal"),
    [
        ([unknown(MANDATORY)], 0, "DIAMETER_AVP_UNSUPPORTED 9999:0"),
        ([unknown(MANDATORY | VENDOR, VENDOR_3GPP)], 0, "DIAMETER_AVP_UNSUPPORTED 9999:10415"),
        (
            [avp("Granted-Service-Unit", [avp("CC-Time", 1), unknown(MANDATORY)])],
            431,
            "DIAMETER_AVP_UNSUPPORTED Granted-Service-Unit/9999:0",
        ),
        ([avp("Result-Code", 2001)], 0, "DIAMETER_AVP_OCCURS_TOO_MANY_TIMES Result-Code"),
        ([avp("Session-Id", "late")], 263, "DIAMETER_MISSING_AVP Session-Id: AVP was not in its fixed position"),
        ([Avp(430, 0, MANDATORY, b"").encode()], 430, "DIAMETER_MISSING_AVP Final-Unit-Action"),
        (
            [Avp(448, 0, MANDATORY, b"\0").encode()],
            448,
            "DIAMETER_INVALID_AVP_LENGTH 448:0: I expected a size of 4 for this AVP according to my dictionary",
        ),
    ],
)
def test_a_broken_rule_is_refused(program: Path, extra: list[bytes], without: int, refusal: str) -> None:
    broken = cca(*extra, without=without)
    verdict = verdict_on(program, broken)
    assert verdict.refusal == refusal
    assert list(complaints(broken, verdict)) == [f"refused {refusal}"]


def test_half_an_avp_is_refused(program: Path) -> None:
    assert verdict_on(program, cca()[:-4]).refusal == "its AVPs cannot be told apart"


def test_what_freediameter_lets_pass_is_complained_of(program: Path) -> None:
    """An unknown AVP with the M bit in a group without it; flags that no rule asks for."""
    hidden = Avp(2021, VENDOR_3GPP, VENDOR, avp("Unit-Value", [avp("Value-Digits", 1)]) + unknown(MANDATORY)).encode()
    message = cca(hidden, without=2021)
    assert list(complaints(message, verdict_on(program, message))) == [
        "Remaining-Balance/9999:0 has the M bit and is in no dictionary"
    ]
    message = cca(Avp(448, 0, 0, bytes(4)).encode(), without=448)
    assert list(complaints(message, verdict_on(program, message))) == ["Validity-Time has the flags 00 instead of 40"]


def test_an_unknown_avp_without_the_m_bit_is_accepted(program: Path) -> None:
    """RFC 6733 section 4.1: whoever does not know it ignores it."""
    verdict = verdict_on(program, cca(unknown(0)))
    assert not verdict.refusal
    assert Remark("unknown", "-", "9999:0") in verdict.remarks


def test_an_answer_of_success_is_not_exempt(program: Path) -> None:
    """Only error answers may repeat what was wrong in their requests."""
    failed = avp("Failed-AVP", [unknown(MANDATORY)])
    for code in (2001, 5001):
        message = cca(avp("Result-Code", code), failed, without=RESULT_CODE)
        verdict = verdict_on(program, message)
        assert verdict.refusal == "DIAMETER_AVP_UNSUPPORTED Failed-AVP/9999:0"
        assert (list(complaints(message, verdict)) == []) == (code == 5001)
