"""Answering while the store cannot be reached: from a journal on disk, settled exactly once when the store is back.

What the catalogue allows (``when_store_is_away``) is granted by ``occ.away_grants``; each answer leaves when its entry
is on disk (``occ.away_journal``). The disk is waited for in a thread, one write and one fsync for all that came in
meanwhile, so no request waits for that of another. When the store is back, the entries are charged by
``occ.away_settling``, those of one session in the order in which they were answered; newer requests of such a session
wait until it is done.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from balance import answers
from balance.journal import entries, read_record
from balance.plans import Outcome
from balance.records import pack_outcome, unpack_outcome
from balance.resp import StoreError
from occ.away_grants import Known, Outage, Refused, decide
from occ.away_journal import AwayJournal, AwayJournalError, Entry, entry_record, settled_record
from occ.away_settling import Result, Settling, mark
from occ.charging import UNREACHABLE, Charging, OnOutcome, request_kind, session_key
from occ.codes import EVENT, INITIAL, TERMINATION, TOO_BUSY, UNKNOWN_SESSION_ID, UPDATE
from occ.profiles import Profile
from protocols.credit_control import CreditControlRequest, decode_request
from protocols.diameter.errors import DiameterError

log = logging.getLogger("occ.away")

LOOK_S: Final = 0.1
"""Between two looks whether the store is there."""
SESSIONS_AT_ONCE: Final = 200
"""Settled beside each other."""
HELD_A_SESSION: Final = 16
"""Newer requests of a session that wait until its entries are settled; further ones are answered 3004."""
PATIENCE_MS: Final = 60_000
"""How long entries of a session that the store does not know wait for another server to settle its beginning."""
ASK_AGAIN_MS: Final = 1_000
UNDER_WAY_MS: Final = 60_000
"""By so much, at most, a commit can have been earlier than its request's entry, or later, by the clock of Redis."""
MARKS_AT_ONCE: Final = 500
MARKS_REMEMBERED: Final = 1_000_000

_E164: Final = 0


@dataclass(slots=True)
class AwayStatistics:
    """Counted since this worker started."""

    outages: int = 0
    answered: int = 0
    repeated: int = 0
    """Requests that were answered from the journal before."""
    grants: Counter[str] = field(default_factory=Counter)
    """By service."""
    units: Counter[str] = field(default_factory=Counter)
    refused: Counter[Refused] = field(default_factory=Counter)
    settled: Counter[Result] = field(default_factory=Counter)
    leaked_micro: int = 0
    """Price of what was answered and no balance covered when it was settled."""
    waiting: int = 0
    """Entries that are not settled."""


class _Pending:
    """An entry that is not settled."""

    __slots__ = ("asked_by", "entry", "kind", "outcome", "written")

    def __init__(self, entry: Entry, kind: int, outcome: Outcome, written: bool) -> None:
        self.entry = entry
        self.kind = kind
        """What tells requests of a session apart (``balance.answers.answer_key``)."""
        self.outcome = outcome
        self.written = written
        self.asked_by: list[OnOutcome] = []
        """Who is answered once it is on disk."""


class _Session:
    __slots__ = ("client", "entries", "held", "next_ms", "since_ms")

    def __init__(self, client: bytes) -> None:
        self.client = client
        """Origin-Host, in small letters: nobody else hears its answers, or goes on with it."""
        self.entries: deque[_Pending] = deque()
        self.held: list[tuple[Callable[[], None], OnOutcome]] = []
        """Newer requests: how to begin them, and how to refuse them."""
        self.since_ms = 0
        """Since when the store does not know it; 0: it was not asked, or does."""
        self.next_ms = 0
        """When it is tried again."""

    def find(self, request: CreditControlRequest) -> _Pending | None:
        """The very same request."""
        kind = _kind(request)
        if request.origin_host.lower() != self.client:
            return None
        for pending in self.entries:
            if pending.kind == kind:
                return pending
        return None


def _kind(request: CreditControlRequest) -> int:
    return answers.answer_key(request_kind(request), request.request_number)


class Away:
    """Stands in for the store of one worker. All but the disk runs in the event loop.

    ``profile_named``: the profile of that name, or one that will do. ``most_octets``: the journal grows no further.
    ``server``: Origin-Host of the server whose journal it is. ``statistics``: where it counts, if not by itself.
    """

    def __init__(
        self,
        charging: Charging,
        journal: AwayJournal,
        profile_named: Callable[[str], Profile],
        clock: Callable[[], int],
        server: str,
        most_octets: int,
        statistics: AwayStatistics | None = None,
    ) -> None:
        self.statistics = AwayStatistics() if statistics is None else statistics
        self.sessions: dict[bytes, _Session] = {}
        """Those with entries that are not settled."""
        self.outage: Outage | None = None
        self._charging = charging
        self._store = charging.store
        self._journal = journal
        self._profile_named = profile_named
        self._clock = clock
        self._server = server
        self._most_octets = most_octets
        self._number = journal.last_number
        self._thread = ThreadPoolExecutor(1, "away")
        self._to_write: list[tuple[tuple[Any, ...], Callable[[bool], None] | None]] = []
        self._octets_to_write = 0
        self._is_writing = False
        self._granting = False
        self._is_closed = False
        self._marks: list[bytes] = []
        """Keys in the store that are not needed once the journal has begun anew."""
        self._in_file = bool(journal.last_number)
        """There are entries in the file, settled or not."""
        self._sweeping: asyncio.Task[None] | None = None
        self._one_search = asyncio.Lock()
        """A look into the ledger's journal takes a while, and is not urgent."""
        if journal.torn is not None:
            log.warning(
                "the end of the journal %s, %d octets, was never written in full, so nobody was answered: it is kept "
                "in %s",
                journal.path,
                journal.torn.octets,
                journal.torn.kept_in,
            )
        self._adopt(journal.waiting)

    # -- requests ----------------------------------------------------------------------------------------------------

    def holds(self, request: CreditControlRequest) -> bool:
        """Whether the request is of a session that is not settled: then ``in_turn`` is to have it."""
        return session_key(request) in self.sessions

    def in_turn(
        self,
        request: CreditControlRequest,
        message: bytes,
        profile: Profile,
        via: bytes,
        begin: Callable[[], None],
        done: OnOutcome,
    ) -> None:
        """Answer a request of such a session, or have it ``begin`` when its turn has come."""
        session = self.sessions[session_key(request)]
        if session.find(request) is None and self._store.available:
            if session.since_ms or len(session.held) >= HELD_A_SESSION:
                done(Outcome(TOO_BUSY))
            else:
                session.held.append((begin, done))
        elif not self.take(request, message, profile, via, done):
            done(Outcome(TOO_BUSY))

    def take(
        self, request: CreditControlRequest, message: bytes, profile: Profile, via: bytes, done: OnOutcome
    ) -> bool:
        """Answer a request that the store could not be asked about; False: it is to be refused."""
        key = session_key(request)
        session = self.sessions.get(key)
        pending = None if session is None else session.find(request)
        if pending is not None:
            self.statistics.repeated += 1
            if pending.written:
                done(pending.outcome)
            else:
                pending.asked_by.append(done)
            return True
        if session is not None and session.client != request.origin_host.lower():
            return False
        known = self._known(request, key)
        if known.session is not None and known.session.origin_host.lower() != request.origin_host.lower():
            return False
        answered = self._answered_before(request, key, known)
        if answered is not None:
            done(answered)
            return True
        if known.session is not None and request.request_number <= known.session.forgotten_number:
            return False  # a repeat from long ago, which the store will know
        now_ms = self._clock()
        outage = self._begin(now_ms)
        if self._journal.octets + self._octets_to_write + len(message) >= self._most_octets:
            self.statistics.refused[Refused.JOURNAL] += 1
            return False
        decision = decide(request, profile, self._charging.rules, outage, known, now_ms)
        for reason in decision.refused:
            self.statistics.refused[reason] += 1
        if decision.outcome is None:
            return False
        self._count(request, decision.outcome)
        self._number += 1
        packed = pack_outcome(decision.outcome)
        entry = Entry(self._number, now_ms, via, profile.name, request.origin_state_id or 0, message, packed)
        pending = _Pending(entry, _kind(request), decision.outcome, written=False)
        pending.asked_by.append(done)
        if session is None:
            session = self.sessions[key] = _Session(request.origin_host.lower())
        session.entries.append(pending)
        self.statistics.waiting += 1
        self._in_file = True
        self._write(entry_record(entry), lambda is_written: self._written(key, pending, is_written))
        return True

    def _known(self, request: CreditControlRequest, key: bytes) -> Known:
        """What this worker remembers of who asks."""
        store = self._store
        kind = request.request_type
        known = Known(is_known=key in self.sessions)
        account_id = store.sessions.account_of(key) if kind in (UPDATE, TERMINATION) else None
        if account_id is None:
            for identity, value in request.subscriptions:
                number = value[1:] if identity == _E164 and value[:1] == b"+" else value
                subscriber = store.subscribers.remembered(identity, number)
                if subscriber is not None:
                    account_id, known.subscriber_id = subscriber.account_id, subscriber.subscriber_id
                    break
        if account_id is None:
            return known
        known.is_known = True
        known.account = account = store.snapshots.remembered(account_id)
        known.session = None if account is None else account.sessions.get(key)
        if known.session is not None:
            known.subscriber_id = known.session.subscriber_id
        return known

    def _answered_before(self, request: CreditControlRequest, key: bytes, known: Known) -> Outcome | None:
        """What the store has been seen to answer the very same request."""
        session = known.session
        if session is None:
            client, ended = self._store.sessions.answers_of_ended(key)
            kept = answers.find(ended, _kind(request)) if client.lower() == request.origin_host.lower() else None
            return None if kept is None else unpack_outcome(kept)
        if request.request_type == INITIAL and 0 < session.origin_state_id < (request.origin_state_id or 0):
            return None  # the client may have restarted: it is another session
        kept = answers.find(session.answers, _kind(request))
        return None if kept is None else unpack_outcome(kept)

    def _count(self, request: CreditControlRequest, outcome: Outcome) -> None:
        self.statistics.answered += 1
        catalogue = self._charging.rules.catalogue
        for grant in outcome.grants:
            if grant.units > 0:
                found, _ = catalogue.find(request, grant.rating_group, min(grant.service_identifiers, default=-1))
                name = "" if found is None else found.name
                self.statistics.grants[name] += 1
                self.statistics.units[name] += grant.units

    def _written(self, key: bytes, pending: _Pending, is_written: bool) -> None:
        pending.written = is_written
        asked_by, pending.asked_by = pending.asked_by, []
        if not is_written:
            session = self.sessions[key]
            session.entries.remove(pending)
            self.statistics.waiting -= 1
            self.statistics.refused[Refused.JOURNAL] += 1
            self._end_of_session(key, session)
        for done in asked_by:
            done(pending.outcome if is_written else Outcome(TOO_BUSY))

    # -- the outage --------------------------------------------------------------------------------------------------

    def _begin(self, now_ms: int) -> Outage:
        if self.outage is None:
            self.outage = Outage(now_ms)
            self.statistics.outages += 1
        return self.outage

    def _begin_granting(self) -> None:
        if not self._granting:
            self._granting = True
            names = [each.name for each in self._charging.rules.catalogue.services if each.away is not None]
            log.warning("the store is away: %s may be granted from the journal on disk", ", ".join(names))

    @property
    def is_granting(self) -> bool:
        """Whether anything may be granted from the journal now."""
        return self._granting

    @property
    def is_settling(self) -> bool:
        """Whether anything waits that can be settled soon; what another server has to begin is not."""
        return self._store.available and any(not session.since_ms for session in self.sessions.values())

    @property
    def journal_octets(self) -> int:
        """Size of the journal's file."""
        return self._journal.octets

    @property
    def services(self) -> list[str]:
        """Names of all services of the catalogue."""
        return [service.name for service in self._charging.rules.catalogue.services]

    def _look(self, now_ms: int) -> None:
        """Notice when the store is lost, and when granting begins and ends."""
        limits = [each.away for each in self._charging.rules.catalogue.services if each.away is not None]
        self._store.sessions.remembers_ended = bool(limits)
        if not self._store.available:
            self._let_nobody_wait()
            outage = self._begin(now_ms)
            longest_s = max((each.granting_s for each in limits), default=0)
            if bool(limits) and now_ms - outage.began_ms <= longest_s * 1000:
                self._begin_granting()
            elif self._granting:
                self._granting = False
                log.warning("the store has been away for %d s: nothing is granted any more", longest_s)
        elif self.outage is not None:
            if self._granting:
                self._granting = False
                log.warning("the store is back: %d requests are to be settled", self.statistics.waiting)
            if not self.sessions and not self._to_write and not self._is_writing:
                self.outage = None
                self._begin_journal_anew()

    # -- settling ----------------------------------------------------------------------------------------------------

    def _adopt(self, entries: list[Entry]) -> None:
        """Take up what an earlier process has left. Raises AwayJournalError for what is no request."""
        for entry in entries:
            try:
                request = decode_request(entry.message)
                outcome = unpack_outcome(entry.outcome)
            except (DiameterError, ValueError, TypeError) as error:
                raise AwayJournalError(
                    f"entry {entry.number} of the journal {self._journal.path} cannot be read ({error}); settle it "
                    "with the version that wrote it, or move the file away and keep it: it is then not charged"
                ) from error
            if self.outage is None:
                self.outage = Outage(entry.came_ms)
            self.outage.note_answer(request, outcome, self._charging.rules.catalogue)
            session = self.sessions.setdefault(session_key(request), _Session(request.origin_host.lower()))
            session.entries.append(_Pending(entry, _kind(request), outcome, written=True))
            self.statistics.waiting += 1

    async def settle_left(self) -> None:
        """Settle what an earlier process has left, as far as the store knows its sessions."""
        if not self.sessions:
            return
        log.warning("%d requests that were answered without the store are settled", self.statistics.waiting)
        while self._store.available and self._due():
            await self._settle()

    async def run(self) -> None:
        """Look after the store, and settle, until cancelled."""
        while True:
            self._look(self._clock())
            if self.sessions and self._store.available and self._due():
                await self._settle()
            else:
                await asyncio.sleep(LOOK_S)

    async def settle_all(self) -> None:
        """Settle everything, however long that takes, and take the journal away: its server answers nobody any more.

        Raises OSError if it cannot be taken away.
        """
        while self.sessions or self._to_write or self._is_writing:
            if self.sessions and self._store.available and self._due():
                await self._settle()
            else:
                await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(self._journal.remove)
        await self._sweep(self._marks)

    def _due(self) -> list[bytes]:
        now_ms = self._clock()
        return [key for key, session in self.sessions.items() if session.next_ms <= now_ms and session.entries]

    async def _settle(self) -> None:
        due = self._due()
        for at in range(0, len(due), SESSIONS_AT_ONCE):
            await asyncio.gather(*(self._settle_session(key) for key in due[at : at + SESSIONS_AT_ONCE]))
            if not self._store.available:
                return

    async def _settle_session(self, key: bytes) -> None:
        session = self.sessions.get(key)
        while session is not None and session.entries and session.entries[0].written:
            pending = session.entries[0]
            result, settling = await self._charge(pending.entry)
            if result is not Result.SETTLED and settling.reason == UNKNOWN_SESSION_ID and self._waits(session):
                result = Result.NOT_YET
            if result is Result.LOST:
                result = await self._record_loss(pending.entry, settling)
            if result is Result.NOT_YET:
                session.next_ms = max(session.next_ms, self._clock() + int(LOOK_S * 1000))
                break
            session.since_ms = session.next_ms = 0
            session.entries.popleft()
            self.statistics.waiting -= 1
            self.statistics.settled[result] += 1
            self.statistics.leaked_micro += settling.leaked_micro
            if settling.account_id is not None and len(self._marks) < MARKS_REMEMBERED:
                name = mark(self._journal.name, pending.entry.number)
                self._marks.append(self._store.keys.ended(settling.account_id, name))
            self._write(settled_record((pending.entry.number,)), None)
        else:
            if session is not None and session.entries:
                session.next_ms = self._clock() + 1  # it is on its way to the disk
        if session is not None:
            self._end_of_session(key, session)

    def _waits(self, session: _Session) -> bool:
        """Whether a session that the store does not know is waited for still."""
        now_ms = self._clock()
        session.since_ms = session.since_ms or now_ms
        session.next_ms = now_ms + ASK_AGAIN_MS
        return now_ms - session.since_ms < PATIENCE_MS

    def _end_of_session(self, key: bytes, session: _Session) -> None:
        """Let those begin that have waited, if nothing is left to settle; refuse them if that takes time."""
        held, session.held = session.held, []
        if not session.entries and self.sessions.get(key) is session:
            del self.sessions[key]
        for begin, done in held:
            if session.entries and self._store.available:
                done(Outcome(TOO_BUSY))
            else:
                begin()

    def _let_nobody_wait(self) -> None:
        """The store was lost again before these could begin: they are answered without it, like those that come now."""
        for session in list(self.sessions.values()):
            held, session.held = session.held, []
            for _, done in held:
                done(UNREACHABLE)

    async def _charge(self, entry: Entry) -> tuple[Result, Settling]:
        future: asyncio.Future[tuple[Result, Settling]] = asyncio.get_running_loop().create_future()

        def done(settling: Settling, result: Result) -> None:
            if not future.done():
                future.set_result((result, settling))

        request = decode_request(entry.message)
        profile = self._profile_named(entry.profile)
        name = self._journal.name
        label = f"away;{self._server};{name.hex()[:8]}"
        now_ms = self._clock()
        settling = Settling(self._charging, name, label, entry, request, profile, now_ms, done)
        forgotten_ms = entry.came_ms + self._charging.rules.settings.refund_window_ms - 2 * UNDER_WAY_MS
        if request.request_type == EVENT and now_ms > forgotten_ms:
            # A debit that was written as the store was lost is not known by its session any more.
            try:
                if await self._is_in_ledger(entry, settling):
                    return Result.REPEATED, settling
            except StoreError:
                return Result.NOT_YET, settling
        settling.begin()
        return await future

    async def _record_loss(self, entry: Entry, settling: Settling) -> Result:
        """Enter into the outbox what nobody could be debited for. Read twice it has one ``record_id``."""
        store = self._store
        try:
            if not settling.was_written:
                if settling.reason == UNKNOWN_SESSION_ID and await self._is_in_ledger(entry, settling):
                    return Result.REPEATED
                outbox = store.keys.outbox(store.keys.lanes()[0])
                await store.call("XADD", outbox, "*", "c", settling.lost_record())
        except StoreError as error:
            log.warning("a charging data record of what could not be charged waits: %s", error)
            return Result.NOT_YET
        log.error(
            "request %d of session %r was answered without the store and cannot be charged (%s): its charging data "
            "record says what it reported",
            settling.request.request_number,
            settling.key,
            settling.reason or "a service is not sold to the subscriber",
        )
        return Result.LOST

    async def _is_in_ledger(self, entry: Entry, settling: Settling) -> bool:
        """Whether a request was charged as the store was lost, and all that it keeps for repeats has expired since.

        Raises StoreError.
        """
        keys = self._store.keys
        request = settling.request
        wanted = (settling.key, request.request_type, request.request_number)
        after, until = (b"%d-0" % max(0, entry.came_ms + ms) for ms in (-UNDER_WAY_MS, UNDER_WAY_MS))
        async with self._one_search:
            for lane in keys.lanes():
                async for page in entries(self._store, lane, after, until):
                    for entry_id, packed in page:
                        for each in packed:
                            if settling.key in each and read_record(entry_id, each).reason[:3] == wanted:
                                return True
        return False

    # -- the disk ----------------------------------------------------------------------------------------------------

    def _write(self, record: tuple[Any, ...], done: Callable[[bool], None] | None) -> None:
        self._to_write.append((record, done))
        self._octets_to_write += 100 + (len(record[6]) + len(record[7]) if record[0] == "e" else 0)
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._write_all)

    def _write_all(self) -> None:
        """Write what has gathered, in the thread; what comes meanwhile is written next."""
        if self._is_closed:
            return
        batch, self._to_write = self._to_write, []
        self._octets_to_write = 0
        work = self._thread.submit(self._journal.append, [record for record, _ in batch])
        loop = asyncio.get_running_loop()
        work.add_done_callback(lambda future: loop.call_soon_threadsafe(self._on_written, batch, future))

    def _on_written(
        self, batch: list[tuple[tuple[Any, ...], Callable[[bool], None] | None]], future: "Future[None]"
    ) -> None:
        error = future.exception()
        if error is not None and batch:
            log.error("the journal %s cannot be written: %s", self._journal.path, error)
        self._is_writing = bool(self._to_write)
        if self._to_write:
            self._write_all()
        for _, done in batch:
            if done is not None:
                done(error is None)

    def _begin_journal_anew(self) -> None:
        """All is settled: an empty file takes the place of the journal; the marks in the store are needed no more."""
        if not self._in_file:
            return
        self._in_file, self._is_writing = False, True
        marks, self._marks = self._marks, []
        work = self._thread.submit(self._journal.begin_anew)
        loop = asyncio.get_running_loop()
        work.add_done_callback(lambda future: loop.call_soon_threadsafe(self._on_begun, marks, future))

    def _on_begun(self, marks: list[bytes], future: "Future[None]") -> None:
        error = future.exception()
        if error is None:
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(marks))
        else:
            log.error("the journal %s cannot be begun anew: %s", self._journal.path, error)
            self._in_file = True
        self._on_written([], future)

    async def _sweep(self, marks: list[bytes]) -> None:
        """Take away what the store has kept of a journal that is no more; what is left goes by itself in time."""
        try:
            for at in range(0, len(marks), MARKS_AT_ONCE):
                await asyncio.gather(*(self._store.call("UNLINK", key) for key in marks[at : at + MARKS_AT_ONCE]))
        except StoreError as error:
            log.debug("marks of settled entries are left to expire: %s", error)

    def close(self) -> None:
        """Wait for the disk, and give the journal back. What is not settled is, after the next start."""
        self._is_closed = True
        self._thread.shutdown(wait=True)
        self._journal.close()
