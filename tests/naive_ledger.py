"""A ledger as a child would keep it: one coin and one unit at a time. The oracle of the property tests.

Slow on purpose and written without looking at ``balance.ledger``: grants are found by trying one unit more until the
money does not suffice, and every coin is taken from the first place that has one. Use small balances; only usage may
be large, because what no coin covers leaks in one go.

Units are named "money", "octets", "seconds", "events" and "amount" (money that the client has rated itself).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

Switch = tuple[int, tuple[int, int]]
"""When a price begins, ms, and the price: (units of a step, micro-units for each that is started; 0: free)."""


def price_of_steps(price: tuple[int, int], units: int) -> int:
    """Every started step in full."""
    step, step_price = price
    steps = units // step
    if units % step:
        steps += 1
    return steps * step_price


@dataclass
class NaiveBucket:
    unit: str
    balance: int
    priority: int
    limit: int = 0
    """How far below zero it may go."""
    expires_ms: int = 0
    """0: never."""


@dataclass
class NaiveService:
    unit: str
    step: int
    step_price: int
    paid_units: int = 0
    """In this tariff period, as are the units that ``charged`` is the price of."""
    charged: int = 0
    leaked: int = 0
    holds: list[tuple[int, int]] = field(default_factory=list)
    """(bucket, coins), in the order in which they are spent."""
    granted: int = 0
    earlier: int = 0
    """Price of the tariff periods that are over."""
    used: int = 0
    pool: tuple[Hashable, int] | None = None
    """Services with the same one lend each other the money they hold."""
    taken: list[tuple[int, int]] = field(default_factory=list)
    """Every (bucket, coins) ever spent on it, oldest first."""
    switch: Switch | None = None
    """The next change of its price."""
    disbelieved: int = 0
    """Units reported that cannot be true."""
    final: int = 0
    """How far its client has come with its final units."""
    label: str = ""
    """What the catalogue calls it."""
    promise: tuple[int, int] = 0, 0
    """How many tariff switches its grant is good for, and units on either side of one."""
    has_lent: bool = False
    """Others of its pool have used up money of its grant."""

    def price(self, units: int) -> int:
        return price_of_steps((self.step, self.step_price), units)

    @property
    def cost(self) -> int:
        """Price of everything it ever used: debited, or leaked."""
        return self.earlier + self.charged

    @property
    def debited(self) -> int:
        return self.cost - self.leaked


class NaiveLedger:
    """Buckets by number, services by name; every amount an int."""

    def __init__(self, buckets: dict[int, NaiveBucket], now_ms: int = 0) -> None:
        self.buckets = buckets
        self.services: dict[Hashable, NaiveService] = {}
        self.now_ms = now_ms
        self.lapsed_money = 0
        """Taken away because its time was over."""

    def held(self, number: int) -> int:
        return sum(coins for service in self.services.values() for bucket, coins in service.holds if bucket == number)

    def free(self, number: int) -> int:
        """What is not held; a bucket that has expired gives nothing new."""
        bucket = self.buckets[number]
        if bucket.expires_ms and self.now_ms >= bucket.expires_ms:
            return 0
        return max(0, bucket.balance + bucket.limit - self.held(number))

    def order(self, unit: str) -> list[int]:
        """Lowest priority number first, then what expires first, then the oldest."""
        return sorted(
            (number for number, bucket in self.buckets.items() if bucket.unit == unit),
            key=lambda n: (self.buckets[n].priority, self.buckets[n].expires_ms or 1 << 80, n),
        )

    def allowances(self, service: NaiveService) -> list[int]:
        """None for what is free: nobody spends an allowance on that."""
        return self.order(service.unit) if service.step_price else []

    def free_money(self) -> int:
        return sum(self.free(number) for number in self.order("money"))

    def held_money(self, service: NaiveService) -> int:
        return sum(coins for number, coins in service.holds if self.buckets[number].unit == "money")

    # -- spending --------------------------------------------------------------------------------------------------

    def use(self, name: Hashable, units: int) -> None:
        """A report: spend, and give back what else was held."""
        self.spend(name, units)
        self.release(name)

    def spend(self, name: Hashable, units: int) -> None:
        """Units used, the grant first: its allowances, then its money; beyond it free allowances, then money.

        What is left of the grant stays held.
        """
        service = self.services[name]
        service.used += units
        while units and self._spend_held(service, lambda bucket: bucket.unit != "money"):
            service.granted -= 1
            units -= 1
        held_units = sum(coins for number, coins in service.holds if self.buckets[number].unit != "money")
        by_money = min(units, service.granted - held_units)
        service.granted -= by_money
        units -= by_money
        while units and self._spend_free(service, self.allowances(service)):
            units -= 1
        service.paid_units += by_money + units
        due = service.price(service.paid_units) - service.charged
        if due > 0:
            service.charged += due
            service.leaked += self._pay(service, due)

    def _pay(self, service: NaiveService, due: int) -> int:
        """Coins out of its own hold, those that its pool holds, then free ones; how many could not be had."""
        lenders = [each for each in self.services.values() if each is not service and each.pool == service.pool]
        while due and self._spend_held(service, lambda bucket: bucket.unit == "money"):
            due -= 1
        for lender in lenders if service.pool else ():
            while due and self._lend(lender, service):
                due -= 1
        while due and self._spend_free(service, self.order("money")):
            due -= 1
        return due

    def _spend_held(self, service: NaiveService, wanted: Callable[[NaiveBucket], bool]) -> bool:
        for index, (number, coins) in enumerate(service.holds):
            if coins and wanted(self.buckets[number]):
                service.holds[index] = (number, coins - 1)
                self._take(service, number)
                return True
        return False

    def _lend(self, lender: NaiveService, service: NaiveService) -> bool:
        for index, (number, coins) in enumerate(lender.holds):
            if coins and self.buckets[number].unit == "money":
                lender.holds[index] = (number, coins - 1)
                lender.has_lent = True
                self._take(service, number)
                return True
        return False

    def _spend_free(self, service: NaiveService, numbers: list[int]) -> bool:
        for number in numbers:
            if self.free(number):
                self._take(service, number)
                return True
        return False

    def _take(self, service: NaiveService, number: int) -> None:
        self.buckets[number].balance -= 1
        service.taken.append((number, 1))

    def leak(self, name: Hashable, units: int) -> None:
        """Units used that nobody is charged for: what they would have cost is written down."""
        service = self.services[name]
        service.used += units
        service.paid_units += units
        lost = max(0, service.price(service.paid_units) - service.charged)
        service.charged += lost
        service.leaked += lost

    def begin_period(self, name: Hashable, price: tuple[int, int]) -> None:
        """Another price from here on; its steps are counted anew."""
        service = self.services[name]
        service.earlier += service.charged
        service.paid_units = service.charged = 0
        service.step, service.step_price = price
        service.switch = None

    # -- holding ---------------------------------------------------------------------------------------------------

    def grant(self, name: Hashable, wanted: int, cost: Callable[[int], int] | None = None, whole: bool = False) -> int:
        """Hold what up to ``wanted`` units cost; how many units it came to. ``cost``: of so many more units in money.

        ``whole``: all of them, or nothing.
        """
        service = self.services[name]
        assert not any(coins for _, coins in service.holds), "it holds something already"
        price = cost or (lambda units: service.price(service.paid_units + units) - service.charged)
        holds: list[tuple[int, int]] = []
        granted = 0
        for number in self.allowances(service):
            coins = min(self.free(number), wanted - granted)
            if coins:
                holds.append((number, coins))
                granted += coins
        money = self.free_money()
        # What is left of a step that was paid costs nothing more; of one that leaked, nothing is given away.
        given_away = not (service.leaked and service.charged) or money
        by_money = 0
        if whole:
            if granted < wanted and not (given_away and price(wanted - granted) <= money):
                return 0
            by_money = wanted - granted
        while granted + by_money < wanted and given_away and price(by_money + 1) <= money:
            by_money += 1
        due = max(0, price(by_money)) if by_money else 0
        for number in self.order("money"):
            coins = min(self.free(number), due)
            if coins:
                holds.append((number, coins))
                due -= coins
        service.has_lent = False
        service.holds = holds
        service.granted = granted + by_money
        return service.granted

    def has_more(self, name: Hashable) -> bool:
        """Whether one unit beyond the grant could be had as well."""
        service = self.services[name]
        if any(self.free(number) for number in self.allowances(service)):
            return True
        by_money = service.granted - sum(
            coins for number, coins in service.holds if self.buckets[number].unit != "money"
        )
        money = self.free_money() + self.held_money(service)
        if service.leaked and service.charged and not money:
            return False
        return service.price(service.paid_units + by_money + 1) - service.charged <= money

    def release(self, name: Hashable) -> None:
        self.services[name].holds = []
        self.services[name].granted = 0

    def lapse(self) -> None:
        """Empty the buckets that have expired of what nobody holds; never the main one."""
        for number, bucket in self.buckets.items():
            if number != 1 and bucket.expires_ms and self.now_ms >= bucket.expires_ms:
                left = min(bucket.balance, self.held(number))
                if bucket.unit == "money":
                    self.lapsed_money += bucket.balance - left
                bucket.balance = left

    # -- giving back -----------------------------------------------------------------------------------------------

    def refund(self, service: NaiveService, units: int) -> int:
        """Undo the last ``units`` of a debit, coin by coin, into the buckets they came from; the money given back."""
        assert 0 < units <= service.used
        in_money = min(units, service.paid_units)
        money = service.charged - service.price(service.paid_units - in_money)
        self._return(service, money, lambda bucket: bucket.unit == "money")
        self._return(service, units - in_money, lambda bucket: bucket.unit != "money")
        service.used -= units
        service.paid_units -= in_money
        service.charged -= money
        return money

    def _return(self, service: NaiveService, coins: int, wanted: Callable[[NaiveBucket], bool]) -> None:
        for index in reversed(range(len(service.taken))):
            number, amount = service.taken[index]
            if coins and wanted(self.buckets[number]):
                assert amount == 1
                self.buckets[number].balance += 1
                service.taken[index] = (number, 0)
                coins -= 1
        assert not coins, "more is given back than was taken"
        service.taken = [(number, amount) for number, amount in service.taken if amount]
