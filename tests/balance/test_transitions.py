"""The streams of transitions: each is acted on by one server, and by another one if that dies; none is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from balance.accounts import Account, Session
from balance.embedded import Address
from balance.ledger import Draft
from balance.model import Bucket
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store, StoreSettings
from balance.transitions import Entry, TransitionReader, TransitionSettings, waiting

QUICK = TransitionSettings(read_s=0.05, dead_s=1.2, look_s=0.05)


class Server:
    """One that takes transitions and finishes them when it is told to, or at once."""

    def __init__(self, store: Store, name: str, *, finishes: bool = True, at_once: int = 2000) -> None:
        settings = TransitionSettings(QUICK.read_s, QUICK.dead_s, QUICK.look_s, at_once)
        self.seen: list[bytes] = []
        self.held: list[Entry] = []
        self._finishes = finishes
        self.reader = TransitionReader(store, name.encode(), self._take, settings)
        self._running = asyncio.get_running_loop().create_task(self.reader.run())

    def _take(self, entry: Entry) -> None:
        self.seen.append(entry.transition)
        if self._finishes:
            self.finish(entry)
        else:
            self.held.append(entry)

    def finish(self, entry: Entry) -> None:
        self.reader.finish(entry)

    async def die(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    yield store
    await store.stop()


async def commit(store: Store, transition: bytes) -> None:
    """A plan that leaves a transition, on an account of its own."""

    def step(account: Account | None, _: Session | None) -> Plan:
        draft = Draft(account or Account(transition, 0, 0, 978, 0, 0, [Bucket(1, 0, 0)], {}), 1)
        plan = make_plan(draft, "test", ("test",), None)
        plan.transition = transition
        return plan

    await store.commit(transition, step)


async def eventually(done: object, patience_s: float = 10.0) -> None:
    async with asyncio.timeout(patience_s):
        while not done():  # type: ignore[operator]  # noqa: ASYNC110 - what is awaited happens in Redis
            await asyncio.sleep(0.01)


async def test_what_was_committed_before_any_server_ran_is_acted_on_and_struck(store: Store) -> None:
    await commit(store, b"one")
    server = Server(store, "a")
    await commit(store, b"two")
    await eventually(lambda: server.seen == [b"one", b"two"])
    async with asyncio.timeout(10):
        while await waiting(store):  # noqa: ASYNC110 - what is awaited happens in Redis
            await asyncio.sleep(0.01)
    await server.die()


async def test_a_transition_goes_to_one_of_several_servers(store: Store) -> None:
    servers = [Server(store, name) for name in ("a", "b")]
    names = [b"%d" % number for number in range(50)]
    for name in names:
        await commit(store, name)
    await eventually(lambda: sum(len(each.seen) for each in servers) >= 50)
    await asyncio.sleep(3 * QUICK.look_s)
    assert sorted(servers[0].seen + servers[1].seen) == sorted(names)
    for each in servers:
        await each.die()


async def test_a_server_that_comes_back_finds_what_it_had_taken(store: Store) -> None:
    first = Server(store, "a", finishes=False)
    await commit(store, b"one")
    await eventually(lambda: first.seen == [b"one"])
    await first.die()
    again = Server(store, "a")
    await eventually(lambda: again.seen == [b"one"])
    await again.die()


async def test_what_a_dead_server_had_taken_is_taken_over(store: Store) -> None:
    dying = Server(store, "a", finishes=False)
    await commit(store, b"one")
    await eventually(lambda: dying.seen == [b"one"])
    other = Server(store, "b")
    await asyncio.sleep(2 * QUICK.dead_s)
    assert other.seen == []  # it lives, however long it takes
    await dying.die()
    await eventually(lambda: other.seen == [b"one"])
    await other.die()


async def test_what_was_given_back_is_taken_again_and_what_is_under_way_is_not(store: Store) -> None:
    server = Server(store, "a", finishes=False)
    for name in (b"one", b"two"):
        await commit(store, name)
    await eventually(lambda: len(server.held) == 2)
    server.reader.give_back(server.held[0])
    await eventually(lambda: server.seen == [b"one", b"two", b"one"])
    assert server.reader.under_way == 2
    await server.die()


async def test_a_server_that_has_its_hands_full_takes_no_more_and_lives(store: Store) -> None:
    full = Server(store, "a", finishes=False, at_once=1)
    await commit(store, b"one")
    await eventually(lambda: full.seen == [b"one"])
    await asyncio.sleep(2 * QUICK.read_s)
    await commit(store, b"two")
    await asyncio.sleep(4 * QUICK.read_s)
    assert full.seen == [b"one"]
    other = Server(store, "b")
    await eventually(lambda: other.seen == [b"two"])
    await asyncio.sleep(2 * QUICK.dead_s)
    assert other.seen == [b"two"]
    full.finish(full.held[0])
    await other.die()
    await commit(store, b"three")
    await eventually(lambda: full.seen == [b"one", b"three"])
    await full.die()


async def test_a_server_that_stops_strikes_what_it_has_just_finished(store: Store) -> None:
    server = Server(store, "a")
    await commit(store, b"one")
    await eventually(lambda: server.seen == [b"one"])
    await server.die()
    assert await waiting(store) == 0


async def test_a_store_that_was_emptied_is_read_from_again(store: Store) -> None:
    server = Server(store, "a")
    await commit(store, b"one")
    await eventually(lambda: server.seen == [b"one"])
    await store.call("DEL", store.keys.transitions(0))
    await commit(store, b"two")
    await eventually(lambda: server.seen == [b"one", b"two"])
    await server.die()
