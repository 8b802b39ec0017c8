"""The Gy and Ro interface: Credit-Control-Request in, Credit-Control-Answer out (RFC 8506, TS 32.299).

Nothing is decided here: a request is admitted, decoded, routed (RFC 6733 section 6.1.4) and handed to ``charging``;
its outcome becomes an answer.
"""

import logging
from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import Final, Protocol

from balance.look_ups import drop_oldest
from balance.model import Unit
from balance.plans import Grant, Outcome
from occ.admission import TOO_OFTEN, Admission, AdmissionLimits
from occ.advice import cc_money
from occ.away import Away
from occ.charging import UNREACHABLE, Charging
from occ.codes import TERMINATION, TOO_BUSY, UNABLE_TO_COMPLY, UNABLE_TO_DELIVER, UPDATE
from occ.peer_rates import PeerRates
from occ.profiles import REMEMBERED_IDENTITY_OCTETS, Profile, ProfileChooser
from occ.request_statistics import Count, RequestStatistics
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

CLIENTS_REMEMBERED: Final = 10_000
"""Origin-Hosts whose Origin-State-Id is kept."""

PEERS_REMEMBERED: Final = 1000
"""Connections whose clients are kept; those that are closed go when there are so many."""
CLIENTS_OF_PEER: Final = 100
"""Clients that are kept of each of them: an agent has several."""

REMEMBERED_OCTETS: Final = 3 * 255
"""A DiameterIdentity is a name of the DNS, which has 255 octets at most (RFC 1035 section 2.3.4); there are three."""

GRANTS_REMEMBERED: Final = 1024
"""Grants whose encoding is kept."""

_OCTETS: Final = int(Unit.OCTETS)
_SECONDS: Final = int(Unit.SECONDS)
_AMOUNT: Final = int(Unit.AMOUNT)


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


class _Client:
    """What was found of a client when it asked last: its next request nearly always has the same destination."""

    __slots__ = ("destination_host", "destination_realm", "elsewhere", "profile", "state_id", "via")

    def __init__(self, via: bytes, request: CreditControlRequest, profile: Profile, elsewhere: int | None) -> None:
        self.via = via
        """Origin-Host of the peer."""
        self.destination_host = request.destination_host
        self.destination_realm = request.destination_realm
        self.profile = profile
        self.elsewhere = elsewhere
        """What ``route`` gave."""
        self.state_id = -1
        """Origin-State-Id that was taken note of last; -1: none yet."""


class _Clients:
    """The clients of one connection."""

    __slots__ = ("known", "said")

    def __init__(self, said: Opened) -> None:
        self.said = said
        """Kept, so that nothing else can have its ``id``."""
        self.known: dict[bytes, _Client] = {}
        """By Origin-Host."""


class _Encoded:
    """A grant as it is sent, and where such are counted."""

    __slots__ = ("counted", "octets")

    def __init__(self, octets: bytes, counted: Count) -> None:
        self.octets = octets
        self.counted = counted


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
        self._clients: dict[int, _Clients] = {}
        """By the ``id`` of what their peer said of itself, which is another for every connection: the peer itself would
        be kept with its connection when that is long closed."""
        self._client_states: dict[bytes, int] = {}
        self._grants: dict[tuple[object, ...], _Encoded] = {}
        self.on_client_state: Callable[[bytes, int], None] | None = None
        """Told (Origin-Host, Origin-State-Id) when a client's is first seen, and whenever it has risen."""
        self.away: Away | None = None
        """Stands in while the store cannot be reached; None: requests are refused then."""

    def note_client_state(self, origin_host: bytes, state_id: int) -> None:
        """Take note of a client's Origin-State-Id; a lower one is left from before and means nothing.

        Names longer than a domain name can be are not kept: agents pass on what they are given.
        """
        if len(origin_host) > REMEMBERED_IDENTITY_OCTETS:
            return
        client = origin_host.lower()
        if state_id <= self._client_states.get(client, 0):
            return
        if len(self._client_states) >= CLIENTS_REMEMBERED:
            drop_oldest(self._client_states, CLIENTS_REMEMBERED)
            self._clients.clear()  # who is among the dropped is taken note of again
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
        said = peer.capabilities
        clients = self._clients.get(id(said))
        client = None if clients is None else clients.known.get(request.origin_host)
        if (
            client is None
            or request.route_records
            or client.destination_host != request.destination_host
            or client.destination_realm != request.destination_realm
        ):
            client = self._client(peer, said, request)
        if client.elsewhere is not None:
            self.answer(peer, request, Outcome(client.elsewhere), started)
            return
        via = client.via
        state_id = request.origin_state_id
        if state_id is not None:
            if state_id != client.state_id:
                client.state_id = state_id
                self.note_client_state(request.origin_host, state_id)
        elif via == request.origin_host or via.lower() == request.origin_host.lower():
            # A client that tells its state when it connects means it for its sessions too. What comes by an agent
            # says nothing of it: the client may have restarted since it was connected here.
            request.origin_state_id = self._client_states.get(via.lower())
        profile = client.profile
        statistics.in_flight += 1
        asked = _Asked(self, peer, request, message, via, profile, started)
        try:
            away = self.away
            if away is not None and away.sessions and away.holds(request):
                away.in_turn(request, message, profile, via, asked.charge, asked.done)
                return
            self.charging.charge(request, profile, via, self._clock(), asked.done)
        except Exception:  # a fault of ours must cost one request, not the process
            log.exception("session %r could not be charged", request.session_id)
            asked.done(Outcome(UNABLE_TO_COMPLY))

    def _client(self, peer: Peer, said: Opened, request: CreditControlRequest) -> _Client:
        """Whose the request is, and whether it is for us."""
        profile = self._profiles.choose(said, request.origin_host)
        client = _Client(said.origin_host.encode(), request, profile, self._route(peer, request))
        octets = len(request.origin_host) + len(request.destination_host or b"") + len(request.destination_realm)
        # With Route-Records it depends on the way that a request has come.
        if not request.route_records and octets <= REMEMBERED_OCTETS:
            clients = self._clients.get(id(said))
            if clients is None or len(clients.known) >= CLIENTS_OF_PEER:
                if len(self._clients) >= PEERS_REMEMBERED:
                    self._clients.clear()
                clients = self._clients[id(said)] = _Clients(said)
            clients.known[request.origin_host] = client
        return client

    def charge(self, asked: "_Asked") -> None:
        """Charge a request that has waited; never raises."""
        try:
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
        answered_as = kind
        try:
            answer, result_code = self._refusals.refusal(message)
        except DiameterError as error:
            answer, result_code, answered_as = error_answer(message, error, self._origin), error.result_code, 0
        peer.send(answer)
        self.statistics.turned_away(reason, kind, answered_as, result_code)

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
            encoded: list[bytes] = []
            for grant in grants:
                known = self._encoded(grant, currency)
                known.counted.count += 1
                encoded.append(known.octets)
            services = b"".join(encoded)
        else:
            for grant in grants:
                self.statistics.service(grant.rating_group, grant.result_code).count += 1
        if outcome.failed_avp or outcome.cost_micro >= 0 or outcome.check_balance_result >= 0 or outcome.command_level:
            peer.send(encode_answer(request, _answer(outcome, result_code, currency), self._origin, services))
        else:  # nearly always
            peer.send(encode_result(request, result_code, self._origin, services, outcome.avps))
        self.statistics.answered(request.request_type, result_code, perf_counter() - started, request.session_id)

    def _encoded(self, grant: Grant, currency: int) -> _Encoded:
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
            counted = self.statistics.service(grant.rating_group, grant.result_code)
            found = self._grants[key] = _Encoded(encode_service(_service_answer(grant, currency)), counted)
        return found


class _Asked:
    """A request under way: who asked, and what is to happen when it is decided.

    An object and not a function within ``Gy._begin``, for the reason that ``balance.lane`` gives.
    """

    __slots__ = ("gy", "message", "peer", "profile", "request", "started", "via")

    def __init__(
        self,
        gy: Gy,
        peer: Peer,
        request: CreditControlRequest,
        message: bytes,
        via: bytes,
        profile: Profile,
        started: float,
    ) -> None:
        self.gy = gy
        self.peer = peer
        self.request = request
        self.message = message
        self.via = via
        self.profile = profile
        self.started = started

    def charge(self) -> None:
        self.gy.charge(self)

    def done(self, outcome: Outcome) -> None:
        if outcome is not UNREACHABLE or not self._is_stood_in():
            self.gy.answered(self, outcome)

    def done_without_store(self, outcome: Outcome) -> None:
        self.gy.answered(self, outcome)

    def _is_stood_in(self) -> bool:
        """Whether a request that the store could not be asked about is answered without it."""
        away = self.gy.away
        if away is None:
            return False
        try:
            return away.take(self.request, self.message, self.profile, self.via, self.done_without_store)
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
