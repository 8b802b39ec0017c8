"""The Sy interface: PCRFs subscribe to policy counters (3GPP TS 29.219 clauses 4.5.1 and 4.5.3).

A Spending-Limit-Request gets the status of the counters it names, or of all that the account has, and is told from then
on when that changes (``occ.sy_notifications``), until a Session-Termination-Request ends it. Where the clauses leave
room:

- a request that names a counter nobody knows is refused as a whole (5570), the unknown ones in Failed-AVP;
- of known counters that it names, those are reported that the account has; the others are told of if the account gets
  them. If it has none at all, the request is refused (4241), and a session that is open stays as it was;
- who is not known, or terminated, is 5030, as on Gy; a request without any Subscription-Id lacks an AVP (5005);
- an initial request on a session that is open begins it anew: a PCRF may have lost it;
- a repeat, known by Origin-Host and End-to-End Identifier, gets the very same answer and changes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from balance.directory import read_account
from balance.model import IdentityType, Subscriber
from balance.resp import StoreError
from balance.store import Store
from balance.subscribers import read_subscriber, subscriber_named
from balance.subscriptions import (
    Answer,
    AnsweredError,
    Kept,
    Subscription,
    SubscriptionChangedError,
    count_subscriptions,
    find_answer,
    find_subscription,
    keep_answer,
    make_room,
    write_subscription,
)
from occ.gy import Peer
from occ.sy_counters import CounterSource, NoCounters, SyStatistics, is_gone, reports, standing
from occ.sy_notifications import SyNotifications
from protocols.diameter.codec import error_answer
from protocols.diameter.codes import Command, ExperimentalResultCode, ResultCode, SLRequestType
from protocols.diameter.errors import DiameterError
from protocols.diameter.events import RequestReceived
from protocols.diameter.validation import missing_avp
from protocols.spending_limits import (
    CounterReport,
    SessionTerminationAnswer,
    SessionTerminationRequest,
    SpendingLimitAnswer,
    SpendingLimitRequest,
    decode_slr,
    decode_str,
    encode_sla,
    encode_sta,
    policy_counter,
)

__all__ = ["CounterSource", "NoCounters", "Sy", "SyRequest", "SySettings", "SyStatistics"]

log = logging.getLogger("occ.sy")

WRITE_ATTEMPTS: Final = 16
"""After this somebody who is always faster is given the way."""
CATCH_UP_PAUSE_S: Final = 2.0
SHOWN_IN_FAILED_AVP: Final = 20
"""Unknown counters in one answer at most."""
_SUBSCRIPTION_ID: Final = 443

SyRequest = SpendingLimitRequest | SessionTerminationRequest
"""What PCRFs ask."""

Route = Callable[[Peer, SyRequest], int | None]
"""The Result-Code of a request that is not for this server, or None."""


@dataclass(frozen=True, slots=True)
class SySettings:
    answer_replay_ms: int = 300_000
    """How long a repeated request gets its first answer."""
    in_flight_limit: int = 1000
    """More requests at once are turned away, to try again or elsewhere."""


class Sy:
    """Answers the PCRFs of one Diameter identity. Belongs to the event loop it is made in."""

    def __init__(
        self,
        store: Store,
        notifications: SyNotifications,
        origin: bytes,
        route: Route,
        clock: Callable[[], int],
        settings: SySettings | None = None,
    ) -> None:
        """``origin``: our Origin-Host and Origin-Realm, encoded; ``clock``: milliseconds since the Unix epoch, UTC."""
        self.settings = settings or SySettings()
        self.notifications = notifications
        self.statistics = notifications.statistics
        self._store = store
        self._origin = origin
        self._route = route
        self._clock = clock
        self._under_way: dict[bytes, asyncio.Task[SpendingLimitAnswer]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def catch_up(self) -> None:
        """Tell the PCRFs what has changed while no server ran; a store that cannot be reached is waited for."""
        while True:
            try:
                self.statistics.subscriptions = await count_subscriptions(self._store)
                if self.statistics.subscriptions:
                    await self.notifications.all_changed(self._clock())
            except StoreError as error:
                log.warning("Sy sessions are looked at again in %.0f s: %s", CATCH_UP_PAUSE_S, error)
                await asyncio.sleep(CATCH_UP_PAUSE_S)
            else:
                return

    async def stop(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.notifications.stop()

    async def account_changed(self, account_id: bytes, now_ms: int) -> int:
        """An account has changed: see ``SyNotifications.account_changed``."""
        return await self.notifications.account_changed(account_id, now_ms)

    # -- requests ------------------------------------------------------------------------------------------------

    def handle(self, peer: Peer, event: RequestReceived) -> None:
        """Answer one request of the Sy application on the connection it came by; never raises."""
        command = "SLR" if event.command == Command.SPENDING_LIMIT else "STR"
        request: SyRequest
        try:
            request = decode_slr(event.message) if command == "SLR" else decode_str(event.message)
        except DiameterError as error:
            self.statistics.answered(command, error.result_code)
            peer.send(error_answer(event.message, error, self._origin))
            return
        elsewhere = self._route(peer, request)
        if elsewhere is None and self.statistics.in_flight >= self.settings.in_flight_limit:
            elsewhere = _too_busy(request)
        if elsewhere is not None:
            self._send(peer, request, SpendingLimitAnswer(elsewhere))
            return
        self.statistics.in_flight += 1
        task = asyncio.get_running_loop().create_task(self._serve(peer, request))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[Any]) -> None:
        self.statistics.in_flight -= 1
        self._tasks.discard(task)

    async def _serve(self, peer: Peer, request: SyRequest) -> None:
        try:
            answer = await self._once(request, peer.capabilities.origin_host.encode())
        except StoreError as error:
            log.error("Sy session %r is not served: %s", request.session_id, error)
            answer = SpendingLimitAnswer(_too_busy(request))
        except Exception:  # a fault of ours must cost one request, not the others
            log.exception("Sy session %r could not be served", request.session_id)
            answer = SpendingLimitAnswer(ResultCode.UNABLE_TO_COMPLY)
        self._send(peer, request, answer)
        if isinstance(request, SpendingLimitRequest) and answer.is_success:
            await self._look_again(request.session_id)

    def _send(self, peer: Peer, request: SyRequest, answer: SpendingLimitAnswer) -> None:
        if isinstance(request, SpendingLimitRequest):
            command, encoded = "SLR", encode_sla(request, answer, self._origin)
        else:
            plain = SessionTerminationAnswer(answer.result_code, error_message=answer.error_message)
            command, encoded = "STR", encode_sta(request, plain, self._origin)
        peer.send(encoded)
        self.statistics.answered(command, answer.experimental_result_code or answer.result_code)

    async def _look_again(self, session_id: bytes) -> None:
        """What changed between the look at the account and the subscription nobody has told of."""
        try:
            kept = await find_subscription(self._store, session_id)
            if kept is not None:
                await self.account_changed(kept.subscription.account_id, self._clock())
        except StoreError as error:
            log.error("whether Sy session %r has to be told more is not known: %s", session_id, error)

    async def _once(self, request: SyRequest, via: bytes) -> SpendingLimitAnswer:
        """The answer; a copy that comes while the request is being answered shares it. Raises StoreError."""
        name = _name(request)
        task = self._under_way.get(name)
        if task is None:
            task = self._under_way[name] = asyncio.get_running_loop().create_task(self._answer(request, name, via))
            task.add_done_callback(lambda _: self._under_way.pop(name, None))
        return await asyncio.shield(task)

    async def _answer(self, request: SyRequest, name: bytes, via: bytes) -> SpendingLimitAnswer:
        first = await find_answer(self._store, name)
        if first is not None:
            return _unpack(first)
        try:
            for _ in range(WRITE_ATTEMPTS):
                try:
                    if isinstance(request, SessionTerminationRequest):
                        return await self._terminate(request, name)
                    if request.request_type == SLRequestType.INITIAL_REQUEST:
                        return await self._initial(request, name, via)
                    return await self._intermediate(request, name, via)
                except SubscriptionChangedError:
                    continue  # by a notification, or another copy of the request
        except AnsweredError as error:
            return _unpack(error.answer)
        raise StoreError("the subscription changes faster than this request can follow")

    # -- sessions ------------------------------------------------------------------------------------------------

    async def _initial(self, request: SpendingLimitRequest, name: bytes, via: bytes) -> SpendingLimitAnswer:
        """Clause 4.5.1: a PCRF subscribes."""
        if not request.subscription_ids:
            failed = missing_avp(_SUBSCRIPTION_ID)
            return await self._refuse(
                name, SpendingLimitAnswer(ResultCode.MISSING_AVP, 0, b"Subscription-Id is missing", failed)
            )
        subscriber = await self._subscriber(request)
        return await self._subscribe(
            request, name, via, await find_subscription(self._store, request.session_id), subscriber
        )

    async def _intermediate(self, request: SpendingLimitRequest, name: bytes, via: bytes) -> SpendingLimitAnswer:
        """Clause 4.5.1: a PCRF changes what it subscribed to. Who it is about stays as it was."""
        known = await find_subscription(self._store, request.session_id)
        if known is None or known.subscription.aborted:
            return SpendingLimitAnswer(ResultCode.UNKNOWN_SESSION_ID)
        subscriber = await subscriber_named(self._store, known.subscription.subscriber_id)
        return await self._subscribe(request, name, via, known, subscriber)

    async def _terminate(self, request: SessionTerminationRequest, name: bytes) -> SpendingLimitAnswer:
        """Clause 4.5.3: a PCRF wants to hear no more."""
        known = await find_subscription(self._store, request.session_id)
        if known is None:
            return SpendingLimitAnswer(ResultCode.UNKNOWN_SESSION_ID)
        answer = SpendingLimitAnswer(ResultCode.SUCCESS)
        self.statistics.subscriptions = await write_subscription(self._store, known, None, self._kept(name, answer))
        return answer

    async def _subscribe(
        self,
        request: SpendingLimitRequest,
        name: bytes,
        via: bytes,
        known: Kept | None,
        subscriber: Subscriber | None,
    ) -> SpendingLimitAnswer:
        account = None if subscriber is None else await read_account(self._store, subscriber.account_id)
        if account is None or subscriber is None or is_gone(account, subscriber):
            return await self._refuse(name, SpendingLimitAnswer(ResultCode.USER_UNKNOWN))
        source, now_ms = self.notifications.source, self._clock()
        unknown = [each for each in request.counters if each not in source.known()]
        if unknown:
            return await self._refuse(name, _unknown(unknown))
        current = standing(source, account, subscriber, now_ms)
        told = {name: each for name, each in current.items() if not request.counters or name in request.counters}
        if not told:
            code = ExperimentalResultCode.ERROR_NO_AVAILABLE_POLICY_COUNTERS
            return await self._refuse(name, SpendingLimitAnswer(experimental_result_code=code))
        answer = SpendingLimitAnswer(ResultCode.SUCCESS, reports=reports(told))
        after = Subscription(
            request.session_id,
            account.account_id,
            subscriber.subscriber_id,
            request.origin_host,
            request.origin_realm,
            via,
            request.counters,
            told,
            now_ms,
        )
        await self._write(known, after, self._kept(name, answer))
        return answer

    async def _write(self, known: Kept | None, after: Subscription, answer: Answer) -> None:
        """Write a subscription with its account; one that the session had with another account is struck.

        Raises SubscriptionChangedError, AnsweredError, StoreError.
        """
        moved = known is not None and known.subscription.account_id != after.account_id
        if known is None or moved:
            oldest = await make_room(self._store, after.account_id)
            if oldest is not None:
                log.warning(
                    "account %r has too many Sy sessions: %r of PCRF %r, told least lately, is told no more",
                    after.account_id,
                    oldest.session_id,
                    oldest.origin_host,
                )
        count = await write_subscription(self._store, None if moved else known, after, answer)
        if moved:
            count = await write_subscription(self._store, known, None)
        self.statistics.subscriptions = count

    async def _subscriber(self, request: SpendingLimitRequest) -> Subscriber | None:
        """Whom the first Subscription-Id that is known stands for."""
        for kind, value in request.subscription_ids:
            identity = value.removeprefix(b"+") if kind == IdentityType.E164 else value
            found = await read_subscriber(self._store, kind, identity)
            if found is not None:
                return found
        return None

    # -- answers -------------------------------------------------------------------------------------------------

    async def _refuse(self, name: bytes, answer: SpendingLimitAnswer) -> SpendingLimitAnswer:
        """A refusal changes nothing, and is repeated as well."""
        return _unpack(await keep_answer(self._store, self._kept(name, answer)))

    def _kept(self, name: bytes, answer: SpendingLimitAnswer) -> Answer:
        return Answer(name, _pack(answer), self.settings.answer_replay_ms)


def _unknown(counters: list[str]) -> SpendingLimitAnswer:
    return SpendingLimitAnswer(
        experimental_result_code=ExperimentalResultCode.ERROR_UNKNOWN_POLICY_COUNTERS,
        failed_avp=b"".join(policy_counter(each) for each in counters[:SHOWN_IN_FAILED_AVP]),
    )


def _too_busy(request: SyRequest) -> int:
    """RFC 6733 section 7.1.3: TOO_BUSY "MUST only be used when a specific server is requested"."""
    return ResultCode.UNABLE_TO_DELIVER if request.destination_host is None else ResultCode.TOO_BUSY


def _name(request: SyRequest) -> bytes:
    """What a request and its repeats have in common, and no other request (RFC 6733 section 3)."""
    command = b"L" if isinstance(request, SpendingLimitRequest) else b"T"
    return b"%b%08x:%b:%b" % (command, request.end_to_end, request.origin_host.lower(), request.session_id)


def _pack(answer: SpendingLimitAnswer) -> bytes:
    told = [(each.identifier, each.status, each.pending) for each in answer.reports]
    codes = int(answer.result_code), int(answer.experimental_result_code)
    packed: bytes = msgpack.packb((*codes, answer.error_message, answer.failed_avp, told))
    return packed


def _unpack(packed: bytes) -> SpendingLimitAnswer:
    code, experimental, message, failed, told = msgpack.unpackb(packed, use_list=False)
    counters = tuple(CounterReport(identifier, status, pending) for identifier, status, pending in told)
    return SpendingLimitAnswer(code, experimental, message, failed, reports=counters)
