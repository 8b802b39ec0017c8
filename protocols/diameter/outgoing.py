"""Our own requests under way: sending, answers, timeouts and failover (RFC 6733 5.5.4, 6.1.2, 6.2.1)."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Final

from protocols.diameter.connection import DiameterConnection
from protocols.diameter.events import AnswerReceived, PendingRequest, RequestFailed
from protocols.diameter.link import Link

_LOG: Final = logging.getLogger("protocols.diameter.node")

OnAnswer = Callable[[AnswerReceived | RequestFailed], None]
"""Called exactly once per request, and never from inside the call that sent it."""


class RequestError(Exception):
    """A request got no answer: no peer, no answer in time, or the connection failed."""


class OutgoingRequest(PendingRequest):
    """One request from its sending to its answer or failure."""

    __slots__ = ("deadline", "done", "hop_by_hop", "link", "on_answer", "targets")

    def __init__(self, message: bytes, on_answer: OnAnswer, deadline: float, targets: tuple[str, ...]) -> None:
        """`deadline` is in seconds of the loop's clock; `targets` are Origin-Hosts, the preferred one first."""
        super().__init__(message)
        self.on_answer = on_answer
        self.deadline = deadline
        self.targets = targets
        self.link: Link | None = None
        self.hop_by_hop = 0
        self.done = False


Find = Callable[[tuple[str, ...], Link | None], DiameterConnection | None]
"""The connection to send to one of these Origin-Hosts by, other than the given one."""


class RequestQueue:
    """All our requests that wait for an answer, over all connections of a node."""

    __slots__ = ("_count", "_deadlines", "_find", "_timer", "_timer_at")

    def __init__(self, find: Find) -> None:
        self._find = find
        self._deadlines: list[tuple[float, int, OutgoingRequest]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def send(self, request: OutgoingRequest) -> None:
        """Send by the best connection there is; without one, fail soon."""
        connection = self._find(request.targets, None)
        if connection is None or connection.link is None:
            reason = f"no open connection with {' or '.join(request.targets)}"
            asyncio.get_running_loop().call_soon(self._fail, request, reason)
            return
        self._put(request, connection, connection.link, again=False)
        self._count += 1
        heappush(self._deadlines, (request.deadline, self._count, request))
        self._arm()

    def answered(self, event: AnswerReceived) -> None:
        """An answer came."""
        request = event.request
        if isinstance(request, OutgoingRequest) and not request.done:
            self._finish(request, event)

    def connection_lost(self, unanswered: Iterable[PendingRequest], reason: str) -> None:
        """The connection that these were sent by is gone: send them again with T, or fail them."""
        for request in unanswered:
            if isinstance(request, OutgoingRequest) and not request.done and not self._move(request):
                self._fail(request, reason)

    def suspect(self, link: Link) -> None:
        """The peer behind `link` is silent: what has an alternate goes there, the rest may still be answered."""
        for hop_by_hop, request in list(link.pending.items()):
            if isinstance(request, OutgoingRequest) and self._move(request):
                del link.pending[hop_by_hop]

    def _move(self, request: OutgoingRequest) -> bool:
        connection = self._find(request.targets, request.link)
        if connection is None or connection.link is None:
            return False
        self._put(request, connection, connection.link, again=True)
        return True

    def _put(self, request: OutgoingRequest, connection: DiameterConnection, link: Link, *, again: bool) -> None:
        request.link = link
        request.hop_by_hop = link.send_request(request, again=again)
        connection.flush_soon()

    def _fail(self, request: OutgoingRequest, reason: str) -> None:
        self._finish(request, RequestFailed(reason, request.link is not None))

    def _finish(self, request: OutgoingRequest, outcome: AnswerReceived | RequestFailed) -> None:
        request.done = True
        request.message = b""  # it may stay in the heap for a while
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].done:
            heappop(deadlines)
        try:
            request.on_answer(outcome)
        except Exception:
            _LOG.exception("the callback of a request raised")

    def _arm(self) -> None:
        when = self._deadlines[0][0]
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when  # kept here: what uvloop returns for a moment that is due does not tell it
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        deadlines = self._deadlines
        now = asyncio.get_running_loop().time()
        while deadlines and deadlines[0][0] <= now:
            request = heappop(deadlines)[2]
            if request.done:
                continue
            if request.link is not None:
                request.link.pending.pop(request.hop_by_hop, None)
            self._fail(request, "no answer in time")
        if deadlines:
            self._arm()
