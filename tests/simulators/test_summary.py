"""Counters, percentiles and the summary of a simulation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.summary import Statistics, percentile


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.95, 95), (0.99, 99), (0.999, 100), (1.0, 100)]
)
def test_nearest_rank_percentiles_of_one_to_a_hundred(share: float, value: int) -> None:
    assert percentile(list(range(1, 101)), share) == value


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 0.999]))
def test_a_percentile_is_a_value_that_its_share_does_not_exceed(values: list[int], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) < share * len(ordered)


def test_no_values_give_zero() -> None:
    assert percentile([], 0.99) == 0
    assert Statistics().latency().max_ms == 0


def test_summary_says_what_was_counted() -> None:
    statistics = Statistics()
    statistics.requests, statistics.sessions, statistics.grants = 4, 2, 3
    statistics.refusals[4012] += 1
    for milliseconds in (1, 2, 3, 40):
        statistics.answered(milliseconds / 1000)
    summary = statistics.summary(seconds=2.0, debited_micro=90_000, uncertain_micro=0)
    assert (summary.requests, summary.answers, summary.sessions, summary.grants) == (4, 4, 2, 3)
    assert (summary.latency.p50_ms, summary.latency.p95_ms, summary.latency.max_ms) == (2, 40, 40)
    plain = json.loads(json.dumps(summary.as_dict()))
    assert plain["refusals"] == {"4012": 1}
    assert plain["debited_micro"] == 90_000
