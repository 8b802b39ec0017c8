"""One message as a tree of AVPs, read as far as it can be read at all, with each value as people say it.

Nothing here refuses anything: octets that are no AVP are kept as they are and shown as such. What is wrong with a
message is for ``faults`` and ``remarks`` to say.
"""

import ipaddress
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from struct import Struct
from typing import Final

from occ.decode import names
from occ.decode.streams import Found
from occ.rating.currency import currency_name
from protocols.diameter.codec import Avp
from protocols.diameter.codes import Application, AvpFlag, Command, Flag
from protocols.diameter.dictionary import DICTIONARY, AvpDefinition, AvpType, CommandDefinition, avp_key
from protocols.diameter.errors import AvpError, DiameterError
from protocols.diameter.validation import HEADER_LENGTH, LENGTH_MASK, MAX_DEPTH

#: A value as JSON can hold it.
Plain = int | float | str

_HEADER: Final = Struct(">IIIII")
_WORDS: Final = Struct(">II")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_EXPONENT: Final = 18
"""Powers of ten beyond this are not written out."""

BASE_COMMANDS: Final[frozenset[int]] = frozenset(
    (int(Command.CAPABILITIES_EXCHANGE), int(Command.DEVICE_WATCHDOG), int(Command.DISCONNECT_PEER))
)
"""Known by their code, whatever Application-Id they carry."""

_APPLICATION_AVPS: Final = frozenset(("Auth-Application-Id", "Acct-Application-Id"))
_VENDOR_AVPS: Final = frozenset(("Vendor-Id", "Supported-Vendor-Id"))


@cache
def key_of(name: str) -> int:
    """The dictionary's key of an AVP. Raises KeyError for a name that is not in it."""
    return DICTIONARY.avp_named(name).key


class Branch:
    """Something with AVPs in it. ``rest``: octets after them that are no AVP."""

    __slots__ = ("_every", "members", "rest")

    def __init__(self) -> None:
        self._every: list[Node] | None = None
        self.members: list[Node] = []
        self.rest = b""

    def first(self, name: str) -> "Node | None":
        """The first AVP of that name."""
        key = key_of(name)
        return next((node for node in self.members if node.key == key), None)

    def each(self, *names_: str) -> "list[Node]":
        """All AVPs of these names, in order."""
        keys = {key_of(name) for name in names_}
        return [node for node in self.members if node.key in keys]

    def has(self, *names_: str) -> bool:
        """Whether there is an AVP of one of these names."""
        return bool(self.each(*names_))

    def value_of(self, name: str) -> int | None:
        """The value of the first AVP of that name, None where there is none or it is no number."""
        node = self.first(name)
        return node.integer if node is not None else None

    def values_of(self, name: str) -> list[int]:
        """The values of all AVPs of that name, where they are numbers."""
        return [node.integer for node in self.each(name) if node.integer is not None]

    def text_of(self, name: str) -> str | None:
        """The text of the first AVP of that name, None where there is none."""
        node = self.first(name)
        return node.data.decode("utf-8", "backslashreplace") if node is not None else None

    def walk(self) -> "list[Node]":
        """All AVPs at every depth, but for those inside Failed-AVP, which are broken by nature."""
        if self._every is None:
            self._every = []
            for node in self.members:
                self._every.append(node)
                if node.members and node.key != key_of("Failed-AVP"):
                    self._every += node.walk()
        return self._every


class Node(Branch):
    """One AVP. ``octets``: all of it, without padding; ``data``: without its header; ``depth``: groups around it."""

    __slots__ = ("code", "data", "definition", "depth", "flags", "key", "octets", "vendor")

    def __init__(self, octets: bytes, depth: int) -> None:
        super().__init__()
        code, word = _WORDS.unpack_from(octets)
        self.code: int = code
        self.flags: int = word >> 24
        self.vendor = int.from_bytes(octets[8:12], "big") if self.flags & AvpFlag.VENDOR else 0
        self.key = avp_key(self.code, self.vendor)
        self.octets = octets
        self.data = octets[12 if self.flags & AvpFlag.VENDOR else 8 :]
        self.depth = depth
        self.definition: AvpDefinition | None = DICTIONARY.avp(self.code, self.vendor)
        if self.is_group and depth < MAX_DEPTH:
            self.members, self.rest = split(self.data, depth + 1)

    @property
    def name(self) -> str:
        return self.definition.name if self.definition is not None else "unknown AVP"

    @property
    def is_group(self) -> bool:
        return self.definition is not None and self.definition.grouped

    @property
    def flag_letters(self) -> str:
        """'VM' and the like; 'r' where a reserved bit is set."""
        letters = "".join(letter for letter, bit in zip("VMP", (0x80, 0x40, 0x20), strict=True) if self.flags & bit)
        return letters + ("r" if self.flags & 0x1F else "")

    @property
    def integer(self) -> int | None:
        """The value of a number, an Enumerated or a Time; None for others and for one of wrong length."""
        value = self._value()
        return value if isinstance(value, int) else None

    def _value(self) -> object:
        try:
            return Avp(self.code, self.vendor, self.flags, self.data).value()
        except AvpError:
            return self.data

    def plain(self) -> Plain:
        """The value for JSON: numbers as such, Time as Unix seconds, octets as hexadecimal digits."""
        value = self._value()
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, int | float | str):
            return value
        return self.data.hex()

    def shown(self) -> str:
        """The value for people; of a group its amount, where it is one, or nothing."""
        if self.is_group:
            return _amount_text(self) if self.members else self.data.hex()
        value = self._value()
        if isinstance(value, int):
            return self._number_text(value)
        if isinstance(value, str | float):
            return str(value)
        return _octets_text(self)

    def _number_text(self, value: int) -> str:
        name = self.name
        label = ""
        if self.definition is not None and self.definition.type is AvpType.TIME:
            return time_text(value)
        if self.definition is not None and self.definition.type is AvpType.ENUMERATED:
            label = self.definition.values.get(value) or names.enumeration(name).get(value, "")
        elif name == "Result-Code":
            label = names.result_name(value)
        elif name in _APPLICATION_AVPS:
            label = names.application_name(value)
        elif name in _VENDOR_AVPS and names.vendor_name(value) != str(value):
            label = names.vendor_name(value)
        elif name == "Currency-Code" and 0 <= value < 1000 and not currency_name(value).isdigit():
            label = currency_name(value)
        elif name == "Inband-Security-Id":
            label = names.enumeration(name).get(value, "")
        return f"{label} ({value})" if label else str(value)


def split(octets: bytes, depth: int) -> tuple[list[Node], bytes]:
    """The AVPs in octets, and what follows the last that can be read."""
    found: list[Node] = []
    at, end = 0, len(octets)
    while end - at >= 8:
        (word,) = Struct(">I").unpack_from(octets, at + 4)
        length = word & LENGTH_MASK
        if length < (12 if word >> 24 & AvpFlag.VENDOR else 8) or at + length > end:
            return found, octets[at:]
        found.append(Node(octets[at : at + length], depth))
        at += (length + 3) & ~3
    return found, octets[at:]


class Kind(Enum):
    """How grave a remark is."""

    ERROR = "error"
    """The message is refused, discarded, or cannot be read."""
    BREACH = "breach"
    """It breaks a rule, or brings about what nobody can want; nothing refuses it for that."""
    TOLERATED = "tolerated"
    """It breaks a rule, and the server overlooks it because real clients do so."""
    NOTE = "note"
    """Nothing is wrong, but it helps to know."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One remark. ``row``: of the conformance table, 0 for none; ``clause``: the section or the client it is from."""

    kind: Kind
    text: str
    row: int
    clause: str

    @property
    def source(self) -> str:
        """'row 25, RFC 8506 section 5.1.2'."""
        return ", ".join(part for part in (f"row {self.row}" if self.row else "", self.clause) if part)


@dataclass(slots=True)
class Relation:
    """The message that answers this one, or that this one answers. ``delay_ns`` between them, None if not known."""

    number: int
    delay_ns: int | None


@dataclass(eq=False)
class DecodedMessage(Branch):
    """One message and all that is said about it.

    ``number`` counts from 1. ``error``: what the server answers it with, or why a receiver would not take it.
    ``answer``, ``request``: how it belongs to other messages of the same capture.
    """

    number: int
    found: Found
    version: int = field(init=False)
    length: int = field(init=False)
    flags: int = field(init=False)
    command: int = field(init=False)
    application: int = field(init=False)
    hop_by_hop: int = field(init=False)
    end_to_end: int = field(init=False)
    error: DiameterError | None = None
    remarks: list[Remark] = field(default_factory=list)
    answer: Relation | None = None
    request: Relation | None = None

    def __post_init__(self) -> None:
        super().__init__()
        octets = self.found.octets
        first, second, self.application, self.hop_by_hop, self.end_to_end = _HEADER.unpack_from(octets)
        self.version, self.length = first >> 24, first & LENGTH_MASK
        self.flags, self.command = second >> 24, second & LENGTH_MASK
        self.members, self.rest = split(octets[HEADER_LENGTH:], 0)

    @property
    def is_request(self) -> bool:
        return self.flags & Flag.REQUEST != 0

    @property
    def is_error(self) -> bool:
        return self.flags & Flag.ERROR != 0

    @property
    def grammar_application(self) -> int:
        """The Application-Id by which the grammar is found."""
        return int(Application.BASE) if self.command in BASE_COMMANDS else self.application

    @property
    def definition(self) -> CommandDefinition | None:
        """The dictionary's command, None where the server does not know it."""
        return DICTIONARY.command(self.command, self.grammar_application, self.is_request)

    @property
    def name(self) -> str:
        return names.command_name(self.command, self.grammar_application, self.is_request)

    @property
    def flag_words(self) -> list[str]:
        """'REQ', 'PXY', 'ERR', 'T'; 'r' where a reserved bit is set."""
        words = (("REQ", Flag.REQUEST), ("PXY", Flag.PROXIABLE), ("ERR", Flag.ERROR), ("T", Flag.RETRANSMIT))
        return [word for word, bit in words if self.flags & bit] + (["r"] if self.flags & 0x0F else [])

    @property
    def result_code(self) -> int | None:
        """Result-Code of an answer, None where it has none."""
        return self.value_of("Result-Code")


# -- values as people say them -----------------------------------------------------------------------------------


def time_text(unix_s: int) -> str:
    """'2026-01-31 12:00:00Z' of Unix seconds."""
    return f"{_EPOCH + timedelta(seconds=unix_s):%Y-%m-%d %H:%M:%S}Z"


def decimal_text(digits: int, exponent: int) -> str:
    """'1.50' for 150 and -2, exactly; '150 x 10^-99' where that would be a long number."""
    if abs(exponent) > _LARGEST_EXPONENT:
        return f"{digits} x 10^{exponent}"
    if exponent >= 0:
        return str(digits * 10**exponent)
    sign = "-" if digits < 0 else ""
    whole, decimals = divmod(abs(digits), 10**-exponent)
    return f"{sign}{whole}.{decimals:0{-exponent}d}"


def _amount_text(node: Node) -> str:
    """The amount that a Unit-Value, or a group with one in it, stands for (RFC 8506 section 8.8)."""
    unit_value = node if node.name == "Unit-Value" else node.first("Unit-Value")
    if unit_value is None:
        return ""
    digits = unit_value.value_of("Value-Digits")
    if digits is None:
        return ""
    amount = decimal_text(digits, unit_value.value_of("Exponent") or 0)
    currency = node.value_of("Currency-Code")
    if currency is not None and 0 <= currency < 1000:
        return f"{amount} {currency_name(currency)}"
    return amount


def _octets_text(node: Node) -> str:
    """Octets as hexadecimal digits, with what they say as an address or as text."""
    data = node.data
    digits = f"0x{data.hex()}" if data else "empty"
    address = _address_text(node.name, data)
    if address:
        return f"{digits} ({address})"
    if data and all(0x20 <= octet < 0x7F for octet in data):
        return f'{digits} "{data.decode("ascii")}"'
    return digits


def _address_text(name: str, data: bytes) -> str:
    """Addresses that RADIUS attributes hold as bare octets (RFC 7155 section 4.4.10.5, RFC 3162 section 2.3)."""
    if name in ("Framed-IP-Address", "Framed-IP-Netmask", "NAS-IP-Address") and len(data) == 4:
        return str(ipaddress.IPv4Address(data))
    if name == "NAS-IPv6-Address" and len(data) == 16:
        return str(ipaddress.IPv6Address(data))
    if name in ("Framed-IPv6-Prefix", "Delegated-IPv6-Prefix") and 2 <= len(data) <= 18 and data[1] <= 128:
        return f"{ipaddress.IPv6Address(data[2:].ljust(16, bytes(1)))}/{data[1]}"
    return ""
