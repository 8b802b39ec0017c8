"""Networks: whose network serves the subscriber, from whatever the client tells of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.rating.networks import HOME, Network, Networks, parse_network, plmn_of, read_networks
from occ.yamlmap import ConfigError, parse_yaml

CATALOGUE = """\
home: [26201, 26206]
national-roaming: [262]
eu: [208, 222, 234-15]
us: [310-410, "311"]
world: any
"""


def read(text: str, base: Path = Path()) -> Networks:
    return read_networks(parse_yaml(text, "catalogue.yaml", base))


@pytest.mark.parametrize(
    ("mcc_mnc", "zone", "plmn"),
    [
        (b"26201", "home", "26201"),
        (b"262001", "home", "26201"),
        (b"26202", "national-roaming", "26202"),
        (b"20801", "eu", "20801"),
        (b"23415", "eu", "23415"),
        (b"23430", "world", "23430"),
        (b"310410", "us", "310410"),
        (b"310411", "world", "310411"),
        (b"31100", "us", "31100"),
        (b"99970", "world", "99970"),
        (b"00101", "world", "00101"),
    ],
)
def test_the_network_decides_then_its_country_then_any(mcc_mnc: bytes, zone: str, plmn: str) -> None:
    networks = read(CATALOGUE)
    for _ in range(2):  # the second time from memory
        assert networks.find(mcc_mnc) == Network(zone, plmn)
        assert networks.zone_of(mcc_mnc) == zone


@pytest.mark.parametrize(
    ("location", "plmn"),
    [
        ("8262f210000162f21000000101", "26201"),  # TAI and ECGI
        ("8062f2100001", "26201"),  # TAI
        ("8162f21000000101", "26201"),  # ECGI
        ("0002f810000a0001", "20801"),  # CGI
        ("0102f810000a0001", "20801"),  # SAI
        ("0202f810000aff00", "20801"),  # RAI
        ("8213001400011300140000000a", "310410"),  # MNC of three digits
        ("8762f210000000010a", "26201"),  # NCGI
        ("8962f21000000162f2100000000001", "26201"),  # 5GS TAI and NCGI
        ("8299f907000199f90700000101", "99970"),
        ("8242f419000142f41900000101", "24491"),  # as Open5GS 2.7 sends it
        ("8262f2", ""),
        ("82", ""),
        ("", ""),
        ("0362f210000162f2", ""),  # a type that is not in use
        ("ff62f210000162f2", ""),
        ("82ffffff0001ffffff00000101", ""),
        ("826af210000162f21000000101", ""),  # no decimal digit
    ],
)
def test_user_location_information(location: str, plmn: str) -> None:
    """TS 29.061 clause 16.4.7.2: a type octet, then MCC and MNC in three octets as in TS 24.008 clause 10.5.1.3."""
    octets = bytes.fromhex(location)
    assert plmn_of(None, octets) == plmn


@pytest.mark.parametrize(
    ("access_network", "plmn"),
    [
        (b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2620110000010101", "26201"),
        (b"3GPP-E-UTRAN-FDD; utran-cell-id-3gpp=234151ABD9B71FDF", "23415"),
        (b'3GPP-E-UTRAN-TDD; utran-cell-id-3gpp="31041010000010101"', "310410"),
        (b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2449100010000101", "24491"),  # as Kamailio 5.6 sends it
        (b"3GPP-NR-TDD;utran-cell-id-3gpp=0010100313200001c001", "00101"),
        (b"3GPP-NR-FDD;utran-cell-id-3gpp=310410003132000010001", "310410"),
        (b"3GPP-GERAN;cgi-3gpp=4660126418FDF;network-provided", "46601"),
        (b"3GPP-GERAN;CGI-3GPP=31041026418FDF", "310410"),
        (b"3GPP-UTRAN-FDD;utran-sai-3gpp=2620126418FDF", "26201"),
        (b"IEEE-802.11;i-wlan-node-id=aabbccddeeff, 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2620110000010101", "26201"),
        (b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=262011000001010", ""),  # no cell has 15
        (b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=26201A0000010101F", ""),  # 17 digits, but no MNC of three
        (b"IEEE-802.11;i-wlan-node-id=aabbccddeeff", ""),
        (b"ADSL;utran-cell-id-3gpp=00000000", ""),
        (b"\xff\xff", ""),
        (b"", ""),
    ],
)
def test_access_network_information(access_network: bytes, plmn: str) -> None:
    """TS 24.229 clause 7.2A.4: the digits of a cell tell how long its MNC is."""
    assert plmn_of(None, None, access_network) == plmn


@pytest.mark.parametrize(
    ("visited", "plmn"),
    [
        (b"ims.mnc001.mcc262.3gppnetwork.org", "26201"),
        (b"ims.MNC410.MCC310.3gppnetwork.org", "310410"),
        (b"mnc15.mcc234.3gppnetwork.org", "23415"),
        (b"visited.example.net", ""),
        (b"mnc001.mcc2621.3gppnetwork.org", ""),
    ],
)
def test_visited_network_identifier(visited: bytes, plmn: str) -> None:
    """TS 23.003 clause 13.2."""
    assert plmn_of(None, None, None, visited) == plmn


def test_what_comes_first_decides_and_what_is_not_understood_is_passed_over() -> None:
    networks = read(CATALOGUE)
    location = bytes.fromhex("8202f810000102f81000000101")
    access, visited = b"3GPP-NR;utran-cell-id-3gpp=0010100313200001c001", b"ims.mnc015.mcc234.3gppnetwork.org"
    assert networks.find(b"26201", location, access, visited).plmn == "26201"
    for unusable in (None, b"", b"2620", b"2620123", b"26a01", b"\xff\xff\xff"):
        assert networks.find(unusable, location, access, visited).plmn == "20801"
        assert networks.find(unusable, b"\x82", access, visited).plmn == "00101"
        assert networks.find(unusable, None, b"WLAN", visited).plmn == "23415"


def test_who_does_not_say_where_they_are_is_at_home() -> None:
    networks = read(CATALOGUE)
    assert networks.find(None) == Network(HOME, "")
    assert networks.zone_of(b"???", b"\x00", b"WLAN", b"visited.example.net") == HOME


@given(
    mcc_mnc=st.none() | st.binary(max_size=8) | st.text("0123456789", max_size=7).map(str.encode),
    location=st.none() | st.binary(max_size=14),
    access=st.none()
    | st.binary(max_size=40)
    | st.text("0123456789F", max_size=24).map(lambda t: b"cgi-3gpp=" + t.encode()),
)
def test_nothing_that_is_sent_does_harm(mcc_mnc: bytes | None, location: bytes | None, access: bytes | None) -> None:
    found = NETWORKS.find(mcc_mnc, location, access, access)
    assert found.zone in NETWORKS.zones
    assert found.plmn == "" or (found.plmn.isdigit() and len(found.plmn) in (5, 6))
    assert NETWORKS.find(mcc_mnc, location, access, access) == found


@given(mcc=st.integers(0, 999), mnc=st.integers(0, 999))
def test_all_forms_of_a_network_are_one(mcc: int, mnc: int) -> None:
    digits = f"{mcc:03}{mnc:03}"
    packed = [int(digits[i]) for i in (1, 0, 5, 2, 4, 3)]
    octets = bytes((0x82, *(high << 4 | low for high, low in zip(packed[::2], packed[1::2], strict=True)), 0, 1))
    domain = f"ims.mnc{mnc:03}.mcc{mcc:03}.3gppnetwork.org".encode()
    plmn = parse_network(digits)
    assert {plmn_of(digits.encode()), plmn_of(None, octets), plmn_of(None, None, domain)} == {plmn}
    assert len(plmn) == (5 if mnc < 100 else 6)


NETWORKS = read(CATALOGUE)


def test_a_roaming_list_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "roaming.csv").write_text(
        "network,zone,name\n208,zone-1,France\n310-410,zone-2,\n262,zone-1,Germany\n", encoding="utf-8"
    )
    networks = read("file: roaming.csv\nhome: [262]\nworld: any\n", tmp_path)
    zones = [networks.zone_of(plmn) for plmn in (b"20801", b"310410", b"26201", b"25001")]
    assert zones == ["zone-1", "zone-2", "home", "world"]
    assert networks.zones == {"home", "zone-1", "zone-2", "world"}


def test_a_bad_row_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "roaming.csv").write_text("network,zone\n20801,a\n2080,a\n208-01,b\n", encoding="utf-8")
    message = r"roaming.csv:3: '2080' is no network: 262 is an MCC, .* \(1 further row is wrong: line 4\)"
    with pytest.raises(ConfigError, match=message):
        read("file: roaming.csv\nhome: [262]\nworld: any\n", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("world: any\n", r"must name the operator's own networks as the zone 'home'"),
        ("home: [26201]\n", r"must have a zone for every other network, such as 'world: any'"),
        ("home: [26201]\nworld: any\neu: [2080]\n", r"catalogue.yaml:3: eu\[0\]: '2080' is no network"),
        ("home: [26201]\nworld: any\neu: []\n", r"catalogue.yaml:3: eu must list at least one network"),
        ("home: [26201]\nworld: any\nEU: [208]\n", r"catalogue.yaml:3: the name of a zone is made of small letters"),
        (
            "home: [26201]\nworld: any\neu: [208, 262-001]\n",
            r"catalogue.yaml:3: 262-001 is in the zone eu here and in the zone home at catalogue.yaml:1",
        ),
        ("home: any\nworld: any\n", r"catalogue.yaml:2: any is in the zone world here"),
        ("home: 26201\nworld: any\n", r"catalogue.yaml:1: home must be a list, not '26201'"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_some_zone_holds_every_other_network() -> None:
    with pytest.raises(ValueError, match="every other network"):
        Networks({"26201": "home"})
