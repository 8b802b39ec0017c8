"""What the tests of bulk import and export share: the command line against a real Redis, files, and what is stored."""

import asyncio
import csv
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from typer.testing import CliRunner, Result

from balance import directory, structure, subscribers
from balance.accounts import Account
from balance.embedded import Address
from balance.journal import history
from balance.model import Subscriber
from balance.records import JournalRecord
from balance.store import Store, StoreSettings
from balance.structure import CustomerUnit
from balance.verify import verify
from occ.cli import app

T = TypeVar("T")

CATALOGUE = """\
version: bulk
currency: EUR
services:
  internet: {context: 32251@3gpp.org, rating_groups: [10], unit: octets, quota: 1 MiB, validity: 5 min}
  voice: {context: 32260@3gpp.org, rating_groups: any, unit: seconds, quota: 60 s, validity: 5 min}
allowances:
  data-5gb: {amount: 5 GiB, serves: [internet], priority: 10}
  talk: {amount: 100 min, serves: [voice]}
bonuses:
  welcome: {serves: any, priority: 5, amount: 2.00}
offers:
  monthly: {fee: 9.99, every: month, gives: [data-5gb]}
  weekly: {fee: 1.00, every: week}
plans:
  standard: {internet: 0.01 per 1 MiB, voice: 0.09 per 60 s}
  business: {voice: 0.05 per 60 s}
"""


class Lab:
    """Commands run in this process, against the shared Redis server."""

    def __init__(self, folder: Path, address: Address) -> None:
        self.folder = folder
        self.address = address
        self.config = folder / "occ.yaml"
        self.config.write_text(f"store:\n  mode: external\n  url: {address.url}\n")
        (folder / "catalogue.yaml").write_text(CATALOGUE)

    def file(self, name: str, *lines: str, newline: str = "\n") -> str:
        """A file of these lines; its path."""
        path = self.folder / name
        path.write_text("".join(line + newline for line in lines), encoding="utf-8", newline="")
        return str(path)

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, ["--config", str(self.config), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def load(self, *arguments: str, code: int = 0) -> Any:
        """``occ import --json``: its document."""
        result = self.run("import", *arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def refused(self, *arguments: str) -> str:
        """The sentence with which an import is refused before it begins."""
        result = self.run("import", *arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        return result.stderr.removeprefix("occ: ").rstrip("\n")

    def export(self, *arguments: str) -> Any:
        result = self.run("export", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def reasons(self, name: str) -> dict[int, str]:
        """Line and reason of each row of a file of rejected rows."""
        path = self.folder / name
        if path.suffix == ".jsonl":
            documents = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            return {document["line"]: document["reason"] for document in documents}
        with path.open(encoding="utf-8-sig", newline="") as stream:
            heading = stream.readline()
            stream.seek(0)
            delimiter = max(",;\t", key=heading.count)
            return {int(row["line"]): row["reason"] for row in csv.DictReader(stream, delimiter=delimiter)}

    # -- the store -------------------------------------------------------------------------------------------------

    def on_store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def connected() -> T:
            store = Store(StoreSettings(self.address))
            await store.start()
            try:
                return await work(store)
            finally:
                await store.stop()

        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(connected())

    def account(self, name: str) -> Account:
        found = self.on_store(lambda store: directory.read_account(store, name.encode()))
        assert found is not None, name
        return found

    def accounts(self) -> dict[str, Account]:
        async def read(store: Store) -> dict[str, Account]:
            return {each.account_id.decode(): each async for page in directory.accounts(store) for each in page}

        return self.on_store(read)

    def subscriber(self, name: str) -> Subscriber | None:
        return self.on_store(lambda store: subscribers.subscriber_named(store, name.encode()))

    def unit(self, name: str) -> CustomerUnit | None:
        return self.on_store(lambda store: structure.unit_named(store, name.encode()))

    def journal(self, account: str) -> list[JournalRecord]:
        return self.on_store(lambda store: history(store, account.encode(), 100))

    def check(self) -> None:
        """The books balance."""
        report = self.on_store(verify)
        assert report.consistent, report.discrepancies

    def clear(self) -> None:
        async def flush(store: Store) -> None:
            await store.call("FLUSHALL")

        self.on_store(flush)


def rows(report: Any, kind: str) -> tuple[int, int, int]:
    """Accepted, unchanged and rejected rows of a kind."""
    found = report["rows"].get(kind, {})
    return found.get("accepted", 0), found.get("unchanged", 0), found.get("rejected", 0)


def total(report: Any, label: str) -> tuple[int, int, int]:
    """One control total: before, accepted, after."""
    for line in report["totals"]:
        if line["label"] == label:
            assert line["agrees"]
            return line["before"], line["accepted"], line["after"]
    return 0, 0, 0


def three_files(lab: Lab) -> list[str]:
    """Two accounts with a bucket and a subscriber each."""
    return [
        lab.file(
            "accounts.csv",
            "account,kind,currency,balance,credit_limit,state,expires",
            "acc-1,prepaid,EUR,10.00,,active,2037-01-31",
            "acc-2,postpaid,EUR,-3.25,50.00,suspended,",
        ),
        lab.file(
            "buckets.csv",
            "account,name,unit,amount,priority,expires",
            "acc-1,data-5gb,,2 GiB,,2036-12-31T12:00:00Z",
            "acc-2,,seconds,600,7,never",
        ),
        lab.file(
            "subscribers.csv",
            "subscriber,account,plan,msisdn,imsi,state",
            "line-1,acc-1,standard,+4917000001,26201000000001,active",
            "line-2,acc-2,standard,4917000002,26201000000002,blocked",
        ),
    ]
