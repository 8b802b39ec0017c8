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
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from time import perf_counter, process_time
from typing import Any, Final

from balance.commits import LANE_KEYS, LISTS, OWN_KEYS, PLAN_ARGUMENTS
from balance.connecting import widen
from balance.keys import Keys
from loadtests.machine import usage
from loadtests.templates import line

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

    value: bytes
    """The account, its version in front."""
    journal: bytes
    items: tuple[tuple[str, tuple[bytes, ...]], ...] = ()
    """What it has in the script's lists: name of the list, arguments without the plan's index."""

    @property
    def ended_key(self) -> bool:
        """The plan names a key of an ended session."""
        return any(name in ("first", "ended") for name, _ in self.items)


@dataclass(slots=True)
class Sample:
    """What was recorded."""

    sha: bytes
    lane: tuple[bytes, ...]
    """Keys of the lane: journal, expiry index, outbox."""
    plans: list[RecordedPlan]
    calls: int
    directory: list[tuple[bytes, ...]]
    """Commands beside the script: single SET and DEL, in order."""


def record(unix_path: Path, seconds: float, keys: Keys) -> Sample:
    """Watch the commands of a Redis under load for a while; what the commit script is called with, whatever other
    scripts the server calls meanwhile. Raises OSError, and ValueError for a commit that cannot be read."""
    lanes = frozenset((keys.journal(lane), keys.watch(lane), keys.outbox(lane)) for lane in keys.lanes())
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
            _read_row(sample, [unescape(text) for text in _ARGUMENT.findall(row)], lanes)
    return sample


def unescape(text: bytes) -> bytes:
    """An argument as MONITOR prints it, back to its octets."""

    def octets(match: re.Match[bytes]) -> bytes:
        escape = match.group(1)
        if len(escape) == 3:
            return bytes((int(escape[1:], 16),))
        return _ESCAPES.get(escape, escape)

    return _ESCAPE.sub(octets, text)


def _read_row(sample: Sample, command: list[bytes], lanes: Collection[tuple[bytes, ...]]) -> None:
    name = command[0].upper() if command else b""
    if name in (b"SET", b"DEL"):
        sample.directory.append(tuple(command))
    lane = tuple(command[3 : 3 + LANE_KEYS])
    if name != b"EVALSHA" or lane not in lanes:  # the server calls other scripts too: once a second it tells its counts
        return
    keys = int(command[2])
    sample.sha, sample.lane = command[1], lane
    arguments = command[3 + keys :]
    heads = arguments[: 1 + len(LISTS)]
    counts = [int(each) if each.isdigit() and len(each) < 5 else -1 for each in heads]
    plans, lengths = counts[0] if counts else 0, counts[1:]
    expected = 1 + len(LISTS) + PLAN_ARGUMENTS * plans
    expected += sum(length * size for (_, size), length in zip(LISTS, lengths, strict=False))
    if len(arguments) != expected or min(counts) < 0 or not 0 < plans <= keys - LANE_KEYS:
        raise ValueError("the commit script's arguments are not what loadtests/floor.py takes them for; adapt it")
    of_plan: dict[int, list[tuple[str, tuple[bytes, ...]]]] = {}
    at = len(heads) + PLAN_ARGUMENTS * plans
    for (of, size), length in zip(LISTS, lengths, strict=True):
        for _ in range(length):
            of_plan.setdefault(int(arguments[at]), []).append((of, tuple(arguments[at + 1 : at + size])))
            at += size
    for index in range(plans):
        first = len(heads) + PLAN_ARGUMENTS * index
        version, value, journal = arguments[first : first + PLAN_ARGUMENTS]
        if version and value:  # an existing account that is written: charging does nothing else to speak of
            sample.plans.append(RecordedPlan(value, journal, tuple(of_plan.get(index, ()))))
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

    __slots__ = ("ended", "head", "items", "tail")

    def __init__(self, plan: RecordedPlan) -> None:
        self.head = b"$%d\r\n" % len(plan.value)
        self.tail = plan.value[_VERSION.size :] + b"\r\n" + bulk(plan.journal)
        self.ended = plan.ended_key
        self.items = plan.items


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
        # Whoever replayed on these accounts before used smaller numbers, as every plan makes a version.
        self._sessions = sum(account.version for account in accounts)
        self._open: deque[bytes] = deque()
        """Keys of the session directory that were entered."""
        self.refused = 0

    def call(self, plans: int) -> tuple[bytes, int]:
        """The next script call with the directory commands that go with it; how many replies it will have."""
        accounts: list[bytes] = []
        arguments: list[bytes] = []
        keys: dict[str, list[bytes]] = {name: [] for name, _ in LISTS}
        lists: dict[str, list[bytes]] = {name: [] for name, _ in LISTS}
        for index in range(plans):
            mould = self._moulds[0]
            self._moulds.rotate(-1)
            account = self._accounts[0]
            self._accounts.rotate(-1)
            accounts.append(account.key)
            if mould.ended:
                self._sessions += 1
            for name, values in mould.items:
                own = values
                if name in OWN_KEYS:
                    keys[name].append(bulk(self._key(name, account)))
                if name in ("wakes", "opened"):
                    own = (*values[:-1], line(account.number).msisdn)
                lists[name] += (bulk(b"%d" % index), *map(bulk, own))
            version = account.version
            account.version = version + 1
            arguments += (
                b"$8\r\n",
                _VERSION.pack(version),
                b"\r\n",
                mould.head,
                _VERSION.pack(version + 1),
                mould.tail,
            )
        heads = [bulk(b"%d" % plans), *(bulk(b"%d" % (len(lists[name]) // size)) for name, size in LISTS)]
        own_keys = [key for name, _ in LISTS if name in OWN_KEYS for key in keys[name]]
        sample = self._sample
        tag = sample.lane[0][: sample.lane[0].index(b"}") + 1]
        own_keys += [bulk(b"%b:floor:%b" % (tag, name.encode())) for name in ("spent", "transitions") if lists[name]]
        items = [octets for name, _ in LISTS for octets in lists[name]]
        all_keys = LANE_KEYS + plans + len(own_keys)
        parts = [
            b"*%d\r\n$7\r\nEVALSHA\r\n" % (3 + all_keys + len(heads) + PLAN_ARGUMENTS * plans + len(items)),
            bulk(sample.sha),
            bulk(b"%d" % all_keys),
            *map(bulk, sample.lane),
            *accounts,
            *own_keys,
            *heads,
            *arguments,
            *items,
        ]
        replies = 1
        self._directory_due += plans * self._directory_per_plan
        while self._directory_due >= 1 and self._directory:
            self._directory_due -= 1
            parts.append(self._directory[0])
            self._directory.rotate(-1)
            replies += 1
        return b"".join(parts), replies

    def _key(self, name: str, account: _Account) -> bytes:
        """The key of an item: as long as a recorded one, and never met before, but for sessions that are closed."""
        if name == "closed" and self._open:
            return self._open.popleft()
        session = b"gw01.floor.example.net;0000000000;%010d" % self._sessions
        if name in ("opened", "closed"):
            key = Keys.session(session)
            if name == "opened":
                self._open.append(key)
            return key
        return b"%b:e:%b" % (account.tag, session)

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
        "plans": [
            [
                each.value.hex(),
                each.journal.hex(),
                *([name, *(value.hex() for value in values)] for name, values in each.items),
            ]
            for each in sample.plans
        ],
        "directory": [[each.hex() for each in command] for command in sample.directory],
    }


def load(data: dict[str, Any]) -> Sample:
    """A sample from what `dump` made of it."""
    return Sample(
        data["sha"].encode(),
        tuple(map(str.encode, data["lane"])),
        [
            RecordedPlan(
                bytes.fromhex(row[0]),
                bytes.fromhex(row[1]),
                tuple((item[0], tuple(map(bytes.fromhex, item[1:]))) for item in row[2:]),
            )
            for row in data["plans"]
        ],
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
    parser.add_argument("--plans", type=int, nargs="+", required=True)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    sample = load(json.loads(Path(options.sample).read_text(encoding="utf-8")))
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(options.socket)
        widen(link)
        floor = Floor(link, sample, versions(link, options.accounts, options.partitions))
        results = []
        for plans in options.plans:
            floor.run(plans, options.depth, min(1.0, options.seconds / 4))
            client, redis = process_time(), usage(options.pid).cpu_s
            written, took = floor.run(plans, options.depth, options.seconds)
            results.append(
                {
                    "rate": written / took,
                    "client_busy": (process_time() - client) / took,
                    "redis_busy": (usage(options.pid).cpu_s - redis) / took,
                }
            )
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
