"""The watchdog of one connection: RFC 3539 section 3.4.1, as RFC 6733 section 5.5.3 asks.

INITIAL and DOWN, the states without a connection, belong to whoever dials; here live the
states of a connection that is up:

    OKAY      in use
    SUSPECT   one DWR unanswered for a whole Tw: no new requests; pending ones go to an alternate
    REOPEN    up again after it was closed for silence: not used for requests until three DWAs came

The RFC throws away what arrives in REOPEN. That rule is for a client that chooses between
servers; requests that a peer sends us are served in every state, since dropping them would only
make the peer fail over.
"""

from enum import Enum
from random import Random
from typing import Final

JITTER_SECONDS: Final = 2.0
"""Each Tw lies within this of Twinit, so that the watchdogs of many peers do not fall into step."""
_DWAS_TO_REOPEN: Final = 3


class WatchdogState(Enum):
    """States of RFC 3539 3.4.1 in which there is a connection."""

    OKAY = "okay"
    SUSPECT = "suspect"
    REOPEN = "reopen"


class Verdict(Enum):
    """What the owner has to do after `expire`."""

    WAIT = "wait"
    SEND_DWR = "send DWR"
    FAIL_OVER = "fail over"
    CLOSE = "close"


_OKAY: Final = WatchdogState.OKAY


class Watchdog:
    """Decides from silence alone; sends nothing and reads no clock. Times are seconds of any steady clock."""

    __slots__ = ("_dwas", "_interval", "_random", "_set_at", "_tw", "pending", "state")

    def __init__(self, interval: float, random: Random, now: float, *, reopening: bool) -> None:
        """`interval` is Twinit in seconds; `reopening` says that the last connection was closed for silence."""
        self.state = WatchdogState.REOPEN if reopening else WatchdogState.OKAY
        self.pending = False
        self._interval = interval
        self._random = random
        self._dwas = 0
        self._set_at = now
        self._tw = 0.0
        if not reopening:  # in REOPEN the first DWR is due at once
            self._set(now)

    def _set(self, now: float) -> None:
        self._set_at = now
        self._tw = self._interval - JITTER_SECONDS + 2 * JITTER_SECONDS * self._random.random()

    def next_timeout(self) -> float:
        """When to call `expire` next."""
        return self._set_at + self._tw

    def heard(self, now: float) -> bool:
        """Something arrived. True: the connection is no longer suspect (Failback)."""
        state = self.state
        if state is _OKAY:
            self._set_at = now  # Tw is drawn anew when it expires: at this rate that is often enough
            return False
        if state is WatchdogState.REOPEN:
            return False
        self._set(now)
        self.state = WatchdogState.OKAY
        return True

    def answered(self, now: float) -> bool:
        """A DWA arrived, after `heard` was called for it. True: the connection may be used again (Failback)."""
        self.pending = False
        if self.state is not WatchdogState.REOPEN:
            return False
        self._dwas += 1
        if self._dwas < _DWAS_TO_REOPEN:
            return False
        self.state = WatchdogState.OKAY
        self._set(now)
        return True

    def probe(self, now: float) -> bool:
        """There is reason to doubt the connection. True: a DWR is to be sent at once; False: one is on its way."""
        if self.pending:
            return False
        self.pending = True
        self._set(now)
        return True

    def expire(self, now: float) -> Verdict:
        """Tw may be over."""
        if now < self.next_timeout():
            return Verdict.WAIT
        if not self.pending and self.state is not WatchdogState.SUSPECT:
            self.pending = True
            self._set(now)
            return Verdict.SEND_DWR
        if self.state is WatchdogState.OKAY:
            self.state = WatchdogState.SUSPECT
            self._set(now)
            return Verdict.FAIL_OVER
        if self.state is WatchdogState.REOPEN and self._dwas >= 0:
            self._dwas = -1
            self._set(now)
            return Verdict.WAIT
        return Verdict.CLOSE
