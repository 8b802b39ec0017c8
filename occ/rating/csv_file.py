"""CSV files that a catalogue names, as spreadsheets write them: commas, semicolons or tabs, a heading, UTF-8."""

import csv
from collections.abc import Iterator
from io import StringIO

from occ.yamlmap import ConfigError, Node, shown

__all__ = ["Row", "read_rows"]

Row = tuple[int, list[str]]
"""Line and cells."""


def read_rows(node: Node) -> tuple[str, Iterator[Row]]:
    """The file that a value names, as messages call it, and its rows that are not empty, the heading among them.

    Empty cells at the end of a row, which spreadsheets leave, are cut off. Raises ConfigError, at the latest when the
    rows are read: at the value for a file that cannot be read, else with file and line.
    """
    path = node.file_path()
    source = shown(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise node.error(f"{node.path}: {source} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(source, line, "is not UTF-8 text; save it as 'CSV UTF-8'") from None
    return source, _rows(content, source)


def _rows(content: str, source: str) -> Iterator[Row]:
    heading = content.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    reader = csv.reader(StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            while row and not row[-1].strip():
                row.pop()
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ConfigError(source, reader.line_num, f"is not valid CSV: {error}") from None
