"""Octets as a file of rows: each is read or refused in one sentence, and none takes the next along.

The first octet says what the file has: rows of one kind as CSV, or JSON Lines.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

from occ.bulk.files import Source, find_sources, read_csv, read_lines
from occ.bulk.reading import RowReader
from occ.bulk.rows import Kind, RowError
from occ.rating.catalogue import Catalogue, read_catalogue
from occ.yamlmap import ConfigError, parse_yaml
from tests.occ.bulk_lab import CATALOGUE

KINDS = (*Kind, "jsonl")


@cache
def _file() -> Path:
    in_memory = Path("/dev/shm")
    return Path(mkdtemp(prefix="occ-fuzz-", dir=in_memory if os.access(in_memory, os.W_OK) else None)) / "rows.txt"


@cache
def _catalogue() -> Catalogue:
    return read_catalogue(parse_yaml(CATALOGUE, "catalogue.yaml", Path()))


def run(octets: bytes) -> None:
    kind = KINDS[octets[0] % len(KINDS)] if octets else KINDS[0]
    _file().write_bytes(octets[1:])
    for catalogue in (_catalogue(), None):
        try:
            [source] = find_sources([f"{kind}={_file()}"], {}, None, None)
        except ConfigError as error:
            assert "\n" not in str(error)
            return
        for reading in _rows(source, RowReader(catalogue, {}, decimal_comma=catalogue is None)):
            try:
                reading()
            except RowError as error:
                assert str(error)


def _rows(source: Source, reader: RowReader) -> Iterator[Callable[[], object]]:
    """The rows of a file, each to be read."""
    if source.kind is None:
        for line in read_lines(source):
            if line.text.strip() and not line.fault:
                yield partial(reader.json_bundle, line.text)
    else:
        for record in read_csv(source):
            yield partial(reader.csv_row, source, record)
