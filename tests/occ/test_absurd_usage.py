"""Reports that cannot be true are cut to what can, and the rest is kept for the charging data record."""

import json

import pytest

from balance.model import Unit
from occ.rating.catalogue import Catalogue, Service
from occ.rating.price import StepPrice
from protocols.credit_control import ServiceRequest, Units
from tests.occ import test_expiry
from tests.occ.test_expiry import Lab

lab = test_expiry.lab

VOICE = Catalogue(
    "test",
    978,
    (Service("voice", test_expiry.CONTEXT, None, Unit.SECONDS, 30, 30, 3600),),
    {"standard": {"voice": StepPrice(Unit.SECONDS, 1, 1)}},
)


@pytest.mark.shows("kamailio-absurd-usage")
@pytest.mark.parametrize(
    ("after_s", "reported", "debited"),
    [
        (30, 30, 30),
        (30, 90, 90),  # within a minute of the grant: clients overshoot a little
        (30, 91, 30),  # beyond both the grant and the clock
        (200, 91, 91),  # the call may have lasted that long
        (200, 260, 260),
        (200, 261, 200),  # no longer than the session has
        (5, 71_582_788, 30),
    ],
)
async def test_seconds_are_bounded_by_grant_and_clock(lab: Lab, after_s: int, reported: int, debited: int) -> None:
    lab.sell(VOICE)
    await lab.open_session("a", "s1", "cscf", None)
    lab.now += after_s * 1000
    last = ServiceRequest(10, (), None, (Units(time=reported),))
    await lab.send("a", "s1", "cscf", None, 3, 1, last)
    assert await lab.money("a") == (1000 - debited, 0)
    assert lab.charging.statistics.disbelieved_reports == (reported != debited)
    record = json.loads(await _cdr(lab))
    assert (record["used"], record["disbelieved"]) == (debited, reported - debited)


async def _cdr(lab: Lab) -> str:
    from balance.records import unpack_outbox
    from occ.cdr import as_json_fields

    entries = await lab.store.call("XRANGE", lab.store.keys.outbox(0), "-", "+")
    return json.dumps(as_json_fields(unpack_outbox(entries[-1][1][1])[0]))
