from tests.occ.test_reauthorisation_workers import *  # noqa
from tests.occ.test_reauthorisation_workers import client_of, first, second, lab

async def test_probe(lab, second):
    a = await client_of(lab, second)
    await lab.session_of(a)
    b = await client_of(lab, lab.server, "other")
    answer = await b.update(lab.session, client=a.identity)
    assert answer.result_code == 2001
