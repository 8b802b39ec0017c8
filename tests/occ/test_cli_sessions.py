"""`occ sessions reauth` and `occ sessions abort`, beside a running server and its clients."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from balance import commands
from balance.commands import ChannelSettings
from balance.model import IdentityType
from occ.cli import app
from occ.reauthorisation import ReauthorisationSettings
from tests.asked_client import REALM, AskedClient, always
from tests.live_server import LiveServer

CONFIG = Path(__file__).parents[2] / "config"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("sessions")
    shutil.copy(CONFIG / "catalogue.yaml", directory)
    (directory / "occ.yaml").write_text("store:\n  data_dir: data\n")
    with LiveServer(directory) as running:
        running.server.reauthorisation.settings = ReauthorisationSettings(
            answer_within_s=0.2, pauses_s=(0.05,), act_within_s=0.2
        )
        yield running


class Desk:
    """A person at the command line, and a client with one session of an account."""

    def __init__(self, server: LiveServer, client: AskedClient, number: int) -> None:
        self.server = server
        self.client = client
        self.account = f"acc-{number}"
        self.subscriber = f"4917{number:06}"
        self.session = f"{client.identity};1;{number}"
        server.add_account(self.account, [(IdentityType.E164, self.subscriber)], balance_micro=1_000_000)

    async def run(self, *arguments: str) -> Result:
        config = str(self.server.directory / "occ.yaml")
        result = await asyncio.to_thread(CliRunner().invoke, app, ["--config", config, "sessions", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    async def told(self, code: int, *arguments: str) -> str:
        result = await self.run(*arguments)
        assert result.exit_code == code, result.output
        return " ".join((result.stdout or result.stderr).split())

    async def json(self, code: int, *arguments: str) -> Any:
        result = await self.run(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)


@pytest.fixture
async def desk(server: LiveServer) -> AsyncIterator[Desk]:
    number = next(_numbers)
    client = await AskedClient(f"smf{number}.{REALM}").connect(server.port)
    desk = Desk(server, client, number)
    await client.begin(desk.session, desk.subscriber)
    yield desk
    await client.close()
    server.assert_books_balance()


@pytest.mark.shows("row 42")
async def test_a_session_is_asked_for_by_its_session_id(desk: Desk) -> None:
    told = await desk.told(0, "reauth", desk.session)
    assert told == f"{desk.client.identity} answered 2002: it reports and asks anew."
    assert [asked.request.session_id.decode() for asked in desk.client.asked] == [desk.session]


async def test_a_scope_is_passed_on(desk: Desk) -> None:
    for option, field in (
        ("--rating-group", "rating_group"),
        ("--service-identifier", "service_identifier"),
        ("--pool", "pool_identifier"),
    ):
        await desk.told(0, "reauth", desk.session, option, "10")
        assert getattr(desk.client.asked[-1].request, field) == 10


async def test_all_sessions_of_an_account(desk: Desk) -> None:
    await desk.client.begin(desk.session + ";2", desk.subscriber)
    told = await desk.told(0, "reauth", "--account", desk.account)
    sentence = f"{desk.client.identity} answered 2002: it reports and asks anew."
    assert told == f"{desk.session}: {sentence} {desk.session};2: {sentence}"
    for session in (desk.session, desk.session + ";2"):
        await desk.client.end(session)
    assert await desk.told(0, "reauth", "--account", desk.account) == f"account {desk.account} has no open session."
    assert await desk.json(0, "reauth", "--account", desk.account) == []


@pytest.mark.shows("row 42")
async def test_a_client_that_lost_the_session(desk: Desk) -> None:
    desk.client.reply = always(5002)
    told = await desk.told(0, "reauth", desk.session)
    assert told == (f"{desk.client.identity} does not know the session; it was closed, which released 0.10 EUR.")
    assert (await desk.run("list", "--account", desk.account)).stdout == "0 of 0 open sessions.\n"


@pytest.mark.parametrize(("reply", "beginning"), [(None, "nobody answered for {}"), (5012, "{} refused with 5012")])
async def test_a_client_that_does_not_agree(desk: Desk, reply: int | None, beginning: str) -> None:
    """The bound is the Validity-Time of the catalogue's service."""
    desk.client.reply = always(reply)
    told = await desk.told(1, "reauth", desk.session)
    assert told.startswith(beginning.format(desk.client.identity))
    assert told.endswith("; it asks anew when its Validity-Time ends (at most 30 min).")


@pytest.mark.shows("row 43")
async def test_abort(desk: Desk) -> None:
    desk.client.reply = always(2001)
    told = await desk.told(0, "abort", desk.session)
    assert told == f"{desk.client.identity} answered 2001: it ends the session."
    desk.client.reply = always(5012)
    told = await desk.told(0, "abort", desk.session)
    assert told == f"{desk.client.identity} refused with 5012; its next request is denied."


async def test_no_server_has_a_connection_with_the_client(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A re-authorisation is left to the client then; an abortion takes effect at its next request."""
    await desk.client.close()
    monkeypatch.setattr(commands, "DEFAULTS", ChannelSettings(claim_within_s=0.5))
    told = await desk.told(1, "reauth", desk.session)
    assert told.startswith(f"no running server has a connection with {desk.client.identity}; it asks anew")
    told = await desk.told(0, "abort", desk.session)
    assert told == f"no running server has a connection with {desk.client.identity}; its next request is denied."
    assert desk.server.account(desk.account).sessions[desk.session.encode()].refused


async def test_json(desk: Desk) -> None:
    desk.client.reply = always(5002)
    assert await desk.json(0, "reauth", desk.session) == [
        {
            "session_id": desk.session,
            "sub_session_id": None,
            "account": desk.account,
            "command": "re-auth",
            "client": desk.client.identity,
            "result": "client-lost",
            "result_code": 5002,
            "denied": False,
            "released": [{"unit": "money", "amount": 100_000}],
            "reason": None,
        }
    ]


async def test_sub_sessions_are_found_by_their_session_id(desk: Desk) -> None:
    session = desk.session + ";subs"
    for number in (1, 2):
        await desk.client.begin(session, desk.subscriber, sub=number)
    results = await desk.json(0, "reauth", session)
    assert [(each["session_id"], each["sub_session_id"]) for each in results] == [(session, 1), (session, 2)]
    assert [each["command"] for each in await desk.json(0, "abort", session)] == ["abort-session"]


@pytest.mark.parametrize(
    ("code", "sentence", "arguments"),
    [
        (1, "occ: there is no open session nobody;1;1", ["reauth", "nobody;1;1"]),
        (1, "occ: there is no open session nobody;1;1", ["abort", "nobody;1;1"]),
        (1, "occ: there is no account nobody", ["reauth", "--account", "nobody"]),
        (2, "occ: give either a Session-Id or --account", ["reauth"]),
        (2, "occ: give either a Session-Id or --account", ["reauth", "a;1;1", "--account", "b"]),
        (2, "occ: give one of --rating-group, --service-identifier and --pool",
         ["reauth", "a;1;1", "--pool", "1", "--rating-group", "1"]),
    ],
)  # fmt: skip
async def test_wrong_usage_is_one_sentence(desk: Desk, code: int, sentence: str, arguments: list[str]) -> None:
    assert await desk.told(code, *arguments) == sentence
    assert desk.client.asked == []
