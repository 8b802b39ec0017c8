"""Delivering notices: taken up, routed, put into words, handed to a channel, and what came of it written down.

Each channel has a loop and attempts of its own: one that is slow or dead holds up no other. An attempt is written down
before it is made, with the time by which it must have ended (``lease``); a notice whose process was killed meanwhile
is due again then. So a notice is delivered at least once, and twice only if a process ends between a channel taking it
and the store learning of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from random import random
from typing import Final

from balance import notices
from balance.contacts import Recipient, find_recipient
from balance.notices import DEAD, DECLINED, DELIVERED, HELD, LOGGED, SENT, WAITING, Delivery, Event, Known
from balance.resp import StoreError
from balance.store import Store
from occ.masking import masked_address
from occ.notices.channel import Channel, Message, PermanentError, Taken, TemporaryError, ThrottledError
from occ.notices.pacing import Pacer, backoff_ms
from occ.notices.routing import LOG, Decision, Decline, GiveUp, Hold, Send, decide
from occ.notices.settings import CHANNELS, NoticesSettings
from occ.notices.templates import RenderError, Templates

log = logging.getLogger("occ.notices")

ROUTE: Final = "route"
"""The queue of notices whose channel is to be chosen anew."""
NOBODY: Final = "none"
"""Stands for the channel where there is none."""

PAGE: Final = 100
ENTRIES: Final = 10
"""Read at once; each may hold a hundred notices."""
POLL_S: Final = 0.25
STORE_PAUSE_S: Final = 1.0
"""Before the store is asked again that could not be reached."""
LEASE_MARGIN_S: Final = 10.0
"""Between the end of an attempt and the time when another process may begin one: for writing down what came of it."""
TIDY_S: Final = 60.0
DISABLED_MS: Final = 60_000
"""After this, what is due by a channel that is disabled here goes another way."""
RECEIPT_PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0)
"""A receipt may be faster than the store: so often it is looked up."""

_COUNTED: Final = {HELD: "held", DECLINED: "declined", DEAD: "dead", LOGGED: "logged", SENT: "sent"}


@dataclass(frozen=True, slots=True)
class Way:
    """A channel that is enabled."""

    channel: Channel
    in_flight: int
    per_second: int
    timeout_s: float


class Deliveries:
    """Delivers the notices of one store. Times of notices are by ``clock`` (ms since 1970)."""

    def __init__(
        self,
        store: Store,
        settings: NoticesSettings,
        templates: Templates,
        ways: Mapping[str, Way],
        clock: Callable[[], int],
        chance: Callable[[], float] = random,
        lease_margin_s: float = LEASE_MARGIN_S,
    ) -> None:
        self._store = store
        self._settings = settings
        self._templates = templates
        self._ways = ways
        self._clock = clock
        self._chance = chance
        self._lease_margin_s = lease_margin_s
        self._enabled = tuple(name for name in CHANNELS if name in ways)
        self._wake = {name: asyncio.Event() for name in (*CHANNELS, ROUTE)}
        self._stopping = False
        self._attempts: set[asyncio.Task[None]] = set()
        self._under_way: set[bytes] = set()
        """Notices that this process is busy with: their queues still show them."""
        self._pacers = {name: Pacer(way.per_second) for name, way in ways.items()}

    async def run(self) -> None:
        """Deliver until cancelled. Nothing is lost while the store or a channel cannot be reached."""
        loops = [
            asyncio.create_task(self._again_and_again(self._take_up), name="intake"),
            asyncio.create_task(self._again_and_again(self._route), name="routing"),
            asyncio.create_task(self._again_and_again(self._tidy), name="tidying"),
            *(asyncio.create_task(way.channel.run(), name=f"{name}'s connection") for name, way in self._ways.items()),
            *(asyncio.create_task(self._again_and_again(self._serving(name)), name=name) for name in self._ways),
        ]
        try:
            await asyncio.gather(*loops)
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def finish(self, within_s: float) -> None:
        """After ``run`` was cancelled: let attempts that are under way end, then close the channels."""
        self._stopping = True
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=within_s)
        left = list(self._attempts)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        closing = (way.channel.close() for way in self._ways.values())
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, Exception):
                log.debug("a channel was not closed in order: %s", result)

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except StoreError as error:
                log.warning("notices wait: %s", error)
                await asyncio.sleep(STORE_PAUSE_S)

    # -- taking up and routing -----------------------------------------------------------------------------------

    async def _take_up(self) -> None:
        taken = 0
        for lane in self._store.keys.lanes():
            entries = await notices.handed_in(self._store, lane, ENTRIES)
            await asyncio.gather(*(self._accept(each) for _, packed in entries for each in packed))
            if entries:
                await notices.strike(self._store, lane, [entry for entry, _ in entries])
            taken += len(entries)
        if taken < ENTRIES:
            await asyncio.sleep(POLL_S)

    async def _accept(self, packed: bytes) -> None:
        try:
            notice = notices.unpack(packed)
        except ValueError as error:
            log.error("a notice is dropped: %s", error)
            await notices.count(self._store, NOBODY, "unreadable")
            return
        now_ms = self._clock()
        # Routed at once: nearly every notice goes out by its first channel.
        decision = await self._decide(Delivery(notice, WAITING, ROUTE, now_ms), now_ms)
        queue = decision.channel if isinstance(decision, Send) else ROUTE
        delivery = Delivery(notice, WAITING, queue, now_ms, next_ms=now_ms)
        if await notices.accept(self._store, delivery, self._settings.history_days * 86_400_000):
            self._wake[queue].set()

    async def _route(self) -> None:
        """Notices that have to find a way anew: those of no channel, and of channels that are disabled by now."""
        found = await self._due(ROUTE, PAGE, self._clock())
        for name in CHANNELS:
            if name not in self._ways:
                # Another server of this store may have it, if only until its settings are changed as well.
                found += await self._due(name, PAGE, self._clock() - DISABLED_MS)
        for known in found:
            now_ms = self._clock()
            decision = await self._decide(known.delivery, now_ms)
            await self._follow(known, decision, now_ms)
        if not found:
            await self._rest(ROUTE, POLL_S)

    async def _decide(self, delivery: Delivery, now_ms: int) -> Decision:
        recipient = await find_recipient(self._store, delivery.notice.account_id, delivery.notice.subscriber_id)
        return self._decision(delivery, recipient, now_ms)

    def _decision(self, delivery: Delivery, recipient: Recipient, now_ms: int) -> Decision:
        expires_ms = max(delivery.notice.at_ms, delivery.revived_ms) + self._settings.expire_hours * 3_600_000
        return decide(
            delivery.notice,
            recipient.contact,
            self._settings.defaults,
            self._enabled,
            delivery.given_up,
            now_ms,
            expires_ms,
        )

    async def _follow(self, known: Known, decision: Decision, now_ms: int) -> None:
        """Write down where a notice goes, other than an attempt."""
        delivery = known.delivery
        match decision:
            case Send(channel, _):
                moved = replace(delivery, state=WAITING, channel=channel, attempts=0, next_ms=now_ms)
                await self._write(known, moved, ())
                self._wake[channel].set()
            case Hold(until_ms):
                event = Event(now_ms, NOBODY, "held", "quiet hours")
                await self._write(known, delivery.told(event, state=HELD, channel=ROUTE, next_ms=until_ms))
            case Decline():
                event = Event(
                    now_ms, NOBODY, "declined", f"the customer wants no notices of class {delivery.notice.klass}"
                )
                await self._write(known, delivery.told(event, state=DECLINED, finished_ms=now_ms))
            case GiveUp(reason):
                await self._give_up(known, delivery, reason, now_ms)

    async def _give_up(self, known: Known, delivery: Delivery, reason: str, now_ms: int) -> None:
        log.warning("notice %s is given up: %s", delivery.notice.template, reason)
        event = Event(now_ms, NOBODY, "dead", reason)
        await self._write(known, delivery.told(event, state=DEAD, finished_ms=now_ms))

    async def _tidy(self) -> None:
        before_ms = self._clock() - self._settings.history_days * 86_400_000
        while await notices.forget(self._store, before_ms):
            pass
        await asyncio.sleep(TIDY_S)

    # -- one channel ---------------------------------------------------------------------------------------------

    def _serving(self, name: str) -> Callable[[], Awaitable[None]]:
        """Begin the attempts of a channel that are due and for which there is room."""
        way = self._ways[name]
        pacer = self._pacers[name]
        room = asyncio.Semaphore(way.in_flight)
        clock = asyncio.get_running_loop().time

        async def serve() -> None:
            due = await self._due(name, 2 * way.in_flight, self._clock())
            if not due:
                await self._rest(name, POLL_S)
                return
            for known in due:
                await room.acquire()
                wait_s = pacer.wait_s(clock())
                if wait_s > 0:
                    try:
                        await asyncio.sleep(wait_s)
                    except asyncio.CancelledError:
                        room.release()
                        raise
                self._begin(name, known, room)

        return serve

    def _begin(self, name: str, known: Known, room: asyncio.Semaphore) -> None:
        notice_id = known.delivery.notice.notice_id
        if notice_id in self._under_way:
            room.release()
            return
        self._under_way.add(notice_id)
        task = asyncio.create_task(self._attempt(name, known))
        self._attempts.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            room.release()
            self._under_way.discard(notice_id)
            self._attempts.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.error("an attempt to deliver a notice failed", exc_info=task.exception())

        task.add_done_callback(ended)

    async def _due(self, queue: str, count: int, now_ms: int) -> list[Known]:
        # Those under way stand first in the queue for as long as their attempts are not written down.
        found = await notices.due(self._store, queue, now_ms, count + len(self._under_way))
        return [known for known in found if known.delivery.notice.notice_id not in self._under_way][:count]

    async def _rest(self, queue: str, seconds: float) -> None:
        """Until something comes into a queue, or for so long."""
        event = self._wake[queue]
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
        event.clear()

    async def _attempt(self, name: str, known: Known) -> None:
        """One attempt of one channel, from the decision to the record of it."""
        try:
            begun = await self._claim(name, known)
        except StoreError as error:
            log.warning("a notice waits: %s", error)
            return
        if begun is None:
            return
        known, message = begun
        after, counts = await self._try(name, known.delivery, message)
        await self._note(known, after, counts)
        if after.state == WAITING and after.channel == ROUTE:
            self._wake[ROUTE].set()

    async def _claim(self, name: str, known: Known) -> tuple[Known, Message] | None:
        """Write an attempt down before it is made; None if there is to be none. Raises StoreError."""
        delivery, now_ms = known.delivery, self._clock()
        recipient = await find_recipient(self._store, delivery.notice.account_id, delivery.notice.subscriber_id)
        decision = self._decision(delivery, recipient, now_ms)
        if not isinstance(decision, Send) or decision.channel != name:
            await self._follow(known, decision, now_ms)
            return None
        language = recipient.contact.language or self._settings.language
        time_zone = recipient.contact.time_zone or self._settings.time_zone
        told = {"operator": self._settings.operator, "number": recipient.number, "channel": name}
        try:
            text = self._templates.render(delivery.notice, language, told, time_zone)
        except RenderError as error:
            await self._give_up(known, delivery, str(error), now_ms)
            return None
        lease_ms = int((self._ways[name].timeout_s + self._lease_margin_s) * 1000)
        begun = replace(delivery, attempts=delivery.attempts + 1, next_ms=now_ms + lease_ms)
        claimed = await self._write(known, begun, ())
        return None if claimed is None else (claimed, Message(delivery.notice, decision.address, text))

    async def _try(
        self, name: str, delivery: Delivery, message: Message
    ) -> tuple[Delivery, tuple[tuple[str, str], ...]]:
        """Send, and say what became of the notice, and what is counted."""
        way = self._ways[name]
        to = masked_address(message.address)
        try:
            async with asyncio.timeout(way.timeout_s):
                taken = await way.channel.send(message)
        except ThrottledError as error:
            self._pacers[name].close_for(error.wait_s, asyncio.get_running_loop().time())
            now_ms = self._clock()
            event = Event(now_ms, name, "throttled", f"to {to}: {error}")
            waits = delivery.told(event, attempts=delivery.attempts - 1, next_ms=now_ms + int(error.wait_s * 1000))
            return waits, ((name, "throttled"),)
        except PermanentError as error:
            return self._next_channel(delivery, f"to {to}: {error}"), ((name, "refused"),)
        except (TemporaryError, TimeoutError) as error:
            return self._later(delivery, f"to {to}: {str(error) or 'no answer in time'}"), ((name, "failed"),)
        except Exception:  # a fault of ours must not make the notice come again for ever, nor end the channel
            log.exception("channel %s has a fault", name)
            return self._later(delivery, f"to {to}: a fault, see the log"), ((name, "failed"),)
        return self._taken(delivery, taken, to), ((name, "logged" if name == LOG else "sent"),)

    def _taken(self, delivery: Delivery, taken: Taken, to: str) -> Delivery:
        now_ms = self._clock()
        state = LOGGED if delivery.channel == LOG else SENT
        event = Event(now_ms, delivery.channel, state, f"to {to}")
        return delivery.told(event, state=state, finished_ms=now_ms, next_ms=0, parts=taken.parts)

    def _next_channel(self, delivery: Delivery, reason: str) -> Delivery:
        """This one cannot: the next one, if there is one, is found by routing."""
        now_ms = self._clock()
        event = Event(now_ms, delivery.channel, "refused", reason)
        given_up = (*delivery.given_up, delivery.channel)
        return delivery.told(
            event, state=WAITING, channel=ROUTE, given_up=given_up, attempts=0, next_ms=now_ms, parts=()
        )

    def _later(self, delivery: Delivery, reason: str) -> Delivery:
        retry = self._settings.retry
        if delivery.attempts >= retry.attempts:
            return self._next_channel(delivery, f"{reason}; {delivery.attempts} attempts were made")
        now_ms = self._clock()
        event = Event(now_ms, delivery.channel, "failed", reason)
        return delivery.told(event, next_ms=now_ms + backoff_ms(delivery.attempts, retry, self._chance))

    # -- writing down --------------------------------------------------------------------------------------------

    async def _write(
        self, known: Known, after: Delivery, counts: tuple[tuple[str, str], ...] | None = None
    ) -> Known | None:
        """``counts`` None: what the new state is counted as, of no channel."""
        if counts is None:
            counts = ((NOBODY, _COUNTED[after.state]),)
        return await notices.write(self._store, known, after, counts, self._settings.history_entries)

    async def _note(self, known: Known, after: Delivery, counts: tuple[tuple[str, str], ...]) -> None:
        """Write down what came of an attempt; the store is waited for while nobody else may try."""
        clock = asyncio.get_running_loop().time
        until_s = clock() + self._lease_margin_s
        while True:
            try:
                if await self._write(known, after, counts) is None:
                    log.debug("somebody else has written down what became of a notice")
                return
            except StoreError as error:
                if clock() > until_s or self._stopping:
                    log.warning("what came of a notice could not be written down; it is tried again: %s", error)
                    return
                await asyncio.sleep(0.2)

    async def receipt(self, channel: str, message_id: str, delivered: bool, detail: str) -> None:
        """What became of a message after a channel had taken it. Raises StoreError."""
        for pause_s in (*RECEIPT_PAUSES_S, None):
            notice_id = await notices.notice_of_part(self._store, channel, message_id)
            known = None if notice_id is None else await notices.read(self._store, notice_id)
            if known is not None and known.delivery.channel == channel and message_id in known.delivery.parts:
                after, counts = self._received(known.delivery, message_id, delivered, detail)
                if await self._write(known, after, counts) is not None:
                    if after.state == WAITING:
                        self._wake[ROUTE].set()
                    return
            elif known is not None and known.delivery.state != WAITING:
                return  # told before, or of another channel by now
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)
        await notices.count(self._store, channel, "unknown receipt")

    def _received(
        self, delivery: Delivery, message_id: str, delivered: bool, detail: str
    ) -> tuple[Delivery, tuple[tuple[str, str], ...]]:
        now_ms, channel = self._clock(), delivery.channel
        if not delivered:
            return self._next_channel(delivery, f"the receipt says {detail}"), ((channel, "undelivered"),)
        left = tuple(part for part in delivery.parts if part != message_id)
        if left:
            return replace(delivery, parts=left), ()
        event = Event(now_ms, channel, "delivered", detail)
        return delivery.told(event, state=DELIVERED, parts=()), ((channel, "delivered"),)
