"""Sessions over tariff switches against the naive ledger (row 34; RFC 8506 sections 5.1.1, 8.20 and 8.27).

Clients say on which side of a switch they used what, or do not, or say what cannot be; their clocks are off.

What it has been seen to catch: a switch that is not looked for; what a client says of it ignored; units reserved at the
price before it only, so that what was granted is not paid for; seconds charged that have not passed.
"""

import pytest

from balance.embedded import Address

pytest.register_assert_rewrite("tests.occ.charging_machine")

from tests.occ.machine_requests import Name  # noqa: E402 - the assertions of a machine are to be told in full
from tests.occ.session_machine import SessionMachine, run  # noqa: E402

NAMES: dict[str, tuple[Name, ...]] = {
    "octets": ((110, ()), (110, (5,)), (111, ()), (10, ())),
    "seconds": ((112, ()), (113, ()), (112, (5,)), (30, ())),
    "not always sold": ((114, ()), (115, ()), (110, ())),
    "pools and waived": ((116, ()), (117, ()), (118, ()), (111, ())),
}


@pytest.mark.shows("row 34")
@pytest.mark.parametrize("names", NAMES)
def test_tariff_switch(clean_redis: Address, names: str) -> None:
    profiles = ("by the letter", "by the letter", "lenient", "hasty")
    run(SessionMachine, clean_redis, 20, names=NAMES[names], labels=True, timestamps=True, profile_names=profiles)
