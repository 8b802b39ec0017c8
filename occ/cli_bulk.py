"""The commands ``occ import`` and ``occ export``."""

import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from balance.model import Unit
from balance.store import Store
from occ.bulk.exporting import Exported, Format, export
from occ.bulk.files import find_sources
from occ.bulk.importing import Import, Report
from occ.bulk.reading import RowReader
from occ.bulk.reconcile import OnExisting, Rules, Verdict
from occ.bulk.rejects import reject_paths
from occ.bulk.rows import COLUMNS, Kind, plain_name
from occ.bulk.totals import Figure, Pot
from occ.cli_shell import (
    REFUSED,
    AsJson,
    WrongUsageError,
    console,
    on_store,
    print_json,
    settings_of,
    table,
    units_text,
)
from occ.clock import now_ms
from occ.rating.catalogue import load_catalogue
from occ.yamlmap import nearest, shown

DISAGREEMENT: Final = 3
"""Exit code of an import after which the store is not what it should be."""


def import_rows(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="CSV files whose names say what is in them (accounts.csv, subscribers.csv, buckets.csv, offers.csv, "
            "meters.csv, units.csv), JSON Lines (accounts.jsonl), a folder of them, or subscribers=FILE.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and say what would be done.")] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(
            help="Where rejected rows go: a file for one input, a folder for several; "
            "left out: beside each input, such as accounts.rejected.csv."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Name of the import in the journal; repeated, it goes on. Left out: that of the first file."),
    ] = None,
    on_existing: Annotated[
        OnExisting,
        typer.Option(
            help="What is there already: compare and reject what differs, skip it, or update all but money.",
            case_sensitive=False,
        ),
    ] = OnExisting.COMPARE,
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", help="A column of another name: 'Kundennummer=account'; 'Notes=' leaves one out."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of files without byte order mark; left out: UTF-8.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between cells; left out: the heading tells.")] = None,
    decimal_comma: Annotated[bool, typer.Option("--decimal-comma", help="Money is written as 10,00.")] = False,
    any_names: Annotated[
        bool, typer.Option("--any-names", help="Also plans, allowances and offers that the catalogue does not have.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Import accounts, subscribers, buckets, offers, meters and customer units.

    Rows that cannot be taken are written to a file with line and reason, to be mended and imported again; the others
    are imported. The same command repeated does nothing twice, also after it was cut off. Exit code 0: all rows were
    taken, or were there; 1: some were rejected; 3: the control totals do not agree.
    """
    if delimiter is not None and len(delimiter := {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)) != 1:
        raise WrongUsageError("--delimiter is one character, such as ';', or 'tab'")
    mapping = _mapping(rename or [])
    sources = find_sources(files, mapping, encoding, delimiter)
    paths = reject_paths(sources, rejects)
    catalogue = load_catalogue(settings_of(context).catalogue)
    reader = RowReader(None if any_names else catalogue, mapping, decimal_comma)
    name = reference if reference is not None else re.sub(r"[^\x21-\x7e]", "_", sources[0].name)[:128]

    async def work(store: Store) -> Report:
        rules = Rules(catalogue, on_existing, now_ms())
        with _few_collections(), _progress(as_json) as progress:
            return await Import(store, sources, paths, reader, rules, name, dry_run, progress).run()

    report = on_store(context, work)
    if as_json:
        print_json(_report_json(report))
    else:
        _show_report(report)
    if report.disagreements:
        raise typer.Exit(DISAGREEMENT)
    if report.of(Verdict.REJECTED):
        raise typer.Exit(REFUSED)


def export_rows(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A folder for CSV, or a file such as accounts.jsonl.")],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Left out: JSON Lines for a path that ends with .jsonl.", case_sensitive=False),
    ] = None,
    accounts: Annotated[
        Path | None, typer.Option(help="File that names the accounts to export, one in each line; left out: all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All accounts, which is the default.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export accounts with their subscribers, buckets, offers, meters and customer units, but without sessions."""
    if everything and accounts is not None:
        raise WrongUsageError("--all and --accounts exclude each other")
    form = form or (Format.JSONL if path.suffix.lower() in (".jsonl", ".ndjson", ".json") else Format.CSV)
    only = None if accounts is None else _names_in(accounts)

    async def work(store: Store) -> Exported:
        with _few_collections(), _progress(as_json) as progress:
            return await export(store, path, form, only, lambda done: progress("exporting", done))

    exported = on_store(context, work)
    if as_json:
        print_json(_exported_json(exported))
    else:
        _show_exported(exported)
    if exported.missing:
        raise typer.Exit(REFUSED)


def _names_in(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError:
        raise WrongUsageError(f"{shown(path)} is not UTF-8 text") from None


def _mapping(given: list[str]) -> dict[str, str]:
    """``old=new`` by plain names. Raises WrongUsageError."""
    known = sorted({column.name for columns in COLUMNS.values() for column in columns})
    found: dict[str, str] = {}
    for each in given:
        old, equals, new = each.rpartition("=")
        old, new = plain_name(old), plain_name(new)
        if not equals or not old:
            raise WrongUsageError(f"--map takes 'old=new', not {each[:60]!r}")
        if new and new not in known:
            raise WrongUsageError(f"--map {each[:60]!r}: there is no column {new!r}{nearest(new, known)}")
        found[old] = new
    return found


@contextmanager
def _few_collections() -> Iterator[None]:
    """Rows come and go by the hundred thousand, hardly any in cycles: a collection at every turn is a quarter of the
    time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _progress(as_json: bool) -> "Iterator[Callable[[str, int], None]]":
    bar = Progress(
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
        disable=as_json or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda what, done: bar.update(task, description=what, completed=done)


# -- what is shown -----------------------------------------------------------------------------------------------------


def _amount(amount: int, pot: Pot | None) -> str:
    if pot is None:
        return str(amount)
    return units_text(amount, Unit(pot.unit), pot.currency)


def _show_report(report: Report) -> None:
    out = console()
    doing = "would be " if report.dry_run else ""
    rows = table("", ">read", f">{doing}accepted", ">unchanged", f">{doing}rejected")
    for kind in Kind:
        numbers = [report.rows[kind, verdict] for verdict in _VERDICTS]
        if any(numbers):
            rows.add_row(kind.value, str(sum(numbers)), *(str(number) for number in numbers))
    for pot in sorted({pot for pot, _ in report.sums}):
        sums = [report.sums[pot, verdict] for verdict in _VERDICTS]
        if any(sums):
            rows.add_row(pot.label, *(_amount(amount, pot) for amount in (sum(sums), *sums)))
    out.print(rows)
    out.print()
    totals = table("in the store", ">before", ">accepted", ">would be" if report.dry_run else ">after", "")
    for line in report.lines():
        figures = [_amount(amount, line.figure.pot) for amount in line[1:]]
        mark = "" if line.agrees or report.others else "DISAGREES"
        totals.add_row(line.figure.label, *figures, mark)
    out.print(totals)
    out.print()
    for remark, number in sorted(report.remarks.items()):
        out.print(f"Note: {number} {remark}.")
    for path in report.rejects:
        out.print(f"Rejected rows, with line and reason, are in {shown(path)}.")
    for sentence in report.disagreements:
        out.print(f"DISAGREES: {sentence}.", style="bold red", markup=False)
    done = sum(report.rows.values())
    out.print(f"{done} rows in {report.seconds:.1f} s. {_verdict(report)}")


_VERDICTS: Final = (Verdict.ACCEPTED, Verdict.UNCHANGED, Verdict.REJECTED)


def _verdict(report: Report) -> str:
    if report.dry_run:
        return "Nothing was written."
    if report.disagreements:
        return "The control totals DISAGREE: 'occ ledger verify' checks the whole store."
    if report.others:
        return (
            f"Others changed accounts {report.others} times meanwhile, so before and after are not compared; the "
            "journal has exactly what was accepted."
        )
    return "The control totals agree: what was there and what was accepted make what is there now."


def _figure_json(figure: Figure) -> dict[str, Any]:
    found: dict[str, Any] = {"of": figure.part, "label": figure.label}
    if figure.pot is not None:
        found["unit"] = Unit(figure.pot.unit).name.lower()
    return found


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "reference": report.reference,
        "dry_run": report.dry_run,
        "rows": {
            kind.value: {verdict.value: report.rows[kind, verdict] for verdict in _VERDICTS}
            for kind in Kind
            if any(report.rows[kind, verdict] for verdict in _VERDICTS)
        },
        "sums": [
            {
                "label": pot.label,
                "unit": Unit(pot.unit).name.lower(),
                **{verdict.value: report.sums[pot, verdict] for verdict in _VERDICTS},
            }
            for pot in sorted({pot for pot, _ in report.sums})
        ],
        "totals": [
            {
                **_figure_json(line.figure),
                "before": line.before,
                "accepted": line.accepted,
                "after": line.after,
                "agrees": line.agrees,
            }
            for line in report.lines()
        ],
        "changes_by_others": report.others,
        "agrees": not report.disagreements,
        "disagreements": report.disagreements,
        "remarks": [{"rows": number, "remark": remark} for remark, number in sorted(report.remarks.items())],
        "rejects": [str(path) for path in report.rejects],
        "seconds": round(report.seconds, 3),
    }


def _reserved(exported: Exported) -> list[str]:
    return [_amount(amount, pot) for pot, amount in sorted(exported.totals.reserved.items()) if amount]


def _show_exported(exported: Exported) -> None:
    out = console()
    rows = table("", ">exported")
    for kind, number in exported.rows.items():
        if number:
            rows.add_row(kind.value, str(number))
    for figure, amount in exported.totals.figures().items():
        if figure.part != "subscribers" and amount:
            rows.add_row(figure.label, _amount(amount, figure.pot))
    out.print(rows)
    if exported.sessions:
        reserved = ", ".join(_reserved(exported)) or "nothing"
        out.print(
            f"Not exported: {exported.sessions} open sessions; what they have reserved ({reserved}) is part of the "
            "balances."
        )
    if exported.orphans:
        out.print(f"Note: {exported.orphans} subscribers are of accounts that do not exist; CSV has them.")
    for name in exported.missing:
        out.print(f"There is no account {name}.", style="red")
    out.print(f"Written: {', '.join(shown(path) for path in exported.files)}")


def _exported_json(exported: Exported) -> dict[str, Any]:
    return {
        "files": [str(path) for path in exported.files],
        "rows": {kind.value: number for kind, number in exported.rows.items() if number},
        "totals": [{**_figure_json(figure), "amount": amount} for figure, amount in exported.totals.figures().items()],
        "sessions_not_exported": exported.sessions,
        "subscribers_without_account": exported.orphans,
        "missing": exported.missing,
    }
