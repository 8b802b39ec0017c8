"""One online charging server process: its store, its Diameter identity, its background work, its metrics.

``run`` is what ``occ serve`` calls. Everything is started in the order in which it depends on each other, and stopped
in the opposite order: peers take their leave first, the ledger's store goes last.
"""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from socket import socket
from typing import Any, Final

import uvloop

from balance.directory_watch import DirectoryWatch
from balance.embedded import Address
from balance.keys import CLI_TOKENS, LAYOUT
from balance.notices import enqueue
from balance.resp import StoreError
from balance.store import Store
from balance.store import StoreSettings as LedgerStoreSettings
from balance.subscriptions import count_subscriptions
from occ import tracing
from occ.admission import AdmissionLimits
from occ.away import Away
from occ.charging import Charging
from occ.clock import now_ms
from occ.companions import Deliveries, KeptRedis
from occ.expiry import Expiry
from occ.gy import Gy, Peer
from occ.notices.process import check as check_notices
from occ.observing import metrics_server
from occ.open_counts import OpenCounts
from occ.path_authorization import authorizing
from occ.peer_rates import PeerRates
from occ.policy import reloading
from occ.policy.acting import Acting, Due
from occ.policy.counting import RuleCounters
from occ.policy.reloading import PolicyReload
from occ.policy.telling import notice_of
from occ.policy.watching import Watching
from occ.profiles import ProfileChooser, Profiles
from occ.profiles import Reauthorisation as Readiness
from occ.rating.catalogue import load_catalogue
from occ.reauthorisation import Reauthorisation
from occ.reload import CatalogueReload
from occ.rules import ChargingSettings as ChargeSettings
from occ.rules import Rules
from occ.seed import seed
from occ.settings import Settings
from occ.stand_in import Siblings, StandIn
from occ.sy import Sy, SyRequest, SySettings
from occ.sy_notifications import SyNotifications
from occ.tls import tls_contexts
from occ.tracing import Tracing
from protocols.credit_control import CreditControlRequest
from protocols.diameter.codec import avp
from protocols.diameter.codes import Application, Command, DisconnectCause
from protocols.diameter.events import Opened, PeerEvent, RequestReceived, Role, StateIdChanged
from protocols.diameter.node import Node, NodeSettings, PeerHandle, route

log = logging.getLogger("occ.server")

_SY: Final = int(Application.SY)
APPLICATIONS: Final = {
    int(Application.CREDIT_CONTROL): frozenset((int(Command.CREDIT_CONTROL),)),
    _SY: frozenset((int(Command.SPENDING_LIMIT), int(Command.SESSION_TERMINATION))),
}
"""What is advertised, and the commands whose requests are taken."""

MEMORY_CHECK_S: Final = 30.0
_GIBIBYTE: Final = (1 << 30) // (1 if sys.platform == "darwin" else 1024)
"""In the unit of ru_maxrss: octets on macOS, kibioctets elsewhere."""

OPENING_S: Final = 1.0
"""A process that is replaced waits so long at most for the CERs of connections that it has accepted ..."""
HANDSHAKE_S: Final = 0.25
"""... and for TLS handshakes, of which it knows nothing, always for this."""
OPENING_CHECK_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class AsWorker:
    """What a supervisor (``occ.supervisor``) has for one of its workers, which a server alone has by itself."""

    redis: Address | None
    """Where the embedded Redis of the supervisor listens; None: the settings name an external one."""
    diameter: tuple[socket, ...]
    """Bound to the Diameter port, and so on; the other processes of this worker's identity have them as well."""
    diameter_tls: tuple[socket, ...]
    metrics: socket
    begins: bool = True
    """No server ran before it: what changed meanwhile has to be looked for."""
    recounts: bool = True
    """What stands open has to be counted: nobody has handed over."""
    restarts: int = 0
    """Times that this worker was started again as it had ended by itself."""
    origin_hosts: tuple[str, ...] = ()
    """Of all workers of the supervisor."""


class OnlineChargingServer:
    """A server that charges. ``start`` and ``stop`` belong to one event loop.

    ``population``: a file of sample subscribers to create where they are missing (``occ.seed``), or None.
    ``clock``: milliseconds since the Unix epoch, UTC, by which requests are charged and sessions supervised.
    ``part``: it is one of several, and takes the steps of ``start`` when it is told to; None: it is a server alone.
    """

    def __init__(
        self,
        settings: Settings,
        population: Path | None = None,
        clock: Callable[[], int] = now_ms,
        part: AsWorker | None = None,
    ) -> None:
        self.settings = settings
        self._population = population
        self._clock = clock
        self._part = part
        self._cleanup = AsyncExitStack()
        self.redis_address = Address()
        self.failed = asyncio.Event()
        """Set when the server cannot go on; ``failure`` says why."""
        self.failure: Exception | None = None
        self.diameter_port = 0
        self.diameter_tls_port = 0
        """0: nobody listens with TLS."""
        self.metrics_port = 0
        self.redis_program = ""
        self.leaving = False
        """It has begun to stop: nobody is let in any more."""
        self._listens = False
        self._is_replaced = False
        """Another process of its identity lets clients in."""
        self._ended_work: list[str] = []
        """Background work that has ended and should not have."""

    async def start(self) -> None:
        """Start everything, or nothing: what had been started is stopped again before an error is raised.

        Raises ConfigError, EmbeddedRedisError, StoreError or OSError, each saying what to do.
        """
        await self.prepare()
        try:
            await self.listen()
            await self.take_over()
        except BaseException:
            await self.stop()
            raise

    async def prepare(self) -> None:
        """Everything but that clients are let in, and what only one process of an identity may do. Raises as ``start``.

        Then nothing is left running.
        """
        try:
            await self._prepare()
        except BaseException:
            await self.stop()
            raise

    async def _prepare(self) -> None:
        settings = self.settings
        catalogue = load_catalogue(settings.catalogue)
        templates = check_notices(settings.notices).known if settings.notices.enabled else None
        policies = reloading.load(settings.policies, catalogue, templates)
        assert settings.profiles is not None  # once loaded
        profiles = Profiles.load(settings.profiles)
        diameter = settings.diameter
        self.profiles = ProfileChooser(profiles, diameter.default_profile, diameter.peers.profiles)
        self.redis_address = await self._redis()
        self.store = Store(
            LedgerStoreSettings(
                self.redis_address,
                settings.store.partitions,
                account_cache_entries=max(1, settings.charging.account_cache_entries),
            )
        )
        await self.store.start()
        self._cleanup.push_async_callback(self.store.stop)
        await self.store.call("HSET", LAYOUT, CLI_TOKENS, settings.cli.tokens)
        self.charging = Charging(self.store, Rules(catalogue, _charge_settings(settings)))
        watching = Watching(reloading.NO_POLICIES)
        self.policy_reload = PolicyReload(self.charging, settings.policies, watching, self._clock, templates)
        self.policy_reload.adopt(policies)
        if self._population is not None:
            await seed(self.store, self._population, self._clock(), catalogue)
        self.catalogue_reload = CatalogueReload(self.charging, settings.catalogue, self.policy_reload)
        worker = settings.diameter.origin_host.encode()
        self.open_counts = OpenCounts(self.store, self.charging.statistics)
        if self._part is None or self._part.recounts:
            await self.open_counts.count()
        else:
            await self.open_counts.exchange()
        self._cleanup.push_async_callback(self._tell_last_counts)
        self.expiry = Expiry(self.charging, self._clock)
        await self._follow_budgets()
        await self._start_stand_in()
        self._in_background("expiry", self.expiry.run())
        self._in_background("client restarts", self.expiry.run_restarts())
        self._in_background("directory", DirectoryWatch(self.store, self._clock).run())
        if self._part is None:
            deliveries = Deliveries(self.redis_address, settings)
            self._cleanup.push_async_callback(deliveries.stop)
            await deliveries.start()
        await self._prepare_diameter()
        self._prepare_policies(worker)
        self.tracing = Tracing(self.store, self.node, settings.diameter.origin_host)
        self._cleanup.push_async_callback(self.tracing.stop)
        others = {reloading.COMMAND: self.policy_reload.execute, tracing.COMMAND: self.tracing.execute}
        self._in_background("catalogue reload", self.catalogue_reload.listen(self.store, worker, others))
        restarts = 0 if self._part is None else self._part.restarts
        self.metrics = metrics_server(self, self._clock, restarts, self._in_background)
        self._in_background("memory", _collect_when_grown())
        self._in_background("open counts", self.open_counts.run(self._count_subscriptions))

    async def listen(self) -> None:
        """Let clients in, and tell metrics. Raises OSError if an address cannot be had."""
        self._listens = True
        self._stand_in.listen()
        metrics = self.settings.metrics
        if self._part is None:
            self.metrics_port = self.metrics.start(metrics.host, metrics.port)
        else:
            self.metrics_port = self.metrics.start_on(self._part.metrics)
        self._cleanup.callback(self.metrics.stop)
        await self._listen_for_clients()

    def stop_listening(self) -> None:
        """Let nobody in any more: another process of this identity does. Who is connected is served as before."""
        self.node.stop_listening()
        self._is_replaced = True

        async def stop_metrics() -> None:
            """It takes half a second, for which nobody who connects should have to wait."""
            await asyncio.to_thread(self.metrics.stop)

        self._in_background("metrics", stop_metrics())

    async def take_over(self) -> None:
        """Do what only one process of an identity may do at a time. Raises StoreError; then it may be tried again."""
        await self.policy_reload.begin(look=self._part is None or self._part.begins)
        self._cleanup.push_async_callback(self.policy_reload.stop)
        self.node.start_dialing(None if self._tls is None else self._tls.dialing)
        self._in_background("Sy sessions", self.sy.catch_up())
        self._in_background("policies", self.acting.run())

    async def stop(self) -> None:
        """Take leave of the peers, answer what they have asked, then stop everything, the newest first."""
        if self._listens:
            self._listens = False
            await self._take_leave()
        await self._cleanup.aclose()

    async def _take_leave(self) -> None:
        """While everything still runs: what is under way is charged and answered before its connection closes."""
        self.leaving = True
        if self._is_replaced:
            await self._let_in_who_has_come()
            await self._stand_in.settle_first()
        log.info("taking leave of %d peers, with %d requests under way", self.node.open_peers, self._in_flight())
        await self.node.stop(DisconnectCause.REBOOTING)
        if self._in_flight():
            log.warning("%d requests were not answered in time; their clients repeat them", self._in_flight())

    async def _let_in_who_has_come(self) -> None:
        """Those whose connections were accepted at the last moment get an answer to their CER, then a DPR like all."""
        if self._tls is not None:
            await asyncio.sleep(HANDSHAKE_S)
        until_s = asyncio.get_running_loop().time() + OPENING_S
        while self.node.opening and asyncio.get_running_loop().time() < until_s:  # noqa: ASYNC110 - clients decide
            await asyncio.sleep(OPENING_CHECK_S)

    def _in_flight(self) -> int:
        return self.gy.statistics.in_flight

    async def _redis(self) -> Address:
        store = self.settings.store
        there = store.address
        if there is not None:
            return there
        if self._part is not None and self._part.redis is not None:
            return self._part.redis
        embedded = KeptRedis(self.settings, self._fail)
        self._cleanup.push_async_callback(embedded.stop)
        address = await embedded.start()
        self.redis = embedded.server
        self.redis_program = str(embedded.server.program)
        return address

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.failed.set()

    async def _origin_state_id(self) -> int:
        """When this store was laid out: sessions live in the store, so they are lost exactly when it is.

        Origin-State-Id must rise whenever session state was lost (RFC 6733 section 8.16), and only then.
        """
        await self.store.call("HSETNX", LAYOUT, "created", self._clock() // 1000)
        return int(await self.store.call("HGET", LAYOUT, "created"))

    async def _count_subscriptions(self) -> None:
        self.sy.statistics.subscriptions = await count_subscriptions(self.store)

    async def _tell_last_counts(self) -> None:
        """What was opened and closed at the end counts for those who go on."""
        with suppress(StoreError):
            await self.open_counts.exchange()

    async def _prepare_diameter(self) -> None:
        diameter = self.settings.diameter
        node_settings = NodeSettings(
            diameter.origin_host,
            diameter.origin_realm,
            origin_state_id=await self._origin_state_id(),
            applications=APPLICATIONS,
            policy=diameter.peers.policy,
            watchdog_seconds=float(diameter.watchdog_seconds),
            max_message_octets=diameter.max_message_bytes,
        )
        origin = avp("Origin-Host", diameter.origin_host) + avp("Origin-Realm", diameter.origin_realm)
        charging = self.settings.charging
        to_us = authorizing(_router(node_settings), diameter.peers.no_agents)
        limits = AdmissionLimits(charging.in_flight_limit, charging.queue_delay_ms / 1000)
        rates = PeerRates(diameter.peers.requests_per_second, diameter.peers.rates)
        self.gy = Gy(self.charging, self.profiles, origin, to_us, limits, rates, self._clock)
        self._in_background("loop's delay", self.gy.admission.watch())
        self.gy.on_client_state = self.expiry.client_state
        self.gy.away = self.away
        self._stand_in.on_away = self._on_away
        handlers = {int(Application.CREDIT_CONTROL): self.gy.handle_ccr, _SY: self._on_sy_request}
        self.node = Node(node_settings, handlers, self._on_peer_event)
        notifications = SyNotifications(self.store, self.node, RuleCounters(self.charging), self._clock)
        sy_settings = SySettings(charging.answer_replay_seconds * 1000, charging.in_flight_limit)
        self.sy = Sy(self.store, notifications, origin, to_us, self._clock, sy_settings)
        self._tls = None if diameter.tls.certificate is None else tls_contexts(diameter.tls)
        self._cleanup.push_async_callback(self.node.stop, DisconnectCause.REBOOTING)
        self._cleanup.push_async_callback(self.sy.stop)
        self._in_background("Sy commands", notifications.listen())
        self.reauthorisation = Reauthorisation(self.charging, self.node, self._clock, self._may_ask)
        self._cleanup.push_async_callback(self.reauthorisation.stop)
        self._in_background("commands", self.reauthorisation.listen())

    async def _listen_for_clients(self) -> None:
        diameter, part, tls = self.settings.diameter, self._part, self._tls
        if part is not None:
            await self.node.listen(part.diameter)
            self.diameter_port = part.diameter[0].getsockname()[1]
            if tls is not None and part.diameter_tls:
                await self.node.listen(part.diameter_tls, tls.listening)
                self.diameter_tls_port = part.diameter_tls[0].getsockname()[1]
            return
        if tls is not None:
            self.node.start_dialing(tls.dialing)
            self.diameter_tls_port = await self.node.start(diameter.host, diameter.tls.port, tls.listening)
        self.diameter_port = await self.node.start(diameter.host, diameter.port)

    def _on_sy_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        self.sy.handle(peer, event)

    async def _start_stand_in(self) -> None:
        """Settle what was answered without the store before; from then on, stand in for it.

        Raises AwayJournalError, OSError.
        """
        part = self._part
        if part is None:
            siblings = Siblings(False, (self.settings.diameter.origin_host,))
        else:
            siblings = Siblings(True, part.origin_hosts if part.begins else ())
        store = str(await self._origin_state_id())
        self._stand_in = StandIn(
            self.settings, self.charging, self.profiles.named, self._clock, store, siblings, self._report_end
        )
        self._cleanup.push_async_callback(self._stand_in.stop)
        await self._stand_in.start()

    @property
    def away(self) -> Away | None:
        """What answers while the store cannot be reached; None: another process still has its journal."""
        return self._stand_in.away

    async def _follow_budgets(self) -> None:
        """Know what of the budgets of promotions is gone, from the first request on."""
        charging = self.charging
        budgets = charging.rules.budgets
        await budgets.read(self.store)

        def needed() -> bool:
            promotions = charging.rules.catalogue.promotions
            return any(each.budget is not None for each in promotions.all)

        self._in_background("budgets", budgets.follow(self.store, needed))

    def _prepare_policies(self, worker: bytes) -> None:
        self.acting = Acting(self.charging, self.reauthorisation, worker, self._clock)
        self.acting.on_transition.append(self._tell_policy_nodes)
        if self.settings.notices.enabled:
            self.acting.on_notice.append(self._tell_customer)
        self.policy_reload.acting = self.acting

    async def _tell_customer(self, due: Due) -> None:
        """Raises StoreError: the transition is then acted on again, and the notice delivered once all the same."""
        operator = self.charging.rules.policies
        policies = None if operator is None else operator.policies
        await enqueue(self.store, [notice_of(due, policies)])

    async def _tell_policy_nodes(self, account_id: bytes, now_ms: int) -> None:
        await self.sy.account_changed(account_id, now_ms)

    def _on_away(self, away: Away) -> None:
        self.gy.away = away

    def _may_ask(self, origin_host: bytes, via: bytes) -> Readiness:
        """What a client makes of our requests, by its profile; ``via``: the peer that its last request came by."""
        identity = (via or origin_host).decode("utf-8", "replace")
        handle = self.node.handle(identity)
        said = handle.capabilities if handle is not None else _silent(identity)
        return self.profiles.choose(said, origin_host).reauthorisation

    def _on_peer_event(self, event: PeerEvent) -> None:
        if isinstance(event, Opened):
            log.info("client %s: %s", event.origin_host, self.profiles.explain(event))
            self.sy.notifications.peer_opened(event.origin_host, is_relay=event.is_relay)
        if isinstance(event, Opened) and event.origin_state_id:
            self.gy.note_client_state(event.origin_host.encode(), event.origin_state_id)
        elif isinstance(event, StateIdChanged):
            self.gy.note_client_state(event.origin_host.encode(), event.new)

    def faults(self) -> list[str]:
        """What only a restart mends, a sentence each."""
        return [f"the background work {name!r} has ended" for name in self._ended_work]

    def hindrances(self) -> list[str]:
        """Why requests should go to another server for now, a sentence each."""
        found = self.faults()
        if self.leaving:
            found.append("the server is stopping")
        if not self.store.available:
            found.append(f"the store at {self.redis_address.url} cannot be reached")
        return found

    def _in_background(self, name: str, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        task.add_done_callback(self._report_end)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._cleanup.push_async_callback(end)

    def _report_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._ended_work.append(task.get_name())
            log.critical("the background work %r ended", task.get_name(), exc_info=task.exception())


def _silent(origin_host: str) -> Opened:
    """A peer without a connection: it has said nothing by which its profile could be recognised."""
    return Opened(origin_host, "", Role.RESPONDER, "", frozenset(), frozenset(), 0, "", None)


def _charge_settings(settings: Settings) -> ChargeSettings:
    charging = settings.charging
    return ChargeSettings(
        answer_replay_ms=charging.answer_replay_seconds * 1000,
        late_termination_ms=charging.late_termination_seconds * 1000,
        tcc_factor=charging.tcc_factor,
        refund_window_ms=charging.refund_window_seconds * 1000,
        low_balance_micro=charging.low_balance,
        grace_ms=charging.grace_days * 86_400_000,
        partial_record_ms=settings.cdr.partial_seconds * 1000,
    )


async def _collect_when_grown() -> None:
    """Keep the cyclic garbage collector out of the way of requests, yet bound what it would have freed.

    The hot path makes no cycles, and automatic collections walk every account snapshot: pauses of hundreds of
    milliseconds with 100,000 of them. So a collection runs only when the process has grown beyond what snapshots can
    explain: twice what it was after the last one, and a gibibyte more.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        collected_at = getrusage(RUSAGE_SELF).ru_maxrss
        while True:
            await asyncio.sleep(MEMORY_CHECK_S)
            if getrusage(RUSAGE_SELF).ru_maxrss > 2 * collected_at + _GIBIBYTE:
                log.info("the process has grown: %d unreachable objects collected", gc.collect())
                gc.freeze()
                collected_at = getrusage(RUSAGE_SELF).ru_maxrss
    finally:
        gc.unfreeze()
        gc.enable()


Routed = CreditControlRequest | SyRequest


def _router(settings: NodeSettings) -> Callable[[Peer, Routed], int | None]:
    """RFC 6733 section 6.1.4 for decoded requests."""

    def decide(peer: Peer, request: Routed) -> int | None:
        host = request.destination_host
        return route(
            settings,
            None if host is None else host.decode("utf-8", "replace"),
            request.destination_realm.decode("utf-8", "replace"),
            [record.decode("utf-8", "replace") for record in request.route_records],
            peer.origin_realm,
        )

    return decide


async def _serve(settings: Settings, population: Path | None, on_ready: Callable[[OnlineChargingServer], None]) -> None:
    server = OnlineChargingServer(settings, population)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    await server.start()
    reloads: set[asyncio.Task[None]] = set()

    async def reload_all() -> None:
        await server.catalogue_reload.reload()
        await server.policy_reload.reload()

    def reload() -> None:
        task = loop.create_task(reload_all())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        on_ready(server)
        ends = [asyncio.create_task(stopping.wait()), asyncio.create_task(server.failed.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
    finally:
        await server.stop()
    if server.failure is not None:
        raise server.failure


def run(
    settings: Settings, population: Path | None = None, on_ready: Callable[[OnlineChargingServer], None] = print
) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reads catalogue and policies anew.

    Raises as ``OnlineChargingServer.start``.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvloop.run(_serve(settings, population, on_ready))
