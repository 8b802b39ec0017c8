"""Whole sessions on a real store, legal and illegal clients, against the naive ledger.

Conformance rows 16, 19 to 23 and 26 to 28.

Every answer is compared with what the naive ledger would grant, every request may be repeated at any time and must
then get its first answer again and change nothing, and at the end the whole store is verified.
"""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from balance.directory import NewBucket, create_account, read_account, top_up_account
from balance.embedded import Address
from balance.model import AccountKind, Outcome, Subscriber, Unit
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from balance.verify import verify
from occ.charging import Charging
from occ.expiry import Expiry
from occ.profiles import LENIENT
from occ.rating.catalogue import Catalogue, Service
from occ.rating.price import StepPrice
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units
from tests.naive_ledger import NaiveBucket, NaiveLedger, NaiveService

CONTEXT = b"32251@3gpp.org"
VALIDITY_S = 100
GROUPS = (10, 20)
PRICES = {10: (4, 7), 20: (1, 3)}
CATALOGUE = Catalogue(
    "test",
    978,
    tuple(Service(f"rg{group}", CONTEXT, frozenset([group]), Unit.OCTETS, 6, 1000, VALIDITY_S) for group in GROUPS),
    {"standard": {f"rg{group}": StepPrice(Unit.OCTETS, *PRICES[group]) for group in GROUPS}},
)

parts = st.dictionaries(
    st.sampled_from(GROUPS),
    st.tuples(st.none() | st.integers(0, 20), st.none() | st.integers(0, 25)),
    min_size=1,
)
"""Rating-Group to (units used or None, units asked for or None; 0 asks the server to choose)."""


class ChargingMachine(RuleBasedStateMachine):
    address: Address
    run_number = 0

    @initialize(
        money=st.integers(0, 80), allowance=st.integers(0, 10), postpaid=st.booleans(), limit=st.integers(0, 40)
    )
    def start(self, money: int, allowance: int, postpaid: bool, limit: int) -> None:
        type(self).run_number += 1
        self.name = f"{id(type(self)):x}-{self.run_number}".encode()
        self.now = 1_000_000
        self.runner = asyncio.Runner()
        self.runner.run(self._start(money, allowance, postpaid, limit))
        self.naive = NaiveLedger({1: NaiveBucket("money", money, 100, limit), 2: NaiveBucket("octets", allowance, 1)})
        self.open: dict[int, tuple[int, int]] = {}  # session -> (next request number, when supervision ends)
        self.sessions = 0
        self.sent: list[tuple[CreditControlRequest, Outcome, int]] = []

    async def _start(self, money: int, allowance: int, postpaid: bool, limit: int) -> None:
        self.store = Store(StoreSettings(self.address, partitions=4))
        await self.store.start()
        await create_account(
            self.store,
            self.name,
            AccountKind.POSTPAID if postpaid else AccountKind.PREPAID,
            978,
            now_ms=self.now,
            reason="test",
            balance_micro=money,
            credit_limit_micro=limit,
            buckets=[NewBucket(Unit.OCTETS, allowance, priority=1)],
        )
        await add_subscriber(self.store, Subscriber(self.name, self.name, "standard", ((4, self.name),)))
        self.charging = Charging(self.store, Rules(CATALOGUE, ChargingSettings()))
        self.expiry = Expiry(self.charging, lambda: self.now)

    def charge(self, request: CreditControlRequest) -> Outcome:
        async def wait() -> Outcome:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self.charging.charge(request, LENIENT, b"pgw", self.now, future.set_result)
            return await future

        return self.runner.run(wait())

    def request(self, session: int, kind: int, number: int, asked: dict[int, Any]) -> CreditControlRequest:
        services = tuple(
            ServiceRequest(
                group,
                (),
                None if wanted is None else Units(total_octets=wanted or None),
                () if used is None else (Units(total_octets=used),),
            )
            for group, (used, wanted) in asked.items()
        )
        return CreditControlRequest(
            0xC0, 1, 2, b"%b;%d" % (self.name, session), b"pgw", b"r", b"r", CONTEXT, kind, number,
            subscriptions=((4, self.name),), services=services,
        )  # fmt: skip

    def use(self, session: int, group: int) -> str:
        name = f"{session}/{group}"
        self.naive.services.setdefault(name, NaiveService("octets", *PRICES[group]))
        return name

    def expect(self, session: int, asked: dict[int, Any], grants_allowed: bool) -> dict[int, int | None]:
        """What the naive ledger grants: units by Rating-Group, None where nothing was asked for."""
        for group, (used, wanted) in asked.items():
            name = self.use(session, group)
            if used is not None:
                self.naive.use(name, used)
            elif wanted is not None:
                self.naive.release(name)
        return {
            group: self.naive.grant(self.use(session, group), wanted or 6)
            if wanted is not None and grants_allowed
            else None
            for group, (_, wanted) in asked.items()
        }

    def compare(self, outcome: Outcome, expected: dict[int, int | None]) -> None:
        assert {grant.rating_group for grant in outcome.grants} == set(expected)
        for grant in outcome.grants:
            units = expected[grant.rating_group]
            if units is None:
                assert (grant.result_code, grant.units) == (2001, -1)
            elif units == 0:
                assert (grant.result_code, grant.units) == (4012, -1)
            else:
                assert (grant.result_code, grant.units) == (2001, units)

    @rule(asked=parts)
    def initial(self, asked: dict[int, Any]) -> None:
        session = self.sessions = self.sessions + 1
        asked = {group: (None, wanted if wanted is not None else 3) for group, (_, wanted) in asked.items()}
        request = self.request(session, 1, 0, asked)
        outcome = self.charge(request)
        expected = self.expect(session, asked, True)
        self.compare(outcome, expected)
        if any(expected.values()):
            assert outcome.result_code == 2001
            self.open[session] = (1, self.now + 2 * VALIDITY_S * 1000)
        else:
            assert outcome.result_code == 4012
        self.sent.append((request, outcome, self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), asked=parts, skipped=st.sampled_from([0, 0, 0, 2]))
    def update(self, data: Any, asked: dict[int, Any], skipped: int) -> None:
        session = data.draw(st.sampled_from(sorted(self.open)))
        number = self.open[session][0] + skipped
        request = self.request(session, 2, number, asked)
        outcome = self.charge(request)
        assert outcome.result_code == 2001
        self.compare(outcome, self.expect(session, asked, True))
        self.open[session] = (number + 1, self.now + 2 * VALIDITY_S * 1000)
        self.sent.append((request, outcome, self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), asked=parts)
    def terminate(self, data: Any, asked: dict[int, Any]) -> None:
        session = data.draw(st.sampled_from(sorted(self.open)))
        number, _ = self.open.pop(session)
        request = self.request(session, 3, number, asked)
        outcome = self.charge(request)
        assert outcome.result_code == 2001
        self.compare(outcome, self.expect(session, asked, False))
        self.release_all(session)
        self.sent.append((request, outcome, self.now))

    def release_all(self, session: int) -> None:
        for name in self.naive.services:
            if name.startswith(f"{session}/"):
                self.naive.release(name)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: Any) -> None:
        """Row 16. Answers of the last minutes are kept; older repeats are refused and change nothing."""
        request, first, sent_at = data.draw(st.sampled_from(self.sent))
        again = self.charge(request)
        assert again == first or (again.result_code == 5012 and self.now - sent_at > 300_000)

    @precondition(lambda self: len(self.sent) > 0)
    @rule()
    def repeat_the_last(self) -> None:
        request, first, _ = self.sent[-1]
        assert self.charge(request) == first

    @rule(session=st.integers(1000, 1003), kind=st.sampled_from([2, 3]), asked=parts)
    def unknown_session(self, session: int, kind: int, asked: dict[int, Any]) -> None:
        """Row 22."""
        assert self.charge(self.request(session, kind, 5, asked)).result_code == 5002

    @rule(units=st.integers(1, 5))
    def event(self, units: int) -> None:
        """Row 19: direct debiting, all or nothing."""
        session = self.sessions = self.sessions + 1
        request = self.request(session, 4, 0, {20: (None, units)})
        outcome = self.charge(request)
        name = self.use(session, 20)
        if self.naive.grant(name, units) == units:
            self.naive.use(name, units)
            assert (outcome.result_code, outcome.grants[0].units) == (2001, units)
        else:
            self.naive.release(name)
            assert outcome.result_code == 4012
        self.sent.append((request, outcome, self.now))

    @rule(amount=st.integers(1, 30))
    def top_up(self, amount: int) -> None:
        self.runner.run(top_up_account(self.store, self.name, amount, now_ms=self.now, reason="test"))
        self.naive.buckets[1].balance += amount

    @rule(seconds=st.integers(1, 2 * VALIDITY_S + 10))
    def time_passes(self, seconds: int) -> None:
        """Row 23: supervision gives back exactly what silent sessions held."""
        self.now += seconds * 1000
        self.runner.run(self.expiry.scan(self.now))
        for session, (_, due) in list(self.open.items()):
            if due <= self.now:
                del self.open[session]
                self.release_all(session)
                self.sent = [entry for entry in self.sent if not entry[0].session_id.endswith(b";%d" % session)]

    @invariant()
    def same_books(self) -> None:
        if not hasattr(self, "naive"):
            return
        account = self.runner.run(read_account(self.store, self.name))
        assert account is not None
        for bucket in account.buckets:
            assert bucket.balance == self.naive.buckets[bucket.bucket_id].balance
            assert bucket.reserved == self.naive.held(bucket.bucket_id)
        assert len(account.sessions) == len(self.open)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.stop())
            self.runner.close()


@pytest.mark.shows("row 16", "row 19", "row 20", "row 21", "row 22", "row 23", "row 26", "row 27", "row 28")
def test_charging_against_naive_ledger(clean_redis: Address) -> None:
    """Random sessions; then the ledger of all of them together must be consistent."""
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (ChargingMachine,), {"address": clean_redis})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))

    async def check() -> None:
        store = Store(StoreSettings(clean_redis, partitions=4))
        await store.start()
        report = await verify(store)
        assert report.discrepancies == []
        assert report.accounts > 10
        await store.stop()

    asyncio.run(check())
