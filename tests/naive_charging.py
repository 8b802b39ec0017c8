"""A charging server in one process and without a store: what each request must come to, by the naive ledger."""

from collections.abc import Hashable
from copy import deepcopy

from balance.model import Unit
from occ.profiles import Profile
from protocols.credit_control import CreditControlRequest, Units
from tests.naive_ledger import NaiveService
from tests.naive_services import (
    ACTING,
    MOST_REPORTED,
    Expected,
    ExpectedGrant,
    Line,
    NaiveServices,
    NaiveSession,
    NaiveSubscriber,
    measured,
    micro,
    money_of,
)

DEFAULT_VALIDITY_S = 1800


class NaiveCharging(NaiveServices):
    """Sessions and events of all accounts, and what becomes of them in time."""

    # -- time ------------------------------------------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """What was kept for a while is gone after it."""
        self.now_ms = now_ms
        for ledger in self.ledgers.values():
            ledger.now_ms = now_ms
        self.ended = {key: each for key, each in self.ended.items() if each.keep_until_ms > now_ms}

    def supervise(self) -> None:
        """Rows 20 and 23: silent sessions give back what they hold; then what has lapsed is emptied."""
        for session in list(self.open.values()):
            if session.expires_ms <= self.now_ms:
                self._expire(session)
        for ledger in self.ledgers.values():
            ledger.lapse()

    def client_lost_state(self, host: bytes, state_id: int) -> None:
        """Row 17."""
        for session in list(self.open.values()):
            if session.host.lower() == host.lower() and 0 < session.state_id < state_id:
                self._expire(session)

    def _expire(self, session: NaiveSession) -> None:
        for name in session.services.values():
            self.ledgers[session.account].release(name)
        self._end(session, "expired")

    def _end(self, session: NaiveSession, state: str) -> None:
        """Close it; it is kept for the repeats of its requests, and a late termination."""
        self.open.pop(session.key, None)
        session.state = state
        kept_ms = {
            "expired": self.settings.late_termination_ms,
            "debit": self.settings.refund_window_ms,
        }.get(state, self.settings.answer_replay_ms)
        session.keep_until_ms = self.now_ms + kept_ms
        self.ended[session.key] = session

    # -- requests --------------------------------------------------------------------------------------------------

    def charge(self, request: CreditControlRequest, profile: Profile) -> Expected:
        self.request, self.profile = request, profile
        key, kind = request.session_id, request.request_type
        action = (request.requested_action or 0) if kind == 4 else 0
        self.kind = (kind, action)
        session = self.open.get(key) or self.ended.get(key)
        who = next((self.subscribers[value] for _, value in request.subscriptions if value in self.subscribers), None)
        if kind in (1, 4) and who is None:
            return Expected(5030)
        if session is not None:
            if kind == 1 and 0 < session.state_id < (request.origin_state_id or 0):
                return self._initial(who, anew=session)
            for kept_kind, number, answer, _ in session.answers:
                if kept_kind == self.kind and number == request.request_number:
                    return answer
            if request.request_number <= session.forgotten and kind != 3:
                return Expected(5012)
        if key in self.open:
            return Expected(5012) if kind in (1, 4) else self._continue(self.open[key])
        if action == 1:
            return self._refund(who)
        if kind in (1, 4):
            if key in self.ended:
                return Expected(5012)
            return self._initial(who) if kind == 1 else self._event(who, action)
        if session is not None and session.state == "expired":
            return self._late(session)
        return Expected(5002)

    def _remember(self, session: NaiveSession, answer: Expected) -> None:
        """Row 16: for some minutes."""
        age_s = (self.now_ms - session.started_ms) // 1000
        while session.answers and session.answers[0][3] < age_s - self.settings.answer_replay_ms // 1000:
            session.forgotten = max(session.forgotten, session.answers.pop(0)[1])
        session.answers.append((self.kind, self.request.request_number, answer, age_s))

    def _begin(self, who: NaiveSubscriber | None) -> NaiveSession:
        assert who is not None
        request = self.request
        return NaiveSession(
            request.session_id,
            who.name,
            who.account,
            who.plan,
            request.origin_host,
            request.origin_state_id or 0,
            self.now_ms,
            edition=self.catalogue.edition,
        )

    def _initial(self, who: NaiveSubscriber | None, anew: NaiveSession | None = None) -> Expected:
        session = self._begin(who)
        if anew is not None and anew.key in self.open:
            for name in anew.services.values():
                self.ledgers[anew.account].release(name)
            del self.open[anew.key]
        if self.profile.needs_indicator and self.request.services:
            indicator = self.request.multiple_services_indicator
            if indicator != 1:
                return self._refuse(session, Expected(5005 if indicator is None else 5004))
        before = deepcopy(self.ledgers[session.account])
        self._work_on(session)
        self._settle()
        self._reserve()
        answer = self._answer(first=True)
        if answer.code != 2001:
            self.ledgers[session.account] = before  # a session that was never opened costs nothing
            return self._refuse(session, answer)
        self._remember(session, answer)
        self._restart_supervision()
        self.open[session.key] = session
        return answer

    def _refuse(self, session: NaiveSession, answer: Expected) -> Expected:
        session.services = {}
        self._remember(session, answer)
        self._end(session, "refused")
        return answer

    def _continue(self, session: NaiveSession) -> Expected:
        ends = self.request.request_type == 3
        self._work_on(session)
        self._settle()
        if not ends:
            self._reserve()
        answer = self._answer(first=False)
        if ends:
            answer.cost = sum(self.ledger.services[name].debited for name in session.services.values())
        self._remember(session, answer)
        if not ends and answer.code == 2001:
            self._restart_supervision()
            return answer
        for name in session.services.values():
            self.ledger.release(name)
        self._end(session, "closed")
        return answer

    def _late(self, session: NaiveSession) -> Expected:
        """Row 22: what a session used that supervision has ended is charged, as far as there is money, once."""
        ends = self.request.request_type == 3
        self._work_on(session)
        self._settle(late=True)
        answer = self._answer(first=False) if ends else Expected(5002)
        self._remember(session, answer)
        self._end(session, "closed" if ends else "expired")
        return answer

    def _restart_supervision(self) -> None:
        """Row 23: twice the longest Validity-Time; what other services were told before still holds."""
        session = self.session
        named = [line.name for line in self.lines if line.name is not None]
        told_s = [max(line.grant.validity_s, line.validity_s) for line in self.lines if line.name is not None]
        longest_s = max(told_s, default=0) or DEFAULT_VALIDITY_S
        until_ms = self.now_ms + self.settings.tcc_factor * longest_s * 1000
        waiting = [
            name
            for name in session.services.values()
            if name not in named and (self.ledger.services[name].granted or self.ledger.services[name].final == ACTING)
        ]
        session.expires_ms = max(until_ms, session.expires_ms if waiting else 0)

    # -- events ----------------------------------------------------------------------------------------------------

    def _event(self, who: NaiveSubscriber | None, action: int) -> Expected:
        """Row 38. Whatever fails, and whatever only asks, changes nothing."""
        session = self._begin(who)
        before = deepcopy(self.ledgers[session.account])
        self._work_on(session)
        seen: list[Hashable] = []
        for line in self.lines:
            if line.name is None:
                continue
            money = money_of(line.asked)
            if line.name in seen:
                line.grant.code = 5012  # named twice
            elif money is not None and money[0] < 0:
                line.grant.code = 5004  # nobody is paid by asking for less than nothing
            else:
                seen.append(line.name)
                if action == 0:
                    self._debit(line)
        answer = self._answer(first=True)
        if action == 0 and answer.code == 2001:
            self._remember(session, answer)
            self._end(session, "debit")
            return answer
        if answer.code == 2001:
            self._enquire(answer, action)
        self.ledgers[session.account] = before
        session.services = {}
        self._remember(session, answer)
        self._end(session, "closed" if action else "refused")
        return answer

    def _wanted(self, line: Line) -> int:
        """All that is asked for, or what was used; else what the catalogue has."""
        service = self.ledger.services[line.name]
        asked = line.asked
        wanted = None if asked.requested is None else measured(asked.requested, service.unit)
        if wanted is None and asked.used:
            wanted = min(MOST_REPORTED, sum(measured(each, service.unit) or 0 for each in asked.used))
        if service.unit != "amount" and not wanted:
            assert line.offer is not None
            wanted = line.offer.quota_units
        return min(wanted or 0, MOST_REPORTED)

    def _debit(self, line: Line) -> None:
        """All or nothing."""
        wanted = self._wanted(line)
        if self.ledger.grant(line.name, wanted, whole=True) < wanted:
            self.ledger.release(line.name)
            line.grant.code = 4012
        else:
            self.ledger.use(line.name, wanted)
            line.grant.units = wanted
            line.grant.unit = int(Unit[self.ledger.services[line.name].unit.upper()])

    def _enquire(self, answer: Expected, action: int) -> None:
        """On a ledger that is thrown away afterwards."""
        lines = [line for line in self.lines if line.grant.code == 2001]
        if action == 2:
            answer.check = 0
            for line in lines:
                if self.ledger.grant(line.name, self._wanted(line), whole=True) < self._wanted(line):
                    answer.check = 1
        else:
            for line in lines:
                self.ledger.use(line.name, self._wanted(line))
            answer.cost = sum(self.ledger.services[line.name].cost for line in lines)

    def _refund(self, who: NaiveSubscriber | None) -> Expected:
        """What a debit took, back where it came from, once."""
        request = self.request
        own = self._begin(who)
        named = next((each.refund_information for each in request.services if each.refund_information), None)
        named = named or request.refund_information or None
        key = request.session_id if named is None else named
        if key != request.session_id and request.session_id in self.ended:
            return Expected(5012)
        debit = self.ended.get(key)
        if debit is None or debit.state != "debit" or debit.subscriber != own.subscriber or not debit.services:
            answer = Expected(5005 if named is None else 5004)
        else:
            answer = self._give_back(debit)
        if key == request.session_id:
            if answer.code == 2001:
                assert debit is not None
                self._remember(debit, answer)
            return answer
        self._remember(own, answer)
        self._end(own, "closed" if answer.code == 2001 else "refused")
        return answer

    def _give_back(self, debit: NaiveSession) -> Expected:
        ledger = self.ledgers[debit.account]
        wanted: list[tuple[NaiveService, int, ExpectedGrant]] = []
        if self.request.services:
            for asked in self.request.services:
                group = -1 if asked.rating_group is None else asked.rating_group
                name = debit.services.get((group, min(asked.service_identifiers, default=-1)))
                if name is None:
                    return Expected(5012)
                service = ledger.services[name]
                grant = ExpectedGrant(group, asked.service_identifiers)
                wanted.append((service, self._units_back(service, asked.requested), grant))
        else:
            services = [ledger.services[name] for name in debit.services.values() if ledger.services[name].used]
            asked_for = self.request.requested if len(services) == 1 else None
            wanted = [(each, self._units_back(each, asked_for), ExpectedGrant(-1, ())) for each in services]
        back: dict[int, int] = {}
        for service, units, _ in wanted:
            back[id(service)] = back.get(id(service), 0) + units
            if not units > 0 or back[id(service)] > service.used:
                return Expected(5012)
        if not wanted:
            return Expected(5012)
        answer = Expected(2001, cost=0)
        for service, units, grant in wanted:
            answer.cost += ledger.refund(service, units)
            grant.unit, grant.units = int(Unit[service.unit.upper()]), units
            answer.grants.append(grant)
        return answer

    def _units_back(self, service: NaiveService, requested: Units | None) -> int:
        """Those that are named; those whose price is the money that is named, as few as can be; else all."""
        units = None if requested is None else measured(requested, service.unit)
        if units is not None:
            return units
        if requested is None or requested.money is None:
            return service.used
        if requested.money[2] not in (None, self.catalogue.currency):
            return 0  # dollars paid for nothing that was sold in euros
        money = micro(requested.money)
        for fewer in range(1, service.paid_units + 1):
            if money and service.charged - service.price(service.paid_units - fewer) == money:
                return fewer
        return 0
