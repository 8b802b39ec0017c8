"""Data sessions of a session management function like Open5GS', over freeDiameter itself.

freeDiameter is what Open5GS is built on: its routing, its dictionaries and its rules decide what reaches the server
and which answers reach the SMF. The SMF's own part, what it sends and what it makes of answers, is rebuilt in
``tests.interop.open5gs.smf``.
"""

import itertools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from balance.model import MAIN_BUCKET, IdentityType
from occ.cli import app
from occ.server_requests import Meaning, Result
from occ.settings import Settings, variable_name
from occ.yamlmap import leaf_paths
from tests.interop import readme
from tests.interop.open5gs import transport
from tests.interop.open5gs.smf import DataSession
from tests.interop.open5gs.transport import IDENTITY, PATIENCE_S, Gateway
from tests.interop.server_log import ServerLog, listening
from tests.live_server import LiveServer
from tests.scenarios.expectations import complaints, describe

PROJECT = Path(__file__).parents[2]
CATALOGUE = Path(__file__).parent / "open5gs" / "catalogue.yaml"
SECTION = "Point Open5GS at it"
MIB = 1 << 20
VALIDITY_S, EARLY = 300, 100_000
"""As the catalogue has them: Validity-Time, and how many octets before its end a grant is to be reported."""

PLANS = {"by-mib": (MIB, 10_000), "by-100-kb": (100_000, 7_001), "by-octet": (1, 1), "free": (MIB, 0)}
"""Octets of a step of the price, and what it costs in micro-units, as the catalogue has them."""

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not transport.IS_POSSIBLE,
        reason="freeDiameter's library is not installed; apt install gcc libfreediameter-dev freediameter-extensions",
    ),
]

_numbers = itertools.count(1)


# -- what README.md says -----------------------------------------------------------------------------------------------


def peer_line(port: int) -> str:
    """The line for smf.conf, with the port that the server of the tests listens on."""
    line = readme.block(readme.section(SECTION), "ConnectPeer")
    assert line.count("3868") == 1
    return line.replace("3868", str(port))


def shipped_configuration(directory: Path, port: int) -> str:
    """The file of config/clients, which has the line of README.md, with the places and the port of this test."""
    text = (PROJECT / "config" / "clients" / "open5gs" / "smf.conf").read_text(encoding="utf-8")
    assert readme.block(readme.section(SECTION), "ConnectPeer") in text
    certificate = {"smf.cert.pem": "smf.crt", "smf.key.pem": "smf.key", "cacert.pem": "smf.crt"}
    for name, here in certificate.items():
        assert f"/etc/freeDiameter/{name}" in text
        text = text.replace(f"/etc/freeDiameter/{name}", f"{directory}/{here}")
    assert text.count("3868") == 1
    return f"Port = 0;\nSecPort = 0;\nTcTimer = 1;\n{text}".replace("3868", str(port)).replace(
        'ListenOn = "127.0.0.4"', 'ListenOn = "127.0.0.1"'
    )


def test_the_shipped_smf_yaml_says_what_the_readme_says() -> None:
    text = (PROJECT / "config" / "clients" / "open5gs" / "smf.yaml").read_text(encoding="utf-8")
    shipped = yaml.safe_load(text)["smf"]
    told = yaml.safe_load(readme.block(readme.section(SECTION), "ctf"))["smf"]
    assert {name: shipped[name] for name in told} == told
    assert shipped["freeDiameter"] == "/etc/freeDiameter/smf.conf"


def server_settings() -> dict[str, str]:
    """The settings that the server is to be started with, by their dotted names."""
    names = {variable_name(path): path for path in leaf_paths(Settings)}
    variables = re.findall(r"(OCC_\w+)=(\S+)", readme.block(readme.section(SECTION), "make run"))
    return {names[name]: value for name, value in variables}


def commands() -> list[list[str]]:
    """The commands that make a subscriber, without the "occ" they begin with."""
    found = re.findall(r"`occ ((?:account create|subscriber add) [^`]+)`", readme.section(SECTION))
    return [command.split() for command in found]


# -- server and gateway ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transport.build(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def log() -> Iterator[ServerLog]:
    with listening() as log:
        yield log


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, log: ServerLog) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("server"), {"catalogue": str(CATALOGUE), **server_settings()}) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, program: Path, server: LiveServer) -> Iterator[Gateway]:
    with Gateway(program, tmp_path_factory.mktemp("gateway"), peer_line(server.port)) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def all_is_well(request: pytest.FixtureRequest) -> Iterator[None]:
    """The server logged no complaint, freeDiameter dropped no message, no session stayed open, the books balance."""
    yield
    if "server" in request.fixturenames:
        server, gateway = request.getfixturevalue("server"), request.getfixturevalue("gateway")
        assert request.getfixturevalue("log").complaints == []
        assert gateway.dropped == []
        report = server.assert_books_balance()
        assert (report.open_sessions, report.open_reservations) == (0, 0)


@dataclass
class User:
    """A prepaid account, its one subscriber, and the sessions that the tests run."""

    gateway: Gateway
    server: LiveServer
    name: str
    credited_micro: int
    plan: str = "by-mib"

    def session(self, **how: Any) -> DataSession:
        number = next(_numbers)
        session_id = f"{IDENTITY};{self.server.now_ms() // 1000};{number};app_gy"
        return DataSession(self.gateway, self.server, session_id, self.name, msisdn=f"49{self.name[3:]}", **how)

    def top_up(self, amount_micro: int) -> None:
        self.server.top_up(self.name, amount_micro)
        self.credited_micro += amount_micro

    @property
    def debited_micro(self) -> int:
        bucket = self.server.account(self.name).bucket(MAIN_BUCKET)
        assert bucket is not None
        return self.credited_micro - bucket.balance

    def price_micro(self, session: DataSession) -> int:
        """What the traffic of a session costs."""
        octets, micro = PLANS[self.plan]
        return -(-session.passed // octets) * micro

    def affordable_octets(self) -> int:
        octets, micro = PLANS[self.plan]
        return self.credited_micro // micro * octets

    def records(self, count: int) -> list[dict[str, Any]]:
        """The charging data records, of which there are so many."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = [one for one in map(json.loads, self.server.cdr_lines()) if one["subscriber_id"] == self.name]
            if len(found) >= count or time.monotonic() > deadline:
                assert len(found) == count
                return found
            time.sleep(0.01)


NewUser = Callable[..., User]


@pytest.fixture(scope="module")
def new_user(gateway: Gateway, server: LiveServer) -> NewUser:
    def make(balance_micro: int, plan: str = "by-mib") -> User:
        user = User(gateway, server, f"99970{next(_numbers):010d}", balance_micro, plan)
        server.add_account(user.name, [(IdentityType.IMSI, user.name)], balance_micro=balance_micro, plan=plan)
        return user

    return make


def assert_answer(session: DataSession, expected: str) -> None:
    """The last answer says what it should, and nothing besides that Open5GS would complain of in its log."""
    answer = session.last_answer
    assert answer is not None
    assert complaints(answer, expected) == [], describe(answer)
    assert {one.name for one in answer.avps} <= KNOWN_TO_THE_SMF


KNOWN_TO_THE_SMF = {
    "Session-Id", "Result-Code", "Origin-Host", "Origin-Realm", "Auth-Application-Id", "CC-Request-Type",
    "CC-Request-Number", "Multiple-Services-Credit-Control", "Cost-Information", "Failed-AVP", "Error-Message",
    "Route-Record",  # freeDiameter's own mark of where a message came from
}  # fmt: skip


# -- whole sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.shows("open5gs-capabilities", "open5gs-own-realm")
@pytest.mark.usefixtures("gateway")
def test_the_smf_is_recognised(log: ServerLog) -> None:
    """What freeDiameter says when it connects chooses the profile; nothing has to be configured for it."""
    assert log.clients == [readme.block(readme.section(SECTION), "profile open5gs").rstrip("\n")]


@pytest.mark.shows(
    "row 20", "row 35", "open5gs-thresholds", "open5gs-final-units-terminate", "open5gs-usage-without-total",
    "open5gs-unnamed-service", "open5gs-overshoot", "freediameter-complete-answer",
)  # fmt: skip
def test_session_until_all_is_used_up(new_user: NewUser) -> None:
    """Rows 20 and 35: reports at the threshold; the last units without one, and with TERMINATE, not the redirection."""
    user = new_user(20_000)
    session = user.session()
    assert session.start()
    assert_answer(session, f"2001; MSCC: 2001, granted 1000000 octets, valid 5 min, Volume-Quota-Threshold={EARLY}")
    session.traffic(880_000, 20_000)
    assert session.kinds == "IU"
    assert_answer(session, f"2001; MSCC: 2001, granted 1000000 octets, valid 5 min, Volume-Quota-Threshold={EARLY}")
    session.traffic(0, 900_000)
    left = 2 * MIB - 1_800_000
    assert_answer(
        session, f"2001; MSCC: 2001, granted {left} octets, valid 5 min, final units, no Volume-Quota-Threshold"
    )
    session.traffic(left - 1, 0)
    assert session.kinds == "IUU"
    session.traffic(0, 1_401)
    assert session.kinds == "IUUT"
    assert_answer(session, "2001; MSCC: 2001")
    assert user.debited_micro == 20_000
    (record,) = user.records(1)
    assert (record["used"], record["debited_micro"]) == (2 * MIB + 1_400, 20_000)
    assert record["leaked_micro"] == 10_000, "the octets beyond the last one have begun a MiB"


@pytest.mark.shows("row 24", "open5gs-validity-lapse", "open5gs-reporting-reasons")
def test_session_that_lasts(new_user: NewUser) -> None:
    """Row 24: at the end of each Validity-Time the SMF reports, and is granted anew; nothing is released meanwhile."""
    user = new_user(1_000_000)
    session = user.session()
    assert session.start()
    session.traffic(10, 10)
    session.time_passes(3 * VALIDITY_S + 10)
    assert session.kinds == "IUUU"
    session.end()
    assert user.debited_micro == 10_000
    (record,) = user.records(1)
    assert (record["used"], record["cause"]) == (20, "normal")


@pytest.mark.shows("row 28", "open5gs-refused-at-start")
@pytest.mark.parametrize("balance_micro", [0, 9_999])
def test_subscriber_without_credit(new_user: NewUser, balance_micro: int) -> None:
    """Row 28: refused at command level, so that no T follows; where one does all the same it changes nothing."""
    user = new_user(balance_micro)
    session = user.session()
    assert not session.start()
    assert session.kinds == "I"
    assert_answer(session, "4012; MSCC: 4012")
    session.is_open = True
    session.end()
    assert_answer(session, "5002")
    assert user.debited_micro == 0
    assert user.records(0) == []


@pytest.mark.shows("row 28", "open5gs-refused-at-start")
def test_unknown_subscriber(gateway: Gateway, server: LiveServer) -> None:
    session = User(gateway, server, "999709999999999", 0).session()
    assert not session.start()
    assert session.kinds == "I"
    assert_answer(session, "5030")


@pytest.mark.shows("row 27", "open5gs-refused-later", "open5gs-no-units-is-free")
def test_update_that_is_refused(new_user: NewUser) -> None:
    """Row 27: a burst over all there was; the answer has no units and no success, so that the session is released."""
    user = new_user(10_000)
    session = user.session()
    assert session.start()
    session.traffic(2 * MIB, 0)
    assert session.kinds == "IUT"
    assert not session.is_open
    assert user.debited_micro == 10_000
    (record,) = user.records(1)
    assert (record["used"], record["debited_micro"], record["leaked_micro"]) == (2 * MIB, 10_000, 10_000)


@pytest.mark.shows("row 42", "open5gs-reauth-without-update")
def test_re_authorisation(new_user: NewUser, server: LiveServer, log: ServerLog) -> None:
    """Row 42: answered with success, and nothing follows; the session goes on. 5002 closes it, and is worth a word."""
    user = new_user(1_000_000)
    session = user.session()
    assert session.start()

    async def reauthorise() -> Result:
        return await server.server.reauthorisation.reauthorise(user.name.encode(), session.session_id.encode())

    before = len(session.gateway.asked)
    assert server.run(reauthorise()).meaning is Meaning.ACKNOWLEDGED
    assert len(session.gateway.asked) == before + 1
    session.traffic(1_000_000, 0)
    assert session.kinds == "IU"
    session.end()
    assert user.debited_micro == 10_000

    lost = user.session()
    assert lost.start()
    lost.gateway.end(lost.session_id)
    session = lost
    assert server.run(reauthorise()).result_code == 5002
    assert session.session_id in log.complaints.pop()
    assert server.account(user.name).sessions == {}


@pytest.mark.shows("row 43", "open5gs-abort-refused")
def test_session_that_is_aborted(new_user: NewUser, server: LiveServer) -> None:
    """Row 43: the SMF would not abort it, so it is not asked; with its next report it is refused, and releases it."""
    user = new_user(1_000_000)
    session = user.session()
    assert session.start()

    async def abort() -> Result:
        return await server.server.reauthorisation.abort(user.name.encode(), session.session_id.encode())

    assert server.run(abort()).meaning is Meaning.NOT_ASKED
    session.traffic(1_000_000, 0)
    assert session.kinds == "IUT"
    assert user.debited_micro == 10_000


@pytest.mark.shows("open5gs-equal-reports", "open5gs-unix-time", "open5gs-number-again", "row 16")
def test_oddities(new_user: NewUser) -> None:
    """The Unix time as CC-Time; a usage told in equal halves; a request again with another End-to-End Identifier."""
    user = new_user(1_000_000)
    session = user.session(counts_from_1970=True, reports_in_halves=True)
    assert session.start()
    session.send_again()
    session.traffic(500_000, 500_000)
    session.send_again()
    session.traffic(500_000, 500_000)
    session.send_again()
    session.end()
    session.send_again()
    assert session.kinds == "IUUT"
    assert user.debited_micro == 20_000
    (record,) = user.records(1)
    assert record["used"] == 2_000_000


@pytest.mark.shows("row 20")
def test_the_server_restarts_in_mid_session(tmp_path: Path, program: Path) -> None:
    """freeDiameter connects again; the session goes on with the server that follows, and is charged once."""
    with listening() as log:
        first = LiveServer(tmp_path / "server", server_settings())
        (tmp_path / "server").mkdir()
        with first:
            port = first.port
            first.add_account("a", [(IdentityType.IMSI, "999700000000001")], balance_micro=1_000_000)
            gateway = Gateway(program, tmp_path, peer_line(port))
            with gateway:
                session = DataSession(gateway, first, f"{IDENTITY};1;1;app_gy", "999700000000001")
                assert session.start()
                session.traffic(1_000_000, 0)
                first.stop()
                with LiveServer(tmp_path / "server", {**server_settings(), "diameter.port": str(port)}) as second:
                    gateway.wait_for_peer(connections=2)
                    session.server = second
                    session.traffic(1_000_000, 0)
                    session.end()
                    assert session.kinds == "IUUT"
                    bucket = second.account("a").bucket(MAIN_BUCKET)
                    assert bucket is not None
                    assert (bucket.balance, bucket.reserved) == (980_000, 0)
                    assert second.assert_books_balance().open_sessions == 0
    assert log.complaints == []


def test_configuration_in_the_readme(tmp_path: Path, program: Path) -> None:
    """A newcomer who types what README.md says has a charged session; the server has the settings it ships."""
    with listening() as log, LiveServer(tmp_path / "server", server_settings()) as server:
        shutil.copy(PROJECT / "config" / "catalogue.yaml", tmp_path)
        config = tmp_path / "occ.yaml"
        config.write_text(f"store:\n  mode: external\n  url: {server.server.redis_address.url}\n", encoding="utf-8")
        typed = commands()
        assert [words[:2] for words in typed] == [["account", "create"], ["subscriber", "add"]]
        for words in typed:
            done = CliRunner().invoke(app, ["--config", str(config), *words])
            assert done.exit_code == 0, done.output
        account, imsi = typed[0][2], typed[1][typed[1].index("--imsi") + 1]
        with Gateway(program, tmp_path, "", shipped_configuration(tmp_path, server.port)) as gateway:
            session = DataSession(gateway, server, f"{IDENTITY};1;1;app_gy", imsi)
            assert session.start()
            session.traffic(700_000, 300_000)
            session.traffic(700_000, 300_000)
            session.end()
        assert session.kinds == "IUUT"
        bucket = server.account(account).bucket(MAIN_BUCKET)
        assert bucket is not None
        assert bucket.balance == 10_000_000 - 20_000
        assert server.assert_books_balance().open_sessions == 0
    assert log.complaints == []


# -- any session -------------------------------------------------------------------------------------------------------

burst = st.one_of(st.integers(0, 3_000), st.integers(0, 600_000))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("traffic"), burst, burst),
        st.tuples(st.just("traffic"), burst, burst),
        st.tuples(st.just("time passes"), st.integers(1, 2 * VALIDITY_S), st.just(0)),
        st.tuples(st.just("send again"), st.just(0), st.just(0)),
        st.tuples(st.just("top up"), st.integers(1, 30_000), st.just(0)),
    ),
    max_size=25,
)


@pytest.mark.shows("row 20", "open5gs-no-units-is-free", "open5gs-overshoot")
@settings(max_examples=150, deadline=None)
@given(
    balance_micro=st.one_of(st.integers(0, 60_000), st.sampled_from([0, 1, 9_999, 10_000, 10_001, 20_000])),
    plan=st.sampled_from(sorted(PLANS)),
    halves=st.booleans(),
    waits=st.booleans(),
    taken=steps,
)
def test_any_session(
    new_user: NewUser,
    server: LiveServer,
    balance_micro: int,
    plan: str,
    halves: bool,
    waits: bool,
    taken: list[tuple[str, int, int]],
) -> None:
    """No traffic is free: what has passed is debited, but for what overshot the last units; every session ends."""
    user = new_user(balance_micro, plan)
    session = user.session(reports_in_halves=halves, waits=waits)
    leaked_before_micro = server.server.charging.statistics.leaked_micro
    largest = 0
    session.start()
    for what, one, other in taken:
        if not session.is_open:
            break
        if what == "traffic":
            session.traffic(one, other)
            largest = max(largest, one + other)
        elif what == "time passes":
            session.time_passes(one)
        elif what == "send again":
            session.send_again()
        else:
            user.top_up(one)
    session.settle()
    # The SMF ends a session of final units with their Validity-Time as well, and at the report after a top-up.
    if session.kinds.endswith("T") and not {"time passes", "top up"} & {what for what, _, _ in taken}:
        assert session.passed >= user.affordable_octets(), "the session has ended before all was used up"
    session.end()
    assert re.fullmatch("I(U*T)?", session.kinds)
    leaked_micro = server.server.charging.statistics.leaked_micro - leaked_before_micro
    assert user.debited_micro + leaked_micro == user.price_micro(session)
    if leaked_micro and user.credited_micro == balance_micro:
        assert user.debited_micro == balance_micro
        overshot = session.passed - user.affordable_octets()
        assert 0 < overshot <= largest + session.passed_unanswered


@pytest.mark.shows("row 20")
@settings(max_examples=60, deadline=None)
@given(
    balance_micro=st.integers(0, 120_000),
    plan=st.sampled_from(sorted(PLANS)),
    bursts=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 600_000), st.booleans()), max_size=30),
)
def test_any_sessions_on_one_balance(
    new_user: NewUser, server: LiveServer, balance_micro: int, plan: str, bursts: list[tuple[int, int, bool]]
) -> None:
    """Three sessions at once on one account together take no more than there is, and no octet goes unaccounted."""
    user = new_user(balance_micro, plan)
    leaked_before_micro = server.server.charging.statistics.leaked_micro
    sessions = [user.session() for _ in range(3)]
    for number, octets, ends in bursts:
        session = sessions[number]
        if not session.kinds:
            session.start()
        elif session.is_open and ends and not octets % 5:
            session.end()
        elif session.is_open:
            session.traffic(octets, 0)
    for session in sessions:
        session.end()
    leaked_micro = server.server.charging.statistics.leaked_micro - leaked_before_micro
    assert user.debited_micro <= balance_micro
    assert user.debited_micro + leaked_micro == sum(map(user.price_micro, sessions))
