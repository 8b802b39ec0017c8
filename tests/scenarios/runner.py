"""Plays scenarios (README.md beside this file says how they are written) against a live server.

A row is sent and its answer awaited before the next row begins. Every answer is held against its row
(``expectations``) and against what any answer must keep to (``checks``).
"""

import json
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from balance.accounts import Account
from balance.directory import NewBucket
from balance.model import IdentityType, Unit
from occ.server import OnlineChargingServer
from occ.server_requests import credit_has_come
from protocols.diameter import codec
from protocols.diameter.codec import Message
from protocols.diameter.codes import Application
from tests.failover import forwarded
from tests.live_server import LiveServer, SkippingLoop
from tests.scenarios.checks import breaches
from tests.scenarios.clients import PROFILES, Profile
from tests.scenarios.expectations import complaints, describe
from tests.scenarios.notation import (
    ACCOUNT,
    NotationError,
    clauses,
    duration_s,
    money_micro,
    show_money,
    units,
)
from tests.scenarios.requests import (
    Request,
    base_message,
    credit_control_request,
    is_base_message,
    is_credit_control,
)
from tests.scenarios.tables import HERE, Scenario, ScenarioError, Step
from tests.wire import ClosedError, Connection, next_number

PATIENCE_S = 10.0
A_MOMENT = "a moment passes"
"""For what the server does in the background: balance and reserved are waited for."""

_PROXY_INFO = 284  # of an answer: held against its own request, see ``checks``

_CLIENT = re.compile(r"a client(?: (\S+))? like (.+)")
_CLOCK = re.compile(r"switching at (\d\d:\d\d)")
_UNIT_OF = {
    "CC-Total-Octets": Unit.OCTETS,
    "CC-Time": Unit.SECONDS,
    "CC-Service-Specific-Units": Unit.EVENTS,
}

DEFAULT_SERVER: dict[str, str] = {
    "catalogue": str(HERE / "catalogue.yaml"),
    "policies": str(HERE / "policies.yaml"),
    "profiles": str(HERE.parents[1] / "config" / "profiles.yaml"),
    # The smallest watchdog interval allowed, which no scenario waits for: time is put forward.
    "diameter.watchdog_seconds": "6",
    "charging.low_balance": "0.50",
}


class Servers:
    """The server that scenarios share, and those that one scenario has for itself."""

    def __init__(self, shared: LiveServer) -> None:
        self.shared = shared
        self.played = 0

    def number(self) -> int:
        self.played += 1
        return self.played


@dataclass
class Sent:
    """A request as it was sent first, and what answered it."""

    octets: bytes
    answer: Message | None = None


class Run:
    """One scenario on its way."""

    def __init__(self, scenario: Scenario, servers: Servers) -> None:
        self.scenario = scenario
        self.number = servers.number()
        self.server = servers.shared
        self._own: LiveServer | None = None
        self._listeners: dict[str, socket.socket] = {}
        self.account = ""
        self.unit: Unit | None = None
        self.profiles: dict[str, Profile] = {}
        self.identities: dict[str, str] = {}
        self.connections: dict[str, Connection] = {}
        self.opened: list[Connection] = []
        """All connections there were, with what passed over them."""
        self.sent: dict[tuple[str, int, int], Sent] = {}
        self.under_way: Future[None] | None = None
        """What the server asks a client by itself."""
        self.asked: dict[str, bytes] = {}
        """The newest request the server sent to a client."""

    def play(self) -> None:
        """Raises ScenarioError where the server does something else than what is written."""
        try:
            for line, text in self.scenario.given:
                self._at(line, partial(self._given, text))
            for step in self.scenario.steps:
                self._at(step.line, partial(self._play, step))
            if not any(step.sends == "the server stops" for step in self.scenario.steps):
                self._verify()
        finally:
            for connection in self.connections.values():
                connection.close()
            for listener in self._listeners.values():
                listener.close()
            if self._own is not None:
                self._own.stop()

    def _verify(self) -> None:
        report = self.server.verify()
        if not report.consistent:
            raise ScenarioError(f"{self.scenario.path.name}: the ledger is wrong: {' '.join(report.discrepancies)}")

    def _at(self, line: int, action: Callable[[], None]) -> None:
        try:
            action()
        except NotationError as error:
            raise self.scenario.error(line, str(error)) from error
        except ClosedError as error:
            raise self.scenario.error(line, f"the server closed the connection ({error})") from error
        except TimeoutError as error:
            raise self.scenario.error(line, f"nothing came from the server ({error})") from error

    # -- what is given -------------------------------------------------------------------------------------------

    def _given(self, text: str) -> None:
        account = ACCOUNT.fullmatch(text)
        client = _CLIENT.fullmatch(text)
        if account:
            self._given_account(account)
        elif client:
            if client[2] not in PROFILES:
                raise NotationError(f"{client[2]!r} is no client; known: {', '.join(PROFILES)}")
            self.profiles[client[1] or "client"] = PROFILES[client[2]]
        elif text.startswith("a server of its own"):
            self._given_server(text.removeprefix("a server of its own").strip())
        else:
            raise NotationError(f"{text!r} is not understood")

    def _given_account(self, account: re.Match[str]) -> None:
        self.account = f"scenario-{self.number}"
        self.identities = {
            "E164": f"49171{self.number:07d}",
            "IMSI": f"26202{self.number:010d}",
            "SIP URI": f"sip:user{self.number}@ims.example.net",
            "NAI": f"user{self.number}@example.net",
        }
        limit = overdraft = None
        buckets = []
        for part in re.split(r" and ", account[3])[1:]:
            if part.startswith("a limit of "):
                limit = money_micro(part.removeprefix("a limit of "))
            elif part.startswith("an overdraft of "):
                overdraft = money_micro(part.removeprefix("an overdraft of "))
            else:
                buckets.append(self._bucket(part))
        if (account[1] == "postpaid") != (limit is not None):
            raise NotationError("a postpaid account has a limit, a prepaid account none")
        self.server.add_account(
            self.account,
            [(IdentityType[kind.replace(" ", "_")], value) for kind, value in self.identities.items()],
            balance_micro=money_micro(account[2]),
            credit_limit_micro=limit,
            overdraft_micro=overdraft or 0,
            buckets=buckets,
            plan=account[4] or "standard",
        )

    def _bucket(self, text: str) -> NewBucket:
        """ "3 MiB", "60 s of priority 10", "5 events for 1 h", "money 0.05 of priority 1"."""
        match = re.fullmatch(r"(.+?)(?: of priority (\d+))?(?: for (.+))?", text)
        assert match is not None
        ((name, amount),) = units(match[1])
        unit = Unit.MONEY if name == "CC-Money" else _UNIT_OF[name]
        self.unit = unit
        expires_ms = self.server.now_ms() + duration_s(match[3]) * 1000 if match[3] else 0
        return NewBucket(unit, amount, int(match[2] or 100), expires_ms)

    def _given_server(self, text: str) -> None:
        """ "", "that lets in pgw only", "that dials a": the names are clients of the scenario."""
        directory = Path(tempfile.mkdtemp(prefix="server-", dir=self.server.directory))
        peers = ""
        match = re.fullmatch(r"that (lets in|dials) (\S+)(?: only)?", text)
        if match:
            peers = f"  peers:\n    mode: {'strict' if match[1] == 'lets in' else 'lab'}\n    allowed:\n"
            peers += f"      - identity: {self._host(match[2])}\n"
            if match[1] == "lets in":
                peers += "        networks: [127.0.0.1/32]\n"
            else:
                listener = self._listeners[match[2]] = socket.create_server(("127.0.0.1", 0))
                listener.settimeout(PATIENCE_S)
                peers += f"        connect_host: 127.0.0.1\n        connect_port: {listener.getsockname()[1]}\n"
        profile = re.fullmatch(r"for (\S+) clients", text)
        if text and not match and not profile:
            raise NotationError(f"{text!r} is not understood")
        config = directory / "occ.yaml"
        chosen = f"  default_profile: {profile[1]}\n" if profile else ""
        config.write_text(f"diameter:\n  port: 0\n{chosen}{peers}", encoding="utf-8")
        self._own = self.server = LiveServer(directory, DEFAULT_SERVER, config, SkippingLoop).start()

    def _host(self, client: str) -> str:
        """Origin-Host of a client: its name, then what keeps it apart from those of other scenarios.

        What follows a "/" tells its connections apart.
        """
        return f"{_name(client)}.s{self.number}.example.net"

    def _profile(self, client: str) -> Profile:
        return self.profiles.get(_name(client), PROFILES["a PGW"])

    # -- rows ----------------------------------------------------------------------------------------------------

    def _play(self, step: Step) -> None:
        client = step.client or "client"
        session = step.session or "s1"
        sends = self._filled(step.sends, client)
        verb, _, rest = sends.partition(" ")
        if is_credit_control(sends) if sends else False:
            self._charge(step, client, session, sends)
        elif verb == "repeat":
            self._repeat(step, client, session, rest)
        elif sends and is_base_message(sends):
            self._base(step, client, sends)
        elif sends == "read the CDRs":
            self._charging_records(step, self._session_id(client, session))
        else:
            self._act(step, client, sends)
        self._check_account(step)

    def _filled(self, text: str, client: str) -> str:
        text = text.replace("{host}", self._host(client)).replace("{session}", self._session_id(client, "s1"))
        text = re.sub(r"\{([a-z0-9]+)\}(?=\")", lambda found: self._session_id(client, found[1]), text)
        text = _CLOCK.sub(lambda found: f"switching at {self._next(found[1]) // 1000}", text)
        for name, value in self.identities.items():
            text = text.replace("{" + name + "}", value)
        return text

    def _next(self, clock: str) -> int:
        """When the clock next shows "20:00", UTC: Unix milliseconds."""
        hours, minutes = map(int, clock.split(":"))
        now_ms = self.server.now_ms()
        return now_ms + (hours * 3_600_000 + minutes * 60_000 - now_ms) % 86_400_000

    def _act(self, step: Step, client: str, sends: str) -> None:
        """Rows that do something else than send a message."""
        verb, _, rest = sends.partition(" ")
        if sends == "opens TCP":
            self._connected(client, Connection.to(self.server.port))
        elif sends == "accepts the connection":
            accepted, _ = self._listeners[_name(client)].accept()
            self._connected(client, Connection(accepted))
        elif verb == "octets":
            self._connection(client).send(bytes.fromhex(rest))
        elif sends == "closes":
            self.connections.pop(client).close()
            self._await_state(client, None)
        elif verb == "top" and rest.startswith("up "):
            self._top_up(rest[3:])
        elif sends == A_MOMENT:
            pass  # the check of the account waits
        elif verb in ("reauthorise", "abort"):
            self._server_asks(verb, rest, self._session_id(client, step.session or "s1"), step.answer == "nothing")
        elif self._passes_time(sends):
            pass
        elif sends in ("Redis stops", "Redis starts"):
            self._redis(starts=sends.endswith("starts"))
        elif sends == "the server stops":
            self.server.ask_to_stop()
        elif sends:
            raise NotationError(f"{sends!r} is not understood")
        if step.answer:
            self._expect(step, client)

    def _passes_time(self, sends: str) -> bool:
        """``it is 19:50``, ``10 min passes``, ``9 s of silence``."""
        if re.fullmatch(r"it is \d\d:\d\d", sends):
            self.server.pass_time(self._next(sends[6:]) - self.server.now_ms())
        elif sends.endswith(" passes"):
            self.server.pass_time(duration_s(sends.removesuffix(" passes")) * 1000)
        elif sends.endswith(" of silence"):
            self.server.fall_silent(duration_s(sends.removesuffix(" of silence")))
        else:
            return False
        return True

    def _top_up(self, written: str) -> None:
        """``0.05``, or ``0.05 by the operator``: as ``occ account top-up`` does it."""
        amount, by, _ = written.partition(" by the operator")
        self.server.top_up(self.account, money_micro(amount.strip()))
        if by:
            self.server.run(credit_has_come(self.server.server.store, self.account.encode()))

    def _server_asks(self, verb: str, rest: str, session_id: str, unasked: bool) -> None:
        """``reauthorise``, ``reauthorise RG 10``, ``abort``: begun here, answered by a row of its own.

        ``unasked``: the client is not asked, so that it is over at once.
        """
        group = re.fullmatch(r"RG (\d+)", rest)
        if rest and not group:
            raise NotationError(f"{rest!r} is not understood")
        asking = self.server.server.reauthorisation
        account, session = self.account.encode(), session_id.encode()

        async def ask() -> None:
            if verb == "abort":
                await asking.abort(account, session)
            else:
                await asking.reauthorise(account, session, rating_group=int(group[1]) if group else None)

        self.under_way = self.server.begin(ask())
        if unasked:
            self.under_way.result(PATIENCE_S)

    def _redis(self, starts: bool) -> None:
        """Stop the server's own Redis, or start it again and wait until the server uses it."""
        if self._own is None:
            raise NotationError("only a server of its own may lose its Redis")
        server = self._own.server
        self._own.run(_redis(server, starts))
        deadline = time.monotonic() + PATIENCE_S
        while server.store.available != starts and time.monotonic() < deadline:
            time.sleep(0.005)

    def _connected(self, client: str, connection: Connection) -> Connection:
        self.connections[client] = connection
        self.opened.append(connection)
        return connection

    def _connection(self, client: str) -> Connection:
        """The connection of the client, or of its agent; opened with CER and CEA if there is none."""
        peer = _peer(client)
        if peer not in self.connections:
            connection = self._connected(peer, Connection.to(self.server.port))
            relays = peer != client
            capabilities = f"CER; Auth-Application-Id={Application.RELAY}" if relays else "CER"
            request = base_message(capabilities, self._profile(peer), self._host(peer)).octets()
            connection.send(request)
            octets = connection.receive()
            wrong = breaches(request, octets, self.server.origin_host) + complaints(codec.decode(octets), "CEA 2001")
            if wrong:
                raise NotationError(f"the capabilities exchange failed: {'; '.join(wrong)}")
        return self.connections[peer]

    def _await_state(self, client: str, state: str | None) -> None:
        """Until the server has its peer in a state of RFC 6733 section 5.6; None: until it has no such peer."""
        host = self._host(client)
        deadline = time.monotonic() + PATIENCE_S
        while self.server.run(_peer_states(self.server)).get(host.lower()) != state:
            if time.monotonic() > deadline:
                raise NotationError(f"the peer does not come into state {state or 'closed'}")
            time.sleep(0.005)

    def _session_id(self, client: str, session: str) -> str:
        return f"{self._host(client)};{self.number};{session}"

    def _charge(self, step: Step, client: str, session: str, sends: str) -> None:
        session_id = self._session_id(client, session)
        host = self._host(client)
        server = self.server.origin_host
        request, kind, number = credit_control_request(
            sends, self._profile(client), host, session_id, server, self.identities, self.server.now_ms() // 1000
        )
        self.sent[session_id, kind, number] = Sent(request.octets())
        self._ask(step, client, request, self.sent[session_id, kind, number])

    def _repeat(self, step: Step, client: str, session: str, rest: str) -> None:
        """``repeat U 1; T bit; new End-to-End-Id``: the same octets again but for what is said."""
        first, *changes = clauses(rest)
        kind, _, number = first.partition(" ")
        original = self.sent.get((self._session_id(client, session), "IUTE".find(kind) + 1, int(number)))
        if original is None:
            raise NotationError(f"{first} was not sent before")
        octets = bytearray(original.octets)
        octets[12:16] = next_number().to_bytes(4, "big")
        for change in changes:
            if change == "T bit":
                octets[4] |= 0x10
            elif change == "new End-to-End-Id":
                octets[16:20] = next_number().to_bytes(4, "big")
            else:
                raise NotationError(f"{change!r} is not understood in a repeat")
        if not step.answer:
            raise NotationError("a repeat needs an answer")
        sent = self._on_its_way(client, bytes(octets))
        self._connection(client).send(sent)
        self._answered(step, client, sent, original)

    def _base(self, step: Step, client: str, sends: str) -> None:
        request = base_message(sends, self._profile(client), self._host(client))
        is_cer = clauses(sends)[0] == "CER"
        connection = self.connections[client] if is_cer and client in self.connections else None
        if connection is None and is_cer:
            self._connected(client, Connection.to(self.server.port))
        if request.flags & 0x80 or sends.startswith("CCA"):
            self._ask(step, client, request, Sent(b""))
            return
        asked = self.asked.pop(client, b"")
        if not asked:
            raise NotationError("the server asked nothing that this could answer")
        if request.command in (258, 274):
            session_id = codec.decode(asked).find(263)
            assert session_id is not None
            request.avps.insert(0, session_id.encode())
        request.hop_by_hop, request.end_to_end = (int.from_bytes(asked[at : at + 4], "big") for at in (12, 16))
        self.connections[client].send(request.octets())
        if self.under_way is not None and request.command in (258, 274):
            self.under_way.result(PATIENCE_S)  # what follows from the answer is done by then
        if step.answer:
            self._expect(step, client)

    def _ask(self, step: Step, client: str, request: Request, sent: Sent) -> None:
        octets = self._on_its_way(client, request.octets())
        connection = self._connection(client)
        if not request.twice:
            connection.send(octets)
            self._answered(step, client, octets, sent)
            return
        again = octets[:4] + bytes((octets[4] | 0x10,)) + octets[5:12] + next_number().to_bytes(4, "big") + octets[16:]
        connection.send(octets + again)
        self._answered(step, client, octets, sent)
        self._answered(step, client, again, Sent(octets, sent.answer))

    def _on_its_way(self, client: str, octets: bytes) -> bytes:
        """A request as it reaches the server: with what the client's agent adds, if it goes by one."""
        peer = _peer(client)
        return octets if peer == client else forwarded(octets, self._host(peer))

    def _answered(self, step: Step, client: str, request: bytes, sent: Sent) -> None:
        """Await what the row expects and hold it against that."""
        expected = self._filled(step.answer, client)
        parts = clauses(expected)
        if parts in (["nothing"], ["closed"]):
            self._expect(step, client)
            return
        if parts == ["nothing yet"]:
            self._await_state(client, "Wait-Returns")
            return
        if not parts:
            raise NotationError("the row does not say what is answered")
        octets = self._receive(client)
        answer = codec.decode(octets)
        wrong = breaches(request, octets, self.server.origin_host)
        if "same answer" in parts:
            parts.remove("same answer")
            wrong += _differences(sent.answer, answer)
        wrong += complaints(answer, "; ".join(parts)) if parts else []
        if wrong:
            raise ScenarioError(
                f"{self.scenario.path.name}, line {step.line}: {'; '.join(wrong)}\n"
                f"  sent:     {step.sends}\n  expected: {step.answer}\n  got:      {describe(answer)}"
            )
        sent.answer = sent.answer or answer
        if "closed" in parts:
            self._expect_closed(client)

    def _receive(self, client: str) -> bytes:
        return self.connections[_peer(client)].receive(PATIENCE_S)

    def _expect(self, step: Step, client: str) -> None:
        """What the server does by itself: "DWR", "DPR; Disconnect-Cause=0", "closed", "nothing"."""
        if step.answer == "closed":
            self._expect_closed(client)
        elif step.answer == "nothing":
            self._expect_nothing(step, client)
        else:
            octets = self._receive(client)
            message = codec.decode(octets)
            if message.is_request:
                self.asked[client] = octets
            wrong = complaints(message, self._filled(step.answer, client))
            if wrong:
                raise self.scenario.error(step.line, f"{'; '.join(wrong)}\n  got: {describe(message)}")
            if "closed" in clauses(step.answer):
                self._expect_closed(client)

    def _expect_closed(self, client: str) -> None:
        try:
            octets = self._receive(client)
        except ClosedError:
            self.connections.pop(_peer(client)).close()
            return
        raise NotationError(f"instead of closing, the server sent {describe(codec.decode(octets))}")

    def _expect_nothing(self, step: Step, client: str) -> None:
        """Messages are answered in order, so a DWR tells whether anything else was said before its DWA."""
        request = base_message("DWR", self._profile(client), self._host(client))
        answer = self.connections[_peer(client)].ask(request.octets())
        wrong = complaints(answer, "DWA 2001")
        if wrong:
            raise self.scenario.error(step.line, f"nothing was expected, but: {describe(answer)}")

    # -- what the ledger holds -----------------------------------------------------------------------------------

    def _check_account(self, step: Step) -> None:
        if not (step.balance or step.reserved or step.allowance):
            return
        wrong = list(self._account_complaints(step, self.server.account(self.account)))
        deadline = time.monotonic() + PATIENCE_S
        while wrong and step.sends == A_MOMENT and time.monotonic() < deadline:
            time.sleep(0.01)
            wrong = list(self._account_complaints(step, self.server.account(self.account)))
        if wrong:
            raise self.scenario.error(step.line, f"after {step.sends!r}: {'; '.join(wrong)}")

    def _account_complaints(self, step: Step, account: Account) -> Iterator[str]:
        money = [bucket for bucket in account.buckets if bucket.unit == Unit.MONEY]
        for name, wanted, found in (
            ("balance", step.balance, sum(bucket.balance for bucket in money)),
            ("reserved", step.reserved, sum(bucket.reserved for bucket in money)),
        ):
            if wanted and money_micro(wanted) != found:
                yield f"{name} is {show_money(found)} instead of {wanted}"
        if step.allowance:
            balance, _, reserved = step.allowance.partition(" reserved ")
            for name, amount, attribute in (
                ("allowance", balance, "balance"),
                ("of it reserved", reserved, "reserved"),
            ):
                if not amount:
                    continue
                ((unit_name, count),) = units(amount)
                unit = _UNIT_OF[unit_name]
                found = sum(getattr(bucket, attribute) for bucket in account.buckets if bucket.unit == unit)
                if found != count:
                    yield f"{name} is {found} instead of {count} {unit.name.lower()}"

    def _charging_records(self, step: Step, session_id: str) -> None:
        """CDRs of the session, "internet: used 1048576, debited 0.01, normal" each, once all are on disk."""
        wanted = clauses(step.answer)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            lines = [json.loads(line) for line in self.server.cdr_lines()]
            found = [_record_text(line) for line in lines if line["session_id"] == session_id]
            if len(found) >= len(wanted) or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if found != wanted:
            raise self.scenario.error(step.line, f"the charging data records are {'; '.join(found) or 'none'}")


async def _redis(server: OnlineChargingServer, starts: bool) -> None:
    if starts:
        await server.redis.start()
    else:
        await server.redis.stop()


async def _peer_states(server: LiveServer) -> dict[str, str]:
    return {peer.origin_host.lower(): peer.state for peer in server.server.node.peers()}


def _name(client: str) -> str:
    return client.partition(" by ")[0].partition("/")[0]


def _peer(client: str) -> str:
    """Whose connection the requests of ``pgw by relay`` come over."""
    return client.partition(" by ")[2] or client


def _record_text(fields: dict[str, object]) -> str:
    debited = fields["debited_micro"]
    assert isinstance(debited, int)
    return f"{fields['service']}: used {fields['used']}, debited {show_money(debited)}, {fields['cause']}"


def _differences(first: Message | None, again: Message) -> list[str]:
    """How the answer to a repeat differs from the first one, but for the identifiers and Proxy-Info."""
    if first is None:
        return ["the first request was not answered"]
    was, now = ([one.encode() for one in message.avps if one.code != _PROXY_INFO] for message in (first, again))
    if (first.flags, was) != (again.flags, now):
        return [f"the answer differs from the first one, which was {describe(first)}"]
    return []
