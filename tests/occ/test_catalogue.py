"""The tariff catalogue: what the sample says, how requests are classified, and how mistakes are reported."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.model import Unit
from occ.rating.catalogue import MEMO_CONTEXT_BYTES, MEMO_ENTRIES, Catalogue, load_catalogue, read_catalogue
from occ.rating.price import FreePrice, StepPrice
from occ.rating.service import NOT_NAMED, Service, context_matches
from occ.rating.sizes import parse_size
from occ.rating.tariff import DENIED, Price, Tariff
from occ.yamlmap import ConfigError, parse_yaml

SAMPLE = Path(__file__).parents[2] / "config" / "catalogue.yaml"
DATA, VOICE, SMS = b"32251@3gpp.org", b"32260@3gpp.org", b"32274@3gpp.org"
MIB = 1 << 20

SMALL = """\
version: test
currency: EUR
services:
  internet:
    context: 32251@3gpp.org
    rating_groups: [10, none]
    unit: octets
    quota: 10 MiB
    validity: 30 min
plans:
  standard:
    internet: 0.01 per 1 MiB
"""


def read(text: str) -> Catalogue:
    return read_catalogue(parse_yaml(text, "catalogue.yaml", Path()))


@pytest.fixture(scope="module")
def sample() -> Catalogue:
    return load_catalogue(SAMPLE)


def test_the_sample_says_what_the_documents_say(sample: Catalogue) -> None:
    assert sample.currency == 978
    assert re.fullmatch(r"sample-1 \([0-9a-f]{8}\)", sample.edition)
    by_name = {service.name: service for service in sample.services}
    assert by_name["internet"] == Service(
        "internet", DATA, frozenset({10, NOT_NAMED}), Unit.OCTETS, 10 * MIB, 100 * MIB, 1800
    )
    assert by_name["national-voice"] == Service("national-voice", VOICE, None, Unit.SECONDS, 60, 300, 300)
    assert by_name["sms"] == Service("sms", SMS, None, Unit.EVENTS, 1, 10, 300)
    assert {service.name for service in sample.services if service.essential} == {"emergency-call"}
    assert {
        name: price(sample, "standard", name)
        for name in ("internet", "portal", "emergency-call", "national-voice", "sms")
    } == {
        "internet": (StepPrice(Unit.OCTETS, MIB, 10_000), 0),
        "portal": (FreePrice(Unit.OCTETS), 0),
        "emergency-call": (FreePrice(Unit.SECONDS), 0),
        "national-voice": (StepPrice(Unit.SECONDS, 60, 90_000), 0),
        "sms": (StepPrice(Unit.EVENTS, 1, 50_000), 0),
    }
    assert [price(sample, "standard", "international-voice", zone=zone)[0] for zone in ("eu", "world", "")] == [
        StepPrice(Unit.SECONDS, 60, 190_000),
        StepPrice(Unit.SECONDS, 60, 990_000),
        StepPrice(Unit.SECONDS, 60, 990_000),
    ]
    assert sample.includes("small") == ("small",)
    assert sample.destinations is not None
    assert sample.destinations.zones == {"local", "long-distance", "eu", "world", "emergency"}


@pytest.mark.shows("kamailio-long-context")
@pytest.mark.parametrize(
    ("context", "rating_group", "service_identifier", "name"),
    [
        (DATA, 10, NOT_NAMED, "internet"),
        (DATA, NOT_NAMED, NOT_NAMED, "internet"),
        (DATA, NOT_NAMED, 7, "internet"),
        (DATA, 20, NOT_NAMED, "portal"),
        (DATA, 30, NOT_NAMED, None),
        (b"ext.001.262.12.32260@3gpp.org", 5, 1000, "national-voice"),
        (VOICE, NOT_NAMED, NOT_NAMED, "national-voice"),
        (SMS, 0, NOT_NAMED, "sms"),
        (b"x32260@3gpp.org", 5, NOT_NAMED, None),
        (b"ext.32260@3gpp.org.", 5, NOT_NAMED, None),
        (b"32260@3GPP.ORG", 5, NOT_NAMED, None),
        (b"", NOT_NAMED, NOT_NAMED, None),
    ],
)
def test_classification_by_context_suffix_and_rating_group(
    sample: Catalogue, context: bytes, rating_group: int, service_identifier: int, name: str | None
) -> None:
    """TS 32.299: extensions come in front of the context, RFC 8506 section 8.42; row 28 for what matches nothing."""
    for _ in range(2):  # the second answer comes from memory
        found = sample.classify(context, rating_group, service_identifier)
        assert (found.name if found else None) == name


@pytest.mark.shows("kamailio-long-context")
@given(st.binary(max_size=20), st.binary(min_size=1, max_size=5))
def test_a_suffix_matches_at_a_dot_only(context: bytes, suffix: bytes) -> None:
    assert context_matches(context, suffix) == (context == suffix or context.endswith(b"." + suffix))


def test_an_unknown_rating_group_is_told_from_an_unknown_context(sample: Catalogue) -> None:
    """Row 28: 5031 names the AVP that cannot be rated."""
    assert sample.classify(DATA, 99, NOT_NAMED) is None
    assert sample.knows_context(DATA)
    assert sample.knows_context(b"ext.1.2.3." + SMS)
    assert not sample.knows_context(b"32299@3gpp.org")


def price(catalogue: Catalogue, plan: str, service: str, at_ms: int = 0, zone: str = "") -> tuple[Price, int]:
    tariff = catalogue.tariff(plan, service, zone)
    assert tariff is not None
    return tariff.at(at_ms)


def test_tariffs_by_plan(sample: Catalogue) -> None:
    assert price(sample, "standard", "sms") == (StepPrice(Unit.EVENTS, 1, 50_000), 0)
    assert sample.tariff("standard", "nothing") is None
    assert sample.tariff("nobody", "sms") is None


def test_a_catalogue_made_of_prices_has_tariffs_of_one_price(sample: Catalogue) -> None:
    rate = StepPrice(Unit.EVENTS, 1, 7)
    own = Tariff.of(DENIED)
    catalogue = Catalogue("made", 978, sample.services, {"a": {"sms": rate, "internet": own}, "b": {"sms": DENIED}})
    assert price(catalogue, "a", "sms") == (rate, 0)
    assert price(catalogue, "b", "sms") == (DENIED, 0)
    assert catalogue.tariff("a", "internet") is own


def test_prices_by_time_of_the_catalogues_own_clock_and_holidays() -> None:
    """Berlin is an hour ahead of UTC in winter; the new year is a holiday."""
    catalogue = read(
        SMALL.replace("currency: EUR", "currency: EUR\ntime_zone: Europe/Berlin\nholidays: [1970-01-01]").replace(
            "internet: 0.01 per 1 MiB",
            "internet:\n      08:00: 0.02 per 1 MiB\n      20:00: 0.01 per 1 MiB\n      holidays 00:00: free",
        )
    )
    hour_ms = 3_600_000
    assert price(catalogue, "standard", "internet") == (FreePrice(Unit.OCTETS), 23 * hour_ms)
    assert price(catalogue, "standard", "internet", 23 * hour_ms) == (StepPrice(Unit.OCTETS, MIB, 10_000), 31 * hour_ms)
    assert str(catalogue.calendar.time_zone) == "Europe/Berlin"


def test_what_clients_make_up_does_not_fill_the_memory(sample: Catalogue) -> None:
    for number in range(MEMO_ENTRIES + 10):
        assert sample.classify(DATA, 1_000_000 + number, NOT_NAMED) is None
    assert len(sample._memo) <= MEMO_ENTRIES
    long_context = b"x" * MEMO_CONTEXT_BYTES + b"." + DATA
    found = sample.classify(long_context, 10, NOT_NAMED)
    assert found is not None
    assert all(len(context) <= MEMO_CONTEXT_BYTES for context, _, _ in sample._memo)
    found = sample.classify(DATA, 10, NOT_NAMED)
    assert found is not None
    assert found.name == "internet"


def test_the_first_service_that_matches_wins() -> None:
    catalogue = read(
        SMALL.replace(
            "services:\n",
            "services:\n"
            "  portal:\n"
            "    context: 32251@3gpp.org\n"
            "    rating_groups: [10]\n"
            "    service_identifiers: [1, none]\n"
            "    unit: octets\n"
            "    quota: 1 MiB\n"
            "    validity: 1 h\n",
        ).replace("    internet: 0.01 per 1 MiB", "    internet: 0.01 per 1 MiB\n    portal: free")
    )
    names = [
        found.name if found else None
        for found in (catalogue.classify(DATA, 10, identifier) for identifier in (NOT_NAMED, 1, 2))
    ]
    assert names == ["portal", "portal", "internet"]
    assert price(catalogue, "standard", "portal") == (FreePrice(Unit.OCTETS), 0)


def test_the_quota_is_the_largest_grant_unless_one_is_named() -> None:
    assert read(SMALL).services[0].maximum_quota_units == 10 * MIB


@pytest.mark.parametrize(
    ("written", "unit", "units"),
    [
        ("10 MiB", Unit.OCTETS, 10 * MIB),
        ("5 MB", Unit.OCTETS, 5_000_000),
        ("1 B", Unit.OCTETS, 1),
        ("60 s", Unit.SECONDS, 60),
        ("2 h", Unit.SECONDS, 7200),
        ("1 event", Unit.EVENTS, 1),
        ("3 events", Unit.EVENTS, 3),
    ],
)
def test_sizes(written: str, unit: Unit, units: int) -> None:
    assert parse_size(written, unit) == units


@pytest.mark.parametrize(
    "written",
    ["10MiB", "10  MiB", "0 MiB", "-1 MiB", "1.5 MiB", "1e3 MiB", "MiB", "10", "10 mib", "10 s", "1 MiB ",
     "٣ MiB", "9" * 14 + " TiB"],
)  # fmt: skip
def test_sizes_are_read_strictly(written: str) -> None:
    with pytest.raises(ValueError, match=r"size|unit|counted"):
        parse_size(written, Unit.OCTETS)


@pytest.mark.parametrize(
    ("replaced", "by", "line", "reason"),
    [
        ("currency: EUR", "currency: eur", 2, "'EUR'"),
        ("currency: EUR", "currency: XYZ", 2, "ISO 4217"),
        ("currency: EUR\n", "", 1, "'currency' is missing"),
        ("version: test", "version: ''", 1, "version"),
        ("version: test", "version: " + "x" * 65, 1, "64"),
        ("    unit: octets", "    units: octets", 7, "did you mean 'unit'?"),
        ("    unit: octets", "    unit: octet", 7, "did you mean 'octets'?"),
        ("quota: 10 MiB", "quota: 10 Mib", 8, "known: B, kB, MB"),
        ("quota: 10 MiB", "quota: 10 s", 8, "no unit for octets"),
        ("quota: 10 MiB", "quota: 10 MiB\n    maximum_quota: 9 MiB", 9, "smaller than the quota"),
        ("validity: 30 min", "validity: 30", 9, "'60 s'"),
        ("validity: 30 min", "validity: 999999 d", 9, "4294967295"),
        ("validity: 30 min", "validity: [1 h]", 9, "single value"),
        ("    validity: 30 min\n", "", 5, "'validity' is missing"),
        ("[10, none]", "[]", 6, "'any'"),
        ("[10, none]", "all", 6, "must be a list"),
        ("[10, none]", "[10, 10]", 6, "twice"),
        ("[10, none]", "[-1]", 6, "0 to 4294967295"),
        ("[10, none]", "[ten]", 6, "whole number"),
        ("context: 32251@3gpp.org", "context: 32251 @3gpp.org", 5, "without spaces"),
        ("  internet:\n    context", "  Internet:\n    context", 4, "small letters"),
        ("internet: 0.01 per 1 MiB", "internte: 0.01 per 1 MiB", 12, "did you mean 'internet'?"),
        ("currency: EUR", "currency: EUR\ntimezone: UTC", 3, "did you mean 'time_zone'?"),
        ("currency: EUR", "currency: EUR\ntime_zone: Berlin", 3, "IANA"),
        ("currency: EUR", "currency: EUR\nholidays: [christmas]", 3, "2026-12-25"),
        ("internet: 0.01 per 1 MiB", "internet:\n      08:00: fre", 13, "did you mean 'free'?"),
        ("0.01 per 1 MiB", "0.01", 12, "0.01 per 1 MiB"),
        ("0.01 per 1 MiB", "0,01 per 1 MiB", 12, "not an amount"),
        ("0.01 per 1 MiB", "0.0000001 per 1 MiB", 12, "6 decimals"),
        ("0.01 per 1 MiB", "0 per 1 MiB", 12, "from 1 to"),
        ("0.01 per 1 MiB", "-0.01 per 1 MiB", 12, "from 1 to"),
        ("0.01 per 1 MiB", "1e-2 per 1 MiB", 12, "not an amount"),
        ("0.01 per 1 MiB", "0.01 per MiB", 12, "not a size"),
        ("0.01 per 1 MiB", "0.01 per 60 s", 12, "no unit for octets"),
        ("    internet: 0.01 per 1 MiB\n", "", 11, "at least one service"),
        ("plans:\n  standard:\n    internet: 0.01 per 1 MiB\n", "plans: {}\n", 10, "at least one plan"),
    ],
)
def test_a_mistake_is_named_with_its_line(replaced: str, by: str, line: int, reason: str) -> None:
    assert replaced in SMALL
    with pytest.raises(ConfigError) as caught:
        read(SMALL.replace(replaced, by))
    assert str(caught.value).startswith(f"catalogue.yaml:{line}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_service_that_can_never_be_chosen_is_a_mistake() -> None:
    text = SMALL.replace(
        "plans:",
        "  shadowed:\n    context: ext.32251@3gpp.org\n    rating_groups: [none]\n    unit: octets\n"
        "    quota: 1 MiB\n    validity: 1 h\nplans:",
    )
    with pytest.raises(ConfigError, match=r"^catalogue.yaml:10: service shadowed can never be chosen: internet"):
        read(text)
    assert len(read(text.replace("[none]", "[none, 11]")).services) == 2


def test_a_quota_of_time_fits_cc_time() -> None:
    """CC-Time is an Unsigned32, RFC 8506 section 8.21."""
    text = SMALL.replace("octets", "seconds").replace("10 MiB", "60 s").replace("1 MiB", "60 s")
    assert read(text).services[0].unit == Unit.SECONDS
    with pytest.raises(ConfigError, match=r"^catalogue.yaml:9: services.internet.maximum_quota .*4294967295"):
        read(text.replace("quota: 60 s", "quota: 60 s\n    maximum_quota: 99999 d"))


# -- folders -------------------------------------------------------------------------------------------------------


PARTS = {
    "1-head.yaml": "version: test\ncurrency: EUR\n",
    "2-services.yaml": SMALL[SMALL.index("services:") : SMALL.index("plans:")],
    "3-plans.yaml": SMALL[SMALL.index("plans:") :],
}


def folder(tmp_path: Path, **more: str) -> Path:
    for name, content in {**PARTS, **{f"{name}.yaml": content for name, content in more.items()}}.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_folder_is_read_as_one_catalogue(tmp_path: Path) -> None:
    """Files in the order of their names: of services the first that fits counts."""
    more = PARTS["2-services.yaml"].replace("internet:", "all:").replace("    rating_groups: [10, none]\n", "")
    plans = "plans:\n  other:\n    all: free\n"
    (tmp_path / ".hidden.yaml").write_text("nonsense")
    (tmp_path / "notes.txt").write_text("nonsense")
    catalogue = load_catalogue(folder(tmp_path, **{"4-more": more + plans}))
    assert [service.name for service in catalogue.services] == ["internet", "all"]
    assert set(catalogue.plans) == {"standard", "other"}
    assert catalogue.version == "test"


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (PARTS["2-services.yaml"], 2, r"services.internet is defined twice, first at .*2-services.yaml:2"),
        (PARTS["3-plans.yaml"], 2, r"plans.standard is defined twice, first at .*3-plans.yaml:2"),
        ("currency: EUR\n", 1, r"currency stands in two files, first at .*1-head.yaml:2"),
        ("sevices: {}\n", 1, r"unknown key 'sevices'; did you mean 'services'\?"),
    ],
)
def test_what_stands_in_two_files_is_named_with_both(tmp_path: Path, content: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_catalogue(folder(tmp_path, **{"4-more": content}))
    assert str(caught.value).startswith(f"{tmp_path}/4-more.yaml:{line}: ")


def test_what_no_file_of_a_folder_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file in it ends with"):
        load_catalogue(tmp_path)
    folder(tmp_path)
    (tmp_path / "1-head.yaml").write_text("currency: EUR\n")
    with pytest.raises(ConfigError, match=f"^{tmp_path}: key 'version' is missing in all files of this folder$"):
        load_catalogue(tmp_path)


def test_the_edition_tells_any_two_contents_apart(tmp_path: Path) -> None:
    """The version is what its author calls it; the digest is over all files, CSV files among them."""
    path = tmp_path / "catalogue.yaml"
    path.write_text(SMALL.replace("    internet: 0.01 per 1 MiB", "    prices_from: prices.csv"))
    prices = tmp_path / "prices.csv"
    prices.write_text("service,price\ninternet,0.01 per 1 MiB\n")
    first = load_catalogue(path).edition
    assert load_catalogue(path).edition == first
    prices.write_text("service,price\ninternet,0.02 per 1 MiB\n")
    second = load_catalogue(path).edition
    path.write_text(path.read_text() + "# a remark\n")
    assert len({first, second, load_catalogue(path).edition}) == 3
    assert read(SMALL).edition == "test"
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (path, prices):
        (moved / file.name).write_text(file.read_text())
    assert load_catalogue(moved / path.name).edition == load_catalogue(path).edition
