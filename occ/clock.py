"""The one clock: everything else is given ``now``."""

from time import time_ns


def now_ms() -> int:
    """Milliseconds since the Unix epoch, UTC."""
    return time_ns() // 1_000_000
