"""The load generator: a process of its own that costs little, told what to do by lines of JSON.

    python -m loadtests.generator --host H --port P --peers N --accounts A --sessions S

Of several generators on one store each has a `--first-peer` of its own, beyond the peers of the others, so that their
sessions differ, and either accounts of its own (`--first-account`) or another place to begin (`--first-session`).

It opens N connections with a capabilities exchange each and keeps S load sessions (`loadtests.templates`) going over
all accounts in turn. Then it takes one command per line on standard input and answers with lines on standard output:
`{"mark": "begin"}` and `{"mark": "end"}` where a measured interval starts and ends, then one `{"result": ...}`.

open_sessions   I and U for every session; all S are open afterwards
stagger         spread the sessions over the four steps, so that every kind of request is always under way
open_more       {sessions}: I for as many sessions more as are missing to that number
connect         {peers}: open so many connections more, which stay idle until `disconnect`
closed_loop     {window, warm_up_s, seconds}: keep `window` requests under way: the server's maximum
open_loop       {rate, warm_up_s, seconds}: send by the clock at random (exponential) intervals, whatever is answered
finish          T for every open session
quit

Latency counts from the moment a request was due to be sent, also when the generator or a busy session made it leave
later: nothing is hidden by waiting (no coordinated omission). With `"latency": true` the result of an interval has its
histogram and percentiles under that name (`loadtests.latency`). A session has one request under way at a time, as RFC
8506 clients have; requests go to the session that has rested longest.
"""

import argparse
import gc
import json
import select
import socket
import sys
from collections import Counter, deque
from math import gcd
from random import Random
from struct import Struct
from time import perf_counter, sleep, time
from typing import Any, ClassVar, Final

from loadtests.latency import Latencies, LatencyError
from loadtests.templates import (
    REALM,
    SERVER_REALM,
    STEPS,
    USED_OCTETS,
    Line,
    Template,
    line,
    session_id,
)
from protocols.diameter.codec import Message, answer_to, avp, build, decode
from protocols.diameter.codes import Application, Command, Flag, ResultCode
from simulators.audit import DATA

ANSWER_TIMEOUT_S: Final = 10.0
"""After an interval, what is still unanswered this much later counts as lost."""
RECEIVE_OCTETS: Final = 1 << 18
TURN_S: Final = 0.0005
"""In the open loop requests leave, and answers are taken, so often: one by one the generator takes most of a core that
others need. Latencies count from when a request was due to when its answer was taken, so they have the wait for a turn.
What is due in one turn comes to the server together, though, which is less work for it than one after the other."""
OPENING_WINDOW: Final = 64
"""Requests under way while sessions are opened and closed outside the measured intervals."""

_HEADER: Final = Struct(">IIIII")
_WORD: Final = Struct(">I")
_RESULT_CODE_HEADER: Final = bytes.fromhex("0000010c4000000c")
_SUCCESS: Final = _RESULT_CODE_HEADER + _WORD.pack(ResultCode.SUCCESS)
_GRANT_CODE: Final = bytes.fromhex("000001af")
_REQUEST_BIT: Final = Flag.REQUEST << 24
_SERVICES: Final = 2
_STRIDE: Final = 7919
"""Accounts are visited this far apart, so that neighbours in time are not neighbours in the store."""


class LoadError(Exception):
    """The load cannot go on; one sentence says why."""


class Connection:
    """One peer's connection: outgoing messages gathered per turn of the loop, incoming ones cut apart."""

    __slots__ = ("buffer", "origin_host", "outgoing", "socket", "templates", "unsent")

    def __init__(self, host: str, port: int, number: int, at_s: int) -> None:
        self.origin_host = f"gw{number:03d}.{REALM}"
        length = len(session_id(self.origin_host, at_s, 0))
        self.templates = tuple(Template(self.origin_host, step, length, at_s) for step in range(STEPS))
        self.outgoing: list[bytes] = []
        self.unsent = b""
        self.buffer = b""
        self.socket = socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._exchange_capabilities()
        self.socket.setblocking(False)

    def _exchange_capabilities(self) -> None:
        address: str = self.socket.getsockname()[0]
        avps = [
            avp("Origin-Host", self.origin_host),
            avp("Origin-Realm", REALM),
            avp("Host-IP-Address", address),
            avp("Vendor-Id", 0),
            avp("Product-Name", "OCC load"),
            avp("Auth-Application-Id", Application.CREDIT_CONTROL),
        ]
        self.socket.sendall(build(Command.CAPABILITIES_EXCHANGE, 0, Flag.REQUEST, 1, 1, avps))
        answer = b""
        while len(answer) < 4 or len(answer) < _WORD.unpack_from(answer)[0] & 0xFFFFFF:
            received = self.socket.recv(65536)
            if not received:
                raise LoadError("the server closed the connection instead of answering the CER")
            answer += received
        result = decode(answer).find(268)
        if result is None or result.value() != ResultCode.SUCCESS:
            raise LoadError(f"the server refused the capabilities of {self.origin_host}: {result}")

    def flush(self) -> None:
        """Send what has gathered; what the kernel does not take is kept for the next turn."""
        data = self.unsent + b"".join(self.outgoing)
        self.outgoing.clear()
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        self.unsent = data[sent:]


class Slot:
    """A place in which one load session after the other runs."""

    __slots__ = ("connection", "due", "index", "reports", "session_id", "step", "subscriber")

    def __init__(self, index: int, connection: Connection) -> None:
        self.index = index
        """Also the Hop-by-Hop Identifier of its requests: a slot has one under way at most."""
        self.connection = connection
        self.session_id = b""
        self.subscriber: Line = Line(b"", b"")
        self.step = 0
        self.reports = 0
        """Requests of the session that reported usage."""
        self.due = 0.0
        """When the request under way should have left; 0: none is under way."""


class Generator:
    """Connections, slots, and the loop that drives them."""

    COMMANDS: ClassVar[tuple[str, ...]] = (
        "open_sessions",
        "open_more",
        "stagger",
        "connect",
        "disconnect",
        "closed_loop",
        "open_loop",
        "finish",
    )

    def __init__(
        self,
        host: str,
        port: int,
        peers: int,
        accounts: int,
        sessions: int,
        seed: int,
        first_peer: int = 1,
        first_account: int = 1,
        first_session: int = 0,
    ) -> None:
        self._started_s = int(time())
        self._address = (host, port)
        self._first_peer = first_peer
        self._idle: list[Connection] = []
        numbers = range(first_peer, first_peer + peers)
        self._connections = [Connection(host, port, number, self._started_s) for number in numbers]
        self._by_socket = {connection.socket: connection for connection in self._connections}
        self._accounts = accounts
        self._first_account = first_account
        self._stride = next(n for n in range(_STRIDE, _STRIDE + accounts + 1) if gcd(n, accounts) == 1)
        self._slots = [Slot(index, self._connections[index % peers]) for index in range(sessions)]
        self._rested = deque(self._slots)
        self._outstanding = 0
        self._sessions = self._first_session = first_session
        self._end_to_end = Random(seed).getrandbits(32)
        self._random = Random(seed)
        self._result_code_at = _HEADER.size + 8 + (len(session_id("gw000." + REALM, 0, 0)) + 3 & ~3)
        self._measured_from = self._measured_to = 0.0
        self._latencies = Latencies()
        self.answers = 0
        self.debited_micro = 0
        self.errors: Counter[str] = Counter()

    # -- one request and its answer --------------------------------------------------------------------------

    def _send(self, slot: Slot, step: int, due: float) -> None:
        if step == 0:
            slot.session_id = session_id(slot.connection.origin_host, self._started_s, self._sessions)
            slot.subscriber = line(self._sessions * self._stride % self._accounts + self._first_account)
            slot.reports = 0
            self._sessions += 1
        slot.step = step
        slot.due = due
        self._outstanding += 1
        self._end_to_end = self._end_to_end + 1 & 0xFFFFFFFF
        connection = slot.connection
        connection.outgoing.append(
            connection.templates[step].message(slot.index, self._end_to_end, slot.session_id, slot.subscriber)
        )

    def _answered(self, slot: Slot, message: bytes, now: float) -> None:
        due = slot.due
        if not due:
            self.errors["answer to nothing"] += 1
            return
        slot.due = 0.0
        self._outstanding -= 1
        self._rested.append(slot)
        self.answers += 1
        if self._measured_from <= due < self._measured_to:
            self._latencies.add_due(due)
            self._latencies.add_answered(now)
        step = slot.step
        if not self._good(message, step):
            slot.step = 0
            return
        if step:
            slot.reports += 1
            self.debited_micro += _SERVICES * (
                DATA.price_micro(slot.reports * USED_OCTETS) - DATA.price_micro((slot.reports - 1) * USED_OCTETS)
            )
        slot.step = (step + 1) % STEPS

    def _good(self, message: bytes, step: int) -> bool:
        """The command and both services succeeded, and what was asked for was granted."""
        at = self._result_code_at
        if message[at : at + 12] == _SUCCESS and message.count(_SUCCESS, at + 12) == _SERVICES:
            if step == STEPS - 1 or message.count(_GRANT_CODE, at) == _SERVICES:
                return True
            self.errors["a service was granted nothing"] += 1
            return False
        at = message.find(_RESULT_CODE_HEADER)
        code = _WORD.unpack_from(message, at + 8)[0] if at > 0 else 0
        self.errors[f"Result-Code {code}" if code != ResultCode.SUCCESS else "a service was refused"] += 1
        return False

    # -- the loop --------------------------------------------------------------------------------------------

    def _turn(self, timeout_s: float) -> None:
        """Send what has gathered, wait for input no longer than `timeout_s`, take what came."""
        blocked = []
        for connection in self._connections:
            if connection.outgoing or connection.unsent:
                connection.flush()
                if connection.unsent:
                    blocked.append(connection.socket)
        readable, _, _ = select.select(self._by_socket, blocked, (), max(0.0, timeout_s))
        for source in readable:
            self._receive(self._by_socket[source])

    def _receive(self, connection: Connection) -> None:
        try:
            received = connection.socket.recv(RECEIVE_OCTETS)
        except BlockingIOError:
            return
        if not received:
            raise LoadError(f"the server closed the connection of {connection.origin_host}")
        now = perf_counter()
        data = connection.buffer + received
        position, end = 0, len(data)
        while end - position >= _HEADER.size:
            first, second, _, hop_by_hop, _ = _HEADER.unpack_from(data, position)
            following = position + (first & 0xFFFFFF)
            if following > end:
                break
            message = data[position:following]
            position = following
            if second & _REQUEST_BIT:
                self._request(connection, decode(message))
            elif hop_by_hop < len(self._slots):
                self._answered(self._slots[hop_by_hop], message, now)
            else:
                self.errors["answer to nothing"] += 1
        connection.buffer = data[position:]

    def _request(self, connection: Connection, request: Message) -> None:
        """The server's watchdog is answered; anything else it asks is not for a load session."""
        if request.command != Command.DEVICE_WATCHDOG:
            self.errors[f"request with command {request.command}"] += 1
            return
        origin = [avp("Origin-Host", connection.origin_host), avp("Origin-Realm", REALM)]
        success = avp("Result-Code", ResultCode.SUCCESS)
        connection.outgoing.append(answer_to(request, [success, *origin]))

    def _drain(self) -> None:
        """Wait for all that is under way; what does not come is an error, and its session is forgotten."""
        give_up_at = perf_counter() + ANSWER_TIMEOUT_S
        while self._outstanding and perf_counter() < give_up_at:
            self._turn(0.1)
        for slot in self._slots:
            if slot.due:
                slot.due = 0.0
                slot.step = 0
                self._outstanding -= 1
                self._rested.append(slot)
                self.errors["no answer"] += 1

    def _step_all(self, steps: "list[tuple[Slot, int]]") -> None:
        """Send one request for each of these slots, a bounded number at a time, and wait for the answers."""
        waiting = deque(steps)
        while waiting:
            while waiting and self._outstanding < OPENING_WINDOW:
                slot, step = waiting.popleft()
                self._send(slot, step, perf_counter())
            self._turn(0.1)
        self._drain()
        self._rested = deque(self._slots)

    # -- commands --------------------------------------------------------------------------------------------

    def open_sessions(self) -> dict[str, Any]:
        for step in (0, 1):
            self._step_all([(slot, step) for slot in self._slots])
        return self._result(0.0)

    def open_more(self, sessions: int) -> dict[str, Any]:
        """One more session each, up to so many at a time; they stay as they are until `finish`."""
        peers = self._connections
        more = [Slot(index, peers[index % len(peers)]) for index in range(len(self._slots), sessions)]
        self._slots += more
        self._step_all([(slot, 0) for slot in more])
        return self._result(0.0)

    def connect(self, peers: int) -> dict[str, Any]:
        """Connections that only exchange capabilities."""
        first = self._first_peer + len(self._connections)
        at_s = self._started_s
        self._idle += [Connection(*self._address, number, at_s) for number in range(first, first + peers)]
        return self._result(0.0)

    def disconnect(self) -> dict[str, Any]:
        """Close them again."""
        for connection in self._idle:
            connection.socket.close()
        self._idle.clear()
        return self._result(0.0)

    def stagger(self) -> dict[str, Any]:
        """After open_sessions every slot's next step is 2; move slot i on by i % 4 steps."""
        for round_number in range(1, STEPS):
            self._step_all([(slot, slot.step) for slot in self._slots if slot.index % STEPS >= round_number])
        return self._result(0.0)

    def closed_loop(self, window: int, warm_up_s: float, seconds: float, latency: bool = False) -> dict[str, Any]:
        if window * 2 > len(self._slots):
            raise LoadError(f"a window of {window} needs {window * 2} sessions, not {len(self._slots)}")
        begin = self._begin(warm_up_s, seconds)
        before = -1
        while (now := perf_counter()) < self._measured_to:
            if now >= begin and before < 0:
                before = self.answers
                tell({"mark": "begin"})
            while self._outstanding < window:
                slot = self._rested.popleft()
                self._send(slot, slot.step, perf_counter())
            self._turn(0.1)
        return self._end(before, seconds, latency)

    def open_loop(self, rate: float, warm_up_s: float, seconds: float, latency: bool = False) -> dict[str, Any]:
        begin = self._begin(warm_up_s, seconds)
        before = -1
        due = perf_counter()
        backlog: deque[float] = deque()
        while (now := perf_counter()) < self._measured_to:
            if now >= begin and before < 0:
                before = self.answers
                tell({"mark": "begin"})
            while due <= now:
                backlog.append(due)
                due += self._random.expovariate(rate)
            while backlog and self._rested:
                slot = self._rested.popleft()
                self._send(slot, slot.step, backlog.popleft())
            self._turn(min(due, self._measured_to) - perf_counter())
            sleep(max(0.0, now + TURN_S - perf_counter()))
        return self._end(before, seconds, latency, backlog)

    def finish(self) -> dict[str, Any]:
        """End every open session with a T, whatever step it has come to."""
        self._step_all([(slot, STEPS - 1) for slot in self._slots if slot.step])
        return self._result(0.0)

    def _begin(self, warm_up_s: float, seconds: float) -> float:
        self._latencies = Latencies()
        self._measured_from = perf_counter() + warm_up_s
        self._measured_to = self._measured_from + seconds
        return self._measured_from

    def _end(
        self, answers_before: int, seconds: float, latency: bool, backlog: "deque[float] | None" = None
    ) -> dict[str, Any]:
        """Wait for what is under way, after sending what was due in the interval and could not leave yet."""
        answered = self.answers - answers_before
        tell({"mark": "end", "answers": answered})
        give_up_at = perf_counter() + ANSWER_TIMEOUT_S
        while backlog and perf_counter() < give_up_at:
            while backlog and self._rested:
                slot = self._rested.popleft()
                self._send(slot, slot.step, backlog.popleft())
            self._turn(0.1)
        if backlog:
            self.errors["not sent in time"] += len(backlog)
        self._drain()
        result = self._result(answered / seconds)
        if latency:
            result["latency"] = self._latencies.result(self._measured_from, seconds)
        return result

    def _result(self, rate: float) -> dict[str, Any]:
        return {
            "rate": rate,
            "answers": self.answers,
            "sessions": self._sessions - self._first_session,
            "debited_micro": self.debited_micro,
            "errors": dict(self.errors),
        }

    def idle(self, seconds: float) -> None:
        """Stay alive between commands: answer watchdogs."""
        self._turn(seconds)


def tell(what: dict[str, Any]) -> None:
    """One line for whoever commands this process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _obey(generator: Generator, command: dict[str, Any]) -> dict[str, Any]:
    do = command.pop("do")
    if do not in generator.COMMANDS:
        raise LoadError(f"there is no command {do!r}")
    result: dict[str, Any] = getattr(generator, do)(**command)
    return result


def main(make: type[Generator] = Generator) -> int:
    """Obey until the end of standard input; 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.generator", description="Charging load over Diameter.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--peers", type=int, default=1)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first-peer", type=int, default=1)
    parser.add_argument("--first-account", type=int, default=1)
    parser.add_argument("--first-session", type=int, default=0)
    options = parser.parse_args()
    gc.disable()  # the loop makes no cycles; a collection would count as the server's latency
    try:
        generator = make(
            options.host,
            options.port,
            options.peers,
            options.accounts,
            options.sessions,
            options.seed,
            options.first_peer,
            options.first_account,
            options.first_session,
        )
        tell({"result": {"realm": SERVER_REALM, "peers": options.peers}})
        while True:
            readable, _, _ = select.select((sys.stdin,), (), (), 0.0)
            if not readable:
                generator.idle(0.02)
                continue
            text = sys.stdin.readline()
            command = json.loads(text) if text else {"do": "quit"}
            if command["do"] == "quit":
                return 0
            tell({"result": _obey(generator, command)})
    except (LoadError, LatencyError, OSError) as error:
        tell({"error": str(error)})
        return 1


if __name__ == "__main__":
    sys.exit(main())
