"""Rows out of cells and out of JSON, checked as far as that goes without the store: words, figures, names."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from balance.model import IdentityType, LedgerError, Unit
from balance.structure import Pays
from balance.subscribers import check_name
from occ.bulk import values
from occ.bulk.files import Record, Source, unguarded
from occ.bulk.rows import (
    CONTACT_COLUMNS,
    DETAILS,
    IDENTITY_COLUMNS,
    LIST_COLUMNS,
    AccountRow,
    AnyRow,
    BucketRow,
    Column,
    Detail,
    Kind,
    MeterRow,
    OfferRow,
    RowError,
    Said,
    SubscriberRow,
    UnitRow,
    find_column,
    plain_name,
    read_cells,
)
from occ.rating.catalogue import Catalogue
from occ.yamlmap import nearest

_NAME: Final = re.compile(r"[\x21-\x7e]{1,64}")
_NESTED: Final = (*DETAILS, Kind.SUBSCRIBERS)
_ALL_NESTED: Final = (*_NESTED, "unit")
KEYS_REMEMBERED: Final = 1000
UNREADABLE: Final = "text"
"""Where a rejected line that is no JSON object stands in the file of rejected lines."""


class Bundle(NamedTuple):
    """One line of JSON Lines: an account and all that belongs to it."""

    account: AccountRow
    details: tuple[Detail, ...]
    unit: UnitRow | None
    subscribers: tuple[SubscriberRow, ...]

    def rows(self) -> tuple[AnyRow, ...]:
        """All of them."""
        unit = () if self.unit is None else (self.unit,)
        return (self.account, *self.details, *unit, *self.subscribers)


@dataclass(frozen=True, slots=True)
class RowReader:
    """What all rows of an import are read by."""

    catalogue: Catalogue | None
    """What plans, allowances and offers there are; None: names are taken as they come."""
    mapping: Mapping[str, str]
    """What ``--map`` says, by plain names."""
    decimal_comma: bool = False
    _keys: dict[tuple[Kind, str], Column | None] = field(default_factory=dict)
    """Keys of JSON that have been met, and what they stand for."""

    # -- CSV -------------------------------------------------------------------------------------------------------

    def csv_row(self, source: Source, record: Record) -> AnyRow:
        """Raises RowError."""
        assert source.kind is not None
        if record.fault:
            raise RowError(record.fault)
        cells = [
            (column, unguarded(cell))
            for column, cell in zip(source.columns, record.cells, strict=False)
            if column is not None and cell
        ]
        return self._row(source.kind, read_cells(source.kind, cells, self.decimal_comma))

    # -- JSON Lines ------------------------------------------------------------------------------------------------

    def json_bundle(self, text: str) -> Bundle:
        """Raises RowError naming all that is wrong in the line."""
        whole = _json_object(text)
        if UNREADABLE in whole and "account" not in whole:  # mended where it was rejected
            whole = _json_object(_scalar(whole[UNREADABLE]))
        faults: list[str] = []
        own = {key: value for key, value in whole.items() if key not in _ALL_NESTED}
        account = self._json_row(Kind.ACCOUNTS, own, faults, "")
        name = account.account if isinstance(account, AccountRow) else b"unknown"
        details = [
            row
            for kind in DETAILS
            for row in self._json_rows(kind, whole.get(kind), name, faults)
            if isinstance(row, Detail)
        ]
        subscribers = [
            row
            for row in self._json_rows(Kind.SUBSCRIBERS, whole.get(Kind.SUBSCRIBERS), name, faults)
            if isinstance(row, SubscriberRow)
        ]
        units = self._json_rows(Kind.UNITS, [whole["unit"]] if whole.get("unit") is not None else None, name, faults)
        if faults:
            raise RowError("; ".join(faults))
        assert isinstance(account, AccountRow)
        unit = units[0] if units else None
        assert unit is None or isinstance(unit, UnitRow)
        return Bundle(account, tuple(details), unit, tuple(subscribers))

    def _json_rows(self, kind: Kind, nested: object, account: bytes, faults: list[str]) -> list[AnyRow]:
        if nested is None:
            return []
        if not isinstance(nested, list):
            faults.append(f"{kind} must be a list")
            return []
        rows: list[AnyRow] = []
        for index, each in enumerate(nested):
            where = f"{kind}[{index}] " if kind != Kind.UNITS else "unit "
            if not isinstance(each, dict):
                faults.append(f"{where}must be an object")
                continue
            named = each.get("account", None)
            if named is not None and str(named).encode("utf-8", "replace") != account:
                faults.append(f"{where}belongs to another account than the one it stands in")
                continue
            row = self._json_row(kind, {**each, "account": account.decode()}, faults, where)
            if row is not None:
                rows.append(row)
        return rows

    def _json_row(self, kind: Kind, given: dict[str, Any], faults: list[str], where: str) -> AnyRow | None:
        try:
            cells: dict[str, tuple[Column, str]] = {}
            for key, value in given.items():
                column = self._column(kind, key)
                if column is None:
                    continue
                if column.name in cells:
                    raise RowError(f"{column.name} is there twice, also as {plain_name(key)!r}")
                cells[column.name] = column, value if isinstance(value, str) else _text(column, value)
            return self._row(kind, read_cells(kind, cells.values(), self.decimal_comma))
        except RowError as error:
            faults.append(f"{where}{error}")
            return None

    def _column(self, kind: Kind, key: str) -> Column | None:
        try:
            return self._keys[kind, key]
        except KeyError:
            column = find_column(kind, key, self.mapping)
            if len(self._keys) < KEYS_REMEMBERED:
                self._keys[kind, key] = column
            return column

    # -- rows ------------------------------------------------------------------------------------------------------

    def _row(self, kind: Kind, found: dict[str, Any]) -> AnyRow:
        try:
            check_name("account", found["account"])
            return _MAKERS[kind](self, found)
        except (LedgerError, ValueError) as error:
            raise RowError(str(error)) from None

    def _account(self, found: dict[str, Any]) -> AccountRow:
        return AccountRow(
            found["account"],
            found.get("kind"),
            found.get("currency"),
            found.get("balance"),
            found.get("credit_limit"),
            found.get("state"),
            found.get("expires"),
            found.get("cycle_day"),
            _contact(found),
        )

    def _bucket(self, found: dict[str, Any]) -> BucketRow:
        name: str = found.get("name", "")
        written: str = found["amount"]
        expected = self._unit_of(name) if name else None
        unit: int | None = found.get("unit", expected)
        if unit is None:
            unit = values.unit_of_size(written)
        if unit is None:
            raise RowError("unit is missing: money, octets, seconds or events, or an amount such as '5 GiB'")
        if expected is not None and unit != expected:
            raise RowError(f"unit: {name} is counted in {expected.name.lower()}, not {Unit(unit).name.lower()}")
        try:
            amount = values.read_units(written, Unit(unit))
        except ValueError as error:
            raise RowError(f"amount: {error}") from None
        return BucketRow(
            found["account"],
            name,
            int(unit),
            amount,
            found.get("priority"),
            found.get("expires"),
            _owner(found),
            found.get("number"),
        )

    def _unit_of(self, name: str) -> Unit | None:
        """What an allowance or bonus of the catalogue is counted in; None: the catalogue is not asked."""
        _check_word("name", name)
        if self.catalogue is None:
            return None
        if (allowance := self.catalogue.allowance(name)) is not None:
            return allowance.unit
        if self.catalogue.bonus(name) is not None:
            return Unit.MONEY
        known = nearest(name, (*self.catalogue.allowances, *self.catalogue.bonuses))
        raise RowError(f"name: the catalogue has no allowance or bonus {values.shown(name)}{known}")

    def _offer(self, found: dict[str, Any]) -> OfferRow:
        name: str = found["offer"]
        _check_word("offer", name)
        if self.catalogue is not None and self.catalogue.offer(name) is None:
            known = nearest(name, self.catalogue.offers)
            raise RowError(f"offer: the catalogue has no offer {values.shown(name)}{known}")
        return OfferRow(
            found["account"],
            name,
            found.get("since"),
            found.get("next"),
            _owner(found),
            found.get("unpaid"),
            found.get("paid"),
        )

    def _meter(self, found: dict[str, Any]) -> MeterRow:
        name: str = found["meter"]
        if not name.isprintable() or len(name) > 200:
            raise RowError("meter: a name can be 200 printable characters long at most")
        return MeterRow(found["account"], name, found["resets"], found.get("used", 0), found.get("spent", 0))

    def _unit(self, found: dict[str, Any]) -> UnitRow:
        check_name("unit", found["unit"])
        parent: bytes | None = found.get("parent")
        if parent == values.NONE.encode():
            parent = b""
        if parent:
            check_name("unit", parent)
        if not parent and found.get("pays") == Pays.PARENT:
            raise RowError("pays: a unit without a parent pays itself")
        return UnitRow(found["account"], found["unit"], found.get("kind"), found.get("name"), parent, found.get("pays"))

    def _subscriber(self, found: dict[str, Any]) -> SubscriberRow:
        identities = tuple(
            (int(kind), value) for column, kind in IDENTITY_COLUMNS.items() for value in found.get(column, ())
        )
        name: bytes | None = found.get("subscriber")
        if name is None:
            # As the sample population does it: a line is known by its number.
            by_number = [value for kind, value in identities if kind in (IdentityType.E164, IdentityType.IMSI)]
            if not by_number:
                raise RowError("subscriber is missing, and no msisdn or imsi to take its place")
            name = by_number[0]
        for column in ("plan", "next_plan"):
            self._check_plan(column, found.get(column))
        if found.get("next_plan") and not found.get("next_plan_from"):
            raise RowError("next_plan_from is missing: when the plan changes")
        return SubscriberRow(
            found["account"],
            name,
            found.get("plan"),
            identities,
            found.get("state"),
            found.get("cap_day"),
            found.get("cap_month"),
            found.get("activated"),
            found.get("segment"),
            found.get("friends"),
            found.get("next_plan"),
            found.get("next_plan_from"),
            _contact(found),
        )

    def _check_plan(self, column: str, plan: str | None) -> None:
        if plan and self.catalogue is not None and plan not in self.catalogue.plans:
            known = nearest(plan, self.catalogue.plans)
            raise RowError(f"{column}: the catalogue has no plan {values.shown(plan)}{known}")


_MAKERS: Final[dict[Kind, Callable[[RowReader, dict[str, Any]], AnyRow]]] = {
    Kind.ACCOUNTS: RowReader._account,
    Kind.BUCKETS: RowReader._bucket,
    Kind.OFFERS: RowReader._offer,
    Kind.METERS: RowReader._meter,
    Kind.UNITS: RowReader._unit,
    Kind.SUBSCRIBERS: RowReader._subscriber,
}


def _contact(found: dict[str, Any]) -> Said:
    return tuple((name, found[name]) for name in CONTACT_COLUMNS if name in found)


def _owner(found: dict[str, Any]) -> bytes:
    owner: bytes = found.get("owner", b"")
    if owner:
        check_name("subscriber", owner)
    return owner


def _check_word(column: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RowError(f"{column}: {values.shown(name)} is not a name of 64 printable characters without spaces")


def _json_object(text: str) -> dict[str, Any]:
    """Numbers with decimals stay as they are written: money is never a binary fraction. Raises RowError."""
    try:
        found = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise RowError(f"the line is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RowError("the line is not a JSON object")
    return found


def _pairs(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    listed = list(pairs)
    found = dict(listed)
    if len(found) != len(listed):
        names = [name for name, _ in listed]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} is there twice")
    return found


_DECODER: Final = json.JSONDecoder(parse_float=str, object_pairs_hook=_pairs)
"""Decimals stay as they are written."""


def _text(column: Column, value: object) -> str:
    """A JSON value as the cell of a table would have it. Raises RowError."""
    if isinstance(value, list) and column.name in LIST_COLUMNS:
        words = [_scalar(each) for each in value]
        for word in words:
            if not word or word.split() != [word]:
                raise RowError(f"{column.name}: {values.shown(word)} is empty or has spaces in it")
        return " ".join(words)
    try:
        return _scalar(value)
    except RowError as error:
        raise RowError(f"{column.name}: {error}") from None


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RowError("is not a text or a number")
