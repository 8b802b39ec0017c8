"""Kamailio's ims_charging, a real Ro client, charges real SIP calls against the server.

sipp calls sipp through Kamailio, which asks for credit before it lets a call through, reports while it lasts, and
ends it when the server says that the units are the last (TS 32.299, Session Charging with Unit Reservation).

All the calls of ``CALLS`` are made at the same time, once; each test looks at one of them.
"""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from balance.model import MAIN_BUCKET, IdentityType
from occ.server_requests import Meaning, Result
from protocols.diameter import codec
from tests.interop import readme
from tests.interop.kamailio.rig import FILES, KAMAILIO, SIPP, Call, Exchange, Kamailio, Tap, until
from tests.interop.server_log import ServerLog, listening
from tests.live_server import LiveServer
from tests.scenarios.checks import breaches
from tests.scenarios.expectations import complaints, describe

SHIPPED = Path(__file__).parents[2] / "config" / "clients" / "kamailio"
SERVICE = "RG 100 SI 1000"
VIDEO = "RG 200 SI 1001"
RECOGNISED = "client scscf.ims.example.net: profile kamailio, recognised by what it said when it connected"
LONG_FIRST_QUOTA = "+4930999999"
"""Whom to call to be granted ten seconds before Kamailio reports; kamailio.cfg knows it."""
BEFORE_SWITCH_S = 6
"""How long after the first calls begin the price of the plan "dearer-soon" rises."""

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(KAMAILIO is None, reason="Kamailio is not installed; apt install kamailio kamailio-ims-modules"),
    pytest.mark.skipif(SIPP is None, reason="sipp, which makes the calls, is not installed; apt install sip-tester"),
]


@dataclass(frozen=True)
class Case:
    """A call, and the prepaid account of its caller, which is named like the caller's MSISDN."""

    call: Call
    balance_micro: int
    plan: str = "by-minute"
    uri: str = ""
    """SIP URI of the caller, who is known by that alone then."""

    def add_caller(self, server: LiveServer) -> None:
        kind, name = (IdentityType.SIP_URI, self.uri) if self.uri else (IdentityType.E164, self.call.msisdn)
        server.add_account(self.call.msisdn, [(kind, name)], balance_micro=self.balance_micro, plan=self.plan)


BY_SECOND, BY_FIVE_SECONDS, DEARER_SOON = "by-second", "by-five-seconds", "dearer-soon"

CASES = {
    "answered": Case(Call("491730000001", "hangs up", "answers", 4000), 1_000_000),
    "ended-by-callee": Case(Call("491730000002", "is hung up on", "hangs up", 3000), 1_000_000, BY_SECOND),
    "several-quotas": Case(Call("491730000003", "hangs up", "answers", 7000), 1_000_000, BY_SECOND),
    "busy": Case(Call("491730000004", "hears busy", "is busy"), 90_000),
    "not-answered": Case(Call("491730000005", "hears no answer", "rings"), 90_000),
    "cancelled": Case(Call("491730000006", "gives up", "rings", 1000), 90_000),
    "no-credit": Case(Call("491730000007", "must pay", None), 89_999),
    "cut": Case(Call("491730000008", "is hung up on", "answers"), 50_000, BY_SECOND),
    "cut-at-first-quota": Case(Call("491730000009", "is hung up on", "answers"), 20_000, BY_SECOND),
    "cut-in-step": Case(Call("491730000010", "is hung up on", "answers"), 50_000, BY_FIVE_SECONDS),
    "redirecting": Case(Call("491730000011", "is hung up on", "answers", video=True), 50_000, BY_FIVE_SECONDS),
    "aborted": Case(Call("491730000012", "is hung up on", "answers"), 1_000_000, BY_SECOND),
    "dearer-soon": Case(Call("491730000013", "hangs up", "answers", 9000), 1_000_000, DEARER_SOON),
    "dearer-soon-and-poor": Case(Call("491730000018", "is hung up on", "answers"), 80_000, DEARER_SOON),
    "by-sip-uri": Case(
        Call("491730000014", "hangs up", "answers", 500, "P-Asserted-Identity: <sip:anna@ims.example.net>"),
        90_000,
        uri="sip:anna@ims.example.net",
    ),
    "by-from": Case(
        Call("491730000015", "hangs up", "answers", 500, "Subject: nobody asserted"),
        90_000,
        uri="sip:+491730000015@ims.example.net",
    ),
}
UNKNOWN = Call("491740000000", "must pay", None)
"""Nobody's."""
TWO = Case(Call("491730000016", "is hung up on", "answers"), 100_000, BY_FIVE_SECONDS)
"""Makes two calls at once, which together use up the balance."""


def catalogue(directory: Path, switch_ms: int) -> Path:
    """The tests' catalogue, in which a second of the plan "dearer-soon" costs more from ``switch_ms`` on."""
    text = (FILES / "catalogue.yaml").read_text(encoding="utf-8")
    for name, at_ms in (("@BEFORE@", switch_ms - 3_600_000), ("@SWITCH@", switch_ms)):
        text = text.replace(name, datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M"))
    path = directory / "catalogue.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def tapped(server: LiveServer) -> Iterator[Tap]:
    tap = Tap(server.port)
    try:
        yield tap
    finally:
        tap.close()


def configuration() -> dict[str, str]:
    return {name: (FILES / name).read_text(encoding="utf-8") for name in ("kamailio.cfg", "diameter.xml")}


@contextmanager
def running(kamailio: Kamailio) -> Iterator[Kamailio]:
    """Kamailio while it runs, connected with the server."""
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
def logged() -> Iterator[ServerLog]:
    with listening() as logged:
        yield logged


@pytest.fixture(scope="module")
def switch_ms() -> int:
    """A full minute far ahead, so that Kamailio's clock, which is not the server's then, is of no account."""
    return (time.time_ns() // 60_000_000_000 + 12 * 60) * 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, switch_ms: int, logged: ServerLog) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("server")
    with LiveServer(directory, {"catalogue": str(catalogue(directory, switch_ms))}) as server:
        yield server


@pytest.fixture(scope="module")
def kamailio(tmp_path_factory: pytest.TempPathFactory, server: LiveServer) -> Iterator[Kamailio]:
    with (
        tapped(server) as tap,
        running(Kamailio(tmp_path_factory.mktemp("kamailio"), tap, configuration())) as kamailio,
    ):
        yield kamailio


@dataclass(frozen=True)
class Made:
    """The calls, which have all ended."""

    futures: dict[str, Future[list[Exchange]]]
    server: LiveServer

    def exchanges(self, name: str) -> list[Exchange]:
        """What was asked and granted for a call; raises what went wrong with it. Its answers keep to the rules."""
        exchanges = self.futures[name].result()
        for each in exchanges:
            assert breaches(each.request, each.answer, self.server.origin_host) == []
        return exchanges

    def balance(self, case: Case) -> int:
        return balance(self.server, case.call.msisdn)

    def record(self, name: str) -> dict[str, Any]:
        """What the charging data records of a call come to."""
        (record,) = self.records(CASES[name].call.msisdn, 1)
        return record

    def records(self, msisdn: str, count: int) -> list[dict[str, Any]]:
        """What the records of so many calls of one caller come to; a call may have several, the last one is marked."""
        calls: dict[str, dict[str, Any]] = {}

        def are_there() -> bool:
            calls.clear()
            for one in map(json.loads, self.server.cdr_lines()):
                if one["subscriber_id"] == msisdn:
                    before = calls.get(one["session_id"], {})
                    sums = {key: one[key] + before.get(key, 0) for key in ("used", "debited_micro", "leaked_micro")}
                    calls[one["session_id"]] = one | sums
            return sum(1 for call in calls.values() if call["final"]) == count

        until(are_there, f"{count} charging data records", lambda: f"there are {calls}")
        return list(calls.values())


def balance(server: LiveServer, account: str) -> int:
    bucket = server.account(account).bucket(MAIN_BUCKET)
    assert bucket is not None
    assert bucket.reserved == 0
    return bucket.balance


def abort(server: LiveServer, kamailio: Kamailio, case: Case, call_id: str) -> None:
    """Have a call aborted as soon as it has begun."""
    until(lambda: bool(kamailio.tap.exchanges(call_id)), "the call", kamailio.tell)
    (session_id,) = server.account(case.call.msisdn).sessions

    async def ask() -> Result:
        return await server.server.reauthorisation.abort(case.call.msisdn.encode(), session_id)

    assert server.run(ask()).meaning is Meaning.NOT_ASKED


@pytest.fixture(scope="module")
def made(server: LiveServer, kamailio: Kamailio, switch_ms: int) -> Made:
    for case in (*CASES.values(), TWO):
        case.add_caller(server)
    calls = {name: case.call for name, case in CASES.items()}
    calls |= {"one-of-two": TWO.call, "other-of-two": TWO.call, "unknown": UNKNOWN}
    server.pass_time(switch_ms - BEFORE_SWITCH_S * 1000 - server.now_ms())
    with kamailio.calling(calls) as futures:
        abort(server, kamailio, CASES["aborted"], "aborted")
    return Made(futures, server)


def kinds(exchanges: list[Exchange]) -> str:
    """Such as "I U U T", the numbers of which are in order; every update tells what was used since the one before."""
    assert [each.kind[1:] for each in exchanges] == [str(number) for number in range(len(exchanges))]
    assert all(each.used_s for each in exchanges if each.kind[0] == "U")
    return " ".join(each.kind[0] for each in exchanges)


def used_s(exchanges: list[Exchange]) -> int:
    return sum(each.used_s for each in exchanges)


def assert_answer(exchange: Exchange, expected: str) -> None:
    answer = codec.decode(exchange.answer)
    assert complaints(answer, expected) == [], describe(answer)


GRANTED = f"2001; {SERVICE}: 2001, granted 3 s, valid 5 min"
"""What Kamailio asks for, and all it gets: it reports at the end of the grant, not of Validity-Time."""
SETTLED = f"2001; {SERVICE}: 2001"


@pytest.mark.usefixtures("made")
@pytest.mark.shows("kamailio-termination-after-refusal", "kamailio-garbage-date", "kamailio-equipment-text")
def test_nothing_is_amiss(server: LiveServer, logged: ServerLog) -> None:
    """Whatever Kamailio did: the server logged no complaint, no session stayed open, the books balance."""
    assert logged.complaints == []
    report = server.assert_books_balance()
    assert (report.open_sessions, report.open_reservations) == (0, 0)
    assert all(total.reserved == 0 for total in report.totals)


@pytest.mark.usefixtures("kamailio")
@pytest.mark.shows("kamailio-vendor-application")
def test_kamailio_is_recognised(logged: ServerLog) -> None:
    """What it says when it connects chooses its profile; nothing has to be configured for it."""
    assert logged.clients == [RECOGNISED]


@pytest.mark.shows("row 19", "row 20", "kamailio-ims-information", "kamailio-validity-always", "kamailio-plus-number")
def test_answered_call(made: Made) -> None:
    """TS 32.299 section 6.3.4: reserved before the call, charged by the started minute, closed after it."""
    exchanges = made.exchanges("answered")
    assert re.fullmatch("I( U)+ T", kinds(exchanges)), "Kamailio reports after two seconds"
    for each in exchanges[:-1]:
        assert_answer(each, GRANTED)
    assert_answer(exchanges[-1], SETTLED)
    assert made.balance(CASES["answered"]) == 1_000_000 - 90_000
    charged = made.record("answered")
    assert charged["used"] == used_s(exchanges) >= 4
    assert (charged["debited_micro"], charged["leaked_micro"], charged["cause"]) == (90_000, 0, "normal")
    assert charged["calling_party"] == "tel:+491730000001"
    assert charged["called_party"].startswith("sip:+4930123456@")


@pytest.mark.shows("row 20")
def test_call_that_the_callee_ends(made: Made) -> None:
    """RFC 8506 section 5.4: whoever hangs up, the termination request settles the call."""
    exchanges = made.exchanges("ended-by-callee")
    assert re.fullmatch("I( U)+ T", kinds(exchanges))
    assert made.balance(CASES["ended-by-callee"]) == 1_000_000 - used_s(exchanges) * 10_000
    assert made.record("ended-by-callee")["used"] == used_s(exchanges) >= 3


@pytest.mark.shows("row 24", "kamailio-reports-early", "kamailio-validity-always")
def test_every_quota_is_debited_as_reported(made: Made) -> None:
    """Row 24: a call over several quotas costs what its reports come to, each of them once.

    Without Validity-Time Kamailio would send an update as soon as the call is answered, with nothing used.
    """
    exchanges = made.exchanges("several-quotas")
    assert re.fullmatch("I( U){2,} T", kinds(exchanges))
    assert all(each.granted_s == 3 and not each.is_final for each in exchanges[:-1])
    assert used_s(exchanges) >= 7
    assert made.balance(CASES["several-quotas"]) == 1_000_000 - used_s(exchanges) * 10_000
    assert made.record("several-quotas")["used"] == used_s(exchanges)


@pytest.mark.shows("row 20")
@pytest.mark.parametrize("name", ["busy", "not-answered", "cancelled"])
def test_call_that_comes_to_nothing(made: Made, name: str) -> None:
    """A call that is not answered costs nothing, and what was reserved for it is given back."""
    exchanges = made.exchanges(name)
    assert kinds(exchanges) == "I T"
    # The last of the money: reserved for the first minute, and all of it for this call.
    assert_answer(exchanges[0], GRANTED)
    assert_answer(exchanges[1], SETTLED)
    assert made.balance(CASES[name]) == 90_000
    charged = made.record(name)
    assert (charged["used"], charged["debited_micro"]) == (0, 0)


@pytest.mark.shows("row 27", "row 28", "kamailio-no-time-no-call", "kamailio-termination-after-refusal")
def test_caller_without_credit(made: Made) -> None:
    """Rows 27 and 28: 4012 makes Kamailio refuse the call with 402; the T that follows all the same is answered."""
    exchanges = made.exchanges("no-credit")
    assert kinds(exchanges) == "I T"
    assert_answer(exchanges[0], f"4012; {SERVICE}: 4012")
    assert_answer(exchanges[1], "5002")
    assert made.balance(CASES["no-credit"]) == 89_999


@pytest.mark.shows("row 28", "kamailio-termination-after-refusal")
def test_unknown_caller(made: Made) -> None:
    """Row 28: 5030 refuses the call as well, and again a T follows."""
    exchanges = made.exchanges("unknown")
    assert kinds(exchanges) == "I T"
    assert_answer(exchanges[0], "5030")
    assert_answer(exchanges[1], "5002")


@pytest.mark.shows("row 20", "kamailio-final-units")
@pytest.mark.parametrize(("name", "order", "affordable_s"), [("cut", "I( U)+ T", 5), ("cut-at-first-quota", "I T", 2)])
def test_call_is_cut_at_the_last_unit(made: Made, name: str, order: str, affordable_s: int) -> None:
    """RFC 8506 section 5.6.1: told that the units are the last, Kamailio itself hangs up on both sides."""
    exchanges = made.exchanges(name)
    assert re.fullmatch(order, kinds(exchanges))
    *earlier, last = exchanges[:-1]
    assert last.is_final
    assert not any(each.is_final for each in earlier)
    # What was used and what is granted at last come to what the balance affords, no more and no less.
    assert used_s(exchanges[:-1]) + last.granted_s == affordable_s
    used = used_s(exchanges)
    charged = made.record(name)
    assert charged["used"] == used
    # Kamailio hangs up to a second early or late; what it overran is told, but not debited.
    assert charged["debited_micro"] == min(used, affordable_s) * 10_000
    assert charged["leaked_micro"] == max(used - affordable_s, 0) * 10_000
    assert made.balance(CASES[name]) == affordable_s * 10_000 - charged["debited_micro"]


@pytest.mark.shows("row 20", "kamailio-final-units")
def test_a_call_that_is_cut_has_cost_all_there_was(made: Made) -> None:
    """Row 20: a call that is cut within a step of its price has paid for it; nothing is left, nothing is owed."""
    exchanges = made.exchanges("cut-in-step")
    assert re.fullmatch("I( U)+ T", kinds(exchanges))
    assert exchanges[-2].is_final
    assert made.record("cut-in-step")["debited_micro"] == 50_000
    assert made.balance(CASES["cut-in-step"]) == 0


@pytest.mark.shows("row 29", "kamailio-redirect-is-a-grant")
def test_a_redirecting_service_ends_the_call(made: Made) -> None:
    """Row 29: to Kamailio a redirection is a grant; it is told to terminate, whatever the catalogue has for others."""
    exchanges = made.exchanges("redirecting")
    assert re.fullmatch("I( U)+ T", kinds(exchanges))
    last = exchanges[-2]
    assert_answer(last, f"2001; {VIDEO}: 2001, granted {last.granted_s} s, valid 5 min, final units")
    assert made.balance(CASES["redirecting"]) == 0


@pytest.mark.shows("row 20")
def test_two_calls_on_one_balance(made: Made) -> None:
    """Both calls last until their account is empty; neither takes what is reserved for the other."""
    one, other = made.exchanges("one-of-two"), made.exchanges("other-of-two")
    assert one[-2].is_final or other[-2].is_final
    records = made.records(TWO.call.msisdn, 2)
    assert sum(record["debited_micro"] for record in records) == 100_000
    assert made.balance(TWO) == 0
    assert sorted(record["used"] for record in records) == sorted((used_s(one), used_s(other)))


@pytest.mark.shows("row 43", "kamailio-never-answers", "kamailio-update-without-time")
def test_call_that_is_aborted(made: Made) -> None:
    """Kamailio takes no Abort-Session-Request, and after an update without a grant goes on for as long as its last
    grant was. One second more, and the last, is what ends the call at once.
    """
    exchanges = made.exchanges("aborted")
    assert kinds(exchanges) == "I U T"
    assert_answer(exchanges[1], f"2001; {SERVICE}: 2001, granted 1 s, valid 5 min, final units")
    assert made.balance(CASES["aborted"]) == 1_000_000 - used_s(exchanges) * 10_000


@pytest.mark.shows("row 34")
def test_price_that_rises_in_mid_call(made: Made) -> None:
    """Row 34: the clock divides the seconds between the two prices; the call goes on as if nothing had happened."""
    exchanges = made.exchanges("dearer-soon")
    assert re.fullmatch("I( U){2,} T", kinds(exchanges))
    assert all(each.granted_s == 3 and not each.is_final for each in exchanges[:-1])
    charged = made.record("dearer-soon")
    dear_s, rest = divmod(charged["debited_micro"] - used_s(exchanges) * 10_000, 20_000)
    assert rest == 0
    assert 0 < dear_s < used_s(exchanges)
    assert charged["used"] == used_s(exchanges) >= 9
    assert made.balance(CASES["dearer-soon"]) == 1_000_000 - charged["debited_micro"]


@pytest.mark.shows("row 34", "kamailio-final-units")
def test_price_that_rises_for_who_has_little(made: Made) -> None:
    """Row 34: where the balance may not do for the dearer price, grants end at the switch, but not so the call.

    Validity-Time says when to ask again; Kamailio takes it for the end of the grant, so that none is ever shorter.
    """
    exchanges = made.exchanges("dearer-soon-and-poor")
    assert re.fullmatch("I( U)+ T", kinds(exchanges))
    *earlier, last = exchanges[:-1]
    assert last.is_final
    assert not any(each.is_final for each in earlier)
    assert all(each.granted_s == 3 for each in earlier)
    # Kamailio hangs up to a second early; what is left is less than that costs at last.
    assert made.balance(CASES["dearer-soon-and-poor"]) <= 30_000


@pytest.mark.shows("kamailio-sip-uri")
@pytest.mark.parametrize("name", ["by-sip-uri", "by-from"])
def test_caller_without_a_number(made: Made, name: str) -> None:
    """A caller whose identity is no tel: URI is known by the SIP URI; it is the From URI if nothing else is said."""
    exchanges = made.exchanges(name)
    assert kinds(exchanges) == "I T"
    assert made.balance(CASES[name]) == 0
    assert made.record(name)["calling_party"] == CASES[name].uri


@pytest.mark.shows("row 20", "kamailio-no-leave")
def test_the_server_restarts_in_mid_call(tmp_path: Path, switch_ms: int) -> None:
    """Sessions live in the store: the call goes on while the server is away, and is charged by the one that follows."""
    case = Case(Call("491730000017", "hangs up", "answers", 10_500, called=LONG_FIRST_QUOTA), 1_000_000, BY_SECOND)
    settings = {"catalogue": str(catalogue(tmp_path, switch_ms))}
    with ExitStack() as cleanup:
        logged = cleanup.enter_context(listening())
        first = LiveServer(tmp_path, settings).start()
        cleanup.callback(first.ask_to_stop)
        case.add_caller(first)
        tap = cleanup.enter_context(tapped(first))
        kamailio = cleanup.enter_context(running(Kamailio(tmp_path, tap, configuration())))
        futures = cleanup.enter_context(kamailio.calling({"restart": case.call}))
        until(lambda: bool(tap.exchanges("restart")), "the call", kamailio.tell)
        first.stop()
        with LiveServer(tmp_path, settings) as second:
            tap.server_port = second.port
            exchanges = futures["restart"].result()
            assert re.fullmatch("I( U)+ T", kinds(exchanges))
            assert tap.capabilities_exchanges() == 2
            assert balance(second, case.call.msisdn) == 1_000_000 - used_s(exchanges) * 10_000
            report = second.assert_books_balance()
            assert (report.open_sessions, report.open_reservations) == (0, 0)
    assert logged.complaints == []


def shipped_configuration() -> dict[str, str]:
    """The files of config/clients, which are the lines of README.md within the least that Kamailio starts with."""
    section = readme.section("Point Kamailio at it")
    named = re.search(r"with the modules (.*?), in this order", section, re.S)
    assert named is not None
    files = {path.name: path.read_text(encoding="utf-8") for path in SHIPPED.iterdir()}
    loaded = re.findall(r'^loadmodule "(\w+)\.so"$', files["kamailio.cfg"], re.M)
    assert [name for name in loaded if name not in ("sl", "siputils")] == re.findall(r"`(\w+)`", named[1])
    assert readme.block(section, "<DiameterPeer") in files["diameter.xml"]
    for part in readme.block(section, "modparam").split("\n\n"):
        assert part.strip() in files["kamailio.cfg"]
    places = {"/etc/kamailio": "@DIRECTORY@", "127.0.0.1:5060": "127.0.0.1:@SIP_PORT@", "3868": "@DIAMETER_PORT@"}
    for was, place in places.items():
        assert sum(text.count(was) for text in files.values()) == 1
        files = {name: text.replace(was, place) for name, text in files.items()}
    # 5.6.3 may end with a fault when it is stopped.
    files["kamailio.cfg"] = files["kamailio.cfg"].replace("debug=2", "debug=2\ndisable_core_dump=yes")
    return files


def test_the_shipped_configuration(tmp_path: Path) -> None:
    """A newcomer who copies the files, or the lines of README.md, has a proxy that charges."""
    cases = {
        "answered": Case(Call("491730000001", "hangs up", "answers", 500), 1_000_000, "standard"),
        "no-credit": Case(Call("491730000002", "must pay", None), 0, "standard"),
    }
    with (
        listening() as logged,
        LiveServer(tmp_path) as server,
        tapped(server) as tap,
        running(Kamailio(tmp_path, tap, shipped_configuration())) as kamailio,
    ):
        for case in cases.values():
            case.add_caller(server)
        with kamailio.calling({name: case.call for name, case in cases.items()}) as futures:
            answered, no_credit = (futures[name].result() for name in cases)
        assert kinds(answered) == kinds(no_credit) == "I T"
        assert_answer(answered[0], f"2001; {SERVICE}: 2001, granted 60 s, valid 5 min")
        assert_answer(answered[1], SETTLED)
        assert_answer(no_credit[0], f"4012; {SERVICE}: 4012")
        assert balance(server, cases["answered"].call.msisdn) == 1_000_000 - 90_000
        assert server.assert_books_balance().open_sessions == 0
    assert logged.clients == [RECOGNISED]
    assert logged.complaints == []
