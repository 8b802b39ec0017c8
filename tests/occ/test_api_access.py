"""Who may use the management API, what is written down of it, and vouchers, over real sockets."""

import re
from collections.abc import Iterator

import pytest
import redis

from balance.embedded import EmbeddedRedis
from tests.occ.api_lab import BASE, Api
from tests.shell import Shell

ROLES = ("viewer", "care", "operator", "admin")
BATCHES = "/occ/v1/vouchers/batches"
REDEEM = "/occ/v1/vouchers/redeem"


@pytest.fixture(scope="module")
def process(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("api")
    with Api(Shell(directory, redis_server.address), directory) as running:
        yield running


@pytest.fixture
def api(process: Api) -> Api:
    """Two accounts with nothing."""
    process.empty()
    process.shell.json("account", "create", "a")
    process.shell.json("account", "create", "b")
    return process


def everything_in(api: Api) -> bytes:
    """All keys and values of the store."""
    with redis.Redis.from_url(api.shell.address.url) as client:
        return b"\n".join(key + (client.dump(key) or b"") for key in client.keys("*"))


def test_every_operation_takes_a_token_with_its_role(api: Api) -> None:
    paths = api.get("/openapi.json")["paths"]
    tried = 0
    for path, operations in paths.items():
        for method, operation in operations.items():
            where = re.sub(r"\{[a-z]+\}", "x", path)
            api.refused(401, method.upper(), where, role=None)
            needed = operation["x-role"]
            for role in ROLES[: ROLES.index(needed)]:
                message = api.refused(403, method.upper(), where, role=role)
                assert needed in message
                tried += 1
    assert len(paths) > 40
    assert tried > 40
    assert api.send("GET", "/health", role=None).json == {"status": "pass"}
    assert b"/occ/v1/sessions/abort" in api.send("GET", "/docs", role=None).body
    api.refused(404, "GET", "/nowhere")
    api.refused(405, "PUT", f"{BASE}/bucket")


def test_tokens_are_kept_as_digests_and_revoked_at_once(api: Api) -> None:
    made = api.post("/occ/v1/tokens", {"name": "crm", "role": "viewer"})
    api.tokens["new"] = made["token"]
    assert api.get("/occ/v1/accounts", role="new")
    secret = made["token"].rpartition("_")[2].encode()
    assert secret not in everything_in(api)
    assert all("token" not in each for each in api.get("/occ/v1/tokens"))
    api.tokens["forged"] = made["token"][:-1] + ("A" if made["token"][-1] != "A" else "B")
    api.refused(401, "GET", "/occ/v1/accounts", role="forged")
    api.shell.text("api", "token", "revoke", made["id"])
    api.refused(401, "GET", "/occ/v1/accounts", role="new")
    assert "there is no token" in api.shell.refused_beside_a_server(1, "api", "token", "revoke", made["id"])


def test_who_guesses_tokens_has_to_wait_and_others_do_not(api: Api) -> None:
    api.tokens["guess"] = "occ_000000000000_" + 43 * "A"
    statuses = [api.send("GET", "/occ/v1/accounts", role="guess").status for _ in range(8)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert int(api.send("GET", "/occ/v1/accounts", role="guess").headers["retry-after"]) >= 1
    assert api.get("/occ/v1/accounts")


def test_every_act_is_in_the_audit_log_with_its_result(api: Api) -> None:
    api.refused(403, "POST", "/occ/v1/accounts/a/state", {"state": "blocked", "reason": "fraud"}, role="viewer")
    answer = api.send("POST", "/occ/v1/accounts/a/state", {"state": "blocked", "reason": "fraud"}, "care")
    assert answer.json["state"] == "blocked"
    api.refused(409, "PUT", "/occ/v1/accounts/a/credit-limit", {"credit_limit": "-1", "reason": "?"})
    api.get("/occ/v1/accounts")
    api.shell.text("account", "limit", "a", "1.00")
    found = api.shell.json("audit", "list", "--limit", "4")
    assert [each["what"] for each in found] == [
        *["POST /occ/v1/accounts/{account}/state"] * 2,
        "PUT /occ/v1/accounts/{account}/credit-limit",
        "occ account limit",
    ]
    refused, done, failed, typed = found
    assert refused["result"].startswith("refused (403)")
    assert refused["role"] == "viewer"
    assert (done["result"], done["on"], done["from"]) == ("done (200)", "account a", "127.0.0.1")
    assert failed["result"].startswith("refused (409)")
    assert typed["who"].startswith("cli ")
    assert typed["result"] == "done"
    assert "account a" in typed["on"]
    assert len(api.get("/occ/v1/audit", on="account a", limit=2)) == 2
    assert api.shell.json("audit", "list", "--limit", "4") == found  # looking is no act


# -- vouchers ----------------------------------------------------------------------------------------------------


def balance(api: Api, account: str) -> str:
    return str(api.get(f"{BASE}/bucket/{account}:1")["remainingValue"]["amount"])


def test_a_voucher_is_worth_its_money_once(api: Api) -> None:
    batch = api.post(BATCHES, {"count": 3, "amount": "5.00"}, role="operator")
    codes = [each["code"] for each in batch["vouchers"]]
    spaced = f"{codes[0][:4]} {codes[0][4:8]}-{codes[0][8:]}"
    first = api.post(REDEEM, {"code": spaced, "account": "a"}, 200, "care")
    again = api.post(REDEEM, {"code": codes[0], "account": "a"}, 200, "care")
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert "has been used" in api.refused(409, "POST", REDEEM, {"code": codes[0], "account": "b"})
    assert api.shell.json("voucher", "redeem", "b", codes[1])["amount"] == 5_000_000
    body = {"amount": {"amount": 1}, "usageType": "monetary", "bucket": {"id": "b:1"}, "partyAccount": {"id": "b"}}
    paid = api.post(f"{BASE}/topupBalance", body | {"voucher": codes[2]})
    assert (str(paid["amount"]["amount"]), paid["voucher"]) == ("5.00", batch["vouchers"][2]["serial"])
    assert (balance(api, "a"), balance(api, "b")) == ("5.00", "10.00")
    states = [each["state"] for each in api.get(f"{BATCHES}/{batch['batch']}")["vouchers"]]
    assert states == ["used"] * 3
    assert not [code for code in codes if code.encode() in everything_in(api)]
    assert api.shell.json("ledger", "verify")["consistent"]


def test_blocked_and_wrong_vouchers_are_worth_nothing_and_guessing_has_to_wait(api: Api) -> None:
    batch = api.post(BATCHES, {"count": 2, "amount": "5.00"})
    code = batch["vouchers"][0]["code"]
    api.post(f"{BATCHES}/{batch['batch']}/block", None, 200)
    assert "blocked" in api.refused(409, "POST", REDEEM, {"code": code, "account": "a"})
    api.refused(400, "POST", BATCHES, {"count": 1, "amount": "5.00", "expires": "2020-01-01"})
    api.refused(409, "POST", BATCHES, {"count": 1, "amount": "5.00", "expires": "2020-01-01T00:00:00Z"})
    good = api.post(BATCHES, {"count": 1, "amount": "5.00"})["vouchers"][0]["code"]
    statuses = [api.send("POST", REDEEM, {"code": f"{n:016d}", "account": "b"}).status for n in range(8)]
    assert statuses[0] == 409
    assert statuses[-1] == 429
    # Once somebody has guessed for an account, its holder has to wait as well; others need not.
    assert "try again in" in api.refused(429, "POST", REDEEM, {"code": good, "account": "b"})
    assert api.post(REDEEM, {"code": good, "account": "a"}, 200)["balance_after"] == "5.00"


def test_another_pepper_is_noticed(api: Api) -> None:
    code = api.post(BATCHES, {"count": 1, "amount": "5.00"})["vouchers"][0]["code"]
    (pepper,) = api.shell.config.parent.glob("data/voucher-pepper")
    assert pepper.stat().st_mode & 0o077 == 0
    kept = pepper.read_bytes()
    try:
        pepper.write_bytes(b"another secret of this length")
        assert "pepper" in api.refused(409, "POST", REDEEM, {"code": code, "account": "a"})
    finally:
        pepper.write_bytes(kept)
