"""``occ simulate policy-node``: a PCRF that shows live what it is told of policy counters."""

import asyncio
import json
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from occ.cli_shell import AsJson, RefusedError, WrongUsageError, quiet_logs, settings_of

if TYPE_CHECKING:
    from simulators.policy_node import Heard


def policy_node(
    context: typer.Context,
    subscribers: Annotated[list[str], typer.Argument(help="MSISDNs to subscribe for.")],
    host: Annotated[str | None, typer.Option(help="Server; left out: where the settings say it listens.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Its Diameter port; left out: that of the settings.")
    ] = None,
    counter: Annotated[list[str] | None, typer.Option(help="A policy counter; left out: all there are.")] = None,
    origin_host: Annotated[str, typer.Option(help="Diameter identity of the node.")] = "pcrf1.simulator.example.net",
    seconds: Annotated[float, typer.Option(min=0, help="End after so long; 0: with Ctrl-C.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Subscribe to policy counters over Diameter Sy, and print each status and change as it comes.

    With --json each line is one JSON document. Ctrl-C ends the subscriptions and the command.
    """
    from simulators.client import SimulationError  # noqa: PLC0415 - only the simulators need them
    from simulators.policy_node import PolicyNodeOptions, follow  # noqa: PLC0415

    diameter = settings_of(context).diameter
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    options = PolicyNodeOptions(
        host=host or everywhere.get(diameter.host, diameter.host),
        port=port or diameter.port,
        origin_host=origin_host,
        destination_realm=diameter.origin_realm,
    )

    def on_heard(heard: "Heard") -> None:
        for line in _lines(heard, as_json):
            typer.echo(line)

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stopping.set)
        if seconds:
            loop.call_later(seconds, stopping.set)
        await follow(options, subscribers, counter or (), on_heard, stopping)

    quiet_logs()
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            runner.run(run())
        except SimulationError as error:
            raise RefusedError(str(error)) from error
        except ValueError as error:  # a name that is none
            raise WrongUsageError(str(error)) from error


def _lines(heard: "Heard", as_json: bool) -> list[str]:
    now = datetime.now(UTC)
    if as_json:
        told = [
            {
                "counter": report.identifier,
                "status": report.status,
                "pending": [{"status": status, "from": _time(from_s)} for status, from_s in report.pending],
            }
            for report in heard.reports
        ]
        at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return [json.dumps({"at": at, "subscriber": heard.session.subscriber, "what": heard.what, "counters": told})]
    head = f"{now:%H:%M:%S}.{now.microsecond // 1000:03d}  {heard.session.subscriber}  {heard.what}"
    return [
        f"{head}  {report.identifier} = {report.status}"
        + "".join(f", {status} from {_time(from_s)}" for status, from_s in report.pending)
        for report in heard.reports
    ] or [head]


def _time(unix_seconds: int) -> str:
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
