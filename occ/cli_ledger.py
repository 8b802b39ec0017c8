"""Commands on the ledger as a whole: open sessions, and the check of the store."""

from heapq import nsmallest
from typing import Annotated, Any

import typer
from rich.table import Table

from balance import directory
from balance.model import Account, Session, Unit
from balance.store import Store
from balance.verify import Report, verify
from occ.cli_shell import (
    REFUSED,
    AsJson,
    Limit,
    console,
    existing_account,
    on_store,
    print_json,
    table,
    text_of,
    time_json,
    time_text,
    units_text,
)
from occ.rating.currency import currency_name

sessions_app = typer.Typer(no_args_is_help=True, help="Open charging sessions.")
ledger_app = typer.Typer(no_args_is_help=True, help="Check the ledger.")


@sessions_app.command("list")
def list_sessions(
    context: typer.Context,
    account: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Open sessions, the oldest first."""

    async def work(store: Store) -> tuple[list[tuple[Account, Session]], int]:
        if account is not None:
            found = await existing_account(store, account)
            every = [(found, session) for session in found.sessions.values()]
            return nsmallest(limit, every, key=_age), len(every)
        oldest: list[tuple[Account, Session]] = []
        count = 0
        async for page in directory.accounts(store):
            several = [(found, session) for found in page for session in found.sessions.values()]
            count += len(several)
            oldest = nsmallest(limit, oldest + several, key=_age)
        return oldest, count

    sessions, count = on_store(context, work)
    if as_json:
        print_json([session_json(found, session) for found, session in sessions])
        return
    if sessions:
        console().print(sessions_table(sessions))
    console().print(f"{len(sessions)} of {count} open sessions.")


def _age(item: tuple[Account, Session]) -> tuple[int, bytes]:
    return item[1].started_ms, item[1].session_id


def sessions_table(sessions: list[tuple[Account, Session]]) -> Table:
    """Sessions with what each of their services used and was granted."""
    shown = table("session", "account", "service", ">used", ">granted", ">debited", "started (UTC)", "expires (UTC)")
    for account, session in sessions:
        first = (text_of(session.session_id), text_of(account.account_id))
        times = (time_text(session.started_ms), time_text(session.expires_ms))
        if not session.services:
            shown.add_row(*first, "", "", "", "", *times)
        for use in session.services:
            unit = Unit(use.unit)
            shown.add_row(
                *first,
                use.name if use.rating_group < 0 else f"{use.name} ({use.rating_group})",
                units_text(use.used, unit, account.currency),
                units_text(use.granted, unit, account.currency),
                units_text(use.debited_micro, Unit.MONEY, account.currency),
                *times,
            )
            first, times = ("", ""), ("", "")
    return shown


def session_json(account: Account, session: Session) -> dict[str, Any]:
    """A session as plain data for JSON."""
    return {
        "session_id": text_of(session.session_id),
        "account": text_of(account.account_id),
        "subscriber": text_of(session.subscriber_id),
        "plan": session.plan,
        "origin_host": text_of(session.origin_host),
        "started": time_json(session.started_ms),
        "expires": time_json(session.expires_ms),
        "services": [
            {
                "service": use.name,
                "rating_group": use.rating_group if use.rating_group >= 0 else None,
                "service_identifier": use.service_identifier if use.service_identifier >= 0 else None,
                "unit": Unit(use.unit).name.lower(),
                "used": use.used,
                "granted": use.granted,
                "debited_micro": use.debited_micro,
                "leaked_micro": use.leaked_micro,
                "reserved": [{"bucket": bucket_id, "amount": amount} for bucket_id, amount in use.parts],
            }
            for use in session.services
        ],
    }


@ledger_app.command("verify")
def verify_ledger(context: typer.Context, as_json: AsJson = False) -> None:
    """Check the whole store: journal against balances, reservations against sessions; exit code 1 if they differ."""
    report = on_store(context, verify)
    if as_json:
        print_json(_report_json(report))
    else:
        _show_report(report)
    if not report.consistent:
        raise typer.Exit(REFUSED)


def _show_report(report: Report) -> None:
    out = console()
    out.print(
        f"{report.accounts} accounts, {report.journal_records} journal records, {report.open_sessions} open sessions "
        f"with {report.open_reservations} reservations."
    )
    shown = table("", ">credited", ">debited", ">lapsed", ">balances", ">reserved")
    for total in report.totals:
        shown.add_row(
            currency_name(total.currency) if total.currency is not None else total.unit.name.lower(),
            *(
                units_text(amount, total.unit, total.currency or 0)
                for amount in (total.credited, total.debited, total.lapsed, total.balances, total.reserved)
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


def _report_json(report: Report) -> dict[str, Any]:
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
                "debited": total.debited,
                "lapsed": total.lapsed,
                "balances": total.balances,
                "reserved": total.reserved,
            }
            for total in report.totals
        ],
        "discrepancy_count": report.discrepancy_count,
        "discrepancies": report.discrepancies,
    }
