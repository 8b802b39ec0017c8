"""Destinations: the longest prefix decides, whoever lists it, and however many there are."""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.destinations import numbers_below, price_list
from occ.rating.destinations import EMERGENCY, Destination, Destinations, parse_prefix, read_destinations
from occ.rating.numbering import Kind, Number, Numbering
from occ.yamlmap import ConfigError, parse_yaml

NUMBERING = Numbering(
    "49", national_prefix="0", home_area="30", emergency=("110", "112"), short_codes=("115", "118xx", "1182x", "911")
)
CATALOGUE = """\
emergency: [110, 112]
local: [4930]
national: [49]
mobile: ["4915", "4916", "4917"]
on-net: [49D0042, 491609]
premium: [49900, 118xx]
directory: [1182x]
service: [115, 11833]
free: [49800, +800]
kazakhstan: [76, 77]
russia: [7]
delhi: ["+911"]
voip: [uri]
world: any
"""


def read(text: str, base: Path = Path(), numbering: Numbering = NUMBERING) -> Destinations:
    return read_destinations(parse_yaml(text, "catalogue.yaml", base), numbering)


@pytest.mark.parametrize(
    ("called", "zone", "prefix"),
    [
        ("tel:+4930123456", "local", "4930"),
        ("tel:0301234567", "local", "4930"),
        ("sip:0341234567@ims.example.net", "national", "49"),
        ("tel:+491701234567", "mobile", "4917"),
        ("tel:+491609234567", "on-net", "491609"),
        ("09001234567", "premium", "49900"),
        ("0800123456", "free", "49800"),
        ("0080012345678", "free", "800"),
        ("+49115", "service", "115"),
        ("11833", "service", "11833"),
        ("11880", "premium", "11880"),
        ("11820", "directory", "11820"),
        ("112", "emergency", "112"),
        ("urn:service:sos", "emergency", ""),
        ("+911123456789", "delhi", "911"),
        ("+77271234567", "kazakhstan", "77"),
        ("+76001234567", "kazakhstan", "76"),
        ("+74951234567", "russia", "7"),
        ("+7", "russia", "7"),
        ("+4", "world", ""),
        ("+12125551234", "world", ""),
        ("sip:alice@example.net", "voip", ""),
    ],
)
def test_where_calls_go(called: str, zone: str, prefix: str) -> None:
    """Row "Ro voice": local, long distance, international, emergency; +7-6 and +7-7 are Kazakhstan."""
    destinations = read(CATALOGUE)
    number = NUMBERING.normalise(called)
    assert destinations.find(number) == Destination(zone, prefix)
    assert destinations.zone_of(number) == zone


@pytest.mark.parametrize("called", ["+12125551234", "911", "sip:alice@example.net", ""])
def test_what_is_in_no_zone(called: str) -> None:
    destinations = read("national: [49]\n")
    assert destinations.find(NUMBERING.normalise(called)) is None
    assert destinations.zone_of(NUMBERING.normalise(called)) is None


def test_words_for_what_no_prefix_can_say() -> None:
    destinations = read("info: [115]\nother-codes: [short]\nnowhere: [unknown, uri]\nnational: [49]\n")
    zones = {called: destinations.zone_of(NUMBERING.normalise(called)) for called in ("115", "11833", "sip:a@b", "")}
    assert zones == {"115": "info", "11833": "other-codes", "sip:a@b": "nowhere", "": "nowhere"}
    assert destinations.zones == {"info", "other-codes", "nowhere", "national", EMERGENCY}


def test_emergency_calls_have_their_zone_though_no_one_lists_it() -> None:
    assert read("world: any\n").find(NUMBERING.normalise("112")) == Destination(EMERGENCY, "112")


# Ported numbers.


@pytest.mark.parametrize(
    ("called", "portability", "zone", "prefix"),
    [
        ("+491701234567", b"+491609", "on-net", "491609"),
        ("+491701234567", b"tel:+491701234567;npdi;rn=+4930555", "local", "4930"),
        ("+491701234567", b"D0042", "on-net", "49D0042"),
        ("+491701234567", b"D0099", "mobile", "4917"),  # 49 fits, but says nothing about a code D0099
        ("+491701234567", None, "mobile", "4917"),
    ],
)
def test_a_ported_number_costs_what_its_routing_number_costs(
    called: str, portability: bytes | None, zone: str, prefix: str
) -> None:
    """RFC 4694 section 4."""
    destinations = read(CATALOGUE)
    assert destinations.find(NUMBERING.normalise(called, portability)) == Destination(zone, prefix)


def test_a_routing_number_in_no_zone_leaves_it_to_the_called_number() -> None:
    destinations = Destinations({"49": "national", "": "world"})
    assert destinations.zone_of(Number(Kind.E164, "491701234567", "3361234")) == "national"


# The longest prefix.


PREFIXES = st.dictionaries(
    st.text("123", min_size=0, max_size=6).flatmap(lambda tail: st.sampled_from([tail, "12" + tail])),
    st.sampled_from(["a", "b", "c"]),
    max_size=30,
)


def brute_force(prefixes: Mapping[str, str], digits: str) -> tuple[str, str] | None:
    fitting = [prefix for prefix in prefixes if digits.startswith(prefix)]
    longest = max(fitting, key=len, default=None)
    return None if longest is None else (prefixes[longest], longest)


@given(prefixes=PREFIXES, digits=st.text("123", min_size=1, max_size=10))
def test_the_longest_prefix_decides(prefixes: dict[str, str], digits: str) -> None:
    found = Destinations(prefixes).find(Number(Kind.E164, digits))
    assert (None if found is None else (found.zone, found.prefix)) == brute_force(prefixes, digits)


def test_a_hundred_thousand_prefixes_are_found_as_fast_as_ten(tmp_path: Path) -> None:
    """No absolute time: what grows with the list would be thousands of times slower, not a few times."""
    import random

    rng = random.Random(7)
    slowness: list[float] = []
    for count in (10, 100_000):
        prefixes = price_list(count, rng)
        rows = "".join(f"{prefix},{prefix}\n" for prefix in prefixes)
        (tmp_path / "prefixes.csv").write_text(f"prefix,zone\n{rows}", encoding="utf-8")
        destinations = read("file: prefixes.csv", tmp_path)
        assert len(destinations) == count
        numbers = [Number(Kind.E164, digits) for digits in numbers_below(prefixes, rng)[:2_000]]
        known = frozenset(prefixes)
        for number in numbers[:200]:
            longest = next(number.digits[:end] for end in range(12, 0, -1) if number.digits[:end] in known)
            assert destinations.find(number) == Destination(longest, longest)
        passes = []
        for _ in range(7):
            begin = perf_counter()
            for number in numbers:
                destinations.find(number)
            passes.append(perf_counter() - begin)
        slowness.append(min(passes))
    assert slowness[1] < 50 * slowness[0]


# Files.


def test_what_the_catalogue_says_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "world.csv").write_text("prefix,zone,name\n49,europe,Germany\n43,europe,Austria\n", encoding="utf-8")
    destinations = read("file: world.csv\nnational: [49]\n", tmp_path)
    assert destinations.find(Number(Kind.E164, "4930")) == Destination("national", "49")
    assert destinations.find(Number(Kind.E164, "4312")) == Destination("europe", "43", "Austria")


def test_files_as_spreadsheets_write_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufeffZone;Name;Prefix;;\r\nfixed;"Bern; Stadt";+41 31\r\n;;;;\r\n'.encode())
    (tmp_path / "b.csv").write_text("prefix\tzone\n4131\tfixed\n41-79\tmobile\n\n", encoding="utf-8")
    destinations = read("file: [a.csv, b.csv]\n", tmp_path)
    assert destinations.find(Number(Kind.E164, "413112")) == Destination("fixed", "4131", "Bern; Stadt")
    assert destinations.find(Number(Kind.E164, "417912")) == Destination("mobile", "4179")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prefix,zone\n49,national\n4x,national\n", r"p.csv:3: '4x' is no prefix such as 4930"),
        ("prefix,zone\n0049,national\n", r"p.csv:2: '0049' is no prefix: prefixes are written with country code and"),
        ("prefix,zone\n4.99E+10,a\n", r"p.csv:2: '4.99E\+10' is no prefix"),
        ("prefix,zone\n1234567890123456,a\n", r"p.csv:2: .* 15 digits at most"),
        ("prefix,zone\n118,a\n", r"p.csv:2: no number begins with \+11: if 118 is a short code, list it in numbering"),
        ("prefix,zone\n49,\n", r"p.csv:2: 1 columns, where the heading has 2"),
        ("prefix,zone\n49,a,b\n", r"p.csv:2: 3 columns, where the heading has 2"),
        ("prefix,zone\n49,National\n", r"p.csv:2: the name of a zone is made of small letters"),
        ("prefix,zone\n49,emergency\n", r"p.csv:2: 'emergency' must not be used as the name of a zone in a file"),
        ("prefix,zone\n49,a\n50,a\n49,b\n", r"p.csv:4: prefix 49 is in the zone b here and in the zone a at .*p.csv:2"),
        ("prefix,zone\n49,a\n49,b\nx,a\n44,b\ny,a\n", r"p.csv:3: .* \(2 further rows are wrong: lines 4, 6\)"),
        ("prefix,zone\nx,a\ny,a\n", r"p.csv:2: .* \(1 further row is wrong: line 3\)"),
        ("prefix,zone\n" + "x,a\n" * 20, r"\(19 further rows are wrong: lines 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, …\)"),
        ("49,national\n", r"p.csv:1: the first row must name the columns, prefix, zone and perhaps name: '49' is"),
        ("prefix,zonne\n", r"p.csv:1: .* 'zonne' is none of them; did you mean 'zone'\?"),
        ("prefix,zone,zone\n", r"p.csv:1: the column zone stands twice"),
        ("zone\na\n", r"p.csv:1: the column prefix is missing in the first row"),
        ("", r"p.csv:1: the column prefix is missing in the first row"),
        ('prefix,zone\n49,"a"b\n', r"p.csv:2: is not valid CSV"),
        (b"prefix,zone,name\n49,a,\xfcber\n", r"p.csv:2: is not UTF-8 text"),
        (None, r"catalogue.yaml:1: file: .*p.csv cannot be read: no such file"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "p.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        read("file: p.csv\n", tmp_path)


def test_two_files_must_agree(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prefix,zone\n49,a\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("prefix,zone\n43,a\n49,b\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"b.csv:3: prefix 49 is in the zone b here and in the zone a at .*a.csv:2"):
        read("file: [a.csv, b.csv]\n", tmp_path)


# The section of the catalogue.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("National: [49]\n", r"catalogue.yaml:1: the name of a zone is made of small letters"),
        ("national: [49]\nlocal: []\n", r"catalogue.yaml:2: local must list at least one prefix"),
        ("national: 49\n", r"catalogue.yaml:1: national must be a list, not '49'"),
        ("national: [49]\nlocal:\n- 4930\n- 030\n", r"catalogue.yaml:4: local\[1\]: '030' is no prefix: prefixes are"),
        ("a: [49]\nb: [44, 49]\n", r"catalogue.yaml:2: 49 is in the zone b here and in the zone a at catalogue.yaml:1"),
        ("a: [uri]\nb: [uri]\n", r"catalogue.yaml:2: uri is in the zone b here"),
        ("a: any\nb: [any]\n", r"catalogue.yaml:2: any is in the zone b here"),
        ("a: [115]\nb: [115]\n", r"catalogue.yaml:2: 115 is in the zone b here"),
        ("a: [112]\n", r"catalogue.yaml:1: 112 is an emergency number of numbering and always in the zone emergency"),
        ("emergency: [999]\n", r"catalogue.yaml:1: '999' is not among the emergency numbers of numbering"),
        ("premium: [11999]\n", r"no number begins with \+11: if 11999 is a short code, list it in numbering"),
        ("", r"must put at least one prefix or short code into a zone"),
        ("emergency: [112]\n", r"must put at least one prefix or short code into a zone"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("written", "prefix"), [("7", "7"), ("+7 495", "7495"), ("49-(30)", "4930"), ("49d0042", "49D0042")]
)
def test_prefixes_as_people_write_them(written: str, prefix: str) -> None:
    assert parse_prefix(written) == prefix


# The file that comes with the server.


@pytest.mark.parametrize(
    ("digits", "zone", "name"),
    [
        ("4930123456", "europe", "Germany"),
        ("74951234567", "russia", "Russia"),
        ("77271234567", "caucasus-and-central-asia", "Kazakhstan"),
        ("76001234567", "caucasus-and-central-asia", "Kazakhstan"),
        ("12125551234", "north-america", "United States and Canada"),
        ("18761234567", "caribbean", "Jamaica"),
        ("390669812345", "europe", "Italy"),
        ("881612345678", "satellite", "Iridium"),
        ("97912345678", "international-services", "International premium rate"),
    ],
)
def test_the_country_codes_of_the_world(digits: str, zone: str, name: str) -> None:
    found = _world().find(Number(Kind.E164, digits))
    assert found is not None
    assert (found.zone, found.name) == (zone, name)


def test_no_country_code_holds_another_but_where_countries_share_one() -> None:
    """ITU-T E.164: country codes are prefix-free; only 1, 7, 881 and 882 are divided further here."""
    import csv

    rows = list(csv.DictReader((_CONFIG / "destinations" / "world.csv").open(encoding="utf-8")))
    codes = [row["prefix"] for row in rows]
    assert codes == sorted(codes)
    assert {(a, b[: len(a)]) for a in codes for b in codes if a != b and b.startswith(a)} == {
        (shared, shared) for shared in ("1", "7", "881", "882")
    }


_CONFIG = Path(__file__).parents[2] / "config"


def _world() -> Destinations:
    return read("file: destinations/world.csv\n", _CONFIG)
