"""What Prometheus and `occ peers` read from a running server, against what was done to it."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from balance.model import IdentityType
from occ.request_statistics import RequestStatistics
from simulators import gateway
from tests.live_server import LiveServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("metrics")) as running:
        yield running


def fetch(server: LiveServer, path: str) -> str:
    url = f"http://127.0.0.1:{server.server.metrics_port}{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def samples(server: LiveServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(fetch(server, "/metrics"))
        for sample in family.samples
    }


def value(server: LiveServer, name: str, **labels: str) -> float:
    return samples(server)[name, frozenset(labels.items())]


async def simulate(server: LiveServer, sessions: int) -> tuple[int, int]:
    """Requests answered and micro-units debited, as the clients count them."""
    options = gateway.GatewayOptions(port=server.server.diameter_port, sessions=sessions, prepaid=3, postpaid=0, seed=5)
    summary = await gateway.run(options, lambda done, total: None)
    return summary.answers, summary.debited_micro


async def test_metrics_tell_what_was_done(server: LiveServer) -> None:
    for number in (1, 2, 3):
        name = f"49170000000{number}"
        identities = [(IdentityType.E164, name), (IdentityType.IMSI, f"26201000000000{number}")]
        server.add_account(f"acc-{name}", identities, balance_micro=50_000_000)
    answers, debited = await simulate(server, 20)
    assert debited > 0
    found = samples(server)
    told = {labels: count for (name, labels), count in found.items() if name == "occ_requests_total"}
    assert sum(told.values()) == answers
    assert value(server, "occ_money_debited_total", currency="EUR") == debited / 1_000_000
    for kind in ("initial", "update", "termination"):
        ours = sum(count for labels, count in told.items() if ("type", kind) in labels)
        assert value(server, "occ_request_seconds_count", type=kind) == ours > 0
        assert value(server, "occ_request_seconds_bucket", type=kind, le="+Inf") == ours
    assert value(server, "occ_store_round_trip_seconds_count") > 0
    assert value(server, "occ_store_version_conflicts_total") == 0
    assert value(server, "occ_open_sessions") == 0
    assert value(server, "occ_open_reservations") == 0
    assert value(server, "occ_requests_in_flight") == 0


def test_no_subscriber_appears_in_a_label(server: LiveServer) -> None:
    assert "4917" not in fetch(server, "/metrics")


def test_slow_answers_are_named_to_scrapers_that_know_exemplars(server: LiveServer) -> None:
    """OpenMetrics 1.0, exemplars: which session it was, to be looked into; Prometheus asks for this format."""
    statistics = server.server.gy.statistics
    server.run(_answered(statistics, b"pgw;7;\xff;" + 200 * b"x", 0.3))
    server.run(_answered(statistics, b"pgw;quick", 0.001))
    url = f"http://127.0.0.1:{server.server.metrics_port}/metrics"
    wanted = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    with urllib.request.urlopen(wanted, timeout=10) as answer:
        text = answer.read().decode()
    exemplars = {
        (sample.labels["type"], sample.labels["le"]): sample.exemplar
        for family in openmetrics(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    }
    exemplar = exemplars["update", "0.5"]
    assert exemplar.labels["session_id"].startswith("pgw;7;")
    assert exemplar.value == 0.3
    assert "pgw;quick" not in text
    assert "pgw;7" not in fetch(server, "/metrics")


async def _answered(statistics: RequestStatistics, session_id: bytes, seconds: float) -> None:
    statistics.answered(2, 2001, seconds, session_id)


def test_peers_are_told_as_json(server: LiveServer) -> None:
    peers = json.loads(fetch(server, "/peers"))
    assert isinstance(peers, list)
    up = [peer for peer in peers if peer["state"] in ("I-Open", "R-Open")]
    assert value(server, "occ_peers_up") == len(up)


def test_another_path_is_not_found(server: LiveServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(server, "/")
