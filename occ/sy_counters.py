"""How policy counters stand, and whether that is news to a PCRF (3GPP TS 29.219 clauses 4.5.2 and 5.3). Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

from balance.accounts import Account
from balance.model import LifeState, Subscriber
from balance.subscriptions import Subscription, Told
from policies.counters import CounterStatus
from protocols.spending_limits import CounterReport

DELAY_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class CounterSource(Protocol):
    """Where policy counters come from."""

    def counters(self, account: Account, subscriber: Subscriber, now_ms: int) -> dict[str, CounterStatus]:
        """Every policy counter that the account has for the subscriber, by its Policy-Counter-Identifier."""

    def known(self) -> Collection[str]:
        """The names of all counters there are, whichever accounts have them."""


class NoCounters:
    """A source that has no counter: every subscription is refused."""

    def counters(self, account: Account, subscriber: Subscriber, now_ms: int) -> dict[str, CounterStatus]:  # noqa: ARG002
        return {}

    def known(self) -> Collection[str]:
        return ()


@dataclass(slots=True)
class SyStatistics:
    """Counted since this worker started."""

    subscriptions: int = 0
    """In the store, of all workers, when this one last wrote any."""
    in_flight: int = 0
    """Requests of PCRFs that are being answered."""
    answers: dict[tuple[str, int], int] = field(default_factory=dict)
    """(command, Result-Code or Experimental-Result-Code) -> answers; the command is "SLR" or "STR"."""
    sent: int = 0
    """SNRs, repeats apart."""
    repeats: int = 0
    """Messages sent again, by whatever way."""
    results: dict[str, int] = field(default_factory=dict)
    """What SNRs came to: value of ``occ.sy_notifications.Result`` -> how many subscriptions."""
    delays: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BOUNDS_S) + 1))
    """Time from the change of an account to its first SNR, by ``DELAY_BOUNDS_S``."""
    delay_seconds: float = 0.0

    def answered(self, command: str, code: int) -> None:
        key = (command, int(code))
        self.answers[key] = self.answers.get(key, 0) + 1

    def came_to(self, result: str) -> None:
        self.results[result] = self.results.get(result, 0) + 1

    def delayed(self, seconds: float) -> None:
        self.delays[sum(seconds > bound for bound in DELAY_BOUNDS_S)] += 1
        self.delay_seconds += max(0.0, seconds)


def is_gone(account: Account | None, subscriber: Subscriber | None) -> bool:
    """Whether there is nobody (any more) of whom anything could be told."""
    return (
        account is None
        or subscriber is None
        or account.state == LifeState.TERMINATED
        or subscriber.state == LifeState.TERMINATED
        or account.out_of_service.get(subscriber.subscriber_id) == LifeState.TERMINATED
    )


def standing(source: CounterSource, account: Account, subscriber: Subscriber, now_ms: int) -> Told:
    """How all counters of a subscriber stand at a moment."""
    found = source.counters(account, subscriber, now_ms)
    return as_of({name: (each.status, each.pending) for name, each in found.items()}, now_ms)


def as_of(told: Told, now_ms: int) -> Told:
    """What somebody who was told so knows at a moment: pending statuses have taken effect by themselves."""
    return {name: _status_at(status, pending, now_ms) for name, (status, pending) in told.items()}


def _status_at(
    status: str, pending: tuple[tuple[str, int], ...], now_ms: int
) -> tuple[str, tuple[tuple[str, int], ...]]:
    in_order = sorted(pending, key=lambda each: each[1])
    for later, from_ms in in_order:
        if from_ms <= now_ms:
            status = later
    return status, tuple((later, from_ms) for later, from_ms in in_order if from_ms > now_ms)


def news(subscription: Subscription, current: Told, now_ms: int) -> Told:
    """The counters it wants to hear of that stand otherwise than it was told, or of which it was told nothing."""
    knows = as_of(subscription.told, now_ms)
    return {name: each for name, each in current.items() if subscription.wants(name) and knows.get(name) != each}


def reports(told: Told) -> tuple[CounterReport, ...]:
    """As it is sent. Times are whole seconds on the wire: no status begins before its time."""
    return tuple(
        CounterReport(name, status, tuple((later, -(-from_ms // 1000)) for later, from_ms in pending))
        for name, (status, pending) in sorted(told.items())
    )
