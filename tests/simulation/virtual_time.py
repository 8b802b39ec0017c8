"""An event loop whose time passes only when nothing else is left to do."""

import asyncio
import selectors
import socket
from collections.abc import Callable
from typing import Any

Connect = Callable[[asyncio.Protocol], None]


class StandstillError(Exception):
    """Nothing is ready and no timer runs: whatever is waited for will never come."""


class _Selector(selectors.SelectSelector):
    """Waits for nothing: moves the time on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StandstillError("nothing is left that could ever happen")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time in seconds from 0; connections go to whatever ``servers`` has under their path."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        self.servers: dict[str, Connect] = {}
        super().__init__(self._virtual)
        # Whoever connects may set what a socket can be set; nothing goes through it.
        self._pair = socket.socketpair()

    def close(self) -> None:
        super().close()
        for end in self._pair:
            end.close()

    def time(self) -> float:
        return self._virtual.now

    async def create_unix_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], path: str | None = None, **_: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect to a server of this process. Raises ConnectionRefusedError where none listens."""
        protocol = protocol_factory()
        connect = self.servers.get(str(path))
        if connect is None:
            raise ConnectionRefusedError(f"nobody listens at {path}")
        connect(protocol)
        return asyncio.Transport({"socket": self._pair[0]}), protocol
