"""Commands on the ledger as a whole: the check of the store."""

from typing import Any

import typer

from balance.verify import Report, verify
from occ.cli_shell import (
    REFUSED,
    AsJson,
    console,
    on_store,
    print_json,
    table,
    units_text,
)
from occ.rating.currency import currency_name

ledger_app = typer.Typer(no_args_is_help=True, help="Check the ledger.")


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
