"""Whatever is typed wrong, missing, unreachable or cut off: one sentence, an exit code, and never a traceback."""

import io
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from balance.embedded import Address
from balance.model import IdentityType
from occ.cli import app
from occ.cli_shell import FAULT
from tests.live_server import LiveServer
from tests.shell import Shell

SERVING = {("serve",), ("api",), ("demo", "noc"), ("demo", "policies"), ("init",)}
"""They listen, or write files, whatever they are given; those below are run as processes."""
WATCHING = {("top",), ("trace",), ("sessions", "watch"), ("simulate", "policy-node")}


def commands(root: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path."""

    def below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name in group.list_commands(None):
            command = group.get_command(None, name)
            if hasattr(command, "list_commands"):
                yield from below(command, (*path, name))
            else:
                yield (*path, name), command

    yield from below(root, ())


def misuses(command: Any, values: list[str], turn: int) -> Iterator[list[str]]:
    """Command lines behind the command: nothing at all, each value as argument, each option with one of the values."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    needed = [each for each in options if each.required]
    yield []
    for value in values:
        given = [word for option in needed for word in (option.opts[0], value)]
        yield [*given, "--", *(value for _ in arguments)]
    for at, option in enumerate(options):
        if getattr(option, "is_flag", False):
            continue
        others = [word for each in needed if each is not option for word in (each.opts[0], "1")]
        yield [*others, option.opts[0], values[(at + turn) % len(values)], *("1" for _ in arguments)]


def check(root: Any, line: tuple[str, ...]) -> None:
    """Run a command line; whatever comes of it, it is no fault of the program."""
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            root.main(list(line), prog_name="occ")
        except SystemExit as left:
            code = left.code
    told = err.getvalue()
    assert code in (0, 1, 2), (line, told)
    assert "Traceback" not in out.getvalue() + told, line
    if code == 2:
        assert re.search(r"^occ: \S.*\S", told, re.MULTILINE), (line, told)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is no file, though it looks like one; and what is no text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "octets").write_bytes(b"\x00\xff\xfe nonsense\n")
    (tmp_path / "directory").mkdir()
    return ["nowhere", "octets", "directory", "octets/below", "", "-1", "\udcff", "9" * 400, "\x1b[31m", "1e999", "\0"]


@pytest.mark.slow
def test_every_command_without_a_store(places: list[str], tmp_path: Path) -> None:
    """The store, the server and the catalogue cannot be reached."""
    config = tmp_path / "occ.yaml"
    config.write_text("{metrics: {port: 1}, diameter: {port: 1}, store: {mode: external, url: 'redis://127.0.0.1:1'}}")
    tried = 0
    root = typer.main.get_command(app)
    for turn, (path, command) in enumerate(commands(root)):
        if path in SERVING:
            continue
        for line in misuses(command, places[turn % 3 :: 3], turn):
            check(root, ("--config", str(config), *path, *line))
            tried += 1
    assert tried > 500


@pytest.mark.slow
def test_every_command_with_a_store(places: list[str], clean_redis: Address, tmp_path: Path) -> None:
    shell = Shell(tmp_path, clean_redis)
    shell.text("account", "create", "1", "--balance", "10.00")
    shell.text("subscriber", "add", "1", "--account", "1", "--plan", "standard", "--msisdn", "491")
    root = typer.main.get_command(app)
    for path, command in commands(root):
        if path in SERVING | WATCHING or path[0] in ("simulate", "decode", "doctor", "peers", "rate"):
            continue
        for line in misuses(command, ["\udcff"], 0):
            check(root, ("--config", str(shell.config), *path, *line))
    assert shell.json("ledger", "verify")["consistent"]


@pytest.mark.parametrize("name", ["nowhere", "octets", "directory", "octets/below"])
def test_settings_that_cannot_be_read(places: list[str], name: str) -> None:
    for path in (("account", "list"), ("serve",), ("api",), ("doctor",), ("top",)):
        result = CliRunner().invoke(app, ["--config", name, *path])
        assert result.exit_code == 2, (path, result.output)
        assert result.stderr.startswith(f"occ: {name}"), result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_settings_that_must_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "occ.yaml").write_text("{}")
    (tmp_path / "occ.yaml").chmod(0)
    result = CliRunner().invoke(app, ["--config", str(tmp_path / "occ.yaml"), "account", "list"])
    assert result.exit_code == 2
    assert "ermission denied" in result.stderr


def test_a_fault_of_the_program_is_one_sentence_and_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("occ.settings.load", broken)
    result = CliRunner().invoke(app, ["account", "list"])
    assert result.exit_code == FAULT
    told = re.fullmatch(
        r"occ: this is a fault of occ itself \(RuntimeError: out of order\); "
        r"please report it, with the file (\S+)\n",
        result.stderr,
    )
    assert told is not None, result.stderr
    assert "Traceback" in Path(told[1]).read_text()


# -- as processes ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("live")) as running:
        (running.directory / "occ.yaml").write_text(
            f"diameter: {{port: {running.port}}}\nmetrics: {{port: {running.server.metrics_port}}}\n"
            f"catalogue: {running.settings.catalogue}\npolicies: {running.settings.policies}\n"
            "store: {data_dir: data}\napi: {port: 0}\n"
        )
        running.add_account("acc", [(IdentityType.E164, "4917")], balance_micro=1_000_000)
        yield running


def started(server: LiveServer, line: str, **how: Any) -> "subprocess.Popen[bytes]":
    config = str(server.directory / "occ.yaml")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "occ", "--config", config, *shlex.split(line)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, **how)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["--help", "account list --json", "catalogue schema", "top --json --every 0.2", "peers"]
)
def test_a_reader_that_has_seen_enough(server: LiveServer, line: str) -> None:
    """As ``| head -1``: the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    process = started(server, line, stdout=writing)
    os.close(writing)
    os.close(reading)
    _, told = process.communicate(timeout=60)
    assert told == b""
    assert process.returncode in (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "trace 4917",
        "sessions watch 4917",
        "serve --json --diameter-port 0 --metrics-port 0 --store-data-dir {}",
        "api --json",
    ],
)
def test_ctrl_c_ends_without_a_word(server: LiveServer, line: str, tmp_path: Path) -> None:
    process = started(server, line.format(tmp_path), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert select.select([process.stdout, process.stderr], [], [], 30)[0]  # it is in the middle of it
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (0, 130), told
    assert b"Traceback" not in told
    assert b"Exception" not in told


@pytest.mark.slow
@pytest.mark.parametrize("line", ["peers", "top --once", "account list", "simulate gateway --sessions 1"])
def test_somebody_else_answers(line: str, tmp_path: Path) -> None:
    """At the port of Redis, of the metrics, of Diameter is something that talks of other things."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = tmp_path / "occ.yaml"
        config.write_text(
            f"{{metrics: {{port: {port}}}, diameter: {{port: {port}}}, "
            f"store: {{mode: external, url: 'redis://127.0.0.1:{port}'}}}}"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "occ", "--config", str(config), *line.split()]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        other.settimeout(30)
        connection = other.accept()[0]
        connection.sendall(b"220 mail.example.net ESMTP\r\n")
        connection.close()
        other.close()
        _, told = process.communicate(timeout=60)
    assert process.returncode in (1, 2), told
    assert "Traceback" not in told
    assert re.search(r"^occ: ", told, re.MULTILINE), told
