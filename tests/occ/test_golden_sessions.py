"""Whole sessions by a richer catalogue: bundles, shared buckets, tiers, caps, members, promotions, states, zones."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from balance.accounts import Account, Session
from balance.directory import NewBucket, create_account, read_account
from balance.embedded import Address
from balance.ledger import Draft, add_bucket
from balance.model import AccountKind, LifeState, Subscriber, Unit
from balance.plans import Outcome
from balance.plans import Plan as LedgerPlan
from balance.records import make_plan
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber, set_subscriber_state
from balance.verify import verify
from occ.charging import Charging
from occ.expiry import Expiry
from occ.lifecycle import check_change
from occ.profiles import LENIENT
from occ.rating.catalogue import load_catalogue
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

DATA, VOICE = b"32251@3gpp.org", b"32260@3gpp.org"
MIB = 1 << 20

CATALOGUE = """
version: golden
currency: EUR
numbering: {country_code: 49, national_prefix: 0, emergency: [110, 112]}
destinations: {national: [49], kazakhstan: [76, 77], russia: [7], world: any}
networks: {home: [26201], eu: [208], world: any}
services:
  roaming: {context: 32251@3gpp.org, networks: [eu], unit: octets, quota: 1 MiB, maximum_quota: 100 MiB, validity: 30 min}
  tiered: {context: 32251@3gpp.org, rating_groups: [20], unit: octets, quota: 1 MiB, maximum_quota: 100 MiB, validity: 30 min}
  capped: {context: 32251@3gpp.org, rating_groups: [30], unit: octets, quota: 1 MiB, maximum_quota: 100 MiB, validity: 30 min}
  happy: {context: 32251@3gpp.org, rating_groups: [40], unit: octets, quota: 1 MiB, maximum_quota: 100 MiB, validity: 30 min}
  waived: {context: 32251@3gpp.org, rating_groups: [50], unit: octets, quota: 1 MiB, maximum_quota: 9 MiB, validity: 30 min, usage_beyond_grant: waive}
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, maximum_quota: 100 MiB, validity: 30 min}
  emergency: {context: 32260@3gpp.org, destinations: [emergency], essential: yes, unit: seconds, quota: 60 s, validity: 5 min}
  calls-kz: {context: 32260@3gpp.org, destinations: [kazakhstan], unit: seconds, quota: 60 s, validity: 5 min}
  calls: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, maximum_quota: 600 s, validity: 30 min}
allowances:
  bundle: {amount: 3 MiB, serves: [internet], priority: 10, shared: yes}
bonuses:
  gift: {serves: [internet], priority: 1, valid: 1 h}
promotions:
  - {name: evening, discount: 50 %, happy_hour: {from: "20:00", to: "22:00"}, when: {services: [happy]}}
plans:
  standard:
    roaming: 0.50 per 1 MiB
    tiered:
      counted: month
      tiers: [{up_to: 4 MiB, price: 0.10 per 1 MiB}, {price: 0.01 per 1 MiB}]
    capped: 0.10 per 1 MiB
    happy: 0.10 per 1 MiB
    waived: 0.10 per 1 MiB
    internet: 0.10 per 1 MiB
    emergency: free
    calls-kz: 1.00 per 60 s
    calls: {connection: 0.05, first: 0.10 per 60 s, then: 0.01 per 6 s}
    caps: {capped: 0.35 per day}
  other:
    internet: 0.20 per 1 MiB
"""  # noqa: E501 - a table is read across


class Golden:
    """Two members of one account, and a clock."""

    def __init__(self, store: Store, catalogue: Path) -> None:
        self.now = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()) * 1000
        self.store = store
        self.charging = Charging(store, Rules(load_catalogue(catalogue), ChargingSettings()))
        self.expiry = Expiry(self.charging, lambda: self.now)
        self.numbers: dict[str, int] = {}

    async def ask(
        self,
        session: str,
        kind: int,
        group: int = 10,
        used: int | None = None,
        wants: int | None = None,
        member: bytes = b"ann",
        called: bytes | None = None,
        network: bytes | None = None,
    ) -> Outcome:
        """Send one request, octets in MiB or seconds for calls; the next number of its session."""
        voice = called is not None

        def units(amount: int | None) -> Units | None:
            if amount is None:
                return None
            return Units(time=amount) if voice else Units(total_octets=amount * MIB)

        number = self.numbers.get(session, 0)
        self.numbers[session] = number + 1
        reported = units(used)
        service = ServiceRequest(group, (), units(wants), () if reported is None else (reported,))
        request = CreditControlRequest(
            0xC0, 1, 2, session.encode(), b"pgw", b"r", b"r", VOICE if voice else DATA, kind, number,
            subscriptions=((4, member),), services=(service,), called_party=called, sgsn_mcc_mnc=network,
        )  # fmt: skip
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.charging.charge(request, LENIENT, b"pgw", self.now, future.set_result)
        return await future

    async def account(self) -> Account:
        found = await read_account(self.store, b"family")
        assert found is not None
        return found

    async def money(self) -> int:
        """Cents of the main bucket."""
        return (await self.account()).buckets[0].balance // 10_000

    async def give(self, unit: Unit, amount: int, name: str, owner: bytes = b"", expires_ms: int = 0) -> None:
        def step(account: Account | None, _: Session | None) -> LedgerPlan:
            assert account is not None
            draft = Draft(account, self.now)
            add_bucket(draft, unit, amount, 10, expires_ms, name, owner)
            return make_plan(draft, "bucket", ("test",), None)

        await self.store.commit(b"family", step)


@pytest.fixture
async def golden(clean_redis: Address, tmp_path: Path) -> AsyncIterator[Golden]:
    path = tmp_path / "catalogue.yaml"
    path.write_text(CATALOGUE)
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    await create_account(
        store, b"family", AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=10_000_000,
        buckets=[NewBucket(Unit.SECONDS, 0)],
    )  # fmt: skip
    await add_subscriber(store, Subscriber(b"ann", b"family", "standard", ((4, b"ann"),)))
    await add_subscriber(store, Subscriber(b"bob", b"family", "standard", ((4, b"bob"),), cap_day_micro=300_000))
    yield Golden(store, path)
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def test_a_bundle_ends_in_the_middle_and_money_takes_over(golden: Golden) -> None:
    await golden.give(Unit.OCTETS, 3 * MIB, "bundle")
    outcome = await golden.ask("s", 1, wants=5)
    assert outcome.grants[0].units == 5 * MIB
    await golden.ask("s", 3, used=5)
    assert await golden.money() == 980
    assert (await golden.account()).buckets[-1].balance == 0


async def test_a_bundle_serves_only_what_it_is_for(golden: Golden) -> None:
    await golden.give(Unit.OCTETS, 3 * MIB, "bundle")
    await golden.ask("s", 1, group=30, wants=1)
    await golden.ask("s", 3, group=30, used=1)
    assert await golden.money() == 990
    assert (await golden.account()).buckets[-1].balance == 3 * MIB


async def test_two_members_share_a_bucket_at_once(golden: Golden) -> None:
    await golden.give(Unit.OCTETS, 3 * MIB, "bundle")
    first, second = await asyncio.gather(golden.ask("a", 1, wants=2), golden.ask("b", 1, wants=2, member=b"bob"))
    assert (first.grants[0].units, second.grants[0].units) == (2 * MIB, 2 * MIB)
    await asyncio.gather(golden.ask("a", 3, used=2), golden.ask("b", 3, used=2, member=b"bob"))
    account = await golden.account()
    assert (account.buckets[-1].balance, await golden.money()) == (0, 990)


async def test_a_bucket_of_one_member_is_not_the_others(golden: Golden) -> None:
    await golden.give(Unit.OCTETS, 3 * MIB, "bundle", owner=b"ann")
    await golden.ask("b", 1, wants=1, member=b"bob")
    await golden.ask("b", 3, used=1, member=b"bob")
    assert await golden.money() == 990
    await golden.ask("a", 1, wants=1)
    await golden.ask("a", 3, used=1)
    assert await golden.money() == 990


async def test_bonus_money_goes_first_where_it_may_and_expires_during_a_session(golden: Golden) -> None:
    await golden.give(Unit.MONEY, 250_000, "gift", expires_ms=golden.now + 600_000)
    await golden.ask("s", 1, wants=1)
    golden.now += 60_000
    await golden.ask("s", 2, used=1, wants=1)  # 0.10 of the gift are spent, 0.10 are reserved
    golden.now += 600_000
    await golden.expiry.scan(golden.now)
    await golden.ask("s", 2, used=1, wants=1)  # what was promised is still good, nothing new
    await golden.ask("s", 3, used=1)
    account = await golden.account()
    assert (account.buckets[-1].balance, await golden.money()) == (0, 990)


async def test_a_tier_is_reached_by_two_sessions_together(golden: Golden) -> None:
    """Four MiB a month at 0.10, then 0.01: three of one session and three of another are four and two."""
    await golden.ask("a", 1, group=20, wants=3)
    await golden.ask("a", 3, group=20, used=3)
    assert await golden.money() == 970
    await golden.ask("b", 1, group=20, wants=3)
    await golden.ask("b", 3, group=20, used=3)
    assert await golden.money() == 970 - 10 - 2
    golden.now += 31 * 86_400_000
    await golden.ask("c", 1, group=20, wants=1)
    await golden.ask("c", 3, group=20, used=1)
    assert await golden.money() == 948


async def test_never_more_than_the_cap_a_day(golden: Golden) -> None:
    for number in range(3):
        await golden.ask(f"s{number}", 1, group=30, wants=2)
        await golden.ask(f"s{number}", 3, group=30, used=2)
    assert await golden.money() == 1000 - 35
    await golden.ask("night", 1, group=30, wants=2)
    golden.now += 12 * 3_600_000
    await golden.ask("night", 3, group=30, used=2)
    assert await golden.money() == 1000 - 35 - 20


async def test_a_member_is_granted_no_more_than_the_cap(golden: Golden) -> None:
    outcome = await golden.ask("b", 1, wants=10, member=b"bob")
    assert (outcome.grants[0].units, outcome.grants[0].final) == (3 * MIB, True)
    await golden.ask("b", 3, used=3, member=b"bob")
    assert (await golden.ask("b2", 1, wants=1, member=b"bob")).result_code == 4012
    assert (await golden.ask("a", 1, wants=1)).result_code == 2001
    golden.now += 86_400_000
    assert (await golden.ask("b3", 1, wants=1, member=b"bob")).result_code == 2001


async def test_a_call_with_connection_fee_and_increments(golden: Golden) -> None:
    """0.05 for the connection, 0.10 for the first minute, then 0.01 for each six seconds begun: 61 s cost 0.16."""
    await golden.ask("c", 1, wants=120, called=b"tel:+4930123456")
    golden.now += 61_000
    await golden.ask("c", 2, used=61, wants=60, called=b"tel:+4930123456")
    assert await golden.money() == 984
    golden.now += 5_000
    await golden.ask("c", 3, used=5, called=b"tel:+4930123456")
    assert await golden.money() == 984


@pytest.mark.parametrize(
    ("called", "cents"), [(b"tel:+76012345678", 100), (b"tel:+77012345678", 100), (b"tel:+79012345678", 15)]
)
async def test_kazakhstan_is_not_russia(golden: Golden, called: bytes, cents: int) -> None:
    await golden.ask("c", 1, wants=60, called=called)
    golden.now += 60_000
    await golden.ask("c", 3, used=60, called=called)
    assert await golden.money() == 1000 - cents


async def test_roaming_has_its_own_price(golden: Golden) -> None:
    await golden.ask("r", 1, wants=1, network=b"20801")
    await golden.ask("r", 3, used=1)
    assert await golden.money() == 950


async def test_happy_hour_begins_in_the_middle_of_a_session(golden: Golden) -> None:
    golden.now = int(datetime(2026, 3, 10, 19, 50, tzinfo=UTC).timestamp()) * 1000
    outcome = await golden.ask("h", 1, group=40, wants=2)
    assert outcome.grants[0].validity_time_s == 600
    golden.now += 600_000
    await golden.ask("h", 2, group=40, used=1, wants=2)
    assert await golden.money() == 995  # nobody can tell on which side it was used: the cheaper one
    before = await golden.money()
    golden.now += 60_000
    await golden.ask("h", 3, group=40, used=2)
    assert await golden.money() == before - 10


async def test_a_session_keeps_its_plan_and_the_next_has_the_new_one(golden: Golden) -> None:
    from dataclasses import replace

    from balance.subscribers import change_subscriber

    await golden.ask("old", 1, wants=1)
    await change_subscriber(
        golden.store, b"ann", lambda known: replace(known, next_plan="other", next_plan_ms=golden.now + 1000)
    )
    golden.now += 60_000
    await golden.ask("old", 3, used=1)
    assert await golden.money() == 990
    await golden.ask("new", 1, wants=1)
    await golden.ask("new", 3, used=1)
    assert await golden.money() == 970


@pytest.mark.parametrize("state", [LifeState.SUSPENDED, LifeState.BLOCKED])
async def test_a_barred_member_may_only_call_for_help(golden: Golden, state: LifeState) -> None:
    await golden.ask("running", 1, wants=2)
    await set_subscriber_state(golden.store, b"ann", state, golden.now, "test", check_change)
    outcome = await golden.ask("running", 2, used=1, wants=2)
    assert (outcome.result_code, outcome.grants[0].result_code) == (2001, 4010)
    assert await golden.money() == 990
    assert (await golden.ask("new", 1, wants=1)).result_code == 4010
    assert (await golden.ask("sos", 1, wants=60, called=b"tel:112")).result_code == 2001
    assert (await golden.ask("bob", 1, wants=1, member=b"bob")).result_code == 2001
    await set_subscriber_state(golden.store, b"ann", LifeState.ACTIVE, golden.now, "test", check_change)
    assert (await golden.ask("again", 1, wants=1)).result_code == 2001


async def test_a_members_cap_holds_over_sessions_at_once(golden: Golden) -> None:
    outcomes = [await golden.ask(f"b{number}", 1, wants=10, member=b"bob") for number in range(3)]
    assert [outcome.grants[0].units for outcome in outcomes] == [3 * MIB, -1, -1]
    await golden.ask("b0", 3, used=3, member=b"bob")
    assert await golden.money() == 970


async def test_a_cheap_tier_is_granted_once(golden: Golden) -> None:
    """Four MiB at 0.10 are promised to the first session: the second is granted, and reserved, at 0.01."""
    await golden.ask("a", 1, group=20, wants=4)
    await golden.ask("b", 1, group=20, wants=4)
    assert (await golden.account()).buckets[0].reserved == 440_000


async def test_what_is_said_to_be_used_after_a_switch_hours_ahead_is_not(golden: Golden) -> None:
    await golden.ask("h", 1, group=40, wants=2)
    golden.numbers["h"] = 2
    used = Units(total_octets=2 * MIB, tariff_change_usage=1)
    request = CreditControlRequest(
        0xC0, 1, 2, b"h", b"pgw", b"r", b"r", DATA, 3, 1, services=(ServiceRequest(40, (), None, (used,)),)
    )
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    golden.charging.charge(request, LENIENT, b"pgw", golden.now, future.set_result)
    await future
    assert await golden.money() == 980


async def test_a_waived_overshoot_is_that_of_the_whole_request(golden: Golden) -> None:
    """A Rating-Group that is named twice has one grant, which both reports use up."""
    await golden.ask("w", 1, group=50, wants=2)
    half = Units(total_octets=MIB)
    services = tuple(ServiceRequest(50, (), None, (half,)) for _ in range(2))
    request = CreditControlRequest(0xC0, 1, 2, b"w", b"pgw", b"r", b"r", DATA, 3, 1, services=services)
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    golden.charging.charge(request, LENIENT, b"pgw", golden.now, future.set_result)
    await future
    assert await golden.money() == 980
