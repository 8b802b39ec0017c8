"""How customers are reached: language, addresses by preference, what they want to be told and when.

A contact is stored beside the subscriber or account that has it, under a key of its own: nothing that charges reads it.
Whoever has none is told by SMS to its MSISDN.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgpack

from balance.model import IdentityType, LedgerError, LifeState, Subscriber
from balance.notices import CLASSES
from balance.resp import StoreError
from balance.store import Store
from balance.subscribers import CHANGE_ATTEMPTS, members, subscriber_named

MEDIA: Final = ("sms", "email", "telegram", "webhook")
MOST_ADDRESSES: Final = 8
FORMAT: Final = 1

_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_ADDRESSES: Final[dict[str, tuple[re.Pattern[str], int, str]]] = {
    "sms": (re.compile(r"[1-9][0-9]{3,14}"), 15, "an E.164 number of 4 to 15 digits"),
    "email": (
        re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"),
        254,
        "an address such as name@example.net, in ASCII",
    ),
    "telegram": (re.compile(r"-?[0-9]{1,20}|@[A-Za-z0-9_]{4,64}"), 65, "a chat identifier, a number, or @name"),
    "webhook": (re.compile(r"https?://[\x21-\x7e]+"), 2000, "a URL that begins with https://"),
}

_COMPARE_AND_SET: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Contact:
    """How one subscriber or account is reached; what is empty or None is as the operator has it by default."""

    language: str = ""
    """A code such as "de"."""
    channels: tuple[tuple[str, str], ...] = ()
    """(one of MEDIA, address), the preferred one first; none: SMS to its MSISDN."""
    consent: Mapping[str, bool] = field(default_factory=dict)
    """By class of notice; left out: yes, but for marketing."""
    quiet: tuple[int, int] | None = None
    """From when to when, minutes of the local day, marketing waits; both equal: never. None: the operator's hours."""
    time_zone: str = ""
    """Such as "Europe/Berlin"."""

    def wants(self, klass: str) -> bool:
        """Whether it agrees to notices of a class."""
        return self.consent.get(klass, klass != "marketing")

    def check(self) -> None:
        """Raises LedgerError, one sentence, for a contact that cannot be."""
        if self.language and not _LANGUAGE.fullmatch(self.language):
            raise LedgerError(f"{self.language[:40]!r} is no language such as en or de")
        if len(self.channels) > MOST_ADDRESSES:
            raise LedgerError(f"a contact can have {MOST_ADDRESSES} addresses, not {len(self.channels)}")
        if len(set(self.channels)) != len(self.channels):
            raise LedgerError("an address is given twice")
        for medium, address in self.channels:
            check_address(medium, address)
        for klass in self.consent:
            if klass not in CLASSES:
                raise LedgerError(f"{klass[:40]!r} is no class of notices; there are {', '.join(CLASSES)}")
        if self.quiet is not None and not all(0 <= minute < 1440 for minute in self.quiet):
            raise LedgerError("quiet hours are from 00:00 to 23:59")
        if self.time_zone:
            try:
                ZoneInfo(self.time_zone)
            except (KeyError, OSError, ValueError):
                raise LedgerError(f"{self.time_zone[:60]!r} is no time zone such as Europe/Berlin") from None


def check_address(medium: str, address: str) -> None:
    """Raises LedgerError."""
    if medium not in _ADDRESSES:
        raise LedgerError(f"{medium[:40]!r} is no medium; there are {', '.join(MEDIA)}")
    pattern, longest, wanted = _ADDRESSES[medium]
    if len(address) > longest or not pattern.fullmatch(address):
        raise LedgerError(f"{address[:80]!r} is no address for {medium}: it must be {wanted}")


# -- as text, for command lines and files ------------------------------------------------------------------------------


def parse_channel(written: str) -> tuple[str, str]:
    """ "sms:+491700000001" as (medium, address). Raises LedgerError."""
    medium, colon, address = written.strip().partition(":")
    if not colon:
        raise LedgerError(f"{written[:80]!r} does not say medium and address, such as email:name@example.net")
    address = address.strip()
    pair = (medium.strip(), address.removeprefix("+") if medium.strip() == "sms" else address)
    check_address(*pair)
    return pair


def parse_quiet(written: str) -> tuple[int, int]:
    """ "21:00-08:00" in minutes of the day; "none" is never. Raises LedgerError."""
    if written.strip() == "none":
        return 0, 0
    begin, _, end = (part.strip() for part in written.partition("-"))
    found = _TIME.fullmatch(begin), _TIME.fullmatch(end)
    if found[0] is None or found[1] is None:
        raise LedgerError(f"{written[:40]!r} are no quiet hours such as 21:00-08:00, nor 'none'")
    first, second = (int(each.group(1)) * 60 + int(each.group(2)) for each in found if each is not None)
    if first == second:
        raise LedgerError("quiet hours that end when they begin: say 'none' for never")
    return first, second


def quiet_text(quiet: tuple[int, int]) -> str:
    begin, end = quiet
    return "none" if begin == end else f"{begin // 60:02d}:{begin % 60:02d}-{end // 60:02d}:{end % 60:02d}"


def as_fields(contact: Contact) -> dict[str, str]:
    """All of a contact in flat text, empty where it has the default; ``from_fields`` reads it."""
    return {
        "language": contact.language,
        "channels": " ".join(f"{medium}:{'+' if medium == 'sms' else ''}{to}" for medium, to in contact.channels),
        "consent": " ".join(
            f"{klass}={'yes' if agreed else 'no'}" for klass, agreed in sorted(contact.consent.items())
        ),
        "quiet_hours": "" if contact.quiet is None else quiet_text(contact.quiet),
        "time_zone": contact.time_zone,
    }


def from_fields(fields: Mapping[str, str]) -> Contact:
    """A contact from what ``as_fields`` wrote; fields left out are empty. Raises LedgerError."""
    quiet = fields.get("quiet_hours", "")
    contact = Contact(
        fields.get("language", ""),
        tuple(parse_channel(each) for each in fields.get("channels", "").split()),
        dict(parse_consent(each) for each in fields.get("consent", "").split()),
        parse_quiet(quiet) if quiet else None,
        fields.get("time_zone", ""),
    )
    contact.check()
    return contact


def parse_consent(written: str) -> tuple[str, bool]:
    """ "marketing=yes" as (class, agreed). Raises LedgerError."""
    klass, _, answer = written.strip().partition("=")
    if klass not in CLASSES or answer not in ("yes", "no"):
        raise LedgerError(f"{written[:60]!r} is no consent: a class ({', '.join(CLASSES)}), '=', and yes or no")
    return klass, answer == "yes"


# -- in the store ------------------------------------------------------------------------------------------------------


def _pack(contact: Contact) -> bytes:
    packed: bytes = msgpack.packb(
        (FORMAT, contact.language, contact.channels, dict(contact.consent), contact.quiet, contact.time_zone)
    )
    return packed


def unpack_contact(packed: bytes) -> Contact:
    """A contact as it is stored. Raises StoreError."""
    form, *fields = msgpack.unpackb(packed, use_list=False)
    if form != FORMAT:
        raise StoreError(f"a contact in the store has format {form}, which this version cannot read")
    return Contact(*fields)


async def read_contact(store: Store, key: bytes) -> Contact | None:
    """What is stored under ``Keys.contact`` or ``Keys.contact_of``, if anything. Raises StoreError."""
    packed = await store.call("GET", key)
    return None if packed is None else unpack_contact(packed)


async def change_contact(store: Store, key: bytes, change: Callable[[Contact], Contact]) -> Contact:
    """The contact after ``change``, which may be called again if somebody else was faster.

    Raises LedgerError, StoreError.
    """
    for _ in range(CHANGE_ATTEMPTS):
        packed = await store.call("GET", key) or b""
        after = change(unpack_contact(packed) if packed else Contact())
        after.check()
        value = b"" if after == Contact() else _pack(after)
        if value == packed or await store.run_script(_COMPARE_AND_SET, [key], packed, value):
            return after
    raise LedgerError("the contact is changed by others all the time; try again")


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a notice goes to."""

    subscriber_id: bytes
    """Empty: the account has a contact of its own, or no subscriber."""
    number: str
    """Its first MSISDN, without "+"; empty: it has none."""
    contact: Contact
    """As it is stored; an account's or empty where it has none of its own. Without addresses: those by default."""


async def find_recipient(store: Store, account_id: bytes, subscriber_id: bytes) -> Recipient:
    """Whom a notice to an account or one of its subscribers goes to. Raises StoreError.

    To a subscriber: by its own contact, else its account's. To an account: by its own contact, else that of its first
    subscriber, by name, that has not been terminated.
    """
    of_account = await read_contact(store, store.keys.contact_of(account_id)) if account_id else None
    if not subscriber_id and of_account is not None and of_account.channels:
        return Recipient(b"", "", of_account)
    subscriber = (
        await subscriber_named(store, subscriber_id) if subscriber_id else await _first_member(store, account_id)
    )
    if subscriber is None:
        return Recipient(b"", "", _with_number(of_account or Contact(), ""))
    number = next((value.decode() for kind, value in subscriber.identities if kind == IdentityType.E164), "")
    contact = await read_contact(store, store.keys.contact(subscriber.subscriber_id)) or of_account or Contact()
    return Recipient(subscriber.subscriber_id, number, _with_number(contact, number))


def _with_number(contact: Contact, number: str) -> Contact:
    """With the address that a contact without any has."""
    if contact.channels or not number:
        return contact
    return replace(contact, channels=(("sms", number),))


async def _first_member(store: Store, account_id: bytes) -> Subscriber | None:
    first: Subscriber | None = None
    async for page in members(store, account_id):
        for each in page:
            if each.state != LifeState.TERMINATED and (first is None or each.subscriber_id < first.subscriber_id):
                first = each
    return first


def contact_document(contact: Contact) -> dict[str, Any]:
    """A contact as JSON shows it; None where it has the default."""
    return {
        "language": contact.language or None,
        "channels": [{"medium": medium, "address": address} for medium, address in contact.channels],
        "consent": {klass: contact.wants(klass) for klass in CLASSES},
        "quiet_hours": None if contact.quiet is None else quiet_text(contact.quiet),
        "time_zone": contact.time_zone or None,
    }
