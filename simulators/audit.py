"""What the clients themselves say was debited: an auditor that knows the tariff and the usage, not the ledger.

The sample tariff: data 0.01 EUR per started MiB, national voice 0.09 EUR per started minute, SMS 0.05 EUR each.
A started unit is counted once over a whole session and service, not once per report: three reports of half a MiB
within one session and Rating-Group are one and a half MiB, so two started MiB, 0.02 EUR. The price of a report is
therefore the price of all usage of that session and service so far, less the price of what was reported before.

Usage counts when the answer to its report arrived and did not refuse the debit; a repeat of a report counts nothing.
Usage whose report was never answered is kept apart as uncertain: the server may or may not have debited it.
All amounts are integers in millionths of the currency unit.
"""

from dataclasses import dataclass
from typing import Final

Service = tuple[int, int]
"""(Rating-Group, Service-Identifier) as named in the request, -1 where it named none."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """Price per started block of units."""

    block_units: int
    """Octets, seconds or events in one block."""
    block_micro: int
    """Price of a started block, micro-units."""

    def price_micro(self, units: int) -> int:
        """Price of the first `units` units of a session: whole blocks, a started one counts whole."""
        return -(-units // self.block_units) * self.block_micro


DATA: Final = Tariff(1 << 20, 10_000)
VOICE: Final = Tariff(60, 90_000)
SMS: Final = Tariff(1, 50_000)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A report that got no answer: the server has debited it or not, and knows which."""

    session_id: str
    service: Service
    used_before: int
    """Units of the service that were debited without doubt."""
    units: int
    price_micro: int


class Audit:
    """Sums over all sessions of one run."""

    __slots__ = ("debited_micro", "doubts", "uncertain_micro")

    def __init__(self) -> None:
        self.debited_micro = 0
        self.uncertain_micro = 0
        """At most this much more may have been debited: usage whose report got no answer."""
        self.doubts: list[Doubt] = []
        """What that consists of."""


class SessionAudit:
    """The usage of one session (or event), service by service."""

    __slots__ = ("_audit", "_session_id", "_tariff", "_used")

    def __init__(self, audit: Audit, tariff: Tariff, session_id: str = "") -> None:
        self._audit = audit
        self._tariff = tariff
        self._session_id = session_id
        self._used: dict[Service, int] = {}

    def used(self, service: Service) -> int:
        """Units of the service debited so far."""
        return self._used.get(service, 0)

    def debited(self, service: Service, units: int) -> None:
        """A report of `units` (>= 0) more was answered and stands."""
        self._audit.debited_micro += self._price_of_more(service, units)
        self._used[service] = self.used(service) + units

    def unanswered(self, service: Service, units: int) -> None:
        """A report of `units` (>= 0) more got no answer, even when repeated."""
        price_micro = self._price_of_more(service, units)
        self._audit.uncertain_micro += price_micro
        if units:
            self._audit.doubts.append(Doubt(self._session_id, service, self.used(service), units, price_micro))

    def _price_of_more(self, service: Service, units: int) -> int:
        if units < 0:
            raise ValueError(f"usage cannot be negative: {units}")
        before = self.used(service)
        return self._tariff.price_micro(before + units) - self._tariff.price_micro(before)
