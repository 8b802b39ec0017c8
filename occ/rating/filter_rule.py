"""IPFilterRule (RFC 6733 section 4.3.1): is this text one? Which packets stay allowed when the credit is used up."""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

LONGEST_RULE: Final = 1024

_PORT_PROTOCOLS: Final = frozenset({6, 17, 132})
_TCP: Final = 6
_ICMP: Final = 1
_WELL_KNOWN: Final = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmpv6": 58, "sctp": 132}
_SPECS: Final = {
    "ipoptions": frozenset({"ssrr", "lsrr", "rr", "ts"}),
    "tcpoptions": frozenset({"mss", "window", "sack", "ts", "cc"}),
    "tcpflags": frozenset({"fin", "syn", "rst", "psh", "ack", "urg"}),
}
_TCP_ONLY: Final = frozenset({"established", "setup", "tcpflags", "tcpoptions"})
_OPTIONS: Final = ("frag", "ipoptions", "tcpoptions", "established", "setup", "tcpflags", "icmptypes")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_FORM: Final = "'action dir proto from src to dst', such as 'permit in ip from any to 192.0.2.10'"


def parse_filter_rule(written: str) -> bytes:
    """The rule as it goes on the wire: ``action dir proto from src to dst [options]``, single spaces.

    Raises ValueError with one sentence that names the word at fault.
    """
    if len(written) > LONGEST_RULE or not _PRINTABLE.fullmatch(written):
        raise ValueError(f"a filter rule is at most {LONGEST_RULE} printable ASCII characters, not {written[:40]!r}")
    words = written.split()
    if len(words) < 7:
        raise ValueError(f"{written[:80]!r} is too short for a filter rule, which reads {_FORM}")
    action, direction, protocol_word = words[:3]
    _one_of(action, "action", ("permit", "deny"))
    _one_of(direction, "direction", ("in", "out"))
    protocol = _protocol(protocol_word)
    _one_of(words[3], "word after the protocol", ("from",))
    at, source_ports = _end(words, 4, protocol)
    if at >= len(words) or words[at] != "to":
        found = repr(words[at][:40]) if at < len(words) else "nothing"
        raise ValueError(f"'to' must follow the source, not {found}: a filter rule reads {_FORM}")
    if at + 1 >= len(words):
        raise ValueError(f"the destination is missing: a filter rule reads {_FORM}")
    at, destination_ports = _end(words, at + 1, protocol)
    _options(words[at:], protocol, source_ports or destination_ports)
    return " ".join(words).encode("ascii")


def _one_of(word: str, what: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise ValueError(f"the {what} must be {' or '.join(allowed)}, not {word[:40]!r}: a filter rule reads {_FORM}")


def _protocol(word: str) -> int | None:
    """Number of an IP protocol; None for ``ip``, which is any."""
    if word == "ip":
        return None
    if _NUMBER.fullmatch(word) and int(word) <= 255:
        return int(word)
    known = _WELL_KNOWN.get(word.lower())
    hint = f"; {word.lower()} is {known}" if known is not None else ""
    raise ValueError(f"the protocol must be 'ip' or a number from 0 to 255, not {word[:40]!r}{hint}")


def _end(words: list[str], at: int, protocol: int | None) -> tuple[int, bool]:
    """Check the address and ports that start at ``at``: where they end, and whether there are ports."""
    address = words[at].removeprefix("!")
    if address not in ("any", "assigned"):
        _network(address)
    at += 1
    if at >= len(words) or not words[at][0].isdigit():
        return at, False
    if protocol not in _PORT_PROTOCOLS:
        raise ValueError(f"ports such as {words[at][:40]!r} go with protocol 6 (TCP), 17 (UDP) or 132 (SCTP) only")
    _ranges(words[at], 65_535, "ports")
    return at + 1, True


def _network(written: str) -> IPv4Network | IPv6Network:
    """Strict: bits set beyond the mask are a mistake, as the RFC says."""
    _, slash, bits = written.partition("/")
    try:
        if "%" in written or (slash and not _NUMBER.fullmatch(bits)):
            raise ValueError(written)
        return ip_network(written)
    except ValueError:
        raise ValueError(
            f"{written[:60]!r} is no address for a filter rule: 'any', 'assigned', an IPv4 or IPv6 address, or one "
            "with a mask such as 192.0.2.0/24 and no bits beyond it"
        ) from None


def _ranges(written: str, maximum: int, what: str) -> None:
    for part in written.split(","):
        low, dash, high = part.partition("-")
        numbers = (low, high) if dash else (low,)
        if not all(_NUMBER.fullmatch(number) and int(number) <= maximum for number in numbers) or (
            dash and int(low) > int(high)
        ):
            raise ValueError(f"{written[:40]!r} is no list of {what} such as '80,8000-8080', each at most {maximum}")


def _options(words: list[str], protocol: int | None, with_ports: bool) -> None:
    seen: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word not in _OPTIONS:
            raise ValueError(f"{word[:40]!r} is no option of a filter rule; known: {', '.join(_OPTIONS)}")
        if word in seen:
            raise ValueError(f"the option {word} stands twice")
        seen.add(word)
        if word in _TCP_ONLY and protocol not in (None, _TCP):
            raise ValueError(f"the option {word} goes with the protocol 6 (TCP) only")
        if word == "icmptypes":
            if protocol not in (None, _ICMP):
                raise ValueError("the option icmptypes goes with the protocol 1 (ICMP) only")
            _ranges(next(rest, ""), 255, "ICMP types")
        elif word in _SPECS:
            _spec(word, next(rest, ""))
    if "frag" in seen and (with_ports or "tcpflags" in seen):
        raise ValueError("the option frag may not be used with ports or tcpflags: only a first fragment has them")


def _spec(option: str, written: str) -> None:
    known: Callable[[str], bool] = _SPECS[option].__contains__
    if not all(known(part.removeprefix("!")) for part in written.split(",")):
        raise ValueError(
            f"{option} takes a list, with commas, of {', '.join(sorted(_SPECS[option]))}, each perhaps with a '!' in "
            f"front, not {written[:40]!r}"
        )
