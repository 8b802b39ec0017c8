"""`python -m loadtests --quick` from end to end: a sound run of the real server, with every figure in its place."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from loadtests import recorded
from loadtests.__main__ import TURNS
from loadtests.figures import BUDGET
from loadtests.latency import PARTS

HdrHistogram = pytest.importorskip("hdrh.histogram", reason="hdrhistogram is not installed").HdrHistogram
REPOSITORY = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded.json"
MARGINS = {
    "over_floor": (1 / 3, 1e9),
    "rating_ratio": (0.0, 3.0),
    "worker_over_redis": (1 / 3, 3.0),
    "outbox_over_worker": (0.0, 3.0),
    "session_over_account": (0.0, 1.5),
}
"""By ratio, what it may be at least and at most times what was recorded.

Ratios of CPU time differ between processors, between Redis and Valkey, and by two where the hot path is compiled, and
the intervals of a quick run are short: three finds a request that costs several times what it did. That to the floor is
one of rates by the clock: among the runs recorded it differs by two, as others took half of the machine in some. Memory
depends on nothing but the version of Redis."""
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
    "half_p9999_ms",
    "half_part_p99_ms",
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
    figures of one run is far from what it was in the runs that were recorded."""
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
    medians = recorded.medians(RECORDED)
    for name, ratio in recorded.ratios(figures.__getitem__).items():
        least, most = MARGINS[name]
        assert medians[name] * least < ratio < medians[name] * most, name
    assert figures["half_parts_kept"] in range(PARTS + 1)
    assert {"undelivered", "half_undelivered"} <= set(figures)
    for phase, parts in (("maximum", TURNS), ("half", PARTS)):
        check_latencies(written["latencies"][phase], parts)
    half = written["latencies"]["half"]
    assert figures["half_p99_ms"] == half["percentiles_ms"]["99"]
    assert figures["half_part_p99_ms"] == median(part["percentiles_ms"]["99"] for part in half["parts"])
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
        "turns over the floor",
        "turns over the best floor",
        "rating call",
    ):
        assert written["facts"][fact], fact
    assert "appendfsync always" in written["facts"]["Redis"]
    assert list(tmp_path.iterdir()) == [tmp_path / "figures.json"]


def check_latencies(latency: dict[str, Any], parts: int) -> None:
    """The histogram holds every sample, and the parts are all of them."""
    histogram = HdrHistogram.decode(latency["histogram"]["base64"])
    assert histogram.get_total_count() == latency["samples"] > 500
    assert histogram.get_value_at_percentile(99) / 1000 == latency["percentiles_ms"]["99"]
    assert len(latency["parts"]) == parts
    assert sum(part["samples"] for part in latency["parts"]) == latency["samples"]
    assert list(latency["percentiles_ms"]) == ["50", "90", "99", "99.9", "99.99"]
    values = [*latency["percentiles_ms"].values(), latency["max_ms"]]
    assert values == sorted(values)


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
