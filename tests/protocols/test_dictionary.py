"""The Diameter dictionary: its data is consistent, and agrees with an independent dictionary."""

import copy
import tomllib
from importlib.resources import files
from typing import Any

import pytest
from diameter.message.avp import (
    Avp,
    AvpAddress,
    AvpEnumerated,
    AvpFloat32,
    AvpGrouped,
    AvpInteger32,
    AvpInteger64,
    AvpTime,
    AvpUnsigned32,
    AvpUnsigned64,
)
from diameter.message.avp.dictionary import AVP_DICTIONARY, AVP_VENDOR_DICTIONARY

from protocols.diameter.dictionary import DICTIONARY, AvpType, Dictionary, DictionaryError, parse_grammar

DATA: dict[str, Any] = tomllib.loads(files("protocols.diameter").joinpath("dictionary.toml").read_text("utf-8"))
UNBOUNDED = 1 << 62

FIXED = {
    AvpUnsigned32: 4,
    AvpInteger32: 4,
    AvpEnumerated: 4,
    AvpTime: 4,
    AvpFloat32: 4,
    AvpUnsigned64: 8,
    AvpInteger64: 8,
}
# Where the two differ, ours follows the specification named in dictionary.toml.
DIFFERENT = {
    (0, 131),  # Location-Capable
    (10415, 2),  # 3GPP-Charging-Id: four octets by either
    (10415, 924),  # MBMS-GW-SSM-IP-Address
    (10415, 1532),  # TWAG-UP-Address
    (10415, 2101),  # Application-Server-Id
    (10415, 2708),  # From-Address
}


def independent() -> list[tuple[int, int, type[Avp]]]:
    vendors = {0: AVP_DICTIONARY, 10415: AVP_VENDOR_DICTIONARY[10415]}
    return [(vendor, code, row["type"]) for vendor, rows in vendors.items() for code, row in rows.items()]


def test_lengths_agree_with_python_diameter() -> None:
    """RFC 6733 section 4.2: the type decides the length, so a wrong type here would refuse good messages (5014)."""
    compared = 0
    for vendor, code, kind in independent():
        ours = DICTIONARY.avp(code, vendor)
        if ours is None or (vendor, code) in DIFFERENT:
            continue
        compared += 1
        expected = next((size for base, size in FIXED.items() if issubclass(kind, base)), -1)
        assert ours.fixed_length == expected, ours
        assert ours.grouped == issubclass(kind, AvpGrouped), ours
        assert (ours.type is AvpType.ADDRESS) == issubclass(kind, AvpAddress), ours
    assert compared > 1200


@pytest.mark.parametrize(
    ("name", "code", "vendor", "kind", "flags"),
    [
        ("Session-Id", 263, 0, AvpType.UTF8_STRING, 0x40),
        ("Error-Message", 281, 0, AvpType.UTF8_STRING, 0x00),
        ("Product-Name", 269, 0, AvpType.UTF8_STRING, 0x00),
        ("CC-Correlation-Id", 411, 0, AvpType.OCTET_STRING, 0x00),
        ("Value-Digits", 447, 0, AvpType.INTEGER64, 0x40),
        ("QoS-Final-Unit-Indication", 669, 0, AvpType.GROUPED, 0x00),
        ("Called-Station-Id", 30, 0, AvpType.UTF8_STRING, 0x40),
        ("Service-Information", 873, 10415, AvpType.GROUPED, 0xC0),
        ("SMS-Information", 2000, 10415, AvpType.GROUPED, 0xC0),
        ("Remaining-Balance", 2021, 10415, AvpType.GROUPED, 0xC0),
    ],
)
def test_definitions(name: str, code: int, vendor: int, kind: AvpType, flags: int) -> None:
    """Spot checks against the tables of RFC 6733 section 4.5, RFC 8506 section 8 and TS 32.299 clause 7.2."""
    definition = DICTIONARY.avp_named(name)
    assert (definition.code, definition.vendor, definition.type, definition.flags) == (code, vendor, kind, flags)
    assert DICTIONARY.avp(code, vendor) is definition
    assert definition.section


def test_commands() -> None:
    """RFC 6733 section 3.1 and RFC 8506 section 3; session commands serve any application."""
    for code in (257, 280, 282):
        for is_request in (True, False):
            command = DICTIONARY.command(code, 0, is_request)
            assert command is not None
            assert not command.proxiable
            assert command.request is is_request
        assert DICTIONARY.command(code, 4, True) is None
    for code in (258, 274, 275):
        command = DICTIONARY.command(code, 4, True)
        assert command is not None
        assert command.proxiable
    credit_control = DICTIONARY.command(272, 4, True)
    assert credit_control is not None
    assert credit_control.name == "Credit-Control-Request"
    assert DICTIONARY.command(272, 0, True) is None
    assert {0, 4} <= DICTIONARY.applications


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'Rating-Group'"):
        DICTIONARY.avp_named("Rating-Gruop")
    assert DICTIONARY.avp(99999) is None


def test_grammar_notation() -> None:
    """RFC 6733 section 3.2: what a qualifier's absent minimum and maximum mean."""
    text = " <A> {B} [C] *[D] 1*{E} *{F} *2[G] *0[H] *1<I> 2*3{J} * [ AVP ] "
    assert list(parse_grammar(text, "test")) == [
        ("A", 1, 1),
        ("B", 1, 1),
        ("C", 0, 1),
        ("D", 0, UNBOUNDED),
        ("E", 1, UNBOUNDED),
        ("F", 1, UNBOUNDED),
        ("G", 0, 2),
        ("H", 0, 0),
        ("I", 0, 1),
        ("J", 2, 3),
        ("AVP", 0, UNBOUNDED),
    ]


@pytest.mark.parametrize("text", ["{A", "{A]", "A", "{A} ;", "1*", "{A B}"])
def test_grammar_slips_are_refused(text: str) -> None:
    with pytest.raises(DictionaryError, match="test: grammar not understood"):
        list(parse_grammar(text, "test"))


def change_type(data: dict[str, Any]) -> None:
    data["specification"][0]["avps"]["Session-Id"][1] = "Unsigned33"


def change_rule(data: dict[str, Any]) -> None:
    data["specification"][0]["avps"]["Session-Id"][2] = "X"


def shorten_row(data: dict[str, Any]) -> None:
    data["specification"][0]["avps"]["Session-Id"] = [263, "UTF8String"]


def repeat_code(data: dict[str, Any]) -> None:
    data["specification"][0]["avps"]["Session-Identity"] = [263, "UTF8String", "M", "8.8"]


def unknown_member(data: dict[str, Any]) -> None:
    data["groups"]["Proxy-Info"] = "{Proxy-Hots}"


def repeated_member(data: dict[str, Any]) -> None:
    data["groups"]["Proxy-Info"] = "{Proxy-Host} [Proxy-Host]"


def group_of_no_group(data: dict[str, Any]) -> None:
    data["groups"]["Session-Id"] = "{Proxy-Host}"


def enumeration_of_nothing(data: dict[str, Any]) -> None:
    data["enumerations"]["open"]["CC-Request-Tpye"] = {"INITIAL_REQUEST": 1}


def repeated_command(data: dict[str, Any]) -> None:
    data["command"].append(data["command"][0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (change_type, "RFC 6733: Session-Id has the unknown type 'Unsigned33'"),
        (change_rule, "RFC 6733: Session-Id has the M rule 'X'"),
        (shorten_row, "RFC 6733: Session-Id must be"),
        (repeat_code, r"RFC 6733: Session-Identity \(263\) is defined twice"),
        (unknown_member, "Proxy-Info: no AVP is named 'Proxy-Hots'; did you mean 'Proxy-Host'"),
        (repeated_member, "Proxy-Info: Proxy-Host is listed twice"),
        (group_of_no_group, "groups: Session-Id is UTF8String, not Grouped"),
        (enumeration_of_nothing, "enumerations: no AVP is named 'CC-Request-Tpye'; did you mean 'CC-Request-Type'"),
        (repeated_command, "Capabilities-Exchange-Request is defined twice"),
    ],
)
def test_data_slips_are_refused(change: Any, sentence: str) -> None:
    data = copy.deepcopy(DATA)
    change(data)
    with pytest.raises(DictionaryError, match=sentence):
        Dictionary(data)
