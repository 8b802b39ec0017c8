"""`python -m loadtests.bulk` from end to end: what was imported comes out, and nothing is done twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.bulk import ROWS_AN_ACCOUNT

REPOSITORY = Path(__file__).parents[2]
ACCOUNTS = 300
PATIENCE_S = 240


@pytest.mark.slow
def test_a_small_run_is_sound(tmp_path: Path) -> None:
    """Never how fast: only that control totals agree, and that what is there already stays as it is."""
    options = ["--accounts", str(ACCOUNTS), "--json", "figures.json", "--directory", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-m", "loadtests.bulk", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert written["faults"] == []
    assert len(written["steps"]) == 8
    for step in written["steps"]:
        assert step["rows"] == ROWS_AN_ACCOUNT * ACCOUNTS
        assert step["wall_s"] > 0
        assert step["command_cpu_s"] > 0
    totals = {row["label"]: (row["before"], row["accepted"], row["after"]) for row in written["totals"]}
    assert totals["prepaid accounts, active"] == (0, 222, 222)
    assert totals["postpaid accounts, active"] == (0, 75, 75)
    assert totals["subscribers"] == (0, ACCOUNTS, ACCOUNTS)
    debt = sum((number % 50) * 1_000_000 + 250_000 for number in range(4, ACCOUNTS + 1, 4))
    assert totals["debt EUR"] == (0, debt, debt)
    assert list(tmp_path.iterdir()) == [tmp_path / "figures.json"]
