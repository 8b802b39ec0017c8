"""Rules between messages: an answer and its request, the requests of one session, one connection as a whole.

A capture may hold the same request twice, before and behind a relay; a request that carries Route-Record and is known
already is taken for that, and not counted again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from occ.decode.faults import refuses_malformed
from occ.decode.remarks import RuleTable, answer, cca, ccr, service_text
from occ.decode.rules_answer import FINAL_UNITS, units_granted
from occ.decode.rules_request import SERVICE, UNITS, kind_of, of_text
from occ.decode.streams import Flow, Streams
from occ.decode.tree import Branch, DecodedMessage, Kind, Relation, Remark
from protocols.diameter.codes import CCRequestType, Flag, MultipleServicesIndicator, RequestedAction, ResultCode

_INITIAL: Final[int] = CCRequestType.INITIAL
_UPDATE: Final[int] = CCRequestType.UPDATE
_TERMINATION: Final[int] = CCRequestType.TERMINATION
_SUCCESS: Final[int] = ResultCode.SUCCESS
_COUNTED: Final = tuple(unit for unit in UNITS if unit != "CC-Money")

# -- an answer and its request -----------------------------------------------------------------------------------

PAIR_RULES: Final = RuleTable()
_pair = PAIR_RULES.rule


@_pair(7, "RFC 6733 section 6.2", answer)
def identifiers(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """An answer has the identifiers of its request."""
    if reply.hop_by_hop != request.hop_by_hop:
        yield (
            f"the Hop-by-Hop Identifier {reply.hop_by_hop:#010x} is not the {request.hop_by_hop:#010x} of message "
            f"{request.number}, which it answers by its End-to-End Identifier: its receiver discards it"
        )
    elif reply.end_to_end != request.end_to_end:
        yield f"the End-to-End Identifier {reply.end_to_end:#010x} is not the {request.end_to_end:#010x} of its request"


@_pair(7, "RFC 6733 section 6.2", answer)
def same_command(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """An answer has the command and the application of its request."""
    if reply.command != request.command:
        yield f"it is a {reply.name}, its request a {request.name}"
    if reply.application != request.application:
        yield f"the Application-Id {reply.application} is not the {request.application} of its request"


@_pair(7, "RFC 6733 section 6.2, freediameter-p-bit", answer)
def proxiable_bit(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """An answer has the P bit of its request."""
    if (reply.flags ^ request.flags) & Flag.PROXIABLE:
        yield f"the P bit is {'set' if reply.flags & Flag.PROXIABLE else 'clear'}, unlike that of its request"


@_pair(7, "RFC 6733 section 6.2", answer)
def same_session(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """Session-Id comes back."""
    asked, told = request.text_of("Session-Id"), reply.text_of("Session-Id")
    if told is None and refuses_malformed(reply):
        return
    if asked is not None and told is None:
        yield "the Session-Id of its request is missing"
    elif asked != told:
        yield f"the Session-Id {told} is not that of its request, {asked}"


@_pair(7, "RFC 6733 section 6.2", answer)
def proxy_information(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """Every Proxy-Info comes back, in order."""
    asked = [node.data for node in request.each("Proxy-Info")]
    told = [node.data for node in reply.each("Proxy-Info")]
    if asked != told:
        yield f"its {len(told)} Proxy-Info AVPs are not the {len(asked)} of its request in their order"


@_pair(15, "RFC 6733 section 7.1.3", answer)
def too_busy(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """3004 is for requests that named this very server."""
    if reply.result_code == ResultCode.TOO_BUSY and not request.has("Destination-Host"):
        yield "Result-Code 3004 (DIAMETER_TOO_BUSY) answers a request that named no Destination-Host"


@_pair(7, "RFC 8506 section 3.2", cca)
def same_request(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """CC-Request-Type and CC-Request-Number come back."""
    for name in ("CC-Request-Type", "CC-Request-Number"):
        asked, told = request.value_of(name), reply.value_of(name)
        if told is not None and told != asked:
            yield f"{name} {told} is not the {asked} of its request"


@_pair(25, "RFC 8506 section 5.1.2", cca)
def services_not_asked_for(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """Only a client that asked by services is answered by services."""
    announced = request.value_of("Multiple-Services-Indicator") == MultipleServicesIndicator.MULTIPLE_SERVICES_SUPPORTED
    if reply.has(SERVICE) and not request.has(SERVICE) and not announced:
        yield f"{SERVICE} answers a request without any"


def _by_key(message: DecodedMessage) -> dict[str, Branch]:
    found: dict[str, Branch] = {service_text(service): service for service in message.each(SERVICE)}
    if not found or message.has("Requested-Service-Unit", "Granted-Service-Unit"):
        found["the command"] = message
    return found


@_pair(26, "RFC 8506 section 8.16", cca)
def service_left_out(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """What is asked for is granted or refused, service by service, under the same names."""
    if reply.result_code != _SUCCESS:
        return
    told = {service_text(service) for service in reply.each(SERVICE)}
    for service in request.each(SERVICE):
        if service.has("Requested-Service-Unit") and service_text(service) not in told:
            yield f"{service_text(service)} asked for units and is not in the answer"


@_pair(26, "RFC 8506 section 8.16", cca)
def service_not_asked_for(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """An answer is about what was asked for."""
    asked = {service_text(service) for service in request.each(SERVICE)}
    for service in reply.each(SERVICE):
        if asked and service_text(service) not in asked:
            yield f"{service_text(service)} is in the answer, but not in the request"


@_pair(26, "RFC 8506 section 8.16", cca)
def grant_not_asked_for(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """Without Requested-Service-Unit nothing is granted in a session."""
    if kind_of(request) not in (_INITIAL, _UPDATE, _TERMINATION):
        return
    asked = _by_key(request)
    for text, branch in _by_key(reply).items():
        if text in asked and any(units_granted(branch).values()) and not asked[text].has("Requested-Service-Unit"):
            yield f"units {of_text(branch)} are granted that were not requested"


@_pair(0, "open5gs-no-units-is-free", cca)
def passed_over(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """Units that were requested are granted or refused; Open5GS takes anything else for unlimited."""
    if reply.result_code != _SUCCESS or kind_of(request) not in (_INITIAL, _UPDATE):
        return
    told = {service_text(service): service for service in reply.each(SERVICE)}
    for service in request.each(SERVICE):
        found = told.get(service_text(service))
        if found is None or not service.has("Requested-Service-Unit"):
            continue
        refused = found.value_of("Result-Code") not in (None, _SUCCESS)
        if not refused and not found.has("Granted-Service-Unit", *FINAL_UNITS):
            yield f"units {of_text(service)} were requested and neither granted nor refused"


@_pair(38, "RFC 8506 sections 6.1 to 6.4", cca)
def answer_to_action(reply: DecodedMessage, request: DecodedMessage) -> Iterator[str]:
    """Each Requested-Action has its own answer."""
    if kind_of(request) != CCRequestType.EVENT or reply.result_code != _SUCCESS:
        return
    action = request.value_of("Requested-Action")
    if action == RequestedAction.CHECK_BALANCE and not reply.has("Check-Balance-Result"):
        yield "a balance check is answered without Check-Balance-Result"
    if action == RequestedAction.PRICE_ENQUIRY and not reply.has("Cost-Information"):
        yield "a price enquiry is answered without Cost-Information"


# -- the requests of one session ---------------------------------------------------------------------------------

SESSION_RULES: Final = RuleTable()
_in_session = SESSION_RULES.rule


#: CC-Request-Type, CC-Request-Number, and of an event its Requested-Action: a refund may have the number of its debit.
RequestKey = tuple[int | None, int | None, int | None]


@dataclass(slots=True)
class Session:
    """What is known of a credit-control session from the messages so far. ``host``: its client's Origin-Host."""

    host: str | None
    requests: dict[RequestKey, DecodedMessage] = field(default_factory=dict)
    last_number: int | None = None
    is_open: bool = False
    """Its first request was granted."""
    is_over: bool = False
    """Its termination was sent."""
    granted: dict[str, dict[str, int]] = field(default_factory=dict)
    """The newest grant of each service: unit -> amount."""


@_in_session(16, "RFC 6733 section 3 and appendix C, open5gs-number-again", ccr)
def same_number_again(request: DecodedMessage, session: Session) -> Iterator[str]:
    """The same request under a new End-to-End Identifier; it is charged once."""
    earlier = session.requests.get(_number(request))
    if earlier is not None and earlier.end_to_end != request.end_to_end:
        changed = "" if _asks_the_same(earlier, request) else ", and asks or reports something else"
        yield (
            f"CC-Request-Number {request.value_of('CC-Request-Number')} was in message {earlier.number} already; "
            f"it comes under a new End-to-End Identifier{changed}: the server repeats its first answer"
        )


@_in_session(16, "RFC 6733 section 3", ccr, Kind.NOTE)
def repeated(request: DecodedMessage, session: Session) -> Iterator[str]:
    """A retransmission: the same End-to-End Identifier."""
    earlier = session.requests.get(_number(request))
    if earlier is not None and earlier.end_to_end == request.end_to_end:
        bit = "with" if request.flags & Flag.RETRANSMIT else "without"
        yield f"it repeats message {earlier.number}, {bit} the T bit; the server repeats its answer"


@_in_session(21, "RFC 8506 sections 5.1.2 and 8.2", ccr, Kind.TOLERATED)
def number_out_of_order(request: DecodedMessage, session: Session) -> Iterator[str]:
    """Numbers rise by one."""
    number = request.value_of("CC-Request-Number")
    last = session.last_number
    if number is None or last is None or _number(request) in session.requests or kind_of(request) == _INITIAL:
        return
    if number != last + 1:
        yield f"CC-Request-Number {number} follows {last}"


@_in_session(22, "RFC 8506 section 7", ccr)
def after_the_end(request: DecodedMessage, session: Session) -> Iterator[str]:
    """A session that was terminated is unknown."""
    if session.is_over and _number(request) not in session.requests and kind_of(request) == _UPDATE:
        yield "the session was terminated before: the server answers 5002 (DIAMETER_UNKNOWN_SESSION_ID)"


@_in_session(22, "RFC 8506 section 7", ccr)
def begun_twice(request: DecodedMessage, session: Session) -> Iterator[str]:
    """A session that is open cannot begin."""
    is_open = session.is_open and not session.is_over
    if is_open and kind_of(request) == _INITIAL and _number(request) not in session.requests:
        yield "the session is open already: the server answers 5012, unless Origin-State-Id has risen"


@_in_session(0, "RFC 8506 section 8.19, open5gs-overshoot", ccr, Kind.NOTE)
def more_than_granted(request: DecodedMessage, session: Session) -> Iterator[str]:
    """Usage may exceed the grant; how far shows whether a client keeps to it."""
    if _number(request) in session.requests:
        return
    for branch in (request, *request.each(SERVICE)):
        granted = session.granted.get(of_text(branch))
        if granted is None:
            continue
        for unit, used in _used(branch).items():
            if unit in granted and used > granted[unit]:
                yield f"{unit} {used} {of_text(branch)} is more than the {granted[unit]} granted"


@_in_session(0, "RFC 8506 section 8.16", ccr, Kind.NOTE)
def used_without_grant(request: DecodedMessage, session: Session) -> Iterator[str]:
    """Usage of a service that was never granted anything in this session."""
    if not session.granted or _number(request) in session.requests:
        return
    for service in request.each(SERVICE):
        if of_text(service) not in session.granted and any(_used(service).values()):
            yield f"usage {of_text(service)} is reported, but no request of this session asked for it"


def _used(branch: Branch) -> dict[str, int]:
    total: dict[str, int] = {}
    for used in branch.each("Used-Service-Unit"):
        for node in used.each(*_COUNTED):
            total[node.name] = total.get(node.name, 0) + (node.integer or 0)
    if "CC-Total-Octets" not in total:
        both = total.get("CC-Input-Octets", 0) + total.get("CC-Output-Octets", 0)
        if both:
            total["CC-Total-Octets"] = both
    return total


def _number(request: DecodedMessage) -> RequestKey:
    kind = kind_of(request)
    action = request.value_of("Requested-Action") if kind == CCRequestType.EVENT else None
    return kind, request.value_of("CC-Request-Number"), action


def _asks_the_same(one: DecodedMessage, other: DecodedMessage) -> bool:
    names = (SERVICE, "Requested-Service-Unit", "Used-Service-Unit", "Requested-Action")
    return [node.octets for node in one.each(*names)] == [node.octets for node in other.each(*names)]


# -- all messages of one input -----------------------------------------------------------------------------------


class Exchanges:
    """Goes through the messages in their order, and adds to each what the others say about it."""

    def __init__(self, streams: Streams) -> None:
        self._flows = streams.flows
        self._pending: dict[tuple[Flow | None, int], DecodedMessage] = {}
        self._answered: dict[tuple[Flow | None, int], DecodedMessage] = {}
        self._by_end_to_end: dict[tuple[Flow | None, int, int], tuple[Flow | None, int]] = {}
        self._sessions: dict[str, Session] = {}
        self._states: dict[str, int] = {}

    def judge(self, messages: Iterable[DecodedMessage]) -> None:
        for message in messages:
            if message.is_request:
                message.remarks += self._request(message)
            else:
                message.remarks += self._answer(message)
        for (flow, _), request in self._pending.items():
            if flow is not None and flow.reversed() in self._flows:
                request.remarks.append(
                    Remark(Kind.BREACH, "it is not answered in this capture", 0, "RFC 6733 section 6.2")
                )

    def _request(self, request: DecodedMessage) -> Iterator[Remark]:
        key = (request.found.flow, request.hop_by_hop)
        earlier = self._pending.get(key)
        if earlier is not None and earlier.end_to_end != request.end_to_end:
            text = f"the Hop-by-Hop Identifier is that of message {earlier.number}, which is not answered yet"
            yield Remark(Kind.BREACH, text, 18, "RFC 6733 section 3")
        self._pending[key] = request
        self._by_end_to_end[request.found.flow, request.end_to_end, request.command] = key
        self._answered.pop(key, None)
        yield from self._state(request)
        session_id = request.text_of("Session-Id")
        if not ccr(request) or session_id is None or request.error is not None:
            return
        session = self._sessions.setdefault(session_id, Session(request.text_of("Origin-Host")))
        if _is_forwarded(request, session):
            return
        yield from SESSION_RULES.remarks(request, session)
        self._enter(request, session)

    def _enter(self, request: DecodedMessage, session: Session) -> None:
        number = _number(request)
        if number in session.requests:
            return
        session.requests[number] = request
        session.last_number = number[1] if number[1] is not None else session.last_number
        if number[0] == _TERMINATION:
            session.is_over = True

    def _state(self, request: DecodedMessage) -> Iterator[Remark]:
        """Origin-State-Id rises when a client lost its sessions, and never falls (RFC 6733 section 8.16)."""
        host, state = request.text_of("Origin-Host"), request.value_of("Origin-State-Id")
        if host is None or not state:
            return
        known = self._states.get(host)
        if known is not None and state != known:
            if state > known:
                self._sessions = {key: one for key, one in self._sessions.items() if one.host != host}
                text = f"Origin-State-Id rises from {known} to {state}: the server releases the sessions {host} had"
                yield Remark(Kind.NOTE, text, 17, "RFC 6733 section 8.16")
            else:
                text = f"Origin-State-Id {state} of {host} is less than the {known} before, and says nothing"
                yield Remark(Kind.BREACH, text, 17, "RFC 6733 section 8.16")
        self._states[host] = max(state, known or 0)

    def _answer(self, reply: DecodedMessage) -> Iterator[Remark]:
        flow = reply.found.flow
        asking = flow.reversed() if flow is not None else None
        key = (asking, reply.hop_by_hop)
        request = self._pending.pop(key, None)
        if request is None:
            earlier = self._answered.get(key)
            if earlier is not None:
                text = f"message {earlier.number} was answered before, by message {_answer_number(earlier)}"
                yield Remark(Kind.BREACH, text, 18, "RFC 6733 section 6.2.1")
                return
            other = self._by_end_to_end.get((asking, reply.end_to_end, reply.command))
            request = self._pending.pop(other, None) if other is not None else None
        if request is None:
            if flow is not None and asking in self._flows:
                text = "no request in this capture has its Hop-by-Hop Identifier: its receiver discards it"
                yield Remark(Kind.BREACH, text, 18, "RFC 6733 section 6.2.1")
            return
        self._answered[key] = request
        _relate(request, reply)
        yield from PAIR_RULES.remarks(reply, request)
        self._note_grants(reply, request)

    def _note_grants(self, reply: DecodedMessage, request: DecodedMessage) -> None:
        session = self._sessions.get(request.text_of("Session-Id") or "")
        if session is None or reply.result_code != _SUCCESS:
            return
        session.is_open = True
        for branch in (request, *request.each(SERVICE)):
            session.granted.setdefault(of_text(branch), {})
        granted: dict[str, Counter[str]] = {}
        for branch in (reply, *reply.each(SERVICE)):
            # One service may be granted units before a tariff change, and others after it.
            counts = Counter({unit: amount for unit, amount in units_granted(branch).items() if unit in _COUNTED})
            granted.setdefault(of_text(branch), Counter()).update(counts)
        session.granted.update({text: dict(counts) for text, counts in granted.items() if counts})


def _is_forwarded(request: DecodedMessage, session: Session) -> bool:
    """Whether a relay passed on a request that is known: the same but for the way it has come."""
    earlier = session.requests.get(_number(request))
    if earlier is None or earlier.end_to_end != request.end_to_end or earlier.found.flow == request.found.flow:
        return False
    return len(earlier.each("Route-Record")) != len(request.each("Route-Record"))


def _answer_number(request: DecodedMessage) -> int:
    return request.answer.number if request.answer is not None else 0


def _relate(request: DecodedMessage, reply: DecodedMessage) -> None:
    delay_ns = None
    if request.found.time_ns is not None and reply.found.time_ns is not None:
        delay_ns = reply.found.time_ns - request.found.time_ns
    request.answer = Relation(reply.number, delay_ns)
    reply.request = Relation(request.number, delay_ns)
