"""Accounts with their sessions: what each service of a session has used, what is reserved for it, and what its next
charging data record has to know. Units are those of ``balance.model``.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from balance.model import Bucket, Meter, Offer


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


class Before:
    """What an account was before an operation, as far as the operation may change it and somebody asks."""

    __slots__ = ("buckets", "meters", "offers", "version", "watch_ms")

    def __init__(self, account: Account) -> None:
        self.version = account.version
        self.watch_ms = account.watch_ms
        self.buckets = [(each.balance, each.reserved, each.expires_ms) for each in account.buckets]
        """Of each bucket, in the order of the account, which only ever appends one: balance, reserved, expires_ms."""
        self.meters = account.meters
        self.offers = account.offers
