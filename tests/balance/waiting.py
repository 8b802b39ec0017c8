"""Waiting for what happens in a server, or in a store's background."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 60.0
"""Longer than anything here takes on a busy machine; only what hangs uses it up."""


async def until(what: Callable[[], bool]) -> None:
    """Asked in a thread of its own, as it may ask a server. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(what):  # noqa: ASYNC110 - what is awaited happens elsewhere
            await asyncio.sleep(0.02)
