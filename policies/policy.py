"""``Policies``: one rules file in force. What an account is at, what becomes of a service, what is to be told.

Pure: everything follows from an account's snapshot and a moment. What is asked for at every request is remembered by
what it depends on, so that rules cost a look-up.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from balance.accounts import Account
from balance.model import Unit
from policies.counters import Counter, CounterStatus
from policies.levels import (
    INFINITE,
    LIFE_LEVELS,
    Level,
    Measure,
    Measured,
    levels_of,
    money_of,
    thresholds,
    used_until_it_changes,
)
from policies.rules import Access, Case, Crossed, Decision, Rule, Throttle, Window, decided_by

REMEMBERED: Final = 65_536
"""Decisions kept at most, and as many of each other kind."""
MOST_PENDING: Final = 8
"""Statuses ahead that are told of a counter."""
FURTHEST_WINDOWS: Final = 64
"""Beginnings and ends of windows looked at for the one that changes a decision."""

_MINUTE_MS: Final = 60_000
_LATEST_MS: Final = 1 << 62
_NO_BAND: Final = (1, 0)
_MONEY: Final = int(Unit.MONEY)
_LIFE_NAMES: Final = frozenset(each.name for each in LIFE_LEVELS)


class Standing(NamedTuple):
    """What becomes of a service, and how far that goes."""

    decision: Decision
    floor_micro: int | None
    """The first balance, falling, at which the decision is another one; None: whatever the balance."""
    moves: bool
    """The use of the service moves levels that follow from buckets or meters: ``Policies.room`` knows how far."""


@dataclass(slots=True)
class _Hours:
    """What is remembered while the same windows are open."""

    rules: tuple[Rule, ...]
    """Those whose windows are open, or that have none."""
    decisions: dict[tuple[Case, tuple[str, ...]], Decision] = field(default_factory=dict)
    standings: dict[tuple[object, ...], dict[tuple[str, str], "Standing"]] = field(default_factory=dict)
    """By what is the same for all services of a request, then by service and zone."""
    standings_kept: int = 0


@dataclass(slots=True)
class Policies:
    """Rules in force. See ``policies.rules`` for the order in which they are read."""

    edition: str
    """Which file this is: a digest of its text."""
    levels: tuple[Level, ...] = LIFE_LEVELS
    rules: tuple[Rule, ...] = ()
    throttles: dict[str, Throttle] = field(default_factory=dict)
    counters: tuple[Counter, ...] = ()
    has_windows: bool = field(init=False)
    """Whether any rule holds at some hours only."""
    _windows: tuple[Window, ...] = field(init=False)
    _others: tuple[Level, ...] = field(init=False)
    """Levels that follow neither from money nor from the state of life."""
    _metered: tuple[Level, ...] = field(init=False)
    """Those of ``_others`` that an account without named buckets can be at."""
    _moved: dict[str, tuple[Level, ...]] = field(default_factory=dict, init=False)
    """By service: those of ``_others`` that its use moves, and that decide something."""
    _deciding: tuple[Level, ...] = field(init=False)
    """Levels of money that decide something; all of them where the rules are not known."""
    _falls: dict[tuple[int, int, tuple[str, ...]], tuple[int, ...]] = field(default_factory=dict, init=False)
    """Balances at which an account comes to, or leaves, one of ``_deciding``."""
    _bands: dict[tuple[int, int, int, tuple[str, ...]], tuple[int, int]] = field(default_factory=dict, init=False)
    _by_windows: dict[tuple[bool, ...], _Hours] = field(default_factory=dict, init=False)
    _hours: _Hours = field(init=False)
    _changes: dict[tuple[Case, tuple[str, ...]], int] = field(default_factory=dict, init=False)
    """When a decision of the running hours ends."""
    _from_ms: int = field(default=0, init=False)
    _until_ms: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        windows: list[Window] = []
        for rule in self.rules:
            windows += [each for each in rule.windows if each not in windows]
        self._windows = tuple(windows)
        self.has_windows = bool(windows)
        self._others = tuple(each for each in self.levels if not each.is_of_money and not each.is_of_life)
        self._metered = tuple(each for each in self._others if each.measure.what is not Measured.BUCKET)
        deciding = {
            name
            for rule in self.rules
            if rule.access is not None or rule.throttle or rule.most_units
            for name in rule.levels
        }
        self._deciding = tuple(
            each for each in self.levels if each.is_of_money and (each.name in deciding or not self.rules)
        )
        for level in self._others:
            for service in level.measure.services if level.name in deciding else ():
                self._moved[service] = (*self._moved.get(service, ()), level)
        self._hours = _Hours(tuple(each for each in self.rules if not each.windows))
        if not windows:
            self._from_ms, self._until_ms = -_LATEST_MS, _LATEST_MS

    # -- what an account is at -------------------------------------------------------------------------------------

    def levels_of(self, account: Account, at_ms: int) -> tuple[str, ...]:
        """The levels that an account is at; ``account.levels`` are those that it was at before."""
        before = account.levels
        key = (account.kind, account.state, account.credit_limit_micro, before)
        band = self._bands.get(key)
        if band is None:
            band = self._remember_band(key)
        money, named = 0, False
        for bucket in account.buckets:  # as ``money_of``
            if bucket.name:
                named = True
            elif bucket.unit == _MONEY and not bucket.owner and not 0 < bucket.expires_ms <= at_ms:
                money += bucket.balance
        if band[0] <= money <= band[1]:
            for each in self._others if named or before else self._metered:
                inside = each.name in before
                if each.holds(account, at_ms, inside) != inside:
                    return levels_of(self.levels, account, at_ms)
            return before
        return levels_of(self.levels, account, at_ms)

    def _remember_band(self, key: tuple[int, int, int, tuple[str, ...]]) -> tuple[int, int]:
        """The balances within which such an account stays at the levels it is at, as far as they follow from money."""
        kind, state, limit_micro, before = key
        known = [each for each in self.levels if each.is_for(kind)]
        alive = tuple(each.name for each in known if each.is_of_life and each.holds_state(state))
        if before == tuple(each.name for each in known if each.name in before) and alive == tuple(
            each for each in before if each in _LIFE_NAMES
        ):
            money = tuple(each for each in known if each.is_of_money)
            down = thresholds(money, before, limit_micro, up=False)
            up = thresholds(money, before, limit_micro, up=True)
            band = (down[0][0] + 1 if down else -INFINITE * 2, up[0][0] - 1 if up else INFINITE * 2)
        else:
            band = _NO_BAND
        if len(self._bands) >= REMEMBERED:
            self._bands.clear()
        self._bands[key] = band
        return band

    def crossed(
        self,
        before: tuple[str, ...],
        after: tuple[str, ...],
        kind: int,
        at_ms: int,
        members: Collection[tuple[str, str]] | None = None,
    ) -> Crossed:
        """What is to be told now that an account is at other levels: of rules that tell the same, the first.

        ``kind``: its AccountKind. ``members``: (plan, segment) of each of its subscribers, for rules that are about
        some only; None: they are taken to be about one of them.
        """
        begun: list[Rule] = []
        ended: list[Rule] = []
        for rule in self._at(at_ms).rules:
            if not rule.levels or not (rule.notify or rule.restored or rule.emit):
                continue
            was = any(each in before for each in rule.levels)
            if was == any(each in after for each in rule.levels) or (rule.kinds and kind not in rule.kinds):
                continue
            if members is not None and not any(_is_about_member(rule, *each) for each in members):
                continue
            if was and rule.restored and all(each.restored != rule.restored for each in ended):
                ended.append(rule)
            elif not was and (rule.emit or (rule.notify and all(each.notify != rule.notify for each in begun))):
                begun.append(rule)
        return Crossed(tuple(begun), tuple(ended))

    # -- what becomes of a service ---------------------------------------------------------------------------------

    def decide(self, case: Case, levels: tuple[str, ...], at_ms: int) -> Decision:
        """What becomes of a service now."""
        hours = self._hours if self._from_ms <= at_ms < self._until_ms else self._at(at_ms)
        key = (case, levels)
        try:
            return hours.decisions[key]
        except KeyError:
            decision = decided_by(each for each in hours.rules if each.is_about(case, levels))
            if len(hours.decisions) >= REMEMBERED:
                hours.decisions.clear()
            hours.decisions[key] = decision
            return decision

    def standing(
        self,
        kind: int,
        plan: str,
        segment: str,
        service: str,
        zone: str,
        levels: tuple[str, ...],
        limit_micro: int,
        at_ms: int,
    ) -> Standing:
        """What becomes of a service now, and down to which balance: the fields of its ``Case``, levels, credit limit.

        One look-up for both, because every grant asks for both.
        """
        known = self.standings(kind, plan, segment, levels, limit_micro, at_ms)
        found = known.get((service, zone))
        if found is not None:
            return found
        case = Case(kind, plan, segment, service, zone)
        decision = self.decide(case, levels, at_ms)
        standing = Standing(decision, self._floor(case, levels, limit_micro, at_ms), service in self._moved)
        hours = self._at(at_ms)
        if hours.standings_kept >= REMEMBERED:
            hours.standings.clear()
            hours.standings_kept = 0
        hours.standings_kept += 1
        known[service, zone] = standing
        return standing

    def standings(
        self, kind: int, plan: str, segment: str, levels: tuple[str, ...], limit_micro: int, at_ms: int
    ) -> dict[tuple[str, str], Standing]:
        """What ``standing`` has found out for services of such an account so far, by service and zone."""
        hours = self._hours if self._from_ms <= at_ms < self._until_ms else self._at(at_ms)
        key = (kind, plan, segment, levels, limit_micro)
        found = hours.standings.get(key)
        if found is None:
            found = hours.standings[key] = {}
        return found

    def _at(self, at_ms: int) -> _Hours:
        """What is remembered of the windows that are open at a moment."""
        if self._from_ms <= at_ms < self._until_ms:
            return self._hours
        # Windows begin and end with a minute: requests that tell of slightly earlier times find the same.
        from_ms = at_ms - at_ms % _MINUTE_MS
        found = [each.at(from_ms) for each in self._windows]
        is_open = tuple(each for each, _ in found)
        hours = self._by_windows.get(is_open)
        if hours is None:
            closed = [each for each, opened in zip(self._windows, is_open, strict=True) if not opened]
            rules = tuple(
                each for each in self.rules if not each.windows or any(one not in closed for one in each.windows)
            )
            if len(self._by_windows) >= REMEMBERED:
                self._by_windows.clear()
            hours = self._by_windows[is_open] = _Hours(rules)
        self._from_ms, self._hours = from_ms, hours
        self._changes.clear()
        self._until_ms = min((until for _, until in found if until), default=_LATEST_MS)
        return hours

    def changes_ms(self, at_ms: int, case: Case | None = None, levels: tuple[str, ...] = ()) -> int:
        """The next moment at which a window of a rule begins or ends; 0: there is none.

        With ``case``: the next at which that changes the decision on this service, at these levels.
        """
        if not self._windows:
            return 0
        self._at(at_ms)
        until_ms = self._until_ms
        if case is not None:
            known = self._changes.get((case, levels))
            if known is None:
                known = self._change_of(case, levels, at_ms, until_ms)
                if len(self._changes) >= REMEMBERED:
                    self._changes.clear()
                self._changes[case, levels] = known
            until_ms = known
        return 0 if until_ms == _LATEST_MS else until_ms

    def _change_of(self, case: Case, levels: tuple[str, ...], at_ms: int, until_ms: int) -> int:
        now = self.decide(case, levels, at_ms)
        for _ in range(FURTHEST_WINDOWS):
            if until_ms == _LATEST_MS or self.decide(case, levels, until_ms).differs(now):
                break
            until_ms = self._until_ms
        else:
            until_ms = _LATEST_MS
        self._at(at_ms)
        return until_ms

    # -- how far it is to the next change --------------------------------------------------------------------------

    def room(
        self, case: Case, account: Account, at_ms: int, levels: tuple[str, ...] | None = None
    ) -> tuple[int | None, int | None]:
        """How much use it takes until this service's decision changes: money, micro-units; units of the service.

        None: nothing changes, however much is used. Use of exactly so much brings the change about. What is reserved
        is not taken off, nor what other sessions are going to use. ``levels``: those it is at, if they are known.
        """
        if levels is None:
            levels = self.levels_of(account, at_ms)
        _, floor, moves = self.standing(*case, levels, account.credit_limit_micro, at_ms)
        money = None if floor is None else money_of(account, at_ms) - floor
        if not moves:
            return money, None
        spent, units = self._room_elsewhere(case, levels, account, at_ms)
        return (money if spent is None else spent if money is None else min(money, spent)), units

    def _floor(self, case: Case, levels: tuple[str, ...], limit_micro: int, at_ms: int) -> int | None:
        """The first balance, falling, at which the decision is another one."""
        now = self.decide(case, levels, at_ms)
        for micro, names in self.falling(case.kind, levels, limit_micro):
            if self.decide(case, names, at_ms).differs(now):
                return micro
        return None

    def falling(
        self, kind: int, levels: tuple[str, ...], limit_micro: int, *, up: bool = False
    ) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Balances, micro-units, at which an account of a kind comes to other levels as money is spent, and these.

        ``levels``: those it is at; ``limit_micro``: its credit limit; ``up``: as money comes.
        """
        money = tuple(each for each in self.levels if each.is_of_money and each.is_for(kind))
        yield from self._toggled(levels, thresholds(money, levels, limit_micro, up=up))

    def falls_at(self, account: Account, levels: tuple[str, ...]) -> tuple[int, ...]:
        """Balances, micro-units, at which some service may be decided on in another way as money is spent; the
        highest first. ``levels``: those that the account is at.
        """
        key = (account.kind, account.credit_limit_micro, levels)
        found = self._falls.get(key)
        if found is None:
            known = tuple(each for each in self._deciding if each.is_for(account.kind))
            steps = thresholds(known, levels, account.credit_limit_micro, up=False)
            if len(self._falls) >= REMEMBERED:
                self._falls.clear()
            found = self._falls[key] = tuple(dict.fromkeys(where for where, _ in steps))
        return found

    def _toggled(self, levels: tuple[str, ...], steps: list[tuple[int, str]]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Where the levels change, and what they are then; ``steps``: (where, level that is come to or left)."""
        names = set(levels)
        for index, (where, name) in enumerate(steps):
            names ^= {name}
            if index + 1 == len(steps) or steps[index + 1][0] != where:
                yield where, tuple(each.name for each in self.levels if each.name in names)

    def _room_elsewhere(
        self, case: Case, levels: tuple[str, ...], account: Account, at_ms: int
    ) -> tuple[int | None, int | None]:
        """The same by levels that follow from buckets and meters which this service moves, each by itself."""
        steps: dict[Measure, list[tuple[int, str]]] = {}
        for each in self._moved[case.service]:
            value = each.measure.of(account, at_ms) if each.is_for(account.kind) else None
            if value is None:
                continue
            use = used_until_it_changes(each, value, each.name in levels)
            if use is not None:
                steps.setdefault(each.measure, []).append((use, each.name))
        nearest: dict[bool, int] = {}
        for measure, found in steps.items():
            change = self._first_change(case, levels, sorted(found), at_ms)
            is_money = measure.unit == _MONEY
            if change is not None and change < nearest.get(is_money, INFINITE):
                nearest[is_money] = change
        return nearest.get(True), nearest.get(False)

    def _first_change(
        self, case: Case, levels: tuple[str, ...], steps: list[tuple[int, str]], at_ms: int
    ) -> int | None:
        now = self.decide(case, levels, at_ms)
        for use, names in self._toggled(levels, steps):
            if self.decide(case, names, at_ms).differs(now):
                return use
        return None

    # -- what comes with time --------------------------------------------------------------------------------------

    def ahead(self, account: Account, at_ms: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Moments after ``at_ms`` at which an account that nobody uses comes to other levels, and these.

        Buckets expire and meters begin anew. What the clock does beside (renewals, the account's own expiry) changes
        the account, and is known when it has.
        """
        moments = {each.expires_ms for each in account.buckets if each.expires_ms > at_ms}
        measured = {each.measure.name for each in self._others}
        moments |= {each.resets_ms for each in account.meters if each.resets_ms > at_ms and each.name in measured}
        if not moments:
            return
        levels = self.levels_of(account, at_ms)
        for moment_ms in sorted(moments):
            following = tuple(each.name for each in self.levels if each.holds(account, moment_ms, each.name in levels))
            if following != levels:
                levels = following
                yield moment_ms, levels

    def next_change_ms(self, account: Account, at_ms: int) -> int:
        """When an account that nobody uses comes to other levels; 0: never, as far as is known."""
        return next((moment_ms for moment_ms, _ in self.ahead(account, at_ms)), 0)

    def statuses(self, account: Account, at_ms: int) -> dict[str, CounterStatus]:
        """What every policy counter is at, by name, and what it will be at if nobody uses the account."""
        if not self.counters:
            return {}
        levels = self.levels_of(account, at_ms)
        ahead = list(self.ahead(account, at_ms))
        found: dict[str, CounterStatus] = {}
        for counter in self.counters:
            status = counter.status_at(levels)
            pending: list[tuple[str, int]] = []
            last = status
            for moment_ms, following in ahead:
                then = counter.status_at(following)
                if then != last and len(pending) < MOST_PENDING:
                    pending.append((then, moment_ms))
                    last = then
            found[counter.name] = CounterStatus(status, tuple(pending))
        return found


def _is_about_member(rule: Rule, plan: str, segment: str) -> bool:
    return (not rule.plans or plan in rule.plans) and (not rule.segments or segment in rule.segments)


__all__ = ["Access", "Policies"]
