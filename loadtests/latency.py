"""Latencies of an interval as HDR histograms: of all of it, and of equal parts of it.

They are recorded when the interval is over, from arrays that took two moments for each answer meanwhile. A histogram
keeps three significant digits from a microsecond to a minute: every percentile is at most a thousandth above the
exact one, and histograms of several runs can be added up (HdrHistogram's compressed encoding, V2, base64; any of its
implementations reads it).
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

try:
    from hdrh.histogram import HdrHistogram
except ImportError:  # where what is for development was not installed, or has no wheel
    HdrHistogram = None

LOWEST_US: Final = 1
HIGHEST_US: Final = 60_000_000
"""What took longer counts as this."""
SIGNIFICANT_DIGITS: Final = 3
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
PARTS: Final = 5
"""An interval is looked at in so many equal parts, too: a single stall of the disk is in one or two of them."""


class LatencyError(Exception):
    """Latencies cannot be recorded; one sentence says why."""


def require_histograms() -> None:
    """Raises LatencyError where the library is missing: better before the load than after it."""
    if HdrHistogram is None:
        raise LatencyError(
            "latencies are recorded with hdrhistogram, which is not installed: pip install hdrhistogram (it needs a C "
            "compiler where there is no wheel for the machine)"
        )


def distribution(latencies_us: "array[int]") -> dict[str, Any]:
    """What these latencies, whole microseconds, come to, as plain data for JSON.

    ``samples``; ``percentiles_ms`` by percentile, "50" to "99.99"; ``max_ms``; and the ``histogram`` that they are read
    from, with its bounds. Raises LatencyError.
    """
    require_histograms()
    histogram = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
    for latency_us, count in Counter(latencies_us).items():
        histogram.record_value(min(latency_us, HIGHEST_US), count)
    return _as_data(histogram)


def merged(intervals: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Distributions of several intervals as one, with theirs as ``parts``, without their histograms."""
    histogram = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
    for each in intervals:
        histogram.add(HdrHistogram.decode(each["histogram"]["base64"]))
    outer = ("histogram", "parts")
    parts = [{name: value for name, value in each.items() if name not in outer} for each in intervals]
    return _as_data(histogram) | {"parts": parts}


def _as_data(histogram: Any) -> dict[str, Any]:
    samples = histogram.get_total_count()
    found = histogram.get_percentile_to_value_dict(PERCENTILES) if samples else {}
    return {
        "samples": samples,
        "percentiles_ms": {f"{each:g}": found.get(each, 0) / 1000 for each in PERCENTILES},
        "max_ms": histogram.get_max_value() / 1000,
        "histogram": {
            "lowest_us": LOWEST_US,
            "highest_us": HIGHEST_US,
            "significant_digits": SIGNIFICANT_DIGITS,
            "base64": histogram.encode().decode("ascii"),
        },
    }


class Latencies:
    """The answers of one measured interval, in the order in which they came."""

    __slots__ = ("_answered_at", "_due_at", "add_answered", "add_due")

    def __init__(self) -> None:
        self._due_at = array("d")
        self._answered_at = array("d")
        self.add_due = self._due_at.append
        """When a request should have left, seconds of the generator's clock. To be followed at once by ..."""
        self.add_answered = self._answered_at.append
        """... when its answer came."""

    def result(self, began_at: float, seconds: float) -> dict[str, Any]:
        """The distribution of the whole interval, and as ``parts`` those of its parts, without their histograms.

        ``began_at``: by the same clock; a request belongs to the part in which it was due. Raises LatencyError.
        """
        pairs = zip(self._due_at, self._answered_at, strict=True)
        latencies = array("L", (int((at - due) * 1e6) for due, at in pairs))
        parts = [array("L") for _ in range(PARTS)]
        for due, latency_us in zip(self._due_at, latencies, strict=True):
            parts[min(PARTS - 1, max(0, int((due - began_at) / seconds * PARTS)))].append(latency_us)
        found = [distribution(part) for part in parts]
        for each in found:
            del each["histogram"]
        return distribution(latencies) | {"parts": found}
