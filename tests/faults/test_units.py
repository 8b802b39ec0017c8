"""The systemd units: systemd understands them, and what they start is a command that there is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from occ.cli import app
from tests.faults.rig import REPOSITORY

UNITS = sorted((REPOSITORY / "config" / "systemd").iterdir())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """With paths that are there; an unknown key or a wrong value is a warning, and none may come."""
    for unit in UNITS:
        text = unit.read_text().replace("/opt/occ/.venv/bin/occ", sys.executable)
        (tmp_path / unit.name).write_text(text.replace("file:/opt/occ", f"file:{REPOSITORY}"))
    names = [unit.name.replace("@.", "@occ1.") for unit in UNITS]
    shutil.copy(tmp_path / "occ@.service", tmp_path / "occ@occ1.service")
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    complaints = [line for line in run.stderr.splitlines() if str(tmp_path) in line or "occ" in line.partition(":")[0]]
    assert complaints == []


def test_mistakes_in_a_unit_are_found(tmp_path: Path) -> None:
    """The test above can fail."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = next(unit for unit in UNITS if unit.name == "occ.service").read_text()
    unit = tmp_path / "occ.service"
    unit.write_text(text.replace("KillMode=mixed", "KillMode=gently").replace("/opt/occ/.venv/bin/occ", sys.executable))
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "kill mode" in run.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_a_unit_starts_is_there(unit: Path) -> None:
    """Options and commands are those of ``occ``; the server's Redis is not signalled beside it."""
    text = unit.read_text()
    for command in re.findall(r"/bin/occ --config \S+ (\w+(?: backup)?)(.*)", text):
        shown = CliRunner().invoke(app, [*command[0].split(), "--help"])
        assert shown.exit_code == 0
    if "serve" in text:
        assert "\nKillMode=mixed\n" in text
        assert "serve --store-data-dir /var/lib/occ" in text
        assert "\nRestart=on-failure\n" in text
