"""The arithmetic of money: settle, reserve, release, top up, expire. Pure; with ``balance.fees`` all that debits.

All functions work on a ``Draft`` of one account; only one that owns its snapshot changes that. What a draft
changed becomes a ``Plan`` with its journal record (``balance.journal``); the store then writes all of it or nothing.

Rules kept by every function here, and checked by ``balance.verify`` over a whole store:

- ``bucket.reserved`` is the sum of the reservation parts of all open sessions on that bucket;
- no bucket goes below zero, but for the main one, which never goes below minus the credit limit of its account;
- a service's cumulative price is debited once: what was debited plus what leaked equals the price of what was used.
"""

from typing import Final

from balance.accounts import Account, Before, ServiceUse, Session
from balance.model import LARGEST, MAIN_BUCKET, UNLIMITED, Bucket, LedgerError, Meter, Offer, Rate, Unit

_MONEY: Final = int(Unit.MONEY)


def spending_order(bucket: Bucket) -> tuple[int, int, int]:
    """Sort key: lowest priority number first, then the one that expires first, then the oldest."""
    return bucket.priority, bucket.expires_ms or UNLIMITED, bucket.bucket_id


class Draft:
    """One account while an operation is being worked out: a copy of the snapshot that it is made from.

    ``own``: the snapshot is the caller's own and of no use to anybody afterwards; it is changed itself.
    """

    __slots__ = (
        "_allowances",
        "_by_unit",
        "_money",
        "_named",
        "_own",
        "_own_services",
        "_own_sessions",
        "account",
        "before",
        "debited_micro",
        "disbelieved_reports",
        "leaked_micro",
        "now_ms",
        "refunded_micro",
        "reservations_delta",
        "sessions_delta",
        "spent",
        "subscriber",
        "taken",
    )

    def __init__(self, account: Account, now_ms: int, own: bool = False) -> None:
        self.before = Before(account)
        self.now_ms = now_ms
        self._own = own
        self.account = account if own else _copy(account)
        self._money: list[Bucket] = []
        self._allowances = self._named = False
        for bucket in self.account.buckets:
            if bucket.unit == _MONEY:
                self._money.append(bucket)
            else:
                self._allowances = True
            if bucket.name or bucket.owner:
                self._named = True
        if len(self._money) > 1:
            self._money.sort(key=spending_order)
        self._by_unit: dict[int, list[Bucket]] = {}
        """Allowances in the order they are spent, once they were asked for."""
        self.subscriber = b""
        """Who uses the services that are charged: buckets of other members are not theirs to spend."""
        self._own_sessions: set[bytes] = set()
        self._own_services: list[ServiceUse] = []
        self.debited_micro = 0
        """Money taken from the account so far."""
        self.leaked_micro = 0
        """Price of usage that no balance covered so far."""
        self.refunded_micro = 0
        """Money given back to the account so far."""
        self.taken: list[tuple[int, int]] | None = None
        """Set to a list by who wants to know what is debited: (bucket_id, amount) in the bucket's own unit."""
        self.reservations_delta = 0
        """Reservations made less those given back so far."""
        self.sessions_delta = 0
        self.disbelieved_reports = 0
        self.spent: dict[str, int] | None = None
        """What was taken from which budget so far; None: nothing."""

    def free(self, bucket: Bucket) -> int:
        """What a bucket can still give: balance, less reserved, plus the credit limit on the main bucket; >= 0.

        An expired bucket gives nothing new, but what was reserved in it before stays good.
        """
        if bucket.expires_ms and bucket.expires_ms <= self.now_ms:
            return 0
        free = bucket.balance - bucket.reserved
        if bucket.bucket_id == MAIN_BUCKET:
            free += self.account.credit_limit_micro
        return free if free > 0 else 0

    def available_micro(self, use: ServiceUse | None = None) -> int:
        """Money that can still be reserved for a service; None: for anything at all."""
        total = 0
        for bucket in self.in_order(_MONEY, use) if self._named else self._money:
            total += self.free(bucket)
        return total

    def in_order(self, unit: int, use: ServiceUse | None = None) -> list[Bucket]:
        """Buckets of a unit that may be spent on a service, in the order they are spent; None: on anything at all."""
        if unit == _MONEY:
            found = self._money
        elif not self._allowances:
            return []
        else:
            known = self._by_unit.get(unit)
            found = self._sorted(unit) if known is None else known
        if self._named:
            return [bucket for bucket in found if self.serves(bucket, use)]
        return found

    def _sorted(self, unit: int) -> list[Bucket]:
        found = [bucket for bucket in self.account.buckets if bucket.unit == unit]
        if len(found) > 1:
            found.sort(key=spending_order)
        self._by_unit[unit] = found
        return found

    def serves(self, bucket: Bucket, use: ServiceUse | None) -> bool:
        """Whether a bucket may be spent on a service; None: on anything at all."""
        if bucket.owner and bucket.owner != self.subscriber:
            return False
        return not bucket.name or (use is not None and bucket.name in use.allowances)

    def meter(self, name: str, resets_ms: int) -> Meter:
        """A meter that may be changed, in the period that ends at ``resets_ms``; from nothing if its last is over."""
        account = self.account
        if account.meters is self.before.meters:
            account.meters = [meter.copy() for meter in account.meters]
        for meter in account.meters:
            if meter.name == name:
                break
        else:
            meter = Meter(name, resets_ms)
            account.meters.append(meter)
        if meter.resets_ms < resets_ms:
            meter.resets_ms, meter.units, meter.micro = resets_ms, 0, 0
        return meter

    def metered(self, name: str, at_ms: int) -> Meter | None:
        """A meter to be read only; None if its period is over at that moment or nothing was counted."""
        for meter in self.account.meters:
            if meter.name == name and meter.resets_ms > at_ms:
                return meter
        return None

    def offer(self, index: int) -> Offer:
        """An offer of the account that may be changed."""
        return self.own_offers()[index]

    def own_offers(self) -> list[Offer]:
        """The offers of the account, in a list that may be changed as may they."""
        account = self.account
        if account.offers is self.before.offers:
            account.offers = [offer.copy() for offer in account.offers]
        return account.offers

    def spend(self, budget: str, amount: int) -> None:
        """Note what a budget loses by this operation; below zero: what it gets back."""
        if self.spent is None:
            self.spent = {}
        self.spent[budget] = self.spent.get(budget, 0) + amount

    def add(self, bucket: Bucket) -> None:
        """Add a bucket to the account."""
        self.account.buckets.append(bucket)
        self._named = self._named or bool(bucket.name or bucket.owner)
        if bucket.unit == _MONEY:
            self._money.append(bucket)
            self._money.sort(key=spending_order)
        else:
            self._allowances = True
            self._by_unit.clear()

    def bucket(self, bucket_id: int) -> Bucket:
        for bucket in self.account.buckets:
            if bucket.bucket_id == bucket_id:
                return bucket
        raise LedgerError(f"account {self.account.account_id.decode()} has no bucket {bucket_id}")

    def session(self, session_id: bytes) -> Session | None:
        """The open session, as one that may be changed, or None."""
        session = self.account.sessions.get(session_id)
        if session is None or self._own or session_id in self._own_sessions:
            return session
        session = session.copy()
        self._own_sessions.add(session_id)
        self.account.sessions[session_id] = session
        return session

    def service(self, session: Session, rating_group: int, service_identifier: int) -> ServiceUse | None:
        """The service of a session, as one that may be changed, or None if the session has not used it yet.

        ``session`` must itself be one that may be changed. Asked again, the same copy is returned.
        """
        for index, use in enumerate(session.services):
            if use.rating_group == rating_group and use.service_identifier == service_identifier:
                return self._of_its_own(session, index, use)
        return None

    def _of_its_own(self, session: Session, index: int, use: ServiceUse) -> ServiceUse:
        if self._own:
            return use
        for known in self._own_services:
            if known is use:
                return use
        copy = use.copy()
        session.services[index] = copy
        self._own_services.append(copy)
        return copy

    def release_session(self, session: Session) -> None:
        """Give back all that a session has reserved; ``session`` must be one that may be changed."""
        for index, use in enumerate(session.services):
            if use.parts or use.granted:
                release(self, self._of_its_own(session, index, use))

    def add_service(self, session: Session, use: ServiceUse) -> None:
        """Add a service that the session uses for the first time."""
        session.services.append(use)
        self._own_services.append(use)

    def open(self, session: Session) -> None:
        """Add a session to the account."""
        self._own_sessions.add(session.session_id)
        self.account.sessions[session.session_id] = session
        self.sessions_delta += 1

    def close(self, session: Session) -> None:
        """Take a session off the account; its reservations must have been released before."""
        for use in session.services:
            if use.parts:
                raise LedgerError(f"session {session.session_id!r} still holds a reservation")
        if self.account.sessions.pop(session.session_id, None) is not None:
            self.sessions_delta -= 1
        self._own_sessions.discard(session.session_id)


def _copy(account: Account) -> Account:
    """A copy with buckets of its own; sessions, services, meters and offers are shared until one is changed."""
    return Account(
        account.account_id,
        account.version,
        account.kind,
        account.currency,
        account.credit_limit_micro,
        account.watch_ms,
        [bucket.copy() for bucket in account.buckets],
        account.sessions.copy(),
        account.state,
        account.expires_ms,
        account.meters,
        account.offers,
        account.out_of_service,
        account.cycle_day,
        account.levels,
    )


def settle(draft: Draft, use: ServiceUse, rate: Rate, units: int, session: Session | None = None) -> int:
    """Debit ``units`` used since the last report and give back what else was reserved; micro-units debited.

    What the reservation holds is spent first, in its own order; then, if ``session`` is given, money that the other
    services of its credit pool hold. Usage beyond that is taken from what the account still has free, allowances
    before money; what nothing covers is recorded in ``use.leaked_micro``.
    """
    unspent = units
    money_parts: list[tuple[Bucket, int]] = []
    granted_in_money = use.granted
    for bucket_id, amount in use.parts:
        bucket = draft.bucket(bucket_id)
        bucket.reserved -= amount
        if bucket.unit == _MONEY:
            money_parts.append((bucket, amount))
            continue
        granted_in_money -= amount
        taken = amount if amount < unspent else unspent
        bucket.balance -= taken
        unspent -= taken
        took(draft, use, bucket, taken)
    if use.parts:
        use.parts = []
        draft.reservations_delta -= 1
    use.granted = 0
    used = use.used + units
    use.used = used if used < LARGEST else LARGEST
    if unspent > granted_in_money:
        unspent = granted_in_money + _take_allowance(draft, use, rate, unspent - granted_in_money)
    return _debit_money(draft, use, rate, unspent, money_parts, session)


def settle_so_far(draft: Draft, use: ServiceUse, rate: Rate, units: int, session: Session | None = None) -> None:
    """As ``settle``, but the report goes on at another price: what is left of the reservation stays for the rest."""
    parts, granted, priced_micro = use.parts, use.granted, use.priced_micro
    settle(draft, use, rate, units, session)
    spent = {True: use.priced_micro - priced_micro, False: units}
    left: list[tuple[int, int]] = []
    for bucket_id, amount in parts:
        bucket = draft.bucket(bucket_id)
        kind = bucket.unit == _MONEY
        taken = min(amount, spent[kind])
        spent[kind] -= taken
        if amount > taken:
            bucket.reserved += amount - taken
            left.append((bucket_id, amount - taken))
    if left:
        use.parts = left
        draft.reservations_delta += 1
    use.granted = max(0, granted - units)


def _allowances(draft: Draft, use: ServiceUse, rate: Rate) -> list[Bucket]:
    """The allowances to spend on a service, in order; none for what costs nothing anyway."""
    found = draft.in_order(use.unit, use)
    return [] if found and rate.affordable_units(0) >= UNLIMITED else found


def _take_allowance(draft: Draft, use: ServiceUse, rate: Rate, units: int) -> int:
    """Spend units from free allowances of a service; the units that were left uncovered."""
    for bucket in _allowances(draft, use, rate):
        taken = min(units, draft.free(bucket))
        bucket.balance -= taken
        units -= taken
        took(draft, use, bucket, taken)
    return units


def took(draft: Draft, use: ServiceUse, bucket: Bucket, amount: int) -> None:
    """Note what a service took from a bucket; below 0: what it gave back."""
    if not amount:
        return
    if draft.taken is not None:
        draft.taken.append((bucket.bucket_id, amount))
    if bucket.bucket_id == MAIN_BUCKET:
        return
    taken = use.taken
    which = bucket.bucket_id << 3 | bucket.unit
    if not taken:
        use.taken = (which, amount)
        return
    if len(taken) == 2 and taken[0] == which:
        use.taken = (which, taken[1] + amount)
        return
    for index in range(0, len(taken), 2):
        if taken[index] == which:
            use.taken = (*taken[: index + 1], taken[index + 1] + amount, *taken[index + 2 :])
            return
    use.taken = (*taken, which, amount)


def _debit_money(
    draft: Draft,
    use: ServiceUse,
    rate: Rate,
    units: int,
    reserved_parts: list[tuple[Bucket, int]],
    session: Session | None,
) -> int:
    """Debit the price of ``units`` more units: THE place where money leaves an account. Micro-units debited."""
    paid_units = use.paid_units + units
    use.paid_units = paid_units = paid_units if paid_units < LARGEST else LARGEST
    price = rate.price_micro(paid_units)
    price = price if price < LARGEST else LARGEST
    cost = price - use.priced_micro
    if cost <= 0:
        return 0
    use.priced_micro = price
    unpaid = cost
    for bucket, amount in reserved_parts:
        taken = amount if amount < unpaid else unpaid
        bucket.balance -= taken
        unpaid -= taken
        if bucket.bucket_id != MAIN_BUCKET or draft.taken is not None:
            took(draft, use, bucket, taken)
    if unpaid and session is not None and use.pool:
        unpaid -= _borrow(draft, session, use, unpaid)
    if unpaid:
        for bucket in draft.in_order(_MONEY, use):
            taken = min(unpaid, draft.free(bucket))
            bucket.balance -= taken
            unpaid -= taken
            took(draft, use, bucket, taken)
        use.leaked_micro += unpaid
        draft.leaked_micro += unpaid
    draft.debited_micro += cost - unpaid
    return cost - unpaid


def leak(draft: Draft, use: ServiceUse, rate: Rate, units: int) -> None:
    """Record ``units`` used beyond the grant that the operator waives: their price leaks, nothing is debited."""
    used = use.used + units
    use.used = used if used < LARGEST else LARGEST
    use.paid_units = min(use.paid_units + units, LARGEST)
    price = min(rate.price_micro(use.paid_units), LARGEST)
    lost = price - use.priced_micro
    if lost > 0:
        use.priced_micro = price
        use.leaked_micro += lost
        draft.leaked_micro += lost


def _borrow(draft: Draft, session: Session, use: ServiceUse, cost_micro: int) -> int:
    """Debit money that other services of the credit pool of ``use`` hold, up to ``cost_micro``; how much it was.

    RFC 8506 section 5.1.2: a service may use up what was granted to the others of its pool. Their own units stay
    granted; what they then lack they borrow as well, or it is found free or leaks, as with any usage beyond a grant.
    """
    unpaid = cost_micro
    for other in list(session.services):
        if not unpaid:
            break
        if other is use or other.pool != use.pool or not other.parts:
            continue
        lender = draft.service(session, other.rating_group, other.service_identifier)
        assert lender is not None
        parts: list[tuple[int, int]] = []
        for bucket_id, amount in lender.parts:
            bucket = draft.bucket(bucket_id)
            lent = min(amount, unpaid) if bucket.unit == _MONEY and draft.serves(bucket, use) else 0
            bucket.reserved -= lent
            bucket.balance -= lent
            unpaid -= lent
            took(draft, use, bucket, lent)
            if amount > lent:
                parts.append((bucket_id, amount - lent))
        if not parts:
            draft.reservations_delta -= 1
        lender.parts = parts
    return cost_micro - unpaid


def reserved_money(draft: Draft, use: ServiceUse) -> int:
    """Micro-units of money reserved for a service."""
    return sum(amount for bucket_id, amount in use.parts if draft.bucket(bucket_id).unit == _MONEY)


def reserve(draft: Draft, use: ServiceUse, rate: Rate, units: int) -> int:
    """Reserve credit for up to ``units`` more units and return how many could be granted, down to the last one.

    Allowances of the service's unit are reserved first, then money. ``use`` must hold no reservation.
    """
    if use.parts:
        raise LedgerError("a service can hold one reservation at a time")
    missing = units
    parts: list[tuple[int, int]] = []
    for bucket in _allowances(draft, use, rate):
        amount = draft.free(bucket)
        if amount > missing:
            amount = missing
        if amount:
            bucket.reserved += amount
            parts.append((bucket.bucket_id, amount))
            missing -= amount
    if missing:
        by_money = _affordable(use, rate, draft.available_micro(use))
        if by_money > missing:
            by_money = missing
        missing -= by_money
        price = rate.price_micro(use.paid_units + by_money)
        cost = (price if price < LARGEST else LARGEST) - use.priced_micro
        for bucket in draft.in_order(_MONEY, use):
            if cost <= 0:
                break
            amount = draft.free(bucket)
            if amount > cost:
                amount = cost
            if amount:
                bucket.reserved += amount
                parts.append((bucket.bucket_id, amount))
                cost -= amount
        if cost > 0:
            raise LedgerError("reserved more than is available")  # _affordable() and the buckets disagree: a bug
    if parts:
        use.parts = parts
        draft.reservations_delta += 1
    use.granted = units - missing
    return use.granted


def _affordable(use: ServiceUse, rate: Rate, available_micro: int) -> int:
    """Units beyond those already paid that so much free money can buy; >= 0.

    What is left of a step that was paid costs nothing more; of a step that leaked, nothing is given away on top.
    """
    if use.leaked_micro and use.priced_micro and not available_micro:
        return 0
    units = rate.affordable_units(use.priced_micro + available_micro) - use.paid_units
    return units if units > 0 else 0


def has_more(draft: Draft, use: ServiceUse, rate: Rate) -> bool:
    """Whether one more unit than the grant of ``use`` could be reserved: if not, these are the final units."""
    for bucket in _allowances(draft, use, rate):
        if draft.free(bucket):
            return True
    granted_in_money = use.granted
    reserved_micro = 0
    for bucket_id, amount in use.parts:
        if draft.bucket(bucket_id).unit == _MONEY:
            reserved_micro += amount
        else:
            granted_in_money -= amount
    spendable = reserved_micro + draft.available_micro(use)
    if use.leaked_micro and use.priced_micro and not spendable:
        return False
    return rate.affordable_units(use.priced_micro + spendable) > use.paid_units + granted_in_money


def release(draft: Draft, use: ServiceUse) -> None:
    """Give back all that is reserved for a service, exactly; nothing is debited."""
    for bucket_id, amount in use.parts:
        draft.bucket(bucket_id).reserved -= amount
    if use.parts:
        use.parts = []
        draft.reservations_delta -= 1
    use.granted = 0


def top_up(draft: Draft, amount: int, bucket_id: int = MAIN_BUCKET) -> None:
    """Add to a bucket: micro-units of money, or units of an allowance.

    Raises LedgerError for an amount that is not positive or a bucket the account does not have.
    """
    if amount <= 0:
        raise LedgerError(f"a top-up must be positive, not {amount}")
    bucket = draft.bucket(bucket_id)
    if bucket.balance + amount > UNLIMITED:
        raise LedgerError(f"a top-up of {amount} would overflow bucket {bucket_id}")
    bucket.balance += amount
    for index, offer in enumerate(draft.account.offers):
        if offer.unpaid_ms:
            draft.offer(index).next_ms = draft.now_ms  # what waits for money is due at once


def add_bucket(
    draft: Draft,
    unit: Unit,
    balance: int,
    priority: int = 100,
    expires_ms: int = 0,
    name: str = "",
    owner: bytes = b"",
) -> Bucket:
    """Give the account one more bucket. Raises LedgerError for a negative or absurd balance."""
    if not 0 <= balance <= UNLIMITED:
        raise LedgerError(f"a bucket cannot start with {balance}")
    taken = max((bucket.bucket_id for bucket in draft.account.buckets), default=0)
    bucket = Bucket(taken + 1, int(unit), balance, 0, priority, expires_ms, name, owner)
    draft.add(bucket)
    return bucket


def expire_buckets(draft: Draft) -> int:
    """Empty the buckets whose time has come of what no session has reserved; how many changed.

    Money in the main bucket is never taken away by this.
    """
    changed = 0
    for bucket in draft.account.buckets:
        lapsed = bucket.expires_ms and bucket.expires_ms <= draft.now_ms
        left = bucket.balance - bucket.reserved
        if lapsed and left > 0 and bucket.bucket_id != MAIN_BUCKET:
            bucket.balance = bucket.reserved
            changed += 1
    return changed


def next_wake_ms(account: Account) -> int:
    """When the account next needs attention without a request: a session or bucket expires; 0 for never."""
    due = 0
    for session in account.sessions.values():
        if not due or session.expires_ms < due:
            due = session.expires_ms
    for bucket in account.buckets:
        lapses = bucket.expires_ms and bucket.balance > bucket.reserved and bucket.bucket_id != MAIN_BUCKET
        if lapses and (not due or bucket.expires_ms < due):
            due = bucket.expires_ms
    for offer in account.offers:
        if offer.next_ms and (not due or offer.next_ms < due):
            due = offer.next_ms
        if offer.until_ms and (not due or offer.until_ms < due):
            due = offer.until_ms
    if account.expires_ms and (not due or account.expires_ms < due):
        due = account.expires_ms
    return due
