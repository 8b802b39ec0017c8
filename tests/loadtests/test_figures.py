"""The report: budgets are compared in the right direction, and the same numbers stand in table and JSON."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import machine
from loadtests.figures import BUDGET, Bound, Report


def test_a_bound_is_met_from_its_own_side() -> None:
    assert Bound(20).met_by(20)
    assert not Bound(20).met_by(20.1)
    assert Bound(0.25, at_least=True).met_by(0.25)
    assert not Bound(0.25, at_least=True).met_by(0.2)


@pytest.mark.parametrize("key", BUDGET)
def test_what_is_aimed_at_is_never_easier_than_what_must_be(key: str) -> None:
    first, goal = BUDGET[key]
    assert first.at_least == goal.at_least
    assert goal.value >= first.value if goal.at_least else goal.value <= first.value


def test_table_and_json_say_the_same(tmp_path: Path) -> None:
    report = Report({"machine": "a test"})
    report.add("worker_cpu_us", "worker CPU per CCR", 150.04, "µs", 1)
    report.add("rate", "maximum", 12_345.6, "CCR/s")
    output = StringIO()
    report.show(Console(file=output, width=120))
    for text in ("150.0 µs", "≤ 80", "≤ 45", "12,346 CCR/s", "a test"):
        assert text in output.getvalue()
    report.latencies["half"] = {"percentiles_ms": {"99": 3.2}}
    report.write(tmp_path / "figures.json")
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [row["measured"] for row in written["figures"]] == [150.04, 12_345.6]
    assert [row["is_kept"] for row in written["figures"]] == [False, None]
    assert written["latencies"] == {"half": {"percentiles_ms": {"99": 3.2}}}


def test_this_process_is_measured() -> None:
    import os

    before = machine.usage(os.getpid())
    sum(number * number for number in range(300_000))
    after = machine.usage(os.getpid())
    assert after.cpu_s >= before.cpu_s
    assert after.resident_octets > 1_000_000


def test_a_process_that_is_not_there_is_one_clear_sentence() -> None:
    with pytest.raises(machine.MachineError, match="process 0 cannot be measured"):
        machine.usage(0)


def test_a_compiled_hot_path_has_a_budget_of_its_own() -> None:
    report = Report(compiled=True)
    report.add("worker_cpu_us", "worker CPU per CCR", 50.0, "µs", 1)
    report.add("redis_cpu_us", "Redis CPU per CCR", 15.0, "µs", 1)
    assert [str(figure.budget[0]) for figure in report.figures if figure.budget] == ["≤ 45", "≤ 20"]
    assert [figure.is_kept for figure in report.figures] == [False, True]
