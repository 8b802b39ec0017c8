"""A running server with policy counters, and policy nodes that subscribe to them: what the tests of Sy share."""

import asyncio
import itertools
from collections.abc import Callable, Collection
from typing import Any

from balance.accounts import Account
from balance.directory import adjust_account, read_account, set_account_state
from balance.model import MAIN_BUCKET, IdentityType, LifeState, Subscriber
from balance.subscriptions import Kept, find_subscription
from occ.lifecycle import check_change
from occ.sy_counters import SyStatistics
from occ.sy_notifications import SyNotificationSettings
from policies.counters import CounterStatus
from simulators.policy_node import Heard, PolicyNode, PolicyNodeOptions
from tests.live_server import LiveServer

QUICK = SyNotificationSettings(answer_within_s=0.5, pauses_s=(0.1, 0.2), relay_delay_s=0.1)
MICRO = 1_000_000

_numbers = itertools.count(1)


class Counters:
    """MAIN_BALANCE follows the money of an account; whatever ``others`` holds stands as it says there.

    Prepaid accounts are "active" from 1.00 on, "low" above nothing, "zero" then.
    """

    def __init__(self) -> None:
        self.others: dict[str, CounterStatus] = {}
        self.withheld: set[str] = set()
        """Counters that there are, but which no account has."""

    def counters(self, account: Account, subscriber: Subscriber, now_ms: int) -> dict[str, CounterStatus]:
        bucket = account.bucket(MAIN_BUCKET)
        assert bucket is not None
        status = "active" if bucket.balance >= MICRO else "low" if bucket.balance > 0 else "zero"
        found = {"MAIN_BALANCE": CounterStatus(status), **self.others}
        return {name: each for name, each in found.items() if name not in self.withheld}

    def known(self) -> Collection[str]:
        return {"MAIN_BALANCE", "NOBODY_HAS", *self.others}


class Lab:
    """One account with 5.00, its subscriber, and the policy nodes of one test, all with names of their own."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.number = next(_numbers)
        self.name = f"sy-{self.number}"
        self.msisdn = f"49174{self.number:07}"
        server.add_account(self.name, [(IdentityType.E164, self.msisdn)], balance_micro=5 * MICRO)
        self.source = Counters()
        self.serve(server)
        self.nodes: list[PolicyNode] = []
        self.heard: list[Heard] = []

    def serve(self, *servers: LiveServer) -> None:
        """Have servers tell of this test's counters."""
        for server in servers:
            server.server.sy.notifications.source = self.source
            server.server.sy.notifications.settings = QUICK

    async def node(self, server: LiveServer | None = None, name: str = "pcrf", **settings: Any) -> PolicyNode:
        """A policy node that is connected."""
        options = PolicyNodeOptions(
            port=(server or self.server).port, origin_host=f"{name}{self.number}.policy.example.net", **settings
        )
        node = PolicyNode(options, self.heard.append)
        self.nodes.append(node)
        return await node.connect()

    async def subscribed(self, node: PolicyNode, *counters: str) -> str:
        """The Session-Id of a new subscription for the subscriber."""
        before = set(node.sessions)
        answer = await node.subscribe(self.msisdn, counters)
        assert answer.result_code == 2001, answer
        (session,) = set(node.sessions) - before
        await eventually(lambda: not self.statistics.in_flight)  # it has looked whether something changed meanwhile
        return session

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()

    # -- the account ---------------------------------------------------------------------------------------------

    async def balance(self, micro: int, *, told: bool = True) -> int:
        """Have so much money on the account; how many subscriptions the server begins to tell."""
        store, account_id = self.server.server.store, self.name.encode()

        async def change() -> None:
            bucket = (await self._account()).bucket(MAIN_BUCKET)
            assert bucket is not None
            if micro != bucket.balance:
                difference = micro - bucket.balance
                await adjust_account(store, account_id, difference, now_ms=self.server.now_ms(), reason="test")

        await asyncio.to_thread(self.server.run, change())
        return await self.changed() if told else 0

    async def _account(self) -> Account:
        account = await read_account(self.server.server.store, self.name.encode())
        assert account is not None
        return account

    async def changed(self, server: LiveServer | None = None) -> int:
        """The server learns that the account has changed."""
        told = server or self.server
        work = told.server.sy.account_changed(self.name.encode(), told.now_ms())
        return await asyncio.to_thread(told.run, work)

    async def terminated(self) -> None:
        store, account_id, now_ms = self.server.server.store, self.name.encode(), self.server.now_ms()
        work = set_account_state(store, account_id, LifeState.TERMINATED, now_ms, "test", check_change)
        await asyncio.to_thread(self.server.run, work)
        await self.changed()

    async def kept(self, session: str) -> Kept | None:
        """The subscription as the store has it."""
        work = find_subscription(self.server.server.store, session.encode())
        return await asyncio.to_thread(self.server.run, work)

    @property
    def statistics(self) -> SyStatistics:
        return self.server.server.sy.statistics

    def results(self) -> dict[str, int]:
        return dict(self.statistics.results)


def told(node: PolicyNode) -> list[list[tuple[str, str]]]:
    """What the notifications of a node said: (counter, status) of each report."""
    return [[(report.identifier, report.status) for report in request.reports] for request in node.notified]


async def eventually(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - what is awaited happens in another thread
            await asyncio.sleep(0.02)
