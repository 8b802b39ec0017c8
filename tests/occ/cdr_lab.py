"""Sessions charged on one account in memory, and the charging data records they leave.

Steps, plans and how they are written down are the server's; only the store is left out.
"""

from pathlib import Path
from typing import Any

from balance.accounts import Account, Session
from balance.embedded import Address
from balance.lane import ABSENT
from balance.model import AccountKind, Bucket, Offer, Subscriber, Unit
from balance.plans import Lookup, Outcome, Plan, Step
from balance.records import pack_account, pack_session, unpack_account, unpack_outbox, unpack_session
from balance.store import Store, StoreSettings
from occ.cdr import as_json_fields, unrecorded_micro
from occ.cdr_files import Delivery, entry_name
from occ.charging import Charge, Charging
from occ.expiry import Expiry
from occ.profiles import LENIENT
from occ.rating.catalogue import Catalogue, read_catalogue
from occ.rules import ChargingSettings, Rules
from occ.yamlmap import parse_yaml
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

CONTEXT = b"32251@3gpp.org"
INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
DEBIT, REFUND = 0, 1
NOON = 1_780_315_200_000
"""2026-06-01 12:00 UTC."""
HOUR = 3_600_000

SERVICES = """
version: {version}
currency: EUR
time_zone: UTC
services:
  internet: {{context: 32251@3gpp.org, rating_groups: [10], unit: octets, quota: 100 B, validity: 30 min}}
  video: {{context: 32251@3gpp.org, rating_groups: [20], unit: octets, quota: 100 B, validity: 30 min}}
  voice: {{context: 32251@3gpp.org, rating_groups: [30], unit: seconds, quota: 60 s, validity: 30 min}}
plans:
  standard:
    internet: 0.000003 per 10 B
    video: {video}
    voice: 0.000002 per 1 s
{more}
"""


def catalogue(version: str = "v1", video: str = "0.000001 per 1 B", more: str = "") -> Catalogue:
    """Three services. ``video``: the tariff of the second; ``more``: further sections."""
    return read_catalogue(
        parse_yaml(SERVICES.format(version=version, video=video, more=more), "catalogue.yaml", Path())
    )


def delivery(number: int, fields: dict[str, Any]) -> Delivery:
    """A record as the outbox hands it on, alone in the entry of that number."""
    place = number, 0, 1
    return Delivery(0, place, {"entry": entry_name(0, place), **fields})


def octets(amount: int) -> tuple[Units, ...]:
    return (Units(total_octets=amount),)


class Ledger:
    """One account with ``money`` micro-units, octets of an allowance beside it if any, and a clock set by hand."""

    def __init__(
        self, money: int = 1_000_000, allowance: int = 0, sold: Catalogue | None = None, partial_ms: int = HOUR
    ) -> None:
        self.now = NOON
        self.settings = ChargingSettings(partial_record_ms=partial_ms)
        self.charging = Charging(Store(StoreSettings(Address())), Rules(sold or catalogue(), self.settings))
        self.expiry = Expiry(self.charging, lambda: self.now)
        buckets = [Bucket(1, Unit.MONEY, money)]
        if allowance:
            buckets.append(Bucket(2, Unit.OCTETS, allowance, priority=1))
        self._value = pack_account(Account(b"acc-1", 1, AccountKind.PREPAID, 978, 0, 0, buckets, {}))
        self._ended: dict[bytes, bytes] = {}
        self.records: list[dict[str, Any]] = []

    @property
    def account(self) -> Account:
        return unpack_account(b"acc-1", self._value)

    def sell(self, sold: Catalogue) -> None:
        """Charge by another catalogue from now on."""
        self.charging.rules = Rules(sold, self.settings)

    def rent(self, name: str, bonus: int) -> None:
        """Give the account an offer whose fee is due now, and some money in a bucket that is spent first."""
        account = self.account
        account.offers = [*account.offers, Offer(name, self.now - HOUR, self.now)]
        account.buckets.append(Bucket(len(account.buckets) + 1, Unit.MONEY, bonus, priority=1))
        self._value = pack_account(account)

    def send(
        self,
        kind: int,
        number: int,
        *services: ServiceRequest,
        session: bytes = b"s",
        host: bytes = b"pgw.example.net",
        **told: Any,
    ) -> Outcome:
        request = CreditControlRequest(
            0xC0, 1, 2, session, host, b"example.net", b"example.net", CONTEXT, kind, number,
            subscriptions=((0, b"491"),), services=services, **told,
        )  # fmt: skip
        charge = Charge(self.charging, request, LENIENT, b"pgw.example.net", self.now, print)
        charge.subscriber = Subscriber(b"sub-1", b"acc-1", "standard", ((0, b"491"),), member_of=b"branch-7")
        plan = self._write(charge.step)
        assert plan.outcome is not None
        return plan.outcome

    def expire(self) -> None:
        """What supervision does now."""
        self._write(lambda account, _: self.expiry._expire(account, self.now, {}, set()))

    def open_session(self, session: bytes = b"s") -> Session | None:
        return self.account.sessions.get(session)

    def unrecorded(self) -> int:
        """Micro-units debited for open sessions that no record tells of."""
        return sum(unrecorded_micro(use) for each in self.account.sessions.values() for use in each.services)

    def recorded(self, field: str) -> int:
        return sum(record[field] for record in self.records)

    def _write(self, step: Step) -> Plan:
        plan = step(self.account, None)
        if isinstance(plan, Lookup):
            kept = self._ended.get(plan.session_id)
            plan = step(self.account, unpack_session(kept) if kept else ABSENT)
        assert isinstance(plan, Plan)
        if plan.account is not None:
            self._value = pack_account(plan.account)
        for ended in (plan.ended, plan.amended):
            if ended is not None:
                self._ended[ended.session_id] = pack_session(ended)
        if plan.outbox:
            self.records += map(as_json_fields, unpack_outbox(plan.outbox))
        return plan
