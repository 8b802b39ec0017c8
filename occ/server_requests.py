"""What the server asks of its clients by itself: Re-Auth and Abort-Session, and what comes of them.

Here is what the server and the command line share: requests and results as they travel between processes, and what
a result does to the ledger. ``occ.reauthorisation`` talks to the clients.

Sources: RFC 8506 section 5.5, RFC 6733 sections 8.3 and 8.5; conformance rows 42 and 43.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgpack

from balance import directory
from balance.accounts import Account, Session, SessionState
from balance.answers import newest_key
from balance.commands import tell
from balance.ledger import Draft
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store
from occ import cdr

CLIENT_LOST: Final = "client-lost"
"""Cause of a charging data record: the client said that it does not know the session any more."""

UNSIGNED64_DIGITS: Final = 20

_pack = msgpack.Packer(autoreset=True).pack


class Command(StrEnum):
    RE_AUTH = "re-auth"
    """RAR: report, and ask anew."""
    ABORT_SESSION = "abort-session"
    """ASR: end the session."""


class Meaning(StrEnum):
    """What a request of the server came to."""

    UPDATE_EXPECTED = "update-expected"
    """RAA 2002: the client reports and asks anew."""
    UPDATE_PENDING = "update-pending"
    """RAA 2001: the client is reporting already."""
    ACKNOWLEDGED = "acknowledged"
    """RAA 2001 of a client that does no more than answer: it reports when it would have anyway."""
    TERMINATION_EXPECTED = "termination-expected"
    """ASA 2001: the client ends the session."""
    CLIENT_LOST = "client-lost"
    """5002: the client does not know the session; it was closed and what it held given back."""
    REFUSED = "refused"
    """Any other answer of the client."""
    UNANSWERED = "unanswered"
    """No answer in time by any way, or only from agents that could not deliver the request."""
    NO_CONNECTION = "no-connection"
    """No worker has a connection by which the client could be reached."""
    NOT_ASKED = "not-asked"
    """This kind of client does not act on the request, so it was not sent."""
    ENDED = "ended"
    """The session is not open (any more)."""
    FAILED = "failed"
    """The server could not do it; the reason says why."""


AGREED: Final = frozenset(
    (
        Meaning.UPDATE_EXPECTED,
        Meaning.UPDATE_PENDING,
        Meaning.ACKNOWLEDGED,
        Meaning.TERMINATION_EXPECTED,
        Meaning.CLIENT_LOST,
    )
)
"""The client answered what was hoped for, or there is no session of it any more."""


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """One request to a client about one of its sessions.

    ``session_key`` is the session's key in its account: the Session-Id, for a sub-session followed by a zero octet
    and its number. At most one of the three numbers narrows a Re-Auth down (RFC 8506 section 5.5).
    """

    command: Command
    account_id: bytes
    session_key: bytes
    rating_group: int | None = None
    service_identifier: int | None = None
    pool: int | None = None
    since_ms: int = field(default=0, compare=False)
    """When what it tells of came about: how long it took until it was sent is measured; 0: no matter."""

    @property
    def session_id(self) -> bytes:
        """The Session-Id on the wire."""
        return split_key(self.session_key)[0]

    @property
    def sub_session_id(self) -> int | None:
        """The CC-Sub-Session-Id on the wire."""
        return split_key(self.session_key)[1]

    @property
    def scope(self) -> "ServerRequest":
        """What it is about; an Abort-Session is always about all sub-sessions."""
        if self.command is Command.RE_AUTH:
            return self
        return ServerRequest(self.command, self.account_id, self.session_id)

    def concerned(self, account: Account | None) -> list[Session]:
        """The open sessions of the account it is about, the one that it names first."""
        if account is None:
            return []
        named = account.sessions.get(self.session_key)
        first = [] if named is None else [named]
        if self.command is Command.RE_AUTH:
            return first
        return first + [each for each in sessions_with_id(account, self.session_id) if each is not named]


@dataclass(frozen=True, slots=True)
class Result:
    """What a request came to."""

    meaning: Meaning
    session_key: bytes
    client: bytes = b""
    """Origin-Host of the client; empty if the session is not known."""
    result_code: int = 0
    """Result-Code of the last answer; 0: there was none."""
    denied: bool = False
    """The session is marked: its next request is denied (row 43)."""
    released: tuple[tuple[int, int], ...] = ()
    """What a session that was closed had reserved: (Unit, amount)."""
    currency: int = 0
    """ISO 4217 numeric code of the account, for ``released``."""
    reason: str = ""
    """Why it did not work, one clause."""

    @property
    def is_effective(self) -> bool:
        """Whether what was wanted happens: the client agreed, or gets nothing more at its next request."""
        return self.meaning in AGREED or self.denied


def split_key(session_key: bytes) -> tuple[bytes, int | None]:
    """Session-Id and CC-Sub-Session-Id of a session's key in its account."""
    session_id, separator, number = session_key.rpartition(b"\0")
    if separator and number.isdigit() and len(number) <= UNSIGNED64_DIGITS and int(number) < 1 << 64:
        return session_id, int(number)
    return session_key, None  # also for what only looks like one: a client may put anything into a Session-Id


def sessions_with_id(account: Account, session_id: bytes) -> list[Session]:
    """The open sessions of an account that bear a Session-Id: the session, or its sub-sessions."""
    return [session for key, session in account.sessions.items() if split_key(key)[0] == session_id]


async def find_sessions(store: Store, session_id: bytes) -> tuple[bytes, list[Session]] | None:
    """The account that holds a session and its sub-sessions, and these; None if there is none open.

    Sub-sessions alone are found by looking through all accounts. Raises StoreError.
    """
    account_id = await store.call("GET", store.keys.session(session_id))
    if account_id is not None:
        account = await directory.read_account(store, account_id)
        if account is not None and (sessions := sessions_with_id(account, session_id)):
            return account_id, sessions
    async for page in directory.accounts(store):
        for account in page:
            if sessions := sessions_with_id(account, session_id):
                return account.account_id, sessions
    return None


# -- as they travel between processes ----------------------------------------------------------------------------


def pack_request(request: ServerRequest, host: bytes, via: bytes) -> bytes:
    """A request, with what tells a worker whether it can reach the client: its Origin-Host and its last peer."""
    packed: bytes = _pack(
        (
            request.command.value,
            request.account_id,
            request.session_key,
            request.rating_group,
            request.service_identifier,
            request.pool,
            host,
            via,
            request.since_ms,
        )
    )
    return packed


def unpack_request(packed: bytes) -> tuple[ServerRequest, bytes, bytes]:
    """The request, Origin-Host and last peer. Raises ValueError."""
    command, account_id, session_key, rating_group, identifier, pool, host, via, *rest = _unpacked(packed)
    since_ms = rest[0] if rest else 0  # a process of an earlier release says nothing of it
    return (
        ServerRequest(Command(command), account_id, session_key, rating_group, identifier, pool, since_ms),
        host,
        via,
    )


def pack_result(result: Result) -> bytes:
    """A result as bytes."""
    packed: bytes = _pack(
        (
            result.meaning.value,
            result.session_key,
            result.client,
            result.result_code,
            result.denied,
            result.released,
            result.currency,
            result.reason,
        )
    )
    return packed


def unpack_result(packed: bytes) -> Result:
    """A result from bytes. Raises ValueError."""
    meaning, session_key, client, code, denied, released, currency, reason = _unpacked(packed)
    amounts = tuple((int(unit), int(amount)) for unit, amount in released)
    return Result(Meaning(meaning), session_key, client, code, denied, amounts, currency, reason)


def _unpacked(packed: bytes) -> Any:
    try:
        return msgpack.unpackb(packed, raw=False, use_list=False)
    except (msgpack.UnpackException, TypeError) as error:
        raise ValueError(f"a message between workers cannot be read: {error}") from error


# -- what they do to the ledger ----------------------------------------------------------------------------------


def progress(session: Session) -> tuple[int, int, int]:
    """A mark that differs after every request of the session that was charged."""
    newest = newest_key(session.answers)
    kind, number = (0, -1) if newest < 0 else (newest >> 32, newest & 0xFFFFFFFF)
    return kind, number, session.forgotten_number


async def deny(store: Store, request: ServerRequest, now_ms: int) -> bool:
    """Mark the sessions of a request: nothing more is granted to them. False if none is open. Raises StoreError."""
    found: list[Session] = []

    def step(account: Account | None, _: Session | None) -> Plan:
        found[:] = request.concerned(account)
        if account is None or all(session.refused for session in found):
            return Plan(None)
        draft = Draft(account, now_ms)
        for session in found:
            marked = draft.session(session.session_id)
            assert marked is not None
            marked.refused = True
        return make_plan(draft, "deny-session", (request.session_id,), None)

    await store.commit(request.account_id, step)
    return bool(found)


@dataclass(slots=True)
class Release:
    """What became of one session that its client does not know."""

    closed: bool = False
    """It was open, and was closed."""
    moved: bool = False
    """Its client has sent a request since it was asked, so it knows the session after all: nothing was released."""
    amounts: tuple[tuple[int, int], ...] = ()
    """What it had reserved: (Unit, amount)."""
    currency: int = 0


async def release(
    store: Store,
    account_id: bytes,
    seen: Session,
    now_ms: int,
    late_termination_ms: int,
    on_plan: Callable[[Plan], None],
) -> Release:
    """Close a session as it was ``seen`` before its client was asked, and give back what it holds (row 42).

    Nothing is debited; a report that comes all the same within ``late_termination_ms`` still is. ``on_plan`` is told
    what was written. Raises StoreError.
    """
    told = Release()

    def step(account: Account | None, _: Session | None) -> Plan:
        told.closed = told.moved = False
        told.amounts = ()
        if account is None:
            return Plan(None)
        draft = Draft(account, now_ms)
        session = draft.session(seen.session_id)
        if session is None:
            return Plan(None)
        if progress(session) != progress(seen):
            told.moved = True
            return Plan(None)
        told.closed, told.currency = True, account.currency
        told.amounts = _reserved(draft, session)
        draft.release_session(session)
        records = cdr.closing_records(draft, session, CLIENT_LOST)
        draft.close(session)
        plan = make_plan(draft, "release-session", (session.session_id,), None, records)
        session.state = SessionState.EXPIRED
        plan.ended = session
        plan.ended_ttl_ms = late_termination_ms
        plan.closed = session.session_id
        return plan

    plan = await store.commit(account_id, step)
    if told.closed:
        on_plan(plan)
    return told


def _reserved(draft: Draft, session: Session) -> tuple[tuple[int, int], ...]:
    amounts: dict[int, int] = {}
    for use in session.services:
        for bucket_id, amount in use.parts:
            unit = draft.bucket(bucket_id).unit
            amounts[unit] = amounts.get(unit, 0) + amount
    return tuple(sorted(amounts.items()))


async def standing_has_changed(store: Store, account_id: bytes, subscriber_id: bytes = b"") -> int:
    """Have the sessions on an account ask anew, now that its state has changed, or that of a subscriber: only its own.

    What they report is charged, and what follows is granted or refused by the new state (``occ.lifecycle``). Nothing is
    waited for; how many sessions. Raises StoreError.
    """
    account = await directory.read_account(store, account_id)
    sessions = [] if account is None else account.sessions.values()
    concerned = [session for session in sessions if subscriber_id in (b"", session.subscriber_id)]
    for session in concerned:
        request = ServerRequest(Command.RE_AUTH, account_id, session.session_id)
        await tell(store, pack_request(request, session.origin_host, session.via))
    return len(concerned)


async def credit_has_come(store: Store, account_id: bytes) -> int:
    """Have the sessions whose credit was used up ask anew, now that there is some again (RFC 8506 section 5.6.4).

    Nothing is waited for; how many sessions. Raises StoreError.
    """
    account = await directory.read_account(store, account_id)
    sessions = [] if account is None else account.sessions.values()
    waiting = [session for session in sessions if any(use.final for use in session.services)]
    for session in waiting:
        request = ServerRequest(Command.RE_AUTH, account_id, session.session_id)
        await tell(store, pack_request(request, session.origin_host, session.via))
    return len(waiting)
