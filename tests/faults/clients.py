"""Charging clients in threads, which never give a request up: it is repeated until it is answered.

Each is one Diameter identity with one connection at a time. It runs sessions and direct debits on hot accounts, writes
down what it asks and what it is answered (``history``), repeats some answered requests on purpose, and leaves some
sessions open for supervision to end.
"""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.credit_control import ReceivedAnswer, decode_answer
from protocols.diameter.codes import ResultCode
from tests.failover import CENT, MIB, TERMINATION, Session, Way, again, core
from tests.faults.history import Answer, Key, Operation
from tests.faults.rig import await_it
from tests.wire import ClosedError

NOT_CARRIED_OUT = frozenset((int(ResultCode.UNABLE_TO_DELIVER), int(ResultCode.TOO_BUSY)))
"""Answers that ask the client to try elsewhere, or later (RFC 6733 section 7.1.3): no answer to the request itself."""
ANSWER_PATIENCE_S = 2.0
GIVE_UP_S = 60.0
"""A request that is not answered for so long has been lost by the server."""
ASKED_MIB = 10
"""By every request of ``tests.failover.Session``."""


class LostError(AssertionError):
    """A request was repeated for a minute and never answered."""


@dataclass(slots=True)
class Load:
    """What a number of clients do until they are told to stop."""

    ports: Sequence[int]
    """Where to connect, in turn."""
    numbers: dict[str, str]
    """MSISDN by account."""
    clients: int = 6
    abandons: float = 0.1
    """Share of sessions that are left open."""
    repeats: float = 0.2
    """Share of answered requests that are sent once more, T flag set."""
    operations: list[Operation] = field(default_factory=list)
    repeated: int = 0
    """Requests sent again for want of an answer."""
    failures: list[BaseException] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> "Load":
        for number in range(self.clients):
            thread = threading.Thread(target=self._run, args=(number,), name=f"client {number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def stop(self) -> None:
        """Let every client finish its session. Raises what one of them ran into."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * GIVE_UP_S)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self.failures:
            raise self.failures[0]

    @property
    def answered(self) -> int:
        return sum(bool(operation.answers) for operation in list(self.operations))

    def await_answers(self, more: int) -> None:
        """Until so many requests more are answered, or a client has failed."""
        enough = self.answered + more
        await_it(lambda: self.answered >= enough or self.failures, "nothing is answered any more")

    def _run(self, number: int) -> None:
        client = _Client(self, number)
        try:
            while not self._stop.is_set():
                client.session()
        except BaseException as error:
            self.failures.append(error)
        finally:
            client.cut()


class _Client:
    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.identity = f"pgw{number}.clients.example.net"
        self.random = random.Random(number)
        self.sessions = 0
        self._way: Way | None = None
        self._turn = number

    def session(self) -> None:
        """One session, or one direct debit."""
        self.sessions += 1
        account, subscriber = self.random.choice(list(self.load.numbers.items()))
        session = Session(self.identity, f"{self.identity};1;{self.sessions}", subscriber)
        if self.random.random() < 0.2:
            self._ask(session.event(), session, account, ASKED_MIB)
            return
        granted = self._granted(self._ask(session.initial(), session, account, 0))
        if not granted:
            return
        for _ in range(self.random.randrange(3)):
            used = self.random.randint(0, granted)
            answer = self._ask(session.update(used), session, account, used)
            granted = self._granted(answer)
            if answer.result_code != ResultCode.SUCCESS:
                return
        if self.random.random() >= self.load.abandons:
            used = self.random.randint(0, granted)
            self._ask(session.termination(used), session, account, used)

    @staticmethod
    def _granted(answer: ReceivedAnswer) -> int:
        """MiB of the one service that these sessions have."""
        units = answer.services[0].granted if answer.services else None
        return ((units.total_octets or 0) if units is not None else 0) // MIB

    def _ask(self, request: bytes, session: Session, account: str, used_mib: int) -> ReceivedAnswer:
        kind = int.from_bytes(_value(request, 416), "big")
        operation = Operation(Key(session.session_id, kind, session.number), account, time.monotonic(), used_mib * CENT)
        self.load.operations.append(operation)
        answer = self._until_answered(request, operation)
        if kind == 4 and answer.result_code == ResultCode.SUCCESS:
            # A direct debit is of what could be had (RFC 8506 section 6.2 leaves it to the service): by the answer.
            operation.price_micro = self._granted(answer) * CENT
        self._note(operation, answer, kind)
        if self.random.random() < self.load.repeats:
            self._note(operation, self._until_answered(request, operation, first=False), kind)
        return answer

    def _note(self, operation: Operation, answer: ReceivedAnswer, kind: int) -> None:
        assert self._way is not None
        granted = 0 if kind in (TERMINATION, 4) else self._granted(answer) * CENT
        succeeded = answer.result_code == ResultCode.SUCCESS
        operation.answers.append(Answer(time.monotonic(), succeeded, granted, core(self._way.connection.received[-1])))

    def _until_answered(self, request: bytes, operation: Operation, first: bool = True) -> ReceivedAnswer:
        deadline = time.monotonic() + GIVE_UP_S
        octets = request if first else again(request)
        while True:
            if time.monotonic() > deadline:
                raise LostError(f"{operation.key} is not answered")
            answer = self._once(octets)
            if answer is not None and answer.result_code not in NOT_CARRIED_OUT:
                return answer
            self.load.repeated += 1
            octets = again(request)
            time.sleep(self.random.uniform(0.01, 0.1))

    def _once(self, octets: bytes) -> ReceivedAnswer | None:
        """Send it once; None if the connection breaks or nothing comes in time."""
        try:
            if self._way is None:
                self._turn += 1
                self._way = Way(self.load.ports[self._turn % len(self.load.ports)], self.identity)
            self._way.connection.send(octets)
            return self._answer_to(self._way, octets)
        except (ClosedError, TimeoutError, OSError, AssertionError):
            self.cut()
            return None

    @staticmethod
    def _answer_to(way: Way, octets: bytes) -> ReceivedAnswer:
        """Whatever else comes before it, such as a DPR, is passed over."""
        deadline = time.monotonic() + ANSWER_PATIENCE_S
        while True:
            received = way.connection.receive(max(0.01, deadline - time.monotonic()))
            if received[12:20] == octets[12:20] and not received[4] & 0x80:
                return decode_answer(received)

    def cut(self) -> None:
        if self._way is not None:
            self._way.cut()
            self._way = None


def _value(message: bytes, code: int) -> bytes:
    """The data of the first AVP of that code at the top of a message."""
    at = 20
    while at < len(message):
        length = int.from_bytes(message[at + 5 : at + 8], "big")
        if int.from_bytes(message[at : at + 4], "big") == code:
            return message[at + (12 if message[at + 4] & 0x80 else 8) : at + length]
        at += length + 3 & ~3
    raise ValueError(f"there is no AVP {code}")
