"""The command line: against a real Redis in this process, and as a user meets it, with a real server beside it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from balance.embedded import Address
from occ.cli import app
from occ.settings import load, option_name
from occ.yamlmap import leaf_paths
from tests.shell import Shell

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "config"


@pytest.fixture
def shell(clean_redis: Address, tmp_path: Path) -> Shell:
    return Shell(tmp_path, clean_redis)


# -- accounts ----------------------------------------------------------------------------------------------------


def test_create_and_show_an_account(shell: Shell) -> None:
    made = shell.json(
        "account", "create", "acc-1", "--postpaid", "--balance", "1.50", "--credit-limit", "50.00",
        "--bucket", "5 GiB priority 10 until 2037-01-31", "--bucket", "100 min", "--bucket", "2.50 EUR priority 5",
        "--reason", "contract",
    )  # fmt: skip
    assert made == {
        "account": "acc-1",
        "kind": "postpaid",
        "state": "active",
        "expires": None,
        "currency": "EUR",
        "credit_limit_micro": 50_000_000,
        "cycle_day": 1,
        "available_micro": 54_000_000,
        "version": 1,
        "buckets": [
            {"reserved": 0, "name": "", "owner": "", "expires": None, **bucket}
            for bucket in (
                {"bucket": 1, "unit": "money", "balance": 1_500_000, "priority": 100},
                {
                    "bucket": 2,
                    "unit": "octets",
                    "balance": 5 << 30,
                    "priority": 10,
                    "expires": "2037-01-31T23:00:00.000Z",
                },
                {"bucket": 3, "unit": "seconds", "balance": 6000, "priority": 100},
                {"bucket": 4, "unit": "money", "balance": 2_500_000, "priority": 5},
            )
        ],
        "offers": [],
        "loyalty": [],
        "meters": [],
        "out_of_service": {},
        "sessions": [],
    }
    assert shell.json("account", "show", "acc-1") == made
    shown = shell.text("account", "show", "acc-1")
    assert "acc-1: postpaid, credit limit 50.00 EUR, 54.00 EUR available, version 1" in shown
    assert re.search(r"2 +octets +5 GiB +0 B +10 +2037-01-31 23:00:00.000", shown)


def test_an_account_exists_once(shell: Shell) -> None:
    shell.text("account", "create", "acc-1")
    assert shell.refused(1, "account", "create", "acc-1") == "account acc-1 exists already"


def test_the_currency_is_that_of_the_catalogue_unless_named(shell: Shell) -> None:
    assert shell.json("account", "create", "a")["currency"] == "EUR"
    assert shell.json("account", "create", "b", "--currency", "CHF")["currency"] == "CHF"


@pytest.mark.parametrize(
    ("code", "sentence", "arguments"),
    [
        (2, "'1,50' is not an amount of money such as 10.00", ["--balance", "1,50"]),
        (2, "more than 6 decimals", ["--balance", "0.0000001"]),
        (1, "a bucket cannot start with -1000000", ["--balance", "-1"]),
        (2, "not an amount of money", ["--credit-limit", "5,00"]),
        (2, "did you mean 'EUR'?", ["--currency", "eur"]),
        (2, "'5GiB' is not a bucket", ["--bucket", "5GiB"]),
        (2, "did you mean 'GiB'?", ["--bucket", "5 GIB"]),
        (2, "'1.5 GiB' is not a size", ["--bucket", "1.5 GiB"]),
        (2, "'2037-02-30' is not a date", ["--bucket", "5 GiB until 2037-02-30"]),
        (1, "cannot expire before it exists", ["--bucket", "5 GiB until 2001-01-01"]),
        (2, "No such option: --balanc", ["--balanc", "1"]),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    shell: Shell, code: int, sentence: str, arguments: list[str]
) -> None:
    assert sentence in shell.refused(code, "account", "create", "acc-1", *arguments)


def test_unusable_names(shell: Shell) -> None:
    assert "not a usable name" in shell.refused(1, "account", "create", "a b")
    assert "not a usable name" in shell.refused(1, "account", "create", "\udcff")
    assert shell.refused(1, "account", "show", "acc-9") == "there is no account acc-9"
    assert shell.refused(1, "account", "history", "acc-9") == "there is no account acc-9"
    assert "Missing argument" in shell.refused(2, "account", "show")
    assert "Did you mean 'show'?" in shell.refused(2, "account", "shwo", "a")


def test_top_up(shell: Shell) -> None:
    shell.text("account", "create", "acc-1", "--balance", "1.00", "--bucket", "1 GiB")
    assert shell.text("account", "top-up", "acc-1", "10.00") == (
        "Added 10.00 EUR to bucket 1 of acc-1, which now holds 11.00 EUR.\n"
    )
    assert shell.json("account", "top-up", "acc-1", "512 MiB", "--bucket", "2") == {
        "account": "acc-1",
        "bucket": 2,
        "unit": "octets",
        "amount": 512 << 20,
        "balance_after": 1536 << 20,
        "version": 3,
        "repeated": False,
    }
    assert "'s' is no unit for octets" in shell.refused(2, "account", "top-up", "acc-1", "10 s", "--bucket", "2")
    assert "not an amount" in shell.refused(2, "account", "top-up", "acc-1", "1 GiB")
    assert "must be positive" in shell.refused(1, "account", "top-up", "acc-1", "0")
    assert "no bucket 7" in shell.refused(1, "account", "top-up", "acc-1", "1", "--bucket", "7")
    assert shell.refused(1, "account", "top-up", "acc-9", "1") == "there is no account acc-9"


def test_a_top_up_with_a_reference_counts_once(shell: Shell) -> None:
    shell.text("account", "create", "acc-1")
    shell.text("account", "top-up", "acc-1", "5", "--reference", "V-1")
    again = shell.text("account", "top-up", "acc-1", "5", "--reference", "V-1")
    assert again == "Reference V-1 was used before: 5.00 EUR had been added, to 5.00 EUR; nothing was changed.\n"
    assert shell.json("account", "top-up", "acc-1", "5", "--reference", "V-1")["repeated"] is True
    assert "cannot stand for" in shell.refused(1, "account", "top-up", "acc-1", "6", "--reference", "V-1")
    assert shell.json("account", "show", "acc-1")["available_micro"] == 5_000_000


def test_history_says_when_what_why_before_and_after(shell: Shell) -> None:
    shell.text("account", "create", "acc-1", "--balance", "1.00", "--reason", "contract [bold]signed[/bold]")
    shell.text("account", "top-up", "acc-1", "0.000001", "--reason", "voucher :smile:", "--reference", "V-1")
    first, second = shell.json("account", "history", "acc-1")
    assert (first["version"], first["operation"], first["reason"]) == (1, "create", ["contract [bold]signed[/bold]"])
    assert (second["version"], second["operation"], second["reason"]) == (2, "top-up", ["voucher :smile:", "V-1"])
    assert second["changes"] == [
        {
            "bucket": 1,
            "unit": "money",
            "balance_before": 1_000_000,
            "balance_after": 1_000_001,
            "reserved_before": 0,
            "reserved_after": 0,
        }
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", second["at"])
    shown = shell.text("account", "history", "acc-1")
    assert re.search(r"1 .* create +1 +0.00 EUR +\+1.00 EUR +1.00 EUR .* contract \[bold\]signed\[/bold\]", shown)
    assert re.search(r"2 .* top-up +1 +1.00 EUR +\+0.000001 EUR +1.000001 EUR +0.00 EUR +voucher :smile:, V-1", shown)
    assert [each["version"] for each in shell.json("account", "history", "acc-1", "--limit", "1")] == [2]
    assert "'--limit'" in shell.refused(2, "account", "history", "acc-1", "--limit", "0")


def test_list_accounts_in_order(shell: Shell) -> None:
    for name in ("b", "c", "a"):
        shell.text("account", "create", name)
    assert [account["account"] for account in shell.json("account", "list")] == ["a", "b", "c"]
    shown = shell.text("account", "list", "--limit", "2")
    assert re.search(r"\na +prepaid +active +0.00 EUR", shown)
    assert "\nc " not in shown
    assert shown.endswith("2 of 3 accounts.\n")


# -- subscribers, sessions, ledger -------------------------------------------------------------------------------


def test_add_and_show_a_subscriber(shell: Shell) -> None:
    shell.text("account", "create", "acc-1")
    added = shell.json(
        "subscriber", "add", "anna", "--account", "acc-1", "--plan", "standard", "--msisdn", "+491701",
        "--imsi", "262010000000001", "--sip-uri", "sip:anna@example.net",
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", added.pop("in_service_since"))
    assert added == {
        "subscriber": "anna",
        "account": "acc-1",
        "belongs_to": "acc-1",
        "kind": "mobile prepaid",
        "state": "active",
        "plan": "standard",
        "next_plan": None,
        "next_plan_from": None,
        "cap_day_micro": None,
        "cap_month_micro": None,
        "segment": "",
        "friends": [],
        "identities": [
            {"type": "e164", "value": "491701"},
            {"type": "imsi", "value": "262010000000001"},
            {"type": "sip_uri", "value": "sip:anna@example.net"},
        ],
    }
    for who in ("anna", "491701", "+491701", "262010000000001", "sip:anna@example.net"):
        assert shell.json("subscriber", "show", who).items() >= added.items()
    shown = shell.text("subscriber", "show", "491701")
    assert shown.startswith("anna: account acc-1, plan standard, mobile prepaid, active\n  in service since ")
    assert "\n  E164 491701\n" in shown
    assert shell.refused(1, "subscriber", "show", "42") == "there is no subscriber 42, and none with that identity"


def test_subscribers_that_cannot_be_added(shell: Shell) -> None:
    shell.text("account", "create", "acc-1")
    shell.text("account", "create", "swiss", "--currency", "CHF")
    good = ["--account", "acc-1", "--plan", "standard", "--msisdn", "491701"]
    shell.text("subscriber", "add", "anna", *good)
    add = ("subscriber", "add")
    assert shell.refused(1, *add, "anna", *good) == "subscriber anna exists already; nothing was changed"
    assert "belongs to subscriber anna already" in shell.refused(1, *add, "ben", *good)
    assert "there is no account x" in shell.refused(1, *add, "ben", "--account", "x", *good[2:4], "--imsi", "262011")
    assert "did you mean 'standard'?" in shell.refused(2, *add, "ben", *good[:2], "--plan", "standrad", *good[4:])
    assert "in CHF" in shell.refused(1, *add, "ben", "--account", "swiss", *good[2:4], "--msisdn", "491702")
    assert "at least one identity" in shell.refused(1, *add, "ben", *good[:4])
    assert "E164 '49-1701' is malformed" in shell.refused(1, *add, "ben", *good[:4], "--msisdn", "49-1701")
    assert "Missing option '--account'" in shell.refused(2, *add, "ben")


def test_verify_agrees_and_disagrees(shell: Shell) -> None:
    shell.text("account", "create", "acc-1", "--balance", "1.00", "--bucket", "1 GiB")
    report = shell.json("ledger", "verify")
    assert report["consistent"] is True
    assert (report["accounts"], report["journal_records"], report["discrepancies"]) == (1, 1, [])
    assert report["totals"][0] == {
        "unit": "money",
        "currency": "EUR",
        "credited": 1_000_000,
        "given": 0,
        "debited": 0,
        "lapsed": 0,
        "adjusted": 0,
        "transferred": 0,
        "balances": 1_000_000,
        "reserved": 0,
    }
    assert "Consistent: every balance" in shell.text("ledger", "verify")
    with redis.Redis.from_url(shell.address.url) as client:
        client.xtrim("{p0000}:journal", maxlen=0)
    result = shell.run("ledger", "verify")
    assert result.exit_code == 1
    assert "Account acc-1: version 1 is missing in the journal." in result.stdout
    assert "INCONSISTENT: 3 discrepancies." in result.stdout
    result = shell.run("ledger", "verify", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["discrepancy_count"] == 3


def test_no_sessions(shell: Shell) -> None:
    shell.text("account", "create", "acc-1")
    assert shell.json("sessions", "list") == []
    assert shell.text("sessions", "list", "--account", "acc-1") == "0 of 0 open sessions.\n"
    assert shell.refused(1, "sessions", "list", "--account", "x") == "there is no account x"


# -- catalogue, settings, servers that are not there -------------------------------------------------------------


def test_catalogue_check(shell: Shell, tmp_path: Path) -> None:
    shown = shell.text("catalogue", "check")
    assert re.search(r"internet +32251@3gpp.org +10, none +any +10 MiB +100 MiB +1800 s", shown)
    assert re.search(r"standard +national-voice +0.09 EUR +60 s", shown)
    checked = shell.json("catalogue", "check", str(CONFIG / "catalogue.yaml"))
    assert checked["plans"]["standard"]["sms"] == {"price": "0.05", "step_units": 1}
    assert checked["services"][0]["rating_groups"] == [None, 10]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((CONFIG / "catalogue.yaml").read_text().replace("0.05 per 1 event", "0.05 per 1 MiB"))
    sentence = shell.refused(2, "catalogue", "check", str(wrong))
    assert re.search(r"wrong.yaml:\d+: plans.standard.sms: 'MiB' is no unit for events", sentence)


def test_mistakes_in_the_settings_are_named(shell: Shell) -> None:
    shell.config.write_text("store:\n  mod: external\n")
    assert "occ.yaml:2: unknown key 'mod'" in shell.refused(2, "account", "list")
    assert "did you mean 'mode'?" in shell.refused(2, "peers")
    shell.config.unlink()
    assert "cannot be read" in shell.refused(2, "ledger", "verify")


def test_a_store_that_does_not_run(shell: Shell, tmp_path: Path) -> None:
    for store, sentence in (
        (f"data_dir: {tmp_path}/data", "is not running; start the server first, with 'make run' or 'occ serve'"),
        (f"mode: external\n  url: unix://{tmp_path}/none.sock", "cannot be used"),
        (f"mode: external\n  url: {shell.address.url}\n  partitions: 7", "set store.partitions to 64"),
    ):
        shell.text("account", "list")  # so that the layout is written
        good = shell.config.read_text()
        shell.config.write_text(f"{good.partition('store:')[0]}store:\n  {store}\n")
        for command in (("account", "list"), ("ledger", "verify"), ("account", "create", "a")):
            assert sentence in shell.refused(1, *command)
        shell.config.write_text(good)


def test_no_server_to_ask_or_to_charge_at(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens: nobody else can take it either
        port = str(taken.getsockname()[1])
        assert "no server answers at http://127.0.0.1:" in shell.refused(1, "peers", "--port", port)
        assert "cannot connect" in shell.refused(1, "simulate", "gateway", "--port", port)
        assert "cannot connect" in shell.refused(1, "simulate", "ims", "--port", port)
    assert "sessions is 0" in shell.refused(2, "simulate", "gateway", "--sessions", "0")
    assert "'4' is not a size" in shell.refused(2, "simulate", "gateway", "--volume", "4")
    assert "population" in shell.refused(2, "simulate", "ims", "--prepaid", "0", "--postpaid", "0")


def test_serve_takes_every_setting_as_an_option(shell: Shell) -> None:
    for arguments, sentence in (
        (["--diameter-prt", "1"], "did you mean '--diameter-port'?"),
        (["--diameter-port"], "needs a value"),
        (["--diameter-port", "x"], "--diameter-port: diameter.port must be a whole number from 0 to 65535"),
        (["--diameter-port=1", "--diameter-port=2"], "given twice"),
        (["now"], "serve takes options only, not 'now'"),
    ):
        assert sentence in shell.refused(2, "serve", *arguments)
    assert option_name("charging.tcc_factor") == "--charging-tcc-factor"
    assert "diameter.port" in leaf_paths(type(load(shell.config)))


def test_help_names_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in (
        "serve",
        "simulate",
        "account",
        "customer",
        "subscriber",
        "sessions",
        "ledger",
        "peers",
        "catalogue",
    ):
        assert re.search(rf"\b{command}\b", result.stdout)
    assert CliRunner().invoke(app, []).exit_code == 2


# -- as a user meets it ------------------------------------------------------------------------------------------


class Terminal:
    """Runs ``python -m occ`` with a data directory of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OCC_")},
            "OCC_STORE_DATA_DIR": str(data_dir),
            "OCC_DIAMETER_PORT": "0",
            "OCC_METRICS_PORT": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "occ", *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "occ", *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def json_when(self, ready: Callable[[Any], bool], *arguments: str) -> Any:
        """The result of a command once it is what is waited for."""
        found = None
        for _ in range(100):
            found = self.json(*arguments)
            if ready(found):
                return found
        raise AssertionError(f"{' '.join(arguments)} still says {found}")


class Served:
    """A running ``occ serve``, and a terminal beside it that knows its ports."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.process = terminal.start("serve", "--json")
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        self.ready = json.loads(line)
        terminal.environment["OCC_DIAMETER_PORT"] = str(self.ready["diameter"]["port"])
        terminal.environment["OCC_METRICS_PORT"] = self.ready["metrics"].rpartition(":")[2].removesuffix("/metrics")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            _, self.log = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(Terminal(tmp_path_factory.mktemp("served") / "data"))
    yield served
    if served.process.poll() is None:
        served.stop()


@pytest.mark.shows("operators-no-tables")
@pytest.mark.slow
def test_first_minutes(served: Served) -> None:
    """Serve, simulate, verify: what was debited is what the clients reckon, to the last micro-unit."""
    terminal = served.terminal
    assert len(terminal.json("account", "list", "--limit", "1000")) == 200
    before = terminal.json("ledger", "verify")
    debited = 0
    for simulator in ("gateway", "ims"):
        summary = terminal.json("simulate", simulator, "--sessions", "40", "--seed", "3")
        assert summary["requests"] == summary["answers"] > 40
        assert summary["grants"] > 0
        debited += summary["debited_micro"]
    after = terminal.json("ledger", "verify")
    assert debited > 0
    assert after["totals"][0]["debited"] - before["totals"][0]["debited"] == debited
    assert after["open_sessions"] == before["open_sessions"]


@pytest.mark.slow
def test_sessions_and_peers_while_they_last(served: Served) -> None:
    terminal = served.terminal
    simulation = terminal.start(
        "simulate", "gateway", "--sessions", "3", "--concurrency", "3", "--pace", "0.1", "--json"
    )
    try:
        (peer,) = terminal.json_when(lambda found: len(found) == 1, "peers")
        assert peer["origin_host"] == "pgw1.simulator.example.net"
        assert peer["remote_address"].startswith("127.0.0.1")
        held = terminal.json_when(lambda found: len(found) == 3, "sessions", "list")[0]
        assert held["session_id"].startswith("pgw1.simulator.example.net;")
        assert held["services"][0]["service"] == "internet"
        account = terminal.json("account", "show", held["account"])
        assert held["session_id"] in [session["session_id"] for session in account["sessions"]]
        listed = terminal.run("sessions", "list", "--account", held["account"])
        assert held["session_id"] in listed.stdout
        assert re.search(r"pgw1.simulator.example.net +simulator.example.net", terminal.run("peers").stdout)
        assert terminal.run("ledger", "verify").returncode == 0
    finally:
        simulation.send_signal(signal.SIGINT)
        simulation.communicate(timeout=30)


@pytest.mark.slow
def test_a_top_up_reaches_the_running_server(served: Served) -> None:
    terminal = served.terminal
    before = terminal.json("account", "show", "acc-491700000050")["available_micro"]
    terminal.json("account", "top-up", "acc-491700000050", "1.23")
    terminal.json("simulate", "ims", "--sessions", "100", "--seed", "9")
    records = terminal.json("account", "history", "acc-491700000050", "--limit", "1000")
    spent = sum(
        change["balance_before"] - change["balance_after"]
        for record in records
        if record["operation"] not in ("create", "top-up")
        for change in record["changes"]
    )
    after = terminal.json("account", "show", "acc-491700000050")["available_micro"]
    initial = 10_000_000 + 1_000_000 + 1_230_000  # the overdraft among it
    assert before >= 0
    assert after == initial - spent


@pytest.mark.slow
def test_the_data_survives_and_a_second_server_is_refused(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "data")
    nothing = terminal.run("account", "list")
    assert nothing.returncode == 1
    assert "is not running" in nothing.stderr
    first = Served(terminal)
    terminal.json("account", "top-up", "acc-491700000001", "5.00")
    second = terminal.run("serve")
    assert second.returncode == 1
    assert "is in use by process" in second.stderr
    taken = Terminal(tmp_path / "other")
    for name in ("OCC_DIAMETER_PORT", "OCC_METRICS_PORT"):
        taken.environment[name] = terminal.environment[name]
        refused = taken.run("serve")
        assert refused.returncode == 1
        assert "already in use; stop what uses it, or choose another with --" in refused.stderr.splitlines()[-1]
        assert "Traceback" not in refused.stderr
    assert first.stop() == 0
    assert "Traceback" not in first.log
    again = Served(terminal)
    assert terminal.json("account", "show", "acc-491700000001")["available_micro"] == 16_000_000
    assert terminal.json("ledger", "verify")["consistent"] is True
    assert again.stop() == 0


@pytest.mark.slow
def test_files_that_are_not_there(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "data")
    for option in ("--catalogue", "--population"):
        refused = terminal.run("serve", "--log-level=error", option, "/none.yaml")
        assert refused.returncode == 2
        assert refused.stderr == "occ: /none.yaml: cannot be read: no such file or directory\n"


@pytest.mark.slow
def test_what_serve_prints(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "data")
    process = terminal.start("serve", "--log-level", "warning")
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if "Ctrl-C" in line:
                break
        assert re.match(r"Diameter +127.0.0.1:\d+, Origin-Host occ1.ocs.example.net, realm ocs.example.net", lines[0])
        assert re.match(r"Metrics +http://127.0.0.1:\d+/metrics", lines[1])
        assert any("simulate gateway" in line for line in lines)
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert log == ""
