"""The settings of `diameter`: who this node is, where it listens, and which peers may do what."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from occ.setting_values import read_host, read_identity, read_network, read_path, read_realm
from occ.yamlmap import Node, choice, integer, list_of, optional, section, setting, text
from protocols.diameter.settings import Admission, AllowedPeer, PeerPolicy

DIAMETER_PORT: Final = 3868
DIAMETER_TLS_PORT: Final = 5868
_PEER_KEYS: Final = ("identity", "realm", "networks", "connect_host", "connect_port", "tls")


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
    identity = read_identity(known["identity"])
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
            realm=read_realm(known["realm"]) if "realm" in known else None,
            networks=list_of(read_network)(known["networks"]) if "networks" in known else (),
            connect_host=read_host(known["connect_host"]) if "connect_host" in known else None,
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
    certificate: Path | None = setting(optional(read_path), None)
    """PEM file with this node's certificate and what it was issued by; None: there is no such listener."""
    key: Path | None = setting(optional(read_path), None)
    """PEM file with its private key."""
    key_password_file: Path | None = setting(optional(read_path), None)
    """File whose first line unlocks the key; None: it is not locked."""
    trusted: Path | None = setting(optional(read_path), None)
    """PEM file with the certificates that peers' certificates are issued by."""

    def __post_init__(self) -> None:
        given = {"certificate": self.certificate, "key": self.key, "trusted": self.trusted}
        missing = [name for name, value in given.items() if value is None]
        if missing and (len(missing) < len(given) or self.key_password_file is not None):
            raise ValueError(f"TLS needs certificate, key and trusted; {' and '.join(missing)} is missing")


@dataclass(frozen=True, slots=True)
class DiameterSettings:
    """The Diameter listener and this node's identity (RFC 6733)."""

    host: str = setting(read_host, "127.0.0.1")
    port: int = setting(integer(0, 65535), DIAMETER_PORT)
    """TCP port; 0: any free port."""
    origin_host: str = setting(read_identity, "occ1.ocs.example.net")
    origin_realm: str = setting(read_realm, "ocs.example.net")
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
