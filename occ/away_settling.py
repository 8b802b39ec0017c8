"""Charging what was answered while the store could not be reached: as any request, but for its answer, which was given.

What a request reported is debited as far as the balance goes, and leaks beyond; what it was granted is reserved as far
as that can be; its session is opened, or goes on, whatever the account is like by now. The clock of the request is that
of the moment it came.

Each entry leaves a mark in the store, in the same script call as the money it moves, so that it moves it once, however
often and however late settling is begun anew.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Final

from balance import answers
from balance.accounts import Account, FinalUnits, ServiceUse, Session, SessionState
from balance.lane import ABSENT
from balance.ledger import Draft
from balance.model import Unit
from balance.plans import Lookup, Outcome, Plan
from balance.records import pack_outbox, unpack_outcome
from balance.resp import StoreError
from occ import cdr
from occ.away_journal import Entry
from occ.charging import Charge, Charging, session_key
from occ.codes import EVENT, INITIAL, TERMINATION, TOO_BUSY, UNABLE_TO_COMPLY, UPDATE
from occ.profiles import Profile
from occ.rating.catalogue import Catalogue
from occ.service_units import measure
from occ.services import RequestServices
from protocols.credit_control import CreditControlRequest, Units

log = logging.getLogger("occ.away")

MARK_KEPT_MS: Final = 30 * 86_400_000
"""How long the store remembers that an entry is settled. A server that was killed as it settled starts again before."""
ENDED_KEPT_MS: Final = 86_400_000
"""How long a session that ended while it was settled is known: another server may have entries of it, too."""

_MEASURED: Final = (int(Unit.OCTETS), int(Unit.SECONDS), int(Unit.EVENTS))


class Result(StrEnum):
    """What became of an entry."""

    SETTLED = "settled"
    REPEATED = "repeated"
    """The store knew the request already: from before the outage, by another server, or from an earlier settling."""
    VOID = "void"
    """It could not be charged, and had reported nothing."""
    LOST = "lost"
    """It could not be charged; what it had reported is in a charging data record of its own."""
    NOT_YET = "not-yet"
    """The store could not be reached, or does not know the session: another server may be about to settle that."""


class Settling(Charge):
    """One entry on its way through the ledger. ``given``: what was answered; ``done`` is called once.

    ``journal``: name of the journal that it is in; ``label`` stands for that in records of what cannot be charged.
    ``now_ms``: the time of settling, from which sessions are supervised.
    """

    __slots__ = (
        "_entry",
        "_journal",
        "_mark",
        "_on_result",
        "_packed",
        "_settled_ms",
        "_unsold",
        "account_id",
        "given",
        "leaked_micro",
        "reason",
    )

    def __init__(
        self,
        charging: Charging,
        journal: bytes,
        label: str,
        entry: Entry,
        request: CreditControlRequest,
        profile: Profile,
        now_ms: int,
        done: Callable[["Settling", Result], None],
    ) -> None:
        if request.origin_state_id is None and entry.origin_state_id:
            request.origin_state_id = entry.origin_state_id
        super().__init__(charging, request, profile, entry.via, entry.came_ms, self._refused_at_once)
        self.given = unpack_outcome(entry.outcome)
        self.reason = 0
        """Result-Code with which charging refused it; 0: it did not."""
        self.leaked_micro = 0
        """What no balance covered."""
        self._entry = entry
        self._journal = label
        self._packed = entry.outcome
        self._on_result = done
        self._settled_ms = now_ms
        self._mark = mark(journal, entry.number)
        self.account_id: bytes | None = None
        """The account that is charged; None: that is not known. Beside it the store has no mark of the entry."""
        self._unsold = False
        _ask_for_what_was_given(request, self.given)

    # -- what came of it -------------------------------------------------------------------------------------------

    def _end(self, result: Result) -> None:
        on_result = self._on_result
        # Both would close a cycle, and nothing collects these while the server runs.
        self._done, self._on_result = _nothing, _no_result
        on_result(self, result)

    def _refused_at_once(self, outcome: Outcome) -> None:
        """No plan was made, or it came to nothing."""
        if outcome.result_code == TOO_BUSY:
            self._end(Result.NOT_YET)
            return
        self.reason = outcome.result_code
        self._end(Result.LOST if reports(self.request) else Result.VOID)

    def _on_plan(self, result: Plan | StoreError) -> None:
        if isinstance(result, StoreError):
            super()._on_plan(result)
        elif result.replayed:
            self._end(Result.REPEATED)
        elif not result.journal and result.ended is None:
            super()._on_plan(result)
        else:
            self.charging.statistics.add(result)
            if result.spent:
                self.rules.budgets.add(result.spent)
            self.leaked_micro = result.leaked_micro
            lost = self._unsold and reports(self.request)
            self._end(Result.LOST if lost else Result.SETTLED)

    # -- the decision ----------------------------------------------------------------------------------------------

    def step(self, account: Account | None, ended: Session | None) -> Plan | Lookup:
        if account is None:
            return super().step(account, ended)
        if ended is not None and ended.session_id == self._mark:
            return Plan(self.given, replayed=True)
        if self.account_id != account.account_id:
            if ended is not ABSENT:
                return Lookup(self._mark)
            self.account_id, ended = account.account_id, None
        self._unsold = False
        session = account.sessions.get(self.key, ended)
        if session is None or session is ABSENT or session.session_id != self.key or self._is_its_client(session):
            plan = self._known(account, ended) or self._charged(account, ended)
        else:
            plan = super().step(account, ended)  # which refuses it
        if isinstance(plan, Plan) and (plan.account is not None or plan.ended is not None):
            plan.mark, plan.mark_ttl_ms = self._mark, MARK_KEPT_MS
            if plan.ended is not None:
                plan.ended_ttl_ms = max(plan.ended_ttl_ms, ENDED_KEPT_MS)
        return plan

    def _known(self, account: Account, ended: Session | None) -> Plan | None:
        """Of a request that was charged before: its answer becomes the one that was given, and nothing else happens."""
        session = account.sessions.get(self.key, ended)
        if session is None or session is ABSENT or session.session_id != self.key:
            return None
        if self.request.request_type == INITIAL and self._client_restarted(session):
            return None
        key = answers.answer_key(self.kind, self.request.request_number)
        kept = answers.find(session.answers, key)
        if kept is None:
            return None
        if kept == self._packed:
            return Plan(self.given, replayed=True)
        if session.state == SessionState.REFUSED:
            return None  # the client was granted what the store had refused: the session is to be opened after all
        if self.key not in account.sessions:
            plan = Plan(self.given, replayed=True)
            plan.expected_version = account.version
            plan.ended = session.copy()
            plan.ended.answers = answers.exchanged(session.answers, key, self._packed)
            plan.ended_ttl_ms = self.rules.settings.late_termination_ms
            return plan
        draft = Draft(account, self.now_ms)
        own = draft.session(self.key)
        assert own is not None
        own.answers = answers.exchanged(own.answers, key, self._packed)
        plan = self._plan(draft, "answer", self.given, ())
        plan.replayed = True
        return plan

    def _charged(self, account: Account, ended: Session | None) -> Plan | Lookup:
        kind = self.request.request_type
        if ended is not None and ended is not ABSENT and self.key not in account.sessions:
            if kind == INITIAL and ended.state == SessionState.REFUSED:
                return self._initial(Draft(account, self.now_ms))
            if kind in (UPDATE, TERMINATION) and ended.state == SessionState.CLOSED:
                return self._after_its_end(account, ended)
        return super().step(account, ended)

    def _after_its_end(self, account: Account, ended: Session) -> Plan:
        """Its client ended the session by a request that another server settled first: what came before counts, too."""
        if self.request.request_number <= ended.forgotten_number and self.request.request_type != TERMINATION:
            return Plan(Outcome(UNABLE_TO_COMPLY))
        session = ended.copy()
        session.facts = cdr.facts(self.request)
        plan = super()._late(account, session)
        assert plan.ended is not None
        self._keep_ended(plan, plan.ended, SessionState.CLOSED)
        return plan

    def _late(self, account: Account, ended: Session) -> Plan:
        """Supervision ended it while nobody could tell the store that it goes on: it does."""
        if self.request.request_type == TERMINATION:
            return super()._late(account, ended)
        reopened = ended.copy()
        reopened.state = SessionState.OPEN
        reopened.services = [use.copy() for use in ended.services]
        before = replace(account, sessions={**account.sessions, self.key: reopened})
        plan = self._continue(before)
        plan.sessions_delta += 1
        if not plan.closed:
            plan.opened = self.key
        return plan

    def _event(self, draft: Draft) -> Plan:
        session = self._new_session()
        services = self._services(draft, session)
        for part, grant in zip(services.parts, self.given.grants, strict=True):
            use = part.use
            if use is not None and grant.units > 0:
                if services.policies is not None:
                    services.decided(part, use)
                draft.taken = []
                services.pricing.aligned(use, part.rate)
                services.pricing.settle(use, part.rate, grant.units)
                use.parts, draft.taken = draft.taken, None
        self._remember(session, self.given)
        records = cdr.closing_records(draft, session, cdr.EVENT)
        plan = self._plan(draft, "debit", self.given, records)
        session.state = SessionState.CLOSED
        session.facts = b""
        plan.ended, plan.ended_ttl_ms = session, self.rules.settings.refund_window_ms
        return plan

    def _services(self, draft: Draft, session: Session) -> RequestServices:
        services = super()._services(draft, session)
        for part in services.parts:
            if part.use is None:
                self._unsold = True
        return services

    def _outcome(self, services: RequestServices, refuse_if_none: bool) -> Outcome:  # noqa: ARG002 - it was decided when it was answered
        """What was answered, whatever charging comes to."""
        for part, grant in zip(services.parts, self.given.grants, strict=False):
            if part.use is None:
                continue
            if grant.final:
                part.use.final = int(FinalUnits.GRANTED)
            if not part.service.charges_overshoot and part.use.granted < grant.units:
                part.use.granted = grant.units  # the client did not use more than it was granted
        return unpack_outcome(self._packed)

    def _plan(
        self,
        draft: Draft,
        operation: str,
        outcome: Outcome | None,
        records: tuple[bytes, ...],
        acted: tuple[str, ...] = (),
    ) -> Plan:
        if self._unsold and reports(self.request):
            # With the money of its other services: once the entry has its mark, nobody would come back to it.
            records += self._uncharged()
        return super()._plan(draft, operation, outcome, records, acted)

    def _uncharged(self) -> tuple[bytes, ...]:
        return uncharged_records(self._entry, self.request, self._journal, self.rules.catalogue)

    def lost_record(self) -> bytes:
        """An outbox entry: what the entry reported and nobody could be debited for."""
        return pack_outbox(self._uncharged())

    @property
    def was_written(self) -> bool:
        """What came of it is in the store, with the records of what could not be charged."""
        return self.reason == 0

    def _remember(self, session: Session, outcome: Outcome) -> None:  # noqa: ARG002 - see _outcome
        super()._remember(session, self.given)

    def _supervised_until(self, services: RequestServices, outcome: Outcome, longest_s: int) -> int:
        return super()._supervised_until(services, outcome, longest_s) + max(0, self._settled_ms - self.now_ms)


def _nothing(_: Outcome) -> None:
    """Told what nobody waits for any more."""


def _no_result(_: Settling, __: Result) -> None:
    """As ``_nothing``."""


def mark(journal: bytes, number: int) -> bytes:
    """What the store keeps of an entry that is settled."""
    return b"away;%b;%d" % (journal.hex().encode(), number)


def reports(request: CreditControlRequest) -> bool:
    """Whether there is anything in a request to be debited."""
    return request.request_type == EVENT or bool(request.used) or any(each.used for each in request.services)


def _ask_for_what_was_given(request: CreditControlRequest, given: Outcome) -> None:
    """Have the request ask for the units that it was granted, so that these are reserved."""
    if request.request_type == EVENT:
        return
    grants = given.grants
    if not request.services:
        if request.requested is not None:
            request.requested = _units(grants[0].unit, grants[0].units) if grants else None
        return
    request.services = tuple(
        replace(each, requested=_units(grant.unit, grant.units))
        for each, grant in zip(request.services, grants, strict=True)
    )


def _units(unit: int, units: int) -> Units | None:
    if units <= 0:
        return None
    if unit == Unit.OCTETS:
        return Units(total_octets=units)
    return Units(time=units) if unit == Unit.SECONDS else Units(service_specific=units)


# -- what cannot be charged ------------------------------------------------------------------------------------------


def uncharged_records(
    entry: Entry, request: CreditControlRequest, journal: str, catalogue: Catalogue
) -> tuple[bytes, ...]:
    """The packed charging data records of what a request reported and nobody could be debited for.

    ``journal``: names the server whose journal it was in; it stands where the account would.
    """
    account = Account(journal.encode(), entry.number - 1, 0, catalogue.currency, 0, 0, [], {})
    number = request.request_number
    session = Session(
        session_key(request),
        b"",
        "",
        request.origin_host,
        0,
        entry.came_ms,
        entry.came_ms,
        facts=cdr.facts(request),
        realm=request.origin_realm,
        requests=1,
        first_number=number,
        answers=answers.add(b"", answers.answer_key(request.request_type, number), b"", 0),
        catalogue=catalogue.edition,
    )
    for rating_group, identifier, unit, units in _reported(entry, request):
        found, _ = catalogue.find(request, rating_group, identifier)
        if units and (found is None or found.unit == unit):
            name = "" if found is None else found.name
            session.services.append(ServiceUse(rating_group, identifier, name, unit, used=units))
    return cdr.closing_records(Draft(account, entry.came_ms), session, cdr.UNCHARGED)


def _reported(entry: Entry, request: CreditControlRequest) -> Iterator[tuple[int, int, int, int]]:
    """(Rating-Group or -1, Service-Identifier or -1, Unit, units) of all that a request reports, in every unit."""
    if request.request_type == EVENT:
        for grant in unpack_outcome(entry.outcome).grants:
            yield grant.rating_group, min(grant.service_identifiers, default=-1), grant.unit, max(0, grant.units)
        return
    asked = [(each.rating_group, each.service_identifiers, each.used) for each in request.services]
    if not request.services:
        asked.append((None, () if request.service_identifier is None else (request.service_identifier,), request.used))
    for group, identifiers, used in asked:
        for unit in _MEASURED:
            units = sum(measure(each, unit) or 0 for each in used)
            yield -1 if group is None else group, min(identifiers, default=-1), unit, units
