"""Metrics for Prometheus at ``/metrics``, the peers as JSON at ``/peers``, the NOC page at ``/noc``, how the server is.

``/health`` says whether it works at all: 503 calls for a restart. ``/ready`` says whether requests should come to it:
503 means not now, as while it stops or its store is away. Both give the reasons, as JSON.

The hot path counts in plain attributes and lists; they become metric families only when somebody scrapes. One
``labels().inc()`` would cost as much as a tenth of a request.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from socket import socket
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any, Final, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from balance.model import MICRO
from balance.notices import DEAD, HELD, WAITING, Figures
from balance.resp import StoreError
from balance.store_statistics import ROUND_TRIP_BOUNDS_S, StoreStatistics
from occ.admission import TOO_LATE, TOO_MANY, TOO_OFTEN, Admission
from occ.charging import ChargingStatistics
from occ.gy import Peer
from occ.noc import Noc
from occ.peer_rates import OTHER_PEERS, PeerRates
from occ.policy.acting import LAG_BOUNDS_S, ActingStatistics
from occ.reauthorisation import PUSH_BOUNDS_S, ReauthorisationStatistics
from occ.reload import ReloadStatistics
from occ.request_statistics import LATENCY_BOUNDS_S, OTHER_GROUPS, TYPE_NAMES, RequestStatistics
from occ.sy_counters import DELAY_BOUNDS_S, SyStatistics

log = logging.getLogger("occ.metrics")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class OccCollector(Collector):
    """Folds the counters of one worker into metric families at scrape time."""

    def __init__(
        self,
        requests: RequestStatistics,
        admission: Admission[Peer],
        rates: PeerRates,
        charging: ChargingStatistics,
        store: StoreStatistics,
        server_requests: ReauthorisationStatistics,
        catalogue: ReloadStatistics,
        acting: ActingStatistics,
        policies: ReloadStatistics,
        peers_up: Callable[[], int],
        currency: str,
        sy: SyStatistics,
        notices: Callable[[], Figures],
        clock: Callable[[], int],
    ) -> None:
        self._requests = requests
        self._admission = admission
        self._rates = rates
        self._charging = charging
        self._store = store
        self._server_requests = server_requests
        self._catalogue = catalogue
        self._acting = acting
        self._policies = policies
        self._peers_up = peers_up
        self._currency = currency
        self._sy = sy
        self._notices = notices
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        yield from self._request_metrics()
        yield from self._ledger_metrics()
        yield from self._store_metrics()
        yield from self._server_request_metrics()
        yield from self._catalogue_metrics()
        yield from self._policy_metrics()
        yield from self._sy_metrics()
        yield from self._notice_metrics()
        yield GaugeMetricFamily("occ_peers_up", "Diameter peers with an open connection", self._peers_up())

    def _request_metrics(self) -> Iterator[Metric]:
        answers = CounterMetricFamily("occ_requests", "Credit-control requests answered", labels=["type", "result"])
        for (kind, result), count in sorted(self._requests.answers.items()):
            answers.add_metric([TYPE_NAMES.get(kind, "unreadable"), str(result)], count)
        yield answers
        services = CounterMetricFamily(
            "occ_service_answers", "Answers about a service of a request", labels=["rating_group", "result"]
        )
        for (group, result), count in sorted(self._requests.services.items()):
            services.add_metric([_group_name(group), str(result)], count)
        yield services
        latency = HistogramMetricFamily(
            "occ_request_seconds", "From the request's last octet to its answer", labels=["type"]
        )
        for kind, name in TYPE_NAMES.items():
            latency.add_metric(
                [name],
                self._latency_buckets(kind),
                self._requests.latency_seconds[kind],
            )
        yield latency
        yield GaugeMetricFamily(
            "occ_requests_in_flight", "Requests accepted and not yet answered", self._requests.in_flight
        )
        yield from self._admission_metrics()

    def _latency_buckets(self, kind: int) -> list[Any]:
        """Those of slow answers with an exemplar, which scrapers that know OpenMetrics are given: the Session-Id."""
        slow = self._requests.slow.copy()
        buckets: list[Any] = list(_buckets(LATENCY_BOUNDS_S, self._requests.latency[kind]))
        for (request_type, index), (session_id, seconds) in slow.items():
            if request_type == kind:
                told = session_id.decode("ascii", "replace")[:LONGEST_EXEMPLAR]
                buckets[index] = (*buckets[index], Exemplar({"session_id": told}, seconds))
        return buckets

    def _admission_metrics(self) -> Iterator[Metric]:
        rejected = CounterMetricFamily(
            "occ_requests_rejected", "Requests turned away unread, and why", labels=["reason", "type"]
        )
        counts = dict.fromkeys(product((TOO_MANY, TOO_LATE, TOO_OFTEN), TYPE_NAMES), 0) | self._requests.refused.copy()
        for (reason, kind), count in sorted(counts.items()):
            rejected.add_metric([reason, TYPE_NAMES.get(kind, "unreadable")], count)
        yield rejected
        over_rate = CounterMetricFamily(
            "occ_peer_requests_over_rate", "Requests turned away because their peer sent too many", labels=["peer"]
        )
        for peer, count in sorted(({OTHER_PEERS: 0} | self._rates.refused.copy()).items()):
            over_rate.add_metric([peer], count)
        yield over_rate
        yield GaugeMetricFamily("occ_requests_waiting", "Requests accepted and not yet begun", self._admission.waiting)
        yield GaugeMetricFamily(
            "occ_loop_delay_seconds",
            "How late the event loop was at most in the last ten seconds",
            self._admission.worst_loop_delay_s,
        )

    def _server_request_metrics(self) -> Iterator[Metric]:
        results = CounterMetricFamily(
            "occ_server_requests",
            "Re-Auth- and Abort-Session-Requests, by what came of them",
            labels=["command", "result"],
        )
        for key, count in sorted(self._server_requests.results.copy().items()):
            results.add_metric(list(key), count)
        yield results
        for name, text, count in (
            ("occ_server_request_retries", "Such requests sent once more", self._server_requests.retries),
            (
                "occ_server_requests_not_kept",
                "Clients that agreed to report or to end a session and did not",
                self._server_requests.not_kept,
            ),
            (
                "occ_server_requests_awaited",
                "Such requests that were spared, as the client had agreed to report already",
                self._server_requests.awaited,
            ),
        ):
            yield CounterMetricFamily(name, text, count)

    def _catalogue_metrics(self) -> Iterator[Metric]:
        catalogue = self._catalogue
        info = GaugeMetricFamily("occ_catalogue_info", "The catalogue in force: 1", labels=["version", "edition"])
        info.add_metric([catalogue.version, catalogue.edition], 1)
        yield info
        reloads = CounterMetricFamily(
            "occ_catalogue_reloads", "Times the catalogue was read anew, by what came of it", labels=["result"]
        )
        for result, count in catalogue.results.copy().items():
            reloads.add_metric([result], count)
        yield reloads

    def _policy_metrics(self) -> Iterator[Metric]:
        acting, policies = self._acting, self._policies
        info = GaugeMetricFamily("occ_policies_info", "The policy rules in force: 1", labels=["edition"])
        info.add_metric([policies.edition], 1)
        yield info
        for name, text, labels, counts in (
            (
                "occ_policy_reloads",
                "Times the rules file was read anew, by what came of it",
                ["result"],
                {(result,): count for result, count in policies.results.copy().items()},
            ),
            (
                "occ_policy_transitions",
                "Accounts that came to a level, or left one, and were acted on",
                ["level", "change"],
                acting.transitions.copy(),
            ),
            (
                "occ_policy_rules_applied",
                "Answers to clients that a policy rule had a part in, by its name",
                ["rule"],
                {(rule,): count for rule, count in self._charging.rules.copy().items()},
            ),
            (
                "occ_policy_actions",
                "What rules did to live sessions and subscribers when an account came to other levels",
                ["action"],
                {(action,): count for action, count in acting.actions.copy().items()},
            ),
            (
                "occ_policy_pushes",
                "Re-Auth- and Abort-Session-Requests for the policies' sake, by what came of them",
                ["command", "result"],
                acting.pushes.copy(),
            ),
        ):
            family = CounterMetricFamily(name, text, labels=labels)
            for key, count in sorted(counts.items()):
                family.add_metric(list(key), count)
            yield family
        yield CounterMetricFamily("occ_policy_failures", "Transitions not acted on in full", acting.failures)
        yield GaugeMetricFamily("occ_policy_transitions_under_way", "Transitions being acted on", acting.under_way)
        yield HistogramMetricFamily(
            "occ_policy_transition_lag_seconds",
            "From the change of an account to this server's acting on it",
            buckets=_buckets(LAG_BOUNDS_S, acting.lag_seconds),
            sum_value=acting.lag_seconds_sum,
        )
        sent = self._server_requests
        yield HistogramMetricFamily(
            "occ_policy_push_seconds",
            "From the change of an account to the Re-Auth- or Abort-Session-Request that tells of it",
            buckets=_buckets(PUSH_BOUNDS_S, sent.push_seconds),
            sum_value=sent.push_seconds_sum,
        )

    def _sy_metrics(self) -> Iterator[Metric]:
        sy = self._sy
        yield GaugeMetricFamily("occ_sy_subscriptions", "Sy sessions of policy nodes", sy.subscriptions)
        answers = CounterMetricFamily("occ_sy_requests", "Requests of policy nodes answered", labels=["type", "result"])
        for (command, code), count in sorted(sy.answers.copy().items()):
            answers.add_metric([command, str(code)], count)
        yield answers
        told = CounterMetricFamily(
            "occ_sy_notifications", "Spending-Status-Notifications, by what came of them", labels=["result"]
        )
        for result, count in sorted(sy.results.copy().items()):
            told.add_metric([result], count)
        yield told
        yield CounterMetricFamily("occ_sy_repeats", "Messages to policy nodes sent again", sy.repeats)
        yield HistogramMetricFamily(
            "occ_sy_push_seconds",
            "From the change of an account to the first notification of it",
            buckets=_buckets(DELAY_BOUNDS_S, sy.delays),
            sum_value=sy.delay_seconds,
        )

    def _notice_metrics(self) -> Iterator[Metric]:
        """Those of the whole store, as every server of it tells them; none while it cannot be reached."""
        try:
            notices = self._notices()
        except (StoreError, TimeoutError) as error:
            log.debug("there are no figures of notices: %s", error)
            return
        results = CounterMetricFamily(
            "occ_notices", "What became of notices and of attempts to deliver them", labels=["channel", "result"]
        )
        for key, count in sorted(notices.counts.items()):
            results.add_metric(list(key), count)
        yield results
        open_now = GaugeMetricFamily("occ_notices_open", "Notices that are not delivered", labels=["state"])
        for state in (WAITING, HELD, DEAD):
            open_now.add_metric([state], notices.lists[state])
        yield open_now
        waited_ms = max(0, self._clock() - notices.oldest_ms) if notices.oldest_ms else 0
        yield GaugeMetricFamily(
            "occ_notices_oldest_seconds", "How long the oldest notice waits that is not held", waited_ms / 1000
        )

    def _ledger_metrics(self) -> Iterator[Metric]:
        charging = self._charging
        for name, text, micro in (
            ("occ_money_debited", "Money debited, in currency units", charging.debited_micro),
            (
                "occ_money_leaked",
                "Price of usage no balance covered, in currency units",
                charging.leaked_micro,
            ),
            ("occ_money_refunded", "Money given back by refunds, in currency units", charging.refunded_micro),
        ):
            money = CounterMetricFamily(name, text, labels=["currency"])
            money.add_metric([self._currency], micro / MICRO)
            yield money
        yield GaugeMetricFamily("occ_open_sessions", "Credit-control sessions open", charging.open_sessions)
        yield GaugeMetricFamily(
            "occ_open_reservations", "Reservations held by open sessions", charging.open_reservations
        )
        for name, text, count in (
            ("occ_replayed_answers", "Repeated requests answered from memory", charging.replayed),
            ("occ_expired_sessions", "Sessions ended by supervision", charging.expired_sessions),
            ("occ_late_terminations", "Reports that came after supervision", charging.late_terminations),
            ("occ_disbelieved_reports", "Reports of usage that cannot be true", charging.disbelieved_reports),
        ):
            yield CounterMetricFamily(name, text, count)

    def _store_metrics(self) -> Iterator[Metric]:
        store = self._store
        round_trips = HistogramMetricFamily(
            "occ_store_round_trip_seconds",
            "One commit to Redis and back",
            buckets=_buckets(ROUND_TRIP_BOUNDS_S, store.round_trips),
            sum_value=store.round_trip_seconds,
        )
        yield round_trips
        yield GaugeMetricFamily(
            "occ_directory_watched",
            "1: Redis tells of changes of identities, and what has not changed is not looked up again",
            int(store.directory_watched),
        )
        for name, text, count in (
            ("occ_store_commits", "Script calls to Redis", store.commits),
            ("occ_store_plans", "Operations written", store.plans),
            ("occ_store_reads", "Look-ups in Redis", store.reads),
            ("occ_directory_invalidations", "Identities that Redis told had changed", store.directory_changes),
            (
                "occ_store_version_conflicts",
                "Operations decided again on a fresher snapshot",
                store.conflicts,
            ),
            ("occ_store_failures", "Operations the store did not carry out", store.failures),
            ("occ_store_reconnects", "Connections to Redis made again", store.reconnects),
        ):
            yield CounterMetricFamily(name, text, count)


def _group_name(rating_group: int) -> str:
    if rating_group == OTHER_GROUPS:
        return "other"
    return str(rating_group) if rating_group >= 0 else "none"


def _buckets(bounds: Iterable[float], counts: list[int]) -> list[tuple[str, float]]:
    """Cumulative (upper bound, count) pairs as Prometheus wants them."""
    total = 0
    pairs = []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        total += count
        pairs.append((bound, float(total)))
    return pairs


LONGEST_EXEMPLAR: Final = 100
"""Characters of a Session-Id; OpenMetrics allows 128 for an exemplar's label and value."""


class Health(NamedTuple):
    """Two questions, each answered with a sentence for everything that is wrong; they may be asked in any thread."""

    faults: Callable[[], list[str]]
    """What only a restart mends."""
    hindrances: Callable[[], list[str]]
    """What keeps it from answering requests now."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Given(_Server):
    """A server on a socket that is bound and listens."""

    def __init__(self, listening: socket) -> None:
        address = listening.getsockname()
        super().__init__(address[:2], _QuietHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = address
        self.server_name, self.server_port = address[:2]
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        log.debug(format, *args)


class MetricsServer:
    """HTTP for Prometheus, the command line and the NOC page, in a thread of its own."""

    def __init__(
        self, collectors: Iterable[Collector], peers: Callable[[], list[dict[str, Any]]], health: Health, noc: Noc
    ) -> None:
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._metrics = make_wsgi_app(registry)
        self._peers = peers
        self._health = health
        self._noc = noc
        self._server: WSGIServer | None = None

    def start(self, host: str, port: int) -> int:
        """Listen; the port that was taken (``port`` 0 takes a free one). Raises OSError."""
        return self._begin(make_server(host, port, self._serve, _Server, _QuietHandler))

    def start_on(self, listening: socket) -> int:
        """Take requests from a socket that is bound already, and perhaps another process's as well; its port."""
        # Whoever comes second to a connection finds none, and must not wait for the next.
        listening.setblocking(False)
        server = _Given(listening)
        server.set_app(self._serve)
        return self._begin(server)

    def _begin(self, server: WSGIServer) -> int:
        self._server = server
        Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        return server.server_port

    def stop(self) -> None:
        """Take no further requests; waits for up to half a second."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path == "/peers":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._peers()).encode()]
        if path in ("/health", "/ready"):
            wrong = self._health.faults() if path == "/health" else self._health.hindrances()
            start_response("503 Service Unavailable" if wrong else "200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"status": "unavailable" if wrong else "ok", "reasons": wrong}).encode()]
        page = self._noc.page(path)
        if page is not None:
            start_response("200 OK", page.headers)
            return [page.content]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there is /metrics, /peers, /noc, /health and /ready\n"]
