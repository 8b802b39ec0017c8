"""TMF654 v4 over real sockets: documents, paging, filters, money that moves once, reservations, events."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from balance.embedded import EmbeddedRedis
from tests.occ.api_lab import BASE, Api
from tests.occ.tmf654 import check, check_event
from tests.shell import Shell

EUR = "EUR"


@pytest.fixture(scope="module")
def process(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("api")
    with Api(Shell(directory, redis_server.address), directory) as running:
        yield running


@pytest.fixture
def api(process: Api) -> Api:
    """Three accounts: a with 10.00, b with 5 GiB beside nothing, c with 2.00 of credit."""
    process.empty()
    shell = process.shell
    shell.json("account", "create", "a", "--balance", "10.00")
    shell.json("account", "create", "b", "--bucket", "5 GiB until 2099-01-31")
    shell.json("account", "create", "c", "--postpaid", "--credit-limit", "2.00")
    shell.json("subscriber", "add", "4917", "--account", "a", "--plan", "standard", "--msisdn", "4917")
    return process


def topup(amount: Any, bucket: str = "a:1", units: str = EUR, usage: str = "monetary") -> dict[str, Any]:
    return {
        "amount": {"amount": amount, "units": units},
        "usageType": usage,
        "bucket": {"id": bucket},
        "partyAccount": {"id": bucket.partition(":")[0]},
    }


def transfer(amount: Any, source: str = "a:1", target: str = "c:1") -> dict[str, Any]:
    return topup(amount, source) | {
        "reason": "gift",
        "channel": {"id": "app"},
        "logicalResource": [{"id": "4917"}],
        "receiverLogicalResource": {"id": "4918"},
        "receiverBucket": {"id": target},
        "receiverBucketUsageType": "monetary",
    }


def left(api: Api, bucket: str) -> tuple[Any, Any]:
    """What can be spent of a bucket, and what is reserved."""
    found = check("bucket", api.get(f"{BASE}/bucket/{bucket}"))
    return found["remainingValue"]["amount"], found["reservedValue"]["amount"]


def test_buckets_are_as_tmf654_has_them(api: Api) -> None:
    found = [check("bucket", each) for each in api.get(f"{BASE}/bucket")]
    assert [each["id"] for each in found] == ["a:1", "b:1", "b:2", "c:1"]
    assert found[0]["remainingValue"] == {"amount": Decimal("10.00"), "units": EUR}
    assert found[0]["logicalResource"][0]["id"] == "4917"
    assert found[2]["remainingValue"] == {"amount": 5 << 30, "units": "B"}
    assert found[2]["usageType"] == "data"
    assert found[2]["validFor"]["endDateTime"].startswith("2099-")
    total = check("accumulatedBalance", api.get(f"{BASE}/accumulatedBalance/b:data"))
    assert total["totalBalance"]["amount"] == 5 << 30
    for each in api.get(f"{BASE}/accumulatedBalance"):
        check("accumulatedBalance", each)


def test_lists_are_paged_filtered_and_cut_to_fields(api: Api) -> None:
    answer = api.send("GET", f"{BASE}/bucket", offset=1, limit=2, fields="usageType")
    assert (answer.headers["x-total-count"], answer.headers["x-result-count"]) == ("4", "2")
    assert [set(each) for each in answer.json] == [{"id", "href", "@type", "usageType"}] * 2

    def names(**filters: str) -> list[str]:
        return [each["id"] for each in api.get(f"{BASE}/bucket", **filters)]

    assert names(usageType="data") == ["b:2"]
    assert names(usageType="data,monetary", **{"partyAccount.id": "b"}) == ["b:1", "b:2"]
    assert names(**{"logicalResource.id": "4917"}) == ["a:1"]
    assert names(**{"remainingValue.amount.gt": "9.99", "usageType": "monetary"}) == ["a:1"]
    assert names(**{"validFor.endDateTime.lt": "2100-01-01T00:00:00Z"}) == ["b:2"]
    assert names(**{"partyAccount.id": "nobody"}) == []
    assert "no attribute 'colour'" in api.refused(400, "GET", f"{BASE}/bucket", colour="red")
    assert api.refused(400, "GET", f"{BASE}/bucket", limit=0)
    assert api.refused(404, "GET", f"{BASE}/bucket/a:9")


def test_a_top_up_counts_once_for_its_key(api: Api) -> None:
    body = topup(5.1)
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(api.send, "POST", f"{BASE}/topupBalance", body, "care", {"Idempotency-Key": "pay-1"})
                for _ in range(8)]  # fmt: skip
        answers = [each.result() for each in sent]
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert left(api, "a:1") == (Decimal("15.10"), 0)
    first = check("topupBalance", answers[0].json)
    assert api.get(first["href"]) == check("topupBalance", api.post(f"{BASE}/topupBalance", body, key="pay-1"))
    message = api.refused(409, "POST", f"{BASE}/topupBalance", topup(5.2), headers={"Idempotency-Key": "pay-1"})
    assert "used before" in message
    api.post(f"{BASE}/topupBalance", body)
    api.post(f"{BASE}/topupBalance", body)
    assert left(api, "a:1") == (Decimal("25.30"), 0)  # without a key each one counts


def test_amounts_are_exact_or_refused(api: Api) -> None:
    text = json.dumps(topup(0)).replace('"amount": 0', '"amount": 4000000000000.000001')
    api.post(f"{BASE}/topupBalance", text)
    assert left(api, "a:1")[0] == Decimal("4000000000010.000001")
    api.post(f"{BASE}/topupBalance", topup(1.5, "b:2", "GiB", "data"))
    assert left(api, "b:2")[0] == 13 << 29
    assert "millionth" in api.refused(400, "POST", f"{BASE}/topupBalance", topup(0.0000001))
    assert "usageType" in api.refused(400, "POST", f"{BASE}/topupBalance", topup(1, "b:2"))
    assert "amount.units" in api.refused(400, "POST", f"{BASE}/topupBalance", topup(1, units="USD"))
    for wrong in ('{"amount": NaN}', "[" * 100_000, '{"amount": {"amount": 1e999999}}', '"\\ud800"', b"\xff"):
        api.refused(400, "POST", f"{BASE}/topupBalance", wrong)
    assert api.refused(413, "POST", f"{BASE}/topupBalance", " " * (1 << 21))


def test_what_cannot_be_done_is_a_failed_act_and_stays_one(api: Api) -> None:
    body = topup(-11)
    message = api.refused(409, "POST", f"{BASE}/adjustBalance", body, headers={"Idempotency-Key": "k"})
    assert "can give" in message
    api.post(f"{BASE}/topupBalance", topup(5))
    assert api.refused(409, "POST", f"{BASE}/adjustBalance", body, headers={"Idempotency-Key": "k"}) == message
    (failed,) = api.get(f"{BASE}/adjustBalance", status="failed")
    assert check("adjustBalance", failed)["description"] == message
    assert left(api, "a:1") == (15, 0)


@pytest.mark.parametrize("way", ["PATCH", "DELETE"])
def test_acts_are_cancelled_once(api: Api, way: str) -> None:
    acts = (
        check("topupBalance", api.post(f"{BASE}/topupBalance", topup(3))),
        check("adjustBalance", api.post(f"{BASE}/adjustBalance", topup(-2) | {"adjustType": "oneTime"})),
        check("transferBalance", api.post(f"{BASE}/transferBalance", transfer(4))),
    )
    assert left(api, "a:1")[0] == 7
    assert left(api, "c:1")[0] == 4
    for each in acts:
        for _ in range(2):
            answer = api.send(way, each["href"], {"status": "cancelled"} if way == "PATCH" else None)
            assert answer.status == (200 if way == "PATCH" else 204)
        found = check(each["href"].split("/")[-2], api.get(each["href"]))
        assert found["status"] == "cancelled"
    assert left(api, "a:1")[0] == 10
    assert left(api, "c:1")[0] == 0
    assert api.shell.json("ledger", "verify")["consistent"]


def test_a_reservation_is_held_then_taken_or_given_back(api: Api) -> None:
    taken = check("reserveBalance", api.post(f"{BASE}/reserveBalance", topup(4), key="r"))
    api.post(f"{BASE}/reserveBalance", topup(4), key="r")
    given_back = api.post(f"{BASE}/reserveBalance", topup(5))
    assert taken["status"] == "created"
    assert left(api, "a:1") == (1, 9)
    api.refused(409, "POST", f"{BASE}/reserveBalance", topup(2))
    assert api.shell.json("ledger", "verify")["consistent"]
    for _ in range(2):
        assert api.send("PATCH", taken["href"], {"status": "completed"}).json["status"] == "completed"
        assert api.send("DELETE", given_back["href"]).status == 204
    assert left(api, "a:1") == (6, 0)
    assert "cannot be" in api.refused(409, "DELETE", taken["href"])
    assert api.shell.json("ledger", "verify")["consistent"]


def test_history_has_what_was_done_by_whatever_way(api: Api) -> None:
    api.shell.json("account", "top-up", "a", "1.00", "--reason", "cash")
    api.post(f"{BASE}/transferBalance", transfer(2))
    found = [check("balanceActionHistory", each)
             for each in api.get(f"{BASE}/balanceActionHistory", **{"partyAccount.id": "a"})]  # fmt: skip
    assert [(each["description"], each["amount"]["amount"]) for each in found] == [
        ("transfer-out", -2),
        ("top-up", 1),
        ("create", 10),
    ]
    assert found[0]["receiverLogicalResource"]["id"] == "4917"
    assert api.get(found[1]["href"]) == found[1]
    newest = api.get(f"{BASE}/balanceActionHistory", limit=1)
    assert newest[0]["description"] == "transfer-in"


class Listener:
    """Takes notifications, but for the first one."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.refused = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.refused == 0:
                    outer.refused = 1
                    self.send_response(500)
                else:
                    outer.taken.append(json.loads(body))
                    self.send_response(201)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_subscriptions_hear_of_acts_in_order_though_one_is_refused_at_first(api: Api) -> None:
    api.post(f"{BASE}/topupBalance", topup(7))  # before anybody listens
    listener = Listener()
    try:
        wanted = "eventType=TopupBalanceCreateEvent,TopupBalanceCancelEvent,AdjustBalanceFailureEvent"
        hub = check("hub", api.post(f"{BASE}/hub", {"callback": listener.url, "query": wanted}))
        made = api.post(f"{BASE}/topupBalance", topup(1))
        api.post(f"{BASE}/adjustBalance", topup(1))  # not asked for
        api.send("DELETE", made["href"])
        api.refused(409, "POST", f"{BASE}/adjustBalance", topup(-100))
        until = time.monotonic() + 20
        while len(listener.taken) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        assert [each["eventType"] for each in listener.taken] == [
            "TopupBalanceCreateEvent",
            "TopupBalanceCancelEvent",
            "AdjustBalanceFailureEvent",
        ]
        assert listener.refused == 1
        assert check_event(listener.taken[0])["id"] == made["id"]
        for each in listener.taken:
            check_event(each)
        assert api.send("DELETE", f"{BASE}/hub/{hub['id']}").status == 204
        assert api.get(f"{BASE}/hub") == []
    finally:
        listener.close()
    assert "URL" in api.refused(400, "POST", f"{BASE}/hub", {"callback": "file:///etc/passwd"})
    assert "eventType" in api.refused(400, "POST", f"{BASE}/hub", {"callback": "http://localhost/", "query": "a=b"})
