"""Settings: every mistake is one sentence that names file, line and what is allowed; nothing is guessed."""

import ipaddress
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.address import Access, Address
from occ import yamlmap
from occ.notices.secret import Secret, SecretError
from occ.settings import Settings, default_config_path, load, of_worker, option_name, variable_name, worker_identity
from occ.yamlmap import ConfigError, Node, leaf_paths, load_yaml, parse_yaml
from protocols.diameter.settings import Admission


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("config/occ.yaml")


def refused(config: Path, content: str, **overrides: str) -> str:
    config.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(config, {name.replace("__", "."): value for name, value in overrides.items()}, environ={})
    return str(caught.value)


def test_the_shipped_file_holds_the_defaults(config: Path) -> None:
    """What its comments promise: whatever is left out has the value shown."""
    config.write_text("")
    empty = load(config, environ={})
    shipped = load(default_config_path(), environ={})
    assert empty.diameter == shipped.diameter
    assert empty.metrics == shipped.metrics
    assert empty.charging == shipped.charging
    assert empty.notices == shipped.notices
    assert empty.log_level == shipped.log_level
    assert empty.store.data_dir == Path.cwd() / "data"
    assert shipped.store.data_dir == default_config_path().parent.parent / "data"
    assert empty.catalogue == Path.cwd() / "config" / "catalogue.yaml"
    assert empty.profiles == default_config_path().parent / "profiles.yaml"
    assert shipped.profiles == default_config_path().parent / "profiles.yaml"
    assert (empty.store.fsync, empty.store.partitions) == (shipped.store.fsync, shipped.store.partitions)
    assert empty.cdr.rotate_bytes == shipped.cdr.rotate_bytes
    shown = [path.rpartition(".")[2] for path in leaf_paths(Settings)]
    text = default_config_path().read_text()
    assert [name for name in shown if f"{name}:" not in text] == []


EXTERNAL = "store: {mode: external, url: 'redis://h', "


def test_stores_of_several_servers_are_read(config: Path) -> None:
    config.write_text(
        """
store:
  mode: sentinel
  sentinels: [s1.example.net, "[2001:db8::1]:26380"]
  master_name: occ
  username: charging
  password_file: secret/redis
  tls: yes
  ca_file: ca.pem
  wait_replicas: 1
  wait_ms: 250
"""
    )
    address = load(config, environ={}).store.address
    here = config.absolute().parent
    access = Access("charging", here / "secret/redis", None, True, here / "ca.pem")
    sentinels = (("s1.example.net", 26379), ("2001:db8::1", 26380))
    assert address == Address(sentinels=sentinels, master_name="occ", access=access, wait_replicas=1, wait_ms=250)
    config.write_text(
        "store: {mode: cluster, cluster_nodes: [r1, 'r2:7000'], password_env: REDIS, hangs_after_ms: 700}"
    )
    address = load(config, environ={}).store.address
    nodes = (("r1", 6379), ("r2", 7000))
    assert address == Address(nodes=nodes, access=Access(password_env="REDIS"), hangs_after_ms=700)


def test_values_are_read(config: Path) -> None:
    config.write_text(
        """
diameter:
  host: "::"
  port: 3_869
  origin_host: ocs2.example.org
  origin_realm: localdomain
  peers:
    mode: strict
    allowed:
      - identity: smf.localdomain
        networks: [192.0.2.0/24, 2001:db8::1]
      - {identity: pgw.example.org, realm: example.org, connect_host: 192.0.2.9, connect_port: 3870}
store:
  mode: external
  url: unix:///run/redis.sock
  data_dir: /var/lib/occ
cdr: {directory: /var/spool/cdr}
log_level: debug
"""
    )
    settings = load(config, environ={})
    assert (settings.diameter.host, settings.diameter.port) == ("::", 3869)
    policy = settings.diameter.peers.policy
    assert policy.admission is Admission.STRICT
    smf, pgw = policy.peers
    assert smf.networks == (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::1/128"))
    assert smf.realm is None
    assert (pgw.realm, pgw.connect_host, pgw.connect_port) == ("example.org", "192.0.2.9", 3870)
    assert settings.store.url == Address(unix_path=Path("/run/redis.sock"))
    assert settings.store.redis_dir == Path("/var/lib/occ/redis")
    assert settings.cdr.directory == Path("/var/spool/cdr")
    assert settings.log_level == "debug"


def test_profiles_are_given_to_clients(config: Path) -> None:
    """Also to one whose requests come through an agent: that one may not connect."""
    config.write_text(
        """
diameter:
  default_profile: strict-3gpp
  peers:
    mode: strict
    allowed:
      - {identity: dra.example.org, networks: [192.0.2.0/24]}
      - {identity: SMF.example.org, profile: open5gs}
      - {identity: scscf.example.org, profile: mine, networks: [192.0.2.1], agent: no}
profiles: ../clients.yaml
"""
    )
    settings = load(config, environ={})
    rules = settings.diameter.peers
    assert settings.diameter.default_profile == "strict-3gpp"
    assert settings.profiles == Path.cwd() / "clients.yaml"
    assert rules.profiles == {"SMF.example.org": "open5gs", "scscf.example.org": "mine"}
    assert rules.no_agents == ["scscf.example.org"]
    assert [peer.identity for peer in rules.policy.peers] == ["dra.example.org", "scscf.example.org"]
    assert rules.policy.objection("smf.example.org", "example.org", "192.0.2.1") is not None
    assert rules.policy.objection("scscf.example.org", "example.org", "192.0.2.1") is None


def test_cdrs_go_where_the_data_goes(config: Path) -> None:
    config.write_text("")
    assert load(config, {"store.data_dir": "elsewhere"}, environ={}).cdr.directory == Path.cwd() / "elsewhere" / "cdr"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("diameter:\n  prot: 1\n", "config/occ.yaml:2: unknown key 'prot' in diameter; did you mean 'port'?"),
        ("\nmetriks: {}\n", "config/occ.yaml:2: unknown key 'metriks'; did you mean 'metrics'?"),
        (
            "cdr:\n  zzz: 1\n",
            (
                "config/occ.yaml:2: unknown key 'zzz' in cdr; known: directory, format, partial_seconds, rotate_bytes, "
                "rotate_seconds"
            ),
        ),
        ("diameter:\n  port: 65536", ":2: diameter.port must be a whole number from 0 to 65535, not '65536'"),
        ("diameter:\n  port: 1e3", ":2: diameter.port must be a whole number from 0 to 65535, not '1e3'"),
        ("diameter:\n  port: [1]", ":2: diameter.port must be a single value, not a list"),
        ("diameter:\n  port:\nmetrics: {}", ":2: diameter.port must not be empty"),
        ("diameter:\n  host: ''", ":2: diameter.host must not be empty"),
        ("diameter:\n  host: 127.0.0.256", "must be an IP address or a host name, not '127.0.0.256'"),
        ("diameter:\n  origin_host: occ1", "must be a fully qualified domain name such as occ1.ocs.example.net"),
        ("diameter:\n  origin_realm: a b", ":2: diameter.origin_realm must be a domain name"),
        ("diameter:\n  watchdog_seconds: 5", "must be a whole number from 6 to 86400, not '5'"),
        ("diameter: 3868", ":1: diameter must be a mapping (key: value), not '3868'"),
        ("- a\n- b", ":1: the file must be a mapping (key: value), not a list"),
        (
            "log_level: Info",
            ":1: log_level must be one of debug, info, warning, error, not 'Info'; did you mean 'info'?",
        ),
        ("store:\n  fsync: no", ":2: store.fsync must be one of always, everysec, not 'no'"),
        ("store:\n\n  mode: external", ":3: store.mode is external, but store.url does not say where the server is"),
        ("store:\n  url: redis://h", "store.url is set, but store.mode is embedded"),
        (
            "store:\n  mode: sentinel\n  sentinels: [h]",
            ":2: store.mode is sentinel, but store.master_name does not say under which name the sentinels know",
        ),
        ("store: {mode: cluster}", ":1: store.mode is cluster, but store.cluster_nodes does not say where nodes"),
        ("store: {mode: cluster, cluster_nodes: ['h:x']}", "must be host:port, not 'h:x'"),
        ("store: {sentinels: [h]}", "store.sentinels is set, but store.mode is embedded; set store.mode to sentinel"),
        (f"{EXTERNAL}username: occ}}", "store.username needs a password: give store.password_file or"),
        (f"{EXTERNAL}password_env: A, password_file: b}}", "store.password_file and store.password_env are both set"),
        (f"{EXTERNAL}password_env: a-b}}", "store.password_env must be the name of an environment variable"),
        (f"{EXTERNAL}tls: yes, certificate: a}}", "a certificate for Redis needs both store.certificate and store.key"),
        (f"{EXTERNAL}ca_file: a}}", "are for TLS; set store.tls to yes as well"),
        ("store: {mode: external, url: 'unix:///s', tls: yes}", "store.url is a Unix socket, which has no TLS"),
        ("store: {tls: yes}", "store.mode is embedded: its Redis has neither TLS, passwords nor replicas"),
        (
            f"{EXTERNAL}wait_replicas: 1, wait_ms: 900, hangs_after_ms: 900}}",
            "store.hangs_after_ms is 900, but up to store.wait_ms, 900, Redis is silent while it waits for replicas",
        ),
        ("store: {wait_replicas: 1}", "store.mode is embedded: its Redis has neither TLS, passwords nor replicas"),
        ("store:\n  url: redis://h:x", ":2: store.url must be redis://host:port or unix:///path/to/socket"),
        ("diameter:\n  peers:\n    mode: strict", ":3: strict mode with an empty list of allowed peers"),
        (
            "diameter:\n  peers:\n    mode: strict\n    allowed: [{identity: a.example.org, profile: lenient}]",
            ":3: strict mode with an empty list of allowed peers",
        ),
        ("diameter:\n  default_profile: ''", ":2: diameter.default_profile must not be empty"),
        ("charging:\n  answer_replay_seconds: 60", "from 240 to 86400"),
        (
            "metrics:\n  prometheus_url: 127.0.0.1:9090",
            ":2: metrics.prometheus_url must be an address such as http://127.0.0.1:9090, not '127.0.0.1:9090'",
        ),
        ("metrics: {prometheus_url: 'http://:9090'}", "metrics.prometheus_url must be an address"),
        ("metrics: {prometheus_url: 'http://host:port'}", "metrics.prometheus_url must be an address"),
        ("metrics: {prometheus_url: 'file:///etc/passwd'}", "metrics.prometheus_url must be an address"),
        ("metrics:\n  port: 1\n  port: 2", ":3: key 'port' stands twice in metrics, first on line 2"),
        ("metrics:\n  <<: {port: 1}", ":2: unknown key '<<' in metrics"),
        ("metrics: !!python/name:os.system\n  port: 1", ":1: the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("metrics:\n\tport: 1", ":2: is not valid YAML"),
        ("metrics: {port: 1", "is not valid YAML"),
        ("a: &x 1\nb: *y", ":2: is not valid YAML"),
        ("---\na: 1\n---\nb: 1", ":3: is not valid YAML: expected a single document"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(config: Path, content: str, message: str) -> None:
    assert message in refused(config, content)


@pytest.mark.parametrize(
    ("peer", "line", "message"),
    [
        ("{realm: example.org}", 4, "key 'identity' is missing in diameter.peers.allowed[0]"),
        ("{identity: smf.example.org}", 4, "can neither connect nor be dialed; give it networks or connect_host"),
        ("{identity: smf.example.org, networks: [192.0.2.1/24]}", 4, "has host bits set"),
        ("{identity: smf.example.org, networks: 192.0.2.1}", 4, "must be a list"),
        ("{identity: smf.example.org, realm: example.org, profile: lenient}", 4, "can neither connect nor be dialed"),
        ("{identity: smf.example.org, networks: [], profile: lenient}", 4, "can neither connect nor be dialed"),
        ("{identity: smf.example.org, profile: }", 4, "diameter.peers.allowed[0].profile must not be empty"),
        ("{identity: smf.example.org, networks: [192.0.2.1], agent: never}", 4, "agent must be true or false"),
        ("{identity: smf.example.org, profile: [a]}", 4, "profile must be a single value, not a list"),
        (
            "{identity: a.example.org, networks: [192.0.2.1]}\n     - {identity: A.example.org, profile: lenient}",
            3,
            "peer a.example.org is listed twice; list each identity once, with all that is said of it",
        ),
        ("{identity: smf, networks: [192.0.2.1]}", 4, "diameter.peers.allowed[0].identity must be a fully"),
        (
            "{identity: a.example.org, networks: [192.0.2.1]}\n     - {identity: A.example.org, networks: [192.0.2.1]}",
            3,
            "twice",
        ),
        (
            "{identity: smf.example.org, addresses: [192.0.2.1]}",
            4,
            "unknown key 'addresses' in diameter.peers.allowed[0]",
        ),
    ],
)
def test_a_mistake_in_a_peer(config: Path, peer: str, line: int, message: str) -> None:
    said = refused(config, f"diameter:\n  peers:\n    allowed:\n     - {peer}\n")
    assert said.startswith(f"config/occ.yaml:{line}: ")
    assert message in said


def test_a_file_that_is_not_there_or_no_text(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config/occ.yaml: cannot be read: no such file or directory$"):
        load(config, environ={})
    config.write_bytes(b"metrics:\n  host: \xff\n")
    with pytest.raises(ConfigError, match=r"^config/occ.yaml:2: is not UTF-8 text$"):
        load(config, environ={})
    config.write_bytes(b"metrics:\n  host: \x00\n")
    with pytest.raises(ConfigError, match=r"^config/occ.yaml.*is not valid YAML"):
        load(config, environ={})


def test_nesting_without_end_is_refused(config: Path) -> None:
    assert "is not valid YAML" in refused(config, "[" * 50_000)


def test_options_win_over_the_environment_and_that_over_the_file(config: Path) -> None:
    config.write_text("metrics: {port: 1000}\ndiameter: {port: 1000}\ncharging: {tcc_factor: 3}\n")
    environ = {"OCC_METRICS_PORT": "2000", "OCC_DIAMETER_PORT": "2000", "OCC_LOG_LEVEL": "", "PATH": "/bin"}
    settings = load(config, {"diameter.port": "3000"}, environ)
    assert (settings.charging.tcc_factor, settings.metrics.port, settings.diameter.port) == (3, 2000, 3000)
    assert settings.log_level == "info"


def test_the_environment_names_the_file(config: Path) -> None:
    config.write_text("metrics: {port: 1000}")
    assert load(environ={"OCC_CONFIG": str(config)}).metrics.port == 1000


def test_relative_paths_start_where_they_are_written(config: Path) -> None:
    config.write_text("store: {data_dir: d}\ncatalogue: c.yaml\n")
    here = Path.cwd()
    from_file = load(config, environ={})
    assert (from_file.store.data_dir, from_file.catalogue) == (here / "config/d", here / "config/c.yaml")
    overridden = load(config, {"catalogue": "c.yaml"}, {"OCC_STORE_DATA_DIR": "d"})
    assert (overridden.store.data_dir, overridden.catalogue) == (here / "d", here / "c.yaml")


def test_a_mistake_outside_the_file_names_the_variable_or_the_option(config: Path) -> None:
    config.write_text("")
    with pytest.raises(ConfigError, match=r"^OCC_DIAMETER_PROT: .*did you mean 'OCC_DIAMETER_PORT'\?$"):
        load(config, environ={"OCC_DIAMETER_PROT": "1"})
    with pytest.raises(ConfigError, match=r"^OCC_DIAMETER_PORT: diameter.port must be a whole number from 0 to"):
        load(config, environ={"OCC_DIAMETER_PORT": "x"})
    assert refused(config, "", metrics__port="x").startswith("--metrics-port: metrics.port must be a whole")
    assert "there is no such setting; did you mean 'metrics.port'?" in refused(config, "", metrics__prot="1")
    said = refused(config, "", diameter__peers__mode="strict")
    assert said.startswith("--diameter-peers-mode: strict mode with an empty list")
    assert "must be a list" in refused(config, "", diameter__peers__allowed="smf.example.org")


def test_settings_that_only_fit_together_can_come_from_two_places(config: Path) -> None:
    config.write_text("store: {url: 'redis://store:6379'}\n")
    assert load(config, environ={"OCC_STORE_MODE": "external"}).store.url == Address(host="store", port=6379)


def test_every_setting_has_a_variable_and_an_option_of_its_own() -> None:
    paths = leaf_paths(Settings)
    assert variable_name("store.data_dir") == "OCC_STORE_DATA_DIR"
    assert option_name("store.data_dir") == "--store-data-dir"
    assert len({variable_name(path) for path in paths}) == len({option_name(path) for path in paths}) == len(paths)


# The reader itself.


@dataclass(frozen=True)
class Inner:
    amount: int = yamlmap.required(yamlmap.integer(0))


@dataclass(frozen=True)
class Outer:
    name: str = yamlmap.required(yamlmap.text())
    inner: tuple[Inner, ...] = yamlmap.setting(yamlmap.list_of(lambda node: yamlmap.build(node, Inner)), ())


def parse(content: str) -> Node:
    return parse_yaml(content, "test.yaml", Path("/base"))


def test_dataclasses_are_built_from_mappings() -> None:
    assert yamlmap.build(parse("name: 017\ninner: [{amount: 1}, {amount: 2}]"), Outer) == Outer(
        "017", (Inner(1), Inner(2))
    )
    with pytest.raises(ConfigError, match=r"^test.yaml:3: key 'amount' is missing in inner\[1\]$"):
        yamlmap.build(parse("name: x\ninner: [{amount: 1},\n {}]"), Outer)
    with pytest.raises(ConfigError, match=r"^test.yaml:1: key 'name' is missing$"):
        yamlmap.build(parse("inner: []"), Outer)


def test_text_is_what_is_written() -> None:
    """Neither the country code of Norway nor a leading zero, a date or a large number becomes something else."""
    for written in ("no", "0491", "2026-01-01", "262010000000001", "0x10", "1:30"):
        assert parse(f"key: {written}").mapping(["key"])["key"].text() == written


def test_keys_of_the_users_own_keep_order_and_lines() -> None:
    pairs = parse("b: 1\na: 2\n").table()
    assert [(key.text(), key.line, value.integer()) for key, value in pairs] == [("b", 1, 1), ("a", 2, 2)]
    assert parse("").table() == []
    assert parse("").items() == []


@pytest.mark.parametrize("written", ["1e3", ".5", "5.", "+1", "inf", "nan", "0x1", "01", "1__0", "", "1 0", "9" * 50])
def test_what_is_no_number(written: str) -> None:
    node = parse(f"key: '{written}'").mapping(["key"])["key"]
    with pytest.raises(ConfigError, match=r"^test.yaml:1: key must"):
        node.integer()
    with pytest.raises(ConfigError, match=r"^test.yaml:1: key must"):
        node.decimal()


def test_ranges_are_told() -> None:
    node = parse("price: 1.5").mapping(["price"])["price"]
    assert node.decimal(0, 2) == Decimal("1.5")
    with pytest.raises(ConfigError, match=r"price must be a decimal number of at least 2, not '1.5'"):
        node.decimal(minimum=2)
    with pytest.raises(ConfigError, match=r"price must be a decimal number of at most 1, not '1.5'"):
        node.decimal(maximum=1)


@pytest.mark.parametrize(("written", "value"), [("true", True), ("No", False), ("on", True), ("off", False)])
def test_booleans(written: str, value: bool) -> None:
    assert parse(f"key: {written}").mapping(["key"])["key"].boolean() is value
    with pytest.raises(ConfigError, match="must be true or false, not 'maybe'"):
        parse("key: maybe").mapping(["key"])["key"].boolean()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**15), max_value=10**15))
def test_decimals_are_exact(value: Decimal) -> None:
    assert parse(f"key: {value:f}").mapping(["key"])["key"].decimal() == value


@given(st.binary(max_size=200) | st.text("{}[]:-&*!|>'\"\n\t #ab1", max_size=60).map(str.encode))
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No exception but ConfigError, whatever stands in the file."""
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        load(file, environ={})
    except ConfigError as error:
        said = str(error)
        assert "\n" not in said
    try:
        for key, value in load_yaml(file).table():
            assert key.line is not None
            value.text()
    except ConfigError:
        pass


# -- notices -----------------------------------------------------------------------------------------------------------


def test_channels_of_notices_are_read(config: Path) -> None:
    (config.parent / "smsc.pw").write_text("secret")
    config.write_text(
        """
notices:
  language: ru
  quiet_hours: none
  templates: ../texts
  log: {enabled: no}
  smpp: {enabled: yes, host: smsc.example.net, password_file: smsc.pw, source: "+7495"}
  sms_http: {enabled: yes, body: "to={{ to }}", body_type: form}
  telegram: {enabled: yes, token_env: BOT_TOKEN}
"""
    )
    notices = load(config, {"notices.smpp.port": "2776"}, environ={"OCC_NOTICES_SMPP_SYSTEM_ID": "me"}).notices
    assert notices.channels == ("smpp", "sms_http", "telegram")
    assert (notices.language, notices.quiet_hours) == ("ru", (0, 0))
    assert notices.templates == Path.cwd() / "texts"
    assert (notices.smpp.port, notices.smpp.system_id) == (2776, "me")
    assert notices.smpp.password.read() == "secret"
    assert notices.telegram.token.read({"BOT_TOKEN": "123:abc"}) == "123:abc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("  language: English\n", "config/occ.yaml:2: notices.language must be a language such as en or de"),
        ("  time_zone: Mars\n", "config/occ.yaml:2: notices.time_zone must be a time zone such as Europe/Berlin"),
        ("  quiet_hours: 21-8\n", "config/occ.yaml:2: notices.quiet_hours: '21-8' are no quiet hours such as"),
        ("  smpp:\n    prot: 1\n", "config/occ.yaml:3: unknown key 'prot' in notices.smpp; did you mean 'port'?"),
        ("  smpp:\n    password: hunter2\n", "config/occ.yaml:3: unknown key 'password' in notices.smpp"),
        ("  smpp:\n    enabled: yes\n", "config/occ.yaml:3: notices.smpp.password is needed: name a file with"),
        ("  smpp:\n    source: much-too-long\n", "config/occ.yaml:3: notices.smpp.source must be a number, or a name"),
        (
            "  telegram:\n    token_env: 123456:ABC-hunter2\n",
            "config/occ.yaml:3: notices.telegram.token_env must be the name of an environment variable, not a secret",
        ),
        ("  telegram: {token_env: OCC_T}\n", "config/occ.yaml:2: notices.telegram.token_env must not begin with OCC_"),
        (
            "  telegram: {token_env: A, token_file: b}\n",
            "config/occ.yaml:2: notices.telegram: give token_file or token_env, not both",
        ),
        ("  telegram:\n    base_url: api.telegram.org\n", "config/occ.yaml:3: notices.telegram.base_url must be a URL"),
        ("  email: {username: x}\n", "config/occ.yaml:2: notices.email needs username and password together"),
        (
            "  email: {username: x, password_env: P, tls: none}\n",
            "config/occ.yaml:2: notices.email.tls is none: a password is not sent in the clear",
        ),
        ("  email:\n    sender: nobody\n", "config/occ.yaml:3: notices.email.sender must be an address such as"),
        ("  sms_http:\n    url: http://x/{{ too }}\n", "config/occ.yaml:3: notices.sms_http.url: there is no too"),
        (
            "  sms_http: {body: 'to={{ to }}'}\n",
            "config/occ.yaml:2: notices.sms_http.body: what comes out is no JSON",
        ),
        (
            "  sms_http: {body_type: form, body: '{{ recipient }}'}\n",
            "config/occ.yaml:2: notices.sms_http.body: there is no recipient to put in",
        ),
        ("  retry: {longest_seconds: 1}\n", "config/occ.yaml:2: notices.retry.longest_seconds is less than"),
    ],
)
def test_mistakes_in_the_settings_of_notices(config: Path, content: str, message: str) -> None:
    """None repeats what may be a secret in the wrong place."""
    found = refused(config, f"notices:\n{content}")
    assert found.startswith(message)
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "no secret"), (b"two\nlines\n", "no secret"), (b"\xff", "UTF-8"), (b"x" * 9000, "no s")],
)
def test_a_secret_is_one_line(config: Path, content: bytes, reason: str) -> None:
    path = config.parent / "secret"
    path.write_bytes(content)
    with pytest.raises(SecretError, match=reason):
        Secret("notices.smpp.password", path, None).read()


# -- several workers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "others"),
    [
        ("occ1.ocs.example.net", ["occ1.ocs.example.net", "occ2.ocs.example.net", "occ3.ocs.example.net"]),
        ("ocs.example.net", ["ocs.example.net", "ocs2.example.net", "ocs3.example.net"]),
        ("a-09.example.net", ["a-09.example.net", "a-10.example.net", "a-11.example.net"]),
        ("7.example.net", ["7.example.net", "8.example.net", "9.example.net"]),
    ],
)
def test_each_worker_has_an_identity_of_its_own(first: str, others: list[str]) -> None:
    """RFC 6733 section 5.6: one connection between two identities."""
    assert [worker_identity(first, number) for number in (1, 2, 3)] == others


def test_each_worker_has_ports_of_its_own(config: Path) -> None:
    config.write_text("workers: 3\ndiameter: {port: 4000}\nmetrics: {port: 0, targets_file: targets.yml}\n")
    settings = load(config, environ={})
    second = of_worker(settings, 2)
    assert (settings.workers, second.workers) == (3, None)
    assert (second.diameter.port, second.diameter.tls.port, second.metrics.port) == (4001, 5869, 0)
    assert second.diameter.origin_host == "occ2.ocs.example.net"
    assert second.diameter.origin_realm == settings.diameter.origin_realm
    assert settings.metrics.targets_file is not None
    assert settings.metrics.targets_file.resolve() == config.parent.resolve() / "targets.yml"
    assert of_worker(settings, 1).diameter == settings.diameter


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("workers: 0", "workers must be a whole number from 1 to 64, not '0'"),
        ("workers: 2\ndiameter: {port: 9463}", "2 workers need as many ports from diameter.port 9463 on, and 9463 is"),
        ("workers: 3\ndiameter: {port: 9462}", "and 9463 is taken by api.port"),
        ("workers: 2\ndiameter: {port: 9464}", "and 9464 is taken by diameter.port"),
        (
            "workers: 2\nmetrics: {port: 65535}",
            "2 workers need as many ports from metrics.port 65535 on: there are not",
        ),
        (
            f"workers: 2\ndiameter: {{origin_host: {'a' * 63}.example.net}}",
            f"the last worker would be {'a' * 63}2.example.net, which is no domain name",
        ),
    ],
)
def test_workers_that_cannot_be(config: Path, content: str, message: str) -> None:
    config.write_text(content + "\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(config, environ={})
