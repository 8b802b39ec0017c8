"""Listening sockets that a supervisor binds and its workers accept from, one after the other.

They stay open while one process of a worker goes and another comes, so nobody who connects meanwhile is refused: the
connection waits in the queue of the socket.
"""

import errno
import socket
import time
from collections.abc import Iterable
from typing import Final

from occ.reaching import bracketed

BACKLOG: Final = 1024
LEAVING_S: Final = 8.0
"""How long what is left of a former supervisor's workers may hold their ports."""
_PAUSE_S: Final = 0.05


class CannotListenError(Exception):
    """An address cannot be had; the message is one sentence."""


def bound(host: str, port: int, what: str, option: str, leaving: bool = False) -> tuple[socket.socket, ...]:
    """Sockets that listen on a host and port, one for each of its addresses; port 0: any free one, of the first.

    ``what`` and ``option`` name it in errors. ``leaving``: a former process may hold the port for a moment more.
    Raises CannotListenError.
    """
    deadline = time.monotonic() + (LEAVING_S if leaving else 0.0)
    while True:
        try:
            return _bound(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
                continue
            reason = (error.strerror or str(error)).lower()
            raise CannotListenError(
                f"cannot listen for {what} at {bracketed(host)}:{port}: {reason}; stop what uses it, or choose another "
                f"with {option}"
            ) from error


def _bound(host: str, port: int) -> tuple[socket.socket, ...]:
    opened: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            each = socket.socket(family, socket.SOCK_STREAM)
            opened.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(opened) > 1:
                address = (address[0], port_of(opened), *address[2:])  # noqa: PLW2901 - the first one chose
            each.bind(address)
            each.listen(BACKLOG)
    except OSError:
        close(opened)
        raise
    return tuple(opened)


def _addresses(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def port_of(sockets: Iterable[socket.socket]) -> int:
    """The port of the first; 0 if there is none."""
    return next((int(each.getsockname()[1]) for each in sockets), 0)


def close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
