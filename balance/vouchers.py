"""Vouchers: codes that are worth money once.

A code is random digits, shown when it is made and never again: the store has its HMAC-SHA-256 under a pepper that is
not in the store, so that neither a copy of the store nor the pepper alone gives any code away. Whoever redeems a code
binds it to an account first, for ever, and then has the account topped up with the voucher's serial number as the
reference of the payment: so it is paid out once, to one account, however often that is repeated or cut off.

===============================  ==========  =====================================================================
key                              type        value
===============================  ==========  =====================================================================
``voucher:<digest>``             hash        ``serial``, ``batch``; once bound: ``account``, ``bound`` (ms); once
                                             paid: ``used`` (ms)
``voucher-batch:<batch>``        hash        ``count``, ``amount``, ``currency``, ``expires``, ``created``, ``by``,
                                             ``blocked`` (ms), if it is
``voucher-serials:<batch>``      hash        digest by serial number
``voucher-batches``              sorted set  batches by when they were made (ms)
``voucher-pepper``               string      what tells one pepper from another
===============================  ==========  =====================================================================
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from itertools import chain
from typing import Final

from balance.directory import REFERENCE_TTL_MS
from balance.model import UNLIMITED, LedgerError
from balance.store import Store
from balance.subscribers import check_name

BATCHES: Final = b"voucher-batches"
PEPPER: Final = b"voucher-pepper"
LARGEST_BATCH: Final = 10_000
DIGITS: Final = 16
BOUND_FOR_MS: Final = REFERENCE_TTL_MS - 86_400_000
"""A voucher that was bound so long ago and is not paid: the ledger may forget soon whether it has been."""
WRITTEN_AT_ONCE: Final = 1000

_CODE: Final = re.compile(r"[0-9]{12,20}")

_BIND: Final = """
local found = redis.call('HMGET', KEYS[1], 'serial', 'batch', 'account', 'bound', 'used')
if not found[1] then return {} end
if not found[3] and ARGV[3] == '1' then
  redis.call('HSET', KEYS[1], 'account', ARGV[1], 'bound', ARGV[2])
  found[3], found[4] = ARGV[1], ARGV[2]
end
return {found[1], found[2], found[3] or '', found[4] or '', found[5] or ''}
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Vouchers that were made together."""

    batch_id: str
    count: int
    amount_micro: int
    """What each is worth."""
    currency: int
    """ISO 4217 numeric code."""
    expires_ms: int
    """0: never."""
    created_ms: int
    created_by: str
    blocked_ms: int = 0
    """Since when none of them can be redeemed; 0: they can."""


@dataclass(frozen=True, slots=True)
class Voucher:
    """One voucher, without its code."""

    serial: str
    batch: Batch
    account_id: bytes = b""
    """Who has redeemed it; empty: nobody."""
    bound_ms: int = 0
    used_ms: int = 0
    """When it was paid out; 0: not yet."""


class WrongCodeError(LedgerError):
    """No voucher has the code."""


class Vouchers:
    """The vouchers of a store under one pepper."""

    def __init__(self, store: Store, pepper: bytes) -> None:
        """Raises ValueError for a pepper that is too short to be one."""
        if len(pepper) < 16:
            raise ValueError("the pepper of vouchers must be 16 octets or more")
        self._store = store
        self._pepper = pepper

    async def check_pepper(self) -> None:
        """Raises LedgerError if the vouchers of the store were made under another pepper, StoreError."""
        mark = self._digest("which pepper is it")
        await self._store.call("SET", PEPPER, mark, "NX")
        if not hmac.compare_digest(bytes(await self._store.call("GET", PEPPER)), mark):
            raise LedgerError("the vouchers in the store were made under another pepper; vouchers.pepper_file names it")

    async def create_batch(
        self, count: int, amount_micro: int, currency: int, *, expires_ms: int, now_ms: int, by: str
    ) -> tuple[Batch, list[tuple[str, str]]]:
        """New vouchers; serial number and code of each, which nobody can find out later.

        Raises LedgerError for figures that make no sense, StoreError: then none of them can be redeemed.
        """
        if not 1 <= count <= LARGEST_BATCH:
            raise LedgerError(f"a batch has 1 to {LARGEST_BATCH} vouchers, not {count}")
        if not 1 <= amount_micro <= UNLIMITED:
            raise LedgerError("a voucher must be worth more than nothing")
        if expires_ms and expires_ms <= now_ms:
            raise LedgerError("a voucher cannot expire before it exists")
        await self.check_pepper()
        batch = Batch(secrets.token_hex(4), count, amount_micro, currency, expires_ms, now_ms, by)
        made: list[tuple[str, str]] = []
        for first in range(0, count, WRITTEN_AT_ONCE):
            several = [
                (f"{batch.batch_id}-{number + 1:06d}", _new_code())
                for number in range(first, min(count, first + WRITTEN_AT_ONCE))
            ]
            digests = [self._digest(code) for _, code in several]
            names = [serial for serial, _ in several]
            await asyncio.gather(
                *(
                    self._store.call("HSET", _voucher(digest), "serial", serial, "batch", batch.batch_id)
                    for serial, digest in zip(names, digests, strict=True)
                )
            )
            pairs = zip(names, digests, strict=True)
            await self._store.call("HSET", _serials(batch.batch_id), *chain.from_iterable(pairs))
            made += several
        # Last: a voucher whose batch is not there is worth nothing.
        await self._store.call(
            *("HSET", _batch(batch.batch_id), "count", count, "amount", amount_micro, "currency", currency),
            *("expires", expires_ms, "created", now_ms, "by", by),
        )
        await self._store.call("ZADD", BATCHES, now_ms, batch.batch_id)
        return batch, made

    async def bind(self, code: str, account_id: bytes, now_ms: int, *, currency: int) -> Voucher:
        """Give a voucher to an account, for ever; one that is its own already is found again.

        Raises WrongCodeError, LedgerError if it cannot be had: used, expired, blocked, in another currency; StoreError.
        """
        check_name("account", account_id)
        await self.check_pepper()
        written = re.sub(r"[ -]", "", code)
        if not _CODE.fullmatch(written):
            raise WrongCodeError("there is no such voucher")
        key = _voucher(self._digest(written))
        voucher = _found(await self._store.run_script(_BIND, [key], account_id, now_ms, 0))
        batch = None if voucher is None else await read_batch(self._store, voucher[1])
        if voucher is None or batch is None:
            raise WrongCodeError("there is no such voucher")
        if not voucher[2]:
            _check_batch(voucher[0], batch, currency, now_ms)
            voucher = _found(await self._store.run_script(_BIND, [key], account_id, now_ms, 1))
            assert voucher is not None
        serial, _, owner, bound_ms, used_ms = voucher
        if owner != account_id:
            raise LedgerError(f"voucher {serial} has been used")
        if not used_ms and now_ms - bound_ms > BOUND_FOR_MS:
            raise LedgerError(
                f"voucher {serial} was begun to be redeemed days ago; see in the history of the account whether it was "
                "paid, and adjust the account if not"
            )
        return Voucher(serial, batch, owner, bound_ms, used_ms)

    async def note_used(self, code: str, now_ms: int) -> None:
        """The account has its money. Raises StoreError."""
        await self._store.call("HSETNX", _voucher(self._digest(re.sub(r"[ -]", "", code))), "used", now_ms)

    def _digest(self, code: str) -> bytes:
        return hmac.new(self._pepper, code.encode(), hashlib.sha256).hexdigest().encode()


def _check_batch(serial: str, batch: Batch, currency: int, now_ms: int) -> None:
    if batch.expires_ms and batch.expires_ms <= now_ms:
        raise LedgerError(f"voucher {serial} has expired")
    if batch.blocked_ms:
        raise LedgerError(f"voucher {serial} has been blocked")
    if batch.currency != currency:
        raise LedgerError(f"voucher {serial} is in another currency than the account")


async def batches(store: Store) -> list[Batch]:
    """All batches, the newest first. Raises StoreError."""
    found = [await read_batch(store, name.decode()) for name in await store.call("ZREVRANGE", BATCHES, 0, -1)]
    return [batch for batch in found if batch is not None]


async def read_batch(store: Store, batch_id: str) -> Batch | None:
    """The batch of that name, or None. Raises StoreError."""
    names = ("count", "amount", "currency", "expires", "created", "by", "blocked")
    count, amount, currency, expires, created, by, blocked = await store.call("HMGET", _batch(batch_id), *names)
    if count is None:
        return None
    figures = (int(count), int(amount), int(currency), int(expires), int(created))
    return Batch(batch_id, *figures, by.decode("utf-8", "replace"), int(blocked or 0))


async def block_batch(store: Store, batch_id: str, now_ms: int) -> Batch:
    """Have none of a batch be redeemed any more. Raises LedgerError if there is no such batch, StoreError."""
    if await read_batch(store, batch_id) is None:
        raise LedgerError(f"there is no batch {batch_id[:40]} of vouchers")
    await store.call("HSETNX", _batch(batch_id), "blocked", now_ms)
    found = await read_batch(store, batch_id)
    assert found is not None
    return found


async def vouchers_of(store: Store, batch: Batch) -> list[Voucher]:
    """The vouchers of a batch, by serial number. Raises StoreError."""
    found = await store.call("HGETALL", _serials(batch.batch_id))
    cards = sorted(zip(found[::2], found[1::2], strict=True))
    told = await asyncio.gather(
        *(store.call("HMGET", _voucher(digest), "account", "bound", "used") for _, digest in cards)
    )
    return [
        Voucher(serial.decode(), batch, bytes(account or b""), int(bound or 0), int(used or 0))
        for (serial, _), (account, bound, used) in zip(cards, told, strict=True)
    ]


def _found(reply: list[bytes]) -> tuple[str, str, bytes, int, int] | None:
    if not reply:
        return None
    serial, batch_id, owner, bound, used = reply
    return serial.decode(), batch_id.decode(), bytes(owner), int(bound or 0), int(used or 0)


def _new_code() -> str:
    return str(secrets.randbelow(9 * 10 ** (DIGITS - 1)) + 10 ** (DIGITS - 1))


def _voucher(digest: bytes) -> bytes:
    return b"voucher:" + digest


def _batch(batch_id: str) -> bytes:
    return b"voucher-batch:" + batch_id.encode("utf-8", "surrogateescape")


def _serials(batch_id: str) -> bytes:
    return b"voucher-serials:" + batch_id.encode("utf-8", "surrogateescape")
