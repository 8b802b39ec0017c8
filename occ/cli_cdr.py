"""Commands on charging data records: list, show, export. They read files and need no server."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from balance.model import Unit
from occ.cdr_parquet import PyarrowMissingError, write_parquet
from occ.cdr_reading import UnreadableRecordError, read_records
from occ.cli_shell import (
    AsJson,
    Limit,
    RefusedError,
    admit_to_files,
    console,
    print_json,
    settings_of,
    table,
    text_of,
    time_text,
    units_text,
)
from occ.clock import now_ms
from occ.rating.catalogue import parse_size
from occ.rating.currency import NUMERIC, format_amount
from occ.rating.explain import explain
from occ.rating.price import price_of
from occ.yamlmap import shown

cdr_app = typer.Typer(no_args_is_help=True, help="Charging data records.")

_WHEN: Final = "2026-01-31, 2026-01-31T12:00+01:00 (without a zone it is UTC) or 90 min (so long ago)"

Since = Annotated[str | None, typer.Option(help=f"Made since then: {_WHEN}.")]
Until = Annotated[str | None, typer.Option(help="Made before then.")]
Directory = Annotated[
    list[Path] | None, typer.Option(help="Where they are, once for each directory; left out: cdr.directory.")
]


@cdr_app.command("list")
def list_records(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    account: Annotated[str | None, typer.Option(help="Of this account only.")] = None,
    subscriber: Annotated[str | None, typer.Option(help="Of this subscriber only.")] = None,
    directory: Directory = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List the newest charging data records, one a line, in the order they were delivered."""
    found: deque[dict[str, Any]] = deque(maxlen=limit)
    all_of_them = 0
    for fields in records_in(context, directory, since, until):
        if account in (None, fields["account_id"]) and subscriber in (None, fields["subscriber_id"]):
            found.append(fields)
            all_of_them += 1
    if as_json:
        print_json({"records": list(found), "found": all_of_them})
        return
    lines = table("made (UTC)", "session", ">seq", "subscriber", "service", ">used", ">debited", "cause")
    for fields in found:
        lines.add_row(
            time_text(fields["closed_ms"]),
            _text(fields["session_id"]),
            f"{fields['sequence']}{'' if fields['final'] else ' …'}",
            _text(fields["subscriber_id"]),
            _text(fields["service"]),
            amount_text(fields["used"], fields["unit"], fields["currency"]),
            money_text(fields["debited_micro"], fields["currency"]),
            fields["cause"],
        )
    console().print(lines)
    if all_of_them > limit:
        console().print(f"These are the last {limit} of {all_of_them}; --limit shows more.")


@cdr_app.command("show")
def show_records(
    context: typer.Context,
    session: Annotated[str, typer.Argument(help="Session-Id.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Show all charging data records of a session, with what its price is made of; exit code 1 if it has none."""
    found = list(records_in(context, directory, None, None, session))
    if not found:
        raise RefusedError(f"there is no charging data record of session {session}")
    if as_json:
        print_json({"records": found})
        return
    for fields in found:
        _show(fields)
    if len(found) > 1:
        currency = found[-1]["currency"]
        debited = sum(fields["debited_micro"] for fields in found)
        console().print(f"{len(found)} records, {money_text(debited, currency)} debited in all.")


@cdr_app.command("export")
def export_records(
    context: typer.Context,
    parquet: Annotated[Path, typer.Option(help="Parquet file to write; replaced if it is there.")],
    since: Since = None,
    until: Until = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Write charging data records to a Parquet file, each once, for analysts."""
    totals = {"records": 0, "debited_micro": 0, "leaked_micro": 0}

    def counted() -> Iterator[dict[str, Any]]:
        for fields in records_in(context, directory, since, until):
            totals["records"] += 1
            totals["debited_micro"] += fields["debited_micro"]
            totals["leaked_micro"] += fields["leaked_micro"]
            yield fields

    try:
        write_parquet(parquet, counted())
    except PyarrowMissingError as error:
        raise RefusedError(str(error)) from error
    if as_json:
        print_json({"file": str(parquet), **totals})
        return
    debited, leaked = format_amount(totals["debited_micro"]), format_amount(totals["leaked_micro"])
    console().print(f"{totals['records']} records in {shown(parquet)}: {debited} debited, {leaked} leaked.")


def records_in(
    context: typer.Context,
    directories: list[Path] | None,
    since: str | None,
    until: str | None,
    session_id: str | None = None,
    record_id: str | None = None,
) -> Iterator[dict[str, Any]]:
    """The records that the options of a command ask for. Raises RefusedError, BadParameter."""
    admit_to_files(context)
    since_ms = 0 if since is None else _moment_ms(since, "--since")
    until_ms = None if until is None else _moment_ms(until, "--until")
    looked_at = directories or [settings_of(context).cdr.directory]
    for directory in looked_at:
        if not directory.is_dir():
            raise RefusedError(f"there is no directory {shown(directory)} with charging data records")
    try:
        yield from read_records(looked_at, since_ms, until_ms, session_id, record_id)
    except UnreadableRecordError as error:
        raise RefusedError(str(error)) from error


def _moment_ms(written: str, option: str) -> int:
    """Milliseconds since the Unix epoch. Raises BadParameter."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        try:
            return now_ms() - 1000 * parse_size(written, Unit.SECONDS)
        except ValueError:
            raise typer.BadParameter(f"{written[:40]!r} is no time such as {_WHEN}", param_hint=option) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if not 1970 < moment.year < 9999:
        raise typer.BadParameter(f"{written[:40]!r}: give a year from 1971 to 9998", param_hint=option)
    return int(moment.timestamp()) * 1000


# -- one record for people ---------------------------------------------------------------------------------------

_LISTS: Final = ("reporting_reasons", "promotions", "policies", "tiers")
_BELOW: Final = ("periods", "buckets", "price", "price_terms", "step_units", "step_price_micro", *_LISTS)
"""Fields that do not stand in the list of a record's fields as they are."""


def _show(fields: dict[str, Any]) -> None:
    out = console()
    unit, currency = fields["unit"], fields["currency"]
    lines = table("", "")
    for name, value in fields.items():
        if value is not None and name not in _BELOW:
            lines.add_row(name, _shown(name, value, unit, currency))
    for name in _LISTS:
        if fields.get(name):  # files of earlier versions may have fewer fields
            lines.add_row(name, ", ".join(map(_text, fields[name])))
    out.print(lines)
    for period in fields["periods"] or ():
        out.print(period_lines(period, unit, currency))
    if fields["buckets"]:
        buckets = table("", ">bucket", "name", ">taken")
        for each in fields["buckets"]:
            amount = amount_text(each["amount"], each["unit"], currency)
            buckets.add_row("", str(each["bucket_id"]), _text(each["name"]), amount)
        out.print(buckets)
    out.print()


def period_lines(period: dict[str, Any], unit: str, currency: str) -> Table:
    """What was used at one price, and what its cost is made of."""
    lines = table("", "what", ">cost")
    used = amount_text(period["units"], unit, currency)
    began, ended = time_text(period["from_ms"]), time_text(period["until_ms"])
    band = f" ({_text(period['band'])})" if period.get("band") else ""
    lines.add_row("", f"{used} from {began} to {ended}: {_text(period['price'] or 'several prices')}{band}", "")
    rest = period["cost_micro"]
    if period["step_units"]:
        price = price_of(Unit[unit.upper()], period["step_units"], period["step_price_micro"], tuple(period["terms"]))
        for line in explain(price, period["counted_from"], period["counted_to"]):
            lines.add_row("", f"  {line.text}", money_text(line.micro, currency))
            rest -= line.micro
    if rest:
        lines.add_row("", "  beyond a cap" if rest < 0 else "  in all", money_text(rest, currency))
    if period["leaked_micro"]:
        lines.add_row("", "  not covered by any balance", money_text(-period["leaked_micro"], currency))
    return lines


def _shown(name: str, value: Any, unit: str, currency: str) -> str:
    if name.endswith("_micro"):
        return money_text(value, currency)
    if name in ("started_ms", "since_ms", "closed_ms"):
        return time_text(value)
    if name in ("used", "disbelieved", "reported", "paid_units", "allowance_units"):
        return amount_text(value, unit, currency)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _text(str(value))


def _text(value: str | None) -> str:
    return "" if value is None else text_of(value.encode())


def money_text(micro: int, currency: str) -> str:
    return f"{format_amount(micro)} {currency}"


def amount_text(units: int, unit: str, currency: str) -> str:
    kind = Unit[unit.upper()]
    if kind in (Unit.MONEY, Unit.AMOUNT):
        return money_text(units, currency)
    return units_text(units, kind, NUMERIC.get(currency, 0))
