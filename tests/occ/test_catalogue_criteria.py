"""Which service a request belongs to: by APN, called number, serving network, SIP method and role, beside numbers."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.rating.catalogue import MEMO_CONTEXT_BYTES, MEMO_ENTRIES, Catalogue, read_catalogue
from occ.rating.criteria import ApnPatterns, RequestFacts, access_point
from occ.rating.service import NOT_NAMED
from occ.yamlmap import ConfigError, parse_yaml

DATA, VOICE, SMS = b"32251@3gpp.org", b"32260@3gpp.org", b"32274@3gpp.org"

HEAD = """\
version: test
currency: EUR
numbering:
  country_code: 49
  national_prefix: 0
  emergency: [110, 112]
destinations:
  national: [49]
  eu: [33, 43]
  world: any
networks:
  home: [26201]
  eu: [208, 222]
  world: any
services:
"""
SERVICE = "  {name}: {{context: {context}, unit: {unit}, quota: {quota}, validity: 5 min, {more}}}\n"


def catalogue(*services: tuple[str, str, str], plans: str = "plans: {none: {last: free}}\n") -> Catalogue:
    """(name, context, criteria) of each service."""
    text = HEAD
    for name, context, more in services:
        unit, quota = ("octets", "1 MiB") if context == DATA.decode() else ("seconds", "60 s")
        text += SERVICE.format(name=name, context=context, unit=unit, quota=quota, more=more)
    return read_catalogue(parse_yaml(text + plans, "catalogue.yaml", Path()))


def calls(*services: tuple[str, str]) -> Catalogue:
    return catalogue(*((name, VOICE.decode(), more) for name, more in services), ("last", VOICE.decode(), "pool: 1"))


def name_of(found: Catalogue, facts: RequestFacts, rating_group: int = NOT_NAMED) -> str | None:
    service, zone = found.find(facts, rating_group, NOT_NAMED)
    assert found.find(facts, rating_group, NOT_NAMED) == (service, zone)  # from memory
    return None if service is None else service.name


def call(called: bytes | None = None, **more: object) -> RequestFacts:
    return RequestFacts(VOICE, called_party=called, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("called_station_id", "name"),
    [
        (b"internet", "named"),
        (b"INTERNET", "named"),
        (b"internet.mnc001.mcc262.gprs", "named"),
        (b"internet.mnc001.mcc262.gprs.x", None),
        (b"sales.corp", "companies"),
        (b"sales.corp.mnc001.mcc262.gprs", "companies"),
        (b"corp", None),
        (b"iot-7", "things"),
        (b"", None),
        (None, None),
        (b"internet\xff", None),
        (b"x" * 300, None),
    ],
)
def test_by_apn(called_station_id: bytes | None, name: str | None) -> None:
    """TS 23.003 clause 9.1: capitals do not matter, the operator identifier is not part of the name."""
    found = catalogue(
        ("named", DATA.decode(), "apn: [internet, ims]"),
        ("companies", DATA.decode(), 'apn: "*.corp"'),
        ("things", DATA.decode(), 'apn: ["iot-*"]'),
        plans="plans: {none: {named: free}}\n",
    )
    assert name_of(found, RequestFacts(DATA, called_station_id)) == name


@pytest.mark.parametrize(
    ("called", "name", "zone"),
    [
        (b"tel:+4930123456", "last", "national"),
        (b"030123456", "last", "national"),
        (b"+33123456", "abroad", "eu"),
        (b"0033123456", "abroad", "eu"),
        (b"sip:+43123456@ims.example.net;user=phone", "abroad", "eu"),
        (b"+1202555000", "abroad", "world"),
        (b"sip:alice@example.net", "last", "home"),
        (None, "last", "home"),
    ],
)
def test_by_the_zone_of_the_called_number(called: bytes | None, name: str, zone: str) -> None:
    """A service that no zone prices is where it goes, or else where it is used."""
    found = calls(("abroad", "destinations: [eu, world]"))
    assert name_of(found, call(called)) == name
    assert found.find(call(called), NOT_NAMED, NOT_NAMED)[1] == zone


def test_a_ported_number_is_where_its_routing_number_says() -> None:
    found = calls(("abroad", "destinations: [eu]"))
    assert name_of(found, call(b"+4930123456", number_portability=b"rn=+33999")) == "abroad"
    assert name_of(found, call(b"+4930123456")) == "last"


def test_recipients_of_short_messages_are_international_without_plus() -> None:
    """TS 32.299: Address-Data of type MSISDN is E.164 without "+"; dialled, 033... would be a national number."""
    found = catalogue(
        ("abroad", SMS.decode(), "destinations: [eu]"), ("last", SMS.decode(), "pool: 1"), ("x", VOICE.decode(), "")
    )
    assert name_of(found, RequestFacts(SMS, called_party=b"33123456789")) == "abroad"
    assert name_of(found, RequestFacts(SMS, called_party=b"4930123456")) == "last"


@pytest.mark.parametrize("called", [b"112", b"tel:110", b"urn:service:sos", b"sip:112@ims.example.net;user=phone"])
def test_an_emergency_call_finds_its_service_wherever_that_stands(called: bytes) -> None:
    """RFC 5031 URNs and the numbers of numbering; a service that would take everything stands first."""
    found = catalogue(
        ("all", VOICE.decode(), ""),
        ("sos", VOICE.decode(), "destinations: emergency, essential: yes"),
        plans="plans: {none: {all: free}}\n",
    )
    assert name_of(found, call(called)) == "sos"
    assert name_of(found, call(b"+4930123456")) == "all"
    sos = found.by_name.get("sos")
    assert sos is not None
    assert sos.essential


def test_without_a_service_of_its_own_an_emergency_call_is_a_call() -> None:
    assert name_of(calls(("abroad", "destinations: eu")), call(b"112")) == "last"


@pytest.mark.parametrize(
    ("mcc_mnc", "location", "name", "zone"),
    [
        (b"26201", None, "last", "home"),
        (b"20801", None, "roaming", "eu"),
        (None, b"\x01\x02\xf8\x10\x00\x00\x00\x00", "roaming", "eu"),
        (b"310410", None, "roaming", "world"),
        (None, None, "last", "home"),
        (b"x", None, "last", "home"),
    ],
)
def test_by_the_serving_network(mcc_mnc: bytes | None, location: bytes | None, name: str, zone: str) -> None:
    """TS 29.061 clause 16.4.7.2; a request that does not say is one from home."""
    found = calls(("roaming", "networks: [eu, world]"))
    facts = call(sgsn_mcc_mnc=mcc_mnc, user_location=location)
    assert name_of(found, facts) == name
    assert found.find(facts, NOT_NAMED, NOT_NAMED)[1] == zone


def test_by_sip_method_and_role() -> None:
    found = calls(("message", "sip_methods: [MESSAGE, REFER]"), ("incoming", "role: terminating"))
    assert name_of(found, call(sip_method=b"MESSAGE", role_of_node=1)) == "message"
    assert name_of(found, call(sip_method=b"INVITE", role_of_node=1)) == "incoming"
    assert name_of(found, call(sip_method=b"message")) == "last"  # RFC 3261 section 7.1: case counts
    assert name_of(found, call(role_of_node=2)) == "last"
    assert name_of(found, call(role_of_node=0)) == "last"
    assert name_of(found, call()) == "last"


ZONED = """\
plans:
  one:
    both: {by_network: {eu: 0.05 per 60 s, others: 0.10 per 60 s}}
    last: free
"""


def test_the_zone_is_that_by_which_a_plan_prices_the_service() -> None:
    """A service for calls to the EU that plans price by network: that zone is told."""
    both = ("both", VOICE.decode(), "destinations: [eu], networks: [eu, world]")
    facts = call(b"+33123456", sgsn_mcc_mnc=b"310410")
    for plans, zone in ((ZONED, "world"), ("plans: {none: {last: free}}\n", "eu")):
        found = catalogue(both, ("last", VOICE.decode(), "pool: 1"), plans=plans)
        service, told = found.find(facts, NOT_NAMED, NOT_NAMED)
        assert service is not None
        assert (service.name, told) == ("both", zone)


def test_what_is_known_of_a_request_can_be_asked() -> None:
    found = calls()
    facts = call(b"0033123456", sgsn_mcc_mnc=b"20801")
    called = found.called(facts)
    assert (str(called.number), called.zone) == ("+33123456", "eu")
    assert called.destination is not None
    assert called.destination.prefix == "33"
    assert found.network(facts) == ("eu", "20801")
    assert found.called(call()).zone == ""


CRITERIA = st.lists(
    st.sampled_from(
        ["apn: [internet]", "apn: ['*corp']", "destinations: [national]", "destinations: [eu, world]",
         "destinations: [emergency]", "networks: [eu]", "networks: [home]", "sip_methods: [INVITE]",
         "sip_methods: [MESSAGE]", "role: originating", "role: terminating", "rating_groups: [1, none]",
         "rating_groups: [2]"]
    ),
    unique_by=lambda criterion: criterion.split(":")[0],
    max_size=3,
)  # fmt: skip
FACTS = [
    RequestFacts(VOICE, apn, called, None, method, role, network)
    for apn, called, method, role, network in product(
        (None, b"internet", b"x.CORP"),
        (None, b"112", b"030123", b"+33123", b"+7912"),
        (None, b"INVITE", b"MESSAGE"),
        (None, 0, 1),
        (None, b"26201", b"20801", b"310410"),
    )
]


@given(st.lists(CRITERIA, min_size=1, max_size=5), st.lists(st.sampled_from(FACTS), min_size=1, max_size=30))
def test_what_is_remembered_is_what_a_fresh_look_finds(services: list[list[str]], asked: list[RequestFacts]) -> None:
    """Whatever a catalogue asks for, and in whatever order requests come."""
    try:
        found = catalogue(
            *((f"service-{number}", VOICE.decode(), ", ".join(each)) for number, each in enumerate(services)),
            plans="plans: {none: {service-0: free}}\n",
        )
    except ConfigError as error:
        if "can never be chosen" not in error.message:
            raise
        return
    for facts in asked:
        for group in (NOT_NAMED, 1, 2):
            service, zone = found.find(facts, group, NOT_NAMED)
            criteria = found.criteria(facts, group, NOT_NAMED)
            fitting = [each for each in found.services if each.matches(criteria)]
            if criteria.destination == "emergency" and any(each.is_for("emergency") for each in fitting):
                fitting = [each for each in fitting if each.is_for("emergency")]
            assert service is (fitting[0] if fitting else None)
            asks = service is not None and (service.destinations or service.networks)
            if service is not None and asks:
                assert zone == (criteria.destination if service.destinations else criteria.network)
            else:
                assert zone == ("" if service is None else criteria.destination or criteria.network)


@given(st.lists(CRITERIA, min_size=2, max_size=2))
def test_a_service_that_covers_another_matches_all_that_it_matches(services: list[list[str]]) -> None:
    """What is refused as never chosen is in fact never chosen."""
    first, second = (
        catalogue(("service", VOICE.decode(), ", ".join(each)), plans="plans: {none: {service: free}}\n").services[0]
        for each in services
    )
    if first.covers(second):
        found = catalogue(("x", VOICE.decode(), ""), plans="plans: {none: {x: free}}\n")
        for facts in FACTS:
            for group in (NOT_NAMED, 1, 2):
                criteria = found.criteria(facts, group, NOT_NAMED)
                assert first.matches(criteria) or not second.matches(criteria)


def test_what_clients_make_up_does_not_fill_the_memory() -> None:
    found = calls(("named", "apn: internet, sip_methods: INVITE"), ("abroad", "destinations: eu"))
    for number in range(MEMO_ENTRIES + 10):
        found.find(call(b"+33%d" % number, called_station_id=b"%d" % number), NOT_NAMED, NOT_NAMED)
    assert len(found._found) <= MEMO_ENTRIES
    before = len(found._found), len(found._called)
    long = b"x" * (MEMO_CONTEXT_BYTES + 1)
    found.find(call(long, called_station_id=long, sip_method=long), NOT_NAMED, NOT_NAMED)
    assert (len(found._found), len(found._called)) == before


def test_only_what_services_ask_for_is_remembered() -> None:
    """Beside the zones, where there are any; and as fast as by numbers alone where there are none."""
    found = catalogue(("last", VOICE.decode(), ""))
    for number in range(10):
        found.find(call(b"+33%d" % number, called_station_id=b"%d" % number, role_of_node=number), 5, 6)
    assert list(found._found) == [(VOICE, 5, 6, None, "eu", "home", None, None)]
    without = HEAD[: HEAD.index("destinations:")] + "services:\n"
    service = SERVICE.format(name="last", context=VOICE.decode(), unit="seconds", quota="60 s", more="")
    found = read_catalogue(parse_yaml(without + service + "plans: {none: {last: free}}\n", "catalogue.yaml", Path()))
    for number in range(10):
        found.find(call(b"+33%d" % number, called_station_id=b"%d" % number, role_of_node=number), 5, 6)
    assert list(found._found) == [(VOICE, 5, 6)]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("apn: []", "at least one"),
        ("apn: [inter net]", "must be an APN"),
        ("apn: [Internet, internet]", "stands twice"),
        ("destinations: [europe]", "there is no zone 'europe' in destinations; known: emergency, eu, national, world"),
        ("networks: [eu-]", "did you mean 'eu'"),
        ("sip_methods: [invite]", "in capitals"),
        ("role: calling", "must be one of originating, terminating, forwarding"),
        ("essential: maybe", "true or false"),
    ],
)
def test_mistakes_in_criteria(more: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=r"^catalogue\.yaml:16: ") as caught:
        calls(("wrong", more))
    assert reason in str(caught.value)


def test_zones_need_the_section_that_defines_them() -> None:
    text = "version: t\ncurrency: EUR\nservices:\n" + SERVICE.format(
        name="last", context="x", unit="seconds", quota="60 s", more="destinations: [eu]"
    )
    with pytest.raises(ConfigError, match="but the catalogue has no section 'destinations'"):
        read_catalogue(parse_yaml(text + "plans: {none: {last: free}}\n", "catalogue.yaml", Path()))


def test_a_service_shadowed_by_criteria_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="service second can never be chosen: first"):
        calls(("first", "apn: ['*'], destinations: [eu, world]"), ("second", "apn: [internet], destinations: eu"))
    with pytest.raises(ConfigError, match="service second can never be chosen"):
        calls(("first", "role: originating"), ("second", "role: originating, sip_methods: INVITE"))
    calls(("first", "role: originating"), ("second", "sip_methods: INVITE"))


@given(st.binary(max_size=130))
def test_any_called_station_id_is_read_or_none(octets: bytes) -> None:
    name = access_point(octets)
    assert name is None or name == name.lower()


def test_patterns_match_whole_names() -> None:
    patterns = ApnPatterns(["a.b", "*.corp"])
    assert [name in patterns for name in ("a.b", "axb", "x.corp", ".corp", "corp", "x.corp.y")] == [
        True, False, True, True, False, False,
    ]  # fmt: skip
    assert None not in patterns
