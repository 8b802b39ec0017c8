"""The services of one request: what each is, what it costs, what is debited and reserved for it.

``RequestServices`` works on a draft of the account, for one request of one session: ``settle`` debits what is
reported, ``reserve`` grants what is asked for, ``outcome`` says what came of it. It decides nothing about sessions and
writes nothing down (``occ.charging`` does), and knows no account but the draft's.
"""

from dataclasses import dataclass, field
from typing import Final

from balance.accounts import FinalUnits, ServiceUse, Session
from balance.ledger import (
    Draft,
    has_more,
    leak,
    release,
    reserve,
    reserved_money,
)
from balance.model import Rate, Unit
from balance.plans import Grant, Outcome
from occ.cdr import reason_bit
from occ.codes import (
    AFTER_TARIFF_CHANGE,
    BEFORE_TARIFF_CHANGE,
    CREDIT_LIMIT_REACHED,
    END_USER_SERVICE_DENIED,
    EVENT,
    INITIAL,
    INVALID_AVP_VALUE,
    RATING_CONDITION_CHANGE,
    RATING_FAILED,
    REASON_FINAL,
    SUCCESS,
    UNABLE_TO_COMPLY,
    UPDATE,
)
from occ.indications import QUOTA_OF_PERIOD, Indications, pool_reference
from occ.lifecycle import in_service, refusal
from occ.policing import REFUSALS, RequestPolicies, within
from occ.pricing import Pricing
from occ.profiles import Profile
from occ.rating.across_switch import HalfEach, WorstOfTwo
from occ.rating.price import FreePrice, price_of
from occ.rating.service import Service
from occ.rating.tariff import Refusal
from occ.rules import Rules
from occ.service_units import believable, for_each_recipient, measure, money_of, units_reported, units_wanted
from policies.rules import AS_PRICED, Access, Decision
from protocols.credit_control import CreditControlRequest, ServiceRequest
from protocols.diameter.codec import avp

SERVICES_A_SESSION: Final = 256
"""Rating-Groups and Service-Identifiers one session may use; bounds what one client can make an account hold."""

DEFAULT_VALIDITY_S: Final = 1800
"""Supervision of a session that has been granted nothing yet."""

_FINAL_GRANTED: Final = int(FinalUnits.GRANTED)
_FINAL_ACTING: Final = int(FinalUnits.ACTING)
_SECONDS: Final = int(Unit.SECONDS)
FUTURE_ALLOWED_MS: Final = 60_000
"""How far a client's clock may be ahead and be believed."""
_AMOUNT: Final = int(Unit.AMOUNT)


@dataclass(slots=True, init=False)
class Part:
    """One service of a request: what is asked, what is granted, its place in the catalogue and in the session."""

    asked: ServiceRequest
    grant: Grant
    service: Service
    rate: Rate
    use: ServiceUse | None
    """None: it cannot be charged; ``grant`` says why, ``service`` and ``rate`` mean nothing."""
    after: Grant | None = None
    """The grant for after a tariff switch, where it is one of its own."""
    reach_micro: int | None = None
    """The policies let no more be granted than costs so much; None: any."""
    covered: int = field(init=False)
    """Units of the grant that ``use`` had which no report of the request has used up. The first part of a use knows."""

    def __init__(
        self,
        asked: ServiceRequest,
        grant: Grant,
        service: Service,
        rate: Rate,
        use: ServiceUse | None,
        after: Grant | None = None,
        reach_micro: int | None = None,
    ) -> None:
        self.asked = asked
        self.grant = grant
        self.service = service
        self.rate = rate
        self.use = use
        self.after = after
        self.reach_micro = reach_micro
        self.covered = 0 if use is None else use.granted


def _runs_on(part: Part) -> bool:
    """Whether units are used one a second, whatever the user does: the clock tells when then (RFC 8506, 5.1.1)."""
    return part.service.unit == _SECONDS and part.service.consumption_time_s is None


_UNRATED: Final = Service("", b"", None, Unit.EVENTS, 1, 1, 0)
_FREE: Final = FreePrice(Unit.EVENTS)


class RequestServices:
    """Every service that one request names. ``when_ms``: when what it reports happened, for prices that change."""

    __slots__ = (
        "draft",
        "now_ms",
        "parts",
        "policies",
        "pricing",
        "profile",
        "request",
        "rules",
        "session",
        "when_ms",
    )

    def __init__(
        self,
        rules: Rules,
        request: CreditControlRequest,
        profile: Profile,
        draft: Draft,
        session: Session,
        when_ms: int,
    ) -> None:
        self.rules = rules
        self.request = request
        self.profile = profile
        self.draft = draft
        self.session = session
        self.now_ms = draft.now_ms
        draft.subscriber = session.subscriber_id
        self.when_ms = when_ms
        self.pricing = Pricing(rules, request, profile, draft, session, when_ms)
        in_force = rules.policies
        self.policies = None if in_force is None else RequestPolicies(rules, in_force, profile, draft, session, when_ms)
        """None: there are no rules."""
        asked = request.services
        if not asked and (request.requested is not None or request.used):
            identifiers = () if request.service_identifier is None else (request.service_identifier,)
            asked = (ServiceRequest(None, identifiers, request.requested, request.used),)
        if request.recipients:
            is_event = request.request_type == EVENT
            asked = tuple(for_each_recipient(each, len(request.recipients), is_event) for each in asked)
        self.parts = [self._part(each) for each in asked]

    # -- which service, at which price -----------------------------------------------------------------------------

    def _part(self, asked: ServiceRequest) -> Part:
        """The service's place in the catalogue, its price and its use so far."""
        session = self.session
        group = -1 if asked.rating_group is None else asked.rating_group
        # A list of services is one grant; its order does not make it another.
        identifier = min(asked.service_identifiers) if asked.service_identifiers else -1
        grant = Grant(group, asked.service_identifiers, SUCCESS)
        use = self.draft.service(session, group, identifier)
        if use is not None:
            if use.unit == _AMOUNT:
                money = money_of(asked)
                if money is not None and money[2] not in (None, self.draft.account.currency):
                    grant.result_code = INVALID_AVP_VALUE  # money of another kind is not worth the same
                    return Part(asked, grant, _UNRATED, _FREE, None)
            rate = price_of(use.unit, use.step_units, use.step_price_micro, use.terms)  # as it has begun
            return Part(asked, grant, self.pricing.service_of(use), rate, use)
        found, offered, use = self.pricing.begin(asked, group, identifier)
        if found is None or offered is None or isinstance(offered, Refusal):
            grant.result_code = offered.result_code if isinstance(offered, Refusal) else RATING_FAILED
            return Part(asked, grant, _UNRATED, _FREE, None)
        if len(session.services) >= SERVICES_A_SESSION:
            use = None
        if use is None:
            grant.result_code = UNABLE_TO_COMPLY
        else:
            self.draft.add_service(session, use)
        return Part(asked, grant, found, offered, use)

    # -- what was used ---------------------------------------------------------------------------------------------

    def settle(self, late: bool = False) -> int:
        """Debit what every service reports and give back the rest; the longest Validity-Time among them, seconds.

        ``late``: supervision has taken the reservations back already, so nothing of this is beyond a grant.
        """
        longest_s = 0
        for part in self.parts:
            use = part.use
            if use is None:
                continue
            asked = part.asked
            reason = asked.reporting_reason
            if reason is not None:
                use.reasons |= reason_bit(reason)
            if asked.used:
                self._settle_usage(part, use, late)
            elif asked.requested is not None or reason is not None:
                release(self.draft, use)
            while use.ahead and self.when_ms >= use.ahead[0]:
                self._price(use, self.pricing.enter_period(use))
            changed = reason is not None and reason == RATING_CONDITION_CHANGE
            if changed or (use.notes and self.pricing.budget_gone(use)):
                self._price(use, self.pricing.rate_anew(use, part.service) or part.rate)
            if part.service.validity_time_s > longest_s:
                longest_s = part.service.validity_time_s
        return longest_s or DEFAULT_VALIDITY_S

    def _settle_usage(self, part: Part, use: ServiceUse, late: bool) -> None:
        units = self._believed(part, use)
        waived = 0
        first = part
        for other in self.parts:
            if other.use is use:
                first = other
                break
        covered = first.covered
        first.covered = covered - units if covered > units else 0
        if units > covered and not late and not use.pool and not part.service.charges_overshoot:
            waived = units - covered
            units = covered
        if use.ahead:
            units = self._settle_before_switch(part, use, units)
        self.pricing.settle(use, part.rate, units)
        if waived:
            leak(self.draft, use, part.rate, waived)

    def _price(self, use: ServiceUse, rate: Rate) -> None:
        """Have a service cost this from here on, wherever the request names it."""
        for part in self.parts:
            if part.use is use:
                part.rate = rate

    def _believed(self, part: Part, use: ServiceUse) -> int:
        """The units reported, cut where they cannot be true; the rest is kept for the charging data record."""
        reported = units_reported(part.asked.used, part.service.unit)
        for each in part.asked.used:
            if each.reporting_reason is not None:
                use.reasons |= reason_bit(each.reporting_reason)
        believed = believable(reported, use, (self.now_ms - self.session.started_ms) // 1000)
        if believed != reported:
            use.disbelieved += reported - believed
            self.draft.disbelieved_reports += 1
        return believed

    def _settle_before_switch(self, part: Part, use: ServiceUse, units: int) -> int:
        """Debit what was used before the tariff switched, if it has; the units that are left for afterwards.

        A client that knows the switch says on which side of it units were used (RFC 8506 section 8.27). Time that
        runs on is split by the clock; of other units that nobody can tell, the whole goes to the side where it is
        cheaper.
        """
        labelled = [0, 0, 0]
        for each in part.asked.used:
            side = each.tariff_change_usage
            labelled[2 if side is None or side > 2 else side] += measure(each, part.service.unit) or 0
        told = labelled[BEFORE_TARIFF_CHANGE] + labelled[AFTER_TARIFF_CHANGE]
        if use.ahead[0] > max(self.when_ms, self.now_ms) + FUTURE_ALLOWED_MS:
            return units  # nobody can have used anything after it yet, whatever the client says
        while use.ahead and (self.when_ms >= use.ahead[0] or labelled[AFTER_TARIFF_CHANGE]):
            before = min(labelled[BEFORE_TARIFF_CHANGE], units)
            after = min(labelled[AFTER_TARIFF_CHANGE], units - before)
            either = units - before - after
            if either and not told and _runs_on(part):
                after_s = max(0, self.when_ms - use.ahead[0]) // 1000
                before = max(0, units - after_s)
            elif either and self._cheaper_before(part, use, before, after, either):
                before += either
            self.pricing.at_ms = min(self.when_ms, use.ahead[0] - 1)
            self.pricing.settle(use, part.rate, before, goes_on=True)
            self.pricing.at_ms = self.when_ms
            units -= before
            self._price(use, self.pricing.enter_period(use))
            # Further switches that passed since: all of this came after the first.
            labelled = [0, 0, 0]
        return units

    def _cheaper_before(self, part: Part, use: ServiceUse, before: int, after: int, either: int) -> bool:
        """Whether units of either side of the switch cost less at the price that ends."""
        ending, beginning = part.rate, Pricing.rate_ahead(use)
        everything = self._in_money(use, before + after + either)

        def cost(units_before: int) -> int:
            in_money = self._in_money(use, units_before)
            return ending.price_micro(use.paid_units + in_money) + beginning.price_micro(everything - in_money)

        return cost(before + either) <= cost(before)

    def _in_money(self, use: ServiceUse, units: int) -> int:
        """How many of the next ``units`` used no allowance will pay for: see ``balance.ledger.settle``."""
        draft = self.draft
        held = sum(amount for bucket_id, amount in use.parts if draft.bucket(bucket_id).unit != Unit.MONEY)
        free = sum(draft.free(bucket) for bucket in draft.in_order(use.unit, use))
        return max(0, min(units, use.granted) - held) + max(0, units - use.granted - free)

    # -- what is granted -------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Reserve what each service asks for. A service that the request leaves out keeps its reservation."""
        all_served = in_service(self.draft.account) and not self.session.refused
        for part in self.parts:
            use = part.use
            if use is None:
                continue
            reason = part.asked.reporting_reason
            if reason is not None and reason == REASON_FINAL:
                use.final = 0  # it has ended; should it begin again, it begins as any other
            elif part.asked.requested is None:
                self._without_request(part, use)
            elif not all_served and self.refused(part):
                pass  # it says why
            elif use.parts or use.granted:
                # The request names the service twice: it has one reservation, so it gets one grant.
                part.grant.result_code = UNABLE_TO_COMPLY
            elif not part.service.maximum_quota_units:
                part.grant.result_code = RATING_FAILED
            else:
                decision = None if self.policies is None else self.decided(part, use)
                if part.grant.result_code == SUCCESS and not part.grant.final:
                    self._reserve_for(part, use, part.asked, decision)
        for part in self.parts:
            # Only now: what a later service reserved may have been the last of the money.
            if part.grant.units > 0 and part.use is not None:
                self._complete(part, part.use)
            elif self.profile.last_second and part.grant.result_code not in (SUCCESS, UNABLE_TO_COMPLY):
                self._end(part)

    def _end(self, part: Part) -> None:
        """Grant a last second, which nobody has paid for, to a client that would go on for longer without it."""
        grant, use = part.grant, part.use
        if use is None or use.unit != _SECONDS or use.final or self.request.request_type != UPDATE:
            return
        use.final = _FINAL_GRANTED
        grant.result_code = SUCCESS
        grant.unit, grant.units, grant.final = use.unit, 1, True
        grant.validity_time_s = part.service.validity_time_s
        grant.avps = self.rules.indications(part.service, self.profile).final_units

    def refused(self, part: Part) -> bool:
        """Whether nothing is granted for a service, whatever the balance; its grant says why then."""
        code = refusal(self.draft.account, self.session.subscriber_id, part.service.essential)
        if not code and self.session.refused:
            code = END_USER_SERVICE_DENIED
        if code:
            part.grant.result_code = code
        return bool(code)

    def decided(self, part: Part, use: ServiceUse) -> Decision:
        """What the policies say of a service, done: its price is another, or its grant says why it gets no units."""
        assert self.policies is not None
        decision = self.policies.decide(use)
        is_free = use.notes is not None and use.notes.is_free
        if decision is AS_PRICED and not is_free:
            return decision
        grant, access = part.grant, decision.access
        if access in REFUSALS:
            grant.result_code = REFUSALS[access]
        elif access is Access.FREE or self.policies.slows(use, decision):
            if not is_free and use.unit != _AMOUNT:
                self._price(use, self.pricing.begin_free(use))
        elif is_free:
            rate = self.pricing.end_free(use)
            if isinstance(rate, Refusal):
                grant.result_code = rate.result_code
            else:
                self._price(use, rate)
        if grant.result_code == SUCCESS:
            told = self.policies.instead(part.service, use, decision)
            if told is not None:
                self._at_once(part, use, told)
                grant.validity_time_s = self.policies.valid_for(use, grant.validity_time_s)
        return decision

    def _without_request(self, part: Part, use: ServiceUse) -> None:
        """Row 31: the client has begun to redirect or restrict, and is told when to ask again."""
        if use.final == _FINAL_GRANTED and part.asked.used and self.request.request_type == UPDATE:
            told = None
            if self.policies is not None:
                told = self.policies.instead(part.service, use, self.policies.decide(use))
            told = told or self.rules.indications(part.service, self.profile)
            if told.keeps_session:
                use.final = _FINAL_ACTING
                part.grant.validity_time_s = told.ask_again_s

    def _reserve_for(self, part: Part, use: ServiceUse, asked: ServiceRequest, decision: Decision | None) -> None:
        grant = part.grant
        wanted = units_wanted(asked.requested, part.service)
        if not wanted:
            # Money that is nothing, or less: an answer without a grant would be read as one without a limit.
            grant.result_code = INVALID_AVP_VALUE
            return
        denied, ends_ms = self.pricing.look_ahead(use)
        if denied is not None:
            grant.result_code = denied.result_code
            return
        grant.validity_time_s = part.service.validity_time_s
        if decision is not None:
            assert self.policies is not None
            reach = self.policies.reach(use, part.rate, decision, wanted, grant.validity_time_s)
            if reach is not None:
                wanted, part.reach_micro, grant.validity_time_s = reach
        wanted = self._within(use, grant, wanted)
        if ends_ms and ends_ms - self.when_ms < grant.validity_time_s * 1000:
            granted = self._reserve_across(part, use, wanted, ends_ms)
        elif use.meters or part.reach_micro is not None:
            granted = self._reserve_at(part, part.rate, use, wanted)
        else:
            granted = reserve(self.draft, use, part.rate, wanted)
        if use.unit == _AMOUNT and granted < wanted:
            release(self.draft, use)  # row 19: the client has rated it; that much or nothing
            granted = 0
        if granted:
            grant.unit = use.unit
            grant.units = granted if part.after is None else granted // 2
        else:
            self._used_up(part, use)

    def _reserve_across(self, part: Part, use: ServiceUse, wanted: int, ends_ms: int) -> int:
        """Reserve units that may be used on either side of a tariff switch (RFC 8506 section 8.20, row 34).

        One quota is priced as if all of it were used where it is dearer; two quotas are reserved at both prices.
        Where that is more than the balance can give, or the client knows no switches, or nothing is sold after it,
        the client is made to ask again at the switch instead.
        """
        grant, draft = part.grant, self.draft
        left_s = self._seconds_until(ends_ms)
        if use.ahead and use.ahead[0] == ends_ms:
            # Units at the prices of two tariff periods are to be reported before a third begins.
            second_ms = self.pricing.second_switch(use, ends_ms)
            if second_ms:
                wanted = self._shorten(use, grant, second_ms, wanted)
            following = self.pricing.rate_ahead(use)
            running = _runs_on(part)
            knows = self.profile.tariff_switch and not running
            if knows and part.service.two_quotas and not draft.in_order(use.unit, use):
                # An allowance would take its share from one side or the other, and money the rest, unevenly.
                self.pricing.aligned(use, part.rate, to_grant=True)
                both = HalfEach(part.rate, following, use.paid_units, use.priced_micro)
                if self._reserve_at(part, both, use, 2 * wanted) == 2 * wanted:
                    grant.switch_s = ends_ms // 1000
                    part.after = Grant(grant.rating_group, grant.service_identifiers, SUCCESS)
                    return 2 * wanted
                release(draft, use)
            elif knows or running or left_s < self.profile.shortest_validity_s:
                self.pricing.aligned(use, part.rate, to_grant=True)
                worst = WorstOfTwo(part.rate, following, use.paid_units, use.priced_micro)
                if self._reserve_at(part, worst, use, wanted) == wanted:
                    grant.switch_s = ends_ms // 1000 if knows else 0
                    return wanted
                release(draft, use)
        wanted = self._shorten(use, grant, ends_ms, wanted)
        return self._reserve_at(part, part.rate, use, wanted)

    def _seconds_until(self, at_ms: int) -> int:
        """By the clock that the client goes by, to the whole second; 1 at least."""
        return max(1, -(-(at_ms - self.when_ms) // 1000))

    def _shorten(self, use: ServiceUse, grant: Grant, until_ms: int, wanted: int) -> int:
        """Have a grant be valid until then at most, as far as the client can bear; the units to grant."""
        validity_s = max(self._seconds_until(until_ms), self.profile.shortest_validity_s)
        grant.validity_time_s = min(grant.validity_time_s, validity_s)
        return self._within(use, grant, wanted)

    def _within(self, use: ServiceUse, grant: Grant, wanted: int) -> int:
        """Units to grant to a client that may be granted no more time than is valid."""
        if use.unit == _SECONDS and self.profile.time_within_validity:
            return min(wanted, grant.validity_time_s)
        return wanted

    def _reserve_at(self, part: Part, rate: Rate, use: ServiceUse, wanted: int) -> int:
        if use.meters:
            if not isinstance(rate, WorstOfTwo | HalfEach):
                self.pricing.aligned(use, rate, to_grant=True)
            rate = self.pricing.for_grant(use, rate)
        if part.reach_micro is not None:
            rate = within(rate, use, part.reach_micro)
        return reserve(self.draft, use, rate, wanted)

    def _used_up(self, part: Part, use: ServiceUse) -> None:
        """There is no credit left: the client redirects or restricts at once, or is refused (rows 30 and 31)."""
        told = None if self.policies is None else self.policies.at_the_end(part.service, use)
        if told is None:
            told = self.rules.indications(part.service, self.profile)
            if use.final == _FINAL_ACTING:
                part.grant.validity_time_s = 0
                part.grant.result_code = CREDIT_LIMIT_REACHED
                return
        self._at_once(part, use, told)

    def _at_once(self, part: Part, use: ServiceUse, told: Indications) -> None:
        """No units: the client redirects or restricts now, or is refused if all it can do is end the service."""
        grant = part.grant
        grant.validity_time_s = 0
        if not told.keeps_session or self.request.request_type == EVENT:
            grant.result_code = CREDIT_LIMIT_REACHED
            return
        use.final = _FINAL_ACTING
        grant.final = True
        grant.avps = told.final_units
        grant.validity_time_s = told.ask_again_s
        if self.request.request_type != INITIAL:
            grant.unit, grant.units = use.unit, 0

    def _complete(self, part: Part, use: ServiceUse) -> None:
        """What goes with the units: the final unit action, thresholds, the pool they belong to."""
        grant = part.grant
        told = self.rules.indications(part.service, self.profile)
        grant.final = not has_more(self.draft, use, self.pricing.for_grant(use, part.rate) if use.meters else part.rate)
        use.final = _FINAL_GRANTED if grant.final else 0
        if grant.final and self.policies is not None:
            told = self.policies.at_the_end(part.service, use) or told
        if not self.request.services:
            # Outside a Multiple-Services-Credit-Control there is only room for what follows the final units.
            grant.avps = told.final_units if grant.final else b""
            return
        avps = told.with_grant(grant.units, grant.final)
        if use.pool and reserved_money(self.draft, use) and len(use.parts) == self._money_parts(use):
            avps += pool_reference(use.pool, use.unit, part.rate)
        after = part.after
        if after is not None:
            after.unit, after.units, after.switch_s = grant.unit, grant.units, grant.switch_s
            after.validity_time_s, after.final = grant.validity_time_s, grant.final
            after.avps = avps + QUOTA_OF_PERIOD[1]
            avps += QUOTA_OF_PERIOD[0]
        grant.avps = avps

    def _money_parts(self, use: ServiceUse) -> int:
        """Reservation parts in money: the units of a pool change hands at their price, those of an allowance cannot."""
        return sum(1 for bucket_id, _ in use.parts if self.draft.bucket(bucket_id).unit == Unit.MONEY)

    def others_wait(self) -> bool:
        """Whether a service that the request does not name has a grant, or redirects or restricts for a time."""
        for use in self.session.services:
            if (use.granted or use.final == _FINAL_ACTING) and not any(part.use is use for part in self.parts):
                return True
        return False

    # -- what came of it -------------------------------------------------------------------------------------------

    @property
    def acted(self) -> tuple[str, ...]:
        """Names of the policy rules that made the answer what it is."""
        return () if self.policies is None else self.policies.acted

    def outcome(self, refuse_if_none: bool) -> Outcome:
        """Row 27: one service's failure is its own; a first request of which nothing is left fails as a whole."""
        request = self.request
        grants: list[Grant] = []
        failures: list[int] = []
        for part in self.parts:
            grants.append(part.grant)
            if part.after is not None:
                grants.append(part.after)
            if part.grant.result_code != SUCCESS:
                failures.append(part.grant.result_code)
        outcome = Outcome(SUCCESS, grants, command_level=bool(grants) and not request.services)
        if self.draft.account.currency != self.rules.catalogue.currency:
            outcome.currency = self.draft.account.currency
        if failures and len(failures) == len(self.parts) and (refuse_if_none or outcome.command_level):
            outcome.result_code = failures[0]
        if RATING_FAILED in failures:
            outcome.failed_avp = self._unrateable(grants)
        if refuse_if_none and not grants and not self.rules.catalogue.knows_context(request.service_context_id):
            outcome.result_code = RATING_FAILED
            outcome.failed_avp = avp("Service-Context-Id", request.service_context_id.decode("utf-8", "replace"))
        return outcome

    def _unrateable(self, grants: list[Grant]) -> bytes:
        """Row 28: Failed-AVP names what could not be rated: the context if unknown, else the Rating-Group."""
        request = self.request
        if self.rules.catalogue.knows_context(request.service_context_id):
            for grant in grants:
                if grant.result_code == RATING_FAILED and grant.rating_group >= 0:
                    return avp("Rating-Group", grant.rating_group)
                if grant.result_code == RATING_FAILED and grant.service_identifiers:
                    return avp("Service-Identifier", grant.service_identifiers[0])
        return avp("Service-Context-Id", request.service_context_id.decode("utf-8", "replace"))
