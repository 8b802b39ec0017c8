"""The NOC page and its document, as HTTP answers them. Everything it needs is in this package."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from occ.condition import OPEN_STATES, ConditionWatch
from occ.noc.alerts import Alerts
from occ.noc.figures import SAMPLE_INTERVAL_S, Figures
from protocols.diameter.handle import PeerStatus

MOST_PEERS: Final = 100
"""Shown; all of them are at ``/peers``."""

_ASSETS: Final = Path(__file__).parent
_FILES: Final = {
    "/noc": ("noc.html", "text/html; charset=utf-8"),
    "/noc/noc.js": ("noc.js", "text/javascript; charset=utf-8"),
    "/noc/noc.css": ("noc.css", "text/css; charset=utf-8"),
}
_HEADERS: Final = [
    ("Cache-Control", "no-cache"),
    ("Content-Security-Policy", "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    content: bytes
    headers: list[tuple[str, str]]


class Noc:
    """Answers ``/noc`` and what is below it. ``about``: name -> value, told in the page's head."""

    def __init__(
        self,
        figures: Figures,
        watch: ConditionWatch,
        alerts: Alerts,
        about: Mapping[str, str],
        clock: Callable[[], int],
    ) -> None:
        self._figures = figures
        self._watch = watch
        self._alerts = alerts
        self._about = dict(about)
        self._clock = clock
        self._files = {path: (_ASSETS / name).read_bytes() for path, (name, _) in _FILES.items()}

    def page(self, path: str) -> Page | None:
        """What is at a path; None: nothing. May be called from any thread."""
        path = path.rstrip("/")
        if path == "/noc/data":
            return _page(json.dumps(self._document()).encode(), "application/json")
        if path in self._files:
            return _page(self._files[path], _FILES[path][1])
        return None

    def _document(self) -> dict[str, Any]:
        condition, alerts = self._watch.condition, self._alerts
        redis = condition.redis
        peers = sorted(condition.peers, key=lambda peer: (peer.state in OPEN_STATES, peer.origin_host))
        return {
            "at_ms": self._clock(),
            "interval_ms": int(SAMPLE_INTERVAL_S * 1000),
            "about": self._about,
            **self._figures.as_json(),
            "peers_open": sum(peer.state in OPEN_STATES for peer in peers),
            "peers_known": len(peers),
            "peers": [_peer(peer) for peer in peers[:MOST_PEERS]],
            "outbox": {
                "entries": condition.outbox_entries,
                "oldest_seconds": round(condition.outbox_oldest_seconds, 1),
            },
            "supervision": {
                "overdue_accounts": condition.overdue_accounts,
                "lag_seconds": round(condition.overdue_seconds, 1),
            },
            "store": {
                "up": self._watch.store_up,
                **self._watch.without_store()._asdict(),
                "reconnects": self._watch.reconnects,
                "memory_octets": redis.memory_octets,
                "replicas": redis.replicas,
                "replication_lag_octets": redis.replication_lag_octets,
                "writes_to_disk": redis.writes_to_disk,
            },
            "alerts": {
                "asked": alerts.url is not None,
                "error": alerts.error,
                "firing": [asdict(alert) for alert in alerts.firing],
            },
        }


def _page(content: bytes, kind: str) -> Page:
    return Page(content, [("Content-Type", kind), ("Content-Length", str(len(content))), *_HEADERS])


def _peer(peer: PeerStatus) -> dict[str, Any]:
    return {
        "name": peer.origin_host,
        "state": peer.state,
        "open": peer.state in OPEN_STATES,
        "watchdog": peer.watchdog,
        "address": peer.remote_address,
        "product": peer.product_name,
        "open_seconds": round(peer.open_seconds),
        "requests": peer.statistics.requests_received,
    }
