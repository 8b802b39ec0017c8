"""How long to wait: between attempts, and between messages of a channel."""

from collections.abc import Callable

from occ.notices.settings import RetrySettings


def backoff_ms(attempts: int, settings: RetrySettings, random: Callable[[], float]) -> int:
    """How long after the last of so many attempts the next one is.

    Twice as long each time, up to a bound; ``random``, from 0 to 1, takes up to half of it away, so that what failed
    together does not come back together.
    """
    doubled = settings.first_seconds * 1000 * (1 << min(attempts - 1, 30))
    longest = min(doubled, settings.longest_seconds * 1000)
    return longest - int(random() * longest) // 2


class Pacer:
    """Lets so many messages begin per second, evenly. Times are those of the event loop, in seconds."""

    def __init__(self, per_second: int) -> None:
        self._interval_s = 1.0 / per_second
        self._next_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long the next message has to wait from now on; it counts as begun then."""
        begins_s = max(now_s, self._next_s)
        self._next_s = begins_s + self._interval_s
        return begins_s - now_s

    def close_for(self, seconds: float, now_s: float) -> None:
        """Let none begin for a while."""
        self._next_s = max(self._next_s, now_s + seconds)
