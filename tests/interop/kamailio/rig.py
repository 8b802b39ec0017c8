"""A real Kamailio between two sipp instances, and what it says over Ro.

Kamailio reaches the server through a ``Tap``, so that the tests see every message as it was on the wire.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from protocols.diameter import codec
from protocols.diameter.codec import Message
from tests.interop.kamailio import sip
from tests.scenarios.notation import members_of

FILES = Path(__file__).parent
PATIENCE_S = 30.0
CAPABILITIES_EXCHANGE, CREDIT_CONTROL = 257, 272
KAMAILIO = shutil.which("kamailio", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
"""Its path, also for users without the system's programs on their PATH; None: not installed."""
SIPP = shutil.which("sipp")
_TYPE, _NUMBER, _MSCC, _USED, _GRANTED, _TIME, _FINAL = 416, 415, 456, 446, 431, 420, 430

_given_out: set[int] = set()


def until(condition: Callable[[], bool], what: str, tell: Callable[[], str]) -> None:
    """Wait for something to come about; ``tell`` says what happened instead."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about; {tell()}"
        time.sleep(0.02)


def free_udp_port() -> int:
    """A port that nobody has, and that is not given out a second time.

    It is not one that the system gives to whoever asks for any port: another program could have it before the one
    it is meant for.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given_out:
                _given_out.add(port)
                return port


@dataclass(frozen=True)
class Exchange:
    """A credit-control request as Kamailio sent it, and its answer."""

    request: bytes
    answer: bytes

    @property
    def kind(self) -> str:
        """I, U or T, and the CC-Request-Number."""
        request = codec.decode(self.request)
        return f"{'?IUTE'[_integer(request, _TYPE)]}{_integer(request, _NUMBER)}"

    @property
    def used_s(self) -> int:
        """CC-Time of the Used-Service-Unit; 0 if there is none."""
        return self._seconds(self.request, _USED)

    @property
    def granted_s(self) -> int:
        """CC-Time of the Granted-Service-Unit; 0 if there is none."""
        return self._seconds(self.answer, _GRANTED)

    @property
    def is_final(self) -> bool:
        return any(one.code == _FINAL for mscc in codec.decode(self.answer).find_all(_MSCC) for one in members_of(mscc))

    @staticmethod
    def _seconds(octets: bytes, where: int) -> int:
        return sum(
            int.from_bytes(time.data, "big")
            for mscc in codec.decode(octets).find_all(_MSCC)
            for units in members_of(mscc)
            if units.code == where
            for time in members_of(units)
            if time.code == _TIME
        )


def _integer(message: Message, code: int) -> int:
    found = message.find(code)
    return 0 if found is None else int.from_bytes(found.data, "big")


def _call_id(name: str) -> str:
    """What the Call-ID of a call begins with; no other call's holds it."""
    return f"<{name}>"


class Tap:
    """Passes on what goes between Kamailio and the server, and keeps the messages of both in the order they came."""

    def __init__(self, server_port: int) -> None:
        self.messages: list[bytes] = []
        self.server_port = server_port
        """May change while the server is away."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="tap", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for each in (self._listener, *self._sockets):
            each.close()

    def capabilities_exchanges(self) -> int:
        """How often Kamailio has connected."""
        heads = [codec.decode(octets) for octets in list(self.messages)]
        return sum(1 for one in heads if one.command == CAPABILITIES_EXCHANGE and not one.is_request)

    def exchanges(self, call: str) -> list[Exchange]:
        """The answered credit-control requests of one call, known by the Call-ID in them (User-Session-Id)."""
        call_id = _call_id(call).encode()
        answers: dict[int, bytes] = {}
        requests: list[tuple[int, bytes]] = []
        for octets in list(self.messages):
            message = codec.decode(octets)
            if message.command != CREDIT_CONTROL:
                continue
            if not message.is_request:
                answers[message.end_to_end] = octets
            elif call_id in octets:
                requests.append((message.end_to_end, octets))
        return [Exchange(octets, answers[key]) for key, octets in requests if key in answers]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.server_port))
                except ConnectionRefusedError:  # as the client would have found it
                    client.close()
                    continue
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._pass_on, args=(source, sink), name="tap", daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):  # closed by either side
            while data := source.recv(65536):
                buffer += data
                while len(buffer) >= codec.HEADER_LENGTH:
                    length = int.from_bytes(buffer[1:4], "big")
                    if len(buffer) < length:
                        break
                    # Kept before it is passed on: an answer must not be here before its request.
                    self.messages.append(bytes(buffer[:length]))
                    sink.sendall(buffer[:length])
                    del buffer[:length]
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Call:
    """A call to make. ``msisdn``: the caller's, without "+"."""

    msisdn: str
    caller: str
    """What becomes of the call: a key of ``sip.CALLERS``."""
    callee: str | None
    """What the callee does: a key of ``sip.CALLEES``; None: the call must not get through to anybody."""
    talk_ms: int = 0
    """How long whoever ends the call waits before it does."""
    asserted: str = "P-Asserted-Identity: <tel:+{msisdn}>"
    """The header that says who calls."""
    called: str = "+4930123456"
    video: bool = False


class Kamailio:
    """Kamailio in a directory of its own; ``start`` and ``stop`` it.

    ``configuration``: the text of its kamailio.cfg and diameter.xml, in which ``@SIP_PORT@``, ``@DIAMETER_PORT@`` and
    ``@DIRECTORY@`` are filled in.
    """

    def __init__(self, directory: Path, tap: Tap, configuration: Mapping[str, str]) -> None:
        self.directory = directory
        self.tap = tap
        self.port = free_udp_port()
        self.log = directory / "kamailio.log"
        values = {"SIP_PORT": str(self.port), "DIAMETER_PORT": str(tap.port), "DIRECTORY": str(directory)}
        for name, text in configuration.items():
            filled = re.sub("@([A-Z_]+)@", lambda found: values[found[1]], text)
            (directory / name).write_text(filled, encoding="utf-8")
        assert KAMAILIO is not None
        self._command = [KAMAILIO, "-f", str(directory / "kamailio.cfg"), "-Y", str(directory), "-w", str(directory)]

    def complaint(self) -> str:
        """What Kamailio has against its configuration; empty if it has nothing."""
        done = subprocess.run(
            [*self._command, "-c"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout if done.returncode else ""

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._command, "-DD", "-E"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End Kamailio and all the processes it forked; they are the process group it leads."""
        pipes = [pipe for number in self._processes() for pipe in Path("/tmp").glob(f"cdp_send_{number}_*")]
        try:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for pipe in pipes:  # which cdp forgets
                pipe.unlink(missing_ok=True)

    def _processes(self) -> list[int]:
        """The numbers of its processes."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # ended meanwhile
                group = int(status.read_text().rpartition(")")[2].split()[2])
                if group == self.process.pid:
                    found.append(int(status.parent.name))
        return found

    def tell(self) -> str:
        return f"Kamailio said:\n{self.log.read_text(errors='replace')[-3000:]}"

    def complaints(self, about: str) -> list[str]:
        """The lines of its log that hold a text."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if about in line]

    def is_ready(self) -> bool:
        """Whether Kamailio says that a charging server is connected."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(0.2)
            asker.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{asker.getsockname()[1]}"
            request = [
                f"OPTIONS sip:127.0.0.1:{self.port} SIP/2.0",
                f"Via: SIP/2.0/UDP {address};branch=z9hG4bK{time.monotonic_ns()}",
                f"From: <sip:{address}>;tag=1",
                f"To: <sip:127.0.0.1:{self.port}>",
                f"Call-ID: {time.monotonic_ns()}@{address}",
                "CSeq: 1 OPTIONS",
                "Max-Forwards: 70",
                "Content-Length: 0",
            ]
            try:
                asker.sendto("\r\n".join([*request, "", ""]).encode(), ("127.0.0.1", self.port))
                return asker.recv(65536).startswith(b"SIP/2.0 200 ")
            except (TimeoutError, ConnectionRefusedError):
                return False

    def call(self, call: Call, name: str) -> list[Exchange]:
        """Make one call; what was charged, once the termination request was answered."""
        calls = self.directory / f"call-{name}"
        calls.mkdir()
        port = free_udp_port()
        keys = {
            "caller": f"+{call.msisdn}",
            "asserted": call.asserted.format(msisdn=call.msisdn),
            "called": call.called,
            "callee_port": str(port),
            "video": "m=video 40002 RTP/AVP 34" if call.video else "a=sendrecv",
        }
        arguments = [word for key, value in keys.items() for word in ("-key", key, value)]
        arguments += ["-d", str(call.talk_ms), "-cid_str", f"{_call_id(name)}%u@%s"]
        calling = ["-p", str(free_udp_port()), *arguments, f"127.0.0.1:{self.port}"]
        if call.callee is None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
                silent.bind(("127.0.0.1", port))
                silent.setblocking(False)
                Sipp(calls, "caller", sip.CALLERS[call.caller], calling).finish(self.tell)
                with contextlib.suppress(BlockingIOError):
                    raise AssertionError(f"the call got through: {silent.recv(65536)!r}")
        else:
            called = Sipp(calls, "callee", sip.CALLEES[call.callee], ["-p", str(port), *arguments])
            try:
                Sipp(calls, "caller", sip.CALLERS[call.caller], calling).finish(self.tell)
                called.finish(self.tell)
            finally:
                called.kill()
        tap = self.tap
        until(lambda: any(each.kind[0] == "T" for each in tap.exchanges(name)), "a termination", self.tell)
        return tap.exchanges(name)

    @contextlib.contextmanager
    def calling(self, calls: Mapping[str, Call]) -> Iterator[dict[str, Future[list[Exchange]]]]:
        """Make calls at the same time, each with its name as Call-ID; when left, all have ended, well or not."""
        with ThreadPoolExecutor(len(calls), "call") as pool:
            yield {name: pool.submit(self.call, call, name) for name, call in calls.items()}


class Sipp:
    """One sipp running one call through one scenario."""

    def __init__(self, directory: Path, role: str, steps: Sequence[str], arguments: list[str]) -> None:
        self.role = role
        self._messages = directory / f"{role}.msg"
        assert SIPP is not None
        scenario = sip.write(directory / f"{role}.xml", role, steps)
        common = ["-m", "1", "-i", "127.0.0.1", "-nostdin", "-timeout", f"{PATIENCE_S:.0f}", "-timeout_error"]
        trace = ["-trace_msg", "-message_file", str(self._messages)]
        with (directory / f"{role}.out").open("wb") as output:
            self.process = subprocess.Popen(
                [SIPP, "-sf", str(scenario), *common, *trace, *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self, tell: Callable[[], str]) -> None:
        """Wait until the call went through the scenario to its end."""
        try:
            code = self.process.wait(PATIENCE_S + 5)
        finally:
            self.kill()
        if code:
            messages = self._messages.read_text(errors="replace") if self._messages.exists() else "no message"
            raise AssertionError(f"{self.role}: sipp ended with {code}, it saw:\n{messages[-3000:]}\n{tell()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
