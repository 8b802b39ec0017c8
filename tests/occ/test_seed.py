"""The sample population: what the documents promise of it, created once, kept as it is ever after."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from balance import directory, structure, subscribers
from balance.embedded import Address
from balance.model import MAIN_BUCKET, AccountKind, IdentityType, Subscriber
from balance.store import Store, StoreSettings
from balance.structure import Pays
from balance.verify import verify
from occ.rating.catalogue import load_catalogue
from occ.seed import load_population, seed
from occ.yamlmap import ConfigError
from simulators.population import SAMPLE_POSTPAID, SAMPLE_PREPAID, Population

CONFIG = Path(__file__).parents[2] / "config"
SAMPLE = CONFIG / "population.yaml"
NOW = 1_700_000_000_000

SMALL = """\
currency: EUR
groups:
  prepaid:
    kind: prepaid
    count: 3
    first_msisdn: 491700000001
    first_imsi: 001010000000009
    balance: 10.00
    plan: standard
"""


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis))
    await store.start()
    yield store
    await store.stop()


async def dump(store: Store) -> dict[bytes, bytes]:
    keys = sorted(key for key in await store.call("KEYS", "*") if not key.endswith((b"journal", b"layout", b"watch")))
    return dict(zip(keys, await store.call("MGET", *keys), strict=True))


async def test_the_sample_is_what_the_documents_say(store: Store) -> None:
    seeded = await seed(store, SAMPLE, NOW, load_catalogue(CONFIG / "catalogue.yaml"))
    assert (seeded.accounts_created, seeded.subscribers_created, seeded.conflicts) == (200, 200, [])
    for number in (1, 2, 100, 101, 200):
        msisdn = b"%d" % (491700000000 + number)
        found = await subscribers.read_subscriber(store, IdentityType.IMSI, b"%d" % (262010000000000 + number))
        assert found == Subscriber(
            msisdn,
            b"acc-" + msisdn,
            "standard",
            ((0, msisdn), (1, b"%d" % (262010000000000 + number))),
        )
        assert await subscribers.read_subscriber(store, IdentityType.E164, msisdn) == found
        account = await directory.read_account(store, found.account_id)
        assert account is not None
        main = account.bucket(MAIN_BUCKET)
        assert main is not None
        expected = (
            (AccountKind.PREPAID, 10_000_000, 1_000_000) if number <= 100 else (AccountKind.POSTPAID, 0, 50_000_000)
        )
        assert (account.kind, main.balance, account.credit_limit_micro) == expected
        assert account.currency == 978
    assert await subscribers.read_subscriber(store, IdentityType.E164, b"491700000201") is None
    assert (await verify(store)).consistent


def test_the_simulators_know_the_same_subscribers() -> None:
    members = list(load_population(SAMPLE).members())
    simulated = Population()
    assert len(members) == len(simulated) == SAMPLE_PREPAID + SAMPLE_POSTPAID
    for number, (group, subscriber) in enumerate(members, 1):
        twin = simulated.subscriber(number)
        assert [value.decode() for _, value in subscriber.identities] == [twin.msisdn, twin.imsi]
        assert (group.kind == AccountKind.POSTPAID) == twin.postpaid


async def test_a_second_start_changes_nothing(store: Store) -> None:
    await seed(store, SAMPLE, NOW)
    await directory.top_up_account(store, b"acc-491700000007", 1, now_ms=NOW, reason="test")
    before = await dump(store)
    seeded = await seed(store, SAMPLE, NOW + 1)
    assert (seeded.accounts_created, seeded.subscribers_created) == (0, 0)
    assert await dump(store) == before
    report = await verify(store)
    assert report.consistent
    assert report.journal_records == 201


async def test_two_workers_that_start_at_once(store: Store, clean_redis: Address) -> None:
    other = Store(StoreSettings(clean_redis))
    await other.start()
    first, second = await asyncio.gather(seed(store, SAMPLE, NOW), seed(other, SAMPLE, NOW))
    await other.stop()
    assert first.accounts_created + second.accounts_created == 200
    assert first.conflicts == second.conflicts == []
    report = await verify(store)
    assert report.consistent
    assert (report.accounts, report.journal_records) == (200, 200)


async def test_what_is_missing_is_completed(store: Store) -> None:
    """As after a start that was cut off."""
    await seed(store, SAMPLE, NOW)
    await store.call("DEL", "id:1:262010000000005", "id:0:491700000006", "id:1:262010000000006")
    seeded = await seed(store, SAMPLE, NOW)
    assert (seeded.accounts_created, seeded.subscribers_created) == (0, 2)
    assert await subscribers.read_subscriber(store, IdentityType.IMSI, b"262010000000005") is not None


async def test_an_identity_in_other_hands_stays_there(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    await directory.create_account(store, b"mine", AccountKind.PREPAID, 978, now_ms=NOW, reason="test")
    mine = Subscriber(b"me", b"mine", "standard", ((0, b"491700000002"),))
    await subscribers.add_subscriber(store, mine)
    seeded = await seed(store, SAMPLE, NOW)
    assert seeded.subscribers_created == 199
    assert seeded.conflicts == ["identity E164 491700000002 belongs to subscriber me already; nothing was changed"]
    assert "was left out" in caplog.text
    assert await subscribers.read_subscriber(store, IdentityType.E164, b"491700000002") == mine
    assert await subscribers.read_subscriber(store, IdentityType.IMSI, b"262010000000002") is None


async def test_numbers_keep_their_zeros(store: Store, tmp_path: Path) -> None:
    """An IMSI of the test network 001 01 starts with zeros."""
    source = tmp_path / "population.yaml"
    source.write_text(SMALL)
    await seed(store, source, NOW)
    for imsi in (b"001010000000009", b"001010000000011"):
        assert await subscribers.read_subscriber(store, IdentityType.IMSI, imsi) is not None


@pytest.mark.parametrize(
    ("replaced", "by", "line", "reason"),
    [
        ("currency: EUR", "currency: Euro", 1, "ISO 4217"),
        ("currency: EUR", "currency: USD", 1, "the prices of the catalogue are in EUR"),
        ("kind: prepaid", "kind: prepayed", 4, "did you mean 'prepaid'?"),
        ("count: 3", "count: 0", 5, "from 1 to"),
        ("count: 3", "cuont: 3", 5, "did you mean 'count'?"),
        ("491700000001", "+491700000001", 6, "digits"),
        ("491700000001", "999999999999998", 6, "3 subscribers"),
        ("001010000000009", "00101000000000x", 7, "digits"),
        ("001010000000009", "999998", 7, "3 subscribers"),
        ("balance: 10.00", "balance: 10,00", 8, "not an amount"),
        ("balance: 10.00", "balance: -1", 8, "below zero"),
        ("balance: 10.00", "credit_limit: 5,00", 8, "not an amount"),
        ("plan: standard", "plan: standrad", 9, "did you mean 'standard'?"),
        ("    plan: standard\n", "", 4, "'plan' is missing"),
        (
            "    plan: standard\n",
            (
                "    plan: standard\n  more:\n    kind: postpaid\n    count: 1\n    first_msisdn: 491700000003\n"
                "    first_imsi: 262010000000000\n    plan: standard\n"
            ),
            10,
            "the MSISDNs of groups more and prepaid overlap",
        ),
    ],
)
async def test_a_mistake_is_named_and_nothing_created(
    store: Store, tmp_path: Path, replaced: str, by: str, line: int, reason: str
) -> None:
    source = tmp_path / "population.yaml"
    source.write_text(SMALL.replace(replaced, by, 1))
    with pytest.raises(ConfigError) as caught:
        await seed(store, source, NOW, load_catalogue(CONFIG / "catalogue.yaml"))
    assert str(caught.value).startswith(f"{source}:{line}: ")
    assert reason in str(caught.value)
    assert set(await store.call("KEYS", "*")) == {b"occ:layout"}


# -- customers and shared accounts -------------------------------------------------------------------------------------

COMPANY = """\
currency: EUR
accounts:
  acme: {kind: postpaid, credit_limit: 500.00}
  north: {kind: postpaid}
customers:
  acme: {kind: company, name: Acme}
  desk: {kind: branch, below: acme, account: north}
groups:
  staff:
    account: north
    count: 3
    first_msisdn: 493010000001
    first_imsi: 262010000001001
    plan: standard
    segment: business
    cap_day: 5.00
    cap_month: 50.00
    friends: [+4930123456]
"""


async def test_a_company_is_created_once(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "population.yaml"
    source.write_text(COMPANY)
    seeded = await seed(store, source, NOW)
    assert (seeded.accounts_created, seeded.customers_created, seeded.subscribers_created) == (2, 2, 3)
    found = await subscribers.subscriber_named(store, b"493010000002")
    assert found == Subscriber(
        b"493010000002",
        b"acme",
        "standard",
        ((0, b"493010000002"), (1, b"262010000001002")),
        cap_day_micro=5_000_000,
        cap_month_micro=50_000_000,
        segment="business",
        friends=(b"4930123456",),
        member_of=b"north",
    )
    assert [(each.unit.unit_id, each.payer, each.subscribers) async for each in structure.tree(store)] == [
        (b"acme", b"acme", 0),
        (b"desk", b"acme", 3),
    ]
    # What has been changed since is kept, and who is missing is entered as the structure is now.
    await structure.change_unit(store, b"desk", lambda unit: replace(unit, pays=int(Pays.ITSELF)), NOW, "test")
    await store.call("DEL", "sub:493010000003", "id:0:493010000003", "id:1:262010000001003")
    again = await seed(store, source, NOW + 1)
    assert (again.accounts_created, again.customers_created, again.subscribers_created) == (0, 0, 1)
    for name in (b"493010000001", b"493010000003"):
        found = await subscribers.subscriber_named(store, name)
        assert found is not None
        assert (found.account_id, found.member_of) == (b"north", b"")
    assert (await verify(store)).consistent


@pytest.mark.parametrize(
    ("replaced", "by", "line", "reason"),
    [
        ("kind: company", "kind: compny", 6, "did you mean 'company'?"),
        ("below: acme", "below: acmee", 7, "no customer 'acmee' stands above this; did you mean 'acme'?"),
        ("account: north}", "account: south}", 7, "there is no account 'south' under accounts"),
        ("name: Acme", "pays: parent", 6, "stands at the top, so it has no parent that could pay"),
        ("    account: north", "    account: nort", 10, "did you mean 'north'?"),
        ("    count: 3", "    balance: 1.00\n    count: 3", 11, "balance is said under accounts.north"),
        ("    account: north\n", "", 10, "'kind' is missing, or the account that they share"),
        ("segment: business", "segment: two words", 10, "is not a word"),
        ("cap_day: 5.00", "cap_day: 5,00", 16, "not an amount"),
        ("[+4930123456]", "[4930-1]", 10, "E164 '4930-1' is malformed"),
    ],
)
async def test_a_mistake_in_a_company_is_named(
    store: Store, tmp_path: Path, replaced: str, by: str, line: int, reason: str
) -> None:
    source = tmp_path / "population.yaml"
    source.write_text(COMPANY.replace(replaced, by, 1))
    with pytest.raises(ConfigError) as caught:
        await seed(store, source, NOW, load_catalogue(CONFIG / "catalogue.yaml"))
    assert str(caught.value).startswith(f"{source}:{line}: ")
    assert reason in str(caught.value)
    assert set(await store.call("KEYS", "*")) == {b"occ:layout"}
