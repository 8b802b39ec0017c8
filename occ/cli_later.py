"""Commands that are loaded when they are called for, so that ``occ --help`` and small commands start at once.

A group lists its commands by name, with where each is and the first lines of its help. Loading one imports its module,
and with it what that needs of store, protocols and rating.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command_from_info, get_group_from_info
from typer.models import CommandInfo, TyperInfo


class Later(NamedTuple):
    """Where a command or a group of commands is, and what ``--help`` of its parent says of it."""

    module: str
    name: str
    """A function that is a command, or a ``typer.Typer``."""
    help: str
    """The first paragraph of its help."""
    context_settings: dict[str, Any] | None = None


class LaterGroup(TyperGroup):
    """A group some of whose commands are loaded when they are called for."""

    later: ClassVar[Mapping[str, Later]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._unloaded = dict(self.later)
        self._listing = False
        for name, command in self.later.items():
            # What stands in for it in lists; it is never called.
            self.add_command(
                get_command_from_info(
                    CommandInfo(name=name, callback=_nothing, help=command.help),
                    pretty_exceptions_short=False,
                    rich_markup_mode=self.rich_markup_mode,
                )
            )

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, loaded unless it is for a list."""
        if cmd_name in self._unloaded and not self._listing:
            self.add_command(self._loaded(cmd_name, self._unloaded.pop(cmd_name)))
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, which lists commands without loading them."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def _loaded(self, name: str, command: Later) -> Any:
        found = getattr(import_module(command.module), command.name)
        how: dict[str, Any] = {"pretty_exceptions_short": False, "rich_markup_mode": self.rich_markup_mode}
        if isinstance(found, typer.Typer):
            return get_group_from_info(TyperInfo(found, name=name), suggest_commands=self.suggest_commands, **how)
        return get_command_from_info(
            CommandInfo(name=name, callback=found, context_settings=command.context_settings), **how
        )


def loading(**commands: Later) -> type[LaterGroup]:
    """A class of groups with these commands."""
    return type("LoadingGroup", (LaterGroup,), {"later": named(**commands)})


def named(**commands: Later) -> dict[str, Later]:
    """Commands by their names: ``_`` stands for ``-``, and at the end of a name for nothing."""
    return {name.rstrip("_").replace("_", "-"): command for name, command in commands.items()}


def _nothing() -> None:
    """What stands in for a command that is not loaded."""
