"""How values of settings are read: names, addresses, paths, amounts of money; a wrong one is told with its place."""

import ipaddress
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from balance.address import Address, HostPort, parse_host_port
from occ.rating.currency import parse_amount
from occ.yamlmap import Node, Reader

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def is_domain_name(written: str, labels: int) -> bool:
    """Whether it is one, of so many labels at least."""
    parts = written.split(".")
    return len(written) <= 255 and len(parts) >= labels and all(_LABEL.fullmatch(part) for part in parts)


def read_identity(node: Node) -> str:
    """DiameterIdentity of a node (RFC 6733, 4.3.1): a fully qualified domain name, in ASCII."""
    written = node.text()
    if not is_domain_name(written, labels=2):
        raise node.error(
            f"{node.path} must be a fully qualified domain name such as occ1.ocs.example.net, not {written!r}"
        )
    return written


def read_realm(node: Node) -> str:
    """Name of a realm (RFC 6733, 4.3.1)."""
    written = node.text()
    if not is_domain_name(written, labels=1):
        raise node.error(f"{node.path} must be a domain name such as ocs.example.net, not {written!r}")
    return written


def read_host(node: Node) -> str:
    """An IP address, or a host's name."""
    written = node.text()
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        pass
    # Digits and dots alone are a mistyped address, not a name.
    if not is_domain_name(written, labels=1) or not re.search("[A-Za-z]", written):
        raise node.error(f"{node.path} must be an IP address or a host name, not {written!r}") from None
    return written


def read_network(node: Node) -> IPNetwork:
    """Addresses; one alone is a network as well."""
    written = node.text()
    try:
        return ipaddress.ip_network(written)
    except ValueError as error:
        raise node.error(
            f"{node.path} must be an IP address or a network such as 192.0.2.0/24, not {written!r} ({error})"
        ) from None


def read_address(node: Node) -> Address:
    """Where a Redis server is."""
    try:
        return Address.parse(node.text())
    except ValueError as error:
        raise node.error(f"{node.path} {error}") from None


def read_server(default_port: int) -> Reader[HostPort]:
    """Of host and port."""

    def read(node: Node) -> HostPort:
        try:
            return parse_host_port(node.text(), default_port)
        except ValueError as error:
            raise node.error(f"{node.path} {error}") from None

    return read


def read_boolean(node: Node) -> bool:
    """Yes or no."""
    return node.boolean()


def read_web_address(node: Node) -> str:
    """An address of HTTP, without a slash at its end."""
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


def read_amount(node: Node) -> int:
    """Micro-units of money, not below zero."""
    try:
        micro = parse_amount(node.text())
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if micro < 0:
        raise node.error(f"{node.path} must not be below zero")
    return micro


def read_variable(node: Node) -> str:
    """Name of an environment variable."""
    written = node.text()
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", written):
        raise node.error(f"{node.path} must be the name of an environment variable, not {written[:40]!r}")
    return written


def read_path(node: Node) -> Path:
    """A path; a relative one starts at the file's directory."""
    return node.file_path()


def read_path_or_none(node: Node) -> Path | None:
    """A path; ``none`` where a variable or an option stands in for the file's."""
    return None if node.is_null or node.text() == "none" else node.file_path()


def read_written_path(node: Node) -> Path:
    """A path as it is written; where a relative one starts is for others to say."""
    return Path(node.text()).expanduser()
