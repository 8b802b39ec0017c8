"""Diameter nodes over real sockets, on both kinds of event loop, and a client that writes octets by hand."""

import asyncio
import functools
import inspect
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from protocols.diameter import codec
from protocols.diameter.codec import Message
from protocols.diameter.events import Event, RequestReceived
from protocols.diameter.node import Node, NodeSettings, PeerHandle
from tests.protocols.in_memory import LOOPBACK, OURS, THEIRS, answer, cer, result_of

LOOPS = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def on_both_loops(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test once per kind of event loop."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    first = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    functools.update_wrapper(run, test)
    run.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    decorated: Callable[..., None] = LOOPS(run)
    return decorated


def cca(request: RequestReceived) -> bytes:
    return answer(codec.decode(request.message))


def echo(peer: PeerHandle, request: RequestReceived) -> None:
    """Answer every request at once."""
    peer.send(cca(request))


def ignore(peer: PeerHandle, request: RequestReceived) -> None:
    """Leave every request without an answer."""


@asynccontextmanager
async def serving(
    settings: NodeSettings = OURS,
    on_request: Callable[[PeerHandle, RequestReceived], None] = echo,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[Node, int, list[Event]]]:
    """A node that listens on a free port; stopped in the end."""
    events: list[Event] = []
    node = Node(settings, on_request, events.append)
    port = await node.start(LOOPBACK, 0, tls)
    try:
        yield node, port, events
    finally:
        await node.stop()


@asynccontextmanager
async def calling(settings: NodeSettings = THEIRS) -> AsyncIterator[Node]:
    """A node that listens nowhere; stopped in the end."""
    node = Node(settings, echo)
    try:
        yield node
    finally:
        await node.stop()


class Caller:
    """Octets written by hand over a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int) -> "Caller":
        return cls(*await asyncio.open_connection(LOOPBACK, port))

    @classmethod
    async def open_to(cls, port: int, host: str = "pgw.example.org") -> "Caller":
        caller = await cls.to(port)
        assert result_of(await caller.ask(cer(host=host))) == 2001
        return caller

    async def receive(self) -> Message:
        header = await self.reader.readexactly(20)
        return codec.decode(header + await self.reader.readexactly(int.from_bytes(header[1:4], "big") - 20))

    async def ask(self, message: bytes) -> Message:
        self.writer.write(message)
        return await asyncio.wait_for(self.receive(), 10)

    async def is_closed_by_peer(self) -> bool:
        """Wait for the end of the stream, be it a reset."""
        try:
            await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return True
        return self.reader.at_eof()

    def close(self) -> None:
        self.writer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it lies on the other side of a socket
            await asyncio.sleep(0.005)
