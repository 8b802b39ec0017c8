"""Two servers on one store: a session begun at one goes on at the other, whatever each of them still remembers.

RFC 8506 section 5.7: "implementations supporting credit-control session failover MUST also ensure proper detection of
duplicate or out-of-sequence messages". Each server has its own identity, directory of records and memory; what they
share is Redis. Rows 16, 17, 20, 23 and 40.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from balance.model import IdentityType
from balance.subscribers import swap_identity
from tests.failover import (
    CENT,
    EVENT,
    INITIAL,
    REALM,
    TERMINATION,
    UPDATE,
    Session,
    Way,
    add_account,
    again,
    cents,
    core,
    eventually,
    records,
)
from tests.live_server import LiveServer

REPOSITORY = Path(__file__).parents[2]
VALIDITY_MS = 1800 * 1000
"""Of Rating-Group 10 in the sample catalogue; supervision takes twice that."""

_numbers = itertools.count(1)


def on_the_store_of(server: LiveServer) -> dict[str, str]:
    return {
        "diameter.origin_host": "occ2.ocs.example.net",
        "store.mode": "external",
        "store.url": server.server.redis_address.url,
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("first")) as running:
        yield running
        report = running.assert_books_balance()
        assert (report.open_sessions, report.open_reservations) == (0, 0)


@pytest.fixture(scope="module")
def second(first: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("second"), on_the_store_of(first)) as running:
        yield running


class Lab:
    """One account, and one client with a connection to each server."""

    def __init__(self, first: LiveServer, second: LiveServer) -> None:
        self.first, self.second = first, second
        self.number = next(_numbers)
        self.subscriber = add_account(first, self.number)
        self.client = f"pgw{self.number}.{REALM}"
        self.a, self.b = Way(first.port, self.client), Way(second.port, self.client)
        self.ways = [self.a, self.b]

    def session(self, state_id: int | None = None, client: str = "") -> Session:
        client = client or self.client
        return Session(client, f"{client};1;{next(_numbers)}", self.subscriber, state_id)

    def agent(self, server: LiveServer) -> Way:
        self.ways.append(Way(server.port, f"relay{len(self.ways)}.s{self.number}.example.net", relay=True))
        return self.ways[-1]

    def cents(self) -> tuple[int, int]:
        return cents(self.first, self.number)

    def causes(self, session: Session) -> list[object]:
        """How it ended, once for each charging data record that either server has delivered."""
        found = records(self.first)
        return [each["cause"] for each in found if each["session_id"] == session.session_id]

    def pause_writes(self, milliseconds: int) -> None:
        """Redis takes no writes for so long, or until ``end_pause``."""
        self.first.run(self.first.server.store.call("CLIENT", "PAUSE", milliseconds, "WRITE"))

    def end_pause(self) -> None:
        self.first.run(self.first.server.store.call("CLIENT", "UNPAUSE"))


@pytest.fixture
def lab(first: LiveServer, second: LiveServer) -> Iterator[Lab]:
    lab = Lab(first, second)
    yield lab
    for way in lab.ways:
        way.cut()


# -- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.shows("row 40")
@pytest.mark.parametrize("names_subscriber", [True, False])
def test_row_40_a_session_goes_on_at_the_other_server_and_back(lab: Lab, names_subscriber: bool) -> None:
    """With and without a Subscription-Id in its updates; the server that ends it delivers its record, once."""
    session = lab.session()
    session.names_subscriber = names_subscriber
    assert lab.a.charge(session.initial()).result_code == 2001
    for reported, way in enumerate((lab.b, lab.b, lab.a, lab.b, lab.a), start=1):
        answer = way.charge(session.update())
        assert [service.result_code for service in answer.services] == [2001]
        assert lab.cents() == (100 - reported, 10)
    assert lab.b.charge(session.termination()).result_code == 2001
    assert lab.cents() == (94, 0)
    eventually(lambda: lab.causes(session) == ["normal"])


@pytest.mark.shows("row 40")
def test_row_40_a_session_the_other_server_opened_after_this_one_last_looked_at_its_account(lab: Lab) -> None:
    """Each server remembers the account from before the other's session began, and must not believe that."""
    here, there = lab.session(), lab.session()
    assert lab.a.charge(here.initial()).result_code == 2001
    assert lab.b.charge(there.initial()).result_code == 2001
    assert lab.a.charge(there.update()).result_code == 2001
    assert lab.b.charge(here.termination()).result_code == 2001
    assert lab.a.charge(there.termination()).result_code == 2001
    assert lab.cents() == (97, 0)


@pytest.mark.shows("row 22")
def test_row_22_what_the_other_server_ended_is_unknown_and_may_begin_again_where_it_may(lab: Lab) -> None:
    """A server that remembers the session as open finds out that it is not: 5002 for U and T, 5012 for a new I."""
    session = lab.session()
    lab.a.charge(session.initial())
    lab.b.charge(session.termination())
    assert lab.a.charge(session.update()).result_code == 5002
    assert lab.a.charge(session.termination()).result_code == 5002
    assert lab.a.charge(session.initial()).result_code == 5012
    assert lab.cents() == (99, 0)


@pytest.mark.shows("row 16", "row 40")
@pytest.mark.parametrize("kind", [INITIAL, UPDATE, TERMINATION, EVENT])
def test_row_16_a_repeat_at_the_other_server_at_the_same_time_is_debited_once(lab: Lab, kind: int) -> None:
    """Both decide before either has written; the slower one finds out, and answers what the faster one did."""
    session = lab.session()
    if kind in (UPDATE, TERMINATION):
        lab.a.charge(session.initial())
    request = session.request(kind, None if kind in (INITIAL, EVENT) else 3)
    lab.pause_writes(150)
    sent = [(lab.a, lab.a.send(request)), (lab.b, lab.b.send(again(request)))]
    assert [way.receive(octets).result_code for way, octets in sent] == [2001, 2001]
    assert core(lab.a.connection.received[-1]) == core(lab.b.connection.received[-1])
    assert lab.cents() == {INITIAL: (100, 10), UPDATE: (97, 10), TERMINATION: (97, 0), EVENT: (90, 0)}[kind]
    first_answer = core(lab.a.connection.received[-1])
    assert lab.a.repeat(request) == lab.b.repeat(request) == first_answer
    if kind in (INITIAL, UPDATE):
        lab.b.charge(session.termination(0))
    expected = "event" if kind == EVENT else "normal"
    eventually(lambda: lab.causes(session) == [expected])


@pytest.mark.shows("row 16")
def test_row_16_a_refusal_is_repeated_by_the_other_server_although_there_is_money_now(lab: Lab) -> None:
    session = lab.session()
    session.subscriber = add_account(lab.first, 1000 + lab.number, 0)
    request = session.initial()
    assert lab.a.charge(request).result_code == 4012
    answer = core(lab.a.connection.received[-1])
    lab.second.top_up(f"acc-{1000 + lab.number}", CENT)
    assert lab.b.repeat(request) == answer
    session.session_id += ";new"
    session.number = -1
    assert lab.a.charge(session.initial()).result_code == 2001
    assert lab.b.charge(session.termination()).result_code == 2001
    assert cents(lab.first, 1000 + lab.number) == (0, 0)


@pytest.mark.shows("row 40")
def test_row_40_a_client_that_never_got_its_first_answer_goes_on_at_the_other_server(lab: Lab) -> None:
    """As if the first server had ended before it told the others that it holds the session."""
    session = lab.session()
    session.names_subscriber = False
    request = session.initial()
    lab.a.charge(request)
    store = lab.first.server.store
    lab.first.run(store.call("DEL", store.keys.session(session.session_id.encode())))
    assert lab.b.charge(again(request)).result_code == 2001
    assert lab.b.charge(session.update()).result_code == 2001
    assert lab.a.charge(session.termination()).result_code == 2001
    assert lab.cents() == (98, 0)


@pytest.mark.shows("row 40")
def test_row_40_a_session_goes_on_at_the_other_server_although_its_number_has_passed_to_somebody_else(lab: Lab) -> None:
    """Its updates name the number as before; they are about the session, whoever has the number now."""
    session = lab.session()
    lab.a.charge(session.initial())
    old, new = ((IdentityType.E164, number.encode()) for number in (lab.subscriber, "999" + lab.subscriber))
    swap = swap_identity(
        lab.first.server.store, f"acc-{lab.number}".encode(), old, new, now_ms=lab.first.now_ms(), reason="new number"
    )
    lab.first.run(swap)
    somebody = f"acc-{1000 + lab.number}"
    lab.first.add_account(somebody, [(IdentityType.E164, lab.subscriber)], balance_micro=CENT)
    update, termination = session.update(), session.termination()
    assert lab.b.charge(update).result_code == 2001
    assert lab.b.charge(termination).result_code == 2001
    assert lab.b.charge(again(termination)).result_code == 2001
    assert lab.cents() == (98, 0)
    assert cents(lab.first, 1000 + lab.number) == (1, 0)


# -- supervision and restarts ----------------------------------------------------------------------------------------


@pytest.mark.shows("row 23")
def test_row_23_either_server_supervises_the_sessions_of_both_once(lab: Lab) -> None:
    """Also when both look at the same time, and one of them remembers nothing of the session."""
    here, there = lab.session(), lab.session()
    lab.a.charge(here.initial())
    lab.b.charge(there.initial())
    lab.a.charge(here.update())
    assert lab.cents() == (99, 20)
    before = [each.server.charging.statistics.expired_sessions for each in (lab.first, lab.second)]
    for server in (lab.first, lab.second):
        server.passed_ms += 2 * VALIDITY_MS
    eventually(lambda: lab.cents() == (99, 0))
    for server in (lab.first, lab.second):
        server.passed_ms -= 2 * VALIDITY_MS
    after = [each.server.charging.statistics.expired_sessions for each in (lab.first, lab.second)]
    assert sum(after) - sum(before) == 2
    for session in (here, there):
        eventually(lambda session=session: lab.causes(session) == ["incomplete"])  # type: ignore[misc]
    late = here.termination(2)
    assert lab.b.charge(late).result_code == 2001
    assert lab.a.charge(again(late)).result_code == 2001
    assert lab.cents() == (97, 0)


@pytest.mark.shows("row 17")
def test_row_17_a_restart_that_one_server_hears_of_releases_what_the_other_opened(lab: Lab) -> None:
    """Although the one that hears of it remembers these accounts from before; other clients keep theirs."""
    agent = lab.agent(lab.second)
    kept = lab.session(5, f"other{lab.number}.{REALM}")
    lost, since = lab.session(5), lab.session(6)
    assert agent.charge(kept.initial()).result_code == 2001
    assert lab.a.charge(lost.initial()).result_code == 2001
    assert lab.cents() == (100, 20)
    since.subscriber = add_account(lab.first, 1000 + lab.number)
    assert agent.charge(since.initial()).result_code == 2001
    eventually(lambda: lab.cents() == (100, 10))
    eventually(lambda: lab.causes(lost) == ["client-restarted"])
    assert lab.a.charge(kept.termination()).result_code == 2001
    assert lab.a.charge(since.termination()).result_code == 2001
    assert lab.cents() == (99, 0)


# -- many at once ----------------------------------------------------------------------------------------------------


def test_many_sessions_that_change_servers_at_every_request_are_charged_once(lab: Lab) -> None:
    """Eight accounts, and sessions of which each request goes to a server drawn for it, a third of them to both."""
    random = Random(4711)
    accounts = [2000 + 10 * lab.number + n for n in range(8)]
    subscribers = [add_account(lab.first, number, 100 * CENT) for number in accounts]
    sessions = [lab.session() for _ in range(48)]
    for index, session in enumerate(sessions):
        session.subscriber = subscribers[index % len(subscribers)]
    for step in range(5):
        sent = []
        for session in sessions:
            kind = INITIAL if step == 0 else TERMINATION if step == 4 else UPDATE
            request = session.request(kind, None if kind == INITIAL else random.choice((0, 1, 2)))
            one, other = random.sample((lab.a, lab.b), 2)
            sent.append((one, one.send(request)))
            if random.random() < 0.3:
                sent.append((other, other.send(again(request))))
        answers = {way: dict(_numbered(way, [each for to, each in sent if to is way])) for way in (lab.a, lab.b)}
        by_request: dict[bytes, set[bytes]] = {}
        for way, request in sent:
            by_request.setdefault(request[16:20], set()).add(core(answers[way][request[12:20]]))
        assert all(len(found) == 1 for found in by_request.values()), "a repeat was answered differently"
    used = Counter(dict.fromkeys(accounts, 0))
    for index, session in enumerate(sessions):
        used[accounts[index % len(accounts)]] += session.used_mib
    assert {number: cents(lab.first, number) for number in accounts} == {
        number: (100 - used[number], 0) for number in accounts
    }
    conflicts = sum(each.server.store.statistics.conflicts for each in (lab.first, lab.second))
    assert conflicts > 0, "the two servers never met at an account"
    for session in sessions:
        eventually(lambda session=session: len(lab.causes(session)) == 1)  # type: ignore[misc]


def _numbered(way: Way, requests: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The answers to all of these, by identifiers; each comes exactly once."""
    expected = {request[12:20] for request in requests}
    for _ in requests:
        answer = way.connection.receive()
        expected.remove(answer[12:20])
        yield answer[12:20], answer


# -- a server that is killed -----------------------------------------------------------------------------------------


class Process:
    """``occ serve`` as a process of its own, on the store of another server."""

    def __init__(self, directory: Path, store: LiveServer) -> None:
        settings = {
            "diameter-origin-host": "occ3.ocs.example.net",
            "diameter-port": "0",
            "metrics-port": "0",
            "store-mode": "external",
            "store-url": store.server.redis_address.url,
            "store-data-dir": str(directory),
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        store.shares_store_with(directory / "cdr")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "occ", "serve", "--no-population", "--json", *options],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port: int = json.loads(self.process.stdout.readline())["diameter"]["port"]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def await_outbox(self) -> None:
        """Wait until the process that delivers its records has found it gone, and ended."""
        assert self.process.stdout is not None
        self.process.stdout.read()  # the outbox has inherited it
        self.process.stdout.close()


@pytest.mark.slow
@pytest.mark.shows("row 16", "row 40")
@pytest.mark.parametrize("written", [False, True], ids=["before it wrote", "after it wrote"])
def test_row_40_a_server_is_killed_in_the_middle_of_a_request(lab: Lab, tmp_path: Path, written: bool) -> None:
    """The client repeats to another server with the T flag: debited once, whether or not it had been written down."""
    killed = Process(tmp_path, lab.first)
    other = 1000 + lab.number
    done, going_on, begun = lab.session(), lab.session(), lab.session()
    done.subscriber = begun.subscriber = add_account(lab.first, other)
    begun.names_subscriber = False
    with Way(killed.port, lab.client) as way:
        way.charge(done.initial())
        way.charge(done.termination())
        way.charge(going_on.initial())
        update, initial = going_on.update(), begun.initial()
        lab.pause_writes(10_000)
        way.connection.send(update + initial)  # they share one commit
        eventually(lambda: _waits_for_redis(lab))
        if written:
            killed.signal(signal.SIGSTOP)
            lab.end_pause()
            eventually(lambda: lab.cents() == (99, 10) and cents(lab.first, other) == (99, 10))
        killed.kill()
        lab.end_pause()
    killed.await_outbox()
    assert lab.cents() == ((99, 10) if written else (100, 10))
    assert lab.b.charge(again(update)).result_code == 2001
    assert lab.b.charge(again(initial)).result_code == 2001
    assert lab.cents() == (99, 10)
    assert cents(lab.first, other) == (99, 10)
    assert lab.b.charge(going_on.termination()).result_code == 2001
    assert lab.b.charge(begun.update()).result_code == 2001
    assert lab.b.charge(begun.termination()).result_code == 2001
    assert lab.cents() == (98, 0)
    assert cents(lab.first, other) == (97, 0)
    eventually(lambda: lab.causes(going_on) == ["normal"] and lab.causes(begun) == ["normal"])
    # Whichever server was to deliver it, each record is there once.
    everywhere = Counter(str(each["session_id"]) for each in records(lab.first))
    assert [everywhere[session.session_id] for session in (done, going_on, begun)] == [1, 1, 1]


def _waits_for_redis(lab: Lab) -> bool:
    """Whether Redis holds back a commit of the server that is to be killed."""
    listed: bytes = lab.first.run(lab.first.server.store.call("CLIENT", "LIST"))
    fields = [dict(part.partition("=")[::2] for part in line.split()) for line in listed.decode().splitlines()]
    return any(each["cmd"] == "evalsha" and "b" in each["flags"] for each in fields)
