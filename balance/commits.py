"""The script call of a commit: plans put into the order in which ``scripts/commit.lua`` reads them."""

from typing import Final

from balance.accounts import Session
from balance.keys import Keys
from balance.plans import Plan
from balance.records import pack_session, pack_version
from balance.requests import encoded, number

LANE_KEYS: Final = 3
"""Keys of the script that belong to the lane: journal, expiry index, outbox."""
PLAN_ARGUMENTS: Final = 3
"""Arguments of the script for each plan: expected version, value, journal record."""
LISTS: Final = (
    ("first", 1),
    ("ended", 3),
    ("opened", 2),
    ("closed", 2),
    ("wakes", 3),
    ("records", 2),
    ("spent", 3),
    ("transitions", 2),
)
"""The script's lists, in order, with the number of arguments of each item."""
OWN_KEYS: Final = frozenset(("first", "ended", "opened", "closed"))
"""Of these lists each item has a key of its own; others have one key at most, for all items."""


class _List:
    """One of the script's lists."""

    __slots__ = ("count", "items", "keys")

    def __init__(self) -> None:
        self.count = 0
        self.keys: list[bytes] = []
        self.items: list[bytes] = []


class CommitCall:
    """One call of the script, put together plan by plan."""

    __slots__ = (
        "_accounts", "_closed", "_count", "_ended", "_first", "_keys", "_opened", "_plans", "_records", "_spent",
        "_transitions", "_wakes",
    )  # fmt: skip

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._count = 0
        self._accounts: list[bytes] = []
        self._plans: list[bytes] = []
        self._first = _List()
        self._ended = _List()
        self._opened = _List()
        self._closed = _List()
        self._wakes = _List()
        self._records = _List()
        self._spent = _List()
        self._transitions = _List()

    def add(self, account_id: bytes, account_key: bytes, plan: Plan, value: bytes) -> None:
        """One more plan. ``value``: its account as it is going to be stored, empty if the plan leaves it as it is.

        Raises OverflowError, TypeError or ValueError for what cannot be packed; nothing is added then.
        """
        spent = [(name.encode(), number(amount)) for name, amount in plan.spent.items()] if plan.spent else None
        ended = pack_session(plan.ended) if plan.ended is not None and plan.ended_ttl_ms > 0 else b""
        amended = pack_session(plan.amended) if plan.amended is not None else b""
        marker = pack_session(Session(plan.mark, b"", "", b"", 0, 0, 0)) if plan.mark else b""
        version = pack_version(plan.expected_version)
        index = number(self._count)
        self._count += 1
        self._accounts.append(account_key)
        self._plans += (version, value, plan.journal)
        if plan.watch_ms >= 0:
            wakes = self._wakes
            wakes.count += 1
            wakes.items += (index, number(plan.watch_ms), account_id)
        if plan.outbox:
            records = self._records
            records.count += 1
            records.items += (index, plan.outbox)
        if plan.mark:
            self._add_first(index, account_id, plan.mark)
            self._add_ended(index, account_id, plan.mark, marker, plan.mark_ttl_ms)
        if plan.first_of:
            self._add_first(index, account_id, plan.first_of)
        if ended:
            assert plan.ended is not None
            self._add_ended(index, account_id, plan.first_of or plan.ended.session_id, ended, plan.ended_ttl_ms)
        if plan.amended is not None:
            self._add_ended(index, account_id, plan.amended.session_id, amended, plan.amended_ttl_ms)
        if not self._keys.clustered:  # where another server than the account's may have the directory
            if plan.opened:
                self._add_own(self._opened, self._keys.session(plan.opened), index)
                self._opened.items.append(account_id)
            if plan.closed:
                self._add_own(self._closed, self._keys.session(plan.closed), index)
                self._closed.items.append(number(max(1, plan.ended_ttl_ms)))
        if spent is not None:
            for budget, amount in spent:
                of_lane = self._spent
                of_lane.count += 1
                of_lane.items += (index, amount, budget)
        if plan.transition:
            transitions = self._transitions
            transitions.count += 1
            transitions.items += (index, plan.transition)

    def _add_own(self, items: _List, key: bytes, index: bytes) -> None:
        items.count += 1
        items.keys.append(key)
        items.items.append(index)

    def _add_first(self, index: bytes, account_id: bytes, session_id: bytes) -> None:
        self._add_own(self._first, self._keys.ended(account_id, session_id), index)

    def _add_ended(self, index: bytes, account_id: bytes, session_id: bytes, session: bytes, ttl_ms: int) -> None:
        self._add_own(self._ended, self._keys.ended(account_id, session_id), index)
        self._ended.items += (session, number(ttl_ms))

    def encoded(self, sha: bytes, lane: tuple[bytes, ...], budgets: bytes, transitions: bytes) -> bytes:
        """The command as Redis reads it. ``sha``: what it knows the script by. Raises TypeError for what is no octets.

        ``lane``: keys of journal, expiry index and outbox; ``budgets``, ``transitions``: theirs.
        """
        lists = (
            self._first,
            self._ended,
            self._opened,
            self._closed,
            self._wakes,
            self._records,
            self._spent,
            self._transitions,
        )
        if self._spent.count:
            self._spent.keys.append(budgets)
        if self._transitions.count:
            self._transitions.keys.append(transitions)
        keys = LANE_KEYS + self._count + self._first.count + self._ended.count
        keys += self._opened.count + self._closed.count + (self._spent.count > 0) + (self._transitions.count > 0)
        command = [b"EVALSHA", sha, number(keys), *lane, *self._accounts]
        for each in lists:
            command += each.keys
        command.append(number(self._count))
        for each in lists:
            command.append(number(each.count))
        command += self._plans
        for each in lists:
            command += each.items
        return encoded(command)
