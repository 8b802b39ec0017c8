"""The floor: the commit script alone, driven as fast as Redis takes it, with the arguments of the run itself.

While the server is under load, a few hundred milliseconds of its commands are recorded with MONITOR. Later, with the
server stopped, the same Redis gets the same calls again from a client that does nothing else: the recorded plans in
their recorded order (account values, journal records, outbox, expiry index, ended sessions, session directory), each
put on the next account in turn, with the version that account really has, so that every comparison succeeds and every
write is made. `appendfsync` stays as it was.

The client keeps `depth` script calls of `plans` plans each under way. It runs as a process of its own:

    python -m loadtests.floor --socket S --pid REDIS --sample FILE --accounts A --partitions P \\
        --plans N --depth D --seconds T
"""

import argparse
import json
import re
import select
import socket
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from time import perf_counter, process_time
from typing import Any, Final

from balance.keys import Keys
from loadtests.machine import usage
from loadtests.templates import line

LANE_KEYS: Final = 3
"""Keys of the commit script before those of the plans, as its header lists them."""
PLAN_ARGUMENTS: Final = 8
"""Arguments of the commit script for each plan."""
REPLY_SECONDS: Final = 30.0
MONITOR_LIMIT: Final = 4000
"""Plans to record at most."""

_VERSION: Final = Struct(">Q")
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_ARGUMENT: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class RecordedPlan:
    """One plan of a recorded commit; arguments as in the script's header."""

    arguments: tuple[bytes, ...]
    ended_key: bool
    """The plan named a key of an ended session, not the account's own in its place."""
    outbox: bytes = b""
    """Its entry for the outbox, if any."""


@dataclass(slots=True)
class Sample:
    """What was recorded."""

    sha: bytes
    lane: tuple[bytes, ...]
    """Keys of the lane: journal, expiry index, outbox."""
    plans: list[RecordedPlan]
    calls: int
    directory: list[tuple[bytes, ...]]
    """Commands beside the script: the session directory's SET and DEL, in order."""


def record(unix_path: Path, seconds: float) -> Sample:
    """Watch the commands of a Redis under load for a while. Raises OSError, and ValueError for a foreign script."""
    sample = Sample(b"", (), [], 0, [])
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(unix_path))
        link.sendall(b"MONITOR\r\n")
        link.settimeout(0.1)
        buffer = bytearray()
        until = perf_counter() + seconds
        while perf_counter() < until and len(buffer) < 1 << 26:
            try:
                received = link.recv(1 << 18)
            except TimeoutError:
                continue
            if not received:
                break
            buffer += received
    for row in bytes(buffer).split(b"\r\n")[1:-1]:
        if b" lua] " not in row[:80] and len(sample.plans) < MONITOR_LIMIT:
            _read_row(sample, [unescape(text) for text in _ARGUMENT.findall(row)])
    return sample


def unescape(text: bytes) -> bytes:
    """An argument as MONITOR prints it, back to its octets."""

    def octets(match: re.Match[bytes]) -> bytes:
        escape = match.group(1)
        if len(escape) == 3:
            return bytes((int(escape[1:], 16),))
        return _ESCAPES.get(escape, escape)

    return _ESCAPE.sub(octets, text)


def _read_row(sample: Sample, command: list[bytes]) -> None:
    name = command[0].upper() if command else b""
    if name in (b"SET", b"DEL"):
        sample.directory.append(tuple(command))
    if name != b"EVALSHA":
        return
    keys = int(command[2])
    sample.sha, sample.lane = command[1], tuple(command[3 : 3 + LANE_KEYS])
    arguments = command[3 + keys :]
    outgoing = int(arguments[0]) if arguments[0].isdigit() and len(arguments[0]) < 5 else 0
    outbox = {int(arguments[1 + 2 * each]): arguments[2 + 2 * each] for each in range(outgoing)}
    del arguments[: 1 + 2 * outgoing]
    plan_keys = command[3 + LANE_KEYS : 3 + keys]
    if 2 * len(arguments) != PLAN_ARGUMENTS * len(plan_keys):
        raise ValueError("the commit script's arguments are not what loadtests/floor.py takes them for; adapt it")
    for index in range(len(plan_keys) // 2):
        account_key, ended_key = plan_keys[2 * index], plan_keys[2 * index + 1]
        plan = tuple(arguments[PLAN_ARGUMENTS * index : PLAN_ARGUMENTS * (index + 1)])
        if plan[1] and plan[2]:  # an existing account that is written: charging does nothing else to speak of
            sample.plans.append(RecordedPlan(plan, account_key != ended_key, outbox.get(index, b"")))
    sample.calls += 1


# -- the client ------------------------------------------------------------------------------------------------------


def bulk(value: bytes) -> bytes:
    """One RESP bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


class _Account:
    __slots__ = ("id", "key", "number", "tag", "version")

    def __init__(self, number: int, key: bytes, version: int) -> None:
        self.number = number
        self.id = bulk(line(number).msisdn)
        self.key = bulk(key)
        self.tag = key[: key.index(b"}") + 1]
        self.version = version


class _Mould:
    """A recorded plan with everything encoded that stays the same."""

    __slots__ = ("ended", "head", "outbox", "tail")

    def __init__(self, plan: RecordedPlan) -> None:
        arguments = plan.arguments
        value = arguments[2]
        self.head = b"$%d\r\n" % len(value)
        self.tail = value[_VERSION.size :] + b"\r\n" + b"".join(map(bulk, arguments[3:]))
        self.ended = plan.ended_key
        self.outbox = bulk(plan.outbox) if plan.outbox else b""


class Floor:
    """The pipelining client."""

    def __init__(self, link: socket.socket, sample: Sample, accounts: list[_Account]) -> None:
        self._link = link
        self._moulds = deque(_Mould(plan) for plan in sample.plans)
        self._accounts = deque(accounts)
        self._sample = sample
        self._directory = deque(b"*%d\r\n" % len(c) + b"".join(map(bulk, c)) for c in sample.directory)
        self._directory_per_plan = len(sample.directory) / max(1, len(sample.plans))
        self._directory_due = 0.0
        self._sessions = 0
        self.refused = 0

    def call(self, plans: int) -> tuple[bytes, int]:
        """The next script call with the directory commands that go with it; how many replies it will have."""
        keys: list[bytes] = []
        outgoing: list[bytes] = []
        arguments: list[bytes] = []
        for index in range(plans):
            mould = self._moulds[0]
            self._moulds.rotate(-1)
            account = self._accounts[0]
            self._accounts.rotate(-1)
            keys.append(account.key)
            if mould.ended:
                self._sessions += 1
                # Of a recorded one's length, and never met before.
                keys.append(bulk(b"%b:e:gw01.floor.example.net;0000000000;%010d" % (account.tag, self._sessions)))
            else:
                keys.append(account.key)
            if mould.outbox:
                outgoing += (bulk(b"%d" % index), mould.outbox)
            version = account.version
            account.version = version + 1
            arguments += (
                account.id,
                b"$8\r\n",
                _VERSION.pack(version),
                b"\r\n",
                mould.head,
                _VERSION.pack(version + 1),
                mould.tail,
            )
        sample = self._sample
        parts = [
            b"*%d\r\n$7\r\nEVALSHA\r\n" % (4 + len(sample.lane) + (2 + PLAN_ARGUMENTS) * plans + len(outgoing)),
            bulk(sample.sha),
            bulk(b"%d" % (len(sample.lane) + 2 * plans)),
            *map(bulk, sample.lane),
            *keys,
            bulk(b"%d" % (len(outgoing) // 2)),
            *outgoing,
            *arguments,
        ]
        replies = 1
        self._directory_due += plans * self._directory_per_plan
        while self._directory_due >= 1 and self._directory:
            self._directory_due -= 1
            parts.append(self._directory[0])
            self._directory.rotate(-1)
            replies += 1
        return b"".join(parts), replies

    def run(self, plans: int, depth: int, seconds: float) -> tuple[int, float]:
        """Keep `depth` calls of `plans` plans under way; plans written and how long that took, seconds."""
        if 2 * plans * depth > len(self._accounts):
            raise ValueError(f"{depth} calls of {plans} plans need {2 * plans * depth} accounts")
        link = self._link
        link.setblocking(False)
        waiting: deque[int] = deque()
        replies = written = 0
        unsent = b""
        buffer = b""
        started = perf_counter()
        until = started + seconds
        while True:
            now = perf_counter()
            if now >= until and not waiting:
                return written, now - started
            while now < until and len(waiting) < depth:
                call, expected = self.call(plans)
                unsent += call
                waiting.append(expected)
            if unsent:
                with suppress(BlockingIOError):
                    unsent = unsent[link.send(unsent) :]
            readable, writable, _ = select.select((link,), (link,) if unsent else (), (), REPLY_SECONDS)
            if not readable:
                if not writable:
                    raise TimeoutError(f"Redis does not answer a replayed commit within {REPLY_SECONDS:g} s")
                continue
            received = link.recv(1 << 18)
            if not received:
                raise OSError("Redis closed the connection")
            found, buffer = self._count(buffer + received)
            replies += found
            while waiting and replies >= waiting[0]:
                replies -= waiting.popleft()
                written += plans

    def _count(self, data: bytes) -> tuple[int, bytes]:
        """Replies in `data`, all of one line unless a plan was refused; the incomplete rest."""
        whole, _, rest = data.rpartition(b"\r\n")
        if not whole and not data.endswith(b"\r\n"):
            return 0, data
        rows = whole.split(b"\r\n")
        for row in rows:
            if row[:1] == b"-" or (row[:1] == b"*" and row != b"*0"):
                raise ValueError(f"a replayed plan was refused: {row[:200]!r}")
        return len(rows), rest


def versions(link: socket.socket, accounts: int, partitions: int) -> list[_Account]:
    """The accounts of the run with the version each has now."""
    keys = Keys(partitions, clustered=False)
    found: list[_Account] = []
    stream = link.makefile("rwb")
    for first in range(1, accounts + 1, 1000):
        numbers = range(first, min(first + 1000, accounts + 1))
        names = [keys.account(line(number).msisdn) for number in numbers]
        stream.write(b"".join(b"*4\r\n$8\r\nGETRANGE\r\n" + bulk(name) + b"$1\r\n0\r\n$1\r\n7\r\n" for name in names))
        stream.flush()
        for number, name in zip(numbers, names, strict=True):
            if stream.readline() != b"$8\r\n":
                raise ValueError(f"account {name!r} is not in the store")
            found.append(_Account(number, name, _VERSION.unpack(stream.read(10)[:8])[0]))
    return found


def dump(sample: Sample) -> dict[str, Any]:
    """The sample as plain data for JSON."""
    return {
        "sha": sample.sha.decode(),
        "lane": [each.decode() for each in sample.lane],
        "calls": sample.calls,
        "plans": [[each.ended_key, each.outbox.hex(), *(a.hex() for a in each.arguments)] for each in sample.plans],
        "directory": [[each.hex() for each in command] for command in sample.directory],
    }


def load(data: dict[str, Any]) -> Sample:
    """A sample from what `dump` made of it."""
    return Sample(
        data["sha"].encode(),
        tuple(map(str.encode, data["lane"])),
        [RecordedPlan(tuple(map(bytes.fromhex, row[2:])), row[0], bytes.fromhex(row[1])) for row in data["plans"]],
        data["calls"],
        [tuple(map(bytes.fromhex, row)) for row in data["directory"]],
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.floor", description="The commit script alone.")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--sample", required=True)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--plans", type=int, required=True)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    sample = load(json.loads(Path(options.sample).read_text(encoding="utf-8")))
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(options.socket)
        floor = Floor(link, sample, versions(link, options.accounts, options.partitions))
        floor.run(options.plans, options.depth, min(1.0, options.seconds / 4))
        client, redis = process_time(), usage(options.pid).cpu_s
        written, took = floor.run(options.plans, options.depth, options.seconds)
        result = {
            "rate": written / took,
            "client_busy": (process_time() - client) / took,
            "redis_busy": (usage(options.pid).cpu_s - redis) / took,
        }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
