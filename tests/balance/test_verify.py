"""`verify` over a real Redis: sound stores pass, each kind of damage is found and named, live stores raise no alarm."""

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

import msgpack
import pytest

from balance import directory, journal, verify
from balance.accounts import Account, ServiceUse, Session
from balance.embedded import Address
from balance.ledger import Draft, expire_buckets, reserve, settle
from balance.model import AccountKind, Bucket, Unit
from balance.plans import Plan, Step
from balance.records import make_plan, pack_account, pack_version
from balance.store import Store, StoreSettings
from balance.sums import EXPIRE
from balance.verify import Report, Total
from occ.rating.price import StepPrice

NOW = 1_700_000_000_000
EURO, DOLLAR = 978, 840
RATE = StepPrice(Unit.OCTETS, 10, 7)


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis))
    await store.start()
    yield store
    await store.stop()


def new_session(name: bytes) -> Session:
    return Session(name, b"subscriber", "standard", b"pgw.example.net", 0, NOW, NOW + 60_000)


def opening(name: bytes, units: int) -> Step:
    def step(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW)
        session = new_session(name)
        use = ServiceUse(10, -1, "internet", int(Unit.OCTETS))
        draft.add_service(session, use)
        reserve(draft, use, RATE, units)
        draft.open(session)
        return make_plan(draft, "reserve", (name, 1, 0), None)

    return step


def reporting(name: bytes, used: int, again: int) -> Step:
    """Report usage; ``again`` more units are reserved, none: the session ends."""

    def step(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW)
        session = draft.session(name)
        assert session is not None
        use = draft.service(session, 10, -1)
        assert use is not None
        settle(draft, use, RATE, used)
        if again:
            reserve(draft, use, RATE, again)
        else:
            draft.release_session(session)
            draft.close(session)
        return make_plan(draft, "charge" if again else "terminate", (name, 2, 1), None)

    return step


async def populate(store: Store) -> None:
    """Four accounts with a past: money in two currencies, allowances, open sessions, a lapsed bucket."""

    async def create(
        name: bytes,
        kind: AccountKind,
        currency: int,
        balance: int,
        limit: int = 0,
        *extra: directory.NewBucket,
    ) -> None:
        await directory.create_account(
            store,
            name,
            kind,
            currency,
            now_ms=NOW,
            reason="test",
            balance_micro=balance,
            credit_limit_micro=limit,
            buckets=extra,
        )

    await create(b"a", AccountKind.PREPAID, EURO, 1000, 0, directory.NewBucket(Unit.OCTETS, 25, 10))
    await create(b"b", AccountKind.POSTPAID, EURO, 0, 500)
    await create(b"c", AccountKind.PREPAID, DOLLAR, 300)
    await create(b"d", AccountKind.PREPAID, EURO, 10, 0, directory.NewBucket(Unit.SECONDS, 60, expires_ms=NOW + 1))
    await store.commit(b"a", opening(b"a;1", 100))
    await store.commit(b"a", reporting(b"a;1", 95, 50))
    await store.commit(b"b", opening(b"b;1", 200))
    await store.commit(b"b", reporting(b"b;1", 200, 0))
    await directory.top_up_account(store, b"c", 200, now_ms=NOW, reason="voucher")
    await store.commit(b"c", opening(b"c;1", 10))

    def expire(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW + 5)
        assert expire_buckets(draft) == 1
        return make_plan(draft, EXPIRE, ("supervision",), None)

    await store.commit(b"d", expire)


async def test_a_sound_store_passes_and_its_totals_are_exact(store: Store) -> None:
    await populate(store)
    report = await verify.verify(store)
    assert report.consistent, report.discrepancies
    assert report.discrepancies == []
    assert (report.accounts, report.journal_records, report.open_sessions, report.open_reservations) == (4, 11, 2, 2)
    # a: 95 octets used, 25 of them from the allowance, 70 paid: 49. b: 200 paid: 140.
    assert report.totals == [
        Total(Unit.MONEY, DOLLAR, credited=500, debited=0, lapsed=0, balances=500, reserved=7),
        Total(Unit.MONEY, EURO, credited=1010, debited=49 + 140, lapsed=0, balances=1010 - 189, reserved=35),
        Total(Unit.OCTETS, None, credited=25, debited=25, lapsed=0, balances=0, reserved=0),
        Total(Unit.SECONDS, None, credited=60, debited=0, lapsed=60, balances=0, reserved=0),
    ]


async def test_an_empty_store_is_sound(store: Store) -> None:
    report = await verify.verify(store)
    assert report == Report()
    assert report.consistent


# -- damage ------------------------------------------------------------------------------------------------------


async def alter_account(store: Store, name: bytes, change: Callable[[Account], None]) -> None:
    account = await directory.read_account(store, name)
    assert account is not None
    change(account)
    await store.call("SET", store.keys.account(name), pack_account(account))


async def alter_journal(store: Store, change: Callable[[list[list[object]]], list[list[object]]]) -> None:
    """Write the journal anew with its records changed, one to an entry."""
    key = store.keys.journal(0)
    records = [
        msgpack.unpackb(packed, use_list=True)
        for _, fields in await store.call("XRANGE", key, "-", "+")
        for packed in fields[1::2]
    ]
    await store.call("DEL", key)
    for record in change(records):
        await store.call("XADD", key, "*", "r", msgpack.packb(record))


def without(account: bytes, *versions: int) -> Callable[[list[list[object]]], list[list[object]]]:
    return lambda records: [r for r in records if not (r[0] == account and r[1] in versions)]


async def found(store: Store) -> list[str]:
    report = await verify.verify(store)
    assert report.discrepancy_count == len(report.discrepancies)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in report.discrepancies)
    return report.discrepancies


async def test_a_missing_record(store: Store) -> None:
    await populate(store)
    await alter_journal(store, without(b"a", 2))
    assert await found(store) == ["Account a: version 2 is missing in the journal."]


async def test_missing_records_with_money_in_them(store: Store) -> None:
    await populate(store)
    await alter_journal(store, without(b"b", 1, 2))
    assert await found(store) == ["Account b: versions 1 to 2 are missing in the journal."]  # neither moved money
    await alter_journal(store, without(b"a", 1))
    assert await found(store) == [
        "Account a: version 1 is missing in the journal.",
        "Account b: versions 1 to 2 are missing in the journal.",
        "Account a: bucket 1 holds 951 micro-units, but its journal records sum to -49.",
        "Account a: bucket 2 holds 0 octets, but its journal records sum to -25.",
    ]


async def test_a_missing_last_record(store: Store) -> None:
    await populate(store)
    await alter_journal(store, without(b"b", 3))
    assert await found(store) == [
        "Account b: version 3 is missing in the journal.",
        "Account b: bucket 1 holds -140 micro-units, but its last journal record left 0.",
        "Account b: bucket 1 has 0 micro-units reserved, but its last journal record left 140.",
        "Account b: bucket 1 holds -140 micro-units, but its journal records sum to 0.",
    ]


async def test_a_record_that_stands_twice(store: Store) -> None:
    await populate(store)
    await alter_journal(store, lambda records: [*records, records[-1]])
    (sentence,) = await found(store)
    assert sentence.startswith("Account d: version 2 has more than one journal record, or they are out of order (")


async def test_a_broken_chain(store: Store) -> None:
    """Before is not what the record before left."""
    await populate(store)

    def change(records: list[list[object]]) -> list[list[object]]:
        for record in records:
            if record[0] == b"a" and record[1] == 3:
                record[5] = [[1, -48, *c[2:]] if c[0] == 1 else c for c in record[5]]  # type: ignore[attr-defined]
        return records

    await alter_journal(store, change)
    assert await found(store) == [
        (
            "Account a: the record of version 3 (charge) says that the balance of bucket 1 was 999 before, "
            "but the record before it left 1000."
        ),
        "Account a: bucket 1 holds 951 micro-units, but its journal records sum to 952.",
    ]


async def test_a_broken_chain_of_reservations(store: Store) -> None:
    await populate(store)

    def change(records: list[list[object]]) -> list[list[object]]:
        for record in records:
            if record[0] == b"c" and record[1] == 3:
                record[5] = [[1, 0, 6, 500, 7]]
        return records

    await alter_journal(store, change)
    assert await found(store) == [
        (
            "Account c: the record of version 3 (reserve) says that what is reserved of bucket 1 was 1 before, "
            "but the record before it left 0."
        )
    ]


async def test_a_balance_changed_behind_the_journal(store: Store) -> None:
    await populate(store)

    def change(account: Account) -> None:
        account.buckets[0].balance += 1

    await alter_account(store, b"c", change)
    assert await found(store) == [
        "Account c: bucket 1 holds 501 micro-units, but its last journal record left 500.",
        "Account c: bucket 1 holds 501 micro-units, but its journal records sum to 500.",
    ]


async def test_a_reservation_without_its_session(store: Store) -> None:
    await populate(store)
    await alter_account(store, b"c", lambda account: account.sessions.clear())
    assert await found(store) == ["Account c: bucket 1 has 7 micro-units reserved, but its open sessions hold 0."]


async def test_a_session_that_holds_too_much(store: Store) -> None:
    await populate(store)

    def change(account: Account) -> None:
        account.sessions[b"c;1"].services[0].parts = [(1, 8), (9, 5), (1, -1)]

    await alter_account(store, b"c", change)
    assert await found(store) == [
        "Account c: session c;1 holds a reservation on bucket 9, which the account does not have.",
        "Account c: session c;1 holds a reservation of -1.",
    ]


async def test_a_bucket_that_came_from_nowhere_and_one_that_vanished(store: Store) -> None:
    await populate(store)

    def change(account: Account) -> None:
        account.buckets[1] = Bucket(7, int(Unit.EVENTS), 3)

    await alter_account(store, b"d", change)
    assert await found(store) == [
        "Account d: bucket 7 has no journal record.",
        "Account d: the journal names bucket 2, which it does not have.",
    ]


async def test_two_buckets_with_one_number_and_no_money(store: Store) -> None:
    await populate(store)

    def change(account: Account) -> None:
        account.buckets = [Bucket(2, int(Unit.SECONDS), 0), Bucket(2, int(Unit.SECONDS), 0)]

    await alter_account(store, b"d", change)
    assert await found(store) == [
        "Account d: the journal names bucket 1, which it does not have.",
        "Account d: two of its buckets have the same number.",
        "Account d: it has no money bucket 1.",
    ]


def overdrawing(amount: int) -> Step:
    """A record that agrees with the account it leaves, and yet must never be."""

    def step(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW)
        draft.bucket(1).balance -= amount
        return make_plan(draft, "charge", (b"x", 2, 1), None)

    return step


async def test_prepaid_below_zero(store: Store) -> None:
    await populate(store)
    await store.commit(b"d", overdrawing(11))
    assert await found(store) == ["Account d: bucket 1 holds -1 micro-units, less than zero."]


async def test_postpaid_below_its_credit_limit(store: Store) -> None:
    await populate(store)
    await store.commit(b"b", overdrawing(360))
    assert await found(store) == []
    await store.commit(b"b", overdrawing(1))
    assert await found(store) == [
        "Account b: bucket 1 holds -501 micro-units, less than its credit limit of 500 allows."
    ]


async def test_more_promised_than_there_is(store: Store) -> None:
    await populate(store)
    await store.commit(b"c", overdrawing(494))
    assert await found(store) == ["Account c: bucket 1 has 7 micro-units reserved, more than the 6 it can give."]


async def test_a_negative_reservation(store: Store) -> None:
    await populate(store)

    def step(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW)
        draft.bucket(1).reserved -= 1
        return make_plan(draft, "charge", (b"x", 2, 1), None)

    await store.commit(b"d", step)
    assert await found(store) == [
        "Account d: bucket 1 has -1 micro-units reserved, but its open sessions hold 0.",
        "Account d: bucket 1 has -1 micro-units reserved, which is less than nothing.",
    ]


async def test_an_account_that_is_gone(store: Store) -> None:
    await populate(store)
    await store.call("DEL", store.keys.account(b"a"))
    assert await found(store) == ["Account a: the journal has it up to version 3, but it is not in the store."]


async def test_an_account_that_was_set_back(store: Store) -> None:
    """As by restoring one key from a backup."""
    await populate(store)
    old = await store.call("GET", store.keys.account(b"d"))
    await store.commit(b"d", overdrawing(4))
    await store.call("SET", store.keys.account(b"d"), old)
    assert await found(store) == [
        "Account d: it is at version 2, but the journal goes on to version 3.",
        "Account d: bucket 1 holds 10 micro-units, but its last journal record left 6.",
        "Account d: bucket 1 holds 10 micro-units, but its journal records sum to 6.",
    ]


async def test_an_account_that_nothing_is_written_about(store: Store) -> None:
    await populate(store)
    stray = Account(b"stray", 2, 0, EURO, 0, 0, [Bucket(1, 0, 5)], {})
    await store.call("SET", store.keys.account(b"stray"), pack_account(stray))
    assert await found(store) == [
        "Account stray: versions 1 to 2 are missing in the journal.",
        "Account stray: bucket 1 has no journal record.",
    ]


async def test_values_that_cannot_be_read(store: Store) -> None:
    await populate(store)
    await store.call("SET", store.keys.account(b"a"), pack_version(3) + b"nonsense")
    await alter_account(store, b"d", lambda account: setattr(account.buckets[0], "unit", 9))
    await store.call("XADD", store.keys.journal(0), "9999999999999-0", "r", b"\xc1")
    sentences = sorted(await found(store))
    assert sentences[0].startswith("A record in journal entry 9999999999999-0 is damaged: ")
    assert sentences[1].startswith("Account a: its value cannot be read (")
    assert sentences[2].startswith("Account d: its value cannot be read (")
    assert len(sentences) == 3


async def test_much_damage_is_counted_but_not_all_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "DISCREPANCIES_KEPT", 3)
    await populate(store)
    await store.call("DEL", store.keys.journal(0))
    report = await verify.verify(store)
    assert report.discrepancy_count > 4
    assert len(report.discrepancies) == 3


# -- a live store ------------------------------------------------------------------------------------------------


async def keep_busy(store: Store, seed: int, stop: asyncio.Event) -> int:
    """Create accounts, open, report and end sessions, top up; as fast as the store takes it."""
    random = Random(seed)
    names = [b"acc-%d" % number for number in range(40)]
    opened: dict[bytes, list[bytes]] = {}
    done = 0
    while not stop.is_set():
        name = random.choice(names)
        done += 1
        if name not in opened:
            opened[name] = []
            await directory.create_account(
                store,
                b"%d-%b" % (seed, name),
                kind := random.choice(list(AccountKind)),
                EURO,
                now_ms=NOW,
                reason="test",
                balance_micro=random.randrange(2000),
                credit_limit_micro=300 if kind == AccountKind.POSTPAID else 0,
                buckets=[directory.NewBucket(Unit.OCTETS, 100)] if random.random() < 0.5 else (),
            )
            continue
        account_id = b"%d-%b" % (seed, name)
        sessions = opened[name]
        if random.random() < 0.2:
            await directory.top_up_account(
                store, account_id, 1 + random.randrange(50), now_ms=NOW, reason="x", reference=f"r{done}"
            )
        elif sessions and random.random() < 0.7:
            session = random.choice(sessions)
            again = random.choice([0, 30, 200])
            await store.commit(account_id, reporting(session, random.randrange(60), again))
            if not again:
                sessions.remove(session)
        elif len(sessions) < 4:
            sessions.append(b"%b;%d" % (account_id, done))
            await store.commit(account_id, opening(sessions[-1], random.randrange(1, 300)))
    return done


async def test_a_live_store_gives_no_false_alarm(
    clean_redis: Address, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many writers, small pages: between any two readings of the check the store has moved on."""
    monkeypatch.setattr(journal, "PAGE_ENTRIES", 7)
    monkeypatch.setattr(directory, "SCAN_COUNT", 3)
    writers = [Store(StoreSettings(clean_redis)) for _ in range(3)]
    for writer in writers:
        await writer.start()
    stop = asyncio.Event()
    tasks = [asyncio.create_task(keep_busy(writer, seed, stop)) for seed, writer in enumerate(writers)]
    seen: list[int] = []
    try:
        for _ in range(5):
            report = await verify.verify(store)
            assert report.consistent, report.discrepancies[:5]
            for total in report.totals:
                assert total.credited - total.debited - total.lapsed == total.balances
            seen.append(report.journal_records)
    finally:
        stop.set()
        done = sum(await asyncio.gather(*tasks))
        for writer in writers:
            await writer.stop()
    assert seen == sorted(set(seen)), "the store was not live"
    report = await verify.verify(store)
    assert report.consistent, report.discrepancies[:5]
    assert report.journal_records <= done


async def test_damage_in_a_live_store_is_still_found(clean_redis: Address, store: Store) -> None:
    await populate(store)
    await alter_journal(store, without(b"a", 2))
    writer = Store(StoreSettings(clean_redis))
    await writer.start()
    stop = asyncio.Event()
    task = asyncio.create_task(keep_busy(writer, 1, stop))
    try:
        for _ in range(3):
            await asyncio.sleep(0.02)
            assert await found(store) == ["Account a: version 2 is missing in the journal."]
    finally:
        stop.set()
        await task
        await writer.stop()
