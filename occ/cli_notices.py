"""Commands on notices to customers: list, show, dead letters, retry, check of the texts, a notice by hand."""

import secrets
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from balance import notices
from balance.model import LedgerError
from balance.notices import CLASSES, DEAD, HELD, LISTS, WAITING, Delivery, Event, Notice, Value
from balance.store import Store
from occ.cli_shell import (
    AsJson,
    Limit,
    RefusedError,
    WrongUsageError,
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
)
from occ.cli_subscribers import found_subscriber
from occ.clock import now_ms
from occ.rating.currency import currency_name
from occ.settings import Settings
from occ.yamlmap import nearest, shown

notice_app = typer.Typer(no_args_is_help=True, help="Notices to customers: what was sent, what was given up.")

Name = Annotated[str, typer.Argument(metavar="NOTICE", help="The notice's name, as 'list' shows it.")]

_ROUTE: Final = "route"
"""The queue in which a notice finds its way anew (``occ.notices.delivery``)."""


@notice_app.command("list")
def list_notices(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help=f"Only {', '.join(LISTS)}; left out: all.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Notices: those that wait, those that are held until quiet hours end, the dead and the finished ones."""
    if state is not None and state not in LISTS:
        raise WrongUsageError(f"{state[:40]!r} is none of {', '.join(LISTS)}{nearest(state, LISTS)}")
    _list(context, LISTS if state is None else (state,), limit, as_json)


@notice_app.command("dead")
def dead(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """The notices that were given up, the last one first, and why. 'retry' has them tried anew."""
    _list(context, (DEAD,), limit, as_json)


def _list(context: typer.Context, names: tuple[str, ...], limit: int, as_json: bool) -> None:
    async def work(store: Store) -> tuple[list[Delivery], int]:
        found: list[Delivery] = []
        for name in names:
            found += await notices.listed(store, name, limit - len(found)) if len(found) < limit else []
        figures = await notices.figures(store)
        return found, sum(figures.lists[name] for name in names)

    found, total = on_store(context, work)
    if as_json:
        print_json([notice_json(each) for each in found])
        return
    shown_table = table("notice", "happened (UTC)", "template", "account", "subscriber", "state", "channel", "last")
    for each in found:
        shown_table.add_row(
            text_of(each.notice.notice_id),
            time_text(each.notice.at_ms)[:19],
            each.notice.template,
            text_of(each.notice.account_id),
            text_of(each.notice.subscriber_id),
            each.state,
            _channel(each),
            each.events[-1].detail if each.events else "",
        )
    if found:
        console().print(shown_table)
    console().print(f"{len(found)} of {total} notices.")


@notice_app.command("show")
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """One notice with all that happened to it."""
    known = on_store(context, lambda store: notices.read(store, name_octets(name)))
    if known is None:
        raise RefusedError(f"there is no notice {name}, or it has been forgotten")
    delivery = known.delivery
    if as_json:
        print_json(notice_json(delivery))
        return
    notice, out = delivery.notice, console()
    whom = f"account {text_of(notice.account_id)}"
    if notice.subscriber_id:
        whom += f", subscriber {text_of(notice.subscriber_id)}"
    out.print(f"{text_of(notice.notice_id)}: {notice.template} ({notice.klass}) for {whom}, {delivery.state}")
    out.print(f"  happened at {time_text(notice.at_ms)} UTC, taken up at {time_text(delivery.accepted_ms)}")
    for value, given in notice.values.items():
        out.print(f"  {value} = {given}")
    if delivery.state in (WAITING, HELD):
        out.print(f"  next looked at {time_text(delivery.next_ms)}, attempts so far {delivery.attempts}")
    if delivery.parts:
        out.print(f"  receipts awaited for {len(delivery.parts)} messages")
    for event in delivery.events:
        out.print(f"  {time_text(event.at_ms)}  {event.channel:<9} {event.result:<10} {event.detail}")


@notice_app.command("retry")
def retry(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NOTICE...", help="Dead notices.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have notices that were given up tried anew, from their first channel on."""
    if everything == bool(names):
        raise WrongUsageError("name the notices to be tried anew, or say --all")
    kept = settings_of(context).notices.history_entries

    async def work(store: Store) -> list[str]:
        chosen = [name_octets(name) for name in names or []]
        if everything:
            chosen = [each.notice.notice_id for each in await notices.listed(store, DEAD, 1_000_000)]
        return [text_of(name) for name in chosen if await _revive(store, name, kept, refuse=not everything)]

    revived = on_store(context, work)
    if as_json:
        print_json(revived)
        return
    console().print(f"{len(revived)} notices are tried anew.")


async def _revive(store: Store, name: bytes, kept: int, *, refuse: bool) -> bool:
    """False if it is not dead; raises RefusedError then if ``refuse``."""
    known = await notices.read(store, name)
    if known is None or known.delivery.state != DEAD:
        if refuse:
            raise RefusedError(
                f"there is no notice {text_of(name)}, or it has been forgotten"
                if known is None
                else f"notice {text_of(name)} is {known.delivery.state}, not dead"
            )
        return False
    at_ms = now_ms()
    anew = replace(known.delivery, state=WAITING, channel=_ROUTE, attempts=0, given_up=(), next_ms=at_ms)
    told = anew.told(Event(at_ms, "none", "retry", "by hand"), revived_ms=at_ms, finished_ms=0)
    return await notices.write(store, known, told, (), kept) is not None


# -- texts -------------------------------------------------------------------------------------------------------------


@notice_app.command("check")
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check texts, channels and secrets; exit code 2 with file, line and reason if something is wrong."""
    from occ.notices.process import check as check_all  # noqa: PLC0415 - only these commands need the texts

    settings = settings_of(context).notices
    templates = check_all(settings)
    if as_json:
        values = {
            name: {value: {"kind": kind, "optional": optional} for value, (kind, optional) in told.items()}
            for name, told in ((name, templates.values(name)) for name in templates.known)
        }
        print_json({"languages": templates.languages, "templates": values, "channels": settings.channels})
        return
    assert settings.templates is not None  # once loaded
    console().print(
        f"{shown(settings.templates)}: {len(templates.known)} notices in {', '.join(templates.languages)}; "
        f"channels: {', '.join(settings.channels) or 'none'}."
    )


@notice_app.command("send")
def send(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="Account that it is about.")],
    template: Annotated[str, typer.Argument(help="Which notice; 'check --json' shows them.")],
    subscriber: Annotated[str | None, typer.Option(help="Its name, or one of its identities.")] = None,
    value: Annotated[
        list[str] | None, typer.Option(help="What it is told, such as balance=3.20; money in currency units.")
    ] = None,
    klass: Annotated[str, typer.Option("--class", help=", ".join(CLASSES))] = CLASSES[0],
    name: Annotated[str | None, typer.Option(help="Its name, which is sent once; left out: a new one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hand a notice in by hand, to see how it reaches somebody."""
    if klass not in CLASSES:
        raise WrongUsageError(f"{klass[:40]!r} is none of {', '.join(CLASSES)}{nearest(klass, CLASSES)}")
    values = _values(settings_of(context), template, value or [])
    notice_id = name_octets(name) if name else f"by-hand-{secrets.token_hex(8)}".encode()

    async def work(store: Store) -> None:
        owner = await existing_account(store, account)
        whom = (await found_subscriber(store, subscriber)).subscriber_id if subscriber is not None else b""
        told = {**values, "currency": currency_name(owner.currency)}
        made = Notice(notice_id, owner.account_id, whom, klass, template, told, now_ms())
        try:
            await notices.enqueue(store, [made])
        except ValueError as error:
            raise LedgerError(str(error)) from None

    on_store(context, work)
    if as_json:
        print_json({"notice": text_of(notice_id)})
        return
    console().print(
        f"Handed in as {text_of(notice_id)}; 'occ notice show {text_of(notice_id)}' tells what becomes of it."
    )


def _values(settings: Settings, template: str, written: list[str]) -> dict[str, Value]:
    from occ.notices.process import load_templates  # noqa: PLC0415 - only these commands need the texts

    templates = load_templates(settings.notices)
    if template not in templates.known:
        raise WrongUsageError(f"there is no notice {template[:40]!r}{nearest(template, templates.known)}")
    told = templates.values(template)
    values: dict[str, Value] = {}
    for each in written:
        name, equals, given = each.partition("=")
        if not equals or name not in told:
            raise WrongUsageError(f"{each[:60]!r} is no value of {template}{nearest(name, told)}")
        kind = told[name][0]
        if kind in ("text", "name"):
            values[name] = given
        elif kind == "money":
            values[name] = money(given, f"--value {name}")
        else:
            try:
                values[name] = int(given)
            except ValueError:
                raise WrongUsageError(f"{name} is a {kind}, which is a whole number, not {given[:40]!r}") from None
    missing = [name for name, (_, optional) in told.items() if not optional and name not in values]
    if missing:
        raise WrongUsageError(f"{template} needs {', '.join(missing)}: add --value {missing[0]}=...")
    return values


# -- how they are shown ------------------------------------------------------------------------------------------------


def _channel(delivery: Delivery) -> str:
    return "" if delivery.channel == _ROUTE else delivery.channel


def notice_json(delivery: Delivery) -> dict[str, Any]:
    notice = delivery.notice
    return {
        "notice": text_of(notice.notice_id),
        "account": text_of(notice.account_id),
        "subscriber": text_of(notice.subscriber_id) or None,
        "class": notice.klass,
        "template": notice.template,
        "values": dict(notice.values),
        "happened_at": time_json(notice.at_ms),
        "taken_up_at": time_json(delivery.accepted_ms),
        "state": delivery.state,
        "channel": _channel(delivery) or None,
        "attempts": delivery.attempts,
        "given_up": list(delivery.given_up),
        "next_at": time_json(delivery.next_ms) if delivery.state in (WAITING, HELD) else None,
        "finished_at": time_json(delivery.finished_ms),
        "receipts_awaited": len(delivery.parts),
        "events": [
            {"at": time_json(at_ms), "channel": channel, "result": result, "detail": detail}
            for at_ms, channel, result, detail in delivery.events
        ],
    }
