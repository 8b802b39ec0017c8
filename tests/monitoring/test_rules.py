"""The rules of `config/prometheus`, as promtool checks and plays them, and the runbook that goes with them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.rule_cases import CASES, Series

PROJECT = Path(__file__).resolve().parents[2]
PROMETHEUS = PROJECT / "config" / "prometheus"
RULES = PROMETHEUS / "rules"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is missing")


def alerts() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_configuration_and_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES / "recording.yml", RULES / "alerts.yml")


def _play(alert: str, series: Series, at: str, fires: bool) -> dict[str, Any]:
    """One test of promtool: does the alert fire, whatever its labels?"""
    return {
        "name": f"{alert} {'fires' if fires else 'does not fire'}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0 or vector(0)',
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
        ],
    }


@needs_promtool
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    plays = [
        play
        for case in CASES
        for play in (
            _play(case.alert, case.fires, case.at, fires=True),
            _play(case.alert, case.silent, case.at, fires=False),
        )
    ]
    document = {
        "rule_files": [str(RULES / "recording.yml"), str(RULES / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": plays,
    }
    (tmp_path / "rules.test.yml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", tmp_path / "rules.test.yml")


def test_every_alert_is_played() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert sorted(case.alert for case in CASES) == sorted(names)
    assert len(names) == len(set(names))


def test_every_alert_has_its_section_in_the_runbook_and_none_is_left_over() -> None:
    runbook = (PROJECT / "docs" / "runbook.md").read_text()
    sections = re.findall(r"^### (Occ\w+)\n\n\*(Page|Ticket)\.\*", runbook, re.MULTILINE)
    told = [(alert["alert"], alert["labels"]["severity"].title()) for alert in alerts()]
    assert sorted(sections) == sorted(told)
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["annotations"]["summary"]


def test_links_within_the_runbook_lead_somewhere() -> None:
    runbook = (PROJECT / "docs" / "runbook.md").read_text()
    anchors = {title.lower() for title in re.findall(r"^#+ (\w+)$", runbook, re.MULTILINE)}
    links = re.findall(r"\]\(#(\w+)\)", runbook)
    assert links
    assert set(links) <= anchors
