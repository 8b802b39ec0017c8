"""What a worker knows of identities while Redis tells of changes, and what it does where Redis does not.

What makes these tests fail, each taken away alone: the comparison of watches in ``Subscribers.find``; the count of
changes in ``Subscribers.read``; ``doubt`` in ``Store._forget``; the comparison of run_id; the time at which a PING was
sent as the one that counts.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from balance import directory_watch
from balance.address import Access
from balance.connecting import open_link
from balance.directory_watch import DirectoryWatch
from balance.embedded import Address
from balance.look_ups import CHANGED_AT_ONCE, DROPPED, Subscribers
from balance.model import Subscriber
from balance.nodes import Nodes, Route
from balance.records import pack_subscriber
from balance.resp import Command, OnReply, RedisLink
from balance.store import Store, StoreSettings
from tests.balance.waiting import until
from tests.faults.deployments import HOST, Process

CACHE_MS = 400
KIND = 0
NUMBER = b"491700000001"
PASSWORD = "correct horse"


class Clock:
    """What the server takes its time from."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


class Scene:
    """A worker with a watch, and an administrator who changes the directory behind it."""

    def __init__(self, store: Store, admin: Any) -> None:
        self.store = store
        self.admin = admin
        self.clock = Clock()
        self.watch = asyncio.get_running_loop().create_task(DirectoryWatch(store, self.clock).run())

    def write(self, name: bytes, number: bytes = NUMBER) -> None:
        self.admin.set(self.store.keys.identity(KIND, number), subscriber(name))

    async def whose(self, number: bytes = NUMBER) -> bytes | None:
        """The subscriber that a request now is taken to be of."""
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.store.subscribers.find(KIND, number, self.clock.now_ms, told.set_result)
        async with asyncio.timeout(10):
            found = await told
        assert found is None or isinstance(found, Subscriber), found
        return None if found is None else found.subscriber_id

    @property
    def reads(self) -> int:
        """Look-ups of this worker."""
        return self.store.statistics.reads

    @property
    def is_watched(self) -> bool:
        return self.store.statistics.directory_watched

    def calls(self, command: str) -> int:
        """How often Redis has carried out a command, whoever sent it."""
        return int(self.admin.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def watchers(self) -> set[int]:
        return {int(each["id"]) for each in self.admin.client_list(_type="pubsub")}

    async def watched(self) -> None:
        await until(lambda: self.is_watched)

    async def passes(self, ms: int) -> None:
        """Let time pass; a PING that was sent since has been answered."""
        self.clock.now_ms += ms
        before = self.calls("ping")
        await until(lambda: self.calls("ping") > before + 1)
        await asyncio.sleep(0.02)

    async def told(self, changes: int) -> None:
        await until(lambda: self.store.statistics.directory_changes >= changes)


def subscriber(name: bytes) -> bytes:
    return pack_subscriber(Subscriber(name, b"acc-1", "standard", ((KIND, NUMBER),)))


async def stopped(watch: "asyncio.Task[None]") -> None:
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


@asynccontextmanager
async def playing(store: Store, admin: Any) -> AsyncIterator[Scene]:
    await store.start()
    scene = Scene(store, admin)
    try:
        yield scene
        assert not scene.watch.done()
    finally:
        await stopped(scene.watch)
        await store.stop()


@pytest.fixture
def admin(clean_redis: Address) -> Iterator[Any]:
    with redis.Redis.from_url(clean_redis.url, protocol=2) as client:
        yield client


@pytest.fixture
async def scene(clean_redis: Address, admin: Any) -> AsyncIterator[Scene]:
    store = Store(StoreSettings(clean_redis, partitions=4, directory_cache_ms=CACHE_MS))
    async with playing(store, admin) as scene:
        await scene.watched()
        yield scene


async def test_what_does_not_change_is_looked_up_once(scene: Scene) -> None:
    scene.write(b"anna")
    await scene.told(1)
    before = scene.calls("get")
    for _ in range(3):
        assert await scene.whose() == b"anna"
        await scene.passes(60 * CACHE_MS)
    assert scene.calls("get") - before == scene.reads == 1


async def test_what_changes_is_seen_at_once(scene: Scene) -> None:
    """The clock stands still, so without the watch the old one would do."""
    for changes, name in enumerate((b"anna", b"berta", b"carla")):
        scene.write(name)
        await scene.told(changes + 1)
        assert await scene.whose() == name
    scene.admin.delete(scene.store.keys.identity(KIND, NUMBER))
    await scene.told(4)
    assert await scene.whose() is None


async def test_nobody_is_remembered_as_nobody(scene: Scene) -> None:
    assert await scene.whose() is None
    assert await scene.whose() is None
    assert scene.reads == 2


async def test_only_the_changed_one_is_looked_up_again(scene: Scene) -> None:
    for number in (NUMBER, b"a:b", b"\r\n", b""):
        scene.write(b"anna", number)
    await scene.told(4)
    for number in (NUMBER, b"a:b", b"\r\n", b""):
        assert await scene.whose(number) == b"anna"
    scene.write(b"berta", b"a:b")
    scene.admin.mset({"id:nothing": "x", f"id:{'9' * 5000}:1": "x", "ideas": "x"})
    await scene.told(7)
    await scene.passes(2 * CACHE_MS)
    assert [await scene.whose(number) for number in (NUMBER, b"a:b", b"\r\n", b"")] == [
        b"anna", b"berta", b"anna", b"anna",
    ]  # fmt: skip
    assert scene.reads == 5


async def test_a_connection_that_is_cut_is_made_again(scene: Scene) -> None:
    """Until then, and for what was read before, the rule without a watch holds."""
    scene.write(b"anna")
    await scene.told(1)
    assert await scene.whose() == b"anna"
    (watcher,) = scene.watchers()
    with scene.admin.pipeline(transaction=True) as together:
        together.execute_command("CLIENT", "KILL", "ID", watcher)
        together.set(scene.store.keys.identity(KIND, NUMBER), subscriber(b"berta"))
        together.execute()
    await until(lambda: bool(scene.watchers() - {watcher}))
    await scene.watched()
    scene.clock.now_ms += CACHE_MS - 1
    assert (await scene.whose(), scene.reads) == (b"anna", 1)
    await scene.passes(1)
    assert (await scene.whose(), scene.reads) == (b"berta", 2)
    await scene.passes(10 * CACHE_MS)
    assert (await scene.whose(), scene.reads) == (b"berta", 2)


class Recorded:
    """Until when the directory is told that it will have been told of changes."""

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers
        self.until_ms: list[int] = []

    def heard(self, watch: int, until_ms: int) -> bool:
        self.until_ms.append(until_ms)
        return self._subscribers.heard(watch, until_ms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscribers, name)


async def test_a_watch_that_hears_nothing_is_trusted_no_longer_than_an_entry_without_one(
    clean_redis: Address, admin: Any
) -> None:
    """Redis hangs: what it had to tell is told late, and its answer to a PING tells of the time when that was sent."""
    store = Store(StoreSettings(clean_redis, partitions=4, directory_cache_ms=CACHE_MS))
    recorded: Any = Recorded(store.subscribers)
    store.subscribers = recorded
    async with playing(store, admin) as scene:
        await scene.watched()
        scene.write(b"anna")
        await scene.told(1)
        assert await scene.whose() == b"anna"
        await scene.passes(CACHE_MS)
        admin.execute_command("CLIENT", "PAUSE", 900, "ALL")  # takes no PING, tells nothing
        await asyncio.sleep(0.4)
        asked_ms, answered = scene.clock.now_ms, len(recorded.until_ms)  # one is under way
        scene.clock.now_ms += CACHE_MS
        asked = asyncio.create_task(scene.whose())
        await asyncio.sleep(0)
        assert scene.reads == 2
        assert await asked == b"anna"
        await until(lambda: len(recorded.until_ms) >= answered + 2)
        expected = [asked_ms + CACHE_MS, asked_ms + 2 * CACHE_MS]
        assert recorded.until_ms[answered : answered + 2] == expected


async def test_entries_of_before_the_watch_are_not_trusted_by_it(clean_redis: Address, admin: Any) -> None:
    store = Store(StoreSettings(clean_redis, partitions=4, directory_cache_ms=CACHE_MS))
    async with playing(store, admin) as scene:
        scene.write(b"anna")
        assert await scene.whose() == b"anna"
        scene.write(b"berta")  # may be told, or not
        await scene.watched()
        await scene.passes(CACHE_MS)
        assert await scene.whose() == b"berta"


async def test_the_loss_of_the_connection_that_is_read_by_ends_the_watch(scene: Scene) -> None:
    """Whatever is connected next may be another server."""
    scene.write(b"anna")
    await scene.told(1)
    assert await scene.whose() == b"anna"
    scene.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(lambda: scene.store.statistics.reconnects == 1)
    await scene.watched()
    await scene.passes(CACHE_MS)
    assert (await scene.whose(), scene.reads) == (b"anna", 2)
    await scene.passes(CACHE_MS)
    assert (await scene.whose(), scene.reads) == (b"anna", 2)


class Held:
    """The way to Redis, on which answers can be kept back."""

    lost = False

    def __init__(self, route: Route) -> None:
        self.route = route
        self.holds = False
        self.answers: list[Callable[[], None]] = []

    def send(self, command: Command, on_reply: OnReply) -> None:
        def answered(reply: Any) -> None:
            if self.holds:
                self.answers.append(lambda: on_reply(reply))
            else:
                on_reply(reply)

        self.route.send(command, answered)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.route, name)


class HeldNodes:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.held: Held | None = None

    def route(self, key: bytes) -> Route | None:
        if self.held is None:
            route = self._nodes.route(key)
            assert route is not None
            self.held = Held(route)
        return self.held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nodes, name)


@pytest.mark.parametrize("changes", [True, False])
async def test_an_answer_that_a_change_has_overtaken(clean_redis: Address, admin: Any, changes: bool) -> None:
    """Answers and changes come by two connections: an old answer may come after the change was told."""
    store = Store(StoreSettings(clean_redis, partitions=4, directory_cache_ms=CACHE_MS))
    nodes: Any = HeldNodes(store._nodes)
    store.subscribers = Subscribers(store.keys, nodes, store.statistics, 100, CACHE_MS)
    async with playing(store, admin) as scene:
        await scene.watched()
        scene.write(b"anna")
        await scene.told(1)
        nodes.route(b"")
        nodes.held.holds = True
        asked = asyncio.create_task(scene.whose())
        await until(lambda: len(nodes.held.answers) == 1)  # Redis has answered ...
        if changes:
            scene.write(b"berta")
            await scene.told(2)  # ... and then told of a change
        nodes.held.holds = False
        nodes.held.answers[0]()
        assert await asked == b"anna"
        assert await scene.whose() == b"anna"  # for as long as without a watch
        await scene.passes(CACHE_MS)
        assert (await scene.whose(), scene.reads) == ((b"berta", 2) if changes else (b"anna", 1))


async def test_what_was_asked_while_a_watch_was_made_ready_is_not_trusted_by_it(
    clean_redis: Address, admin: Any
) -> None:
    """Redis may have answered before it began to tell of changes."""
    store = Store(StoreSettings(clean_redis, partitions=4, directory_cache_ms=CACHE_MS))
    async with playing(store, admin) as scene:
        await scene.watched()
        await stopped(scene.watch)
        scene.write(b"anna")
        scene.write(b"zoe", b"2")
        directory = store.subscribers
        doubt = directory.doubt()
        assert await scene.whose() == b"anna"  # one is answered before it is ready, one afterwards
        asked = asyncio.create_task(scene.whose(b"2"))
        await asyncio.sleep(0)
        watch = directory.watched(doubt)
        assert directory.heard(watch, 1 << 50)
        assert (await asked, scene.reads) == (b"zoe", 2)
        for _ in range(2):
            scene.clock.now_ms += CACHE_MS
            assert (await scene.whose(), await scene.whose(b"2"), scene.reads) == (b"anna", b"zoe", 4)
        assert directory.doubt()
        assert not directory.heard(watch, 1 << 50)
        assert not directory.watched(doubt)
        scene.clock.now_ms += CACHE_MS
        assert (await scene.whose(), scene.reads) == (b"anna", 5)
        scene.watch = asyncio.get_running_loop().create_task(DirectoryWatch(store, scene.clock).run())


async def test_what_has_changed_is_kept_for_when_the_store_is_away_within_the_same_bound(
    clean_redis: Address, admin: Any
) -> None:
    entries = 100
    store = Store(StoreSettings(clean_redis, partitions=4, account_cache_entries=entries, directory_cache_ms=CACHE_MS))
    numbers = [b"49%08d" % n for n in range(2 * entries)]
    admin.mset({store.keys.identity(KIND, number): subscriber(b"anna") for number in numbers})
    async with playing(store, admin) as scene:
        await scene.watched()
        for number in numbers[:entries]:
            await scene.whose(number)
        admin.mset({store.keys.identity(KIND, number): subscriber(b"berta") for number in numbers[: entries // 2]})
        await scene.told(entries // 2)
        kept = [store.subscribers.remembered(KIND, number) for number in numbers[:entries]]
        assert [None if each is None else each.subscriber_id for each in kept] == [b"anna"] * entries
        for number in numbers[entries:]:
            await scene.whose(number)
            assert sum(store.subscribers.remembered(KIND, each) is not None for each in numbers) <= entries
        assert not any(store.subscribers.remembered(KIND, each) for each in numbers[: entries // 2])


async def test_a_store_that_is_emptied_has_nobody(scene: Scene) -> None:
    """Redis tells it in one message without names. What was known stays known for when the store is away."""
    scene.write(b"anna")
    await scene.told(1)
    assert await scene.whose() == b"anna"
    scene.admin.flushall()
    await scene.told(2)
    remembered = scene.store.subscribers.remembered(KIND, NUMBER)
    assert remembered is not None
    assert remembered.subscriber_id == b"anna"
    assert await scene.whose() is None
    assert scene.store.subscribers.remembered(KIND, NUMBER) is None


@pytest.mark.parametrize("count", [CHANGED_AT_ONCE, 100_000])
async def test_thousands_that_change_at_once(scene: Scene, count: int) -> None:
    """One command, one message; they are few enough to be taken out one by one, or everybody is looked up again."""
    numbers = [b"49%08d" % n for n in range(count)]
    asked = (*numbers[:20], *numbers[-20:])
    scene.admin.mset({scene.store.keys.identity(KIND, number): subscriber(b"anna") for number in numbers})
    scene.write(b"zoe")
    await scene.told(count + 1)
    assert {await scene.whose(number) for number in asked} == {b"anna"}
    assert await scene.whose() == b"zoe"
    scene.admin.mset({scene.store.keys.identity(KIND, number): subscriber(b"berta") for number in numbers})
    await scene.told(2 * count + 1)
    assert {await scene.whose(number) for number in asked} == {b"berta"}
    assert await scene.whose() == b"zoe"
    assert scene.is_watched
    await scene.passes(CACHE_MS)
    before = scene.reads
    assert {await scene.whose(number) for number in asked} == {b"berta"}
    assert scene.reads == before


async def test_a_watch_that_has_more_to_hear_than_redis_keeps_for_it_comes_back(scene: Scene) -> None:
    """`client-output-buffer-limit pubsub`: Redis cuts the connection off."""
    scene.write(b"anna")
    await scene.told(1)
    assert await scene.whose() == b"anna"
    (watcher,) = scene.watchers()
    usual = scene.admin.config_get("client-output-buffer-limit")
    scene.admin.config_set("client-output-buffer-limit", "pubsub 65536 65536 1")
    try:
        scene.admin.mset({scene.store.keys.identity(KIND, b"%d" % n): b"x" for n in range(50_000)})
        await until(lambda: bool(scene.watchers() - {watcher}))
    finally:
        scene.admin.config_set("client-output-buffer-limit", usual["client-output-buffer-limit"])
    scene.write(b"berta")
    await scene.watched()
    await scene.passes(CACHE_MS)
    assert await scene.whose() == b"berta"


@asynccontextmanager
async def as_user(address: Address, admin: Any, monkeypatch: pytest.MonkeyPatch, *rules: str) -> AsyncIterator[Scene]:
    monkeypatch.setenv("OCC_TEST_PASSWORD", PASSWORD)
    admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", f">{PASSWORD}", *rules)
    access = Access("limited", password_env="OCC_TEST_PASSWORD")
    store = Store(StoreSettings(replace(address, access=access), partitions=4, directory_cache_ms=CACHE_MS))
    try:
        async with playing(store, admin) as scene:
            yield scene
    finally:
        admin.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.parametrize("missing", ["client|tracking", "subscribe", "info"])
async def test_a_user_who_may_not_watch_looks_up_as_before(
    clean_redis: Address,
    admin: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    missing: str,
) -> None:
    """And watches when the access control list allows it, without a restart."""
    monkeypatch.setattr(directory_watch, "REFUSED_PAUSE_S", 0.05)
    async with as_user(clean_redis, admin, monkeypatch, "~*", "&*", "+@all", f"-{missing}") as scene:
        await until(lambda: "does not tell of changes" in caplog.text)
        scene.write(b"anna")
        assert await scene.whose() == b"anna"
        scene.write(b"berta")
        scene.clock.now_ms += CACHE_MS - 1
        await asyncio.sleep(0.2)
        assert await scene.whose() == b"anna"
        scene.clock.now_ms += 1
        assert await scene.whose() == b"berta"
        assert not scene.is_watched
        assert caplog.text.count("does not tell of changes") == 1
        admin.execute_command("ACL", "SETUSER", "limited", f"+{missing}")
        await scene.watched()


async def test_the_documented_user_may_watch(clean_redis: Address, admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
    (rules,) = re.findall("^user occ on #PASSWORD (.* ~.*|~.*)$", text, re.MULTILINE)
    async with as_user(clean_redis, admin, monkeypatch, *rules.split()) as scene:
        await scene.watched()


async def test_another_server_s_changes_are_not_listened_to(clean_redis: Address, admin: Any) -> None:
    """A name may lead elsewhere by now; the connection that identities are read by still stands."""
    with ExitStack() as stack:
        elsewhere = Process()
        stack.callback(elsewhere.end)
        await asyncio.to_thread(elsewhere.start)

        class Moved(Store):
            tries = 0

            async def connect(self, key: bytes) -> RedisLink:
                self.tries += 1
                return await open_link(asyncio.get_running_loop(), Address(host=HOST, port=elsewhere.port))

        store = Moved(StoreSettings(clean_redis, partitions=4, directory_cache_ms=CACHE_MS))
        async with playing(store, admin) as scene:
            await until(lambda: store.tries == 3)
            assert not scene.is_watched
            scene.write(b"anna")
            assert await scene.whose() == b"anna"
            scene.write(b"berta")
            scene.clock.now_ms += CACHE_MS
            assert await scene.whose() == b"berta"


async def test_the_oldest_make_way_and_what_is_read_anew_is_new(clean_redis: Address, admin: Any) -> None:
    entries = 32 * DROPPED
    store = Store(StoreSettings(clean_redis, partitions=4, account_cache_entries=entries, directory_cache_ms=CACHE_MS))
    numbers = [b"49%08d" % n for n in range(entries + 1)]
    admin.mset({store.keys.identity(KIND, number): subscriber(b"anna") for number in numbers})
    async with playing(store, admin) as scene:
        await scene.watched()
        for number in numbers[:-1]:
            await scene.whose(number)
        store.subscribers.doubt()
        scene.clock.now_ms += CACHE_MS
        await scene.whose(numbers[0])  # the oldest until now
        await scene.whose(numbers[-1])  # one too many
        remembered = [store.subscribers.remembered(KIND, number) is not None for number in numbers]
        assert remembered[0]
        assert remembered[1 : DROPPED + 1] == [False] * DROPPED
        assert all(remembered[DROPPED + 1 :])


async def test_a_watch_that_ends_closes_its_connection(scene: Scene) -> None:
    assert len(scene.watchers()) == 1
    await stopped(scene.watch)
    await until(lambda: not scene.watchers())
    assert not scene.is_watched
    scene.watch = asyncio.get_running_loop().create_task(DirectoryWatch(scene.store, scene.clock).run())
    await scene.watched()
