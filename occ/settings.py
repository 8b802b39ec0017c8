"""The server's settings: `config/occ.yaml`, then `OCC_…` environment variables, then options; the last wins.

Every setting is checked when it is loaded; a mistake is a `ConfigError` that says where it stands and what is
allowed there.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from balance.address import Access, Address, HostPort, parse_host_port
from occ.notices.settings import NoticesSettings
from occ.rating.currency import parse_amount
from occ.yamlmap import (
    ConfigError,
    Node,
    Reader,
    build,
    choice,
    integer,
    leaf_paths,
    list_of,
    load_yaml,
    nearest,
    optional,
    section,
    setting,
    shown,
    text,
)
from protocols.diameter.settings import Admission, AllowedPeer, PeerPolicy

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

ENVIRONMENT_PREFIX: Final = "OCC_"
CONFIG_VARIABLE: Final = "OCC_CONFIG"
TOKEN_VARIABLE: Final = "OCC_TOKEN"
TOKEN_FILE_VARIABLE: Final = "OCC_TOKEN_FILE"
_NO_SETTINGS: Final = frozenset((CONFIG_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE))
"""Variables with the prefix that are none."""
DIAMETER_PORT: Final = 3868
DIAMETER_TLS_PORT: Final = 5868
JOURNAL_DAYS: Final = 8
"""Fewest days that records stay in Redis: a day longer than references of payments count (``balance.directory``)."""
MOST_WORKERS: Final = 64
HIGHEST_PORT: Final = 65_535
_BESIDE: Final = Path(__file__).resolve().parent.parent / "config"
IS_INSTALLED: Final = not (_BESIDE / "occ.yaml").is_file()
"""There is no checkout of the project around this package, which came as a wheel."""
SHIPPED: Final = Path(__file__).resolve().parent / "config" if IS_INSTALLED else _BESIDE
"""The configuration that comes with the project."""

_PEER_KEYS: Final = ("identity", "realm", "networks", "connect_host", "connect_port", "tls")
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def _is_domain_name(written: str, labels: int) -> bool:
    parts = written.split(".")
    return len(written) <= 255 and len(parts) >= labels and all(_LABEL.fullmatch(part) for part in parts)


def _identity(node: Node) -> str:
    """DiameterIdentity of a node (RFC 6733, 4.3.1): a fully qualified domain name, in ASCII."""
    written = node.text()
    if not _is_domain_name(written, labels=2):
        raise node.error(
            f"{node.path} must be a fully qualified domain name such as occ1.ocs.example.net, not {written!r}"
        )
    return written


def _realm(node: Node) -> str:
    written = node.text()
    if not _is_domain_name(written, labels=1):
        raise node.error(f"{node.path} must be a domain name such as ocs.example.net, not {written!r}")
    return written


def _host(node: Node) -> str:
    written = node.text()
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        pass
    # Digits and dots alone are a mistyped address, not a name.
    if not _is_domain_name(written, labels=1) or not re.search("[A-Za-z]", written):
        raise node.error(f"{node.path} must be an IP address or a host name, not {written!r}") from None
    return written


def _network(node: Node) -> IPNetwork:
    written = node.text()
    try:
        return ipaddress.ip_network(written)
    except ValueError as error:
        raise node.error(
            f"{node.path} must be an IP address or a network such as 192.0.2.0/24, not {written!r} ({error})"
        ) from None


def _address(node: Node) -> Address:
    try:
        return Address.parse(node.text())
    except ValueError as error:
        raise node.error(f"{node.path} {error}") from None


def _server(default_port: int) -> Reader[HostPort]:
    def read(node: Node) -> HostPort:
        try:
            return parse_host_port(node.text(), default_port)
        except ValueError as error:
            raise node.error(f"{node.path} {error}") from None

    return read


def _boolean(node: Node) -> bool:
    return node.boolean()


def _web_address(node: Node) -> str:
    written = node.text()
    try:
        parts = urlsplit(written)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        fits = fits and not parts.query and not parts.fragment and not re.search(r"\s", written)
    except ValueError:  # a port that is none, or brackets that do not match
        fits = False
    if not fits:
        raise node.error(f"{node.path} must be an address such as http://127.0.0.1:9090, not {written!r}")
    return written.rstrip("/")


def _amount(node: Node) -> int:
    try:
        micro = parse_amount(node.text())
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if micro < 0:
        raise node.error(f"{node.path} must not be below zero")
    return micro


def _keep_days(node: Node) -> int:
    days = node.integer(0, 36_500)
    if 0 < days < JOURNAL_DAYS:
        raise node.error(
            f"{node.path} must be {JOURNAL_DAYS} or more, or 0 for ever: by the journal of the last days repeated "
            "payments and imports are recognised"
        )
    return days


def _variable(node: Node) -> str:
    written = node.text()
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", written):
        raise node.error(f"{node.path} must be the name of an environment variable, not {written[:40]!r}")
    return written


def _path(node: Node) -> Path:
    return node.file_path()


def _path_or_none(node: Node) -> Path | None:
    """A path; ``none`` where a variable or an option stands in for the file's."""
    return None if node.is_null or node.text() == "none" else node.file_path()


def _written_path(node: Node) -> Path:
    return Path(node.text()).expanduser()


@dataclass(frozen=True, slots=True)
class ListedPeer:
    """One entry of `diameter.peers.allowed`."""

    identity: str
    """Its Origin-Host, compared without regard to case."""
    profile: str | None
    """Name of the profile its requests are answered by (`occ.profiles`); None: it is recognised by its CER."""
    requests_per_second: int | None
    """Beyond which its requests are refused; None: as for all peers."""
    agent: bool
    """It may pass on requests of others, under their Origin-Hosts."""
    admitted: AllowedPeer | None
    """How it comes in; None: it has no connection of its own that needs permission, its requests come through an
    agent, or from loopback in lab mode."""


def _listed_peer(node: Node) -> ListedPeer:
    of_requests = ("profile", "requests_per_second", "agent")
    known = node.mapping((*_PEER_KEYS, *of_requests), required=["identity"])
    identity = _identity(known["identity"])
    profile = known["profile"].text() if "profile" in known else None
    rate = _rate(known["requests_per_second"]) if "requests_per_second" in known else None
    agent = known["agent"].boolean() if "agent" in known else True
    named_only = len(known) > 1 and known.keys() <= {"identity", *of_requests}
    return ListedPeer(identity, profile, rate, agent, None if named_only else _allowed_peer(node, identity, known))


_rate = integer(1, 1_000_000)


def _allowed_peer(node: Node, identity: str, known: Mapping[str, Node]) -> AllowedPeer:
    try:
        return AllowedPeer(
            identity=identity,
            realm=_realm(known["realm"]) if "realm" in known else None,
            networks=list_of(_network)(known["networks"]) if "networks" in known else (),
            connect_host=_host(known["connect_host"]) if "connect_host" in known else None,
            connect_port=known["connect_port"].integer(1, 65535) if "connect_port" in known else DIAMETER_PORT,
            tls=known["tls"].boolean() if "tls" in known else False,
        )
    except ValueError as error:
        raise node.error(str(error)) from None


@dataclass(frozen=True, slots=True)
class PeerRules:
    """Who may connect over Diameter."""

    mode: str = setting(choice("lab", "strict"), "lab")
    """"lab": any peer of any realm from loopback; "strict": those listed, each from its networks."""
    allowed: tuple[ListedPeer, ...] = setting(list_of(_listed_peer), ())
    """Peers that may connect (in strict mode), peers that are dialed (in both), and the profiles of clients, also of
    those behind an agent."""
    requests_per_second: int | None = setting(optional(_rate), None)
    """Of each peer that has no rate of its own; further ones are refused. None: as many as they like."""

    def __post_init__(self) -> None:
        if self.mode == "strict" and not self.policy.peers:
            raise ValueError(
                "strict mode with an empty list of allowed peers lets nobody in; list a peer with its networks"
            )
        identities = [peer.identity.lower() for peer in self.allowed]
        for identity in identities:
            if identities.count(identity) > 1:
                raise ValueError(
                    f"peer {identity} is listed twice; list each identity once, with all that is said of it"
                )

    @property
    def policy(self) -> PeerPolicy:
        """These rules as `protocols.diameter` takes them."""
        return PeerPolicy(Admission(self.mode), tuple(peer.admitted for peer in self.allowed if peer.admitted))

    @property
    def profiles(self) -> dict[str, str]:
        """Names of profiles by the Origin-Hosts they are given to, as written."""
        return {peer.identity: peer.profile for peer in self.allowed if peer.profile is not None}

    @property
    def no_agents(self) -> list[str]:
        """Identities, as written, that may send requests under their own Origin-Host alone."""
        return [peer.identity for peer in self.allowed if not peer.agent]

    @property
    def rates(self) -> dict[str, int]:
        """Requests per second by the identities that have a rate of their own, as written."""
        return {
            peer.identity: peer.requests_per_second for peer in self.allowed if peer.requests_per_second is not None
        }


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """A second Diameter listener, with TLS 1.3 from the first octet and certificates on both sides."""

    port: int = setting(integer(0, 65535), DIAMETER_TLS_PORT)
    """TCP port; 0: any free port."""
    certificate: Path | None = setting(optional(_path), None)
    """PEM file with this node's certificate and what it was issued by; None: there is no such listener."""
    key: Path | None = setting(optional(_path), None)
    """PEM file with its private key."""
    key_password_file: Path | None = setting(optional(_path), None)
    """File whose first line unlocks the key; None: it is not locked."""
    trusted: Path | None = setting(optional(_path), None)
    """PEM file with the certificates that peers' certificates are issued by."""

    def __post_init__(self) -> None:
        given = {"certificate": self.certificate, "key": self.key, "trusted": self.trusted}
        missing = [name for name, value in given.items() if value is None]
        if missing and (len(missing) < len(given) or self.key_password_file is not None):
            raise ValueError(f"TLS needs certificate, key and trusted; {' and '.join(missing)} is missing")


@dataclass(frozen=True, slots=True)
class DiameterSettings:
    """The Diameter listener and this node's identity (RFC 6733)."""

    host: str = setting(_host, "127.0.0.1")
    port: int = setting(integer(0, 65535), DIAMETER_PORT)
    """TCP port; 0: any free port."""
    origin_host: str = setting(_identity, "occ1.ocs.example.net")
    origin_realm: str = setting(_realm, "ocs.example.net")
    watchdog_seconds: int = setting(integer(6, 86_400), 30)
    """Tw, the watchdog's interval; 6 s is the floor of RFC 3539, 3.4.1."""
    max_message_bytes: int = setting(integer(4096, 0xFFFFFC), 65_536)
    """Longest message accepted; the header's length field (RFC 6733, 3) bounds it."""
    default_profile: str = setting(text(), "lenient")
    """Profile (`occ.profiles`) of clients that have none of their own and are not recognised by their CER."""
    tls: TlsSettings = section(TlsSettings)
    peers: PeerRules = section(PeerRules)

    def __post_init__(self) -> None:
        for peer in self.peers.policy.peers:
            if peer.tls and self.tls.certificate is None:
                raise ValueError(f"peer {peer.identity} is to use TLS, but diameter.tls names no certificate")


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The HTTP listener of `/metrics` and of the NOC page, `/noc`."""

    host: str = setting(_host, "127.0.0.1")
    port: int = setting(integer(0, 65535), 9464)
    """TCP port; 0: any free port."""
    prometheus_url: str | None = setting(optional(_web_address), None)
    """Where the NOC page asks which alerts fire; None: it does not."""
    targets_file: Path | None = setting(_path_or_none, None)
    """The supervisor of workers writes their metrics listeners into this file for Prometheus (``file_sd_configs``);
    None: into none. Absolute once loaded."""


_NEEDED: Final[dict[str, dict[str, str]]] = {
    "embedded": {},
    "external": {"url": "where the server is"},
    "sentinel": {
        "sentinels": "where the sentinels are",
        "master_name": "under which name the sentinels know the primary",
    },
    "cluster": {"cluster_nodes": "where nodes of the cluster are"},
}
"""By `store.mode`, what else must be given, and what it says."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Redis: a private one that starts and stops with the server, or one that is there (docs/store.md)."""

    mode: str = setting(choice(*_NEEDED), "embedded")
    url: Address | None = setting(optional(_address), None)
    """The external server, written `redis://host:port` or `unix:///path`; never with a password."""
    sentinels: tuple[HostPort, ...] = setting(list_of(_server(26379)), ())
    """They tell which server is the primary of `master_name`."""
    master_name: str | None = setting(optional(text()), None)
    cluster_nodes: tuple[HostPort, ...] = setting(list_of(_server(6379)), ())
    """Some of them; they know the others."""
    username: str | None = setting(optional(text()), None)
    """A user of Redis's access control list; None: the default user."""
    password_file: Path | None = setting(optional(_path), None)
    password_env: str | None = setting(optional(_variable), None)
    tls: bool = setting(_boolean, False)
    """To the servers, and to the sentinels."""
    ca_file: Path | None = setting(optional(_path), None)
    """Who must have issued the servers' certificates; None: whom this machine trusts."""
    certificate: Path | None = setting(optional(_path), None)
    key: Path | None = setting(optional(_path), None)
    """For servers that want a certificate of their clients."""
    wait_replicas: int = setting(integer(0, 100), 0)
    """So many replicas must have a debit before it is answered."""
    wait_ms: int = setting(integer(1, 60_000), 1000)
    """Longest wait for them; then the request is answered as if the store were away."""
    server_binary: str | None = setting(optional(text()), None)
    """Program of the embedded server, a path or a name on PATH; None: the first that is found."""
    data_dir: Path = setting(_path, Path("../data"))
    """Absolute once loaded."""
    fsync: str = setting(choice("always", "everysec"), "always")
    partitions: int = setting(integer(1, 9999), 64)
    """Hash tags that accounts are spread over; fixed once there is data."""
    away_journal_bytes: int = setting(integer(1 << 16, 1 << 40), 1 << 28)
    """How large the journal of requests grows that are answered while the store cannot be reached."""

    def __post_init__(self) -> None:
        given = {
            "url": self.url is not None,
            "sentinels": bool(self.sentinels),
            "master_name": self.master_name is not None,
            "cluster_nodes": bool(self.cluster_nodes),
        }
        for name, is_given in given.items():
            if is_given and name not in _NEEDED[self.mode]:
                (wanted,) = (mode for mode, needed in _NEEDED.items() if name in needed)
                raise ValueError(
                    f"store.{name} is set, but store.mode is {self.mode}; set store.mode to {wanted} as well"
                )
            if name in _NEEDED[self.mode] and not is_given:
                raise ValueError(f"store.mode is {self.mode}, but store.{name} does not say {_NEEDED[self.mode][name]}")
        self._check_access()

    def _check_access(self) -> None:
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("store.password_file and store.password_env are both set; give one of them")
        if self.username is not None and self.password_file is None and self.password_env is None:
            raise ValueError("store.username needs a password: give store.password_file or store.password_env")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate for Redis needs both store.certificate and store.key")
        if not self.tls and (self.ca_file is not None or self.certificate is not None):
            raise ValueError("store.ca_file, store.certificate and store.key are for TLS; set store.tls to yes as well")
        if self.tls and self.url is not None and self.url.unix_path is not None:
            raise ValueError("store.url is a Unix socket, which has no TLS; set store.tls to no")
        if self.mode == "embedded" and (self.tls or self.wait_replicas or self.password_file or self.password_env):
            raise ValueError(
                "store.mode is embedded: its Redis has neither TLS, passwords nor replicas; leave store.tls, "
                "store.password_file, store.password_env and store.wait_replicas out"
            )

    @property
    def address(self) -> Address | None:
        """How the store is reached; None: it is embedded."""
        if self.mode == "embedded":
            return None
        access = Access(
            self.username, self.password_file, self.password_env, self.tls, self.ca_file, self.certificate, self.key
        )
        return replace(
            self.url or Address(),
            sentinels=self.sentinels,
            master_name=self.master_name or "",
            nodes=self.cluster_nodes,
            access=access,
            wait_replicas=self.wait_replicas,
            wait_ms=self.wait_ms,
        )

    @property
    def redis_dir(self) -> Path:
        """Where the embedded server keeps its files."""
        return self.data_dir / "redis"

    @property
    def away_dir(self) -> Path:
        """Where servers keep the journals of what they answer without the store."""
        return self.data_dir / "away"

    def away_journal(self, origin_host: str) -> Path:
        """The journal of one server."""
        return self.away_dir / f"{origin_host}.journal"


@dataclass(frozen=True, slots=True)
class ChargingSettings:
    """Sessions, repeats and admission."""

    answer_replay_seconds: int = setting(integer(240, 86_400), 300)
    """How long a repeat gets the first answer; RFC 6733, 3 asks for 4 minutes."""
    tcc_factor: int = setting(integer(1, 10), 2)
    """Tcc in Validity-Times (RFC 8506, 13 recommends 2)."""
    late_termination_seconds: int = setting(integer(1, 604_800), 3600)
    """How long after Tcc the usage of a termination request is still debited."""
    refund_window_seconds: int = setting(integer(1, 30 * 86_400), 86_400)
    """How long a direct debit can be refunded; it is kept in the store for so long."""
    low_balance: int = setting(_amount, 0)
    """Below this, in micro-units of the catalogue's currency, clients are told that the balance is low; 0: never."""
    prepaid_valid_days: int = setting(integer(0, 36_500), 0)
    """How long, in days of 24 hours, a prepaid account is in service after it was created or topped up; 0: for ever."""
    grace_days: int = setting(integer(0, 36_500), 0)
    """How long after that a top-up still brings it back; then it is terminated."""
    in_flight_limit: int = setting(integer(1, 1_000_000), 2000)
    """Requests under way at once; beyond it the oldest first requests that wait are answered DIAMETER_TOO_BUSY."""
    queue_delay_ms: int = setting(integer(1, 60_000), 200)
    """How long a first request may wait to be begun, an eighth of it where the queue lasts (`occ.admission`)."""
    account_cache_entries: int = setting(integer(0, 100_000_000), 100_000)
    """Account snapshots a worker keeps; 0: none."""


@dataclass(frozen=True, slots=True)
class CdrSettings:
    """Charging data records."""

    directory: Path = setting(_written_path, Path("cdr"))
    """Absolute once loaded; a relative one starts at `store.data_dir`."""
    format: str = setting(choice("jsonl", "csv", "both"), "jsonl")
    rotate_bytes: int = setting(integer(4096, 1 << 40), 1 << 26)
    """A file is closed when it has grown to this."""
    rotate_seconds: int = setting(integer(1, 86_400 * 7), 3600)
    """A file is closed when it is this old."""
    partial_seconds: int = setting(integer(0, 86_400 * 7), 3600)
    """A session that goes on for so long has a partial record, and another when its price changes; 0: never."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Those that `format` stands for."""
        return ("jsonl", "csv") if self.format == "both" else (self.format,)


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """What becomes of the ledger's history."""

    directory: Path = setting(_written_path, Path("journal"))
    """Files of records that have left Redis. Absolute once loaded; a relative one starts at `store.data_dir`."""
    keep_days: int = setting(_keep_days, 31)
    """How long records stay in Redis, in days of 24 hours; 0: for ever."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The management API, a process of its own (`occ api`)."""

    host: str = setting(_host, "127.0.0.1")
    port: int = setting(integer(0, 65535), 9463)
    """TCP port; 0: any free port."""
    certificate: Path | None = setting(optional(_path), None)
    """PEM file with its certificate and what that was issued by; None: HTTP without TLS."""
    key: Path | None = setting(optional(_path), None)
    """PEM file with its private key."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("TLS of the API needs both api.certificate and api.key")
        if self.certificate is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"api.host {self.host} can be reached from elsewhere, and tokens must not travel in the clear: "
                "give api.certificate and api.key, or listen on 127.0.0.1 behind a proxy that has TLS"
            )


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """The commands of `occ` that use the store."""

    tokens: str = setting(choice("optional", "required"), "optional")
    """"required": each takes a token whose role allows it (`occ.cli_roles`)."""


@dataclass(frozen=True, slots=True)
class VoucherSettings:
    """Codes that are worth money once."""

    pepper_file: Path = setting(_written_path, Path("voucher-pepper"))
    """The secret under which codes are kept; made when it is needed first. Absolute once loaded; a relative one
    starts at `store.data_dir`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one server process."""

    workers: int | None = setting(optional(integer(1, MOST_WORKERS)), None)
    """So many processes charge, under a supervisor (`occ.supervisor`) that replaces them one by one when asked; None:
    the process that is started charges itself."""
    diameter: DiameterSettings = section(DiameterSettings)
    metrics: MetricsSettings = section(MetricsSettings)
    store: StoreSettings = section(StoreSettings)
    charging: ChargingSettings = section(ChargingSettings)
    cdr: CdrSettings = section(CdrSettings)
    journal: JournalSettings = section(JournalSettings)
    notices: NoticesSettings = section(NoticesSettings)
    api: ApiSettings = section(ApiSettings)
    cli: CommandSettings = section(CommandSettings)
    vouchers: VoucherSettings = section(VoucherSettings)
    catalogue: Path = setting(_path, Path("catalogue.yaml"))
    """The tariff catalogue; absolute once loaded."""
    profiles: Path | None = setting(optional(_path), None)
    """What charging clients can do; None: as the project ships it."""
    policies: Path | None = setting(_path_or_none, None)
    """The rules about what subscribers may use by what they have left; None: no rules. Absolute once loaded."""
    log_level: str = setting(choice("debug", "info", "warning", "error"), "info")

    def __post_init__(self) -> None:
        self._check_ports(self.workers or 1)
        last = worker_identity(self.diameter.origin_host, self.workers or 1)
        if not _is_domain_name(last, labels=2):
            raise ValueError(f"the last worker would be {last}, which is no domain name: shorten diameter.origin_host")

    def _check_ports(self, count: int) -> None:
        """Each worker has the ports of the first and its own number more: no two of all these may be the same."""
        if count == 1:
            return
        taken: dict[int, str] = {}
        first = {"diameter.port": self.diameter.port, "metrics.port": self.metrics.port}
        if self.diameter.tls.certificate is not None:
            first["diameter.tls.port"] = self.diameter.tls.port
        taken.update({self.api.port: "api.port"} if self.api.port else {})
        for name, port in first.items():
            for number in range(count if port else 0):
                other = taken.setdefault(port + number, name)
                if other != name:
                    raise ValueError(
                        f"{count} workers need as many ports from {name} {port} on, and {port + number} is taken by "
                        f"{other}"
                    )
            if port + count - 1 > HIGHEST_PORT:
                raise ValueError(f"{count} workers need as many ports from {name} {port} on: there are not so many")


def worker_identity(origin_host: str, number: int) -> str:
    """The Origin-Host of the worker of that number, from 1: the first has the one of the settings, the others count on.

    The number at the end of the first label counts (occ1, occ2; ocs09, ocs10); a label without one gets it (ocs, ocs2).
    """
    if number == 1:
        return origin_host
    label, dot, domain = origin_host.partition(".")
    name = label.rstrip("0123456789")
    digits = label[len(name) :]
    counted = int(digits or 1) + number - 1
    return f"{name}{counted:0{len(digits)}d}{dot}{domain}"


def of_worker(settings: Settings, number: int) -> Settings:
    """The settings of the worker of that number, from 1: an identity and ports of its own."""
    diameter, metrics = settings.diameter, settings.metrics

    def port(first: int) -> int:
        return first + number - 1 if first else 0

    return replace(
        settings,
        workers=None,
        diameter=replace(
            diameter,
            origin_host=worker_identity(diameter.origin_host, number),
            port=port(diameter.port),
            tls=replace(diameter.tls, port=port(diameter.tls.port)),
        ),
        metrics=replace(metrics, port=port(metrics.port)),
    )


def origin_hosts(settings: Settings) -> list[str]:
    """Those of all workers, in their order; of the server alone if it has none."""
    host = settings.diameter.origin_host
    workers = range(1, settings.workers + 1) if settings.workers else ()
    return [worker_identity(host, number) for number in workers] or [host]


def load(
    path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a file, the environment and options.

    `path` is the file; None: the one `OCC_CONFIG` names, else the `config/occ.yaml` shipped with the project.
    `overrides` are options by dotted name, `{"diameter.port": "3869"}`; their relative paths, and those of
    environment variables, start at the current directory. `environ` defaults to the process's environment;
    empty variables count as unset. Raises `ConfigError`.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(CONFIG_VARIABLE)
    root = load_yaml(path or (Path(named) if named else default_config_path()))
    loaded = build(root, Settings, _from_environment(environ) | _from_options(overrides or {}))
    # Paths that are left out start at the file's directory, like those that are written in it.
    data_dir = (root.base / loaded.store.data_dir).resolve()
    if IS_INSTALLED and data_dir == (SHIPPED / "../data").resolve():
        data_dir = state_directory(environ)  # not among the installed packages
    return replace(
        loaded,
        store=replace(loaded.store, data_dir=data_dir),
        cdr=replace(loaded.cdr, directory=data_dir / loaded.cdr.directory),
        journal=replace(loaded.journal, directory=data_dir / loaded.journal.directory),
        vouchers=replace(loaded.vouchers, pepper_file=data_dir / loaded.vouchers.pepper_file),
        metrics=replace(
            loaded.metrics,
            targets_file=None if loaded.metrics.targets_file is None else root.base / loaded.metrics.targets_file,
        ),
        catalogue=root.base / loaded.catalogue,
        profiles=loaded.profiles or SHIPPED / "profiles.yaml",
        policies=None if loaded.policies is None else root.base / loaded.policies,
        notices=replace(loaded.notices, templates=loaded.notices.templates or SHIPPED / "templates"),
    )


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where data goes that no settings give a place, if the program was installed: `~/.local/state/occ`."""
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "occ"


def default_config_path() -> Path:
    """The `occ.yaml` that comes with the project. Raises `ConfigError` where it was left out."""
    path = SHIPPED / "occ.yaml"
    if not path.is_file():
        raise ConfigError(
            shown(path), None, "there is no default configuration here; name one with --config or OCC_CONFIG"
        )
    return path


def variable_name(path: str) -> str:
    """The environment variable of a setting: `diameter.port` -> `OCC_DIAMETER_PORT`."""
    return ENVIRONMENT_PREFIX + path.upper().replace(".", "_")


def option_name(path: str) -> str:
    """The command line's option for a setting: `diameter.port` -> `--diameter-port`."""
    return "--" + path.replace(".", "-").replace("_", "-")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Node]:
    paths = {variable_name(path): path for path in leaf_paths(Settings)}
    nodes: dict[str, Node] = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _NO_SETTINGS or not value:
            continue
        if name not in paths:
            raise ConfigError(name, None, f"there is no such setting{nearest(name, paths)}")
        nodes[paths[name]] = Node.scalar(value, name, paths[name], Path.cwd())
    return nodes


def _from_options(overrides: Mapping[str, str]) -> dict[str, Node]:
    paths = leaf_paths(Settings)
    for path in overrides:
        if path not in paths:
            raise ConfigError(option_name(path), None, f"there is no such setting{nearest(path, paths)}")
    here = Path.cwd()
    return {path: Node.scalar(value, option_name(path), path, here) for path, value in overrides.items()}
