"""What is answered while the store cannot be reached, as metric families."""

from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from balance.model import MICRO
from occ.away import Away
from occ.away_grants import Refused
from occ.away_settling import Result


class AwayCollector(Collector):
    """Figures of one worker. ``clock``: ms since the Unix epoch; ``currency``: its letters. Any thread may ask.

    ``away`` gives nothing while the process that this one replaces still has the journal.
    """

    def __init__(self, away: Callable[[], Away | None], clock: Callable[[], int], currency: str) -> None:
        self._away = away
        self._clock = clock
        self._currency = currency

    def collect(self) -> Iterable[Metric]:
        away = self._away()
        if away is None:
            return
        statistics = away.statistics
        outage = away.outage
        lasts_s = 0.0 if outage is None else max(0, self._clock() - outage.began_ms) / 1000
        yield GaugeMetricFamily(
            "occ_away_granting", "Whether services are granted from the journal on disk: 1 or 0", int(away.is_granting)
        )
        yield GaugeMetricFamily(
            "occ_away_outage_seconds", "Since the store was lost, until all is settled; 0: it is there", lasts_s
        )
        yield GaugeMetricFamily("occ_away_entries_waiting", "Requests in the journal to be settled", statistics.waiting)
        yield GaugeMetricFamily("occ_away_journal_bytes", "Size of the journal", away.journal_octets)
        yield CounterMetricFamily("occ_away_outages", "Times the store was lost", statistics.outages)
        yield CounterMetricFamily("occ_away_answers", "Requests answered from the journal", statistics.answered)
        grants = CounterMetricFamily("occ_away_grants", "Grants from the journal", labels=["service"])
        units = CounterMetricFamily("occ_away_granted_units", "Units granted from the journal", labels=["service"])
        for service in sorted({*away.services, *statistics.grants.copy()}):
            grants.add_metric([service], statistics.grants[service])
            units.add_metric([service], statistics.units[service])
        yield grants
        yield units
        refused = CounterMetricFamily(
            "occ_away_refused", "Grants that were refused while the store was away", labels=["reason"]
        )
        for reason in Refused:
            refused.add_metric([reason.value], statistics.refused[reason])
        yield refused
        settled = CounterMetricFamily(
            "occ_away_settled", "Requests in the journal, by what became of them", labels=["result"]
        )
        for result in Result:
            if result is not Result.NOT_YET:
                settled.add_metric([result.value], statistics.settled[result])
        yield settled
        leaked = CounterMetricFamily(
            "occ_away_leaked", "Price of what was answered from the journal and no balance covered", labels=["currency"]
        )
        leaked.add_metric([self._currency], statistics.leaked_micro / MICRO)
        yield leaked
