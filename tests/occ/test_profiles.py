"""Profiles of clients: what the shipped file says of them, by which CER they are known, whose requests they are for.

The CERs are those of the scenarios, which are rebuilt from what Open5GS and Kamailio send, taken in by a real peer
state machine (RFC 6733 section 5.3).
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ import profiles as module
from occ.profiles import LENIENT, Profile, ProfileChooser, Profiles, Reauthorisation
from occ.settings import default_config_path
from occ.yamlmap import ConfigError
from protocols.diameter.codec import avp
from protocols.diameter.events import Opened, Role
from tests.plain import PLAIN_ONLY
from tests.protocols.in_memory import Stranger, base_request, cer
from tests.scenarios.clients import PROFILES

SHIPPED = default_config_path().parent / "profiles.yaml"
CREDIT_CONTROL, GX, S6B, CX, RELAY = 4, 16777238, 16777272, 16777216, 0xFFFFFFFF
SMF, RELAY_HOST = "smf.epc.example.net", "dra.example.net"


@pytest.fixture(scope="module")
def shipped() -> Profiles:
    return Profiles.load(SHIPPED)


def opened_by(capabilities_request: bytes) -> Opened:
    """What a server that takes this CER knows of the peer."""
    stranger = Stranger()
    stranger.send(capabilities_request)
    opened = stranger.last()
    assert isinstance(opened, Opened)
    return opened


def client(kind: str, host: str = SMF) -> Opened:
    return opened_by(base_request(257, PROFILES[kind].capabilities(host)))


def relay(product_name: str = "freeDiameter", applications: Sequence[int] = (RELAY,)) -> Opened:
    return peer(RELAY_HOST, product_name, applications)


def peer(host: str, product_name: str, applications: Sequence[int]) -> Opened:
    advertised = [avp("Auth-Application-Id", application) for application in applications]
    opened = opened_by(cer([*advertised], host))
    return replace(opened, product_name=product_name)


# The shipped file.


def test_the_shipped_profiles(shipped: Profiles) -> None:
    assert [profile.name for profile in shipped] == ["lenient", "strict-3gpp", "open5gs", "kamailio"]


def test_lenient_is_what_is_built_in(shipped: Profiles) -> None:
    """Its lines show the value of every setting that other profiles leave out."""
    assert shipped.named("lenient") == LENIENT
    text = SHIPPED.read_text()
    shown = text[text.index("  lenient:") : text.index("  strict-3gpp:")]
    settings = [field.name for field in fields(Profile) if field.name != "name"]
    assert [name for name in settings if f"\n    {name}: " not in shown] == []


def test_lenient_sends_nothing_that_an_unknown_client_must_refuse() -> None:
    """RFC 8506 section 8.20: a client without tariff switches has to end the session; 4011 is a refusal to some."""
    assert not LENIENT.tariff_switch
    assert not LENIENT.credit_control_not_applicable
    assert not LENIENT.needs_indicator


def test_strict_3gpp_goes_by_the_book(shipped: Profiles) -> None:
    """Row 25: Multiple-Services-Indicator 1 comes first; rows 28, 29, 32 to 37, 40 and 42: the client knows it all."""
    strict = shipped.named("strict-3gpp")
    assert strict.needs_indicator
    assert [f.name for f in fields(Profile) if f.type is bool and not getattr(strict, f.name)] == [
        "time_within_validity",
        "last_second",
    ]
    assert strict.reauthorisation is Reauthorisation.FULL
    assert strict.shortest_validity_s == 0


def test_open5gs_is_asked_for_what_it_can_do(shipped: Profiles) -> None:
    """Any final unit terminates, one quota a session, 2001 or nothing, thresholds act, a RAR brings no report."""
    profile = shipped.named("open5gs")
    assert not profile.redirects
    assert not profile.qos_final_units
    assert not profile.pools
    assert not profile.tariff_switch
    assert not profile.advice_of_charge
    assert not profile.credit_control_not_applicable
    assert not profile.needs_indicator
    assert profile.quota_hints
    assert profile.reauthorisation is Reauthorisation.ANSWERED


def test_kamailio_is_asked_for_what_it_can_do(shipped: Profiles) -> None:
    """A redirection counts as a grant, Validity-Time ends a grant, reports come 8 s before, a RAR is not answered."""
    profile = shipped.named("kamailio")
    assert profile.last_second
    assert not profile.redirects
    assert not profile.pools
    assert not profile.tariff_switch
    assert not profile.credit_control_not_applicable
    assert not profile.needs_indicator
    assert profile.reauthorisation is Reauthorisation.NONE
    assert profile.time_within_validity
    assert profile.shortest_validity_s > 8 + 2


# Recognition.


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Open5GS", "open5gs"), ("Kamailio", "kamailio"), ("a PGW", None), ("a CSCF", None), ("an SMSC", None)],
)
def test_clients_are_recognised_by_their_cer(shipped: Profiles, kind: str, name: str | None) -> None:
    said = client(kind)
    recognised = shipped.recognise(said.product_name, said.applications)
    assert (recognised.name if recognised else None) == name


@pytest.mark.parametrize(
    ("product_name", "applications", "name"),
    [
        ("freeDiameter", {CREDIT_CONTROL, GX}, "open5gs"),  # before S6b was added
        ("freeDiameter", {CREDIT_CONTROL, GX, S6B, RELAY}, "open5gs"),  # its no_fwd left out
        ("freeDiameter", {RELAY}, None),
        ("freeDiameter", {CREDIT_CONTROL}, None),
        ("freeDiameter", {GX, RELAY}, None),
        ("Kamailio", {CREDIT_CONTROL}, "kamailio"),
        ("kamailio-scscf", {CREDIT_CONTROL, CX}, "kamailio"),
        ("CDiameterPeer", {CREDIT_CONTROL, RELAY}, "kamailio"),
        ("CDiameterPeer", {CX}, None),
        ("My S-CSCF", {CREDIT_CONTROL}, None),
        ("", {CREDIT_CONTROL, GX}, None),
    ],
)
def test_recognition_takes_product_and_applications(
    shipped: Profiles, product_name: str, applications: set[int], name: str | None
) -> None:
    """RFC 6733 section 5.3.7: Product-Name SHOULD stay the same across releases; operators change Kamailio's."""
    recognised = shipped.recognise(product_name, frozenset(applications))
    assert (recognised.name if recognised else None) == name


def test_the_first_match_of_the_file_wins(tmp_path: Path) -> None:
    content = """
profiles:
  gateways: {recognise: {products: [Acme], applications: [4, 16777238]}, pools: no}
  acme: {recognise: {products: [ACME]}}
  any: {recognise: {applications: [4]}}
"""
    profiles = written(tmp_path, content)
    names = {
        (product, with_gx): found.name
        for product in ("acme 7", "other")
        for with_gx in (True, False)
        if (found := profiles.recognise(product, frozenset((4, GX) if with_gx else (4,))))
    }
    assert names == {
        ("acme 7", True): "gateways",
        ("acme 7", False): "acme",
        ("other", True): "any",
        ("other", False): "any",
    }


# Which request gets which profile.


def chooser(profiles: Profiles, listed: dict[str, str] | None = None, default: str = "lenient") -> ProfileChooser:
    return ProfileChooser(profiles, default, listed or {})


def test_a_recognised_client_needs_no_setting(shipped: Profiles) -> None:
    choose = chooser(shipped).choose
    assert choose(client("Open5GS"), SMF.encode()).name == "open5gs"
    assert choose(client("Kamailio", "scscf.ims.example.net"), b"scscf.ims.example.net").name == "kamailio"
    assert choose(client("a PGW"), SMF.encode()).name == "lenient"


def test_the_default_is_a_setting(shipped: Profiles) -> None:
    assert chooser(shipped, default="strict-3gpp").choose(client("a PGW"), SMF.encode()).name == "strict-3gpp"


def test_the_settings_outdo_recognition(shipped: Profiles) -> None:
    """RFC 6733 section 4.3.1: a DiameterIdentity is a domain name, capitals or not."""
    choose = chooser(shipped, {"SMF.epc.example.NET": "strict-3gpp"}).choose
    assert choose(client("Open5GS", "Smf.Epc.Example.Net"), b"smf.EPC.example.net").name == "strict-3gpp"


def test_what_a_relay_passes_on_may_be_from_anybody(shipped: Profiles) -> None:
    """RFC 6733 section 2.4: a relay advertises 0xffffffff; its CER says nothing of those behind it."""
    said = client("Open5GS", RELAY_HOST)
    both = replace(said, applications=said.applications | {RELAY})
    choose = chooser(shipped).choose
    assert choose(both, RELAY_HOST.encode()).name == "open5gs"
    assert choose(both, b"someone.example.net").name == "lenient"
    assert choose(relay(), SMF.encode()).name == "lenient"


def test_a_client_behind_a_relay_is_listed_by_its_own_name(shipped: Profiles) -> None:
    choose = chooser(shipped, {SMF: "open5gs", RELAY_HOST: "strict-3gpp"}).choose
    assert choose(relay(), SMF.encode()).name == "open5gs"
    assert choose(relay(), b"pgw.example.net").name == "strict-3gpp", "what the settings give the relay"


def test_a_client_that_signs_with_another_name_is_still_itself(shipped: Profiles) -> None:
    """Only a relay speaks for others; Kamailio can be told to put another Origin-Host into its requests."""
    assert chooser(shipped).choose(client("Kamailio"), b"cscf.ims.example.net").name == "kamailio"


def test_a_peer_that_comes_back_as_another_client(shipped: Profiles) -> None:
    choose = chooser(shipped).choose
    assert choose(client("Kamailio"), SMF.encode()).name == "kamailio"
    assert choose(client("Open5GS"), SMF.encode()).name == "open5gs"
    assert choose(client("a PGW"), SMF.encode()).name == "lenient"


@PLAIN_ONLY
def test_what_is_remembered_is_bounded(shipped: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay, or whoever plays one, names as many clients as it likes, as long as it likes."""
    monkeypatch.setattr(module, "CHOICES_REMEMBERED", 8)
    each = chooser(shipped, {"h5.example.net": "strict-3gpp"})
    for number in [*range(30), 5]:
        expected = "strict-3gpp" if number == 5 else "lenient"
        assert each.choose(relay(), b"h%d.example.net" % number).name == expected
        assert len(each._chosen) <= 8
    kept = len(each._chosen)
    assert each.choose(relay(), b"x" * 60_000).name == "lenient"
    assert each.choose(relay(), b"\xff\x00").name == "lenient"
    assert len(each._chosen) == kept + 1


def test_the_log_can_say_why(shipped: Profiles) -> None:
    each = chooser(shipped, {RELAY_HOST: "strict-3gpp"})
    assert each.explain(client("Open5GS")) == "profile open5gs, recognised by what it said when it connected"
    assert each.explain(client("a PGW")) == "profile lenient, as diameter.default_profile has it"
    assert each.explain(relay()) == "profile strict-3gpp, as diameter.peers.allowed has it"


def test_a_name_that_is_no_profile(shipped: Profiles) -> None:
    with pytest.raises(ConfigError) as caught:
        chooser(shipped, default="lenien")
    assert str(caught.value).startswith("diameter.default_profile: there is no profile 'lenien' in ")
    assert str(caught.value).endswith("profiles.yaml; did you mean 'lenient'?")
    with pytest.raises(
        ConfigError, match=r"^diameter.peers.allowed, profile of a.example.org: there is no profile 'x'"
    ):
        chooser(shipped, {"a.example.org": "x"})
    with pytest.raises(KeyError, match="did you mean 'open5gs'"):
        shipped.named("Open5G")


# The file.


def written(directory: Path, content: str) -> Profiles:
    path = directory / "profiles.yaml"
    path.write_text(content)
    return Profiles.load(path)


def test_profiles_of_the_users_own(tmp_path: Path) -> None:
    """What is left out is as in `lenient`, whatever the file makes of that."""
    content = """
profiles:
  mine.1: {redirects: off, reauthorisation: answered, shortest_validity_s: 3_600}
  lenient: {pools: false}
  empty:
"""
    profiles = written(tmp_path, content)
    expected = Profile("mine.1", redirects=False, reauthorisation=Reauthorisation.ANSWERED, shortest_validity_s=3600)
    assert profiles.named("mine.1") == expected
    assert profiles.named("lenient") == Profile("lenient", pools=False)
    assert profiles.named("empty") == Profile("empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "key 'profiles' is missing"),
        ("profiles:\n", "profiles is empty; a server needs one at least"),
        ("profiles: [lenient]\n", ":1: profiles must be a mapping (key: value), not a list"),
        ("profile: {}\n", ":1: unknown key 'profile'; did you mean 'profiles'?"),
        ("profiles:\n  a:\n    redirect: yes\n", ":3: unknown key 'redirect' in profiles.a; did you mean 'redirects'?"),
        ("profiles:\n  a:\n    name: b\n", ":3: unknown key 'name' in profiles.a"),
        ("profiles:\n  a:\n    pools: maybe\n", ":3: profiles.a.pools must be true or false, not 'maybe'"),
        ("profiles:\n  a:\n    pools:\n", ":3: profiles.a.pools must not be empty"),
        ("profiles:\n  a: yes\n", ":2: profiles.a must be a mapping (key: value), not 'yes'"),
        (
            "profiles:\n  a:\n    reauthorisation: ful\n",
            ":3: profiles.a.reauthorisation must be one of full, answered, none, not 'ful'; did you mean 'full'?",
        ),
        ("profiles:\n  a:\n    shortest_validity_s: -1\n", ":3: profiles.a.shortest_validity_s must be a whole number"),
        ("profiles:\n  a:\n    shortest_validity_s: 3601\n", "from 0 to 3600, not '3601'"),
        ("profiles:\n  A:\n", ":2: 'A' cannot be the name of a profile: small letters, digits"),
        ("profiles:\n  a:\n  a:\n", ":3: key 'a' stands twice in profiles, first on line 2"),
        (
            "profiles:\n  a:\n    recognise: {product: x}\n",
            ":3: unknown key 'product' in profiles.a.recognise; did you mean 'products'?",
        ),
        (
            "profiles:\n  a:\n    recognise: {}\n",
            ":3: profiles.a.recognise would recognise every client; give products, applications or both",
        ),
        ("profiles:\n  a:\n    recognise: {products: [], applications: []}\n", "would recognise every client"),
        ("profiles:\n  a:\n    recognise: {products: x}\n", ":3: profiles.a.recognise.products must be a list"),
        (
            "profiles:\n  a:\n    recognise: {products: ['']}\n",
            ":3: profiles.a.recognise.products[0] must not be empty",
        ),
        ("profiles:\n  a:\n    recognise: {applications: [x]}\n", "applications[0] must be a whole number from 0"),
        ("profiles:\n  a:\n    recognise: {applications: [4294967295]}\n", "applications[0] is the relay application"),
        (
            "profiles:\n  a: {recognise: {products: [Free]}}\n  b: {}\n  c: {recognise: {products: [freeD, free]}}\n",
            ":4: c is never recognised: a, before it, takes every client of its kind",
        ),
        (
            "profiles:\n  a: {recognise: {applications: [4]}}\n  b: {recognise: {applications: [5, 4]}}\n",
            ":3: b is never recognised",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, content)
    assert str(caught.value).startswith("profiles.yaml:")
    assert message in str(caught.value)


def test_a_narrower_profile_may_come_first(tmp_path: Path) -> None:
    content = """
profiles:
  narrow: {recognise: {products: [freeDiameter], applications: [4, 16777238]}}
  other: {recognise: {products: [free], applications: [5]}}
  wide: {recognise: {products: [freeD]}}
  by-application: {recognise: {applications: [4]}}
"""
    assert len([*written(tmp_path, content)]) == 4


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^profiles.yaml: cannot be read: no such file or directory$"):
        Profiles.load(tmp_path / "profiles.yaml")


_KEYS = st.sampled_from(["profiles", "a", "recognise", "products", "applications", "pools", "reauthorisation"])
_VALUES = st.recursive(
    st.sampled_from(["yes", "no", "none", "4", "~", "''", "[]", "4294967296"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(_KEYS, inner, max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=8,
)


@given(st.one_of(_VALUES, _VALUES.map(lambda value: f"profiles: {{a: {value}}}"), st.text(max_size=60)))
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """No exception but ConfigError, whatever stands in the file."""
    path = tmp_path_factory.getbasetemp() / "any-profiles.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        profiles = Profiles.load(path)
    except ConfigError as error:
        said = str(error)
        assert "\n" not in said
    else:
        assert [*profiles]


@given(
    st.text(max_size=20), st.frozensets(st.sampled_from([CREDIT_CONTROL, GX, S6B, CX, RELAY])), st.binary(max_size=20)
)
def test_every_request_gets_a_profile(product_name: str, applications: frozenset[int], origin_host: bytes) -> None:
    """Whatever a peer says of itself, and whatever Origin-Host a request carries."""
    said = Opened(SMF, "example.net", Role.RESPONDER, "127.0.0.1", applications, frozenset((4,)), 0, product_name, None)
    each = chooser(_SHIPPED)
    first = each.choose(said, origin_host)
    assert each.choose(said, origin_host) is first
    assert first in [*_SHIPPED]


_SHIPPED = Profiles.load(SHIPPED)
