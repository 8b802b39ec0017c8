"""An import that is cut off is taken up by the same command; many rows take no more time each than few."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from balance import directory, structure
from balance.embedded import Address
from balance.store import Store
from occ.bulk.files import find_sources
from occ.bulk.importing import Import, Report
from occ.bulk.reading import RowReader
from occ.bulk.reconcile import OnExisting, Rules
from occ.bulk.rejects import reject_paths
from occ.rating.catalogue import load_catalogue
from tests.occ.bulk_lab import Lab, rows, total

NOW = 1_700_000_000_000
KEYS_AN_ACCOUNT = 5
"""Its own, its members, its subscriber and two identities."""


@pytest.fixture
def lab(clean_redis: Address, tmp_path: Path) -> Lab:
    return Lab(tmp_path, clean_redis)


def population(lab: Lab, count: int) -> list[str]:
    """``count`` accounts with two buckets and one subscriber of two identities each."""
    accounts = [f"acc-{n},{'postpaid,-1.25,50.00' if n % 4 == 3 else 'prepaid,10.00,'}" for n in range(count)]
    buckets = [line for n in range(count) for line in (f"acc-{n},data-5gb,5 GiB,", f"acc-{n},,{n + 1} s,20")]
    lines = [f"line-{n},acc-{n},standard,4917{n:08d},26201{n:010d}" for n in range(count)]
    return [
        lab.file("accounts.csv", "account,kind,balance,credit_limit", *accounts),
        lab.file("buckets.csv", "account,name,amount,priority", *buckets),
        lab.file("subscribers.csv", "subscriber,account,plan,msisdn,imsi", *lines),
    ]


def cut_off(lab: Lab, files: list[str], at_keys: int) -> bool:
    """Start an import and kill it when the store has so many keys; whether it was killed before it had ended."""
    command = [sys.executable, "-m", "occ", "--config", str(lab.config), "import", *files, "--json"]
    importer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with redis.Redis.from_url(lab.address.url) as client:
            while client.dbsize() < at_keys and importer.poll() is None:
                time.sleep(0.001)
    finally:
        importer.kill()
        importer.wait()
    return importer.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_any_moment_it_is_taken_up_by_the_same_command(lab: Lab) -> None:
    count = 2000
    files = population(lab, count)
    killed = [cut_off(lab, files, at) for at in (1, 700, 2 * count - 500, 3 * count, KEYS_AN_ACCOUNT * count - 300)]
    assert sum(killed) >= 3
    assert not (lab.folder / "accounts.rejected.csv").exists()

    async def spend(store: Store) -> None:
        """Business goes on: what was imported is used before the import is whole."""
        await directory.adjust_account(store, b"acc-0", -2_000_000, now_ms=NOW, reason="used")
        await directory.adjust_account(store, b"acc-1", -1000, now_ms=NOW, reason="used", bucket_id=2)

    lab.on_store(spend)
    report = lab.load(*files)
    for kind, number in (("accounts", count), ("buckets", 2 * count), ("subscribers", count)):
        accepted, unchanged, rejected = rows(report, kind)
        assert (accepted + unchanged, rejected) == (number, 0)
    postpaid = count // 4
    money = (count - postpaid) * 10_000_000 - postpaid * 1_250_000
    assert total(report, "EUR")[2] == money - 2_000_000
    assert total(report, "octets data-5gb")[2] == count * (5 << 30) - 1000
    assert total(report, "seconds")[2] == count * (count + 1) // 2
    assert total(report, "debt EUR")[2] == postpaid * 1_250_000
    assert total(report, "subscribers")[2] == count

    async def members(store: Store) -> set[bytes]:
        return {
            each.subscriber_id
            for n in range(count)
            async for page in structure.paid_subscribers(store, b"acc-%d" % n)
            for each in page
        }

    assert len(lab.on_store(members)) == count
    with redis.Redis.from_url(lab.address.url) as client:
        assert sum(1 for _ in client.scan_iter("id:*", count=1000)) == 2 * count
    lab.check()
    again = lab.load(*files)
    assert rows(again, "accounts") == (0, count, 0)
    assert total(again, "EUR")[:2] == (money - 2_000_000, 0)


@pytest.mark.slow
def test_json_lines_are_taken_up_too(lab: Lab) -> None:
    count = 1000
    documents: list[dict[str, Any]] = [
        {
            "account": f"acc-{n}",
            "balance": "10.00",
            "state": "suspended" if n % 10 == 0 else "active",
            "buckets": [{"name": "data-5gb", "amount": "5 GiB"}],
            "subscribers": [
                {"plan": "standard", "msisdn": f"4917{n:08d}", "state": "blocked" if n % 20 == 0 else "active"}
            ],
        }
        for n in range(count)
    ]
    path = lab.file("accounts.jsonl", *(json.dumps(each) for each in documents))
    assert sum(cut_off(lab, [path], at) for at in (300, 2 * count)) >= 1
    report = lab.load(path)
    assert sum(rows(report, "accounts")[:2]) == sum(rows(report, "subscribers")[:2]) == count
    assert total(report, "EUR")[2] == count * 10_000_000
    assert total(report, "subscribers")[2] == count
    barred = [account for account in lab.accounts().values() if account.out_of_service]
    assert len(barred) == count // 20
    lab.check()


def imported(lab: Lab, count: int) -> tuple[Report, float]:
    """The report, and the processor time for each account."""
    catalogue = load_catalogue(lab.folder / "catalogue.yaml")
    sources = find_sources(population(lab, count), {}, None, None)
    rules = Rules(catalogue, OnExisting.COMPARE, NOW)

    async def work(store: Store) -> tuple[Report, float]:
        run = Import(
            store,
            sources,
            reject_paths(sources, None),
            RowReader(catalogue, {}),
            rules,
            f"of-{count}",
            False,
            lambda what, done: None,
        )
        began = time.process_time()
        return await run.run(), (time.process_time() - began) / count

    return lab.on_store(work)


@pytest.mark.slow
def test_many_accounts_take_no_more_time_each_than_few(lab: Lab) -> None:
    few, time_of_few = imported(lab, 1_000)
    assert not few.disagreements
    lab.clear()
    many, time_of_many = imported(lab, 8_000)
    assert not many.disagreements
    assert sum(many.rows.values()) == 32_000
    assert many.after.subscribers == 8_000
    assert time_of_many < 4 * time_of_few


def test_an_import_that_loses_the_store_says_so_and_goes_on_when_repeated(lab: Lab) -> None:
    files = population(lab, 600)

    from occ.bulk import importing

    settled = importing.Import._settled
    calls = 0

    def losing(self: Import, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 550:
            self.store._nodes.not_primary()
        settled(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing.Import, "_settled", losing)
        result = lab.run("import", *files)
    assert result.exit_code == 1
    assert "Redis" in result.stderr or "store" in result.stderr
    report = lab.load(*files)
    assert sum(rows(report, "accounts")[:2]) == 600
    assert total(report, "subscribers")[2] == 600
    lab.check()
