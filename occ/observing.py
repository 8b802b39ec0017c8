"""What a server tells of itself over HTTP: metrics, whether it is well and ready, its peers, the NOC page."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol

from balance.notices import Figures, figures
from balance.store import Store
from occ.away import Away
from occ.away_metrics import AwayCollector
from occ.charging import Charging
from occ.condition import ConditionCollector, ConditionWatch, WithoutStore
from occ.gy import Gy
from occ.metrics import Health, MetricsServer, OccCollector
from occ.noc import Alerts, Noc
from occ.noc import Figures as LiveFigures
from occ.policy.acting import Acting
from occ.policy.reloading import PolicyReload
from occ.rating.currency import currency_name
from occ.reauthorisation import Reauthorisation
from occ.reload import CatalogueReload
from occ.settings import Settings
from occ.sy import Sy
from protocols.diameter.node import Node, PeerStatus

HEALTH_PATIENCE_S: Final = 2.0
FIGURES_PATIENCE_S: Final = 5.0


class Observed(Protocol):
    """A server that charges (``occ.server``), as far as it is looked at."""

    settings: Settings
    store: Store
    charging: Charging
    node: Node
    gy: Gy
    sy: Sy
    reauthorisation: Reauthorisation
    catalogue_reload: CatalogueReload
    acting: Acting
    policy_reload: PolicyReload

    @property
    def away(self) -> Away | None:
        """What answers while the store cannot be reached."""

    def faults(self) -> list[str]:
        """What only a restart mends, a sentence each."""

    def hindrances(self) -> list[str]:
        """Why requests should go to another server for now, a sentence each."""


def metrics_server(
    server: Observed,
    clock: Callable[[], int],
    restarts: int,
    in_background: Callable[[str, Coroutine[Any, Any, None]], None],
) -> MetricsServer:
    """The listener, which does not listen yet. To be made in the server's event loop; it answers in its own thread.

    ``restarts``: times that the server was started again as it had ended by itself. ``in_background`` runs what looks
    at the server now and then.
    """
    loop = asyncio.get_running_loop()
    currency = currency_name(server.charging.rules.catalogue.currency)

    def notice_figures() -> Figures:
        """Called in the thread of the HTTP server: the store belongs to the loop."""
        return asyncio.run_coroutine_threadsafe(figures(server.store), loop).result(FIGURES_PATIENCE_S)

    collector = OccCollector(
        server.gy.statistics,
        server.gy.admission,
        server.gy.rates,
        server.charging.statistics,
        server.store.statistics,
        server.reauthorisation.statistics,
        server.catalogue_reload.statistics,
        server.acting.statistics,
        server.policy_reload.statistics,
        lambda: server.node.open_peers,
        currency,
        server.sy.statistics,
        notice_figures,
        clock,
    )

    def peers() -> list[dict[str, Any]]:
        """Called in the thread of the HTTP server: the loop itself must look at its peers."""
        future = asyncio.run_coroutine_threadsafe(_peers(server.node), loop)
        return [_as_json(status) for status in future.result(FIGURES_PATIENCE_S)]

    def in_loop(question: Callable[[], list[str]]) -> list[str]:
        try:
            return asyncio.run_coroutine_threadsafe(_ask(question), loop).result(HEALTH_PATIENCE_S)
        except TimeoutError:
            return [f"the server has not looked up from its work for {HEALTH_PATIENCE_S:g} s"]

    def without_store() -> WithoutStore:
        away = server.away
        return WithoutStore() if away is None else WithoutStore(away.is_granting, away.statistics.waiting)

    health = Health(lambda: in_loop(server.faults), lambda: in_loop(server.hindrances))
    watch = ConditionWatch(server.store, server.node.peers, clock)
    watch.without_store = without_store
    in_background("condition", watch.run())
    about = {"version": _version(), "origin_host": server.settings.diameter.origin_host}
    directories = {"data": server.settings.store.data_dir, "cdr": server.settings.cdr.directory}
    away = AwayCollector(lambda: server.away, clock, currency)
    collectors = (collector, away, ConditionCollector(watch, directories, about, restarts))
    live = LiveFigures(server.gy.statistics, server.charging.statistics, server.store.statistics, currency, loop.time)
    alerts = Alerts(server.settings.metrics.prometheus_url)
    in_background("figures", live.run())
    in_background("alerts", alerts.run())
    return MetricsServer(collectors, peers, health, Noc(live, watch, alerts, about, clock))


async def _ask(question: Callable[[], list[str]]) -> list[str]:
    return question()


async def _peers(node: Node) -> list[PeerStatus]:
    return node.peers()


def _as_json(status: PeerStatus) -> dict[str, Any]:
    told = {field.name: getattr(status, field.name) for field in fields(status)}
    told["statistics"] = status.statistics.as_dict()
    return told


def _version() -> str:
    try:
        return version("occ")
    except PackageNotFoundError:  # run from a directory that is not installed
        return "unknown"
