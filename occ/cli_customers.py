"""Commands on customers: households, companies, their branches; who is below whom, and who pays."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from balance import directory, structure
from balance.directory import existing
from balance.model import AccountKind
from balance.store import Store
from balance.structure import Branch, CustomerUnit, Pays, Reorganised, UnitKind
from occ.cli_account_view import DEFAULT_REASON, Reason
from occ.cli_shell import (
    AsJson,
    WrongUsageError,
    console,
    name_octets,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
)
from occ.clock import now_ms
from occ.entitlements import bring_all_up_to_date, concern
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.yamlmap import nearest

customer_app = typer.Typer(no_args_is_help=True, help="Households, companies and branches: who pays for whom.")

KINDS: Final = {kind.name.lower(): kind for kind in UnitKind}
PAYERS: Final = {"itself": Pays.ITSELF, "parent": Pays.PARENT}

UnitName = Annotated[str, typer.Argument(metavar="UNIT", help="Identifier of a customer, or of a part of one.")]


@customer_app.command("add")
def add(
    context: typer.Context,
    unit: UnitName,
    kind: Annotated[str, typer.Option(help=f"{', '.join(KINDS)}.")],
    below: Annotated[str, typer.Option(help="The unit that it is a part of; left out: it stands at the top.")] = "",
    pays: Annotated[
        str | None, typer.Option(help="itself or parent; left out: parent, or itself for one at the top.")
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            help="Its account; left out: that of its own name, which is created if it is missing and another one pays."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Add a household, a company or another customer, or a unit below one; one that is there already stays as it is."""
    if kind not in KINDS:
        raise typer.BadParameter(
            f"{kind[:40]!r} is not one of {', '.join(KINDS)}{nearest(kind, KINDS)}", param_hint="--kind"
        )
    catalogue = load_catalogue(settings_of(context).catalogue)
    payer = ("parent" if below else "itself") if pays is None else pays
    new = CustomerUnit(
        name_octets(unit),
        int(KINDS[kind]),
        name,
        name_octets(below),
        int(_payer(payer, "--pays")),
        name_octets(unit if account is None else account),
    )

    async def work(store: Store) -> Reorganised:
        structure.check_unit(new)
        if account is None and new.pays == Pays.PARENT:
            await _account_like_payer(store, new, reason)
        done = await structure.create_unit(store, new, now_ms(), reason)
        await _bring_up_to_date(store, catalogue, done, reason)
        return done

    _show_change(on_store(context, work), as_json)


async def _account_like_payer(store: Store, new: CustomerUnit, reason: str) -> None:
    """Create the account of a unit that another pays for, if it is missing: empty, of the payer's kind and currency."""
    known = await structure.unit_named(store, new.unit_id)
    if await directory.read_account(store, new.account_id) is not None or known not in (None, new):
        return
    above = await structure.existing_unit(store, new.parent)
    payer_id = await structure.payer_of(store, above.account_id)
    payer = existing(await directory.read_account(store, payer_id), payer_id)
    await directory.create_account(
        store, new.account_id, AccountKind(payer.kind), payer.currency, now_ms=now_ms(), reason=reason
    )


@customer_app.command("tree")
def tree(
    context: typer.Context,
    unit: Annotated[str, typer.Argument(metavar="UNIT", help="Left out: all customers.")] = "",
    as_json: AsJson = False,
) -> None:
    """A customer and all its units, or all customers: their accounts, who pays, how many subscribers belong to each."""

    async def work(store: Store) -> list[Branch]:
        return [each async for each in structure.tree(store, name_octets(unit))]

    found = on_store(context, work)
    if as_json:
        print_json([{**_unit_json(each.unit, each.payer), "subscribers": each.subscribers} for each in found])
        return
    shown = table("unit", "kind", "name", "account", "paid by", ">subscribers")
    for each in found:
        shown.add_row(
            "  " * each.depth + text_of(each.unit.unit_id),
            UnitKind(each.unit.kind).name.lower(),
            each.unit.name,
            text_of(each.unit.account_id),
            text_of(each.payer),
            str(each.subscribers),
        )
    if found:
        console().print(shown)
    console().print(f"{len(found)} units, {sum(each.subscribers for each in found)} subscribers.")


@customer_app.command("move")
def move(
    context: typer.Context,
    unit: UnitName,
    below: Annotated[str | None, typer.Option(help="The unit that it is to be a part of.")] = None,
    top: Annotated[bool, typer.Option("--top", help="It is to stand at the top; it must pay itself.")] = False,
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Move a unit, with all that is below it, to another place; repeated, one that was cut off is completed."""
    if (below is None) != top:
        raise WrongUsageError("say where the unit is to be: --below another one, or --top")
    parent = name_octets(below or "")
    _change(context, unit, lambda found: replace(found, parent=parent), reason, as_json)


@customer_app.command("pays")
def pays(
    context: typer.Context,
    unit: UnitName,
    payer: Annotated[str, typer.Argument(metavar="WHO", help="itself or parent.")],
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Change who pays for a unit, for sessions that begin from now on; repeated, one that was cut off is completed."""
    who = int(_payer(payer, "WHO"))
    _change(context, unit, lambda found: replace(found, pays=who), reason, as_json)


@customer_app.command("rename")
def rename(
    context: typer.Context,
    unit: UnitName,
    name: Annotated[str, typer.Argument(help="What people call it.")],
    reason: Reason = DEFAULT_REASON,
    as_json: AsJson = False,
) -> None:
    """Change what people call a unit; its identifier stays."""
    _change(context, unit, lambda found: replace(found, name=name), reason, as_json)


def _change(
    context: typer.Context, unit: str, change: Callable[[CustomerUnit], CustomerUnit], reason: str, as_json: bool
) -> None:
    catalogue = load_catalogue(settings_of(context).catalogue)

    async def work(store: Store) -> Reorganised:
        done = await structure.change_unit(store, name_octets(unit), change, now_ms(), reason)
        await _bring_up_to_date(store, catalogue, done, reason)
        return done

    _show_change(on_store(context, work), as_json)


async def _bring_up_to_date(store: Store, catalogue: Catalogue, done: Reorganised, reason: str) -> None:
    """Have what comes with plans be charged to who pays now."""
    if concern(catalogue):
        async for page in structure.paid_subscribers(store, done.payer):
            await bring_all_up_to_date(store, catalogue, page, now_ms(), reason)


def _payer(written: str, what: str) -> Pays:
    if written not in PAYERS:
        raise typer.BadParameter(f"{written[:40]!r} is not one of {', '.join(PAYERS)}", param_hint=what)
    return PAYERS[written]


def _show_change(done: Reorganised, as_json: bool) -> None:
    unit = done.unit
    if as_json:
        print_json({**_unit_json(unit, done.payer), "moved": done.moved})
        return
    place = f" below {text_of(unit.parent)}" if unit.parent else ""
    moved = f"; {done.moved} subscriber{'' if done.moved == 1 else 's'} had another payer" if done.moved else ""
    console().print(
        f"{text_of(unit.unit_id)}: {UnitKind(unit.kind).name.lower()}{place}, account {text_of(unit.account_id)}, "
        f"account {text_of(done.payer)} pays{moved}."
    )


def _unit_json(unit: CustomerUnit, payer: bytes) -> dict[str, Any]:
    return {
        "unit": text_of(unit.unit_id),
        "kind": UnitKind(unit.kind).name.lower(),
        "name": unit.name,
        "below": text_of(unit.parent) or None,
        "pays": "parent" if unit.pays == Pays.PARENT else "itself",
        "account": text_of(unit.account_id),
        "paid_by": text_of(payer),
    }
