"""The Gy and Ro interface: Credit-Control-Request in, Credit-Control-Answer out (RFC 8506, TS 32.299).

Nothing is decided here: a request is admitted, decoded, routed (RFC 6733 section 6.1.4) and handed to ``charging``;
its outcome becomes an answer.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import Final, Protocol

from balance.model import Grant, Outcome, Unit
from occ.admission import TOO_OFTEN, Admission, AdmissionLimits
from occ.advice import cc_money
from occ.away import Away
from occ.charging import UNREACHABLE, Charging
from occ.codes import TERMINATION, TOO_BUSY, UNABLE_TO_COMPLY, UNABLE_TO_DELIVER, UPDATE
from occ.peer_rates import PeerRates
from occ.profiles import Profile, ProfileChooser
from protocols.credit_control import (
    CreditControlAnswer,
    CreditControlRequest,
    ServiceAnswer,
    Units,
    decode_request,
    encode_answer,
    encode_result,
    encode_service,
)
from protocols.credit_control.refusal import Refusals, request_type
from protocols.diameter.codec import error_answer
from protocols.diameter.errors import DiameterError
from protocols.diameter.events import Opened, RequestReceived

log = logging.getLogger("occ.gy")

GROUPS_COUNTED: Final = 200
"""(Rating-Group, Result-Code) pairs counted apart; clients choose the Rating-Groups, so there must be an end."""
OTHER_GROUPS: Final = -2
"""Stands for all further Rating-Groups; -1 for none."""

CLIENTS_REMEMBERED: Final = 10_000
"""Origin-Hosts whose Origin-State-Id is kept."""

GRANTS_REMEMBERED: Final = 1024
"""Grants whose encoding is kept."""


SLOW_S: Final = 0.05
"""Answers that take longer miss the service level; the last of them are remembered by name, for who looks into it."""
LATENCY_BOUNDS_S: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip

_OCTETS: Final = int(Unit.OCTETS)
_SECONDS: Final = int(Unit.SECONDS)
_AMOUNT: Final = int(Unit.AMOUNT)

TYPE_NAMES: Final = {1: "initial", 2: "update", 3: "termination", 4: "event"}


class Peer(Protocol):
    """Where a request came from and its answer goes; ``protocols.diameter.handle.PeerHandle`` is one."""

    @property
    def capabilities(self) -> Opened:
        """What the peer said of itself in its capabilities exchange."""

    @property
    def origin_realm(self) -> str:
        """Origin-Realm of the peer's capabilities exchange."""

    @property
    def send(self) -> Callable[[bytes], bool]:
        """Sends an encoded answer; False if the connection is gone."""


class RequestStatistics:
    """Credit-control requests of this worker: answers by type and Result-Code, latency, requests under way."""

    __slots__ = ("answers", "in_flight", "latency", "latency_seconds", "refused", "services", "slow")

    def __init__(self) -> None:
        self.answers: dict[tuple[int, int], int] = {}
        """(CC-Request-Type, Result-Code) -> answers; type 0 where it could not be read."""
        self.services: dict[tuple[int, int], int] = {}
        """(Rating-Group, Result-Code) -> answers about a service; ``OTHER_GROUPS`` beyond ``GROUPS_COUNTED`` pairs."""
        self.latency: dict[int, list[int]] = {kind: [0] * (len(LATENCY_BOUNDS_S) + 1) for kind in (0, *TYPE_NAMES)}
        self.latency_seconds: dict[int, float] = dict.fromkeys(self.latency, 0.0)
        self.in_flight = 0
        """Accepted and not yet answered, waiting or begun."""
        self.refused: dict[tuple[str, int], int] = {}
        """(reason, CC-Request-Type) -> requests turned away unread. They are among the answers, not in the latency."""

        self.slow: dict[tuple[int, int], tuple[bytes, float]] = {}
        """(CC-Request-Type, index of the bound) -> Session-Id and seconds of the last answer as slow as that."""

    @property
    def rejected(self) -> int:
        """Requests turned away, for whatever reason."""
        return sum(self.refused.copy().values())

    def answered(self, request_type: int, result_code: int, seconds: float, session_id: bytes = b"") -> None:
        key = (request_type, result_code)
        self.answers[key] = self.answers.get(key, 0) + 1
        index = bisect_left(LATENCY_BOUNDS_S, seconds)
        self.latency[request_type][index] += 1
        self.latency_seconds[request_type] += seconds
        if seconds > SLOW_S and session_id:
            self.slow[request_type, index] = (session_id, seconds)

    def service_answered(self, rating_group: int, result_code: int) -> None:
        key = (rating_group, result_code)
        try:
            self.services[key] += 1
        except KeyError:
            if len(self.services) >= GROUPS_COUNTED:
                key = (OTHER_GROUPS, result_code)
            self.services[key] = self.services.get(key, 0) + 1


class Gy:
    """Answers the credit-control requests of one Diameter identity.

    ``origin``: our Origin-Host and Origin-Realm, encoded. ``profiles`` says what kind of client asks. ``route`` gives
    the Result-Code of a request that is not for us, or None. What is beyond ``limits`` or ``rates`` is turned away:
    DIAMETER_TOO_BUSY to those who asked for this very server, DIAMETER_UNABLE_TO_DELIVER to all others, which try
    elsewhere then.
    """

    def __init__(
        self,
        charging: Charging,
        profiles: ProfileChooser,
        origin: bytes,
        route: Callable[[Peer, CreditControlRequest], int | None],
        limits: AdmissionLimits,
        rates: PeerRates,
        clock: Callable[[], int],
    ) -> None:
        self.charging = charging
        self._profiles = profiles
        self._origin = origin
        self._route = route
        self._clock = clock
        self.statistics = RequestStatistics()
        self.rates = rates
        self._has_rates = rates.limited
        self._refusals = Refusals(origin)
        self.admission: Admission[Peer] = Admission(
            limits, self.statistics, charging.store, request_type, self._begin, self._turn_away
        )
        self._client_states: dict[bytes, int] = {}
        self._grants: dict[tuple[object, ...], bytes] = {}
        self.on_client_state: Callable[[bytes, int], None] | None = None
        """Told (Origin-Host, Origin-State-Id) when a client's is first seen, and whenever it has risen."""
        self.away: Away | None = None
        """Stands in while the store cannot be reached; None: requests are refused then."""

    def note_client_state(self, origin_host: bytes, state_id: int) -> None:
        """Take note of a client's Origin-State-Id; a lower one is left from before and means nothing."""
        client = origin_host.lower()
        if state_id <= self._client_states.get(client, 0):
            return
        if len(self._client_states) >= CLIENTS_REMEMBERED:
            self._client_states.pop(next(iter(self._client_states)))
        self._client_states[client] = state_id
        if self.on_client_state is not None:
            self.on_client_state(client, state_id)

    def handle_ccr(self, peer: Peer, event: RequestReceived) -> None:
        """Answer one request on the connection it came by, now or later; never raises."""
        started = perf_counter()
        message = event.message
        if self._has_rates:
            kind = request_type(message)
            is_first = kind != UPDATE and kind != TERMINATION
            if not self.rates.take(peer.capabilities.origin_host, is_first, perf_counter_ns()):
                self._turn_away(peer, message, kind, TOO_OFTEN)
                return
        admission = self.admission
        if started < admission.until and self.statistics.in_flight < admission.at_once:
            self._begin(peer, message, started)
        else:
            admission.take(peer, message, started)

    def _begin(self, peer: Peer, message: bytes, started: float) -> None:
        """Charge a request that is admitted; never raises. ``started``: when it was read."""
        statistics = self.statistics
        try:
            request = decode_request(message)
        except DiameterError as error:
            statistics.answered(0, error.result_code, perf_counter() - started)
            peer.send(error_answer(message, error, self._origin))
            return
        elsewhere = self._route(peer, request)
        if elsewhere is not None:
            self.answer(peer, request, Outcome(elsewhere), started)
            return
        said = peer.capabilities
        via = said.origin_host.encode()
        if request.origin_state_id is not None:
            self.note_client_state(request.origin_host, request.origin_state_id)
        elif via == request.origin_host or via.lower() == request.origin_host.lower():
            # A client that tells its state when it connects means it for its sessions too. What comes by an agent
            # says nothing of it: the client may have restarted since it was connected here.
            request.origin_state_id = self._client_states.get(via.lower())
        statistics.in_flight += 1
        asked = _Asked(self, peer, request, message, via, started)
        try:
            asked.profile = profile = self._profiles.choose(said, request.origin_host)
            away = self.away
            if away is not None and away.sessions and away.holds(request):
                away.in_turn(request, message, profile, via, asked.charge, asked.done)
                return
            self.charging.charge(request, profile, via, self._clock(), asked.done)
        except Exception:  # a fault of ours must cost one request, not the process
            log.exception("session %r could not be charged", request.session_id)
            asked.done(Outcome(UNABLE_TO_COMPLY))

    def charge(self, asked: "_Asked") -> None:
        """Charge a request that has waited; never raises."""
        try:
            assert asked.profile is not None
            self.charging.charge(asked.request, asked.profile, asked.via, self._clock(), asked.done)
        except Exception:  # as in _begin
            log.exception("session %r could not be charged", asked.request.session_id)
            asked.done(Outcome(UNABLE_TO_COMPLY))

    def answered(self, asked: "_Asked", outcome: Outcome) -> None:
        """A request is no more under way."""
        self.statistics.in_flight -= 1
        if self.admission.waiting:
            self.admission.answered()
        self.answer(asked.peer, asked.request, outcome, asked.started)

    def _turn_away(self, peer: Peer, message: bytes, kind: int, reason: str) -> None:
        """Refuse a request that nobody has read."""
        statistics = self.statistics
        statistics.refused[reason, kind] = statistics.refused.get((reason, kind), 0) + 1
        try:
            answer, result_code = self._refusals.refusal(message)
        except DiameterError as error:
            answer, result_code, kind = error_answer(message, error, self._origin), error.result_code, 0
        peer.send(answer)
        statistics.answers[kind, result_code] = statistics.answers.get((kind, result_code), 0) + 1

    def answer(self, peer: Peer, request: CreditControlRequest, outcome: Outcome, started: float) -> None:
        """Send an outcome."""
        result_code = outcome.result_code
        if result_code == TOO_BUSY and request.destination_host is None:
            # RFC 6733 section 7.1.3: TOO_BUSY "MUST only be used when a specific server is requested".
            result_code = UNABLE_TO_DELIVER
        currency = outcome.currency or self.charging.rules.catalogue.currency
        grants = outcome.grants
        services = b""
        if grants and not outcome.command_level:
            services = b"".join([self._encoded(grant, currency) for grant in grants])
        if outcome.failed_avp or outcome.cost_micro >= 0 or outcome.check_balance_result >= 0 or outcome.command_level:
            peer.send(encode_answer(request, _answer(outcome, result_code, currency), self._origin, services))
        else:  # nearly always
            peer.send(encode_result(request, result_code, self._origin, services, outcome.avps))
        for grant in grants:
            self.statistics.service_answered(grant.rating_group, grant.result_code)
        self.statistics.answered(request.request_type, result_code, perf_counter() - started, request.session_id)

    def _encoded(self, grant: Grant, currency: int) -> bytes:
        """A grant as it is sent. Most are like others: the same units of the same services."""
        key = (
            grant.rating_group,
            grant.service_identifiers,
            grant.result_code,
            grant.unit,
            grant.units,
            grant.validity_time_s,
            grant.switch_s,
            grant.avps,
            currency,
        )
        found = self._grants.get(key)
        if found is None:
            if len(self._grants) >= GRANTS_REMEMBERED:
                self._grants.clear()
            found = self._grants[key] = encode_service(_service_answer(grant, currency))
        return found


class _Asked:
    """A request under way: who asked, and what is to happen when it is decided.

    An object and not a function within ``Gy._begin``, for the reason that ``balance.lane`` gives.
    """

    __slots__ = ("gy", "message", "peer", "profile", "request", "started", "via")

    def __init__(
        self, gy: Gy, peer: Peer, request: CreditControlRequest, message: bytes, via: bytes, started: float
    ) -> None:
        self.gy = gy
        self.peer = peer
        self.request = request
        self.message = message
        self.via = via
        self.started = started
        self.profile: Profile | None = None

    def charge(self) -> None:
        self.gy.charge(self)

    def done(self, outcome: Outcome) -> None:
        if outcome is not UNREACHABLE or not self._is_stood_in():
            self.gy.answered(self, outcome)

    def done_without_store(self, outcome: Outcome) -> None:
        self.gy.answered(self, outcome)

    def _is_stood_in(self) -> bool:
        """Whether a request that the store could not be asked about is answered without it."""
        away, profile = self.gy.away, self.profile
        if away is None or profile is None:
            return False
        try:
            return away.take(self.request, self.message, profile, self.via, self.done_without_store)
        except Exception:  # as in Gy._begin
            log.exception("session %r could not be answered without the store", self.request.session_id)
            return False


def _answer(outcome: Outcome, result_code: int, currency: int) -> CreditControlAnswer:
    """All of an outcome but what is granted to services."""
    answer = CreditControlAnswer(result_code)
    if outcome.failed_avp:
        answer.failed_avp = outcome.failed_avp
    if outcome.cost_micro >= 0:
        answer.cost = cc_money(outcome.cost_micro, currency)
    if outcome.check_balance_result >= 0:
        answer.check_balance_result = outcome.check_balance_result
    answer.members = outcome.avps
    if outcome.command_level:
        _grant_at_command_level(answer, outcome.grants[0], currency)
    return answer


def _service_answer(grant: Grant, currency: int) -> ServiceAnswer:
    answer = ServiceAnswer(
        grant.rating_group if grant.rating_group >= 0 else None,
        grant.service_identifiers,
        grant.result_code,
    )
    if grant.units >= 0:
        answer.granted = _units(grant, currency)
    if grant.validity_time_s:
        answer.validity_time = grant.validity_time_s
    answer.members = grant.avps
    return answer


def _grant_at_command_level(answer: CreditControlAnswer, grant: Grant, currency: int) -> None:
    """RFC 8506 section 3.2: what was asked for outside any service is granted outside as well."""
    if grant.units >= 0:
        answer.granted = _units(grant, currency)
    if grant.validity_time_s:
        answer.validity_time = grant.validity_time_s
    answer.members += grant.avps


def _units(grant: Grant, currency: int) -> Units:
    if grant.unit == _OCTETS:
        units = Units(total_octets=grant.units)
    elif grant.unit == _SECONDS:
        units = Units(time=grant.units)
    elif grant.unit == _AMOUNT:
        units = Units(money=cc_money(grant.units, currency))
    else:
        units = Units(service_specific=grant.units)
    if grant.switch_s:
        units.tariff_time_change = grant.switch_s
    return units
