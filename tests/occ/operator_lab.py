"""An operator on a real store: a catalogue, accounts with subscribers, requests by the clock that a test sets."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from balance.accounts import Account
from balance.directory import create_account, read_account
from balance.model import AccountKind, Subscriber
from balance.plans import Outcome
from balance.records import unpack_outbox
from balance.store import Store
from balance.structure import add_member
from balance.subscribers import subscriber_named
from occ.cdr import as_json_fields
from occ.charging import Charging
from occ.entitlements import bring_up_to_date
from occ.expiry import Expiry
from occ.profiles import LENIENT
from occ.rating.catalogue import Catalogue, read_catalogue
from occ.renewals import Fee
from occ.rules import ChargingSettings, Rules
from occ.yamlmap import parse_yaml
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

DATA, VOICE, SMS = b"32251@3gpp.org", b"32260@3gpp.org", b"32274@3gpp.org"
INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
MIB = 1 << 20
DAY_MS = 86_400_000


def at(written: str, zone: str = "UTC") -> int:
    """Milliseconds of "2026-03-10 12:00" by the clock of a time zone."""
    moment = datetime.fromisoformat(written).replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))
    return int(moment.timestamp()) * 1000


def catalogue_of(text: str) -> Catalogue:
    return read_catalogue(parse_yaml(text, "catalogue.yaml", Path()))


class Operator:
    """Accounts by name; ``now`` is set by the test."""

    def __init__(self, store: Store, text: str, now: int) -> None:
        self.store = store
        self.now = now
        self.catalogue = catalogue_of(text)
        self.charging = Charging(store, Rules(self.catalogue, ChargingSettings()))
        self.expiry = Expiry(self.charging, lambda: self.now)
        self.numbers: dict[str, int] = {}

    def another_worker(self) -> Charging:
        return Charging(self.store, Rules(self.catalogue, ChargingSettings()))

    def sell(self, text: str) -> None:
        """Another catalogue, as by a reload."""
        self.catalogue = catalogue_of(text)
        self.charging.rules = self.charging.rules.with_catalogue(self.catalogue)

    async def account(self, name: str, cents: int = 0, *, credit_cents: int = 0, cycle_day: int = 1) -> Account:
        """Open one: postpaid with a credit limit, else prepaid."""
        return await create_account(
            self.store,
            name.encode(),
            AccountKind.POSTPAID if credit_cents else AccountKind.PREPAID,
            978,
            now_ms=self.now,
            reason="test",
            balance_micro=cents * 10_000,
            credit_limit_micro=credit_cents * 10_000,
            cycle_day=cycle_day,
        )

    async def subscriber(self, name: str, account: str, plan: str = "standard", **more: Any) -> list[Fee]:
        """Add one in service, with what the plan includes; the fees."""
        new = Subscriber(name.encode(), account.encode(), plan, ((4, name.encode()),), activated_ms=self.now)
        entered = await add_member(self.store, replace(new, **more), self.now, "test")
        assert entered is not None
        return await bring_up_to_date(self.store, self.catalogue, entered, self.now, "test")

    async def refresh(self, name: str) -> list[Fee]:
        """Have the account fit the subscriber's record."""
        found = await subscriber_named(self.store, name.encode())
        assert found is not None
        return await bring_up_to_date(self.store, self.catalogue, found, self.now, "test")

    async def ask(
        self,
        session: str,
        kind: int,
        who: str = "ann",
        used: Units | None = None,
        wants: Units | None = None,
        *,
        context: bytes = DATA,
        group: int | None = 10,
        worker: Charging | None = None,
        **facts: Any,
    ) -> Outcome:
        """Send the next request of a session."""
        number = self.numbers.get(session, 0)
        self.numbers[session] = number + 1
        service = ServiceRequest(group, (), wants, () if used is None else (used,))
        request = CreditControlRequest(
            0xC0, 1, 2, session.encode(), b"client", b"r", b"r", context, kind, number,
            subscriptions=((4, who.encode()),), services=(service,), **facts,
        )  # fmt: skip
        if kind == EVENT and request.requested_action is None:
            request.requested_action = 0
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        (worker or self.charging).charge(request, LENIENT, b"client", self.now, future.set_result)
        return await future

    async def scan(self) -> None:
        """What the clock does."""
        while await self.expiry.scan(self.now):
            pass

    async def read(self, name: str) -> Account:
        found = await read_account(self.store, name.encode())
        assert found is not None
        return found

    async def cents(self, name: str) -> int:
        """Of the main bucket; to be whole cents."""
        micro = (await self.read(name)).buckets[0].balance
        assert micro % 10_000 == 0
        return micro // 10_000

    async def units(self, account: str, bucket: str) -> int:
        """What is in the buckets of a name together."""
        return sum(each.balance for each in (await self.read(account)).buckets if each.name == bucket)

    async def records(self, cause: str | None = None) -> list[dict[str, Any]]:
        entries = await self.store.call("XRANGE", self.store.keys.outbox(0), "-", "+")
        found = [as_json_fields(one) for _, fields in entries for one in unpack_outbox(fields[1])]
        return [each for each in found if cause in (None, each["cause"])]


def mib(amount: int) -> Units:
    return Units(total_octets=amount * MIB)


def seconds(amount: int) -> Units:
    return Units(time=amount)


def messages(amount: int) -> Units:
    return Units(service_specific=amount)
