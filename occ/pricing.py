"""What the services of one request cost: which tariff, which promotions, which caps, and when that changes.

A service keeps the price it began with (``ServiceUse.step_units`` and what follows) until its tariff or its promotions
change, or conditions do (row 37), whatever becomes of the catalogue. What is counted beyond a session, for tiers, caps
and promotions, is counted by meters of the account (``balance.model.Meter``).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from balance.accounts import Notes, ServiceUse, Session
from balance.ledger import Draft, reserved_money, settle, settle_so_far
from balance.model import Rate, Unit
from balance.periods import begin_period, count_from, mark_period, write_off
from occ.codes import CREDIT_CONTROL_NOT_APPLICABLE, RATING_FAILED
from occ.profiles import Profile
from occ.rating.caps import Capped, Limited
from occ.rating.offered import Offered, effective
from occ.rating.periods import Counter, Period, counter_of
from occ.rating.price import CLIENT_RATED, FreePrice, continued, counted_over, full_terms, price_of
from occ.rating.promotions import Applied, Customer, always
from occ.rating.recipients import dearest, price_of_all
from occ.rating.service import Service
from occ.rating.tariff import Price, Refusal, Tariff
from occ.rules import Rules
from occ.service_units import in_money, money_of
from protocols.credit_control import CreditControlRequest, ServiceRequest

COUNTS: Final = 0
"""A meter of units, for tiers and promotions."""
CAPS: Final = 1
"""A meter of money, for what is left of a cap."""
LIMITS: Final = 2
"""A meter of money, for what is left of a member's cap."""

GAPS: Final = 16
"""Periods in a row in which a service is not sold that are looked over for one in which it is."""

_AMOUNT: Final = int(Unit.AMOUNT)


class Pricing:
    """Prices for one request of one session. ``when_ms``: when what it reports happened."""

    __slots__ = (
        "_budgets",
        "_catalogue",
        "_draft",
        "_meters",
        "_periods",
        "_profile",
        "_request",
        "_session",
        "_when_ms",
        "at_ms",
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
        self._budgets = rules.budgets
        self._catalogue = rules.catalogue
        self._meters = rules.meters
        self._periods = rules.periods
        self._request = request
        self._profile = profile
        self._draft = draft
        self._session = session
        self._when_ms = when_ms
        self.at_ms = when_ms
        """When what is settled or granted is used, for what is counted by day and month."""

    # -- a service that begins ---------------------------------------------------------------------------------------

    def begin(
        self, asked: ServiceRequest, group: int, identifier: int
    ) -> tuple[Service | None, Rate | Refusal | None, ServiceUse | None]:
        """The service that a request means, its price or why it is refused, and its use, which is nothing so far.

        The price is the plan's, or the client's own if it asks in money. All None: it cannot be rated.
        """
        catalogue = self._catalogue
        tariff: Tariff | None = None
        if self._request.recipients:
            found, zone, tariff = self._of_recipients(asked, group, identifier)
        else:
            found, zone = catalogue.find(self._request, group, identifier)
        if found is None:
            return None, None, None
        money = money_of(asked)
        if money is not None:
            if money[2] not in (None, catalogue.currency_of(self._session.plan)):
                return None, None, None
            return in_money(found, found.name), CLIENT_RATED, ServiceUse(group, identifier, found.name, _AMOUNT)
        if tariff is None:
            tariff = catalogue.tariff(self._session.plan, found.name, zone)
        if tariff is None:
            return None, None, None
        use = ServiceUse(group, identifier, found.name, int(found.unit))
        use.zone = zone
        use.allowances = catalogue.allowances_for(found.name)
        offered = self._effective(use, tariff, self._when_ms)
        price = self._told(offered.price, found.unit)
        if isinstance(price, Refusal):
            return found, price, None
        use.step_units, use.step_price_micro, use.terms = full_terms(price)
        self._note_meters(use, price, offered.applied)
        band = tariff.band(self._when_ms)
        if self._draft.now_ms != self._session.started_ms:
            mark_period(use, self._when_ms, self.version, band)
        elif band:
            use.notes = (use.notes or Notes())._replace(band=band)
        if found.pool and self._profile.pools:
            use.pool = found.pool
        if not self._request.recipients:
            self._note_switch(use, tariff, offered)
        return found, price, use

    def _of_recipients(
        self, asked: ServiceRequest, group: int, identifier: int
    ) -> tuple[Service | None, str, Tariff | None]:
        """The service and zone of the dearest recipient of a message, and what it costs to all; None: not sold to one.

        The price is that of this moment: a message is sent at once.
        """
        catalogue, request = self._catalogue, self._request
        found: list[tuple[Service, str]] = []
        prices: list[Price] = []
        for number in request.recipients:
            service, zone = catalogue.find(replace(request, called_party=number), group, identifier)
            tariff = None if service is None else catalogue.tariff(self._session.plan, service.name, zone)
            if service is None or tariff is None or service.unit != Unit.EVENTS:
                return None, "", None
            found.append((service, zone))
            prices.append(tariff.at(self._when_ms)[0])
        units = 0 if asked.requested is None else asked.requested.service_specific or 0
        parts = max(1, -(-units // len(prices)))
        return *found[dearest(prices)], Tariff.of(price_of_all(prices, parts))

    def service_of(self, use: ServiceUse) -> Service:
        """The service of a use as the catalogue has it now; one that is sold no more is charged, not granted."""
        found = self._catalogue.by_name.get(use.name)
        if found is not None and found.unit == use.unit != _AMOUNT:
            return found
        if use.unit == _AMOUNT:
            return in_money(found, use.name)
        return Service(use.name, b"", None, Unit(use.unit), 0, 0, 0)

    @property
    def version(self) -> str:
        """Edition of the catalogue now, if it is another than when the session began; else nothing."""
        edition = self._catalogue.edition
        return edition if edition != self._session.catalogue else ""

    def _told(self, price: Rate | Refusal, unit: int) -> Rate | Refusal:
        """A price as such a client can be told it: one that takes 4011 for a refusal is granted free units instead."""
        if not isinstance(price, Refusal):
            return price
        if price.result_code == CREDIT_CONTROL_NOT_APPLICABLE:
            return price if self._profile.credit_control_not_applicable else FreePrice(Unit(unit))
        return price

    def _effective(self, use: ServiceUse, tariff: Tariff, at_ms: int) -> Offered:
        promotions = self._catalogue.promotions
        if not promotions.all:
            return effective(tariff, at_ms, None, use.used, use.cost_micro)
        segment, friends, activated_ms, called = self._session.customer or ("", (), 0, b"")
        customer = Customer(segment, friends, activated_ms, self._draft.account.cycle_day)
        spend = self._has_budget if promotions.budgeted else always

        def applied(moment_ms: int) -> Applied:
            return promotions.for_use(
                use.name, self._session.plan, customer, moment_ms, called, self._counted, spend, use.used
            )

        return effective(tariff, at_ms, applied, use.used, use.cost_micro)

    def _counted(self, counter: Counter, at_ms: int) -> int:
        for meter in self._draft.account.meters:
            if meter.name == counter.name:
                return meter.units if at_ms < meter.resets_ms else 0
        return 0

    # -- prices that change ------------------------------------------------------------------------------------------

    def look_ahead(self, use: ServiceUse) -> tuple[Refusal | None, int]:
        """What stands in the way of a service now, if anything; when its price changes or it is no longer to be had,
        ms, 0 for never. The switch is noted with the use: over hours in which it is not sold, that to what comes after.
        """
        if use.unit == _AMOUNT or self._request.recipients or (use.notes is not None and use.notes.is_free):
            return None, 0
        tariff = self._catalogue.tariff(self._session.plan, use.name, use.zone)
        if tariff is None:
            return None, 0
        price, change_ms = tariff.at(self._when_ms)
        if not (use.ahead and use.ahead[0] > self._when_ms and not self.version):
            # Else it stays as noted: a service is not taken back into a period that it has left, whatever a clock says.
            if change_ms or self._catalogue.promotions.all:
                self._note_switch(use, tariff, self._effective(use, tariff, self._when_ms))
            else:
                use.ahead = ()
        if isinstance(price, Refusal):  # else it is not asked for: this is the hot path
            denied = self._told(price, use.unit)
            if isinstance(denied, Refusal):
                return denied, change_ms
        if not change_ms:
            return None, use.ahead[0] if use.ahead else 0
        return None, self._sold_until(use, tariff, change_ms)

    def _sold_until(self, use: ServiceUse, tariff: Tariff, change_ms: int) -> int:
        """When the switch that is noted comes, or before it the service is no longer to be had, ms, 0 for never.

        ``change_ms``: when the tariff changes next.
        """
        ahead_ms = use.ahead[0] if use.ahead else 0
        for _ in range(GAPS):
            if not change_ms or 0 < ahead_ms <= change_ms:
                break
            price, next_ms = tariff.at(change_ms)
            if isinstance(self._told(price, use.unit), Refusal):
                return change_ms
            change_ms = next_ms
        return ahead_ms

    def _note_switch(self, use: ServiceUse, tariff: Tariff, offered: Offered) -> None:
        """Note when the price changes next, and to what; where the service is not sold for a while, after that."""
        use.ahead = ()
        at_ms = offered.until_ms
        for _ in range(GAPS):
            if not at_ms:
                return
            following = self._effective(use, tariff, at_ms)
            price = self._told(following.price, use.unit)
            if not isinstance(price, Refusal):
                break
            at_ms = following.until_ms
        else:
            return
        step_units, step_price_micro, more = full_terms(price)
        use.ahead = (at_ms, step_units, step_price_micro, *more)
        version, band = self.version, tariff.band(at_ms)
        if version or band or use.notes is not None:
            use.notes = (use.notes or Notes())._replace(next_version=version, next_band=band)

    def second_switch(self, use: ServiceUse, first_ms: int) -> int:
        """When the price after the switch at ``first_ms`` is over in turn, ms; 0 for never."""
        tariff = self._catalogue.tariff(self._session.plan, use.name, use.zone)
        return 0 if tariff is None else self._effective(use, tariff, first_ms).until_ms

    @staticmethod
    def rate_ahead(use: ServiceUse) -> Rate:
        """The price after the tariff switch, for what is used then."""
        following = price_of(use.unit, use.ahead[1], use.ahead[2], use.ahead[3:])
        return continued(following, use.used, use.cost_micro)

    def enter_period(self, use: ServiceUse) -> Rate:
        """The tariff has switched: what is used from here on has this price."""
        at_ms, rate = use.ahead[0], self.rate_ahead(use)
        tariff = self._catalogue.tariff(self._session.plan, use.name, use.zone)
        offered = None if tariff is None else self._effective(use, tariff, at_ms)
        if offered is not None and (offered.applied.names or self._catalogue.promotions.budgeted):
            # Only now is known what promotions have given so far, and what is left of their budgets.
            price = self._told(offered.price, use.unit)
            rate = rate if isinstance(price, Refusal) else price
        notes = use.notes or Notes()
        self._begin_period(use, at_ms, rate, notes.next_version, notes.next_band)
        if tariff is not None and offered is not None:
            self._note_meters(use, rate, offered.applied)
            self._note_switch(use, tariff, offered)
        return rate

    def rate_anew(self, use: ServiceUse, service: Service) -> Rate | None:
        """Row 37: conditions have changed, what comes is charged by what the catalogue says now; None: the same."""
        if use.unit != service.unit or use.unit == _AMOUNT or self._request.recipients:
            return None
        _, zone = self._catalogue.find(self._request, use.rating_group, use.service_identifier)
        tariff = self._catalogue.tariff(self._session.plan, service.name, zone or use.zone)
        if tariff is None:
            return None
        use.zone = zone or use.zone
        if use.notes is not None and use.notes.is_free:
            return None
        offered = self._effective(use, tariff, self._when_ms)
        rate = self._told(offered.price, use.unit)
        if isinstance(rate, Refusal) or full_terms(rate) == (use.step_units, use.step_price_micro, use.terms):
            return None
        self._begin_period(use, self._when_ms, rate, self.version, tariff.band(self._when_ms))
        self._note_meters(use, rate, offered.applied)
        self._note_switch(use, tariff, offered)
        return rate

    def begin_free(self, use: ServiceUse) -> Rate:
        """A policy rule has a service cost nothing from here on, whatever its tariff."""
        rate = FreePrice(Unit(use.unit))
        use.ahead = use.meters = ()
        self._begin_period(use, self._when_ms, rate, self.version, "")
        use.notes = (use.notes or Notes())._replace(is_free=True, promotions=())
        return rate

    def end_free(self, use: ServiceUse) -> Rate | Refusal:
        """No rule has it cost nothing any more: it costs what its tariff says now, from here on."""
        tariff = self._catalogue.tariff(self._session.plan, use.name, use.zone)
        if tariff is None:
            return Refusal(RATING_FAILED)
        offered = self._effective(use, tariff, self._when_ms)
        rate = self._told(offered.price, use.unit)
        if isinstance(rate, Refusal):
            return rate
        self._begin_period(use, self._when_ms, rate, self.version, tariff.band(self._when_ms))
        use.notes = (use.notes or Notes())._replace(is_free=False)
        self._note_meters(use, rate, offered.applied)
        self._note_switch(use, tariff, offered)
        return rate

    @staticmethod
    def _begin_period(use: ServiceUse, at_ms: int, rate: Rate, version: str, band: str) -> None:
        step_units, step_price_micro, more = full_terms(rate)
        begin_period(use, at_ms, step_units, step_price_micro, version, band)
        use.terms = more

    # -- meters ------------------------------------------------------------------------------------------------------

    def _note_meters(self, use: ServiceUse, price: Rate, applied: Applied) -> None:
        """Which meters of the account count the use: for tiers and promotions, caps, and caps on the member."""
        found: list[tuple[Any, ...]] = []
        over = counted_over(price)
        if over != Period.SESSION:
            found.append((COUNTS, counter_of(use.name, over).name, int(over), 0))
        caps = self._catalogue.caps(self._session.plan, use.name)
        found += [(CAPS, cap.counter.name, int(cap.counter.period), cap.limit_micro) for cap in caps]
        for counter in applied.counters:
            if all(counter.name != known[1] for known in found):
                found.append((COUNTS, counter.name, int(counter.period), 0))
        if self._session.caps:
            member = self._session.subscriber_id.decode("utf-8", "replace")
            for period, limit_micro in zip((Period.DAY, Period.MONTH), self._session.caps, strict=True):
                if limit_micro:
                    found.append((LIMITS, counter_of(f"member {member}", period).name, int(period), limit_micro))
        use.meters = tuple(found)
        if self._catalogue.promotions.budgeted:
            self._count_times(applied.names)
        if applied.names or use.notes is not None:
            use.notes = (use.notes or Notes())._replace(promotions=applied.names)

    def aligned(self, use: ServiceUse, rate: Rate, to_grant: bool = False) -> None:
        """Have a price that is counted over a day or a month go on from where the account's meter is.

        ``to_grant``: from where it will be once others have used what they are granted: a cheap tier is given once.
        """
        over = counted_over(rate)
        if over == Period.SESSION:
            return
        name = counter_of(use.name, over).name
        meter = self._draft.metered(name, self.at_ms)
        units = meter.units if meter is not None else 0
        if to_grant:
            units += sum(
                other.granted for _, other in self._others(use) if any(each[1] == name for each in other.meters)
            )
        count_from(use, rate, units)

    def _others(self, use: ServiceUse) -> Iterator[tuple[Session, ServiceUse]]:
        """The other services of the account that are being used, of this session and all others."""
        sessions = self._draft.account.sessions
        for session in (self._session, *(each for key, each in sessions.items() if key != self._session.session_id)):
            for other in session.services:
                if other is not use:
                    yield session, other

    def for_usage(self, use: ServiceUse, rate: Rate) -> Rate:
        """The price of what was used: what is beyond a cap costs nothing. ``aligned`` must come before."""
        left_micro = self._left(use, CAPS)
        return rate if left_micro is None else Capped(rate, use.paid_units, use.priced_micro, left_micro)

    def for_grant(self, use: ServiceUse, rate: Rate) -> Rate:
        """The price of what is to be granted: no more than what the member may spend."""
        rate = self.for_usage(use, rate)
        left_micro = self._left(use, LIMITS)
        if left_micro is None:
            return rate
        member = self._session.subscriber_id
        held = sum(
            reserved_money(self._draft, other) for whose, other in self._others(use) if whose.subscriber_id == member
        )
        return Limited(rate, use.priced_micro, left_micro - held)

    def _left(self, use: ServiceUse, kind: int) -> int | None:
        """Micro-units that are left of the caps of a kind, the smallest; None: there are none."""
        smallest: int | None = None
        for each, name, _, limit_micro in use.meters:
            if each == kind:
                meter = self._draft.metered(name, self.at_ms)
                left = max(0, limit_micro - (meter.micro if meter is not None else 0))
                smallest = left if smallest is None else min(smallest, left)
        return smallest

    def settle(self, use: ServiceUse, rate: Rate, units: int, goes_on: bool = False) -> None:
        """Debit units that were used, and count them. ``goes_on``: the rest of the report is at another price."""
        counted = self._meters.get(use.name)
        if counted is not None:
            cost_micro = use.cost_micro
            self._settle(use, rate, units, goes_on)
            for each in counted:
                self._count(each.name, each.period, units, use.cost_micro - cost_micro)
        elif goes_on or use.meters or use.notes is not None:
            self._settle(use, rate, units, goes_on)
        else:
            settle(self._draft, use, rate, units, self._session)

    def _settle(self, use: ServiceUse, rate: Rate, units: int, goes_on: bool) -> None:
        """Debit units, and have the meters count those that were priced."""
        debit = settle_so_far if goes_on else settle
        if not use.meters:
            paid_units = use.paid_units
            debit(self._draft, use, rate, units, self._session)
            if use.notes is not None and use.notes.promotions:
                self._count_saved(use, rate, paid_units, None)
            return
        self.aligned(use, rate)
        paid_units, cost_micro = use.paid_units, use.cost_micro
        price = self.for_usage(use, rate)
        debit(self._draft, use, price, units, self._session)
        if use.notes is not None and use.notes.promotions:
            self._count_saved(use, rate, paid_units, price.left_micro if isinstance(price, Capped) else None)
        if price is not rate:
            write_off(use, rate)
        more_units, more_micro = use.paid_units - paid_units, use.cost_micro - cost_micro
        for _, name, period, _ in use.meters:
            self._count(name, Period(period), more_units, more_micro)

    def _count(self, name: str, period: Period, units: int, micro: int) -> None:
        """Have a meter of the account count what was used, unless it is counting a later period by now."""
        if units or micro:
            ends_ms = self._periods.end_ms(period, self.at_ms, self._draft.account.cycle_day)
            meter = self._draft.meter(name, ends_ms)
            if meter.resets_ms == ends_ms:
                meter.units += units
                meter.micro += micro

    # -- budgets -----------------------------------------------------------------------------------------------------

    def budget_gone(self, use: ServiceUse) -> bool:
        """Whether a promotion that makes the price of a service has given away all it may: nothing more is taken off.

        What was counted in times goes on where it has begun.
        """
        notes, budgeted = use.notes, self._catalogue.promotions.budgeted
        if notes is None or not budgeted:
            return False
        return any(name in budgeted and not self._has_budget(name, 0) for name in notes.promotions)

    def _has_budget(self, name: str, amount: int) -> bool:
        """Whether a promotion may give so much, or anything for 0; a ``Spend`` that takes nothing."""
        budget = self._catalogue.promotions.by_name[name].budget
        if budget is None or (budget.in_times and self._has_begun(name)):
            return True
        spent = self._draft.spent
        gone = self._budgets.gone(name) + (spent.get(name, 0) if spent else 0)
        return gone + amount <= budget.amount if amount else gone < budget.amount

    def _has_begun(self, name: str) -> bool:
        """Whether a promotion makes the price of any service of the session."""
        return any(use.notes is not None and name in use.notes.promotions for use in self._session.services)

    def _count_times(self, names: tuple[str, ...]) -> None:
        """Take one from the budgets in times of promotions that begin with the session, or in the midst of it."""
        for name in names:
            budget = self._catalogue.promotions.by_name[name].budget
            if budget is not None and budget.in_times and not self._has_begun(name):
                self._draft.spend(name, 1)

    def _count_saved(self, use: ServiceUse, rate: Rate, paid_units: int, left_micro: int | None) -> None:
        """Take from the budgets of discounts what they took off since ``paid_units`` had been paid."""
        promotions = self._catalogue.promotions
        if not promotions.budgeted or use.notes is None:
            return
        for name, saved_micro in promotions.saved(use.notes.promotions, rate, paid_units, use.paid_units, left_micro):
            budget = promotions.by_name[name].budget
            if saved_micro and budget is not None and not budget.in_times:
                self._draft.spend(name, saved_micro)
