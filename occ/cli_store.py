"""Commands on the store as a whole: backup, the check of one, and restore (``balance.snapshot``)."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from balance.embedded import EmbeddedRedis, EmbeddedSettings
from balance.migrations import FORMAT
from balance.snapshot import Contents, backup, check, restore_embedded, restore_external
from balance.store import Store, StoreSettings
from balance.verify import Report
from occ.cli_ledger import show_report
from occ.cli_shell import (
    REFUSED,
    AsJson,
    admitted,
    console,
    on_store,
    print_json,
    quiet_logs,
    settings_of,
    store_address,
)
from occ.clock import now_ms
from occ.settings import Settings

store_app = typer.Typer(no_args_is_help=True, help="Back up the store, and restore it.")

Written = Annotated[Path, typer.Argument(help="File to write; it must not be there.", metavar="FILE")]
Backup = Annotated[Path, typer.Argument(help="A file that `occ store backup` has written.", metavar="FILE")]


@store_app.command("backup")
def backup_store(context: typer.Context, file: Written, as_json: AsJson = False) -> None:
    """Write the running store, as of one moment, to a file; then read that back and check the ledger in it.

    Charging goes on meanwhile. Exit code 1 if the ledger is inconsistent; the file is written all the same.
    """
    settings = settings_of(context)
    on_store(context, _nothing)

    async def work() -> tuple[Contents, Report]:
        address = await store_address(settings)
        binary = settings.store.server_binary
        return await backup(address, file, settings.store.partitions, server_binary=binary, now_ms=now_ms())

    _run(work(), f"{file} is written.", as_json)


@store_app.command("check")
def check_backup(context: typer.Context, file: Backup, as_json: AsJson = False) -> None:
    """Read a backup whole and check that it holds what it says; exit code 1 if its ledger is inconsistent."""
    binary = settings_of(context).store.server_binary
    _run(check(file, server_binary=binary), f"{file} is whole.", as_json)


@store_app.command("restore")
def restore_store(context: typer.Context, file: Backup, as_json: AsJson = False) -> None:
    """Make the store of the settings from a backup, while no server runs. It must be empty; a failure leaves it so.

    Where the settings want a token, it is one that the backup knows.
    """
    settings = settings_of(context)
    if settings.cli.tokens == "required":
        _admit_to(context, settings, file)
    address = settings.store.address
    where = str(settings.store.redis_dir) if address is None else address.url
    _run(_restored(settings, file), f"{where} is restored from {file}.", as_json)


def _admit_to(context: typer.Context, settings: Settings, file: Path) -> None:
    """An empty store knows nobody: the backup says who may restore it.

    Raises RefusedError, and as ``restore_embedded``.
    """
    binary, data_dir = settings.store.server_binary, settings.store.data_dir

    async def checked() -> None:
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=data_dir) as folder:
            contents, _ = await restore_embedded(file, Path(folder) / "redis", server_binary=binary)
            async with EmbeddedRedis(EmbeddedSettings(data_dir=Path(folder) / "redis", server_binary=binary)) as server:
                store = Store(StoreSettings(server.address, contents.partitions))
                await store.start()
                try:
                    await admitted(context, store, settings)
                finally:
                    await store.stop()

    quiet_logs()
    data_dir.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(checked())


async def _restored(settings: Settings, file: Path) -> tuple[Contents, Report]:
    store = settings.store
    address = store.address
    if address is None:
        return await restore_embedded(file, store.redis_dir, server_binary=store.server_binary)
    return await restore_external(file, address, store.partitions, server_binary=store.server_binary)


@store_app.command("migrate")
def migrate_store(context: typer.Context) -> None:
    """Bring the data of an earlier version to the format of this one, and say which that is. Servers do it at start."""
    quiet_logs()
    on_store(context, _nothing)
    console().print(f"The data are of format {FORMAT}.")


async def _nothing(store: Store) -> None:
    """A backup has a connection of its own; but that it was asked for, and by whom, is looked at and noted first."""


def _run(work: Coroutine[Any, Any, tuple[Contents, Report]], done: str, as_json: bool) -> None:
    quiet_logs()
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        contents, report = runner.run(work)
    if as_json:
        print_json({**contents.as_dict(), "consistent": report.consistent, "discrepancies": report.discrepancies})
    else:
        console().print(f"{done} It is of {contents.created}, {contents.octets} octets, SHA-256 {contents.sha256}.")
        show_report(report)
    if not report.consistent:
        raise typer.Exit(REFUSED)
