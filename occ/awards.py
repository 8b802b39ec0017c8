"""Bonuses for topping up, within the budgets of their promotions.

What a promotion gives is added to the account, and taken from its budget, by the very operation that tops it up. Two
top-ups at the same moment may spend the last of a budget twice.
"""

from balance.ledger import Draft, add_bucket
from balance.store import Store
from balance.structure import paid_subscribers
from occ.rating.catalogue import Catalogue
from occ.rating.promotions import Award, Customer


class TopUpAwards:
    """What one top-up brings; ``give`` goes into its operation."""

    __slots__ = ("_gone", "_spent", "awards")

    def __init__(self, gone: dict[str, int]) -> None:
        self._gone = gone
        self._spent: dict[str, int] = {}
        self.awards: tuple[Award, ...] = ()

    def choose(self, catalogue: Catalogue, amount_micro: int, plan: str, customer: Customer, at_ms: int) -> None:
        """Find out what there is, within the budgets."""

        def spend(name: str, micro: int) -> bool:
            budget = catalogue.promotions.by_name[name].budget
            if budget is None:
                return True
            gone = self._gone.get(name, 0) + self._spent.get(name, 0)
            if gone + micro > budget.amount:
                return False
            self._spent[name] = self._spent.get(name, 0) + micro
            return True

        self.awards = catalogue.promotions.on_top_up(amount_micro, plan, customer, at_ms, spend)

    def give(self, draft: Draft) -> None:
        """Add the buckets, and note what the budgets lose."""
        for award in self.awards:
            add_bucket(draft, award.unit, award.amount, award.priority, award.expires_ms, award.bucket)
        for name, micro in self._spent.items():
            draft.spend(name, micro)


async def awards_for(
    store: Store, catalogue: Catalogue, account_id: bytes, amount_micro: int, at_ms: int
) -> TopUpAwards:
    """What topping up an account by so much money brings now. Raises StoreError.

    Plan and segment are those of the first of its subscribers, by name.
    """
    awards = TopUpAwards(await store.spent())
    found = [subscriber async for page in paid_subscribers(store, account_id) for subscriber in page]
    if found:
        first = min(found, key=lambda each: each.subscriber_id)
        customer = Customer(first.segment, first.friends, first.activated_ms)
        awards.choose(catalogue, amount_micro, first.plan_at(at_ms), customer, at_ms)
    return awards
