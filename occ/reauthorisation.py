"""Server-initiated re-authorisation and abortion of sessions (RFC 8506 section 5.5, RFC 6733 sections 8.3, 8.5).

A request goes to the client that opened the session (``occ.delivery``), by whichever worker of the store is best
placed (``balance.commands``). What no answer comes to is tried again a bounded number of times; then the session is
left to its Validity-Time, at whose end the client asks by itself (row 42). Nothing here is touched by a credit-control
request.
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from balance.accounts import Account, Session
from balance.commands import ChannelSettings, CommandListener, UnclaimedError, ask
from balance.directory import read_account
from balance.resp import StoreError, StoreUnavailableError
from occ.charging import Charging
from occ.delivery import Delivered, DeliverySettings, Destination, Ways
from occ.profiles import Reauthorisation as Readiness
from occ.server_requests import (
    AGREED,
    Command,
    Meaning,
    Release,
    Result,
    ServerRequest,
    deny,
    pack_request,
    pack_result,
    progress,
    release,
    split_key,
    unpack_request,
    unpack_result,
)
from protocols.credit_control import AbortSessionRequest, ReAuthRequest, encode_asr, encode_rar
from protocols.diameter.codes import ResultCode
from protocols.diameter.node import Node

log = logging.getLogger("occ.reauthorisation")

T = TypeVar("T")

MayAsk = Callable[[bytes, bytes], Readiness]
"""(Origin-Host of the client, identity of the peer its last request came by) -> what it makes of our requests."""

PUSH_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the time from what a request tells of to its being sent."""


@dataclass(frozen=True, slots=True)
class ReauthorisationSettings(DeliverySettings):
    """Times in seconds."""

    act_within_s: float = 10.0
    """After this a client that agreed to report, or to end the session, should have done so."""
    at_once: int = 256
    """Requests of this process to one client under way; further ones wait, those to other clients do not."""


@dataclass(slots=True)
class ReauthorisationStatistics:
    """Counted since this worker started."""

    results: dict[tuple[str, str], int]
    """(command, meaning) -> requests to clients that came to this."""
    retries: int = 0
    """Messages sent again, by whatever way."""
    not_kept: int = 0
    """Clients that agreed to report, or to end a session, and did not."""
    awaited: int = 0
    """Requests that were not sent, as the client had agreed to report before and had not done so yet."""
    push_seconds: list[int] = field(default_factory=lambda: [0] * (len(PUSH_BOUNDS_S) + 1))
    """Requests sent, by how long after what they tell of (``PUSH_BOUNDS_S``, and beyond)."""
    push_seconds_sum: float = 0.0

    def pushed(self, seconds: float) -> None:
        """A request was sent so long after what it tells of."""
        self.push_seconds[bisect_left(PUSH_BOUNDS_S, seconds)] += 1
        self.push_seconds_sum += seconds

    def count(self, command: Command, meaning: Meaning) -> None:
        key = (command.value, meaning.value)
        self.results[key] = self.results.get(key, 0) + 1


class Reauthorisation:
    """Asks the clients of one store's sessions. Belongs to the event loop it is made in.

    Each of its three requests begins at once, whether or not its result is awaited, and never raises: what went wrong
    is in the result. Asked again for the same while it is under way, they share its result.
    """

    def __init__(
        self,
        charging: Charging,
        node: Node,
        clock: Callable[[], int],
        may_ask: MayAsk,
        settings: ReauthorisationSettings | None = None,
        channel: ChannelSettings | None = None,
    ) -> None:
        """``clock``: milliseconds since the Unix epoch, UTC."""
        self.settings = settings or ReauthorisationSettings()
        self.channel = channel or ChannelSettings()
        self.statistics = ReauthorisationStatistics({})
        self._charging = charging
        self._store = charging.store
        self._node = node
        self._ways = Ways(node)
        self._clock = clock
        self._may_ask = may_ask
        self._begun: dict[ServerRequest, asyncio.Task[Result]] = {}
        self._asked: dict[ServerRequest, asyncio.Task[Result]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._slots: WeakValueDictionary[bytes, asyncio.Semaphore] = WeakValueDictionary()
        self._owed: dict[ServerRequest, tuple[int, int, int]] = {}
        """Where a session stood when its client agreed to report, until it has."""
        self._joined: set[ServerRequest] = set()
        """What somebody asked for again while it was under way: what changed since may be news to the client."""
        self._stood: dict[ServerRequest, tuple[int, int, int]] = {}
        """Where a session stood when its client was last asked."""

    # -- what others call ----------------------------------------------------------------------------------------

    def reauthorise(
        self,
        account_id: bytes,
        session_key: bytes,
        *,
        rating_group: int | None = None,
        service_identifier: int | None = None,
        pool: int | None = None,
    ) -> asyncio.Future[Result]:
        """Have a client report and ask anew for a session, or for the service or pool named."""
        return self.push(
            ServerRequest(Command.RE_AUTH, account_id, session_key, rating_group, service_identifier, pool)
        )

    def push(self, request: ServerRequest, account: Account | None = None) -> asyncio.Future[Result]:
        """Carry out a request. ``account``: as it was read just now, which spares reading it again."""
        return asyncio.shield(self._shared(self._begun, request, lambda each: self._anywhere(each, account)))

    def abort(self, account_id: bytes, session_key: bytes) -> asyncio.Future[Result]:
        """Have a client end a session with all its sub-sessions. One that does not agree is denied its next request."""
        return self.push(ServerRequest(Command.ABORT_SESSION, account_id, session_key))

    def reauthorise_account(self, account_id: bytes) -> asyncio.Future[list[Result]]:
        """Have all open sessions of an account re-authorised at once: its credit, or what it may use, has changed."""
        return asyncio.shield(self._task(self._every_session(account_id)))

    async def _every_session(self, account_id: bytes) -> list[Result]:
        try:
            account = await self._patiently(lambda: read_account(self._store, account_id))
        except StoreError as error:
            log.error("the sessions of account %r are not re-authorised: %s", account_id, error)
            return []
        keys = [] if account is None else list(account.sessions)
        return await asyncio.gather(*(self.reauthorise(account_id, key) for key in keys))

    async def listen(self) -> None:
        """Carry out what other processes ask for, until cancelled."""
        worker = self._node.settings.origin_host.encode()
        await CommandListener(self._store, worker, self._delay, self._execute, self.channel).run()

    async def stop(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- which worker --------------------------------------------------------------------------------------------

    def _shared(
        self,
        under_way: dict[ServerRequest, asyncio.Task[Result]],
        request: ServerRequest,
        work: Callable[[ServerRequest], Coroutine[Any, Any, Result]],
    ) -> asyncio.Task[Result]:
        """The task that does it: one for the same request at a time."""
        scope = request.scope
        task = under_way.get(scope)
        if task is None:
            task = under_way[scope] = self._task(work(request))
            task.add_done_callback(lambda _: under_way.pop(scope, None))
        else:
            self._joined.add(scope)
        return task

    async def _has_reported(self, request: ServerRequest, stood: tuple[int, int, int] | None) -> list[Session]:
        """The sessions, if the request was asked for again while it was under way, and the client has reported since
        it was asked: that report may have come before the change that was to be told. None: there is nothing to do.
        """
        if request.scope not in self._joined or request.command is not Command.RE_AUTH or stood is None:
            return []
        try:
            now = await self._sessions(request)
        except StoreError:
            return []
        return now if now and progress(now[0]) != stood else []

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _anywhere(self, request: ServerRequest, account: Account | None) -> Result:
        """Do it here if this worker is well placed, else have it done by whichever is. Never raises."""
        try:
            return await self._patiently(lambda: self._placed(request, request.concerned(account)))
        except Exception as error:
            return _failure(request, error)

    async def _placed(self, request: ServerRequest, seen: list[Session]) -> Result:
        """``seen``: the sessions it is about, as they were read just now; none: they are not known yet."""
        sessions = seen or await self._sessions(request)
        if not sessions:
            return Result(Meaning.ENDED, request.session_key)
        host, via, stood = sessions[0].origin_host, sessions[0].via, progress(sessions[0])
        slot = self._slots.setdefault(host, asyncio.Semaphore(self.settings.at_once))
        if slot.locked():
            sessions = []  # they will have moved on by then
        async with slot:
            if self._delay_for(host, via) == 0:
                return await self._shared(self._asked, request, lambda each: self._here(each, seen=sessions))
            self._joined.discard(request.scope)
            try:
                result = unpack_result(await ask(self._store, pack_request(request, host, via), self.channel))
            except UnclaimedError:
                self.statistics.count(request.command, Meaning.NO_CONNECTION)
                return await self._not_agreed(request, Result(Meaning.NO_CONNECTION, request.session_key, host))
        moved = await self._has_reported(request, stood)
        return await self._placed(request, moved) if moved else result

    def _delay(self, packed: bytes) -> float | None:
        """See ``balance.commands.Delay``."""
        try:
            _, host, via = unpack_request(packed)
        except ValueError as error:
            log.warning("a command of another process is left alone: %s", error)
            return None
        return self._delay_for(host, via)

    def _delay_for(self, host: bytes, via: bytes) -> float | None:
        """How long to leave a client to workers that are better placed; None: there is no way to it here."""
        if self._may_ask(host, via) is Readiness.NONE:
            return 0.0
        return self._ways.delay_for(host, via, self.settings.relay_delay_s)

    async def _execute(self, packed: bytes) -> bytes:
        """See ``balance.commands.Execute``."""
        request, _, _ = unpack_request(packed)
        return pack_result(await asyncio.shield(self._shared(self._asked, request, self._here)))

    # -- one request ---------------------------------------------------------------------------------------------

    async def _here(self, request: ServerRequest, again: bool = False, seen: Sequence[Session] = ()) -> Result:
        """Ask the client by the ways this worker has, and draw the consequences. Never raises."""
        scope = request.scope
        while True:
            self._joined.discard(scope)
            result = await self._once(request, again, seen)
            seen = await self._has_reported(request, self._stood.pop(scope, None))
            if not seen:
                return result

    async def _once(self, request: ServerRequest, again: bool, seen: Sequence[Session]) -> Result:
        try:
            result = await self._patiently(lambda: self._ask(request, again, seen))
        except Exception as error:
            result = _failure(request, error)
        self.statistics.count(request.command, result.meaning)
        return result

    async def _patiently(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it again after each pause while the store cannot be reached: what it does may happen twice."""
        for pause_s in self.settings.pauses_s:
            try:
                return await work()
            except StoreUnavailableError:
                await asyncio.sleep(pause_s)
        return await work()

    async def _sessions(self, request: ServerRequest) -> list[Session]:
        """The open sessions it is about, as the store has them now. Raises StoreError."""
        return request.concerned(await read_account(self._store, request.account_id))

    async def _ask(self, request: ServerRequest, again: bool, seen: Sequence[Session]) -> Result:
        """``again``: this is the second time that the client is asked, see ``_see_to_it``."""
        before = list(seen) or await self._sessions(request)
        if not before:
            return Result(Meaning.ENDED, request.session_key)
        session = before[0]
        if not again and self._is_owed(request, session):
            self.statistics.awaited += 1
            return Result(Meaning.UPDATE_PENDING, request.session_key, session.origin_host)
        result = Result(Meaning.NOT_ASKED, request.session_key, session.origin_host)
        kind = self._may_ask(session.origin_host, session.via)
        self._stood[request.scope] = progress(session)
        if _is_asked(request.command, kind):
            result = await self._exchange(request, session, result)
        result = replace(result, meaning=_meaning(request.command, result, kind))
        if result.meaning is Meaning.CLIENT_LOST:
            return await self._released(request, before, result)
        if result.meaning is Meaning.ACKNOWLEDGED or result.meaning is Meaning.ENDED:
            return result
        if result.meaning in AGREED:
            if request.command is Command.RE_AUTH:
                self._owed[request] = progress(session)
            self._task(self._see_to_it(request, before, result.meaning is Meaning.UPDATE_PENDING and not again))
            return result
        return await self._not_agreed(request, result)

    def _is_owed(self, request: ServerRequest, session: Session) -> bool:
        """Whether the client has agreed to report on this, or on all of the session, and nothing has come since.

        That report will be decided on by the account as it is then, whatever it is to be asked for now.
        """
        if request.command is not Command.RE_AUTH or not self._owed:
            return False
        stands = progress(session)
        whole = ServerRequest(Command.RE_AUTH, request.account_id, request.session_key)
        return self._owed.get(request) == stands or self._owed.get(whole) == stands

    async def _exchange(self, request: ServerRequest, session: Session, result: Result) -> Result:
        """The client's answer, as if it were a refusal, by whatever way it came, or why none did."""

        async def look_again() -> Destination | None:
            current = await self._sessions(request)
            return _client_of(current[0]) if current else None

        delivery = await self._ways.exchange(
            _client_of(session),
            lambda client: self._message(request, session.session_id, client),
            look_again,
            self.settings,
            lambda repeated: self._count_sent(request, repeated),
        )
        meaning = _MEANINGS[delivery.outcome]
        return replace(result, meaning=meaning, result_code=delivery.result_code, reason=delivery.reason)

    def _count_sent(self, request: ServerRequest, repeated: bool) -> None:
        if repeated:
            self.statistics.retries += 1
        elif request.since_ms:
            self.statistics.pushed(max(0, self._clock() - request.since_ms) / 1000)

    def _message(self, request: ServerRequest, session_key: bytes, client: Destination) -> bytes:
        """A new message, with an End-to-End Identifier of its own."""
        settings = self._node.settings
        session_id, sub_session_id = split_key(session_key)
        head = (
            0,
            self._node.next_end_to_end(),
            session_id,
            settings.origin_host.encode(),
            settings.origin_realm.encode(),
            self._ways.realm_of(client),
            client.origin_host,
        )
        if request.command is Command.ABORT_SESSION:
            return encode_asr(AbortSessionRequest(*head))
        return encode_rar(
            ReAuthRequest(
                *head,
                rating_group=request.rating_group,
                service_identifier=request.service_identifier,
                pool_identifier=request.pool,
                sub_session_id=sub_session_id,
            )
        )

    # -- consequences --------------------------------------------------------------------------------------------

    async def _released(self, request: ServerRequest, before: list[Session], result: Result) -> Result:
        """5002: close what the client does not know, unless it has shown since it was asked that it does."""
        late_ms = self._charging.rules.settings.late_termination_ms
        amounts: dict[int, int] = {}
        found: list[Release] = []
        for seen in before:
            one = await release(
                self._store, request.account_id, seen, self._clock(), late_ms, self._charging.statistics.add
            )
            found.append(one)
            for unit, amount in one.amounts:
                amounts[unit] = amounts.get(unit, 0) + amount
        if any(one.closed for one in found):
            log.warning("client %r does not know session %r: it was closed", result.client, request.session_id)
            return replace(result, released=tuple(sorted(amounts.items())), currency=found[0].currency)
        if not any(one.moved for one in found):
            return replace(result, meaning=Meaning.ENDED)
        if request.command is Command.RE_AUTH:
            return replace(result, meaning=Meaning.UPDATE_PENDING)
        return await self._not_agreed(request, replace(result, meaning=Meaning.REFUSED))

    async def _not_agreed(self, request: ServerRequest, result: Result) -> Result:
        """A report is then left to the Validity-Time; a session to be ended is denied its next request (row 43)."""
        if request.command is Command.RE_AUTH:
            return result
        if not await deny(self._store, request, self._clock()):
            return replace(result, meaning=Meaning.ENDED)
        return replace(result, denied=True)

    async def _see_to_it(self, request: ServerRequest, before: list[Session], may_repeat: bool) -> None:
        """Look after a while whether the client has done what it agreed to.

        ``may_repeat``: it said that it was reporting already. If nothing has come since it was asked, that report had
        been charged before, perhaps just before the credit changed: it is asked once more.
        """
        owed = progress(before[0])
        try:
            await asyncio.sleep(self.settings.act_within_s)
        finally:
            if self._owed.get(request) == owed:
                del self._owed[request]
        try:
            now = await self._sessions(request)
            if not now or (request.command is Command.RE_AUTH and progress(now[0]) != progress(before[0])):
                return
            if may_repeat:
                self._shared(self._asked, request, lambda request: self._here(request, again=True))
                return
            if request.command is Command.ABORT_SESSION:
                await deny(self._store, request, self._clock())
        except StoreError as error:
            log.debug("whether client %r did what it agreed to is not known: %s", before[0].origin_host, error)
            return
        self.statistics.not_kept += 1
        log.warning(
            "client %r agreed to the %s of session %r but has done nothing since",
            before[0].origin_host,
            request.command,
            request.session_id,
        )


def _failure(request: ServerRequest, error: Exception) -> Result:
    """The result of a request that the server could not carry out."""
    if isinstance(error, StoreError):
        return Result(Meaning.FAILED, request.session_key, reason=str(error))
    log.error("the %s of session %r failed", request.command, request.session_key, exc_info=error)
    return Result(Meaning.FAILED, request.session_key, reason="internal error; the server's log tells more")


# -- answers -----------------------------------------------------------------------------------------------------


_MEANINGS: Final = {
    Delivered.ANSWERED: Meaning.REFUSED,
    Delivered.UNANSWERED: Meaning.UNANSWERED,
    Delivered.NO_CONNECTION: Meaning.NO_CONNECTION,
    Delivered.WITHDRAWN: Meaning.ENDED,
}
"""What a request came to, as long as nobody has looked at what the client said."""


def _client_of(session: Session) -> Destination:
    return Destination(session.origin_host, session.realm, session.via)


def _is_asked(command: Command, kind: Readiness) -> bool:
    """Whether a client of that kind is sent the command at all."""
    return kind is Readiness.FULL or (kind is Readiness.ANSWERED and command is Command.RE_AUTH)


def _meaning(command: Command, result: Result, kind: Readiness) -> Meaning:
    """Rows 42 and 43, for an answer of the client itself; what is no such answer keeps its meaning."""
    code = result.result_code
    if result.meaning is not Meaning.REFUSED:
        return result.meaning
    if code == ResultCode.UNKNOWN_SESSION_ID:
        return Meaning.CLIENT_LOST
    if not 2000 <= code < 3000:
        return Meaning.REFUSED
    if command is Command.ABORT_SESSION:
        return Meaning.TERMINATION_EXPECTED
    if kind is Readiness.ANSWERED:
        return Meaning.ACKNOWLEDGED
    return Meaning.UPDATE_EXPECTED if code == ResultCode.LIMITED_SUCCESS else Meaning.UPDATE_PENDING
