"""How scenarios write AVPs, units, money and times; see README.md beside this file.

Everything here turns text into values or AVPs and back. ``NotationError`` says what was not understood.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from protocols.diameter.codec import Avp, avp, raw_avp
from protocols.diameter.codes import AvpFlag
from protocols.diameter.dictionary import DICTIONARY, AvpType

MICRO = 1_000_000

OCTETS = {
    "octet": 1, "octets": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3,
    "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
}  # fmt: skip
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
EVENTS = {"event": 1, "events": 1}

Units = tuple[tuple[str, int], ...]
"""Members of a -Service-Unit AVP by name; CC-Money in micro-units."""

ACCOUNT = re.compile(r"an? (prepaid|postpaid) account with (\S+)((?: and .+?)*?)(?: on plan (\S+))?")
"""What follows "Given" for the account of a scenario."""

_FLAGS = {"V": AvpFlag.VENDOR, "M": AvpFlag.MANDATORY, "P": AvpFlag.PROTECTED}
_AVP_NAME = re.compile(r"AVP (\d+)(?:/(\d+))?|[A-Za-z0-9][A-Za-z0-9-]*")
_SERVICE = re.compile(r"(?:(?P<rg>RG \d+)? ?(?P<si>SI \d+(?: \d+)*)?|MSCC|units):(?P<items>.*)")


class NotationError(Exception):
    """A scenario is written in a way that is not understood."""


def clauses(text: str, separator: str = ";") -> list[str]:
    """The parts of a cell between separators that stand outside quotes and braces."""
    parts = [""]
    depth = 0
    quoted = False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter in "{}":
            depth += 1 if letter == "{" else -1
        if letter == separator and not quoted and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def money_micro(text: str) -> int:
    """Micro-units of an amount such as "10.00"."""
    try:
        value = Decimal(text) * MICRO
    except ArithmeticError:
        raise NotationError(f"{text!r} is no amount of money") from None
    if value != int(value):
        raise NotationError(f"{text!r} is finer than a millionth")
    return int(value)


def show_money(micro: int) -> str:
    """An amount as scenarios write it: two decimals, more where they are needed."""
    value = Decimal(micro) / MICRO
    exponent = value.as_tuple().exponent
    return f"{value:.2f}" if isinstance(exponent, int) and exponent >= -2 else f"{value.normalize():f}"


def duration_s(text: str) -> int:
    """Seconds of "90 s", "30 min", "2 h"."""
    return _count(text, SECONDS)


def _count(text: str, words: dict[str, int]) -> int:
    match = re.fullmatch(r"(\d+) ([A-Za-z]+)", text.strip())
    if match is None or match[2] not in words:
        raise NotationError(f"{text!r} is not understood; a number and one of {', '.join(words)} is wanted")
    return int(match[1]) * words[match[2]]


def units(text: str) -> Units:
    """The members of one unit AVP: "1 MiB", "in 5 kB out 1 kB", "12 s + 1 MiB", "3 events", "money 0.05"."""
    found: list[tuple[str, int]] = []
    for part in map(str.strip, text.split("+")):
        both = re.fullmatch(r"in (.+) out (.+)", part)
        if both:
            found.append(("CC-Input-Octets", _count(both[1], OCTETS)))
            found.append(("CC-Output-Octets", _count(both[2], OCTETS)))
        elif part.startswith("money "):
            found.append(("CC-Money", money_micro(part[6:])))
        else:
            word = part.rpartition(" ")[2]
            if word in SECONDS:
                found.append(("CC-Time", _count(part, SECONDS)))
            elif word in EVENTS:
                found.append(("CC-Service-Specific-Units", _count(part, EVENTS)))
            else:
                found.append(("CC-Total-Octets", _count(part, OCTETS)))
    return tuple(found)


def encode_units(members: Units) -> list[bytes]:
    """The member AVPs of a -Service-Unit AVP."""
    return [_money_avp(value) if name == "CC-Money" else avp(name, value) for name, value in members]


def _money_avp(micro: int) -> bytes:
    cents, rest = divmod(micro, MICRO // 100)
    digits = [avp("Value-Digits", micro), avp("Exponent", -6)]
    if not rest:
        digits = [avp("Value-Digits", cents), avp("Exponent", -2)]
    return avp("CC-Money", [avp("Unit-Value", digits), avp("Currency-Code", 978)])


def read_units(group: Avp) -> Units:
    """The members of a received -Service-Unit AVP."""
    found = []
    for member in members_of(group):
        if member.name == "Tariff-Time-Change":
            continue
        value = member.value()
        found.append((member.name, _money_value(member) if member.name == "CC-Money" else _number(value)))
    return tuple(found)


def tariff_time_change(group: Avp) -> int | None:
    """Tariff-Time-Change of a Granted-Service-Unit, Unix seconds."""
    return next((_number(one.value()) for one in members_of(group) if one.name == "Tariff-Time-Change"), None)


def equal_data(found: bytes, wanted: bytes) -> bool:
    """Whether the data of two AVPs say the same; the flags of members within a group may differ."""
    return found == wanted or _without_flags(found) == _without_flags(wanted)


def _without_flags(data: bytes) -> object:
    """The members of a group, or the data itself if it is none."""
    members: list[object] = []
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 5 : at + 8], "big")
        start = 12 if data[at + 4] & AvpFlag.VENDOR else 8
        if length < start or at + length > len(data):
            return data
        members.append((data[at : at + 4], data[at + 8 : at + start], _without_flags(data[at + start : at + length])))
        at += (length + 3) & ~3
    return members if members and at == len(data) else data


def _money_value(group: Avp) -> int:
    unit = {member.name: _number(member.value()) for member in members_of(members_of(group)[0])}
    return int(Decimal(unit["Value-Digits"]).scaleb(unit.get("Exponent", 0)) * MICRO)


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise NotationError(f"{value!r} is no number")
    return value


def show_units(members: Units) -> str:
    """Units as scenarios write them."""
    words = {"CC-Time": "s", "CC-Service-Specific-Units": "events", "CC-Total-Octets": "octets"}
    shown = []
    for name, value in members:
        if name == "CC-Money":
            shown.append(f"money {show_money(value)}")
        elif name in words:
            shown.append(f"{value} {words[name]}")
        else:
            shown.append(f"{name} {value}")
    return " + ".join(shown) or "no units"


def members_of(group: Avp) -> list[Avp]:
    """What a received group holds."""
    value = group.value()
    if not isinstance(value, list):
        raise NotationError(f"{group.name} is no group")
    return value


# -- AVPs --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrittenAvp:
    """An AVP as a scenario names it; ``encoded`` is None where only the name is given."""

    code: int
    vendor: int
    encoded: bytes | None

    def is_same_kind(self, other: Avp) -> bool:
        return (self.code, self.vendor) == (other.code, other.vendor)


def written_avp(text: str) -> WrittenAvp:
    """``Name``, ``Name=value``, ``Name{members}``, ``AVP code/vendor``, each with flags: ``Name[M]=value``."""
    reader = _Reader(text)
    found = reader.one()
    if reader.rest():
        raise NotationError(f"{reader.rest()!r} is left over in {text!r}")
    return found


class _Reader:
    """Reads AVPs by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rest(self) -> str:
        return self._text[self._at :].strip()

    def one(self) -> WrittenAvp:
        self._skip_spaces()
        match = _AVP_NAME.match(self._text, self._at)
        if match is None:
            raise NotationError(f"an AVP is wanted at {self.rest()!r}")
        self._at = match.end()
        flags = self._flags()
        if match[1] is not None:
            code, vendor = int(match[1]), int(match[2] or 0)
            encode = partial(raw_avp, code, vendor, flags or 0)
            return WrittenAvp(code, vendor, self._value(encode, None))
        try:
            definition = DICTIONARY.avp_named(match[0])
        except KeyError as error:
            raise NotationError(str(error)) from None
        bits = definition.flags if flags is None else flags
        encode = partial(raw_avp, definition.code, definition.vendor, bits)
        return WrittenAvp(definition.code, definition.vendor, self._value(encode, definition.type, match[0]))

    def _flags(self) -> int | None:
        match = re.compile(r"\[([VMP]*)\]").match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return sum(_FLAGS[letter] for letter in match[1])

    def _value(self, encode: Callable[[bytes], bytes], kind: AvpType | None, name: str = "") -> bytes | None:
        if self._text.startswith("{", self._at):
            self._at += 1
            inner = []
            while not self._text.startswith("}", self._at):
                member = self.one()
                if member.encoded is None:
                    raise NotationError(f"a member of {name or 'the group'} has no value")
                inner.append(member.encoded)
                self._skip_spaces()
                if self._text.startswith(",", self._at):
                    self._at += 1
                    self._skip_spaces()
                elif not self._text.startswith("}", self._at):
                    raise NotationError(f"'}}' is wanted at {self.rest()!r}")
            self._at += 1
            return encode(b"".join(inner))
        if not self._text.startswith("=", self._at):
            return None
        self._at += 1
        match = re.compile(r'"([^"]*)"|0x([0-9A-Fa-f ]*)|([^,;{}"]*)').match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        if match[2] is not None:
            return encode(bytes.fromhex(match[2]))
        written = match[1] if match[1] is not None else match[3].strip()
        if kind is None:
            raise NotationError("an AVP by number takes its value as 0x and hexadecimal digits")
        try:
            value = int(written) if _is_numeric(kind) else written
            data = avp(name, value if kind is not AvpType.OCTET_STRING else written.encode())
        except ValueError as error:
            raise NotationError(str(error)) from None
        return encode(_data(data))

    def _skip_spaces(self) -> None:
        while self._text.startswith(" ", self._at):
            self._at += 1


def _is_numeric(kind: AvpType) -> bool:
    return kind in (
        AvpType.INTEGER32,
        AvpType.INTEGER64,
        AvpType.UNSIGNED32,
        AvpType.UNSIGNED64,
        AvpType.ENUMERATED,
        AvpType.TIME,
    )


def _data(encoded: bytes) -> bytes:
    """The data of an encoded AVP, without padding."""
    start = 12 if encoded[4] & AvpFlag.VENDOR else 8
    return encoded[start : int.from_bytes(encoded[5:8], "big")]


def data_of(written: WrittenAvp) -> bytes:
    """The data a written AVP stands for."""
    assert written.encoded is not None
    return _data(written.encoded)


# -- services ----------------------------------------------------------------------------------------------------------


@dataclass
class ServiceClause:
    """``RG 10: used 1 MiB, wants 1 MiB`` of a request, or ``RG 10: 2001, granted 1 MiB, final units`` of an answer.

    ``where`` is "MSCC", or "units" for what stands outside any Multiple-Services-Credit-Control.
    """

    where: str
    rating_group: int | None
    service_identifiers: tuple[int, ...]
    items: Sequence[str]


def service_clause(text: str) -> ServiceClause | None:
    """The clause about one service, or None if it is about something else."""
    match = _SERVICE.fullmatch(text)
    if match is None:
        return None
    head = text.partition(":")[0]
    identifiers = tuple(int(each) for each in (match["si"] or "SI").split()[1:])
    return ServiceClause(
        "units" if head == "units" else "MSCC",
        int(match["rg"][3:]) if match["rg"] else None,
        identifiers,
        clauses(match["items"], ","),
    )


def service_avps(clause: ServiceClause) -> list[bytes]:
    """The AVPs a request has for it: one MSCC, or the units alone."""
    before: list[bytes] = []
    after: list[bytes] = []
    for item in clause.items:
        verb, _, rest = item.partition(" ")
        if item == "wants anything":
            before.append(avp("Requested-Service-Unit", []))
        elif verb == "wants":
            before.append(avp("Requested-Service-Unit", encode_units(units(rest))))
        elif verb == "used":
            after += _used(rest)
        elif verb == "reason":
            after.append(avp("Reporting-Reason", int(rest)))
        else:
            written = written_avp(item)
            if written.encoded is None:
                raise NotationError(f"{item!r} is not understood in a request")
            after.append(written.encoded)
    names = [avp("Service-Identifier", each) for each in clause.service_identifiers]
    if clause.rating_group is not None:
        names.append(avp("Rating-Group", clause.rating_group))
    if clause.where == "units":
        return names + before + after
    return [avp("Multiple-Services-Credit-Control", before + names + after)]


def _used(text: str) -> list[bytes]:
    """One Used-Service-Unit for each "and".

    "because 3" is its Reporting-Reason; "before the switch", "after the switch" and "around the switch" are its
    Tariff-Change-Usage.
    """
    found = []
    for part in re.split(r" and ", text):
        amount, _, reason = part.partition(" because ")
        side = re.fullmatch(r"(.+) (before|after|around) the switch", amount)
        members = encode_units(units(side[1] if side else amount))
        if side:
            members.insert(0, avp("Tariff-Change-Usage", ["before", "after", "around"].index(side[2])))
        if reason:
            members.insert(0, avp("Reporting-Reason", int(reason)))
        found.append(avp("Used-Service-Unit", members))
    return found
