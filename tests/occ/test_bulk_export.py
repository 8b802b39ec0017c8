"""Export, and that an import of it gives the same accounts, customer units and subscribers again."""

import asyncio
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balance import directory, structure, subscribers
from balance.accounts import Account, Session
from balance.embedded import Address
from balance.ledger import Draft, next_wake_ms
from balance.model import (
    LARGEST,
    MAIN_BUCKET,
    UNLIMITED,
    AccountKind,
    Bucket,
    IdentityType,
    LifeState,
    Meter,
    Offer,
    Subscriber,
    Unit,
)
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store, StoreSettings
from balance.structure import CustomerUnit, Pays, UnitKind
from tests.balance.test_verify import opening
from tests.occ.bulk_lab import Lab, rows, total

NOW = 1_700_000_000_000


@pytest.fixture
def lab(clean_redis: Address, tmp_path: Path) -> Lab:
    return Lab(tmp_path, clean_redis)


# -- what a store may hold ---------------------------------------------------------------------------------------------

moments = st.one_of(st.just(0), st.integers(NOW - 10**11, NOW + 10**12), st.integers(1, LARGEST))
amounts = st.one_of(st.integers(0, 10**9), st.integers(0, UNLIMITED))
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
names = st.from_regex(rb"[A-Za-z0-9][A-Za-z0-9._@+-]{0,6}", fullmatch=True)
owners = st.one_of(st.just(b""), names)


@st.composite
def accounts(draw: st.DrawFn, account_id: bytes) -> Account:
    kind = draw(st.sampled_from(AccountKind))
    limit = draw(amounts) if kind == AccountKind.POSTPAID else 0
    states = [state for state in LifeState if kind == AccountKind.PREPAID or state != LifeState.GRACE]
    account = Account(account_id, 0, int(kind), draw(st.sampled_from((978, 840, 398))), limit, 0, [], {})
    account.state = int(draw(st.sampled_from(states)))
    account.expires_ms = draw(moments) if kind == AccountKind.PREPAID else 0
    account.buckets = [Bucket(MAIN_BUCKET, int(Unit.MONEY), draw(st.integers(-limit, UNLIMITED)))]
    buckets = st.tuples(
        st.sampled_from((Unit.MONEY, Unit.OCTETS, Unit.SECONDS, Unit.EVENTS)),
        amounts,
        st.integers(0, 1000),
        moments,
        st.one_of(st.just(""), words),
        owners,
    )
    for number, (unit, balance, priority, expires_ms, name, owner) in enumerate(draw(st.lists(buckets, max_size=4)), 2):
        account.buckets.append(Bucket(number, int(unit), balance, 0, priority, expires_ms, name, owner))
    meters = st.builds(Meter, words, st.integers(1, LARGEST), amounts, amounts)
    account.meters = draw(st.lists(meters, max_size=3, unique_by=lambda each: each.name))
    offers = st.builds(Offer, words, moments, moments, owners, moments)
    account.offers = draw(st.lists(offers, max_size=3, unique_by=lambda each: (each.name, each.owner)))
    return account


@st.composite
def lines(draw: st.DrawFn, name: bytes, account_id: bytes) -> Subscriber:
    state = draw(st.sampled_from([state for state in LifeState if state != LifeState.GRACE]))
    mine = b"%b" % name.removeprefix(b"line-")
    identities = draw(
        st.sets(
            st.sampled_from(
                (
                    (int(IdentityType.E164), b"4917" + mine),
                    (int(IdentityType.E164), b"4918" + mine),
                    (int(IdentityType.IMSI), b"2620100000" + mine),
                    (int(IdentityType.SIP_URI), b"sip:+49@=," + mine),
                    (int(IdentityType.NAI), b"=cmd'\"" + mine),
                    (int(IdentityType.PRIVATE), b"-@;|" + mine),
                )
            ),
            min_size=0 if state == LifeState.TERMINATED else 1,
        )
    )
    next_plan = draw(st.one_of(st.just(""), words))
    return Subscriber(
        name,
        account_id,
        draw(words),
        tuple(sorted(identities)),
        int(state),
        draw(st.integers(0, LARGEST)),
        draw(st.integers(0, LARGEST)),
        draw(moments),
        draw(st.one_of(st.just(""), words)),
        tuple(draw(st.lists(st.from_regex(rb"[0-9]{1,15}", fullmatch=True), max_size=3))),
        next_plan=next_plan,
        next_plan_ms=draw(st.integers(1, LARGEST)) if next_plan else 0,
    )


@st.composite
def populations(draw: st.DrawFn) -> tuple[list[Account], list[CustomerUnit], list[Subscriber]]:
    found = [draw(accounts(b"acc-%d" % number)) for number in range(draw(st.integers(1, 4)))]
    units: list[CustomerUnit] = []
    for account in found:
        if not draw(st.booleans()):
            continue
        payers = {
            unit.unit_id: other.currency for unit in units for other in found if other.account_id == unit.account_id
        }
        parent = draw(
            st.sampled_from([b"", *(name for name, currency in payers.items() if currency == account.currency)])
        )
        title = draw(st.text(st.characters(categories=("L", "N", "P", "S")), max_size=20).map(str.strip))
        kind = int(draw(st.sampled_from(UnitKind)))
        pays = int(draw(st.sampled_from(Pays)) if parent else Pays.ITSELF)
        units.append(CustomerUnit(b"unit-" + account.account_id, kind, title, parent, pays, account.account_id))
    owned = draw(st.lists(st.sampled_from(found), max_size=5))
    return found, units, [draw(lines(b"line-%d" % number, each.account_id)) for number, each in enumerate(owned)]


async def enter(store: Store, found: list[Account], units: list[CustomerUnit], members: list[Subscriber]) -> None:
    for account in found:

        def step(_: Account | None, __: Session | None, account: Account = account) -> Plan:
            empty = replace(account, buckets=[])
            draft = Draft(empty, NOW)
            draft.account.buckets = account.buckets
            return make_plan(draft, directory.CREATE, ("test",), None)

        await store.commit(account.account_id, step)
    for unit in units:
        await structure.create_unit(store, unit, NOW, "test")
    for each in members:
        await structure.add_member(store, each, NOW, "test")


async def contents(store: Store) -> dict[str, Any]:
    """All that an export has of a store, in terms of the ledger."""
    found: dict[str, Any] = {}
    async for page in directory.accounts(store):
        for account in page:
            watch = await store.call("ZSCORE", store.keys.watch(0), account.account_id)
            assert account.watch_ms == next_wake_ms(account)
            assert float(watch or 0) == float(account.watch_ms)  # scores are doubles
            found[account.account_id.decode()] = replace(account, version=0, watch_ms=0)
    for key in sorted(await store.call("KEYS", "sub:*")):
        found[key.decode()] = await subscribers.subscriber_named(store, key[4:])
    for key in sorted(await store.call("KEYS", "unit:*")):
        found[key.decode()] = await structure.unit_named(store, key[5:])
    for key in sorted(await store.call("KEYS", "id:*")):
        found[key.decode()] = await store.call("GET", key)
    for pattern in ("members:*", "units:*"):
        for key in sorted(await store.call("KEYS", pattern)):
            found[key.decode()] = set(await store.call("SMEMBERS", key))
    return found


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(population=populations(), form=st.sampled_from(("csv", "jsonl")))
def test_an_import_of_an_export_gives_the_same_again(
    lab: Lab, population: tuple[list[Account], list[CustomerUnit], list[Subscriber]], form: str
) -> None:
    lab.clear()

    async def fill(store: Store) -> dict[str, Any]:
        await enter(store, *population)
        return await contents(store)

    before = lab.on_store(fill)
    target = lab.folder / f"{len(list(lab.folder.iterdir()))}-accounts{'.jsonl' if form == 'jsonl' else ''}"
    exported = lab.export(str(target))
    lab.clear()
    report = lab.load(str(target), "--any-names")
    after = lab.on_store(contents)
    assert after == before
    assert {(each["label"], each["after"]) for each in report["totals"]} == {
        (each["label"], each["amount"]) for each in exported["totals"] if each["amount"]
    }
    # Once more: all of it is there already, exactly so.
    again = lab.load(str(target), "--any-names", "--reference", "again")
    assert {kind: numbers["unchanged"] for kind, numbers in again["rows"].items()} == exported["rows"]


def sample(lab: Lab) -> None:
    lab.load(
        lab.file("accounts.csv", "account,kind,balance,credit_limit", "b,prepaid,5.00,", "a,postpaid,-1.00,9.00"),
        lab.file("buckets.csv", "account,name,unit,amount", "a,data-5gb,,1 GiB", "b,welcome,,2.00"),
        lab.file(
            "subscribers.csv",
            "subscriber,account,plan,msisdn,nai",
            'l2,a,standard,49170002,"=HYPERLINK(1)"',
            "l1,a,standard,49170001 49170003,",
        ),
    )


def test_the_files_of_an_export(lab: Lab) -> None:
    sample(lab)
    folder = lab.folder / "out"
    report = lab.export(str(folder))
    assert report["rows"] == {"accounts": 2, "buckets": 2, "subscribers": 2}
    assert sorted(path.name for path in folder.iterdir()) == ["accounts.csv", "buckets.csv", "subscribers.csv"]
    assert (folder / "accounts.csv").read_text() == (
        "account,kind,currency,balance,credit_limit,state,expires,cycle_day,"
        "language,channels,consent,quiet_hours,time_zone\n"
        "a,postpaid,EUR,-1.00,9.00,active,never,,,,,,\n"
        "b,prepaid,EUR,5.00,0.00,active,never,,,,,,\n"
    )
    with (folder / "subscribers.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [each["subscriber"] for each in found] == ["l1", "l2"]
    assert found[0]["msisdn"] == "49170001 49170003"
    # Nothing that a spreadsheet would take for a formula.
    assert found[1]["nai"] == "'=HYPERLINK(1)"


def test_a_line_of_json_has_all_of_an_account(lab: Lab) -> None:
    sample(lab)
    path = lab.folder / "out.jsonl"
    lab.export(str(path))
    first = json.loads(path.read_text().splitlines()[0])
    assert first["account"] == "a"
    assert first["balance"] == "-1.00"
    assert first["buckets"] == [
        {
            "name": "data-5gb",
            "unit": "octets",
            "amount": str(1 << 30),
            "priority": "10",
            "expires": "never",
            "number": "2",
        }
    ]
    assert first["subscribers"][1]["nai"] == ["=HYPERLINK(1)"]


def test_some_accounts_only(lab: Lab) -> None:
    sample(lab)
    names = lab.file("names.txt", "b", "nobody", "b")
    result = lab.run("export", str(lab.folder / "out.jsonl"), "--accounts", names, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["rows"], report["missing"]) == ({"accounts": 1, "buckets": 1}, ["nobody"])
    assert [json.loads(line)["account"] for line in (lab.folder / "out.jsonl").read_text().splitlines()] == ["b"]


def test_names_that_cannot_be_read(lab: Lab) -> None:
    (lab.folder / "names.txt").write_bytes(b"\xff\xfe\x00")
    result = lab.run("export", str(lab.folder / "out"), "--accounts", str(lab.folder / "names.txt"))
    assert result.exit_code == 2
    assert "names.txt is not UTF-8 text" in result.stderr


def test_sessions_stay_and_what_they_hold_is_told(lab: Lab) -> None:
    sample(lab)

    async def hold(store: Store) -> None:
        await store.commit(b"b", opening(b"session", 1000))

    lab.on_store(hold)
    held = lab.account("b").buckets[0].reserved
    report = lab.export(str(lab.folder / "out"))
    assert report["sessions_not_exported"] == 1
    assert [each["amount"] for each in report["totals"] if each["of"] == "reserved"] == [held]
    assert "b,prepaid,EUR,5.00" in (lab.folder / "out" / "accounts.csv").read_text()
    text = lab.run("export", str(lab.folder / "again")).stdout
    assert "Not exported: 1 open sessions; what they have reserved (" in text


def test_nothing_is_overwritten(lab: Lab) -> None:
    sample(lab)
    folder, path = lab.folder / "out", lab.folder / "out.jsonl"
    lab.export(str(folder))
    lab.export(str(path))
    for target in (folder, path):
        result = lab.run("export", str(target))
        assert result.exit_code == 2
        assert "is there already" in result.stderr
    assert lab.run("export", str(folder), "--all", "--accounts", str(path)).exit_code == 2
    assert not list(lab.folder.rglob("*.part"))


def test_a_subscriber_without_an_account_is_not_lost(lab: Lab) -> None:
    sample(lab)
    with redis.Redis.from_url(lab.address.url) as client:
        (key,) = client.keys("*:a:a")
        client.delete(key)
    report = lab.export(str(lab.folder / "out"))
    assert (report["rows"]["subscribers"], report["subscribers_without_account"]) == (2, 2)
    assert lab.export(str(lab.folder / "out.jsonl"))["subscribers_without_account"] == 2


def test_each_account_is_written_once_and_whole_while_others_write(lab: Lab) -> None:
    """Consistent by account: two buckets that are always changed together are never told apart."""
    accounts = [f"acc-{n},0.00" for n in range(300)]
    buckets = [line for n in range(300) for line in (f"acc-{n},octets,100,1", f"acc-{n},octets,100,2")]
    lab.load(
        lab.file("accounts.csv", "account,balance", *accounts),
        lab.file("buckets.csv", "account,unit,amount,number", *buckets),
    )

    def move(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, NOW)
        draft.bucket(2).balance -= 1
        draft.bucket(3).balance += 1
        return make_plan(draft, "test", ("test",), None)

    from occ.bulk.exporting import Format, export

    async def both(store: Store) -> None:
        other = Store(StoreSettings(lab.address))
        await other.start()
        exporting = asyncio.create_task(export(store, lab.folder / "live.jsonl", Format.JSONL, None, lambda done: None))
        moved = 0
        while not exporting.done() and moved < 90:
            await asyncio.gather(*(other.commit(b"acc-%d" % n, move) for n in range(300)))
            moved += 1
        await exporting
        await other.stop()

    lab.on_store(both)
    documents = [json.loads(line) for line in (lab.folder / "live.jsonl").read_text().splitlines()]
    assert len({each["account"] for each in documents}) == len(documents) == 300
    assert all(sum(int(bucket["amount"]) for bucket in each["buckets"]) == 200 for each in documents)


def test_the_table_for_people(lab: Lab) -> None:
    sample(lab)
    result = lab.run("export", str(lab.folder / "out"))
    assert result.exit_code == 0
    assert "debt EUR" in result.stdout
    lab.clear()
    report = lab.load(str(lab.folder / "out"))
    assert rows(report, "subscribers") == (2, 0, 0)
    assert total(report, "EUR welcome") == (0, 2_000_000, 2_000_000)
