"""Tokens of the management API: who may do what, kept as digests.

A token is 256 random bits, shown once. The store has its SHA-256: with so many random bits nobody finds a token that
fits by trying, so nothing slower is needed. ``occ_<id>_<secret>`` is how it is written; the id is no secret.

===============================  ==========  =====================================================================
key                              type        value
===============================  ==========  =====================================================================
``occ:tokens``                   hash        by id, msgpack: name, role, digest, created, expires, created by
===============================  ==========  =====================================================================
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgpack

from balance.model import LedgerError
from balance.resp import StoreError
from balance.store import Store

TOKENS: Final = b"occ:tokens"
SECRET_OCTETS: Final = 32

_WRITTEN: Final = re.compile(r"occ_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(r"[\x20-\x7e]{1,64}")
_NO_DIGEST: Final = bytes(32)


class Role(IntEnum):
    """What a token lets its holder do; each includes those before it."""

    VIEWER = 1
    """Look."""
    CARE = 2
    """Look after customers: money, subscribers, sessions, vouchers of one customer."""
    OPERATOR = 3
    """Run the network: catalogue, policies, batches of vouchers, event subscriptions."""
    ADMIN = 4
    """Tokens, and the audit log."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; its secret is not among it."""

    token_id: str
    name: str
    """Who uses it, for people."""
    role: Role
    created_ms: int
    expires_ms: int
    """0: never."""
    created_by: str


async def create_token(
    store: Store, name: str, role: Role, *, now_ms: int, by: str, expires_ms: int = 0
) -> tuple[Token, str]:
    """A new token, and how it is written: nobody can find that out later.

    Raises LedgerError for a name or a time that cannot be, StoreError.
    """
    if not _NAME.fullmatch(name):
        raise LedgerError("the name of a token is 1 to 64 printable ASCII characters")
    if expires_ms and expires_ms <= now_ms:
        raise LedgerError("a token cannot expire before it exists")
    token = Token(secrets.token_hex(6), name, role, now_ms, expires_ms, by)
    secret = secrets.token_urlsafe(SECRET_OCTETS)
    fields = (name, int(role), _digest(secret), now_ms, expires_ms, by)
    if not await store.call("HSETNX", TOKENS, token.token_id, msgpack.packb(fields)):
        raise StoreError("the id of the new token is in use; try again")
    return token, f"occ_{token.token_id}_{secret}"


async def find_token(store: Store, written: str, now_ms: int) -> Token | None:
    """The token that is written so; None if there is none, or it has expired. Raises StoreError."""
    match = _WRITTEN.fullmatch(written)
    if match is None:
        return None
    token_id, secret = match.groups()
    value = await store.call("HGET", TOKENS, token_id)
    token, digest = (None, _NO_DIGEST) if value is None else _unpack(token_id, value)
    if not hmac.compare_digest(digest, _digest(secret)) or token is None:
        return None
    return None if token.expires_ms and token.expires_ms <= now_ms else token


async def tokens(store: Store) -> list[Token]:
    """All tokens, the oldest first. Raises StoreError."""
    found = await store.call("HGETALL", TOKENS)
    every = [_unpack(found[at].decode(), found[at + 1])[0] for at in range(0, len(found), 2)]
    return sorted(every, key=lambda token: (token.created_ms, token.token_id))


async def revoke_token(store: Store, token_id: str) -> None:
    """Have a token be none any more, at once. Raises LedgerError if there is none of that id, StoreError."""
    if not await store.call("HDEL", TOKENS, token_id.encode("utf-8", "surrogateescape")):
        raise LedgerError(f"there is no token {token_id[:40]}")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _unpack(token_id: str, value: bytes) -> tuple[Token, bytes]:
    try:
        name, role, digest, created_ms, expires_ms, by = msgpack.unpackb(value)
        return Token(token_id, name, Role(role), created_ms, expires_ms, by), digest
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise StoreError(f"token {token_id} is damaged in the store: {error}") from error
