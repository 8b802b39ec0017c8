"""Commands on subscribers: add, show, list, swap identities, change plan, caps, friends and state, move."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import typer

from balance import directory, structure, subscribers
from balance.accounts import Account
from balance.bulk import subscribers_in_store
from balance.directory import existing
from balance.model import AccountKind, IdentityType, LedgerError, LifeState, Subscriber, Unit
from balance.store import Store
from balance.subscribers import Identity
from occ.cli_account_view import DEFAULT_REASON, NeededReason, Reason, day
from occ.cli_later import Later, loading
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
    units_text,
)
from occ.clock import now_ms
from occ.entitlements import bring_all_up_to_date, bring_up_to_date
from occ.lifecycle import check_change
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.currency import currency_name
from occ.rating.periods import Period, Periods
from occ.yamlmap import nearest

subscriber_app = typer.Typer(
    cls=loading(
        contact=Later("occ.cli_contacts", "subscriber_contact_app", "How a subscriber is told what concerns it.")
    ),
    no_args_is_help=True,
    help="Add, show, change and list subscribers.",
)

Shown = tuple[Subscriber, Account]
"""A subscriber and the account that pays for it."""

Who = Annotated[str, typer.Argument(metavar="SUBSCRIBER", help="Its name, or one of its identities.")]

IDENTITY_TYPES: Final = {
    "msisdn": IdentityType.E164,
    "imsi": IdentityType.IMSI,
    "sip-uri": IdentityType.SIP_URI,
    "nai": IdentityType.NAI,
    "private": IdentityType.PRIVATE,
    "line": IdentityType.PRIVATE,
}
"""As options name them; a line of a fixed network has an identity of the network's own kind."""


@subscriber_app.command("add")
def add(
    context: typer.Context,
    subscriber: Annotated[str, typer.Argument(help="Subscriber identifier, such as the MSISDN.")],
    account: Annotated[str, typer.Option(help="Account that it belongs to; if that is a unit's, its payer pays.")],
    plan: Annotated[str, typer.Option(help="Plan of the catalogue.")],
    msisdn: Annotated[list[str] | None, typer.Option(help="E.164 number, with or without '+'.")] = None,
    imsi: Annotated[list[str] | None, typer.Option(help="IMSI.")] = None,
    sip_uri: Annotated[list[str] | None, typer.Option(help="SIP URI, such as sip:user@example.net.")] = None,
    nai: Annotated[list[str] | None, typer.Option(help="Network access identifier.")] = None,
    line: Annotated[list[str] | None, typer.Option(help="Identifier of a fixed line.")] = None,
    private: Annotated[list[str] | None, typer.Option(help="Identity of another kind.")] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="Not in service before it is activated.")] = False,
    segment: Annotated[str, typer.Option(help="Which customers it is among, for promotions.")] = "",
    cap_day: Annotated[str | None, typer.Option(help="The most that is spent on it in a day, such as 5.00.")] = None,
    cap_month: Annotated[str | None, typer.Option(help="The most that is spent on it in a month.")] = None,
    friend: Annotated[list[str] | None, typer.Option(help="Friends-and-family number, E.164.")] = None,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Add a subscriber under one or more identities; each belongs to one subscriber only."""
    catalogue = load_catalogue(settings_of(context).catalogue)
    _check_plan(catalogue, plan, "--plan")
    given = (
        ("msisdn", msisdn), ("imsi", imsi), ("sip-uri", sip_uri), ("nai", nai), ("line", line), ("private", private),
    )  # fmt: skip
    new = Subscriber(
        name_octets(subscriber),
        name_octets(account),
        plan,
        tuple(_identity(IDENTITY_TYPES[word], value) for word, values in given for value in values or ()),
        state=int(LifeState.ORDERED if ordered else LifeState.ACTIVE),
        cap_day_micro=0 if cap_day is None else money(cap_day, "--cap-day"),
        cap_month_micro=0 if cap_month is None else money(cap_month, "--cap-month"),
        activated_ms=0 if ordered else now_ms(),
        segment=segment,
        friends=_numbers(friend or []),
    )

    async def work(store: Store) -> Shown:
        owner = await existing_account(store, account)
        _check_currency(catalogue, plan, account, owner.currency)
        entered = await structure.add_member(store, new, now_ms(), reason)
        if entered is None:
            raise RefusedError(f"subscriber {subscriber} exists already; nothing was changed")
        await bring_up_to_date(store, catalogue, entered, now_ms(), reason)
        return entered, await _payer(store, entered)

    _show(on_store(context, work), as_json)


@subscriber_app.command("show")
def show_subscriber(context: typer.Context, subscriber: Who, as_json: AsJson = False) -> None:
    """All of a subscriber."""

    async def work(store: Store) -> Shown:
        found = await found_subscriber(store, subscriber)
        return found, await _payer(store, found)

    _show(on_store(context, work), as_json)


@subscriber_app.command("list")
def list_subscribers(
    context: typer.Context,
    account: Annotated[str, typer.Option(help="Account that they belong to, or that pays for them.")],
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The subscribers that belong to an account, and those that it pays for, in the order of their names."""

    async def work(store: Store) -> list[Subscriber]:
        owner = await existing_account(store, account)
        found: dict[bytes, Subscriber] = {}
        for pages in (
            subscribers.members(store, owner.account_id),
            structure.paid_subscribers(store, owner.account_id),
        ):
            async for page in pages:
                found |= {each.subscriber_id: each for each in page}
        return [found[name] for name in sorted(found)]

    found = on_store(context, work)
    if as_json:
        print_json([subscriber_json(each) for each in found[:limit]])
        return
    shown = table("subscriber", "state", "plan", "belongs to", "paid by", "identities")
    for each in found[:limit]:
        shown.add_row(
            text_of(each.subscriber_id),
            LifeState(each.state).name.lower(),
            each.plan_at(now_ms()),
            text_of(subscribers.own_account(each)),
            text_of(each.account_id),
            ", ".join(text_of(value) for _, value in each.identities),
        )
    if found:
        console().print(shown)
    console().print(f"{min(limit, len(found))} of {len(found)} subscribers.")


@subscriber_app.command("swap")
def swap(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="The identity it has: MSISDN, IMSI, SIP URI, ...")],
    new: Annotated[str, typer.Argument(help="The identity it gets in its place, of the same type.")],
    kind: Annotated[
        str | None, typer.Option("--type", help=f"{', '.join(IDENTITY_TYPES)}; left out: as OLD is found.")
    ] = None,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Exchange one identity for another: a SIM swap, a new number, a number ported in. Running sessions go on."""
    if kind is not None and kind not in IDENTITY_TYPES:
        raise typer.BadParameter(
            f"{kind[:40]!r} is not one of {', '.join(IDENTITY_TYPES)}{nearest(kind, IDENTITY_TYPES)}",
            param_hint="--type",
        )
    wanted = None if kind is None else IDENTITY_TYPES[kind]

    async def change(store: Store) -> Subscriber:
        found = [
            (each, of)
            for each, of in await subscribers.find_subscribers(store, name_octets(old))
            if of >= 0 and wanted in (None, of)
        ]
        if not found:
            raise RefusedError(f"no subscriber has the identity {old}")
        if len(found) > 1:
            words = ", ".join(IdentityType(of).name.lower().replace("e164", "msisdn") for _, of in found)
            raise RefusedError(f"{old} is an identity of several types ({words}); say which with --type")
        (owner, of) = found[0]
        pair = (_identity(IdentityType(of), old), _identity(IdentityType(of), new))
        return await subscribers.swap_identity(store, owner.subscriber_id, *pair, now_ms(), reason)

    _show_changed(context, change, as_json)


@subscriber_app.command("plan")
def plan(
    context: typer.Context,
    subscriber: Who,
    name: Annotated[str, typer.Argument(metavar="PLAN", help="Plan of the catalogue.")],
    now: Annotated[bool, typer.Option("--now", help="From now on; a change that is pending is dropped.")] = False,
    at: Annotated[str | None, typer.Option(help="From the beginning of a day, such as 2027-02-01.")] = None,
    at_cycle_end: Annotated[
        bool, typer.Option("--at-cycle-end", help="From the next month of the account that pays (its cycle day).")
    ] = False,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Change the plan, now or later, with the offers that come with it. Sessions keep the plan they began with."""
    if sum((now, at is not None, at_cycle_end)) != 1:
        raise WrongUsageError("say when the plan changes: --now, --at a date, or --at-cycle-end")
    catalogue = load_catalogue(settings_of(context).catalogue)
    _check_plan(catalogue, name, "PLAN")

    async def change(store: Store) -> Subscriber:
        found, at_ms = await found_subscriber(store, subscriber), now_ms()
        from_ms = at_ms
        if at is not None:
            from_ms = catalogue.calendar.moment(day(at, "--at"), 0)
            if from_ms <= at_ms:
                raise WrongUsageError(f"{at} has begun already; --now changes the plan at once")
        payer = await _payer(store, found)
        if at_cycle_end:
            from_ms = Periods(catalogue.calendar).end_ms(Period.MONTH, at_ms, payer.cycle_day)
        _check_currency(catalogue, name, text_of(found.account_id), payer.currency)
        changed = await subscribers.change_plan(store, found.subscriber_id, name, from_ms, at_ms, reason)
        await bring_up_to_date(store, catalogue, changed, at_ms, reason)
        return changed

    _show_changed(context, change, as_json)


@subscriber_app.command("caps")
def caps(
    context: typer.Context,
    subscriber: Who,
    day_cap: Annotated[str | None, typer.Option("--day", help="Such as 5.00; none: no cap.")] = None,
    month_cap: Annotated[str | None, typer.Option("--month", help="Such as 50.00; none: no cap.")] = None,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Set the most that is spent on a subscriber in a day or a month, for sessions that begin from now on."""
    if day_cap is None and month_cap is None:
        raise WrongUsageError("say what is capped: --day, --month, or both")
    day_micro, month_micro = _cap(day_cap, "--day"), _cap(month_cap, "--month")

    async def change(store: Store) -> Subscriber:
        found = await found_subscriber(store, subscriber)
        return await subscribers.set_caps(store, found.subscriber_id, day_micro, month_micro, now_ms(), reason)

    _show_changed(context, change, as_json)


def _cap(written: str | None, what: str) -> int | None:
    if written is None or written == "none":
        return None if written is None else 0
    return money(written, what)


@subscriber_app.command("friends")
def friends(
    context: typer.Context,
    subscriber: Who,
    numbers: Annotated[list[str] | None, typer.Argument(help="E.164 numbers, with or without '+'.")] = None,
    none: Annotated[bool, typer.Option("--none", help="It has none any more.")] = False,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Set the friends-and-family numbers of a subscriber, in place of those it had."""
    if none == bool(numbers):
        raise WrongUsageError("give the friends-and-family numbers, or --none")

    async def change(store: Store) -> Subscriber:
        found = await found_subscriber(store, subscriber)
        return await subscribers.set_friends(store, found.subscriber_id, _numbers(numbers or []), now_ms(), reason)

    _show_changed(context, change, as_json)


@subscriber_app.command("move")
def move(
    context: typer.Context,
    subscriber: Who,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account it is to belong to.")],
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Have a subscriber belong to another account. Running sessions stay with the account they were opened on."""
    catalogue = load_catalogue(settings_of(context).catalogue)

    async def change(store: Store) -> Subscriber:
        found = await found_subscriber(store, subscriber)
        moved = await structure.move_member(store, found.subscriber_id, name_octets(account), now_ms(), reason)
        await bring_up_to_date(store, catalogue, moved, now_ms(), reason)
        return moved

    _show_changed(context, change, as_json)


@subscriber_app.command("refresh")
def refresh(
    context: typer.Context,
    subscriber: Annotated[str | None, typer.Argument(metavar="SUBSCRIBER", help="Left out: all subscribers.")] = None,
    reason: Reason = DEFAULT_REASON,
) -> None:
    """Give subscribers what their plans include by now, and end what they do not; for after a change of the catalogue.

    Repeated, it changes nothing.
    """
    catalogue = load_catalogue(settings_of(context).catalogue)

    async def work(store: Store) -> int:
        if subscriber is not None:
            await bring_up_to_date(store, catalogue, await found_subscriber(store, subscriber), now_ms(), reason)
            return 1
        count = 0
        async for names in subscribers_in_store(store):
            found = [each for name in names if (each := await subscribers.subscriber_named(store, name)) is not None]
            await bring_all_up_to_date(store, catalogue, found, now_ms(), reason)
            count += len(found)
        return count

    console().print(f"{on_store(context, work)} subscribers have what their plans include.")


# -- life cycle --------------------------------------------------------------------------------------------------------


@subscriber_app.command("activate")
def activate(context: typer.Context, subscriber: Who, reason: Reason = DEFAULT_REASON, as_json: AsJson = False) -> None:
    """Put a subscriber that was ordered into service."""
    _set_state(context, subscriber, LifeState.ACTIVE, reason, as_json, (LifeState.ORDERED,))


@subscriber_app.command("suspend")
def suspend(context: typer.Context, subscriber: Who, reason: NeededReason, as_json: AsJson = False) -> None:
    """Take a subscriber out of service for a while; its running sessions ask anew at once."""
    _set_state(context, subscriber, LifeState.SUSPENDED, reason, as_json)


@subscriber_app.command("block")
def block(context: typer.Context, subscriber: Who, reason: NeededReason, as_json: AsJson = False) -> None:
    """Bar a subscriber; its running sessions ask anew at once."""
    _set_state(context, subscriber, LifeState.BLOCKED, reason, as_json)


@subscriber_app.command("resume")
def resume(context: typer.Context, subscriber: Who, reason: NeededReason, as_json: AsJson = False) -> None:
    """Put a subscriber that is suspended or blocked into service again."""
    _set_state(context, subscriber, LifeState.ACTIVE, reason, as_json, (LifeState.SUSPENDED, LifeState.BLOCKED))


@subscriber_app.command("terminate")
def terminate(
    context: typer.Context,
    subscriber: Who,
    reason: NeededReason,
    free_identities: Annotated[
        bool, typer.Option("--free-identities", help="Others can have its identities from now on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End a subscriber for good; it is unknown to the network from now on."""
    _set_state(context, subscriber, LifeState.TERMINATED, reason, as_json, free_identities=free_identities)


def _set_state(
    context: typer.Context,
    subscriber: str,
    state: LifeState,
    reason: str,
    as_json: bool,
    after: tuple[LifeState, ...] = (),
    free_identities: bool = False,
) -> None:
    """``after``: the states it may come from; empty: any that the life cycle allows."""

    def check(old: int, new: int) -> None:
        if after and LifeState(old) not in after:
            wanted = " or ".join(each.name.lower() for each in after)
            raise LedgerError(f"subscriber {subscriber} is {LifeState(old).name.lower()}, not {wanted}")
        check_change(old, new)

    catalogue = load_catalogue(settings_of(context).catalogue)

    async def change(store: Store) -> Subscriber:
        from occ.server_requests import standing_has_changed  # noqa: PLC0415 - other commands do without the protocols

        found = await found_subscriber(store, subscriber)
        changed = await subscribers.set_subscriber_state(
            store, found.subscriber_id, state, now_ms(), reason, check, free_identities=free_identities
        )
        await bring_up_to_date(store, catalogue, changed, now_ms(), reason)
        for account_id in await subscribers.session_accounts(store, changed):
            await standing_has_changed(store, account_id, changed.subscriber_id)
        return changed

    _show_changed(context, change, as_json)


# -- what commands share -----------------------------------------------------------------------------------------------


def _identity(kind: IdentityType, written: str) -> Identity:
    return int(kind), name_octets(written.removeprefix("+") if kind == IdentityType.E164 else written)


def _numbers(written: list[str]) -> tuple[bytes, ...]:
    return tuple(name_octets(number.removeprefix("+")) for number in written)


def _check_plan(catalogue: Catalogue, plan: str, what: str) -> None:
    if plan not in catalogue.plans:
        raise typer.BadParameter(
            f"the catalogue has no plan {plan[:40]!r}{nearest(plan, catalogue.plans)}", param_hint=what
        )


def _check_currency(catalogue: Catalogue, plan: str, account: str, currency: int) -> None:
    wanted = catalogue.currency_of(plan)
    if currency != wanted:
        raise RefusedError(
            f"account {account} is in {currency_name(currency)}, but the prices of plan {plan} are in "
            f"{currency_name(wanted)}"
        )


async def found_subscriber(store: Store, written: str) -> Subscriber:
    """The subscriber that somebody means. Raises RefusedError if there is none, or more than one."""
    found = {each.subscriber_id: each for each, _ in await subscribers.find_subscribers(store, name_octets(written))}
    if not found:
        raise RefusedError(f"there is no subscriber {written}, and none with that identity")
    if len(found) > 1:
        names = " and ".join(sorted(text_of(name) for name in found))
        raise RefusedError(f"{written} may be either of {names}; use another name or identity of the one you mean")
    return next(iter(found.values()))


async def _payer(store: Store, subscriber: Subscriber) -> Account:
    return existing(await directory.read_account(store, subscriber.account_id), subscriber.account_id)


def _show_changed(context: typer.Context, change: Callable[[Store], Awaitable[Subscriber]], as_json: bool) -> None:
    async def work(store: Store) -> Shown:
        changed = await change(store)
        return changed, await _payer(store, changed)

    _show(on_store(context, work), as_json)


def _kind(subscriber: Subscriber, payer: Account) -> str:
    """Which of the four kinds of line it is: one with an IMSI is mobile, one with other identities only is fixed."""
    paid = AccountKind(payer.kind).name.lower()
    if not subscriber.identities:
        return paid
    return f"{'mobile' if any(kind == IdentityType.IMSI for kind, _ in subscriber.identities) else 'fixed'} {paid}"


def _show(found: Shown, as_json: bool) -> None:
    subscriber, payer = found
    if as_json:
        print_json({**subscriber_json(subscriber), "kind": _kind(subscriber, payer)})
        return
    out = console()
    out.print(
        f"{text_of(subscriber.subscriber_id)}: account {text_of(subscriber.account_id)}, plan "
        f"{subscriber.plan_at(now_ms())}, {_kind(subscriber, payer)}, "
        f"{LifeState(subscriber.state).name.lower()}"
    )
    if subscriber.member_of:
        out.print(f"  belongs to account {text_of(subscriber.member_of)}")
    if subscriber.next_plan and subscriber.next_plan_ms > now_ms():
        out.print(f"  plan {subscriber.next_plan} from {time_text(subscriber.next_plan_ms)} UTC")
    for word, micro in (("day", subscriber.cap_day_micro), ("month", subscriber.cap_month_micro)):
        if micro:
            out.print(f"  at most {units_text(micro, Unit.MONEY, payer.currency)} a {word}")
    if subscriber.segment:
        out.print(f"  segment {subscriber.segment}")
    if subscriber.friends:
        out.print(f"  friends {', '.join(text_of(number) for number in subscriber.friends)}")
    if subscriber.activated_ms:
        out.print(f"  in service since {time_text(subscriber.activated_ms)} UTC")
    for of, value in subscriber.identities:
        out.print(f"  {subscribers.describe_identity(of, value)}")


def subscriber_json(subscriber: Subscriber) -> dict[str, Any]:
    pending = bool(subscriber.next_plan) and subscriber.next_plan_ms > now_ms()
    return {
        "subscriber": text_of(subscriber.subscriber_id),
        "account": text_of(subscriber.account_id),
        "belongs_to": text_of(subscribers.own_account(subscriber)),
        "state": LifeState(subscriber.state).name.lower(),
        "plan": subscriber.plan_at(now_ms()),
        "next_plan": subscriber.next_plan if pending else None,
        "next_plan_from": time_json(subscriber.next_plan_ms) if pending else None,
        "cap_day_micro": subscriber.cap_day_micro or None,
        "cap_month_micro": subscriber.cap_month_micro or None,
        "segment": subscriber.segment,
        "friends": [text_of(number) for number in subscriber.friends],
        "in_service_since": time_json(subscriber.activated_ms),
        "identities": [
            {"type": IdentityType(kind).name.lower(), "value": text_of(value)} for kind, value in subscriber.identities
        ],
    }
