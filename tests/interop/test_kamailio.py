"""Kamailio's ims_charging, a real Ro client, charges real SIP calls against the server.

sipp calls sipp through Kamailio, which asks for credit before it lets a call through, reports while it lasts, and
ends it when the server says that the units are the last (TS 32.299, Session Charging with Unit Reservation).

All the calls of ``CALLS`` are made at the same time, once; each test looks at one of them.
"""

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from balance.model import MAIN_BUCKET, IdentityType
from protocols.diameter import codec
from tests.interop.kamailio.rig import FILES, KAMAILIO, SIPP, Call, Exchange, Kamailio, Tap, until
from tests.live_server import LiveServer
from tests.scenarios.checks import breaches
from tests.scenarios.expectations import complaints, describe

PROJECT = Path(__file__).parents[2]
SERVICE = "RG 100 SI 1000"
VIDEO = "RG 200 SI 1001"
HOST = "scscf.ims.example.net"
BEFORE_SWITCH_S = 6
"""How long after the first calls begin the price of the plan "dearer-soon" rises."""

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(KAMAILIO is None, reason="Kamailio is not installed; apt install kamailio kamailio-ims-modules"),
    pytest.mark.skipif(SIPP is None, reason="sipp, which makes the calls, is not installed; apt install sip-tester"),
]


@dataclass(frozen=True)
class Caller:
    """A prepaid account, named like the MSISDN of its one subscriber."""

    msisdn: str
    balance_micro: int
    plan: str = "standard"
    uri: str = ""

    def add(self, server: LiveServer) -> None:
        kind, name = (IdentityType.SIP_URI, self.uri) if self.uri else (IdentityType.E164, self.msisdn)
        server.add_account(self.msisdn, [(kind, name)], balance_micro=self.balance_micro, plan=self.plan)


TWO = Caller("491730000011", 80_000, "by-the-second")
"""Makes two calls at once."""

CALLS: dict[str, tuple[Caller | None, Call]] = {
    name: (caller, replace(call, msisdn=call.msisdn if caller is None else caller.msisdn))
    for name, (caller, call) in {
        "answered": (Caller("491730000001", 1_000_000), Call("", "hangs up", "answers", 4000)),
        "ended by the callee": (
            Caller("491730000002", 1_000_000, "by-the-second"),
            Call("", "is hung up on", "hangs up", 3000),
        ),
        "several quotas": (Caller("491730000003", 1_000_000, "by-the-second"), Call("", "hangs up", "answers", 7000)),
        "busy": (Caller("491730000004", 90_000), Call("", "hears busy", "is busy")),
        "not answered": (Caller("491730000005", 90_000), Call("", "hears no answer", "rings")),
        "cancelled": (Caller("491730000006", 90_000), Call("", "gives up", "rings", 1000)),
        "no credit": (Caller("491730000007", 89_999), Call("", "must pay", None)),
        "unknown": (None, Call("491740000000", "must pay", None)),
        "cut": (Caller("491730000008", 50_000, "by-the-second"), Call("", "is hung up on", "answers")),
        "cut at the first quota": (
            Caller("491730000009", 20_000, "by-the-second"),
            Call("", "is hung up on", "answers"),
        ),
        "redirecting service": (
            Caller("491730000010", 60_000, "by-five-seconds"),
            Call("", "is hung up on", "answers", video=True),
        ),
        "one of two": (TWO, Call("", "is hung up on", "answers")),
        "other of two": (TWO, Call("", "is hung up on", "answers")),
        "dearer soon": (Caller("491730000012", 1_000_000, "dearer-soon"), Call("", "hangs up", "answers", 9000)),
        "by SIP URI": (
            Caller("491730000013", 90_000, uri="sip:anna@ims.example.net"),
            Call("", "hangs up", "answers", 500, asserted="P-Asserted-Identity: <sip:anna@ims.example.net>"),
        ),
        "by From": (
            Caller("491730000014", 90_000, uri="sip:+491730000014@ims.example.net"),
            Call("", "hangs up", "answers", 500, asserted="Subject: nobody asserted"),
        ),
    }.items()
}


def catalogue(directory: Path, switch_ms: int) -> Path:
    """The project's own catalogue, and beside it plans in which every second counts."""
    root = yaml.safe_load((PROJECT / "config" / "catalogue.yaml").read_text(encoding="utf-8"))
    video = {
        "context": "32260@3gpp.org",
        "rating_groups": [200],
        "unit": "seconds",
        "quota": "60 s",
        "maximum_quota": "300 s",
        "validity": "5 min",
        "when_used_up": {"redirect_to": "sip:top-up@ims.example.net", "ask_again_after": "5 min"},
    }
    root["services"] = {"video-call": video, **root["services"]}
    by_the_second = "0.01 per 1 s"
    hours = [datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M") for at_ms in (switch_ms - 3_600_000, switch_ms)]
    root["plans"] |= {
        "by-the-second": {"national-voice": by_the_second},
        "by-five-seconds": {"video-call": "0.05 per 5 s"},
        "dearer-soon": {"national-voice": {hours[0]: by_the_second, hours[1]: "0.03 per 1 s"}},
    }
    path = directory / "catalogue.yaml"
    path.write_text(yaml.safe_dump(root, sort_keys=False), encoding="utf-8")
    return path


class Complaints(logging.Handler):
    """What the server logs as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@pytest.fixture(scope="module")
def logged() -> Iterator[Complaints]:
    handler = Complaints()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture(scope="module")
def switch_ms() -> int:
    """A full minute far ahead, so that Kamailio's clock, which is not the server's, is of no account."""
    return (time.time_ns() // 1_000_000 // 60_000 + 12 * 60) * 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, switch_ms: int) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("server")
    with LiveServer(directory, {"catalogue": str(catalogue(directory, switch_ms))}) as server:
        yield server


@pytest.fixture(scope="module")
def tap(server: LiveServer) -> Iterator[Tap]:
    tap = Tap(server.port)
    yield tap
    tap.close()


def configuration() -> dict[str, str]:
    return {name: (FILES / name).read_text(encoding="utf-8") for name in ("kamailio.cfg", "diameter.xml")}


def started(kamailio: Kamailio) -> Iterator[Kamailio]:
    """Kamailio while it runs, and is connected with the server."""
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


@pytest.fixture(scope="module")
def kamailio(tmp_path_factory: pytest.TempPathFactory, tap: Tap) -> Iterator[Kamailio]:
    yield from started(Kamailio(tmp_path_factory.mktemp("kamailio"), tap, configuration()))


@dataclass
class Made:
    """The calls of ``CALLS``, which have all ended."""

    futures: dict[str, Future[list[Exchange]]]
    server: LiveServer

    def __getitem__(self, name: str) -> list[Exchange]:
        """What was charged for a call; raises what went wrong with it. Every answer was what answers must be."""
        exchanges = self.futures[name].result()
        for each in exchanges:
            assert breaches(each.request, each.answer, self.server.origin_host) == []
        return exchanges


@pytest.fixture(scope="module")
def made(server: LiveServer, kamailio: Kamailio, switch_ms: int, logged: Complaints) -> Made:
    for caller in {caller for caller, _ in CALLS.values() if caller is not None}:
        caller.add(server)
    server.pass_time(switch_ms - BEFORE_SWITCH_S * 1000 - server.now_ms())
    return Made(kamailio.call_all({name: call for name, (_, call) in CALLS.items()}), server)


@pytest.mark.usefixtures("made")
def test_nothing_is_amiss(server: LiveServer, logged: Complaints) -> None:
    """Whatever Kamailio did: the server logged no complaint, no session stayed open, the books balance."""
    assert logged.lines == []
    report = server.assert_books_balance()
    assert (report.open_sessions, report.open_reservations) == (0, 0)
    assert all(total.reserved == 0 for total in report.totals)


def test_x(made):
    for name, f in made.futures.items():
        try:
            print(name, [(e.kind, e.used_s, e.granted_s, e.is_final) for e in f.result()])
        except BaseException as e:
            print(name, "FAILED", str(e)[:1500])
