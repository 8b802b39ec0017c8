"""The kinds of rows of a bulk file, their columns, and the rows themselves once they are read.

A CSV file has rows of one kind; a line of JSON Lines is an account whose other rows stand in it, by the same names.
What a row leaves out is None and stays as it is, or becomes the default of something new.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgpack

from balance.model import IdentityType
from occ.bulk import values
from occ.yamlmap import nearest


class Kind(StrEnum):
    """What a row is about; the value is how files and JSON call it."""

    ACCOUNTS = "accounts"
    BUCKETS = "buckets"
    OFFERS = "offers"
    METERS = "meters"
    UNITS = "units"
    SUBSCRIBERS = "subscribers"


DETAILS: Final = (Kind.BUCKETS, Kind.OFFERS, Kind.METERS)
"""What is part of an account's own record."""


Said = tuple[tuple[str, str], ...]
"""What a row says of a contact: (column, text)."""


class AccountRow(NamedTuple):
    account: bytes
    kind: int | None = None
    currency: int | None = None
    balance_micro: int | None = None
    credit_limit_micro: int | None = None
    state: int | None = None
    expires_ms: int | None = None
    cycle_day: int | None = None
    contact: Said = ()


class BucketRow(NamedTuple):
    account: bytes
    name: str
    unit: int
    amount: int
    priority: int | None = None
    expires_ms: int | None = None
    owner: bytes = b""
    number: int | None = None
    """Tells apart buckets that are alike in everything."""


class OfferRow(NamedTuple):
    account: bytes
    name: str
    since_ms: int | None = None
    next_ms: int | None = None
    owner: bytes = b""
    unpaid_ms: int | None = None
    paid_micro: int | None = None


class MeterRow(NamedTuple):
    account: bytes
    name: str
    resets_ms: int
    units: int = 0
    micro: int = 0


class UnitRow(NamedTuple):
    account: bytes
    unit: bytes
    kind: int | None = None
    name: str | None = None
    parent: bytes | None = None
    pays: int | None = None


class SubscriberRow(NamedTuple):
    account: bytes
    subscriber: bytes
    plan: str | None = None
    identities: tuple[tuple[int, bytes], ...] = ()
    """Of the types that the row names; it says nothing of others."""
    state: int | None = None
    cap_day_micro: int | None = None
    cap_month_micro: int | None = None
    activated_ms: int | None = None
    segment: str | None = None
    friends: tuple[bytes, ...] | None = None
    next_plan: str | None = None
    next_plan_ms: int | None = None
    contact: Said = ()


Detail = BucketRow | OfferRow | MeterRow
AnyRow = AccountRow | Detail | UnitRow | SubscriberRow


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a kind of row."""

    name: str
    read: values.Read
    write: values.Write
    aliases: tuple[str, ...] = ()
    """What else it is called in files of other systems."""
    money: bool = False
    """It holds decimals, whose point some countries write as a comma."""


_ACCOUNT: Final = Column(
    "account", values.read_name, values.write_name, ("account_id", "account_number", "account_no", "customer_account")
)
_OWNER: Final = Column("owner", values.read_name, values.write_name, ("subscriber", "member"))

CONTACT_COLUMNS: Final = ("language", "channels", "consent", "quiet_hours", "time_zone")
"""How an account or a subscriber is reached (``balance.contacts``)."""

LIST_COLUMNS: Final = frozenset(("msisdn", "imsi", "sip_uri", "nai", "private", "friends", "channels", "consent"))
"""Several words in a cell, a list in JSON."""

_CONTACT: Final = tuple(Column(name, values.read_contact(name), values.write_text) for name in CONTACT_COLUMNS)

COLUMNS: Final[dict[Kind, tuple[Column, ...]]] = {
    Kind.ACCOUNTS: (
        _ACCOUNT,
        Column("kind", values.read_kind, values.write_kind, ("type", "account_type", "payment_type")),
        Column("currency", values.read_currency, values.write_currency, ("currency_code",)),
        Column("balance", values.read_money, values.write_money, ("main_balance", "opening_balance", "amount"), True),
        Column("credit_limit", values.read_positive_money, values.write_money, ("limit", "creditlimit"), True),
        Column("state", values.read_state, values.write_state, ("status",)),
        Column("expires", values.read_end, values.write_moment, ("expiry", "expiry_date", "valid_until", "expires_at")),
        Column("cycle_day", values.read_day, values.write_whole, ("bill_cycle_day", "billing_day")),
        *_CONTACT,
    ),
    Kind.BUCKETS: (
        _ACCOUNT,
        Column("name", values.read_text, values.write_text, ("bucket", "allowance", "bonus", "bundle")),
        Column("unit", values.read_unit, values.write_unit, ("units", "unit_type")),
        Column("amount", values.read_text, values.write_text, ("balance", "remaining", "value"), True),
        Column("priority", values.read_small, values.write_whole),
        Column("expires", values.read_end, values.write_moment, ("expiry", "expiry_date", "valid_until", "expires_at")),
        _OWNER,
        Column("number", values.read_small, values.write_whole, ("bucket_number", "bucket_id")),
    ),
    Kind.OFFERS: (
        _ACCOUNT,
        Column("offer", values.read_text, values.write_text, ("name", "product", "package")),
        Column("since", values.read_start, values.write_moment, ("from", "start", "activated")),
        Column("next", values.read_start, values.write_moment, ("next_charge", "renews", "next_renewal")),
        _OWNER,
        Column("unpaid", values.read_start, values.write_moment, ("unpaid_since",)),
        Column("paid", values.read_positive_money, values.write_money, (), True),
    ),
    Kind.METERS: (
        _ACCOUNT,
        Column("meter", values.read_text, values.write_text, ("name", "counter")),
        Column("resets", values.read_end, values.write_moment, ("reset",)),
        Column("used", values.read_whole, values.write_whole, ("units",)),
        Column("spent", values.read_positive_money, values.write_money, ("amount",), True),
    ),
    Kind.UNITS: (
        Column("unit", values.read_name, values.write_name, ("customer", "unit_id", "customer_id")),
        _ACCOUNT,
        Column("kind", values.read_unit_kind, values.write_unit_kind, ("type",)),
        Column("name", values.read_text, values.write_text, ("title",)),
        Column("parent", values.read_name, values.write_name, ("parent_id", "parent_unit", "below")),
        Column("pays", values.read_pays, values.write_pays, ("payer",)),
    ),
    Kind.SUBSCRIBERS: (
        Column("subscriber", values.read_name, values.write_name, ("subscriber_id", "line", "user", "username")),
        _ACCOUNT,
        Column("plan", values.read_text, values.write_text, ("tariff", "price_plan", "rate_plan")),
        Column("msisdn", values.read_numbers, values.write_list, ("e164", "number", "phone", "phone_number")),
        Column("imsi", values.read_numbers, values.write_list),
        Column("sip_uri", values.read_list, values.write_list, ("sip", "uri", "impu")),
        Column("nai", values.read_list, values.write_list, ("realm_user", "login")),
        Column("private", values.read_list, values.write_list, ("line_id", "private_id", "other_identity")),
        Column("state", values.read_state, values.write_state, ("status",)),
        Column("cap_day", values.read_positive_money, values.write_limit, ("daily_cap",), True),
        Column("cap_month", values.read_positive_money, values.write_limit, ("monthly_cap",), True),
        Column("activated", values.read_start, values.write_moment, ("activation_date", "active_since", "since")),
        Column("segment", values.read_text, values.write_text, ("customer_segment",)),
        Column("friends", values.read_numbers, values.write_list, ("friends_and_family", "fnf")),
        Column("next_plan", values.read_text, values.write_text),
        Column("next_plan_from", values.read_start, values.write_moment),
        *_CONTACT,
    ),
}

REQUIRED: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.ACCOUNTS: ("account",),
    Kind.BUCKETS: ("account", "amount"),
    Kind.OFFERS: ("account", "offer"),
    Kind.METERS: ("account", "meter", "resets"),
    Kind.UNITS: ("unit", "account"),
    Kind.SUBSCRIBERS: ("account",),
}
"""Columns that must be there, and be filled in every row."""

IGNORED: Final = ("line", "reason")
"""What a file of rejected rows has beside the columns it was made from."""

IDENTITY_COLUMNS: Final = {
    "msisdn": IdentityType.E164,
    "imsi": IdentityType.IMSI,
    "sip_uri": IdentityType.SIP_URI,
    "nai": IdentityType.NAI,
    "private": IdentityType.PRIVATE,
}

_BY_NAME: Final = {
    kind: {
        **{alias: column for column in columns for alias in column.aliases},
        **{column.name: column for column in columns},
    }
    for kind, columns in COLUMNS.items()
}


class RowError(Exception):
    """A row cannot be taken as it is; the message is one sentence, or several with ``;`` between them."""


def plain_name(written: str) -> str:
    """A heading without what people write differently: "Credit Limit" is credit_limit."""
    return "_".join(written.strip().casefold().replace("-", " ").replace("_", " ").split())


def find_column(kind: Kind, written: str, mapping: Mapping[str, str]) -> Column | None:
    """The column of that heading; None for one that is to be left out.

    ``mapping``: what ``--map`` says, from plain names to names of columns, or to nothing. Raises RowError.
    """
    name = plain_name(written)
    if name in mapping:
        name = mapping[name]
        if not name:
            return None
    if name in IGNORED:
        return None
    column = _BY_NAME[kind].get(name)
    if column is None:
        known = nearest(name, (column.name for column in COLUMNS[kind]))
        raise RowError(f"there is no column {values.shown(written.strip())} in {kind}{known}")
    return column


def read_cells(kind: Kind, cells: Iterable[tuple[Column, str]], decimal_comma: bool = False) -> dict[str, Any]:
    """The values of the cells that hold something, by the names of their columns. Raises RowError naming all faults."""
    found: dict[str, Any] = {}
    faults: list[str] = []
    for column, written in cells:
        text = written.strip()
        if not text:
            continue
        if decimal_comma and column.money:
            if "." in text:
                faults.append(f"{column.name}: {values.shown(text)} has a point, but decimals are to have a comma here")
                continue
            text = text.replace(",", ".")
        try:
            found[column.name] = column.read(text)
        except ValueError as error:
            faults.append(f"{column.name}: {error}")
    missing = [name for name in REQUIRED[kind] if name not in found]
    if faults or missing:
        named = {fault.partition(":")[0] for fault in faults}
        faults += [f"{name} is missing" for name in missing if name not in named]
        raise RowError("; ".join(faults))
    return found


def digest(row: AnyRow) -> str:
    """A short name of what a row says, for the journal: rows that say the same have the same."""
    # Contacts are no part of the account, which is what the journal is about.
    said = row[:-1] if isinstance(row, AccountRow | SubscriberRow) else row
    return blake2b(repr((type(row).__name__, *said)).encode(), digest_size=6).hexdigest()


_TYPES: Final[tuple[type[Any], ...]] = (AccountRow, BucketRow, OfferRow, MeterRow, UnitRow, SubscriberRow)


def pack_row(row: AnyRow) -> bytes:
    """A row for the spool."""
    packed: bytes = msgpack.packb((_TYPES.index(type(row)), *row))
    return packed


def unpack_row(packed: bytes) -> AnyRow:
    number, *fields = msgpack.unpackb(packed, use_list=False)
    row: AnyRow = _TYPES[number](*fields)
    return row
