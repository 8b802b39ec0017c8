"""Where a store is and how it is reached: one server, the primary that sentinels name, or a cluster.

An ``Address`` is what every process of a store is given: the server, its outbox, the process of notices, the API, the
command line. Passwords are not in it, only where they are kept, so it may stand on a command line.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from balance.resp import StoreUnavailableError

LONGEST_PASSWORD: Final = 4096
HANGS_AFTER_MS: Final = 5000
"""Where nothing else is said: half of the time after which clients give a request up (Tx, RFC 8506 section 13)."""

HostPort = tuple[str, int]


class AccessError(StoreUnavailableError):
    """A password or a certificate is not where the settings say; one sentence, without the secret."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who we are to Redis, and whether it is reached by TLS."""

    username: str | None = None
    """A user of Redis's access control list; None: the default user."""
    password_file: Path | None = None
    password_env: str | None = None
    """Name of an environment variable."""
    tls: bool = False
    ca_file: Path | None = None
    """Who must have issued the server's certificate; None: whom this machine trusts."""
    certificate: Path | None = None
    key: Path | None = None

    def password(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The password, None if there is none. Raises AccessError."""
        if self.password_env is not None:
            value = (os.environ if environ is None else environ).get(self.password_env, "")
            where = f"the environment variable {self.password_env} of store.password_env"
        elif self.password_file is not None:
            where = f"{self.password_file} of store.password_file"
            try:
                value = self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
                raise AccessError(f"{where} cannot be read: {reason.lower()}") from None
        else:
            return None
        if not value or len(value) > LONGEST_PASSWORD or "\n" in value:
            raise AccessError(f"{where} holds no password of one line")
        return value

    def greeting(self) -> tuple[Any, ...] | None:
        """The AUTH command that a connection begins with, if any. Raises AccessError."""
        password = self.password()
        if password is None:
            return None
        return ("AUTH", password) if self.username is None else ("AUTH", self.username, password)

    def context(self) -> ssl.SSLContext | None:
        """What TLS is done with: 1.2 or later, the server's name and issuer checked. Raises AccessError."""
        if not self.tls:
            return None
        try:
            made = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
            if self.certificate is not None:
                # Without a password OpenSSL would ask for one at the terminal.
                made.load_cert_chain(self.certificate, self.key, lambda: "")
        except (OSError, ValueError) as error:
            files = ", ".join(str(each) for each in (self.ca_file, self.certificate, self.key) if each is not None)
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise AccessError(f"TLS to Redis cannot be done with {files}: {reason}") from None
        return made


OPEN: Final = Access()


@dataclass(frozen=True, slots=True)
class Address:
    """How a store is reached: by a Unix socket, or host and port; or by those who know where its servers are."""

    unix_path: Path | None = None
    host: str = ""
    port: int = 0
    sentinels: tuple[HostPort, ...] = ()
    """They are asked which server is the primary of ``master_name``."""
    master_name: str = ""
    nodes: tuple[HostPort, ...] = ()
    """Some nodes of a cluster; they know the others."""
    access: Access = field(default=OPEN)
    """The same for all servers, and for the sentinels."""
    wait_replicas: int = 0
    """So many replicas must have a commit before it is answered for."""
    wait_ms: int = 1000
    """Longest wait for them."""
    hangs_after_ms: int = HANGS_AFTER_MS
    """A server that is asked and says nothing for so long is taken to be away."""

    @property
    def clustered(self) -> bool:
        return bool(self.nodes)

    @property
    def url(self) -> str:
        """For people; of a single server as `redis.from_url` takes it."""
        if self.unix_path is not None:
            return f"unix://{quote(str(self.unix_path))}"
        if self.sentinels:
            return f"{self.master_name} of the sentinels {_listed(self.sentinels)}"
        if self.nodes:
            return f"the cluster of {_listed(self.nodes)}"
        return f"{'rediss' if self.access.tls else 'redis'}://{host_port(self.host, self.port)}"

    @classmethod
    def parse(cls, url: str, access: Access = OPEN) -> "Address":
        """`redis://host:port` or `unix:///path`. Raises ValueError; its text goes behind the value's name."""
        refusal = f"must be redis://host:port or unix:///path/to/socket, not {url!r}"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(refusal) from None
        if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
            raise ValueError(refusal)
        if parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1:
            return cls(unix_path=Path(unquote(parts.path)), access=access)
        if parts.scheme == "redis" and parts.hostname and parts.path in ("", "/", "/0") and port != 0:
            return cls(host=parts.hostname, port=port or 6379, access=access)
        raise ValueError(refusal)

    def as_job(self) -> dict[str, Any]:
        """For another process, as JSON takes it."""
        access = {
            name: str(value) if isinstance(value, Path) else value
            for name in Access.__slots__
            if (value := getattr(self.access, name)) not in (None, False)
        }
        return {
            "unix_path": None if self.unix_path is None else str(self.unix_path),
            "host": self.host,
            "port": self.port,
            "sentinels": self.sentinels,
            "master_name": self.master_name,
            "nodes": self.nodes,
            "access": access,
            "wait_replicas": self.wait_replicas,
            "wait_ms": self.wait_ms,
            "hangs_after_ms": self.hangs_after_ms,
        }

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> "Address":
        """What ``as_job`` gave."""
        access = dict(job["access"])
        for name in ("password_file", "ca_file", "certificate", "key"):
            if name in access:
                access[name] = Path(access[name])
        return cls(
            None if job["unix_path"] is None else Path(job["unix_path"]),
            job["host"],
            job["port"],
            tuple((host, port) for host, port in job["sentinels"]),
            job["master_name"],
            tuple((host, port) for host, port in job["nodes"]),
            Access(**access),
            job["wait_replicas"],
            job["wait_ms"],
            job.get("hangs_after_ms", HANGS_AFTER_MS),  # a supervisor of the release before starts its workers without
        )


def host_port(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def parse_host_port(text: str, default_port: int) -> HostPort:
    """`host:port`, `[2001:db8::1]:port` or a host alone. Raises ValueError."""
    refusal = f"must be host:port, not {text!r}"
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(refusal) from None
    if not parts.hostname or parts.path or parts.query or parts.fragment or parts.username is not None or port == 0:
        raise ValueError(refusal)
    return parts.hostname, port or default_port


def _listed(places: tuple[HostPort, ...]) -> str:
    return ", ".join(host_port(*each) for each in places)
