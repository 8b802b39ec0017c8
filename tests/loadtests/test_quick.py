"""`python -m loadtests --quick` from end to end: a sound run of the real server, with every figure in its place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.figures import BUDGET

REPOSITORY = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded.json"
MARGIN = 4.0
"""Machines differ, and what else they do does; this finds a request that costs several times what it did."""
PATIENCE_S = 240
POSITIVE = (
    "rate",
    "worker_cpu_us",
    "redis_cpu_us",
    "plans_per_commit",
    "half_rate",
    "half_p50_ms",
    "half_p99_ms",
    "half_p999_ms",
    "idle_account_octets",
    "session_octets",
    "worker_sessions_mb",
    "worker_octets",
    "redis_octets",
    "floor",
    "over_floor",
    "best_floor",
    "rating_10_us",
    "rating_1000_us",
    "rating_100000_us",
    "rating_ratio",
)
NONE = ("errors", "discrepancies", "disagreement_micro")


@pytest.mark.slow
def test_a_quick_run_is_sound_and_complete(tmp_path: Path) -> None:
    """Never how fast: that load was served without an error, that ledger and clients agree, and that no ratio of
    figures of one run is far from what it was when it was recorded."""
    result = subprocess.run(
        [sys.executable, "-m", "loadtests", "--quick", "--json", "figures.json", "--directory", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    figures = {row["key"]: row["measured"] for row in written["figures"]}
    assert set(BUDGET) <= set(figures)
    for key in POSITIVE:
        assert figures[key] > 0, key
    for key in NONE:
        assert figures[key] == 0, key
    assert figures["requests"] > 1000
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert figures["over_floor"] > recorded["over_floor"] / MARGIN
    assert figures["rating_ratio"] < recorded["rating_ratio"] * MARGIN
    assert figures["worker_cpu_us"] / figures["redis_cpu_us"] < recorded["worker_over_redis"] * MARGIN
    for fact in (
        "machine",
        "cores",
        "hot path",
        "versions",
        "settings",
        "Redis",
        "load",
        "disk",
        "maximum",
        "latency",
        "ledger",
        "floor",
        "rating call",
    ):
        assert written["facts"][fact], fact
    assert "appendfsync always" in written["facts"]["Redis"]
    assert list(tmp_path.iterdir()) == [tmp_path / "figures.json"]


def test_a_server_that_does_not_start_is_one_clear_sentence(tmp_path: Path) -> None:
    server = f"{sys.executable} -c 'import sys; sys.exit(\"no such thing\")'"
    options = ["--quick", "--accounts", "300", "--directory", str(tmp_path), "--server", server]
    result = subprocess.run(
        [sys.executable, "-m", "loadtests", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 1
    assert "the server does not say where it listens: no such thing" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []
