"""An account of the book of examples as time goes by: each line is done by the server, on a real store."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from balance import directory
from balance.accounts import Account
from balance.model import AccountKind, Subscriber, Unit
from balance.plans import Outcome
from balance.store import Store
from balance.subscribers import add_subscriber, change_plan
from occ.awards import awards_for
from occ.charging import Charging
from occ.cli_offers import give_offer
from occ.codes import INITIAL, SUCCESS, TERMINATION, UPDATE
from occ.expiry import Expiry
from occ.profiles import LENIENT
from occ.rating.catalogue import Catalogue
from occ.rating.currency import format_amount, parse_amount
from occ.rating.explain import units_in_words
from occ.rating.service import Service
from occ.rating.sizes import parse_size
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

ACCOUNT: Final = b"account"
SUBSCRIBER: Final = b"subscriber"
_END_USER_PRIVATE: Final = 4


@dataclass(slots=True)
class _Session:
    """One session of one service."""

    name: bytes
    service: Service
    requests: int = 0


class BookAccount:
    """One account with one subscriber, and a clock that each line sets."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue
        self._now_ms = 0
        self._charging = Charging(store, Rules(catalogue, ChargingSettings()))
        self._expiry = Expiry(self._charging, lambda: self._now_ms)
        self._open: dict[str, _Session] = {}
        self._sessions = 0
        self._lines: tuple[tuple[re.Pattern[str], Callable[..., Awaitable[None]]], ...] = (
            (re.compile(r"begins with (\S+) on the plan (\S+)"), self._begins),
            (re.compile(r"takes the offer (\S+)"), self._takes),
            (re.compile(r"tops up (\S+)"), self._tops_up),
            (re.compile(r"changes to the plan (\S+)"), self._changes_plan),
            (re.compile(r"uses (.+) of (\S+)"), self._uses),
            (re.compile(r"begins to use (\S+)"), self._begins_to_use),
            (re.compile(r"has used (.+) of (\S+?)(?:, and (.+) since the switch)?"), self._has_used),
            (re.compile(r"ends (\S+) after (.+) more"), self._ends),
            (re.compile(r"the clock(?:: .+)?"), self._nothing),
        )

    async def do(self, when: str, what: str) -> None:
        """Let the clock do what is due by then, and after it what the line says."""
        moment = datetime.fromisoformat(when).replace(tzinfo=self._catalogue.calendar.time_zone)
        at_ms = int(moment.timestamp()) * 1000
        assert at_ms >= self._now_ms, f"{when} is before the line above it"
        self._now_ms = at_ms
        while await self._expiry.scan(self._now_ms):
            pass
        for pattern, action in self._lines:
            if found := pattern.fullmatch(what):
                await action(*found.groups())
                return
        raise AssertionError(f"nobody knows how this is done: {what}")

    async def left(self, bucket: str) -> str:
        """What is in the buckets of that name, ``money`` for the main one; empty if there is none."""
        account = await self._account()
        if bucket == "money":
            return _money(account.buckets[0].balance)
        found = [each for each in account.buckets if each.name == bucket]
        if not found:
            return ""
        amount, unit = sum(each.balance for each in found), Unit(found[0].unit)
        return _money(amount) if unit == Unit.MONEY else units_in_words(amount, unit)

    # -- what lines say ----------------------------------------------------------------------------------------------

    async def _begins(self, amount: str, plan: str) -> None:
        await directory.create_account(
            self._store,
            ACCOUNT,
            AccountKind.PREPAID,
            self._catalogue.currency_of(plan),
            now_ms=self._now_ms,
            reason="book",
            balance_micro=parse_amount(amount),
        )
        await add_subscriber(self._store, Subscriber(SUBSCRIBER, ACCOUNT, plan, ((_END_USER_PRIVATE, SUBSCRIBER),)))

    async def _takes(self, offer: str) -> None:
        await give_offer(self._store, self._catalogue, ACCOUNT, offer, b"", self._now_ms, "book")

    async def _tops_up(self, amount: str) -> None:
        micro = parse_amount(amount)
        awards = await awards_for(self._store, self._catalogue, ACCOUNT, micro, self._now_ms)
        await directory.top_up_account(
            self._store, ACCOUNT, micro, now_ms=self._now_ms, reason="book", also=awards.give
        )

    async def _changes_plan(self, plan: str) -> None:
        await change_plan(self._store, SUBSCRIBER, plan, self._now_ms, self._now_ms, "book")

    async def _uses(self, amount: str, name: str) -> None:
        session = await self._opened(name)
        left = parse_size(amount, session.service.unit)
        while left > session.service.maximum_quota_units:
            left -= session.service.maximum_quota_units
            await self._send(session, UPDATE, session.service.maximum_quota_units)
        await self._send(session, TERMINATION, left)

    async def _begins_to_use(self, name: str) -> None:
        self._open[name] = await self._opened(name)

    async def _has_used(self, amount: str, name: str, since_switch: str | None) -> None:
        session = self._open[name]
        unit = session.service.unit
        after = None if since_switch is None else parse_size(since_switch, unit)
        await self._send(session, UPDATE, parse_size(amount, unit), after)

    async def _ends(self, name: str, amount: str) -> None:
        session = self._open.pop(name)
        await self._send(session, TERMINATION, parse_size(amount, session.service.unit))

    async def _nothing(self) -> None:
        """The clock has done it."""

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _opened(self, name: str) -> _Session:
        service = self._catalogue.by_name.get(name)
        assert service is not None, name
        self._sessions += 1
        session = _Session(b"session-%d" % self._sessions, service)
        await self._send(session, INITIAL, None)
        return session

    async def _send(self, session: _Session, kind: int, used: int | None, after: int | None = None) -> None:
        """One request, which must succeed, after as much time as its seconds are."""
        service = session.service
        if service.unit == Unit.SECONDS and used is not None:
            self._now_ms += used * 1000
        reported: tuple[Units, ...] = ()
        if used is not None and after is not None:
            reported = (_units(service.unit, used, 0), _units(service.unit, after, 1))
        elif used is not None:
            reported = (_units(service.unit, used),)
        wanted = None if kind == TERMINATION else _units(service.unit, service.maximum_quota_units)
        asked = ServiceRequest(None, (), wanted, reported)
        request = CreditControlRequest(
            0xC0, 1, 2, session.name, b"client", b"realm", b"realm", service.context, kind, session.requests,
            subscriptions=((_END_USER_PRIVATE, SUBSCRIBER),), services=(asked,),
        )  # fmt: skip
        session.requests += 1
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._charging.charge(request, LENIENT, b"client", self._now_ms, answered.set_result)
        outcome = await answered
        assert outcome.result_code == SUCCESS
        assert all(grant.result_code == SUCCESS for grant in outcome.grants)

    async def _account(self) -> Account:
        found = await directory.read_account(self._store, ACCOUNT)
        assert found is not None
        return found


def _units(unit: Unit, amount: int, tariff_change_usage: int | None = None) -> Units:
    told: dict[str, Any] = {"tariff_change_usage": tariff_change_usage}
    return Units(time=amount, **told) if unit == Unit.SECONDS else Units(total_octets=amount, **told)


def _money(micro: int) -> str:
    written = format_amount(micro)
    return written if "." in written else f"{written}.00"
