"""Messages that servers have caught for somebody who watches, on their way to the watcher.

================================  ==========  ====================================================================
key                               type        value
================================  ==========  ====================================================================
``occ:trace:<name>``              stream      field ``c``: what was caught, packed by who caught it; bounded, expires
``occ:trace-watched:<name>``      string      the watcher is there; expires within seconds unless it says so again
================================  ==========  ====================================================================
"""

from typing import Final

from balance.store import Store

WATCHED_MS: Final = 5000
"""A watcher that has not been heard of for so long is gone."""

KEPT_MS: Final = 60_000
ENTRIES_KEPT: Final = 2000
ENTRIES_A_READ: Final = 100

BEGINNING: Final = b"0-0"


def _stream(name: bytes) -> bytes:
    return b"occ:trace:" + name


def _watched(name: bytes) -> bytes:
    return b"occ:trace-watched:" + name


async def keep(store: Store, name: bytes) -> None:
    """Say that somebody watches; to be said again every second or so. Raises StoreError."""
    await store.call("SET", _watched(name), b"1", "PX", WATCHED_MS)


async def is_watched(store: Store, name: bytes) -> bool:
    """Whether somebody still does. Raises StoreError."""
    return bool(await store.call("EXISTS", _watched(name)))


async def write(store: Store, name: bytes, caught: bytes) -> None:
    """Leave what was caught to the watcher. Raises StoreError."""
    await store.call("XADD", _stream(name), "MAXLEN", "~", ENTRIES_KEPT, "*", "c", caught)
    await store.call("PEXPIRE", _stream(name), KEPT_MS)


async def read(store: Store, name: bytes, after: bytes) -> list[tuple[bytes, bytes]]:
    """What was left since the entry ``after``: (entry, what was caught). Raises StoreError."""
    page = await store.call("XRANGE", _stream(name), b"(" + after, "+", "COUNT", ENTRIES_A_READ)
    return [(bytes(entry_id), bytes(fields[1])) for entry_id, fields in page]


async def forget(store: Store, name: bytes) -> None:
    """Nobody watches any more: the servers stop, and nothing of what they caught stays. Raises StoreError."""
    await store.call("DEL", _watched(name), _stream(name))
