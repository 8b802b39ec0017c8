"""TMF654, acting: topupBalance, adjustBalance, transferBalance, reserveBalance.

A request with an ``Idempotency-Key`` counts once: repeated, it is answered as the first time and completes what was cut
off; with another body it is refused. An act is never deleted: DELETE and PATCH cancel it, which moves the money back.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Header, Request
from starlette.responses import Response

from balance.actions import (
    COMPLETED,
    CREATED,
    FAILED,
    REPEATABLE_MS,
    Action,
    action_name,
    actions,
    enter_action,
    finish_action,
    read_action,
)
from balance.model import LedgerError
from balance.tokens import Role
from occ.api import exact_json
from occ.api.access import caller_of, router, takes
from occ.api.context import Context, context_of
from occ.api.errors import ApiError, bad_request, conflict
from occ.api.exact_json import ExactResponse
from occ.api.queries import Fields, Filters, Limit, Offset, page, selected
from occ.api.tmf_effects import Adjust, Asked, Effect, Kind, Reserve, Topup, Transfer
from occ.api.tmf_models import (
    ActCreate,
    ActUpdate,
    AdjustBalanceCreate,
    ReserveBalanceCreate,
    TopupBalanceCreate,
    TransferBalanceCreate,
    plain,
)
from occ.api.tmf_view import BASE, Document, wrong_id
from occ.cli_shell import time_json
from occ.payments import TooManyTriesError

HELD: Final = "held"
"""Of a reservation, in the store: done, neither taken nor given back. On the wire that is ``created``."""

ENDING: Final = "ending"
"""In the store: it is being cancelled, or taken."""

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,128}$",
        description="The client's own reference: the same one counts once, however often it is sent.",
    ),
]

_BEFORE_MONEY: Final = ("description", "channel", "logicalResource", "product", "requestor", "usageType", "validFor")
_OF_TRANSFER: Final = ("receiver", "receiverBucket", "receiverBucketUsageType", "receiverLogicalResource")
_SHOWN: Final = (*_BEFORE_MONEY, *_OF_TRANSFER, "receiverProduct", "costOwner", "adjustType", "paymentMethod")
ATTRIBUTES: Final = frozenset(
    (*_SHOWN, "id", "href", "@type", "status", "reason", "amount", "bucket", "partyAccount", "requestedDate",
     "confirmationDate", "voucher")
)  # fmt: skip

acts = router(BASE, "TMF654 acts")


async def create(kind: Kind, request: Request, body: ActCreate, key: str | None) -> Response:
    """Carry an act out, or find out what came of it before. Raises ApiError, LedgerError, StoreError."""
    context, caller = context_of(request), caller_of(request)
    effect = await kind.prepare(context, body)
    name, now_ms = action_name(kind.resource, key), context.clock()
    caller.concerned = f"{kind.resource} {name}: bucket {effect.account}:{effect.bucket}, amount {effect.amount}"
    given = plain(body)
    code = given.pop("voucher", None)
    asked = hashlib.sha256(exact_json.write(given).encode()).hexdigest()
    document = _document(kind, name, given, effect, now_ms)
    new = Action(name, kind.resource, asked, now_ms, CREATED, exact_json.write(document), effect.pack())
    action = await enter_action(context.store, new)
    if action.status == FAILED:
        raise conflict(_told(action)["description"])
    if action.status != CREATED:
        return _created(kind, _told(action), repeated=True)
    try:
        effect = await kind.perform(context, name, effect, Asked(caller.token.token_id, code))
    except TooManyTriesError:
        raise
    except (LedgerError, ApiError) as error:
        await _finish(context, kind, action, FAILED, {**document, "description": str(error)}, effect, "Failure")
        raise
    document |= {"amount": effect.amount_document(), "confirmationDate": time_json(context.clock())}
    if effect.until_ms:
        document["validFor"] = {"endDateTime": time_json(effect.until_ms)}
    if effect.voucher:
        document["voucher"] = effect.voucher
    status = HELD if kind.pending else COMPLETED
    if not await _finish(context, kind, action, status, document, effect, "Create"):
        found = await read_action(context.store, name)
        return _created(kind, _told(found or action), repeated=True)
    return _created(kind, document, repeated=False)


def _document(kind: Kind, name: str, given: Document, effect: Effect, now_ms: int) -> Document:
    bucket = f"{effect.account}:{effect.bucket}"
    document = {
        "id": name,
        "href": f"{BASE}/{kind.resource}/{name}",
        "@type": kind.event,
        "status": CREATED,
        "reason": effect.reason,
        "requestedDate": time_json(now_ms),
        "amount": effect.amount_document(),
        "bucket": {"id": bucket, "href": f"{BASE}/bucket/{bucket}", "@referredType": "Bucket"},
        "partyAccount": {"id": effect.account, "@referredType": "PartyAccount"},
    }
    return document | {attribute: given[attribute] for attribute in _SHOWN if attribute in given}


async def _finish(
    context: Context, kind: Kind, action: Action, status: str, document: Document, effect: Effect, told: str
) -> bool:
    """Have the act come to another status, and all that want to hear of it; False if it has one already."""
    if status != ENDING:
        document["status"] = CREATED if status == HELD else status
    text = exact_json.write(document)
    event = f"{kind.event}{told}Event" if told else ""
    return await finish_action(context.store, action, status, text, effect.pack(), event, context.clock())


def _told(action: Action) -> Document:
    document: Document = exact_json.read(action.document)
    return document


def _created(kind: Kind, document: Document, *, repeated: bool) -> Response:
    headers = {"Location": f"{BASE}/{kind.resource}/{document['id']}"}
    if repeated:
        headers["Idempotent-Replayed"] = "true"
    return ExactResponse(document, 201, headers)


# -- looking, cancelling, taking ---------------------------------------------------------------------------------------


async def _existing(context: Context, kind: Kind, name: str) -> Action:
    action = await read_action(context.store, name)
    if action is None or action.kind != kind.resource:
        raise wrong_id(kind.resource, name)
    return action


async def end(kind: Kind, request: Request, name: str, update: ActUpdate) -> Document:
    """Cancel an act, or take what is reserved; repeated, it is done once. Raises ApiError, LedgerError, StoreError."""
    context = context_of(request)
    action = await _existing(context, kind, name)
    effect, document = Effect.unpack(action.private), _told(action)
    caller_of(request).concerned = f"{kind.resource} {name} {update.status}: bucket {effect.account}:{effect.bucket}"
    if action.status == update.status:
        return document
    rest = HELD if kind.pending else COMPLETED
    if action.status not in (rest, ENDING):
        raise conflict(f"{kind.resource} {name} is {document['status']}, and cannot be {update.status}")
    if update.status == COMPLETED and not isinstance(kind, Reserve):
        raise bad_request("status: only reservations are completed; this can be cancelled")
    now_ms, reason = context.clock(), update.reason or "management API"
    if action.status == ENDING and now_ms - effect.ending_ms > REPEATABLE_MS:
        raise conflict("this was cut off days ago; see in the history of the account whether it was done")
    if action.status == rest:
        # What begins is written down: after a week the ledger no longer knows whether it was done.
        effect = replace(effect, ending_ms=now_ms)
        await _finish(context, kind, action, ENDING, document, effect, "")
    ending = replace(action, status=ENDING)
    try:
        if isinstance(kind, Reserve) and update.status == COMPLETED:
            await kind.take(context, name, effect, reason)
        else:
            await kind.undo(context, name, effect, reason)
    except (LedgerError, ApiError):
        await _finish(context, kind, ending, rest, document, effect, "")
        raise
    document |= {"confirmationDate": time_json(now_ms)}
    if update.reason is not None:
        document["reason"] = update.reason
    told = "" if update.status == COMPLETED else "Cancel"
    if not await _finish(context, kind, ending, update.status, document, effect, told):
        return _told(await _existing(context, kind, name))
    return document


def _serve(kind: Kind, create_with: Callable[..., Awaitable[Response]]) -> None:
    """The routes of one kind of act."""
    path, one = f"/{kind.resource}", f"/{kind.resource}/{{id}}"

    async def list_acts(request: Request, fields: Fields = None, offset: Offset = 0, limit: Limit = 100) -> Response:
        context, filters = context_of(request), Filters(request, ATTRIBUTES)
        found = [_told(each) for each in await actions(context.store, kind.resource)]
        return page([each for each in found if filters.match(each)], offset, limit, fields)

    async def show_act(request: Request, id: str, fields: Fields = None) -> Response:  # noqa: A002
        return ExactResponse(selected(_told(await _existing(context_of(request), kind, id)), fields))

    async def change_act(request: Request, id: str, body: ActUpdate) -> Response:  # noqa: A002
        return ExactResponse(await end(kind, request, id, body))

    async def cancel_act(request: Request, id: str) -> Response:  # noqa: A002
        await end(kind, request, id, ActUpdate(status="cancelled"))
        return Response(status_code=204)

    def add(where: str, method: str, endpoint: Any, role: Role, does: str, **more: Any) -> None:
        acts.add_api_route(
            where,
            endpoint,
            methods=[method],
            openapi_extra=takes(role),
            summary=does,
            name=f"{does} {kind.resource}",
            operation_id=f"{endpoint.__name__.split('_')[0]}_{kind.resource}",
            **more,
        )

    add(path, "GET", list_acts, Role.VIEWER, "List, the newest first")
    add(path, "POST", create_with, Role.CARE, "Carry out", status_code=201)
    add(one, "GET", show_act, Role.VIEWER, "Show")
    add(one, "PATCH", change_act, Role.CARE, "Cancel, or take what is reserved")
    add(one, "DELETE", cancel_act, Role.CARE, "Cancel", status_code=204)


TOPUP: Final = Topup()
ADJUST: Final = Adjust()
TRANSFER: Final = Transfer()
RESERVE: Final = Reserve()


async def create_topup(request: Request, body: TopupBalanceCreate, key: Key = None) -> Response:
    return await create(TOPUP, request, body, key)


async def create_adjust(request: Request, body: AdjustBalanceCreate, key: Key = None) -> Response:
    return await create(ADJUST, request, body, key)


async def create_transfer(request: Request, body: TransferBalanceCreate, key: Key = None) -> Response:
    return await create(TRANSFER, request, body, key)


async def create_reserve(request: Request, body: ReserveBalanceCreate, key: Key = None) -> Response:
    return await create(RESERVE, request, body, key)


_serve(TOPUP, create_topup)
_serve(ADJUST, create_adjust)
_serve(TRANSFER, create_transfer)
_serve(RESERVE, create_reserve)
