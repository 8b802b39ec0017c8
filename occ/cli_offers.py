"""Commands on the offers of an account: what is charged and renewed by the clock."""

from typing import Annotated

import typer
from rich.table import Table

from balance.accounts import Account, Session
from balance.ledger import Draft
from balance.model import LedgerError, Offer, Unit
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store
from occ import cdr
from occ.cli_account_view import DEFAULT_REASON, AccountName, Reason
from occ.cli_shell import (
    AsJson,
    console,
    existing_account,
    name_octets,
    on_store,
    print_json,
    settings_of,
    text_of,
    time_json,
    time_text,
    units_text,
)
from occ.clock import now_ms
from occ.loyalty import is_loyalty
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.renewals import Fee, drop_offer, take_offer

offer_app = typer.Typer(no_args_is_help=True, help="Rentals and bundles that an account has.")

OfferName = Annotated[str, typer.Argument(metavar="OFFER", help="An offer of the catalogue.")]
ForSubscriber = Annotated[
    str | None, typer.Option("--for", help="The subscriber it is for; left out: the account as a whole.")
]


async def give_offer(
    store: Store, catalogue: Catalogue, account_id: bytes, name: str, owner: bytes, at_ms: int, reason: str
) -> Fee | None:
    """Have an account take an offer: one operation with its fee and what it gives. Raises LedgerError, StoreError."""
    fees: list[Fee | None] = []

    def step(account: Account | None, _: Session | None) -> Plan:
        if account is None:
            raise LedgerError(f"there is no account {text_of(account_id)}")
        draft = Draft(account, at_ms)
        fee = take_offer(draft, catalogue, name, owner)
        fees[:] = [fee]
        told = () if fee is None else ((fee.offer, fee.owner, fee.amount_micro, fee.from_ms, fee.taken),)
        return make_plan(draft, "renew", (reason, name), None, cdr.fee_records(draft, told, catalogue.edition))

    await store.commit(account_id, step)
    return fees[0]


@offer_app.command("take")
def take(
    context: typer.Context,
    account: AccountName,
    offer: OfferName,
    subscriber: ForSubscriber = None,
    reason: Reason = DEFAULT_REASON,
) -> None:
    """Give an account an offer; its fee for the first period is taken at once."""
    catalogue = load_catalogue(settings_of(context).catalogue)
    owner = b"" if subscriber is None else name_octets(subscriber)

    async def work(store: Store) -> tuple[Account, Fee | None]:
        found = await existing_account(store, account)
        return found, await give_offer(store, catalogue, found.account_id, offer, owner, now_ms(), reason)

    found, fee = on_store(context, work)
    cost = "nothing" if fee is None else units_text(fee.amount_micro, Unit.MONEY, found.currency)
    console().print(f"{account} has the offer {offer}; {cost} was taken for it.")


@offer_app.command("drop")
def drop(
    context: typer.Context,
    account: AccountName,
    offer: OfferName,
    subscriber: ForSubscriber = None,
    reason: Reason = DEFAULT_REASON,
) -> None:
    """Take an offer off an account: what it gave stays until it expires."""
    owner = b"" if subscriber is None else name_octets(subscriber)

    async def work(store: Store) -> None:
        found = await existing_account(store, account)

        def step(known: Account | None, _: Session | None) -> Plan:
            assert known is not None  # accounts are never removed
            draft = Draft(known, now_ms())
            drop_offer(draft, offer, owner)
            return make_plan(draft, "drop-offer", (reason, offer), None)

        await store.commit(found.account_id, step)

    on_store(context, work)
    console().print(f"{account} no longer has the offer {offer}.")


@offer_app.command("list")
def list_offers(context: typer.Context, account: AccountName, as_json: AsJson = False) -> None:
    """The offers of an account and when they are due."""

    async def work(store: Store) -> list[Offer]:
        return [offer for offer in (await existing_account(store, account)).offers if not is_loyalty(offer)]

    offers = on_store(context, work)
    if as_json:
        print_json(
            [
                {
                    "offer": each.name,
                    "subscriber": text_of(each.owner) if each.owner else None,
                    "since": time_json(each.since_ms),
                    "next": time_json(each.next_ms) if each.next_ms else None,
                    "unpaid_since": time_json(each.unpaid_ms) if each.unpaid_ms else None,
                }
                for each in offers
            ]
        )
        return
    shown = Table("offer", "subscriber", "since", "next", "unpaid since")
    for each in offers:
        shown.add_row(
            each.name,
            text_of(each.owner),
            time_text(each.since_ms),
            time_text(each.next_ms) if each.next_ms else "",
            time_text(each.unpaid_ms) if each.unpaid_ms else "",
        )
    console().print(shown if offers else f"{account} has no offers.")
