"""One run of the simulation: workers, store, clients and what befalls them, all from one seed."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from balance.accounts import Account
from balance.directory import NewBucket, create_account, top_up_account
from balance.embedded import Address
from balance.model import AccountKind, Subscriber, Unit
from balance.nodes import Primary
from balance.plans import Outcome
from balance.records import JournalRecord, unpack_account, unpack_journal, unpack_outbox
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from occ.cdr import as_json_fields
from occ.charging import Charging
from occ.expiry import Expiry
from occ.profiles import LENIENT
from occ.rating.catalogue import read_catalogue
from occ.rules import ChargingSettings, Rules
from occ.yamlmap import parse_yaml
from protocols.credit_control import CreditControlRequest
from tests.simulation.auditor import PaidIn, audit_account, audit_usage
from tests.simulation.clients import Behaviour, Client
from tests.simulation.memory_redis import MemoryRedis
from tests.simulation.virtual_time import VirtualLoop

EPOCH_MS: Final = 1_767_225_600_000
PATH: Final = "/memory"
EUR: Final = 978
PARTITIONS: Final = 4

CATALOGUE: Final = """
version: simulation
currency: EUR
services:
  internet:
    context: 32251@3gpp.org
    rating_groups: [10]
    unit: octets
    quota: 1 MiB
    validity: 60 s
  portal:
    context: 32251@3gpp.org
    rating_groups: [20]
    unit: octets
    quota: 1 MiB
    validity: 60 s
  voice:
    context: 32260@3gpp.org
    rating_groups: any
    unit: seconds
    quota: 60 s
    validity: 60 s
  sms:
    context: 32274@3gpp.org
    rating_groups: any
    unit: events
    quota: 1 event
    validity: 60 s
plans:
  standard:
    internet: 0.01 per 1 MiB
    portal: free
    voice: 0.09 per 60 s
    sms: 0.05 per 1 event
"""


@dataclass(slots=True)
class Hazards:
    """What befalls the workers and the network, per second of the run unless it says otherwise."""

    lost: float = 0.03
    """A request, or an answer, is lost on its way (of all)."""
    worker_dies: float = 0.01
    store_breaks: float = 0.008
    clock_steps: float = 0.01
    top_ups: float = 0.05


@dataclass(slots=True)
class Result:
    seed: int
    faults: list[str] = field(default_factory=list)
    answered: int = 0
    repeats: int = 0
    commands: int = 0
    deaths: int = 0
    outages: int = 0
    seconds: float = 0.0
    balances_micro: tuple[int, ...] = ()


class Worker:
    """One charging process: everything in it is lost when it dies."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.name = b"occ%d" % number
        self.skew_ms = 0
        """By how much its clock is wrong."""
        self.is_up = False
        self.tasks: list[asyncio.Task[None]] = []

    def now_ms(self) -> int:
        return self.world.now_ms() + self.skew_ms

    async def start(self) -> None:
        """Wait for the store, as a server does, then charge."""
        self.store = Store(StoreSettings(Address(Path(PATH)), PARTITIONS))
        while True:
            try:
                await self.store.start()
                break
            except StoreError:
                await asyncio.sleep(0.2)
        self.charging = Charging(self.store, Rules(self.world.catalogue, ChargingSettings(late_termination_ms=600_000)))
        expiry = Expiry(self.charging, self.now_ms)
        self.tasks = [asyncio.get_running_loop().create_task(expiry.run())]
        self.is_up = True

    def die(self) -> None:
        """As by kill -9: what was sent to the store may or may not be carried out, nothing else goes on."""
        self.is_up = False
        for task in self.tasks:
            task.cancel()
        nodes = self.store._nodes
        assert isinstance(nodes, Primary)
        for connection in tuple(self.world.redis.connections):
            link: object = connection.protocol
            if link is nodes._link:
                connection.break_off(forgotten=True)
        if nodes._reconnecting is not None:
            nodes._reconnecting.cancel()


class World:
    def __init__(self, seed: int, loop: VirtualLoop, tell: Callable[[str], None] | None = None) -> None:
        self.random = Random(seed)
        self.loop = loop
        self.tell = tell
        self.result = Result(seed)
        self.hazards: Hazards | None = Hazards()
        self.redis = MemoryRedis(loop, self.random, self.now_ms)
        self.catalogue = read_catalogue(parse_yaml(CATALOGUE, "simulation.yaml", Path()))
        self.workers = [Worker(self, number) for number in range(1, self.random.randint(1, 3) + 1)]
        self.paid_in: dict[bytes, PaidIn] = {}
        loop.servers[PATH] = self.redis.connect
        self._references = itertools.count()

    def now_ms(self) -> int:
        """The true time."""
        return EPOCH_MS + int(self.loop.time() * 1000)

    def note(self, text: str) -> None:
        if self.tell is not None:
            self.tell(f"{self.loop.time():9.3f} s  {text}")

    # -- the network ---------------------------------------------------------------------------------------------

    def send(self, request: CreditControlRequest, answered: Callable[[Outcome], None]) -> None:
        """To any worker that runs; both ways take a moment, and may lose it."""
        if not self._lost():
            self.loop.call_later(self.random.uniform(0.0005, 0.02), self._arrive, request, answered)

    def _lost(self) -> bool:
        return self.hazards is not None and self.random.random() < self.hazards.lost

    def _arrive(self, request: CreditControlRequest, answered: Callable[[Outcome], None]) -> None:
        running = [worker for worker in self.workers if worker.is_up]
        if not running:
            return
        worker = self.random.choice(running)

        def done(outcome: Outcome) -> None:
            granted = [(each.rating_group, each.units, each.result_code) for each in outcome.grants]
            what = f"{request.session_id!r} {request.request_type}/{request.request_number}"
            self.note(f"{worker.name.decode()} {what} {outcome.result_code} {granted}")
            if worker.is_up and not self._lost():
                self.loop.call_later(self.random.uniform(0.0005, 0.02), answered, outcome)

        worker.charging.charge(request, LENIENT, request.origin_host, worker.now_ms(), done)

    # -- what befalls it -----------------------------------------------------------------------------------------

    async def _hazards(self) -> None:
        random = self.random
        while (hazards := self.hazards) is not None:
            await asyncio.sleep(0.5)
            for worker in self.workers:
                if worker.is_up and random.random() < hazards.worker_dies / 2:
                    self.note(f"{worker.name.decode()} dies")
                    self.result.deaths += 1
                    worker.die()
                    self._later(random.uniform(0.1, 5.0), worker.start())
                elif random.random() < hazards.clock_steps / 2:
                    worker.skew_ms = random.choice([0, 0, random.randint(-3000, 3000), random.randint(-60_000, 90_000)])
                    self.note(f"{worker.name.decode()} has its clock {worker.skew_ms} ms off")
            if self.redis.is_up and random.random() < hazards.store_breaks / 2:
                self.note("the store breaks")
                self.result.outages += 1
                self.redis.crash()
                self.loop.call_later(random.uniform(0.05, 3.0), self._store_is_back)
            if random.random() < hazards.top_ups / 2:
                self._later(0.0, self._top_up())

    def _store_is_back(self) -> None:
        self.redis.is_up = True
        self.note("the store is back")

    def _later(self, delay_s: float, work: Any) -> None:
        async def wait() -> None:
            await asyncio.sleep(delay_s)
            await work

        self.under_way.append(self.loop.create_task(wait()))

    async def _top_up(self) -> None:
        """One payment, sent again with its reference until it is acknowledged or its sender gives up."""
        account_id = self.random.choice(list(self.paid_in))
        amount = self.random.randint(1, 3_000_000)
        reference = f"payment-{next(self._references)}"
        worker = self.random.choice(self.workers)
        for _ in range(self.random.randint(1, 4)):
            if worker.is_up:
                work = top_up_account(
                    worker.store, account_id, amount, now_ms=worker.now_ms(), reason="payment", reference=reference
                )
                try:
                    await asyncio.wait_for(work, 2.0)  # whoever waits for a worker that died gives up
                    self.paid_in[account_id].certain_micro += amount
                    return
                except (StoreError, TimeoutError):
                    pass
            await asyncio.sleep(self.random.uniform(0.1, 2.0))
            worker = self.random.choice(self.workers)
        self.paid_in[account_id].doubtful_micro.append(amount)

    # -- the run -------------------------------------------------------------------------------------------------

    async def run(self) -> Result:
        self.under_way: list[asyncio.Task[None]] = []
        for worker in self.workers:
            await worker.start()
        subscribers = await self._accounts()
        clients = [
            Client(b"c%d" % number, subscriber, self.random, self.send, Behaviour(), self.result.faults)
            for number, subscriber in enumerate(subscribers, 1)
            for _ in range(1)
        ]
        hazards = self.loop.create_task(self._hazards())
        await asyncio.gather(*(client.run(self.random.randint(1, 6)) for client in clients))
        self.hazards = None
        await hazards
        await asyncio.gather(*self.under_way)
        await asyncio.sleep(5.0)  # longer than an outage
        for worker in self.workers:
            worker.skew_ms = 0
        await asyncio.sleep(400.0)  # whatever is still open comes to its end by supervision
        self._audit(clients)
        for worker in self.workers:
            worker.die()
        return self.result

    async def _accounts(self) -> list[bytes]:
        store, random = self.workers[0].store, self.random
        subscribers = []
        for number in range(1, random.randint(2, 5)):
            account_id = b"a%d" % number
            postpaid = random.random() < 0.3
            balance = 0 if postpaid else random.randint(0, 2_000_000)
            bonus = random.randint(1, 500_000)
            expires_ms = random.choice([0, EPOCH_MS + random.randint(20_000, 400_000)])
            kind = AccountKind.POSTPAID if postpaid else AccountKind.PREPAID
            await create_account(
                store,
                account_id,
                kind,
                EUR,
                now_ms=self.now_ms(),
                reason="simulation",
                balance_micro=balance,
                credit_limit_micro=random.randint(0, 3_000_000) if postpaid else 0,
                buckets=[NewBucket(Unit.MONEY, bonus, 50, expires_ms)],
            )
            self.paid_in[account_id] = PaidIn(balance + bonus)
            for member in range(random.randint(1, 3)):
                name = b"49170%d%d" % (number, member)
                await add_subscriber(store, Subscriber(name, account_id, "standard", ((0, name),)))
                subscribers.append(name)
        return subscribers

    # -- afterwards ----------------------------------------------------------------------------------------------

    def _audit(self, clients: list[Client]) -> None:
        faults, result = self.result.faults, self.result
        said = {key: what for client in clients for key, what in client.said.items()}
        debited = audit_usage(said, self._records(), faults)
        journal = self._journal()
        accounts = self._stored()
        for account in accounts:
            name = account.account_id
            audit_account(account, self.paid_in[name], debited.get(name.decode(), 0), journal.get(name, []), faults)
        result.answered = sum(client.answered for client in clients)
        result.repeats = sum(client.repeats for client in clients)
        result.commands = self.redis.commands
        result.seconds = self.loop.time()
        result.balances_micro = tuple(sum(bucket.balance for bucket in account.buckets) for account in accounts)

    def _stored(self) -> list[Account]:
        found = []
        for name in self.paid_in:
            key = next(key for key in self.redis.data if key.endswith(b":a:" + name))
            found.append(unpack_account(name, self.redis.data[key]))
        return found

    def _stream(self, suffix: bytes) -> list[list[bytes]]:
        return [fields for key, entries in self.redis.data.items() if key.endswith(suffix) for _, fields in entries]

    def _records(self) -> list[dict[str, Any]]:
        return [
            as_json_fields(record)
            for fields in self._stream(b":outbox")
            for packed in fields[1::2]
            for record in unpack_outbox(packed)
        ]

    def _journal(self) -> dict[bytes, list[JournalRecord]]:
        found: dict[bytes, list[JournalRecord]] = {}
        for fields in self._stream(b":journal"):
            for packed in fields[1::2]:
                record = unpack_journal(packed)
                found.setdefault(record.account_id, []).append(record)
        return found


def run(seed: int, tell: Callable[[str], None] | None = None, change: Callable[[World], None] | None = None) -> Result:
    """One run. ``tell``: is told what happens; ``change``: may change the world before it begins."""
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        world = World(seed, loop, tell)
        if change is not None:
            change(world)
        return loop.run_until_complete(world.run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
