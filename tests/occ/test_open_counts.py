"""How many sessions stand open: every server of a store tells those of all."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from balance.embedded import Address
from balance.open_totals import add_open, correct_open
from balance.store import Store, StoreSettings
from occ.charging import ChargingStatistics
from occ.open_counts import OpenCounts


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, 4))
    await store.start()
    yield store
    await store.stop()


async def test_each_server_learns_what_the_others_opened_and_closed(store: Store) -> None:
    one, two = ChargingStatistics(), ChargingStatistics()
    counts = [OpenCounts(store, one), OpenCounts(store, two)]
    one.open_sessions, one.open_reservations = 3, 5
    await counts[0].exchange()
    await counts[1].exchange()
    assert (two.open_sessions, two.open_reservations) == (3, 5)
    two.open_sessions -= 2  # opened there, closed here
    assert two.open_sessions == 1, "a server's own count is told at once"
    await counts[1].exchange()
    await counts[0].exchange()
    assert (one.open_sessions, two.open_sessions) == (1, 1)


async def test_what_changes_while_totals_are_exchanged_is_kept(store: Store) -> None:
    statistics = ChargingStatistics(open_sessions=1)
    counts = OpenCounts(store, statistics)
    exchange = asyncio.create_task(counts.exchange())
    await asyncio.sleep(0)
    statistics.open_sessions += 10
    await exchange
    assert statistics.open_sessions == 11
    assert (await counts.exchange()).sessions == 11


async def test_what_a_killed_server_left_is_counted_away(store: Store) -> None:
    """No account has an open session here, whatever the totals say."""
    await add_open(store, 40, 50)
    statistics = ChargingStatistics()
    await OpenCounts(store, statistics).count()
    assert (statistics.open_sessions, statistics.open_reservations) == (0, 0)


async def test_of_servers_that_count_at_once_one_corrects(store: Store) -> None:
    """Mutation: without the comparison of ``counts`` in the script the second one corrects once more."""
    await add_open(store, 40, 50)
    before = await add_open(store, 0, 0)
    first = await correct_open(store, before, 3, 4)
    second = await correct_open(store, before, 3, 4)
    assert first == second == (3, 4, 1)
