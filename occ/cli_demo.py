"""The commands that show on a running server what it does."""

from typing import Annotated

import typer

from occ.cli_noc import watch_traffic
from occ.cli_shell import Invocation, RefusedError, console, on_store, settings_of
from occ.rating.catalogue import load_catalogue

demo_app = typer.Typer(no_args_is_help=True, help="What the server does, played.")


@demo_app.command("policies")
def policies(context: typer.Context) -> None:
    """Play a prepaid subscriber from full to zero, below zero, to the limit and to a top-up; print what all are told.

    On the running server of the settings, with the rules that come with the project.
    """
    # Only this command needs the simulators.
    from occ.cli_demonstration import PolicyPlay  # noqa: PLC0415
    from simulators.client import SimulationError  # noqa: PLC0415

    settings = settings_of(context)
    catalogue = load_catalogue(settings.catalogue)
    try:
        on_store(context, lambda store: PolicyPlay(store, settings, catalogue, console()).run())
    except SimulationError as error:
        raise RefusedError(str(error)) from error


@demo_app.command("noc")
def noc(
    context: typer.Context,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Sessions per second of each simulator.")] = 4.0,
    prometheus_port: Annotated[int, typer.Option(min=1, max=65535, help="Where Prometheus is to listen.")] = 9090,
) -> None:
    """Start a server with simulated traffic and, where it is installed, Prometheus; print where to look.

    The settings and OCC_... variables of `occ serve` apply.
    """
    watch_traffic(console(), context.ensure_object(Invocation).config, rate, prometheus_port)
