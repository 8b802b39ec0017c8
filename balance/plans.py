"""What an operation comes to: grants and outcome, which answer a request; the plan, which is written; the step, which
decides on it. Units are those of ``balance.model``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from balance.accounts import Account, Before, Session


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
    """The policies by which it has; None: it has not."""
    before: Before | None = None
    """What ``account`` was before; None: there was none."""

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

Both are the step's own, to be changed as it likes. The store may call it again with a fresher one.
"""
