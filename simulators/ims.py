"""IMS nodes on Ro: calls like those of Kamailio's ims_charging, and short messages of an SMSC (TS 32.260, TS 32.274).

A call (SCUR) reserves seconds before it rings, reports shortly before they are used up, and ends when the callee hangs
up or the units run out; a T follows even where the first request was refused, as ims_charging does. A message is an
event (IEC, direct debiting) or a session of reservation and report (ECUR), which reports nothing if the message could
not be delivered.

Money is reckoned by `simulators.audit`: started minutes over the whole call, messages one by one.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

from protocols.credit_control import ReceivedAnswer, ServiceAnswer
from protocols.diameter.codes import CCRequestType, ResultCode
from simulators.audit import SMS, VOICE
from simulators.client import DEBITED, service_of, units_granted, usage_stands
from simulators.driver import Progress, Session, Simulation, SimulationOptions
from simulators.messages import CALL_RATING_GROUP, CALL_SERVICE, call_request, sms_request
from simulators.population import FIRST_MSISDN, Subscriber
from simulators.summary import Summary

REPORT_BEFORE_END_S: Final = 8
"""ims_charging reports this long before the granted time is over."""
UNANSWERED_SHARE: Final = 0.1
"""Share of calls that nobody answers, and of ECUR messages that cannot be delivered."""
RING_SECONDS: Final = 5.0
MOST_MESSAGES: Final = 3
"""Parts of a long message, each charged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImsOptions(SimulationOptions):
    """An IMS node's calls and messages."""

    origin_host: str = "ims1.simulator.example.net"
    call_seconds: int = 120
    """Mean duration of a call that is answered; drawn from an exponential distribution."""
    requested_seconds: int = 60
    """Asked for at a time."""
    event_share: float = 0.25
    """Share of messages charged as events (IEC), 0 to 1."""
    message_session_share: float = 0.15
    """Share of messages charged as sessions (ECUR), 0 to 1; what is left of 1 are calls."""

    def __post_init__(self) -> None:
        SimulationOptions.__post_init__(self)
        if not 1 <= self.call_seconds <= 86_400:
            raise ValueError(f"call_seconds is {self.call_seconds}; give 1 to 86400")
        if not 1 <= self.requested_seconds <= 86_400:
            raise ValueError(f"requested_seconds is {self.requested_seconds}; give 1 to 86400")
        shares = (self.event_share, self.message_session_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(
                f"event_share and message_session_share are {shares[0]} and {shares[1]}; give shares of 1 together"
            )


class _Call(Session):
    """A call of the subscriber to a national number."""

    tariff = VOICE
    service = (CALL_RATING_GROUP, CALL_SERVICE)

    def __init__(self, simulation: Simulation, index: int, subscriber: Subscriber) -> None:
        super().__init__(simulation, index, subscriber)
        self.called = str(FIRST_MSISDN + self.random.randint(1, 999))

    async def run(self) -> None:
        options = self.options
        assert isinstance(options, ImsOptions)
        answered = self.random.random() >= UNANSWERED_SHARE
        left_s = 1 + int(self.random.expovariate(1 / options.call_seconds)) if answered else 0
        answer = await self.request(CCRequestType.INITIAL, options.requested_seconds, None)
        if answer is None:
            return
        grant = self.granted(answer)
        if grant is None:
            await self.request(CCRequestType.TERMINATION, None, 0)  # though no session was opened
            return
        await self.pass_time(RING_SECONDS)
        if left_s and not grant.validity_time:
            answer = await self.request(CCRequestType.UPDATE, options.requested_seconds, 0)
            grant = None if answer is None else self.granted(answer)
        unreported_s = 0
        while left_s and grant is not None:
            talk_s, ends = self.next_stretch(grant, left_s)
            await self.pass_time(talk_s)
            left_s -= talk_s
            unreported_s = talk_s
            if ends or not left_s:
                break
            answer = await self.request(CCRequestType.UPDATE, options.requested_seconds, talk_s)
            unreported_s = 0
            if answer is None:
                return
            grant = self.granted(answer)
        await self.request(CCRequestType.TERMINATION, None, unreported_s)

    def next_stretch(self, grant: ServiceAnswer, left_s: int) -> tuple[int, bool]:
        """Seconds to talk until the next report, and whether the call ends with them for want of units."""
        granted_s = (grant.granted.time or 0) if grant.granted is not None else 0
        if grant.final_unit_action is not None:
            beyond = int(granted_s * self.options.overshoot)
            return min(left_s, granted_s + beyond), True
        interval = min(granted_s, grant.validity_time or granted_s)
        if interval > REPORT_BEFORE_END_S:
            interval -= REPORT_BEFORE_END_S
        return min(left_s, interval), False

    def granted(self, answer: ReceivedAnswer) -> ServiceAnswer | None:
        """The grant, None if there are no seconds in it."""
        if answer.result_code != ResultCode.SUCCESS:
            return None
        found = service_of(answer, CALL_RATING_GROUP, CALL_SERVICE)
        return found if found is not None and found.granted is not None and found.granted.time else None

    async def request(self, kind: CCRequestType, requested_s: int | None, used_s: int | None) -> ReceivedAnswer | None:
        """One exchange, with its usage moved to the audit as the answer says."""
        message = call_request(self.head(kind), self.called, requested_s=requested_s, used_s=used_s)
        answer = await self.client.exchange(message)
        if answer is None:
            self.audit.unanswered(self.service, used_s or 0)
        elif usage_stands(answer, service_of(answer, CALL_RATING_GROUP, CALL_SERVICE)):
            self.audit.debited(self.service, used_s or 0)
        return answer


class _Message(Session):
    """A short message of the subscriber."""

    tariff = SMS
    service = (-1, -1)

    def __init__(self, simulation: Simulation, index: int, subscriber: Subscriber) -> None:
        super().__init__(simulation, index, subscriber)
        self.recipient = str(FIRST_MSISDN + self.random.randint(1, 999))
        self.parts = self.random.randint(1, MOST_MESSAGES)

    async def request(self, kind: CCRequestType, requested: int | None, used: int | None) -> ReceivedAnswer | None:
        message = sms_request(self.head(kind), self.recipient, requested=requested, used=used)
        return await self.client.exchange(message)


class _EventMessage(_Message):
    """IEC: one request that debits (RFC 8506 section 6.3)."""

    async def run(self) -> None:
        answer = await self.request(CCRequestType.EVENT, self.parts, None)
        if answer is None:
            self.audit.unanswered(self.service, self.parts)
        elif answer.result_code == ResultCode.SUCCESS and units_granted(answer.granted):
            assert answer.granted is not None
            self.audit.debited(self.service, answer.granted.service_specific or 0)


class _SessionMessage(_Message):
    """ECUR: reserve, deliver, report what was delivered (TS 32.299 clause 5.2.2.2)."""

    async def run(self) -> None:
        delivered = self.random.random() >= UNANSWERED_SHARE
        answer = await self.request(CCRequestType.INITIAL, self.parts, None)
        if answer is None or answer.result_code != ResultCode.SUCCESS:
            return
        found = service_of(answer, None)
        granted = 0
        if found is not None and found.result_code in (None, ResultCode.SUCCESS) and found.granted is not None:
            granted = found.granted.service_specific or 0
        used = min(granted, self.parts) if delivered else 0
        await self.pass_time(1.0)
        answer = await self.request(CCRequestType.TERMINATION, None, used)
        if answer is None:
            self.audit.unanswered(self.service, used)
        elif answer.result_code in DEBITED:
            self.audit.debited(self.service, used)


async def run(options: ImsOptions, progress: Progress) -> Summary:
    """Run an IMS node's calls and messages against a server; `progress` is told how many of them are done.

    Raises SimulationError if the server cannot be reached, or not any more.
    """

    def make_session(simulation: Simulation, index: int, subscriber: Subscriber) -> Session:
        kind = Random(f"{options.seed}:{index}:kind").random()
        if kind < options.event_share:
            return _EventMessage(simulation, index, subscriber)
        if kind < options.event_share + options.message_session_share:
            return _SessionMessage(simulation, index, subscriber)
        return _Call(simulation, index, subscriber)

    return await Simulation(options, make_session).run(progress)
