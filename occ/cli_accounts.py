"""Commands on accounts: create, show, history, list; those that change one are in ``occ.cli_account_changes``."""

from collections.abc import Iterable
from heapq import nsmallest
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from balance import directory
from balance.accounts import Account
from balance.journal import history as account_history
from balance.model import AccountKind, LifeState, Unit
from balance.records import JournalRecord
from balance.store import Store
from occ.cli_account_view import (
    DAY_MS,
    DEFAULT_REASON,
    AccountName,
    Reason,
    ValidFor,
    account_json,
    cycle_day_of,
    main_bucket_text,
    new_bucket,
    show_account,
    time_ms,
)
from occ.cli_later import Later, loading
from occ.cli_shell import (
    AsJson,
    Limit,
    console,
    existing_account,
    money,
    name_octets,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
    time_json,
    time_text,
    units_text,
)
from occ.clock import now_ms
from occ.rating.catalogue import load_catalogue
from occ.rating.currency import NUMERIC

_CHANGES: Final = "occ.cli_account_changes"
account_app = typer.Typer(
    cls=loading(
        top_up=Later(
            _CHANGES,
            "top_up",
            "Add money, or units of an allowance, to a bucket; a prepaid account that has expired is in service again.",
        ),
        adjust=Later(
            _CHANGES,
            "adjust",
            "Put a bucket right: add an amount, or take one that is below zero, as far as the bucket is free to "
            "give it.",
            {"ignore_unknown_options": True},  # amounts may be negative
        ),
        transfer=Later(_CHANGES, "transfer", "Move money from the main bucket of one account to that of another."),
        transfers=Later(
            _CHANGES,
            "transfers",
            "Transfers that were cut off; the same transfer repeated, with its reference, completes it.",
        ),
        limit=Later(_CHANGES, "limit", "Set the credit limit of an account: of a prepaid one, its overdraft."),
        state=Later(
            _CHANGES,
            "state",
            "Activate, suspend, block or terminate an account, for all whom it pays for; "
            "running sessions ask anew at once.",
        ),
        expires=Later(
            _CHANGES,
            "expires",
            "Say when a prepaid account expires; one that is in grace is in service again.",
        ),
        cycle_day=Later(
            _CHANGES,
            "cycle_day",
            "Have the months of an account begin on another day; the one that runs ends on the first such day to come.",
        ),
        bucket=Later(_CHANGES, "bucket_app", "Buckets of an account."),
        offer=Later("occ.cli_offers", "offer_app", "Rentals and bundles that an account has."),
        contact=Later("occ.cli_contacts", "account_contact_app", "How an account is told what concerns it."),
    ),
    no_args_is_help=True,
    help="Create, show, change and list accounts.",
)

_REQUEST_TYPES: Final = {1: "INITIAL", 2: "UPDATE", 3: "TERMINATION", 4: "EVENT"}


@account_app.command("create")
def create(
    context: typer.Context,
    account: AccountName,
    postpaid: Annotated[bool, typer.Option("--postpaid", help="Pay later, up to a credit limit.")] = False,
    balance: Annotated[str, typer.Option(help="Money to start with, such as 10.00.")] = "0.00",
    credit_limit: Annotated[str, typer.Option(help="How far below zero the account may go, such as 50.00.")] = "0.00",
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code; left out: that of the catalogue.")] = None,
    bucket: Annotated[
        list[str] | None,
        typer.Option(
            help="One more bucket: '5 GiB', '100 min', '20 events' or '2.50 EUR', then 'priority 10' and "
            "'until 2027-01-31' if wanted; buckets with low priority numbers are spent first, the main one has 100."
        ),
    ] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="Not in service before it is activated.")] = False,
    valid_for: ValidFor = None,
    cycle_day: Annotated[
        str, typer.Option(help="The day on which its months begin, 1 to 31, or 'today'; left out: the first.")
    ] = "1",
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Create an account with a money bucket, and more buckets if wanted."""
    settings = settings_of(context)
    catalogue = load_catalogue(settings.catalogue)
    numeric = catalogue.currency if currency is None else _currency(currency)
    balance_micro = money(balance, "--balance")
    limit_micro = money(credit_limit, "--credit-limit")
    buckets = [new_bucket(written, numeric, catalogue.calendar) for written in bucket or ()]
    kind = AccountKind.POSTPAID if postpaid else AccountKind.PREPAID
    begins = cycle_day_of(cycle_day, catalogue.calendar, "--cycle-day")
    valid_ms = 0 if postpaid else settings.charging.prepaid_valid_days * DAY_MS
    if valid_for is not None:
        valid_ms = time_ms(valid_for, "--valid-for")

    async def work(store: Store) -> Account:
        now = now_ms()
        return await directory.create_account(
            store,
            name_octets(account),
            kind,
            numeric,
            now_ms=now,
            reason=reason,
            balance_micro=balance_micro,
            credit_limit_micro=limit_micro,
            buckets=buckets,
            state=LifeState.ORDERED if ordered else LifeState.ACTIVE,
            expires_ms=now + valid_ms if valid_ms else 0,
            cycle_day=begins,
        )

    show_account(on_store(context, work), as_json)


@account_app.command("show")
def show(context: typer.Context, account: AccountName, as_json: AsJson = False) -> None:
    """All of an account: state, buckets, offers, meters, open sessions."""
    show_account(on_store(context, lambda store: existing_account(store, account)), as_json)


@account_app.command("history")
def history(context: typer.Context, account: AccountName, limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest journal records of an account: when, what, why, before and after."""

    async def work(store: Store) -> tuple[Account, list[JournalRecord]]:
        found = await existing_account(store, account)
        return found, await account_history(store, found.account_id, limit)

    found, records = on_store(context, work)
    records.reverse()
    if as_json:
        print_json([journal_json(record, found) for record in records])
        return
    console().print(journal_table(records, found))


@account_app.command("list")
def list_accounts(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Accounts in the order of their identifiers."""

    async def work(store: Store) -> tuple[list[Account], int]:
        first: list[Account] = []
        count = 0
        async for page in directory.accounts(store):
            count += len(page)
            first = nsmallest(limit, first + page, key=lambda account: account.account_id)
        return first, count

    accounts, count = on_store(context, work)
    if as_json:
        print_json([account_json(account) for account in accounts])
        return
    shown = table("account", "kind", "state", ">balance", ">reserved", ">credit limit", ">buckets", ">sessions")
    for account in accounts:
        shown.add_row(
            text_of(account.account_id),
            AccountKind(account.kind).name.lower(),
            LifeState(account.state).name.lower(),
            main_bucket_text(account),
            main_bucket_text(account, reserved=True),
            units_text(account.credit_limit_micro, Unit.MONEY, account.currency),
            str(len(account.buckets)),
            str(len(account.sessions)),
        )
    console().print(shown)
    console().print(f"{len(accounts)} of {count} accounts.")


def _currency(code: str) -> int:
    if code not in NUMERIC:
        hint = f"; did you mean {code.upper()!r}?" if code.upper() in NUMERIC else ""
        raise typer.BadParameter(f"{code[:40]!r} is not a code of ISO 4217 such as EUR{hint}", param_hint="--currency")
    return NUMERIC[code]


def journal_json(record: JournalRecord, account: Account) -> dict[str, Any]:
    def unit_name(bucket_id: int) -> str | None:
        bucket = account.bucket(bucket_id)
        return Unit(bucket.unit).name.lower() if bucket else None

    return {
        "version": record.version,
        "at": time_json(record.at_ms),
        "operation": record.operation,
        "reason": [text_of(part) if isinstance(part, bytes) else part for part in record.reason],
        "changes": [
            {
                "bucket": change.bucket_id,
                "unit": unit_name(change.bucket_id),
                "balance_before": change.balance_before,
                "balance_after": change.balance_after,
                "reserved_before": change.reserved_after - change.reserved_delta,
                "reserved_after": change.reserved_after,
            }
            for change in record.changes
        ],
    }


def journal_table(records: Iterable[JournalRecord], account: Account) -> Table:
    """Journal records of an account: when, what, why, before and after."""
    shown = table(">version", "when (UTC)", "what", ">bucket", ">before", ">change", ">after", ">reserved", "why")
    for record in records:
        first = (str(record.version), time_text(record.at_ms), record.operation)
        why = why_text(record.reason)
        if not record.changes:
            shown.add_row(*first, "", "", "", "", "", why)
        for change in record.changes:
            bucket = account.bucket(change.bucket_id)
            unit = Unit(bucket.unit) if bucket else Unit.MONEY
            before, delta, after, reserved = (
                units_text(amount, unit, account.currency)
                for amount in (
                    change.balance_before,
                    change.balance_delta,
                    change.balance_after,
                    change.reserved_after,
                )
            )
            sign = "+" if change.balance_delta > 0 else ""
            shown.add_row(*first, str(change.bucket_id), before, f"{sign}{delta}", after, reserved, why)
            first, why = ("", "", ""), ""
    return shown


def why_text(reason: tuple[Any, ...]) -> str:
    """A journal record's reason for people: a request and the rules that acted on it, or what a person said."""
    parts = [text_of(part) if isinstance(part, bytes) else part for part in reason]
    if len(parts) in (3, 4) and isinstance(parts[1], int):
        rules = f" ({', '.join(parts[3])})" if len(parts) == 4 else ""
        return f"{_REQUEST_TYPES.get(parts[1], parts[1])} {parts[2]} of {parts[0]}{rules}"
    return ", ".join(str(part) for part in parts)
