"""What random clients have found, each in as few requests as it takes; the naive ledger says what is right."""

from collections.abc import Callable, Iterator

import pytest

from balance.embedded import Address
from protocols.credit_control import ServiceRequest, Units

pytest.register_assert_rewrite("tests.occ.charging_machine")

from tests.occ.charging_machine import ChargingMachine  # noqa: E402 - its assertions are to be told in full
from tests.occ.machine_catalogue import PROFILES  # noqa: E402
from tests.occ.session_machine import SessionMachine  # noqa: E402

INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
DEBIT, CHECK_BALANCE, PRICE_ENQUIRY = 0, 2, 3

Account = Callable[..., ChargingMachine]


@pytest.fixture
def account(clean_redis: Address) -> Iterator[Account]:
    """Makes an account of so much money, and what else it has; all that happens is compared with the naive ledger."""
    machines: list[ChargingMachine] = []

    def make(money: int = 0, **others: int) -> ChargingMachine:
        machine: ChargingMachine = type("Machine", (SessionMachine,), {"address": clean_redis})()
        has = dict.fromkeys(("allowance", "seconds", "bonus", "lapses_s", "limit", "poor", "start_ms"), 0)
        machines.append(machine)
        machine.start(**{"money": money, "first": True, **has, **others})
        return machine

    yield make
    for machine in machines:
        machine.teardown()


def octets(amount: int, side: int | None = None) -> Units:
    return Units(total_octets=amount, tariff_change_usage=side)


def ask(
    machine: ChargingMachine,
    kind: int,
    number: int,
    *services: ServiceRequest,
    session: bytes = b"gw;1",
    origin_state_id: int | None = None,
    action: int | None = None,
) -> None:
    """A request is charged, and what the naive ledger says must come of it."""
    request = machine.request(
        session,
        kind,
        number,
        services,
        b"a1",
        multiple_services_indicator=1 if kind == INITIAL else None,
        origin_state_id=origin_state_id,
        requested_action=action,
    )
    machine.send(request, PROFILES["by the letter"])
    machine.same_books()


def test_row_34_a_reservation_outlives_the_tariff_switch(account: Account) -> None:
    """What was reserved in a bonus that has lapsed since pays on both sides of the switch: nothing leaks."""
    machine = account(bonus=60, lapses_s=70, start_ms=60_000)
    ask(machine, INITIAL, 0, ServiceRequest(110, (), octets(6)))
    machine.pass_time(75_000)
    ask(machine, UPDATE, 1, ServiceRequest(110, (), None, (octets(2, 0), octets(4, 1))))


def test_row_34_a_grant_ends_before_a_third_tariff_period(account: Account) -> None:
    """It is reserved at the prices of two."""
    machine = account(money=80, start_ms=90_000)
    ask(machine, INITIAL, 0, ServiceRequest(110, (), octets(6)), ServiceRequest(111, (), octets(2)))


def test_row_34_what_allowances_pay_for_counts_on_neither_side_of_a_switch(account: Account) -> None:
    """What nobody can tell is charged where it costs the customer less: here within a step that is paid."""
    machine = account(money=80, allowance=3, start_ms=130_000)
    ask(machine, INITIAL, 0, ServiceRequest(110, (5,), octets(3)), ServiceRequest(110, (), octets(1)))
    ask(machine, UPDATE, 1, ServiceRequest(110, (5,), reporting_reason=4), ServiceRequest(110, (), None, (octets(1),)))
    machine.pass_time(55_000)
    ask(machine, UPDATE, 2, ServiceRequest(110, (), None, (octets(6),)))


def test_a_service_that_was_not_sold_for_a_while_has_the_price_of_the_hour_then(account: Account) -> None:
    machine = account(money=80, start_ms=100_000)
    ask(machine, INITIAL, 0, ServiceRequest(114, (), octets(4)))
    machine.pass_time(25_000)
    ask(machine, UPDATE, 1, ServiceRequest(114, (), octets(4), (octets(3),)))
    machine.pass_time(120_000)
    ask(machine, UPDATE, 2, ServiceRequest(114, (), octets(4)))
    ask(machine, TERMINATION, 3, ServiceRequest(114, (), None, (octets(4),)))


def test_row_33_a_pool_lends_no_more_than_is_missing(account: Account) -> None:
    """Not what an allowance pays for."""
    machine = account(money=80, allowance=10)
    ask(machine, INITIAL, 0, ServiceRequest(72, (), Units(time=5)), ServiceRequest(70, (), octets(2)))
    ask(machine, UPDATE, 1, ServiceRequest(70, (), None, (octets(8),)))


def test_row_33_a_pool_lends_what_was_reserved_in_a_bonus_that_has_lapsed(account: Account) -> None:
    machine = account(bonus=30, lapses_s=90)
    ask(machine, INITIAL, 0, ServiceRequest(70, (), octets(3)), ServiceRequest(72, (), Units(time=10)))
    machine.pass_time(95_000)
    ask(machine, UPDATE, 1, ServiceRequest(70, (), None, (octets(8),)))


def test_row_22_a_refused_session_costs_nothing_and_yet_ends_the_one_before(account: Account) -> None:
    """Its client has restarted, reports what it used with the first request, and cannot go on."""
    machine = account(money=20)
    ask(machine, INITIAL, 0, ServiceRequest(10, (), octets(6)), origin_state_id=5)
    ask(machine, INITIAL, 0, ServiceRequest(10, (), octets(6), (octets(60),)), origin_state_id=6)
    machine.pass_time(1000)
    ask(machine, UPDATE, 1, ServiceRequest(10, (), octets(6)))


def test_row_23_supervision_waits_for_whoever_is_redirected(account: Account) -> None:
    """Another service of the session is valid for a shorter time than the client was told to wait."""
    machine = account(money=40)
    ask(machine, INITIAL, 0, ServiceRequest(20, (), octets(12)), ServiceRequest(50, (), octets(2)))
    ask(machine, UPDATE, 1, ServiceRequest(50, (), octets(2), (octets(2),)))
    ask(machine, UPDATE, 2, ServiceRequest(20, (), octets(1), (octets(1),)))


def test_row_30_supervision_waits_for_whoever_is_redirected_at_once(account: Account) -> None:
    machine = account()
    ask(machine, INITIAL, 0, ServiceRequest(50, (), octets(2)))
    machine.pass_time(240_000)
    ask(machine, UPDATE, 1, ServiceRequest(50, (), octets(2)))


@pytest.mark.parametrize("action", [DEBIT, CHECK_BALANCE, PRICE_ENQUIRY])
def test_row_38_an_event_names_a_service_twice(account: Account, action: int) -> None:
    """It counts once: what an enquiry says is what a debit comes to."""
    machine = account(money=80)
    ask(machine, EVENT, 0, ServiceRequest(10, (), octets(3)), ServiceRequest(10, (), octets(8)), action=action)


@pytest.mark.parametrize("action", [DEBIT, CHECK_BALANCE, PRICE_ENQUIRY])
@pytest.mark.parametrize("amount", [0, -3])
def test_row_38_nobody_is_paid_by_a_debit_below_zero(account: Account, action: int, amount: int) -> None:
    """A debit of nothing is one: the service is free."""
    machine = account(money=80)
    ask(machine, EVENT, 0, ServiceRequest(10, (), Units(money=(amount, -6, None))), action=action)
