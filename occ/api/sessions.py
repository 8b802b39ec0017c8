"""Open sessions: listed, asked anew, ended."""

import asyncio
from heapq import nsmallest
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import StringConstraints
from starlette.responses import Response

from balance import directory
from balance.accounts import Account, Session
from balance.store import Store
from balance.tokens import Role
from occ.api.access import caller_of, router, takes
from occ.api.accounts import BASE, Given, Name
from occ.api.context import account_meant, context_of, subscriber_meant
from occ.api.errors import bad_request, not_found
from occ.api.exact_json import ExactResponse
from occ.api.queries import Limit, Offset, page
from occ.cli_sessions import ASKED_AT_ONCE, ask_one, is_done, result_json, session_json
from occ.cli_shell import name_octets, text_of
from occ.server_requests import Command, ServerRequest, find_sessions

SessionId = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Number = Annotated[int, Query(ge=0, le=0xFFFFFFFF)]

open_sessions = router(BASE, "sessions")


class Reauthorise(Given):
    session_id: SessionId | None = None
    account: Name | None = None
    rating_group: Number | None = None
    service_identifier: Number | None = None


class Abort(Given):
    session_id: SessionId


def _age(item: tuple[Account, Session]) -> tuple[int, bytes]:
    return item[1].started_ms, item[1].session_id


@open_sessions.get("/sessions", openapi_extra=takes(Role.VIEWER))
async def list_sessions(
    request: Request,
    account: Annotated[str | None, Query(max_length=64)] = None,
    subscriber: Annotated[str | None, Query(max_length=255, description="Its name or an identity.")] = None,
    session_id: Annotated[str | None, Query(max_length=2000)] = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Open sessions, the oldest first. Without account or subscriber the whole store is looked through."""
    store = context_of(request).store
    line = None if subscriber is None else await subscriber_meant(store, subscriber)
    if line is not None and account is None:
        account = text_of(line.account_id)

    def wanted(each: Session) -> bool:
        if line is not None and each.subscriber_id != line.subscriber_id:
            return False
        return session_id is None or each.session_id == name_octets(session_id)

    total = 0
    oldest: list[tuple[Account, Session]] = []
    if account is not None:
        found = await account_meant(store, account)
        oldest = sorted(((found, each) for each in found.sessions.values() if wanted(each)), key=_age)
        total = len(oldest)
    else:
        async for several in directory.accounts(store):
            new = [(one, each) for one in several for each in one.sessions.values() if wanted(each)]
            total += len(new)
            oldest = nsmallest(offset + limit, oldest + new, key=_age)
    return page([session_json(*each) for each in oldest], offset, limit, None, total)


@open_sessions.post("/sessions/reauthorise", openapi_extra=takes(Role.CARE))
async def reauthorise(request: Request, body: Reauthorise) -> Response:
    """Have the client of a session, or of all sessions of an account, report and ask anew (Re-Auth-Request).

    ``effective`` says for each whether its client agreed; otherwise it asks anew when its Validity-Time ends.
    """
    store = context_of(request).store
    if (body.session_id is None) == (body.account is None):
        raise bad_request("give either session_id or account")
    if body.rating_group is not None and body.service_identifier is not None:
        raise bad_request("give one of rating_group and service_identifier")
    if body.account is not None:
        found = await account_meant(store, body.account)
        account_id, sessions = found.account_id, list(found.sessions.values())
    else:
        account_id, sessions = await _existing(store, body.session_id or "")
    caller_of(request).concerned = f"account {text_of(account_id)}, {len(sessions)} sessions"
    scope = (body.rating_group, body.service_identifier)
    asked = [(ServerRequest(Command.RE_AUTH, account_id, each.session_id, *scope), each) for each in sessions]
    return ExactResponse(await _ask(store, asked))


@open_sessions.post("/sessions/abort", openapi_extra=takes(Role.OPERATOR))
async def abort(request: Request, body: Abort) -> Response:
    """Have the client end a session (Abort-Session-Request); where it does not agree, its next request is denied."""
    store = context_of(request).store
    account_id, sessions = await _existing(store, body.session_id)
    caller_of(request).concerned = f"account {text_of(account_id)}, session {body.session_id}"
    asked = (ServerRequest(Command.ABORT_SESSION, account_id, sessions[0].session_id), sessions[0])
    return ExactResponse((await _ask(store, [asked]))[0])


async def _existing(store: Store, session_id: str) -> tuple[bytes, list[Session]]:
    found = await find_sessions(store, name_octets(session_id))
    if found is None:
        raise not_found(f"there is no open session {session_id[:200]}")
    return found


async def _ask(store: Store, requests: list[tuple[ServerRequest, Session]]) -> list[dict[str, Any]]:
    slots = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(asked: ServerRequest, session: Session) -> dict[str, Any]:
        async with slots:
            result = await ask_one(store, asked, session)
        return result_json(asked, result) | {"effective": is_done(asked, result)}

    return list(await asyncio.gather(*(one(*each) for each in requests)))
