"""Session and event charging: find the account, rate, reserve and debit, all in one plan (RFC 8506, TS 32.299).

``Charging.charge`` takes a decoded Credit-Control-Request and calls back with the ``Outcome`` to answer. The decision
itself is ``Charge.step``: pure, from the account's snapshot to a ``Plan``, called again when the snapshot was stale.

A request is known by its Session-Id, CC-Request-Type and CC-Request-Number: answered once, the same answer ever after
(RFC 8506 appendix C.3; conformance row 16), while the session runs and for some minutes after it ended.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from balance.ledger import (
    Draft,
    has_more,
    release,
    reserve,
    settle,
)
from balance.model import (
    Account,
    Grant,
    Lookup,
    Outcome,
    Plan,
    Rate,
    ServiceUse,
    Session,
    SessionState,
    Subscriber,
    Unit,
)
from balance.records import make_plan, pack_outcome, unpack_outcome
from balance.resp import StoreError
from balance.store import ABSENT, Store
from occ import cdr
from occ.rating.catalogue import Catalogue, Service
from occ.rating.price import CLIENT_RATED, FreePrice, price_of, terms
from occ.service_units import believable, event_units, in_money, money_of, units_reported, units_wanted
from protocols.credit_control import CreditControlRequest, ServiceRequest
from protocols.diameter.codec import avp

log = logging.getLogger("occ.charging")

INITIAL: Final = 1
UPDATE: Final = 2
TERMINATION: Final = 3
EVENT: Final = 4
DIRECT_DEBITING: Final = 0
REFUND_ACCOUNT: Final = 1
CHECK_BALANCE: Final = 2
PRICE_ENQUIRY: Final = 3

ENOUGH_CREDIT: Final = 0
NO_CREDIT: Final = 1

SUCCESS: Final = 2001
TOO_BUSY: Final = 3004
END_USER_SERVICE_DENIED: Final = 4010
CREDIT_LIMIT_REACHED: Final = 4012
UNKNOWN_SESSION_ID: Final = 5002
INVALID_AVP_VALUE: Final = 5004
UNABLE_TO_COMPLY: Final = 5012
USER_UNKNOWN: Final = 5030
RATING_FAILED: Final = 5031

ANSWERS_KEPT: Final = 64
"""Outcomes an open session remembers at most, however fast its requests come."""

SERVICES_A_SESSION: Final = 256
"""Rating-Groups and Service-Identifiers one session may use; bounds what one client can make an account hold."""

_E164: Final = 0

OnOutcome = Callable[[Outcome], None]


@dataclass(slots=True, frozen=True)
class ChargingSettings:
    answer_replay_ms: int = 300_000
    """How long the answers of an ended session are kept; RFC 6733 section 5.5.4 asks for four minutes at least."""
    late_termination_ms: int = 3_600_000
    """How long a termination may come after supervision ended its session and still be debited."""
    tcc_factor: int = 2
    """Supervision time as a multiple of the Validity-Time, RFC 8506 section 13."""


@dataclass(slots=True)
class ChargingStatistics:
    """Counted since this worker started; open sessions and reservations from what stood open then."""

    debited_micro: int = 0
    leaked_micro: int = 0
    open_sessions: int = 0
    open_reservations: int = 0
    expired_sessions: int = 0
    replayed: int = 0
    late_terminations: int = 0
    disbelieved_reports: int = 0

    def add(self, plan: Plan) -> None:
        """Count a plan that was written."""
        self.debited_micro += plan.debited_micro
        self.leaked_micro += plan.leaked_micro
        self.open_sessions += plan.sessions_delta
        self.open_reservations += plan.reservations_delta
        self.disbelieved_reports += plan.disbelieved_reports
        self.replayed += plan.replayed
        self.late_terminations += plan.late


class Charging:
    """Charges requests against the accounts of one store with the prices of one catalogue."""

    def __init__(self, store: Store, catalogue: Catalogue, settings: ChargingSettings) -> None:
        self.store = store
        self.catalogue = catalogue
        self.settings = settings
        self.statistics = ChargingStatistics()

    def charge(self, request: CreditControlRequest, now_ms: int, done: OnOutcome) -> None:
        """Charge one request; ``done`` is called once, when what it says is on disk.

        A store that cannot be reached gives DIAMETER_TOO_BUSY, so that the client fails over by its own rules.
        """
        Charge(self, request, now_ms, done).begin()


class Charge:
    """One request on its way through the ledger."""

    __slots__ = (
        "_done",
        "_identity",
        "charging",
        "key",
        "now_ms",
        "request",
        "subscriber",
    )

    def __init__(self, charging: Charging, request: CreditControlRequest, now_ms: int, done: OnOutcome) -> None:
        self.charging = charging
        self.request = request
        self.now_ms = now_ms
        self._done = done
        self._identity = 0
        self.subscriber: Subscriber | None = None
        key = request.session_id
        if request.sub_session_id is not None:
            key += b"\0%d" % request.sub_session_id  # RFC 8506 section 8.5: sub-sessions are sessions of their own
        self.key = key

    # -- who pays ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        kind = self.request.request_type
        action = self.request.requested_action or DIRECT_DEBITING
        if kind == EVENT and action == REFUND_ACCOUNT:
            failed = avp("Requested-Action", action)
            self._done(Outcome(INVALID_AVP_VALUE, failed_avp=failed))
            return
        if kind == UPDATE or kind == TERMINATION:
            account_id = self.charging.store.account_of_session(self.key)
            if account_id is not None:
                self.charging.store.transact(account_id, self.step, self._on_plan)
                return
        self._find_subscriber()

    def _find_subscriber(self) -> None:
        """Try the Subscription-Ids in the order they were sent."""
        subscriptions = self.request.subscriptions
        if self._identity < len(subscriptions):
            kind, value = subscriptions[self._identity]
            if kind == _E164 and value[:1] == b"+":
                value = value[1:]
            self.charging.store.find_subscriber(kind, value, self.now_ms, self._on_subscriber)
        elif self.request.request_type in (UPDATE, TERMINATION):
            self.charging.store.find_session(self.key, self._on_session)
        else:
            self._done(Outcome(USER_UNKNOWN))

    def _on_subscriber(self, found: Subscriber | StoreError | None) -> None:
        if isinstance(found, Subscriber):
            self.subscriber = found
            self.charging.store.transact(found.account_id, self.step, self._on_plan)
        elif found is None:
            self._identity += 1
            self._find_subscriber()
        else:
            self._done(Outcome(TOO_BUSY))

    def _on_session(self, account_id: bytes | StoreError | None) -> None:
        if isinstance(account_id, bytes):
            self.charging.store.transact(account_id, self.step, self._on_plan)
        else:
            self._done(Outcome(UNKNOWN_SESSION_ID if account_id is None else TOO_BUSY))

    def _on_plan(self, result: Plan | StoreError) -> None:
        if isinstance(result, StoreError):
            if result.__cause__ is None:
                self._done(Outcome(TOO_BUSY))
            else:
                log.error("session %r could not be charged", self.key, exc_info=result.__cause__)
                self._done(Outcome(UNABLE_TO_COMPLY))
            return
        assert result.outcome is not None
        self.charging.statistics.add(result)
        if result.disbelieved_reports:
            log.warning("session %r reports usage that cannot be true; its records tell how much", self.key)
        self._done(result.outcome)

    # -- the decision --------------------------------------------------------------------------------------------

    def step(self, account: Account | None, ended: Session | None) -> Plan | Lookup:
        """What the request does to the account: pure, may be called again with a fresher snapshot."""
        if account is None:
            return Plan(Outcome(USER_UNKNOWN))
        request = self.request
        kind = request.request_type
        session = account.sessions.get(self.key)
        if session is None:
            session = ended
        if session is not None and session is not ABSENT:
            if kind == INITIAL and self._client_restarted(session):
                return self._begin_anew(account)  # its CC-Request-Number is 0 again, which is no repeat
            kept = session.answer(kind, request.request_number)
            if kept is not None:
                return Plan(unpack_outcome(kept), replayed=True)
            if request.request_number <= session.forgotten_number and kind != TERMINATION:
                return Plan(Outcome(UNABLE_TO_COMPLY))  # a repeat from long ago: debit nothing, grant nothing
        if self.key in account.sessions:
            if kind == INITIAL or kind == EVENT:
                return Plan(Outcome(UNABLE_TO_COMPLY))
            return self._continue(account)
        if kind == INITIAL or kind == EVENT:
            if ended is not None and ended is not ABSENT:
                return Plan(Outcome(UNABLE_TO_COMPLY))
            if account.currency != self.charging.catalogue.currency:
                return Plan(Outcome(RATING_FAILED))  # its money is not the money the prices are in
            plan = (
                self._event(Draft(account, self.now_ms))
                if kind == EVENT
                else self._initial(Draft(account, self.now_ms))
            )
            plan.first_of = self.key
            return plan
        if ended is None:
            return Lookup(self.key)
        if ended.state == SessionState.EXPIRED and ended is not ABSENT:
            return self._late(account, ended)
        return Plan(Outcome(UNKNOWN_SESSION_ID))

    def _client_restarted(self, session: Session) -> bool:
        """Row 22: the client lost its state since it began the session, as a raised Origin-State-Id tells.

        Nothing can be inferred where either is absent (RFC 6733 section 8.16).
        """
        return 0 < session.origin_state_id < (self.request.origin_state_id or 0)

    def _begin_anew(self, account: Account) -> Plan:
        """Close the session if it is still open, and open it again."""
        draft = Draft(account, self.now_ms)
        session = draft.session(self.key)
        if session is None:
            return self._initial(draft)
        draft.release_session(session)
        records = cdr.closing_records(session, self.now_ms, cdr.CLIENT_RESTARTED)
        draft.close(session)
        plan = self._initial(draft, records)
        if not plan.opened:
            plan.closed = self.key
        return plan

    def _initial(self, draft: Draft, records: tuple[bytes, ...] = ()) -> Plan:
        session = self._new_session()
        outcome, longest_s = self._answer_services(draft, session)
        if outcome.result_code != SUCCESS:
            return self._refused(draft, session, outcome, records)
        self._remember(session, outcome)
        session.expires_ms = self.now_ms + longest_s * 1000 * self.charging.settings.tcc_factor
        draft.open(session)
        plan = self._plan(draft, "reserve", outcome, records)
        plan.opened = self.key
        return plan

    def _refused(self, draft: Draft, session: Session, outcome: Outcome, records: tuple[bytes, ...]) -> Plan:
        """Nothing was reserved, no session opened; only the answer is kept for a repeat."""
        plan = self._plan(draft, "refuse", outcome, records) if records else Plan(outcome)
        plan.expected_version = draft.before.version
        self._remember(session, outcome)
        self._keep_ended(plan, session, SessionState.REFUSED)
        return plan

    def _continue(self, account: Account) -> Plan:
        """An update or termination of an open session."""
        draft = Draft(account, self.now_ms)
        session = draft.session(self.key)
        assert session is not None
        outcome, longest_s = self._answer_services(draft, session)
        if self.request.request_type == TERMINATION:
            outcome.cost_micro = sum(use.debited_micro for use in session.services)  # RFC 8506 section 5.4
        self._remember(session, outcome)
        # RFC 8506 section 7 table 6: a termination ends the session, and so does a failure at command level.
        if self.request.request_type != TERMINATION and outcome.result_code == SUCCESS:
            session.expires_ms = self._supervised_until(session, outcome, longest_s)
            return self._plan(draft, "charge", outcome, ())
        draft.release_session(session)
        records = cdr.closing_records(session, self.now_ms, cdr.NORMAL)
        draft.close(session)
        plan = self._plan(draft, "terminate", outcome, records)
        plan.closed = self.key
        self._keep_ended(plan, session, SessionState.CLOSED)
        return plan

    def _supervised_until(self, session: Session, outcome: Outcome, longest_s: int) -> int:
        """When supervision ends: not before the grants of services that this request did not name lapse."""
        until_ms = self.now_ms + longest_s * 1000 * self.charging.settings.tcc_factor
        if until_ms < session.expires_ms:
            named = {grant.rating_group for grant in outcome.grants}
            if any(use.granted and use.rating_group not in named for use in session.services):
                return session.expires_ms
        return until_ms

    def _late(self, account: Account, ended: Session) -> Plan:
        """Row 22: usage reported after supervision ended the session is debited once all the same."""
        draft = Draft(account, self.now_ms)
        session = ended.copy()
        ends = self.request.request_type == TERMINATION
        outcome, _ = self._answer_services(draft, session, late=True)
        if not ends:
            outcome = Outcome(UNKNOWN_SESSION_ID)
        self._remember(session, outcome)
        records = cdr.late_records(ended, session, self.now_ms)
        plan = self._plan(draft, "late-charge", outcome, records)
        self._keep_ended(plan, session, SessionState.CLOSED if ends else SessionState.EXPIRED)
        plan.late = True
        return plan

    def _event(self, draft: Draft) -> Plan:
        """Direct debiting, RFC 8506 section 6.3: all that was asked for, or nothing."""
        session = self._new_session()
        parts = self._parts(draft, session)
        action = self.request.requested_action
        if action == CHECK_BALANCE or action == PRICE_ENQUIRY:
            return self._enquiry(draft, session, parts, action)
        for part in parts:
            if part.use is not None:
                self._debit_event(draft, part, part.use)
        outcome = self._outcome([part.grant for part in parts], refuse_if_none=True)
        if outcome.result_code != SUCCESS:
            return self._refused(draft, session, outcome, ())
        self._remember(session, outcome)
        plan = self._plan(draft, "debit", outcome, cdr.closing_records(session, self.now_ms, cdr.EVENT))
        self._keep_ended(plan, session, SessionState.CLOSED)
        return plan

    def _enquiry(self, draft: Draft, session: Session, parts: "list[Part]", action: int) -> Plan:
        """Answer what a service would do to the account, and do nothing: RFC 8506 sections 6.1 and 6.2.

        The price is what a direct debit of the same units would cost now, allowances counted, whatever the balance.
        """
        outcome = self._outcome([part.grant for part in parts], refuse_if_none=True)
        if outcome.result_code == SUCCESS:
            enough = True
            for part in parts:
                if part.use is None:
                    continue
                wanted = event_units(part.asked, part.service)
                if action == PRICE_ENQUIRY:
                    settle(draft, part.use, part.rate, wanted)
                elif reserve(draft, part.use, part.rate, wanted) < wanted:
                    enough = False
            if action == PRICE_ENQUIRY:
                outcome.cost_micro = sum(use.priced_micro for use in session.services)
            else:
                outcome.check_balance_result = ENOUGH_CREDIT if enough else NO_CREDIT
        plan = Plan(outcome)
        plan.expected_version = draft.before.version
        self._remember(session, outcome)
        self._keep_ended(plan, session, SessionState.CLOSED)
        return plan

    @staticmethod
    def _debit_event(draft: Draft, part: "Part", use: ServiceUse) -> None:
        units = event_units(part.asked, part.service)
        if reserve(draft, use, part.rate, units) < units:
            release(draft, use)
            part.grant.result_code = CREDIT_LIMIT_REACHED
            return
        settle(draft, use, part.rate, units)
        part.grant.unit, part.grant.units = int(part.service.unit), units

    # -- services of a request -----------------------------------------------------------------------------------

    def _parts(self, draft: Draft, session: Session) -> "list[Part]":
        """Every service the request names, with its place in the catalogue, its price and its use so far."""
        request = self.request
        asked = request.services
        if not asked and (request.requested is not None or request.used):
            identifiers = () if request.service_identifier is None else (request.service_identifier,)
            asked = (ServiceRequest(None, identifiers, request.requested, request.used),)
        parts = []
        for each in asked:
            group = -1 if each.rating_group is None else each.rating_group
            # A list of services is one grant; its order does not make it another.
            identifier = min(each.service_identifiers) if each.service_identifiers else -1
            grant = Grant(group, each.service_identifiers, SUCCESS)
            use = draft.service(session, group, identifier)
            found, rate = self._priced(session, each, use, group, identifier)
            if found is None or rate is None:
                grant.result_code = RATING_FAILED
                parts.append(Part(each, grant, _UNRATED, _FREE, None))
                continue
            if use is None and len(session.services) < SERVICES_A_SESSION:
                use = ServiceUse(group, identifier, found.name, int(found.unit))
                use.step_units, use.step_price_micro = terms(rate)
                draft.add_service(session, use)
            if use is None:
                grant.result_code = UNABLE_TO_COMPLY
            parts.append(Part(each, grant, found, rate, use))
        return parts

    def _priced(
        self, session: Session, asked: ServiceRequest, use: ServiceUse | None, group: int, identifier: int
    ) -> tuple[Service | None, Rate | None]:
        """The service's place in the catalogue and its price: the plan's, or the client's own if it asks in money.

        A service keeps unit and price it started with until its session ends, whatever becomes of the catalogue.
        """
        catalogue = self.charging.catalogue
        found = catalogue.classify(self.request.service_context_id, group, identifier)
        money = money_of(asked)
        if use is not None:
            rate = price_of(use.unit, use.step_units, use.step_price_micro)
            if use.unit == Unit.AMOUNT:
                return in_money(found, use.name), rate
            if found is None or found.unit != use.unit:
                found = Service(use.name, b"", None, Unit(use.unit), 0, 0, 0)  # sold no more: charged, not granted
            return found, rate
        if found is None:
            return None, None
        if money is None:
            return found, catalogue.rate(session.plan, found.name)
        if money[2] not in (None, catalogue.currency):
            return None, None
        return in_money(found, found.name), CLIENT_RATED

    def _answer_services(self, draft: Draft, session: Session, late: bool = False) -> tuple[Outcome, int]:
        """Debit what every service reports, then reserve what each asks for; the longest validity in seconds.

        All reports are settled before the first new reservation, so that what one service gives back another
        can have. A service the request leaves out keeps its reservation.
        """
        kind = self.request.request_type
        parts = self._parts(draft, session)
        longest_s = 0
        for part in parts:
            use = part.use
            if use is None:
                continue
            if part.asked.used:
                settle(draft, use, part.rate, self._believed(draft, session, part, use))
            elif part.asked.requested is not None:
                release(draft, use)
            if part.service.validity_time_s > longest_s:
                longest_s = part.service.validity_time_s
        if kind != TERMINATION and not late:
            self._reserve(draft, parts)
        outcome = self._outcome([part.grant for part in parts], refuse_if_none=kind == INITIAL)
        return outcome, longest_s or _DEFAULT_VALIDITY_S

    def _believed(self, draft: Draft, session: Session, part: "Part", use: ServiceUse) -> int:
        """The units reported, cut where they cannot be true; the rest is kept for the charging data record."""
        reported = units_reported(part.asked.used, part.service.unit)
        believed = believable(reported, use, (self.now_ms - session.started_ms) // 1000)
        if believed != reported:
            use.disbelieved += reported - believed
            draft.disbelieved_reports += 1
        return believed

    @staticmethod
    def _reserve(draft: Draft, parts: "list[Part]") -> None:
        for part in parts:
            use, grant = part.use, part.grant
            if use is None or part.asked.requested is None:
                continue
            if use.parts or use.granted:
                # The request names the service twice: it has one reservation, so it gets one grant.
                grant.result_code = UNABLE_TO_COMPLY
                continue
            if not part.service.maximum_quota_units:
                grant.result_code = RATING_FAILED
                continue
            wanted = units_wanted(part.asked.requested, part.service)
            if not wanted:
                # Money that is nothing, or less: an answer without a grant would be read as one without a limit.
                grant.result_code = INVALID_AVP_VALUE
                continue
            granted = reserve(draft, use, part.rate, wanted)
            if use.unit == Unit.AMOUNT and granted < wanted:
                release(draft, use)  # row 19: the client has rated it; that much or nothing
                granted = 0
            if granted:
                grant.unit, grant.units = int(part.service.unit), granted
                grant.validity_time_s = part.service.validity_time_s
            else:
                grant.result_code = CREDIT_LIMIT_REACHED
        for part in parts:
            # Only now: what a later service reserved may have been the last of the money.
            if part.grant.units > 0 and part.use is not None:
                part.grant.final = not has_more(draft, part.use, part.rate)

    def _outcome(self, grants: list[Grant], refuse_if_none: bool) -> Outcome:
        """Row 27: one service's failure is its own; a first request of which nothing is left fails as a whole."""
        request = self.request
        outcome = Outcome(SUCCESS, grants, command_level=bool(grants) and not request.services)
        failures = [grant.result_code for grant in grants if grant.result_code != SUCCESS]
        if failures and len(failures) == len(grants) and (refuse_if_none or outcome.command_level):
            outcome.result_code = failures[0]
        if RATING_FAILED in failures:
            outcome.failed_avp = self._unrateable(grants)
        if refuse_if_none and not grants and not self.charging.catalogue.knows_context(request.service_context_id):
            outcome.result_code = RATING_FAILED
            outcome.failed_avp = avp("Service-Context-Id", request.service_context_id.decode("utf-8", "replace"))
        return outcome

    def _unrateable(self, grants: list[Grant]) -> bytes:
        """Row 28: Failed-AVP names what could not be rated: the context if unknown, else the Rating-Group."""
        request = self.request
        if self.charging.catalogue.knows_context(request.service_context_id):
            for grant in grants:
                if grant.result_code == RATING_FAILED and grant.rating_group >= 0:
                    return avp("Rating-Group", grant.rating_group)
                if grant.result_code == RATING_FAILED and grant.service_identifiers:
                    return avp("Service-Identifier", grant.service_identifiers[0])
        return avp("Service-Context-Id", request.service_context_id.decode("utf-8", "replace"))

    # -- writing it down -----------------------------------------------------------------------------------------

    def _new_session(self) -> Session:
        request = self.request
        subscriber = self.subscriber
        assert subscriber is not None  # first requests always come through the subscriber directory
        return Session(
            self.key,
            subscriber.subscriber_id,
            subscriber.plan,
            request.origin_host,
            request.origin_state_id or 0,
            self.now_ms,
            self.now_ms,
            facts=cdr.facts(request),
        )

    def _remember(self, session: Session, outcome: Outcome) -> None:
        """Keep the answer with the session, for as long as a repeat may come."""
        answers = session.answers
        request = self.request
        age_s = (self.now_ms - session.started_ms) // 1000
        oldest_s = age_s - self.charging.settings.answer_replay_ms // 1000
        while answers and (answers[0][3] < oldest_s or len(answers) >= ANSWERS_KEPT):
            forgotten = answers.pop(0)
            if forgotten[1] > session.forgotten_number:
                session.forgotten_number = forgotten[1]
        answers.append((request.request_type, request.request_number, pack_outcome(outcome), age_s))

    def _plan(self, draft: Draft, operation: str, outcome: Outcome, records: tuple[bytes, ...]) -> Plan:
        request = self.request
        return make_plan(draft, operation, (self.key, request.request_type, request.request_number), outcome, records)

    def _keep_ended(self, plan: Plan, session: Session, state: SessionState) -> None:
        settings = self.charging.settings
        session.state = state
        if state != SessionState.EXPIRED:
            session.services = []
            session.facts = b""
        plan.ended = session
        plan.ended_ttl_ms = settings.late_termination_ms if state == SessionState.EXPIRED else settings.answer_replay_ms


@dataclass(slots=True)
class Part:
    """One service of a request: what is asked, what is granted, its place in the catalogue and in the session."""

    asked: ServiceRequest
    grant: Grant
    service: Service
    rate: Rate
    use: ServiceUse | None
    """None: it cannot be charged; ``grant`` says why, ``service`` and ``rate`` mean nothing."""


_DEFAULT_VALIDITY_S: Final = 1800
"""Supervision of a session that has been granted nothing yet."""

_UNRATED: Final = Service("", b"", None, Unit.EVENTS, 1, 1, 0)
_FREE: Final = FreePrice(Unit.EVENTS)
