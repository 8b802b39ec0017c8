"""Data sessions as Open5GS' SMF runs them: what it sends, and what it makes of every answer.

``DataSession`` is the SMF with its UPF, whose usage reports make it ask: traffic passes, and is counted against the
quota of the last answer; at the end of the quota, at its threshold and at the end of Validity-Time a report is due. An
answer without units opens the session to free traffic in Open5GS; here it raises ``FreeTrafficError``.
"""

from dataclasses import dataclass, field

from protocols.diameter import codec
from protocols.diameter.codec import Avp, Message, avp
from protocols.diameter.codes import Flag
from tests.interop.open5gs.transport import IDENTITY, REALM, Gateway
from tests.live_server import LiveServer
from tests.scenarios.checks import breaches
from tests.scenarios.clients import INITIAL, PROFILES, TERMINATION, UPDATE, Head
from tests.scenarios.expectations import describe
from tests.scenarios.notation import members_of
from tests.scenarios.requests import Request
from tests.wire import next_number

SUCCESS = 2001
WANTED_OCTETS = 1_000_000
"""What it asks for in every request."""
CREDIT_CONTROL = 272

#: Reporting-Reason (TS 32.299 clause 7.2.175).
THRESHOLD, FINAL, QUOTA_EXHAUSTED, VALIDITY_TIME = 0, 2, 3, 4

_RESULT_CODE, _ORIGIN_HOST, _MSCC, _GRANTED, _TOTAL_OCTETS, _VALIDITY, _FINAL_UNITS = 268, 264, 456, 431, 421, 448, 430
_VOLUME_THRESHOLD = 869
_ORIGIN_REALM, _DESTINATION_REALM = 296, 283


class FreeTrafficError(AssertionError):
    """An answer from which on Open5GS lets everything pass."""


@dataclass
class Quota:
    """What the last answer allows."""

    octets: int
    threshold: int = 0
    """The report is due so many octets before the end; 0: at the end."""
    until_ms: int = 0
    """... and at this time at the latest; 0: at no time. By the server's clock."""
    is_final: bool = False


@dataclass
class DataSession:
    """One session of one subscriber; ``start`` it."""

    gateway: Gateway
    server: LiveServer
    session_id: str
    imsi: str
    msisdn: str = ""
    counts_from_1970: bool = False
    """CC-Time of the first report is the Unix time, as after an answer without Validity-Time."""
    reports_in_halves: bool = False
    """Every usage is reported as two equal Used-Service-Units."""
    waits: bool = True
    """False: traffic goes on while a report is not answered yet, and may make further ones."""

    is_open: bool = False
    quota: Quota = field(default_factory=lambda: Quota(0))
    passed: int = 0
    """Octets that have got through."""
    passed_unanswered: int = 0
    """Of these, those that got through while a report was not answered."""
    kinds: str = ""
    """The requests so far: I, U, T."""
    number: int = -1
    peer: str = ""
    """Origin-Host of the answers."""
    up: int = 0
    down: int = 0
    """Octets not reported yet, of which nothing has been said."""
    reported_ms: int = 0
    in_flight: list[Message] = field(default_factory=list)
    last_request: Message | None = None
    last_answer: Message | None = None

    def start(self) -> bool:
        """Whether the subscriber is let in."""
        while not self.gateway.answers.empty():
            self.gateway.answers.get()  # what a test that failed has left
        self.reported_ms = 0 if self.counts_from_1970 else self.server.now_ms()
        self.gateway.begin(self.session_id)
        self.is_open = True
        self._send(INITIAL, [self._requested()])
        self.settle()
        if not self.is_open:
            self.gateway.end(self.session_id)
        return self.is_open

    def traffic(self, up: int, down: int) -> None:
        """Let a burst of octets through."""
        assert self.is_open
        self.passed += up + down
        self.up += up
        self.down += down
        if self.in_flight:
            self.passed_unanswered += up + down
        counted = self.up + self.down
        if counted >= self.quota.octets:
            self._report(QUOTA_EXHAUSTED)
        elif self.quota.threshold and counted >= self.quota.octets - self.quota.threshold:
            self._report(THRESHOLD)

    def time_passes(self, seconds: int) -> None:
        """Put the server's clock forward, and report whenever a Validity-Time ends meanwhile."""
        self.settle()
        end_ms = self.server.now_ms() + seconds * 1000
        while self.is_open and self.quota.until_ms and self.quota.until_ms <= end_ms:
            self._pass_until(self.quota.until_ms)
            self._report(VALIDITY_TIME)
            self.settle()
        self._pass_until(end_ms)

    def _pass_until(self, at_ms: int) -> None:
        left_ms = at_ms - self.server.now_ms()
        if left_ms > 0:
            self.server.pass_time(left_ms)

    def send_again(self) -> None:
        """Send the last request once more under a new End-to-End Identifier; its answer has to be the same."""
        self.settle()
        assert self.last_request is not None
        assert self.last_answer is not None
        self.gateway.send(_octets(self.last_request, 0, next_number()))
        again = codec.decode(self.gateway.answer())
        assert [one.encode() for one in again.avps] == [one.encode() for one in self.last_answer.avps]

    def end(self) -> None:
        """The subscriber leaves."""
        self._release()
        self.settle()

    # -- what it sends -------------------------------------------------------------------------------------------

    def _report(self, reason: int) -> None:
        if len(self.in_flight) > 1:
            self.settle()
        if self.quota.is_final:
            self._release()
        elif self.is_open:
            self._update(reason)
        if self.waits:
            self.settle()

    def _update(self, reason: int) -> None:
        inside = [avp("Reporting-Reason", reason)] if reason in (THRESHOLD, QUOTA_EXHAUSTED) else []
        beside = [avp("Reporting-Reason", reason)] if reason == VALIDITY_TIME else []
        self._send(UPDATE, [self._requested(), *self._used(inside), *beside])

    def _release(self) -> None:
        if self.is_open:
            self.is_open = False
            self._send(TERMINATION, [*self._used([]), avp("Reporting-Reason", FINAL)])

    @staticmethod
    def _requested() -> bytes:
        return avp("Requested-Service-Unit", [avp("CC-Total-Octets", WANTED_OCTETS)])

    def _used(self, first: list[bytes]) -> list[bytes]:
        """Used-Service-Unit: time, input and output octets, never their sum."""
        now_ms = self.server.now_ms()
        duration_s = (now_ms - self.reported_ms) // 1000
        up, down = self.up, self.down
        self.reported_ms, self.up, self.down = now_ms, 0, 0
        halves = self.reports_in_halves and not (up % 2 or down % 2)
        if halves:
            up, down = up // 2, down // 2
        usage = avp(
            "Used-Service-Unit",
            [*first, avp("CC-Time", duration_s), avp("CC-Input-Octets", up), avp("CC-Output-Octets", down)],
        )
        return [usage] * (2 if halves else 1)

    def _send(self, kind: int, service: list[bytes]) -> None:
        self.number += 1
        self.kinds += " IUT"[kind]
        subscriptions = [(1, self.imsi), *([(0, self.msisdn)] if self.msisdn else [])]
        head = Head(
            IDENTITY, self.session_id, kind, self.number, subscriptions, self.peer, self.server.now_ms() // 1000
        )
        avps = PROFILES["Open5GS"].request(head, [avp("Multiple-Services-Credit-Control", service)])
        flags = Flag.REQUEST | Flag.PROXIABLE
        request = codec.decode(Request(CREDIT_CONTROL, 4, flags, [_in_its_realm(one) for one in avps]).octets())
        self.last_request = request
        self.in_flight.append(request)
        self.gateway.send(_octets(request, 0, request.end_to_end))

    # -- what it makes of the answers ----------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait for the answers to all that was sent, and act on them."""
        while self.in_flight:
            octets = self.gateway.answer()
            answer = codec.decode(octets)
            (request,) = [one for one in self.in_flight if one.end_to_end == answer.end_to_end]
            self.in_flight.remove(request)
            # The Hop-by-Hop Identifier was freeDiameter's.
            asked = _octets(request, answer.hop_by_hop, answer.end_to_end)
            assert breaches(asked, octets, self.server.origin_host) == [], describe(answer)
            self.last_answer = answer
            self._act_on(answer)

    def _act_on(self, answer: Message) -> None:
        """Command level first, then the services, of which the last one counts in each respect."""
        host = answer.find(_ORIGIN_HOST)
        assert host is not None
        self.peer = host.data.decode()
        if not self.is_open:
            self.gateway.end(self.session_id)
            return  # what comes after the T, and its own answer, is of no account
        first = not self.kinds.removeprefix("I")
        code = _number(answer.find(_RESULT_CODE))
        members = [one for service in answer.find_all(_MSCC) for one in members_of(service)]
        service_code = _number(_last(members, _RESULT_CODE), SUCCESS)
        if code != SUCCESS or service_code != SUCCESS:
            if first and code != SUCCESS:
                self.is_open = False  # refused at the start: no T follows
            else:
                self._release()
            return
        granted = _last(members, _GRANTED)
        octets = None if granted is None else _last(members_of(granted), _TOTAL_OCTETS)
        if octets is None:
            raise FreeTrafficError(f"everything passes from here on: {describe(answer)}")
        validity_s = _number(_last(members, _VALIDITY))
        threshold = _number(_last(members, _VOLUME_THRESHOLD))
        self.quota = Quota(
            _number(octets),
            threshold if threshold <= _number(octets) else 0,
            self.server.now_ms() + validity_s * 1000 if validity_s else 0,
            _last(members, _FINAL_UNITS) is not None,
        )


def _octets(message: Message, hop_by_hop: int, end_to_end: int) -> bytes:
    avps = [one.encode() for one in message.avps]
    return codec.build(message.command, message.application, message.flags, hop_by_hop, end_to_end, avps)


def _in_its_realm(encoded: bytes) -> bytes:
    code = int.from_bytes(encoded[:4], "big")
    if code in (_ORIGIN_REALM, _DESTINATION_REALM):
        return avp("Origin-Realm" if code == _ORIGIN_REALM else "Destination-Realm", REALM)
    return encoded


def _last(avps: list[Avp], code: int) -> Avp | None:
    return next((one for one in reversed(avps) if one.code == code), None)


def _number(one: Avp | None, default: int = 0) -> int:
    return default if one is None else int.from_bytes(one.data, "big")
