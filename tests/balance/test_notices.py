"""Notices in the store: packed and read, taken up once, written by one of several, counted, bounded."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance import notices
from balance.embedded import Address
from balance.notices import DEAD, SENT, WAITING, Delivery, Event, Notice
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from tests.plain import PLAIN_ONLY


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    yield store
    await store.stop()


def notice(name: bytes = b"n1", klass: str = "billing") -> Notice:
    return Notice(name, b"acc-1", b"", klass, "restored", {"balance": -(1 << 62), "text": "Ж"}, 1_800_000_000_000)


def waiting(name: bytes = b"n1", due_ms: int = 10, channel: str = "email") -> Delivery:
    return Delivery(notice(name), WAITING, channel, 5, next_ms=due_ms)


def test_what_is_packed_is_read() -> None:
    assert notices.unpack(notices.pack(notice())) == notice()


@given(st.binary(max_size=200))
def test_anything_else_is_refused(octets: bytes) -> None:
    with pytest.raises(ValueError, match="no notice"):
        notices.unpack(octets)


@pytest.mark.parametrize(
    "bad",
    [
        replace(notice(), notice_id=b""),
        replace(notice(), notice_id=b"x" * 256),
        replace(notice(), klass="spam"),
        replace(notice(), template="../x"),
        replace(notice(), values={"x": 1 << 70}),
    ],
)
async def test_what_cannot_be_handed_in(store: Store, bad: Notice) -> None:
    """All or none: the good one beside it is not handed in either."""
    with pytest.raises((ValueError, OverflowError)):
        await notices.enqueue(store, [notice(), bad])
    assert await store.call("XLEN", store.keys.notices(0)) == 0


async def test_handed_in_and_struck(store: Store) -> None:
    await notices.enqueue(store, [notice(b"n1"), notice(b"n2")])
    entries = await notices.handed_in(store, 0, 10)
    assert [notices.unpack(each).notice_id for _, packed in entries for each in packed] == [b"n1", b"n2"]
    assert (await notices.figures(store)).lists["waiting"] > 0
    assert (await notices.figures(store)).oldest_ms > 0
    await notices.strike(store, 0, [entry for entry, _ in entries])
    assert await notices.handed_in(store, 0, 10) == []


async def test_taken_up_once(store: Store) -> None:
    taken = await asyncio.gather(*(notices.accept(store, waiting(), 60_000) for _ in range(5)))
    assert sorted(taken) == [False] * 4 + [True]
    assert (await notices.figures(store)).counts == {("none", "duplicate"): 4}
    assert await notices.accept(store, waiting(b"n2"), 1)
    await asyncio.sleep(0.02)
    assert await notices.accept(store, waiting(b"n2"), 1)  # as long as it is remembered, not longer


async def test_a_queue_is_in_the_order_of_what_is_due_and_marketing_stands_behind(store: Store) -> None:
    for name, due_ms in ((b"late", 30), (b"early", 10), (b"future", 99)):
        assert await notices.accept(store, waiting(name, due_ms), 60_000)
    ad = replace(waiting(b"ad", 1), notice=notice(b"ad", "marketing"))
    assert await notices.accept(store, ad, 60_000)
    due = await notices.due(store, "email", 50, 10)
    assert [known.delivery.notice.notice_id for known in due] == [b"early", b"late", b"ad"]
    assert [known.delivery.notice.notice_id for known in await notices.due(store, "email", 50, 2)] == [
        b"early",
        b"late",
    ]
    assert await notices.due(store, "smpp", 50, 10) == []


@PLAIN_ONLY
@pytest.mark.parametrize("ended", [False, True])
async def test_what_somebody_took_while_it_was_looked_up_is_not_due(
    store: Store, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """The look-up has two steps; another process begins an attempt, or ends it as well, between them."""
    assert await notices.accept(store, waiting(), 60_000)
    known = await notices.read(store, b"n1")
    assert known is not None
    begun = replace(known.delivery, attempts=1, next_ms=60_000)
    after = replace(begun, state=SENT, finished_ms=20, next_ms=0) if ended else begun
    call = store.call

    async def slow(*command: Any) -> Any:
        reply = await call(*command)
        if command[0] == "ZRANGEBYSCORE":
            monkeypatch.undo()
            assert await notices.write(store, known, after, [], 10) is not None
        return reply

    monkeypatch.setattr(store, "call", slow)
    assert await notices.due(store, "email", 50, 10) == []


async def test_of_two_who_write_one_does(store: Store) -> None:
    assert await notices.accept(store, waiting(), 60_000)
    (known,) = await notices.due(store, "email", 50, 10)
    afters = [known.delivery.told(Event(20, "email", SENT, who), state=SENT, finished_ms=20) for who in "ab"]
    written = await asyncio.gather(*(notices.write(store, known, after, [("email", "sent")], 10) for after in afters))
    assert sum(each is not None for each in written) == 1
    assert (await notices.figures(store)).counts == {("email", "sent"): 1}
    assert await notices.due(store, "email", 1 << 50, 10) == []
    (listed,) = await notices.listed(store, "finished", 10)
    assert listed in afters


async def test_from_queue_to_queue_and_list_to_list(store: Store) -> None:
    assert await notices.accept(store, waiting(), 60_000)
    known = await notices.read(store, b"n1")
    assert known is not None
    for state, channel, listed in (
        ("waiting", "smpp", "waiting"), ("held", "route", "held"), ("dead", "route", "dead"),
        ("waiting", "route", "waiting"), ("sent", "smpp", "finished"), ("delivered", "smpp", "finished"),
    ):  # fmt: skip
        after = replace(known.delivery, state=state, channel=channel, next_ms=10, finished_ms=20)
        known = await notices.write(store, known, after, [], 10)
        assert known is not None
        lists = {name: len(await notices.listed(store, name, 10)) for name in notices.LISTS}
        assert lists == {name: int(name == listed) for name in notices.LISTS}
        queues = {name: len(await notices.due(store, name, 10, 10)) for name in ("email", "smpp", "route")}
        assert queues == {name: int(state in ("waiting", "held") and name == channel) for name in queues}


async def test_lists_are_bounded(store: Store) -> None:
    for number in range(8):
        name = b"n%d" % number
        assert await notices.accept(store, waiting(name), 60_000)
        known = await notices.read(store, name)
        assert known is not None
        await notices.write(store, known, replace(known.delivery, state=DEAD, finished_ms=number), [], 3)
    assert [each.notice.notice_id for each in await notices.listed(store, "dead", 10)] == [b"n7", b"n6", b"n5"]
    assert await notices.read(store, b"n0") is None
    assert await notices.forget(store, 7) == 2
    assert [each.notice.notice_id for each in await notices.listed(store, "dead", 10)] == [b"n7"]


async def test_what_was_lost_leaves_its_queue(store: Store) -> None:
    assert await notices.accept(store, waiting(), 60_000)
    await store.call("DEL", store.keys.notice(b"n1"))
    assert await notices.due(store, "email", 50, 10) == []
    assert await store.call("EXISTS", store.keys.notice_queue("email", False)) == 0


async def test_a_newer_format_is_refused(store: Store) -> None:
    await store.call("SET", store.keys.notice(b"n1"), b"\x9c\x63" + b"\xc0" * 11)
    with pytest.raises(StoreError, match="format 99"):
        await notices.read(store, b"n1")


async def test_an_account_of_another_lane(store: Store) -> None:
    """Outside a cluster there is one lane for all; many are few entries."""
    given = [replace(notice(b"n%d" % each), account_id=b"acc-%d" % each) for each in range(250)]
    await notices.enqueue(store, given)
    entries = await notices.handed_in(store, 0, 100)
    assert [notices.unpack(each) for _, packed in entries for each in packed] == given
    assert len(entries) == 3
