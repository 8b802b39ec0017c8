"""Vouchers: made in batches, redeemed once."""

from typing import Annotated, Any

from fastapi import Request
from pydantic import AwareDatetime, Field, StringConstraints
from starlette.responses import Response

from balance.tokens import Role
from balance.vouchers import LARGEST_BATCH, Batch, Voucher, batches, block_batch, read_batch, vouchers_of
from occ.api.access import caller_of, router, takes
from occ.api.accounts import BASE, Amount, Given, Name
from occ.api.context import account_meant, context_of, subscriber_meant
from occ.api.errors import bad_request, not_found
from occ.api.exact_json import ExactResponse
from occ.api.queries import Limit, Offset, moment_ms, page
from occ.cli_shell import text_of, time_json
from occ.payments import redeem_voucher
from occ.rating.currency import currency_name, format_amount, parse_amount

cards = router(BASE, "vouchers")


class NewBatch(Given):
    count: Annotated[int, Field(ge=1, le=LARGEST_BATCH)]
    amount: Amount
    """What each is worth, in the currency of the catalogue."""
    expires: AwareDatetime | None = None


class Redemption(Given):
    code: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    account: Name | None = None
    subscriber: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    """Its name or an identity; or the account."""


@cards.post("/vouchers/batches", status_code=201, openapi_extra=takes(Role.OPERATOR))
async def create_batch(request: Request, body: NewBatch) -> Response:
    """Make vouchers. Their codes are in the answer and never shown again."""
    context, caller = context_of(request), caller_of(request)
    try:
        amount_micro = parse_amount(body.amount)
    except ValueError as error:
        raise bad_request(f"amount: {error}") from None
    batch, made = await context.vouchers(create=True).create_batch(
        body.count,
        amount_micro,
        context.catalogue.currency,
        expires_ms=0 if body.expires is None else moment_ms(body.expires.isoformat(), "expires"),
        now_ms=context.clock(),
        by=caller.name,
    )
    caller.concerned = f"batch {batch.batch_id}: {batch.count} vouchers of {format_amount(batch.amount_micro)}"
    document = batch_json(batch) | {"vouchers": [{"serial": serial, "code": code} for serial, code in made]}
    return ExactResponse(document, 201, {"Location": f"{BASE}/vouchers/batches/{batch.batch_id}"})


@cards.get("/vouchers/batches", openapi_extra=takes(Role.VIEWER))
async def list_batches(request: Request, offset: Offset = 0, limit: Limit = 100) -> Response:
    """Batches, the newest first."""
    return page([batch_json(each) for each in await batches(context_of(request).store)], offset, limit, None)


@cards.get("/vouchers/batches/{batch}", openapi_extra=takes(Role.VIEWER))
async def show_batch(request: Request, batch: str, offset: Offset = 0, limit: Limit = 100) -> Response:
    """A batch with its vouchers: serial numbers, who has redeemed them, no codes."""
    store = context_of(request).store
    found = await read_batch(store, batch)
    if found is None:
        raise not_found(f"there is no batch {batch[:40]} of vouchers")
    listed = [voucher_json(each) for each in await vouchers_of(store, found)]
    document = batch_json(found) | {"vouchers": listed[offset : offset + limit]}
    return ExactResponse(document, headers={"X-Total-Count": str(len(listed))})


@cards.post("/vouchers/batches/{batch}/block", openapi_extra=takes(Role.OPERATOR))
async def block(request: Request, batch: str) -> Response:
    """Have none of a batch be redeemed any more: it was lost, or stolen."""
    context = context_of(request)
    if await read_batch(context.store, batch) is None:
        raise not_found(f"there is no batch {batch[:40]} of vouchers")
    return ExactResponse(batch_json(await block_batch(context.store, batch, context.clock())))


@cards.post("/vouchers/redeem", openapi_extra=takes(Role.CARE))
async def redeem(request: Request, body: Redemption) -> Response:
    """Top an account up by what a voucher is worth. Repeated for the same account it counts once."""
    context, caller = context_of(request), caller_of(request)
    if (body.account is None) == (body.subscriber is None):
        raise bad_request("give either account or subscriber")
    if body.account is not None:
        account = await account_meant(context.store, body.account)
    else:
        line = await subscriber_meant(context.store, body.subscriber or "")
        account = await account_meant(context.store, text_of(line.account_id))
    caller.concerned = f"account {text_of(account.account_id)}"
    voucher, posting = await redeem_voucher(
        context.store,
        context.vouchers(),
        context.catalogue,
        account.account_id,
        body.code,
        source=caller.token.token_id,
        now_ms=context.clock(),
        valid_for_ms=context.valid_for_ms,
    )
    caller.concerned += f", voucher {voucher.serial}"
    return ExactResponse(
        {
            "serial": voucher.serial,
            "account": text_of(account.account_id),
            "amount": format_amount(posting.amount),
            "balance_after": format_amount(posting.balance_after),
            "currency": currency_name(account.currency),
            "repeated": posting.repeated,
        }
    )


def batch_json(batch: Batch) -> dict[str, Any]:
    """A batch as plain data for JSON."""
    return {
        "batch": batch.batch_id,
        "count": batch.count,
        "amount": format_amount(batch.amount_micro),
        "currency": currency_name(batch.currency),
        "expires": time_json(batch.expires_ms),
        "created": time_json(batch.created_ms),
        "created_by": batch.created_by,
        "blocked": time_json(batch.blocked_ms),
    }


def voucher_json(voucher: Voucher) -> dict[str, Any]:
    """A voucher as plain data for JSON, without its code."""
    state = "used" if voucher.used_ms else "begun" if voucher.account_id else "new"
    return {
        "serial": voucher.serial,
        "state": state,
        "account": text_of(voucher.account_id) or None,
        "used": time_json(voucher.used_ms),
    }
