"""Policy counters of Sy as the rules in force have them (TS 29.219)."""

from collections.abc import Collection

from balance.accounts import Account
from balance.model import Subscriber
from occ.charging import Charging
from occ.rules import OperatorPolicies
from policies.counters import CounterStatus


class RuleCounters:
    """A ``CounterSource`` (``occ.sy_counters``): whatever rules a server goes by, it knows their counters."""

    def __init__(self, charging: Charging) -> None:
        self._charging = charging

    def counters(self, account: Account, subscriber: Subscriber, now_ms: int) -> dict[str, CounterStatus]:  # noqa: ARG002
        """Every counter that the account has, whoever of its subscribers is asked about."""
        rules = self._rules()
        return {} if rules is None else rules.policies.statuses(account, now_ms)

    def known(self) -> Collection[str]:
        """The names of all counters there are."""
        rules = self._rules()
        return () if rules is None else tuple(counter.name for counter in rules.policies.counters)

    def _rules(self) -> OperatorPolicies | None:
        return self._charging.rules.policies
