"""Who may do what: every route says the role it takes, and is guarded and audited by its class.

A route without a role cannot be made, so none is open by oversight. Acts (anything but GET) are written into the audit
log before they begin and when they end.
"""

import logging
from base64 import b64decode
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from balance import attempts, audit
from balance.resp import StoreError
from balance.tokens import Role, Token, find_token
from occ.api.context import Context, context_of
from occ.api.errors import ApiError, translated
from occ.api.exact_json import ExactRequest, ExactResponse

log = logging.getLogger("occ.api")

ROLE_FIELD: Final = "x-role"
"""Where the description of an operation says which role it takes."""

_LOOKING: Final = frozenset(("GET", "HEAD"))


@dataclass(slots=True)
class Caller:
    """Who sends a request."""

    token: Token
    address: str
    concerned: str = ""
    """What an act turned out to concern, for the audit log; set by who carries it out."""

    @property
    def name(self) -> str:
        return f"token {self.token.token_id} ({self.token.name})"


def takes(role: Role) -> dict[str, Any]:
    """``openapi_extra`` of a route for that role and those above it."""
    return {ROLE_FIELD: role.name.lower()}


def caller_of(request: Request) -> Caller:
    found = request.state.caller
    assert isinstance(found, Caller)
    return found


class GuardedRoute(APIRoute):
    """A route for those whose token has the role that the route takes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        needed = Role[(self.openapi_extra or {})[ROLE_FIELD].upper()]
        what = f"{'/'.join(sorted(self.methods or ()))} {self.path}"

        async def guarded(request: Request) -> Response:
            context = context_of(request)
            caller = await _authenticate(context, request)
            exact = ExactRequest(request.scope, request.receive)
            exact.state.caller = caller
            if request.method in _LOOKING:
                _check_role(caller, needed)
                return await inner(exact)
            return await _audited(context, caller, needed, what, exact, inner)

        return guarded


def router(prefix: str, tag: str) -> APIRouter:
    """A router of guarded routes."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=GuardedRoute, default_response_class=ExactResponse)


async def looks_at_a_page(context: Context, request: Request) -> None:
    """Let a browser in, which can only ask for a name and a password: any name, and a token as the password.

    Raises ApiError; of 401 browsers make their question.
    """
    scheme, _, written = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            written = b64decode(written, validate=True).decode().partition(":")[2]
    try:
        _check_role(await _authenticate(context, request, written), Role.VIEWER)
    except ApiError as error:
        if error.status == 401:
            question = 'Basic realm="OCC: any name, a token as the password", charset="UTF-8"'
            raise ApiError(401, error.message, {"WWW-Authenticate": question}) from None
        raise


async def _authenticate(context: Context, request: Request, password: str = "") -> Caller:
    """Who sends a request. ``password``: the token, where it does not come as a bearer token."""
    scheme, _, written = request.headers.get("authorization", "").partition(" ")
    address = request.client.host if request.client else ""
    token = None
    if password or scheme.lower() == "bearer":
        token = await find_token(context.store, (password or written).strip(), context.clock())
    if token is not None:
        return Caller(token, address)
    if written:
        # A good token is never kept waiting, whoever else guesses from its address.
        wait_ms = await attempts.begin_try(context.store, attempts.TOKENS, address)
        if wait_ms:
            wait_s = -(-wait_ms // 1000)
            sentence = f"too many wrong tokens from {address}; try again in {wait_s} s"
            raise ApiError(429, sentence, {"Retry-After": str(wait_s)})
        sentence = "the token is not known, has expired or was revoked; 'occ api token create' makes one"
    else:
        sentence = "send a token: 'Authorization: Bearer occ_...'; 'occ api token create' makes one"
    raise ApiError(401, sentence, {"WWW-Authenticate": "Bearer"})


def _check_role(caller: Caller, needed: Role) -> None:
    role = caller.token.role
    if role < needed:
        raise ApiError(403, f"this takes the role {needed.name.lower()}, and the token has {role.name.lower()}")


async def _audited(
    context: Context,
    caller: Caller,
    needed: Role,
    what: str,
    request: Request,
    inner: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Response:
    """Carry an act out between its two entries in the audit log. Without the first it is not carried out."""
    on = ", ".join(f"{name} {value}" for name, value in request.path_params.items())
    entry = await audit.begin_act(
        context.store,
        at_ms=context.clock(),
        who=caller.name,
        role=caller.token.role.name.lower(),
        source=caller.address,
        what=what,
        on=on,
    )
    result = "failed"
    try:
        _check_role(caller, needed)
        response = await inner(request)
        result = f"done ({response.status_code})"
    except Exception as error:
        found = translated(error)
        result = "failed (500)" if found is None else f"refused ({found.status}): {found.message}"
        raise
    finally:
        try:
            await audit.end_act(context.store, entry, at_ms=context.clock(), result=result, on=caller.concerned or on)
        except StoreError as error:
            log.error("the end of act %s is missing in the audit log: %s", entry.decode(), error)
    return response
