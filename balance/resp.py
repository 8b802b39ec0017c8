"""One connection to Redis that pipelines: everything sent in one loop tick leaves in one write.

For the hot path only. Replies come to callbacks, in the order of the commands; redis-py's asyncio client costs
twenty times as much per call. Administration uses redis-py (``balance.verify``, ``balance.directory``).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

log = logging.getLogger("balance.resp")

Reply = Any
"""bytes, int, list or None; an Exception when the command failed or the connection was lost."""

OnReply = Callable[[Reply], None]

Command = tuple[Any, ...] | bytes
"""Name and arguments, each bytes, str or int; or all of it as Redis reads it (``balance.requests``)."""


class StoreError(Exception):
    """The store did not carry out an operation; the message says why."""


class StoreUnavailableError(StoreError):
    """The connection is down or was lost: whether a pending write took effect is not known."""


class NotPrimaryError(StoreUnavailableError):
    """The server takes no writes: another one is the primary by now. Nothing was written."""


LOOKS: Final = 5
"""So often a connection is looked at, within the time after which its server is said to hang."""

_NOT_NOW: Final = ("NOREPLICAS", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")


def as_store_error(reply: Exception, before: str = "") -> StoreError:
    """What an error reply means to whoever asked; ``before`` stands before its text."""
    if isinstance(reply, StoreError):
        return reply
    text = str(reply)
    # Before version 7 a refusal within a script stands behind other words.
    if "READONLY" in text[:200]:
        return NotPrimaryError(f"the server is no primary any more: {text}")
    # A server that comes up, or has too few replicas, carries out nothing; another time it will.
    if text.startswith(_NOT_NOW) or "NOREPLICAS" in text[:200]:
        return StoreUnavailableError(f"{before}{text}")
    return StoreError(f"{before}{text}")


async def call_by(loop: asyncio.AbstractEventLoop, send: Callable[..., None], command: tuple[Any, ...]) -> Reply:
    """Send one command and wait for its reply. Raises StoreError if it failed."""
    future: asyncio.Future[Reply] = loop.create_future()

    def resolve(reply: Reply) -> None:
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(as_store_error(reply))
        else:
            future.set_result(reply)

    send(command, resolve)
    return await future


class _Replicated:
    """A command that is under way, and then the question how many replicas have what it wrote."""

    __slots__ = ("first", "on_reply", "replicas", "wait_ms")

    def __init__(self, replicas: int, wait_ms: int, on_reply: OnReply) -> None:
        self.replicas = replicas
        self.wait_ms = wait_ms
        self.on_reply = on_reply
        self.first: Reply = None

    def on_written(self, reply: Reply) -> None:
        self.first = reply

    def on_acknowledged(self, reply: Reply) -> None:
        first = self.first
        if isinstance(first, Exception) or (isinstance(reply, int) and reply >= self.replicas):
            self.on_reply(first)
        elif isinstance(reply, Exception):
            self.on_reply(reply if isinstance(reply, StoreError) else StoreUnavailableError(f"WAIT: {reply}"))
        else:
            missing = f"{reply} of {self.replicas} replicas had the commit within {self.wait_ms} ms"
            self.on_reply(StoreUnavailableError(missing))


class RedisLink:
    """A pipelining client connection. Not to be used after ``on_lost`` was called.

    An asyncio protocol, but not by inheritance: only so can it be compiled. ``hangs_after_s``: a server that is asked
    and says nothing at all for so long, and up to two fifths longer, is given up: a machine that lost its power closes
    no connection. 0: it is waited for, as is right for commands that block.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[Exception | None], None],
        hangs_after_s: float = 0.0,
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._hangs_after_s = hangs_after_s
        self._heard = 0
        """How often anything was read."""
        self._heard_before = 0
        """... at the last look."""
        self._silent = 0
        """Looks in a row at which something was waited for, and nothing had been read since the last."""
        self._reader = hiredis.Reader()
        self._waiting: deque[OnReply] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None
        self._pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are none by inheritance
        if self._hangs_after_s:
            self._loop.call_later(self._hangs_after_s / LOOKS, self._look)

    def _look(self) -> None:
        """Give the server up if it hangs. What it was sent may or may not be carried out, as whenever it is lost."""
        if self.lost:
            return
        self._silent = self._silent + 1 if self._waiting and self._heard == self._heard_before else 0
        self._heard_before = self._heard
        if self._silent > LOOKS:
            log.error("Redis was asked and has said nothing for %g s; closing the connection", self._hangs_after_s)
            self.abort()
        else:
            self._loop.call_later(self._hangs_after_s / LOOKS, self._look)

    def send(self, command: Command, on_reply: OnReply) -> None:
        """Queue one command; ``on_reply`` gets its reply or an Exception."""
        if self.lost:
            self._loop.call_soon(on_reply, StoreUnavailableError("the connection to Redis is down"))
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(command if isinstance(command, bytes) else self._pack(command))
        self._waiting.append(on_reply)

    async def call(self, *command: Any) -> Reply:
        """Send one command and wait for its reply. Raises StoreError if it failed."""
        return await call_by(self._loop, self.send, command)

    def send_decided(self, command: Command, on_reply: OnReply) -> None:
        """As ``send``: this server is the one that was read from, see ``balance.nodes.Route``."""
        self.send(command, on_reply)

    def send_replicated(self, command: Command, replicas: int, wait_ms: int, on_reply: OnReply) -> None:
        """Queue one command; its reply is told when so many replicas have what it wrote, else an error (WAIT)."""
        replicated = _Replicated(replicas, wait_ms, on_reply)
        self.send(command, replicated.on_written)
        self.send((b"WAIT", replicas, wait_ms), replicated.on_acknowledged)

    def flush(self) -> None:
        """Write what was queued now rather than at the end of the loop tick."""
        # Writing to a closing transport inside a reply callback would kill the link for good.
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        self._heard += 1
        self._reader.feed(data)
        try:
            reply = self._reader.gets()
            while reply is not False:
                self._deliver(reply)
                reply = self._reader.gets()
        except hiredis.ProtocolError as error:
            log.error("Redis sent what is not RESP (%s); closing the connection", error)
            self.close()

    def _deliver(self, reply: Reply) -> None:
        on_reply = self._waiting.popleft()
        try:
            on_reply(reply)
        except Exception:  # one request's fault must not stop the replies behind it
            log.exception("a reply of Redis could not be handled")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._out.clear()
        error = StoreUnavailableError("the connection to Redis was lost before it answered")
        waiting, self._waiting = self._waiting, deque()
        for on_reply in waiting:
            try:
                on_reply(error)
            except Exception:  # as above
                log.exception("the loss of Redis could not be handled")
        self._on_lost(exc)

    def pause_writing(self) -> None:
        """Redis takes less than is sent: what is decided waits in the transport."""

    def resume_writing(self) -> None:
        """It takes more again."""

    def eof_received(self) -> None:
        """Redis is done; the transport closes the connection."""

    def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.WriteTransport:
        """Give the connection to another protocol, for what is no exchange of commands and replies.

        Nothing may be under way. The link is not to be used any more, but for ``close`` and ``abort``. Raises
        StoreUnavailableError if it was lost.
        """
        assert not self._waiting
        if self.lost or self._transport is None or self._transport.is_closing():
            raise StoreUnavailableError("the connection to Redis is down")
        self.lost = True
        self._transport.set_protocol(protocol)
        return self._transport

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close without waiting for a server that may not read any more."""
        if self._transport is not None:
            self._transport.abort()
