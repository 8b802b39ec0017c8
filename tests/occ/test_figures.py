"""What ``occ top`` makes of the metrics of servers."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from occ.figures import Between, Figures, added, figures, read_metrics

EARLIER = """
# HELP occ_requests_total Credit-control requests answered
occ_requests_total{type="initial",result="2001"} 10.0
occ_requests_total{type="update",result="4012"} 1.0
occ_request_seconds_bucket{le="0.01",type="initial"} 5.0
occ_request_seconds_bucket{le="0.1",type="initial"} 10.0
occ_request_seconds_bucket{le="+Inf",type="initial"} 10.0
occ_money_debited_total{currency="EUR"} 1.5
occ_open_sessions 3.0
"""
LATER = """
occ_requests_total{type="initial",result="2001"} 28.0
occ_requests_total{type="update",result="4012"} 3.0
occ_request_seconds_bucket{le="0.01",type="initial"} 14.0
occ_request_seconds_bucket{le="0.1",type="initial"} 19.0
occ_request_seconds_bucket{le="+Inf",type="initial"} 20.0
occ_money_debited_total{currency="EUR"} 2.0
occ_open_sessions 5.0
"""


def between(earlier: list[str], later: list[str]) -> Figures:
    return figures(Between(added(10.0, map(read_metrics, earlier)), added(12.0, map(read_metrics, later))))


def test_rates_percentiles_and_totals() -> None:
    made = between([EARLIER], [LATER])
    assert made.requests_s == {"initial": 9.0, "update": 1.0}
    assert made.refusals == [("4012", 1.0, 3.0)]
    assert made.refused_share == pytest.approx(0.1)
    assert made.latency_s == {"50": 0.01, "95": math.inf, "99": math.inf}
    assert made.money_minute == {"EUR": 15.0}
    assert made.sessions == 5


def test_several_servers_add_up() -> None:
    one, two = between([EARLIER], [LATER]), between([EARLIER, EARLIER], [LATER, LATER])
    assert two.requests_s == {kind: 2 * rate for kind, rate in one.requests_s.items()}
    assert two.latency_s == one.latency_s
    assert two.sessions == one.sessions, "each tells those of the whole store"


def test_a_server_that_was_started_anew_counts_from_zero() -> None:
    made = between([LATER], [EARLIER])
    assert made.requests_s == {"initial": 5.0, "update": 0.5}


def test_nothing_happened() -> None:
    made = between([LATER], [LATER])
    assert made.latency_s == {"50": None, "95": None, "99": None}
    assert made.refused_share == 0


def test_the_text_format_is_read_as_prometheus_reads_it() -> None:
    text = 'a{b="x\\"y,z",c="1"} 1e3\na_total 2\n# TYPE d gauge\nd{} +Inf\n'
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    ours = {(name, tuple((key, value.replace('\\"', '"')) for key, value in labels)): number
            for (name, labels), number in read_metrics(text).items()}  # fmt: skip
    assert ours == theirs
    with pytest.raises(ValueError, match="no sample"):
        read_metrics("<html>")
