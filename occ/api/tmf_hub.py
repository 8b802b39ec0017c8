"""TMF654 hub: others hear of acts on balances by a POST to their callback.

Every event is told at least once, in order, to each subscription; one process at a time tells them. A callback that
does not take an event is tried again, ever more seldom, for an hour; then it is passed over, with a line in the log.
"""

import asyncio
import json
import logging
import secrets
from dataclasses import replace
from http.client import HTTPException
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import parse_qsl, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener
from urllib.request import Request as WebRequest

from fastapi import Request
from starlette.responses import Response

from balance.actions import (
    Event,
    Subscription,
    events_after,
    may_tell,
    note_told,
    subscribe,
    subscriptions,
    unsubscribe,
)
from balance.resp import StoreError
from balance.tokens import Role
from occ.api.access import caller_of, router, takes
from occ.api.context import Context, context_of
from occ.api.errors import bad_request
from occ.api.exact_json import ExactResponse
from occ.api.tmf_models import SubscriptionInput
from occ.api.tmf_view import BASE, Document, wrong_id
from occ.cli_shell import time_json

log = logging.getLogger("occ.api.hub")

LOOK_S: Final = 0.5
LEASE_MS: Final = 15_000
TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 100
LONGEST_PAUSE_S: Final = 60.0
GIVEN_UP_AFTER_MS: Final = 3_600_000

KINDS: Final = ("TopupBalance", "AdjustBalance", "TransferBalance", "ReserveBalance")
EVENT_TYPES: Final = frozenset(f"{kind}{what}Event" for kind in KINDS for what in ("Create", "Cancel", "Failure"))

hub = router(BASE, "TMF654 hub")


@hub.post("/hub", status_code=201, openapi_extra=takes(Role.OPERATOR))
async def register(request: Request, body: SubscriptionInput) -> Response:
    """Have events POSTed to a callback from now on."""
    context, caller = context_of(request), caller_of(request)
    try:
        address = urlsplit(body.callback)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        usable = False
    if not usable or not body.callback.isascii() or not body.callback.isprintable() or " " in body.callback:
        raise bad_request("callback must be a URL such as https://crm.example.net/events")
    wanted_types(body.query)
    found = await subscribe(context.store, body.callback, body.query or "", context.clock(), caller.name)
    caller.concerned = f"hub {found.subscription_id}: {found.callback}"
    return ExactResponse(_document(found), 201, {"Location": f"{BASE}/hub/{found.subscription_id}"})


@hub.get("/hub", openapi_extra=takes(Role.OPERATOR))
async def list_subscriptions(request: Request) -> Response:
    """Who hears of events."""
    return ExactResponse([_document(each) for each in await subscriptions(context_of(request).store)])


@hub.delete("/hub/{id}", status_code=204, openapi_extra=takes(Role.OPERATOR))
async def unregister(request: Request, id: str) -> Response:  # noqa: A002 - as TMF654 has it
    """End a subscription."""
    if not await unsubscribe(context_of(request).store, id):
        raise wrong_id("hub", id)
    return Response(status_code=204)


def wanted_types(query: str | None) -> frozenset[str]:
    """The events that a query asks for. Raises ApiError."""
    if not query:
        return EVENT_TYPES
    wanted: set[str] = set()
    for name, value in parse_qsl(query, keep_blank_values=True) or [(query, "")]:
        types = value.split(",")
        if name != "eventType" or not EVENT_TYPES.issuperset(types):
            raise bad_request(f"query must be eventType= and some of {', '.join(sorted(EVENT_TYPES))}")
        wanted.update(types)
    return frozenset(wanted)


def _document(subscription: Subscription) -> Document:
    document = {"id": subscription.subscription_id, "callback": subscription.callback}
    return document | ({"query": subscription.query} if subscription.query else {})


# -- telling -----------------------------------------------------------------------------------------------------------


def event_text(event: Event) -> bytes:
    """The body of a notification."""
    what = next(kind for kind in KINDS if event.type.startswith(kind))
    head: dict[str, Any] = {
        "eventId": event.entry,
        "eventTime": time_json(event.at_ms),
        "timeOcurred": time_json(event.at_ms),
        "eventType": event.type,
        "domain": "prepayBalanceManagement",
        "title": event.type,
    }
    resource = what[0].lower() + what[1:]
    # The document goes out as it was written, every digit of it.
    return f'{json.dumps(head)[:-1]}, "event": {{"{resource}": {event.document}}}}}'.encode()


class Telling:
    """Tells all subscriptions of what happens."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._process = secrets.token_hex(8)
        self._pauses: dict[str, tuple[float, float]] = {}
        """Of subscriptions whose callback fails: when to try again by the loop's clock, and how long after that."""

    async def run(self) -> None:
        """Until cancelled; an unreachable store is waited for."""
        while True:
            try:
                if await may_tell(self._context.store, self._process, LEASE_MS):
                    several = await subscriptions(self._context.store)
                    await asyncio.gather(*(self._tell(each) for each in several))
            except StoreError as error:
                log.debug("subscriptions are told later: %s", error)
            except Exception:  # one subscription's fault must not end the telling
                log.exception("subscriptions could not be told")
            await asyncio.sleep(LOOK_S)

    async def _tell(self, subscription: Subscription) -> None:
        name = subscription.subscription_id
        clock = asyncio.get_running_loop().time
        if self._pauses.get(name, (0.0, 0.0))[0] > clock():
            return
        until_s = clock() + LEASE_MS / 3000
        wanted = wanted_types(subscription.query)
        for event in await events_after(self._context.store, subscription, AT_ONCE):
            if event.type in wanted:
                trouble = await asyncio.to_thread(_post, subscription.callback, event_text(event))
                if trouble and self._context.clock() - event.at_ms < GIVEN_UP_AFTER_MS:
                    pause_s = min(LONGEST_PAUSE_S, 2 * self._pauses.get(name, (0.0, LOOK_S))[1])
                    self._pauses[name] = (clock() + pause_s, pause_s)
                    log.warning("hub %s did not take %s, again in %.0f s: %s", name, event.entry, pause_s, trouble)
                    return
                if trouble:
                    log.error("hub %s never took event %s, which is passed over: %s", name, event.entry, trouble)
            self._pauses.pop(name, None)
            subscription = replace(await note_told(self._context.store, subscription, event.entry))
            if clock() > until_s:
                return  # the lease is renewed first


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Nowhere else than to the address that an operator has entered."""


def _post(url: str, body: bytes) -> str:
    """POST an event; why it was not taken, empty if it was."""
    request = WebRequest(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with build_opener(ProxyHandler({}), _NoRedirects()).open(request, timeout=TIMEOUT_S):
            return ""
    except (URLError, HTTPException, OSError, ValueError) as error:
        return str(error)
