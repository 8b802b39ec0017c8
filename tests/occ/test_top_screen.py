"""``occ top`` at a terminal: a full screen that follows the server, and leaves the terminal as it was."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from balance.model import IdentityType
from simulators import gateway
from tests.live_server import PATIENCE_S, LiveServer

ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"
"""What switches a terminal to its second screen and back (xterm)."""
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal, and ``occ top`` at it."""

    def __init__(self, server: LiveServer, columns: int = 130, rows: int = 45) -> None:
        self.ours, theirs = pty.openpty()
        self.said = ""
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.ours)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        config = str(server.directory / "occ.yaml")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "occ", "--config", config, "top", "--every", "0.3"],
            env=environment,
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - a few system calls
        )
        os.close(theirs)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def read(self) -> None:
        """What has come in a tenth of a second."""
        if select.select([self.ours], [], [], 0.1)[0]:
            try:
                self.said += os.read(self.ours, 65536).decode("utf-8", "replace")
            except OSError:  # the other side is gone
                time.sleep(0.1)

    def wait_for(self, text: str) -> str:
        """Until a text has come since this was called; what has come by then, without what moves the cursor."""
        begin = len(self.said)
        deadline = time.monotonic() + PATIENCE_S
        while text not in (plain := _SEQUENCE.sub("", self.said[begin:])):
            assert time.monotonic() < deadline, (text, plain[-3000:])
            assert self.process.poll() is None, plain[-3000:]
            self.read()
        return plain

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        self.read()
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("top")) as running:
        (running.directory / "occ.yaml").write_text(
            f"metrics: {{port: {running.server.metrics_port}}}\nstore: {{data_dir: data}}\n"
        )
        running.add_account("acc-491700000001", [(IdentityType.E164, "491700000001")], balance_micro=50_000_000)
        yield running


@pytest.fixture
def terminal(server: LiveServer) -> Iterator[Terminal]:
    made = Terminal(server)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.slow
async def test_the_screen_follows_the_server_until_q(terminal: Terminal, server: LiveServer) -> None:
    terminal.wait_for("Latest in the ledger")
    assert ALTERNATE in terminal.said
    options = gateway.GatewayOptions(port=server.port, sessions=5, prepaid=1, postpaid=0)
    assert (await gateway.run(options, lambda done, total: None)).answers
    shown = terminal.wait_for("terminate")
    assert "Traffic" in shown
    terminal.wait_for("pgw1.simulator.example.net")
    terminal.press("\x1b[A")  # the arrow up means nothing, though it begins like Escape
    terminal.resize(70, 60)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    narrow = terminal.wait_for("Latest in the ledger")
    lines = narrow.split("Latest in the ledger")[0].splitlines()
    assert len(max(lines[-3:], key=len)) <= 70
    terminal.press("q")
    assert terminal.end() == 0
    assert terminal.said.rindex(BACK) > terminal.said.rindex(ALTERNATE)
    assert termios.tcgetattr(terminal.ours) == terminal.before
    assert "Traceback" not in terminal.said


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.wait_for("Latest in the ledger")
    terminal.press("\x03")
    assert terminal.end() in (0, 130)
    assert terminal.said.endswith(BACK) or BACK in terminal.said[-200:]
    assert termios.tcgetattr(terminal.ours) == terminal.before
    assert "Traceback" not in terminal.said


@pytest.mark.slow
def test_a_server_that_goes_away_is_said_and_waited_for(tmp_path: Path) -> None:
    server = LiveServer(tmp_path)
    with server:
        (tmp_path / "occ.yaml").write_text(
            f"metrics: {{port: {server.server.metrics_port}}}\nstore: {{data_dir: data}}\n"
        )
        terminal = Terminal(server)
        terminal.wait_for("Latest in the ledger")
    try:
        terminal.wait_for("no server answers")
        terminal.press("q")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.said
    finally:
        terminal.close()
