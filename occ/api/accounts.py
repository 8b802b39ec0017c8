"""Accounts and subscribers, as ``occ account`` and ``occ subscriber`` show and change them."""

from heapq import nsmallest
from typing import Annotated, Final, Literal

from fastapi import Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints
from starlette.responses import Response

from balance import directory, structure, subscribers
from balance.accounts import Account
from balance.journal import history
from balance.model import AccountKind, IdentityType, LedgerError, LifeState, Subscriber
from balance.tokens import Role
from occ.api.access import caller_of, router, takes
from occ.api.context import Context, account_meant, context_of, subscriber_meant
from occ.api.errors import bad_request, conflict
from occ.api.exact_json import ExactResponse
from occ.api.queries import Fields, Limit, Offset, moment_ms, page, selected
from occ.cli_account_view import account_json
from occ.cli_accounts import journal_json
from occ.cli_shell import name_octets, text_of
from occ.cli_subscribers import subscriber_json
from occ.entitlements import bring_up_to_date
from occ.lifecycle import check_change
from occ.payments import tell_of_credit
from occ.rating.currency import NUMERIC, currency_name, parse_amount
from occ.server_requests import standing_has_changed
from occ.yamlmap import nearest

BASE: Final = "/occ/v1"

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Amount = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,6})?$")]
"""Money as text, such as "10.00": exact, whatever the client makes of numbers."""
Settable = Literal["active", "suspended", "blocked", "terminated"]

accounts = router(BASE, "accounts")
lines = router(BASE, "subscribers")


class Given(BaseModel):
    """A body: what is not known is a mistake of the client, and refused."""

    model_config = ConfigDict(extra="forbid")


class NewAccount(Given):
    account: Name
    kind: Literal["prepaid", "postpaid"] = "prepaid"
    currency: Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")] | None = None
    """ISO 4217; left out: that of the catalogue."""
    balance: Amount = "0.00"
    credit_limit: Amount = "0.00"
    reason: Reason = "management API"


class StateChange(Given):
    state: Settable
    reason: Reason


class LimitChange(Given):
    credit_limit: Amount
    reason: Reason


class ExpiryChange(Given):
    expires: AwareDatetime | None
    """null: never."""
    reason: Reason


@accounts.get("/accounts", openapi_extra=takes(Role.VIEWER))
async def list_accounts(request: Request, fields: Fields = None, offset: Offset = 0, limit: Limit = 100) -> Response:
    """All accounts, by name. The whole store is looked through."""
    first: list[Account] = []
    total = 0
    async for several in directory.accounts(context_of(request).store):
        total += len(several)
        first = nsmallest(offset + limit, first + several, key=lambda account: account.account_id)
    return page([account_json(account) for account in first], offset, limit, _with_name(fields, "account"), total)


@accounts.post("/accounts", status_code=201, openapi_extra=takes(Role.CARE))
async def create_account(request: Request, body: NewAccount) -> Response:
    """Create an account with a money bucket."""
    context = context_of(request)
    caller_of(request).concerned = f"account {body.account}"
    catalogue = context.catalogue
    currency = catalogue.currency if body.currency is None else NUMERIC.get(body.currency)
    if currency is None:
        raise bad_request(f"currency: {body.currency} is not a currency of ISO 4217")
    kind = AccountKind[body.kind.upper()]
    valid_ms = context.valid_for_ms if kind == AccountKind.PREPAID else 0
    now_ms = context.clock()
    made = await directory.create_account(
        context.store,
        name_octets(body.account),
        kind,
        currency,
        now_ms=now_ms,
        reason=body.reason,
        balance_micro=_micro(body.balance),
        credit_limit_micro=_micro(body.credit_limit),
        expires_ms=now_ms + valid_ms if valid_ms else 0,
    )
    return ExactResponse(account_json(made), 201, {"Location": f"{BASE}/accounts/{body.account}"})


def _micro(written: str) -> int:
    try:
        return parse_amount(written)
    except ValueError as error:
        raise bad_request(str(error)) from None


def _with_name(fields: str | None, name: str) -> str | None:
    return fields if fields is None else f"{fields},{name}"


@accounts.get("/accounts/{account}", openapi_extra=takes(Role.VIEWER))
async def show_account(request: Request, account: str, fields: Fields = None) -> Response:
    """All of an account: state, buckets, offers, meters, open sessions."""
    found = account_json(await account_meant(context_of(request).store, account))
    return ExactResponse(selected(found, _with_name(fields, "account")))


@accounts.get("/accounts/{account}/history", openapi_extra=takes(Role.VIEWER))
async def account_history(request: Request, account: str, limit: Limit = 100) -> Response:
    """The newest journal records of an account, newest first: when, what, why, before and after."""
    store = context_of(request).store
    found = await account_meant(store, account)
    records = await history(store, found.account_id, limit)
    return page([journal_json(record, found) for record in records], 0, limit, None)


@accounts.post("/accounts/{account}/state", openapi_extra=takes(Role.CARE))
async def set_account_state(request: Request, account: str, body: StateChange) -> Response:
    """Activate, suspend, block or terminate an account; running sessions ask anew at once."""
    context = context_of(request)
    await account_meant(context.store, account)
    state = LifeState[body.state.upper()]
    changed = await directory.set_account_state(
        context.store, name_octets(account), state, context.clock(), body.reason, check_change
    )
    await standing_has_changed(context.store, changed.account_id)
    return ExactResponse(account_json(changed))


@accounts.put("/accounts/{account}/credit-limit", openapi_extra=takes(Role.CARE))
async def set_credit_limit(request: Request, account: str, body: LimitChange) -> Response:
    """Say how far below zero an account may go."""
    context = context_of(request)
    before = await account_meant(context.store, account)
    limit = _micro(body.credit_limit)
    changed = await directory.set_credit_limit(context.store, before.account_id, limit, context.clock(), body.reason)
    await tell_of_credit(context.store, before)
    return ExactResponse(account_json(changed))


@accounts.put("/accounts/{account}/expiry", openapi_extra=takes(Role.CARE))
async def set_expiry(request: Request, account: str, body: ExpiryChange) -> Response:
    """Say when a prepaid account expires; one that is in grace is in service again."""
    context = context_of(request)
    before = await account_meant(context.store, account)
    expires_ms = 0 if body.expires is None else moment_ms(body.expires.isoformat(), "expires")
    changed = await directory.set_expiry(context.store, before.account_id, expires_ms, context.clock(), body.reason)
    await standing_has_changed(context.store, changed.account_id)
    return ExactResponse(account_json(changed))


# -- subscribers -------------------------------------------------------------------------------------------------------


class Identity(Given):
    type: Literal["e164", "imsi", "sip_uri", "nai", "private"]
    value: Annotated[str, StringConstraints(min_length=1, max_length=255)]


class NewSubscriber(Given):
    subscriber: Name
    account: Name
    plan: Name
    identities: list[Identity] = []
    segment: Annotated[str, StringConstraints(max_length=64)] = ""
    reason: Reason = "management API"


class PlanChange(Given):
    plan: Name
    at: AwareDatetime | None = None
    """From when on; left out: now."""
    reason: Reason = "management API"


@lines.get("/subscribers", openapi_extra=takes(Role.VIEWER))
async def list_subscribers(
    request: Request,
    account: Annotated[str, Query(max_length=64, description="Account that they belong to, or that pays for them.")],
    fields: Fields = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """The subscribers that belong to an account, and those that it pays for, by name."""
    store = context_of(request).store
    owner = await account_meant(store, account)
    found: dict[bytes, Subscriber] = {}
    for pages in (subscribers.members(store, owner.account_id), structure.paid_subscribers(store, owner.account_id)):
        async for several in pages:
            found |= {each.subscriber_id: each for each in several}
    documents = [subscriber_json(found[name]) for name in sorted(found)]
    return page(documents, offset, limit, _with_name(fields, "subscriber"))


@lines.post("/subscribers", status_code=201, openapi_extra=takes(Role.CARE))
async def add_subscriber(request: Request, body: NewSubscriber) -> Response:
    """Add a subscriber under its identities; each belongs to one subscriber only."""
    context = context_of(request)
    caller_of(request).concerned = f"subscriber {body.subscriber}"
    owner = await account_meant(context.store, body.account)
    _check_plan(context, body.plan, owner.currency)
    now_ms = context.clock()
    new = Subscriber(
        name_octets(body.subscriber),
        owner.account_id,
        body.plan,
        tuple(_identity(each) for each in body.identities),
        activated_ms=now_ms,
        segment=body.segment,
    )
    entered = await structure.add_member(context.store, new, now_ms, body.reason)
    if entered is None:
        raise conflict(f"subscriber {body.subscriber} exists already; nothing was changed")
    await bring_up_to_date(context.store, context.catalogue, entered, now_ms, body.reason)
    return ExactResponse(subscriber_json(entered), 201, {"Location": f"{BASE}/subscribers/{body.subscriber}"})


def _identity(given: Identity) -> tuple[int, bytes]:
    kind = IdentityType[given.type.upper()]
    return int(kind), name_octets(given.value.removeprefix("+") if kind == IdentityType.E164 else given.value)


def _check_plan(context: Context, plan: str, currency: int) -> None:
    catalogue = context.catalogue
    if plan not in catalogue.plans:
        raise bad_request(f"plan: the catalogue has no plan {plan[:40]!r}{nearest(plan, catalogue.plans)}")
    if currency != catalogue.currency_of(plan):
        wanted = currency_name(catalogue.currency_of(plan))
        raise conflict(f"the account is in {currency_name(currency)}, but the prices of plan {plan} are in {wanted}")


@lines.get("/subscribers/{subscriber}", openapi_extra=takes(Role.VIEWER))
async def show_subscriber(request: Request, subscriber: str, fields: Fields = None) -> Response:
    """A subscriber, by its name or one of its identities."""
    found = subscriber_json(await subscriber_meant(context_of(request).store, subscriber))
    return ExactResponse(selected(found, _with_name(fields, "subscriber")))


@lines.post("/subscribers/{subscriber}/state", openapi_extra=takes(Role.CARE))
async def set_subscriber_state(request: Request, subscriber: str, body: StateChange) -> Response:
    """Activate, suspend, block or terminate a subscriber; its running sessions ask anew at once."""
    context = context_of(request)
    store, now_ms = context.store, context.clock()
    found = await subscriber_meant(store, subscriber)
    changed = await subscribers.set_subscriber_state(
        store, found.subscriber_id, LifeState[body.state.upper()], now_ms, body.reason, check_change
    )
    await bring_up_to_date(store, context.catalogue, changed, now_ms, body.reason)
    for account_id in await subscribers.session_accounts(store, changed):
        await standing_has_changed(store, account_id, changed.subscriber_id)
    return ExactResponse(subscriber_json(changed))


@lines.post("/subscribers/{subscriber}/plan", openapi_extra=takes(Role.CARE))
async def change_plan(request: Request, subscriber: str, body: PlanChange) -> Response:
    """Change the plan, now or later; sessions keep the plan they began with."""
    context = context_of(request)
    store, now_ms = context.store, context.clock()
    found = await subscriber_meant(store, subscriber)
    payer = await account_meant(store, text_of(found.account_id))
    _check_plan(context, body.plan, payer.currency)
    from_ms = now_ms if body.at is None else moment_ms(body.at.isoformat(), "at")
    if from_ms < now_ms:
        raise LedgerError("at: the time is past; left out, the plan changes now")
    changed = await subscribers.change_plan(store, found.subscriber_id, body.plan, from_ms, now_ms, body.reason)
    await bring_up_to_date(store, context.catalogue, changed, now_ms, body.reason)
    return ExactResponse(subscriber_json(changed))
