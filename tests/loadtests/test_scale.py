"""`python -m loadtests.scale --quick` from end to end, its picture and its page."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from loadtests.figures import Report
from loadtests.page import page
from loadtests.plot import plot
from loadtests.scale import BUDGET, Subject, write_configuration
from occ.policy.reading import load_policies
from occ.rating.catalogue import load_catalogue

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 400
MARGIN = 3.0
"""A ratio of two figures of one run; how much a busy machine may bend it."""


def result(ratio: float = 1.2) -> dict[str, object]:
    rows = [
        {"size": size, "label": f"{size:,} of them", "worker_cpu_us": 40.0, "redis_cpu_us": 10.0, "ratio": of}
        for size, of in ((10, 1.0), (1000, ratio))
    ]
    return {"facts": {"machine": "a <test>", "hot path": "plain"}, "axes": dict.fromkeys(BUDGET, rows)}


@pytest.mark.slow
def test_a_quick_run_compares_small_and_large(tmp_path: Path) -> None:
    files = ["--json", "scale.json", "--plot", "scale.svg", "--directory", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.scale", "--quick", *files],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "scale.json").read_text(encoding="utf-8"))
    for axis in BUDGET:
        rows = written["axes"][axis]
        assert rows[0]["ratio"] == 1
        assert rows[-1]["ratio"] < MARGIN, axis
        assert all(row["worker_cpu_us"] > 0 < row["redis_cpu_us"] for row in rows)
    assert (tmp_path / "scale.svg").read_text(encoding="utf-8").startswith("<svg")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["scale.json", "scale.svg"]


def test_a_ratio_is_of_the_same_round_whatever_the_machine_does_meanwhile() -> None:
    """Made to fail by: the best rounds of both, which are 1.9 apart here."""
    small, large = (Subject(size, "", *[cast(Any, None)] * 3) for size in (1, 1000))
    small.worker_us, small.redis_us = [70.0, 60.0, 30.0], [20.0, 30.0, 20.0]
    large.worker_us, large.redis_us = [80.0, 72.0, 75.0], [28.0, 36.0, 20.0]
    assert large.ratio_to(small) == pytest.approx(1.2)
    assert small.ratio_to(small) == 1


def test_the_rules_of_a_run_are_all_read(tmp_path: Path) -> None:
    settings = write_configuration(tmp_path / "config", 300, 300)
    catalogue = load_catalogue(Path(settings["OCC_CATALOGUE"]))
    policies = load_policies(Path(settings["OCC_POLICIES"]), catalogue)
    assert catalogue.destinations is not None
    assert len(catalogue.destinations) > 300
    assert len(policies.policies.rules) == 300


def test_the_picture_shows_every_ratio() -> None:
    root = ElementTree.fromstring(plot(result(1.37)))
    texts = [each.text for each in root.iter() if each.text]
    assert texts.count("1.37") == len(BUDGET)
    assert any("a <test>" in text for text in texts)


def test_the_page_has_what_was_recorded_and_nothing_else(tmp_path: Path) -> None:
    assert "|" not in page(tmp_path)
    (tmp_path / "scale-compiled.json").write_text(json.dumps(result()), encoding="utf-8")
    text = page(tmp_path)
    assert "benchmarks/scale-compiled.svg" in text
    assert "| 1,000 of them | 40.0 µs | 10.0 µs | 1.20 |" in text
    assert "benchmarks/scale.svg" not in text


def test_the_page_shows_counts_as_whole_numbers(tmp_path: Path) -> None:
    report = Report({"machine": "a test"})
    report.add("errors", "errors of any kind", 0)
    report.add("half_p99_ms", "p99 at half of the maximum", 3.0, "ms", 2)
    report.add("undelivered", "outbox behind", 1_689, "records")
    report.write(tmp_path / "bench.json")
    text = page(tmp_path)
    assert "| errors of any kind | 0  | ≤ 0 | ≤ 0 |" in text
    assert "| p99 at half of the maximum | 3.00 ms | ≤ 10 | ≤ 3 |" in text
    assert "| outbox behind | 1,689 records |" in text


def test_the_page_tells_what_is_simulated_from_what_is_measured(tmp_path: Path) -> None:
    rates = [{"workers": workers, "shards": 1, "rate": rate} for workers, rate in ((1, 100.0), (2, 190.0))]
    scaling = {
        "facts": {"machine": "a test"},
        "capacity_over_one": {"affine": 2.1, "mixed": 1.6},
        "simulated": {"affine": rates, "mixed": rates},
    }
    (tmp_path / "scaling.json").write_text(json.dumps(scaling), encoding="utf-8")
    measured, simulated = page(tmp_path).split("\nSimulated ")
    assert "for accounts of its own | 2.10 |" in measured
    assert "| 2 | 1 | 1.90 | 1.90 |" in simulated
