"""How accounts are shown, and what commands on accounts take: amounts, buckets, dates, times."""

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from balance.accounts import Account
from balance.directory import NewBucket
from balance.ledger import Draft
from balance.model import MAIN_BUCKET, AccountKind, Bucket, LifeState, Unit
from balance.subscribers import check_reason
from occ.cli_sessions import session_json, sessions_table
from occ.cli_shell import (
    bucket_text,
    console,
    money,
    print_json,
    size,
    table,
    text_of,
    time_json,
    time_text,
    units_text,
)
from occ.clock import now_ms
from occ.cycle import FIRST_DAY, LAST_DAY
from occ.loyalty import is_loyalty, promotion_of
from occ.rating.catalogue import SIZES
from occ.rating.currency import currency_name
from occ.rating.local_time import Calendar
from occ.yamlmap import nearest

DEFAULT_REASON: Final = "occ command line"

AccountName = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account identifier, such as acc-491700000001.")]


def _reason(written: str) -> str:
    check_reason(written)
    return written


Reason = Annotated[str, typer.Option(callback=_reason, help="Why, for the journal.")]
NeededReason = Annotated[str, typer.Option("--reason", callback=_reason, help="Why, for the journal.")]
ValidFor = Annotated[
    str | None,
    typer.Option(
        help="How long a prepaid account is in service from now on, such as '90 d'; left out: as the settings."
    ),
]

DAY_MS: Final = 86_400_000
LONGEST_S: Final = 100 * 366 * 86_400

LARGEST_PRIORITY: Final = 999_999_999
"""Of a bucket: nine digits."""

_BUCKET: Final = re.compile(r"(\S+ \S+?)(?: priority ([0-9]{1,9}))?(?: until ([0-9-]+))?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME: Final = re.compile(r"([0-9]+) ?([a-z]+)", re.ASCII)


# -- input -------------------------------------------------------------------------------------------------------------


def new_bucket(written: str, currency: int, calendar: Calendar, what: str = "--bucket") -> NewBucket:
    """'5 GiB priority 10 until 2027-01-31' and the like. Raises BadParameter."""
    match = _BUCKET.fullmatch(written)
    if match is None:
        raise typer.BadParameter(
            f"{written[:80]!r} is not a bucket such as '5 GiB', '100 min priority 10' or '20 events until 2027-01-31'",
            param_hint=what,
        )
    amount, priority, until = match.groups()
    number, word = amount.split(" ")
    unit = next((unit for unit, words in SIZES.items() if word in words), Unit.MONEY)
    if unit != Unit.MONEY:
        units = size(amount, unit, what)
    elif word == currency_name(currency):
        units = money(number, what)
    else:
        words = [currency_name(currency), *(name for names in SIZES.values() for name in names)]
        raise typer.BadParameter(
            f"{word[:40]!r} is neither the account's currency nor a unit{nearest(word, words)}", param_hint=what
        )
    return NewBucket(unit, units, int(priority or 100), end_of_day_ms(until, calendar, what) if until else 0)


def day(written: str, what: str) -> date:
    """A date such as 2027-01-31. Raises BadParameter."""
    try:
        if not _DATE.fullmatch(written):
            raise ValueError
        found = datetime.strptime(written, "%Y-%m-%d").date()  # noqa: DTZ007 - a date has no time zone
    except ValueError:
        raise typer.BadParameter(f"{written[:40]!r} is not a date such as 2027-01-31", param_hint=what) from None
    if not 1970 < found.year < 9999:
        raise typer.BadParameter(f"{written[:40]!r}: give a year from 1971 to 9998", param_hint=what)
    return found


def end_of_day_ms(written: str, calendar: Calendar, what: str) -> int:
    """The end of a day by the catalogue's clock, ms since the epoch. Raises BadParameter."""
    return calendar.moment(day(written, what) + timedelta(days=1), 0)


def time_ms(written: str, what: str) -> int:
    """A time such as '90 d' or '90d', ms. Raises BadParameter."""
    match = _TIME.fullmatch(written)
    seconds = size(" ".join(match.groups()) if match else written, Unit.SECONDS, what)
    if seconds > LONGEST_S:
        raise typer.BadParameter(f"{written[:40]!r} is more than 100 years", param_hint=what)
    return seconds * 1000


def cycle_day_of(written: str, calendar: Calendar, what: str) -> int:
    """The day of the month of '15' or 'today'. Raises BadParameter."""
    if written == "today":
        return calendar.day_of(now_ms()).day
    if written.isascii() and written.isdigit() and FIRST_DAY <= int(written) <= LAST_DAY:
        return int(written)
    raise typer.BadParameter(f"{written[:40]!r} is neither a day of the month, 1 to 31, nor 'today'", param_hint=what)


def amount_of(written: str, bucket: Bucket, what: str) -> int:
    """Money, or a size in the bucket's unit; with a minus sign below zero. Raises BadParameter."""
    unit = Unit(bucket.unit)
    if unit == Unit.MONEY:
        return money(written, what)
    units = size(written.removeprefix("-"), unit, what)
    return -units if written.startswith("-") else units


# -- output ------------------------------------------------------------------------------------------------------------


def show_account(account: Account, as_json: bool) -> None:
    """Print all of an account."""
    if as_json:
        print_json(account_json(account))
        return
    out = console()
    standing = [AccountKind(account.kind).name.lower()]
    if account.state != LifeState.ACTIVE:
        standing.append(LifeState(account.state).name.lower())
    if account.expires_ms:
        word = "terminated" if account.state == LifeState.GRACE else "expires"
        standing.append(f"{word} {time_text(account.expires_ms)} UTC")
    if account.cycle_day != FIRST_DAY:
        standing.append(f"months from day {account.cycle_day}")
    if account.kind == AccountKind.POSTPAID or account.credit_limit_micro:
        standing.append(f"credit limit {units_text(account.credit_limit_micro, Unit.MONEY, account.currency)}")
    available = Draft(account, now_ms()).available_micro()
    out.print(
        f"{text_of(account.account_id)}: {', '.join(standing)}, "
        f"{units_text(available, Unit.MONEY, account.currency)} available, version {account.version}"
    )
    _show_buckets(account)
    _show_offers(account)
    if account.meters:
        shown = table("meter", ">units", ">spent", "until (UTC)")
        for meter in account.meters:
            spent = units_text(meter.micro, Unit.MONEY, account.currency)
            shown.add_row(meter.name, str(meter.units), spent, time_text(meter.resets_ms))
        out.print(shown)
    if account.out_of_service:
        shown = table("subscriber", "state")
        for name, state in account.out_of_service.items():
            shown.add_row(text_of(name), LifeState(state).name.lower())
        out.print(shown)
    if account.sessions:
        out.print(sessions_table([(account, session) for session in account.sessions.values()]))


def _show_offers(account: Account) -> None:
    offers = [offer for offer in account.offers if not is_loyalty(offer)]
    bonuses = [offer for offer in account.offers if is_loyalty(offer)]
    if offers:
        ends = any(offer.until_ms for offer in offers)
        columns = ("offer", "of", "since (UTC)", "next (UTC)", "unpaid since (UTC)")
        shown = table(*columns, "until (UTC)") if ends else table(*columns)
        for offer in offers:
            cells = [offer.name, text_of(offer.owner), time_text(offer.since_ms), time_text(offer.next_ms)]
            cells.append(time_text(offer.unpaid_ms) if offer.unpaid_ms else "")
            if ends:
                cells.append(time_text(offer.until_ms) if offer.until_ms else "")
            shown.add_row(*cells)
        console().print(shown)
    if bonuses:
        shown = table("bonus for staying", "of", "next (UTC)")
        for offer in bonuses:
            when = f"with a top-up, since {time_text(offer.unpaid_ms)}" if offer.unpaid_ms else time_text(offer.next_ms)
            shown.add_row(promotion_of(offer), text_of(offer.owner), when)
        console().print(shown)


def _show_buckets(account: Account) -> None:
    named = any(bucket.name or bucket.owner for bucket in account.buckets)
    columns = (">bucket", "unit", ">balance", ">reserved", ">priority", "expires (UTC)")
    shown = table(*columns, "of", "for") if named else table(*columns)
    for bucket in account.buckets:
        shown.add_row(
            str(bucket.bucket_id),
            Unit(bucket.unit).name.lower(),
            bucket_text(bucket, bucket.balance, account.currency),
            bucket_text(bucket, bucket.reserved, account.currency),
            str(bucket.priority),
            time_text(bucket.expires_ms),
            *((bucket.name, text_of(bucket.owner) or "all") if named else ()),
        )
    console().print(shown)


def account_json(account: Account) -> dict[str, Any]:
    """An account as plain data for JSON."""
    return {
        "account": text_of(account.account_id),
        "kind": AccountKind(account.kind).name.lower(),
        "state": LifeState(account.state).name.lower(),
        "expires": time_json(account.expires_ms),
        "currency": currency_name(account.currency),
        "credit_limit_micro": account.credit_limit_micro,
        "cycle_day": account.cycle_day,
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
                "name": bucket.name,
                "owner": text_of(bucket.owner),
            }
            for bucket in account.buckets
        ],
        "offers": [
            {
                "offer": offer.name,
                "owner": text_of(offer.owner),
                "since": time_json(offer.since_ms),
                "next": time_json(offer.next_ms),
                "unpaid_since": time_json(offer.unpaid_ms),
                "until": time_json(offer.until_ms),
                "plan": offer.plan or None,
            }
            for offer in account.offers
            if not is_loyalty(offer)
        ],
        "loyalty": [
            {
                "promotion": promotion_of(offer),
                "owner": text_of(offer.owner),
                "next": time_json(offer.next_ms),
                "waits_for_top_up_since": time_json(offer.unpaid_ms),
            }
            for offer in account.offers
            if is_loyalty(offer)
        ],
        "meters": [
            {"meter": meter.name, "units": meter.units, "micro": meter.micro, "until": time_json(meter.resets_ms)}
            for meter in account.meters
        ],
        "out_of_service": {
            text_of(name): LifeState(state).name.lower() for name, state in account.out_of_service.items()
        },
        "sessions": [session_json(account, session) for session in account.sessions.values()],
    }


def main_bucket_text(account: Account, reserved: bool = False) -> str:
    """Balance of the main bucket, or what of it is reserved."""
    main = account.bucket(MAIN_BUCKET)
    if main is None:
        return ""
    return bucket_text(main, main.reserved if reserved else main.balance, account.currency)
