"""Builds and runs gateway.c: a session management function's Diameter side, which is freeDiameter's own.

freeDiameter connects, routes, and judges every answer by its dictionaries and rules before it hands it on, as it does
in Open5GS' SMF; ``Gateway`` is told what to send, and tells what was handed on.
"""

import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

from tests.interop.freediameter_rules import COMPILER, HEADERS_ARE_INSTALLED, OPEN5GS

SOURCE = Path(__file__).with_name("gateway.c")
PATIENCE_S = 20.0
OPENSSL = shutil.which("openssl")
IS_POSSIBLE = COMPILER is not None and HEADERS_ARE_INSTALLED and OPENSSL is not None
"""Whether it can be built and started here."""
IDENTITY, REALM = "smf.localdomain", "localdomain"
"""Those of Open5GS' sample configuration."""

_CONFIGURATION = """
Identity = "{identity}";
Realm = "{realm}";
Port = 0;
SecPort = 0;
NoRelay;
TcTimer = 1;
TLS_Cred = "{directory}/smf.crt", "{directory}/smf.key";
TLS_CA = "{directory}/smf.crt";
{dictionaries}
{peer}
"""


def build(directory: Path) -> Path:
    """The program. Raises CalledProcessError if it does not compile."""
    assert COMPILER is not None
    program = directory / SOURCE.stem
    options = ["-Wall", "-Wextra", "-Werror", "-lfdcore", "-lfdproto", "-lpthread"]
    subprocess.run([COMPILER, SOURCE, "-o", program, *options], check=True)
    return program


class Gateway:
    """A running gateway, connected with the server.

    ``peer``: the ``ConnectPeer`` line of its configuration; ``whole``: another one altogether. It listens
    on no port, and tries again every second.
    """

    def __init__(self, program: Path, directory: Path, peer: str, whole: str | None = None) -> None:
        self.directory = directory
        self.log = directory / "gateway.log"
        assert OPENSSL is not None
        certificate = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={IDENTITY}"]
        files = ["-keyout", f"{directory}/smf.key", "-out", f"{directory}/smf.crt"]
        subprocess.run([OPENSSL, *certificate, *files], check=True, capture_output=True)
        configuration = directory / "smf.conf"
        configuration.write_text(
            whole
            or _CONFIGURATION.format(
                identity=IDENTITY,
                realm=REALM,
                directory=directory,
                dictionaries="\n".join(f'LoadExtension = "{name}.fdx";' for name in OPEN5GS),
                peer=peer,
            ),
            encoding="ascii",
        )
        self.answers: queue.Queue[bytes] = queue.Queue()
        self.asked: list[bytes] = []
        """Re-Auth-Requests, which have been answered."""
        self.dropped: list[str] = []
        """What freeDiameter did not hand on, and why."""
        self.peers: list[str] = []
        """The peers it has connected with, in order."""
        self._ended: queue.Queue[str] = queue.Queue()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, configuration], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._reader = threading.Thread(target=self._read, name="gateway", daemon=True)
        self._reader.start()

    def __enter__(self) -> "Gateway":
        try:
            self.wait_for_peer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def wait_for_peer(self, connections: int = 1) -> None:
        """Wait until it has connected so many times."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.peers) < connections:
            assert time.monotonic() < deadline, f"there is no connection; {self.tell()}"
            time.sleep(0.02)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def tell(self) -> str:
        return f"freeDiameter dropped {self.dropped} and said:\n{self.log.read_text(errors='replace')[-3000:]}"

    def send(self, request: bytes) -> None:
        self._write(f"send {request.hex()}")

    def answer(self) -> bytes:
        """The next answer that is handed on. Raises AssertionError when none comes: the SMF would wait for ever."""
        try:
            return self.answers.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise AssertionError(f"no answer was handed on; {self.tell()}") from None

    def begin(self, session_id: str) -> None:
        """From now on the session is known to it."""
        self._write(f"begin {session_id}")

    def end(self, session_id: str) -> None:
        """From now on it is not; returns when that has been noted."""
        self._write(f"end {session_id}")
        assert self._ended.get(timeout=PATIENCE_S) == session_id

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, _, text = line.rstrip("\n").partition(" ")
            if kind == "answer":
                self.answers.put(bytes.fromhex(text))
            elif kind == "ended":
                self._ended.put(text)
            elif kind == "asked":
                self.asked.append(bytes.fromhex(text))
            elif kind == "dropped":
                self.dropped.append(text)
            else:
                self.peers.append(text)
