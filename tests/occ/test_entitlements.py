"""What comes with plans: offers taken, changed and ended with the plan; bonuses for staying, each once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from balance.directory import set_account_state, top_up_account
from balance.embedded import Address
from balance.journal import history
from balance.model import LifeState, Unit
from balance.store import Store, StoreSettings
from balance.structure import move_member
from balance.subscribers import change_plan, set_subscriber_state
from balance.verify import verify
from occ.lifecycle import check_change
from tests.occ.operator_lab import DAY_MS, INITIAL, MIB, TERMINATION, Operator, at, mib
from tests.shell import Shell

GIB = 1 << 30
CATALOGUE = """
version: e
currency: EUR
services:
  internet: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, maximum_quota: 99 MiB, validity: 1 h}
allowances:
  small: {amount: 31 GiB, serves: [internet], priority: 10}
  large: {amount: 62 GiB, serves: [internet], priority: 10}
  family: {amount: 5 GiB, serves: [internet], priority: 20, shared: yes}
  extra: {amount: 1 GiB, serves: [internet], valid: 30 d}
bonuses:
  thanks: {serves: any, priority: 5, valid: 30 d}
offers:
  small-month: {fee: 31.00, every: month, starts: cycle day, prorated: yes, gives: [small]}
  large-month: {fee: 62.00, every: month, starts: cycle day, prorated: yes, gives: [large]}
  line: {fee: 3.10, every: month, starts: first of month, prorated: yes}
  whole: {fee: 10.00, every: month, gives: [extra]}
  family-month: {every: month, gives: [family]}
plans:
  standard: {internet: 0.01 per 1 MiB}
  small: {includes: [small-month, line], internet: 0.01 per 1 MiB}
  large: {includes: [large-month, line], internet: 0.01 per 1 MiB}
  whole: {includes: [whole], internet: 0.01 per 1 MiB}
  family: {includes: [family-month], internet: 0.01 per 1 MiB}
promotions:
  - {name: year, loyalty: {after: 365 d, gives: 5.00, bucket: thanks}, budget: 7.00, when: {plans: [standard]}}
  - name: monthly
    loyalty: {after: 30 d, gives: 1 GiB each month, bucket: extra, given: at a top-up}
    when: {plans: [standard]}
"""


@pytest.fixture
async def operator(clean_redis: Address) -> AsyncIterator[Operator]:
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    operator = Operator(store, CATALOGUE, at("2026-01-22 15:00"))
    yield operator
    assert (await verify(store)).discrepancies == []
    await store.stop()


async def offers(operator: Operator, account: str) -> dict[str, str]:
    """The offers of an account and the plans they are of."""
    return {each.name: each.plan for each in (await operator.read(account)).offers}


async def test_a_new_subscriber_has_what_the_plan_includes(operator: Operator) -> None:
    """Ten of the thirty-one days of January are left on the 22nd."""
    await operator.account("a", 100_00)
    fees = await operator.subscriber("ann", "a", "small")
    assert [(fee.offer, fee.owner, fee.amount_micro) for fee in fees] == [
        ("small-month", b"ann", 10_000_000), ("line", b"ann", 1_000_000),
    ]  # fmt: skip
    assert await operator.cents("a") == 100_00 - 10_00 - 1_00
    assert await operator.units("a", "small") == 10 * GIB
    assert await operator.refresh("ann") == []
    version = (await operator.read("a")).version
    await operator.refresh("ann")
    assert (await operator.read("a")).version == version, "a repetition wrote something"
    records = await operator.records("recurring")
    assert [(each["service"], each["subscriber_id"], each["debited_micro"]) for each in records] == [
        ("small-month", "ann", 10_000_000), ("line", "ann", 1_000_000),
    ]  # fmt: skip


async def test_the_check_of_the_store_tells_what_was_given_from_what_was_used(operator: Operator) -> None:
    """Allowances given, less what was taken back; a renewal without a fee is neither a debit nor a lapse."""
    await operator.account("a", 100_00)
    await operator.subscriber("ann", "a", "small")
    await operator.subscriber("bob", "a", "family")
    await operator.ask("s", INITIAL, "ann", wants=mib(99))
    await operator.ask("s", TERMINATION, "ann", used=mib(99))
    await change_plan(operator.store, b"ann", "standard", operator.now, operator.now, "test")
    await operator.refresh("ann")
    operator.now = at("2026-02-22 15:00")
    await operator.scan()
    octets = next(each for each in (await verify(operator.store)).totals if each.unit == Unit.OCTETS)
    assert (octets.given, octets.debited, octets.lapsed) == (5 * GIB + 99 * MIB, 99 * MIB, 0)


async def test_what_cannot_be_paid_yet_is_paid_by_the_first_top_up(operator: Operator) -> None:
    await operator.account("a")
    assert await operator.subscriber("ann", "a", "small") == []
    assert [each.unpaid_ms for each in (await operator.read("a")).offers] == [operator.now] * 2
    operator.now += 3600_000
    await top_up_account(operator.store, b"a", 20_000_000, now_ms=operator.now, reason="test")
    await operator.scan()
    assert await operator.cents("a") == 20_00 - 11_00
    assert await operator.units("a", "small") == 10 * GIB


async def test_a_change_now_ends_the_old_and_begins_the_new_by_days(operator: Operator) -> None:
    """On 25 January seven days are left: 7.00 of the old fee come back, 14.00 of the new one are taken."""
    await operator.account("a", 100_00)
    await operator.subscriber("ann", "a", "small")
    operator.now = at("2026-01-25 08:00")
    await change_plan(operator.store, b"ann", "large", operator.now, operator.now, "test")
    fees = await operator.refresh("ann")
    assert [(fee.offer, fee.amount_micro) for fee in fees] == [("small-month", -7_000_000), ("large-month", 14_000_000)]
    assert await offers(operator, "a") == {"line": "large", "large-month": "large"}
    assert await operator.cents("a") == 100_00 - 11_00 + 7_00 - 14_00
    assert (await operator.units("a", "small"), await operator.units("a", "large")) == (0, 14 * GIB)
    (record,) = await operator.records("refund")
    assert (record["service"], record["debited_micro"], record["used"]) == ("small-month", -7_000_000, -1)
    assert await operator.refresh("ann") == []


async def test_a_change_on_the_same_day_gives_all_back(operator: Operator) -> None:
    await operator.account("a", 100_00)
    await operator.subscriber("ann", "a", "small")
    operator.now += 3600_000
    await change_plan(operator.store, b"ann", "standard", operator.now, operator.now, "test")
    await operator.refresh("ann")
    assert await operator.cents("a") == 100_00


async def test_a_change_at_cycle_end_is_done_by_the_clock(operator: Operator) -> None:
    await operator.account("a", 200_00)
    await operator.subscriber("ann", "a", "small")
    await change_plan(operator.store, b"ann", "large", at("2026-02-01 00:00"), operator.now, "test")
    assert await operator.refresh("ann") == []
    assert await operator.cents("a") == 200_00 - 11_00
    operator.now = at("2026-02-01 00:00")
    await operator.scan()
    assert await offers(operator, "a") == {"line": "small", "large-month": "large"}
    assert await operator.cents("a") == 200_00 - 11_00 - 62_00 - 3_10
    assert await operator.units("a", "large") == 62 * GIB
    assert await operator.refresh("ann") == []
    assert await operator.cents("a") == 200_00 - 11_00 - 62_00 - 3_10


async def test_a_change_that_is_called_off_leaves_everything_as_it_was(operator: Operator) -> None:
    await operator.account("a", 200_00)
    await operator.subscriber("ann", "a", "small")
    before = (await operator.read("a")).offers
    await change_plan(operator.store, b"ann", "large", at("2026-02-01 00:00"), operator.now, "test")
    await operator.refresh("ann")
    assert (await operator.read("a")).offers != before
    await change_plan(operator.store, b"ann", "small", operator.now, operator.now, "test")
    await operator.refresh("ann")
    assert (await operator.read("a")).offers == before


async def test_what_is_not_prorated_ends_without_a_refund_and_what_it_gave_stays(operator: Operator) -> None:
    await operator.account("a", 20_00)
    await operator.subscriber("ann", "a", "whole")
    operator.now += 5 * DAY_MS
    await change_plan(operator.store, b"ann", "standard", operator.now, operator.now, "test")
    assert await operator.refresh("ann") == []
    assert (await operator.cents("a"), await operator.units("a", "extra")) == (10_00, GIB)
    operator.now += 40 * DAY_MS
    await operator.scan()
    assert (await operator.cents("a"), await operator.units("a", "extra")) == (10_00, 0)


async def test_what_is_ordered_begins_when_it_is_activated_and_ends_when_terminated(operator: Operator) -> None:
    await operator.account("a", 100_00)
    assert await operator.subscriber("ann", "a", "small", state=int(LifeState.ORDERED), activated_ms=0) == []
    assert await offers(operator, "a") == {}
    await set_subscriber_state(operator.store, b"ann", LifeState.ACTIVE, operator.now, "test", check_change)
    await operator.refresh("ann")
    assert await offers(operator, "a") == {"small-month": "small", "line": "small"}
    await set_subscriber_state(operator.store, b"ann", LifeState.TERMINATED, operator.now, "test", check_change)
    await operator.refresh("ann")
    assert await offers(operator, "a") == {}
    assert await operator.cents("a") == 100_00


async def test_who_pays_for_a_subscriber_pays_for_the_plan(operator: Operator) -> None:
    await operator.account("a", 100_00)
    await operator.account("b", 100_00)
    await operator.subscriber("ann", "a", "small")
    await move_member(operator.store, b"ann", b"b", operator.now, "test")
    operator.now = at("2026-02-01 00:00")
    await operator.scan()  # nobody has told the accounts: the first finds out when it is due
    assert (await offers(operator, "a"), await operator.cents("a")) == ({}, 100_00 - 11_00)
    await operator.refresh("ann")
    assert await offers(operator, "b") == {"small-month": "small", "line": "small"}
    assert await operator.cents("b") == 100_00 - 31_00 - 3_10


async def test_every_member_adds_to_what_the_family_shares(operator: Operator) -> None:
    """Three lines with 5 GiB each that all may spend: 15 GiB, also after the month has turned."""
    await operator.account("home", 1_00)
    for name in ("ann", "bob", "cem"):
        await operator.subscriber(name, "home", "family")
    assert await operator.units("home", "family") == 15 * GIB
    await operator.ask("s", INITIAL, "ann", wants=mib(99))
    await operator.ask("s", TERMINATION, "ann", used=mib(99))
    assert await operator.units("home", "family") == 15 * GIB - 99 * (1 << 20)
    operator.now = at("2026-02-22 15:00")
    await operator.scan()
    assert await operator.units("home", "family") == 15 * GIB


async def test_a_terminated_account_is_charged_no_more(operator: Operator) -> None:
    await operator.account("a", 100_00)
    await operator.subscriber("ann", "a", "small")
    await set_account_state(operator.store, b"a", LifeState.TERMINATED, operator.now, "test", check_change)
    operator.now = at("2026-02-01 00:00")
    await operator.scan()
    assert await operator.cents("a") == 100_00 - 11_00


# -- staying -----------------------------------------------------------------------------------------------------------


async def test_a_bonus_for_staying_is_given_on_its_day_once(operator: Operator) -> None:
    operator.now = at("2026-01-01 00:00")
    await operator.account("a", 1_00)
    await operator.subscriber("ann", "a")
    assert {each.name: each.next_ms for each in (await operator.read("a")).offers} == {
        "loyalty:year": at("2027-01-01 00:00"), "loyalty:monthly": at("2026-01-31 00:00"),
    }  # fmt: skip
    operator.now = at("2026-12-31 23:59")
    await operator.scan()
    assert await operator.units("a", "thanks") == 0
    operator.now = at("2027-01-01 00:00")
    for _ in range(2):
        await operator.scan()
        await operator.refresh("ann")
    assert await operator.units("a", "thanks") == 5_000_000
    assert [each.name for each in (await operator.read("a")).offers] == ["loyalty:monthly"]
    (record,) = await operator.records("loyalty")
    assert (record["service"], record["debited_micro"], record["promotions"]) == ("year", -5_000_000, ("year",))
    assert [(each["name"], each["amount"]) for each in record["buckets"]] == [("thanks", -5_000_000)]
    newest = (await history(operator.store, b"a", 1))[0]
    assert (newest.operation, newest.reason) == ("loyalty", ("supervision", "year"))
    operator.now += 30 * DAY_MS
    await operator.scan()
    assert await operator.units("a", "thanks") == 0, "its time is over"
    assert await operator.cents("a") == 1_00, "a bonus is never money of the main bucket"


async def test_one_that_waits_for_a_top_up_comes_with_it(operator: Operator) -> None:
    operator.now = at("2026-01-01 00:00")
    await operator.account("a", 1_00)
    await operator.subscriber("ann", "a")
    operator.now = at("2026-01-31 09:00")
    await operator.scan()
    await operator.scan()
    assert await operator.units("a", "extra") == 0
    assert (await operator.read("a")).offers[1].unpaid_ms == at("2026-01-31 00:00")
    await top_up_account(operator.store, b"a", 1_000_000, now_ms=operator.now, reason="test")
    await operator.scan()
    assert await operator.units("a", "extra") == GIB
    await top_up_account(operator.store, b"a", 1_000_000, now_ms=operator.now, reason="test")
    await operator.scan()
    assert await operator.units("a", "extra") == GIB, "given twice"
    assert (await operator.read("a")).offers[1].next_ms == at("2026-02-28 00:00")
    (record,) = await operator.records("loyalty")
    assert (record["unit"], record["used"], record["cost_micro"]) == ("octets", -GIB, 0)


async def test_a_budget_that_is_used_up_gives_no_bonus(operator: Operator) -> None:
    """7.00 are enough for one bonus of 5.00."""
    operator.now = at("2026-01-01 00:00")
    for name in ("a", "b"):
        await operator.account(name, 1_00)
        await operator.subscriber(f"of-{name}", name)
    operator.now = at("2027-01-01 00:00")
    await operator.scan()
    assert sorted([await operator.units("a", "thanks"), await operator.units("b", "thanks")]) == [0, 5_000_000]
    assert await operator.store.spent() == {"year": 5_000_000}


async def test_who_has_another_plan_by_then_gets_nothing(operator: Operator) -> None:
    operator.now = at("2026-01-01 00:00")
    await operator.account("a", 100_00)
    await operator.subscriber("ann", "a")
    await change_plan(operator.store, b"ann", "whole", at("2026-12-31 00:00"), operator.now, "test")
    operator.now = at("2027-01-01 00:00")
    await operator.scan()
    assert await operator.units("a", "thanks") == 0
    await operator.refresh("ann")
    # What came with the old plan, and waits for a top-up since, is still given.
    assert await offers(operator, "a") == {"whole": "whole", "loyalty:monthly": ""}


# -- by the command line -----------------------------------------------------------------------------------------------


def test_commands_take_and_end_what_plans_include(clean_redis: Address, tmp_path: Path) -> None:
    shell = Shell(tmp_path, clean_redis, CATALOGUE)
    shell.text("account", "create", "a", "--balance", "500.00", "--cycle-day", "31")
    shell.text("subscriber", "add", "ann", "--account", "a", "--plan", "small", "--line", "L-1", "--ordered")
    assert shell.json("account", "show", "a")["offers"] == []
    shell.text("subscriber", "activate", "ann")

    def held() -> list[str]:
        return [each["offer"] for each in shell.json("account", "show", "a")["offers"]]

    assert held() == ["small-month", "line"]
    assert shell.text("subscriber", "refresh") == "1 subscribers have what their plans include.\n"
    shell.text("subscriber", "plan", "ann", "large", "--at-cycle-end")
    account = shell.json("account", "show", "a")
    ends = {each["offer"]: each["until"] for each in account["offers"]}
    assert ends["small-month"] == shell.json("subscriber", "show", "ann")["next_plan_from"]
    assert (ends["line"], account["cycle_day"]) == (None, 31)
    shell.text("subscriber", "plan", "ann", "standard", "--now")
    assert held() == []
    loyalty = {each["promotion"] for each in shell.json("account", "show", "a")["loyalty"]}
    assert loyalty == {"year", "monthly"}
    assert "bonus for staying" in shell.text("account", "show", "a")
    shell.text("subscriber", "terminate", "ann", "--reason", "gone")
    assert shell.json("account", "show", "a")["loyalty"] == []
    assert shell.json("account", "show", "a")["available_micro"] == 500_000_000
    shell.text("ledger", "verify")
