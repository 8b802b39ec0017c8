"""`python -m loadtests.policies --quick`: every session concerned is asked and no other, whatever the speed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.policies import LABELS, QUICK, is_fast_enough, is_sound

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 120


@pytest.mark.slow
def test_a_quick_run_asks_every_session_concerned_and_no_other(tmp_path: Path) -> None:
    """Never how fast."""
    result = subprocess.run(
        [sys.executable, "-m", "loadtests.policies", "--quick", "--json", "figures.json", "--directory", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["figures"]
    assert set(figures) == set(LABELS)
    assert figures["asked_sessions"] == figures["concerned_sessions"] == 2 * QUICK.pushed
    assert figures["asked_in_vain"] == figures["errors"] == figures["discrepancies"] == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "figures.json"]


def test_what_is_sound_and_what_is_fast_enough() -> None:
    good = dict.fromkeys(LABELS, 0.0) | {"concerned_sessions": 4.0, "asked_sessions": 4.0, "slowed_answers": 4.0}
    good |= {"push_p99_ms": 1000.0, "charging_p99_without_ms": 10.0, "charging_p99_during_ms": 20.0}
    assert is_sound(good)
    assert is_fast_enough(good)
    for key in ("asked_in_vain", "transitions_left", "discrepancies", "errors"):
        assert not is_sound(good | {key: 1.0}), key
    assert not is_sound(good | {"asked_sessions": 3.0})
    assert not is_sound(good | {"slowed_answers": 3.0})
    assert not is_fast_enough(good | {"push_p99_ms": 1001.0})
    assert not is_fast_enough(good | {"charging_p99_during_ms": 21.0})
