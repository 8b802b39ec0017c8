"""Accounts watched: every change of every account, in whatever process, is looked at by the same levels.

The rules in force stand in the store, where the servers put them. A server watches by the rules it has loaded; any
other process that changes accounts, the command line above all, takes the levels out of the store and needs neither
the rules file nor a catalogue for it. What comes to other levels is written down in the very commit that moved it
there (``balance.transitions``), so that nothing of it is lost, whoever dies.
"""

import logging
from dataclasses import astuple, dataclass
from typing import Any, Final

import msgpack

from balance.accounts import Account, Before
from balance.keys import POLICIES
from balance.model import Unit
from balance.plans import Plan
from balance.store import Store
from policies.levels import Level, Measure, Measured, Range, held_of, money_of
from policies.policy import Policies

log = logging.getLogger("occ.policy.watching")

_METERED: Final = frozenset((Measured.COUNTER, Measured.SPENT))

_MONEY: Final = int(Unit.MONEY)

_pack = msgpack.Packer(autoreset=True).pack


@dataclass(frozen=True, slots=True)
class Transition:
    """An account that came to other levels; or is still at the same, but nearer to others than some of its services
    were granted to go, or past the time at which the clock might have brought it to others.
    """

    account_id: bytes
    version: int
    """Of the account, which the change made: with the account's name it is unique."""
    at_ms: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    asked_by: bytes = b""
    """Key of the session whose request changed it; empty: no client's."""
    answered: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """What the answer to that request covers: (Rating-Group, -1 for none; Service-Identifiers)."""
    by_rules: bool = False
    """The rules have changed, not the account: the network is told, the subscriber is not."""

    def pack(self) -> bytes:
        packed: bytes = _pack(
            (
                self.account_id,
                self.version,
                self.at_ms,
                self.before,
                self.after,
                self.asked_by,
                self.answered,
                self.by_rules,
            )
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> "Transition":
        """Raises ValueError for what ``pack`` has not made."""
        try:
            return cls(*msgpack.unpackb(packed, raw=False, use_list=False))
        except (msgpack.UnpackException, TypeError, ValueError) as error:
            raise ValueError(f"a transition cannot be read: {error}") from error


class Watching:
    """What looks at every plan before it is written (``Store.observe``). Costs a look-up where nothing has changed."""

    __slots__ = ("_buckets", "_metered", "_money", "_policies", "transitions")

    def __init__(self, policies: Policies) -> None:
        self.transitions = 0
        """Seen by this process; one that had to be decided again counts each time."""
        self.policies = policies

    @property
    def policies(self) -> Policies:
        """The rules it watches by; others may be put in their place at any time."""
        return self._policies

    @policies.setter
    def policies(self, policies: Policies) -> None:
        measures = [level.measure for level in policies.levels]
        self._policies = policies
        self._metered = [each for each in policies.levels if each.measure.what in _METERED]
        self._buckets = frozenset(each.name for each in measures if each.what is Measured.BUCKET)
        self._money = any(each.what in (Measured.BALANCE, Measured.CREDIT) for each in measures)

    def __call__(self, plan: Plan) -> None:
        """See ``balance.plans.Observe``."""
        account, before = plan.account, plan.before
        assert account is not None
        try:
            was = account.levels
            policies = self._policies
            levels = plan.levels if plan.levels_by is policies else policies.levels_of(account, plan.at_ms)
            self._wake_in_time(account, plan, levels)
            if levels == was:
                if before is not None and (
                    (0 < before.watch_ms <= plan.at_ms and _has_lapsed(before, plan.at_ms))
                    or (self._money and account.sessions and self._overtakes(before, plan, levels))
                ):
                    plan.transition = _transition(account, plan, was, levels).pack()
                return
            account.levels = levels
            if before is not None:
                self.transitions += 1
                plan.transition = _transition(account, plan, was, levels).pack()
        except Exception:  # watching must not keep anything from being charged
            log.exception("the levels of account %r are not known", account.account_id)

    def _overtakes(self, before: Before, plan: Plan, levels: tuple[str, ...]) -> bool:
        """Whether a service, by what it holds, may now go on beyond a threshold that was out of its reach before.

        Grants end at the threshold as it was far away then; what others have spent since has brought it nearer. Those
        of the request that did it have just been granted anew.
        """
        account, at_ms, outcome = plan.account, plan.at_ms, plan.outcome
        assert account is not None
        own = account.sessions.get(plan.asked_by)
        answered: list[tuple[int, int]] = []
        if own is not None and outcome is not None:
            if len(account.sessions) == 1 and len(own.services) <= len(outcome.grants):
                return False
            answered = [(each.rating_group, min(each.service_identifiers, default=-1)) for each in outcome.grants]
        floors = self._policies.falls_at(account, levels)
        if not floors:
            return False
        micro = money_of(account, at_ms)
        if micro - floors[0] >= sum(each.reserved for each in account.buckets):
            return False
        was_micro = _money_before(account, before)
        if micro >= was_micro:
            return False
        for session in account.sessions.values():
            for use in session.services:
                if use.parts and (session is not own or (use.rating_group, use.service_identifier) not in answered):
                    held = held_of(account, use)
                    if held and any(micro < floor + held <= was_micro for floor in floors):
                        return True
        return False

    def _wake_in_time(self, account: Account, plan: Plan, levels: tuple[str, ...]) -> None:
        """See that the account is looked at when it comes to other levels by the clock alone."""
        at_ms, wake_ms = plan.at_ms, account.watch_ms
        for bucket in account.buckets:
            expires_ms = bucket.expires_ms
            if expires_ms > at_ms and (not wake_ms or expires_ms < wake_ms):
                # One of a name is watched even if it is empty: who has none is not at the levels of who used it up.
                watched = bucket.name in self._buckets if bucket.name else self._money and bucket.balance
                if watched:
                    wake_ms = expires_ms
        for level in self._metered:
            # What a meter has counted is nothing again when it begins anew.
            inside = level.name in levels
            if inside != (0 in (level.stays if inside else level.enters)):
                resets_ms = _resets_ms(account, level.measure.name)
                if resets_ms > at_ms and (not wake_ms or resets_ms < wake_ms):
                    wake_ms = resets_ms
        if wake_ms != account.watch_ms:
            account.watch_ms = plan.watch_ms = wake_ms


def _money_before(account: Account, before: Before) -> int:
    """As ``money_of`` of the account before, with what has expired in the meantime: it is spent as well."""
    total = 0
    for bucket, (balance, _, _) in zip(account.buckets, before.buckets, strict=False):
        if bucket.unit == _MONEY and not bucket.name and not bucket.owner:
            total += balance
    return total


def _has_lapsed(before: Before, at_ms: int) -> bool:
    """Whether a bucket has expired, or a meter begun anew, since the account was last looked at: policy nodes may have
    been told that it would come to other levels by that.
    """
    return any(0 < expires_ms <= at_ms for _, _, expires_ms in before.buckets) or any(
        before.watch_ms <= each.resets_ms <= at_ms for each in before.meters
    )


def _resets_ms(account: Account, meter: str) -> int:
    return next((each.resets_ms for each in account.meters if each.name == meter), 0)


def _transition(account: Account, plan: Plan, before: tuple[str, ...], after: tuple[str, ...]) -> Transition:
    answered: tuple[tuple[int, tuple[int, ...]], ...] = ()
    if plan.asked_by and plan.outcome is not None:
        answered = tuple((grant.rating_group, tuple(grant.service_identifiers)) for grant in plan.outcome.grants)
    return Transition(account.account_id, account.version, plan.at_ms, before, after, plan.asked_by, answered)


# -- the rules in force, in the store ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InForce:
    """The rules by which the accounts of a store are watched."""

    edition: str
    """Digest of their text."""
    text: str
    """YAML, as it was read."""
    source: str
    """Where from."""
    catalogue: str
    """Edition of the catalogue that they were read with."""
    levels: tuple[Level, ...]
    looked_at: bool = False
    """All accounts have been looked at by them."""


_PUT: Final = """
local was = redis.call('HMGET', KEYS[1], 'edition', 'text', 'source', 'catalogue', 'levels', 'looked')
if was[1] ~= ARGV[1] then redis.call('DEL', KEYS[1]) end
if ARGV[1] ~= '' then
  redis.call('HSET', KEYS[1], 'edition', ARGV[1], 'text', ARGV[2], 'source', ARGV[3], 'catalogue', ARGV[4],
    'levels', ARGV[5])
end
return was
"""


async def rules_in_force(store: Store) -> InForce | None:
    """The rules that the servers of a store have put in force; None: there are none. Raises StoreError, ValueError."""
    return _in_force(await store.call("HMGET", POLICIES, "edition", "text", "source", "catalogue", "levels", "looked"))


def _in_force(fields: list[bytes | None]) -> InForce | None:
    edition, text, source, catalogue, levels, looked = fields
    if edition is None or text is None or source is None or catalogue is None or levels is None:
        return None
    return InForce(
        edition.decode(), text.decode(), source.decode(), catalogue.decode(), unpack_levels(levels), looked == edition
    )


async def put_in_force(store: Store, rules: InForce | None) -> InForce | None:
    """Have all processes of a store watch by these rules from now on, by none if None; those before.

    Raises StoreError.
    """
    if rules is None:
        values: tuple[str | bytes, ...] = ("", "", "", "", "")
    else:
        values = (rules.edition, rules.text.encode(), rules.source, rules.catalogue, pack_levels(rules.levels))
    fields = await store.run_script(_PUT, (POLICIES,), *values)
    try:
        return _in_force(fields)
    except ValueError as error:
        log.warning("%s", error)
        return None


async def looked_at(store: Store, edition: str) -> None:
    """Note that all accounts have been looked at by the rules of an edition. Raises StoreError."""
    if await store.call("HGET", POLICIES, "edition") == edition.encode():
        await store.call("HSET", POLICIES, "looked", edition)


async def watch_by_rules_in_force(store: Store) -> None:
    """Look at every change this process makes as the servers do. Raises StoreError; nothing if no rules are in force.

    Levels that this version cannot read, written by a later one, are left to the servers: they look again at what
    changed when they start.
    """
    edition, levels = await store.call("HMGET", POLICIES, "edition", "levels")
    if edition is None or levels is None:
        return
    try:
        store.observe = Watching(Policies(bytes(edition).decode(), unpack_levels(bytes(levels))))
    except ValueError as error:
        log.warning("accounts are not watched: %s", error)


def pack_levels(levels: tuple[Level, ...]) -> bytes:
    """Levels as bytes, with all that it takes to look at an account by them."""
    packed: bytes = _pack([astuple(level) for level in levels])
    return packed


def unpack_levels(packed: bytes) -> tuple[Level, ...]:
    """Levels from bytes. Raises ValueError."""
    try:
        return tuple(_level(*fields) for fields in msgpack.unpackb(packed, raw=False, use_list=False))
    except (msgpack.UnpackException, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"the levels of the rules in force cannot be read: {error}") from error


def _level(name: str, measure: Any, enters: Any, stays: Any, *rest: Any) -> Level:
    what, *of = measure
    return Level(name, Measure(Measured(what), *of), Range(*enters), Range(*stays), *rest)
