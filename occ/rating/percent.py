"""Percentages as people write them ("19 %", "7.7 %"), kept as parts per million: exact, no float."""

import re
from typing import Final

from occ.yamlmap import Node

PPM: Final = 1_000_000
"""All of something."""

_PERCENT: Final = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,4}))? ?%", re.ASCII)


def parse_percent(written: str) -> int:
    """Millionths in "20 %" or "7.7 %": at most four decimals. Raises ValueError with one sentence."""
    match = _PERCENT.fullmatch(written)
    if match is None:
        raise ValueError(f"{written[:40]!r} is not a percentage such as '20 %', with four decimals at most")
    return int(match.group(1)) * 10_000 + int((match.group(2) or "").ljust(4, "0"))


def read_percent(node: Node, maximum_ppm: int = PPM) -> int:
    """``parse_percent`` of a value in a configuration, above 0 %. Raises ConfigError."""
    try:
        ppm = parse_percent(node.text())
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if not 0 < ppm <= maximum_ppm:
        raise node.error(f"{node.path} must be more than 0 % and at most {percent_text(maximum_ppm)}")
    return ppm


def percent_text(ppm: int) -> str:
    """'20 %', '7.7 %': exact."""
    whole, rest = divmod(ppm, 10_000)
    decimals = f"{rest:04d}".rstrip("0")
    return f"{whole}.{decimals} %" if decimals else f"{whole} %"
