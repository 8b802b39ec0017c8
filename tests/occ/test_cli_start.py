"""Commands start at once: what a command does not need is not loaded for it, and what lists say of it is true."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from occ.cli import app
from occ.cli_later import LaterGroup

PROJECT = Path(__file__).parents[2]
HEAVY = (
    "asyncio",
    "babel",
    "balance.store",
    "fastapi",
    "hiredis",
    "httpx",
    "jinja2",
    "msgpack",
    "occ.rating.catalogue",
    "prometheus_client",
    "protocols",
    "redis",
    "uvicorn",
    "uvloop",
    "yaml",
)
SERVING = (
    "fastapi",
    "babel",
    "httpx",
    "prometheus_client",
    "protocols.diameter.codec",
    "simulators",
    "uvicorn",
    "uvloop",
)
"""What commands on accounts do not need."""


def loaded(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    program = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, sep='\\n', file=sys.stderr));"
        "from occ.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["nothing"]])
def test_what_needs_no_store_loads_none(arguments: list[str]) -> None:
    modules = loaded(*arguments)
    assert "occ.cli" in modules
    assert not modules & set(HEAVY)


def test_commands_on_accounts_load_no_server(tmp_path: Path) -> None:
    (tmp_path / "occ.yaml").write_text("store: {mode: external, url: 'redis://127.0.0.1:1'}\n")
    modules = loaded("--config", str(tmp_path / "occ.yaml"), "account", "show", "a")
    assert "balance.store" in modules
    assert not modules & set(SERVING)


def groups(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, group
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from groups(command, (*path, name))


def test_every_command_that_is_loaded_later_is_there_and_is_what_its_list_says() -> None:
    tried = 0
    for path, group in groups(typer.main.get_command(app)):
        assert group.help, path
        if not isinstance(group, LaterGroup):
            continue
        for name, later in group.later.items():
            command = group.get_command(None, name)
            assert command.name == name
            assert command.help.split("\n\n")[0].replace("\n", " ") == later.help, (*path, name)
            tried += 1
    assert tried > 30
