"""Commands on vouchers: make, list, block, redeem."""

from typing import Annotated

import typer

from balance.accounts import Account
from balance.directory import Posting, read_account
from balance.model import LedgerError, Unit
from balance.store import Store
from balance.vouchers import LARGEST_BATCH, Batch, Voucher, Vouchers, batches, block_batch, read_batch, vouchers_of
from occ.cli_account_view import DAY_MS, AccountName, end_of_day_ms
from occ.cli_shell import (
    AsJson,
    console,
    existing_account,
    money,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
    time_text,
    units_text,
    user_name,
)
from occ.clock import now_ms
from occ.rating.catalogue import load_catalogue

voucher_app = typer.Typer(no_args_is_help=True, help="Codes that are worth money once.")


@voucher_app.command("create")
def create(
    context: typer.Context,
    amount: Annotated[str, typer.Argument(help="What each is worth, such as 10.00.")],
    count: Annotated[int, typer.Option(min=1, max=LARGEST_BATCH, help="How many.")] = 1,
    until: Annotated[str | None, typer.Option(help="Their last day, such as 2027-12-31; left out: none.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a batch of vouchers and show their codes, this once."""
    from occ.payments import voucher_pepper  # noqa: PLC0415 - the other commands start without the protocols

    settings = settings_of(context)
    catalogue = load_catalogue(settings.catalogue)
    micro = money(amount, "AMOUNT")
    expires_ms = 0 if until is None else end_of_day_ms(until, catalogue.calendar, "--until")

    async def work(store: Store) -> tuple[Batch, list[tuple[str, str]]]:
        vouchers = Vouchers(store, voucher_pepper(settings.vouchers.pepper_file, create=True))
        by = f"cli {user_name()}"
        return await vouchers.create_batch(
            count, micro, catalogue.currency, expires_ms=expires_ms, now_ms=now_ms(), by=by
        )

    batch, made = on_store(context, work)
    if as_json:
        from occ.api.vouchers import batch_json  # noqa: PLC0415 - the other commands start without loading the API

        print_json(batch_json(batch) | {"vouchers": [{"serial": serial, "code": code} for serial, code in made]})
        return
    shown = table("serial", "code")
    for row in made:
        shown.add_row(*row)
    console().print(shown)
    worth = units_text(batch.amount_micro, Unit.MONEY, batch.currency)
    console().print(f"Batch {batch.batch_id}: {batch.count} vouchers of {worth}; their codes are shown this once.")


@voucher_app.command("list")
def list_vouchers(
    context: typer.Context,
    batch: Annotated[str | None, typer.Argument(help="Its vouchers; left out: all batches.")] = None,
    as_json: AsJson = False,
) -> None:
    """Batches, or the vouchers of one: who has redeemed them, no codes."""

    async def work(store: Store) -> tuple[list[Batch], list[Voucher]]:
        if batch is None:
            return await batches(store), []
        found = await read_batch(store, batch)
        if found is None:
            raise LedgerError(f"there is no batch {batch[:40]} of vouchers")
        return [found], await vouchers_of(store, found)

    several, vouchers = on_store(context, work)
    if as_json:
        from occ.api.vouchers import batch_json, voucher_json  # noqa: PLC0415 - as above

        listed = [voucher_json(each) for each in vouchers]
        print_json(
            [batch_json(each) for each in several] if batch is None else batch_json(several[0]) | {"vouchers": listed}
        )
        return
    shown = table("batch", ">vouchers", ">worth", "made (UTC)", "by", "expires (UTC)", "blocked (UTC)")
    for each in several:
        worth = units_text(each.amount_micro, Unit.MONEY, each.currency)
        blocked = time_text(each.blocked_ms) if each.blocked_ms else ""
        made, expires = time_text(each.created_ms), time_text(each.expires_ms)
        shown.add_row(each.batch_id, str(each.count), worth, made, each.created_by, expires, blocked)
    if several:
        console().print(shown)
    if batch is not None:
        cards = table("serial", "account", "used (UTC)")
        for voucher in vouchers:
            used = time_text(voucher.used_ms) if voucher.used_ms else ""
            cards.add_row(voucher.serial, text_of(voucher.account_id), used)
        console().print(cards)
    else:
        console().print(f"{len(several)} batches.")


@voucher_app.command("block")
def block(context: typer.Context, batch: Annotated[str, typer.Argument(help="As listed.")]) -> None:
    """Have none of a batch be redeemed any more: it was lost, or stolen."""
    on_store(context, lambda store: block_batch(store, batch, now_ms()))
    console().print(f"None of the vouchers of batch {batch} can be redeemed any more.")


@voucher_app.command("redeem")
def redeem(
    context: typer.Context,
    account: AccountName,
    code: Annotated[str, typer.Argument(help="Code of the voucher; spaces and hyphens do not matter.")],
    as_json: AsJson = False,
) -> None:
    """Top an account up by what a voucher is worth; the same voucher counts once."""
    from occ.payments import redeem_voucher, voucher_pepper  # noqa: PLC0415 - as above

    settings = settings_of(context)
    catalogue = load_catalogue(settings.catalogue)

    async def work(store: Store) -> tuple[Account, Voucher, Posting]:
        found = await existing_account(store, account)
        vouchers = Vouchers(store, voucher_pepper(settings.vouchers.pepper_file, create=False))
        voucher, posting = await redeem_voucher(
            store,
            vouchers,
            catalogue,
            found.account_id,
            code,
            source="cli",
            now_ms=now_ms(),
            valid_for_ms=settings.charging.prepaid_valid_days * DAY_MS,
        )
        return await read_account(store, found.account_id) or found, voucher, posting

    found, voucher, posting = on_store(context, work)
    if as_json:
        figures = {"amount": posting.amount, "balance_after": posting.balance_after, "repeated": posting.repeated}
        print_json({"serial": voucher.serial, "account": account, **figures})
        return
    worth = units_text(posting.amount, Unit.MONEY, found.currency)
    after = units_text(posting.balance_after, Unit.MONEY, found.currency)
    if posting.repeated:
        console().print(f"Voucher {voucher.serial} was redeemed before: {worth}, to {after}; nothing was changed.")
    else:
        console().print(f"Voucher {voucher.serial} added {worth} to {account}, which now holds {after}.")
