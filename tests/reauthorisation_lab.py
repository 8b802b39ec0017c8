"""One account with sessions of clients that a running server asks: what the tests of re-authorisation share."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from balance.accounts import Account, Session
from balance.model import IdentityType
from occ.reauthorisation import Reauthorisation
from occ.server_requests import Result
from tests.asked_client import REALM, AskedClient
from tests.live_server import LiveServer

T = TypeVar("T")

_numbers = itertools.count(1)


class Lab:
    """One account and the clients of one test, all with names of their own."""

    def __init__(self, server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
        self.server = server
        self._caplog = caplog
        self.number = next(_numbers)
        self.name = f"acc-{self.number}"
        self.subscriber = f"4917{self.number:06}"
        self.session = f"pgw.example.net;1;{self.number}"
        server.add_account(self.name, [(IdentityType.E164, self.subscriber)], balance_micro=1_000_000)
        self.clients: list[AskedClient] = []

    async def client(self, name: str = "pgw", **settings: Any) -> AskedClient:
        client = AskedClient(f"{name}{self.number}.{REALM}", **settings)
        self.clients.append(client)
        return await client.connect(self.server.port)

    async def session_of(self, client: AskedClient, behind: str = "", session: str = "") -> None:
        answer = await client.begin(session or self.session, self.subscriber, behind)
        assert answer.result_code == 2001

    async def ask(self, start: Callable[[Reauthorisation], Awaitable[T]]) -> T:
        async def started() -> T:
            return await start(self.server.server.reauthorisation)

        return await asyncio.to_thread(self.server.run, started())

    async def reauthorise(self, **scope: int) -> Result:
        return await self.ask(lambda asker: asker.reauthorise(self.name.encode(), self.session.encode(), **scope))

    async def abort(self) -> Result:
        return await self.ask(lambda asker: asker.abort(self.name.encode(), self.session.encode()))

    def account(self) -> Account:
        return self.server.account(self.name)

    def open_session(self) -> Session | None:
        return self.account().sessions.get(self.session.encode())

    def money(self) -> tuple[int, int]:
        """Balance and reserved, in cents."""
        bucket = self.account().buckets[0]
        return bucket.balance // 10_000, bucket.reserved // 10_000

    def records(self) -> list[dict[str, Any]]:
        found = (json.loads(line) for line in self.server.cdr_lines())
        return [record for record in found if record["session_id"] == self.session]

    def unkept(self) -> int:
        """How often the log says that a client did not do what it had agreed to."""
        told = [record.getMessage() for record in self._caplog.records if record.name == "occ.reauthorisation"]
        return sum("has done nothing since" in text and f"'{self.session}'" in text for text in told)


async def eventually(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - what is awaited happens in another thread
            await asyncio.sleep(0.02)
