"""Files of rows: which kind each one is, its encoding, its delimiter, and its lines one after the other.

Nothing of a file is held but the record that is being read, and no fault in one line is allowed to take the lines after
it along: a quote that is never closed spoils its own line only.
"""

import codecs
import csv
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from occ.bulk.rows import REQUIRED, Column, Kind, RowError, find_column, plain_name
from occ.yamlmap import ConfigError, nearest, shown

LONGEST_LINE: Final = 4 << 20
"""Characters; enough for a company of ten thousand lines in JSON."""
KEPT_OF_LONG_LINE: Final = 1000
LONGEST_RECORD: Final = 100
"""Lines that one record of CSV may go over, with line breaks in quotes."""

JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
CSV_SUFFIXES: Final = (".csv", ".tsv", ".txt")

_DELIMITERS: Final = ",;\t|"
_FORMULA: Final = "=@\t\r'"
_NOT_CLOSED: Final = "a quote is opened in this line and not closed where the row ends"


@dataclass(slots=True)
class Source:
    """One input file."""

    index: int
    path: Path
    kind: Kind | None
    """Of all its rows; None: JSON Lines."""
    encoding: str = "utf-8"
    delimiter: str = ","
    heading: list[str] = field(default_factory=list)
    columns: list[Column | None] = field(default_factory=list)
    """What each cell of a row is; None: it is left out."""
    first_line: int = 0
    """Line of the heading."""

    @property
    def name(self) -> str:
        """For messages and the journal."""
        return self.path.name.encode("utf-8", "replace").decode()


class Line(NamedTuple):
    number: int
    text: str
    """Without its end."""
    fault: str
    """Why it cannot be read at all; empty: it can."""
    ended: bool
    """It has a line end; the last line of a file that was cut off has none."""


class Record(NamedTuple):
    line: int
    text: str
    cells: list[str]
    """Empty if there is a fault."""
    fault: str


# -- which files -------------------------------------------------------------------------------------------------------


def find_sources(
    arguments: Sequence[str], mapping: Mapping[str, str], encoding: str | None, delimiter: str | None
) -> list[Source]:
    """The files that the arguments name, headings read and understood.

    An argument is a file whose name tells what is in it, a folder of such files, or ``subscribers=FILE``. Raises
    ConfigError for what is no such file or has a heading that is not understood.
    """
    if encoding is not None:
        _check_encoding(encoding)
    sources: list[Source] = []
    unused = set(mapping)
    for path, kind in _named(arguments):
        source = Source(len(sources), path, kind)
        source.encoding = _encoding(path, encoding)
        if source.kind is not None:
            _read_heading(source, mapping, delimiter)
            unused -= {plain_name(each) for each in source.heading}
        else:
            unused.clear()  # the keys of JSON are known only when all of it has been read
        sources.append(source)
    if unused:
        headings = [plain_name(each) for source in sources for each in source.heading]
        name = min(unused)
        raise ConfigError("--map", None, f"no file has a column {name!r}{nearest(name, headings)}")
    return sources


def _named(arguments: Sequence[str]) -> Iterator[tuple[Path, Kind | None]]:
    seen: set[Path] = set()
    for argument in arguments:
        word, equals, rest = argument.partition("=")
        if equals and word in tuple(Kind):
            found: list[tuple[Path, Kind | None]] = [(Path(rest), Kind(word))]
        elif equals and word == "jsonl":
            found = [(Path(rest), None)]
        elif (path := Path(argument)).is_dir():
            files = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
            found = [(each, _kind(each)) for each in files if each.suffix.lower() in (*JSON_SUFFIXES, *CSV_SUFFIXES)]
            if not found:
                raise ConfigError(shown(path), None, "there is no CSV or JSON Lines file in this folder")
        else:
            found = [(path, _kind(path))]
        for path, kind in found:
            if not path.is_file():
                raise ConfigError(shown(path), None, "there is no such file")
            if path.resolve() in seen:
                raise ConfigError(shown(path), None, "is named twice")
            seen.add(path.resolve())
            yield path, kind


def _kind(path: Path) -> Kind | None:
    """What is in a file, by its name: "old-accounts.csv" has accounts."""
    if path.suffix.lower() in JSON_SUFFIXES:
        return None
    name = path.name.casefold()
    found = [kind for kind in Kind if kind.value in name]
    if len(found) != 1:
        words = ", ".join(Kind)
        raise ConfigError(
            shown(path),
            None,
            f"its name does not tell what is in it, which is one of {words} or, with the ending .jsonl, JSON Lines; "
            f"say it, such as 'accounts={path}'",
        )
    return found[0]


# -- encoding ----------------------------------------------------------------------------------------------------------


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except (LookupError, ValueError):
        raise ConfigError("--encoding", None, f"there is no encoding {encoding[:40]!r}; try utf-8 or cp1252") from None


def _encoding(path: Path, told: str | None) -> str:
    """A byte order mark says it; else what was told, else UTF-8."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return told or "utf-8"


def _open(source: Source) -> TextIO:
    # Octets that are no text stay what they are: only the row they stand in is at fault.
    errors = "surrogateescape" if source.encoding.startswith("utf-8") else "replace"
    return source.path.open(encoding=source.encoding, errors=errors)


def read_lines(source: Source) -> Iterator[Line]:
    """The lines of a file, numbered from 1."""
    with _open(source) as stream:
        number = 0
        while text := stream.readline(LONGEST_LINE):
            number += 1
            ended = text.endswith("\n")
            if not ended and len(text) == LONGEST_LINE:
                while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith("\n"):
                    pass
                fault = f"the line is longer than {LONGEST_LINE} characters"
                yield Line(number, text[:KEPT_OF_LONG_LINE], fault, rest.endswith("\n"))
                continue
            if ended:
                text = text[:-1]
            fault = "" if text.isascii() or _is_text(text) else f"the line is not {source.encoding} text"
            yield Line(number, text, fault, ended)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\ufffd" not in text


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _read_heading(source: Source, mapping: Mapping[str, str], delimiter: str | None) -> None:
    """Find the delimiter and the columns. Raises ConfigError."""
    assert source.kind is not None
    where = shown(source.path)
    lines = read_lines(source)
    line = next((each for each in lines if each.text.strip()), None)
    if line is None:
        raise ConfigError(where, None, "is empty; its first line must name the columns")
    if line.fault:
        raise ConfigError(where, line.number, line.fault)
    if delimiter is None and line.text[:4].casefold() == "sep=" and len(line.text) == 5:  # as Excel writes and reads
        delimiter = line.text[4]
        line = next(lines, line)
    source.first_line = line.number
    source.delimiter = delimiter or max(_DELIMITERS, key=line.text.count)
    try:
        source.heading = split_row(line.text, source.delimiter)
    except csv.Error as error:
        raise ConfigError(where, line.number, f"is not valid CSV: {error}") from None
    while source.heading and not source.heading[-1].strip():
        source.heading.pop()
    _understand(source, mapping, where)


def _understand(source: Source, mapping: Mapping[str, str], where: str) -> None:
    """Find the column of each heading. Raises ConfigError."""
    assert source.kind is not None
    unknown: list[tuple[str, str]] = []
    for written in source.heading:
        try:
            column = find_column(source.kind, written, mapping)
        except RowError as error:
            unknown.append((plain_name(written), str(error)))
            continue
        if column is not None and column in source.columns:
            raise ConfigError(where, source.first_line, f"column {column.name} is there twice, also as {written!r}")
        source.columns.append(column)
    if unknown:
        others = ", ".join(repr(name) for name, _ in unknown[1:])
        nor = f"; nor for {others}" if others else ""
        name, first = unknown[0]
        raise ConfigError(where, source.first_line, f"{first}{nor}; --map '{name}=' leaves it out")
    names = {column.name for column in source.columns if column is not None}
    for name in REQUIRED[source.kind]:
        if name not in names:
            raise ConfigError(
                where, source.first_line, f"column {name} is missing; if another has it, use --map OTHER={name}"
            )


def split_row(text: str, delimiter: str) -> list[str]:
    """The cells of one complete record. Raises csv.Error."""
    if '"' not in text:
        return text.split(delimiter)
    return next(csv.reader([text], delimiter=delimiter, strict=True))


def cells_for_people(text: str, delimiter: str) -> list[str]:
    """The cells of a record as well as they can be told apart."""
    try:
        return split_row(text, delimiter)
    except csv.Error:
        return text.replace('"', "").replace("\n", " ").split(delimiter)


def read_csv(source: Source) -> Iterator[Record]:
    """The rows of a CSV file after its heading that have something in them."""
    lines = read_lines(source)
    waiting: deque[Line] = deque()
    width = len(source.heading)
    while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
        if line.number <= source.first_line or not line.text:
            continue
        if line.fault:
            yield Record(line.number, line.text, [], line.fault)
            continue
        text, fault = line.text, ""
        cells: list[str] = []
        if text.count('"') % 2:
            text, cells = _several_lines(line, lines, waiting, source)
            if not cells:
                yield Record(line.number, line.text, [], _NOT_CLOSED)
                continue
        else:
            try:
                cells = split_row(text, source.delimiter)
            except csv.Error as error:
                fault = f"the line is not valid CSV: {error}"
        if not fault and not any(cells):
            continue
        if len(cells) > width and any(cells[width:]):
            fault = f"there are {len(cells)} cells and only {width} columns"
        elif not fault and len(cells) < width and not line.ended:
            fault = f"the file ends within this line, which has {len(cells)} of {width} cells"
        yield Record(line.number, text, [] if fault else cells, fault)


def _several_lines(line: Line, lines: Iterator[Line], waiting: deque[Line], source: Source) -> tuple[str, list[str]]:
    """A record whose quotes go on over the line end; no cells if they are not closed where they should be.

    Then the lines after the first are read again, each for itself.
    """
    taken: list[Line] = []
    text, quotes = line.text, line.text.count('"')
    while quotes % 2 and len(taken) < LONGEST_RECORD:
        following = waiting.popleft() if waiting else next(lines, None)
        if following is None:
            break
        taken.append(following)
        if following.fault:
            break
        text = f"{text}\n{following.text}"
        quotes += following.text.count('"')
    if not quotes % 2:
        try:
            cells = split_row(text, source.delimiter)
        except csv.Error:
            cells = []
        if len(cells) == len(source.heading):
            return text, cells
    waiting.extendleft(reversed(taken))
    return line.text, []


def unguarded(cell: str) -> str:
    """A cell without the apostrophe that ``guarded`` put before it."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] and cell[1] in "=@\t\r'+-" else cell


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe before what would begin one."""
    first = cell[:1]
    if first and (first in _FORMULA or (first in "+-" and not _is_number(cell))):
        return f"'{cell}"
    return cell


def _is_number(cell: str) -> bool:
    return cell[1:].replace(".", "", 1).replace(",", "", 1).isdecimal()
