"""Numbers in the forms that networks send them become one: country code and digits, short code, or emergency call."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.rating.numbering import UNKNOWN, URI, Kind, Number, Numbering, read_numbering
from occ.yamlmap import ConfigError, parse_yaml

BERLIN = Numbering(
    "49",
    national_prefix="0",
    home_area="30",
    emergency=("110", "112"),
    short_codes=("115", "116117", "118xx", "*100#"),
)
MOSCOW = Numbering(
    "7",
    national_prefix="8",
    international_prefixes=("810",),
    national_digits=range(10, 11),
    home_area="495",
    local_digits=range(7, 8),
    short_codes=("0xxx",),
)
NEW_YORK = Numbering(
    "1",
    national_prefix="1",
    international_prefixes=("011",),
    national_digits=range(10, 11),
    home_area="212",
    local_digits=range(7, 8),
    emergency=("911",),
)
MADRID = Numbering("34", national_digits=range(9, 10))
SYDNEY = Numbering("61", national_prefix="0", international_prefixes=("00", "0011"))
NOWHERE = Numbering()
NUMBERINGS = (BERLIN, MOSCOW, NEW_YORK, MADRID, SYDNEY, NOWHERE)


def e164(digits: str, routing: str = "") -> Number:
    return Number(Kind.E164, digits, routing)


def short(digits: str) -> Number:
    return Number(Kind.SHORT, digits)


def emergency(digits: str) -> Number:
    return Number(Kind.EMERGENCY, digits)


@pytest.mark.parametrize(
    "address",
    [
        b"tel:+4930123456",
        b"TEL:+4930123456",
        b"tel:+49-30-123.456",
        b"tel:+49(30)123456",
        b"tel:+4930123456;isub=7",
        b"tel:030123456;phone-context=+49",
        b"tel:123456;phone-context=+4930",
        b"tel:123456;phone-context=+49-30",
        b"tel:123456;phone-context=ims.example.net",
        b"sip:+4930123456@ims.example.net",
        b"sip:+4930123456@ims.example.net;user=phone",
        b"sip:+4930123456@[2001:db8::1]:5060;user=phone",
        b"sip:%2B4930123456@ims.example.net;user=phone",
        b"sip:+4930123456:secret@ims.example.net",
        b"sip:+4930123456@ims.example.net;user=phone;transport=tcp?Subject=hello",
        b"sip:030123456@ims.example.net",
        b"sip:123456;phone-context=+4930@ims.example.net;user=phone",
        b"sip:123456@ims.example.net;phone-context=+4930;user=phone",
        b"sip:+4930123456@ims.example.net?To=sip:alice@example.net",
        b"sips:+4930123456@ims.example.net",
        b"<sip:+4930123456@ims.example.net>",
        b'"Office" <tel:+4930123456>',
        b"+4930123456",
        b"+49 30 123456",
        b" +4930123456\n",
        b"4930123456",
        b"004930123456",
        b"030123456",
        b"030/123456".replace(b"/", b"-"),
        b"123456",
        b"+004930123456",
        "tel:+4930123456",
    ],
)
def test_one_number_in_all_its_forms(address: bytes | str) -> None:
    """RFC 3966 sections 3 and 5.1, RFC 3261 section 19.1.6."""
    assert BERLIN.normalise(address) == e164("4930123456")


@pytest.mark.parametrize(
    ("numbering", "dialled", "number"),
    [
        (MOSCOW, "89161234567", e164("79161234567")),
        (MOSCOW, "8 (495) 123-45-67", e164("74951234567")),
        (MOSCOW, "+79161234567", e164("79161234567")),
        (MOSCOW, "79161234567", e164("79161234567")),
        (MOSCOW, "9161234567", e164("79161234567")),
        (MOSCOW, "1234567", e164("74951234567")),
        (MOSCOW, "8123456", e164("74958123456")),  # too short for a national number
        (MOSCOW, "8916123456789", e164("7916123456789")),  # dialled on: no number of Vietnam
        (MOSCOW, "810493012345", e164("493012345")),
        (MOSCOW, "88001234567", e164("78001234567")),
        (MOSCOW, "87271234567", e164("77271234567")),  # Almaty, Kazakhstan
        (MOSCOW, "0611", short("0611")),
        (NEW_YORK, "2125551234", e164("12125551234")),
        (NEW_YORK, "12125551234", e164("12125551234")),
        (NEW_YORK, "5551234", e164("12125551234")),
        (NEW_YORK, "0114930123456", e164("4930123456")),
        (NEW_YORK, "911", emergency("911")),
        (MADRID, "912345678", e164("34912345678")),
        (MADRID, "34912345678", e164("34912345678")),
        (NOWHERE, "4930123456", e164("4930123456")),
        (NOWHERE, "004930123456", e164("4930123456")),
        (NOWHERE, "0301234567", UNKNOWN),
        (NOWHERE, "123456", short("123456")),
        (SYDNEY, "00114930123456", e164("4930123456")),
        (SYDNEY, "004930123456", e164("4930123456")),
        (BERLIN, "tel:2125551234;phone-context=+1", e164("12125551234")),
        (BERLIN, "tel:0123456789;phone-context=+39", e164("390123456789")),  # their zero, not our prefix
        (BERLIN, "tel:01701234567;phone-context=+4930", e164("491701234567")),
        (BERLIN, "tel:0043123456789;phone-context=+49", e164("43123456789")),
    ],
)
def test_what_is_dialled_follows_the_rules_of_the_country(numbering: Numbering, dialled: str, number: Number) -> None:
    assert numbering.normalise(dialled) == number


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("112", emergency("112")),
        ("tel:110", emergency("110")),
        ("tel:110;phone-context=+49", emergency("110")),
        ("sip:112@ims.example.net;user=phone", emergency("112")),
        ("tel:+49112", emergency("112")),
        ("urn:service:sos", emergency("")),
        ("URN:service:sos.police", emergency("")),
        ("urn:service:counseling.children", URI),
        ("tel:+911123456789", e164("911123456789")),
        ("115", short("115")),
        ("+49115", short("115")),
        ("tel:+49116117", short("116117")),
        ("sip:116117@ims.example.net", short("116117")),
        ("11833", short("11833")),
        ("+4911833", short("11833")),
        ("118334", e164("4930118334")),
        ("*100#", short("*100#")),
        ("*101#", UNKNOWN),
        ("999", short("999")),  # on no list, and too short for anything else
    ],
)
def test_short_codes_and_emergency_numbers_are_all_of_the_digits(address: str, number: Number) -> None:
    """RFC 5031 section 4.2 for the URN; country code and short code together are no subscriber's number."""
    assert BERLIN.normalise(address) == number


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("81312345678", e164("81312345678")),
        ("79161234567", e164("79161234567")),
        ("+81312345678", e164("81312345678")),
        ("9161234", e164("9161234")),
        ("007916123", UNKNOWN),
        ("112", emergency("112")),
        ("7234", short("7234")),
    ],
)
def test_an_msisdn_is_international_without_plus(address: str, number: Number) -> None:
    """TS 32.299, Address-Data of Address-Type MSISDN: 81 is Japan, where a dialled 8 begins a Russian number."""
    assert MOSCOW.normalise(address, msisdn=True) == number
    assert MOSCOW.normalise("81312345678") == e164("71312345678")


def test_no_msisdn_begins_with_zero() -> None:
    assert BERLIN.normalise("01701234567", msisdn=True) == e164("491701234567")
    assert BERLIN.normalise("004312345678", msisdn=True) == e164("4312345678")


@pytest.mark.parametrize(
    "address",
    [
        "sip:alice@example.net",
        "sips:bob.2@example.net",
        "sip:example.net",
        "mailto:alice@example.net",
        "im:a@b.example",
    ],
)
def test_addresses_that_are_no_numbers(address: str) -> None:
    assert BERLIN.normalise(address) == URI


@pytest.mark.parametrize(
    "address",
    ["", " ", "+", "tel:", "tel:+", "tel:alice", "Kiosk", "sip:", "sip:@", "1:2", "+49 30 x", "tel:+" + "1" * 33,
     "sip:+49@" + "a" * 2000, "\N{ARABIC-INDIC DIGIT ONE}" * 9, b"\xff\xfe", b"tel:+49\x0030123456"],
)  # fmt: skip
def test_garbage_is_unknown(address: bytes | str) -> None:
    assert BERLIN.normalise(address) == UNKNOWN


@pytest.mark.parametrize(
    ("address", "portability", "routing"),
    [
        ("tel:+4917012345678", None, ""),
        ("tel:+4917012345678;npdi", None, ""),
        ("tel:+4917012345678;npdi;rn=+491601", None, "491601"),
        ("tel:+4917012345678;npdi;rn=+49-160-1", None, "491601"),
        ("tel:+4917012345678;rn=D0042;rn-context=+49;npdi", None, "49D0042"),
        ("tel:+4917012345678;npdi;rn=d0042", None, "49D0042"),
        ("tel:+4917012345678;npdi;rn=1601;rn-context=+43", None, "431601"),
        ("sip:+4917012345678;npdi;rn=+491601@ims.example.net;user=phone", None, "491601"),
        ("sip:+4917012345678@ims.example.net;user=phone;npdi;rn=+491601", None, "491601"),
        ("tel:+4917012345678;rn=", None, ""),
        ("tel:+4917012345678;rn=xyz", None, ""),
        ("tel:+4917012345678", b"+491601", "491601"),
        ("tel:+4917012345678", b"491601234567", "491601234567"),
        ("tel:+4917012345678", b"01601234567", "491601234567"),
        ("tel:+4917012345678", b"D0042", "49D0042"),
        ("tel:+4917012345678", b"tel:+4917012345678;npdi;rn=+491601", "491601"),
        ("tel:+4917012345678", b"tel:+491601", "491601"),
        ("tel:+4917012345678", b"sip:+491601@ims.example.net", "491601"),
        ("tel:+4917012345678", b"sip:+491601@ims.example.net;user=phone", "491601"),
        ("tel:+4917012345678;rn=+491555", b"+491601", "491601"),
        ("tel:+4917012345678;rn=+491555", b"mailto:nobody@example.net", "491555"),
        ("tel:+4917012345678", b"", ""),
        ("tel:+4917012345678", b"\xff" * 10, ""),
        ("tel:+4917012345678", b"1" * 5000, ""),
    ],
)
def test_ported_numbers_carry_their_routing_number(address: str, portability: bytes | None, routing: str) -> None:
    """RFC 4694 section 4; Number-Portability-Routing-Information (TS 32.299 clause 7.2) goes before ``rn``."""
    assert BERLIN.normalise(address, portability) == e164("4917012345678", routing)


def test_the_called_number_may_be_what_counts() -> None:
    numbering = Numbering("49", national_prefix="0", by_routing_number=False)
    assert numbering.normalise("tel:+4917012345678;rn=+491601", b"+491601") == e164("4917012345678")


def test_only_numbers_are_ported() -> None:
    assert BERLIN.normalise("112", b"+491601") == emergency("112")
    assert BERLIN.normalise("sip:alice@example.net", b"+491601") == URI


@pytest.mark.parametrize("msisdn", [False, True])
@pytest.mark.parametrize("numbering", NUMBERINGS)
@given(
    digits=st.text("0123456789", min_size=1, max_size=34),
    form=st.sampled_from(["{}", "+{}", "tel:+{}", "tel:{};phone-context=+49", "sip:{}@a.example", "tel:{}"]),
)
def test_a_normal_number_stays_as_it_is(numbering: Numbering, msisdn: bool, digits: str, form: str) -> None:
    number = numbering.normalise(form.format(digits), msisdn=msisdn)
    assert number.kind is not Kind.URI or form.startswith("sip:")
    if number.kind in (Kind.E164, Kind.SHORT, Kind.EMERGENCY):
        assert numbering.normalise(str(number), msisdn=msisdn) == number


@given(
    called=st.one_of(st.binary(max_size=60), st.text(max_size=60), st.text("+0189*#x;=@:<>%.-rntelsip", max_size=60)),
    portability=st.none() | st.binary(max_size=40) | st.text("+0189D;=@:rn", max_size=30).map(str.encode),
    msisdn=st.booleans(),
)
def test_nothing_that_is_sent_does_harm(called: bytes | str, portability: bytes | None, msisdn: bool) -> None:
    for numbering in NUMBERINGS:
        number = numbering.normalise(called, portability, msisdn=msisdn)
        if number.kind is Kind.E164:
            assert number.digits.isascii()
            assert number.digits.isdigit()
            assert number.digits[0] != "0"
            assert len(number.digits) <= 32
        assert not number.routing or set(number.routing) <= set("0123456789ABCDEF")


@given(digits=st.text("0123456789", min_size=7, max_size=15).filter(lambda text: text[0] != "0"))
def test_the_common_forms_are_read_as_the_rare_ones_are(digits: str) -> None:
    """The short way through must not decide otherwise than the long one, which a space at the end leads into."""
    for form in ("+{}", "tel:+{}", "sip:+{}@a.example", "sip:+{}@a.example;user=phone"):
        for numbering in NUMBERINGS:
            assert numbering.normalise(form.format(digits)) == numbering.normalise(form.format(digits) + " ")


# The section of the catalogue.


def read(text: str) -> Numbering:
    return read_numbering(parse_yaml(text, "catalogue.yaml", Path()))


def test_the_section_as_it_is_written() -> None:
    numbering = read(
        "country_code: 7\nnational_prefix: 8\ninternational_prefixes: [810]\nnational_digits: 10\nhome_area: 495\n"
        "local_digits: 7\nemergency: [112, 102]\nshort_codes: [0xxx]\nported: called-number\n"
    )
    for dialled, number in (
        ("89161234567", e164("79161234567")),
        ("810493012345", e164("493012345")),
        ("1234567", e164("74951234567")),
        ("102", emergency("102")),
        ("0611", short("0611")),
    ):
        assert numbering.normalise(dialled) == number
    assert not numbering.by_routing_number


def test_what_is_left_out_has_a_default() -> None:
    numbering = read("country_code: 49\nnational_prefix: none\n")
    assert numbering.normalise("004312345678") == e164("4312345678")
    assert numbering.emergency == {"112", "911"}
    assert numbering.by_routing_number
    assert numbering.normalise("012345678") == UNKNOWN
    assert read("country_code: 49\nnational_digits: 9-11\n").national_digits == range(9, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("national_prefix: 0\n", r"catalogue.yaml:1: key 'country_code' is missing"),
        ("country_code: 049\n", r"catalogue.yaml:1: country_code must be a country code such as 49, not '049'"),
        ("country_code: 49\nnational_prefx: 0\n", r"catalogue.yaml:2: unknown key 'national_prefx'; did you mean 'nat"),
        ("country_code: 49\nnational_prefix: +0\n", r"catalogue.yaml:2: national_prefix must be at most eight digits"),
        (
            "country_code: 49\nemergency:\n- 112\n- sos\n",
            r"catalogue.yaml:4: emergency\[1\] must be digits such as 112",
        ),
        ("country_code: 49\nemergency: [112, 112]\n", r"catalogue.yaml:2: 112 stands twice in emergency"),
        ("country_code: 49\nshort_codes: [xxx]\n", r"catalogue.yaml:2: short_codes\[0\] must be digits, \*, # and x"),
        ("country_code: 49\nnational_digits: 11-9\n", r"catalogue.yaml:2: national_digits must be a number of digits"),
        ("country_code: 49\nnational_digits: 16\n", r"15 at most, not '16'"),
        ("country_code: 49\nlocal_digits: 7\n", r"catalogue.yaml:2: local_digits needs a home_area"),
        ("country_code: 49\nported: number\n", r"ported must be one of routing-number, called-number, not 'number'"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_national_numbers_need_a_country() -> None:
    with pytest.raises(ValueError, match="need a country code"):
        Numbering(national_prefix="0")
