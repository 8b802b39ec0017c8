"""Sy subscriptions in a real Redis: written as expected or not at all, together with the answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis

from balance.embedded import Address
from balance.keys import Keys
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from balance.subscriptions import (
    MOST_OF_AN_ACCOUNT,
    Answer,
    AnsweredError,
    Subscription,
    SubscriptionChangedError,
    accounts_with_subscriptions,
    begin_push,
    count_subscriptions,
    end_push,
    find_answer,
    find_subscription,
    keep_answer,
    make_room,
    subscriptions_of,
    write_subscription,
)

ONE = Subscription(
    b"pcrf;1",
    b"acc",
    b"sub",
    b"pcrf",
    b"realm",
    b"agent",
    ("MAIN_BALANCE",),
    {"MAIN_BALANCE": ("низкий", (("active", 4_000_000_000_000),))},
    1_700_000_000_000,
)


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis))
    await store.start()
    yield store
    await store.stop()


async def test_what_is_written_is_read(store: Store) -> None:
    assert await find_subscription(store, ONE.session_id) is None
    assert await write_subscription(store, None, ONE) == 1
    kept = await find_subscription(store, ONE.session_id)
    assert kept is not None
    assert kept.subscription == ONE
    after = replace(ONE, counters=(), told={}, aborted=True)
    assert await write_subscription(store, kept, after) == 1
    kept = await find_subscription(store, ONE.session_id)
    assert kept is not None
    assert kept.subscription == after
    assert await write_subscription(store, kept, None) == 0
    assert await find_subscription(store, ONE.session_id) is None
    assert await store.call("KEYS", "*sy:*") == []


async def test_somebody_was_faster(store: Store) -> None:
    """None of two writers undoes what the other one wrote, and the count stays true."""
    await write_subscription(store, None, ONE)
    with pytest.raises(SubscriptionChangedError):
        await write_subscription(store, None, replace(ONE, via=b"other"))
    kept = await find_subscription(store, ONE.session_id)
    assert kept is not None
    await write_subscription(store, kept, replace(ONE, via=b"first"))
    for after in (replace(ONE, via=b"second"), None):
        with pytest.raises(SubscriptionChangedError):
            await write_subscription(store, kept, after)
    (now,) = await subscriptions_of(store, ONE.account_id)
    assert now.subscription.via == b"first"
    await write_subscription(store, now, None)
    with pytest.raises(SubscriptionChangedError):
        await write_subscription(store, now, None)
    assert await count_subscriptions(store) == 0


@pytest.mark.shows("row 44")
async def test_row_44_an_answer_is_written_with_its_subscription(store: Store) -> None:
    answer = Answer(b"request", b"answer", 60_000)
    await write_subscription(store, None, ONE, answer)
    assert await find_answer(store, b"request") == b"answer"
    kept = await find_subscription(store, ONE.session_id)
    assert kept is not None
    with pytest.raises(AnsweredError) as repeated:
        await write_subscription(store, kept, None, replace(answer, answer=b"another"))
    assert repeated.value.answer == b"answer"
    with pytest.raises(SubscriptionChangedError):
        await write_subscription(store, None, ONE, replace(answer, request=b"not written"))
    assert await find_answer(store, b"not written") is None
    assert await keep_answer(store, replace(answer, answer=b"another")) == b"answer"
    assert await keep_answer(store, replace(answer, request=b"new", kept_ms=40)) == b"answer"
    await asyncio.sleep(0.06)
    assert await find_answer(store, b"new") is None


async def test_a_session_of_two_accounts_belongs_to_the_one_written_last(store: Store) -> None:
    """A subscription is moved by writing it anew and then striking the old one; cut off, it is in both for a while."""
    await write_subscription(store, None, ONE)
    old = await find_subscription(store, ONE.session_id)
    assert await write_subscription(store, None, replace(ONE, account_id=b"other")) == 2
    moved = await find_subscription(store, ONE.session_id)
    assert moved is not None
    assert moved.subscription.account_id == b"other"
    assert await write_subscription(store, old, None) == 1
    assert await find_subscription(store, ONE.session_id) == moved


async def test_accounts_are_found_whatever_clients_call_their_sessions(store: Store) -> None:
    accounts = [b"acc-%d" % number for number in range(700)]
    for name in accounts:
        await write_subscription(store, None, replace(ONE, account_id=name, session_id=b"{p0}:sy:" + name))
    await store.call("HSET", b"{pfoo}:sy:forged", b"x", b"y")
    found = [each async for page in accounts_with_subscriptions(store) for each in page]
    assert sorted(set(found)) == sorted(accounts)


async def test_the_one_told_least_lately_makes_room(store: Store) -> None:
    for number in range(MOST_OF_AN_ACCOUNT - 1):
        await write_subscription(store, None, replace(ONE, session_id=b"s;%d" % number, told_ms=1000 - number))
    assert await make_room(store, ONE.account_id) is None
    await write_subscription(store, None, replace(ONE, session_id=b"last", told_ms=2000))
    struck = await make_room(store, ONE.account_id)
    assert struck is not None
    assert struck.session_id == b"s;%d" % (MOST_OF_AN_ACCOUNT - 2)
    assert await count_subscriptions(store) == MOST_OF_AN_ACCOUNT - 1


async def test_one_worker_at_a_time(store: Store) -> None:
    assert await begin_push(store, b"s", b"a", 10_000)
    assert await begin_push(store, b"s", b"a", 10_000), "who has its turn may go on, and so after it was started again"
    assert not await begin_push(store, b"s", b"b", 10_000)
    await end_push(store, b"s", b"b")
    assert not await begin_push(store, b"s", b"b", 10_000), "only who has its turn can end it"
    await end_push(store, b"s", b"a")
    assert await begin_push(store, b"s", b"b", 20)
    await asyncio.sleep(0.05)
    assert await begin_push(store, b"s", b"a", 10_000), "a worker that is gone keeps nobody from it for long"


async def test_a_damaged_subscription_is_named(store: Store, clean_redis: Address) -> None:
    await write_subscription(store, None, ONE)
    with redis.Redis.from_url(clean_redis.url) as client:
        client.hset(Keys(64, clustered=False).sy_subscriptions(b"acc").decode(), "pcrf;1", b"\xc1")
    with pytest.raises(StoreError, match="pcrf;1"):
        await find_subscription(store, ONE.session_id)
