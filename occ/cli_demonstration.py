"""What ``occ demo policies`` plays: a prepaid subscriber from full to zero, below zero, to the limit and back.

A gateway and an IMS core talk Diameter with the server as any client does; what the server answers, and what it asks by
itself, is printed beside the balance and what the subscriber is told. A Re-Auth-Request that overtakes, on another
connection, the answer to the request that brought it about is printed behind that answer.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import time
from typing import Final

from rich.console import Console

from balance import notices
from balance.accounts import Account
from balance.directory import create_account, read_account, top_up_account
from balance.keys import POLICY_EVENTS
from balance.model import AccountKind, IdentityType, Subscriber
from balance.store import Store
from balance.subscribers import add_subscriber
from balance.transitions import waiting
from occ.cli_shell import RefusedError, text_of
from occ.clock import now_ms
from occ.notices.templates import Templates
from occ.policy.reading import OperatorPolicies, parse_policies
from occ.policy.watching import rules_in_force
from occ.rating.catalogue import Catalogue
from occ.rating.currency import currency_name, format_amount
from occ.settings import SHIPPED, Settings
from protocols.credit_control import ReceivedAnswer, ServiceAnswer, ServiceRequest, Units
from protocols.diameter.codes import CCRequestType, Command, FinalUnitAction, ReportingReason, ResultCode
from simulators.client import ChargingClient, ClientOptions, ServerRequest
from simulators.messages import Head, call_request, pgw_request
from simulators.population import Subscriber as Line
from simulators.summary import Statistics

REALM: Final = "demo.example.net"
PLAN: Final = "standard"
MIB: Final = 1 << 20
BALANCE: Final = 3_500_000
OVERDRAFT: Final = 1_000_000
LOW: Final = 2_000_000
TOP_UP: Final = 10_000_000
INTERNET, PORTAL = 10, 20
"""Rating-Groups of the catalogue that comes with the project."""
LOCAL: Final = "49305550100"
ABROAD: Final = "33155501000"
MOST_UPDATES: Final = 200
"""After so many a part of the play that does not come to its end is given up."""
PATIENCE_S: Final = 5.0

_NAMES: Final = {INTERNET: "Internet", PORTAL: "portal"}


@dataclass(slots=True, eq=False)
class _Session:
    """One session of a client: what it is called, and what it holds."""

    title: str
    session_id: str
    client: ChargingClient
    message: "Callable[[_Session, CCRequestType, dict[int, int] | None], bytes]"
    number: int = 0
    answer: ReceivedAnswer | None = None
    asked: bool = False
    """The server has asked it to report."""

    def granted(self, rating_group: int | None) -> int:
        """Units it holds of a service, or of its only one (None)."""
        for service in () if self.answer is None else self.answer.services:
            if rating_group in (None, service.rating_group) and service.granted is not None:
                return service.granted.total_octets or service.granted.time or 0
        return 0


class PolicyPlay:
    """The whole play, scene after scene. ``out``: where it is printed."""

    def __init__(self, store: Store, settings: Settings, catalogue: Catalogue, out: Console) -> None:
        self._store = store
        self._settings = settings
        self._catalogue = catalogue
        self._out = out
        self._at_s = int(time())
        number = self._at_s % 100_000_000
        self._line = Line(number, f"4917{number:08}", f"26201{number:010}", False)
        self._account_id = f"demo-{self._line.msisdn}".encode()
        self._sessions: list[_Session] = []
        self._clients: list[ChargingClient] = []
        self._seen = b"0"
        self._is_sending = False
        self._overtaking: list[str] = []
        """What the server has asked while an answer was waited for."""
        self._texts = Templates.load(settings.notices.templates or SHIPPED / "templates", settings.notices.language)

    async def run(self) -> None:
        """Raises RefusedError where the server or its rules are not as the play needs them, and SimulationError."""
        await self._check_rules()
        gateway, ims = await self._connect("gateway"), await self._connect("ims")
        try:
            await self._open_account()
            await self._play(gateway, ims)
        finally:
            for client in self._clients:
                await client.close()

    async def _play(self, gateway: ChargingClient, ims: ChargingClient) -> None:
        data = self._session("data session", gateway, self._data)
        await self._scene("With money everything goes")
        await self._send(data, CCRequestType.INITIAL)

        await self._scene("Below 2.00 the subscriber is told, and nothing else changes")
        await self._use_data(data, lambda balance: balance < LOW)

        await self._scene("A call abroad begins, and the last money is used up on the Internet")
        abroad = self._session("call abroad", ims, self._call(ABROAD))
        await self._send(abroad, CCRequestType.INITIAL)
        await self._use_data(data, lambda balance: balance <= 0)

        await self._scene(
            "At zero, calls out of town and abroad end, and cost their last minute; below zero it is slow"
        )
        await self._obey(abroad, {0: 30})
        await self._send(abroad, CCRequestType.TERMINATION)
        await self._obey(data)

        await self._scene("A local call goes on, on credit, to the limit; then only the portal is left")
        local = self._session("local call", ims, self._call(LOCAL))
        await self._send(local, CCRequestType.INITIAL)
        await self._talk(local)
        await self._send(local, CCRequestType.TERMINATION)
        await self._obey(data)
        await self._send(data, CCRequestType.UPDATE, {PORTAL: MIB})

        await self._scene("10.00 are topped up: all of it is restored at once")
        await top_up_account(
            self._store, self._account_id, TOP_UP, now_ms=now_ms(), reason="demonstration", bucket_id=1
        )
        await self._obey(data)
        again = self._session("call abroad", ims, self._call(ABROAD))
        await self._send(again, CCRequestType.INITIAL)
        for session in (again, data):
            await self._send(session, CCRequestType.TERMINATION)
        await self._told()
        account = (await self._account()).account_id
        self._out.print(f"\nThe account stays: occ account history {text_of(account)}")

    # -- before it begins --------------------------------------------------------------------------------------------

    async def _check_rules(self) -> None:
        in_force = await rules_in_force(self._store)
        if in_force is None:
            raise RefusedError("the running server has no policies; set policies in its configuration")
        found: OperatorPolicies = parse_policies(in_force.text, in_force.source, self._catalogue)
        names = {level.name for level in found.policies.levels}
        missing = [name for name in ("low", "zero", "negative", "limit-reached") if name not in names]
        if missing:
            raise RefusedError(
                f"the rules in force have no level {missing[0]}; the demonstration is of those in config/policies.yaml"
            )
        newest = await self._store.call("XREVRANGE", POLICY_EVENTS, "+", "-", "COUNT", 1)
        self._seen = bytes(newest[0][0]) if newest else b"0"

    async def _connect(self, name: str) -> ChargingClient:
        diameter = self._settings.diameter
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(diameter.host, diameter.host)
        options = ClientOptions(host, diameter.port, f"{name}.{REALM}", REALM)
        client = ChargingClient(options, Statistics(), Random(1), self._asked)
        self._clients.append(client)
        await client.connect()
        return client

    async def _open_account(self) -> None:
        line, at_ms = self._line, now_ms()
        await create_account(
            self._store,
            self._account_id,
            AccountKind.PREPAID,
            self._catalogue.currency,
            now_ms=at_ms,
            reason="demonstration",
            balance_micro=BALANCE,
            credit_limit_micro=OVERDRAFT,
        )
        identities = ((int(IdentityType.E164), line.msisdn.encode()), (int(IdentityType.IMSI), line.imsi.encode()))
        await add_subscriber(self._store, Subscriber(self._account_id, self._account_id, PLAN, identities))
        self._out.print(
            f"Subscriber {line.msisdn}, prepaid, with {self._money(BALANCE)} and an overdraft of "
            f"{self._money(OVERDRAFT)}.\n"
            "->: what the network asks; <-: what it is told; notice: what the subscriber is told."
        )

    # -- what clients do ---------------------------------------------------------------------------------------------

    def _session(
        self,
        title: str,
        client: ChargingClient,
        message: Callable[[_Session, CCRequestType, dict[int, int] | None], bytes],
    ) -> _Session:
        name = f"{title.replace(' ', '-')}.{REALM};{self._at_s};{self._line.number};{len(self._sessions)}"
        session = _Session(title, name, client, message)
        self._sessions.append(session)
        return session

    def _head(self, session: _Session, kind: CCRequestType) -> Head:
        realm = self._settings.diameter.origin_realm
        host = "gateway" if session.message == self._data else "ims"
        return Head(
            f"{host}.{REALM}", REALM, realm, session.session_id, self._line, kind, session.number, int(time()),
            session.client.next_end_to_end(),
        )  # fmt: skip

    def _data(self, session: _Session, kind: CCRequestType, used: dict[int, int] | None) -> bytes:
        """A data session of Internet and portal; an update is about those that it reports, about both if none."""
        services: list[ServiceRequest] = []
        for group, wanted in ((INTERNET, 100 * MIB), (PORTAL, 10 * MIB)):
            if kind is CCRequestType.UPDATE and used and group not in used:
                continue
            octets = (used or {}).get(group, 0)
            reported = () if kind is CCRequestType.INITIAL else (Units(total_octets=octets),)
            asked = None if kind is CCRequestType.TERMINATION else Units(total_octets=wanted)
            reason = ReportingReason.FINAL if kind is CCRequestType.TERMINATION else None
            services.append(ServiceRequest(group, (), asked, reported, reason))
        return pgw_request(self._head(session, kind), services)

    def _call(self, called: str) -> Callable[[_Session, CCRequestType, dict[int, int] | None], bytes]:
        def message(session: _Session, kind: CCRequestType, used: dict[int, int] | None) -> bytes:
            seconds = None if kind is CCRequestType.INITIAL else (used or {}).get(0, 0)
            asked = None if kind is CCRequestType.TERMINATION else 60
            return call_request(self._head(session, kind), called, requested_s=asked, used_s=seconds)

        return message

    async def _send(
        self, session: _Session, kind: CCRequestType, used: dict[int, int] | None = None, *, quiet: bool = False
    ) -> None:
        self._is_sending = True
        answer = await session.client.exchange(session.message(session, kind, used))
        self._is_sending = False
        overtaking, self._overtaking = self._overtaking, []
        session.number += 1
        if answer is None:
            raise RefusedError("the server does not answer; its log says why")
        session.answer, session.asked = answer, False
        if not quiet:
            self._out.print(f"  -> {session.title}: {_asked_text(kind, used)}")
            self._out.print(f"  <- {session.title}: {_answer_text(answer)}")
        for line in overtaking:
            self._out.print(line)
        if not quiet:
            await self._told()

    async def _use_data(self, session: _Session, until: Callable[[int], bool]) -> None:
        """Use up what is granted, and ask for more, until the balance is where it should be."""
        for sent in range(MOST_UPDATES):
            octets = session.granted(INTERNET)
            if not octets:
                raise RefusedError(
                    "the Internet is not granted any more; are the rules and prices those of the project?"
                )
            balance = await self._balance() - octets // MIB * 10_000
            last = until(balance)
            await self._send(session, CCRequestType.UPDATE, {INTERNET: octets}, quiet=not last)
            if until(await self._balance()):
                if sent:
                    self._out.print(f"     (after {sent} more such updates)")
                return
        raise RefusedError("the money is not used up; are the prices those of the project?")

    async def _talk(self, session: _Session) -> None:
        """Talk for as long as it is granted."""
        for sent in range(MOST_UPDATES):
            last = session.answer is not None and any(
                each.final_unit_action is not None for each in session.answer.services
            )
            await self._send(session, CCRequestType.UPDATE, {0: session.granted(None)}, quiet=not last)
            if not session.granted(None):
                if sent:
                    self._out.print(f"     (after {sent} more such updates)")
                return
        raise RefusedError("the call does not end; are the rules and prices those of the project?")

    async def _obey(self, session: _Session, used: dict[int, int] | None = None) -> None:
        """Report as the server has asked; wait until it has."""
        deadline = time() + PATIENCE_S
        while not session.asked:
            if time() > deadline:
                raise RefusedError(f"the server has not asked about the {session.title} within {PATIENCE_S:g} s")
            await asyncio.sleep(0.01)
        await self._send(session, CCRequestType.UPDATE, used)

    def _asked(self, request: ServerRequest) -> int:
        """RAR and ASR, as they come."""
        for session in self._sessions:
            if session.session_id == request.session_id:
                what = "Re-Auth-Request" if request.command is Command.RE_AUTH else "Abort-Session-Request"
                scope = "" if request.rating_group is None else f" for Rating-Group {request.rating_group}"
                line = f"  <- {session.title}: {what}{scope}"
                if self._is_sending:
                    self._overtaking.append(line)
                else:
                    self._out.print(line)
                session.asked = True
                return int(ResultCode.LIMITED_SUCCESS)
        return int(ResultCode.UNKNOWN_SESSION_ID)

    # -- what is printed ---------------------------------------------------------------------------------------------

    async def _scene(self, title: str) -> None:
        account = await self._account()
        levels = ", ".join(account.levels) or "no level"
        self._out.print(f"\n{title}\n  balance {self._money(account.buckets[0].balance)}, at {levels}")

    async def _told(self) -> None:
        """The notices that have become due since the last look."""
        deadline = time() + PATIENCE_S
        while time() < deadline and not any(each.asked for each in self._sessions):
            if not await waiting(self._store):
                break
            await asyncio.sleep(0.01)
        entries = await self._store.call("XRANGE", POLICY_EVENTS, b"(" + self._seen, "+")
        for entry_id, fields in entries:
            self._seen = bytes(entry_id)
            event = json.loads(fields[1])
            if event["account"].encode() == self._account_id and "notice" in event:
                self._out.print(f"  notice {event['notice']} (rule {event['rule']})")
                text = await self._text(event["notice_id"].encode())
                if text:
                    self._out.print(f"     {text}")

    async def _text(self, notice_id: bytes) -> str:
        """What the subscriber reads, in the language of the settings; empty where notices are not enabled."""
        settings = self._settings.notices
        if not settings.enabled:
            return ""
        deadline = time() + PATIENCE_S
        known = await notices.read(self._store, notice_id)
        while known is None and time() < deadline:
            await asyncio.sleep(0.05)
            known = await notices.read(self._store, notice_id)
        if known is None:
            return ""
        told = {"operator": settings.operator, "number": self._line.msisdn, "channel": "log"}
        return self._texts.render(known.delivery.notice, settings.language, told, settings.time_zone).body

    async def _account(self) -> Account:
        account = await read_account(self._store, self._account_id)
        assert account is not None
        return account

    async def _balance(self) -> int:
        return (await self._account()).buckets[0].balance

    def _money(self, micro: int) -> str:
        return f"{format_amount(micro)} {currency_name(self._catalogue.currency)}"


def _asked_text(kind: CCRequestType, used: dict[int, int] | None) -> str:
    reported = ", ".join(_used_text(group, units) for group, units in (used or {}).items())
    return f"CCR {kind.name}" + (f", used {reported}" if reported else "")


def _used_text(group: int, units: int) -> str:
    return f"{_units(units, is_time=not group)}{f' of {_NAMES[group]}' if group in _NAMES else ''}"


def _units(units: int, *, is_time: bool) -> str:
    if is_time:
        return f"{units} s"
    return f"{units // MIB} MiB" if units % MIB == 0 else f"{units} B"


def _answer_text(answer: ReceivedAnswer) -> str:
    services = "; ".join(text for service in answer.services if (text := _service_text(service)))
    return f"{_code(answer.result_code)}" + (f": {services}" if services else "")


def _service_text(service: ServiceAnswer) -> str:
    """What became of one service; nothing to say of one that was only reported."""
    group = service.rating_group
    parts = [f"{_NAMES[group]} " if group in _NAMES else ""]
    code = service.result_code
    if code not in (None, ResultCode.SUCCESS):
        parts.append(_code(code))
    elif service.granted is not None:
        octets, seconds = service.granted.total_octets, service.granted.time
        parts.append(_units(seconds or 0, is_time=True) if octets is None else _units(octets, is_time=False))
        parts.append(" granted")
    if service.final_unit_action is not None:
        parts.append(f", Final-Unit-Action {FinalUnitAction(service.final_unit_action).name}")
    if service.filter_ids:
        parts.append(f", Filter-Id {', '.join(each.decode() for each in service.filter_ids)}")
    if service.validity_time is not None:
        parts.append(f", valid {service.validity_time} s")
    return "".join(parts) if len(parts) > 1 else ""


def _code(code: int) -> str:
    try:
        return f"{int(code)} {ResultCode(code).name}"
    except ValueError:
        return str(code)
