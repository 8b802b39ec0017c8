"""Whole sessions on a real store, legal and illegal clients, against the naive ledger.

Every answer is compared with what the naive ledger would grant, every request may be repeated at any time and must
then get its first answer again and change nothing, and at the end the whole store is verified.
"""

import pytest

from balance.embedded import Address

pytest.register_assert_rewrite("tests.occ.charging_machine")

from tests.occ.machine_requests import Name  # noqa: E402 - the assertions of a machine are to be told in full
from tests.occ.session_machine import SessionMachine, run  # noqa: E402

NAMES: dict[str, tuple[Name, ...]] = {
    "services": ((10, ()), (10, (5,)), (10, (6, 5)), (20, ()), (30, ()), (40, ()), (None, (7,)), (None, ())),
    "final units": ((50, ()), (51, ()), (50, (5,)), (20, ()), (None, ())),
    "pools and waived": ((60, ()), (70, ()), (71, ()), (72, ()), (70, (5,)), (10, ())),
    "not sold": ((80, ()), (81, ()), (82, ()), (83, ()), (84, ()), (99, ()), (10, ()), (20, ())),
}


@pytest.mark.parametrize("names", NAMES)
def test_sessions(clean_redis: Address, names: str) -> None:
    run(SessionMachine, clean_redis, 20, names=NAMES[names])


def test_client_rated(clean_redis: Address) -> None:
    names: tuple[Name, ...] = ((10, ()), (20, ()), (50, ()), (70, ()), (71, ()), (None, ()), (99, ()))
    run(SessionMachine, clean_redis, 20, names=names, money=True)
