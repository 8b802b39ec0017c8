"""Kamailio's ims_charging, a real Ro client, charges real SIP calls against the server.

sipp calls sipp through Kamailio, which asks for credit before it lets a call through, reports while it lasts, and
ends it when the server says that the units are the last (TS 32.299, Session Charging with Unit Reservation).
"""

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from balance.model import MAIN_BUCKET, IdentityType
from protocols.diameter import codec
from tests.interop.kamailio.rig import KAMAILIO, SIPP, Exchange, Kamailio, Tap, until
from tests.live_server import LiveServer
from tests.scenarios.checks import breaches
from tests.scenarios.expectations import complaints, describe

PROJECT = Path(__file__).parents[2]
SERVICE = "RG 100 SI 1000"
BY_THE_SECOND = "by-the-second"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(KAMAILIO is None, reason="Kamailio is not installed; apt install kamailio kamailio-ims-modules"),
    pytest.mark.skipif(SIPP is None, reason="sipp, which makes the calls, is not installed; apt install sip-tester"),
]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The project's own catalogue, and beside it a plan in which every second counts."""
    directory = tmp_path_factory.mktemp("server")
    catalogue = yaml.safe_load((PROJECT / "config" / "catalogue.yaml").read_text(encoding="utf-8"))
    catalogue["plans"][BY_THE_SECOND] = {"national-voice": "0.01 per 1 s"}
    path = directory / "catalogue.yaml"
    path.write_text(yaml.safe_dump(catalogue), encoding="utf-8")
    with LiveServer(directory, {"catalogue": str(path)}) as server:
        yield server


@pytest.fixture(scope="module")
def tap(server: LiveServer) -> Iterator[Tap]:
    tap = Tap(server.port)
    yield tap
    tap.close()


@pytest.fixture(scope="module")
def kamailio(tmp_path_factory: pytest.TempPathFactory, tap: Tap) -> Iterator[Kamailio]:
    kamailio = Kamailio(tmp_path_factory.mktemp("kamailio"), tap)
    complaint = kamailio.complaint()
    if "could not find module" in complaint:
        pytest.skip("Kamailio lacks its IMS modules; apt install kamailio-ims-modules")
    assert complaint == ""
    kamailio.start()
    try:
        until(kamailio.is_ready, "Kamailio's connection with the server", kamailio.tell)
        yield kamailio
    finally:
        kamailio.stop()


@pytest.fixture(autouse=True)
def all_is_well(server: LiveServer, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever Kamailio did: the server logged no complaint, no session stayed open, the books balance."""
    yield
    warnings = [one for one in caplog.get_records("call") if one.levelno >= logging.WARNING]
    assert [one.getMessage() for one in warnings] == []
    report = server.verify()
    assert report.consistent, report.discrepancies
    assert (report.open_sessions, report.open_reservations) == (0, 0)
    assert all(total.reserved == 0 for total in report.totals)


def new_caller(server: LiveServer, balance_micro: int, plan: str = "standard") -> str:
    """A new prepaid account, named like the MSISDN of its subscriber."""
    msisdn = f"49173{next(_numbers):07d}"
    server.add_account(msisdn, [(IdentityType.E164, msisdn)], balance_micro=balance_micro, plan=plan)
    return msisdn


def balance(server: LiveServer, msisdn: str) -> int:
    bucket = server.account(msisdn).bucket(MAIN_BUCKET)
    assert bucket is not None
    return bucket.balance


def kinds(exchanges: list[Exchange], server: LiveServer) -> list[str]:
    """I0, U1 and so on; every answer was what answers must be."""
    for each in exchanges:
        assert breaches(each.request, each.answer, server.origin_host) == []
    return [each.kind for each in exchanges]


def assert_answer(exchange: Exchange, expected: str) -> None:
    answer = codec.decode(exchange.answer)
    assert complaints(answer, expected) == [], describe(answer)


def record(server: LiveServer, kamailio: Kamailio, msisdn: str) -> dict[str, Any]:
    """The one charging data record of a caller."""

    def found() -> list[dict[str, Any]]:
        return [one for one in map(json.loads, server.cdr_lines()) if one["subscriber_id"] == msisdn]

    until(lambda: bool(found()), "a charging data record", kamailio.tell)
    (one,) = found()
    return one


@pytest.mark.shows("row 19", "row 20", "kamailio-ims-information", "kamailio-validity-always")
def test_answered_call(kamailio: Kamailio, server: LiveServer) -> None:
    """TS 32.299 section 6.3.4: reserved before the call, charged by the started minute, closed after it."""
    msisdn = new_caller(server, 1_000_000)
    exchanges = kamailio.call(msisdn, "caller_hangs_up", "callee_answers", talk_ms=4000)
    seen = kinds(exchanges, server)
    updates = [f"U{number}" for number in range(1, len(seen) - 1)]
    assert updates, "Kamailio reports after two seconds"
    assert seen == ["I0", *updates, f"T{len(seen) - 1}"]
    granted = f"2001; {SERVICE}: 2001, granted 3 s, valid 5 min"
    for each in exchanges[:-1]:
        assert_answer(each, granted)
    assert_answer(exchanges[-1], f"2001; {SERVICE}: 2001")
    assert balance(server, msisdn) == 1_000_000 - 90_000
    charged = record(server, kamailio, msisdn)
    assert charged["used"] == sum(each.used_s for each in exchanges) >= 4
    assert (charged["debited_micro"], charged["leaked_micro"], charged["cause"]) == (90_000, 0, "normal")
    assert charged["calling_party"] == f"tel:+{msisdn}"


@pytest.mark.shows("row 24", "kamailio-reports-early")
def test_every_quota_is_debited_as_reported(kamailio: Kamailio, server: LiveServer) -> None:
    """Row 24: a call over several quotas costs what its reports come to, each of them once."""
    msisdn = new_caller(server, 1_000_000, BY_THE_SECOND)
    exchanges = kamailio.call(msisdn, "caller_hangs_up", "callee_answers", talk_ms=7000)
    seen = kinds(exchanges, server)
    assert [kind[0] for kind in seen].count("U") >= 2, seen
    used = sum(each.used_s for each in exchanges)
    assert used >= 7
    assert all(each.used_s for each in exchanges[1:-1]), "every update reports what was used since the one before"
    assert all(each.granted_s == 3 and not each.is_final for each in exchanges[:-1])
    assert balance(server, msisdn) == 1_000_000 - used * 10_000
    assert record(server, kamailio, msisdn)["used"] == used


@pytest.mark.shows("row 20")
def test_busy_callee(kamailio: Kamailio, server: LiveServer) -> None:
    """A call that is not answered costs nothing, and what was reserved for it is given back."""
    msisdn = new_caller(server, 90_000)
    exchanges = kamailio.call(msisdn, "caller_hears_busy", "callee_is_busy")
    assert kinds(exchanges, server) == ["I0", "T1"]
    # The last of the money: reserved for the first minute, and all of it for this call.
    assert_answer(exchanges[0], f"2001; {SERVICE}: 2001, granted 3 s, valid 5 min")
    assert_answer(exchanges[1], f"2001; {SERVICE}: 2001")
    assert balance(server, msisdn) == 90_000
    charged = record(server, kamailio, msisdn)
    assert (charged["used"], charged["debited_micro"]) == (0, 0)


@pytest.mark.shows("row 27", "row 28", "kamailio-no-time-no-call", "kamailio-termination-after-refusal")
def test_caller_without_credit(kamailio: Kamailio, server: LiveServer) -> None:
    """Rows 27 and 28: 4012 makes Kamailio refuse the call with 402; the T that follows all the same is answered."""
    msisdn = new_caller(server, 89_999)
    exchanges = kamailio.call(msisdn, "caller_must_pay", None)
    assert kinds(exchanges, server) == ["I0", "T1"]
    assert_answer(exchanges[0], f"4012; {SERVICE}: 4012")
    assert_answer(exchanges[1], "5002")
    assert balance(server, msisdn) == 89_999


@pytest.mark.shows("row 28", "kamailio-termination-after-refusal")
def test_unknown_caller(kamailio: Kamailio, server: LiveServer) -> None:
    """Row 28: 5030 refuses the call as well, and again a T follows."""
    exchanges = kamailio.call("49174000000", "caller_must_pay", None)
    assert kinds(exchanges, server) == ["I0", "T1"]
    assert_answer(exchanges[0], "5030")
    assert_answer(exchanges[1], "5002")


@pytest.mark.shows("row 20", "kamailio-final-units")
def test_call_is_cut_at_the_last_unit(kamailio: Kamailio, server: LiveServer) -> None:
    """RFC 8506 section 5.6.1: told that the units are the last, Kamailio itself hangs up on both sides."""
    affordable_s = 5
    msisdn = new_caller(server, affordable_s * 10_000, BY_THE_SECOND)
    exchanges = kamailio.call(msisdn, "caller_is_cut_off", "callee_answers")
    seen = kinds(exchanges, server)
    assert seen[-1][0] == "T"
    *earlier, last = exchanges[:-1]
    assert last.is_final
    assert last.kind[0] == "U"
    assert not any(each.is_final for each in earlier)
    # What was used and what is granted at last come to what the balance affords, no more and no less.
    assert sum(each.used_s for each in exchanges[:-1]) + last.granted_s == affordable_s
    used = sum(each.used_s for each in exchanges)
    charged = record(server, kamailio, msisdn)
    assert charged["used"] == used
    # Kamailio hangs up to a second early or late; what it overran is told, but not debited.
    assert charged["debited_micro"] == min(used, affordable_s) * 10_000
    assert charged["leaked_micro"] == max(used - affordable_s, 0) * 10_000
    assert balance(server, msisdn) == affordable_s * 10_000 - charged["debited_micro"]
