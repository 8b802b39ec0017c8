"""Commands that change an account: its money, its limit, its state, its expiry, its buckets."""

from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from balance import directory
from balance.accounts import Account
from balance.directory import NewBucket, Posting
from balance.model import MAIN_BUCKET, AccountKind, Bucket, LedgerError, LifeState, Unit
from balance.store import Store
from balance.transfers import Transferred, Unfinished, transfer_money, unfinished_transfers
from occ.awards import awards_for
from occ.cli_account_view import (
    DAY_MS,
    DEFAULT_REASON,
    LARGEST_PRIORITY,
    AccountName,
    NeededReason,
    Reason,
    ValidFor,
    amount_of,
    cycle_day_of,
    end_of_day_ms,
    new_bucket,
    show_account,
    time_ms,
)
from occ.cli_shell import (
    AsJson,
    WrongUsageError,
    bucket_text,
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
from occ.cycle import change_cycle_day
from occ.lifecycle import check_change
from occ.rating.allowances import Allowance
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.promotions import Award
from occ.yamlmap import ConfigError, nearest

bucket_app = typer.Typer(no_args_is_help=True, help="Buckets of an account.")

STATES: Final = {
    state.name.lower(): state
    for state in (LifeState.ACTIVE, LifeState.SUSPENDED, LifeState.BLOCKED, LifeState.TERMINATED)
}
"""The states that people put an account into; ordered is how it begins, grace comes with the clock."""

LARGEST_BUCKET: Final = 0xFFFFFFFF

BucketNumber = Annotated[
    int, typer.Option("--bucket", min=1, max=LARGEST_BUCKET, help="Number of the bucket; 1 is the main one.")
]
Reference = Annotated[str | None, typer.Option(help="Names the payment: the same reference counts once within 7 days.")]


def top_up(
    context: typer.Context,
    account: AccountName,
    amount: Annotated[str, typer.Argument(help="Money such as 10.00, or a size such as '1 GiB' for an allowance.")],
    bucket: BucketNumber = MAIN_BUCKET,
    reference: Reference = None,
    valid_for: ValidFor = None,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Add money, or units of an allowance, to a bucket; a prepaid account that has expired is in service again."""
    valid_ms = _valid_ms(context, valid_for)
    try:
        catalogue = load_catalogue(settings_of(context).catalogue)
    except ConfigError as error:  # money comes in whatever is wrong with the prices
        catalogue = None
        typer.echo(f"Bonuses are left out: {error}", err=True)

    async def work(store: Store) -> tuple[Account, Posting, tuple[Award, ...]]:
        found = await existing_account(store, account)
        target = _bucket(found, bucket)
        units = amount_of(amount, target, "AMOUNT")
        at_ms = now_ms()
        awards = None
        if catalogue is not None and target.unit == Unit.MONEY:
            awards = await awards_for(store, catalogue, found.account_id, units, at_ms)
        done = await directory.top_up_account(
            store,
            found.account_id,
            units,
            now_ms=at_ms,
            reason=reason,
            bucket_id=bucket,
            reference=reference,
            valid_for_ms=valid_ms,
            also=None if awards is None else awards.give,
        )
        await _credit_has_come(store, found)
        return found, done, () if awards is None or done.repeated else awards.awards

    found, done, given = on_store(context, work)
    target = _bucket(found, bucket)
    if as_json:
        print_json(_posting_json(account, target, done))
        return
    added = bucket_text(target, done.amount, found.currency)
    after = bucket_text(target, done.balance_after, found.currency)
    if done.repeated:
        console().print(
            f"Reference {reference} was used before: {added} had been added, to {after}; nothing was changed."
        )
    else:
        console().print(f"Added {added} to bucket {bucket} of {account}, which now holds {after}.")
        for award in given:
            gift = units_text(award.amount, award.unit, found.currency)
            console().print(f"{award.name} gave {gift} on top, in a bucket {award.bucket}.")


def adjust(
    context: typer.Context,
    account: AccountName,
    amount: Annotated[str, typer.Argument(help="Money such as 10.00 or -5.00, or a size such as '-1 GiB'.")],
    reason: NeededReason,
    bucket: BucketNumber = MAIN_BUCKET,
    reference: Reference = None,
    as_json: AsJson = False,
) -> None:
    """Put a bucket right: add an amount, or take one that is below zero, as far as the bucket is free to give it."""

    async def work(store: Store) -> tuple[Account, Posting]:
        found = await existing_account(store, account)
        units = amount_of(amount, _bucket(found, bucket), "AMOUNT")
        done = await directory.adjust_account(
            store, found.account_id, units, now_ms=now_ms(), reason=reason, bucket_id=bucket, reference=reference
        )
        if units > 0:
            await _credit_has_come(store, found)
        return found, done

    found, done = on_store(context, work)
    target = _bucket(found, bucket)
    if as_json:
        print_json(_posting_json(account, target, done))
        return
    moved = bucket_text(target, abs(done.amount), found.currency)
    after = bucket_text(target, done.balance_after, found.currency)
    word = "added to" if done.amount > 0 else "taken from"
    if done.repeated:
        console().print(f"Reference {reference} was used before: {moved} {word} it, to {after}; nothing was changed.")
    else:
        console().print(f"{moved} {word} bucket {bucket} of {account}, which now holds {after}.")


def transfer(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="Account that gives.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Account that gets it.")],
    amount: Annotated[str, typer.Argument(help="Money, such as 10.00.")],
    reference: Annotated[
        str, typer.Option(help="Names the transfer: repeated with it, one that was cut off is completed.")
    ],
    valid_for: ValidFor = None,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Move money from the main bucket of one account to that of another."""
    micro = money(amount, "AMOUNT")
    valid_ms = _valid_ms(context, valid_for)

    async def work(store: Store) -> tuple[Account, Transferred]:
        payer, payee = await existing_account(store, source), await existing_account(store, target)
        done = await transfer_money(
            store,
            payer.account_id,
            payee.account_id,
            micro,
            now_ms=now_ms(),
            reason=reason,
            reference=reference,
            valid_for_ms=valid_ms,
        )
        await _credit_has_come(store, payee)
        return payer, done

    payer, done = on_store(context, work)
    if as_json:
        document = {
            "from": source,
            "to": target,
            "amount_micro": micro,
            "from_balance_after_micro": done.debit.balance_after,
            "to_balance_after_micro": done.credit.balance_after,
            "repeated": done.repeated,
        }
        print_json(document)
        return
    moved, left, now_has = (
        units_text(each, Unit.MONEY, payer.currency)
        for each in (micro, done.debit.balance_after, done.credit.balance_after)
    )
    if done.repeated:
        console().print(f"Reference {reference} was used before: {moved} went to {target}; nothing was changed.")
    else:
        console().print(f"Moved {moved} from {source}, which now holds {left}, to {target}, which now holds {now_has}.")


def transfers(
    context: typer.Context,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Those that were cut off.")] = False,
    as_json: AsJson = False,
) -> None:
    """Transfers that were cut off; the same transfer repeated, with its reference, completes it."""
    if not unfinished:
        raise WrongUsageError(
            "transfers that are done are in the histories of their accounts; --unfinished shows those that are not"
        )

    async def work(store: Store) -> list[tuple[Unfinished, int]]:
        found = await unfinished_transfers(store)
        payers = await directory.read_accounts(store, [each.transfer.from_id for each in found])
        return [(each, payer.currency if payer else 0) for each, payer in zip(found, payers, strict=True)]

    found = on_store(context, work)
    if as_json:
        print_json([_unfinished_json(each) for each, _ in found])
        return
    if found:
        shown = table("reference", "from", "to", ">amount", "asked for (UTC)", "debited", "credited", "why")
        for each, currency in found:
            of = each.transfer
            shown.add_row(
                of.reference,
                text_of(of.from_id),
                text_of(of.to_id),
                units_text(of.amount_micro, Unit.MONEY, currency),
                time_text(of.at_ms),
                "yes" if each.debited else "no",
                "yes" if each.credited else "no",
                of.reason,
            )
        console().print(shown)
    console().print(f"{len(found)} transfers are not finished.")


def limit(
    context: typer.Context,
    account: AccountName,
    amount: Annotated[str, typer.Argument(help="How far below zero the account may go, such as 50.00.")],
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Set the credit limit of an account: of a prepaid one, its overdraft."""
    micro = money(amount, "AMOUNT")

    async def work(store: Store) -> Account:
        changed = await directory.set_credit_limit(store, name_octets(account), micro, now_ms(), reason)
        await _credit_has_come(store, changed)
        return changed

    show_account(on_store(context, work), as_json)


def state(
    context: typer.Context,
    account: AccountName,
    new: Annotated[str, typer.Argument(metavar="STATE", help=f"{', '.join(STATES)}.")],
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Activate, suspend, block or terminate an account, for all whom it pays for; running sessions ask anew at once."""
    if new not in STATES:
        raise typer.BadParameter(f"{new[:40]!r} is not one of {', '.join(STATES)}{nearest(new, STATES)}")

    async def work(store: Store) -> Account:
        changed = await directory.set_account_state(
            store, name_octets(account), STATES[new], now_ms(), reason, check_change
        )
        await _standing_has_changed(store, changed)
        return changed

    show_account(on_store(context, work), as_json)


def expires(
    context: typer.Context,
    account: AccountName,
    date: Annotated[str | None, typer.Argument(help="The last day, such as 2027-01-31.")] = None,
    within: Annotated[str | None, typer.Option("--in", help="A time from now, such as '90 d'.")] = None,
    never: Annotated[bool, typer.Option("--never", help="It does not expire.")] = False,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Say when a prepaid account expires; one that is in grace is in service again."""
    if sum((date is not None, within is not None, never)) != 1:
        raise WrongUsageError("say when the account expires: a DATE, --in a time, or --never")
    calendar = load_catalogue(settings_of(context).catalogue).calendar

    async def work(store: Store) -> Account:
        now, at = now_ms(), 0
        if date is not None:
            at = end_of_day_ms(date, calendar, "DATE")
        elif within is not None:
            at = now + time_ms(within, "--in")
        changed = await directory.set_expiry(store, name_octets(account), at, now, reason)
        await _standing_has_changed(store, changed)
        return changed

    show_account(on_store(context, work), as_json)


def cycle_day(
    context: typer.Context,
    account: AccountName,
    day: Annotated[str, typer.Argument(metavar="DAY", help="1 to 31, or 'today'; in a shorter month its last day.")],
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Have the months of an account begin on another day; the one that runs ends on the first such day to come."""
    calendar = load_catalogue(settings_of(context).catalogue).calendar
    begins = cycle_day_of(day, calendar, "DAY")

    async def work(store: Store) -> Account:
        return await directory.change_account(
            store,
            name_octets(account),
            lambda draft: change_cycle_day(draft, calendar, begins),
            "cycle-day",
            (reason, f"day {begins}"),
            now_ms(),
        )

    show_account(on_store(context, work), as_json)


@bucket_app.command("add")
def add_bucket(
    context: typer.Context,
    account: AccountName,
    amount: Annotated[
        str | None,
        typer.Argument(help="What is in it, such as '5 GiB' or '2.50 EUR'; of an allowance by itself: that."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Allowance or bonus of the catalogue; left out: it can be spent on anything.")
    ] = "",
    priority: Annotated[
        int | None,
        typer.Option(
            min=0, max=LARGEST_PRIORITY, help="Low numbers are spent first; left out: the allowance's, else 100."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Its last day; left out: as the allowance says, else none.")] = None,
    owner: Annotated[str, typer.Option(help="The only subscriber it serves; left out: all.")] = "",
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Give an account one more bucket: shared by all whom it pays for, or of one of them."""
    catalogue = load_catalogue(settings_of(context).catalogue)

    async def work(store: Store) -> Account:
        found, now = await existing_account(store, account), now_ms()
        bucket = _catalogue_bucket(catalogue, name, now) if name else None
        if amount is not None:
            given = new_bucket(amount, found.currency, catalogue.calendar, "AMOUNT")
            bucket = given if bucket is None else _with_amount(bucket, given)
        if bucket is None or not bucket.balance:
            raise WrongUsageError("say what is in the bucket, such as '5 GiB', or which allowance it is of: --name")
        if priority is not None:
            bucket = replace(bucket, priority=priority)
        if until is not None:
            bucket = replace(bucket, expires_ms=end_of_day_ms(until, catalogue.calendar, "--until"))
        bucket = replace(bucket, owner=name_octets(owner))
        changed = await directory.add_account_bucket(store, found.account_id, bucket, now, reason)
        await _credit_has_come(store, found)
        return changed

    show_account(on_store(context, work), as_json)


def _catalogue_bucket(catalogue: Catalogue, name: str, at_ms: int) -> NewBucket:
    """A bucket of an allowance or bonus as the catalogue has it. Raises BadParameter."""
    found = catalogue.allowance(name) or catalogue.bonus(name)
    if found is None:
        known = sorted((*catalogue.allowances, *catalogue.bonuses))
        raise typer.BadParameter(
            f"the catalogue has no allowance or bonus {name[:40]!r}{nearest(name, known)}", param_hint="--name"
        )
    expires_ms = found.validity.ends_ms(at_ms, catalogue.calendar)
    if isinstance(found, Allowance):
        return NewBucket(found.unit, found.units, found.priority, expires_ms, name)
    return NewBucket(Unit.MONEY, found.amount_micro, found.priority, expires_ms, name)


def _with_amount(bucket: NewBucket, given: NewBucket) -> NewBucket:
    """A bucket of the catalogue with another amount. Raises BadParameter."""
    if given.unit != bucket.unit:
        raise typer.BadParameter(
            f"{bucket.name} is counted in {bucket.unit.name.lower()}, not in {given.unit.name.lower()}",
            param_hint="AMOUNT",
        )
    return replace(bucket, balance=given.balance)


def _bucket(account: Account, bucket_id: int) -> Bucket:
    found = account.bucket(bucket_id)
    if found is None:
        raise LedgerError(f"account {text_of(account.account_id)} has no bucket {bucket_id}")
    return found


def _valid_ms(context: typer.Context, valid_for: str | None) -> int:
    if valid_for is not None:
        return time_ms(valid_for, "--valid-for")
    return settings_of(context).charging.prepaid_valid_days * DAY_MS


async def _credit_has_come(store: Store, before: Account) -> None:
    """Have sessions ask anew that the account could not serve before."""
    from occ.server_requests import credit_has_come  # noqa: PLC0415 - other commands do without the protocols

    if before.kind == AccountKind.PREPAID and before.state == LifeState.GRACE:
        await _standing_has_changed(store, before)
    else:
        await credit_has_come(store, before.account_id)


async def _standing_has_changed(store: Store, account: Account) -> None:
    from occ.server_requests import standing_has_changed  # noqa: PLC0415 - as above

    await standing_has_changed(store, account.account_id)


def _posting_json(account: str, bucket: Bucket, done: Posting) -> dict[str, Any]:
    return {
        "account": account,
        "bucket": done.bucket_id,
        "unit": Unit(bucket.unit).name.lower(),
        "amount": done.amount,
        "balance_after": done.balance_after,
        "version": done.version,
        "repeated": done.repeated,
    }


def _unfinished_json(found: Unfinished) -> dict[str, Any]:
    of = found.transfer
    return {
        "reference": of.reference,
        "from": text_of(of.from_id),
        "to": text_of(of.to_id),
        "amount_micro": of.amount_micro,
        "at": time_json(of.at_ms),
        "reason": of.reason,
        "debited": found.debited,
        "credited": found.credited,
    }
