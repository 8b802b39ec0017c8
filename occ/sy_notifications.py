"""Telling PCRFs that policy counters have changed: Spending-Status-Notification (3GPP TS 29.219 clauses 4.5.2, 4.5.4).

A subscription is told what has changed since it was told last, by whichever worker of the store is best placed
(``occ.delivery``, ``balance.commands``), by one worker at a time, and one message at a time: what changes while it is
under way goes into the next one. Before a message leaves, what it tells counts as not told; once it is acknowledged,
as told. So whatever is cut off in between, a restart of the server included, is told again rather than never.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import msgpack

from balance.accounts import Account
from balance.commands import ChannelSettings, CommandListener, UnclaimedError, ask
from balance.directory import read_account
from balance.model import Subscriber
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store
from balance.subscribers import subscriber_named
from balance.subscriptions import (
    Kept,
    Subscription,
    SubscriptionChangedError,
    Told,
    accounts_with_subscriptions,
    begin_push,
    end_push,
    pack_subscription,
    read_subscription,
    subscriptions_of,
    write_subscription,
)
from occ.delivery import Delivered, Delivery, DeliverySettings, Destination, Ways
from occ.sy_counters import CounterSource, SyStatistics, as_of, is_gone, news, reports, standing
from protocols.diameter.codes import ResultCode, SNRequestType
from protocols.diameter.node import Node
from protocols.spending_limits import SpendingStatusNotificationRequest, encode_snr

log = logging.getLogger("occ.sy")

STREAM: Final = b"occ:sy-commands"
CHANNEL: Final = ChannelSettings(stream=STREAM)
WAYS_A_ROUND: Final = 3
"""So many ways are tried in a round, about: how long a worker keeps others from telling the same subscription."""
ASK_FOR_TURN_S: Final = 0.05
SETTLES_WITHIN_MS: Final = 2000
"""A session this young may not be known to its PCRF yet: the answer that opens it is still on its way."""
OWED_KEPT: Final = 10_000


class Result(StrEnum):
    """What came of telling one subscription."""

    TOLD = "told"
    """The PCRF has acknowledged what has changed."""
    CURRENT = "current"
    """It knew already, or there is no such subscription any more."""
    ABORTED = "aborted"
    """The PCRF has agreed to end the session."""
    DROPPED = "dropped"
    """The PCRF does not know the session (5002): there is no such subscription any more."""
    REFUSED = "refused"
    """The PCRF answered something else, each time."""
    UNANSWERED = "unanswered"
    """No answer in time by any way."""
    NO_CONNECTION = "no-connection"
    """No worker has a way to the PCRF."""
    FAILED = "failed"
    """The server could not do it; its log says why."""


_KEPT: Final = frozenset((Result.REFUSED, Result.UNANSWERED, Result.NO_CONNECTION, Result.FAILED))
"""After these it is told at the next change, or when a way to the PCRF opens."""


@dataclass(frozen=True, slots=True)
class SyNotificationSettings(DeliverySettings):
    """Times in seconds."""

    at_once: int = 256
    """SNRs of this process that one peer is sent at a time, and those that other processes are asked for; further ones
    wait."""


@dataclass(slots=True)
class _Job:
    """One subscription that is being told."""

    account_id: bytes
    session_id: bytes
    host: bytes
    via: bytes
    changed_ms: int
    """When what it is told changed; 0: that is not known."""
    again_ms: int = -1
    """It has changed again since, at that time; -1: no."""
    task: "asyncio.Task[Result] | None" = None


@dataclass(slots=True)
class _Due:
    """What a subscription has to be told now."""

    kept: Kept
    changed: Told
    aborts: bool
    """Its subscriber is gone: the session shall end."""

    @property
    def client(self) -> Destination:
        subscription = self.kept.subscription
        return Destination(subscription.origin_host, subscription.realm, subscription.via)

    def says_the_same(self, other: "_Due") -> bool:
        return (self.changed, self.aborts) == (other.changed, other.aborts)


class _Jobs:
    """Work of which one is under way for each subscription; wanted again meanwhile, it is done once more."""

    def __init__(self, work: Callable[[_Job], Awaitable[Result]], tasks: set[asyncio.Task[Any]]) -> None:
        self._work = work
        self._tasks = tasks
        self._jobs: dict[bytes, _Job] = {}

    def begin(self, wanted: _Job) -> "asyncio.Future[Result]":
        job = self._jobs.get(wanted.session_id)
        if job is None:
            job = self._jobs[wanted.session_id] = wanted
            job.task = asyncio.get_running_loop().create_task(self._run(job))
            self._tasks.add(job.task)
            job.task.add_done_callback(self._tasks.discard)
        elif job.again_ms < 0:
            job.again_ms = wanted.changed_ms
        assert job.task is not None
        return asyncio.shield(job.task)

    async def _run(self, job: _Job) -> Result:
        try:
            while True:
                result = await self._work(job)
                if job.again_ms < 0:
                    return result
                job.changed_ms, job.again_ms = job.again_ms, -1
        finally:
            del self._jobs[job.session_id]


class SyNotifications:
    """Tells the PCRFs of one store's subscriptions what changes. Belongs to the event loop it is made in."""

    def __init__(
        self,
        store: Store,
        node: Node,
        source: CounterSource,
        clock: Callable[[], int],
        settings: SyNotificationSettings | None = None,
        channel: ChannelSettings = CHANNEL,
    ) -> None:
        """``clock``: milliseconds since the Unix epoch, UTC."""
        self.source = source
        """May be replaced: see ``all_changed``."""
        self.settings = settings or SyNotificationSettings()
        self.channel = channel
        self.statistics = SyStatistics()
        self._store = store
        self._node = node
        self._ways = Ways(node)
        self._clock = clock
        self._worker = node.settings.origin_host.encode()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._begun = _Jobs(self._anywhere, self._tasks)
        self._telling = _Jobs(self._here, self._tasks)
        self._slots: dict[bytes, asyncio.Semaphore] = {}
        self._asking = asyncio.Semaphore(self.settings.at_once)
        self._owed: dict[bytes, _Job] = {}

    # -- what others call ----------------------------------------------------------------------------------------

    async def account_changed(self, account_id: bytes, now_ms: int) -> int:
        """See what the PCRFs that subscribed to an account's counters have to be told of it, and begin to tell them.

        Nothing is waited for but the store; how many subscriptions are told. Raises StoreError.
        """
        begun = 0
        subscriptions = [kept.subscription for kept in await subscriptions_of(self._store, account_id)]
        if not subscriptions:
            return begun
        account = await read_account(self._store, account_id)
        subscribers: dict[bytes, Subscriber | None] = {}
        for each in subscriptions:
            if each.subscriber_id not in subscribers:
                subscribers[each.subscriber_id] = await subscriber_named(self._store, each.subscriber_id)
            if self._is_due(each, account, subscribers[each.subscriber_id], now_ms):
                self._begin(_Job(account_id, each.session_id, each.origin_host, each.via, now_ms))
                begun += 1
        return begun

    async def all_changed(self, now_ms: int) -> int:
        """The same for all accounts: after a start, or when other counters are in force. Raises StoreError."""
        begun = 0
        async for page in accounts_with_subscriptions(self._store):
            for account_id in page:
                begun += await self.account_changed(account_id, now_ms)
        return begun

    def peer_opened(self, identity: str, *, is_relay: bool) -> None:
        """There is a connection with a peer: what could not be told is tried again if that may be the way."""
        peer = identity.encode().lower()
        for job in [each for each in self._owed.values() if is_relay or peer in (each.host.lower(), each.via.lower())]:
            self._begin(self._owed.pop(job.session_id))

    async def listen(self) -> None:
        """Tell what other workers cannot, until cancelled."""
        await CommandListener(self._store, self._worker, self._delay, self._execute, self.channel).run()

    async def stop(self) -> None:
        """Give up what is under way; it counts as not told."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, job: _Job) -> None:
        result = self._begun.begin(job)
        result.add_done_callback(lambda done: None if done.cancelled() else done.exception())

    def _is_due(
        self, subscription: Subscription, account: Account | None, subscriber: Subscriber | None, now_ms: int
    ) -> bool:
        if subscription.aborted:
            return False
        if account is None or subscriber is None or is_gone(account, subscriber):
            return True
        if subscriber.account_id != account.account_id:
            return True  # another account pays by now: that is found out on the way
        return bool(news(subscription, standing(self.source, account, subscriber, now_ms), now_ms))

    # -- which worker --------------------------------------------------------------------------------------------

    async def _anywhere(self, job: _Job) -> Result:
        """Tell it here if this worker is well placed, else have it told by whichever is. Never raises."""
        try:
            result = await self._patiently(lambda: self._placed(job))
        except StoreError as error:
            log.error("the Sy session %r could not be told what has changed: %s", job.session_id, error)
            result = Result.FAILED
        except Exception:  # a fault of ours must cost one notification, not the others
            log.exception("the Sy session %r could not be told what has changed", job.session_id)
            result = Result.FAILED
        if result in _KEPT:
            if len(self._owed) >= OWED_KEPT:
                self._owed.pop(next(iter(self._owed)))
            self._owed[job.session_id] = replace(job, again_ms=-1, task=None)
        else:
            self._owed.pop(job.session_id, None)
        return result

    async def _placed(self, job: _Job) -> Result:
        if not self._is_near(job):
            async with self._asking:
                if not self._is_near(job):
                    return await self._elsewhere(job)
        return await self._telling.begin(replace(job, again_ms=-1, task=None))

    def _is_near(self, job: _Job) -> bool:
        return self._ways.delay_for(job.host, job.via, self.settings.relay_delay_s) == 0

    async def _elsewhere(self, job: _Job) -> Result:
        try:
            return Result((await ask(self._store, _pack(job), self.channel)).decode())
        except UnclaimedError:
            self.statistics.came_to(Result.NO_CONNECTION.value)
            log.warning("no way to PCRF %r: Sy session %r is told later what has changed", job.host, job.session_id)
            return Result.NO_CONNECTION

    def _delay(self, packed: bytes) -> float | None:
        """See ``balance.commands.Delay``."""
        try:
            job = _unpack(packed)
        except ValueError as error:
            log.warning("a command of another process is left alone: %s", error)
            return None
        return self._ways.delay_for(job.host, job.via, self.settings.relay_delay_s)

    async def _execute(self, packed: bytes) -> bytes:
        """See ``balance.commands.Execute``."""
        return (await self._telling.begin(_unpack(packed))).value.encode()

    async def _patiently(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Do it again after each pause while the store cannot be reached: it may be told twice."""
        for pause_s in self.settings.pauses_s:
            try:
                return await work()
            except StoreUnavailableError:
                await asyncio.sleep(pause_s)
        return await work()

    # -- one subscription ----------------------------------------------------------------------------------------

    async def _here(self, job: _Job) -> Result:
        """Tell it by the ways this worker has, when no other worker does. Raises StoreError."""
        peer = job.via.lower()
        slots = self._slots.get(peer)
        if slots is None:
            slots = self._slots[peer] = asyncio.Semaphore(self.settings.at_once)
        async with slots:
            while not await self._take_turn(job):  # noqa: ASYNC110 - it is another process that is waited for
                await asyncio.sleep(ASK_FOR_TURN_S)
            try:
                result = await self._tell(job)
            finally:
                with suppress(StoreError):
                    await end_push(self._store, job.session_id, self._worker)
        if result is not Result.CURRENT:
            self.statistics.came_to(result.value)
        return result

    async def _take_turn(self, job: _Job) -> bool:
        settings = self.settings
        for_s = WAYS_A_ROUND * settings.answer_within_s + max(settings.pauses_s, default=0.0) + 1.0
        return await begin_push(self._store, job.session_id, self._worker, int(for_s * 1000))

    async def _tell(self, job: _Job) -> Result:
        """Tell it until it knows all there is, or cannot be told."""
        result = Result.CURRENT
        refusals = iter(self.settings.pauses_s)
        while (due := await self._due(job)) is not None:
            due = await self._unsure(due)
            if due is None:
                continue
            self.statistics.sent += 1
            if job.changed_ms:
                self.statistics.delayed((self._clock() - job.changed_ms) / 1000)
                job.changed_ms = 0
            delivery = await self._exchange(job, due)
            if delivery.outcome is Delivered.WITHDRAWN:
                continue
            result = await self._conclude(due, delivery)
            if result is Result.REFUSED:
                pause_s = next(refusals, None)
                if pause_s is None:
                    log.warning("PCRF %r refuses (%d) to be told of %r", job.host, delivery.result_code, job.session_id)
                    return result
                await asyncio.sleep(pause_s)
            elif result in _KEPT:
                log.warning("Sy session %r is told later what has changed: %s", job.session_id, delivery.reason)
                return result
            elif result is not Result.TOLD:
                return result
        return result

    async def _due(self, job: _Job) -> _Due | None:
        """What it has to be told, as the store has everything now. Raises StoreError."""
        kept = await read_subscription(self._store, job.account_id, job.session_id)
        if kept is None or kept.subscription.aborted:
            return None
        subscription, now_ms = kept.subscription, self._clock()
        subscriber, account = await asyncio.gather(
            subscriber_named(self._store, subscription.subscriber_id), read_account(self._store, job.account_id)
        )
        if subscriber is not None and subscriber.account_id != job.account_id:
            await self._move(kept, subscriber.account_id)
            job.account_id = subscriber.account_id
            return await self._due(job)
        if account is None or subscriber is None or is_gone(account, subscriber):
            return _Due(kept, {}, True)
        changed = news(subscription, standing(self.source, account, subscriber, now_ms), now_ms)
        return _Due(kept, changed, False) if changed else None

    async def _move(self, kept: Kept, account_id: bytes) -> None:
        """Another account pays for the subscriber by now: there the subscription belongs."""
        with suppress(SubscriptionChangedError):  # another worker has moved it
            await write_subscription(self._store, None, replace(kept.subscription, account_id=account_id))
        with suppress(SubscriptionChangedError):
            await write_subscription(self._store, kept, None)

    async def _unsure(self, due: _Due) -> _Due | None:
        """Count what is about to be told as not told, so that it is told again unless it is acknowledged.

        None if the subscription has changed meanwhile.
        """
        subscription = due.kept.subscription
        told = {name: each for name, each in subscription.told.items() if name not in due.changed}
        if told == subscription.told:
            return due
        return await self._write(due, replace(subscription, told=told))

    async def _write(self, due: _Due, after: Subscription | None) -> _Due | None:
        """What is due to the subscription as it is written now; None if it has changed meanwhile, or is struck."""
        try:
            self.statistics.subscriptions = await write_subscription(self._store, due.kept, after)
        except SubscriptionChangedError:
            return None
        if after is None:
            return None
        return replace(due, kept=Kept(after, pack_subscription(after)))

    async def _exchange(self, job: _Job, due: _Due) -> Delivery:
        async def look_again() -> Destination | None:
            if not await self._take_turn(job):
                return None  # it took so long that another worker has its turn
            current = await self._due(job)
            return current.client if current is not None and current.says_the_same(due) else None

        return await self._ways.exchange(
            due.client, lambda client: self._message(due, client), look_again, self.settings, self._count_sent
        )

    def _count_sent(self, repeated: bool) -> None:
        self.statistics.repeats += repeated

    def _message(self, due: _Due, client: Destination) -> bytes:
        """A new message, with an End-to-End Identifier of its own."""
        settings = self._node.settings
        return encode_snr(
            SpendingStatusNotificationRequest(
                0,
                self._node.next_end_to_end(),
                due.kept.subscription.session_id,
                settings.origin_host.encode(),
                settings.origin_realm.encode(),
                self._ways.realm_of(client),
                client.origin_host,
                reports=reports(due.changed),
                request_type=SNRequestType.ABORT_SESSION if due.aborts else SNRequestType.NORMAL,
            )
        )

    async def _conclude(self, due: _Due, delivery: Delivery) -> Result:
        """What the end of a notification means, and what is written of it. Raises StoreError."""
        subscription, now_ms = due.kept.subscription, self._clock()
        if delivery.outcome is Delivered.NO_CONNECTION:
            return Result.NO_CONNECTION
        if delivery.outcome is Delivered.UNANSWERED:
            return Result.UNANSWERED
        if delivery.result_code == ResultCode.UNKNOWN_SESSION_ID:
            if 0 <= now_ms - subscription.told_ms < SETTLES_WITHIN_MS:
                return Result.REFUSED
            log.warning(
                "PCRF %r does not know Sy session %r: dropped", subscription.origin_host, subscription.session_id
            )
            await self._write(due, None)
            return Result.DROPPED
        if not 2000 <= delivery.result_code < 3000:
            return Result.REFUSED
        told = {**as_of(subscription.told, now_ms), **due.changed}
        await self._write(due, replace(subscription, told=told, told_ms=now_ms, aborted=due.aborts))
        return Result.ABORTED if due.aborts else Result.TOLD


# -- as they travel between processes ----------------------------------------------------------------------------


def _pack(job: _Job) -> bytes:
    packed: bytes = msgpack.packb((job.account_id, job.session_id, job.host, job.via, job.changed_ms))
    return packed


def _unpack(packed: bytes) -> _Job:
    """Raises ValueError."""
    try:
        return _Job(*msgpack.unpackb(packed))
    except (msgpack.UnpackException, TypeError) as error:
        raise ValueError(f"a message between workers cannot be read: {error}") from error
