"""A ledger as a child would keep it: one coin and one unit at a time. The oracle of the property tests.

Slow on purpose and written without looking at ``balance.ledger``: prices are added up step by step, grants are found
by trying one unit more until the money does not suffice. Use small numbers.
"""

from dataclasses import dataclass, field


@dataclass
class NaiveBucket:
    unit: str
    balance: int
    priority: int
    limit: int = 0
    """How far below zero it may go."""


@dataclass
class NaiveService:
    unit: str
    step: int
    step_price: int
    paid_units: int = 0
    charged: int = 0
    leaked: int = 0
    holds: list[tuple[int, int]] = field(default_factory=list)
    granted: int = 0

    def price(self, units: int) -> int:
        total = 0
        while units > 0:
            total += self.step_price
            units -= self.step
        return total


class NaiveLedger:
    """Buckets by number, services by name; every amount an int."""

    def __init__(self, buckets: dict[int, NaiveBucket]) -> None:
        self.buckets = buckets
        self.services: dict[str, NaiveService] = {}

    def held(self, number: int) -> int:
        return sum(amount for service in self.services.values() for bucket, amount in service.holds if bucket == number)

    def free(self, number: int) -> int:
        bucket = self.buckets[number]
        return max(0, bucket.balance + bucket.limit - self.held(number))

    def order(self, unit: str) -> list[int]:
        return sorted(
            (number for number, bucket in self.buckets.items() if bucket.unit == unit),
            key=lambda number: (self.buckets[number].priority, number),
        )

    def use(self, name: str, units: int) -> None:
        """Units used: the grant's share of allowances, then of money; beyond it allowances, then money."""
        service = self.services[name]
        holds, service.holds = service.holds, []
        allowance_holds = [[n, a] for n, a in holds if self.buckets[n].unit != "money"]
        money_holds = [[n, a] for n, a in holds if self.buckets[n].unit == "money"]
        by_money = service.granted - sum(amount for _, amount in allowance_holds)
        service.granted = 0
        for hold in allowance_holds:
            while units and hold[1]:
                self.buckets[hold[0]].balance -= 1
                hold[1] -= 1
                units -= 1
        inside = min(units, by_money)
        units -= inside
        # what was held for this service's money is still promised to it while the rest looks for free allowances
        service.holds = [(n, a) for n, a in money_holds]
        for number in self.order(service.unit):
            while units and self.free(number):
                self.buckets[number].balance -= 1
                units -= 1
        service.holds = []
        self._pay(service, inside + units, money_holds)

    def _pay(self, service: NaiveService, units: int, holds: list[list[int]]) -> None:
        service.paid_units += units
        due = service.price(service.paid_units) - service.charged
        if due <= 0:
            return
        service.charged += due
        for hold in holds:
            while due and hold[1]:
                self.buckets[hold[0]].balance -= 1
                hold[1] -= 1
                due -= 1
        for number in self.order("money"):
            while due and self.free(number):
                self.buckets[number].balance -= 1
                due -= 1
        service.leaked += due

    def grant(self, name: str, wanted: int) -> int:
        """Hold what up to ``wanted`` units cost; how many units it came to."""
        service = self.services[name]
        assert not service.holds
        granted = 0
        for number in self.order(service.unit):
            amount = min(self.free(number), wanted - granted)
            if amount:
                service.holds.append((number, amount))
                granted += amount
        money = sum(self.free(number) for number in self.order("money"))
        by_money = 0
        while granted + by_money < wanted and (money or not service.leaked):
            if service.price(service.paid_units + by_money + 1) - service.charged > money:
                break
            by_money += 1
        due = max(0, service.price(service.paid_units + by_money) - service.charged) if by_money else 0
        for number in self.order("money"):
            amount = min(self.free(number), due)
            if amount:
                service.holds.append((number, amount))
                due -= amount
        service.granted = granted + by_money
        return service.granted

    def release(self, name: str) -> None:
        self.services[name].holds = []
        self.services[name].granted = 0
