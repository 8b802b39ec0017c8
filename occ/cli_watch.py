"""The command ``occ sessions watch``: what happens to the sessions and the money of one subscriber, as it happens.

Only the versions of the subscriber's accounts are looked at, ten times a second; the journal and the account itself are
read when one has changed. So watching costs the store next to nothing, however much goes on elsewhere.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from balance.accounts import Account, ServiceUse, Session
from balance.directory import read_account
from balance.journal import history
from balance.model import MAIN_BUCKET, Bucket, Subscriber, Unit
from balance.records import VERSION_BYTES, JournalRecord
from balance.resp import StoreUnavailableError
from balance.store import Store
from balance.subscribers import find_subscribers, session_accounts
from occ.cli_accounts import journal_json, why_text
from occ.cli_sessions import session_json
from occ.cli_shell import (
    AsJson,
    RefusedError,
    console,
    name_octets,
    on_store,
    text_of,
    time_text,
    units_text,
)

LOOK_EVERY_S: Final = 0.1
MOST_AT_ONCE: Final = 200
"""Changes of one account shown of those between two looks; the newest."""

_LAST: Final = ("terminate", "expire-session")
"""Operations that end a session."""

For = Annotated[float, typer.Option("--for", min=0.0, help="Seconds; 0: until Ctrl-C.")]


async def one_subscriber(store: Store, written: str) -> Subscriber | None:
    """Whom somebody means by a name, an MSISDN or another identity; None if nobody. Raises RefusedError for several."""
    found = {
        subscriber.subscriber_id: subscriber for subscriber, _ in await find_subscribers(store, name_octets(written))
    }
    if len(found) > 1:
        names = ", ".join(sorted(text_of(name) for name in found))
        raise RefusedError(f"{written} means several subscribers ({names}); give the name of one")
    return next(iter(found.values()), None)


def watch(
    context: typer.Context,
    msisdn: Annotated[str, typer.Argument(help="MSISDN of the subscriber, or another identity, or its name.")],
    seconds: For = 0.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many changes; 0: never.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show grants, usage and balance of a subscriber as they change, until Ctrl-C.

    With --json each change is one line.
    """
    out = console()

    def show(change: Changed) -> None:
        if as_json:
            typer.echo(json.dumps(_as_json(change)))
            return
        for line in _lines(change):
            out.print(line, soft_wrap=True)

    async def work(store: Store) -> int:
        subscriber = await one_subscriber(store, msisdn)
        if subscriber is None:
            raise RefusedError(f"there is no subscriber {msisdn}; 'occ subscriber list' shows those there are")
        account_ids = await session_accounts(store, subscriber)
        watched = Watched(store, subscriber, account_ids)
        await watched.begin()
        if not as_json:
            for line in watched.beginning():
                out.print(line, soft_wrap=True)
        seen = 0
        try:
            async with asyncio.timeout(seconds or None):
                async for change in watched.changes():
                    show(change)
                    seen += 1
                    if seen == count:
                        break
        except TimeoutError:
            pass
        return seen

    seen = on_store(context, work)
    if not as_json:
        out.print(f"{seen} changes seen.")


# -- what changes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changed:
    """One record of the journal, with the account and the sessions of the subscriber as they are now."""

    record: JournalRecord
    account: Account
    session: Session | None
    """The session it was about, if that is still open. As sessions are seen as they are now, None for all but the
    newest of several records of one."""
    is_over: bool
    """The session it was about has ended with it."""


@dataclass(slots=True)
class Watched:
    """The accounts that sessions of one subscriber may run on."""

    store: Store
    subscriber: Subscriber
    account_ids: list[bytes]
    accounts: dict[bytes, Account] = field(default_factory=dict)

    async def begin(self) -> None:
        """Take note of how they stand. Raises StoreError."""
        for account_id in self.account_ids:
            account = await read_account(self.store, account_id)
            if account is not None:
                self.accounts[account_id] = account

    def beginning(self) -> list[str]:
        """How they stand, in words."""
        lines = []
        for account in self.accounts.values():
            lines.append(f"Account {text_of(account.account_id)}: {_balances(account)}.")
            lines += [f"  {_session_text(account, session)}" for session in self._own(account)]
        lines.append("Waiting for changes; Ctrl-C ends.")
        return lines

    def _own(self, account: Account) -> list[Session]:
        wanted = self.subscriber.subscriber_id
        return [session for session in account.sessions.values() if session.subscriber_id in (wanted, b"")]

    async def changes(self) -> AsyncIterator[Changed]:
        """What happens from now on; an unreachable store is waited for."""
        while True:
            for account_id in self.account_ids:
                try:
                    for change in await self._of(account_id):
                        yield change
                except StoreUnavailableError:
                    continue
            await asyncio.sleep(LOOK_EVERY_S)

    async def _of(self, account_id: bytes) -> list[Changed]:
        key = self.store.keys.account(account_id)
        version = int.from_bytes(await self.store.call("GETRANGE", key, 0, VERSION_BYTES - 1), "big")
        before = self.accounts.get(account_id)
        known = before.version if before is not None else 0
        if version <= known:
            return []
        account = await read_account(self.store, account_id)
        if account is None:
            return []
        records = await history(self.store, account_id, min(MOST_AT_ONCE, account.version - known))
        self.accounts[account_id] = account
        newest = {_session_key(record): record.version for record in reversed(records)}
        return [
            self._changed(record, account, before, is_newest=record.version == newest[_session_key(record)])
            for record in reversed(records)
            if known < record.version <= account.version and self._concerns(record, account, before)
        ]

    def _concerns(self, record: JournalRecord, account: Account, before: Account | None) -> bool:
        """Whether it is about the account, or about a session of the subscriber and not of another one."""
        key = _session_key(record)
        for each in (account, before):
            session = None if each is None or key is None else each.sessions.get(key)
            if session is not None:
                return session.subscriber_id in (self.subscriber.subscriber_id, b"")
        return True

    @staticmethod
    def _changed(record: JournalRecord, account: Account, before: Account | None, *, is_newest: bool) -> Changed:
        key = _session_key(record) if is_newest else None
        now = None if key is None else account.sessions.get(key)
        is_over = key is not None and now is None and (record.operation in _LAST or _was_open(before, key))
        return Changed(record, account, now, is_over)


def _was_open(account: Account | None, key: bytes) -> bool:
    return account is not None and key in account.sessions


def _session_key(record: JournalRecord) -> bytes | None:
    first = record.reason[0] if record.reason else None
    return first if isinstance(first, bytes) else None


# -- as it is shown ------------------------------------------------------------------------------------------------


def _lines(change: Changed) -> list[str]:
    record, account = change.record, change.account
    first = f"{time_text(record.at_ms)}  {record.operation:<9}  {why_text(record.reason)}"
    moves = "; ".join(_moves(record, account))
    lines = [first]
    if moves:
        lines.append(f"    {moves}")
    if change.session is not None:
        lines += [f"    {_service_text(account, use)}" for use in change.session.services]
    elif change.is_over:
        lines.append("    the session is over")
    return lines


def _moves(record: JournalRecord, account: Account) -> list[str]:
    parts = []
    for change in record.changes:
        bucket = account.bucket(change.bucket_id)
        unit = Unit(bucket.unit) if bucket is not None else Unit.MONEY
        delta, after, reserved = (
            units_text(amount, unit, account.currency)
            for amount in (change.balance_delta, change.balance_after, change.reserved_after)
        )
        sign = "+" if change.balance_delta > 0 else ""
        moved = f" ({sign}{delta})" if change.balance_delta else ""
        parts.append(f"{_bucket_name(bucket, change.bucket_id)} {after}{moved}, reserved {reserved}")
    return parts


def _balances(account: Account) -> str:
    return "; ".join(
        f"{_bucket_name(bucket, bucket.bucket_id)} "
        f"{units_text(bucket.balance, Unit(bucket.unit), account.currency)}, "
        f"reserved {units_text(bucket.reserved, Unit(bucket.unit), account.currency)}"
        for bucket in account.buckets
    )


def _bucket_name(bucket: Bucket | None, bucket_id: int) -> str:
    if bucket is None or bucket_id == MAIN_BUCKET:
        return "balance" if bucket_id == MAIN_BUCKET else f"bucket {bucket_id}"
    return f"bucket {bucket_id} ({text_of(bucket.name.encode())})" if bucket.name else f"bucket {bucket_id}"


def _session_text(account: Account, session: Session) -> str:
    services = "; ".join(_service_text(account, use) for use in session.services)
    return f"session {text_of(session.session_id)}: {services or 'no service yet'}"


def _service_text(account: Account, use: ServiceUse) -> str:
    unit = Unit(use.unit)
    name = use.name if use.rating_group < 0 else f"{use.name} ({use.rating_group})"
    cost = units_text(use.debited_micro, Unit.MONEY, account.currency)
    used, granted = (units_text(amount, unit, account.currency) for amount in (use.used, use.granted))
    return f"{name}: used {used}, granted {granted}, debited {cost}"


def _as_json(change: Changed) -> dict[str, Any]:
    shown = None if change.session is None else session_json(change.account, change.session)
    return {**journal_json(change.record, change.account), "session": shown}
