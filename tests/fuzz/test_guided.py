"""The targets of guided fuzzing take their whole corpus; where atheris is installed, they are fuzzed for a moment."""

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.guided import CORPUS, REPOSITORY
from tests.fuzz.targets import NAMES, target

RUNS = 600
"""Inputs of each target in a test run; ``python -m tests.fuzz.guided TARGET --runs N`` tries as many as one likes."""


@pytest.fixture(autouse=True)
def own_loggers() -> Iterator[None]:
    """Targets listen to the loggers of the product; other tests want to hear them too."""
    loggers = [logging.getLogger(name) for name in ("occ", "balance", "protocols")]
    before = [(each.propagate, each.handlers[:]) for each in loggers]
    yield
    for logger, (propagate, handlers) in zip(loggers, before, strict=True):
        logger.propagate, logger.handlers[:] = propagate, handlers


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_is_taken(name: str) -> None:
    """Also what was once found to break something stays in the corpus."""
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) >= 3
    run = target(name)
    for path in inputs:
        try:
            run(path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path.relative_to(REPOSITORY)} is not handled") from error


@pytest.mark.slow
@pytest.mark.shows("operators-malformed-input")
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_guided_by_coverage(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.guided", name, "--runs", str(RUNS), "--kept", str(tmp_path)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, errors="replace", check=False)
    assert run.returncode == 0, run.stderr[-3000:] + run.stdout
    assert "nothing found" in run.stdout


def test_what_is_not_handled_is_found(tmp_path: Path) -> None:
    """Mutation: a target that takes nothing is found out by its first input."""
    program = (
        "import sys; from tests.fuzz import guided, targets; import tests.fuzz.targets.bulk as bulk\n"
        "bulk.run = lambda octets: 1 / 0\n"
        f"sys.argv = ['x', 'bulk', '--replay', {str(next((CORPUS / 'bulk').iterdir()))!r}]; sys.exit(guided.main())"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "ZeroDivisionError" in run.stderr
    assert run.returncode == 1
