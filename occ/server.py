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
from contextlib import AsyncExitStack
from dataclasses import fields as dataclass_fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any, Final

import uvloop

from balance.directory import accounts_in_expiry_index
from balance.embedded import Address, EmbeddedRedis, EmbeddedRedisError, EmbeddedSettings
from balance.keys import LAYOUT
from balance.notices import Figures, enqueue, figures
from balance.resp import StoreError
from balance.store import Store
from balance.store import StoreSettings as LedgerStoreSettings
from occ import tracing
from occ.admission import AdmissionLimits
from occ.cdr_files import CdrSettings
from occ.charging import Charging
from occ.clock import now_ms
from occ.condition import ConditionCollector, ConditionWatch
from occ.expiry import Expiry
from occ.gy import Gy, Peer
from occ.journal_files import JournalSettings
from occ.metrics import Health, MetricsServer, OccCollector
from occ.noc import Alerts, Noc
from occ.noc import Figures as LiveFigures
from occ.notices.process import NoticesProcess
from occ.notices.process import check as check_notices
from occ.outbox import OutboxProcess
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
from occ.rating.currency import currency_name
from occ.reauthorisation import Reauthorisation
from occ.reload import CatalogueReload
from occ.rules import ChargingSettings as ChargeSettings
from occ.rules import Rules
from occ.seed import seed
from occ.settings import Settings
from occ.sy import Sy, SyRequest, SySettings
from occ.sy_notifications import SyNotifications
from occ.tls import tls_contexts
from occ.tracing import Tracing
from protocols.credit_control import CreditControlRequest
from protocols.diameter.codec import avp
from protocols.diameter.codes import Application, Command, DisconnectCause
from protocols.diameter.events import Opened, PeerEvent, RequestReceived, Role, StateIdChanged
from protocols.diameter.node import Node, NodeSettings, PeerHandle, PeerStatus, route

log = logging.getLogger("occ.server")

ROUTES_REMEMBERED: Final = 1024

_SY: Final = int(Application.SY)
APPLICATIONS: Final = {
    int(Application.CREDIT_CONTROL): frozenset((int(Command.CREDIT_CONTROL),)),
    _SY: frozenset((int(Command.SPENDING_LIMIT), int(Command.SESSION_TERMINATION))),
}
"""What is advertised, and the commands whose requests are taken."""

MEMORY_CHECK_S: Final = 30.0
_GIBIBYTE: Final = (1 << 30) // (1 if sys.platform == "darwin" else 1024)
"""In the unit of ru_maxrss: octets on macOS, kibioctets elsewhere."""

RECOUNT_CHECK_S: Final = 1.0
REDIS_CHECK_S: Final = 0.2
HEALTH_PATIENCE_S: Final = 2.0


class OnlineChargingServer:
    """A server that charges. ``start`` and ``stop`` belong to one event loop.

    ``population``: a file of sample subscribers to create where they are missing (``occ.seed``), or None.
    ``clock``: milliseconds since the Unix epoch, UTC, by which requests are charged and sessions supervised.
    """

    def __init__(self, settings: Settings, population: Path | None = None, clock: Callable[[], int] = now_ms) -> None:
        self.settings = settings
        self._population = population
        self._clock = clock
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
        self._ended_work: list[str] = []
        """Background work that has ended and should not have."""

    async def start(self) -> None:
        """Start everything, or nothing: what had been started is stopped again before an error is raised.

        Raises ConfigError, EmbeddedRedisError, StoreError or OSError, each saying what to do.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
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
        self.charging = Charging(self.store, Rules(catalogue, _charge_settings(settings)))
        watching = Watching(reloading.NO_POLICIES)
        self.policy_reload = PolicyReload(self.charging, settings.policies, watching, self._clock, templates)
        self.policy_reload.adopt(policies)
        if self._population is not None:
            await seed(self.store, self._population, self._clock(), catalogue)
        self.catalogue_reload = CatalogueReload(self.charging, settings.catalogue, self.policy_reload)
        worker = settings.diameter.origin_host.encode()
        await self._count_open_sessions()
        self.expiry = Expiry(self.charging, self._clock)
        await self._follow_budgets()
        self._in_background("expiry", self.expiry.run())
        self._in_background("client restarts", self.expiry.run_restarts())
        cdr = settings.cdr
        node = settings.diameter.origin_host
        files = CdrSettings(cdr.directory, cdr.rotate_bytes, cdr.rotate_seconds * 1000, cdr.formats, node)
        journal = JournalSettings(settings.journal.directory, settings.journal.keep_days * 86_400_000)
        self.outbox = OutboxProcess(self.redis_address, settings.store.partitions, files, settings.log_level, journal)
        await self.outbox.start()
        self._cleanup.push_async_callback(self.outbox.stop)
        if settings.notices.enabled:
            self.notices = NoticesProcess(
                self.redis_address, settings.store.partitions, settings.notices, settings.log_level
            )
            await self.notices.start()
            self._cleanup.push_async_callback(self.notices.stop)
        await self._start_diameter()
        await self._start_policies(worker)
        self.tracing = Tracing(self.store, self.node, settings.diameter.origin_host)
        self._cleanup.push_async_callback(self.tracing.stop)
        others = {reloading.COMMAND: self.policy_reload.execute, tracing.COMMAND: self.tracing.execute}
        self._in_background("catalogue reload", self.catalogue_reload.listen(self.store, worker, others))
        self._start_metrics()
        self._in_background("memory", _collect_when_grown())
        self._in_background("recount", self._recount_after_reconnects())
        self._cleanup.push_async_callback(self._take_leave)

    async def stop(self) -> None:
        """Take leave of the peers, answer what they have asked, then stop everything, the newest first."""
        await self._cleanup.aclose()

    async def _take_leave(self) -> None:
        """While everything still runs: what is under way is charged and answered before its connection closes."""
        self.leaving = True
        log.info("taking leave of %d peers, with %d requests under way", self.node.open_peers, self._in_flight())
        await self.node.stop(DisconnectCause.REBOOTING)
        if self._in_flight():
            log.warning("%d requests were not answered in time; their clients repeat them", self._in_flight())

    def _in_flight(self) -> int:
        return self.gy.statistics.in_flight

    async def _redis(self) -> Address:
        store = self.settings.store
        there = store.address
        if there is not None:
            return there
        embedded = EmbeddedRedis(
            EmbeddedSettings(data_dir=store.redis_dir, server_binary=store.server_binary, fsync=store.fsync)
        )
        address = await embedded.start()
        self._cleanup.push_async_callback(embedded.stop)
        self.redis_program = str(embedded.program)
        self.redis = embedded
        self._in_background("embedded Redis", self._keep_redis(embedded))
        return address

    async def _keep_redis(self, embedded: EmbeddedRedis) -> None:
        """Launch the embedded Redis again should it end; the store connects to it by itself."""
        while True:
            await asyncio.sleep(REDIS_CHECK_S)
            if embedded.running:
                continue
            log.error("the embedded Redis has ended; it is started again")
            try:
                await embedded.start()
            except EmbeddedRedisError as error:
                self.failure = error
                self.failed.set()
                return

    async def _origin_state_id(self) -> int:
        """When this store was laid out: sessions live in the store, so they are lost exactly when it is.

        Origin-State-Id must rise whenever session state was lost (RFC 6733 section 8.16), and only then.
        """
        await self.store.call("HSETNX", LAYOUT, "created", self._clock() // 1000)
        return int(await self.store.call("HGET", LAYOUT, "created"))

    async def _count_open_sessions(self) -> None:
        """What stands open from before: every account with an open session is in the expiry index."""
        statistics = self.charging.statistics
        sessions_before, reservations_before = statistics.open_sessions, statistics.open_reservations
        sessions = reservations = 0
        counted: set[bytes] = set()
        async for page in accounts_in_expiry_index(self.store):
            for account in page:
                if account.account_id in counted:
                    continue
                counted.add(account.account_id)
                sessions += len(account.sessions)
                reservations += sum(1 for session in account.sessions.values() for use in session.services if use.parts)
        # What changed while the accounts were read counts on top; requests may be running.
        statistics.open_sessions += sessions - sessions_before
        statistics.open_reservations += reservations - reservations_before

    async def _recount_after_reconnects(self) -> None:
        """What was under way when the store was lost may have been written or not: count what stands open anew."""
        seen = self.store.statistics.reconnects
        while True:
            await asyncio.sleep(RECOUNT_CHECK_S)
            if self.store.statistics.reconnects == seen:
                continue
            try:
                seen = self.store.statistics.reconnects
                await self._count_open_sessions()
            except StoreError as error:
                seen = -1
                log.debug("open sessions are counted later: %s", error)

    async def _start_diameter(self) -> None:
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
        to_us = _router(node_settings)
        limits = AdmissionLimits(charging.in_flight_limit, charging.queue_delay_ms / 1000)
        rates = PeerRates(diameter.peers.requests_per_second, diameter.peers.rates)
        self.gy = Gy(self.charging, self.profiles, origin, to_us, limits, rates, self._clock)
        self._in_background("loop's delay", self.gy.admission.watch())
        self.gy.on_client_state = self.expiry.client_state
        self.node = Node(node_settings, self._on_request, self._on_peer_event)
        notifications = SyNotifications(self.store, self.node, RuleCounters(self.charging), self._clock)
        sy_settings = SySettings(charging.answer_replay_seconds * 1000, charging.in_flight_limit)
        self.sy = Sy(self.store, notifications, origin, to_us, self._clock, sy_settings)
        if diameter.tls.certificate is not None:
            tls = tls_contexts(diameter.tls)
            self.node.start_dialing(tls.dialing)
            self.diameter_tls_port = await self.node.start(diameter.host, diameter.tls.port, tls.listening)
        self.diameter_port = await self.node.start(diameter.host, diameter.port)
        self._cleanup.push_async_callback(self.node.stop, DisconnectCause.REBOOTING)
        self._cleanup.push_async_callback(self.sy.stop)
        self._in_background("Sy commands", notifications.listen())
        self._in_background("Sy sessions", self.sy.catch_up())
        self.reauthorisation = Reauthorisation(self.charging, self.node, self._clock, self._may_ask)
        self._cleanup.push_async_callback(self.reauthorisation.stop)
        self._in_background("commands", self.reauthorisation.listen())

    def _on_request(self, peer: PeerHandle, event: RequestReceived) -> None:
        if event.application == _SY:
            self.sy.handle(peer, event)
        else:
            self.gy.handle_ccr(peer, event)

    async def _follow_budgets(self) -> None:
        """Know what of the budgets of promotions is gone, from the first request on."""
        charging = self.charging
        budgets = charging.rules.budgets
        await budgets.read(self.store)

        def needed() -> bool:
            promotions = charging.rules.catalogue.promotions
            return any(each.budget is not None for each in promotions.all)

        self._in_background("budgets", budgets.follow(self.store, needed))

    async def _start_policies(self, worker: bytes) -> None:
        self.acting = Acting(self.charging, self.reauthorisation, worker, self._clock)
        self.acting.on_transition.append(self._tell_policy_nodes)
        if self.settings.notices.enabled:
            self.acting.on_notice.append(self._tell_customer)
        self._in_background("policies", self.acting.run())
        self.policy_reload.acting = self.acting
        await self.policy_reload.begin()
        self._cleanup.push_async_callback(self.policy_reload.stop)

    async def _tell_customer(self, due: Due) -> None:
        """Raises StoreError: the transition is then acted on again, and the notice delivered once all the same."""
        operator = self.charging.rules.policies
        policies = None if operator is None else operator.policies
        await enqueue(self.store, [notice_of(due, policies)])

    async def _tell_policy_nodes(self, account_id: bytes, now_ms: int) -> None:
        await self.sy.account_changed(account_id, now_ms)

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

    def _start_metrics(self) -> None:
        loop = asyncio.get_running_loop()
        currency = currency_name(self.charging.rules.catalogue.currency)

        def notice_figures() -> Figures:
            """Called in the thread of the HTTP server: the store belongs to the loop."""
            return asyncio.run_coroutine_threadsafe(figures(self.store), loop).result(timeout=5)

        collector = OccCollector(
            self.gy.statistics,
            self.gy.admission,
            self.gy.rates,
            self.charging.statistics,
            self.store.statistics,
            self.reauthorisation.statistics,
            self.catalogue_reload.statistics,
            self.acting.statistics,
            self.policy_reload.statistics,
            lambda: self.node.open_peers,
            currency,
            self.sy.statistics,
            notice_figures,
            self._clock,
        )

        def peers() -> list[dict[str, Any]]:
            """Called in the thread of the HTTP server: the loop itself must look at its peers."""
            future = asyncio.run_coroutine_threadsafe(_peers(self.node), loop)
            return [_as_json(status) for status in future.result(timeout=5)]

        async def ask(question: Callable[[], list[str]]) -> list[str]:
            return question()

        def in_loop(question: Callable[[], list[str]]) -> list[str]:
            try:
                return asyncio.run_coroutine_threadsafe(ask(question), loop).result(HEALTH_PATIENCE_S)
            except TimeoutError:
                return [f"the server has not looked up from its work for {HEALTH_PATIENCE_S:g} s"]

        health = Health(lambda: in_loop(self.faults), lambda: in_loop(self.hindrances))
        watch = ConditionWatch(self.store, self.node.peers, self._clock)
        self._in_background("condition", watch.run())
        about = {"version": _version(), "origin_host": self.settings.diameter.origin_host}
        directories = {"data": self.settings.store.data_dir, "cdr": self.settings.cdr.directory}
        collectors = (collector, ConditionCollector(watch, directories, about))
        metrics = MetricsServer(collectors, peers, health, self._noc(watch, about, currency))
        self.metrics_port = metrics.start(self.settings.metrics.host, self.settings.metrics.port)
        self._cleanup.callback(metrics.stop)

    def _noc(self, watch: ConditionWatch, about: dict[str, str], currency: str) -> Noc:
        charging, store = self.charging.statistics, self.store.statistics
        live = LiveFigures(self.gy.statistics, charging, store, currency, asyncio.get_running_loop().time)
        alerts = Alerts(self.settings.metrics.prometheus_url)
        self._in_background("figures", live.run())
        self._in_background("alerts", alerts.run())
        return Noc(live, watch, alerts, about, self._clock)

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


def _version() -> str:
    try:
        return version("occ")
    except PackageNotFoundError:  # run from a directory that is not installed
        return "unknown"


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


async def _peers(node: Node) -> list[PeerStatus]:
    return node.peers()


def _as_json(status: PeerStatus) -> dict[str, Any]:
    fields = {field.name: getattr(status, field.name) for field in dataclass_fields(status)}
    fields["statistics"] = status.statistics.as_dict()
    return fields


Routed = CreditControlRequest | SyRequest


def _router(settings: NodeSettings) -> Callable[[Peer, Routed], int | None]:
    """RFC 6733 section 6.1.4 for decoded requests; the few destinations clients really use are remembered."""
    known: dict[tuple[bytes | None, bytes, str], int | None] = {}

    def decide(peer: Peer, request: Routed) -> int | None:
        host = request.destination_host
        return route(
            settings,
            None if host is None else host.decode("utf-8", "replace"),
            request.destination_realm.decode("utf-8", "replace"),
            [record.decode("utf-8", "replace") for record in request.route_records],
            peer.origin_realm,
        )

    def remembered(peer: Peer, request: Routed) -> int | None:
        if request.route_records:
            return decide(peer, request)
        key = (request.destination_host, request.destination_realm, peer.origin_realm)
        try:
            return known[key]
        except KeyError:
            if len(known) >= ROUTES_REMEMBERED:
                known.clear()
            result = known[key] = decide(peer, request)
            return result

    return remembered


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
