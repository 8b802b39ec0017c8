"""The operator's own resources over real sockets, beside a running server with a client."""

import asyncio
from base64 import b64encode
from collections.abc import Iterator

import pytest

from balance.model import IdentityType
from tests.asked_client import AskedClient, always
from tests.live_server import LiveServer
from tests.occ.api_lab import Answer, Api
from tests.shell import Shell

V1 = "/occ/v1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("api")
    shell = Shell(directory, server.server.redis_address)
    with shell.config.open("a") as file:
        policies = server.settings.policies
        file.write(f"  partitions: {server.settings.store.partitions}\n")
        shell_top = f"policies: {policies}\nmetrics:\n  port: {server.server.metrics_port}\n"
    shell.config.write_text(shell_top + shell.config.read_text())
    with Api(shell, directory) as running:
        yield running


def test_accounts_and_subscribers_are_made_shown_and_changed(api: Api) -> None:
    made = api.post(f"{V1}/accounts", {"account": "n", "balance": "3.00"})
    assert made["buckets"][0]["balance"] == 3_000_000
    assert "exists already" in api.refused(409, "POST", f"{V1}/accounts", {"account": "n"})
    assert api.get(f"{V1}/accounts/n")["state"] == "active"
    assert api.get(f"{V1}/accounts/n/history")[0]["operation"] == "create"
    line = {"subscriber": "491", "account": "n", "plan": "standard", "identities": [{"type": "e164", "value": "+491"}]}
    assert api.post(f"{V1}/subscribers", line, role="care")["plan"] == "standard"
    assert "no plan" in api.refused(400, "POST", f"{V1}/subscribers", line | {"plan": "x", "subscriber": "492"})
    assert api.get(f"{V1}/subscribers", account="n")[0]["subscriber"] == "491"
    change = {"state": "suspended", "reason": "holiday"}
    assert api.post(f"{V1}/subscribers/491/state", change, 200)["state"] == "suspended"
    assert api.get(f"{V1}/subscribers/491")["state"] == "suspended"
    limit = api.send("PUT", f"{V1}/accounts/n/credit-limit", {"credit_limit": "2.50", "reason": "good customer"})
    assert limit.json["credit_limit_micro"] == 2_500_000
    assert [each["operation"] for each in api.get(f"{V1}/ledger", account="n", operation="credit-limit")] == [
        "credit-limit"
    ]
    assert api.refused(400, "POST", f"{V1}/accounts", {"account": "m", "colour": "red"}).startswith("body.colour")
    assert api.refused(404, "GET", f"{V1}/accounts/nobody")


def test_catalogue_and_policies_are_read_checked_and_reloaded(api: Api, server: LiveServer) -> None:
    edition = api.get(f"{V1}/catalogue")["edition"]
    service = api.get(f"{V1}/services")[0]["name"]
    assert api.get(f"{V1}/services/{service}")["prices"]
    assert api.post(f"{V1}/catalogue/check", None, 200)["edition"] == edition
    assert api.get(f"{V1}/policies")["edition"]
    for what in ("catalogue", "policies"):
        told = api.post(f"{V1}/{what}/reload", None, 200)
        assert told["workers"][0]["worker"] == server.origin_host
        assert told["in_force"]
    assert api.get(f"{V1}/notices", state="dead") == []
    assert api.refused(404, "GET", f"{V1}/notices/nothing")
    assert isinstance(api.get(f"{V1}/policy-events"), list)
    assert api.post(f"{V1}/ledger/verify", None, 200)["consistent"]
    assert api.get(f"{V1}/cdrs") == []


def test_the_noc_page_is_there_for_browsers_with_a_token(api: Api) -> None:
    answer = api.send("GET", "/noc", role=None)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")

    def with_password(password: str, path: str = "/noc") -> Answer:
        credentials = b64encode(f"noc:{password}".encode()).decode()
        return api.send("GET", path, role=None, headers={"Authorization": f"Basic {credentials}"})

    page = with_password(api.tokens["viewer"])
    assert page.status == 200
    assert b"noc.js" in page.body
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert with_password(api.tokens["viewer"], "/noc/noc.css").headers["content-type"].startswith("text/css")
    assert with_password(api.tokens["viewer"], "/noc/data").json["alerts"]
    assert api.get("/noc/data", role="viewer")["store"]["up"]
    assert with_password("occ_000000000000_" + 43 * "A").status == 401
    for written in ("Basic x", "Basic Og==", "Basic /w=="):
        assert api.send("GET", "/noc", role=None, headers={"Authorization": written}).status in (401, 429)


async def test_sessions_are_listed_asked_anew_and_ended(api: Api, server: LiveServer) -> None:
    """Rows 42 and 43, by HTTP."""
    server.add_account("s", [(IdentityType.E164, "4955")], balance_micro=10_000_000)
    client = await AskedClient("smf.clients.example.net").connect(server.port)
    try:
        await client.begin("smf;1;1", "4955")
        (found,) = await asyncio.to_thread(api.get, f"{V1}/sessions", subscriber="4955")
        assert found["session_id"] == "smf;1;1"
        assert await asyncio.to_thread(api.get, f"{V1}/sessions", session_id="smf;1;1") == [found]
        (told,) = await asyncio.to_thread(api.post, f"{V1}/sessions/reauthorise", {"account": "s"}, 200, "care")
        assert (told["result"], told["effective"]) == ("update-expected", True)
        client.reply = always(2001)
        told = await asyncio.to_thread(api.post, f"{V1}/sessions/abort", {"session_id": "smf;1;1"}, 200)
        assert told["result"] == "termination-expected"
        assert [type(asked.request).__name__ for asked in client.asked] == ["ReAuthRequest", "AbortSessionRequest"]
        await client.end("smf;1;1")
        assert await asyncio.to_thread(api.get, f"{V1}/sessions", account="s") == []
        abort = {"session_id": "smf;1;1"}
        assert "no open session" in await asyncio.to_thread(api.refused, 404, "POST", f"{V1}/sessions/abort", abort)
        peers = await asyncio.to_thread(api.get, f"{V1}/peers")
        assert "smf.clients.example.net" in [peer["origin_host"] for peer in peers]
    finally:
        await client.close()
