"""The management API: the process itself, its tokens, and the audit log."""

import asyncio
import errno
import json
import os
import sys
from typing import Annotated, Final

import typer

from balance.audit import Act, acts
from balance.store import Store
from balance.tokens import Role, Token, create_token, revoke_token, tokens
from occ.cli_account_view import time_ms
from occ.cli_shell import (
    AsJson,
    Limit,
    RefusedError,
    console,
    on_store,
    print_json,
    settings_of,
    store_address,
    table,
    time_text,
    user_name,
)
from occ.clock import now_ms
from occ.yamlmap import nearest

api_app = typer.Typer(help="The management API: run it, and look after its tokens.")
token_app = typer.Typer(no_args_is_help=True, help="Tokens of the API.")
audit_app = typer.Typer(no_args_is_help=True, help="Who did what.")
api_app.add_typer(token_app, name="token")

ROLES: Final = {role.name.lower(): role for role in Role}


@api_app.callback(invoke_without_command=True)
def serve(context: typer.Context, as_json: AsJson = False) -> None:
    """Run the management API until it is stopped with Ctrl-C or SIGTERM; without a further command.

    The server has to run, as it has the store. Where the API listens stands in the settings: api.host and api.port.
    """
    if context.invoked_subcommand is not None:
        return
    settings = settings_of(context)
    address = asyncio.run(store_address(settings))
    from occ.api.server import run  # noqa: PLC0415 - the other commands start without loading it

    host = f"[{settings.api.host}]" if ":" in settings.api.host else settings.api.host
    scheme = "http" if settings.api.certificate is None else "https"

    def announce(port: int) -> None:
        url = f"{scheme}://{host}:{port}"
        if as_json:
            typer.echo(json.dumps({"url": url, "pid": os.getpid()}))
        else:
            console().print(f"API       {url}, described at {url}/docs and {url}/openapi.json")
            console().print("A token for it: occ api token create NAME --role viewer")
        sys.stdout.flush()

    try:
        run(settings, address, announce)
    except SystemExit as error:  # uvicorn's way to say that it cannot listen
        raise RefusedError(
            f"cannot listen at {host}:{settings.api.port}; stop what uses it, or set api.port"
        ) from error
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise RefusedError(f"cannot listen at {host}:{settings.api.port}: {os.strerror(error.errno)}") from error
        raise


# -- tokens ------------------------------------------------------------------------------------------------------


@token_app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Who uses it, such as crm.")],
    role: Annotated[str, typer.Option(help=f"{', '.join(ROLES)}; each may do what those before it may.")],
    valid_for: Annotated[str | None, typer.Option(help="Such as '90 d'; left out: until it is revoked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and show it, this once."""
    if role not in ROLES:
        raise typer.BadParameter(f"{role[:40]!r} is not one of {', '.join(ROLES)}{nearest(role, ROLES)}")
    lasts_ms = None if valid_for is None else time_ms(valid_for, "--valid-for")

    async def work(store: Store) -> tuple[Token, str]:
        now = now_ms()
        expires_ms = 0 if lasts_ms is None else now + lasts_ms
        by = f"cli {user_name()}"
        return await create_token(store, name, ROLES[role], now_ms=now, by=by, expires_ms=expires_ms)

    made, written = on_store(context, work)
    if as_json:
        print_json({"id": made.token_id, "name": made.name, "role": role, "token": written})
        return
    console().print(f"Token {made.token_id} for {made.name}, role {role}. It is shown this once:", soft_wrap=True)
    typer.echo(written)


@token_app.command("list")
def list_tokens(context: typer.Context, as_json: AsJson = False) -> None:
    """All tokens, without their secrets."""
    found = on_store(context, tokens)
    if as_json:
        from occ.api.administration import token_json  # noqa: PLC0415 - as above

        print_json([token_json(each) for each in found])
        return
    shown = table("token", "name", "role", "made (UTC)", "by", "expires (UTC)")
    for each in found:
        made, expires = time_text(each.created_ms), time_text(each.expires_ms)
        shown.add_row(each.token_id, each.name, each.role.name.lower(), made, each.created_by, expires)
    if found:
        console().print(shown)
    console().print(f"{len(found)} tokens.")


@token_app.command("revoke")
def revoke(context: typer.Context, token: Annotated[str, typer.Argument(metavar="ID", help="As listed.")]) -> None:
    """Have a token be none any more, at once."""
    on_store(context, lambda store: revoke_token(store, token))
    console().print(f"Token {token} is none any more.")


# -- audit log ---------------------------------------------------------------------------------------------------


@audit_app.command("list")
def list_acts(
    context: typer.Context,
    who: Annotated[str, typer.Option(help="Only acts of those whose name has this in it.")] = "",
    on: Annotated[str, typer.Option(help="Only acts that concerned what has this in it.")] = "",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Administrative acts of command line and API, the newest last."""

    async def work(store: Store) -> list[Act]:
        return await acts(store, limit, who, on)

    found = list(reversed(on_store(context, work)))
    if as_json:
        from occ.api.administration import act_json  # noqa: PLC0415 - as above

        print_json([act_json(each) for each in found])
        return
    shown = table("when (UTC)", "who", "from", "what", "on", "result")
    for each in found:
        shown.add_row(time_text(each.at_ms), each.who, each.source, each.what, each.on, each.result or "cut off")
    if found:
        console().print(shown)
    console().print(f"{len(found)} acts.")
