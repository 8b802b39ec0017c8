"""What is granted without a store, and what settling makes of it: on a real store, with a clock that is set by hand.

Made to fail by: no ``mark`` in ``Store._command`` (debited twice); no ``_remember`` in ``Settling`` (another answer);
``_known`` left out (charged again); ``_late`` left out (the session stays ended); ``_after_its_end`` left out (usage
lost); each line of ``Outage.room`` left out.
"""

import asyncio
import gc
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balance.directory import read_account
from balance.embedded import Address
from balance.model import Unit
from balance.plans import Outcome
from balance.records import unpack_outbox
from balance.resp import StoreUnavailableError
from balance.store import Store, StoreSettings
from balance.verify import verify
from occ.away import Away
from occ.away_grants import Known, Outage, Refused, decide
from occ.away_journal import AwayJournal
from occ.away_settling import Result
from occ.cdr import as_json_fields
from occ.charging import UNREACHABLE, Charging
from occ.profiles import LENIENT
from occ.rating.away import AwayLimits
from occ.rating.catalogue import Catalogue
from occ.rating.price import StepPrice
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units, decode_request, encode_request
from tests.occ import test_expiry
from tests.occ.test_expiry import CATALOGUE, CONTEXT, Lab

lab = test_expiry.lab

LIMITS = AwayLimits(100, 250, 4, 3, 10, 600)
SERVICE = replace(CATALOGUE.services[0], away=LIMITS)
PRICE = {"standard": {"internet": StepPrice(Unit.OCTETS, 10, 1)}}
GRANTING = Catalogue("granting", 978, (SERVICE,), PRICE)
"""A micro-unit for each 10 octets; 60 s of validity."""


def ccr(account: str, session: str, kind: int, number: int, used: int | None = None, asks: bool = True) -> bytes:
    """A request of Rating-Group 10; ``used`` octets are reported, and more is asked for."""
    reported = () if used is None else (Units(total_octets=used),)
    service = ServiceRequest(10, (), Units() if asks and kind != 3 else None, reported)
    return encode_request(
        CreditControlRequest(
            0xC0,
            1,
            2,
            session.encode(),
            b"pgw",
            b"r",
            b"r",
            CONTEXT,
            kind,
            number,
            subscriptions=((4, account.encode()),),
            services=(service,),
            requested_action=0 if kind == 4 else None,
        )
    )


class AwayLab:
    """A worker that grants by itself: it is asked as if the store could not be reached, though it is there."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.path = folder / "occ1.journal"
        lab.sell(GRANTING)
        self.begin()

    def begin(self) -> None:
        """The process starts."""
        journal = AwayJournal(self.path).open()
        self.away = Away(self.lab.charging, journal, lambda _: LENIENT, lambda: self.lab.now, "occ1", 1 << 20)

    def end(self) -> None:
        self.away.close()

    async def ask(self, message: bytes) -> Outcome | None:
        """The answer from the journal; None: refused."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        request = decode_request(message)
        return await future if self.away.take(request, message, LENIENT, b"pgw", future.set_result) else None

    async def granted(self, message: bytes) -> int:
        outcome = await self.ask(message)
        assert outcome is not None
        return outcome.grants[0].units

    async def charge(self, message: bytes, charging: Charging | None = None) -> Outcome:
        """By the store."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        (charging or self.lab.charging).charge(
            decode_request(message), LENIENT, b"pgw", self.lab.now, future.set_result
        )
        return await future

    async def settle(self) -> dict[Result, int]:
        before = self.away.statistics.settled.copy()
        await self.away.settle_left()
        return dict(self.away.statistics.settled - before)

    async def records(self) -> list[dict[str, Any]]:
        entries = await self.lab.store.call("XRANGE", self.lab.store.keys.outbox(0), "-", "+")
        return [as_json_fields(record) for _, fields in entries for record in unpack_outbox(fields[1])]

    async def is_open(self, account: str, session: str) -> bool:
        found = await read_account(self.lab.store, account.encode())
        assert found is not None
        return session.encode() in found.sessions


@pytest.fixture
async def away(lab: Lab, tmp_path: Path) -> AsyncIterator[AwayLab]:
    found = AwayLab(lab, tmp_path)
    for account in ("a", "b", "c"):  # the worker has seen them: their balance was asked for
        enquiry = replace(decode_request(ccr(account, f"seen-{account}", 4, 0)), requested_action=2)
        await found.charge(encode_request(enquiry))
    yield found
    found.end()


async def test_a_session_and_an_event_are_settled_as_they_would_have_been_charged(away: AwayLab) -> None:
    assert await away.granted(ccr("a", "s1", 1, 0)) == 100
    away.lab.now += 10_000
    assert await away.granted(ccr("a", "s1", 2, 1, used=80)) == 100
    assert await away.granted(ccr("a", "s2", 1, 0)) == 100
    assert await away.granted(ccr("a", "e1", 4, 0)) == 100
    ended = await away.ask(ccr("a", "s1", 3, 2, used=100))
    assert ended is not None
    assert (ended.result_code, ended.grants[0].result_code) == (2001, 2001)
    came_ms = away.lab.now
    away.lab.now += 1_000_000
    assert await away.settle() == {Result.SETTLED: 5}
    assert await away.lab.money("a") == (1000 - 18 - 10, 10)
    assert await away.is_open("a", "s2")
    assert not await away.is_open("a", "s1")
    session, event = sorted(await away.records(), key=lambda each: each["session_id"], reverse=True)
    assert (session["used"], session["debited_micro"], session["duration_ms"]) == (180, 18, 10_000)
    assert session["closed_ms"] == came_ms
    assert (event["cause"], event["debited_micro"]) == ("event", 10)


async def test_what_is_settled_twice_is_debited_once_however_late(away: AwayLab) -> None:
    """The server is killed as it settles, before anything is struck from its journal, and starts again when answers
    that the store keeps for repeats have expired.
    """
    for message in (
        ccr("a", "s1", 1, 0), ccr("a", "s1", 2, 1, used=50), ccr("a", "s1", 3, 2, used=50), ccr("b", "e1", 4, 0),
        ccr("b", "s2", 1, 0), ccr("b", "s2", 2, 1, used=70), ccr("c", "s3", 1, 0, asks=False),
    ):  # fmt: skip
        assert await away.ask(message) is not None
    before = away.path.with_suffix(".before")
    shutil.copy(away.path, before)
    assert await away.settle() == {Result.SETTLED: 7}
    money = [await away.lab.money(account) for account in ("a", "b", "c")]
    away.end()
    store = away.lab.store
    for key in await store.call("KEYS", "{p*}:e:*"):
        if b":e:away;" not in key:
            await store.call("DEL", key)
    for account in ("b", "c"):
        await away.charge(ccr(account, "s2" if account == "b" else "s3", 3, 9))  # they are forgotten as well
    money[1] = (money[1][0], 0)
    for key in await store.call("KEYS", "{p*}:e:s*"):
        await store.call("DEL", key)
    shutil.move(before, away.path)
    away.begin()
    assert await away.settle() == {Result.REPEATED: 7}
    assert [await away.lab.money(account) for account in ("a", "b", "c")] == money
    assert (await verify(store)).discrepancies == []


async def test_a_repeat_gets_its_answer_before_and_after_settling(away: AwayLab) -> None:
    messages = [ccr("a", "s1", 1, 0), ccr("a", "s1", 2, 1, used=90), ccr("a", "s1", 3, 2, used=90)]
    first = [await away.ask(message) for message in messages]
    assert [await away.ask(message) for message in messages] == first
    assert away.away.statistics.answered == 3
    await away.settle()
    assert [await away.charge(message) for message in messages] == first
    assert (await away.lab.money("a"))[0] == 1000 - 18


async def test_a_repeat_of_what_the_store_has_answered_gets_that(away: AwayLab) -> None:
    """Also when its session has ended since."""
    away.lab.store.sessions.remembers_ended = True
    messages = [ccr("a", "s1", 1, 0), ccr("a", "s1", 2, 1, used=90), ccr("a", "s2", 1, 0), ccr("a", "s2", 3, 1, used=9)]
    first = [await away.charge(message) for message in messages]
    assert [await away.ask(message) for message in messages] == first
    assert away.away.statistics.answered == 0


async def test_a_session_is_its_clients_alone(away: AwayLab) -> None:
    """Nobody else hears its answers or reports for it, be it known from the store or from the journal."""
    away.lab.store.sessions.remembers_ended = True
    of_store, of_journal, ended = (ccr("a", name, 1, 0) for name in ("s1", "s2", "s3"))
    await away.charge(of_store)
    await away.charge(ended)
    await away.charge(ccr("a", "s3", 3, 1, used=1))
    assert await away.ask(of_journal) is not None
    for message in (of_store, of_journal, ccr("a", "s1", 2, 1, used=5), ccr("a", "s2", 2, 1, used=5)):
        request = replace(decode_request(message), origin_host=b"thief")
        assert await away.ask(encode_request(request)) is None
    answered = away.away.statistics.answered
    request = replace(decode_request(ccr("a", "s3", 3, 1, used=1)), origin_host=b"thief")
    assert await away.ask(encode_request(request)) is not None  # taken down, not repeated
    assert away.away.statistics.answered == answered + 1
    away.lab.now += 1
    await away.settle()
    assert away.away.statistics.waiting == 1  # it is refused by the store, which may be another server's doing yet
    assert (await away.lab.money("a"))[0] == 999


async def test_what_another_server_has_charged_is_not_charged_again(away: AwayLab, clean_redis: Address) -> None:
    """It was under way when the store was lost, or came to another server first: the store knows the request. What
    the client was answered last is what it will be answered by this server ever after.
    """
    await away.charge(ccr("a", "s1", 1, 0))
    other = Store(StoreSettings(clean_redis, partitions=4))
    await other.start()
    report, end = ccr("a", "s1", 2, 1, used=50), ccr("b", "s2", 3, 1, used=20)
    await away.charge(ccr("b", "s2", 1, 0))
    charging = Charging(other, Rules(replace_quota(400), ChargingSettings()))
    assert (await away.charge(report, charging)).grants[0].units == 400
    await away.charge(end, charging)
    given = [await away.ask(report), await away.ask(end)]
    assert given[0] is not None
    assert given[0].grants[0].units == 100
    assert await away.settle() == {Result.REPEATED: 2}
    assert (await away.lab.money("a"))[0] == 1000 - 5
    assert (await away.lab.money("b")) == (1000 - 2, 0)
    assert [await away.charge(report), await away.charge(end)] == given
    await other.stop()


def replace_quota(units: int) -> Catalogue:
    return Catalogue("other", 978, (replace(SERVICE, quota_units=units),), PRICE)


async def test_a_report_that_comes_behind_the_end_of_its_session_is_charged(
    away: AwayLab, clean_redis: Address
) -> None:
    """Another server had the termination and was quicker."""
    await away.charge(ccr("a", "s1", 1, 0))
    assert await away.ask(ccr("a", "s1", 2, 1, used=50)) is not None
    other = Store(StoreSettings(clean_redis, partitions=4))
    await other.start()
    await away.charge(ccr("a", "s1", 3, 2, used=30), Charging(other, away.lab.charging.rules))
    await other.stop()
    assert await away.settle() == {Result.SETTLED: 1}
    assert await away.lab.money("a") == (1000 - 3 - 5, 0)
    assert sum(record["debited_micro"] for record in await away.records()) == 8


async def test_a_session_that_lived_through_the_outage_goes_on(away: AwayLab) -> None:
    """Row 23 ended it meanwhile, as nobody could tell the store that its client had reported."""
    await away.charge(ccr("a", "s1", 1, 0))
    away.lab.now += 100_000
    assert await away.granted(ccr("a", "s1", 2, 1, used=60)) == 100
    away.lab.now += 100_000
    await away.lab.expiry.scan(away.lab.now)
    assert not await away.is_open("a", "s1")
    await away.settle()
    assert await away.is_open("a", "s1")
    assert await away.lab.money("a") == (1000 - 6, 10)
    assert (await away.charge(ccr("a", "s1", 2, 2, used=10))).grants[0].units == 100
    await away.charge(ccr("a", "s1", 3, 3, used=10))
    records = await away.records()
    assert sum(record["used"] for record in records) == 80
    assert sum(record["debited_micro"] for record in records) == 8
    assert away.lab.charging.statistics.open_sessions == 0


async def test_usage_that_no_balance_covers_leaks_and_the_session_is_there(away: AwayLab) -> None:
    for number in range(3):
        await away.charge(ccr("a", f"e{number}", 4, 0, used=3300))  # 10 octets of balance are left
    assert await away.granted(ccr("a", "s1", 1, 0)) == 100
    assert await away.granted(ccr("a", "s1", 2, 1, used=100)) == 100
    assert await away.settle() == {Result.SETTLED: 2}
    assert await away.lab.money("a") == (0, 0)
    assert away.away.statistics.leaked_micro == 0
    assert (await away.charge(ccr("a", "s1", 3, 2, used=100))).result_code == 2001
    assert sum(record["leaked_micro"] for record in await away.records()) == 10


async def test_what_nobody_can_be_debited_for_is_in_a_record(away: AwayLab) -> None:
    away.lab.sell(Catalogue("open", 978, (replace(SERVICE, away=replace(LIMITS, unknown_subscribers=True)),), PRICE))
    assert await away.granted(ccr("nobody", "s1", 1, 0)) == 100
    assert await away.granted(ccr("nobody", "s1", 2, 1, used=70)) == 100
    assert await away.granted(ccr("nobody", "e1", 4, 0)) == 100
    away.lab.store.sessions._accounts[b"s9"] = b"a"
    assert await away.ask(ccr("a", "s9", 3, 5, used=30)) is not None
    assert await away.settle() == {Result.VOID: 1, Result.LOST: 1}
    away.lab.now += 30_000
    assert await away.settle() == {}  # another server may be about to settle the beginning of s1 and s9
    away.lab.now += 31_000
    assert await away.settle() == {Result.LOST: 2}
    found = [(each["cause"], each["session_id"], each["used"], each["debited_micro"]) for each in await away.records()]
    assert sorted(found) == [("uncharged", "e1", 100, 0), ("uncharged", "s1", 70, 0), ("uncharged", "s9", 30, 0)]
    assert len({each["record_id"] for each in await away.records()}) == 3
    json.dumps(await away.records())


async def test_what_was_charged_before_a_long_outage_is_in_no_record_of_losses(away: AwayLab) -> None:
    """The reply was lost with the store; meanwhile all that the store keeps for repeats has expired."""
    away.lab.now = time.time_ns() // 1_000_000  # the store numbers its journal by its own clock
    await away.charge(ccr("a", "s1", 1, 0))
    end = ccr("a", "s1", 3, 1, used=50)
    await away.charge(end)
    assert await away.ask(end) is not None
    assert await away.ask(ccr("a", "s1", 3, 2, used=70)) is not None
    await away.lab.store.call("DEL", away.lab.store.keys.ended(b"a", b"s1"))
    away.lab.now += 3_600_000
    assert await away.settle() == {}
    away.lab.now += 61_000
    assert await away.settle() == {Result.REPEATED: 1}
    assert await away.settle() == {}  # the other has its own patience
    away.lab.now += 61_000
    assert await away.settle() == {Result.LOST: 1}
    found = [(each["cause"], each["used"]) for each in await away.records()]
    assert found == [("normal", 50), ("uncharged", 70)]
    assert await away.lab.money("a") == (1000 - 5, 0)


async def test_an_event_debited_before_an_outage_longer_than_debits_are_kept_is_debited_once(away: AwayLab) -> None:
    """The reply was lost with the store: nothing but the ledger's journal knows of the debit any more."""
    away.lab.now = time.time_ns() // 1_000_000  # the store numbers its journal by its own clock
    event = ccr("a", "e1", 4, 0)
    await away.charge(event)
    assert await away.ask(event) is not None
    assert await away.ask(ccr("a", "e2", 4, 0)) is not None
    await away.lab.store.call("DEL", away.lab.store.keys.ended(b"a", b"e1"))
    away.lab.now += away.lab.charging.rules.settings.refund_window_ms
    assert await away.settle() == {Result.REPEATED: 1, Result.SETTLED: 1}
    assert await away.lab.money("a") == (1000 - 10 - 10, 0)


async def test_a_service_that_is_sold_no_more_is_in_a_record(away: AwayLab) -> None:
    await away.ask(ccr("a", "s1", 1, 0))
    await away.ask(ccr("a", "s1", 2, 1, used=70))
    away.lab.sell(Catalogue("other", 978, (), {"standard": {}}))
    assert await away.settle() == {Result.SETTLED: 1, Result.LOST: 1}
    assert [each["used"] for each in await away.records() if each["cause"] == "uncharged"] == [70]


async def test_a_service_sold_no_more_is_in_a_record_though_its_session_has_ended(
    away: AwayLab, clean_redis: Address
) -> None:
    """Another server had the termination and was quicker; the service was never part of what that one charged."""
    bare = encode_request(replace(decode_request(ccr("a", "s1", 1, 0)), services=()))
    assert (await away.charge(bare)).result_code == 2001
    assert await away.ask(ccr("a", "s1", 2, 1, used=70)) is not None
    other = Store(StoreSettings(clean_redis, partitions=4))
    await other.start()
    end = encode_request(replace(decode_request(ccr("a", "s1", 3, 2)), services=()))
    assert (await away.charge(end, Charging(other, away.lab.charging.rules))).result_code == 2001
    await other.stop()
    away.lab.sell(Catalogue("other", 978, (), {"standard": {}}))
    assert await away.settle() == {Result.LOST: 1}
    assert [each["used"] for each in await away.records() if each["cause"] == "uncharged"] == [70]
    assert await away.lab.money("a") == (1000, 0)


async def test_the_record_of_a_service_sold_no_more_comes_with_the_mark_of_its_entry(
    away: AwayLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is lost right behind the commit: the mark says that all is done, so the record has to be there."""
    await away.ask(ccr("a", "s1", 1, 0))
    await away.ask(ccr("a", "s1", 2, 1, used=70))
    await away.ask(ccr("a", "e1", 4, 0))
    away.lab.sell(Catalogue("other", 978, (), {"standard": {}}))
    call = away.lab.store.call

    async def lost(*command: Any) -> Any:
        if command[0] == "XADD":
            raise StoreUnavailableError("the store cannot be reached")
        return await call(*command)

    monkeypatch.setattr(away.lab.store, "call", lost)
    await away.settle()
    monkeypatch.undo()
    away.end()
    away.begin()
    await away.settle()
    assert away.away.statistics.waiting == 0
    found = [(each["session_id"], each["used"]) for each in await away.records() if each["cause"] == "uncharged"]
    assert sorted(found) == [("e1", 100), ("s1", 70)]


async def test_newer_requests_wait_until_their_session_is_settled(away: AwayLab) -> None:
    await away.ask(ccr("a", "s1", 1, 0))
    message = ccr("a", "s1", 2, 1, used=10)
    request = decode_request(message)
    assert away.away.holds(request)
    order: list[str] = []
    begun = asyncio.Event()

    def begin() -> None:
        order.append("begun")
        begun.set()

    away.away.in_turn(request, message, LENIENT, b"pgw", begin, lambda _: order.append("refused"))
    assert order == []
    await away.settle()
    await begun.wait()
    assert order == ["begun"]
    assert not away.away.holds(request)


async def test_newer_requests_do_not_wait_for_a_store_that_is_lost_again(away: AwayLab) -> None:
    """They are told so, and are answered without it: their clients would wait for as long as it is away."""
    assert await away.granted(ccr("a", "s1", 1, 0)) == 100
    message = ccr("a", "s1", 2, 1, used=10)
    told: list[Outcome] = []
    away.away.in_turn(decode_request(message), message, LENIENT, b"pgw", lambda: None, told.append)
    await away.lab.store.stop()
    while away.lab.store.available:  # noqa: ASYNC110 - the connection decides
        await asyncio.sleep(0.001)
    running = asyncio.create_task(away.away.run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(told) == 1
    assert told[0] is UNREACHABLE
    assert await away.granted(message) == 100
    await away.lab.store.start()
    assert await away.settle() == {Result.SETTLED: 2}


async def test_settling_leaves_no_cycles(away: AwayLab) -> None:
    """Nothing collects them while the server runs."""
    requests = [ccr("a", "s1", 1, 0), *(ccr("a", "s1", 2, number, used=1) for number in range(1, 60))]
    await away.ask(requests[0])
    gc.collect()
    for request in requests[1:]:
        await away.ask(request)
    await away.settle()
    assert gc.collect() < len(requests)


async def test_an_answer_waits_for_the_disk_and_a_full_one_refuses(away: AwayLab) -> None:
    journal = away.away._journal
    real, journal._file = journal._file, os.open("/dev/full", os.O_WRONLY)
    outcome = await away.ask(ccr("a", "s1", 1, 0))
    assert outcome is not None
    assert outcome.result_code == 3004
    assert not away.away.sessions
    os.close(real)


async def test_what_was_left_counts_against_the_limits(away: AwayLab) -> None:
    for number in range(3):
        assert await away.granted(ccr("a", f"s{number}", 1, 0)) == 100
    assert await away.ask(ccr("a", "s9", 1, 0)) is None
    away.end()
    away.begin()
    assert await away.ask(ccr("a", "s9", 1, 0)) is None
    assert await away.granted(ccr("a", "s1", 2, 1, used=100)) == 100
    await away.settle()


async def test_an_empty_journal_takes_the_place_of_a_settled_one(away: AwayLab) -> None:
    """And the marks that its entries have left in the store are taken away."""
    await away.ask(ccr("a", "s1", 1, 0))
    octets = away.away.journal_octets
    await away.settle()
    keys = "{p*}:e:away;*"
    assert len(await away.lab.store.call("KEYS", keys)) == 1
    running = asyncio.create_task(away.away.run())
    async with asyncio.timeout(20):
        while away.away.journal_octets >= octets or await away.lab.store.call("KEYS", keys):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    assert away.away.outage is None


# -- decisions, without journal or store ------------------------------------------------------------------------------


SEEN = Known(is_known=True)


def asked(message: bytes, outage: Outage, known: Known = SEEN, now_ms: int = 0) -> int | list[Refused]:
    decision = decide(decode_request(message), LENIENT, Rules(GRANTING, ChargingSettings()), outage, known, now_ms)
    return decision.refused if decision.outcome is None else decision.outcome.grants[0].units


def test_limits_of_a_session() -> None:
    outage = Outage(0)
    assert [asked(ccr("a", "s", 2, number, used=1), outage) for number in range(4)] == [100, 100, 50, -1]
    narrow = replace(LIMITS, session_grants=2)
    assert outage.room(b"s", "internet", narrow, 0) is Refused.SESSION
    assert outage.room(b"other", "internet", narrow, 0) == 100


def test_limits_of_an_outage() -> None:
    outage = Outage(1_000)
    assert outage.room(b"s", "internet", LIMITS, 601_000) == 100
    assert outage.room(b"s", "internet", LIMITS, 601_001) is Refused.TIME
    assert [asked(ccr("a", f"s{number}", 1, 0), outage, now_ms=1_000) for number in range(4)] == [
        100, 100, 100, [Refused.SESSIONS]
    ]  # fmt: skip
    assert outage.room(b"s1", "internet", replace(LIMITS, grants=3), 1_000) is Refused.GRANTS


def test_strangers_and_what_reports_nothing_are_refused() -> None:
    assert asked(ccr("a", "s", 1, 0), Outage(0), Known()) == [Refused.UNKNOWN]
    assert asked(ccr("a", "s", 2, 1), Outage(-601_000)) == [Refused.TIME]
    assert asked(ccr("a", "s", 2, 1, used=5), Outage(-601_000)) == -1  # the report is taken
    refund = replace(decode_request(ccr("a", "s", 4, 0)), requested_action=1)
    assert asked(encode_request(refund), Outage(0)) == [Refused.NOT_ALLOWED]


def test_an_event_is_granted_whole_or_not_at_all() -> None:
    large = replace(decode_request(ccr("a", "e", 4, 0)), services=(ServiceRequest(10, (), Units(total_octets=101)),))
    assert asked(encode_request(large), Outage(0)) == [Refused.SESSION]


def test_a_call_that_ends_by_a_last_second_gets_one() -> None:
    """Kamailio goes on for another grant after a refused update, but ends the call when final units end."""
    service = replace(SERVICE, unit=Unit.SECONDS, away=replace(LIMITS, session_grants=1))
    rules = Rules(Catalogue("calls", 978, (service,), {}), ChargingSettings())
    kamailio, outage = replace(LENIENT, last_second=True), Outage(0)
    grants = []
    for number in range(3):
        request = decode_request(ccr("a", "s", 2, number))
        request.services = (ServiceRequest(10, (), Units(), (Units(time=5),)),)
        outcome = decide(request, kamailio, rules, outage, SEEN, 0).outcome
        assert outcome is not None
        grants.append((outcome.grants[0].result_code, outcome.grants[0].units, outcome.grants[0].final))
    assert grants == [(2001, 100, False), (2001, 1, True), (4010, -1, False)]
