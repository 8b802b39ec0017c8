"""Commands on contacts: how subscribers and accounts are reached, in which language, and what they want to be told."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

from balance.contacts import (
    Contact,
    change_contact,
    contact_document,
    find_recipient,
    parse_channel,
    parse_consent,
    parse_quiet,
    quiet_text,
    read_contact,
)
from balance.notices import CLASSES
from balance.store import Store
from occ.cli_shell import (
    AsJson,
    WrongUsageError,
    console,
    existing_account,
    on_store,
    print_json,
    settings_of,
    text_of,
)
from occ.cli_subscribers import found_subscriber
from occ.notices.settings import NoticesSettings
from occ.yamlmap import nearest

subscriber_contact_app = typer.Typer(no_args_is_help=True, help="How a subscriber is told what concerns it.")
account_contact_app = typer.Typer(no_args_is_help=True, help="How an account is told what concerns it.")

Language = Annotated[str | None, typer.Option(help="Such as en, es, de, ru; default: the operator's.")]
Channel = Annotated[
    list[str] | None,
    typer.Option(help="MEDIUM:ADDRESS (sms, email, telegram, webhook), the preferred one first; default: SMS."),
]
Consent = Annotated[list[str] | None, typer.Option(help=f"CLASS=yes or no; classes: {', '.join(CLASSES)}.")]
Quiet = Annotated[
    str | None, typer.Option("--quiet-hours", help="When marketing waits, such as 21:00-08:00; none; or default.")
]
Zone = Annotated[str | None, typer.Option("--time-zone", help="Such as Europe/Berlin; default: the operator's.")]
Reset = Annotated[bool, typer.Option("--reset", help="Forget what was set before; other options apply afterwards.")]

DEFAULT = "default"
"""Written for what the operator's settings say."""


@subscriber_contact_app.command("show")
def show_subscriber_contact(
    context: typer.Context,
    subscriber: Annotated[str, typer.Argument(metavar="SUBSCRIBER", help="Its name, or one of its identities.")],
    as_json: AsJson = False,
) -> None:
    """How a subscriber is reached, with what it has by default."""

    async def work(store: Store) -> tuple[str, Contact, Contact]:
        found = await found_subscriber(store, subscriber)
        stored = await read_contact(store, store.keys.contact(found.subscriber_id)) or Contact()
        recipient = await find_recipient(store, found.account_id, found.subscriber_id)
        return text_of(found.subscriber_id), stored, recipient.contact

    _show(context, *on_store(context, work), as_json)


@account_contact_app.command("show")
def show_account_contact(
    context: typer.Context, account: Annotated[str, typer.Argument(help="Account.")], as_json: AsJson = False
) -> None:
    """How an account is reached: by its own contact, else that of its first subscriber."""

    async def work(store: Store) -> tuple[str, Contact, Contact]:
        found = await existing_account(store, account)
        stored = await read_contact(store, store.keys.contact_of(found.account_id)) or Contact()
        recipient = await find_recipient(store, found.account_id, b"")
        return account, stored, recipient.contact

    _show(context, *on_store(context, work), as_json)


@subscriber_contact_app.command("set")
def set_subscriber_contact(
    context: typer.Context,
    subscriber: Annotated[str, typer.Argument(metavar="SUBSCRIBER", help="Its name, or one of its identities.")],
    language: Language = None,
    channel: Channel = None,
    consent: Consent = None,
    quiet: Quiet = None,
    time_zone: Zone = None,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Set how a subscriber is reached; what is left out stays as it is."""
    change = _change(settings_of(context).notices, language, channel, consent, quiet, time_zone, reset)

    async def work(store: Store) -> tuple[str, Contact, Contact]:
        found = await found_subscriber(store, subscriber)
        stored = await change_contact(store, store.keys.contact(found.subscriber_id), change)
        recipient = await find_recipient(store, found.account_id, found.subscriber_id)
        return text_of(found.subscriber_id), stored, recipient.contact

    _show(context, *on_store(context, work), as_json)


@account_contact_app.command("set")
def set_account_contact(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="Account.")],
    language: Language = None,
    channel: Channel = None,
    consent: Consent = None,
    quiet: Quiet = None,
    time_zone: Zone = None,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Set how an account is reached; what is left out stays as it is."""
    change = _change(settings_of(context).notices, language, channel, consent, quiet, time_zone, reset)

    async def work(store: Store) -> tuple[str, Contact, Contact]:
        found = await existing_account(store, account)
        stored = await change_contact(store, store.keys.contact_of(found.account_id), change)
        recipient = await find_recipient(store, found.account_id, b"")
        return account, stored, recipient.contact

    _show(context, *on_store(context, work), as_json)


def _change(
    settings: NoticesSettings,
    language: str | None,
    channel: list[str] | None,
    consent: list[str] | None,
    quiet: str | None,
    time_zone: str | None,
    reset: bool,
) -> Callable[[Contact], Contact]:
    """What the options make of a contact. Raises LedgerError, WrongUsageError, ConfigError."""
    if not reset and all(each is None for each in (language, channel, consent, quiet, time_zone)):
        raise WrongUsageError("say what is to be set: --language, --channel, --consent, --quiet-hours or --time-zone")
    if language not in (None, DEFAULT):
        _check_language(settings, language)
    channels = None if channel is None else () if channel == [DEFAULT] else tuple(map(parse_channel, channel))
    agreed = dict(map(parse_consent, consent or []))
    hours = None if quiet in (None, DEFAULT) else parse_quiet(quiet or "")

    def change(before: Contact) -> Contact:
        contact = Contact() if reset else before
        if language is not None:
            contact = replace(contact, language="" if language == DEFAULT else language)
        if channels is not None:
            contact = replace(contact, channels=channels)
        if agreed:
            contact = replace(contact, consent={**contact.consent, **agreed})
        if quiet is not None:
            contact = replace(contact, quiet=hours)
        if time_zone is not None:
            contact = replace(contact, time_zone="" if time_zone == DEFAULT else time_zone)
        contact.check()
        return contact

    change(Contact())  # what is wrong with the options is told before the store is asked
    return change


def _check_language(settings: NoticesSettings, language: str | None) -> None:
    from occ.notices.process import load_templates  # noqa: PLC0415 - only these commands need the texts

    languages = load_templates(settings).languages
    if language not in languages:
        raise WrongUsageError(f"there are no texts in {str(language)[:20]!r}{nearest(str(language), languages)}")


def _show(context: typer.Context, name: str, stored: Contact, used: Contact, as_json: bool) -> None:
    """``stored``: what was set; ``used``: what applies, but for the operator's defaults."""
    defaults = settings_of(context).notices.defaults
    if as_json:
        print_json({"name": name, "set": contact_document(stored), "used": contact_document(_with(used, defaults))})
        return
    out = console()
    used = _with(used, defaults)
    out.print(f"{name}: {used.language}, {used.time_zone}")
    for number, (medium, address) in enumerate(used.channels, 1):
        out.print(f"  {number}. {medium} {'+' if medium == 'sms' else ''}{address}")
    if not used.channels:
        out.print("  no address: it cannot be reached")
    for klass in CLASSES:
        out.print(f"  {klass}: {'yes' if used.wants(klass) else 'no'}")
    out.print(f"  marketing waits: {quiet_text(used.quiet or (0, 0))}")


def _with(contact: Contact, defaults: Contact) -> Contact:
    return replace(
        contact,
        language=contact.language or defaults.language,
        quiet=defaults.quiet if contact.quiet is None else contact.quiet,
        time_zone=contact.time_zone or defaults.time_zone,
    )
