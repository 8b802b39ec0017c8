"""``occ why`` from the records alone: everything that had a say in a price is named."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from occ.cdr_files import CdrFiles, CdrSettings
from occ.cli import app
from protocols.credit_control import ServiceRequest, Units
from tests.occ.cdr_lab import HOUR, INITIAL, NOON, TERMINATION, UPDATE, Ledger, catalogue, delivery, octets

TIERS = "{tiers: [{up_to: 10 B, price: 0.000010 per 1 B}, {price: 0.000004 per 1 B}], counted: session}"
BANDS = "{08:00: 0.000001 per 1 B, 20:00: 0.000005 per 10 B}"
PROMOTION = "promotions:\n  - {name: late, discount: 50 %, happy_hour: {days: Mo-Su, from: 20:00, to: 23:00}}\n"


def why(directory: Path, ledger: Ledger, session: str = "s") -> str:
    """What is said of a session whose records the ledger has; no server runs."""
    files = CdrFiles(CdrSettings(directory / "data" / "cdr"))
    for number, fields in enumerate(ledger.records, 1):
        files.write([delivery(number, fields)], ledger.now)
    files.seal(ledger.now, everything=True)
    files.close()
    (directory / "occ.yaml").write_text("store: {data_dir: data}\n")
    result = CliRunner().invoke(app, ["--config", str(directory / "occ.yaml"), "why", session])
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def used_over_the_evening(ledger: Ledger) -> Ledger:
    """12 octets before 20:00, 5 after."""
    ledger.now = NOON + 7 * HOUR + HOUR // 2
    wanted = Units(total_octets=100)
    ledger.send(INITIAL, 0, ServiceRequest(20, (), wanted))
    ledger.now += HOUR // 4
    ledger.send(UPDATE, 1, ServiceRequest(20, (), wanted, octets(12)))
    ledger.now += HOUR // 2
    ledger.send(TERMINATION, 2, ServiceRequest(20, (), None, (Units(total_octets=5, tariff_change_usage=1),)))
    return ledger


def test_tariff_tiers_promotions_and_buckets(tmp_path: Path) -> None:
    told = why(tmp_path, used_over_the_evening(Ledger(sold=catalogue(video=TIERS, more=PROMOTION))))
    assert "chosen by plan standard, Rating-Group 20" in told
    assert "(catalogue v1)" in told
    assert "tiers up to 10 B, beyond 10 B" in told
    assert "promotions late" in told
    assert "less 50 %" in told
    assert "from bucket 1" in told
    assert "policy no rule had a say" in told


def test_time_bands_and_allowances(tmp_path: Path) -> None:
    told = why(tmp_path, used_over_the_evening(Ledger(sold=catalogue(video=BANDS), allowance=4)))
    assert "time band Mo-Su 20:00-08:00" in told or "time band 20:00" in told, told
    assert "4 B out of buckets" in told
    assert "4 B from bucket 2" in told
    assert "promotions none applied" in told


@pytest.mark.parametrize("name", ["s", "nothing"])
def test_one_that_is_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "occ.yaml").write_text("store: {data_dir: data}\n")
    result = CliRunner().invoke(app, ["--config", str(tmp_path / "occ.yaml"), "why", name])
    assert result.exit_code == 1
    assert f"there is no charging data record of {name}" in result.stderr
