"""The API as a process: the application, its limits, its description, and how it is served."""

import asyncio
import html
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from balance.embedded import Address
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from occ.api import errors
from occ.api.access import ROLE_FIELD
from occ.api.accounts import accounts, lines
from occ.api.administration import office
from occ.api.context import Context
from occ.api.description import completed
from occ.api.noc import NOC_ROUTES
from occ.api.records import past
from occ.api.rules_resources import rules
from occ.api.sessions import open_sessions
from occ.api.tmf_acts import acts
from occ.api.tmf_balances import balances
from occ.api.tmf_hub import Telling, hub
from occ.api.vouchers import cards
from occ.clock import now_ms
from occ.policy.watching import watch_by_rules_in_force
from occ.settings import Settings

log = logging.getLogger("occ.api")

LARGEST_BODY: Final = 1 << 20
"""Octets of a request."""


class BodyLimit:
    """Refuses requests whose body is too large before it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST_BODY:
                raise errors.ApiError(413, f"a request has {LARGEST_BODY} octets at most")
            return message

        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > LARGEST_BODY:
            refusal = errors.ApiError(413, f"a request has {LARGEST_BODY} octets at most")
            await errors.respond(refusal)(scope, receive, send)
            return
        await self._app(scope, limited, send)


def create_app(context: Context) -> FastAPI:
    """The application. Its background work runs for as long as it is served."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work = [asyncio.create_task(context.listen()), asyncio.create_task(Telling(context).run())]
        try:
            yield
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    app = FastAPI(
        title="OCC management API",
        version="1",
        description="Prepay Balance Management (TM Forum TMF654 v4) and the operator's own resources.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    for each in (balances, acts, hub, accounts, lines, rules, open_sessions, past, cards, office):
        app.include_router(each)
    errors.install(app)
    app.add_middleware(BodyLimit)
    description = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = completed(description(), ROLE_FIELD)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    app.router.routes.append(Route("/openapi.json", lambda _: JSONResponse(app.openapi())))
    app.router.routes.append(Route("/docs", lambda _: HTMLResponse(_page(app.openapi()))))
    app.router.routes.append(Route("/health", _health))
    app.router.routes += NOC_ROUTES
    return app


async def _health(request: Request) -> Response:
    """Whether the store answers; needs no token and tells nothing else."""
    context: Context = request.app.state.context
    try:
        await context.store.call("PING")
    except StoreError as error:
        return errors.respond(errors.ApiError(503, str(error)))
    return JSONResponse({"status": "pass"})


def _page(description: dict[str, Any]) -> str:
    """The description for people, without scripts."""
    rows = [
        f"<tr><td>{method.upper()}<td><code>{html.escape(path)}</code><td>{html.escape(operation[ROLE_FIELD])}"
        f"<td>{html.escape(operation.get('description') or operation.get('summary', '')).splitlines()[0]}"
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    ]
    return (
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(description['info']['title'])}</title>"
        "<style>body{font:15px system-ui;margin:2em}td,th{text-align:left;padding:.2em .8em .2em 0}</style>"
        f"<h1>{html.escape(description['info']['title'])}</h1><p>{html.escape(description['info']['description'])} "
        "All of it for machines: <a href=openapi.json>openapi.json</a>."
        f"<table><tr><th>method<th>path<th>role<th>what it does{''.join(rows)}</table>"
    )


class _Server(uvicorn.Server):
    """Ends in order at SIGINT and SIGTERM; says when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            self._on_ready(self.servers[0].sockets[0].getsockname()[1])


async def _serve(settings: Settings, address: Address, on_ready: Callable[[int], None]) -> None:
    store = Store(StoreSettings(address, settings.store.partitions, account_cache_entries=1))
    await store.start()
    try:
        await watch_by_rules_in_force(store)
        api = settings.api
        config = uvicorn.Config(
            create_app(Context(settings, store, now_ms)),
            host=api.host,
            port=api.port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            limit_concurrency=500,
            ssl_certfile=None if api.certificate is None else str(api.certificate),
            ssl_keyfile=None if api.key is None else str(api.key),
        )
        await _Server(config, on_ready).serve()
    finally:
        await store.stop()


def run(settings: Settings, address: Address, on_ready: Callable[[int], None]) -> None:
    """Serve until SIGINT or SIGTERM. ``on_ready`` gets the port. Raises ConfigError, StoreError, OSError."""
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    with suppress(KeyboardInterrupt):  # uvicorn sends itself the signal again when it has ended
        uvloop.run(_serve(settings, address, on_ready))
