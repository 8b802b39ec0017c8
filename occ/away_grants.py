"""What may be granted while the store cannot be reached: decided by the catalogue's limits and what is remembered.

``Outage`` counts what one worker has granted since the store was lost; ``decide`` says what a request is answered.
Neither waits, and neither knows the journal. Balances are not looked into, but for accounts that had nothing left when
the worker last saw them; policies are not asked either. Both are made up for when the grants are settled.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from balance.accounts import Account, Session
from balance.model import MAIN_BUCKET, Unit
from balance.plans import Grant, Outcome
from occ.charging import session_key
from occ.codes import (
    CREDIT_LIMIT_REACHED,
    DIRECT_DEBITING,
    END_USER_SERVICE_DENIED,
    EVENT,
    INITIAL,
    MULTIPLE_SERVICES_SUPPORTED,
    RATING_FAILED,
    REASON_FINAL,
    SUCCESS,
    TERMINATION,
    UNABLE_TO_COMPLY,
    UPDATE,
)
from occ.lifecycle import refusal
from occ.profiles import Profile
from occ.rating.away import AwayLimits
from occ.rating.catalogue import Catalogue, Service
from occ.rules import Rules
from occ.service_units import event_units, for_each_recipient, money_of, units_wanted
from protocols.credit_control import (
    CreditControlRequest,
    ServiceAnswer,
    ServiceRequest,
    encode_service_members,
)

_SECONDS: Final = int(Unit.SECONDS)


class Refused(StrEnum):
    """Why nothing was granted for a service, or for a whole request."""

    NOT_ALLOWED = "not-allowed"
    """The service, or this kind of request, is refused while the store is away."""
    UNKNOWN = "unknown-subscriber"
    BARRED = "barred"
    """By the state of account or subscriber, or nothing was left, when the worker last saw it."""
    TIME = "time"
    """Granting has gone on for as long as it may."""
    SESSION = "session"
    """The session has been granted all that it may have."""
    SESSIONS = "sessions"
    GRANTS = "grants"
    JOURNAL = "journal"
    """The journal is full, or cannot be written."""


@dataclass(slots=True)
class Known:
    """What the worker remembers of who asks."""

    account: Account | None = None
    """As it was last seen."""
    session: Session | None = None
    """The session of the request, as it was last seen."""
    subscriber_id: bytes = b""
    is_known: bool = False
    """The session or the subscriber has been seen, so there is somebody to be charged."""


@dataclass(slots=True)
class _OfSession:
    units: int = 0
    grants: int = 0


@dataclass(slots=True)
class Outage:
    """What has been granted since the store was lost, at ``began_ms``."""

    began_ms: int
    sessions: dict[str, int] = field(default_factory=dict)
    """By service: sessions that were granted something."""
    grants: dict[str, int] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)
    _by_session: dict[bytes, dict[str, _OfSession]] = field(default_factory=dict)
    _ending: set[tuple[bytes, str]] = field(default_factory=set)

    def room(self, key: bytes, service: str, limits: AwayLimits, now_ms: int) -> int | Refused:
        """Units that the session may still be granted at once, or by what that is none."""
        if now_ms - self.began_ms > limits.granting_s * 1000:
            return Refused.TIME
        if self.grants.get(service, 0) >= limits.grants:
            return Refused.GRANTS
        own = self._by_session.get(key, {}).get(service)
        if own is None:
            return Refused.SESSIONS if self.sessions.get(service, 0) >= limits.sessions else limits.grant_units
        if own.grants >= limits.session_grants or own.units >= limits.session_units:
            return Refused.SESSION
        return min(limits.grant_units, limits.session_units - own.units)

    def ends(self, key: bytes, service: str) -> bool:
        """Note that a service of a session ends; False: it has been noted before."""
        if (key, service) in self._ending:
            return False
        self._ending.add((key, service))
        return True

    def note(self, key: bytes, service: str, units: int) -> None:
        """Count a grant."""
        of_session = self._by_session.setdefault(key, {})
        own = of_session.get(service)
        if own is None:
            own = of_session[service] = _OfSession()
            self.sessions[service] = self.sessions.get(service, 0) + 1
        own.units += units
        own.grants += 1
        self.grants[service] = self.grants.get(service, 0) + 1
        self.units[service] = self.units.get(service, 0) + units

    def note_answer(self, request: CreditControlRequest, outcome: Outcome, catalogue: Catalogue) -> None:
        """Count all that an answer grants."""
        key = session_key(request)
        for grant in outcome.grants:
            if grant.units > 0:
                found, _ = catalogue.find(request, grant.rating_group, _identifier(grant.service_identifiers))
                self.note(key, "" if found is None else found.name, grant.units)


@dataclass(slots=True)
class Decision:
    """What a request is answered, and why not with more. ``outcome`` None: it is refused as a whole."""

    outcome: Outcome | None
    refused: list[Refused] = field(default_factory=list)


def decide(
    request: CreditControlRequest, profile: Profile, rules: Rules, outage: Outage, known: Known, now_ms: int
) -> Decision:
    """What to answer while the store is away.

    A request is taken whole or not at all. It is taken if something can be granted, or if it reports something of a
    service that may be granted: then what it asks for beside is refused by itself (4010 or 4012), as an update must
    not lose its report. A termination is taken if one of its services may be granted.
    """
    work = _Work(request, profile, rules, outage, known, now_ms)
    return work.decide()


class _Work:
    __slots__ = ("catalogue", "key", "known", "now_ms", "outage", "profile", "refused", "request", "rules")

    def __init__(
        self, request: CreditControlRequest, profile: Profile, rules: Rules, outage: Outage, known: Known, now_ms: int
    ) -> None:
        self.request = request
        self.profile = profile
        self.rules = rules
        self.catalogue = rules.catalogue
        self.outage = outage
        self.known = known
        self.now_ms = now_ms
        self.key = session_key(request)
        self.refused: list[Refused] = []

    def decide(self) -> Decision:
        request = self.request
        kind = request.request_type
        if not self._is_for_grants():
            return Decision(None, [Refused.NOT_ALLOWED])
        asked = _asked(request)
        services = [self._service(each) for each in asked] or self._unnamed()
        if not any(self._limits(service) for service in services):
            away = any(service is not None and service.away is not None for service in services)
            return Decision(None, [Refused.UNKNOWN if away else Refused.NOT_ALLOWED])
        if kind == TERMINATION:
            return Decision(self._outcome([_plain(*each) for each in zip(asked, services, strict=False)], services))
        seen: set[tuple[int, int]] = set()
        grants = [self._grant(each, found, seen) for each, found in zip(asked, services, strict=False)]
        if not self._is_worth_it(asked, services, grants):
            return Decision(None, self.refused)
        return Decision(self._outcome(grants, services), self.refused)

    def _is_for_grants(self) -> bool:
        """Whether it is of a kind that can be judged without its account."""
        request = self.request
        if request.request_type == EVENT:
            return (request.requested_action or DIRECT_DEBITING) == DIRECT_DEBITING
        if request.request_type == INITIAL and request.services and self.profile.needs_indicator:
            return request.multiple_services_indicator == MULTIPLE_SERVICES_SUPPORTED
        return True

    def _service(self, asked: ServiceRequest) -> Service | None:
        group = -1 if asked.rating_group is None else asked.rating_group
        return self.catalogue.find(self.request, group, _identifier(asked.service_identifiers))[0]

    def _unnamed(self) -> list[Service | None]:
        """The services that a request without any is about: those of its session, or the one of its context."""
        session = self.known.session
        if session is not None and session.services:
            return [self.catalogue.by_name.get(use.name) for use in session.services]
        return [self.catalogue.find(self.request, -1, -1)[0]]

    def _limits(self, service: Service | None) -> AwayLimits | None:
        limits = None if service is None else service.away
        if limits is None or self.known.is_known:
            return limits
        return limits if limits.unknown_subscribers and self.request.subscriptions else None

    def _is_worth_it(
        self, asked: tuple[ServiceRequest, ...], services: list[Service | None], grants: list[Grant]
    ) -> bool:
        if any(grant.units > 0 for grant in grants):
            return True
        kind = self.request.request_type
        if kind == EVENT:
            return False
        if kind != INITIAL:
            for each, found in zip(asked, services, strict=False):
                if each.used and self._limits(found) is not None:
                    return True
        return all(each.requested is None for each in asked)

    def _outcome(self, grants: list[Grant], services: list[Service | None]) -> Outcome:
        outcome = Outcome(SUCCESS, grants, command_level=bool(grants) and not self.request.services)
        if outcome.command_level:
            outcome.result_code = grants[0].result_code
        if grants and self.request.request_type in (INITIAL, EVENT):
            first = next(service for service in services if service is not None)
            outcome.avps = self.rules.indications(first, self.profile).first_answer
        return outcome

    def _grant(self, asked: ServiceRequest, service: Service | None, seen: set[tuple[int, int]]) -> Grant:
        grant = _plain(asked, service)
        is_event = self.request.request_type == EVENT
        if service is None or (not is_event and (asked.requested is None or asked.reporting_reason == REASON_FINAL)):
            return grant
        name = (grant.rating_group, _identifier(asked.service_identifiers))
        if name in seen:
            grant.result_code = UNABLE_TO_COMPLY  # it has one grant already
            return grant
        seen.add(name)
        units = self._units(asked, service, grant)
        if isinstance(units, Refused):
            self.refused.append(units)
            if self._has_last_second(service):
                grant.result_code, grant.unit, grant.units, grant.final = SUCCESS, _SECONDS, 1, True
                grant.validity_time_s = service.validity_time_s
                grant.avps = self.rules.indications(service, self.profile).final_units
            elif grant.result_code == SUCCESS:
                grant.result_code = END_USER_SERVICE_DENIED
            return grant
        self.outage.note(self.key, service.name, units)
        grant.unit, grant.units = int(service.unit), units
        if is_event:
            grant.avps = encode_service_members(ServiceAnswer(refund_information=self.key))
            return grant
        grant.validity_time_s = service.validity_time_s
        if self.request.services:
            grant.avps = self.rules.indications(service, self.profile).with_grant(units, final=False)
        return grant

    def _has_last_second(self, service: Service) -> bool:
        """Whether the client ends its call only by a last second: it gets one, once, as in ``occ.services``."""
        if not self.profile.last_second or service.unit != _SECONDS or self.request.request_type != UPDATE:
            return False
        return self.outage.ends(self.key, service.name)

    def _units(self, asked: ServiceRequest, service: Service, grant: Grant) -> int | Refused:
        """Units to grant; for a service that must not be, ``grant`` may have its Result-Code already."""
        limits = self._limits(service)
        if limits is None or money_of(asked) is not None:
            return Refused.NOT_ALLOWED if self.known.is_known or service.away is None else Refused.UNKNOWN
        grant.result_code = self._barred(service) or SUCCESS
        if grant.result_code != SUCCESS:
            return Refused.BARRED
        room = self.outage.room(self.key, service.name, limits, self.now_ms)
        if isinstance(room, Refused):
            return room
        if self.request.request_type == EVENT:
            units = event_units(asked, service)
            return units if units <= room else Refused.SESSION  # all or nothing, RFC 8506 section 6.3
        wanted = units_wanted(asked.requested, service)
        if service.unit == _SECONDS and self.profile.time_within_validity:
            wanted = min(wanted, service.validity_time_s)
        return min(wanted, room)

    def _barred(self, service: Service) -> int:
        """The Result-Code of what was refused when account and session were last seen; 0: nothing was."""
        known = self.known
        if known.session is not None and known.session.refused:
            return END_USER_SERVICE_DENIED
        account = known.account
        if account is None:
            return 0
        code = refusal(account, known.subscriber_id, service.essential)
        if not code and not service.essential and _nothing_left(account):
            return CREDIT_LIMIT_REACHED
        return code


def _asked(request: CreditControlRequest) -> tuple[ServiceRequest, ...]:
    """The services of a request as ``occ.services`` reads them."""
    asked = request.services
    if not asked and (request.requested is not None or request.used):
        identifiers = () if request.service_identifier is None else (request.service_identifier,)
        asked = (ServiceRequest(None, identifiers, request.requested, request.used),)
    if request.recipients:
        is_event = request.request_type == EVENT
        asked = tuple(for_each_recipient(each, len(request.recipients), is_event) for each in asked)
    return asked


def _identifier(identifiers: tuple[int, ...]) -> int:
    return min(identifiers) if identifiers else -1


def _plain(asked: ServiceRequest, service: Service | None) -> Grant:
    """The part of an answer about a service, without units."""
    group = -1 if asked.rating_group is None else asked.rating_group
    return Grant(group, asked.service_identifiers, RATING_FAILED if service is None else SUCCESS)


def _nothing_left(account: Account) -> bool:
    """Whether no bucket of the account had anything in it; what is reserved counts as being there."""
    for bucket in account.buckets:
        limit = account.credit_limit_micro if bucket.bucket_id == MAIN_BUCKET else 0
        if bucket.balance + limit > 0:
            return False
    return True
