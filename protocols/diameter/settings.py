"""Settings of one local Diameter node, and who may connect to it.

Every duration is in seconds, every size in octets. A value out of its range raises
`ValueError` with one sentence that names the setting and the range.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address
from json import dumps
from types import MappingProxyType
from typing import Final

from protocols.diameter.codes import VENDOR_3GPP, Application, Command

WATCHDOG_FLOOR_SECONDS: Final = 6.0
"""Twinit MUST NOT be set lower (RFC 3539 3.4.1)."""
RECONNECT_FLOOR_SECONDS: Final = 1.0
"""freeDiameter turns away a peer that comes back within a second."""
_LONGEST_IDENTITY: Final = 255


class Admission(Enum):
    """Which peers a node lets in."""

    LAB = "lab"
    """Any identity of any realm, but only from a loopback address."""
    STRICT = "strict"
    """Only the peers that are listed, each from its own networks."""


@dataclass(frozen=True, slots=True)
class AllowedPeer:
    """One peer that may connect, or that this node dials."""

    identity: str
    """Its Origin-Host, compared without regard to case."""
    realm: str | None = None
    """Its Origin-Realm; None accepts any."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Addresses it may connect from; empty: it may not connect, only be dialed."""
    connect_host: str | None = None
    """Address or name to dial; None: never dialed."""
    connect_port: int = 3868
    """TCP port to dial."""
    tls: bool = False
    """It must use TLS with a certificate that names its identity, and is dialed with TLS."""

    def __post_init__(self) -> None:
        _check_identity("identity of a peer", self.identity)
        if self.realm is not None:
            _check_identity(f"realm of peer {self.identity}", self.realm)
        if not 0 < self.connect_port < 65536:
            raise ValueError(f"connect_port of peer {self.identity} is {self.connect_port}; give 1 to 65535")
        if not self.networks and self.connect_host is None:
            raise ValueError(
                f"peer {self.identity} can neither connect nor be dialed; give it networks or connect_host"
            )


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """Who is let in (RFC 6733 5.3: CERs from unknown peers are refused)."""

    admission: Admission = Admission.LAB
    peers: tuple[AllowedPeer, ...] = ()
    """In lab mode only those to dial matter: everyone on loopback is let in besides."""
    config_path: str = "diameter.peers"
    """Where the configuration has this policy, for hints: `mode` and `allowed` are below it."""

    def __post_init__(self) -> None:
        names = [peer.identity.lower() for peer in self.peers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"peer {name} is listed twice; list each identity once")

    def find(self, origin_host: str) -> AllowedPeer | None:
        """The listed peer of this identity, whatever the case of its letters."""
        wanted = origin_host.lower()
        for peer in self.peers:
            if peer.identity.lower() == wanted:
                return peer
        return None

    def objection(
        self, origin_host: str, origin_realm: str, address: str, certified: frozenset[str] | None = None
    ) -> tuple[str, str] | None:
        """Why a peer that connected from `address` is refused and what would let it in; None: it may enter.

        `address` is a numeric IP address; an IPv4 address mapped into IPv6 counts as IPv4. `certified`: the names in
        its verified certificate, in small letters; None: it has shown none.
        """
        if certified is not None and origin_host.lower() not in certified:
            named = ", ".join(sorted(certified)) or "no host"
            return (
                f"its certificate names {named} and not {origin_host}",
                f"give it a certificate whose subjectAltName is DNS:{origin_host}, or that Origin-Host",
            )
        source = ip_address(address.partition("%")[0])
        mapped = getattr(source, "ipv4_mapped", None)
        if mapped is not None:
            source = mapped
        if self.admission is Admission.LAB and source.is_loopback:
            return None
        single = f"{source}/{source.max_prefixlen}"
        entry = f"{{identity: {dumps(origin_host)}, realm: {dumps(origin_realm)}, networks: [{single}]}}"
        listed = self.find(origin_host)
        if self.admission is Admission.LAB:
            return (
                f"{source} is not a loopback address and {self.config_path}.mode is lab",
                f"set {self.config_path}.mode to strict and add {entry} to {self.config_path}.allowed",
            )
        if listed is not None and listed.tls and certified is None:
            return (
                f"{origin_host} must use TLS with a certificate",
                f"let it connect to the TLS port, or take tls from {listed.identity} in {self.config_path}.allowed",
            )
        if listed is None:
            return f"{origin_host} is not an allowed peer", f"add {entry} to {self.config_path}.allowed"
        if listed.realm is not None and listed.realm.lower() != origin_realm.lower():
            return (
                f"its realm is {origin_realm} and not {listed.realm}",
                f"set realm: {dumps(origin_realm)} for {listed.identity} in {self.config_path}.allowed",
            )
        if not any(source.version == network.version and source in network for network in listed.networks):
            return (
                f"{source} is in none of its networks",
                f"add {single} to the networks of {listed.identity} in {self.config_path}.allowed",
            )
        return None


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One local Diameter identity."""

    origin_host: str
    """Our DiameterIdentity."""
    origin_realm: str
    origin_state_id: int = 0
    """Rises whenever session state was lost (RFC 6733 8.16); 0 is never sent."""
    applications: Mapping[int, frozenset[int]] = field(
        default_factory=lambda: MappingProxyType({Application.CREDIT_CONTROL: frozenset((Command.CREDIT_CONTROL,))})
    )
    """Application-Ids that are advertised, and for each the Command Codes whose requests are taken."""
    served_realms: tuple[str, ...] = ()
    """Realms served beside our own and beside the realm of the peer a request came from."""
    host_ip_addresses: tuple[str, ...] = ()
    """Host-IP-Address AVPs; empty: the local address of the connection."""
    product_name: str = "OCC"
    vendor_id: int = 0
    """Vendor-Id of CER and CEA; 0 is to be ignored (RFC 6733 5.3.3): OCC has no enterprise number."""
    supported_vendor_ids: tuple[int, ...] = (VENDOR_3GPP,)
    policy: PeerPolicy = field(default_factory=PeerPolicy)
    watchdog_seconds: float = 30.0
    """Twinit of RFC 3539, at least 6; each Tw is drawn from 2 seconds around it."""
    capabilities_timeout_seconds: float = 10.0
    """A connection without a CER, or a CER of ours without its CEA, is closed after this long."""
    connect_timeout_seconds: float = 10.0
    """To open a transport connection to a peer, TLS included."""
    disconnect_timeout_seconds: float = 5.0
    """A connection is closed this long after a DPR at the latest."""
    reconnect_min_seconds: float = 1.0
    """Before the first attempt to dial a peer again, at least 1; doubles with every failure."""
    reconnect_max_seconds: float = 30.0
    """Tc of RFC 6733 section 12."""
    max_message_octets: int = 1 << 20
    """A longer message is answered 5015 and its connection closed."""
    max_output_octets: int = 16 << 20
    """A peer that leaves more than this unread is closed."""
    high_water_octets: int = 256 << 10
    """A peer that leaves more than this unread is not read from until it catches up."""
    max_connections: int = 4096
    """Accepted connections at a time; one more is closed at once."""
    max_strangers_per_address: int = 256
    """Accepted connections from one address that are not open yet; one more is closed at once."""

    def __post_init__(self) -> None:
        _check_identity("origin_host", self.origin_host)
        _check_identity("origin_realm", self.origin_realm)
        for realm in self.served_realms:
            _check_identity("a realm in served_realms", realm)
        for address in self.host_ip_addresses:
            ip_address(address)
        if not self.applications:
            raise ValueError("applications is empty; a node needs one application at least")
        if self.policy.find(self.origin_host) is not None:
            raise ValueError(f"{self.origin_host} is this node itself; take it out of the list of peers")
        self._check_range("origin_state_id", 0, 0xFFFFFFFF)
        self._check_range("vendor_id", 0, 0xFFFFFFFF)
        self._check_range("watchdog_seconds", WATCHDOG_FLOOR_SECONDS, 86400)
        self._check_range("capabilities_timeout_seconds", 0.1, 3600)
        self._check_range("connect_timeout_seconds", 0.1, 3600)
        self._check_range("disconnect_timeout_seconds", 0.1, 3600)
        self._check_range("reconnect_min_seconds", RECONNECT_FLOOR_SECONDS, 3600)
        self._check_range("reconnect_max_seconds", self.reconnect_min_seconds, 86400)
        self._check_range("max_message_octets", 4096, 0xFFFFFC)
        self._check_range("high_water_octets", 4096, 1 << 30)
        self._check_range("max_output_octets", self.high_water_octets, 1 << 32)
        self._check_range("max_connections", 1, 1 << 20)
        self._check_range("max_strangers_per_address", 1, 1 << 20)

    def _check_range(self, name: str, lowest: float, highest: float) -> None:
        value = getattr(self, name)
        if not lowest <= value <= highest:
            raise ValueError(f"{name} is {value}; give {lowest} to {highest}")

    def serves_realm(self, realm: str) -> bool:
        """Whether requests for this Destination-Realm are for us."""
        wanted = realm.lower()
        return wanted == self.origin_realm.lower() or any(wanted == name.lower() for name in self.served_realms)


def is_identity(value: str) -> bool:
    """Whether `value` can be a DiameterIdentity: an FQDN or a realm in ASCII (RFC 6733 4.3.1)."""
    return 0 < len(value) <= _LONGEST_IDENTITY and all("!" <= letter <= "~" for letter in value)


def _check_identity(what: str, value: str) -> None:
    """Raise ValueError unless `value` can be a DiameterIdentity."""
    if not is_identity(value):
        raise ValueError(f"{what} is {value!r}; give a domain name in ASCII without spaces")
