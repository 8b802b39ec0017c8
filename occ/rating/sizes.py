"""Amounts of service units as people write them: "10 MiB", "30 min", "1 event". Whole numbers, each with its unit."""

import re
from typing import Final

from balance.model import UNLIMITED, Unit
from occ.yamlmap import ConfigError, Node

UNSIGNED32_MAXIMUM: Final = 0xFFFFFFFF

SIZES: Final[dict[Unit, dict[str, int]]] = {
    Unit.OCTETS: {
        "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
        "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
    },
    Unit.SECONDS: {"s": 1, "min": 60, "h": 3600, "d": 86_400},
    Unit.EVENTS: {"event": 1, "events": 1},
}  # fmt: skip
"""How sizes may be written, and how many units one of each is."""

EXAMPLES: Final = {Unit.OCTETS: "1 MiB", Unit.SECONDS: "60 s", Unit.EVENTS: "1 event"}

_SIZE: Final = re.compile(r"([1-9][0-9]{0,14}) ([A-Za-z]+)", re.ASCII)


def parse_size(written: str, unit: Unit) -> int:
    """Units in a size such as "10 MiB", "60 s" or "1 event": a whole number, one space, a word of ``SIZES``.

    Raises ValueError with one sentence.
    """
    words = SIZES[unit]
    match = _SIZE.fullmatch(written)
    if match is None:
        raise ValueError(f"{written[:40]!r} is not a size such as '{EXAMPLES[unit]}'")
    if match.group(2) not in words:
        raise ValueError(f"{match.group(2)[:40]!r} is no unit for {unit.name.lower()}; known: {', '.join(words)}")
    units = int(match.group(1)) * words[match.group(2)]
    if units > UNLIMITED:
        raise ValueError(f"{written[:40]!r} is more than can be counted")
    return units


def read_size(node: Node, unit: Unit) -> int:
    """``parse_size`` of a value in a configuration. Raises ConfigError."""
    try:
        return parse_size(node.text(), unit)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def read_seconds(node: Node) -> int:
    """A time of at least a second that fits an AVP of type Unsigned32. Raises ConfigError."""
    seconds = read_size(node, Unit.SECONDS)
    if seconds > UNSIGNED32_MAXIMUM:
        raise node.error(f"{node.path} must be at most {UNSIGNED32_MAXIMUM} s")
    return seconds


def single_value(node: Node) -> str | None:
    """The text of a single value; None for a list, a mapping or nothing, for which the caller has another reading."""
    try:
        return node.text()
    except ConfigError:
        return None
