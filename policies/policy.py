"""``Policies``: one rules file in force. What an account is at, what becomes of a service, what is to be told.

Pure: everything follows from an account's snapshot and a moment. What is asked for at every request is remembered by
what it depends on, so that rules cost a look-up.
"""

from dataclasses import dataclass, field
from typing import Final

from balance.model import Account
from policies.counters import Counter, CounterStatus
from policies.levels import LIFE_LEVELS, Level, levels_of
from policies.rules import AS_PRICED, Access, Case, Decision, Rule, Throttle

REMEMBERED: Final = 65_536
"""Decisions kept at most."""


@dataclass(slots=True)
class Policies:
    """Rules in force. See ``policies.rules`` for the order in which they are read."""

    edition: str
    """Which file this is: a digest of its text."""
    levels: tuple[Level, ...] = LIFE_LEVELS
    rules: tuple[Rule, ...] = ()
    throttles: dict[str, Throttle] = field(default_factory=dict)
    counters: tuple[Counter, ...] = ()
    _decisions: dict[tuple[Case, tuple[str, ...], tuple[bool, ...]], Decision] = field(default_factory=dict)

    def levels_of(self, account: Account, at_ms: int) -> tuple[str, ...]:
        """The levels that an account is at; ``account.levels`` are those that it was at before."""
        return levels_of(self.levels, account, at_ms)

    def decide(self, case: Case, levels: tuple[str, ...], at_ms: int) -> Decision:
        """What becomes of a service now."""
        return AS_PRICED

    def changes_ms(self, at_ms: int) -> int:
        """The next moment at which a window of a rule begins or ends; 0: there is none."""
        return 0

    def room(self, case: Case, account: Account, at_ms: int) -> tuple[int | None, int | None]:
        """How far an account is from where this service's decision changes: money, micro-units; units of the service.

        None: nothing changes, however much is used. What is reserved is not taken off.
        """
        return None, None


__all__ = ["Access", "Policies"]
