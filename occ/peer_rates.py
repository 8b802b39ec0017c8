"""How many requests a second each Diameter peer may send: token buckets, in integers.

A bucket holds the tokens of one second. A request of a running session takes one while there is one; a first request
(initial or event) only while the bucket is more than half full. So a peer that sends too much is refused new sessions
before it is refused the end of old ones.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

_TOKEN: Final = 1_000_000_000
"""A token in the unit in which they are counted: at one token per second, one unit comes per nanosecond."""

PEERS_REMEMBERED: Final = 10_000
"""Identities with a bucket; the oldest are forgotten, and begin anew with a full one."""
PEERS_COUNTED: Final = 1_000
OTHER_PEERS: Final = "other"
"""Stands for peers beyond those, which are not counted apart."""


class Bucket:
    """The tokens of one peer. Time is in nanoseconds of any clock that never steps back."""

    __slots__ = ("_at_ns", "_full", "_rate", "_units")

    def __init__(self, per_second: int, now_ns: int) -> None:
        self._rate = per_second
        self._full = per_second * _TOKEN
        self._units = self._full
        self._at_ns = now_ns

    def take(self, is_first: bool, now_ns: int) -> bool:
        """Whether a request may pass now; its token is taken then."""
        units = min(self._full, self._units + (now_ns - self._at_ns) * self._rate)
        self._at_ns = now_ns
        passes = units >= _TOKEN and (not is_first or 2 * (units - _TOKEN) >= self._full or self._full == _TOKEN)
        self._units = units - _TOKEN if passes else units
        return passes


class PeerRates:
    """The rates of all peers of one server."""

    def __init__(self, default: int | None, by_identity: Mapping[str, int]) -> None:
        """Requests per second: of a peer, and of those that have a rate of their own; None: as many as they like."""
        self._default = default
        self._by_identity = {identity.lower(): rate for identity, rate in by_identity.items()}
        self._buckets: dict[str, Bucket | None] = {}
        self.refused: Counter[str] = Counter()
        """Requests turned away by the peer's identity."""

    @property
    def limited(self) -> bool:
        """Whether any peer is."""
        return self._default is not None or bool(self._by_identity)

    def take(self, origin_host: str, is_first: bool, now_ns: int) -> bool:
        """Whether a request of that peer may pass. One that may not is counted."""
        try:
            bucket = self._buckets[origin_host]
        except KeyError:
            bucket = self._new_bucket(origin_host, now_ns)
        if bucket is None or bucket.take(is_first, now_ns):
            return True
        name = origin_host if origin_host in self.refused or len(self.refused) < PEERS_COUNTED else OTHER_PEERS
        self.refused[name] += 1
        return False

    def _new_bucket(self, origin_host: str, now_ns: int) -> Bucket | None:
        """A peer writes its name as it likes, and has one bucket all the same."""
        name = origin_host.lower()
        if name not in self._buckets:
            rate = self._by_identity.get(name, self._default)
            self._buckets[name] = None if rate is None else Bucket(rate, now_ns)
            if rate is not None and len(self.refused) < PEERS_COUNTED:
                self.refused[origin_host] += 0  # told from the beginning, so that its first rise is seen
        self._buckets[origin_host] = self._buckets[name]
        while len(self._buckets) > PEERS_REMEMBERED:
            self._buckets.pop(next(iter(self._buckets)))
        return self._buckets[origin_host]
