"""Destinations: the zone of a called number, by the longest prefix that the operator has put into one.

Read from the section ``destinations`` of the catalogue, names of zones with what belongs to them::

    destinations:
      file: destinations/world.csv      # or a list of files: columns prefix, zone and perhaps name
      local: [4930]                     # international digits without "+"
      national: [49]
      premium: [49900, 49190, 118xx]    # a short code of `numbering` is that short code, not a prefix
      on-net: [49D0042]                 # routing numbers of ported numbers may hold the letters A to F
      free: [49800, +800]               # "+" may be written, and must be where a short code has the same digits
      kazakhstan: [76, 77]
      russia: [7]
      voip: [uri]                       # addresses that are no numbers
      world: any                        # numbers that no prefix fits

Words in place of a prefix: ``any``, ``short`` (short codes in no other zone), ``uri`` and ``unknown``. The zone
``emergency`` is always there and holds the emergency numbers of ``numbering``, whatever else is written; they may be
repeated here. What is written here goes before what a file says, so that a file of the world's countries can stay as
it is. "local" and "long distance" are what prefixes make them: they are seen from the operator's area, not from that
of the caller.

A routing number decides on the zone as the called number would. If it holds a letter, it is a code of the country
rather than a number: then it decides only where a prefix reaches as far as the letter, and the called number otherwise.

How long a look-up takes does not depend on how many prefixes there are: for the first three digits it is known how
long the prefixes are that begin with them, and those lengths, 13 at most, are tried from the longest.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

from occ.rating.numbering import Kind, Number, Numbering
from occ.rating.sizes import single_value
from occ.rating.zone_file import RESERVED, Entry, read_zone_files, zone_name
from occ.yamlmap import Node

__all__ = ["EMERGENCY", "LONGEST_PREFIX", "Destination", "Destinations", "parse_prefix", "read_destinations"]

EMERGENCY: Final = "emergency"
"""Zone of emergency calls."""
LONGEST_PREFIX: Final = 15
"""Digits of E.164 at most."""

Key = TypeVar("Key", str, Kind)

_HEAD: Final = 3
_PREFIX: Final = re.compile(r"[1-9][0-9A-F]{0,14}", re.ASCII)
_SEPARATORS: Final = str.maketrans("", "", "-.() ")
_LETTER: Final = re.compile(r"[A-F]", re.ASCII)
_E164: Final = Kind.E164
_ANY: Final = "any"
_WORDS: Final = {"short": Kind.SHORT, "uri": Kind.URI, "unknown": Kind.UNKNOWN}


class Destination(NamedTuple):
    """Where a call goes, and why."""

    zone: str
    prefix: str
    """The prefix that decided, as a record quotes it; for short codes and emergency calls all digits; empty for what
    belongs to a zone as ``any``, ``short``, ``uri`` or ``unknown``."""
    name: str = ""
    """What a file calls the prefix."""


class Destinations:
    """Zones by prefix. Not to be changed once made."""

    __slots__ = ("_coarse", "_lengths", "_other", "_patterns", "_prefixes", "_rest", "_short", "zones")

    def __init__(
        self,
        prefixes: Mapping[str, str],
        *,
        short_codes: Mapping[str, str] | None = None,
        other: Mapping[Kind, str] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """``prefixes``: prefix to zone, as ``parse_prefix`` makes them; "" fits every number. ``short_codes``: to zone,
        x for any digit. ``other``: zones of Kind.SHORT (where no short code fits), URI and UNKNOWN. ``names``: of
        prefixes, for people.
        """
        known = names or {}
        self._prefixes = {
            prefix: Destination(zone, prefix, known.get(prefix, "")) for prefix, zone in prefixes.items() if prefix
        }
        self._rest = Destination(prefixes[""], "") if "" in prefixes else None
        self._short = {code: Destination(zone, code) for code, zone in (short_codes or {}).items() if "x" not in code}
        self._patterns = _patterns(short_codes or {})
        self._other = {kind: Destination(zone, "") for kind, zone in (other or {}).items()}
        self._lengths, self._coarse = _lengths(self._prefixes)
        self.zones = frozenset((*prefixes.values(), *(short_codes or {}).values(), *(other or {}).values(), EMERGENCY))
        """Names of all zones."""

    def __len__(self) -> int:
        """How many prefixes there are."""
        return len(self._prefixes)

    def find(self, number: Number) -> Destination | None:
        """Where a number belongs; None if it is in no zone."""
        if number.kind is not _E164:
            return self._no_number(number)
        if number.routing:
            found = self._routed(number.routing)
            if found is not None:
                return found
        return self._longest(number.digits) or self._rest

    def zone_of(self, number: Number) -> str | None:
        """The zone of a number, or None."""
        found = self.find(number)
        return None if found is None else found.zone

    def _longest(self, digits: str) -> Destination | None:
        prefixes = self._prefixes
        for length in self._lengths.get(digits[:_HEAD], self._coarse):
            found = prefixes.get(digits[:length])
            if found is not None:
                return found
        return None

    def _routed(self, routing: str) -> Destination | None:
        found = self._longest(routing)
        letter = None if found is None else _LETTER.search(routing)
        return None if found is not None and letter is not None and len(found.prefix) <= letter.start() else found

    def _no_number(self, number: Number) -> Destination | None:
        kind, digits = number.kind, number.digits
        if kind is Kind.EMERGENCY:
            return Destination(EMERGENCY, digits)
        if kind is Kind.SHORT:
            found = self._short.get(digits)
            if found is not None:
                return found
            for pattern, zone in self._patterns:
                if pattern.fullmatch(digits):
                    return Destination(zone, digits)
        return self._other.get(kind)


def _lengths(prefixes: Mapping[str, Destination]) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Lengths of the prefixes that begin with the same three digits, and of those that are shorter, falling."""
    found: dict[str, set[int]] = {}
    for prefix in prefixes:
        if len(prefix) >= _HEAD:
            found.setdefault(prefix[:_HEAD], set()).add(len(prefix))
    coarse = {len(prefix) for prefix in prefixes if len(prefix) < _HEAD}
    for head, lengths in found.items():
        lengths.update(length for length in coarse if head[:length] in prefixes)
    return {head: tuple(sorted(lengths, reverse=True)) for head, lengths in found.items()}, tuple(
        sorted(coarse, reverse=True)
    )


def _patterns(short_codes: Mapping[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Short codes with x; those that say more digits go first."""
    codes = sorted((code for code in short_codes if "x" in code), key=lambda code: code.count("x"))
    return tuple((re.compile(re.escape(code).replace("x", "[0-9]")), short_codes[code]) for code in codes)


def parse_prefix(written: str) -> str:
    """A prefix of international numbers as people write it: "7", "+7 495", "49D0042". Raises ValueError."""
    prefix = written
    if not _PREFIX.fullmatch(prefix):
        prefix = written.translate(_SEPARATORS).removeprefix("+").upper()
    if not _PREFIX.fullmatch(prefix):
        shown = f"{written[:40]!r} is no prefix"
        if prefix[:1] == "0":
            raise ValueError(
                f"{shown}: prefixes are written with country code and without national or international prefix, such "
                "as 4930"
            )
        raise ValueError(f"{shown} such as 4930: {LONGEST_PREFIX} digits at most, the first of them not zero")
    if prefix[:2] in ("10", "11"):
        # No area code of country code 1 begins so; more likely it is somebody's short code.
        raise ValueError(f"no number begins with +{prefix[:2]}: if {prefix} is a short code, list it in numbering")
    return prefix


def read_destinations(node: Node, numbering: Numbering) -> Destinations:
    """The section ``destinations`` of a catalogue, and the files that it names. Raises ConfigError."""
    reader = _Reader(numbering)
    files: Node | None = None
    for key, value in node.table():
        if key.text() == RESERVED:
            files = value
        else:
            reader.zone(key, value)
    table = reader.prefixes
    from_files = {} if files is None else read_zone_files(files, "prefix", parse_prefix, reserved=(EMERGENCY,))
    for prefix, entry in from_files.items():
        table.setdefault(prefix, entry)
    if not table and not reader.short_codes:
        raise node.error(f"{node.path} must put at least one prefix or short code into a zone")
    return Destinations(
        {prefix: entry.zone for prefix, entry in table.items()},
        short_codes={code: entry.zone for code, entry in reader.short_codes.items()},
        other={kind: entry.zone for kind, entry in reader.other.items()},
        names={prefix: entry.name for prefix, entry in table.items() if entry.name},
    )


class _Reader:
    """Collects what the zones of a catalogue list; whatever is listed twice must be in the same zone."""

    __slots__ = ("numbering", "other", "prefixes", "short_codes")

    def __init__(self, numbering: Numbering) -> None:
        self.numbering = numbering
        self.prefixes: dict[str, Entry] = {}
        self.short_codes: dict[str, Entry] = {}
        self.other: dict[Kind, Entry] = {}

    def zone(self, key: Node, value: Node) -> None:
        try:
            zone = zone_name(key.text())
        except ValueError as error:
            raise key.error(str(error)) from None
        items = [value] if single_value(value) == _ANY else value.items()
        if not items:
            raise value.error(f"{value.path} must list at least one prefix; leave the zone out if there is none")
        for item in items:
            self._item(zone, item)

    def _item(self, zone: str, item: Node) -> None:
        written = item.text()
        entry = Entry(zone, "", item.source, item.line)
        if written in self.numbering.emergency:
            if zone != EMERGENCY:
                raise item.error(
                    f"{written} is an emergency number of numbering and always in the zone {EMERGENCY}; a prefix of "
                    f"the same digits is written +{written}"
                )
        elif zone == EMERGENCY:
            raise item.error(f"{written[:40]!r} is not among the emergency numbers of numbering: list it there as well")
        elif written in _WORDS:
            _put(self.other, _WORDS[written], entry, item)
        elif written == _ANY:
            _put(self.prefixes, "", entry, item)
        elif written in self.numbering.short_codes or self.numbering.special(written) is not None:
            _put(self.short_codes, written, entry, item)
        else:
            try:
                prefix = parse_prefix(written)
            except ValueError as error:
                raise item.error(f"{item.path}: {error}") from None
            _put(self.prefixes, prefix, entry, item)


def _put(table: dict[Key, Entry], key: Key, entry: Entry, item: Node) -> None:
    earlier = table.setdefault(key, entry)
    if earlier.zone != entry.zone:
        raise item.error(
            f"{item.text()} is in the zone {entry.zone} here and in the zone {earlier.zone} at {earlier.place}"
        )
