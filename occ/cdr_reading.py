"""Charging data records read back from their files, each once, for people and analysts."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from occ.cdr_fields import FIELDS, from_csv
from occ.cdr_files import record_lines

_CLOSED: Final = re.compile(rb'"closed_ms":([0-9]+)')


class UnreadableRecordError(Exception):
    """A line is not a charging data record; the message is one sentence."""


def read_records(
    directories: Sequence[Path],
    since_ms: int = 0,
    until_ms: int | None = None,
    session_id: str | None = None,
    record_id: str | None = None,
) -> Iterator[dict[str, Any]]:
    """The records that were made from ``since_ms`` on and before ``until_ms``, in the order of files.

    ``session_id``, ``record_id``: only that session's, only that one. All fields of ``occ.cdr_fields.FIELDS`` are
    there. A record that is there again, in another file or format, is left
    out; for that the identifiers of all are kept in memory. Raises OSError, UnreadableRecordError.
    """
    named = record_id if session_id is None else session_id
    wanted = None if named is None else json.dumps(named).encode()
    seen: set[str] = set()
    for fields in chain.from_iterable(_lines(directory, since_ms, wanted) for directory in directories):
        closed_ms = fields["closed_ms"] or 0
        if closed_ms < since_ms or (until_ms is not None and closed_ms >= until_ms):
            continue
        if session_id is not None and fields["session_id"] != session_id:
            continue
        own_id = fields["record_id"]
        if record_id is not None and own_id != record_id:
            continue
        if own_id is None or own_id not in seen:
            seen.add(own_id)
            yield fields


def _lines(directory: Path, since_ms: int, wanted: bytes | None) -> Iterator[dict[str, Any]]:
    """The records of all files, without many of those that are not wanted: most lines need not be taken apart."""
    for line in record_lines(directory, "jsonl"):
        if wanted is not None and wanted not in line:
            continue
        closed = _CLOSED.search(line)
        if closed is not None and int(closed.group(1)) < since_ms:
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise _unreadable(directory, line) from error
        yield {name: fields.get(name) for name in FIELDS}
    for line in record_lines(directory, "csv"):
        try:
            (cells,) = csv.reader([line.decode()], strict=True)
            yield from_csv(dict(zip(FIELDS, cells, strict=False)))
        except (ValueError, csv.Error) as error:
            raise _unreadable(directory, line) from error


def _unreadable(directory: Path, line: bytes) -> UnreadableRecordError:
    shown = line[:60].decode("ascii", "backslashreplace")
    return UnreadableRecordError(f"a file in {directory} has a line that is no charging data record: {shown!r}")
