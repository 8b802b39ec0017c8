"""Packet gateways on Gy: sessions like those of an Open5GS SMF and of a full 3GPP PGW (TS 32.251, TS 32.299).

A session is a row of downloads: every service has a volume to move at a rate of its own. Time is simulated: the
session looks for what happens next to any of its services (quota used up, Validity-Time over, volume moved), lets all
of them use what they would until then, never more than they were granted, and reports.

The SMF has one service, which names no Rating-Group, reports it whenever something happens, ends the session at a
Final-Unit-Indication or a refusal. The PGW has two (Rating-Group 10, and one without), reports mostly the one
concerned and now and then both, closes a service at its Final-Unit-Indication and the session with the last one.

Money is reckoned by `simulators.audit`: started MiB over the whole session, each service for itself.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

from protocols.credit_control import ReceivedAnswer, ServiceRequest, Units
from protocols.diameter.codes import CCRequestType, Command, ReportingReason, ResultCode
from simulators.audit import DATA
from simulators.client import ServerRequest, service_of, usage_stands
from simulators.driver import Progress, Session, Simulation, SimulationOptions
from simulators.messages import pgw_request, smf_request
from simulators.population import Subscriber
from simulators.summary import Summary

MIB: Final = 1 << 20
SMF_REQUESTED_OCTETS: Final = 1_000_000
"""What Open5GS asks for each time."""
PGW_REQUESTED_OCTETS: Final = 5 * MIB
"""What the PGW asks for in Rating-Group 10; for the other service it leaves that to the server."""
REPORT_ALL_SHARE: Final = 0.3
"""Share of a PGW's updates that report every service, not just the one concerned."""
LONGEST_SESSION_S: Final = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions(SimulationOptions):
    """A gateway's sessions."""

    origin_host: str = "pgw1.simulator.example.net"
    volume_octets: int = 4 * MIB
    """Mean volume of one service of a session; drawn from an exponential distribution."""
    smf_share: float = 0.5
    """Share of sessions that behave like Open5GS' SMF, 0 to 1; the others like a 3GPP PGW."""
    restart_every: int = 0
    """Sessions begun after which the gateway loses its state, its connection is cut, and it comes back with a higher
    Origin-State-Id; 0: never."""

    def __post_init__(self) -> None:
        SimulationOptions.__post_init__(self)
        if not 1 <= self.volume_octets <= 1 << 50:
            raise ValueError(f"volume_octets is {self.volume_octets}; give 1 to {1 << 50}")
        if not 0 <= self.smf_share <= 1:
            raise ValueError(f"smf_share is {self.smf_share}; give 0 to 1")
        if not 0 <= self.restart_every <= 100_000_000:
            raise ValueError(f"restart_every is {self.restart_every}; give 0 to 100000000")


@dataclass(slots=True, eq=False)
class _Service:
    """One service of a data session; all volumes in octets."""

    rating_group: int | None
    wanted: int
    """Still to be moved."""
    rate: float
    """Octets per simulated second."""
    requested: int
    """To ask for; 0 leaves it to the server."""
    granted: int = 0
    """Left of the grant."""
    quota: int = 0
    """The grant as it was given."""
    validity_s: float = 0.0
    """Left of the Validity-Time; 0: none was given."""
    final: bool = False
    free: bool = False
    """Credit-Control-Not-Applicable: used without reports."""
    closed: bool = False
    unreported: int = 0
    unreported_s: float = 0.0

    @property
    def running(self) -> bool:
        return not self.closed and not self.free

    def is_meant(self, request: ServerRequest) -> bool:
        """Whether a Re-Auth is about it; the services here have no Service-Identifier and no credit pool."""
        if request.service_identifier is not None or request.pool is not None:
            return False
        return request.rating_group in (None, self.rating_group)

    def take(self, answer: ReceivedAnswer) -> None:
        """What the answer to a request that asked for units grants."""
        found = service_of(answer, self.rating_group)
        self.granted = self.quota = 0
        self.validity_s = 0.0
        self.final = False
        if found is None or found.result_code not in (None, ResultCode.SUCCESS):
            self.free = found is not None and found.result_code == ResultCode.CREDIT_CONTROL_NOT_APPLICABLE
            self.closed = not self.free
            return
        if found.granted is not None:
            self.granted = self.quota = found.granted.total_octets or 0
        self.validity_s = float(found.validity_time or 0)
        self.final = found.final_unit_action is not None
        self.closed = not self.granted

    def next_event(self) -> tuple[float, ReportingReason]:
        """Simulated seconds until something happens, and what. Quota wins over the rest at the same moment."""
        quota_s, done_s = self.granted / self.rate, self.wanted / self.rate
        if self.validity_s and self.validity_s < min(quota_s, done_s):
            return self.validity_s, ReportingReason.VALIDITY_TIME
        if quota_s <= done_s:
            return quota_s, ReportingReason.QUOTA_EXHAUSTED
        return done_s, ReportingReason.FINAL

    def use(self, seconds: float, overshoot: float, reason: ReportingReason | None) -> None:
        """Move what fits into the time; exactly all of it for the service that something happened to."""
        limit = min(self.granted, self.wanted)
        moved = limit if reason in _TO_THE_END else min(limit, int(self.rate * seconds))
        self.granted -= moved
        if reason is ReportingReason.QUOTA_EXHAUSTED and overshoot:
            moved += int(self.quota * overshoot)
        self.wanted = max(0, self.wanted - moved)
        self.validity_s = max(0.0, self.validity_s - seconds) if self.validity_s else 0.0
        self.unreported += moved
        self.unreported_s += seconds


_TO_THE_END: Final = (ReportingReason.QUOTA_EXHAUSTED, ReportingReason.FINAL)


class _DataSession(Session):
    """What SMF and PGW sessions share: the course of events and the bookkeeping."""

    tariff = DATA

    def __init__(self, simulation: Simulation, index: int, subscriber: Subscriber) -> None:
        super().__init__(simulation, index, subscriber)
        self.services = self.make_services()
        self.reporting: list[_Service] = []
        """The services of the update that waits for its answer."""
        self.ending = False
        """The termination is under way."""
        self.reauthorise: list[_Service] = []
        """The services that the server wants a report of."""

    def make_services(self) -> list[_Service]:
        raise NotImplementedError

    def message(self, kind: CCRequestType, reports: "list[_Report]") -> bytes:
        raise NotImplementedError

    def service(self, rating_group: int | None, requested: int) -> _Service:
        """A service with a volume and a rate drawn for it: 20 kB/s to 2.5 MB/s."""
        options = self.options
        assert isinstance(options, GatewayOptions)
        volume = 1 + int(self.random.expovariate(1 / options.volume_octets))
        rate = 20_000 * 125 ** self.random.random()
        return _Service(rating_group, volume, max(rate, volume / LONGEST_SESSION_S), requested)

    async def request(self, kind: CCRequestType, reports: "list[_Report]") -> ReceivedAnswer | None:
        """One exchange, with usage moved to the audit as the answer says."""
        for report in reports:
            report.octets, report.service.unreported = report.service.unreported, 0
            report.seconds, report.service.unreported_s = report.service.unreported_s, 0.0
        self.reporting = [report.service for report in reports] if kind is CCRequestType.UPDATE else []
        self.ending = kind is CCRequestType.TERMINATION
        answer: ReceivedAnswer | None = None
        try:
            answer = await self.client.exchange(self.message(kind, reports))
        finally:  # also when the gateway restarts meanwhile
            self.reporting = []
            for report in reports:
                key = (-1 if report.service.rating_group is None else report.service.rating_group, -1)
                if answer is None:
                    self.audit.unanswered(key, report.octets)
                elif usage_stands(answer, service_of(answer, report.service.rating_group)):
                    self.audit.debited(key, report.octets)
        return answer

    async def run(self) -> None:
        answer = await self.request(
            CCRequestType.INITIAL, [_Report(service, asks=True, reports=False) for service in self.services]
        )
        if answer is None or answer.result_code != ResultCode.SUCCESS:
            return  # nothing was opened, or the server's supervision closes it
        for service in self.services:
            service.take(answer)
        while any(service.running for service in self.services):
            if not await self.next_report():
                break
        else:
            await self.terminate()
            return
        if self.ends_refused_sessions:
            await self.terminate()

    ends_refused_sessions = False
    """Whether a T follows when an update was refused as a whole."""

    async def next_report(self) -> bool:
        """Run to the next event and report it; False if the answer ended the session."""
        running = [service for service in self.services if service.running]
        seconds, reason, concerned = min(
            ((*service.next_event(), service) for service in running), key=lambda event: event[0]
        )
        passed = await self.pass_time(seconds)
        if passed < seconds or self.abort_wanted or self.reauthorise:
            for service in running:
                service.use(passed, 0.0, None)
            return await self.obey(running)
        for service in running:
            service.use(seconds, self.options.overshoot, reason if service is concerned else None)
        concerned.closed = reason is ReportingReason.FINAL or (
            concerned.final and reason is ReportingReason.QUOTA_EXHAUSTED
        )
        return await self.report(concerned, reason)

    async def obey(self, running: list[_Service]) -> bool:
        """Do what the server asked for: end the session, or report; False if the answer ended the session."""
        if self.abort_wanted:
            self.close_all()
            return True
        wanted, self.reauthorise = self.reauthorise, []
        forced = ReportingReason.FORCED_REAUTHORISATION
        reports = [_Report(each, asks=True, reports=True, reason=forced) for each in running if each in wanted]
        return await self.update(reports) if reports else True

    async def report(self, concerned: _Service, reason: ReportingReason) -> bool:
        raise NotImplementedError

    def asked(self, request: ServerRequest) -> ResultCode:
        """RAR: 2002, and a report follows; 2001 if one of all that is meant is under way (RFC 8506 section 5.5).

        ASR: 2001, and the T follows (RFC 6733 section 8.5).
        """
        if request.command is Command.ABORT_SESSION:
            self.abort_wanted = True
            self.interrupt()
            return ResultCode.SUCCESS
        if self.ending:
            return ResultCode.SUCCESS
        meant = [service for service in self.services if service.running and service.is_meant(request)]
        if not meant:
            return ResultCode.UNABLE_TO_COMPLY
        missing = [service for service in meant if service not in self.reporting]
        if not missing:
            return ResultCode.SUCCESS
        self.reauthorise += [service for service in missing if service not in self.reauthorise]
        self.interrupt()
        return ResultCode.LIMITED_SUCCESS

    def close_all(self) -> None:
        for service in self.services:
            service.closed = True

    async def update(self, reports: "list[_Report]") -> bool:
        """One U; False if it ended the session."""
        answer = await self.request(CCRequestType.UPDATE, reports)
        if answer is None or answer.result_code != ResultCode.SUCCESS:
            return False
        for report in reports:
            if report.asks:
                report.service.take(answer)
        return True

    async def terminate(self) -> None:
        """The T, with what was not reported yet; a session of one service always reports it."""
        reports = [
            _Report(service, asks=False, reports=True, reason=ReportingReason.FINAL)
            for service in self.services
            if service.unreported or len(self.services) == 1
        ]
        await self.request(CCRequestType.TERMINATION, reports)


@dataclass(slots=True)
class _Report:
    """One MSCC of a request."""

    service: _Service
    asks: bool
    """With a Requested-Service-Unit."""
    reports: bool
    """With a Used-Service-Unit."""
    reason: ReportingReason | None = None
    octets: int = 0
    seconds: float = 0.0

    def used(self, *, total: bool) -> tuple[Units, ...]:
        """Used-Service-Unit; a tenth of the volume goes up. Exhausted quota is told inside, the rest outside it."""
        if not self.reports:
            return ()
        upwards = self.octets // 10
        return (
            Units(
                time=int(self.seconds),
                total_octets=self.octets if total else None,
                input_octets=upwards,
                output_octets=self.octets - upwards,
                reporting_reason=self.reason if self.reason is ReportingReason.QUOTA_EXHAUSTED else None,
            ),
        )

    @property
    def outer_reason(self) -> ReportingReason | None:
        return None if self.reason is ReportingReason.QUOTA_EXHAUSTED else self.reason


class _SmfSession(_DataSession):
    """As Open5GS' SMF: after a refused update a T follows."""

    ends_refused_sessions = True

    def asked(self, request: ServerRequest) -> ResultCode:
        """A RAR gets 2001, but no report follows; an ASR 5005, and the session goes on."""
        return ResultCode.SUCCESS if request.command is Command.RE_AUTH else ResultCode.MISSING_AVP

    def make_services(self) -> list[_Service]:
        return [self.service(None, SMF_REQUESTED_OCTETS)]

    def message(self, kind: CCRequestType, reports: list[_Report]) -> bytes:
        destination = self.client.server if kind is not CCRequestType.INITIAL else None
        report = reports[0]
        service = ServiceRequest(
            requested=Units(total_octets=report.service.requested) if report.asks else None,
            used=report.used(total=False),
            reporting_reason=report.outer_reason,
        )
        return smf_request(self.head(kind, destination_host=destination), service)

    async def report(self, concerned: _Service, reason: ReportingReason) -> bool:
        if concerned.closed:
            return True  # the T reports it
        return await self.update([_Report(concerned, asks=True, reports=True, reason=reason)])


class _PgwSession(_DataSession):
    """As a full 3GPP PGW: services end one by one."""

    def make_services(self) -> list[_Service]:
        return [self.service(10, PGW_REQUESTED_OCTETS), self.service(None, 0)]

    def message(self, kind: CCRequestType, reports: list[_Report]) -> bytes:
        services = []
        for report in reports:
            asked = report.service.requested
            requested = Units(total_octets=asked or None) if report.asks else None
            services.append(
                ServiceRequest(
                    rating_group=report.service.rating_group,
                    requested=requested,
                    used=report.used(total=True),
                    reporting_reason=report.outer_reason,
                )
            )
        destination = self.client.server if kind is not CCRequestType.INITIAL else None
        return pgw_request(self.head(kind, destination_host=destination), services)

    async def report(self, concerned: _Service, reason: ReportingReason) -> bool:
        others = [service for service in self.services if service.running and service is not concerned]
        if concerned.closed and not others:
            return True  # the T reports it
        if concerned.closed:
            reports = [_Report(concerned, asks=False, reports=True, reason=ReportingReason.FINAL)]
        else:
            reports = [_Report(concerned, asks=True, reports=True, reason=reason)]
        if others and self.random.random() < REPORT_ALL_SHARE:
            change = ReportingReason.RATING_CONDITION_CHANGE
            reports += [_Report(service, asks=True, reports=True, reason=change) for service in others]
        return await self.update(reports)


def simulation_of(options: GatewayOptions) -> Simulation:
    """A gateway that is to be run once."""

    def make_session(simulation: Simulation, index: int, subscriber: Subscriber) -> Session:
        smf = Random(f"{options.seed}:{index}:kind").random() < options.smf_share
        return (_SmfSession if smf else _PgwSession)(simulation, index, subscriber)

    def on_request(request: ServerRequest) -> int:
        session = simulation.live.get(request.session_id)
        if not isinstance(session, _DataSession):
            return int(ResultCode.UNKNOWN_SESSION_ID)
        return int(session.asked(request))

    simulation = Simulation(options, make_session, on_request, options.restart_every)
    return simulation


async def run(options: GatewayOptions, progress: Progress) -> Summary:
    """Run a gateway's sessions against a server; `progress` is told how many of them are done.

    Raises SimulationError if the server cannot be reached, or not any more.
    """
    return await simulation_of(options).run(progress)
