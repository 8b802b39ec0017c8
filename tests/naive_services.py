"""The services of one request, by the naive ledger: what each costs, what is debited, what it is granted.

Written from RFC 8506, TS 32.299 and the rows of the conformance table, without looking at how ``occ`` does it. Requests
and the catalogue's services are the real ones, as data; nothing that decides about them is.
"""

from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from math import ceil

from balance.model import Unit
from occ.profiles import Profile
from occ.rating.service import Service
from occ.rules import ChargingSettings
from protocols.credit_control import CreditControlRequest, Money, ServiceRequest, Units
from tests.naive_catalogue import NaiveCatalogue, NaiveTariff, Price
from tests.naive_ledger import NaiveLedger, NaiveService

SLACK_S = 60
"""What clocks may differ by."""
MOST_REPORTED = 1 << 54
PACE = {"seconds": 1, "octets": 1_250_000_000, "events": 1000}
"""The most that can be used in a second."""
SLACK = {"seconds": 60, "octets": 1_250_000_000, "events": 1000}
"""What clients may use beyond a grant, or what time allows, and be believed."""
NOT_YET, LAST_GRANTED, ACTING = 0, 1, 2

Cost = Callable[[int], int]
"""What so many more units cost."""


@dataclass
class ExpectedGrant:
    group: int
    identifiers: tuple[int, ...]
    code: int = 2001
    units: int = -1
    unit: int = 0
    validity_s: int = 0
    final: bool = False
    switch_s: int = 0


_serials = count()


@dataclass
class Expected:
    code: int
    grants: list[ExpectedGrant] = field(default_factory=list)
    cost: int = -1
    check: int = -1
    serial: int = field(default_factory=lambda: next(_serials))
    """A repeat is expected to get the answer of the same number."""


@dataclass
class NaiveSession:
    key: bytes
    subscriber: str
    account: str
    plan: str
    host: bytes
    state_id: int
    started_ms: int
    expires_ms: int = 0
    services: dict[tuple[int, int], Hashable] = field(default_factory=dict)
    """(Rating-Group, Service-Identifier) to the name in the ledger."""
    edition: str = ""
    """Of the catalogue that it began with."""
    answers: list[tuple[tuple[int, int], int, Expected, int]] = field(default_factory=list)
    """((type, action), number, answer, seconds after it started)."""
    forgotten: int = -1
    refused: bool = False
    state: str = "open"
    """open, closed, expired, refused, debit."""
    keep_until_ms: int = 0


@dataclass
class Line:
    """One service of a request."""

    asked: ServiceRequest
    grant: ExpectedGrant
    name: Hashable = None
    """Of its service in the ledger; None: it cannot be charged."""
    offer: Service | None = None
    """None: sold no more."""
    after: ExpectedGrant | None = None

    @property
    def validity_s(self) -> int:
        return self.offer.validity_time_s if self.offer else 0


@dataclass(frozen=True)
class NaiveSubscriber:
    name: str
    account: str
    plan: str


def measured(units: Units, unit: str) -> int | None:
    """What a Requested- or Used-Service-Unit says in the unit of the service."""
    if unit == "octets":
        parts = [each for each in (units.input_octets, units.output_octets) if each is not None]
        return units.total_octets if units.total_octets is not None else sum(parts) if parts else None
    if unit == "seconds":
        return units.time
    if unit == "events":
        return units.service_specific
    return None if units.money is None else micro(units.money)


def micro(money: Money) -> int:
    """Rounded up to a whole micro-unit; 0 for a debt."""
    worth = Fraction(money[0]) * Fraction(10) ** (money[1] + 6)
    return min(max(0, ceil(worth)), MOST_REPORTED)


def money_of(asked: ServiceRequest) -> Money | None:
    for each in (asked.requested, *asked.used):
        if each is not None and each.money is not None:
            return each.money
    return None


class NaiveServices:
    """Charges the services of one request after the other; ``NaiveCharging`` says of which sessions."""

    def __init__(
        self,
        ledgers: dict[str, NaiveLedger],
        subscribers: dict[bytes, NaiveSubscriber],
        catalogue: NaiveCatalogue,
        settings: ChargingSettings,
    ) -> None:
        self.ledgers = ledgers
        self.subscribers = subscribers
        """By identity."""
        self.catalogue = catalogue
        self.settings = settings
        self.now_ms = 0
        self.open: dict[bytes, NaiveSession] = {}
        self.ended: dict[bytes, NaiveSession] = {}
        self._opened = 0
        # Of the request being charged:
        self.request: CreditControlRequest
        self.profile: Profile
        self.session: NaiveSession
        self.ledger: NaiveLedger
        self.lines: list[Line]

    def _work_on(self, session: NaiveSession) -> None:
        self.session = session
        self.ledger = self.ledgers[session.account]
        asked = self.request.services
        if not asked and (self.request.requested is not None or self.request.used):
            named = () if self.request.service_identifier is None else (self.request.service_identifier,)
            asked = (ServiceRequest(None, named, self.request.requested, self.request.used),)
        self.lines = [self._line(each) for each in asked]
        known = [line.name for line in self.lines if line.name is not None]
        self._covered = {name: self.ledger.services[name].granted for name in known}
        """Units of its grant that no report of this request has used up, by service."""

    # -- which service, at which price -----------------------------------------------------------------------------

    def _line(self, asked: ServiceRequest) -> Line:
        group = -1 if asked.rating_group is None else asked.rating_group
        identifier = min(asked.service_identifiers, default=-1)
        grant = ExpectedGrant(group, asked.service_identifiers)
        offer = self.catalogue.find(self.request.service_context_id, group, identifier)
        money = money_of(asked)
        name = self.session.services.get((group, identifier))
        if name is not None:
            unit = self.ledger.services[name].unit
            if unit == "amount":
                if money is not None and money[2] not in (None, self.catalogue.currency):
                    grant.code = 5004
                    return Line(asked, grant)
            elif offer is not None and _unit_of(offer) != unit:
                offer = None
            return Line(asked, grant, name, offer)
        price, unit = self._first_price(offer, money)
        if isinstance(price, int):
            grant.code = price
            return Line(asked, grant)
        assert offer is not None
        self._opened += 1
        name = (self.session.key, group, identifier, self._opened)
        service = NaiveService(unit, *price, label=offer.name)
        if offer.pool and self.profile.pools and unit != "amount":
            service.pool = (self.session.key, offer.pool)
        self.session.services[group, identifier] = name
        self.ledger.services[name] = service
        self._look_ahead(service, self._time_of_use())
        return Line(asked, grant, name, offer)

    def _first_price(self, offer: Service | None, money: Money | None) -> tuple[Price | int, str]:
        """The price, or the Result-Code of the refusal; and the unit that is counted."""
        if offer is None:
            return 5031, ""
        if money is not None:
            return (1, 1) if money[2] in (None, self.catalogue.currency) else 5031, "amount"
        tariff = self._tariff(offer.name)
        if tariff is None:
            return 5031, ""
        return self._as_offered(tariff.at(self._time_of_use())[0]), _unit_of(offer)

    def _tariff(self, name: str) -> NaiveTariff | None:
        return self.catalogue.plans.get(self.session.plan, {}).get(name)

    def _as_offered(self, price: Price | int) -> Price | int:
        """Row 28: to a client that takes 4011 for a refusal, what needs no credit control is granted for nothing."""
        return (1, 0) if price == 4011 and not self.profile.credit_control_not_applicable else price

    def _time_of_use(self) -> int:
        """Event-Timestamp if it can be true, else now; never before the session."""
        said = self.request.event_timestamp
        if said is not None and self.profile.event_time:
            earliest, latest = self.now_ms - self.settings.late_termination_ms, self.now_ms + SLACK_S * 1000
            if earliest <= said * 1000 <= latest:
                return max(said * 1000, self.session.started_ms)
        return self.now_ms

    def _look_ahead(self, service: NaiveService, at_ms: int) -> tuple[int, int]:
        """What stands in the way of a service, a Result-Code or 0; when that or its price changes, 0: never.

        Its next price is that of the next period in which it is sold, and stays its next price until then, whatever
        the clock of a client says; unless the catalogue has become another.
        """
        tariff = None if service.unit == "amount" else self._tariff(service.label)
        if tariff is None:
            return 0, 0
        changes = tariff.changes(at_ms)
        if service.switch is None or self.session.edition != self.catalogue.edition or at_ms >= service.switch[0]:
            service.switch = None
            for begins_ms, price in changes:
                offered = self._as_offered(price)
                if not isinstance(offered, int):
                    service.switch = (begins_ms, offered)
                    break
        ends = [begins_ms for begins_ms, price in changes if isinstance(self._as_offered(price), int)]
        ends += [service.switch[0]] if service.switch else []
        offered = self._as_offered(tariff.at(at_ms)[0])
        return offered if isinstance(offered, int) else 0, min(ends, default=0)

    def _enter_period(self, name: Hashable) -> None:
        service = self.ledger.services[name]
        assert service.switch is not None
        at_ms, price = service.switch
        self.ledger.begin_period(name, price)
        self._look_ahead(service, at_ms)

    # -- what was used ---------------------------------------------------------------------------------------------

    def _settle(self, late: bool = False) -> None:
        for line in self.lines:
            if line.name is None:
                continue
            service = self.ledger.services[line.name]
            if line.asked.used:
                self._report(line, service, late)
            elif line.asked.requested is not None or line.asked.reporting_reason is not None:
                self.ledger.release(line.name)
            while service.switch and self._time_of_use() >= service.switch[0]:
                self._enter_period(line.name)
            if line.asked.reporting_reason == 6:
                self._rate_anew(line, service)

    def _report(self, line: Line, service: NaiveService, late: bool) -> None:
        """Debit what is reported, on either side of the tariff switches that have passed, and release the rest."""
        before, after, either = 0, 0, 0
        for each in line.asked.used:
            units = measured(each, service.unit) or 0
            if each.tariff_change_usage == 0:
                before += units
            elif each.tariff_change_usage == 1:
                after += units
            else:
                either += units
        units = self._believed(service, before + after + either)
        waived = 0
        if line.offer and not line.offer.charges_overshoot and not late and not service.pool:
            waived = max(0, units - self._covered[line.name])
            self._covered[line.name] = max(0, self._covered[line.name] - units)
        units -= waived
        told, told_after = bool(before or after), bool(after)
        before = min(before, units)
        after = min(after, units - before)
        either = units - before - after
        promised = units <= service.granted and not waived and not service.has_lent
        leaked, sides = service.leaked, []
        while service.switch and self._has_passed(service, told_after):
            side = self._sides(line, service, before, after, either, told)
            self.ledger.spend(line.name, side)
            self._enter_period(line.name)
            units -= side
            before, after, either, told_after = 0, 0, units, False
            sides.append(side)
        self.ledger.spend(line.name, units)
        switches, most = service.promise
        if promised and len(sides) <= switches and max(*sides, units, 0) <= most:
            # RFC 8506 section 5.1.1: what was used does not exceed the reservation, unless it exceeds the grant.
            assert service.leaked == leaked, "what was granted is paid for"
        self.ledger.leak(line.name, waived)
        self.ledger.release(line.name)

    def _has_passed(self, service: NaiveService, told_after: bool) -> bool:
        """The clock says so, or the client, whose clock may be a little ahead."""
        assert service.switch is not None
        when_ms = self._time_of_use()
        latest_ms = max(when_ms, self.now_ms) + SLACK_S * 1000
        return when_ms >= service.switch[0] or (told_after and service.switch[0] <= latest_ms)

    def _sides(self, line: Line, service: NaiveService, before: int, after: int, either: int, told: bool) -> int:
        """Units that were used before the switch, row 34: what the client says; of seconds that run on, what the
        clock says; what nobody can tell goes to the side where it costs less."""
        assert service.switch is not None
        running = service.unit == "seconds" and (line.offer is None or line.offer.consumption_time_s is None)
        if running and not told:
            after_s = (self._time_of_use() - service.switch[0]) // 1000
            return max(0, either - max(0, after_s))
        prices = [self._price_of_sides(line.name, before + n, after + either - n) for n in (either, 0)]
        return before + (either if prices[0] <= prices[1] else 0)

    def _price_of_sides(self, name: Hashable, before: int, after: int) -> int:
        """Found out by trying."""
        trial = deepcopy(self.ledger)
        service = trial.services[name]
        assert service.switch is not None
        trial.spend(name, before)
        trial.begin_period(name, service.switch[1])
        trial.spend(name, after)
        return service.cost

    def _believed(self, service: NaiveService, reported: int) -> int:
        """Nobody talks longer than the session lasts, or moves more than a line carries; the rest is written down."""
        reported = min(reported, MOST_REPORTED)
        pace = PACE.get(service.unit)
        if pace is None:
            return reported
        possible = (self.now_ms - self.session.started_ms) // 1000 * pace - service.used
        if reported <= max(service.granted, possible) + SLACK[service.unit]:
            return reported
        believed = max(service.granted, possible, 0)
        service.disbelieved += reported - believed
        return believed

    def _rate_anew(self, line: Line, service: NaiveService) -> None:
        """Row 37: what comes is charged by what the catalogue says now."""
        tariff = self._tariff(service.label)
        if tariff is None or line.offer is None or service.unit == "amount":
            return
        price = self._as_offered(tariff.at(self._time_of_use())[0])
        if isinstance(price, int) or price == (service.step, service.step_price):
            return
        self.ledger.begin_period(line.name, price)
        self._look_ahead(service, self._time_of_use())

    # -- what is granted -------------------------------------------------------------------------------------------

    def _reserve(self) -> None:
        for line in self.lines:
            if line.name is None:
                continue
            service = self.ledger.services[line.name]
            if line.asked.reporting_reason == 2:
                service.final = NOT_YET  # row 36: it has ended; should it begin again, all is as at first
            elif line.asked.requested is None:
                self._goes_on_without(line, service)
            elif self.session.refused:
                line.grant.code = 4010
            elif service.granted or service.holds:
                line.grant.code = 5012  # named twice
            elif line.offer is None and service.unit != "amount":
                line.grant.code = 5031  # sold no more
            else:
                self._reserve_for(line, service)
        for line in self.lines:
            if line.grant.units > 0:
                line.grant.final = not self.ledger.has_more(line.name)
                self.ledger.services[line.name].final = LAST_GRANTED if line.grant.final else NOT_YET
            if line.after is not None:
                line.after.final = line.grant.final

    def _acts(self, line: Line) -> int:
        """For how long the client redirects or restricts when the credit is used up; 0: it ends the service."""
        action = line.offer.final_units if line.offer else None
        return action.ask_again_s if action and action.action and self.profile.redirects else 0

    def _goes_on_without(self, line: Line, service: NaiveService) -> None:
        """Row 31."""
        if service.final == LAST_GRANTED and line.asked.used and self.request.request_type == 2 and self._acts(line):
            service.final = ACTING
            line.grant.validity_s = self._acts(line)

    def _reserve_for(self, line: Line, service: NaiveService) -> None:
        grant = line.grant
        assert line.asked.requested is not None
        wanted = measured(line.asked.requested, service.unit)
        if service.unit == "amount":
            wanted = wanted or 0
            if not wanted:
                grant.code = 5004
                return
        else:
            assert line.offer is not None
            wanted = min(wanted or line.offer.quota_units, line.offer.maximum_quota_units)
        code, ends_ms = self._look_ahead(service, self._time_of_use())
        if code:
            grant.code = code
            return
        grant.validity_s = line.validity_s
        granted = self._hold(line, service, wanted, ends_ms)
        if service.unit == "amount" and granted < wanted:
            self.ledger.release(line.name)
            granted = 0
        if granted:
            grant.unit = int(Unit[service.unit.upper()])
            grant.units = granted
            if line.after is not None:
                line.after.unit, line.after.units = grant.unit, granted
                line.after.switch_s, line.after.validity_s = grant.switch_s, grant.validity_s
            return
        grant.validity_s = 0
        if not self._acts(line) or service.final == ACTING:
            grant.code = 4012
            return
        service.final = ACTING  # row 30: at once
        grant.final = True
        grant.validity_s = self._acts(line)
        if self.request.request_type != 1:
            grant.unit, grant.units = int(Unit[service.unit.upper()]), 0

    def _hold(self, line: Line, service: NaiveService, wanted: int, ends_ms: int) -> int:
        """Reserve units; those that may be used on either side of a tariff switch at the most that they can cost."""
        grant, ledger, profile = line.grant, self.ledger, self.profile
        limited = service.unit == "seconds" and profile.time_within_validity
        if limited:
            wanted = min(wanted, grant.validity_s)
        service.promise = 0, wanted
        if not ends_ms or ends_ms - self._time_of_use() >= grant.validity_s * 1000:
            return ledger.grant(line.name, wanted)
        assert line.offer is not None
        left_s = self._left_s(ends_ms)
        if service.switch and service.switch[0] == ends_ms:
            wanted = self._end_before_another(service, grant, ends_ms, wanted)
            service.promise = 0, wanted
            running = service.unit == "seconds" and line.offer.consumption_time_s is None
            knows = profile.tariff_switch and not running
            if knows and line.offer.two_quotas and not ledger.order(service.unit):
                if ledger.grant(line.name, 2 * wanted, self._two_quotas(service), whole=True):
                    grant.switch_s = ends_ms // 1000
                    line.after = ExpectedGrant(grant.group, grant.identifiers)
                    service.promise = 1, wanted
                    return wanted
            elif (knows or running or left_s < profile.shortest_validity_s) and ledger.grant(
                line.name, wanted, self._worst(service), whole=True
            ):
                grant.switch_s = ends_ms // 1000 if knows else 0
                service.promise = 1, wanted
                return wanted
        return ledger.grant(line.name, self._shortened(service, grant, ends_ms, wanted))

    def _end_before_another(self, service: NaiveService, grant: ExpectedGrant, switch_ms: int, wanted: int) -> int:
        """What is priced for two tariff periods is not for a third."""
        tariff = self._tariff(service.label)
        if tariff is not None and tariff.at(switch_ms)[1]:
            return self._shortened(service, grant, tariff.at(switch_ms)[1], wanted)
        return wanted

    def _left_s(self, until_ms: int) -> int:
        """By the clock of the client, to the whole second, at least one."""
        return max(1, ceil((until_ms - self._time_of_use()) / 1000))

    def _shortened(self, service: NaiveService, grant: ExpectedGrant, until_ms: int, wanted: int) -> int:
        """At least what such clients need; how many units may then be granted."""
        grant.validity_s = min(grant.validity_s, max(self._left_s(until_ms), self.profile.shortest_validity_s))
        limited = service.unit == "seconds" and self.profile.time_within_validity
        return min(wanted, grant.validity_s) if limited else wanted

    def _worst(self, service: NaiveService) -> Cost:
        """However the units fall before and after the switch."""
        assert service.switch is not None
        _, price = service.switch
        start = service.price(service.paid_units) - service.charged
        assert start == 0, "what was paid was priced by the price it has"

        def cost(units: int) -> int:
            return max(self._sides_cost(service, price, n, units - n) for n in range(units + 1))

        return cost

    def _two_quotas(self, service: NaiveService) -> Cost:
        """Half of the units on either side."""
        assert service.switch is not None
        _, price = service.switch
        return lambda units: self._sides_cost(service, price, (units + 1) // 2, (units + 1) // 2)

    @staticmethod
    def _sides_cost(service: NaiveService, following: Price, before: int, after: int) -> int:
        later = NaiveService(service.unit, *following)
        return service.price(service.paid_units + before) - service.charged + later.price(after)

    # -- the answer ------------------------------------------------------------------------------------------------

    def _answer(self, first: bool) -> Expected:
        """Row 27."""
        grants = []
        for line in self.lines:
            grants += [line.grant] if line.after is None else [line.grant, line.after]
        codes = [line.grant.code for line in self.lines]
        outside = not self.request.services
        if codes and 2001 not in codes and (first or outside):
            return Expected(next(code for code in codes if code != 2001), grants)
        if first and not codes and not self.catalogue.knows(self.request.service_context_id):
            return Expected(5031)
        return Expected(2001, grants)


def _unit_of(offer: Service) -> str:
    return Unit(offer.unit).name.lower()
