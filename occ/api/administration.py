"""Tokens and the audit log."""

from typing import Annotated, Any, Literal

from fastapi import Query, Request
from pydantic import AwareDatetime, StringConstraints
from starlette.responses import Response

from balance.audit import Act, acts
from balance.tokens import Role, Token, create_token, revoke_token, tokens
from occ.api.access import caller_of, router, takes
from occ.api.accounts import BASE, Given
from occ.api.context import context_of
from occ.api.errors import not_found
from occ.api.exact_json import ExactResponse
from occ.api.queries import Limit, moment_ms
from occ.cli_shell import time_json

office = router(BASE, "administration")


class NewToken(Given):
    name: Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,64}$")]
    role: Literal["viewer", "care", "operator", "admin"]
    expires: AwareDatetime | None = None


@office.get("/tokens", openapi_extra=takes(Role.ADMIN))
async def list_tokens(request: Request) -> Response:
    """All tokens, without their secrets."""
    return ExactResponse([token_json(each) for each in await tokens(context_of(request).store)])


@office.post("/tokens", status_code=201, openapi_extra=takes(Role.ADMIN))
async def make_token(request: Request, body: NewToken) -> Response:
    """Make a token. It is in the answer and never shown again."""
    context, caller = context_of(request), caller_of(request)
    made, written = await create_token(
        context.store,
        body.name,
        Role[body.role.upper()],
        now_ms=context.clock(),
        by=caller.name,
        expires_ms=0 if body.expires is None else moment_ms(body.expires.isoformat(), "expires"),
    )
    caller.concerned = f"token {made.token_id} ({made.name}), {body.role}"
    return ExactResponse(token_json(made) | {"token": written}, 201)


@office.delete("/tokens/{id}", status_code=204, openapi_extra=takes(Role.ADMIN))
async def end_token(request: Request, id: str) -> Response:  # noqa: A002 - as in the other resources
    """Revoke a token at once."""
    store = context_of(request).store
    if id not in {each.token_id for each in await tokens(store)}:
        raise not_found(f"there is no token {id[:40]}")
    await revoke_token(store, id)
    return Response(status_code=204)


@office.get("/audit", openapi_extra=takes(Role.ADMIN))
async def list_acts(
    request: Request,
    who: Annotated[str, Query(max_length=100, description="Only acts of those whose name has this in it.")] = "",
    on: Annotated[str, Query(max_length=100, description="Only acts that concerned what has this in it.")] = "",
    limit: Limit = 100,
) -> Response:
    """Administrative acts, newest first: who, what, on what, with what result."""
    return ExactResponse([act_json(each) for each in await acts(context_of(request).store, limit, who, on)])


def token_json(token: Token) -> dict[str, Any]:
    """A token as plain data for JSON, without its secret."""
    return {
        "id": token.token_id,
        "name": token.name,
        "role": token.role.name.lower(),
        "created": time_json(token.created_ms),
        "created_by": token.created_by,
        "expires": time_json(token.expires_ms),
    }


def act_json(act: Act) -> dict[str, Any]:
    """An act as plain data for JSON."""
    return {
        "at": time_json(act.at_ms),
        "who": act.who,
        "role": act.role,
        "from": act.source or None,
        "what": act.what,
        "on": act.on,
        "result": act.result or None,
    }
