"""What all commands share: settings, the store, and how results, amounts and refusals are shown.

Results go to standard output, as tables or, with ``--json``, as one JSON document; everything else goes to standard
error. Exit codes: 0 done, 1 refused or inconsistent, 2 wrong usage or configuration, 70 a fault of
the program itself.
"""

import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperGroup

from balance.accounts import Account
from balance.model import Bucket, LedgerError, Unit
from occ.clock import now_ms
from occ.rating.currency import currency_name, format_amount, parse_amount

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from balance.embedded import Address
    from balance.store import Store
    from balance.tokens import Token
    from occ.settings import Settings

T = TypeVar("T")

REFUSED: Final = 1
USAGE: Final = 2
FAULT: Final = 70
"""The exit code of sysexits.h for a fault of the program itself."""
PIPE_WIDTH: Final = 200
"""Columns of a table that does not go to a terminal."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

LARGEST_LIST: Final = 100_000

BINARY_SIZES: Final = {"TiB": 1024**4, "GiB": 1024**3, "MiB": 1024**2, "KiB": 1024}

LOOKING: Final = frozenset(
    (
        "show",
        "list",
        "history",
        "transfers",
        "verify",
        "closed",
        "explain",
        "tree",
        "export",
        "rate",
        "budgets",
        "events",
        "why",
        "top",
    )
)
"""Commands that change nothing, by their last word; all others are in the audit log."""
UNTOLD: Final = frozenset(("as_json", "code"))
"""Parameters that the audit log does not repeat: codes are money."""

Limit = Annotated[int, typer.Option(min=1, max=LARGEST_LIST, help="Show so many at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


class RefusedError(Exception):
    """A command cannot or will not do what it was asked; the message is one sentence."""


class WrongUsageError(Exception):
    """The command line does not say what to do; the message is one sentence."""


@dataclass(slots=True)
class Invocation:
    """The options that stand before the command."""

    config: Path | None = None


class OneSentenceGroup(TyperGroup):
    """The root of the commands: whatever goes wrong becomes one sentence on standard error and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            code = complain(*(_told(error) or (_fault(error), FAULT)))
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> tuple[str, int] | None:
    """What is said of an error, and the exit code; None: it is a fault of ours."""
    # Typer's own errors, which it has moved from module to module between versions.
    if hasattr(error, "format_message"):
        return error.format_message(), getattr(error, "exit_code", USAGE)
    from balance.embedded import EmbeddedRedisError
    from balance.resp import StoreError
    from occ.away_journal import AwayJournalError
    from occ.yamlmap import ConfigError

    if isinstance(error, ConfigError | WrongUsageError):
        return str(error), USAGE
    if isinstance(error, RefusedError | LedgerError | StoreError | EmbeddedRedisError | AwayJournalError):
        return str(error), REFUSED
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error), REFUSED
    return None


def _fault(error: Exception) -> str:
    """What is said of an error that nobody has foreseen; where it happened is kept in a file."""
    import tempfile
    import traceback

    told = f"{type(error).__name__}: {error}"[:200]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="occ-fault-", suffix=".txt", delete=False) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return f"this is a fault of occ itself ({told}); please report it"
    return f"this is a fault of occ itself ({told}); please report it, with the file {file.name}"


def complain(sentence: str, code: int) -> int:
    """Say what is wrong on standard error; the exit code to leave with."""
    if sentence.strip():
        typer.echo(f"occ: {' '.join(sentence.split())}", err=True)
    return code


def settings_of(context: typer.Context) -> "Settings":
    """The settings, from the file the user named, else where settings are looked for. Raises ConfigError."""
    from occ.settings import load

    return load(context.ensure_object(Invocation).config)


def on_store(context: typer.Context, work: "Callable[[Store], Awaitable[T]]") -> T:
    """Do something with the store of the settings. Raises RefusedError if it does not run, and what ``work`` raises.

    What it changes is watched by the rules in force, as in a server.
    """
    import asyncio

    from balance.store import Store, StoreSettings
    from occ.policy.watching import watch_by_rules_in_force

    settings = settings_of(context)

    async def connected() -> T:
        store = Store(StoreSettings(await store_address(settings), settings.store.partitions))
        await store.start()
        try:
            token = await admitted(context, store, settings)
            await watch_by_rules_in_force(store)
            if context.command.name in LOOKING:
                return await work(store)
            return await _audited(context, store, work, token)
        finally:
            await store.stop()

    quiet_logs()
    # A loop of its own, so that a program that calls this keeps the one it has.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(connected())


def admit_to_files(context: typer.Context) -> None:
    """Before a command reads files and asks no store: as it would be admitted to the store. Raises RefusedError.

    Where the settings want no token and the store does not run, nobody says that one is needed: files may be read on
    any machine that has them.
    """
    import asyncio

    from balance.resp import StoreError
    from balance.store import Store, StoreSettings

    settings = settings_of(context)

    async def checked() -> None:
        try:
            store = Store(StoreSettings(await store_address(settings), settings.store.partitions))
            await store.start()
        except (RefusedError, StoreError, OSError) as error:
            if settings.cli.tokens == "required":
                raise RefusedError(f"cli.tokens is required, and tokens are in the store: {error}") from error
            return
        try:
            await admitted(context, store, settings)
        finally:
            await store.stop()

    quiet_logs()
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(checked())


def command_of(context: typer.Context) -> str:
    """What was called, ``account top-up``."""
    return " ".join(context.command_path.split()[1:])


async def admitted(context: typer.Context, store: "Store", settings: "Settings") -> "Token | None":
    """The token that a command is run with, where the settings ask for one, or those of the server that runs.

    Whoever runs a command chooses its settings. Raises RefusedError without a good token, StoreError.
    """
    from balance.keys import CLI_TOKENS, LAYOUT

    if settings.cli.tokens != "required" and await store.call("HGET", LAYOUT, CLI_TOKENS) != b"required":
        return None
    from occ.cli_roles import admit

    return await admit(store, command_of(context), user_name(), now_ms(), os.environ)


async def _audited(
    context: typer.Context, store: "Store", work: "Callable[[Store], Awaitable[T]]", token: "Token | None"
) -> T:
    """Carry an act out between its two entries in the audit log. Without the first it is not carried out."""
    from balance.audit import begin_act, end_act
    from balance.resp import StoreError

    told = [f"{name} {value}" for name, value in context.params.items() if value and name not in UNTOLD]
    entry = await begin_act(
        store,
        at_ms=now_ms(),
        who=f"cli {user_name()}" + (f", token {token.token_id} ({token.name})" if token else ""),
        role=token.role.name.lower() if token else "",
        source="",
        what=f"occ {command_of(context)}",
        on=text_of(name_octets(", ".join(told))),
    )
    result = "failed"
    try:
        done = await work(store)
        result = "done"
        return done
    except (RefusedError, WrongUsageError, LedgerError, StoreError) as error:
        result = f"refused: {error}"
        raise
    finally:
        with suppress(StoreError):
            await end_act(store, entry, at_ms=now_ms(), result=result)


def user_name() -> str:
    """Who runs this command, as the system knows it."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def quiet_logs() -> None:
    """Keep what the libraries log off the terminal: a command says itself, in one sentence, what went wrong."""
    import logging

    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())


async def store_address(settings: "Settings") -> "Address":
    """Where the store of the settings is. Raises RefusedError if it does not run."""
    from balance.embedded import find_running
    from occ.yamlmap import shown

    address = settings.store.address
    if address is not None:
        return address
    address = await find_running(settings.store.redis_dir)
    if address is None:
        raise RefusedError(
            f"the embedded Redis server of {shown(settings.store.redis_dir)} is not running; "
            "start the server first, with 'make run' or 'occ serve'"
        )
    return replace(address, hangs_after_ms=settings.store.hangs_after_ms)


async def existing_account(store: "Store", account: str) -> Account:
    """The account of that name. Raises LedgerError if there is none."""
    from balance.directory import read_account

    found = await read_account(store, name_octets(account))
    if found is None:
        raise LedgerError(f"there is no account {account}")
    return found


# -- output ------------------------------------------------------------------------------------------------------


def console(*, stderr: bool = False) -> "Console":
    """Where tables go; wide enough for whole lines when nobody watches."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)
    return made


def print_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2))


def table(*columns: str) -> "Table":
    """An empty table; a column whose name starts with ">" is aligned to the right, one without names has no head."""
    from rich.table import Table

    made = Table(show_header=any(columns), header_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return made


def text_of(value: bytes) -> str:
    """An identifier for people: clients may send anything, what a terminal would obey too."""
    text = value.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(_visible(letter) for letter in text)


def _visible(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


def time_text(at_ms: int) -> str:
    """'2026-01-31 12:00:00.000' in UTC; 'never' for 0."""
    if not at_ms:
        return "never"
    try:
        return (_EPOCH + timedelta(milliseconds=at_ms)).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except OverflowError:
        return f"{at_ms} ms after 1970"


def time_json(at_ms: int) -> str | None:
    """ISO 8601 with milliseconds, UTC; None for 0."""
    return f"{time_text(at_ms).replace(' ', 'T')}Z" if at_ms else None


def units_text(units: int, unit: Unit, currency: int) -> str:
    """'10.00 EUR', '5 MiB', '90 s' or '3 events', always exact."""
    if unit == Unit.MONEY:
        return f"{format_amount(units)} {currency_name(currency)}"
    if unit == Unit.SECONDS:
        return f"{units} s"
    if unit == Unit.EVENTS:
        return f"{units} event{'' if units == 1 else 's'}"
    for name, octets in BINARY_SIZES.items():
        if units and units % octets == 0:
            return f"{units // octets} {name}"
    return f"{units} B"


def bucket_text(bucket: Bucket, amount: int, currency: int) -> str:
    return units_text(amount, Unit(bucket.unit), currency)


# -- input -------------------------------------------------------------------------------------------------------


def money(written: str, what: str) -> int:
    """Micro-units of an amount on the command line. Raises BadParameter naming ``what``."""
    try:
        return parse_amount(written)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=what) from None


def size(written: str, unit: Unit, what: str) -> int:
    """Units of a size on the command line. Raises BadParameter naming ``what``."""
    from occ.rating.sizes import parse_size

    try:
        return parse_size(written, unit)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=what) from None


def name_octets(written: str) -> bytes:
    """An identifier as the store keeps it."""
    return written.encode("utf-8", "surrogateescape")
