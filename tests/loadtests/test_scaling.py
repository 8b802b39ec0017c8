"""The load test of several workers runs, and what it simulates follows from what it was given."""

import json
import sys
from pathlib import Path

import pytest

from loadtests import scaling
from loadtests.queueing import Costs, fitted, simulate

COSTS = Costs(request_us=60, send_us=100, plan_us=8, commit_us=40, sync_us=500)


def test_costs_are_found_again() -> None:
    assert fitted([(depth, 60 + 100 / depth) for depth in (4.0, 16.0, 32.0)]) == pytest.approx((60, 100))
    assert fitted([(4.0, 50.0), (32.0, 60.0)]) == (55.0, 0.0), "deeper commits cannot cost more: it is noise"


def test_one_worker_is_as_fast_as_its_core() -> None:
    """Little's law aside: a busy worker answers what its costs allow, and Redis is as busy as its own ask for."""
    found = simulate(COSTS, 1, 1)
    assert found.worker_busy > 0.97
    assert found.rate == pytest.approx(found.worker_busy * 1e6 / (60 + 100 / found.depth), rel=0.02)
    assert found.shard_busy == pytest.approx(found.rate * (8 + 40 / found.depth) / 1e6, rel=0.05)


def test_workers_add_up_until_the_store_is_busy() -> None:
    one = simulate(COSTS, 1, 1).rate
    assert simulate(COSTS, 2, 2).rate / one == pytest.approx(2.0, rel=0.06)
    dear = Costs(60, 100, plan_us=50, commit_us=40, sync_us=100)
    alone, crowded = simulate(dear, 1, 1), simulate(dear, 4, 1)
    assert crowded.shard_busy > 0.9
    assert crowded.rate < 20_000 < 4 * alone.rate
    assert simulate(dear, 4, 4).rate > 2 * crowded.rate


def test_what_workers_share_costs_them() -> None:
    shared = Costs(60, 100, 8, 40, 500, sharing=1.25)
    assert simulate(shared, 1, 1) == simulate(COSTS, 1, 1)
    assert simulate(shared, 2, 1).rate < 0.9 * simulate(COSTS, 2, 1).rate


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_load_test_runs(tmp_path: Path) -> None:
    """Errors and discrepancies would be in it; figures of so short a run are not looked at."""
    file = tmp_path / "scaling.json"
    assert scaling.main(["--quick", "--directory", str(tmp_path), "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    assert (told["errors"], told["discrepancies"]) == ({}, 0)
    assert set(told["capacity_over_one"]) == {"affine", "mixed", "apart"}
    assert all(value > 0 for case in told["cases"].values() for value in case.values())
