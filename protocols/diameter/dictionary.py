"""The Diameter dictionary: AVP, group and command definitions, read once from ``dictionary.toml``.

The data is checked when it is loaded, so that a slip in it (a name used twice, a grammar naming an unknown
AVP) stops the process at start with a sentence, instead of a message being misread later.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.resources import files
from typing import Any, Final

from protocols.diameter.codes import AvpFlag

ANY_APPLICATION: Final[int] = -1
_UNLIMITED: Final[int] = 1 << 62


class AvpType(Enum):
    """Data formats of RFC 6733 sections 4.2 and 4.3."""

    OCTET_STRING = "OctetString"
    INTEGER32 = "Integer32"
    INTEGER64 = "Integer64"
    UNSIGNED32 = "Unsigned32"
    UNSIGNED64 = "Unsigned64"
    FLOAT32 = "Float32"
    FLOAT64 = "Float64"
    GROUPED = "Grouped"
    ADDRESS = "Address"
    TIME = "Time"
    UTF8_STRING = "UTF8String"
    DIAMETER_IDENTITY = "DiameterIdentity"
    DIAMETER_URI = "DiameterURI"
    ENUMERATED = "Enumerated"
    IP_FILTER_RULE = "IPFilterRule"
    QOS_FILTER_RULE = "QoSFilterRule"


# Payload octets of the formats that have a fixed length.
_FIXED_LENGTH: Final[dict[AvpType, int]] = {
    AvpType.INTEGER32: 4,
    AvpType.INTEGER64: 8,
    AvpType.UNSIGNED32: 4,
    AvpType.UNSIGNED64: 8,
    AvpType.FLOAT32: 4,
    AvpType.FLOAT64: 8,
    AvpType.TIME: 4,
    AvpType.ENUMERATED: 4,
}
# The shortest Address is an IPv4 address after its two-octet family (RFC 6733 section 4.3.1).
_ADDRESS_LENGTH: Final[int] = 6


def avp_key(code: int, vendor: int) -> int:
    """One integer for (code, vendor); the code itself for IETF AVPs."""
    return vendor << 32 | code


@dataclass(slots=True)
class Grammar:
    """How often AVPs may occur in a command or group (RFC 6733 sections 3.2 and 4.4), by ``avp_key``.

    ``maxima``: upper bounds of the AVPs that have one, plus every required AVP; 0 forbids.
    ``required``: keys of AVPs that must be there.
    ``instead``: required key -> key of an AVP that makes up for its absence (a leniency).
    """

    maxima: dict[int, int] = field(default_factory=dict)
    required: tuple[int, ...] = ()
    instead: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class AvpDefinition:
    """One AVP of the dictionary.

    ``m_flag``: "M" the M bit must be set, "m" it may be, "-" it must not be.
    ``fixed_length``: payload octets of a fixed-length type, else -1.
    ``minimum_length``: the least payload octets of the type, as used to fill a missing AVP with zeros.
    ``values``: enumeration value -> name, empty for other types; ``closed``: other values are refused.
    ``grammar``: members of a Grouped AVP, None for a group that is not described (any member goes).
    """

    code: int
    vendor: int
    name: str
    type: AvpType
    m_flag: str
    section: str
    key: int
    fixed_length: int
    minimum_length: int
    grouped: bool
    values: dict[int, str] = field(default_factory=dict)
    closed: bool = False
    grammar: Grammar | None = None

    @property
    def flags(self) -> int:
        """AVP flags for sending: V for vendor AVPs, M where the definition demands it."""
        return (AvpFlag.VENDOR if self.vendor else 0) | (AvpFlag.MANDATORY if self.m_flag == "M" else 0)


@dataclass(slots=True)
class CommandDefinition:
    """One command: its header facts and its grammar. ``application`` -1: used within any application."""

    code: int
    application: int
    name: str
    request: bool
    proxiable: bool
    section: str
    grammar: Grammar


class DictionaryError(ValueError):
    """The dictionary data is inconsistent; the message says where."""


class Dictionary:
    """Lookup of AVPs by (code, vendor) or name and of commands by (code, application, R bit)."""

    __slots__ = ("_by_name", "_commands", "applications", "by_key", "error_answer")

    def __init__(self, data: Mapping[str, Any]) -> None:
        """``data``: the parsed ``dictionary.toml``. Raises DictionaryError."""
        self.by_key: dict[int, AvpDefinition] = {}
        self._by_name: dict[str, AvpDefinition] = {}
        self._commands: dict[tuple[int, int, bool], CommandDefinition] = {}
        for specification in data["specification"]:
            self._add_specification(specification)
        for closed, names in ((True, data["enumerations"]["closed"]), (False, data["enumerations"]["open"])):
            for name, values in names.items():
                definition = self._named_in(name, "enumerations", AvpType.ENUMERATED)
                definition.values = {number: label for label, number in values.items()}
                definition.closed = closed
        for name, text in data["groups"].items():
            self._named_in(name, "groups", AvpType.GROUPED).grammar = self._grammar(text, name, {})
        for entry in data["command"]:
            self._add_command(entry)
        #: Grammar of every answer with the E bit (RFC 6733 section 7.2).
        self.error_answer: Grammar = self._grammar(data["error_answer"]["grammar"], "answer-message", {})
        #: Application-Ids that have commands here.
        self.applications: frozenset[int] = frozenset(
            command.application for command in self._commands.values() if command.application >= 0
        )

    def avp(self, code: int, vendor: int = 0) -> AvpDefinition | None:
        """The definition of an AVP, or None if it is not in the dictionary."""
        return self.by_key.get(vendor << 32 | code)

    def avp_named(self, name: str) -> AvpDefinition:
        """The definition of the AVP with this name. Raises KeyError that names the nearest known AVP."""
        definition = self._by_name.get(name)
        if definition is None:
            raise KeyError(f"no AVP is named {name!r}{_nearest(name, self._by_name)}")
        return definition

    def command(self, code: int, application: int, is_request: bool) -> CommandDefinition | None:
        """The definition of a command, or None. Session commands (RAR, ASR, STR) fit any application."""
        found = self._commands.get((code, application, is_request))
        return found if found is not None else self._commands.get((code, ANY_APPLICATION, is_request))

    def __len__(self) -> int:
        return len(self.by_key)

    def _add_specification(self, specification: Mapping[str, Any]) -> None:
        vendor = int(specification["vendor"])
        source = specification["source"]
        for name, row in specification["avps"].items():
            if not isinstance(row, list) or len(row) != 4:
                raise DictionaryError(f"{source}: {name} must be [code, type, M rule, section]; quote names with dots")
            code, type_name, m_flag, section = row
            try:
                avp_type = AvpType(type_name)
            except ValueError:
                raise DictionaryError(f"{source}: {name} has the unknown type {type_name!r}") from None
            if m_flag not in ("M", "m", "-"):
                raise DictionaryError(f"{source}: {name} has the M rule {m_flag!r}; use M, m or -")
            key = avp_key(code, vendor)
            if key in self.by_key or name in self._by_name:
                raise DictionaryError(f"{source}: {name} ({code}) is defined twice")
            fixed_length = _FIXED_LENGTH.get(avp_type, -1)
            definition = AvpDefinition(
                code=code,
                vendor=vendor,
                name=name,
                type=avp_type,
                m_flag=m_flag,
                section=f"{source} {section}".rstrip(),
                key=key,
                fixed_length=fixed_length,
                minimum_length=_ADDRESS_LENGTH if avp_type is AvpType.ADDRESS else max(fixed_length, 0),
                grouped=avp_type is AvpType.GROUPED,
            )
            self.by_key[key] = self._by_name[name] = definition

    def _add_command(self, entry: Mapping[str, Any]) -> None:
        command = CommandDefinition(
            code=entry["code"],
            application=entry["application"],
            name=entry["name"],
            request=entry["request"],
            proxiable=entry["proxiable"],
            section=entry["section"],
            grammar=self._grammar(entry["grammar"], entry["name"], entry.get("lenient", {})),
        )
        identity = (command.code, command.application, command.request)
        if identity in self._commands:
            raise DictionaryError(f"{command.section}: {command.name} is defined twice")
        self._commands[identity] = command

    def _named_in(self, name: str, where: str, expected: AvpType) -> AvpDefinition:
        definition = self._by_name.get(name)
        if definition is None:
            raise DictionaryError(f"{where}: no AVP is named {name!r}{_nearest(name, self._by_name)}")
        if definition.type is not expected:
            raise DictionaryError(f"{where}: {name} is {definition.type.value}, not {expected.value}")
        return definition

    def _grammar(self, text: str, where: str, lenient: Mapping[str, Any]) -> Grammar:
        """Parse the notation of RFC 6733 section 3.2; ``lenient`` lifts bounds for what real peers send."""
        maxima: dict[int, int] = {}
        required: list[int] = []
        for name, lower, most in parse_grammar(text, where):
            if name == "AVP":
                continue
            definition = self._by_name.get(name)
            if definition is None:
                raise DictionaryError(f"{where}: no AVP is named {name!r}{_nearest(name, self._by_name)}")
            if definition.key in maxima:
                raise DictionaryError(f"{where}: {name} is listed twice")
            upper = _UNLIMITED if name in lenient.get("repeated", ()) else most
            if lower and name not in lenient.get("missing", ()):
                required.append(definition.key)
            if lower or upper != _UNLIMITED:
                maxima[definition.key] = upper
        instead = {
            self.avp_named(missing).key: self.avp_named(other).key
            for missing, other in lenient.get("instead", {}).items()
        }
        return Grammar(maxima, tuple(required), instead)


_RULE: Final = re.compile(r"(?:(\d*)(\*)(\d*)\s*)?([<{\[])\s*([A-Za-z0-9.-]+)\s*([>}\]])\s*")
_BRACKETS: Final = {"<": ">", "{": "}", "[": "]"}


def parse_grammar(text: str, where: str) -> Iterable[tuple[str, int, int]]:
    """Yield (AVP name, least, most occurrences) for each rule of ``text``. Raises DictionaryError."""
    position = len(text) - len(text.lstrip())
    while position < len(text):
        match = _RULE.match(text, position)
        if match is None or _BRACKETS[match[4]] != match[6]:
            raise DictionaryError(f"{where}: grammar not understood at {text[position : position + 30]!r}")
        least, star, most, bracket, name = match[1], match[2], match[3], match[4], match[5]
        if not star:
            yield name, 0 if bracket == "[" else 1, 1
        else:
            # Section 3.2: "If absent, the default value is 0 for fixed and optional rules and 1 for required
            # rules."
            lower = int(least) if least else (1 if bracket == "{" else 0)
            yield name, lower, int(most) if most else _UNLIMITED
        position = match.end()


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def load() -> Dictionary:
    """Read and check the dictionary that comes with the package."""
    return Dictionary(tomllib.loads(files(__package__).joinpath("dictionary.toml").read_text("utf-8")))


DICTIONARY: Final[Dictionary] = load()
