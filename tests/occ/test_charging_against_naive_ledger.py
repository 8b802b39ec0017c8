"""Whole sessions on a real store, legal and illegal clients, against the naive ledger.

Every answer is compared with what the naive ledger would grant, every balance, reservation and open session after each
step as well, and what the charging data records tell; every request may be repeated at any time, by either of two
workers, and must then get its first answer again and change nothing; and at the end the whole store is verified.

What it has been seen to catch: unused money of a reservation debited, or kept; a repeat charged; a started step charged
again; a unit granted that nobody can pay; a pool that does not borrow; a bonus spent after its time; a session that
supervision ends too soon; usage reported late charged twice; usage that cannot be true; no record of a session that its
client begins anew; a client not told that its units are the last.

``NAIVE_LEDGER_EXAMPLES=20`` tries twenty times as many clients, others each time. Requests that have shown something
are kept in ``test_found_against_naive_ledger``.
"""

import pytest

from balance.embedded import Address

pytest.register_assert_rewrite("tests.occ.charging_machine")

from tests.occ.machine_requests import Name  # noqa: E402 - the assertions of a machine are to be told in full
from tests.occ.session_machine import SessionMachine, run  # noqa: E402

NAMES: dict[str, tuple[Name, ...]] = {
    "services": ((10, ()), (10, (5,)), (10, (6, 5)), (20, ()), (30, ()), (40, ()), (None, (7,)), (None, ())),
    "final units": ((50, ()), (51, ()), (50, (5,)), (20, ()), (None, ())),
    "pools and waived": ((60, ()), (70, ()), (71, ()), (72, ()), (73, ()), (70, (5,)), (10, ())),
    "not sold": ((80, ()), (81, ()), (82, ()), (83, ()), (84, ()), (99, ()), (10, ()), (20, ())),
}


@pytest.mark.shows("row 16", "row 17", "row 19", "row 20", "row 21", "row 22", "row 23", "row 25", "row 26", "row 27")
@pytest.mark.shows("row 28", "row 30", "row 31", "row 33", "row 37")
@pytest.mark.parametrize("names", NAMES)
def test_sessions(clean_redis: Address, names: str) -> None:
    run(SessionMachine, clean_redis, 20, names=NAMES[names])


@pytest.mark.shows("row 19")
def test_client_rated(clean_redis: Address) -> None:
    names: tuple[Name, ...] = ((10, ()), (20, ()), (50, ()), (70, ()), (71, ()), (None, ()), (99, ()))
    run(SessionMachine, clean_redis, 20, names=names, money=True)
