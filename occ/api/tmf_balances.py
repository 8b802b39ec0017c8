"""TMF654, reading: bucket, accumulatedBalance, balanceActionHistory."""

from collections.abc import Callable
from heapq import nsmallest
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from balance.accounts import Account
from balance.directory import accounts, read_account
from balance.journal import PAGE_ENTRIES, history, read_record
from balance.model import Unit
from balance.records import JournalRecord
from balance.store import Store
from balance.tokens import Role
from occ.api.access import router, takes
from occ.api.context import account_meant, context_of, subscriber_meant
from occ.api.errors import ApiError
from occ.api.exact_json import ExactResponse
from occ.api.queries import Fields, Filters, Limit, Offset, page, selected
from occ.api.tmf_view import (
    BASE,
    USAGE,
    Document,
    accumulated_documents,
    bucket_document,
    bucket_meant,
    bucket_reference,
    first_id,
    quantity,
    resources_of,
    wrong_id,
)
from occ.cli_shell import name_octets, text_of, time_json

BUCKET: Final = frozenset(
    ("id", "href", "@type", "name", "usageType", "status", "isShared", "remainingValue", "remainingValueName",
     "reservedValue", "partyAccount", "validFor", "logicalResource", "relatedParty")
)  # fmt: skip
ACCUMULATED: Final = frozenset(
    ("id", "href", "@type", "name", "description", "totalBalance", "bucket", "partyAccount", "logicalResource")
)
HISTORY: Final = frozenset(
    ("id", "href", "@type", "status", "reason", "description", "amount", "bucket", "usageType", "partyAccount",
     "confirmationDate", "requestedDate", "receiverLogicalResource", "logicalResource")
)  # fmt: skip
ACTS: Final = frozenset(("create", "top-up", "adjust", "transfer-in", "transfer-out", "add-bucket", "import"))
"""Operations of the journal that are acts on a balance, not the use of a service."""
RECORDS_OF_ACCOUNT: Final = 10_000
ENTRIES_LOOKED_AT: Final = 20_000
"""Of the journal, where no account is named: the newest."""

balances = router(BASE, "TMF654 balances")


async def _named_account(store: Store, filters: Filters) -> Account | None:
    """The account that a list is to be of; None: of all. Raises ApiError if the one that is named does not exist."""
    account = filters.take("partyAccount", "id")
    if account is not None:
        return await account_meant(store, account)
    line = filters.take("logicalResource", "id") or filters.take("relatedParty", "id")
    if line is not None:
        subscriber = await subscriber_meant(store, line.removeprefix("+"))
        return await account_meant(store, text_of(subscriber.account_id))
    return None


async def _list(
    request: Request,
    attributes: frozenset[str],
    make: Callable[[Account, int], list[Document]],
    offset: int,
    limit: int,
    fields: str | None,
) -> Response:
    context = context_of(request)
    filters, now_ms = Filters(request, attributes), context.clock()
    try:
        account = await _named_account(context.store, filters)
    except ApiError as error:
        if error.status != 404:
            raise
        return page([], offset, limit, fields)
    total = 0
    found: list[Document] = []
    if account is not None:
        found = [each for each in make(account, now_ms) if filters.match(each)]
        total = len(found)
    else:
        async for several in accounts(context.store):
            new = [each for one in several for each in make(one, now_ms) if filters.match(each)]
            total += len(new)
            found = nsmallest(offset + limit, found + new, key=lambda each: str(each["id"]))
    for each in found[offset : offset + limit]:
        owner = account or await read_account(context.store, name_octets(each["partyAccount"]["id"]))
        if owner is not None:
            each["logicalResource"] = await resources_of(context.store, owner)
    return page(found, offset, limit, fields, total)


def _buckets(account: Account, now_ms: int) -> list[Document]:
    return [bucket_document(account, bucket, now_ms) for bucket in account.buckets]


@balances.get("/bucket", openapi_extra=takes(Role.VIEWER))
async def list_buckets(request: Request, fields: Fields = None, offset: Offset = 0, limit: Limit = 100) -> Response:
    """Buckets by name. Filter by partyAccount.id or logicalResource.id, or the whole store is looked through."""
    return await _list(request, BUCKET, _buckets, offset, limit, fields)


@balances.get("/bucket/{id}", openapi_extra=takes(Role.VIEWER))
async def show_bucket(request: Request, id: str, fields: Fields = None) -> Response:  # noqa: A002 - as TMF654 has it
    """One bucket."""
    context = context_of(request)
    try:
        account, bucket = await bucket_meant(context.store, id, None, "bucket")
    except ApiError as error:
        raise wrong_id("bucket", id) from error
    document = bucket_document(account, bucket, context.clock())
    document["logicalResource"] = await resources_of(context.store, account)
    return ExactResponse(selected(document, fields))


@balances.get("/accumulatedBalance", openapi_extra=takes(Role.VIEWER))
async def list_accumulated(request: Request, fields: Fields = None, offset: Offset = 0, limit: Limit = 100) -> Response:
    """What accounts have in all, by kind of usage. Filter as for buckets."""
    return await _list(request, ACCUMULATED, accumulated_documents, offset, limit, fields)


@balances.get("/accumulatedBalance/{id}", openapi_extra=takes(Role.VIEWER))
async def show_accumulated(request: Request, id: str, fields: Fields = None) -> Response:  # noqa: A002
    """What one account has of one kind of usage."""
    context = context_of(request)
    account_name, _, _ = id.rpartition(":")
    account = await read_account(context.store, name_octets(account_name))
    found = [] if account is None else accumulated_documents(account, context.clock())
    for document in found:
        if document["id"] == id and account is not None:
            document["logicalResource"] = await resources_of(context.store, account)
            return ExactResponse(selected(document, fields))
    raise wrong_id("accumulatedBalance", id)


# -- history -----------------------------------------------------------------------------------------------------------


@balances.get("/balanceActionHistory", openapi_extra=takes(Role.VIEWER))
async def list_history(request: Request, fields: Fields = None, offset: Offset = 0, limit: Limit = 100) -> Response:
    """What was done to balances by hand, the newest first: top-ups, adjustments, transfers, however they were made.

    Filter by partyAccount.id or logicalResource.id, or only the newest part of the journal is looked through.
    """
    store = context_of(request).store
    filters = Filters(request, HISTORY)
    try:
        account = await _named_account(store, filters)
    except ApiError as error:
        if error.status != 404:
            raise
        return page([], offset, limit, fields)
    if account is not None:
        records = await history(store, account.account_id, RECORDS_OF_ACCOUNT)
    else:
        records = await _newest(store)
    records = [record for record in records if record.operation in ACTS and record.changes]
    owners: dict[bytes, tuple[Account, list[Document]] | None] = {}
    found: list[Document] = []
    for record in records:
        if record.account_id not in owners:
            owner = account or await read_account(store, record.account_id)
            owners[record.account_id] = None if owner is None else (owner, await resources_of(store, owner))
        known = owners[record.account_id]
        if known is not None:
            document = _history_document(record, *known)
            if filters.match(document):
                found.append(document)
    return page(found, offset, limit, fields)


async def _newest(store: Store) -> list[JournalRecord]:
    found: list[JournalRecord] = []
    for lane in store.keys.lanes():
        before = b"+"
        for _ in range(ENTRIES_LOOKED_AT // PAGE_ENTRIES):
            several = await store.call("XREVRANGE", store.keys.journal(lane), before, "-", "COUNT", PAGE_ENTRIES)
            for entry_id, packed in several:
                found += [read_record(entry_id, each) for each in reversed(packed[1::2])]
            if len(several) < PAGE_ENTRIES:
                break
            before = b"(" + several[-1][0]
    return sorted(found, key=lambda record: record.at_ms, reverse=True)


@balances.get("/balanceActionHistory/{id}", openapi_extra=takes(Role.VIEWER))
async def show_history(request: Request, id: str, fields: Fields = None) -> Response:  # noqa: A002
    """One act on a balance."""
    store = context_of(request).store
    account_name, _, version = id.rpartition(":")
    account = await read_account(store, name_octets(account_name))
    if account is not None:
        for record in await history(store, account.account_id, RECORDS_OF_ACCOUNT):
            if str(record.version) == version and record.operation in ACTS and record.changes:
                document = _history_document(record, account, await resources_of(store, account))
                return ExactResponse(selected(document, fields))
    raise wrong_id("balanceActionHistory", id)


def _history_document(record: JournalRecord, account: Account, resources: list[Document]) -> Document:
    change = record.changes[0]
    bucket = account.bucket(change.bucket_id)
    unit = Unit.MONEY if bucket is None else Unit(bucket.unit)
    name = f"{text_of(account.account_id)}:{record.version}"
    at = time_json(record.at_ms)
    reason: list[Any] = [text_of(part) if isinstance(part, bytes) else str(part) for part in record.reason]
    return {
        "id": name,
        "href": f"{BASE}/balanceActionHistory/{name}",
        "@type": "BalanceActionHistory",
        "description": record.operation,
        "reason": ", ".join(reason),
        "status": "completed",
        "requestedDate": at,
        "confirmationDate": at,
        "amount": quantity(change.balance_delta, unit, account.currency),
        "usageType": str(USAGE[unit]),
        "bucket": bucket_reference(account, change.bucket_id),
        "partyAccount": {"id": text_of(account.account_id), "@referredType": "PartyAccount"},
        "logicalResource": resources,
        "receiverLogicalResource": {
            "id": first_id(resources, text_of(account.account_id)),
            "@referredType": "LogicalResource",
        },
    }
