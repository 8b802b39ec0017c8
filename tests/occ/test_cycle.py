"""The cycle day: months that begin on another day than the first, for caps, tiers, offers and changes of plan."""

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.accounts import Account
from balance.directory import change_account
from balance.embedded import Address
from balance.ledger import Draft
from balance.model import LedgerError, Meter
from balance.records import pack_account, unpack_account
from balance.store import Store, StoreSettings
from balance.subscribers import set_caps
from balance.verify import verify
from occ.cycle import change_cycle_day
from occ.rating.local_time import Calendar
from occ.rating.offers import Every, Offer, Share, Starts
from occ.rating.periods import Period, Periods, cycle_of
from tests.occ.operator_lab import DAY_MS, INITIAL, TERMINATION, Operator, at, mib
from tests.shell import Shell

BERLIN = Calendar(ZoneInfo("Europe/Berlin"))
CATALOGUE = """
version: c
currency: EUR
services:
  tiered: {context: 32251@3gpp.org, rating_groups: [20], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
  capped: {context: 32251@3gpp.org, rating_groups: [30], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
  free: {context: 32251@3gpp.org, rating_groups: [40], unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
plans:
  standard:
    tiered: {counted: month, tiers: [{up_to: 4 MiB, price: 0.10 per 1 MiB}, {price: 0.01 per 1 MiB}]}
    capped: 0.10 per 1 MiB
    free: 0.10 per 1 MiB
    internet: 0.10 per 1 MiB
    caps: {capped: 0.30 per month}
promotions:
  - {name: first-mib, free: 1 MiB per month, when: {services: [free]}}
"""  # noqa: E501 - a table is read across


@pytest.fixture
async def operator(clean_redis: Address) -> AsyncIterator[Operator]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    operator = Operator(store, CATALOGUE, at("2026-03-14 12:00"))
    await operator.account("a", 1000, cycle_day=15)
    await operator.subscriber("ann", "a")
    yield operator
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def use(operator: Operator, session: str, amount: int, group: int) -> int:
    """A session of so many MiB; its cost in cents."""
    before = await operator.cents("a")
    await operator.ask(session, INITIAL, wants=mib(amount), group=group)
    await operator.ask(session, TERMINATION, used=mib(amount), group=group)
    return before - await operator.cents("a")


@pytest.mark.parametrize(
    ("day", "cycle_day", "first", "following"),
    [
        ("2026-01-31", 31, "2026-01-31", "2026-02-28"),
        ("2026-02-27", 31, "2026-01-31", "2026-02-28"),
        ("2026-02-28", 31, "2026-02-28", "2026-03-31"),
        ("2028-02-28", 30, "2028-01-30", "2028-02-29"),
        ("2028-02-29", 31, "2028-02-29", "2028-03-31"),
        ("2026-04-30", 31, "2026-04-30", "2026-05-31"),
        ("2026-12-20", 15, "2026-12-15", "2027-01-15"),
        ("2026-01-14", 15, "2025-12-15", "2026-01-15"),
        ("2026-05-01", 1, "2026-05-01", "2026-06-01"),
    ],
)
def test_a_day_that_a_month_does_not_have_is_its_last(day: str, cycle_day: int, first: str, following: str) -> None:
    assert cycle_of(date.fromisoformat(day), cycle_day) == (date.fromisoformat(first), date.fromisoformat(following))


@given(st.integers(at("2020-01-01"), at("2040-01-01")), st.integers(1, 31))
def test_cycles_follow_each_other_without_a_gap(at_ms: int, cycle_day: int) -> None:
    periods = Periods(BERLIN)
    ends_ms = periods.end_ms(Period.MONTH, at_ms, cycle_day)
    assert 0 < ends_ms - at_ms <= 31 * DAY_MS + 3_600_000
    assert Periods(BERLIN).end_ms(Period.MONTH, ends_ms - 1, cycle_day) == ends_ms
    assert BERLIN.minute_of(ends_ms) == 0
    assert Periods(BERLIN).end_ms(Period.MONTH, ends_ms, cycle_day) > ends_ms


def test_the_first_is_the_calendar_month() -> None:
    assert Periods(BERLIN).end_ms(Period.MONTH, at("2026-02-10 12:00")) == at("2026-03-01 00:00", "Europe/Berlin")


@pytest.mark.parametrize(
    ("starts", "start_day", "cycle_day", "since", "ends", "share"),
    [
        (Starts.DAY_OF_MONTH, 15, 1, "2026-01-20 10:00", "2026-02-15 00:00", Share(26, 31)),
        (Starts.DAY_OF_MONTH, 15, 1, "2026-01-15 00:00", "2026-02-15 00:00", Share(31, 31)),
        (Starts.DAY_OF_MONTH, 31, 1, "2026-02-10 10:00", "2026-02-28 00:00", Share(18, 28)),
        (Starts.DAY_OF_MONTH, 31, 1, "2028-02-28 23:00", "2028-02-29 00:00", Share(1, 29)),
        (Starts.DAY_OF_MONTH, 30, 1, "2026-03-01 10:00", "2026-03-30 00:00", Share(29, 30)),
        (Starts.CYCLE_DAY, 0, 20, "2026-06-30 10:00", "2026-07-20 00:00", Share(20, 30)),
        (Starts.CYCLE_DAY, 0, 1, "2026-06-30 10:00", "2026-07-01 00:00", Share(1, 30)),
    ],
)
def test_a_first_period_costs_its_days(
    starts: Starts, start_day: int, cycle_day: int, since: str, ends: str, share: Share
) -> None:
    """Day-exact proration, over February and the change of the clock."""
    offer = Offer("o", every=Every.MONTH, starts=starts, prorated=True, start_day=start_day)
    since_ms = at(since, "Europe/Berlin")
    assert offer.next_ms(since_ms, since_ms, BERLIN, cycle_day) == at(ends, "Europe/Berlin")
    assert offer.first_share(since_ms, BERLIN, cycle_day) == share
    ends_ms = at(ends, "Europe/Berlin")
    whole = offer.share_left(since_ms, ends_ms, BERLIN, cycle_day)
    assert whole.days_left == whole.days


async def test_a_cap_of_the_month_begins_anew_on_the_cycle_day(operator: Operator) -> None:
    assert await use(operator, "a", 5, 30) == 30
    assert await use(operator, "b", 1, 30) == 0
    operator.now = at("2026-03-15 00:00")
    assert await use(operator, "c", 5, 30) == 30
    operator.now = at("2026-04-01 00:00")
    assert await use(operator, "d", 1, 30) == 0, "the calendar month does not matter"


async def test_tiers_and_free_units_count_over_the_cycle(operator: Operator) -> None:
    assert await use(operator, "a", 5, 20) == 41
    assert await use(operator, "f", 2, 40) == 10
    operator.now = at("2026-03-15 08:00")
    assert await use(operator, "b", 5, 20) == 41
    assert await use(operator, "g", 2, 40) == 10
    assert await use(operator, "c", 1, 20) == 1


async def test_a_members_cap_of_the_month_as_well(operator: Operator) -> None:
    """The most that is spent on a member, by day and month; for sessions that begin from then on."""
    await set_caps(operator.store, b"ann", 200_000, 300_000, operator.now, "test")
    operator.charging.store.subscribers._known.clear()
    assert (await operator.ask("a", INITIAL, wants=mib(9))).grants[0].units == 2 << 20
    await operator.ask("a", TERMINATION, used=mib(2))
    operator.now = at("2026-03-14 23:00")
    assert (await operator.ask("b", INITIAL, wants=mib(9))).result_code == 4012
    operator.now = at("2026-03-15 01:00")  # another day, and another month
    await use(operator, "c", 2, 10)
    operator.now = at("2026-03-16 01:00")
    assert (await operator.ask("d", INITIAL, wants=mib(9))).grants[0].units == 1 << 20
    await operator.ask("d", TERMINATION, used=mib(1))
    operator.now = at("2026-04-01 01:00")
    assert (await operator.ask("e", INITIAL, wants=mib(9))).result_code == 4012


async def test_another_cycle_day_ends_the_running_month_earlier_or_later(operator: Operator) -> None:
    assert await use(operator, "a", 5, 30) == 30

    async def change(day: int) -> Account:
        return await change_account(
            operator.store,
            b"a",
            lambda draft: change_cycle_day(draft, operator.catalogue.calendar, day),
            "cycle-day",
            ("test",),
            operator.now,
        )

    changed = await change(20)
    assert [(meter.name, meter.resets_ms) for meter in changed.meters] == [("cap capped per month", at("2026-03-20"))]
    operator.now = at("2026-03-15 12:00")
    assert await use(operator, "b", 1, 30) == 0
    operator.now = at("2026-03-20 00:00")
    assert await use(operator, "c", 1, 30) == 10


def test_a_day_that_no_month_has_is_refused() -> None:
    with pytest.raises(LedgerError, match="a day of the month, 1 to 31, not 32"):
        change_cycle_day(Draft(Account(b"a", 1, 0, 978, 0, 0, [], {}), 1), BERLIN, 32)


def test_it_is_kept_with_the_account() -> None:
    account = Account(b"a", 7, 0, 978, 0, 0, [], {}, cycle_day=31, meters=[Meter("m", 1)])
    assert unpack_account(b"a", pack_account(account)) == account


def test_commands(clean_redis: Address, tmp_path: Path) -> None:
    shell = Shell(tmp_path, clean_redis, CATALOGUE)
    assert "months from day 15" in shell.text("account", "create", "a", "--cycle-day", "15")
    assert shell.json("account", "show", "a")["cycle_day"] == 15
    assert shell.json("account", "cycle-day", "a", "31", "--reason", "moved")["cycle_day"] == 31
    assert 1 <= shell.json("account", "cycle-day", "a", "today")["cycle_day"] <= 31
    assert "neither a day of the month" in shell.refused(2, "account", "cycle-day", "a", "32")
