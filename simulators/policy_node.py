"""A policy node (PCRF) on Sy: it subscribes for subscribers, keeps what it is told of their counters, and ends by STR.

It behaves as 3GPP TS 29.219 asks of a PCRF: reports overwrite what was reported before, pending statuses take effect
by themselves at their time, a notification that asks for the end of a session is followed by a termination, and one for
a session that it does not know is answered 5002.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Final, TypeVar

from protocols.diameter.codec import avp, error_answer
from protocols.diameter.codes import (
    Application,
    Command,
    DisconnectCause,
    ResultCode,
    SLRequestType,
    SubscriptionIdType,
    TerminationCause,
)
from protocols.diameter.errors import DiameterError
from protocols.diameter.node import ConnectError, Node, NodeSettings, PeerHandle, RequestError, RequestReceived
from protocols.spending_limits import (
    CounterReport,
    SessionTerminationAnswer,
    SessionTerminationRequest,
    SpendingLimitAnswer,
    SpendingLimitRequest,
    SpendingStatusNotificationAnswer,
    SpendingStatusNotificationRequest,
    decode_sla,
    decode_snr,
    decode_sta,
    encode_slr,
    encode_sna,
    encode_str,
)
from simulators.client import SimulationError

RECONNECT_S: Final = 1.0
"""Between attempts to connect again; a server may turn away who comes back sooner."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNodeOptions:
    """How a policy node connects."""

    host: str = "127.0.0.1"
    port: int = 3868
    origin_host: str = "pcrf1.simulator.example.net"
    origin_realm: str = "simulator.example.net"
    destination_realm: str = "ocs.example.net"
    answer_timeout_s: float = 5.0
    reconnect_s: float = 30.0
    """How long a lost connection is tried to be opened again before the run is given up."""


@dataclass(slots=True)
class PolicySession:
    """One Sy session, as the policy node knows it."""

    session_id: str
    subscriber: str
    counters: dict[str, CounterReport] = field(default_factory=dict)
    """What was reported last of each, pending statuses that have taken effect taken out."""

    def status(self, counter: str) -> str | None:
        report = self.counters.get(counter)
        return report.status if report is not None else None


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that a policy node learns of a subscriber's counters."""

    session: PolicySession
    what: str
    """"subscribed": the answer to its request; "changed": a notification; "took effect": a pending status did;
    "aborted": the server wants the session to end; "ended": the session has."""
    reports: tuple[CounterReport, ...] = ()


OnHeard = Callable[[Heard], None]
Reply = Callable[[SpendingStatusNotificationRequest], int | None]
"""The Result-Code to answer a notification with; None: no answer at all."""


class PolicyNode:
    """One PCRF with one connection. ``connect`` first, ``close`` at the end; belongs to one event loop.

    ``notified`` keeps every notification, in the order in which they came.
    """

    def __init__(self, options: PolicyNodeOptions, on_heard: OnHeard | None = None, reply: Reply | None = None) -> None:
        """``reply`` answers notifications in place of the node; what they say is taken in only where it is 2001."""
        self.options = options
        self.sessions: dict[str, PolicySession] = {}
        self.notified: list[SpendingStatusNotificationRequest] = []
        self.reply = reply
        self._on_heard = on_heard
        self._node = self._make_node()
        self._handle: PeerHandle | None = None
        self._numbers = itertools.count(1)
        self._nonce = f"{int(time())};{secrets.token_hex(4)}"
        self._origin = avp("Origin-Host", options.origin_host) + avp("Origin-Realm", options.origin_realm)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_node(self) -> Node:
        options = self.options
        commands = frozenset((int(Command.SPENDING_STATUS_NOTIFICATION),))
        settings = NodeSettings(
            options.origin_host,
            options.origin_realm,
            applications={int(Application.SY): commands},
            product_name="OCC simulator",
        )
        return Node(settings, self._on_request)

    async def connect(self) -> "PolicyNode":
        """Open the connection, CER and CEA included. Raises SimulationError."""
        options = self.options
        try:
            self._handle = await self._node.connect(options.host, options.port)
        except ConnectError as error:
            raise SimulationError(
                f"{error}; see that a charging server listens on {options.host} port {options.port} "
                f"and lets {options.origin_host} in"
            ) from error
        return self

    @property
    def is_connected(self) -> bool:
        return self._handle is not None and self._handle.is_open

    async def reconnect(self) -> None:
        """Open the connection again if it is gone; the sessions go on. Raises SimulationError."""
        give_up_at = asyncio.get_running_loop().time() + self.options.reconnect_s
        while not self.is_connected:
            await asyncio.sleep(RECONNECT_S)
            try:
                await self.connect()
            except SimulationError:
                if asyncio.get_running_loop().time() > give_up_at:
                    raise

    async def close(self) -> None:
        """Take leave with a DPR and close; sessions are left as they are."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._node.stop(DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU)

    # -- what it asks --------------------------------------------------------------------------------------------

    async def subscribe(
        self, msisdn: str, counters: Sequence[str] = (), session_id: str | None = None
    ) -> SpendingLimitAnswer:
        """Subscribe for a subscriber, to the counters named or to all there are. Raises SimulationError.

        The session is in ``sessions`` if the server agreed.
        """
        name = session_id or f"{self.options.origin_host};{self._nonce};{next(self._numbers)}"
        identities = ((int(SubscriptionIdType.END_USER_E164), msisdn.removeprefix("+").encode()),)
        answer = await self.ask(self.request(name, SLRequestType.INITIAL_REQUEST, counters, identities))
        if answer.is_success:
            self.sessions[name] = PolicySession(name, msisdn)
            self._take_in(self.sessions[name], "subscribed", answer.reports, anew=True)
        return answer

    async def change(self, session_id: str, counters: Sequence[str] = ()) -> SpendingLimitAnswer:
        """Subscribe to other counters in a session. Raises SimulationError."""
        answer = await self.ask(self.request(session_id, SLRequestType.INTERMEDIATE_REQUEST, counters))
        session = self.sessions.get(session_id)
        if answer.is_success and session is not None:
            self._take_in(session, "subscribed", answer.reports, anew=True)
        return answer

    async def end(self, session_id: str) -> SessionTerminationAnswer:
        """End a session. Raises SimulationError."""
        request = SessionTerminationRequest(*self._head(session_id), termination_cause=int(TerminationCause.LOGOUT))
        answer = await self._exchange(encode_str(request), decode_sta)
        session = self.sessions.pop(session_id, None)
        timer = self._timers.pop(session_id, None)
        if timer is not None:
            timer.cancel()
        if session is not None:
            self._tell(Heard(session, "ended"))
        return answer

    def request(
        self,
        session_id: str,
        kind: SLRequestType,
        counters: Sequence[str] = (),
        identities: tuple[tuple[int, bytes], ...] = (),
    ) -> SpendingLimitRequest:
        """A new Spending-Limit-Request, with an End-to-End Identifier of its own."""
        return SpendingLimitRequest(
            *self._head(session_id),
            request_type=int(kind),
            subscription_ids=identities,
            counters=tuple(counters),
        )

    async def ask(self, request: SpendingLimitRequest) -> SpendingLimitAnswer:
        """Send a request as it is, and wait for its answer. Raises SimulationError."""
        return await self._exchange(encode_slr(request), decode_sla)

    def _head(self, session_id: str) -> tuple[int, int, bytes, bytes, bytes, bytes]:
        options = self.options
        return (
            0,
            self._node.next_end_to_end(),
            session_id.encode(),
            options.origin_host.encode(),
            options.origin_realm.encode(),
            options.destination_realm.encode(),
        )

    async def _exchange(self, message: bytes, decode: Callable[[bytes], T]) -> T:
        if self._handle is None:
            raise SimulationError("the policy node is not connected")
        try:
            received = await self._handle.request(message, self.options.answer_timeout_s)
            return decode(received.message)
        except RequestError as error:
            raise SimulationError(f"the server did not answer: {error}") from error
        except DiameterError as error:
            raise SimulationError(f"the server's answer cannot be read: {error}") from error

    # -- what it is told -----------------------------------------------------------------------------------------

    def _on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        """SNR."""
        try:
            request = decode_snr(event.message)
        except DiameterError as error:
            peer.send(error_answer(event.message, error, self._origin))
            return
        self.notified.append(request)
        session = self.sessions.get(request.session_id.decode("utf-8", "replace"))
        code = self.reply(request) if self.reply is not None else _plain_reply(session)
        if code is None:
            return
        peer.send(encode_sna(request, SpendingStatusNotificationAnswer(code), self._origin))
        if code != ResultCode.SUCCESS or session is None:
            return
        self._take_in(session, "aborted" if request.aborts else "changed", request.reports)
        if request.aborts:
            task = asyncio.get_running_loop().create_task(self._end_quietly(session.session_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _end_quietly(self, session_id: str) -> None:
        try:
            await self.end(session_id)
        except SimulationError:
            self.sessions.pop(session_id, None)  # the server knows that the session is over

    def _take_in(
        self, session: PolicySession, what: str, reports: tuple[CounterReport, ...], *, anew: bool = False
    ) -> None:
        """A report overwrites all that was said of its counter before (clauses 5.3.3 and 5.3.5)."""
        if anew:
            session.counters.clear()
        session.counters.update((report.identifier, report) for report in reports)
        self._tell(Heard(session, what, reports))
        self._wait_for_pending(session)

    def _wait_for_pending(self, session: PolicySession) -> None:
        timer = self._timers.pop(session.session_id, None)
        if timer is not None:
            timer.cancel()
        times = [from_s for report in session.counters.values() for _, from_s in report.pending]
        if times:
            wait_s = max(0.0, min(times) - time())
            self._timers[session.session_id] = asyncio.get_running_loop().call_later(
                min(wait_s, 86_400.0), self._pending_due, session
            )

    def _pending_due(self, session: PolicySession) -> None:
        now_s = time()
        effective: list[CounterReport] = []
        for report in list(session.counters.values()):
            due = [status for status, from_s in report.pending if from_s <= now_s]
            if due:
                later = tuple(each for each in report.pending if each[1] > now_s)
                effective.append(CounterReport(report.identifier, due[-1], later))
        session.counters.update((report.identifier, report) for report in effective)
        if effective:
            self._tell(Heard(session, "took effect", tuple(effective)))
        self._wait_for_pending(session)

    def _tell(self, heard: Heard) -> None:
        if self._on_heard is not None:
            self._on_heard(heard)


def _plain_reply(session: PolicySession | None) -> int:
    return int(ResultCode.SUCCESS if session is not None else ResultCode.UNKNOWN_SESSION_ID)


async def follow(
    options: PolicyNodeOptions,
    subscribers: Sequence[str],
    counters: Sequence[str],
    on_heard: OnHeard,
    stopping: asyncio.Event,
) -> None:
    """Subscribe for all subscribers and tell what is heard, until ``stopping``; then end every session.

    A connection that is lost is opened again. Raises SimulationError, also for a subscriber the server refuses.
    """
    node = await PolicyNode(options, on_heard).connect()
    try:
        for msisdn in subscribers:
            answer = await node.subscribe(msisdn, counters)
            if not answer.is_success:
                raise SimulationError(f"the server refuses to tell of {msisdn}: {refusal(answer)}")
        while not stopping.is_set():
            await node.reconnect()
            try:
                async with asyncio.timeout(RECONNECT_S):
                    await stopping.wait()
            except TimeoutError:
                continue
        for session_id in list(node.sessions):
            await node.end(session_id)
    finally:
        await node.close()


def refusal(answer: SpendingLimitAnswer) -> str:
    """Why the server refused, in words."""
    reasons = {
        4241: "it has no policy counters of theirs (4241)",
        5570: "it does not know one of the counters (5570)",
        5030: "it does not know them (5030)",
    }
    code = answer.experimental_result_code or answer.result_code
    return reasons.get(code, f"result {code}")
