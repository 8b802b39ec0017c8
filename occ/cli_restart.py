"""The command ``occ restart``: all workers replaced, one after the other, without a failed request."""

import os
import signal
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from occ.cli_shell import AsJson, RefusedError, console, on_store, print_json, settings_of, table
from occ.workers_file import RunningWorkers, running_workers
from occ.yamlmap import shown

if TYPE_CHECKING:
    from balance.store import Store

LOOK_S: Final = 0.1


def restart(
    context: typer.Context,
    wait: Annotated[
        float, typer.Option("--wait", min=0.0, max=86_400.0, help="Seconds to wait for the end of it; 0: not at all.")
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Replace all workers by new processes, one after the other: new code, new settings, no failed request.

    For a server that was started with workers (occ serve --workers 2); one is enough.
    """
    data_dir = settings_of(context).store.data_dir
    running = running_workers(data_dir)
    if running is None:
        raise RefusedError(
            f"no workers run by the data in {shown(data_dir)}: 'occ serve --workers 1' starts a server that can be "
            "restarted in this way; one without has to be stopped and started"
        )
    wanted = running.replacements.asked + 1

    async def ask(_: "Store") -> None:
        """No worker can be replaced while the store is away; and the audit log, which is there, has to know."""
        os.kill(running.pid, signal.SIGUSR1)

    on_store(context, ask)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        now = running_workers(data_dir)
        if now is None or now.pid != running.pid:
            raise RefusedError("the supervisor of the workers has ended meanwhile; its log says why")
        if now.replacements.finished >= wanted:
            _show(now, as_json)
            return
        time.sleep(LOOK_S)
    if wait:
        raise RefusedError(f"the workers are not replaced within {wait:g} s; it goes on, the server's log tells how")


def _show(running: RunningWorkers, as_json: bool) -> None:
    """Raises RefusedError if the replacement was given up."""
    mistake = running.replacements.mistake
    if mistake:
        raise RefusedError(mistake)
    if as_json:
        workers: list[dict[str, Any]] = [
            {"origin_host": each.origin_host, "pid": each.pid, "port": each.port} for each in running.workers
        ]
        print_json({"workers": workers})
        return
    lines = table("worker", "Origin-Host", ">Diameter port", "metrics", ">process")
    for each in running.workers:
        lines.add_row(str(each.number), each.origin_host, str(each.port), each.metrics, str(each.pid))
    console().print(lines)
    console().print(f"{len(running.workers)} workers replaced.")
