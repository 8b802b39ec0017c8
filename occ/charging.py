"""Session and event charging: find the account, rate, reserve and debit, all in one plan (RFC 8506, TS 32.299).

``Charging.charge`` takes a decoded Credit-Control-Request and calls back with the ``Outcome`` to answer. The decision
itself is ``Charge.step``: pure, from the account's snapshot to a ``Plan``, called again when the snapshot was stale.

A request is known by its Session-Id, CC-Request-Type and CC-Request-Number: answered once, the same answer ever after
(RFC 8506 appendix C.3; conformance row 16), while the session runs and for some minutes after it ended.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from balance import answers
from balance.accounts import Account, Session, SessionState
from balance.lane import ABSENT
from balance.ledger import Draft
from balance.model import Subscriber
from balance.plans import Lookup, Outcome, Plan
from balance.records import make_plan, pack_outcome, unpack_outcome
from balance.resp import StoreError, StoreUnavailableError
from balance.store import Store
from occ import cdr, events
from occ.advice import command_indications
from occ.codes import (
    CHECK_BALANCE,
    DIRECT_DEBITING,
    EVENT,
    INITIAL,
    INVALID_AVP_VALUE,
    MISSING_AVP,
    MULTIPLE_SERVICES_SUPPORTED,
    PRICE_ENQUIRY,
    RATING_FAILED,
    REFUND_ACCOUNT,
    SUCCESS,
    TERMINATION,
    TOO_BUSY,
    UNABLE_TO_COMPLY,
    UNKNOWN_SESSION_ID,
    UPDATE,
    USER_UNKNOWN,
)
from occ.profiles import Profile
from occ.rules import Rules
from occ.services import FUTURE_ALLOWED_MS, RequestServices
from protocols.credit_control import CreditControlRequest
from protocols.diameter.codec import avp

log = logging.getLogger("occ.charging")

ANSWERS_KEPT: Final = 64
"""Outcomes an open session remembers at most, however fast its requests come."""

UNREACHABLE: Final = Outcome(TOO_BUSY)
"""This very object says that the store cannot be reached; any other DIAMETER_TOO_BUSY has another reason."""

_E164: Final = 0

OnOutcome = Callable[[Outcome], None]


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
    refunded_micro: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    """Answers that a policy rule had a part in, by its name."""

    def add(self, plan: Plan) -> None:
        """Count a plan that was written."""
        self.debited_micro += plan.debited_micro
        self.leaked_micro += plan.leaked_micro
        self.refunded_micro += plan.refunded_micro
        self.open_sessions += plan.sessions_delta
        self.open_reservations += plan.reservations_delta
        self.disbelieved_reports += plan.disbelieved_reports
        self.replayed += plan.replayed
        self.late_terminations += plan.late
        for name in plan.acted:
            self.rules[name] += 1


class Charging:
    """Charges requests against the accounts of one store by one set of rules."""

    def __init__(self, store: Store, rules: Rules) -> None:
        self.store = store
        self.snapshots = store.snapshots
        self.sessions = store.sessions
        self.subscribers = store.subscribers
        self.rules = rules
        self.statistics = ChargingStatistics()

    def charge(self, request: CreditControlRequest, profile: Profile, via: bytes, now_ms: int, done: OnOutcome) -> None:
        """Charge one request; ``done`` is called once, when what it says is on disk.

        ``profile``: what kind of client sent it; ``via``: Diameter identity of the peer it came by. A store that
        cannot be reached gives DIAMETER_TOO_BUSY, so that the client fails over by its own rules.
        """
        Charge(self, request, profile, via, now_ms, done).begin()


def session_key(request: CreditControlRequest) -> bytes:
    """What names the session of a request within its account."""
    if request.sub_session_id is None:
        return request.session_id
    return request.session_id + b"\0%d" % request.sub_session_id  # RFC 8506 section 8.5: sessions of their own


def request_kind(request: CreditControlRequest) -> int:
    """What tells requests of one number apart: a refund may bear the number of its debit."""
    if request.request_type != EVENT:
        return request.request_type
    return EVENT | (request.requested_action or DIRECT_DEBITING) << 4


def _not_carried_out(error: StoreError) -> Outcome:
    return UNREACHABLE if isinstance(error, StoreUnavailableError) else Outcome(TOO_BUSY)


class Charge:
    """One request on its way through the ledger."""

    __slots__ = (
        "_done",
        "_identity",
        "action",
        "charging",
        "key",
        "kind",
        "now_ms",
        "profile",
        "request",
        "rules",
        "subscriber",
        "via",
    )

    def __init__(
        self,
        charging: Charging,
        request: CreditControlRequest,
        profile: Profile,
        via: bytes,
        now_ms: int,
        done: OnOutcome,
    ) -> None:
        self.charging = charging
        self.rules = charging.rules
        self.request = request
        self.profile = profile
        self.via = via
        self.now_ms = now_ms
        self._done = done
        self._identity = 0
        self.subscriber: Subscriber | None = None
        self.key = request.session_id if request.sub_session_id is None else session_key(request)
        self.action = (request.requested_action or DIRECT_DEBITING) if request.request_type == EVENT else 0
        self.kind = request.request_type | self.action << 4
        """As ``request_kind`` has it."""

    # -- who pays ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        kind = self.request.request_type
        if kind == UPDATE or kind == TERMINATION:
            account_id = self.charging.sessions.account_of(self.key)
            if account_id is not None:
                self.charging.snapshots.transact(account_id, self.step, self._on_plan, with_account=False)
                return
        self._find_subscriber()

    def _find_subscriber(self) -> None:
        """Try the Subscription-Ids in the order they were sent."""
        subscriptions = self.request.subscriptions
        if self._identity < len(subscriptions):
            kind, value = subscriptions[self._identity]
            if kind == _E164 and value[:1] == b"+":
                value = value[1:]
            self.charging.subscribers.find(kind, value, self.now_ms, self._on_subscriber)
        elif self.request.request_type in (UPDATE, TERMINATION):
            self.charging.sessions.find(self.key, self._on_session)
        else:
            self._done(Outcome(USER_UNKNOWN))

    def _on_subscriber(self, found: Subscriber | StoreError | None) -> None:
        if isinstance(found, Subscriber):
            self.subscriber = found
            self.charging.snapshots.transact(found.account_id, self.step, self._on_plan, with_account=False)
        elif found is None:
            self._identity += 1
            self._find_subscriber()
        else:
            self._done(_not_carried_out(found))

    def _on_session(self, account_id: bytes | StoreError | None) -> None:
        if isinstance(account_id, bytes):
            self.charging.snapshots.transact(account_id, self.step, self._on_plan, with_account=False)
        else:
            self._done(Outcome(UNKNOWN_SESSION_ID) if account_id is None else _not_carried_out(account_id))

    def _on_plan(self, result: Plan | StoreError) -> None:
        if isinstance(result, StoreError):
            if isinstance(result, StoreUnavailableError) or result.__cause__ is None:
                self._done(_not_carried_out(result))
            else:
                log.error("session %r could not be charged", self.key, exc_info=result.__cause__)
                self._done(Outcome(UNABLE_TO_COMPLY))
            return
        assert result.outcome is not None
        if (
            result.outcome.result_code == UNKNOWN_SESSION_ID
            and self.subscriber is not None
            and not result.journal
            and not result.replayed
        ):
            # The identity may have passed to somebody else meanwhile: a session goes on where it began.
            self.subscriber = None
            self.charging.sessions.find(self.key, self._on_session)
            return
        self.charging.statistics.add(result)
        if result.spent:
            self.rules.budgets.add(result.spent)
        if result.disbelieved_reports:
            log.warning("session %r reports usage that cannot be true; its records tell how much", self.key)
        self._done(result.outcome)

    # -- the decision --------------------------------------------------------------------------------------------

    def step(self, account: Account | None, ended: Session | None) -> Plan | Lookup:
        """What the request does to the account, which it may change; may be called again with a fresher snapshot."""
        if account is None:
            return Plan(Outcome(USER_UNKNOWN))
        request = self.request
        kind = request.request_type
        session = account.sessions.get(self.key)
        if session is None:
            session = ended
        if session is not None and session is not ABSENT and session.session_id == self.key:
            known = self._of_session(account, session)
            if known is not None:
                return known
        if self.key in account.sessions:
            if kind == INITIAL or kind == EVENT:
                return Plan(Outcome(UNABLE_TO_COMPLY))
            return self._continue(account)
        if self.action == REFUND_ACCOUNT:
            return self._refund(account, ended)
        if kind == INITIAL or kind == EVENT:
            if ended is not None and ended is not ABSENT:
                return Plan(Outcome(UNABLE_TO_COMPLY))
            if account.currency != self._currency():
                return Plan(Outcome(RATING_FAILED))  # its money is not the money the prices are in
            draft = Draft(account, self.now_ms, own=True)
            plan = self._event(draft) if kind == EVENT else self._initial(draft)
            plan.first_of = self.key
            return plan
        if ended is None:
            return Lookup(self.key)
        if ended.state == SessionState.EXPIRED and ended is not ABSENT:
            return self._late(account, ended)
        return Plan(Outcome(UNKNOWN_SESSION_ID))

    def _of_session(self, account: Account, session: Session) -> Plan | None:
        """What is answered without charging, as the session is known already; None: the request goes on with it."""
        request = self.request
        kind = request.request_type
        if session.origin_host != request.origin_host and not self._is_its_client(session):
            # Session-Ids can be guessed: only who began a session may go on with it, end it or hear its answers.
            return Plan(Outcome(UNABLE_TO_COMPLY if kind == INITIAL or kind == EVENT else UNKNOWN_SESSION_ID))
        if kind == INITIAL and self._client_restarted(session):
            return self._begin_anew(account)  # its CC-Request-Number is 0 again, which is no repeat
        kept = answers.find(session.answers, answers.answer_key(self.kind, request.request_number))
        if kept is not None:
            # Whoever opened the session may have ended before the directory of sessions knew of it.
            opened = self.key if kind == INITIAL and self.key in account.sessions else b""
            return Plan(unpack_outcome(kept), replayed=True, opened=opened)
        if request.request_number <= session.forgotten_number and kind != TERMINATION:
            return Plan(Outcome(UNABLE_TO_COMPLY))  # a repeat from long ago: debit nothing, grant nothing
        return None

    def _client_restarted(self, session: Session) -> bool:
        """Row 22: the client lost its state since it began the session, as a raised Origin-State-Id tells.

        Nothing can be inferred where either is absent (RFC 6733 section 8.16).
        """
        return 0 < session.origin_state_id < (self.request.origin_state_id or 0)

    def _is_its_client(self, session: Session) -> bool:
        """Diameter identities are compared without regard to case (RFC 6733 section 4.3.1)."""
        return session.origin_host.lower() == self.request.origin_host.lower()

    def _begin_anew(self, account: Account) -> Plan:
        """Close the session if it is still open, and open it again."""
        if self.key not in account.sessions:
            return self._initial(Draft(account, self.now_ms))
        plan = self._initial(*self._closed(account))
        if plan.opened:
            return plan
        # Refused: what the new session would have cost is forgotten, but the old one is closed.
        draft, records = self._closed(account)
        refused = plan
        plan = self._plan(draft, "refuse", refused.outcome, records)
        plan.ended, plan.ended_ttl_ms = refused.ended, refused.ended_ttl_ms
        plan.closed = self.key
        return plan

    def _closed(self, account: Account) -> tuple[Draft, tuple[bytes, ...]]:
        """The account without the session, which its client has lost, and the session's charging data records."""
        draft = Draft(account, self.now_ms)
        session = draft.session(self.key)
        assert session is not None
        draft.release_session(session)
        records = cdr.closing_records(draft, session, cdr.CLIENT_RESTARTED)
        draft.close(session)
        return draft, records

    def _initial(self, draft: Draft, records: tuple[bytes, ...] = ()) -> Plan:
        refusal = self._indicator_missing()
        session = self._new_session()
        if refusal is not None:
            return self._refused(draft, session, refusal)
        services = self._services(draft, session)
        longest_s = services.settle()
        services.reserve()
        outcome = self._outcome(services, refuse_if_none=True)
        if outcome.result_code != SUCCESS:
            return self._refused(draft, session, outcome, services.acted)
        command_indications(services, outcome)
        self._remember(session, outcome)
        session.expires_ms = self._supervised_until(services, outcome, longest_s)
        draft.open(session)
        plan = self._plan(draft, "reserve", outcome, records, services.acted)
        if services.policies is not None:
            services.policies.tell(plan)
        plan.opened = self.key
        return plan

    def _indicator_missing(self) -> Outcome | None:
        """Row 25: a client that goes by the letter says that it knows several services before it is granted any."""
        request = self.request
        if not self.profile.needs_indicator or not request.services:
            return None
        indicator = request.multiple_services_indicator
        if indicator == MULTIPLE_SERVICES_SUPPORTED:
            return None
        code = MISSING_AVP if indicator is None else INVALID_AVP_VALUE
        return Outcome(code, failed_avp=avp("Multiple-Services-Indicator", indicator or 0))

    def _services(self, draft: Draft, session: Session) -> RequestServices:
        return RequestServices(
            self.rules, self.request, self.profile, draft, session, self._happened_ms(session.started_ms)
        )

    def _outcome(self, services: RequestServices, refuse_if_none: bool) -> Outcome:
        """What a request of a session is answered."""
        return services.outcome(refuse_if_none)

    def _happened_ms(self, earliest_ms: int) -> int:
        """When what a request tells of happened: its Event-Timestamp, where that can be true, else now.

        Prices go by the time of use, not of arrival; but a client's clock may be off, or its date be garbage.
        """
        said = self.request.event_timestamp
        now_ms = self.now_ms
        if said is None or not self.profile.event_time:
            return now_ms
        said_ms = said * 1000
        if said_ms > now_ms + FUTURE_ALLOWED_MS or said_ms < now_ms - self.rules.settings.late_termination_ms:
            return now_ms
        return max(said_ms, earliest_ms)

    def _refused(self, draft: Draft, session: Session, outcome: Outcome, acted: tuple[str, ...] = ()) -> Plan:
        """Nothing is reserved or debited, no session opened; only the answer is kept for a repeat."""
        plan = Plan(outcome, acted=acted)
        plan.expected_version = draft.before.version
        self._remember(session, outcome)
        self._keep_ended(plan, session, SessionState.REFUSED)
        return plan

    def _continue(self, account: Account) -> Plan:
        """An update or termination of an open session."""
        draft = Draft(account, self.now_ms, own=True)
        session = draft.session(self.key)
        assert session is not None
        request = self.request
        ends = request.request_type == TERMINATION
        session.via = self.via
        services = self._services(draft, session)
        before_micro = sum(use.debited_micro for use in session.services) if request.aoc_request_type else 0
        longest_s = services.settle()
        if not ends:
            services.reserve()
        outcome = self._outcome(services, refuse_if_none=False)
        if ends:
            outcome.cost_micro = sum(use.debited_micro for use in session.services)  # RFC 8506 section 5.4
        command_indications(services, outcome, before_micro)
        self._remember(session, outcome)
        # RFC 8506 section 7 table 6: a termination ends the session, and so does a failure at command level.
        if not ends and outcome.result_code == SUCCESS:
            session.expires_ms = self._supervised_until(services, outcome, longest_s)
            every_ms = self.rules.settings.partial_record_ms
            records = cdr.partial_records(draft, session, every_ms, services.when_ms)
            plan = self._plan(draft, "charge", outcome, records, services.acted)
            if services.policies is not None:
                services.policies.tell(plan)
            return plan
        draft.release_session(session)
        records = cdr.closing_records(draft, session, cdr.NORMAL, request.request_number)
        draft.close(session)
        plan = self._plan(draft, "terminate", outcome, records, services.acted)
        plan.closed = self.key
        self._keep_ended(plan, session, SessionState.CLOSED)
        return plan

    def _supervised_until(self, services: RequestServices, outcome: Outcome, longest_s: int) -> int:
        """When supervision ends: not before what services wait for that this request did not name is over."""
        for grant in outcome.grants:
            longest_s = max(longest_s, grant.validity_time_s)  # that of a redirection may be longer than that of units
        until_ms = self.now_ms + longest_s * 1000 * self.rules.settings.tcc_factor
        if until_ms < services.session.expires_ms and services.others_wait():
            return services.session.expires_ms
        return until_ms

    def _late(self, account: Account, ended: Session) -> Plan:
        """Row 22: usage reported after supervision ended the session is debited once all the same."""
        draft = Draft(account, self.now_ms)
        session = ended.copy()
        ends = self.request.request_type == TERMINATION
        services = self._services(draft, session)
        services.settle(late=True)
        outcome = self._outcome(services, refuse_if_none=False) if ends else Outcome(UNKNOWN_SESSION_ID)
        self._remember(session, outcome)
        records = cdr.late_records(draft, session)
        plan = self._plan(draft, "late-charge", outcome, records)
        self._keep_ended(plan, session, SessionState.CLOSED if ends else SessionState.EXPIRED)
        plan.late = True
        return plan

    def _event(self, draft: Draft) -> Plan:
        """A one-time event, RFC 8506 section 6."""
        session = self._new_session()
        services = self._services(draft, session)
        if self.action == CHECK_BALANCE or self.action == PRICE_ENQUIRY:
            outcome = events.enquire(services, self.action)
            plan = Plan(outcome)
            plan.expected_version = draft.before.version
            self._remember(session, outcome)
            self._keep_ended(plan, session, SessionState.CLOSED)
            return plan
        outcome = events.debit(services, reference=self.key)
        if outcome.result_code != SUCCESS:
            return self._refused(draft, session, outcome, services.acted)
        command_indications(services, outcome)
        self._remember(session, outcome)
        records = cdr.closing_records(draft, session, cdr.EVENT)
        plan = self._plan(draft, "debit", outcome, records, services.acted)
        session.state = SessionState.CLOSED
        session.facts = b""
        plan.ended, plan.ended_ttl_ms = session, self.rules.settings.refund_window_ms
        return plan

    def _refund(self, account: Account, found: Session | None) -> Plan | Lookup:
        """RFC 8506 section 6.4. The debit is named by its Refund-Information, or by bearing the same Session-Id.

        Either can be guessed, so only the client that debited may give back, as ``_of_session`` has it of sessions.
        """
        named = events.refund_reference(self.request)
        debit_key = self.key if named is None else named
        if found is None:
            return Lookup(debit_key)
        if found.session_id == self.key != debit_key:
            return Plan(Outcome(UNABLE_TO_COMPLY))  # this refund had its answer, and this is another one
        draft = Draft(account, self.now_ms)
        own = self._new_session()
        subscriber = own.subscriber_id  # nobody is given what another has paid
        is_debit = found.session_id == debit_key and found.state == SessionState.CLOSED and found.services
        if not is_debit or found.subscriber_id != subscriber or not self._is_its_client(found):
            return self._not_refunded(draft, own, events.nothing_to_refund(named), debit_key)
        debited = found.copy()
        outcome = events.give_back(draft, self.request, debited, self.rules)
        if outcome.result_code != SUCCESS:
            return self._not_refunded(draft, own, outcome, debit_key)
        records = cdr.refund_records(draft, debited, self.request)
        left_ms = max(1, debited.started_ms + self.rules.settings.refund_window_ms - self.now_ms)
        if debit_key == self.key:
            self._remember(debited, outcome)
            plan = self._plan(draft, "refund", outcome, records)
            plan.ended, plan.ended_ttl_ms = debited, left_ms
            return plan
        self._remember(own, outcome)
        plan = self._plan(draft, "refund", outcome, records)
        plan.first_of = self.key
        plan.amended, plan.amended_ttl_ms = debited, left_ms
        self._keep_ended(plan, own, SessionState.CLOSED)
        return plan

    def _not_refunded(self, draft: Draft, own: Session, outcome: Outcome, debit_key: bytes) -> Plan:
        """Nothing is given back. What a repeat of a refund that was granted is answered, the store knows."""
        if debit_key == self.key:
            return Plan(outcome)
        plan = self._refused(draft, own, outcome)
        plan.first_of = self.key
        return plan

    # -- writing it down -----------------------------------------------------------------------------------------

    def _new_session(self) -> Session:
        request = self.request
        subscriber = self.subscriber
        assert subscriber is not None  # first requests always come through the subscriber directory
        return Session(
            self.key,
            subscriber.subscriber_id,
            subscriber.plan_at(self.now_ms),
            request.origin_host,
            request.origin_state_id or 0,
            self.now_ms,
            self.now_ms,
            facts=cdr.facts(request, subscriber.member_of),
            realm=request.origin_realm,
            via=self.via,
            customer=self._customer(subscriber),
            caps=(subscriber.cap_day_micro, subscriber.cap_month_micro) if _has_caps(subscriber) else (),
            catalogue=self.rules.catalogue.edition,
        )

    def _currency(self) -> int:
        """The currency of what the request will be charged."""
        subscriber = self.subscriber
        assert subscriber is not None
        return self.rules.catalogue.currency_of(subscriber.plan_at(self.now_ms))

    def _customer(self, subscriber: Subscriber) -> tuple[Any, ...]:
        """What promotions and policies will want to know of the user, where there are any that ask."""
        catalogue = self.rules.catalogue
        if not catalogue.promotions.all and not self.rules.needs_segment:
            return ()
        called = catalogue.called(self.request).number.digits.encode()
        return subscriber.segment, subscriber.friends, subscriber.activated_ms, called

    def _remember(self, session: Session, outcome: Outcome) -> None:
        """Keep the answer with the session, for as long as a repeat may come."""
        age_s = (self.now_ms - session.started_ms) // 1000
        oldest_s = age_s - self.rules.settings.answer_replay_ms // 1000
        while session.answer_count and (oldest_s > 0 or session.answer_count >= ANSWERS_KEPT):
            number, first_s = answers.oldest(session.answers)
            if first_s >= oldest_s and session.answer_count < ANSWERS_KEPT:
                break
            session.answers = answers.without_oldest(session.answers)
            session.answer_count -= 1
            session.forgotten_number = max(session.forgotten_number, number)
        number = self.request.request_number
        if not session.requests:
            session.first_number = number
        session.requests += 1
        key = answers.answer_key(self.kind, number)
        session.answers = answers.add(session.answers, key, pack_outcome(outcome), max(0, age_s))
        session.answer_count += 1

    def _plan(
        self,
        draft: Draft,
        operation: str,
        outcome: Outcome | None,
        records: tuple[bytes, ...],
        acted: tuple[str, ...] = (),
    ) -> Plan:
        """``acted``: names of the policy rules that made the outcome what it is."""
        request = self.request
        reason: tuple[Any, ...] = (self.key, request.request_type, request.request_number)
        plan = make_plan(draft, operation, (*reason, acted) if acted else reason, outcome, records)
        plan.asked_by = self.key
        plan.acted = acted
        return plan

    def _keep_ended(self, plan: Plan, session: Session, state: SessionState) -> None:
        settings = self.rules.settings
        session.state = state
        if state != SessionState.EXPIRED:
            session.services = []
            session.facts = b""
        plan.ended = session
        plan.ended_ttl_ms = settings.late_termination_ms if state == SessionState.EXPIRED else settings.answer_replay_ms


def _has_caps(subscriber: Subscriber) -> bool:
    return bool(subscriber.cap_day_micro or subscriber.cap_month_micro)
