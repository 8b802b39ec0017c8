"""The fields of a charging data record, in the order of their columns, and how they are written as JSON Lines and CSV.

``docs/cdr.md`` says what each of them means. Fields are only ever added, at the end.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final


class Kind(Enum):
    """What a field holds; None in any of them says that it was not told, or does not apply."""

    TEXT = "text"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    """An integer of 64 bits without sign."""
    FLAG = "flag"
    MOMENT = "moment"
    """Milliseconds since the Unix epoch, UTC."""
    TEXTS = "texts"
    INTEGERS = "integers"
    PERIODS = "periods"
    """A list of mappings with the keys of ``PERIOD``."""
    BUCKETS = "buckets"
    """A list of mappings with the keys of ``BUCKET``."""


FIELDS: Final[dict[str, Kind]] = {
    "entry": Kind.TEXT,
    "record_id": Kind.TEXT,
    "sequence": Kind.INTEGER,
    "partial": Kind.FLAG,
    "final": Kind.FLAG,
    "cause": Kind.TEXT,
    "session_id": Kind.TEXT,
    "sub_session_id": Kind.UNSIGNED,
    "subscriber_id": Kind.TEXT,
    "account_id": Kind.TEXT,
    "account_version": Kind.INTEGER,
    "member_of": Kind.TEXT,
    "plan": Kind.TEXT,
    "catalogue": Kind.TEXT,
    "service": Kind.TEXT,
    "rating_group": Kind.INTEGER,
    "service_identifier": Kind.INTEGER,
    "zone": Kind.TEXT,
    "unit": Kind.TEXT,
    "used": Kind.INTEGER,
    "disbelieved": Kind.INTEGER,
    "reported": Kind.INTEGER,
    "paid_units": Kind.INTEGER,
    "allowance_units": Kind.INTEGER,
    "cost_micro": Kind.INTEGER,
    "debited_micro": Kind.INTEGER,
    "leaked_micro": Kind.INTEGER,
    "currency": Kind.TEXT,
    "step_units": Kind.INTEGER,
    "step_price_micro": Kind.INTEGER,
    "price_terms": Kind.INTEGERS,
    "price": Kind.TEXT,
    "periods": Kind.PERIODS,
    "buckets": Kind.BUCKETS,
    "promotions": Kind.TEXTS,
    "requests": Kind.INTEGER,
    "first_request": Kind.INTEGER,
    "last_request": Kind.INTEGER,
    "reporting_reasons": Kind.TEXTS,
    "started_ms": Kind.MOMENT,
    "since_ms": Kind.MOMENT,
    "closed_ms": Kind.MOMENT,
    "duration_ms": Kind.INTEGER,
    "origin_host": Kind.TEXT,
    "origin_realm": Kind.TEXT,
    "service_context_id": Kind.TEXT,
    "calling_party": Kind.TEXT,
    "called_party": Kind.TEXT,
    "called_station_id": Kind.TEXT,
    "sgsn_mcc_mnc": Kind.TEXT,
    "rat_type": Kind.TEXT,
    "user_location": Kind.TEXT,
    "sip_method": Kind.TEXT,
    "role_of_node": Kind.INTEGER,
    "number_portability": Kind.TEXT,
    "user_name": Kind.TEXT,
    "correlation_id": Kind.TEXT,
    "band": Kind.TEXT,
    "tiers": Kind.TEXTS,
    "access_network": Kind.TEXT,
    "visited_network": Kind.TEXT,
    "recipients": Kind.TEXTS,
    "policies": Kind.TEXTS,
}

PERIOD: Final[dict[str, Kind]] = {
    "from_ms": Kind.MOMENT,
    "until_ms": Kind.MOMENT,
    "units": Kind.INTEGER,
    "counted_from": Kind.INTEGER,
    "counted_to": Kind.INTEGER,
    "cost_micro": Kind.INTEGER,
    "leaked_micro": Kind.INTEGER,
    "step_units": Kind.INTEGER,
    "step_price_micro": Kind.INTEGER,
    "terms": Kind.INTEGERS,
    "price": Kind.TEXT,
    "catalogue": Kind.TEXT,
    "promotions": Kind.TEXTS,
    "band": Kind.TEXT,
    "tiers": Kind.TEXTS,
}

BUCKET: Final[dict[str, Kind]] = {
    "bucket_id": Kind.INTEGER,
    "name": Kind.TEXT,
    "unit": Kind.TEXT,
    "amount": Kind.INTEGER,
}

_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
_NAMES: Final = list(FIELDS)
_DELETE: Final = b"\x7f"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_FORMULA: Final = frozenset("=+-@'")

Place = tuple[int, int, int]
"""Where in the outbox a record stood: milliseconds and sequence number of its entry, its position in the entry."""


# -- JSON Lines --------------------------------------------------------------------------------------------------


def _library() -> tuple[Any, Any]:
    """What writes JSON (value, how else, options), and its options; None, None: nothing but what Python has."""
    try:
        import orjson  # noqa: PLC0415 - there is no wheel of it for every machine
    except ImportError:
        return None, None
    return orjson.dumps, orjson.OPT_APPEND_NEWLINE


_LIBRARY: Final = _library()
_dumps: Final[Any] = _LIBRARY[0]
_OPTIONS: Final[Any] = _LIBRARY[1]


def json_line(fields: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON, in ASCII, all fields in their order.

    By the quicker library where there is one, which writes the same of a record that is complete and in order.
    """
    if _dumps is not None and list(fields) == _NAMES:
        try:
            line: bytes = _dumps(fields, None, _OPTIONS)
        except TypeError:  # a number beyond 64 bits, or text that is none
            return _plain_json_line(fields)
        if line.isascii() and _DELETE not in line:  # what Python's own escapes
            return line
    return _plain_json_line(fields)


def _plain_json_line(fields: Mapping[str, Any]) -> bytes:
    # A fifth of what the encoder takes for the whole: it is called for lists only, and most fields are null.
    values = []
    for name, written in _JSON_VALUES:
        value = fields.get(name)
        values.append("null" if value is None else written(value))
    return (_JSON_LINE % tuple(values)).encode()


def _json_flag(value: bool) -> str:
    return "true" if value else "false"


def _json_list(value: Any) -> str:
    return _ENCODE(value) if value else "[]"


_JSON_OF: Final[dict[Kind, Callable[[Any], str]]] = {
    Kind.TEXT: json.encoder.encode_basestring_ascii,
    Kind.FLAG: _json_flag,
    Kind.INTEGER: str,
    Kind.UNSIGNED: str,
    Kind.MOMENT: str,
}
_JSON_VALUES: Final = tuple((name, _JSON_OF.get(kind, _json_list)) for name, kind in FIELDS.items())
_JSON_LINE: Final = "{" + ",".join(f'"{name}":%s' for name in FIELDS) + "}\n"


# -- CSV ---------------------------------------------------------------------------------------------------------


def csv_header() -> str:
    """The first line of every file."""
    return ",".join(FIELDS) + "\r\n"


def csv_line(fields: Mapping[str, Any]) -> bytes:
    """A record as one line of CSV (RFC 4180): no cell has a line break, or is taken for a formula by a spreadsheet."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([cell(fields.get(name)) for name, cell in _CELLS])
    return line.getvalue().encode()


def _text_cell(value: str | None) -> str | None:
    if not value:
        return None
    if not value.isprintable():
        value = _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), value)
    return f"'{value}" if value[0] in _FORMULA else value


def _flag_cell(value: bool | None) -> str | None:
    return None if value is None else "true" if value else "false"


def _number_cell(value: int | None) -> int | None:
    return value


def _list_cell(value: Any) -> str | None:
    return None if value is None else _ENCODE(value) if value else "[]"


_CELL_OF: Final[dict[Kind, Callable[[Any], str | int | None]]] = {
    Kind.TEXT: _text_cell,
    Kind.FLAG: _flag_cell,
    Kind.INTEGER: _number_cell,
    Kind.UNSIGNED: _number_cell,
    Kind.MOMENT: _number_cell,
}
_CELLS: Final = tuple((name, _CELL_OF.get(kind, _list_cell)) for name, kind in FIELDS.items())


def from_csv(cells: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a line of CSV, given by column. Raises ValueError for a cell that no record has."""
    return {name: _value(cells.get(name) or "", kind) for name, kind in FIELDS.items()}


def _value(cell: str, kind: Kind) -> Any:
    if not cell:
        return None
    if kind is Kind.TEXT:
        return cell.removeprefix("'")
    if kind is Kind.FLAG:
        return cell == "true"
    return json.loads(cell)
