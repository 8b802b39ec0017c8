"""Supervision on a real store: rows 17 and 23; accounts that cannot be read do not keep the others waiting."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from balance.directory import create_account, read_account
from balance.embedded import Address
from balance.model import AccountKind, Subscriber, Unit
from balance.plans import Outcome
from balance.resp import StoreUnavailableError
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from balance.verify import verify
from occ import expiry
from occ.charging import Charging
from occ.expiry import Expiry
from occ.profiles import LENIENT
from occ.rating.catalogue import Catalogue, Service
from occ.rating.price import StepPrice
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

CONTEXT = b"32251@3gpp.org"
CATALOGUE = Catalogue(
    "test",
    978,
    (Service("internet", CONTEXT, None, Unit.OCTETS, 100, 1000, 60),),
    {"standard": {"internet": StepPrice(Unit.OCTETS, 10, 1)}},
)


class Lab:
    """A store with some accounts and a clock that is set by hand."""

    def __init__(self, store: Store) -> None:
        self.now = 1_000_000
        self.store = store
        self.charging = Charging(store, Rules(CATALOGUE, ChargingSettings()))
        self.expiry = Expiry(self.charging, lambda: self.now)

    def sell(self, catalogue: Catalogue) -> None:
        """Charge by another catalogue from now on."""
        self.charging.rules = Rules(catalogue, ChargingSettings())

    async def open_session(self, account: str, session: str, host: str, state_id: int | None) -> Outcome:
        return await self.send(account, session, host, state_id, 1, 0, ServiceRequest(10, (), Units()))

    async def send(
        self,
        account: str,
        session: str,
        host: str,
        state_id: int | None,
        kind: int,
        number: int,
        service: ServiceRequest,
    ) -> Outcome:
        request = CreditControlRequest(
            0xC0, 1, 2, session.encode(), host.encode(), b"r", b"r", CONTEXT, kind, number,
            subscriptions=((4, account.encode()),), origin_state_id=state_id, services=(service,),
        )  # fmt: skip
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.charging.charge(request, LENIENT, host.encode(), self.now, future.set_result)
        return await future

    async def money(self, account: str) -> tuple[int, int]:
        found = await read_account(self.store, account.encode())
        assert found is not None
        return found.buckets[0].balance, found.buckets[0].reserved


@pytest.fixture
async def lab(clean_redis: Address) -> AsyncIterator[Lab]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    for name in (b"a", b"b", b"c"):
        await create_account(store, name, AccountKind.PREPAID, 978, now_ms=1, reason="test", balance_micro=1000)
        await add_subscriber(store, Subscriber(name, name, "standard", ((4, name),)))
    yield Lab(store)
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def test_row_23_a_silent_session_gives_back_exactly_what_it_held(lab: Lab) -> None:
    """RFC 8506 section 13: Tcc is twice the Validity-Time."""
    await lab.open_session("a", "s1", "pgw", None)
    assert await lab.money("a") == (1000, 10)
    lab.now += 119_999
    await lab.expiry.scan(lab.now)
    assert await lab.money("a") == (1000, 10)
    lab.now += 1
    await lab.expiry.scan(lab.now)
    assert await lab.money("a") == (1000, 0)
    assert lab.charging.statistics.expired_sessions == 1
    assert lab.charging.statistics.open_reservations == 0


async def test_row_20_an_update_restarts_supervision(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    lab.now += 100_000
    await lab.send("a", "s1", "pgw", None, 2, 1, ServiceRequest(10, (), Units(), (Units(total_octets=10),)))
    lab.now += 100_000
    await lab.expiry.scan(lab.now)
    assert await lab.money("a") == (999, 10)
    lab.now += 20_000
    await lab.expiry.scan(lab.now)
    assert await lab.money("a") == (999, 0)


async def test_row_22_a_late_termination_debits_what_it_reports_once(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    lab.now += 120_000
    await lab.expiry.scan(lab.now)
    late = ServiceRequest(10, (), None, (Units(total_octets=50),))
    for _ in range(2):
        assert (await lab.send("a", "s1", "pgw", None, 3, 1, late)).result_code == 2001
    assert await lab.money("a") == (995, 0)


async def test_row_17_a_higher_origin_state_id_releases_the_sessions_of_that_client(lab: Lab) -> None:
    await lab.open_session("a", "s1", "PGW.example", 5)
    await lab.open_session("b", "s2", "pgw.example", 5)
    await lab.open_session("c", "s3", "other.example", 5)
    assert await lab.expiry.release_lost({b"pgw.example": 6}) == 2
    assert await lab.money("a") == (1000, 0)
    assert await lab.money("b") == (1000, 0)
    assert await lab.money("c") == (1000, 10)


@pytest.mark.parametrize(("told", "current"), [(None, 9), (0, 9), (9, 9), (9, 5)])
async def test_row_17_nothing_is_inferred_from_an_absent_zero_equal_or_lower_one(
    lab: Lab, told: int | None, current: int
) -> None:
    await lab.open_session("a", "s1", "pgw", told)
    assert await lab.expiry.release_lost({b"pgw": current}) == 0
    assert await lab.money("a") == (1000, 10)


async def test_row_17_in_the_background(lab: Lab) -> None:
    await lab.open_session("a", "s1", "pgw", 5)
    running = asyncio.create_task(lab.expiry.run_restarts())
    lab.expiry.client_state(b"pgw", 6)
    for _ in range(200):
        if (await lab.money("a"))[1] == 0:
            break
        await asyncio.sleep(0.01)
    assert await lab.money("a") == (1000, 0)
    running.cancel()


async def test_restarts_that_wait_for_the_store_are_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is an agent can name any number of clients, and no store takes them off while it is gone."""
    told: list[int] = []

    async def unreachable(restarted: dict[bytes, int]) -> int:
        told.append(len(restarted))
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(lab.expiry, "release_lost", unreachable)
    monkeypatch.setattr(expiry, "SCAN_INTERVAL_S", 0.01)
    running = asyncio.create_task(lab.expiry.run_restarts())
    for turn in range(3):
        for number in range(expiry.RESTARTS_REMEMBERED * 2 // 3):
            lab.expiry.client_state(b"gw%d.%d" % (number, turn), 6)
        async with asyncio.timeout(10):
            while len(told) < 3 * (turn + 1):  # noqa: ASYNC110 - it works in the background
                await asyncio.sleep(0.005)
    assert told[-1] == expiry.RESTARTS_REMEMBERED
    assert max(told) == expiry.RESTARTS_REMEMBERED
    running.cancel()


async def test_an_account_that_cannot_be_read_does_not_keep_the_others_waiting(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    await lab.open_session("a", "s1", "pgw", None)
    key = lab.store.keys.account(b"broken")
    await lab.store.call("SET", key, b"\0\0\0\0\0\0\0\1garbage")
    await lab.store.call("ZADD", lab.store.keys.watch(0), 1, b"broken")
    await lab.store.call("ZADD", lab.store.keys.watch(0), 2, b"gone")
    lab.now += 120_000
    await lab.expiry.scan(lab.now)
    assert await lab.money("a") == (1000, 0)
    assert "'broken' cannot be expired" in caplog.text
    assert "'gone' stood in the expiry index but does not exist" in caplog.text
    await lab.store.call("DEL", key)
