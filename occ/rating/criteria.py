"""What a service can be told by, beside Service-Context-Id, Rating-Group and Service-Identifier.

======================  ================================================================================================
``apn``                 Called-Station-Id: access point names, ``*`` for any letters. Capitals do not matter, and an
                        operator identifier at the end (``.mnc001.mcc262.gprs``, TS 23.003 clause 9.1.2) is left out
``destinations``        zones of the called number, section ``destinations`` of the catalogue
``networks``            zones of the serving network, section ``networks``
``sip_methods``         SIP-Method of Event-Type (TS 32.299 clause 7.2.77), as RFC 3261 writes methods
``role``                Role-Of-Node (TS 32.299 clause 7.2.177): originating, terminating or forwarding
======================  ================================================================================================

A request that lacks what a service asks for does not belong to that service. Only the serving network is always known:
where no request names it, it is the home network (``occ.rating.networks``).
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from occ.rating.sizes import single_value
from occ.yamlmap import Node, nearest

ROLES: Final = {"originating": 0, "terminating": 1, "forwarding": 2}
"""Role-Of-Node, TS 32.299 clause 7.2.177, by the words of the catalogue."""

_APN_PATTERN: Final = re.compile(r"[a-z0-9*]([a-z0-9.*-]{0,98}[a-z0-9*])?", re.ASCII)
_OPERATOR_IDENTIFIER: Final = re.compile(r"\.mnc[0-9]{3}\.mcc[0-9]{3}\.gprs", re.ASCII)
_LONGEST_APN: Final = 100
"""Octets, TS 23.003 clause 9.1."""
_SIP_METHOD: Final = re.compile(r"[A-Z]{1,32}", re.ASCII)


class Facts(Protocol):
    """What a service is found by; a ``protocols.credit_control.CreditControlRequest`` has it all."""

    service_context_id: bytes
    called_station_id: bytes | None
    """The APN."""
    called_party: bytes | None
    number_portability: bytes | None
    sip_method: bytes | None
    role_of_node: int | None
    sgsn_mcc_mnc: bytes | None
    user_location: bytes | None
    access_network: bytes | None
    visited_network: bytes | None


@dataclass(slots=True)
class RequestFacts:
    """The facts of a request that nobody has sent: for questions such as ``occ rate``."""

    service_context_id: bytes
    called_station_id: bytes | None = None
    called_party: bytes | None = None
    number_portability: bytes | None = None
    sip_method: bytes | None = None
    role_of_node: int | None = None
    sgsn_mcc_mnc: bytes | None = None
    user_location: bytes | None = None
    access_network: bytes | None = None
    visited_network: bytes | None = None


class Criteria(NamedTuple):
    """The facts of a request as services ask for them; whatever no service of a catalogue asks for may be left out."""

    context: bytes
    rating_group: int
    """-1: none is named."""
    service_identifier: int
    """-1: none is named."""
    apn: str | None = None
    """See ``access_point``; None: none is named."""
    destination: str = ""
    """Zone of the called number; empty: in no zone, or none is named."""
    network: str = ""
    """Zone of the serving network; empty: the catalogue has no networks."""
    sip_method: bytes | None = None
    role: int | None = None


def access_point(called_station_id: bytes | None) -> str | None:
    """The access point name without operator identifier, in small letters; None where none can be read."""
    if not called_station_id or len(called_station_id) > _LONGEST_APN + len(".mnc000.mcc000.gprs"):
        return None
    name = called_station_id.decode("ascii", "replace").lower()
    suffix = _OPERATOR_IDENTIFIER.search(name)
    return name[: suffix.start()] if suffix is not None and suffix.end() == len(name) else name


class ApnPatterns:
    """Access point names of a service, ``*`` for any letters. Equal if they are written the same."""

    __slots__ = ("_match", "written")

    def __init__(self, written: Collection[str]) -> None:
        self.written = tuple(written)
        parts = (".*".join(map(re.escape, pattern.split("*"))) for pattern in self.written)
        self._match = re.compile("|".join(parts), re.ASCII).fullmatch

    def __contains__(self, apn: str | None) -> bool:
        return apn is not None and self._match(apn) is not None

    def covers(self, other: "ApnPatterns") -> bool:
        """Whether all that ``other`` matches is matched by this; False where that cannot be seen from the patterns."""
        return all(
            pattern in self.written or "*" in self.written or ("*" not in pattern and pattern in self)
            for pattern in other.written
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApnPatterns) and self.written == other.written

    def __hash__(self) -> int:
        return hash(self.written)

    def __repr__(self) -> str:
        return f"ApnPatterns({self.written!r})"


def read_apns(node: Node | None) -> ApnPatterns | None:
    """``apn``: one pattern or a list. Raises ConfigError."""
    if node is None:
        return None
    return ApnPatterns(_words(node, "an APN such as internet or '*.corp'", lambda word: word.lower(), _APN_PATTERN))


def read_sip_methods(node: Node | None) -> frozenset[bytes] | None:
    """``sip_methods``: one method or a list. Raises ConfigError."""
    if node is None:
        return None
    found = _words(node, "a SIP method such as INVITE, in capitals (RFC 3261 section 7.1)", str, _SIP_METHOD)
    return frozenset(word.encode("ascii") for word in found)


def read_zones(node: Node | None) -> frozenset[str] | None:
    """``destinations`` or ``networks``: one zone or a list, for ``check_zones`` to check. Raises ConfigError."""
    return None if node is None else frozenset(_words(node, "the name of a zone", str, None))


def check_zones(node: Node, section: str, known: Collection[str] | None) -> None:
    """Raises ConfigError at the first zone that is not ``known``; None: the catalogue has no such section."""
    for item in _items(node):
        if known is None:
            raise item.error(f"{item.path} names a zone, but the catalogue has no section {section!r} that defines any")
        if item.text() not in known:
            raise item.error(f"there is no zone {item.text()[:60]!r} in {section}{nearest(item.text(), known)}")


def _items(node: Node) -> list[Node]:
    return [node] if single_value(node) is not None else node.items()


def _words(node: Node, what: str, normal: Callable[[str], str], pattern: re.Pattern[str] | None) -> dict[str, None]:
    found: dict[str, None] = {}
    for item in _items(node):
        word = normal(item.text())
        if pattern is not None and not pattern.fullmatch(word):
            raise item.error(f"{item.path} must be {what}, not {item.text()[:60]!r}")
        if word in found:
            raise item.error(f"{item.text()} stands twice in {node.path}")
        found[word] = None
    if not found:
        raise node.error(f"{node.path} must name at least one; leave it out to mean any")
    return found
