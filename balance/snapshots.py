"""The accounts this process knows: where every operation on one begins."""

from collections.abc import Mapping
from itertools import islice

from balance.accounts import Account
from balance.keys import Keys
from balance.lane import Lane, Line, OnPlan
from balance.look_ups import DROPPED
from balance.plans import Step
from balance.records import VERSION_BYTES


class Snapshots:
    """A line for each account, up to a number of them; the oldest are dropped."""

    __slots__ = ("_entries", "_keys", "_lanes", "_lines")

    def __init__(self, keys: Keys, lanes: Mapping[int, Lane], entries: int) -> None:
        self._keys = keys
        self._lanes = dict(lanes)
        self._entries = entries
        self._lines: dict[bytes, Line] = {}

    def transact(self, account_id: bytes, step: Step, done: OnPlan, with_account: bool = True) -> None:
        """Run ``step`` on the account's snapshot and write its plan; ``done`` gets the plan, or a StoreError.

        ``with_account``: the plan that ``done`` gets still has its account, though it is written.
        After a StoreUnavailableError it is not known whether the plan was written; the same request repeated finds out.
        """
        line = self._lines.get(account_id)
        if line is None:
            line = Line(account_id, self._keys.account(account_id), self._lanes[self._keys.lane(account_id)])
            if len(self._lines) >= self._entries:
                self._evict()
            self._lines[account_id] = line
        line.run(step, done, with_account)

    def seen(self, account_id: bytes, value: bytes) -> None:
        """An account as it was just read: what another process has changed need not be found out by a conflict.

        Nothing is taken back: only a later version replaces the snapshot that is kept, and none that is being changed.
        """
        if self._keys.clustered:
            return  # it may have waited for other nodes while its own was replaced by one that lacks it
        line = self._lines.get(account_id)
        if line is None or line.busy or line.loaded != line.lane.generation:
            return
        if value[:VERSION_BYTES] > line.value[:VERSION_BYTES]:
            line.value = value

    def remembered(self, account_id: bytes) -> Account | None:
        """An account as this worker last knew it; for when the store cannot be asked."""
        line = self._lines.get(account_id)
        try:
            return None if line is None else line.account()
        except ValueError:
            return None

    def _evict(self) -> None:
        """``drop_oldest``, but for those that are busy: they go to the back of the line."""
        for account_id in list(islice(self._lines, max(1, min(DROPPED, self._entries // 16)))):
            line = self._lines.pop(account_id)
            if line.busy:
                self._lines[account_id] = line
