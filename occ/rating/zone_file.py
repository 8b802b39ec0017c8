"""CSV files that put many keys into zones: prefixes of numbers, networks. A price list's other half.

The first row names the columns: the key (``prefix`` or ``network``), ``zone``, and ``name`` if there is one::

    prefix,zone,name
    76,kazakhstan,Kazakhstan
    77,kazakhstan,Kazakhstan
    7,russia,Russia

Semicolons or tabs may stand for the commas, as spreadsheets write them. The file is taken as a whole or not at all.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from occ.rating.csv_file import Row, read_rows
from occ.rating.sizes import single_value
from occ.yamlmap import ConfigError, Node, nearest

__all__ = ["RESERVED", "Entry", "read_zone_files", "zone_name"]

RESERVED: Final = "file"
"""The key that names the CSV files among the zones of a catalogue, and so no name for a zone."""

_ZONE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_ZONE_FORM: Final = "the name of a zone is made of small letters, digits, '-', '_' and '.', at most 64 of them"
_LINES_NAMED: Final = 10
_FIELD_LENGTH: Final = 60


class Entry(NamedTuple):
    """What is known of one key, and where that stands."""

    zone: str
    name: str
    """For people: "Kazakhstan mobile". Empty if the file has none."""
    source: str
    line: int | None

    @property
    def place(self) -> str:
        return f"{self.source}:{self.line}" if self.line is not None else self.source


def zone_name(written: str) -> str:
    """A name for a zone, as it is written. Raises ValueError."""
    if not _ZONE.fullmatch(written):
        raise ValueError(f"{_ZONE_FORM}, not {written[:_FIELD_LENGTH]!r}")
    return written


def read_zone_files(
    node: Node, column: str, parse: Callable[[str], str], reserved: Iterable[str] = ()
) -> dict[str, Entry]:
    """The keys of a CSV file, or of a list of them, each with its zone.

    ``column`` is the heading of the keys, ``parse`` makes a key of a cell and raises ValueError with one sentence;
    ``reserved`` are zones that a file must not use. A key that stands twice must stand in the same zone.

    Raises ConfigError naming file and line of the first bad row, and the lines of further ones.
    """
    table: dict[str, Entry] = {}
    forbidden = frozenset(reserved) | {RESERVED}
    for item in [node] if single_value(node) is not None else node.items():
        _read_file(item, column, parse, forbidden, table)
    return table


def _read_file(
    node: Node, column: str, parse: Callable[[str], str], forbidden: frozenset[str], table: dict[str, Entry]
) -> None:
    source, rows = read_rows(node)
    key_at, zone_at, name_at, width = _columns(next(rows, (1, [])), column, source)
    zones: dict[str, str] = {}
    mistake: ConfigError | None = None
    further: list[int] = []
    for line, row in rows:
        try:
            if len(row) <= max(key_at, zone_at) or len(row) > width:
                raise ValueError(f"{len(row)} columns, where the heading has {width}")
            key = parse(row[key_at].strip())
            zone = row[zone_at].strip()
            if zone not in zones:
                zones[zone] = _allowed(zone_name(zone), forbidden)
            name = row[name_at].strip() if 0 <= name_at < len(row) else ""
            earlier = table.setdefault(key, Entry(zones[zone], name, source, line))
            if earlier.zone != zone:
                raise ValueError(
                    f"{column} {key} is in the zone {zone} here and in the zone {earlier.zone} at {earlier.place}"
                )
        except ValueError as error:
            if mistake is None:
                mistake = ConfigError(source, line, str(error))
            else:
                further.append(line)
    if mistake is not None:
        raise _together(mistake, further)


def _columns(heading: Row, column: str, source: str) -> tuple[int, int, int, int]:
    """Where key, zone and name (-1: nowhere) stand, and how many columns there are."""
    line, cells = heading
    names = [cell.strip().lower() for cell in cells]
    known = (column, "zone", "name")
    for name in names:
        if name not in known:
            raise ConfigError(
                source,
                line,
                f"the first row must name the columns, {column}, zone and perhaps name: "
                f"{name[:_FIELD_LENGTH]!r} is none of them{nearest(name, known)}",
            )
        if names.count(name) > 1:
            raise ConfigError(source, line, f"the column {name} stands twice")
    for name in known[:2]:
        if name not in names:
            raise ConfigError(source, line, f"the column {name} is missing in the first row")
    return names.index(column), names.index("zone"), names.index("name") if "name" in names else -1, len(names)


def _allowed(zone: str, forbidden: frozenset[str]) -> str:
    if zone in forbidden:
        raise ValueError(f"{zone!r} must not be used as the name of a zone in a file")
    return zone


def _together(first: ConfigError, further: list[int]) -> ConfigError:
    if not further:
        return first
    lines = ", ".join(map(str, further[:_LINES_NAMED])) + (", …" if len(further) > _LINES_NAMED else "")
    rows = (
        f"1 further row is wrong: line {lines}"
        if len(further) == 1
        else (f"{len(further)} further rows are wrong: lines {lines}")
    )
    return ConfigError(first.source, first.line, f"{first.message} ({rows})")
