"""Every text table of this directory, played against the real server over real sockets and a real Redis."""

import logging
from pathlib import Path

import pytest

from tests.scenarios.runner import Run, Servers
from tests.scenarios.tables import ScenarioError, read_scenario, scenario_paths

ROWS = range(1, 29)
"""Rows of the conformance table that must have a scenario each."""


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in scenario_paths()])
def test_scenario(path: Path, servers: Servers, caplog: pytest.LogCaptureFixture) -> None:
    scenario = read_scenario(path)
    if not scenario.known_gap:
        Run(scenario, servers).play()
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert not errors or any(step.sends == "Redis stops" for step in scenario.steps)
        return
    with pytest.raises(ScenarioError):
        Run(scenario, servers).play()
    pytest.xfail(scenario.known_gap)


def test_every_row_has_a_scenario() -> None:
    shown = {row for path in scenario_paths() for row in read_scenario(path).rows}
    assert not set(ROWS) - shown, "rows of the conformance table without a scenario"
