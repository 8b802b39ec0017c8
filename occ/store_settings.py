"""The settings of `store`: how Redis is reached (docs/store.md), and where the data are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from balance.address import HANGS_AFTER_MS, Access, Address, HostPort
from occ.setting_values import read_address, read_boolean, read_path, read_server, read_variable
from occ.yamlmap import choice, integer, list_of, optional, setting, text

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
    url: Address | None = setting(optional(read_address), None)
    """The external server, written `redis://host:port` or `unix:///path`; never with a password."""
    sentinels: tuple[HostPort, ...] = setting(list_of(read_server(26379)), ())
    """They tell which server is the primary of `master_name`."""
    master_name: str | None = setting(optional(text()), None)
    cluster_nodes: tuple[HostPort, ...] = setting(list_of(read_server(6379)), ())
    """Some of them; they know the others."""
    username: str | None = setting(optional(text()), None)
    """A user of Redis's access control list; None: the default user."""
    password_file: Path | None = setting(optional(read_path), None)
    password_env: str | None = setting(optional(read_variable), None)
    tls: bool = setting(read_boolean, False)
    """To the servers, and to the sentinels."""
    ca_file: Path | None = setting(optional(read_path), None)
    """Who must have issued the servers' certificates; None: whom this machine trusts."""
    certificate: Path | None = setting(optional(read_path), None)
    key: Path | None = setting(optional(read_path), None)
    """For servers that want a certificate of their clients."""
    wait_replicas: int = setting(integer(0, 100), 0)
    """So many replicas must have a debit before it is answered."""
    wait_ms: int = setting(integer(1, 60_000), 1000)
    """Longest wait for them; then the request is answered as if the store were away."""
    hangs_after_ms: int = setting(integer(500, 600_000), HANGS_AFTER_MS)
    """A server that is asked and says nothing for so long is taken to be away. Above `wait_ms`, if replicas are waited
    for."""
    server_binary: str | None = setting(optional(text()), None)
    """Program of the embedded server, a path or a name on PATH; None: the first that is found."""
    data_dir: Path = setting(read_path, Path("../data"))
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
        if self.wait_replicas and self.hangs_after_ms <= self.wait_ms:
            raise ValueError(
                f"store.hangs_after_ms is {self.hangs_after_ms}, but up to store.wait_ms, {self.wait_ms}, Redis is "
                "silent while it waits for replicas; set store.hangs_after_ms higher"
            )

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
            hangs_after_ms=self.hangs_after_ms,
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
