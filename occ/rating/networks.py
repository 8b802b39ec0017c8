"""Networks: the zone of the network that serves a subscriber, home or abroad.

Read from the section ``networks`` of the catalogue, names of zones with the networks in them::

    networks:
      file: roaming.csv                 # or a list of files: columns network, zone and perhaps name
      home: [26201, 26206]              # MCC and MNC; needed
      eu: [208, 222, 234-15]            # MCC alone: every network of the country that is in no other zone
      world: any                        # every other network; needed

An MNC of two digits is the same as one of three that begins with zero (26201, 262001): that is how domain names write
it (TS 23.003 clause 13.2). What is written here goes before what a file says.

A request that does not say where it comes from is taken for one from the home network: a client at home often leaves
it out, and the record shows that no network was named.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from occ.rating.sizes import single_value
from occ.rating.zone_file import RESERVED, Entry, read_zone_files, zone_name
from occ.yamlmap import Node

__all__ = ["ANY", "HOME", "Network", "Networks", "parse_network", "plmn_of", "read_networks"]

HOME: Final = "home"
"""Zone of the operator's own networks."""
ANY: Final = "any"
"""The word, and the key, for every network in no other zone."""

MEMO_ENTRIES: Final = 4096

_NETWORK: Final = re.compile(r"([0-9]{3})(?:-?([0-9]{2,3}))?", re.ASCII)
_PLMN: Final = re.compile(rb"[0-9]{5,6}")
# The types of TS 29.061 clause 16.4.7.2 that are in use; all of them begin with MCC and MNC.
_LOCATION_TYPES: Final = frozenset((0, 1, 2, *range(128, 140)))
_NO_THIRD_DIGIT: Final = 0xF
_DOMAIN: Final = re.compile(rb"mnc([0-9]{2,3})\.mcc([0-9]{3})(?![0-9])", re.IGNORECASE)
_CELL: Final = re.compile(
    rb"(?:utran-cell-id-3gpp|cgi-3gpp|utran-sai-3gpp)\s*=\s*\"?([0-9]{5}[0-9A-F]{8,16})(?![0-9A-F])", re.IGNORECASE
)
# Digits of MCC, a two-digit MNC, area code and cell: 2G and service areas (5+4+4), 3G and LTE (5+4+7), NR (5+6+9).
_CELL_LENGTHS: Final = frozenset((13, 16, 20))
_LONGEST_TEXT: Final = 1024


class Network(NamedTuple):
    """Which network serves a subscriber, and what zone that is."""

    zone: str
    plmn: str
    """MCC and MNC, an MNC of three digits that begins with zero as two; empty where the request does not say."""


class Networks:
    """Zones by network. Not to be changed once made."""

    __slots__ = ("_home", "_memo", "_zones", "zones")

    def __init__(self, zones: Mapping[str, str]) -> None:
        """``zones``: network to zone, as ``parse_network`` makes them, ``any`` among them. Raises ValueError."""
        if ANY not in zones:
            raise ValueError(f"some zone must hold {ANY!r}: every other network")
        self._zones = dict(zones)
        self._home = Network(HOME, "")
        self._memo: dict[bytes, Network] = {}
        self.zones = frozenset((*zones.values(), HOME))
        """Names of all zones."""

    def find(
        self,
        mcc_mnc: bytes | None,
        user_location: bytes | None = None,
        access_network: bytes | None = None,
        visited_network: bytes | None = None,
    ) -> Network:
        """The serving network, from the first of these that names one; ``plmn_of`` says what they are. Never raises."""
        key = mcc_mnc if mcc_mnc is not None and len(mcc_mnc) <= 6 else None
        if key is not None:
            known = self._memo.get(key)
            if known is not None:
                return known
        plmn = plmn_of(mcc_mnc, user_location, access_network, visited_network)
        if not plmn:
            return self._home
        zones = self._zones
        found = Network(zones.get(plmn) or zones.get(plmn[:3]) or zones[ANY], plmn)
        if key is not None and _PLMN.fullmatch(key):
            if len(self._memo) >= MEMO_ENTRIES:
                self._memo.clear()
            self._memo[key] = found
        return found

    def zone_of(
        self,
        mcc_mnc: bytes | None,
        user_location: bytes | None = None,
        access_network: bytes | None = None,
        visited_network: bytes | None = None,
    ) -> str:
        """The zone of the serving network; ``home`` where nothing names it."""
        return self.find(mcc_mnc, user_location, access_network, visited_network).zone


def plmn_of(
    mcc_mnc: bytes | None,
    user_location: bytes | None = None,
    access_network: bytes | None = None,
    visited_network: bytes | None = None,
) -> str:
    """MCC and MNC of the serving network as ``Network.plmn`` has them; empty if none of these names one. Never raises.

    ``mcc_mnc``: 3GPP-SGSN-MCC-MNC, digits (TS 29.061 clause 16.4.7.2). ``user_location``: 3GPP-User-Location-Info, a
    type octet, then MCC and MNC in three octets as TS 24.008 clause 10.5.1.3 packs them. ``access_network``:
    Access-Network-Information of IMS-Information, a P-Access-Network-Info header that names the cell (TS 24.229 clause
    7.2A.4). ``visited_network``: IMS-Visited-Network-Identifier, where it is a domain name of TS 23.003 clause 13.2.
    """
    if mcc_mnc is not None and _PLMN.fullmatch(mcc_mnc):
        return _short_form(mcc_mnc.decode("ascii"))
    if user_location is not None:
        plmn = _from_location(user_location)
        if plmn:
            return plmn
    for text in (access_network, visited_network):
        if text is not None and len(text) <= _LONGEST_TEXT:
            plmn = _from_text(text)
            if plmn:
                return plmn
    return ""


def _short_form(plmn: str) -> str:
    return plmn[:3] + plmn[4:] if len(plmn) == 6 and plmn[3] == "0" else plmn


def _from_location(location: bytes) -> str:
    if len(location) < 4 or location[0] not in _LOCATION_TYPES:
        return ""
    first, second, third = location[1:4]
    digits = [first & 15, first >> 4, second & 15, third & 15, third >> 4]
    if second >> 4 != _NO_THIRD_DIGIT:
        digits.append(second >> 4)
    return _short_form("".join(map(str, digits))) if max(digits) <= 9 else ""


def _from_text(text: bytes) -> str:
    cell = _CELL.search(text)
    if cell is not None:
        written = cell[1].decode("ascii")
        if len(written) in _CELL_LENGTHS:
            return written[:5]
        if len(written) - 1 in _CELL_LENGTHS and written[5].isdigit():
            return _short_form(written[:6])
    domain = _DOMAIN.search(text)
    return "" if domain is None else _short_form((domain[2] + domain[1]).decode("ascii"))


def parse_network(written: str) -> str:
    """A network as people write it: "262", "26201", "262-01", "310-410". Raises ValueError."""
    match = _NETWORK.fullmatch(written)
    if match is None:
        raise ValueError(f"{written[:40]!r} is no network: 262 is an MCC, 26201 and 310-410 are MCC and MNC")
    return _short_form(match[1] + (match[2] or ""))


def read_networks(node: Node) -> Networks:
    """The section ``networks`` of a catalogue, and the files that it names. Raises ConfigError."""
    table: dict[str, Entry] = {}
    files: Node | None = None
    for key, value in node.table():
        if key.text() == RESERVED:
            files = value
        else:
            _read_zone(key, value, table)
    if files is not None:
        for network, entry in read_zone_files(files, "network", parse_network).items():
            table.setdefault(network, entry)
    if all(entry.zone != HOME for entry in table.values()):
        raise node.error(f"{node.path} must name the operator's own networks as the zone {HOME!r}")
    if ANY not in table:
        raise node.error(f"{node.path} must have a zone for every other network, such as 'world: {ANY}'")
    return Networks({network: entry.zone for network, entry in table.items()})


def _read_zone(key: Node, value: Node, table: dict[str, Entry]) -> None:
    try:
        zone = zone_name(key.text())
    except ValueError as error:
        raise key.error(str(error)) from None
    items = [value] if single_value(value) == ANY else value.items()
    if not items:
        raise value.error(f"{value.path} must list at least one network; leave the zone out if there is none")
    for item in items:
        written = item.text()
        try:
            network = ANY if written == ANY else parse_network(written)
        except ValueError as error:
            raise item.error(f"{item.path}: {error}") from None
        entry = Entry(zone, "", item.source, item.line)
        earlier = table.setdefault(network, entry)
        if earlier.zone != zone:
            raise item.error(f"{written} is in the zone {zone} here and in the zone {earlier.zone} at {earlier.place}")
