"""What plans include, for those who come in bulk: an import takes no fee, a sample population is as good as new."""

from pathlib import Path

import pytest

from balance import directory
from balance.embedded import Address
from balance.store import Store, StoreSettings
from occ.bulk.values import read_end
from occ.rating.catalogue import load_catalogue
from occ.seed import seed
from tests.occ.bulk_lab import CATALOGUE, Lab

INCLUDING = CATALOGUE.replace("  standard: {", "  standard: {includes: [monthly], ")
NOW = 1_700_000_000_000
POPULATION = """\
currency: EUR
groups:
  prepaid: {kind: prepaid, count: 2, first_msisdn: 491700000001, first_imsi: 001010000000009, balance: 10.00,
            plan: standard}
"""


@pytest.fixture
def lab(clean_redis: Address, tmp_path: Path) -> Lab:
    lab = Lab(tmp_path, clean_redis)
    (tmp_path / "catalogue.yaml").write_text(INCLUDING)
    return lab


def test_an_import_enters_what_plans_include_as_paid(lab: Lab) -> None:
    """One subscriber's offer is listed, the other's is not; nothing is charged, and a repetition changes nothing."""
    accounts = lab.file("accounts.csv", "account,balance,cycle_day", "a,5.00,31", "b,5.00,")
    offers = lab.file("offers.csv", "account,offer,owner,next,paid", "a,monthly,ann,2036-01-15,9.99")
    members = lab.file(
        "subscribers.csv", "account,subscriber,plan,msisdn", "a,ann,standard,4911", "b,bob,standard,4912"
    )
    report = lab.load(accounts, offers, members)
    assert report["disagreements"] == []
    a, b = lab.account("a"), lab.account("b")
    assert [(each.name, each.owner, each.plan, each.paid_micro) for each in (*a.offers, *b.offers)] == [
        ("monthly", b"ann", "standard", 9_990_000), ("monthly", b"bob", "standard", 0),
    ]  # fmt: skip
    assert a.offers[0].next_ms == read_end("2036-01-14")
    assert b.offers[0].next_ms > b.offers[0].since_ms > 0
    assert [bucket.balance for bucket in (*a.buckets, *b.buckets)] == [5_000_000, 5_000_000]
    assert (a.cycle_day, b.cycle_day) == (31, 1)
    lab.load(accounts, offers, members)
    assert (lab.account("a"), lab.account("b")) == (a, b)


async def test_a_sample_population_has_what_its_plan_includes(clean_redis: Address, tmp_path: Path) -> None:
    (tmp_path / "catalogue.yaml").write_text(INCLUDING)
    (tmp_path / "population.yaml").write_text(POPULATION)
    store = Store(StoreSettings(clean_redis))
    await store.start()
    catalogue = load_catalogue(tmp_path / "catalogue.yaml")
    for _ in range(2):
        await seed(store, tmp_path / "population.yaml", NOW, catalogue)
        found = await directory.read_account(store, b"acc-491700000001")
        assert found is not None
        assert [bucket.balance for bucket in found.buckets] == [10_000, 5 << 30]
        assert [(each.name, each.owner) for each in found.offers] == [("monthly", b"491700000001")]
    await store.stop()
