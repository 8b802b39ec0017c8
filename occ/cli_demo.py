"""The commands that show on a running server what it does."""

import typer

from occ.cli_shell import RefusedError, console, on_store, settings_of
from occ.rating.catalogue import load_catalogue

demo_app = typer.Typer(no_args_is_help=True, help="What the server does, played on a running one.")


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
