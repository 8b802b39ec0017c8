"""What the ledger is about: accounts, buckets, sessions with their reservations, plans and outcomes.

Integers only. Money is in millionths of the currency unit (``*_micro``), volume in octets, time in seconds,
events in units; points in time are milliseconds since the Unix epoch, UTC (``*_ms``). Identifiers are bytes,
as they travel on the wire and in the store.

Objects of this module are snapshots: whoever changes one works on a copy (see ``balance.ledger.Draft``).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

MICRO: Final = 1_000_000
"""Millionths in one currency unit."""

LARGEST: Final = (1 << 62) - 1
"""No amount, price or count of the ledger goes beyond this; what would is cut to it, far from any real figure."""

UNLIMITED: Final = 1 << 62
"""More units than any service can use; what a free service can afford."""

MAIN_BUCKET: Final = 1
"""Identifier of the money bucket every account has; the credit limit of the account applies to it."""


class Unit(IntEnum):
    """What a bucket holds and a service is counted in."""

    MONEY = 0
    OCTETS = 1
    SECONDS = 2
    EVENTS = 3
    AMOUNT = 4
    """Micro-units of money that the client rated itself (CC-Money, RFC 8506 section 8.22); no bucket holds these."""


class AccountKind(IntEnum):
    """Who pays first. No account goes below minus its credit limit, which a prepaid one most often has none of."""

    PREPAID = 0
    POSTPAID = 1


class IdentityType(IntEnum):
    """Subscription-Id-Type, RFC 8506 section 8.47."""

    E164 = 0
    IMSI = 1
    SIP_URI = 2
    NAI = 3
    PRIVATE = 4


class LedgerError(Exception):
    """A change that the ledger refuses; the message is one sentence for the person who asked for it."""


class Rate:
    """Price of the units of one service, counted from the start of its session.

    Prices are cumulative so that a session costs the same however its usage is cut into reports. Implemented
    by ``occ.rating.price``. A class and no protocol, as what is compiled calls the methods of a class at once.
    """

    __slots__ = ()

    unit: Unit

    def price_micro(self, units: int) -> int:
        """Price of the first ``units`` units; never falls as units grow, 0 for 0 units."""
        raise NotImplementedError

    def affordable_units(self, amount_micro: int) -> int:
        """The greatest number of units whose price is at most ``amount_micro``, ``UNLIMITED`` at most."""
        raise NotImplementedError


@dataclass(slots=True, init=False)
class Bucket:
    """One kind of credit on an account: money, or an allowance of octets, seconds or events.

    ``reserved`` is the part of ``balance`` promised to open sessions; it equals the sum of their reservation
    parts at all times. Buckets are spent by ``priority`` (low first), then earliest ``expires_ms``.
    """

    bucket_id: int
    unit: int
    balance: int
    reserved: int = 0
    priority: int = 100
    expires_ms: int = 0
    """0: never."""
    name: str = ""
    """What it is of in the catalogue: an allowance or a bonus, which says what it may be spent on; empty: anything."""
    owner: bytes = b""
    """The only subscriber it serves; empty: all of the account."""

    def __init__(
        self,
        bucket_id: int,
        unit: int,
        balance: int,
        reserved: int = 0,
        priority: int = 100,
        expires_ms: int = 0,
        name: str = "",
        owner: bytes = b"",
    ) -> None:
        self.bucket_id = bucket_id
        self.unit = unit
        self.balance = balance
        self.reserved = reserved
        self.priority = priority
        self.expires_ms = expires_ms
        self.name = name
        self.owner = owner

    def copy(self) -> "Bucket":
        return Bucket(
            self.bucket_id,
            self.unit,
            self.balance,
            self.reserved,
            self.priority,
            self.expires_ms,
            self.name,
            self.owner,
        )


@dataclass(slots=True, init=False)
class Meter:
    """Counts what was used or spent within a period, for tiers and caps."""

    name: str
    """What it counts: a service, a cap, a member; unique within the account."""
    resets_ms: int
    """When its period is over; counted from nothing then."""
    units: int = 0
    micro: int = 0

    def __init__(
        self,
        name: str,
        resets_ms: int,
        units: int = 0,
        micro: int = 0,
    ) -> None:
        self.name = name
        self.resets_ms = resets_ms
        self.units = units
        self.micro = micro

    def copy(self) -> "Meter":
        return Meter(self.name, self.resets_ms, self.units, self.micro)


@dataclass(slots=True, init=False)
class Offer:
    """A recurring thing that the account has: a rental, a bundle that renews; the catalogue says what it is."""

    name: str
    since_ms: int
    next_ms: int
    """When it is charged or renewed next; 0: never again, or not before somebody pays."""
    owner: bytes = b""
    """The subscriber it is for; empty: the account."""
    unpaid_ms: int = 0
    """Since when a fee that fell due could not be paid; 0: all is paid."""
    until_ms: int = 0
    """When it ends; 0: not in sight."""
    plan: str = ""
    """The plan that it comes with; empty: it was taken by itself."""
    paid_micro: int = 0
    """What was paid for the period that runs."""
    buckets: tuple[int, ...] = ()
    """Numbers of the buckets that it fills anew each period."""
    paid_from_ms: int = 0
    """When the period that was paid for began; 0: not known, as with what an earlier release charged."""
    given: tuple[int, ...] = ()
    """What it gave for this period into each of ``buckets``, in the bucket's unit; empty: not known."""

    def __init__(
        self,
        name: str,
        since_ms: int,
        next_ms: int,
        owner: bytes = b"",
        unpaid_ms: int = 0,
        until_ms: int = 0,
        plan: str = "",
        paid_micro: int = 0,
        buckets: tuple[int, ...] = (),
        paid_from_ms: int = 0,
        given: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.since_ms = since_ms
        self.next_ms = next_ms
        self.owner = owner
        self.unpaid_ms = unpaid_ms
        self.until_ms = until_ms
        self.plan = plan
        self.paid_micro = paid_micro
        self.buckets = buckets
        self.paid_from_ms = paid_from_ms
        self.given = given

    def copy(self) -> "Offer":
        return Offer(
            self.name,
            self.since_ms,
            self.next_ms,
            self.owner,
            self.unpaid_ms,
            self.until_ms,
            self.plan,
            self.paid_micro,
            self.buckets,
            self.paid_from_ms,
            self.given,
        )


class LifeState(IntEnum):
    """Where an account or a subscriber is in its life; ``occ.lifecycle`` says what each state allows."""

    ACTIVE = 0
    ORDERED = 1
    """Known, not in service yet."""
    SUSPENDED = 2
    """Out of service at the customer's wish, or for a while."""
    BLOCKED = 3
    """Barred by the operator."""
    GRACE = 4
    """A prepaid account that has expired: it can be topped up."""
    TERMINATED = 5


@dataclass(slots=True, init=False)
class ServiceUse:
    """One Rating-Group or Service-Identifier within a session: what it has used and what is reserved for it."""

    rating_group: int
    """-1: the request named none."""
    service_identifier: int
    """-1: the request named none."""
    name: str
    """Service in the catalogue."""
    unit: int
    used: int = 0
    """Units reported so far, in ``unit``."""
    paid_units: int = 0
    """The part of ``used`` that was priced in money; the rest came out of allowances."""
    priced_micro: int = 0
    """Price of ``paid_units``: debited, but for ``leaked_micro``."""
    leaked_micro: int = 0
    """Price of usage beyond the grant that no balance covered; recorded, never debited."""
    granted: int = 0
    """Units of the grant now outstanding."""
    parts: list[tuple[int, int]] = field(default_factory=list)
    """Reservation: (bucket_id, amount) in the bucket's own unit, in the order of spending.

    In an event that is kept for a refund: what was taken, and not given back yet.
    """
    disbelieved: int = 0
    """Units reported beyond ``used`` that cannot be true; kept for the charging data record, never charged."""
    step_units: int = 1
    step_price_micro: int = 0
    """The price it started with, which it keeps: so much for each started step; 0 is free."""
    taken: tuple[int, ...] = ()
    """What it took from buckets beside the main one since its last charging data record: which bucket, amount in the
    bucket's unit, which bucket, ... A bucket is ``bucket_id << 3 | unit``."""
    reasons: int = 0
    """Reporting-Reasons seen since its last charging data record: bit n stands for the value n (TS 32.299)."""
    earlier_micro: int = 0
    """Price of what was used in tariff periods that are over; ``paid_units`` and ``priced_micro`` are of this one."""
    ahead: tuple[int, ...] = ()
    """The tariff switch ahead: (when, ms; units of a step from then on; price of one); empty: none is known."""
    pool: int = 0
    """Credit pool within the session (G-S-U-Pool-Identifier, RFC 8506 section 8.31); 0: none."""
    final: int = 0
    """A FinalUnits: how far it has come with its final units."""
    terms: tuple[int, ...] = ()
    """What its price is more than so much for each started step (``occ.rating.price``); empty: nothing."""
    allowances: tuple[str, ...] = ()
    """Names of the buckets that may be spent on it, beside those without a name."""
    zone: str = ""
    """Where it goes or is used: the destination or network by which it is priced; empty: anywhere."""
    meters: tuple[tuple[Any, ...], ...] = ()
    """The account's meters that count it, as ``occ.pricing`` needs them; the second of each is the name."""
    notes: "Notes | None" = None
    """What else its next charging data record has to know; None: it runs since the session began, at one price."""

    def __init__(
        self,
        rating_group: int,
        service_identifier: int,
        name: str,
        unit: int,
        used: int = 0,
        paid_units: int = 0,
        priced_micro: int = 0,
        leaked_micro: int = 0,
        granted: int = 0,
        parts: list[tuple[int, int]] | None = None,
        disbelieved: int = 0,
        step_units: int = 1,
        step_price_micro: int = 0,
        taken: tuple[int, ...] = (),
        reasons: int = 0,
        earlier_micro: int = 0,
        ahead: tuple[int, ...] = (),
        pool: int = 0,
        final: int = 0,
        terms: tuple[int, ...] = (),
        allowances: tuple[str, ...] = (),
        zone: str = "",
        meters: tuple[tuple[Any, ...], ...] = (),
        notes: "Notes | None" = None,
    ) -> None:
        self.rating_group = rating_group
        self.service_identifier = service_identifier
        self.name = name
        self.unit = unit
        self.used = used
        self.paid_units = paid_units
        self.priced_micro = priced_micro
        self.leaked_micro = leaked_micro
        self.granted = granted
        self.parts = [] if parts is None else parts
        self.disbelieved = disbelieved
        self.step_units = step_units
        self.step_price_micro = step_price_micro
        self.taken = taken
        self.reasons = reasons
        self.earlier_micro = earlier_micro
        self.ahead = ahead
        self.pool = pool
        self.final = final
        self.terms = terms
        self.allowances = allowances
        self.zone = zone
        self.meters = meters
        self.notes = notes

    def copy(self) -> "ServiceUse":
        return ServiceUse(
            self.rating_group,
            self.service_identifier,
            self.name,
            self.unit,
            self.used,
            self.paid_units,
            self.priced_micro,
            self.leaked_micro,
            self.granted,
            self.parts,
            self.disbelieved,
            self.step_units,
            self.step_price_micro,
            self.taken,
            self.reasons,
            self.earlier_micro,
            self.ahead,
            self.pool,
            self.final,
            self.terms,
            self.allowances,
            self.zone,
            self.meters,
            self.notes,
        )

    @property
    def cost_micro(self) -> int:
        """Price of all that was used."""
        return self.earlier_micro + self.priced_micro

    @property
    def debited_micro(self) -> int:
        """Money that really left the account for this service."""
        return self.earlier_micro + self.priced_micro - self.leaked_micro


class Period(NamedTuple):
    """What a service used at one price, within one charging data record: kept to explain what was charged."""

    from_ms: int
    until_ms: int
    units: int
    """Units used, those out of allowances among them."""
    counted_from: int
    """Units that the price had counted when the period began: with tiers, where in them the use stood."""
    counted_to: int
    """The same when it was over; the difference was priced in money, the rest came out of allowances."""
    cost_micro: int
    """What it cost: debited, but for ``leaked_micro``."""
    leaked_micro: int
    step_units: int
    """0: of several prices, as there were too many periods to keep each."""
    step_price_micro: int
    terms: tuple[int, ...]
    version: str
    """Of the catalogue; empty: ``Session.catalogue``."""
    promotions: tuple[str, ...]
    """Names of those that made the price what it was."""
    band: str = ""
    """Time band of the tariff that the price was of, as it is written in the catalogue; empty: it has none."""


class Notes(NamedTuple):
    """What a service keeps for its next charging data record. The figures are those of the service as the running
    ``Period`` began.
    """

    from_ms: int = 0
    """When that was; 0: with the session."""
    used: int = 0
    paid_units: int = 0
    cost_micro: int = 0
    leaked_micro: int = 0
    records: int = 0
    """Records made before."""
    periods: tuple[Period, ...] = ()
    """Those that are over and in no record yet; as plain tuples once they have been in the store."""
    version: str = ""
    """Version of the catalogue that the price is of; empty: ``Session.catalogue``."""
    next_version: str = ""
    """The same of the price ``ahead``."""
    promotions: tuple[str, ...] = ()
    """Names of those that make the price what it is."""
    band: str = ""
    """Time band of the tariff that the price is of; empty: it has none."""
    next_band: str = ""
    """The same of the price ``ahead``."""
    policies: tuple[str, ...] = ()
    """Names of the policy rules that acted on it since its last record."""
    is_free: bool = False
    """It costs nothing because a policy rule says so, whatever its tariff."""


class FinalUnits(IntEnum):
    """RFC 8506 section 5.6: what a client knows of the end of a service's credit."""

    NOT_YET = 0
    GRANTED = 1
    """The last grant said that it was the last."""
    ACTING = 2
    """They are used up: the client redirects or restricts until it asks again."""


@dataclass(slots=True, init=False)
class Session:
    """An open credit-control session (RFC 8506), or one that ended a short while ago.

    ``answers`` keeps the outcomes of the last minutes, so that a repeated request gets its first answer again
    (``balance.answers``).
    """

    session_id: bytes
    subscriber_id: bytes
    plan: str
    origin_host: bytes
    origin_state_id: int
    started_ms: int
    expires_ms: int
    """When supervision (Tcc, RFC 8506 section 13) gives the reservation back."""
    forgotten_number: int = -1
    """Highest CC-Request-Number whose answer is no longer kept."""
    state: int = 0
    """A SessionState."""
    facts: bytes = b""
    """What the charging data record says about the session, packed; opaque to the ledger."""
    services: list[ServiceUse] = field(default_factory=list)
    answers: bytes = b""
    answer_count: int = 0
    realm: bytes = b""
    """The client's Origin-Realm, where a request of ours to it goes."""
    via: bytes = b""
    """Diameter identity of the peer that the last request came by: the client itself, or an agent."""
    refused: bool = False
    """The client refused to abort it: nothing more is granted (RFC 6733 section 8.5)."""
    customer: tuple[Any, ...] = ()
    """What promotions need to know of who uses it, as ``occ.pricing`` needs it; empty: nothing."""
    caps: tuple[int, ...] = ()
    """The most that is spent on the subscriber, micro-units: in a day, in a month, 0 for no cap; empty: neither."""
    requests: int = 0
    """Requests answered since its last charging data records."""
    first_number: int = 0
    """CC-Request-Number of the first of these."""
    recorded_ms: int = 0
    """When its last charging data records were made; 0: none were yet."""
    catalogue: str = ""
    """Version of the catalogue that was in force when it began."""

    def __init__(
        self,
        session_id: bytes,
        subscriber_id: bytes,
        plan: str,
        origin_host: bytes,
        origin_state_id: int,
        started_ms: int,
        expires_ms: int,
        forgotten_number: int = -1,
        state: int = 0,
        facts: bytes = b"",
        services: list[ServiceUse] | None = None,
        answers: bytes = b"",
        answer_count: int = 0,
        realm: bytes = b"",
        via: bytes = b"",
        refused: bool = False,
        customer: tuple[Any, ...] = (),
        caps: tuple[int, ...] = (),
        requests: int = 0,
        first_number: int = 0,
        recorded_ms: int = 0,
        catalogue: str = "",
    ) -> None:
        self.session_id = session_id
        self.subscriber_id = subscriber_id
        self.plan = plan
        self.origin_host = origin_host
        self.origin_state_id = origin_state_id
        self.started_ms = started_ms
        self.expires_ms = expires_ms
        self.forgotten_number = forgotten_number
        self.state = state
        self.facts = facts
        self.services = [] if services is None else services
        self.answers = answers
        self.answer_count = answer_count
        self.realm = realm
        self.via = via
        self.refused = refused
        self.customer = customer
        self.caps = caps
        self.requests = requests
        self.first_number = first_number
        self.recorded_ms = recorded_ms
        self.catalogue = catalogue

    def copy(self) -> "Session":
        """A copy whose lists are its own; the services in it are shared until ``Draft.service`` copies one."""
        return Session(
            self.session_id,
            self.subscriber_id,
            self.plan,
            self.origin_host,
            self.origin_state_id,
            self.started_ms,
            self.expires_ms,
            self.forgotten_number,
            self.state,
            self.facts,
            self.services[:],
            self.answers,
            self.answer_count,
            self.realm,
            self.via,
            self.refused,
            self.customer,
            self.caps,
            self.requests,
            self.first_number,
            self.recorded_ms,
            self.catalogue,
        )


class SessionState(IntEnum):
    OPEN = 0
    CLOSED = 1
    """Ended by the client: a termination, or an event that is complete in itself."""
    EXPIRED = 2
    """Ended by supervision; a termination that comes late still debits what it reports, once."""
    REFUSED = 3
    """Never opened: kept only so that a repeat of the refused request gets the same answer."""


@dataclass(slots=True, init=False)
class Account:
    """One paying account as of ``version``; every change raises the version by one."""

    account_id: bytes
    version: int
    kind: int
    currency: int
    """ISO 4217 numeric code."""
    credit_limit_micro: int
    """How far below zero the main bucket may go: of a prepaid account its overdraft, 0 for none."""
    watch_ms: int
    """When the expiry index will next wake this account; 0: not in the index."""
    buckets: list[Bucket]
    sessions: dict[bytes, Session]
    state: int = 0
    """A LifeState."""
    expires_ms: int = 0
    """When a prepaid account that is not topped up ceases to be in service; 0: never."""
    meters: list[Meter] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    out_of_service: dict[bytes, int] = field(default_factory=dict)
    """LifeState of each subscriber that is not active."""
    cycle_day: int = 1
    """The day on which its months begin, 1 to 31; in a shorter month the last one."""
    levels: tuple[str, ...] = ()
    """What it was at as of this version, by the policies in force (``policies.levels``); opaque to the ledger."""

    def __init__(
        self,
        account_id: bytes,
        version: int,
        kind: int,
        currency: int,
        credit_limit_micro: int,
        watch_ms: int,
        buckets: list[Bucket],
        sessions: dict[bytes, Session],
        state: int = 0,
        expires_ms: int = 0,
        meters: list[Meter] | None = None,
        offers: list[Offer] | None = None,
        out_of_service: dict[bytes, int] | None = None,
        cycle_day: int = 1,
        levels: tuple[str, ...] = (),
    ) -> None:
        self.account_id = account_id
        self.version = version
        self.kind = kind
        self.currency = currency
        self.credit_limit_micro = credit_limit_micro
        self.watch_ms = watch_ms
        self.buckets = buckets
        self.sessions = sessions
        self.state = state
        self.expires_ms = expires_ms
        self.meters = [] if meters is None else meters
        self.offers = [] if offers is None else offers
        self.out_of_service = {} if out_of_service is None else out_of_service
        self.cycle_day = cycle_day
        self.levels = levels

    def bucket(self, bucket_id: int) -> Bucket | None:
        for bucket in self.buckets:
            if bucket.bucket_id == bucket_id:
                return bucket
        return None


@dataclass(slots=True, init=False)
class Grant:
    """The outcome for one service of a request, in terms of RFC 8506 section 8.16."""

    rating_group: int
    service_identifiers: tuple[int, ...]
    result_code: int
    unit: int = 0
    units: int = -1
    """Units granted (or debited, for an event); -1: none asked for, so none granted."""
    validity_time_s: int = 0
    final: bool = False
    """These are the final units; ``avps`` says what follows them."""
    switch_s: int = 0
    """Tariff-Time-Change of the units, Unix seconds; 0: none."""
    avps: bytes = b""
    """What else the client is told of the service, encoded as it is sent: final units, thresholds, ..."""

    def __init__(
        self,
        rating_group: int,
        service_identifiers: tuple[int, ...],
        result_code: int,
        unit: int = 0,
        units: int = -1,
        validity_time_s: int = 0,
        final: bool = False,
        switch_s: int = 0,
        avps: bytes = b"",
    ) -> None:
        self.rating_group = rating_group
        self.service_identifiers = service_identifiers
        self.result_code = result_code
        self.unit = unit
        self.units = units
        self.validity_time_s = validity_time_s
        self.final = final
        self.switch_s = switch_s
        self.avps = avps


@dataclass(slots=True, init=False)
class Outcome:
    """What a credit-control request came to; all that is needed to answer it, now and when it is repeated."""

    result_code: int
    grants: list[Grant] = field(default_factory=list)
    command_level: bool = False
    """The units were asked for outside any Multiple-Services-Credit-Control and are granted there."""
    failed_avp: bytes = b""
    """Encoded AVP at fault, for Failed-AVP."""
    cost_micro: int = -1
    """What the service costs (price enquiry) or the session has cost (termination); -1: not told."""
    check_balance_result: int = -1
    """0: enough credit, 1: none (RFC 8506 section 8.6); -1: not asked."""
    avps: bytes = b""
    """What else the client is told at command level, encoded as it is sent: failure handling, low balance, ..."""
    currency: int = 0
    """Of the money in it, ISO 4217 numeric code; 0: that of the catalogue."""

    def __init__(
        self,
        result_code: int,
        grants: list[Grant] | None = None,
        command_level: bool = False,
        failed_avp: bytes = b"",
        cost_micro: int = -1,
        check_balance_result: int = -1,
        avps: bytes = b"",
        currency: int = 0,
    ) -> None:
        self.result_code = result_code
        self.grants = [] if grants is None else grants
        self.command_level = command_level
        self.failed_avp = failed_avp
        self.cost_micro = cost_micro
        self.check_balance_result = check_balance_result
        self.avps = avps
        self.currency = currency


class Before:
    """What an account was before an operation, as far as the operation may change it and somebody asks."""

    __slots__ = ("buckets", "meters", "offers", "version", "watch_ms")

    def __init__(self, account: "Account") -> None:
        self.version = account.version
        self.watch_ms = account.watch_ms
        self.buckets = [(each.balance, each.reserved, each.expires_ms) for each in account.buckets]
        """Of each bucket, in the order of the account, which only ever appends one: balance, reserved, expires_ms."""
        self.meters = account.meters
        self.offers = account.offers


@dataclass(slots=True, init=False)
class Plan:
    """All that one operation writes, computed before anything is written; the store applies all or nothing."""

    outcome: Outcome | None
    account: Account | None = None
    """The account after the operation, ``version`` already raised; None: nothing to write, or written down by now."""
    expected_version: int = 0
    """0: the account must not exist yet."""
    journal: bytes = b""
    """Packed journal record: what changed, why, before and after; empty: the account stays as it is."""
    outbox: bytes = b""
    """What is to be delivered once this is committed: a packed list of charging data records."""
    watch_ms: int = -1
    """New wake-up time in the expiry index; 0 removes the account from it, -1 leaves it."""
    ended: Session | None = None
    """Session to keep outside the account, so that late repeats find their answers."""
    ended_ttl_ms: int = 0
    amended: Session | None = None
    """An ended session, not ``ended``, that this operation changes: the debit that a refund is of."""
    amended_ttl_ms: int = 0
    first_of: bytes = b""
    """Session-Id that must not have ended already: set for a first request, which may be a late repeat."""
    mark: bytes = b""
    """Kept beside the account, as a session of that name that has ended: the plan is refused if it is there already.
    For operations that must not be done twice however late they are repeated."""
    mark_ttl_ms: int = 0
    opened: bytes = b""
    """Session-Id to enter into the session directory."""
    closed: bytes = b""
    """Session-Id to strike from the session directory."""
    debited_micro: int = 0
    """Money this operation takes from the account, for the statistics."""
    leaked_micro: int = 0
    """Price of usage this operation could not debit, for the statistics."""
    refunded_micro: int = 0
    """Money this operation gives back, for the statistics."""
    sessions_delta: int = 0
    """Open sessions more or less after this operation, for the statistics."""
    reservations_delta: int = 0
    disbelieved_reports: int = 0
    spent: dict[str, int] | None = None
    """What it takes from which budget; counted with the money, once."""
    replayed: bool = False
    """The outcome is that of an earlier request, given again."""
    late: bool = False
    """The request came after supervision had ended its session."""
    at_ms: int = 0
    """When the operation took place."""
    asked_by: bytes = b""
    """Key of the session whose request it answers; empty: no client asked."""
    acted: tuple[str, ...] = ()
    """Names of the policy rules that made the outcome what it is, for the statistics."""
    transition: bytes = b""
    """Set by whoever watches accounts (``Store.observe``): what this operation changed that others must be told of."""
    levels: tuple[str, ...] = ()
    """What ``account`` is at, where the step has found that out already; see ``levels_by``."""
    levels_by: Any = None
    before: Before | None = None
    """What ``account`` was before; None: there was none."""
    """The policies by which it has; None: it has not."""

    def __init__(
        self,
        outcome: Outcome | None,
        account: Account | None = None,
        expected_version: int = 0,
        journal: bytes = b"",
        outbox: bytes = b"",
        watch_ms: int = -1,
        ended: Session | None = None,
        ended_ttl_ms: int = 0,
        amended: Session | None = None,
        amended_ttl_ms: int = 0,
        first_of: bytes = b"",
        mark: bytes = b"",
        mark_ttl_ms: int = 0,
        opened: bytes = b"",
        closed: bytes = b"",
        debited_micro: int = 0,
        leaked_micro: int = 0,
        refunded_micro: int = 0,
        sessions_delta: int = 0,
        reservations_delta: int = 0,
        disbelieved_reports: int = 0,
        spent: dict[str, int] | None = None,
        replayed: bool = False,
        late: bool = False,
        at_ms: int = 0,
        asked_by: bytes = b"",
        acted: tuple[str, ...] = (),
        transition: bytes = b"",
        levels: tuple[str, ...] = (),
        levels_by: Any = None,
        before: Before | None = None,
    ) -> None:
        self.outcome = outcome
        self.account = account
        self.expected_version = expected_version
        self.journal = journal
        self.outbox = outbox
        self.watch_ms = watch_ms
        self.ended = ended
        self.ended_ttl_ms = ended_ttl_ms
        self.amended = amended
        self.amended_ttl_ms = amended_ttl_ms
        self.first_of = first_of
        self.mark = mark
        self.mark_ttl_ms = mark_ttl_ms
        self.opened = opened
        self.closed = closed
        self.debited_micro = debited_micro
        self.leaked_micro = leaked_micro
        self.refunded_micro = refunded_micro
        self.sessions_delta = sessions_delta
        self.reservations_delta = reservations_delta
        self.disbelieved_reports = disbelieved_reports
        self.spent = spent
        self.replayed = replayed
        self.late = late
        self.at_ms = at_ms
        self.asked_by = asked_by
        self.acted = acted
        self.transition = transition
        self.levels = levels
        self.levels_by = levels_by
        self.before = before


@dataclass(slots=True, frozen=True)
class Lookup:
    """A step's reply that it needs to know about an ended session before it can decide."""

    session_id: bytes


Observe = Callable[[Plan], None]
"""Looks at every plan that changes an account: may set ``levels`` and ``transition``.

Called again whenever the plan is made anew; it must not fail and not wait.
"""

Step = Callable[[Account | None, Session | None], "Plan | Lookup"]
"""A pure decision on a snapshot: (account or None, ended session or None) -> what to write.

The snapshot is the step's own, to be changed as it likes. The store may call it again with a fresher one.
"""


@dataclass(slots=True, frozen=True)
class Subscriber:
    """A line or user that network elements name in a request, and the account that pays for it."""

    subscriber_id: bytes
    account_id: bytes
    plan: str
    identities: tuple[tuple[int, bytes], ...]
    """(IdentityType, value); E.164 numbers without "+"."""
    state: int = 0
    """A LifeState."""
    cap_day_micro: int = 0
    """The most that the paying account spends on this subscriber in a day; 0: no cap."""
    cap_month_micro: int = 0
    activated_ms: int = 0
    """When it first came into service; 0: not known."""
    segment: str = ""
    """Which customers it is among, for promotions."""
    friends: tuple[bytes, ...] = ()
    """Friends-and-family numbers, E.164 without "+"."""
    member_of: bytes = b""
    """The account it belongs to, where another one pays; empty: ``account_id``."""
    next_plan: str = ""
    """The plan it changes to; empty: none."""
    next_plan_ms: int = 0
    """From when on."""

    def plan_at(self, at_ms: int) -> str:
        """The plan of a session that begins at a moment."""
        return self.next_plan if self.next_plan and at_ms >= self.next_plan_ms else self.plan
