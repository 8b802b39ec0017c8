"""Contacts: what can be one, how it is written as text, whom a notice goes to."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.contacts import (
    Contact,
    _pack,
    as_fields,
    change_contact,
    find_recipient,
    from_fields,
    parse_channel,
    parse_consent,
    parse_quiet,
    read_contact,
    unpack_contact,
)
from balance.directory import create_account
from balance.embedded import Address
from balance.keys import Keys
from balance.model import AccountKind, IdentityType, LedgerError, LifeState, Subscriber
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber

KEY = Keys.contact(b"sub-1")


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    await create_account(store, b"acc-1", AccountKind.PREPAID, 978, now_ms=1, reason="test")
    yield store
    await store.stop()


async def add(
    store: Store, name: bytes, *identities: tuple[IdentityType, bytes], state: LifeState = LifeState.ACTIVE
) -> None:
    known = tuple((int(kind), value) for kind, value in identities)
    await add_subscriber(store, Subscriber(name, b"acc-1", "standard", known, state=int(state)))


# -- what can be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "pair"),
    [
        ("sms:+491700000001", ("sms", "491700000001")),
        ("email:Ann.O'Hara+x@example.co.uk", ("email", "Ann.O'Hara+x@example.co.uk")),
        ("telegram:-100123", ("telegram", "-100123")),
        ("telegram:@operator_news", ("telegram", "@operator_news")),
        ("webhook:https://example.net/a?b=c", ("webhook", "https://example.net/a?b=c")),
    ],
)
def test_addresses(written: str, pair: tuple[str, str]) -> None:
    assert parse_channel(written) == pair


@pytest.mark.parametrize(
    "written",
    [
        "491700000001", "fax:49", "sms:0170123", "sms:49 170", "sms:1234567890123456", "email:ann", "email:a b@x.net",
        "email:ann@example.net\r\nBcc: x@example.net", "email:ann@-example.net", "telegram:ann", "webhook:ftp://x",
        "webhook:https://a b", "webhook:https://" + "x" * 2000, "email:änn@example.net",
    ],
)  # fmt: skip
def test_what_is_no_address(written: str) -> None:
    with pytest.raises(LedgerError):
        parse_channel(written)


@pytest.mark.parametrize("written", ["21-8", "24:00-08:00", "21:00", "08:00-08:00", "", "21:00-08:60"])
def test_what_are_no_quiet_hours(written: str) -> None:
    with pytest.raises(LedgerError):
        parse_quiet(written)


@pytest.mark.parametrize("written", ["marketing", "marketing=maybe", "spam=yes"])
def test_what_is_no_consent(written: str) -> None:
    with pytest.raises(LedgerError):
        parse_consent(written)


@pytest.mark.parametrize(
    "contact",
    [
        Contact(language="english"),
        Contact(time_zone="Mars/Olympus"),
        Contact(time_zone="../../etc/passwd"),
        Contact(channels=(("sms", "4917"), ("sms", "4917"))),
        Contact(channels=tuple(("telegram", str(number)) for number in range(9))),
        Contact(consent={"spam": True}),
        Contact(quiet=(0, 1440)),
    ],
)
def test_what_is_no_contact(contact: Contact) -> None:
    with pytest.raises(LedgerError):
        contact.check()


def test_consent_by_default() -> None:
    assert [Contact().wants(klass) for klass in ("account-state", "billing", "marketing")] == [True, True, False]


contacts = st.builds(
    Contact,
    language=st.sampled_from(["", "en", "pt-BR"]),
    channels=st.lists(
        st.sampled_from([("sms", "491700000001"), ("email", "ann@example.net"), ("webhook", "https://x/y?a=b"),
                         ("telegram", "-1")]), unique=True).map(tuple),
    consent=st.dictionaries(st.sampled_from(["account-state", "billing", "marketing"]), st.booleans()),
    quiet=st.none() | st.just((0, 0)) | st.just((1260, 480)) | st.just((0, 1439)),
    time_zone=st.sampled_from(["", "Europe/Berlin"]),
)  # fmt: skip


@given(contacts)
def test_a_contact_is_the_same_after_it_was_text(contact: Contact) -> None:
    """For files: ``as_fields`` is flat, ``from_fields`` reads it."""
    assert from_fields(as_fields(contact)) == contact


# -- in the store ------------------------------------------------------------------------------------------------------


@given(contacts)
def test_what_is_written_is_read(contact: Contact) -> None:
    assert unpack_contact(_pack(contact)) == contact


async def test_changes_at_once_are_all_made(store: Store) -> None:
    async def add_one(number: int) -> None:
        await change_contact(
            store, KEY, lambda before: replace(before, channels=(*before.channels, ("telegram", str(number))))
        )

    await asyncio.gather(*map(add_one, range(8)))
    found = await read_contact(store, KEY)
    assert found is not None
    assert sorted(address for _, address in found.channels) == sorted(map(str, range(8)))
    with pytest.raises(LedgerError):
        await add_one(8)
    await change_contact(store, KEY, lambda _: Contact())
    assert await store.call("EXISTS", KEY) == 0


async def test_whom_a_notice_to_a_subscriber_goes_to(store: Store) -> None:
    await add(store, b"sub-1", (IdentityType.IMSI, b"262010000000001"), (IdentityType.E164, b"491700000001"))
    await add(store, b"sub-2", (IdentityType.IMSI, b"262010000000002"))
    by_default = await find_recipient(store, b"acc-1", b"sub-1")
    assert (by_default.number, by_default.contact) == ("491700000001", Contact(channels=(("sms", "491700000001"),)))
    assert (await find_recipient(store, b"acc-1", b"sub-2")).contact.channels == ()
    # A language without addresses leaves the number as the address.
    await change_contact(store, KEY, lambda _: Contact(language="de"))
    assert (await find_recipient(store, b"acc-1", b"sub-1")).contact == Contact("de", (("sms", "491700000001"),))
    await change_contact(store, Keys.contact_of(b"acc-1"), lambda _: Contact("ru", (("email", "ann@example.net"),)))
    assert (await find_recipient(store, b"acc-1", b"sub-1")).contact.language == "de"
    assert (await find_recipient(store, b"acc-1", b"sub-2")).contact.channels == (("email", "ann@example.net"),)


async def test_whom_a_notice_to_an_account_goes_to(store: Store) -> None:
    assert (await find_recipient(store, b"acc-1", b"")).contact == Contact()
    await add(store, b"b", (IdentityType.E164, b"4902"))
    await add(store, b"c", (IdentityType.E164, b"4903"))
    await add(store, b"a", (IdentityType.E164, b"4901"), state=LifeState.TERMINATED)
    assert (await find_recipient(store, b"acc-1", b"")).contact.channels == (("sms", "4902"),)
    await change_contact(store, Keys.contact_of(b"acc-1"), lambda _: Contact("ru"))
    found = await find_recipient(store, b"acc-1", b"")
    assert (found.contact.language, found.contact.channels) == ("ru", (("sms", "4902"),))
    await change_contact(store, Keys.contact_of(b"acc-1"), lambda _: Contact("ru", (("telegram", "7"),)))
    assert (await find_recipient(store, b"acc-1", b"")).contact.channels == (("telegram", "7"),)
