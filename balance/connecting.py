"""Opening connections to Redis: by socket or TCP, with TLS and a password; asking sentinels who the primary is."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from balance.address import Access, Address, HostPort, host_port
from balance.resp import RedisLink, StoreError, StoreUnavailableError

CONNECT_WITHIN_S: Final = 2.0
"""Longest time until a server is connected and knows us."""
SENTINELS_WITHIN_S: Final = 1.0
SEND_OCTETS: Final = 2 << 20
"""A Unix socket should take that much at once, as far as the system permits: all commits that are under way. Into the
usual fifth of a megabyte not even one large commit fits; its rest waits until the process that decides on the next one
comes back to its sockets, and Redis waits with it. TCP finds its size by itself."""

OnLost = Callable[[Exception | None], None]


def ignore_loss(reason: Exception | None) -> None:
    """What waits for an answer on a connection is told by the link."""


async def open_link(
    loop: asyncio.AbstractEventLoop,
    place: Address,
    on_lost: OnLost = ignore_loss,
    *,
    primary: bool = False,
    hangs_after_ms: int = 0,
) -> RedisLink:
    """A connection to the one server of ``place``, which knows us. Raises OSError, StoreError.

    ``primary``: a server that is none is refused. ``hangs_after_ms``: as ``RedisLink`` has it, in milliseconds.
    """
    link = RedisLink(loop, on_lost, hangs_after_ms / 1000)
    protocol = cast(asyncio.Protocol, link)
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            context = place.access.context()
            if place.unix_path is not None:
                transport, _ = await loop.create_unix_connection(lambda: protocol, str(place.unix_path))
                end = transport.get_extra_info("socket")
                widen(end)
                end.getpeername()  # a server whose queue of connections is full looks as if it had taken this one
            else:
                await loop.create_connection(lambda: protocol, place.host, place.port, ssl=context)
            greeting = place.access.greeting()
            if greeting is not None:
                await link.call(*greeting)
            if primary:
                role = await link.call("ROLE")
                if role[0] != b"master":
                    raise StoreUnavailableError(f"{place.url} is no primary but a {role[0].decode()}")
    except TimeoutError:
        link.abort()
        raise StoreUnavailableError(f"{place.url} does not answer within {CONNECT_WITHIN_S:g} s") from None
    except BaseException:
        link.abort()
        raise
    return link


def widen(end: socket.socket) -> None:
    """Make the Unix socket that commits are sent by take as much at once as the system permits: see ``SEND_OCTETS``."""
    with suppress(OSError):  # Linux gives what it permits of it; another system may refuse, and it stays as it was
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_OCTETS)


def at(address: Address, place: HostPort) -> Address:
    """One server of a store."""
    return Address(host=place[0], port=place[1], access=address.access)


async def primary_of(loop: asyncio.AbstractEventLoop, address: Address) -> Address:
    """The server that takes writes: the address itself, or what the sentinels name. Raises StoreUnavailableError.

    Of sentinels that do not agree the one counts that knows of the latest failover.
    """
    if not address.sentinels:
        return address
    answers = await asyncio.gather(*(_asked(loop, address, each) for each in address.sentinels), return_exceptions=True)
    known = [answer for answer in answers if isinstance(answer, tuple)]
    if known:
        return at(address, max(known)[1])
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, OSError | StoreError):
            raise answer
    reasons = "; ".join(
        f"{host_port(*place)}: {answer}" for place, answer in zip(address.sentinels, answers, strict=True)
    )
    raise StoreUnavailableError(f"no sentinel knows the primary of {address.master_name} ({reasons})")


async def _asked(loop: asyncio.AbstractEventLoop, address: Address, sentinel: HostPort) -> tuple[int, HostPort]:
    """(configuration epoch, primary) by one sentinel. Raises OSError, StoreError."""
    try:
        async with asyncio.timeout(SENTINELS_WITHIN_S):
            link = await open_link(loop, at(address, sentinel))
            try:
                told = await link.call("SENTINEL", "MASTER", address.master_name)
                about = dict(zip(told[::2], told[1::2], strict=True))
                host, port = await link.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master_name)
            finally:
                link.close()
    except TimeoutError:
        raise StoreUnavailableError(f"it does not answer within {SENTINELS_WITHIN_S:g} s") from None
    return int(about[b"config-epoch"]), (host.decode(), int(port))


async def open_primary(loop: asyncio.AbstractEventLoop, address: Address, on_lost: OnLost = ignore_loss) -> RedisLink:
    """A connection to the server that takes writes, for an address that is no cluster's. Raises OSError, StoreError."""
    place = await primary_of(loop, address)
    return await open_link(loop, place, on_lost, primary=bool(address.sentinels))


__all__ = ["Access", "at", "ignore_loss", "open_link", "open_primary", "primary_of", "widen"]
