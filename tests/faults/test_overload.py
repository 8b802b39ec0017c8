"""Three times as many requests as a real server can carry out, for a few seconds: who is refused, and what is left.

Ratios and counts only: how fast the machine is, and what else it does, must not matter. `python -m loadtests.overload`
measures it in full.

What makes it fail, each taken away alone:

- ``_hold`` in ``Admission.take``, so that everything is begun as it is read: the in-flight bound turns away whoever
  comes, updates among them, and answers take seconds;
- the order of queues in ``Admission._turn``: updates wait behind initial requests until they are refused;
- ``_let_go``: requests under way are miscounted, and nothing is begun any more after the overload.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Note = Callable[[str, object], None]

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 240


@pytest.mark.slow
@pytest.mark.promise("Under three times the load it can carry, a server refuses new sessions, not running ones")
def test_overload(tmp_path: Path, record_property: Note) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "loadtests.overload", "--quick", "--json", "figures.json", "--directory", str(tmp_path)],
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
    assert figures["errors"] == figures["discrepancies"] == figures["disagreement_micro"] == 0
    # It was an overload, and what was refused was new.
    assert figures["sent"] > 1.5 * figures["maximum"]
    assert figures["refused_initial"] > figures["sent"] / 4
    assert figures["refused_update"] <= figures["refused_initial"] / 100
    assert figures["refused_termination"] == 0
    # It goes on with its work, keeps its size, and recovers.
    # What else the machine does may differ between maximum and overload: by the clock, or by the CPU that was had.
    assert max(figures["goodput_ratio"], figures["goodput_ratio_cpu"]) > 0.3
    assert figures["resident_end"] < 1.2 * figures["resident_settled"]
    assert figures["refused_after"] <= figures["sent_after"] / 20
    record_property(
        "figures",
        f"{figures['goodput_ratio']:.0%} of the maximum carried out, {figures['refused_initial']:.0f} initial requests "
        f"refused, {figures['refused_update']:.0f} updates, {figures['refused_termination']:.0f} terminations",
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "figures.json"]
