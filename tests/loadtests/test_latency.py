"""Latencies of a load test: what the histogram keeps of them, and what its parts tell of a single stall."""

from array import array
from random import Random
from statistics import median

import pytest

from loadtests import latency
from loadtests.latency import HIGHEST_US, PARTS, Latencies, LatencyError, distribution, merged
from simulators.summary import percentile

HdrHistogram = pytest.importorskip("hdrh.histogram", reason="hdrhistogram is not installed").HdrHistogram


@pytest.mark.parametrize("seed", range(5))
def test_every_percentile_is_within_a_thousandth_of_the_exact_one(seed: int) -> None:
    random = Random(seed)
    samples = array("L", (int(random.lognormvariate(7, 2)) for _ in range(20_000)))
    found = distribution(samples)
    ordered = sorted(samples)
    for share, found_ms in found["percentiles_ms"].items():
        exact = percentile(ordered, float(share) / 100)
        assert exact <= round(found_ms * 1000) <= exact * 1.001 + 1, share
    assert found["samples"] == len(samples)
    assert max(samples) <= round(found["max_ms"] * 1000) <= max(samples) * 1.001


def test_the_histogram_is_one_that_others_read() -> None:
    """HdrHistogram's compressed encoding: the same counts come out of it, so runs can be compared and added up."""
    found = distribution(array("L", [900, 1_000, 1_000, 25_000_000]))
    read = HdrHistogram.decode(found["histogram"]["base64"])
    assert read.get_total_count() == 4
    assert read.get_count_at_value(1_000) == 2
    assert read.get_value_at_percentile(50) == 1_000
    assert (read.lowest_trackable_value, read.highest_trackable_value) == (1, HIGHEST_US)
    assert read.significant_figures == found["histogram"]["significant_digits"] == 3


def test_what_takes_longer_than_a_minute_is_counted_and_nothing_is_lost() -> None:
    found = distribution(array("L", [0, 2 * HIGHEST_US]))
    assert found["samples"] == 2
    assert found["max_ms"] == pytest.approx(HIGHEST_US / 1000, rel=0.001)


def test_no_samples_are_no_error() -> None:
    found = distribution(array("L"))
    assert (found["samples"], found["max_ms"], set(found["percentiles_ms"].values())) == (0, 0, {0})


def test_a_single_stall_is_in_the_whole_and_in_one_part() -> None:
    """Open loop: all that was due while the disk stood still waits, and each counts from when it was due."""
    latencies = Latencies()
    began_at, stalled_from, stalled_to = 1_000.0, 1_003.0, 1_003.6
    for number in range(10_000):
        due = began_at + number / 1_000
        latencies.add_due(due)
        latencies.add_answered((stalled_to if stalled_from <= due < stalled_to else due) + 0.002)
    found = latencies.result(began_at, 10.0)
    parts = [part["percentiles_ms"]["99"] for part in found["parts"]]
    assert [part["samples"] for part in found["parts"]] == [10_000 // PARTS] * PARTS
    assert found["percentiles_ms"]["99"] > 400
    assert [part > 10 for part in parts] == [False, True, False, False, False]
    assert median(parts) < 2.1


def test_turns_are_added_up_to_what_they_are_together() -> None:
    turns = [array("L", range(first, 30_000, 7)) for first in (100, 20_000, 5)]
    together = distribution(array("L", [each for turn in turns for each in turn]))
    found = merged([distribution(turn) | {"parts": []} for turn in turns])
    assert {name: found[name] for name in together} == together
    assert [part["samples"] for part in found["parts"]] == [len(turn) for turn in turns]
    assert all(set(part) == {"samples", "percentiles_ms", "max_ms"} for part in found["parts"])


def test_a_missing_library_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "HdrHistogram", None)
    with pytest.raises(LatencyError, match="pip install hdrhistogram"):
        latency.require_histograms()
