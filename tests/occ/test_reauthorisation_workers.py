"""Re-authorisation by several workers of one store, beside its clients' own requests, and while Redis goes away."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from urllib.request import urlopen

import pytest

from balance.commands import ChannelSettings
from balance.model import IdentityType
from occ.reauthorisation import ReauthorisationSettings
from occ.server_requests import Meaning
from simulators import gateway
from simulators.gateway import GatewayOptions
from tests.asked_client import REALM, AskedClient, always
from tests.live_server import LiveServer
from tests.reauthorisation_lab import Lab, eventually

QUICK = ReauthorisationSettings(answer_within_s=0.5, pauses_s=(0.2, 1.0), act_within_s=0.3, relay_delay_s=0.3)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("first")) as running:
        running.server.reauthorisation.settings = QUICK
        yield running


@pytest.fixture(scope="module")
def second(first: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Another worker on the store of the first."""
    settings = {
        "diameter.origin_host": "occ2.ocs.example.net",
        "store.mode": "external",
        "store.url": first.server.redis_address.url,
    }
    with LiveServer(tmp_path_factory.mktemp("second"), settings) as running:
        running.server.reauthorisation.settings = QUICK
        yield running


@pytest.fixture
async def lab(first: LiveServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Lab]:
    lab = Lab(first, caplog)
    yield lab
    for client in lab.clients:
        await client.close()


async def client_of(lab: Lab, server: LiveServer, name: str = "pgw", *, relay: bool = False) -> AskedClient:
    client = AskedClient(f"{name}{lab.number}.{REALM}", relay=relay)
    lab.clients.append(client)
    return await client.connect(server.port)


def results(server: LiveServer) -> dict[tuple[str, str], int]:
    return server.server.reauthorisation.statistics.results.copy()


@pytest.mark.shows("row 42")
async def test_row_42_the_worker_that_has_the_connection_asks(lab: Lab, second: LiveServer) -> None:
    """What one worker is told is done by another, which answers for it."""
    client = await client_of(lab, second)
    await lab.session_of(client)
    before = results(lab.server)
    result = await lab.reauthorise(rating_group=10)
    assert (result.meaning, result.client) == (Meaning.UPDATE_EXPECTED, client.identity.encode())
    assert client.asked[0].request.origin_host == b"occ2.ocs.example.net"
    assert results(lab.server) == before


@pytest.mark.shows("row 42")
async def test_row_42_what_another_worker_released_is_released_for_all(lab: Lab, second: LiveServer) -> None:
    client = await client_of(lab, second)
    client.reply = always(5002)
    await lab.session_of(client)
    result = await lab.reauthorise()
    assert (result.meaning, result.released, result.currency) == (Meaning.CLIENT_LOST, ((0, 100_000),), 978)
    assert lab.money() == (100, 0)
    assert lab.server.verify().consistent


@pytest.mark.shows("row 43")
async def test_row_43_a_refusal_that_another_worker_got_is_heeded_by_all(lab: Lab, second: LiveServer) -> None:
    client = await client_of(lab, second)
    client.reply = always(5012)
    await lab.session_of(client)
    result = await lab.abort()
    assert (result.meaning, result.denied) == (Meaning.REFUSED, True)
    again = await client_of(lab, lab.server, "pgw-again")
    answer = await again.update(lab.session, client=client.identity)
    assert [service.result_code for service in answer.services] == [4010]


async def test_a_worker_with_a_mere_relay_leaves_it_to_the_one_that_knows_the_client(
    lab: Lab, second: LiveServer
) -> None:
    relay = await client_of(lab, lab.server, "relay", relay=True)
    client = await client_of(lab, second)
    await lab.session_of(client)
    assert (await lab.reauthorise()).meaning is Meaning.UPDATE_EXPECTED
    assert (len(relay.asked), len(client.asked)) == (0, 1)
    await client.close()
    assert (await lab.reauthorise()).meaning is Meaning.UPDATE_EXPECTED
    assert [asked.request.destination_host for asked in relay.asked] == [client.identity.encode()]


async def test_two_workers_asked_at_once_ask_the_client_once(lab: Lab, second: LiveServer) -> None:
    client = await client_of(lab, second)
    release = asyncio.Event()

    async def reply(asked: object) -> int:
        await release.wait()
        return 2002

    client.reply = reply
    await lab.session_of(client)
    here = asyncio.create_task(lab.reauthorise())
    other = Lab.__new__(Lab)
    other.__dict__.update(lab.__dict__, server=second)
    there = asyncio.create_task(other.reauthorise())
    await eventually(lambda: bool(client.asked))
    await asyncio.sleep(0.2)
    release.set()
    assert {result.meaning for result in await asyncio.gather(here, there)} == {Meaning.UPDATE_EXPECTED}
    assert len(client.asked) == 1


@pytest.mark.shows("row 43")
async def test_row_43_nobody_has_a_connection_and_the_session_is_denied(lab: Lab, second: LiveServer) -> None:
    """By a worker whose snapshot of the account is older than the session."""
    client = await client_of(lab, second)
    await lab.session_of(client)
    await client.close()
    lab.server.server.reauthorisation.channel = ChannelSettings(claim_within_s=0.5)
    assert (await lab.reauthorise()).meaning is Meaning.NO_CONNECTION
    result = await lab.abort()
    assert (result.meaning, result.denied) == (Meaning.NO_CONNECTION, True)
    session = lab.open_session()
    assert session is not None
    assert session.refused
    lab.server.server.reauthorisation.channel = ChannelSettings()


@pytest.mark.shows("row 42")
async def test_row_42_redis_goes_away_while_a_client_is_asked(lab: Lab, second: LiveServer) -> None:
    """What its answer means is written down once Redis is back, by the worker that asked; the other one waits."""
    client = await client_of(lab, second)
    await lab.session_of(client)

    async def reply(asked: object) -> int:
        os.kill(lab.server.server.redis.pid, signal.SIGKILL)
        return 5002

    client.reply = reply
    asking = asyncio.create_task(lab.reauthorise())
    await eventually(lambda: bool(client.asked))
    client.reply = always(5002)
    result = await asking
    assert result.meaning in (Meaning.CLIENT_LOST, Meaning.ENDED), result
    assert lab.money() == (100, 0)
    assert lab.server.verify().consistent
    await lab.session_of(client, session=lab.session + ";2")
    lab.session += ";2"
    client.reply = always(2002)
    assert (await lab.reauthorise()).meaning is Meaning.UPDATE_EXPECTED


async def test_sessions_of_a_busy_gateway_are_reauthorised_while_they_run(lab: Lab) -> None:
    """A conformant gateway at full speed, asked for every account again and again: nothing is lost or charged twice."""
    server = lab.server
    names = []
    for number in range(1, 4):
        name = f"acc-busy-{number}"
        names.append(name)
        identities = [(IdentityType.E164, f"49170000000{number}"), (IdentityType.IMSI, f"26201000000000{number}")]
        server.add_account(name, identities, balance_micro=500_000_000)
    before = results(server)
    options = GatewayOptions(
        port=server.port, sessions=60, concurrency=6, smf_share=0.3, volume_octets=64 << 20, prepaid=3, postpaid=0
    )
    running = asyncio.create_task(gateway.run(options, lambda done, total: None))
    while not running.done():
        for name in names:
            await lab.ask(lambda asker, name=name: asker.reauthorise_account(name.encode()))  # type: ignore[misc]
        await asyncio.sleep(0)
    summary = await running
    assert summary.unanswered == summary.malformed == 0
    debited = sum(500_000_000 - server.account(name).buckets[0].balance for name in names)
    assert debited == summary.debited_micro
    answered = {
        meaning for (_, meaning), count in results(server).items() if count > before.get(("re-auth", meaning), 0)
    }
    assert {"update-expected", "update-pending"} <= answered
    assert answered <= {"update-expected", "update-pending", "ended", "client-lost", "refused"}
    assert server.verify().consistent


async def test_metrics_tell_what_came_of_it(lab: Lab) -> None:
    client = await client_of(lab, lab.server)
    client.reply = always(None)
    await lab.session_of(client)
    await lab.reauthorise()
    url = f"http://127.0.0.1:{lab.server.server.metrics_port}/metrics"
    with await asyncio.to_thread(urlopen, url) as answer:
        lines = answer.read().decode().splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if line.startswith("occ_server_request"))
    assert float(told['occ_server_requests_total{command="re-auth",result="unanswered"}']) >= 1
    assert float(told["occ_server_request_retries_total"]) >= 2
    assert "occ_server_requests_not_kept_total" in told
