"""Commands on accounts: create, show, top up, history, list."""

import re
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Annotated, Any, Final

import typer

from balance import directory
from balance.directory import NewBucket
from balance.journal import history as account_history
from balance.ledger import Draft
from balance.model import MAIN_BUCKET, Account, AccountKind, LedgerError, Unit
from balance.records import JournalRecord
from balance.store import Store
from occ.cli_sessions import session_json, sessions_table
from occ.cli_shell import (
    AsJson,
    Limit,
    bucket_text,
    console,
    existing_account,
    money,
    name_octets,
    on_store,
    print_json,
    settings_of,
    size,
    table,
    text_of,
    time_json,
    time_text,
    units_text,
)
from occ.clock import now_ms
from occ.rating.catalogue import SIZES, load_catalogue
from occ.rating.currency import NUMERIC, currency_name
from occ.yamlmap import nearest

account_app = typer.Typer(no_args_is_help=True, help="Create, show, top up and list accounts.")

DEFAULT_REASON: Final = "occ command line"

_BUCKET: Final = re.compile(r"(\S+ \S+?)(?: priority ([0-9]{1,9}))?(?: until ([0-9-]+))?")
_REQUEST_TYPES: Final = {1: "INITIAL", 2: "UPDATE", 3: "TERMINATION", 4: "EVENT"}

AccountName = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account identifier, such as acc-491700000001.")]
Reason = Annotated[str, typer.Option(help="Why, for the journal.")]


@account_app.command("create")
def create(
    context: typer.Context,
    account: AccountName,
    postpaid: Annotated[bool, typer.Option("--postpaid", help="Pay later, up to a credit limit.")] = False,
    balance: Annotated[str, typer.Option(help="Money to start with, such as 10.00.")] = "0.00",
    credit_limit: Annotated[str, typer.Option(help="Credit limit of a postpaid account, such as 50.00.")] = "0.00",
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code; left out: that of the catalogue.")] = None,
    bucket: Annotated[
        list[str] | None,
        typer.Option(
            help="One more bucket: '5 GiB', '100 min', '20 events' or '2.50 EUR', then 'priority 10' and "
            "'until 2027-01-31' if wanted; buckets with low priority numbers are spent first, the main one has 100."
        ),
    ] = None,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Create an account with a money bucket, and more buckets if wanted."""
    numeric = _currency(context, currency)
    balance_micro = money(balance, "--balance")
    limit_micro = money(credit_limit, "--credit-limit")
    buckets = [_new_bucket(written, numeric) for written in bucket or ()]
    kind = AccountKind.POSTPAID if postpaid else AccountKind.PREPAID

    async def work(store: Store) -> Account:
        return await directory.create_account(
            store,
            name_octets(account),
            kind,
            numeric,
            now_ms=now_ms(),
            reason=reason,
            balance_micro=balance_micro,
            credit_limit_micro=limit_micro,
            buckets=buckets,
        )

    _show_account(on_store(context, work), as_json)


@account_app.command("show")
def show(context: typer.Context, account: AccountName, as_json: AsJson = False) -> None:
    """Balances, reservations and open sessions of an account."""
    _show_account(on_store(context, lambda store: existing_account(store, account)), as_json)


@account_app.command("top-up")
def top_up(
    context: typer.Context,
    account: AccountName,
    amount: Annotated[str, typer.Argument(help="Money such as 10.00, or a size such as '1 GiB' for an allowance.")],
    bucket: Annotated[int, typer.Option(min=1, help="Number of the bucket; 1 is the main one.")] = MAIN_BUCKET,
    reference: Annotated[
        str | None, typer.Option(help="Names the payment: the same reference counts once within 7 days.")
    ] = None,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Add money, or units of an allowance, to a bucket."""

    async def work(store: Store) -> tuple[Account, directory.TopUp]:
        found = await existing_account(store, account)
        target = found.bucket(bucket)
        if target is None:
            raise LedgerError(f"account {account} has no bucket {bucket}")
        unit = Unit(target.unit)
        units = money(amount, "AMOUNT") if unit == Unit.MONEY else size(amount, unit, "AMOUNT")
        done = await directory.top_up_account(
            store,
            found.account_id,
            units,
            now_ms=now_ms(),
            reason=reason,
            bucket_id=bucket,
            reference=reference,
        )
        from occ.server_requests import credit_has_come  # noqa: PLC0415 - other commands do without the protocols

        await credit_has_come(store, found.account_id)
        return found, done

    found, done = on_store(context, work)
    target = found.bucket(bucket)
    assert target is not None
    if as_json:
        print_json(
            {
                "account": account,
                "bucket": done.bucket_id,
                "unit": Unit(target.unit).name.lower(),
                "amount": done.amount,
                "balance_after": done.balance_after,
                "version": done.version,
                "repeated": done.repeated,
            }
        )
        return
    added = bucket_text(target, done.amount, found.currency)
    after = bucket_text(target, done.balance_after, found.currency)
    if done.repeated:
        console().print(
            f"Reference {reference} was used before: {added} had been added, to {after}; nothing was changed."
        )
    else:
        console().print(f"Added {added} to bucket {bucket} of {account}, which now holds {after}.")


@account_app.command("history")
def history(context: typer.Context, account: AccountName, limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest journal records of an account: when, what, why, before and after."""

    async def work(store: Store) -> tuple[Account, list[JournalRecord]]:
        found = await existing_account(store, account)
        return found, await account_history(store, found.account_id, limit)

    found, records = on_store(context, work)
    records.reverse()
    if as_json:
        print_json([_record_json(record, found) for record in records])
        return
    shown = table(">version", "when (UTC)", "what", ">bucket", ">before", ">change", ">after", ">reserved", "why")
    for record in records:
        first = (str(record.version), time_text(record.at_ms), record.operation)
        why = _why(record.reason)
        if not record.changes:
            shown.add_row(*first, "", "", "", "", "", why)
        for change in record.changes:
            bucket = found.bucket(change.bucket_id)
            unit = Unit(bucket.unit) if bucket else Unit.MONEY
            before, delta, after, reserved = (
                units_text(amount, unit, found.currency)
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
    console().print(shown)


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
        print_json([_account_json(account) for account in accounts])
        return
    shown = table("account", "kind", ">balance", ">reserved", ">credit limit", ">buckets", ">sessions")
    for account in accounts:
        main = account.bucket(MAIN_BUCKET)
        shown.add_row(
            text_of(account.account_id),
            AccountKind(account.kind).name.lower(),
            bucket_text(main, main.balance, account.currency) if main else "",
            bucket_text(main, main.reserved, account.currency) if main else "",
            units_text(account.credit_limit_micro, Unit.MONEY, account.currency),
            str(len(account.buckets)),
            str(len(account.sessions)),
        )
    console().print(shown)
    console().print(f"{len(accounts)} of {count} accounts.")


def _currency(context: typer.Context, code: str | None) -> int:
    if code is None:
        return load_catalogue(settings_of(context).catalogue).currency
    if code not in NUMERIC:
        hint = f"; did you mean {code.upper()!r}?" if code.upper() in NUMERIC else ""
        raise typer.BadParameter(f"{code[:40]!r} is not a code of ISO 4217 such as EUR{hint}", param_hint="--currency")
    return NUMERIC[code]


def _new_bucket(written: str, currency: int) -> NewBucket:
    """'5 GiB priority 10 until 2027-01-31' and the like. Raises BadParameter."""
    match = _BUCKET.fullmatch(written)
    if match is None:
        raise typer.BadParameter(
            f"{written[:80]!r} is not a bucket such as '5 GiB', '100 min priority 10' or '20 events until 2027-01-31'",
            param_hint="--bucket",
        )
    amount, priority, until = match.groups()
    number, word = amount.split(" ")
    unit = next((unit for unit, words in SIZES.items() if word in words), Unit.MONEY)
    if unit != Unit.MONEY:
        units = size(amount, unit, "--bucket")
    elif word == currency_name(currency):
        units = money(number, "--bucket")
    else:
        words = [currency_name(currency), *(name for names in SIZES.values() for name in names)]
        raise typer.BadParameter(
            f"{word[:40]!r} is neither the account's currency nor a unit{nearest(word, words)}", param_hint="--bucket"
        )
    return NewBucket(unit, units, int(priority or 100), _midnight_ms(until) if until else 0)


def _midnight_ms(written: str) -> int:
    """The end of a day, UTC, in ms since the epoch. Raises BadParameter."""
    try:
        day = datetime.strptime(written, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise typer.BadParameter(f"{written!r} is not a date such as 2027-01-31", param_hint="--bucket") from None
    if not 1970 < day.year < 9999:
        raise typer.BadParameter(f"{written!r}: give a year from 1971 to 9998", param_hint="--bucket")
    return (int(day.timestamp()) + 86_400) * 1000


def _show_account(account: Account, as_json: bool) -> None:
    if as_json:
        print_json(_account_json(account))
        return
    out = console()
    limit = ""
    if account.kind == AccountKind.POSTPAID:
        limit = f", credit limit {units_text(account.credit_limit_micro, Unit.MONEY, account.currency)}"
    available = Draft(account, now_ms()).available_micro()
    out.print(
        f"{text_of(account.account_id)}: {AccountKind(account.kind).name.lower()}{limit}, "
        f"{units_text(available, Unit.MONEY, account.currency)} available, version {account.version}"
    )
    shown = table(">bucket", "unit", ">balance", ">reserved", ">priority", "expires (UTC)")
    for bucket in account.buckets:
        shown.add_row(
            str(bucket.bucket_id),
            Unit(bucket.unit).name.lower(),
            bucket_text(bucket, bucket.balance, account.currency),
            bucket_text(bucket, bucket.reserved, account.currency),
            str(bucket.priority),
            time_text(bucket.expires_ms),
        )
    out.print(shown)
    if account.sessions:
        out.print(sessions_table([(account, session) for session in account.sessions.values()]))


def _account_json(account: Account) -> dict[str, Any]:
    return {
        "account": text_of(account.account_id),
        "kind": AccountKind(account.kind).name.lower(),
        "currency": currency_name(account.currency),
        "credit_limit_micro": account.credit_limit_micro,
        "available_micro": Draft(account, now_ms()).available_micro(),
        "version": account.version,
        "buckets": [
            {
                "bucket": bucket.bucket_id,
                "unit": Unit(bucket.unit).name.lower(),
                "balance": bucket.balance,
                "reserved": bucket.reserved,
                "priority": bucket.priority,
                "expires": time_json(bucket.expires_ms),
            }
            for bucket in account.buckets
        ],
        "sessions": [session_json(account, session) for session in account.sessions.values()],
    }


def _record_json(record: JournalRecord, account: Account) -> dict[str, Any]:
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


def _why(reason: tuple[Any, ...]) -> str:
    """A journal record's reason for people: a request, or what a person said."""
    parts = [text_of(part) if isinstance(part, bytes) else part for part in reason]
    if len(parts) == 3 and isinstance(parts[1], int):
        return f"{_REQUEST_TYPES.get(parts[1], parts[1])} {parts[2]} of {parts[0]}"
    return ", ".join(str(part) for part in parts)
