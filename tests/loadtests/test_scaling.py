"""The load test of several workers runs, and what it simulates follows from what it was given."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests import machine, scaling
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


@pytest.mark.parametrize("cores", [{2, 3}, {0, 1, 2}, {0, 1, 2, 3}, set(range(8))])
def test_servers_under_load_share_no_core_nor_one_with_the_store_they_are_alone_on(
    cores: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    first, second = machine.places(pinned=True)
    assert first.worker.isdisjoint(second.worker)
    assert first.worker.isdisjoint(first.redis)
    assert first.worker.isdisjoint(first.generator)
    if len(cores) >= 3:
        assert second.worker.isdisjoint(first.redis | second.redis | first.generator | second.generator)
    if len(cores) >= 4:
        assert first.redis.isdisjoint(second.redis)
    used = set().union(*first, *second)
    assert used == cores
    told = machine.Places(first, second).describe()
    assert told.count("core ") == len(cores)
    assert all(f"core {core}: " in told for core in cores)


def test_on_two_cores_what_shares_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert machine.places(pinned=True).describe() == (
        "core 0: worker 1, Redis 2, outboxes and generators of workers 2 and 3; "
        "core 1: workers 2 and 3, one of which is loaded at a time, Redis 1, outbox and generator of worker 1"
    )


@pytest.mark.parametrize(("pinned", "cores"), [(False, {0, 1}), (True, {0})])
def test_nothing_is_pinned_where_it_is_not_wanted_or_makes_no_sense(
    pinned: bool, cores: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    found = machine.places(pinned)
    assert set().union(*found.first, *found.second) == set()
    assert found.describe().startswith("not pinned")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_is_pinned_with_all_its_threads() -> None:
    """Threads that are there already have cores of their own: sched_setaffinity(2) is about one thread."""
    core = min(os.sched_getaffinity(0))
    program = "import sys, threading; threading.Thread(target=sys.stdin.read).start(); print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        threads = [int(each.name) for each in Path(f"/proc/{process.pid}/task").iterdir()]
        machine.pin(process.pid, {core})
        assert len(threads) == 2
        assert [os.sched_getaffinity(thread) for thread in threads] == [{core}, {core}]
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_load_test_runs(tmp_path: Path) -> None:
    """Errors and discrepancies would be in it; figures of so short a run are not looked at."""
    file = tmp_path / "scaling.json"
    assert scaling.main(["--quick", "--directory", str(tmp_path), "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    assert (told["errors"], told["discrepancies"]) == ({}, 0)
    if machine.places(pinned=True).first.worker:
        for process in ("worker 1", "workers 2 and 3", "Redis 1", "Redis 2", "outbox and generator of worker 1"):
            assert process in told["facts"]["cores"], process
    assert set(told["capacity_over_one"]) == {"affine", "mixed", "apart"}
    assert all(value > 0 for case in told["cases"].values() for value in case.values())
