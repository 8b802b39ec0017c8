"""Runs commands of ``occ`` in this process, against a real Redis."""

import json
import re
from pathlib import Path
from typing import Any

import redis
from typer.testing import CliRunner, Result

from balance.embedded import Address
from occ.cli import app
from occ.settings import default_config_path, load

APART = (b"occ:layout", b"occ:audit")
"""Keys that a refusal may change: the audit log knows of it."""


class Shell:
    """Runs commands in this process against the shared Redis server."""

    def __init__(self, directory: Path, address: Address, catalogue: str | None = None) -> None:
        """``directory`` is given the settings. ``catalogue``: its text; None: the one that comes with the project."""
        path = load(default_config_path(), environ={}).catalogue
        if catalogue is not None:
            path = directory / "catalogue.yaml"
            path.write_text(catalogue)
        self.config = directory / "occ.yaml"
        self.config.write_text(f"catalogue: {path}\nstore:\n  mode: external\n  url: {address.url}\n")
        self.address = address

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, ["--config", str(self.config), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def text(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, code: int, *arguments: str) -> str:
        """The one sentence of a refusal; it leaves the store as it was."""
        before = self.dump()
        said = self.refused_beside_a_server(code, *arguments)
        assert self.dump() == before
        return said

    def refused_beside_a_server(self, code: int, *arguments: str) -> str:
        """The same of a store that a server writes to at any time."""
        result = self.run(*arguments)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert re.fullmatch(r"occ: [^\n]+\n", result.stderr), result.stderr
        return result.stderr.removeprefix("occ: ").rstrip("\n")

    def dump(self) -> dict[bytes, bytes | None]:
        with redis.Redis.from_url(self.address.url) as client:
            return {key: client.dump(key) for key in client.keys("*") if key not in APART}
