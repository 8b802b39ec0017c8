"""The Grafana dashboards of `config/grafana`: as described, as Grafana takes them, and not one query without data."""

import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from tests.live_server import PATIENCE_S, LiveServer
from tests.monitoring.dashboards import DASHBOARDS
from tests.monitoring.generate import PLACE
from tests.monitoring.grafana import text
from tests.monitoring.lab import Prometheus, loaded

SCHEMA = json.loads((Path(__file__).parent / "grafana.schema.json").read_text())
WINDOW_S = 120
SETTINGS = {"notices.enabled": "yes", "diameter.peers.requests_per_second": "100000"}


def written() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(PLACE.glob("*.json"))}


def test_the_files_are_what_is_described() -> None:
    """`make dashboards` writes them."""
    assert {path.name: path.read_text() for path in PLACE.glob("*.json")} == {
        f"{dashboard.uid}.json": text(dashboard) for dashboard in DASHBOARDS
    }


def test_grafana_takes_them() -> None:
    validate = fastjsonschema.compile(SCHEMA)
    for name, dashboard in written().items():
        validate(dashboard)
        assert dashboard["uid"] == name
        numbers = [panel["id"] for panel in dashboard["panels"]]
        assert len(numbers) == len(set(numbers))
        for panel in dashboard["panels"]:
            references = [target["refId"] for target in panel.get("targets", ())]
            assert len(references) == len(set(references))


def test_panels_do_not_overlap_and_stay_within_the_grid() -> None:
    for name, dashboard in written().items():
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24, (name, panel["title"])
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not taken & cells, (name, panel["title"])
            taken |= cells


@pytest.mark.parametrize(
    "spoil",
    [
        lambda dashboard: dashboard.pop("schemaVersion"),
        lambda dashboard: dashboard["panels"][1]["targets"][0].pop("expr"),
        lambda dashboard: dashboard["panels"][1].update(type="graph"),
        lambda dashboard: dashboard["panels"][1]["datasource"].update(uid="mine"),
        lambda dashboard: dashboard["templating"]["list"].pop(0),
    ],
)
def test_the_schema_refuses_what_grafana_would_not_show(spoil: Any) -> None:
    dashboard = written()["occ-overview"]
    spoil(dashboard)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        fastjsonschema.compile(SCHEMA)(dashboard)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is missing")
    directory = tmp_path_factory.mktemp("prometheus")
    with LiveServer(tmp_path_factory.mktemp("server"), SETTINGS) as server, loaded(server):
        target = f"127.0.0.1:{server.server.metrics_port}"
        with Prometheus(directory).scraping(target) as running:
            yield running


def queries() -> Iterator[tuple[str, str]]:
    for name, dashboard in written().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", "10s").replace("$__range", f"{WINDOW_S}s")
                yield f"{name}: {panel['title']} {target['refId']}", query.replace("$instance", ".+")


def has_data(prometheus: Prometheus, query: str) -> bool:
    """A number that is one, at some time since the start; quotients of nothing by nothing do not count."""
    found = prometheus.history(query, WINDOW_S)
    return any(math.isfinite(float(value)) for series in found for _, value in series["values"])


@pytest.mark.slow
def test_every_query_of_every_panel_returns_data(prometheus: Prometheus) -> None:
    waiting = dict(queries())
    deadline = time.monotonic() + 2 * PATIENCE_S
    while waiting and time.monotonic() < deadline:
        waiting = {name: query for name, query in waiting.items() if not has_data(prometheus, query)}
        time.sleep(0.5)
    assert not waiting, waiting


@pytest.mark.slow
def test_the_variable_that_chooses_workers_finds_them(prometheus: Prometheus) -> None:
    for dashboard in written().values():
        variable = next(each for each in dashboard["templating"]["list"] if each["name"] == "instance")
        assert variable["query"]["query"] == "label_values(occ_info, instance)"
    assert len(prometheus.latest("occ_info")) == 1


@pytest.mark.slow
def test_no_rule_fails_on_real_metrics(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 30
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}


@pytest.mark.slow
def test_metrics_of_the_rules_exist(prometheus: Prometheus) -> None:
    """A misspelt metric would never make an alert fire."""
    known = set(prometheus.get("label/__name__/values"))
    text_of_rules = "".join(path.read_text() for path in (PLACE.parents[1] / "prometheus" / "rules").glob("*.yml"))
    used = set(re.findall(r"\bocc_[a-z_]+", text_of_rules))
    assert used - known == set()
