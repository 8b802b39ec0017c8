"""Commands on the ledger as a whole: the check of the store, and its history that has left Redis."""

import json
from typing import Annotated, Any

import typer

from balance.verify import Report, verify
from occ.cli_shell import (
    REFUSED,
    AsJson,
    admit_to_files,
    console,
    on_store,
    print_json,
    settings_of,
    table,
    units_text,
)
from occ.clock import now_ms
from occ.journal_files import JournalFiles, JournalSettings, files, read_file
from occ.rating.currency import currency_name
from occ.settings import JOURNAL_DAYS

ledger_app = typer.Typer(no_args_is_help=True, help="Check the ledger, and close its books.")


@ledger_app.command("verify")
def verify_ledger(context: typer.Context, as_json: AsJson = False) -> None:
    """Check the whole store: journal against balances, reservations against sessions; exit code 1 if they differ."""
    report = on_store(context, verify)
    if as_json:
        print_json(report_json(report))
    else:
        show_report(report)
    if not report.consistent:
        raise typer.Exit(REFUSED)


@ledger_app.command("close")
def close_books(
    context: typer.Context,
    older_than_days: Annotated[
        int, typer.Option(min=JOURNAL_DAYS, help="What is older leaves Redis and goes into files; its sums stay.")
    ],
) -> None:
    """Move old journal records into files now; a server does it by itself (journal.keep_days)."""
    directory = settings_of(context).journal.directory
    until_ms = now_ms() - older_than_days * 86_400_000
    moved = on_store(context, lambda store: JournalFiles(store, JournalSettings(directory, 0)).close_before(until_ms))
    console().print(f"{moved} entries of the journal were moved to {directory}.", markup=False, soft_wrap=True)


@ledger_app.command("closed")
def closed_records(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="Account.")],
) -> None:
    """The records of an account that have left Redis, from the files of this machine, as JSON Lines, in order."""
    admit_to_files(context)
    for path, _, _ in files(settings_of(context).journal.directory):
        for record in read_file(path):
            if record["account"] == account:
                typer.echo(json.dumps(record, ensure_ascii=False))


def show_report(report: Report) -> None:
    out = console()
    out.print(
        f"{report.accounts} accounts, {report.journal_records} journal records, {report.open_sessions} open sessions "
        f"with {report.open_reservations} reservations."
    )
    shown = table(
        "", ">credited", ">given", ">debited", ">lapsed", ">adjusted", ">transferred", ">balances", ">reserved"
    )
    for total in report.totals:
        shown.add_row(
            currency_name(total.currency) if total.currency is not None else total.unit.name.lower(),
            *(
                units_text(amount, total.unit, total.currency or 0)
                for amount in (
                    total.credited,
                    total.given,
                    total.debited,
                    total.lapsed,
                    total.adjusted,
                    total.transferred,
                    total.balances,
                    total.reserved,
                )
            ),
        )
    if report.totals:
        out.print(shown)
    for sentence in report.discrepancies:
        out.print(sentence, style="red", markup=False)
    if report.consistent:
        out.print("Consistent: every balance is the sum of its journal records, every reservation has its session.")
    else:
        hidden = report.discrepancy_count - len(report.discrepancies)
        unseen = f", {hidden} of them not shown" if hidden else ""
        out.print(f"INCONSISTENT: {report.discrepancy_count} discrepancies{unseen}.", style="bold red")


def report_json(report: Report) -> dict[str, Any]:
    return {
        "consistent": report.consistent,
        "accounts": report.accounts,
        "journal_records": report.journal_records,
        "open_sessions": report.open_sessions,
        "open_reservations": report.open_reservations,
        "totals": [
            {
                "unit": total.unit.name.lower(),
                "currency": currency_name(total.currency) if total.currency is not None else None,
                "credited": total.credited,
                "given": total.given,
                "debited": total.debited,
                "lapsed": total.lapsed,
                "adjusted": total.adjusted,
                "transferred": total.transferred,
                "balances": total.balances,
                "reserved": total.reserved,
            }
            for total in report.totals
        ],
        "discrepancy_count": report.discrepancy_count,
        "discrepancies": report.discrepancies,
    }
