"""Control totals: what a store holds, what rows of a file amount to, and whether one explains the other."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from balance.accounts import Account
from balance.bulk import subscribers_in_store
from balance.directory import accounts
from balance.model import MAIN_BUCKET, AccountKind, LifeState, Unit
from balance.store import Store
from occ.rating.currency import currency_name


class Pot(NamedTuple):
    """What buckets are summed by: the unit, for money its currency, and the name in the catalogue."""

    unit: int
    currency: int
    """ISO 4217 numeric code of money, 0 where it is not known; 0 for allowances."""
    name: str

    @property
    def label(self) -> str:
        first = Unit(self.unit).name.lower()
        if self.unit == Unit.MONEY:
            first = currency_name(self.currency) if self.currency else "money"
        return f"{first} {self.name}".rstrip()


@dataclass(slots=True)
class Totals:
    """Sums over accounts and subscribers; amounts in micro-units of money or in units."""

    accounts: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By AccountKind and LifeState."""
    subscribers: int = 0
    balances: Counter[Pot] = field(default_factory=Counter)
    reserved: Counter[Pot] = field(default_factory=Counter)
    debt: Counter[int] = field(default_factory=Counter)
    """Of accounts whose main balance is below zero, by currency; above zero."""

    def add(self, account: Account, sign: int = 1) -> None:
        """Count an account in, or out again with ``sign`` -1."""
        self.accounts[account.kind, account.state] += sign
        for bucket in account.buckets:
            pot = pot_of(bucket.unit, account.currency, bucket.name)
            self.balances[pot] += sign * bucket.balance
            if bucket.reserved:
                self.reserved[pot] += sign * bucket.reserved
            if bucket.bucket_id == MAIN_BUCKET and bucket.balance < 0:
                self.debt[account.currency] -= sign * bucket.balance

    def plus(self, other: "Totals") -> "Totals":
        """The sum of both."""
        added = Totals(subscribers=self.subscribers + other.subscribers)
        for part in ("accounts", "balances", "reserved", "debt"):
            counter: Counter[Any] = getattr(added, part)
            counter.update(getattr(self, part))
            counter.update(getattr(other, part))
        return added

    def figures(self) -> dict["Figure", int]:
        """All of it as a list of named figures, in the order in which people want to see them."""
        found: dict[Figure, int] = {}
        for (kind, state), count in sorted(self.accounts.items()):
            label = f"{AccountKind(kind).name.lower()} accounts, {LifeState(state).name.lower()}"
            found[Figure("accounts", label, None)] = count
        found[Figure("subscribers", "subscribers", None)] = self.subscribers
        for part, word in (("balances", ""), ("reserved", "reserved "), ("debt", "debt ")):
            sums: Counter[Any] = getattr(self, part)
            for key, amount in sorted(sums.items()):
                pot = key if isinstance(key, Pot) else Pot(int(Unit.MONEY), key, "")
                found[Figure(part, word + pot.label, pot)] = amount
        return found


class Figure(NamedTuple):
    """What one number of the control totals is of."""

    part: str
    label: str
    pot: Pot | None
    """None: it is a count."""


def pot_of(unit: int, currency: int, name: str) -> Pot:
    return Pot(unit, currency if unit == Unit.MONEY else 0, name)


class Line(NamedTuple):
    """One figure before and after, and what was accepted of it."""

    figure: Figure
    before: int
    accepted: int
    after: int

    @property
    def agrees(self) -> bool:
        return self.before + self.accepted == self.after


def compare(before: Totals, accepted: Totals, after: Totals) -> Iterator[Line]:
    """The figures side by side; those that are 0 throughout are left out."""
    three = [each.figures() for each in (before, accepted, after)]
    order = dict.fromkeys(before.plus(accepted).plus(after).figures())
    for figure in order:
        line = Line(figure, *(each.get(figure, 0) for each in three))
        if any(line[1:]):
            yield line


async def count(store: Store) -> Totals:
    """The control totals of a store. Each account and subscriber is counted once, which takes some 100 octets each.

    A store that is in use is not counted at one moment, but each account is. Raises StoreError.
    """
    totals = Totals()
    seen: set[int] = set()
    async for page in accounts(store):
        for account in page:
            # 64 bits of a keyed hash: as good as the name, in a fraction of the memory.
            if (known := hash(account.account_id)) not in seen:
                seen.add(known)
                totals.add(account)
    seen.clear()
    async for names in subscribers_in_store(store):
        seen.update(map(hash, names))
    totals.subscribers = len(seen)
    return totals
