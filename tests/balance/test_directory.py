"""Administration of accounts and subscribers against a real Redis: unique, all or nothing, counted once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from balance import directory, subscribers
from balance.accounts import Account, ServiceUse, Session
from balance.directory import NewBucket, Posting
from balance.embedded import Address
from balance.journal import history
from balance.keys import Keys
from balance.ledger import Draft, add_bucket, settle
from balance.model import (
    MAIN_BUCKET,
    AccountKind,
    Bucket,
    IdentityType,
    LedgerError,
    LifeState,
    Offer,
    Subscriber,
    Unit,
)
from balance.plans import Plan
from balance.records import Change, make_plan
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from balance.verify import verify
from occ.lifecycle import check_change
from occ.rating.price import StepPrice

NOW = 1_700_000_000_000
EURO = 978


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis))
    await store.start()
    yield store
    await store.stop()


async def create(store: Store, account_id: bytes = b"acc-1", balance_micro: int = 10_000_000) -> Account:
    return await directory.create_account(
        store, account_id, AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", balance_micro=balance_micro
    )


async def keys_of(store: Store) -> set[bytes]:
    return set(await store.call("KEYS", "*"))


async def test_a_new_account_and_its_first_entry(store: Store) -> None:
    made = await directory.create_account(
        store,
        b"acc-1",
        AccountKind.POSTPAID,
        EURO,
        now_ms=NOW,
        reason="contract signed",
        balance_micro=5_000_000,
        credit_limit_micro=50_000_000,
        buckets=[NewBucket(Unit.OCTETS, 1 << 30, 10, NOW + 1000), NewBucket(Unit.MONEY, 2_000_000, 50)],
    )
    read = await directory.read_account(store, b"acc-1")
    assert read == made
    assert read.version == 1
    assert [(b.bucket_id, b.unit, b.balance, b.priority, b.expires_ms) for b in read.buckets] == [
        (MAIN_BUCKET, Unit.MONEY, 5_000_000, 100, 0),
        (2, Unit.OCTETS, 1 << 30, 10, NOW + 1000),
        (3, Unit.MONEY, 2_000_000, 50, 0),
    ]
    (entry,) = await history(store, b"acc-1", 10)
    assert (entry.version, entry.at_ms, entry.operation, entry.reason) == (1, NOW, "create", ("contract signed",))
    assert entry.changes == (
        Change(1, 5_000_000, 0, 5_000_000, 0),
        Change(2, 1 << 30, 0, 1 << 30, 0),
        Change(3, 2_000_000, 0, 2_000_000, 0),
    )
    # The allowance that lapses is in the expiry index.
    assert await store.call("ZSCORE", store.keys.watch(0), b"acc-1") == str(NOW + 1000).encode()


async def test_an_account_without_money_has_a_first_entry_too(store: Store) -> None:
    await create(store, balance_micro=0)
    (entry,) = await history(store, b"acc-1", 10)
    assert entry.changes == (Change(1, 0, 0, 0, 0),)


async def test_an_account_is_created_once(store: Store) -> None:
    await create(store)
    with pytest.raises(LedgerError, match="account acc-1 exists already"):
        await create(store, balance_micro=99)
    read = await directory.read_account(store, b"acc-1")
    assert read is not None
    assert (read.version, read.buckets[0].balance) == (1, 10_000_000)


async def test_two_that_create_the_same_account_at_once(store: Store, clean_redis: Address) -> None:
    other = Store(StoreSettings(clean_redis))
    await other.start()
    results = await asyncio.gather(create(store), create(other), return_exceptions=True)
    await other.stop()
    assert sorted(type(result).__name__ for result in results) == ["Account", "LedgerError"]
    assert len(await history(store, b"acc-1", 10)) == 1


@pytest.mark.parametrize("name", [b"", b"-a", b"a b", b"a:b", b"x" * 65, b"\xff", b"a\n"])
async def test_unusable_account_names(store: Store, name: bytes) -> None:
    with pytest.raises(LedgerError, match="not a usable name"):
        await create(store, name)
    assert await keys_of(store) == {b"occ:layout"}


async def test_senseless_accounts_are_refused_whole(store: Store) -> None:
    async def refused(reason: str, kind: AccountKind, **figures: object) -> None:
        with pytest.raises(LedgerError, match=reason):
            await directory.create_account(
                store,
                b"acc-1",
                kind,
                **{"currency": EURO, "now_ms": NOW, "reason": "test", **figures},  # type: ignore[arg-type]
            )

    await refused("credit limit must not be negative", AccountKind.POSTPAID, credit_limit_micro=-1)
    await refused("cannot start with -1", AccountKind.PREPAID, balance_micro=-1)
    await refused("cannot start with", AccountKind.PREPAID, balance_micro=1 << 63)
    await refused("ISO 4217", AccountKind.PREPAID, currency=0)
    await refused("expire before", AccountKind.PREPAID, buckets=[NewBucket(Unit.OCTETS, 1, expires_ms=NOW)])
    await refused("cannot start with", AccountKind.PREPAID, buckets=[NewBucket(Unit.OCTETS, -1)])
    assert await keys_of(store) == {b"occ:layout"}


async def test_top_up(store: Store) -> None:
    await create(store)
    done = await directory.top_up_account(store, b"acc-1", 5_500_000, now_ms=NOW + 1, reason="voucher")
    assert (done.balance_after, done.version, done.repeated) == (15_500_000, 2, False)
    newest, _ = await history(store, b"acc-1", 10)
    assert (newest.operation, newest.reason, newest.at_ms) == ("top-up", ("voucher",), NOW + 1)
    assert newest.changes == (Change(1, 5_500_000, 0, 15_500_000, 0),)


async def test_a_reference_counts_once(store: Store, clean_redis: Address) -> None:
    """A payment reported again, by whomever, however much happened since, changes nothing."""
    await create(store)
    other = Store(StoreSettings(clean_redis))
    await other.start()
    first = await directory.top_up_account(store, b"acc-1", 100, now_ms=NOW, reason="voucher", reference="V-1")
    await directory.top_up_account(store, b"acc-1", 7, now_ms=NOW, reason="voucher", reference="V-2")
    for anyone in (store, other):
        again = await directory.top_up_account(anyone, b"acc-1", 100, now_ms=NOW, reason="again", reference="V-1")
        assert (again.balance_after, again.version, again.repeated) == (10_000_100, first.version, True)
    await other.stop()
    read = await directory.read_account(store, b"acc-1")
    assert read is not None
    assert (read.version, read.buckets[0].balance) == (3, 10_000_107)
    assert (await history(store, b"acc-1", 10))[1].reason == ("voucher", "V-1")


async def test_the_same_reference_from_many_sides_at_once(store: Store, clean_redis: Address) -> None:
    await create(store)
    others = [Store(StoreSettings(clean_redis)) for _ in range(4)]
    for other in others:
        await other.start()
    results = await asyncio.gather(
        *(
            directory.top_up_account(each, b"acc-1", 100, now_ms=NOW, reason="voucher", reference="V-1")
            for each in [store, *others] * 5
        )
    )
    for other in others:
        await other.stop()
    assert [result.repeated for result in results].count(False) == 1
    assert {(result.balance_after, result.version) for result in results} == {(10_000_100, 2)}
    assert len(await history(store, b"acc-1", 10)) == 2


async def test_a_reference_is_remembered_for_a_week(store: Store) -> None:
    await create(store)
    await directory.top_up_account(store, b"acc-1", 100, now_ms=NOW, reason="voucher", reference="V-1")
    (key,) = (key for key in await keys_of(store) if b":e:" in key)
    assert 0 < await store.call("PTTL", key) <= directory.REFERENCE_TTL_MS == 7 * 24 * 3600 * 1000


async def test_a_reference_belongs_to_one_account(store: Store) -> None:
    """Also where both accounts lie in one partition, where ended sessions share a name space."""
    same_partition = Keys(64, clustered=False).partition(b"acc-1")
    other_id = next(
        name for name in (b"acc-%d" % n for n in range(2, 10_000)) if store.keys.partition(name) == same_partition
    )
    await create(store)
    await create(store, other_id)
    for account_id in (b"acc-1", other_id):
        done = await directory.top_up_account(store, account_id, 1, now_ms=NOW, reason="voucher", reference="V-1")
        assert not done.repeated


async def test_a_reference_cannot_stand_for_something_else(store: Store) -> None:
    await create(store)
    await directory.top_up_account(store, b"acc-1", 100, now_ms=NOW, reason="voucher", reference="V-1")
    with pytest.raises(LedgerError, match=r"reference V-1 was used before, for 100 on bucket 1"):
        await directory.top_up_account(store, b"acc-1", 101, now_ms=NOW, reason="voucher", reference="V-1")
    read = await directory.read_account(store, b"acc-1")
    assert read is not None
    assert read.buckets[0].balance == 10_000_100


async def test_refused_top_ups_change_nothing(store: Store) -> None:
    await directory.create_account(
        store,
        b"acc-1",
        AccountKind.PREPAID,
        EURO,
        now_ms=NOW,
        reason="test",
        buckets=[NewBucket(Unit.EVENTS, 5, expires_ms=NOW + 10)],
    )
    for reason, account_id, amount, bucket_id, reference in (
        ("there is no account acc-2", b"acc-2", 1, 1, None),
        ("has no bucket 9", b"acc-1", 1, 9, None),
        ("must be positive", b"acc-1", 0, 1, "R"),
        ("must be positive", b"acc-1", -5, 1, None),
        ("overflow", b"acc-1", 1 << 62, 2, None),
        ("has expired", b"acc-1", 1, 2, None),
        ("printable", b"acc-1", 1, 1, "two words"),
        ("printable", b"acc-1", 1, 1, ""),
    ):
        with pytest.raises(LedgerError, match=reason):
            await directory.top_up_account(
                store,
                account_id,
                amount,
                now_ms=NOW + 10 if reason == "has expired" else NOW,
                reason="test",
                bucket_id=bucket_id,
                reference=reference,
            )
    read = await directory.read_account(store, b"acc-1")
    assert read is not None
    assert read.version == 1
    # A reference that was refused can be used.
    assert not (await directory.top_up_account(store, b"acc-1", 1, now_ms=NOW, reason="test", reference="R")).repeated


def subscriber(name: bytes, *identities: tuple[int, bytes], account_id: bytes = b"acc-1") -> Subscriber:
    return Subscriber(name, account_id, "standard", identities)


MSISDN = (int(IdentityType.E164), b"491700000001")
IMSI = (int(IdentityType.IMSI), b"262010000000001")


async def test_a_subscriber_is_found_by_each_identity(store: Store) -> None:
    await create(store)
    added = subscriber(b"491700000001", MSISDN, IMSI)
    assert await subscribers.add_subscriber(store, added)
    for kind, value in (MSISDN, IMSI):
        assert await subscribers.read_subscriber(store, kind, value) == added
    assert await subscribers.read_subscriber(store, IdentityType.NAI, b"491700000001") is None
    assert not await subscribers.add_subscriber(store, added)


async def test_an_identity_belongs_to_one_subscriber(store: Store) -> None:
    """The second one is told whose it is, and none of its own identities stays behind."""
    await create(store)
    await subscribers.add_subscriber(store, subscriber(b"first", IMSI))
    before = await keys_of(store)
    with pytest.raises(LedgerError, match="IMSI 262010000000001 belongs to subscriber first already"):
        await subscribers.add_subscriber(store, subscriber(b"second", MSISDN, IMSI))
    assert await keys_of(store) == before
    found = await subscribers.read_subscriber(store, *IMSI)
    assert found is not None
    assert found.subscriber_id == b"first"


async def test_a_subscriber_half_entered_is_completed(store: Store) -> None:
    await create(store)
    await subscribers.add_subscriber(store, subscriber(b"first", MSISDN, IMSI))
    await store.call("DEL", store.keys.identity(*IMSI))
    assert await subscribers.add_subscriber(store, subscriber(b"first", MSISDN, IMSI))
    assert await subscribers.read_subscriber(store, *IMSI) is not None


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [
        ("there is no account acc-2", subscriber(b"s", MSISDN, account_id=b"acc-2")),
        ("at least one identity", subscriber(b"s")),
        ("given twice", subscriber(b"s", MSISDN, MSISDN)),
        ("E164 '\\+49170' is malformed", subscriber(b"s", (0, b"+49170"))),
        ("E164 '1234567890123456' is malformed", subscriber(b"s", (0, b"1234567890123456"))),
        ("IMSI '26201' is malformed", subscriber(b"s", (1, b"26201"))),
        ("SIP_URI 'a@b' is malformed", subscriber(b"s", (2, b"a@b"))),
        ("NAI 'a b' is malformed", subscriber(b"s", (3, b"a b"))),
        ("Subscription-Id-Type 5", subscriber(b"s", (5, b"a"))),
        ("not a usable name", subscriber(b"a b", MSISDN)),
        ("needs a plan", Subscriber(b"s", b"acc-1", "", (MSISDN,))),
    ],
)
async def test_malformed_subscribers_are_refused(store: Store, reason: str, wrong: Subscriber) -> None:
    await create(store)
    before = await keys_of(store)
    with pytest.raises(LedgerError, match=reason):
        await subscribers.add_subscriber(store, wrong)
    assert await keys_of(store) == before


async def test_all_accounts_are_listed(store: Store) -> None:
    names = {b"acc-%d" % number for number in range(1500)}
    await asyncio.gather(*(create(store, name) for name in names))
    # A client may name its session so that the key looks like an account's.
    await store.call("SET", store.keys.ended(b"acc-1", b"x}:a:y"), b"")
    found: list[bytes] = []
    async for page in directory.accounts(store):
        found += [account.account_id for account in page]
    assert set(found) == names


async def test_a_damaged_account_is_reported(store: Store) -> None:
    await create(store)
    await store.call("SET", store.keys.account(b"acc-1"), b"\0\0\0\0\0\0\0\1nonsense")
    with pytest.raises(StoreError, match="account b'acc-1' is damaged"):
        await directory.read_account(store, b"acc-1")


async def test_history_is_found_among_others(store: Store) -> None:
    """Newest first, across pages of the journal, and no further than asked."""
    for account_id in (b"acc-1", b"acc-10"):
        await create(store, account_id)
    for number in range(600):
        await directory.top_up_account(
            store, b"acc-1" if number % 2 else b"acc-10", 1, now_ms=NOW + number, reason=str(number)
        )
    entries = await history(store, b"acc-1", 1000)
    assert [entry.version for entry in entries] == list(range(301, 0, -1))
    assert [entry.reason for entry in await history(store, b"acc-1", 2)] == [("599",), ("597",)]
    assert await history(store, b"acc-2", 10) == []


async def test_charging_after_a_top_up_sees_it(store: Store) -> None:
    """The same snapshot serves both: a top-up through one store is spent through another at once."""
    await create(store, balance_micro=0)
    rate = StepPrice(Unit.EVENTS, 1, 50_000)

    def debit(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW)
        settle(draft, ServiceUse(-1, -1, "sms", int(Unit.EVENTS)), rate, 1)
        return make_plan(draft, "debit", (b"session", 4, 0), None)

    other = Store(StoreSettings(store.settings.address))
    await other.start()
    await other.commit(b"acc-1", lambda account, _: Plan(None))  # it knows version 1 now
    await directory.top_up_account(store, b"acc-1", 50_000, now_ms=NOW, reason="voucher")
    plan = await other.commit(b"acc-1", debit)
    await other.stop()
    assert plan.account is not None
    assert plan.account.buckets[0].balance == 0
    assert (await verify(store)).consistent


# -- adjustments, limits, states, expiry, buckets ----------------------------------------------------------------------


async def adjust(store: Store, amount: int, reference: str | None = None, account_id: bytes = b"acc-1") -> Posting:
    return await directory.adjust_account(
        store, account_id, amount, now_ms=NOW, reason="complaint", reference=reference
    )


async def read(store: Store, account_id: bytes = b"acc-1") -> Account:
    found = await directory.read_account(store, account_id)
    assert found is not None
    return found


async def test_what_is_taken_once_is_not_refused_when_repeated(store: Store) -> None:
    """Though nothing is left to take."""
    await create(store, balance_micro=100)
    first = await adjust(store, -100, "C-1")
    again = await adjust(store, -100, "C-1")
    assert (again.balance_after, again.version, again.repeated) == (0, first.version, True)
    with pytest.raises(LedgerError, match="for -100 on bucket 1, and cannot stand for -99"):
        await adjust(store, -99, "C-1")
    with pytest.raises(LedgerError, match="can give 0 micro-units, which is less than 100"):
        await adjust(store, -100, "C-2")


async def test_many_take_what_there_is_once(store: Store, clean_redis: Address) -> None:
    await create(store, balance_micro=1000)
    other = Store(StoreSettings(clean_redis))
    await other.start()
    results = await asyncio.gather(
        *(adjust((store, other)[number % 2], -300, f"C-{number}") for number in range(8)), return_exceptions=True
    )
    await other.stop()
    assert sum(isinstance(result, Posting) for result in results) == 3
    assert (await read(store)).buckets[0].balance == 100
    report = await verify(store)
    assert report.consistent
    assert (report.totals[0].adjusted, report.totals[0].debited) == (-900, 0)


async def test_a_postpaid_account_is_adjusted_down_to_its_limit(store: Store) -> None:
    await directory.create_account(
        store, b"post", AccountKind.POSTPAID, EURO, now_ms=NOW, reason="test", credit_limit_micro=500
    )
    await adjust(store, -500, account_id=b"post")
    with pytest.raises(LedgerError, match="can give 0 micro-units"):
        await adjust(store, -1, account_id=b"post")
    for limit, reason in ((499, "has used or reserved 500"), (-1, "must not be negative"), (1 << 63, "nor more than")):
        with pytest.raises(LedgerError, match=reason):
            await directory.set_credit_limit(store, b"post", limit, NOW, "test")
    await directory.set_credit_limit(store, b"post", 600, NOW, "test")
    assert (await adjust(store, -100, account_id=b"post")).balance_after == -600
    assert (await verify(store)).consistent


async def test_a_lapsed_bucket_is_not_adjusted(store: Store) -> None:
    lapses = NewBucket(Unit.EVENTS, 5, expires_ms=NOW + 10)
    await directory.create_account(
        store, b"acc-1", AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", buckets=[lapses]
    )
    for amount in (1, -1):
        with pytest.raises(LedgerError, match="bucket 2 of account acc-1 has expired"):
            await directory.adjust_account(store, b"acc-1", amount, now_ms=NOW + 10, reason="test", bucket_id=2)


async def test_money_has_waiting_fees_tried_again(store: Store) -> None:
    """The account wakes up at once, whoever looks after offers."""
    await create(store, balance_micro=0)

    def owe(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW)
        draft.account.offers = [Offer("rent", NOW - 9, 0, unpaid_ms=NOW - 5), Offer("paid", NOW - 9, NOW + 99)]
        return make_plan(draft, "renew", ("supervision",), None)

    for pay in (
        directory.top_up_account(store, b"acc-1", 5, now_ms=NOW + 7, reason="voucher"),
        directory.adjust_account(store, b"acc-1", 5, now_ms=NOW + 7, reason="complaint"),
    ):
        await store.commit(b"acc-1", owe)
        await pay
        found = await read(store)
        assert [offer.next_ms for offer in found.offers] == [NOW + 7, NOW + 99]
        assert found.watch_ms <= NOW + 7
        assert float(await store.call("ZSCORE", store.keys.watch(0), b"acc-1")) == found.watch_ms


async def test_what_else_comes_with_a_top_up_is_in_the_same_step(store: Store) -> None:
    await create(store, balance_micro=0)

    def bonus(draft: Draft) -> None:
        add_bucket(draft, Unit.MONEY, 3, 5, NOW + 100, "welcome")

    async def top_up() -> Posting:
        return await directory.top_up_account(
            store, b"acc-1", 10, now_ms=NOW, reason="voucher", reference="V", also=bonus
        )

    assert not (await top_up()).repeated
    assert (await top_up()).repeated
    assert [(bucket.balance, bucket.name) for bucket in (await read(store)).buckets] == [(10, ""), (3, "welcome")]
    assert (await verify(store)).totals[0].credited == 13


async def test_top_ups_and_the_end_of_an_account(store: Store) -> None:
    """(state, expires) before and after a top-up that is valid for 50 ms, or says nothing."""
    cases = [
        (LifeState.ACTIVE, 0, 50, LifeState.ACTIVE, 0),
        (LifeState.ACTIVE, 10, 50, LifeState.ACTIVE, 50),
        (LifeState.ACTIVE, 70, 50, LifeState.ACTIVE, 70),
        (LifeState.ACTIVE, 10, 0, LifeState.ACTIVE, 10),
        (LifeState.GRACE, 10, 50, LifeState.ACTIVE, 50),
        (LifeState.GRACE, 10, 0, LifeState.ACTIVE, 0),
        (LifeState.BLOCKED, 10, 50, LifeState.BLOCKED, 50),
    ]
    for number, (state, expires, valid_for, state_after, expires_after) in enumerate(cases):
        name = b"acc-%d" % number
        await directory.create_account(
            store, name, AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", expires_ms=expires and NOW + expires
        )
        await directory.set_account_state(store, name, state, NOW, "test", check_change)
        await directory.top_up_account(store, name, 1, now_ms=NOW, reason="voucher", valid_for_ms=valid_for)
        found = await read(store, name)
        assert (found.state, found.expires_ms) == (state_after, expires_after and NOW + expires_after)


async def test_accounts_begin_active_or_ordered(store: Store) -> None:
    for state in LifeState:
        name = state.name.encode()
        made = directory.create_account(store, name, AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", state=state)
        if state in (LifeState.ACTIVE, LifeState.ORDERED):
            assert (await made).state == state
            continue
        with pytest.raises(LedgerError, match="begins as active or ordered"):
            await made
    await directory.create_account(store, b"post", AccountKind.POSTPAID, EURO, now_ms=NOW, reason="test")
    with pytest.raises(LedgerError, match="only prepaid accounts can be in grace"):
        await directory.set_account_state(store, b"post", LifeState.GRACE, NOW, "test", check_change)
    with pytest.raises(LedgerError, match="at a time that is past"):
        await directory.create_account(
            store, b"late", AccountKind.PREPAID, EURO, now_ms=NOW, reason="test", expires_ms=NOW
        )


async def test_an_account_that_expires_is_woken_for_it(store: Store) -> None:
    await create(store)
    await directory.set_expiry(store, b"acc-1", NOW + 500, NOW, "test")
    assert float(await store.call("ZSCORE", store.keys.watch(0), b"acc-1")) == NOW + 500


async def test_a_bucket_with_a_name_and_an_owner(store: Store) -> None:
    await create(store)
    await subscribers.add_subscriber(store, subscriber(b"anna", MSISDN))
    changed = await directory.add_account_bucket(
        store, b"acc-1", NewBucket(Unit.OCTETS, 7, 10, NOW + 5, "data", b"anna"), NOW, "welcome"
    )
    assert changed.buckets[1] == Bucket(2, int(Unit.OCTETS), 7, 0, 10, NOW + 5, "data", b"anna")
    assert (await read(store)).buckets == changed.buckets
    for wrong, reason in (
        (NewBucket(Unit.OCTETS, -1), "cannot start with -1"),
        (NewBucket(Unit.OCTETS, 1, name="two words"), "not a name of a bucket"),
        (NewBucket(Unit.OCTETS, 1, owner=b"ben"), "acc-1 pays for no subscriber ben"),
        (NewBucket(Unit.OCTETS, 1, expires_ms=NOW), "cannot expire before it exists"),
    ):
        with pytest.raises(LedgerError, match=reason):
            await directory.add_account_bucket(store, b"acc-1", wrong, NOW, "test")
    assert (await read(store)).version == 2
