"""Buckets as TMF654 sees them, and amounts between its units and the ledger's.

A bucket is named by its account and its number in it: ``acc-491700000001:1``. Amounts are exact in both directions: one
that is not a whole number of the ledger's units is refused, not rounded.
"""

from collections.abc import Iterable
from decimal import Decimal, localcontext
from typing import Any, Final

from balance.accounts import Account
from balance.ledger import Draft
from balance.model import LARGEST, MAIN_BUCKET, MICRO, Bucket, LifeState, Unit
from balance.store import Store
from balance.structure import paid_subscribers
from occ.api.context import account_meant
from occ.api.errors import ApiError, bad_request, not_found
from occ.api.tmf_models import Quantity, UsageType
from occ.cli_shell import text_of, time_json, units_text
from occ.rating.currency import currency_name

BASE: Final = "/tmf-api/prepayBalanceManagement/v4"

USAGE: Final = {
    Unit.MONEY: UsageType.MONETARY,
    Unit.OCTETS: UsageType.DATA,
    Unit.SECONDS: UsageType.VOICE,
    Unit.EVENTS: UsageType.SMS,
}
_MADE_OF: Final = {
    Unit.OCTETS: {
        "B": 1, "byte": 1, "bytes": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    },
    Unit.SECONDS: {"s": 1, "second": 1, "seconds": 1, "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hour": 3600,
                   "hours": 3600},
    Unit.EVENTS: {"event": 1, "events": 1, "sms": 1, "SMS": 1, "unit": 1, "units": 1},
}  # fmt: skip
_WRITTEN: Final = {Unit.OCTETS: "B", Unit.SECONDS: "s", Unit.EVENTS: "event"}

Document = dict[str, Any]


def bucket_name(account: Account, bucket_id: int) -> str:
    return f"{text_of(account.account_id)}:{bucket_id}"


def quantity(amount: int, unit: int, currency: int) -> Document:
    """An amount of the ledger."""
    if unit == Unit.MONEY:
        return {"amount": _tidy(Decimal(amount) / MICRO), "units": currency_name(currency)}
    return {"amount": amount, "units": _WRITTEN[Unit(unit)]}


def _tidy(value: Decimal) -> Decimal:
    """At least two decimals, no zeros after them."""
    normal = value.normalize()
    exponent = normal.as_tuple().exponent
    assert isinstance(exponent, int)
    return normal if exponent < -2 else value.quantize(Decimal("0.01"))


def units_of(given: Quantity, bucket: Bucket, currency: int, usage_type: UsageType) -> int:
    """An amount in units of the ledger. Raises ApiError if it cannot be one of the bucket."""
    unit = Unit(bucket.unit)
    expected = USAGE[unit]
    if usage_type != expected and not (unit == Unit.EVENTS and usage_type == UsageType.OTHER):
        raise bad_request(f"usageType: bucket {bucket.bucket_id} is {expected}, not {usage_type}")
    if given.amount is None:
        raise bad_request("amount.amount is missing")
    made_of = {currency_name(currency): MICRO} if unit == Unit.MONEY else _MADE_OF[unit]
    written = given.units if given.units is not None else next(iter(made_of))
    if written not in made_of:
        raise bad_request(f"amount.units: {written[:20]!r} is not one of {', '.join(made_of)}")
    with localcontext() as exact:
        exact.prec = 200
        if len(given.amount.as_tuple().digits) > 60 or not -40 < given.amount.adjusted() < 40:
            raise bad_request("amount.amount has too many digits")
        units = given.amount * made_of[written]
        if units != units.to_integral_value():
            smallest = "a millionth" if unit == Unit.MONEY else f"1 {_WRITTEN[unit]}"
            raise bad_request(f"amount.amount: {given.amount} {written} is not a whole number of {smallest}")
        if abs(units) > LARGEST:
            raise bad_request("amount.amount is more than an account can hold")
        return int(units)


async def bucket_meant(store: Store, name: str, party_account: str | None, what: str) -> tuple[Account, Bucket]:
    """The bucket that a request names. Raises ApiError if there is none, or it is of another account than it says."""
    account_name, separator, number = name.rpartition(":")
    if not separator or not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise bad_request(f"{what}.id must be ACCOUNT:NUMBER, such as acc-491700000001:1, not {name[:80]!r}")
    if party_account not in (None, account_name):
        raise bad_request(f"{what}.id is of account {account_name[:80]}, but partyAccount.id says {party_account}")
    account = await account_meant(store, account_name)
    bucket = account.bucket(int(number))
    if bucket is None:
        raise not_found(f"account {account_name} has no bucket {number}")
    return account, bucket


async def resources_of(store: Store, account: Account) -> list[Document]:
    """The lines that an account pays for, as logical resources. Raises StoreError."""
    found = []
    async for several in paid_subscribers(store, account.account_id):
        found += [
            {"id": text_of(each.subscriber_id), "name": "subscriber", "@referredType": "LogicalResource"}
            for each in several
        ]
    return sorted(found, key=lambda each: str(each["id"]))


def account_reference(account: Account) -> Document:
    name = text_of(account.account_id)
    return {
        "id": name,
        "href": f"/occ/v1/accounts/{name}",
        "name": name,
        "status": LifeState(account.state).name.lower(),
        "@referredType": "PartyAccount",
    }


def bucket_document(account: Account, bucket: Bucket, now_ms: int) -> Document:
    """A bucket without its logical resources."""
    name = bucket_name(account, bucket.bucket_id)
    expired = bool(bucket.expires_ms) and bucket.expires_ms <= now_ms
    status = "expired" if expired else "active" if account.state == LifeState.ACTIVE else "suspended"
    document = {
        "id": name,
        "href": f"{BASE}/bucket/{name}",
        "@type": "Bucket",
        "name": bucket.name or ("main" if bucket.bucket_id == MAIN_BUCKET else f"bucket {bucket.bucket_id}"),
        "usageType": str(USAGE[Unit(bucket.unit)]),
        "status": status,
        "isShared": not bucket.owner,
        "remainingValue": quantity(bucket.balance - bucket.reserved, bucket.unit, account.currency),
        "remainingValueName": units_text(bucket.balance - bucket.reserved, Unit(bucket.unit), account.currency),
        "reservedValue": quantity(bucket.reserved, bucket.unit, account.currency),
        "partyAccount": account_reference(account),
    }
    if bucket.expires_ms:
        document["validFor"] = {"endDateTime": time_json(bucket.expires_ms)}
    return document


def accumulated_documents(account: Account, now_ms: int) -> list[Document]:
    """What an account has in all, of each kind of usage: what can be used now."""
    draft = Draft(account, now_ms)
    found = []
    for unit, usage in USAGE.items():
        buckets = [each for each in account.buckets if each.unit == unit]
        live = [each for each in buckets if not each.expires_ms or each.expires_ms > now_ms]
        if not live:
            continue
        total = sum(each.balance - each.reserved for each in live)
        free = sum(draft.free(each) for each in live)
        name = f"{text_of(account.account_id)}:{usage}"
        found.append(
            {
                "id": name,
                "href": f"{BASE}/accumulatedBalance/{name}",
                "@type": "AccumulatedBalance",
                "name": str(usage),
                "description": f"{units_text(free, unit, account.currency)} can be spent, credit limit included",
                "totalBalance": quantity(total, unit, account.currency),
                "bucket": [bucket_reference(account, each.bucket_id) for each in live],
                "partyAccount": account_reference(account),
            }
        )
    return found


def bucket_reference(account: Account, bucket_id: int) -> Document:
    name = bucket_name(account, bucket_id)
    return {"id": name, "href": f"{BASE}/bucket/{name}", "@referredType": "Bucket"}


def first_id(documents: Iterable[Document], otherwise: str) -> str:
    return next((str(each["id"]) for each in documents), otherwise)


def wrong_id(kind: str, written: str) -> ApiError:
    return not_found(f"there is no {kind} {written[:80]}")
