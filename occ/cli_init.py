"""The command ``occ init``: a configuration of one's own, to begin with."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from occ.cli_shell import RefusedError, console
from occ.settings import SHIPPED, default_config_path
from occ.yamlmap import shown


def init(
    directory: Annotated[Path, typer.Argument(help="Directory to make; its folder 'config' gets the files.")],
) -> None:
    """Write the configuration that comes with the program to a directory, to be changed there.

    Data goes into its folder 'data', unless the settings say otherwise.
    """
    default_config_path()
    target = directory / "config"
    if target.exists():
        raise RefusedError(f"{shown(target)} is there already; name another directory, or remove it first")
    shutil.copytree(SHIPPED, target)
    out = console()
    out.print(f"Settings, catalogue, policies and sample population are in {shown(target)}.")
    out.print(f"Start the server with: occ --config {shown(target / 'occ.yaml')} serve")
