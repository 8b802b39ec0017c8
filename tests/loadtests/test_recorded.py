"""What is recorded of a quick run for later ones: ratios alone, of which run they are, and never half a file."""

import json
from pathlib import Path

import pytest

from loadtests import recorded
from loadtests.__main__ import main

FILE = Path(__file__).parent / "recorded.json"
FACTS = dict.fromkeys(recorded.FACTS, "of a test")
FIGURES = {
    "over_floor": 0.3,
    "rating_ratio": 1.5,
    "worker_cpu_us": 100.0,
    "redis_cpu_us": 20.0,
    "outbox_cpu_us": 25.0,
    "session_octets": 600.0,
    "idle_account_octets": 400.0,
}


def test_what_ci_compares_with_is_measured_and_says_where() -> None:
    """Several runs of one machine, which the file names: nothing in it is an absolute time."""
    runs = recorded.read(FILE)
    assert len(runs) >= 3
    for run in runs:
        assert set(run["ratios"]) == set(recorded.RATIOS)
        assert all(ratio > 0 for ratio in run["ratios"].values())
        assert all(run[fact] for fact in (*recorded.FACTS, "commit"))
        assert set(run) == {*recorded.FACTS, "commit", "ratios"}
    assert set(recorded.medians(FILE)) == set(recorded.RATIOS)


def test_runs_are_added_and_the_oldest_go(tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    for number in range(1, recorded.RUNS + 3):
        recorded.add(file, (FIGURES | {"over_floor": number / 10}).__getitem__, FACTS)
    runs = recorded.read(file)
    assert [run["ratios"]["over_floor"] for run in runs] == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert recorded.medians(file) == {
        "over_floor": 0.5,
        "rating_ratio": 1.5,
        "worker_over_redis": 5.0,
        "outbox_over_worker": 0.25,
        "session_over_account": 1.5,
    }
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": 1}', '{"runs": [1]}', '{"over_floor": 0.25}'])
def test_a_file_that_is_something_else_is_told_before_the_run_and_left_alone(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.json"
    file.write_text(text, encoding="utf-8")
    assert main(["--quick", "--record", str(file), "--directory", str(tmp_path)]) == 1
    assert "is no record of runs" in " ".join(capsys.readouterr().out.split())
    assert file.read_text(encoding="utf-8") == text


def test_no_run_is_no_ratio(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        recorded.medians(tmp_path / "none.json")


def test_only_quick_runs_are_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--record", "recorded.json"])
    assert "--record is for --quick" in capsys.readouterr().err


def test_a_record_is_json_for_people(tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    recorded.add(file, FIGURES.__getitem__, FACTS)
    text = file.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
