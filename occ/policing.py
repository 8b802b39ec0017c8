"""What the policies in force come to for the services of one request.

Decided on the levels that the account is at once what the request reports is debited, before anything is reserved for
it. ``occ.services`` asks and acts; nothing is debited, reserved or refused here.
"""

from dataclasses import replace
from typing import Final, NamedTuple

from balance.accounts import Notes, ServiceUse, Session
from balance.ledger import Draft
from balance.model import Rate, Unit
from balance.plans import Plan
from occ.codes import AUTHORIZATION_REJECTED, CREDIT_LIMIT_REACHED, END_USER_SERVICE_DENIED
from occ.indications import Indications
from occ.profiles import Profile, Reauthorisation
from occ.rating.price import Limited
from occ.rating.service import Service
from occ.rules import OperatorPolicies, Rules
from policies.policy import Standing
from policies.rules import Access, Case, Decision

REFUSALS: Final = {
    Access.BAR: END_USER_SERVICE_DENIED,
    Access.BAR_FOR_GOOD: AUTHORIZATION_REJECTED,
    Access.NO_CREDIT: CREDIT_LIMIT_REACHED,
}
"""Result-Code of a service that is not granted."""

_MONEY: Final = int(Unit.MONEY)
_OCTETS: Final = int(Unit.OCTETS)
_AMOUNT: Final = int(Unit.AMOUNT)
_FREE: Final = Access.FREE
_FINAL_UNITS: Final = Access.FINAL_UNITS


class Reach(NamedTuple):
    """How far a grant may go."""

    units: int
    """No more than so many."""
    micro: int | None
    """No more than what costs so much; None: any."""
    validity_s: int
    """Validity-Time."""


class RequestPolicies:
    """The policies for one request of one session. ``when_ms``: when what it reports happened."""

    __slots__ = (
        "_asked",
        "_draft",
        "_known",
        "_levels",
        "_policies",
        "_profile",
        "_rules",
        "_session",
        "_standing",
        "_when_ms",
        "acted",
    )

    def __init__(
        self,
        rules: Rules,
        policies: OperatorPolicies,
        profile: Profile,
        draft: Draft,
        session: Session,
        when_ms: int,
    ) -> None:
        self._rules = rules
        self._policies = policies.policies
        self._profile = profile
        self._draft = draft
        self._session = session
        self._when_ms = when_ms
        self._levels: tuple[str, ...] | None = None
        self._known: dict[tuple[str, str], Standing] | None = None
        """By service and zone, what the policies have found out before for such an account."""
        self._asked: ServiceUse | None = None
        """Whom ``_standing`` is of."""
        self._standing: Standing
        self.acted: tuple[str, ...] = ()
        """Names of the rules that made the answer what it is, so far."""

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that the account is at; to be asked once all usage is debited."""
        if self._levels is None:
            self._levels = self._policies.levels_of(self._draft.account, self._draft.now_ms)
        return self._levels

    def tell(self, plan: Plan) -> None:
        """Spare whoever watches accounts to find out the levels again, for plans that debited nothing afterwards."""
        if self._levels is not None:
            plan.levels, plan.levels_by = self._levels, self._policies

    def _case(self, use: ServiceUse) -> Case:
        session = self._session
        segment = session.customer[0] if session.customer else ""
        return Case(self._draft.account.kind, session.plan, segment, use.name, use.zone)

    def decide(self, use: ServiceUse) -> Decision:
        """What becomes of a service; the rules that say so are noted for its charging data record."""
        known = self._known
        if known is None:
            session, account = self._session, self._draft.account
            segment = session.customer[0] if session.customer else ""
            known = self._known = self._policies.standings(
                account.kind, session.plan, segment, self.levels, account.credit_limit_micro, self._when_ms
            )
        standing = known.get((use.name, use.zone))
        if standing is None:
            limit_micro = self._draft.account.credit_limit_micro
            standing = self._policies.standing(*self._case(use), self.levels, limit_micro, self._when_ms)
        self._asked, self._standing = use, standing
        decision = standing.decision
        if decision.rules:
            self._note(use, decision.rules)
        return decision

    def _note(self, use: ServiceUse, names: tuple[str, ...]) -> None:
        self.acted = _joined(self.acted, names)
        notes = use.notes or Notes()
        known = _joined(notes.policies, names)
        if known is not notes.policies:
            use.notes = notes._replace(policies=known)

    # -- no more units ---------------------------------------------------------------------------------------------

    def instead(self, service: Service, use: ServiceUse, decision: Decision) -> Indications | None:
        """What the client does with a service in place of using units; None: it is granted units, or refused.

        A throttle slows traffic down for nothing where its rule base has a name and the client takes restrictions;
        other clients are granted units as before, and only the network is told of it.
        """
        if decision.access is _FINAL_UNITS:
            return self._rules.restricted(service, self._profile, decision.final_units)
        if not self.slows(use, decision):
            return None
        return self._rules.restricted(service, self._profile, "", decision.throttle)

    def slows(self, use: ServiceUse, decision: Decision) -> bool:
        """Whether the client itself slows a service down: what it then reports costs nothing."""
        if not decision.throttle or decision.access in REFUSALS or use.unit != _OCTETS:
            return False
        return bool(self._policies.throttles[decision.throttle].filter_id) and self._profile.redirects

    def at_the_end(self, service: Service, use: ServiceUse) -> Indications | None:
        """What the client will do once all that is reserved is used up: final units say so beforehand.

        None: what the catalogue says.
        """
        account = self._draft.account
        buckets = [bucket.copy() for bucket in account.buckets]
        for bucket in buckets:
            bucket.balance -= bucket.reserved
        levels = self._policies.levels_of(replace(account, buckets=buckets), self._draft.now_ms)
        decision = self._policies.decide(self._case(use), levels, self._when_ms)
        return self.instead(service, use, decision)

    def valid_for(self, use: ServiceUse, validity_s: int) -> int:
        """Validity-Time in seconds: so long, but not beyond the hours of a rule that changes the decision; 0: none."""
        ends_ms = self._policies.changes_ms(self._when_ms, self._case(use), self.levels)
        return self._until(ends_ms, validity_s) if ends_ms and validity_s else validity_s

    def _until(self, ends_ms: int, validity_s: int) -> int:
        left_s = -(-(ends_ms - self._when_ms) // 1000)
        return min(validity_s, max(1, self._profile.shortest_validity_s, left_s))

    # -- how much --------------------------------------------------------------------------------------------------

    def reach(self, use: ServiceUse, rate: Rate, decision: Decision, wanted: int, validity_s: int) -> Reach | None:
        """How far a grant of ``wanted`` units that is valid for ``validity_s`` seconds may go; None: all the way.

        No further than to where the account, with all that is granted, comes to a level at which this service is
        decided on in another way, but at least one step of its price, or it would never come there. No longer than
        until a rule's hours begin or end. And not for long where the threshold is near and the client cannot be asked
        to report earlier. ``decide`` must come before.
        """
        assert use is self._asked
        policies, account = self._policies, self._draft.account
        _, floor_micro, moves = self._standing
        ends_ms = policies.changes_ms(self._when_ms, self._case(use), self.levels) if policies.has_windows else 0
        until_s = self._until(ends_ms, validity_s) if ends_ms else validity_s
        most = decision.most_units
        units = most if most and most < wanted else wanted
        micro: int | None = None
        if use.unit == _AMOUNT:
            units = wanted  # row 19: the client has rated it, that much or nothing
        elif (floor_micro is not None or moves) and (decision.access is not _FREE or use.name in self._rules.meters):
            now_ms, room_units = self._draft.now_ms, None
            money = reserved = 0
            for bucket in account.buckets:
                if bucket.unit == _MONEY and not bucket.name and not bucket.owner:
                    reserved += bucket.reserved  # ``use`` itself holds nothing now
                    if not 0 < bucket.expires_ms <= now_ms:  # as ``money_of``
                        money += bucket.balance
            if moves:
                room_micro, room_units = policies.room(self._case(use), account, now_ms, self.levels)
            else:
                room_micro = None if floor_micro is None else money - floor_micro
            near = False
            if room_units is not None:
                room_units -= self._granted_elsewhere(use)
                near = room_units < 2 * units
                units = min(units, max(room_units, use.step_units))
            if room_micro is not None:
                room_micro -= reserved
                paid_units, priced_micro = use.paid_units, use.priced_micro
                near = near or rate.price_micro(paid_units + 2 * units) - priced_micro > room_micro
                if near and rate.price_micro(paid_units + units) - priced_micro > room_micro:
                    micro = max(room_micro, rate.price_micro(paid_units + 1) - priced_micro)
            if near and self._shortest_near_s:
                until_s = min(until_s, self._shortest_near_s)
        if units == wanted and micro is None and until_s == validity_s:
            return None
        return Reach(units, micro, until_s)

    @property
    def _shortest_near_s(self) -> int:
        """Validity-Time near a threshold, for a client that no RAR makes report; 0: as long as elsewhere."""
        profile = self._profile
        if profile.reauthorisation is Reauthorisation.FULL or not profile.near_threshold_s:
            return 0
        return max(profile.near_threshold_s, profile.shortest_validity_s)

    def _granted_elsewhere(self, use: ServiceUse) -> int:
        """Units granted to others that are counted, or taken, where those of ``use`` are."""
        granted = 0
        sessions = self._draft.account.sessions
        own = self._session.session_id
        for session in (self._session, *(each for key, each in sessions.items() if key != own)):
            for other in session.services:
                if other is use or other.unit != use.unit or not other.granted:
                    continue
                if other.name == use.name or any(name in use.allowances for name in other.allowances):
                    granted += other.granted
        return granted


def within(rate: Rate, use: ServiceUse, micro: int) -> Rate:
    """A price of which no more than ``micro`` may be granted."""
    return Limited(rate, use.priced_micro, micro)


def _joined(known: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """``known`` itself if it has them all."""
    more = tuple(name for name in names if name not in known)
    return known + more if more else known
