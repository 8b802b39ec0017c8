"""Numbers as networks send them, brought to one form: international digits, a short code, an emergency call.

Read from the section ``numbering`` of the catalogue::

    numbering:
      country_code: 49
      national_prefix: 0                # dialled before a national number; none: national numbers have no prefix
      international_prefixes: [00]      # dialled before a country code
      national_digits: 3-11             # digits of a national number without prefix; left out: any
      home_area: 30                     # area code of numbers dialled without one
      local_digits: 5-8                 # digits of a number dialled without area code
      emergency: [110, 112]             # default 112 and 911; they go before everything else
      short_codes: [115, 116117, 118xx] # x: any digit
      ported: routing-number            # whose price a ported number has: routing-number or called-number

``normalise`` takes ``tel:`` URIs (RFC 3966, with the number portability parameters of RFC 4694), ``sip:`` and
``sips:`` URIs whose user part is a number (RFC 3261 section 19.1.6), emergency URNs (RFC 5031) and plain digits.

A number with "+" is international. Without, it is what somebody dialled, and the first rule that fits decides:

1. an emergency number or a short code, all of it;
2. an international prefix, then a country code;
3. the national prefix, then a national number of ``national_digits`` or more;
4. a ``phone-context`` that is a number: the context, then these digits;
5. exactly as many digits as ``national_digits`` says: a national number dialled without prefix;
6. as many digits as ``local_digits`` says, if there is a ``home_area``: a number of that area;
7. fewer than seven digits: a short code that ``short_codes`` does not list;
8. otherwise international digits without "+".

Where "8" is the national prefix, 81312345678 is a Russian number by rule 3, though as an MSISDN it is Japanese. Only
the one who asks can know: with ``msisdn=True`` rules 2 to 6 are left out unless the digits begin with zero, as no
country code does. That is for the recipients of short messages, which come as E.164 without "+" (TS 32.299, Address-
Data of Address-Type MSISDN).
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import unquote

from occ.yamlmap import Node

__all__ = ["Kind", "Number", "Numbering", "read_numbering"]

LONGEST_NUMBER: Final = 32
"""Digits of a number at most. E.164 allows 15; people go on dialling, and that changes nothing about the price."""
LONGEST_ADDRESS: Final = 1024
"""Octets of an address at most; what is longer is no number."""
SHORTEST_INTERNATIONAL: Final = 7
"""Digits without "+" or prefix that are fewer than this are no international number."""
DEFAULT_EMERGENCY: Final = ("112", "911")
DEFAULT_LOCAL_DIGITS: Final = range(5, 9)
NO_LENGTHS: Final = range(0)
PORTED: Final = ("routing-number", "called-number")


class Kind(StrEnum):
    """What an address turned out to be."""

    E164 = "e164"
    """A number with country code (ITU-T E.164)."""
    SHORT = "short"
    """A short code of the home country."""
    EMERGENCY = "emergency"
    URI = "uri"
    """A good address that is no number: sip:alice@example.net."""
    UNKNOWN = "unknown"
    """Empty, or nothing that could be called."""


class Number(NamedTuple):
    """A called number in its one form."""

    kind: Kind
    digits: str = ""
    """E164: with country code, without "+". SHORT, EMERGENCY: as dialled; empty for an emergency URN. Else empty."""
    routing: str = ""
    """Routing number of a ported number, with country code and without "+", hexadecimal digits in capitals. Empty where
    there is none, or where the called number decides on the price."""

    def __str__(self) -> str:
        return f"+{self.digits}" if self.kind is Kind.E164 else self.digits


URI: Final = Number(Kind.URI)
UNKNOWN: Final = Number(Kind.UNKNOWN)
EMERGENCY_URN: Final = Number(Kind.EMERGENCY)

_E164: Final = Kind.E164
# The forms that most requests have: tel:+49..., sip:+49...@domain;user=phone, +49...
_COMMON: Final = re.compile(
    rb"(?:tel:|sips?:)?\+([1-9][0-9]{7,14})(?:@[A-Za-z0-9.:\[\]-]{1,255}(?:;user=phone)?)?", re.ASCII
)
_SEPARATORS: Final = str.maketrans("", "", "-.() ")
_DIGITS: Final = re.compile(r"[0-9]{1,32}", re.ASCII)
_DIALLED: Final = re.compile(r"[0-9*#]{1,32}", re.ASCII)
_HEX: Final = re.compile(r"[0-9A-F]{1,32}", re.ASCII)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_SOS: Final = re.compile(r"service:sos(?:\.[a-z0-9.-]+)?", re.ASCII)
_ROUTING: Final = re.compile(r"(?:^|;)rn=([^;@>?]*)", re.ASCII | re.IGNORECASE)
_ROUTING_CONTEXT: Final = re.compile(r"(?:^|;)rn-context=([^;@>?]*)", re.ASCII | re.IGNORECASE)
_PHONE_CONTEXT: Final = re.compile(r"(?:^|;)phone-context=([^;@>?]*)", re.ASCII | re.IGNORECASE)

_COUNTRY_CODE: Final = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_AREA: Final = re.compile(r"[0-9]{1,8}", re.ASCII)
_LENGTHS: Final = re.compile(r"([0-9]{1,2})(?:-([0-9]{1,2}))?", re.ASCII)
_SHORT_CODE: Final = re.compile(r"(?=.*[0-9])[0-9*#x]{1,16}", re.ASCII)

_KEYS: Final = (
    "country_code",
    "national_prefix",
    "international_prefixes",
    "national_digits",
    "home_area",
    "local_digits",
    "emergency",
    "short_codes",
    "ported",
)


class Numbering:
    """How numbers are dialled in the operator's country. Not to be changed once made."""

    __slots__ = (
        "_abroad",
        "_area",
        "_bare",
        "_longest_special",
        "_patterns",
        "by_routing_number",
        "country_code",
        "emergency",
        "home_area",
        "international_prefixes",
        "local_digits",
        "national_digits",
        "national_prefix",
        "short_codes",
    )

    def __init__(
        self,
        country_code: str = "",
        *,
        national_prefix: str = "",
        international_prefixes: Sequence[str] = ("00",),
        national_digits: range = NO_LENGTHS,
        home_area: str = "",
        local_digits: range = DEFAULT_LOCAL_DIGITS,
        emergency: Sequence[str] = DEFAULT_EMERGENCY,
        short_codes: Sequence[str] = (),
        by_routing_number: bool = True,
    ) -> None:
        """Raises ValueError: without a country code there are no national numbers."""
        if not country_code and (national_prefix or home_area or national_digits):
            raise ValueError("a national prefix, national digits or a home area need a country code")
        self.country_code = country_code
        """Empty: national numbers are not known, digits are taken as international."""
        self.national_prefix = national_prefix
        self.international_prefixes = tuple(sorted(international_prefixes, key=len, reverse=True))
        self.national_digits = national_digits
        """Lengths of national numbers, without prefix; empty: any, but only with prefix."""
        self.home_area = home_area
        self.local_digits = local_digits
        self.emergency = frozenset(emergency)
        self.short_codes = frozenset(short_codes)
        """As written, with x for any digit."""
        self.by_routing_number = by_routing_number
        """Numbers carry the routing number they were ported to."""
        self._area = country_code + home_area
        self._patterns = _any_of([code for code in short_codes if "x" in code])
        self._bare = {code: Number(Kind.SHORT, code) for code in short_codes if "x" not in code}
        self._bare.update((code, Number(Kind.EMERGENCY, code)) for code in emergency)
        self._abroad = {country_code + code: number for code, number in self._bare.items()} if country_code else {}
        self._longest_special = max(map(len, (*emergency, *short_codes)), default=0) + len(country_code)

    def special(self, digits: str) -> Number | None:
        """The emergency call or the listed short code that these digits are, all of them; None if they are neither."""
        found = self._bare.get(digits)
        if found is None and self._patterns is not None and self._patterns.fullmatch(digits):
            return Number(Kind.SHORT, digits)
        return found

    def normalise(self, called: bytes | str, portability: bytes | None = None, *, msisdn: bool = False) -> Number:
        """The number that an address is. Never raises.

        ``called``: Called-Party-Address, a recipient's Address-Data, or what somebody types. ``portability``:
        Number-Portability-Routing-Information (TS 32.299 clause 7.2), which goes before an ``rn`` of the address.
        ``msisdn``: digits without "+" are international, see the module's page.
        """
        address = called.encode("utf-8", "replace") if isinstance(called, str) else called
        common = _COMMON.fullmatch(address)
        if common is not None and len(common[1]) > self._longest_special:
            number = Number(_E164, common[1].decode("ascii"))
        elif len(address) > LONGEST_ADDRESS:
            return UNKNOWN
        else:
            number = self._address(address.decode("ascii", "replace").strip(), msisdn)
        if portability and self.by_routing_number and number.kind is _E164:
            routing = self._portability(portability)
            if routing:
                return number._replace(routing=routing)
        return number

    # -- addresses ---------------------------------------------------------------------------------------------------

    def _address(self, address: str, msisdn: bool) -> Number:
        if address.endswith(">"):
            address = address[address.find("<") + 1 : -1]
        scheme, colon, rest = address.partition(":")
        if not colon:
            return self._user(address, msisdn) if "@" in address else self._subscriber(address, "", msisdn)
        scheme = scheme.lower()
        if scheme == "tel":
            number, _, parameters = rest.partition(";")
            return self._subscriber(number, parameters, msisdn)
        if scheme in ("sip", "sips"):
            return self._user(rest, msisdn)
        if scheme == "urn":
            return EMERGENCY_URN if _SOS.fullmatch(rest.lower()) else URI
        return URI if rest and _SCHEME.fullmatch(scheme) else UNKNOWN

    def _user(self, rest: str, msisdn: bool) -> Number:
        """``user@host;parameters`` of a SIP URI: its telephone-subscriber, if the user part is one."""
        user, at, host = rest.partition("?")[0].rpartition("@")
        if not at:
            return URI if host else UNKNOWN
        number, _, parameters = unquote(user).partition(";")
        # The parameters of the number belong before the host, and some networks put them behind it.
        found = self._subscriber(number.partition(":")[0], f"{parameters};{host.partition(';')[2]}", msisdn)
        return URI if found is UNKNOWN and user else found

    def _subscriber(self, written: str, parameters: str, msisdn: bool) -> Number:
        """The telephone-subscriber of RFC 3966: digits with separators, and parameters."""
        digits = written.partition(";")[0].translate(_SEPARATORS)
        if digits[:1] == "+":
            number = self._global(digits[1:]) if _DIGITS.fullmatch(digits, 1) else UNKNOWN
        elif _DIALLED.fullmatch(digits):
            number = self._dialled(digits, _context(_PHONE_CONTEXT, parameters), msisdn)
        else:
            return UNKNOWN
        if parameters and self.by_routing_number and number.kind is _E164:
            routing = self._routing_parameter(parameters)
            return number._replace(routing=routing) if routing else number
        return number

    # -- digits ------------------------------------------------------------------------------------------------------

    def _global(self, digits: str) -> Number:
        """Digits that followed a "+". Where the first is zero, somebody put "+" before what was dialled."""
        return self._dialled(digits, "", False) if digits[0] == "0" else self._e164(digits)

    def _e164(self, digits: str) -> Number:
        """International digits; the home country's short codes may come with its country code in front."""
        if not digits or digits[0] == "0" or len(digits) > LONGEST_NUMBER:
            return UNKNOWN
        if len(digits) <= self._longest_special and self.country_code and digits.startswith(self.country_code):
            special = self.special(digits[len(self.country_code) :])
            if special is not None:
                return special
        return Number(_E164, digits)

    def _dialled(self, digits: str, context: str, msisdn: bool) -> Number:
        """Digits without "+", by the rules of the module's page."""
        special = self.special(digits)
        if special is not None:
            return special
        if not digits.isdigit():
            return UNKNOWN
        length = len(digits)
        if not msisdn or digits[0] == "0":
            for prefix in self.international_prefixes:
                if digits.startswith(prefix) and length > len(prefix):
                    return self._e164(digits[len(prefix) :])
            national = self._national(digits, context)
            if national is not None:
                return self._e164(national)
        if length < SHORTEST_INTERNATIONAL:
            return Number(Kind.SHORT, digits)
        return self._e164(digits)

    def _national(self, digits: str, context: str) -> str | None:
        """International digits of a number dialled within the country; None if it is not one."""
        length = len(digits)
        code, prefix = self.country_code, self.national_prefix
        if prefix and digits.startswith(prefix) and (not context or context.startswith(code)):
            rest = length - len(prefix)
            if rest >= (self.national_digits.start if self.national_digits else 1):
                return code + digits[len(prefix) :]
        if context:
            return context + digits
        if length in self.national_digits:
            return code + digits
        if self.home_area and length in self.local_digits:
            return self._area + digits
        return None

    # -- ported numbers ----------------------------------------------------------------------------------------------

    def _portability(self, information: bytes) -> str:
        """The routing number in a Number-Portability-Routing-Information: a URI with ``rn``, a URI, or digits."""
        if len(information) > LONGEST_ADDRESS:
            return ""
        text = information.decode("ascii", "replace").strip()
        if "=" in text:
            found = self._routing_parameter(text)
            if found or _ROUTING.search(text):
                return found
        scheme, colon, rest = text.partition(":")
        if colon and scheme.lower() not in ("tel", "sip", "sips"):
            return ""
        return self._routing_number((rest if colon else text).partition(";")[0].partition("@")[0], "")

    def _routing_parameter(self, parameters: str) -> str:
        """The parameter ``rn`` (RFC 4694 section 4); empty if there is none."""
        match = _ROUTING.search(parameters)
        return "" if match is None else self._routing_number(match[1], _context(_ROUTING_CONTEXT, parameters))

    def _routing_number(self, written: str, context: str) -> str:
        """With country code, without "+"; a local routing number without context is the home country's."""
        digits = written.translate(_SEPARATORS).upper()
        if digits[:1] == "+":
            return digits[1:] if _HEX.fullmatch(digits, 1) else ""
        if not _HEX.fullmatch(digits):
            return ""
        if context or not digits.isdigit():
            return (context or self.country_code) + digits
        number = self._dialled(digits, "", False)
        return number.digits if number.kind is _E164 else ""


def _context(which: re.Pattern[str], parameters: str) -> str:
    """Digits of a context that is an international number; empty for a domain name, or if there is none."""
    match = which.search(parameters) if parameters else None
    if match is None or match[1][:1] != "+":
        return ""
    digits = match[1][1:].translate(_SEPARATORS)
    return digits if _DIGITS.fullmatch(digits) and digits[0] != "0" else ""


def _any_of(codes: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(re.escape(code).replace("x", "[0-9]") for code in codes)) if codes else None


def read_numbering(node: Node) -> Numbering:
    """The section ``numbering`` of a catalogue. Raises ConfigError."""
    values = node.mapping(_KEYS, required=("country_code",))
    read: dict[str, Node] = {name: value for name, value in values.items() if not value.is_null}
    country_code = _matching(values["country_code"], _COUNTRY_CODE, "a country code such as 49")
    national_prefix = read.get("national_prefix")
    prefixes = read.get("international_prefixes")
    area = read.get("home_area")
    emergency, short_codes = read.get("emergency"), read.get("short_codes")
    ported = read.get("ported")
    if area is None and "local_digits" in read:
        raise read["local_digits"].error(f"{read['local_digits'].path} needs a home_area that such numbers belong to")
    return Numbering(
        country_code,
        national_prefix="" if national_prefix is None else _digits(national_prefix),
        international_prefixes=("00",) if prefixes is None else _list(prefixes, _DIGITS, "digits such as 00"),
        national_digits=_lengths(read["national_digits"]) if "national_digits" in read else NO_LENGTHS,
        home_area="" if area is None else _digits(area),
        local_digits=_lengths(read["local_digits"]) if "local_digits" in read else DEFAULT_LOCAL_DIGITS,
        emergency=DEFAULT_EMERGENCY if emergency is None else _list(emergency, _DIGITS, "digits such as 112"),
        short_codes=() if short_codes is None else _list(short_codes, _SHORT_CODE, "digits, *, # and x, such as 118xx"),
        by_routing_number=ported is None or ported.choice(PORTED) == PORTED[0],
    )


def _matching(node: Node, pattern: re.Pattern[str], what: str) -> str:
    written = node.text()
    if not pattern.fullmatch(written):
        raise node.error(f"{node.path} must be {what}, not {written[:40]!r}")
    return written


def _digits(node: Node) -> str:
    return "" if node.text() == "none" else _matching(node, _AREA, "at most eight digits")


def _list(node: Node, pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for item in node.items():
        written = _matching(item, pattern, what)
        if written in found:
            raise item.error(f"{written} stands twice in {node.path}")
        found[written] = None
    return tuple(found)


def _lengths(node: Node) -> range:
    """ "10" or "9-11"."""
    match = _LENGTHS.fullmatch(node.text())
    low = int(match[1]) if match else 0
    high = int(match[2] or low) if match else 0
    if not 1 <= low <= high <= 15:
        raise node.error(
            f"{node.path} must be a number of digits such as 10 or 9-11, 15 at most, not {node.text()[:40]!r}"
        )
    return range(low, high + 1)
