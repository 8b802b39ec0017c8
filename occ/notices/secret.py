"""Secrets: settings say where one is, a file or an environment variable, never what it is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LONGEST: Final = 8192


class SecretError(Exception):
    """A secret is not where the settings say; the message is one sentence without it."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Where one secret is."""

    setting: str
    """Name of the setting without ``_file`` and ``_env``."""
    file: Path | None
    env: str | None

    def check(self) -> None:
        """Raises ValueError if the settings do not say where it is."""
        if self.file is None and self.env is None:
            raise ValueError(f"{self.setting} is needed: name a file with {self.setting}_file, or an environment "
                             f"variable with {self.setting}_env")  # fmt: skip

    def read(self, environ: Mapping[str, str] | None = None) -> str:
        """The secret, without the line's end of a file; empty if the settings name none. Raises SecretError."""
        if self.env is not None:
            value = (os.environ if environ is None else environ).get(self.env, "")
            where = f"the environment variable {self.env}"
        elif self.file is not None:
            where = str(self.file)
            try:
                value = self.file.read_bytes()[: LONGEST + 1].decode("utf-8").rstrip("\r\n")
            except OSError as error:
                reason = (error.strerror or "it cannot be read").lower()
                raise SecretError(f"{self.setting}_file: {where}: {reason}") from None
            except UnicodeDecodeError:
                raise SecretError(f"{self.setting}_file: {where} is not UTF-8 text") from None
        else:
            return ""
        if not value or len(value) > LONGEST or not value.isprintable():
            raise SecretError(f"{self.setting}: {where} holds no secret of one line")
        return value
