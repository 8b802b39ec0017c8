"""What a client, a changed catalogue or a dying store must not be able to do to accounts."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from balance.directory import create_account
from balance.model import AccountKind, IdentityType, Rate, Subscriber, Unit
from balance.subscribers import add_subscriber
from occ.rating.catalogue import Catalogue
from occ.rating.price import StepPrice
from protocols.credit_control import ServiceRequest, Units
from tests.live_server import LiveServer
from tests.occ import test_expiry
from tests.occ.test_expiry import CATALOGUE, Lab

lab = test_expiry.lab


def with_price(step_price_micro: int) -> Catalogue:
    return Catalogue("other", 978, CATALOGUE.services, standard(internet=StepPrice(Unit.OCTETS, 10, step_price_micro)))


def standard(**prices: Rate) -> dict[str, dict[str, Rate]]:
    return {"standard": prices}


async def test_figures_that_outgrow_64_bits_are_cut_and_nobody_else_waits(lab: Lab) -> None:
    """A report is bounded, and so is the sum of all reports of a session: neither may stop the store."""
    events = replace(CATALOGUE.services[0], unit=Unit.EVENTS)
    plans = standard(internet=StepPrice(Unit.EVENTS, 1, 1_000_000_000_000))
    lab.sell(Catalogue("events", 978, (events,), plans))
    await create_account(lab.store, b"rich", AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=1 << 60)
    await add_subscriber(lab.store, Subscriber(b"rich", b"rich", "standard", ((4, b"rich"),)))
    assert (await lab.open_session("rich", "s1", "pgw", None)).result_code == 2001
    absurd = tuple(Units(service_specific=(1 << 64) - 1) for _ in range(5))
    for number in range(1, 400):
        lab.now += 3_600_000  # so that millions of events can be true
        report = ServiceRequest(10, (), None, absurd)
        outcome, other = await asyncio.gather(
            lab.send("rich", "s1", "pgw", None, 2, number, report),
            lab.open_session("b", f"other-{number}", "pgw", None),
        )
        assert outcome.result_code == 2001
        assert other.result_code in (2001, 4012)
    lab.now += 10_000_000
    await lab.expiry.scan(lab.now)
    assert await lab.money("rich") == (0, 0)
    assert (await lab.money("b"))[1] == 0


@pytest.mark.parametrize("other_price", [2, 5, 100])
async def test_a_session_keeps_the_price_it_started_with(lab: Lab, other_price: int) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    lab.sell(with_price(other_price))
    report = ServiceRequest(10, (), Units(), (Units(total_octets=100),))
    await lab.send("a", "s1", "pgw", None, 2, 1, report)
    assert await lab.money("a") == (990, 10)
    await lab.open_session("b", "s2", "pgw", None)
    assert await lab.money("b") == (1000, 10 * other_price)


async def test_a_service_that_is_sold_no_more_is_charged_and_not_granted(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    lab.sell(Catalogue("empty", 978, (), {"standard": {}}))
    report = ServiceRequest(10, (), Units(), (Units(total_octets=100),))
    outcome = await lab.send("a", "s1", "pgw", None, 2, 1, report)
    assert (outcome.result_code, outcome.grants[0].result_code, outcome.grants[0].units) == (2001, 5031, -1)
    assert await lab.money("a") == (990, 0)


@pytest.mark.shows("row 23")
async def test_supervision_waits_for_the_grants_a_request_does_not_name(lab: Lab) -> None:
    """Row 23: a service of short validity must not take the grant of another away."""
    short = replace(CATALOGUE.services[0], name="short", rating_groups=frozenset([20]), validity_time_s=2)
    price = StepPrice(Unit.OCTETS, 10, 1)
    lab.sell(Catalogue("two", 978, (short, *CATALOGUE.services), standard(internet=price, short=price)))
    await lab.open_session("a", "s1", "pgw", None)
    await lab.send("a", "s1", "pgw", None, 2, 1, ServiceRequest(20, (), Units()))
    lab.now += 100_000
    await lab.expiry.scan(lab.now)
    assert (await lab.money("a"))[1] == 20
    lab.now += 20_000
    await lab.expiry.scan(lab.now)
    assert (await lab.money("a"))[1] == 0


async def test_row_16_a_repeat_that_names_no_subscriber_gets_its_answer(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    last = ServiceRequest(10, (), None, (Units(total_octets=10),))
    first = await lab.send("a", "s1", "pgw", None, 3, 1, last)
    again = await lab.send("", "s1", "pgw", None, 3, 1, last)
    assert first == again
    assert await lab.money("a") == (999, 0)


async def test_row_22_a_late_termination_that_names_no_subscriber_is_debited(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    lab.now += 120_000
    await lab.expiry.scan(lab.now)
    last = ServiceRequest(10, (), None, (Units(total_octets=10),))
    assert (await lab.send("", "s1", "pgw", None, 3, 1, last)).result_code == 2001
    assert await lab.money("a") == (999, 0)


@pytest.mark.shows("row 16")
async def test_late_repeats_of_a_first_request_leave_nothing_behind(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    await lab.send("a", "s1", "pgw", None, 3, 1, ServiceRequest(10))
    before = await lab.store.call("DBSIZE")
    for _ in range(20):
        await lab.open_session("a", "s1", "pgw", None)
    assert await lab.store.call("DBSIZE") == before
    assert lab.store.sessions.account_of(b"s1") is None


@pytest.mark.shows("row 19")
@pytest.mark.parametrize("digits", [0, -5])
async def test_money_that_is_nothing_is_refused_not_left_open(lab: Lab, digits: int) -> None:
    """An answer without a grant would be read as one without a limit (Open5GS)."""
    outcome = await lab.send("a", "s1", "pgw", None, 1, 0, ServiceRequest(10, (), Units(money=(digits, 0, 978))))
    assert outcome.result_code == 5004


@pytest.mark.shows("row 16")
async def test_a_termination_is_never_taken_for_an_old_repeat(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    await lab.send("a", "s1", "pgw", None, 2, (1 << 32) - 1, ServiceRequest(10, (), Units()))
    for number in range(70):
        await lab.send("a", "s1", "pgw", None, 2, 1000 + number, ServiceRequest(10, (), Units()))
    assert (await lab.send("a", "s1", "pgw", None, 3, 2000, ServiceRequest(10))).result_code == 2001
    assert await lab.money("a") == (1000, 0)


async def test_an_embedded_redis_that_dies_is_started_again(tmp_path: Path) -> None:
    with LiveServer(tmp_path) as server:
        server.add_account("acc-1", [(IdentityType.E164, "491700000001")], balance_micro=5)
        first = server.server.redis.pid
        os.kill(first, signal.SIGKILL)
        for _ in range(500):
            if server.server.redis.running and server.server.redis.pid != first and server.server.store.available:
                break
            await asyncio.sleep(0.02)
        assert server.account("acc-1").buckets[0].balance == 5
        assert server.verify().consistent


async def test_octets_are_charged_though_the_next_quota_is_asked_for_in_money(lab: Lab) -> None:
    """What was used is charged in the unit it was granted in, whatever the client asks for next."""
    await lab.open_session("a", "s1", "pgw", None)
    mixed = ServiceRequest(10, (), Units(money=(1, 0, 978)), (Units(total_octets=50),))
    await lab.send("a", "s1", "pgw", None, 2, 1, mixed)
    assert (await lab.money("a"))[0] == 995


async def test_octets_no_line_can_carry_are_not_charged(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    await lab.send("a", "s1", "pgw", None, 3, 1, ServiceRequest(10, (), None, (Units(total_octets=(1 << 64) - 1),)))
    assert await lab.money("a") == (990, 0)  # the grant of 100 octets
    assert lab.charging.statistics.disbelieved_reports == 1


async def test_open_sessions_are_counted_anew_after_a_reconnect(tmp_path: Path) -> None:
    with LiveServer(tmp_path) as server:
        statistics = server.server.charging.statistics
        statistics.open_sessions = 7  # as a lost reply might leave it
        os.kill(server.server.redis.pid, signal.SIGKILL)
        for _ in range(500):
            if statistics.open_sessions == 0:
                break
            await asyncio.sleep(0.02)
        assert statistics.open_sessions == 0
