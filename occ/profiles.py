"""What a charging client can do: profiles of known clients, and which of them a request is answered by.

Clients differ in what of an answer they act on, and some take what they do not understand for the opposite. A profile
says what is sent to a client and what is expected of it. Profiles are written in `config/profiles.yaml`; a client's
own is the one the settings give it (`diameter.peers.allowed`), else the one its CER is recognised by, else
`diameter.default_profile`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, Final

from occ.yamlmap import ConfigError, Node, load_yaml, nearest, shown
from protocols.diameter.codes import Application
from protocols.diameter.events import Opened

UNSIGNED32_MAXIMUM: Final = 0xFFFFFFFF
LONGEST_VALIDITY_FLOOR_S: Final = 3600
CHOICES_REMEMBERED: Final = 4096
REMEMBERED_IDENTITY_OCTETS: Final = 255
"""Longer Origin-Hosts are looked up afresh each time: nobody shall fill the memory with them."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class Reauthorisation(Enum):
    """What a client makes of a Re-Auth-Request and an Abort-Session-Request (RFC 8506 section 5.5, RFC 6733 8.5)."""

    FULL = "full"
    """It reports with an update after a RAR and ends the session after an ASR: both are sent and repeated."""
    ANSWERED = "answered"
    """It answers a RAR with success, but no update follows, and it aborts nothing. A RAR only tells whether the
    session is still there (5002: it is not); no update is awaited, no ASR is sent, and what has changed acts at the
    session's next request."""
    NONE = "none"
    """It never answers: neither is sent, and what has changed acts at the session's next request."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of client understands. Each default is that of an unknown client, `lenient`."""

    name: str
    """As the settings and logs have it."""
    redirects: bool = True
    """Final-Unit-Action is as the catalogue has it. False: always TERMINATE, and where there is not even a last unit
    to grant, a refusal. For clients that end the session whatever the action, or worse, take an answer that holds a
    redirection and no units for free traffic (RFC 8506 section 5.6)."""
    qos_final_units: bool = True
    """QoS-Final-Unit-Indication is sent beside Final-Unit-Indication (RFC 8506 section 8.68). It is new with RFC 8506
    and never has the M bit, so that older clients pass over it; False spares those that complain in their log."""
    quota_hints: bool = True
    """Volume-, Time- and Unit-Quota-Threshold, Quota-Holding-Time and Quota-Consumption-Time (TS 32.299 clauses
    5.3.1 and 5.3.2) are sent where the catalogue has them. Without thresholds a client reports when its units are used
    up, and traffic may wait for the answer."""
    triggers: bool = True
    """Trigger is sent: changes of which the client is to report at once (TS 32.299 clause 7.2.235)."""
    pools: bool = True
    """Services of one session share credit by G-S-U-Pool-Reference (RFC 8506 section 5.1.2). A client must tell the
    Multiple-Services-Credit-Control AVPs of one answer apart."""
    tariff_switch: bool = False
    """Tariff-Time-Change is sent, and usage before and after it is reported apart (RFC 8506 section 5.1.1). A client
    that does not support it has to end the session (section 8.20). False: Validity-Time ends with the tariff period
    instead, which every client understands; all of them report at the same moment then."""
    advice_of_charge: bool = True
    """AoC-Information is sent when it is asked for (TS 32.299 clause 7.2.13). False for clients that always ask and
    never look."""
    balance_hints: bool = True
    """Low-Balance-Indication and Remaining-Balance are sent where the catalogue has them (TS 32.299 clauses 7.2.97
    and 7.2.172)."""
    handling_hints: bool = True
    """CC-Session-Failover, Credit-Control-Failure-Handling and Direct-Debiting-Failure-Handling are sent (RFC 8506
    section 5.7): what the client does while no server answers."""
    credit_control_not_applicable: bool = False
    """Result-Code 4011 means "let it pass, free of charge" (RFC 8506 section 9.1). False, for clients that take every
    code but 2001 for a refusal: what is free is granted in units that cost nothing, which suits every client."""
    needs_indicator: bool = False
    """Multiple-Services-Credit-Control is used only in sessions whose first request has Multiple-Services-Indicator 1
    (RFC 8506 section 5.1.2). False: a client that sends the one without the other means it."""
    reauthorisation: Reauthorisation = Reauthorisation.FULL
    """Whether the server can reach into a session."""
    event_time: bool = True
    """Event-Timestamp, while it is near the server's clock, says when something was used and so what it costs. False:
    the time of arrival counts, for clients whose clock is not to be trusted."""
    time_within_validity: bool = False
    """No more CC-Time is granted than Validity-Time. For clients that take a shorter Validity-Time for the end of the
    grant: with final units they would end the call there, whatever is left."""
    last_second: bool = False
    """An update of which nothing can be granted is answered with one second of final units, not reserved, once; after
    that it is refused. For clients that after a refused update go on for as long as their last grant was, be it a
    minute, but end the call when final units end."""
    shortest_validity_s: int = 0
    """No grant has a shorter Validity-Time than this, in seconds. For clients that report some seconds before it
    ends: close to that they would report without pause."""
    near_threshold_s: int = 60
    """Where a policy threshold is within two grants, no grant has a longer Validity-Time than this, in seconds; 0: as
    long as elsewhere. Only for clients that no RAR makes report, see ``reauthorisation``: what another session of the
    account uses may cross the threshold meanwhile."""


LENIENT: Final = Profile("lenient")
"""What an unknown client gets; `lenient` of the shipped file is the same."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """Which CERs are of a client."""

    products: tuple[str, ...] = ()
    """Product-Name starts with one of these, whatever the case of its letters; empty: any Product-Name."""
    applications: frozenset[int] = frozenset()
    """Application-Ids, all of which the client advertises itself, be it inside Vendor-Specific-Application-Id."""

    def covers(self, other: "Recognition") -> bool:
        """Whether every CER of the other is also of this."""
        return self.applications <= other.applications and (
            not self.products or (other.products != () and all(map(self._is_named, other.products)))
        )

    def _is_named(self, product_name: str) -> bool:
        name = product_name.casefold()
        return any(name.startswith(product.casefold()) for product in self.products)

    def matches(self, product_name: str, applications: frozenset[int]) -> bool:
        """Whether a CER is of this client. The relay application stands for no other here: a relay is no client."""
        return self.applications <= applications and (not self.products or self._is_named(product_name))


class Profiles:
    """The profiles of one file."""

    __slots__ = ("_profiles", "_recognitions", "source")

    def __init__(self, profiles: Mapping[str, tuple[Profile, Recognition | None]], source: str) -> None:
        self.source = source
        """The file, as the user knows it."""
        self._profiles = {name: profile for name, (profile, _) in profiles.items()}
        self._recognitions = [(known, profile) for profile, known in profiles.values() if known is not None]

    @classmethod
    def load(cls, path: Path) -> "Profiles":
        """The profiles written in a YAML file. Raises `ConfigError` with file, line and what is allowed there."""
        root = load_yaml(path)
        node = root.mapping(["profiles"], required=["profiles"])["profiles"]
        profiles: dict[str, tuple[Profile, Recognition | None]] = {}
        for key, value in node.table():
            name = key.text()
            if not _NAME.fullmatch(name):
                raise key.error(
                    f"{name!r} cannot be the name of a profile: small letters, digits, '.', '_' and '-', 64 at most"
                )
            profile, recognition = profiles[name] = _read_profile(name, value)
            hidden_by = _first_covering(profiles, profile, recognition)
            if hidden_by is not None:
                raise value.error(f"{name} is never recognised: {hidden_by}, before it, takes every client of its kind")
        if not profiles:
            raise node.error("profiles is empty; a server needs one at least")
        return cls(profiles, shown(path))

    def __iter__(self) -> Iterator[Profile]:
        """In the file's order."""
        return iter(self._profiles.values())

    def named(self, name: str) -> Profile:
        """The profile of this name. Raises `KeyError` with one sentence that says which there are."""
        try:
            return self._profiles[name]
        except KeyError:
            raise KeyError(f"there is no profile {name!r} in {self.source}{nearest(name, self._profiles)}") from None

    def recognise(self, product_name: str, applications: frozenset[int]) -> Profile | None:
        """The first profile of the file that a CER is recognised by; None: a client of another kind."""
        for known, profile in self._recognitions:
            if known.matches(product_name, applications):
                return profile
        return None


class ProfileChooser:
    """Which profile each request is answered by."""

    __slots__ = ("_chosen", "_default", "_listed", "_profiles")

    def __init__(self, profiles: Profiles, default: str, listed: Mapping[str, str]) -> None:
        """`default`: `diameter.default_profile`. `listed`: names of profiles by Origin-Host, what
        `PeerRules.profiles` of the settings gives. Raises `ConfigError` for a name that is not in the file."""
        self._profiles = profiles
        self._default = _named(profiles, default, "diameter.default_profile")
        self._listed = {
            identity.lower(): _named(profiles, name, f"diameter.peers.allowed, profile of {identity}")
            for identity, name in listed.items()
        }
        self._chosen: dict[tuple[str, bytes], tuple[Opened, Profile]] = {}

    def choose(self, peer: Opened, origin_host: bytes) -> Profile:
        """The profile for a request with this Origin-Host that came by `peer`, in this order:

        1. the one the settings give this Origin-Host, so also a client behind an agent;
        2. the one they give the peer, so also all clients behind an agent;
        3. the one the peer's CER is recognised by, unless the peer is a relay and the request not its own: what a
           relay passes on may come from anybody;
        4. the default.
        """
        key = (peer.origin_host, origin_host)
        chosen = self._chosen.get(key)
        # A peer that has connected anew may have become another client.
        if chosen is not None and chosen[0] is peer:
            return chosen[1]
        profile = self._decide(peer, origin_host)[0]
        if len(origin_host) <= REMEMBERED_IDENTITY_OCTETS:
            if len(self._chosen) >= CHOICES_REMEMBERED:
                self._chosen.clear()
            self._chosen[key] = (peer, profile)
        return profile

    def named(self, name: str) -> Profile:
        """The profile of this name; the default where there is none any more."""
        try:
            return self._profiles.named(name)
        except KeyError:
            return self._default

    def explain(self, peer: Opened) -> str:
        """Which profile the peer's own requests get and why, for a line of the log."""
        profile, reason = self._decide(peer, peer.origin_host.encode())
        return f"profile {profile.name}, {reason}"

    def _decide(self, peer: Opened, origin_host: bytes) -> tuple[Profile, str]:
        identity, own = origin_host.decode("utf-8", "replace").lower(), peer.origin_host.lower()
        for listed in (identity, own):
            if listed in self._listed:
                return self._listed[listed], "as diameter.peers.allowed has it"
        if identity == own or not peer.is_relay:
            recognised = self._profiles.recognise(peer.product_name, peer.applications)
            if recognised is not None:
                return recognised, "recognised by what it said when it connected"
        return self._default, "as diameter.default_profile has it"


def _named(profiles: Profiles, name: str, setting: str) -> Profile:
    try:
        return profiles.named(name)
    except KeyError as error:
        raise ConfigError(setting, None, error.args[0]) from None


# The file.


def _read_profile(name: str, node: Node) -> tuple[Profile, Recognition | None]:
    known = node.mapping((*_READERS, "recognise"))
    values = {key: _READERS[key](value) for key, value in known.items() if key in _READERS}
    return Profile(name, **values), _read_recognition(known["recognise"]) if "recognise" in known else None


def _first_covering(
    profiles: Mapping[str, tuple[Profile, Recognition | None]], profile: Profile, recognition: Recognition | None
) -> str | None:
    """The profile that recognises all that `profile`, the last one, would; None: there is no such."""
    if recognition is None:
        return None
    for earlier, other in profiles.values():
        if earlier is not profile and other is not None and other.covers(recognition):
            return earlier.name
    return None


def _read_recognition(node: Node) -> Recognition:
    known = node.mapping(("products", "applications"))
    products = tuple(item.text() for item in known["products"].items()) if "products" in known else ()
    applications = (
        frozenset(_application(item) for item in known["applications"].items())
        if "applications" in known
        else frozenset()
    )
    if not products and not applications:
        raise node.error(f"{node.path} would recognise every client; give products, applications or both")
    return Recognition(products, applications)


def _application(node: Node) -> int:
    application = node.integer(0, UNSIGNED32_MAXIMUM)
    if application == Application.RELAY:
        raise node.error(f"{node.path} is the relay application; a relay is no client, what it passes on may be of any")
    return application


def _reauthorisation(node: Node) -> Reauthorisation:
    return Reauthorisation(node.choice([each.value for each in Reauthorisation]))


def _seconds(node: Node) -> int:
    return node.integer(0, LONGEST_VALIDITY_FLOOR_S)


_READ_AS: Final[dict[Any, Callable[[Node], Any]]] = {
    bool: Node.boolean,
    Reauthorisation: _reauthorisation,
    int: _seconds,
}
_READERS: Final = {field.name: _READ_AS[field.type] for field in fields(Profile) if field.name != "name"}
"""How each setting of a profile is read."""
