"""What has happened: ledger, charging data records, peers, notices."""

import asyncio
import json
from typing import Annotated, Any, Final, Literal
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from fastapi import Query, Request
from starlette.responses import Response

from balance import notices
from balance.journal import history
from balance.keys import POLICY_EVENTS
from balance.tokens import Role
from balance.verify import verify
from occ.api.access import router, takes
from occ.api.accounts import BASE
from occ.api.context import account_meant, context_of
from occ.api.errors import ApiError, not_found
from occ.api.exact_json import ExactResponse
from occ.api.queries import LARGEST_OFFSET, Fields, Limit, Offset, moment_ms, page
from occ.cdr_reading import UnreadableRecordError, read_records
from occ.cli_accounts import journal_json
from occ.cli_ledger import report_json
from occ.cli_notices import notice_json
from occ.cli_shell import name_octets

PEERS_TIMEOUT_S: Final = 5.0
RECORDS_LOOKED_AT: Final = 100_000

Moment = Annotated[str | None, Query(max_length=40, description="A time such as 2027-01-31T12:00:00Z.")]
Text = Annotated[str | None, Query(max_length=2000)]

past = router(BASE, "ledger, records, peers")


@past.get("/ledger", openapi_extra=takes(Role.VIEWER))
async def search_ledger(
    request: Request,
    account: Annotated[str, Query(max_length=64)],
    operation: Annotated[str | None, Query(max_length=40, description="top-up, adjust, charge, ...")] = None,
    since: Moment = None,
    until: Moment = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """The journal of an account, newest first."""
    store = context_of(request).store
    since_ms, until_ms = moment_ms(since, "since"), moment_ms(until, "until", lambda: 1 << 62)
    found = await account_meant(store, account)
    records = [
        journal_json(record, found)
        for record in await history(store, found.account_id, RECORDS_LOOKED_AT)
        if operation in (None, record.operation) and since_ms <= record.at_ms < until_ms
    ]
    return page(records, offset, limit, None)


@past.post("/ledger/verify", openapi_extra=takes(Role.OPERATOR))
async def verify_ledger(request: Request) -> Response:
    """Check the whole store: journal against balances, reservations against sessions. Takes a while."""
    return ExactResponse(report_json(await verify(context_of(request).store)))


@past.get("/cdrs", openapi_extra=takes(Role.VIEWER))
async def search_records(
    request: Request,
    account: Text = None,
    subscriber: Text = None,
    session_id: Text = None,
    since: Moment = None,
    until: Moment = None,
    fields: Fields = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Charging data records of the files of this machine, in the order they were delivered."""
    since_ms = moment_ms(since, "since")
    until_ms = None if until is None else moment_ms(until, "until")
    directory = context_of(request).settings.cdr.directory

    def search() -> tuple[list[dict[str, Any]], int]:
        if not directory.is_dir():
            return [], 0
        found, total = [], 0
        for record in read_records([directory], since_ms, until_ms, session_id):
            if account in (None, record["account_id"]) and subscriber in (None, record["subscriber_id"]):
                total += 1
                if offset < total <= offset + limit:
                    found.append(record)
        return found, total

    try:
        found, total = await asyncio.to_thread(search)
    except (UnreadableRecordError, OSError) as error:
        raise ApiError(503, str(error)) from error
    documents: list[dict[str, Any]] = [{}] * min(offset, LARGEST_OFFSET) + found
    return page(documents, offset, limit, fields if fields is None else f"{fields},record_id", total)


@past.get("/peers", openapi_extra=takes(Role.VIEWER))
async def list_peers(request: Request) -> Response:
    """The Diameter peers of the running server."""
    metrics = context_of(request).settings.metrics
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(metrics.host, metrics.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{metrics.port}/peers"

    def read() -> Any:
        # No proxy: the server is asked directly, whatever the environment says of the web.
        with build_opener(ProxyHandler({})).open(url, timeout=PEERS_TIMEOUT_S) as answer:
            return json.loads(answer.read())

    try:
        found = await asyncio.to_thread(read)
    except (URLError, OSError, ValueError) as error:
        raise ApiError(503, f"no server answers at {url}; start it, or set metrics.port as it has it") from error
    return ExactResponse([{name: _plain(value) for name, value in peer.items()} for peer in found])


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) else value


@past.get("/notices", openapi_extra=takes(Role.VIEWER))
async def list_notices(
    request: Request,
    state: Annotated[Literal["waiting", "held", "dead", "finished"], Query(description="Which list.")] = "finished",
    limit: Limit = 100,
) -> Response:
    """Notices to customers: those that wait, are held until quiet hours end, were given up, or are done with."""
    found = await notices.listed(context_of(request).store, state, limit)
    return ExactResponse([notice_json(each) for each in found])


@past.get("/notices/{notice}", openapi_extra=takes(Role.VIEWER))
async def show_notice(request: Request, notice: str) -> Response:
    """One notice with all that happened to it."""
    known = await notices.read(context_of(request).store, name_octets(notice))
    if known is None:
        raise not_found(f"there is no notice {notice[:80]}, or it has been forgotten")
    return ExactResponse(notice_json(known.delivery))


@past.get("/policy-events", openapi_extra=takes(Role.VIEWER))
async def list_policy_events(request: Request, limit: Limit = 100) -> Response:
    """What the policies have told of late, newest first."""
    entries = await context_of(request).store.call("XREVRANGE", POLICY_EVENTS, "+", "-", "COUNT", limit)
    found = []
    for entry, flat in entries:
        for told in flat[1::2]:
            document = json.loads(told)
            found.append({"entry": entry.decode(), **document} if isinstance(document, dict) else {"told": document})
    return ExactResponse(found)
