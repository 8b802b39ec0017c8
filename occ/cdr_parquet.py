"""Charging data records as a Parquet file, for analysts. Needs the optional package pyarrow."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from occ.cdr_fields import BUCKET, FIELDS, PERIOD, Kind

RECORDS_A_GROUP: Final = 20_000
"""Rows of a row group: so many are in memory at a time."""


class PyarrowMissingError(Exception):
    """The message is one sentence that says how to install it."""


def write_parquet(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Write records, with the fields of ``occ.cdr_fields.FIELDS``, to a file that is there whole or not; how many.

    Moments become timestamps in UTC, lists stay lists. A file that is there already is replaced. Raises
    PyarrowMissingError, OSError, and whatever ``records`` raises.
    """
    arrow, parquet = _pyarrow()
    if not path.name or not path.name.isprintable():
        raise OSError(f"{str(path)!r} cannot be the name of a Parquet file; give another one")
    schema = arrow.schema([(name, _type(arrow, kind)) for name, kind in FIELDS.items()])
    unfinished = path.with_name(path.name + ".part")
    written = 0
    try:
        with parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for rows in _groups(records):
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                written += len(rows)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return written


def _groups(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(records)
    while rows := list(islice(left, RECORDS_A_GROUP)):
        yield rows


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: PLC0415 - optional
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise PyarrowMissingError(
            "Parquet files need the package pyarrow, which is not installed: pip install 'occ[parquet]' adds it"
        ) from None
    return pyarrow, parquet


def _type(arrow: Any, kind: Kind) -> Any:
    if kind is Kind.PERIODS or kind is Kind.BUCKETS:
        members = PERIOD if kind is Kind.PERIODS else BUCKET
        return arrow.list_(arrow.struct([(name, _type(arrow, each)) for name, each in members.items()]))
    return {
        Kind.TEXT: arrow.string(),
        Kind.INTEGER: arrow.int64(),
        Kind.UNSIGNED: arrow.uint64(),
        Kind.FLAG: arrow.bool_(),
        Kind.MOMENT: arrow.timestamp("ms", tz="UTC"),
        Kind.TEXTS: arrow.list_(arrow.string()),
        Kind.INTEGERS: arrow.list_(arrow.int64()),
    }[kind]
