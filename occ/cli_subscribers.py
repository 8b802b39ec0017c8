"""Commands on subscribers: add, show."""

from typing import Annotated

import typer

from balance import subscribers
from balance.model import IdentityType, Subscriber
from balance.store import Store
from occ.cli_shell import (
    AsJson,
    RefusedError,
    console,
    existing_account,
    name_octets,
    on_store,
    print_json,
    settings_of,
    text_of,
)
from occ.rating.catalogue import load_catalogue
from occ.rating.currency import currency_name
from occ.yamlmap import nearest

subscriber_app = typer.Typer(no_args_is_help=True, help="Add and show subscribers.")


@subscriber_app.command("add")
def add(
    context: typer.Context,
    subscriber: Annotated[str, typer.Argument(help="Subscriber identifier, such as the MSISDN.")],
    account: Annotated[str, typer.Option(help="Account that pays; it must exist.")],
    plan: Annotated[str, typer.Option(help="Plan of the catalogue.")],
    msisdn: Annotated[list[str] | None, typer.Option(help="E.164 number, with or without '+'.")] = None,
    imsi: Annotated[list[str] | None, typer.Option(help="IMSI.")] = None,
    sip_uri: Annotated[list[str] | None, typer.Option(help="SIP URI, such as sip:user@example.net.")] = None,
    nai: Annotated[list[str] | None, typer.Option(help="Network access identifier.")] = None,
    private: Annotated[list[str] | None, typer.Option(help="Identity of another kind.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a subscriber under one or more identities; each belongs to one subscriber only."""
    catalogue = load_catalogue(settings_of(context).catalogue)
    if plan not in catalogue.plans:
        raise typer.BadParameter(
            f"the catalogue has no plan {plan[:40]!r}{nearest(plan, catalogue.plans)}", param_hint="--plan"
        )
    identities = [(IdentityType.E164, number.removeprefix("+")) for number in msisdn or ()]
    for kind, values in (
        (IdentityType.IMSI, imsi),
        (IdentityType.SIP_URI, sip_uri),
        (IdentityType.NAI, nai),
        (IdentityType.PRIVATE, private),
    ):
        identities += [(kind, value) for value in values or ()]
    new = Subscriber(
        name_octets(subscriber),
        name_octets(account),
        plan,
        tuple((int(kind), name_octets(value)) for kind, value in identities),
    )

    async def work(store: Store) -> None:
        payer = await existing_account(store, account)
        if payer.currency != catalogue.currency:
            raise RefusedError(
                f"account {account} is in {currency_name(payer.currency)}, but the prices of the catalogue are in "
                f"{currency_name(catalogue.currency)}"
            )
        if not await subscribers.add_subscriber(store, new):
            raise RefusedError(f"subscriber {subscriber} exists already; nothing was changed")

    on_store(context, work)
    _show_subscriber(new, as_json)


@subscriber_app.command("show")
def show_subscriber(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(help="MSISDN, IMSI, SIP URI or any other identity.")],
    as_json: AsJson = False,
) -> None:
    """The subscriber an identity belongs to."""

    async def work(store: Store) -> Subscriber:
        for kind in IdentityType:
            value = identity.removeprefix("+") if kind == IdentityType.E164 else identity
            found = await subscribers.read_subscriber(store, kind, name_octets(value))
            if found is not None:
                return found
        raise RefusedError(f"no subscriber has the identity {identity}")

    _show_subscriber(on_store(context, work), as_json)


def _show_subscriber(subscriber: Subscriber, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "subscriber": text_of(subscriber.subscriber_id),
                "account": text_of(subscriber.account_id),
                "plan": subscriber.plan,
                "identities": [
                    {"type": IdentityType(kind).name.lower(), "value": text_of(value)}
                    for kind, value in subscriber.identities
                ],
            }
        )
        return
    console().print(
        f"{text_of(subscriber.subscriber_id)}: account {text_of(subscriber.account_id)}, plan {subscriber.plan}"
    )
    for kind, value in subscriber.identities:
        console().print(f"  {subscribers.describe_identity(kind, value)}")
