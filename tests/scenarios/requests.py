"""A message that a scenario's row describes, clause by clause, and its octets."""

import re
import struct
import time
from collections.abc import Callable

from protocols.diameter.codes import Flag
from tests.scenarios.clients import Head, Profile
from tests.scenarios.notation import NotationError, WrittenAvp, clauses, service_avps, service_clause, written_avp
from tests.wire import next_number

KINDS = {"I": 1, "U": 2, "T": 3, "E": 4}
_CCR = re.compile(r"([IUTE]) (\d+)")
_BASE = {"CER": 257, "DWR": 280, "DPR": 282, "CEA": 257, "DWA": 280, "DPA": 282, "CCA": 272, "RAA": 258, "ASA": 274}
_CREDIT_CONTROL = ("CCA", "RAA", "ASA")
_BITS = {"R": Flag.REQUEST, "P": Flag.PROXIABLE, "E": Flag.ERROR, "T": Flag.RETRANSMIT}
_IDENTITY_TYPES = {"E164": 0, "+E164": 0, "IMSI": 1, "SIP URI": 2, "NAI": 3}


class Request:
    """One message under construction. ``octets`` may be asked for once everything was applied."""

    def __init__(self, command: int, application: int, flags: int, avps: list[bytes]) -> None:
        self.command = command
        self.application = application
        self.flags = flags
        self.avps = avps
        self.version = 1
        self.length: int | None = None
        self.hop_by_hop = next_number()
        self.end_to_end = next_number()
        self.twice = False

    def octets(self) -> bytes:
        body = b"".join(self.avps)
        length = 20 + len(body) if self.length is None else self.length
        return (
            struct.pack(
                ">IIIII",
                self.version << 24 | length,
                self.flags << 24 | self.command,
                self.application,
                self.hop_by_hop,
                self.end_to_end,
            )
            + body
        )

    def apply(self, clause: str) -> None:
        """Change what one clause of the row says."""
        word, _, rest = clause.partition(" ")
        bits = re.fullmatch(r"(no )?([RPET]) bit", clause)
        if bits:
            self.flags = self.flags & ~_BITS[bits[2]] if bits[1] else self.flags | _BITS[bits[2]]
        elif clause == "twice at once":
            self.twice = True
        elif word in _HEADER_FIELDS and rest:
            _HEADER_FIELDS[word](self, int(rest, 0))
        elif word == "octets":
            self.avps.append(bytes.fromhex(rest))
        elif word == "add":
            self.avps.append(_encoded(rest))
        elif word == "first":
            self.avps.insert(0, _encoded(rest))
        elif word == "without":
            wanted = written_avp(rest)
            kept = [one for one in self.avps if not _is_kind(one, wanted)]
            if len(kept) == len(self.avps):
                raise NotationError(f"there is no {rest} to leave out")
            self.avps = kept
        else:
            self._replace(clause)

    def _replace(self, clause: str) -> None:
        wanted = written_avp(clause)
        encoded = _encoded(clause)
        for index, one in enumerate(self.avps):
            if _is_kind(one, wanted):
                self.avps[index] = encoded
                return
        self.avps.append(encoded)


def _set_reserved(request: Request, bits: int) -> None:
    request.flags |= bits & 0x0F


_HEADER_FIELDS: dict[str, Callable[[Request, int], None]] = {
    "command": lambda request, number: setattr(request, "command", number),
    "application": lambda request, number: setattr(request, "application", number),
    "version": lambda request, number: setattr(request, "version", number),
    "length": lambda request, number: setattr(request, "length", number),
    "hop-by-hop": lambda request, number: setattr(request, "hop_by_hop", number),
    "reserved-bits": _set_reserved,
}


def _encoded(text: str) -> bytes:
    written = written_avp(text)
    if written.encoded is None:
        raise NotationError(f"{text!r} is not understood: a value is missing")
    return written.encoded


def _is_kind(encoded: bytes, wanted: WrittenAvp) -> bool:
    vendor = int.from_bytes(encoded[8:12], "big") if encoded[4] & 0x80 else 0
    return (int.from_bytes(encoded[:4], "big"), vendor) == (wanted.code, wanted.vendor)


def is_credit_control(text: str) -> bool:
    """Whether a row sends a CCR."""
    return _CCR.fullmatch(clauses(text)[0]) is not None


def is_base_message(text: str) -> bool:
    """Whether a row sends a CER, DWR, DPR, or an answer."""
    return clauses(text)[0] in _BASE


def credit_control_request(
    text: str,
    profile: Profile,
    host: str,
    session_id: str,
    server: str,
    identities: dict[str, str],
    now_s: int | None = None,
) -> tuple[Request, int, int]:
    """The request of a row such as ``U 1; RG 10: used 1 MiB``, its CC-Request-Type and CC-Request-Number."""
    first, *others = clauses(text)
    match = _CCR.fullmatch(first)
    assert match is not None
    named = profile.identified_by
    services: list[bytes] = []
    changes = []
    for clause in others:
        service = service_clause(clause)
        if service is not None:
            services += service_avps(service)
        elif clause.startswith("identified by "):
            named = clause.removeprefix("identified by ")
        else:
            changes.append(clause)
    head = Head(
        host,
        session_id,
        KINDS[match[1]],
        int(match[2]),
        _subscriptions(named, identities),
        server,
        int(time.time()) if now_s is None else now_s,
    )
    request = Request(272, 4, Flag.REQUEST | Flag.PROXIABLE, profile.request(head, services))
    for clause in changes:
        request.apply(clause)
    return request, head.kind, head.number


def _subscriptions(named: str, identities: dict[str, str]) -> list[tuple[int, str]]:
    """Subscription-Ids from "IMSI, E164", "+E164", "E164 491..." or "nothing"."""
    found = []
    for part in clauses(named, ","):
        if part == "nothing":
            continue
        kind, _, value = part.rpartition(" ") if part not in _IDENTITY_TYPES else (part, "", "")
        if kind not in _IDENTITY_TYPES:
            raise NotationError(f"{part!r} is no identity; known: {', '.join(_IDENTITY_TYPES)}")
        if not value:
            value = ("+" if kind == "+E164" else "") + identities[kind.lstrip("+")]
        found.append((_IDENTITY_TYPES[kind], value))
    return found


def base_message(text: str, profile: Profile, host: str) -> Request:
    """The message of a row such as ``CER; Auth-Application-Id=99``."""
    first, *others = clauses(text)
    capabilities = profile.capabilities(host)
    is_request = first.endswith("R")
    avps = capabilities if first in ("CER", "CEA") else capabilities[:2]
    if not is_request:
        avps = [_encoded("Result-Code=2001"), *avps]
    elif first == "DPR":
        avps = [*avps, _encoded("Disconnect-Cause=0")]
    application = 4 if first in _CREDIT_CONTROL else 0
    request = Request(_BASE[first], application, Flag.REQUEST if is_request else 0, avps)
    for clause in others:
        request.apply(clause)
    return request
