"""Who may run which command, where the settings ask commands for a token (``cli.tokens: required``).

Tokens and roles are those of the management API (``balance.tokens``). The token stands in the environment
variable ``OCC_TOKEN``, or in the file that ``OCC_TOKEN_FILE`` names: never in the command line, which others can list.
This keeps people who share a machine to their jobs; who can reach Redis past the command line is kept out by Redis
itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from balance import attempts
from balance.store import Store
from balance.tokens import Role, Token, find_token, tokens
from occ.cli_shell import LOOKING, RefusedError
from occ.settings import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE

FIRST: Final = "api token create"
"""What takes no token as long as nobody has one with the role for it: somebody has to be the first."""

_ROLES: Final = {
    "api token": Role.ADMIN,
    "audit": Role.ADMIN,
    "catalogue reload": Role.OPERATOR,
    "policy reload": Role.OPERATOR,
    "voucher create": Role.OPERATOR,
    "voucher block": Role.OPERATOR,
    "sessions abort": Role.OPERATOR,
    "ledger": Role.OPERATOR,
    "store": Role.OPERATOR,
    "import": Role.OPERATOR,
    "export": Role.OPERATOR,
    "trace": Role.OPERATOR,
    "restart": Role.OPERATOR,
    "cdr export": Role.OPERATOR,
    "sessions watch": Role.VIEWER,
}
"""By command, or group of commands; of all others those that look take a viewer, those that act take care."""


def role_of(command: str) -> Role:
    """The role that a command takes, ``account top-up`` or ``api token list``."""
    words = command.split()
    for length in range(len(words), 0, -1):
        found = _ROLES.get(" ".join(words[:length]))
        if found is not None:
            return found
    return Role.VIEWER if words and words[-1] in LOOKING else Role.CARE


async def admit(store: Store, command: str, user: str, now_ms: int, environ: Mapping[str, str]) -> Token | None:
    """The token that a command is run with; None: it is the one that makes the first token.

    Raises RefusedError if it takes another role, or there is no such token; StoreError.
    """
    needed = role_of(command)
    written = _written(environ)
    if not written:
        if command == FIRST and not any(each.role >= needed for each in await tokens(store)):
            return None
        raise RefusedError(
            f"this takes a token with the role {needed.name.lower()} (cli.tokens is required): set {TOKEN_VARIABLE}, "
            f"or {TOKEN_FILE_VARIABLE} to the name of a file that has it"
        )
    token = await find_token(store, written, now_ms)
    if token is None:
        wait_ms = await attempts.begin_try(store, attempts.TOKENS, f"cli {user}")
        if wait_ms:
            raise RefusedError(f"too many wrong tokens; try again in {-(-wait_ms // 1000)} s")
        raise RefusedError("the token is not known, has expired or was revoked; 'occ api token create' makes one")
    if token.role < needed:
        raise RefusedError(f"this takes the role {needed.name.lower()}, and the token has {token.role.name.lower()}")
    return token


def _written(environ: Mapping[str, str]) -> str:
    """The token as the user gave it, or nothing. Raises OSError for a file that cannot be read."""
    written = environ.get(TOKEN_VARIABLE, "").strip()
    named = environ.get(TOKEN_FILE_VARIABLE, "")
    return Path(named).read_text(encoding="utf-8").strip() if named and not written else written
