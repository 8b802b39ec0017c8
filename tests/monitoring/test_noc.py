"""The NOC page: its figures, its document, and the page itself in a real browser."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from balance.model import IdentityType
from balance.store_statistics import StoreStatistics
from occ.charging import ChargingStatistics
from occ.condition import read_info
from occ.noc import Figures
from occ.noc.alerts import read_alerts
from occ.noc.figures import SAMPLES, percentile
from occ.request_statistics import GROUPS_COUNTED, LATENCY_BOUNDS_S, OTHER_GROUPS, RequestStatistics
from simulators import gateway
from tests.live_server import LiveServer
from tests.monitoring.browser import Chromium
from tests.monitoring.lab import until

# -- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([10, 10, 0], 0.75, 1.5),
        ([0, 10, 0], 0.5, 1.5),
        ([1, 0, 9], 0.99, 2.0),
    ],
)
def test_percentiles_from_buckets(counts: list[int], share: float, expected: float | None) -> None:
    """Bounds 1 and 2; what lies beyond the last one is at least that."""
    assert percentile((1.0, 2.0), counts, share) == expected


class Watched:
    """Counters, and figures sampled by hand."""

    def __init__(self) -> None:
        self.requests, self.charging = RequestStatistics(), ChargingStatistics()
        self.at_s = 100.0
        self.figures = Figures(self.requests, self.charging, StoreStatistics(), "EUR", lambda: self.at_s)

    def pass_time(self, seconds: float) -> dict[str, Any]:
        self.at_s += seconds
        self.figures.sample()
        return self.figures.as_json()


def test_rates_are_of_the_time_that_has_passed() -> None:
    watched = Watched()
    for _ in range(30):
        watched.requests.answered(2, 2001, 0.004)
    for _ in range(10):
        watched.requests.answered(1, 4012, 0.004)
    watched.charging.debited_micro = 5_000_000
    now = watched.pass_time(10)["now"]
    assert (now["requests"], now["refused"]) == (4, 1)
    assert now["money_per_minute"] == 30
    low, high = (bound * 1000 for bound in LATENCY_BOUNDS_S[3:5])
    assert low <= now["p50_ms"] <= now["p99_ms"] <= high
    assert watched.pass_time(10)["now"]["requests"] == 2, "the same over twice the time"


def test_nothing_is_claimed_where_nothing_was_measured() -> None:
    now = Watched().pass_time(2)["now"]
    assert now["p99_ms"] is None
    assert now["requests"] == 0
    assert Watched().figures.as_json()["answers"] == []


def test_tables_show_the_most_frequent_first_and_free_services_are_no_refusals() -> None:
    watched = Watched()
    for group, code, count in ((10, 4012, 3), (20, 4010, 5), (30, 4011, 9), (-1, 2001, 9)):
        for _ in range(count):
            watched.requests.service(group, code).count += 1
    told = watched.pass_time(2)
    assert [(line["rating_group"], line["code"], line["count"]) for line in told["refusals"]] == [
        (20, 4010, 5),
        (10, 4012, 3),
    ]
    assert told["refusals"][0]["name"] == "end user service denied"


def test_clients_cannot_make_the_labels_grow() -> None:
    """A Rating-Group is whatever a client says."""
    statistics = RequestStatistics()
    for group in range(3 * GROUPS_COUNTED):
        statistics.service(group, 5031).count += 1
    assert len(statistics.services) == GROUPS_COUNTED + 1
    assert statistics.services[OTHER_GROUPS, 5031] == 2 * GROUPS_COUNTED


def test_figures_take_a_bounded_place() -> None:
    watched = Watched()
    for _ in range(SAMPLES + 50):
        watched.pass_time(2)
    assert len(watched.figures.as_json()["series"]["requests"]) == SAMPLES - 1


# -- what Redis and Prometheus tell ----------------------------------------------------------------------------------


def test_replication_lag_is_that_of_the_last_replica() -> None:
    info = read_info(
        "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n"
        "slave0:ip=10.0.0.1,port=6379,state=online,offset=900,lag=0\r\n"
        "slave1:ip=10.0.0.2,port=6379,state=online,offset=400,lag=3\r\nmaster_repl_offset:1000\r\n"
        "used_memory:77\r\naof_last_write_status:err\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.0\r\n"
    )
    assert (info.replicas, info.replication_lag_octets, info.memory_octets) == (2, 600, 77)
    assert info.cpu_seconds == 3.5
    assert not info.writes_to_disk
    assert read_info("").writes_to_disk
    assert read_info("used_memory:much\nslave0:offset=\n").memory_octets == 0


ANSWER = {
    "status": "success",
    "data": {
        "alerts": [
            {"labels": {"alertname": "A", "severity": "ticket"}, "state": "firing", "activeAt": "2030-01-01T00:00:00Z"},
            {"labels": {"alertname": "B"}, "state": "pending", "activeAt": "2030-01-01T00:00:00Z"},
            {
                "labels": {"alertname": "C", "severity": "page"},
                "annotations": {"summary": "<b>down</b>"},
                "state": "firing",
                "activeAt": "2030-01-02T00:00:00Z",
            },
        ]
    },
}


def test_alerts_that_fire_are_told_the_urgent_ones_first() -> None:
    found = read_alerts(json.dumps(ANSWER).encode())
    assert [(alert.name, alert.summary) for alert in found] == [("C", "<b>down</b>"), ("A", "")]


@pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b'{"data": {"alerts": [{}]}}', b'{"data": null}', b"\xff"])
def test_what_is_not_prometheus_is_told(content: bytes) -> None:
    with pytest.raises(ValueError, match="is not Prometheus"):
        read_alerts(content)


# -- the page --------------------------------------------------------------------------------------------------------


class FakePrometheus(BaseHTTPRequestHandler):
    """Tells of alerts, as Prometheus writes them."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/v1/alerts" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass


@pytest.fixture(scope="module")
def prometheus_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), FakePrometheus) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, prometheus_url: str) -> Iterator[LiveServer]:
    settings = {"metrics.prometheus_url": prometheus_url}
    with LiveServer(tmp_path_factory.mktemp("noc"), settings) as running:
        for number in (1, 2, 3):
            name = f"49170000000{number}"
            identities = [(IdentityType.E164, name), (IdentityType.IMSI, f"26201000000000{number}")]
            running.add_account(f"acc-{name}", identities, balance_micro=300_000)
        yield running


def fetch(server: LiveServer, path: str) -> tuple[dict[str, str], bytes]:
    with urlopen(f"http://127.0.0.1:{server.server.metrics_port}{path}", timeout=10) as answer:
        return dict(answer.headers), answer.read()


def told(server: LiveServer) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(fetch(server, "/noc/data")[1])
    return document


async def use(server: LiveServer) -> int:
    options = gateway.GatewayOptions(port=server.server.diameter_port, sessions=30, prepaid=3, postpaid=0, seed=5)
    return (await gateway.run(options, lambda done, total: None)).answers


async def test_the_document_tells_what_was_done(server: LiveServer) -> None:
    before = sum(line["count"] for line in told(server)["answers"])
    answers = await use(server)
    until(
        lambda: sum(line["count"] for line in told(server)["answers"]) - before == answers,
        "what was answered is not told",
    )
    document = told(server)
    assert {line["code"] for line in document["answers"]} >= {2001, 4012}
    assert document["refusals"][0]["code"] == 4012
    assert document["store"]["up"] is True
    assert document["store"]["memory_octets"] > 0
    assert document["about"]["origin_host"] == server.origin_host
    until(lambda: [alert["name"] for alert in told(server)["alerts"]["firing"]] == ["C", "A"], "alerts are not told")


def test_no_subscriber_is_named(server: LiveServer) -> None:
    assert b"4917" not in fetch(server, "/noc/data")[1]


def test_assets_come_from_the_server_alone_and_may_load_nothing_else(server: LiveServer) -> None:
    for path, kind in (("/noc", "text/html"), ("/noc/noc.js", "text/javascript"), ("/noc/noc.css", "text/css")):
        headers, content = fetch(server, path)
        assert headers["Content-Type"].startswith(kind)
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert b"https://" not in content
    for path in ("/noc/../metrics.py", "/noc/page.py", "/nocx"):
        with pytest.raises(HTTPError, match="404"):
            fetch(server, path)


WIDTHS = {"desktop": (1440, 1000), "tablet": (820, 1180), "phone": (390, 844)}


@pytest.mark.slow
async def test_a_browser_shows_it(server: LiveServer, tmp_path: Path) -> None:
    """On all sizes, light and dark: it fits, updates by itself, asks nobody else, and has no errors."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is missing")
    await use(server)
    origin = f"http://127.0.0.1:{server.server.metrics_port}/"
    grounds = set()
    with Chromium(program, tmp_path / "profile") as browser:
        for theme in ("light", "dark"):
            for size, (width, height) in WIDTHS.items():
                browser.show(f"{origin}noc", width, height, theme)
                browser.until("Number(document.body?.dataset.updates) >= 1")
                overflow = browser.value("document.documentElement.scrollWidth - window.innerWidth")
                assert overflow <= 0, f"{size} is wider than the window by {overflow} px"
                assert browser.value("document.querySelectorAll('.chart svg').length") == 3
                browser.screenshot(_screenshots(tmp_path) / f"{size}-{theme}.png")
            grounds.add(browser.value("getComputedStyle(document.body).backgroundColor"))
        browser.until("Number(document.body.dataset.updates) >= 3")
        assert "credit limit reached" in browser.value("document.getElementById('answers').innerText")
        assert "<b>down</b>" in browser.value("document.getElementById('alerts').innerText"), "text stays text"
        assert browser.value("document.getElementById('state').innerText") == "2 alerts"
        before = browser.value("getComputedStyle(document.body).backgroundColor")
        browser.value("document.getElementById('theme').click()")
        assert browser.value("getComputedStyle(document.body).backgroundColor") in grounds - {before}
        assert len(grounds) == 2
        assert browser.complaints() == []
        elsewhere = {url for url in browser.requested() if not url.startswith((origin, "data:", "about:"))}
        assert elsewhere == set()


def _screenshots(directory: Path) -> Path:
    """Where pictures go: OCC_SCREENSHOTS for those who want to look at them."""
    place = Path(os.environ.get("OCC_SCREENSHOTS") or directory)
    place.mkdir(parents=True, exist_ok=True)
    return place
