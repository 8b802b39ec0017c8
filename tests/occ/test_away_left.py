"""What servers that are no more have answered without the store is charged all the same, once, by whoever starts.

Made to fail by: ``left_by_others`` that leaves out nobody (a server's own journal is taken away); no lock; no ``store``
in ``AwayJournal.open`` (charged in a store that it is not about); ``settle_all`` without its marks.
"""

import asyncio
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from balance.embedded import Address
from balance.records import pack_outcome
from occ.away import Away
from occ.away_grants import Known, Outage, decide
from occ.away_journal import AwayJournal, AwayJournalBusyError, Entry, entry_record
from occ.away_left import LeftJournals
from occ.diameter_settings import DiameterSettings
from occ.doctor import Grade, answered_away
from occ.profiles import LENIENT
from occ.rating.catalogue import load_catalogue
from occ.rules import ChargingSettings, Rules
from occ.settings import Settings
from occ.store_settings import StoreSettings
from protocols.credit_control import decode_request
from tests.live_server import LiveServer
from tests.occ import test_away
from tests.occ.test_away import AwayLab, ccr
from tests.occ.test_worker import CATALOGUE

lab = test_away.lab
away = test_away.away

STORE = "1790000000"


def found_by(away: AwayLab, own: set[str], store: str = STORE) -> LeftJournals:
    def take(journal: AwayJournal, server: str) -> Away:
        return Away(away.lab.charging, journal, lambda _: LENIENT, lambda: away.lab.now, server, 1 << 20)

    return LeftJournals(away.path.parent, own, store, "occ2", take)


async def answer_and_end(away: AwayLab) -> None:
    """The server has answered a session without the store, and is never started again."""
    for message in (ccr("a", "s1", 1, 0), ccr("a", "s1", 2, 1, used=50), ccr("a", "s1", 3, 2, used=30)):
        assert await away.ask(message) is not None
    away.end()
    AwayJournal(away.path).open(STORE).close()


async def test_what_is_left_is_charged_once_and_taken_away(away: AwayLab) -> None:
    await answer_and_end(away)
    before = away.path.with_suffix(".before")
    shutil.copy(away.path, before)
    for _ in range(2):
        left = found_by(away, {"occ2"})
        await left.settle()
        left.close()  # killed: nothing is taken away
        assert await away.lab.money("a") == (1000 - 8, 0)
        shutil.copy(before, away.path)
    left = found_by(away, {"occ2"})
    await left.settle()
    async with asyncio.timeout(20):
        await left.finish()
    assert not away.path.exists()
    assert await away.lab.money("a") == (1000 - 8, 0)
    assert sum(record["debited_micro"] for record in await away.records()) == 8


async def test_what_has_to_wait_is_settled_later(away: AwayLab) -> None:
    """The beginning of the session is in the journal of another server, which starts a little later."""
    away.lab.store.sessions._accounts[b"s1"] = b"a"
    assert await away.ask(ccr("a", "s1", 3, 1, used=30)) is not None
    away.end()
    AwayJournal(away.path).open(STORE).close()
    left = found_by(away, {"occ2"})
    await left.settle()
    finishing = asyncio.create_task(left.finish())
    await asyncio.sleep(0)
    assert away.path.exists()
    await away.charge(ccr("a", "s1", 1, 0))
    away.lab.now += 2_000
    async with asyncio.timeout(20):
        await finishing
    assert await away.lab.money("a") == (1000 - 3, 0)
    assert not away.path.exists()
    assert await away.lab.store.call("KEYS", "{p*}:e:away;*") == []


@pytest.mark.parametrize(
    ("own", "store"),
    [({"occ1", "occ2"}, STORE), ({"occ2"}, "1790000001"), ({"occ2"}, "")],
    ids=["own", "another store", "store unknown"],
)
async def test_what_is_not_to_be_settled_here_stays(
    away: AwayLab, caplog: pytest.LogCaptureFixture, own: set[str], store: str
) -> None:
    await answer_and_end(away)
    left = found_by(away, own, store)
    await left.settle()
    await left.finish()
    assert await away.lab.money("a") == (1000, 0)
    assert ("does not say that it is of the store" in caplog.text) == ("occ1" not in own)
    away.begin()
    assert away.away.statistics.waiting == 3


async def test_one_whose_server_runs_is_left_alone(away: AwayLab) -> None:
    assert await away.ask(ccr("a", "s1", 1, 0)) is not None
    left = found_by(away, {"occ2"})
    await left.settle()
    await left.finish()
    assert away.away.statistics.waiting == 1


async def test_its_server_hears_that_it_is_being_settled(away: AwayLab) -> None:
    await answer_and_end(away)
    left = found_by(away, {"occ2"})
    with pytest.raises(AwayJournalBusyError) as raised:
        AwayJournal(away.path).open(STORE)
    assert raised.value.settled_by == "occ2"
    await left.settle()
    left.close()
    journal = AwayJournal(away.path).open(STORE)
    with pytest.raises(AwayJournalBusyError) as raised:
        AwayJournal(away.path).open(STORE)
    assert raised.value.settled_by == ""
    journal.close()


async def test_a_damaged_one_keeps_nobody_from_starting(away: AwayLab, caplog: pytest.LogCaptureFixture) -> None:
    await answer_and_end(away)
    away.path.write_bytes(b"x" + away.path.read_bytes()[1:])
    left = found_by(away, {"occ2"})
    await left.finish()
    assert "is damaged at octet 0" in caplog.text
    assert away.path.exists()


def test_a_server_settles_what_one_of_another_name_has_left(
    clean_redis: Address, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The only one there was is renamed."""
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    options = {"store.mode": "external", "store.url": clean_redis.url, "catalogue": str(catalogue)}
    old = {**options, "diameter.origin_host": "old.ocs.example.net"}
    with LiveServer(tmp_path, old) as server:
        server.add_account("a", [(4, "a")], balance_micro=1_000_000)  # type: ignore[list-item]
        path = server.settings.store.away_journal("old.ocs.example.net")
    store = path.with_name(path.name + ".lock").read_text().strip()
    journal = AwayJournal(path).open(store)
    at_ms = time.time_ns() // 1_000_000
    rules, outage = Rules(load_catalogue(catalogue), ChargingSettings()), Outage(at_ms)
    for number, message in enumerate((ccr("a", "s1", 1, 0), ccr("a", "s1", 3, 1, used=1 << 20)), 1):
        outcome = decide(decode_request(message), LENIENT, rules, outage, Known(is_known=True), at_ms).outcome
        assert outcome is not None
        journal.append([entry_record(Entry(number, at_ms, b"pgw", "lenient", 0, message, pack_outcome(outcome)))])
    journal.close()
    with LiveServer(tmp_path, {**options, "diameter.origin_host": "new.ocs.example.net"}) as server:
        assert server.account("a").buckets[0].balance == 1_000_000 - 10_000
        server.assert_books_balance()
        deadline = time.monotonic() + 20
        while path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert any("old.ocs.example.net is none of those that the settings know" in each for each in told)


def test_the_doctor_tells_of_what_nobody_will_settle(tmp_path: Path) -> None:
    settings = replace(
        Settings(),
        workers=2,
        diameter=DiameterSettings(origin_host="occ1.ocs.example.net"),
        store=StoreSettings(data_dir=tmp_path),
    )
    for number in (1, 2, 3):
        name = f"occ{number}.ocs.example.net"
        journal = AwayJournal(settings.store.away_journal(name)).open(STORE)
        journal.append([entry_record(Entry(1, 1, b"pgw", "lenient", 0, b"", b""))])
        journal.close()
    for running, grade in ((False, Grade.DOUBTFUL), (True, Grade.BAD)):
        (finding,) = answered_away(settings, running=running)
        assert finding.grade is grade
        assert finding.text.startswith("1 requests that occ3.ocs.example.net answered without the store")
    (tmp_path / "away" / "occ3.ocs.example.net.journal").write_bytes(b"garbage")
    (finding,) = answered_away(settings, running=False)
    assert "is damaged at octet 0" in finding.text
