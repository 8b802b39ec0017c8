"""The command ``occ why``: how the price of a session, or of one charging data record, came about.

What was charged and by what tariff is in the charging data records, or, while a session is open, in the session itself;
what moved on the account, and which policy rules had a say, is in the journal.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from balance import journal
from balance.accounts import Account, Session
from balance.directory import read_account
from balance.records import JournalRecord
from balance.resp import StoreError
from balance.store import Store
from occ.cli_accounts import journal_json, journal_table
from occ.cli_cdr import Directory, amount_text, money_text, period_lines, records_in
from occ.cli_shell import (
    AsJson,
    RefusedError,
    console,
    name_octets,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
    time_text,
)
from occ.clock import now_ms

OPEN: Final = "open"
"""The cause that ``occ.cdr`` gives what is in no record yet."""

CLOCKS_DIFFER_MS: Final = 60_000
"""How far the clock by which requests are charged and that of Redis may be apart."""

Moved = tuple[Account, list[JournalRecord]]


def why(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="SESSION|RECORD",
            help="Session-Id, of a session that is open or over; or a record_id, as 'occ cdr list --json' shows it.",
        ),
    ],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Explain a price: tariff, time band, tiers, promotions, buckets, policy rules, and what moved on the account.

    Without a running server this comes from the charging data records alone.
    """
    records: list[dict[str, Any]] = []
    if directory or settings_of(context).cdr.directory.is_dir():  # it is made with the first record
        records = list(records_in(context, directory, None, None, session_id=what))
        records = records or list(records_in(context, directory, None, None, record_id=what))
    one_of_them = bool(records) and records[0]["session_id"] != what
    note = ""
    moved: Moved | None = None
    try:
        if not one_of_them:
            records += on_store(context, lambda store: _so_far(store, what))
        if records:
            moved = on_store(context, lambda store: _moved(store, records, only_their_own=one_of_them))
    except (RefusedError, StoreError) as error:
        note = f"What moved on the account is not shown: {error}."
        if not records:
            raise RefusedError(f"there is no charging data record of {what}; and {error}") from error
    if not records:
        raise RefusedError(f"there is neither an open session nor a charging data record named {what}")
    if as_json:
        print_json(
            {
                "records": records,
                "journal": None if moved is None else [journal_json(each, moved[0]) for each in moved[1]],
            }
        )
        return
    _explain(records, moved)
    if note:
        console().print(note)


async def _so_far(store: Store, session_id: str) -> list[dict[str, Any]]:
    """What an open session has come to, as records that are not made yet; none if it is not open."""
    from occ.cdr import records_so_far  # noqa: PLC0415 - the other commands start without loading the protocols
    from occ.server_requests import sessions_with_id  # noqa: PLC0415

    account_id = await store.call("GET", store.keys.session(name_octets(session_id)))
    account = None if account_id is None else await read_account(store, bytes(account_id))
    if account is None:
        return []
    now = now_ms()
    found: list[Session] = sessions_with_id(account, name_octets(session_id))
    return [fields for session in found for fields in records_so_far(account, session, now)]


async def _moved(store: Store, records: list[dict[str, Any]], *, only_their_own: bool) -> Moved | None:
    """What the journal has of the session of these records; ``only_their_own``: of these records alone."""
    account_id = name_octets(records[-1]["account_id"])
    account = await read_account(store, account_id)
    if account is None:
        return None
    since = min(each["started_ms"] for each in records) - CLOCKS_DIFFER_MS
    until = max(each["closed_ms"] for each in records) + CLOCKS_DIFFER_MS
    found = await journal.between(store, account_id, since, until)
    versions = {each["account_version"] for each in records}
    key = name_octets(records[-1]["session_id"] or "")

    def concerns(record: JournalRecord) -> bool:
        if record.version in versions and any(each["cause"] != OPEN for each in records):
            return True
        first = record.reason[0] if record.reason else None
        return not only_their_own and isinstance(first, bytes) and first.partition(b"\0")[0] == key

    return account, [record for record in found if concerns(record)]


# -- for people ----------------------------------------------------------------------------------------------------


def _explain(records: list[dict[str, Any]], moved: Moved | None) -> None:
    out = console()
    first = records[0]
    out.print(_sentence(first))
    for fields in records:
        out.print()
        out.print(_heading(fields), style="bold")
        lines = table("", "")
        for name, told in _causes(fields):
            lines.add_row(f"  {name}", told)
        out.print(lines)
        for period in fields["periods"] or ():
            out.print(period_lines(period, fields["unit"], fields["currency"]))
        out.print(_sum(fields))
    if moved is not None and moved[1]:
        out.print()
        out.print("In the ledger:", style="bold")
        out.print(journal_table(moved[1], moved[0]))


def _sentence(fields: dict[str, Any]) -> str:
    """Whose session it is, and by what it was charged."""
    text = f"Session {_text(fields['session_id'])}"
    if fields["subscriber_id"]:
        text += f" of subscriber {_text(fields['subscriber_id'])}"
    text += f", paid by account {_text(fields['account_id'])}"
    if fields["member_of"]:
        text += f" for {_text(fields['member_of'])}"
    if fields["origin_host"]:
        text += f", reported by {_text(fields['origin_host'])}"
    return f"{text}."


def _heading(fields: dict[str, Any]) -> str:
    used = amount_text(fields["used"], fields["unit"], fields["currency"])
    debited = money_text(fields["debited_micro"], fields["currency"])
    if fields["cause"] == OPEN:
        when = "so far, in no record yet"
    else:
        when = f"record {fields['sequence']}, {fields['cause']}, {time_text(fields['closed_ms'])}"
    return f"{_text(fields['service'])}: {used} used, {debited} debited ({when})"


def _causes(fields: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What had a say in the price: (what, how)."""
    chosen = [f"plan {_text(fields['plan'])}"] if fields["plan"] else []
    for name, of in (("rating_group", "Rating-Group"), ("service_identifier", "Service-Identifier"), ("zone", "zone")):
        if fields[name] is not None:
            chosen.append(f"{of} {_text(str(fields[name]))}")
    for name, of in (("called_party", "to"), ("calling_party", "from"), ("visited_network", "in network")):
        if fields[name]:
            chosen.append(f"{of} {_text(fields[name])}")
    yield "chosen by", ", ".join(chosen) or "the service alone"
    price = _text(fields["price"]) or ("free" if not fields["step_price_micro"] else "several prices, see below")
    yield "tariff", f"{price}  (catalogue {_text(fields['catalogue'])})"
    yield "time band", _text(fields["band"]) or "none: the price is the same at any time"
    yield "tiers", _list(fields["tiers"]) or "none: the price does not depend on how much was used before"
    yield "promotions", _list(fields["promotions"]) or "none applied"
    yield "policy", _list(fields["policies"]) or "no rule had a say"
    if fields["allowance_units"]:
        allowance = amount_text(fields["allowance_units"], fields["unit"], fields["currency"])
        yield "allowances", f"{allowance} out of buckets, priced in money: {_paid(fields)}"
    yield "buckets", _buckets(fields) or "nothing was taken"
    if fields["disbelieved"]:
        over = amount_text(fields["disbelieved"], fields["unit"], fields["currency"])
        yield "disbelieved", f"{over} reported that cannot be true, and not charged"


def _paid(fields: dict[str, Any]) -> str:
    return amount_text(fields["paid_units"], fields["unit"], fields["currency"])


def _buckets(fields: dict[str, Any]) -> str:
    parts = []
    for each in fields["buckets"] or ():
        name = f" ({_text(each['name'])})" if each["name"] else ""
        amount = amount_text(each["amount"], each["unit"], fields["currency"])
        parts.append(f"{amount} from bucket {each['bucket_id']}{name}")
    return ", ".join(parts)


def _sum(fields: dict[str, Any]) -> str:
    currency = fields["currency"]
    text = f"  Cost {money_text(fields['cost_micro'], currency)}"
    if fields["leaked_micro"]:
        text += f", of which no balance covered {money_text(fields['leaked_micro'], currency)}"
    return f"{text}: debited {money_text(fields['debited_micro'], currency)}."


def _list(names: Iterable[str] | None) -> str:
    return ", ".join(_text(name) for name in names or ())


def _text(value: str | None) -> str:
    return "" if value is None else text_of(value.encode("utf-8", "surrogateescape"))
